/* query_rows.c - the rows of an answer as JSON text, written straight into the buffer: they are
 * nearly all of an answer, and through the general writer took half of the time of a question. */
#include <stdio.h>

#include "jobs/api/query_private.h"
#include "jobs/common/json.h"

#define FIELD_BYTES 64                    /* of a measure: its name and the longest number */
#define MEASURES_BYTES (12 * FIELD_BYTES) /* there are eleven at most */
#define ROW_BYTES 256                     /* what else is in a row, without its strings */

#define PUT(p, literal) put((p), (literal), sizeof(literal) - 1)

static uint8_t *put(uint8_t *p, const char *s, size_t n)
{
        memcpy(p, s, n);
        return p + n;
}

static uint8_t *put_u64(uint8_t *p, uint64_t v)
{
        uint8_t digits[20];
        size_t n = sizeof(digits);

        do {
                digits[--n] = (uint8_t)('0' + v % 10);
                v /= 10;
        } while (v);
        memcpy(p, digits + n, sizeof(digits) - n);
        return p + sizeof(digits) - n;
}

static uint8_t *put_micros(uint8_t *p, df_nanos nanos)
{
        __int128 micros = nanos ? df_nanos_to_micros(nanos) : 0;
        char text[DF_INT128_TEXT_MAX];

        if (micros >= 0 && micros <= UINT64_MAX)
                return put_u64(p, (uint64_t)micros);
        return put(p, text, (size_t)df_int128_text(micros, text));
}

/* ---- ratios: six significant digits, the last one rounded half to even ---- */

#define DIGITS 6

/* num / den is 0.ddd or d.ddd, with `point` zeros after the point before the digits. */
static uint8_t *put_digits(uint8_t *p, uint64_t digits, int point)
{
        uint8_t text[DIGITS];
        int n = DIGITS;

        for (int i = DIGITS - 1; i >= 0; i--, digits /= 10)
                text[i] = (uint8_t)('0' + digits % 10);
        while (n > 1 && text[n - 1] == '0')
                n--;
        p = PUT(p, "0.");
        for (int i = 0; i < point; i++)
                *p++ = '0';
        return put(p, (const char *)text, (size_t)n);
}

size_t adi_ratio_text(uint64_t num, uint64_t den, uint8_t ret[ADI_RATIO_MAX])
{
        unsigned __int128 scaled = num;
        uint64_t digits, rest;
        int point = 0;

        if (den == 0)
                return (size_t)(PUT(ret, "null") - ret);
        if (num == 0 || (num % den == 0 && num / den < 1000000))
                return (size_t)(put_u64(ret, num / den) - ret);
        /* Rates are below one; whatever else there is takes the general way. */
        if (num > den || num < den / 10000 + 1)
                return (size_t)snprintf((char *)ret, ADI_RATIO_MAX, "%.6g",
                                        (double)num / (double)den);
        for (scaled *= 10; scaled < den; scaled *= 10)
                point++;
        scaled *= 100000;
        digits = (uint64_t)(scaled / den);
        rest = (uint64_t)(scaled % den);
        if (rest > den - rest || (rest == den - rest && digits % 2))
                digits++;
        if (digits == 1000000) { /* 0.0999999.. is 0.1 */
                digits = 100000;
                if (point-- == 0)
                        return (size_t)(PUT(ret, "1") - ret);
        }
        return (size_t)(put_digits(ret, digits, point) - ret);
}

/* ---- strings ---- */

static bool is_plain(struct df_bytes s)
{
        for (size_t i = 0; i < s.len; i++)
                if (s.data[i] < 0x20 || s.data[i] >= 0x7f || s.data[i] == '"' || s.data[i] == '\\')
                        return false;
        return true;
}

/* With its quotes; anything unusual is left to the general writer. */
static void put_string(struct df_buf *b, struct df_bytes s)
{
        struct df_error ignored; /* the buffer remembers */

        if (is_plain(s) && df_buf_reserve(b, s.len + 2)) {
                uint8_t *p = b->data + b->len;

                *p++ = '"';
                if (s.len)
                        p = put(p, (const char *)s.data, s.len);
                *p++ = '"';
                b->len = (size_t)(p - b->data);
        } else {
                struct ad_json *j = ad_json_begin(b);

                ad_json_bytes(j, s);
                (void)ad_json_end(j, b, &ignored);
        }
}

static void put_pair(struct df_buf *b, const char *key, struct df_bytes s)
{
        size_t n = strlen(key);

        if (!df_buf_reserve(b, n + 4))
                return;
        uint8_t *p = b->data + b->len;
        *p++ = '"';
        p = put(p, key, n);
        p = PUT(p, "\":");
        b->len = (size_t)(p - b->data);
        put_string(b, s);
}

/* ---- rows ---- */

static uint8_t *put_measures(uint8_t *p, const struct ad_cell *c)
{
        p = put_u64(PUT(p, "\"impressions\":"), c->impressions);
        p = put_u64(PUT(p, ",\"clicks\":"), c->clicks);
        p = put_u64(PUT(p, ",\"conversions\":"), c->conversions);
        p = put_micros(PUT(p, ",\"spend_micros\":"), c->spend);
        p = put_micros(PUT(p, ",\"payout_micros\":"), c->payout);
        p = put_micros(PUT(p, ",\"conversion_value_micros\":"), c->value);
        p = PUT(p, ",\"ctr\":");
        p += adi_ratio_text(c->clicks, c->impressions, p);
        p = PUT(p, ",\"cvr\":");
        p += adi_ratio_text(c->conversions, c->clicks, p);
        if (c->invalid[0] || c->invalid[1] || c->invalid[2]) {
                p = put_u64(PUT(p, ",\"invalid_impressions\":"), c->invalid[0]);
                p = put_u64(PUT(p, ",\"invalid_clicks\":"), c->invalid[1]);
                p = put_u64(PUT(p, ",\"invalid_conversions\":"), c->invalid[2]);
        }
        return p;
}

static void put_comma(struct df_buf *b)
{
        df_put_u8(b, ',');
}

void adi_row_json(struct df_buf *b, const struct ad_result *r, const struct ad_result_row *row,
                  struct df_bytes start)
{
        uint8_t *p;

        df_put_u8(b, '{');
        put_pair(b, "window_start", start);
        for (uint32_t d = 0; d < r->group_count; d++) {
                put_comma(b);
                put_pair(b, ad_dim_names[r->group_by[d]], row->dims[d]);
        }
        put_comma(b);
        put_pair(b, "currency", row->currency);
        if (!df_buf_reserve(b, MEASURES_BYTES + ROW_BYTES))
                return;
        p = b->data + b->len;
        *p++ = ',';
        p = put_measures(p, &row->cell);
        p = r->final[row->window] ? PUT(p, ",\"state\":\"settled\",\"final\":true")
                                  : PUT(p, ",\"state\":\"open\",\"final\":false");
        if (r->partial[row->window])
                p = PUT(p, ",\"partial\":true");
        *p++ = '}';
        b->len = (size_t)(p - b->data);
}

void adi_total_json(struct df_buf *b, struct df_bytes currency, const struct ad_cell *sum)
{
        uint8_t *p;

        df_put_u8(b, '{');
        put_pair(b, "currency", currency);
        if (!df_buf_reserve(b, MEASURES_BYTES + ROW_BYTES))
                return;
        p = b->data + b->len;
        *p++ = ',';
        p = put_measures(p, sum);
        *p++ = '}';
        b->len = (size_t)(p - b->data);
}
