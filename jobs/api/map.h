/* map.h - a hash map from bytes to fixed-size values, in an arena.
 *
 * Entries keep their place (pointers stay valid until clear), are walked in the order of insertion,
 * and cannot be removed. Keys are copied. Thread: one at a time. Errors: NULL when out of memory or
 * over the arena's limit; the map stays usable.
 */
#ifndef AD_MAP_H
#define AD_MAP_H

#include "df/arena.h"

struct ad_map_entry {
        struct df_bytes key;
        uint64_t hash;
        struct ad_map_entry *next; /* in order of insertion */
        _Alignas(16) uint8_t value[];
};

struct ad_map_slot { /* the hash beside the pointer: probing reads no entry in vain */
        uint64_t hash;
        struct ad_map_entry *entry;
};

struct ad_map {
        struct df_arena *arena; /* borrowed */
        size_t value_bytes;
        struct ad_map_slot *slots; /* in the arena */
        size_t slot_count, count;
        struct ad_map_entry *first, *last;
};

void ad_map_init(struct ad_map *m, struct df_arena *arena, size_t value_bytes);
/* The value of the key; a new one is zero. */
void *ad_map_put(struct ad_map *m, struct df_bytes key, bool *ret_new);
void *ad_map_find(const struct ad_map *m, struct df_bytes key); /* or NULL */
/* After the arena was reset. */
void ad_map_clear(struct ad_map *m);
/* All entries, sorted by key, in the arena; NULL when out of memory. */
struct ad_map_entry **ad_map_sorted(const struct ad_map *m);

#endif
