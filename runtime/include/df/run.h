/* run.h - what every job's process is made of: signals, status file, metrics, worker threads.
 *
 * A job's main: df_process_start, its work until df_process_stopping, df_process_end. Under
 * `adtally up` jobs are children of the supervisor and end with it (parent death signal).
 *
 * The status file DATA/run/<job>.prom holds the job's metrics as Prometheus text, replaced every
 * second by rename: `adtally status`, the admin endpoint of `up` and tests read it. Its first line
 * is a comment "# adtally <job> pid=<pid> started_ms=<ms> written_ms=<ms>".
 */
#ifndef DF_RUN_H
#define DF_RUN_H

#include "df/bytes.h"
#include "df/group.h"
#include "df/task.h"

/* ---- process ---- */

/* Exit codes (sysexits.h), the same for every command. */
enum {
        DF_EXIT_OK = 0,
        DF_EXIT_FAILURE = 1,      /* the answer is no: a check failed */
        DF_EXIT_USAGE = 64,       /* the command line is wrong */
        DF_EXIT_DATA = 65,        /* the input is wrong, or stored data is damaged */
        DF_EXIT_UNAVAILABLE = 69, /* a server is not there */
        DF_EXIT_SOFTWARE = 70,
        DF_EXIT_IO = 74,
        DF_EXIT_TEMPFAIL = 75, /* try again */
        DF_EXIT_CONFIG = 78,
};
int df_exit_code(int df_err);

/* Names the process, sets up log lines and signals: SIGTERM and SIGINT ask it to stop, SIGPIPE is
 * ignored, the parent's death is a SIGTERM when under_supervisor. Once, before any thread. */
int df_process_start(const char *job, bool under_supervisor, struct df_error *err);
bool df_process_stopping(void);
int df_process_stop_fd(void); /* readable once it should stop: for poll and event loops */
void df_process_stop(void);   /* ask from inside */

/* For a process that runs tasks, before its first thread: what one checkpoint has used is kept for
 * the next. Each fills memory of the same size again (batches, memtables, runs); given back to the
 * system in between it would come as fresh pages, which cost more than what is done with them. */
void df_process_keep_memory(void);

int64_t df_wall_ms(void); /* Unix time */
int64_t df_monotonic_ms(void);
int64_t df_monotonic_ns(void);
int64_t df_boottime_ms(void); /* as monotonic, but a suspended machine's time counts */

int df_mkdirs(const char *path, struct df_error *err); /* like mkdir -p */
/* What was created in, or renamed to, its directory is durable. */
int df_sync_parent(const char *path, struct df_error *err);
/* Replace the file by rename; durable when sync. */
int df_write_file(const char *path, struct df_bytes content, bool sync, struct df_error *err);
/* Like rm -r; stays on one file system, follows no link; 0 also when there is nothing. */
int df_remove_tree(const char *path, struct df_error *err);
int df_read_file(const char *path, size_t max_bytes, struct df_buf *ret, struct df_error *err);
uint64_t df_rss_bytes(void);
uint64_t df_peak_rss_bytes(void);
int64_t df_cpu_ns(void);    /* user + system, of the process */
uint64_t df_ticks_ns(void); /* monotonic, for df_task_config.ticks_ns */

/* ---- status file ---- */
struct df_status;
/* Starts a thread that calls render every second, and once more at the end. render appends
 * Prometheus lines; it must be thread-safe. */
int df_status_start(const char *data_dir, const char *job,
                    void (*render)(void *arg, struct df_buf *b), void *arg, struct df_status **ret,
                    struct df_error *err);
void df_status_stop(struct df_status *s);
/* One metric line; labels like `partition="3"` or "" . help and type are written once a name. */
void df_metric(struct df_buf *b, const char *name, const char *labels, double value);

/* ---- fail points ---- */

/* For tests: what happens before a named step of the protocol (df/task.h, session.c). The
 * environment variable DF_FAIL holds "NAME=ACTION[(ARG)][@N][*M];...": from the N-th time that
 * the step NAME (a final * stands for any rest) comes (default 1), M times (default 1; *0 = for
 * ever):
 *   off        nothing          abort       the process dies, as by kill -9
 *   error      DF_EIO           error(CODE) that code, e.g. error(disk_full), error(ownership_lost)
 *   pause      the process stops itself, as by SIGSTOP, until SIGCONT
 *   delay(MS)  waits
 * DF_FAIL_ONLY=TEXT: only where the task's name holds TEXT. DF_FAIL_ONCE=DIR: each point
 * strikes once over all lives of all processes that share this directory.
 * A bad text is DF_EINVAL at df_process_start. Compiled in by -Dfailpoints=true alone; without it
 * the variable is refused, so that no test believes in points that are not there. */
int df_failpoint(const char *task, const char *step, struct df_error *err);

/* ---- worker threads that own partitions (K11, K12) ---- */

struct df_worker_task {
        const char *name;             /* "events/3": in logs and metrics; copied */
        struct df_task_config config; /* what it points to outlives the pool */
        struct df_session_ports ports;
        /* Called by the worker before df_session_open, after a failure too: opens a fresh
         * ports->ckpt (K7: what a failed owner held is closed) and sets ports->recover_from_log
         * (K10); where a group assigns partitions, ports->txn too. group: the worker's, or NULL.
         * The worker closes both. */
        int (*open_state)(void *arg, struct df_group *group, struct df_session_ports *ports,
                          struct df_error *err);
        void *open_arg;
};

/* Commits at the same time, by default: a commit mostly waits (disk, broker), so more than cores.
 * As each is ~20 ms on Kafka, four are 200 a second. */
#define DF_COMMIT_THREADS 4

struct df_workers_options {
        uint32_t threads;
        uint32_t commit_threads; /* of the pool; 0 = DF_COMMIT_THREADS */
        int64_t interval_min_ms; /* K12: 0 = 500 */
        int64_t interval_max_ms; /* 0 = 10,000 */
        int64_t idle_commit_ms;  /* 0 = 30,000 */
        size_t poll_records;     /* records a step; 0 = 512 */
        /* For tasks that have an end (df_task_config.range). A worker works on one until it is done
         * and closes it then; while that one commits it goes on with the next. So memory is that of
         * so many open tasks a worker, however many there are. 0: all are open, and in turn. */
        uint32_t open_max;
        /* A log whose group assigns the partitions (df/group.h): each worker has a member of its
         * own. NULL: tasks come by df_workers_add alone. Called by the worker; it closes it. */
        int (*open_group)(void *arg, uint32_t worker, struct df_group **ret, struct df_error *err);
        /* The task of an assigned partition; its name is copied. Called by any worker. */
        int (*task_of)(void *arg, const struct df_partition *p, struct df_worker_task *ret,
                       struct df_error *err);
        void *group_arg;
};

/* One task, as the outside sees it. Thread: any, under the pool's lock. */
struct df_worker_view {
        const char *name;
        struct df_source source;
        bool running;        /* taken over and processing; open_max: not before it, nor once done */
        bool done;           /* its range is processed and committed (df_session_done) */
        int refused;         /* enum df_err when refused (K11), else 0 */
        const char *refusal; /* its text, or "" */
        uint64_t k, position, epoch;
        uint64_t lag_records;               /* DF_LAG_UNKNOWN: not shown */
        int64_t watermark_ms, committed_ms; /* wall time of the last commit; 0 = none */
        int64_t commit_median_ms; /* from due to done, the wait for a commit thread included */
        int64_t takeover_ms;      /* that the last one took: fencing, verifying, restoring */
        uint64_t restarts, commits, records;
        uint64_t events;           /* decoded by the tasks of this process */
        struct df_profile profile; /* of the same tasks */
};

struct df_workers;
int df_workers_create(const struct df_workers_options *options, struct df_workers **ret,
                      struct df_error *err);
/* Give a task to the worker with the fewest. Also while they run (an import begins). */
int df_workers_add(struct df_workers *w, const struct df_worker_task *task, struct df_error *err);
/* The topics whose partitions the members of the group share. Thread: any; names are copied. */
int df_workers_subscribe(struct df_workers *w, const char *const *topics, size_t count,
                         struct df_error *err);
/* 0, or why the process must end: another one has this instance's name (DF_EFENCED). */
int df_workers_failed(struct df_workers *w, struct df_error *err);
/* Take refused tasks over again: what refused them was mended (`adtally recover`). Thread: any. */
void df_workers_retry(struct df_workers *w);
/* While held nothing is read or begun; commits under way go on. For work that gives way to other
 * processes. Thread: any. */
void df_workers_hold(struct df_workers *w, bool hold);
/* Drain: every task commits what it has processed, then the threads end. */
void df_workers_stop(struct df_workers *w);
void df_workers_each(struct df_workers *w, void (*fn)(void *arg, const struct df_worker_view *view),
                     void *arg);
/* Prometheus lines: epoch, lag, watermark, checkpoint age, refused, restarts. */
void df_workers_render(struct df_workers *w, struct df_buf *b);
void df_workers_destroy(struct df_workers *w);

/* ---- progress of long commands ---- */
/* A bar on a terminal, a plain line every few seconds otherwise; silent when quiet. */
struct df_progress {
        const char *what;
        const char *unit;
        uint64_t all; /* 0 = unknown */
        int64_t started_ms, shown_ms;
        bool tty, quiet, shown;
        bool other; /* share and rest come from another measure than the unit */
        uint64_t other_before, other_done, other_all;
};
/* Order of calls: start, { [whole,] show }*, end. */
void df_progress_start(struct df_progress *p, const char *what, const char *unit, uint64_t all,
                       bool quiet);
/* How much is left is known in another measure (offsets of a range whose unit is events): done of
 * all, where what was done before the first call took none of this process's time. */
void df_progress_whole(struct df_progress *p, uint64_t done, uint64_t all);
void df_progress_show(struct df_progress *p, uint64_t done); /* cheap; draws at most 5 a second */
void df_progress_end(struct df_progress *p, uint64_t done);

#endif
