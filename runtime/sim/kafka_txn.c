/* kafka_txn.c - one partition's transactional producer over the model broker, as
 * runtime/kafka/txn.c: every request is sent until the answer is definite; after any doubt the
 * producer is replaced before the next begin, while nobody else has committed; a commit that may or
 * may not have been is DF_ELOST. */
#include "broker_private.h"

#include <stdio.h>
#include <stdlib.h>

#define BATCH_MAX 8

struct kafka_part { /* a partition that this producer writes to */
        char topic[DF_TOPIC_NAME_MAX + 1];
        uint32_t partition;
        uint64_t next; /* sequence number */
        bool added;    /* to the open transaction */
};
struct kafka_txn {
        struct df_txn base;
        struct dfi_sim_at at;
        struct df_group *group;
        char topic[DF_TOPIC_NAME_MAX + 1], id[DFI_SIM_NAME_MAX];
        uint32_t partition;
        struct dfi_request as; /* producer and member: what every request begins with */
        struct kafka_part *parts;
        size_t part_count, part_cap;
        struct df_committed committed; /* as far as this owner knows */
        struct df_committed next;      /* of the open transaction */
        bool begun;                    /* the coordinator may know of it */
        bool doubt;
};

static const struct df_txn_ops txn_ops;

static struct kafka_txn *txn_of(struct df_txn *t)
{
        df_check(t->ops == &txn_ops);
        return (struct kafka_txn *)t;
}

static bool reckless(const struct kafka_txn *t)
{
        return t->at.sim->broker->reckless;
}

static bool is_lost(enum dfi_answer_code code)
{
        return code == DFI_K_FENCED || code == DFI_K_ILLEGAL_GENERATION ||
               code == DFI_K_UNKNOWN_MEMBER || code == DFI_K_FENCED_INSTANCE;
}

/* unknown: what it is when no definite answer came. A refusal is abortable, or the owner's end. */
static int ask(struct kafka_txn *t, struct dfi_request *q, enum dfi_api api, int unknown,
               struct dfi_answer *a, struct df_error *err)
{
        int rc;

        q->api = api;
        rc = dfi_net_until(&t->at, q, a, &t->doubt, err);
        if (rc == DF_ECRASH)
                return rc;
        if (rc == 0 && a->code == DFI_K_OK)
                return 0;
        t->doubt = true;
        if (rc)
                return df_fail(err, unknown, "%s: no answer", t->id);
        return df_fail(err, is_lost(a->code) ? DF_ELOST : unknown,
                       "%s: the broker refuses with code %d", t->id, (int)a->code);
}

static int make_producer(struct kafka_txn *t, struct df_error *err)
{
        struct dfi_request q = t->as;
        struct dfi_answer a;
        int rc = ask(t, &q, DFI_INIT_PRODUCER_ID, DF_EAGAIN, &a, err);

        if (rc)
                return rc;
        t->as.pid = a.pid;
        t->as.epoch = a.epoch;
        t->part_count = 0; /* sequences count from 0 again */
        t->begun = t->doubt = false;
        return 0;
}

static bool same(const struct df_committed *a, const struct df_committed *b)
{
        return a->any == b->any && a->offset == b->offset && strcmp(a->metadata, b->metadata) == 0;
}

static int recycle(struct kafka_txn *t, struct df_error *err)
{
        struct df_committed now;
        int rc;

        if (!dfi_client_holds(t->group))
                return df_fail(err, DF_ELOST, "%s: the assignment is gone", t->id);
        rc = dfi_client_committed(t->group, t->topic, t->partition, &now, err);
        if (rc)
                return rc;
        if (!same(&now, &t->committed))
                return df_fail(err, DF_ELOST, "%s: somebody else committed", t->id);
        return make_producer(t, err);
}

static int refresh(struct kafka_txn *t, struct df_committed *ret, struct df_error *err)
{
        int rc;

        if (!dfi_client_metadata(t->group, &t->as))
                return df_fail(err, DF_ELOST, "%s: this member has no assignment", t->id);
        rc = dfi_client_committed(t->group, t->topic, t->partition, &t->committed, err);
        if (rc == 0)
                *ret = t->committed;
        return rc;
}

static int txn_takeover(struct df_txn *base, struct df_committed *ret, struct df_error *err)
{
        struct kafka_txn *t = txn_of(base);
        int rc = make_producer(t, err);

        return rc ? rc : refresh(t, ret, err);
}

static int txn_keep(struct df_txn *base, struct df_committed *ret, struct df_error *err)
{
        return refresh(txn_of(base), ret, err);
}

static int txn_begin(struct df_txn *base, struct df_error *err)
{
        struct kafka_txn *t = txn_of(base);
        int rc = t->doubt && !reckless(t) ? recycle(t, err) : 0;

        if (rc)
                return rc;
        for (size_t i = 0; i < t->part_count; i++)
                t->parts[i].added = false;
        t->next = (struct df_committed){0};
        t->begun = false;
        return 0;
}

static struct kafka_part *part_of(struct kafka_txn *t, const char *topic, uint32_t partition)
{
        struct kafka_part *p;

        for (size_t i = 0; i < t->part_count; i++)
                if (t->parts[i].partition == partition && strcmp(t->parts[i].topic, topic) == 0)
                        return &t->parts[i];
        t->parts = dfi_sim_grow(t->parts, t->part_count, &t->part_cap, sizeof(*t->parts));
        p = &t->parts[t->part_count++];
        *p = (struct kafka_part){.partition = partition};
        dfi_name_copy(p->topic, sizeof(p->topic), topic);
        return p;
}

static int add_part(struct kafka_txn *t, struct kafka_part *p, struct df_error *err)
{
        struct dfi_request q = t->as;
        struct dfi_answer a;
        int rc;

        if (p->added)
                return 0;
        t->begun = true;
        dfi_name_copy(q.topic, sizeof(q.topic), p->topic);
        q.partition = p->partition;
        rc = ask(t, &q, DFI_ADD_PARTITIONS, DF_EAGAIN, &a, err);
        p->added = rc == 0;
        return rc;
}

/* A run of items of one partition: one batch, one sequence number each record. */
static int produce_batch(struct kafka_txn *t, const char *topic, struct df_append *items,
                         size_t count, struct df_error *err)
{
        struct kafka_part *p = part_of(t, topic, items[0].partition);
        struct df_bytes values[BATCH_MAX];
        struct dfi_request q = t->as;
        struct dfi_answer a;
        int rc = add_part(t, p, err);

        if (rc)
                return rc;
        for (size_t i = 0; i < count; i++)
                values[i] = items[i].value;
        dfi_name_copy(q.topic, sizeof(q.topic), topic);
        q.partition = p->partition;
        q.values = values;
        q.value_count = count;
        q.sequence = p->next;
        rc = ask(t, &q, DFI_PRODUCE, DF_EAGAIN, &a, err);
        if (rc)
                return rc;
        p->next += count;
        for (size_t i = 0; i < count; i++) {
                items[i].ret_offset = a.offset + i;
                items[i].ret_append_ms = 0; /* as with librdkafka: it is not told */
        }
        return 0;
}

static int txn_produce(struct df_txn *base, const char *topic, struct df_append *items,
                       size_t count, struct df_error *err)
{
        struct kafka_txn *t = txn_of(base);
        int rc = 0;

        for (size_t i = 0, n; rc == 0 && i < count; i += n) {
                const size_t max = 1 + df_sim_random_below(&t->at.sim->broker->random, BATCH_MAX);

                for (n = 1; n < max && i + n < count; n++)
                        if (items[i + n].partition != items[i].partition)
                                break;
                rc = produce_batch(t, topic, items + i, n, err);
        }
        return rc;
}

static int txn_offsets(struct df_txn *base, uint64_t offset, const char *metadata,
                       struct df_error *err)
{
        struct kafka_txn *t = txn_of(base);
        struct dfi_request q = t->as;
        struct dfi_answer a;
        int rc;

        if (strlen(metadata) > DF_TXN_METADATA_MAX)
                return df_fail(err, DF_ELIMIT, "metadata of %zu bytes, at most %d",
                               strlen(metadata), DF_TXN_METADATA_MAX);
        t->next.any = true;
        t->next.offset = offset;
        dfi_name_copy(t->next.metadata, sizeof(t->next.metadata), metadata);
        t->begun = true;
        rc = ask(t, &q, DFI_ADD_OFFSETS, DF_EAGAIN, &a, err);
        if (rc)
                return rc;
        dfi_name_copy(q.topic, sizeof(q.topic), t->topic);
        q.partition = t->partition;
        q.offset = offset;
        dfi_name_copy(q.metadata, sizeof(q.metadata), metadata);
        return ask(t, &q, DFI_TXN_OFFSET_COMMIT, DF_EAGAIN, &a, err);
}

/* The seeded bug of df_sim_kafka_reckless. */
static int commit_recklessly(struct kafka_txn *t, const struct dfi_request *q, struct df_error *err)
{
        struct dfi_answer a;
        int rc = dfi_net_call(&t->at, q, &a, err);

        return rc == DF_EDOUBT ? df_fail(err, DF_EAGAIN, "%s: taken for aborted", t->id) : rc;
}

static int txn_commit(struct df_txn *base, struct df_error *err)
{
        struct kafka_txn *t = txn_of(base);
        struct dfi_request q = t->as;
        struct dfi_answer a;
        int rc;

        q.commit = true;
        q.api = DFI_END_TXN;
        if (reckless(t))
                return commit_recklessly(t, &q, err);
        rc = ask(t, &q, DFI_END_TXN, DF_ELOST, &a, err);
        if (rc == 0)
                t->committed = t->next;
        return rc;
}

static int txn_abort(struct df_txn *base, struct df_error *err)
{
        struct kafka_txn *t = txn_of(base);
        struct dfi_request q = t->as;
        struct dfi_answer a;

        t->doubt = true;
        if (!t->begun)
                return 0;
        if (reckless(t)) {
                q.api = DFI_END_TXN;
                (void)dfi_net_call(&t->at, &q, &a, NULL);
                return 0;
        }
        return ask(t, &q, DFI_END_TXN, DF_ELOST, &a, err);
}

static void txn_close(struct df_txn *base)
{
        struct kafka_txn *t = txn_of(base);

        t->at.sim->handles--;
        free(t->parts);
        dfi_sim_free(t, sizeof(*t));
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

int df_sim_kafka_txn_open(struct df_log *log, struct df_group *group, const char *topic,
                          uint32_t partition, struct df_txn **ret, struct df_error *err)
{
        struct kafka_txn *t = dfi_sim_alloc(sizeof(*t));
        int n = snprintf(t->id, sizeof(t->id), "%s-%u", topic, partition);

        if (n < 0 || (size_t)n >= sizeof(t->id)) {
                free(t);
                return df_fail(err, DF_ELIMIT, "%s-%u: the transactional id is too long", topic,
                               partition);
        }
        t->base.ops = &txn_ops;
        t->at = dfi_kafka_at(log);
        t->group = group;
        t->partition = partition;
        dfi_name_copy(t->topic, sizeof(t->topic), topic);
        dfi_name_copy(t->as.id, sizeof(t->as.id), t->id);
        t->at.sim->handles++;
        *ret = &t->base;
        return 0;
}
