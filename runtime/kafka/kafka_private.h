/* kafka_private.h - between the files of the Kafka adapter: the log object, client handles, errors.
 *
 * client.c   configuration of librdkafka handles, K13's refusals, errors to codes
 * topics.c   topic identity    topics_admin.c  what is asked of the cluster about topics
 * copy.c     topics that take the place of a file log's    remove.c  deletes what a run made
 * reader.c   plain consumers, bounds    pulse.c   keeps their fetching awake
 * writer.c   the idempotent producer
 * txn.c      transactional sink   group.c   membership   watchdog.c  calls that may hang (K13)
 * offsets.c  what a group has committed, looked at from outside
 */
#ifndef DFK_KAFKA_PRIVATE_H
#define DFK_KAFKA_PRIVATE_H

#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "df/bytes.h"
#include "df/kafka.h"

#define DFK_KAFKA_NAME_MAX 200 /* bytes of a topic, group or transactional id with its prefix */

struct dfk_counts { /* since open; for df_kafka_render */
        atomic_uint_least64_t producers_replaced, transactions, aborts, lost, fenced, rejoins;
};

struct dfk_kafka {
        struct df_log base;
        struct df_kafka_options options; /* strings owned */
        struct dfk_counts counts;
        /* topics.c, reader.c, writer.c keep their own parts here, behind pointers. */
        struct dfk_topics *topics;
        struct dfk_readers *readers;
        struct dfk_writers *writers;
};

struct dfk_kafka *dfk_kafka_of(const struct df_log *log); /* checks that it is one */

/* ---- client.c ---- */
enum dfk_role { DFK_PLAIN_CONSUMER, DFK_GROUP_MEMBER, DFK_PRODUCER, DFK_TXN_PRODUCER, DFK_ADMIN };
/* A handle of this role with the settings that carry the guarantees, then the kafka.* ones. tune
 * (may be NULL) adds what the caller needs: callbacks, group.id, transactional.id. Log lines go to
 * df_trace. opaque becomes the handle's. */
int dfk_client_new(const struct dfk_kafka *k, enum dfk_role role,
                   int (*tune)(rd_kafka_conf_t *conf, void *arg, struct df_error *err), void *arg,
                   void *opaque, rd_kafka_t **ret, struct df_error *err);
/* rd_kafka_conf_set with the error in our words. */
int dfk_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value, struct df_error *err);
/* K13: DF_EINVAL with the reason when a kafka.* setting may not be overridden. Pure. */
int dfk_setting_check(const char *name, const char *value, struct df_error *err);
/* "<what>: <librdkafka's text>" with the code that this error means outside of transactions. */
int dfk_fail(struct df_error *err, rd_kafka_resp_err_t code, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
/* <prefix><name> into ret (DFK_KAFKA_NAME_MAX + 1 bytes). */
int dfk_full_name(const struct dfk_kafka *k, const char *name, char *ret, struct df_error *err);

/* ---- topics.c ---- */
struct dfk_topic;
struct dfk_topics {
        pthread_mutex_t lock; /* of all below but admin */
        rd_kafka_t *admin;
        uint64_t read_to; /* position in the control topic */
        struct dfk_topic *known;
        size_t count;
};
int dfk_topics_open(struct dfk_kafka *k, struct df_error *err); /* waits for a broker */
void dfk_topics_close(struct dfk_kafka *k);
int dfk_topic_create(struct df_log *log, const char *topic, uint32_t partitions,
                     struct df_error *err);
int dfk_topic_list(struct df_log *log, const char *prefix,
                   int (*fn)(void *arg, const struct df_topic_info *info), void *arg,
                   struct df_error *err);
bool dfk_is_control(const char *name);
/* What the control topic says of a topic. */
struct dfk_topic {
        struct df_topic_info info; /* name "": nothing; generation 0: it never had one */
        bool over;
        /* Moved here from a file log (df/kafka_copy.h): records below these offsets carry the times
         * that the file log stamped. */
        uint64_t moved[DF_PARTITIONS_MAX];
        uint32_t moved_count; /* partitions, or 0 */
        bool copying;         /* not to be used yet */
};
int dfk_topic_known(struct dfk_kafka *k, const char *name, struct dfk_topic *ret,
                    struct df_error *err);
/* From now on the topic is this copy. Another generation of it ends, which the caller knows to be
 * gone from the cluster. */
int dfk_topic_declare(struct dfk_kafka *k, const struct dfk_topic *topic, struct df_error *err);

/* ---- topics_admin.c ---- */
/* Thread: any. Each waits for the cluster, at most some 15 s; full: the name with its prefix. */
/* The settings that every topic has; of a list that ends with NULL. */
#define DFK_TOPIC_SETTINGS(stamp, retention)                                                       \
        {"message.timestamp.type", stamp}, {"cleanup.policy", "delete"},                           \
                {"retention.ms", retention}, {"retention.bytes", "-1"},                            \
        {                                                                                          \
                "max.message.bytes", "2097152"                                                     \
        }
int dfk_admin_make(struct dfk_kafka *k, const char *full, uint32_t partitions,
                   const char *const (*settings)[2], bool *ret_made, struct df_error *err);
/* By the options, what a topic is created with, and what one that exists must keep at least; -1:
 * for ever. */
int64_t dfk_retention(const struct dfk_kafka *k, const char *topic);
int64_t dfk_retention_min(const struct dfk_kafka *k, const char *topic);
/* retention_ms -1: for ever. 0 also when it exists already. */
int dfk_admin_create(struct dfk_kafka *k, const char *full, uint32_t partitions,
                     int64_t retention_ms, struct df_error *err);
/* The controller's word, not that of a broker that may not have heard yet. */
int dfk_admin_is_missing(struct dfk_kafka *k, const char *full, bool *ret, struct df_error *err);
/* DF_ESCHEMA: the settings let records be lost or stamped by others (K14). keep_ms: what retention
 * must be at least; -1 = for ever. */
int dfk_admin_check(struct dfk_kafka *k, const char *full, int64_t keep_ms, struct df_error *err);
/* Partitions that a broker knows of; 0 = it does not know the topic. */
int dfk_admin_partitions(struct dfk_kafka *k, const char *full, uint32_t *ret,
                         struct df_error *err);
/* An answer of the cluster to a request on this queue; the caller destroys *ret, on errors too. */
int dfk_admin_wait(rd_kafka_queue_t *q, rd_kafka_event_t **ret, const char *what,
                   struct df_error *err);
rd_kafka_AdminOptions_t *dfk_admin_options(struct dfk_kafka *k, rd_kafka_admin_op_t op);

/* ---- remove.c ---- */
int dfk_topic_delete(struct df_log *log, const char *topic, struct df_error *err);

/* ---- reader.c ---- */
int dfk_readers_open(struct dfk_kafka *k, struct df_error *err);
void dfk_readers_close(struct dfk_kafka *k);
int dfk_bounds(struct df_log *log, const char *topic, uint32_t partition, uint64_t *ret_first,
               uint64_t *ret_end, struct df_error *err);
int dfk_offset_at(struct df_log *log, const char *topic, uint32_t partition, int64_t append_ms,
                  uint64_t *ret_offset, struct df_error *err);
int dfk_reader_open(struct df_log *log, const char *topic, uint32_t partition, uint64_t from_offset,
                    const char *consumer, struct df_log_reader **ret, struct df_error *err);
int dfk_poll(struct df_log_reader *r, struct df_record *records, size_t max, size_t *ret_count,
             struct df_error *err);
int dfk_release(struct df_log_reader *r, uint64_t offset, struct df_error *err);
uint64_t dfk_position(struct df_log_reader *r);
int dfk_seen_end(struct df_log_reader *r, uint64_t *ret_end, struct df_error *err);
void dfk_reader_close(struct df_log_reader *r);
/* The i-th consumer handle, or NULL; they live until the log is closed. */
rd_kafka_t *dfk_readers_handle(struct dfk_kafka *k, size_t i);
/* Add the handle's partitions of which much was taken since the last call, with this offset. */
void dfk_readers_busy(struct dfk_kafka *k, const rd_kafka_t *rk,
                      rd_kafka_topic_partition_list_t *list, int64_t offset);

/* ---- pulse.c ---- */
struct dfk_pulse;
int dfk_pulse_start(struct dfk_kafka *k, struct dfk_pulse **ret, struct df_error *err);
void dfk_pulse_stop(struct dfk_pulse *p); /* NULL is fine */

/* ---- writer.c ---- */
int dfk_writers_open(struct dfk_kafka *k, struct df_error *err);
void dfk_writers_close(struct dfk_kafka *k);
int dfk_writer_open(struct df_log *log, const char *topic, struct df_log_writer **ret,
                    struct df_error *err);
int dfk_append(struct df_log_writer *w, struct df_append *items, size_t count,
               struct df_error *err);
void dfk_writer_close(struct df_log_writer *w);
/* From now on items bring their times: ret_append_ms is what the record carries. */
void dfk_writer_carry_times(struct df_log_writer *w);

/* ---- watchdog.c ---- */
/* Around a call that may never return (librdkafka 2.0.2 ignores the time-out of
 * send_offsets_to_transaction): when it takes longer than limit_ms, the process logs what hung and
 * ends with exit code 75; the supervisor starts it again and the log says what was committed. One
 * thread for the process, started at the first call. Nested and concurrent calls are fine. */
struct dfk_watch {
        struct dfk_watch *next;
        const char *what;
        int64_t deadline_ms;
};
int64_t dfk_now_ms(void); /* monotonic */
void dfk_pause(int ms);
void dfk_watch_begin(struct dfk_watch *w, const char *what, int64_t limit_ms);
void dfk_watch_end(struct dfk_watch *w);

/* ---- group.c ---- */
struct dfk_group;
struct dfk_group *dfk_group_of(struct df_group *g);
/* The metadata that was captured at the last assignment; NULL: there is none. Caller destroys. */
rd_kafka_consumer_group_metadata_t *dfk_group_metadata(struct dfk_group *g);
/* What is committed for the partition: stable, never half of a transaction. */
int dfk_group_committed(struct dfk_group *g, const char *full_topic, int32_t partition,
                        struct df_committed *ret, struct df_error *err);
/* Of a member of a run the group's name without the prefix; NULL: another. */
const char *dfk_group_run(const struct dfk_group *g);
/* False when the member knows that it lost its assignment. */
bool dfk_group_holds(struct dfk_group *g);

/* ---- offsets.c ---- */
/* By a client of the group: stable, never half of a transaction. */
int dfk_read_committed(rd_kafka_t *rk, const char *group, const char *full_topic, int32_t partition,
                       struct df_committed *ret, struct df_error *err);
/* A client of the group that never joins it; the caller destroys it. */
int dfk_onlooker(const struct dfk_kafka *k, char *full_group, rd_kafka_t **ret,
                 struct df_error *err);
int dfk_look_committed(const struct dfk_kafka *k, char *full_group, const char *full_topic,
                       int32_t partition, struct df_committed *ret, struct df_error *err);
bool dfk_is_printable(const char *text, size_t len); /* ASCII */

#endif
