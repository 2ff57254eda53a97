/* test_rows.c - the lines an account was billed, against a naive recount: cells in an array, lines
 * by printf, as docs/BILLING.md says them (jobs/runs/rows.h). */
#include "unit.h"

#include <stdio.h>

#include "jobs/runs/rows.h"
#include "proto/bill.h"

#include "dice.h"

#define ROUNDS 150
#define ROWS 400

struct row {
        uint64_t quarter;
        const char *tenant, *advertiser, *campaign, *publisher, *currency;
        uint32_t cause;
        struct ad_cell billed;
};

static const char *const tenants[] = {"", "default", "t2"};
static const char *const advertisers[] = {"acme", "b\"c\\d", "zoo\xc3\xa9"};
static const char *const campaigns[] = {"", "c1", "c/2", "tab\there\x01\x7f"};
static const char *const publishers[] = {"", "p1"};
static const char *const currencies[] = {"EUR", "JPY", "USD"};

static int by_cell(const void *x, const void *y)
{
        const struct row *a = x, *b = y;
        int c = a->quarter < b->quarter ? -1 : a->quarter > b->quarter;

        c = c ? c : strcmp(a->tenant, b->tenant);
        c = c ? c : strcmp(a->advertiser, b->advertiser);
        c = c ? c : strcmp(a->campaign, b->campaign);
        c = c ? c : strcmp(a->publisher, b->publisher);
        c = c ? c : strcmp(a->currency, b->currency);
        return c ? c : (int)a->cause - (int)b->cause;
}

static void roll(struct row *rows, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                rows[i] = (struct row){1900000 + dice(12),   tenants[dice(3)],
                                       advertisers[dice(3)], campaigns[dice(4)],
                                       publishers[dice(2)],  currencies[dice(3)],
                                       (uint32_t)dice(8),    {0}};
                if (dice(4))
                        rows[i].billed =
                                (struct ad_cell){.impressions = dice(100),
                                                 .clicks = dice(3),
                                                 .invalid = {0, dice(2), 0},
                                                 .spend = (df_nanos)dice(1u << 30) << dice(70),
                                                 .payout = (df_nanos)dice(1000) - 500};
        }
        qsort(rows, n, sizeof(*rows), by_cell);
}

/* ---- the recount ---- */

static void put_string(struct df_buf *b, const char *name, const char *text)
{
        df_buf_printf(b, "\"%s\":\"", name);
        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;

                if (c == '"' || c == '\\')
                        df_buf_printf(b, "\\%c", c);
                else if (c == '\t')
                        df_buf_printf(b, "\\t");
                else if (c < ' ')
                        df_buf_printf(b, "\\u%04X", c);
                else
                        df_put_u8(b, c);
        }
        df_buf_printf(b, "\",");
}

static void put_number(struct df_buf *b, const char *name, df_nanos v)
{
        char text[DF_INT128_TEXT_MAX];

        (void)df_int128_text(v, text);
        df_buf_printf(b, "\"%s\":%s", name, text);
}

static void put_line(struct df_buf *b, const struct row *r, const struct ad_cell *c)
{
        time_t t = (time_t)(r->quarter * 900);
        char start[32];
        struct tm tm;

        (void)strftime(start, sizeof(start), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&t, &tm));
        df_buf_printf(b, "{");
        put_string(b, "window_start", start);
        put_string(b, "tenant_id", r->tenant);
        put_string(b, "advertiser_id", r->advertiser);
        put_string(b, "campaign_id", r->campaign);
        put_string(b, "publisher_id", r->publisher);
        put_string(b, "currency", r->currency);
        df_buf_printf(b, "\"impressions\":%" PRIu64 ",\"clicks\":%" PRIu64 ",\"conversions\":0,",
                      c->impressions, c->clicks);
        put_number(b, "spend_nanos", c->spend);
        df_buf_printf(b, ",");
        put_number(b, "payout_nanos", c->payout);
        df_buf_printf(b,
                      ",\"conversion_value_nanos\":0,\"invalid_impressions\":0,"
                      "\"invalid_clicks\":%" PRIu64 ",\"invalid_conversions\":0}\n",
                      c->invalid[1]);
}

static bool same_cell(const struct row *a, const struct row *b)
{
        struct row c = *b;

        c.cause = a->cause;
        return by_cell(a, &c) == 0;
}

static bool wanted(const struct row *r, const char *tenant, const char *advertiser, uint64_t from,
                   uint64_t to)
{
        return strcmp(r->tenant, tenant) == 0 && r->quarter >= from && r->quarter < to &&
               (!*advertiser || strcmp(r->advertiser, advertiser) == 0);
}

struct naive {
        struct df_buf text;
        uint64_t count;
        struct ad_cell totals[3];
        bool there[3];
};

static void recount(const struct row *rows, size_t n, const char *tenant, const char *advertiser,
                    uint64_t from, uint64_t to, struct naive *ret)
{
        *ret = (struct naive){0};
        for (size_t i = 0, j; i < n; i = j) {
                struct ad_cell c = {0};

                for (j = i; j < n && same_cell(&rows[i], &rows[j]); j++) {
                        c.impressions += rows[j].billed.impressions;
                        c.clicks += rows[j].billed.clicks;
                        c.invalid[1] += rows[j].billed.invalid[1];
                        c.spend += rows[j].billed.spend;
                        c.payout += rows[j].billed.payout;
                }
                if (!wanted(&rows[i], tenant, advertiser, from, to) ||
                    (!c.impressions && !c.clicks && !c.invalid[1] && !c.spend && !c.payout))
                        continue;
                put_line(&ret->text, &rows[i], &c);
                ret->count++;
                for (int k = 0; k < 3; k++)
                        if (strcmp(currencies[k], rows[i].currency) == 0) {
                                ret->there[k] = true;
                                ret->totals[k].impressions += c.impressions;
                                ret->totals[k].spend += c.spend;
                                ret->totals[k].payout += c.payout;
                        }
        }
}

static void compare(const struct ad_rows *r, const struct naive *want)
{
        uint8_t digest[DF_SHA256_SIZE];
        size_t t = 0;

        ok(df_sha256(df_buf_bytes(&want->text), digest, &err));
        if (r->count != want->count || memcmp(digest, r->digest, sizeof(digest)) != 0)
                fail_msg("seed %" PRIu64 ": %" PRIu64 " rows of another digest than %" PRIu64
                         " recounted ones",
                         dice_seed, r->count, want->count);
        for (int k = 0; k < 3; k++) {
                if (!want->there[k])
                        continue;
                if (t == r->total_count ||
                    !df_bytes_eq(r->totals[t].currency, df_bytes_str(currencies[k])) ||
                    r->totals[t].billed.spend != want->totals[k].spend ||
                    r->totals[t].billed.payout != want->totals[k].payout ||
                    r->totals[t].billed.impressions != want->totals[k].impressions)
                        fail_msg("seed %" PRIu64 ": the total of %s", dice_seed, currencies[k]);
                t++;
        }
        assert_int_equal(t, r->total_count);
}

static int add(struct ad_rows *r, const struct row *row)
{
        struct ad_bill_row b = {.quarter = row->quarter,
                                .tenant_id = df_bytes_str(row->tenant),
                                .advertiser_id = df_bytes_str(row->advertiser),
                                .campaign_id = df_bytes_str(row->campaign),
                                .publisher_id = df_bytes_str(row->publisher),
                                .currency = df_bytes_str(row->currency),
                                .cause = row->cause,
                                .billed = row->billed};

        return ad_rows_add(r, &b, &err);
}

static void test_rows_are_those_of_a_recount(void **state)
{
        static struct row rows[ROWS];
        struct ad_rows *r = calloc(1, sizeof(*r));

        (void)state;
        assert_non_null(r);
        for (int round = 0; round < ROUNDS; round++) {
                size_t n = dice(ROWS);
                const char *tenant = tenants[dice(3)];
                const char *advertiser = dice(2) ? "" : advertisers[dice(3)];
                uint64_t from = 1900000 + dice(8), to = from + dice(8);
                struct ad_account account = {df_bytes_str(tenant), df_bytes_str(advertiser)};
                struct naive want;

                roll(rows, n);
                recount(rows, n, tenant, advertiser, from, to, &want);
                ok(ad_rows_begin(r, &account, from, to, NULL, &err));
                for (size_t i = 0; i < n; i++)
                        ok(add(r, &rows[i]));
                ok(ad_rows_end(r, &err));
                compare(r, &want);
                ad_rows_release(r);
                df_buf_release(&want.text);
        }
        free(r);
}

static void test_limits(void **state)
{
        struct ad_account account = {df_bytes_str("t2"), df_bytes_str("")};
        struct row row = {.quarter = 1,
                          .tenant = "t2",
                          .advertiser = "a",
                          .campaign = "",
                          .publisher = "",
                          .currency = "EUR"};
        struct ad_rows *r = calloc(1, sizeof(*r));
        char currency[4];

        (void)state;
        assert_non_null(r);
        row.billed.spend = (df_nanos)(~(unsigned __int128)0 >> 1);
        ok(ad_rows_begin(r, &account, 0, 9, NULL, &err));
        ok(add(r, &row));
        fails(add(r, &row), DF_ELIMIT, "128 bits"); /* of one cell */
        ad_rows_release(r);
        ok(ad_rows_begin(r, &account, 0, 9, NULL, &err));
        ok(add(r, &row));
        row.campaign = "c";
        ok(add(r, &row));
        fails(ad_rows_end(r, &err), DF_ELIMIT, "128 bits"); /* of the total */
        ad_rows_release(r);
        ok(ad_rows_begin(r, &account, 0, 9, NULL, &err));
        row.billed.spend = 1;
        for (int i = 0; i <= AD_ROWS_CURRENCIES_MAX; i++) {
                (void)snprintf(currency, sizeof(currency), "%03d", i);
                row.currency = currency;
                ok(add(r, &row));
        }
        fails(ad_rows_end(r, &err), DF_ELIMIT, "more than 200 currencies");
        ad_rows_release(r);
        free(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows_are_those_of_a_recount),
                cmocka_unit_test(test_limits),
        };

        roll_seed();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
