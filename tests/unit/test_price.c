/* test_price.c - what an event costs: client, versioned table, client_else_table (W6). */
#include "unit.h"

#include "tests/unit/operators_test.h"

#define UNIT 1000000000ll /* nanos */

static const struct df_operator_ops *const chain[] = {&ad_op_decode, &ad_op_price,
                                                      &ad_op_quarantine};

static struct df_bytes str(const char *s)
{
        return df_bytes_str(s);
}

struct tables { /* versions are places in the array + 1 */
        const struct ad_price_table *list;
        size_t count;
        uint32_t asked;
};

static const struct ad_price_table *find_table(void *arg, uint32_t version)
{
        struct tables *t = arg;

        t->asked++;
        return version >= 1 && version <= t->count ? &t->list[version - 1] : NULL;
}

static void open_with(struct rig *r, enum ad_pricing pricing, struct tables *t)
{
        rig_prepare(r, chain, 3);
        r->params.base.pricing = pricing;
        if (t) {
                r->params.base.price_table = find_table;
                r->params.base.price_arg = t;
        }
        rig_start(r);
}

/* An event without a price of its own, whose currency is the tenant's default. */
static struct ad_event unpriced(uint32_t type, int64_t event_ms)
{
        struct ad_event ev = rig_event("e", event_ms);

        ev.type = type;
        ev.cost_nanos = 0;
        ev.flags = AD_EV_CURRENCY_DEFAULTED;
        ev.dims[AD_DIM_AD] = str("ad1");
        return ev;
}

static const struct rig_event *last_seen(const struct rig *r)
{
        return &r->seen[r->seen_count - 1];
}

static const struct rig_event *price_one(struct rig *r, const struct ad_event *ev, uint32_t version)
{
        rig_log(r, &(struct ad_batch){.price_version = version}, ev, 1, RIG_T0);
        rig_run(r, 1);
        return last_seen(r);
}

/* cpm charges impressions, a thousandth each; cpc clicks; cpa conversions. */
static void test_models(void **state)
{
        const struct ad_price lines[] = {
                {.campaign_id = df_bytes_str("c1"),
                 .model = AD_CPM,
                 .price_nanos = 187400000000,
                 .currency = df_bytes_str("RUB")},
                {.campaign_id = df_bytes_str("c2"),
                 .model = AD_CPC,
                 .price_nanos = 250000000,
                 .currency = df_bytes_str("USD")},
                {.campaign_id = df_bytes_str("c3"),
                 .model = AD_CPA,
                 .price_nanos = 12 * UNIT,
                 .currency = df_bytes_str("EUR")},
        };
        const struct ad_price_table table = {1, lines, 3};
        struct tables t = {&table, 1, 0};
        static const struct {
                const char *campaign;
                uint32_t type;
                int64_t cost;
                const char *currency;
        } want[] = {
                {"c1", AD_IMPRESSION, 187400000, "RUB"}, /* 0.1874 of a unit: 187,400 micros */
                {"c1", AD_CLICK, 0, "RUB"},
                {"c1", AD_CONVERSION, 0, "RUB"},
                {"c2", AD_IMPRESSION, 0, "USD"},
                {"c2", AD_CLICK, 250000000, "USD"},
                {"c2", AD_CONVERSION, 0, "USD"},
                {"c3", AD_IMPRESSION, 0, "EUR"},
                {"c3", AD_CLICK, 0, "EUR"},
                {"c3", AD_CONVERSION, 12 * UNIT, "EUR"},
        };
        struct rig r;

        (void)state;
        open_with(&r, AD_PRICE_TABLE, &t);
        for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
                struct ad_event ev = unpriced(want[i].type, RIG_T0);
                const struct rig_event *got;

                ev.dims[AD_DIM_CAMPAIGN] = str(want[i].campaign);
                got = price_one(&r, &ev, 1);
                assert_int_equal(got->outcome, AD_NONE);
                assert_int_equal(got->cost_nanos, want[i].cost);
                assert_string_equal(got->currency, want[i].currency);
        }
        rig_close(&r);
}

/* 93 impressions at 187.4 for a thousand: 17,428,200 micros, as the real report says 17.43. */
static void test_real_log_sum(void **state)
{
        const struct ad_price line = {
                .model = AD_CPM, .price_nanos = 187400000000, .currency = df_bytes_str("RUB")};
        const struct ad_price_table table = {1, &line, 1};
        struct tables t = {&table, 1, 0};
        struct ad_event ev = unpriced(AD_IMPRESSION, RIG_T0);
        int64_t sum = 0;
        struct rig r;

        (void)state;
        open_with(&r, AD_PRICE_TABLE, &t);
        for (int i = 0; i < 93; i++)
                sum += price_one(&r, &ev, 1)->cost_nanos;
        assert_int_equal(sum, 17428200ll * 1000);
        rig_close(&r);
}

/* The most specific line wins, then the latest that is valid at event time. */
static void test_which_line(void **state)
{
        const struct ad_price lines[] = {
                {.model = AD_CPC, .price_nanos = 1, .currency = df_bytes_str("EUR")},
                {.tenant_id = df_bytes_str("t1"),
                 .model = AD_CPC,
                 .price_nanos = 2,
                 .currency = df_bytes_str("EUR"),
                 .valid_from_ms = RIG_T0},
                {.advertiser_id = df_bytes_str("a1"),
                 .campaign_id = df_bytes_str("c1"),
                 .model = AD_CPC,
                 .price_nanos = 3,
                 .currency = df_bytes_str("EUR"),
                 .valid_from_ms = RIG_T0 + 1000},
                {.advertiser_id = df_bytes_str("a1"),
                 .campaign_id = df_bytes_str("c1"),
                 .model = AD_CPC,
                 .price_nanos = 4,
                 .currency = df_bytes_str("EUR"),
                 .valid_from_ms = RIG_T0 + 2000},
                {.tenant_id = df_bytes_str("t1"),
                 .advertiser_id = df_bytes_str("a1"),
                 .campaign_id = df_bytes_str("c1"),
                 .ad_id = df_bytes_str("other"),
                 .model = AD_CPC,
                 .price_nanos = 5,
                 .currency = df_bytes_str("EUR")},
                {.tenant_id = df_bytes_str("t2"),
                 .advertiser_id = df_bytes_str("a1"),
                 .campaign_id = df_bytes_str("c1"),
                 .ad_id = df_bytes_str("ad1"),
                 .model = AD_CPC,
                 .price_nanos = 6,
                 .currency = df_bytes_str("EUR")},
                /* more specific, but it does not charge clicks */
                {.tenant_id = df_bytes_str("t1"),
                 .advertiser_id = df_bytes_str("a1"),
                 .campaign_id = df_bytes_str("c1"),
                 .ad_id = df_bytes_str("ad1"),
                 .model = AD_CPA,
                 .price_nanos = 7,
                 .currency = df_bytes_str("USD"),
                 .valid_from_ms = RIG_T0},
        };
        const struct ad_price_table table = {1, lines, 7};
        struct tables t = {&table, 1, 0};
        static const struct {
                int64_t at, cost;
        } want[] = {{-1, 1}, {0, 2}, {999, 2}, {1000, 3}, {1999, 3}, {2000, 4}, {99999, 4}};
        struct rig r;

        (void)state;
        open_with(&r, AD_PRICE_TABLE, &t);
        for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
                struct ad_event ev = unpriced(AD_CLICK, RIG_T0 + want[i].at);

                assert_int_equal(price_one(&r, &ev, 1)->cost_nanos, want[i].cost);
                assert_string_equal(last_seen(&r)->currency, "EUR"); /* the charging line\'s */
        }
        rig_close(&r);
}

/* A currency that the client stated is kept: only lines in it match. */
static void test_stated_currency(void **state)
{
        const struct ad_price lines[] = {
                {.model = AD_CPC, .price_nanos = 1, .currency = df_bytes_str("EUR")},
                {.campaign_id = df_bytes_str("c1"),
                 .model = AD_CPC,
                 .price_nanos = 2,
                 .currency = df_bytes_str("USD")},
        };
        const struct ad_price_table table = {1, lines, 2};
        struct tables t = {&table, 1, 0};
        struct ad_event ev = unpriced(AD_CLICK, RIG_T0);
        struct rig r;

        (void)state;
        open_with(&r, AD_PRICE_TABLE, &t);
        assert_int_equal(price_one(&r, &ev, 1)->cost_nanos, 2);
        assert_string_equal(last_seen(&r)->currency, "USD"); /* the default gave way */
        ev.flags = 0;
        assert_int_equal(price_one(&r, &ev, 1)->cost_nanos, 1);
        assert_string_equal(last_seen(&r)->currency, "EUR");
        ev.currency = str("");
        assert_int_equal(price_one(&r, &ev, 1)->cost_nanos, 2);
        assert_string_equal(last_seen(&r)->currency, "USD");
        ev.currency = str("GBP");
        assert_int_equal(price_one(&r, &ev, 1)->outcome, AD_PRICE_MISSING);
        rig_close(&r);
}

/* No line matches at all: quarantined, with its own code. */
static void test_price_missing(void **state)
{
        const struct ad_price line = {.campaign_id = df_bytes_str("c1"),
                                      .model = AD_CPC,
                                      .price_nanos = 5,
                                      .currency = df_bytes_str("EUR"),
                                      .valid_from_ms = RIG_T0};
        const struct ad_price_table tables[] = {{1, &line, 1}, {2, NULL, 0}};
        struct tables t = {tables, 2, 0};
        struct ad_event ev = unpriced(AD_CLICK, RIG_T0 - 1);
        struct ad_quarantined q;
        struct rig r;

        (void)state;
        open_with(&r, AD_PRICE_TABLE, &t);
        assert_int_equal(price_one(&r, &ev, 1)->outcome, AD_PRICE_MISSING);
        ev.event_ms = RIG_T0;
        assert_int_equal(price_one(&r, &ev, 1)->outcome, AD_NONE);
        assert_int_equal(price_one(&r, &ev, 2)->outcome, AD_PRICE_MISSING);
        ev.dims[AD_DIM_CAMPAIGN] = str("c2");
        assert_int_equal(price_one(&r, &ev, 1)->outcome, AD_PRICE_MISSING);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_PRICE_MISSING], 3);
        q = rig_quarantined(&r, 2);
        assert_int_equal(q.reason, AD_PRICE_MISSING);
        assert_int_equal(q.offset, 3);
        rig_close(&r);
}

/* W6: the record names its version; a version that cannot be loaded refuses the task by name. */
static void test_w6_versions(void **state)
{
        const struct ad_price old = {
                .model = AD_CPC, .price_nanos = 5, .currency = df_bytes_str("EUR")};
        const struct ad_price new = {
                .model = AD_CPC, .price_nanos = 9, .currency = df_bytes_str("EUR")};
        const struct ad_price_table tables[] = {{1, &old, 1}, {2, &new, 1}};
        struct tables t = {tables, 2, 0};
        struct ad_event ev = unpriced(AD_CLICK, RIG_T0);
        struct df_error err = {0};
        struct rig r;

        (void)state;
        open_with(&r, AD_PRICE_TABLE, &t);
        assert_int_equal(price_one(&r, &ev, 1)->cost_nanos, 5);
        assert_int_equal(price_one(&r, &ev, 2)->cost_nanos, 9);
        assert_int_equal(price_one(&r, &ev, 1)->cost_nanos, 5); /* ingests differ for a while */
        assert_int_equal(t.asked, 3);
        assert_int_equal(price_one(&r, &ev, 1)->cost_nanos, 5);
        assert_int_equal(t.asked, 3);
        rig_log(&r, &(struct ad_batch){.price_version = 3}, &ev, 1, RIG_T0);
        assert_int_equal(rig_try(&r, 1, &err), DF_ENOENT);
        assert_non_null(strstr(err.text, "price_version_missing"));
        assert_non_null(strstr(err.text, "version 3"));
        rig_close(&r);
}

static void test_client(void **state)
{
        struct ad_event ev = rig_event("e", RIG_T0);
        struct rig r;

        (void)state;
        open_with(&r, AD_PRICE_CLIENT, NULL);
        ev.cost_nanos = 77;
        assert_int_equal(price_one(&r, &ev, 9)->cost_nanos, 77);
        ev.flags = 0; /* stated nothing: costs nothing */
        ev.cost_nanos = 0;
        assert_int_equal(price_one(&r, &ev, 9)->cost_nanos, 0);
        assert_int_equal(last_seen(&r)->outcome, AD_NONE);
        rig_close(&r);
}

static void test_client_else_table(void **state)
{
        const struct ad_price line = {
                .model = AD_CPM, .price_nanos = 5000, .currency = df_bytes_str("USD")};
        const struct ad_price_table table = {1, &line, 1};
        struct tables t = {&table, 1, 0};
        struct ad_event stated = rig_event("e", RIG_T0),
                        not_stated = unpriced(AD_IMPRESSION, RIG_T0);
        struct rig r;

        (void)state;
        stated.cost_nanos = 77;
        open_with(&r, AD_PRICE_CLIENT_ELSE_TABLE, &t);
        assert_int_equal(price_one(&r, &stated, 1)->cost_nanos, 77);
        assert_string_equal(last_seen(&r)->currency, "EUR");
        assert_int_equal(price_one(&r, &stated, 99)->cost_nanos, 77); /* needs no table */
        assert_int_equal(price_one(&r, &not_stated, 1)->cost_nanos, 5);
        assert_string_equal(last_seen(&r)->currency, "USD");
        stated.cost_nanos = 0; /* free, and said so */
        assert_int_equal(price_one(&r, &stated, 1)->cost_nanos, 0);
        rig_close(&r);
        /* table alone: what the client states does not count */
        open_with(&r, AD_PRICE_TABLE, &t);
        stated.cost_nanos = 77;
        stated.flags |= AD_EV_CURRENCY_DEFAULTED;
        assert_int_equal(price_one(&r, &stated, 1)->cost_nanos, 5);
        stated.type = AD_CLICK; /* which cpm does not charge */
        assert_int_equal(price_one(&r, &stated, 1)->cost_nanos, 0);
        rig_close(&r);
}

static void test_table_needed(void **state)
{
        struct df_error err = {0};
        struct rig r;

        (void)state;
        rig_prepare(&r, chain, 3);
        r.params.base.pricing = AD_PRICE_CLIENT_ELSE_TABLE;
        assert_int_equal(rig_create(&r, &err), DF_EINVAL);
        rig_close(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_models),        cmocka_unit_test(test_real_log_sum),
                cmocka_unit_test(test_which_line),    cmocka_unit_test(test_stated_currency),
                cmocka_unit_test(test_price_missing), cmocka_unit_test(test_w6_versions),
                cmocka_unit_test(test_client),        cmocka_unit_test(test_client_else_table),
                cmocka_unit_test(test_table_needed),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
