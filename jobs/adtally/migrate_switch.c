/* migrate_switch.c - what must be still before the copy, and the switch after it. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "df/kafka_copy.h"
#include "df/task.h"
#include "jobs/adtally/migrate.h"
#include "jobs/common/settings.h"
#include "jobs/realtime/tasks.h"
#include "jobs/reconcile/job.h"

/* ---- topics ---- */

struct listing {
        struct ad_move *m;
        struct df_error *err;
};

static int look_at(const struct ad_move *m, struct ad_move_topic *t, struct df_error *err)
{
        int rc = 0;

        for (uint32_t p = 0; rc == 0 && p < t->info.partitions; p++) {
                rc = df_log_bounds(m->from, t->info.name, p, &t->parts[p].first, &t->parts[p].end,
                                   err);
                t->ends[p] = t->parts[p].end;
        }
        return rc;
}

static int look_again(struct ad_move *m, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < m->topic_count; i++)
                rc = look_at(m, &m->topics[i], err);
        return rc;
}

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct listing *l = arg;
        struct ad_move *m = l->m;
        struct ad_move_topic *grown = realloc(m->topics, (m->topic_count + 1) * sizeof(*grown)), *t;

        if (!grown)
                return df_fail(l->err, DF_ENOMEM, "topics");
        m->topics = grown;
        t = &grown[m->topic_count];
        *t = (struct ad_move_topic){.info = *info,
                                    .parts = calloc(info->partitions, sizeof(*t->parts))};
        if (!t->parts)
                return df_fail(l->err, DF_ENOMEM, "topics");
        m->topic_count++;
        return look_at(m, t, l->err);
}

int ad_move_topics(struct ad_move *m, struct df_error *err)
{
        struct listing l = {m, err};
        int rc = df_log_topic_list(m->from, "", on_topic, &l, err);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i + 1 < m->topic_count; i++)
                if (strcmp(m->topics[i].info.name, AD_TOPIC_EVENTS) == 0) {
                        struct ad_move_topic events = m->topics[i];

                        memmove(&m->topics[i], &m->topics[i + 1],
                                (m->topic_count - i - 1) * sizeof(events));
                        m->topics[m->topic_count - 1] = events;
                        break;
                }
        if (m->topic_count == 0 ||
            strcmp(m->topics[m->topic_count - 1].info.name, AD_TOPIC_EVENTS) != 0)
                return df_fail(err, DF_ENOENT, "the file log has no topic %s: nothing to move",
                               AD_TOPIC_EVENTS);
        return 0;
}

int ad_move_look(struct ad_move *m, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < m->topic_count; i++)
                rc = df_kafka_copy_look(m->to, &m->topics[i].info, m->topics[i].ends,
                                        &m->topics[i].begun, &m->topics[i].finished, err);
        return rc;
}

/* ---- still ---- */

static bool is_output(const char *name)
{
        return strcmp(name, AD_TOPIC_ROLLUPS) == 0 || strcmp(name, AD_TOPIC_LATE) == 0 ||
               strcmp(name, AD_TOPIC_QUARANTINE) == 0;
}

/* The writers of all topics: nobody appends while they are held, and torn tails are cut. */
int ad_move_lock(struct ad_move *m, struct df_error *err)
{
        int rc = ad_tasks_create(m->config, m->from, &m->tasks, err);

        for (size_t i = 0; rc == 0 && i < m->topic_count; i++)
                if (!is_output(m->topics[i].info.name))
                        rc = df_log_writer_open(m->from, m->topics[i].info.name,
                                                &m->topics[i].writer, err);
        if (rc == DF_EFENCED)
                return df_fail(err, rc,
                               "the file log is in use: stop `adtally up` and imports "
                               "first");
        return rc < 0 ? rc : look_again(m, err);
}

static int add_position(struct ad_move *m, const struct df_worker_task *task, struct df_session *s,
                        struct df_error *err)
{
        struct ad_move_position *grown, *p;

        if (df_task_suppressed(df_session_task(s)))
                return df_fail(err, DF_ESCHEMA,
                               "%s is being recovered from the log: start `adtally up` on the file "
                               "log, wait until it has caught up, stop it, then migrate (K10)",
                               task->name);
        grown = realloc(m->positions, (m->position_count + 1) * sizeof(*grown));
        if (!grown)
                return df_fail(err, DF_ENOMEM, "positions");
        m->positions = grown;
        p = &grown[m->position_count];
        *p = (struct ad_move_position){.partition = task->config.source.partition,
                                       .offset = df_task_position(df_session_task(s))};
        (void)snprintf(p->stream, sizeof(p->stream), "%s", task->config.source.stream);
        m->position_count +=
                df_session_metadata(s, p->metadata); /* else it begins anew there, too */
        return 0;
}

/* Its takeover writes what the log lacks of the last checkpoint (K4). */
static int settle(void *arg, const struct df_worker_task *task, struct df_error *err)
{
        struct df_session_ports ports = task->ports;
        struct df_session *s = NULL;
        int rc = ad_move_step("settle", err);

        if (rc == 0)
                rc = task->open_state(task->open_arg, NULL, &ports, err);
        if (rc == 0)
                rc = df_session_open(&task->config, &ports, &s, err);
        if (rc == 0)
                rc = add_position(arg, task, s, err);
        df_session_close(s);
        df_ckpt_close(ports.ckpt);
        return rc;
}

int ad_move_settle(struct ad_move *m, struct df_error *err)
{
        struct df_log_writer *billing = NULL;
        int rc;

        for (size_t i = 0; i < m->topic_count; i++)
                if (strcmp(m->topics[i].info.name, AD_TOPIC_BILLING) == 0)
                        billing = m->topics[i].writer;
        m->position_count = 0;
        rc = ad_tasks_each(m->tasks, settle, m, err);
        if (rc == 0)
                rc = ad_books_task(m->config, m->from, billing, settle, m, err);
        return rc < 0 ? rc : look_again(m, err); /* with what was appended now */
}

/* ---- the switch ---- */

static int seal(const struct ad_move *m, struct df_error *err)
{
        int rc = ad_move_step("seal", err);

        for (size_t i = 0; rc == 0 && i < m->topic_count; i++)
                if (!m->topics[i].finished)
                        rc = df_kafka_copy_seal(m->to, m->topics[i].info.name, err);
        return rc;
}

static int commit(const struct ad_move *m, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < m->position_count; i++) {
                const struct ad_move_position *p = &m->positions[i];
                bool books = strcmp(p->stream, AD_TOPIC_RUNS) == 0;

                rc = ad_move_step("commit", err);
                if (rc == 0)
                        rc = df_kafka_copy_commit(m->to, books ? AD_GROUP_BOOKS : AD_GROUP_REALTIME,
                                                  p->stream, p->partition, p->offset, p->metadata,
                                                  err);
        }
        return rc;
}

static int finish(const struct ad_move *m, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < m->topic_count; i++) {
                rc = ad_move_step("finish", err);
                if (rc == 0)
                        rc = df_kafka_copy_finish(m->to, &m->topics[i].info, err);
        }
        return rc;
}

static int count_topic(void *arg, const struct df_topic_info *info)
{
        (void)info;
        ++*(size_t *)arg;
        return 0;
}

/* Since the mark none can be made; one that an import made since the list is not copied yet. */
static int check_complete(const struct ad_move *m, struct df_error *err)
{
        size_t count = 0;
        int rc = df_log_topic_list(m->from, "", count_topic, &count, err);

        if (rc == 0 && count != m->topic_count)
                rc = df_fail(err, DF_EAGAIN, "a topic was made meanwhile");
        return rc;
}

int ad_move_switch(struct ad_move *m, struct df_error *err)
{
        int rc = seal(m, err);

        if (rc == 0)
                rc = commit(m, err);
        if (rc == 0)
                rc = ad_move_step("mark", err);
        if (rc == 0)
                rc = df_filelog_mark_moved(m->from, m->target, err);
        if (rc == 0)
                rc = check_complete(m, err);
        return rc == 0 ? finish(m, err) : rc;
}
