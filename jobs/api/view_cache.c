/* view_cache.c - what was read or written of the view last, so that a cell that changes every
 * second is not looked up in the store each time.
 *
 * A ring of bytes holds key and value, one behind the other; places count up for ever and lie in
 * the ring at their rest. A table of sets of four slots finds them. What the ring overwrites, and
 * what a full set drops, is read from the store again: the cache may lose anything at any time.
 * What is rewritten goes to the head once it is in the older half, so that hot cells stay.
 */
#include <stdlib.h>

#include "df/hash.h"
#include "jobs/api/view_private.h"

#define WAYS 4
#define BYTES_MIN (1u << 20)
#define ENTRY_BYTES 64 /* of the ring for a slot: entries are longer, so slots suffice */
#define PLACE_BITS 48  /* of a slot, in units of eight bytes; the rest is a piece of the hash */
#define PLACE_MASK ((1ull << PLACE_BITS) - 1)

struct entry {
        uint16_t key_len, value_len, cap; /* cap: of the value */
        uint8_t bytes[];
};

int adi_cache_open(struct adi_cache *c, uint64_t bytes, struct df_error *err)
{
        uint64_t sets = 1;

        bytes = (bytes < BYTES_MIN ? BYTES_MIN : bytes) & ~7ull;
        while (sets * WAYS * ENTRY_BYTES < bytes)
                sets *= 2;
        *c = (struct adi_cache){.size = bytes, .set_mask = sets - 1, .head = 8};
        c->slots = calloc(sets * WAYS, sizeof(*c->slots));
        c->ring = malloc(bytes); /* the kernel gives memory only as it fills */
        return c->slots && c->ring ? 0 : df_fail(err, DF_ENOMEM, "cells of the view");
}

void adi_cache_close(struct adi_cache *c)
{
        free(c->slots);
        free(c->ring);
        *c = (struct adi_cache){0};
}

static struct entry *entry_at(const struct adi_cache *c, uint64_t place)
{
        return (struct entry *)(void *)(c->ring + place % c->size);
}

/* Of the set: the slot with the key, or NULL; *ret_victim is the one to give up otherwise. */
static uint64_t *find(const struct adi_cache *c, struct df_bytes key, uint64_t hash,
                      uint64_t **ret_victim)
{
        uint64_t *set = c->slots + (hash & c->set_mask) * WAYS, oldest = UINT64_MAX;

        for (int i = 0; i < WAYS; i++) {
                uint64_t place = (set[i] & PLACE_MASK) * 8;
                bool alive = place > 0 && c->head <= place + c->size;

                if (alive && set[i] >> PLACE_BITS == hash >> PLACE_BITS) {
                        const struct entry *e = entry_at(c, place);

                        if (df_bytes_eq(df_bytes(e->bytes, e->key_len), key))
                                return &set[i];
                }
                if (!alive)
                        place = 0;
                if (place < oldest) {
                        oldest = place;
                        *ret_victim = &set[i];
                }
        }
        return NULL;
}

bool adi_cache_get(const struct adi_cache *c, struct df_bytes key, uint64_t since,
                   struct df_bytes *ret)
{
        uint64_t *victim, *slot = find(c, key, df_hash64(key), &victim);
        const struct entry *e;
        uint64_t place;

        if (!slot)
                return false;
        place = (*slot & PLACE_MASK) * 8;
        if (place < since)
                return false;
        e = entry_at(c, place);
        *ret = df_bytes(e->bytes + e->key_len, e->value_len);
        return true;
}

void adi_cache_put(struct adi_cache *c, struct df_bytes key, struct df_bytes value)
{
        size_t cap = (value.len + 15) & ~(size_t)7; /* it will grow */
        size_t need = (sizeof(struct entry) + key.len + cap + 7) & ~(size_t)7;
        uint64_t hash = df_hash64(key), *victim = NULL, *slot = find(c, key, hash, &victim);
        struct entry *e;

        if (slot) {
                uint64_t place = (*slot & PLACE_MASK) * 8;

                e = entry_at(c, place);
                if (value.len <= e->cap && c->head - place < c->size / 2) {
                        e->value_len = (uint16_t)value.len;
                        if (value.len)
                                memcpy(e->bytes + e->key_len, value.data, value.len);
                        return;
                }
                victim = slot;
        }
        if (key.len + cap > UINT16_MAX) { /* an old value must not be found */
                *victim = 0;
                return;
        }
        if (c->head % c->size + need > c->size) /* an entry lies in one piece */
                c->head += c->size - c->head % c->size;
        e = entry_at(c, c->head);
        *e = (struct entry){(uint16_t)key.len, (uint16_t)value.len, (uint16_t)cap};
        memcpy(e->bytes, key.data, key.len);
        if (value.len)
                memcpy(e->bytes + key.len, value.data, value.len);
        *victim = (c->head / 8) | (hash >> PLACE_BITS << PLACE_BITS);
        c->head += need;
}
