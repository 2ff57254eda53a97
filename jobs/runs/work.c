/* work.c - a task for each partition of the range, until all are done (runs.h).
 *
 * The same sessions, operators and worker pool as the realtime job; what differs is the range, the
 * names of the outputs, and that no group decides who owns a partition: the run's lock does. */
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
#define OPEN_MIN_MS 2000 /* between commits of an open run: nobody waits for its rows */

struct work;
struct part {
        struct work *w;
        uint32_t index;
        char name[DF_TOPIC_NAME_MAX + 16]; /* "events/3" */
        char dir[PATH_MAX], store[PATH_MAX];
};

struct work {
        const struct ad_replay_logs *logs;
        struct df_log *log, *source;
        struct ad_replay *run;
        struct ad_replay_names names;
        struct ad_prices *prices;
        struct ad_params params;
        struct df_log_writer *writers[AD_OUT_BILL_COUNT]; /* file log only */
        struct part *parts;
        struct df_workers *pool;
};

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

        (void)group;
        if (rc == 0 && df_kafka_is(p->w->log))
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

static int add_part(const struct df_config *c, struct work *w, uint32_t index, struct df_error *err)
{
        const struct ad_replay_span *span = &w->run->pin.span[index];
        const struct ad_run_kind *kind = w->run->kind;
        const char *topics[AD_OUT_BILL_COUNT];
        struct df_worker_task task = {0};
        struct part *p = &w->parts[index];

        p->w = w;
        p->index = index;
        (void)snprintf(p->name, sizeof(p->name), "%s/%u", w->run->pin.topic.name, index);
        (void)snprintf(p->dir, sizeof(p->dir), "%s/state/%u", w->run->dir, index);
        if (w->logs->shared && w->run->store[0])
                (void)snprintf(p->store, sizeof(p->store), "%s/%u", w->run->store, index);
        for (size_t i = 0; i < kind->outputs; i++)
                topics[i] = w->names.topic[i];
        ad_task_fill(c, &w->run->pin.topic, index, &w->params, topics, &task.config);
        task.config.config = w->run->config;
        if (ad_topic_is_import(w->run->pin.topic.name)) {
                task.config.rules.bounded = true;
                task.config.control = ad_control;
        }
        task.config.chain = kind->chain;
        task.config.chain_length = *kind->chain_length;
        for (size_t i = AD_OUT_COUNT; i < kind->outputs; i++)
                task.config.outputs[i] = (struct df_output_config){
                        .topic = topics[i], .partitions = w->run->pin.topic.partitions};
        task.config.output_count = kind->outputs;
        task.config.range = (struct df_range){
                .given = true, .open = kind->open, .from = span->from, .to = span->to};
        task.name = p->name;
        task.ports.log = w->source;
        task.ports.consumer = w->names.group;
        task.ports.step = step;
        task.ports.step_arg = p;
        memcpy(task.ports.writers, w->writers, sizeof(w->writers));
        task.open_state = open_state;
        task.open_arg = p;
        return df_workers_add(w->pool, &task, err);
}

static int begin(const struct df_config *c, struct work *w, struct df_error *err)
{
        struct df_workers_options o = {
                .threads = w->logs->threads ? w->logs->threads
                                            : (uint32_t)df_config_integer(c, "workers"),
                .interval_min_ms = df_config_ms(c, "checkpoint-min"),
                .interval_max_ms = df_config_ms(c, "checkpoint-max"),
        };
        uint32_t partitions = w->run->pin.topic.partitions;
        char path[PATH_MAX];
        int rc;

        if (w->run->kind->open && df_config_is_default(c, "checkpoint-min"))
                o.interval_min_ms = OPEN_MIN_MS;
        (void)snprintf(path, sizeof(path), "%s/state", w->run->dir);
        rc = df_mkdirs(path, err);
        if (rc == 0)
                rc = ad_prices_open(df_config_text(c, "data"), &w->prices, err);
        if (rc == 0)
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
        w->parts = calloc(partitions, sizeof(*w->parts));
        if (!w->parts)
                return df_fail(err, DF_ENOMEM, "%u partitions", partitions);
        rc = df_workers_create(&o, &w->pool, err);
        for (uint32_t p = 0; rc == 0 && p < partitions; p++)
                rc = add_part(c, w, p, err);
        return rc;
}

/* ---- how far it is ---- */

struct look {
        const struct ad_replay *run;
        uint32_t done;
        uint64_t events, offsets;
        uint64_t k[DF_PARTITIONS_MAX];
        int refused;
        char refusal[DF_ERROR_TEXT_MAX];
};

static void look_at(void *arg, const struct df_worker_view *v)
{
        struct look *l = arg;
        const struct ad_replay_span *span = &l->run->pin.span[v->source.partition];

        l->done += v->done;
        l->events += v->events;
        l->k[v->source.partition] = v->k;
        if (v->position > span->from)
                l->offsets += v->position - span->from;
        if (v->refused && !l->refused) {
                l->refused = v->refused;
                (void)snprintf(l->refusal, sizeof(l->refusal), "%s", v->refusal);
        }
}

/* What the state's own text advises is for the live state. */
static int refuse(const struct ad_replay *r, const struct look *l, struct df_error *err)
{
        return df_fail(err, l->refused, "%.380s (run %s; `adtally %s --drop %s` begins it anew)",
                       l->refusal, r->id, r->kind->name, r->id);
}

static int wait_done(struct work *w, bool quiet, struct df_error *err)
{
        struct ad_replay_pin *pin = &w->run->pin;
        struct df_progress progress;
        struct look l = {0};
        uint64_t all = 0;
        int rc = 0;

        for (uint32_t p = 0; p < pin->topic.partitions; p++)
                all += pin->span[p].to - pin->span[p].from;
        df_progress_start(&progress, w->run->kind->name, "events", 0, quiet);
        while (rc == 0) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};

                l = (struct look){.run = w->run};
                df_workers_each(w->pool, look_at, &l);
                df_progress_whole(&progress, l.offsets, all);
                if (w->logs->watch)
                        df_workers_hold(w->pool,
                                        w->logs->watch(w->logs->watch_arg, l.offsets, all));
                if (l.refused)
                        rc = refuse(w->run, &l, err);
                else if (l.done == pin->topic.partitions)
                        break;
                else if (df_process_stopping())
                        rc = df_fail(err, DF_EAGAIN,
                                     "stopped: the same command goes on with run %s", w->run->id);
                df_progress_show(&progress, l.events);
                if (rc == 0)
                        (void)poll(&p, 1, LOOK_MS); /* an early wake-up is harmless */
        }
        df_progress_end(&progress, l.events);
        for (uint32_t p = 0; rc == 0 && p < pin->topic.partitions; p++)
                pin->span[p].k = l.k[p];
        return rc;
}

static void end(struct work *w)
{
        if (w->pool)
                df_workers_stop(w->pool);
        df_workers_destroy(w->pool);
        for (int i = 0; i < AD_OUT_BILL_COUNT; i++)
                df_log_writer_close(w->writers[i]);
        ad_prices_close(w->prices);
        free(w->parts);
}

int ad_replay_work(const struct df_config *c, const struct ad_replay_logs *logs,
                   struct ad_replay *r, struct df_error *err)
{
        struct df_log *log = logs->log;
        struct work w = {.logs = logs, .log = log, .source = logs->source, .run = r};
        int rc;

        ad_replay_names(r, &w.names);
        rc = begin(c, &w, err);
        if (rc == 0)
                rc = wait_done(&w, df_config_bool(c, "quiet"), err);
        end(&w);
        if (rc == 0 && !df_kafka_is(log)) { /* L2: retention need not wait any more */
                rc = df_filelog_consumer_drop(log, r->pin.topic.name, w.names.group, err);
                rc = rc == DF_ENOENT ? 0 : rc;
        }
        return rc < 0 ? rc : ad_replay_mark_done(r, err);
}
