#include "jobs/api/map.h"

#include <stdlib.h>

#include "df/hash.h"

#define SLOTS_MIN 64

void ad_map_init(struct ad_map *m, struct df_arena *arena, size_t value_bytes)
{
        *m = (struct ad_map){.arena = arena, .value_bytes = value_bytes};
}

void ad_map_clear(struct ad_map *m)
{
        ad_map_init(m, m->arena, m->value_bytes);
}

static size_t slot_of(const struct ad_map *m, struct df_bytes key, uint64_t hash)
{
        size_t i = hash & (m->slot_count - 1);

        while (m->slots[i] && (m->slots[i]->hash != hash || !df_bytes_eq(m->slots[i]->key, key)))
                i = (i + 1) & (m->slot_count - 1);
        return i;
}

static bool grow(struct ad_map *m)
{
        size_t count = m->slot_count ? m->slot_count * 2 : SLOTS_MIN;
        struct ad_map_entry **slots = df_arena_zalloc(m->arena, count * sizeof(*slots));

        if (!slots)
                return false;
        m->slots = slots;
        m->slot_count = count;
        for (struct ad_map_entry *e = m->first; e; e = e->next)
                slots[slot_of(m, e->key, e->hash)] = e;
        return true;
}

void *ad_map_find(const struct ad_map *m, struct df_bytes key)
{
        size_t i;

        if (m->slot_count == 0)
                return NULL;
        i = slot_of(m, key, df_hash64(key));
        return m->slots[i] ? m->slots[i]->value : NULL;
}

void *ad_map_put(struct ad_map *m, struct df_bytes key, bool *ret_new)
{
        uint64_t hash = df_hash64(key);
        struct ad_map_entry *e;
        uint8_t *copy;
        size_t i;

        *ret_new = false;
        if (m->count * 2 >= m->slot_count && !grow(m))
                return NULL;
        i = slot_of(m, key, hash);
        if (m->slots[i])
                return m->slots[i]->value;
        e = df_arena_alloc(m->arena, sizeof(*e) + m->value_bytes + key.len);
        if (!e)
                return NULL;
        memset(e, 0, sizeof(*e) + m->value_bytes);
        copy = e->value + m->value_bytes;
        if (key.len)
                memcpy(copy, key.data, key.len);
        e->key = df_bytes(copy, key.len);
        e->hash = hash;
        m->slots[i] = e;
        if (m->last)
                m->last->next = e;
        else
                m->first = e;
        m->last = e;
        m->count++;
        *ret_new = true;
        return e->value;
}

static int by_key(const void *a, const void *b)
{
        const struct ad_map_entry *const *x = a, *const *y = b;

        return df_bytes_cmp((*x)->key, (*y)->key);
}

struct ad_map_entry **ad_map_sorted(const struct ad_map *m)
{
        struct ad_map_entry **all =
                df_arena_alloc(m->arena, (m->count + 1) * sizeof(struct ad_map_entry *));
        size_t n = 0;

        if (!all)
                return NULL;
        for (struct ad_map_entry *e = m->first; e; e = e->next)
                all[n++] = e;
        qsort(all, n, sizeof(*all), by_key);
        return all;
}
