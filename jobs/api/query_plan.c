/* query_plan.c - which windows an answer has, and from which stretches of cells they are
 * composed. */
#include "jobs/api/query_private.h"

#define MINUTE_MS 60000LL
#define QUARTER_MS (15 * MINUTE_MS)
#define DAY_MS 86400000LL
#define RANGE_MAX_MS (200 * 366 * DAY_MS)

int64_t adi_window_start(uint32_t level, const struct ad_zone *account, uint32_t window)
{
        switch (level) {
        case AD_LEVEL_MINUTE:
                return window * MINUTE_MS;
        case AD_LEVEL_QUARTER:
                return window * QUARTER_MS;
        case AD_LEVEL_DAY:
                return window * DAY_MS;
        default:
                return ad_zone_day_start(account, (int64_t)window - AD_ACCOUNT_DAY_BIAS);
        }
}

static int too_large(struct ad_fault *f)
{
        return ad_fault_set(f, 400, "range_too_large", "from",
                            "an answer has at most %d windows; ask for a shorter range or larger "
                            "windows",
                            AD_QUERY_WINDOWS_MAX);
}

static int find_bounds(const struct ad_query *q, struct df_arena *arena, struct adi_plan *p,
                       struct ad_fault *f)
{
        size_t cap = 64, n = 0;
        int64_t *b = df_arena_alloc(arena, (cap + 1) * sizeof(*b)), at = q->from_ms;
        struct df_error err = {0};

        if (q->window == AD_WINDOW_MINUTE &&
            (q->to_ms - q->from_ms) / MINUTE_MS > AD_QUERY_WINDOWS_MAX)
                return too_large(f);
        while (b) {
                b[n] = at;
                if (at >= q->to_ms)
                        break;
                if (n == AD_QUERY_WINDOWS_MAX)
                        return too_large(f);
                at = q->window == AD_WINDOW_TOTAL ? q->to_ms : ad_zone_next(q->zone, q->window, at);
                if (++n > cap) {
                        int64_t *more = df_arena_alloc(arena, (cap * 2 + 1) * sizeof(*b));

                        if (more)
                                memcpy(more, b, n * sizeof(*b));
                        b = more;
                        cap *= 2;
                }
        }
        if (!b) {
                (void)df_fail(&err, DF_ENOMEM, "windows of an answer");
                return ad_fault_error(f, &err);
        }
        p->bounds = b;
        p->window_count = n;
        return 0;
}

static void add(struct adi_plan *p, uint32_t level, int64_t from, int64_t to)
{
        if (from < to)
                p->segments[p->segment_count++] =
                        (struct adi_segment){level, (uint32_t)from, (uint32_t)to};
}

static int64_t up(int64_t a, int64_t b)
{
        return (a + b - 1) / b;
}

/* [from, to) of whole minutes: days inside, quarters beside them, minutes at the ends. */
static void compose(struct adi_plan *p, int64_t from, int64_t to)
{
        int64_t q0 = up(from, QUARTER_MS), q1 = to / QUARTER_MS;
        int64_t d0 = up(from, DAY_MS), d1 = to / DAY_MS;

        if (q0 >= q1) {
                add(p, AD_LEVEL_MINUTE, from / MINUTE_MS, to / MINUTE_MS);
                return;
        }
        add(p, AD_LEVEL_MINUTE, from / MINUTE_MS, q0 * 15);
        if (d0 < d1) {
                add(p, AD_LEVEL_QUARTER, q0, d0 * 96);
                add(p, AD_LEVEL_DAY, d0, d1);
                add(p, AD_LEVEL_QUARTER, d1 * 96, q1);
        } else {
                add(p, AD_LEVEL_QUARTER, q0, q1);
        }
        add(p, AD_LEVEL_MINUTE, q1 * 15, to / MINUTE_MS);
}

static bool whole_days(const struct ad_query *q)
{
        return ad_zone_floor(q->zone, AD_WINDOW_DAY, q->from_ms) == q->from_ms &&
               ad_zone_floor(q->zone, AD_WINDOW_DAY, q->to_ms) == q->to_ms;
}

static bool on_quarters(const struct adi_plan *p)
{
        for (size_t i = 0; i <= p->window_count; i++)
                if (p->bounds[i] % QUARTER_MS != 0)
                        return false;
        return true;
}

static int not_on_quarters(const struct ad_query *q, struct ad_fault *f)
{
        return ad_fault_set(f, 400, "zone_not_supported", "tz",
                            "a window of %s in this range does not begin on a quarter hour",
                            ad_zone_name(q->zone));
}

int adi_plan_quarters(const struct ad_query *q, struct df_arena *arena, struct adi_plan *ret,
                      struct ad_fault *f)
{
        memset(ret, 0, sizeof(*ret));
        if (q->to_ms - q->from_ms > RANGE_MAX_MS)
                return too_large(f);
        if (find_bounds(q, arena, ret, f) < 0)
                return -1;
        return on_quarters(ret) ? 0 : not_on_quarters(q, f);
}

int adi_plan(const struct ad_query *q, const struct ad_zone *account, struct df_arena *arena,
             struct adi_plan *ret, struct ad_fault *f)
{
        bool days = q->window == AD_WINDOW_DAY || q->window == AD_WINDOW_MONTH;

        memset(ret, 0, sizeof(*ret));
        if (q->to_ms - q->from_ms > RANGE_MAX_MS)
                return too_large(f);
        if (find_bounds(q, arena, ret, f) < 0)
                return -1;
        if (q->window == AD_WINDOW_MINUTE) {
                add(ret, AD_LEVEL_MINUTE, q->from_ms / MINUTE_MS, q->to_ms / MINUTE_MS);
                return 0;
        }
        if (days && ad_zone_is_utc(q->zone)) {
                add(ret, AD_LEVEL_DAY, q->from_ms / DAY_MS, q->to_ms / DAY_MS);
                return 0;
        }
        if (q->zone == account && !ad_zone_is_utc(account) &&
            (days || (q->window == AD_WINDOW_TOTAL && whole_days(q)))) {
                add(ret, AD_LEVEL_ACCOUNT_DAY,
                    ad_zone_day_of(account, q->from_ms) + AD_ACCOUNT_DAY_BIAS,
                    ad_zone_day_of(account, q->to_ms - 1) + 1 + AD_ACCOUNT_DAY_BIAS);
                return 0;
        }
        if (q->window == AD_WINDOW_TOTAL) {
                compose(ret, q->from_ms, q->to_ms);
                return 0;
        }
        if (!on_quarters(ret))
                return not_on_quarters(q, f);
        add(ret, AD_LEVEL_QUARTER, q->from_ms / QUARTER_MS, q->to_ms / QUARTER_MS);
        return 0;
}
