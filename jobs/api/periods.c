/* periods.c - /periods: what is open and closed, and asking for a close. */
#include <stdio.h>
#include <stdlib.h>

#include "df/run.h"
#include "jobs/api/map.h"
#include "jobs/api/periods.h"
#include "jobs/api/progress.h"
#include "jobs/common/times.h"

#define DAY_MS 86400000LL
#define ACCOUNTS_MAX 1000 /* of one list; more: ask by advertiser_id */

/* ---- GET /periods ---- */

struct period { /* by (advertiser, period) */
        bool closed, refused, closing;
        struct ad_closed of; /* of closed, or the newest refused; texts in the arena */
        const struct ad_command *asked;
};
struct list {
        struct adi_ask *q;
        struct ad_json *j;
        struct ad_map periods;
        struct ad_map accounts; /* by advertiser -> int64_t: first instant with something */
        struct df_buf key;
        struct adi_progress progress;
        bool failed;
};

static struct period *period_of(struct list *l, struct df_bytes advertiser, struct df_bytes period)
{
        struct period *p;
        bool fresh;

        df_buf_clear(&l->key);
        df_put_lstr(&l->key, advertiser);
        df_put_lstr(&l->key, period);
        p = l->key.failed ? NULL : ad_map_put(&l->periods, df_buf_bytes(&l->key), &fresh);
        l->failed |= !p;
        return p;
}

static void note_account(struct list *l, struct df_bytes advertiser, int64_t ms)
{
        bool fresh;
        int64_t *first = ad_map_put(&l->accounts, advertiser, &fresh);

        l->failed |= !first;
        if (first && (fresh || ms < *first))
                *first = ms;
}

/* Months are listed from this one on: by a day that it has in every zone. */
static void note_period(struct list *l, struct df_bytes advertiser, struct df_bytes period)
{
        unsigned month;
        int year;

        if (ad_period_parse(period, &year, &month))
                note_account(l, advertiser, ad_days_from_civil(year, month, 15) * DAY_MS);
}

/* Whether the account is asked about. */
static bool wanted(const struct adi_ask *q, struct df_bytes advertiser)
{
        struct df_bytes want = adi_ask_param(q, "advertiser_id");

        return !want.data || df_bytes_eq(want, advertiser);
}

static int on_close(void *arg, const struct ad_closed *c, struct df_error *err)
{
        struct list *l = arg;
        struct df_bytes advertiser = c->close.account.advertiser_id;
        struct period *p;

        if (!wanted(l->q, advertiser))
                return 0;
        p = period_of(l, advertiser, c->close.period);
        if (!p)
                return df_fail(err, DF_ENOMEM, "periods");
        note_period(l, advertiser, c->close.period);
        if (p->closed || (c->refused && p->refused && c->close.at_ms < p->of.close.at_ms))
                return 0;
        p->closed = !c->refused;
        p->refused = c->refused;
        p->of = *c;
        p->of.why = df_arena_copy(&l->q->arena, c->why);
        p->of.close.run = df_arena_copy(&l->q->arena, c->close.run);
        p->of.close.asked_by = df_arena_copy(&l->q->arena, c->close.asked_by);
        p->of.close.zone = df_arena_copy(&l->q->arena, c->close.zone);
        return 0;
}

/* Newest first: the newest request of each period that the books have not answered. */
static bool on_command(void *arg, const struct ad_asked_for *e)
{
        struct list *l = arg;
        const struct ad_close_request *c = &e->command.close;
        struct period *p;

        if (e->command.kind != AD_COMMAND_CLOSE || atomic_load(&e->cancelled) ||
            !df_bytes_eq(e->command.tenant_id, l->q->tenant) ||
            !wanted(l->q, c->account.advertiser_id))
                return true;
        p = period_of(l, c->account.advertiser_id, c->period);
        if (!p)
                return false;
        note_period(l, c->account.advertiser_id, c->period);
        if (p->asked)
                return true;
        p->asked = &e->command;
        p->closing =
                !p->closed && !(p->refused && df_bytes_eq(p->of.close.asked_by, e->command.id));
        return true;
}

/* The first cell of an advertiser: cells come by quarter hour. */
static int on_first(void *arg, const struct ad_billing_cell *cell, struct df_error *err)
{
        *(int64_t *)arg = (int64_t)cell->posting->target.quarter * AD_QUARTER_MS;
        return 1;
}

static int on_advertiser(void *arg, struct df_bytes advertiser, struct df_error *err)
{
        struct list *l = arg;
        struct ad_account_rule rule;
        struct ad_billing_scope scope = {
                .tenant_id = l->q->tenant,
                .one_advertiser = true,
                .advertiser_id = advertiser,
                .to_quarter = UINT64_MAX,
                .point = {UINT64_MAX, INT64_MAX},
        };
        int64_t first = INT64_MAX;
        int rc;

        ad_accounts_find(l->q->api->options.accounts, l->q->tenant, advertiser, &rule);
        if (!rule.whole_tenant && (advertiser.len == 0 || !wanted(l->q, advertiser)))
                return 0; /* events that state no advertiser are nobody's account */
        rc = ad_billing_cells(l->q->books, &scope, on_first, &first, err);
        if (rc >= 0 && first != INT64_MAX)
                note_account(l, rule.whole_tenant ? df_bytes(NULL, 0) : advertiser, first);
        return rc < 0 ? rc : l->accounts.count > ACCOUNTS_MAX; /* enough is known */
}

static const char *state_of(const struct period *p)
{
        if (p && p->closed)
                return "closed";
        if (p && p->closing)
                return "closing";
        return p && p->refused ? "refused" : "open";
}

static void put_quarter(struct ad_json *j, const char *key, const struct ad_zone *z, uint64_t v)
{
        char text[AD_ZONE_TEXT_MAX];

        ad_json_put_bytes(
                j, key, df_bytes(text, (size_t)ad_zone_text(z, (int64_t)v * AD_QUARTER_MS, text)));
}

static void put_period(struct list *l, struct df_bytes advertiser, const struct ad_zone *z,
                       const struct adi_month *m)
{
        const struct period *p = period_of(l, advertiser, df_bytes_str(m->name));
        bool own = p && p->closed; /* as it was closed, whatever the zone says now */
        struct ad_json *j = l->j;

        ad_json_open(j);
        ad_json_put_text(j, "period", m->name);
        ad_json_key(j, "advertiser_id");
        if (advertiser.len)
                ad_json_bytes(j, advertiser);
        else
                ad_json_null(j);
        ad_json_put_text(j, "state", state_of(p));
        if (own)
                ad_json_put_bytes(j, "zone", p->of.close.zone);
        else
                ad_json_put_text(j, "zone", ad_zone_name(z));
        put_quarter(j, "from", z, own ? p->of.close.from_quarter : m->from_quarter);
        put_quarter(j, "to", z, own ? p->of.close.to_quarter : m->to_quarter);
        ad_json_put_bool(j, "over", (int64_t)m->to_quarter * AD_QUARTER_MS <= df_wall_ms());
        if (own)
                ad_json_put_bytes(j, "asked_by", p->of.close.asked_by);
        else if (p && p->asked)
                ad_json_put_bytes(j, "asked_by", p->asked->id);
        if (p && p->closing)
                adi_progress_close_json(j, &l->progress, l->q->tenant, p->asked->id);
        if (p && (p->closed || p->refused)) {
                adi_json_time(j, p->closed ? "closed_at" : "refused_at", p->of.close.at_ms);
                ad_json_put_bytes(j, "run", p->of.close.run);
        }
        if (p && p->refused)
                ad_json_put_bytes(j, "why", p->of.why);
        ad_json_close(j);
}

/* All months from the first one with anything to the running one. */
static int put_account(struct list *l, struct df_bytes advertiser, int64_t first_ms)
{
        struct ad_account_rule rule;
        int year, last_year;
        unsigned month, last_month;

        ad_accounts_find(l->q->api->options.accounts, l->q->tenant, advertiser, &rule);
        adi_month_at(rule.zone, first_ms, &year, &month);
        adi_month_at(rule.zone, df_wall_ms(), &last_year, &last_month);
        for (; year < last_year || (year == last_year && month <= last_month); month++) {
                struct adi_month m;

                if (month > 12) {
                        month = 0;
                        year++;
                        continue;
                }
                if (adi_month_of(rule.zone, year, month, &m, &l->q->fault) < 0)
                        return -1;
                put_period(l, advertiser, rule.zone, &m);
        }
        return 0;
}

static int gather(struct list *l)
{
        struct adi_ask *q = l->q;
        struct df_error err = {0};
        struct df_bytes one = adi_ask_param(q, "advertiser_id");
        struct adi_account a;

        if (one.data && adi_account_of(q, one, &a) < 0)
                return -1;
        if (ad_billing_closes(q->books, q->tenant, on_close, l, &err) < 0)
                return ad_fault_error(&q->fault, &err);
        ad_api_commands_list(q->api->options.commands, UINT64_MAX, on_command, l);
        if (one.data)
                note_account(l, one, df_wall_ms()); /* the running month at least */
        if (ad_billing_advertisers(q->books, q->tenant, on_advertiser, l, &err) < 0)
                return ad_fault_error(&q->fault, &err);
        if (l->accounts.count > ACCOUNTS_MAX) /* by cells, closes or requests */
                return ad_fault_set(&q->fault, 400, "too_many_accounts", "advertiser_id",
                                    "more than %d accounts: ask by advertiser_id", ACCOUNTS_MAX);
        return 0;
}

static int write_list(struct list *l, struct df_buf *b)
{
        struct ad_map_entry **sorted = ad_map_sorted(&l->accounts);
        struct ad_json *j = ad_json_begin(b);
        int rc = sorted ? 0 : -1;

        l->j = j;
        ad_json_open(j);
        ad_json_put_bytes(j, "tenant", l->q->tenant);
        ad_json_key(j, "periods");
        ad_json_open_array(j);
        for (size_t i = 0; rc == 0 && i < l->accounts.count; i++)
                rc = put_account(l, sorted[i]->key, *(int64_t *)sorted[i]->value);
        ad_json_close_array(j);
        ad_json_close(j);
        (void)ad_json_end(j, b, NULL); /* b says so */
        if (rc < 0 && sorted)
                return -1;
        if (l->failed || !sorted)
                return ad_fault_set(&l->q->fault, 503, "unavailable", NULL, "out of memory");
        return 0;
}

static int list(struct adi_ask *q)
{
        static const char *const names[] = {"advertiser_id", NULL};
        struct list l = {.q = q};
        struct df_buf b = {0};
        int rc = 0;

        if (adi_ask_params(q, names) < 0 || adi_ask_books(q) < 0)
                return -1;
        if (adi_ask_commands(q) < 0)
                return -1;
        ad_map_init(&l.periods, &q->arena, sizeof(struct period));
        ad_map_init(&l.accounts, &q->arena, sizeof(int64_t));
        (void)adi_progress_read(q->api->options.data_dir, &q->arena,
                                &l.progress); /* without it a list is as good */
        rc = gather(&l);
        if (rc == 0)
                rc = write_list(&l, &b);
        df_buf_release(&l.key);
        if (rc == 0)
                return adi_ask_reply(q, 200, "application/json", NULL, &b);
        df_buf_release(&b);
        return rc;
}

void adi_on_periods(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_READ, list);
}

/* ---- POST /periods/{p}/close ---- */

/* What the books would refuse anyway, told at once. The books decide: a close may be on its way. */
static int check_open(struct adi_ask *q, const struct adi_account *a, const struct ad_command *c,
                      struct df_bytes id)
{
        struct adi_closed closed;

        if (ad_api_commands_find(q->api->options.commands, q->tenant, id))
                return 0; /* a request that was made before: answered as then */
        if (adi_ask_books(q) < 0 || adi_find_close(q, a, df_bytes(NULL, 0), &closed) < 0)
                return -1;
        if (!closed.taken || c->close.from_quarter >= closed.closed.close.to_quarter)
                return 0;
        return ad_fault_set(
                &q->fault, 409, "period_closed", NULL,
                "the account is closed up to the end of %.*s; corrections of it become "
                "adjustments in %.*s",
                (int)closed.closed.close.period.len, (const char *)closed.closed.close.period.data,
                (int)closed.closed.open_period.len, (const char *)closed.closed.open_period.data);
}

static int check_over(struct adi_ask *q, const struct adi_account *a, const struct adi_month *m)
{
        int64_t end = (int64_t)m->to_quarter * AD_QUARTER_MS;
        char text[AD_ZONE_TEXT_MAX];

        if (end <= df_wall_ms())
                return 0;
        (void)ad_zone_text(a->rule.zone, end, text);
        return ad_fault_set(&q->fault, 409, "period_not_over", NULL, "%s ends at %s", m->name,
                            text);
}

static int close_period(struct adi_ask *q)
{
        static const char *const names[] = {NULL};
        struct df_bytes header = df_http_header(q->request, "idempotency-key");
        struct ad_command c = {0};
        struct adi_account a;
        struct adi_month m;
        struct ad_doc d;
        char *period;
        unsigned month;
        int year;

        if (adi_ask_params(q, names) < 0)
                return -1;
        if (!ad_period_parse(q->request->tail, &year, &month))
                return ad_fault_set(&q->fault, 404, "no_such_period", NULL,
                                    "a period is a month, like 2026-04");
        if (adi_ask_body(q, &d) < 0 || ad_parse_close(&d, &c, &q->fault) < 0 ||
            adi_account_of(q, c.close.account.advertiser_id, &a) < 0 ||
            adi_month_of(a.rule.zone, year, month, &m, &q->fault) < 0 || check_over(q, &a, &m) < 0)
                return -1;
        if (adi_ask_commands(q) < 0)
                return -1;
        period = df_arena_alloc(&q->arena, sizeof(m.name));
        if (!period)
                return ad_fault_set(&q->fault, 503, "unavailable", NULL, "out of memory");
        memcpy(period, m.name, sizeof(m.name));
        c.close.period = df_bytes(period, AD_PERIOD_MAX);
        c.close.from_quarter = m.from_quarter;
        c.close.to_quarter = m.to_quarter;
        c.close.zone = df_bytes_str(ad_zone_name(a.rule.zone));
        c.close.zone_version = df_bytes_str(ad_zones_version(q->api->options.zones));
        if (check_open(q, &a, &c, header.data ? header : c.id) < 0)
                return -1;
        return adi_ask_command(q, &c, "periods", c.close.period);
}

/* ---- POST /periods/{p}/cancel ---- */

struct pending {
        struct adi_ask *q;
        const struct adi_account *account;
        struct df_bytes answered; /* id of the request that the books refused last; else empty */
        const struct ad_asked_for *found;
};

static bool on_pending(void *arg, const struct ad_asked_for *e)
{
        struct pending *x = arg;
        const struct ad_close_request *c = &e->command.close;

        if (e->command.kind != AD_COMMAND_CLOSE || atomic_load(&e->cancelled) ||
            !df_bytes_eq(e->command.tenant_id, x->q->tenant) ||
            !df_bytes_eq(c->account.advertiser_id, x->account->advertiser_id) ||
            !df_bytes_eq(c->period, x->q->request->tail))
                return true;
        if (!df_bytes_eq(e->command.id, x->answered))
                x->found = e;
        return false;
}

/* The newest request that has no answer yet; of a repeated cancellation, the one it was of. */
static int find_pending(struct adi_ask *q, const struct adi_account *a, struct ad_command *c,
                        struct df_bytes id)
{
        struct ad_api_commands *commands = q->api->options.commands;
        const struct ad_asked_for *before = ad_api_commands_find(commands, q->tenant, id);
        struct pending x = {.q = q, .account = a};
        struct adi_closed closed;

        if (before && before->command.kind == AD_COMMAND_CANCEL) {
                c->cancel = before->command.cancel;
                return 0;
        }
        if (adi_ask_books(q) < 0 || adi_find_close(q, a, q->request->tail, &closed) < 0)
                return -1;
        if (closed.taken)
                return ad_fault_set(&q->fault, 409, "period_closed", NULL,
                                    "it is closed, for ever: correct it, and the adjustments are "
                                    "in the open period");
        if (closed.refused)
                x.answered = closed.closed.close.asked_by;
        ad_api_commands_list(commands, UINT64_MAX, on_pending, &x);
        if (!x.found)
                return ad_fault_set(&q->fault, 404, "not_closing", NULL,
                                    "nobody's request to close it waits");
        c->cancel = x.found->command.id;
        return 0;
}

static int cancel_close(struct adi_ask *q)
{
        static const char *const names[] = {NULL};
        struct df_bytes header = df_http_header(q->request, "idempotency-key");
        struct ad_command asked = {0}, c = {.kind = AD_COMMAND_CANCEL};
        struct adi_account a;
        struct ad_doc d;
        char *period = df_arena_alloc(&q->arena, AD_PERIOD_MAX);
        unsigned month;
        int year;

        if (!period)
                return ad_fault_set(&q->fault, 503, "unavailable", NULL, "out of memory");
        if (adi_ask_params(q, names) < 0)
                return -1;
        if (!ad_period_parse(q->request->tail, &year, &month))
                return ad_fault_set(&q->fault, 404, "no_such_period", NULL,
                                    "a period is a month, like 2026-04");
        if (adi_ask_body(q, &d) < 0 || ad_parse_close(&d, &asked, &q->fault) < 0 ||
            adi_account_of(q, asked.close.account.advertiser_id, &a) < 0 || adi_ask_commands(q) < 0)
                return -1;
        c.id = asked.id;
        c.reason = asked.reason;
        c.requested_by = asked.requested_by;
        c.approved_by = asked.approved_by;
        if (find_pending(q, &a, &c, header.data ? header : c.id) < 0)
                return -1;
        memcpy(period, q->request->tail.data, AD_PERIOD_MAX);
        return adi_ask_command(q, &c, "periods", df_bytes(period, AD_PERIOD_MAX));
}

void adi_on_close(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_FINANCE, close_period);
}

void adi_on_close_cancel(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_FINANCE, cancel_close);
}
