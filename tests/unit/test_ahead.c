/* test_ahead.c - a file read ahead of its reader (runtime/rocksdb/ahead.c): the bytes are those of
 * the file, wherever and in whatever steps it is read; what does not work is answered by NULL,
 * never by other bytes (K1); the memory in use is bounded and comes back. */
#include "state_test.h"

#include <inttypes.h>

#include "runtime/rocksdb/rocksdb_private.h"

#define PIECE ((size_t)128 << 10)
#define LARGEST (5 * PIECE + 4711)
#define READERS 400 /* more than there is memory for */

static uint8_t model[LARGEST];

static void make_file(const char *dir, char path[DFI_PATH_MAX], size_t bytes, uint64_t seed)
{
        for (size_t i = 0; i < bytes; i++)
                model[i] = (uint8_t)(next_random(&seed) >> 40);
        (void)snprintf(path, DFI_PATH_MAX, "%s/f", dir);
        overwrite(path, model, bytes);
}

/* NULL where the file system has no such reads. */
static struct dfi_ahead *open_or_skip(const char *path, size_t bytes)
{
        struct dfi_ahead *a = dfi_ahead_open(path, bytes);

        if (!a)
                skip();
        return a;
}

static void check(struct dfi_ahead *a, uint64_t at, size_t len, uint64_t seed)
{
        const uint8_t *p = dfi_ahead_read(a, at, len);

        if (!p || memcmp(p, model + at, len) != 0)
                fail_msg("seed %" PRIu64 ": %zu bytes at %" PRIu64 ": %s", seed, len, at,
                         p ? "other ones" : "not here");
}

/* In order, in steps of one length: blocks lie within a piece, across two, and end with one. */
static void test_in_order(void **state)
{
        static const size_t steps[] = {1000, 4096, 12296, 16392, 65544, PIECE};
        static const size_t sizes[] = {1,         4095,      4096,          PIECE - 1, PIECE,
                                       PIECE + 1, 2 * PIECE, 2 * PIECE + 1, LARGEST};
        char dir[256], path[DFI_PATH_MAX];

        (void)state;
        (void)temp_dir(dir);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                make_file(dir, path, sizes[i], i);
                for (size_t j = 0; j < sizeof(steps) / sizeof(steps[0]); j++) {
                        struct dfi_ahead *a = open_or_skip(path, sizes[i]);

                        for (size_t at = 0; at < sizes[i]; at += steps[j]) {
                                size_t left = sizes[i] - at;

                                check(a, at, left < steps[j] ? left : steps[j], i);
                        }
                        assert_null(dfi_ahead_read(a, sizes[i], 1));
                        dfi_ahead_close(a);
                }
        }
        remove_dir(dir);
}

/* Anywhere, back and forth, over and over. */
static void test_anywhere(void **state)
{
        uint64_t seed = 17, random = seed;
        char dir[256], path[DFI_PATH_MAX];
        struct dfi_ahead *a;

        (void)state;
        make_file(temp_dir(dir), path, LARGEST, seed);
        a = open_or_skip(path, LARGEST);
        for (int i = 0; i < 2000; i++) {
                uint64_t at = below(&random, LARGEST);
                size_t len = 1 + below(&random, PIECE);

                check(a, at, at + len > LARGEST ? LARGEST - at : len, seed);
        }
        dfi_ahead_close(a);
        remove_dir(dir);
}

/* A file that is shorter than it was: what is still there, or nothing. */
static void test_file_is_cut(void **state)
{
        char dir[256], path[DFI_PATH_MAX];
        struct dfi_ahead *a;

        (void)state;
        make_file(temp_dir(dir), path, LARGEST, 3);
        a = open_or_skip(path, LARGEST);
        assert_int_equal(truncate(path, 3 * PIECE + 100), 0);
        check(a, 0, 1000, 3);
        check(a, PIECE, 1000, 3);
        assert_null(dfi_ahead_read(a, 3 * PIECE, 1000));
        dfi_ahead_close(a);
        remove_dir(dir);
        assert_null(dfi_ahead_open(path, LARGEST)); /* and none at all */
}

/* Closed with pieces under way; no more memory than was said, and all of it again. */
static void test_memory_is_bounded(void **state)
{
        static struct dfi_ahead *readers[READERS];
        const size_t most = DFI_AHEAD_MAX / ((size_t)384 << 10);
        char dir[256], path[DFI_PATH_MAX];

        (void)state;
        make_file(temp_dir(dir), path, LARGEST, 5);
        dfi_ahead_close(open_or_skip(path, LARGEST));
        for (int round = 0; round < 3; round++) {
                for (size_t i = 0; i < READERS; i++) {
                        readers[i] = dfi_ahead_open(path, LARGEST);
                        if ((readers[i] != NULL) != (i < most))
                                fail_msg("reader %zu of %zu", i, most);
                        if (readers[i] && i % 2)
                                check(readers[i], PIECE * (i % 4), 1000, 5);
                }
                for (size_t i = 0; i < READERS; i++)
                        dfi_ahead_close(readers[i]);
        }
        remove_dir(dir);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_in_order),
                cmocka_unit_test(test_anywhere),
                cmocka_unit_test(test_file_is_cut),
                cmocka_unit_test(test_memory_is_bounded),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
