/* import_cells.c - one cell to one value: times, amounts, ids as people write them in files, and
 * what a row is as a whole (import.h). */
#include <stdlib.h>

#include "jobs/adtally/import.h"
#include "jobs/common/times.h"

#define DAY_MS 86400000LL
#define SECONDS_DIGITS_MAX 11 /* longer numbers are milliseconds */

/* min to max digits at *at; -1 otherwise. */
static int64_t digits(struct df_bytes t, size_t *at, size_t min, size_t max)
{
        int64_t v = 0;
        size_t n = 0;

        for (; *at < t.len && n < max && t.data[*at] >= '0' && t.data[*at] <= '9'; ++*at, n++)
                v = v * 10 + (t.data[*at] - '0');
        return n >= min ? v : -1;
}

static bool one_of(struct df_bytes t, size_t *at, const char *any)
{
        return *at < t.len && t.data[*at] && strchr(any, t.data[*at]) && ++*at;
}

/* ".123456" cut to milliseconds; none is 0; -1: not a fraction. */
static int64_t fraction(struct df_bytes t, size_t *at)
{
        int64_t ms = 0, scale = 100;
        size_t n = 0;

        if (*at >= t.len || t.data[*at] != '.')
                return 0;
        for (++*at; *at < t.len && t.data[*at] >= '0' && t.data[*at] <= '9'; ++*at, n++) {
                ms += (t.data[*at] - '0') * scale;
                scale /= 10;
        }
        return n > 0 && n <= 9 ? ms : -1;
}

static bool epoch(struct df_bytes t, int64_t *ret_ms)
{
        size_t at = 0;
        int64_t v = digits(t, &at, 1, 18), ms;

        if (v < 0)
                return false;
        if (at > SECONDS_DIGITS_MAX) {
                *ret_ms = v;
                return at == t.len && v > 0;
        }
        ms = fraction(t, &at);
        *ret_ms = v * 1000 + ms;
        return ms >= 0 && at == t.len && *ret_ms > 0;
}

static bool date(struct df_bytes t, size_t *at, int64_t *ret_days)
{
        int64_t y = digits(t, at, 4, 4), m, d, back_y;
        unsigned back_m, back_d;

        m = one_of(t, at, "-/") ? digits(t, at, 1, 2) : -1;
        d = one_of(t, at, "-/") ? digits(t, at, 1, 2) : -1;
        if (y < 1970 || m < 1 || m > 12 || d < 1 || d > 31)
                return false;
        *ret_days = ad_days_from_civil(y, (unsigned)m, (unsigned)d);
        ad_civil_from_days(*ret_days, &back_y, &back_m, &back_d);
        return back_m == (unsigned)m && back_d == (unsigned)d; /* 30 February comes back as March */
}

static bool local(struct df_bytes t, const struct ad_zone *zone, int64_t *ret_ms)
{
        size_t at = 0;
        int64_t days, h, m, s = 0, ms = 0;

        if (!date(t, &at, &days) || !one_of(t, &at, " Tt"))
                return false;
        h = digits(t, &at, 1, 2);
        m = one_of(t, &at, ":") ? digits(t, &at, 2, 2) : -1;
        if (one_of(t, &at, ":")) {
                s = digits(t, &at, 2, 2);
                ms = fraction(t, &at);
        }
        if (h < 0 || h > 23 || m < 0 || m > 59 || s < 0 || s > 59 || ms < 0 || at != t.len)
                return false;
        return ad_zone_from_local(zone, days * DAY_MS + ((h * 60 + m) * 60 + s) * 1000 + ms,
                                  ret_ms) &&
               *ret_ms > 0;
}

bool ad_import_time(struct df_bytes text, const struct ad_zone *zone, int64_t *ret_ms)
{
        return (ad_time_parse(text, ret_ms) && *ret_ms > 0) || epoch(text, ret_ms) ||
               local(text, zone, ret_ms);
}

/* ---- amounts and ids ---- */

static bool plain(struct df_bytes s)
{
        for (size_t i = 0; i < s.len; i++)
                if (s.data[i] < 0x20 || s.data[i] == 0x7f ||
                    (s.data[i] == 0xc2 && i + 1 < s.len && s.data[i + 1] < 0xa0))
                        return false;
        return ad_utf8_valid(s) == 1;
}

/* Whole micros only, as in JSON. */
const char *ad_import_micros(struct df_bytes v, int64_t *ret_nanos)
{
        df_nanos units;

        if (memchr(v.data, '.', v.len) || !df_nanos_parse(v, &units))
                return "is not a whole number of micros";
        units /= DF_NANOS_PER_UNIT;
        if (units < 0)
                return "is negative";
        if (units > AD_MONEY_MICROS_MAX)
                return "is too large";
        *ret_nanos = (int64_t)units * DF_NANOS_PER_MICRO;
        return NULL;
}

const char *ad_import_units(struct df_bytes v, int64_t divide_by, int64_t *ret_nanos)
{
        df_nanos nanos;

        if (!df_nanos_parse(v, &nanos))
                return "is not a decimal amount (as 187.4, at most 9 decimals)";
        if (nanos < 0)
                return "is negative";
        if (nanos % divide_by)
                return "for 1,000 is, for one, not a whole number of nanos (at most 6 decimals)";
        nanos /= divide_by;
        if (nanos > (df_nanos)AD_MONEY_MICROS_MAX * DF_NANOS_PER_MICRO)
                return "is too large";
        *ret_nanos = (int64_t)nanos;
        return NULL;
}

const char *ad_import_id(struct df_bytes v, size_t max, struct df_bytes *ret)
{
        if (v.len > max)
                return "is too long for an id";
        if (!plain(v))
                return "has control characters or is not UTF-8";
        *ret = v;
        return NULL;
}

const char *ad_import_currency(struct df_bytes v, struct df_bytes *ret)
{
        if (!df_currency_known(v) || df_bytes_eq(v, df_bytes_str("XXX")))
                return "is not an ISO 4217 code";
        *ret = v;
        return NULL;
}

/* ---- ids ---- */

struct named {
        struct df_bytes name, value;
};

static int by_name(const void *a, const void *b)
{
        return df_bytes_cmp(((const struct named *)a)->name, ((const struct named *)b)->name);
}

struct df_hash128 ad_import_row_hash(const struct df_bytes *columns, const struct df_bytes *cells,
                                     size_t count)
{
        struct named list[AD_IMPORT_COLUMNS_MAX];
        struct df_hash128 h;
        struct df_buf b = {0};
        size_t n = 0;

        df_check(count <= AD_IMPORT_COLUMNS_MAX);
        for (size_t i = 0; i < count; i++)
                if (cells[i].len)
                        list[n++] = (struct named){columns[i], cells[i]};
        if (n)
                qsort(list, n, sizeof(*list), by_name);
        for (size_t i = 0; i < n; i++) {
                df_put_lstr(&b, list[i].name);
                df_put_lstr(&b, list[i].value);
        }
        df_check(!b.failed);
        h = df_hash128(df_buf_bytes(&b));
        df_buf_release(&b);
        return h;
}
