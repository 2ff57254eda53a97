/* The worker pool over tasks that have an end (df_workers_options.open_max, R1): one after the
 * other, so that memory goes by the workers and not by the partitions. */
#include "worker_test.h"

static void create(uint32_t threads, uint32_t open_max, int64_t interval_ms)
{
        struct df_workers_options o = {.threads = threads,
                                       .interval_min_ms = interval_ms,
                                       .interval_max_ms = interval_ms,
                                       .idle_commit_ms = interval_ms,
                                       .poll_records = 10,
                                       .open_max = open_max};

        assert_int_equal(df_workers_create(&o, &pool, NULL), 0);
}

static void give(int i, int records)
{
        atomic_store(&fakes[i].available, records);
        atomic_store(&fakes[i].range, records);
}

/* Partitions of which records were read: of all time, or since the last call. */
static int polled_ones(bool lately)
{
        static int before[FAKES];
        int n = 0;

        for (int i = 0; i < FAKES; i++) {
                int now = atomic_load(&fakes[i].polled);

                n += now > (lately ? before[i] : 0);
                before[i] = now;
        }
        return n;
}

static void wait_done(uint32_t partition)
{
        int64_t until = df_monotonic_ms() + WAIT_MS;

        while (!view_of(partition).view.done) {
                if (df_monotonic_ms() > until)
                        fail_msg("partition %u is not done", partition);
                (void)usleep(1000);
        }
}

/* ---- tests ---- */

static void each_is_processed_once_and_closed(uint32_t threads)
{
        create(threads, 2, 1);
        for (int i = 0; i < FAKES; i++) {
                give(i, 25 * (i + 1));
                add((uint32_t)i);
        }
        for (uint32_t i = 0; i < FAKES; i++) {
                wait_done(i);
                wait_view(i, false, 0);
        }
        assert_in_range(atomic_load(&open_most), 1, 2 * threads);
        assert_int_equal(atomic_load(&open_now),
                         0); /* their memory is given back, the pool goes on */
        for (int i = 0; i < FAKES; i++) {
                assert_int_equal(atomic_load(&fakes[i].opens), 1);
                assert_int_equal(atomic_load(&fakes[i].processed), 25 * (i + 1));
                assert_int_equal(view_of((uint32_t)i).view.position, 17); /* what was shown stays */
        }
        stop();
}

static void test_each_is_processed_once_and_closed(void **state)
{
        each_is_processed_once_and_closed(1);
}

static void test_each_is_processed_once_by_three_threads(void **state)
{
        each_is_processed_once_and_closed(3);
}

/* The first that can be worked on is; the others wait, not even taken over. */
static void test_one_after_the_other(void **state)
{
        for (int i = 0; i < FAKES; i++)
                atomic_store(&fakes[i].available, ENDLESS);
        create(1, 2, 60000);
        for (uint32_t i = 0; i < FAKES; i++)
                add(i);
        while (polled_ones(false) == 0)
                (void)usleep(1000);
        (void)usleep(100 * 1000); /* the first to come may have been left for one that came later */
        (void)polled_ones(true);
        (void)usleep(100 * 1000);
        assert_int_equal(polled_ones(true), 1);
        assert_in_range(atomic_load(&open_most), 1, 2);
        stop();
}

/* While one commits, the next goes on; a third is not begun, however long it takes. */
static void test_a_commit_holds_up_nobody(void **state)
{
        int held = -1;

        for (int i = 0; i < FAKES; i++) {
                give(i, 1000000);
                hold(i, true);
        }
        create(1, 2, 20);
        for (uint32_t i = 0; i < FAKES; i++)
                add(i);
        for (int i = 0; held < 0; i = (i + 1) % FAKES)
                held = atomic_load(&fakes[i].begun) > 0 ? i : -1;
        while (polled_ones(false) < 2)
                (void)usleep(1000);
        (void)usleep(100 * 1000);
        assert_int_equal(polled_ones(false), 2);
        assert_int_equal(atomic_load(&open_most), 2);
        for (int i = 0; i < FAKES; i++)
                hold(i, false);
        wait_for(&fakes[held].commits, 1);
        stop();
}

/* One that cannot be taken over, or waits for its next attempt, holds up nobody, and its turn
 * comes (K7, K11). */
static void test_failures_hold_up_nobody(void **state)
{
        atomic_store(&fakes[0].open_fails, 2);
        atomic_store(&fakes[0].open_code, DF_EIO);
        atomic_store(&fakes[1].open_fails, 1);
        atomic_store(&fakes[1].open_code, DF_ECORRUPT);
        atomic_store(&fakes[2].poll_fails, 1);
        atomic_store(&fakes[2].poll_code, DF_EIO);
        create(1, 2, 1);
        for (int i = 0; i < FAKES; i++) {
                give(i, 50);
                add((uint32_t)i);
        }
        for (uint32_t i = 0; i < FAKES; i++)
                if (i != 1)
                        wait_done(i);
        wait_view(1, false, DF_ECORRUPT);
        df_workers_retry(pool);
        wait_done(1);
        assert_in_range(atomic_load(&open_most), 1, 2);
        for (int i = 0; i < FAKES; i++)
                assert_int_equal(atomic_load(&fakes[i].processed), 50);
        stop();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_each_is_processed_once_and_closed, clear, end),
                cmocka_unit_test_setup_teardown(test_each_is_processed_once_by_three_threads, clear,
                                                end),
                cmocka_unit_test_setup_teardown(test_one_after_the_other, clear, end),
                cmocka_unit_test_setup_teardown(test_a_commit_holds_up_nobody, clear, end),
                cmocka_unit_test_setup_teardown(test_failures_hold_up_nobody, clear, end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
