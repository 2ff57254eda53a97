/* group.h - the membership port: which partitions a worker owns (K7 to K9, K12).
 *
 * A member of a consumer group (range assignor, static membership) is told what it is assigned and
 * what it must give up. It fetches nothing: records are read through df/log.h at explicit offsets.
 *
 * Order of calls:  subscribe, { poll -> a change -> follow it -> done }*, close.
 * Threads:         subscribe and rejoin: any; the rest: the worker's.
 * Ownership:       a change is valid until done.
 * Errors:          DF_EFENCED another process joined under this instance's name: end the process.
 *                  DF_EAGAIN  the group cannot be reached now.
 */
#ifndef DF_GROUP_H
#define DF_GROUP_H

#include "df/log.h"

struct df_partition {
        char topic[DF_TOPIC_NAME_MAX + 1];
        uint32_t partition;
};

enum df_group_change {
        DF_GROUP_NONE,
        DF_GROUP_ASSIGN, /* the whole assignment: what is not in it belongs to others */
        DF_GROUP_REVOKE, /* all partitions are to be given up: commit now, within bounded time */
        DF_GROUP_LOST,   /* all partitions are gone already: commit nothing */
};

struct df_group_event {
        enum df_group_change change;
        const struct df_partition *partitions; /* of ASSIGN */
        size_t count;
};

struct df_group;

struct df_group_ops {
        /* Replace the list of topics; changes nothing when it is the same. Names are copied. */
        int (*subscribe)(struct df_group *g, const char *const *topics, size_t count,
                         struct df_error *err);
        /* The next change, or DF_GROUP_NONE after timeout_ms. While a change is not `done` the next
         * one waits, and the group with it: be quick. */
        int (*poll)(struct df_group *g, int timeout_ms, struct df_group_event *ret,
                    struct df_error *err);
        void (*done)(struct df_group *g);
        /* Leave and come back under the same name: LOST (or REVOKE), then an ASSIGN that was
         * decided after this call. */
        void (*rejoin)(struct df_group *g);
        /* Static members keep their partitions until the session time-out, so a restart moves
         * nothing. */
        void (*close)(struct df_group *g);
};

struct df_group {
        const struct df_group_ops *ops;
};

static inline int df_group_subscribe(struct df_group *g, const char *const *topics, size_t count,
                                     struct df_error *err)
{
        return g->ops->subscribe(g, topics, count, err);
}
static inline int df_group_poll(struct df_group *g, int timeout_ms, struct df_group_event *ret,
                                struct df_error *err)
{
        return g->ops->poll(g, timeout_ms, ret, err);
}
static inline void df_group_done(struct df_group *g)
{
        g->ops->done(g);
}
static inline void df_group_rejoin(struct df_group *g)
{
        g->ops->rejoin(g);
}
static inline void df_group_close(struct df_group *g)
{
        if (g)
                g->ops->close(g);
}

#endif
