/* worker_commit.c - commits beside the work: what is due is done by the pool's commit threads.
 *
 * A slot in DFI_COMMITTING belongs, with its session and ports, to the queue and then to one commit
 * thread; its worker goes on with the other slots and touches it no more until it comes back. What
 * became of the commit is the worker's to judge: a commit thread changes no state but this.
 * The queue is first come, first served, so a slot waits at most for one commit of each other task.
 * All hand-overs are under the pool's lock, which is also what makes one thread's writes to a
 * session visible to the next. */
#include <stdlib.h>

#include "run_private.h"

/* K12: interval = 10 x the median commit time, so that work stands still for a tenth at most. Where
 * the log is read to its end there is no work to hold up, but somebody who waits for the number:
 * 4 x, which still leaves the disk and the broker three quarters of their time. */
#define INTERVAL_FACTOR 10
#define CAUGHT_UP_FACTOR 4
/* A checkpoint of so many events takes its time by their number: to wait for more only makes the
 * next one longer, and with it the interval, until numbers are ten seconds old. */
#define MANY_EVENTS 2097152

static int64_t interval_ms(const struct df_workers_options *o, const struct dfi_slot *s, int factor)
{
        int64_t v = factor * dfi_median(s->commit_ms, s->commits);

        if (v < o->interval_min_ms)
                v = o->interval_min_ms;
        return v > o->interval_max_ms ? o->interval_max_ms : v;
}

bool dfi_cadence_due(const struct df_workers_options *o, const struct dfi_slot *s, int64_t now,
                     uint64_t new_events, bool caught_up)
{
        if (now >= (caught_up ? s->caught_up_commit_ms : s->next_commit_ms))
                return true;
        return new_events >= MANY_EVENTS && now - s->asked_ms >= o->interval_min_ms;
}

/* ---- the commit threads ---- */

static struct dfi_slot *take_queued(struct df_workers *p)
{
        struct dfi_slot *s;

        while (!p->queue && !p->no_more)
                (void)pthread_cond_wait(&p->work, &p->lock);
        s = p->queue;
        if (!s)
                return NULL;
        p->queue = s->queued;
        if (!p->queue)
                p->queue_end = &p->queue;
        return s;
}

static void give_back(struct dfi_slot *s)
{
        struct dfi_worker *w = s->worker;

        s->queued = w->returned;
        w->returned = s;
        w->committing--;
        pthread_cond_broadcast(&w->pool->wake);
}

static void *commit_main(void *arg)
{
        struct df_workers *p = arg;
        struct dfi_slot *s;

        pthread_mutex_lock(&p->lock);
        while ((s = take_queued(p)) != NULL) {
                pthread_mutex_unlock(&p->lock);
                s->began_ms = df_monotonic_ms();
                s->commit_error = (struct df_error){0};
                s->commit_rc = df_session_commit(s->session, &s->commit_error);
                s->ended_ms = df_monotonic_ms();
                pthread_mutex_lock(&p->lock);
                give_back(s);
        }
        pthread_mutex_unlock(&p->lock);
        return NULL;
}

int dfi_commits_start(struct df_workers *p, struct df_error *err)
{
        uint32_t wanted = p->options.commit_threads;

        p->queue_end = &p->queue;
        p->committers = calloc(wanted, sizeof(*p->committers));
        if (!p->committers)
                return df_fail(err, DF_ENOMEM, "%u commit threads", wanted);
        for (; p->committer_count < wanted; p->committer_count++)
                if (pthread_create(&p->committers[p->committer_count], NULL, commit_main, p) != 0)
                        return df_fail(err, DF_EAGAIN, "commit thread %u of %u",
                                       p->committer_count + 1, wanted);
        return 0;
}

void dfi_commits_stop(struct df_workers *p)
{
        pthread_mutex_lock(&p->lock);
        p->no_more = true;
        pthread_cond_broadcast(&p->work);
        pthread_mutex_unlock(&p->lock);
        while (p->committer_count > 0)
                (void)pthread_join(p->committers[--p->committer_count], NULL);
        free(p->committers);
        p->committers = NULL;
}

/* ---- the worker's side ---- */

void dfi_commit_ask(struct dfi_worker *w, struct dfi_slot *s)
{
        struct df_workers *p = w->pool;

        s->state = DFI_COMMITTING;
        s->worker = w;
        s->asked_ms = df_monotonic_ms();
        s->events_asked = df_task_events(df_session_task(s->session));
        s->queued = NULL;
        pthread_mutex_lock(&p->lock);
        *p->queue_end = s;
        p->queue_end = &s->queued;
        w->committing++;
        pthread_cond_signal(&p->work);
        pthread_mutex_unlock(&p->lock);
}

/* The wait in the queue counts as commit time: where the commit threads cannot follow, the
 * interval grows until they can, and a partition stands still a tenth of its time at most, up to
 * the longest interval (K12). */
static void note_commit(struct dfi_worker *w, struct dfi_slot *s)
{
        const struct df_workers_options *o = &w->pool->options;
        int64_t now = df_monotonic_ms();

        s->commit_ms[s->commits++ % DFI_MEDIAN_OF] = s->ended_ms - s->asked_ms;
        s->last_commit_ms = s->ended_ms;
        s->next_commit_ms = s->asked_ms + interval_ms(o, s, INTERVAL_FACTOR);
        if (s->next_commit_ms < now + 1)
                s->next_commit_ms = now + 1;
        s->caught_up_commit_ms = s->asked_ms + interval_ms(o, s, CAUGHT_UP_FACTOR);
        if (s->caught_up_commit_ms < now + 1)
                s->caught_up_commit_ms = now + 1;
        s->failures = 0;
        pthread_mutex_lock(&w->pool->lock);
        s->view.committed_ms = df_wall_ms();
        w->pool->commit_ms[w->pool->commits++ % DFI_COMMITS_OF] = s->ended_ms - s->began_ms;
        pthread_mutex_unlock(&w->pool->lock);
        dfi_slot_show(w, s);
}

struct dfi_slot *dfi_commits_done(struct dfi_worker *w, bool all)
{
        struct df_workers *p = w->pool;
        struct dfi_slot *list;

        pthread_mutex_lock(&p->lock);
        while (all && w->committing > 0)
                (void)pthread_cond_wait(&p->wake, &p->lock);
        list = w->returned;
        w->returned = NULL;
        pthread_mutex_unlock(&p->lock);
        for (struct dfi_slot *s = list; s; s = s->queued) {
                s->state = DFI_OPEN;
                if (s->commit_rc == 0)
                        note_commit(w, s);
        }
        return list;
}
