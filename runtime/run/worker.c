/* worker.c - the pool: who owns which task, and what the outside sees of them. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "run_private.h"

static void set_default(int64_t *v, int64_t value)
{
        if (*v == 0)
                *v = value;
}

int df_workers_create(const struct df_workers_options *options, struct df_workers **ret,
                      struct df_error *err)
{
        struct df_workers *p = calloc(1, sizeof(*p));
        pthread_condattr_t attr;
        int rc;

        if (!p)
                return df_fail(err, DF_ENOMEM, "workers");
        p->options = *options;
        if (p->options.threads == 0)
                p->options.threads = 1;
        set_default(&p->options.interval_min_ms, 500);
        set_default(&p->options.interval_max_ms, 10000);
        set_default(&p->options.idle_commit_ms, 30000);
        if (p->options.commit_threads == 0)
                p->options.commit_threads = DF_COMMIT_THREADS;
        if (p->options.poll_records == 0)
                p->options.poll_records = 512;
        pthread_mutex_init(&p->lock, NULL);
        pthread_condattr_init(&attr);
        pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* the wall may be set back an hour */
        pthread_cond_init(&p->wake, &attr);
        pthread_condattr_destroy(&attr);
        pthread_cond_init(&p->work, NULL);
        p->workers = calloc(p->options.threads, sizeof(*p->workers));
        rc = p->workers ? dfi_commits_start(p, err) : df_fail(err, DF_ENOMEM, "workers");
        if (rc < 0) {
                df_workers_destroy(p);
                return rc;
        }
        for (uint32_t i = 0; i < p->options.threads; i++) {
                struct dfi_worker *w = &p->workers[i];

                w->pool = p;
                w->index = i;
                if (pthread_create(&w->thread, NULL, dfi_worker_main, w) != 0) {
                        df_workers_destroy(p);
                        return df_fail(err, DF_EAGAIN, "worker thread %u of %u", i + 1,
                                       p->options.threads);
                }
                w->started = true;
        }
        *ret = p;
        return 0;
}

struct dfi_slot *dfi_slot_new(const struct df_worker_task *task, struct df_error *err)
{
        struct dfi_slot *s = calloc(1, sizeof(*s));

        if (!s) {
                (void)df_fail(err, DF_ENOMEM, "task %s", task->name);
                return NULL;
        }
        s->task = *task;
        (void)snprintf(s->name, sizeof(s->name), "%s", task->name);
        s->task.name = s->name;
        s->view.name = s->name;
        s->view.refusal = s->refusal;
        s->view.source = task->config.source;
        s->view.watermark_ms = DF_TIME_MIN;
        s->shown = true;
        return s;
}

int df_workers_add(struct df_workers *p, const struct df_worker_task *task, struct df_error *err)
{
        struct dfi_slot *s = dfi_slot_new(task, err);
        struct dfi_worker *least = &p->workers[0];

        if (!s)
                return DF_ENOMEM;
        pthread_mutex_lock(&p->lock);
        for (uint32_t i = 1; i < p->options.threads; i++)
                if (p->workers[i].slot_count < least->slot_count)
                        least = &p->workers[i];
        least->slot_count++;
        s->next = least->arrived;
        least->arrived = s;
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
        return 0;
}

static void free_topics(const char **topics, size_t count)
{
        for (size_t i = 0; topics && i < count; i++)
                free((void *)(uintptr_t)topics[i]);
        free(topics);
}

int df_workers_subscribe(struct df_workers *p, const char *const *topics, size_t count,
                         struct df_error *err)
{
        const char **copy = calloc(count + 1, sizeof(*copy));
        bool bad = !copy;

        for (size_t i = 0; copy && i < count; i++)
                bad |= (copy[i] = strdup(topics[i])) == NULL;
        if (bad) {
                free_topics(copy, count);
                return df_fail(err, DF_ENOMEM, "%zu topics", count);
        }
        pthread_mutex_lock(&p->lock);
        free_topics(p->topics, p->topic_count);
        p->topics = copy;
        p->topic_count = count;
        p->topics_version++;
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
        return 0;
}

int df_workers_failed(struct df_workers *p, struct df_error *err)
{
        int code;

        pthread_mutex_lock(&p->lock);
        code = p->failed.code;
        if (code && err)
                *err = p->failed;
        pthread_mutex_unlock(&p->lock);
        return code;
}

void df_workers_retry(struct df_workers *p)
{
        pthread_mutex_lock(&p->lock);
        p->retries++;
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
}

void df_workers_hold(struct df_workers *p, bool hold)
{
        pthread_mutex_lock(&p->lock);
        p->held = hold;
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
}

void df_workers_stop(struct df_workers *p)
{
        pthread_mutex_lock(&p->lock);
        p->stop = true;
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->lock);
        for (uint32_t i = 0; p->workers && i < p->options.threads; i++) {
                if (p->workers[i].started)
                        (void)pthread_join(p->workers[i].thread, NULL);
                p->workers[i].started = false;
        }
        dfi_commits_stop(p);
}

static void each_slot(struct dfi_slot *list,
                      void (*fn)(void *arg, const struct df_worker_view *view), void *arg)
{
        for (struct dfi_slot *s = list; s; s = s->next)
                if (s->shown)
                        fn(arg, &s->view);
}

void df_workers_each(struct df_workers *p, void (*fn)(void *arg, const struct df_worker_view *view),
                     void *arg)
{
        pthread_mutex_lock(&p->lock);
        for (uint32_t i = 0; i < p->options.threads; i++) {
                each_slot(p->workers[i].slots, fn, arg);
                each_slot(p->workers[i].arrived, fn, arg);
        }
        pthread_mutex_unlock(&p->lock);
}

static void render_view(void *arg, const struct df_worker_view *v)
{
        struct df_buf *b = arg;
        char l[256], refused[320];
        int64_t now = df_wall_ms();

        (void)snprintf(l, sizeof(l), "stream=\"%s\",partition=\"%u\"", v->source.stream,
                       v->source.partition);
        df_metric(b, "adtally_task_running", l, v->running);
        if (v->lag_records != DF_LAG_UNKNOWN)
                df_metric(b, "adtally_task_lag_records", l, (double)v->lag_records);
        df_metric(b, "adtally_task_position", l, (double)v->position);
        df_metric(b, "adtally_task_epoch", l, (double)v->epoch);
        df_metric(b, "adtally_task_records_total", l, (double)v->records);
        df_metric(b, "adtally_task_restarts_total", l, (double)v->restarts);
        df_metric(b, "adtally_checkpoint_number", l, (double)v->k);
        df_metric(b, "adtally_checkpoints_total", l, (double)v->commits);
        df_metric(b, "adtally_checkpoint_median_seconds", l, (double)v->commit_median_ms / 1000);
        df_metric(b, "adtally_takeover_seconds", l, (double)v->takeover_ms / 1000);
        if (v->committed_ms)
                df_metric(b, "adtally_checkpoint_age_seconds", l,
                          (double)(now - v->committed_ms) / 1000);
        if (v->watermark_ms != DF_TIME_MIN && v->watermark_ms != DF_TIME_MAX)
                df_metric(b, "adtally_watermark_lag_seconds", l,
                          (double)(now - v->watermark_ms) / 1000);
        (void)snprintf(refused, sizeof(refused), "%s,code=\"%s\"", l, df_err_code(v->refused));
        if (v->refused)
                df_metric(b, "adtally_partition_refused", refused, 1);
}

static void add_profile(void *arg, const struct df_worker_view *v)
{
        df_profile_add(arg, &v->profile);
}

/* Of all tasks together: a line a partition would be hundreds. */
static void render_profile(struct df_workers *p, struct df_buf *b)
{
        struct df_profile sum = {0};
        char label[64];

        df_workers_each(p, add_profile, &sum);
        for (size_t i = 0; i < sum.count; i++) {
                const struct df_profile_line *l = &sum.lines[i];

                (void)snprintf(label, sizeof(label), "%s=\"%s\"", l->step ? "step" : "operator",
                               l->name);
                if (l->step) {
                        df_metric(b, "adtally_step_seconds_total", label,
                                  (double)l->process_ns / 1e9);
                        df_metric(b, "adtally_step_calls_total", label, (double)l->calls);
                        continue;
                }
                df_metric(b, "adtally_operator_calls_total", label, (double)l->calls);
                df_metric(b, "adtally_operator_items_total", label, (double)l->items);
                df_metric(b, "adtally_operator_seconds_total", label, (double)l->process_ns / 1e9);
                df_metric(b, "adtally_operator_cut_seconds_total", label, (double)l->cut_ns / 1e9);
        }
}

static void render_commits(struct df_workers *p, struct df_buf *b)
{
        static const struct {
                const char *label;
                unsigned percent;
        } quantiles[] = {
                {"quantile=\"0.5\"", 50}, {"quantile=\"0.95\"", 95}, {"quantile=\"0.99\"", 99}};
        int64_t sorted[DFI_COMMITS_OF];
        size_t n;

        pthread_mutex_lock(&p->lock);
        n = p->commits < DFI_COMMITS_OF ? (size_t)p->commits : DFI_COMMITS_OF;
        memcpy(sorted, p->commit_ms, n * sizeof(*sorted));
        pthread_mutex_unlock(&p->lock);
        if (n == 0)
                return;
        qsort(sorted, n, sizeof(*sorted), dfi_compare_ms);
        for (size_t i = 0; i < sizeof(quantiles) / sizeof(quantiles[0]); i++)
                df_metric(b, "adtally_checkpoint_seconds", quantiles[i].label,
                          (double)sorted[(n - 1) * quantiles[i].percent / 100] / 1000);
}

void df_workers_render(struct df_workers *p, struct df_buf *b)
{
        df_workers_each(p, render_view, b);
        render_profile(p, b);
        render_commits(p, b);
}

static void free_slots(struct dfi_slot *s)
{
        while (s) {
                struct dfi_slot *next = s->next;

                free(s);
                s = next;
        }
}

void df_workers_destroy(struct df_workers *p)
{
        if (!p)
                return;
        df_workers_stop(p);
        for (uint32_t i = 0; p->workers && i < p->options.threads; i++) {
                free_slots(p->workers[i].slots);
                free_slots(p->workers[i].arrived);
        }
        free(p->workers);
        free_topics(p->topics, p->topic_count);
        pthread_mutex_destroy(&p->lock);
        pthread_cond_destroy(&p->wake);
        pthread_cond_destroy(&p->work);
        free(p);
}
