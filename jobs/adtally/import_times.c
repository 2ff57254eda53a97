/* import_times.c - times as people write them in files (import.h). */
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
