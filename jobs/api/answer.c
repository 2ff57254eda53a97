/* answer.c - one request to one reply. */
#include <stdio.h>
#include <stdlib.h>

#include "df/run.h"
#include "jobs/api/page.h" /* made from page.html */
#include "jobs/api/progress.h"
#include "jobs/api/quality.h"
#include "jobs/api/serve_private.h"

#define NO_STORE "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
#define RETRY_AFTER_S 1

/* A request on its way; freed with its reply. */
struct call {
        struct ad_api *api;
        struct df_http_request *request;
        struct ad_identity identity;
        int64_t started_ns;
        bool on_pool, is_query;
};

/* ---- replies ---- */

static void finish(struct call *c, int status)
{
        struct ad_api *a = c->api;

        atomic_fetch_add(&a->answers, 1);
        if (status >= 500)
                atomic_fetch_add(&a->failures, 1);
        if (c->is_query) {
                atomic_fetch_add(c->on_pool ? &a->pool_answers : &a->inline_answers, 1);
                adi_latency_add(&a->latency, df_monotonic_ns() - c->started_ns, df_wall_ms());
        }
        free(c);
}

static void reply(struct call *c, const char *type, const char *headers, struct df_bytes body)
{
        struct df_http_reply p = {
                .status = 200, .content_type = type, .headers = headers, .body = body};

        df_http_reply(c->request, &p);
        finish(c, 200);
}

static void refuse(struct call *c, const struct ad_fault *f)
{
        if (f->damaged)
                ad_follow_suspect(c->api->options.follow);
        df_http_fail(c->request, f->status, f->code, *f->field ? f->field : NULL, f->retryable,
                     f->status == 503 ? RETRY_AFTER_S : 0, "%s", f->message);
        finish(c, f->status);
}

static void refuse_error(struct call *c, const struct df_error *err)
{
        struct ad_fault f;

        (void)ad_fault_error(&f, err);
        refuse(c, &f);
}

static struct ad_view *take_view(struct call *c)
{
        struct ad_view *v = ad_follow_take(c->api->options.follow);
        struct ad_fault f;

        if (v)
                return v;
        (void)ad_fault_set(&f, 503, "view_not_ready", NULL,
                           "the view is being opened again: ask again in a moment");
        refuse(c, &f);
        return NULL;
}

/* To the threads for long work, or 503. */
static void put(struct call *c, void (*fn)(void *arg))
{
        struct ad_fault f;

        c->on_pool = true;
        if (ad_pool_put(c->api->pool, fn, c))
                return;
        atomic_fetch_add(&c->api->overloaded, 1);
        (void)ad_fault_set(&f, 503, "overloaded", NULL,
                           "%d long questions wait already: ask again, or for less",
                           AD_API_QUEUE_MAX);
        refuse(c, &f);
}

/* NULL: it was replied to. */
static struct call *begin(struct ad_api *a, struct df_http_request *r, bool is_query)
{
        struct call *c = calloc(1, sizeof(*c));
        struct ad_denial denial;

        if (!c) {
                df_http_fail(r, 503, "unavailable", NULL, true, RETRY_AFTER_S, "out of memory");
                atomic_fetch_add(&a->answers, 1);
                atomic_fetch_add(&a->failures, 1);
                return NULL;
        }
        c->api = a;
        c->request = r;
        c->started_ns = df_monotonic_ns();
        if (!ad_access_check(a->options.access, r, AD_MAY_READ, &c->identity, &denial)) {
                ad_access_deny(r, &denial);
                finish(c, denial.status);
                return NULL;
        }
        c->is_query = is_query;
        return c;
}

/* ---- GET /metrics ---- */

struct answer {
        struct ad_page *page;      /* the result is in it, or */
        struct ad_result *result;  /* alone */
        const struct ad_result *r; /* either */
        size_t first;
};

static void drop(struct ad_api *a, struct answer *x)
{
        if (x->page)
                ad_pages_give(a->pages, x->page);
        ad_result_destroy(x->result);
}

static int go_on(struct call *c, const struct ad_query *q, struct answer *x, struct ad_fault *f)
{
        int rc = ad_pages_take(c->api->pages, q->cursor, q->tenant_id, df_monotonic_ms(), &x->page,
                               &x->first, f);

        if (rc < 0)
                return rc;
        x->r = ad_page_result(x->page);
        if (q->identity && q->identity != x->r->identity)
                return ad_fault_set(f, 400, "cursor_mismatch", "cursor",
                                    "the cursor belongs to another question: give it alone, or "
                                    "with the parameters it came from");
        return 0;
}

static int ask(struct call *c, const struct ad_query_context *context, const struct ad_query *q,
               struct answer *x, struct ad_fault *f)
{
        struct df_error err = {0};
        int rc = ad_query_run(context, q, &x->result, f);

        if (rc < 0)
                return rc;
        x->r = x->result;
        if (x->r->row_count <= q->limit)
                return 0;
        rc = ad_pages_put(c->api->pages, x->result, df_monotonic_ms(), &x->page, &err);
        x->result = NULL;
        if (rc < 0)
                return ad_fault_error(f, &err);
        return 0;
}

/* What a CSV has no place for. */
static void bill_headers(const struct ad_result *r, const char *next, char *ret, size_t size)
{
        char through[AD_ZONE_TEXT_MAX];

        (void)ad_zone_text(r->zone, r->billed_through_ms, through);
        (void)snprintf(ret, size,
                       NO_STORE "Content-Disposition: attachment; filename=\"metrics.csv\"\r\n"
                                "X-Time-Zone: %s\r\nX-Billed-Through: %s\r\nX-Run: %s\r\n"
                                "X-Unexplained-Cells: %llu\r\n%s%s%s",
                       ad_zone_name(r->zone), through, r->run, (unsigned long long)r->unexplained,
                       next ? "X-Next-Cursor: " : "", next ? next : "", next ? "\r\n" : "");
}

static void csv_headers(const struct ad_result *r, const char *next, char *ret, size_t size)
{
        char watermark[AD_ZONE_TEXT_MAX] = "none";

        if (r->view != AD_METRICS_REALTIME) {
                bill_headers(r, next, ret, size);
                return;
        }
        if (r->watermark_ms != DF_TIME_MIN && r->watermark_ms != DF_TIME_MAX)
                (void)ad_zone_text(r->zone, r->watermark_ms, watermark);
        (void)snprintf(ret, size,
                       NO_STORE "Content-Disposition: attachment; filename=\"metrics.csv\"\r\n"
                                "X-Time-Zone: %s\r\nX-Watermark: %s\r\nX-Completeness: %.6g\r\n"
                                "X-Missing-Partitions: %zu\r\n%s%s%s",
                       ad_zone_name(r->zone), watermark, r->completeness, r->missing_count,
                       next ? "X-Next-Cursor: " : "", next ? next : "", next ? "\r\n" : "");
}

static void write_page(struct call *c, const struct ad_query *q, const struct answer *x)
{
        char next_text[AD_CURSOR_MAX], headers[512];
        const struct ad_result *r = x->r;
        const char *next = NULL;
        struct df_error err = {0};
        struct df_buf b = {0};
        int rc;

        if (x->page && r->row_count - x->first > q->limit) {
                ad_page_cursor(x->page, x->first + q->limit, next_text);
                next = next_text;
        }
        rc = q->csv ? ad_result_csv(r, x->first, q->limit, &b, &err)
                    : ad_result_json(r, x->first, q->limit, next, &b, &err);
        if (rc < 0) {
                refuse_error(c, &err);
        } else if (q->csv) {
                csv_headers(r, next, headers, sizeof(headers));
                reply(c, "text/csv; charset=utf-8", headers, df_buf_bytes(&b));
        } else {
                reply(c, "application/json", NO_STORE, df_buf_bytes(&b));
        }
        df_buf_release(&b);
}

/* Answer on this thread; false: it is too much for an event loop, and nothing was replied. */
static bool answer(struct call *c, struct ad_view *view, uint64_t budget)
{
        struct ad_param params[DF_HTTP_PARAMS_MAX];
        struct ad_api *a = c->api; /* c is gone after the reply */
        struct ad_query_context context = {
                .view = view,
                .books = a->options.books,
                .zones = a->options.zones,
                .now_ms = df_wall_ms(),
                .tenant_id = df_bytes_str(c->identity.tenant),
                .any_tenant = c->identity.key_class == AD_KEY_ADMIN,
                .budget = budget,
                .cancel_ms = &a->cancel_ms,
        };
        size_t n = c->request->param_count;
        struct answer x = {0};
        struct ad_query q;
        struct ad_fault f;
        bool done = true;
        int rc;

        df_check(n <= DF_HTTP_PARAMS_MAX);
        for (size_t i = 0; i < n; i++)
                params[i] =
                        (struct ad_param){c->request->params[i].name, c->request->params[i].value};
        rc = ad_query_parse(&context, params, n, &q, &f);
        if (rc == 0 && budget && q.cursor.len && q.limit > AD_API_INLINE_ROWS)
                return false;
        if (rc == 0)
                rc = q.cursor.len ? go_on(c, &q, &x, &f) : ask(c, &context, &q, &x, &f);
        if (rc < 0 && f.status == AD_STATUS_OVER_BUDGET)
                done = false;
        else if (rc < 0)
                refuse(c, &f);
        else
                write_page(c, &q, &x);
        drop(a, &x);
        return done;
}

static void metrics_on_pool(void *arg)
{
        struct call *c = arg;
        struct ad_api *a = c->api; /* as in answer */
        struct ad_view *view = take_view(c);

        if (!view)
                return;
        (void)answer(c, view, 0); /* without a budget it always replies */
        ad_follow_give(a->options.follow);
}

void adi_on_metrics(void *arg, struct df_http_request *r)
{
        struct ad_api *a = arg;
        struct call *c = begin(a, r, true);
        struct ad_view *view = c ? take_view(c) : NULL;
        bool done;

        if (!view)
                return;
        done = answer(c, view, AD_API_INLINE_CELLS);
        ad_follow_give(a->options.follow);
        if (!done)
                put(c, metrics_on_pool);
}

/* ---- GET /quality ---- */

static int write_quality(struct call *c, struct ad_view *view, struct df_buf *b,
                         struct df_error *err)
{
        struct ad_drift_report drift;
        struct ad_tail tail;
        struct ad_status *s = ad_view_status(view);
        struct ad_quality q = {
                .status = s,
                .tail = &tail,
                .drift = &drift,
                .tenant_id = df_bytes_str(c->identity.tenant),
                .any_tenant = c->identity.key_class == AD_KEY_ADMIN,
                .now_ms = df_wall_ms(),
                .answers = atomic_load(&c->api->answers),
                .failures = atomic_load(&c->api->failures),
                .since_ms = c->api->started_ms,
        };
        int rc = ad_follow_tail(c->api->options.follow, s, &tail, err);

        ad_drift_look(c->api->options.books, q.tenant_id, ad_view_settings(view)->account_zone,
                      q.now_ms, &drift);
        drift.error = adi_progress_error(c->api->options.data_dir, &drift.arena);
        if (rc == 0)
                rc = ad_quality_json(&q, b, err);
        ad_drift_release(&drift);
        ad_status_release(s);
        return rc;
}

/* On the threads for long work: it may count the tail of the log. */
static void quality_on_pool(void *arg)
{
        struct call *c = arg;
        struct ad_api *a = c->api;
        struct df_error err = {0};
        struct df_buf b = {0};
        struct ad_view *view = take_view(c);
        int rc;

        if (!view)
                return;
        rc = write_quality(c, view, &b, &err);
        ad_follow_give(a->options.follow);
        if (rc < 0)
                refuse_error(c, &err);
        else
                reply(c, "application/json", NO_STORE, df_buf_bytes(&b));
        df_buf_release(&b);
}

void adi_on_quality(void *arg, struct df_http_request *r)
{
        struct call *c = begin(arg, r, false);
        struct ad_fault f;
        char name[44];

        if (!c)
                return;
        if (r->param_count > 0) {
                size_t n = r->params[0].name.len;

                (void)snprintf(name, sizeof(name), "%.*s", (int)(n < 40 ? n : 40),
                               (const char *)r->params[0].name.data);
                (void)ad_fault_set(&f, 400, "unknown_parameter", name,
                                   "/quality takes no parameters");
                refuse(c, &f);
                return;
        }
        put(c, quality_on_pool);
}

/* ---- GET / ---- */

/* No secret and no number: the page asks for both by itself, with the reader's key. */
void adi_on_page(void *arg, struct df_http_request *r)
{
        struct ad_api *a = arg;
        struct df_http_reply p = {
                .status = 200,
                .content_type = "text/html; charset=utf-8",
                .headers =
                        "Cache-Control: no-cache\r\nX-Content-Type-Options: nosniff\r\n"
                        "Referrer-Policy: no-referrer\r\nContent-Security-Policy: " AD_PAGE_POLICY
                        "\r\n",
                .body = df_bytes(ad_page_html, sizeof(ad_page_html)),
        };

        df_http_reply(r, &p);
        atomic_fetch_add(&a->answers, 1);
}
