/* test_operators_law.c - the law of df/operator.h, for every operator of operators/table.c.
 *
 * What is emitted, counted and kept depends on the records and their order alone. Each operator is
 * the last of its chain (the main job's, up to it) and is fed the same log in different ways:
 *   whole    one call, one checkpoint at the end
 *   split    a record a call: nothing may differ, byte by byte
 *   cuts     a checkpoint every n records: provisional rows may be more, final ones are equal (W6)
 *   restarts like cuts, but every checkpoint is taken over by a new task: nothing differs from cuts
 * And a checkpoint without news, or at an equal watermark, emits nothing.
 */
#include "unit.h"

#include "tests/unit/dedupe_knowledge.h"

#define RECORDS 220
#define OPERATORS_NS 16 /* of the first operator */

struct variant {
        size_t per_call;
        size_t cut_every; /* records; 0 = at the end only */
        bool restart;
};

#define UNSPILLED 20000 /* open ids of a set that writes deltas alone */

struct setting {
        uint64_t seed;
        size_t operators;
        size_t open_ids;
};

#define STR(s)                                                                                     \
        {                                                                                          \
                (const uint8_t *)(s), sizeof(s) - 1                                                \
        }
static const struct ad_price lines[] = {
        {.model = AD_CPC, .price_nanos = 30000000, .currency = STR("EUR")},
        {.campaign_id = STR("c2"),
         .model = AD_CPM,
         .price_nanos = 5000000000,
         .currency = STR("USD")},
};
static const struct ad_price_table table = {1, lines, 2};

static const struct ad_price_table *find_table(void *arg, uint32_t version)
{
        (void)arg;
        return version == 1 ? &table : NULL;
}

/* ---- a random log ---- */

static struct df_bytes pick(struct df_sim_random *x, struct rig *r, const char *kind, uint64_t n)
{
        char text[32];
        int len = snprintf(text, sizeof(text), "%s%llu", kind,
                           (unsigned long long)df_sim_random_below(x, n));

        return df_arena_copy(&r->memory, df_bytes(text, (size_t)len));
}

static struct ad_event random_event(struct df_sim_random *x, struct rig *r, int64_t now)
{
        struct ad_event ev = rig_event("", now);

        ev.event_id = pick(x, r, "id", 900);
        ev.tenant_id = pick(x, r, "t", 2);
        ev.type = 1 + (uint32_t)df_sim_random_below(x, 3);
        ev.dims[AD_DIM_CAMPAIGN] = pick(x, r, "c", 4);
        ev.dims[AD_DIM_AD] = pick(x, r, "ad", 6);
        ev.dims[AD_DIM_COUNTRY] = pick(x, r, "C", 3);
        ev.dims[AD_DIM_PUBLISHER] = pick(x, r, "p", 3);
        ev.receive_ms = now - df_sim_random_between(x, 0, 3000);
        ev.event_ms = ev.receive_ms - df_sim_random_between(x, 0, 9000);
        if (df_sim_random_chance(x, 30)) /* late, or too old, or far ahead */
                ev.event_ms = ev.receive_ms - df_sim_random_between(x, -400000, 700000);
        if (df_sim_random_chance(x, 10))
                ev.receive_ms = now + df_sim_random_between(x, -4000000, 90000);
        if (df_sim_random_chance(x, 300)) {
                ev.currency = df_bytes_str("USD");
                ev.cost_nanos = df_sim_random_between(x, 0, 1000000000);
        }
        if (df_sim_random_chance(x, 400)) {
                ev.flags = df_sim_random_chance(x, 500) ? AD_EV_CURRENCY_DEFAULTED : 0;
                ev.cost_nanos = 0;
        }
        if (ev.type == AD_CONVERSION) {
                ev.flags |= AD_EV_HAS_VALUE;
                ev.value_nanos = df_sim_random_between(x, 0, 99000000000);
                if (df_sim_random_chance(x, 300))
                        ev.value_currency = df_bytes_str("GBP");
        }
        if (df_sim_random_chance(x, 50))
                ev.labels = AD_LABEL_BOT;
        if (df_sim_random_chance(x, 5))
                ev.payout_nanos = -1; /* invalid */
        ev.fingerprint = df_sim_random_chance(x, 900) ? 1 : df_sim_random_below(x, 3);
        return ev;
}

static void write_log(struct rig *r, uint64_t seed)
{
        struct ad_event events[100];
        struct df_sim_random x;
        int64_t now = RIG_T0;
        uint64_t seq = 0;

        df_sim_random_init(&x, seed);
        for (int i = 0; i < RECORDS; i++) {
                struct ad_batch b = {.start_id = 5, .first_seq = seq, .price_version = 1};
                size_t n = df_sim_random_below(&x, df_sim_random_chance(&x, 100) ? 100 : 12);

                now += df_sim_random_between(&x, 0, 20000);
                if (df_sim_random_chance(&x, 10))
                        now += df_sim_random_between(&x, 1, 3) * 3600000;
                if (df_sim_random_chance(&x, 20)) {
                        rig_log_raw(r, df_bytes("\xff\xff", 2), now);
                        continue;
                }
                if (df_sim_random_chance(&x, 200)) {
                        b.has_heartbeat = true;
                        b.heartbeat = (struct ad_heartbeat){.receive_ms = now,
                                                            .partition_accepted = seq + n};
                }
                if (df_sim_random_chance(&x, 4))
                        b.clock_reset = true;
                for (size_t j = 0; j < n; j++)
                        events[j] = random_event(&x, r, now);
                rig_log(r, &b, events, n, now);
                seq += n;
        }
        rig_log_heartbeat(r, now + 7200000, now + 7200000); /* every window is settled */
}

static void run(struct rig *r, const struct setting *s, const struct variant *v)
{
        size_t since = 0;

        rig_prepare(r, ad_chain_main, s->operators);
        r->params.base.pricing = AD_PRICE_CLIENT_ELSE_TABLE;
        r->params.base.price_table = find_table;
        r->params.base.grace_ms = r->config.grace_ms = 120000;
        r->params.base.horizon_hours = 2;
        r->params.base.dedupe_open_ids = s->open_ids;
        r->params.base.cell_cap = s->seed % 2 ? 3 : 1000; /* W7: with and without __other__ */
        rig_start(r);
        write_log(r, s->seed);
        if (v->cut_every == 0)
                rig_run(r, v->per_call);
        while (df_task_position(r->task) < r->record_count) {
                size_t at = (size_t)df_task_position(r->task), used = 0;
                size_t n = r->record_count - at < v->per_call ? r->record_count - at : v->per_call;
                struct df_error err = {0};

                if (n > v->cut_every - since)
                        n = v->cut_every - since;
                if (df_task_process(r->task, r->records + at, n, &used, &err) < 0)
                        fail_msg("seed %llu: %s", (unsigned long long)s->seed, err.text);
                since += used;
                if (since < v->cut_every && !df_task_wants_cut(r->task))
                        continue;
                rig_cut(r);
                since = 0;
                if (v->restart)
                        rig_restart(r);
        }
        rig_cut(r);
}

/* ---- comparing ---- */

static void check_same(const char *what, const struct setting *s, const void *a, size_t a_len,
                       const void *b, size_t b_len)
{
        if (a_len != b_len || (a_len && memcmp(a, b, a_len) != 0))
                fail_msg("%s: seed %llu, open_ids %zu: %s differs (%zu and %zu bytes)",
                         ad_chain_main[s->operators - 1]->name, (unsigned long long)s->seed,
                         s->open_ids, what, a_len, b_len);
}

static void check_events(const struct setting *s, const struct rig *a, const struct rig *b)
{
        check_same("what reaches the next operator", s, a->seen, a->seen_count * sizeof(*a->seen),
                   b->seen, b->seen_count * sizeof(*b->seen));
        check_same("the sum of outcomes", s, a->outcomes, sizeof(a->outcomes), b->outcomes,
                   sizeof(b->outcomes));
        assert_int_equal(a->events, b->events);
        assert_int_equal(a->poison_records, b->poison_records);
}

static void check_output(const struct setting *s, const struct rig *a, const struct rig *b,
                         enum ad_output out, const char *name)
{
        check_same(name, s, a->emitted[out].data, a->emitted[out].len, b->emitted[out].data,
                   b->emitted[out].len);
}

struct dump {
        struct df_buf bytes;
        uint8_t skip;
};
static int dump_one(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct dump *d = arg;

        (void)err;
        if (d->skip && key.data[0] == d->skip)
                return 0;
        df_put_lstr(&d->bytes, key);
        df_put_lstr(&d->bytes, value);
        return 0;
}

/* Every byte of the store; skip: a namespace to leave out; 0 = none. */
static void check_store(const struct setting *s, struct rig *a, struct rig *b, uint8_t skip)
{
        struct dump x = {.skip = skip}, y = {.skip = skip};
        struct df_error err = {0};

        for (int first = 0; first < 256; first++) {
                uint8_t prefix = (uint8_t)first;

                assert_int_equal(df_store_scan(a->store, df_bytes(&prefix, 1), dump_one, &x, &err),
                                 0);
                assert_int_equal(df_store_scan(b->store, df_bytes(&prefix, 1), dump_one, &y, &err),
                                 0);
        }
        check_same("the store", s, x.bytes.data, x.bytes.len, y.bytes.data, y.bytes.len);
        df_buf_release(&x.bytes);
        df_buf_release(&y.bytes);
}

/* ---- the store ---- */

static void check_knowledge(const struct setting *s, struct rig *a, struct rig *b)
{
        struct knowledge x = knowledge_of(a), y = knowledge_of(b);

        check_same("dedupe's header", s, x.header.data, x.header.len, y.header.data, y.header.len);
        check_same("what dedupe knows", s, x.v, x.count * sizeof(*x.v), y.v,
                   y.count * sizeof(*y.v));
        if (s->operators > DEDUPE_NS - OPERATORS_NS)
                assert_true(x.count > 0);
        for (struct knowledge *k = &x; k; k = k == &x ? &y : NULL) {
                free(k->v);
                df_buf_release(&k->header);
                df_buf_release(&k->runs);
        }
}

/* The store, byte by byte. Where the runs of a small set lie depends on how far merges have come,
 * and that on batches and restarts: of these, what they say. */
static void check_state(const struct setting *s, struct rig *a, struct rig *b)
{
        check_store(s, a, b, s->open_ids < UNSPILLED ? DEDUPE_NS : 0);
        check_knowledge(s, a, b);
}

/* ---- final cells (W6): the last row of each key, in canonical order ---- */

struct cell {
        uint8_t key[512];
        size_t key_len, order;
        struct ad_cell cell;
        uint32_t grouping;
};
struct cells {
        struct cell *v;
        size_t count, cap;
};

static int add_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct cells *c = arg;
        struct df_buf b = {0};
        struct cell *to;

        (void)err;
        if (c->count == c->cap) {
                c->cap = c->cap ? 2 * c->cap : 256;
                c->v = realloc(c->v, c->cap * sizeof(*c->v));
                assert_non_null(c->v);
        }
        df_put_u32be(&b, row->grouping);
        df_put_u64be(&b, row->minute);
        df_put_lstr(&b, row->tenant_id);
        for (uint32_t i = 0; i < row->dim_count; i++)
                df_put_lstr(&b, row->dims[i]);
        df_put_lstr(&b, row->currency);
        to = &c->v[c->count];
        memset(to, 0, sizeof(*to));
        assert_true(b.len <= sizeof(to->key));
        memcpy(to->key, b.data, b.len);
        to->key_len = b.len;
        to->order = c->count++;
        to->cell = row->cell;
        to->grouping = row->grouping;
        df_buf_release(&b);
        return 0;
}

static int by_key(const void *a, const void *b)
{
        const struct cell *x = a, *y = b;
        int c = df_bytes_cmp(df_bytes(x->key, x->key_len), df_bytes(y->key, y->key_len));

        return c ? c : x->order < y->order ? -1 : 1;
}

static struct cells cells_of(const struct rig *r)
{
        struct df_reader reader = df_reader(df_buf_bytes(&r->emitted[AD_OUT_ROLLUPS]));
        struct cells c = {0};
        struct df_error err = {0};
        size_t kept = 0;

        while (df_reader_left(&reader) > 0) {
                struct df_bytes payload = df_get_bytes(&reader, df_get_u32le(&reader));

                if (ad_wire_rows_decode(payload, add_row, &c, &err) < 0)
                        fail_msg("%s", err.text);
        }
        if (c.count > 0)
                qsort(c.v, c.count, sizeof(*c.v), by_key);
        for (size_t i = 0; i < c.count; i++) {
                bool last = i + 1 == c.count || c.v[i].key_len != c.v[i + 1].key_len ||
                            memcmp(c.v[i].key, c.v[i + 1].key, c.v[i].key_len) != 0;

                if (!last)
                        continue;
                c.v[kept] = c.v[i];
                c.v[kept++].order = 0;
        }
        c.count = kept;
        return c;
}

static void check_cells(const struct setting *s, const struct rig *a, const struct rig *b)
{
        struct cells x = cells_of(a), y = cells_of(b);

        check_same("final cells", s, x.v, x.count * sizeof(*x.v), y.v, y.count * sizeof(*y.v));
        free(x.v);
        free(y.v);
}

/* The ledger: each event ends once; each grouping counts each counted event once. */
static void check_ledger(const struct setting *s, const struct rig *r)
{
        struct cells c = cells_of(r);
        uint64_t in_cells[AD_GROUPINGS_MAX] = {0}, ended = 0, seen = 0;

        for (size_t i = 0; i < r->seen_count; i++)
                seen += !(r->seen[i].flags & AD_EV_MARK);
        assert_int_equal(seen, r->events);
        for (int i = 0; i < DF_OUTCOMES_MAX; i++)
                ended += r->outcomes[i];
        if (s->operators == ad_chain_main_length)
                assert_int_equal(ended, r->events);
        for (size_t i = 0; i < c.count; i++) {
                const struct ad_cell *v = &c.v[i].cell;

                in_cells[c.v[i].grouping] += v->impressions + v->clicks + v->conversions +
                                             v->invalid[0] + v->invalid[1] + v->invalid[2];
        }
        for (uint32_t g = 0; g < ad_groupings_default.count; g++)
                assert_int_equal(in_cells[g], r->outcomes[AD_COUNTED]);
        free(c.v);
}

/* ---- the law ---- */

static void check_setting(const struct setting *s)
{
        static const struct variant whole = {.per_call = SIZE_MAX}, split = {.per_call = 1};
        static const size_t every[] = {1, 7, 50};
        struct rig a, b;

        run(&a, s, &whole);
        check_ledger(s, &a);
        run(&b, s, &split);
        check_events(s, &a, &b);
        for (int o = 0; o < AD_OUT_COUNT; o++)
                check_output(s, &a, &b, (enum ad_output)o, b.config.outputs[o].topic);
        check_state(s, &a, &b);
        check_same("the seal's digest", s, &a.seal.rows_digest, sizeof(a.seal.rows_digest),
                   &b.seal.rows_digest, sizeof(b.seal.rows_digest));
        rig_close(&b);
        for (size_t i = 0; i < sizeof(every) / sizeof(every[0]); i++) {
                struct variant v = {.per_call = 3, .cut_every = every[i]};
                struct rig c;

                run(&b, s, &v);
                check_ledger(s, &b);
                check_events(s, &a, &b);
                check_output(s, &a, &b, AD_OUT_LATE, "late");
                check_output(s, &a, &b, AD_OUT_QUARANTINE, "quarantine");
                check_cells(s, &a, &b);
                check_knowledge(s, &a, &b);
                assert_int_equal(a.seal.watermark_ms, b.seal.watermark_ms);
                assert_int_equal(a.seal.final_through_ms, b.seal.final_through_ms);
                v.restart = true;
                run(&c, s, &v);
                check_events(s, &b, &c);
                for (int o = 0; o < AD_OUT_COUNT; o++)
                        check_output(s, &b, &c, (enum ad_output)o, b.config.outputs[o].topic);
                check_state(s, &b, &c);
                rig_close(&b);
                rig_close(&c);
        }
        rig_close(&a);
}

static void test_law(void **state)
{
        (void)state;
        for (size_t n = 1; n <= ad_chain_main_length; n++) {
                check_setting(&(struct setting){1, n, 100000});
                check_setting(&(struct setting){2, n, 40});
        }
}

static void test_law_whole_chain(void **state)
{
        (void)state;
        for (uint64_t seed = 10; seed < 14; seed++)
                check_setting(
                        &(struct setting){seed, ad_chain_main_length, seed % 3 ? 64 : UNSPILLED});
}

/* A watermark that does not grow, and a checkpoint with nothing new: nothing is emitted. */
static void test_equal_watermark(void **state)
{
        (void)state;
        for (size_t n = 1; n <= ad_chain_main_length; n++) {
                struct setting s = {7, n, 1000};
                struct variant v = {.per_call = 5, .cut_every = 20};
                int64_t now;
                struct rig r;

                run(&r, &s, &v);
                now = r.records[r.record_count - 1].append_ms;
                for (int i = 0; i < 3; i++) {
                        rig_log_heartbeat(&r, now, now);
                        rig_run(&r, 1);
                        rig_cut(&r);
                        assert_int_equal(r.cut_rows, 0);
                        rig_cut(&r);
                        assert_int_equal(r.cut_rows, 0);
                }
                rig_close(&r);
        }
}

static bool stands_in(const struct df_operator_ops *o, const struct df_operator_ops *const *chain,
                      size_t length)
{
        for (size_t i = 0; i < length; i++)
                if (chain[i] == o)
                        return true;
        return false;
}

/* Every operator there is stands in the chain, and so has been tested above, or in that of a
 * reconcile run, which test_bill.c cuts and takes over in the same way. So does test_books.c with
 * that of the books, whose records hold no events. */
static void test_every_operator(void **state)
{
        (void)state;
        assert_true(ad_operator_count > 0);
        for (size_t i = 0; i < ad_operator_count; i++) {
                const struct df_operator_ops *o = ad_operators[i];

                if (!stands_in(o, ad_chain_main, ad_chain_main_length) &&
                    !stands_in(o, ad_chain_bill, ad_chain_bill_length) &&
                    !stands_in(o, ad_chain_books, ad_chain_books_length))
                        fail_msg("%s is tested by no chain", o->name);
                assert_non_null(o->open);
                assert_non_null(o->process);
                assert_non_null(o->close);
                assert_true(o->size >= sizeof(struct df_operator));
                assert_true(strlen(o->name) > 0 && strlen(o->name) < 32);
                assert_true(o->state_version > 0);
                for (size_t j = 0; j < i; j++)
                        assert_string_not_equal(o->name, ad_operators[j]->name);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_every_operator),
                cmocka_unit_test(test_law),
                cmocka_unit_test(test_law_whole_chain),
                cmocka_unit_test(test_equal_watermark),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
