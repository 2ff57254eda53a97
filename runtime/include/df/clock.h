/* clock.h - what time it is, according to the log (T1, T2, T3). Pure.
 *
 * The watermark of a source is the running maximum of min(event_time, receive_time) minus the
 * out-of-orderness, over every event that passes the rules below. It never goes back within a
 * generation. Nothing here reads a machine's clock.
 */
#ifndef DF_CLOCK_H
#define DF_CLOCK_H

#include <stdbool.h>
#include <stdint.h>

#define DF_TIME_MIN INT64_MIN /* nothing seen yet */
#define DF_TIME_MAX INT64_MAX /* end of input: everything is flushed */

struct df_clock_rules {
        int64_t out_of_orderness_ms;
        int64_t receive_ahead_max_ms;  /* T2: receive_time over the maximum of append time */
        int64_t receive_behind_max_ms; /* T2: receive_time under the maximum of receive time */
        int64_t future_max_ms;         /* T3: event_time over receive_time */
        int64_t accepted_age_ms;       /* T3: event_time under receive_time */
        bool bounded;                  /* R6: an import; no rule applies, watermark stays minimal */
};

struct df_clock {
        int64_t max_append_ms;
        int64_t max_receive_ms;
        int64_t watermark_ms;
};

enum df_clock_verdict {
        DF_CLOCK_OK,
        DF_CLOCK_AHEAD,  /* T2 `clock` */
        DF_CLOCK_STALE,  /* T2 `stale_receive` */
        DF_CLOCK_FUTURE, /* T3 `future_event` */
        DF_CLOCK_OLD,    /* T3 `too_old` */
};

void df_clock_init(struct df_clock *c); /* all DF_TIME_MIN */
/* A record was reached; call once a record, before its events. */
void df_clock_record(struct df_clock *c, int64_t append_ms);
/* Judge one event (or heartbeat, with event_ms = receive_ms) against everything before it; moves
 * the clock when OK, and only then. */
enum df_clock_verdict df_clock_judge(struct df_clock *c, const struct df_clock_rules *rules,
                                     int64_t receive_ms, int64_t event_ms);
/* T2: the maxima of append and receive time restart (an operator's repair); never the watermark. */
void df_clock_reset(struct df_clock *c);
/* E1, R6: end of the generation; watermark = DF_TIME_MAX. */
void df_clock_close(struct df_clock *c);

#endif
