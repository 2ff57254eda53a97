/* test_sha256.c - SHA-256 against values computed elsewhere; files, hex, comparison. K2, A2. */
#include "df/sha256.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "unit.h"

static const struct {
        size_t len;
        const char *hex;
} vectors[] = {
        {0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {63, "bbba992d2c85af960fb2987a1fd05e0aa82a3db3c740dd8982a9e273b75e36a3"},
        {64, "66bd4633ed6f71c4ecfa4763bf7ba1c8ec7612de9aa6c0578a7b675207c71e0b"},
        {65, "9f7dc47107b750a1f3d35db5d9547f24ef40da5b731b9540d4f43710a154f6c9"},
        {65536, "0639894dc09841799245c64d7cb3c4c2241ce6ed4927b026c8b2426d759a0a9c"},
        {65537, "49eb2b54b404f188a584dee823b4d10b14fd5a59878399e59421e542a268d339"},
        {200000, "ccebd708c91eb830f61654b04d952e4de9911ac03e9eec182d76a924c555827c"},
};

static uint8_t data[200000];

static int fill(void **state)
{
        (void)state;
        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (uint8_t)(i * 7 + 1);
        return 0;
}

static void assert_hex(const uint8_t hash[DF_SHA256_SIZE], const char *want)
{
        char hex[DF_SHA256_HEX_SIZE];

        df_hex(hash, DF_SHA256_SIZE, hex);
        assert_string_equal(hex, want);
}

static void bytes_match_known_values(void **state)
{
        uint8_t hash[DF_SHA256_SIZE];
        struct df_error err = {0};

        (void)state;
        assert_int_equal(df_sha256(df_bytes_str("abc"), hash, &err), 0);
        assert_hex(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_int_equal(df_sha256(df_bytes(NULL, 0), hash, &err), 0);
        assert_hex(hash, vectors[0].hex);
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                assert_int_equal(df_sha256(df_bytes(data, vectors[i].len), hash, &err), 0);
                assert_hex(hash, vectors[i].hex);
        }
}

static void pieces_match_known_values(void **state)
{
        uint8_t hash[DF_SHA256_SIZE];
        struct df_error err = {0};

        (void)state;
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                struct df_sha256_stream *s = df_sha256_new(&err);

                assert_non_null(s);
                for (size_t at = 0, n; at < vectors[i].len; at += n) {
                        n = at % 777 + 1;
                        n = n < vectors[i].len - at ? n : vectors[i].len - at;
                        assert_int_equal(df_sha256_add(s, df_bytes(data + at, n), &err), 0);
                }
                assert_int_equal(df_sha256_end(s, hash, &err), 0);
                assert_hex(hash, vectors[i].hex);
        }
        assert_int_equal(df_sha256_end(NULL, NULL, &err), 0);
}

static void files_match_known_values(void **state)
{
        char path[4096];
        const char *dir = getenv("TMPDIR");
        struct df_error err = {0};
        int fd;

        (void)state;
        (void)snprintf(path, sizeof(path), "%s/test_sha256.XXXXXX", dir ? dir : "/tmp");
        fd = mkstemp(path);
        assert_true(fd >= 0);
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                uint8_t hash[DF_SHA256_SIZE];
                uint64_t size = 7;

                assert_int_equal(pwrite(fd, data, vectors[i].len, 0), vectors[i].len);
                assert_int_equal(ftruncate(fd, (off_t)vectors[i].len), 0);
                assert_int_equal(df_sha256_file(path, hash, &size, &err), 0);
                assert_hex(hash, vectors[i].hex);
                assert_int_equal(size, vectors[i].len);
        }
        close(fd);
        unlink(path);
}

static void file_errors_name_the_path(void **state)
{
        uint8_t hash[DF_SHA256_SIZE];
        struct df_error err = {0};
        uint64_t size = 7;

        (void)state;
        assert_int_equal(df_sha256_file("/nonexistent/x", hash, &size, &err), DF_ENOENT);
        assert_non_null(strstr(err.text, "/nonexistent/x"));
        assert_int_equal(df_sha256_file("/", hash, &size, &err), DF_EIO); /* a directory */
        assert_int_equal(size, 7);
}

static void hex_has_both_nibbles(void **state)
{
        const uint8_t in[] = {0x00, 0x0f, 0xf0, 0xa5, 0xff};
        char out[11];

        (void)state;
        df_hex(in, sizeof(in), out);
        assert_string_equal(out, "000ff0a5ff");
        df_hex(in, 0, out);
        assert_string_equal(out, "");
}

static void secrets_differ_at_every_bit(void **state)
{
        uint8_t a[32], b[32];

        (void)state;
        memset(a, 0x5a, sizeof(a));
        for (size_t bit = 0; bit < 256; bit++) {
                memcpy(b, a, sizeof(b));
                assert_true(df_equal_secret(df_bytes(a, 32), df_bytes(b, 32)));
                b[bit / 8] ^= (uint8_t)(1 << bit % 8);
                assert_false(df_equal_secret(df_bytes(a, 32), df_bytes(b, 32)));
        }
        assert_false(df_equal_secret(df_bytes(a, 32), df_bytes(a, 31)));
        assert_true(df_equal_secret(df_bytes(NULL, 0), df_bytes(NULL, 0)));
}

static void random_fills_all_and_no_more(void **state)
{
        uint8_t a[33] = {0}, b[33] = {0}, seen[32] = {0};
        struct df_error err = {0};

        (void)state;
        /* A byte stays 0 in 16 draws once in 2^128. */
        for (int draw = 0; draw < 16; draw++) {
                assert_int_equal(df_random(a, 32, &err), 0);
                for (size_t i = 0; i < 32; i++)
                        seen[i] |= a[i];
        }
        for (size_t i = 0; i < 32; i++)
                assert_int_not_equal(seen[i], 0);
        assert_int_equal(a[32], 0);
        assert_int_equal(df_random(b, 32, &err), 0);
        assert_memory_not_equal(a, b, 32);
        assert_int_equal(df_random(b, (size_t)1 << 32, &err), DF_EIO);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(bytes_match_known_values),
                cmocka_unit_test(pieces_match_known_values),
                cmocka_unit_test(files_match_known_values),
                cmocka_unit_test(file_errors_name_the_path),
                cmocka_unit_test(hex_has_both_nibbles),
                cmocka_unit_test(secrets_differ_at_every_bit),
                cmocka_unit_test(random_fills_all_and_no_more),
        };

        return cmocka_run_group_tests(tests, fill, NULL);
}
