/* books_cells.c - the cells of the bill at a point: of each the newest version, and what it was
 * when its period was closed. Versions of a cell lie together, the newest first. */
#include "jobs/api/books_private.h"

#define RANGE_COST 8 /* versions that opening an advertiser's range is worth */

struct cells {
        struct ad_billing_read *r;
        const struct ad_billing_scope *scope;
        const struct adi_close *closes; /* of the advertiser's account; those before the cell's */
        size_t close_count, close;      /* quarter are behind */
        uint64_t close_seq;             /* of the close that the cell is in */
        struct df_buf key, value;       /* of the cell that is read; its newest version */
        struct df_arena older, account;
        struct ad_books_entry entry;
        struct ad_billing_cell cell;
        bool found;       /* a version at the point */
        bool wants_close; /* what it was at the close is still to come */
        bool ended;       /* by the caller, or too much was read */
        int (*fn)(void *arg, const struct ad_billing_cell *cell, struct df_error *err);
        void *arg;
};

static int too_large(struct df_error *err)
{
        return df_fail(err, DF_ELIMIT, "a cell of the bill exceeds 128 bits");
}

static int emit(struct cells *x, struct df_error *err)
{
        struct ad_billing_cell *c = &x->cell;
        int rc;

        if (!x->found)
                return 0;
        x->found = x->wants_close = false;
        c->adjusted = c->closed && !ad_cell_eq(&c->at_close, &c->billed);
        rc = x->fn(x->arg, c, err);
        x->ended |= rc != 0;
        return rc;
}

/* Quarters ascend, and so do closes. */
static void find_close(struct cells *x, uint64_t quarter)
{
        struct ad_billing_cell *c = &x->cell;

        while (x->close < x->close_count && x->closes[x->close].to_quarter <= quarter)
                x->close++;
        c->closed = x->close < x->close_count;
        c->closed_to = x->close_count ? x->closes[x->close_count - 1].to_quarter : 0;
        x->close_seq = c->closed ? x->closes[x->close].seq : 0;
}

static int take_newest(struct cells *x, uint64_t seq, struct df_bytes value, struct df_error *err)
{
        struct ad_billing_cell *c = &x->cell;
        const struct ad_target *t = &x->entry.posting.target;
        int rc;

        df_arena_reset(&x->r->scratch);
        df_buf_clear(&x->value);
        df_buf_append(&x->value, value.data, value.len);
        rc = df_buf_check(&x->value, err);
        if (rc == 0)
                rc = adi_books_entry(df_buf_bytes(&x->value), AD_BOOKS_POSTING, &x->r->scratch,
                                     &x->entry, err);
        if (rc < 0)
                return rc;
        *c = (struct ad_billing_cell){.posting = &x->entry.posting};
        if (!ad_target_sums(t, &c->billed, &c->realtime))
                return too_large(err);
        x->found = true;
        find_close(x, t->quarter);
        x->wants_close = c->closed && seq > x->close_seq;
        if (!x->wants_close)
                c->at_close = c->billed;
        return 0;
}

/* The newest version at the close is what was closed. */
static int look_at_close(struct cells *x, uint64_t seq, struct df_bytes value, struct df_error *err)
{
        struct ad_books_entry e;
        struct ad_cell realtime;
        int rc;

        if (seq > x->close_seq)
                return 0;
        x->wants_close = false;
        df_arena_reset(&x->older);
        rc = adi_books_entry(value, AD_BOOKS_POSTING, &x->older, &e, err);
        if (rc < 0)
                return rc;
        return ad_target_sums(&e.posting.target, &x->cell.at_close, &realtime) ? 0 : too_large(err);
}

static int on_version(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct cells *x = arg;
        const struct ad_billing_scope *s = x->scope;
        struct df_reader tail;
        struct df_bytes cell;
        uint64_t seq;
        int rc = 0;

        if (key.len < 8)
                return adi_books_damaged(err);
        if (s->versions && ++*s->versions > s->versions_max) {
                x->ended = true;
                return 1;
        }
        cell = df_bytes(key.data, key.len - 8);
        tail = df_reader(df_bytes(key.data + cell.len, 8));
        if (!df_bytes_eq(cell, df_buf_bytes(&x->key))) {
                rc = emit(x, err);
                df_buf_clear(&x->key);
                df_buf_append(&x->key, cell.data, cell.len);
                if (rc == 0)
                        rc = df_buf_check(&x->key, err);
        }
        seq = ~df_get_u64be(&tail);
        if (rc != 0 || seq > s->point.seq)
                return rc;
        if (!x->found)
                return take_newest(x, seq, value, err);
        return x->wants_close ? look_at_close(x, seq, value, err) : 0;
}

static int one_advertiser(void *arg, struct df_bytes advertiser, struct df_error *err)
{
        struct cells *x = arg;
        const struct ad_billing_scope *s = x->scope;
        struct ad_billing_read *r = x->r;
        struct df_bytes parts[] = {s->tenant_id, advertiser};
        int rc;

        if (s->versions && (*s->versions += RANGE_COST) > s->versions_max) {
                x->ended = true;
                return 1;
        }
        df_arena_reset(&x->account);
        x->close = 0;
        rc = adi_books_taken(r, s->tenant_id, advertiser, s->point, &x->account, &x->closes,
                             &x->close_count, err);

        if (rc < 0)
                return rc;
        adi_books_key(&r->from, 'r', parts, 2);
        adi_books_key(&r->to, 'r', parts, 2);
        df_put_u64be(&r->from, s->from_quarter);
        df_put_u64be(&r->to, s->to_quarter);
        df_buf_clear(&x->key);
        rc = df_buf_check(&r->from, err);
        if (rc == 0)
                rc = df_buf_check(&r->to, err);
        if (rc == 0)
                rc = df_kv_range(r->kv, r->snapshot, df_buf_bytes(&r->from), df_buf_bytes(&r->to),
                                 on_version, x, err);
        if (rc >= 0 && !x->ended)
                rc = emit(x, err);
        return rc < 0 ? rc : x->ended;
}

int ad_billing_cells(struct ad_billing_read *r, const struct ad_billing_scope *scope,
                     int (*fn)(void *arg, const struct ad_billing_cell *cell, struct df_error *err),
                     void *arg, struct df_error *err)
{
        struct cells x = {.r = r, .scope = scope, .fn = fn, .arg = arg};
        int rc;

        if (scope->from_quarter >= scope->to_quarter)
                return 0;
        df_arena_init(&x.older, 0);
        df_arena_init(&x.account, 0);
        rc = scope->one_advertiser
                     ? one_advertiser(&x, scope->advertiser_id, err)
                     : ad_billing_advertisers(r, scope->tenant_id, one_advertiser, &x, err);
        df_arena_release(&x.older);
        df_arena_release(&x.account);
        df_buf_release(&x.key);
        df_buf_release(&x.value);
        return rc < 0 ? rc : 0;
}

/* ---- versions of one cell ---- */

struct history {
        struct ad_billing_read *r;
        uint64_t seq;
        int (*fn)(void *arg, const struct ad_posting *posting, struct df_error *err);
        void *arg;
};

static int on_old(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct history *x = arg;
        struct ad_books_entry e;
        int rc;

        df_arena_reset(&x->r->scratch);
        rc = adi_books_entry(value, AD_BOOKS_POSTING, &x->r->scratch, &e, err);
        if (rc < 0 || e.posting.seq > x->seq)
                return rc;
        return x->fn(x->arg, &e.posting, err);
}

int ad_billing_history(struct ad_billing_read *r, const struct ad_target *cell,
                       struct ad_billing_point point,
                       int (*fn)(void *arg, const struct ad_posting *posting, struct df_error *err),
                       void *arg, struct df_error *err)
{
        struct history x = {r, point.seq, fn, arg};
        int rc;

        adi_books_cell_key(&r->from, cell);
        adi_books_after(&r->from, &r->to);
        rc = df_buf_check(&r->to, err);
        if (rc == 0)
                rc = df_kv_range(r->kv, r->snapshot, df_buf_bytes(&r->from), df_buf_bytes(&r->to),
                                 on_old, &x, err);
        return rc < 0 ? rc : 0;
}
