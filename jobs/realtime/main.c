/* main.c - the realtime job: events in, minute rows out, exactly once (K1 to K12). */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/trace.h"
#include "jobs/common/places.h"
#include "jobs/realtime/tasks.h"

#define TICK_MS 500
#define RETAIN_EVERY_MS 60000

static const char usage[] =
        "adtally-realtime: count events into minute rows (run by `adtally up`)\n"
        "Usage: adtally-realtime --data DIR [SETTINGS]\n";

static void render(void *arg, struct df_buf *b)
{
        df_workers_render(arg, b);
}

/* K10: an event may be needed again until the horizon and the look-back have passed. */
static int check_retention(const struct df_config *c, struct df_error *err)
{
        int64_t need_ms = (df_config_integer(c, "dedupe-horizon") + 3) * 3600000;

        if (df_config_ms(c, "keep-log") < need_ms)
                return df_fail(err, DF_EINVAL,
                               "--keep-log must be at least --dedupe-horizon + 3 h = %lld h (K10)",
                               (long long)(need_ms / 3600000));
        return 0;
}

static void serve(struct ad_tasks *tasks)
{
        int64_t retained_ms = df_monotonic_ms();

        while (!df_process_stopping()) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};
                struct df_error err = {0};

                (void)poll(&p, 1, TICK_MS); /* an early wake-up is harmless */
                ad_tasks_follow_recovery(tasks);
                ad_tasks_guard_disk(tasks);
                if (ad_tasks_discover(tasks, &err) < 0)
                        df_trace(DF_ERROR, "tasks", "code=%s: %s", df_err_code(err.code), err.text);
                if (df_monotonic_ms() - retained_ms < RETAIN_EVERY_MS)
                        continue;
                retained_ms = df_monotonic_ms();
                if (ad_tasks_retain(tasks, &err) < 0)
                        df_trace(DF_WARN, "retain", "code=%s: %s", df_err_code(err.code), err.text);
        }
}

static int run(const struct df_config *c, struct df_error *err)
{
        struct df_workers_options o = {
                .threads = (uint32_t)df_config_integer(c, "workers"),
                .commit_threads = (uint32_t)df_config_integer(c, "commit-threads"),
                .interval_min_ms = df_config_ms(c, "checkpoint-min"),
                .interval_max_ms = df_config_ms(c, "checkpoint-max"),
        };
        struct df_log *log = NULL;
        struct df_workers *workers = NULL;
        struct ad_tasks *tasks = NULL;
        struct df_status *status = NULL;
        char name[64];
        int rc = check_retention(c, err);

        if (rc == 0)
                rc = ad_instance_check(df_config_text(c, "instance"), err);
        if (rc == 0)
                rc = ad_store_check(c, err);
        if (rc == 0)
                rc = ad_open_log(c, &log, err);
        if (rc == 0)
                rc = ad_create_topics(log, (uint32_t)df_config_integer(c, "partitions"), err);
        if (rc == 0)
                rc = ad_tasks_create(c, log, &tasks, err);
        if (rc == 0) {
                ad_tasks_group(tasks, &o);
                rc = df_workers_create(&o, &workers, err);
        }
        if (rc == 0) {
                ad_tasks_run_on(tasks, workers);
                rc = ad_tasks_discover(tasks, err);
        }
        ad_status_name(c, name);
        if (rc == 0)
                rc = df_status_start(df_config_text(c, "data"), name, render, workers, &status,
                                     err);
        if (rc == 0)
                serve(tasks);
        if (workers)
                df_workers_stop(workers);
        if (rc == 0 && workers)
                rc = df_workers_failed(workers, err);
        df_status_stop(status);
        df_workers_destroy(workers);
        ad_tasks_destroy(tasks);
        df_log_close(log);
        return rc;
}

int main(int argc, char **argv)
{
        df_process_keep_memory();
        return ad_job_main("realtime", usage, run, argc, argv);
}
