/* work.c - a task for each partition of the range, until all are done (runs.h).
 *
 * The same sessions, operators and worker pool as the realtime job; what differs is the range and
 * the names of the outputs. Who owns a partition is decided by the run's lock or, where the work is
 * shared, by its group: then a partition is done when what the group has committed says so, whoever
 * did it. */
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "df/rocksdb.h"
#include "jobs/common/task.h"
#include "jobs/runs/runs.h"

#define LOOK_MS 100
#define CREATE_WAIT_MS 30000
/* Between commits of an open run: nobody waits for its rows. It is what a crash makes a run repeat,
 * and ids wait in memory so long. */
#define OPEN_MIN_MS 3000
#define OFFSETS_MS 250 /* between looks at what the group has committed */

struct work;
struct part {
        struct work *w;
        uint32_t index;
        char name[DF_TOPIC_NAME_MAX + 16]; /* "events/3" */
        char dir[PATH_MAX], store[PATH_MAX];
};

/* How far it is; of a shared run as far as it is committed. */
struct reach {
        uint32_t done; /* partitions */
        uint64_t offsets;
        uint64_t k[DF_PARTITIONS_MAX];
};

struct work {
        const struct df_config *c;
        const struct ad_replay_logs *logs;
        struct df_log *log, *source;
        struct ad_replay *run;
        struct ad_replay_names names;
        struct ad_prices *prices;
        struct ad_params params;
        struct df_log_writer *writers[AD_OUT_BILL_COUNT]; /* file log only */
        struct part *parts;
        struct df_workers *pool;
        struct df_kafka_offsets *offsets; /* NULL: not shared */
        struct reach committed;           /* when they were looked at last */
        int64_t looked_ms;
};

static bool is_shared(const struct work *w)
{
        return w->logs->share != AD_REPLAY_ALONE;
}

static int step(void *arg, const char *name, struct df_error *err)
{
        return df_failpoint(((const struct part *)arg)->name, name, err);
}

static int open_state(void *arg, struct df_group *group, struct df_session_ports *ports,
                      struct df_error *err)
{
        const struct part *p = arg;
        struct df_rocksdb_options o = {.store_dir = p->store[0] ? p->store : NULL};
        int rc = df_rocksdb_ckpt_open(p->dir, &o, &ports->ckpt, err);

        if (rc == 0 && group)
                rc = df_kafka_txn_open(p->w->log, group, p->w->run->pin.topic.name, p->index,
                                       &ports->txn, err);
        else if (rc == 0 && df_kafka_is(p->w->log))
                rc = df_kafka_txn_open_alone(p->w->log, p->w->names.group,
                                             p->w->run->pin.topic.name, p->index, &ports->txn, err);
        return rc;
}

/* A cluster needs a moment until every broker knows a new topic. */
static int create_topic(struct work *w, const char *topic, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + CREATE_WAIT_MS;

        for (;;) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};
                int rc = df_log_topic_create(w->log, topic, w->run->pin.topic.partitions, err);

                if (rc != DF_EAGAIN || df_process_stopping() || df_monotonic_ms() > until)
                        return rc;
                (void)poll(&p, 1, LOOK_MS);
        }
}

static int open_outputs(struct work *w, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < w->run->kind->outputs; i++) {
                rc = create_topic(w, w->names.topic[i], err);
                if (rc == 0 && !df_kafka_is(w->log))
                        rc = df_log_writer_open(w->log, w->names.topic[i], &w->writers[i], err);
        }
        return rc;
}

static void fill_part(struct work *w, uint32_t index)
{
        struct part *p = &w->parts[index];

        p->w = w;
        p->index = index;
        (void)snprintf(p->name, sizeof(p->name), "%s/%u", w->run->pin.topic.name, index);
        (void)snprintf(p->dir, sizeof(p->dir), "%s/state/%u", w->run->dir, index);
        if (w->logs->stored && w->run->store[0])
                (void)snprintf(p->store, sizeof(p->store), "%s/%u", w->run->store, index);
}

static void fill_task(struct work *w, struct part *p, struct df_worker_task *ret)
{
        const struct ad_replay_pin *pin = &w->run->pin;
        const struct ad_run_kind *kind = w->run->kind;
        const char *topics[AD_OUT_BILL_COUNT];
        struct df_task_config *c = &ret->config;

        *ret = (struct df_worker_task){.name = p->name, .open_state = open_state, .open_arg = p};
        for (size_t i = 0; i < kind->outputs; i++)
                topics[i] = w->names.topic[i];
        ad_task_fill(w->c, &pin->topic, p->index, &w->params, topics, c);
        c->config = w->run->config;
        if (ad_topic_is_import(pin->topic.name)) {
                c->rules.bounded = true;
                c->control = ad_control;
        }
        c->chain = kind->chain;
        c->chain_length = *kind->chain_length;
        for (size_t i = AD_OUT_COUNT; i < kind->outputs; i++)
                c->outputs[i] = (struct df_output_config){.topic = topics[i],
                                                          .partitions = pin->topic.partitions};
        c->output_count = kind->outputs;
        c->range = (struct df_range){.given = true,
                                     .open = kind->open,
                                     .from = pin->span[p->index].from,
                                     .to = pin->span[p->index].to};
        ret->ports.log = w->source;
        ret->ports.consumer = w->names.group;
        ret->ports.step = step;
        ret->ports.step_arg = p;
        memcpy(ret->ports.writers, w->writers, sizeof(w->writers));
}

/* ---- the group of a shared run ---- */

static int open_group(void *arg, uint32_t worker, struct df_group **ret, struct df_error *err)
{
        const struct work *w = arg;
        char name[96];

        (void)snprintf(name, sizeof(name), "%s-%u", df_config_text(w->c, "instance"), worker);
        return df_kafka_group_open_run(w->log, w->names.group, name, ret, err);
}

static int task_of(void *arg, const struct df_partition *p, struct df_worker_task *ret,
                   struct df_error *err)
{
        struct work *w = arg;

        if (p->partition >= w->run->pin.topic.partitions)
                return df_fail(err, DF_ENOENT,
                               "%s/%u was assigned, the topic has %u partitions (K14)", p->topic,
                               p->partition, w->run->pin.topic.partitions);
        fill_task(w, &w->parts[p->partition], ret);
        return 0;
}

/* ---- start ---- */

/* The group says which of them are ours, or all are. */
static int add_parts(struct work *w, struct df_error *err)
{
        const struct df_topic_info *topic = &w->run->pin.topic;
        const char *name = topic->name;
        struct df_worker_task task;
        int rc = 0;

        if (is_shared(w))
                return df_workers_subscribe(w->pool, &name, 1, err);
        for (uint32_t p = 0; rc == 0 && p < topic->partitions; p++) {
                fill_task(w, &w->parts[p], &task);
                rc = df_workers_add(w->pool, &task, err);
        }
        return rc;
}

static int start_pool(struct work *w, struct df_error *err)
{
        const struct df_topic_info *topic = &w->run->pin.topic;
        struct df_workers_options o = {
                .threads = w->logs->threads ? w->logs->threads
                                            : (uint32_t)df_config_integer(w->c, "workers"),
                .interval_min_ms = df_config_ms(w->c, "checkpoint-min"),
                .interval_max_ms = df_config_ms(w->c, "checkpoint-max"),
                .open_max = 2,
                .open_group = is_shared(w) ? open_group : NULL,
                .task_of = task_of,
                .group_arg = w,
        };
        int rc = 0;

        if (w->run->kind->open && df_config_is_default(w->c, "checkpoint-min"))
                o.interval_min_ms = OPEN_MIN_MS;
        w->parts = calloc(topic->partitions, sizeof(*w->parts));
        if (!w->parts)
                return df_fail(err, DF_ENOMEM, "%u partitions", topic->partitions);
        for (uint32_t p = 0; p < topic->partitions; p++)
                fill_part(w, p);
        if (is_shared(w))
                rc = df_kafka_offsets_open(w->log, w->names.group, topic->name, topic->partitions,
                                           &w->offsets, err);
        if (rc == 0)
                rc = df_workers_create(&o, &w->pool, err);
        return rc == 0 ? add_parts(w, err) : rc;
}

static int begin(struct work *w, struct df_error *err)
{
        const struct df_config *c = w->c;
        char path[PATH_MAX];
        int rc;

        (void)snprintf(path, sizeof(path), "%s/state", w->run->dir);
        rc = df_mkdirs(path, err);
        if (rc == 0)
                rc = ad_prices_open(df_config_text(c, "data"), &w->prices, err);
        if (rc == 0 && w->logs->share != AD_REPLAY_HELPS)
                rc = open_outputs(w, err);
        if (rc < 0)
                return rc;
        ad_task_params(c, w->prices, &w->params);
        if (w->run->kind->params)
                w->run->kind->params(c, w->run->kind, &w->params);
        if (ad_topic_is_import(w->run->pin.topic.name)) { /* as realtime's tasks of such */
                w->params.horizon_hours = w->params.billing_horizon_hours = 0;
                w->params.pricing = AD_PRICE_CLIENT;
        }
        if (w->run->kind->config(c, w->run->kind) != w->run->config)
                return df_fail(err, DF_EAGAIN,
                               "the price table changed since run %s was found: once more",
                               w->run->id);
        return start_pool(w, err);
}

/* ---- how far it is ---- */

struct look {
        const struct ad_replay *run;
        struct reach reach;
        struct ad_replay_progress here;
        int refused;
        char refusal[DF_ERROR_TEXT_MAX];
};

static uint64_t passed(const struct ad_replay_span *span, uint64_t position)
{
        return position > span->from ? position - span->from : 0;
}

static void look_at(void *arg, const struct df_worker_view *v)
{
        struct look *l = arg;
        const struct ad_replay_span *span = &l->run->pin.span[v->source.partition];

        l->reach.done += v->done;
        l->reach.k[v->source.partition] = v->k;
        l->reach.offsets += passed(span, v->position);
        l->here.partitions++;
        l->here.events += v->events;
        if (v->refused && !l->refused) {
                l->refused = v->refused;
                (void)snprintf(l->refusal, sizeof(l->refusal), "%s", v->refusal);
        }
}

static void look_at_committed(void *arg, uint32_t partition, const struct df_committed *c)
{
        struct work *w = arg;
        const struct ad_replay_span *span = &w->run->pin.span[partition];

        w->committed.done += df_committed_done(c, span->to, &w->committed.k[partition]);
        w->committed.offsets += c->any ? passed(span, c->offset) : 0;
}

/* Nobody answers: what was seen last stays. */
static int look_at_group(struct work *w, struct df_error *err)
{
        struct reach before = w->committed;
        int64_t now = df_monotonic_ms();
        int rc;

        if (now - w->looked_ms < OFFSETS_MS)
                return 0;
        w->looked_ms = now;
        w->committed = (struct reach){0};
        rc = df_kafka_offsets_read(w->offsets, look_at_committed, w, err);
        if (rc < 0)
                w->committed = before;
        return df_err_action(rc) == DF_RETRY ? 0 : rc;
}

static int look(struct work *w, struct look *ret, struct df_error *err)
{
        int rc = 0;

        *ret = (struct look){.run = w->run};
        df_workers_each(w->pool, look_at, ret);
        if (is_shared(w)) {
                rc = look_at_group(w, err);
                ret->reach = w->committed;
        }
        ret->here.done = ret->reach.offsets;
        return rc;
}

/* What the state's own text advises is for the live state. */
static int refuse(const struct work *w, const struct look *l, struct df_error *err)
{
        const char *id = w->run->id, *kind = w->run->kind->name;

        if (w->logs->share == AD_REPLAY_HELPS)
                return df_fail(err, l->refused, "%.380s (run %s is left to others)", l->refusal,
                               id);
        return df_fail(err, l->refused, "%.380s (run %s; `adtally %s --drop %s` begins it anew)",
                       l->refusal, id, kind, id);
}

static int follow_watch(struct work *w, const struct ad_replay_progress *p, struct df_error *err)
{
        enum ad_replay_watch answer =
                w->logs->watch ? w->logs->watch(w->logs->watch_arg, p) : AD_REPLAY_GO_ON;

        df_workers_hold(w->pool, answer == AD_REPLAY_HOLD);
        return answer == AD_REPLAY_LEAVE
                       ? df_fail(err, DF_EAGAIN, "run %s is left to others", w->run->id)
                       : 0;
}

/* One look; *ret_done: nothing is left to do. */
static int follow(struct work *w, struct look *l, struct df_progress *progress, uint64_t all,
                  bool *ret_done, struct df_error *err)
{
        int rc = look(w, l, err);

        *ret_done = false;
        l->here.all = all;
        df_progress_whole(progress, l->here.done, all);
        if (rc == 0)
                rc = follow_watch(w, &l->here, err);
        if (rc == 0 && l->refused)
                rc = refuse(w, l, err);
        else if (rc == 0 && l->reach.done == w->run->pin.topic.partitions)
                *ret_done = w->logs->share != AD_REPLAY_HELPS;
        if (rc == 0 && !*ret_done && df_process_stopping())
                rc = df_fail(err, DF_EAGAIN, "stopped: the same command goes on with run %s",
                             w->run->id);
        return rc;
}

static int wait_done(struct work *w, bool quiet, struct df_error *err)
{
        struct ad_replay_pin *pin = &w->run->pin;
        struct df_progress progress;
        struct look l = {0};
        uint64_t all = 0;
        bool done = false;
        int rc = 0;

        for (uint32_t p = 0; p < pin->topic.partitions; p++)
                all += pin->span[p].to - pin->span[p].from;
        df_progress_start(&progress, w->run->kind->name, "events", 0, quiet);
        while (rc == 0 && !done) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};

                rc = follow(w, &l, &progress, all, &done, err);
                df_progress_show(&progress, l.here.events);
                if (rc == 0 && !done)
                        (void)poll(&p, 1, LOOK_MS); /* an early wake-up is harmless */
        }
        df_progress_end(&progress, l.here.events);
        for (uint32_t p = 0; rc == 0 && p < pin->topic.partitions; p++)
                pin->span[p].k = l.reach.k[p];
        return rc;
}

static void end(struct work *w)
{
        if (w->pool)
                df_workers_stop(w->pool);
        df_workers_destroy(w->pool);
        df_kafka_offsets_close(w->offsets);
        for (int i = 0; i < AD_OUT_BILL_COUNT; i++)
                df_log_writer_close(w->writers[i]);
        ad_prices_close(w->prices);
        free(w->parts);
}

int ad_replay_work(const struct df_config *c, const struct ad_replay_logs *logs,
                   struct ad_replay *r, struct df_error *err)
{
        struct df_log *log = logs->log;
        struct work *w = calloc(1, sizeof(*w));
        int rc;

        if (!w)
                return df_fail(err, DF_ENOMEM, "run %s", r->id);
        *w = (struct work){.c = c, .logs = logs, .log = log, .source = logs->source, .run = r};
        ad_replay_names(r, &w->names);
        rc = begin(w, err);
        if (rc == 0)
                rc = wait_done(w, df_config_bool(c, "quiet"), err);
        end(w);
        if (rc == 0 && !df_kafka_is(log)) { /* L2: retention need not wait any more */
                rc = df_filelog_consumer_drop(log, r->pin.topic.name, w->names.group, err);
                rc = rc == DF_ENOENT ? 0 : rc;
        }
        free(w);
        return rc < 0 ? rc : ad_replay_mark_done(r, err);
}
