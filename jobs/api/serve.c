#include "jobs/api/serve.h"

#include <stdlib.h>

#include "df/run.h"
#include "jobs/api/ask.h"

#define CANCEL_BEFORE_MS 1000 /* of the end of the drain: time to write what was found */

#define GET DF_HTTP_GET
#define BODY AD_COMMAND_BODY_MAX
static const struct df_http_route routes[] = {
        {.path = "/metrics", .methods = GET, .handle = adi_on_metrics},
        {.path = "/quality", .methods = GET, .handle = adi_on_quality},
        {.path = "/", .methods = GET, .handle = adi_on_page},
        {.path = "/events/*", .methods = GET, .handle = adi_on_receipt},
        {"/corrections", GET | DF_HTTP_POST, BODY, NULL, adi_on_corrections},
        {"/corrections/*", GET, 0, NULL, adi_on_correction},
        {"/corrections/*/cancel", DF_HTTP_POST, BODY, NULL, adi_on_cancel},
        {"/reconcile", GET | DF_HTTP_POST, BODY, NULL, adi_on_runs},
        {"/reconcile/*", GET, 0, NULL, adi_on_run},
        {"/periods", GET, 0, NULL, adi_on_periods},
        {"/periods/*", GET, 0, NULL, adi_on_invoice},
        {"/periods/*/close", DF_HTTP_POST, BODY, NULL, adi_on_close},
        {"/periods/*/cancel", DF_HTTP_POST, BODY, NULL, adi_on_close_cancel},
        {"/periods/*/manifest", GET, 0, NULL, adi_on_manifest},
        {"/adjustments", GET, 0, NULL, adi_on_adjustments},
        {"/explain", GET, 0, NULL, adi_on_explain},
};
#undef GET
#undef BODY

int ad_api_create(const struct ad_api_options *o, struct ad_api **ret, struct df_error *err)
{
        struct ad_api *a = calloc(1, sizeof(*a));
        int rc;

        if (!a) {
                ad_api_commands_stop(o->commands);
                return df_fail(err, DF_ENOMEM, "api");
        }
        a->options = *o;
        a->started_ms = df_wall_ms();
        atomic_init(&a->cancel_ms, INT64_MAX);
        adi_latency_init(&a->latency);
        rc = ad_pages_create(0, 0, 0, &a->pages, err);
        if (rc == 0)
                rc = ad_pool_create(AD_API_THREADS, AD_API_QUEUE_MAX, &a->pool, err);
        if (rc == 0)
                rc = ad_pool_create(1, AD_API_RECEIPTS_MAX, &a->receipts, err);
        if (rc < 0) {
                ad_api_destroy(a);
                return rc;
        }
        *ret = a;
        return 0;
}

int ad_api_listen(struct ad_api *a, struct df_error *err)
{
        struct df_http_options o = {
                .name = "api",
                .listen_fd = a->options.listen_fd,
                .address = a->options.address,
                .peer_fd = a->options.peer_fd,
                .threads = a->options.http_threads,
                .routes = routes,
                .route_count = sizeof(routes) / sizeof(routes[0]),
                .arg = a,
                .connections_max = a->options.connections_max,
                .connections_per_address = a->options.connections_per_address,
                .in_flight_max = a->options.in_flight_max,
        };

        return df_http_server_start(&o, &a->server, err);
}

uint16_t ad_api_port(const struct ad_api *a)
{
        return df_http_server_port(a->server);
}

void ad_api_stop(struct ad_api *a, int64_t drain_ms)
{
        int64_t cancel =
                drain_ms > 2 * CANCEL_BEFORE_MS ? drain_ms - CANCEL_BEFORE_MS : drain_ms / 2;

        atomic_store(&a->cancel_ms, df_monotonic_ms() + cancel);
        df_http_server_stop(a->server, drain_ms);
        a->server = NULL;
}

void ad_api_destroy(struct ad_api *a)
{
        if (!a)
                return;
        if (a->server)
                ad_api_stop(a, 0);
        ad_pool_destroy(a->pool);
        ad_pool_destroy(a->receipts);
        ad_api_commands_stop(a->options.commands); /* what the pool put there is answered */
        ad_pages_destroy(a->pages);
        adi_latency_release(&a->latency);
        free(a);
}

void ad_api_render(struct ad_api *a, struct df_buf *b)
{
        struct ad_pages_stats pages;
        int64_t p50, p95;

        ad_pages_stats(a->pages, &pages);
        adi_latency_read(&a->latency, df_wall_ms(), &p50, &p95);
        if (p50 >= 0) {
                df_metric(b, "adtally_api_query_seconds", "quantile=\"0.5\"", (double)p50 / 1e6);
                df_metric(b, "adtally_api_query_seconds", "quantile=\"0.95\"", (double)p95 / 1e6);
        }
        df_metric(b, "adtally_api_answers_total", "", (double)atomic_load(&a->answers));
        df_metric(b, "adtally_api_failures_total", "", (double)atomic_load(&a->failures));
        df_metric(b, "adtally_api_queries_total", "thread=\"loop\"",
                  (double)atomic_load(&a->inline_answers));
        df_metric(b, "adtally_api_queries_total", "thread=\"pool\"",
                  (double)atomic_load(&a->pool_answers));
        df_metric(b, "adtally_api_overloaded_total", "", (double)atomic_load(&a->overloaded));
        df_metric(b, "adtally_api_queries_waiting", "", (double)ad_pool_waiting(a->pool));
        df_metric(b, "adtally_api_pages_results", "", (double)pages.results);
        df_metric(b, "adtally_api_pages_bytes", "", (double)pages.bytes);
        df_metric(b, "adtally_api_pages_evicted_total", "", (double)pages.evicted);
        df_metric(b, "adtally_api_pages_expired_total", "", (double)pages.expired);
        if (a->options.commands)
                ad_api_commands_render(a->options.commands, b);
        if (a->server)
                df_http_server_render(a->server, b);
}
