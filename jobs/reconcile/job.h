/* job.h - the reconcile job: runs by a schedule or when asked, and the books (R1 to R4).
 *
 *   schedule.c  when a run is due
 *   commands.c  what people ask (topic `commands`)
 *   state.c     DATA/reconcile/JOB
 *   pace.c      giving way to realtime
 *   run.c       one run, from the vector to the post
 *   lead.c      which process makes the runs
 *   handover.c  what it takes over from the one before
 *   share.h     how the others help with the work
 *   post.c      its records in `runs`
 *   books.c     the task that reads `runs` and writes `billing`
 *   applied.c   what the books say of a run
 *   status.c    DATA/run/reconcile.prom and DATA/run/reconcile.json
 *
 * One run at a time, in the main thread, which has a pool of --reconcile-threads for the work; the
 * books have a pool of their own, the status file a thread. All run at nice 10: what is counted
 * now goes first.
 *
 * One process a data directory (`adtally up`). On the file log a second one of a log is refused
 * (DF_EFENCED). On Kafka any number may run, on any machines: one leads, which makes the runs and
 * has the books; the others help with the work, and wait to take over. A leader that loses the lead
 * ends, and is started again as one that waits. What a leader needs from the one before is in the
 * log, and in --checkpoint-store: the states of the books and of the chains. Should two post all
 * the same (one stood still for longer than the session), the books post nothing twice (R4).
 */
#ifndef AD_RECONCILE_JOB_H
#define AD_RECONCILE_JOB_H

#include <pthread.h>

#include "df/group.h"
#include "jobs/common/places.h"
#include "jobs/common/settings.h"
#include "jobs/runs/fold.h"

/* ---- when (schedule.c): pure; times are Unix ms ---- */
struct ad_schedule {
        int64_t every_ms;
        int64_t nightly_ms; /* of the UTC day; -1 = off */
        int64_t first_ms;   /* not before */
};
enum ad_due {
        AD_DUE_NOT,
        AD_DUE_RUN,
        AD_DUE_WHOLE, /* and it compares all that the log has */
};
/* "HH:MM" or "off". DF_EINVAL. */
int ad_schedule_nightly(const char *text, int64_t *ret_ms, struct df_error *err);
/* ran, compared: when the last run, and the last one that compared all, began; 0 = never. A nightly
 * run that was missed is made up for. */
enum ad_due ad_schedule_due(const struct ad_schedule *s, int64_t now, int64_t ran,
                            int64_t compared);
/* After so many failures in a row the next try waits so long. */
int64_t ad_schedule_retry_ms(uint32_t failures);

/* ---- what is kept (state.c) ---- */
struct ad_job_state {
        char chain[AD_RUN_ID_MAX + 1]; /* the last one that was posted whole; "" = none yet */
        char run[AD_RUN_ID_MAX + 1];   /* the last one that was posted */
        uint64_t commands;             /* RunRequests before this offset were run */
        uint64_t runs;                 /* the end of `runs` when it was last looked at */
        bool known;                    /* there was a file */
        int64_t ran_ms, compared_ms; /* when the last run, and the last that compared all, began */
        uint64_t unexplained, pending; /* of the last run */
};
/* A file that is missing or damaged says nothing: *ret is zero. Nothing is lost with it: the next
 * run is whole, and `runs` says what was asked (ad_commands_handled). */
int ad_job_state_read(const char *data, struct ad_job_state *ret, struct df_error *err);
int ad_job_state_write(const char *data, const struct ad_job_state *s, struct df_error *err);

/* ---- what is asked (commands.c) ---- */
struct ad_commands;
/* Reads from the first record; RunRequests from `from` on wait to be run. */
int ad_commands_open(struct df_log *log, uint64_t from, struct ad_commands **ret,
                     struct df_error *err);
/* Takes in what was appended since. */
int ad_commands_follow(struct ad_commands *c, struct df_error *err);
/* The first that waits: its id, valid until the next call of anything, and its offset. */
bool ad_commands_first(const struct ad_commands *c, const char **ret_id, uint64_t *ret_offset);
size_t ad_commands_waiting(const struct ad_commands *c);
void ad_commands_done(struct ad_commands *c); /* the first one */
void ad_commands_close(struct ad_commands *c);
/* What the records of `runs` from *runs on say: *ret_after is the offset behind the last RunRequest
 * that one of their runs answers, 0: none; *ret_any: there are records. *runs becomes their end. */
int ad_commands_handled(struct df_log *log, uint64_t *runs, uint64_t *ret_after, bool *ret_any,
                        struct df_error *err);

/* ---- what the books say (applied.c) ---- */
struct ad_job_answers;
/* From now on. */
int ad_job_answers_open(struct df_log *log, struct ad_job_answers **ret, struct df_error *err);
/* *ret_refused: a run was refused since the last call. */
int ad_job_answers_follow(struct ad_job_answers *a, bool *ret_refused, struct df_error *err);
void ad_job_answers_close(struct ad_job_answers *a);

/* ---- giving way (pace.c) ---- */
struct ad_pace {
        const char *data;
        int64_t lag_max_ms; /* of realtime's watermarks, while records wait */
        int64_t looked_ms, held_ms, freed_ms;
        bool held;
};
/* What a status file of realtime says: whether a task has records before it and its watermark is
 * so far behind. Pure; text ends with a zero byte. */
bool ad_pace_behind(const char *text, double lag_max_s);
/* Whether the work should wait. It looks twice a second, and holds no longer than 30 s at a time,
 * with 2 s of work in between: where realtime cannot catch up a bill is wanted all the same. */
bool ad_pace_hold(struct ad_pace *p);

/* ---- who makes the runs (lead.c) ---- */
enum ad_lead_state {
        AD_LEAD_WAITS,
        AD_LEAD_LEADS,
        AD_LEAD_DOUBT, /* until the next assignment */
        AD_LEAD_LOST,  /* for ever: the process ends */
};
/* Pure. assigned: partitions, of DF_GROUP_ASSIGN. */
enum ad_lead_state ad_lead_after(enum ad_lead_state s, enum df_group_change change,
                                 size_t assigned);
/* Order of calls: open, leads*, confirm*, close. The topic `commands` exists. A lost lead stops the
 * process (df_process_stop). Thread: leads and confirm: any. On the file log *ret is NULL, which
 * all calls take for a leader without rivals. */
struct ad_lead;
int ad_lead_open(const struct df_config *c, struct df_log *log, struct ad_lead **ret,
                 struct df_error *err);
bool ad_lead_leads(const struct ad_lead *l); /* now, without doubt */
/* Before a post or a drop: 0, or DF_EAGAIN when it leads no more. Waits while that is in doubt. */
int ad_lead_confirm(const struct ad_lead *l, struct df_error *err);
/* 0, or why it had to stop: DF_EAGAIN the lead was lost, DF_EFENCED another process has the name of
 * this instance. */
int ad_lead_close(struct ad_lead *l, struct df_error *err);

/* ---- what one leader leaves to the next (handover.c) ---- */
struct ad_job;
/* Before the first run: j->state and what is on this disk are made to fit what other leaders did
 * since this one led last. */
int ad_handover_take(struct ad_job *j, struct df_error *err);
/* The chains of all leaders, whose states are in the checkpoint store; none without one. id: valid
 * in fn alone. */
int ad_handover_each_chain(const struct df_config *c,
                           int (*fn)(void *arg, const char *id, struct df_error *err), void *arg,
                           struct df_error *err);

/* ---- closing periods (close.h) ---- */
struct ad_closer;

/* ---- what is shown (status.c) ---- */
enum ad_job_phase {
        AD_JOB_STANDBY, /* another process leads */
        AD_JOB_HELPING, /* the same, and this one works on its run */
        AD_JOB_IDLE,
        AD_JOB_WORKING,
        AD_JOB_COMPARING,
        AD_JOB_POSTING
};
struct ad_job_status {
        pthread_mutex_t lock;
        char path[4096]; /* reconcile.json */
        enum ad_job_phase phase;
        char leader[AD_INSTANCE_MAX + 1]; /* of the run under way */
        char run[AD_RUN_ID_MAX + 1], chain[AD_RUN_ID_MAX + 1], asked_by[AD_COMMAND_ID_MAX + 1];
        int64_t since_ms; /* of the run under way; idle: of the last one's end */
        int64_t work_ms;  /* monotonic: when the work of this run began */
        uint64_t begun;   /* offsets done then */
        struct ad_replay_progress work;
        bool held;
        size_t waiting; /* RunRequests */
        uint64_t runs, failures, targets;
        bool failed; /* the last try */
        char why[DF_ERROR_TEXT_MAX];
        char helpless[DF_ERROR_TEXT_MAX]; /* why it does not help the leader; "": nothing bars it */
        int64_t last_ms, success_ms;      /* duration, and end, of the last run that was posted */
        char digest[65];
        uint64_t unexplained, pending;
        struct df_workers *books;
        struct ad_closer *closer; /* what closes wait for */
};
/* A run, before its phases. */
void ad_job_status_begin(struct ad_job_status *s, const char *leader, const char *run,
                         const char *chain, const char *asked_by);
void ad_job_status_phase(struct ad_job_status *s, enum ad_job_phase phase);
void ad_job_status_work(struct ad_job_status *s, const struct ad_replay_progress *p, bool held);
void ad_job_status_helpless(struct ad_job_status *s, const struct df_error *err); /* NULL: no */
/* df_status_start's; writes reconcile.json, too. arg: struct ad_job_status. */
void ad_job_status_render(void *arg, struct df_buf *b);

/* ---- the books (books.c) ---- */
struct ad_books;
int ad_books_start(const struct df_config *c, struct df_log *log, struct ad_books **ret,
                   struct df_error *err);
struct df_workers *ad_books_pool(const struct ad_books *b);
void ad_books_stop(struct ad_books *b);
/* Calls fn with the task, for a command that opens its session itself; billing: the topic's writer
 * on the file log. Not at all when there is no topic `runs`. */
int ad_books_task(const struct df_config *c, struct df_log *log, struct df_log_writer *billing,
                  int (*fn)(void *arg, const struct df_worker_task *task, struct df_error *err),
                  void *arg, struct df_error *err);

/* ---- the job ---- */
/* What the leader tells those who help (share.h). */
struct ad_share {
        char path[4096]; /* "": nobody can */
        struct df_buf text;
        int64_t looked_ms;
        bool mute; /* it said that it cannot be written */
};

struct ad_job {
        const struct df_config *config;
        const char *data;
        struct ad_replay_logs logs;
        struct df_log_writer *runs; /* the topic */
        struct ad_lead *lead;
        struct ad_share share;
        struct ad_commands *commands;
        struct ad_job_answers *answers;
        struct ad_closer *closer;
        struct ad_schedule schedule;
        int64_t ran_ms; /* when the last run of this process began */
        struct ad_job_state state;
        struct ad_pace pace;
        struct ad_job_status status;
};

/* What a run is made of: one topic of raw events, `events` or imports (R6). Each has a run of
 * jobs/runs of its own, whose state goes on; the targets are sums over them. */
struct ad_job_part {
        struct ad_replay *run;
        struct ad_fold *fold;
        uint64_t rows, unexplained, pending;
        char digest[65];
        int64_t *final_through_ms; /* of each partition: windows before it are final */
};
#define AD_JOB_TOPICS_MAX 1024

/* A run that was posted: while the locks of its parts are held and their folds are open. */
struct ad_posted {
        const struct ad_job_part *parts; /* the first is `events` */
        size_t part_count;
        const struct ad_run_begin *begin;
        const struct ad_run_end *end;
        const struct ad_correction_log *corrections; /* it bills with */
};

/* Whether the job made this run, rather than `adtally reconcile` (run.c). */
bool ad_job_owns(const struct ad_replay *r);
int ad_job_mark(const struct ad_replay *r, struct df_error *err); /* as one that it made */
/* asked_by: "" = the schedule. *ret_asked: the run answers asked_by; false when it first had to end
 * one that was interrupted. DF_EAGAIN, DF_EFENCED: later again. */
int ad_job_run(struct ad_job *j, const char *asked_by, bool compare_all, bool *ret_asked,
               struct df_error *err);

/* RunBegin, targets, RunEnd (post.c), durable. What a crash leaves is written again whole: targets
 * are absolute, so that changes nothing. end->targets is filled in. */
int ad_job_post(struct ad_job *j, const struct ad_run_begin *begin, struct ad_fold *const *folds,
                size_t fold_count, struct ad_run_end *end, struct df_error *err);
/* One record of `runs`, durable. step: its fail point. */
int ad_job_append(struct ad_job *j, const char *step, struct df_bytes record, struct df_error *err);

#endif
