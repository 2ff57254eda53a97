#include "jobs/api/follow.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "df/run.h"
#include "df/trace.h"
#include "jobs/api/follow_private.h"
#include "jobs/common/settings.h"

#define POLL_MS 20
#define COMMIT_MS 100       /* at most so often, unless many rows wait */
#define COMMIT_IDLE_MS 5000 /* positions alone */
#define OUTSIDE_MS 1000
#define LEASE_MS 3600000
#define REOPEN_MIN_MS 500
#define REOPEN_MAX_MS 10000
#define SNAPSHOT_MS 600000
#define SNAPSHOT_BYTES (64u << 20)

static const char *const origins[] = {"kept", "restored", "empty"};

/* ---- the view's life ---- */

/* Whether `rollups` still holds its first record in every partition. */
static int look_rebuildable(struct ad_follow *f, struct df_error *err)
{
        bool whole = true;

        for (uint32_t p = 0; p < f->partitions; p++) {
                uint64_t first, end;
                int rc = df_log_bounds(f->options.log, AD_TOPIC_ROLLUPS, p, &first, &end, err);

                if (rc < 0)
                        return rc;
                whole &= first == 0;
        }
        f->view_options.rebuildable = whole || access(f->accept_path, F_OK) == 0;
        return 0;
}

static int open_view(struct ad_follow *f, enum ad_view_origin first, struct df_error *err)
{
        struct ad_view *view = NULL;
        char why[256];
        int rc = look_rebuildable(f, err);

        if (rc == 0)
                rc = ad_view_open(&f->view_options, first, &view, &f->origin, why, err);
        if (rc < 0)
                return rc;
        df_trace(DF_INFO, "follow", "view=%s%s%s", origins[f->origin], *why ? ": " : "", why);
        /* Nobody may see a view that knows of no lag and no refused partition. */
        adi_look_outside(f, view);
        rc = ad_view_outside(view, &f->outside, df_wall_ms(), err);
        if (rc < 0) {
                ad_view_close(view);
                return rc;
        }
        f->behind = true;
        f->opened_ns = df_monotonic_ns();
        memcpy(f->ends, f->outside.rollups_end, sizeof(f->ends));
        pthread_rwlock_wrlock(&f->lock);
        f->view = view;
        pthread_rwlock_unlock(&f->lock);
        return 0;
}

static void close_view(struct ad_follow *f)
{
        struct ad_view *view;

        adi_read_close(f);
        pthread_rwlock_wrlock(&f->lock);
        view = f->view;
        f->view = NULL;
        pthread_rwlock_unlock(&f->lock);
        ad_view_close(view); /* nobody holds it: readers keep the lock while they use it */
}

/* A damaged view is not opened again: its snapshot is, or, when that is damaged too, the log. */
static void view_failed(struct ad_follow *f, const struct df_error *err)
{
        int64_t wait = REOPEN_MIN_MS << (f->failures < 5 ? f->failures : 5);

        df_trace(DF_ERROR, "follow", "view: code=%s: %s", df_err_code(err->code), err->text);
        close_view(f);
        f->failures++;
        atomic_fetch_add(&f->counts.reopened, 1);
        f->reopen_ms = df_monotonic_ms() + (wait < REOPEN_MAX_MS ? wait : REOPEN_MAX_MS);
        if (err->code != DF_ECORRUPT)
                f->origin = AD_VIEW_KEPT;
        else if (f->origin != AD_VIEW_EMPTY)
                f->origin = f->origin == AD_VIEW_KEPT ? AD_VIEW_RESTORED : AD_VIEW_EMPTY;
}

static void reopen(struct ad_follow *f)
{
        struct df_error err = {0};

        if (df_monotonic_ms() < f->reopen_ms)
                return;
        if (open_view(f, f->origin, &err) < 0)
                view_failed(f, &err);
}

struct ad_view *ad_follow_take(struct ad_follow *f)
{
        pthread_rwlock_rdlock(&f->lock);
        if (f->view)
                return f->view;
        pthread_rwlock_unlock(&f->lock);
        return NULL;
}

void ad_follow_give(struct ad_follow *f)
{
        pthread_rwlock_unlock(&f->lock);
}

void ad_follow_suspect(struct ad_follow *f)
{
        atomic_store(&f->suspect, true);
}

/* ---- snapshots ---- */

static void release(struct ad_follow *f)
{
        struct df_error err = {0};

        f->lease_ms = df_monotonic_ms();
        for (uint32_t p = 0; p < f->partitions; p++)
                if (f->parts[p].reader &&
                    df_log_release(f->parts[p].reader, f->released[p], &err) < 0)
                        df_trace(DF_WARN, "follow", "release rollups/%u: %s", p, err.text);
}

static uint64_t commits_of(struct ad_follow *f)
{
        struct ad_status *s = ad_view_status(f->view);
        uint64_t n = s->commits;

        ad_status_release(s);
        return n;
}

static bool snapshot_due(struct ad_follow *f)
{
        return f->snapshot_bytes >= f->options.snapshot_every_bytes ||
               (f->snapshot_bytes > 0 &&
                df_monotonic_ms() - f->snapshot_ms >= f->options.snapshot_every_ms);
}

/* Everything committed into the snapshot; then the log may forget it. A failure is no reason to
 * stop: the log keeps more, and the view is asked whether it is well by the next commit. */
static void snapshot(struct ad_follow *f)
{
        struct df_error err = {0};

        f->snapshot_ms = df_monotonic_ms();
        f->snapshot_bytes = 0;
        if (commits_of(f) == f->snapshot_commits)
                return;
        if (ad_view_snapshot(f->view, &err) < 0) {
                atomic_fetch_add(&f->counts.failed_snapshots, 1);
                df_trace(DF_WARN, "follow", "snapshot: code=%s: %s", df_err_code(err.code),
                         err.text);
                return;
        }
        atomic_fetch_add(&f->counts.snapshots, 1);
        atomic_store(&f->counts.snapshot_ms, df_wall_ms());
        f->snapshot_commits = commits_of(f);
        for (uint32_t p = 0; p < f->partitions; p++)
                f->released[p] = ad_view_position(f->view, p);
        release(f);
}

/* ---- the thread ---- */

static int commit_if_due(struct ad_follow *f, struct df_error *err)
{
        int64_t since = df_monotonic_ms() - f->committed_ms;
        int rc = 0;

        if ((f->fresh && since >= COMMIT_MS) || (ad_view_busy(f->view) && since >= POLL_MS) ||
            since >= COMMIT_IDLE_MS)
                rc = adi_commit(f, err);
        if (rc == 0 && !f->fresh && snapshot_due(f))
                snapshot(f);
        return rc;
}

/* Everything that was there when the view was opened can be asked for now. */
static void look_caught_up(struct ad_follow *f)
{
        int64_t took_us = (df_monotonic_ns() - f->opened_ns) / 1000;

        if (f->fresh)
                return;
        for (uint32_t p = 0; p < f->partitions; p++)
                if (!f->parts[p].reader || f->parts[p].position < f->ends[p])
                        return;
        f->behind = false;
        f->outside_ms = 0; /* the lag is shown at once */
        atomic_store(&f->counts.caught_up_us, took_us);
        df_trace(DF_INFO, "follow", "caught up after %lld ms, commits=%llu",
                 (long long)(took_us / 1000), (unsigned long long)commits_of(f));
}

/* One round; *ret_more: there is more to read at once. */
static int step(struct ad_follow *f, bool *ret_more, struct df_error *err)
{
        int rc = 0;

        if (atomic_exchange(&f->suspect, false))
                return df_fail(err, DF_ECORRUPT, "a question met damaged data");
        for (uint32_t p = 0; rc == 0 && p < f->partitions; p++)
                rc = adi_read(f, p, ret_more, err);
        if (rc == 0)
                rc = commit_if_due(f, err);
        if (rc == 0 && f->behind)
                look_caught_up(f);
        if (rc == 0 && df_monotonic_ms() - f->outside_ms >= OUTSIDE_MS) {
                f->outside_ms = df_monotonic_ms();
                adi_look_outside(f, f->view);
                rc = ad_view_outside(f->view, &f->outside, df_wall_ms(), err);
        }
        if (rc == 0 && df_monotonic_ms() - f->lease_ms >= LEASE_MS)
                release(f);
        if (rc == 0 && f->committed_ms - f->reopen_ms >= REOPEN_MAX_MS)
                f->failures = 0;
        return rc;
}

static void *follow_main(void *arg)
{
        const struct timespec pause = {0, POLL_MS * 1000000L};
        struct ad_follow *f = arg;
        struct df_error err = {0};

        while (!atomic_load(&f->stop)) {
                bool more = false;

                if (!f->view)
                        reopen(f);
                else if (step(f, &more, &err) < 0)
                        view_failed(f, &err);
                if (!more)
                        (void)nanosleep(&pause, NULL); /* an early end is harmless */
        }
        if (f->view && adi_commit(f, &err) < 0)
                df_trace(DF_WARN, "follow", "last commit: %s", err.text);
        return NULL;
}

/* ---- start and stop ---- */

struct topics {
        struct df_topic_info events, rollups;
        bool has_events, has_rollups;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct topics *t = arg;

        if (strcmp(info->name, AD_TOPIC_EVENTS) == 0) {
                t->events = *info;
                t->has_events = true;
        } else if (strcmp(info->name, AD_TOPIC_ROLLUPS) == 0) {
                t->rollups = *info;
                t->has_rollups = true;
        }
        return 0;
}

static int fill_paths(struct ad_follow *f, struct df_error *err)
{
        const struct {
                char *path;
                const char *name;
        } all[] = {{f->view_dir, "view"},
                   {f->snapshot_dir, "view-snapshot"},
                   {f->accept_path, AD_VIEW_ACCEPT_LOSS}};

        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
                if (snprintf(all[i].path, PATH_MAX, "%s/%s", f->options.data_dir, all[i].name) >=
                    PATH_MAX - 16)
                        return df_fail(err, DF_EINVAL, "%s: the path is too long",
                                       f->options.data_dir);
        return 0;
}

static int prepare(struct ad_follow *f, struct df_error *err)
{
        const struct ad_follow_options *o = &f->options;
        struct topics t = {0};
        int rc = fill_paths(f, err);

        if (rc == 0)
                rc = df_log_topic_list(o->log, AD_TOPIC_EVENTS, on_topic, &t, err);
        if (rc == 0)
                rc = df_log_topic_list(o->log, AD_TOPIC_ROLLUPS, on_topic, &t, err);
        if (rc < 0)
                return rc;
        if (!t.has_events || !t.has_rollups || t.events.partitions != t.rollups.partitions)
                return df_fail(err, DF_ESCHEMA,
                               "topics %s and %s: both must exist, with the same "
                               "number of partitions",
                               AD_TOPIC_EVENTS, AD_TOPIC_ROLLUPS);
        f->partitions = t.rollups.partitions;
        f->view_options = (struct ad_view_options){
                .dir = f->view_dir,
                .snapshot_dir = f->snapshot_dir,
                .groupings = o->groupings,
                .account_zone = o->account_zone,
                .rollups_generation = t.rollups.generation,
                .events_generation = t.events.generation,
                .partitions = t.events.partitions,
                .keep_minutes_ms = o->keep_minutes_ms,
                .keep_quarters_ms = o->keep_quarters_ms,
                .cache_bytes = o->cache_bytes,
        };
        return open_view(f, AD_VIEW_KEPT, err);
}

int ad_follow_start(const struct ad_follow_options *o, struct ad_follow **ret, struct df_error *err)
{
        struct ad_follow *f = calloc(1, sizeof(*f));
        pthread_rwlockattr_t a;
        int rc;

        if (!f)
                return df_fail(err, DF_ENOMEM, "follower");
        f->options = *o;
        if (f->options.snapshot_every_ms == 0)
                f->options.snapshot_every_ms = SNAPSHOT_MS;
        if (f->options.snapshot_every_bytes == 0)
                f->options.snapshot_every_bytes = SNAPSHOT_BYTES;
        pthread_rwlockattr_init(&a);
        /* Questions come without end; the thread must get its turn. */
        pthread_rwlockattr_setkind_np(&a, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
        pthread_rwlock_init(&f->lock, &a);
        pthread_rwlockattr_destroy(&a);
        f->snapshot_ms = f->lease_ms = df_monotonic_ms();
        rc = prepare(f, err);
        if (rc == 0 && pthread_create(&f->thread, NULL, follow_main, f) != 0)
                rc = df_fail(err, DF_EAGAIN, "the follower's thread");
        if (rc < 0) {
                ad_follow_stop(f);
                return rc;
        }
        f->started = true;
        *ret = f;
        return 0;
}

void ad_follow_stop(struct ad_follow *f)
{
        if (!f)
                return;
        atomic_store(&f->stop, true);
        if (f->started)
                (void)pthread_join(f->thread, NULL);
        close_view(f);
        pthread_rwlock_destroy(&f->lock);
        free(f);
}
