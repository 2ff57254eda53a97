/* books_rows.c - rows of the store under what was written since the last snapshot. */
#include <stdlib.h>

#include "operators/books_private.h"

#define ENTRIES_MIN 256u
#define ENTRIES_KEPT 65536u /* more are given back at a snapshot, as are more bytes */
#define BYTES_KEPT (16u << 20)

struct adi_row_entry {
        size_t key, value; /* in bytes */
        uint32_t key_len, value_len;
};

int adi_rows_init(struct adi_rows *r, struct df_store *store, uint8_t ns, struct df_error *err)
{
        *r = (struct adi_rows){.store = store, .prefix = {ns, 'C'}};
        r->cap = ENTRIES_MIN;
        r->mask = 2 * r->cap - 1;
        r->entries = malloc(r->cap * sizeof(*r->entries));
        r->slots = calloc(2 * (size_t)r->cap, sizeof(*r->slots));
        return r->entries && r->slots ? 0 : df_fail(err, DF_ENOMEM, "books: rows");
}

void adi_rows_release(struct adi_rows *r)
{
        free(r->entries);
        free(r->slots);
        df_buf_release(&r->bytes);
        df_buf_release(&r->key);
        df_buf_release(&r->value);
}

static struct df_bytes key_of(const struct adi_rows *r, const struct adi_row_entry *e)
{
        return df_bytes(r->bytes.data + e->key, e->key_len);
}

static struct df_bytes value_of(const struct adi_rows *r, const struct adi_row_entry *e)
{
        return df_bytes(r->bytes.data + e->value, e->value_len);
}

/* The slot of this key, or the empty one where it belongs. */
static uint32_t *slot_of(const struct adi_rows *r, struct df_bytes key)
{
        uint64_t h = df_hash64(key);

        while (r->slots[h & r->mask] &&
               !df_bytes_eq(key_of(r, &r->entries[r->slots[h & r->mask] - 1]), key))
                h++;
        return &r->slots[h & r->mask];
}

static int grow(struct adi_rows *r, struct df_error *err)
{
        uint32_t cap = r->cap * 2;
        struct adi_row_entry *entries = realloc(r->entries, cap * sizeof(*entries));
        uint32_t *slots;

        if (!entries)
                return df_fail(err, DF_ENOMEM, "books: %u rows", cap);
        r->entries = entries;
        slots = calloc(2 * (size_t)cap, sizeof(*slots));
        if (!slots)
                return df_fail(err, DF_ENOMEM, "books: %u rows", cap);
        free(r->slots);
        r->slots = slots;
        r->cap = cap;
        r->mask = 2 * cap - 1;
        for (uint32_t i = 0; i < r->count; i++)
                *slot_of(r, key_of(r, &r->entries[i])) = i + 1;
        return 0;
}

int adi_rows_get(struct adi_rows *r, struct df_bytes key, struct df_bytes *ret_value,
                 bool *ret_found, struct df_error *err)
{
        uint32_t slot = *slot_of(r, key);

        *ret_found = slot != 0;
        if (slot) {
                *ret_value = value_of(r, &r->entries[slot - 1]);
                return 0;
        }
        df_buf_clear(&r->key);
        df_buf_append(&r->key, r->prefix, sizeof(r->prefix));
        df_buf_append(&r->key, key.data, key.len);
        if (r->key.failed)
                return df_buf_check(&r->key, err);
        return df_store_get(r->store, df_buf_bytes(&r->key), ret_value, ret_found, err);
}

int adi_rows_put(struct adi_rows *r, struct df_bytes key, struct df_bytes value,
                 struct df_error *err)
{
        uint32_t *slot = slot_of(r, key);
        struct adi_row_entry *e;

        if (!*slot && r->count == r->cap) {
                int rc = grow(r, err);

                if (rc < 0)
                        return rc;
                slot = slot_of(r, key);
        }
        if (!*slot) {
                r->entries[r->count] =
                        (struct adi_row_entry){.key = r->bytes.len, .key_len = (uint32_t)key.len};
                df_buf_append(&r->bytes, key.data, key.len);
                *slot = ++r->count;
        }
        e = &r->entries[*slot - 1];
        e->value = r->bytes.len;
        e->value_len = (uint32_t)value.len;
        df_buf_append(&r->bytes, value.data, value.len);
        return df_buf_check(&r->bytes, err);
}

/* ---- scans: rows of the store and later ones, merged by key ---- */

struct scan {
        struct adi_rows *r;
        struct df_bytes begin, from;
        adi_row_fn fn;
        void *arg;
        struct later {
                struct df_bytes key; /* valid while they are sorted */
                uint32_t entry;
        } * later;
        size_t count, next;
        bool stopped;
};

static int by_key(const void *a, const void *b)
{
        return df_bytes_cmp(((const struct later *)a)->key, ((const struct later *)b)->key);
}

static bool in_scan(const struct scan *s, struct df_bytes key)
{
        return key.len >= s->begin.len && df_bytes_eq(df_bytes(key.data, s->begin.len), s->begin) &&
               df_bytes_cmp(key, s->from) >= 0;
}

static int sort_later(struct scan *s, struct df_error *err)
{
        const struct adi_rows *r = s->r;

        s->later = malloc((r->count + 1) * sizeof(*s->later));
        if (!s->later)
                return df_fail(err, DF_ENOMEM, "books: %u rows", r->count);
        for (uint32_t i = 0; i < r->count; i++) {
                struct df_bytes key = key_of(r, &r->entries[i]);

                if (in_scan(s, key))
                        s->later[s->count++] = (struct later){key, i};
        }
        if (s->count > 1)
                qsort(s->later, s->count, sizeof(*s->later), by_key);
        return 0;
}

/* fn may put, which moves the bytes: it gets a copy. */
static int call(struct scan *s, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct adi_rows *r = s->r;
        int rc;

        df_buf_clear(&r->key);
        df_buf_clear(&r->value);
        df_buf_append(&r->key, key.data, key.len);
        df_buf_append(&r->value, value.data, value.len);
        if (r->key.failed || r->value.failed)
                return df_fail(err, DF_ENOMEM, "books: a row of %zu bytes", value.len);
        rc = s->fn(s->arg, df_buf_bytes(&r->key), df_buf_bytes(&r->value), err);
        s->stopped = rc == 1;
        return rc;
}

/* The later ones before this key; key NULL: all. */
static int call_later(struct scan *s, const struct df_bytes *key, struct df_error *err)
{
        int rc = 0;

        while (rc == 0 && s->next < s->count) {
                const struct adi_row_entry *e = &s->r->entries[s->later[s->next].entry];

                if (key && df_bytes_cmp(key_of(s->r, e), *key) >= 0)
                        break;
                s->next++;
                rc = call(s, key_of(s->r, e), value_of(s->r, e), err);
        }
        return rc;
}

static int on_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct scan *s = arg;
        int rc;

        key = df_bytes(key.data + sizeof(s->r->prefix), key.len - sizeof(s->r->prefix));
        if (df_bytes_cmp(key, s->from) < 0)
                return 0;
        rc = call_later(s, &key, err);
        if (rc != 0)
                return rc;
        if (s->next < s->count) {
                const struct adi_row_entry *e = &s->r->entries[s->later[s->next].entry];

                if (df_bytes_eq(key_of(s->r, e), key)) {
                        s->next++;
                        return call(s, key_of(s->r, e), value_of(s->r, e), err);
                }
        }
        return call(s, key, value, err);
}

int adi_rows_scan(struct adi_rows *r, struct df_bytes begin, struct df_bytes from, adi_row_fn fn,
                  void *arg, struct df_error *err)
{
        struct scan s = {.r = r, .begin = begin, .from = from, .fn = fn, .arg = arg};
        struct df_buf prefix = {0};
        int rc = sort_later(&s, err);

        df_buf_append(&prefix, r->prefix, sizeof(r->prefix));
        df_buf_append(&prefix, begin.data, begin.len);
        if (rc == 0)
                rc = df_buf_check(&prefix, err);
        if (rc == 0)
                rc = df_store_scan(r->store, df_buf_bytes(&prefix), on_row, &s, err);
        if (rc >= 0 && !s.stopped)
                rc = call_later(&s, NULL, err);
        free(s.later);
        df_buf_release(&prefix);
        return rc < 0 ? rc : 0;
}

int adi_rows_snapshot(struct adi_rows *r, struct df_error *err)
{
        struct df_store *store = r->store;
        uint8_t ns = r->prefix[0];

        for (uint32_t i = 0; i < r->count; i++) {
                struct df_bytes key = key_of(r, &r->entries[i]);

                df_buf_clear(&r->key);
                df_buf_append(&r->key, r->prefix, sizeof(r->prefix));
                df_buf_append(&r->key, key.data, key.len);
                df_store_put(r->store, df_buf_bytes(&r->key), value_of(r, &r->entries[i]));
        }
        if (r->cap > ENTRIES_KEPT || r->bytes.cap > BYTES_KEPT) {
                adi_rows_release(r);
                return adi_rows_init(r, store, ns, err);
        }
        if (r->count > 0)
                memset(r->slots, 0, ((size_t)r->mask + 1) * sizeof(*r->slots));
        r->count = 0;
        df_buf_clear(&r->bytes);
        return 0;
}
