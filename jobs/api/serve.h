/* serve.h - the HTTP side of the api job: GET /metrics, GET /quality, GET /events/{event_id},
 * corrections, runs and periods (ask.h), and a page for people at /.
 *
 * A question that reads little is answered on the event loop of its connection. One that turns out
 * long is given up there and put to a few threads of its own, so it keeps nobody else waiting; when
 * too many wait, 503 `overloaded`.
 * Order of calls: ad_api_create, ad_api_listen, ad_api_stop, ad_api_destroy.
 */
#ifndef AD_API_SERVE_H
#define AD_API_SERVE_H

#include "df/objects.h"
#include "jobs/api/accounts.h"
#include "jobs/api/books_follow.h"
#include "jobs/api/commands.h"
#include "jobs/api/follow.h"
#include "jobs/api/zone.h"
#include "jobs/common/access.h"
#include "operators/ops.h"

#define AD_API_INLINE_CELLS 4000 /* read on the event loop */
#define AD_API_INLINE_ROWS 1000  /* written on the event loop */
#define AD_API_THREADS 2
#define AD_API_QUEUE_MAX 128
#define AD_API_RECEIPTS_MAX 32 /* receipts that wait for their one thread */

struct ad_api_options { /* borrowed */
        struct ad_follow *follow;
        struct ad_books_follow *books; /* NULL: questions for the bill are refused */
        struct ad_zones *zones;
        struct ad_access *access;
        /* Both NULL: corrections, runs and periods are refused. commands is taken over. */
        struct ad_api_commands *commands;
        struct ad_accounts *accounts;
        const char *data_dir;
        struct df_log *log;         /* of receipts (receipt.h), as are the next two */
        struct df_log *source;      /* `events` with what is archived */
        struct df_objects *objects; /* the archive, of explanations; NULL: there is none */
        struct ad_params params;    /* horizon, grace and prices */
        struct df_clock_rules rules;
        int listen_fd; /* -1: listen at address */
        const char *address;
        int peer_fd;
        uint32_t http_threads, connections_max, connections_per_address;
        uint64_t in_flight_max;
};

struct ad_api;
int ad_api_create(const struct ad_api_options *o, struct ad_api **ret, struct df_error *err);
int ad_api_listen(struct ad_api *a, struct df_error *err);
uint16_t ad_api_port(const struct ad_api *a);
void ad_api_render(struct ad_api *a, struct df_buf *b); /* Prometheus lines. Thread: any */
/* Take no more connections, answer what was asked; what still reads close to the end of drain_ms is
 * answered 503. */
void ad_api_stop(struct ad_api *a, int64_t drain_ms);
void ad_api_destroy(struct ad_api *a); /* NULL-safe */

#endif
