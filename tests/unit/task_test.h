/* task_test.h - a pure task of toy operators, its records, and a reader of what it publishes; for
 * test_task.c, test_task_limits.c and test_task_generations.c. */
#ifndef ADTALLY_TESTS_TASK_TEST_H
#define ADTALLY_TESTS_TASK_TEST_H

#include "tests/unit/core_test.h"

#define PARTITIONS 3
#define PARTITION 1

struct rig {
        struct toy_params params;
        struct df_task_config config;
        struct df_store *store;
        struct df_task *task;
        struct df_record *records;
        size_t count, cap;
        int64_t now_ms;
        struct df_sim_random random;
        uint64_t seed;
        struct df_collector *collectors[PARTITIONS + 1];
        struct reading reading;
        uint64_t cuts;
};

static inline void rig_create(struct rig *r)
{
        ok(df_task_create(&r->config, r->store, &r->task, err));
}

static inline void rig_init(struct rig *r, uint64_t seed)
{
        *r = (struct rig){.seed = seed, .now_ms = BASE_MS};
        df_sim_random_init(&r->random, seed);
        toy_config(&r->config, &r->params, PARTITION, PARTITIONS, 5);
        r->store = df_sim_store_create(NULL);
        for (size_t i = 0; i <= PARTITIONS; i++)
                ok(df_collector_create(1u << 27, &r->collectors[i], err));
}

static inline void rig_release(struct rig *r)
{
        df_task_destroy(r->task);
        df_sim_store_destroy(r->store);
        for (size_t i = 0; i <= PARTITIONS; i++)
                df_collector_destroy(r->collectors[i]);
        for (size_t i = 0; i < r->count; i++)
                free((void *)(uintptr_t)r->records[i].value.data);
        free(r->records);
}

static inline void rig_log(struct rig *r, struct df_buf *b)
{
        if (r->count == r->cap) {
                r->cap = r->cap ? 2 * r->cap : 64;
                r->records = realloc(r->records, r->cap * sizeof(*r->records));
                assert_non_null(r->records);
        }
        r->records[r->count] = (struct df_record){
                .offset = r->count, .append_ms = r->now_ms, .value = df_buf_bytes(b)};
        r->count++;
        *b = (struct df_buf){0};
}

static inline void rig_log_data(struct rig *r, size_t events)
{
        struct df_buf b = {0};

        toy_data(&b, &r->random, events, &r->now_ms);
        rig_log(r, &b);
}

/* One event of this minute, and nothing else. */
static inline void rig_log_event(struct rig *r, uint8_t key, int64_t ms)
{
        struct df_buf b = {0};

        df_put_u8(&b, 'D');
        df_put_u8(&b, key);
        df_put_u64be(&b, (uint64_t)ms);
        r->now_ms = ms > r->now_ms ? ms : r->now_ms;
        rig_log(r, &b);
}

static inline void rig_log_control(struct rig *r, uint64_t generation)
{
        struct df_buf b = {0};

        if (generation)
                toy_begin(&b, generation);
        else
                df_put_u8(&b, 'E');
        rig_log(r, &b);
}

static inline size_t rig_process(struct rig *r, size_t max)
{
        size_t at = (size_t)df_task_position(r->task), used = 0;
        size_t n = r->count - at < max ? r->count - at : max;

        ok(df_task_process(r->task, r->records + at, n, &used, err));
        assert_true(used <= n);
        assert_int_equal(df_task_position(r->task), at + used);
        return used;
}

static inline void rig_read(struct rig *r, const struct df_collection_info *c, size_t index,
                            uint64_t epoch)
{
        const struct df_bytes *records = NULL;
        size_t count = 0;

        ok(df_task_publish(r->task, c, epoch, &records, &count, err));
        assert_int_equal(count, c->rows + 1);
        for (size_t i = 0; i < count; i++) {
                struct df_record record = {.offset = i, .value = records[i]};
                struct df_collection got;
                enum df_collect what;

                ok(df_collector_add(r->collectors[index], &record, &what, &got, err));
                assert_int_equal(what, i < c->rows ? DF_COLLECT_MORE : DF_COLLECT_COMPLETE);
                if (i == c->rows)
                        read_collection(&r->reading, c->output, &got);
        }
}

/* One cut, published and read. */
static inline void rig_cut(struct rig *r)
{
        const struct df_collection_info *c;
        uint64_t k = df_task_k(r->task);
        size_t count;

        ok(df_task_cut(r->task, err));
        assert_int_equal(df_task_k(r->task), k + 1);
        c = df_task_collections(r->task, &count);
        assert_int_equal(count, PARTITIONS + 1); /* K4: every one, also when empty, rows last */
        for (size_t i = 0; i < count; i++) {
                assert_int_equal(c[i].output, i < PARTITIONS ? OUT_EXCHANGE : OUT_ROWS);
                assert_int_equal(c[i].partition, i < PARTITIONS ? i : PARTITION);
                rig_read(r, &c[i], i, 1);
        }
        df_task_committed(r->task);
        r->cuts++;
}

static inline void rig_drain(struct rig *r)
{
        do
                rig_cut(r);
        while (df_task_wants_cut(r->task));
}

/* The process ends; another takes over the last cut, which was published. */
static inline void rig_restore(struct rig *r)
{
        struct df_store *copy = df_sim_store_clone(r->store);

        df_task_destroy(r->task);
        df_sim_store_destroy(r->store);
        r->store = copy;
        rig_create(r);
        df_task_committed(r->task);
}

static inline void rig_compare(struct rig *r)
{
        struct recount n = {0};

        recount(&n, r->records, r->count, false);
        compare(&r->reading, &n, r->seed);
}

struct dump {
        struct df_buf b;
        uint8_t from;
};

static inline int dump_key(void *arg, struct df_bytes key, struct df_bytes value,
                           struct df_error *err)
{
        struct dump *d = arg;

        (void)err;
        if (key.data[0] < d->from)
                return 0;
        df_put_lstr(&d->b, key);
        df_put_lstr(&d->b, value);
        return 0;
}

/* Committed state: of the operators alone, or (from = 0) with meta and outbox. */
static inline void dump_store(struct df_store *s, uint8_t from, struct df_buf *ret)
{
        struct dump d = {.b = *ret, .from = from};

        df_buf_clear(&d.b);
        ok(df_store_scan(s, df_bytes(NULL, 0), dump_key, &d, err));
        *ret = d.b;
}

static inline int count_key(void *arg, struct df_bytes key, struct df_bytes value,
                            struct df_error *err)
{
        (void)key;
        (void)value;
        (void)err;
        ++*(size_t *)arg;
        return 0;
}

static inline size_t outbox_keys(struct rig *r)
{
        size_t n = 0;

        ok(df_store_scan(r->store, df_bytes("\x01", 1), count_key, &n, err));
        return n;
}

#endif
