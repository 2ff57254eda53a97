/* query_write.c - a page of an answer as JSON (the contract of docs/API.md) or CSV (RFC 4180). */
#include "jobs/api/query_private.h"
#include "jobs/common/json.h"

static const char *const views[] = {"realtime", "billing", "both"};
static const char *const windows[] = {"minute", "hour", "day", "month", "total"};

static void put_time(struct ad_json *j, const char *key, const struct ad_zone *z, int64_t ms)
{
        char text[AD_ZONE_TEXT_MAX];

        ad_json_key(j, key);
        if (ms == DF_TIME_MIN || ms == DF_TIME_MAX)
                ad_json_null(j);
        else
                ad_json_bytes(j, df_bytes(text, (size_t)ad_zone_text(z, ms, text)));
}

static void put_list(struct ad_json *j, const char *key, struct df_buf *text)
{
        df_put_u8(text, ']');
        ad_json_key(j, key);
        if (text->failed)
                ad_json_null(j);
        else
                ad_json_raw(j, df_buf_bytes(text));
        df_buf_clear(text);
}

static int put_rows(struct ad_json *j, const struct ad_result *r, size_t first, size_t end)
{
        uint32_t window = UINT32_MAX;
        char start[AD_ZONE_TEXT_MAX];
        struct df_buf text = {0};
        bool failed;
        size_t n = 0;

        df_put_u8(&text, '[');
        for (size_t i = first; i < end; i++) {
                if (r->rows[i].window != window) {
                        window = r->rows[i].window;
                        n = (size_t)ad_zone_text(r->zone, r->bounds[window], start);
                }
                if (i > first)
                        df_put_u8(&text, ',');
                if (r->view == AD_METRICS_REALTIME)
                        adi_row_json(&text, r, &r->rows[i], df_bytes(start, n));
                else
                        adi_bill_row_json(&text, r, &r->rows[i], df_bytes(start, n));
        }
        failed = text.failed;
        put_list(j, "rows", &text);
        df_put_u8(&text, '[');
        for (size_t i = 0; i < r->total_count; i++) {
                if (i > 0)
                        df_put_u8(&text, ',');
                if (r->view == AD_METRICS_REALTIME)
                        adi_total_json(&text, r->totals[i].currency, &r->totals[i].cell);
                else
                        adi_bill_total_json(&text, r, &r->totals[i]);
        }
        failed |= text.failed;
        put_list(j, "totals", &text);
        df_buf_release(&text);
        return failed ? DF_ENOMEM : 0;
}

/* What was asked, so that a number on its own still says what it is of. */
static void put_scope(struct ad_json *j, const struct ad_result *r)
{
        ad_json_put_bytes(j, "tenant", r->tenant_id);
        ad_json_key(j, "group_by");
        ad_json_open_array(j);
        for (uint32_t d = 0; d < r->group_count; d++)
                ad_json_text(j, ad_dim_names[r->group_by[d]]);
        ad_json_close_array(j);
        ad_json_key(j, "filters");
        ad_json_open(j);
        for (int d = 0; d < AD_DIM_COUNT; d++) {
                if (r->filters[d].count == 0)
                        continue;
                ad_json_key(j, ad_dim_names[d]);
                ad_json_open_array(j);
                for (size_t i = 0; i < r->filters[d].count; i++)
                        ad_json_bytes(j, r->filters[d].values[i]);
                ad_json_close_array(j);
        }
        ad_json_close(j);
}

static size_t end_of(const struct ad_result *r, size_t first, size_t limit)
{
        return r->row_count - first < limit ? r->row_count : first + limit;
}

/* How far realtime has seen, and what it lacks. */
static void put_realtime(struct ad_json *j, const struct ad_result *r)
{
        put_time(j, "watermark", r->zone, r->watermark_ms);
        ad_json_key(j, "completeness");
        ad_json_double(j, r->completeness);
        ad_json_key(j, "missing_partitions");
        ad_json_open_array(j);
        for (size_t i = 0; i < r->missing_count; i++)
                ad_json_int(j, r->missing[i]);
        ad_json_close_array(j);
        ad_json_put_text(j, "run", "live");
        if (r->as_of_ms)
                put_time(j, "as_of", r->zone, r->as_of_ms);
        else
                ad_json_put_null(j, "as_of");
}

/* Which run the bill is of. */
static void put_bill(struct ad_json *j, const struct ad_result *r)
{
        put_time(j, "billed_through", r->zone, r->billed_through_ms);
        ad_json_put_text(j, "run", r->run);
        ad_json_put_int(j, "unexplained_cells", r->unexplained);
        ad_json_put_int(j, "pending_cells", r->pending);
        if (!r->has_as_of) {
                ad_json_put_null(j, "as_of");
                return;
        }
        put_time(j, "as_of", r->zone, r->as_of_ms);
        ad_json_put_bool(j, "as_of_exact", r->as_of_exact);
}

int ad_result_json(const struct ad_result *r, size_t first, size_t limit, const char *next,
                   struct df_buf *b, struct df_error *err)
{
        struct ad_json *j = ad_json_begin(b);
        int rc;

        ad_json_open(j);
        ad_json_put_text(j, "view", views[r->view]);
        ad_json_put_text(j, "window", windows[r->window]);
        ad_json_put_text(j, "tz", ad_zone_name(r->zone));
        ad_json_put_text(j, "tz_version", r->tz_version);
        put_time(j, "from", r->zone, r->from_ms);
        put_time(j, "to", r->zone, r->to_ms);
        if (r->view == AD_METRICS_REALTIME)
                put_realtime(j, r);
        else
                put_bill(j, r);
        put_scope(j, r);
        rc = put_rows(j, r, first, end_of(r, first, limit));
        b->failed |= rc < 0;
        ad_json_put_text(j, "next_cursor", next);
        ad_json_key(j, "hint");
        if (r->hint_code) {
                ad_json_open(j);
                ad_json_put_text(j, "code", r->hint_code);
                ad_json_put_text(j, "message", r->hint);
                ad_json_close(j);
        } else {
                ad_json_null(j);
        }
        ad_json_close(j);
        return ad_json_end(j, b, err);
}

/* Quoted when it must be; a quote is doubled. */
static void csv_text(struct df_buf *b, struct df_bytes s)
{
        bool quote = false;

        for (size_t i = 0; i < s.len; i++)
                quote |= s.data[i] == '"' || s.data[i] == ',' || s.data[i] == '\n' ||
                         s.data[i] == '\r';
        if (!quote) {
                df_buf_append(b, s.data, s.len);
                return;
        }
        df_put_u8(b, '"');
        for (size_t i = 0; i < s.len; i++) {
                if (s.data[i] == '"')
                        df_put_u8(b, '"');
                df_put_u8(b, s.data[i]);
        }
        df_put_u8(b, '"');
}

static void csv_money(struct df_buf *b, df_nanos v)
{
        char text[DF_INT128_TEXT_MAX];
        int n = df_int128_text(df_nanos_to_micros(v), text);

        df_put_u8(b, ',');
        df_buf_append(b, text, (size_t)n);
}

static void csv_ratio(struct df_buf *b, uint64_t num, uint64_t den)
{
        uint8_t text[ADI_RATIO_MAX];

        df_put_u8(b, ',');
        if (den)
                df_buf_append(b, text, adi_ratio_text(num, den, text));
}

static void csv_key(struct df_buf *b, const struct ad_result *r, const struct ad_result_row *row)
{
        char text[AD_ZONE_TEXT_MAX];

        df_buf_append(b, text, (size_t)ad_zone_text(r->zone, r->bounds[row->window], text));
        for (uint32_t d = 0; d < r->group_count; d++) {
                df_put_u8(b, ',');
                csv_text(b, row->dims[d]);
        }
        df_put_u8(b, ',');
        csv_text(b, row->currency);
}

static void csv_row(struct df_buf *b, const struct ad_result *r, const struct ad_result_row *row)
{
        const struct ad_cell *c = &row->cell;
        bool final = r->final[row->window];

        df_buf_printf(b, ",%llu,%llu,%llu", (unsigned long long)c->impressions,
                      (unsigned long long)c->clicks, (unsigned long long)c->conversions);
        csv_money(b, c->spend);
        csv_money(b, c->payout);
        csv_money(b, c->value);
        csv_ratio(b, c->clicks, c->impressions);
        csv_ratio(b, c->conversions, c->clicks);
        df_buf_printf(b, ",%llu,%llu,%llu,%s,%s,%s\r\n", (unsigned long long)c->invalid[0],
                      (unsigned long long)c->invalid[1], (unsigned long long)c->invalid[2],
                      final ? "settled" : "open", final ? "true" : "false",
                      r->partial[row->window] ? "true" : "false");
}

int ad_result_csv(const struct ad_result *r, size_t first, size_t limit, struct df_buf *b,
                  struct df_error *err)
{
        bool bill = r->view != AD_METRICS_REALTIME;

        df_buf_printf(b, "window_start");
        for (uint32_t d = 0; d < r->group_count; d++)
                df_buf_printf(b, ",%s", ad_dim_names[r->group_by[d]]);
        df_buf_printf(b, ",currency");
        if (bill)
                adi_bill_csv_head(b, r);
        else
                df_buf_printf(b, ",impressions,clicks,conversions,spend_micros,payout_micros,"
                                 "conversion_value_micros,ctr,cvr,invalid_impressions,"
                                 "invalid_clicks,invalid_conversions,state,final,partial\r\n");
        for (size_t i = first, end = end_of(r, first, limit); i < end; i++) {
                csv_key(b, r, &r->rows[i]);
                if (bill)
                        adi_bill_csv_row(b, r, &r->rows[i]);
                else
                        csv_row(b, r, &r->rows[i]);
        }
        return df_buf_check(b, err);
}
