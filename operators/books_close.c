/* books_close.c - closing a period freezes nothing by copying: from now on differences of rows
 * before its end are adjustments. It is accepted only if what the signed manifest states is what
 * the books hold.
 */
#include <stdio.h>

#include "operators/books_private.h"

#define ACCEPTED 1 /* adi_work.done */

struct totals {
        struct books *b;
        const struct ad_period_close *c;
        uint64_t rows;
        struct ad_currency_cell list[AD_CURRENCIES_MAX];
        char codes[AD_CURRENCIES_MAX][3];
        size_t count;
        bool too_many, overflow;
};

static void begin_of(const struct ad_account *account, struct df_buf *ret)
{
        ad_put_ordered(ret, account->tenant_id);
        if (account->advertiser_id.len > 0)
                ad_put_ordered(ret, account->advertiser_id);
}

static struct ad_cell *total_of(struct totals *t, struct df_bytes currency)
{
        for (size_t i = 0; i < t->count; i++)
                if (df_bytes_eq(t->list[i].currency, currency))
                        return &t->list[i].billed;
        if (t->count == AD_CURRENCIES_MAX)
                return NULL;
        if (currency.len > 0)
                memcpy(t->codes[t->count], currency.data, currency.len);
        t->list[t->count] =
                (struct ad_currency_cell){.currency = df_bytes(t->codes[t->count], currency.len)};
        return &t->list[t->count++].billed;
}

static int add_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct totals *t = arg;
        struct ad_cell billed, realtime, *sum;
        struct adi_row row;
        int rc = adi_books_row(t->b, key, value, &row, err);

        if (rc < 0 || row.target.cause_count == 0 || row.target.quarter < t->c->from_quarter ||
            row.target.quarter >= t->c->to_quarter)
                return rc;
        t->rows++;
        sum = total_of(t, row.target.currency);
        t->too_many |= !sum;
        if (!sum || !ad_target_sums(&row.target, &billed, &realtime) || !ad_cell_add(sum, &billed))
                t->overflow = true;
        return 0;
}

static bool states(const struct ad_currency_cell *list, size_t count,
                   const struct ad_currency_cell *t)
{
        for (size_t i = 0; i < count; i++)
                if (df_bytes_eq(list[i].currency, t->currency))
                        return ad_cell_eq(&list[i].billed, &t->billed);
        return ad_cell_is_zero(&t->billed);
}

static bool totals_agree(const struct totals *t)
{
        const struct ad_period_close *c = t->c;
        bool agree = t->rows == c->rows && !t->overflow;

        for (size_t i = 0; agree && i < t->count; i++)
                agree = states(c->totals, c->total_count, &t->list[i]);
        for (size_t i = 0; agree && i < c->total_count; i++)
                agree = states(t->list, t->count, &c->totals[i]);
        return agree;
}

/* "" when the rows are those that the manifest is of. */
static int check_totals(struct books *b, const struct ad_period_close *c, char *why, size_t size,
                        struct df_error *err)
{
        struct totals *t = df_arena_zalloc(&b->record, sizeof(*t));
        struct df_buf begin = {0};
        int rc;

        if (!t)
                return df_fail(err, DF_ENOMEM, "books: totals of an account");
        t->b = b;
        t->c = c;
        begin_of(&c->account, &begin);
        rc = df_buf_check(&begin, err);
        if (rc == 0)
                rc = adi_rows_scan(&b->rows, df_buf_bytes(&begin), df_bytes(NULL, 0), add_row, t,
                                   err);
        df_buf_release(&begin);
        if (rc == 0 && t->too_many)
                (void)snprintf(why, size,
                               "totals_differ: the period has more than %d currencies, and a close "
                               "cannot state them",
                               AD_CURRENCIES_MAX);
        else if (rc == 0 && !totals_agree(t))
                (void)snprintf(why, size,
                               "totals_differ: the books hold %llu rows of the period, the close "
                               "states %llu, or their totals are others: close again",
                               (unsigned long long)t->rows, (unsigned long long)c->rows);
        return rc;
}

static bool is_closed(const struct adi_account *account, struct df_bytes period,
                      struct df_bytes asked_by, bool *ret_same)
{
        for (size_t i = 0; account && i < account->count; i++)
                if (df_bytes_eq(df_bytes_str(account->periods[i].name), period)) {
                        *ret_same =
                                df_bytes_eq(df_bytes_str(account->periods[i].asked_by), asked_by);
                        return true;
                }
        return false;
}

/* "" when it may be the account's next period. */
static void check_place(const struct books *b, const struct ad_period_close *c, char *why,
                        size_t size)
{
        const struct adi_account *account = adi_accounts_find(&b->accounts, c->account);
        const struct adi_run *tip = adi_runs_at(&b->runs, b->runs.tip);
        char next[AD_PERIOD_MAX + 1];
        bool same;

        *why = '\0';
        if (!adi_period_next(c->period, next) || c->from_quarter >= c->to_quarter)
                (void)snprintf(why, size,
                               "period_invalid: a period is called like 2026-04 and ends after "
                               "it begins");
        else if (is_closed(account, c->period, c->asked_by, &same))
                (void)snprintf(why, size, "period_closed: %.*s is closed", (int)c->period.len,
                               (const char *)c->period.data);
        else if (adi_accounts_mixed(&b->accounts, c->account))
                (void)snprintf(why, size, "account_mixed: this tenant closes %s",
                               c->account.advertiser_id.len > 0 ? "as a whole, not by advertiser"
                                                                : "by advertiser, not as a whole");
        else if (account && (!df_bytes_eq(df_bytes_str(account->open), c->period) ||
                             account->periods[account->count - 1].to != c->from_quarter))
                (void)snprintf(why, size,
                               "period_not_next: the next one to close is %s, from quarter hour "
                               "%llu",
                               account->open,
                               (unsigned long long)account->periods[account->count - 1].to);
        else if (!tip || !df_bytes_eq(tip->begin.run, c->run))
                (void)snprintf(why, size, "run_not_last: the books are of run %.*s: close again",
                               tip ? (int)tip->begin.run.len : 0,
                               tip ? (const char *)tip->begin.run.data : "");
}

/* ---- what lies before the first closed period counts in it ---- */

struct earlier {
        struct books *b;
        const struct ad_period_close *c;
        struct df_out *out;
        bool full;
};

static int post_earlier(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct earlier *x = arg;
        struct adi_posted by = {x->c->run, x->c->at_ms};
        struct adi_row row;
        int rc;

        if (!adi_books_room(x->b, x->out)) {
                x->full = true;
                df_buf_clear(&x->b->work.cursor);
                df_buf_append(&x->b->work.cursor, key.data, key.len);
                return 1;
        }
        rc = adi_books_row(x->b, key, value, &row, err);
        if (rc < 0 || row.target.quarter >= x->c->from_quarter || row.target.cause_count == 0)
                return rc;
        return adi_books_post_whole(x->b, by, &row.target, x->c->period, x->out, err);
}

static int post_all_earlier(struct books *b, const struct ad_period_close *c, struct df_out *out,
                            bool *ret_done, struct df_error *err)
{
        struct earlier x = {.b = b, .c = c, .out = out};
        struct df_buf begin = {0};
        int rc;

        begin_of(&c->account, &begin);
        rc = df_buf_check(&begin, err);
        if (rc == 0)
                rc = adi_rows_scan(&b->rows, df_buf_bytes(&begin), df_buf_bytes(&b->work.cursor),
                                   post_earlier, &x, err);
        df_buf_release(&begin);
        *ret_done = !x.full;
        return rc < 0 ? rc : df_buf_check(&b->work.cursor, err);
}

/* ---- the outcome ---- */

static int say_closed(struct books *b, const struct ad_period_close *c, const char *why,
                      struct df_out *out, struct df_error *err)
{
        const struct adi_account *account = adi_accounts_find(&b->accounts, c->account);
        struct ad_books_entry e = {
                .kind = AD_BOOKS_CLOSED,
                .closed = {.close = *c,
                           .refused = *why != '\0',
                           .why = df_bytes_str(why),
                           .seq = b->seq,
                           .open_period = df_bytes_str(account ? account->open : "")},
        };

        return adi_books_emit(b, &e, out, err);
}

int adi_books_close(struct books *b, const struct ad_period_close *c, struct df_out *out,
                    bool *ret_done, struct df_error *err)
{
        const struct adi_account *account = adi_accounts_find(&b->accounts, c->account);
        char why[256] = "";
        bool same = false;
        int rc = 0;

        *ret_done = true;
        if (is_closed(account, c->period, c->asked_by, &same) && same)
                return 0; /* asked again: it was answered */
        *ret_done = adi_books_room(b, out);
        if (!*ret_done)
                return 0;
        if (b->work.done != ACCEPTED) {
                check_place(b, c, why, sizeof(why));
                if (!*why)
                        rc = check_totals(b, c, why, sizeof(why), err);
                if (rc < 0 || *why)
                        return rc < 0 ? rc : say_closed(b, c, why, out, err);
                b->work.done = ACCEPTED;
        }
        if (!account)
                rc = post_all_earlier(b, c, out, ret_done, err);
        if (rc < 0 || !*ret_done)
                return rc;
        rc = adi_accounts_close(&b->accounts, c, err);
        return rc < 0 ? rc : say_closed(b, c, "", out, err);
}
