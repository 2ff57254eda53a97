/* test_profile.c - the profile of a task (df/profile.h): an operator's time is its own, whatever
 * the operators after it take, and a checkpoint's time stands apart. The clock is the test's. */
#include "unit.h"

#include "tests/unit/core_test.h"

#define TIMED 4 /* the first step is timed, and stands for so many (df/profile.h) */

static uint64_t now_ns;

static uint64_t ticks(void)
{
        return now_ns;
}

static int open_op(struct df_operator *op, struct df_error *err)
{
        (void)op;
        (void)err;
        return 0;
}
static void close_op(struct df_operator *op)
{
        (void)op;
}
static int outer_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        struct df_batch half = {batch->kind, batch->items, 1};
        int rc;

        (void)op;
        now_ns += 5;
        rc = df_out_forward(out, &half, err);
        now_ns += 7;
        return rc < 0 ? rc : df_out_forward(out, batch, err);
}
static int inner_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        now_ns += 100 * batch->count;
        op->ctx.clock->watermark_ms = BASE_MS + (int64_t)now_ns; /* grows */
        return df_out_forward(out, batch, err);
}
static int inner_on_watermark(struct df_operator *op, int64_t watermark_ms, struct df_error *err)
{
        (void)op;
        (void)watermark_ms;
        (void)err;
        now_ns += 10000;
        return 0;
}
static int outer_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        (void)op;
        (void)out;
        (void)err;
        now_ns += 11;
        return 0;
}
static int inner_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        (void)op;
        (void)k;
        (void)err;
        now_ns += 13;
        return 0;
}

static const struct df_operator_ops outer = {
        .name = "outer",
        .state_version = 1,
        .size = sizeof(struct df_operator),
        .open = open_op,
        .process = outer_process,
        .on_cut = outer_on_cut,
        .close = close_op,
};
static const struct df_operator_ops inner = {
        .name = "inner",
        .state_version = 1,
        .size = sizeof(struct df_operator),
        .open = open_op,
        .process = inner_process,
        .on_watermark = inner_on_watermark,
        .snapshot = inner_snapshot,
        .close = close_op,
};
static const struct df_operator_ops *const chain[] = {&outer, &inner};

static void check(const struct df_profile_line *l, const char *name, uint64_t calls, uint64_t items,
                  uint64_t process_ns, uint64_t cut_ns)
{
        assert_string_equal(l->name, name);
        assert_false(l->step);
        assert_int_equal(l->calls, calls);
        assert_int_equal(l->items, items);
        assert_int_equal(l->process_ns, process_ns);
        assert_int_equal(l->cut_ns, cut_ns);
}

static void own_time(void **state)
{
        struct df_sim *sim = df_sim_create(1);
        struct df_store *store = df_sim_store_create(sim);
        struct toy_params params = {0};
        struct df_profile sum = {0};
        struct df_record records[3] = {{.offset = 0}, {.offset = 1}, {.offset = 2}};
        const struct df_profile *p;
        struct df_task_config config;
        struct df_task *task;
        size_t used;

        (void)state;
        toy_config(&config, &params, 0, 1, 1);
        config.chain = chain;
        config.chain_length = 2;
        config.ticks_ns = ticks;
        ok(df_task_create(&config, store, &task, err));
        ok(df_task_process(task, records, 3, &used, err));
        assert_int_equal(used, 3);
        now_ns += 1000000; /* nobody's */
        ok(df_task_cut(task, err));
        p = df_task_profile(task);
        assert_int_equal(p->count, 2);
        check(&p->lines[0], "outer", 1, 3, TIMED * 12, 11);
        check(&p->lines[1], "inner", 2, 4, TIMED * 400 + 10000, 13);
        df_profile_add(&sum, p);
        df_profile_add(&sum, p);
        assert_int_equal(sum.count, 2);
        check(&sum.lines[1], "inner", 4, 8, 2 * (TIMED * 400 + 10000), 26);
        df_task_destroy(task);
        df_sim_store_destroy(store);
        df_sim_destroy(sim);
}

static void without_a_clock(void **state)
{
        struct df_sim *sim = df_sim_create(1);
        struct df_store *store = df_sim_store_create(sim);
        struct toy_params params = {0};
        struct df_record record = {.offset = 0};
        struct df_task_config config;
        struct df_task *task;
        size_t used;

        (void)state;
        toy_config(&config, &params, 0, 1, 1);
        config.chain = chain;
        config.chain_length = 2;
        ok(df_task_create(&config, store, &task, err));
        ok(df_task_process(task, &record, 1, &used, err));
        check(&df_task_profile(task)->lines[0], "outer", 1, 1, 0, 0);
        check(&df_task_profile(task)->lines[1], "inner", 2, 2, 0, 0);
        df_task_destroy(task);
        df_sim_store_destroy(store);
        df_sim_destroy(sim);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(own_time),
                cmocka_unit_test(without_a_clock),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
