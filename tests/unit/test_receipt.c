/* Receipts: reading late and quarantine by their seals when some are gone or damaged, imports, and
 * the limits. Whole receipts against the rules:
 * tests/e2e/test_receipts.py. */
#include "unit.h"

#include "df/archive.h"
#include "df/filelog.h"
#include "jobs/api/receipt.h"
#include "jobs/common/settings.h"
#include "state_test.h"

#define IMPORT AD_TOPIC_IMPORT_PREFIX "00000000000000aa"
#define HOUR 3600000LL
#define T0 (490000 * HOUR)
#define H 3

static char dir[256];
static struct df_log *log_;
static struct df_log_writer *events, *late, *quarantine;
static uint64_t generation;
static int64_t clock_now;
static uint64_t duplicates;                  /* that seals count */
static const char *sealed = AD_TOPIC_EVENTS; /* the topic that seals are of */
static const struct ad_status *known;

static int64_t clock_ms(void *arg)
{
        return clock_now;
}

static int on_topic(void *arg, const struct df_topic_info *info)
{
        if (strcmp(info->name, AD_TOPIC_EVENTS) == 0)
                generation = info->generation;
        return 0;
}

static int setup(void **state)
{
        struct df_filelog_options o = {.clock_ms = clock_ms,
                                       .segment_bytes = 4096,
                                       .reserve_bytes = 4096,
                                       .min_free_bytes = 1};

        clock_now = T0;
        duplicates = 1;
        sealed = AD_TOPIC_EVENTS;
        known = NULL;
        ok(df_filelog_open(temp_dir(dir), &o, &log_, err));
        ok(ad_create_topics(log_, 1, err));
        ok(df_log_topic_list(log_, AD_TOPIC_EVENTS, on_topic, NULL, err));
        ok(df_log_writer_open(log_, AD_TOPIC_EVENTS, &events, err));
        ok(df_log_writer_open(log_, AD_TOPIC_LATE, &late, err));
        ok(df_log_writer_open(log_, AD_TOPIC_QUARANTINE, &quarantine, err));
        return 0;
}

static int teardown(void **state)
{
        df_log_writer_close(events);
        df_log_writer_close(late);
        df_log_writer_close(quarantine);
        df_log_close(log_);
        remove_dir(dir);
        return 0;
}

/* ---- writing ---- */

static void append(struct df_log_writer *w, struct df_buf *b)
{
        struct df_append a = {.value = df_buf_bytes(b)};

        assert_false(b->failed);
        ok(df_log_append(w, &a, 1, err));
        df_buf_release(b);
}

/* So many copies, received when they are appended. */
static void put_into(struct df_log_writer *w, const char *id, int cost, int count)
{
        static struct df_append list[AD_RECEIPT_COPIES_MAX];
        struct ad_event ev = {.event_id = df_bytes_str(id),
                              .tenant_id = df_bytes_str("t"),
                              .type = AD_CLICK,
                              .flags = AD_EV_HAS_COST,
                              .cost_nanos = cost,
                              .event_ms = clock_now,
                              .receive_ms = clock_now};
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_buf one = {0}, record = {0};

        ev.fingerprint = (uint64_t)cost;
        ad_wire_event(&one, &ev);
        ad_wire_batch_entry(&record, df_buf_bytes(&one));
        ad_wire_batch_header(&record, &header);
        for (int i = 0; i < count; i++)
                list[i] = (struct df_append){.value = df_buf_bytes(&record)};
        ok(df_log_append(w, list, (size_t)count, err));
        df_buf_release(&record);
        df_buf_release(&one);
}

static void put_many(const char *id, int cost, int count)
{
        put_into(events, id, cost, count);
}

static void put(const char *id, int cost)
{
        put_many(id, cost, 1);
}

/* A collection of checkpoint k: payload may be NULL. */
static void seal(struct df_log_writer *w, uint64_t k, uint64_t from, uint64_t to,
                 struct df_buf *payload, bool damaged)
{
        struct df_origin o = {.source = {.generation = generation}, .k = k, .epoch = 1};
        struct df_seal s = {.from_offset = from, .to_offset = to, .max_append_ms = clock_now};

        (void)snprintf(o.source.stream, sizeof(o.source.stream), "%s", sealed);
        s.outcomes[AD_DUPLICATE] = duplicates;
        struct df_buf b = {0};

        if (payload) {
                df_output_encode(&b, &o, df_buf_bytes(payload));
                append(w, &b);
                s.rows = 1;
                s.rows_digest = df_digest_add(s.rows_digest, df_buf_bytes(payload));
                o.n = 1;
                df_buf_release(payload);
        }
        s.rows_digest.lo ^= damaged;
        b = (struct df_buf){0};
        df_output_encode_seal(&b, &o, &s);
        append(w, &b);
}

static void seal_both(uint64_t k, uint64_t from, uint64_t to)
{
        seal(late, k, from, to, NULL, false);
        seal(quarantine, k, from, to, NULL, false);
}

static void quarantined(struct df_buf *b, uint64_t offset, enum ad_reason reason)
{
        struct ad_quarantined q = {.offset = offset, .reason = reason};

        ad_wire_quarantined(b, &q);
}

/* ---- asking ---- */

static struct ad_receipt_context context(void)
{
        return (struct ad_receipt_context){
                .log = log_, .source = log_, .horizon_hours = H, .status = known};
}

static struct ad_receipt ask(const char *id, int64_t from_ms, int status)
{
        struct ad_receipt_context c = context();
        struct ad_receipt_query q = {
                .tenant_id = df_bytes_str("t"), .event_id = df_bytes_str(id), .from_ms = from_ms};
        struct ad_receipt r;
        struct ad_fault f = {.status = 200};

        (void)ad_receipt_find(&c, &q, &r, &f);
        if (f.status != status)
                fail_msg("%s: %d %s %s", id, f.status, f.code, f.message);
        return r;
}

static void refused(const char *id, int64_t from_ms, int status)
{
        struct ad_receipt r = ask(id, from_ms, status);

        ad_receipt_release(&r);
}

static void expect(const char *id, int64_t from_ms, size_t which, enum ad_copy_state state,
                   uint32_t outcome)
{
        struct ad_receipt r = ask(id, from_ms, 200);
        const struct ad_copy *c = which < r.told_count ? r.told[which] : NULL;

        if (!c || c->state != state || (state == AD_COPY_SEALED && c->outcome != outcome))
                fail_msg("%s, copy %zu of %zu: state %d, outcome %u; wanted %d, %u", id, which,
                         r.told_count, c ? (int)c->state : -1, c ? c->outcome : 0, (int)state,
                         outcome);
        ad_receipt_release(&r);
}

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

static struct df_log_writer *import_open(void)
{
        struct df_log_writer *w = NULL;

        ok(df_log_topic_create(log_, IMPORT, 1, err));
        ok(df_log_writer_open(log_, IMPORT, &w, err));
        return w;
}

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

/* Copies told and records read are limited for all topics together. */
static void test_import_limits(void **state)
{
        enum { MANY = 10000 };
        static struct df_append list[MANY];
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_log_writer *w = import_open();
        struct df_buf b = {0};
        struct ad_receipt r;

        put_many("a", 1, AD_RECEIPT_COPIES_MAX - 1);
        clock_now++;
        put_into(w, "a", 1, 1);
        r = ask("a", T0, 200);
        assert_int_equal(r.told_count, AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.import_count, 1);
        assert_string_equal(r.told[AD_RECEIPT_COPIES_MAX - 1]->in->info.name, IMPORT);
        assert_int_equal(r.more_from_ms, 0);
        ad_receipt_release(&r);
        clock_now++;
        put_into(w, "a", 1, 1);
        r = ask("a", T0, 200);
        assert_int_equal(r.told_count, AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.more_from_ms, clock_now);
        ad_receipt_release(&r);
        clock_now++;
        ad_wire_batch_header(&b, &header);
        for (int i = 0; i < MANY; i++)
                list[i] = (struct df_append){.value = df_buf_bytes(&b)};
        for (int i = 1; i < AD_RECEIPT_RECORDS_MAX / MANY; i++)
                ok(df_log_append(w, list, MANY, err));
        ok(df_log_append(w, list, MANY - 2, err));
        put("b", 1);
        put_into(w, "b", 1, 1);
        r = ask("b", clock_now, 200);
        assert_int_equal(r.records, AD_RECEIPT_RECORDS_MAX);
        assert_int_equal(r.told_count, 2);
        ad_receipt_release(&r);
        put("b", 1);
        refused("b", clock_now, 400);
        df_log_writer_close(w);
        df_buf_release(&b);
}

/* ---- limits ---- */

static void test_copies(void **state)
{
        struct ad_receipt r;

        put_many("a", 1, AD_RECEIPT_COPIES_MAX);
        clock_now++;
        put_many("a", 1, AD_RECEIPT_COPIES_MAX);
        seal_both(1, 0, 2 * AD_RECEIPT_COPIES_MAX + 1);
        r = ask("a", T0 + 1, 200);
        assert_int_equal(r.topics->before, AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.told_count, AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.more_from_ms, 0);
        assert_int_equal(r.told[0]->outcome, AD_DUPLICATE);
        ad_receipt_release(&r);
        clock_now++;
        put("a", 1);
        /* One more than are told; and one more before them than are kept. */
        r = ask("a", T0 + 1, 200);
        assert_int_equal(r.told_count, AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.more_from_ms, clock_now);
        ad_receipt_release(&r);
        r = ask("a", clock_now, 200);
        assert_true(r.topics->before > 0 && r.topics->before <= AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.told_count, 1);
        assert_int_equal(r.told[0]->outcome, AD_DUPLICATE);
        assert_int_equal(r.more_from_ms, 0);
        ad_receipt_release(&r);
}

static void test_records(void **state)
{
        enum { MANY = 10000 };
        static struct df_append list[MANY];
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_buf b = {0};
        struct ad_receipt r;

        put("a", 1);
        clock_now += HOUR;
        ad_wire_batch_header(&b, &header);
        for (int i = 0; i < MANY; i++)
                list[i] = (struct df_append){.value = df_buf_bytes(&b)};
        for (int i = 1; i < AD_RECEIPT_RECORDS_MAX / MANY; i++)
                ok(df_log_append(events, list, MANY, err));
        ok(df_log_append(events, list, MANY - 2, err));
        put("b", 1);
        seal_both(1, 0, AD_RECEIPT_RECORDS_MAX);
        expect("b", T0, 0, AD_COPY_SEALED, AD_COUNTED);
        put("b", 1);
        seal_both(2, AD_RECEIPT_RECORDS_MAX, AD_RECEIPT_RECORDS_MAX + 1);
        refused("b", T0, 400);
        /* The range fits, what is before it does not: said of the first copy, not of the second. */
        r = ask("b", T0 + HOUR, 200);
        assert_int_equal(r.topics->read_offset, 1);
        assert_int_equal(r.told[0]->state, AD_COPY_EARLIER);
        assert_int_equal(r.told[1]->outcome, AD_DUPLICATE);
        ad_receipt_release(&r);
        duplicates = 0;
        clock_now++;
        put("c", 1);
        seal_both(3, AD_RECEIPT_RECORDS_MAX + 1, AD_RECEIPT_RECORDS_MAX + 2);
        expect("c", clock_now, 0, AD_COPY_SEALED, AD_COUNTED);
        df_buf_release(&b);
}

static void test_parameters(void **state)
{
        static const char id[] =
                "0123456789012345678901234567890123456789012345678901234567890123"
                "01234567890123456789012345678901234567890123456789012345678901234";
        struct df_bytes none = df_bytes(NULL, 0), time = df_bytes_str("1970-01-01T00:00:01Z");
        struct ad_receipt_query q;
        struct ad_fault f;

        assert_int_equal(ad_receipt_parse(none, none, df_bytes(id, AD_EVENT_ID_MAX), T0, &q, &f),
                         0);
        assert_true(q.from_ms == T0 - 24 * HOUR && q.to_ms == 0);
        assert_int_equal(ad_receipt_parse(none, time, df_bytes(id, 1), T0, &q, &f), 0);
        assert_true(q.from_ms == 1000 - 24 * HOUR && q.to_ms == 1000);
        assert_int_equal(
                ad_receipt_parse(none, none, df_bytes(id, AD_EVENT_ID_MAX + 1), T0, &q, &f), -1);
        assert_string_equal(f.code, "too_long");
        assert_int_equal(ad_receipt_parse(time, time, df_bytes(id, 1), T0, &q, &f), -1);
        assert_string_equal(f.code, "empty_range");
        assert_int_equal(ad_receipt_parse(none, none, df_bytes(id, 1), T0, &q, &f), 0);
        assert_int_equal(ad_receipt_parse(df_bytes("", 0), none, df_bytes(id, 1), T0, &q, &f), -1);
        assert_string_equal(f.code, "bad_time");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_parameters),
                cmocka_unit_test_setup_teardown(test_by_seals, setup, teardown),
                cmocka_unit_test_setup_teardown(test_seals_elsewhere, setup, teardown),
                cmocka_unit_test_setup_teardown(test_gone_and_damaged, setup, teardown),
                cmocka_unit_test_setup_teardown(test_from_the_archive, setup, teardown),
                cmocka_unit_test_setup_teardown(test_import_without_horizon, setup, teardown),
                cmocka_unit_test_setup_teardown(test_import_by_the_view, setup, teardown),
                cmocka_unit_test_setup_teardown(test_import_limits, setup, teardown),
                cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
                cmocka_unit_test_setup_teardown(test_records, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
