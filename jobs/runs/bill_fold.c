/* bill_fold.c - from what a run wrote to its rows, one a cell and cause (bill.h).
 *
 * The store (fold.h) has what each checkpoint adds, in the canonical order: rows of a cell and
 * cause stand behind each other. What was added up takes their place, so the next time there is
 * only what is new to add. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "df/sha256.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"
#include "jobs/runs/fold_private.h"

struct fold {
        struct ad_fold *store;
        struct ad_bill_result *result;
        FILE *file;
        struct df_buf cell_key, cell_row, line;
        size_t parts; /* of the cell and cause; first_key is the first one's */
        struct df_buf first_key, sum;
        struct ad_cell billed, realtime;
};

struct ad_bill_total *ad_bill_total(struct ad_bill_result *r, uint32_t cause,
                                    struct df_bytes currency)
{
        struct ad_bill_total *t;

        for (size_t i = 0; i < r->total_count; i++)
                if (r->totals[i].cause == cause &&
                    df_bytes_eq(df_bytes_str(r->totals[i].currency), currency))
                        return &r->totals[i];
        if (r->total_count == AD_BILL_TOTALS_MAX)
                return NULL;
        t = &r->totals[r->total_count++];
        *t = (struct ad_bill_total){.cause = cause};
        (void)snprintf(t->currency, sizeof(t->currency), "%.*s", (int)currency.len,
                       (const char *)currency.data);
        return t;
}

/* ---- writing ---- */

static void put_side(struct ad_json *j, const char *name, const struct ad_cell *c)
{
        ad_json_key(j, name);
        ad_json_open(j);
        ad_replay_put_cell(j, c);
        ad_json_close(j);
}

void ad_bill_put_names(struct ad_json *j, const struct ad_bill_row *row)
{
        char start[AD_TIME_TEXT_MAX];

        (void)ad_time_text((int64_t)row->quarter * AD_QUARTER_MS, start);
        ad_json_put_text(j, "window_start", start);
        ad_json_put_bytes(j, "tenant_id", row->tenant_id);
        ad_json_put_bytes(j, "advertiser_id", row->advertiser_id);
        ad_json_put_bytes(j, "campaign_id", row->campaign_id);
        ad_json_put_bytes(j, "publisher_id", row->publisher_id);
        ad_json_put_bytes(j, "currency", row->currency);
}

static int write_line(struct fold *f, const struct ad_bill_row *row, struct df_error *err)
{
        struct ad_json *j;
        int rc;

        df_buf_clear(&f->line);
        j = ad_json_begin(&f->line);
        ad_json_open(j);
        ad_bill_put_names(j, row);
        ad_json_put_text(j, "cause", ad_cause_code(row->cause));
        put_side(j, "billed", &f->billed);
        put_side(j, "realtime", &f->realtime);
        ad_json_close(j);
        rc = ad_json_end(j, &f->line, err);
        df_put_u8(&f->line, '\n');
        if (rc == 0)
                rc = df_buf_check(&f->line, err);
        if (rc == 0 && fwrite(f->line.data, 1, f->line.len, f->file) != f->line.len)
                rc = df_fail_errno(err, DF_EIO, "write the rows");
        return rc;
}

static int too_much(struct df_error *err)
{
        return df_fail(err, DF_ELIMIT, "a sum exceeds 128 bits");
}

/* The parts make way for their sum. Atomic: a commit comes between cells alone. */
static int join_parts(struct fold *f, const struct ad_bill_row *row, struct df_error *err)
{
        struct df_store *kv = df_kv_store(f->store->kv);
        struct df_buf *key = &f->store->key;
        struct ad_bill_row sum = *row;
        int rc;

        sum.billed = f->billed;
        sum.realtime = f->realtime;
        df_buf_clear(key);
        df_buf_append(key, f->cell_key.data, f->cell_key.len);
        for (size_t i = 0; i < ADI_PLACE_BYTES; i++)
                df_put_u8(key, 0);
        df_buf_clear(&f->sum);
        ad_wire_bill_row(&f->sum, &sum);
        rc = df_buf_check(key, err);
        if (rc == 0)
                rc = df_buf_check(&f->sum, err);
        if (rc == 0)
                df_store_put(kv, df_buf_bytes(key), df_buf_bytes(&f->sum));
        return rc;
}

static int end_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct fold *f = arg;
        struct ad_bill_total *t;

        if (f->parts > 1) {
                int rc = join_parts(f, row, err);

                if (rc < 0)
                        return rc;
        }
        if (row->quarter < f->result->from || row->quarter >= f->result->to)
                return 0;
        t = ad_bill_total(f->result, row->cause, row->currency);
        if (!t)
                return df_fail(err, DF_ELIMIT, "more than %d totals", AD_BILL_TOTALS_MAX);
        if (!ad_cell_add(&t->billed, &f->billed) || !ad_cell_add(&t->realtime, &f->realtime))
                return too_much(err);
        t->cells++;
        f->result->rows++;
        return write_line(f, row, err);
}

static int end_cell(struct fold *f, struct df_error *err)
{
        int rc = 0;

        if (f->cell_row.len)
                rc = ad_wire_bill_decode(df_buf_bytes(&f->cell_row), end_row, f, err);
        return rc == 0 ? adi_fold_commit_some(f->store, err) : rc;
}

static int add_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct fold *f = arg;

        if (ad_cell_add(&f->billed, &row->billed) && ad_cell_add(&f->realtime, &row->realtime))
                return 0;
        return too_much(err);
}

static int begin_cell(struct fold *f, struct df_bytes cell, struct df_bytes key,
                      struct df_bytes value, struct df_error *err)
{
        int rc;

        df_buf_clear(&f->cell_key);
        df_buf_clear(&f->cell_row);
        df_buf_clear(&f->first_key);
        df_buf_append(&f->cell_key, cell.data, cell.len);
        df_buf_append(&f->first_key, key.data, key.len);
        df_buf_append(&f->cell_row, value.data, value.len);
        f->billed = f->realtime = (struct ad_cell){0};
        f->parts = 1;
        rc = df_buf_check(&f->cell_key, err);
        if (rc == 0)
                rc = df_buf_check(&f->first_key, err);
        return rc == 0 ? df_buf_check(&f->cell_row, err) : rc;
}

/* Parts of one cell and cause stand together. */
static int on_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct fold *f = arg;
        struct df_store *kv = df_kv_store(f->store->kv);
        struct df_bytes cell = df_bytes(key.data, key.len - ADI_PLACE_BYTES);
        int rc = 0;

        if (!df_bytes_eq(cell, df_buf_bytes(&f->cell_key))) {
                rc = end_cell(f, err);
                if (rc == 0)
                        rc = begin_cell(f, cell, key, value, err);
        } else {
                if (f->parts++ == 1)
                        df_store_del(kv, df_buf_bytes(&f->first_key));
                df_store_del(kv, key);
                f->store->written++;
        }
        return rc == 0 ? ad_wire_bill_decode(value, add_row, f, err) : rc;
}

static int write_rows(struct fold *f, const char *path, struct df_error *err)
{
        struct df_bytes from, to;
        uint8_t digest[DF_SHA256_SIZE], ends[2];
        uint64_t size;
        int rc;

        f->file = fopen(path, "we");
        if (!f->file)
                return df_fail_errno(err, DF_EIO, "write %s", path);
        adi_fold_kind('c', ends, &from, &to);
        rc = df_kv_range(f->store->kv, NULL, from, to, on_row, f, err);
        if (rc == 0)
                rc = end_cell(f, err);
        f->store->written = 0;
        if (rc == 0)
                rc = df_store_commit(df_kv_store(f->store->kv), err);
        else
                df_store_rollback(df_kv_store(f->store->kv));
        if (fclose(f->file) != 0 && rc == 0)
                rc = df_fail_errno(err, DF_EIO, "write %s", path);
        if (rc == 0)
                rc = df_sha256_file(path, digest, &size, err);
        if (rc == 0)
                df_hex(digest, sizeof(digest), f->result->digest);
        return rc;
}

/* So that they need not be told again to be known. */
static int keep_summary(struct ad_fold *f, const struct ad_bill_result *r, struct df_error *err)
{
        struct adi_summary s = {.rows = r->rows};

        if (r->from > 0 || r->to < UINT64_MAX)
                return 0;
        memcpy(s.digest, r->digest, sizeof(s.digest));
        df_store_put(df_kv_store(f->kv), df_bytes("s", 1), df_bytes(&s, sizeof(s)));
        return df_store_commit(df_kv_store(f->kv), err);
}

int ad_fold_rows(struct ad_fold *store, const char *out, struct ad_bill_result *ret,
                 struct df_error *err)
{
        const struct ad_replay *run = store->run;
        struct fold f = {.store = store, .result = ret};
        char path[4096];
        int n, rc;

        n = snprintf(path, sizeof(path), "%s%s", out ? out : run->dir, out ? ".part" : "/rows");
        rc = n < (int)sizeof(path) ? write_rows(&f, path, err)
                                   : df_fail(err, DF_EINVAL, "--out: the path is too long");
        if (rc == 0)
                rc = keep_summary(store, ret, err);
        if (rc == 0 && out && rename(path, out) < 0)
                rc = df_fail_errno(err, DF_EIO, "rename %s to %s", path, out);
        if (!out || rc < 0)
                (void)unlink(path); /* mostly there */
        df_buf_release(&f.cell_key);
        df_buf_release(&f.cell_row);
        df_buf_release(&f.first_key);
        df_buf_release(&f.sum);
        df_buf_release(&f.line);
        return rc;
}

int ad_bill_fold(struct df_log *log, const struct ad_replay *run, const char *out,
                 struct ad_bill_result *ret, struct df_error *err)
{
        struct ad_fold *f = NULL;
        int rc = ad_fold_open(run, NULL, &f, err);

        if (rc == 0)
                rc = ad_fold_take(f, log, ret, err);
        if (rc == 0)
                rc = ad_fold_rows(f, out, ret, err);
        ad_fold_close(f);
        return rc;
}
