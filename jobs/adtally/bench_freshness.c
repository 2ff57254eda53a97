/* bench_freshness.c - everything at once: `adtally up`, events at --rate a second for --seconds,
 * and how long each took from receipt to a number that can be asked for, as GET /quality says. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/net.h"
#include "jobs/adtally/bench.h"
#include "jobs/ingest/json.h"

#define BATCH 500
#define READY_MS 30000
#define COUNTED_MS 60000
#define WARM_US 300000

static int free_address(char ret[32], struct df_error *err)
{
        uint16_t port = 0;
        int fd, rc = df_http_listen("127.0.0.1:0", &fd, &port, err);

        if (rc < 0)
                return rc;
        close(fd);
        (void)snprintf(ret, 32, "127.0.0.1:%u", port);
        return 0;
}

static int post_batch(struct df_http_client *http, uint64_t first, uint64_t count, uint64_t seed,
                      struct df_error *err)
{
        struct df_buf body = {0}, answer = {0};
        int status = 0, rc;

        for (uint64_t i = 0; i < count; i++) {
                uint64_t n = first + i;

                df_buf_printf(
                        &body,
                        "%s{\"event_id\":\"%016llx\",\"type\":\"impression\","
                        "\"advertiser_id\":\"acme\",\"campaign_id\":\"c%llu\",\"ad_id\":\"a%llu\","
                        "\"country\":\"DE\",\"cost_micros\":1500,\"currency\":\"EUR\"}",
                        i ? "," : "[", (unsigned long long)(n * 0x9e3779b97f4a7c15ULL + seed),
                        (unsigned long long)(n % 1000), (unsigned long long)(n % 10));
        }
        df_buf_append(&body, "]", 1);
        rc = df_buf_check(&body, err);
        if (rc == 0)
                rc = df_http_fetch(http, "/v1/events", "application/json", df_buf_bytes(&body),
                                   &status, &answer, err);
        if (rc == 0 && status != 202)
                rc = df_fail(err, DF_EAGAIN, "POST /events answers %d: %.*s", status,
                             (int)(answer.len < 200 ? answer.len : 200), (const char *)answer.data);
        df_buf_release(&body);
        df_buf_release(&answer);
        return rc;
}

/* {"<object>":{"<member>":N}} of GET /quality; -1 when it is not there. */
static int64_t number_of(const struct ad_json_node *n, size_t count, const char *object,
                         const char *member)
{
        for (uint32_t i = 1; i < count; i = n[i].next) {
                if (!df_bytes_eq(n[i].key, df_bytes_str(object)))
                        continue;
                for (uint32_t m = i + 1; m < n[i].next; m = n[m].next)
                        if (df_bytes_eq(n[m].key, df_bytes_str(member)) && n[m].kind == AD_JSON_INT)
                                return n[m].i;
        }
        return -1;
}

struct quality {
        int64_t pending, counted, p50_ms, p95_ms;
};

static int read_quality(struct df_http_client *http, struct quality *ret, struct df_error *err)
{
        struct ad_json_parser *parser = ad_json_create();
        const struct ad_json_node *n;
        struct df_buf body = {0};
        const char *why = "out of memory";
        size_t count = 0;
        int status = 0, rc;

        rc = df_http_fetch(http, "/v1/quality", NULL, df_bytes(NULL, 0), &status, &body, err);
        if (rc == 0 && (!parser || status != 200 ||
                        ad_json_parse(parser, df_buf_bytes(&body), &n, &count, &why) != AD_JSON_OK))
                rc = df_fail(err, DF_EPARSE, "GET /quality answers %d (%s)", status, why);
        if (rc == 0)
                *ret = (struct quality){
                        .pending = number_of(n, count, "ledger", "pending"),
                        .counted = number_of(n, count, "ledger", "counted"),
                        .p50_ms = number_of(n, count, "freshness", "p50_ms"),
                        .p95_ms = number_of(n, count, "freshness", "p95_ms"),
                };
        df_buf_release(&body);
        ad_json_destroy(parser);
        return rc;
}

/* Of each job now, by its status file: is it flat from a third of the time to its end? */
static void put_memory(struct ad_bench *b, const char *when)
{
        struct ad_samples s;
        struct ad_bench_usage u;
        char name[AD_FIGURE_NAME_MAX];

        if (ad_samples_read(b->dir, &s, NULL) < 0)
                return;
        for (size_t i = 0; i < s.job_count; i++) {
                ad_bench_usage(s.jobs[i].stamp.pid, &u);
                (void)snprintf(name, sizeof(name), "%s_rss_bytes_%s", s.jobs[i].job, when);
                ad_bench_figure(b, name, (double)u.rss_bytes);
                (void)snprintf(name, sizeof(name), "%s_peak_bytes_%s", s.jobs[i].job, when);
                ad_bench_figure(b, name, (double)u.peak_rss_bytes);
        }
        ad_samples_release(&s);
}

/* Batches until the first of them is known to be visible: what the jobs' start took is not
 * measured. b->events counts what was sent. */
static int warm_up(struct ad_bench *b, struct df_http_client *http, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + READY_MS;
        struct quality q = {.p95_ms = -1};
        int rc = 0;

        for (b->events = 0; rc == 0 && q.p95_ms < 0; b->events += BATCH) {
                rc = post_batch(http, b->events, BATCH, b->seed, err);
                (void)usleep(WARM_US);
                if (rc == 0)
                        rc = read_quality(http, &q, err);
                if (rc == 0)
                        rc = ad_bench_stopped(err);
                if (rc == 0 && df_monotonic_ms() > until)
                        rc = df_fail(err, DF_EAGAIN, "no event is visible after 30 s");
        }
        return rc;
}

/* /quality looks back five minutes: of ten, one look at the middle and one at the end see all. */
static int put_first_half(struct ad_bench *b, struct df_http_client *http, struct df_error *err)
{
        struct quality q = {0};
        int rc = read_quality(http, &q, err);

        if (rc == 0)
                ad_bench_figure(b, "freshness_p95_ms_half", (double)q.p95_ms);
        return rc;
}

static int send_paced(struct ad_bench *b, struct df_http_client *http,
                      const struct ad_bench_child *up, struct df_error *err)
{
        uint64_t rate = (uint64_t)df_config_integer(b->config, "rate"), sent = 0;
        int64_t seconds = df_config_integer(b->config, "seconds"), began = df_monotonic_ms();
        struct df_progress progress;
        uint64_t before = b->events;
        bool third = false, half = false;
        int rc = 0;

        df_progress_start(&progress, "freshness", "events", rate * (uint64_t)seconds, b->quiet);
        while (rc == 0 && df_monotonic_ms() - began < seconds * 1000) {
                uint64_t due = rate * (uint64_t)(df_monotonic_ms() - began) / 1000;

                if (!third && df_monotonic_ms() - began >= seconds * 1000 / 3) {
                        put_memory(b, "third");
                        third = true;
                }
                if (!half && df_monotonic_ms() - began >= seconds * 1000 / 2) {
                        rc = put_first_half(b, http, err);
                        half = true;
                }
                if (rc == 0)
                        rc = ad_bench_stopped(err);
                if (rc == 0 && ad_bench_ended(up))
                        rc = df_fail(err, DF_EAGAIN,
                                     "`adtally up` ended; its log is %s/up.log, which stays with "
                                     "--work DIR",
                                     b->dir);
                if (rc < 0)
                        break;
                if (due < sent + BATCH) {
                        (void)usleep(500);
                        continue;
                }
                rc = post_batch(http, before + sent, BATCH, b->seed, err);
                sent += BATCH;
                df_progress_show(&progress, sent);
        }
        df_progress_end(&progress, sent);
        if (rc == 0)
                put_memory(b, "end");
        b->events = before + sent;
        return rc;
}

/* Until everything that was sent is counted; each id was sent once. */
static int wait_counted(struct ad_bench *b, struct df_http_client *http, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + COUNTED_MS;
        struct quality q = {0};
        int rc = 0;

        while (rc == 0) {
                rc = read_quality(http, &q, err);
                if (rc == 0 && q.pending == 0 && q.counted >= (int64_t)b->events && q.p95_ms >= 0)
                        break;
                if (rc == 0)
                        rc = ad_bench_stopped(err);
                if (rc == 0 && df_monotonic_ms() > until)
                        rc = df_fail(
                                err, DF_EAGAIN,
                                "%lld of %llu events are counted, %lld pending, 60 s after the "
                                "last was sent",
                                (long long)q.counted, (unsigned long long)b->events,
                                (long long)q.pending);
                (void)usleep(200000);
        }
        if (rc == 0 && (uint64_t)q.counted != b->events)
                rc = df_fail(err, DF_ECORRUPT, "%llu events were sent, %lld are counted",
                             (unsigned long long)b->events, (long long)q.counted);
        if (rc < 0)
                return rc;
        ad_bench_figure(b, "freshness_p50_ms", (double)q.p50_ms);
        ad_bench_figure(b, "freshness_p95_ms", (double)q.p95_ms);
        return 0;
}

static int wait_ready(struct df_http_client *http, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + READY_MS;

        for (;;) {
                struct df_buf body = {0};
                int status = 0, rc = df_http_fetch(http, "/v1/quality", NULL, df_bytes(NULL, 0),
                                                   &status, &body, err);

                df_buf_release(&body);
                if (rc == 0 && status == 200)
                        return 0;
                if (ad_bench_stopped(err) < 0)
                        return err->code;
                if (df_monotonic_ms() > until)
                        return df_fail(err, DF_EAGAIN, "`adtally up` is not ready after 30 s");
                (void)usleep(50000);
        }
}

int ad_bench_freshness(struct ad_bench *b, struct df_error *err)
{
        char listen[32], admin[32], listen_flag[64], admin_flag[64], base[64];
        const char *args[] = {listen_flag, admin_flag, NULL};
        struct df_http_client *http = NULL;
        struct ad_bench_child child = {0};
        int64_t began = 0, elapsed = 0;
        uint64_t warm = 0;
        int rc = free_address(listen, err);

        if (rc == 0)
                rc = free_address(admin, err);
        if (rc < 0)
                return rc;
        (void)snprintf(listen_flag, sizeof(listen_flag), "--listen=%s", listen);
        (void)snprintf(admin_flag, sizeof(admin_flag), "--admin=%s", admin);
        (void)snprintf(base, sizeof(base), "http://%s", listen);
        rc = ad_bench_start(b, "up", args, -1, &child, err);
        if (rc == 0)
                rc = df_http_client_create(base, NULL, 30000, &http, err);
        if (rc == 0)
                rc = wait_ready(http, err);
        if (rc == 0)
                rc = warm_up(b, http, err);
        began = df_monotonic_ns();
        warm = b->events;
        if (rc == 0)
                rc = send_paced(b, http, &child, err);
        elapsed = df_monotonic_ns() - began;
        if (rc == 0)
                rc = wait_counted(b, http, err);
        df_http_client_destroy(http);
        if (child.pid > 0 && ad_bench_stop(&child, rc == 0 ? err : NULL) < 0 && rc == 0)
                rc = err->code;
        if (rc == 0) /* of the supervisor and the jobs it waited for */
                ad_bench_main_figures(b, b->events - warm, elapsed, child.cpu_ns,
                                      child.peak_rss_bytes);
        return rc;
}
