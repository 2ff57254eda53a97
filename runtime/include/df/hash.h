/* hash.h - the hashes of the product. df_hash64 and df_hash128 are XXH3 (seed 0), part of stored
 * formats: never change one. None is cryptographic; SHA-256 (df/sha256.h) names files and segments.
 */
#ifndef DF_HASH_H
#define DF_HASH_H

#include "df/bytes.h"

struct df_hash128 {
        uint64_t lo;
        uint64_t hi;
};

uint64_t df_hash64(struct df_bytes b);
struct df_hash128 df_hash128(struct df_bytes b);

static inline bool df_hash128_eq(struct df_hash128 a, struct df_hash128 b)
{
        return a.lo == b.lo && a.hi == b.hi;
}

/* Both halves of the product of a and b in one number: what tables in memory and fingerprints that
 * stay inside one state are made with, word by word. 0 when a or b is. */
static inline uint64_t df_hash_fold(uint64_t a, uint64_t b)
{
        unsigned __int128 m = (unsigned __int128)a * b;

        return (uint64_t)m ^ (uint64_t)(m >> 64);
}

/* Fold one more record into a running digest: digest' = H(digest || len || H(bytes)).
 * The empty digest is {0, 0}. */
struct df_hash128 df_digest_add(struct df_hash128 digest, struct df_bytes record);

/* CRC-32C (Castagnoli) of b, continued from crc (0 to start). */
uint32_t df_crc32c(uint32_t crc, struct df_bytes b);

#endif
