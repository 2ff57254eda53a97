#include "jobs/api/map.h"

#include <endian.h>
#include <stdlib.h>

#include "df/hash.h"

#define SLOTS_MIN 64
#define SORT_MIN 8         /* fewer are compared whole */
#define SORT_DEPTH_MAX 512 /* bytes: bounds the recursion, whatever the keys */

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

        while (m->slots[i].entry &&
               (m->slots[i].hash != hash || !df_bytes_eq(m->slots[i].entry->key, key)))
                i = (i + 1) & (m->slot_count - 1);
        return i;
}

static bool grow(struct ad_map *m)
{
        size_t count = m->slot_count ? m->slot_count * 2 : SLOTS_MIN;
        struct ad_map_slot *slots = df_arena_zalloc(m->arena, count * sizeof(*slots));

        if (!slots)
                return false;
        for (size_t old = 0; old < m->slot_count; old++) { /* all are different */
                size_t i = m->slots[old].hash & (count - 1);

                if (!m->slots[old].entry)
                        continue;
                while (slots[i].entry)
                        i = (i + 1) & (count - 1);
                slots[i] = m->slots[old];
        }
        m->slots = slots;
        m->slot_count = count;
        return true;
}

void *ad_map_find(const struct ad_map *m, struct df_bytes key)
{
        size_t i;

        if (m->slot_count == 0)
                return NULL;
        i = slot_of(m, key, df_hash64(key));
        return m->slots[i].entry ? m->slots[i].entry->value : NULL;
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
        if (m->slots[i].entry)
                return m->slots[i].entry->value;
        e = df_arena_alloc(m->arena, sizeof(*e) + m->value_bytes + key.len);
        if (!e)
                return NULL;
        memset(e, 0, sizeof(*e) + m->value_bytes);
        copy = e->value + m->value_bytes;
        if (key.len)
                memcpy(copy, key.data, key.len);
        e->key = df_bytes(copy, key.len);
        e->hash = hash;
        m->slots[i] = (struct ad_map_slot){hash, e};
        if (m->last)
                m->last->next = e;
        else
                m->first = e;
        m->last = e;
        m->count++;
        *ret_new = true;
        return e->value;
}

/* ---- sorting: by eight bytes at a time, so that most comparisons are of numbers ---- */

struct sorted {
        uint64_t head; /* the key's eight bytes at the depth, zeros behind its end */
        struct ad_map_entry *entry;
};

static uint64_t head_at(struct df_bytes key, size_t depth)
{
        uint8_t bytes[8] = {0};
        uint64_t head;

        if (key.len > depth)
                memcpy(bytes, key.data + depth, key.len - depth < 8 ? key.len - depth : 8);
        memcpy(&head, bytes, 8);
        return be64toh(head);
}

static int by_head(const void *a, const void *b)
{
        const struct sorted *x = a, *y = b;

        return (x->head > y->head) - (x->head < y->head);
}

static int by_key(const void *a, const void *b)
{
        const struct sorted *x = a, *y = b;

        return df_bytes_cmp(x->entry->key, y->entry->key);
}

/* Equal heads are few entries or a longer common beginning. */
static void sort_from(struct sorted *list, size_t count, size_t depth)
{
        if (count < SORT_MIN || depth > SORT_DEPTH_MAX) {
                qsort(list, count, sizeof(*list), by_key);
                return;
        }
        for (size_t i = 0; i < count; i++)
                list[i].head = head_at(list[i].entry->key, depth);
        qsort(list, count, sizeof(*list), by_head);
        for (size_t from = 0, to; from < count; from = to) {
                for (to = from + 1; to < count && list[to].head == list[from].head; to++)
                        ;
                if (to - from > 1)
                        sort_from(list + from, to - from, depth + 8);
        }
}

struct ad_map_entry **ad_map_sorted(const struct ad_map *m)
{
        struct ad_map_entry **all =
                df_arena_alloc(m->arena, (m->count + 1) * sizeof(struct ad_map_entry *));
        struct sorted *list = df_arena_alloc(m->arena, (m->count + 1) * sizeof(*list));
        size_t n = 0;

        if (!all || !list)
                return NULL;
        for (struct ad_map_entry *e = m->first; e; e = e->next)
                list[n++].entry = e;
        sort_from(list, n, 0);
        for (size_t i = 0; i < n; i++)
                all[i] = list[i].entry;
        return all;
}
