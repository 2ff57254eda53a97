/* worker_test.h - sessions faked for tests of the worker pool: who is opened, polled, committed,
 * closed and when; sessions themselves have their own tests. The fakes stand in for df_session_*
 * and df_task_*, so the linker takes neither from the core. */
#ifndef WORKER_TEST_H
#define WORKER_TEST_H

#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/run.h"
#include "runtime/run/run_private.h"

#ifndef FAKES
#define FAKES 8
#endif
#define WAIT_MS 10000
#define ENDLESS INT32_MAX

/* One partition's session, task and state directory. What the test sets, and what it saw. */
struct fake {
        atomic_int open_fails, open_code; /* so many opens fail, with this code */
        atomic_int poll_fails, poll_code;
        atomic_int commit_fails, commit_code;
        atomic_int lag_unknown;
        atomic_int available; /* records to hand out; ENDLESS: never fewer */
        atomic_int range;     /* done once so many are committed; 0: never */
        atomic_int wants_cut;
        atomic_int news; /* a commit would tell something */
        atomic_int commit_ms;
        bool hold; /* under gate: a commit that has begun does not go on */

        atomic_int keep_fails, keeps, txn_opens, txn_closes;
        atomic_int opens, closes, ckpt_opens, ckpt_closes, commits, processed;
        atomic_llong committed_ms[64]; /* monotonic, when each commit began */
        atomic_int wrong_thread;       /* calls that the worker's thread alone may make */
        atomic_int overlaps;           /* calls while a commit was under way */
        atomic_int polled;             /* records */
        atomic_int begun;              /* commits */
        atomic_bool committing;
        pthread_t thread;
        atomic_bool open;
        bool dirty;
        int uncommitted;
        struct df_ckpt ckpt;
        struct df_txn txn;
        struct df_clock clock;
        struct df_source source;
};

static struct fake fakes[FAKES];
static atomic_int open_now, open_most; /* sessions */

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_moved = PTHREAD_COND_INITIALIZER;

static struct fake *of(struct df_session *s)
{
        struct fake *f = (struct fake *)(void *)s;

        if (atomic_load(&f->committing))
                atomic_fetch_add(&f->overlaps, 1);
        return f;
}

static struct fake *of_worker(struct df_session *s)
{
        struct fake *f = of(s);

        if (!pthread_equal(f->thread, pthread_self()))
                atomic_fetch_add(&f->wrong_thread, 1);
        return f;
}

static void hold(int i, bool on)
{
        pthread_mutex_lock(&gate);
        fakes[i].hold = on;
        pthread_cond_broadcast(&gate_moved);
        pthread_mutex_unlock(&gate);
}

static void pass_gate(struct fake *f)
{
        pthread_mutex_lock(&gate);
        while (f->hold)
                (void)pthread_cond_wait(&gate_moved, &gate);
        pthread_mutex_unlock(&gate);
}

static bool fails(atomic_int *left, atomic_int *code, struct df_error *err, const char *what)
{
        if (atomic_load(left) <= 0)
                return false;
        atomic_fetch_sub(left, 1);
        (void)df_fail(err, atomic_load(code), "fake %s failure", what);
        return true;
}

static void ckpt_close(struct df_ckpt *c)
{
        for (int i = 0; i < FAKES; i++)
                if (c == &fakes[i].ckpt)
                        atomic_fetch_add(&fakes[i].ckpt_closes, 1);
}

static const struct df_ckpt_ops ckpt_ops = {.close = ckpt_close};

static void txn_close(struct df_txn *t)
{
        for (int i = 0; i < FAKES; i++)
                if (t == &fakes[i].txn)
                        atomic_fetch_add(&fakes[i].txn_closes, 1);
}

static const struct df_txn_ops txn_ops = {.close = txn_close};

static int open_state(void *arg, struct df_group *group, struct df_session_ports *ports,
                      struct df_error *err)
{
        struct fake *f = arg;

        assert_null(ports->ckpt); /* K7: what a failed owner held is closed before */
        f->ckpt.ops = &ckpt_ops;
        ports->ckpt = &f->ckpt;
        atomic_fetch_add(&f->ckpt_opens, 1);
        assert_null(ports->txn);
        if (group) {
                f->txn.ops = &txn_ops;
                ports->txn = &f->txn;
                atomic_fetch_add(&f->txn_opens, 1);
        }
        return 0;
}

int df_session_open(const struct df_task_config *config, const struct df_session_ports *ports,
                    struct df_session **ret, struct df_error *err)
{
        struct fake *f = &fakes[config->source.partition];

        assert_ptr_equal(ports->ckpt, &f->ckpt);
        assert_false(atomic_load(&f->open));
        atomic_fetch_add(&f->opens, 1);
        if (fails(&f->open_fails, &f->open_code, err, "open"))
                return err->code;
        f->thread = pthread_self();
        f->source = config->source;
        f->dirty = false;
        f->uncommitted = 0;
        atomic_store(&f->open, true);
        if (atomic_fetch_add(&open_now, 1) + 1 > atomic_load(&open_most))
                atomic_store(&open_most, atomic_load(&open_now));
        *ret = (struct df_session *)(void *)f;
        return 0;
}

int df_session_poll(struct df_session *s, size_t max, size_t *ret, struct df_error *err)
{
        struct fake *f = of_worker(s);
        int n = atomic_load(&f->available);

        if (fails(&f->poll_fails, &f->poll_code, err, "poll"))
                return err->code;
        n = n > (int)max ? (int)max : n;
        if (atomic_load(&f->available) != ENDLESS)
                atomic_fetch_sub(&f->available, n);
        f->dirty |= n > 0;
        f->uncommitted += n;
        atomic_fetch_add(&f->polled, n);
        *ret = (size_t)n;
        return 0;
}

static int commit(struct fake *f, struct df_error *err)
{
        atomic_store(&f->committed_ms[atomic_load(&f->commits) % 64], df_monotonic_ms());
        if (atomic_load(&f->commit_ms))
                (void)usleep((useconds_t)atomic_load(&f->commit_ms) * 1000);
        atomic_fetch_add(&f->begun, 1);
        pass_gate(f);
        if (fails(&f->commit_fails, &f->commit_code, err, "commit"))
                return err->code;
        atomic_fetch_add(&f->processed, f->uncommitted);
        f->uncommitted = 0;
        f->dirty = false;
        atomic_store(&f->wants_cut, 0);
        atomic_fetch_add(&f->commits, 1);
        return 0;
}

int df_session_commit(struct df_session *s, struct df_error *err)
{
        struct fake *f = of(s);
        int rc;

        atomic_store(&f->committing, true);
        rc = commit(f, err);
        atomic_store(&f->committing, false);
        return rc;
}

int df_session_keep(struct df_session *s, struct df_error *err)
{
        struct fake *f = of_worker(s);

        atomic_fetch_add(&f->keeps, 1);
        if (atomic_load(&f->keep_fails) <= 0)
                return 0;
        atomic_fetch_sub(&f->keep_fails, 1);
        return df_fail(err, DF_ELOST, "fake keep failure");
}

void df_session_close(struct df_session *s)
{
        struct fake *f;

        if (!s)
                return;
        f = of_worker(s);
        /* Not committed = not counted: the next owner reads it again. */
        if (atomic_load(&f->available) != ENDLESS)
                atomic_fetch_add(&f->available, f->uncommitted);
        atomic_store(&f->open, false);
        atomic_fetch_sub(&open_now, 1);
        atomic_fetch_add(&f->closes, 1);
}

struct df_task *df_session_task(struct df_session *s)
{
        return (struct df_task *)(void *)of(s);
}

uint64_t df_session_epoch(const struct df_session *s)
{
        return 3;
}

uint64_t df_session_lag(struct df_session *s)
{
        if (atomic_load(&of(s)->lag_unknown))
                return DF_LAG_UNKNOWN;
        return (uint64_t)atomic_load(&of(s)->available);
}

void df_session_profile(const struct df_session *s, struct df_profile *sum)
{
        (void)s;
        (void)sum;
}
bool df_session_done(const struct df_session *s)
{
        const struct fake *f = (const struct fake *)(const void *)s;
        int range = atomic_load(&f->range);

        return range > 0 && !f->dirty && atomic_load(&f->processed) >= range;
}

uint64_t df_task_events(const struct df_task *t)
{
        (void)t;
        return 0;
}

uint64_t df_task_position(const struct df_task *t)
{
        return 17;
}

bool df_task_wants_cut(const struct df_task *t)
{
        return atomic_load(&((const struct fake *)(const void *)t)->wants_cut) != 0;
}

bool df_task_dirty(const struct df_task *t)
{
        return ((const struct fake *)(const void *)t)->dirty;
}

bool df_task_has_news(const struct df_task *t)
{
        return atomic_load(&((const struct fake *)(const void *)t)->news) != 0;
}

uint64_t df_task_k(const struct df_task *t)
{
        return (uint64_t)atomic_load(&((const struct fake *)(const void *)t)->commits);
}

const struct df_clock *df_task_clock(const struct df_task *t)
{
        return &((const struct fake *)(const void *)t)->clock;
}

const struct df_source *df_task_source(const struct df_task *t)
{
        return &((const struct fake *)(const void *)t)->source;
}

/* ---- the pool ---- */

static struct df_workers *pool;

static int clear(void **state)
{
        memset(fakes, 0, sizeof(fakes));
        atomic_store(&open_now, 0);
        atomic_store(&open_most, 0);
        for (int i = 0; i < FAKES; i++)
                atomic_store(&fakes[i].news, 1);
        return 0;
}

/* A test that failed leaves no thread behind to disturb the next. */
static int end(void **state)
{
        for (int i = 0; i < FAKES; i++)
                hold(i, false);
        df_workers_destroy(pool);
        pool = NULL;
        return 0;
}

static void wait_for(atomic_int *counter, int least)
{
        int64_t until = df_monotonic_ms() + WAIT_MS;

        while (atomic_load(counter) < least) {
                if (df_monotonic_ms() > until)
                        fail_msg("waited %d ms for %d, got %d", WAIT_MS, least,
                                 atomic_load(counter));
                (void)usleep(1000);
        }
}

struct seen {
        uint32_t partition;
        bool found;
        struct df_worker_view view;
        char refusal[DF_ERROR_TEXT_MAX];
};

static void look(void *arg, const struct df_worker_view *v)
{
        struct seen *s = arg;

        if (v->source.partition != s->partition)
                return;
        s->found = true;
        s->view = *v;
        (void)snprintf(s->refusal, sizeof(s->refusal), "%s", v->refusal);
}

static struct seen view_of(uint32_t partition)
{
        struct seen s = {.partition = partition};

        df_workers_each(pool, look, &s);
        assert_true(s.found);
        return s;
}

static void wait_view(uint32_t partition, bool running, int refused)
{
        int64_t until = df_monotonic_ms() + WAIT_MS;

        for (;;) {
                struct seen s = view_of(partition);

                if (s.view.running == running && s.view.refused == refused)
                        return;
                if (df_monotonic_ms() > until)
                        fail_msg("partition %u: running %d refused %d", partition, s.view.running,
                                 s.view.refused);
                (void)usleep(1000);
        }
}

static void stop(void)
{
        df_workers_destroy(pool);
        pool = NULL;
        for (int i = 0; i < FAKES; i++) {
                assert_false(atomic_load(&fakes[i].open));
                assert_int_equal(atomic_load(&fakes[i].ckpt_opens),
                                 atomic_load(&fakes[i].ckpt_closes));
                assert_int_equal(atomic_load(&fakes[i].txn_opens),
                                 atomic_load(&fakes[i].txn_closes));
                assert_int_equal(atomic_load(&fakes[i].wrong_thread), 0);
                assert_int_equal(atomic_load(&fakes[i].overlaps), 0);
        }
}

static inline void add(uint32_t partition)
{
        char name[32];
        struct df_worker_task t = {.name = name,
                                   .open_state = open_state,
                                   .open_arg = &fakes[partition],
                                   .config.source = {.stream = "events", .partition = partition}};

        (void)snprintf(name, sizeof(name), "events/%u", partition);
        assert_int_equal(df_workers_add(pool, &t, NULL), 0);
}

#endif
