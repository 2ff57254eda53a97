/* serve.h - POST /events, from a request to events on the log, and back to its answer; likewise
 * POST /quarantine/release, for events that were refused after they were stored; and /subjects
 * (subject_http.c).
 *
 *   event loop threads   access, media type, clock guard, parse, seal user ids, ad_pack_add
 *   committer (pack.h)   new users' keys, group commit, then the answer of each request
 *   eraser               DELETE /subjects/USER_ID
 *   main thread          ad_serve_tick: heartbeats, price version, keys
 *
 * No event is taken before a heartbeat of this start is durable in every partition (T4), while the
 * clock is in doubt (T2, clock.h), while the disk is full (L2), or after a failed sync (L1:
 * ad_serve_failed tells the main thread to end the process).
 * Order of calls: ad_serve_create, ad_serve_listen, { ad_serve_tick }*, ad_serve_stop,
 * ad_serve_destroy. Thread: the main thread, but ad_serve_render from any.
 */
#ifndef AD_SERVE_H
#define AD_SERVE_H

#include "df/config.h"
#include "df/log.h"
#include "jobs/common/access.h"
#include "jobs/common/prices.h"
#include "jobs/ingest/subjects.h"

struct ad_serve_options {
        const struct df_config *config;
        struct ad_access *access;     /* borrowed, as are the next two */
        struct df_log_writer *writer; /* of `events`, on the file log */
        struct ad_prices *prices;
        struct ad_subjects
                *subjects; /* NULL: there are none, and user ids are stored as they are */
        uint32_t partitions;
};

struct ad_serve;
/* Writes the first heartbeats; a full disk or a clock in doubt only delays them. */
int ad_serve_create(const struct ad_serve_options *o, struct ad_serve **ret, struct df_error *err);
int ad_serve_listen(struct ad_serve *s, struct df_error *err);
uint16_t ad_serve_port(const struct ad_serve *s);
void ad_serve_tick(struct ad_serve *s); /* at least every 100 ms */
int ad_serve_failed(struct ad_serve *s,
                    struct df_error *err);       /* 0, or why nothing is appended any more */
void ad_serve_render(void *s, struct df_buf *b); /* Prometheus lines */
/* Drain: no new connections, answer what came in, then the closing heartbeat. DF_EAGAIN: requests
 * were still waiting for the disk after drain_ms; the process must end at once. */
int ad_serve_stop(struct ad_serve *s, int64_t drain_ms, struct df_error *err);
void ad_serve_destroy(struct ad_serve *s); /* NULL-safe; after stop when it listened */

#endif
