/* The worker pool (K7, K11, K12) over faked sessions. */
#include "worker_test.h"

static void create(uint32_t threads, int64_t min_ms, int64_t max_ms, int64_t idle_ms)
{
        struct df_workers_options o = {.threads = threads,
                                       .interval_min_ms = min_ms,
                                       .interval_max_ms = max_ms,
                                       .idle_commit_ms = idle_ms,
                                       .poll_records = 10};

        assert_int_equal(df_workers_create(&o, &pool, NULL), 0);
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

/* While held nothing is read. */
static void test_hold(void **state)
{
        int64_t until = df_monotonic_ms() + WAIT_MS;
        int polled, before;

        atomic_store(&fakes[0].available, ENDLESS);
        create(1, 10, 20, 20);
        add(0);
        wait_for(&fakes[0].polled, 1);
        df_workers_hold(pool, true);
        do {
                before = atomic_load(&fakes[0].polled);
                (void)usleep(20000);
                polled = atomic_load(&fakes[0].polled);
        } while (polled != before && df_monotonic_ms() < until);
        assert_int_equal(polled, before);
        df_workers_hold(pool, false);
        wait_for(&fakes[0].polled, polled + 1);
        atomic_store(&fakes[0].available, 0);
        stop();
}

static void test_metrics(void **state)
{
        struct df_buf b = {0};

        atomic_store(&fakes[1].open_fails, 1);
        atomic_store(&fakes[1].open_code, DF_ESCHEMA);
        atomic_store(&fakes[2].lag_unknown, 1);
        create(1, 10, 10, 10);
        add(0);
        add(1);
        add(2);
        wait_view(0, true, 0);
        wait_view(1, false, DF_ESCHEMA);
        wait_view(2, true, 0);
        df_workers_render(pool, &b);
        df_put_u8(&b, 0);
        assert_non_null(strstr((char *)b.data,
                               "adtally_task_running{stream=\"events\",partition=\"0\"} 1\n"));
        assert_non_null(strstr((char *)b.data,
                               "adtally_task_running{stream=\"events\",partition=\"1\"} 0\n"));
        assert_non_null(strstr((char *)b.data, "adtally_partition_refused{stream=\"events\","
                                               "partition=\"1\",code=\"state_mismatch\"} 1\n"));
        /* What nobody knows is not 0: of a refused partition, or while the log is silent. */
        assert_non_null(strstr((char *)b.data,
                               "adtally_task_lag_records{stream=\"events\",partition=\"0\"} 0\n"));
        assert_null(strstr((char *)b.data,
                           "adtally_task_lag_records{stream=\"events\",partition=\"1\"}"));
        assert_null(strstr((char *)b.data,
                           "adtally_task_lag_records{stream=\"events\",partition=\"2\"}"));
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
                cmocka_unit_test_setup_teardown(test_hold, clear, end),
                cmocka_unit_test_setup_teardown(test_metrics, clear, end),
                cmocka_unit_test_setup_teardown(test_median, clear, end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
