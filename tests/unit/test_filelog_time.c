/* test_filelog_time.c - an offset by append time, and a topic's deletion (df/log.h). The oracle is
 * a plain array of what was appended when. */
#include "tests/unit/filelog_test.h"

static int64_t now_ms;

static int64_t test_clock(void *arg)
{
        (void)arg;
        return now_ms;
}

static struct df_log *open_clocked(void)
{
        struct df_filelog_options o = small_options();

        o.segment_bytes = 4096;
        o.clock_ms = test_clock;
        return open_log(&o);
}

static uint64_t naive(const int64_t *times, uint64_t count, int64_t ms)
{
        uint64_t i = 0;

        while (i < count && times[i] < ms)
                i++;
        return i;
}

static void test_offsets_by_time(void **state)
{
        enum { COUNT = 600 };
        int64_t times[COUNT];
        struct df_log *log = open_clocked();
        struct dfi_seg_list list = {0};
        struct df_log_writer *w;
        uint64_t count = 0, at;

        (void)state;
        seed_test(11);
        now_ms = 1000;
        ok(df_log_topic_create(log, "t", 2, &err));
        w = open_writer(log, "t");
        ok(df_log_offset_at(log, "t", 0, 5, &at, &err));
        assert_int_equal(at, 0);
        while (count < COUNT) {
                uint8_t bytes[301];
                struct df_append items[5];
                size_t n = 1 + rnd() % 5;

                now_ms += (int64_t)(rnd() % 4) * 10;
                for (size_t i = 0; i < sizeof(bytes); i++)
                        bytes[i] = (uint8_t)(rnd() >> 24);
                for (size_t i = 0; i < n; i++)
                        items[i] = (struct df_append){.value = df_bytes(bytes, sizeof(bytes))};
                ok(df_log_append(w, items, n, &err));
                for (size_t i = 0; i < n && count < COUNT; i++)
                        times[count++] = items[i].ret_append_ms;
        }
        assert_true(list_segments(log, "t", 0, &list) > 20);
        dfi_seg_list_release(&list);
        for (int64_t ms = 990; ms < now_ms; ms += 5) {
                ok(df_log_offset_at(log, "t", 0, ms, &at, &err));
                if (naive(times, count, ms) < count && at != naive(times, count, ms))
                        fail_msg("seed 11: at %" PRId64 ": %" PRIu64 ", recount %" PRIu64, ms, at,
                                 naive(times, count, ms));
        }
        ok(df_log_offset_at(log, "t", 1, 0, &at, &err)); /* nothing there */
        assert_int_equal(at, 0);
        ok(df_log_offset_at(log, "t", 0, now_ms + 1, &at, &err));
        assert_true(at >= count); /* the end */
        fails(df_log_offset_at(log, "none", 0, 0, &at, &err), DF_ENOENT, "none");
        df_log_writer_close(w);
        df_log_close(log);
}

static int count_topic(void *arg, const struct df_topic_info *info)
{
        (void)info;
        (*(int *)arg)++;
        return 0;
}

static void test_a_topic_is_deleted_whole(void **state)
{
        struct df_log *log = open_clocked();
        struct df_append item = {.value = df_bytes("x", 1)};
        struct df_log_writer *w;
        struct df_log_reader *r;
        uint64_t first, end;
        int topics = 0;

        (void)state;
        now_ms = 1;
        ok(df_log_topic_create(log, "a", 1, &err));
        ok(df_log_topic_create(log, "b", 1, &err));
        w = open_writer(log, "a");
        ok(df_log_append(w, &item, 1, &err));
        fails(df_log_topic_delete(log, "a", &err), DF_EFENCED, "");
        df_log_writer_close(w);
        r = open_reader(log, "a", 0, 0, "someone"); /* makes the consumer's directory */
        df_log_reader_close(r);
        ok(df_log_topic_delete(log, "a", &err));
        ok(df_log_topic_delete(log, "a", &err));
        ok(df_log_topic_list(log, "", count_topic, &topics, &err));
        assert_int_equal(topics, 1);
        ok(df_log_topic_create(log, "a", 1, &err)); /* anew, and empty */
        ok(df_log_bounds(log, "a", 0, &first, &end, &err));
        assert_int_equal(end, 0);
        df_log_close(log);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_dir, teardown_dir)
        const struct CMUnitTest tests[] = {
                T(test_offsets_by_time),
                T(test_a_topic_is_deleted_whole),
        };

        return cmocka_run_group_tests_name("filelog_time", tests, NULL, NULL);
}
