/* Questions to GET /metrics at their documented limits and one beyond (docs/API.md): values of a
 * filter, and, in the slow suite, rows of an answer, of realtime, of the bill, and those that
 * fill=zero makes. */
#include "bill_query_test.h"

#define VALUES 100 /* as docs/API.md says, as the next one */
#define ROWS 200000
#define A_COMMIT 20000 /* postings */

static int64_t minute; /* of all rows of these tests */

/* ---- asking ---- */

/* Rows of the answer; otherwise the refusal is what is wanted. */
static size_t ask_rows(const struct ad_query_context *c, const struct ad_param *params,
                       size_t count, const char *code, const char *part)
{
        struct ad_result *r = NULL;
        struct ad_fault f = {0};
        struct ad_query q;
        bool answered = false;
        size_t rows = 0;

        if (ad_query_parse(c, params, count, &q, &f) == 0 && ad_query_run(c, &q, &r, &f) == 0) {
                answered = true;
                rows = r->row_count;
                ad_result_destroy(r);
        }
        if (answered && code)
                fail_msg("%s was answered, %zu rows", code, rows);
        if (!r &&
            (!code || f.status != 400 || strcmp(f.code, code) != 0 || !strstr(f.message, part)))
                fail_msg("wanted %s %s: %d %s: %s", code, part, f.status, f.code, f.message);
        return rows;
}

static struct ad_param text(const char *name, const char *value)
{
        return (struct ad_param){df_bytes_str(name), df_bytes_str(value)};
}

/* Of so many minutes from `minute` on. */
static size_t rows_of(const char *tenant, const char *view_name, const char *group,
                      const char *window, const char *fill, int64_t minutes, const char *code)
{
        struct ad_query_context c = context();
        char from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX];
        struct ad_param params[] = {text("view", view_name), text("group_by", group),
                                    text("window", window),  text("fill", fill),
                                    text("tz", "UTC"),       text("from", ""),
                                    text("to", "")};

        c.tenant_id = df_bytes_str(tenant);
        c.books = b.follow;
        params[5].value = df_bytes(from, (size_t)ad_time_text(minute * VT_MINUTE, from));
        params[6].value = df_bytes(to, (size_t)ad_time_text((minute + minutes) * VT_MINUTE, to));
        return ask_rows(&c, params, sizeof(params) / sizeof(params[0]), code,
                        "more than 200000 rows");
}

/* ---- values of a filter ---- */

static void test_values(void **state)
{
        struct ad_query_context c = context();
        struct df_buf v = {0};

        for (int i = 0; i < VALUES; i++)
                df_buf_printf(&v, "%sc%d", i ? "," : "", i);
        (void)ask_rows(&c, &(struct ad_param){df_bytes_str("campaign_id"), df_buf_bytes(&v)}, 1,
                       NULL, NULL);
        df_buf_printf(&v, ",c0,c99"); /* again: they count once */
        (void)ask_rows(&c, &(struct ad_param){df_bytes_str("campaign_id"), df_buf_bytes(&v)}, 1,
                       NULL, NULL);
        df_buf_printf(&v, ",c100");
        (void)ask_rows(&c, &(struct ad_param){df_bytes_str("campaign_id"), df_buf_bytes(&v)}, 1,
                       "too_many_values", "100 values");
        df_buf_release(&v);
}

/* ---- rows ---- */

/* The last one of more than ROWS lies behind the hour. */
static uint64_t minute_of(int campaign)
{
        return (uint64_t)minute + (campaign < ROWS ? 0 : 60);
}

static void fill_tenant(struct vt_collection *c, const char *tenant, int campaigns)
{
        char name[16];

        for (int i = 0; i < campaigns; i++) {
                struct ad_row row = {.minute = minute_of(i),
                                     .tenant_id = df_bytes_str(tenant),
                                     .currency = df_bytes_str("EUR"),
                                     .dim_count = 2,
                                     .cell = {.clicks = 1}};

                (void)snprintf(name, sizeof(name), "c%d", i);
                row.dims[0] = df_bytes_str("a");
                row.dims[1] = df_bytes_str(name);
                ad_wire_row(&c->payload, &row);
        }
}

static void check_rows_of(const char *view_name)
{
        assert_int_equal(rows_of("rows", view_name, "campaign_id", "total", "none", 60, NULL),
                         ROWS);
        (void)rows_of("rows", view_name, "campaign_id", "total", "none", 75, "range_too_large");
        assert_int_equal(rows_of("rows", view_name, "advertiser_id", "total", "none", 75, NULL), 1);
}

/* 4 campaigns in 50,000 minutes are 200,000 rows; 163 in 1,227 are 200,001. */
static void test_rows(void **state)
{
        struct df_source source = vt_source("import.x", 99, 0); /* without windows that are final */
        struct ad_note none = {0};
        uint64_t positions[SOURCES] = {2, 1, 1};
        struct vt_collection c;

        vt_begin(&c, &source, NULL);
        fill_tenant(&c, "rows", ROWS + 1);
        fill_tenant(&c, "four", 4);
        fill_tenant(&c, "many", 163);
        vt_end(&c, &none);
        ok(vt_add(view, &c, newest_ms, err));
        ok(ad_view_commit(view, positions, SOURCES, newest_ms, err));
        vt_release(&c);
        check_rows_of("realtime");
        assert_int_equal(rows_of("four", "realtime", "campaign_id", "minute", "zero", 50000, NULL),
                         ROWS);
        assert_int_equal(rows_of("many", "realtime", "campaign_id", "minute", "zero", 1226, NULL),
                         163 * 1226);
        (void)rows_of("many", "realtime", "campaign_id", "minute", "zero", 1227, "range_too_large");
}

static int find_generation(void *arg, const struct df_topic_info *info)
{
        if (strcmp(info->name, AD_TOPIC_BILLING) == 0)
                *(uint64_t *)arg = info->generation;
        return 0;
}

static void commit(struct ad_billing *books, struct df_buf *payload, uint64_t k)
{
        struct df_bytes payloads[1] = {df_buf_bytes(payload)};
        struct df_collection c = {
                .origin = {.source = bt_source(), .k = k}, .payloads = payloads, .count = 1};

        ok(ad_billing_add(books, &c, err));
        ok(ad_billing_commit(books, 0, err));
        df_buf_clear(payload);
}

static void post(struct df_buf *to, int campaign)
{
        struct ad_cause_cell one = {.cause = AD_CAUSE_NONE, .billed = {.clicks = 1}};
        struct ad_books_entry e = {.kind = AD_BOOKS_POSTING};
        char name[16];

        (void)snprintf(name, sizeof(name), "c%d", campaign);
        e.posting.seq = (uint64_t)campaign + 1;
        e.posting.run = df_bytes_str("00000000000000aa");
        e.posting.target = (struct ad_target){.quarter = minute_of(campaign) / 15,
                                              .tenant_id = df_bytes_str("rows"),
                                              .advertiser_id = df_bytes_str("a"),
                                              .campaign_id = df_bytes_str(name),
                                              .currency = df_bytes_str("EUR"),
                                              .causes = &one,
                                              .cause_count = 1};
        ad_wire_books_entry(to, &e);
}

static void test_rows_of_the_bill(void **state)
{
        struct ad_books_entry run = {.kind = AD_BOOKS_APPLIED};
        struct ad_billing *books = NULL;
        struct df_buf payload = {0};
        char path[300], why[256];
        uint64_t generation = 0, k = 0;

        open_log(61);
        ok(df_log_topic_list(b.log, AD_TOPIC_BILLING, find_generation, &generation, err));
        (void)snprintf(path, sizeof(path), "%s/view-billing", b.dir);
        ok(ad_billing_open(path, generation, &books, why, err));
        for (int i = 0; i <= ROWS; i++) {
                post(&payload, i);
                if (i % A_COMMIT == 0)
                        commit(books, &payload, ++k);
        }
        run.applied.begin.run = df_bytes_str("00000000000000aa");
        run.applied.begin.at_ms = (minute + 75) * VT_MINUTE;
        ad_wire_books_entry(&payload, &run);
        commit(books, &payload, ++k);
        ad_billing_close(books);
        df_buf_release(&payload);
        follow();
        wait_for("adtally_billing_ready", 1);
        check_rows_of("billing");
        close_log();
}

static int setup_all(void **state)
{
        int rc = setup(state);

        minute = utc_minute(2024, 8, 20);
        return rc;
}

int main(int argc, char **argv)
{
        const struct CMUnitTest quick[] = {cmocka_unit_test(test_values)};
        const struct CMUnitTest slow[] = {cmocka_unit_test(test_rows),
                                          cmocka_unit_test(test_rows_of_the_bill)};

        if (argc > 1 && strcmp(argv[1], "long") == 0)
                return cmocka_run_group_tests(slow, setup_all, teardown);
        return cmocka_run_group_tests(quick, setup_all, teardown);
}
