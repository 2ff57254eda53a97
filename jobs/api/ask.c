#include "jobs/api/ask.h"

#include <stdio.h>
#include <stdlib.h>

#include "df/run.h"
#include "df/sha256.h"
#include "jobs/common/times.h"

#define NO_STORE "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
#define RETRY_AFTER_S 1

/* ---- replies ---- */

static void finish(struct adi_ask *q, int status)
{
        struct ad_api *a = q->api;

        atomic_fetch_add(&a->answers, 1);
        if (status >= 500)
                atomic_fetch_add(&a->failures, 1);
        df_arena_release(&q->arena);
        free(q);
}

static void leave_books(struct adi_ask *q)
{
        if (!q->billing)
                return;
        ad_billing_end(q->books);
        ad_books_give(q->api->options.books);
        q->books = NULL;
        q->billing = NULL;
}

static void refuse(struct adi_ask *q)
{
        const struct ad_fault *f = &q->fault;

        leave_books(q);
        if (f->damaged && q->of_books)
                ad_books_suspect(q->api->options.books);
        else if (f->damaged)
                ad_follow_suspect(q->api->options.follow);
        df_http_fail(q->request, f->status, f->code, *f->field ? f->field : NULL, f->retryable,
                     f->status == 503 ? RETRY_AFTER_S : 0, "%s", f->message);
        finish(q, f->status);
}

int adi_ask_reply(struct adi_ask *q, int status, const char *type, const char *headers,
                  struct df_buf *b)
{
        struct df_buf all = {0};
        struct df_http_reply p = {.status = status, .content_type = type};
        struct df_error err = {0};

        df_buf_printf(&all, NO_STORE "%s%c", headers ? headers : "", 0);
        leave_books(q);
        if (df_buf_check(b, &err) < 0 || df_buf_check(&all, &err) < 0) {
                (void)ad_fault_error(&q->fault, &err);
                refuse(q);
        } else {
                p.headers = (const char *)all.data;
                p.body = df_buf_bytes(b);
                df_http_reply(q->request, &p);
                finish(q, status);
        }
        df_buf_release(&all);
        df_buf_release(b);
        return 0;
}

int adi_ask_json(struct adi_ask *q, int status, void (*fill)(struct ad_json *j, void *arg),
                 void *arg)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);

        ad_json_open(j);
        fill(j, arg);
        ad_json_close(j);
        (void)ad_json_end(j, &b, NULL); /* b says so */
        return adi_ask_reply(q, status, "application/json", NULL, &b);
}

void adi_json_time(struct ad_json *j, const char *key, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        if (ms)
                ad_json_put_bytes(j, key, df_bytes(text, (size_t)ad_time_text(ms, text)));
        else
                ad_json_put_null(j, key);
}

/* ---- requests ---- */

static void on_pool(void *arg)
{
        struct adi_ask *q = arg;

        if (q->fn(q) < 0)
                refuse(q);
}

/* NULL: it is answered. */
static struct adi_ask *begin(struct ad_api *a, struct df_http_request *r, enum ad_permission want,
                             int (*fn)(struct adi_ask *q))
{
        struct adi_ask *q = calloc(1, sizeof(*q));
        struct ad_denial denial;

        if (!q) {
                df_http_fail(r, 503, "unavailable", NULL, true, RETRY_AFTER_S, "out of memory");
                atomic_fetch_add(&a->answers, 1);
                atomic_fetch_add(&a->failures, 1);
                return NULL;
        }
        q->api = a;
        q->request = r;
        q->fn = fn;
        df_arena_init(&q->arena, 0);
        if (!ad_access_check(a->options.access, r, want, &q->identity, &denial)) {
                ad_access_deny(r, &denial);
                finish(q, denial.status);
                return NULL;
        }
        q->tenant = df_bytes_str(q->identity.tenant);
        return q;
}

static void put(struct adi_ask *q, struct ad_pool *pool, int max)
{
        if (ad_pool_put(pool, on_pool, q))
                return;
        atomic_fetch_add(&q->api->overloaded, 1);
        (void)ad_fault_set(&q->fault, 503, "overloaded", NULL,
                           "%d long questions wait already: ask again", max);
        refuse(q);
}

void adi_ask(struct ad_api *a, struct df_http_request *r, enum ad_permission want,
             int (*fn)(struct adi_ask *q))
{
        struct adi_ask *q = begin(a, r, want, fn);

        if (!q)
                return;
        if (a->options.commands && a->options.accounts) {
                put(q, a->pool, AD_API_QUEUE_MAX);
                return;
        }
        (void)ad_fault_set(&q->fault, 503, "commands_not_ready", NULL,
                           "this server takes no commands");
        refuse(q);
}

void adi_ask_log(struct ad_api *a, struct df_http_request *r, int (*fn)(struct adi_ask *q))
{
        struct adi_ask *q = begin(a, r, AD_MAY_READ, fn);

        if (q)
                put(q, a->receipts, AD_API_RECEIPTS_MAX);
}

bool adi_ask_stopped(void *api)
{
        struct ad_api *a = api;

        return df_monotonic_ms() >= atomic_load(&a->cancel_ms);
}

struct ad_view *adi_ask_view(struct adi_ask *q)
{
        struct ad_view *view = ad_follow_take(q->api->options.follow);

        if (!view)
                (void)ad_fault_set(&q->fault, 503, "view_not_ready", NULL,
                                   "the view is being opened again: ask again in a moment; if it "
                                   "lasts, `adtally status` says why");
        return view;
}

struct df_bytes adi_ask_param(const struct adi_ask *q, const char *name)
{
        const struct df_http_request *r = q->request;

        for (size_t i = 0; i < r->param_count; i++)
                if (df_bytes_eq(r->params[i].name, df_bytes_str(name))) {
                        struct df_bytes v = r->params[i].value;

                        return v.data ? v : df_bytes("", 0);
                }
        return df_bytes(NULL, 0);
}

static int take_tenant(struct adi_ask *q)
{
        struct df_bytes t = adi_ask_param(q, "tenant");

        if (!t.data || df_bytes_eq(t, q->tenant))
                return 0;
        if (q->identity.key_class != AD_KEY_ADMIN)
                return ad_fault_set(&q->fault, 403, "forbidden", "tenant",
                                    "this key is for its own tenant only");
        if (t.len == 0 || t.len > AD_ID_MAX)
                return ad_fault_set(&q->fault, 400, "bad_tenant", "tenant",
                                    "a tenant is 1 to %d bytes", AD_ID_MAX);
        q->tenant = t;
        return 0;
}

static bool known(const char *const *names, struct df_bytes name)
{
        if (df_bytes_eq(name, df_bytes_str("tenant")))
                return true;
        for (; *names; names++)
                if (df_bytes_eq(name, df_bytes_str(*names)))
                        return true;
        return false;
}

int adi_ask_params(struct adi_ask *q, const char *const *names)
{
        const struct df_http_request *r = q->request;
        char name[40], list[200] = "";

        for (size_t i = 0, at = 0; names[i] && at < sizeof(list); i++)
                at += (size_t)snprintf(list + at, sizeof(list) - at, "%s, ", names[i]);
        for (size_t i = 0; i < r->param_count; i++) {
                struct df_bytes n = r->params[i].name;

                (void)snprintf(name, sizeof(name), "%.*s", (int)(n.len < 30 ? n.len : 30),
                               (const char *)n.data);
                if (!known(names, n))
                        return ad_fault_set(&q->fault, 400, "unknown_parameter", name,
                                            "there is no parameter %s here; known are %stenant",
                                            name, list);
                for (size_t k = 0; k < i; k++)
                        if (df_bytes_eq(r->params[k].name, n))
                                return ad_fault_set(&q->fault, 400, "repeated_parameter", name,
                                                    "%s stands there twice", name);
        }
        return take_tenant(q);
}

int adi_ask_number(struct adi_ask *q, const char *name, uint64_t min, uint64_t max,
                   uint64_t otherwise, uint64_t *ret)
{
        struct df_bytes t = adi_ask_param(q, name);
        unsigned __int128 v = 0;
        bool good = t.len > 0 && t.len <= 20;

        *ret = otherwise;
        if (!t.data)
                return 0;
        for (size_t i = 0; good && i < t.len; i++) {
                good = t.data[i] >= '0' && t.data[i] <= '9';
                v = v * 10 + (unsigned)(t.data[i] - '0');
        }
        if (!good || v < min || v > max)
                return ad_fault_set(&q->fault, 400, "bad_number", name,
                                    "%s is a whole number from %llu to %llu", name,
                                    (unsigned long long)min, (unsigned long long)max);
        *ret = (uint64_t)v;
        return 0;
}

int adi_ask_books(struct adi_ask *q)
{
        struct ad_books_follow *books = q->api->options.books;
        char why[AD_BOOKS_WHY_MAX];
        struct df_error err = {0};
        struct ad_billing *b = ad_books_take(books, why);

        q->of_books = true;
        if (!b) {
                (void)ad_fault_set(&q->fault, 503, "billing_not_ready", NULL, "%s", why);
                return -1;
        }
        if (ad_billing_begin(b, &q->books, &err) < 0) {
                ad_books_give(books);
                return ad_fault_error(&q->fault, &err);
        }
        q->billing = b;
        return 0;
}

int adi_ask_commands(struct adi_ask *q)
{
        if (ad_api_commands_ready(q->api->options.commands))
                return 0;
        return ad_fault_set(&q->fault, 503, "commands_not_ready", NULL,
                            "the topic commands is still being read: ask again in a moment");
}

int adi_ask_body(struct adi_ask *q, struct ad_doc *ret)
{
        struct df_bytes body = q->request->body.len ? q->request->body : df_bytes_str("{}");
        struct df_error err = {0};
        int rc = ad_doc_parse(body, AD_COMMAND_NODES_MAX, &q->arena, ret, &err);

        if (rc == DF_ELIMIT)
                return ad_fault_set(&q->fault, 400, "too_many_values", NULL,
                                    "the body has more than %d values: a correction takes at most "
                                    "%d event_ids",
                                    AD_COMMAND_NODES_MAX, AD_SCOPE_EVENT_IDS_MAX);
        if (rc == DF_EPARSE)
                return ad_fault_set(&q->fault, 400, "bad_json", NULL, "the body: %s", err.text);
        return rc < 0 ? ad_fault_error(&q->fault, &err) : 0;
}

/* ---- commands ---- */

struct asked {
        struct adi_ask *q;
        const char *where;
        struct df_bytes of;
        bool repeated;
        const struct ad_asked_for *entry;
};

static void fill_asked(struct ad_json *j, void *arg)
{
        const struct asked *x = arg;
        struct df_bytes of = x->of.len ? x->of : x->entry->command.id;
        char see[160];

        ad_json_put_bytes(j, "id", x->entry->command.id);
        adi_json_time(j, "at", x->entry->command.at_ms);
        ad_json_put_bool(j, "repeated", x->repeated);
        (void)snprintf(see, sizeof(see), "/v1/%s/%.*s", x->where, (int)of.len,
                       (const char *)of.data);
        ad_json_put_text(j, "see", see);
}

static void failed(struct ad_fault *f, const struct df_error *err)
{
        if (err->code == DF_EDOUBT)
                (void)ad_fault_set(f, 503, "in_doubt", NULL,
                                   "it may have been stored: ask again with the same id (%s)",
                                   err->text);
        else if (err->code == DF_ENOSPC)
                (void)ad_fault_set(f, 503, "disk_full", NULL, "%s", err->text);
        else
                (void)ad_fault_set(f, 503, "unavailable", NULL, "the log cannot be written: %s",
                                   err->text);
}

static void on_asked(void *arg, enum ad_asked what, const struct ad_asked_for *entry,
                     const struct df_error *err)
{
        struct asked *x = arg;
        struct adi_ask *q = x->q;

        x->entry = entry;
        x->repeated = what == AD_ASKED_BEFORE;
        switch (what) {
        case AD_ASKED_NEW:
        case AD_ASKED_BEFORE:
                (void)adi_ask_json(q, what == AD_ASKED_NEW ? 202 : 200, fill_asked, x);
                break;
        case AD_ASKED_OTHER:
                (void)ad_fault_set(&q->fault, 409, "id_reused", "id",
                                   "this id stands for another request of this tenant, for ever: "
                                   "choose a new one");
                refuse(q);
                break;
        case AD_ASKED_FULL:
                (void)ad_fault_set(&q->fault, 409, "too_many_commands", NULL,
                                   "%d commands, or %u MiB of them, are there already: put many "
                                   "event_ids into one correction, or correct by campaign",
                                   AD_COMMANDS_MAX, AD_COMMANDS_BYTES_MAX >> 20);
                refuse(q);
                break;
        case AD_ASKED_FAILED:
        default:
                failed(&q->fault, err);
                refuse(q);
        }
        free(x);
}

/* The id: of the header, which must agree with the body; else a new one. */
static int choose_id(struct adi_ask *q, struct ad_command *c)
{
        static const char *const kinds[] = {"", "correction", "close", "run", "cancel"};
        struct df_bytes header = df_http_header(q->request, "idempotency-key");
        char *made = df_arena_alloc(&q->arena, AD_COMMAND_ID_MAX);
        struct df_error err = {0};
        uint8_t random[8];
        char hex[2 * sizeof(random) + 1];

        if (header.data && !ad_command_id_valid(header))
                return ad_fault_set(&q->fault, 400, "bad_id", "Idempotency-Key",
                                    "Idempotency-Key is 1 to %d of A-Z, a-z, 0-9, . _ -",
                                    AD_COMMAND_ID_MAX);
        if (header.data && c->id.len && !df_bytes_eq(header, c->id))
                return ad_fault_set(&q->fault, 400, "bad_id", "id",
                                    "id and the header Idempotency-Key differ: give one of them");
        if (header.data)
                c->id = header;
        if (c->id.len)
                return 0;
        if (!made)
                return ad_fault_set(&q->fault, 503, "unavailable", NULL, "out of memory");
        if (df_random(random, sizeof(random), &err) < 0)
                return ad_fault_error(&q->fault, &err);
        df_hex(random, sizeof(random), hex);
        c->id = df_bytes(made,
                         (size_t)snprintf(made, AD_COMMAND_ID_MAX, "%s-%s", kinds[c->kind], hex));
        return 0;
}

int adi_ask_command(struct adi_ask *q, struct ad_command *c, const char *where, struct df_bytes of)
{
        struct asked *x;

        if (choose_id(q, c) < 0)
                return -1;
        c->tenant_id = q->tenant;
        if (c->kind == AD_COMMAND_CLOSE)
                c->close.account.tenant_id = q->tenant;
        leave_books(q);
        x = calloc(1, sizeof(*x));
        if (!x)
                return ad_fault_set(&q->fault, 503, "unavailable", NULL, "out of memory");
        *x = (struct asked){.q = q, .where = where, .of = of};
        if (ad_api_commands_put(q->api->options.commands, c, on_asked, x))
                return 0;
        free(x);
        (void)ad_fault_set(&q->fault, 503, "overloaded", NULL, "%d commands wait already",
                           AD_COMMANDS_WAITING_MAX);
        return -1;
}
