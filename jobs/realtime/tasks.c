#include "jobs/realtime/tasks.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "df/rocksdb.h"
#include "df/trace.h"
#include "jobs/common/places.h"
#include "jobs/common/rebuild.h"
#include "jobs/common/task.h"

#define DISK_CRITICAL_BYTES (32u << 20) /* below it a checkpoint may fail for lack of space */

static const char *const output_topics[AD_OUT_COUNT] = {
        [AD_OUT_LATE] = AD_TOPIC_LATE,
        [AD_OUT_QUARANTINE] = AD_TOPIC_QUARANTINE,
        [AD_OUT_ROLLUPS] = AD_TOPIC_ROLLUPS,
};

/* What the task of one partition opens its state with. */
struct partition {
        struct ad_tasks *tasks;
        const struct topic *topic;
        uint32_t index;
        char name[DF_TOPIC_NAME_MAX + 16]; /* "events/3" */
        char store[PATH_MAX];
        struct ad_rebuild rebuild;
};

struct topic {
        struct df_topic_info info;
        struct partition *partitions;
        struct topic *next;
};

struct ad_tasks {
        const struct df_config *config;
        struct df_log *log;
        struct df_workers *workers;
        struct df_log_writer *writers[AD_OUT_COUNT]; /* file log only */
        bool file; /* one process runs all; otherwise a group spreads them */
        struct ad_prices *prices;
        struct ad_params live, bounded; /* of `events`, of imports */
        pthread_mutex_t lock;           /* of topics: workers ask for their tasks */
        struct topic *topics;
        bool reserve_freed;
        int64_t recovered_ns; /* of the files by which recover asks */
        char store[PATH_MAX]; /* the checkpoint store, "" = none, and which directory it was */
        dev_t store_dev;
        ino_t store_ino;
};

static int step(void *arg, const char *name, struct df_error *err)
{
        struct partition *p = arg;

        ad_rebuild_step(&p->rebuild, name);
        return df_failpoint(p->name, name, err);
}

/* An unmounted store leaves an empty directory: checkpoints in it would be of this machine only. */
static int check_mounted(const struct ad_tasks *t, struct df_error *err)
{
        struct stat st;

        if (!t->store[0])
                return 0;
        if (stat(t->store, &st) < 0)
                return df_fail_errno(err, DF_EIO, "checkpoint store %s", t->store);
        if (st.st_dev == t->store_dev && st.st_ino == t->store_ino)
                return 0;
        return df_fail(err, DF_EIO,
                       "checkpoint store %s is not the directory that it was at start: mount it",
                       t->store);
}

static int open_state(void *arg, struct df_group *group, struct df_session_ports *ports,
                      struct df_error *err)
{
        struct partition *p = arg;
        struct df_rocksdb_options o = {.store_dir = p->store[0] ? p->store : NULL};
        int rc = check_mounted(p->tasks, err);

        if (rc == 0)
                rc = ad_rebuild_read(&p->rebuild, ports, err);
        if (rc == 0)
                rc = df_rocksdb_ckpt_open(p->rebuild.dir, &o, &ports->ckpt, err);
        if (rc == 0 && group)
                rc = df_kafka_txn_open(p->tasks->log, group, p->topic->info.name, p->index,
                                       &ports->txn, err);
        return rc;
}

static int find_store(struct ad_tasks *t, struct df_error *err)
{
        struct stat st;
        int rc = ad_store(t->config, t->store, err);

        if (rc < 0 || !t->store[0])
                return rc;
        if (stat(t->store, &st) < 0)
                return df_fail_errno(err, DF_EIO, "checkpoint store %s", t->store);
        t->store_dev = st.st_dev;
        t->store_ino = st.st_ino;
        return 0;
}

int ad_tasks_create(const struct df_config *c, struct df_log *log, struct ad_tasks **ret,
                    struct df_error *err)
{
        struct ad_tasks *t = calloc(1, sizeof(*t));
        int rc = 0;

        if (!t)
                return df_fail(err, DF_ENOMEM, "tasks");
        t->config = c;
        t->log = log;
        t->file = !df_kafka_is(log);
        pthread_mutex_init(&t->lock, NULL);
        rc = find_store(t, err);
        t->recovered_ns = ad_recovered_ns(t->config);
        if (rc == 0)
                rc = ad_prices_open(df_config_text(c, "data"), &t->prices, err);
        for (int i = 0; rc == 0 && t->file && i < AD_OUT_COUNT; i++)
                rc = df_log_writer_open(log, output_topics[i], &t->writers[i], err);
        if (rc < 0) {
                ad_tasks_destroy(t);
                return rc;
        }
        ad_task_params(c, t->prices, &t->live);
        t->bounded = t->live;
        t->bounded.horizon_hours = 0;
        t->bounded.pricing = AD_PRICE_CLIENT; /* an import states its prices itself */
        *ret = t;
        return 0;
}

/* ---- a partition's task ---- */

static bool is_import(const struct topic *t)
{
        return strncmp(t->info.name, AD_TOPIC_IMPORT_PREFIX, strlen(AD_TOPIC_IMPORT_PREFIX)) == 0;
}

static void fill_task(const struct ad_tasks *t, struct partition *p, struct df_worker_task *ret)
{
        const struct df_topic_info *info = &p->topic->info;
        struct df_task_config *c = &ret->config;
        bool import = is_import(p->topic);

        memset(ret, 0, sizeof(*ret));
        ad_task_fill(t->config, info, p->index, import ? &t->bounded : &t->live, output_topics, c);
        c->rules.bounded = import;
        c->control = import ? ad_control : NULL;
        ret->name = p->name;
        ret->ports.log = t->log;
        ret->ports.consumer = "realtime";
        ret->ports.step = step;
        ret->ports.step_arg = p;
        memcpy(ret->ports.writers, t->writers, sizeof(t->writers));
        ret->open_state = open_state;
        ret->open_arg = p;
}

static int fill_partition(struct ad_tasks *t, const struct topic *topic, uint32_t index,
                          struct partition *ret, struct df_error *err)
{
        char parent[PATH_MAX], *slash;
        int rc = ad_rebuild_place(t->config, topic->info.name, index, &ret->rebuild, err);

        ret->tasks = t;
        ret->topic = topic;
        ret->index = index;
        (void)snprintf(ret->name, sizeof(ret->name), "%s/%u", topic->info.name, index);
        if (rc == 0)
                rc = ad_store_dir(t->config, topic->info.name, index, ret->store, err);
        if (rc < 0)
                return rc;
        (void)snprintf(parent, sizeof(parent), "%s", ret->rebuild.dir);
        slash = strrchr(parent, '/');
        *slash = '\0';
        return df_mkdirs(parent, err);
}

static int make_topic(struct ad_tasks *t, const struct df_topic_info *info, struct topic **ret,
                      struct df_error *err)
{
        struct topic *topic = calloc(1, sizeof(*topic));
        int rc = 0;

        if (topic)
                topic->partitions = calloc(info->partitions, sizeof(*topic->partitions));
        if (!topic || !topic->partitions)
                rc = df_fail(err, DF_ENOMEM, "tasks of %s", info->name);
        if (rc == 0)
                topic->info = *info;
        for (uint32_t p = 0; rc == 0 && p < info->partitions; p++)
                rc = fill_partition(t, topic, p, &topic->partitions[p], err);
        if (rc == 0) {
                *ret = topic;
                return 0;
        }
        if (topic)
                free(topic->partitions);
        free(topic);
        return rc;
}

/* ---- which topics there are ---- */

/* On the file log the pool gets the tasks; otherwise the group says which are whose. */
static int add_topic(struct ad_tasks *t, const struct df_topic_info *info, struct df_error *err)
{
        struct topic *topic = NULL;
        int rc = make_topic(t, info, &topic, err);

        if (rc < 0)
                return rc;
        pthread_mutex_lock(&t->lock);
        topic->next = t->topics;
        t->topics = topic;
        pthread_mutex_unlock(&t->lock);
        for (uint32_t p = 0; rc == 0 && t->file && t->workers && p < info->partitions; p++) {
                struct df_worker_task task;

                fill_task(t, &topic->partitions[p], &task);
                rc = df_workers_add(t->workers, &task, err);
        }
        if (rc == 0)
                df_trace(DF_INFO, "tasks", "topic=%s partitions=%u", info->name, info->partitions);
        return rc;
}

struct discovery {
        struct ad_tasks *t;
        bool found;
        struct df_error *err;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct discovery *d = arg;

        for (struct topic *p = d->t->topics; p; p = p->next)
                if (strcmp(p->info.name, info->name) == 0)
                        return 0;
        if (info->partitions != (uint32_t)df_config_integer(d->t->config, "partitions"))
                return df_fail(d->err, DF_ESCHEMA,
                               "topic %s has %u partitions, --partitions says %u (K14)", info->name,
                               info->partitions,
                               (unsigned)df_config_integer(d->t->config, "partitions"));
        d->found = true;
        return add_topic(d->t, info, d->err);
}

static int subscribe(struct ad_tasks *t, struct df_error *err)
{
        const char **names;
        size_t count = 0;
        int rc;

        for (const struct topic *p = t->topics; p; p = p->next)
                count++;
        names = calloc(count + 1, sizeof(*names));
        if (!names)
                return df_fail(err, DF_ENOMEM, "%zu topics", count);
        count = 0;
        for (const struct topic *p = t->topics; p; p = p->next)
                names[count++] = p->info.name;
        rc = df_workers_subscribe(t->workers, names, count, err);
        free(names);
        return rc;
}

int ad_tasks_discover(struct ad_tasks *t, struct df_error *err)
{
        struct discovery d = {.t = t, .err = err};
        int rc = t->topics ? 0 : df_log_topic_list(t->log, AD_TOPIC_EVENTS, on_topic, &d, err);

        if (rc == 0)
                rc = df_log_topic_list(t->log, AD_TOPIC_IMPORT_PREFIX, on_topic, &d, err);
        return rc < 0 || t->file || !t->workers || !d.found ? rc : subscribe(t, err);
}

int ad_tasks_each(struct ad_tasks *t,
                  int (*fn)(void *arg, const struct df_worker_task *task, struct df_error *err),
                  void *arg, struct df_error *err)
{
        int rc = ad_tasks_discover(t, err);

        for (const struct topic *p = t->topics; rc == 0 && p; p = p->next)
                for (uint32_t i = 0; rc == 0 && i < p->info.partitions; i++) {
                        struct df_worker_task task;

                        fill_task(t, &p->partitions[i], &task);
                        rc = fn(arg, &task, err);
                }
        return rc;
}

/* ---- the group ---- */

static int open_group(void *arg, uint32_t worker, struct df_group **ret, struct df_error *err)
{
        const struct ad_tasks *t = arg;
        char instance[96];

        (void)snprintf(instance, sizeof(instance), "%s-%u", df_config_text(t->config, "instance"),
                       worker);
        return df_kafka_group_open(t->log, AD_GROUP_REALTIME, instance, ret, err);
}

static int task_of(void *arg, const struct df_partition *p, struct df_worker_task *ret,
                   struct df_error *err)
{
        struct ad_tasks *t = arg;
        struct topic *found;

        pthread_mutex_lock(&t->lock);
        found = t->topics;
        while (found && strcmp(found->info.name, p->topic) != 0)
                found = found->next;
        pthread_mutex_unlock(&t->lock);
        if (!found || p->partition >= found->info.partitions)
                return df_fail(err, DF_ENOENT,
                               "%s/%u was assigned, the topic has %u partitions (K14)", p->topic,
                               p->partition, found ? found->info.partitions : 0);
        fill_task(t, &found->partitions[p->partition], ret);
        return 0;
}

void ad_tasks_group(struct ad_tasks *t, struct df_workers_options *ret)
{
        if (t->file)
                return;
        ret->open_group = open_group;
        ret->task_of = task_of;
        ret->group_arg = t;
        if (!t->store[0])
                df_trace(DF_INFO, "tasks",
                         "no --checkpoint-store: what another machine takes over it rebuilds only "
                         "by `adtally recover --from log` (K2)");
}

void ad_tasks_run_on(struct ad_tasks *t, struct df_workers *workers)
{
        t->workers = workers;
}

void ad_tasks_follow_recovery(struct ad_tasks *t)
{
        int64_t ns = ad_recovered_ns(t->config);

        if (ns == t->recovered_ns)
                return;
        t->recovered_ns = ns;
        df_trace(DF_INFO, "tasks", "recovered: refused partitions are taken over again");
        df_workers_retry(t->workers);
}

void ad_tasks_guard_disk(struct ad_tasks *t)
{
        struct statvfs v;
        uint64_t free_bytes, freed = 0;

        if (!t->file || statvfs(df_config_text(t->config, "data"), &v) < 0)
                return;
        free_bytes = (uint64_t)v.f_bavail * v.f_frsize;
        if (!t->reserve_freed && free_bytes < DISK_CRITICAL_BYTES) {
                if (df_filelog_reserve_free(t->log, &freed, NULL) < 0 || freed == 0)
                        return;
                t->reserve_freed = true;
                df_trace(DF_WARN, "disk",
                         "%llu bytes free: the reserve of %llu bytes was freed; "
                         "`adtally status` lists bytes by holder",
                         (unsigned long long)free_bytes, (unsigned long long)freed);
        } else if (t->reserve_freed && df_filelog_reserve_restore(t->log, NULL) == 0) {
                t->reserve_freed = false;
                df_trace(DF_INFO, "disk", "the reserve is there again");
        }
}

int ad_tasks_retain(struct ad_tasks *t, struct df_error *err)
{
        int64_t from = df_wall_ms() - df_config_ms(t->config, "keep-log");

        for (int i = 0; t->file && i < AD_OUT_COUNT; i++) {
                uint64_t deleted = 0;
                int rc = df_filelog_retain(t->log, output_topics[i], from, &deleted, err);

                if (rc < 0)
                        return rc;
                if (deleted)
                        df_trace(DF_INFO, "retain", "topic=%s deleted_bytes=%llu", output_topics[i],
                                 (unsigned long long)deleted);
        }
        return 0;
}

void ad_tasks_destroy(struct ad_tasks *t)
{
        if (!t)
                return;
        for (int i = 0; i < AD_OUT_COUNT; i++)
                df_log_writer_close(t->writers[i]);
        ad_prices_close(t->prices);
        while (t->topics) {
                struct topic *next = t->topics->next;

                free(t->topics->partitions);
                free(t->topics);
                t->topics = next;
        }
        pthread_mutex_destroy(&t->lock);
        free(t);
}
