/* test_tumble.c - counting by the minute, against a naive recount (W1 to W4, W6, W7, K6, K10, K12).
 */
#include "unit.h"

#include "tumble_test.h"

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
        for (uint64_t seed = 1; seed <= 9; seed++)
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
        for (uint64_t seed = 50; seed < 58; seed++) {
                struct run run = {.seed = seed, .events = 800, .cap = 20, .cut_permille = 250};
                struct recount oa, ob;
                struct rig a, b;

                run_init(&a, &oa, &run);
                run_events(&a, &oa, &run);
                drain(&a, &oa);
                run.restore_permille = seed % 2 ? 1000 : 400;
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
        assert_int_equal(row_of(&r, 0, BASE_MS, "acme", "a|c", "EUR")->clicks, 1);
        assert_false(rig_cut(&r)); /* nothing new */
        assert_int_equal(r.rows, 1);

        feed(&r, simple(BASE_MS + MINUTE_MS + 4999)); /* watermark one ms short of the end */
        rig_cut(&r);
        assert_int_equal(r.rows, 2);
        assert_null(row_of(&r, 2, BASE_MS, "acme", "a|c||", "EUR"));
        feed(&r, simple(BASE_MS + MINUTE_MS + 5000));
        rig_cut(&r);
        assert_int_equal(r.rows,
                         5); /* the two others of the first window, grouping 0 of the second */
        rig_restore(&r);
        rig_cut(&r); /* what was sent is remembered as sent */
        assert_int_equal(r.rows, 5);
        feed(&r, simple(BASE_MS + 2000)); /* a revision of the first window */
        rig_cut(&r);
        assert_int_equal(r.rows, 8);
        c = row_of(&r, 2, BASE_MS, "acme", "a|c||", "EUR");
        assert_non_null(c);
        assert_int_equal(c->clicks, 2);
        assert_true(c->spend == 14);
        rig_release(&r);
}

/* An event counts once, in the cell of its currency; a value in another one goes there alone. */
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
        c = row_of(&r, 0, BASE_MS, "acme", "a|c", "EUR");
        assert_int_equal(c->conversions, 2);
        assert_true(c->spend == 14 && c->payout == 6 && c->value == 11);
        c = row_of(&r, 0, BASE_MS, "acme", "a|c", "USD");
        assert_int_equal(c->conversions, 0);
        assert_true(c->spend == 0 && c->value == 22);
        c = row_of(&r, 0, BASE_MS, "acme", "a|c", "XXX");
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
        c = row_of(&r, 0, BASE_MS, "acme", "a|c", "EUR");
        for (int i = 0; i < 3; i++)
                assert_int_equal(c->invalid[i], 3);
        assert_int_equal(c->impressions, 2);
        assert_int_equal(c->clicks, 2);
        assert_int_equal(c->conversions, 2);
        assert_true(c->spend == 6 * 7);
        assert_true(row_of(&r, 0, BASE_MS, "acme", "a|c", "USD")->value == 30);
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
        c = row_of(&r, 0, BASE_MS, "acme", AD_OTHER "|" AD_OTHER, "EUR");
        assert_int_equal(c->clicks, 2); /* its own and c3's */
        c = row_of(&r, 0, BASE_MS, "acme", "a|c1", "EUR");
        assert_int_equal(c->clicks, 2);
        assert_non_null(row_of(&r, 0, BASE_MS, "globex", "a|c1", "EUR"));
        assert_null(row_of(&r, 0, BASE_MS, "acme", "a|c3", "EUR"));
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

/* An import's times are not judged: those that are no window are quarantined. */
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
                cmocka_unit_test(test_impossible_parameters_are_refused),
                cmocka_unit_test(test_times_without_a_window_are_quarantined),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
