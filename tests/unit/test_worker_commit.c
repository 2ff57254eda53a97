/* Commits beside the work (K3: "open only here, never across processing; other partitions run
 * meanwhile"; K7, K12), over faked sessions whose commits wait for the test. No test measures how
 * long anything takes: each holds a commit, and counts what happens meanwhile. */
#define FAKES 256
#include "worker_test.h"

#include "runtime/run/run_private.h"

static void create(uint32_t commit_threads, int64_t interval_ms)
{
        struct df_workers_options o = {.threads = 1,
                                       .commit_threads = commit_threads,
                                       .interval_min_ms = interval_ms,
                                       .interval_max_ms = interval_ms,
                                       .idle_commit_ms = 60000,
                                       .poll_records = 10};

        assert_int_equal(df_workers_create(&o, &pool, NULL), 0);
}

/* Partition 0 in the middle of a commit, partition 1 beside it on the same worker. */
static void hold_first(uint32_t commit_threads)
{
        atomic_store(&fakes[0].available, 50);
        atomic_store(&fakes[1].available, ENDLESS);
        hold(0, true);
        create(commit_threads, 10);
        add(0);
        add(1);
        wait_for(&fakes[0].begun, 1);
}

/* K3: while the commit of one partition hangs, the others of its worker are processed and
 * committed. */
static void test_others_run_meanwhile(void **state)
{
        int polled, commits;

        hold_first(2);
        wait_view(1, true, 0);
        polled = atomic_load(&fakes[1].polled);
        commits = atomic_load(&fakes[1].commits);
        wait_for(&fakes[1].polled, polled + 1000);
        wait_for(&fakes[1].commits, commits + 3);
        assert_int_equal(atomic_load(&fakes[0].begun), 1);
        assert_int_equal(atomic_load(&fakes[0].commits), 0);
        hold(0, false);
        wait_for(&fakes[0].processed, 50);
        stop();
}

/* The same with the only commit thread taken: the others are at least processed. */
static void test_all_commit_threads_taken(void **state)
{
        hold_first(1);
        for (uint32_t i = 2; i < 4; i++) {
                atomic_store(&fakes[i].available, 50);
                atomic_store(&fakes[i].news, 0);
                add(i);
        }
        for (int i = 2; i < 4; i++)
                wait_for(&fakes[i].polled, 50);
        assert_int_equal(atomic_load(&fakes[1].begun), 0); /* it waits for the thread */
        hold(0, false);
        wait_for(&fakes[1].commits, 3);
        stop();
        for (int i = 2; i < 4; i++)
                assert_int_equal(atomic_load(&fakes[i].processed), 50);
}

static void *stop_pool(void *arg)
{
        df_workers_stop(pool);
        return NULL;
}

/* Drain: a commit under way ends before its session is closed, and what the others have processed
 * is committed too. */
static void test_stop_meanwhile(void **state)
{
        pthread_t stopper;

        hold_first(2);
        atomic_store(&fakes[2].available, 30);
        atomic_store(&fakes[2].news, 0); /* nothing is due before the drain */
        add(2);
        wait_for(&fakes[2].polled, 30);
        assert_int_equal(pthread_create(&stopper, NULL, stop_pool, NULL), 0);
        (void)usleep(50000); /* time to do it wrong in; none is needed to do it right */
        assert_true(atomic_load(&fakes[0].open));
        assert_int_equal(atomic_load(&fakes[0].commits), 0);
        hold(0, false);
        assert_int_equal(pthread_join(stopper, NULL), 0);
        assert_int_equal(atomic_load(&fakes[0].processed), 50);
        assert_int_equal(atomic_load(&fakes[0].commits), 1);
        assert_int_equal(atomic_load(&fakes[2].processed), 30);
        stop();
}

/* What could not be committed just then is tried once more before the end. */
static void test_stop_after_a_retry(void **state)
{
        pthread_t stopper;

        hold_first(2);
        atomic_store(&fakes[0].commit_code, DF_EAGAIN);
        atomic_store(&fakes[0].commit_fails, 1);
        assert_int_equal(pthread_create(&stopper, NULL, stop_pool, NULL), 0);
        (void)usleep(50000); /* the drain has begun */
        hold(0, false);
        assert_int_equal(pthread_join(stopper, NULL), 0);
        assert_int_equal(atomic_load(&fakes[0].begun), 2);
        assert_int_equal(atomic_load(&fakes[0].processed), 50);
        stop();
}

/* K7: a failure is the worker's to judge, when the slot comes back: closed and taken over anew,
 * nothing lost or counted twice, the others not disturbed. */
static void test_failure_meanwhile(void **state)
{
        hold_first(2);
        atomic_store(&fakes[0].commit_code, DF_EIO);
        atomic_store(&fakes[0].commit_fails, 1);
        hold(0, false);
        wait_for(&fakes[0].opens, 2);
        wait_for(&fakes[0].processed, 50);
        assert_int_equal(atomic_load(&fakes[0].closes), 1);
        assert_int_equal(view_of(0).view.restarts, 1);
        assert_int_equal(atomic_load(&fakes[1].opens), 1);
        stop();
        assert_int_equal(atomic_load(&fakes[0].processed), 50);
}

/* "Not now" from a commit: the session stays, the same commit again later. K11: what a person must
 * mend is refused, and only that. */
static void test_retry_and_refusal_meanwhile(void **state)
{
        hold_first(2);
        atomic_store(&fakes[0].commit_code, DF_EAGAIN);
        atomic_store(&fakes[0].commit_fails, 1);
        hold(0, false);
        wait_for(&fakes[0].processed, 50);
        assert_int_equal(atomic_load(&fakes[0].begun), 2);
        assert_int_equal(atomic_load(&fakes[0].opens), 1);
        atomic_store(&fakes[0].commit_code, DF_ECORRUPT);
        atomic_store(&fakes[0].commit_fails, 1);
        atomic_store(&fakes[0].available, 5);
        wait_view(0, false, DF_ECORRUPT);
        wait_for(&fakes[1].commits, atomic_load(&fakes[1].commits) + 2);
        stop();
}

/* K12: the wait for a commit thread counts as commit time: 1 waits behind 0 from before the pause
 * to after it. Its slot says since when. */
static void test_wait_counts(void **state)
{
        struct df_workers *p;
        int64_t asked = 0, held_until, counted = -1;

        hold_first(1);
        p = pool;
        for (int64_t until = df_monotonic_ms() + WAIT_MS; !asked && df_monotonic_ms() < until;) {
                pthread_mutex_lock(&p->lock);
                asked = p->queue ? p->queue->asked_ms : 0;
                pthread_mutex_unlock(&p->lock);
                (void)usleep(1000);
        }
        assert_true(asked > 0);
        (void)usleep(50000);
        held_until = df_monotonic_ms();
        hold(0, false);
        wait_for(&fakes[1].commits, 1);
        while (view_of(1).view.commits < 1)
                (void)usleep(1000);
        pthread_mutex_lock(&p->lock);
        for (struct dfi_slot *s = p->workers[0].slots; s; s = s->next)
                if (s->task.config.source.partition == 1)
                        counted = s->commit_ms[0];
        pthread_mutex_unlock(&p->lock);
        assert_true(counted >= held_until - asked);
        stop();
}

/* K12: of 256 partitions that are all due all the time none is left out, however few commit threads
 * there are: when there were 10 commits for each of them on average, everyone had some. */
static void test_nobody_is_left_out(void **state)
{
        int64_t until = df_monotonic_ms() + 6 * WAIT_MS;
        int all = 0, least = 0;

        create(2, 1);
        for (uint32_t i = 0; i < FAKES; i++) {
                atomic_store(&fakes[i].available, ENDLESS);
                atomic_store(&fakes[i].commit_ms, 1); /* so that most of them wait */
                add(i);
        }
        for (uint32_t i = 0; i < FAKES; i++)
                wait_view(i, true, 0);
        while (all < 10 * FAKES && df_monotonic_ms() < until) {
                (void)usleep(1000);
                all = 0;
                least = INT32_MAX;
                for (int i = 0; i < FAKES; i++) {
                        int n = atomic_load(&fakes[i].commits);

                        all += n;
                        least = n < least ? n : least;
                }
        }
        if (all < 10 * FAKES || least < 3)
                fail_msg("%d commits of %d partitions, %d of the one with the fewest", all, FAKES,
                         least);
        stop();
}

/* K12, as a table: ten times the median commit time (here it has led to 5,000 ms), four times where
 * the log is read to its end, and after the least interval when a million events are new. */
static void test_when_a_commit_is_due(void **state)
{
        const struct df_workers_options o = {.interval_min_ms = 500, .interval_max_ms = 10000};
        const struct dfi_slot s = {
                .asked_ms = 1000, .next_commit_ms = 6000, .caught_up_commit_ms = 3000};
        const struct {
                int64_t now;
                uint64_t events;
                bool caught_up, due;
        } rows[] = {
                {5999, 0, false, false},       {6000, 0, false, true},
                {2999, 0, true, false},        {3000, 0, true, true},
                {1500, 2097151, false, false}, {1500, 2097152, false, true},
                {1499, 2097152, false, false}, {1499, 1u << 30, true, false},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                if (dfi_cadence_due(&o, &s, rows[i].now, rows[i].events, rows[i].caught_up) !=
                    rows[i].due)
                        fail_msg("row %zu", i);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_when_a_commit_is_due),
                cmocka_unit_test_setup_teardown(test_others_run_meanwhile, clear, end),
                cmocka_unit_test_setup_teardown(test_all_commit_threads_taken, clear, end),
                cmocka_unit_test_setup_teardown(test_stop_meanwhile, clear, end),
                cmocka_unit_test_setup_teardown(test_stop_after_a_retry, clear, end),
                cmocka_unit_test_setup_teardown(test_failure_meanwhile, clear, end),
                cmocka_unit_test_setup_teardown(test_retry_and_refusal_meanwhile, clear, end),
                cmocka_unit_test_setup_teardown(test_wait_counts, clear, end),
                cmocka_unit_test_setup_teardown(test_nobody_is_left_out, clear, end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
