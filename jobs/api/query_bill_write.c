/* query_bill_write.c - rows and totals of the bill as JSON and CSV. */
#include <inttypes.h>
#include <stdio.h>

#include "jobs/api/query_private.h"
#include "jobs/common/json.h"

static const char *const measures[] = {"impressions",  "clicks",        "conversions",
                                       "spend_micros", "payout_micros", "conversion_value_micros"};
static const char *const invalids[] = {"invalid_impressions", "invalid_clicks",
                                       "invalid_conversions"};
#define MEASURES 6
#define INVALIDS 3

/* Counts are signed: there are differences among them. */
static __int128 measure(const struct ad_cell *c, int m)
{
        switch (m) {
        case 0:
                return ad_count_signed(c->impressions);
        case 1:
                return ad_count_signed(c->clicks);
        case 2:
                return ad_count_signed(c->conversions);
        case 3:
                return df_nanos_to_micros(c->spend);
        case 4:
                return df_nanos_to_micros(c->payout);
        default:
                return df_nanos_to_micros(c->value);
        }
}

static bool any_invalid(const struct ad_cell *c)
{
        return c->invalid[0] || c->invalid[1] || c->invalid[2];
}

/* ---- JSON ---- */

static void put_number(struct ad_json *j, const char *prefix, const char *name, __int128 v)
{
        char key[64];

        (void)snprintf(key, sizeof(key), "%s%s", prefix, name);
        ad_json_put_int(j, key, v);
}

static void put_cell(struct ad_json *j, const char *prefix, const struct ad_cell *c)
{
        for (int m = 0; m < MEASURES; m++)
                put_number(j, prefix, measures[m], measure(c, m));
        for (int i = 0; any_invalid(c) && i < INVALIDS; i++)
                put_number(j, prefix, invalids[i], ad_count_signed(c->invalid[i]));
}

static void put_drift(struct ad_json *j, const struct ad_result_bill *b)
{
        double drift;

        ad_json_key(j, "drift");
        if (ad_drift(b->billed.spend, b->realtime.spend, &drift))
                ad_json_double(j, drift);
        else
                ad_json_null(j);
}

static void put_causes(struct ad_json *j, const struct ad_result_bill *b)
{
        ad_json_key(j, "causes");
        ad_json_open(j);
        for (const struct ad_result_cause *c = b->causes; c; c = c->next) {
                if (ad_cell_is_zero(&c->difference))
                        continue;
                ad_json_key(j, ad_cause_code(c->cause));
                ad_json_open(j);
                put_cell(j, "", &c->difference);
                ad_json_close(j);
        }
        ad_json_close(j);
}

static void put_amounts(struct ad_json *j, enum ad_metrics_view view,
                        const struct ad_result_bill *b)
{
        if (view == AD_METRICS_BOTH) {
                put_cell(j, "realtime_", &b->realtime);
                put_cell(j, "billing_", &b->billed);
                put_drift(j, b);
                put_causes(j, b);
                return;
        }
        put_cell(j, "", &b->billed);
        ad_json_key(j, "ctr");
        ad_json_ratio(j, b->billed.clicks, b->billed.impressions);
        ad_json_key(j, "cvr");
        ad_json_ratio(j, b->billed.conversions, b->billed.clicks);
}

static void end_json(struct ad_json *j, struct df_buf *b)
{
        struct df_error ignored; /* the buffer remembers */

        if (ad_json_end(j, b, &ignored) < 0)
                b->failed = true;
}

void adi_bill_row_json(struct df_buf *b, const struct ad_result *r, const struct ad_result_row *row,
                       struct df_bytes start)
{
        struct ad_json *j = ad_json_begin(b);

        ad_json_open(j);
        ad_json_put_bytes(j, "window_start", start);
        for (uint32_t d = 0; d < r->group_count; d++)
                ad_json_put_bytes(j, ad_dim_names[r->group_by[d]], row->dims[d]);
        ad_json_put_bytes(j, "currency", row->currency);
        put_amounts(j, r->view, row->bill);
        ad_json_put_text(j, "state", adi_bill_state(r, row));
        ad_json_put_bool(j, "adjusted", row->bill->adjusted);
        ad_json_close(j);
        end_json(j, b);
}

void adi_bill_total_json(struct df_buf *b, const struct ad_result *r, const struct ad_total *total)
{
        struct ad_json *j = ad_json_begin(b);

        ad_json_open(j);
        ad_json_put_bytes(j, "currency", total->currency);
        put_amounts(j, r->view, total->bill);
        ad_json_close(j);
        end_json(j, b);
}

/* ---- CSV ---- */

static void head_of(struct df_buf *b, const char *prefix, bool with_invalid)
{
        for (int m = 0; m < MEASURES; m++)
                df_buf_printf(b, ",%s%s", prefix, measures[m]);
        for (int i = 0; with_invalid && i < INVALIDS; i++)
                df_buf_printf(b, ",%s%s", prefix, invalids[i]);
}

void adi_bill_csv_head(struct df_buf *b, const struct ad_result *r)
{
        char prefix[40];

        if (r->view == AD_METRICS_BILLING) {
                head_of(b, "", false);
                df_buf_printf(b, ",ctr,cvr,invalid_impressions,invalid_clicks,invalid_conversions");
        } else {
                head_of(b, "realtime_", true);
                head_of(b, "billing_", true);
                df_buf_printf(b, ",drift");
                for (unsigned c = AD_CAUSE_NONE + 1; c < AD_CAUSE_COUNT; c++) {
                        (void)snprintf(prefix, sizeof(prefix), "%s_", ad_cause_code(c));
                        head_of(b, prefix, true);
                }
        }
        df_buf_printf(b, ",state,adjusted\r\n");
}

static void csv_number(struct df_buf *b, __int128 v)
{
        char text[DF_INT128_TEXT_MAX];

        df_put_u8(b, ',');
        df_buf_append(b, text, (size_t)df_int128_text(v, text));
}

static void csv_invalid(struct df_buf *b, const struct ad_cell *c)
{
        for (int i = 0; i < INVALIDS; i++)
                csv_number(b, ad_count_signed(c->invalid[i]));
}

static void csv_cell(struct df_buf *b, const struct ad_cell *c)
{
        for (int m = 0; m < MEASURES; m++)
                csv_number(b, measure(c, m));
}

static void csv_ratio(struct df_buf *b, uint64_t num, uint64_t den)
{
        uint8_t text[ADI_RATIO_MAX];

        df_put_u8(b, ',');
        if (den)
                df_buf_append(b, text, adi_ratio_text(num, den, text));
}

static void csv_both(struct df_buf *b, const struct ad_result_bill *bill)
{
        const struct ad_result_cause *c = bill->causes;
        const struct ad_cell none = {0};
        double drift;

        csv_cell(b, &bill->realtime);
        csv_invalid(b, &bill->realtime);
        csv_cell(b, &bill->billed);
        csv_invalid(b, &bill->billed);
        if (ad_drift(bill->billed.spend, bill->realtime.spend, &drift))
                df_buf_printf(b, ",%.6g", drift);
        else
                df_put_u8(b, ',');
        for (unsigned cause = AD_CAUSE_NONE + 1; cause < AD_CAUSE_COUNT; cause++) {
                bool here = c && c->cause == cause;

                csv_cell(b, here ? &c->difference : &none);
                csv_invalid(b, here ? &c->difference : &none);
                c = here ? c->next : c;
        }
}

void adi_bill_csv_row(struct df_buf *b, const struct ad_result *r, const struct ad_result_row *row)
{
        const struct ad_cell *c = &row->bill->billed;

        if (r->view == AD_METRICS_BOTH) {
                csv_both(b, row->bill);
        } else {
                csv_cell(b, c);
                csv_ratio(b, c->clicks, c->impressions);
                csv_ratio(b, c->conversions, c->clicks);
                csv_invalid(b, c);
        }
        df_buf_printf(b, ",%s,%s\r\n", adi_bill_state(r, row),
                      row->bill->adjusted ? "true" : "false");
}
