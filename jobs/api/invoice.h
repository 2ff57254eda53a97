/* invoice.h - the lines of a period's invoice, from cells and adjustments. Pure.
 *
 * Charges are spend by (campaign, currency), payouts are payout by (publisher, currency). Beside a
 * period's own use stand adjustments, by (period that they are of, campaign or publisher, currency,
 * cause). Each line is rounded once, half to even, to the minor unit of its currency; totals are
 * sums of rounded lines, so an invoice adds up to what it says.
 *
 * Two forms say the same adjustments: delta, a line of the difference for each cause; ledger, a
 * reversal of all that was invoiced before for (period, campaign or publisher, currency) and a
 * charge of what it is now. Their totals are equal: the charge is the reversal's amount and the
 * rounded lines of the delta form.
 *
 * Order: create, add_*, finish, then read lines and totals; destroy. Lines are sorted: use before
 * adjustments, by period, campaign or publisher, currency, cause.
 * Ownership: everything is copied. Thread: one at a time. Errors: DF_ENOMEM; DF_ELIMIT: a sum
 * beyond 128 bits, or more than lines_max lines.
 */
#ifndef AD_API_INVOICE_H
#define AD_API_INVOICE_H

#include "df/arena.h"
#include "proto/books.h"

#define AD_INVOICE_LINES_MAX 200000

enum ad_invoice_side { AD_CHARGES, AD_PAYOUTS, AD_INVOICE_SIDES };
enum ad_line_kind {
        AD_LINE_USAGE,
        AD_LINE_ADJUSTMENT, /* delta form */
        AD_LINE_REVERSAL,   /* ledger form */
        AD_LINE_CHARGE,
};
struct ad_invoice_line {
        enum ad_line_kind kind;
        struct df_bytes
                original;      /* the period that it is of; empty: earlier than all closed ones */
        struct df_bytes party; /* campaign, or publisher of payouts */
        struct df_bytes currency;
        uint32_t cause; /* of ADJUSTMENT; of CHARGE when it is one alone, else AD_CAUSE_COUNT */
        struct ad_cell cell; /* exact, signed counts */
        __int128 amount;     /* in minor units of the currency */
        uint32_t digits;
};
struct ad_invoice_total {
        struct df_bytes currency;
        __int128 usage, adjustments; /* in minor units; the total is their sum */
        uint32_t digits;
};
struct ad_invoice_part {
        const struct ad_invoice_line *lines;
        size_t count;
        const struct ad_invoice_total *totals; /* by currency */
        size_t total_count;
};

struct ad_invoice_cell { /* what an amount is of */
        struct df_bytes campaign_id, publisher_id, currency;
};
struct ad_invoice_delta {
        struct df_bytes original;
        struct df_bytes posted; /* of what was invoiced before: in which period */
        struct ad_invoice_cell of;
        uint32_t cause;
};

struct ad_invoice;
int ad_invoice_create(bool ledger, size_t lines_max, struct ad_invoice **ret, struct df_error *err);
/* A cell of the period itself. */
int ad_invoice_add_usage(struct ad_invoice *v, const struct ad_invoice_cell *of,
                         const struct ad_cell *billed, struct df_error *err);
/* An adjustment that counts in the period. */
int ad_invoice_add_delta(struct ad_invoice *v, const struct ad_invoice_delta *of,
                         const struct ad_cell *delta, struct df_error *err);
/* Ledger form: what invoices before it said about the periods that its adjustments are of: their
 * cells as they were closed, and adjustments of them in periods before this one. */
int ad_invoice_add_before(struct ad_invoice *v, struct df_bytes original,
                          const struct ad_invoice_cell *of, const struct ad_cell *billed,
                          struct df_error *err);
int ad_invoice_add_delta_before(struct ad_invoice *v, const struct ad_invoice_delta *of,
                                const struct ad_cell *delta, struct df_error *err);
/* currency: a total of 0 when there is no line in it; empty: none. */
int ad_invoice_finish(struct ad_invoice *v, struct df_bytes currency, struct df_error *err);
const struct ad_invoice_part *ad_invoice_part(const struct ad_invoice *v,
                                              enum ad_invoice_side side);
/* Periods that adjustments of this invoice are of, ascending, each once; before finish too. */
int ad_invoice_originals(struct ad_invoice *v, struct df_bytes **ret, size_t *ret_count,
                         struct df_error *err);
void ad_invoice_destroy(struct ad_invoice *v); /* NULL-safe */

#endif
