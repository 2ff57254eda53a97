/* Periods, adjustments and the states of corrections over HTTP. */
#include "periods_test.h"

static void has(const char *path, int status, const char *part)
{
        struct df_buf b = {0};
        int got = fetch(path, NULL, &b);

        if (got != status || !strstr((char *)b.data, part))
                fail_msg("%s: %d, wanted %d %s: %s", path, got, status, part, b.data);
        df_buf_release(&b);
}

static void posts(const char *path, const char *body, int status, const char *part)
{
        struct df_buf b = {0};
        int got = fetch(path, body, &b);

        if (got != status || !strstr((char *)b.data, part))
                fail_msg("%s %s: %d, wanted %d %s: %s", path, body, got, status, part, b.data);
        df_buf_release(&b);
}

/* What the reconcile job would say. */
static void write_progress(const char *json)
{
        char path[300];

        (void)snprintf(path, sizeof(path), "%s/run", dir);
        ok(df_mkdirs(path, err));
        (void)snprintf(path, sizeof(path), "%s/run/reconcile.json", dir);
        ok(df_write_file(path, df_bytes_str(json), false, err));
}

#define WHO "\"reason\":\"r\",\"requested_by\":\"ann\",\"approved_by\":\"bob\""

static void test_lists_and_refusals(void **state)
{
        begin(9);
        run(0);
        close_month();
        run(0);
        write_books();
        start_api();
        has("/v1/periods?advertiser_id=a1", 200,
            "{\"period\":\"2026-03\",\"advertiser_id\":\"a1\",\"state\":\"closed\",\"zone\":"
            "\"Europe/Berlin\",\"from\":\"2026-03-01T00:00:00+01:00\",\"to\":"
            "\"2026-04-01T00:00:00+02:00\",\"over\":true,\"asked_by\":\"close-march\"");
        has("/v1/periods", 200,
            "{\"period\":\"2026-02\",\"advertiser_id\":\"a1\",\"state\":\"open\"");
        has("/v1/periods/2026-03/manifest?advertiser_id=a1", 200, "{\"period\":1}");
        has("/v1/periods/2026-03/manifest?advertiser_id=a1&part=signature", 200, "signed");
        has("/v1/periods/2026-04/manifest?advertiser_id=a1", 404, "period_open");
        has("/v1/periods/2026-03?advertiser_id=a1&format=csv", 200,
            "BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
            "ChargePeriodEnd,"
            "ChargeCategory,ChargeClass,BilledCost,BillingCurrency,x_Kind,x_State,x_CampaignId,"
            "x_Period,x_Cause,x_Exact,x_Impressions,x_Clicks,x_Conversions\r\n"
            "a1,2026-02-28T23:00:00Z,2026-03-31T22:00:00Z,2026-02-28T23:00:00Z,"
            "2026-03-31T22:00:00Z,Usage,,");
        has("/v1/periods/2026-04?advertiser_id=a1&format=csv", 200,
            "2026-02-28T23:00:00Z,2026-03-31T22:00:00Z,Adjustment,Correction,");
        has("/v1/periods/2026-04?advertiser_id=a1&format=csv", 200, ",open,\"c,1\",2026-03,late,");
        has("/v1/periods/2026-04?advertiser_id=a1&format=csv&part=payouts", 200, "x_Payout");
        has("/v1/adjustments?advertiser_id=a1&period=2026-04&limit=1", 200,
            "\"original_period\":\"2026-03\"");
        has("/v1/adjustments?advertiser_id=a1&period=2026-03", 200, "\"original_period\":null");
        has("/v1/adjustments?advertiser_id=a2", 200, "\"adjustments\":[],\"next_after\":null");
        has("/v1/periods/2026-03", 400, "advertiser_needed");
        has("/v1/periods/2026-03?tenant=whole&advertiser_id=a1", 400, "account_is_tenant");
        has("/v1/periods/2026-03?tenant=whole", 200, "\"totals\":[{\"currency\":\"USD\"");
        has("/v1/periods/2026-13?advertiser_id=a1", 404, "no_such_period");
        has("/v1/periods/2026-03?advertiser_id=a1&format=xml", 400, "bad_choice");
        has("/v1/periods/2026-03?advertiser_id=a1&part=payouts", 400, "bad_choice");
        has("/v1/periods/2026-03?advertiser=a1", 400, "unknown_parameter");
        has("/v1/periods?tenant=a&tenant=b", 400, "repeated_parameter");
        has("/v1/adjustments?limit=10001", 400, "bad_number");
        end();
}

static void test_closes(void **state)
{
        begin(9);
        run(0);
        close_month();
        write_books();
        start_api();
        posts("/v1/periods/2026-03/close", "{" WHO ",\"advertiser_id\":\"a1\"}", 409,
              "period_closed");
        posts("/v1/periods/9998-01/close", "{" WHO ",\"advertiser_id\":\"a1\"}", 409,
              "period_not_over");
        posts("/v1/periods/2026-04/close", "{" WHO "}", 400, "advertiser_needed");
        posts("/v1/periods/2026-04/close", "{\"id\":\"k1\"," WHO ",\"advertiser_id\":\"a1\"}", 202,
              "\"see\":\"/v1/periods/2026-04\"");
        posts("/v1/periods/2026-04/close", "{\"id\":\"k1\"," WHO ",\"advertiser_id\":\"a1\"}", 200,
              "\"repeated\":true");
        posts("/v1/periods/2026-05/close", "{\"id\":\"k1\"," WHO ",\"advertiser_id\":\"a1\"}", 409,
              "id_reused");
        has("/v1/periods?advertiser_id=a1", 200,
            "{\"period\":\"2026-04\",\"advertiser_id\":\"a1\",\"state\":\"closing\"");
        write_progress(
                "{\"closes\":[{\"id\":\"k1\",\"tenant_id\":\"other\",\"why\":\"no\"},{\"id\":"
                "\"k1\",\"tenant_id\":\"default\",\"why\":\"archive\",\"text\":\"behind\"}]}");
        has("/v1/periods?advertiser_id=a1", 200,
            "\"waits_for\":{\"code\":\"archive\",\"text\":\"behind\"}");
        write_progress("{\"closes\":[");
        has("/v1/periods?advertiser_id=a1", 200,
            "\"waits_for\":{\"code\":\"unread\",\"text\":\"run/reconcile.json: it is not valid "
            "JSON");
        posts("/v1/periods/2026-03/cancel", "{" WHO ",\"advertiser_id\":\"a1\"}", 409,
              "period_closed");
        posts("/v1/periods/2026-05/cancel", "{" WHO ",\"advertiser_id\":\"a1\"}", 404,
              "not_closing");
        for (int i = 0; i < 2; i++)
                posts("/v1/periods/2026-04/cancel",
                      "{\"id\":\"x1\"," WHO ",\"advertiser_id\":\"a1\"}", i ? 200 : 202,
                      "\"see\":\"/v1/periods/2026-04\"");
        has("/v1/periods?advertiser_id=a1", 200,
            "{\"period\":\"2026-04\",\"advertiser_id\":\"a1\",\"state\":\"open\"");
        posts("/v1/periods/2026-04/cancel", "{" WHO ",\"advertiser_id\":\"a1\"}", 404,
              "not_closing");
        end();
}

/* The pages of adjustments are every posting with a delta, once, by seq. */
static void test_adjustment_pages(void **state)
{
        uint64_t after = 0;
        size_t seen = 0;

        begin(5);
        run(0);
        close_month();
        run(0);
        close_month();
        run(0);
        write_books();
        start_api();
        for (;;) {
                const struct ad_doc_node *list, *n;
                struct ad_doc d;
                char path[100];

                (void)snprintf(path, sizeof(path), "/v1/adjustments?limit=7&after=%llu",
                               (unsigned long long)after);
                list = ad_doc_member(&d, get(path, &d), "adjustments");
                for (n = ad_doc_first(&d, list); n; n = ad_doc_after(&d, list, n)) {
                        df_nanos number = money(text(&d, n, "seq")) / DF_NANOS_PER_UNIT;
                        const struct ad_doc_node *causes = ad_doc_member(&d, n, "delta"), *c;
                        df_nanos spend = 0;

                        must(number > (df_nanos)after);
                        after = (uint64_t)number;
                        for (c = ad_doc_first(&d, causes); c; c = ad_doc_after(&d, causes, c))
                                spend += money(text(&d, c, "spend"));
                        must(spend == posted[seen].delta[0].billed.spend +
                                              posted[seen].delta[1].billed.spend);
                        must(is(&d, n, "period", months[posted[seen].period]));
                        seen++;
                }
                if (ad_doc_member(&d, d.nodes, "next_after")->kind == AD_DOC_NULL)
                        break;
        }
        must(seen == posted_count && seen > 7);
        end();
}

/* The first run holds the commands before offset 1, the second those before 3. */
static void test_states(void **state)
{
        static const char *const bodies[] = {"a", "b", "c", "d"};
        char body[300];

        begin(11);
        run(1);
        run(4);
        write_books();
        start_api();
        for (int i = 0; i < 4; i++) {
                if (i == 2) {
                        posts("/v1/corrections/a/cancel", "{\"id\":\"xa\"," WHO "}", 202, "xa");
                        posts("/v1/corrections/b/cancel", "{\"id\":\"xb\"," WHO "}", 202,
                              "\"see\":\"/v1/corrections/b\"");
                }
                (void)snprintf(body, sizeof(body),
                               "{\"id\":\"%s\"," WHO
                               ",\"action\":\"void\",\"scope\":{\"event_ids\":"
                               "[\"e\"],\"campaign_id\":\"c1\"}}",
                               bodies[i]);
                posts("/v1/corrections", body, 202, bodies[i]);
        }
        posts("/v1/corrections/c/cancel", "{\"id\":\"xc\"," WHO "}", 202, "xc");
        /* a 0, b 1, xa 2, xb 3, c 4, d 5, xc 6 */
        has("/v1/corrections/a", 200, "\"state\":\"cancelled\",\"run\":\"0000000000000001\"");
        has("/v1/corrections/b", 200, "\"state\":\"cancelled\",\"run\":\"0000000000000002\"");
        has("/v1/corrections/c", 200, "\"state\":\"cancelled\",\"run\":null");
        has("/v1/corrections/d", 200, "\"state\":\"waiting\",\"run\":null");
        has("/v1/corrections/d", 200, "\"event_ids\":[\"e\"]");
        has("/v1/corrections?limit=1", 200, "\"next_before\":5}");
        has("/v1/corrections?limit=1&before=5", 200, "\"id\":\"c\"");
        has("/v1/corrections?tenant=other", 200, "\"corrections\":[],\"next_before\":null");
        has("/v1/corrections/xa", 404, "no_such_correction");
        has("/v1/corrections/a?tenant=other", 404, "no_such_correction");
        posts("/v1/corrections/a/cancel", "{\"id\":\"xa\"," WHO "}", 200, "\"repeated\":true");
        posts("/v1/corrections/a/cancel", "{" WHO "}", 409, "cancelled_already");
        posts("/v1/corrections/e/cancel", "{" WHO "}", 404, "no_such_correction");
        posts("/v1/reconcile", "{\"id\":\"go\"}", 202, "/v1/reconcile/go");
        has("/v1/reconcile/go", 200, "\"state\":\"waiting\"");
        write_progress("{\"state\":\"posting\",\"run\":\"ff\",\"asked_by\":\"go\",\"done\":3,"
                       "\"total\":4,\"eta_s\":1.5,\"gives_way\":false}");
        has("/v1/reconcile/go", 200,
            "\"state\":\"working\",\"progress\":{\"step\":\"posting\",\"run\":\"ff\",\"asked_by\":"
            "\"go\",\"done\":3,\"total\":4,\"eta_s\":1.5,\"since\":null,\"gives_way\":false,"
            "\"error\":null}");
        has("/v1/reconcile/ff", 200, "\"state\":\"working\"");
        has("/v1/reconcile/0000000000000002", 200, "\"state\":\"applied\",\"at\":");
        has("/v1/reconcile/none", 404, "no_such_run");
        has("/v1/reconcile", 200, "{\"runs\":[{\"run\":\"0000000000000002\",");
        end();
}

/* A correction that was applied, cancelled since, and is still in the bill. */
static void test_cancelling(void **state)
{
        begin(12);
        run(1);
        write_books();
        start_api();
        posts("/v1/corrections",
              "{\"id\":\"a\"," WHO ",\"action\":\"void\",\"scope\":{\"campaign_id\":\"c1\"}}", 202,
              "a");
        has("/v1/corrections/a", 200, "\"state\":\"applied\",\"run\":\"0000000000000001\"");
        posts("/v1/corrections/a/cancel", "{" WHO "}", 202, "\"id\":\"cancel-");
        has("/v1/corrections/a", 200, "\"state\":\"cancelling\"");
        end();
}

/* A close whose totals are not those of the cells: nobody gets such an invoice. */
static void test_damaged_view(void **state)
{
        begin(13);
        run(0);
        close_month();
        df_buf_clear(&payload);
        seq = 0;
        closed_count = 0;
        run(0); /* other amounts */
        cells[4].causes[0].billed.spend += 1;
        cells[4].causes[0].realtime.spend += 1;
        close_month();
        write_books();
        start_api();
        has("/v1/periods/2026-03?advertiser_id=a1", 500, "totals_differ");
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lists_and_refusals), cmocka_unit_test(test_closes),
                cmocka_unit_test(test_adjustment_pages),   cmocka_unit_test(test_states),
                cmocka_unit_test(test_cancelling),         cmocka_unit_test(test_damaged_view),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
