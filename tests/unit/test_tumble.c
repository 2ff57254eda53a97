/* test_tumble.c - counting by the minute, against a naive recount (W1 to W4, W6, W7, K6, K10, K12).
 */
#include "unit.h"

#include "tumble_test.h"

#define BASE_MS (1700000000000LL / 60000 * 60000)
#define MINUTE_MS 60000

static const char long_id[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/* ---- events of a seed ---- */
struct source {
        struct df_sim_random random;
        int64_t now_ms;
        char names[16][AD_ID_MAX + 1]; /* of the event that is built */
        bool spread;                   /* more keys than a small cap lets in */
};

static struct df_bytes pick(struct source *s, uint32_t slot, const char *prefix, uint64_t n)
{
        uint64_t v = df_sim_random_below(&s->random, n);
        char *name = s->names[slot];

        if (v == 0 && df_sim_random_chance(&s->random, 300))
                return df_bytes("", 0);
        if (v == 1) /* as long as can be, and alike up to the end */
                (void)snprintf(name, AD_ID_MAX + 1, "%.*s%s", (int)(AD_ID_MAX - strlen(prefix)),
                               long_id, prefix);
        else if (v == 2)
                (void)snprintf(name, AD_ID_MAX + 1, "%s-sixteen-and-more-%llu", prefix,
                               (unsigned long long)v);
        else if (v == 3 && df_sim_random_chance(&s->random, 200))
                (void)snprintf(name, AD_ID_MAX + 1, AD_OTHER);
        else
                (void)snprintf(name, AD_ID_MAX + 1, "%s%llu", prefix, (unsigned long long)v);
        return df_bytes_str(name);
}

static struct df_bytes pick_currency(struct source *s)
{
        static const char *const list[] = {"EUR", "EUR", "USD", "JPY", ""};

        return df_bytes_str(list[df_sim_random_below(&s->random, 5)]);
}

static void make_event(struct source *s, struct ad_event *ev)
{
        struct df_sim_random *r = &s->random;
        uint64_t wide = s->spread ? 12 : 5;

        *ev = (struct ad_event){
                .type = (uint32_t)df_sim_random_between(r, AD_IMPRESSION, AD_CONVERSION),
                .tenant_id = df_bytes_str(df_sim_random_chance(r, 700) ? "acme" : "globex"),
                .receive_ms = s->now_ms,
                .event_ms = s->now_ms - df_sim_random_between(r, 0, 6000),
                .currency = pick_currency(s),
                .schema_version = AD_SCHEMA_VERSION,
        };
        if (df_sim_random_chance(r, 40))
                ev->tenant_id = df_bytes_str(long_id);
        if (df_sim_random_chance(r, 40)) /* late, or nearly */
                ev->event_ms -= df_sim_random_between(r, 0, 200000);
        if (df_sim_random_chance(r, 10)) /* of a minute to come */
                ev->event_ms += df_sim_random_between(r, 0, 240000);
        ev->dims[AD_DIM_ADVERTISER] = pick(s, 0, "adv", 4);
        ev->dims[AD_DIM_CAMPAIGN] = pick(s, 1, "c", wide);
        ev->dims[AD_DIM_AD] = pick(s, 2, "ad", wide);
        ev->dims[AD_DIM_PUBLISHER] = pick(s, 3, "pub", 5);
        ev->dims[AD_DIM_PLACEMENT] = pick(s, 4, "p", 4);
        ev->dims[AD_DIM_COUNTRY] = pick(s, 5, "D", 4);
        ev->dims[AD_DIM_DEVICE] = pick(s, 6, "mobile-", 4);
        if (ev->currency.len && df_sim_random_chance(r, 800))
                ev->cost_nanos = df_sim_random_between(r, 0, 1000000000000000000);
        if (ev->currency.len && df_sim_random_chance(r, 300))
                ev->payout_nanos = df_sim_random_between(r, 0, 1000000);
        if (ev->type == AD_CONVERSION && df_sim_random_chance(r, 800)) {
                ev->value_nanos = df_sim_random_between(r, 0, 5000000000);
                ev->value_currency = pick_currency(s);
        }
        if (df_sim_random_chance(r, 60))
                ev->labels = (uint32_t)df_sim_random_between(r, 1, 3);
}

/* ---- one run ---- */
struct run {
        uint64_t seed;
        uint32_t cap;
        uint32_t cut_permille, restore_permille;
        const struct ad_groupings *groupings;
        bool spread;
        size_t events;
        bool whole; /* no comparison between cuts */
};

static void drain(struct rig *r, struct recount *o)
{
        for (int i = 0; rig_cut(r); i++)
                assert_in_range(i, 0, 100);
        rig_compare(r, o);
        /* W4: with nothing held back, final_through is the watermark less the grace. */
        if (r->watermark_ms != DF_TIME_MAX && r->watermark_ms != DF_TIME_MIN)
                assert_int_equal(r->final_through_ms, r->watermark_ms - r->params.grace_ms);
}

static void run_events(struct rig *r, struct recount *o, const struct run *run)
{
        struct source s = {.now_ms = BASE_MS, .spread = run->spread};
        struct ad_event events[150];
        struct df_sim_random cuts;

        df_sim_random_init(&s.random, run->seed);
        df_sim_random_init(&cuts, run->seed + 1000000);
        for (size_t done = 0; done < run->events;) {
                size_t n = (size_t)df_sim_random_between(
                        &s.random, 1, df_sim_random_chance(&s.random, 300) ? 150 : 5);

                s.now_ms += df_sim_random_between(&s.random, 0, (int64_t)n * 300);
                r->append_ms = s.now_ms;
                for (size_t i = 0; i < n; i++) {
                        struct source one = s; /* names live until the event is encoded */

                        make_event(&one, &events[i]);
                        recount_event(o, &events[i], false);
                        s.random = one.random;
                        memcpy(s.names, one.names, sizeof(s.names));
                        rig_feed(r, &events[i], 1);
                }
                done += n;
                if (!df_sim_random_chance(&cuts, run->cut_permille))
                        continue;
                drain(r, o);
                if (df_sim_random_chance(&cuts, run->restore_permille))
                        rig_restore(r);
        }
        r->append_ms = s.now_ms + 3600000;
        rig_heartbeat(r, r->append_ms);
        recount_heartbeat(o, r->append_ms);
}

static void run_init(struct rig *r, struct recount *o, const struct run *run)
{
        rig_init(r);
        r->seed = run->seed;
        r->params.cell_cap = run->cap ? run->cap : AD_CELL_CAP;
        if (run->groupings)
                r->params.groupings = run->groupings;
        rig_start(r);
        recount_init(o, r);
}

static void check_run(const struct run *run)
{
        struct recount o;
        size_t stored[2];
        struct rig r;

        run_init(&r, &o, run);
        run_events(&r, &o, run);
        drain(&r, &o);
        assert_int_equal(r.outcomes[AD_COUNTED], o.counted);
        assert_int_equal(r.outcomes[AD_LATE], o.late);
        assert_true(o.late > 0);
        /* W4: every window is final, so nothing is kept. */
        rig_stored(&r, stored);
        assert_int_equal(stored[0], 0);
        rig_restore(&r);
        assert_false(df_task_has_news(r.task));
        recount_release(&o);
        rig_release(&r);
}

/* W1, W2, W3, W4, W6: whatever the cuts and restores, rows equal the recount at each of them. */
static void test_rows_equal_the_recount_for_any_cuts_and_restores(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 12; seed++)
                check_run(&(struct run){.seed = seed,
                                        .events = 1500,
                                        .cut_permille = seed % 4 == 0 ? 1000 : 150,
                                        .restore_permille = seed % 3 == 0 ? 1000 : 300});
}

static void test_one_cut_at_the_end_gives_the_same_rows(void **state)
{
        (void)state;
        check_run(&(struct run){.seed = 1, .events = 1500});
}

/* W7: the first N keys in log order, whatever was restored in between. */
static void test_the_cap_folds_the_same_keys_after_any_restore(void **state)
{
        (void)state;
        for (uint64_t seed = 20; seed < 30; seed++)
                check_run(&(struct run){.seed = seed,
                                        .cap = (uint32_t)(seed % 5 + 1) * 3,
                                        .spread = true,
                                        .events = 1200,
                                        .cut_permille = 300,
                                        .restore_permille = 700});
}

/* Eight groupings, of one to all seven dimensions. */
static void test_every_shape_of_grouping_counts(void **state)
{
        static const struct ad_groupings all = {
                .version = 1,
                .count = 8,
                .list = {{2, {AD_DIM_ADVERTISER, AD_DIM_CAMPAIGN}},
                         {7, {6, 5, 4, 3, 2, 1, 0}},
                         {6, {0, 1, 2, 3, 4, 5}},
                         {6, {0, 1, 2, 3, 4, 6}},
                         {5, {0, 1, 2, 3, 4}},
                         {1, {AD_DIM_COUNTRY}},
                         {1, {AD_DIM_DEVICE}},
                         {3, {AD_DIM_DEVICE, AD_DIM_AD, AD_DIM_PUBLISHER}}},
        };

        (void)state;
        for (uint64_t seed = 40; seed < 43; seed++)
                check_run(&(struct run){.seed = seed,
                                        .groupings = &all,
                                        .events = 600,
                                        .cap = seed == 42 ? 10 : 0,
                                        .cut_permille = 200,
                                        .restore_permille = 500});
}

/* The same cuts with and without restores give the same payloads, byte for byte. */
static void test_a_restore_changes_no_byte_of_the_rows(void **state)
{
        (void)state;
        for (uint64_t seed = 50; seed < 54; seed++) {
                struct run run = {.seed = seed, .events = 800, .cap = 20, .cut_permille = 250};
                struct recount oa, ob;
                struct rig a, b;

                run_init(&a, &oa, &run);
                run_events(&a, &oa, &run);
                drain(&a, &oa);
                run.restore_permille = 1000;
                run_init(&b, &ob, &run);
                run_events(&b, &ob, &run);
                drain(&b, &ob);
                assert_int_equal(a.cuts, b.cuts);
                assert_int_equal(a.payload_bytes, b.payload_bytes);
                assert_int_equal(a.rows, b.rows);
                assert_true(df_hash128_eq(a.digest, b.digest));
                recount_release(&oa);
                recount_release(&ob);
                rig_release(&a);
                rig_release(&b);
        }
}

/* ---- single rules ---- */

static struct ad_event simple(int64_t event_ms)
{
        return (struct ad_event){
                .type = AD_CLICK,
                .tenant_id = df_bytes_str("acme"),
                .dims = {df_bytes_str("a"), df_bytes_str("c"), df_bytes_str("ad")},
                .currency = df_bytes_str("EUR"),
                .event_ms = event_ms,
                .receive_ms = event_ms,
                .cost_nanos = 7,
        };
}

static void feed(struct rig *r, struct ad_event ev)
{
        r->append_ms = ev.receive_ms;
        rig_feed(r, &ev, 1);
}

static const struct ad_cell *row_of(struct rig *r, uint32_t grouping, int64_t ms, const char *tenant,
                                    const char *dims, const char *currency)
{
        char key[KEY_TEXT_MAX];
        struct entry *e;

        (void)snprintf(key, sizeof(key), "%012lld|%u|%s\x01%s\x01%s", (long long)(ms / MINUTE_MS),
                       grouping, tenant, dims, currency);
        e = map_get(&r->view, key);
        return e ? &e->cell : NULL;
}

static void begin(struct rig *r)
{
        rig_init(r);
        rig_start(r);
}

/* W2: grouping 0 at each cut; the others once the watermark passes the window's end, then as
 * revisions, which are absolute (W3). */
static void test_when_rows_leave(void **state)
{
        const struct ad_cell *c;
        struct rig r;

        (void)state;
        begin(&r);
        feed(&r, simple(BASE_MS + 1000));
        assert_false(rig_cut(&r));
        assert_int_equal(r.rows, 1);
        assert_int_equal(row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                                        "c",
                                "EUR")
                                 ->clicks,
                         1);
        assert_false(rig_cut(&r)); /* nothing new */
        assert_int_equal(r.rows, 1);

        feed(&r, simple(BASE_MS + MINUTE_MS + 4999)); /* watermark one ms short of the end */
        rig_cut(&r);
        assert_int_equal(r.rows, 2);
        assert_null(row_of(&r, 2, BASE_MS, "acme", "a\x01"
                                                   "c\x01\x01",
                           "EUR"));
        feed(&r, simple(BASE_MS + MINUTE_MS + 5000));
        rig_cut(&r);
        assert_int_equal(r.rows, 5); /* the two others of the first window, grouping 0 of the second */
        feed(&r, simple(BASE_MS + 2000)); /* a revision of the first window */
        rig_cut(&r);
        assert_int_equal(r.rows, 8);
        c = row_of(&r, 2, BASE_MS, "acme", "a\x01"
                                           "c\x01\x01",
                   "EUR");
        assert_non_null(c);
        assert_int_equal(c->clicks, 2);
        assert_true(c->spend == 14);
        rig_release(&r);
}

/* An event counts once, in the cell of its currency; a value in another currency goes there alone. */
static void test_currencies_are_never_added(void **state)
{
        struct ad_event ev = simple(BASE_MS);
        const struct ad_cell *c;
        struct rig r;

        (void)state;
        begin(&r);
        ev.type = AD_CONVERSION;
        ev.payout_nanos = 3;
        ev.value_nanos = 11;
        ev.value_currency = df_bytes_str("USD");
        feed(&r, ev);
        ev.value_currency = df_bytes_str("EUR");
        feed(&r, ev);
        ev.currency = df_bytes_str("");
        ev.cost_nanos = ev.payout_nanos = 0;
        ev.value_currency = df_bytes_str("USD");
        feed(&r, ev);
        ev.value_nanos = 0;
        ev.value_currency = df_bytes_str("JPY"); /* no amount, no cell */
        feed(&r, ev);
        rig_cut(&r);
        assert_int_equal(r.rows, 3);
        c = row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                           "c",
                   "EUR");
        assert_int_equal(c->conversions, 2);
        assert_true(c->spend == 14 && c->payout == 6 && c->value == 11);
        c = row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                           "c",
                   "USD");
        assert_int_equal(c->conversions, 0);
        assert_true(c->spend == 0 && c->value == 22);
        c = row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                           "c",
                   "XXX");
        assert_int_equal(c->conversions, 2);
        assert_true(c->value == 0);
        rig_release(&r);
}

/* Bots and tests count as invalid, by type, and bring no money. */
static void test_labelled_events_are_counted_apart(void **state)
{
        struct ad_event ev = simple(BASE_MS);
        const struct ad_cell *c;
        struct rig r;

        (void)state;
        begin(&r);
        for (uint32_t label = 0; label <= 4; label++) /* 4 is neither of the two */
                for (ev.type = AD_IMPRESSION; ev.type <= AD_CONVERSION; ev.type++) {
                        ev.labels = label;
                        ev.value_nanos = 5;
                        ev.value_currency = df_bytes_str("USD");
                        feed(&r, ev);
                }
        rig_cut(&r);
        c = row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                           "c",
                   "EUR");
        for (int i = 0; i < 3; i++)
                assert_int_equal(c->invalid[i], 3);
        assert_int_equal(c->impressions, 2);
        assert_int_equal(c->clicks, 2);
        assert_int_equal(c->conversions, 2);
        assert_true(c->spend == 6 * 7);
        assert_true(row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                                   "c",
                           "USD")
                            ->value == 30);
        assert_int_equal(r.outcomes[AD_COUNTED], 15);
        rig_release(&r);
}

/* W7, spelled out: the third campaign folds, in each currency; one called __other__ is no key. */
static void test_a_key_beyond_the_cap_is_other(void **state)
{
        static const char *const names[] = {AD_OTHER, "c1", "c2", "c3", "c1"};
        const struct ad_cell *c;
        struct rig r;

        (void)state;
        rig_init(&r);
        r.params.cell_cap = 2;
        rig_start(&r);
        for (int i = 0; i < 5; i++) {
                struct ad_event ev = simple(BASE_MS);

                ev.dims[AD_DIM_CAMPAIGN] = df_bytes_str(names[i]);
                if (i == 0)
                        ev.dims[AD_DIM_ADVERTISER] = df_bytes_str(AD_OTHER);
                feed(&r, ev);
                ev.tenant_id = df_bytes_str("globex"); /* has a cap of its own */
                if (i < 2)
                        feed(&r, ev);
        }
        rig_cut(&r);
        c = row_of(&r, 0, BASE_MS, "acme",
                   AD_OTHER "\x01" AD_OTHER, "EUR");
        assert_int_equal(c->clicks, 2); /* its own and c3's */
        c = row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                           "c1",
                   "EUR");
        assert_int_equal(c->clicks, 2);
        assert_non_null(row_of(&r, 0, BASE_MS, "globex", "a\x01"
                                                         "c1",
                               "EUR"));
        assert_null(row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                                   "c3",
                           "EUR"));
        rig_release(&r);
}

/* K12: news when there are rows to send, when a window's end lets the others leave, and when it
 * turns final; silence otherwise. */
static void test_news(void **state)
{
        struct rig r;

        (void)state;
        begin(&r);
        assert_false(df_task_has_news(r.task));
        rig_heartbeat(&r, BASE_MS);
        assert_false(df_task_has_news(r.task));
        feed(&r, simple(BASE_MS + 1000));
        assert_true(df_task_has_news(r.task));
        rig_cut(&r);
        for (int restored = 0; restored < 2; restored++) {
                assert_false(df_task_has_news(r.task));
                rig_heartbeat(&r, BASE_MS + MINUTE_MS + 4999);
                assert_false(df_task_has_news(r.task));
                rig_cut(&r);
                rig_restore(&r);
        }
        rig_heartbeat(&r, BASE_MS + MINUTE_MS + 5000);
        assert_true(df_task_has_news(r.task)); /* the other groupings */
        rig_cut(&r);
        rig_restore(&r);
        assert_false(df_task_has_news(r.task));
        rig_heartbeat(&r, BASE_MS + 2 * MINUTE_MS + 4999);
        assert_false(df_task_has_news(r.task));
        rig_heartbeat(&r, BASE_MS + 2 * MINUTE_MS + 5000);
        assert_true(df_task_has_news(r.task)); /* final */
        rig_cut(&r);
        assert_int_equal(r.final_through_ms, BASE_MS + MINUTE_MS);
        assert_false(df_task_has_news(r.task));
        rig_release(&r);
}

/* K6, W4: more rows than an outbox holds leave in several checkpoints; final_through waits before
 * the first window with unsent rows; a restore in between loses and repeats nothing. */
static void test_what_does_not_fit_waits_and_holds_final_through(void **state)
{
        static const struct ad_groupings one = {
                .count = 2,
                .list = {{2, {0, 1}}, {7, {0, 1, 2, 3, 4, 5, 6}}},
        };
        enum { MINUTES = 4, KEYS = 36000, RECORD = 100 };
        static struct ad_event events[RECORD];
        static char names[RECORD][AD_ID_MAX + 1];
        uint64_t payload = 0;
        int drains = 0;
        struct rig r;

        (void)state;
        rig_init(&r);
        r.params.groupings = &one;
        r.params.cell_cap = 1000000;
        rig_start(&r);
        for (uint32_t i = 0; i < MINUTES * KEYS; i++) {
                struct ad_event *ev = &events[i % RECORD];

                *ev = simple(BASE_MS + (int64_t)(i / KEYS) * MINUTE_MS);
                (void)snprintf(names[i % RECORD], AD_ID_MAX + 1, "%08u%.56s", i % KEYS, long_id);
                for (int d = 0; d < AD_DIM_COUNT; d++)
                        ev->dims[d] = df_bytes_str(d < 2 ? "x" : names[i % RECORD]);
                r.append_ms = ev->receive_ms;
                if (i % RECORD == RECORD - 1)
                        rig_feed(&r, events, RECORD);
        }
        rig_heartbeat(&r, BASE_MS + 3600000);
        while (rig_cut(&r)) {
                size_t whole = 0;

                assert_true(r.payload_bytes - payload <= DF_OUTBOX_MAX);
                assert_true(r.payload_bytes - payload > DF_OUTBOX_MAX - 65536);
                payload = r.payload_bytes;
                drains++;
                /* Windows before the hold have all of their rows. */
                assert_int_equal((r.final_through_ms - BASE_MS) % MINUTE_MS, 0);
                for (size_t i = 0; i < r.view.size; i++)
                        for (struct entry *e = r.view.heads[i]; e; e = e->next)
                                whole += end_of(e->minute) <= r.final_through_ms;
                assert_int_equal(whole, (KEYS + 1) * (r.final_through_ms - BASE_MS) / MINUTE_MS);
                assert_true(r.final_through_ms < BASE_MS + MINUTES * MINUTE_MS);
                rig_restore(&r);
        }
        assert_true(drains >= 1);
        assert_int_equal(r.rows, MINUTES * (KEYS + 1)); /* each once */
        assert_int_equal(r.view.count, r.rows);
        assert_int_equal(r.final_through_ms, BASE_MS + 3600000 - 5000 - 60000);
        rig_release(&r);
}

/* R6: an import keeps every window open until its end; then all leave, in order, and go. */
static void test_an_import_of_a_year_of_minutes(void **state)
{
        enum { STEP = 5, WINDOWS = 365 * 1440 / STEP, RECORD = 365 };
        static struct ad_event events[RECORD];
        struct ad_batch end = {.schema_version = 1, .has_import_end = true, .import_end = {7, 1, 0}};
        struct df_buf b = {0};
        size_t stored[2], used;
        struct df_record rec;
        struct rig r;

        (void)state;
        rig_init(&r);
        map_release(&r.view);
        map_init(&r.view, 1 << 19);
        r.config.rules.bounded = true;
        r.config.control = ad_control;
        rig_start(&r);
        for (uint32_t i = 0; i < WINDOWS; i++) {
                uint32_t day = i % RECORD, place = i / RECORD; /* not in order of time */

                events[day] = simple(BASE_MS + (int64_t)day * 86400000 +
                                     (int64_t)place * STEP * MINUTE_MS);
                if (day == RECORD - 1)
                        rig_feed(&r, events, RECORD);
                if (i % 20000 == 19999)
                        assert_false(rig_cut(&r));
                if (i % 50000 == 49999) {
                        assert_false(rig_cut(&r));
                        assert_int_equal(r.final_through_ms, DF_TIME_MIN);
                        rig_restore(&r);
                }
        }
        ad_wire_batch_header(&b, &end);
        rec = (struct df_record){.offset = r.offset, .value = df_buf_bytes(&b)};
        ok(df_task_process(r.task, &rec, 1, &used, err));
        while (rig_cut(&r))
                ;
        assert_int_equal(r.final_through_ms, DF_TIME_MAX);
        assert_int_equal(r.view.count, 3 * WINDOWS);
        assert_int_equal(r.rows, 3 * WINDOWS); /* each row once: grouping 0 as it came */
        rig_stored(&r, stored);
        assert_int_equal(stored[0], 0);
        df_buf_release(&b);
        rig_release(&r);
}

/* K1: hot cells at many cuts: the store holds a bounded multiple of what lives. */
static void test_deltas_are_written_together(void **state)
{
        enum { CELLS = 3000 };
        size_t stored[2], first = 0, most = 0, keys = 0;
        struct ad_event events[100];
        char names[100][16];
        struct rig r;

        (void)state;
        begin(&r);
        for (int cut = 0; cut < 40; cut++) {
                for (int i = 0; i < CELLS; i++) {
                        struct ad_event *ev = &events[i % 100];

                        *ev = simple(BASE_MS + cut * 100);
                        r.append_ms = ev->receive_ms;
                        (void)snprintf(names[i % 100], 16, "c%d", i);
                        ev->dims[AD_DIM_CAMPAIGN] = df_bytes_str(names[i % 100]);
                        if (i % 100 == 99)
                                rig_feed(&r, events, 100);
                }
                rig_cut(&r);
                rig_stored(&r, stored);
                if (cut == 0)
                        first = stored[1];
                most = stored[1] > most ? stored[1] : most;
                keys = stored[0] > keys ? stored[0] : keys;
                if (cut % 10 == 9)
                        rig_restore(&r);
        }
        assert_true(most > first * 2);
        assert_true(most < first * 4);
        assert_true(keys < most / 30000 + 10); /* blobs, not cells */
        assert_int_equal(r.view.count, CELLS);
        rig_heartbeat(&r, BASE_MS + 3600000);
        rig_cut(&r);
        assert_int_equal(r.view.count, CELLS * 3);
        for (size_t i = 0; i < r.view.size; i++)
                for (struct entry *e = r.view.heads[i]; e; e = e->next)
                        assert_int_equal(e->cell.clicks, 40);
        rig_stored(&r, stored);
        assert_int_equal(stored[0], 0);
        rig_release(&r);
}

/* ---- state from elsewhere ---- */

static struct df_bytes state_key(uint8_t key[14], int64_t ms, uint32_t number)
{
        uint64_t minute = (uint64_t)ms / MINUTE_MS;

        key[0] = TUMBLE_NS;
        key[1] = 'w';
        for (int i = 0; i < 8; i++)
                key[2 + i] = (uint8_t)(minute >> 8 * (7 - i));
        for (int i = 0; i < 4; i++)
                key[10 + i] = (uint8_t)(number >> 8 * (3 - i));
        return df_bytes(key, 14);
}

/* A sent cell of (acme, a, c) in grouping 0, as tumble_state.c describes it, with this spend. */
static void put_blob(struct rig *r, int64_t ms, df_nanos spend, size_t cut_off)
{
        struct df_buf b = {0};
        uint8_t key[14];

        df_put_u8(&b, 1);
        df_put_u8(&b, 0);
        df_buf_append(&b, "EUR", 3);
        for (int i = 0; i < 3; i++) {
                df_put_varint(&b, 0);
                df_put_lstr(&b, df_bytes_str(i == 0 ? "acme" : i == 1 ? "a" : "c"));
        }
        df_put_u8(&b, 0x42);
        df_put_u8(&b, 0x02);
        df_put_varint(&b, 5);
        df_put_u64le(&b, (uint64_t)spend);
        df_put_u64le(&b, (uint64_t)(spend >> 64));
        ok(df_buf_check(&b, err));
        df_store_put(r->store, state_key(key, ms, 0), df_bytes(b.data, b.len - cut_off));
        ok(df_store_commit(r->store, err));
        df_buf_release(&b);
}

/* A sum that would leave 128 bits: the event is quarantined and counted in no cell at all. */
static void test_overflow_counts_nowhere(void **state)
{
        const df_nanos most = (df_nanos)(~(unsigned __int128)0 >> 1);
        struct ad_event ev = simple(BASE_MS);
        const struct ad_cell *c;
        struct rig r;

        (void)state;
        begin(&r);
        rig_cut(&r);
        put_blob(&r, BASE_MS, most - 10, 0);
        rig_restore(&r);
        feed(&r, ev); /* + 7 */
        feed(&r, ev); /* would be 4 too much */
        ev.cost_nanos = 3;
        feed(&r, ev); /* the largest sum there is */
        ev.cost_nanos = 0;
        ev.payout_nanos = 1;
        feed(&r, ev);
        ev.cost_nanos = 1;
        feed(&r, ev);
        rig_heartbeat(&r, BASE_MS + 3600000);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_COUNTED], 3);
        assert_int_equal(r.outcomes[AD_OVERFLOW], 2);
        c = row_of(&r, 0, BASE_MS, "acme", "a\x01"
                                           "c",
                   "EUR");
        assert_int_equal(c->clicks, 8);
        assert_true(c->spend == most && c->payout == 1);
        c = row_of(&r, 2, BASE_MS, "acme", "a\x01"
                                           "c\x01\x01",
                   "EUR");
        assert_int_equal(c->clicks, 3); /* not in this one either */
        assert_true(c->spend == 10);
        rig_release(&r);
}

/* A blob cut short at every byte is refused by name, or is a whole one. */
static void test_damaged_state_is_refused(void **state)
{
        struct rig r;

        (void)state;
        for (size_t cut_off = 1; cut_off <= 33; cut_off++) {
                struct df_error e = {0};
                int rc;

                begin(&r);
                rig_cut(&r);
                put_blob(&r, BASE_MS, (df_nanos)1 << 100, cut_off);
                df_task_destroy(r.task);
                rc = df_task_create(&r.config, r.store, &r.task, &e);
                if (cut_off == 33) { /* the flag alone: no cells */
                        assert_int_equal(rc, 0);
                } else {
                        assert_int_equal(rc, DF_ECORRUPT);
                        assert_non_null(strstr(e.text, "blob 0 of minute 28333333"));
                        r.task = NULL;
                }
                rig_release(&r);
        }
}

/* K10: a task rebuilt from the log sends every row that lives, though it counted them before. */
static void test_a_rebuilt_task_sends_every_live_row_again(void **state)
{
        struct df_seal seal = {.parent_k = 4, .to_offset = 2, .watermark_ms = BASE_MS + MINUTE_MS};
        struct df_clock clock;
        struct rig r;

        (void)state;
        begin(&r);
        df_clock_init(&clock);
        df_task_suppress(r.task, 5, &seal, &clock, 0);
        feed(&r, simple(BASE_MS));
        feed(&r, simple(BASE_MS + MINUTE_MS + 6000));
        assert_false(df_task_suppressed(r.task));
        rig_cut(&r);
        assert_int_equal(df_task_k(r.task), 6);
        assert_int_equal(r.view.count, 4);
        rig_cut(&r);
        assert_int_equal(r.rows, 4); /* once */
        rig_release(&r);
}

static void refuse(struct ad_params *p, const struct ad_groupings *g, const char *part)
{
        struct df_error e = {0};
        struct rig r;

        rig_init(&r);
        if (p)
                r.params = *p;
        r.params.groupings = g;
        r.config.params = &r.params;
        r.store = df_sim_store_create(NULL);
        assert_int_equal(df_task_create(&r.config, r.store, &r.task, &e), DF_EINVAL);
        assert_non_null(strstr(e.text, part));
        r.task = NULL;
        rig_release(&r);
}

static void test_impossible_parameters_are_refused(void **state)
{
        struct ad_groupings g = ad_groupings_default;
        struct ad_params p = {.cell_cap = 0};

        (void)state;
        refuse(&p, &ad_groupings_default, "cap of 0");
        p = (struct ad_params){.cell_cap = 1, .grace_ms = -1};
        refuse(&p, &ad_groupings_default, "grace");
        refuse(NULL, NULL, "groupings");
        g.count = AD_GROUPINGS_MAX + 1;
        refuse(NULL, &g, "1 to 8 groupings");
        g.count = 0;
        refuse(NULL, &g, "1 to 8 groupings");
        g = ad_groupings_default;
        g.list[0].dims[1] = AD_DIM_AD;
        refuse(NULL, &g, "W2");
        g = ad_groupings_default;
        g.list[1].dims[0] = AD_DIM_COUNT;
        refuse(NULL, &g, "grouping 1");
        g = ad_groupings_default;
        g.list[2].dims[1] = g.list[2].dims[0];
        refuse(NULL, &g, "grouping 2");
        g.list[2].dim_count = AD_DIM_COUNT + 1;
        refuse(NULL, &g, "grouping 2");
}

/* An import's times are not judged: those that are no window are quarantined, in log order. */
static void test_times_without_a_window_are_quarantined(void **state)
{
        struct ad_event events[3];
        struct rig r;

        (void)state;
        rig_init(&r);
        r.config.rules.bounded = true;
        rig_start(&r);
        events[0] = simple(-1);
        events[1] = simple(((int64_t)1 << 32) * MINUTE_MS);
        events[2] = simple(((int64_t)1 << 32) * MINUTE_MS - 1);
        rig_feed(&r, events, 3);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_INVALID], 2);
        assert_int_equal(r.outcomes[AD_COUNTED], 1);
        assert_int_equal(r.view.count, 1);
        rig_release(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows_equal_the_recount_for_any_cuts_and_restores),
                cmocka_unit_test(test_one_cut_at_the_end_gives_the_same_rows),
                cmocka_unit_test(test_the_cap_folds_the_same_keys_after_any_restore),
                cmocka_unit_test(test_every_shape_of_grouping_counts),
                cmocka_unit_test(test_a_restore_changes_no_byte_of_the_rows),
                cmocka_unit_test(test_when_rows_leave),
                cmocka_unit_test(test_currencies_are_never_added),
                cmocka_unit_test(test_labelled_events_are_counted_apart),
                cmocka_unit_test(test_a_key_beyond_the_cap_is_other),
                cmocka_unit_test(test_news),
                cmocka_unit_test(test_what_does_not_fit_waits_and_holds_final_through),
                cmocka_unit_test(test_an_import_of_a_year_of_minutes),
                cmocka_unit_test(test_deltas_are_written_together),
                cmocka_unit_test(test_overflow_counts_nowhere),
                cmocka_unit_test(test_damaged_state_is_refused),
                cmocka_unit_test(test_a_rebuilt_task_sends_every_live_row_again),
                cmocka_unit_test(test_impossible_parameters_are_refused),
                cmocka_unit_test(test_times_without_a_window_are_quarantined),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
