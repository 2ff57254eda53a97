/* period_bounds.c - calendar months of a zone, whose account a request is about, and its closes. */
#include <stdio.h>

#include "jobs/api/periods.h"
#include "jobs/common/times.h"

int adi_month_of(const struct ad_zone *z, int year, unsigned month, struct adi_month *ret,
                 struct ad_fault *f)
{
        int64_t from = ad_zone_day_start(z, ad_days_from_civil(year, month, 1)), at;
        int64_t to = ad_zone_day_start(
                z, ad_days_from_civil(month < 12 ? year : year + 1, month % 12 + 1, 1));
        char text[AD_TIME_TEXT_MAX];

        if (from < 0) /* 1970-01 east of Greenwich */
                from = 0;
        if (!ad_zone_supported(z, from, to, &at)) {
                (void)ad_time_text(at, text);
                return ad_fault_set(f, 400, "zone_not_supported", NULL,
                                    "%s is off the quarter hour at %s: no period can be made of "
                                    "quarter hours there",
                                    ad_zone_name(z), text);
        }
        *ret = (struct adi_month){
                .year = year,
                .month = month,
                .from_quarter = (uint64_t)from / AD_QUARTER_MS,
                .to_quarter = (uint64_t)to / AD_QUARTER_MS,
        };
        (void)snprintf(ret->name, sizeof(ret->name), "%04d-%02u", year % 10000, month % 100);
        return 0;
}

void adi_month_at(const struct ad_zone *z, int64_t ms, int *ret_year, unsigned *ret_month)
{
        int64_t year;
        unsigned day;

        ad_civil_from_days(ad_zone_day_of(z, ms), &year, ret_month, &day);
        *ret_year = (int)year;
}

int adi_account_of(struct adi_ask *q, struct df_bytes advertiser_id, struct adi_account *ret)
{
        *ret = (struct adi_account){.advertiser_id = advertiser_id};
        if (advertiser_id.len > AD_ID_MAX)
                return ad_fault_set(&q->fault, 400, "too_long", "advertiser_id",
                                    "an advertiser_id is at most %d bytes", AD_ID_MAX);
        ad_accounts_find(q->api->options.accounts, q->tenant, advertiser_id, &ret->rule);
        if (ret->rule.whole_tenant && advertiser_id.len)
                return ad_fault_set(&q->fault, 400, "account_is_tenant", "advertiser_id",
                                    "this tenant closes as a whole (--accounts): leave "
                                    "advertiser_id away");
        if (!ret->rule.whole_tenant && advertiser_id.len == 0)
                return ad_fault_set(&q->fault, 400, "advertiser_needed", "advertiser_id",
                                    "each advertiser of this tenant has periods of its own "
                                    "(--accounts): say whose");
        return 0;
}

/* ---- closes ---- */

struct search {
        struct adi_ask *q;
        const struct adi_account *account;
        struct df_bytes period;
        struct adi_closed *ret;
};

static struct df_bytes copy(struct search *s, struct df_bytes b)
{
        return df_arena_copy(&s->q->arena, b);
}

static void keep(struct search *s, const struct ad_closed *c)
{
        struct ad_closed *to = &s->ret->closed;
        const size_t bytes = c->close.total_count * sizeof(*c->close.totals);
        struct ad_currency_cell *totals = df_arena_alloc(&s->q->arena, bytes + 1);

        *to = *c;
        to->close.run = copy(s, c->close.run);
        to->close.asked_by = copy(s, c->close.asked_by);
        to->close.account.tenant_id = s->q->tenant;
        to->close.account.advertiser_id = s->account->advertiser_id;
        to->close.period = copy(s, c->close.period);
        to->close.zone = copy(s, c->close.zone);
        to->close.zone_version = copy(s, c->close.zone_version);
        to->close.manifest = copy(s, c->close.manifest);
        to->close.signature = copy(s, c->close.signature);
        to->why = copy(s, c->why);
        to->open_period = copy(s, c->open_period);
        if (!totals) {
                to->close.total_count = 0;
                return;
        }
        for (size_t i = 0; i < c->close.total_count; i++) {
                totals[i] = c->close.totals[i];
                totals[i].currency = copy(s, totals[i].currency);
        }
        to->close.totals = totals;
}

static int on_close(void *arg, const struct ad_closed *c, struct df_error *err)
{
        struct search *s = arg;
        struct adi_closed *r = s->ret;

        if (!df_bytes_eq(c->close.account.advertiser_id, s->account->advertiser_id) ||
            (s->period.len && !df_bytes_eq(c->close.period, s->period)))
                return 0;
        if (c->refused) {
                if (r->taken || s->period.len == 0 ||
                    (r->refused && c->close.at_ms < r->closed.close.at_ms))
                        return 0;
                r->refused = true;
        } else {
                if (r->taken && c->close.to_quarter <= r->closed.close.to_quarter)
                        return 0;
                r->taken = true;
                r->refused = false;
        }
        keep(s, c);
        return 0;
}

int adi_find_close(struct adi_ask *q, const struct adi_account *a, struct df_bytes period,
                   struct adi_closed *ret)
{
        struct search s = {.q = q, .account = a, .period = period, .ret = ret};
        struct df_error err = {0};

        *ret = (struct adi_closed){0};
        if (ad_billing_closes(q->books, q->tenant, on_close, &s, &err) < 0)
                return ad_fault_error(&q->fault, &err);
        return 0;
}
