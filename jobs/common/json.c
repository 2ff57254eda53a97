#include "jobs/common/json.h"

#include <math.h>
#include <stdio.h>
#include <yajl/yajl_gen.h>

#include "df/money.h"

/* The handle is yajl's own: struct ad_json is never defined. */
static yajl_gen gen(struct ad_json *j)
{
        return (yajl_gen)(void *)j;
}

static void print(void *arg, const char *text, size_t len)
{
        df_buf_append(arg, text, len);
}

static void expect(yajl_gen_status s)
{
        df_check(s == yajl_gen_status_ok);
}

struct ad_json *ad_json_begin(struct df_buf *b)
{
        yajl_gen g = yajl_gen_alloc(NULL);

        if (!g) {
                b->failed = true;
                return NULL;
        }
        (void)yajl_gen_config(g, yajl_gen_print_callback, print, b);
        return (struct ad_json *)(void *)g;
}

int ad_json_end(struct ad_json *j, struct df_buf *b, struct df_error *err)
{
        if (j)
                yajl_gen_free(gen(j));
        return df_buf_check(b, err);
}

void ad_json_open(struct ad_json *j)
{
        if (j)
                expect(yajl_gen_map_open(gen(j)));
}

void ad_json_close(struct ad_json *j)
{
        if (j)
                expect(yajl_gen_map_close(gen(j)));
}

void ad_json_open_array(struct ad_json *j)
{
        if (j)
                expect(yajl_gen_array_open(gen(j)));
}

void ad_json_close_array(struct ad_json *j)
{
        if (j)
                expect(yajl_gen_array_close(gen(j)));
}

void ad_json_key(struct ad_json *j, const char *key)
{
        if (j)
                expect(yajl_gen_string(gen(j), (const unsigned char *)key, strlen(key)));
}

/* Length of the valid UTF-8 sequence at p (RFC 3629: shortest form, no surrogates), or 0. */
static size_t sequence(const uint8_t *p, size_t left)
{
        size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc2 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;

        if (n == 0 || p[0] > 0xf4 || n > left)
                return 0;
        for (size_t i = 1; i < n; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
            (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
                return 0;
        return n;
}

static size_t valid_prefix(struct df_bytes s)
{
        size_t i = 0, n;

        while (i < s.len && (n = sequence(s.data + i, s.len - i)) > 0)
                i += n;
        return i;
}

void ad_json_bytes(struct ad_json *j, struct df_bytes s)
{
        struct df_buf clean = {0};
        size_t n;

        if (!j)
                return;
        if (s.len == 0) {
                expect(yajl_gen_string(gen(j), (const unsigned char *)"", 0));
                return;
        }
        n = valid_prefix(s);
        if (n == s.len) {
                expect(yajl_gen_string(gen(j), s.data, s.len));
                return;
        }
        for (;;) {
                df_buf_append(&clean, s.data, n);
                s = df_bytes(s.data + n, s.len - n);
                if (s.len == 0)
                        break;
                df_buf_append(&clean, "\xef\xbf\xbd", 3);
                s = df_bytes(s.data + 1, s.len - 1);
                n = valid_prefix(s);
        }
        expect(yajl_gen_string(gen(j), clean.data ? clean.data : (const uint8_t *)"", clean.len));
        df_buf_release(&clean);
}

void ad_json_text(struct ad_json *j, const char *s)
{
        if (s)
                ad_json_bytes(j, df_bytes_str(s));
        else
                ad_json_null(j);
}

void ad_json_int(struct ad_json *j, __int128 v)
{
        char text[DF_INT128_TEXT_MAX];
        int n = df_int128_text(v, text);

        if (j)
                expect(yajl_gen_number(gen(j), text, (size_t)n));
}

void ad_json_bool(struct ad_json *j, bool v)
{
        if (j)
                expect(yajl_gen_bool(gen(j), v));
}

void ad_json_null(struct ad_json *j)
{
        if (j)
                expect(yajl_gen_null(gen(j)));
}

/* yajl looks no closer at what it is told to be a number. */
void ad_json_raw(struct ad_json *j, struct df_bytes json)
{
        if (j)
                expect(yajl_gen_number(gen(j), (const char *)json.data, json.len));
}

void ad_json_double(struct ad_json *j, double v)
{
        char text[40];
        int n = snprintf(text, sizeof(text), "%.6g", v);

        if (!isfinite(v))
                ad_json_null(j);
        else if (j)
                expect(yajl_gen_number(gen(j), text, (size_t)n));
}

void ad_json_ratio(struct ad_json *j, uint64_t num, uint64_t den)
{
        if (den == 0)
                ad_json_null(j);
        else
                ad_json_double(j, (double)num / (double)den);
}

void ad_json_put_text(struct ad_json *j, const char *key, const char *s)
{
        ad_json_key(j, key);
        ad_json_text(j, s);
}

void ad_json_put_bytes(struct ad_json *j, const char *key, struct df_bytes s)
{
        ad_json_key(j, key);
        ad_json_bytes(j, s);
}

void ad_json_put_int(struct ad_json *j, const char *key, __int128 v)
{
        ad_json_key(j, key);
        ad_json_int(j, v);
}

void ad_json_put_bool(struct ad_json *j, const char *key, bool v)
{
        ad_json_key(j, key);
        ad_json_bool(j, v);
}

void ad_json_put_null(struct ad_json *j, const char *key)
{
        ad_json_key(j, key);
        ad_json_null(j);
}
