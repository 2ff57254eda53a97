/* bench.h - `adtally bench NAME`: what each stage costs on this machine.
 *
 * A benchmark makes its own seeded input in a directory of its own under --work (default TMPDIR or
 * /tmp), on Kafka in topics whose prefix is drawn for each run, removes it afterwards (also after
 * an error and Ctrl-C), and starts the real job binaries as children, so that CPU time and memory
 * are the job's alone. The children get every setting of the benchmark that is not a default.
 * Results are figures by name; every one holds at least events,
 * events_per_s, cpu_ns_per_event and peak_rss_bytes.
 */
#ifndef AD_BENCH_H
#define AD_BENCH_H

#include "jobs/adtally/command.h"

#define AD_FIGURES_MAX 96
#define AD_FIGURE_NAME_MAX 48
struct ad_bench {
        const struct df_config *config;
        const struct df_setting *own; /* of the command, beside ad_settings */
        size_t own_count;
        uint64_t events, seed;
        bool quiet;
        char dir[256];                                      /* this run's own */
        uint64_t made_duplicates, made_records, made_bytes; /* by ad_bench_fill_log */
        bool on_cluster; /* there may be topics of this run's prefix */
        struct {
                char name[AD_FIGURE_NAME_MAX];
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
int ad_bench_reconcile(struct ad_bench *b, struct df_error *err);
int ad_bench_ingest(struct ad_bench *b, struct df_error *err);
int ad_bench_metrics(struct ad_bench *b, struct df_error *err);
int ad_bench_freshness(struct ad_bench *b, struct df_error *err);

/* ---- seeded input (bench_data.c) ----
 * Clicks and impressions with Zipf campaigns, ads and countries alike, 5 % duplicates of the last
 * ten thousand ids; receive times pass at per_second events a second and end now. Records of
 * `per_record` events, each of the partition it belongs to, are handed to emit as they fill. */
struct ad_bench_input {
        uint64_t events, seed;
        uint32_t campaigns, ads, countries;
        uint64_t per_second;
        int64_t start_ms;
        uint32_t per_record, partitions;
        int (*emit)(void *arg, uint32_t partition, struct df_bytes record, struct df_error *err);
        void *arg;
        bool quiet;
};
/* As the flags say; the caller sets per_record, partitions, emit and arg. */
void ad_bench_input_of(const struct ad_bench *b, struct ad_bench_input *ret);
int ad_bench_make(const struct ad_bench_input *in, uint64_t *ret_duplicates, struct df_error *err);
/* Make them and write them to `events` in the log. */
int ad_bench_fill_log(struct ad_bench *b, struct df_log *log, uint32_t partitions,
                      uint32_t per_record, struct df_error *err);

/* ---- a job as a child (bench_child.c) ---- */
struct ad_bench_child {
        int pid;
        int64_t cpu_ns; /* user + system, after stop */
        int64_t user_ns;
        uint64_t peak_rss_bytes;
};
/* job: "realtime", "ingest", "api", or "up" or "reconcile" (this program). args: further flags,
 * NULL-terminated. keep_fd: inherited, or -1. Its log lines go to DIR/<job>.log. */
int ad_bench_start(struct ad_bench *b, const char *job, const char *const *args, int keep_fd,
                   struct ad_bench_child *ret, struct df_error *err);
int ad_bench_stop(struct ad_bench_child *c, struct df_error *err); /* SIGTERM, wait, usage */
void ad_bench_kill(struct ad_bench_child *c);                      /* SIGKILL, wait, usage */
bool ad_bench_ended(const struct ad_bench_child *c);               /* by itself */
/* `reconcile` again and again (bench_beside.c): step while something else goes on, then end, also
 * after an error; it puts the figures reconcile_runs and reconcile_cores. */
struct ad_bench_beside {
        struct ad_bench_child child;
        uint32_t runs; /* that ended */
        int64_t cpu_ns;
};
int ad_bench_beside_step(struct ad_bench *b, struct ad_bench_beside *s, struct df_error *err);
void ad_bench_beside_end(struct ad_bench *b, struct ad_bench_beside *s, int64_t elapsed_ns);
struct ad_bench_usage { /* so far, of a process; 0 what cannot be read */
        int64_t user_ns, kernel_ns;
        uint64_t rss_bytes, peak_rss_bytes;
        uint64_t written_bytes; /* towards storage: /proc/PID/io, write_bytes */
};
void ad_bench_usage(int pid, struct ad_bench_usage *ret);
int64_t ad_bench_child_cpu_ns(const struct ad_bench_child *c);
uint64_t ad_bench_child_peak(const struct ad_bench_child *c);

/* ---- clients of POST /events (bench_send.c) ---- */
#define AD_BENCH_BATCH 500u /* events a request */
#define AD_BENCH_SENDERS_MAX 64u
struct ad_bench_load {
        const char *base; /* "http://HOST:PORT" */
        uint64_t first;   /* number of the first event: ids follow from number and seed */
        uint64_t seed;
        uint64_t rate; /* events a second, of all together; 0 = as fast as answers come */
        unsigned senders;
};
struct ad_bench_sent {
        uint64_t events;           /* accepted */
        uint64_t numbers;          /* taken from `first` on: the next load begins behind them */
        uint64_t late_batches;     /* sent a tenth of a second or more after their time */
        uint64_t repeated_batches; /* after 503 or no answer */
        int64_t cpu_ns;            /* of the senders */
};
struct ad_bench_senders;
int ad_bench_senders_start(const struct ad_bench_load *load, struct ad_bench_senders **ret,
                           struct df_error *err);
uint64_t ad_bench_senders_sent(struct ad_bench_senders *s); /* so far */
bool ad_bench_senders_failed(struct ad_bench_senders *s);   /* stop says why */
/* Each sender ends with an answer to what it has sent. Frees s, also after an error. */
int ad_bench_senders_stop(struct ad_bench_senders *s, struct ad_bench_sent *ret,
                          struct df_error *err);

/* ---- more figures (bench_figures.c) ---- */
/* The process that listens where --log kafka: says, when that is this machine and we may look at
 * it; else 0. */
int ad_bench_broker(const struct ad_bench *b);
/* CPU of the broker by event, when its pid is known. */
void ad_bench_broker_figures(struct ad_bench *b, uint64_t events, int pid,
                             const struct ad_bench_usage *before,
                             const struct ad_bench_usage *after);
/* From the job's status file: how long its commits took, and where its time went by operator and
 * step, in ns an event. */
void ad_bench_job_figures(struct ad_bench *b, const char *job);

#define AD_BENCH_VERSION_MAX 32
/* The version of a broker's process, by its jars; "" when it cannot be told. */
void ad_bench_broker_version(int pid, char ret[AD_BENCH_VERSION_MAX]);

/* ---- results (bench_print.c) ---- */
/* Figures as text, or with --json a line of JSON that also says where and when they were taken and
 * with which settings; the same line is appended to --results FILE. */
int ad_bench_print(const struct ad_bench *b, const char *name, struct df_error *err);

/* ---- where things are (bench_place.c) ---- */
int ad_bench_place_make(struct ad_bench *b, struct df_error *err);
/* Children have ended, logs are closed. done: the benchmark succeeded; else the directory stays
 * when --work was given, for the logs in it. */
int ad_bench_place_remove(struct ad_bench *b, bool done, struct df_error *err);
bool ad_bench_on_kafka(const struct ad_bench *b);
int ad_bench_open_log(struct ad_bench *b, struct df_log **ret, struct df_error *err);
/* DF_EAGAIN once SIGINT or SIGTERM came: asked in every loop that may take long. */
int ad_bench_stopped(struct df_error *err);

#endif
