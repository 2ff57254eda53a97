/* bench_metrics.c - GET /metrics over a view of --events rows: seals and rows are written to
 * `rollups` as the realtime job writes them, the api job builds its view from them, and questions
 * come over loopback: one campaign's last hour by minute, in turn; with --request-rate so many a
 * second for --seconds, each timed from when it was due, else as fast as answers come. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/net.h"
#include "df/seal.h"
#include "jobs/adtally/bench.h"
#include "jobs/common/times.h"

#define REQUESTS 256
#define ROWS_A_PAYLOAD 500
#define ROWS_A_SEAL 50000
#define QUESTIONS 200000
#define MINUTE_MS 60000

struct rows {
        struct df_log_writer *writer;
        struct df_source source;
        struct df_buf payload;
        struct df_seal seal;
        uint64_t k;
        uint32_t n, in_payload;
        struct df_hash128 parent;
};

static int append(struct rows *r, struct df_bytes record, struct df_error *err)
{
        struct df_append a = {.partition = r->source.partition, .value = record};

        return df_log_append(r->writer, &a, 1, err);
}

static int close_payload(struct rows *r, struct df_error *err)
{
        struct df_origin o = {.source = r->source, .k = r->k, .epoch = 1, .n = r->n++};
        struct df_buf b = {0};
        int rc;

        if (r->in_payload == 0) {
                r->n--;
                return 0;
        }
        r->seal.rows_digest = df_digest_add(r->seal.rows_digest, df_buf_bytes(&r->payload));
        df_output_encode(&b, &o, df_buf_bytes(&r->payload));
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = append(r, df_buf_bytes(&b), err);
        df_buf_release(&b);
        df_buf_clear(&r->payload);
        r->in_payload = 0;
        return rc;
}

static int close_seal(struct rows *r, int64_t watermark_ms, struct df_error *err)
{
        struct df_origin o = {.source = r->source, .k = r->k, .epoch = 1};
        struct df_buf b = {0};
        int rc = close_payload(r, err);

        o.n = r->n;
        r->seal.rows = r->n;
        r->seal.parent_k = r->k - 1;
        r->seal.parent_digest = r->parent;
        r->seal.digest = (struct df_hash128){r->k, r->source.partition + 1};
        r->parent = r->seal.digest;
        r->seal.watermark_ms = watermark_ms;
        r->seal.max_append_ms = r->seal.max_receive_ms = watermark_ms;
        r->seal.final_through_ms = watermark_ms - 15 * MINUTE_MS;
        if (rc == 0) {
                df_output_encode_seal(&b, &o, &r->seal);
                rc = df_buf_check(&b, err);
        }
        if (rc == 0)
                rc = append(r, df_buf_bytes(&b), err);
        df_buf_release(&b);
        r->k++;
        r->n = 0;
        r->seal = (struct df_seal){0};
        return rc;
}

/* Rows of (campaign, ad, country) cells over the minutes before now, 1,000 campaigns in turn. */
static int write_rows(struct ad_bench *b, struct rows *r, uint64_t count, int64_t now_ms,
                      struct df_error *err)
{
        uint64_t last = (uint64_t)(now_ms / MINUTE_MS);
        int64_t watermark_ms = 0;
        int rc = 0;

        for (uint64_t i = 0; rc == 0 && i < count; i++) {
                char campaign[16], ad[16];
                struct ad_row row = {
                        .grouping = i % 2 ? 1 : 0,
                        .minute = last - 60 + i * 60 / count,
                        .tenant_id = df_bytes_str("default"),
                        .dim_count = i % 2 ? 5 : 2,
                        .currency = df_bytes_str("EUR"),
                        .cell = {.impressions = 10 + i % 7, .clicks = i % 3, .spend = 1500000},
                };

                (void)snprintf(campaign, sizeof(campaign), "c%llu",
                               (unsigned long long)(i / 2 % 1000));
                (void)snprintf(ad, sizeof(ad), "a%llu", (unsigned long long)(i / 2000 % 10));
                row.dims[0] = df_bytes_str("acme");
                row.dims[1] = df_bytes_str(campaign);
                if (i % 2) {
                        row.dims[2] = df_bytes_str(ad);
                        row.dims[3] = df_bytes_str(i % 4 == 1 ? "DE" : "FR");
                        row.dims[4] = df_bytes_str("phone");
                }
                ad_wire_row(&r->payload, &row);
                if (++r->in_payload == ROWS_A_PAYLOAD)
                        rc = close_payload(r, err);
                /* The seal is taken in the minute of its last row: later rows are not final yet. */
                watermark_ms = (int64_t)row.minute * MINUTE_MS;
                if (rc == 0 && (i + 1) % ROWS_A_SEAL == 0)
                        rc = close_seal(r, watermark_ms, err);
                if (rc == 0 && (i + 1) % ROWS_A_SEAL == 0)
                        rc = ad_bench_stopped(err);
        }
        (void)b;
        return rc == 0 ? close_seal(r, now_ms, err) : rc;
}

struct generation {
        const char *topic;
        uint64_t value;
};
static int find_generation(void *arg, const struct df_topic_info *info)
{
        struct generation *g = arg;

        if (strcmp(info->name, g->topic) == 0)
                g->value = info->generation;
        return 0;
}

static int fill(struct ad_bench *b, struct df_log *log, uint32_t partitions, int64_t now_ms,
                struct df_error *err)
{
        struct generation g = {.topic = AD_TOPIC_EVENTS};
        struct rows r = {0};
        int rc = ad_create_topics(log, partitions, err);

        if (rc == 0)
                rc = df_log_topic_list(log, AD_TOPIC_EVENTS, find_generation, &g, err);
        if (rc == 0)
                rc = df_log_writer_open(log, AD_TOPIC_ROLLUPS, &r.writer, err);
        for (uint32_t p = 0; rc == 0 && p < partitions; p++) {
                (void)snprintf(r.source.stream, sizeof(r.source.stream), AD_TOPIC_EVENTS);
                r.source.generation = g.value;
                r.source.partition = p;
                r.k = 1;
                r.parent = (struct df_hash128){0, 0};
                rc = write_rows(b, &r, b->events / partitions, now_ms, err);
        }
        df_buf_release(&r.payload);
        df_log_writer_close(r.writer);
        return rc;
}

/* Until the view has read everything; how long it took, and how much CPU time. */
static int wait_view(struct ad_bench *b, const struct ad_bench_child *child, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + 300000;

        for (;;) {
                struct ad_samples s;
                double took = 0;

                if (ad_bench_stopped(err) < 0)
                        return err->code;
                if (ad_bench_ended(child))
                        return df_fail(err, DF_EAGAIN,
                                       "the api job ended; its log is %s/api.log, which stays with "
                                       "--work DIR",
                                       b->dir);
                (void)usleep(100000);
                if (ad_samples_read(b->dir, &s, NULL) == 0) {
                        for (size_t i = 0; i < s.count; i++)
                                if (strcmp(s.list[i].name, "adtally_view_catch_up_seconds") == 0)
                                        took = s.list[i].value;
                        ad_samples_release(&s);
                }
                if (took > 0) {
                        ad_bench_figure(b, "view_rows_per_s", (double)b->events / took);
                        ad_bench_figure(b, "view_cpu_ns_per_row",
                                        (double)ad_bench_child_cpu_ns(child) / (double)b->events);
                        return 0;
                }
                if (df_monotonic_ms() > until)
                        return df_fail(err, DF_EAGAIN,
                                       "the view is not built after 300 s: %s/api.log, which stays "
                                       "with --work DIR",
                                       b->dir);
        }
}

static int measure(struct ad_bench *b, const char *address, const struct ad_bench_child *child,
                   int64_t now_ms, struct df_error *err)
{
        struct df_buf made[REQUESTS];
        struct df_bytes requests[REQUESTS];
        uint64_t rate = (uint64_t)df_config_integer(b->config, "request-rate");
        struct df_http_load load = {
                .address = address,
                .requests = requests,
                .request_count = REQUESTS,
                .connections = (uint32_t)df_config_integer(b->config, "connections"),
                .depth = 1,
                .count =
                        rate ? rate * (uint64_t)df_config_integer(b->config, "seconds") : QUESTIONS,
                .timeout_ms = 30000,
                .rate = rate,
                .stop = df_process_stopping,
        };
        struct df_http_load_result r;
        char from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX];
        int64_t end = now_ms / MINUTE_MS * MINUTE_MS, cpu = ad_bench_child_cpu_ns(child);
        int rc;

        (void)ad_time_text(end - 60 * MINUTE_MS, from);
        (void)ad_time_text(end, to);
        for (int i = 0; i < REQUESTS; i++) {
                made[i] = (struct df_buf){0};
                df_buf_printf(&made[i],
                              "GET /v1/metrics?window=minute&from=%s&to=%s&campaign_id=c%d "
                              "HTTP/1.1\r\nHost: localhost\r\n\r\n",
                              from, to, i * 1000 / REQUESTS);
                requests[i] = df_buf_bytes(&made[i]);
        }
        rc = df_http_load(&load, &r, err);
        if (rc == 0 && r.by_class[2] != load.count)
                rc = df_fail(err, DF_EAGAIN, "%llu of %llu requests got a 200",
                             (unsigned long long)r.by_class[2], (unsigned long long)load.count);
        if (rc == 0) {
                ad_bench_figure(b, "rows", (double)b->events);
                ad_bench_figure(b, "asked_per_s", (double)rate); /* 0: as fast as answers come */
                ad_bench_main_figures(b, load.count, (int64_t)r.elapsed_ns,
                                      ad_bench_child_cpu_ns(child) - cpu,
                                      ad_bench_child_peak(child));
                ad_bench_figure(b, "p50_ms", (double)r.p50_ns / 1e6);
                ad_bench_figure(b, "p95_ms", (double)r.p95_ns / 1e6);
                ad_bench_figure(b, "p99_ms", (double)r.p99_ns / 1e6);
        }
        for (int i = 0; i < REQUESTS; i++)
                df_buf_release(&made[i]);
        return rc;
}

int ad_bench_metrics(struct ad_bench *b, struct df_error *err)
{
        uint32_t partitions = (uint32_t)df_config_integer(b->config, "partitions");
        struct ad_bench_child child = {0};
        struct df_log *log = NULL;
        int64_t now_ms = df_wall_ms();
        char address[64];
        uint16_t port = 0;
        int fd = -1, rc = ad_bench_open_log(b, &log, err);

        if (rc == 0)
                rc = fill(b, log, partitions, now_ms, err);
        if (rc == 0)
                rc = df_http_listen("127.0.0.1:0", &fd, &port, err);
        (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port);
        if (rc == 0)
                rc = ad_bench_start(b, "api", NULL, fd, &child, err);
        if (rc == 0)
                rc = wait_view(b, &child, err);
        if (rc == 0)
                rc = measure(b, address, &child, now_ms, err);
        if (child.pid > 0 && ad_bench_stop(&child, rc == 0 ? err : NULL) < 0 && rc == 0)
                rc = err->code;
        if (fd >= 0)
                close(fd);
        df_log_close(log);
        return rc;
}
