/* bill_test.h - random events with their prices, and rows of a reconcile run as sums by cell and
 * cause, to compare with a recount. */
#ifndef ADTALLY_TESTS_BILL_TEST_H
#define ADTALLY_TESTS_BILL_TEST_H

#include "proto/bill.h"
#include "tests/unit/operators_test.h"

#define CELLS_MAX 20000

/* ---- price tables and names of random events ---- */

#define STR(s)                                                                                     \
        {                                                                                          \
                (const uint8_t *)(s), sizeof(s) - 1                                                \
        }
static const struct ad_price first_lines[] = {
        {.campaign_id = STR("c0"),
         .model = AD_CPC,
         .price_nanos = 30000000,
         .currency = STR("EUR")},
        {.campaign_id = STR("c1"), .model = AD_CPM, .price_nanos = 5000000, .currency = STR("EUR")},
};
/* The bill's: c0 costs more, c2 has a price at all. */
static const struct ad_price second_lines[] = {
        {.campaign_id = STR("c0"),
         .model = AD_CPC,
         .price_nanos = 31000000,
         .currency = STR("EUR")},
        {.campaign_id = STR("c1"), .model = AD_CPM, .price_nanos = 5000000, .currency = STR("EUR")},
        {.campaign_id = STR("c2"), .model = AD_CPA, .price_nanos = 7000000, .currency = STR("USD")},
};
static const struct ad_price_table tables[] = {{1, first_lines, 2}, {2, second_lines, 3}};

static inline const struct ad_price_table *find_table(void *arg, uint32_t version)
{
        (void)arg;
        return version == 1 || version == 2 ? &tables[version - 1] : NULL;
}

static inline struct df_bytes pick(struct df_sim_random *x, struct rig *r, const char *kind,
                                   uint64_t n)
{
        char name[32];
        int len = snprintf(name, sizeof(name), "%s%llu", kind,
                           (unsigned long long)df_sim_random_below(x, n));

        return df_arena_copy(&r->memory, df_bytes(name, (size_t)len));
}

static inline bool same(struct df_bytes a, struct df_bytes b)
{
        return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* ---- sums ---- */
struct cell {
        uint64_t quarter;
        char tenant[16], advertiser[16], campaign[16], publisher[16], currency[4];
        uint32_t cause;
        struct ad_cell billed, realtime;
};
struct sums {
        struct cell list[CELLS_MAX];
        size_t count;
};

static inline bool same_cell(const struct cell *a, const struct cell *b)
{
        return a->quarter == b->quarter && a->cause == b->cause &&
               strcmp(a->campaign, b->campaign) == 0 && strcmp(a->publisher, b->publisher) == 0 &&
               strcmp(a->currency, b->currency) == 0 && strcmp(a->tenant, b->tenant) == 0 &&
               strcmp(a->advertiser, b->advertiser) == 0;
}

/* The cell in which ev counts, for the money of this currency. */
static inline struct cell *cell_of(struct sums *s, uint64_t quarter, const struct ad_event *ev,
                                   struct df_bytes currency, uint32_t cause)
{
        struct cell c = {.quarter = quarter, .cause = cause};

        rig_copy(c.tenant, sizeof(c.tenant), ev->tenant_id);
        rig_copy(c.advertiser, sizeof(c.advertiser), ev->dims[AD_DIM_ADVERTISER]);
        rig_copy(c.campaign, sizeof(c.campaign), ev->dims[AD_DIM_CAMPAIGN]);
        rig_copy(c.publisher, sizeof(c.publisher), ev->dims[AD_DIM_PUBLISHER]);
        rig_copy(c.currency, sizeof(c.currency), currency.len ? currency : df_bytes_str("XXX"));
        for (size_t i = 0; i < s->count; i++)
                if (same_cell(&s->list[i], &c))
                        return &s->list[i];
        assert_true(s->count < CELLS_MAX);
        s->list[s->count] = c;
        return &s->list[s->count++];
}

static inline int by_key(const void *x, const void *y)
{
        const struct cell *a = x, *b = y;
        int c = (a->quarter > b->quarter) - (a->quarter < b->quarter);

        c = c ? c : strcmp(a->tenant, b->tenant);
        c = c ? c : strcmp(a->advertiser, b->advertiser);
        c = c ? c : strcmp(a->campaign, b->campaign);
        c = c ? c : strcmp(a->publisher, b->publisher);
        c = c ? c : strcmp(a->currency, b->currency);
        return c ? c : (int)a->cause - (int)b->cause;
}

static inline int add_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct ad_event ev = {.tenant_id = row->tenant_id,
                              .dims = {[AD_DIM_ADVERTISER] = row->advertiser_id,
                                       [AD_DIM_CAMPAIGN] = row->campaign_id,
                                       [AD_DIM_PUBLISHER] = row->publisher_id}};
        struct cell *c = cell_of(arg, row->quarter, &ev, row->currency, row->cause);

        (void)err;
        assert_true(ad_cell_add(&c->billed, &row->billed));
        assert_true(ad_cell_add(&c->realtime, &row->realtime));
        return 0;
}

static inline void read_sums(struct rig *r, struct sums *ret)
{
        struct df_reader reader = df_reader(df_buf_bytes(&r->emitted[AD_OUT_BILL]));
        struct df_error err = {0};

        ret->count = 0;
        while (df_reader_left(&reader) > 0)
                if (ad_wire_bill_decode(df_get_bytes(&reader, df_get_u32le(&reader)), add_row, ret,
                                        &err) < 0)
                        fail_msg("%s", err.text);
        qsort(ret->list, ret->count, sizeof(ret->list[0]), by_key);
}

static inline void print_cell(const char *what, const struct sums *s, size_t at)
{
        const struct cell *c = &s->list[at];

        if (at >= s->count)
                return;
        fprintf(stderr, "%s: %llu %s %s %s %s %s %s", what, (unsigned long long)c->quarter,
                c->tenant, c->advertiser, c->campaign, c->publisher, c->currency,
                ad_cause_code(c->cause));
        for (int i = 0; i < 2; i++) {
                const struct ad_cell *v = i ? &c->realtime : &c->billed;

                fprintf(stderr, "; %s %llu %llu %llu, %llu %llu %llu, %lld %lld %lld",
                        i ? "realtime" : "billed", (unsigned long long)v->impressions,
                        (unsigned long long)v->clicks, (unsigned long long)v->conversions,
                        (unsigned long long)v->invalid[0], (unsigned long long)v->invalid[1],
                        (unsigned long long)v->invalid[2], (long long)v->spend,
                        (long long)v->payout, (long long)v->value);
        }
        fprintf(stderr, "\n");
}

/* want is sorted by_key. */
static inline void check_sums(struct rig *r, const struct sums *want, uint64_t seed,
                              const char *how)
{
        static struct sums got;

        read_sums(r, &got);
        for (size_t i = 0; i < want->count || i < got.count; i++) {
                if (i < want->count && i < got.count &&
                    memcmp(&got.list[i], &want->list[i], sizeof(struct cell)) == 0)
                        continue;
                print_cell("got", &got, i);
                print_cell("wanted", want, i);
                fail_msg("seed %llu, %s: cell %zu of %zu, wanted %zu", (unsigned long long)seed,
                         how, i, got.count, want->count);
        }
}

#endif
