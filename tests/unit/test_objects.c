/* The port's promises (df/objects.h; A1 to A3 stand on them), held by both adapters: one table of
 * cases. "test_objects" runs it over directories, "test_objects s3" over the server of TEST_S3;
 * what is stored is compared with what was given, races with what only one of them can do. */
#include "objects_test.h"

#include <sys/mman.h>

#define THREADS 4

static bool on_s3;

static struct df_objects *fresh(void)
{
        char place[200];

        fresh_place(on_s3, "", place, sizeof(place));
        return open_place(place);
}

/* ---- one caller ---- */

static void test_absent(void **state)
{
        struct df_objects *o = fresh();
        struct df_buf none = {0};
        uint64_t size = 4711;

        fails(df_objects_get(o, "a/b=1/c", &none, NULL, &err), DF_ENOENT, "a/b=1/c");
        fails(df_objects_size(o, "a/b=1/c", &size, &err), DF_ENOENT, "a/b=1/c");
        fails(df_objects_get_range(o, "a/b=1/c", 0, 1, &none, &err), DF_ENOENT, "a/b=1/c");
        fails(df_objects_get_range(o, "a/b=1/c", 5, 0, &none, &err), DF_ENOENT, "a/b=1/c");
        assert_int_equal(none.len, 0);
        put_text(o, "a/b=1/c", "first");
        fails(df_objects_put_absent(o, "a/b=1/c", df_bytes_str("other"), &err), DF_EEXIST,
              "a/b=1/c");
        holds_text(o, "a/b=1/c", "first");
        /* Equal bytes are no excuse: only one put stored them. */
        fails(df_objects_put_absent(o, "a/b=1/c", df_bytes_str("first"), &err), DF_EEXIST, "");
        ok(df_objects_remove(o, "a/b=1/c", &err));
        ok(df_objects_remove(o, "a/b=1/c", &err));
        ok(df_objects_remove(o, "a/b=1/c/d", &err));
        fails(df_objects_get(o, "a/b=1/c", &none, NULL, &err), DF_ENOENT, "a/b=1/c");
        put_text(o, "a/b=1/c", "again");
        holds_text(o, "a/b=1/c", "again");
        df_objects_close(o);
}

static void test_match(void **state)
{
        struct df_objects *o = fresh();
        struct df_object_version one, two, three, read;

        put_text(o, "head", "one");
        must_hold(o, "head", df_bytes_str("one"), &one);
        ok(df_objects_put_match(o, "head", df_bytes_str("two"), &one, &two, &err));
        must_hold(o, "head", df_bytes_str("two"), &read);
        assert_string_equal(two.text, read.text);
        assert_string_not_equal(one.text, two.text);
        fails(df_objects_put_match(o, "head", df_bytes_str("stale"), &one, &three, &err), DF_EEXIST,
              "another version");
        holds_text(o, "head", "two");
        ok(df_objects_put_match(o, "head", df_bytes_str("three"), &two, NULL, &err));
        holds_text(o, "head", "three");
        must_list(o, "", "head:5 ");
        df_objects_close(o);
}

static void test_match_of_nothing(void **state)
{
        struct df_objects *o = fresh();
        struct df_object_version one, none = {0};

        put_text(o, "head", "one");
        must_hold(o, "head", df_bytes_str("one"), &one);
        fails(df_objects_put_match(o, "head", df_bytes_str("x"), &none, NULL, &err), DF_EEXIST, "");
        ok(df_objects_remove(o, "head", &err));
        fails(df_objects_put_match(o, "head", df_bytes_str("x"), &one, NULL, &err), DF_EEXIST,
              "gone");
        fails(df_objects_put_match(o, "never", df_bytes_str("x"), &one, NULL, &err), DF_EEXIST,
              "gone");
        must_list(o, "", "");
        df_objects_close(o);
}

static void test_sizes(void **state)
{
        static const size_t sizes[] = {0, 1, 4095, 65536, 5u << 20};
        struct df_objects *o = fresh();
        uint8_t *bytes = malloc(5u << 20);
        struct df_buf part = {0};

        for (size_t i = 0; i < 5u << 20; i++)
                bytes[i] = (uint8_t)dice(256);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                char name[32];
                uint64_t size = 4711;

                (void)snprintf(name, sizeof(name), "s%zu", sizes[i]);
                ok(df_objects_put_absent(o, name, df_bytes(sizes[i] ? bytes : NULL, sizes[i]),
                                         &err));
                must_hold(o, name, df_bytes(bytes, sizes[i]), NULL);
                ok(df_objects_size(o, name, &size, &err));
                assert_int_equal(size, sizes[i]);
        }
        for (int i = 0; i < 20; i++) { /* ranges anywhere in the largest */
                size_t from = dice(5u << 20), len = 1 + dice(300000);
                size_t want = len < (5u << 20) - from ? len : (5u << 20) - from;

                df_buf_clear(&part);
                ok(df_objects_get_range(o, "s5242880", from, len, &part, &err));
                assert_int_equal(part.len, want);
                assert_memory_equal(part.data, bytes + from, want);
        }
        df_buf_release(&part);
        free(bytes);
        df_objects_close(o);
}

static void test_ranges(void **state)
{
        static const struct {
                uint64_t from;
                size_t len;
                const char *want;
        } cases[] = {
                {0, 10, "0123456789"},
                {0, 1, "0"},
                {9, 1, "9"},
                {0, 11, "0123456789"},
                {9, 5, "9"},
                {10, 1, ""},
                {11, 5, ""},
                {3, 4, "3456"},
                {0, 0, ""},
                {1u << 30, 1, ""},
                {UINT64_MAX, 1, ""},
                {UINT64_MAX - 5, SIZE_MAX, ""},
                {2, SIZE_MAX, "23456789"},
        };
        struct df_objects *o = fresh();

        put_text(o, "ten", "0123456789");
        put_text(o, "none", "");
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct df_buf got = {0};

                df_buf_append(&got, ">", 1);
                ok(df_objects_get_range(o, "ten", cases[i].from, cases[i].len, &got, &err));
                df_buf_append(&got, "", 1);
                if (strcmp((char *)got.data + 1, cases[i].want) != 0)
                        fail_msg("bytes %" PRIu64 " + %zu: \"%s\", wanted \"%s\"", cases[i].from,
                                 cases[i].len, (char *)got.data + 1, cases[i].want);
                df_buf_clear(&got);
                ok(df_objects_get_range(o, "none", cases[i].from, cases[i].len, &got, &err));
                assert_int_equal(got.len, 0);
                df_buf_release(&got);
        }
        df_objects_close(o);
}

/* Byte order of the whole name: '-' < '.' < '/' < digits < '=' < '_' < letters. */
static void test_list(void **state)
{
        static const char *const names[] = {"a=b",   "a/b/c", "ab",  "a_b", "a-b",  "a.b",
                                            "a/b-c", "b",     "a0b", "a/c", "a/b=c"};
        struct df_objects *o = fresh();
        struct listed l = {.stop_after = 3};

        must_list(o, "", "");
        must_list(o, "none/here", "");
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                put_text(o, names[i], names[i]);
        must_list(o, "", "a-b:3 a.b:3 a/b-c:5 a/b/c:5 a/b=c:5 a/c:3 a0b:3 a=b:3 a_b:3 ab:2 b:1 ");
        must_list(o, "a/", "a/b-c:5 a/b/c:5 a/b=c:5 a/c:3 ");
        must_list(o, "a/b", "a/b-c:5 a/b/c:5 a/b=c:5 ");
        must_list(o, "a/b/", "a/b/c:5 ");
        must_list(o, "a/b/c", "a/b/c:5 ");
        must_list(o, "a/b/c/", "");
        must_list(o, "a/b/cd", "");
        must_list(o, "ab", "ab:2 ");
        must_list(o, "c", "");
        assert_int_equal(df_objects_list(o, "a", note_name, &l, &err), 4711);
        assert_string_equal(l.text, "a-b:3 a.b:3 a/b-c:5 ");
        ok(df_objects_remove(o, "a/b/c", &err));
        must_list(o, "a/b/", "");
        df_objects_close(o);
}

/* Random sets of names against a sorted array. */
static int by_text(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static void test_list_random(void **state)
{
        static const char *const parts[] = {"a", "b", "a-", "a.", "a=", "a_", "a0", "aa"};
        struct df_objects *o = fresh();
        char names[40][32], *sorted[40];
        char want[4096] = "";
        size_t count = 0;

        for (int i = 0; i < 40; i++) {
                int rc;

                /* Three parts each: no name is the folder of another. */
                (void)snprintf(names[count], sizeof(names[0]), "%s/%s/%s", parts[dice(8)],
                               parts[dice(8)], parts[dice(8)]);
                rc = df_objects_put_absent(o, names[count], df_bytes_str("xyz"), &err);
                assert_true(rc == 0 || rc == DF_EEXIST);
                sorted[count] = names[count];
                count += rc == 0;
        }
        qsort(sorted, count, sizeof(sorted[0]), by_text);
        for (size_t i = 0; i < count; i++) {
                size_t used = strlen(want);

                (void)snprintf(want + used, sizeof(want) - used, "%s:3 ", sorted[i]);
        }
        must_list(o, "", want);
        df_objects_close(o);
}

static void test_names(void **state)
{
        static const char *const bad[] = {
                "",       "/",        "/a",  "a/",   "a//b",  ".",        "..",    "a/..",
                "a/../b", "./a",      ".a",  "a/.b", "-a",    "=a",       "_a",    "A",
                "aB",     "a b",      "a\n", "a%b",  "a\\b",  "a?b",      "a#b",   "a+b",
                "a&b",    "\xc3\xa4", "a:b", "a/.",  "a/./b", "a/.tmp-0", "a\x7f",
        };
        static const char *const good[] = {"0",           "a-",     "a/-b", "a/_b",
                                           "a/b.c=d_e-f", "9/a..b", "a./b"};
        struct df_objects *o = fresh();
        struct df_object_version v = {.text = "x"};
        struct df_buf none = {0};
        uint64_t size;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct df_bytes x = df_bytes_str("x");

                fails(df_objects_put_absent(o, bad[i], x, &err), DF_EINVAL, "a-z, 0-9");
                fails(df_objects_put_match(o, bad[i], x, &v, NULL, &err), DF_EINVAL, "a-z, 0-9");
                fails(df_objects_get(o, bad[i], &none, NULL, &err), DF_EINVAL, "a-z, 0-9");
                fails(df_objects_get_range(o, bad[i], 0, 1, &none, &err), DF_EINVAL, "a-z, 0-9");
                fails(df_objects_get_range(o, bad[i], 0, 0, &none, &err), DF_EINVAL, "a-z, 0-9");
                fails(df_objects_size(o, bad[i], &size, &err), DF_EINVAL, "a-z, 0-9");
                fails(df_objects_remove(o, bad[i], &err), DF_EINVAL, "a-z, 0-9");
        }
        fails(df_objects_list(o, "../x", note_name, NULL, &err), DF_EINVAL, "a-z, 0-9");
        fails(df_objects_list(o, "/", note_name, NULL, &err), DF_EINVAL, "a-z, 0-9");
        fails(df_objects_list(o, "a/.tmp", note_name, NULL, &err), DF_EINVAL, "a-z, 0-9");
        for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
                put_text(o, good[i], "x");
                holds_text(o, good[i], "x");
        }
        df_objects_close(o);
}

/* DF_OBJECT_NAME_MAX, DF_OBJECT_PART_MAX and DF_OBJECT_MAX, and one beyond each. */
static void test_limits(void **state)
{
        struct df_objects *o = fresh();
        char name[DF_OBJECT_NAME_MAX + 2], part[DF_OBJECT_PART_MAX + 2];
        size_t beyond = (size_t)DF_OBJECT_MAX + 1;
        void *large =
                mmap(NULL, beyond, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        struct df_object_version v = {.text = "x"};

        memset(name, 'n', sizeof(name));
        name[100] = '/';
        name[DF_OBJECT_NAME_MAX + 1] = '\0';
        fails(df_objects_put_absent(o, name, df_bytes_str("x"), &err), DF_EINVAL, "256 bytes");
        name[DF_OBJECT_NAME_MAX] = '\0';
        put_text(o, name, "x");
        holds_text(o, name, "x");
        memset(part, 'p', sizeof(part));
        part[DF_OBJECT_PART_MAX + 1] = '\0';
        fails(df_objects_put_absent(o, part, df_bytes_str("x"), &err), DF_EINVAL, "255 bytes");
        part[DF_OBJECT_PART_MAX] = '\0';
        put_text(o, part, "x");
        holds_text(o, part, "x");
        assert_ptr_not_equal(large, MAP_FAILED);
        fails(df_objects_put_absent(o, "large", df_bytes(large, beyond), &err), DF_ELIMIT,
              "1073741824");
        fails(df_objects_put_match(o, "large", df_bytes(large, beyond), &v, NULL, &err), DF_ELIMIT,
              "1073741824");
        (void)munmap(large, beyond);
        df_objects_close(o);
}

static void test_check(void **state)
{
        struct df_objects *o = fresh();

        ok(df_objects_check(o, &err));
        ok(df_objects_check(o, &err));
        must_list(o, "", "");
        df_objects_close(o);
}

/* ---- races ---- */

struct racer {
        struct df_objects *o;
        pthread_barrier_t *start;
        const char *name;
        int id, rounds, rc;
        bool same; /* all store the same bytes */
        struct df_error err;
};

static void *race_absent(void *arg)
{
        struct racer *r = arg;
        char text[16];

        (void)snprintf(text, sizeof(text), "by %d", r->same ? 0 : r->id);
        (void)pthread_barrier_wait(r->start);
        r->rc = df_objects_put_absent(r->o, r->name, df_bytes_str(text), &r->err);
        return NULL;
}

static void *count_up(void *arg)
{
        struct racer *r = arg;
        struct df_buf got = {0};

        (void)pthread_barrier_wait(r->start);
        for (int done = 0; done < r->rounds && r->rc == 0;) {
                struct df_object_version was;
                char text[32];

                df_buf_clear(&got);
                r->rc = df_objects_get(r->o, r->name, &got, &was, &r->err);
                df_buf_append(&got, "", 1);
                if (r->rc != 0)
                        break;
                (void)snprintf(text, sizeof(text), "%lld",
                               strtoll((const char *)got.data, NULL, 10) + 1);
                r->rc = df_objects_put_match(r->o, r->name, df_bytes_str(text), &was, NULL,
                                             &r->err);
                done += r->rc == 0;
                if (r->rc == DF_EEXIST)
                        r->rc = 0; /* the other was quicker: read again */
        }
        df_buf_release(&got);
        return NULL;
}

static void race(struct df_objects *o, const char *name, int rounds, bool same,
                 void *(*run)(void *), struct racer racers[THREADS])
{
        pthread_barrier_t start;
        pthread_t threads[THREADS];

        assert_int_equal(pthread_barrier_init(&start, NULL, THREADS), 0);
        for (int i = 0; i < THREADS; i++) {
                racers[i] = (struct racer){.o = o,
                                           .start = &start,
                                           .name = name,
                                           .id = i,
                                           .rounds = rounds,
                                           .same = same};
                assert_int_equal(pthread_create(&threads[i], NULL, run, &racers[i]), 0);
        }
        for (int i = 0; i < THREADS; i++)
                (void)pthread_join(threads[i], NULL);
        (void)pthread_barrier_destroy(&start);
}

static void test_race_absent(void **state)
{
        struct df_objects *o = fresh();
        struct racer racers[THREADS];

        for (int round = 0; round < 50; round++) {
                char name[32], want[16];
                int winners = 0;

                (void)snprintf(name, sizeof(name), "d%d/race", round);
                race(o, name, 1, round % 2 == 1, race_absent, racers);
                for (int i = 0; i < THREADS; i++) {
                        if (racers[i].rc != 0 && racers[i].rc != DF_EEXIST)
                                fail_msg("%s", racers[i].err.text);
                        if (racers[i].rc == 0)
                                (void)snprintf(want, sizeof(want), "by %d", racers[i].same ? 0 : i);
                        winners += racers[i].rc == 0;
                }
                if (winners != 1)
                        fail_msg("seed %" PRIu64 ", round %d: %d winners", dice_seed, round,
                                 winners);
                holds_text(o, name, want);
        }
        df_objects_close(o);
}

static void test_race_match(void **state)
{
        struct df_objects *o = fresh();
        struct racer racers[THREADS];
        int rounds = on_s3 ? 10 : 50;
        char want[16];

        put_text(o, "counter", "0");
        race(o, "counter", rounds, false, count_up, racers);
        for (int i = 0; i < THREADS; i++)
                if (racers[i].rc != 0)
                        fail_msg("%s", racers[i].err.text);
        (void)snprintf(want, sizeof(want), "%d", THREADS * rounds);
        holds_text(o, "counter", want);
        df_objects_close(o);
}

/* ---- stores that lie ---- */

enum lie {
        LIE_ABSENT,
        LIE_ABSENT_SILENT,
        LIE_MATCH,
        LIE_MATCH_SILENT,
        LIE_SAME_VERSION,
        LIE_LOSES
};

struct liar {
        struct df_objects base;
        enum lie lie;
        struct df_buf data;
        int generation; /* 0: nothing is stored */
};

static int liar_store(struct liar *l, struct df_bytes data)
{
        df_buf_clear(&l->data);
        df_buf_append(&l->data, data.data, data.len);
        l->generation++;
        return 0;
}

static int liar_put_absent(struct df_objects *o, const char *name, struct df_bytes data,
                           struct df_error *e)
{
        struct liar *l = (struct liar *)(void *)o;

        if (l->generation == 0 || l->lie == LIE_ABSENT)
                return liar_store(l, data);
        if (l->lie == LIE_ABSENT_SILENT)
                (void)liar_store(l, data);
        return df_fail(e, DF_EEXIST, "there is one");
}

static int liar_put_match(struct df_objects *o, const char *name, struct df_bytes data,
                          const struct df_object_version *was, struct df_object_version *ret,
                          struct df_error *e)
{
        struct liar *l = (struct liar *)(void *)o;

        if (l->lie == LIE_LOSES)
                return 0;
        if (l->lie == LIE_SAME_VERSION || l->lie == LIE_MATCH ||
            strtol(was->text, NULL, 10) == l->generation)
                return liar_store(l, data);
        if (l->lie == LIE_MATCH_SILENT)
                (void)liar_store(l, data);
        return df_fail(e, DF_EEXIST, "another version");
}

static int liar_get(struct df_objects *o, const char *name, struct df_buf *ret,
                    struct df_object_version *version, struct df_error *e)
{
        struct liar *l = (struct liar *)(void *)o;

        df_buf_append(ret, l->data.data, l->data.len);
        if (version)
                (void)snprintf(version->text, sizeof(version->text), "%d",
                               l->lie == LIE_SAME_VERSION ? 1 : l->generation);
        return 0;
}

static int liar_remove(struct df_objects *o, const char *name, struct df_error *e)
{
        ((struct liar *)(void *)o)->generation = 0;
        return 0;
}

static void test_liars(void **state)
{
        static const struct df_objects_ops ops = {.put_absent = liar_put_absent,
                                                  .put_match = liar_put_match,
                                                  .get = liar_get,
                                                  .remove = liar_remove};
        static const struct {
                enum lie lie;
                const char *promise;
        } cases[] = {
                {LIE_ABSENT, "put_absent stores only where nothing is"},
                {LIE_ABSENT_SILENT, "put_absent stores only where nothing is"},
                {LIE_MATCH, "put_match replaces only the version that was read"},
                {LIE_MATCH_SILENT, "put_match replaces only the version that was read"},
                {LIE_SAME_VERSION, "another version for other bytes"},
                {LIE_LOSES, "put_match replaces only the version that was read"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct liar l = {.base.ops = &ops, .lie = cases[i].lie};

                fails(df_objects_check(&l.base, &err), DF_ESCHEMA, cases[i].promise);
                assert_int_equal(l.generation, 0); /* removed also after a refusal */
                df_buf_release(&l.data);
        }
}

static void test_places(void **state)
{
        struct df_objects_options o = options_of("ftp:x");
        struct df_objects *store = NULL;

        fails(df_objects_open(&o, &store, &err), DF_EINVAL, "dir:/PATH or s3:BUCKET/PREFIX");
        o.place = NULL;
        fails(df_objects_open(&o, &store, &err), DF_EINVAL, "dir:/PATH or s3:BUCKET/PREFIX");
        assert_null(store);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_absent),
                cmocka_unit_test(test_match),
                cmocka_unit_test(test_match_of_nothing),
                cmocka_unit_test(test_sizes),
                cmocka_unit_test(test_ranges),
                cmocka_unit_test(test_list),
                cmocka_unit_test(test_list_random),
                cmocka_unit_test(test_names),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_check),
                cmocka_unit_test(test_race_absent),
                cmocka_unit_test(test_race_match),
                cmocka_unit_test(test_liars),
                cmocka_unit_test(test_places),
        };
        int rc;

        on_s3 = argc > 1 && strcmp(argv[1], "s3") == 0;
        if (on_s3 && !getenv("TEST_S3"))
                return SKIPPED;
        roll_seed();
        make_test_root();
        rc = cmocka_run_group_tests_name(on_s3 ? "objects_s3" : "objects", tests, NULL, NULL);
        remove_test_root();
        return rc;
}
