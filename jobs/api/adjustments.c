/* adjustments.c - GET /adjustments: the ledger of what changed in closed periods, in the order in
 * which it was posted. */
#include <stdlib.h>

#include "jobs/api/periods.h"

#define LIMIT_DEFAULT 1000
#define LIMIT_MAX 10000
#define SCANNED_MAX 1000000 /* adjustments looked at for one answer */

struct entry {
        uint64_t seq;
        struct df_buf json;
};
struct list {
        struct adi_ask *q;
        uint64_t after, *seqs;
        size_t seq_count, seq_cap;
        uint64_t last; /* seq of the page's last */
        struct entry *entries;
        size_t count, limit;
        bool more;
};

/* ---- which ones ---- */

static int on_seq(void *arg, const struct ad_posting *p, struct df_error *err)
{
        struct list *l = arg;

        if (p->seq <= l->after)
                return 0;
        if (l->seq_count == SCANNED_MAX)
                return df_fail(err, DF_ELIMIT,
                               "more than %d adjustments: ask by period, advertiser_id or with a "
                               "greater `after`",
                               SCANNED_MAX);
        if (l->seq_count == l->seq_cap) {
                size_t cap = l->seq_cap ? 2 * l->seq_cap : 1024;
                uint64_t *grown = realloc(l->seqs, cap * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "adjustments");
                l->seqs = grown;
                l->seq_cap = cap;
        }
        l->seqs[l->seq_count++] = p->seq;
        return 0;
}

static int by_number(const void *x, const void *y)
{
        uint64_t a = *(const uint64_t *)x, b = *(const uint64_t *)y;

        return (a > b) - (a < b);
}

/* ---- as JSON ---- */

static void put_money(struct ad_json *j, const char *key, df_nanos v)
{
        char text[DF_DECIMAL_TEXT_MAX];

        ad_json_put_bytes(j, key, df_bytes(text, (size_t)df_decimal_text(v, 9, text)));
}

static void put_cell(struct ad_json *j, const struct ad_cause_cell *c)
{
        static const char *const invalid[] = {"invalid_impressions", "invalid_clicks",
                                              "invalid_conversions"};

        ad_json_open(j);
        ad_json_put_text(j, "cause", ad_cause_code(c->cause));
        ad_json_put_int(j, "impressions", ad_count_signed(c->billed.impressions));
        ad_json_put_int(j, "clicks", ad_count_signed(c->billed.clicks));
        ad_json_put_int(j, "conversions", ad_count_signed(c->billed.conversions));
        for (int i = 0; i < 3; i++)
                if (c->billed.invalid[i])
                        ad_json_put_int(j, invalid[i], ad_count_signed(c->billed.invalid[i]));
        put_money(j, "spend", c->billed.spend);
        put_money(j, "payout", c->billed.payout);
        put_money(j, "conversion_value", c->billed.value);
        ad_json_close(j);
}

static void put_period(struct ad_json *j, const char *key, struct df_bytes period)
{
        ad_json_key(j, key);
        if (period.len)
                ad_json_bytes(j, period);
        else
                ad_json_null(j);
}

static void put_posting(struct ad_json *j, const struct ad_posting *p)
{
        ad_json_open(j);
        ad_json_put_int(j, "seq", (__int128)p->seq);
        ad_json_put_bytes(j, "run", p->run);
        adi_json_time(j, "at", p->at_ms);
        put_period(j, "period", p->posted_period);
        put_period(j, "original_period", p->closed_period);
        adi_json_time(j, "quarter", (int64_t)p->target.quarter * AD_QUARTER_MS);
        ad_json_put_bytes(j, "advertiser_id", p->target.advertiser_id);
        ad_json_put_bytes(j, "campaign_id", p->target.campaign_id);
        ad_json_put_bytes(j, "publisher_id", p->target.publisher_id);
        ad_json_put_bytes(j, "currency", p->target.currency);
        ad_json_key(j, "delta");
        ad_json_open_array(j);
        for (size_t i = 0; i < p->delta_count; i++)
                put_cell(j, &p->delta[i]);
        ad_json_close_array(j);
        ad_json_close(j);
}

static int on_posting(void *arg, const struct ad_posting *p, struct df_error *err)
{
        struct list *l = arg;
        struct entry *e = &l->entries[l->count];
        struct ad_json *j;

        if (p->seq <= l->after || p->seq > l->last)
                return 0;
        e->seq = p->seq;
        j = ad_json_begin(&e->json);
        put_posting(j, p);
        l->count++;
        return ad_json_end(j, &e->json, err);
}

static int by_seq(const void *x, const void *y)
{
        return by_number(&((const struct entry *)x)->seq, &((const struct entry *)y)->seq);
}

static void fill_list(struct ad_json *j, void *arg)
{
        const struct list *l = arg;

        ad_json_put_bytes(j, "tenant", l->q->tenant);
        ad_json_key(j, "adjustments");
        ad_json_open_array(j);
        for (size_t i = 0; i < l->count; i++)
                ad_json_raw(j, df_buf_bytes(&l->entries[i].json));
        ad_json_close_array(j);
        if (l->more)
                ad_json_put_int(j, "next_after", (__int128)l->last);
        else
                ad_json_put_null(j, "next_after");
}

/* ---- the request ---- */

static int read_page(struct list *l, const struct ad_billing_scope *scope, struct df_bytes period)
{
        struct df_error err = {0};
        size_t n;

        if (ad_billing_adjustments(l->q->books, scope, period, on_seq, l, &err) < 0)
                return err.code == DF_ELIMIT ? ad_fault_set(&l->q->fault, 400, "range_too_large",
                                                            NULL, "%s", err.text)
                                             : ad_fault_error(&l->q->fault, &err);
        if (l->seq_count)
                qsort(l->seqs, l->seq_count, sizeof(*l->seqs), by_number);
        l->more = l->seq_count > l->limit;
        n = l->more ? l->limit : l->seq_count;
        l->last = n ? l->seqs[n - 1] : l->after;
        l->entries = calloc(n + 1, sizeof(*l->entries));
        if (!l->entries)
                return ad_fault_set(&l->q->fault, 503, "unavailable", NULL, "out of memory");
        if (n && ad_billing_adjustments(l->q->books, scope, period, on_posting, l, &err) < 0)
                return ad_fault_error(&l->q->fault, &err);
        qsort(l->entries, l->count, sizeof(*l->entries), by_seq);
        return 0;
}

static int answer(struct list *l, const struct ad_billing_scope *scope, struct df_bytes period)
{
        int rc = read_page(l, scope, period);

        if (rc == 0)
                rc = adi_ask_json(l->q, 200, fill_list, l);
        for (size_t i = 0; i < l->count; i++)
                df_buf_release(&l->entries[i].json);
        free(l->entries);
        free(l->seqs);
        return rc;
}

static int list(struct adi_ask *q)
{
        static const char *const names[] = {"advertiser_id", "period", "limit", "after", NULL};
        struct list l = {.q = q};
        struct df_bytes advertiser, period;
        struct ad_billing_scope scope = {.point = {UINT64_MAX, INT64_MAX}};
        uint64_t limit;
        unsigned month;
        int year;

        if (adi_ask_params(q, names) < 0 ||
            adi_ask_number(q, "limit", 1, LIMIT_MAX, LIMIT_DEFAULT, &limit) < 0 ||
            adi_ask_number(q, "after", 0, UINT64_MAX, 0, &l.after) < 0)
                return -1;
        l.limit = (size_t)limit;
        period = adi_ask_param(q, "period");
        advertiser = adi_ask_param(q, "advertiser_id");
        if (period.data && !ad_period_parse(period, &year, &month))
                return ad_fault_set(&q->fault, 400, "bad_period", "period",
                                    "a period is a month, like 2026-04");
        if (advertiser.len > AD_ID_MAX)
                return ad_fault_set(&q->fault, 400, "too_long", "advertiser_id",
                                    "an advertiser_id is at most %d bytes", AD_ID_MAX);
        if (adi_ask_books(q) < 0)
                return -1;
        scope.tenant_id = q->tenant;
        scope.one_advertiser = advertiser.data != NULL;
        scope.advertiser_id = advertiser;
        return answer(&l, &scope, period);
}

void adi_on_adjustments(void *arg, struct df_http_request *r)
{
        adi_ask(arg, r, AD_MAY_READ, list);
}
