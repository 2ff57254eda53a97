/* invoice_http.c - /periods/{p}: the invoice of a closed period, the preview of an open one, and
 * what was signed at a close. */
#include <stdio.h>

#include "df/run.h"
#include "df/sha256.h"
#include "jobs/api/invoice_write.h"
#include "jobs/api/map.h"
#include "jobs/api/periods.h"

struct reading {
        struct adi_ask *q;
        struct adi_account account;
        struct adi_invoice_head head;
        struct adi_closed closed;
        struct ad_billing_scope scope;
        uint64_t versions; /* read so far */
        struct ad_invoice *invoice;
        struct ad_map totals;     /* by currency -> struct ad_cell: of the cells that were read */
        struct df_bytes original; /* that the cells being read are of */
};

static int fail(struct reading *r, const struct df_error *err)
{
        if (err->code == DF_ELIMIT)
                return ad_fault_set(&r->q->fault, 400, "range_too_large", NULL,
                                    "%s: close by advertiser (--accounts), or ask for the rows of "
                                    "GET /metrics?view=billing",
                                    err->text);
        return ad_fault_error(&r->q->fault, err);
}

/* ---- what it is of ---- */

static struct adi_span span_of(struct df_bytes period, uint64_t from, uint64_t to)
{
        return (struct adi_span){period, (int64_t)from * AD_QUARTER_MS,
                                 (int64_t)to * AD_QUARTER_MS};
}

static void head_of_close(struct reading *r)
{
        const struct ad_closed *c = &r->closed.closed;
        struct adi_invoice_head *h = &r->head;
        struct df_error err;
        char name[AD_ZONE_MAX + 1];

        h->closed = true;
        h->span = span_of(c->close.period, c->close.from_quarter, c->close.to_quarter);
        h->zone_name = c->close.zone;
        h->zone_version = c->close.zone_version;
        h->zone = r->account.rule.zone;
        (void)snprintf(name, sizeof(name), "%.*s", (int)c->close.zone.len,
                       (const char *)c->close.zone.data);
        if (ad_zones_get(r->q->api->options.zones, name, &h->zone, &err) < 0)
                h->zone = r->account.rule.zone; /* only how times are shown */
        h->run = c->close.run;
        h->seq = c->seq;
        h->closed_at_ms = c->close.at_ms;
        r->scope.point = (struct ad_billing_point){c->seq, c->close.at_ms};
}

static int head_of_preview(struct reading *r, const struct adi_month *m)
{
        struct adi_ask *q = r->q;
        struct adi_invoice_head *h = &r->head;
        struct ad_billing_run run;
        struct df_error err = {0};
        bool found;

        if (ad_billing_last(q->books, &q->arena, &run, &found, &err) < 0)
                return fail(r, &err);
        h->span = span_of(q->request->tail, m->from_quarter, m->to_quarter);
        h->zone = r->account.rule.zone;
        h->zone_name = df_bytes_str(ad_zone_name(h->zone));
        h->zone_version = df_bytes_str(ad_zones_version(q->api->options.zones));
        if (!found)
                return ad_fault_set(&q->fault, 503, "billing_not_ready", NULL,
                                    "no reconcile run was applied yet: ask for one with POST "
                                    "/v1/reconcile");
        h->run = run.applied.begin.run;
        h->seq = run.seq;
        h->billed_through_ms = run.applied.begin.at_ms;
        r->scope.point = (struct ad_billing_point){run.seq, INT64_MAX};
        return 0;
}

/* ---- reading ---- */

static int on_cell(void *arg, const struct ad_billing_cell *cell, struct df_error *err)
{
        struct reading *r = arg;
        const struct ad_target *t = &cell->posting->target;
        const struct ad_invoice_cell of = {t->campaign_id, t->publisher_id, t->currency};
        struct ad_cell *total;
        bool fresh;

        if (r->original.len)
                return ad_invoice_add_before(r->invoice, r->original, &of, &cell->billed, err);
        if (cell->closed && !r->head.closed)
                return 0; /* in another period's invoice: the zone was another one */
        total = ad_map_put(&r->totals, t->currency, &fresh);
        if (!total)
                return df_fail(err, DF_ENOMEM, "invoice");
        if (!ad_cell_add(total, &cell->billed))
                return df_fail(err, DF_ELIMIT, "a total is beyond its bits");
        return ad_invoice_add_usage(r->invoice, &of, &cell->billed, err);
}

static int read_cells(struct reading *r, const struct adi_span *span, struct ad_billing_point point)
{
        struct df_error err = {0};
        struct ad_billing_scope s = r->scope;

        s.from_quarter = (uint64_t)(span->from_ms / AD_QUARTER_MS);
        s.to_quarter = (uint64_t)(span->to_ms / AD_QUARTER_MS);
        s.point = point;
        if (ad_billing_cells(r->q->books, &s, on_cell, r, &err) < 0)
                return fail(r, &err);
        if (r->versions <= AD_QUERY_CELLS_MAX)
                return 0;
        (void)df_fail(&err, DF_ELIMIT, "more than %d cells would be read", AD_QUERY_CELLS_MAX);
        return fail(r, &err);
}

static struct ad_invoice_delta delta_of(const struct ad_posting *p, uint32_t cause)
{
        return (struct ad_invoice_delta){
                .original = p->closed_period,
                .posted = p->posted_period,
                .of = {p->target.campaign_id, p->target.publisher_id, p->target.currency},
                .cause = cause,
        };
}

static int on_adjustment(void *arg, const struct ad_posting *p, struct df_error *err)
{
        struct reading *r = arg;
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < p->delta_count; i++) {
                const struct ad_invoice_delta of = delta_of(p, p->delta[i].cause);

                rc = ad_invoice_add_delta(r->invoice, &of, &p->delta[i].billed, err);
        }
        return rc;
}

static bool among(const struct reading *r, struct df_bytes original)
{
        for (size_t i = 0; i < r->head.original_count; i++)
                if (df_bytes_eq(r->head.originals[i].period, original))
                        return true;
        return false;
}

static int on_before(void *arg, const struct ad_posting *p, struct df_error *err)
{
        struct reading *r = arg;
        int rc = 0;

        if (df_bytes_cmp(p->posted_period, r->head.span.period) >= 0 || !among(r, p->closed_period))
                return 0;
        for (size_t i = 0; rc == 0 && i < p->delta_count; i++) {
                const struct ad_invoice_delta of = delta_of(p, p->delta[i].cause);

                rc = ad_invoice_add_delta_before(r->invoice, &of, &p->delta[i].billed, err);
        }
        return rc;
}

/* Each period that adjustments are of: where it lies and, for the ledger form, what was invoiced
 * for it. */
static int read_originals(struct reading *r)
{
        struct adi_ask *q = r->q;
        struct df_error err = {0};
        struct df_bytes *names;
        struct adi_span *spans;
        size_t count;

        if (ad_invoice_originals(r->invoice, &names, &count, &err) < 0)
                return fail(r, &err);
        spans = df_arena_alloc(&q->arena, (count + 1) * sizeof(*spans));
        if (!spans)
                return ad_fault_set(&q->fault, 503, "unavailable", NULL, "out of memory");
        for (size_t i = 0; i < count; i++) {
                const struct ad_closed *c;
                struct adi_closed closed;

                spans[i] = (struct adi_span){.period = names[i], .to_ms = r->head.span.from_ms};
                if (names[i].len == 0)
                        continue;
                if (adi_find_close(q, &r->account, names[i], &closed) < 0)
                        return -1;
                c = &closed.closed;
                if (!closed.taken)
                        continue;
                spans[i] = span_of(names[i], c->close.from_quarter, c->close.to_quarter);
                r->original = names[i];
                if (r->head.ledger &&
                    read_cells(r, &spans[i], (struct ad_billing_point){c->seq, c->close.at_ms}) < 0)
                        return -1;
        }
        r->head.originals = spans;
        r->head.original_count = count;
        if (r->head.ledger && count &&
            ad_billing_adjustments(q->books, &r->scope, df_bytes(NULL, 0), on_before, r, &err) < 0)
                return fail(r, &err);
        return 0;
}

/* What the signed manifest states is what the lines are made of. */
static int check_totals(struct reading *r)
{
        const struct ad_period_close *c = &r->closed.closed.close;
        const struct ad_cell zero = {0};
        bool agree = true;

        for (size_t i = 0; i < c->total_count; i++) {
                const struct ad_cell *own = ad_map_find(&r->totals, c->totals[i].currency);

                agree &= ad_cell_eq(own ? own : &zero, &c->totals[i].billed);
        }
        for (const struct ad_map_entry *e = r->totals.first; e; e = e->next) {
                bool stated = ad_cell_is_zero((const struct ad_cell *)e->value);

                for (size_t i = 0; i < c->total_count; i++)
                        stated |= df_bytes_eq(c->totals[i].currency, e->key);
                agree &= stated;
        }
        if (agree)
                return 0;
        return ad_fault_set(&r->q->fault, 500, "totals_differ", NULL,
                            "the cells of the view are not those of the close of %.*s: an alarm; "
                            "move DATA/view-billing away, it is built again from the log",
                            (int)c->period.len, (const char *)c->period.data);
}

static int read_invoice(struct reading *r)
{
        struct adi_ask *q = r->q;
        struct df_error err = {0};

        r->scope.tenant_id = q->tenant;
        r->scope.one_advertiser = !r->account.rule.whole_tenant;
        r->scope.advertiser_id = r->account.advertiser_id;
        r->scope.versions = &r->versions;
        r->scope.versions_max = AD_QUERY_CELLS_MAX;
        ad_map_init(&r->totals, &q->arena, sizeof(struct ad_cell));
        if (ad_invoice_create(r->head.ledger, AD_INVOICE_LINES_MAX, &r->invoice, &err) < 0)
                return fail(r, &err);
        if (read_cells(r, &r->head.span, r->scope.point) < 0 ||
            (r->closed.taken && check_totals(r) < 0))
                return -1;
        if (ad_billing_adjustments(q->books, &r->scope, r->head.span.period, on_adjustment, r,
                                   &err) < 0)
                return fail(r, &err);
        if (read_originals(r) < 0)
                return -1;
        if (ad_invoice_finish(r->invoice, df_bytes_str(r->account.rule.currency), &err) < 0)
                return fail(r, &err);
        return 0;
}

/* ---- the request ---- */

static int choice(struct adi_ask *q, const char *name, const char *first, const char *second,
                  bool *ret_second)
{
        struct df_bytes v = adi_ask_param(q, name);

        *ret_second = v.data && df_bytes_eq(v, df_bytes_str(second));
        if (!v.data || *ret_second || df_bytes_eq(v, df_bytes_str(first)))
                return 0;
        return ad_fault_set(&q->fault, 400, "bad_choice", name, "%s is %s or %s", name, first,
                            second);
}

/* The account, its period, and whether that was closed. */
static int identify(struct reading *r, struct adi_month *ret)
{
        struct adi_ask *q = r->q;
        unsigned month;
        int year;

        if (!ad_period_parse(q->request->tail, &year, &month))
                return ad_fault_set(&q->fault, 404, "no_such_period", NULL,
                                    "a period is a month, like 2026-04");
        if (adi_account_of(q, adi_ask_param(q, "advertiser_id"), &r->account) < 0 ||
            adi_month_of(r->account.rule.zone, year, month, ret, &q->fault) < 0 ||
            adi_ask_books(q) < 0)
                return -1;
        r->head.tenant_id = q->tenant;
        r->head.advertiser_id = r->account.advertiser_id;
        return adi_find_close(q, &r->account, q->request->tail, &r->closed);
}

static int csv_reply(struct reading *r, bool payouts)
{
        struct df_buf b = {0};
        char headers[160];

        adi_invoice_csv(&b, &r->head, r->invoice, payouts ? AD_PAYOUTS : AD_CHARGES);
        (void)snprintf(headers, sizeof(headers),
                       "Content-Disposition: attachment; filename=\"%s-%.*s.csv\"\r\n",
                       payouts ? "payouts" : "invoice", AD_PERIOD_MAX,
                       (const char *)r->q->request->tail.data);
        ad_invoice_destroy(r->invoice);
        return adi_ask_reply(r->q, 200, "text/csv; charset=utf-8", headers, &b);
}

static int json_reply(struct reading *r)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);

        ad_json_open(j);
        adi_invoice_json(j, &r->head, r->invoice);
        ad_json_close(j);
        (void)ad_json_end(j, &b, NULL); /* b says so */
        ad_invoice_destroy(r->invoice);
        return adi_ask_reply(r->q, 200, "application/json", NULL, &b);
}

static int invoice(struct adi_ask *q)
{
        static const char *const names[] = {"advertiser_id", "format", "adjustments", "part", NULL};
        struct reading r = {.q = q};
        bool csv, payouts;
        struct adi_month m;
        int rc;

        if (adi_ask_params(q, names) < 0 || choice(q, "format", "json", "csv", &csv) < 0 ||
            choice(q, "adjustments", "delta", "ledger", &r.head.ledger) < 0 ||
            choice(q, "part", "charges", "payouts", &payouts) < 0)
                return -1;
        if (adi_ask_param(q, "part").data && !csv)
                return ad_fault_set(&q->fault, 400, "bad_choice", "part",
                                    "part is for format=csv: JSON holds both");
        if (identify(&r, &m) < 0)
                return -1;
        if (r.closed.taken)
                head_of_close(&r);
        rc = r.closed.taken ? 0 : head_of_preview(&r, &m);
        if (rc == 0)
                rc = read_invoice(&r);
        if (rc == 0)
                return csv ? csv_reply(&r, payouts) : json_reply(&r);
        ad_invoice_destroy(r.invoice);
        return rc;
}

/* The bytes that were signed, so that the signature fits what is stored from the answer. */
static int manifest(struct adi_ask *q)
{
        static const char *const names[] = {"advertiser_id", "part", NULL};
        struct reading r = {.q = q};
        struct df_buf b = {0};
        const struct ad_period_close *c = &r.closed.closed.close;
        bool signature;
        struct adi_month m;
        struct df_bytes body;

        if (adi_ask_params(q, names) < 0 ||
            choice(q, "part", "manifest", "signature", &signature) < 0 || identify(&r, &m) < 0)
                return -1;
        if (!r.closed.taken)
                return ad_fault_set(&q->fault, 404, "period_open", NULL,
                                    "%.*s is not closed: there is no manifest of it", AD_PERIOD_MAX,
                                    (const char *)q->request->tail.data);
        body = signature ? c->signature : c->manifest;
        df_buf_append(&b, body.data, body.len);
        return adi_ask_reply(q, 200, signature ? "application/octet-stream" : "application/json",
                             NULL, &b);
}

void adi_on_invoice(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_READ, invoice);
}

void adi_on_manifest(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_READ, manifest);
}
