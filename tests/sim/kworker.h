/* kworker.h - workers as members of a group over the model broker: the order of calls of
 * runtime/run/worker_group.c in one thread, with everything that may go wrong drawn by a seed.
 *
 *   ASSIGN  take over what is new, keep what was parked (K9), close what is others'
 *   REVOKE  commit, park            LOST  close without a commit (K7)
 * A worker that acts may be interrupted before any of its requests and between any two steps of a
 * session: then others act, time goes by, the broker goes down, or the worker stands still for
 * longer than its session lasts and goes on as if nothing had been (a zombie).
 */
#ifndef SIM_KWORKER_H
#define SIM_KWORKER_H

#include <stdio.h>

#include "df/sim.h"
#include "df/task.h"

#define KWORKERS_MAX 4
#define KTASKS_MAX 8
#define KGROUP "realtime"

enum kslot_state {
        KSLOT_AWAY,   /* another member's */
        KSLOT_CLOSED, /* assigned, to be taken over */
        KSLOT_OPEN,
        KSLOT_PARKED,  /* revoked: as it was, until the next assignment */
        KSLOT_WAITING, /* lost: for an assignment that is told later */
};
struct kslot {
        enum kslot_state state;
        struct df_ckpt *ckpt;
        struct df_txn *txn;
        struct df_session *session;
        unsigned failures; /* in a row */
        bool finished;     /* processed and committed to the end of its partition */
};

struct kworld;
struct kworker {
        struct kworld *world;
        uint32_t process;
        char instance[16];
        struct df_log *log; /* NULL = the process does not run */
        struct df_group *group;
        bool busy, rejoin;
        uint32_t away;                  /* turns until it starts again */
        struct kslot slots[KTASKS_MAX]; /* of the world's tasks */
};

struct kcounts {
        uint64_t seeds, takeovers, kept, commits, lost, crashes, zombies, rebalances, disks,
                recovered, fenced, troubled;
};

struct kworld {
        uint64_t seed;
        struct df_sim *sim; /* with its topics */
        struct df_sim_random random;
        struct df_task_config tasks[KTASKS_MAX]; /* what is read by others comes first */
        uint32_t task_count;
        bool recover[KTASKS_MAX]; /* K10: since then its state may be rebuilt from the log */
        struct kworker workers[KWORKERS_MAX];
        uint32_t worker_count;
        uint32_t depth;         /* workers that are interrupted */
        bool calm;              /* nothing goes wrong any more */
        bool reckless;          /* a refusal is expected: it ends the run */
        bool refused;           /* that it did */
        bool down;              /* the broker */
        int64_t step_countdown; /* to a crash or failure between steps; negative = off */
        int step_code;
        FILE *to; /* what happens is written to it; NULL = none */
        struct kcounts *counts;
};

/* Everything but the topics and the feed. The network's trouble begins with it. */
void kworld_open(struct kworld *k);
/* One turn of a random worker, and some time. */
void kworld_act(struct kworld *k);
/* Everything heals; the workers come to the end of the log and commit it. */
void kworld_finish(struct kworld *k);
void kworld_close(struct kworld *k);

/* What everybody may rely on who reads read_committed, without knowing of collections: each output
 * holds each checkpoint of a task once, whole and in order (K3). And the committed offset and its
 * metadata are those of the last one. False: it is not so, which is said, and in a reckless world
 * expected; otherwise it ends the program. */
bool kworld_check(const struct kworld *k);

void kcounts_print(const struct kcounts *c);
/* A run that never came near the rules proves nothing of them: 0, or 1 when many seeds have left
 * something out. */
int kcounts_check(const struct kcounts *c);

#endif
