/* serve_private.h - between serve.c (life, clock, metrics) and request.c (one request). */
#ifndef AD_SERVE_PRIVATE_H
#define AD_SERVE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "jobs/ingest/clock.h"
#include "jobs/ingest/pack.h"
#include "jobs/ingest/parse.h"
#include "jobs/ingest/serve.h"

#define DFI_REASONS 128    /* above every enum ad_reason */
#define DFI_PARSERS_MAX 16 /* as --http-threads */
#define DFI_ROUTES 3

struct dfi_eraser;

struct ad_serve {
        struct ad_serve_options o;
        bool seals;                /* --seal-user-ids */
        struct dfi_eraser *eraser; /* NULL without subjects */
        struct df_bytes currency;
        int64_t accepted_age_ms, late_after_ms, heartbeat_every_ms;
        struct ad_pack *pack;
        struct df_http_server *server;
        struct df_http_route routes[DFI_ROUTES]; /* dfi_routes with --body-max */

        pthread_mutex_t clock_lock;
        struct ad_guard guard;

        /* One parser an event loop: a handler takes one and gives it back before it returns. */
        pthread_mutex_t parsers_lock;
        struct ad_parser *parsers[DFI_PARSERS_MAX];
        uint32_t parser_count, parsers_free;

        atomic_uint price_version;
        atomic_bool introduced; /* T4: this start's first heartbeats are durable */
        atomic_uint jitter;
        atomic_size_t waiting; /* requests that wait for their append */
        atomic_uint_fast64_t refused_events[DFI_REASONS];
        atomic_uint_fast64_t refused_requests[DFI_REASONS];
        atomic_int append_failure;     /* enum df_err of the last failed append */
        atomic_int_fast64_t warned_ms; /* monotonic: append failures are logged now and then */

        pthread_mutex_t failed_lock;
        struct df_error failed; /* L1 */

        /* Main thread. */
        int64_t heartbeat_ms, second_ms; /* monotonic */
        enum ad_guard_state told;        /* clock state of the last log line */
};

/* subject_http.c */
int dfi_eraser_start(struct ad_subjects *subjects, struct dfi_eraser **ret, struct df_error *err);
void dfi_eraser_stop(struct dfi_eraser *e); /* ends what waits first; NULL-safe */
void dfi_subject_handle(void *arg, struct df_http_request *r);
/* serve.c: tells a failure of the log or of the keys, and ends the process when it must. */
void dfi_append_failed(void *arg, const struct df_error *err);

/* request.c */
extern const struct df_http_route dfi_routes[DFI_ROUTES]; /* without body_max */
/* pack.h, done: the answer of one request. ticket: a struct request, freed here. */
void dfi_request_done(void *arg, void *ticket, int rc);
/* Looks at both clocks now. */
enum ad_guard_state dfi_look(struct ad_serve *s, int64_t *ret_wall_ms, int64_t *ret_off_ms);

#endif
