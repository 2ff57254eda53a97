/* explain_bill.c - what a number of the bill was made from: the runs that posted its cells, and how
 * far each topic was judged (explain.h). */
#include <stdlib.h>

#include "jobs/api/explain.h"
#include "jobs/api/map.h"
#include "proto/bill.h"

struct scan {
        struct ad_explain_bill *e;
        const struct ad_query *q;
        struct ad_map runs; /* struct ad_explain_run by id */
        uint64_t versions;
        bool too_many;
};

static bool passes(const struct ad_query *q, int dim, struct df_bytes v)
{
        const struct ad_filter *f = &q->filters[dim];
        size_t n = 0;

        while (n < f->count && !df_bytes_eq(f->values[n], v))
                n++;
        return f->count == 0 || n < f->count;
}

static int on_cell(void *arg, const struct ad_billing_cell *cell, struct df_error *err)
{
        const struct ad_posting *posting = cell->posting;
        struct scan *x = arg;
        struct ad_explain_run *run;
        bool fresh;

        if (!passes(x->q, AD_DIM_CAMPAIGN, posting->target.campaign_id) ||
            !passes(x->q, AD_DIM_PUBLISHER, posting->target.publisher_id) ||
            (ad_cell_is_zero(&cell->billed) && !cell->adjusted))
                return 0;
        run = ad_map_put(&x->runs, posting->run, &fresh);
        if (!run)
                return df_fail(err, DF_ENOMEM, "runs");
        x->too_many = x->runs.count > AD_EXPLAIN_RUNS_MAX;
        if (fresh || posting->seq < run->first_seq)
                run->first_seq = posting->seq;
        if (posting->seq > run->last_seq)
                run->last_seq = posting->seq;
        run->cells++;
        x->e->cells++;
        x->e->closed_cells += cell->closed;
        x->e->adjusted_cells += cell->adjusted;
        return x->too_many;
}

static int scan_cells(struct scan *x, struct ad_billing_read *read, struct ad_billing_point point,
                      struct df_error *err)
{
        const struct ad_query *q = x->q;
        const struct ad_filter *f = &q->filters[AD_DIM_ADVERTISER];
        struct ad_billing_scope s = {.tenant_id = q->tenant_id,
                                     .one_advertiser = f->count > 0,
                                     .from_quarter = (uint64_t)(q->from_ms / AD_QUARTER_MS),
                                     .to_quarter = (uint64_t)(q->to_ms / AD_QUARTER_MS),
                                     .point = point,
                                     .versions = &x->versions,
                                     .versions_max = AD_QUERY_CELLS_MAX};
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < (f->count ? f->count : 1); i++) {
                if (f->count)
                        s.advertiser_id = f->values[i];
                rc = ad_billing_cells(read, &s, on_cell, x, err);
        }
        return rc;
}

static int by_seq(const void *x, const void *y)
{
        const struct ad_explain_run *a = x, *b = y;

        return a->first_seq < b->first_seq ? -1 : a->first_seq > b->first_seq;
}

/* What the map has, with what the books say of each run. */
static int tell_runs(struct scan *x, struct ad_billing_read *read, struct df_error *err)
{
        struct ad_explain_bill *e = x->e;
        int rc = 0;

        e->runs = df_arena_zalloc(&e->arena, (x->runs.count + 1) * sizeof(*e->runs));
        if (!e->runs)
                return df_fail(err, DF_ENOMEM, "runs");
        for (const struct ad_map_entry *at = x->runs.first; rc == 0 && at; at = at->next) {
                struct ad_explain_run *run = &e->runs[e->run_count++];

                memcpy(run, at->value, sizeof(*run));
                run->id = at->key;
                rc = ad_billing_find_run(read, run->id, &e->arena, &run->run, &run->known, err);
        }
        qsort(e->runs, e->run_count, sizeof(*e->runs), by_seq);
        return rc;
}

/* ---- segments ---- */

/* Those of the archive that events of the range can lie in: appended not long before it began, and
 * judged by the run. */
static int tell_sources(const struct ad_explain_context *c, struct ad_explain_bill *e,
                        int64_t from_ms, struct df_error *err)
{
        const struct ad_run_begin *begin = &e->run.applied.begin;
        size_t listed = 0;
        int rc = 0;

        e->source_count = begin->vector_count;
        e->sources = df_arena_zalloc(&e->arena,
                                     (e->source_count ? e->source_count : 1) * sizeof(*e->sources));
        if (!e->sources)
                return df_fail(err, DF_ENOMEM, "sources");
        for (size_t i = 0; rc == 0 && i < e->source_count; i++) {
                const struct ad_vector_part *v = &begin->vector[i];
                struct ad_explain_source *s = &e->sources[i];
                size_t len = v->stream.len;

                *s = (struct ad_explain_source){
                        .name = {.generation = v->generation, .partition = v->partition},
                        .to_offset = v->to};
                if (len >= sizeof(s->name.stream))
                        len = sizeof(s->name.stream) - 1;
                memcpy(s->name.stream, v->stream.data, len);
                rc = adi_explain_segments(c, s, from_ms - AD_EXPLAIN_AHEAD_MS, &listed, &e->arena,
                                          err);
        }
        return rc;
}

static int read_books(const struct ad_query *q, struct scan *x, struct ad_billing_read *read,
                      const char *run, struct df_error *err)
{
        struct ad_explain_bill *e = x->e;
        struct ad_billing_point point = {.at_ms = q->has_as_of ? q->as_of_ms : INT64_MAX};
        bool found = false;
        int rc = ad_billing_find_run(read, df_bytes_str(run), &e->arena, &e->run, &found, err);

        if (rc == 0 && !found)
                rc = df_fail(err, DF_EAGAIN, "the books are being read again: ask again");
        point.seq = e->run.seq;
        if (rc == 0)
                rc = scan_cells(x, read, point, err);
        return rc == 0 && !x->too_many ? tell_runs(x, read, err) : rc;
}

int ad_explain_bill_find(const struct ad_explain_context *c, struct ad_billing_read *read,
                         const struct ad_query *q, const char *run, struct ad_explain_bill *ret,
                         struct ad_fault *f)
{
        struct scan x = {.e = ret, .q = q};
        struct df_error err = {0};

        *ret = (struct ad_explain_bill){0};
        df_arena_init(&ret->arena, 0);
        ad_map_init(&x.runs, &ret->arena, sizeof(struct ad_explain_run));
        if (read_books(q, &x, read, run, &err) < 0)
                return ad_fault_error(f, &err);
        if (tell_sources(c, ret, q->from_ms, &err) < 0)
                return ad_fault_log(f, &err);
        if (x.too_many || x.versions > AD_QUERY_CELLS_MAX)
                return ad_fault_set(f, 400, "range_too_large", "from",
                                    "more than %d runs, or %d cells and their versions: ask for a "
                                    "shorter range",
                                    AD_EXPLAIN_RUNS_MAX, AD_QUERY_CELLS_MAX);
        return 0;
}

void ad_explain_bill_release(struct ad_explain_bill *e)
{
        df_arena_release(&e->arena);
        *e = (struct ad_explain_bill){0};
}
