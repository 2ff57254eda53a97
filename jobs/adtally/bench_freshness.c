/* bench_freshness.c - everything at once: `adtally up`, events at --rate a second for --seconds (or
 * at half of what the machine counts at most), and how long each took from receipt to a number that
 * can be asked for, as GET /quality says. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/net.h"
#include "jobs/adtally/bench.h"
#include "jobs/ingest/json.h"

#define READY_MS 30000
#define COUNTED_MS 60000
#define WARM_US 300000
#define WARM_RATE 2000 /* events a second */
#define TICK_US 50000
#define ID_HALF_BYTES 27             /* most memory of a live id, 13.5: operators/dedupe.c */
#define OPEN_ID_BYTES (128 + 6 + 48) /* of an open one beside that: set, delta, runs under way */

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

static void put_when(struct ad_bench *b, const char *job, const char *what, const char *when,
                     double value)
{
        char name[AD_FIGURE_NAME_MAX];

        (void)snprintf(name, sizeof(name), "%s%s_%s", job, what, when);
        ad_bench_figure(b, name, value);
}

/* What so many ids take at most (ARCHITECTURE.md, "State of a task"), all within the horizon. */
static uint64_t model_bytes(const struct ad_bench *b, uint64_t ids)
{
        uint64_t partitions = (uint64_t)df_config_integer(b->config, "partitions");
        uint64_t limit = (uint64_t)df_config_integer(b->config, "dedupe-open-ids");
        uint64_t open = ids / partitions;

        if (open > limit)
                open = limit;
        return ids * ID_HALF_BYTES / 2 + partitions * open * OPEN_ID_BYTES;
}

/* Of each job now, by its status file; `ids` different ones were sent so far. Those of the horizon
 * have to be kept: flat is what realtime holds beyond them. */
static int put_memory(struct ad_bench *b, uint64_t ids, const char *when, uint64_t *ret_realtime,
                      struct df_error *err)
{
        uint64_t model = model_bytes(b, ids), realtime = 0;
        struct ad_samples s;
        struct ad_bench_usage u;
        int rc = ad_samples_read(b->dir, &s, err);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i < s.job_count; i++) {
                ad_bench_usage(s.jobs[i].stamp.pid, &u);
                put_when(b, s.jobs[i].job, "_rss_bytes", when, (double)u.rss_bytes);
                put_when(b, s.jobs[i].job, "_peak_bytes", when, (double)u.peak_rss_bytes);
                if (strcmp(s.jobs[i].job, "realtime") == 0)
                        realtime += u.rss_bytes;
        }
        ad_samples_release(&s);
        put_when(b, "", "events", when, (double)ids);
        *ret_realtime = realtime;
        put_when(b, "", "realtime_rss_model_bytes", when, (double)model);
        put_when(b, "", "realtime_rss_beyond_model_bytes", when, (double)realtime - (double)model);
        return 0;
}

/* The phases of a run: what they send adds up in b->events, and the numbers of ids go on. */
struct phase {
        struct ad_bench *b;
        struct df_http_client *http;
        const struct ad_bench_child *up;
        const char *base;
        uint64_t next; /* number of the next event */
};

static int look(const struct phase *p, struct df_error *err)
{
        if (ad_bench_stopped(err) < 0)
                return err->code;
        if (!ad_bench_ended(p->up))
                return 0;
        return df_fail(err, DF_EAGAIN,
                       "`adtally up` ended; its log is %s/up.log, which stays with --work DIR",
                       p->b->dir);
}

static int begin(const struct phase *p, uint64_t rate, struct ad_bench_senders **ret,
                 struct df_error *err)
{
        struct ad_bench_load load = {
                .base = p->base,
                .first = p->next,
                .seed = p->b->seed,
                .rate = rate,
                .senders = (unsigned)df_config_integer(p->b->config, "senders"),
        };

        return ad_bench_senders_start(&load, ret, err);
}

/* rc: what the phase came to so far. */
static int end(struct phase *p, struct ad_bench_senders *s, int rc, struct ad_bench_sent *ret,
               struct df_error *err)
{
        int stopped = s ? ad_bench_senders_stop(s, ret, rc == 0 ? err : NULL) : 0;

        if (!s)
                *ret = (struct ad_bench_sent){0};
        p->b->events += ret->events;
        p->next += ret->numbers;
        return rc < 0 ? rc : stopped;
}

/* Batches until the first of them is known to be visible: what the jobs' start took is not
 * measured. */
static int warm_up(struct phase *p, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + READY_MS;
        struct quality q = {.p95_ms = -1};
        struct ad_bench_senders *s = NULL;
        struct ad_bench_sent sent;
        int rc = begin(p, WARM_RATE, &s, err);

        while (rc == 0 && q.p95_ms < 0 && !ad_bench_senders_failed(s)) {
                (void)usleep(WARM_US);
                rc = read_quality(p->http, &q, err);
                if (rc == 0)
                        rc = look(p, err);
                if (rc == 0 && df_monotonic_ms() > until)
                        rc = df_fail(err, DF_EAGAIN, "no event is visible after 30 s");
        }
        return end(p, s, rc, &sent, err);
}

/* /quality looks back five minutes: of ten, one look at the middle and one at the end see all. */
static int put_first_half(const struct phase *p, struct df_error *err)
{
        struct quality q = {0};
        int rc = read_quality(p->http, &q, err);

        if (rc == 0)
                ad_bench_figure(p->b, "freshness_p95_ms_half", (double)q.p95_ms);
        return rc;
}

/* As fast as answers come; the rate is what the jobs counted once this was under way. */
static int find_rate(struct phase *p, uint64_t *ret, struct df_error *err)
{
        int64_t began = df_monotonic_ms(), from_ms = 0, to_ms = 0;
        int64_t ms = df_config_integer(p->b->config, "probe") * 1000;
        struct quality from = {0}, to = {0};
        struct ad_bench_senders *s = NULL;
        struct ad_bench_sent sent;
        int rc = begin(p, 0, &s, err);

        if (rc == 0 && !p->b->quiet)
                (void)fprintf(stderr, "freshness: looking for the highest rate, %lld s\n",
                              (long long)ms / 1000);
        while (rc == 0 && !ad_bench_senders_failed(s) && df_monotonic_ms() - began < ms) {
                (void)usleep(WARM_US);
                rc = look(p, err);
                if (rc == 0 && from_ms == 0 && df_monotonic_ms() - began > ms / 3) {
                        rc = read_quality(p->http, &from, err);
                        from_ms = df_monotonic_ms();
                }
        }
        if (rc == 0) {
                rc = read_quality(p->http, &to, err);
                to_ms = df_monotonic_ms();
        }
        rc = end(p, s, rc, &sent, err);
        if (rc < 0)
                return rc;
        if (to.counted <= from.counted || to_ms <= from_ms)
                return df_fail(err, DF_EAGAIN, "nothing was counted in %lld s of --probe",
                               (long long)ms / 1000);
        *ret = (uint64_t)(to.counted - from.counted) * 1000 / (uint64_t)(to_ms - from_ms);
        ad_bench_figure(p->b, "max_events_per_s", (double)*ret);
        return 0;
}

static void put_sent(struct ad_bench *b, uint64_t rate, const struct ad_bench_sent *sent,
                     int64_t ms)
{
        ad_bench_figure(b, "offered_per_s", (double)rate);
        ad_bench_figure(b, "sent_per_s", ms ? (double)sent->events * 1000 / (double)ms : 0);
        ad_bench_figure(b, "late_batches", (double)sent->late_batches);
        ad_bench_figure(b, "repeated_batches", (double)sent->repeated_batches);
        ad_bench_figure(b, "sender_cpu_ns_per_event",
                        sent->events ? (double)sent->cpu_ns / (double)sent->events : 0);
}

/* What is to be looked at so far into the phase, each once. */
struct looks {
        bool third, half, two_thirds;
        uint64_t ids, realtime; /* bytes; both after a third */
};

static int look_at(const struct phase *p, struct looks *done, int64_t passed, int64_t ms,
                   uint64_t sent, struct df_error *err)
{
        int rc = 0;

        if (!done->third && passed >= ms / 3) {
                done->ids = p->b->events + sent;
                rc = put_memory(p->b, done->ids, "third", &done->realtime, err);
                done->third = true;
        }
        if (rc == 0 && !done->half && passed >= ms / 2) {
                rc = put_first_half(p, err);
                done->half = true;
        }
        if (rc == 0 && !done->two_thirds && passed >= ms / 3 * 2) {
                uint64_t realtime;

                rc = put_memory(p->b, p->b->events + sent, "two_thirds", &realtime, err);
                done->two_thirds = true;
        }
        return rc == 0 ? look(p, err) : rc;
}

/* The bound of put_memory would hide what grows slowly under it: this does not. */
static int put_growth(struct ad_bench *b, const struct looks *done, struct df_error *err)
{
        uint64_t realtime = 0;
        int rc = put_memory(b, b->events, "end", &realtime, err);

        if (rc == 0 && done->third && b->events > done->ids)
                ad_bench_figure(b, "realtime_rss_growth_bytes_per_id",
                                ((double)realtime - (double)done->realtime) /
                                        (double)(b->events - done->ids));
        return rc;
}

static int send_paced(struct phase *p, uint64_t rate, struct df_error *err)
{
        struct ad_bench *b = p->b;
        int64_t ms = df_config_integer(b->config, "seconds") * 1000, began = df_monotonic_ms();
        struct ad_bench_senders *s = NULL;
        struct df_progress progress;
        struct ad_bench_beside beside = {0};
        struct ad_bench_sent sent;
        struct looks done = {0};
        int rc = begin(p, rate, &s, err);

        df_progress_start(&progress, "freshness", "events", rate * (uint64_t)ms / 1000, b->quiet);
        while (rc == 0 && !ad_bench_senders_failed(s) && df_monotonic_ms() - began < ms) {
                uint64_t so_far = ad_bench_senders_sent(s);

                df_progress_show(&progress, so_far);
                rc = look_at(p, &done, df_monotonic_ms() - began, ms, so_far, err);
                if (rc == 0 && df_config_bool(b->config, "recompute"))
                        rc = ad_bench_beside_step(b, &beside, err);
                (void)usleep(TICK_US);
        }
        ms = df_monotonic_ms() - began;
        if (df_config_bool(b->config, "recompute"))
                ad_bench_beside_end(b, &beside, ms * 1000000);
        rc = end(p, s, rc, &sent, err);
        df_progress_end(&progress, sent.events);
        if (rc < 0)
                return rc;
        put_sent(b, rate, &sent, ms);
        return put_growth(b, &done, err);
}

/* Until everything that was sent is counted; each id was sent once. */
static int wait_counted(const struct phase *p, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + COUNTED_MS;
        uint64_t sent = p->b->events;
        struct quality q = {0};
        int rc = 0;

        while (rc == 0) {
                rc = read_quality(p->http, &q, err);
                if (rc == 0 && q.pending == 0 && q.counted >= (int64_t)sent && q.p95_ms >= 0)
                        break;
                if (rc == 0)
                        rc = look(p, err);
                if (rc == 0 && df_monotonic_ms() > until)
                        rc = df_fail(err, DF_EAGAIN,
                                     "%lld of %llu events are counted, %lld pending, 60 s after "
                                     "the last was sent",
                                     (long long)q.counted, (unsigned long long)sent,
                                     (long long)q.pending);
                (void)usleep(200000);
        }
        if (rc == 0 && (uint64_t)q.counted != sent)
                rc = df_fail(err, DF_ECORRUPT, "%llu events were sent, %lld are counted",
                             (unsigned long long)sent, (long long)q.counted);
        return rc;
}

static int put_freshness(const struct phase *p, struct df_error *err)
{
        struct quality q = {0};
        int rc = read_quality(p->http, &q, err);

        ad_bench_figure(p->b, "events_counted", (double)q.counted); /* of all phases */
        ad_bench_figure(p->b, "freshness_p50_ms", (double)q.p50_ms);
        ad_bench_figure(p->b, "freshness_p95_ms", (double)q.p95_ms);
        return rc;
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

/* --rate, or half of what the machine can do. */
static int run_phases(struct phase *p, int64_t *ret_elapsed_ns, uint64_t *ret_events,
                      struct df_error *err)
{
        uint64_t rate = (uint64_t)df_config_integer(p->b->config, "rate"), before;
        int64_t began;
        int rc = warm_up(p, err);

        if (rc == 0 && rate == 0) {
                rc = find_rate(p, &rate, err);
                rate /= 2;
                if (rc == 0) /* the backlog of that is no part of what follows */
                        rc = wait_counted(p, err);
        }
        if (rc < 0)
                return rc;
        began = df_monotonic_ns();
        before = p->b->events;
        rc = send_paced(p, rate ? rate : 1, err);
        *ret_elapsed_ns = df_monotonic_ns() - began;
        *ret_events = p->b->events - before;
        if (rc == 0)
                rc = wait_counted(p, err);
        return rc < 0 ? rc : put_freshness(p, err);
}

int ad_bench_freshness(struct ad_bench *b, struct df_error *err)
{
        char listen[32], admin[32], listen_flag[64], admin_flag[64], base[64];
        const char *args[] = {listen_flag, admin_flag, NULL};
        struct ad_bench_child child = {0};
        struct phase p = {.b = b, .up = &child, .base = base};
        int64_t elapsed = 0;
        uint64_t events = 0;
        int rc = free_address(listen, err);

        if (rc == 0)
                rc = free_address(admin, err);
        if (rc < 0)
                return rc;
        (void)snprintf(listen_flag, sizeof(listen_flag), "--listen=%s", listen);
        (void)snprintf(admin_flag, sizeof(admin_flag), "--admin=%s", admin);
        (void)snprintf(base, sizeof(base), "http://%s", listen);
        b->events = 0;
        rc = ad_bench_start(b, "up", args, -1, &child, err);
        if (rc == 0)
                rc = df_http_client_create(base, NULL, 30000, &p.http, err);
        if (rc == 0)
                rc = wait_ready(p.http, err);
        if (rc == 0)
                rc = run_phases(&p, &elapsed, &events, err);
        df_http_client_destroy(p.http);
        if (child.pid > 0 && ad_bench_stop(&child, rc == 0 ? err : NULL) < 0 && rc == 0)
                rc = err->code;
        if (rc == 0) { /* of the supervisor and the jobs it waited for, over all phases */
                double cpu_ns = (double)child.cpu_ns / (double)b->events;

                ad_bench_main_figures(b, events, elapsed, (int64_t)(cpu_ns * (double)events),
                                      child.peak_rss_bytes);
        }
        return rc;
}
