/* GET /metrics of the bill: answers against lists, refusals, and one small bill to the letter. */
#include "bill_query_test.h"

static void test_answers(void **state)
{
        for (uint64_t seed = 11; seed <= 12; seed++) {
                open_log(seed);
                for (int i = 0; i < 60; i++)
                        publish(bt_write(), WHOLE);
                follow();
                wait_for("adtally_billing_ready", 1);
                wait_for("adtally_billing_runs", (double)bt.run_count);
                for (int i = 0; i < 250; i++)
                        ask_once();
                close_log();
        }
}

/* ---- what is refused ---- */

static void test_refusals(void **state)
{
        static const struct {
                const char *name, *value;
                int status;
                const char *code, *says;
        } bad[] = {
                {"window", "minute", 400, "window_not_billed", "hour, day, month or total"},
                {"group_by", "country,campaign_id,device", 400, "grouping_not_kept",
                 "not by country, device"},
                {"ad_id", "x", 400, "grouping_not_kept", "not by ad_id"},
                {"as_of", "yesterday", 400, "bad_time", "RFC 3339"},
                {"as_of", "1990-01-01", 503, "billing_not_ready", "no reconcile run was applied"},
                {"window", "hour", 503, "billing_not_ready", "POST /v1/reconcile"},
        };
        struct question x;

        open_log(5);
        x = about("view", "billing");
        x.c.books = NULL;
        refuse(&x, 503, "billing_not_ready", "does not follow");
        follow();
        wait_for("adtally_billing_ready", 1);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                x = about("view", i % 2 ? "billing" : "both");
                add_param(&x, bad[i].name, df_bytes_str(bad[i].value));
                refuse(&x, bad[i].status, bad[i].code, bad[i].says);
        }
        x = about("view", "billing");
        add_param(&x, "window", df_bytes_str("total"));
        add_param(&x, "from", df_bytes_str("2027-01-15T10:20:00Z"));
        refuse(&x, 400, "unaligned",
               "quarter hour in Europe/Berlin; the nearest that do are "
               "2027-01-15T11:15:00+01:00 and 2027-01-15T11:30:00+01:00");
        x = about("view", "billing");
        add_param(&x, "order_by", df_bytes_str("drift"));
        refuse(&x, 400, "bad_order", "of view=both also drift");
        x = about("as_of", "2027-01-15");
        refuse(&x, 400, "as_of_not_kept", "view=billing does");
        close_log();
}

/* ---- one small bill, to the letter ---- */

static void post(struct df_buf *to, uint64_t seq, uint64_t quarter, const char *campaign,
                 const struct ad_cause_cell *causes, size_t count, bool closed)
{
        struct ad_cause_cell delta = {.cause = AD_CAUSE_LATE, .billed = {.clicks = 1}};
        struct ad_books_entry e = {
                .kind = AD_BOOKS_POSTING,
                .posting = {.seq = seq,
                            .run = df_bytes_str("00000000000000aa"),
                            .at_ms = BT_MS + 4 * AD_QUARTER_MS,
                            .target = {.quarter = quarter,
                                       .tenant_id = bt_tenants[0],
                                       .advertiser_id = df_bytes_str("a"),
                                       .campaign_id = df_bytes_str(campaign),
                                       .currency = df_bytes_str("EUR"),
                                       .causes = causes,
                                       .cause_count = count},
                            .closed_period = df_bytes_str(closed ? "2027-01" : ""),
                            .posted_period = df_bytes_str(closed ? "2027-02" : ""),
                            .delta = &delta,
                            .delta_count = closed}};

        ad_wire_books_entry(to, &e);
}

static void apply(struct df_buf *to, const char *id, int64_t at_ms, uint64_t unexplained)
{
        struct ad_books_entry e = {.kind = AD_BOOKS_APPLIED};

        e.applied.begin.run = df_bytes_str(id);
        e.applied.begin.at_ms = at_ms;
        e.applied.end.unexplained = unexplained;
        ad_wire_books_entry(to, &e);
}

static void close_it(struct df_buf *to, uint64_t seq, uint64_t to_quarter)
{
        struct ad_books_entry e = {
                .kind = AD_BOOKS_CLOSED,
                .closed = {.seq = seq,
                           .open_period = df_bytes_str("2027-02"),
                           .close = {.account = {bt_tenants[0], df_bytes_str("a")},
                                     .period = df_bytes_str("2027-01"),
                                     .asked_by = df_bytes_str("x"),
                                     .to_quarter = to_quarter,
                                     .at_ms = BT_MS}}};

        ad_wire_books_entry(to, &e);
}

static void small_bill(void)
{
        static struct bt_collection c;
        struct df_buf *p = &c.payloads[0];
        const struct ad_cell one = {.impressions = 100, .clicks = 2, .spend = 2500, .payout = 1000};
        struct ad_cause_cell causes[] = {
                {AD_CAUSE_NONE, one, one},
                {AD_CAUSE_LATE, {.clicks = 1, .spend = 500}, {0}},
                {AD_CAUSE_DUPLICATE, {0}, {.impressions = 5, .spend = 3000}},
        };

        c = (struct bt_collection){.k = 1, .count = 1};
        post(p, 1, BT_QUARTER, "c1", causes, 1, false);
        post(p, 2, BT_QUARTER + 4, "c2", causes, 3, false);
        apply(p, "00000000000000aa", BT_MS + 6 * AD_QUARTER_MS, 0);
        close_it(p, 2, BT_QUARTER + 4);
        post(p, 3, BT_QUARTER, "c1", causes, 2, true);
        apply(p, "00000000000000bb", BT_MS + 7 * AD_QUARTER_MS, 1);
        publish(&c, WHOLE);
        df_buf_release(p);
}

static void written(struct question *x, struct df_buf *ret, bool csv)
{
        struct ad_result *r;
        struct ad_query q;
        struct ad_fault f;

        df_buf_clear(ret);
        if (put(x, &q, &r, &f) < 0)
                fail_msg("%d %s %s", f.status, f.code, f.message);
        if (csv)
                ok(ad_result_csv(r, 0, 10, ret, err));
        else
                ok(ad_result_json(r, 0, 10, NULL, ret, err));
        df_put_u8(ret, 0);
        ad_result_destroy(r);
}

static void says(const struct df_buf *text, const char *part)
{
        if (!strstr((const char *)text->data, part))
                fail_msg("%s\nis not in\n%s", part, (const char *)text->data);
}

static struct question small_question(const char *view_name)
{
        struct question x = about("view", view_name);

        add_param(&x, "window", df_bytes_str("hour"));
        add_param(&x, "tz", df_bytes_str("UTC"));
        add_time(&x, "from", BT_MS);
        add_time(&x, "to", BT_MS + 8 * AD_QUARTER_MS);
        return x;
}

/* BT_MS is 2027-01-15T08:00:00Z. */
static void test_text(void **state)
{
        struct df_buf text = {0};
        struct question x;

        open_log(31);
        small_bill();
        follow();
        wait_for("adtally_billing_runs", 2);
        wait_for("adtally_billing_unexplained_cells", 1);
        x = small_question("billing");
        written(&x, &text, false);
        says(&text, "{\"view\":\"billing\",\"window\":\"hour\",\"tz\":\"UTC\",");
        says(&text, "\"billed_through\":\"2027-01-15T09:45:00Z\",\"run\":\"00000000000000bb\","
                    "\"unexplained_cells\":1,\"pending_cells\":0,\"as_of\":null,");
        says(&text,
             "{\"window_start\":\"2027-01-15T08:00:00Z\",\"campaign_id\":\"c1\",\"currency\":"
             "\"EUR\",\"impressions\":100,\"clicks\":3,\"conversions\":0,\"spend_micros\":3,"
             "\"payout_micros\":1,\"conversion_value_micros\":0,\"ctr\":0.03,\"cvr\":0,"
             "\"state\":\"closed\",\"adjusted\":true}");
        says(&text, "\"clicks\":3,\"conversions\":0,\"spend_micros\":3,\"payout_micros\":1,"
                    "\"conversion_value_micros\":0,\"ctr\":0.03,\"cvr\":0,\"state\":\"open\","
                    "\"adjusted\":false}");
        add_time(&x, "as_of", BT_MS + 6 * AD_QUARTER_MS);
        written(&x, &text, false);
        says(&text, "\"run\":\"00000000000000aa\"");
        says(&text, "\"as_of\":\"2027-01-15T09:30:00Z\",\"as_of_exact\":true");
        says(&text, "\"clicks\":2,\"conversions\":0,\"spend_micros\":2,");
        x = small_question("both");
        written(&x, &text, false);
        says(&text,
             "\"campaign_id\":\"c2\",\"currency\":\"EUR\",\"realtime_impressions\":105,"
             "\"realtime_clicks\":2,\"realtime_conversions\":0,\"realtime_spend_micros\":6,");
        says(&text,
             "\"billing_spend_micros\":3,\"billing_payout_micros\":1,"
             "\"billing_conversion_value_micros\":0,\"drift\":0.833333,\"causes\":{\"late\":{"
             "\"impressions\":0,\"clicks\":1,\"conversions\":0,\"spend_micros\":0,");
        says(&text, "\"duplicate\":{\"impressions\":-5,\"clicks\":0,\"conversions\":0,"
                    "\"spend_micros\":-3,");
        written(&x, &text, true);
        says(&text, "window_start,campaign_id,currency,realtime_impressions,");
        says(&text, "realtime_invalid_conversions,billing_impressions,");
        says(&text, ",drift,late_impressions,");
        says(&text, ",correction_invalid_conversions,state,adjusted\r\n");
        says(&text, "2027-01-15T09:00:00Z,c2,EUR,105,2,0,6,1,0,0,0,0,100,3,0,3,1,0,0,0,0,0.833333,"
                    "0,1,0,0,0,0,0,0,0,-5,0,0,-3,0,0,0,0,0,0,0,");
        x = small_question("billing");
        (void)snprintf(x.text[4], sizeof(x.text[4]), "2027-01-15T09:00:00Z"); /* to */
        written(&x, &text, true);
        assert_string_equal(
                (const char *)text.data,
                "window_start,campaign_id,currency,impressions,clicks,conversions,"
                "spend_micros,payout_micros,conversion_value_micros,ctr,cvr,"
                "invalid_impressions,invalid_clicks,invalid_conversions,state,adjusted\r\n"
                "2027-01-15T08:00:00Z,c1,EUR,100,3,0,3,1,0,0.03,0,0,0,0,closed,true\r\n");
        df_buf_release(&text);
        close_log();
}

/* What /quality says of the bill, ended with a zero byte. */
static void say(const struct ad_drift_report *report, struct df_buf *text)
{
        struct ad_json *j = ad_json_begin(text);

        df_buf_clear(text);
        ad_json_open(j);
        ad_drift_json(j, report);
        ad_json_close(j);
        ok(ad_json_end(j, text, err));
        df_put_u8(text, 0);
}

/* /quality: by cause, of the day and of the open period. */
static void test_quality(void **state)
{
        const int64_t through = BT_MS + 7 * AD_QUARTER_MS;
        struct ad_drift_report report;
        struct df_buf text = {0};
        const struct ad_zone *utc;

        open_log(32);
        ok(ad_zones_get(place.zones, "UTC", &utc, err));
        small_bill();
        follow();
        wait_for("adtally_billing_runs", 2);
        ad_drift_look(b.follow, bt_tenants[0], utc, through + 7260000, &report);
        say(&report, &text);
        says(&text, "\"run\":\"00000000000000bb\",\"age_ms\":7260000,\"alarm\":true,"
                    "\"alarms\":[\"unexplained\"],\"run_error\":\"\",\"unexplained_cells\":1,");
        /* Realtime: 2500 + 2500 + 3000 nanos; the bill: 2 x 3000. */
        says(&text,
             "\"last_day\":{\"from\":\"2027-01-14T10:00:00Z\",\"to\":\"2027-01-15T10:00:00Z\","
             "\"currencies\":[{\"currency\":\"EUR\",\"realtime_spend_micros\":8,"
             "\"billing_spend_micros\":6,\"drift\":0.333333,\"causes\":{\"late\":{\"cells\":2,"
             "\"impressions\":0,\"clicks\":2,");
        says(&text, "\"open_period\":{\"period\":null,\"from\":\"2027-01-01T00:00:00Z\"");
        ad_drift_release(&report);
        ad_drift_look(b.follow, df_bytes_str("nobody"), utc, through + 7260001, &report);
        assert_true(report.ready && report.day.count == 0);
        report.error = df_bytes_str("no room");
        say(&report, &text);
        says(&text,
             "\"age_ms\":7260001,\"alarm\":true,"
             "\"alarms\":[\"unexplained\",\"overdue\",\"run_failed\"],\"run_error\":\"no room\",");
        report.unexplained = 0;
        report.overdue = false;
        report.error.len = 0;
        say(&report, &text);
        says(&text, "\"alarm\":false,\"alarms\":[],");
        ad_drift_release(&report);
        ad_drift_look(NULL, bt_tenants[0], utc, through, &report);
        assert_false(report.ready);
        report.error = df_bytes_str("no room");
        say(&report, &text);
        says(&text,
             "\"drift\":null,\"drift_reason\":\"this server does not follow the bill; the last "
             "run failed: no room\"");
        ad_drift_release(&report);
        df_buf_release(&text);
        close_log();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_text),
                cmocka_unit_test(test_quality),
                cmocka_unit_test(test_answers),
                cmocka_unit_test(test_refusals),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
