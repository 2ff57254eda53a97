/* The follower of the topic `billing`: what is unsealed, repeated, damaged, missing; and answers.
 */
#include "bill_query_test.h"
#include "jobs/api/books_watch.h"

/* ---- the follower ---- */

static uint64_t total_runs(void)
{
        return (uint64_t)metric("adtally_billing_runs");
}

static int on_counted(void *arg, const struct ad_books_entry *e, struct df_error *err)
{
        *(size_t *)arg += e->kind == AD_BOOKS_POSTING;
        return 0;
}

static size_t in_collection(const struct bt_collection *c)
{
        struct df_arena arena;
        size_t n = 0;

        df_arena_init(&arena, 0);
        for (size_t i = 0; i < c->count; i++)
                ok(ad_wire_books_decode(df_buf_bytes(&c->payloads[i]), &arena, on_counted, &n,
                                        err));
        df_arena_release(&arena);
        return n;
}

/* K5: what has no seal is not seen, what comes again changes nothing, what does not match its seal
 * is dropped with an alarm; over restarts. */
static void test_follower(void **state)
{
        struct bt_collection *c;
        uint64_t before;
        double read;

        open_log(21);
        follow();
        wait_for("adtally_billing_ready", 1);
        for (int i = 0; i < 20; i++)
                publish(bt_write(), WHOLE);
        wait_for("adtally_billing_rows", (double)bt.version_count);
        b.epoch = 2; /* another owner writes its last collection again */
        publish(&bt.log[bt.log_count - 1], WHOLE);
        wait_for("adtally_billing_repeated_collections_total", 1);
        assert_true(metric("adtally_billing_rows") == (double)bt.version_count);
        before = total_runs();
        do
                c = bt_write();
        while (bt.run_count == before);
        publish(c, DAMAGED);
        wait_for("adtally_billing_damaged_collections_total", 1);
        assert_int_equal(ad_books_damaged(b.follow), 1);
        assert_int_equal(total_runs(), before);
        stop();
        b.epoch = 3;
        for (size_t i = 20; i < bt.log_count; i++)
                publish(&bt.log[i], WHOLE);
        follow();
        wait_for("adtally_billing_rows", (double)bt.version_count);
        while ((c = bt_write())->count == 0 || c->payloads[0].len == 0)
                publish(c, WHOLE);
        wait_for("adtally_billing_rows", (double)(bt.version_count - in_collection(c)));
        read = metric("adtally_billing_read_records_total");
        publish(c, PAYLOADS);
        while (metric("adtally_billing_read_records_total") == read)
                (void)usleep(1000);
        stop();
        publish(c, SEAL);
        follow();
        wait_for("adtally_billing_rows", (double)bt.version_count);
        assert_true(metric("adtally_billing_sequence_gaps") == 0);
        for (int i = 0; i < 50; i++)
                ask_once();
        close_log();
}

/* A store that a question found damaged is built anew, and answers the same. */
static void test_suspect(void **state)
{
        open_log(22);
        for (int i = 0; i < 40; i++)
                publish(bt_write(), WHOLE);
        follow();
        wait_for("adtally_billing_rows", (double)bt.version_count);
        ad_books_suspect(b.follow);
        wait_for("adtally_billing_rebuilt_total", 1);
        wait_for("adtally_billing_ready", 1);
        for (int i = 0; i < 50; i++)
                ask_once();
        close_log();
}

/* Without the topic nothing is answered, and everything once it is there. */
static void test_no_topic(void **state)
{
        struct question x;

        open_log(23);
        df_log_writer_close(b.writer);
        ok(df_log_topic_delete(b.log, AD_TOPIC_BILLING, err));
        follow();
        wait_for("adtally_billing_failed", 1);
        x = about("view", "billing");
        refuse(&x, 503, "billing_not_ready", "there is no topic billing");
        ok(ad_create_topics(b.log, 2, err));
        ok(df_log_writer_open(b.log, AD_TOPIC_BILLING, &b.writer, err));
        while (run_at(INT64_MAX) == NULL)
                publish(bt_write(), WHOLE);
        wait_for("adtally_billing_runs", (double)bt.run_count);
        ask_once();
        close_log();
}

/* ---- currencies whose drift is shown ---- */

static void post_currencies(int count)
{
        static struct bt_collection c;
        struct ad_cause_cell one = {.cause = AD_CAUSE_NONE, .billed = {.spend = 5}};
        struct ad_books_entry e = {.kind = AD_BOOKS_APPLIED};
        char code[4];

        c = (struct bt_collection){.k = 1, .count = 1};
        for (int i = 0; i < count; i++) {
                struct ad_books_entry p = {
                        .kind = AD_BOOKS_POSTING,
                        .posting = {.seq = (uint64_t)i + 1,
                                    .run = df_bytes_str("00000000000000aa"),
                                    .at_ms = BT_MS,
                                    .target = {.quarter = BT_QUARTER,
                                               .tenant_id = bt_tenants[0],
                                               .advertiser_id = df_bytes_str("a"),
                                               .campaign_id = df_bytes_str("c"),
                                               .causes = &one,
                                               .cause_count = 1}}};

                (void)snprintf(code, sizeof(code), "%03d", i);
                p.posting.target.currency = df_bytes_str(code);
                ad_wire_books_entry(&c.payloads[0], &p);
        }
        e.applied.begin.run = df_bytes_str("00000000000000aa");
        e.applied.begin.at_ms = BT_MS + AD_QUARTER_MS;
        ad_wire_books_entry(&c.payloads[0], &e);
        publish(&c, WHOLE);
        df_buf_release(&c.payloads[0]);
}

/* The first ones are shown, and of how many more they are not is said. */
static void test_currencies(void **state)
{
        for (int over = 0; over < 2; over++) {
                struct df_buf text = {0};
                size_t shown = 0;

                open_log(24);
                post_currencies(ADI_WATCH_CURRENCIES_MAX + over);
                follow();
                wait_for("adtally_billing_runs", 1);
                wait_for("adtally_billing_drift_hidden", over);
                ad_books_render(b.follow, &text);
                df_put_u8(&text, 0);
                for (const char *at = (const char *)text.data;
                     (at = strstr(at, "adtally_billing_drift{")); at++)
                        shown++;
                assert_int_equal(shown, ADI_WATCH_CURRENCIES_MAX);
                assert_non_null(strstr((const char *)text.data, "{currency=\"063\"} "));
                df_buf_release(&text);
                close_log();
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_follower),
                cmocka_unit_test(test_suspect),
                cmocka_unit_test(test_no_topic),
                cmocka_unit_test(test_currencies),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
