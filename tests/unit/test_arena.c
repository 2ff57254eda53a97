/* test_arena.c - bump allocation: alignment, limit, reset, and that nothing overlaps. Runs with
 * both arenas (-Darena=asan).
 */
#include "df/arena.h"

#include "unit.h"

#define PIECES 3000

static size_t piece_size(size_t i)
{
        return i * 2654435761u % 700; /* 0..699, no pattern */
}

static void pieces_are_aligned_and_apart(void **state)
{
        static uint8_t *pieces[PIECES];
        struct df_arena a;

        (void)state;
        df_arena_init(&a, 0);
        for (int round = 0; round < 3; round++) { /* also after a reset */
                for (size_t i = 0; i < PIECES; i++) {
                        pieces[i] = df_arena_alloc(&a, piece_size(i));
                        assert_non_null(pieces[i]);
                        assert_int_equal((uintptr_t)pieces[i] % 16, 0);
                        memset(pieces[i], (int)(i % 251), piece_size(i));
                }
                for (size_t i = 0; i < PIECES; i++)
                        for (size_t j = 0; j < piece_size(i); j++)
                                assert_int_equal(pieces[i][j], i % 251);
                df_arena_reset(&a);
                assert_int_equal(a.used, 0);
        }
        df_arena_release(&a);
}

static void empty_pieces_have_their_own_address(void **state)
{
        struct df_arena a;
        void *p, *q;

        (void)state;
        df_arena_init(&a, 0);
        p = df_arena_alloc(&a, 0);
        q = df_arena_alloc(&a, 0);
        assert_non_null(p);
        assert_ptr_not_equal(p, q);
        df_arena_release(&a);
}

static void large_pieces_fit(void **state)
{
        struct df_arena a;
        uint8_t *small, *large;

        (void)state;
        df_arena_init(&a, 0);
        small = df_arena_zalloc(&a, 10);
        large = df_arena_zalloc(&a, 5 << 20);
        assert_non_null(small);
        assert_non_null(large);
        assert_int_equal(large[0] | large[(5 << 20) - 1] | small[9], 0);
        assert_true(a.used >= (5 << 20) + 10);
        df_arena_release(&a);
}

/* Every size up to the limit, then one beyond: NULL, and what there was stays. */
static void limit_holds(void **state)
{
        struct df_arena a;
        uint8_t *first;

        (void)state;
        df_arena_init(&a, 1024);
        first = df_arena_zalloc(&a, 1000);
        assert_non_null(first);
        assert_null(df_arena_alloc(&a, 17));
        assert_non_null(df_arena_alloc(&a, 16));
        assert_null(df_arena_alloc(&a, 1));
        assert_int_equal(first[999], 0);
        assert_int_equal(a.used, 1024);
        df_arena_reset(&a);
        assert_null(df_arena_alloc(&a, 1025));
        assert_non_null(df_arena_alloc(&a, 1024)); /* the limit itself, once more */
        df_arena_release(&a);
        df_arena_init(&a, 1);
        assert_null(df_arena_alloc(&a, 1)); /* pieces are rounded up to 16 */
        df_arena_release(&a);
}

static void absurd_sizes_are_null(void **state)
{
        static const size_t sizes[] = {SIZE_MAX,      SIZE_MAX - 14,    SIZE_MAX - 15,
                                       SIZE_MAX - 16, SIZE_MAX / 2 + 1, SIZE_MAX / 4 + 1};
        struct df_arena a;

        (void)state;
        df_arena_init(&a, 0);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                assert_null(df_arena_alloc(&a, sizes[i]));
                assert_null(df_arena_zalloc(&a, sizes[i]));
                assert_null(df_arena_copy(&a, df_bytes("x", sizes[i])).data);
        }
        assert_int_equal(a.used, 0);
        assert_non_null(df_arena_alloc(&a, 1)); /* and it goes on */
        df_arena_release(&a);
}

static void zalloc_clears_used_memory(void **state)
{
        struct df_arena a;
        uint8_t *p;

        (void)state;
        df_arena_init(&a, 0);
        memset(df_arena_alloc(&a, 4096), 0xff, 4096);
        df_arena_reset(&a);
        p = df_arena_zalloc(&a, 4096);
        for (size_t i = 0; i < 4096; i++)
                assert_int_equal(p[i], 0);
        df_arena_release(&a);
}

static void copies_are_copies(void **state)
{
        char text[] = "campaign";
        struct df_arena a;
        struct df_bytes b, empty;

        (void)state;
        df_arena_init(&a, 32);
        b = df_arena_copy(&a, df_bytes_str(text));
        text[0] = 'X';
        assert_true(df_bytes_eq(b, df_bytes_str("campaign")));
        empty = df_arena_copy(&a, df_bytes(NULL, 0));
        assert_non_null(empty.data); /* NULL means failure */
        assert_int_equal(empty.len, 0);
        b = df_arena_copy(&a, df_bytes_str(text)); /* over the limit */
        assert_null(b.data);
        assert_int_equal(b.len, 0);
        df_arena_release(&a);
}

static void release_takes_null_and_twice(void **state)
{
        struct df_arena a;

        (void)state;
        df_arena_init(&a, 0);
        df_arena_reset(&a);
        df_arena_release(&a);
        assert_non_null(df_arena_alloc(&a, 8)); /* usable again */
        df_arena_release(&a);
        df_arena_release(&a);
        df_arena_release(NULL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(pieces_are_aligned_and_apart),
                cmocka_unit_test(empty_pieces_have_their_own_address),
                cmocka_unit_test(large_pieces_fit),
                cmocka_unit_test(limit_holds),
                cmocka_unit_test(absurd_sizes_are_null),
                cmocka_unit_test(zalloc_clears_used_memory),
                cmocka_unit_test(copies_are_copies),
                cmocka_unit_test(release_takes_null_and_twice),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
