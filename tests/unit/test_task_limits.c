/* test_task_limits.c - what a task refuses: more than its limits (K6, W4), and state that does not
 * fit (K8, K14); and when it has news (K12). */
#include "unit.h"

#include "tests/unit/task_test.h"

/* ---- limits ---- */

static void log_many(struct rig *r, size_t events)
{
        struct df_buf b = {0};

        df_put_u8(&b, 'D');
        for (size_t i = 0; i < events; i++) {
                df_put_u8(&b, (uint8_t)(i % KEYS));
                df_put_u64be(&b, (uint64_t)BASE_MS);
        }
        rig_log(r, &b);
}

/* K6: 64 MiB to the byte; one payload more is refused by name. */
static void test_the_outbox_is_bounded(void **state)
{
        enum { PAYLOAD = 1 << 19, FITS = DF_OUTBOX_MAX / PAYLOAD };
        size_t used = 0;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        r.params.payload_bytes = PAYLOAD;
        rig_create(&r);
        log_many(&r, FITS + 1);
        refused(DF_ELIMIT, "outbox", df_task_process(r.task, r.records, 1, &used, err));
        refused(DF_ECLOSED, "failed before", df_task_process(r.task, r.records, 1, &used, err));
        refused(DF_ECLOSED, "failed before", df_task_cut(r.task, err));
        rig_release(&r);

        rig_init(&r, 1);
        r.params.payload_bytes = PAYLOAD;
        rig_create(&r);
        log_many(&r, FITS);
        assert_int_equal(rig_process(&r, 1), 1);
        r.params.payload_bytes = 0;
        refused(DF_ELIMIT, "outbox", df_task_cut(r.task, err)); /* no room for the rows */
        rig_release(&r);
}

/* It asks for a cut at half of that, and takes no more before it. */
static void test_a_large_outbox_wants_a_cut(void **state)
{
        enum { PAYLOAD = 1 << 19, HALF = DF_CUT_EARLY / PAYLOAD };
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        r.params.payload_bytes = PAYLOAD;
        rig_create(&r);
        log_many(&r, HALF - 1);
        assert_int_equal(rig_process(&r, 9), 1);
        assert_false(df_task_wants_cut(r.task));
        log_many(&r, 1);
        for (int i = 0; i < 300; i++)
                log_many(&r, 0); /* beyond one step */
        assert_true(rig_process(&r, 1000) < 301);
        assert_true(df_task_wants_cut(r.task));
        assert_int_equal(rig_process(&r, 1000), 0);
        rig_cut(&r);
        assert_false(df_task_wants_cut(r.task));
        while (rig_process(&r, 1000) > 0)
                ;
        assert_int_equal(df_task_position(r.task), r.count);
        rig_cut(&r);
        rig_compare(&r);
        rig_release(&r);
}

static void test_a_payload_is_bounded(void **state)
{
        size_t used = 0;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        r.params.payload_bytes = DF_LOG_RECORD_MAX - 1024;
        rig_create(&r);
        rig_log_event(&r, 0, BASE_MS);
        assert_int_equal(rig_process(&r, 1), 1);
        rig_cut(&r);
        r.params.payload_bytes++;
        rig_log_event(&r, 0, BASE_MS);
        refused(DF_ELIMIT, "payload", df_task_process(r.task, r.records + 1, 1, &used, err));
        rig_release(&r);
}

static size_t note_size;
static int noter_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        static uint8_t note[(16 << 10) + 1];

        (void)op;
        return df_out_note(out, df_bytes(note, note_size), err);
}
static int noter_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        (void)op;
        return df_out_forward(out, batch, err);
}
static const struct df_operator_ops noter = {.name = "noter",
                                             .state_version = 1,
                                             .size = sizeof(struct df_operator),
                                             .open = toy_open,
                                             .process = noter_process,
                                             .on_cut = noter_on_cut,
                                             .close = toy_close};

static void test_a_note_is_bounded(void **state)
{
        const struct df_operator_ops *chain[] = {&noter};
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        r.config.chain = chain;
        r.config.chain_length = 1;
        rig_create(&r);
        rig_log_event(&r, 0, BASE_MS);
        assert_int_equal(rig_process(&r, 1), 1); /* forwarded beyond the end of the chain */
        note_size = 16 << 10;
        ok(df_task_cut(r.task, err));
        df_task_committed(r.task);
        note_size++;
        refused(DF_ELIMIT, "note", df_task_cut(r.task, err));
        rig_release(&r);
}

/* K6, W4: what does not fit stays dirty, further checkpoints with from = to drain it, and nothing
 * is final before its rows have left. */
static void test_drain(void **state)
{
        uint64_t position;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        r.params.rows_per_cut = 3;
        rig_create(&r);
        for (int i = 0; i < 10; i++)
                rig_log_event(&r, 0, BASE_MS + i * MINUTE);
        rig_log_event(&r, 0, BASE_MS + 20 * MINUTE);
        (void)rig_process(&r, 100);
        position = df_task_position(r.task);
        for (int i = 1; i <= 4; i++) {
                const struct df_seal *s = &r.reading.last;

                rig_cut(&r);
                assert_int_equal(r.reading.rows, i < 4 ? 3 * i : 11);
                assert_int_equal(s->to_offset, position);
                assert_int_equal(s->from_offset, i == 1 ? 0 : position);
                assert_int_equal(s->final_through_ms,
                                 i < 4 ? BASE_MS + 3 * i * MINUTE : s->watermark_ms - GRACE_MS);
                assert_int_equal(df_task_wants_cut(r.task), i < 4);
                assert_int_equal(df_task_dirty(r.task), i < 4);
                rig_restore(&r); /* which asks for the rest itself */
                assert_int_equal(df_task_wants_cut(r.task), i < 4);
        }
        rig_compare(&r);
        rig_release(&r);
}

static void test_news(void **state)
{
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        rig_create(&r);
        assert_false(df_task_has_news(r.task));
        assert_false(df_task_dirty(r.task));
        rig_log_event(&r, 0, BASE_MS);
        (void)rig_process(&r, 1);
        assert_true(df_task_has_news(r.task));
        rig_cut(&r);
        assert_false(df_task_has_news(r.task));
        log_many(&r, 0); /* K12: a heartbeat alone is none */
        (void)rig_process(&r, 1);
        assert_true(df_task_dirty(r.task));
        assert_false(df_task_has_news(r.task));
        rig_release(&r);
}

/* ---- K14, K8 ---- */

static void test_state_that_does_not_fit(void **state)
{
        struct df_operator_ops other = toy_tally;
        const struct df_operator_ops *chain[] = {&toy_meter, &other, &toy_minutes};
        struct df_task_config good;
        struct df_task *task = NULL;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        rig_create(&r);
        rig_log_event(&r, 1, BASE_MS);
        (void)rig_process(&r, 1);
        rig_cut(&r);
        good = r.config;
#define refuse(change, part)                                                                       \
        do {                                                                                       \
                struct df_task_config *c = &r.config;                                              \
                change;                                                                            \
                refused(DF_ESCHEMA, part, df_task_create(c, r.store, &task, err));                 \
                r.config = good;                                                                   \
        } while (0)
        refuse(c->config = 78, "another grace, horizon");
        refuse(c->partitions = 4, "3 partitions, the topic has 4");
        refuse(c->source.generation = 6, "created again");
        refuse(c->source.partition = 2, "foreign");
        refuse(c->source.stream[0] = 'b', "foreign");
        refuse(c->output_count = 1, "output collections");
        refuse(c->outputs[0].spread = false, "output collections");
        refuse(c->chain_length = 2, "\"none\"");
        refuse(c->chain = chain; other.state_version = 2, "version 1");
        refuse(c->chain = chain; other.name = "taller", "\"taller\"");
        other = toy_tally;
        r.config.chain = chain; /* the same again: no objection */
        ok(df_task_create(&r.config, r.store, &task, err));
        df_task_destroy(task);
        rig_release(&r);
}

static void test_damaged_meta(void **state)
{
        uint8_t key = 0;
        struct df_task *task = NULL;
        struct df_bytes value;
        struct df_buf meta = {0};
        size_t refusals = 0;
        bool found;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        rig_create(&r);
        rig_cut(&r);
        ok(df_store_get(r.store, df_bytes(&key, 1), &value, &found, err));
        df_buf_append(&meta, value.data, value.len);
        for (size_t n = 0; n < meta.len; n++) { /* cut short anywhere */
                struct df_error e = {0};
                int rc;

                df_store_put(r.store, df_bytes(&key, 1), df_bytes(meta.data, n));
                ok(df_store_commit(r.store, err));
                rc = df_task_create(&r.config, r.store, &task, &e);
                if (rc == 0)
                        df_task_destroy(task); /* only what stands at its end */
                else
                        refusals++;
                assert_true(rc == 0 || rc == DF_ECORRUPT || rc == DF_ESCHEMA);
        }
        assert_true(refusals > meta.len - 12);
        df_store_del(r.store, df_bytes(&key, 1));
        df_store_put(r.store, df_bytes("\x11x", 2), df_bytes("y", 1));
        ok(df_store_commit(r.store, err));
        refused(DF_ECORRUPT, "which checkpoint", df_task_create(&r.config, r.store, &task, err));
        df_buf_release(&meta);
        rig_release(&r);
}

static void test_configurations_beyond_the_limits(void **state)
{
        struct df_task_config good;
        struct df_task *task = NULL;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        good = r.config;
#define never(code, change, part)                                                                  \
        do {                                                                                       \
                struct df_task_config *c = &r.config;                                              \
                change;                                                                            \
                refused(code, part, df_task_create(c, r.store, &task, err));                       \
                r.config = good;                                                                   \
        } while (0)
        never(DF_ELIMIT, c->chain_length = 0, "chain");
        never(DF_ELIMIT, c->chain_length = DF_CHAIN_MAX + 1, "chain");
        never(DF_ELIMIT, c->output_count = DF_OUTPUTS_MAX + 1, "outputs");
        never(DF_EINVAL, c->source.partition = PARTITIONS, "partition 3 of 3");
        never(DF_EINVAL, c->partitions = DF_PARTITIONS_MAX + 1, "partition");
        never(DF_EINVAL, c->outputs[1].partitions = 1, "rows");
        never(DF_EINVAL, c->outputs[0].partitions = DF_PARTITIONS_MAX + 1, "exchange");
        never(DF_ELIMIT, c->binary_version = "0123456789abcdef0123456789abcdef", "version");
        rig_release(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_outbox_is_bounded),
                cmocka_unit_test(test_a_large_outbox_wants_a_cut),
                cmocka_unit_test(test_a_payload_is_bounded),
                cmocka_unit_test(test_a_note_is_bounded),
                cmocka_unit_test(test_drain),
                cmocka_unit_test(test_news),
                cmocka_unit_test(test_state_that_does_not_fit),
                cmocka_unit_test(test_damaged_meta),
                cmocka_unit_test(test_configurations_beyond_the_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
