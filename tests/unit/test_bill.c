/* test_bill.c - what the bill counts and why realtime differs (R2, R3, D4), by a naive recount:
 * every event is compared with every one before it. However the log is cut into batches and
 * checkpoints, and wherever a task is taken over, the sums are the same. */
#include "unit.h"

#include "tests/unit/bill_test.h"

#define EVENTS_MAX 4000
#define HORIZON 3  /* hours, realtime's */
#define BILLING 60 /* the bill's */
#define HOUR_MS 3600000

/* ---- the naive recount ---- */

static struct ad_event sent[EVENTS_MAX];
static size_t sent_count;

static bool passed_guard(const struct rig_event *e)
{
        return e->outcome == AD_COUNTED || e->outcome == AD_DUPLICATE ||
               e->outcome == AD_CONFLICT || e->outcome == AD_LATE || e->outcome == AD_PRICE_MISSING;
}

/* What the client stated, but for its times. */
static bool same_content(const struct ad_event *a, const struct ad_event *b)
{
        const uint32_t stated = AD_EV_HAS_COST | AD_EV_HAS_VALUE;

        for (int i = 0; i < AD_DIM_COUNT; i++)
                if (!same(a->dims[i], b->dims[i]))
                        return false;
        return a->type == b->type && (a->flags & stated) == (b->flags & stated) &&
               (!(a->flags & AD_EV_HAS_COST) || a->cost_nanos == b->cost_nanos) &&
               (!(a->flags & AD_EV_HAS_VALUE) || a->value_nanos == b->value_nanos) &&
               same(a->value_currency, b->value_currency) &&
               ((a->flags & AD_EV_CURRENCY_DEFAULTED) == (b->flags & AD_EV_CURRENCY_DEFAULTED)) &&
               (a->flags & AD_EV_CURRENCY_DEFAULTED || same(a->currency, b->currency));
}

/* The occurrence that decides about event i; -1: it is the first. */
static int decider(const struct rig *r, size_t i)
{
        int64_t hour = sent[i].receive_ms / HOUR_MS, best_hour = -1;
        int best = -1;

        for (size_t j = 0; j < i; j++) {
                int64_t h = sent[j].receive_ms / HOUR_MS;

                if (!passed_guard(&r->seen[j]) || !same(sent[j].event_id, sent[i].event_id) ||
                    h < hour - BILLING || h > hour + 1 || h < best_hour)
                        continue;
                best = (int)j;
                best_hour = h;
        }
        return best;
}

static void count(struct sums *s, const struct ad_event *ev, uint32_t cause, bool billed,
                  bool realtime)
{
        struct ad_cell v = {0}, value = {0};
        uint64_t quarter = (uint64_t)ev->event_ms / AD_QUARTER_MS;
        bool apart = ev->value_currency.len && !same(ev->value_currency, ev->currency);
        struct cell *c = cell_of(s, quarter, ev, ev->currency, cause);

        if (ev->labels) {
                v.invalid[ev->type - 1] = 1;
        } else {
                v.impressions = ev->type == AD_IMPRESSION;
                v.clicks = ev->type == AD_CLICK;
                v.conversions = ev->type == AD_CONVERSION;
                v.spend = ev->cost_nanos;
                value.value = ev->value_nanos;
        }
        if (!apart)
                v.value = value.value;
        if (billed)
                assert_true(ad_cell_add(&c->billed, &v));
        if (realtime)
                assert_true(ad_cell_add(&c->realtime, &v));
        if (!apart || value.value == 0)
                return;
        c = cell_of(s, quarter, ev, ev->value_currency, cause);
        if (billed)
                assert_true(ad_cell_add(&c->billed, &value));
        if (realtime)
                assert_true(ad_cell_add(&c->realtime, &value));
}

/* By hand, not by the operator: one price a campaign and type. False: none. */
static bool price_by_hand(int version, const struct ad_event *ev, struct ad_event *ret)
{
        char campaign = (char)ev->dims[AD_DIM_CAMPAIGN].data[1];

        *ret = *ev;
        if (ev->flags & AD_EV_HAS_COST)
                return true;
        if (campaign == '3' || (campaign == '2' && version == 1))
                return false;
        ret->cost_nanos = campaign == '0' && ev->type == AD_CLICK
                                  ? (version == 1 ? 30000000 : 31000000)
                          : campaign == '1' && ev->type == AD_IMPRESSION ? 5000
                          : campaign == '2' && ev->type == AD_CONVERSION ? 7000000
                                                                         : 0;
        ret->currency = campaign == '2' ? df_bytes_str("USD") : df_bytes_str("EUR");
        return true;
}

static void recount(struct rig *r, struct sums *ret, uint64_t by_cause[AD_CAUSE_COUNT])
{
        size_t n = 0;

        for (size_t i = 0; i < r->seen_count; i++) /* without the marks of records */
                if (r->seen[i].outcome != AD_SKIP)
                        r->seen[n++] = r->seen[i];
        r->seen_count = n;
        ret->count = 0;
        assert_int_equal(r->seen_count, sent_count);
        for (size_t i = 0; i < sent_count; i++) {
                const struct rig_event *e = &r->seen[i];
                struct ad_event at1, at2;
                bool counted = e->outcome == AD_COUNTED, has1, has2;
                uint32_t cause = AD_CAUSE_NONE;
                int d;

                if (!passed_guard(e))
                        continue;
                d = decider(r, i);
                has1 = price_by_hand(1, &sent[i], &at1);
                has2 = price_by_hand(2, &sent[i], &at2);
                if (d >= 0) {
                        cause = same_content(&sent[d], &sent[i]) ? AD_CAUSE_DUPLICATE
                                                                 : AD_CAUSE_CONFLICT;
                        if (counted)
                                count(ret, &at1, cause, false, true);
                        by_cause[cause] += counted;
                        continue;
                }
                assert_true(e->outcome != AD_DUPLICATE && e->outcome != AD_CONFLICT);
                if (counted && has1 && has2 && at1.cost_nanos == at2.cost_nanos) {
                        count(ret, &at1, AD_CAUSE_NONE, true, true);
                } else if (counted) {
                        cause = AD_CAUSE_PRICE;
                        count(ret, &at1, cause, false, true);
                        count(ret, &at2, cause, true, false);
                } else if (has2) {
                        cause = e->outcome == AD_LATE ? AD_CAUSE_LATE : AD_CAUSE_PRICE;
                        count(ret, &at2, cause, true, false);
                }
                by_cause[cause]++;
        }
        qsort(ret->list, ret->count, sizeof(ret->list[0]), by_key);
}

/* ---- a random log of three days ---- */

static struct ad_event random_event(struct df_sim_random *x, struct rig *r, int64_t now)
{
        struct ad_event ev = rig_event("", now);

        ev.event_id = pick(x, r, "id", 1500);
        ev.tenant_id = df_bytes_str("t1");
        ev.type = 1 + (uint32_t)df_sim_random_below(x, 3);
        /* Mostly of the id alone, so that copies are equal. */
        ev.dims[AD_DIM_CAMPAIGN] =
                df_sim_random_chance(x, 100)
                        ? pick(x, r, "c", 4)
                        : df_arena_copy(&r->memory, df_bytes(
                                                            (const uint8_t *)(const char *[]){
                                                                    "c0", "c1", "c2",
                                                                    "c3"}[ev.event_id.data[2] % 4],
                                                            2));
        ev.dims[AD_DIM_PUBLISHER] = df_bytes_str("p1");
        ev.type = 1 + ev.event_id.data[ev.event_id.len - 1] % 3u;
        ev.receive_ms = now;
        ev.event_ms = now - df_sim_random_between(x, 0, 9000);
        if (df_sim_random_chance(x, 50)) /* late */
                ev.event_ms = now - df_sim_random_between(x, 200000, 40000000);
        if (df_sim_random_chance(x, 10)) /* refused by guard */
                ev.event_ms = now + 4000000;
        ev.flags = 0;
        ev.cost_nanos = 0;
        ev.currency = (struct df_bytes){0};
        if (ev.event_id.data[ev.event_id.len - 1] % 4 == 0) {
                ev.flags |= AD_EV_HAS_COST;
                ev.cost_nanos = 123456789;
                ev.currency = df_bytes_str("EUR");
        }
        if (ev.type == AD_CONVERSION) {
                ev.flags |= AD_EV_HAS_VALUE;
                ev.value_nanos = 5000000001;
                ev.value_currency = df_bytes_str("GBP");
        }
        if (df_sim_random_chance(x, 30))
                ev.labels = AD_LABEL_BOT;
        ev.fingerprint = ad_event_fingerprint(&ev);
        return ev;
}

static void write_log(struct rig *r, uint64_t seed)
{
        struct ad_batch b = {.start_id = 5, .price_version = 1};
        struct df_sim_random x;
        int64_t now = RIG_T0;

        df_sim_random_init(&x, seed);
        sent_count = 0;
        while (sent_count < 1800) {
                size_t n = 1 + df_sim_random_below(&x, 12);

                now += df_sim_random_between(&x, 0, 2 * 600000);
                for (size_t j = 0; j < n; j++)
                        sent[sent_count + j] = random_event(&x, r, now);
                rig_log(r, &b, &sent[sent_count], n, now);
                b.first_seq += n;
                sent_count += n;
        }
}

static void open_rig(struct rig *r, uint64_t seed)
{
        rig_prepare(r, ad_chain_bill, ad_chain_bill_length);
        r->config.output_count = AD_OUT_BILL_COUNT;
        r->params.base.pricing = AD_PRICE_CLIENT_ELSE_TABLE;
        r->params.base.price_table = find_table;
        r->params.base.billing_price_version = 2;
        r->params.base.grace_ms = r->config.grace_ms = 120000;
        r->params.base.horizon_hours = HORIZON;
        r->params.base.billing_horizon_hours = BILLING;
        rig_start(r);
        write_log(r, seed);
}

static struct sums theirs;

/* Cut into checkpoints of `every` records, each taken over by another task when restart. */
static void run_cut(struct rig *r, uint64_t seed, size_t every, bool restart)
{
        struct df_error err = {0};

        open_rig(r, seed);
        while (df_task_position(r->task) < r->record_count) {
                size_t at = (size_t)df_task_position(r->task), used = 0;
                size_t n = r->record_count - at < every ? r->record_count - at : every;

                if (df_task_process(r->task, r->records + at, n, &used, &err) < 0)
                        fail_msg("seed %llu: %s", (unsigned long long)seed, err.text);
                rig_cut(r);
                if (restart)
                        rig_restart(r);
        }
}

static void test_a_naive_recount_agrees(void **state)
{
        uint64_t by_cause[AD_CAUSE_COUNT] = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= 12; seed++) {
                struct rig r;

                open_rig(&r, seed);
                rig_run(&r, 50);
                rig_cut(&r);
                recount(&r, &theirs, by_cause);
                check_sums(&r, &theirs, seed, "whole");
                rig_close(&r);
                run_cut(&r, seed, 7, false);
                check_sums(&r, &theirs, seed, "cut");
                rig_close(&r);
                run_cut(&r, seed, 31, true);
                check_sums(&r, &theirs, seed, "taken over");
                rig_close(&r);
        }
        /* The worlds hold each cause. */
        for (uint32_t c = AD_CAUSE_NONE; c <= AD_CAUSE_PRICE; c++)
                if (by_cause[c] < 50)
                        fail_msg("only %llu events of cause %s", (unsigned long long)by_cause[c],
                                 ad_cause_code(c));
        assert_int_equal(by_cause[AD_CAUSE_UNEXPLAINED], 0);
}

struct told {
        uint64_t rows, impressions;
};

static int tell_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct told *t = arg;

        (void)err;
        t->rows++;
        t->impressions += row->billed.impressions;
        return 0;
}

/* K6: more rows than an outbox holds: whoever takes over sends the rest, though no record comes. */
static void test_the_rest_leaves_after_a_takeover(void **state)
{
        enum { ROWS = 300000, RECORD = 100 };
        static struct ad_event events[RECORD];
        static char ids[RECORD][24], publishers[RECORD][AD_ID_MAX + 1];
        static char long_id[AD_ID_MAX + 1];
        struct df_error err = {0};
        struct told told = {0};
        struct df_reader reader;
        int cuts = 0;
        struct rig r;

        (void)state;
        memset(long_id, 'x', AD_ID_MAX);
        rig_prepare(&r, ad_chain_bill, ad_chain_bill_length);
        r.config.output_count = AD_OUT_BILL_COUNT;
        r.params.base.billing_horizon_hours = BILLING;
        r.params.base.dedupe_open_ids = ROWS;
        rig_start(&r);
        for (uint32_t i = 0; i < ROWS; i++) {
                struct ad_event *ev = &events[i % RECORD];

                (void)snprintf(ids[i % RECORD], sizeof(ids[0]), "e%u", i);
                (void)snprintf(publishers[i % RECORD], AD_ID_MAX + 1, "%08u%.56s", i, long_id);
                *ev = rig_event(ids[i % RECORD], RIG_T0);
                ev->tenant_id = df_bytes_str(long_id);
                ev->dims[AD_DIM_ADVERTISER] = ev->dims[AD_DIM_CAMPAIGN] = df_bytes_str(long_id);
                ev->dims[AD_DIM_PUBLISHER] = df_bytes_str(publishers[i % RECORD]);
                if (i % RECORD == RECORD - 1)
                        rig_log(&r, &(struct ad_batch){0}, events, RECORD, RIG_T0);
        }
        rig_run(&r, 50);
        do {
                rig_cut(&r);
                rig_restart(&r);
                cuts++;
        } while (df_task_wants_cut(r.task));
        reader = df_reader(df_buf_bytes(&r.emitted[AD_OUT_BILL]));
        while (df_reader_left(&reader) > 0)
                if (ad_wire_bill_decode(df_get_bytes(&reader, df_get_u32le(&reader)), tell_row,
                                        &told, &err) < 0)
                        fail_msg("%s", err.text);
        assert_true(cuts > 1);
        assert_int_equal(told.rows, ROWS);
        assert_int_equal(told.impressions, ROWS);
        rig_close(&r);
}

static void test_horizons_are_checked(void **state)
{
        struct df_error err = {0};
        struct rig r;

        (void)state;
        rig_prepare(&r, ad_chain_bill, ad_chain_bill_length);
        r.config.output_count = AD_OUT_BILL_COUNT;
        r.params.base.billing_horizon_hours = AD_DEDUPE_HORIZON_HOURS - 1;
        assert_int_equal(rig_create(&r, &err), DF_EINVAL);
        assert_non_null(strstr(err.text, "no less than realtime's"));
        r.params.base.billing_horizon_hours = AD_DEDUPE_HORIZON_HOURS;
        r.params.base.pricing = AD_PRICE_TABLE;
        r.params.base.price_table = find_table;
        r.params.base.billing_price_version = 3;
        assert_int_equal(rig_create(&r, &err), DF_ENOENT);
        assert_non_null(strstr(err.text, "version 3"));
        r.task = NULL;
        rig_close(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_naive_recount_agrees),
                cmocka_unit_test(test_the_rest_leaves_after_a_takeover),
                cmocka_unit_test(test_horizons_are_checked),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
