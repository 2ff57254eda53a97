/* quality_drift.c - how far realtime and the bill are apart, by currency and cause. */
#include <stdio.h>

#include "jobs/api/quality.h"
#include "jobs/common/times.h"

#define DAY_QUARTERS 96

/* ---- looking ---- */

static int look_at_stretch(struct ad_billing_read *read, struct df_bytes tenant, uint64_t from,
                           uint64_t to, struct ad_drift_report *r, struct ad_drift_stretch *ret,
                           struct df_error *err)
{
        ret->from_quarter = from;
        ret->to_quarter = to;
        return ad_billing_drifts(read, tenant, from, to, &r->arena, &ret->drifts, &ret->count, err);
}

/* The tenant's open period where it closes as a whole, otherwise the month of the zone. */
static int open_period(struct ad_billing_read *read, struct df_bytes tenant,
                       const struct ad_zone *zone, struct ad_drift_report *r, uint64_t *ret_from,
                       struct df_error *err)
{
        struct ad_billing_point now = {UINT64_MAX, INT64_MAX};
        struct ad_billing_account account;
        int64_t month = ad_zone_floor(zone, AD_WINDOW_MONTH, r->through_ms);
        int rc = ad_billing_account(read, tenant, (struct df_bytes){0}, now, &account, err);

        if (rc < 0)
                return rc;
        (void)snprintf(r->period, sizeof(r->period), "%s", account.open_period);
        *ret_from = account.any ? account.closed_to : (uint64_t)(month / AD_QUARTER_MS);
        return 0;
}

static int look(struct ad_billing *books, struct df_bytes tenant, const struct ad_zone *zone,
                struct ad_drift_report *r, struct df_error *err)
{
        struct ad_billing_read *read = NULL;
        struct ad_billing_run run;
        uint64_t from = 0, to;
        int rc = ad_billing_begin(books, &read, err);

        if (rc == 0)
                rc = ad_billing_last(read, &r->arena, &run, &r->ready, err);
        if (rc < 0 || !r->ready) {
                ad_billing_end(read);
                return rc;
        }
        r->through_ms = run.applied.begin.at_ms;
        r->unexplained = run.applied.end.unexplained;
        r->pending = run.applied.end.pending;
        (void)snprintf(r->run, sizeof(r->run), "%.*s", (int)run.applied.begin.run.len,
                       (const char *)run.applied.begin.run.data);
        to = (uint64_t)(r->through_ms / AD_QUARTER_MS) + 1;
        rc = look_at_stretch(read, tenant, to > DAY_QUARTERS ? to - DAY_QUARTERS : 0, to, r,
                             &r->day, err);
        if (rc == 0)
                rc = open_period(read, tenant, zone, r, &from, err);
        if (rc == 0)
                rc = look_at_stretch(read, tenant, from, to > from ? to : from, r, &r->open, err);
        ad_billing_end(read);
        return rc;
}

void ad_drift_look(struct ad_books_follow *f, struct df_bytes tenant, const struct ad_zone *zone,
                   int64_t now_ms, struct ad_drift_report *r)
{
        struct df_error err = {0};
        struct ad_billing *books;

        memset(r, 0, sizeof(*r));
        df_arena_init(&r->arena, 0);
        r->damaged = ad_books_damaged(f);
        books = ad_books_take(f, r->why);
        if (!books)
                return;
        (void)snprintf(r->why, sizeof(r->why), "no reconcile run was applied yet");
        if (look(books, tenant, zone, r, &err) < 0) {
                r->ready = false;
                (void)snprintf(r->why, sizeof(r->why), "%.*s", AD_BOOKS_WHY_MAX - 1, err.text);
        }
        ad_books_give(f);
        r->age_ms = r->ready ? now_ms - r->through_ms : 0;
        r->overdue = r->ready && ad_bill_is_overdue(r->age_ms, ad_books_every_ms(f));
        if (err.code == DF_ECORRUPT)
                ad_books_suspect(f);
}

void ad_drift_release(struct ad_drift_report *r)
{
        df_arena_release(&r->arena);
}

/* ---- writing ---- */

static void put_time(struct ad_json *j, const char *key, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        ad_json_key(j, key);
        ad_json_bytes(j, df_bytes(text, (size_t)ad_time_text(ms, text)));
}

static void put_causes(struct ad_json *j, const struct ad_billing_drift *d)
{
        ad_json_key(j, "causes");
        ad_json_open(j);
        for (unsigned c = AD_CAUSE_NONE + 1; c < AD_CAUSE_COUNT; c++) {
                struct ad_cell difference = d->causes[c].billed;

                if (d->cells[c] == 0 || !ad_cell_subtract(&difference, &d->causes[c].realtime))
                        continue;
                ad_json_key(j, ad_cause_code(c));
                ad_json_open(j);
                ad_json_put_int(j, "cells", d->cells[c]);
                ad_json_put_int(j, "impressions", ad_count_signed(difference.impressions));
                ad_json_put_int(j, "clicks", ad_count_signed(difference.clicks));
                ad_json_put_int(j, "conversions", ad_count_signed(difference.conversions));
                ad_json_put_int(j, "spend_micros", df_nanos_to_micros(difference.spend));
                ad_json_put_int(j, "payout_micros", df_nanos_to_micros(difference.payout));
                ad_json_close(j);
        }
        ad_json_close(j);
}

static void put_currency(struct ad_json *j, const struct ad_billing_drift *d)
{
        df_nanos billed, realtime;
        double drift;

        ad_drift_spend(d, &billed, &realtime);
        ad_json_open(j);
        ad_json_put_bytes(j, "currency", d->currency);
        ad_json_put_int(j, "realtime_spend_micros", df_nanos_to_micros(realtime));
        ad_json_put_int(j, "billing_spend_micros", df_nanos_to_micros(billed));
        ad_json_key(j, "drift");
        if (ad_drift(billed, realtime, &drift))
                ad_json_double(j, drift);
        else
                ad_json_null(j);
        put_causes(j, d);
        ad_json_close(j);
}

static void put_stretch(struct ad_json *j, const char *key, const char *period,
                        const struct ad_drift_stretch *s)
{
        ad_json_key(j, key);
        ad_json_open(j);
        if (period)
                ad_json_put_text(j, "period", *period ? period : NULL);
        put_time(j, "from", (int64_t)s->from_quarter * AD_QUARTER_MS);
        put_time(j, "to", (int64_t)s->to_quarter * AD_QUARTER_MS);
        ad_json_key(j, "currencies");
        ad_json_open_array(j);
        for (size_t i = 0; i < s->count; i++)
                put_currency(j, &s->drifts[i]);
        ad_json_close_array(j);
        ad_json_close(j);
}

/* "alarm" and "alarms": what of the bill wants a person. */
static void put_alarms(struct ad_json *j, const struct ad_drift_report *r)
{
        const struct {
                const char *code;
                bool is;
        } alarms[] = {
                {"unexplained", r->unexplained > 0},
                {"damaged", r->damaged > 0},
                {"overdue", r->overdue},
                {"run_failed", r->error.len > 0},
        };
        bool any = false;

        for (size_t i = 0; i < sizeof(alarms) / sizeof(alarms[0]); i++)
                any |= alarms[i].is;
        ad_json_put_bool(j, "alarm", any);
        ad_json_key(j, "alarms");
        ad_json_open_array(j);
        for (size_t i = 0; i < sizeof(alarms) / sizeof(alarms[0]); i++)
                if (alarms[i].is)
                        ad_json_text(j, alarms[i].code);
        ad_json_close_array(j);
        ad_json_put_bytes(j, "run_error", r->error);
}

/* There is no bill to look at; that its first run fails is said all the same. */
static void put_reason(struct ad_json *j, const struct ad_drift_report *r)
{
        char why[AD_BOOKS_WHY_MAX + DF_ERROR_TEXT_MAX + 32];

        ad_json_put_null(j, "drift");
        (void)snprintf(why, sizeof(why), "%s%s%.*s", r ? r->why : "no bill is followed",
                       r && r->error.len ? "; the last run failed: " : "",
                       r ? (int)r->error.len : 0, r ? (const char *)r->error.data : "");
        ad_json_put_text(j, "drift_reason", why);
}

void ad_drift_json(struct ad_json *j, const struct ad_drift_report *r)
{
        if (!r || !r->ready) {
                put_reason(j, r);
                return;
        }
        ad_json_key(j, "drift");
        ad_json_open(j);
        put_time(j, "billed_through", r->through_ms);
        ad_json_put_text(j, "run", r->run);
        ad_json_put_int(j, "age_ms", r->age_ms);
        put_alarms(j, r);
        ad_json_put_int(j, "unexplained_cells", r->unexplained);
        ad_json_put_int(j, "pending_cells", r->pending);
        ad_json_put_int(j, "damaged_collections", r->damaged);
        put_stretch(j, "last_day", NULL, &r->day);
        put_stretch(j, "open_period", r->period, &r->open);
        ad_json_close(j);
        ad_json_put_null(j, "drift_reason");
}
