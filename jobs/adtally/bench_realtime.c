/* bench_realtime.c - the realtime job over a backlog in the log: decode, dedupe, windows,
 * exactly-once checkpoints, rows to `rollups`. How far it is is read from its seals, not from
 * itself. The backlog is a quarter longer than --events: its first eighth warms the job up (memory
 * that was never used costs more than what is done with it), and at the end as much is left, so
 * that between the two readings of the clock the job does nothing but work, and as much is
 * processed and not yet sealed at the one as at the other. total_s is the whole, drained to the
 * last seal. Afterwards the job is killed with SIGKILL and started again: the time until every
 * partition goes on is the restart time with this much state. */
#include <ftw.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobs/adtally/bench.h"
#include "jobs/adtally/bench_follow.h"

#define STALL_MS 120000
#define START_MS 60000
#define RESTART_MS 120000
#define LOOK_US 2000
#define IDLE_US 5000
#define STATUS_US 1200000 /* the status file is written every second */

static uint64_t tree_bytes;
static int add_bytes(const char *path, const struct stat *st, int flag, struct FTW *w)
{
        (void)path;
        (void)w;
        if (flag == FTW_F)
                tree_bytes += (uint64_t)st->st_blocks * 512 / (st->st_nlink ? st->st_nlink : 1);
        return 0;
}

static uint64_t state_bytes(const struct ad_bench *b)
{
        char path[300];

        (void)snprintf(path, sizeof(path), "%s/state", b->dir);
        tree_bytes = 0;
        (void)nftw(path, add_bytes, 32, FTW_PHYS); /* a figure, no more */
        return tree_bytes;
}

/* How many tasks have been taken over so far, by the job's log lines. */
static uint32_t taken_over(const struct ad_bench *b)
{
        char path[300];
        struct df_buf text = {0};
        uint32_t count = 0;

        (void)snprintf(path, sizeof(path), "%s/realtime.log", b->dir);
        if (df_read_file(path, 64u << 20, &text, NULL) < 0)
                return 0;
        df_put_u8(&text, 0);
        for (const char *p = text.failed ? NULL : strstr((const char *)text.data, " taken over k=");
             p; p = strstr(p + 1, " taken over k="))
                count++;
        df_buf_release(&text);
        return count;
}

static int failed_job(const struct ad_bench *b, struct df_error *err)
{
        return df_fail(err, DF_EAGAIN,
                       "the job ended; its log is %s/realtime.log, which stays "
                       "with --work DIR",
                       b->dir);
}

static int wait_taken_over(const struct ad_bench *b, const struct ad_bench_child *child,
                           uint32_t count, int64_t limit_ms, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + limit_ms;
        int rc = 0;

        while (rc == 0 && taken_over(b) < count) {
                (void)usleep(LOOK_US);
                rc = ad_bench_stopped(err);
                if (rc == 0 && ad_bench_ended(child))
                        rc = failed_job(b, err);
                if (rc == 0 && df_monotonic_ms() > until)
                        rc = df_fail(err, DF_EAGAIN,
                                     "the job has not taken its partitions over in %lld s; its "
                                     "log: %s/realtime.log, which stays with --work DIR",
                                     (long long)limit_ms / 1000, b->dir);
        }
        return rc;
}

struct wait { /* for the job */
        struct df_progress progress;
        int64_t moved_ms;
        uint64_t seen;
        uint32_t taken_over;
        int64_t ready_ns; /* when the last partition was taken over; 0: not yet */
};

/* DF_EAGAIN: nothing moves any more. */
static int look(struct ad_bench *b, struct wait *w, const struct ad_follower *f,
                struct df_error *err)
{
        uint32_t before = w->taken_over;

        if (!w->ready_ns) {
                w->taken_over = taken_over(b);
                if (w->taken_over >= f->partitions)
                        w->ready_ns = df_monotonic_ns();
        }
        if (f->events != w->seen || w->taken_over != before)
                w->moved_ms = df_monotonic_ms();
        w->seen = f->events;
        df_progress_show(&w->progress, f->events);
        if (df_monotonic_ms() - w->moved_ms <= STALL_MS)
                return 0;
        return df_fail(err, DF_EAGAIN,
                       "the job stands at %llu of %llu events, with %u of %u partitions taken "
                       "over; its log: %s/realtime.log, which stays with --work DIR",
                       (unsigned long long)f->events, (unsigned long long)b->events, w->taken_over,
                       f->partitions, b->dir);
}

static int wait_processed(struct ad_bench *b, const struct ad_bench_child *child, struct wait *w,
                          struct ad_follower *f, uint64_t until, struct df_error *err)
{
        int rc = 0;

        while (rc == 0 && f->events < until) {
                bool idle;

                rc = ad_follow(f, &idle, err);
                if (rc == 0)
                        rc = look(b, w, f, err);
                if (rc == 0)
                        rc = ad_bench_stopped(err);
                if (rc == 0 && ad_bench_ended(child))
                        rc = failed_job(b, err);
                if (idle)
                        (void)usleep(IDLE_US);
        }
        return rc;
}

/* Started again after SIGKILL: until every partition goes on from its checkpoint. */
static int measure_restart(struct ad_bench *b, uint32_t partitions, struct df_error *err)
{
        uint32_t before = taken_over(b);
        struct ad_bench_child child = {0};
        int64_t began = df_monotonic_ns();
        int rc = ad_bench_start(b, "realtime", NULL, -1, &child, err);

        if (rc == 0)
                rc = wait_taken_over(b, &child, before + partitions, RESTART_MS, err);
        if (rc == 0)
                ad_bench_figure(b, "restart_s", (double)(df_monotonic_ns() - began) / 1e9);
        if (rc == 0)
                return ad_bench_stop(&child, err);
        ad_bench_kill(&child);
        return rc;
}

/* What was made is what was counted: a figure of anything else would be worthless. */
static int check_totals(const struct ad_bench *b, const struct ad_follower *f, struct df_error *err)
{
        uint64_t duplicates = f->outcomes[AD_DUPLICATE];

        if (f->events == b->events && duplicates == b->made_duplicates &&
            f->outcomes[AD_COUNTED] == b->events - duplicates)
                return 0;
        return df_fail(err, DF_ECORRUPT,
                       "seed %llu: of %llu events with %llu duplicates the job counted %llu, with "
                       "%llu duplicates of %llu it saw",
                       (unsigned long long)b->seed, (unsigned long long)b->events,
                       (unsigned long long)b->made_duplicates,
                       (unsigned long long)f->outcomes[AD_COUNTED], (unsigned long long)duplicates,
                       (unsigned long long)f->events);
}

struct span { /* between two readings of the clock */
        int64_t began_ns, elapsed_ns;
        uint64_t first, events; /* sealed before it, and in it */
        uint64_t checkpoints;   /* the same */
        struct ad_bench_usage before, after;
        int broker;
        struct ad_bench_usage broker_before, broker_after;
};

static void span_begin(struct span *s, struct ad_bench *b, const struct ad_bench_child *child,
                       const struct ad_follower *f)
{
        s->broker = ad_bench_broker(b);
        s->began_ns = df_monotonic_ns();
        s->first = f->events;
        s->checkpoints = f->checkpoints;
        ad_bench_usage(child->pid, &s->before);
        ad_bench_usage(s->broker, &s->broker_before);
}

static void span_end(struct span *s, const struct ad_bench_child *child,
                     const struct ad_follower *f)
{
        s->elapsed_ns = df_monotonic_ns() - s->began_ns;
        s->events = f->events - s->first;
        s->checkpoints = f->checkpoints - s->checkpoints;
        ad_bench_usage(child->pid, &s->after);
        ad_bench_usage(s->broker, &s->broker_after);
}

static void report(struct ad_bench *b, const struct span *s, const struct ad_follower *f)
{
        double events = (double)s->events, all = (double)f->events;
        double bytes = (double)b->made_bytes / all;
        int64_t user = s->after.user_ns - s->before.user_ns;
        int64_t kernel = s->after.kernel_ns - s->before.kernel_ns;

        ad_bench_main_figures(b, s->events, s->elapsed_ns, user + kernel, s->after.peak_rss_bytes);
        ad_bench_figure(b, "cpu_user_ns_per_event", (double)user / events);
        ad_bench_figure(b, "cpu_kernel_ns_per_event", (double)kernel / events);
        ad_bench_broker_figures(b, s->events, s->broker, &s->broker_before, &s->broker_after);
        ad_bench_figure(b, "backlog_events", all);
        ad_bench_figure(b, "duplicates", (double)f->outcomes[AD_DUPLICATE]);
        ad_bench_figure(b, "records", (double)b->made_records);
        ad_bench_figure(b, "bytes_per_event", bytes);
        ad_bench_figure(b, "rows_per_event", (double)f->rows / all);
        ad_bench_figure(b, "row_bytes_per_event", (double)f->rows_bytes / all);
        ad_bench_figure(b, "produced_per_byte_in", (double)f->rows_bytes / (all * bytes));
        ad_bench_figure(b, "written_per_byte_in",
                        (double)(s->after.written_bytes - s->before.written_bytes) /
                                (events * bytes));
        ad_bench_figure(b, "checkpoints", (double)f->checkpoints);
        ad_bench_figure(b, "state_bytes", (double)state_bytes(b));
}

static int measure(struct ad_bench *b, struct ad_follower *f, struct ad_bench_child *child,
                   uint64_t edge, struct df_error *err)
{
        int64_t started = df_monotonic_ns(), began;
        struct wait w = {0};
        struct span s, all;
        bool middle;
        int rc = ad_bench_start(b, "realtime", NULL, -1, child, err);

        if (rc == 0)
                rc = wait_taken_over(b, child, 1, START_MS, err);
        if (rc < 0)
                return rc;
        began = df_monotonic_ns();
        w.moved_ms = df_monotonic_ms();
        df_progress_start(&w.progress, "realtime", "events", b->events, b->quiet);
        span_begin(&all, b, child, f);
        rc = wait_processed(b, child, &w, f, edge, err);
        span_begin(&s, b, child, f);
        if (rc == 0)
                rc = wait_processed(b, child, &w, f, b->events - edge, err);
        span_end(&s, child, f);
        if (rc == 0)
                rc = wait_processed(b, child, &w, f, b->events, err);
        span_end(&all, child, f);
        df_progress_end(&w.progress, f->events);
        if (rc == 0)
                rc = check_totals(b, f, err);
        if (rc < 0)
                return rc;
        /* A backlog of few checkpoints has no middle: then the figures are those of the whole. */
        middle = s.events >= (b->events - 2 * edge) / 2;
        report(b, middle ? &s : &all, f);
        ad_bench_figure(b, "middle", middle);
        ad_bench_figure(b, "checkpoints_per_partition",
                        (double)(middle ? &s : &all)->checkpoints / f->partitions);
        ad_bench_figure(b, "warm_up_s", (double)(s.began_ns - began) / 1e9);
        ad_bench_figure(b, "warm_up_events_per_s",
                        (double)s.first * 1e9 / (double)(s.began_ns - began));
        ad_bench_figure(b, "start_s", (double)(began - started) / 1e9);
        ad_bench_figure(b, "ready_s", (double)((w.ready_ns ? w.ready_ns : began) - started) / 1e9);
        ad_bench_figure(b, "total_s", (double)(df_monotonic_ns() - began) / 1e9);
        (void)usleep(STATUS_US);
        ad_bench_job_figures(b, "realtime");
        return 0;
}

int ad_bench_realtime(struct ad_bench *b, struct df_error *err)
{
        struct ad_follower f = {.partitions = (uint32_t)df_config_integer(b->config, "partitions")};
        struct ad_bench_child child = {0};
        uint64_t edge = b->events / 8;
        struct df_log *log = NULL;
        int rc = ad_bench_open_log(b, &log, err);

        b->events += 2 * edge;
        if (rc == 0)
                rc = ad_bench_fill_log(b, log, f.partitions,
                                       (uint32_t)df_config_integer(b->config, "per-record"), err);
        if (rc == 0)
                rc = ad_follower_open(&f, log, err);
        if (rc == 0)
                rc = measure(b, &f, &child, edge, err);
        ad_bench_kill(&child);
        if (rc == 0)
                rc = measure_restart(b, f.partitions, err);
        ad_follower_close(&f);
        df_log_close(log);
        return rc;
}
