/* test_hash.c - stored formats: every value here was computed outside this program (libxxhash, and
 * CRC-32C bit by bit). A change of any of them breaks stored state, so none may change. E3, D1, K6.
 */
#include "df/hash.h"

#include "unit.h"

#define DATA_MAX 4200

static uint8_t data[DATA_MAX + 16];

static int fill(void **state)
{
        (void)state;
        for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (uint8_t)(i * 7 + 1);
        return 0;
}

/* The lengths stand on both sides of each of XXH3's cases. */
static const struct {
        size_t len;
        uint64_t h64, lo, hi;
        uint32_t crc;
} vectors[] = {
        {0, 0x2d06800538d394c2, 0x6001c324468d497f, 0x99aa06d3014798d8, 0x00000000},
        {1, 0xe12ef9d2eb86ceeb, 0xe12ef9d2eb86ceeb, 0x51025a4491835505, 0xa016d052},
        {3, 0x5c83885a0fb5d516, 0x5c83885a0fb5d516, 0xf727126d6288a4bd, 0x0622ce98},
        {4, 0x244f36de481e7522, 0x217908f07519e96e, 0x6a20c426eb2da17d, 0x7cf5f5c0},
        {7, 0x01ecdca8db6a5bb3, 0x90ad467ea154449e, 0x6bc9856a896d24da, 0x08522a30},
        {8, 0x96cc97a6768fd7a9, 0x4506373ef0af21f8, 0xdd669d5507e0e940, 0xb34e718c},
        {9, 0x4781d83b8e99d495, 0xa51b142882780bcb, 0x781bfd0e8d95a9ad, 0xd52a7bf5},
        {16, 0x913bd4a8038027a7, 0x49bf196d35649b79, 0x6c53b945f90d6798, 0x84b3047f},
        {17, 0x2bf6f66973a6179d, 0x94ad051aea796d7e, 0xf889d91b7faf2082, 0xfe815f72},
        {128, 0xc4399c7829d0628f, 0xd480e3bdeadbf37f, 0x776e5a2cae08df3b, 0xbdaa3425},
        {129, 0x8433489056750b32, 0x6a4dda91524c13ef, 0xb550da2f04225655, 0x3711dbdc},
        {240, 0x3c0bb96864e543a1, 0x4f23bfd3609734e8, 0x3f558c88fda1da66, 0x6ce52db2},
        {241, 0xbff7215089202d8f, 0xbff7215089202d8f, 0x9ea4272027cb71fc, 0x61fccb56},
        {1024, 0xac8e32e4ea3ba062, 0xac8e32e4ea3ba062, 0x418876ca5eaea67d, 0x9a176ee6},
        {1025, 0xc856c953bbdbc807, 0xc856c953bbdbc807, 0xf66a602aa3eda73b, 0x651d88ce},
        {4099, 0x24691344566f604e, 0x24691344566f604e, 0x0cd4d891b3da54f8, 0x6c33ffa3},
};

static void hashes_match_known_values(void **state)
{
        (void)state;
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                struct df_bytes b = df_bytes(data, vectors[i].len);
                struct df_hash128 h = df_hash128(b);

                assert_int_equal(df_hash64(b), vectors[i].h64);
                assert_int_equal(h.lo, vectors[i].lo);
                assert_int_equal(h.hi, vectors[i].hi);
                assert_int_equal(df_crc32c(0, b), vectors[i].crc);
        }
        assert_int_equal(df_hash64(df_bytes(NULL, 0)), vectors[0].h64);
        assert_int_equal(df_crc32c(0, df_bytes(NULL, 0)), 0);
}

/* Partition and duplicate key must not depend on where the bytes lie in memory. */
static void hashes_ignore_alignment(void **state)
{
        uint8_t copy[240 + 16];

        (void)state;
        for (size_t shift = 0; shift < 16; shift++) {
                memcpy(copy + shift, data, 240);
                assert_int_equal(df_hash64(df_bytes(copy + shift, 240)), 0x3c0bb96864e543a1);
                assert_int_equal(df_crc32c(0, df_bytes(copy + shift, 240)), 0x6ce52db2);
        }
}

static void crc_matches_rfc3720(void **state)
{
        uint8_t block[32];

        (void)state;
        assert_int_equal(df_crc32c(0, df_bytes_str("123456789")), 0xe3069283);
        memset(block, 0, sizeof(block));
        assert_int_equal(df_crc32c(0, df_bytes(block, 32)), 0x8a9136aa);
        memset(block, 0xff, sizeof(block));
        assert_int_equal(df_crc32c(0, df_bytes(block, 32)), 0x62a8ab43);
        for (uint8_t i = 0; i < 32; i++)
                block[i] = i;
        assert_int_equal(df_crc32c(0, df_bytes(block, 32)), 0x46dd794e);
}

static void crc_continues_at_every_cut(void **state)
{
        (void)state;
        for (size_t cut = 0; cut <= 241; cut++) {
                uint32_t crc = df_crc32c(0, df_bytes(data, cut));

                assert_int_equal(df_crc32c(crc, df_bytes(data + cut, 241 - cut)), 0x61fccb56);
        }
}

static void digest_matches_known_chain(void **state)
{
        static const struct df_hash128 want[] = {
                {.lo = 0xf37c8027575f2673, .hi = 0xb8bbfdd297201b8d},
                {.lo = 0xbfa7a08d07669d37, .hi = 0x51adf601166dfed4},
                {.lo = 0xde2055dd3b9e33d5, .hi = 0x28dfdde6380e441b},
        };
        struct df_bytes records[] = {df_bytes(NULL, 0), df_bytes_str("a"), df_bytes(data, 300)};
        struct df_hash128 digest = {0};

        (void)state;
        for (size_t i = 0; i < 3; i++) {
                digest = df_digest_add(digest, records[i]);
                assert_true(df_hash128_eq(digest, want[i]));
        }
}

/* "ab" + "c" is not "a" + "bc", nor "abc", nor the other order; an empty record counts. */
static void digest_keeps_record_bounds(void **state)
{
        static const char *const lists[][3] = {{"ab", "c"},    {"a", "bc"},     {"abc"},
                                               {"c", "ab"},    {"ab", "c", ""}, {"", "ab", "c"},
                                               {"ab", "", "c"}};
        struct df_hash128 digests[7] = {{0}};

        (void)state;
        for (size_t i = 0; i < 7; i++)
                for (size_t j = 0; j < 3 && lists[i][j]; j++)
                        digests[i] = df_digest_add(digests[i], df_bytes_str(lists[i][j]));
        for (size_t i = 0; i < 7; i++)
                for (size_t j = 0; j < i; j++)
                        assert_false(df_hash128_eq(digests[i], digests[j]));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(hashes_match_known_values),
                cmocka_unit_test(hashes_ignore_alignment),
                cmocka_unit_test(crc_matches_rfc3720),
                cmocka_unit_test(crc_continues_at_every_cut),
                cmocka_unit_test(digest_matches_known_chain),
                cmocka_unit_test(digest_keeps_record_bounds),
        };

        return cmocka_run_group_tests(tests, fill, NULL);
}
