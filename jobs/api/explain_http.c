/* explain_http.c - one GET /explain, on the thread of receipts: it reads the log, and keeps nobody
 * from the numbers. */
#include <stdlib.h>

#include "df/run.h"
#include "jobs/api/explain.h"
#include "jobs/api/serve_private.h"

#define NO_STORE "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
#define RETRY_AFTER_S 1

struct asking { /* freed with its reply */
        struct ad_api *api;
        struct df_http_request *request;
        struct ad_identity identity;
};

static void finish(struct ad_api *a, struct asking *q, int status)
{
        atomic_fetch_add(&a->answers, 1);
        if (status >= 500)
                atomic_fetch_add(&a->failures, 1);
        free(q);
}

static void refuse(struct ad_api *a, struct asking *q, struct df_http_request *r,
                   const struct ad_fault *f)
{
        if (f->damaged)
                ad_follow_suspect(a->options.follow);
        df_http_fail(r, f->status, f->code, *f->field ? f->field : NULL, f->retryable,
                     f->status == 503 ? RETRY_AFTER_S : 0, "%s", f->message);
        finish(a, q, f->status);
}

static bool stop(void *arg)
{
        struct ad_api *a = arg;

        return df_monotonic_ms() >= atomic_load(&a->cancel_ms);
}

/* ---- the question: that of /metrics ---- */

static int parse(struct asking *q, const struct ad_query_context *c, struct ad_query *ret,
                 struct ad_fault *f)
{
        const struct df_http_request *r = q->request;
        struct ad_param params[DF_HTTP_PARAMS_MAX + 1];
        bool window = false;
        size_t n = 0;

        df_check(r->param_count <= DF_HTTP_PARAMS_MAX);
        for (size_t i = 0; i < r->param_count; i++) {
                params[n] = (struct ad_param){r->params[i].name, r->params[i].value};
                window |= df_bytes_eq(params[n++].name, df_bytes_str("window"));
        }
        if (!window)
                params[n++] = (struct ad_param){df_bytes_str("window"), df_bytes_str("total")};
        if (ad_query_parse(c, params, n, ret, f) < 0)
                return -1;
        if (ret->view == AD_METRICS_BOTH)
                return ad_fault_set(f, 400, "view_not_available", "view",
                                    "view=realtime is explained, and view=billing: one of them");
        if (ret->csv)
                return ad_fault_set(f, 400, "bad_format", "format", "an explanation is JSON");
        return ret->cursor.len ? ad_fault_set(f, 400, "bad_cursor", "cursor",
                                              "a question is explained, not a page of its answer")
                               : 0;
}

/* The number, and what the view knows of its sources. */
static int ask(struct asking *q, struct ad_query *query, struct ad_result **ret,
               struct ad_status **ret_status, struct ad_fault *f)
{
        struct ad_api *a = q->api;
        struct ad_view *view = ad_follow_take(a->options.follow);
        struct ad_query_context c = {
                .view = view,
                .books = a->options.books,
                .zones = a->options.zones,
                .now_ms = df_wall_ms(),
                .tenant_id = df_bytes_str(q->identity.tenant),
                .any_tenant = q->identity.key_class == AD_KEY_ADMIN,
                .cancel_ms = &a->cancel_ms,
        };
        int rc;

        if (!view)
                return ad_fault_set(f, 503, "view_not_ready", NULL,
                                    "the view is being opened again: ask again in a moment");
        *ret_status = ad_view_status(view);
        rc = parse(q, &c, query, f);
        if (rc == 0)
                rc = ad_query_run(&c, query, ret, f);
        ad_follow_give(a->options.follow);
        return rc;
}

static int explain_bill(struct asking *q, const struct ad_explain_context *c,
                        const struct ad_query *query, const struct ad_result *result,
                        struct df_buf *b, struct ad_fault *f)
{
        struct ad_books_follow *follow = q->api->options.books;
        char why[AD_BOOKS_WHY_MAX];
        struct ad_billing *books = ad_books_take(follow, why);
        struct ad_explain_bill e = {0};
        struct df_error err = {0};
        int rc;

        if (!books)
                return ad_fault_set(f, 503, "billing_not_ready", "view", "%s", why);
        rc = ad_explain_bill_find(c, books, query, result->run, &e, f);
        ad_books_give(follow);
        if (rc < 0 && f->damaged) {
                ad_books_suspect(follow);
                f->damaged = false; /* the view of realtime is well */
        }
        if (rc == 0 && ad_explain_bill_json(&e, query, result, b, &err) < 0)
                rc = ad_fault_error(f, &err);
        ad_explain_bill_release(&e);
        return rc;
}

static int explain(struct asking *q, struct df_buf *b, struct ad_fault *f)
{
        struct ad_api *a = q->api;
        struct ad_explain_context c = {.log = a->options.log,
                                       .objects = a->options.objects,
                                       .grace_ms = a->options.params.grace_ms,
                                       .stop = stop,
                                       .stop_arg = a};
        struct ad_result *result = NULL;
        struct ad_status *status = NULL;
        struct ad_explain e = {0};
        struct df_error err = {0};
        struct ad_query query;
        int rc = ask(q, &query, &result, &status, f);

        c.status = status;
        if (rc == 0 && query.view == AD_METRICS_BILLING) {
                rc = explain_bill(q, &c, &query, result, b, f);
        } else if (rc == 0) {
                rc = ad_explain_find(&c, query.from_ms, query.to_ms, &e, f);
                if (rc == 0 && ad_explain_json(&c, &e, &query, result, b, &err) < 0)
                        rc = ad_fault_error(f, &err);
        }
        ad_explain_release(&e);
        ad_result_destroy(result);
        ad_status_release(status);
        return rc;
}

static void on_thread(void *arg)
{
        struct asking *q = arg;
        struct df_http_reply p = {
                .status = 200, .content_type = "application/json", .headers = NO_STORE};
        struct df_buf b = {0};
        struct ad_fault f;

        if (explain(q, &b, &f) < 0) {
                refuse(q->api, q, q->request, &f);
        } else {
                p.body = df_buf_bytes(&b);
                df_http_reply(q->request, &p);
                finish(q->api, q, 200);
        }
        df_buf_release(&b);
}

void adi_on_explain(void *arg, struct df_http_request *r)
{
        struct ad_api *a = arg;
        struct asking *q = calloc(1, sizeof(*q));
        struct ad_denial denial;
        struct ad_fault f;

        if (!q) {
                (void)ad_fault_set(&f, 503, "unavailable", NULL, "out of memory");
                refuse(a, NULL, r, &f);
                return;
        }
        q->api = a;
        q->request = r;
        if (!ad_access_check(a->options.access, r, AD_MAY_READ, &q->identity, &denial)) {
                ad_access_deny(r, &denial);
                finish(a, q, denial.status);
                return;
        }
        if (ad_pool_put(a->receipts, on_thread, q))
                return;
        atomic_fetch_add(&a->overloaded, 1);
        (void)ad_fault_set(&f, 503, "overloaded", NULL, "%d receipts wait already",
                           AD_API_RECEIPTS_MAX);
        refuse(a, q, r, &f);
}
