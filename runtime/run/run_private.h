/* run_private.h - the worker pool's insides: one slot a task, one thread for several slots.
 *
 * worker.c        the pool, and what the outside sees
 * worker_loop.c   a slot's life: take over, poll, commit in time, drain
 * worker_commit.c the commits, which other threads do meanwhile
 * worker_group.c  what the group assigns and takes away
 */
#ifndef DFI_RUN_PRIVATE_H
#define DFI_RUN_PRIVATE_H

#include <pthread.h>

#include "df/run.h"

#define DFI_MEDIAN_OF 8     /* K12 */
#define DFI_COMMITS_OF 1024 /* of all tasks, for what is shown */
#define DFI_TASK_NAME_MAX 96

enum dfi_slot_state {
        DFI_CLOSED,     /* to be taken over at retry_ms */
        DFI_OPEN,       /* processing */
        DFI_COMMITTING, /* K3: in the queue or with a commit thread; nobody else touches it */
        DFI_REFUSED,    /* K11: a person must look; the others run */
        DFI_PARKED, /* K9: revoked in good order; kept until the next assignment says whose it is */
        DFI_WAITING, /* K7: lost; taken over only if an assignment comes */
        DFI_AWAY,    /* another member's */
        DFI_ENDED,   /* drained at stop; open_max: its range is done */
};

struct dfi_slot {
        struct df_worker_task task;
        char name[DFI_TASK_NAME_MAX];
        enum dfi_slot_state state;
        struct df_session *session;
        int64_t retry_ms;
        uint32_t failures; /* in a row, for the back-off */
        int64_t next_commit_ms, last_commit_ms;
        int64_t caught_up_commit_ms;      /* as next_commit_ms, while the log is read to its end */
        int64_t commit_ms[DFI_MEDIAN_OF]; /* ring of the last commit times */
        uint64_t commits, records, restarts;
        uint64_t events;           /* of the sessions before this one */
        struct df_profile profile; /* of the same */
        struct dfi_slot *next;     /* of the same worker */

        /* One commit: asked by the worker, done by a commit thread, judged by the worker. */
        struct dfi_worker *worker;
        struct dfi_slot *queued; /* the next in the queue, then in worker->returned */
        int64_t asked_ms, began_ms, ended_ms;
        uint64_t events_asked; /* df_task_events then */
        int commit_rc;
        struct df_error commit_error;

        /* Under the pool's lock: what the outside sees. */
        bool shown; /* false: another member's, who shows it */
        struct df_worker_view view;
        char refusal[DF_ERROR_TEXT_MAX];
};

struct dfi_worker {
        struct df_workers *pool;
        pthread_t thread;
        bool started;
        uint32_t index;
        size_t slot_count;
        struct dfi_slot *slots;    /* the thread's own list */
        struct dfi_slot *arrived;  /* under the pool's lock: to be moved to slots */
        struct dfi_slot *returned; /* under the pool's lock: their commits have ended */
        size_t committing;         /* the same: handed over, and not yet in returned */
        bool held;                 /* as the pool said */
        uint64_t retries;          /* of pool->retries, as far as this worker has followed them */
        struct df_group *group;
        uint64_t topics_version; /* of pool->topics, as subscribed */
        int64_t group_retry_ms;
        bool rejoin; /* K7: an assignment is needed that comes after a loss */
};

struct df_workers {
        struct df_workers_options options;
        pthread_mutex_t lock;
        pthread_cond_t wake;
        bool stop;
        bool held;           /* nothing is polled */
        uint64_t retries;    /* calls of df_workers_retry */
        const char **topics; /* subscribed; owned */
        size_t topic_count;
        uint64_t topics_version;
        struct df_error failed;
        pthread_cond_t work; /* for the commit threads */
        struct dfi_slot *queue, **queue_end;
        bool no_more; /* commits will be asked for; the workers have ended */
        pthread_t *committers;
        uint32_t committer_count;          /* that run */
        int64_t commit_ms[DFI_COMMITS_OF]; /* ring; without the wait in the queue */
        uint64_t commits;
        struct dfi_worker *workers;
};

/* worker_loop.c: the thread's body; arg is a struct dfi_worker. */
void *dfi_worker_main(void *arg);
void dfi_slot_close(struct dfi_slot *s); /* no commit */
void dfi_slot_fail(struct dfi_worker *w, struct dfi_slot *s, const struct df_error *err);
void dfi_slot_show(struct dfi_worker *w, struct dfi_slot *s); /* to the outside */
struct dfi_slot *dfi_slot_new(const struct df_worker_task *task, struct df_error *err);

/* worker_loop.c: what has come back from its commit is open again, or as its failure demands. all:
 * wait for every commit of this worker that is under way. */
void dfi_commits_follow(struct dfi_worker *w, bool all);

/* worker_commit.c. start before the first worker, stop after the last has ended. */
int dfi_commits_start(struct df_workers *p, struct df_error *err);
void dfi_commits_stop(struct df_workers *p);
/* K12: a commit is due. new_events: since the last one was asked for; caught_up: the log is
 * read to its end. Pure. */
bool dfi_cadence_due(const struct df_workers_options *o, const struct dfi_slot *s, int64_t now,
                     uint64_t new_events, bool caught_up);
/* Hand an open or parked slot over; it comes back by dfi_commits_done. */
void dfi_commit_ask(struct dfi_worker *w, struct dfi_slot *s);
/* The slots that came back, linked by `queued`; each is DFI_OPEN, and commit_rc and commit_error
 * tell what became of its commit. */
struct dfi_slot *dfi_commits_done(struct dfi_worker *w, bool all);

/* worker_group.c: follow what the group says, if anything; never blocks for long. */
void dfi_group_follow(struct dfi_worker *w);

/* failpoint.c: the environment, once. */
int dfi_failpoints_read(struct df_error *err);

int dfi_compare_ms(const void *a, const void *b); /* of int64_t, for qsort */
int64_t dfi_median(const int64_t *ring, uint64_t count);

#endif
