#include "jobs/ingest/clock.h"

#include "df/err.h"

static bool beyond(int64_t ms)
{
        return ms > AD_GUARD_TOLERANCE_MS || ms < -AD_GUARD_TOLERANCE_MS;
}

void ad_guard_init(struct ad_guard *g, int64_t wall_ms, int64_t mono_ms, int64_t last_append_ms)
{
        *g = (struct ad_guard){.offset_ms = wall_ms - mono_ms, .last_append_ms = last_append_ms};
        (void)ad_guard_look(g, wall_ms, mono_ms);
}

enum ad_guard_state ad_guard_look(struct ad_guard *g, int64_t wall_ms, int64_t mono_ms)
{
        int64_t step = wall_ms - mono_ms - g->offset_ms;

        g->off_ms = 0;
        if (beyond(step)) {
                g->state = AD_GUARD_JUMPED;
                g->off_ms = step;
                return g->state;
        }
        g->offset_ms += step;
        if (g->last_append_ms - wall_ms > AD_GUARD_TOLERANCE_MS) {
                g->state = AD_GUARD_BEHIND;
                g->off_ms = wall_ms - g->last_append_ms;
        } else if (beyond(g->skew_ms)) {
                g->state = AD_GUARD_SKEWED;
                g->off_ms = -g->skew_ms;
        } else {
                g->state = AD_GUARD_GOOD;
        }
        return g->state;
}

void ad_guard_append(struct ad_guard *g, int64_t send_ms, int64_t ack_ms, int64_t append_min_ms,
                     int64_t append_max_ms)
{
        int64_t before = send_ms - append_min_ms, after = append_max_ms - ack_ms;

        df_check(append_min_ms <= append_max_ms);
        if (append_max_ms > g->last_append_ms)
                g->last_append_ms = append_max_ms;
        g->skew_ms = 0;
        if (after > 0)
                g->skew_ms = after;
        if (before > g->skew_ms)
                g->skew_ms = -before;
}

bool ad_guard_heartbeat_allowed(const struct ad_guard *g)
{
        return !(g->state == AD_GUARD_JUMPED && g->off_ms > 0);
}

const char *ad_guard_state_name(enum ad_guard_state s)
{
        static const char *const names[] = {"good", "jumped", "behind", "skewed"};

        df_check(s <= AD_GUARD_SKEWED);
        return names[s];
}
