/* broker_log.c - the model broker's partitions: records, transaction markers, what is stable. */
#include "broker_private.h"

#include <stdlib.h>

struct dfi_ktopic *dfi_ktopic_find(struct dfi_broker *b, const char *name)
{
        for (size_t i = 0; i < b->topic_count; i++)
                if (strcmp(b->topics[i]->info.name, name) == 0)
                        return b->topics[i];
        return NULL;
}

struct dfi_ktopic *dfi_ktopic_create(struct dfi_broker *b, const char *name, uint32_t partitions)
{
        struct dfi_ktopic *t = dfi_sim_alloc(sizeof(*t));
        size_t i = b->topic_count;

        dfi_name_copy(t->info.name, sizeof(t->info.name), name);
        t->info.partitions = partitions;
        t->info.generation = df_sim_random_u64(&b->sim->random) | 1;
        t->partitions = dfi_sim_alloc(partitions * sizeof(*t->partitions));
        for (uint32_t p = 0; p < partitions; p++)
                t->partitions[p].last_append_ms = INT64_MIN;
        b->topics = dfi_sim_grow(b->topics, i, &b->topic_cap, sizeof(struct dfi_ktopic *));
        for (; i > 0 && strcmp(b->topics[i - 1]->info.name, name) > 0; i--)
                b->topics[i] = b->topics[i - 1];
        b->topics[i] = t;
        b->topic_count++;
        return t;
}

static void forget_seen(struct dfi_kpartition *p)
{
        dfi_sim_free(p->seen, p->seen_cap * sizeof(*p->seen));
        p->seen = NULL;
        p->seen_cap = 0;
}

void dfi_ktopic_free(struct dfi_ktopic *t)
{
        for (uint32_t i = 0; i < t->info.partitions; i++) {
                struct dfi_kpartition *p = &t->partitions[i];

                for (size_t e = 0; e < p->count; e++)
                        free((void *)(uintptr_t)p->entries[e].value.data);
                free(p->entries);
                free(p->sequences);
                forget_seen(p);
        }
        free(t->partitions);
        dfi_sim_free(t, sizeof(*t));
}

static void advance_stable(struct dfi_kpartition *p)
{
        while (p->stable < p->count && p->entries[p->stable].state != DFI_ENTRY_OPEN)
                p->stable++;
}

uint64_t dfi_store_entry(struct dfi_broker *b, struct dfi_kpartition *p, enum dfi_entry_state state,
                         uint64_t pid, struct df_bytes value, int64_t *ret_append_ms)
{
        const int64_t now_ms = b->sim->now_ms;

        forget_seen(p);
        if (now_ms > p->last_append_ms)
                p->last_append_ms = now_ms;
        p->entries = dfi_sim_grow(p->entries, p->count, &p->cap, sizeof(*p->entries));
        p->entries[p->count] = (struct dfi_entry){
                .state = state,
                .pid = pid,
                .append_ms = p->last_append_ms,
                .value = df_bytes(dfi_sim_copy(value), value.len),
        };
        *ret_append_ms = p->last_append_ms;
        p->count++;
        advance_stable(p);
        return p->count - 1;
}

void dfi_store_marker(struct dfi_broker *b, struct dfi_kpartition *p, uint64_t pid, bool commit)
{
        int64_t append_ms;

        for (size_t i = p->stable; i < p->count; i++)
                if (p->entries[i].state == DFI_ENTRY_OPEN && p->entries[i].pid == pid)
                        p->entries[i].state = commit ? DFI_ENTRY_COMMITTED : DFI_ENTRY_ABORTED;
        (void)dfi_store_entry(b, p, DFI_ENTRY_MARKER, pid, df_bytes(NULL, 0), &append_ms);
}

static struct dfi_sequence *sequence_of(struct dfi_kpartition *p, uint64_t pid, uint32_t epoch)
{
        struct dfi_sequence *s = NULL;

        for (size_t i = 0; i < p->sequence_count; i++)
                if (p->sequences[i].pid == pid)
                        s = &p->sequences[i];
        if (!s) {
                p->sequences = dfi_sim_grow(p->sequences, p->sequence_count, &p->sequence_cap,
                                            sizeof(*p->sequences));
                s = &p->sequences[p->sequence_count++];
                *s = (struct dfi_sequence){.pid = pid, .epoch = epoch};
        }
        if (s->epoch < epoch) /* a new epoch counts from 0 */
                *s = (struct dfi_sequence){.pid = pid, .epoch = epoch};
        return s;
}

static void store_values(struct dfi_broker *b, struct dfi_kpartition *p, enum dfi_entry_state state,
                         const struct dfi_request *q, struct dfi_answer *a)
{
        a->offset = p->count;
        for (size_t i = 0; i < q->value_count; i++)
                (void)dfi_store_entry(b, p, state, q->pid, q->values[i], &a->append_ms);
}

void dfi_do_produce(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a)
{
        struct dfi_ktopic *t = dfi_ktopic_find(b, q->topic);
        struct dfi_kpartition *p;
        struct dfi_sequence *s;

        df_check(t != NULL && q->partition < t->info.partitions);
        p = &t->partitions[q->partition];
        if (q->id[0]) {
                a->code = dfi_txn_verify(b, q, q->topic, q->partition);
                if (a->code != DFI_K_OK)
                        return;
        }
        s = sequence_of(p, q->pid, q->epoch);
        if (q->epoch < s->epoch) {
                a->code = DFI_K_FENCED;
        } else if (q->sequence == s->next) {
                store_values(b, p, q->id[0] ? DFI_ENTRY_OPEN : DFI_ENTRY_COMMITTED, q, a);
                s->last = s->next;
                s->last_offset = a->offset;
                s->last_append_ms = a->append_ms;
                s->next += q->value_count;
        } else if (q->sequence == s->last && s->next > s->last) { /* it is there already */
                a->offset = s->last_offset;
                a->append_ms = s->last_append_ms;
        } else {
                a->code = DFI_K_OUT_OF_ORDER;
        }
}

void dfi_broker_clock_restart(struct dfi_broker *b)
{
        for (size_t i = 0; i < b->topic_count; i++)
                for (uint32_t p = 0; p < b->topics[i]->info.partitions; p++)
                        b->topics[i]->partitions[p].last_append_ms = INT64_MIN;
}

const struct df_record *dfi_broker_records(struct dfi_broker *b, const char *topic,
                                           uint32_t partition, size_t *ret_count)
{
        struct dfi_ktopic *t = dfi_ktopic_find(b, topic);
        struct dfi_kpartition *p;
        size_t n = 0;

        *ret_count = 0;
        if (!t || partition >= t->info.partitions)
                return NULL;
        p = &t->partitions[partition];
        forget_seen(p);
        p->seen_cap = p->count + 1;
        p->seen = dfi_sim_alloc(p->seen_cap * sizeof(*p->seen));
        for (size_t i = 0; i < p->stable; i++)
                if (p->entries[i].state == DFI_ENTRY_COMMITTED)
                        p->seen[n++] = (struct df_record){.offset = i,
                                                          .append_ms = p->entries[i].append_ms,
                                                          .value = p->entries[i].value};
        *ret_count = n;
        return p->seen;
}
