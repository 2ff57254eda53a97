#include "jobs/runs/rows.h"

#include <stdlib.h>

#include "jobs/common/json.h"
#include "jobs/common/times.h"
#include "jobs/runs/bill.h"
#include "proto/bill.h"

int ad_rows_begin(struct ad_rows *r, const struct ad_account *account, uint64_t from, uint64_t to,
                  FILE *out, struct df_error *err)
{
        *r = (struct ad_rows){.account = *account, .from = from, .to = to, .out = out};
        r->sha = df_sha256_new(err);
        return r->sha ? 0 : DF_ENOMEM;
}

/* ---- totals ---- */

static int find_total(struct ad_rows *r, struct df_bytes currency, struct ad_cell **ret,
                      struct df_error *err)
{
        size_t i = 0;

        while (i < r->total_count && df_bytes_cmp(r->totals[i].currency, currency) < 0)
                i++;
        if (i == r->total_count || !df_bytes_eq(r->totals[i].currency, currency)) {
                char *text = r->currencies[r->total_count];

                if (r->total_count == AD_ROWS_CURRENCIES_MAX || currency.len >= 4)
                        return df_fail(err, DF_ELIMIT, "more than %d currencies",
                                       AD_ROWS_CURRENCIES_MAX);
                memcpy(text, currency.data, currency.len);
                memmove(&r->totals[i + 1], &r->totals[i],
                        (r->total_count - i) * sizeof(r->totals[0]));
                r->totals[i] = (struct ad_currency_cell){.currency = df_bytes(text, currency.len)};
                r->total_count++;
        }
        *ret = &r->totals[i].billed;
        return 0;
}

/* ---- lines ---- */

static void put_key(struct df_buf *b, const struct ad_bill_row *row)
{
        df_put_u64be(b, row->quarter);
        df_put_lstr(b, row->tenant_id);
        df_put_lstr(b, row->advertiser_id);
        df_put_lstr(b, row->campaign_id);
        df_put_lstr(b, row->publisher_id);
        df_put_lstr(b, row->currency);
}

static struct ad_bill_row get_key(struct df_bytes bytes)
{
        struct df_reader r = df_reader(bytes);
        struct ad_bill_row row = {.quarter = df_get_u64be(&r)};

        row.tenant_id = df_get_lstr(&r);
        row.advertiser_id = df_get_lstr(&r);
        row.campaign_id = df_get_lstr(&r);
        row.publisher_id = df_get_lstr(&r);
        row.currency = df_get_lstr(&r);
        df_check(!r.bad);
        return row;
}

static int put_line(struct ad_rows *r, const struct ad_bill_row *row, struct df_error *err)
{
        struct ad_json *j;
        int rc;

        df_buf_clear(&r->line);
        j = ad_json_begin(&r->line);
        ad_json_open(j);
        ad_bill_put_names(j, row);
        ad_replay_put_cell(j, &r->sum);
        ad_json_close(j);
        rc = ad_json_end(j, &r->line, err);
        df_put_u8(&r->line, '\n');
        if (rc == 0)
                rc = df_buf_check(&r->line, err);
        if (rc == 0)
                rc = df_sha256_add(r->sha, df_buf_bytes(&r->line), err);
        if (rc == 0 && r->out && fwrite(r->line.data, 1, r->line.len, r->out) != r->line.len)
                rc = df_fail_errno(err, DF_EIO, "write the rows");
        return rc;
}

/* ---- cells ---- */

static int too_much(struct df_error *err)
{
        return df_fail(err, DF_ELIMIT, "a sum exceeds 128 bits");
}

static int end_cell(struct ad_rows *r, struct df_error *err)
{
        struct ad_cell *total = NULL;
        struct ad_bill_row row;
        int rc;

        if (r->cell.len == 0 || ad_cell_is_zero(&r->sum))
                return 0;
        row = get_key(df_buf_bytes(&r->cell));
        rc = find_total(r, row.currency, &total, err);
        if (rc == 0 && !ad_cell_add(total, &r->sum))
                rc = too_much(err);
        r->count++;
        return rc == 0 ? put_line(r, &row, err) : rc;
}

static bool is_wanted(const struct ad_rows *r, const struct ad_bill_row *row)
{
        return row->quarter >= r->from && row->quarter < r->to &&
               df_bytes_eq(row->tenant_id, r->account.tenant_id) &&
               (r->account.advertiser_id.len == 0 ||
                df_bytes_eq(row->advertiser_id, r->account.advertiser_id));
}

int ad_rows_add(struct ad_rows *r, const struct ad_bill_row *row, struct df_error *err)
{
        int rc = 0;

        if (!is_wanted(r, row))
                return 0;
        df_buf_clear(&r->next);
        put_key(&r->next, row);
        rc = df_buf_check(&r->next, err);
        if (rc == 0 && !df_bytes_eq(df_buf_bytes(&r->next), df_buf_bytes(&r->cell))) {
                struct df_buf last = r->cell;

                rc = end_cell(r, err);
                r->cell = r->next;
                r->next = last;
                r->sum = (struct ad_cell){0};
        }
        return rc < 0 || ad_cell_add(&r->sum, &row->billed) ? rc : too_much(err);
}

int ad_rows_add_target(struct ad_rows *r, const struct ad_target *t, struct df_error *err)
{
        struct ad_bill_row row = {.quarter = t->quarter,
                                  .tenant_id = t->tenant_id,
                                  .advertiser_id = t->advertiser_id,
                                  .campaign_id = t->campaign_id,
                                  .publisher_id = t->publisher_id,
                                  .currency = t->currency};
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < t->cause_count; i++) {
                row.billed = t->causes[i].billed;
                rc = ad_rows_add(r, &row, err);
        }
        return rc;
}

int ad_rows_end(struct ad_rows *r, struct df_error *err)
{
        int rc = end_cell(r, err);

        df_buf_clear(&r->cell);
        if (rc == 0) {
                rc = df_sha256_end(r->sha, r->digest, err);
                r->sha = NULL;
        }
        return rc;
}

void ad_rows_release(struct ad_rows *r)
{
        (void)df_sha256_end(r->sha, NULL, NULL);
        r->sha = NULL;
        df_buf_release(&r->cell);
        df_buf_release(&r->next);
        df_buf_release(&r->line);
}
