/* test_task.c - the pure task: the law of df/operator.h, cuts and what they publish (K1, K4, K6,
 * K7), and operators and stores that fail. */
#include "unit.h"

#include "tests/unit/task_test.h"

/* ---- the law ---- */

/* Batches, cuts and restores anywhere: the same final state, the same exchange, the same rows. */
static void test_cuts_and_restores_change_nothing(void **state)
{
        struct df_buf whole = {0}, cut = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= 40; seed++) {
                struct rig a, b;

                rig_init(&a, seed);
                rig_init(&b, seed);
                for (int i = 0; i < 60; i++) {
                        size_t events = df_sim_random_below(&a.random, 30);
                        (void)df_sim_random_below(&b.random, 30);
                        rig_log_data(&a, events);
                        rig_log_data(&b, events);
                }
                rig_create(&a);
                rig_create(&b);
                assert_int_equal(rig_process(&a, 1000), 60);
                rig_drain(&a);
                rig_compare(&a);
                b.params.rows_per_cut = (uint32_t)(seed % 3) * 5;
                while (df_task_position(b.task) < b.count) {
                        (void)rig_process(&b, 1 + df_sim_random_below(&b.random, 5));
                        if (df_sim_random_chance(&b.random, 500))
                                rig_cut(&b);
                        while (df_task_wants_cut(b.task))
                                rig_cut(&b);
                        if (b.cuts && df_sim_random_chance(&b.random, 300))
                                rig_restore(&b); /* back to the last cut */
                }
                rig_drain(&b);
                rig_compare(&b);
                assert_true(b.reading.last.final_through_ms == a.reading.last.final_through_ms);
                dump_store(a.store, 0x10, &whole);
                dump_store(b.store, 0x10, &cut);
                if (!df_bytes_eq(df_buf_bytes(&whole), df_buf_bytes(&cut)))
                        fail_msg("seed %llu: state differs", (unsigned long long)seed);
                assert_true(a.params.told <= b.params.told); /* once a batch that moved it */
                rig_release(&a);
                rig_release(&b);
        }
        df_buf_release(&whole);
        df_buf_release(&cut);
}

/* The same calls give the same bytes: state, meta, outbox. */
static void test_deterministic(void **state)
{
        struct df_buf dumps[2] = {{0}, {0}};

        (void)state;
        for (int i = 0; i < 2; i++) {
                struct rig r;

                rig_init(&r, 7);
                rig_create(&r);
                for (int j = 0; j < 30; j++) {
                        rig_log_data(&r, 20);
                        (void)rig_process(&r, 1);
                        if (j % 7 == 0)
                                rig_cut(&r);
                }
                rig_cut(&r);
                dump_store(r.store, 0, &dumps[i]);
                rig_release(&r);
        }
        assert_true(dumps[0].len > 400);
        assert_true(df_bytes_eq(df_buf_bytes(&dumps[0]), df_buf_bytes(&dumps[1])));
        df_buf_release(&dumps[0]);
        df_buf_release(&dumps[1]);
}

static void test_restored_at_every_cut(void **state)
{
        struct rig r;

        (void)state;
        rig_init(&r, 3);
        rig_create(&r);
        for (int i = 0; i < 50; i++) {
                rig_log_data(&r, 8);
                assert_int_equal(rig_process(&r, 1), 1);
                rig_cut(&r);
                rig_restore(&r);
                assert_int_equal(df_task_k(r.task), i + 1);
                assert_false(df_task_dirty(r.task));
        }
        rig_compare(&r);
        rig_release(&r);
}

/* ---- K1, K4, K6, K7 ---- */

static void test_the_outbox_lives_until_the_next_cut(void **state)
{
        const struct df_bytes *records;
        const struct df_collection_info *c;
        struct df_buf before = {0}, after = {0};
        struct df_store *copy;
        size_t count, n;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        rig_create(&r);
        rig_log_event(&r, 1, BASE_MS);
        (void)rig_process(&r, 1);
        ok(df_task_cut(r.task, err));
        assert_int_equal(outbox_keys(&r), 2); /* exchange/1 and rows */
        for (int i = 0; i < 2; i++) {         /* the same, also from the restored state (K8) */
                struct df_buf *b = i ? &after : &before;

                c = df_task_collections(r.task, &count);
                for (size_t j = 0; j < count; j++) {
                        ok(df_task_publish(r.task, &c[j], 9, &records, &n, err));
                        for (size_t m = 0; m < n; m++)
                                df_put_lstr(b, records[m]);
                }
                copy = df_sim_store_clone(r.store);
                df_task_destroy(r.task);
                df_sim_store_destroy(r.store);
                r.store = copy;
                rig_create(&r);
        }
        assert_true(df_bytes_eq(df_buf_bytes(&before), df_buf_bytes(&after)));
        df_task_committed(r.task);
        assert_int_equal(outbox_keys(&r), 2);
        ok(df_task_cut(r.task, err)); /* nothing new: the old one goes, though restored */
        assert_int_equal(outbox_keys(&r), 0);
        df_task_committed(r.task);
        rig_log_event(&r, 1, BASE_MS);
        (void)rig_process(&r, 1);
        ok(df_task_cut(r.task, err));
        df_task_committed(r.task);
        assert_int_equal(outbox_keys(&r), 2);
        ok(df_task_cut(r.task, err)); /* key by key */
        assert_int_equal(outbox_keys(&r), 0);
        df_buf_release(&before);
        df_buf_release(&after);
        rig_release(&r);
}

static void test_seals_chain(void **state)
{
        struct df_hash128 digest = {0, 0};
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        rig_create(&r);
        for (uint64_t k = 1; k <= 5; k++) {
                const struct df_seal *s = &r.reading.last;
                struct df_hash128 parent = digest;
                uint64_t from = r.count;

                rig_log_event(&r, 2, BASE_MS + (int64_t)k * MINUTE);
                rig_log_event(&r, 3, BASE_MS + 20 * MINUTE); /* ahead of the log: refused */
                r.now_ms = BASE_MS;                          /* the log's clock stands still */
                r.records[r.count - 1].append_ms = BASE_MS;
                (void)rig_process(&r, 2);
                rig_cut(&r);
                assert_int_equal(s->parent_k, k - 1);
                assert_true(df_hash128_eq(s->parent_digest, parent));
                assert_false(df_hash128_eq(s->digest, parent));
                assert_int_equal(s->from_offset, from);
                assert_int_equal(s->to_offset, from + 2);
                assert_int_equal(s->records, 2);
                assert_int_equal(s->events, 2);
                assert_int_equal(s->outcomes[TOY_REFUSED], 1);
                assert_int_equal(s->config, 77);
                assert_int_equal(s->price_version, 7);
                assert_int_equal(s->label_version, 9);
                assert_string_equal(s->binary_version, "toy-1");
                assert_int_equal(s->watermark_ms, BASE_MS + (int64_t)k * MINUTE - 1000);
                assert_int_equal(s->final_through_ms, s->watermark_ms - GRACE_MS); /* W4 */
                assert_int_equal(s->max_receive_ms, BASE_MS + (int64_t)k * MINUTE);
                assert_false(s->closed);
                digest = s->digest;
        }
        rig_cut(&r); /* nothing happened: what was in force stays so */
        assert_int_equal(r.reading.last.price_version, 7);
        assert_int_equal(r.reading.last.from_offset, r.reading.last.to_offset);
        rig_release(&r);
}

/* The program that cut it, not the one that publishes it after a restart. */
static void test_the_version_is_that_of_the_cut(void **state)
{
        const struct df_collection_info *c;
        size_t count;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        rig_create(&r);
        ok(df_task_cut(r.task, err));
        df_task_destroy(r.task);
        r.config.binary_version = "toy-2";
        rig_create(&r);
        c = df_task_collections(r.task, &count);
        rig_read(&r, &c[count - 1], count - 1, 2);
        assert_string_equal(r.reading.last.binary_version, "toy-1");
        df_task_committed(r.task);
        rig_cut(&r);
        assert_string_equal(r.reading.last.binary_version, "toy-2");
        rig_release(&r);
}

static void test_a_damaged_outbox_is_seen(void **state)
{
        uint8_t key[17] = {1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1};
        const struct df_collection_info *c;
        const struct df_bytes *records;
        size_t count, n;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        rig_create(&r);
        rig_log_event(&r, 1, BASE_MS);
        (void)rig_process(&r, 1);
        ok(df_task_cut(r.task, err));
        c = df_task_collections(r.task, &count);
        df_store_put(r.store, df_bytes(key, 17), df_bytes("\x01\0\0\0x", 5));
        ok(df_store_commit(r.store, err));
        refused(DF_ECORRUPT, "not as it was written",
                df_task_publish(r.task, &c[1], 1, &records, &n, err));
        df_store_put(r.store, df_bytes(key, 17), df_bytes("\x09\0\0\0x", 5));
        ok(df_store_commit(r.store, err));
        refused(DF_ECORRUPT, "damaged", df_task_publish(r.task, &c[1], 1, &records, &n, err));
        df_store_del(r.store, df_bytes(key, 17));
        ok(df_store_commit(r.store, err));
        refused(DF_ECORRUPT, "0 of 1 rows", df_task_publish(r.task, &c[1], 1, &records, &n, err));
        rig_release(&r);
}

/* ---- failures: named, final, and without a leak ---- */

static void test_an_operator_fails(void **state)
{
        static const char *const hooks[] = {"open", "restore", "process", "on_cut", "snapshot"};
        struct df_task *task = NULL;

        (void)state;
        for (size_t i = 0; i < sizeof(hooks) / sizeof(hooks[0]); i++) {
                struct df_buf before = {0}, after = {0};
                size_t used = 0;
                struct rig r;

                rig_init(&r, 1);
                rig_create(&r);
                rig_log_event(&r, 1, BASE_MS);
                (void)rig_process(&r, 1);
                rig_cut(&r);
                rig_log_event(&r, 1, BASE_MS);
                dump_store(r.store, 0, &before);
                r.params.fail_in = hooks[i];
                if (i < 2) {
                        refused(DF_EIO, hooks[i], df_task_create(&r.config, r.store, &task, err));
                } else if (i == 2) {
                        refused(DF_EIO, "fails",
                                df_task_process(r.task, r.records + 1, 1, &used, err));
                        assert_int_equal(used, 0);
                } else {
                        assert_int_equal(rig_process(&r, 1), 1);
                        refused(DF_EIO, "fails", df_task_cut(r.task, err));
                }
                if (i >= 2) /* nothing more, not even what would succeed */
                        refused(DF_ECLOSED, "failed before", df_task_cut(r.task, err));
                r.params.fail_in = NULL;
                dump_store(r.store, 0, &after);
                assert_true(df_bytes_eq(df_buf_bytes(&before), df_buf_bytes(&after)));
                if (i >= 2) { /* K7: from the last checkpoint, as if nothing had been */
                        rig_restore(&r);
                        assert_int_equal(rig_process(&r, 1), 1);
                        rig_cut(&r);
                        rig_compare(&r);
                }
                df_buf_release(&before);
                df_buf_release(&after);
                rig_release(&r);
        }
}

/* The store fails at each of its calls in turn, until it all succeeds: never a half cut. */
static void test_the_store_fails_at_every_call(void **state)
{
        bool done = false;

        (void)state;
        for (int64_t n = 0; !done; n++) {
                struct df_sim_fault fault = {.countdown = n, .n = 1, .moment = DF_SIM_BEFORE};
                struct df_sim *sim = df_sim_create(1);
                struct df_error e = {0};
                struct rig r;
                int rc;

                assert_true(n < 100);
                rig_init(&r, 1);
                df_sim_store_destroy(r.store);
                r.store = df_sim_store_create(sim);
                rig_log_event(&r, 1, BASE_MS);
                df_sim_fault_set(sim, DF_SIM_EIO, fault);
                rc = df_task_create(&r.config, r.store, &r.task, &e);
                if (rc == 0) {
                        (void)rig_process(&r, 1);
                        rc = df_task_cut(r.task, &e);
                }
                done = df_sim_struck(sim, DF_SIM_EIO) == 0;
                assert_int_equal(rc, done ? 0 : DF_EIO);
                rig_release(&r);
                df_sim_destroy(sim);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_cuts_and_restores_change_nothing),
                cmocka_unit_test(test_deterministic),
                cmocka_unit_test(test_restored_at_every_cut),
                cmocka_unit_test(test_the_outbox_lives_until_the_next_cut),
                cmocka_unit_test(test_seals_chain),
                cmocka_unit_test(test_the_version_is_that_of_the_cut),
                cmocka_unit_test(test_a_damaged_outbox_is_seen),
                cmocka_unit_test(test_an_operator_fails),
                cmocka_unit_test(test_the_store_fails_at_every_call),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
