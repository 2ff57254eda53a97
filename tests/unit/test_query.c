/* GET /metrics against a naive recount of single events: every window, zone, filter and grouping.
 * Windows of a zone are found by the C library, which the view never uses. */
#include "query_test.h"

#define QUERIES 600

/* ---- the recount ---- */

/* What the wall clock of the zone shows for a window: equal for all its instants, and for no
 * other. */
struct shown {
        int year, month, day, hour, minute;
        int offset;
};

static struct shown window_shown(enum ad_window w, int64_t ms)
{
        time_t t = (time_t)(ms / 1000);
        struct shown s = {0};
        struct tm tm;

        if (w == AD_WINDOW_TOTAL)
                return s;
        (void)localtime_r(&t, &tm);
        s.year = tm.tm_year;
        s.month = tm.tm_mon;
        if (w == AD_WINDOW_MONTH)
                return s;
        s.day = tm.tm_mday;
        if (w == AD_WINDOW_DAY)
                return s;
        s.hour = tm.tm_hour;
        s.offset = (int)tm.tm_gmtoff;
        s.minute = w == AD_WINDOW_MINUTE ? tm.tm_min : 0;
        return s;
}

struct row { /* of the recount */
        struct shown window;
        const char *dims[AD_DIM_COUNT], *currency;
        struct ad_cell cell;
        bool met;
};

static struct row rows[FACTS];
static size_t row_count;

static bool listed(const char *value, const struct ad_filter *f)
{
        for (size_t i = 0; i < f->count; i++)
                if (df_bytes_eq(f->values[i], df_bytes_str(value)))
                        return true;
        return f->count == 0;
}

static struct row *recounted(const struct ad_query *q, const struct shown *window,
                             const char *const dims[AD_DIM_COUNT], struct df_bytes currency)
{
        for (size_t i = 0; i < row_count; i++) {
                bool same = memcmp(&rows[i].window, window, sizeof(*window)) == 0 &&
                            df_bytes_eq(df_bytes_str(rows[i].currency), currency);

                for (uint32_t d = 0; same && d < q->group_count; d++)
                        same = strcmp(rows[i].dims[d], dims[d]) == 0;
                if (same)
                        return &rows[i];
        }
        return NULL;
}

static void recount(const struct ad_query *q)
{
        row_count = 0;
        for (size_t i = 0; i < FACTS; i++) {
                const struct fact *f = &facts[i];
                int64_t ms = f->minute * VT_MINUTE;
                struct shown window = window_shown(q->window, ms);
                const char *dims[AD_DIM_COUNT] = {0};
                bool wanted = df_bytes_eq(df_bytes_str(f->tenant), q->tenant_id) &&
                              ms >= q->from_ms && ms < q->to_ms;
                struct row *r;

                for (int d = 0; wanted && d < AD_DIM_COUNT; d++)
                        wanted = listed(f->dims[d], &q->filters[d]);
                if (!wanted)
                        continue;
                for (uint32_t d = 0; d < q->group_count; d++)
                        dims[d] = f->dims[q->group_by[d]];
                r = recounted(q, &window, dims, df_bytes_str(f->currency));
                if (!r) {
                        r = &rows[row_count++];
                        memset(r, 0, sizeof(*r));
                        r->window = window;
                        memcpy(r->dims, dims, sizeof(dims));
                        r->currency = f->currency;
                }
                add_fact(&r->cell, f);
        }
}

static void compare(const struct asked *a, const struct ad_query *q, const struct ad_result *r)
{
        size_t zero = 0;

        recount(q);
        for (size_t i = 0; i < r->row_count; i++) {
                const struct ad_result_row *have = &r->rows[i];
                struct shown window = window_shown(q->window, r->bounds[have->window]);
                char text[AD_DIM_COUNT][80];
                const char *dims[AD_DIM_COUNT] = {0};
                struct row *want;

                for (uint32_t d = 0; d < q->group_count; d++) {
                        (void)snprintf(text[d], sizeof(text[d]), "%.*s", (int)have->dims[d].len,
                                       (const char *)have->dims[d].data);
                        dims[d] = text[d];
                }
                want = recounted(q, &window, dims, have->currency);
                if (q->fill_zero && ad_cell_is_zero(&have->cell) && !want) {
                        zero++;
                        continue;
                }
                if (!want || want->met || want->cell.impressions != have->cell.impressions ||
                    want->cell.clicks != have->cell.clicks ||
                    want->cell.conversions != have->cell.conversions ||
                    want->cell.spend != have->cell.spend)
                        fail_msg("%s=%s %s=%s %s=%s: row %zu: impressions %llu, recounted %lld",
                                 a->text[0][0], a->text[0][1], a->text[1][0], a->text[1][1],
                                 a->text[2][0], a->text[2][1], i,
                                 (unsigned long long)have->cell.impressions,
                                 want ? (long long)want->cell.impressions : -1);
                want->met = true;
        }
        if (r->row_count - zero != row_count)
                fail_msg("%s=%s %s=%s: %zu rows, recounted %zu", a->text[0][0], a->text[0][1],
                         a->text[1][0], a->text[1][1], r->row_count - zero, row_count);
}

static void check_totals(const struct ad_result *r)
{
        for (size_t t = 0; t < r->total_count; t++) {
                struct ad_cell sum = {0};

                for (size_t i = 0; i < row_count; i++)
                        if (df_bytes_eq(df_bytes_str(rows[i].currency), r->totals[t].currency))
                                assert_true(ad_cell_add(&sum, &rows[i].cell));
                assert_int_equal(sum.impressions, r->totals[t].cell.impressions);
                assert_true(sum.spend == r->totals[t].cell.spend);
        }
}

static const char *const window_names[] = {"minute", "hour", "day", "month", "total"};
static const char *const zone_names[] = {"UTC",
                                         "Europe/Berlin",
                                         "Asia/Kathmandu",
                                         "Australia/Lord_Howe",
                                         "America/New_York",
                                         "Asia/Kolkata",
                                         "Pacific/Apia"};

static void random_question(struct asked *a, uint64_t *random)
{
        enum ad_window w = (enum ad_window)below(random, 5);
        const char *zone_name = zone_names[below(random, 7)];
        const struct ad_zone *zone;
        char from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX], list[100] = "";
        size_t s = below(random, sizeof(stretches) / sizeof(stretches[0]));
        int64_t at = utc_minute(stretches[s].year, stretches[s].month, stretches[s].day), end;
        uint32_t grouping = (uint32_t)below(random, ad_groupings_default.count);
        const struct ad_grouping *g = &ad_groupings_default.list[grouping];

        ok(ad_zones_get(place.zones, zone_name, &zone, err));
        at = (at + (int64_t)below(random, 4000) - 1000) * VT_MINUTE;
        at = ad_zone_floor(zone, w == AD_WINDOW_TOTAL ? AD_WINDOW_MINUTE : w, at);
        end = at + (int64_t)(1 + below(random, w == AD_WINDOW_MINUTE ? 3000 : 20000)) * VT_MINUTE;
        end = ad_zone_next(zone, w == AD_WINDOW_TOTAL ? AD_WINDOW_MINUTE : w, end);
        if (w == AD_WINDOW_MONTH)
                end = ad_zone_next(zone, w, end + 40 * 86400000LL);
        (void)ad_time_text(at, from);
        (void)ad_time_text(end, to);
        with(a, "window", "%s", window_names[w]);
        with(a, "tz", "%s", zone_name);
        with(a, "from", "%s", from);
        with(a, "to", "%s", to);
        for (uint32_t d = 0; d < g->dim_count; d++) {
                if (below(random, 3) == 0)
                        (void)snprintf(list + strlen(list), sizeof(list) - strlen(list), "%s%s",
                                       *list ? "," : "", ad_dim_names[g->dims[d]]);
                if (below(random, 4) == 0)
                        with(a, ad_dim_names[g->dims[d]], "%s,%s", values[g->dims[d]][0],
                             values[g->dims[d]][1 + below(random, 3)]);
        }
        with(a, "group_by", "%s", *list ? list : "none");
        if (below(random, 5) == 0 && w != AD_WINDOW_MINUTE)
                with(a, "fill", "zero");
        if (below(random, 4) == 0)
                with(a, "tenant", "acme");
        assert_int_equal(setenv("TZ", zone_name, 1), 0);
        tzset();
}

static void test_equals_recount(void **state)
{
        uint64_t random = 4711;
        size_t compared = 0;

        for (int i = 0; i < QUERIES; i++) {
                struct asked a = {.count = 0};
                struct ad_query q;
                struct ad_result *r;

                random_question(&a, &random);
                r = run(&a, &q);
                compare(&a, &q, r);
                check_totals(r);
                compared += row_count;
                ad_result_destroy(r);
        }
        assert_true(compared > 15 * QUERIES);
}

static bool in_order(const struct ad_result_row *a, const struct ad_result_row *b, int by)
{
        switch (by) {
        case 0:
                return a->window <= b->window;
        case 1:
                return a->cell.spend >= b->cell.spend;
        case 2:
                return a->cell.clicks <= b->cell.clicks;
        default: /* ctr, from the greatest; none is the smallest */
                return a->cell.impressions == 0
                               ? b->cell.impressions == 0
                               : b->cell.impressions == 0 ||
                                         a->cell.clicks * b->cell.impressions >=
                                                 b->cell.clicks * a->cell.impressions;
        }
}

static void test_order(void **state)
{
        static const char *const orders[] = {"window_start", "-spend_micros", "clicks", "-ctr"};

        for (int i = 0; i < 4; i++) {
                char text[300];
                struct ad_query q;
                struct ad_result *r;

                (void)snprintf(text, sizeof(text),
                               "window=day&from=2024-10-01&to=2024-11-10&group_by=campaign_id,"
                               "country&order_by=%s&tz=UTC",
                               orders[i]);
                r = ask(&q, text);
                assert_true(r->row_count > 20);
                for (size_t k = 1; k < r->row_count; k++)
                        assert_true(in_order(&r->rows[k - 1], &r->rows[k], i));
                ad_result_destroy(r);
        }
}

/* W4: final once every live partition has passed the end; the least decides. */
static void test_state_and_completeness(void **state)
{
        struct ad_query q;
        struct ad_result *r =
                ask(&q, "window=hour&from=2024-10-25T22:00:00Z&to=2024-10-26T02:00:00Z"
                        "&tz=UTC&fill=zero&group_by=none");
        struct df_buf b = {0};
        double share = 0;

        assert_int_equal(r->window_count, 4);
        assert_true(r->final[0] && r->final[1] && !r->final[2] && !r->final[3]);
        for (int s = 0; s < SOURCES; s++) /* two of four windows passed by each of three sources */
                share += 2.0 / (4 * SOURCES);
        assert_true(r->completeness > share - 1e-9 && r->completeness < share + 1e-9);
        assert_int_equal(r->watermark_ms, utc_minute(2024, 10, 26) * VT_MINUTE);
        ok(ad_result_json(r, 0, 10, NULL, &b, err));
        df_put_u8(&b, 0);
        assert_non_null(strstr((char *)b.data, "\"watermark\":\"2024-10-26T00:00:00Z\""));
        assert_non_null(strstr((char *)b.data, "\"state\":\"settled\",\"final\":true"));
        assert_non_null(strstr((char *)b.data, "\"state\":\"open\",\"final\":false"));
        assert_non_null(strstr((char *)b.data, "\"missing_partitions\":[]"));
        assert_non_null(strstr((char *)b.data, "\"run\":\"live\""));
        df_buf_release(&b);
        ad_result_destroy(r);
}

static void test_missing_partitions(void **state)
{
        struct ad_outside o = {.missing = {1}, .missing_count = 1}, none = {.missing_count = 0};
        struct ad_query q;
        struct ad_result *r;

        ok(ad_view_outside(view, &o, newest_ms, err));
        r = ask(&q, "window=day&from=2024-10-25&to=2024-10-26&tz=UTC");
        assert_int_equal(r->missing_count, 1);
        assert_int_equal(r->missing[0], 1);
        ad_result_destroy(r);
        ok(ad_view_outside(view, &none, newest_ms, err));
}

/* Rates are sums over sums, and null where nothing can be divided. */
static void test_rates(void **state)
{
        struct ad_query q;
        struct ad_result *r = ask(&q, "window=total&from=2024-10-01&to=2024-11-10&tz=UTC");
        struct df_buf b = {0};
        struct ad_cell *cell;
        char want[60];

        assert_true(r->row_count > 0);
        cell = &r->rows[0].cell;
        cell->impressions = 0;
        cell->clicks = 3;
        cell->conversions = 1;
        ok(ad_result_json(r, 0, 1, NULL, &b, err));
        df_put_u8(&b, 0);
        (void)snprintf(want, sizeof(want), "\"ctr\":null,\"cvr\":%.6g", 1.0 / 3);
        assert_non_null(strstr((char *)b.data, want));
        df_buf_release(&b);
        ad_result_destroy(r);
}

/* B22: the answer says what it is of. */
static void test_scope(void **state)
{
        struct ad_query q;
        struct ad_result *r = ask(&q, "window=day&from=2024-10-25&to=2024-10-26&campaign_id=c1,c2"
                                      "&group_by=country&tz=Asia/Kolkata");
        struct df_buf b = {0};

        ok(ad_result_json(r, 0, 1, "next", &b, err));
        df_put_u8(&b, 0);
        assert_non_null(strstr((char *)b.data, "\"tz\":\"Asia/Kolkata\""));
        assert_non_null(strstr((char *)b.data, "\"filters\":{\"campaign_id\":[\"c1\",\"c2\"]}"));
        assert_non_null(strstr((char *)b.data, "\"group_by\":[\"country\"]"));
        assert_non_null(strstr((char *)b.data, "\"tenant\":\"default\""));
        assert_non_null(strstr((char *)b.data, "\"as_of\":\"2024-11-06T05:30:00+05:30\""));
        assert_non_null(strstr((char *)b.data, "\"next_cursor\":\"next\""));
        assert_non_null(strstr((char *)b.data, "\"from\":\"2024-10-25T00:00:00+05:30\""));
        df_buf_release(&b);
        ad_result_destroy(r);
}

static void test_csv(void **state)
{
        static const char head[] = "window_start,campaign_id,currency,impressions,clicks,"
                                   "conversions,spend_micros,payout_micros,";
        struct ad_query q;
        struct ad_result *r = ask(&q, "window=day&from=2024-10-25&to=2024-10-29&format=csv&tz=UTC");
        struct df_buf b = {0};
        size_t lines = 0;

        assert_true(q.csv);
        r->rows[0].dims = &(struct df_bytes){(const uint8_t *)"a,\"b\"", 5};
        ok(ad_result_csv(r, 0, 1000, &b, err));
        df_put_u8(&b, 0);
        assert_int_equal(strncmp((char *)b.data, head, strlen(head)), 0);
        assert_non_null(strstr((char *)b.data, "Z,\"a,\"\"b\"\"\",EUR,"));
        for (size_t i = 0; i + 1 < b.len; i++)
                lines += b.data[i] == '\n';
        assert_int_equal(lines, r->row_count + 1);
        df_buf_release(&b);
        ad_result_destroy(r);
}

static void test_hints(void **state)
{
        static const struct {
                const char *question, *code;
        } hints[] = {
                {"window=day&from=2020-01-01&to=2020-01-02&tz=UTC", "outside_range"},
                {"window=day&from=2024-10-25&to=2024-10-26&campaign_id=c9&tz=UTC", "no_match"},
                {"window=day&from=2024-08-01&to=2024-08-02&tz=UTC", "no_rows_in_range"},
                {"window=day&from=2024-08-01&to=2024-08-02&tenant=nobody&tz=UTC", "other_tenant"},
                {"window=day&from=2024-11-05&to=2024-11-06&country=XX&tz=UTC", "outside_range"},
                {"window=day&from=2024-11-03&to=2024-11-04&country=XX&tz=UTC", "window_open"},
                {"window=day&from=2024-10-25&to=2024-10-26&country=XX&tz=UTC", "no_match"},
        };

        for (size_t i = 0; i < sizeof(hints) / sizeof(hints[0]); i++) {
                struct ad_query q;
                struct ad_result *r = ask(&q, hints[i].question);

                assert_int_equal(r->row_count, 0);
                assert_string_equal(r->hint_code, hints[i].code);
                assert_non_null(r->hint);
                ad_result_destroy(r);
        }
}

/* A budget gives a question up before it has cost much; without one it is answered. */
static void test_budget(void **state)
{
        struct ad_query_context c = context();
        struct asked a = {.count = 0};
        atomic_int_least64_t cancel;
        struct ad_result *r = NULL;
        struct ad_query q;
        struct ad_fault f;

        with(&a, "window", "day");
        with(&a, "tz", "Asia/Kolkata"); /* composed from quarter hours: many cells */
        with(&a, "from", "2024-02-01");
        with(&a, "to", "2024-11-10");
        c.budget = 300;
        assert_int_equal(ad_query_parse(&c, a.params, a.count, &q, &f), 0);
        assert_int_equal(ad_query_run(&c, &q, &r, &f), -1);
        assert_int_equal(f.status, AD_STATUS_OVER_BUDGET);
        c.budget = 0;
        assert_int_equal(ad_query_run(&c, &q, &r, &f), 0);
        ad_result_destroy(r);
        atomic_init(&cancel, 0);
        c.cancel_ms = &cancel;
        if (ad_query_run(&c, &q, &r, &f) == 0) /* fewer cells than between two looks */
                ad_result_destroy(r);
        else
                assert_int_equal(f.status, 503);
}

/* ---- W1, W7: rows that are gone, and keys that were folded; last, they change the view ---- */

static void test_other_is_partial(void **state)
{
        struct df_source source = vt_source("events", 3, 0); /* an older generation */
        struct ad_note none = {0};
        uint64_t positions[SOURCES] = {2, 2, 2};
        int64_t minute = utc_minute(2024, 9, 1);
        struct ad_row row = {.grouping = 1,
                             .minute = (uint64_t)minute,
                             .dim_count = 5,
                             .tenant_id = df_bytes_str("default"),
                             .currency = df_bytes_str("EUR"),
                             .cell = {.impressions = 5}};
        struct vt_collection c;
        struct ad_query q;
        struct ad_result *r;

        vt_begin(&c, &source, NULL);
        for (uint32_t d = 0; d < row.dim_count; d++)
                row.dims[d] = df_bytes_str(AD_OTHER);
        ad_wire_row(&c.payload, &row);
        c.seal.closed = true;
        c.seal.watermark_ms = c.seal.final_through_ms = DF_TIME_MAX;
        vt_end(&c, &none);
        ok(vt_add(view, &c, newest_ms, err));
        vt_release(&c);
        ok(ad_view_commit(view, positions, SOURCES, newest_ms, err));
        r = ask(&q, "window=day&from=2024-08-31&to=2024-09-03&group_by=country&tz=UTC");
        assert_int_equal(r->row_count, 1);
        assert_false(r->partial[0]);
        assert_true(r->partial[1]);
        assert_false(r->partial[2]);
        ad_result_destroy(r);
        r = ask(&q, "window=minute&from=2024-09-01T00:00:00Z&to=2024-09-01T00:02:00Z&tz=UTC&"
                    "group_by=country");
        assert_true(r->partial[0] && !r->partial[1]);
        ad_result_destroy(r);
}

static void test_expired(void **state)
{
        uint64_t positions[SOURCES] = {2, 2, 2};
        struct ad_query q;
        struct ad_result *r;

        ad_view_close(view);
        place.options.keep_minutes_ms = 86400000;
        view = vt_open(&place, AD_VIEW_KEPT);
        newest_ms += 2 * 86400000LL;
        ok(ad_view_commit(view, positions, SOURCES, newest_ms, err));
        refused("window=minute&from=2024-10-25&to=2024-10-26&tz=UTC", 400, "rows_expired", true);
        r = ask(&q, "window=hour&from=2024-10-25&to=2024-10-26&tz=UTC"); /* quarters are kept */
        assert_int_equal(setenv("TZ", "UTC", 1), 0);
        tzset();
        compare(&(struct asked){.count = 0}, &q, r);
        ad_result_destroy(r);
        ad_view_close(view);
        view = vt_open(&place, AD_VIEW_KEPT); /* it is known after a restart too */
        refused("window=minute&from=2024-10-25&to=2024-10-26&tz=UTC", 400, "rows_expired", true);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_equals_recount),
                cmocka_unit_test(test_order),
                cmocka_unit_test(test_state_and_completeness),
                cmocka_unit_test(test_missing_partitions),
                cmocka_unit_test(test_rates),
                cmocka_unit_test(test_scope),
                cmocka_unit_test(test_csv),
                cmocka_unit_test(test_hints),
                cmocka_unit_test(test_budget),
                cmocka_unit_test(test_other_is_partial),
                cmocka_unit_test(test_expired),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
