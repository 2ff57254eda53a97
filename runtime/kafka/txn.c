/* txn.c - one partition's transactional producer (df/txn.h, K3, K7, K8, K13).
 *
 * Doubt: whatever was seen go wrong between begin and the end of commit (a lost connection, a
 *        retry,
 * a time-out). librdkafka's transactions keep their epoch from one to the next, so a request that
 * was delayed may complete a later transaction; after doubt the producer is replaced before the
 * next
 * begin, and the old one's late requests are fenced off. Replacing fences whoever has the id, so it
 * is done only while nobody else committed: an owner that lost its partition must not fence its
 * successor. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/trace.h"
#include "kafka_private.h"

#define SLOW_PART 4 /* a commit that takes a quarter of the time-out is in doubt, too */

struct dfk_txn {
        struct df_txn base;
        struct dfk_kafka *kafka;
        struct dfk_group *group; /* NULL: no members; offsets are kept under alone's name */
        char alone[DFK_KAFKA_NAME_MAX + 1];
        char topic[DFK_KAFKA_NAME_MAX + 1], id[DFK_KAFKA_NAME_MAX + 1];
        int32_t partition;
        rd_kafka_t *producer;
        rd_kafka_consumer_group_metadata_t *metadata;
        struct df_committed committed; /* as far as this owner knows */
        struct df_committed next;      /* of the open transaction */
        bool doubt;
        bool lost; /* DF_ELOST was answered: a new producer here would fence the successor */
        int64_t began_ms;
        rd_kafka_resp_err_t delivery; /* first failed record of the open transaction */
};

static const struct df_txn_ops txn_ops;

static struct dfk_txn *txn_of(struct df_txn *t)
{
        df_check(t->ops == &txn_ops);
        return (struct dfk_txn *)t;
}

static int32_t limit_ms(const struct dfk_txn *t)
{
        return t->kafka->options.transaction_timeout_ms;
}

/* ---- the producer ---- */

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
        struct dfk_txn *t = opaque;
        struct df_append *item = m->_private;

        (void)rk;
        if (m->err) {
                if (!t->delivery)
                        t->delivery = m->err;
                return;
        }
        item->ret_offset = (uint64_t)m->offset;
        item->ret_append_ms = 0;
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
        struct dfk_txn *t = opaque;

        (void)rk;
        t->doubt = true;
        df_trace(DF_DEBUG, "kafka", "txn=%s %s: %s", t->id,
                 rd_kafka_err2name((rd_kafka_resp_err_t)code), reason);
}

static int tune(rd_kafka_conf_t *conf, void *arg, struct df_error *err)
{
        const struct dfk_txn *t = arg;
        char ms[16];
        int rc = dfk_conf_set(conf, "transactional.id", t->id, err);

        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
        rd_kafka_conf_set_error_cb(conf, on_error);
        (void)snprintf(ms, sizeof(ms), "%d", (int)limit_ms(t));
        if (rc == 0)
                rc = dfk_conf_set(conf, "transaction.timeout.ms", ms, err);
        (void)snprintf(ms, sizeof(ms), "%d", (int)limit_ms(t) / 2);
        return rc < 0 ? rc : dfk_conf_set(conf, "message.timeout.ms", ms, err);
}

static void drop_producer(struct dfk_txn *t)
{
        if (!t->producer)
                return;
        (void)rd_kafka_purge(t->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_destroy(t->producer);
        t->producer = NULL;
}

/* The assignment is gone: the same bytes must not be tried again by this owner. */
static bool is_lost(rd_kafka_resp_err_t code)
{
        switch ((int)code) {
        case RD_KAFKA_RESP_ERR_ILLEGAL_GENERATION:
        case RD_KAFKA_RESP_ERR_UNKNOWN_MEMBER_ID:
        case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
        case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
        case RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
        case RD_KAFKA_RESP_ERR__FENCED:
        case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_ID_MAPPING:
                return true;
        default:
                return false;
        }
}

static int lost_if(struct dfk_txn *t, int rc)
{
        t->lost |= rc == DF_ELOST;
        return rc;
}

/* Takes e. unknown: what to answer when neither "aborted" nor "lost" is certain. */
static int fail(struct dfk_txn *t, rd_kafka_error_t *e, const char *what, int unknown,
                struct df_error *err)
{
        rd_kafka_resp_err_t code = rd_kafka_error_code(e);
        int rc = unknown;

        t->doubt = true;
        if (rd_kafka_error_is_fatal(e) || is_lost(code))
                rc = DF_ELOST;
        else if (rd_kafka_error_txn_requires_abort(e))
                rc = DF_EAGAIN;
        if (rc == DF_ELOST)
                atomic_fetch_add(&t->kafka->counts.lost, 1);
        if (code == RD_KAFKA_RESP_ERR__FENCED || code == RD_KAFKA_RESP_ERR_PRODUCER_FENCED)
                atomic_fetch_add(&t->kafka->counts.fenced, 1);
        (void)df_fail(err, rc, "%s of %s: %s (%s)", what, t->id, rd_kafka_error_string(e),
                      rd_kafka_error_name(e));
        rd_kafka_error_destroy(e);
        return lost_if(t, rc);
}

/* Call again while it may be, within the time-out and under the watchdog. */
#define UNTIL_DEFINITE(t, e, what, call)                                                           \
        do {                                                                                       \
                int64_t until_ = dfk_now_ms() + limit_ms(t);                                       \
                struct dfk_watch watch_;                                                           \
                                                                                                   \
                dfk_watch_begin(&watch_, what, (int64_t)2 * limit_ms(t));                          \
                while (((e) = (call)) && rd_kafka_error_is_retriable(e) &&                         \
                       dfk_now_ms() < until_) {                                                    \
                        (t)->doubt = true;                                                         \
                        rd_kafka_error_destroy(e);                                                 \
                        dfk_pause(20);                                                             \
                }                                                                                  \
                dfk_watch_end(&watch_);                                                            \
        } while (0)

static int make_producer(struct dfk_txn *t, struct df_error *err)
{
        rd_kafka_error_t *e;
        int rc;

        drop_producer(t);
        rc = dfk_client_new(t->kafka, DFK_TXN_PRODUCER, tune, t, t, &t->producer, err);
        if (rc < 0)
                return rc;
        UNTIL_DEFINITE(t, e, "init_transactions", rd_kafka_init_transactions(t->producer, 10000));
        t->doubt = false;
        return e ? fail(t, e, "init_transactions", DF_EAGAIN, err) : 0;
}

/* ---- the group, with this member or without any ---- */

static int read_committed(struct dfk_txn *t, struct df_committed *ret, struct df_error *err)
{
        if (t->group)
                return dfk_group_committed(t->group, t->topic, t->partition, ret, err);
        return dfk_look_committed(t->kafka, t->alone, t->topic, t->partition, ret, err);
}

static bool holds(struct dfk_txn *t)
{
        return !t->group || dfk_group_holds(t->group);
}

static bool same(const struct df_committed *a, const struct df_committed *b)
{
        return a->any == b->any && a->offset == b->offset && strcmp(a->metadata, b->metadata) == 0;
}

static int recycle(struct dfk_txn *t, struct df_error *err)
{
        struct df_committed now;
        int rc;

        if (!holds(t))
                return df_fail(err, DF_ELOST, "%s: the assignment is gone", t->id);
        rc = read_committed(t, &now, err);
        if (rc < 0)
                return rc;
        if (!same(&now, &t->committed))
                return df_fail(err, DF_ELOST, "%s: somebody else committed offset %llu", t->id,
                               (unsigned long long)now.offset);
        atomic_fetch_add(&t->kafka->counts.producers_replaced, 1);
        return make_producer(t, err);
}

/* ---- the port ---- */

static int refresh(struct dfk_txn *t, struct df_committed *ret, struct df_error *err)
{
        int rc;

        if (t->metadata)
                rd_kafka_consumer_group_metadata_destroy(t->metadata);
        t->metadata = t->group ? dfk_group_metadata(t->group)
                               : rd_kafka_consumer_group_metadata_new(t->alone);
        if (!t->metadata)
                return df_fail(err, DF_ELOST, "%s: this member has no assignment", t->id);
        rc = read_committed(t, &t->committed, err);
        if (rc == 0)
                *ret = t->committed;
        return rc;
}

static int txn_takeover(struct df_txn *base, struct df_committed *ret, struct df_error *err)
{
        struct dfk_txn *t = txn_of(base);
        int rc = make_producer(t, err);

        if (rc < 0)
                return rc;
        t->lost = false;
        return refresh(t, ret, err);
}

static int txn_keep(struct df_txn *base, struct df_committed *ret, struct df_error *err)
{
        return refresh(txn_of(base), ret, err);
}

static int txn_begin(struct df_txn *base, struct df_error *err)
{
        struct dfk_txn *t = txn_of(base);
        rd_kafka_error_t *e;
        int rc = 0;

        if (t->lost)
                return df_fail(err, DF_ELOST, "%s: lost before; close it (K7)", t->id);
        (void)rd_kafka_poll(t->producer, 0); /* what went wrong since the last one */
        if (t->doubt)
                rc = lost_if(t, recycle(t, err));
        if (rc < 0)
                return rc;
        t->delivery = RD_KAFKA_RESP_ERR_NO_ERROR;
        t->next = (struct df_committed){0};
        t->began_ms = dfk_now_ms();
        e = rd_kafka_begin_transaction(t->producer);
        return e ? fail(t, e, "begin_transaction", DF_ELOST, err) : 0;
}

static int txn_produce(struct df_txn *base, const char *topic, struct df_append *items,
                       size_t count, struct df_error *err)
{
        struct dfk_txn *t = txn_of(base);
        char full[DFK_KAFKA_NAME_MAX + 1];
        int rc = dfk_full_name(t->kafka, topic, full, err);

        for (size_t i = 0; rc == 0 && i < count; i++) {
                rd_kafka_resp_err_t code =
                        rd_kafka_producev(t->producer, RD_KAFKA_V_TOPIC(full),
                                          RD_KAFKA_V_PARTITION((int32_t)items[i].partition),
                                          RD_KAFKA_V_VALUE((void *)(uintptr_t)items[i].value.data,
                                                           items[i].value.len),
                                          RD_KAFKA_V_OPAQUE(&items[i]), RD_KAFKA_V_END);

                if (code == RD_KAFKA_RESP_ERR__QUEUE_FULL && !t->delivery &&
                    dfk_now_ms() - t->began_ms < limit_ms(t)) {
                        (void)rd_kafka_poll(t->producer, 50);
                        i--;
                        continue;
                }
                if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
                        rc = df_fail(err, DF_ELIMIT,
                                     "a record of %zu bytes to %s: the topic's "
                                     "max.message.bytes is smaller",
                                     items[i].value.len, full);
                else if (code)
                        rc = df_fail(err, is_lost(code) ? DF_ELOST : DF_EAGAIN, "%s to %s: %s",
                                     t->id, full, rd_kafka_err2str(code));
        }
        return lost_if(t, rc);
}

static int txn_offsets(struct df_txn *base, uint64_t offset, const char *metadata,
                       struct df_error *err)
{
        struct dfk_txn *t = txn_of(base);
        rd_kafka_topic_partition_list_t *list;
        rd_kafka_topic_partition_t *p;
        size_t len = strlen(metadata);
        rd_kafka_error_t *e;

        if (len > DF_TXN_METADATA_MAX)
                return df_fail(err, DF_ELIMIT, "metadata of %zu bytes, at most %d", len,
                               DF_TXN_METADATA_MAX);
        if (!dfk_is_printable(metadata, len))
                return df_fail(err, DF_EINVAL, "metadata of %s: printable ASCII alone", t->id);
        t->next.any = true;
        t->next.offset = offset;
        memcpy(t->next.metadata, metadata, len + 1);
        list = rd_kafka_topic_partition_list_new(1);
        p = rd_kafka_topic_partition_list_add(list, t->topic, t->partition);
        p->offset = (int64_t)offset;
        p->metadata = strdup(metadata); /* the list frees it */
        p->metadata_size = p->metadata ? len : 0;
        if (!p->metadata) {
                rd_kafka_topic_partition_list_destroy(list);
                return df_fail(err, DF_ENOMEM, "metadata");
        }
        UNTIL_DEFINITE(
                t, e, "send_offsets_to_transaction",
                rd_kafka_send_offsets_to_transaction(t->producer, list, t->metadata, limit_ms(t)));
        rd_kafka_topic_partition_list_destroy(list);
        return e ? fail(t, e, "send_offsets_to_transaction", DF_EAGAIN, err) : 0;
}

static int txn_commit(struct df_txn *base, struct df_error *err)
{
        struct dfk_txn *t = txn_of(base);
        rd_kafka_error_t *e;

        (void)rd_kafka_flush(t->producer, limit_ms(t) / 2); /* delivery reports tell the rest */
        if (t->delivery || rd_kafka_outq_len(t->producer) > 0) {
                t->doubt = true;
                return lost_if(t,
                               df_fail(err, is_lost(t->delivery) ? DF_ELOST : DF_EAGAIN,
                                       "%s: records were not taken: %s", t->id,
                                       t->delivery ? rd_kafka_err2str(t->delivery) : "time-out"));
        }
        UNTIL_DEFINITE(t, e, "commit_transaction",
                       rd_kafka_commit_transaction(t->producer, limit_ms(t)));
        if (e) /* a time-out: nobody knows */
                return fail(t, e, "commit_transaction", DF_ELOST, err);
        t->doubt |= dfk_now_ms() - t->began_ms > limit_ms(t) / SLOW_PART;
        t->committed = t->next;
        atomic_fetch_add(&t->kafka->counts.transactions, 1);
        return 0;
}

static int txn_abort(struct df_txn *base, struct df_error *err)
{
        struct dfk_txn *t = txn_of(base);
        rd_kafka_error_t *e;

        atomic_fetch_add(&t->kafka->counts.aborts, 1);
        t->doubt = true;
        UNTIL_DEFINITE(t, e, "abort_transaction",
                       rd_kafka_abort_transaction(t->producer, limit_ms(t)));
        return e ? fail(t, e, "abort_transaction", DF_ELOST, err) : 0;
}

static void txn_close(struct df_txn *base)
{
        struct dfk_txn *t = txn_of(base);

        drop_producer(t);
        if (t->metadata)
                rd_kafka_consumer_group_metadata_destroy(t->metadata);
        free(t);
}

static const struct df_txn_ops txn_ops = {
        .takeover = txn_takeover,
        .keep = txn_keep,
        .begin = txn_begin,
        .produce = txn_produce,
        .offsets = txn_offsets,
        .commit = txn_commit,
        .abort = txn_abort,
        .close = txn_close,
};

/* id: of the transactions, without the prefix. */
static int txn_new(struct df_log *log, const char *id, const char *topic, uint32_t partition,
                   struct dfk_txn **ret, struct df_error *err)
{
        struct dfk_txn *t = calloc(1, sizeof(*t));
        char full[DFK_KAFKA_NAME_MAX + 1];
        int rc, n;

        if (!t)
                return df_fail(err, DF_ENOMEM, "transactions of %s/%u", topic, partition);
        t->base.ops = &txn_ops;
        t->kafka = dfk_kafka_of(log);
        t->partition = (int32_t)partition;
        rc = dfk_full_name(t->kafka, topic, t->topic, err);
        if (rc == 0)
                rc = dfk_full_name(t->kafka, id, full, err);
        if (rc < 0) {
                free(t);
                return rc;
        }
        n = snprintf(t->id, sizeof(t->id), "%s-%u", full, partition);
        if (n < 0 || (size_t)n >= sizeof(t->id)) {
                free(t);
                return df_fail(err, DF_ELIMIT, "%s-%u: the transactional id is too long", full,
                               partition);
        }
        *ret = t;
        return 0;
}

/* Whoever works on a run fences whoever did before, with a group or alone. */
static int run_txn_new(struct df_log *log, const char *group, const char *topic, uint32_t partition,
                       struct dfk_txn **ret, struct df_error *err)
{
        char id[DFK_KAFKA_NAME_MAX + 1];
        int n = snprintf(id, sizeof(id), "%s-%s", group, topic);

        return n > 0 && (size_t)n < sizeof(id)
                       ? txn_new(log, id, topic, partition, ret, err)
                       : df_fail(err, DF_ELIMIT, "%s: the group's name is too long", group);
}

int df_kafka_txn_open(struct df_log *log, struct df_group *group, const char *topic,
                      uint32_t partition, struct df_txn **ret, struct df_error *err)
{
        const char *run = dfk_group_run(dfk_group_of(group));
        struct dfk_txn *t = NULL;
        int rc = run ? run_txn_new(log, run, topic, partition, &t, err)
                     : txn_new(log, topic, topic, partition, &t, err);

        if (rc < 0)
                return rc;
        t->group = dfk_group_of(group);
        *ret = &t->base;
        return 0;
}

int df_kafka_txn_open_alone(struct df_log *log, const char *group, const char *topic,
                            uint32_t partition, struct df_txn **ret, struct df_error *err)
{
        struct dfk_txn *t = NULL;
        int rc = run_txn_new(log, group, topic, partition, &t, err);

        if (rc == 0)
                rc = dfk_full_name(t->kafka, group, t->alone, err);
        if (rc < 0) {
                free(t);
                return rc;
        }
        *ret = &t->base;
        return 0;
}
