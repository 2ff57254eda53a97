/* query_scan.c - reads the cells of a plan and adds them up by window, group and currency. */
#include "df/run.h"
#include "jobs/api/query_private.h"

#define RANGES_MAX 20000 /* single reads; beyond that everything is read and filtered */
#define RANGE_COST 8     /* cells that opening a range is worth, in a budget */
#define CANCEL_EVERY 4096

struct scan { /* of one segment */
        struct adi_scan *s;
        const struct ad_grouping *g;
        const struct adi_segment *segment;
        size_t skip;                /* key bytes before the bucket */
        uint32_t pos[AD_DIM_COUNT]; /* of group_by[i] in the grouping's order */
        uint32_t *index;            /* of windows of the segment, or NULL: all are window 0 */
        struct df_buf key, from, to;
        bool too_many, over_budget, cancelled, expired;
};

/* Counts work; true when the scan should end. */
static bool spent(struct scan *x, uint64_t cost)
{
        struct adi_scan *s = x->s;
        uint64_t before = s->cells;

        s->cells += cost;
        if (s->c->budget && s->cells > s->c->budget)
                x->over_budget = true;
        if (s->cells > AD_QUERY_CELLS_MAX)
                x->too_many = true;
        if (s->c->cancel_ms && s->cells / CANCEL_EVERY != before / CANCEL_EVERY &&
            df_monotonic_ms() >= atomic_load(s->c->cancel_ms))
                x->cancelled = true;
        return x->over_budget || x->too_many || x->cancelled;
}

static bool passes(const struct scan *x, const struct ad_cell_key *k)
{
        const struct ad_query *q = x->s->q;

        for (uint32_t i = 0; i < x->g->dim_count; i++) {
                const struct ad_filter *f = &q->filters[x->g->dims[i]];
                size_t n = 0;

                while (n < f->count && !df_bytes_eq(f->values[n], k->dims[i]))
                        n++;
                if (f->count && n == f->count)
                        return false;
        }
        return true;
}

static int on_cell(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct scan *x = arg;
        struct ad_cell_key k;
        struct ad_cell cell, *sum;
        bool fresh;

        if (spent(x, 1))
                return 1;
        if (!ad_key_cell_decode(key, x->skip, x->g, &k) || !ad_cell_decode(value, &cell))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged cell");
        if (k.window < x->segment->from || k.window >= x->segment->to || !passes(x, &k))
                return 0;
        df_buf_clear(&x->key);
        df_put_u32be(&x->key, x->index ? x->index[k.window - x->segment->from] : 0);
        for (uint32_t i = 0; i < x->s->q->group_count; i++)
                df_put_lstr(&x->key, k.dims[x->pos[i]]);
        df_put_lstr(&x->key, k.currency);
        sum = x->key.failed ? NULL : ad_map_put(&x->s->groups, df_buf_bytes(&x->key), &fresh);
        if (!sum)
                return df_fail(err, DF_ENOMEM, "rows of an answer");
        if (x->s->groups.count > AD_QUERY_ROWS_MAX) {
                x->too_many = true;
                return 1;
        }
        if (!ad_cell_add(sum, &cell))
                return df_fail(err, DF_ELIMIT, "a sum exceeds 128 bits");
        return 0;
}

static int read_range(struct scan *x,
                      int (*fn)(void *, struct df_bytes, struct df_bytes, struct df_error *),
                      struct df_error *err)
{
        int rc = df_buf_check(&x->from, err);

        if (rc == 0 && spent(x, RANGE_COST))
                return 0;
        if (rc == 0)
                rc = df_buf_check(&x->to, err);
        if (rc == 0)
                rc = df_kv_range(ad_view_kv(x->s->c->view), x->s->snapshot, df_buf_bytes(&x->from),
                                 df_buf_bytes(&x->to), fn, x, err);
        return rc;
}

/* All buckets that the segment touches, of one kind of key. */
static void whole_range(struct scan *x, uint8_t kind)
{
        const struct ad_query *q = x->s->q;

        df_buf_clear(&x->from);
        df_buf_clear(&x->to);
        ad_key_bucket(&x->from, kind, x->segment->level, q->tenant_id, q->grouping,
                      ad_bucket(x->segment->from));
        ad_key_bucket(&x->to, kind, x->segment->level, q->tenant_id, q->grouping,
                      ad_bucket(x->segment->to - 1) + 1);
}

static int read_leads(struct scan *x, const struct ad_filter *f, struct df_error *err)
{
        const struct ad_query *q = x->s->q;
        int rc = 0;

        for (uint32_t at = x->segment->from; rc == 0 && at < x->segment->to;) {
                uint32_t end = (ad_bucket(at) + 1) << AD_BUCKET_BITS;

                end = end > x->segment->to || end < at ? x->segment->to : end;
                for (size_t i = 0; rc == 0 && i < f->count; i++) {
                        if (x->too_many || x->over_budget || x->cancelled)
                                return 0;
                        df_buf_clear(&x->from);
                        df_buf_clear(&x->to);
                        ad_key_lead(&x->from, x->segment->level, q->tenant_id, q->grouping, at,
                                    f->values[i]);
                        df_buf_append(&x->to, x->from.data, x->from.len);
                        if (!x->to.failed && x->to.len >= 4) {
                                x->to.len -= 4; /* the window: up to the bucket's end */
                                df_put_u32be(&x->to, end);
                        }
                        rc = read_range(x, on_cell, err);
                }
                at = end;
        }
        return rc;
}

static int on_bucket(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct scan *x = arg;
        struct df_reader r = df_reader(value);

        if (spent(x, 1))
                return 1;
        (void)df_get_u64be(&r);
        x->expired = df_get_u8(&r) != 0;
        return x->expired;
}

static int on_other(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct scan *x = arg;
        struct df_reader r = df_reader(key);
        uint32_t window;

        if (spent(x, 1))
                return 1;
        (void)df_get_bytes(&r, x->skip + 4);
        window = df_get_u32be(&r);
        if (!r.bad && window >= x->segment->from && window < x->segment->to)
                x->s->partial[x->index ? x->index[window - x->segment->from] : 0] = true;
        return 0;
}

/* To which window of the answer each window of the segment belongs. */
static int map_windows(struct scan *x, struct df_error *err)
{
        const struct adi_plan *p = x->s->plan;
        const struct ad_zone *account = ad_view_settings(x->s->c->view)->account_zone;
        uint32_t n = x->segment->to - x->segment->from, w = 0;

        if (p->window_count == 1 || spent(x, n / 16))
                return 0;
        x->index = df_arena_alloc(x->s->groups.arena, (size_t)n * sizeof(*x->index));
        if (!x->index)
                return df_fail(err, DF_ENOMEM, "windows of an answer");
        for (uint32_t i = 0; i < n; i++) {
                int64_t start = adi_window_start(x->segment->level, account, x->segment->from + i);

                while (w + 1 < p->window_count && p->bounds[w + 1] <= start)
                        w++;
                x->index[i] = w;
        }
        return 0;
}

static int read_segment(struct scan *x, struct df_error *err)
{
        const struct ad_query *q = x->s->q;
        const struct ad_filter *lead = &q->filters[x->g->dims[ad_lead_index(x->g)]];
        uint64_t buckets = ad_bucket(x->segment->to - 1) - ad_bucket(x->segment->from) + 1;
        int rc = map_windows(x, err);

        if (rc == 0 && ad_view_any_other(x->s->c->view, q->grouping)) {
                whole_range(x, 'o');
                rc = read_range(x, on_other, err);
        }
        if (rc < 0)
                return rc;
        if (lead->count && buckets * lead->count <= RANGES_MAX)
                return read_leads(x, lead, err);
        whole_range(x, 'c');
        return read_range(x, on_cell, err);
}

/* W1: rows that a question needs, and that were there once, are gone. */
static int check_expired(struct scan *x, struct ad_fault *f)
{
        static const char *const levels[] = {"minute", "quarter-hour", "day", "day"};
        struct df_error err = {0};

        if (!ad_view_any_expired(x->s->c->view, x->segment->level))
                return 0;
        whole_range(x, 'b');
        if (read_range(x, on_bucket, &err) < 0)
                return ad_fault_error(f, &err);
        if (!x->expired)
                return 0;
        return ad_fault_set(f, 400, "rows_expired", "from",
                            "%s rows in this range are no longer kept; larger windows may still be",
                            levels[x->segment->level]);
}

static int why_ended(const struct scan *x, struct ad_fault *f)
{
        if (x->over_budget)
                return adi_over_budget(f);
        if (x->cancelled)
                return ad_fault_set(f, 503, "unavailable", NULL, "the server stops: ask again");
        if (x->too_many)
                return ad_fault_set(f, 400, "range_too_large", "from",
                                    "more than %d rows, or %d cells to read: ask for a shorter "
                                    "range, fewer dimensions or a filter",
                                    AD_QUERY_ROWS_MAX, AD_QUERY_CELLS_MAX);
        return 0;
}

int adi_over_budget(struct ad_fault *f)
{
        return ad_fault_set(f, AD_STATUS_OVER_BUDGET, "over_budget", NULL, "a long query");
}

static int scan_segment(struct adi_scan *s, const struct adi_segment *segment, struct ad_fault *f)
{
        struct scan x = {.s = s, .segment = segment};
        struct df_error err = {0};
        int rc;

        x.g = &ad_view_settings(s->c->view)->groupings->list[s->q->grouping];
        for (uint32_t i = 0; i < s->q->group_count; i++)
                while (x.g->dims[x.pos[i]] != s->q->group_by[i])
                        x.pos[i]++;
        ad_key_bucket(&x.key, 'c', segment->level, s->q->tenant_id, s->q->grouping, 0);
        x.skip = x.key.len - 4;
        rc = check_expired(&x, f);
        if (rc == 0 && !x.over_budget && !x.cancelled && read_segment(&x, &err) < 0)
                rc = ad_fault_error(f, &err);
        if (rc == 0)
                rc = why_ended(&x, f);
        df_buf_release(&x.key);
        df_buf_release(&x.from);
        df_buf_release(&x.to);
        return rc;
}

int adi_scan(struct adi_scan *s, struct ad_fault *f)
{
        for (size_t i = 0; i < s->plan->segment_count; i++)
                if (scan_segment(s, &s->plan->segments[i], f) < 0)
                        return -1;
        return 0;
}
