/* kafka.h - the production log on Apache Kafka (runtime/kafka, the only librdkafka user).
 *
 * Topics are named <prefix><topic> on the cluster; the rest of Adtally knows only <topic>.
 * Settings that carry the guarantees are ours (K13): a kafka.* override of one is refused with the
 * reason. Everything else (TLS, SASL, timeouts) passes through to librdkafka.
 *
 *   readers   plain consumers at explicit offsets, read_committed, checksums verified
 *   writers   one idempotent producer a process, replaced when it goes fatal; append waits for acks
 *   txn       one transactional producer a partition
 *   group     static membership, but of runs; range assignor; no fetching
 *
 * Topic identity (E1): the topic <prefix>topics, one partition, kept for ever, holds which
 * generation each topic is of, which ones are over, and for a copy of a file log where it ends and
 * whether it is finished (topics.c, df/kafka_copy.h). topic_create ends the generation
 * of a topic that is missing on the cluster before it creates it anew, and gives a new one to a
 * topic that has none, whoever made it. Any number of processes may do this at once and be killed
 * in between: all that return 0 agree. (A topic that is deleted and created again by hand while no
 * topic_create looks keeps its generation: librdkafka 2.0 does not tell Kafka's topic ids.)
 * Topics are created with message.timestamp.type=LogAppendTime, cleanup.policy=delete,
 * retention.bytes=-1 and the retention of the options (for those that are kept: -1), and checked
 * for them when they exist (DF_ESCHEMA names topic, setting, what it is, what it must be, and the
 * command that mends it); the control topic must keep its records for ever.
 */
#ifndef DF_KAFKA_H
#define DF_KAFKA_H

#include "df/group.h"
#include "df/log.h"
#include "df/txn.h"

struct df_kafka_setting {
        const char *name, *value; /* without "kafka." */
};

struct df_kafka_options {
        const char *brokers;      /* HOST:PORT,... */
        const char *prefix;       /* of topics, groups and transactional ids; NULL = "adtally." */
        int32_t replication;      /* of topics it creates; 0 = the broker's default */
        int64_t retention_ms;     /* of topics it creates; what exists must keep at least ... */
        int64_t retention_min_ms; /* ... this (K10) */
        const char *const *kept;  /* topics that are kept for ever instead; NULL at the end, NULL =
                                       none. Borrowed for the log's life */
        int32_t session_timeout_ms;              /* of the group; 0 = 10,000 */
        int32_t transaction_timeout_ms;          /* 0 = 30,000; also the watchdog's (K13) */
        int32_t produce_timeout_ms;              /* append gives up (DF_EDOUBT); 0 = 30,000 */
        const struct df_kafka_setting *settings; /* kafka.* of the configuration; copied */
        size_t setting_count;
};

/* Thread: any, afterwards as log.h says. Waits up to 10 s for a broker: DF_EAGAIN names them. */
int df_kafka_open(const struct df_kafka_options *options, struct df_log **ret,
                  struct df_error *err);

/* A member named <prefix><instance> of group <prefix><group>. */
int df_kafka_group_open(struct df_log *log, const char *group, const char *instance,
                        struct df_group **ret, struct df_error *err);
/* A member for the time of a run: it leaves when it is closed, and what it had is others' at once.
 * Partitions go to members in the order of their names, so the same ones together get the same
 * again; two of one name are two members. */
int df_kafka_group_open_run(struct df_log *log, const char *group, const char *name,
                            struct df_group **ret, struct df_error *err);

/* group: the member that was assigned the partition, in whose poll thread this is called after the
 * ASSIGN (its metadata is captured then, K13). The log's group "<prefix><group>" holds the offset.
 * The transactional.id is <prefix><topic>-<partition>; of a run's member that of open_alone. */
int df_kafka_txn_open(struct df_log *log, struct df_group *group, const char *topic,
                      uint32_t partition, struct df_txn **ret, struct df_error *err);

/* What group "<prefix><group>" has committed for a partition, without being a member. Blocks up to
 * 30 s. */
int df_kafka_committed(struct df_log *log, const char *group, const char *topic, uint32_t partition,
                       struct df_committed *ret, struct df_error *err);
/* The same of all partitions of a topic, again and again: for progress. A transaction that is under
 * way is not waited for; what it will have committed comes later.
 * Order of calls: open, read*, close. Thread: one. read blocks up to 5 s; DF_EAGAIN: nobody
 * answers now. */
struct df_kafka_offsets;
int df_kafka_offsets_open(struct df_log *log, const char *group, const char *topic,
                          uint32_t partitions, struct df_kafka_offsets **ret, struct df_error *err);
int df_kafka_offsets_read(struct df_kafka_offsets *o,
                          void (*fn)(void *arg, uint32_t partition, const struct df_committed *c),
                          void *arg, struct df_error *err);
void df_kafka_offsets_close(struct df_kafka_offsets *o);
/* Without a member, for a run that sees to it by other means that a partition has one owner (a
 * lock, and fencing): offsets are those of the group "<prefix><group>", and the transactional.id is
 * <prefix><group>-<topic>-<partition>. */
int df_kafka_txn_open_alone(struct df_log *log, const char *group, const char *topic,
                            uint32_t partition, struct df_txn **ret, struct df_error *err);
/* Forget the offsets of a group without members; 0 also when there is none. DF_EAGAIN: somebody is
 * in it. */
int df_kafka_group_delete(struct df_log *log, const char *group, struct df_error *err);

/* True when the log is this adapter's. */
bool df_kafka_is(const struct df_log *log);

/* Prometheus lines: requests in flight, producers replaced, transactions, last errors. */
struct df_buf;
void df_kafka_render(struct df_log *log, struct df_buf *b);

#endif
