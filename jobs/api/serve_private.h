/* serve_private.h - between serve.c and answer.c. */
#ifndef ADI_SERVE_PRIVATE_H
#define ADI_SERVE_PRIVATE_H

#include <pthread.h>

#include "jobs/api/pages.h"
#include "jobs/api/pool.h"
#include "jobs/api/serve.h"

#define ADI_LATENCY_BUCKETS 80 /* four an octave from 16 us: up to 16 s */
#define ADI_LATENCY_SLOTS 5    /* minutes */

struct adi_latency {
        pthread_mutex_t lock;
        struct {
                int64_t minute;
                uint64_t counts[ADI_LATENCY_BUCKETS];
        } slots[ADI_LATENCY_SLOTS];
};
void adi_latency_init(struct adi_latency *l);
void adi_latency_add(struct adi_latency *l, int64_t ns, int64_t now_ms);
/* In microseconds, over the last minutes; -1 without any. */
void adi_latency_read(struct adi_latency *l, int64_t now_ms, int64_t *ret_p50_us,
                      int64_t *ret_p95_us);
void adi_latency_release(struct adi_latency *l);

struct ad_api {
        struct ad_api_options options;
        struct df_http_server *server;
        struct ad_pages *pages;
        struct ad_pool *pool;
        struct ad_pool *receipts;       /* one thread */
        atomic_int_least64_t cancel_ms; /* monotonic */
        atomic_uint_least64_t answers, failures, inline_answers, pool_answers, overloaded;
        int64_t started_ms;
        struct adi_latency latency;
};

/* Handlers of routes; arg is the struct ad_api. */
void adi_on_metrics(void *arg, struct df_http_request *r);
void adi_on_quality(void *arg, struct df_http_request *r);
void adi_on_page(void *arg, struct df_http_request *r);

#endif
