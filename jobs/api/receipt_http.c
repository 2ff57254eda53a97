/* receipt_http.c - one GET /events/{event_id}, on a thread of its own: it reads the log, and keeps
 * nobody from the numbers. */
#include <stdlib.h>

#include "df/run.h"
#include "jobs/api/receipt.h"
#include "jobs/api/serve_private.h"

#define NO_STORE "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
#define RETRY_AFTER_S 1

struct asking { /* freed with its reply */
        struct ad_api *api;
        struct df_http_request *request;
        struct ad_identity identity;
        struct ad_receipt_query query;
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
        df_http_fail(r, f->status, f->code, *f->field ? f->field : NULL, f->retryable,
                     f->status == 503 ? RETRY_AFTER_S : 0, "%s", f->message);
        finish(a, q, f->status);
}

static bool stop(void *arg)
{
        struct ad_api *a = arg;

        return df_monotonic_ms() >= atomic_load(&a->cancel_ms);
}

static int write_receipt(struct asking *q, struct df_buf *b, struct ad_fault *f)
{
        const struct ad_api_options *o = &q->api->options;
        struct ad_receipt_context c = {.log = o->log,
                                       .source = o->source,
                                       .horizon_hours = o->params.horizon_hours,
                                       .pricing = o->params.pricing,
                                       .price_table = o->params.price_table,
                                       .price_arg = o->params.price_arg,
                                       .stop = stop,
                                       .stop_arg = q->api};
        struct ad_view *view = ad_follow_take(o->follow);
        struct df_error err = {0};
        struct ad_receipt r;
        struct ad_status *s;
        int rc;

        if (!view)
                return ad_fault_set(f, 503, "view_not_ready", NULL,
                                    "the view is being opened again: ask again in a moment");
        s = ad_view_status(view);
        ad_follow_give(o->follow);
        c.missing = s->outside.missing;
        c.missing_count = s->outside.missing_count;
        rc = ad_receipt_find(&c, &q->query, &r, f);
        if (rc == 0 && ad_receipt_json(&c, &r, b, &err) < 0)
                rc = ad_fault_error(f, &err);
        ad_receipt_release(&r);
        ad_status_release(s);
        return rc;
}

static void on_thread(void *arg)
{
        struct asking *q = arg;
        struct df_http_reply p = {
                .status = 200, .content_type = "application/json", .headers = NO_STORE};
        struct df_buf b = {0};
        struct ad_fault f;

        if (write_receipt(q, &b, &f) < 0) {
                refuse(q->api, q, q->request, &f);
        } else {
                p.body = df_buf_bytes(&b);
                df_http_reply(q->request, &p);
                finish(q->api, q, 200);
        }
        df_buf_release(&b);
}

static int read_query(struct asking *q, struct ad_fault *f)
{
        const struct df_http_request *r = q->request;
        struct ad_param params[DF_HTTP_PARAMS_MAX];

        df_check(r->param_count <= DF_HTTP_PARAMS_MAX);
        for (size_t i = 0; i < r->param_count; i++)
                params[i] = (struct ad_param){r->params[i].name, r->params[i].value};
        return ad_receipt_parse(params, r->param_count, r->tail, df_bytes_str(q->identity.tenant),
                                q->identity.key_class == AD_KEY_ADMIN, df_wall_ms(), &q->query, f);
}

void adi_on_receipt(void *arg, struct df_http_request *r)
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
        if (read_query(q, &f) < 0) {
                refuse(a, q, r, &f);
                return;
        }
        if (ad_pool_put(a->receipts, on_thread, q))
                return;
        atomic_fetch_add(&a->overloaded, 1);
        (void)ad_fault_set(&f, 503, "overloaded", NULL, "%d receipts wait already",
                           AD_API_RECEIPTS_MAX);
        refuse(a, q, r, &f);
}
