/* worker_group.c - a worker as a member of a group: what it is assigned, and what it gives up.
 *
 *   any     commits under way end first, and are judged as ever
 *   REVOKE  commit what is processed, then park: the session stays as it is
 *   ASSIGN  parked and assigned again: kept, if nobody committed in between (K9); else closed and
 *           taken over; not assigned: closed, another member's
 *   LOST    closed without a commit; taken over only after the next ASSIGN (K7)
 * A task that lost its partition asks for an assignment of its own: the member leaves and comes
 * back, and what it is told then was decided after the loss. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/trace.h"
#include "run_private.h"

#define GROUP_RETRY_MS 1000

static const char *const changes[] = {"none", "assign", "revoke", "lost"};

static struct dfi_slot *find(struct dfi_worker *w, const struct df_partition *p)
{
        for (struct dfi_slot *s = w->slots; s; s = s->next)
                if (s->task.config.source.partition == p->partition &&
                    strcmp(s->task.config.source.stream, p->topic) == 0)
                        return s;
        return NULL;
}

static bool assigned(const struct df_group_event *e, const struct dfi_slot *s)
{
        for (size_t i = 0; i < e->count; i++)
                if (s->task.config.source.partition == e->partitions[i].partition &&
                    strcmp(s->task.config.source.stream, e->partitions[i].topic) == 0)
                        return true;
        return false;
}

/* A topic that was created again has other tasks: the old slot's are of no use. */
static void refresh(struct dfi_worker *w, struct dfi_slot *s, const struct df_worker_task *task)
{
        pthread_mutex_lock(&w->pool->lock);
        s->task = *task;
        s->task.name = s->name;
        s->view.source = task->config.source;
        pthread_mutex_unlock(&w->pool->lock);
}

static int take(struct dfi_worker *w, const struct df_partition *p, struct df_error *err)
{
        const struct df_workers_options *o = &w->pool->options;
        struct dfi_slot *s = find(w, p);
        struct df_worker_task task;
        int rc;

        if (s && s->session) {
                rc = df_session_keep(s->session, err);
                if (rc == 0) {
                        s->state = DFI_OPEN;
                        df_trace(DF_INFO, "group", "task=%s kept", s->name);
                        return 0;
                }
                df_trace(DF_INFO, "group", "task=%s is taken over again code=%s: %s", s->name,
                         df_err_code(rc), err->text);
                dfi_slot_close(s);
        }
        rc = o->task_of(o->group_arg, p, &task, err);
        if (rc < 0)
                return rc;
        if (s) {
                refresh(w, s, &task);
        } else {
                s = dfi_slot_new(&task, err);
                if (!s)
                        return DF_ENOMEM;
                pthread_mutex_lock(&w->pool->lock);
                s->next = w->slots;
                w->slots = s;
                pthread_mutex_unlock(&w->pool->lock);
        }
        s->state = DFI_CLOSED;
        s->retry_ms = 0;
        return 0;
}

/* False: something assigned could not be taken; the member must ask again. */
static bool follow_assign(struct dfi_worker *w, const struct df_group_event *e)
{
        struct df_error err = {0};
        bool all = true;

        for (struct dfi_slot *s = w->slots; s; s = s->next) {
                if (assigned(e, s))
                        continue;
                dfi_slot_close(s);
                s->state = DFI_AWAY;
                dfi_slot_show(w, s);
        }
        for (size_t i = 0; i < e->count; i++) {
                if (take(w, &e->partitions[i], &err) == 0)
                        continue;
                all = false;
                df_trace(DF_ERROR, "group", "task=%s/%u code=%s: %s", e->partitions[i].topic,
                         e->partitions[i].partition, df_err_code(err.code), err.text);
        }
        for (struct dfi_slot *s = w->slots; s; s = s->next)
                dfi_slot_show(w, s);
        return all;
}

static void follow_revoke(struct dfi_worker *w)
{
        for (struct dfi_slot *s = w->slots; s; s = s->next) {
                if (s->state == DFI_CLOSED)
                        s->state = DFI_WAITING; /* failed, and perhaps another's from now on (K7) */
                if (s->state != DFI_OPEN)
                        continue;
                s->state = DFI_PARKED;
                if (df_task_dirty(df_session_task(s->session)))
                        dfi_commit_ask(w, s);
        }
        for (struct dfi_slot *s = dfi_commits_done(w, true); s; s = s->queued) {
                s->state = DFI_PARKED;
                if (s->commit_rc == 0 || df_err_action(s->commit_rc) == DF_RETRY)
                        continue;
                dfi_slot_close(s);
                s->state = DFI_WAITING;
                df_trace(DF_WARN, "group", "task=%s given up without a commit code=%s: %s", s->name,
                         df_err_code(s->commit_rc), s->commit_error.text);
        }
}

static void follow_lost(struct dfi_worker *w)
{
        for (struct dfi_slot *s = w->slots; s; s = s->next) {
                if (s->state == DFI_AWAY)
                        continue;
                dfi_slot_close(s);
                s->state = DFI_WAITING;
                dfi_slot_show(w, s);
        }
}

/* Copied: subscribe may take long, and the pool's lock is everybody's. */
static int subscribe(struct dfi_worker *w, struct df_error *err)
{
        struct df_workers *p = w->pool;
        char(*names)[DF_TOPIC_NAME_MAX + 1] = NULL;
        const char **topics = NULL;
        uint64_t version;
        size_t count;
        int rc = 0;

        pthread_mutex_lock(&p->lock);
        version = p->topics_version;
        count = p->topic_count;
        if (version != w->topics_version && count > 0) {
                names = calloc(count, sizeof(*names));
                topics = calloc(count, sizeof(*topics));
                for (size_t i = 0; names && topics && i < count; i++) {
                        (void)snprintf(names[i], sizeof(names[i]), "%s", p->topics[i]);
                        topics[i] = names[i];
                }
        }
        pthread_mutex_unlock(&p->lock);
        if (version == w->topics_version || count == 0)
                return 0;
        if (names && topics)
                rc = df_group_subscribe(w->group, topics, count, err);
        else
                rc = df_fail(err, DF_ENOMEM, "%zu topics", count);
        if (rc == 0)
                w->topics_version = version;
        free(names);
        free(topics);
        return rc;
}

static void fail(struct dfi_worker *w, int64_t now, const struct df_error *err)
{
        w->group_retry_ms = now + GROUP_RETRY_MS;
        df_trace(err->code == DF_EFENCED ? DF_ERROR : DF_WARN, "group", "worker=%u code=%s: %s",
                 w->index, df_err_code(err->code), err->text);
        if (err->code != DF_EFENCED)
                return;
        pthread_mutex_lock(&w->pool->lock);
        w->pool->failed = *err;
        pthread_mutex_unlock(&w->pool->lock);
        df_process_stop();
}

void dfi_group_follow(struct dfi_worker *w)
{
        const struct df_workers_options *o = &w->pool->options;
        struct df_group_event e = {.change = DF_GROUP_NONE};
        int64_t now = df_monotonic_ms();
        struct df_error err = {0};
        int rc = 0;

        if (now < w->group_retry_ms)
                return;
        if (!w->group)
                rc = o->open_group(o->group_arg, w->index, &w->group, &err);
        if (rc == 0)
                rc = subscribe(w, &err);
        if (rc == 0 && w->rejoin)
                df_group_rejoin(w->group);
        w->rejoin = false;
        if (rc == 0 && w->topics_version > 0)
                rc = df_group_poll(w->group, 0, &e, &err);
        if (rc < 0) {
                fail(w, now, &err);
                return;
        }
        if (e.change == DF_GROUP_NONE)
                return;
        df_trace(DF_INFO, "group", "worker=%u change=%s partitions=%zu", w->index,
                 changes[e.change], e.count);
        /* Commits under way end first, with the membership that they began with: until `done` the
         * member keeps it. */
        dfi_commits_follow(w, true);
        if (e.change == DF_GROUP_ASSIGN)
                w->rejoin |= !follow_assign(w, &e);
        else if (e.change == DF_GROUP_REVOKE)
                follow_revoke(w);
        else
                follow_lost(w);
        if (e.change != DF_GROUP_ASSIGN)
                w->rejoin = false; /* the next assignment is decided after this in any case */
        df_group_done(w->group);
}
