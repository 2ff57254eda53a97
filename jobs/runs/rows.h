/* rows.h - what an account was billed in a range, as lines, their digest and totals
 * (docs/BILLING.md, "Proof of a number").
 *
 * Order of calls: ad_rows_begin, ad_rows_add for every row of a bill in canonical order (quarter,
 *                 tenant, advertiser, campaign, publisher, currency; those of a cell together),
 *                 ad_rows_end, getters, ad_rows_release (also after an error).
 * Rows of other accounts and times are skipped; the causes of a cell are added up, and cells that
 * are all zero are left out. Only what is billed counts: a recount from raw events gives the same.
 * Memory: one line. Thread: one. Errors: DF_ELIMIT: a sum beyond 128 bits, too many currencies.
 */
#ifndef AD_ROWS_H
#define AD_ROWS_H

#include <stdio.h>

#include "df/sha256.h"
#include "proto/books.h"

#define AD_ROWS_CURRENCIES_MAX 200 /* there are fewer */

struct ad_rows {
        struct ad_account account; /* borrowed */
        uint64_t from, to;         /* quarters [from, to) */
        FILE *out;                 /* the lines go there, too; NULL: nowhere */
        struct df_sha256_stream *sha;
        struct df_buf cell, next, line; /* the cell being added up, the one that came, its line */
        struct ad_cell sum;
        /* The result. */
        uint64_t count;
        uint8_t digest[DF_SHA256_SIZE];
        struct ad_currency_cell totals[AD_ROWS_CURRENCIES_MAX]; /* by currency, ascending */
        size_t total_count;
        char currencies[AD_ROWS_CURRENCIES_MAX][4]; /* what the totals borrow */
};

int ad_rows_begin(struct ad_rows *r, const struct ad_account *account, uint64_t from, uint64_t to,
                  FILE *out, struct df_error *err);
/* The row's cell and its billed side; cause and realtime's side are not looked at. */
int ad_rows_add(struct ad_rows *r, const struct ad_bill_row *row, struct df_error *err);
/* The same of all causes of a cell. */
int ad_rows_add_target(struct ad_rows *r, const struct ad_target *t, struct df_error *err);
int ad_rows_end(struct ad_rows *r, struct df_error *err);
void ad_rows_release(struct ad_rows *r);

#endif
