/* bench_ingest.c - POST /events over loopback until the log has acknowledged: --batch events a
 * request, on --connections keep-alive connections. CPU and memory are the ingest process's alone;
 * the client needs a core of its own. */
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/net.h"
#include "jobs/adtally/bench.h"
#include "jobs/common/times.h"

#define REQUESTS 512 /* different ones, sent in turn */

/* Of 1 to users, each as frequent as 1 / its number (Zipf): the log of the number is uniform. */
static void put_user(struct df_buf *b, uint64_t n, uint64_t seed, uint64_t users)
{
        uint64_t mixed[2] = {n, seed};
        double u = (double)(df_hash64(df_bytes(mixed, sizeof(mixed))) >> 11) / 0x1p53;

        df_buf_printf(b, ",\"user_id\":\"u%llu\"", (unsigned long long)pow((double)users + 1, u));
}

static void put_event(struct df_buf *b, uint64_t n, uint64_t seed, const char *time, uint64_t users)
{
        df_buf_printf(b,
                      "{\"event_id\":\"%016llx\",\"type\":\"%s\",\"event_time\":\"%s\","
                      "\"advertiser_id\":\"acme\","
                      "\"campaign_id\":\"c%llu\",\"ad_id\":\"a%llu\",\"publisher_id\":\"p%llu\","
                      "\"country\":\"DE\",\"device\":\"phone\",\"cost_micros\":1500,"
                      "\"currency\":\"EUR\"",
                      (unsigned long long)(n * 0x9e3779b97f4a7c15ULL + seed),
                      n % 10 ? "impression" : "click", time, (unsigned long long)(n % 1000),
                      (unsigned long long)(n % 10), (unsigned long long)(n % 100));
        if (users)
                put_user(b, n, seed, users);
        df_put_u8(b, '}');
}

/* A complete request of `batch` events; ids repeat only when the requests do. */
static int make_request(const struct ad_bench *b, uint64_t index, uint64_t batch,
                        struct df_buf *ret, struct df_error *err)
{
        uint64_t users = (uint64_t)df_config_integer(b->config, "users");
        struct df_buf body = {0};
        char time[AD_TIME_TEXT_MAX];
        int rc;

        (void)ad_time_text(df_wall_ms(), time);
        if (batch > 1)
                df_put_u8(&body, '[');
        for (uint64_t i = 0; i < batch; i++) {
                if (i)
                        df_put_u8(&body, ',');
                put_event(&body, index * batch + i, b->seed, time, users);
        }
        if (batch > 1)
                df_put_u8(&body, ']');
        df_buf_printf(ret,
                      "POST /v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: "
                      "application/json\r\nContent-Length: %zu\r\n\r\n",
                      body.len);
        df_buf_append(ret, body.data, body.len);
        rc = df_buf_check(&body, err);
        df_buf_release(&body);
        return rc == 0 ? df_buf_check(ret, err) : rc;
}

/* Until it answers anything at all. */
static int wait_for(const char *base, struct df_error *err)
{
        struct df_http_client *c = NULL;
        int64_t until = df_monotonic_ms() + 20000;
        int status, rc = df_http_client_create(base, NULL, 2000, &c, err);

        while (rc == 0) {
                struct df_buf body = {0};

                rc = df_http_fetch(c, "/v1/events", "application/json", df_bytes_str("[]"), &status,
                                   &body, err);
                df_buf_release(&body);
                if (rc == 0 && status < 500)
                        break;
                if (ad_bench_stopped(err) < 0) {
                        rc = err->code;
                        break;
                }
                if (df_monotonic_ms() > until)
                        rc = df_fail(err, DF_EAGAIN, "ingest does not answer: %s", base);
                else
                        rc = 0;
                (void)usleep(20000);
        }
        df_http_client_destroy(c);
        return rc;
}

/* What the process counted itself, from the status it writes at its end. */
static int read_counters(struct ad_bench *b, struct df_error *err)
{
        static const char *const names[] = {
                "adtally_ingest_events_total{outcome=\"accepted\"} ",
                "adtally_ingest_records_total ",
                "adtally_ingest_appends_total ",
        };
        double values[3] = {0};
        char path[PATH_MAX];
        struct df_buf text = {0};
        int rc;

        (void)snprintf(path, sizeof(path), "%s/run/ingest.prom", b->dir);
        rc = df_read_file(path, 1 << 20, &text, err);
        df_put_u8(&text, 0);
        if (rc == 0)
                rc = df_buf_check(&text, err);
        for (size_t i = 0; rc == 0 && i < 3; i++) {
                const char *at = strstr((const char *)text.data, names[i]);

                if (at)
                        values[i] = strtod(at + strlen(names[i]), NULL);
                if (values[i] <= 0)
                        rc = df_fail(err, DF_EPARSE, "%s has no %s", path, names[i]);
        }
        df_buf_release(&text);
        if (rc < 0)
                return rc;
        ad_bench_figure(b, "events_per_record", values[0] / values[1]);
        ad_bench_figure(b, "events_per_append", values[0] / values[2]);
        return 0;
}

static void report(struct ad_bench *b, const struct df_http_load_result *r, uint64_t requests,
                   uint64_t batch, int64_t cpu_ns)
{
        double elapsed_s = (double)r->elapsed_ns / 1e9, cpu_s = (double)cpu_ns / 1e9;

        ad_bench_figure(b, "events_per_cpu_s", (double)(requests * batch) / cpu_s);
        ad_bench_figure(b, "requests_per_cpu_s", (double)requests / cpu_s);
        ad_bench_figure(b, "requests_per_s", (double)requests / elapsed_s);
        ad_bench_figure(b, "cpu_cores", cpu_s / elapsed_s);
        ad_bench_figure(b, "batch", (double)batch);
        ad_bench_figure(b, "bytes_per_event", (double)r->bytes_sent / (double)(requests * batch));
        ad_bench_figure(b, "p50_ms", (double)r->p50_ns / 1e6);
        ad_bench_figure(b, "p95_ms", (double)r->p95_ns / 1e6);
        ad_bench_figure(b, "p99_ms", (double)r->p99_ns / 1e6);
}

static int measure(struct ad_bench *b, const char *address, struct ad_bench_child *child,
                   const struct df_bytes *requests, uint64_t batch, struct df_error *err)
{
        struct df_http_load load = {
                .address = address,
                .requests = requests,
                .request_count = REQUESTS,
                .connections = (uint32_t)df_config_integer(b->config, "connections"),
                .depth = 1,
                .count = b->events / batch,
                .rate = (uint64_t)df_config_integer(b->config, "request-rate"),
                .timeout_ms = 30000,
                .stop = df_process_stopping,
        };
        struct df_http_load_result r;
        int64_t cpu_ns = ad_bench_child_cpu_ns(child);
        int rc = df_http_load(&load, &r, err);

        cpu_ns = ad_bench_child_cpu_ns(child) - cpu_ns;
        if (rc < 0)
                return rc;
        if (r.by_class[2] != load.count)
                return df_fail(err, DF_EAGAIN, "%llu of %llu requests got a 202",
                               (unsigned long long)r.by_class[2], (unsigned long long)load.count);
        ad_bench_main_figures(b, load.count * batch, (int64_t)r.elapsed_ns, cpu_ns,
                              ad_bench_child_peak(child));
        report(b, &r, load.count, batch, cpu_ns);
        return 0;
}

static int run(struct ad_bench *b, const struct df_bytes *requests, uint64_t batch,
               struct df_error *err)
{
        char address[64], base[80];
        struct ad_bench_child child = {0};
        uint16_t port = 0;
        int fd = -1, rc = df_http_listen("127.0.0.1:0", &fd, &port, err);

        if (rc < 0)
                return rc;
        (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port);
        (void)snprintf(base, sizeof(base), "http://%s", address);
        rc = ad_bench_start(b, "ingest", NULL, fd, &child, err);
        if (rc == 0)
                rc = wait_for(base, err);
        if (rc == 0)
                rc = measure(b, address, &child, requests, batch, err);
        if (child.pid > 0 && ad_bench_stop(&child, rc == 0 ? err : NULL) < 0 && rc == 0)
                rc = err->code;
        if (rc == 0)
                rc = read_counters(b, err);
        close(fd);
        return rc;
}

int ad_bench_ingest(struct ad_bench *b, struct df_error *err)
{
        uint64_t batch = (uint64_t)df_config_integer(b->config, "batch");
        struct df_buf *made = calloc(REQUESTS, sizeof(*made));
        struct df_bytes *requests = calloc(REQUESTS, sizeof(*requests));
        int rc = made && requests ? 0 : df_fail(err, DF_ENOMEM, "requests");

        for (uint64_t i = 0; rc == 0 && i < REQUESTS; i++) {
                rc = make_request(b, i, batch, &made[i], err);
                requests[i] = df_buf_bytes(&made[i]);
        }
        if (rc == 0)
                rc = run(b, requests, batch, err);
        for (size_t i = 0; made && i < REQUESTS; i++)
                df_buf_release(&made[i]);
        free(made);
        free(requests);
        return rc;
}
