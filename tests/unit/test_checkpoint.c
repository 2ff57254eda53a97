/* test_checkpoint.c - the stored bytes of a checkpoint's meta are those of proto/checkpoint.proto,
 * by protoc's code (K1, K6, K14): an archive tool of another language reads them. */
#include "unit.h"

#include <string.h>

#include "df/sim.h"
#include "df/task.h"
#include "proto/checkpoint.pb-c.h"

static int once_open(struct df_operator *op, struct df_error *err)
{
        return 0;
}

/* Every record is one event, counted as outcome 1, and sent on as it is. */
static int once_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                        struct df_error *err)
{
        const struct df_record *records = batch->items;

        for (size_t i = 0; i < batch->count; i++) {
                int rc = df_out_emit(out, 0, op->ctx.partition, records[i].value, err);

                if (rc < 0)
                        return rc;
                df_clock_record(op->ctx.clock, records[i].append_ms);
                (void)df_clock_judge(op->ctx.clock, op->ctx.rules, records[i].append_ms,
                                     records[i].append_ms);
        }
        df_out_count_records(out, batch->count, 0, 0);
        df_out_count(out, 1, batch->count);
        df_out_versions(out, 7, 8);
        return 0;
}

static int once_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        return df_out_note(out, df_bytes_str("note"), err);
}

static void once_close(struct df_operator *op)
{
}

static const struct df_operator_ops once = {
        .name = "once",
        .state_version = 3,
        .size = sizeof(struct df_operator),
        .open = once_open,
        .process = once_process,
        .on_cut = once_on_cut,
        .close = once_close,
};

static void cut(struct df_store *store, uint64_t first, uint64_t count, struct df_task **task)
{
        static const struct df_operator_ops *const chain[] = {&once};
        struct df_task_config config = {
                .source = {.stream = "events", .generation = 0x1234, .partition = 2},
                .partitions = 4,
                .chain = chain,
                .chain_length = 1,
                .outputs = {{.topic = "rollups", .partitions = 4}},
                .output_count = 1,
                .rules = {.out_of_orderness_ms = 1000,
                          .receive_ahead_max_ms = 10000,
                          .receive_behind_max_ms = 3600000,
                          .future_max_ms = 300000,
                          .accepted_age_ms = 86400000},
                .grace_ms = 60000,
                .config = 0xfeed,
                .binary_version = "1.2.3",
        };
        struct df_error err = {0};
        size_t used;

        if (!*task)
                assert_int_equal(df_task_create(&config, store, task, &err), 0);
        for (uint64_t i = 0; i < count; i++) {
                struct df_record r = {.offset = first + i,
                                      .append_ms = 1764000000000 + (int64_t)(first + i),
                                      .value = df_bytes_str("payload")};

                assert_int_equal(df_task_process(*task, &r, 1, &used, &err), 0);
                assert_int_equal(used, 1);
        }
        assert_int_equal(df_task_cut(*task, &err), 0);
        df_task_committed(*task);
}

static Adtally__V1__CheckpointMeta *unpack(struct df_store *store, uint8_t *copy, size_t *ret_len)
{
        struct df_bytes value;
        struct df_error err = {0};
        uint8_t key = 0;
        bool found;

        assert_int_equal(df_store_get(store, df_bytes(&key, 1), &value, &found, &err), 0);
        assert_true(found);
        assert_true(value.len <= 4096);
        memcpy(copy, value.data, value.len);
        *ret_len = value.len;
        return adtally__v1__checkpoint_meta__unpack(NULL, value.len, copy);
}

static void test_K1_meta_is_the_documented_message(void **state)
{
        struct df_store *store = df_sim_store_create(NULL);
        struct df_task *task = NULL;
        Adtally__V1__CheckpointMeta *first, *m;
        uint8_t bytes[4096], again[4096];
        size_t len;

        cut(store, 0, 5, &task);
        first = unpack(store, bytes, &len);
        assert_non_null(first);
        assert_int_equal(first->k, 1);
        cut(store, 5, 3, &task);
        m = unpack(store, bytes, &len);
        assert_non_null(m);
        assert_int_equal(m->k, 2);
        assert_int_equal(m->parent_k, 1);
        assert_int_equal(m->from_offset, 5);
        assert_int_equal(m->to_offset, 8);
        assert_string_equal(m->stream, "events");
        assert_int_equal(m->generation, 0x1234);
        assert_int_equal(m->topic_generation, 0x1234);
        assert_int_equal(m->partition, 2);
        assert_int_equal(m->partitions, 4);
        assert_int_equal(m->max_append_ms, 1764000000007);
        assert_int_equal(m->watermark_ms, 1764000000007 - 1000);
        assert_int_equal(m->final_through_ms, 1764000000007 - 1000 - 60000);
        assert_int_equal(m->records, 3);
        assert_int_equal(m->events, 3);
        assert_int_equal(m->price_version, 7);
        assert_int_equal(m->label_version, 8);
        assert_int_equal(m->config, 0xfeed);
        assert_string_equal(m->binary_version, "1.2.3");
        assert_int_equal(m->n_outcomes, DF_OUTCOMES_MAX);
        for (size_t i = 0; i < m->n_outcomes; i++) {
                assert_int_equal(m->outcomes[i]->reason, i);
                assert_int_equal(m->outcomes[i]->count, i == 1 ? 3 : 0);
        }
        assert_int_equal(m->n_collections, 1);
        assert_int_equal(m->collections[0]->rows, 3);
        assert_int_equal(m->collections[0]->partition, 2);
        assert_int_equal(m->n_operators, 1);
        assert_string_equal(m->operators[0]->name, "once");
        assert_int_equal(m->operators[0]->state_version, 3);
        assert_memory_equal(m->note.data, "note", 4);
        /* Canonical: protoc's code writes the same bytes. */
        assert_int_equal(adtally__v1__checkpoint_meta__get_packed_size(m), len);
        adtally__v1__checkpoint_meta__pack(m, again);
        assert_memory_equal(again, bytes, len);
        adtally__v1__checkpoint_meta__free_unpacked(first, NULL);
        adtally__v1__checkpoint_meta__free_unpacked(m, NULL);
        df_task_destroy(task);
        df_sim_store_destroy(store);
}

static void test_K6_parent_digest_is_the_hash_of_the_parents_bytes(void **state)
{
        struct df_store *store = df_sim_store_create(NULL);
        struct df_task *task = NULL;
        Adtally__V1__CheckpointMeta *m;
        uint8_t bytes[4096];
        struct df_hash128 digest;
        size_t len;

        cut(store, 0, 2, &task);
        m = unpack(store, bytes, &len);
        digest = df_hash128(df_bytes(bytes, len));
        adtally__v1__checkpoint_meta__free_unpacked(m, NULL);
        cut(store, 2, 1, &task);
        m = unpack(store, bytes, &len);
        assert_true(m->parent_digest->lo == digest.lo && m->parent_digest->hi == digest.hi);
        adtally__v1__checkpoint_meta__free_unpacked(m, NULL);
        df_task_destroy(task);
        df_sim_store_destroy(store);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_K1_meta_is_the_documented_message),
                cmocka_unit_test(test_K6_parent_digest_is_the_hash_of_the_parents_bytes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
