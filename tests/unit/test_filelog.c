/* The file log where nothing goes wrong: L1 (order, group commit, one writer), L2 (retention,
 * registrations), E1 (generation), T2 (append time), limits. */
#include "filelog_test.h"

#include <sys/resource.h>

static void test_E1_topics(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        struct df_log_reader *r;
        uint64_t first, end;
        static const char *const bad[] = {"",    "A",   ".a",       "-a", "_a",     "a/b", "../x",
                                          "a b", "a\n", "\xc3\xa4", "..", ".new-a", "a*",  "a:b"};
        char name[DF_TOPIC_NAME_MAX + 2];

        for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
                fails(df_log_topic_create(log, bad[i], 1, &err), DF_EINVAL, "topic name");
                fails(df_log_writer_open(log, bad[i], &w, &err), DF_EINVAL, "topic name");
        }
        memset(name, 'a', sizeof(name));
        name[DF_TOPIC_NAME_MAX + 1] = 0;
        fails(df_log_topic_create(log, name, 1, &err), DF_EINVAL, "topic name");
        name[DF_TOPIC_NAME_MAX] = 0;
        ok(df_log_topic_create(log, name, 1, &err));
        fails(df_log_topic_create(log, "t", 0, &err), DF_ELIMIT, "partitions");
        fails(df_log_topic_create(log, "t", DF_PARTITIONS_MAX + 1, &err), DF_ELIMIT, "257");
        fails(df_log_writer_open(log, "t", &w, &err), DF_ENOENT, "no topic t");
        fails(df_log_reader_open(log, "t", 0, 0, NULL, &r, &err), DF_ENOENT, "no topic t");
        fails(df_log_bounds(log, "t", 0, &first, &end, &err), DF_ENOENT, "no topic t");
        ok(df_log_topic_create(log, "t", 3, &err));
        ok(df_log_topic_create(log, "t", 3, &err));
        fails(df_log_topic_create(log, "t", 4, &err), DF_ESCHEMA, "has 3 partitions, not 4");
        fails(df_log_bounds(log, "t", 3, &first, &end, &err), DF_EINVAL, "partitions 0 to 2");
        ok(df_log_bounds(log, "t", 2, &first, &end, &err));
        assert_int_equal(first, 0);
        assert_int_equal(end, 0);
        df_log_close(log);
}

struct listed {
        struct df_topic_info infos[8];
        size_t count;
};

static int collect(void *arg, const struct df_topic_info *info)
{
        struct listed *l = arg;

        l->infos[l->count++] = *info;
        return l->count == 8 ? DF_ELIMIT : 0;
}

/* A topic made anew is another generation; a half-made one is not seen. */
static void test_E1_generation(void **state)
{
        struct df_log *log = open_log(NULL);
        struct listed a = {0}, b = {0}, c = {0};
        char path[DFI_PATH_MAX];

        ok(df_log_topic_create(log, "events.b", 2, &err));
        ok(df_log_topic_create(log, "events.a", 1, &err));
        ok(df_log_topic_create(log, "other", 1, &err));
        dfi_path(path, "%s/topics/.new-half", test_dir);
        assert_int_equal(mkdir(path, 0755), 0);
        ok(df_log_topic_list(log, "events.", collect, &a, &err));
        assert_int_equal(a.count, 2);
        assert_string_equal(a.infos[0].name, "events.a");
        assert_string_equal(a.infos[1].name, "events.b");
        assert_int_equal(a.infos[1].partitions, 2);
        assert_true(a.infos[0].generation != 0);
        assert_true(a.infos[0].generation != a.infos[1].generation);
        dfi_path(path, "%s/topics/events.a", test_dir);
        remove_dir(path);
        ok(df_log_topic_create(log, "events.a", 1, &err));
        ok(df_log_topic_create(log, "half", 1, &err));
        ok(df_log_topic_list(log, "", collect, &b, &err));
        assert_int_equal(b.count, 4);
        assert_true(b.infos[0].generation != a.infos[0].generation);
        assert_true(b.infos[1].generation == a.infos[1].generation);
        assert_string_equal(b.infos[2].name, "half");
        c.count = 7;
        fails(df_log_topic_list(log, "", collect, &c, &err), DF_ELIMIT, "");
        df_log_close(log);
}

/* L1: what was acknowledged is read back in order, over segments and restarts. */
static void test_L1_roundtrip(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        struct dfi_seg_list list;
        struct model m = {0};

        seed_test(11);
        ok(df_log_topic_create(log, "t", 3, &err));
        for (int start = 0; start < 12; start++) {
                struct df_filelog_recovery found;

                w = open_writer(log, "t");
                df_filelog_recovery(w, &found);
                assert_int_equal(found.cut_partitions, 0);
                for (int i = 0; i < 12; i++)
                        append_random(w, &m, 3, 1 + (size_t)(rnd() % 20), i % 4 ? 300 : 5000);
                check_model(log, "t", &m, 3);
                df_log_writer_close(w);
                if (start % 3 == 0) {
                        df_log_close(log);
                        log = open_log(NULL);
                }
                check_model(log, "t", &m, 3);
        }
        assert_true(list_segments(log, "t", 0, &list) > 10);
        dfi_seg_list_release(&list);
        for (uint32_t p = 0; p < 3; p++) {
                uint64_t records = 0;

                ok(df_filelog_verify(log, "t", p, NULL, NULL, &records, &err));
                assert_int_equal(records, m.count[p]);
        }
        df_log_close(log);
        model_release(&m);
}

/* One append larger than a frame and than a segment. */
static void test_L1_large_append(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        struct model m = {0};

        seed_test(12);
        ok(df_log_topic_create(log, "t", 2, &err));
        w = open_writer(log, "t");
        append_random(w, &m, 2, 30, DF_LOG_RECORD_MAX);
        append_random(w, &m, 2, 5, 10);
        check_model(log, "t", &m, 2);
        df_log_writer_close(w);
        w = open_writer(log, "t");
        append_random(w, &m, 2, 5, 10);
        df_log_writer_close(w);
        check_model(log, "t", &m, 2);
        df_log_close(log);
        model_release(&m);
}

static void test_limits(void **state)
{
        struct df_log *log = open_log(NULL);
        uint8_t *big = calloc(1, DF_LOG_RECORD_MAX + 1);
        struct df_append items[3] = {{.partition = 0, .value = df_bytes(big, 4)},
                                     {.partition = 1, .value = df_bytes(big, DF_LOG_RECORD_MAX)},
                                     {.partition = 0, .value = df_bytes(big, 0)}};
        struct df_log_writer *w;
        struct model m = {0};

        assert_non_null(big);
        seed_test(13);
        fill_bytes(big, DF_LOG_RECORD_MAX + 1);
        ok(df_log_topic_create(log, "t", 2, &err));
        w = open_writer(log, "t");
        ok(df_log_append(w, items, 0, &err));
        ok(df_log_append(w, items, 3, &err));
        model_add(&m, 0, items[0].value, items[0].ret_append_ms);
        model_add(&m, 1, items[1].value, items[1].ret_append_ms);
        model_add(&m, 0, items[2].value, items[2].ret_append_ms);
        items[1].value.len++;
        fails(df_log_append(w, items, 3, &err), DF_ELIMIT, "1048577 bytes");
        items[1].value.len = 1;
        items[1].partition = 2;
        fails(df_log_append(w, items, 3, &err), DF_EINVAL, "partitions 0 to 1, not 2");
        check_model(log, "t", &m, 2); /* a refused call stored nothing */
        df_log_writer_close(w);
        df_log_close(log);
        model_release(&m);
        free(big);
}

/* L1: one writer a topic, within and across processes. */
static void test_L1_second_writer_is_fenced(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w, *w2;
        int status;
        pid_t pid;

        ok(df_log_topic_create(log, "t", 1, &err));
        ok(df_log_topic_create(log, "u", 1, &err));
        w = open_writer(log, "t");
        fails(df_log_writer_open(log, "t", &w2, &err), DF_EFENCED, "locked");
        w2 = open_writer(log, "u");
        df_log_writer_close(w2);
        pid = fork();
        if (pid == 0) {
                struct df_log *own = NULL;
                int rc = df_filelog_open(test_dir, NULL, &own, NULL);

                if (rc == 0)
                        rc = df_log_writer_open(own, "t", &w2, NULL);
                _exit(rc == DF_EFENCED ? 0 : 1);
        }
        assert_true(pid > 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        df_log_writer_close(w);
        w = open_writer(log, "t");
        df_log_writer_close(w);
        df_log_close(log);
}

static int64_t fake_ms;

static int64_t fake_clock(void *arg)
{
        return fake_ms;
}

static int64_t last_ms(struct model *m, uint32_t p)
{
        return m->items[p][m->count[p] - 1].append_ms;
}

/* T2: the append time never goes back, also over a restart, until the operator says so. */
static void test_T2_append_time(void **state)
{
        struct df_filelog_options o = small_options();
        struct df_log *log;
        struct df_log_writer *w;
        struct model m = {0};

        o.clock_ms = fake_clock;
        log = open_log(&o);
        ok(df_log_topic_create(log, "t", 2, &err));
        w = open_writer(log, "t");
        assert_int_equal(df_filelog_last_append_ms(w), 0);
        fake_ms = 5000;
        append_text(w, &m, 0, "a");
        fake_ms = 4000;
        append_text(w, &m, 0, "b");
        append_text(w, &m, 1, "c");
        assert_int_equal(last_ms(&m, 0), 5000);
        assert_int_equal(last_ms(&m, 1), 4000);
        assert_int_equal(df_filelog_last_append_ms(w), 5000);
        df_log_writer_close(w);
        w = open_writer(log, "t");
        assert_int_equal(df_filelog_last_append_ms(w), 5000);
        append_text(w, &m, 0, "d");
        assert_int_equal(last_ms(&m, 0), 5000);
        df_filelog_clock_restart(w);
        append_text(w, &m, 1, "e");
        append_text(w, &m, 0, "f");
        assert_int_equal(last_ms(&m, 0), 4000);
        assert_int_equal(df_filelog_last_append_ms(w), 4000);
        fake_ms = 3000;
        append_text(w, &m, 0, "g");
        assert_int_equal(last_ms(&m, 0), 4000);
        df_log_writer_close(w);
        check_model(log, "t", &m, 2);
        df_log_close(log);
        model_release(&m);
}

struct usage_seen {
        uint64_t data, slow, fast;
};

static int see_usage(void *arg, const char *topic, const char *holder, uint64_t bytes)
{
        struct usage_seen *u = arg;

        assert_string_equal(topic, "t");
        if (strcmp(holder, "data") == 0)
                u->data = bytes;
        else if (strcmp(holder, "consumer:slow") == 0)
                u->slow = bytes;
        else if (strcmp(holder, "consumer:fast") == 0)
                u->fast = bytes;
        else
                fail_msg("holder %s", holder);
        return 0;
}

/* What a naive rule deletes: leading segments, never the newest, wholly before both limits. */
static uint64_t expect_first(const struct dfi_seg_list *list, const struct model *m,
                             uint64_t position, int64_t keep_from_ms, uint64_t *bytes)
{
        size_t i = 0;

        for (*bytes = 0; i + 1 < list->count; i++) {
                uint64_t end = list->items[i + 1].base;

                if (end > position || m->items[0][end - 1].append_ms >= keep_from_ms)
                        break;
                *bytes += list->items[i].bytes;
        }
        return list->items[i].base;
}

static void retain_and_check(struct df_log *log, const struct model *m, uint64_t position,
                             int64_t keep_from_ms)
{
        uint64_t first, end, want_first, want_bytes, bytes = 99;
        struct dfi_seg_list list;

        (void)list_segments(log, "t", 0, &list);
        want_first = expect_first(&list, m, position, keep_from_ms, &want_bytes);
        dfi_seg_list_release(&list);
        ok(df_filelog_retain(log, "t", keep_from_ms, &bytes, &err));
        assert_int_equal(bytes, want_bytes);
        ok(df_log_bounds(log, "t", 0, &first, &end, &err));
        assert_int_equal(first, want_first);
        assert_int_equal(end, m->count[0]);
        check_partition(log, "t", m, 0, first);
}

/* L2: retention never passes a registered consumer; a lapsed lease and a drop end the hold. */
static void test_L2_retention(void **state)
{
        struct df_filelog_options o = small_options();
        struct df_log_reader *slow, *fast, *r;
        struct usage_seen u = {0};
        struct df_log_writer *w;
        struct df_log *log;
        struct model m = {0};
        uint64_t first, end;

        seed_test(14);
        o.clock_ms = fake_clock;
        o.lease_ms = 100000;
        fake_ms = 1000;
        log = open_log(&o);
        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        slow = open_reader(log, "t", 0, 0, "slow");
        fast = open_reader(log, "t", 0, DF_OFFSET_END, "fast");
        for (int i = 0; i < 200; i++, fake_ms += 10)
                append_random(w, &m, 1, 1 + (size_t)(rnd() % 5), 600);
        retain_and_check(log, &m, 0, INT64_MAX);
        ok(df_log_release(fast, 400, &err));
        retain_and_check(log, &m, 0, INT64_MAX);
        ok(df_filelog_usage(log, see_usage, &u, &err));
        assert_true(u.slow > 0 && u.slow < u.data);
        assert_int_equal(u.fast, 0);
        ok(df_log_release(slow, 150, &err));
        fails(df_log_release(slow, m.count[0] + 1, &err), DF_EINVAL, "beyond the durable end");
        retain_and_check(log, &m, 150, 1500); /* by time */
        retain_and_check(log, &m, 150, INT64_MAX);
        ok(df_log_bounds(log, "t", 0, &first, &end, &err));
        assert_true(first > 0 && first <= 150);
        fails(df_log_reader_open(log, "t", 0, first - 1, NULL, &r, &err), DF_EOFFSET, "deleted");
        /* Opened again from later, the old position still holds; release never goes back. */
        df_log_reader_close(slow);
        slow = open_reader(log, "t", 0, 300, "slow");
        ok(df_log_release(slow, 10, &err));
        retain_and_check(log, &m, 150, INT64_MAX);
        /* slow does not renew; fast does. */
        fake_ms += 99000;
        ok(df_log_release(fast, 400, &err));
        retain_and_check(log, &m, 150, INT64_MAX);
        fake_ms += 1001 + 2000;
        retain_and_check(log, &m, 400, INT64_MAX);
        ok(df_filelog_consumer_drop(log, "t", "fast", &err));
        fails(df_filelog_consumer_drop(log, "t", "fast", &err), DF_ENOENT, "no consumer fast");
        fails(df_filelog_consumer_drop(log, "t", "../0", &err), DF_EINVAL, "not acceptable");
        retain_and_check(log, &m, UINT64_MAX, INT64_MAX);
        r = open_reader(log, "t", 0, DF_OFFSET_END, NULL);
        fails(df_log_release(r, 1, &err), DF_EINVAL, "without a consumer name");
        df_log_reader_close(r);
        fails(df_log_reader_open(log, "t", 0, 0, "Bad", &r, &err), DF_EINVAL, "consumer name");
        df_log_reader_close(slow);
        df_log_reader_close(fast);
        df_log_writer_close(w);
        df_log_close(log);
        model_release(&m);
}

/* More partitions than file descriptors: the writer closes files at rest. */
static void test_few_descriptors(void **state)
{
        struct rlimit old, low;
        struct df_log *log = open_log(NULL);
        struct df_append items[20];
        struct df_log_writer *w;

        ok(df_log_topic_create(log, "t", 100, &err));
        assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
        low = old;
        low.rlim_cur = 40;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        w = open_writer(log, "t");
        for (uint32_t round = 0; round < 15; round++) {
                for (uint32_t i = 0; i < 20; i++)
                        items[i] = (struct df_append){.partition = (round * 20 + i) % 100,
                                                      .value = df_bytes_str("value")};
                ok(df_log_append(w, items, 20, &err));
                for (uint32_t i = 0; i < 20; i++)
                        assert_int_equal(items[i].ret_offset, round / 5);
        }
        df_log_writer_close(w);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        df_log_close(log);
}

/* A log that goes on elsewhere is read and never written, but by who finishes the move. */
static void test_moved(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        struct df_log_reader *r;
        struct df_record records[4];
        struct df_append a = {.value = df_bytes("v", 1)};
        char to[DF_FILELOG_MOVED_MAX + 1], path[DFI_PATH_MAX], big[DF_FILELOG_MOVED_MAX + 2];
        size_t n;
        FILE *f;

        ok(df_log_topic_create(log, "t", 1, &err));
        ok(df_log_writer_open(log, "t", &w, &err));
        ok(df_log_append(w, &a, 1, &err));
        df_log_writer_close(w);
        ok(df_filelog_moved(log, to, &err));
        assert_string_equal(to, "");
        memset(big, 'x', sizeof(big));
        big[DF_FILELOG_MOVED_MAX + 1] = 0;
        fails(df_filelog_mark_moved(log, big, &err), DF_ELIMIT, "1001 bytes");
        fails(df_filelog_mark_moved(log, "a\nb", &err), DF_ELIMIT, "where");
        ok(df_filelog_mark_moved(log, "--log kafka:x:1", &err));
        df_log_close(log);

        log = open_log(NULL);
        ok(df_filelog_moved(log, to, &err));
        assert_string_equal(to, "--log kafka:x:1");
        fails(df_log_writer_open(log, "t", &w, &err), DF_ESCHEMA, "start with --log kafka:x:1");
        fails(df_log_topic_create(log, "u", 1, &err), DF_ESCHEMA, "was moved");
        ok(df_log_reader_open(log, "t", 0, 0, NULL, &r, &err));
        ok(df_log_poll(r, records, 4, &n, &err));
        assert_int_equal(n, 1);
        df_log_reader_close(r);
        df_filelog_finish_move(log);
        ok(df_log_writer_open(log, "t", &w, &err));
        df_log_writer_close(w);
        df_log_close(log);

        log = open_log(NULL);
        dfi_path(path, "%s/MOVED", dfi_log_of(log)->dir);
        f = fopen(path, "w");
        assert_non_null(f);
        assert_true(fputs("?", f) >= 0 && fclose(f) == 0);
        fails(df_log_writer_open(log, "t", &w, &err), DF_ECORRUPT, "MOVED is damaged");
        df_log_close(log);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_dir, teardown_dir)
        const struct CMUnitTest tests[] = {
                T(test_E1_topics),       T(test_E1_generation), T(test_L1_roundtrip),
                T(test_L1_large_append), T(test_limits),        T(test_L1_second_writer_is_fenced),
                T(test_T2_append_time),  T(test_L2_retention),  T(test_few_descriptors),
                T(test_moved),
        };

        return cmocka_run_group_tests_name("filelog", tests, NULL, NULL);
}
