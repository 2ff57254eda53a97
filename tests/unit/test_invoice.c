/* An invoice against a naive recount: lists of what was added, exact fractions, rounded by the
 * definition. Both forms of adjustments, both sides, any order. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "jobs/api/invoice.h"

#define ITEMS 400

static struct df_error error, *const err = &error;
static uint64_t seed, dice_state;

static uint64_t dice(uint64_t n)
{
        dice_state ^= dice_state << 13;
        dice_state ^= dice_state >> 7;
        dice_state ^= dice_state << 17;
        return dice_state % n;
}

#define ok(call)                                                                                   \
        do {                                                                                       \
                if ((call) != 0)                                                                   \
                        fail_msg("seed %llu: %s: %s", (unsigned long long)seed, #call, err->text); \
        } while (0)
#define must(cond)                                                                                 \
        do {                                                                                       \
                if (!(cond))                                                                       \
                        fail_msg("seed %llu: %s", (unsigned long long)seed, #cond);                \
        } while (0)

enum what { USAGE, DELTA, BEFORE, DELTA_BEFORE };
static const char *const parties[] = {"", "c1", "c10", "c2"};
static const char *const currencies[] = {"EUR", "JPY", "KWD"};
static const int64_t units[] = {10000000, 1000000000, 1000000}; /* nanos of the minor unit */
static const char *const periods[] = {"", "2026-01", "2026-02"};

struct item {
        enum what what;
        int campaign, publisher, currency, original, posted;
        uint32_t cause;
        struct ad_cell cell;
};
static struct item items[ITEMS];
static size_t item_count;

/* Amounts at and beside the halves of the minor unit. */
static df_nanos amount(int currency, bool is_signed)
{
        int64_t v = (int64_t)dice(20) * units[currency] / 2 + (int64_t)dice(3) - 1;

        return is_signed && dice(2) ? -v : v < 0 ? 0 : v;
}

static void make_items(bool before)
{
        item_count = 0;
        for (size_t i = 0; i < 1 + dice(ITEMS); i++) {
                struct item *x = &items[item_count++];
                bool is_signed;

                memset(x, 0, sizeof(*x));
                x->what = (enum what)dice(before ? 4 : 2);
                is_signed = x->what == DELTA || x->what == DELTA_BEFORE;
                x->campaign = (int)dice(4);
                x->publisher = (int)dice(4);
                x->currency = (int)dice(3);
                x->original = x->what == USAGE ? 0 : (int)dice(3);
                x->posted = x->what == DELTA_BEFORE ? 1 + (int)dice(2) : 0;
                x->cause = is_signed ? (uint32_t)dice(3) : 0;
                x->cell.spend = amount(x->currency, is_signed);
                x->cell.payout = amount(x->currency, is_signed);
                x->cell.clicks = is_signed ? -dice(5) : dice(5);
        }
}

static struct ad_invoice *make_invoice(bool ledger)
{
        struct ad_invoice *v;

        ok(ad_invoice_create(ledger, AD_INVOICE_LINES_MAX, &v, err));
        for (size_t i = 0; i < item_count; i++) {
                const struct item *x = &items[i];
                const struct ad_invoice_delta d = {
                        .original = df_bytes_str(periods[x->original]),
                        .posted = df_bytes_str(periods[x->posted]),
                        .of = {df_bytes_str(parties[x->campaign]),
                               df_bytes_str(parties[x->publisher]),
                               df_bytes_str(currencies[x->currency])},
                        .cause = x->cause,
                };

                if (x->what == USAGE)
                        ok(ad_invoice_add_usage(v, &d.of, &x->cell, err));
                else if (x->what == DELTA)
                        ok(ad_invoice_add_delta(v, &d, &x->cell, err));
                else if (x->what == BEFORE)
                        ok(ad_invoice_add_before(v, d.original, &d.of, &x->cell, err));
                else
                        ok(ad_invoice_add_delta_before(v, &d, &x->cell, err));
        }
        ok(ad_invoice_finish(v, df_bytes(NULL, 0), err));
        return v;
}

/* ---- the recount ---- */

static df_nanos naive_sum(bool payouts, enum what what, int party, int currency, int original,
                          int posted, int cause, int64_t *ret_clicks, bool *ret_any)
{
        df_nanos sum = 0;

        for (size_t i = 0; i < item_count; i++) {
                const struct item *x = &items[i];

                if (x->what != what || (payouts ? x->publisher : x->campaign) != party ||
                    x->currency != currency || x->original != original || x->posted != posted ||
                    (cause >= 0 && (int)x->cause != cause))
                        continue;
                sum += payouts ? x->cell.payout : x->cell.spend;
                *ret_clicks += (int64_t)x->cell.clicks;
                *ret_any = true;
        }
        return sum;
}

/* Nearest; of two the even one: tried one by one. */
static int64_t naive_round(df_nanos v, int64_t unit)
{
        int64_t n = (int64_t)(v / unit) - 2, best = n;

        for (int i = 0; i < 5; i++, n++) {
                df_nanos d = v - (df_nanos)n * unit, e = v - (df_nanos)best * unit;

                d = d < 0 ? -d : d;
                e = e < 0 ? -e : e;
                if (d < e || (d == e && n % 2 == 0))
                        best = n;
        }
        return best;
}

static int64_t rounded(bool payouts, enum what what, int party, int currency, int original,
                       int posted, int cause, int64_t *ret_clicks, bool *ret_any)
{
        return naive_round(naive_sum(payouts, what, party, currency, original, posted, cause,
                                     ret_clicks, ret_any),
                           units[currency]);
}

static const struct ad_invoice_line *find(const struct ad_invoice_part *p, enum ad_line_kind kind,
                                          int party, int currency, int original, int cause)
{
        const struct ad_invoice_line *found = NULL;

        for (size_t i = 0; i < p->count; i++) {
                const struct ad_invoice_line *l = &p->lines[i];

                if (l->kind != kind || !df_bytes_eq(l->party, df_bytes_str(parties[party])) ||
                    !df_bytes_eq(l->currency, df_bytes_str(currencies[currency])) ||
                    (kind != AD_LINE_USAGE &&
                     !df_bytes_eq(l->original, df_bytes_str(periods[original]))) ||
                    (cause >= 0 && l->cause != (uint32_t)cause))
                        continue;
                must(!found);
                found = l;
        }
        return found;
}

static size_t check_usage(const struct ad_invoice_part *p, bool payouts, int64_t totals[3])
{
        size_t lines = 0;

        for (int party = 0; party < 4; party++)
                for (int c = 0; c < 3; c++) {
                        const struct ad_invoice_line *l = find(p, AD_LINE_USAGE, party, c, 0, -1);
                        int64_t clicks = 0, want;
                        bool any = false;

                        want = rounded(payouts, USAGE, party, c, 0, 0, -1, &clicks, &any);
                        if (!l) {
                                must(want == 0 && (payouts || clicks == 0));
                                continue;
                        }
                        lines++;
                        must(l->amount == want && (int64_t)l->cell.clicks == clicks);
                        totals[c] += want;
                }
        return lines;
}

static size_t check_deltas(const struct ad_invoice_part *p, bool payouts, int64_t totals[3])
{
        size_t lines = 0;

        for (int n = 0; n < 4 * 3 * 3 * 3; n++) {
                int party = n % 4, c = n / 4 % 3, original = n / 12 % 3, cause = n / 36;
                const struct ad_invoice_line *l =
                        find(p, AD_LINE_ADJUSTMENT, party, c, original, cause);
                int64_t clicks = 0, want;
                bool any = false;

                want = rounded(payouts, DELTA, party, c, original, 0, cause, &clicks, &any);
                if (!l) {
                        must(want == 0 && (payouts || clicks == 0));
                        continue;
                }
                lines++;
                must(l->amount == want && (int64_t)l->cell.clicks == clicks);
                totals[c] += want;
        }
        return lines;
}

static size_t check_ledger(const struct ad_invoice_part *p, bool payouts, int64_t totals[3])
{
        size_t lines = 0;

        for (int n = 0; n < 4 * 3 * 3; n++) {
                int party = n % 4, c = n / 4 % 3, original = n / 12;
                const struct ad_invoice_line *back =
                        find(p, AD_LINE_REVERSAL, party, c, original, -1);
                const struct ad_invoice_line *charge =
                        find(p, AD_LINE_CHARGE, party, c, original, -1);
                int64_t before = 0, now = 0, clicks = 0, added = 0;
                bool any = false, before_any = false;

                for (int cause = 0; cause < 3; cause++)
                        now += rounded(payouts, DELTA, party, c, original, 0, cause, &added, &any);
                before = rounded(payouts, BEFORE, party, c, original, 0, -1, &clicks, &before_any);
                for (int posted = 1; posted < 3; posted++)
                        for (int cause = 0; cause < 3; cause++)
                                before += rounded(payouts, DELTA_BEFORE, party, c, original, posted,
                                                  cause, &clicks, &before_any);
                if (!charge) {
                        must(!back && now == 0);
                        continue;
                }
                must(charge->amount == before + now);
                must(back ? back->amount == -before : before == 0);
                if (!payouts) {
                        must((int64_t)charge->cell.clicks == clicks + added);
                        must(!back || (int64_t)back->cell.clicks == -clicks);
                }
                lines += back ? 2 : 1;
                totals[c] += now; /* reversal and charge: what the delta form says */
        }
        return lines;
}

static void check_part(const struct ad_invoice *v, bool payouts, bool ledger)
{
        const struct ad_invoice_part *p = ad_invoice_part(v, payouts ? AD_PAYOUTS : AD_CHARGES);
        int64_t usage[3] = {0}, adjustments[3] = {0};
        size_t lines = check_usage(p, payouts, usage);

        lines += ledger ? check_ledger(p, payouts, adjustments)
                        : check_deltas(p, payouts, adjustments);
        must(lines == p->count);
        for (size_t i = 0; i < p->total_count; i++) {
                const struct ad_invoice_total *t = &p->totals[i];
                __int128 sum = 0;
                int c = 0;

                while (!df_bytes_eq(t->currency, df_bytes_str(currencies[c])))
                        c++;
                for (size_t k = 0; k < p->count; k++)
                        if (df_bytes_eq(p->lines[k].currency, t->currency))
                                sum += p->lines[k].amount;
                must(t->usage == usage[c] && t->adjustments == adjustments[c]);
                must(t->usage + t->adjustments == sum);
        }
        for (size_t i = 1; i < p->count; i++)
                must((p->lines[i - 1].kind != AD_LINE_USAGE) <=
                     (p->lines[i].kind != AD_LINE_USAGE));
}

static void test_against_recount(void **state)
{
        for (seed = 1; seed <= 300; seed++) {
                dice_state = seed * 2654435761u;
                make_items(seed % 2);
                for (int ledger = 0; ledger < 2; ledger++) {
                        struct ad_invoice *v = make_invoice(ledger);

                        check_part(v, false, ledger);
                        check_part(v, true, ledger);
                        ad_invoice_destroy(v);
                }
        }
}

/* Halves: each line goes to the even one, and the total is of the lines, not of the exact sums. */
static void test_halves(void **state)
{
        static const struct {
                int64_t nanos, cents;
        } lines[] = {{5000000, 0}, {15000000, 2}, {25000000, 2}, {-5000000, 0}, {-15000000, -2}};
        const struct ad_invoice_part *p;
        struct ad_invoice *v;
        char name[8];

        seed = 0;
        ok(ad_invoice_create(false, 10, &v, err));
        for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
                struct ad_cell c = {.spend = lines[i].nanos, .clicks = 1};

                (void)snprintf(name, sizeof(name), "c%zu", i);
                ok(ad_invoice_add_usage(v,
                                        &(struct ad_invoice_cell){.campaign_id = df_bytes_str(name),
                                                                  .currency = df_bytes_str("EUR")},
                                        &c, err));
        }
        ok(ad_invoice_finish(v, df_bytes_str("USD"), err));
        p = ad_invoice_part(v, AD_CHARGES);
        assert_int_equal(p->count, 5);
        for (size_t i = 0; i < p->count; i++)
                assert_true(p->lines[i].amount == lines[i].cents);
        assert_int_equal(p->total_count, 2); /* EUR, and the account's own */
        assert_true(p->totals[0].usage == 2 && p->totals[1].usage == 0);
        ad_invoice_destroy(v);
}

/* The example of docs/BILLING.md. */
static void test_example(void **state)
{
        const struct ad_invoice_cell c17 = {.campaign_id = df_bytes_str("c17"),
                                            .currency = df_bytes_str("EUR")};
        const struct ad_invoice_delta late = {
                .original = df_bytes_str("2026-03"), .of = c17, .cause = AD_CAUSE_LATE};
        struct ad_cell march = {.spend = 10125000000}, april = {.spend = 20005000000};
        struct ad_cell delta = {.spend = 375000000};

        for (int ledger = 0; ledger < 2; ledger++) {
                const struct ad_invoice_part *p;
                struct ad_invoice *v;

                ok(ad_invoice_create(ledger, 10, &v, err));
                ok(ad_invoice_add_usage(v, &c17, &april, err));
                ok(ad_invoice_add_delta(v, &late, &delta, err));
                ok(ad_invoice_add_before(v, late.original, &c17, &march, err));
                ok(ad_invoice_finish(v, c17.currency, err));
                p = ad_invoice_part(v, AD_CHARGES);
                assert_int_equal(p->count, 2 + ledger);
                assert_true(p->lines[0].amount == 2000);
                assert_true(p->lines[1].amount == (ledger ? -1012 : 38));
                assert_true(!ledger || p->lines[2].amount == 1050);
                assert_true(p->totals[0].usage + p->totals[0].adjustments == 2038);
                ad_invoice_destroy(v);
        }
}

static void test_limits(void **state)
{
        struct ad_cell c = {.spend = 1, .clicks = 1}, most = {0};
        struct ad_invoice_cell of = {.campaign_id = df_bytes_str("a"),
                                     .currency = df_bytes_str("EUR")};
        struct ad_invoice *v;

        ok(ad_invoice_create(false, 2, &v, err));
        ok(ad_invoice_add_usage(v, &of, &c, err));
        most.spend = (df_nanos)(~(unsigned __int128)0 >> 1); /* the greatest */
        assert_int_equal(ad_invoice_add_usage(v, &of, &most, err), DF_ELIMIT);
        of.campaign_id = df_bytes_str("b");
        ok(ad_invoice_add_usage(v, &of, &c, err));
        of.campaign_id = df_bytes_str("c");
        assert_int_equal(ad_invoice_add_usage(v, &of, &c, err), DF_ELIMIT);
        ad_invoice_destroy(v);
}

static void test_currencies(void **state)
{
        struct ad_cell c = {.spend = 1000000000};
        char code[4];

        for (int over = 0; over < 2; over++) {
                struct ad_invoice_cell of = {.campaign_id = df_bytes_str("a")};
                struct ad_invoice *v;

                ok(ad_invoice_create(false, AD_CURRENCIES_MAX + 1, &v, err));
                for (int i = 0; i < AD_CURRENCIES_MAX + over; i++) {
                        (void)snprintf(code, sizeof(code), "%03d", i);
                        of.currency = df_bytes_str(code);
                        ok(ad_invoice_add_usage(v, &of, &c, err));
                }
                if (!over)
                        ok(ad_invoice_finish(v, df_bytes(NULL, 0), err));
                else
                        assert_int_equal(ad_invoice_finish(v, df_bytes(NULL, 0), err), DF_ELIMIT);
                if (over)
                        assert_non_null(strstr(err->text, "more than 256 currencies"));
                if (!over)
                        assert_int_equal(ad_invoice_part(v, AD_CHARGES)->total_count,
                                         AD_CURRENCIES_MAX);
                ad_invoice_destroy(v);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_against_recount), cmocka_unit_test(test_halves),
                cmocka_unit_test(test_example),         cmocka_unit_test(test_limits),
                cmocka_unit_test(test_currencies),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
