/* test_range.c - a session over a range of a partition (R1, K8, K14): what it counts is a recount
 * of exactly these records, whatever lies around them and wherever it crashes; at its end
 * everything is final. */
#include "unit.h"

#include "tests/unit/commit_test.h"

#define FED 40

/* Polls and commits until the range is done or an error. */
static int go_on(struct rig *r, struct df_error *e)
{
        int rc = rig_try_open(r, 0, e);

        while (rc == 0 && !df_session_done(r->sessions[0])) {
                size_t n, max = 1 + (size_t)df_sim_random_u64(&r->random) % 9;

                rc = df_session_poll(r->sessions[0], max, &n, e);
                if (rc == 0 &&
                    (df_task_wants_cut(rig_task(r, 0)) || df_sim_random_u64(&r->random) % 3 == 0))
                        rc = df_session_commit(r->sessions[0], e);
        }
        return rc;
}

static void check_range(struct rig *r, uint64_t from, uint64_t to)
{
        struct recount n = {0};
        size_t count;
        const struct df_record *records = df_sim_records(r->sim, "toys", 0, &count);
        const struct reading *v = &r->readings[0];

        rig_read(r);
        recount(&n, records + from, to - from, false);
        compare(v, &n, r->seed);
        assert_int_equal(v->last.to_offset, to);
        assert_true(v->last.closed);
        assert_int_equal(v->last.watermark_ms, DF_TIME_MAX);
        assert_int_equal(v->last.final_through_ms, DF_TIME_MAX);
        assert_int_equal(df_session_lag(r->sessions[0]), 0);
        assert_int_equal(df_task_position(rig_task(r, 0)), to);
}

static void open_range(struct rig *r, uint64_t seed, uint64_t *from, uint64_t *to)
{
        rig_open(r, seed);
        for (int i = 0; i < FED; i++)
                rig_feed(r, 0, (size_t)df_sim_random_u64(&r->random) % 6);
        *from = df_sim_random_u64(&r->random) % (FED + 1);
        *to = *from + df_sim_random_u64(&r->random) % (FED + 1 - *from);
        r->configs[0].range = (struct df_range){.given = true, .from = *from, .to = *to};
}

static void test_a_range_is_counted_alone(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 200; seed++) {
                struct rig r;
                uint64_t from, to;
                size_t n;

                open_range(&r, seed, &from, &to);
                ok(go_on(&r, err));
                check_range(&r, from, to);
                rig_feed(&r, 0, 3); /* what comes later is nothing to it */
                ok(df_session_poll(r.sessions[0], 9, &n, err));
                assert_int_equal(n, 0);
                assert_false(df_task_dirty(rig_task(&r, 0)));
                rig_close_process(&r); /* and a finished one is still finished */
                ok(rig_try_open(&r, 0, err));
                assert_true(df_session_done(r.sessions[0]));
                check_range(&r, from, to);
                rig_close(&r);
        }
}

static void test_crashes_change_nothing(void **state)
{
        uint64_t struck = 0;

        (void)state;
        for (uint64_t seed = 1; seed <= 400; seed++) {
                struct df_error e = {0};
                struct rig r;
                uint64_t from, to;
                int rc = DF_ECRASH;

                open_range(&r, seed, &from, &to);
                for (int life = 0; life < 3 && rc < 0; life++) {
                        r.fail_at = (int64_t)r.step_count +
                                    (int64_t)(df_sim_random_u64(&r.random) % 24);
                        r.fail_code = DF_ECRASH;
                        rc = go_on(&r, &e);
                        if (rc == 0)
                                break;
                        struck++;
                        assert_int_equal(rc, DF_ECRASH);
                        rig_close_process(&r);
                        df_sim_restart(r.sim, 0);
                }
                r.fail_at = -1;
                ok(go_on(&r, err));
                check_range(&r, from, to);
                rig_close(&r);
        }
        assert_true(struck > 100);
}

/* An open range goes on where it stood: cut anywhere, and through crashes, the rows are those of
 * the whole, nothing is final that would not be, and at its end there is a checkpoint. */
static void test_open_ranges_go_on(void **state)
{
        uint64_t stood = 0;

        (void)state;
        for (uint64_t seed = 1; seed <= 300; seed++) {
                struct recount n = {0};
                struct df_error e = {0};
                struct rig r;
                uint64_t from, to, at;
                size_t count;

                open_range(&r, seed, &from, &to);
                r.configs[0].range.open = true;
                for (at = from; at <= to; at += 1 + df_sim_random_u64(&r.random) % 15) {
                        r.configs[0].range.to = at;
                        r.fail_at = (int64_t)r.step_count +
                                    (int64_t)(df_sim_random_u64(&r.random) % 40);
                        r.fail_code = DF_ECRASH;
                        if (go_on(&r, &e) < 0) {
                                rig_close_process(&r);
                                df_sim_restart(r.sim, 0);
                        }
                        r.fail_at = -1;
                        ok(go_on(&r, err));
                        assert_int_equal(df_task_position(rig_task(&r, 0)), at);
                        rig_read(&r);
                        assert_int_equal(r.readings[0].last.to_offset, at);
                        assert_false(r.readings[0].last.closed);
                        stood += at > from && r.readings[0].last.watermark_ms < DF_TIME_MAX;
                        rig_close_process(&r);
                }
                r.configs[0].range.open = false; /* what is left, to the end of all */
                r.configs[0].range.to = to;
                ok(go_on(&r, err));
                rig_read(&r);
                recount(&n, df_sim_records(r.sim, "toys", 0, &count) + from, to - from, false);
                compare(&r.readings[0], &n, r.seed);
                rig_close(&r);
        }
        assert_true(stood > 100);
}

/* K14: nothing is left out in silence. */
static void test_deleted_records_are_refused(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, 7);
        for (int i = 0; i < FED; i++)
                rig_feed(&r, 0, 2);
        r.configs[0].range = (struct df_range){.given = true, .from = 3, .to = 9};
        df_sim_log_trim(r.sim, "toys", 0, 5);
        refused(DF_EOFFSET, "its first records were deleted", rig_try_open(&r, 0, err));
        r.configs[0].range.from = 5;
        rig_close_session(&r, 0);
        ok(go_on(&r, err));
        assert_int_equal(df_task_position(rig_task(&r, 0)), 9);
        rig_close(&r);
}

/* ---- what is committed, seen from outside (K3) ---- */

/* A log with transactions, as little of one as a task needs: what is produced is appended when it
 * is committed. */
struct ledger {
        struct df_txn txn;
        struct rig *rig;
        struct df_append *items[OUTPUTS];
        size_t counts[OUTPUTS];
        struct df_committed committed, next;
        uint64_t to, rests; /* commits at the range's end that something had to follow */
};

static int ledger_takeover(struct df_txn *t, struct df_committed *ret, struct df_error *e)
{
        (void)e;
        *ret = ((struct ledger *)t)->committed;
        return 0;
}

static int ledger_begin(struct df_txn *t, struct df_error *e)
{
        (void)e;
        memset(((struct ledger *)t)->counts, 0, sizeof(((struct ledger *)t)->counts));
        return 0;
}

static int ledger_produce(struct df_txn *t, const char *topic, struct df_append *items,
                          size_t count, struct df_error *e)
{
        struct ledger *l = (struct ledger *)t;
        int output = strcmp(topic, "rows") == 0;

        (void)e;
        l->items[output] = items;
        l->counts[output] = count;
        return 0;
}

static int ledger_offsets(struct df_txn *t, uint64_t offset, const char *metadata,
                          struct df_error *e)
{
        struct ledger *l = (struct ledger *)t;

        (void)e;
        l->next = (struct df_committed){.any = true, .offset = offset};
        (void)snprintf(l->next.metadata, sizeof(l->next.metadata), "%s", metadata);
        return 0;
}

static int ledger_commit(struct df_txn *t, struct df_error *e)
{
        struct ledger *l = (struct ledger *)t;
        uint64_t k;

        for (int i = 0; i < OUTPUTS; i++)
                if (l->counts[i])
                        ok(df_log_append(l->rig->writers[i], l->items[i], l->counts[i], e));
        l->committed = l->next;
        l->rests += l->committed.offset >= l->to && !df_committed_done(&l->committed, l->to, &k);
        return 0;
}

static int ledger_abort(struct df_txn *t, struct df_error *e)
{
        (void)t;
        (void)e;
        return 0;
}

static const struct df_txn_ops ledger_ops = {
        .takeover = ledger_takeover,
        .keep = ledger_takeover,
        .begin = ledger_begin,
        .produce = ledger_produce,
        .offsets = ledger_offsets,
        .commit = ledger_commit,
        .abort = ledger_abort,
};

/* Who sees only what is committed says the same as the session. */
static void check_seen(struct rig *r, const struct ledger *l)
{
        uint64_t k = 0;
        bool done = df_committed_done(&l->committed, l->to, &k);

        if (done != df_session_done(r->sessions[0]) || (done && k != df_task_k(rig_task(r, 0))))
                fail_msg("seed %llu: \"%s\" at %llu of %llu, the session is %sdone",
                         (unsigned long long)r->seed, l->committed.metadata,
                         (unsigned long long)l->committed.offset, (unsigned long long)l->to,
                         df_session_done(r->sessions[0]) ? "" : "not ");
}

static int commit_all(struct rig *r, const struct ledger *l, struct df_error *e)
{
        int rc = rig_try_open(r, 0, e);

        if (rc == 0)
                check_seen(r, l);
        while (rc == 0 && !df_session_done(r->sessions[0])) {
                size_t n, max = 1 + (size_t)df_sim_random_u64(&r->random) % 30;

                rc = df_session_poll(r->sessions[0], max, &n, e);
                if (rc == 0 && !df_task_wants_cut(rig_task(r, 0)) &&
                    df_sim_random_u64(&r->random) % 3)
                        continue;
                if (rc == 0)
                        rc = df_session_commit(r->sessions[0], e);
                if (rc == 0)
                        check_seen(r, l);
        }
        return rc;
}

/* R1, K6: an open range is done when what is committed says so, neither before its last row has
 * left nor never, wherever the owner dies. */
static void test_the_end_is_seen_in_what_is_committed(void **state)
{
        uint64_t rests = 0, struck = 0;

        (void)state;
        for (uint64_t seed = 1; seed <= 900; seed++) {
                struct ledger l = {.txn = {.ops = &ledger_ops}};
                struct recount n = {0};
                struct df_error e = {0};
                struct rig r;
                uint64_t from;
                size_t count;

                open_range(&r, seed, &from, &l.to);
                l.rig = &r;
                r.txn = &l.txn;
                r.params.rows_per_cut = 1 + (uint32_t)(seed % 3);
                r.configs[0].range.open = true;
                for (int life = 0; life < 4; life++) {
                        r.fail_at = (int64_t)r.step_count +
                                    (int64_t)(df_sim_random_u64(&r.random) % 60);
                        r.fail_code = DF_ECRASH;
                        if (commit_all(&r, &l, &e) == 0)
                                break;
                        struck++;
                        rig_close_process(&r);
                        df_sim_restart(r.sim, 0);
                }
                r.fail_at = -1;
                ok(commit_all(&r, &l, err));
                rests += l.rests;
                recount(&n, df_sim_records(r.sim, "toys", 0, &count) + from, l.to - from, false);
                assert_int_equal(l.committed.offset, l.to);
                rig_close(&r);
        }
        assert_true(rests > 200 && struck > 200);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_range_is_counted_alone),
                cmocka_unit_test(test_crashes_change_nothing),
                cmocka_unit_test(test_open_ranges_go_on),
                cmocka_unit_test(test_deleted_records_are_refused),
                cmocka_unit_test(test_the_end_is_seen_in_what_is_committed),
        };

        return cmocka_run_group_tests_name("range", tests, NULL, NULL);
}
