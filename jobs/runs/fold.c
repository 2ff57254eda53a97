/* fold.c - the store behind a run's result: what is read into it, once (fold.h). */
#include "jobs/runs/fold_private.h"

#include <stdio.h>
#include <stdlib.h>

#include "df/trace.h"

/* ---- keys ---- */

void adi_put_cell_key(struct df_buf *b, char kind, const struct ad_bill_row *row)
{
        df_buf_clear(b);
        df_put_u8(b, (uint8_t)kind);
        df_put_u64be(b, row->quarter);
        ad_put_ordered(b, row->tenant_id);
        ad_put_ordered(b, row->advertiser_id);
        ad_put_ordered(b, row->campaign_id);
        ad_put_ordered(b, row->publisher_id);
        ad_put_ordered(b, row->currency);
}

void adi_fold_kind(char kind, uint8_t ret[2], struct df_bytes *ret_from, struct df_bytes *ret_to)
{
        ret[0] = (uint8_t)kind;
        ret[1] = (uint8_t)(kind + 1);
        *ret_from = df_bytes(ret, 1);
        *ret_to = df_bytes(ret + 1, 1);
}

int adi_fold_put(struct ad_fold *f, struct df_error *err)
{
        int rc = df_buf_check(&f->key, err);

        if (rc == 0)
                rc = df_buf_check(&f->value, err);
        if (rc == 0) {
                df_store_put(df_kv_store(f->kv), df_buf_bytes(&f->key), df_buf_bytes(&f->value));
                f->written++;
        }
        return rc;
}

int adi_fold_commit_some(struct ad_fold *f, struct df_error *err)
{
        if (f->written < ADI_COMMIT_EVERY)
                return 0;
        f->written = 0;
        return df_store_commit(df_kv_store(f->kv), err);
}

/* ---- opening ---- */

static int open_store(struct ad_fold *f, struct df_error *err)
{
        uint8_t key = 'w';
        bool found = false;
        int rc = df_kv_open(f->dir, NULL, &f->kv, err);

        if (rc == 0)
                rc = df_kv_get(f->kv, NULL, df_bytes(&key, 1), &f->value, &found, err);
        f->posted = found;
        return rc;
}

static void close_store(struct ad_fold *f)
{
        if (f->kv)
                df_kv_close(f->kv);
        f->kv = NULL;
}

/* It holds nothing that the topic does not. */
static int make_anew(struct ad_fold *f, struct df_error *err)
{
        int rc;

        df_trace(DF_WARN, "fold", "run=%s: what was added up is made again: %s", f->run->id,
                 err ? err->text : "");
        close_store(f);
        rc = df_remove_tree(f->dir, err);
        return rc == 0 ? open_store(f, err) : rc;
}

int ad_fold_open(const struct ad_replay *run, const char *dir, struct ad_fold **ret,
                 struct df_error *err)
{
        struct ad_fold *f = calloc(1, sizeof(*f));
        int rc = 0;

        *ret = NULL;
        if (!f)
                return df_fail(err, DF_ENOMEM, "fold");
        f->run = run;
        if (dir)
                (void)snprintf(f->dir, sizeof(f->dir), "%s", dir);
        else
                (void)snprintf(f->dir, sizeof(f->dir), "%s/fold", run->dir);
        rc = open_store(f, err);
        if (rc == DF_ECORRUPT)
                rc = make_anew(f, err);
        if (rc < 0) {
                ad_fold_close(f);
                return rc;
        }
        *ret = f;
        return 0;
}

void ad_fold_close(struct ad_fold *f)
{
        if (!f)
                return;
        close_store(f);
        df_buf_release(&f->key);
        df_buf_release(&f->value);
        df_buf_release(&f->mark);
        free(f);
}

bool ad_fold_was_posted(const struct ad_fold *f)
{
        return f->posted;
}

bool ad_fold_summary(struct ad_fold *f, uint64_t *ret_rows, char ret_digest[65])
{
        struct adi_summary s;
        bool found = false;

        if (df_kv_get(f->kv, NULL, df_bytes("s", 1), &f->value, &found, NULL) < 0 || !found ||
            f->value.len != sizeof(s))
                return false;
        memcpy(&s, f->value.data, sizeof(s));
        *ret_rows = s.rows;
        memcpy(ret_digest, s.digest, sizeof(s.digest));
        return true;
}

/* ---- reading ---- */

static int take_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct ad_fold *f = arg;
        int rc;

        adi_put_cell_key(&f->key, 'c', row);
        df_put_u8(&f->key, (uint8_t)row->cause);
        df_put_u32be(&f->key, f->partition);
        df_put_u64be(&f->key, f->k);
        df_put_u32be(&f->key, f->number++);
        df_buf_clear(&f->value);
        ad_wire_bill_row(&f->value, row);
        rc = adi_fold_put(f, err);
        if (rc < 0 || !f->posted) /* until then all are posted anyway */
                return rc;
        adi_put_cell_key(&f->key, 'd', row);
        df_buf_clear(&f->value);
        return adi_fold_put(f, err);
}

static void mark_key(struct ad_fold *f)
{
        df_buf_clear(&f->key);
        df_put_u8(&f->key, 'p');
        df_put_u32be(&f->key, f->partition);
}

struct taking {
        struct ad_fold *f;
        struct ad_replay_mark mark;
};

static int take_collection(void *arg, const struct df_collection *c, struct df_error *err)
{
        struct taking *t = arg;
        struct ad_fold *f = t->f;
        int rc = 0;

        f->k = c->origin.k;
        f->number = 0;
        if (c->count)
                df_store_del(df_kv_store(f->kv), df_bytes("s", 1));
        for (size_t i = 0; rc == 0 && i < c->count; i++)
                rc = ad_wire_bill_decode(c->payloads[i], take_row, f, err);
        mark_key(f);
        df_buf_clear(&f->value);
        df_buf_append(&f->value, &t->mark, sizeof(t->mark)); /* this machine's own file */
        if (rc == 0)
                rc = adi_fold_put(f, err);
        if (rc < 0)
                df_store_rollback(df_kv_store(f->kv));
        f->written = 0;
        return rc == 0 ? df_store_commit(df_kv_store(f->kv), err) : rc;
}

static int read_mark(struct ad_fold *f, struct ad_replay_mark *ret, struct df_error *err)
{
        bool found = false;
        int rc;

        ad_replay_mark_start(f->run, f->partition, ret);
        mark_key(f);
        rc = df_kv_get(f->kv, NULL, df_buf_bytes(&f->key), &f->value, &found, err);
        if (rc < 0 || !found)
                return rc;
        if (f->value.len != sizeof(*ret))
                return df_fail(err, DF_ECORRUPT, "%s: a place of another length", f->dir);
        memcpy(ret, f->value.data, sizeof(*ret));
        return 0;
}

static int take_all(struct ad_fold *f, struct df_log *log, struct ad_bill_result *ret,
                    struct df_error *err)
{
        struct ad_replay_names names;
        int rc = 0;

        ad_replay_names(f->run, &names);
        for (f->partition = 0; rc == 0 && f->partition < f->run->pin.topic.partitions;
             f->partition++) {
                struct taking t = {.f = f};

                rc = read_mark(f, &t.mark, err);
                if (rc == 0)
                        rc = ad_replay_read(log, f->run, names.topic[AD_OUT_BILL], f->partition,
                                            &t.mark, take_collection, &t, err);
                ret->final_through_ms[f->partition] = t.mark.final_through_ms;
        }
        return rc;
}

int ad_fold_take(struct ad_fold *f, struct df_log *log, struct ad_bill_result *ret,
                 struct df_error *err)
{
        int rc = take_all(f, log, ret, err);

        if (rc != DF_ECORRUPT)
                return rc;
        rc = make_anew(f, err);
        return rc == 0 ? take_all(f, log, ret, err) : rc;
}
