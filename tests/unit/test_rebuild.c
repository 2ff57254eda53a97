/* test_rebuild.c - K10: state that was lost, or put back, comes again from the log. */
#include "unit.h"

#include "tests/unit/commit_test.h"

/* ---- a fresh directory ---- */

static void test_lost_state_is_refused_and_rebuilt(void **state)
{
        (void)state;
        for (int keep_epoch = 0; keep_epoch < 2; keep_epoch++) {
                struct rig r;
                size_t n;

                rig_open(&r, 1);
                for (int i = 0; i < 5; i++)
                        rig_checkpoint(&r, 0, 10);
                rig_feed(&r, 0, 10);
                rig_lose(&r, 0, keep_epoch);
                refused(DF_ESCHEMA, "`adtally recover --partition 0 --from log` (K8, K10)",
                        rig_try_open(&r, 0, err));
                refused(DF_ESCHEMA, "new, or was lost", rig_try_open(&r, 0, err));
                r.recover = true;
                r.steps[0] = 0;
                ok(rig_try_open(&r, 0, err));
                assert_non_null(strstr(r.steps, "recover read"));
                assert_null(strstr(r.steps, "append"));
                assert_int_equal(df_task_position(rig_task(&r, 0)), 0);
                assert_int_equal(df_task_k(rig_task(&r, 0)), 5);
                ok(df_session_poll(r.sessions[0], 3, &n, err));
                assert_int_equal(n, 3);
                assert_true(df_task_suppressed(rig_task(&r, 0)));
                ok(df_session_commit(r.sessions[0], err)); /* nothing to say yet */
                assert_int_equal(df_task_k(rig_task(&r, 0)), 5);
                assert_false(df_task_dirty(rig_task(&r, 0)));
                ok(df_session_poll(r.sessions[0], 9, &n, err));
                assert_int_equal(n, 2); /* up to where the last seal was */
                assert_true(df_task_wants_cut(rig_task(&r, 0)));
                ok(df_session_commit(r.sessions[0], err));
                assert_int_equal(df_task_k(rig_task(&r, 0)), 6);
                r.recover = false; /* from now on it is as any other */
                rig_close_session(&r, 0);
                rig_finish(&r);
                rig_compare(&r);
                rig_close(&r);
        }
}

/* Whether the process came to the step, at which it dies. */
static bool die_at(struct rig *r, int64_t step)
{
        struct df_error e = {0};
        int rc = 0;

        rig_open(r, (uint64_t)step + 1);
        r->params.rows_per_cut = step % 2 ? 2 : 0;
        r->fail_at = step;
        r->fail_code = DF_ECRASH;
        for (int i = 0; rc == 0 && i < 12; i++) {
                size_t n;

                rig_feed(r, 0, 10);
                rc = rig_try_open(r, 0, &e);
                if (rc == 0)
                        rc = df_session_poll(r->sessions[0], 9, &n, &e);
                if (rc == 0 && i % 3 == 2)
                        rc = df_session_commit(r->sessions[0], &e);
        }
        rig_close_process(r);
        df_sim_restart(r->sim, 0);
        r->fail_at = -1;
        return r->failures > 0;
}

/* Died at any step, and then the directory is gone: also when some outputs have the checkpoint
 * that it was publishing and others do not. */
static void test_lost_at_every_step(void **state)
{
        bool struck = true;

        (void)state;
        for (int64_t step = 0; struck; step++) {
                struct rig r;

                struck = die_at(&r, step);
                df_sim_ckpt_lose(r.sim, rig_dir(0), step % 3 == 0);
                r.recover = true;
                rig_feed(&r, 0, 10); /* more than it had when it died */
                rig_finish(&r);
                rig_compare(&r);
                rig_close(&r);
        }
}

/* The same at every port call, midway too; and dying once more while it is rebuilt. */
static void test_lost_at_every_call(void **state)
{
        bool struck = true;

        (void)state;
        for (int64_t n = 20; struck; n++) {
                struct df_sim_fault fault = {
                        .countdown = n, .n = 1, .moment = (enum df_sim_moment)(n % 3)};
                struct df_error e = {0};
                struct rig r;
                size_t m;
                int rc = 0;

                rig_open(&r, (uint64_t)n);
                df_sim_fault_set(r.sim, DF_SIM_CRASH, fault);
                for (int i = 0; rc == 0 && i < 8; i++) {
                        rig_feed(&r, 0, 10);
                        rc = rig_try_open(&r, 0, &e);
                        if (rc == 0)
                                rc = df_session_poll(r.sessions[0], 9, &m, &e);
                        if (rc == 0 && i % 3 == 2)
                                rc = df_session_commit(r.sessions[0], &e);
                }
                struck = df_sim_struck(r.sim, DF_SIM_CRASH) > 0;
                rig_close_process(&r);
                df_sim_restart(r.sim, 0);
                df_sim_ckpt_lose(r.sim, rig_dir(0), false);
                r.recover = true;
                for (int again = 0; again < 3; again++) {
                        fault.countdown = 10 + (n * 5 + again * 7) % 40;
                        df_sim_fault_set(r.sim, DF_SIM_CRASH, fault);
                        rc = rig_try_open(&r, 0, &e);
                        for (m = 1; rc == 0 && m > 0;) {
                                rc = df_session_poll(r.sessions[0], 2, &m, &e);
                                if (rc == 0 && df_task_wants_cut(rig_task(&r, 0)))
                                        rc = df_session_commit(r.sessions[0], &e);
                        }
                        if (rc < 0) {
                                rig_close_process(&r);
                                df_sim_restart(r.sim, 0);
                        }
                }
                df_sim_faults_clear(r.sim);
                rig_feed(&r, 0, 10);
                rig_finish(&r);
                rig_compare(&r);
                rig_close(&r);
        }
}

/* ---- an older checkpoint, put back by `adtally recover --from checkpoint` ---- */

static void test_an_ancestor_goes_on(void **state)
{
        struct rig r;
        size_t n;

        (void)state;
        rig_open(&r, 1);
        for (int i = 0; i < 4; i++)
                rig_checkpoint(&r, 0, 10);
        rig_feed(&r, 0, 10);
        rig_close_session(&r, 0);
        assert_true(df_sim_ckpt_fallback(r.sim, rig_dir(0)));
        ok(rig_try_open(&r, 0, err)); /* needs no leave: the seals prove it */
        assert_int_equal(df_task_position(rig_task(&r, 0)), 3);
        ok(df_session_poll(r.sessions[0], 9, &n, err));
        assert_int_equal(n, 1); /* suppressed up to the last seal */
        ok(df_session_commit(r.sessions[0], err));
        assert_int_equal(df_task_k(rig_task(&r, 0)), 5);
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

/* Died at any step, then gone back by one: whatever the log has of the younger one. */
static void test_gone_back_at_every_step(void **state)
{
        bool struck = true;

        (void)state;
        for (int64_t step = 0; struck; step++) {
                struct rig r;

                struck = die_at(&r, step);
                (void)df_sim_ckpt_fallback(r.sim, rig_dir(0)); /* perhaps there is none */
                rig_feed(&r, 0, 10);
                rig_finish(&r);
                rig_compare(&r);
                rig_close(&r);
        }
}

static void test_rebuilt_under_the_same_settings_alone(void **state)
{
        struct rig r;
        size_t n;

        (void)state;
        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        rig_lose(&r, 0, true);
        r.recover = true;
        r.configs[0].config = 78;
        refused(DF_ESCHEMA, "counted under another grace", rig_try_open(&r, 0, err));
        r.configs[0].config = 77; /* a rule that the digest does not cover */
        r.configs[0].rules.out_of_orderness_ms += 5;
        ok(rig_try_open(&r, 0, err));
        refused(DF_ESCHEMA, "its seal says", df_session_poll(r.sessions[0], 9, &n, err));
        r.configs[0].rules.out_of_orderness_ms -= 5;
        rig_close_session(&r, 0);
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

/* K10, D1: what the log no longer holds. The clock is that of the last seal before the first
 * record, or the rebuild begins at the first seal that there is; live
 * windows are whole either way. */
static void test_rebuilt_from_a_shorter_log(void **state)
{
        static const struct df_operator_ops *const chain[] = {&toy_meter, &toy_minutes};

        (void)state;
        for (int variant = 0; variant < 3; variant++) {
                struct rig r;

                rig_open(&r, 1);
                r.configs[0].chain = chain; /* the tally needs the whole log */
                r.configs[0].chain_length = 2;
                for (int i = 0; i < 40; i++) {
                        rig_feed(&r, 0, 4);
                        if (i % 4 == 3)
                                rig_checkpoint(&r, 0, 1); /* every fifth record ends one */
                }
                rig_feed(&r, 0, 4);
                rig_lose(&r, 0, true);
                if (variant == 0)
                        df_sim_log_trim(r.sim, "toys", 0, 5 * 3 + 2); /* between two seals */
                if (variant == 1)
                        df_sim_log_trim(r.sim, "toys", 0, 5 * 3); /* at one */
                if (variant == 2) { /* the outputs are shorter too: the first seal held is later */
                        df_sim_log_trim(r.sim, "toys", 0, 5 * 3 + 2);
                        size_t count;
                        const struct df_record *rows = df_sim_records(r.sim, "rows", 0, &count);
                        uint64_t cut = 0;
                        for (size_t i = 0; i < count; i++) {
                                struct df_output o;
                                ok(df_output_decode(rows[i].value, &o, err));
                                if (o.is_seal && o.origin.k == 3)
                                        cut = i + 1;
                        }
                        rig_read(&r); /* what a reader has before */
                        df_sim_log_trim(r.sim, "rows", 0, cut);
                }
                r.recover = true;
                ok(rig_try_open(&r, 0, err));
                assert_int_equal(df_task_position(rig_task(&r, 0)), variant == 0   ? 17
                                                                    : variant == 1 ? 15
                                                                                   : 20);
                assert_true(df_task_clock(rig_task(&r, 0))->watermark_ms > BASE_MS);
                rig_finish(&r);
                if (variant < 2) {
                        struct recount n = {0};
                        struct reading *v = &r.readings[0];
                        size_t count;

                        rig_read(&r);
                        df_sim_records(r.sim, "toys", 0, &count);
                        assert_int_equal(v->chain_breaks, 0);
                        assert_int_equal(v->records, 51);
                        /* windows that lived at the last seal, from what is held */
                        recount(&n, df_sim_records(r.sim, "toys", 0, &count), count, false);
                        for (size_t i = 0; i < MINUTES; i++)
                                if (v->minutes[i] != n.minutes[i])
                                        assert_true(minute_end(i) < BASE_MS + 3 * MINUTE);
                }
                rig_close(&r);
        }
}

/* E1, R6: the state of an import that was lost between two generations. */
static void test_a_lost_import(void **state)
{
        (void)state;
        for (int records = 1; records <= 9; records++) {
                struct rig r;
                size_t n;

                rig_open(&r, 1);
                r.configs[0].control = toy_control;
                r.configs[0].rules.bounded = true;
                for (uint64_t g = 1; g <= 3; g++) {
                        struct df_buf b = {0};

                        toy_begin(&b, g * 100);
                        rig_append(&r, 0, &b);
                        rig_feed_event(&r, 0, 1, BASE_MS + (int64_t)g * MINUTE);
                        df_put_u8(&b, 'E');
                        rig_append(&r, 0, &b);
                }
                ok(rig_try_open(&r, 0, err));
                for (int i = 0; i < records; i++) {
                        ok(df_session_poll(r.sessions[0], 1, &n, err));
                        assert_int_equal(n, 1);
                        ok(df_session_commit(r.sessions[0], err));
                }
                rig_lose(&r, 0, true);
                r.recover = true;
                ok(rig_try_open(&r, 0, err));
                for (n = 1; n > 0 || df_session_lag(r.sessions[0]) > 0;) {
                        ok(df_session_poll(r.sessions[0], 100, &n, err));
                        if (df_task_wants_cut(rig_task(&r, 0)))
                                ok(df_session_commit(r.sessions[0], err));
                }
                ok(df_session_commit(r.sessions[0], err));
                rig_read(&r);
                assert_int_equal(r.readings[0].last_source.generation, 300);
                assert_int_equal(r.readings[0].told[1], 3);
                assert_int_equal(r.readings[0].noted, 3);
                assert_int_equal(r.readings[0].records, 9);
                assert_int_equal(r.readings[0].chain_breaks, 0);
                for (int g = 1; g <= 3; g++)
                        assert_int_equal(r.readings[0].minutes[g], 1);
                rig_close(&r);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lost_state_is_refused_and_rebuilt),
                cmocka_unit_test(test_lost_at_every_step),
                cmocka_unit_test(test_lost_at_every_call),
                cmocka_unit_test(test_an_ancestor_goes_on),
                cmocka_unit_test(test_gone_back_at_every_step),
                cmocka_unit_test(test_rebuilt_under_the_same_settings_alone),
                cmocka_unit_test(test_rebuilt_from_a_shorter_log),
                cmocka_unit_test(test_a_lost_import),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
