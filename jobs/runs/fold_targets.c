/* fold_targets.c - what a run's result means for the books: which cells changed, and what they are
 * now (fold.h). */
#include "jobs/runs/fold_private.h"

static int too_much(struct df_error *err)
{
        return df_fail(err, DF_ELIMIT, "a sum exceeds 128 bits");
}

/* ---- differences of a comparison ---- */

static int clear_kind(struct ad_fold *f, char kind, struct df_error *err)
{
        struct df_bytes from, to;
        uint8_t ends[2];

        adi_fold_kind(kind, ends, &from, &to);
        df_store_del_range(df_kv_store(f->kv), from, to);
        f->written = 0;
        return df_store_commit(df_kv_store(f->kv), err);
}

int ad_fold_differences_begin(struct ad_fold *f, struct df_error *err)
{
        f->difference = 0;
        return clear_kind(f, 'n', err);
}

int ad_fold_difference(struct ad_fold *f, const struct ad_bill_row *row, struct df_error *err)
{
        int rc;

        adi_put_cell_key(&f->key, 'n', row);
        df_put_u8(&f->key, (uint8_t)row->cause);
        df_put_u64be(&f->key, f->difference++);
        df_buf_clear(&f->value);
        ad_wire_bill_row(&f->value, row);
        rc = adi_fold_put(f, err);
        return rc == 0 ? adi_fold_commit_some(f, err) : rc;
}

struct difference { /* the differences of a cell and cause being added up */
        struct ad_fold *f;
        struct df_buf key, row; /* 'o' ..., and the first row */
        struct df_buf old;
        struct ad_cell realtime;
};

static int add_difference(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct difference *d = arg;

        return ad_cell_add_signed(&d->realtime, &row->realtime) ? 0 : too_much(err);
}

/* key: of an 'o'. row: names of a cell that has no other part; or empty. */
static int put_dirty(struct ad_fold *f, struct df_bytes key, struct df_bytes row,
                     struct df_error *err)
{
        df_buf_clear(&f->key);
        df_buf_clear(&f->value);
        df_buf_append(&f->value, row.data, row.len);
        df_buf_append(&f->key, key.data, key.len - 1); /* without the cause */
        if (f->key.len)
                f->key.data[0] = 'd';
        return adi_fold_put(f, err);
}

static int put_summed(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct difference *d = arg;
        struct ad_fold *f = d->f;
        struct ad_bill_row sum = *row;
        bool found = false;
        int rc;

        sum.realtime = d->realtime;
        df_buf_clear(&f->mark);
        ad_wire_bill_row(&f->mark, &sum);
        rc = df_buf_check(&f->mark, err);
        if (rc == 0)
                rc = df_kv_get(f->kv, NULL, df_buf_bytes(&d->key), &d->old, &found, err);
        if (rc < 0 || (found && df_bytes_eq(df_buf_bytes(&d->old), df_buf_bytes(&f->mark))))
                return rc;
        rc = put_dirty(f, df_buf_bytes(&d->key), (struct df_bytes){0}, err);
        df_store_put(df_kv_store(f->kv), df_buf_bytes(&d->key), df_buf_bytes(&f->mark));
        return rc == 0 ? adi_fold_commit_some(f, err) : rc;
}

static int end_difference(struct difference *d, struct df_error *err)
{
        if (d->row.len == 0)
                return 0;
        return ad_wire_bill_decode(df_buf_bytes(&d->row), put_summed, d, err);
}

static int on_difference(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct difference *d = arg;
        struct df_bytes cell = df_bytes(key.data + 1, key.len - 1 - ADI_NUMBER_BYTES);
        int rc = 0;

        if (d->key.len == 0 || !df_bytes_eq(cell, df_bytes(d->key.data + 1, d->key.len - 1))) {
                rc = end_difference(d, err);
                df_buf_clear(&d->key);
                df_buf_clear(&d->row);
                df_put_u8(&d->key, 'o');
                df_buf_append(&d->key, cell.data, cell.len);
                df_buf_append(&d->row, value.data, value.len);
                d->realtime = (struct ad_cell){0};
        }
        if (rc == 0)
                rc = df_buf_check(&d->key, err);
        if (rc == 0)
                rc = df_buf_check(&d->row, err);
        return rc == 0 ? ad_wire_bill_decode(value, add_difference, d, err) : rc;
}

static int stop_at_once(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        (void)key;
        (void)value;
        (void)err;
        *(bool *)arg = true;
        return 1;
}

/* One that the last comparison found, and this one did not. */
static int on_old(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct difference *d = arg;
        struct ad_fold *f = d->f;
        bool still = false;
        int rc;

        df_buf_clear(&d->key);
        df_buf_append(&d->key, key.data, key.len);
        df_buf_clear(&d->row);
        df_buf_append(&d->row, key.data, key.len);
        rc = df_buf_check(&d->key, err);
        if (rc == 0)
                rc = df_buf_check(&d->row, err);
        if (rc < 0)
                return rc;
        d->key.data[0] = 'n';
        d->row.data[0] = 'n';
        df_put_u64be(&d->row, UINT64_MAX);
        rc = df_buf_check(&d->row, err);
        if (rc == 0)
                rc = df_kv_range(f->kv, NULL, df_buf_bytes(&d->key), df_buf_bytes(&d->row),
                                 stop_at_once, &still, err);
        if (rc < 0 || still)
                return rc < 0 ? rc : 0;
        rc = put_dirty(f, key, value, err);
        df_store_del(df_kv_store(f->kv), key);
        return rc == 0 ? adi_fold_commit_some(f, err) : rc;
}

int ad_fold_differences_end(struct ad_fold *f, struct df_error *err)
{
        struct difference d = {.f = f};
        struct df_bytes from, to;
        uint8_t ends[2];
        int rc = df_store_commit(df_kv_store(f->kv), err);

        adi_fold_kind('n', ends, &from, &to);
        if (rc == 0)
                rc = df_kv_range(f->kv, NULL, from, to, on_difference, &d, err);
        if (rc == 0)
                rc = end_difference(&d, err);
        adi_fold_kind('o', ends, &from, &to);
        if (rc == 0) /* what was just put is in both */
                rc = df_kv_range(f->kv, NULL, from, to, on_old, &d, err);
        if (rc == 0)
                rc = df_store_commit(df_kv_store(f->kv), err);
        if (rc == 0)
                rc = clear_kind(f, 'n', err);
        df_buf_release(&d.key);
        df_buf_release(&d.row);
        df_buf_release(&d.old);
        return rc;
}

/* ---- targets ---- */

struct targets {
        struct ad_fold *const *folds;
        size_t count;
        int (*fn)(void *arg, const struct ad_target *t, struct df_error *err);
        void *arg;
        struct df_buf from, to, row; /* the cell's keys, and its first row */
        struct ad_cause_cell causes[AD_CAUSE_COUNT];
        bool has[AD_CAUSE_COUNT];
};

static int add_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct targets *t = arg;
        struct ad_cause_cell *c = &t->causes[row->cause];

        t->has[row->cause] = true;
        if (!ad_cell_add_signed(&c->billed, &row->billed) ||
            !ad_cell_add_signed(&c->realtime, &row->realtime))
                return too_much(err);
        return 0;
}

static int on_part(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct targets *t = arg;

        (void)key;
        if (t->row.len == 0)
                df_buf_append(&t->row, value.data, value.len);
        if (t->row.failed)
                return df_buf_check(&t->row, err);
        return ad_wire_bill_decode(value, add_row, t, err);
}

static int give(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct targets *t = arg;
        struct ad_cause_cell causes[AD_CAUSE_COUNT];
        struct ad_target target = {
                .quarter = row->quarter,
                .tenant_id = row->tenant_id,
                .advertiser_id = row->advertiser_id,
                .campaign_id = row->campaign_id,
                .publisher_id = row->publisher_id,
                .currency = row->currency,
                .causes = causes,
        };

        for (uint32_t c = 0; c < AD_CAUSE_COUNT; c++)
                if (t->has[c]) {
                        causes[target.cause_count] = t->causes[c];
                        causes[target.cause_count++].cause = c;
                }
        return t->fn(t->arg, &target, err);
}

/* A cell's keys of a kind: [kind cell, kind cell 0xff...): a cause is below 0xff. */
static int read_parts(struct targets *t, struct ad_fold *f, char kind, struct df_bytes cell,
                      struct df_error *err)
{
        int rc;

        df_buf_clear(&t->from);
        df_buf_clear(&t->to);
        df_put_u8(&t->from, (uint8_t)kind);
        df_put_u8(&t->to, (uint8_t)kind);
        df_buf_append(&t->from, cell.data, cell.len);
        df_buf_append(&t->to, cell.data, cell.len);
        df_put_u8(&t->to, 0xff);
        rc = df_buf_check(&t->from, err);
        if (rc == 0)
                rc = df_buf_check(&t->to, err);
        return rc == 0 ? df_kv_range(f->kv, NULL, df_buf_bytes(&t->from), df_buf_bytes(&t->to),
                                     on_part, t, err)
                       : rc;
}

/* A cell whose only difference is over has no part left: the mark has its names, the target is
 * zero. */
static int on_dirty(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct targets *t = arg;
        struct df_bytes cell = df_bytes(key.data + 1, key.len - 1);
        int rc = 0;

        memset(t->causes, 0, sizeof(t->causes));
        memset(t->has, 0, sizeof(t->has));
        df_buf_clear(&t->row);
        for (size_t i = 0; rc == 0 && i < t->count; i++) {
                rc = read_parts(t, t->folds[i], 'c', cell, err);
                if (rc == 0)
                        rc = read_parts(t, t->folds[i], 'o', cell, err);
        }
        if (rc == 0 && t->row.len == 0)
                df_buf_append(&t->row, value.data, value.len);
        if (rc == 0 && t->row.len == 0)
                return df_fail(err, DF_ECORRUPT, "a changed cell is not in the store %s",
                               t->folds[0]->dir);
        return rc == 0 ? ad_wire_bill_decode(df_buf_bytes(&t->row), give, t, err) : rc;
}

struct marking {
        struct ad_fold *f;
        struct df_buf last;
        size_t behind; /* bytes of a key behind the cell */
};

static int mark_cell(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct marking *m = arg;
        struct ad_fold *f = m->f;
        struct df_bytes cell = df_bytes(key.data + 1, key.len - 1 - m->behind);
        int rc;

        (void)value;
        if (df_bytes_eq(cell, df_buf_bytes(&m->last)))
                return 0;
        df_buf_clear(&m->last);
        df_buf_append(&m->last, cell.data, cell.len);
        df_buf_clear(&f->key);
        df_buf_clear(&f->value);
        df_put_u8(&f->key, 'd');
        df_buf_append(&f->key, cell.data, cell.len);
        rc = df_buf_check(&m->last, err);
        if (rc == 0)
                rc = adi_fold_put(f, err);
        return rc == 0 ? adi_fold_commit_some(f, err) : rc;
}

static int mark_all(struct ad_fold *f, struct df_error *err)
{
        static const struct {
                char kind;
                size_t behind;
        } kinds[] = {{'c', 1 + ADI_PLACE_BYTES}, {'o', 1}};
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < sizeof(kinds) / sizeof(kinds[0]); i++) {
                struct marking m = {.f = f, .behind = kinds[i].behind};
                struct df_bytes from, to;
                uint8_t ends[2];

                adi_fold_kind(kinds[i].kind, ends, &from, &to);
                rc = df_kv_range(f->kv, NULL, from, to, mark_cell, &m, err);
                df_buf_release(&m.last);
        }
        return rc == 0 ? df_store_commit(df_kv_store(f->kv), err) : rc;
}

/* Marks of one fold into the first one's. */
static int copy_mark(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct ad_fold *first = arg;

        df_buf_clear(&first->key);
        df_buf_clear(&first->value);
        df_buf_append(&first->key, key.data, key.len);
        df_buf_append(&first->value, value.data, value.len);
        if (adi_fold_put(first, err) < 0)
                return err ? err->code : DF_ENOMEM;
        return adi_fold_commit_some(first, err);
}

static int join_marks(struct ad_fold *const *folds, size_t count, struct df_error *err)
{
        struct df_bytes from, to;
        uint8_t ends[2];
        int rc = 0;

        adi_fold_kind('d', ends, &from, &to);
        for (size_t i = 1; rc == 0 && i < count; i++)
                rc = df_kv_range(folds[i]->kv, NULL, from, to, copy_mark, folds[0], err);
        return rc == 0 ? df_store_commit(df_kv_store(folds[0]->kv), err) : rc;
}

int ad_fold_targets(struct ad_fold *const *folds, size_t count, bool whole,
                    int (*fn)(void *arg, const struct ad_target *t, struct df_error *err),
                    void *arg, struct df_error *err)
{
        struct targets t = {.folds = folds, .count = count, .fn = fn, .arg = arg};
        struct df_bytes from, to;
        uint8_t ends[2];
        int rc = 0;

        for (size_t i = 0; rc == 0 && whole && i < count; i++)
                rc = mark_all(folds[i], err);
        if (rc == 0)
                rc = join_marks(folds, count, err);
        adi_fold_kind('d', ends, &from, &to);
        if (rc == 0)
                rc = df_kv_range(folds[0]->kv, NULL, from, to, on_dirty, &t, err);
        df_buf_release(&t.from);
        df_buf_release(&t.to);
        df_buf_release(&t.row);
        return rc;
}

int ad_fold_posted(struct ad_fold *const *folds, size_t count, struct df_error *err)
{
        struct df_bytes from, to;
        uint8_t ends[2];
        int rc = 0;

        adi_fold_kind('d', ends, &from, &to);
        for (size_t i = 0; rc == 0 && i < count; i++) {
                struct df_store *kv = df_kv_store(folds[i]->kv);

                df_store_del_range(kv, from, to);
                df_store_put(kv, df_bytes("w", 1), df_bytes("w", 1));
                folds[i]->posted = true;
                rc = df_store_commit(kv, err);
        }
        return rc;
}

/* ---- cells of an account ---- */

struct cells {
        struct ad_fold *into; /* its marks 'x' */
        const struct ad_account *account;
        struct df_buf last;
        size_t behind; /* bytes of a key behind the cell */
        bool wanted;
        bool *ret_any;
};

static int look_at_names(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct cells *c = arg;

        (void)err;
        c->wanted = df_bytes_eq(row->tenant_id, c->account->tenant_id) &&
                    (c->account->advertiser_id.len == 0 ||
                     df_bytes_eq(row->advertiser_id, c->account->advertiser_id));
        return 0;
}

static int mark_wanted(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct cells *c = arg;
        struct df_bytes cell = df_bytes(key.data + 1, key.len - 1 - c->behind);
        int rc;

        if (df_bytes_eq(cell, df_buf_bytes(&c->last)))
                return 0;
        df_buf_clear(&c->last);
        df_buf_append(&c->last, cell.data, cell.len);
        rc = df_buf_check(&c->last, err);
        if (rc == 0)
                rc = ad_wire_bill_decode(value, look_at_names, c, err);
        if (rc < 0 || !c->wanted)
                return rc;
        *c->ret_any = true;
        df_buf_clear(&c->into->key);
        df_buf_clear(&c->into->value);
        df_put_u8(&c->into->key, 'x');
        df_buf_append(&c->into->key, cell.data, cell.len);
        rc = adi_fold_put(c->into, err);
        return rc == 0 ? adi_fold_commit_some(c->into, err) : rc;
}

/* Of the rows and differences of one fold in the quarters [from, to). */
static int mark_account(struct ad_fold *f, struct cells *c, uint64_t from, uint64_t to,
                        struct df_error *err)
{
        static const struct {
                char kind;
                size_t behind;
        } kinds[] = {{'c', 1 + ADI_PLACE_BYTES}, {'o', 1}};
        struct df_buf ends[2] = {{0}, {0}};
        int rc = 0;

        for (int i = 0; rc == 0 && i < 2; i++) {
                for (int e = 0; rc == 0 && e < 2; e++) {
                        df_buf_clear(&ends[e]);
                        df_put_u8(&ends[e], (uint8_t)kinds[i].kind);
                        df_put_u64be(&ends[e], e ? to : from);
                        rc = df_buf_check(&ends[e], err);
                }
                df_buf_clear(&c->last);
                c->behind = kinds[i].behind;
                if (rc == 0)
                        rc = df_kv_range(f->kv, NULL, df_buf_bytes(&ends[0]),
                                         df_buf_bytes(&ends[1]), mark_wanted, c, err);
        }
        df_buf_release(&ends[0]);
        df_buf_release(&ends[1]);
        return rc;
}

int ad_fold_cells(struct ad_fold *const *folds, size_t count, const struct ad_account *account,
                  uint64_t from, uint64_t to, bool *ret_has,
                  int (*fn)(void *arg, const struct ad_target *t, struct df_error *err), void *arg,
                  struct df_error *err)
{
        struct targets t = {.folds = folds, .count = count, .fn = fn, .arg = arg};
        struct cells c = {.into = folds[0], .account = account};
        struct df_bytes first, end;
        uint8_t ends[2];
        int rc = clear_kind(folds[0], 'x', err);

        for (size_t i = 0; rc == 0 && i < count; i++) {
                bool any = false;

                c.ret_any = ret_has ? &ret_has[i] : &any;
                *c.ret_any = false;
                rc = mark_account(folds[i], &c, from, to, err);
        }
        folds[0]->written = 0;
        if (rc == 0)
                rc = df_store_commit(df_kv_store(folds[0]->kv), err);
        adi_fold_kind('x', ends, &first, &end);
        if (rc == 0)
                rc = df_kv_range(folds[0]->kv, NULL, first, end, on_dirty, &t, err);
        if (rc == 0)
                rc = clear_kind(folds[0], 'x', err);
        df_buf_release(&c.last);
        df_buf_release(&t.from);
        df_buf_release(&t.to);
        df_buf_release(&t.row);
        return rc;
}
