/* kafka_group.c - membership over the model broker, as runtime/kafka/group.c: a background thread
 * sends heartbeats and notes what they bring; poll tells it, one change at a time. */
#include "broker_private.h"

#include <stdlib.h>

#define BEAT_MS (DF_SIM_SESSION_MS / 5)

enum client_state {
        CLIENT_OUT,    /* joins at the next poll */
        CLIENT_MEMBER, /* has an assignment */
};

struct dfi_client {
        struct df_group base;
        struct dfi_sim_at at;
        enum client_state state;
        struct dfi_request as; /* group, instance, topics, and the member's id; 0 = none yet */
        int64_t next_beat_ms;
        bool rebalance, lost, fenced; /* heard in the background */
        enum df_group_change pending;
        bool leaving; /* the member goes when the pending change is done */
        bool rejoin;
        bool holds;
        bool captured;
        uint64_t captured_member, captured_generation;
        struct df_partition *partitions; /* owned */
};

static const struct df_group_ops group_ops;

static struct dfi_client *client_of(struct df_group *g)
{
        df_check(g->ops == &group_ops);
        return (struct dfi_client *)g;
}

/* ---- in the background ---- */

static void hear(struct dfi_client *c, enum dfi_answer_code code)
{
        if (code == DFI_K_REBALANCE)
                c->rebalance = true;
        else if (code == DFI_K_FENCED_INSTANCE)
                c->fenced = true;
        else if (code != DFI_K_OK)
                c->lost = true;
        if (code == DFI_K_UNKNOWN_MEMBER)
                c->as.member = 0;
}

static void beat(struct dfi_broker *b, struct dfi_client *c)
{
        struct dfi_request q = c->as;
        struct dfi_answer a;

        if (c->state != CLIENT_MEMBER || c->lost || c->fenced || b->clock_ms < c->next_beat_ms)
                return;
        c->next_beat_ms = b->clock_ms + BEAT_MS;
        q.api = DFI_HEARTBEAT;
        if (dfi_net_background(b, &q, &a))
                hear(c, a.code);
}

void dfi_clients_beat(struct dfi_broker *b)
{
        for (size_t i = 0; i < b->client_count; i++)
                if (dfi_sim_alive(&b->clients[i]->at) &&
                    !df_sim_paused(b->sim, b->clients[i]->at.process))
                        beat(b, b->clients[i]);
}

/* ---- changes ---- */

static void leave(struct dfi_client *c)
{
        c->state = CLIENT_OUT;
        c->as.member = 0;
        c->rebalance = c->lost = c->holds = false;
}

static void assigned(struct dfi_client *c, struct dfi_answer *a, struct df_group_event *ret)
{
        free(c->partitions);
        c->partitions = a->partitions;
        c->as.generation = a->generation;
        c->state = CLIENT_MEMBER;
        c->rebalance = c->lost = false;
        c->next_beat_ms = 0;
        c->captured = true;
        c->captured_member = a->member;
        c->captured_generation = a->generation;
        c->holds = a->partition_count > 0;
        c->pending = DF_GROUP_ASSIGN;
        *ret = (struct df_group_event){DF_GROUP_ASSIGN, c->partitions, a->partition_count};
}

static int refuse_fenced(const struct dfi_client *c, struct df_error *err)
{
        return df_fail(err, DF_EFENCED, "another process joined group %s as %s", c->as.group,
                       c->as.instance);
}

/* One request; what it waits for is looked at by the next poll. */
static int join(struct dfi_client *c, struct df_group_event *ret, struct df_error *err)
{
        struct dfi_request q = c->as;
        struct dfi_answer a;
        int rc;

        if (c->as.topics.count == 0)
                return 0;
        q.api = DFI_JOIN_GROUP;
        rc = dfi_net_call(&c->at, &q, &a, err);
        if (rc == DF_EDOUBT || rc == DF_EAGAIN)
                return 0; /* the client tries again by itself */
        if (rc)
                return rc;
        if (a.code == DFI_K_FENCED_INSTANCE)
                return refuse_fenced(c, err);
        c->as.member = a.member; /* 0: unknown, it is a new one */
        if (a.code == DFI_K_OK)
                assigned(c, &a, ret);
        return 0;
}

static bool begin_rejoin(struct dfi_client *c, struct df_group_event *ret)
{
        if (!c->rejoin)
                return false;
        c->rejoin = false;
        c->pending = dfi_client_holds(&c->base) ? DF_GROUP_REVOKE : DF_GROUP_LOST;
        c->leaving = true;
        ret->change = c->pending;
        return true;
}

static int group_poll(struct df_group *base, int timeout_ms, struct df_group_event *ret,
                      struct df_error *err)
{
        struct dfi_client *c = client_of(base);

        (void)timeout_ms;
        df_check(c->pending == DF_GROUP_NONE);
        *ret = (struct df_group_event){.change = DF_GROUP_NONE};
        if (!dfi_sim_alive(&c->at))
                return df_fail(err, DF_ECRASH, "process %u has crashed", c->at.process);
        if (begin_rejoin(c, ret))
                return 0;
        if (c->fenced)
                return refuse_fenced(c, err);
        if (c->state == CLIENT_OUT)
                return join(c, ret, err);
        if (c->lost || c->rebalance) {
                c->pending = c->lost ? DF_GROUP_LOST : DF_GROUP_REVOKE;
                ret->change = c->pending;
        }
        return 0;
}

static void group_done(struct df_group *base)
{
        struct dfi_client *c = client_of(base);

        df_check(c->pending != DF_GROUP_NONE);
        if (c->leaving)
                leave(c);
        else if (c->pending != DF_GROUP_ASSIGN)
                c->state = CLIENT_OUT; /* and back under the same id */
        if (c->pending != DF_GROUP_ASSIGN)
                c->holds = c->rebalance = c->lost = false;
        c->leaving = false;
        c->pending = DF_GROUP_NONE;
}

static int group_subscribe(struct df_group *base, const char *const *topics, size_t count,
                           struct df_error *err)
{
        struct dfi_client *c = client_of(base);
        struct dfi_topics next = {.count = count};

        if (count > DFI_TOPICS_MAX)
                return df_fail(err, DF_ELIMIT, "%zu topics; the model takes %d", count,
                               DFI_TOPICS_MAX);
        for (size_t i = 0; i < count; i++)
                dfi_name_copy(next.names[i], sizeof(next.names[i]), topics[i]);
        if (c->state == CLIENT_MEMBER && memcmp(&next, &c->as.topics, sizeof(next)) != 0)
                c->rebalance = true;
        c->as.topics = next;
        return 0;
}

static void group_rejoin(struct df_group *base)
{
        client_of(base)->rejoin = true;
}

static void group_close(struct df_group *base)
{
        struct dfi_client *c = client_of(base);
        struct dfi_broker *b = c->at.sim->broker;

        for (size_t i = 0; i < b->client_count; i++)
                if (b->clients[i] == c)
                        b->clients[i] = b->clients[--b->client_count];
        c->at.sim->handles--;
        free(c->partitions);
        dfi_sim_free(c, sizeof(*c));
}

static const struct df_group_ops group_ops = {
        .subscribe = group_subscribe,
        .poll = group_poll,
        .done = group_done,
        .rejoin = group_rejoin,
        .close = group_close,
};

int df_sim_kafka_group_open(struct df_log *log, const char *group, const char *instance,
                            struct df_group **ret, struct df_error *err)
{
        struct dfi_client *c = dfi_sim_alloc(sizeof(*c));
        struct dfi_broker *b;

        (void)err;
        c->base.ops = &group_ops;
        c->at = dfi_kafka_at(log);
        dfi_name_copy(c->as.group, sizeof(c->as.group), group);
        dfi_name_copy(c->as.instance, sizeof(c->as.instance), instance);
        b = c->at.sim->broker;
        b->clients = dfi_sim_grow(b->clients, b->client_count, &b->client_cap, sizeof(*b->clients));
        b->clients[b->client_count++] = c;
        c->at.sim->handles++;
        *ret = &c->base;
        return 0;
}

/* ---- for kafka_txn.c ---- */

bool dfi_client_metadata(struct df_group *g, struct dfi_request *ret)
{
        const struct dfi_client *c = client_of(g);

        if (!c->captured)
                return false;
        memcpy(ret->group, c->as.group, sizeof(ret->group));
        memcpy(ret->instance, c->as.instance, sizeof(ret->instance));
        ret->member = c->captured_member;
        ret->generation = c->captured_generation;
        return true;
}

bool dfi_client_holds(struct df_group *g)
{
        const struct dfi_client *c = client_of(g);

        return c->holds && !c->lost && !c->fenced;
}

int dfi_client_committed(struct df_group *g, const char *topic, uint32_t partition,
                         struct df_committed *ret, struct df_error *err)
{
        struct dfi_client *c = client_of(g);
        struct dfi_request q = {.api = DFI_OFFSET_FETCH, .partition = partition};
        struct dfi_answer a;
        bool again;
        int rc;

        memcpy(q.group, c->as.group, sizeof(q.group));
        dfi_name_copy(q.topic, sizeof(q.topic), topic);
        rc = dfi_net_until(&c->at, &q, &a, &again, err);
        if (rc)
                return rc == DF_EDOUBT ? df_fail(err, DF_EAGAIN, "no committed offset of %s/%u",
                                                 topic, partition)
                                       : rc;
        *ret = a.committed;
        return 0;
}
