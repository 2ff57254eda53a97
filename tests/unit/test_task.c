/* test_task.c - the pure task: K1, K4, K6, K7, K10, K14, R6, W4 and the law of df/operator.h. */
#include "unit.h"

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

static void rig_create(struct rig *r)
{
        ok(df_task_create(&r->config, r->store, &r->task, err));
}

static void rig_init(struct rig *r, uint64_t seed)
{
        *r = (struct rig){.seed = seed, .now_ms = BASE_MS};
        df_sim_random_init(&r->random, seed);
        toy_config(&r->config, &r->params, PARTITION, PARTITIONS, 5);
        r->store = df_sim_store_create(NULL);
        for (size_t i = 0; i <= PARTITIONS; i++)
                ok(df_collector_create(1u << 27, &r->collectors[i], err));
}

static void rig_release(struct rig *r)
{
        df_task_destroy(r->task);
        df_sim_store_destroy(r->store);
        for (size_t i = 0; i <= PARTITIONS; i++)
                df_collector_destroy(r->collectors[i]);
        for (size_t i = 0; i < r->count; i++)
                free((void *)(uintptr_t)r->records[i].value.data);
        free(r->records);
}

static void rig_log(struct rig *r, struct df_buf *b)
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

static void rig_log_data(struct rig *r, size_t events)
{
        struct df_buf b = {0};

        toy_data(&b, &r->random, events, &r->now_ms);
        rig_log(r, &b);
}

/* One event of this minute, and nothing else. */
static void rig_log_event(struct rig *r, uint8_t key, int64_t ms)
{
        struct df_buf b = {0};

        df_put_u8(&b, 'D');
        df_put_u8(&b, key);
        df_put_u64be(&b, (uint64_t)ms);
        r->now_ms = ms > r->now_ms ? ms : r->now_ms;
        rig_log(r, &b);
}

static void rig_log_control(struct rig *r, uint64_t generation)
{
        struct df_buf b = {0};

        if (generation)
                toy_begin(&b, generation);
        else
                df_put_u8(&b, 'E');
        rig_log(r, &b);
}

static size_t rig_process(struct rig *r, size_t max)
{
        size_t at = (size_t)df_task_position(r->task), used = 0;
        size_t n = r->count - at < max ? r->count - at : max;

        ok(df_task_process(r->task, r->records + at, n, &used, err));
        assert_true(used <= n);
        assert_int_equal(df_task_position(r->task), at + used);
        return used;
}

static void rig_read(struct rig *r, const struct df_collection_info *c, size_t index,
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
static void rig_cut(struct rig *r)
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

static void rig_drain(struct rig *r)
{
        do
                rig_cut(r);
        while (df_task_wants_cut(r->task));
}

/* The process ends; another takes over the last cut, which was published. */
static void rig_restore(struct rig *r)
{
        struct df_store *copy = df_sim_store_clone(r->store);

        df_task_destroy(r->task);
        df_sim_store_destroy(r->store);
        r->store = copy;
        rig_create(r);
        df_task_committed(r->task);
}

static void rig_compare(struct rig *r)
{
        struct recount n = {0};

        recount(&n, r->records, r->count, false);
        compare(&r->reading, &n, r->seed);
}

struct dump {
        struct df_buf b;
        uint8_t from;
};

static int dump_key(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
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
static void dump_store(struct df_store *s, uint8_t from, struct df_buf *ret)
{
        struct dump d = {.b = *ret, .from = from};

        df_buf_clear(&d.b);
        ok(df_store_scan(s, df_bytes(NULL, 0), dump_key, &d, err));
        *ret = d.b;
}

static int count_key(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        (void)key;
        (void)value;
        (void)err;
        ++*(size_t *)arg;
        return 0;
}

static size_t outbox_keys(struct rig *r)
{
        size_t n = 0;

        ok(df_store_scan(r->store, df_bytes("\x01", 1), count_key, &n, err));
        return n;
}

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
                rig_restore(&r);
                if (i < 4) { /* asked again by the restored one, at its first cut */
                        assert_false(df_task_wants_cut(r.task));
                }
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

/* ---- R6, E1: generations ---- */

static void import_config(struct rig *r)
{
        r->config.control = toy_control;
        r->config.rules.bounded = true;
}

static void test_generations(void **state)
{
        const struct df_seal *s;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        import_config(&r);
        s = &r.reading.last;
        rig_create(&r);
        rig_log_control(&r, 100);
        rig_log_event(&r, 1, BASE_MS + 9 * MINUTE); /* any order, any age */
        rig_log_event(&r, 1, BASE_MS);
        rig_log_control(&r, 0);
        rig_log_control(&r, 200);
        rig_log_event(&r, 1, BASE_MS + 3 * MINUTE);
        rig_log_control(&r, 0);
        assert_int_equal(rig_process(&r, 3), 3);
        assert_true(df_task_clock(r.task)->watermark_ms == DF_TIME_MIN);
        assert_int_equal(df_task_source(r.task)->generation, 100);
        rig_cut(&r); /* in the middle of it */
        assert_false(s->closed);
        assert_true(s->final_through_ms == DF_TIME_MIN);
        rig_restore(&r);
        assert_int_equal(rig_process(&r, 100), 1); /* not beyond its end */
        assert_true(df_task_clock(r.task)->watermark_ms == DF_TIME_MAX);
        assert_true(df_task_wants_cut(r.task) && df_task_has_news(r.task));
        assert_int_equal(rig_process(&r, 100), 0);
        rig_cut(&r);
        assert_true(s->closed);
        assert_true(s->final_through_ms == DF_TIME_MAX);
        assert_int_equal(r.reading.last_source.generation, 100);
        assert_int_equal(s->parent_k, 1);
        assert_false(df_task_wants_cut(r.task));
        rig_restore(&r);
        assert_int_equal(df_task_source(r.task)->generation, 100);
        assert_int_equal(rig_process(&r, 2), 2);
        assert_int_equal(df_task_source(r.task)->generation, 200);
        assert_true(df_task_clock(r.task)->watermark_ms == DF_TIME_MIN);
        assert_int_equal(rig_process(&r, 100), 1);
        rig_cut(&r);
        assert_true(s->closed);
        assert_int_equal(r.reading.last_source.generation, 200);
        assert_int_equal(df_task_k(r.task), 3);
        assert_int_equal(s->parent_k, 0); /* a chain of its own */
        assert_int_equal(s->from_offset, 4);
        assert_int_equal(r.reading.told[1], 3); /* what the tally knows is kept */
        assert_int_equal(r.reading.noted, 3);
        for (size_t i = 0; i < 10; i++)
                assert_int_equal(r.reading.minutes[i], i == 0 || i == 3 || i == 9);
        rig_release(&r);
}

/* An import that was left open ends where the next one begins; BEGIN of the current one is data. */
static void test_a_generation_left_open(void **state)
{
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        import_config(&r);
        rig_create(&r);
        rig_log_control(&r, 100);
        rig_log_event(&r, 1, BASE_MS);
        rig_log_control(&r, 100);
        rig_log_event(&r, 1, BASE_MS);
        rig_log_control(&r, 200);
        rig_log_event(&r, 1, BASE_MS + MINUTE);
        assert_int_equal(rig_process(&r, 100), 4);
        rig_cut(&r);
        assert_true(r.reading.last.closed);
        assert_int_equal(r.reading.last.to_offset, 4);
        assert_int_equal(r.reading.last_source.generation, 100);
        assert_int_equal(rig_process(&r, 100), 2);
        rig_cut(&r);
        assert_false(r.reading.last.closed);
        assert_int_equal(r.reading.last_source.generation, 200);
        assert_int_equal(r.reading.minutes[0], 2);
        assert_int_equal(r.reading.minutes[1], 1);
        rig_release(&r);
}

/* Its end is drained before anything of the next generation is taken. */
static void test_an_end_is_drained(void **state)
{
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        import_config(&r);
        r.params.rows_per_cut = 1;
        rig_create(&r);
        rig_log_control(&r, 100);
        for (int i = 0; i < 3; i++)
                rig_log_event(&r, 1, BASE_MS + i * MINUTE);
        rig_log_control(&r, 0);
        rig_log_control(&r, 200);
        assert_int_equal(rig_process(&r, 100), 5);
        for (int i = 0; i < 3; i++) {
                assert_true(df_task_wants_cut(r.task));
                assert_int_equal(rig_process(&r, 100), 0);
                rig_cut(&r);
                assert_true(r.reading.last.closed);
                assert_true(r.reading.last.final_through_ms ==
                            (i < 2 ? BASE_MS + (i + 1) * MINUTE : DF_TIME_MAX));
        }
        assert_int_equal(rig_process(&r, 100), 1);
        assert_int_equal(df_task_source(r.task)->generation, 200);
        rig_release(&r);
}

/* ---- K10 ---- */

/* A task that lost its state at any cut, rebuilt from the records: the same as if it had not. */
static void test_rebuilt_at_every_cut(void **state)
{
        (void)state;
        for (uint64_t lost = 1; lost <= 12; lost++) {
                struct df_clock clock;
                struct rig r;
                uint64_t position = 0;

                rig_init(&r, lost);
                r.params.rows_per_cut = lost % 2 ? 2 : 0; /* also while rows are held back */
                rig_create(&r);
                for (uint64_t k = 1; k <= lost; k++) {
                        rig_log_data(&r, 10);
                        rig_log_data(&r, 10);
                        if (!df_task_wants_cut(r.task))
                                (void)rig_process(&r, 9);
                        rig_cut(&r);
                }
                if (lost % 2) { /* settled windows, and their rows not sent: W4 holds them back */
                        while (df_task_wants_cut(r.task))
                                rig_cut(&r);
                        for (int i = 0; i < 20; i++)
                                rig_log_data(&r, 10);
                        (void)rig_process(&r, 99);
                        rig_cut(&r);
                        assert_true(r.reading.last.final_through_ms <
                                    r.reading.last.watermark_ms - GRACE_MS - 2 * MINUTE);
                }
                position = df_task_position(r.task);
                df_task_destroy(r.task);
                df_sim_store_destroy(r.store);
                r.store = df_sim_store_create(NULL);
                rig_create(&r);
                df_clock_init(&clock);
                df_task_suppress(r.task, r.reading.last_k, &r.reading.last, &clock, 0);
                rig_log_data(&r, 30);
                r.params.rows_per_cut = 0; /* K10: there is room, as nothing is kept */
                while (df_task_suppressed(r.task)) {
                        assert_false(df_task_wants_cut(r.task) || df_task_dirty(r.task));
                        assert_false(df_task_has_news(r.task));
                        (void)rig_process(&r, 1 + lost % 3);
                        if (df_task_suppressed(r.task) && lost % 4 == 1)
                                ok(df_task_checkpoint_silently(r.task, err));
                }
                assert_int_equal(df_task_position(r.task), position); /* that ended the call */
                assert_int_equal(rig_process(&r, 9), 0);
                assert_true(df_task_wants_cut(r.task));
                rig_drain(&r);
                while (rig_process(&r, 9) > 0)
                        ;
                rig_drain(&r);
                rig_compare(&r); /* chain, notes and ledger too */
                rig_release(&r);
        }
}

/* Generations that came before the last seal are over: nothing of them comes back. */
static void test_rebuilt_over_generations(void **state)
{
        struct df_clock clock;
        struct rig r;

        (void)state;
        rig_init(&r, 1);
        import_config(&r);
        rig_create(&r);
        rig_log_control(&r, 100);
        rig_log_event(&r, 1, BASE_MS);
        rig_log_control(&r, 0);
        rig_log_control(&r, 200);
        rig_log_event(&r, 2, BASE_MS + 2 * MINUTE);
        (void)rig_process(&r, 9);
        rig_cut(&r);
        (void)rig_process(&r, 9);
        rig_cut(&r);
        rig_log_event(&r, 2, BASE_MS + 4 * MINUTE);
        df_task_destroy(r.task);
        df_sim_store_destroy(r.store);
        r.store = df_sim_store_create(NULL);
        rig_create(&r);
        df_clock_init(&clock);
        df_task_suppress(r.task, 2, &r.reading.last, &clock, 0);
        assert_int_equal(rig_process(&r, 9), 5);
        assert_int_equal(df_task_source(r.task)->generation, 200);
        r.reading.minutes[0] = r.reading.minutes[2] = 0;
        rig_cut(&r);
        assert_int_equal(r.reading.minutes[0], 0);
        assert_int_equal(r.reading.minutes[2], 1);
        assert_int_equal(rig_process(&r, 9), 1);
        rig_cut(&r);
        assert_int_equal(r.reading.minutes[4], 1);
        assert_int_equal(r.reading.chain_breaks, 0);
        assert_int_equal(r.reading.noted, 3);
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
                cmocka_unit_test(test_the_outbox_is_bounded),
                cmocka_unit_test(test_a_large_outbox_wants_a_cut),
                cmocka_unit_test(test_a_payload_is_bounded),
                cmocka_unit_test(test_a_note_is_bounded),
                cmocka_unit_test(test_drain),
                cmocka_unit_test(test_news),
                cmocka_unit_test(test_generations),
                cmocka_unit_test(test_a_generation_left_open),
                cmocka_unit_test(test_an_end_is_drained),
                cmocka_unit_test(test_rebuilt_at_every_cut),
                cmocka_unit_test(test_rebuilt_over_generations),
                cmocka_unit_test(test_state_that_does_not_fit),
                cmocka_unit_test(test_damaged_meta),
                cmocka_unit_test(test_configurations_beyond_the_limits),
                cmocka_unit_test(test_an_operator_fails),
                cmocka_unit_test(test_the_store_fails_at_every_call),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
