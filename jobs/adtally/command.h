/* command.h - what the sub-commands of `adtally` share: settings, and metrics read from status
 * files.
 *
 * A command is one function in one file, listed in main.c. It gets its arguments without the
 * program's and its own name, prints to stdout, explains errors on stderr, and returns an exit code
 * (df/run.h).
 */
#ifndef AD_COMMAND_H
#define AD_COMMAND_H

#include "df/run.h"
#include "jobs/common/instances.h"
#include "jobs/common/settings.h"

struct ad_subcommand {
        const char *name;
        const char *help; /* one line */
        int (*run)(int argc, char **argv);
};

int ad_command_up(int argc, char **argv);
int ad_command_status(int argc, char **argv);
int ad_command_recover(int argc, char **argv);
int ad_command_config(int argc, char **argv);
int ad_command_consumers(int argc, char **argv);
int ad_command_prices(int argc, char **argv);
int ad_command_key(int argc, char **argv);
int ad_command_subject(int argc, char **argv);
int ad_command_correction(int argc, char **argv);
int ad_command_period(int argc, char **argv);
int ad_command_log(int argc, char **argv);
int ad_command_archive(int argc, char **argv);
int ad_command_reconcile(int argc, char **argv);
int ad_command_explain(int argc, char **argv);
int ad_command_verify(int argc, char **argv);
int ad_command_segment(int argc, char **argv);
int ad_command_quarantine(int argc, char **argv);
int ad_command_watch(int argc, char **argv);
int ad_command_generate(int argc, char **argv);
int ad_command_check(int argc, char **argv);
int ad_command_replay(int argc, char **argv);
int ad_command_import(int argc, char **argv);
int ad_command_bench(int argc, char **argv);
int ad_command_migrate(int argc, char **argv);

/* ---- settings of a command (command.c) ---- */
#define AD_COMMAND_ARGS_MAX 16
struct ad_command_line {
        struct df_config *config; /* every setting of ad_settings, and the command's own */
        const char *args[AD_COMMAND_ARGS_MAX]; /* free arguments; borrowed from argv */
        int arg_count;
        struct df_setting *table; /* what config borrows */
};
/* Reads flags, environment and file. usage: the first lines of --help; shared: names in ad_settings
 * that the help lists, NULL-terminated (all are accepted). False: it has printed the help or the
 * error, and *ret_exit is the exit code. */
bool ad_command_read(int argc, char **argv, const char *usage, const struct df_setting *own,
                     size_t own_count, const char *const *shared, struct ad_command_line *ret,
                     int *ret_exit);
void ad_command_release(struct ad_command_line *l);
/* Print "adtally <command>: <text>" and return the exit code for the error. */
int ad_command_fail(const char *command, const struct df_error *err);
/* A wrong command line: prints, names --help, returns DF_EXIT_USAGE. */
int ad_command_usage(const char *command, const char *fmt, ...)
        __attribute__((format(printf, 2, 3)));

/* Path of a job's program: installed, PREFIX/libexec/adtally/adtally-JOB beside PREFIX/bin; in a
 * build directory, jobs/JOB/adtally-JOB beside jobs/adtally. ret holds PATH_MAX bytes. */
int ad_command_find_job(const char *job, char *ret, struct df_error *err);
/* kafka.* and secrets for children, by the environment, not the command line, which everybody on
 * the machine can read. */
int ad_command_hand_down_secrets(const struct df_config *c, struct df_error *err);
/* One `adtally up` a data directory: DATA/LOCK, held until *ret_fd is closed. DF_EFENCED names the
 * process that has it. Makes the directory. */
int ad_command_lock_data(const struct df_config *c, int *ret_fd, struct df_error *err);

/* segment.c: the members of an event as the log holds it, a sealed user id in hexadecimal. */
struct ad_json;
struct ad_event;
void ad_segment_put_event(struct ad_json *j, const struct ad_event *ev);

/* ---- metrics of the jobs, from DATA/run/<job>.prom, of realtime one an instance (prom.c) ---- */
struct ad_sample {
        const char *job;
        const char *instance; /* of realtime, when there are several; else "" */
        const char *name;
        const char *labels; /* without braces; "" = none */
        double value;
};
struct ad_job_file {
        const char *job;
        char instance[AD_INSTANCE_MAX + 1]; /* of realtime; else "" */
        struct ad_job_stamp stamp;
};
#define AD_JOBS_MAX (AD_INSTANCES_MAX + 4)
struct ad_samples {
        struct df_buf text; /* what the samples borrow */
        struct ad_sample *list;
        size_t count, cap;
        struct ad_job_file jobs[AD_JOBS_MAX];
        size_t job_count;
        bool several; /* realtime instances */
};
extern const char *const ad_job_names[]; /* NULL-terminated: the jobs of `up` */
/* One that `up` may be told to do without: missed only once it wrote a status file. */
bool ad_job_is_optional(const char *job);
/* Whether it should run and does not. */
bool ad_job_missing(const struct ad_samples *s, const char *job, int64_t now_ms);
/* Missing files are left out, and what an instance that is gone said while another one lives; its
 * file is in jobs all the same. ret must not be moved: samples borrow from it. */
int ad_samples_read(const char *data_dir, struct ad_samples *ret, struct df_error *err);
void ad_samples_release(struct ad_samples *s);
/* The value of a label, copied; false when absent or longer than size - 1. */
bool ad_sample_label(const struct ad_sample *s, const char *label, char *ret, size_t size);
/* First sample with this job (NULL = any) and name; NULL = none. */
const struct ad_sample *ad_sample_find(const struct ad_samples *s, const char *job,
                                       const char *name);
/* The value of `name` of the same instance, stream and partition. */
double ad_sample_beside(const struct ad_samples *s, const struct ad_sample *of, const char *name,
                        double otherwise);
/* Whether what this sample says of its partition is what counts: false when another instance runs
 * it and this one does not, or has taken it over later (the greater epoch). */
bool ad_sample_counts(const struct ad_samples *s, const struct ad_sample *of);
bool ad_job_alive(const struct ad_job_file *f, int64_t now_ms); /* pid lives, file is fresh */
bool ad_job_any_alive(const struct ad_samples *s, const char *job, int64_t now_ms);
/* A3: an archive's lag as a share of what the log keeps. From the first on a person is told, beyond
 * the second /readyz fails. */
#define AD_ARCHIVE_LAG_WARNS 0.5
#define AD_ARCHIVE_LAG_FAILS 0.75
double ad_archive_lag_share(const struct ad_samples *s, const struct ad_sample *lag);
/* The Prometheus text format: families together, a TYPE line each, a job label on each sample,
 * and an instance label when there are several. */
void ad_samples_render(struct ad_samples *s, struct df_buf *b);

#endif
