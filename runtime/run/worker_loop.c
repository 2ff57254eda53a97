/* worker_loop.c - what a worker does: take over, poll, commit in time, drain (K7, K11, K12). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "df/trace.h"
#include "run_private.h"

#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define IDLE_SLEEP_MS 3
#define PAUSE_MS 500 /* after an error that asks for the same call again */

int dfi_compare_ms(const void *a, const void *b)
{
        int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

        return (x > y) - (x < y);
}

int64_t dfi_median(const int64_t *ring, uint64_t count)
{
        int64_t sorted[DFI_MEDIAN_OF];
        size_t n = count < DFI_MEDIAN_OF ? (size_t)count : DFI_MEDIAN_OF;

        if (n == 0)
                return 0;
        memcpy(sorted, ring, n * sizeof(*sorted));
        qsort(sorted, n, sizeof(*sorted), dfi_compare_ms);
        return sorted[n / 2];
}

void dfi_slot_close(struct dfi_slot *s)
{
        if (s->session) {
                s->events += df_task_events(df_session_task(s->session));
                df_session_profile(s->session, &s->profile);
        }
        df_session_close(s->session);
        s->session = NULL;
        df_txn_close(s->task.ports.txn);
        s->task.ports.txn = NULL;
        df_ckpt_close(s->task.ports.ckpt);
        s->task.ports.ckpt = NULL;
}

void dfi_slot_fail(struct dfi_worker *w, struct dfi_slot *s, const struct df_error *err)
{
        int64_t backoff = BACKOFF_MIN_MS << (s->failures < 6 ? s->failures : 6);
        /* In a group another worker, perhaps of this process, has yet to hear that it lost the
         * partition: it still holds the state directory. */
        bool passing = err->code == DF_ECLOSED || (err->code == DF_EFENCED && w->group);

        dfi_slot_close(s);
        if (df_err_action(err->code) == DF_STOP && !passing) {
                s->state = DFI_REFUSED;
                df_trace(DF_ERROR, "worker", "task=%s refused code=%s: %s", s->name,
                         df_err_code(err->code), err->text);
        } else if (err->code == DF_ELOST && w->group) {
                /* Two owners must not fence each other in turn (K7). */
                s->state = DFI_WAITING;
                s->restarts++;
                w->rejoin = true;
                df_trace(DF_WARN, "worker", "task=%s waits for an assignment code=%s: %s", s->name,
                         df_err_code(err->code), err->text);
        } else {
                s->state = DFI_CLOSED;
                s->failures++;
                s->restarts++;
                if (backoff > BACKOFF_MAX_MS)
                        backoff = BACKOFF_MAX_MS;
                s->retry_ms = df_monotonic_ms() + backoff;
                df_trace(DF_WARN, "worker", "task=%s restarts in %lld ms code=%s: %s", s->name,
                         (long long)backoff, df_err_code(err->code), err->text);
        }
        pthread_mutex_lock(&w->pool->lock);
        s->view.refused = s->state == DFI_REFUSED ? err->code : 0;
        (void)snprintf(s->refusal, sizeof(s->refusal), "%s", err->text);
        pthread_mutex_unlock(&w->pool->lock);
}

/* The session is as it was, or says at the next call that it is not (df/task.h): wait and call
 * again. */
static void pause_slot(struct dfi_slot *s, int64_t now, const struct df_error *err)
{
        s->retry_ms = now + PAUSE_MS;
        if (s->failures++ % 60 == 0)
                df_trace(DF_WARN, "worker", "task=%s waits code=%s: %s", s->name,
                         df_err_code(err->code), err->text);
}

void dfi_slot_show(struct dfi_worker *w, struct dfi_slot *s)
{
        struct df_task *t = s->session ? df_session_task(s->session) : NULL;
        uint64_t lag = s->session ? df_session_lag(s->session) : DF_LAG_UNKNOWN;

        pthread_mutex_lock(&w->pool->lock);
        s->view.running = s->state == DFI_OPEN || s->state == DFI_PARKED;
        s->shown = s->state != DFI_AWAY;
        if (s->state == DFI_OPEN) { /* what refused it, or made it restart, is over */
                s->view.refused = 0;
                s->refusal[0] = '\0';
        }
        if (t) {
                s->view.source = *df_task_source(t);
                s->view.k = df_task_k(t);
                s->view.position = df_task_position(t);
                s->view.watermark_ms = df_task_clock(t)->watermark_ms;
                s->view.epoch = df_session_epoch(s->session);
                s->view.done = df_session_done(s->session);
                s->view.events = s->events + df_task_events(t);
                s->view.profile = s->profile;
                df_session_profile(s->session, &s->view.profile);
        }
        s->view.lag_records = lag;
        s->view.commit_median_ms = dfi_median(s->commit_ms, s->commits);
        s->view.restarts = s->restarts;
        s->view.commits = s->commits;
        s->view.records = s->records;
        pthread_mutex_unlock(&w->pool->lock);
}

static void open_slot(struct dfi_worker *w, struct dfi_slot *s)
{
        const struct df_workers_options *o = &w->pool->options;
        struct df_error err = {0};
        int64_t began = df_monotonic_ms(), now;
        int rc = s->task.open_state(s->task.open_arg, w->group, &s->task.ports, &err);

        if (rc == 0)
                rc = df_session_open(&s->task.config, &s->task.ports, &s->session, &err);
        if (rc < 0) {
                dfi_slot_fail(w, s, &err);
                dfi_slot_show(w, s);
                return;
        }
        now = df_monotonic_ms();
        s->state = DFI_OPEN;
        s->last_commit_ms = now;
        s->asked_ms = now;
        s->events_asked = 0;
        /* Staggered: partitions of a worker do not commit at the same moment (K12). */
        s->caught_up_commit_ms = s->next_commit_ms =
                now + o->interval_min_ms +
                (int64_t)s->task.config.source.partition * 37 % o->interval_min_ms;
        df_trace(DF_INFO, "worker", "task=%s taken over k=%llu epoch=%llu position=%llu in %lld ms",
                 s->name, (unsigned long long)df_task_k(df_session_task(s->session)),
                 (unsigned long long)df_session_epoch(s->session),
                 (unsigned long long)df_task_position(df_session_task(s->session)),
                 (long long)(now - began));
        pthread_mutex_lock(&w->pool->lock);
        s->view.takeover_ms = now - began;
        pthread_mutex_unlock(&w->pool->lock);
        dfi_slot_show(w, s);
}

static bool commit_due(const struct df_workers_options *o, const struct dfi_slot *s, int64_t now,
                       bool caught_up)
{
        struct df_task *t = df_session_task(s->session);

        if (df_task_wants_cut(t))
                return true;
        if (!df_task_dirty(t) ||
            !dfi_cadence_due(o, s, now, df_task_events(t) - s->events_asked, caught_up))
                return false;
        /* The first one early: until then readers know nothing of this source. */
        return df_task_has_news(t) || df_task_k(t) == 0 ||
               now - s->last_commit_ms >= o->idle_commit_ms;
}

/* A poll or a commit failed: the same again later, or as dfi_slot_fail decides. */
static void handle(struct dfi_worker *w, struct dfi_slot *s, int rc, const struct df_error *err)
{
        if (df_err_action(rc) == DF_RETRY) {
                pause_slot(s, df_monotonic_ms(), err);
                return;
        }
        dfi_slot_fail(w, s, err);
        dfi_slot_show(w, s);
}

void dfi_commits_follow(struct dfi_worker *w, bool all)
{
        for (struct dfi_slot *s = dfi_commits_done(w, all); s; s = s->queued)
                if (s->commit_rc < 0)
                        handle(w, s, s->commit_rc, &s->commit_error);
}

static bool is_stopping(struct dfi_worker *w)
{
        bool stop;

        pthread_mutex_lock(&w->pool->lock);
        stop = w->pool->stop;
        pthread_mutex_unlock(&w->pool->lock);
        return stop;
}

static bool may_open(const struct dfi_worker *w)
{
        uint32_t most = w->pool->options.open_max, open = 0;

        for (const struct dfi_slot *s = w->slots; s && most > 0; s = s->next)
                open += s->session != NULL;
        return most == 0 || open < most;
}

/* Its memory is for the next one. What it has shown last stays. */
static void end_done(struct dfi_worker *w)
{
        for (struct dfi_slot *s = w->slots; s; s = s->next) {
                if (s->state != DFI_OPEN || !df_session_done(s->session))
                        continue;
                dfi_slot_show(w, s);
                dfi_slot_close(s);
                s->state = DFI_ENDED;
                dfi_slot_show(w, s);
                df_trace(DF_INFO, "worker", "task=%s done", s->name);
        }
}

/* One step of one slot; true when it did something. There may be many to open, each for a second or
 * more: neither the group, which waits for its members, nor the stop waits for all of them. */
static bool step_slot(struct dfi_worker *w, struct dfi_slot *s)
{
        const struct df_workers_options *o = &w->pool->options;
        struct df_error err = {0};
        size_t processed = 0;
        int64_t now = df_monotonic_ms();
        int rc;

        if (s->state == DFI_CLOSED && now >= s->retry_ms && may_open(w) && !is_stopping(w)) {
                open_slot(w, s);
                if (o->open_group)
                        dfi_group_follow(w);
        }
        if (s->state != DFI_OPEN || now < s->retry_ms)
                return false;
        rc = df_session_poll(s->session, o->poll_records, &processed, &err);
        if (rc < 0) {
                handle(w, s, rc, &err);
                return processed > 0;
        }
        s->records += processed;
        if (!commit_due(o, s, now, processed == 0))
                return processed > 0;
        dfi_commit_ask(w, s);
        return true;
}

static void drain(struct dfi_worker *w)
{
        dfi_commits_follow(w, true);
        for (struct dfi_slot *s = w->slots; s; s = s->next)
                if ((s->state == DFI_OPEN || s->state == DFI_PARKED) &&
                    df_task_dirty(df_session_task(s->session)))
                        dfi_commit_ask(w, s);
        for (struct dfi_slot *s = dfi_commits_done(w, true); s; s = s->queued)
                if (s->commit_rc < 0)
                        df_trace(DF_WARN, "worker",
                                 "task=%s last commit failed, replayed at next start: %s", s->name,
                                 s->commit_error.text);
        for (struct dfi_slot *s = w->slots; s; s = s->next) {
                dfi_slot_close(s);
                if (s->state == DFI_OPEN)
                        s->state = DFI_ENDED;
                dfi_slot_show(w, s);
        }
}

/* Adopt new tasks; sleep when idle; false when it is time to stop. */
static bool between_rounds(struct dfi_worker *w, bool idle)
{
        struct df_workers *p = w->pool;
        bool go_on;

        pthread_mutex_lock(&p->lock);
        if (idle && !p->stop && !w->arrived && !w->returned) {
                struct timespec until;

                (void)clock_gettime(CLOCK_MONOTONIC, &until);
                until.tv_nsec += IDLE_SLEEP_MS * 1000000;
                if (until.tv_nsec >= 1000000000) {
                        until.tv_sec++;
                        until.tv_nsec -= 1000000000;
                }
                (void)pthread_cond_timedwait(&p->wake, &p->lock, &until);
        }
        while (w->arrived) {
                struct dfi_slot *s = w->arrived;

                w->arrived = s->next;
                s->next = w->slots;
                w->slots = s;
        }
        if (w->retries != p->retries)
                for (struct dfi_slot *s = w->slots; s; s = s->next)
                        if (s->state == DFI_REFUSED)
                                s->state = DFI_CLOSED; /* retry_ms has passed long ago */
        w->retries = p->retries;
        w->held = p->held;
        go_on = !p->stop;
        pthread_mutex_unlock(&p->lock);
        return go_on;
}

/* In turn, or the first that can be worked on. */
static bool step_slots(struct dfi_worker *w)
{
        bool one = w->pool->options.open_max > 0, busy = false;

        for (struct dfi_slot *s = w->slots; s && !(one && busy); s = s->next)
                busy |= step_slot(w, s);
        if (one)
                end_done(w);
        return busy;
}

void *dfi_worker_main(void *arg)
{
        struct dfi_worker *w = arg;
        int64_t viewed_ms = 0;
        bool busy = false;

        while (between_rounds(w, !busy)) {
                int64_t now = df_monotonic_ms();

                dfi_commits_follow(w, false);
                if (w->pool->options.open_group)
                        dfi_group_follow(w);
                busy = !w->held && step_slots(w);
                if (now - viewed_ms >= 500) {
                        viewed_ms = now;
                        for (struct dfi_slot *s = w->slots; s; s = s->next)
                                if (s->state != DFI_COMMITTING)
                                        dfi_slot_show(w, s);
                }
        }
        drain(w);
        df_group_close(w->group);
        w->group = NULL;
        return NULL;
}
