/* Invoices over HTTP: their lines and totals are what the naive bookkeeper adds up. */
#include "periods_test.h"

struct sums {
        df_nanos usage[2], adjustments[2]; /* exact, by currency */
        df_nanos charged[2];               /* rounded lines */
};

/* The lines of one side, added up as they are read. */
static void add_lines(const struct ad_doc *d, const char *list, struct sums *s)
{
        const struct ad_doc_node *lines = ad_doc_member(d, d->nodes, list), *l;

        must(lines);
        for (l = ad_doc_first(d, lines); l; l = ad_doc_after(d, lines, l)) {
                int c = is(d, l, "currency", "JPY");
                bool usage = is(d, l, "kind", "usage");
                const struct ad_doc_node *exact = ad_doc_member(d, l, "exact");

                s->charged[c] += money(text(d, l, "amount"));
                if (exact)
                        *(usage ? &s->usage[c] : &s->adjustments[c]) += money(exact->text);
        }
}

static void check_totals(const struct ad_doc *d, const char *list, const struct sums *s)
{
        const struct ad_doc_node *totals = ad_doc_member(d, d->nodes, list), *t;

        for (t = ad_doc_first(d, totals); t; t = ad_doc_after(d, totals, t)) {
                int c = is(d, t, "currency", "JPY");

                must(money(text(d, t, "amount")) == s->charged[c]);
                must(money(text(d, t, "usage")) + money(text(d, t, "adjustments")) ==
                     s->charged[c]);
        }
}

static df_nanos naive(int period, int currency, bool payout, bool usage)
{
        df_nanos sum = 0;

        for (int i = 0; usage && i < CELLS; i++) {
                struct ad_cell c = period < closed_count ? at_close[i][period] : billed(&cells[i]);

                if (cells[i].currency == currency && cells[i].quarter >= quarter(begins[period]) &&
                    cells[i].quarter < quarter(begins[period + 1]))
                        sum += payout ? c.payout : c.spend;
        }
        for (size_t i = 0; !usage && i < posted_count; i++)
                for (int k = 0; k < 2; k++)
                        if (posted[i].period == period &&
                            cells[posted[i].cell].currency == currency)
                                sum += payout ? posted[i].delta[k].billed.payout
                                              : posted[i].delta[k].billed.spend;
        return sum;
}

static void check_invoice(int period, df_nanos all[2])
{
        struct sums delta = {0}, payouts = {0}, ledger = {0}, ledger_payouts = {0};
        char path[120];
        struct ad_doc d;

        (void)snprintf(path, sizeof(path), "/v1/periods/%s?advertiser_id=a1", months[period]);
        (void)get(path, &d);
        must(is(&d, d.nodes, "state", period < closed_count ? "closed" : "open"));
        must(is(&d, d.nodes, "zone", "Europe/Berlin"));
        add_lines(&d, "charges", &delta);
        check_totals(&d, "totals", &delta);
        add_lines(&d, "payouts", &payouts);
        check_totals(&d, "payout_totals", &payouts);
        for (int c = 0; c < 2; c++) {
                must(delta.usage[c] == naive(period, c, false, true));
                must(delta.adjustments[c] == naive(period, c, false, false));
                must(payouts.usage[c] == naive(period, c, true, true));
                must(payouts.adjustments[c] == naive(period, c, true, false));
                all[c] += delta.usage[c] + delta.adjustments[c];
        }
        (void)snprintf(path, sizeof(path), "/v1/periods/%s?advertiser_id=a1&adjustments=ledger",
                       months[period]);
        (void)get(path, &d);
        add_lines(&d, "charges", &ledger);
        check_totals(&d, "totals", &ledger);
        add_lines(&d, "payouts", &ledger_payouts);
        for (int c = 0; c < 2; c++) {
                must(ledger.charged[c] == delta.charged[c]);
                must(ledger_payouts.charged[c] == payouts.charged[c]);
        }
}

/* What all invoices say together is what the last targets say. */
static void test_invoices(void **state)
{
        for (uint64_t s = 1; s <= 3; s++) {
                df_nanos all[2] = {0};

                begin(s);
                run(0);
                close_month();
                run(0);
                run(0);
                close_month();
                run(0);
                write_books();
                start_api();
                for (int p = 0; p < 3; p++)
                        check_invoice(p, all);
                for (int c = 0; c < 2; c++) {
                        df_nanos want = 0;

                        for (int i = 0; i < CELLS; i++)
                                want += cells[i].currency == c ? billed(&cells[i]).spend : 0;
                        must(all[c] == want);
                }
                end();
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_invoices)};

        return cmocka_run_group_tests(tests, NULL, NULL);
}
