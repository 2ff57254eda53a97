/* corrections.c - /corrections: what is asked for, and what has become of it. */
#include "jobs/api/ask.h"

#define LIMIT_DEFAULT 100
#define LIMIT_MAX 1000

/* An offset of `commands`, and the first run that was applied with the commands before it. */
struct reached {
        uint64_t offset;
        struct df_bytes run; /* empty: none yet */
};

struct item {
        const struct ad_asked_for *entry, *cancel; /* or NULL */
        struct reached applied, taken_back;
};

/* ---- which run ---- */

struct runs {
        struct adi_ask *q;
        struct item *items;
        size_t count;
        uint64_t first; /* offset of the oldest item */
        bool failed;
};

static void reach(struct runs *x, struct reached *r, const struct ad_applied *a)
{
        if (r->offset >= a->begin.corrections_to)
                return;
        r->run = df_arena_copy(&x->q->arena, a->begin.run);
        x->failed |= a->begin.run.len && !r->run.data;
}

/* The newest first: the last one that holds it is the first. */
static int on_run(void *arg, const struct ad_billing_run *run, struct df_error *err)
{
        struct runs *x = arg;
        const struct ad_applied *a = &run->applied;

        if (a->why.len)
                return 0; /* refused: nothing of it counts */
        if (a->begin.corrections_to <= x->first)
                return 1;
        for (size_t i = 0; i < x->count; i++) {
                reach(x, &x->items[i].applied, a);
                if (x->items[i].cancel)
                        reach(x, &x->items[i].taken_back, a);
        }
        return 0;
}

/* items: the newest first. */
static int find_runs(struct adi_ask *q, struct item *items, size_t count)
{
        struct runs x = {.q = q, .items = items, .count = count};
        struct df_error err = {0};

        if (count == 0)
                return 0;
        x.first = items[count - 1].entry->offset;
        if (adi_ask_books(q) < 0)
                return -1;
        if (ad_billing_runs(q->books, 0, on_run, &x, &err) < 0)
                return ad_fault_error(&q->fault, &err);
        if (!x.failed)
                return 0;
        return ad_fault_set(&q->fault, 503, "unavailable", NULL, "out of memory");
}

static struct item item_of(const struct ad_asked_for *e)
{
        const struct ad_asked_for *cancel = atomic_load(&e->cancelled);

        return (struct item){
                .entry = e,
                .cancel = cancel,
                .applied.offset = e->offset,
                .taken_back.offset = cancel ? cancel->offset : 0,
        };
}

/* cancelling: the bill still holds it, until the next run. */
static const char *state_of(const struct item *x)
{
        if (!x->cancel)
                return x->applied.run.len ? "applied" : "waiting";
        return x->applied.run.len && !x->taken_back.run.len ? "cancelling" : "cancelled";
}

/* ---- as JSON ---- */

static void put_labels(struct ad_json *j, uint32_t bits)
{
        ad_json_key(j, "label");
        ad_json_open_array(j);
        for (const struct ad_label_name *l = ad_label_names; l->name; l++)
                if (bits & l->bit)
                        ad_json_text(j, l->name);
        ad_json_close_array(j);
}

static void put_some(struct ad_json *j, const char *key, struct df_bytes v)
{
        if (v.len)
                ad_json_put_bytes(j, key, v);
}

static void put_scope(struct ad_json *j, const struct ad_scope *s, bool all)
{
        ad_json_key(j, "scope");
        ad_json_open(j);
        if (s->event_id_count)
                ad_json_put_int(j, "event_id_count", (__int128)s->event_id_count);
        if (s->event_id_count && all) {
                ad_json_key(j, "event_ids");
                ad_json_open_array(j);
                for (size_t i = 0; i < s->event_id_count; i++)
                        ad_json_bytes(j, s->event_ids[i]);
                ad_json_close_array(j);
        }
        put_some(j, "advertiser_id", s->advertiser_id);
        put_some(j, "campaign_id", s->campaign_id);
        put_some(j, "publisher_id", s->publisher_id);
        if (s->label)
                put_labels(j, s->label);
        if (s->from_ms)
                adi_json_time(j, "from", s->from_ms);
        if (s->to_ms)
                adi_json_time(j, "to", s->to_ms);
        ad_json_close(j);
}

static void put_values(struct ad_json *j, const struct ad_correction *c)
{
        char text[DF_DECIMAL_TEXT_MAX];

        ad_json_key(j, "values");
        ad_json_open(j);
        if (c->action == AD_CORRECT_REPRICE) {
                (void)df_decimal_text(c->price_nanos, 9, text);
                ad_json_put_text(j, "price", text);
                ad_json_put_bytes(j, "currency", c->currency);
        }
        put_some(j, "advertiser_id", c->advertiser_id);
        put_some(j, "campaign_id", c->campaign_id);
        put_some(j, "publisher_id", c->publisher_id);
        if (c->action == AD_CORRECT_LABEL)
                put_labels(j, c->label);
        ad_json_close(j);
}

static void put_who(struct ad_json *j, const struct ad_asked_for *e)
{
        ad_json_put_bytes(j, "id", e->command.id);
        adi_json_time(j, "at", e->command.at_ms);
        ad_json_put_bytes(j, "reason", e->command.reason);
        ad_json_put_bytes(j, "requested_by", e->command.requested_by);
        ad_json_put_bytes(j, "approved_by", e->command.approved_by);
}

static void put_item(struct ad_json *j, const struct item *x, bool all)
{
        const struct ad_correction *c = &x->entry->command.correction;

        put_who(j, x->entry);
        ad_json_put_text(j, "state", state_of(x));
        ad_json_key(j, "run");
        if (x->applied.run.len)
                ad_json_bytes(j, x->applied.run);
        else
                ad_json_null(j);
        ad_json_put_text(j, "action", ad_correction_name(c->action));
        put_scope(j, &c->scope, all);
        put_values(j, c);
        ad_json_key(j, "cancel");
        if (!x->cancel) {
                ad_json_null(j);
                return;
        }
        ad_json_open(j);
        put_who(j, x->cancel);
        ad_json_key(j, "run");
        if (x->taken_back.run.len)
                ad_json_bytes(j, x->taken_back.run);
        else
                ad_json_null(j);
        ad_json_close(j);
}

/* ---- GET ---- */

struct list {
        struct adi_ask *q;
        struct item *items;
        size_t count, limit;
        bool more;
};

static bool on_entry(void *arg, const struct ad_asked_for *e)
{
        struct list *l = arg;

        if (e->command.kind != AD_COMMAND_CORRECTION ||
            !df_bytes_eq(e->command.tenant_id, l->q->tenant))
                return true;
        l->more = l->count == l->limit;
        if (!l->more)
                l->items[l->count++] = item_of(e);
        return !l->more;
}

static void fill_list(struct ad_json *j, void *arg)
{
        const struct list *l = arg;

        ad_json_put_bytes(j, "tenant", l->q->tenant);
        ad_json_key(j, "corrections");
        ad_json_open_array(j);
        for (size_t i = 0; i < l->count; i++) {
                ad_json_open(j);
                put_item(j, &l->items[i], false);
                ad_json_close(j);
        }
        ad_json_close_array(j);
        if (l->more)
                ad_json_put_int(j, "next_before", (__int128)l->items[l->count - 1].entry->offset);
        else
                ad_json_put_null(j, "next_before");
}

static int list(struct adi_ask *q)
{
        static const char *const names[] = {"limit", "before", NULL};
        struct list l = {.q = q};
        uint64_t limit, before;

        if (adi_ask_params(q, names) < 0 ||
            adi_ask_number(q, "limit", 1, LIMIT_MAX, LIMIT_DEFAULT, &limit) < 0 ||
            adi_ask_number(q, "before", 0, UINT64_MAX, UINT64_MAX, &before) < 0 ||
            adi_ask_commands(q) < 0)
                return -1;
        l.limit = (size_t)limit;
        l.items = df_arena_alloc(&q->arena, l.limit * sizeof(*l.items));
        if (!l.items)
                return ad_fault_set(&q->fault, 503, "unavailable", NULL, "out of memory");
        ad_api_commands_list(q->api->options.commands, before, on_entry, &l);
        return find_runs(q, l.items, l.count) < 0 ? -1 : adi_ask_json(q, 200, fill_list, &l);
}

/* Of the tenant; NULL: there is none, and the fault is set. */
static const struct ad_asked_for *find(struct adi_ask *q)
{
        const struct ad_asked_for *e =
                ad_api_commands_find(q->api->options.commands, q->tenant, q->request->tail);

        if (e && e->command.kind == AD_COMMAND_CORRECTION)
                return e;
        (void)ad_fault_set(&q->fault, 404, "no_such_correction", NULL,
                           "this tenant has no correction with this id");
        return NULL;
}

static void fill_one(struct ad_json *j, void *arg)
{
        put_item(j, arg, true);
}

static int show(struct adi_ask *q)
{
        static const char *const names[] = {NULL};
        const struct ad_asked_for *e;
        struct item x;

        if (adi_ask_params(q, names) < 0 || adi_ask_commands(q) < 0)
                return -1;
        e = find(q);
        if (!e)
                return -1;
        x = item_of(e);
        return find_runs(q, &x, 1) < 0 ? -1 : adi_ask_json(q, 200, fill_one, &x);
}

/* ---- POST ---- */

static int create(struct adi_ask *q)
{
        static const char *const names[] = {NULL};
        struct ad_command c = {0};
        struct ad_doc d;

        if (adi_ask_params(q, names) < 0 || adi_ask_body(q, &d) < 0 ||
            ad_parse_correction(&d, &q->arena, &c, &q->fault) < 0)
                return -1;
        return adi_ask_command(q, &c, "corrections", df_bytes(NULL, 0));
}

/* The same cancellation again is answered as the first time; another one of what is cancelled says
 * nothing new. */
static int cancel(struct adi_ask *q)
{
        static const char *const names[] = {NULL};
        const struct ad_asked_for *e, *by;
        struct df_bytes header = df_http_header(q->request, "idempotency-key");
        struct ad_command c = {0};
        struct ad_doc d;

        if (adi_ask_params(q, names) < 0 || adi_ask_commands(q) < 0 || adi_ask_body(q, &d) < 0 ||
            ad_parse_cancel(&d, &c, &q->fault) < 0)
                return -1;
        e = find(q);
        if (!e)
                return -1;
        by = atomic_load(&e->cancelled);
        if (by && !df_bytes_eq(by->command.id, header.data ? header : c.id))
                return ad_fault_set(&q->fault, 409, "cancelled_already", NULL,
                                    "%.*s cancelled it already", (int)by->command.id.len,
                                    (const char *)by->command.id.data);
        c.cancel = e->command.id;
        return adi_ask_command(q, &c, "corrections", e->command.id);
}

void adi_on_corrections(void *arg, struct df_http_request *r)
{
        if (r->method == DF_HTTP_POST)
                adi_ask(arg, r, AD_MAY_FINANCE, create);
        else
                adi_ask(arg, r, AD_MAY_READ, list);
}

void adi_on_correction(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_READ, show);
}

void adi_on_cancel(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_FINANCE, cancel);
}
