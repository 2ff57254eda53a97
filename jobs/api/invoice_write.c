#include "jobs/api/invoice_write.h"

#include "jobs/api/query_private.h"
#include "jobs/common/times.h"

static const char *const kinds[] = {"usage", "adjustment", "reversal", "charge"};

static df_nanos exact_of(enum ad_invoice_side side, const struct ad_cell *c)
{
        return side == AD_CHARGES ? c->spend : c->payout;
}

/* A line of the ledger form is rounded lines of invoices: it has no exact amount of its own. */
static bool has_exact(const struct ad_invoice_line *l)
{
        return l->kind == AD_LINE_USAGE || l->kind == AD_LINE_ADJUSTMENT;
}

/* ---- JSON ---- */

static void put_decimal(struct ad_json *j, const char *key, __int128 v, uint32_t digits)
{
        char text[DF_DECIMAL_TEXT_MAX];

        ad_json_put_bytes(j, key, df_bytes(text, (size_t)df_decimal_text(v, digits, text)));
}

static void put_time(struct ad_json *j, const char *key, const struct ad_zone *z, int64_t ms)
{
        char text[AD_ZONE_TEXT_MAX];

        if (ms == 0)
                ad_json_put_null(j, key);
        else
                ad_json_put_bytes(j, key, df_bytes(text, (size_t)ad_zone_text(z, ms, text)));
}

static void put_count(struct ad_json *j, const char *key, uint64_t count)
{
        ad_json_put_int(j, key, ad_count_signed(count));
}

static void put_counts(struct ad_json *j, const struct ad_cell *c)
{
        put_count(j, "impressions", c->impressions);
        put_count(j, "clicks", c->clicks);
        put_count(j, "conversions", c->conversions);
        if (!(c->invalid[0] | c->invalid[1] | c->invalid[2]))
                return;
        put_count(j, "invalid_impressions", c->invalid[AD_IMPRESSION - 1]);
        put_count(j, "invalid_clicks", c->invalid[AD_CLICK - 1]);
        put_count(j, "invalid_conversions", c->invalid[AD_CONVERSION - 1]);
}

static void put_line(struct ad_json *j, enum ad_invoice_side side, const struct ad_invoice_line *l)
{
        ad_json_open(j);
        ad_json_put_text(j, "kind", kinds[l->kind]);
        if (l->kind != AD_LINE_USAGE) {
                ad_json_key(j, "original_period");
                if (l->original.len)
                        ad_json_bytes(j, l->original);
                else
                        ad_json_null(j);
        }
        if (l->kind != AD_LINE_USAGE && l->cause < AD_CAUSE_COUNT)
                ad_json_put_text(j, "cause", ad_cause_code(l->cause));
        ad_json_put_bytes(j, side == AD_CHARGES ? "campaign_id" : "publisher_id", l->party);
        ad_json_put_bytes(j, "currency", l->currency);
        put_decimal(j, "amount", l->amount, l->digits);
        if (has_exact(l))
                put_decimal(j, "exact", exact_of(side, &l->cell), 9);
        if (side == AD_CHARGES)
                put_counts(j, &l->cell);
        ad_json_close(j);
}

static void put_part(struct ad_json *j, const struct ad_invoice *v, enum ad_invoice_side side,
                     const char *lines, const char *totals)
{
        const struct ad_invoice_part *p = ad_invoice_part(v, side);

        ad_json_key(j, lines);
        ad_json_open_array(j);
        for (size_t i = 0; i < p->count; i++)
                put_line(j, side, &p->lines[i]);
        ad_json_close_array(j);
        ad_json_key(j, totals);
        ad_json_open_array(j);
        for (size_t i = 0; i < p->total_count; i++) {
                const struct ad_invoice_total *t = &p->totals[i];

                ad_json_open(j);
                ad_json_put_bytes(j, "currency", t->currency);
                put_decimal(j, "usage", t->usage, t->digits);
                put_decimal(j, "adjustments", t->adjustments, t->digits);
                put_decimal(j, "amount", t->usage + t->adjustments, t->digits);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

void adi_invoice_json(struct ad_json *j, const struct adi_invoice_head *h,
                      const struct ad_invoice *v)
{
        ad_json_put_bytes(j, "period", h->span.period);
        ad_json_put_text(j, "state", h->closed ? "closed" : "open");
        ad_json_put_bytes(j, "tenant", h->tenant_id);
        ad_json_key(j, "advertiser_id");
        if (h->advertiser_id.len)
                ad_json_bytes(j, h->advertiser_id);
        else
                ad_json_null(j);
        ad_json_put_bytes(j, "zone", h->zone_name);
        ad_json_put_bytes(j, "zone_version", h->zone_version);
        put_time(j, "from", h->zone, h->span.from_ms);
        put_time(j, "to", h->zone, h->span.to_ms);
        put_time(j, "closed_at", h->zone, h->closed_at_ms);
        put_time(j, "billed_through", h->zone, h->billed_through_ms);
        ad_json_key(j, "run");
        if (h->run.len)
                ad_json_bytes(j, h->run);
        else
                ad_json_null(j);
        ad_json_put_int(j, "seq", (__int128)h->seq);
        ad_json_put_text(j, "adjustments", h->ledger ? "ledger" : "delta");
        put_part(j, v, AD_CHARGES, "charges", "totals");
        put_part(j, v, AD_PAYOUTS, "payouts", "payout_totals");
}

/* ---- CSV ---- */

static void csv_time(struct df_buf *b, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        df_buf_append(b, text, (size_t)ad_time_text(ms, text));
        df_put_u8(b, ',');
}

static void csv_decimal(struct df_buf *b, __int128 v, uint32_t digits)
{
        char text[DF_DECIMAL_TEXT_MAX];

        df_buf_append(b, text, (size_t)df_decimal_text(v, digits, text));
        df_put_u8(b, ',');
}

static void csv_field(struct df_buf *b, struct df_bytes s)
{
        adi_csv_text(b, s);
        df_put_u8(b, ',');
}

/* The period that the line is of. Rows from before the first closed period have no begin. */
static struct adi_span span_of(const struct adi_invoice_head *h, const struct ad_invoice_line *l)
{
        if (l->kind == AD_LINE_USAGE)
                return h->span;
        for (size_t i = 0; i < h->original_count; i++)
                if (df_bytes_eq(h->originals[i].period, l->original))
                        return h->originals[i];
        return (struct adi_span){.to_ms = h->span.from_ms};
}

static void csv_line(struct df_buf *b, const struct adi_invoice_head *h, enum ad_invoice_side side,
                     const struct ad_invoice_line *l)
{
        struct adi_span of = span_of(h, l);
        bool usage = l->kind == AD_LINE_USAGE;
        const struct ad_cell *c = &l->cell;

        csv_field(b, h->advertiser_id.len ? h->advertiser_id : h->tenant_id);
        csv_time(b, h->span.from_ms);
        csv_time(b, h->span.to_ms);
        csv_time(b, of.from_ms);
        csv_time(b, of.to_ms);
        df_buf_printf(b, usage ? "Usage,," : "Adjustment,Correction,");
        csv_decimal(b, l->amount, l->digits);
        csv_field(b, l->currency);
        df_buf_printf(b, "%s,%s,", kinds[l->kind], h->closed ? "closed" : "open");
        csv_field(b, l->party);
        csv_field(b, usage ? h->span.period : l->original);
        df_buf_printf(b, "%s,", usage || l->cause >= AD_CAUSE_COUNT ? "" : ad_cause_code(l->cause));
        if (has_exact(l))
                csv_decimal(b, exact_of(side, c), 9);
        else
                df_put_u8(b, ',');
        df_buf_printf(b, "%lld,%lld,%lld\r\n", (long long)ad_count_signed(c->impressions),
                      (long long)ad_count_signed(c->clicks),
                      (long long)ad_count_signed(c->conversions));
}

void adi_invoice_csv(struct df_buf *b, const struct adi_invoice_head *h, const struct ad_invoice *v,
                     enum ad_invoice_side side)
{
        const struct ad_invoice_part *p = ad_invoice_part(v, side);

        df_buf_printf(b,
                      "BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
                      "ChargePeriodEnd,ChargeCategory,ChargeClass,%s,BillingCurrency,x_Kind,"
                      "x_State,%s,x_Period,x_Cause,x_Exact,x_Impressions,x_Clicks,x_Conversions"
                      "\r\n",
                      side == AD_CHARGES ? "BilledCost" : "x_Payout",
                      side == AD_CHARGES ? "x_CampaignId" : "x_PublisherId");
        for (size_t i = 0; i < p->count; i++)
                csv_line(b, h, side, &p->lines[i]);
}
