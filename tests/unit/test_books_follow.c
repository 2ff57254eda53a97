/* The follower of the topic `billing`: what is unsealed, repeated, damaged, missing; and answers.
 */
#include "bill_query_test.h"

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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_follower),
                cmocka_unit_test(test_suspect),
                cmocka_unit_test(test_no_topic),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
