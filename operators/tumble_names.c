/* tumble_names.c - the strings of dimensions and tenants, interned.
 *
 * An event names eight strings and three cells; each string is looked up once and the cells are
 * then found by numbers. A string of up to 15 bytes is its own hash table key (two words, no second
 * access); a longer one is compared with the bytes kept.
 * Names that no cell needs any more go when their number has doubled since the last sweep, so the
 * cost of a sweep is paid by the names that came in between.
 */
#include <stdlib.h>

#include "operators/tumble_private.h"

#define NAMES_MIN 256u

int adi_list_grow(struct adi_list *l, struct df_error *err)
{
        uint32_t cap = l->cap ? l->cap * 2 : 4;
        uint32_t *items;

        if (cap < l->cap)
                return df_fail(err, DF_ELIMIT, "tumble: a list of 2^32 numbers");
        items = realloc(l->items, cap * sizeof(*items));
        if (!items)
                return df_fail(err, DF_ENOMEM, "tumble: a list of %u numbers", cap);
        l->items = items;
        l->cap = cap;
        return 0;
}

void adi_list_release(struct adi_list *l)
{
        free(l->items);
        *l = (struct adi_list){0};
}

struct adi_name_word adi_name_word_long(struct df_bytes s)
{
        struct adi_name_word w = {df_load64(s.data + s.len - 8), s.len};

        for (size_t i = 0; i + 8 < s.len; i += 8) {
                uint64_t v = df_load64(s.data + i);

                w.a = df_hash_fold(w.a ^ v, 0xbf58476d1ce4e5b9u);
                w.b = df_hash_fold(w.b + v, 0x94d049bb133111ebu);
        }
        w.b |= 0xffULL << 56; /* no short string's */
        return w;
}

static int slots_alloc(uint32_t count, struct adi_name_slot **ret, struct df_error *err)
{
        *ret = calloc(count, sizeof(**ret));
        if (!*ret)
                return df_fail(err, DF_ENOMEM, "tumble: a table of %u names", count);
        return 0;
}

static void slot_put(struct adi_names *n, const struct adi_name_slot *slot)
{
        uint32_t i = adi_name_hash(slot->word) & n->mask;

        while (n->slots[i].used)
                i = (i + 1) & n->mask;
        n->slots[i] = *slot;
}

static int slots_grow(struct adi_names *n, struct df_error *err)
{
        struct adi_name_slot *old = n->slots;
        uint32_t old_count = n->mask + 1;
        int rc;

        if (old_count > UINT32_MAX / 4)
                return df_fail(err, DF_ELIMIT, "tumble: %u names at once", n->used);
        rc = slots_alloc(old_count * 2, &n->slots, err);
        if (rc < 0) {
                n->slots = old;
                return rc;
        }
        n->mask = old_count * 2 - 1;
        for (uint32_t i = 0; i < old_count; i++)
                if (old[i].used)
                        slot_put(n, &old[i]);
        free(old);
        return 0;
}

static int take_number(struct adi_names *n, uint32_t *ret, struct df_error *err)
{
        struct adi_name *grown;
        uint32_t cap;

        if (n->free.count > 0) {
                *ret = n->free.items[--n->free.count];
                return 0;
        }
        if (n->count == n->cap) {
                cap = n->cap ? n->cap * 2 : NAMES_MIN;
                grown = realloc(n->list, cap * sizeof(*grown));
                if (!grown)
                        return df_fail(err, DF_ENOMEM, "tumble: %u names", cap);
                n->list = grown;
                n->cap = cap;
        }
        *ret = n->count++;
        return 0;
}

int adi_names_add(struct adi_names *n, struct df_bytes s, struct adi_name_word w, uint32_t *ret,
                  struct df_error *err)
{
        struct adi_name *name;
        uint32_t number = 0;
        int rc = 0;

        df_check(s.len <= AD_ID_MAX);
        if ((n->used + 1) * 2 > n->mask)
                rc = slots_grow(n, err);
        if (rc == 0 && n->fresh.count == n->fresh.cap)
                rc = adi_list_grow(&n->fresh, err);
        if (rc == 0)
                rc = take_number(n, &number, err);
        if (rc < 0)
                return rc;
        name = &n->list[number];
        *name = (struct adi_name){.len = (uint8_t)s.len, .state = 1};
        if (s.len)
                memcpy(name->bytes, s.data, s.len);
        slot_put(n, &(struct adi_name_slot){w, number, 1});
        n->used++;
        n->fresh.items[n->fresh.count++] = number;
        *ret = number;
        return 0;
}

int adi_names_get(struct adi_names *n, struct df_bytes s, uint32_t *ret, struct df_error *err)
{
        struct adi_name_word w = adi_name_word(s);

        *ret = adi_names_find(n, s, w, adi_name_hash(w));
        return *ret == UINT32_MAX ? adi_names_add(n, s, w, ret, err) : 0;
}

int adi_names_init(struct adi_names *n, struct df_error *err)
{
        uint32_t number;
        int rc;

        *n = (struct adi_names){.mask = NAMES_MIN - 1};
        rc = slots_alloc(NAMES_MIN, &n->slots, err);
        if (rc == 0)
                rc = adi_names_get(n, df_bytes("", 0), &number, err);
        if (rc == 0) {
                df_check(number == ADI_NAME_EMPTY);
                rc = adi_names_get(n, df_bytes_str(AD_OTHER), &number, err);
        }
        if (rc == 0)
                df_check(number == ADI_NAME_OTHER);
        n->used_swept = n->used;
        return rc;
}

void adi_names_release(struct adi_names *n)
{
        free(n->list);
        free(n->slots);
        adi_list_release(&n->free);
        adi_list_release(&n->sorted);
        adi_list_release(&n->fresh);
        *n = (struct adi_names){0};
}

static int compare(const void *a, const void *b, void *arg)
{
        const struct adi_names *n = arg;

        return df_bytes_cmp(adi_name_bytes(n, *(const uint32_t *)a),
                            adi_name_bytes(n, *(const uint32_t *)b));
}

int adi_names_rank(struct adi_names *n, struct df_error *err)
{
        uint32_t old = n->sorted.count, total = old + n->fresh.count, at = total;

        if (n->fresh.count == 0)
                return 0;
        qsort_r(n->fresh.items, n->fresh.count, sizeof(uint32_t), compare, n);
        while (n->sorted.cap < total) {
                int rc = adi_list_grow(&n->sorted, err);

                if (rc < 0)
                        return rc;
        }
        while (n->fresh.count > 0) { /* merge from the back, in place */
                const uint32_t *a = &n->sorted.items[old - 1];
                const uint32_t *b = &n->fresh.items[n->fresh.count - 1];

                if (old > 0 && compare(a, b, n) > 0) {
                        n->sorted.items[--at] = *a;
                        old--;
                } else {
                        n->sorted.items[--at] = *b;
                        n->fresh.count--;
                }
        }
        n->sorted.count = total;
        for (uint32_t i = 0; i < total; i++)
                n->list[n->sorted.items[i]].rank = i;
        return 0;
}

static struct df_bytes string_at(const struct ad_event *ev, size_t offset)
{
        return *(const struct df_bytes *)((const char *)ev + offset);
}

/* Of all the same string, as it is of a dimension that nobody uses, or of a tenant's own topic. */
static int stage_one(struct adi_names *n, struct df_bytes string, uint32_t count, uint32_t *ret,
                     struct df_error *err)
{
        uint32_t name;
        int rc = adi_names_get(n, string, &name, err);

        for (uint32_t i = 0; rc == 0 && i < count; i++)
                ret[i] = name;
        return rc;
}

int adi_names_stage(struct adi_names *n, const struct ad_event *const *events, uint32_t count,
                    size_t offset, uint32_t *ret, struct df_error *err)
{
        struct adi_name_word words[ADI_STAGE];
        uint32_t hashes[ADI_STAGE];
        uint64_t differ = 0;

        for (uint32_t i = 0; i < count; i++) {
                words[i] = adi_name_word(string_at(events[i], offset));
                differ |= (words[i].a ^ words[0].a) | (words[i].b ^ words[0].b);
        }
        if (count > 0 && !differ && adi_name_word_is_exact(words[0]))
                return stage_one(n, string_at(events[0], offset), count, ret, err);
        for (uint32_t i = 0; i < count; i++) {
                hashes[i] = adi_name_hash(words[i]);
                __builtin_prefetch(&n->slots[hashes[i] & n->mask]);
        }
        for (uint32_t i = 0; i < count; i++) {
                struct df_bytes string = string_at(events[i], offset);
                int rc = 0;

                ret[i] = adi_names_find(n, string, words[i], hashes[i]);
                if (ret[i] == UINT32_MAX)
                        rc = adi_names_add(n, string, words[i], &ret[i], err);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

bool adi_names_want_sweep(const struct adi_names *n)
{
        return n->used > 2 * n->used_swept + NAMES_MIN;
}

static void keep_marked(const struct adi_names *n, struct adi_list *l)
{
        uint32_t kept = 0;

        for (uint32_t i = 0; i < l->count; i++)
                if (n->list[l->items[i]].state == 2)
                        l->items[kept++] = l->items[i];
        l->count = kept;
}

int adi_names_sweep(struct adi_names *n, struct df_error *err)
{
        struct adi_name_slot *old = n->slots;
        uint32_t old_count = n->mask + 1, live = 0, count = NAMES_MIN;
        int rc;

        adi_names_keep(n, ADI_NAME_EMPTY);
        adi_names_keep(n, ADI_NAME_OTHER);
        for (uint32_t i = 0; i < n->count; i++)
                live += n->list[i].state == 2;
        while (live * 2 >= count)
                count *= 2;
        rc = slots_alloc(count, &n->slots, err);
        if (rc < 0) {
                n->slots = old;
                return rc;
        }
        n->mask = count - 1;
        for (uint32_t i = 0; i < old_count; i++)
                if (old[i].used && n->list[old[i].name].state == 2)
                        slot_put(n, &old[i]);
        free(old);
        keep_marked(n, &n->sorted);
        keep_marked(n, &n->fresh);
        for (uint32_t i = 0; rc == 0 && i < n->count; i++) {
                if (n->list[i].state == 1)
                        rc = adi_list_add(&n->free, i, err);
                n->list[i].state = n->list[i].state == 2;
        }
        n->used = n->used_swept = live;
        return rc;
}
