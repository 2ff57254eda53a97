/* kafka_test.h - shared by the tests of runtime/kafka: a log of its own (prefix) on the broker that
 * TEST_KAFKA names, and plain librdkafka clients beside the adapter, to make what it must find and
 * to see what it did. */
#ifndef KAFKA_TEST_H
#define KAFKA_TEST_H

#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/kafka/kafka_private.h"

#include "dice.h"

#define SKIPPED 77
#define DAY_MS 86400000ll
#define WAIT_MS 30000 /* for what must come; far beyond what it takes */

#define SESSION_MS 6000
static int32_t session_ms = SESSION_MS; /* of logs opened from now on */

/* ---- the log under test ---- */

static inline const char *fresh_prefix(void)
{
        static char prefix[64];
        static int n;

        (void)snprintf(prefix, sizeof(prefix), "t%d-%" PRId64 "-%d.", (int)getpid(), dfk_now_ms(),
                       n++);
        return prefix;
}

static inline struct df_kafka_options options_of(const char *prefix)
{
        return (struct df_kafka_options){.brokers = getenv("TEST_KAFKA"),
                                         .prefix = prefix,
                                         .retention_ms = DAY_MS,
                                         .retention_min_ms = DAY_MS / 2,
                                         .session_timeout_ms = session_ms,
                                         .transaction_timeout_ms = 10000};
}

static inline struct df_log *open_log(const char *prefix)
{
        struct df_kafka_options o = options_of(prefix);
        struct df_log *log = NULL;

        ok(df_kafka_open(&o, &log, &err));
        return log;
}

static inline uint64_t append_one(struct df_log *log, const char *topic, uint32_t partition,
                                  const char *value)
{
        struct df_log_writer *w = NULL;
        struct df_append a = {.partition = partition, .value = df_bytes(value, strlen(value))};

        ok(df_log_writer_open(log, topic, &w, &err));
        ok(df_log_append(w, &a, 1, &err));
        df_log_writer_close(w);
        return a.ret_offset;
}

static inline uint64_t end_of(struct df_log *log, const char *topic, uint32_t partition)
{
        uint64_t first, end;

        ok(df_log_bounds(log, topic, partition, &first, &end, &err));
        return end;
}

/* The end once it is there. A transaction's commit is answered when it is decided; its markers, and
 * with them the last stable offset, follow a moment later. */
static inline uint64_t end_comes(struct df_log *log, const char *topic, uint32_t partition,
                                 uint64_t want)
{
        uint64_t end = end_of(log, topic, partition);

        for (int i = 0; i < 1000 && end < want; i++) {
                (void)usleep(10000);
                end = end_of(log, topic, partition);
        }
        return end;
}

struct looked {
        const char *topic;
        uint64_t generation;
        uint32_t partitions;
        int found;
};

static inline int look(void *arg, const struct df_topic_info *info)
{
        struct looked *l = arg;

        if (strcmp(info->name, l->topic) == 0) {
                l->generation = info->generation;
                l->partitions = info->partitions;
                l->found++;
        }
        return 0;
}

/* 0: it is not listed. */
static inline uint64_t generation_of(struct df_log *log, const char *topic)
{
        struct looked l = {.topic = topic};

        ok(df_log_topic_list(log, topic, look, &l, &err));
        assert_true(l.found <= 1);
        assert_true(!l.found || l.generation != 0);
        return l.generation;
}

struct read_one {
        uint64_t offset;
        int64_t append_ms;
        size_t len;
        char *value; /* with a NUL behind it */
};
struct read_all {
        struct read_one *list;
        size_t count;
        uint64_t position; /* where the reader stood */
};

static inline void keep_record(struct read_all *all, const struct df_record *r)
{
        struct read_one *one;

        all->list = realloc(all->list, (all->count + 1) * sizeof(*all->list));
        one = &all->list[all->count++];
        *one = (struct read_one){r->offset, r->append_ms, r->value.len,
                                 calloc(1, r->value.len + 1)};
        memcpy(one->value, r->value.data, r->value.len);
}

/* Everything up to a position; the reader stays open. */
static inline void read_until(struct df_log_reader *r, uint64_t end, struct read_all *all)
{
        struct df_record records[64];
        int64_t until = dfk_now_ms() + WAIT_MS;

        while (df_log_position(r) < end) {
                size_t n;

                ok(df_log_poll(r, records, 64, &n, &err));
                for (size_t i = 0; i < n; i++)
                        keep_record(all, &records[i]);
                if (n == 0)
                        dfk_pause(1);
                if (dfk_now_ms() > until)
                        fail_msg("seed %" PRIu64 ": the reader stays at %" PRIu64
                                 ", the end is %" PRIu64,
                                 dice_seed, df_log_position(r), end);
        }
        all->position = df_log_position(r);
}

static inline struct read_all read_from(struct df_log *log, const char *topic, uint32_t partition,
                                        uint64_t from)
{
        struct df_log_reader *r = NULL;
        struct read_all all = {0};

        ok(df_log_reader_open(log, topic, partition, from, NULL, &r, &err));
        read_until(r, end_of(log, topic, partition), &all);
        df_log_reader_close(r);
        return all;
}

static inline void release_all(struct read_all *all)
{
        for (size_t i = 0; i < all->count; i++)
                free(all->list[i].value);
        free(all->list);
        *all = (struct read_all){0};
}

/* The values, each followed by a space. */
static inline const char *values_of(struct df_log *log, const char *topic, uint32_t partition)
{
        static char text[1024];
        struct read_all all = read_from(log, topic, partition, 0);

        text[0] = '\0';
        for (size_t i = 0; i < all.count; i++) {
                assert_true(strlen(text) + all.list[i].len + 2 < sizeof(text));
                (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s ",
                               all.list[i].value);
        }
        release_all(&all);
        return text;
}

/* The same once as much as wanted is there (see end_comes). */
static inline const char *values_come(struct df_log *log, const char *topic, uint32_t partition,
                                      const char *want)
{
        const char *values = values_of(log, topic, partition);

        for (int i = 0; i < 1000 && strlen(values) < strlen(want); i++) {
                (void)usleep(10000);
                values = values_of(log, topic, partition);
        }
        return values;
}

#define assert_values(log, topic, partition, want)                                                 \
        assert_string_equal(values_come(log, topic, partition, want), want)

/* ---- a client beside it ---- */

static inline rd_kafka_t *raw_client(rd_kafka_type_t type, const char *const (*settings)[2])
{
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        char text[256];
        rd_kafka_t *rk;

        assert_int_equal(rd_kafka_conf_set(conf, "bootstrap.servers", getenv("TEST_KAFKA"), text,
                                           sizeof(text)),
                         RD_KAFKA_CONF_OK);
        for (; settings && (*settings)[0]; settings++)
                if (rd_kafka_conf_set(conf, (*settings)[0], (*settings)[1], text, sizeof(text)) !=
                    RD_KAFKA_CONF_OK)
                        fail_msg("%s", text);
        rk = rd_kafka_new(type, conf, text, sizeof(text));
        if (!rk)
                fail_msg("%s", text);
        return rk;
}

/* The one answer of an administrative request, judged by fn; the queue and client go. */
struct admin {
        rd_kafka_t *rk;
        rd_kafka_queue_t *queue;
};

static inline struct admin admin_begin(void)
{
        struct admin a = {raw_client(RD_KAFKA_PRODUCER, NULL), NULL};

        a.queue = rd_kafka_queue_new(a.rk);
        return a;
}

static inline void admin_end(struct admin a)
{
        rd_kafka_event_t *ev = rd_kafka_queue_poll(a.queue, WAIT_MS);
        const rd_kafka_topic_result_t **r = NULL;
        size_t n = 0;

        assert_non_null(ev);
        if (rd_kafka_event_error(ev))
                fail_msg("%s", rd_kafka_event_error_string(ev));
        if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_CREATETOPICS_RESULT)
                r = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &n);
        else if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_DELETETOPICS_RESULT)
                r = rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(ev), &n);
        else if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_CREATEPARTITIONS_RESULT)
                r = rd_kafka_CreatePartitions_result_topics(
                        rd_kafka_event_CreatePartitions_result(ev), &n);
        for (size_t i = 0; i < n; i++)
                if (rd_kafka_topic_result_error(r[i]))
                        fail_msg("%s", rd_kafka_topic_result_error_string(r[i]));
        rd_kafka_event_destroy(ev);
        rd_kafka_queue_destroy(a.queue);
        rd_kafka_destroy(a.rk);
}

static inline char *full_name(const char *prefix, const char *topic)
{
        static char full[4][256];
        static unsigned n;
        char *ret = full[n++ % 4];

        (void)snprintf(ret, sizeof(full[0]), "%s%s", prefix, topic);
        return ret;
}

/* Until a broker says that the topic has so many partitions; 0 = that there is none. */
static inline void raw_wait_partitions(const char *full, int partitions)
{
        rd_kafka_t *rk = raw_client(RD_KAFKA_PRODUCER, NULL);
        int64_t until = dfk_now_ms() + WAIT_MS;
        int is = -1;

        while (is != partitions) {
                const struct rd_kafka_metadata *m;

                if (dfk_now_ms() > until)
                        fail_msg("%s has %d partitions, wanted are %d", full, is, partitions);
                assert_int_equal(rd_kafka_metadata(rk, 1, NULL, &m, WAIT_MS), 0);
                is = 0;
                for (int i = 0; i < m->topic_cnt; i++)
                        if (strcmp(m->topics[i].topic, full) == 0 && !m->topics[i].err)
                                is = m->topics[i].partition_cnt;
                rd_kafka_metadata_destroy(m);
                if (is != partitions)
                        dfk_pause(20);
        }
        rd_kafka_destroy(rk);
}

/* settings end with {NULL, NULL}; a later one of a name replaces an earlier one. */
static inline void raw_create(const char *full, int partitions, const char *const (*settings)[2])
{
        struct admin a = admin_begin();
        char text[256];
        rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(full, partitions, -1, text, sizeof(text));

        assert_non_null(t);
        for (; settings && (*settings)[0]; settings++)
                assert_int_equal(rd_kafka_NewTopic_set_config(t, (*settings)[0], (*settings)[1]),
                                 0);
        rd_kafka_CreateTopics(a.rk, &t, 1, NULL, a.queue);
        admin_end(a);
        rd_kafka_NewTopic_destroy(t);
        raw_wait_partitions(full, partitions);
}

static inline void raw_delete(const char *full)
{
        struct admin a = admin_begin();
        rd_kafka_DeleteTopic_t *t = rd_kafka_DeleteTopic_new(full);

        rd_kafka_DeleteTopics(a.rk, &t, 1, NULL, a.queue);
        admin_end(a);
        rd_kafka_DeleteTopic_destroy(t);
        raw_wait_partitions(full, 0);
}

static inline void raw_add_partitions(const char *full, size_t total)
{
        struct admin a = admin_begin();
        char text[256];
        rd_kafka_NewPartitions_t *p = rd_kafka_NewPartitions_new(full, total, text, sizeof(text));

        rd_kafka_CreatePartitions(a.rk, &p, 1, NULL, a.queue);
        admin_end(a);
        rd_kafka_NewPartitions_destroy(p);
        raw_wait_partitions(full, (int)total);
}

/* Records before the offset are gone, as if retention had come to them. */
static inline void raw_delete_before(const char *full, int partition, int64_t offset)
{
        struct admin a = admin_begin();
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_DeleteRecords_t *d;

        rd_kafka_topic_partition_list_add(list, full, partition)->offset = offset;
        d = rd_kafka_DeleteRecords_new(list);
        rd_kafka_DeleteRecords(a.rk, &d, 1, NULL, a.queue);
        admin_end(a);
        rd_kafka_DeleteRecords_destroy(d);
        rd_kafka_topic_partition_list_destroy(list);
}

/* A transactional producer; begin, send, then rd_kafka_commit_transaction or abort. */
static inline rd_kafka_t *raw_txn_producer(const char *id)
{
        const char *const settings[][2] = {
                {"transactional.id", id}, {"linger.ms", "0"}, {NULL, NULL}};
        rd_kafka_t *rk = raw_client(RD_KAFKA_PRODUCER, settings);
        rd_kafka_error_t *e = rd_kafka_init_transactions(rk, WAIT_MS);

        if (e)
                fail_msg("%s", rd_kafka_error_string(e));
        return rk;
}

static inline void raw_ok(rd_kafka_error_t *e)
{
        if (e)
                fail_msg("seed %" PRIu64 ": %s", dice_seed, rd_kafka_error_string(e));
}

static inline void raw_send(rd_kafka_t *rk, const char *full, int partition, const char *value)
{
        assert_int_equal(
                rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(full), RD_KAFKA_V_PARTITION(partition),
                                  RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                  RD_KAFKA_V_VALUE((void *)(uintptr_t)value, strlen(value)),
                                  RD_KAFKA_V_END),
                0);
}

/* Stored by the broker, not yet committed. */
static inline void raw_stored(rd_kafka_t *rk)
{
        assert_int_equal(rd_kafka_flush(rk, WAIT_MS), 0);
}

#endif
