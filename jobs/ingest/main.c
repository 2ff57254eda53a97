/* main.c - the ingest job: HTTP in, durable records of `events` out; the one writer of that topic.
 */
#include <malloc.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/run.h"
#include "df/trace.h"
#include "jobs/common/settings.h"
#include "jobs/ingest/serve.h"

#define TICK_MS 100
#define RETAIN_EVERY_MS 60000
#define DRAIN_MS 10000
/* What the compressors take and give back with every append stays with the process, or each append
 * has the kernel clear those pages again. */
#define HEAP_KEEP_BYTES (16 << 20)
#define HEAP_MMAP_BYTES (4 << 20)

static const char usage[] = "adtally-ingest: take events over HTTP (run by `adtally up`)\n"
                            "Usage: adtally-ingest --data DIR [SETTINGS]\n";

struct job {
        const struct df_config *c;
        struct df_log *log;
        struct df_log_writer *writer;
        struct ad_access *access;
        struct ad_prices *prices;
        struct ad_subjects *subjects; /* NULL: --seal-user-ids is off and never was on */
        struct ad_serve *serve;
        struct df_status *status;
};

static int open_job(struct job *j, struct df_error *err)
{
        struct ad_serve_options o = {.config = j->c,
                                     .partitions = (uint32_t)df_config_integer(j->c, "partitions")};
        int rc = ad_access_open(df_config_text(j->c, "keys"), df_config_text(j->c, "listen"),
                                &j->access, err);

        if (rc == 0)
                rc = ad_open_log(j->c, &j->log, err);
        if (rc == 0)
                rc = ad_create_topics(j->log, o.partitions, err);
        if (rc == 0)
                rc = df_log_writer_open(j->log, AD_TOPIC_EVENTS, &j->writer, err);
        if (rc == 0)
                rc = ad_prices_open(df_config_text(j->c, "data"), &j->prices, err);
        if (rc == 0 && (df_config_bool(j->c, "seal-user-ids") ||
                        ad_subjects_exist(df_config_text(j->c, "data"))))
                rc = ad_subjects_open(df_config_text(j->c, "data"), &j->subjects, err);
        if (rc < 0)
                return rc;
        o.access = j->access;
        o.writer = j->writer;
        o.prices = j->prices;
        o.subjects = j->subjects;
        return ad_serve_create(&o, &j->serve, err);
}

static void tell_recovery(struct job *j)
{
        struct df_filelog_recovery r;

        if (!ad_log_is_file(j->c))
                return;
        df_filelog_recovery(j->writer, &r);
        if (r.cut_partitions)
                df_trace(DF_WARN, "log",
                         "cut torn tails of %u partitions, %llu bytes; nothing that "
                         "was acknowledged is lost",
                         r.cut_partitions, (unsigned long long)r.cut_bytes);
}

/* L2: what is older than --keep-log and read by every registered consumer. */
static void retain(struct job *j)
{
        struct df_error err = {0};
        uint64_t bytes = 0;

        if (!ad_log_is_file(j->c))
                return; /* the topic's own retention */
        if (df_filelog_retain(j->log, AD_TOPIC_EVENTS,
                              df_wall_ms() - df_config_ms(j->c, "keep-log"), &bytes, &err) < 0)
                df_trace(DF_WARN, "retain", "code=%s: %s", df_err_code(err.code), err.text);
        else if (bytes)
                df_trace(DF_INFO, "retain", "topic=%s deleted_bytes=%llu", AD_TOPIC_EVENTS,
                         (unsigned long long)bytes);
}

static void serve(struct job *j)
{
        int64_t retained_ms = df_monotonic_ms(), tick_ms = df_config_ms(j->c, "heartbeat");

        if (tick_ms > TICK_MS)
                tick_ms = TICK_MS;
        while (!df_process_stopping()) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};

                (void)poll(&p, 1, (int)tick_ms); /* an early wake-up is harmless */
                ad_serve_tick(j->serve);
                if (df_monotonic_ms() - retained_ms >= RETAIN_EVERY_MS) {
                        retained_ms = df_monotonic_ms();
                        retain(j);
                }
        }
}

/* From the listening socket to the closing heartbeat. */
static int listen_and_serve(struct job *j, struct df_error *err)
{
        int rc = ad_serve_listen(j->serve, err), stopped;

        if (rc < 0)
                return rc;
        rc = df_status_start(df_config_text(j->c, "data"), "ingest", ad_serve_render, j->serve,
                             &j->status, err);
        if (rc == 0) {
                tell_recovery(j);
                df_trace(DF_INFO, "serve", "listens on %s port=%u", df_config_text(j->c, "listen"),
                         ad_serve_port(j->serve));
                serve(j);
        }
        df_status_stop(j->status);
        stopped = ad_serve_stop(j->serve, DRAIN_MS, rc == 0 ? err : NULL);
        if (stopped == DF_EAGAIN) {
                /* The committer hangs in a write and would answer requests that are gone. */
                df_trace(DF_ERROR, "serve", "requests still wait for the disk: ending at once");
                _exit(DF_EXIT_IO);
        }
        return rc < 0 ? rc : stopped;
}

static int run(const struct df_config *c, struct df_error *err)
{
        struct job j = {.c = c};
        int rc;

        (void)mallopt(M_TRIM_THRESHOLD, HEAP_KEEP_BYTES);
        (void)mallopt(M_MMAP_THRESHOLD, HEAP_MMAP_BYTES);
        rc = open_job(&j, err);

        if (rc == 0)
                rc = listen_and_serve(&j, err);
        ad_serve_destroy(j.serve);
        ad_subjects_close(j.subjects);
        ad_prices_close(j.prices);
        df_log_writer_close(j.writer);
        df_log_close(j.log);
        ad_access_close(j.access);
        return rc;
}

int main(int argc, char **argv)
{
        return ad_job_main("ingest", usage, run, argc, argv);
}
