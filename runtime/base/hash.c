#include "df/hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#ifdef __SSE4_2__
#include <nmmintrin.h>
#endif

uint64_t df_hash64(struct df_bytes b)
{
        return XXH3_64bits(b.data, b.len);
}

struct df_hash128 df_hash128(struct df_bytes b)
{
        XXH128_hash_t h = XXH3_128bits(b.data, b.len);

        return (struct df_hash128){.lo = h.low64, .hi = h.high64};
}

/* H(digest || len || bytes) without joining them: the record's own hash stands for its bytes. */
struct df_hash128 df_digest_add(struct df_hash128 digest, struct df_bytes record)
{
        struct df_hash128 h = df_hash128(record);
        uint64_t words[5] = {digest.lo, digest.hi, record.len, h.lo, h.hi};
        uint8_t bytes[40];

        for (size_t i = 0; i < 40; i++)
                bytes[i] = (uint8_t)(words[i / 8] >> (8 * (i % 8)));
        return df_hash128(df_bytes(bytes, sizeof(bytes)));
}

#ifdef __SSE4_2__
uint32_t df_crc32c(uint32_t crc, struct df_bytes b)
{
        uint64_t c = ~crc;

        for (; b.len >= 8; b.data += 8, b.len -= 8) {
                uint64_t word;

                memcpy(&word, b.data, 8);
                c = _mm_crc32_u64(c, word);
        }
        for (; b.len > 0; b.data++, b.len--)
                c = _mm_crc32_u8((uint32_t)c, *b.data);
        return ~(uint32_t)c;
}
#else
/* The reflected polynomial 0x82f63b78, four bits a step. */
static const uint32_t crc_table[16] = {
        0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3,
        0x61c69362, 0x7198540d, 0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9,
        0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75,
};

uint32_t df_crc32c(uint32_t crc, struct df_bytes b)
{
        uint32_t c = ~crc;

        for (size_t i = 0; i < b.len; i++) {
                c ^= b.data[i];
                c = c >> 4 ^ crc_table[c & 15];
                c = c >> 4 ^ crc_table[c & 15];
        }
        return ~c;
}
#endif
