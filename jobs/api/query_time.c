/* query_time.c - from and to: RFC 3339 with an offset, or local times and dates of the zone. */
#include "jobs/api/query.h"
#include "jobs/common/times.h"

#define MINUTE_MS 60000LL
#define QUARTER_MS (15 * MINUTE_MS)
#define RANGE_MS (60 * MINUTE_MS)

static bool date_only(struct df_bytes t)
{
        return t.len == 10;
}

/* "2026-11-24T10:00" and "2026-11-24T10:00:00[.123]" have no offset; they end in a digit. */
static bool has_offset(struct df_bytes t)
{
        uint8_t last = t.data[t.len - 1];

        if (last < '0' || last > '9')
                return true;
        return t.len > 6 && (t.data[t.len - 6] == '+' || t.data[t.len - 6] == '-') && t.len > 16;
}

static bool parse_text(struct df_bytes t, char *text, size_t size, const char *tail, int64_t *ret)
{
        size_t n = strlen(tail);

        if (t.len + n >= size)
                return false;
        memcpy(text, t.data, t.len);
        memcpy(text + t.len, tail, n);
        /* a + that was not escaped arrives as a space */
        if (t.len >= 22 && text[t.len - 6] == ' ')
                text[t.len - 6] = '+';
        return ad_time_parse(df_bytes(text, t.len + n), ret);
}

int ad_query_instant(const struct ad_query *q, struct df_bytes t, const char *field, int64_t *ret,
                     struct ad_fault *f)
{
        char text[64];
        int64_t local;
        bool ok;

        if (t.len < 10 || t.len > 40)
                ok = false;
        else if (date_only(t)) {
                ok = parse_text(t, text, sizeof(text), "T00:00:00Z", &local);
                if (ok) {
                        *ret = ad_zone_day_start(q->zone, local / 86400000);
                        return 0;
                }
        } else if (has_offset(t) || (t.len >= 22 && t.data[t.len - 6] == ' ')) {
                ok = parse_text(t, text, sizeof(text), "", ret);
                if (ok)
                        return 0;
        } else {
                ok = parse_text(t, text, sizeof(text), t.len == 16 ? ":00Z" : "Z", &local);
                if (ok && ad_zone_from_local(q->zone, local, ret))
                        return 0;
                if (ok)
                        return ad_fault_set(f, 400, "bad_time", field,
                                            "there is no such local time in %s: the clocks jump "
                                            "over it",
                                            ad_zone_name(q->zone));
        }
        return ad_fault_set(f, 400, "bad_time", field,
                            "a time is RFC 3339 (2026-11-24T10:00:00Z or with an offset), a local "
                            "time of tz (2026-11-24T10:00:00), or a date (2026-11-24)");
}

/* What `total` is aligned to: the smallest window that is kept. Quarter hours are those of UTC, as
 * every zone that is supported has them. */
static int64_t floor_of(const struct ad_query *q, int64_t t)
{
        if (q->window != AD_WINDOW_TOTAL)
                return ad_zone_floor(q->zone, q->window, t);
        return q->view == AD_METRICS_REALTIME ? ad_zone_floor(q->zone, AD_WINDOW_MINUTE, t)
                                              : t - ((t % QUARTER_MS) + QUARTER_MS) % QUARTER_MS;
}

static int64_t next_of(const struct ad_query *q, int64_t t)
{
        if (q->window != AD_WINDOW_TOTAL)
                return ad_zone_next(q->zone, q->window, t);
        return q->view == AD_METRICS_REALTIME ? ad_zone_next(q->zone, AD_WINDOW_MINUTE, t)
                                              : floor_of(q, t) + QUARTER_MS;
}

static int check_aligned(const struct ad_query *q, int64_t t, const char *field, struct ad_fault *f)
{
        static const char *const names[] = {"minute", "hour", "day", "month", "minute"};
        bool quarter = q->window == AD_WINDOW_TOTAL && q->view != AD_METRICS_REALTIME;
        char before[AD_ZONE_TEXT_MAX], after[AD_ZONE_TEXT_MAX];
        int64_t floor = floor_of(q, t);

        if (floor == t)
                return 0;
        (void)ad_zone_text(q->zone, floor, before);
        (void)ad_zone_text(q->zone, next_of(q, t), after);
        return ad_fault_set(f, 400, "unaligned", field,
                            "%s does not begin a %s in %s; the nearest that do are %s and %s",
                            field, quarter ? "quarter hour" : names[q->window],
                            ad_zone_name(q->zone), before, after);
}

int ad_query_range(struct ad_query *q, struct df_bytes from, struct df_bytes to, int64_t now_ms,
                   struct ad_fault *f)
{
        char text[AD_ZONE_TEXT_MAX];
        int64_t at;

        q->to_ms = next_of(q, now_ms);
        if (to.len && (ad_query_instant(q, to, "to", &q->to_ms, f) < 0 ||
                       check_aligned(q, q->to_ms, "to", f) < 0))
                return -1;
        q->from_ms = floor_of(q, q->to_ms - RANGE_MS);
        if (from.len && (ad_query_instant(q, from, "from", &q->from_ms, f) < 0 ||
                         check_aligned(q, q->from_ms, "from", f) < 0))
                return -1;
        if (q->from_ms >= q->to_ms)
                return ad_fault_set(f, 400, "empty_range", "from",
                                    "from must be before to; the range is [from, to)");
        if (q->from_ms < 0 || q->to_ms / MINUTE_MS > UINT32_MAX)
                return ad_fault_set(f, 400, "bad_time", q->from_ms < 0 ? "from" : "to",
                                    "years are 1970 to 9999");
        if (!ad_zone_supported(q->zone, q->from_ms, q->to_ms, &at)) {
                (void)ad_zone_text(q->zone, at, text);
                return ad_fault_set(f, 400, "zone_not_supported", "tz",
                                    "%s is off the quarter hour at %s; numbers are composed from "
                                    "15-minute cells",
                                    ad_zone_name(q->zone), text);
        }
        return 0;
}
