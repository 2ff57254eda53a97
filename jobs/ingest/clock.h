/* clock.h - ingest's guard over the machine's clock, which is the file log's clock (T2).
 *
 * Pure: every reading is an argument. The guard holds two readings against each other, wall time
 * and a clock that only runs forward (and through a suspend, CLOCK_BOOTTIME); a step of more than
 * 2 s of one against the other is a jump, until they agree again. Smaller steps are followed. And
 * it holds the wall against the log: a wall more than 2 s behind the newest append time, or an
 * append time more than 2 s outside the interval [send, acknowledgement] of its own record, means
 * that two clocks are at work.
 *
 * While the state is not AD_GUARD_GOOD events are refused (`clock_jump`), before the wrong time
 * gets into a receive_time. Heartbeats go on, measure, and end it; all but one: after a jump
 * forwards the log's append time, which never goes back, would keep the wrong time for ever, so
 * then nothing is appended at all. Order of calls: ad_guard_init, { ad_guard_look | ad_guard_append
 * }*. Thread: one at a time.
 */
#ifndef AD_CLOCK_GUARD_H
#define AD_CLOCK_GUARD_H

#include <stdbool.h>
#include <stdint.h>

#define AD_GUARD_TOLERANCE_MS 2000

enum ad_guard_state {
        AD_GUARD_GOOD,
        AD_GUARD_JUMPED, /* wall and monotonic time disagree */
        AD_GUARD_BEHIND, /* the wall is behind the log */
        AD_GUARD_SKEWED, /* the last record's append time is outside its own interval */
};

struct ad_guard {
        int64_t offset_ms;         /* wall - monotonic, when they last agreed */
        int64_t last_append_ms;    /* newest in the log; 0 = none */
        int64_t skew_ms;           /* of the last append */
        int64_t off_ms;            /* at the last look: how far the wall is off; negative: behind */
        enum ad_guard_state state; /* at the last look */
};

/* last_append_ms: of the whole topic (df_filelog_last_append_ms). Looks once. */
void ad_guard_init(struct ad_guard *g, int64_t wall_ms, int64_t mono_ms, int64_t last_append_ms);
/* Both readings, taken one right after the other. */
enum ad_guard_state ad_guard_look(struct ad_guard *g, int64_t wall_ms, int64_t mono_ms);
/* What an append showed: wall time before and after it, and the stamps of its records. */
void ad_guard_append(struct ad_guard *g, int64_t send_ms, int64_t ack_ms, int64_t append_min_ms,
                     int64_t append_max_ms);
/* Whether a heartbeat may be written in the state of the last look. */
bool ad_guard_heartbeat_allowed(const struct ad_guard *g);
const char *ad_guard_state_name(enum ad_guard_state s); /* "good", "jumped", "behind", "skewed" */

#endif
