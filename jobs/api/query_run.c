/* query_run.c - a question to its rows: windows, sums, state, order, totals. */
#include <stdlib.h>

#include "jobs/api/query_private.h"

int adi_no_memory(struct ad_fault *f)
{
        struct df_error err = {0};

        (void)df_fail(&err, DF_ENOMEM, "an answer");
        return ad_fault_error(f, &err);
}

/* ---- rows ---- */

static bool decode_group(const struct ad_map_entry *e, uint32_t dims, bool bill,
                         struct df_arena *arena, struct ad_result_row *row)
{
        struct df_reader r = df_reader(e->key);
        struct df_bytes *d = df_arena_alloc(arena, (dims + 1) * sizeof(*d));

        if (!d)
                return false;
        row->window = df_get_u32be(&r);
        for (uint32_t i = 0; i < dims; i++)
                d[i] = df_get_lstr(&r);
        row->dims = d;
        row->currency = df_get_lstr(&r);
        memcpy(&row->cell, e->value, sizeof(row->cell));
        if (bill)
                row->bill = (const struct ad_result_bill *)e->value;
        return true;
}

static int by_group(const struct ad_result_row *a, const struct ad_result_row *b, uint32_t dims)
{
        int c;

        for (uint32_t i = 0; i < dims; i++)
                if ((c = df_bytes_cmp(a->dims[i], b->dims[i])) != 0)
                        return c;
        return df_bytes_cmp(a->currency, b->currency);
}

struct order {
        const struct ad_query *q;
};

/* a / b against c / d, where no denominator is the smallest. */
static int by_ratio(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
        unsigned __int128 x = (unsigned __int128)a * d, y = (unsigned __int128)c * b;

        if (b == 0 || d == 0)
                return (b != 0) - (d != 0);
        return (x > y) - (x < y);
}

#define COMPARE(x, y) (((x) > (y)) - ((x) < (y)))

static int by_measure(const struct ad_result_row *a, const struct ad_result_row *b,
                      enum ad_order order)
{
        const struct ad_cell *x = &a->cell, *y = &b->cell;

        switch (order) {
        case AD_ORDER_IMPRESSIONS:
                return COMPARE(x->impressions, y->impressions);
        case AD_ORDER_CLICKS:
                return COMPARE(x->clicks, y->clicks);
        case AD_ORDER_CONVERSIONS:
                return COMPARE(x->conversions, y->conversions);
        case AD_ORDER_SPEND:
                return COMPARE(x->spend, y->spend);
        case AD_ORDER_PAYOUT:
                return COMPARE(x->payout, y->payout);
        case AD_ORDER_VALUE:
                return COMPARE(x->value, y->value);
        case AD_ORDER_CTR:
                return by_ratio(x->clicks, x->impressions, y->clicks, y->impressions);
        case AD_ORDER_CVR:
                return by_ratio(x->conversions, x->clicks, y->conversions, y->clicks);
        case AD_ORDER_DRIFT:
                return adi_bill_by_drift(a->bill, b->bill);
        case AD_ORDER_WINDOW:
        default:
                return COMPARE(a->window, b->window);
        }
}

/* Equal measures stay in order of window, group and currency, so pages never overlap. */
static int by_order(const void *pa, const void *pb, void *arg)
{
        const struct ad_result_row *a = pa, *b = pb;
        const struct ad_query *q = ((const struct order *)arg)->q;
        int c = by_measure(a, b, q->order);

        if (c != 0)
                return q->descending ? -c : c;
        c = COMPARE(a->window, b->window);
        return c ? c : by_group(a, b, q->group_count);
}

static int collect_rows(struct ad_result *r, const struct ad_map *groups, struct ad_fault *f)
{
        r->rows = df_arena_zalloc(&r->arena, (groups->count + 1) * sizeof(*r->rows));
        if (!r->rows)
                return adi_no_memory(f);
        for (struct ad_map_entry *e = groups->first; e; e = e->next)
                if (!decode_group(e, r->group_count, r->view != AD_METRICS_REALTIME, &r->arena,
                                  &r->rows[r->row_count++]))
                        return adi_no_memory(f);
        return 0;
}

static int cmp_group(const void *pa, const void *pb, void *arg)
{
        return by_group(pa, pb, ((const struct order *)arg)->q->group_count);
}

/* fill=zero: each window gets a row of every group that the answer has anywhere. */
static int fill(struct ad_result *r, const struct ad_query *q, uint64_t budget, struct ad_fault *f)
{
        size_t groups = 0, n = r->row_count, all, at = 0;
        struct order o = {q};
        struct ad_result_row *distinct = df_arena_alloc(&r->arena, (n + 1) * sizeof(*distinct));
        struct ad_result_row *rows;

        if (!distinct)
                return adi_no_memory(f);
        memcpy(distinct, r->rows, n * sizeof(*distinct));
        qsort_r(distinct, n, sizeof(*distinct), cmp_group, &o);
        for (size_t i = 0; i < n; i++)
                if (groups == 0 || by_group(&distinct[groups - 1], &distinct[i], q->group_count))
                        distinct[groups++] = distinct[i];
        all = groups * r->window_count;
        if (budget && all > budget)
                return adi_over_budget(f);
        if (all > AD_QUERY_ROWS_MAX)
                return ad_fault_set(f, 400, "range_too_large", "fill",
                                    "fill=zero would give more than %d rows", AD_QUERY_ROWS_MAX);
        rows = df_arena_alloc(&r->arena, (all + 1) * sizeof(*rows));
        if (!rows)
                return adi_no_memory(f);
        /* r->rows is sorted by window and group: merge. */
        for (uint32_t w = 0; w < r->window_count; w++) {
                for (size_t g = 0; g < groups; g++) {
                        struct ad_result_row *to = &rows[w * groups + g];

                        if (at < n && r->rows[at].window == w &&
                            by_group(&r->rows[at], &distinct[g], q->group_count) == 0) {
                                *to = r->rows[at++];
                                continue;
                        }
                        *to = distinct[g];
                        to->window = w;
                        to->cell = (struct ad_cell){0};
                        to->bill = q->view == AD_METRICS_REALTIME ? NULL : &adi_bill_none;
                }
        }
        r->rows = rows;
        r->row_count = all;
        return 0;
}

static int add_totals(struct ad_result *r, struct ad_fault *f)
{
        size_t cap = 8;

        r->totals = df_arena_alloc(&r->arena, cap * sizeof(*r->totals));
        for (size_t i = 0; r->totals && i < r->row_count; i++) {
                size_t t = 0;

                while (t < r->total_count &&
                       !df_bytes_eq(r->totals[t].currency, r->rows[i].currency))
                        t++;
                if (t == cap) {
                        struct ad_total *more = df_arena_alloc(&r->arena, 2 * cap * sizeof(*more));

                        if (more)
                                memcpy(more, r->totals, t * sizeof(*more));
                        r->totals = more;
                        cap *= 2;
                        if (!more)
                                break;
                }
                if (t == r->total_count)
                        r->totals[r->total_count++] =
                                (struct ad_total){.currency = r->rows[i].currency};
                if (!ad_cell_add(&r->totals[t].cell, &r->rows[i].cell))
                        return ad_fault_set(f, 500, "overflow", NULL, "a total exceeds 128 bits");
        }
        if (!r->totals)
                return adi_no_memory(f);
        for (size_t i = 1; i < r->total_count; i++) /* a handful of currencies */
                for (size_t k = i;
                     k > 0 && df_bytes_cmp(r->totals[k - 1].currency, r->totals[k].currency) > 0;
                     k--) {
                        struct ad_total swap = r->totals[k];

                        r->totals[k] = r->totals[k - 1];
                        r->totals[k - 1] = swap;
                }
        return 0;
}

/* ---- what the sources say ---- */

static int describe(struct ad_result *r, const struct ad_query *q, const struct ad_status *s,
                    struct ad_fault *f)
{
        struct ad_live *live = df_arena_alloc(&r->arena, AD_LIVE_MAX * sizeof(*live));
        bool *final = df_arena_zalloc(&r->arena, r->window_count + 1);
        uint32_t *missing =
                df_arena_alloc(&r->arena, (s->outside.missing_count + 1) * sizeof(*missing));
        size_t n;

        if (!live || !final || !missing)
                return adi_no_memory(f);
        n = ad_status_live(s, q->tenant_id, q->from_ms, q->to_ms, live);
        r->watermark_ms = ad_live_watermark(live, n);
        r->completeness = ad_live_completeness(live, n, r->bounds, r->window_count) *
                          (1 - ad_status_late_share(s));
        r->as_of_ms = s->committed_ms;
        for (size_t i = 0; i < r->window_count; i++)
                final[i] = ad_live_final(live, n, r->bounds[i], r->bounds[i + 1]);
        r->final = final;
        memcpy(missing, s->outside.missing, s->outside.missing_count * sizeof(*missing));
        r->missing = missing;
        r->missing_count = s->outside.missing_count;
        return 0;
}

static int sort_and_fill(struct ad_result *r, const struct ad_query *q, uint64_t budget,
                         struct ad_fault *f)
{
        struct ad_query canonical = *q;
        struct order o = {q->fill_zero ? &canonical : q};

        canonical.order = AD_ORDER_WINDOW;
        canonical.descending = false;
        qsort_r(r->rows, r->row_count, sizeof(*r->rows), by_order, &o);
        if (!q->fill_zero)
                return 0;
        if (fill(r, q, budget, f) < 0)
                return -1;
        o.q = q;
        qsort_r(r->rows, r->row_count, sizeof(*r->rows), by_order, &o);
        return 0;
}

static int run(const struct ad_query_context *c, const struct ad_query *q,
               const struct ad_status *status, struct ad_result *r, struct ad_fault *f)
{
        struct adi_plan plan;
        struct adi_scan scan = {.c = c, .q = q, .plan = &plan};
        int rc = adi_plan(q, ad_view_settings(c->view)->account_zone, &r->arena, &plan, f);

        if (rc < 0)
                return rc;
        if (c->budget && plan.window_count > c->budget)
                return adi_over_budget(f);
        r->bounds = plan.bounds;
        r->window_count = plan.window_count;
        scan.partial = df_arena_zalloc(&r->arena, plan.window_count + 1);
        scan.snapshot = df_kv_snapshot_take(ad_view_kv(c->view));
        ad_map_init(&scan.groups, &r->arena, sizeof(struct ad_cell));
        rc = scan.partial && scan.snapshot ? adi_scan(&scan, f) : adi_no_memory(f);
        df_kv_snapshot_drop(scan.snapshot);
        r->partial = scan.partial;
        if (rc == 0)
                rc = collect_rows(r, &scan.groups, f);
        if (rc == 0)
                rc = add_totals(r, f);
        if (rc == 0)
                rc = sort_and_fill(r, q, c->budget, f);
        if (rc == 0)
                rc = describe(r, q, status, f);
        if (rc == 0 && r->row_count == 0)
                adi_hint(c, q, status, r);
        return rc;
}

static int run_bill(const struct ad_query_context *c, const struct ad_query *q, struct ad_result *r,
                    struct ad_fault *f)
{
        struct ad_map groups;

        ad_map_init(&groups, &r->arena, sizeof(struct ad_result_bill));
        if (adi_bill_run(c, q, r, &groups, f) < 0 || collect_rows(r, &groups, f) < 0 ||
            add_totals(r, f) < 0 || adi_bill_totals(r, f) < 0 ||
            sort_and_fill(r, q, c->budget, f) < 0)
                return -1;
        if (r->row_count == 0)
                adi_bill_hint(q, r);
        return 0;
}

/* Whose numbers these are, for the answer to say. */
static int keep_scope(struct ad_result *r, const struct ad_query *q, struct ad_fault *f)
{
        r->tenant_id = df_arena_copy(&r->arena, q->tenant_id);
        if (!r->tenant_id.data && q->tenant_id.len)
                return adi_no_memory(f);
        for (int d = 0; d < AD_DIM_COUNT; d++)
                for (size_t i = 0; i < q->filters[d].count; i++) {
                        struct df_bytes v = q->filters[d].values[i];
                        struct df_bytes copy = df_arena_copy(&r->arena, v);

                        if (!copy.data && v.len)
                                return adi_no_memory(f);
                        r->filters[d].values[r->filters[d].count++] = copy;
                }
        return 0;
}

int ad_query_run(const struct ad_query_context *c, const struct ad_query *q, struct ad_result **ret,
                 struct ad_fault *f)
{
        struct ad_result *r = calloc(1, sizeof(*r));
        struct ad_status *status;
        int rc;

        if (!r)
                return adi_no_memory(f);
        df_arena_init(&r->arena, 0);
        r->view = q->view;
        r->window = q->window;
        r->zone = q->zone;
        r->tz_version = ad_zones_version(c->zones);
        r->from_ms = q->from_ms;
        r->to_ms = q->to_ms;
        memcpy(r->group_by, q->group_by, sizeof(r->group_by));
        r->group_count = q->group_count;
        r->identity = q->identity;
        rc = keep_scope(r, q, f);
        if (rc == 0 && q->view != AD_METRICS_REALTIME) {
                rc = run_bill(c, q, r, f);
        } else if (rc == 0) {
                status = ad_view_status(c->view);
                rc = run(c, q, status, r, f);
                ad_status_release(status);
        }
        if (rc < 0) {
                ad_result_destroy(r);
                return rc;
        }
        *ret = r;
        return 0;
}

void ad_result_destroy(struct ad_result *r)
{
        if (!r)
                return;
        df_arena_release(&r->arena);
        free(r);
}
