/* query_bill.c - GET /metrics of the bill: cells at the point of a run, grouped into windows. */
#include <stdio.h>

#include "df/run.h"
#include "jobs/api/query_private.h"

#define CANCEL_EVERY 4096

const struct ad_result_bill adi_bill_none;

/* ---- what is not kept ---- */

static bool is_kept(int dim)
{
        return dim == AD_DIM_ADVERTISER || dim == AD_DIM_CAMPAIGN || dim == AD_DIM_PUBLISHER;
}

static void add_name(char *text, size_t size, int dim)
{
        size_t n = strlen(text);

        if (n < size)
                (void)snprintf(text + n, size - n, "%s%s", n ? ", " : "", ad_dim_names[dim]);
}

int adi_bill_check(const struct ad_query *q, struct ad_fault *f)
{
        const char *field = "group_by";
        char missing[160] = "";

        if (q->window == AD_WINDOW_MINUTE)
                return ad_fault_set(f, 400, "window_not_billed", "window",
                                    "the bill is kept by quarter hours: window is hour, day, month "
                                    "or total");
        for (int d = 0; d < AD_DIM_COUNT; d++) {
                bool wanted = q->filters[d].count > 0;

                if (is_kept(d))
                        continue;
                field = wanted ? ad_dim_names[d] : field;
                for (uint32_t i = 0; i < q->group_count; i++)
                        wanted |= q->group_by[i] == d;
                if (wanted)
                        add_name(missing, sizeof(missing), d);
        }
        if (!*missing)
                return 0;
        return ad_fault_set(f, 400, "grouping_not_kept", field,
                            "the bill is kept by advertiser_id, campaign_id and publisher_id, not "
                            "by %s",
                            missing);
}

/* ---- the run ---- */

static int not_ready(struct ad_fault *f, const char *why)
{
        return ad_fault_set(
                f, 503, "billing_not_ready", "view",
                "%s. The bill is there once the first reconcile run is applied: `adtally "
                "up` makes one by its schedule, POST /v1/reconcile asks for one now; "
                "view=realtime is served",
                why);
}

struct first {
        int64_t at_ms;
};

static int on_run(void *arg, const struct ad_billing_run *run, struct df_error *err)
{
        struct first *x = arg;

        if (!run->applied.why.len)
                x->at_ms = run->applied.begin.at_ms;
        return 0;
}

static int too_early(struct ad_billing_read *read, const struct ad_query *q, struct ad_fault *f)
{
        struct df_error err = {0};
        struct first x = {0};
        char text[AD_ZONE_TEXT_MAX];

        if (ad_billing_runs(read, 0, on_run, &x, &err) < 0)
                return ad_fault_error(f, &err);
        (void)ad_zone_text(q->zone, x.at_ms, text);
        return ad_fault_set(f, 400, "as_of_before_first_run", "as_of",
                            "nothing was billed yet then: the first run was at %s", text);
}

/* Which run's numbers these are, and the point to read at. */
static int choose_run(struct ad_billing_read *read, const struct ad_query *q, struct ad_result *r,
                      struct ad_billing_point *ret, struct ad_fault *f)
{
        struct ad_billing_run run;
        struct df_error err = {0};
        bool any = false, found = false;
        int rc = ad_billing_last(read, &r->arena, &run, &any, &err);

        if (rc == 0 && any && q->has_as_of)
                rc = ad_billing_as_of(read, q->as_of_ms, &r->arena, &run, &found, &r->as_of_exact,
                                      &err);
        if (rc < 0)
                return ad_fault_error(f, &err);
        if (!any)
                return not_ready(f, "no reconcile run was applied yet");
        if (q->has_as_of && !found)
                return too_early(read, q, f);
        *ret = (struct ad_billing_point){run.seq, q->has_as_of ? q->as_of_ms : INT64_MAX};
        (void)snprintf(r->run, sizeof(r->run), "%.*s", (int)run.applied.begin.run.len,
                       (const char *)run.applied.begin.run.data);
        r->billed_through_ms = run.applied.begin.at_ms;
        r->unexplained = run.applied.end.unexplained;
        r->pending = run.applied.end.pending;
        r->has_as_of = q->has_as_of;
        r->as_of_ms = q->as_of_ms;
        return 0;
}

/* ---- cells ---- */

struct bill_scan {
        const struct ad_query_context *c;
        const struct ad_query *q;
        const struct ad_result *r;
        struct ad_map *groups;
        struct df_buf key;
        uint64_t versions, max; /* read, and to read at most */
        uint32_t window;        /* of the cell before: the next one is mostly in it */
        bool too_many, cancelled;
};

static bool passes(const struct ad_query *q, int dim, struct df_bytes v)
{
        const struct ad_filter *f = &q->filters[dim];
        size_t n = 0;

        while (n < f->count && !df_bytes_eq(f->values[n], v))
                n++;
        return f->count == 0 || n < f->count;
}

static uint32_t window_of(struct bill_scan *x, int64_t ms)
{
        const int64_t *b = x->r->bounds;
        size_t low = 0, high = x->r->window_count - 1;

        if (b[x->window] <= ms && ms < b[x->window + 1])
                return x->window;
        while (low < high) { /* the last that begins at ms or before */
                size_t mid = low + (high - low + 1) / 2;

                if (b[mid] <= ms)
                        low = mid;
                else
                        high = mid - 1;
        }
        x->window = (uint32_t)low;
        return x->window;
}

static struct df_bytes value_of(const struct ad_target *t, uint8_t dim)
{
        if (dim == AD_DIM_ADVERTISER)
                return t->advertiser_id;
        return dim == AD_DIM_CAMPAIGN ? t->campaign_id : t->publisher_id;
}

/* The place of the cause in the ascending list, made when it is missing. */
static struct ad_result_cause *cause_at(struct ad_result_bill *sum, uint32_t cause,
                                        struct df_arena *arena)
{
        struct ad_result_cause **at = &sum->causes, *made;

        while (*at && (*at)->cause < cause)
                at = &(*at)->next;
        if (*at && (*at)->cause == cause)
                return *at;
        made = df_arena_zalloc(arena, sizeof(*made));
        if (made) {
                made->cause = cause;
                made->next = *at;
                *at = made;
        }
        return made;
}

static int too_large(struct df_error *err)
{
        return df_fail(err, DF_ELIMIT, "a sum exceeds 128 bits");
}

static int add_causes(struct ad_result_bill *sum, const struct ad_target *t, struct df_arena *arena,
                      struct df_error *err)
{
        for (size_t i = 0; i < t->cause_count; i++) {
                const struct ad_cause_cell *c = &t->causes[i];
                struct ad_result_cause *to;

                if (c->cause == AD_CAUSE_NONE)
                        continue;
                to = cause_at(sum, c->cause, arena);
                if (!to)
                        return df_fail(err, DF_ENOMEM, "rows of an answer");
                if (!ad_cell_add_signed(&to->difference, &c->billed) ||
                    !ad_cell_subtract(&to->difference, &c->realtime))
                        return too_large(err);
        }
        return 0;
}

static int add_cell(struct bill_scan *x, const struct ad_billing_cell *cell, bool fresh,
                    struct ad_result_bill *sum, struct df_error *err)
{
        if (!ad_cell_add_signed(&sum->billed, &cell->billed) ||
            !ad_cell_add_signed(&sum->realtime, &cell->realtime))
                return too_large(err);
        if (fresh || cell->closed_to < sum->closed_to)
                sum->closed_to = cell->closed_to;
        sum->adjusted |= cell->adjusted;
        return x->q->view == AD_METRICS_BOTH
                       ? add_causes(sum, &cell->posting->target, x->groups->arena, err)
                       : 0;
}

static int on_cell(void *arg, const struct ad_billing_cell *cell, struct df_error *err)
{
        struct bill_scan *x = arg;
        const struct ad_target *t = &cell->posting->target;
        struct ad_result_bill *sum;
        bool fresh;

        if (x->c->cancel_ms && x->versions % CANCEL_EVERY == 0 &&
            df_monotonic_ms() >= atomic_load(x->c->cancel_ms)) {
                x->cancelled = true;
                return 1;
        }
        if (!passes(x->q, AD_DIM_CAMPAIGN, t->campaign_id) ||
            !passes(x->q, AD_DIM_PUBLISHER, t->publisher_id))
                return 0;
        if (ad_cell_is_zero(&cell->billed) && ad_cell_is_zero(&cell->realtime) && !cell->adjusted)
                return 0; /* it was something once */
        df_buf_clear(&x->key);
        df_put_u32be(&x->key, window_of(x, (int64_t)t->quarter * AD_QUARTER_MS));
        for (uint32_t i = 0; i < x->q->group_count; i++)
                df_put_lstr(&x->key, value_of(t, x->q->group_by[i]));
        df_put_lstr(&x->key, t->currency);
        sum = x->key.failed ? NULL : ad_map_put(x->groups, df_buf_bytes(&x->key), &fresh);
        if (!sum)
                return df_fail(err, DF_ENOMEM, "rows of an answer");
        if (x->groups->count > AD_QUERY_ROWS_MAX) {
                x->too_many = true;
                return 1;
        }
        return add_cell(x, cell, fresh, sum, err);
}

static int scan(struct bill_scan *x, struct ad_billing_read *read, struct ad_billing_point point,
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
                                     .versions_max = x->max};
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < (f->count ? f->count : 1); i++) {
                if (f->count)
                        s.advertiser_id = f->values[i];
                rc = ad_billing_cells(read, &s, on_cell, x, err);
        }
        return rc;
}

static int why_ended(const struct bill_scan *x, struct ad_fault *f)
{
        if (x->c->budget && (x->versions > x->max || x->groups->count > x->c->budget))
                return adi_over_budget(f);
        if (x->cancelled)
                return ad_fault_set(f, 503, "unavailable", NULL, "the server stops: ask again");
        if (x->too_many || x->versions > x->max)
                return ad_fault_set(
                        f, 400, "range_too_large", "from",
                        "more than %d rows, or %d cells and their versions to read: ask "
                        "for a shorter range, fewer dimensions or an advertiser",
                        AD_QUERY_ROWS_MAX, AD_QUERY_CELLS_MAX);
        return 0;
}

static int read_bill(const struct ad_query_context *c, const struct ad_query *q,
                     struct ad_billing *books, struct ad_result *r, struct ad_map *groups,
                     struct ad_fault *f)
{
        struct bill_scan x = {.c = c,
                              .q = q,
                              .r = r,
                              .groups = groups,
                              .max = c->budget ? c->budget : AD_QUERY_CELLS_MAX};
        struct ad_billing_read *read = NULL;
        struct ad_billing_point point = {0};
        struct df_error err = {0};
        int rc = ad_billing_begin(books, &read, &err);

        if (rc < 0)
                return ad_fault_error(f, &err);
        rc = choose_run(read, q, r, &point, f);
        if (rc == 0 && scan(&x, read, point, &err) < 0)
                rc = ad_fault_error(f, &err);
        if (rc == 0)
                rc = why_ended(&x, f);
        ad_billing_end(read);
        df_buf_release(&x.key);
        return rc;
}

int adi_bill_run(const struct ad_query_context *c, const struct ad_query *q, struct ad_result *r,
                 struct ad_map *groups, struct ad_fault *f)
{
        char why[AD_BOOKS_WHY_MAX];
        struct ad_billing *books;
        struct adi_plan plan;
        int rc = adi_plan_quarters(q, &r->arena, &plan, f);

        if (rc < 0)
                return rc;
        if (c->budget && plan.window_count > c->budget)
                return adi_over_budget(f);
        r->bounds = plan.bounds;
        r->window_count = plan.window_count;
        books = ad_books_take(c->books, why);
        if (!books)
                return not_ready(f, why);
        rc = read_bill(c, q, books, r, groups, f);
        ad_books_give(c->books);
        if (rc < 0 && f->damaged) {
                ad_books_suspect(c->books);
                f->damaged = false; /* the view of realtime is well */
        }
        return rc;
}

/* ---- order, totals, state, hint ---- */

int adi_bill_by_drift(const struct ad_result_bill *a, const struct ad_result_bill *b)
{
        double x, y;
        bool has_x = ad_drift(a->billed.spend, a->realtime.spend, &x);
        bool has_y = ad_drift(b->billed.spend, b->realtime.spend, &y);

        if (!has_x || !has_y)
                return (int)has_x - (int)has_y;
        return (x > y) - (x < y);
}

static int add_total(struct ad_result_bill *to, const struct ad_result_bill *from,
                     struct df_arena *arena, struct ad_fault *f)
{
        bool ok = ad_cell_add_signed(&to->billed, &from->billed) &&
                  ad_cell_add_signed(&to->realtime, &from->realtime);

        for (const struct ad_result_cause *c = from->causes; ok && c; c = c->next) {
                struct ad_result_cause *sum = cause_at(to, c->cause, arena);

                if (!sum)
                        return adi_no_memory(f);
                ok = ad_cell_add_signed(&sum->difference, &c->difference);
        }
        return ok ? 0 : ad_fault_set(f, 500, "overflow", NULL, "a total exceeds 128 bits");
}

int adi_bill_totals(struct ad_result *r, struct ad_fault *f)
{
        for (size_t t = 0; t < r->total_count; t++) {
                r->totals[t].bill = df_arena_zalloc(&r->arena, sizeof(*r->totals[t].bill));
                if (!r->totals[t].bill)
                        return adi_no_memory(f);
        }
        for (size_t i = 0; i < r->row_count; i++) {
                size_t t = 0;

                while (!df_bytes_eq(r->totals[t].currency, r->rows[i].currency))
                        t++;
                if (add_total(r->totals[t].bill, r->rows[i].bill, &r->arena, f) < 0)
                        return -1;
        }
        return 0;
}

/* Closed, when no event of the window can change the periods that it lies in. */
const char *adi_bill_state(const struct ad_result *r, const struct ad_result_row *row)
{
        int64_t end = r->bounds[row->window + 1];

        if (end <= (int64_t)row->bill->closed_to * AD_QUARTER_MS)
                return "closed";
        return end <= r->billed_through_ms ? "billed" : "open";
}

static bool has_filter(const struct ad_query *q)
{
        for (int d = 0; d < AD_DIM_COUNT; d++)
                if (q->filters[d].count)
                        return true;
        return false;
}

void adi_bill_hint(const struct ad_query *q, struct ad_result *r)
{
        char through[AD_ZONE_TEXT_MAX], text[200];
        struct df_bytes copy;

        (void)ad_zone_text(q->zone, r->billed_through_ms, through);
        if (q->from_ms >= r->billed_through_ms) {
                r->hint_code = "not_billed_yet";
                (void)snprintf(text, sizeof(text), "The bill goes up to %s.", through);
        } else if (has_filter(q)) {
                r->hint_code = "no_match";
                (void)snprintf(text, sizeof(text),
                               "Nothing that matches the filters was billed in this range.");
        } else {
                r->hint_code = "no_rows_in_range";
                (void)snprintf(text, sizeof(text),
                               "Nothing was billed in this range; the bill goes up to %s.",
                               through);
        }
        copy = df_arena_copy(&r->arena, df_bytes(text, strlen(text) + 1));
        r->hint = (const char *)copy.data; /* NULL without memory: then there is only the code */
}
