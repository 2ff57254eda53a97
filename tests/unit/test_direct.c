/* test_direct.c - files written past the page cache: the bytes and the digest are those that were
 * given, whatever the lengths, the file system and the writes that are cut short; a failure says
 * so (K1). */
#include "state_test.h"

#include <inttypes.h>
#include <signal.h>
#include <sys/resource.h>

#include "df/sha256.h"
#include "runtime/rocksdb/rocksdb_private.h"

#define LARGEST ((size_t)1200000) /* several buffers */

static uint8_t model[LARGEST], found[LARGEST + 1];

static void fill_model(uint64_t seed)
{
        for (size_t i = 0; i < LARGEST; i++)
                model[i] = (uint8_t)(next_random(&seed) >> 40);
}

static size_t read_back(const char *path)
{
        FILE *f = fopen(path, "r");
        size_t n;

        assert_non_null(f);
        n = fread(found, 1, sizeof(found), f);
        assert_int_equal(fclose(f), 0);
        return n;
}

/* In pieces of random lengths; *ret as dfi_direct_end says. */
static int write_model(const char *path, size_t len, uint64_t *random, struct dfi_file *ret,
                       struct df_error *err)
{
        struct dfi_direct *d;
        size_t at = 0;
        int rc = dfi_direct_create(path, &d, err);

        if (rc)
                return rc;
        while (rc == 0 && at < len) {
                size_t n = below(random, 2) ? 16392 : 1 + below(random, 300000);

                if (n > len - at)
                        n = len - at;
                rc = dfi_direct_write(d, df_bytes(model + at, n), path, err);
                at += n;
        }
        if (rc == 0)
                rc = dfi_direct_end(d, path, ret, err);
        dfi_direct_close(d);
        return rc;
}

static void check(const char *path, size_t len, const struct dfi_file *file, uint64_t seed)
{
        uint8_t digest[DF_SHA256_SIZE];
        uint64_t size;
        struct stat st;

        if (read_back(path) != len || memcmp(found, model, len) != 0)
                fail_msg("seed %" PRIu64 ": %zu bytes are not those that were written", seed, len);
        ok(df_sha256_file(path, digest, &size, err));
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(file->size_bytes, len);
        assert_int_equal(file->inode, st.st_ino);
        assert_memory_equal(file->digest, digest, sizeof(digest));
}

/* Lengths around what is aligned and what fills a buffer. */
static void lengths_in(const char *dir)
{
        static const size_t around[] = {0, 4096, 8192, 262144, 524288, 266240, 1048576};
        uint64_t seed = 11, random = seed;
        char path[DFI_PATH_MAX];

        fill_model(seed);
        (void)snprintf(path, sizeof(path), "%s/f", dir);
        for (size_t i = 0; i < sizeof(around) / sizeof(around[0]); i++)
                for (int by = around[i] ? -1 : 0; by <= 1; by++) {
                        size_t len = around[i] + (size_t)(ssize_t)by;
                        struct dfi_file file;

                        ok(write_model(path, len, &random, &file, err));
                        check(path, len, &file, seed);
                        assert_int_equal(unlink(path), 0);
                }
}

static void test_lengths(void **state)
{
        char dir[256];

        (void)state;
        lengths_in(temp_dir(dir));
        remove_dir(dir);
}

/* A file system in memory may refuse to be written directly. */
static void test_lengths_in_memory(void **state)
{
        char dir[] = "/dev/shm/adtally-direct-XXXXXX";

        (void)state;
        if (!mkdtemp(dir))
                skip();
        lengths_in(dir);
        remove_dir(dir);
}

/* The limit cuts one write short, within or at the end of an aligned piece; the next one fails: one
 * in the middle, the last one, or one that is only asked about at the end. */
static void test_write_fails(void **state)
{
        static const rlim_t limits[] = {100000, 262144, 300001, 524288};
        uint64_t random = 5;
        char dir[256], path[DFI_PATH_MAX];
        struct rlimit was;

        (void)state;
        fill_model(3);
        (void)snprintf(path, sizeof(path), "%s/f", temp_dir(dir));
        (void)signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
        for (size_t i = 0; i < 3 * sizeof(limits) / sizeof(limits[0]); i++) {
                struct rlimit tight = {limits[i / 3], was.rlim_max};
                const size_t lens[] = {600000, limits[i / 3] + 1, 786432};
                size_t len = lens[i % 3];
                struct dfi_file file;
                struct df_error e = {0};
                int rc;

                assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
                rc = write_model(path, len, &random, &file, &e);
                assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
                assert_int_equal(rc, DF_EIO);
                assert_non_null(strstr(e.text, path));
                assert_int_equal(unlink(path), 0);
                ok(write_model(path, len, &random, &file, err));
                check(path, len, &file, 3);
                assert_int_equal(unlink(path), 0);
        }
        remove_dir(dir);
}

static void test_create_fails(void **state)
{
        char dir[256], path[DFI_PATH_MAX];
        struct dfi_direct *d;

        (void)state;
        (void)snprintf(path, sizeof(path), "%s/f", temp_dir(dir));
        overwrite(path, "other", 5);
        refuses(DF_EIO, path, dfi_direct_create(path, &d, err));
        assert_int_equal(read_back(path), 5); /* it is not ours */
        remove_dir(dir);
        refuses(DF_EIO, "cannot create", dfi_direct_create(path, &d, err));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_lengths),
                cmocka_unit_test(test_lengths_in_memory),
                cmocka_unit_test(test_write_fails),
                cmocka_unit_test(test_create_fails),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
