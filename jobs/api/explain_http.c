/* explain_http.c - one GET /explain. */
#include <string.h>

#include "df/run.h"
#include "jobs/api/ask.h"
#include "jobs/api/explain.h"

/* The question is that of /metrics. */
static int parse(struct adi_ask *q, const struct ad_query_context *c, struct ad_query *ret)
{
        const struct df_http_request *r = q->request;
        struct ad_param params[DF_HTTP_PARAMS_MAX + 1];
        struct ad_fault *f = &q->fault;
        size_t n = 0;

        df_check(r->param_count <= DF_HTTP_PARAMS_MAX);
        for (; n < r->param_count; n++)
                params[n] = (struct ad_param){r->params[n].name, r->params[n].value};
        if (!adi_ask_param(q, "window").data)
                params[n++] = (struct ad_param){df_bytes_str("window"), df_bytes_str("total")};
        if (ad_query_parse(c, params, n, ret, f) < 0)
                return -1;
        if (ret->view == AD_METRICS_BOTH)
                return ad_fault_set(f, 400, "view_not_available", "view",
                                    "view=realtime is explained, and view=billing: one of them");
        if (ret->csv)
                return ad_fault_set(f, 400, "bad_format", "format",
                                    "an explanation is JSON: leave format away");
        return ret->cursor.len
                       ? ad_fault_set(f, 400, "bad_cursor", "cursor",
                                      "a question is explained, not a page of its answer: leave "
                                      "cursor away")
                       : 0;
}

/* The number, NULL when its rows are no longer kept, and what the view knows of its sources. */
static int ask(struct adi_ask *q, struct ad_query *query, struct ad_result **ret,
               struct ad_status **ret_status)
{
        struct ad_api *a = q->api;
        struct ad_view *view = adi_ask_view(q);
        struct ad_query_context c = {
                .view = view,
                .books = a->options.books,
                .zones = a->options.zones,
                .now_ms = df_wall_ms(),
                .tenant_id = q->tenant,
                .any_tenant = q->identity.key_class == AD_KEY_ADMIN,
                .cancel_ms = &a->cancel_ms,
        };
        int rc;

        if (!view)
                return -1;
        *ret_status = ad_view_status(view);
        rc = parse(q, &c, query);
        if (rc == 0)
                rc = ad_query_run(&c, query, ret, &q->fault);
        if (rc < 0 && query->view == AD_METRICS_REALTIME &&
            strcmp(q->fault.code, "rows_expired") == 0)
                rc = 0; /* the number is gone; what it was made from may not be */
        ad_follow_give(a->options.follow);
        return rc;
}

static int explain_bill(struct adi_ask *q, const struct ad_explain_context *c,
                        const struct ad_query *query, const struct ad_result *result,
                        struct df_buf *b)
{
        struct ad_explain_bill e = {0};
        struct df_error err = {0};
        int rc = adi_ask_books(q);

        if (rc == 0)
                rc = ad_explain_bill_find(c, q->books, query, result->run, &e, &q->fault);
        if (rc == 0 && ad_explain_bill_json(c, &e, query, result, b, &err) < 0)
                rc = ad_fault_error(&q->fault, &err);
        ad_explain_bill_release(&e);
        return rc;
}

static int explain_realtime(struct adi_ask *q, const struct ad_explain_context *c,
                            const struct ad_query *query, const struct ad_result *result,
                            struct df_buf *b)
{
        struct df_error err = {0};
        struct ad_explain e;
        int rc = ad_explain_find(c, query->from_ms, query->to_ms, &e, &q->fault);

        if (rc == 0 && ad_explain_json(c, &e, query, result, b, &err) < 0)
                rc = ad_fault_error(&q->fault, &err);
        ad_explain_release(&e);
        return rc;
}

static int explain(struct adi_ask *q)
{
        struct ad_api *a = q->api;
        struct ad_explain_context c = {.log = a->options.log,
                                       .source = a->options.source,
                                       .objects = a->options.objects,
                                       .rules = &a->options.rules,
                                       .grace_ms = a->options.params.grace_ms,
                                       .stop = adi_ask_stopped,
                                       .stop_arg = a};
        struct ad_result *result = NULL;
        struct ad_status *status = NULL;
        struct df_buf b = {0};
        struct ad_query query;
        int rc = ask(q, &query, &result, &status);

        c.status = status;
        if (rc == 0 && query.view == AD_METRICS_BILLING)
                rc = explain_bill(q, &c, &query, result, &b);
        else if (rc == 0)
                rc = explain_realtime(q, &c, &query, result, &b);
        ad_result_destroy(result);
        ad_status_release(status);
        if (rc == 0)
                return adi_ask_reply(q, 200, "application/json", NULL, &b);
        df_buf_release(&b);
        return rc;
}

void adi_on_explain(void *arg, struct df_http_request *r)
{
        adi_ask_log(arg, r, explain);
}
