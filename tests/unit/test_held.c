/* What `adtally quarantine` reads: entries by their seals, filters, releases, damage, and the
 * limit. The command itself: tests/e2e/test_receipts.py. */
#include "unit.h"

#include "df/filelog.h"
#include "df/seal.h"
#include "jobs/adtally/quarantine.h"
#include "state_test.h"

#define T0 1764000000000LL

static char dir[256];
static struct df_log *log_;
static struct df_log_writer *events, *quarantine;
static uint64_t generation, last_k;

static int on_topic(void *arg, const struct df_topic_info *info)
{
        if (strcmp(info->name, AD_TOPIC_EVENTS) == 0)
                generation = info->generation;
        return 0;
}

static int setup(void **state)
{
        struct df_filelog_options o = {.reserve_bytes = 4096, .min_free_bytes = 1};

        last_k = 0;
        ok(df_filelog_open(temp_dir(dir), &o, &log_, err));
        ok(ad_create_topics(log_, 2, err));
        ok(df_log_topic_list(log_, AD_TOPIC_EVENTS, on_topic, NULL, err));
        ok(df_log_writer_open(log_, AD_TOPIC_EVENTS, &events, err));
        ok(df_log_writer_open(log_, AD_TOPIC_QUARANTINE, &quarantine, err));
        return 0;
}

static int teardown(void **state)
{
        df_log_writer_close(events);
        df_log_writer_close(quarantine);
        df_log_close(log_);
        remove_dir(dir);
        return 0;
}

static void append(struct df_log_writer *w, uint32_t partition, struct df_buf *b)
{
        struct df_append a = {.partition = partition, .value = df_buf_bytes(b)};

        assert_false(b->failed);
        ok(df_log_append(w, &a, 1, err));
        df_buf_release(b);
}

static void entry(struct df_buf *b, uint64_t offset, enum ad_reason reason, const char *id,
                  int64_t append_ms)
{
        struct ad_quarantined q = {.offset = offset,
                                   .index = 1,
                                   .whole_record = reason == AD_POISON,
                                   .reason = reason,
                                   .append_ms = append_ms,
                                   .tenant_id = df_bytes_str("t"),
                                   .event_id = df_bytes_str(id),
                                   .head = df_bytes_str("head"),
                                   .size = 4};

        ad_wire_quarantined(b, &q);
}

/* One checkpoint's collection, of as many payloads. */
static void collection(const char *stream, uint32_t partition, struct df_buf *payloads,
                       size_t count, bool damaged)
{
        struct df_origin o = {.k = ++last_k, .epoch = 1};
        struct df_seal s = {.rows = (uint32_t)count};
        struct df_buf b;

        (void)snprintf(o.source.stream, sizeof(o.source.stream), "%s", stream);
        o.source.generation = generation;
        o.source.partition = partition;
        for (size_t i = 0; i < count; i++, o.n++) {
                b = (struct df_buf){0};
                df_output_encode(&b, &o, df_buf_bytes(&payloads[i]));
                append(quarantine, partition, &b);
                s.rows_digest = df_digest_add(s.rows_digest, df_buf_bytes(&payloads[i]));
        }
        s.rows_digest.lo ^= damaged;
        b = (struct df_buf){0};
        df_output_encode_seal(&b, &o, &s);
        append(quarantine, partition, &b);
        for (size_t i = 0; i < count; i++)
                df_buf_release(&payloads[i]);
}

static struct ad_held_filter all(void)
{
        return (struct ad_held_filter){
                .from_ms = INT64_MIN, .to_ms = INT64_MAX, .partition = -1, .index = -1};
}

static void count(const struct ad_held_filter *f, size_t selected)
{
        struct ad_held_list l;

        ok(ad_held_read(log_, f, false, true, &l, err));
        assert_int_equal(l.selected, selected);
        for (size_t i = 0; i < l.count; i++)
                assert_int_equal(l.list[i].head.len, l.list[i].selected ? 4 : 0);
        ad_held_release_list(&l);
}

static void fill(void)
{
        struct df_buf b[2] = {{0}, {0}};

        entry(&b[0], 7, AD_CLOCK, "a", T0);
        entry(&b[1], 9, AD_CONFLICT, "b", T0 + 10);
        entry(&b[1], 9, AD_POISON, "", T0 + 10);
        collection(AD_TOPIC_EVENTS, 0, b, 2, false);
        entry(&b[0], 3, AD_CLOCK, "c", T0 + 20);
        collection(AD_TOPIC_EVENTS, 1, b, 1, false);
        entry(&b[0], 7, AD_INVALID, "d", T0 + 20);
        collection("import.1", 0, b, 1, false);
}

static void test_filters(void **state)
{
        struct ad_held_filter f = all();
        struct ad_held_list l;

        fill();
        count(&f, 5);
        f.reason = AD_CLOCK;
        count(&f, 2);
        f.partition = 1;
        count(&f, 1);
        f = all();
        f.from_ms = T0 + 10;
        f.to_ms = T0 + 20;
        count(&f, 2);
        f = all();
        f.event_id = df_bytes_str("d");
        count(&f, 1);
        f.tenant_id = df_bytes_str("u");
        count(&f, 0);
        /* A place is one of the live topic: the import's entry at 0/7 is another. */
        f = all();
        f.partition = 0;
        f.at = true;
        f.offset = 7;
        count(&f, 1);
        f.index = 2;
        count(&f, 0);
        f = all();
        f.partition = 2;
        refuses(DF_ENOENT, "partitions 0 to 1", ad_held_read(log_, &f, false, false, &l, err));
        ad_held_release_list(&l);
        f = all();
        ok(ad_held_read(log_, &f, false, false, &l, err));
        assert_true(df_bytes_eq(l.list[0].stream, df_bytes_str("import.1")));
        assert_true(df_bytes_eq(ad_held_at(&l, 0, 7, 1)->event_id, df_bytes_str("a")));
        assert_null(ad_held_at(&l, 0, 7, 0));
        ad_held_release_list(&l);
}

static void released(const char *source, int64_t receive_ms)
{
        struct ad_event ev = {.event_id = df_bytes_str("x"),
                              .tenant_id = df_bytes_str("t"),
                              .source = df_bytes_str(source),
                              .receive_ms = receive_ms};
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_buf b = {0}, one = {0};

        ad_wire_event(&one, &ev);
        ad_wire_batch_entry(&b, df_buf_bytes(&one));
        ad_wire_batch_header(&b, &header);
        append(events, 0, &b);
        df_buf_release(&one);
}

static void test_releases(void **state)
{
        static const char *const none[] = {
                "http",           "release:",      "release:0/9",
                "release:0/9/1x", "release:0/8/1", "release:99999999999/9/1"};
        struct ad_held_filter f = all();
        struct ad_held_list l;

        fill();
        for (int i = 0; i < 7; i++)
                released("release:0/7/1", 1); /* before the entry, as it cannot be: not looked at */
        for (size_t i = 0; i < sizeof(none) / sizeof(none[0]); i++)
                released(none[i], 2);
        ok(ad_held_read(log_, &f, false, false, &l, err));
        ok(ad_held_find_released(log_, &l, true, err));
        for (size_t i = 0; i < l.count; i++)
                assert_true(l.list[i].released_offset == UINT64_MAX);
        ad_held_release_list(&l);
        released("release:0/9/1", 3);
        released("release:0/7/1", 4);
        released("release:0/7/1", 5);
        ok(ad_held_read(log_, &f, false, false, &l, err));
        ok(ad_held_find_released(log_, &l, true, err));
        assert_int_equal(ad_held_at(&l, 0, 7, 1)->released_ms, 5); /* the newest */
        assert_int_equal(ad_held_at(&l, 0, 7, 1)->released_offset, 15);
        assert_int_equal(ad_held_at(&l, 0, 9, 1)->released_ms, 3);
        assert_true(ad_held_at(&l, 1, 3, 1)->released_offset == UINT64_MAX);
        ad_held_release_list(&l);
}

static void test_damage_is_told(void **state)
{
        struct ad_held_filter f = all();
        struct df_buf b = {0};
        struct ad_held_list l;

        fill();
        entry(&b, 20, AD_CLOCK, "e", T0 + 30);
        collection(AD_TOPIC_EVENTS, 0, &b, 1, true);
        ok(ad_held_read(log_, &f, false, false, &l, err));
        assert_int_equal(l.selected, 5);
        assert_int_equal(l.damaged, 1);
        ad_held_release_list(&l);
}

static void test_limit(void **state)
{
        enum { EACH = 20000, MANY = AD_HELD_MAX / EACH };
        static struct df_buf b[MANY];
        struct ad_held_filter f = all();
        struct ad_held_list l;

        for (uint64_t i = 0; i < AD_HELD_MAX; i++)
                entry(&b[i / EACH], i, AD_CLOCK, "e", T0);
        collection(AD_TOPIC_EVENTS, 0, b, MANY, false);
        count(&f, AD_HELD_MAX);
        entry(&b[0], AD_HELD_MAX, AD_CLOCK, "e", T0);
        collection(AD_TOPIC_EVENTS, 0, b, 1, false);
        refuses(DF_EINVAL, "more than 1000000 entries",
                ad_held_read(log_, &f, false, false, &l, err));
        ad_held_release_list(&l);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_filters, setup, teardown),
                cmocka_unit_test_setup_teardown(test_releases, setup, teardown),
                cmocka_unit_test_setup_teardown(test_damage_is_told, setup, teardown),
                cmocka_unit_test_setup_teardown(test_limit, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
