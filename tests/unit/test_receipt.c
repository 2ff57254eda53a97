/* Receipts: reading late and quarantine by their seals when some are gone or damaged, and imports.
 * Whole receipts against the rules: tests/e2e/test_receipts.py. */
#include "receipt_test.h"

/* ---- reading ---- */

static void test_by_seals(void **state)
{
        struct df_buf b = {0};

        put("a", 1); /* 0 */
        put("b", 1); /* 1 */
        clock_now += 1000;
        seal(late, 1, 0, 2, NULL, false);
        quarantined(&b, 1, AD_CLOCK);
        seal(quarantine, 1, 0, 2, &b, false);
        put("a", 1); /* 2 */
        put("b", 1); /* 3 */
        expect("a", T0, 0, AD_COPY_SEALED, AD_COUNTED);
        expect("a", T0, 1, AD_COPY_PENDING, 0);
        expect("b", T0, 0, AD_COPY_SEALED, AD_CLOCK);
        seal(late, 2, 2, 4, NULL, false); /* in one of the two alone: not known yet */
        expect("b", T0, 1, AD_COPY_PENDING, 0);
        seal(quarantine, 2, 2, 4, NULL, false);
        expect("a", T0, 1, AD_COPY_SEALED, AD_DUPLICATE);
        expect("b", T0, 1, AD_COPY_SEALED, AD_COUNTED);
        /* Asked from behind the first copy, that one is looked at all the same. */
        expect("a", T0 + 1000, 0, AD_COPY_SEALED, AD_DUPLICATE);
        refused("c", T0, 404);
        /* A record that cannot be read has no events, whatever it holds (E2). */
        df_buf_printf(&b, "no record, but a");
        append(events, &b);
        expect("a", T0, 1, AD_COPY_SEALED, AD_DUPLICATE);
}

/* Written hours later, or with a clock that was put back: it is found further back, or ahead. */
static void test_seals_elsewhere(void **state)
{
        clock_now = T0 - 30 * 60000;
        seal_both(1, 0, 1);
        clock_now = T0;
        put("a", 1);
        clock_now += 100 * HOUR;
        put("b", 1);
        seal_both(2, 1, 2);
        expect("a", T0, 0, AD_COPY_SEALED, AD_COUNTED);
        expect("b", T0, 0, AD_COPY_SEALED, AD_COUNTED);
}

static void test_gone_and_damaged(void **state)
{
        struct df_buf b = {0};

        put("a", 1);
        put("b", 1);
        put("a", 1);
        seal_both(2, 1, 2); /* of checkpoint 1 nothing is left */
        expect("a", T0, 0, AD_COPY_EXPIRED, 0);
        expect("b", T0, 0, AD_COPY_SEALED, AD_COUNTED);
        quarantined(&b, 2, AD_CLOCK);
        seal(late, 3, 2, 3, NULL, false);
        seal(quarantine, 3, 2, 3, &b, true);
        seal_both(4, 3, 4);
        expect("a", T0, 1, AD_COPY_EXPIRED, 0);
}

/* Everything that is in the log now, as the archive job would. */
static void archive_all(struct df_objects *objects)
{
        struct df_segment_id id = {.topic = AD_TOPIC_EVENTS, .generation = generation};
        struct df_archive_options o = {.objects = objects, .limit = DF_SEGMENT_LIMIT_MIN};
        struct df_log_reader *r = NULL;
        struct df_archive_part *part = NULL;
        struct df_record records[64];
        size_t n = 1;

        ok(df_archive_open(&o, &id, &part, err));
        ok(df_log_reader_open(log_, AD_TOPIC_EVENTS, 0, 0, NULL, &r, err));
        while (n > 0) {
                ok(df_log_poll(r, records, 64, &n, err));
                for (size_t i = 0; i < n; i++)
                        ok(df_archive_add(part, &records[i], err));
        }
        df_log_reader_close(r);
        df_archive_close(part);
}

/* What has left the log is read from the archive; without one it is not known. */
static void test_from_the_archive(void **state)
{
        struct df_objects_options o = {0};
        struct df_objects *objects = NULL;
        struct ad_receipt_context c = context();
        struct ad_receipt_query q = {
                .tenant_id = df_bytes_str("t"), .event_id = df_bytes_str("a"), .from_ms = T0};
        uint64_t deleted = 0, first = 0, end = 0;
        struct ad_receipt r;
        struct ad_fault f;
        char place[300];

        (void)snprintf(place, sizeof(place), "dir:%s/archive", dir);
        o.place = place;
        ok(df_objects_open(&o, &objects, err));
        put("a", 1);
        for (int i = 0; i < 100; i++, clock_now += HOUR / 50)
                put_many("filling, so that segments end", i, 10);
        put("a", 1);
        seal_both(1, 0, 1002);
        archive_all(objects);
        ok(df_filelog_retain(log_, AD_TOPIC_EVENTS, clock_now - HOUR, &deleted, err));
        ok(df_log_bounds(log_, AD_TOPIC_EVENTS, 0, &first, &end, err));
        assert_true(first > 0 && end == 1002);
        expect("a", T0, 0, AD_COPY_EARLIER, 0); /* the second one, which alone is there */
        ok(df_archive_log_open(log_, objects, &c.source, err));
        assert_int_equal(ad_receipt_find(&c, &q, &r, &f), 0);
        assert_int_equal(r.told_count, 2);
        assert_int_equal(r.told[0]->outcome, AD_COUNTED);
        assert_int_equal(r.told[1]->outcome, AD_DUPLICATE);
        ad_receipt_release(&r);
        df_log_close(c.source);
        df_objects_close(objects);
}

/* ---- imports (R6) ---- */

/* What the view knows of it: so many events, of which so many were counted. */
static struct ad_source import_source(const char *tenant, uint64_t to, uint64_t counted)
{
        struct ad_source s = {.name = {.stream = IMPORT, .generation = 7},
                              .to_offset = to,
                              .events = to,
                              .is_import = true,
                              .closed = true};

        s.outcomes[AD_COUNTED] = counted;
        (void)snprintf(s.tenant, sizeof(s.tenant), "%s", tenant);
        return s;
}

/* Apart from `events`, and without a horizon: the first one of the topic was counted, whenever that
 * was, and the last one before a copy is what that is compared with. */
static void test_import_without_horizon(void **state)
{
        struct df_log_writer *w = import_open();
        struct df_buf b = {0};

        put_into(w, "a", 1, 1); /* 0 */
        clock_now += 100 * HOUR;
        put("a", 1);
        seal_both(1, 0, 1);
        put_into(w, "a", 1, 1); /* 1 */
        put_into(w, "a", 2, 1); /* 2 */
        put_into(w, "a", 2, 1); /* 3 */
        sealed = IMPORT;
        seal(late, 1, 0, 4, NULL, false);
        quarantined(&b, 2, AD_CONFLICT);
        seal(quarantine, 1, 0, 4, &b, false);
        expect("a", T0, 0, AD_COPY_SEALED, AD_COUNTED);
        expect("a", T0, 1, AD_COPY_SEALED, AD_COUNTED); /* the live one */
        expect("a", T0, 2, AD_COPY_SEALED, AD_DUPLICATE);
        expect("a", T0, 3, AD_COPY_SEALED, AD_CONFLICT);
        expect("a", T0, 4, AD_COPY_SEALED, AD_DUPLICATE);
        /* Asked from behind the first one, that is looked at all the same. */
        expect("a", clock_now, 1, AD_COPY_SEALED, AD_DUPLICATE);
        put_into(w, "a", 2, 1);
        expect("a", clock_now, 4, AD_COPY_PENDING, 0);
        df_log_writer_close(w);
}

/* Its seals have left `late` and `quarantine`: the view's sums say that all was counted, or not. */
static void test_import_by_the_view(void **state)
{
        struct ad_source source = import_source("t", 2, 2);
        struct ad_status status = {.sources = &source, .source_count = 1};
        struct df_log_writer *w = import_open();

        put_into(w, "a", 1, 1);
        put_into(w, "b", 1, 1);
        sealed = IMPORT;
        seal_both(2, 2, 3);
        expect("a", T0, 0, AD_COPY_EXPIRED, 0);
        known = &status;
        expect("a", T0, 0, AD_COPY_SEALED, AD_COUNTED);
        source.outcomes[AD_COUNTED] = 1; /* the other one was not */
        expect("a", T0, 0, AD_COPY_EXPIRED, 0);
        source.outcomes[AD_COUNTED] = 2;
        source.to_offset = 1;
        expect("b", T0, 0, AD_COPY_EXPIRED, 0);
        source = import_source("t", 2, 2);
        source.aborted = true;
        expect("a", T0, 0, AD_COPY_VOID, 0);
        source = import_source("another", 2, 2); /* a dataset is of one tenant: it is not read */
        refused("a", T0, 404);
        df_log_writer_close(w);
}

static void test_parameters(void **state)
{
        static const char id[] =
                "0123456789012345678901234567890123456789012345678901234567890123"
                "01234567890123456789012345678901234567890123456789012345678901234";
        struct df_bytes time = df_bytes_str("1970-01-01T00:00:01Z"), whole, longer;
        struct ad_receipt_params p = {0};
        struct ad_receipt_query q;
        struct ad_fault f;

        whole = df_bytes(id, AD_EVENT_ID_MAX);
        longer = df_bytes(id, AD_EVENT_ID_MAX + 1);
        assert_int_equal(ad_receipt_parse(&p, whole, T0, &q, &f), 0);
        assert_true(q.from_ms == T0 - 24 * HOUR && q.to_ms == 0 && q.at.topic.len == 0);
        assert_int_equal(ad_receipt_parse(&p, longer, T0, &q, &f), -1);
        assert_string_equal(f.code, "too_long");
        p.to = time;
        assert_int_equal(ad_receipt_parse(&p, whole, T0, &q, &f), 0);
        assert_true(q.from_ms == 1000 - 24 * HOUR && q.to_ms == 1000);
        p.from = time;
        assert_int_equal(ad_receipt_parse(&p, whole, T0, &q, &f), -1);
        assert_string_equal(f.code, "empty_range");
        p = (struct ad_receipt_params){.from = df_bytes("", 0)};
        assert_int_equal(ad_receipt_parse(&p, whole, T0, &q, &f), -1);
        assert_string_equal(f.code, "bad_time");
}

static void test_places(void **state)
{
        static const char *const bad[] = {"",
                                          "events",
                                          "events/",
                                          "events/1",
                                          "events/1/",
                                          "/1/2",
                                          "events/1/x",
                                          "events/-1/2",
                                          "events/1/2/",
                                          "events/1/2/3",
                                          "events/1/2 ",
                                          "events//2",
                                          "events/1/+2",
                                          "events/99999999999999999999/1",
                                          "events/1/4294967296"};
        struct ad_receipt_params p = {.from = df_bytes_str("1970-01-01T00:00:01Z")};
        struct ad_receipt_query q;
        struct ad_fault f;

        p.at = df_bytes_str(IMPORT "/9223372036854775807/999");
        assert_int_equal(ad_receipt_parse(&p, df_bytes_str("x"), T0, &q, &f), 0);
        assert_true(df_bytes_eq(q.at.topic, df_bytes_str(IMPORT)));
        assert_true(q.at.offset == INT64_MAX && q.at.index == 999 && q.from_ms == 1000);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                p.at = df_bytes_str(bad[i]);
                if (ad_receipt_parse(&p, df_bytes_str("x"), T0, &q, &f) == 0)
                        fail_msg("%s was taken", bad[i]);
                assert_string_equal(f.code, "bad_place");
        }
        p = (struct ad_receipt_params){.at = df_bytes_str("events/1/2")}; /* of when? */
        assert_int_equal(ad_receipt_parse(&p, df_bytes_str("x"), T0, &q, &f), -1);
        assert_string_equal(f.code, "bad_place");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parameters),
                cmocka_unit_test(test_places),
                cmocka_unit_test_setup_teardown(test_by_seals, setup, teardown),
                cmocka_unit_test_setup_teardown(test_seals_elsewhere, setup, teardown),
                cmocka_unit_test_setup_teardown(test_gone_and_damaged, setup, teardown),
                cmocka_unit_test_setup_teardown(test_from_the_archive, setup, teardown),
                cmocka_unit_test_setup_teardown(test_import_without_horizon, setup, teardown),
                cmocka_unit_test_setup_teardown(test_import_by_the_view, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
