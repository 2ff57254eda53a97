/* books_read.c - reading the bill: runs, closes, cells at a point, adjustments. */
#include <stdlib.h>

#include "jobs/api/books_private.h"

#define SCRATCH_BYTES (64u << 20)

int ad_billing_begin(struct ad_billing *b, struct ad_billing_read **ret, struct df_error *err)
{
        struct ad_billing_read *r = calloc(1, sizeof(*r));
        bool found = false;
        int rc;

        if (!r)
                return df_fail(err, DF_ENOMEM, "a read of the bill");
        df_arena_init(&r->scratch, SCRATCH_BYTES);
        r->kv = b->kv;
        r->snapshot = df_kv_snapshot_take(b->kv);
        rc = r->snapshot ? df_kv_get(r->kv, r->snapshot, df_bytes("c", 1), &r->value, &found, err)
                         : df_fail(err, DF_ENOMEM, "a read of the bill");
        if (rc == 0 && found && !adi_books_counters_decode(df_buf_bytes(&r->value), &r->counters))
                rc = adi_books_damaged(err);
        if (rc < 0) {
                ad_billing_end(r);
                return rc;
        }
        *ret = r;
        return 0;
}

void ad_billing_end(struct ad_billing_read *r)
{
        if (!r)
                return;
        if (r->snapshot)
                df_kv_snapshot_drop(r->snapshot);
        df_arena_release(&r->scratch);
        df_buf_release(&r->from);
        df_buf_release(&r->to);
        df_buf_release(&r->value);
        free(r);
}

/* From what is in r->from on, as far as keys begin with it. */
static int scan(struct ad_billing_read *r,
                int (*fn)(void *, struct df_bytes, struct df_bytes, struct df_error *), void *arg,
                struct df_error *err)
{
        int rc;

        adi_books_after(&r->from, &r->to);
        rc = df_buf_check(&r->to, err);
        return rc < 0 ? rc
                      : df_kv_range(r->kv, r->snapshot, df_buf_bytes(&r->from),
                                    df_buf_bytes(&r->to), fn, arg, err);
}

/* ---- runs ---- */

static int decode_run(struct df_bytes value, uint64_t number, struct df_arena *arena,
                      struct ad_billing_run *ret, int64_t *ret_newest_ms, struct df_error *err)
{
        struct df_reader v = df_reader(value);
        struct ad_books_entry e;
        int rc;

        *ret_newest_ms = (int64_t)df_get_u64be(&v);
        *ret = (struct ad_billing_run){.number = number, .seq = df_get_u64be(&v)};
        if (v.bad)
                return adi_books_damaged(err);
        rc = adi_books_entry(df_bytes(v.p, df_reader_left(&v)), AD_BOOKS_APPLIED, arena, &e, err);
        ret->applied = e.applied;
        return rc;
}

static int get_run(struct ad_billing_read *r, uint64_t number, struct df_arena *arena,
                   struct ad_billing_run *ret, int64_t *ret_newest_ms, struct df_error *err)
{
        struct df_bytes copy;
        bool found;
        int rc;

        adi_books_run_key(&r->from, number);
        rc = df_buf_check(&r->from, err);
        if (rc == 0)
                rc = df_kv_get(r->kv, r->snapshot, df_buf_bytes(&r->from), &r->value, &found, err);
        if (rc < 0)
                return rc;
        if (!found)
                return adi_books_damaged(err);
        copy = df_arena_copy(arena, df_buf_bytes(&r->value));
        return copy.data ? decode_run(copy, number, arena, ret, ret_newest_ms, err)
                         : df_fail(err, DF_ENOMEM, "a run");
}

/* The last one up to `number` that was not refused. */
static int taken_run(struct ad_billing_read *r, uint64_t number, struct df_arena *arena,
                     struct ad_billing_run *ret, bool *ret_found, struct df_error *err)
{
        int64_t newest;

        *ret_found = false;
        for (; number > 0 && !*ret_found; number--) {
                int rc = get_run(r, number, arena, ret, &newest, err);

                if (rc < 0)
                        return rc;
                *ret_found = ret->applied.why.len == 0;
        }
        return 0;
}

int ad_billing_last(struct ad_billing_read *r, struct df_arena *arena, struct ad_billing_run *ret,
                    bool *ret_found, struct df_error *err)
{
        return taken_run(r, r->counters.runs, arena, ret, ret_found, err);
}

/* The newest time of the runs so far grows with their number, whatever the clocks did. */
int ad_billing_as_of(struct ad_billing_read *r, int64_t at_ms, struct df_arena *arena,
                     struct ad_billing_run *ret, bool *ret_found, bool *ret_exact,
                     struct df_error *err)
{
        uint64_t low = 1, high = r->counters.runs + 1; /* the first that is later lies in between */

        while (low < high) {
                uint64_t mid = low + (high - low) / 2;
                int64_t newest;
                int rc;

                df_arena_reset(&r->scratch);
                rc = get_run(r, mid, &r->scratch, ret, &newest, err);
                if (rc < 0)
                        return rc;
                if (newest > at_ms)
                        high = mid;
                else
                        low = mid + 1;
        }
        *ret_exact = low <= r->counters.runs;
        return taken_run(r, low - 1, arena, ret, ret_found, err);
}

int ad_billing_find_run(struct ad_billing_read *r, struct df_bytes id, struct df_arena *arena,
                        struct ad_billing_run *ret, bool *ret_found, struct df_error *err)
{
        struct df_reader v;
        uint64_t number;
        int64_t newest;
        int rc;

        adi_books_key(&r->from, 'i', &id, 1);
        rc = df_buf_check(&r->from, err);
        if (rc == 0)
                rc = df_kv_get(r->kv, r->snapshot, df_buf_bytes(&r->from), &r->value, ret_found,
                               err);
        if (rc < 0 || !*ret_found)
                return rc;
        v = df_reader(df_buf_bytes(&r->value));
        number = df_get_u64be(&v);
        return v.bad ? adi_books_damaged(err) : get_run(r, number, arena, ret, &newest, err);
}

struct runs {
        struct ad_billing_read *r;
        int (*fn)(void *arg, const struct ad_billing_run *run, struct df_error *err);
        void *arg;
};

static int on_run(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct runs *x = arg;
        struct ad_billing_run run;
        struct df_reader k = df_reader(df_bytes(key.data + 1, key.len - 1));
        uint64_t number = ~df_get_u64be(&k);
        int64_t newest;
        int rc;

        df_arena_reset(&x->r->scratch);
        rc = decode_run(value, number, &x->r->scratch, &run, &newest, err);
        return rc < 0 ? rc : x->fn(x->arg, &run, err);
}

int ad_billing_runs(struct ad_billing_read *r, uint64_t below,
                    int (*fn)(void *arg, const struct ad_billing_run *run, struct df_error *err),
                    void *arg, struct df_error *err)
{
        struct runs x = {r, fn, arg};
        int rc;

        adi_books_run_key(&r->from, below ? below - 1 : UINT64_MAX);
        adi_books_run_key(&r->to, 0);
        rc = df_buf_check(&r->from, err);
        if (rc == 0)
                rc = df_buf_check(&r->to, err);
        return rc < 0 ? rc
                      : df_kv_range(r->kv, r->snapshot, df_buf_bytes(&r->from),
                                    df_buf_bytes(&r->to), on_run, &x, err);
}

/* ---- closes ---- */

struct closes {
        struct ad_billing_read *r;
        int (*fn)(void *arg, const struct ad_closed *closed, struct df_error *err);
        void *arg;
};

static int on_close(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct closes *x = arg;
        struct ad_books_entry e;
        int rc;

        df_arena_reset(&x->r->scratch);
        rc = adi_books_entry(value, AD_BOOKS_CLOSED, &x->r->scratch, &e, err);
        return rc < 0 ? rc : x->fn(x->arg, &e.closed, err);
}

int ad_billing_closes(struct ad_billing_read *r, struct df_bytes tenant_id,
                      int (*fn)(void *arg, const struct ad_closed *closed, struct df_error *err),
                      void *arg, struct df_error *err)
{
        struct closes x = {r, fn, arg};

        adi_books_key(&r->from, 'p', &tenant_id, 1);
        return scan(r, on_close, &x, err);
}

struct taken {
        struct ad_billing_point point;
        struct adi_close *list; /* in the arena */
        size_t count, cap;
        struct df_arena *arena;
};

static int on_taken(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct taken *x = arg;
        struct df_reader v = df_reader(value);
        struct adi_close c = {.to_quarter = df_get_u64be(&v)};
        struct df_bytes period;
        int64_t at_ms;
        bool whole;

        c.seq = df_get_u64be(&v);
        c.from_seq = df_get_u64be(&v);
        at_ms = (int64_t)df_get_u64be(&v);
        whole = df_get_u8(&v) != 0;
        period = df_get_bytes(&v, df_reader_left(&v));

        if (v.bad || period.len > AD_PERIOD_MAX)
                return adi_books_damaged(err);
        if (c.from_seq > x->point.seq || at_ms > x->point.at_ms)
                return 0;
        c.whole_tenant = whole;
        memcpy(c.open_period, period.data, period.len);
        if (x->count == x->cap) {
                size_t cap = x->cap ? 2 * x->cap : 16;
                struct adi_close *more = df_arena_alloc(x->arena, cap * sizeof(*more));

                if (!more)
                        return df_fail(err, DF_ENOMEM, "closes of an account");
                if (x->count)
                        memcpy(more, x->list, x->count * sizeof(*more));
                x->list = more;
                x->cap = cap;
        }
        x->list[x->count++] = c;
        return 0;
}

/* A tenant closes in one of the two ways, so at most one of the two has anything. */
int adi_books_taken(struct ad_billing_read *r, struct df_bytes tenant_id,
                    struct df_bytes advertiser_id, struct ad_billing_point point,
                    struct df_arena *arena, const struct adi_close **ret, size_t *ret_count,
                    struct df_error *err)
{
        struct df_bytes accounts[2] = {{0}, advertiser_id};
        struct taken x = {.point = point, .arena = arena};
        int rc = 0;

        for (size_t i = 0; rc == 0 && x.count == 0 && i < (advertiser_id.len ? 2 : 1); i++) {
                adi_books_key(&r->from, 'z', (struct df_bytes[]){tenant_id, accounts[i]}, 2);
                rc = scan(r, on_taken, &x, err);
        }
        *ret = x.list;
        *ret_count = x.count;
        return rc;
}

int ad_billing_account(struct ad_billing_read *r, struct df_bytes tenant_id,
                       struct df_bytes advertiser_id, struct ad_billing_point point,
                       struct ad_billing_account *ret, struct df_error *err)
{
        const struct adi_close *list;
        struct df_arena arena;
        size_t count;
        int rc;

        *ret = (struct ad_billing_account){0};
        df_arena_init(&arena, 0);
        rc = adi_books_taken(r, tenant_id, advertiser_id, point, &arena, &list, &count, err);
        if (rc == 0 && count > 0) {
                const struct adi_close *last = &list[count - 1];

                ret->any = true;
                ret->whole_tenant = last->whole_tenant;
                ret->closed_to = last->to_quarter;
                memcpy(ret->open_period, last->open_period, sizeof(ret->open_period));
        }
        df_arena_release(&arena);
        return rc;
}

struct advertisers {
        int (*fn)(void *arg, struct df_bytes advertiser_id, struct df_error *err);
        void *arg;
};

static int on_advertiser(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct advertisers *x = arg;

        return x->fn(x->arg, value, err);
}

int ad_billing_advertisers(struct ad_billing_read *r, struct df_bytes tenant_id,
                           int (*fn)(void *arg, struct df_bytes advertiser_id,
                                     struct df_error *err),
                           void *arg, struct df_error *err)
{
        struct advertisers x = {fn, arg};
        struct df_buf from = {0}, to = {0}; /* its own: books_cells.c reads on inside */
        int rc;

        adi_books_key(&from, 'd', &tenant_id, 1);
        adi_books_after(&from, &to);
        rc = df_buf_check(&to, err);
        if (rc == 0)
                rc = df_kv_range(r->kv, r->snapshot, df_buf_bytes(&from), df_buf_bytes(&to),
                                 on_advertiser, &x, err);
        df_buf_release(&from);
        df_buf_release(&to);
        return rc;
}

/* ---- adjustments ---- */

struct adjustments {
        struct ad_billing_read *r;
        const struct ad_billing_scope *scope;
        int (*fn)(void *arg, const struct ad_posting *posting, struct df_error *err);
        void *arg;
};

static int on_adjustment(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct adjustments *x = arg;
        const struct ad_billing_scope *s = x->scope;
        struct ad_books_entry e;
        int rc;

        if (s->versions && ++*s->versions > s->versions_max)
                return 1;
        df_arena_reset(&x->r->scratch);
        rc = adi_books_entry(value, AD_BOOKS_POSTING, &x->r->scratch, &e, err);
        if (rc < 0 || e.posting.seq > s->point.seq ||
            (s->one_advertiser && !df_bytes_eq(e.posting.target.advertiser_id, s->advertiser_id)))
                return rc;
        return x->fn(x->arg, &e.posting, err);
}

int ad_billing_adjustments(struct ad_billing_read *r, const struct ad_billing_scope *scope,
                           struct df_bytes period,
                           int (*fn)(void *arg, const struct ad_posting *posting,
                                     struct df_error *err),
                           void *arg, struct df_error *err)
{
        struct adjustments x = {r, scope, fn, arg};
        struct df_bytes parts[] = {scope->tenant_id, period, scope->advertiser_id};

        adi_books_key(&r->from, 'a', parts, period.len == 0 ? 1 : scope->one_advertiser ? 3 : 2);
        return scan(r, on_adjustment, &x, err);
}
