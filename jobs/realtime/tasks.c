#include "jobs/realtime/tasks.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/rocksdb.h"
#include "df/trace.h"
#include "jobs/common/prices.h"

#define DISK_CRITICAL_BYTES (32u << 20) /* below it a checkpoint may fail for lack of space */

static const char *const output_topics[AD_OUT_COUNT] = {
        [AD_OUT_LATE] = AD_TOPIC_LATE,
        [AD_OUT_QUARANTINE] = AD_TOPIC_QUARANTINE,
        [AD_OUT_ROLLUPS] = AD_TOPIC_ROLLUPS,
};

/* What the task of one partition opens its state directory with. */
struct state_dir {
        char path[PATH_MAX];
};

struct topic {
        char name[DF_TOPIC_NAME_MAX + 1];
        struct state_dir *dirs;
        struct topic *next;
};

struct ad_tasks {
        const struct df_config *config;
        struct df_log *log;
        struct df_workers *workers;
        struct df_log_writer *writers[AD_OUT_COUNT];
        struct ad_prices *prices;
        struct ad_params live, bounded; /* of `events`, of imports */
        struct topic *topics;
        bool reserve_freed;
        int64_t recovered_ns; /* modification time of the file by which recover asks */
};

/* `adtally recover --from log` leaves the mark beside the directory it moved away. It holds until
 * the rebuilt state has its first checkpoint: another loss after that is refused again. */
static int open_state(void *arg, struct df_session_ports *ports, struct df_error *err)
{
        const struct state_dir *d = arg;
        char mark[PATH_MAX + 16], current[PATH_MAX + 16];

        (void)snprintf(mark, sizeof(mark), "%s" AD_REBUILD_MARK, d->path);
        (void)snprintf(current, sizeof(current), "%s/CURRENT", d->path);
        if (access(current, F_OK) == 0)
                (void)unlink(mark); /* mostly not there */
        ports->recover_from_log = access(mark, F_OK) == 0;
        return df_rocksdb_ckpt_open(d->path, NULL, &ports->ckpt, err);
}

static int64_t asked_ns(const struct ad_tasks *t)
{
        char path[PATH_MAX];
        struct stat st;

        if (ad_data_path(t->config, AD_RECOVERED_FILE, path, NULL) < 0 || stat(path, &st) < 0)
                return 0;
        return (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
}

int ad_tasks_create(const struct df_config *c, struct df_log *log, struct df_workers *workers,
                    struct ad_tasks **ret, struct df_error *err)
{
        struct ad_tasks *t = calloc(1, sizeof(*t));
        int rc = 0;

        if (!t)
                return df_fail(err, DF_ENOMEM, "tasks");
        t->config = c;
        t->log = log;
        t->workers = workers;
        t->recovered_ns = asked_ns(t);
        rc = ad_prices_open(df_config_text(c, "data"), &t->prices, err);
        for (int i = 0; rc == 0 && i < AD_OUT_COUNT; i++)
                rc = df_log_writer_open(log, output_topics[i], &t->writers[i], err);
        if (rc < 0) {
                ad_tasks_destroy(t);
                return rc;
        }
        ad_fill_params(c, &t->live);
        t->live.price_table = ad_prices_get;
        t->live.price_arg = t->prices;
        t->bounded = t->live;
        t->bounded.horizon_hours = 0;
        t->bounded.pricing = AD_PRICE_CLIENT; /* an import states its prices itself */
        *ret = t;
        return 0;
}

static void fill_task(const struct ad_tasks *t, const struct df_topic_info *info, uint32_t p,
                      struct df_worker_task *ret)
{
        bool import =
                strncmp(info->name, AD_TOPIC_IMPORT_PREFIX, strlen(AD_TOPIC_IMPORT_PREFIX)) == 0;
        struct df_task_config *c = &ret->config;

        memset(ret, 0, sizeof(*ret));
        (void)snprintf(c->source.stream, sizeof(c->source.stream), "%s", info->name);
        c->source.generation = info->generation;
        c->source.partition = p;
        c->partitions = info->partitions;
        c->chain = ad_chain_main;
        c->chain_length = ad_chain_main_length;
        c->params = import ? &t->bounded : &t->live;
        for (int i = 0; i < AD_OUT_COUNT; i++)
                c->outputs[i] = (struct df_output_config){.topic = output_topics[i],
                                                          .partitions = info->partitions};
        c->output_count = AD_OUT_COUNT;
        ad_fill_rules(t->config, &c->rules);
        c->rules.bounded = import;
        c->grace_ms = t->live.grace_ms;
        c->config = ad_config_digest(t->config);
        c->binary_version = ADTALLY_VERSION;
        c->control = import ? ad_control : NULL;
        ret->ports.log = t->log;
        ret->ports.consumer = "realtime";
        memcpy(ret->ports.writers, t->writers, sizeof(t->writers));
        ret->open_state = open_state;
}

static int add_topic(struct ad_tasks *t, const struct df_topic_info *info, struct df_error *err)
{
        struct topic *topic = calloc(1, sizeof(*topic));

        if (topic)
                topic->dirs = calloc(info->partitions, sizeof(*topic->dirs));
        if (!topic || !topic->dirs) {
                free(topic);
                return df_fail(err, DF_ENOMEM, "tasks of %s", info->name);
        }
        (void)snprintf(topic->name, sizeof(topic->name), "%s", info->name);
        topic->next = t->topics;
        t->topics = topic;
        for (uint32_t p = 0; p < info->partitions; p++) {
                struct df_worker_task task;
                char name[DF_TOPIC_NAME_MAX + 16], *path = topic->dirs[p].path;
                int n, rc;

                n = snprintf(path, PATH_MAX, "%s/state/%s", df_config_text(t->config, "data"),
                             info->name);
                if (n < 0 || n >= PATH_MAX - 16)
                        return df_fail(err, DF_EINVAL, "--data: the path is too long");
                rc = df_mkdirs(path, err);
                if (rc < 0)
                        return rc;
                (void)snprintf(path + n, 16, "/%u", p);
                fill_task(t, info, p, &task);
                (void)snprintf(name, sizeof(name), "%s/%u", info->name, p);
                task.name = name;
                task.open_arg = &topic->dirs[p];
                rc = df_workers_add(t->workers, &task, err);
                if (rc < 0)
                        return rc;
        }
        df_trace(DF_INFO, "tasks", "topic=%s partitions=%u", info->name, info->partitions);
        return 0;
}

struct discovery {
        struct ad_tasks *t;
        struct df_error *err;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct discovery *d = arg;

        for (struct topic *p = d->t->topics; p; p = p->next)
                if (strcmp(p->name, info->name) == 0)
                        return 0;
        if (info->partitions != (uint32_t)df_config_integer(d->t->config, "partitions"))
                return df_fail(d->err, DF_ESCHEMA,
                               "topic %s has %u partitions, --partitions says %u (K14)", info->name,
                               info->partitions,
                               (unsigned)df_config_integer(d->t->config, "partitions"));
        return add_topic(d->t, info, d->err);
}

int ad_tasks_discover(struct ad_tasks *t, struct df_error *err)
{
        struct discovery d = {.t = t, .err = err};
        int rc = t->topics ? 0 : df_log_topic_list(t->log, AD_TOPIC_EVENTS, on_topic, &d, err);

        return rc < 0 ? rc : df_log_topic_list(t->log, AD_TOPIC_IMPORT_PREFIX, on_topic, &d, err);
}

void ad_tasks_follow_recovery(struct ad_tasks *t)
{
        int64_t ns = asked_ns(t);

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

        if (statvfs(df_config_text(t->config, "data"), &v) < 0)
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

        for (int i = 0; i < AD_OUT_COUNT; i++) {
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

                free(t->topics->dirs);
                free(t->topics);
                t->topics = next;
        }
        free(t);
}
