/* pace.h - when what waits is written: at once when nothing more is to be expected, together with
 * more when requests keep coming. Pure: the time is an argument.
 *
 * A flush of requests is due when it holds as many as were under way together at any moment since
 * the last one was taken: clients that send again after an answer are then all back, and one client
 * alone never waits. Requests that come while a flush is written raise that number; so while they
 * keep coming on their own, flushes grow. It is also due when the log has rested as many times the
 * last append's duration as requests shared that append (AD_PACE_REST_MAX at most): when little
 * comes that is next to nothing, and the log is busy for a small share of the time when much does.
 * And it is due after the delay in any case.
 * Order of calls: added for each request; taken when the flush goes to the log; settled when the
 * log has answered. wait_us in between. Thread: under the caller's lock. */
#ifndef AD_PACE_H
#define AD_PACE_H

#include <stddef.h>
#include <stdint.h>

#define AD_PACE_REST_MAX 16

struct ad_pace {
        int64_t delay_us;
        size_t under_way;   /* requests that have no answer */
        size_t peak;        /* the most of them since the last flush was taken */
        size_t last;        /* requests in the flush that was written last */
        int64_t append_us;  /* how long that took */
        int64_t settled_us; /* when it ended */
};

void ad_pace_added(struct ad_pace *p);
void ad_pace_taken(struct ad_pace *p);
void ad_pace_settled(struct ad_pace *p, size_t requests, int64_t took_us, int64_t now_us);
/* Of a flush with so many requests, whose first came at since_us: 0 = it is due, else look again so
 * much later, or after the next request. */
int64_t ad_pace_wait_us(const struct ad_pace *p, size_t requests, int64_t since_us, int64_t now_us);

#endif
