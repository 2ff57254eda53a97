/* txn.h - the transactional sink port: outputs and position of one partition, all or nothing (K3).
 *
 * On a log with transactions (Kafka) a checkpoint's outputs, and the offset and metadata that name
 * the checkpoint, become visible together. What is committed decides which checkpoint a takeover
 * opens; CURRENT is then only a hint for people.
 *
 * Order of calls:  takeover, { begin, produce*, offsets, commit }*, close. After a commit that
 *                  answered DF_EAGAIN (or any call before it): abort, then begin again with the
 *                  same
 *                  bytes. After DF_ELOST: close; the partition may be taken over again only after
 *                  an assignment that was delivered later (K7, df/group.h).
 * Threads:         one at a time. Calls block; each ends in bounded time, if need be with the
 *                  process (K13: the watchdog).
 * Ownership:       items given to produce are borrowed until commit or abort returns.
 * Errors:          DF_EAGAIN  abortable, and this is still the owner; nothing became visible.
 *                  DF_ELOST   fenced, the assignment is gone, or nobody knows whether it was
 *                             committed: the log says so at the next takeover.
 *                  DF_EFENCED another process uses this instance's name: end the process.
 * Limits:          metadata: printable ASCII, DF_TXN_METADATA_MAX bytes.
 */
#ifndef DF_TXN_H
#define DF_TXN_H

#include "df/log.h"

#define DF_TXN_METADATA_MAX 1024

struct df_committed {
        bool any;                               /* an offset was committed */
        uint64_t offset;                        /* of the next record */
        char metadata[DF_TXN_METADATA_MAX + 1]; /* "" when somebody else moved the offset */
};

struct df_txn;

struct df_txn_ops {
        /* Fence every earlier owner (their open transaction is aborted, or finished if its commit
         * was accepted), then read what is committed: stable, never half of a commit (K8). */
        int (*takeover)(struct df_txn *t, struct df_committed *ret, struct df_error *err);
        /* The partition was assigned again while this owner kept it (K9): take the group's present
         * generation for the commits to come, and read what is committed, without fencing. */
        int (*keep)(struct df_txn *t, struct df_committed *ret, struct df_error *err);
        int (*begin)(struct df_txn *t, struct df_error *err);
        /* ret_offset and ret_append_ms (0 if unknown) are filled in when commit returns 0. */
        int (*produce)(struct df_txn *t, const char *topic, struct df_append *items, size_t count,
                       struct df_error *err);
        int (*offsets)(struct df_txn *t, uint64_t offset, const char *metadata,
                       struct df_error *err);
        int (*commit)(struct df_txn *t, struct df_error *err);
        int (*abort)(struct df_txn *t, struct df_error *err);
        void (*close)(struct df_txn *t);
};

struct df_txn {
        const struct df_txn_ops *ops;
};

static inline int df_txn_takeover(struct df_txn *t, struct df_committed *ret, struct df_error *err)
{
        return t->ops->takeover(t, ret, err);
}
static inline int df_txn_keep(struct df_txn *t, struct df_committed *ret, struct df_error *err)
{
        return t->ops->keep(t, ret, err);
}
static inline int df_txn_begin(struct df_txn *t, struct df_error *err)
{
        return t->ops->begin(t, err);
}
static inline int df_txn_produce(struct df_txn *t, const char *topic, struct df_append *items,
                                 size_t count, struct df_error *err)
{
        return t->ops->produce(t, topic, items, count, err);
}
static inline int df_txn_offsets(struct df_txn *t, uint64_t offset, const char *metadata,
                                 struct df_error *err)
{
        return t->ops->offsets(t, offset, metadata, err);
}
static inline int df_txn_commit(struct df_txn *t, struct df_error *err)
{
        return t->ops->commit(t, err);
}
static inline int df_txn_abort(struct df_txn *t, struct df_error *err)
{
        return t->ops->abort(t, err);
}
static inline void df_txn_close(struct df_txn *t)
{
        if (t)
                t->ops->close(t);
}

#endif
