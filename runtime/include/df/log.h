/* log.h - the log port: topics of partitions of records, the only way jobs meet.
 *
 * Three adapters implement it: runtime/filelog (one machine), runtime/kafka, and runtime/sim (in
 * memory, with faults). Everything is addressed by (topic, partition, offset); offsets of a
 * partition count records from 0 without holes on the file log, with holes on Kafka (transaction
 * markers, aborted records), also at its end: never compute one, only compare; what a reader has
 * passed is df_log_position, not "last record + 1".
 *
 * Order of calls:  open log; topic_create; writer_open | reader_open; append/poll...; close.
 * Threads:         struct df_log and writers: any thread (append merges concurrent callers into
 *                  one group commit). A reader belongs to one thread.
 * Ownership:       records given to append are borrowed until it returns. Records from poll are
 *                  valid until the next call on that reader.
 * Durability:      append returns after the records survive power loss (Kafka: after every in-sync
 *                  replica has them). A failed sync ends the process (L1): the caller must treat
 *                  DF_EIO from append as fatal for itself.
 * Visibility:      readers see committed records alone: a transaction's (df/txn.h) at its commit.
 * Errors:          DF_ENOSPC, DF_EAGAIN nothing was stored, may be retried (L2); DF_EDOUBT some or
 *                  all may have been stored and the writer is in order again; DF_ECORRUPT names
 *                  topic,
 *                  partition and offset; DF_EOFFSET the offset was deleted; DF_EFENCED another
 *                  process is the writer of this topic; DF_ENOENT no such topic.
 * Limits:          DF_LOG_RECORD_MAX a record, DF_PARTITIONS_MAX partitions, topic names
 *                  [a-z0-9][a-z0-9._-]{0,63}.
 */
#ifndef DF_LOG_H
#define DF_LOG_H

#include <stdbool.h>

#include "df/bytes.h"

#define DF_LOG_RECORD_MAX (1u << 20) /* bytes of one record's value */
#define DF_PARTITIONS_MAX 256
#define DF_TOPIC_NAME_MAX 64
#define DF_OFFSET_END UINT64_MAX /* reader_open: start at the durable end */

struct df_record {
        uint64_t offset;
        int64_t append_ms; /* stamped by the log (T2); not monotone, readers take the maximum */
        struct df_bytes value;
};

struct df_append {
        uint32_t partition;
        struct df_bytes value;
        uint64_t ret_offset;   /* filled in by append */
        int64_t ret_append_ms; /* filled in by append */
};

struct df_topic_info {
        char name[DF_TOPIC_NAME_MAX + 1];
        uint32_t partitions;
        uint64_t generation; /* random, fixed at creation: a re-created topic differs (E1, K14) */
};

struct df_log;
struct df_log_writer;
struct df_log_reader;

struct df_log_ops {
        /* Create the topic unless it exists; DF_ESCHEMA when it exists with another count. */
        int (*topic_create)(struct df_log *log, const char *topic, uint32_t partitions,
                            struct df_error *err);
        /* Call fn for each topic whose name begins with prefix, sorted by name. */
        int (*topic_list)(struct df_log *log, const char *prefix,
                          int (*fn)(void *arg, const struct df_topic_info *info), void *arg,
                          struct df_error *err);
        int (*writer_open)(struct df_log *log, const char *topic, struct df_log_writer **ret,
                           struct df_error *err);
        int (*append)(struct df_log_writer *w, struct df_append *items, size_t count,
                      struct df_error *err);
        void (*writer_close)(struct df_log_writer *w);
        /* consumer: NULL, or a name that registers the reader's position for retention (L2). */
        int (*reader_open)(struct df_log *log, const char *topic, uint32_t partition,
                           uint64_t from_offset, const char *consumer, struct df_log_reader **ret,
                           struct df_error *err);
        /* Up to max records from the position, fewer or 0 at the durable end; never blocks for more
         * than some ms. Kafka: 0 also while the broker has not answered yet; whoever wants all up
         * to an end calls until the position is there. */
        int (*poll)(struct df_log_reader *r, struct df_record *records, size_t max,
                    size_t *ret_count, struct df_error *err);
        /* Allow deletion before offset by this registered consumer; durable when it returns. */
        int (*release)(struct df_log_reader *r, uint64_t offset, struct df_error *err);
        /* Everything before it was handed out by poll or holds no record: at the durable end it
         * equals what bounds says there. No input or output. */
        uint64_t (*position)(struct df_log_reader *r);
        /* First offset still held, and the durable end: what a reader's position comes to. (Kafka:
         * the last stable offset.) */
        int (*bounds)(struct df_log *log, const char *topic, uint32_t partition,
                      uint64_t *ret_first, uint64_t *ret_end, struct df_error *err);
        /* The durable end as far as the reader knows, without waiting for anybody; DF_EAGAIN: it
         * does not know yet. For numbers that are shown, never for what is decided: it may be old,
         * and Kafka's counts the records of open transactions. NULL: bounds does not wait. */
        int (*seen_end)(struct df_log_reader *r, uint64_t *ret_end, struct df_error *err);
        /* The first offset whose record was appended at append_ms or later; the durable end when
         * there is none. Append times of a partition grow, but where a repair of the clock put
         * them back (T2): then it is one such offset, not always the first. Kafka: it may be that
         * of an aborted record. */
        int (*offset_at)(struct df_log *log, const char *topic, uint32_t partition,
                         int64_t append_ms, uint64_t *ret_offset, struct df_error *err);
        /* Delete the topic, for good; 0 also when there is none. DF_EFENCED: a writer has it open.
         * Its readers are closed before. */
        int (*topic_delete)(struct df_log *log, const char *topic, struct df_error *err);
        void (*reader_close)(struct df_log_reader *r);
        void (*close)(struct df_log *log);
};

/* Adapters embed this first. */
struct df_log {
        const struct df_log_ops *ops;
};
struct df_log_writer {
        struct df_log *log;
};
struct df_log_reader {
        struct df_log *log;
};

static inline int df_log_topic_create(struct df_log *log, const char *topic, uint32_t partitions,
                                      struct df_error *err)
{
        return log->ops->topic_create(log, topic, partitions, err);
}
static inline int df_log_topic_list(struct df_log *log, const char *prefix,
                                    int (*fn)(void *, const struct df_topic_info *), void *arg,
                                    struct df_error *err)
{
        return log->ops->topic_list(log, prefix, fn, arg, err);
}
static inline int df_log_writer_open(struct df_log *log, const char *topic,
                                     struct df_log_writer **ret, struct df_error *err)
{
        return log->ops->writer_open(log, topic, ret, err);
}
static inline int df_log_append(struct df_log_writer *w, struct df_append *items, size_t count,
                                struct df_error *err)
{
        return w->log->ops->append(w, items, count, err);
}
static inline void df_log_writer_close(struct df_log_writer *w)
{
        if (w)
                w->log->ops->writer_close(w);
}
static inline int df_log_reader_open(struct df_log *log, const char *topic, uint32_t partition,
                                     uint64_t from_offset, const char *consumer,
                                     struct df_log_reader **ret, struct df_error *err)
{
        return log->ops->reader_open(log, topic, partition, from_offset, consumer, ret, err);
}
static inline int df_log_poll(struct df_log_reader *r, struct df_record *records, size_t max,
                              size_t *ret_count, struct df_error *err)
{
        return r->log->ops->poll(r, records, max, ret_count, err);
}
static inline int df_log_release(struct df_log_reader *r, uint64_t offset, struct df_error *err)
{
        return r->log->ops->release(r, offset, err);
}
static inline uint64_t df_log_position(struct df_log_reader *r)
{
        return r->log->ops->position(r);
}
static inline int df_log_bounds(struct df_log *log, const char *topic, uint32_t partition,
                                uint64_t *ret_first, uint64_t *ret_end, struct df_error *err)
{
        return log->ops->bounds(log, topic, partition, ret_first, ret_end, err);
}
/* topic and partition are the reader's own. */
static inline int df_log_seen_end(struct df_log_reader *r, const char *topic, uint32_t partition,
                                  uint64_t *ret_end, struct df_error *err)
{
        uint64_t first;

        if (r->log->ops->seen_end)
                return r->log->ops->seen_end(r, ret_end, err);
        return r->log->ops->bounds(r->log, topic, partition, &first, ret_end, err);
}
static inline int df_log_offset_at(struct df_log *log, const char *topic, uint32_t partition,
                                   int64_t append_ms, uint64_t *ret_offset, struct df_error *err)
{
        return log->ops->offset_at(log, topic, partition, append_ms, ret_offset, err);
}
static inline int df_log_topic_delete(struct df_log *log, const char *topic, struct df_error *err)
{
        return log->ops->topic_delete(log, topic, err);
}
static inline void df_log_reader_close(struct df_log_reader *r)
{
        if (r)
                r->log->ops->reader_close(r);
}
static inline void df_log_close(struct df_log *log)
{
        if (log)
                log->ops->close(log);
}

#endif
