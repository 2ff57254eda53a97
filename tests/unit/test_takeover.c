/* test_takeover.c - what a session finds when it opens agrees, or is refused by name: K8, K14. */
#include "unit.h"

#include "runtime/core/session_private.h"
#include "tests/unit/commit_test.h"

/* ---- what does not agree ---- */

/* A checkpoint of partition 0 in its directory as a session would have left it, without one:
 * records of the topic counted, note_k and search written into its manifest's note, named k. */
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
        refused(DF_ESCHEMA, "the checkpoint's name says 3, the state inside 1",
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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_foreign_state),
                cmocka_unit_test(test_manifest_and_state_disagree),
                cmocka_unit_test(test_a_seal_alone_is_nothing),
                cmocka_unit_test(test_outputs_that_do_not_follow),
                cmocka_unit_test(test_damaged_checkpoint),
                cmocka_unit_test(test_two_owners),
                cmocka_unit_test(test_the_topic_is_another),
                cmocka_unit_test(test_records_that_are_gone),
                cmocka_unit_test(test_a_log_that_was_put_back),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
