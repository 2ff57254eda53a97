/* bench_log.c - the log by itself, which any job over it has at most: records are read back with
 * the checksum of each, one thread a worker, as the job's workers share the partitions. On Kafka
 * that is the client (decompression and its own checksums included) and next to nothing of ours. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobs/adtally/bench.h"

#define READ_RECORDS 512
#define EMPTY_US 200
#define STALL_MS 60000

struct part {
        struct df_log_reader *reader;
        uint64_t end;
};

struct worker {
        pthread_t thread;
        struct part *parts; /* first, first + step, ... are its own */
        uint32_t first, step, count;
        uint64_t records, bytes;
        uint32_t crc; /* of all, in any order: a sum */
        int rc;
        struct df_error err;
};

/* One turn over the worker's partitions. */
static int turn(struct worker *w, struct df_record *records, bool *ret_more, bool *ret_moved)
{
        *ret_more = *ret_moved = false;
        for (uint32_t p = w->first; p < w->count; p += w->step) {
                struct part *part = &w->parts[p];
                size_t n = 0;
                int rc;

                if (df_log_position(part->reader) >= part->end)
                        continue;
                *ret_more = true;
                rc = df_log_poll(part->reader, records, READ_RECORDS, &n, &w->err);
                if (rc < 0)
                        return rc;
                *ret_moved |= n > 0;
                for (size_t i = 0; i < n; i++) {
                        w->bytes += records[i].value.len;
                        w->crc += df_crc32c(0, records[i].value);
                }
                w->records += n;
        }
        return 0;
}

static void *work(void *arg)
{
        struct worker *w = arg;
        struct df_record *records = calloc(READ_RECORDS, sizeof(*records));
        int64_t moved_ms = df_monotonic_ms();
        bool more = true, moved;

        if (!records)
                w->rc = df_fail(&w->err, DF_ENOMEM, "records");
        while (w->rc == 0 && more) {
                w->rc = turn(w, records, &more, &moved);
                if (w->rc == 0)
                        w->rc = ad_bench_stopped(&w->err);
                if (moved)
                        moved_ms = df_monotonic_ms();
                else if (df_monotonic_ms() - moved_ms > STALL_MS)
                        w->rc = df_fail(&w->err, DF_EAGAIN, "no record for 60 s");
                else
                        (void)usleep(EMPTY_US);
        }
        free(records);
        return NULL;
}

static int find_ends(struct df_log *log, struct part *parts, uint32_t count, struct df_error *err)
{
        int rc = 0;

        for (uint32_t p = 0; rc == 0 && p < count; p++) {
                uint64_t first;

                rc = df_log_bounds(log, AD_TOPIC_EVENTS, p, &first, &parts[p].end, err);
        }
        return rc;
}

/* Once one is open the client fetches ahead: this belongs to what is measured. */
static int open_readers(struct df_log *log, struct part *parts, uint32_t count,
                        struct df_error *err)
{
        int rc = 0;

        for (uint32_t p = 0; rc == 0 && p < count; p++)
                rc = df_log_reader_open(log, AD_TOPIC_EVENTS, p, 0, NULL, &parts[p].reader, err);
        return rc;
}

/* Into workers[0]: the sum of all. */
static int run_workers(struct worker *workers, uint32_t count, struct df_error *err)
{
        uint32_t started = 0;
        int rc = 0;

        while (rc == 0 && started < count) {
                if (pthread_create(&workers[started].thread, NULL, work, &workers[started]) != 0)
                        rc = df_fail(err, DF_EAGAIN, "thread %u", started);
                else
                        started++;
        }
        for (uint32_t i = 0; i < started; i++) {
                (void)pthread_join(workers[i].thread, NULL);
                if (rc == 0 && workers[i].rc < 0)
                        rc = df_fail(err, workers[i].rc, "%s", workers[i].err.text);
                if (i == 0)
                        continue;
                workers[0].records += workers[i].records;
                workers[0].bytes += workers[i].bytes;
                workers[0].crc += workers[i].crc;
        }
        return rc;
}

static int read_back(struct ad_bench *b, struct df_log *log, uint32_t partitions,
                     struct df_error *err)
{
        uint32_t count = (uint32_t)df_config_integer(b->config, "workers");
        struct worker *workers = calloc(count, sizeof(*workers));
        struct part *parts = calloc(partitions, sizeof(*parts));
        int64_t began = 0, cpu = 0;
        int rc = workers && parts ? find_ends(log, parts, partitions, err)
                                  : df_fail(err, DF_ENOMEM, "readers");

        for (uint32_t i = 0; rc == 0 && i < count; i++)
                workers[i] = (struct worker){
                        .parts = parts, .first = i, .step = count, .count = partitions};
        began = df_monotonic_ns();
        cpu = df_cpu_ns();
        if (rc == 0)
                rc = open_readers(log, parts, partitions, err);
        if (rc == 0)
                rc = run_workers(workers, count, err);
        if (rc == 0 && (workers[0].records != b->made_records || workers[0].bytes != b->made_bytes))
                rc = df_fail(err, DF_ECORRUPT, "%llu records were written, %llu read",
                             (unsigned long long)b->made_records,
                             (unsigned long long)workers[0].records);
        if (rc == 0) {
                ad_bench_main_figures(b, b->events, df_monotonic_ns() - began, df_cpu_ns() - cpu,
                                      df_peak_rss_bytes());
                ad_bench_figure(b, "records", (double)workers[0].records);
                ad_bench_figure(b, "value_bytes", (double)workers[0].bytes);
                ad_bench_figure(b, "crc", workers[0].crc);
        }
        for (uint32_t p = 0; parts && p < partitions; p++)
                df_log_reader_close(parts[p].reader);
        free(parts);
        free(workers);
        return rc;
}

int ad_bench_log(struct ad_bench *b, struct df_error *err)
{
        uint32_t partitions = (uint32_t)df_config_integer(b->config, "partitions");
        struct df_log *log = NULL;
        int64_t began, cpu, made_ns, made_cpu;
        int rc = ad_bench_open_log(b, &log, err);

        began = df_monotonic_ns();
        cpu = df_cpu_ns();
        if (rc == 0)
                rc = ad_bench_fill_log(b, log, partitions,
                                       (uint32_t)df_config_integer(b->config, "per-record"), err);
        made_ns = df_monotonic_ns() - began;
        made_cpu = df_cpu_ns() - cpu;
        if (rc == 0)
                rc = read_back(b, log, partitions, err);
        if (rc == 0) {
                /* Making the events is in these two; they bound the append from above. */
                ad_bench_figure(b, "append_events_per_s",
                                (double)b->events * 1e9 / (double)made_ns);
                ad_bench_figure(b, "append_cpu_ns_per_event", (double)made_cpu / (double)b->events);
        }
        df_log_close(log);
        return rc;
}
