/* receipt_http.c - one GET /events/{event_id}. */
#include "df/run.h"
#include "jobs/api/ask.h"
#include "jobs/api/receipt.h"

static int write_receipt(struct adi_ask *q, const struct ad_receipt_context *c, struct df_buf *b)
{
        struct ad_receipt_query query;
        struct df_error err = {0};
        struct ad_receipt r;
        struct ad_receipt_params p = {adi_ask_param(q, "from"), adi_ask_param(q, "to"),
                                      adi_ask_param(q, "at")};
        int rc = ad_receipt_parse(&p, q->request->tail, df_wall_ms(), &query, &q->fault);

        if (rc < 0)
                return rc;
        query.tenant_id = q->tenant;
        rc = ad_receipt_find(c, &query, &r, &q->fault);
        if (rc == 0 && ad_receipt_json(c, &r, b, &err) < 0)
                rc = ad_fault_error(&q->fault, &err);
        ad_receipt_release(&r);
        return rc;
}

static int receipt(struct adi_ask *q)
{
        static const char *const names[] = {"from", "to", "at", NULL};
        const struct ad_api_options *o = &q->api->options;
        struct ad_receipt_context c = {.log = o->log,
                                       .source = o->source,
                                       .horizon_hours = o->params.horizon_hours,
                                       .pricing = o->params.pricing,
                                       .price_table = o->params.price_table,
                                       .price_arg = o->params.price_arg,
                                       .stop = adi_ask_stopped,
                                       .stop_arg = q->api};
        struct df_buf b = {0};
        struct ad_status *status;
        struct ad_view *view;
        int rc;

        if (adi_ask_params(q, names) < 0)
                return -1;
        view = adi_ask_view(q);
        if (!view)
                return -1;
        status = ad_view_status(view);
        ad_follow_give(o->follow);
        c.status = status;
        rc = write_receipt(q, &c, &b);
        ad_status_release(status);
        if (rc == 0)
                return adi_ask_reply(q, 200, "application/json", NULL, &b);
        df_buf_release(&b);
        return rc;
}

void adi_on_receipt(void *arg, struct df_http_request *r)
{
        adi_ask_log(arg, r, receipt);
}
