/* Limits of receipts, and pages: each copy is told once, however many were taken in a millisecond.
 * The oracle is the list of what was written. */
#include "receipt_test.h"

#include <inttypes.h>
#include <time.h>

#define OTHER AD_TOPIC_IMPORT_PREFIX "00000000000000bb"
#define COPIES_MAX 6000 /* of the pages test */

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
        assert_int_equal(r.more.from_ms, 0);
        ad_receipt_release(&r);
        clock_now++;
        put_into(w, "a", 1, 1);
        r = ask("a", T0, 200);
        assert_int_equal(r.told_count, AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.more.from_ms, clock_now);
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
        assert_int_equal(r.more.from_ms, 0);
        assert_int_equal(r.told[0]->outcome, AD_DUPLICATE);
        ad_receipt_release(&r);
        clock_now++;
        put("a", 1);
        /* One more than are told; and one more before them than are kept. */
        r = ask("a", T0 + 1, 200);
        assert_int_equal(r.told_count, AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.more.from_ms, clock_now);
        ad_receipt_release(&r);
        r = ask("a", clock_now, 200);
        assert_true(r.topics->before > 0 && r.topics->before <= AD_RECEIPT_COPIES_MAX);
        assert_int_equal(r.told_count, 1);
        assert_int_equal(r.told[0]->outcome, AD_DUPLICATE);
        assert_int_equal(r.more.from_ms, 0);
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

/* ---- pages ---- */

struct written {
        int64_t ms;
        int topic; /* 0: events; imports by name */
        uint64_t offset;
        uint32_t index;
};
static uint64_t seed, dice;
static struct written written[COPIES_MAX];
static size_t written_count;
static uint64_t ends[3];

static int by_order(const void *x, const void *y)
{
        const struct written *a = x, *b = y;

        if (a->ms != b->ms)
                return a->ms < b->ms ? -1 : 1;
        if (a->topic != b->topic)
                return a->topic - b->topic;
        if (a->offset != b->offset)
                return a->offset < b->offset ? -1 : 1;
        return (a->index > b->index) - (a->index < b->index);
}

/* A record of some events, most of them copies of one. */
static void put_mixed(struct df_log_writer *w, int topic)
{
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_buf one = {0}, record = {0};
        uint32_t count = 1 + (uint32_t)below(&dice, below(&dice, 20) ? 8 : 900);

        for (uint32_t i = 0; i < count; i++) {
                bool copy = below(&dice, 8) > 0 && written_count < COPIES_MAX;
                struct ad_event ev = {.event_id = df_bytes_str(copy ? "a" : "b"),
                                      .tenant_id = df_bytes_str("t"),
                                      .type = AD_CLICK,
                                      .flags = AD_EV_HAS_COST,
                                      .cost_nanos = 1,
                                      .event_ms = clock_now,
                                      .receive_ms = clock_now,
                                      .fingerprint = 1};

                if (copy)
                        written[written_count++] =
                                (struct written){clock_now, topic, ends[topic], i};
                df_buf_clear(&one);
                ad_wire_event(&one, &ev);
                ad_wire_batch_entry(&record, df_buf_bytes(&one));
        }
        ad_wire_batch_header(&record, &header);
        append(w, &record);
        df_buf_release(&one);
        ends[topic]++;
}

/* The next page, checked against what was written; false: it was the last. */
static bool check_page(size_t *at, bool *events_told, char topic[DF_TOPIC_NAME_MAX + 1],
                       struct ad_receipt_query *q)
{
        static const char *const names[] = {AD_TOPIC_EVENTS, IMPORT, OTHER};
        struct ad_receipt_context c = context();
        struct ad_fault f = {0};
        struct ad_receipt r;
        size_t left = written_count - *at;
        bool more;

        if (ad_receipt_find(&c, q, &r, &f) < 0)
                fail_msg("seed %" PRIu64 ", copy %zu: %s %s", seed, *at, f.code, f.message);
        if (r.told_count != (left < AD_RECEIPT_COPIES_MAX ? left : AD_RECEIPT_COPIES_MAX))
                fail_msg("seed %" PRIu64 ": %zu of %zu told at %zu", seed, r.told_count,
                         written_count, *at);
        for (size_t i = 0; i < r.told_count; i++, (*at)++) {
                const struct written *w = &written[*at];
                const struct ad_copy *got = r.told[i];

                if (got->ev.append_ms != w->ms || got->ev.offset != w->offset ||
                    got->ev.index != w->index || strcmp(got->in->info.name, names[w->topic]) != 0)
                        fail_msg("seed %" PRIu64 ": copy %zu is another one", seed, *at);
                if (w->topic > 0)
                        continue;
                if (got->state != AD_COPY_SEALED ||
                    got->outcome != (*events_told ? AD_DUPLICATE : AD_COUNTED))
                        fail_msg("seed %" PRIu64 ": copy %zu: state %d, outcome %u", seed, *at,
                                 (int)got->state, got->outcome);
                *events_told = true;
        }
        more = r.more.from_ms != 0;
        if (more) {
                q->from_ms = r.more.from_ms;
                q->at = r.more.at;
                (void)snprintf(topic, DF_TOPIC_NAME_MAX + 1, "%.*s", (int)r.more.at.topic.len,
                               (const char *)r.more.at.topic.data);
                q->at.topic = df_bytes_str(topic);
        }
        ad_receipt_release(&r);
        return more;
}

static void test_pages(void **state)
{
        struct ad_receipt_query q = {
                .tenant_id = df_bytes_str("t"), .event_id = df_bytes_str("a"), .from_ms = T0};
        struct df_log_writer *w[3] = {events, NULL, import_open()};
        char topic[DF_TOPIC_NAME_MAX + 1];
        size_t at = 0, pages = 1;
        bool events_told = false;

        /* The import that comes first by name was made last. */
        w[1] = w[2];
        ok(df_log_topic_create(log_, OTHER, 1, err));
        ok(df_log_writer_open(log_, OTHER, &w[2], err));
        dice = seed;
        written_count = 0;
        memset(ends, 0, sizeof(ends));
        while (written_count < COPIES_MAX) {
                int which = (int)below(&dice, 3);

                put_mixed(w[which], which);
                clock_now += below(&dice, 400) == 0;
        }
        seal_both(1, 0, ends[0]);
        qsort(written, written_count, sizeof(written[0]), by_order);
        while (check_page(&at, &events_told, topic, &q))
                pages++;
        assert_int_equal(at, written_count);
        assert_int_equal(pages, COPIES_MAX / AD_RECEIPT_COPIES_MAX);
        df_log_writer_close(w[1]);
        df_log_writer_close(w[2]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_import_limits, setup, teardown),
                cmocka_unit_test_setup_teardown(test_copies, setup, teardown),
                cmocka_unit_test_setup_teardown(test_records, setup, teardown),
                cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
        };

        const char *given = getenv("TEST_SEED");

        seed = given ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
