/* books.c - the task `books`: it reads `runs` and writes `billing` (job.h, operators/books.c).
 *
 * A task like realtime's, in a pool of its own. On Kafka it is no member of a group: the job's
 * process is the one that posts, so there is nothing to share out; its transactional.id fences
 * whoever had the books before. */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/filelog.h"
#include "df/hash.h"
#include "df/kafka.h"
#include "df/rocksdb.h"
#include "jobs/common/places.h"
#include "jobs/common/rebuild.h"
#include "jobs/reconcile/job.h"

#define INTERVAL_MIN_MS 100 /* a run is posted at once, and then there is nothing for long */

struct ad_books {
        struct df_log *log;
        struct df_log_writer *writer; /* file log only */
        struct df_workers *pool;
        char store[PATH_MAX];
        struct ad_rebuild rebuild;
};

static int step(void *arg, const char *name, struct df_error *err)
{
        ad_rebuild_step(arg, name);
        return df_failpoint(AD_GROUP_BOOKS, name, err);
}

static int open_state(void *arg, struct df_group *group, struct df_session_ports *ports,
                      struct df_error *err)
{
        struct ad_books *b = arg;
        struct df_rocksdb_options o = {.store_dir = b->store[0] ? b->store : NULL};
        int rc = ad_rebuild_read(&b->rebuild, ports, err);

        (void)group;
        if (rc == 0)
                rc = df_rocksdb_ckpt_open(b->rebuild.dir, &o, &ports->ckpt, err);
        if (rc == 0 && df_kafka_is(b->log))
                rc = df_kafka_txn_open_alone(b->log, AD_GROUP_BOOKS, AD_TOPIC_RUNS, 0, &ports->txn,
                                             err);
        return rc;
}

struct found {
        struct df_topic_info info;
        bool is;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct found *f = arg;

        if (strcmp(info->name, AD_TOPIC_RUNS) != 0)
                return 0;
        f->info = *info;
        f->is = true;
        return 0;
}

static int make_places(const struct df_config *c, struct ad_books *b, struct df_error *err)
{
        char parent[PATH_MAX], *slash;
        int rc = ad_rebuild_place(c, AD_TOPIC_RUNS, 0, &b->rebuild, err);

        if (rc == 0)
                rc = ad_store_dir(c, AD_TOPIC_RUNS, 0, b->store, err);
        if (rc < 0)
                return rc;
        (void)snprintf(parent, sizeof(parent), "%s", b->rebuild.dir);
        slash = strrchr(parent, '/');
        *slash = '\0';
        return df_mkdirs(parent, err);
}

/* No setting shapes what the books say: only what is written to `runs`. */
static void fill_task(struct ad_books *b, const struct df_topic_info *runs,
                      struct df_worker_task *ret)
{
        struct df_task_config *c = &ret->config;

        *ret = (struct df_worker_task){.name = AD_TOPIC_RUNS "/0"};
        c->source = (struct df_source){.generation = runs->generation};
        (void)snprintf(c->source.stream, sizeof(c->source.stream), "%s", runs->name);
        c->partitions = 1;
        c->chain = ad_chain_books;
        c->chain_length = ad_chain_books_length;
        c->outputs[AD_OUT_BOOKS] =
                (struct df_output_config){.topic = AD_TOPIC_BILLING, .partitions = 1};
        c->output_count = 1;
        c->config = df_hash64(df_bytes_str("books 1"));
        c->binary_version = ADTALLY_VERSION;
        c->ticks_ns = df_ticks_ns;
        ret->ports.log = b->log;
        ret->ports.consumer = AD_GROUP_BOOKS;
        ret->ports.step = step;
        ret->ports.step_arg = &b->rebuild;
        ret->ports.writers[AD_OUT_BOOKS] = b->writer;
        ret->open_state = open_state;
        ret->open_arg = b;
}

static int start(const struct df_config *c, struct ad_books *b, struct df_error *err)
{
        struct df_workers_options o = {
                .threads = 1,
                .commit_threads = 1,
                .interval_min_ms = INTERVAL_MIN_MS,
                .interval_max_ms = df_config_ms(c, "checkpoint-max"),
        };
        struct df_worker_task task;
        struct found runs = {0};
        int rc = make_places(c, b, err);

        if (rc == 0)
                rc = df_log_topic_list(b->log, AD_TOPIC_RUNS, on_topic, &runs, err);
        if (rc == 0 && !runs.is)
                rc = df_fail(err, DF_ENOENT, "there is no topic " AD_TOPIC_RUNS);
        if (rc == 0 && !df_kafka_is(b->log))
                rc = df_log_writer_open(b->log, AD_TOPIC_BILLING, &b->writer, err);
        if (rc == 0)
                rc = df_workers_create(&o, &b->pool, err);
        if (rc < 0)
                return rc;
        fill_task(b, &runs.info, &task);
        return df_workers_add(b->pool, &task, err);
}

int ad_books_task(const struct df_config *c, struct df_log *log, struct df_log_writer *billing,
                  int (*fn)(void *arg, const struct df_worker_task *task, struct df_error *err),
                  void *arg, struct df_error *err)
{
        struct ad_books b = {.log = log, .writer = billing};
        struct df_worker_task task;
        struct found runs = {0};
        int rc = df_log_topic_list(log, AD_TOPIC_RUNS, on_topic, &runs, err);

        if (rc < 0 || !runs.is)
                return rc;
        rc = make_places(c, &b, err);
        fill_task(&b, &runs.info, &task);
        return rc == 0 ? fn(arg, &task, err) : rc;
}

int ad_books_start(const struct df_config *c, struct df_log *log, struct ad_books **ret,
                   struct df_error *err)
{
        struct ad_books *b = calloc(1, sizeof(*b));
        int rc = b ? 0 : df_fail(err, DF_ENOMEM, "books");

        *ret = NULL;
        if (rc == 0) {
                b->log = log;
                rc = start(c, b, err);
        }
        if (rc < 0)
                ad_books_stop(b);
        else
                *ret = b;
        return rc;
}

struct df_workers *ad_books_pool(const struct ad_books *b)
{
        return b->pool;
}

void ad_books_stop(struct ad_books *b)
{
        if (!b)
                return;
        if (b->pool) {
                df_workers_stop(b->pool);
                df_workers_destroy(b->pool);
        }
        df_log_writer_close(b->writer);
        free(b);
}
