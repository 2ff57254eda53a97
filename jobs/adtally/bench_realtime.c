/* bench_realtime.c - the realtime job over a backlog in the log: decode, dedupe, windows,
 * exactly-once checkpoints, rows to `rollups`. How far it is is read from its seals, not from
 * itself. Afterwards the job is killed with SIGKILL and started again: the time until every
 * partition goes on is the restart time with this much state. */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ftw.h>

#include "df/seal.h"
#include "jobs/adtally/bench.h"

#define POLL_RECORDS 256
#define COLLECT_MAX (256u << 20)
#define STALL_MS 60000

struct follower {
        struct df_log_reader *reader[DF_PARTITIONS_MAX];
        struct df_collector *collector[DF_PARTITIONS_MAX];
        uint32_t partitions;
        uint64_t events, rows, rows_bytes, checkpoints;
};

static int follower_open(struct follower *f, struct df_log *log, struct df_error *err)
{
        for (uint32_t p = 0; p < f->partitions; p++) {
                int rc = df_log_reader_open(log, AD_TOPIC_ROLLUPS, p, 0, NULL, &f->reader[p], err);

                if (rc == 0)
                        rc = df_collector_create(COLLECT_MAX, &f->collector[p], err);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static void follower_close(struct follower *f)
{
        for (uint32_t p = 0; p < f->partitions; p++) {
                df_log_reader_close(f->reader[p]);
                df_collector_destroy(f->collector[p]);
        }
}

static int count_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        (void)row;
        (void)err;
        ((struct follower *)arg)->rows++;
        return 0;
}

static int take(struct follower *f, const struct df_collection *c, struct df_error *err)
{
        f->events += c->seal.events;
        f->checkpoints++;
        for (size_t i = 0; i < c->count; i++) {
                int rc = ad_wire_rows_decode(c->payloads[i], count_row, f, err);

                if (rc < 0)
                        return rc;
                f->rows_bytes += c->payloads[i].len;
        }
        return 0;
}

static int follow(struct follower *f, bool *ret_idle, struct df_error *err)
{
        struct df_record records[POLL_RECORDS];

        *ret_idle = true;
        for (uint32_t p = 0; p < f->partitions; p++) {
                size_t n;
                int rc = df_log_poll(f->reader[p], records, POLL_RECORDS, &n, err);

                for (size_t i = 0; rc == 0 && i < n; i++) {
                        struct df_collection c;
                        enum df_collect what;

                        rc = df_collector_add(f->collector[p], &records[i], &what, &c, err);
                        if (rc == 0 && what == DF_COLLECT_COMPLETE)
                                rc = take(f, &c, err);
                }
                if (rc < 0)
                        return rc;
                *ret_idle &= n == 0;
        }
        return 0;
}

static int wait_processed(struct ad_bench *b, struct follower *f, struct df_error *err)
{
        int64_t moved_ms = df_monotonic_ms();
        struct df_progress progress;
        uint64_t seen = 0;
        int rc = 0;

        df_progress_start(&progress, "realtime", "events", b->events, b->quiet);
        while (rc == 0 && f->events < b->events) {
                bool idle;

                rc = follow(f, &idle, err);
                if (f->events != seen) {
                        seen = f->events;
                        moved_ms = df_monotonic_ms();
                }
                if (rc == 0 && df_monotonic_ms() - moved_ms > STALL_MS)
                        rc = df_fail(err, DF_EAGAIN,
                                     "the job stands at %llu of %llu events; its log: "
                                     "%s/realtime.log",
                                     (unsigned long long)f->events, (unsigned long long)b->events,
                                     b->dir);
                df_progress_show(&progress, f->events);
                if (idle)
                        (void)usleep(2000);
        }
        df_progress_end(&progress, f->events);
        return rc;
}

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

/* Started again after SIGKILL: until every partition goes on from its checkpoint. */
static int measure_restart(struct ad_bench *b, uint32_t partitions, struct df_error *err)
{
        uint32_t before = taken_over(b);
        struct ad_bench_child child;
        int64_t began = df_monotonic_ns();
        int rc = ad_bench_start(b, "realtime", NULL, -1, &child, err);

        while (rc == 0 && taken_over(b) < before + partitions) {
                (void)usleep(2000);
                if (df_monotonic_ns() - began > 120000000000LL)
                        rc = df_fail(err, DF_EAGAIN, "the job did not come back in 120 s");
        }
        if (rc == 0)
                ad_bench_figure(b, "restart_s", (double)(df_monotonic_ns() - began) / 1e9);
        return rc == 0 ? ad_bench_stop(&child, err) : rc;
}

int ad_bench_realtime(struct ad_bench *b, struct df_error *err)
{
        struct follower f = {.partitions = (uint32_t)df_config_integer(b->config, "partitions")};
        struct ad_bench_child child = {0};
        struct df_log *log = NULL;
        int64_t began, elapsed, cpu;
        int status, rc = ad_bench_open_log(b, &log, err);

        if (rc == 0)
                rc = ad_bench_fill_log(b, log, f.partitions,
                                       (uint32_t)df_config_integer(b->config, "per-record"), err);
        if (rc == 0)
                rc = follower_open(&f, log, err);
        began = df_monotonic_ns();
        if (rc == 0)
                rc = ad_bench_start(b, "realtime", NULL, -1, &child, err);
        if (rc == 0)
                rc = wait_processed(b, &f, err);
        elapsed = df_monotonic_ns() - began;
        cpu = child.pid > 0 ? ad_bench_child_cpu_ns(&child) : 0;
        if (rc == 0) {
                ad_bench_main_figures(b, b->events, elapsed, cpu, ad_bench_child_peak(&child));
                ad_bench_figure(b, "rows_per_event", (double)f.rows / (double)b->events);
                ad_bench_figure(b, "row_bytes_per_event", (double)f.rows_bytes / (double)b->events);
                ad_bench_figure(b, "checkpoints", (double)f.checkpoints);
                ad_bench_figure(b, "state_bytes", (double)state_bytes(b));
                (void)kill(child.pid, SIGKILL);
                (void)waitpid(child.pid, &status, 0);
                child.pid = 0;
                rc = measure_restart(b, f.partitions, err);
        } else if (child.pid > 0) {
                (void)ad_bench_stop(&child, NULL); /* the first error counts */
        }
        follower_close(&f);
        df_log_close(log);
        return rc;
}
