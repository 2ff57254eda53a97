/* broker_txn.c - the model broker's transaction coordinator.
 *
 * As with clients that know nothing of KIP-890's second part, the epoch of a producer changes at
 * InitProducerId alone: a late EndTxn completes whatever transaction it finds open. */
#include "broker_private.h"

#include <stdlib.h>

#define MARKERS_MAX_MS 2000

static struct dfi_txn *find(struct dfi_broker *b, const char *id)
{
        for (size_t i = 0; i < b->txn_count; i++)
                if (strcmp(b->txns[i]->id, id) == 0)
                        return b->txns[i];
        return NULL;
}

void dfi_txn_free(struct dfi_txn *t)
{
        free(t->parts);
        dfi_sim_free(t, sizeof(*t));
}

static bool prepared(const struct dfi_txn *t)
{
        return t->state == DFI_TXN_PREPARE_COMMIT || t->state == DFI_TXN_PREPARE_ABORT;
}

/* ---- markers: in each partition by itself, so that one is seen before the other ---- */

static void write_one(struct dfi_broker *b, struct dfi_txn *t, size_t i)
{
        const struct dfi_txn_part *at = &t->parts[i];
        struct dfi_ktopic *topic = dfi_ktopic_find(b, at->topic);

        dfi_store_marker(b, &topic->partitions[at->partition], t->pid,
                         t->state == DFI_TXN_PREPARE_COMMIT);
        t->parts[i] = t->parts[--t->part_count];
}

static void write_group(struct dfi_txn *t)
{
        if (t->group)
                dfi_group_settle(t->group, t->pid, t->state == DFI_TXN_PREPARE_COMMIT);
        t->group = NULL;
}

static void complete_if_done(struct dfi_txn *t)
{
        if (t->part_count == 0 && !t->group)
                t->state = t->state == DFI_TXN_PREPARE_COMMIT ? DFI_TXN_COMMITTED : DFI_TXN_ABORTED;
}

static void finish(struct dfi_broker *b, struct dfi_txn *t)
{
        while (t->part_count > 0)
                write_one(b, t, t->part_count - 1);
        write_group(t);
        complete_if_done(t);
}

static void some_markers(struct dfi_broker *b, struct dfi_txn *t)
{
        if (t->part_count > 0 && df_sim_random_chance(&b->random, 500))
                write_one(b, t, df_sim_random_below(&b->random, t->part_count));
        if (df_sim_random_chance(&b->random, 200))
                write_group(t);
        complete_if_done(t);
}

static void decide(struct dfi_broker *b, struct dfi_txn *t, bool commit)
{
        const bool late = !b->sim->net_paused && df_sim_random_chance(&b->random, b->net.markers);

        t->state = commit ? DFI_TXN_PREPARE_COMMIT : DFI_TXN_PREPARE_ABORT;
        t->due_ms = b->clock_ms + (late ? df_sim_random_between(&b->random, 1, MARKERS_MAX_MS) : 0);
        if (!late)
                finish(b, t);
}

void dfi_txns_tick(struct dfi_broker *b)
{
        for (size_t i = 0; i < b->txn_count; i++) {
                struct dfi_txn *t = b->txns[i];

                if (t->state == DFI_TXN_ONGOING &&
                    b->clock_ms > t->begun_ms + DF_SIM_TRANSACTION_MS) {
                        t->epoch++; /* its owner hears of it at its next request */
                        decide(b, t, false);
                }
                if (prepared(t) && b->clock_ms >= t->due_ms)
                        finish(b, t);
                else if (prepared(t))
                        some_markers(b, t);
        }
}

bool df_sim_kafka_settled(const struct df_sim *sim)
{
        const struct dfi_broker *b = sim->broker;

        for (size_t i = 0; b && i < b->txn_count; i++)
                if (b->txns[i]->state == DFI_TXN_ONGOING || prepared(b->txns[i]))
                        return false;
        return true;
}

/* ---- requests ---- */

enum dfi_answer_code dfi_txn_verify(struct dfi_broker *b, const struct dfi_request *q,
                                    const char *topic, uint32_t partition)
{
        const struct dfi_txn *t = find(b, q->id);

        if (!t || t->pid != q->pid || t->epoch != q->epoch)
                return DFI_K_FENCED;
        if (t->state != DFI_TXN_ONGOING)
                return DFI_K_INVALID_STATE;
        if (topic[0] == '\0')
                return t->group ? DFI_K_OK : DFI_K_INVALID_STATE;
        for (size_t i = 0; i < t->part_count; i++)
                if (strcmp(t->parts[i].topic, topic) == 0 && t->parts[i].partition == partition)
                        return DFI_K_OK;
        return DFI_K_INVALID_STATE;
}

static void init_producer(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a)
{
        struct dfi_txn *t = find(b, q->id);

        if (q->id[0] == '\0') {
                a->pid = b->next_id++;
                return;
        }
        if (!t) {
                t = dfi_sim_alloc(sizeof(*t));
                dfi_name_copy(t->id, sizeof(t->id), q->id);
                t->pid = b->next_id++;
                b->txns = dfi_sim_grow(b->txns, b->txn_count, &b->txn_cap, sizeof(*b->txns));
                b->txns[b->txn_count++] = t;
        }
        if (t->state == DFI_TXN_ONGOING) {
                t->epoch++; /* fences the owner before its transaction is gone */
                decide(b, t, false);
                a->code = DFI_K_CONCURRENT;
                return;
        }
        if (prepared(t)) {
                a->code = DFI_K_CONCURRENT;
                return;
        }
        t->epoch++;
        t->state = DFI_TXN_EMPTY;
        a->pid = t->pid;
        a->epoch = t->epoch;
}

static void add(struct dfi_broker *b, struct dfi_txn *t, const struct dfi_request *q)
{
        if (t->state != DFI_TXN_ONGOING) {
                t->state = DFI_TXN_ONGOING;
                t->begun_ms = b->clock_ms;
        }
        if (q->api == DFI_ADD_OFFSETS) {
                t->group = dfi_kgroup_get(b, q->group);
                return;
        }
        if (dfi_txn_verify(b, q, q->topic, q->partition) == DFI_K_OK)
                return;
        t->parts = dfi_sim_grow(t->parts, t->part_count, &t->part_cap, sizeof(*t->parts));
        dfi_name_copy(t->parts[t->part_count].topic, sizeof(t->parts->topic), q->topic);
        t->parts[t->part_count++].partition = q->partition;
}

static enum dfi_answer_code end(struct dfi_broker *b, struct dfi_txn *t, bool commit)
{
        switch (t->state) {
        case DFI_TXN_ONGOING:
                decide(b, t, commit);
                return DFI_K_OK;
        case DFI_TXN_PREPARE_COMMIT:
                return commit ? DFI_K_CONCURRENT : DFI_K_INVALID_STATE;
        case DFI_TXN_PREPARE_ABORT:
                return commit ? DFI_K_INVALID_STATE : DFI_K_CONCURRENT;
        case DFI_TXN_COMMITTED:
                return commit ? DFI_K_OK : DFI_K_INVALID_STATE;
        case DFI_TXN_ABORTED:
                return commit ? DFI_K_INVALID_STATE : DFI_K_OK;
        case DFI_TXN_EMPTY:
                break;
        }
        return DFI_K_INVALID_STATE;
}

void dfi_do_txn(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a)
{
        struct dfi_txn *t = find(b, q->id);

        if (q->api == DFI_INIT_PRODUCER_ID) {
                init_producer(b, q, a);
                return;
        }
        if (!t || t->pid != q->pid || t->epoch != q->epoch)
                a->code = DFI_K_FENCED;
        else if (q->api == DFI_END_TXN)
                a->code = end(b, t, q->commit);
        else if (prepared(t))
                a->code = DFI_K_CONCURRENT;
        else
                add(b, t, q);
}
