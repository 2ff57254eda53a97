/* bench.h - `adtally bench NAME`: what each stage costs on this machine.
 *
 * A benchmark makes its own seeded input in a directory of its own under --work (default TMPDIR or
 * /tmp), removes it afterwards, and starts the real job binaries as children, so that CPU time and
 * memory are the job's alone. Results are figures by name; every one holds at least events,
 * events_per_s, cpu_ns_per_event and peak_rss_bytes.
 */
#ifndef AD_BENCH_H
#define AD_BENCH_H

#include "jobs/adtally/command.h"

#define AD_FIGURES_MAX 32
struct ad_bench {
        const struct df_config *config;
        uint64_t events, seed;
        bool quiet;
        char dir[256]; /* this run's own */
        struct {
                const char *name;
                double value;
        } figures[AD_FIGURES_MAX];
        size_t figure_count;
};
void ad_bench_figure(struct ad_bench *b, const char *name, double value);
/* The four that every benchmark prints. */
void ad_bench_main_figures(struct ad_bench *b, uint64_t events, int64_t elapsed_ns, int64_t cpu_ns,
                           uint64_t peak_rss_bytes);

int ad_bench_operators(struct ad_bench *b, struct df_error *err);
int ad_bench_log(struct ad_bench *b, struct df_error *err);
int ad_bench_realtime(struct ad_bench *b, struct df_error *err);
int ad_bench_ingest(struct ad_bench *b, struct df_error *err);
int ad_bench_metrics(struct ad_bench *b, struct df_error *err);
int ad_bench_freshness(struct ad_bench *b, struct df_error *err);

/* ---- seeded input (bench_data.c) ----
 * Clicks and impressions with Zipf campaigns, ten ads a
 * campaign, twenty countries, 5 % duplicates of the last ten thousand ids; receive times pass at
 * 100,000 events a second. Records of `per_record` events, each of the partition it belongs to,
 * are handed to emit as they fill. */
struct ad_bench_input {
        uint64_t events, seed;
        uint32_t per_record, partitions;
        int64_t start_ms;
        int (*emit)(void *arg, uint32_t partition, struct df_bytes record, struct df_error *err);
        void *arg;
        bool quiet;
};
int ad_bench_make(const struct ad_bench_input *in, uint64_t *ret_duplicates, struct df_error *err);
/* Make them and write them to `events` in the log. */
int ad_bench_fill_log(struct ad_bench *b, struct df_log *log, uint32_t partitions,
                      uint32_t per_record, struct df_error *err);

/* ---- a job as a child ---- */
struct ad_bench_child {
        int pid;
        int64_t cpu_ns; /* user + system, after stop */
        int64_t user_ns;
        uint64_t peak_rss_bytes;
};
/* job: "realtime", "ingest", "api", or "up" (this program). args: further flags, NULL-terminated.
 * keep_fd: inherited, or -1. Its log lines go to DIR/<job>.log. */
int ad_bench_start(struct ad_bench *b, const char *job, const char *const *args, int keep_fd,
                   struct ad_bench_child *ret, struct df_error *err);
int ad_bench_stop(struct ad_bench_child *c, struct df_error *err); /* SIGTERM, wait, usage */
/* CPU and peak memory so far of a running child. */
int64_t ad_bench_child_cpu_ns(const struct ad_bench_child *c);
uint64_t ad_bench_child_peak(const struct ad_bench_child *c);
int ad_bench_open_log(struct ad_bench *b, struct df_log **ret, struct df_error *err);

#endif
