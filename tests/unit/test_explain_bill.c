/* Explanations of the bill: the runs whose postings are the newest of each cell, counted by hand;
 * closed and later postings left out; one run more than can be named. */
#include "unit.h"

#include "jobs/api/explain.h"
#include "proto/bill.h"
#include "state_test.h"

#define QUARTER 2000000u
#define FROM ((int64_t)QUARTER * AD_QUARTER_MS)

static char dir[256];
static struct ad_billing *books;
static uint64_t seq, k;

static int setup(void **state)
{
        char why[256];

        seq = k = 0;
        ok(ad_billing_open(temp_dir(dir), 7, &books, why, err));
        return 0;
}

static int teardown(void **state)
{
        ad_billing_close(books);
        remove_dir(dir);
        return 0;
}

/* ---- writing: a run posts some cells, by their numbers ---- */

static void put_posting(struct df_buf *payload, const char *run, int64_t at_ms, int cell,
                        int64_t spend)
{
        char campaign[16];
        struct ad_cause_cell cause = {.billed = {.clicks = 1, .spend = spend}};
        struct ad_books_entry e = {.kind = AD_BOOKS_POSTING};

        (void)snprintf(campaign, sizeof(campaign), "c%d", cell);
        e.posting = (struct ad_posting){.seq = ++seq,
                                        .run = df_bytes_str(run),
                                        .at_ms = at_ms,
                                        .target = {.quarter = QUARTER + (uint64_t)cell % 4,
                                                   .tenant_id = df_bytes_str("t"),
                                                   .advertiser_id = df_bytes_str("acme"),
                                                   .campaign_id = df_bytes_str(campaign),
                                                   .publisher_id = df_bytes_str("p"),
                                                   .currency = df_bytes_str("EUR"),
                                                   .causes = &cause,
                                                   .cause_count = 1}};
        ad_wire_books_entry(payload, &e);
}

static void put_applied(struct df_buf *payload, const char *run, int64_t at_ms)
{
        struct ad_vector_part part = {.stream = df_bytes_str("events"),
                                      .generation = 0xbeef,
                                      .partition = 3,
                                      .to = (uint64_t)at_ms};
        struct ad_books_entry e = {.kind = AD_BOOKS_APPLIED};
        uint8_t digest[32] = {9};

        e.applied.begin = (struct ad_run_begin){.run = df_bytes_str(run),
                                                .chain = df_bytes_str("cccccccccccccccc"),
                                                .binary_version = df_bytes_str("1.0"),
                                                .vector = &part,
                                                .vector_count = 1,
                                                .corrections_to = 4,
                                                .at_ms = at_ms};
        e.applied.end = (struct ad_run_end){.run = df_bytes_str(run),
                                            .digest = df_bytes(digest, sizeof(digest))};
        ad_wire_books_entry(payload, &e);
}

static void add(struct df_buf *payload)
{
        struct df_bytes bytes = df_buf_bytes(payload);
        struct df_collection c = {
                .origin = {.source = {.stream = "runs", .generation = 7}, .k = ++k, .epoch = 1},
                .payloads = &bytes,
                .count = 1};

        assert_false(payload->failed);
        ok(ad_billing_add(books, &c, err));
        ok(ad_billing_commit(books, k, err));
        df_buf_release(payload);
}

static void post(const char *run, int64_t at_ms, int first_cell, int cells, int64_t spend)
{
        struct df_buf payload = {0};

        for (int i = 0; i < cells; i++)
                put_posting(&payload, run, at_ms, first_cell + i, spend);
        put_applied(&payload, run, at_ms);
        add(&payload);
}

/* ---- asking ---- */

static struct ad_explain_bill ask(const char *run, const char *campaign, int want)
{
        struct ad_explain_context c = {0};
        struct ad_query *q = calloc(1, sizeof(*q));
        struct ad_fault f = {.status = 200};
        struct ad_billing_read *read = NULL;
        struct ad_explain_bill e;

        assert_non_null(q);
        q->tenant_id = df_bytes_str("t");
        q->from_ms = FROM;
        q->to_ms = FROM + 4 * AD_QUARTER_MS;
        if (campaign) {
                q->filters[AD_DIM_CAMPAIGN].values[0] = df_bytes_str(campaign);
                q->filters[AD_DIM_CAMPAIGN].count = 1;
        }
        ok(ad_billing_begin(books, &read, err));
        (void)ad_explain_bill_find(&c, read, q, run, &e, &f);
        ad_billing_end(read);
        if (f.status != want)
                fail_msg("%d %s %s", f.status, f.code, f.message);
        free(q);
        return e;
}

static void test_runs_of_the_newest_postings(void **state)
{
        struct ad_explain_bill e;

        post("aaaaaaaaaaaaaaaa", 100, 0, 10, 5); /* cells 0 to 9 */
        post("bbbbbbbbbbbbbbbb", 200, 4, 3, 6);  /* 4 to 6 anew */
        post("cccccccccccccccc", 300, 20, 2, 0); /* others */
        e = ask("cccccccccccccccc", NULL, 200);
        assert_int_equal(e.cells, 12);
        assert_int_equal(e.run_count, 3);
        assert_true(df_bytes_eq(e.runs[0].id, df_bytes_str("aaaaaaaaaaaaaaaa")));
        assert_int_equal(e.runs[0].cells, 7);
        assert_int_equal(e.runs[0].first_seq, 1);
        assert_int_equal(e.runs[0].last_seq, 10);
        assert_int_equal(e.runs[1].cells, 3);
        assert_int_equal(e.runs[1].first_seq, 11);
        assert_true(e.runs[1].known);
        assert_int_equal(e.runs[1].run.applied.begin.at_ms, 200);
        assert_int_equal(e.source_count, 1); /* of the run asked for */
        assert_int_equal(e.sources[0].to_offset, 300);
        assert_int_equal(e.sources[0].name.partition, 3);
        assert_string_equal(e.sources[0].name.stream, "events");
        ad_explain_bill_release(&e);
        /* As of the first run the others do not exist. */
        e = ask("aaaaaaaaaaaaaaaa", NULL, 200);
        assert_int_equal(e.run_count, 1);
        assert_int_equal(e.cells, 10);
        assert_int_equal(e.sources[0].to_offset, 100);
        ad_explain_bill_release(&e);
        e = ask("cccccccccccccccc", "c5", 200);
        assert_int_equal(e.cells, 1);
        assert_int_equal(e.runs[0].first_seq, 12);
        ad_explain_bill_release(&e);
}

static void test_limit(void **state)
{
        struct df_buf payload = {0};
        struct ad_explain_bill e;
        char run[17];

        for (int i = 0; i <= AD_EXPLAIN_RUNS_MAX; i++) {
                (void)snprintf(run, sizeof(run), "%016d", i);
                put_posting(&payload, run, 100 + i, i, 5);
                put_applied(&payload, run, 100 + i);
        }
        add(&payload);
        (void)snprintf(run, sizeof(run), "%016d", AD_EXPLAIN_RUNS_MAX - 1);
        e = ask(run, NULL, 200);
        assert_int_equal(e.run_count, AD_EXPLAIN_RUNS_MAX);
        ad_explain_bill_release(&e);
        (void)snprintf(run, sizeof(run), "%016d", AD_EXPLAIN_RUNS_MAX);
        e = ask(run, NULL, 400);
        ad_explain_bill_release(&e);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_runs_of_the_newest_postings, setup, teardown),
                cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
