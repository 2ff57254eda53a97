/* test_pages.c - blocks that stay with the process: zeroed whatever lay in them, apart from each
 * other, and what is kept has a limit. */
#include "df/pages.h"

#include <pthread.h>
#include <string.h>

#include "unit.h"

#define MIB ((size_t)1 << 20)

static int alloc(struct df_pages *p, size_t bytes, bool zeroed)
{
        struct df_error err;

        return df_pages_alloc(p, bytes, zeroed, &err);
}

static void is_filled(const struct df_pages *p, size_t bytes, uint8_t with)
{
        const uint8_t *data = p->data;

        for (size_t i = 0; i < bytes; i++)
                if (data[i] != with)
                        fail_msg("byte %zu of %zu is %u, not %u", i, bytes, data[i], with);
}

/* Small and large, on both sides of DF_PAGES_MIN; three times, so that what is kept returns. */
static void blocks_are_zeroed_aligned_and_apart(void **state)
{
        static const size_t sizes[] = {1,           4096,   DF_PAGES_MIN - 1, DF_PAGES_MIN,
                                       5 * MIB + 7, 9 * MIB};
        enum { COUNT = sizeof(sizes) / sizeof(sizes[0]) };
        struct df_pages p[COUNT];

        (void)state;
        for (int round = 0; round < 3; round++) {
                for (size_t i = 0; i < COUNT; i++) {
                        assert_int_equal(alloc(&p[i], sizes[i], true), 0);
                        assert_true(p[i].bytes >= sizes[i]);
                        assert_int_equal((uintptr_t)p[i].data % 64, 0);
                        is_filled(&p[i], sizes[i], 0);
                        memset(p[i].data, (int)(i + 1), p[i].bytes);
                }
                for (size_t i = 0; i < COUNT; i++) {
                        is_filled(&p[i], p[i].bytes, (uint8_t)(i + 1));
                        df_pages_free(&p[i]);
                        assert_null(p[i].data);
                        df_pages_free(&p[i]); /* does nothing */
                }
        }
}

static void a_block_serves_the_next_that_is_as_large(void **state)
{
        struct df_pages p, q;
        void *was;
        size_t before;

        (void)state;
        assert_int_equal(alloc(&p, 40 * MIB, false), 0);
        was = p.data;
        before = df_pages_kept();
        df_pages_free(&p);
        assert_true(df_pages_kept() >= before + 40 * MIB);
        assert_int_equal(alloc(&q, 31 * MIB, false), 0); /* 40 is more than a quarter larger */
        assert_true(q.data != was);
        assert_int_equal(alloc(&p, 41 * MIB, false), 0); /* 40 is too small */
        assert_true(p.data != was);
        df_pages_free(&p);
        assert_int_equal(alloc(&p, 32 * MIB, false), 0);
        assert_true(p.data == was);
        assert_int_equal(p.bytes, 40 * MIB);
        df_pages_free(&p);
        df_pages_free(&q);
}

/* What is kept: never more than the limit, and the latest. */
static void what_is_kept_has_a_limit(void **state)
{
        enum { COUNT = 80 };
        static struct df_pages p[COUNT];
        void *last;

        (void)state;
        for (size_t i = 0; i < COUNT; i++)
                assert_int_equal(alloc(&p[i], DF_PAGES_MIN + i, false), 0);
        last = p[COUNT - 1].data;
        for (size_t i = 0; i < COUNT; i++) {
                df_pages_free(&p[i]);
                assert_true(df_pages_kept() <= DF_PAGES_KEPT_MAX);
        }
        assert_true(df_pages_kept() > DF_PAGES_KEPT_MAX - 2 * DF_PAGES_MIN);
        assert_int_equal(alloc(&p[0], DF_PAGES_MIN + COUNT - 1, false), 0);
        assert_true(p[0].data == last);
        df_pages_free(&p[0]);

        /* One that is larger than all that is kept leaves the others alone. */
        size_t kept = df_pages_kept();
        assert_int_equal(alloc(&p[0], DF_PAGES_KEPT_MAX, false), 0);
        df_pages_free(&p[0]);
        assert_int_equal(df_pages_kept(), kept);
}

static void what_cannot_be_had_is_refused(void **state)
{
        struct df_pages p;
        struct df_error err;

        (void)state;
        assert_int_equal(df_pages_alloc(&p, SIZE_MAX, true, &err), DF_ENOMEM);
        assert_null(p.data);
        assert_int_equal(df_pages_alloc(&p, SIZE_MAX / 2, true, &err), DF_ENOMEM);
        assert_non_null(strstr(err.text, "no memory for a table of"));
        df_pages_free(&p);
}

struct stress {
        uint64_t seed;
        struct df_pages *shared; /* blocks given to the other thread */
        pthread_mutex_t *lock;
};

static void *stress_main(void *arg)
{
        struct stress *s = arg;
        uint64_t x = s->seed;

        for (int i = 0; i < 300; i++) {
                struct df_pages p, was;
                uint8_t mark = (uint8_t)(1 + i % 250);
                size_t bytes;

                x = x * 6364136223846793005u + 1442695040888963407u;
                bytes = DF_PAGES_MIN + (x >> 40) % (4 * MIB);
                if (alloc(&p, bytes, false) != 0)
                        return "no memory";
                memset(p.data, mark, 4096);
                (void)pthread_mutex_lock(s->lock);
                was = *s->shared;
                *s->shared = p;
                (void)pthread_mutex_unlock(s->lock);
                if (was.data && ((uint8_t *)was.data)[0] != ((uint8_t *)was.data)[4095])
                        return "two have one block";
                df_pages_free(&was);
        }
        return NULL;
}

static void threads_give_blocks_to_each_other(void **state)
{
        pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        struct df_pages shared = {0};
        struct stress s[2] = {{1, &shared, &lock}, {2, &shared, &lock}};
        pthread_t t[2];

        (void)state;
        for (int i = 0; i < 2; i++)
                assert_int_equal(pthread_create(&t[i], NULL, stress_main, &s[i]), 0);
        for (int i = 0; i < 2; i++) {
                void *said;

                assert_int_equal(pthread_join(t[i], &said), 0);
                if (said)
                        fail_msg("seed %d: %s", i + 1, (const char *)said);
        }
        df_pages_free(&shared);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(blocks_are_zeroed_aligned_and_apart),
                cmocka_unit_test(a_block_serves_the_next_that_is_as_large),
                cmocka_unit_test(what_is_kept_has_a_limit),
                cmocka_unit_test(what_cannot_be_had_is_refused),
                cmocka_unit_test(threads_give_blocks_to_each_other),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
