/* zone.c - offsets, local days, and the windows of a zone. Pure. */
#include <stdio.h>

#include "jobs/api/zone_private.h"
#include "jobs/common/times.h"

#define MINUTE_MS 60000LL
#define QUARTER_S 900
#define HOUR_MS 3600000LL
#define DAY_MS 86400000LL
#define OFFSET_RANGE_MS (26 * HOUR_MS)

static int64_t floor_div(int64_t a, int64_t b)
{
        return a / b - (a % b < 0);
}

const char *ad_zone_name(const struct ad_zone *z)
{
        return z->name;
}

uint64_t ad_zone_digest(const struct ad_zone *z)
{
        return z->digest;
}

bool ad_zone_is_utc(const struct ad_zone *z)
{
        return z->count == 0 && z->before_s == 0 &&
               (!z->rule.present || (!z->rule.has_dst && z->rule.std_s == 0));
}

/* Number of listed transitions at or before t. */
static size_t passed(const struct ad_zone *z, int64_t t_s)
{
        size_t lo = 0, hi = z->count;

        while (lo < hi) {
                size_t mid = (lo + hi) / 2;

                if (z->times_s[mid] <= t_s)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return lo;
}

static int32_t offset_at(const struct ad_zone *z, int64_t t_s)
{
        size_t n = passed(z, t_s);

        if (n == z->count && z->rule.present)
                return adi_rule_offset_s(&z->rule, t_s);
        return n == 0 ? z->before_s : z->after_s[n - 1];
}

int32_t ad_zone_offset_s(const struct ad_zone *z, int64_t ms)
{
        return offset_at(z, floor_div(ms, 1000));
}

int64_t ad_zone_next_change(const struct ad_zone *z, int64_t ms)
{
        int64_t t_s = floor_div(ms, 1000), next;

        for (size_t i = passed(z, t_s); i < z->count; i++)
                if (offset_at(z, z->times_s[i]) != offset_at(z, z->times_s[i] - 1))
                        return z->times_s[i] * 1000;
        if (!z->rule.present)
                return INT64_MAX;
        if (z->count > 0 && t_s < z->times_s[z->count - 1])
                t_s = z->times_s[z->count - 1];
        next = adi_rule_next_s(&z->rule, t_s);
        return next == INT64_MAX ? next : next * 1000;
}

bool ad_zone_supported(const struct ad_zone *z, int64_t from_ms, int64_t to_ms, int64_t *ret_ms)
{
        for (int64_t at = from_ms; at <= to_ms; at = ad_zone_next_change(z, at))
                if (ad_zone_offset_s(z, at) % QUARTER_S != 0) {
                        *ret_ms = at;
                        return false;
                }
        return true;
}

static int64_t local_ms(const struct ad_zone *z, int64_t ms)
{
        return ms + 1000LL * ad_zone_offset_s(z, ms);
}

int64_t ad_zone_local_day(const struct ad_zone *z, int64_t ms)
{
        return floor_div(local_ms(z, ms), DAY_MS);
}

int64_t ad_zone_day_start(const struct ad_zone *z, int64_t local_day)
{
        int64_t want = local_day * DAY_MS, at = want - OFFSET_RANGE_MS;

        for (;;) { /* through the stretches of constant offset, until one reaches the date */
                int64_t change = ad_zone_next_change(z, at);
                int64_t reached = want - 1000LL * ad_zone_offset_s(z, at);

                if (reached <= at)
                        return at;
                if (reached < change)
                        return reached;
                at = change;
        }
}

bool ad_zone_from_local(const struct ad_zone *z, int64_t want, int64_t *ret_ms)
{
        int64_t at = want - OFFSET_RANGE_MS;

        for (;;) {
                int64_t change = ad_zone_next_change(z, at);
                int64_t reached = want - 1000LL * ad_zone_offset_s(z, at);

                if (reached < at)
                        return false; /* a change jumped over it */
                if (reached < change) {
                        *ret_ms = reached;
                        return true;
                }
                at = change;
        }
}

static int64_t floor_hour(const struct ad_zone *z, int64_t ms)
{
        int64_t start = ms - (local_ms(z, ms) - floor_div(local_ms(z, ms), HOUR_MS) * HOUR_MS);

        for (int64_t c = ad_zone_next_change(z, start); c <= ms; c = ad_zone_next_change(z, c))
                start = c;
        return start;
}

static int64_t next_hour(const struct ad_zone *z, int64_t ms)
{
        int64_t local = local_ms(z, ms);
        int64_t end = ms + (floor_div(local, HOUR_MS) + 1) * HOUR_MS - local;
        int64_t change = ad_zone_next_change(z, ms);

        return change < end ? change : end;
}

int64_t ad_zone_day_of(const struct ad_zone *z, int64_t ms)
{
        int64_t day = ad_zone_local_day(z, ms) + 1;

        while (ad_zone_day_start(z, day) > ms)
                day--;
        return day;
}

static int64_t next_day(const struct ad_zone *z, int64_t ms)
{
        int64_t day = ad_zone_day_of(z, ms) + 1;

        while (ad_zone_day_start(z, day) <= ms) /* a date that was skipped has no length */
                day++;
        return ad_zone_day_start(z, day);
}

/* First day of the month that lies `more` months after that of the day. */
static int64_t month_first(int64_t day, unsigned more)
{
        int64_t year;
        unsigned m, d;

        ad_civil_from_days(day, &year, &m, &d);
        m += more;
        return m > 12 ? ad_days_from_civil(year + 1, m - 12, 1) : ad_days_from_civil(year, m, 1);
}

int64_t ad_zone_floor(const struct ad_zone *z, enum ad_window w, int64_t ms)
{
        switch (w) {
        case AD_WINDOW_MINUTE:
                return floor_div(ms, MINUTE_MS) * MINUTE_MS;
        case AD_WINDOW_HOUR:
                return floor_hour(z, ms);
        case AD_WINDOW_DAY:
                return ad_zone_day_start(z, ad_zone_day_of(z, ms));
        case AD_WINDOW_MONTH:
                return ad_zone_day_start(z, month_first(ad_zone_day_of(z, ms), 0));
        case AD_WINDOW_TOTAL:
        default:
                return ms;
        }
}

int64_t ad_zone_next(const struct ad_zone *z, enum ad_window w, int64_t ms)
{
        switch (w) {
        case AD_WINDOW_MINUTE:
                return (floor_div(ms, MINUTE_MS) + 1) * MINUTE_MS;
        case AD_WINDOW_HOUR:
                return next_hour(z, ms);
        case AD_WINDOW_DAY:
                return next_day(z, ms);
        case AD_WINDOW_MONTH:
                return ad_zone_day_start(z, month_first(ad_zone_day_of(z, ms), 1));
        case AD_WINDOW_TOTAL:
        default:
                return INT64_MAX;
        }
}

int ad_zone_text(const struct ad_zone *z, int64_t ms, char ret[AD_ZONE_TEXT_MAX])
{
        int32_t off = ad_zone_offset_s(z, ms), size = off < 0 ? -off : off;
        char text[AD_TIME_TEXT_MAX];
        int n = ad_time_text(ms + 1000LL * off, text);

        if (off == 0 || n < 1)
                return snprintf(ret, AD_ZONE_TEXT_MAX, "%s", text);
        return snprintf(ret, AD_ZONE_TEXT_MAX, "%.*s%c%02d:%02d", n - 1, text, off < 0 ? '-' : '+',
                        size / 3600, size / 60 % 60);
}
