/* Records and bounds on a real broker: what is appended is read, where a partition begins and ends
 * (df/log.h), also with transactions in it (R1: a bounded read ends on its position). */
#include "kafka_test.h"

static void what_is_appended_is_read_back(void **state)
{
        enum { PARTITIONS = 3, RECORDS = 60 };
        static const size_t sizes[] = {0, 1, 63, 64, 65, 4096, 65536, DF_LOG_RECORD_MAX};
        struct df_log *log = open_log(fresh_prefix());
        struct df_log_writer *w = NULL;
        struct df_append items[RECORDS] = {0};

        for (int i = 0; i < RECORDS; i++) {
                size_t len = i < 8 ? sizes[i] : (size_t)dice(20000);
                uint8_t *bytes = malloc(len + 1);

                for (size_t b = 0; b < len; b++)
                        bytes[b] = (uint8_t)dice(256);
                items[i] = (struct df_append){.partition = (uint32_t)dice(PARTITIONS),
                                              .value = df_bytes(bytes, len)};
        }
        ok(df_log_topic_create(log, "e", PARTITIONS, &err));
        ok(df_log_writer_open(log, "e", &w, &err));
        for (int i = 0; i < RECORDS;) { /* several calls, each several partitions */
                int n = 1 + (int)dice(9);

                n = n > RECORDS - i ? RECORDS - i : n;
                ok(df_log_append(w, &items[i], (size_t)n, &err));
                i += n;
        }
        for (uint32_t p = 0; p < PARTITIONS; p++) {
                struct read_all all = read_from(log, "e", p, 0);
                size_t n = 0;

                for (int i = 0; i < RECORDS; i++) {
                        if (items[i].partition != p)
                                continue;
                        assert_true(n < all.count);
                        assert_int_equal(all.list[n].len, items[i].value.len);
                        assert_memory_equal(all.list[n].value, items[i].value.data,
                                            items[i].value.len);
                        assert_true(all.list[n].offset == items[i].ret_offset);
                        /* T2: the log's stamp, the same for writer and reader */
                        assert_true(all.list[n].append_ms == items[i].ret_append_ms);
                        assert_true(all.list[n].append_ms > 1600000000000ll);
                        n++;
                }
                assert_int_equal(n, all.count);
                release_all(&all);
        }
        for (int i = 0; i < RECORDS; i++)
                free((void *)(uintptr_t)items[i].value.data);
        df_log_writer_close(w);
        df_log_close(log);
}

static void one_byte_too_many_stores_nothing(void **state)
{
        struct df_log *log = open_log(fresh_prefix());
        struct df_log_writer *w = NULL;
        uint8_t *large = calloc(1, DF_LOG_RECORD_MAX + 1);
        struct df_append items[3] = {{.value = df_bytes("a", 1)},
                                     {.value = df_bytes(large, DF_LOG_RECORD_MAX + 1)},
                                     {.value = df_bytes("b", 1)}};

        ok(df_log_topic_create(log, "e", 1, &err));
        ok(df_log_writer_open(log, "e", &w, &err));
        fails(df_log_append(w, items, 3, &err), DF_ELIMIT, "1048577 bytes");
        assert_true(end_of(log, "e", 0) == 0);
        items[1].value.len--;
        ok(df_log_append(w, items, 3, &err)); /* the writer is in order */
        assert_true(end_of(log, "e", 0) == 3);
        free(large);
        df_log_writer_close(w);
        df_log_close(log);
}

static void a_partition_that_is_not_there_is_named(void **state)
{
        struct df_log *log = open_log(fresh_prefix());
        struct df_log_writer *w = NULL;
        struct df_append a = {.partition = DF_PARTITIONS_MAX, .value = df_bytes("a", 1)};
        struct df_log_reader *r = NULL;
        uint64_t first, end;

        ok(df_log_topic_create(log, "e", 2, &err));
        ok(df_log_writer_open(log, "e", &w, &err));
        fails(df_log_append(w, &a, 1, &err), DF_EINVAL, "partition 256");
        a.partition = 2; /* once the producer knows the topic, it refuses by itself */
        fails(df_log_append(w, &a, 1, &err), DF_ENOENT, "1 of 1 records");
        fails(df_log_bounds(log, "e", 2, &first, &end, &err), DF_ENOENT, "e/2");
        fails(df_log_reader_open(log, "e", 2, 0, NULL, &r, &err), DF_ENOENT, "e/2");
        assert_null(r);
        append_one(log, "e", 1, "x"); /* the one that refused is replaced */
        assert_true(end_of(log, "e", 1) == 1);
        df_log_writer_close(w);
        df_log_close(log);
}

static void before_the_first_and_behind_the_end(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);
        struct df_log_reader *r = NULL;
        struct df_record record;
        struct read_all all;
        uint64_t first, end;
        int64_t until = dfk_now_ms() + WAIT_MS;
        size_t n;
        int rc;

        ok(df_log_topic_create(log, "e", 1, &err));
        for (int i = 0; i < 8; i++)
                append_one(log, "e", 0, "x");
        raw_delete_before(full_name(prefix, "e"), 0, 5);
        ok(df_log_bounds(log, "e", 0, &first, &end, &err));
        assert_true(first == 5 && end == 8);
        fails(df_log_reader_open(log, "e", 0, 4, NULL, &r, &err), DF_EOFFSET,
              "begins at offset 5, wanted is 4");
        all = read_from(log, "e", 0, 5);
        assert_int_equal(all.count, 3);
        assert_true(all.list[0].offset == 5);
        release_all(&all);
        /* Never "the latest instead": that is an error of the reader, and it stays. */
        ok(df_log_reader_open(log, "e", 0, 108, NULL, &r, &err));
        while ((rc = df_log_poll(r, &record, 1, &n, &err)) == 0 && dfk_now_ms() < until) {
                assert_int_equal(n, 0);
                dfk_pause(1);
        }
        assert_int_equal(rc, DF_EOFFSET);
        fails(df_log_poll(r, &record, 1, &n, &err), DF_EOFFSET, "offset 108");
        df_log_reader_close(r);
        df_log_close(log);
}

static void the_end_is_where_it_is_asked_for(void **state)
{
        struct df_log *log = open_log(fresh_prefix());
        struct df_log_reader *r = NULL;
        struct read_all all = {0};

        ok(df_log_topic_create(log, "e", 1, &err));
        append_one(log, "e", 0, "before");
        ok(df_log_reader_open(log, "e", 0, DF_OFFSET_END, NULL, &r, &err));
        assert_true(df_log_position(r) == 1);
        append_one(log, "e", 0, "after");
        read_until(r, 2, &all);
        assert_int_equal(all.count, 1);
        assert_string_equal(all.list[0].value, "after");
        release_all(&all);
        df_log_reader_close(r);
        df_log_close(log);
}

static void an_open_transaction_ends_the_partition(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);
        char *e = full_name(prefix, "e");
        rd_kafka_t *p = raw_txn_producer(full_name(prefix, "raw"));

        ok(df_log_topic_create(log, "e", 1, &err));
        append_one(log, "e", 0, "a");
        raw_ok(rd_kafka_begin_transaction(p));
        raw_send(p, e, 0, "b");
        raw_send(p, e, 0, "c");
        raw_stored(p);
        append_one(log, "e", 0, "d"); /* behind it, and acknowledged */
        assert_true(end_of(log, "e", 0) == 1);
        assert_values(log, "e", 0, "a ");
        raw_ok(rd_kafka_commit_transaction(p, WAIT_MS));
        assert_true(end_comes(log, "e", 0, 5) == 5); /* a b c d and the marker */
        assert_values(log, "e", 0, "a b c d ");
        rd_kafka_destroy(p);
        df_log_close(log);
}

/* Nothing but aborted records and markers at the tail: the position passes them all. */
static void a_bounded_read_ends_behind_markers_and_aborted_records(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);
        char *e = full_name(prefix, "e");
        rd_kafka_t *p = raw_txn_producer(full_name(prefix, "raw"));
        struct df_log_reader *r = NULL;
        struct read_all all = {0};
        uint64_t seen;

        ok(df_log_topic_create(log, "e", 1, &err));
        ok(df_log_reader_open(log, "e", 0, 0, NULL, &r, &err));
        for (int i = 0; i < 3; i++) {
                raw_ok(rd_kafka_begin_transaction(p));
                raw_send(p, e, 0, i == 1 ? "yes" : "no");
                raw_send(p, e, 0, i == 1 ? "yes" : "no");
                raw_stored(p);
                raw_ok(i == 1 ? rd_kafka_commit_transaction(p, WAIT_MS)
                              : rd_kafka_abort_transaction(p, WAIT_MS));
                assert_true(end_comes(log, "e", 0, (uint64_t)(i + 1) * 3) == (uint64_t)(i + 1) * 3);
                read_until(r, end_of(log, "e", 0), &all);
                assert_true(all.position == (uint64_t)(i + 1) * 3);
                assert_int_equal(all.count, i == 0 ? 0 : 2);
        }
        /* Lag: what the reader has seen of the end is where it stands now (K11). */
        ok(df_log_seen_end(r, "e", 0, &seen, &err));
        assert_true(seen == 9);
        release_all(&all);
        for (uint64_t from = 0; from <= 9; from++) { /* from the middle of each */
                all = read_from(log, "e", 0, from);
                assert_true(all.position == 9);
                assert_int_equal(all.count, from <= 3 ? 2 : from == 4 ? 1 : 0);
                release_all(&all);
        }
        df_log_reader_close(r);
        rd_kafka_destroy(p);
        df_log_close(log);
}

/* A partition's readers do not share a position (each second one has another client). */
static void readers_of_one_partition_are_independent(void **state)
{
        struct df_log *log = open_log(fresh_prefix());
        struct df_log_reader *r[3] = {0};

        ok(df_log_topic_create(log, "e", 1, &err));
        for (int i = 0; i < 20; i++)
                append_one(log, "e", 0, "x");
        for (int i = 0; i < 3; i++)
                ok(df_log_reader_open(log, "e", 0, (uint64_t)i * 5, NULL, &r[i], &err));
        for (int i = 2; i >= 0; i--) {
                struct read_all all = {0};

                read_until(r[i], 20, &all);
                assert_int_equal(all.count, 20 - i * 5);
                assert_true(all.list[0].offset == (uint64_t)i * 5);
                release_all(&all);
                df_log_reader_close(r[i]);
        }
        df_log_close(log);
}

/* A setting that is allowed comes to the clients, one of ours keeps its value. */
static void allowed_settings_come_through(void **state)
{
        struct df_kafka_setting s[] = {{"socket.timeout.ms", "12345"}, {"client.rack", "r1"}};
        struct df_kafka_options o = options_of(fresh_prefix());
        struct df_log *log = NULL;
        rd_kafka_t *rk = NULL;
        char text[64];
        size_t size;
        static const char *const want[][2] = {
                {"socket.timeout.ms", "12345"},        {"client.rack", "r1"},
                {"isolation.level", "read_committed"}, {"check.crcs", "true"},
                {"enable.auto.commit", "false"},       {"enable.auto.offset.store", "false"},
                {"enable.partition.eof", "true"}};

        o.settings = s;
        o.setting_count = 2;
        ok(df_kafka_open(&o, &log, &err));
        ok(dfk_client_new(dfk_kafka_of(log), DFK_PLAIN_CONSUMER, NULL, NULL, NULL, &rk, &err));
        for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++) {
                size = sizeof(text);
                assert_int_equal(rd_kafka_conf_get(rd_kafka_conf(rk), want[i][0], text, &size), 0);
                assert_string_equal(text, want[i][1]);
        }
        rd_kafka_destroy(rk);
        df_log_close(log);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(what_is_appended_is_read_back),
                cmocka_unit_test(one_byte_too_many_stores_nothing),
                cmocka_unit_test(a_partition_that_is_not_there_is_named),
                cmocka_unit_test(before_the_first_and_behind_the_end),
                cmocka_unit_test(the_end_is_where_it_is_asked_for),
                cmocka_unit_test(an_open_transaction_ends_the_partition),
                cmocka_unit_test(a_bounded_read_ends_behind_markers_and_aborted_records),
                cmocka_unit_test(readers_of_one_partition_are_independent),
                cmocka_unit_test(allowed_settings_come_through),
        };

        if (!getenv("TEST_KAFKA"))
                return SKIPPED;
        roll_seed();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
