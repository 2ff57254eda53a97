/* bench_reconcile.c - `adtally reconcile` over an archive: events in segments, judged by both rule
 * sets, summed by cell and cause. The archive is made first and is not measured; no realtime job
 * runs, so nothing is compared. The figures are those of the whole command, from its start to its
 * end: reading, hashing and unpacking the segments, the chain, checkpoints, adding the rows up. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/archive.h"
#include "jobs/adtally/bench.h"

#define RECORDS 512
#define LOOK_US 20000
#define OUTPUT_MAX (1u << 20)

static int archive_partition(struct df_log *log, const struct df_archive_options *o,
                             const struct df_segment_id *id, uint64_t *ret_archived,
                             struct df_error *err)
{
        struct df_record records[RECORDS];
        struct df_archive_part *part = NULL;
        struct df_log_reader *r = NULL;
        size_t n = 1;
        int rc = df_archive_open(o, id, &part, err);

        if (rc == 0)
                rc = df_log_reader_open(log, id->topic, id->partition, 0, NULL, &r, err);
        while (rc == 0 && n > 0) {
                rc = df_log_poll(r, records, RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = df_archive_add(part, &records[i], err);
                if (rc == 0)
                        rc = ad_bench_stopped(err);
        }
        if (rc == 0)
                *ret_archived += df_archive_end(part);
        df_log_reader_close(r);
        df_archive_close(part);
        return rc;
}

static int first_topic(void *arg, const struct df_topic_info *info)
{
        struct df_topic_info *ret = arg;

        if (strcmp(info->name, AD_TOPIC_EVENTS) == 0)
                *ret = *info;
        return 0;
}

static int make_archive(struct ad_bench *b, struct df_log *log, struct df_error *err)
{
        struct df_archive_options o = {.limit = df_config_bytes(b->config, "archive-segment")};
        struct df_objects_options place = {0};
        struct df_topic_info topic = {0};
        uint64_t archived = 0;
        char where[300];
        int rc = df_log_topic_list(log, AD_TOPIC_EVENTS, first_topic, &topic, err);

        (void)snprintf(where, sizeof(where), "dir:%s/archive", b->dir);
        place.place = where;
        if (rc == 0)
                rc = df_objects_open(&place, &o.objects, err);
        for (uint32_t p = 0; rc == 0 && p < topic.partitions; p++) {
                struct df_segment_id id = {.generation = topic.generation, .partition = p};

                memcpy(id.topic, topic.name, sizeof(id.topic));
                rc = archive_partition(log, &o, &id, &archived, err);
        }
        df_objects_close(o.objects);
        if (rc == 0)
                ad_bench_figure(b, "archived_share", (double)archived / (double)b->made_records);
        return rc;
}

static uint64_t number_after(const char *text, const char *name)
{
        const char *at = text ? strstr(text, name) : NULL;

        return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

/* Each event that is no copy is billed, under the cause `none`. */
static int check_bill(const struct ad_bench *b, struct df_error *err)
{
        struct df_buf text = {0};
        const char *none = NULL, *billed = NULL;
        uint64_t events = 0;
        char path[300];
        int rc;

        (void)snprintf(path, sizeof(path), "%s/reconcile.log", b->dir);
        rc = df_read_file(path, OUTPUT_MAX, &text, err);
        df_put_u8(&text, 0);
        if (rc == 0 && !text.failed)
                none = strstr((const char *)text.data, "\"cause\":\"none\"");
        if (none)
                billed = strstr(none, "\"billed\":");
        if (billed)
                events = number_after(billed, "\"impressions\":") +
                         number_after(billed, "\"clicks\":");
        df_buf_release(&text);
        if (rc < 0 || events == b->events - b->made_duplicates)
                return rc;
        return df_fail(err, DF_ECORRUPT,
                       "seed %" PRIu64 ": of %" PRIu64 " events with %" PRIu64
                       " copies it billed %" PRIu64,
                       b->seed, b->events, b->made_duplicates, events);
}

static int measure(struct ad_bench *b, struct df_error *err)
{
        static const char *const args[] = {"--json", "--quiet", "--wait=0ms", NULL};
        struct ad_bench_child child = {0};
        struct ad_bench_usage usage = {0};
        struct df_progress progress;
        int64_t began = df_monotonic_ns(), elapsed;
        int rc = ad_bench_start(b, "reconcile", args, -1, &child, err);

        df_progress_start(&progress, "reconcile", "s", 0, b->quiet);
        while (rc == 0 && !ad_bench_ended(&child)) {
                ad_bench_usage(child.pid, &usage);
                df_progress_show(&progress, (uint64_t)(df_monotonic_ns() - began) / 1000000000);
                (void)usleep(LOOK_US);
                rc = ad_bench_stopped(err);
        }
        elapsed = df_monotonic_ns() - began;
        df_progress_end(&progress, (uint64_t)elapsed / 1000000000);
        ad_bench_kill(&child);
        if (rc == 0)
                rc = check_bill(b, err);
        if (rc < 0)
                return rc;
        ad_bench_main_figures(b, b->events, elapsed, child.cpu_ns, child.peak_rss_bytes);
        ad_bench_figure(b, "events_per_s_and_core", (double)b->events * 1e9 / (double)child.cpu_ns);
        ad_bench_figure(b, "written_per_byte_in",
                        (double)usage.written_bytes / (double)b->made_bytes);
        return 0;
}

int ad_bench_reconcile(struct ad_bench *b, struct df_error *err)
{
        uint32_t partitions = (uint32_t)df_config_integer(b->config, "partitions");
        struct df_log *log = NULL;
        int rc = ad_bench_open_log(b, &log, err);

        if (rc == 0)
                rc = ad_bench_fill_log(b, log, partitions,
                                       (uint32_t)df_config_integer(b->config, "per-record"), err);
        if (rc == 0)
                rc = ad_create_topics(log, partitions, err);
        if (rc == 0)
                rc = make_archive(b, log, err);
        df_log_close(log);
        return rc == 0 ? measure(b, err) : rc;
}
