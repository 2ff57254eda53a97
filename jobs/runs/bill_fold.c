/* bill_fold.c - from what a run wrote to its rows, one a cell and cause (bill.h).
 *
 * A checkpoint's rows say what it adds, so those of a cell are added up: through a store on disk,
 * whose order is the canonical one. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "df/rocksdb.h"
#include "df/sha256.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"
#include "jobs/runs/bill.h"

#define PLACE_BYTES 16 /* of a key: partition, checkpoint, number of the row in it */

struct fold {
        const struct ad_replay *run;
        struct ad_bill_result *result;
        struct df_kv *kv;
        uint32_t partition, number;
        uint64_t k;
        struct df_buf key, value;
        FILE *file;
        struct df_buf cell_key, cell_row, line;
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

/* ---- reading ---- */

static int take_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct fold *f = arg;
        int rc;

        if (row->quarter < f->result->from || row->quarter >= f->result->to)
                return 0;
        df_buf_clear(&f->key);
        df_buf_clear(&f->value);
        df_put_u64be(&f->key, row->quarter);
        ad_replay_put_ordered(&f->key, row->tenant_id);
        ad_replay_put_ordered(&f->key, row->advertiser_id);
        ad_replay_put_ordered(&f->key, row->campaign_id);
        ad_replay_put_ordered(&f->key, row->publisher_id);
        ad_replay_put_ordered(&f->key, row->currency);
        df_put_u8(&f->key, (uint8_t)row->cause);
        df_put_u32be(&f->key, f->partition);
        df_put_u64be(&f->key, f->k);
        df_put_u32be(&f->key, f->number++);
        ad_wire_bill_row(&f->value, row);
        rc = df_buf_check(&f->key, err);
        if (rc == 0)
                rc = df_buf_check(&f->value, err);
        if (rc == 0)
                df_store_put(df_kv_store(f->kv), df_buf_bytes(&f->key), df_buf_bytes(&f->value));
        return rc;
}

static int take_collection(void *arg, const struct df_collection *c, struct df_error *err)
{
        struct fold *f = arg;
        int rc = 0;

        f->k = c->origin.k;
        f->number = 0;
        f->result->final_through_ms[f->partition] = c->seal.final_through_ms;
        for (size_t i = 0; rc == 0 && i < c->count; i++)
                rc = ad_wire_bill_decode(c->payloads[i], take_row, f, err);
        return rc == 0 ? df_store_commit(df_kv_store(f->kv), err) : rc;
}

/* ---- writing ---- */

static void put_side(struct ad_json *j, const char *name, const struct ad_cell *c)
{
        ad_json_key(j, name);
        ad_json_open(j);
        ad_replay_put_cell(j, c);
        ad_json_close(j);
}

static int write_line(struct fold *f, const struct ad_bill_row *row, struct df_error *err)
{
        char start[AD_TIME_TEXT_MAX];
        struct ad_json *j;
        int rc;

        (void)ad_time_text((int64_t)row->quarter * AD_QUARTER_MS, start);
        df_buf_clear(&f->line);
        j = ad_json_begin(&f->line);
        ad_json_open(j);
        ad_json_put_text(j, "window_start", start);
        ad_json_put_bytes(j, "tenant_id", row->tenant_id);
        ad_json_put_bytes(j, "advertiser_id", row->advertiser_id);
        ad_json_put_bytes(j, "campaign_id", row->campaign_id);
        ad_json_put_bytes(j, "publisher_id", row->publisher_id);
        ad_json_put_bytes(j, "currency", row->currency);
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

static int end_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct fold *f = arg;
        struct ad_bill_total *t = ad_bill_total(f->result, row->cause, row->currency);

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
        if (f->cell_row.len == 0)
                return 0;
        return ad_wire_bill_decode(df_buf_bytes(&f->cell_row), end_row, f, err);
}

static int add_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct fold *f = arg;

        if (ad_cell_add(&f->billed, &row->billed) && ad_cell_add(&f->realtime, &row->realtime))
                return 0;
        return too_much(err);
}

/* Rows of one cell and cause stand together. */
static int on_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct fold *f = arg;
        struct df_bytes cell = df_bytes(key.data, key.len - PLACE_BYTES);
        int rc = 0;

        if (!df_bytes_eq(cell, df_buf_bytes(&f->cell_key))) {
                rc = end_cell(f, err);
                df_buf_clear(&f->cell_key);
                df_buf_clear(&f->cell_row);
                df_buf_append(&f->cell_key, cell.data, cell.len);
                df_buf_append(&f->cell_row, value.data, value.len);
                f->billed = f->realtime = (struct ad_cell){0};
        }
        if (rc == 0)
                rc = df_buf_check(&f->cell_row, err);
        return rc == 0 ? ad_wire_bill_decode(value, add_row, f, err) : rc;
}

static int write_rows(struct fold *f, const char *path, struct df_error *err)
{
        uint8_t digest[DF_SHA256_SIZE];
        struct df_bytes all = {0};
        uint64_t size;
        int rc;

        f->file = fopen(path, "we");
        if (!f->file)
                return df_fail_errno(err, DF_EIO, "write %s", path);
        rc = df_kv_range(f->kv, NULL, all, all, on_row, f, err);
        if (rc == 0)
                rc = end_cell(f, err);
        if (fclose(f->file) != 0 && rc == 0)
                rc = df_fail_errno(err, DF_EIO, "write %s", path);
        if (rc == 0)
                rc = df_sha256_file(path, digest, &size, err);
        if (rc == 0)
                df_hex(digest, sizeof(digest), f->result->digest);
        return rc;
}

static int fold(struct fold *f, struct df_log *log, const char *path, struct df_error *err)
{
        struct ad_replay_names names;
        int rc = 0;

        ad_replay_names(f->run, &names);
        for (f->partition = 0; rc == 0 && f->partition < f->run->pin.topic.partitions;
             f->partition++)
                rc = ad_replay_read(log, f->run, names.topic[AD_OUT_BILL], f->partition,
                                    take_collection, f, err);
        return rc == 0 ? write_rows(f, path, err) : rc;
}

int ad_bill_fold(struct df_log *log, const struct ad_replay *run, const char *out,
                 struct ad_bill_result *ret, struct df_error *err)
{
        struct fold f = {.run = run, .result = ret};
        char store[640], path[4096];
        int n, rc;

        (void)snprintf(store, sizeof(store), "%s/fold", run->dir);
        n = snprintf(path, sizeof(path), "%s%s", out ? out : run->dir, out ? ".part" : "/rows");
        rc = n < (int)sizeof(path) ? df_remove_tree(store, err)
                                   : df_fail(err, DF_EINVAL, "--out: the path is too long");
        if (rc == 0)
                rc = df_kv_open(store, NULL, &f.kv, err);
        if (rc == 0)
                rc = fold(&f, log, path, err);
        if (f.kv)
                df_kv_close(f.kv);
        if (rc == 0)
                rc = df_remove_tree(store, err);
        if (rc == 0 && out && rename(path, out) < 0)
                rc = df_fail_errno(err, DF_EIO, "rename %s to %s", path, out);
        if (!out || rc < 0)
                (void)unlink(path); /* mostly there */
        df_buf_release(&f.key);
        df_buf_release(&f.value);
        df_buf_release(&f.cell_key);
        df_buf_release(&f.cell_row);
        df_buf_release(&f.line);
        return rc;
}
