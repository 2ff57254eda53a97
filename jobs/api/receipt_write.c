/* receipt_write.c - a receipt as JSON. */
#include <inttypes.h>
#include <stdio.h>

#include "jobs/api/receipt.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define MINUTE_MS 60000

static void put_time(struct ad_json *j, const char *key, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        (void)ad_time_text(ms, text);
        ad_json_put_text(j, key, text);
}

static void put_string(struct ad_json *j, const char *key, struct df_bytes s)
{
        if (s.len > 0)
                ad_json_put_bytes(j, key, s);
}

static void put_place(struct ad_json *j, const char *key, const struct ad_copy *c)
{
        ad_json_key(j, key);
        ad_json_open(j);
        ad_json_put_int(j, "offset", c->ev.offset);
        ad_json_put_int(j, "index", c->ev.index);
        ad_json_close(j);
}

/* As the sender stated it; the user id and attributes are not shown. */
static void put_statement(struct ad_json *j, const struct ad_event *ev)
{
        static const char *const types[] = {"", "impression", "click", "conversion"};
        char hex[17];

        ad_json_put_text(j, "type", ev->type <= AD_CONVERSION ? types[ev->type] : "unknown");
        put_time(j, "event_time", ev->event_ms);
        ad_json_put_bool(j, "time_missing", ev->flags & AD_EV_TIME_MISSING);
        for (int d = 0; d < AD_DIM_COUNT; d++)
                put_string(j, ad_dim_names[d], ev->dims[d]);
        put_string(j, "click_id", ev->click_id);
        if (ev->flags & AD_EV_HAS_COST)
                ad_json_put_int(j, "cost_nanos", ev->cost_nanos);
        if (ev->flags & AD_EV_HAS_PAYOUT)
                ad_json_put_int(j, "payout_nanos", ev->payout_nanos);
        if (ev->flags & AD_EV_HAS_VALUE)
                ad_json_put_int(j, "conversion_value_nanos", ev->value_nanos);
        put_string(j, "currency", ev->currency);
        put_string(j, "conversion_value_currency", ev->value_currency);
        put_string(j, "source", ev->source);
        (void)snprintf(hex, sizeof(hex), "%016" PRIx64, ev->fingerprint);
        ad_json_put_text(j, "fingerprint", hex);
}

/* Where it is in the numbers. The price is the one of its record's table (W6). */
static void put_cell(struct ad_json *j, const struct ad_receipt_context *c,
                     const struct ad_copy *of)
{
        struct ad_event ev = of->ev;
        bool invalid = ev.labels & (AD_LABEL_BOT | AD_LABEL_TEST);
        const struct ad_price_table *t = NULL;

        if (!of->in->is_import && /* it states its prices itself */
            (c->pricing == AD_PRICE_TABLE ||
             (c->pricing == AD_PRICE_CLIENT_ELSE_TABLE && !(ev.flags & AD_EV_HAS_COST))))
                t = c->price_table(c->price_arg, ev.price_version);
        ad_json_key(j, "cell");
        ad_json_open(j);
        put_time(j, "window_start", ev.event_ms - ev.event_ms % MINUTE_MS);
        ad_json_put_bytes(j, "advertiser_id", ev.dims[AD_DIM_ADVERTISER]);
        ad_json_put_bytes(j, "campaign_id", ev.dims[AD_DIM_CAMPAIGN]);
        if (t && ad_price_apply(t, &ev))
                ad_json_put_int(j, "price_version", ev.price_version);
        ad_json_put_bytes(j, "currency", ev.currency.len ? ev.currency : df_bytes_str("XXX"));
        ad_json_put_bool(j, "invalid", invalid);
        ad_json_put_int(j, "spend_nanos", invalid ? 0 : ev.cost_nanos);
        ad_json_put_int(j, "payout_nanos", invalid ? 0 : ev.payout_nanos);
        ad_json_close(j);
}

static void put_sealed(struct ad_json *j, const struct ad_receipt_context *x,
                       const struct ad_copy *c)
{
        const struct ad_reason_info *info = ad_reason_info(c->outcome);

        ad_json_put_text(j, "outcome", info->code);
        ad_json_put_text(j, "text", info->text);
        if (c->outcome == AD_COUNTED)
                put_cell(j, x, c);
        if (c->outcome == AD_LATE)
                put_time(j, "watermark", c->watermark_ms);
        if (c->outcome == AD_DUPLICATE || c->outcome == AD_CONFLICT) {
                if (c->against)
                        put_place(j, "of", c->against);
                else
                        ad_json_put_null(j, "of");
        }
}

static void put_outcome(struct ad_json *j, const struct ad_receipt_context *x,
                        const struct ad_copy *c)
{
        static const struct {
                const char *code, *text;
        } unknown[] = {
                [AD_COPY_PENDING] = {"pending",
                                     "stored, and not counted yet: ask again in a moment; "
                                     "missing_partitions says whether its partition stands still"},
                [AD_COPY_VOID] = {"import_aborted", "its import was aborted: its rows are void"},
                [AD_COPY_EXPIRED] = {"outcome_expired",
                                     "what became of events of this time is not kept any more "
                                     "(--keep-log), or is damaged; the bill judges it by the raw "
                                     "records all the same (view=billing)"},
                [AD_COPY_EARLIER] = {"earlier_copies_unknown",
                                     "counted, unless a copy of the dedupe horizon before it was, "
                                     "of which not all was read: ask with from and to close to it, "
                                     "so that more before it is"},
                [AD_COPY_INCONSISTENT] = {"inconsistent",
                                          "log and outcomes contradict each other: an alarm. Keep "
                                          "log and archive as they are, and report it"},
        };

        if (c->state == AD_COPY_SEALED) {
                put_sealed(j, x, c);
                return;
        }
        ad_json_put_text(j, "outcome", unknown[c->state].code);
        ad_json_put_text(j, "text", unknown[c->state].text);
}

/* By which run it is counted: the generation of its import (R6), null until it is sealed. */
static void put_run(struct ad_json *j, const struct ad_copy *c)
{
        const struct ad_source *o = c->import;
        char hex[17];

        if (!c->in->is_import)
                ad_json_put_text(j, "run", "live");
        else if (!o)
                ad_json_put_null(j, "run");
        if (!o)
                return;
        (void)snprintf(hex, sizeof(hex), "%016" PRIx64, o->name.generation);
        ad_json_put_text(j, "run", hex);
        ad_json_key(j, "import");
        ad_json_open(j);
        ad_json_put_text(j, "dataset", o->dataset);
        put_time(j, "from", o->import_from_ms);
        put_time(j, "to", o->import_to_ms);
        ad_json_put_bool(j, "complete", o->closed && !o->aborted);
        ad_json_put_bool(j, "aborted", o->aborted);
        ad_json_close(j);
}

static void put_copy(struct ad_json *j, const struct ad_receipt_context *x, const struct ad_copy *c)
{
        ad_json_open(j);
        ad_json_put_text(j, "topic", c->in->info.name);
        ad_json_put_int(j, "offset", c->ev.offset);
        ad_json_put_int(j, "index", c->ev.index);
        put_time(j, "append_time", c->ev.append_ms);
        put_time(j, "receive_time", c->ev.receive_ms);
        put_run(j, c);
        put_outcome(j, x, c);
        ad_json_key(j, "stated");
        ad_json_open(j);
        put_statement(j, &c->ev);
        ad_json_close(j);
        ad_json_close(j);
}

static void put_searched(struct ad_json *j, const struct ad_receipt *r)
{
        ad_json_key(j, "searched");
        ad_json_open(j);
        put_time(j, "from", r->query.from_ms);
        if (r->query.to_ms)
                put_time(j, "to", r->query.to_ms);
        else
                ad_json_put_null(j, "to");
        ad_json_put_int(j, "from_offset", r->topics->from_offset);
        ad_json_put_int(j, "to_offset", r->topics->to_offset);
        ad_json_put_int(j, "read_from_offset", r->topics->read_offset);
        ad_json_put_int(j, "imports", r->import_count);
        ad_json_put_int(j, "records", r->records);
        ad_json_close(j);
}

static void put_more(struct ad_json *j, const struct ad_receipt_more *m)
{
        char at[DF_TOPIC_NAME_MAX + 48];

        if (!m->from_ms) {
                ad_json_put_null(j, "more_from");
                ad_json_put_null(j, "more_at");
                return;
        }
        (void)snprintf(at, sizeof(at), "%.*s/%llu/%u", (int)m->at.topic.len,
                       (const char *)m->at.topic.data, (unsigned long long)m->at.offset,
                       m->at.index);
        put_time(j, "more_from", m->from_ms);
        ad_json_put_text(j, "more_at", at);
}

int ad_receipt_json(const struct ad_receipt_context *c, const struct ad_receipt *r,
                    struct df_buf *b, struct df_error *err)
{
        struct ad_json *j = ad_json_begin(b);

        ad_json_open(j);
        ad_json_put_bytes(j, "event_id", r->query.event_id);
        ad_json_put_bytes(j, "tenant", r->query.tenant_id);
        ad_json_put_int(j, "partition", r->partition);
        put_searched(j, r);
        ad_json_key(j, "missing_partitions");
        ad_json_open_array(j);
        for (size_t i = 0; c->status && i < c->status->outside.missing_count; i++)
                if (c->status->outside.missing[i] == r->partition)
                        ad_json_int(j, r->partition);
        ad_json_close_array(j);
        ad_json_key(j, "copies");
        ad_json_open_array(j);
        for (size_t i = 0; i < r->told_count; i++)
                put_copy(j, c, r->told[i]);
        ad_json_close_array(j);
        put_more(j, &r->more);
        ad_json_close(j);
        return ad_json_end(j, b, err);
}
