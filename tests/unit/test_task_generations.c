/* test_task_generations.c - generations that begin and end (R6, E1), and a task that is rebuilt
 * from the records with its outputs suppressed (K10). */
#include "unit.h"

#include "tests/unit/task_test.h"

/* ---- R6, E1: generations ---- */

static void import_config(struct rig *r)
{
        r->config.control = toy_control;
        r->config.rules.bounded = true;
}

static void test_generations(void **state)
{
        const struct df_seal *s;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        import_config(&r);
        s = &r.reading.last;
        rig_create(&r);
        rig_log_control(&r, 100);
        rig_log_event(&r, 1, BASE_MS + 9 * MINUTE); /* any order, any age */
        rig_log_event(&r, 1, BASE_MS);
        rig_log_control(&r, 0);
        rig_log_control(&r, 200);
        rig_log_event(&r, 1, BASE_MS + 3 * MINUTE);
        rig_log_control(&r, 0);
        assert_int_equal(rig_process(&r, 3), 3);
        assert_true(df_task_clock(r.task)->watermark_ms == DF_TIME_MIN);
        assert_int_equal(df_task_source(r.task)->generation, 100);
        rig_cut(&r); /* in the middle of it */
        assert_false(s->closed);
        assert_true(s->final_through_ms == DF_TIME_MIN);
        rig_restore(&r);
        assert_int_equal(rig_process(&r, 100), 1); /* not beyond its end */
        assert_true(df_task_clock(r.task)->watermark_ms == DF_TIME_MAX);
        assert_true(df_task_wants_cut(r.task) && df_task_has_news(r.task));
        assert_int_equal(rig_process(&r, 100), 0);
        rig_cut(&r);
        assert_true(s->closed);
        assert_true(s->final_through_ms == DF_TIME_MAX);
        assert_int_equal(r.reading.last_source.generation, 100);
        assert_int_equal(s->parent_k, 1);
        assert_false(df_task_wants_cut(r.task));
        rig_restore(&r);
        assert_int_equal(df_task_source(r.task)->generation, 100);
        assert_int_equal(rig_process(&r, 2), 2);
        assert_int_equal(df_task_source(r.task)->generation, 200);
        assert_true(df_task_clock(r.task)->watermark_ms == DF_TIME_MIN);
        assert_int_equal(rig_process(&r, 100), 1);
        rig_cut(&r);
        assert_true(s->closed);
        assert_int_equal(r.reading.last_source.generation, 200);
        assert_int_equal(df_task_k(r.task), 3);
        assert_int_equal(s->parent_k, 0); /* a chain of its own */
        assert_int_equal(s->from_offset, 4);
        assert_int_equal(r.reading.told[1], 3); /* what the tally knows is kept */
        assert_int_equal(r.reading.noted, 3);
        for (size_t i = 0; i < 10; i++)
                assert_int_equal(r.reading.minutes[i], i == 0 || i == 3 || i == 9);
        rig_release(&r);
}

/* An import that was left open ends where the next one begins; BEGIN of the current one is data. */
static void test_a_generation_left_open(void **state)
{
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        import_config(&r);
        rig_create(&r);
        rig_log_control(&r, 100);
        rig_log_event(&r, 1, BASE_MS);
        rig_log_control(&r, 100);
        rig_log_event(&r, 1, BASE_MS);
        rig_log_control(&r, 200);
        rig_log_event(&r, 1, BASE_MS + MINUTE);
        assert_int_equal(rig_process(&r, 100), 4);
        rig_cut(&r);
        assert_true(r.reading.last.closed);
        assert_int_equal(r.reading.last.to_offset, 4);
        assert_int_equal(r.reading.last_source.generation, 100);
        assert_int_equal(rig_process(&r, 100), 2);
        rig_cut(&r);
        assert_false(r.reading.last.closed);
        assert_int_equal(r.reading.last_source.generation, 200);
        assert_int_equal(r.reading.minutes[0], 2);
        assert_int_equal(r.reading.minutes[1], 1);
        rig_release(&r);
}

/* Its end is drained before anything of the next generation is taken. */
static void test_an_end_is_drained(void **state)
{
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        import_config(&r);
        r.params.rows_per_cut = 1;
        rig_create(&r);
        rig_log_control(&r, 100);
        for (int i = 0; i < 3; i++)
                rig_log_event(&r, 1, BASE_MS + i * MINUTE);
        rig_log_control(&r, 0);
        rig_log_control(&r, 200);
        assert_int_equal(rig_process(&r, 100), 5);
        for (int i = 0; i < 3; i++) {
                assert_true(df_task_wants_cut(r.task));
                assert_int_equal(rig_process(&r, 100), 0);
                rig_cut(&r);
                assert_true(r.reading.last.closed);
                assert_true(r.reading.last.final_through_ms ==
                            (i < 2 ? BASE_MS + (i + 1) * MINUTE : DF_TIME_MAX));
        }
        assert_int_equal(rig_process(&r, 100), 1);
        assert_int_equal(df_task_source(r.task)->generation, 200);
        rig_release(&r);
}

/* ---- K10 ---- */

/* A task that lost its state at any cut, rebuilt from the records: the same as if it had not. */
static void test_rebuilt_at_every_cut(void **state)
{
        (void)state;
        for (uint64_t lost = 1; lost <= 12; lost++) {
                struct df_clock clock;
                struct rig r;
                uint64_t position = 0;

                rig_init(&r, lost);
                r.params.rows_per_cut = lost % 2 ? 2 : 0; /* also while rows are held back */
                rig_create(&r);
                for (uint64_t k = 1; k <= lost; k++) {
                        rig_log_data(&r, 10);
                        rig_log_data(&r, 10);
                        if (!df_task_wants_cut(r.task))
                                (void)rig_process(&r, 9);
                        rig_cut(&r);
                }
                if (lost % 2) { /* settled windows, and their rows not sent: W4 holds them back */
                        while (df_task_wants_cut(r.task))
                                rig_cut(&r);
                        for (int i = 0; i < 20; i++)
                                rig_log_data(&r, 10);
                        (void)rig_process(&r, 99);
                        rig_cut(&r);
                        assert_true(r.reading.last.final_through_ms <
                                    r.reading.last.watermark_ms - GRACE_MS - 2 * MINUTE);
                }
                position = df_task_position(r.task);
                df_task_destroy(r.task);
                df_sim_store_destroy(r.store);
                r.store = df_sim_store_create(NULL);
                rig_create(&r);
                df_clock_init(&clock);
                df_task_suppress(r.task, r.reading.last_k, &r.reading.last, &clock, 0);
                rig_log_data(&r, 30);
                r.params.rows_per_cut = 0; /* K10: there is room, as nothing is kept */
                while (df_task_suppressed(r.task)) {
                        assert_false(df_task_wants_cut(r.task) || df_task_dirty(r.task));
                        assert_false(df_task_has_news(r.task));
                        (void)rig_process(&r, 1 + lost % 3);
                        if (df_task_suppressed(r.task) && lost % 4 == 1)
                                ok(df_task_checkpoint_silently(r.task, err));
                }
                assert_int_equal(df_task_position(r.task), position); /* that ended the call */
                assert_int_equal(rig_process(&r, 9), 0);
                assert_true(df_task_wants_cut(r.task));
                rig_drain(&r);
                while (rig_process(&r, 9) > 0)
                        ;
                rig_drain(&r);
                rig_compare(&r); /* chain, notes and ledger too */
                rig_release(&r);
        }
}

/* Generations that came before the last seal are over: nothing of them comes back. */
static void test_rebuilt_over_generations(void **state)
{
        struct df_clock clock;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        import_config(&r);
        rig_create(&r);
        rig_log_control(&r, 100);
        rig_log_event(&r, 1, BASE_MS);
        rig_log_control(&r, 0);
        rig_log_control(&r, 200);
        rig_log_event(&r, 2, BASE_MS + 2 * MINUTE);
        (void)rig_process(&r, 9);
        rig_cut(&r);
        (void)rig_process(&r, 9);
        rig_cut(&r);
        rig_log_event(&r, 2, BASE_MS + 4 * MINUTE);
        df_task_destroy(r.task);
        df_sim_store_destroy(r.store);
        r.store = df_sim_store_create(NULL);
        rig_create(&r);
        df_clock_init(&clock);
        df_task_suppress(r.task, 2, &r.reading.last, &clock, 0);
        assert_int_equal(rig_process(&r, 9), 5);
        assert_int_equal(df_task_source(r.task)->generation, 200);
        r.reading.minutes[0] = r.reading.minutes[2] = 0;
        rig_cut(&r);
        assert_int_equal(r.reading.minutes[0], 0);
        assert_int_equal(r.reading.minutes[2], 1);
        assert_int_equal(rig_process(&r, 9), 1);
        rig_cut(&r);
        assert_int_equal(r.reading.minutes[4], 1);
        assert_int_equal(r.reading.chain_breaks, 0);
        assert_int_equal(r.reading.noted, 3);
        rig_release(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_generations),
                cmocka_unit_test(test_a_generation_left_open),
                cmocka_unit_test(test_an_end_is_drained),
                cmocka_unit_test(test_rebuilt_at_every_cut),
                cmocka_unit_test(test_rebuilt_over_generations),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
