/* dedupe_index.c - what is in memory of a stored run: of each block its first key, and bits.
 *
 * A question that the filter lets through costs a block of each run that may hold the id, most
 * often from the disk. Of those for ids that no run holds, three in 10,000 of all (dedupe_tags.c),
 * the bits answer 23 out of 24: 7 for each id of a block, three of which it sets, so that another
 * id finds all set with (1 - e^(-3/7))^3 = 4 %. They come from parts of the key that neither the
 * filter's first line nor its tag comes from: whom it mistook, they would mistake again.
 */
#include <stdlib.h>

#include "operators/dedupe_private.h"

#define BITS_AN_ID 7
#define PLACES 3

static uint32_t words(const struct adi_dedupe *d)
{
        return (d->block_ids * BITS_AN_ID + 63) / 64;
}

uint64_t adi_index_bytes(const struct adi_dedupe *d, uint32_t blocks)
{
        return blocks * (sizeof(struct adi_key) + words(d) * sizeof(uint64_t));
}

int adi_index_open(const struct adi_dedupe *d, struct adi_run *r, uint64_t blocks,
                   struct df_error *err)
{
        r->index = malloc(blocks * sizeof(*r->index));
        r->bits = calloc(blocks * words(d), sizeof(*r->bits));
        return r->index && r->bits ? 0
                                   : df_fail(err, DF_ENOMEM, "dedupe: an index of %llu blocks",
                                             (unsigned long long)blocks);
}

void adi_index_release(struct adi_run *r)
{
        free(r->index);
        free(r->bits);
        r->index = NULL;
        r->bits = NULL;
}

struct places {
        uint32_t at[PLACES];
};

/* Multiplied up instead of a remainder. */
static struct places places_of(const struct adi_dedupe *d, uint64_t hi, uint64_t lo)
{
        const uint32_t parts[PLACES] = {(uint32_t)(lo >> 32), (uint32_t)hi, (uint32_t)lo};
        uint64_t bits = words(d) * 64;
        struct places p;

        for (unsigned i = 0; i < PLACES; i++)
                p.at[i] = (uint32_t)(parts[i] * bits >> 32);
        return p;
}

static bool is_set(const uint64_t *bits, uint32_t at)
{
        return bits[at / 64] >> at % 64 & 1;
}

void adi_index_note(const struct adi_dedupe *d, const struct adi_run *r, uint32_t block,
                    const struct adi_id *ids, uint32_t count)
{
        uint64_t *bits = r->bits + (uint64_t)block * words(d);

        r->index[block] = (struct adi_key){ids[0].hi, ids[0].lo};
        for (uint32_t i = 0; i < count; i++) {
                struct places p = places_of(d, ids[i].hi, ids[i].lo);

                for (unsigned k = 0; k < PLACES; k++)
                        bits[p.at[k] / 64] |= (uint64_t)1 << p.at[k] % 64;
        }
}

bool adi_index_find(const struct adi_dedupe *d, const struct adi_run *r, struct df_hash128 key,
                    uint32_t *ret_block)
{
        struct places p = places_of(d, key.hi, key.lo);
        uint32_t lo = 0, hi = r->blocks;
        const uint64_t *bits;

        while (lo < hi) { /* the first block that begins after key */
                uint32_t mid = lo + (hi - lo) / 2;

                if (adi_key_cmp(r->index[mid].hi, r->index[mid].lo, key.hi, key.lo) <= 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        if (lo == 0)
                return false;
        *ret_block = lo - 1;
        bits = r->bits + (uint64_t)*ret_block * words(d);
        for (unsigned k = 0; k < PLACES; k++)
                if (!is_set(bits, p.at[k]))
                        return false;
        return true;
}
