/* broker_group.c - the model broker's group coordinator: members, generations, offsets.
 *
 * The classic protocol with static members. The coordinator assigns by range itself: with one
 * assignor it makes no difference which member does it. */
#include "broker_private.h"

#include <stdlib.h>

#define SESSION_MS DF_SIM_SESSION_MS
#define REBALANCE_MS (3 * SESSION_MS)

struct dfi_kgroup *dfi_kgroup_get(struct dfi_broker *b, const char *name)
{
        struct dfi_kgroup *g;

        for (size_t i = 0; i < b->group_count; i++)
                if (strcmp(b->groups[i]->name, name) == 0)
                        return b->groups[i];
        g = dfi_sim_alloc(sizeof(*g));
        dfi_name_copy(g->name, sizeof(g->name), name);
        b->groups = dfi_sim_grow(b->groups, b->group_count, &b->group_cap, sizeof(*b->groups));
        b->groups[b->group_count++] = g;
        return g;
}

void dfi_kgroup_free(struct dfi_kgroup *g)
{
        free(g->members);
        free(g->offsets);
        dfi_sim_free(g, sizeof(*g));
}

/* ---- offsets ---- */

static struct dfi_offset *offset_of(struct dfi_kgroup *g, const char *topic, uint32_t partition,
                                    uint64_t pid)
{
        for (size_t i = 0; i < g->offset_count; i++) {
                struct dfi_offset *o = &g->offsets[i];

                if (o->partition == partition && o->pid == pid && strcmp(o->topic, topic) == 0)
                        return o;
        }
        return NULL;
}

static struct dfi_offset *offset_make(struct dfi_kgroup *g, const char *topic, uint32_t partition,
                                      uint64_t pid)
{
        struct dfi_offset *o = offset_of(g, topic, partition, pid);

        if (o)
                return o;
        g->offsets = dfi_sim_grow(g->offsets, g->offset_count, &g->offset_cap, sizeof(*g->offsets));
        o = &g->offsets[g->offset_count++];
        *o = (struct dfi_offset){.partition = partition, .pid = pid};
        dfi_name_copy(o->topic, sizeof(o->topic), topic);
        return o;
}

void dfi_group_settle(struct dfi_kgroup *g, uint64_t pid, bool commit)
{
        for (size_t i = 0; i < g->offset_count;) {
                struct dfi_offset o = g->offsets[i];

                if (o.pid != pid) {
                        i++;
                        continue;
                }
                g->offsets[i] = g->offsets[--g->offset_count];
                if (!commit)
                        continue;
                o.pid = 0;
                *offset_make(g, o.topic, o.partition, 0) = o;
        }
}

static bool pending(const struct dfi_kgroup *g, const char *topic, uint32_t partition)
{
        for (size_t i = 0; i < g->offset_count; i++)
                if (g->offsets[i].pid && g->offsets[i].partition == partition &&
                    strcmp(g->offsets[i].topic, topic) == 0)
                        return true;
        return false;
}

static void fetch(struct dfi_kgroup *g, const struct dfi_request *q, struct dfi_answer *a)
{
        const struct dfi_offset *o = offset_of(g, q->topic, q->partition, 0);

        if (pending(g, q->topic, q->partition)) { /* RequireStable (KIP-447) */
                a->code = DFI_K_UNSTABLE;
                return;
        }
        a->committed.any = o != NULL;
        if (!o)
                return;
        a->committed.offset = o->offset;
        dfi_name_copy(a->committed.metadata, sizeof(a->committed.metadata), o->metadata);
}

bool df_sim_kafka_committed(struct df_sim *sim, const char *group, const char *topic,
                            uint32_t partition, struct df_committed *ret)
{
        struct dfi_request q = {.partition = partition};
        struct dfi_answer a = {0};

        dfi_name_copy(q.topic, sizeof(q.topic), topic);
        fetch(dfi_kgroup_get(dfi_broker(sim), group), &q, &a);
        *ret = a.committed;
        return a.code == DFI_K_OK;
}

/* ---- members ---- */

static struct dfi_member *member_named(struct dfi_kgroup *g, const char *instance)
{
        for (size_t i = 0; i < g->member_count; i++)
                if (strcmp(g->members[i].instance, instance) == 0)
                        return &g->members[i];
        return NULL;
}

static enum dfi_answer_code check(struct dfi_kgroup *g, const struct dfi_request *q,
                                  struct dfi_member **ret)
{
        *ret = member_named(g, q->instance);
        if (!*ret)
                return DFI_K_UNKNOWN_MEMBER;
        return (*ret)->id == q->member ? DFI_K_OK : DFI_K_FENCED_INSTANCE;
}

static void prepare(struct dfi_broker *b, struct dfi_kgroup *g)
{
        if (g->preparing)
                return;
        g->preparing = true;
        g->due_ms = b->clock_ms + REBALANCE_MS;
        for (size_t i = 0; i < g->member_count; i++)
                g->members[i].joined = false;
}

static void drop_member(struct dfi_broker *b, struct dfi_kgroup *g, size_t i)
{
        memmove(&g->members[i], &g->members[i + 1],
                (g->member_count - i - 1) * sizeof(*g->members));
        g->member_count--;
        prepare(b, g);
}

/* The sessions of members that waited for the others begin now. */
static void complete(struct dfi_broker *b, struct dfi_kgroup *g)
{
        if (!g->preparing)
                return;
        for (size_t i = 0; i < g->member_count; i++)
                if (!g->members[i].joined)
                        return;
        g->preparing = false;
        g->generation++;
        for (size_t i = 0; i < g->member_count; i++)
                g->members[i].seen_ms = b->clock_ms;
}

static bool expired(const struct dfi_broker *b, const struct dfi_kgroup *g,
                    const struct dfi_member *m)
{
        return !(g->preparing && m->joined) && b->clock_ms > m->seen_ms + SESSION_MS;
}

void dfi_groups_tick(struct dfi_broker *b)
{
        for (size_t n = 0; n < b->group_count; n++) {
                struct dfi_kgroup *g = b->groups[n];

                for (size_t i = g->member_count; i-- > 0;)
                        if (expired(b, g, &g->members[i]))
                                drop_member(b, g, i);
                if (g->preparing && b->clock_ms > g->due_ms)
                        for (size_t i = g->member_count; i-- > 0;)
                                if (!g->members[i].joined)
                                        drop_member(b, g, i);
                complete(b, g);
        }
}

static bool has_topic(const struct dfi_member *m, const char *topic)
{
        for (size_t i = 0; i < m->topics.count; i++)
                if (strcmp(m->topics.names[i], topic) == 0)
                        return true;
        return false;
}

/* Range: each topic by itself, its partitions in runs over its members by name. */
static void assign(struct dfi_broker *b, struct dfi_kgroup *g, const struct dfi_member *m,
                   struct dfi_answer *a)
{
        size_t cap = 0;

        for (size_t t = 0; t < m->topics.count; t++) {
                const struct dfi_ktopic *topic = dfi_ktopic_find(b, m->topics.names[t]);
                uint32_t members = 0, mine = 0, each, more, from, count;

                for (size_t i = 0; i < g->member_count; i++) {
                        if (&g->members[i] == m)
                                mine = members;
                        members += has_topic(&g->members[i], m->topics.names[t]);
                }
                if (!topic)
                        continue;
                each = topic->info.partitions / members;
                more = topic->info.partitions % members;
                from = mine * each + (mine < more ? mine : more);
                count = each + (mine < more);
                for (uint32_t p = from; p < from + count; p++) {
                        a->partitions = dfi_sim_grow(a->partitions, a->partition_count, &cap,
                                                     sizeof(*a->partitions));
                        a->partitions[a->partition_count].partition = p;
                        dfi_name_copy(a->partitions[a->partition_count++].topic,
                                      sizeof(a->partitions->topic), m->topics.names[t]);
                }
        }
}

static struct dfi_member *add_member(struct dfi_broker *b, struct dfi_kgroup *g,
                                     const char *instance)
{
        size_t i = g->member_count;

        prepare(b, g);
        g->members = dfi_sim_grow(g->members, i, &g->member_cap, sizeof(*g->members));
        for (; i > 0 && strcmp(g->members[i - 1].instance, instance) > 0; i--)
                g->members[i] = g->members[i - 1];
        g->members[i] = (struct dfi_member){.id = b->next_id++};
        dfi_name_copy(g->members[i].instance, sizeof(g->members[i].instance), instance);
        g->member_count++;
        return &g->members[i];
}

static bool same_topics(const struct dfi_topics *a, const struct dfi_topics *b)
{
        if (a->count != b->count)
                return false;
        for (size_t i = 0; i < a->count; i++)
                if (strcmp(a->names[i], b->names[i]) != 0)
                        return false;
        return true;
}

static void join(struct dfi_broker *b, struct dfi_kgroup *g, const struct dfi_request *q,
                 struct dfi_answer *a)
{
        struct dfi_member *m = member_named(g, q->instance);

        if (m && q->member && m->id != q->member) {
                a->code = DFI_K_FENCED_INSTANCE;
                return;
        }
        if (!m && q->member) {
                a->code = DFI_K_UNKNOWN_MEMBER;
                return;
        }
        if (!m)
                m = add_member(b, g, q->instance);
        else if (!q->member) /* started again: the same place, a new id */
                m->id = b->next_id++;
        if (!same_topics(&m->topics, &q->topics))
                prepare(b, g);
        m->topics = q->topics;
        m->seen_ms = b->clock_ms;
        m->joined = true;
        complete(b, g);
        a->member = m->id;
        a->generation = g->generation;
        if (g->preparing)
                a->code = DFI_K_WAIT;
        else
                assign(b, g, m, a);
}

static enum dfi_answer_code heartbeat(struct dfi_broker *b, struct dfi_kgroup *g,
                                      const struct dfi_request *q)
{
        struct dfi_member *m;
        enum dfi_answer_code code = check(g, q, &m);

        if (code != DFI_K_OK)
                return code;
        if (q->generation != g->generation)
                return DFI_K_ILLEGAL_GENERATION;
        m->seen_ms = b->clock_ms;
        return g->preparing ? DFI_K_REBALANCE : DFI_K_OK;
}

/* Membership and generation are checked, ownership is not: as in Kafka. */
static enum dfi_answer_code commit_offset(struct dfi_broker *b, struct dfi_kgroup *g,
                                          const struct dfi_request *q)
{
        struct dfi_member *m;
        enum dfi_answer_code code = check(g, q, &m);
        struct dfi_offset *o;

        if (code != DFI_K_OK)
                return code;
        if (q->generation != g->generation)
                return DFI_K_ILLEGAL_GENERATION;
        code = dfi_txn_verify(b, q, "", 0);
        if (code != DFI_K_OK)
                return code;
        o = offset_make(g, q->topic, q->partition, q->pid);
        o->offset = q->offset;
        dfi_name_copy(o->metadata, sizeof(o->metadata), q->metadata);
        return DFI_K_OK;
}

void dfi_do_group(struct dfi_broker *b, const struct dfi_request *q, struct dfi_answer *a)
{
        struct dfi_kgroup *g = dfi_kgroup_get(b, q->group);

        if (q->api == DFI_OFFSET_FETCH)
                fetch(g, q, a);
        else if (q->api == DFI_TXN_OFFSET_COMMIT)
                a->code = commit_offset(b, g, q);
        else if (q->api == DFI_JOIN_GROUP)
                join(b, g, q, a);
        else
                a->code = heartbeat(b, g, q);
}
