/* test_takeover.c - what a session finds when it opens: K8 (it agrees, or it is refused by name), K10
 * (rebuilt from the log, from an older checkpoint or from nothing), K14. */
#include "unit.h"

#include "runtime/core/session_private.h"
#include "tests/unit/commit_test.h"

/* Feed one record and make one checkpoint of it. */
static void rig_checkpoint(struct rig *r, uint32_t p, size_t events)
{
        size_t n;

        rig_feed(r, p, events);
        ok(rig_try_open(r, p, err));
        do
                ok(df_session_poll(r->sessions[p], 9, &n, err));
        while (n > 0);
        ok(df_session_commit(r->sessions[p], err));
}

static void rig_lose(struct rig *r, uint32_t p, bool keep_epoch)
{
        rig_close_session(r, p);
        df_sim_ckpt_lose(r->sim, rig_dir(p), keep_epoch);
}

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

/* Died at any step, and then the directory is gone: also when some outputs have the checkpoint that it
 * was publishing and others do not. */
static void test_lost_at_every_step(void **state)
{
        bool struck = true;

        (void)state;
        for (int64_t step = 0; struck; step++) {
                struct df_error e = {0};
                struct rig r;
                int rc = 0;

                rig_open(&r, (uint64_t)step + 1);
                r.params.rows_per_cut = step % 2 ? 2 : 0;
                r.fail_at = step;
                r.fail_code = DF_ECRASH;
                for (int i = 0; rc == 0 && i < 12; i++) {
                        size_t n;

                        rig_feed(&r, 0, 10);
                        rc = rig_try_open(&r, 0, &e);
                        if (rc == 0)
                                rc = df_session_poll(r.sessions[0], 9, &n, &e);
                        if (rc == 0 && i % 3 == 2)
                                rc = df_session_commit(r.sessions[0], &e);
                }
                struck = r.failures > 0;
                rig_close_process(&r);
                df_sim_restart(r.sim, 0);
                df_sim_ckpt_lose(r.sim, rig_dir(0), step % 3 == 0);
                r.fail_at = -1;
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
                struct df_error e = {0};
                struct rig r;
                int rc = 0;

                rig_open(&r, (uint64_t)step + 1);
                r.params.rows_per_cut = step % 2 ? 2 : 0;
                r.fail_at = step;
                r.fail_code = DF_ECRASH;
                for (int i = 0; rc == 0 && i < 12; i++) {
                        size_t n;

                        rig_feed(&r, 0, 10);
                        rc = rig_try_open(&r, 0, &e);
                        if (rc == 0)
                                rc = df_session_poll(r.sessions[0], 9, &n, &e);
                        if (rc == 0 && i % 3 == 2)
                                rc = df_session_commit(r.sessions[0], &e);
                }
                struck = r.failures > 0;
                rig_close_process(&r);
                df_sim_restart(r.sim, 0);
                (void)df_sim_ckpt_fallback(r.sim, rig_dir(0)); /* perhaps there is none */
                r.fail_at = -1;
                rig_feed(&r, 0, 10);
                rig_finish(&r);
                rig_compare(&r);
                rig_close(&r);
        }
}

/* ---- what does not agree ---- */

/* A checkpoint of partition 0 in its directory as a session would have left it, without one: records
 * of the topic counted, note_k and search written into its manifest's note, named k. */
static void forge(struct rig *r, size_t records, uint64_t k, uint64_t note_k, uint64_t search)
{
        uint64_t search_from[PARTITIONS + 1] = {search};
        struct df_session s = {.config = r->configs[0], .search_from = search_from};
        const struct df_record *log;
        struct df_buf note = {0};
        struct df_takeover t;
        struct df_ckpt *c;
        size_t count, used;

        rig_lose(r, 0, true);
        c = df_sim_ckpt_open(r->sim, 0, rig_dir(0));
        ok(df_ckpt_takeover(c, &t, err));
        ok(df_task_create(&r->configs[0], t.store, &s.task, err));
        log = df_sim_records(r->sim, "toys", 0, &count);
        assert_true(records <= count);
        ok(df_task_process(s.task, log, records, &used, err));
        ok(df_task_cut(s.task, err));
        s.task->last.k = note_k;
        ok(dfi_note_encode(&s, &note, err));
        df_task_destroy(s.task);
        ok(df_ckpt_persist(c, k, df_buf_bytes(&note), err));
        ok(df_ckpt_publish(c, k, err));
        df_ckpt_close(c);
        df_buf_release(&note);
}

/* An empty collection with this seal, of partition 0. */
static void forge_seal(struct rig *r, uint32_t output, uint64_t k, uint64_t to_offset,
                       struct df_hash128 parent)
{
        struct df_origin o = {.source = r->configs[0].source, .k = k, .epoch = 99};
        struct df_seal s = {.parent_k = k - 1,
                            .parent_digest = parent,
                            .digest = {k, 1},
                            .to_offset = to_offset,
                            .config = 77};
        struct df_append item = {.partition = 0};
        struct df_buf b = {0};

        df_output_encode_seal(&b, &o, &s);
        item.value = df_buf_bytes(&b);
        ok(df_log_append(r->writers[output], &item, 1, err));
        df_buf_release(&b);
}

static void test_foreign_state(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        rig_feed(&r, 0, 5);
        forge(&r, 2, 1, 1, 0); /* the same k, of other records */
        refused(DF_ESCHEMA, "foreign state", rig_try_open(&r, 0, err));
        r.recover = true; /* no leave for that */
        refused(DF_ESCHEMA, "foreign state", rig_try_open(&r, 0, err));
        rig_close(&r);

        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        rig_checkpoint(&r, 0, 5);
        forge(&r, 2, 1, 1, 0); /* older, but not what the log continues */
        refused(DF_ESCHEMA, "does not continue this state", rig_try_open(&r, 0, err));
        rig_close(&r);

        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        rig_feed(&r, 0, 5);
        forge(&r, 1, 1, 1, 0); /* what was there, to the bit */
        ok(rig_try_open(&r, 0, err));
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

static void test_manifest_and_state_disagree(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_feed(&r, 0, 5);
        forge(&r, 1, 1, 2, 0);
        refused(DF_ESCHEMA, "disagree", rig_try_open(&r, 0, err));
        forge(&r, 1, 3, 1, 0);
        refused(DF_ESCHEMA, "CURRENT names checkpoint 3, the state inside is 1",
                rig_try_open(&r, 0, err));
        forge(&r, 1, 1, 1, 7); /* it says that the log went further than it does */
        refused(DF_ESCHEMA, "exchange/0 ends at offset 0, but checkpoint 1",
                rig_try_open(&r, 0, err));
        forge(&r, 1, 1, 1, 0);
        ok(rig_try_open(&r, 0, err));
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

/* A seal without its rows is no checkpoint, whatever it says. */
static void test_a_seal_alone_is_nothing(void **state)
{
        struct df_origin o;
        struct df_seal s = {.parent_k = 8, .rows = 3, .config = 77};
        struct df_append item = {.partition = 0};
        struct df_buf b = {0};
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        o = (struct df_origin){.source = r.configs[0].source, .k = 9, .epoch = 1, .n = 3};
        df_output_encode_seal(&b, &o, &s);
        item.value = df_buf_bytes(&b);
        ok(df_log_append(r.writers[OUT_ROWS], &item, 1, err));
        df_buf_release(&b);
        rig_close_session(&r, 0);
        ok(rig_try_open(&r, 0, err));
        assert_int_equal(df_task_k(rig_task(&r, 0)), 1);
        rig_close(&r);
}

/* K4: at most one output is one checkpoint ahead. */
static void test_outputs_that_do_not_follow(void **state)
{
        struct df_hash128 none = {0, 0};
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        forge_seal(&r, OUT_EXCHANGE, 3, 1, none);
        rig_lose(&r, 0, true);
        r.recover = true;
        refused(DF_ESCHEMA, "do not follow", rig_try_open(&r, 0, err));
        rig_close(&r);

        rig_open(&r, 1); /* ahead by one, but not of this state */
        rig_checkpoint(&r, 0, 5);
        rig_close_session(&r, 0);
        forge_seal(&r, OUT_EXCHANGE, 2, 1, none);
        refused(DF_ESCHEMA, "does not continue", rig_try_open(&r, 0, err));
        rig_close(&r);
}

static void test_damaged_checkpoint(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        rig_close_session(&r, 0);
        assert_true(df_sim_ckpt_damage(r.sim, rig_dir(0)));
        refused(DF_ECORRUPT, "adtally recover", rig_try_open(&r, 0, err));
        rig_close(&r);
}

static void test_two_owners(void **state)
{
        struct df_session_ports ports;
        struct df_session *s = NULL;
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        ports = (struct df_session_ports){.log = r.log,
                                          .ckpt = df_sim_ckpt_open(r.sim, 2, rig_dir(0)),
                                          .writers = {r.writers[0], r.writers[1]}};
        refused(DF_EFENCED, "owned", df_session_open(&r.configs[0], &ports, &s, err));
        df_ckpt_close(ports.ckpt);
        rig_checkpoint(&r, 0, 5); /* the first does not notice */
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

/* ---- K14 ---- */

static void test_the_topic_is_another(void **state)
{
        struct df_task_config good;
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        good = r.configs[0];
        r.configs[0].source.generation++;
        refused(DF_ESCHEMA, "created again", rig_try_open(&r, 0, err));
        r.configs[0] = good;
        r.configs[0].partitions = PARTITIONS + 1;
        refused(DF_ESCHEMA, "has 2 partitions, configured are 3", rig_try_open(&r, 0, err));
        r.configs[0] = good;
        r.configs[0].source.stream[3] = 0; /* a prefix is no topic */
        refused(DF_ENOENT, "no topic toy", rig_try_open(&r, 0, err));
        r.configs[0] = good;
        rig_checkpoint(&r, 0, 5);
        rig_close_session(&r, 0);
        r.configs[0].config++;
        refused(DF_ESCHEMA, "another grace", rig_try_open(&r, 0, err));
        r.configs[0] = good;
        ok(rig_try_open(&r, 0, err));
        rig_finish(&r);
        rig_compare(&r);
        rig_close(&r);
}

static void test_records_that_are_gone(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_checkpoint(&r, 0, 5);
        rig_close_session(&r, 0);
        rig_feed(&r, 0, 5);
        rig_feed(&r, 0, 5);
        df_sim_log_trim(r.sim, "toys", 0, 2);
        refused(DF_EOFFSET, "goes on at offset 1, the log begins at 2", rig_try_open(&r, 0, err));
        rig_lose(&r, 0, true);
        r.recover = true;
        refused(DF_EOFFSET, "the last seal ends at offset 1, the log begins at 2",
                rig_try_open(&r, 0, err));
        rig_close(&r);

        rig_open(&r, 1); /* never counted, and some of it gone: not silently */
        rig_feed(&r, 0, 5);
        rig_feed(&r, 0, 5);
        df_sim_log_trim(r.sim, "toys", 0, 1);
        refused(DF_EOFFSET, "nothing of this topic was counted", rig_try_open(&r, 0, err));
        r.recover = true;
        ok(rig_try_open(&r, 0, err));
        assert_int_equal(df_task_position(rig_task(&r, 0)), 1);
        rig_finish(&r);
        rig_read(&r);
        assert_int_equal(r.readings[0].records, 1);
        rig_close(&r);
}

static void test_a_log_that_was_put_back(void **state)
{
        struct df_hash128 none = {0, 0};
        struct rig r;

        (void)state;
        rig_open(&r, 1);
        rig_feed(&r, 0, 5);
        ok(rig_try_open(&r, 0, err)); /* opens the writers */
        rig_close_session(&r, 0);
        forge_seal(&r, OUT_EXCHANGE, 1, 100, none);
        forge_seal(&r, OUT_ROWS, 1, 100, none);
        r.recover = true;
        refused(DF_ESCHEMA, "ends at offset 100, the topic at 1", rig_try_open(&r, 0, err));
        rig_close(&r);
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

/* K10, D1: what the log no longer holds. The clock is that of the last seal before the first record,
 * or the rebuild begins at the first seal that there is; live windows are whole either way. */
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
                cmocka_unit_test(test_foreign_state),
                cmocka_unit_test(test_manifest_and_state_disagree),
                cmocka_unit_test(test_a_seal_alone_is_nothing),
                cmocka_unit_test(test_outputs_that_do_not_follow),
                cmocka_unit_test(test_damaged_checkpoint),
                cmocka_unit_test(test_two_owners),
                cmocka_unit_test(test_the_topic_is_another),
                cmocka_unit_test(test_records_that_are_gone),
                cmocka_unit_test(test_a_log_that_was_put_back),
                cmocka_unit_test(test_rebuilt_under_the_same_settings_alone),
                cmocka_unit_test(test_rebuilt_from_a_shorter_log),
                cmocka_unit_test(test_a_lost_import),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
