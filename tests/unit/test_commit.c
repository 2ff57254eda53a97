/* test_commit.c - the session's protocol: K1, K4, K5, K7 with a crash or a failure anywhere;
 * release (L2); errors that may be tried again. Takeovers: test_takeover.c, test_rebuild.c. */
#include "unit.h"

#include "runtime/core/session_private.h"
#include "tests/unit/commit_test.h"

/* ---- the order ---- */

static void test_steps_by_name(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_feed(&r, 0, 5);
        ok(rig_try_open(&r, 0, err));
        assert_string_equal(r.steps, "takeover restore scan:exchange scan:rows read ");
        r.steps[0] = 0;
        size_t n;
        ok(df_session_poll(r.sessions[0], 9, &n, err));
        assert_int_equal(n, 1);
        assert_string_equal(r.steps, "");
        ok(df_session_commit(r.sessions[0], err));
        assert_string_equal(r.steps,
                            "cut persist publish append:exchange append:rows retire release ");
        r.steps[0] = 0;
        r.params.rows_per_cut = 1; /* K6: drained in the same commit */
        rig_feed_event(&r, 0, 1, BASE_MS + 5 * MINUTE);
        rig_feed_event(&r, 0, 1, BASE_MS + 6 * MINUTE);
        ok(df_session_poll(r.sessions[0], 9, &n, err));
        ok(df_session_commit(r.sessions[0], err));
        assert_string_equal(r.steps,
                            "cut persist publish append:exchange append:rows retire release "
                            "cut persist publish append:exchange append:rows retire release ");
        assert_int_equal(df_task_k(rig_task(&r, 0)), 3);
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

/* K4: after publish the log lacks what CURRENT names: the next owner writes it, whole, under its
 * own epoch, and nothing else. */
static void test_the_next_owner_publishes(void **state)
{
        static const char *const before[] = {"append:exchange", "append:rows"};

        (void)state;
        for (int i = 0; i < 2; i++) {
                struct rig r;
                size_t n;

                rig_open(&r, 1);
                rig_feed(&r, 0, 5);
                ok(rig_try_open(&r, 0, err));
                ok(df_session_poll(r.sessions[0], 9, &n, err));
                r.fail_at = (int64_t)r.step_count + 3 + i;
                r.fail_code = DF_ECRASH;
                refused(DF_ECRASH, "crashed", df_session_commit(r.sessions[0], err));
                rig_close_process(&r);
                df_sim_restart(r.sim, 0);
                r.steps[0] = 0;
                ok(rig_try_open(&r, 0, err));
                assert_int_equal(df_task_k(rig_task(&r, 0)), 1);
                assert_int_equal(df_session_epoch(r.sessions[0]), 2);
                assert_non_null(strstr(r.steps, before[i]));
                assert_true(i == 0 || !strstr(r.steps, before[0]));
                assert_int_equal(df_session_lag(r.sessions[0]), 0);
                rig_finish(&r);
                rig_compare(&r);
                rig_close(&r);
        }
}

/* ---- lag ---- */

static struct {
        uint64_t position, end;
        int rc;
} said;

static uint64_t said_position(struct df_log_reader *r)
{
        return said.position;
}

static int said_end(struct df_log_reader *r, uint64_t *ret_end, struct df_error *e)
{
        *ret_end = said.end;
        return said.rc;
}

/* K11: lag is what the reader has seen, without a question to the log (bounds is not there to be
 * called); offsets without a record are no lag; what is not known is not 0. */
static void test_lag_asks_nobody(void **state)
{
        const struct df_log_ops ops = {.position = said_position, .seen_end = said_end};
        struct df_log log = {.ops = &ops};
        struct df_log_reader fake = {.log = &log}, *real;
        struct rig r;
        size_t n;

        (void)state;
        rig_open(&r, 1);
        rig_feed(&r, 0, 4);
        ok(rig_try_open(&r, 0, err));
        real = r.sessions[0]->reader;
        r.sessions[0]->reader = &fake;
        said.position = 0;
        said.end = 7;
        assert_int_equal(df_session_lag(r.sessions[0]), 7);
        said.position = 5; /* behind markers */
        assert_int_equal(df_session_lag(r.sessions[0]), 2);
        said.end = 4; /* old news */
        assert_int_equal(df_session_lag(r.sessions[0]), 0);
        said.rc = DF_EAGAIN;
        assert_true(df_session_lag(r.sessions[0]) == DF_LAG_UNKNOWN);
        r.sessions[0]->reader = real;
        ok(df_session_poll(r.sessions[0], 9, &n, err));
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

/* ---- a fault anywhere ---- */

/* One life of the process; false when a fault ended it. */
static bool live(struct rig *r, size_t *fed, size_t records)
{
        struct df_error e = {0};

        for (;; ++*fed) {
                uint32_t p = (uint32_t)(*fed % PARTITIONS);
                size_t n;

                if (rig_try_open(r, p, &e) < 0)
                        return false;
                if (*fed < records)
                        rig_feed(r, p, 6);
                else if (*fed >= records + PARTITIONS)
                        return true;
                if (df_session_poll(r->sessions[p], 3, &n, &e) < 0 ||
                    (*fed % 3 != 2 && df_session_commit(r->sessions[p], &e) < 0)) {
                        ++*fed; /* fed it was */
                        return false;
                }
        }
}

/* Something fails once, somewhere. Whatever the caller does then, the numbers are right. */
static void check_fault(struct rig *r, uint64_t n, bool by_step, int code,
                        enum df_sim_moment moment, bool *ret_struck)
{
        struct df_sim_fault fault = {.countdown = (int64_t)n, .n = 1, .moment = moment};
        size_t fed = 0;

        rig_open(r, n + 1);
        r->params.rows_per_cut = 2;
        if (by_step) {
                r->fail_at = (int64_t)n;
                r->fail_code = code;
        } else {
                df_sim_fault_set(r->sim,
                                 code == DF_ECRASH ? DF_SIM_CRASH
                                 : code == DF_EIO  ? DF_SIM_EIO
                                                   : DF_SIM_ENOSPC,
                                 fault);
        }
        while (!live(r, &fed, 9)) {
                rig_close_process(r); /* L1: a broken writer needs a new process */
                df_sim_restart(r->sim, 0);
        }
        *ret_struck = r->failures > 0 || df_sim_struck(r->sim, DF_SIM_CRASH) > 0 ||
                      df_sim_struck(r->sim, DF_SIM_EIO) > 0 ||
                      df_sim_struck(r->sim, DF_SIM_ENOSPC) > 0;
        r->fail_at = -1;
        df_sim_faults_clear(r->sim);
        rig_finish(r);
        rig_compare(r);
        for (uint32_t p = 0; p < PARTITIONS; p++)
                assert_true(df_sim_ckpt_count(r->sim, rig_dir(p)) <= 2); /* K7 */
        rig_close(r);
}

static void test_a_fault_before_every_step(void **state)
{
        static const int codes[] = {DF_ECRASH, DF_EIO, DF_ENOSPC, DF_EAGAIN};

        (void)state;
        for (size_t i = 0; i < 4; i++) {
                bool struck = true;
                uint64_t n = 0;

                for (; struck; n++) {
                        struct rig r;
                        check_fault(&r, n, true, codes[i], DF_SIM_BEFORE, &struck);
                }
                assert_true(n > 40); /* that many steps there were */
        }
}

static void test_a_fault_at_every_port_call(void **state)
{
        static const int codes[] = {DF_ECRASH, DF_EIO, DF_ENOSPC};

        (void)state;
        for (size_t i = 0; i < 3; i++)
                for (int moment = 0; moment < 3; moment++) {
                        bool struck = true;
                        uint64_t n = 0;

                        for (; struck; n++) {
                                struct rig r;
                                check_fault(&r, n, false, codes[i], (enum df_sim_moment)moment,
                                            &struck);
                        }
                        assert_true(n > 40);
                }
}

/* ---- errors ---- */

/* A full disk while appending stores nothing and changes nothing: the same commit goes on. */
static void test_a_commit_goes_on(void **state)
{
        static const char *const at[] = {"append:exchange", "append:rows", "retire", "release"};

        (void)state;
        for (int i = 0; i < 4; i++) {
                struct rig r;
                size_t n;

                rig_open(&r, 1);
                rig_feed(&r, 0, 5);
                ok(rig_try_open(&r, 0, err));
                ok(df_session_poll(r.sessions[0], 9, &n, err));
                r.fail_at = (int64_t)r.step_count + 3 + i;
                r.fail_code = DF_ENOSPC;
                refused(DF_ENOSPC, at[i], df_session_commit(r.sessions[0], err));
                assert_int_equal(df_task_wants_cut(rig_task(&r, 0)), i < 2);
                rig_feed(&r, 0, 5);
                ok(df_session_poll(r.sessions[0], 9, &n, err));
                assert_int_equal(n, i < 2 ? 0 : 1); /* nothing before k is published */
                ok(df_session_commit(r.sessions[0], err));
                assert_int_equal(df_task_k(rig_task(&r, 0)), i < 2 ? 1 : 2);
                rig_finish(&r);
                rig_compare(&r);
                assert_int_equal(r.readings[0].repeated, 0);
                rig_close(&r);
        }
}

/* Elsewhere the state is in doubt (K7): every further call says so, until it is opened again. */
static void test_a_broken_session(void **state)
{
        static const int codes[] = {DF_EIO, DF_ENOSPC, DF_ECORRUPT};

        (void)state;
        for (int step = 0; step < 3; step++)
                for (int i = 0; i < 3; i++) {
                        int then = codes[i] == DF_ENOSPC ? DF_EIO : codes[i];
                        struct rig r;
                        size_t n;

                        rig_open(&r, 1);
                        rig_feed(&r, 0, 5);
                        ok(rig_try_open(&r, 0, err));
                        ok(df_session_poll(r.sessions[0], 9, &n, err));
                        r.fail_at = (int64_t)r.step_count + step;
                        r.fail_code = codes[i];
                        refused(codes[i], "injected", df_session_commit(r.sessions[0], err));
                        refused(then, "take over again", df_session_commit(r.sessions[0], err));
                        refused(then, "injected", df_session_poll(r.sessions[0], 9, &n, err));
                        df_session_close(r.sessions[0]);
                        r.sessions[0] = NULL; /* the same state directory object */
                        ok(rig_try_open(&r, 0, err));
                        rig_finish(&r);
                        rig_compare(&r);
                        rig_close(&r);
                }
}

/* A poll that finds the log busy is called again. */
static void test_a_poll_is_tried_again(void **state)
{
        struct df_sim_fault fault = {.countdown = 0, .n = 1, .moment = DF_SIM_BEFORE};
        struct rig r;
        size_t n;

        (void)state;
        rig_open(&r, 1);
        rig_feed(&r, 0, 5);
        ok(rig_try_open(&r, 0, err));
        df_sim_fault_set(r.sim, DF_SIM_EIO, fault);
        refused(DF_EIO, "injected", df_session_poll(r.sessions[0], 9, &n, err));
        assert_int_equal(n, 0);
        refused(DF_EIO, "take over", df_session_poll(r.sessions[0], 9, &n, err));
        rig_close_session(&r, 0);
        ok(rig_try_open(&r, 0, err));
        ok(df_session_poll(r.sessions[0], 9, &n, err));
        assert_int_equal(n, 1);
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

static void test_an_operator_breaks_the_session(void **state)
{
        struct rig r;
        size_t n;

        (void)state;
        rig_open(&r, 1);
        rig_feed(&r, 0, 5);
        ok(rig_try_open(&r, 0, err));
        r.params.fail_in = "process";
        refused(DF_EIO, "fails", df_session_poll(r.sessions[0], 9, &n, err));
        r.params.fail_in = NULL;
        refused(DF_EIO, "take over", df_session_commit(r.sessions[0], err));
        rig_close_session(&r, 0);
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

/* ---- reading and releasing ---- */

/* L2, K7: records from the end of the checkpoint before CURRENT's are kept. */
static void test_release(void **state)
{
        uint64_t offset = 99;
        struct rig r;
        size_t n;

        (void)state;
        rig_open(&r, 1);
        ok(rig_try_open(&r, 0, err));
        assert_true(df_sim_consumer(r.sim, "toys", 0, "tasks", &offset));
        assert_int_equal(offset, 0);
        for (uint64_t k = 1; k <= 4; k++) {
                rig_feed(&r, 0, 2);
                rig_feed(&r, 0, 2);
                assert_int_equal(df_session_lag(r.sessions[0]), 2);
                ok(df_session_poll(r.sessions[0], 9, &n, err));
                ok(df_session_commit(r.sessions[0], err));
                assert_int_equal(df_session_lag(r.sessions[0]), 0);
                assert_true(df_sim_consumer(r.sim, "toys", 0, "tasks", &offset));
                assert_int_equal(offset, 2 * (k - 1));
        }
        rig_close_session(&r, 0);
        ok(rig_try_open(&r, 0, err)); /* opening moves it neither way */
        assert_true(df_sim_consumer(r.sim, "toys", 0, "tasks", &offset));
        assert_int_equal(offset, 6);
        assert_int_equal(df_task_position(rig_task(&r, 0)), 8);
        rig_close(&r);
}

/* R6: a poll that holds the end of a generation and more: the cut comes between, and what was
 * polled outlives it (release would end its memory). */
static void test_a_generation_ends_within_a_poll(void **state)
{
        struct rig r;
        size_t n;

        (void)state;
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
        for (int g = 1; g <= 3; g++) {
                ok(df_session_poll(r.sessions[0], 100, &n, err));
                assert_int_equal(n, 3);
                ok(df_session_poll(r.sessions[0], 100, &n, err));
                assert_int_equal(n, 0);
                assert_true(df_task_wants_cut(rig_task(&r, 0)));
                assert_int_equal(df_session_lag(r.sessions[0]), 9 - 3 * g);
                ok(df_session_commit(r.sessions[0], err));
        }
        rig_read(&r);
        assert_int_equal(r.readings[0].last_source.generation, 300);
        assert_int_equal(r.readings[0].seals, 3);
        assert_int_equal(r.readings[0].told[1], 3);
        for (int g = 1; g <= 3; g++)
                assert_int_equal(r.readings[0].minutes[g], 1);
        assert_int_equal(r.readings[0].chain_breaks, 0);
        rig_close_session(&r, 0); /* the state is of generation 300, the topic of its own */
        ok(rig_try_open(&r, 0, err));
        assert_int_equal(df_task_source(rig_task(&r, 0))->generation, 300);
        rig_close(&r);
}

/* A poll takes no more than it is asked to. */
static void test_poll_is_bounded(void **state)
{
        struct rig r;
        size_t n;

        (void)state;
        rig_open(&r, 1);
        for (int i = 0; i < 10; i++)
                rig_feed(&r, 0, 1);
        ok(rig_try_open(&r, 0, err));
        for (int i = 0; i < 4; i++) {
                ok(df_session_poll(r.sessions[0], 3, &n, err));
                assert_int_equal(n, i < 3 ? 3 : 1);
        }
        ok(df_session_poll(r.sessions[0], 3, &n, err));
        assert_int_equal(n, 0);
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

/* Random runs of two tasks over the same outputs: their records stand between each other. */
static void test_random_lives(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 60; seed++) {
                struct rig r;

                rig_open(&r, seed);
                r.params.rows_per_cut = (uint32_t)(seed % 4);
                for (int i = 0; i < 120; i++) {
                        uint32_t p = (uint32_t)df_sim_random_below(&r.random, PARTITIONS);
                        uint64_t x = df_sim_random_below(&r.random, 100);
                        struct df_error e = {0};
                        size_t n;
                        int rc = rig_try_open(&r, p, &e);

                        if (rc == 0 && x < 30)
                                rig_feed(&r, p, df_sim_random_below(&r.random, 10));
                        else if (rc == 0 && x < 60)
                                rc = df_session_poll(r.sessions[p], 1 + x % 4, &n, &e);
                        else if (rc == 0 && x < 85)
                                rc = df_session_commit(r.sessions[p], &e);
                        else if (rc == 0 && x < 90)
                                rig_close_session(&r, p);
                        else if (rc == 0)
                                df_sim_fault_set(
                                        r.sim, (enum df_sim_fault_kind)(x % 3),
                                        (struct df_sim_fault){
                                                .countdown = (int64_t)(x * 7 % 23),
                                                .n = 1,
                                                .moment = (enum df_sim_moment)(x / 3 % 3)});
                        if (rc < 0) {
                                rig_close_process(&r);
                                df_sim_restart(r.sim, 0);
                        }
                }
                df_sim_faults_clear(r.sim);
                rig_close_process(&r);
                rig_finish(&r);
                rig_compare(&r);
                rig_close(&r);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_steps_by_name),
                cmocka_unit_test(test_the_next_owner_publishes),
                cmocka_unit_test(test_lag_asks_nobody),
                cmocka_unit_test(test_a_fault_before_every_step),
                cmocka_unit_test(test_a_fault_at_every_port_call),
                cmocka_unit_test(test_a_commit_goes_on),
                cmocka_unit_test(test_a_broken_session),
                cmocka_unit_test(test_a_poll_is_tried_again),
                cmocka_unit_test(test_an_operator_breaks_the_session),
                cmocka_unit_test(test_release),
                cmocka_unit_test(test_a_generation_ends_within_a_poll),
                cmocka_unit_test(test_poll_is_bounded),
                cmocka_unit_test(test_random_lives),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
