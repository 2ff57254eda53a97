/* What GET /metrics refuses, each by its documented code, and the pages of long answers. */
#include "query_test.h"

/* Every documented refusal, and what its message must name. */
static void test_refusals(void **state)
{
        static const struct {
                const char *name, *value;
                int status;
                const char *code, *says;
        } bad[] = {
                {"campain_id", "x", 400, "unknown_parameter", "nearest is campaign_id"},
                {"orderby", "x", 400, "unknown_parameter", "nearest is order_by"},
                {"\x01", "x", 400, "unknown_parameter", "?"},
                {"window", "week", 400, "bad_window", "minute, hour, day, month or total"},
                {"window", "", 400, "bad_window", "minute"},
                {"view", "x", 400, "bad_view", "realtime"},
                {"as_of", "2024-10-25T00:00:00Z", 400, "as_of_not_kept", "older versions"},
                {"tz", "Europe/Nowhere", 400, "unknown_time_zone", "Europe/Nowhere"},
                {"tz", "../etc/passwd", 400, "unknown_time_zone", "tz database"},
                {"tz", "", 400, "unknown_time_zone", "tz database"},
                {"group_by", "advertiser_id,campain", 400, "unknown_dimension", "campaign_id"},
                {"group_by", "ad_id,publisher_id", 400, "grouping_not_kept", "nearest one holds"},
                {"order_by", "cost", 400, "bad_order", "spend_micros"},
                {"fill", "null", 400, "bad_fill", "zero"},
                {"format", "xml", 400, "bad_format", "csv"},
                {"limit", "0", 400, "bad_limit", "10000"},
                {"limit", "10001", 400, "bad_limit", "10000"},
                {"limit", "-1", 400, "bad_limit", "10000"},
                {"limit", "99999999999999999999", 400, "bad_limit", "10000"},
                {"limit", "1e3", 400, "bad_limit", "10000"},
                {"cursor", "", 400, "bad_cursor", "empty"},
                {"from", "yesterday", 400, "bad_time", "RFC 3339"},
                {"from", "2024-13-01", 400, "bad_time", "RFC 3339"},
                {"from", "2024-10-25T00:00:01Z", 400, "unaligned", "nearest"},
                {"to", "2024-10-25T00:30:30Z", 400, "unaligned", "2024-10-25T00:31:00Z"},
                {"from", "2199-01-01", 400, "empty_range", "before"},
                {"to", "1960-01-01", 400, "bad_time", "RFC 3339"},
                {"tenant", "", 400, "bad_tenant", "bytes"},
                {"country",
                 "0123456789012345678901234567890123456789012345678901234567890123456789", 400,
                 "too_long", "64"},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct ad_query_context c = context();
                struct asked a = {.count = 0};
                struct ad_query q;
                struct ad_fault f;

                with(&a, bad[i].name, "%s", bad[i].value);
                if (strcmp(bad[i].name, "tz") != 0)
                        with(&a, "tz", "UTC");
                if (ad_query_parse(&c, a.params, a.count, &q, &f) == 0)
                        fail_msg("%s=%s was taken", bad[i].name, bad[i].value);
                if (f.status != bad[i].status || strcmp(f.code, bad[i].code) != 0 ||
                    !strstr(f.message, bad[i].says))
                        fail_msg("%s=%s: %d %s: %s", bad[i].name, bad[i].value, f.status, f.code,
                                 f.message);
        }
}

static void test_refused_together(void **state)
{
        refused("from=2024-10-25T00:00:00Z&from=2024-10-25T00:00:00Z", 400, "repeated_parameter",
                true);
        refused("window=day&tz=Europe/Berlin&from=2024-10-25T00:00:00Z&to=2024-10-26", 400,
                "unaligned", true);
        refused("window=hour&tz=Asia/Kathmandu&from=2024-10-25T00:00:00Z&to=2024-10-26T00:00:00Z",
                400, "unaligned", true);
        refused("window=day&tz=Africa/Monrovia&from=1971-01-01&to=1971-02-01", 400,
                "zone_not_supported", true);
        refused("window=hour&tz=Europe/Berlin&from=2024-03-31T02:00:00&to=2024-04-01", 400,
                "bad_time", true);
        refused("window=minute&tz=UTC&from=2023-01-01&to=2024-11-01", 400, "range_too_large", true);
        refused("window=day&tz=UTC&from=1970-01-01&to=2400-11-01", 400, "range_too_large", true);
        refused("window=day&tz=UTC&from=2024-10-25&to=2024-10-26&tenant=acme", 403, "forbidden",
                false);
        refused("window=day&tz=UTC&from=2024-10-26&to=2024-10-26", 400, "empty_range", true);
}

/* ---- pages ---- */

static void test_pages(void **state)
{
        struct ad_pages *pages = NULL;
        struct ad_page *page, *again, *first = NULL;
        char cursor[AD_CURSOR_MAX], kept[AD_CURSOR_MAX] = "";
        struct ad_pages_stats stats;
        struct df_bytes tenant = df_bytes_str("default");
        struct ad_query q;
        struct ad_fault f;
        size_t at;

        ok(ad_pages_create(3, 0, 1000, &pages, err));
        for (int i = 0; i < 4; i++) {
                struct ad_result *r = ask(&q, "window=day&from=2024-10-01&to=2024-11-10&tz=UTC");

                ok(ad_pages_put(pages, r, i, &page, err));
                ad_page_cursor(page, 7, cursor);
                if (i == 0) {
                        first = page; /* held: stays valid when it leaves */
                        memcpy(kept, cursor, sizeof(kept));
                } else {
                        ad_pages_give(pages, page);
                }
        }
        assert_true(ad_page_result(first)->row_count > 7);
        ad_pages_give(pages, first);
        assert_int_equal(ad_pages_take(pages, df_bytes_str(kept), tenant, 4, &again, &at, &f), -1);
        assert_int_equal(f.status, 410);
        assert_string_equal(f.code, "cursor_expired");
        assert_int_equal(ad_pages_take(pages, df_bytes_str(cursor), tenant, 4, &again, &at, &f), 0);
        assert_int_equal(at, 7);
        ad_pages_give(pages, again);
        /* Another tenant's cursor is like one that never was. */
        assert_int_equal(ad_pages_take(pages, df_bytes_str(cursor), df_bytes_str("acme"), 4, &again,
                                       &at, &f),
                         -1);
        assert_int_equal(f.status, 410);
        cursor[3] = 'X';
        assert_int_equal(ad_pages_take(pages, df_bytes_str(cursor), tenant, 4, &again, &at, &f),
                         -1);
        assert_int_equal(f.status, 400);
        ad_pages_stats(pages, &stats);
        assert_int_equal(stats.results, 3);
        assert_int_equal(stats.evicted, 1);
        (void)ad_pages_take(pages, df_bytes_str(kept), tenant, 5000, &again, &at, &f);
        ad_pages_stats(pages, &stats);
        assert_int_equal(stats.results, 0);
        assert_int_equal(stats.bytes, 0);
        ad_pages_destroy(pages);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_refused_together),
                cmocka_unit_test(test_pages),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
