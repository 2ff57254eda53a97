/* dedupe_set.c - the ids of the open hours: one open-addressing hash set.
 *
 * Linear probing over entries of 32 bytes (40 for billing), at most half full. The key is a hash
 * already: its top bits place it, so that the table lies almost in the order of a run. An id that
 * occurred in two open hours has two entries in the same chain: one pass over the chain answers for
 * all hours.
 * Entries leave by hour only (adi_set_keep), never singly.
 */
#include <stdlib.h>

#include "operators/dedupe_private.h"

#define FIRST_SLOTS 4096
/* Small tasks stay small: what a larger step leaves empty is zeroed all the same. A large one grows
 * once or twice: moving ids in and out of the cache costs more. */
#define SMALL_SLOTS (1u << 18)
#define SMALL_GROWTH 2
#define GROWTH 8
#define INSERTION_MAX 64 /* places an id is moved: beyond it (keys made to collide) qsort */

static size_t slots_for(size_t ids)
{
        size_t n = 16;

        while (n < 2 * ids)
                n *= 2;
        return n;
}

static int set_alloc(struct adi_set *s, size_t limit, size_t slots, struct df_error *err)
{
        int rc;

        *s = (struct adi_set){
                .limit = limit, .mask = slots - 1, .shift = 64 - (unsigned)__builtin_ctzll(slots)};
        rc = df_pages_alloc(&s->table, slots * sizeof(*s->slots), true, err);
        s->slots = s->table.data;
        return rc;
}

int adi_set_open(struct adi_set *s, size_t limit, struct df_error *err)
{
        size_t n = slots_for(limit);

        df_check(limit > 0);
        return set_alloc(s, limit, n < FIRST_SLOTS ? n : FIRST_SLOTS, err);
}

void adi_set_release(struct adi_set *s)
{
        df_pages_free(&s->table);
        *s = (struct adi_set){0};
}

void adi_set_seek(const struct adi_set *s, struct df_hash128 key, int64_t own, int64_t from,
                  int64_t to, struct adi_seen *ret)
{
        uint64_t own_mark = adi_hour_mark(own);
        uint64_t first = adi_hour_mark(from), last = adi_hour_mark(to), best = 0;
        uint64_t i = adi_set_home(s, key.hi);

        *ret = (struct adi_seen){0};
        for (; s->slots[i].hour; i = (i + 1) & s->mask) {
                struct adi_slot *slot = &s->slots[i];

                if (slot->id.hi != key.hi || slot->id.lo != key.lo)
                        continue;
                if (slot->hour == own_mark)
                        ret->own = slot;
                if (slot->hour >= first && slot->hour <= last && slot->hour > best) {
                        best = slot->hour;
                        ret->id = slot->id;
                }
        }
        ret->end = &s->slots[i];
        ret->found = best != 0;
        ret->hour = ret->found ? adi_mark_hour(best) : 0;
}

static void put(struct adi_set *s, const struct adi_slot *slot)
{
        uint64_t i = adi_set_home(s, slot->id.hi);

        while (s->slots[i].hour)
                i = (i + 1) & s->mask;
        s->slots[i] = *slot;
        s->count++;
}

static int grow(struct adi_set *s, struct df_error *err)
{
        size_t now = s->mask + 1, most = slots_for(s->limit);
        size_t n = now * (now < SMALL_SLOTS ? SMALL_GROWTH : GROWTH);
        struct adi_set larger;
        int rc = set_alloc(&larger, s->limit, n < most ? n : most, err);

        if (rc < 0)
                return rc;
        for (uint64_t i = 0; i <= s->mask; i++)
                if (s->slots[i].hour)
                        put(&larger, &s->slots[i]);
        df_check(larger.count == s->count);
        df_pages_free(&s->table);
        *s = larger;
        return 0;
}

int adi_set_add(struct adi_set *s, const struct adi_id *id, int64_t hour, struct adi_slot *at,
                struct df_error *err)
{
        struct adi_slot slot = {*id, adi_hour_mark(hour)};

        df_check(!adi_set_full(s));
        if (2 * (s->count + 1) > s->mask + 1) {
                int rc = grow(s, err);

                at = NULL;
                if (rc < 0)
                        return rc;
        }
        if (at) {
                *at = slot;
                s->count++;
        } else {
                put(s, &slot);
        }
        return 0;
}

static int compare(const void *a, const void *b)
{
        const struct adi_id *x = a, *y = b;

        return adi_key_cmp(x->hi, x->lo, y->hi, y->lo);
}

/* Room for one more in order; false: it is far from its place, and stands last. */
static bool insert(struct adi_id *ids, size_t n, const struct adi_id *id)
{
        size_t j = n;

        while (j > 0 && adi_key_cmp(ids[j - 1].hi, ids[j - 1].lo, id->hi, id->lo) > 0)
                if (n - --j > INSERTION_MAX)
                        break;
        if (n - j > INSERTION_MAX) {
                ids[n] = *id;
                return false;
        }
        if (j < n)
                memmove(&ids[j + 1], &ids[j], (n - j) * sizeof(*ids));
        ids[j] = *id;
        return true;
}

void adi_set_sorted(const struct adi_set *s, int64_t hour, size_t count, struct adi_id *ids)
{
        uint64_t mark = adi_hour_mark(hour);
        bool sorted = true;
        size_t n = 0;

        for (uint64_t i = 0; i <= s->mask; i++)
                if (s->slots[i].hour == mark && adi_set_home(s, s->slots[i].id.hi) <= i)
                        sorted &= insert(ids, n++, &s->slots[i].id);
        /* Those that found the end of the table full stand in its first chain. */
        for (uint64_t i = 0; s->slots[i].hour; i++)
                if (s->slots[i].hour == mark && adi_set_home(s, s->slots[i].id.hi) > i)
                        sorted &= insert(ids, n++, &s->slots[i].id);
        df_check(n == count);
        if (!sorted)
                qsort(ids, n, sizeof(*ids), compare);
}

int adi_set_keep(struct adi_set *s, int64_t from, int64_t to, struct df_error *err)
{
        uint64_t first = adi_hour_mark(from), last = adi_hour_mark(to);
        struct adi_slot *kept;
        size_t n = 0, k = 0;

        for (uint64_t i = 0; from <= to && i <= s->mask; i++)
                n += s->slots[i].hour >= first && s->slots[i].hour <= last;
        if (n == s->count)
                return 0;
        if (n == 0) {
                memset(s->slots, 0, (s->mask + 1) * sizeof(*s->slots));
                s->count = 0;
                return 0;
        }
        kept = malloc(n * sizeof(*kept));
        if (!kept)
                return df_fail(err, DF_ENOMEM, "dedupe: %zu ids of the open hours", n);
        for (uint64_t i = 0; i <= s->mask; i++)
                if (s->slots[i].hour >= first && s->slots[i].hour <= last)
                        kept[k++] = s->slots[i];
        memset(s->slots, 0, (s->mask + 1) * sizeof(*s->slots));
        s->count = 0;
        for (size_t i = 0; i < n; i++)
                put(s, &kept[i]);
        free(kept);
        return 0;
}
