/* group.c - membership of a consumer group, without fetching (df/group.h).
 *
 * librdkafka's consumer is used for its group protocol alone. A change comes as a rebalance event;
 * the assignment is answered with an empty list, so that nothing is fetched while the member stays
 * one. Until it is answered (done) the group's next generation waits for this member, and its
 * heartbeats go on.
 *
 * The group metadata is captured when the assignment is delivered, before it is answered: asked
 * later, librdkafka tells the generation of that later moment, and a worker that lost its partition
 * would commit under its successor's (K13). Kept as bytes, so that each task has a copy. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/trace.h"
#include "kafka_private.h"

#define LEAVE_TIMEOUT_MS 120000
#define POLL_INTERVAL_MS "600000" /* a restore may take minutes */

struct dfk_group {
        struct df_group base;
        struct dfk_kafka *kafka;
        char group[DFK_KAFKA_NAME_MAX + 1];
        char instance[DFK_KAFKA_NAME_MAX + 1]; /* with the prefix; of a run's member its name */
        char run[DFK_KAFKA_NAME_MAX + 1];      /* the group without the prefix, of such; or "" */
        rd_kafka_t *rk;                        /* NULL: to be made at the next poll */
        rd_kafka_queue_t *queue;
        enum df_group_change pending;
        bool leaving; /* the consumer goes when the pending change is done */
        bool holds;
        struct df_partition *partitions;
        size_t count;
        void *metadata;
        size_t metadata_len;

        pthread_mutex_t lock; /* of what any thread may ask for */
        rd_kafka_topic_partition_list_t *topics;
        bool subscribe, rejoin;
};

static const struct df_group_ops group_ops;

struct dfk_group *dfk_group_of(struct df_group *g)
{
        df_check(g->ops == &group_ops);
        return (struct dfk_group *)g;
}

/* ---- the consumer ---- */

static int tune(rd_kafka_conf_t *conf, void *arg, struct df_error *err)
{
        const struct dfk_group *g = arg;
        char ms[16];
        int rc = dfk_conf_set(conf, "group.id", g->group, err);

        (void)snprintf(ms, sizeof(ms), "%d", (int)g->kafka->options.session_timeout_ms);
        rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR);
        if (rc == 0) /* what the broker calls a member that is not static begins with client.id */
                rc = dfk_conf_set(conf, g->run[0] ? "client.id" : "group.instance.id", g->instance,
                                  err);
        if (rc == 0)
                rc = dfk_conf_set(conf, "partition.assignment.strategy", "range", err);
        if (rc == 0)
                rc = dfk_conf_set(conf, "session.timeout.ms", ms, err);
        (void)snprintf(ms, sizeof(ms), "%d", (int)g->kafka->options.session_timeout_ms / 5);
        if (rc == 0)
                rc = dfk_conf_set(conf, "heartbeat.interval.ms", ms, err);
        return rc < 0 ? rc : dfk_conf_set(conf, "max.poll.interval.ms", POLL_INTERVAL_MS, err);
}

/* A static member does not leave: its partitions wait for it. One of a run says that it goes. */
static void drop_consumer(struct dfk_group *g)
{
        struct dfk_watch watch;

        if (g->queue)
                rd_kafka_queue_destroy(g->queue);
        g->queue = NULL;
        if (g->rk && !g->run[0]) {
                rd_kafka_destroy_flags(g->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
        } else if (g->rk) {
                dfk_watch_begin(&watch, "leave group", LEAVE_TIMEOUT_MS);
                rd_kafka_destroy(g->rk);
                dfk_watch_end(&watch);
        }
        g->rk = NULL;
        g->holds = false;
}

static int make_consumer(struct dfk_group *g, struct df_error *err)
{
        int rc;

        if (g->rk)
                return 0;
        rc = dfk_client_new(g->kafka, DFK_GROUP_MEMBER, tune, g, NULL, &g->rk, err);
        if (rc < 0)
                return rc;
        (void)rd_kafka_poll_set_consumer(g->rk);
        g->queue = rd_kafka_queue_get_consumer(g->rk);
        pthread_mutex_lock(&g->lock);
        g->subscribe = g->topics != NULL;
        pthread_mutex_unlock(&g->lock);
        return 0;
}

static int follow_subscription(struct dfk_group *g, struct df_error *err)
{
        rd_kafka_topic_partition_list_t *topics = NULL;
        rd_kafka_resp_err_t code;

        pthread_mutex_lock(&g->lock);
        if (g->subscribe)
                topics = rd_kafka_topic_partition_list_copy(g->topics);
        g->subscribe = false;
        pthread_mutex_unlock(&g->lock);
        if (!topics)
                return 0;
        code = rd_kafka_subscribe(g->rk, topics);
        rd_kafka_topic_partition_list_destroy(topics);
        return code ? dfk_fail(err, code, "group %s: subscribe", g->group) : 0;
}

/* ---- changes ---- */

static int take_assignment(struct dfk_group *g, const rd_kafka_topic_partition_list_t *list,
                           struct df_error *err)
{
        size_t prefix = strlen(g->kafka->options.prefix);

        free(g->partitions);
        g->count = 0;
        g->partitions = calloc((size_t)list->cnt + 1, sizeof(*g->partitions));
        if (!g->partitions)
                return df_fail(err, DF_ENOMEM, "%d assigned partitions", list->cnt);
        for (int i = 0; i < list->cnt; i++) {
                struct df_partition *p = &g->partitions[g->count];

                if (strlen(list->elems[i].topic) < prefix + 1)
                        continue;
                (void)snprintf(p->topic, sizeof(p->topic), "%s", list->elems[i].topic + prefix);
                p->partition = (uint32_t)list->elems[i].partition;
                g->count++;
        }
        return 0;
}

/* "CGMDv2:", the generation, ...: without one, or without a member id, a commit would be checked
 * against nothing by the broker. */
static bool metadata_names_member(const struct dfk_group *g)
{
        static const char magic[] = "CGMDv2:";
        const char *b = g->metadata;
        size_t at = sizeof(magic) - 1 + sizeof(int32_t);
        int32_t generation;

        if (g->metadata_len < at + 2 || memcmp(b, magic, sizeof(magic) - 1) != 0)
                return false;
        memcpy(&generation, b + sizeof(magic) - 1, sizeof(generation));
        at += strnlen(b + at, g->metadata_len - at) + 1; /* the group's name */
        return generation >= 0 && at < g->metadata_len && b[at] != '\0';
}

static bool capture_metadata(struct dfk_group *g)
{
        rd_kafka_consumer_group_metadata_t *m = rd_kafka_consumer_group_metadata(g->rk);
        rd_kafka_error_t *e;

        free(g->metadata); /* librdkafka's allocator is libc's */
        g->metadata = NULL;
        g->metadata_len = 0;
        if (!m)
                return false;
        e = rd_kafka_consumer_group_metadata_write(m, &g->metadata, &g->metadata_len);
        rd_kafka_consumer_group_metadata_destroy(m);
        if (e)
                rd_kafka_error_destroy(e);
        return !e && metadata_names_member(g);
}

rd_kafka_consumer_group_metadata_t *dfk_group_metadata(struct dfk_group *g)
{
        rd_kafka_consumer_group_metadata_t *m = NULL;
        rd_kafka_error_t *e;

        if (!g->metadata)
                return NULL;
        e = rd_kafka_consumer_group_metadata_read(&m, g->metadata, g->metadata_len);
        if (!e)
                return m;
        rd_kafka_error_destroy(e);
        return NULL;
}

const char *dfk_group_run(const struct dfk_group *g)
{
        return g->run[0] ? g->run : NULL;
}

bool dfk_group_holds(struct dfk_group *g)
{
        return g->rk && g->holds && !rd_kafka_assignment_lost(g->rk);
}

static void answer(struct dfk_group *g)
{
        rd_kafka_resp_err_t code;

        if (g->pending == DF_GROUP_ASSIGN) {
                rd_kafka_topic_partition_list_t *none = rd_kafka_topic_partition_list_new(0);

                code = rd_kafka_assign(g->rk, none);
                rd_kafka_topic_partition_list_destroy(none);
        } else {
                code = rd_kafka_assign(g->rk, NULL);
        }
        if (code)
                df_trace(DF_WARN, "kafka", "group=%s assign: %s", g->group, rd_kafka_err2str(code));
}

static int on_rebalance(struct dfk_group *g, rd_kafka_event_t *ev, struct df_group_event *ret,
                        struct df_error *err)
{
        rd_kafka_resp_err_t code = rd_kafka_event_error(ev);

        if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
                int rc = take_assignment(g, rd_kafka_event_topic_partition_list(ev), err);

                if (rc < 0)
                        return rc;
                if (!capture_metadata(g)) { /* the group has moved on already */
                        g->count = 0;
                        df_trace(DF_WARN, "kafka", "group=%s an assignment without a generation",
                                 g->group);
                }
                g->holds = g->count > 0;
                g->pending = DF_GROUP_ASSIGN;
                *ret = (struct df_group_event){DF_GROUP_ASSIGN, g->partitions, g->count};
                return 0;
        }
        g->pending = rd_kafka_assignment_lost(g->rk) ? DF_GROUP_LOST : DF_GROUP_REVOKE;
        ret->change = g->pending;
        return 0;
}

static int on_event(struct dfk_group *g, rd_kafka_event_t *ev, struct df_group_event *ret,
                    struct df_error *err)
{
        if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_REBALANCE)
                return on_rebalance(g, ev, ret, err);
        if (rd_kafka_event_type(ev) == RD_KAFKA_EVENT_ERROR)
                df_trace(DF_DEBUG, "kafka", "group=%s %s", g->group,
                         rd_kafka_event_error_string(ev));
        return 0;
}

/* A consumer that had a fatal error says so when it is asked; the code of its error event does not
 * tell (librdkafka 2.0.2 gives the cause there, as for what heals by itself). */
static int check_fatal(struct dfk_group *g, struct df_group_event *ret, struct df_error *err)
{
        char text[256];
        rd_kafka_resp_err_t code = rd_kafka_fatal_error(g->rk, text, sizeof(text));

        if (!code)
                return 0;
        if (code == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID)
                return df_fail(err, DF_EFENCED,
                               "another process joined group %s as %s: give each process a name of "
                               "its own (--instance)",
                               g->group, g->instance);
        df_trace(DF_WARN, "kafka", "group=%s the member starts again: %s", g->group, text);
        g->pending = DF_GROUP_LOST;
        g->leaving = true;
        ret->change = DF_GROUP_LOST;
        return 0;
}

/* What a rejoin begins with: the tasks commit while the old membership is still good. */
static bool begin_rejoin(struct dfk_group *g, struct df_group_event *ret)
{
        bool rejoin;

        pthread_mutex_lock(&g->lock);
        rejoin = g->rejoin;
        g->rejoin = false;
        pthread_mutex_unlock(&g->lock);
        if (!rejoin || !g->rk)
                return false;
        atomic_fetch_add(&g->kafka->counts.rejoins, 1);
        g->pending = g->holds && !rd_kafka_assignment_lost(g->rk) ? DF_GROUP_REVOKE : DF_GROUP_LOST;
        g->leaving = true;
        ret->change = g->pending;
        return true;
}

static int group_poll(struct df_group *base, int timeout_ms, struct df_group_event *ret,
                      struct df_error *err)
{
        struct dfk_group *g = dfk_group_of(base);
        rd_kafka_event_t *ev;
        int rc;

        df_check(g->pending == DF_GROUP_NONE);
        *ret = (struct df_group_event){.change = DF_GROUP_NONE};
        if (begin_rejoin(g, ret))
                return 0;
        rc = make_consumer(g, err);
        if (rc == 0)
                rc = check_fatal(g, ret, err);
        if (rc < 0 || ret->change != DF_GROUP_NONE)
                return rc;
        rc = follow_subscription(g, err);
        if (rc < 0)
                return rc;
        ev = rd_kafka_queue_poll(g->queue, timeout_ms);
        if (!ev)
                return 0;
        rc = on_event(g, ev, ret, err);
        rd_kafka_event_destroy(ev);
        return rc;
}

static void group_done(struct df_group *base)
{
        struct dfk_group *g = dfk_group_of(base);

        df_check(g->pending != DF_GROUP_NONE);
        if (g->leaving)
                drop_consumer(g);
        else
                answer(g);
        if (g->pending != DF_GROUP_ASSIGN)
                g->holds = false;
        g->leaving = false;
        g->pending = DF_GROUP_NONE;
}

static int group_subscribe(struct df_group *base, const char *const *topics, size_t count,
                           struct df_error *err)
{
        struct dfk_group *g = dfk_group_of(base);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)count);
        char full[DFK_KAFKA_NAME_MAX + 1];

        for (size_t i = 0; i < count; i++) {
                int rc = dfk_full_name(g->kafka, topics[i], full, err);

                if (rc < 0) {
                        rd_kafka_topic_partition_list_destroy(list);
                        return rc;
                }
                rd_kafka_topic_partition_list_add(list, full, RD_KAFKA_PARTITION_UA);
        }
        pthread_mutex_lock(&g->lock);
        if (g->topics)
                rd_kafka_topic_partition_list_destroy(g->topics);
        g->topics = list;
        g->subscribe = true;
        pthread_mutex_unlock(&g->lock);
        return 0;
}

static void group_rejoin(struct df_group *base)
{
        struct dfk_group *g = dfk_group_of(base);

        pthread_mutex_lock(&g->lock);
        g->rejoin = true;
        pthread_mutex_unlock(&g->lock);
}

static void group_close(struct df_group *base)
{
        struct dfk_group *g = dfk_group_of(base);

        drop_consumer(g);
        if (g->topics)
                rd_kafka_topic_partition_list_destroy(g->topics);
        pthread_mutex_destroy(&g->lock);
        free(g->metadata);
        free(g->partitions);
        free(g);
}

static const struct df_group_ops group_ops = {
        .subscribe = group_subscribe,
        .poll = group_poll,
        .done = group_done,
        .rejoin = group_rejoin,
        .close = group_close,
};

static int open_member(struct df_log *log, const char *group, const char *run, const char *name,
                       struct df_group **ret, struct df_error *err)
{
        struct dfk_group *g = calloc(1, sizeof(*g));
        int rc;

        if (!g)
                return df_fail(err, DF_ENOMEM, "group %s", group);
        g->base.ops = &group_ops;
        g->kafka = dfk_kafka_of(log);
        pthread_mutex_init(&g->lock, NULL);
        rc = dfk_full_name(g->kafka, group, g->group, err);
        if (rc == 0)
                rc = dfk_full_name(g->kafka, name, g->instance, err);
        (void)snprintf(g->run, sizeof(g->run), "%s", run);
        if (rc == 0)
                rc = make_consumer(g, err);
        if (rc < 0) {
                group_close(&g->base);
                return rc;
        }
        *ret = &g->base;
        return 0;
}

int df_kafka_group_open(struct df_log *log, const char *group, const char *instance,
                        struct df_group **ret, struct df_error *err)
{
        return open_member(log, group, "", instance, ret, err);
}

int df_kafka_group_open_run(struct df_log *log, const char *group, const char *name,
                            struct df_group **ret, struct df_error *err)
{
        return open_member(log, group, group, name, ret, err);
}

int dfk_group_committed(struct dfk_group *g, const char *full_topic, int32_t partition,
                        struct df_committed *ret, struct df_error *err)
{
        if (!g->rk)
                return df_fail(err, DF_ELOST, "group %s: this member left", g->group);
        return dfk_read_committed(g->rk, g->group, full_topic, partition, ret, err);
}
