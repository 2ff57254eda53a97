/* main.c - the archive job: raw records into immutable segments (A1 to A3). */
#include <poll.h>
#include <stdio.h>
#include <sys/resource.h>

#include "df/run.h"
#include "df/trace.h"
#include "jobs/archive/parts.h"
#include "jobs/common/archive.h"
#include "jobs/common/settings.h"

#define IDLE_MS 200
#define DISCOVER_EVERY_MS 2000
#define NICE 10 /* what is counted now goes first */

static const char usage[] =
        "adtally-archive: keep raw events in immutable segments (run by `adtally up`)\n"
        "Usage: adtally-archive --data DIR [--archive PLACE] [SETTINGS]\n"
        "Any number of them may run at once, also on several machines: they make the same "
        "segments.\n";

static void render(void *arg, struct df_buf *b)
{
        ad_archive_parts_render(arg, b);
}

static void serve(struct ad_archive_parts *parts)
{
        int64_t looked_ms = df_monotonic_ms() - DISCOVER_EVERY_MS;

        while (!df_process_stopping()) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};
                struct df_error err = {0};

                if (df_monotonic_ms() - looked_ms >= DISCOVER_EVERY_MS) {
                        looked_ms = df_monotonic_ms();
                        if (ad_archive_parts_discover(parts, &err) < 0)
                                df_trace(DF_ERROR, "archive", "code=%s: %s", df_err_code(err.code),
                                         err.text);
                }
                if (ad_archive_parts_step(parts) == 0)
                        (void)poll(&p, 1, IDLE_MS); /* an early wake-up is harmless */
        }
}

static int run(const struct df_config *c, struct df_error *err)
{
        struct ad_archive_parts *parts = NULL;
        struct df_objects *objects = NULL;
        struct df_status *status = NULL;
        struct df_log *log = NULL;
        int rc;

        (void)setpriority(PRIO_PROCESS, 0, NICE); /* only slower for others without */
        rc = ad_archive_open_store(c, &objects, err);
        if (rc == 0)
                rc = df_objects_check(objects, err);
        if (rc == 0)
                rc = ad_open_log(c, &log, err);
        if (rc == 0)
                rc = ad_create_topics(log, (uint32_t)df_config_integer(c, "partitions"), err);
        if (rc == 0)
                rc = ad_archive_parts_create(c, log, objects, &parts, err);
        if (rc == 0)
                rc = df_status_start(df_config_text(c, "data"), "archive", render, parts, &status,
                                     err);
        if (rc == 0)
                serve(parts);
        df_status_stop(status);
        ad_archive_parts_destroy(parts);
        df_log_close(log);
        df_objects_close(objects);
        return rc;
}

int main(int argc, char **argv)
{
        return ad_job_main("archive", usage, run, argc, argv);
}
