/* The worker pool (K7, K11, K12) over sessions that this file fakes: what is tested is who is
 * opened, polled, committed, closed and when; sessions themselves have their own tests. The fakes
 * below stand in for df_session_* and df_task_*, so the linker takes neither from the core. */
#include "unit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/run.h"
#include "runtime/run/run_private.h"

#define FAKES 8
#define WAIT_MS 10000
#define ENDLESS INT32_MAX

/* One partition's session, task and state directory. What the test sets, and what it saw. */
struct fake {
        atomic_int open_fails, open_code; /* so many opens fail, with this code */
        atomic_int poll_fails, poll_code;
        atomic_int commit_fails, commit_code;
        atomic_int available; /* records to hand out; ENDLESS: never fewer */
        atomic_int wants_cut;
        atomic_int news; /* a commit would tell something */
        atomic_int commit_ms;

        atomic_int opens, closes, ckpt_opens, ckpt_closes, commits, processed;
        atomic_llong committed_ms[64]; /* monotonic, when each commit began */
        atomic_int wrong_thread;
        pthread_t thread;
        atomic_bool open;
        bool dirty;
        int uncommitted;
        struct df_ckpt ckpt;
        struct df_clock clock;
        struct df_source source;
};

static struct fake fakes[FAKES];

static struct fake *of(struct df_session *s)
{
        struct fake *f = (struct fake *)(void *)s;

        if (!pthread_equal(f->thread, pthread_self()))
                atomic_fetch_add(&f->wrong_thread, 1);
        return f;
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

static int open_state(void *arg, struct df_session_ports *ports, struct df_error *err)
{
        struct fake *f = arg;

        assert_null(ports->ckpt); /* K7: what a failed owner held is closed before */
        f->ckpt.ops = &ckpt_ops;
        ports->ckpt = &f->ckpt;
        atomic_fetch_add(&f->ckpt_opens, 1);
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
        *ret = (struct df_session *)(void *)f;
        return 0;
}

int df_session_poll(struct df_session *s, size_t max, size_t *ret, struct df_error *err)
{
        struct fake *f = of(s);
        int n = atomic_load(&f->available);

        if (fails(&f->poll_fails, &f->poll_code, err, "poll"))
                return err->code;
        n = n > (int)max ? (int)max : n;
        if (atomic_load(&f->available) != ENDLESS)
                atomic_fetch_sub(&f->available, n);
        f->dirty |= n > 0;
        f->uncommitted += n;
        *ret = (size_t)n;
        return 0;
}

int df_session_commit(struct df_session *s, struct df_error *err)
{
        struct fake *f = of(s);

        atomic_store(&f->committed_ms[atomic_load(&f->commits) % 64], df_monotonic_ms());
        if (atomic_load(&f->commit_ms))
                (void)usleep((useconds_t)atomic_load(&f->commit_ms) * 1000);
        if (fails(&f->commit_fails, &f->commit_code, err, "commit"))
                return err->code;
        atomic_fetch_add(&f->processed, f->uncommitted);
        f->uncommitted = 0;
        f->dirty = false;
        atomic_store(&f->wants_cut, 0);
        atomic_fetch_add(&f->commits, 1);
        return 0;
}

void df_session_close(struct df_session *s)
{
        struct fake *f;

        if (!s)
                return;
        f = of(s);
        /* Not committed = not counted: the next owner reads it again. */
        if (atomic_load(&f->available) != ENDLESS)
                atomic_fetch_add(&f->available, f->uncommitted);
        atomic_store(&f->open, false);
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
        return (uint64_t)atomic_load(&of(s)->available);
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
        for (int i = 0; i < FAKES; i++)
                atomic_store(&fakes[i].news, 1);
        return 0;
}

/* A test that failed leaves no thread behind to disturb the next. */
static int end(void **state)
{
        df_workers_destroy(pool);
        pool = NULL;
        return 0;
}

static void create(uint32_t threads, int64_t min_ms, int64_t max_ms, int64_t idle_ms)
{
        struct df_workers_options o = {.threads = threads,
                                       .interval_min_ms = min_ms,
                                       .interval_max_ms = max_ms,
                                       .idle_commit_ms = idle_ms,
                                       .poll_records = 10};

        assert_int_equal(df_workers_create(&o, &pool, NULL), 0);
}

static void add(uint32_t partition)
{
        char name[32];
        struct df_worker_task t = {.name = name,
                                   .open_state = open_state,
                                   .open_arg = &fakes[partition],
                                   .config.source = {.stream = "events", .partition = partition}};

        (void)snprintf(name, sizeof(name), "events/%u", partition);
        assert_int_equal(df_workers_add(pool, &t, NULL), 0);
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
                assert_int_equal(atomic_load(&fakes[i].wrong_thread), 0);
        }
}

/* ---- tests ---- */

static void test_every_task_is_processed_and_drained(void **state)
{
        for (int i = 0; i < FAKES; i++)
                atomic_store(&fakes[i].available, 100 * (i + 1));
        create(3, 60000, 60000, 60000); /* no commit before the drain */
        for (uint32_t i = 0; i < 4; i++)
                add(i);
        for (uint32_t i = 0; i < 4; i++)
                wait_view(i, true, 0);
        for (uint32_t i = 4; i < FAKES; i++) /* while they run */
                add(i);
        for (int i = 0; i < FAKES; i++) {
                int64_t until = df_monotonic_ms() + WAIT_MS;

                while (atomic_load(&fakes[i].available) > 0 && df_monotonic_ms() < until)
                        (void)usleep(1000);
                assert_int_equal(atomic_load(&fakes[i].commits), 0);
        }
        stop();
        for (int i = 0; i < FAKES; i++) {
                assert_int_equal(atomic_load(&fakes[i].opens), 1);
                assert_int_equal(atomic_load(&fakes[i].commits), 1);
                assert_int_equal(atomic_load(&fakes[i].processed), 100 * (i + 1));
        }
}

static void test_tasks_are_spread_over_threads(void **state)
{
        int on_first = 0;

        create(2, 10, 10, 10);
        for (uint32_t i = 0; i < 4; i++)
                add(i);
        for (uint32_t i = 0; i < 4; i++)
                wait_view(i, true, 0);
        for (int i = 0; i < 4; i++)
                on_first += pthread_equal(fakes[i].thread, fakes[0].thread) != 0;
        assert_int_equal(on_first, 2);
        stop();
}

/* K11: a refused partition is named and leaves the others running; mended, it is taken over again.
 */
static void test_refused_partition_leaves_others_running(void **state)
{
        atomic_store(&fakes[1].open_fails, 1);
        atomic_store(&fakes[1].open_code, DF_ECORRUPT);
        atomic_store(&fakes[2].poll_fails, 1);
        atomic_store(&fakes[2].poll_code, DF_EOFFSET);
        create(1, 10, 10, 10);
        for (uint32_t i = 0; i < 3; i++) {
                atomic_store(&fakes[i].available, 50);
                add(i);
        }
        wait_view(1, false, DF_ECORRUPT);
        wait_view(2, false, DF_EOFFSET);
        assert_non_null(strstr(view_of(1).refusal, "fake open failure"));
        wait_for(&fakes[0].processed, 50);
        atomic_store(&fakes[0].available, 50);
        wait_for(&fakes[0].processed, 100);
        (void)usleep(300 * 1000);                          /* longer than the first back-off */
        assert_int_equal(atomic_load(&fakes[1].opens), 1); /* not tried again by itself */
        df_workers_retry(pool);
        wait_view(1, true, 0);
        wait_view(2, true, 0);
        assert_string_equal(view_of(1).refusal, "");
        wait_for(&fakes[1].processed, 50);
        wait_for(&fakes[2].processed, 50);
        stop();
}

/* K7: after a failure that a restart mends, everything is closed and taken over anew, and what was
 * not committed is processed again, neither lost nor twice. */
static void test_restart_after_failures(void **state)
{
        struct seen s;

        atomic_store(&fakes[0].commit_fails, 2);
        atomic_store(&fakes[0].commit_code, DF_EIO);
        atomic_store(&fakes[0].available, 70);
        create(1, 10, 10, 10);
        add(0);
        wait_for(&fakes[0].processed, 70);
        wait_view(0, true, 0);
        s = view_of(0);
        assert_int_equal(s.view.restarts, 2);
        assert_int_equal(atomic_load(&fakes[0].opens), 3);
        assert_int_equal(atomic_load(&fakes[0].closes), 2);
        stop();
        assert_int_equal(atomic_load(&fakes[0].processed), 70);
}

/* The back-off doubles: 100, 200, 400 ms between opens. */
static void test_back_off(void **state)
{
        int64_t began = df_monotonic_ms();

        atomic_store(&fakes[0].open_fails, 3);
        atomic_store(&fakes[0].open_code, DF_EIO);
        create(1, 10, 10, 10);
        add(0);
        wait_for(&fakes[0].opens, 4);
        assert_true(df_monotonic_ms() - began >= 100 + 200 + 400);
        wait_view(0, true, 0);
        stop();
}

/* K12: interval = 10 x the median commit time, within its bounds. */
static void test_interval_follows_commit_time(void **state)
{
        struct fake *f = &fakes[0];

        atomic_store(&f->commit_ms, 20);
        atomic_store(&f->available, ENDLESS);
        create(1, 10, 5000, 5000);
        add(0);
        wait_for(&f->commits, 5);
        for (int i = 2; i < 5; i++) {
                int64_t gap =
                        atomic_load(&f->committed_ms[i]) - atomic_load(&f->committed_ms[i - 1]);

                if (gap < 120) /* a loaded machine may begin one of them late */
                        fail_msg("commit %d after %lld ms; 10 x 20 ms were due", i, (long long)gap);
        }
        stop();
        clear(state);
        atomic_store(&f->commit_ms, 20);
        atomic_store(&f->available, ENDLESS);
        create(1, 10, 50, 5000); /* the upper bound wins */
        add(0);
        wait_for(&f->commits, 6);
        stop();
}

/* K12: a partition with heartbeats only commits once early (readers then know the source), and
 * from then on when it has news or after the idle time; one without anything never; one whose
 * outbox is large at once. */
static void test_when_commits_are_due(void **state)
{
        int64_t began = df_monotonic_ms();

        atomic_store(&fakes[0].news, 0); /* heartbeats only */
        atomic_store(&fakes[0].available, 5);
        atomic_store(&fakes[1].available, 0); /* nothing at all */
        atomic_store(&fakes[2].available, 5); /* wants a cut, long before the interval */
        create(1, 300, 300, 600);
        for (uint32_t i = 0; i < 3; i++)
                add(i);
        wait_view(2, true, 0);
        atomic_store(&fakes[2].wants_cut, 1);
        wait_for(&fakes[2].commits, 1);
        assert_true(df_monotonic_ms() - began < 250 || atomic_load(&fakes[0].commits) == 0);
        wait_for(&fakes[0].commits, 1);
        assert_true(atomic_load(&fakes[0].committed_ms[0]) - began >= 300);
        atomic_store(&fakes[0].available, 5);
        wait_for(&fakes[0].commits, 2);
        assert_true(atomic_load(&fakes[0].committed_ms[1]) -
                            atomic_load(&fakes[0].committed_ms[0]) >=
                    500);
        assert_int_equal(atomic_load(&fakes[1].commits), 0);
        stop();
        assert_int_equal(atomic_load(&fakes[1].commits), 0);
}

/* "Not now" is no failure: the same call again later. */
static void test_try_again_is_no_restart(void **state)
{
        atomic_store(&fakes[0].poll_fails, 5);
        atomic_store(&fakes[0].poll_code, DF_EAGAIN);
        atomic_store(&fakes[0].available, 5);
        create(1, 10, 10, 10);
        add(0);
        wait_for(&fakes[0].processed, 5);
        assert_int_equal(atomic_load(&fakes[0].opens), 1);
        stop();
}

static void test_metrics(void **state)
{
        struct df_buf b = {0};

        atomic_store(&fakes[1].open_fails, 1);
        atomic_store(&fakes[1].open_code, DF_ESCHEMA);
        create(1, 10, 10, 10);
        add(0);
        add(1);
        wait_view(0, true, 0);
        wait_view(1, false, DF_ESCHEMA);
        df_workers_render(pool, &b);
        df_put_u8(&b, 0);
        assert_non_null(strstr((char *)b.data,
                               "adtally_task_running{stream=\"events\",partition=\"0\"} 1\n"));
        assert_non_null(strstr((char *)b.data,
                               "adtally_task_running{stream=\"events\",partition=\"1\"} 0\n"));
        assert_non_null(strstr((char *)b.data, "adtally_partition_refused{stream=\"events\","
                                               "partition=\"1\",code=\"state_mismatch\"} 1\n"));
        df_buf_release(&b);
        stop();
}

/* The median of the last eight, against a naive count. */
static void test_median(void **state)
{
        int64_t ring[DFI_MEDIAN_OF] = {0};
        uint64_t seed = 88172645463325252ull;

        assert_int_equal(dfi_median(ring, 0), 0);
        for (uint64_t n = 1; n < 200; n++) {
                size_t have = n < DFI_MEDIAN_OF ? (size_t)n : DFI_MEDIAN_OF, below = 0, equal = 0;
                int64_t m;

                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                ring[(n - 1) % DFI_MEDIAN_OF] = (int64_t)(seed % 50);
                m = dfi_median(ring, n);
                for (size_t i = 0; i < have; i++) {
                        below += ring[i] < m;
                        equal += ring[i] == m;
                }
                assert_true(equal > 0 && below <= have / 2 && below + equal > have / 2);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_every_task_is_processed_and_drained, clear,
                                                end),
                cmocka_unit_test_setup_teardown(test_tasks_are_spread_over_threads, clear, end),
                cmocka_unit_test_setup_teardown(test_refused_partition_leaves_others_running, clear,
                                                end),
                cmocka_unit_test_setup_teardown(test_restart_after_failures, clear, end),
                cmocka_unit_test_setup_teardown(test_back_off, clear, end),
                cmocka_unit_test_setup_teardown(test_interval_follows_commit_time, clear, end),
                cmocka_unit_test_setup_teardown(test_when_commits_are_due, clear, end),
                cmocka_unit_test_setup_teardown(test_try_again_is_no_restart, clear, end),
                cmocka_unit_test_setup_teardown(test_metrics, clear, end),
                cmocka_unit_test_setup_teardown(test_median, clear, end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
