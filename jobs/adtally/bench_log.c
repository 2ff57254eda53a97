/* bench_log.c - the embedded log by itself: group commits of packed records, and reading them back
 * with the checksum of each. What any job over this log has at most. */
#include <stdlib.h>
#include <string.h>

#include "jobs/adtally/bench.h"

#define READ_RECORDS 512

static uint64_t count_records(struct df_log *log, uint32_t partitions)
{
        uint64_t records = 0;

        for (uint32_t p = 0; p < partitions; p++) {
                uint64_t first, end;

                if (df_log_bounds(log, AD_TOPIC_EVENTS, p, &first, &end, NULL) == 0)
                        records += end - first;
        }
        return records;
}

static int read_partition(struct df_log *log, uint32_t p, uint64_t *bytes, uint32_t *crc,
                          struct df_error *err)
{
        struct df_record *records = calloc(READ_RECORDS, sizeof(*records));
        struct df_log_reader *r = NULL;
        size_t n = 1;
        int rc = records ? df_log_reader_open(log, AD_TOPIC_EVENTS, p, 0, NULL, &r, err)
                         : df_fail(err, DF_ENOMEM, "records");

        while (rc == 0 && n > 0) {
                rc = df_log_poll(r, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++) {
                        *bytes += records[i].value.len;
                        *crc = df_crc32c(*crc, records[i].value);
                }
        }
        df_log_reader_close(r);
        free(records);
        return rc;
}

int ad_bench_log(struct ad_bench *b, struct df_error *err)
{
        uint32_t partitions = (uint32_t)df_config_integer(b->config, "partitions");
        struct df_log *log = NULL;
        uint64_t bytes = 0;
        uint32_t crc = 0;
        int64_t began, cpu, made_ns, made_cpu;
        int rc = ad_bench_open_log(b, &log, err);

        began = df_monotonic_ns();
        cpu = df_cpu_ns();
        if (rc == 0)
                rc = ad_bench_fill_log(b, log, partitions,
                                       (uint32_t)df_config_integer(b->config, "per-record"), err);
        made_ns = df_monotonic_ns() - began;
        made_cpu = df_cpu_ns() - cpu;
        began = df_monotonic_ns();
        cpu = df_cpu_ns();
        for (uint32_t p = 0; rc == 0 && p < partitions; p++)
                rc = read_partition(log, p, &bytes, &crc, err);
        if (rc == 0) {
                ad_bench_main_figures(b, b->events, df_monotonic_ns() - began, df_cpu_ns() - cpu,
                                      df_peak_rss_bytes());
                ad_bench_figure(b, "records", (double)count_records(log, partitions));
                ad_bench_figure(b, "value_bytes", (double)bytes);
                /* Making the events is in these two; they bound the append from above. */
                ad_bench_figure(b, "append_events_per_s",
                                (double)b->events * 1e9 / (double)made_ns);
                ad_bench_figure(b, "append_cpu_ns_per_event", (double)made_cpu / (double)b->events);
                ad_bench_figure(b, "crc", crc);
        }
        df_log_close(log);
        return rc;
}
