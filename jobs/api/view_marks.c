/* view_marks.c - what is known of buckets of windows: the last write, whether they expired, and in
 * which windows there are cells. */
#include "jobs/api/view_private.h"

#define MARKS_MAX 65536         /* in memory; beyond that all are read again as they are needed */
#define MARK_EVERY_MS 3600000LL /* a bucket's last write is noted this coarsely */
#define PAIRS_MIN 4

void adi_marks_init(struct ad_view *v)
{
        df_arena_init(&v->mark_memory, 0);
        ad_map_init(&v->marks, &v->mark_memory, sizeof(struct adi_mark));
}

/* The store knows all of them. */
void adi_marks_forget(struct ad_view *v)
{
        df_arena_reset(&v->mark_memory);
        ad_map_clear(&v->marks);
        v->mark = NULL;
}

void adi_marks_trim(struct ad_view *v)
{
        v->touched = NULL;
        if (v->marks.count > MARKS_MAX)
                adi_marks_forget(v);
}

static int no_memory(struct df_error *err)
{
        return df_fail(err, DF_ENOMEM, "buckets of the view");
}

static struct adi_pair *pair_of(struct ad_view *v, struct adi_mark *m, uint32_t group)
{
        for (uint32_t i = 0; i < m->pair_count; i++)
                if (m->pairs[i].group == group)
                        return &m->pairs[i];
        if (m->pair_count == m->pair_cap) {
                uint32_t cap = m->pair_cap ? 2 * m->pair_cap : PAIRS_MIN;
                struct adi_pair *pairs = df_arena_alloc(&v->mark_memory, cap * sizeof(*pairs));

                if (!pairs)
                        return NULL;
                if (m->pair_count)
                        memcpy(pairs, m->pairs, m->pair_count * sizeof(*pairs));
                m->pairs = pairs;
                m->pair_cap = cap;
        }
        m->pairs[m->pair_count] = (struct adi_pair){.group = group};
        return &m->pairs[m->pair_count++];
}

static void encode(struct df_buf *b, const struct adi_mark *m)
{
        df_put_u64be(b, (uint64_t)m->last_ms);
        df_put_u8(b, m->state);
        for (uint32_t i = 0; i < m->pair_count; i++) {
                df_put_varint(b, m->pairs[i].group);
                df_put_u32be(b, m->pairs[i].bits);
        }
}

static int load(struct ad_view *v, struct df_bytes key, struct adi_mark *m, struct df_error *err)
{
        struct df_bytes value;
        struct df_reader r;
        bool found;
        int rc = df_store_get(v->store, key, &value, &found, err);

        if (rc < 0)
                return rc;
        *m = (struct adi_mark){.loaded = true, .since = v->cache.head};
        if (!found)
                return 0;
        r = df_reader(value);
        m->last_ms = (int64_t)df_get_u64be(&r);
        m->state = df_get_u8(&r);
        while (!r.bad && df_reader_left(&r) > 0) {
                struct adi_pair *pair = pair_of(v, m, (uint32_t)df_get_varint(&r));

                if (!pair)
                        return no_memory(err);
                pair->bits |= df_get_u32be(&r);
        }
        return r.bad ? df_fail(err, DF_ECORRUPT, "the view holds a damaged bucket") : 0;
}

/* Neighbours share their bucket: the last one is nearly always the same. */
int adi_mark_find(struct ad_view *v, struct df_bytes cell_key, size_t bucket_end,
                  struct adi_mark **ret, struct df_error *err)
{
        struct df_bytes key;
        bool fresh;
        int rc = 0;

        if (v->mark && v->mark_key.len == bucket_end &&
            memcmp(v->mark_key.data + 1, cell_key.data + 1, bucket_end - 1) == 0) {
                *ret = v->mark;
                return 0;
        }
        df_buf_clear(&v->mark_key);
        df_put_u8(&v->mark_key, 'b');
        df_buf_append(&v->mark_key, cell_key.data + 1, bucket_end - 1);
        key = df_buf_bytes(&v->mark_key);
        v->mark = v->mark_key.failed ? NULL : ad_map_put(&v->marks, key, &fresh);
        if (!v->mark)
                return no_memory(err);
        if (!v->mark->loaded)
                rc = load(v, key, v->mark, err);
        *ret = v->mark;
        return rc;
}

static uint32_t bit_of(uint32_t window)
{
        return 1u << (window & ((1u << AD_BUCKET_BITS) - 1));
}

bool adi_mark_used(const struct adi_mark *m, uint32_t group, uint32_t window)
{
        for (uint32_t i = 0; i < m->pair_count; i++)
                if (m->pairs[i].group == group)
                        return m->pairs[i].bits & bit_of(window);
        return false;
}

int adi_mark_use(struct ad_view *v, struct adi_mark *m, uint32_t group, uint32_t window,
                 struct df_error *err)
{
        struct adi_pair *pair = pair_of(v, m, group);

        if (!pair)
                return no_memory(err);
        pair->fresh |= bit_of(window);
        if (!m->touched) {
                m->touched = true;
                m->next = v->touched;
                v->touched = m;
        }
        return 0;
}

static bool take_fresh(struct adi_mark *m)
{
        bool changed = false;

        for (uint32_t i = 0; i < m->pair_count; i++) {
                changed |= (m->pairs[i].fresh & ~m->pairs[i].bits) != 0;
                m->pairs[i].bits |= m->pairs[i].fresh;
                m->pairs[i].fresh = 0;
        }
        return changed;
}

void adi_marks_put(struct ad_view *v, int64_t now_ms)
{
        for (struct adi_mark *m = v->touched; m; m = m->next) {
                const uint8_t *at = (const uint8_t *)m - offsetof(struct ad_map_entry, value);
                const struct ad_map_entry *e = (const struct ad_map_entry *)(const void *)at;

                m->touched = false;
                if (!take_fresh(m) && m->state != 1 && now_ms >= m->last_ms &&
                    now_ms - m->last_ms < MARK_EVERY_MS)
                        continue;
                m->last_ms = now_ms;
                m->state = m->state ? 2 : 0;
                df_buf_clear(&v->value);
                encode(&v->value, m);
                df_store_put(v->store, e->key, df_buf_bytes(&v->value));
        }
        v->touched = NULL;
}

void adi_mark_expired(struct ad_view *v, struct df_bytes key, int64_t last_ms)
{
        struct adi_mark expired = {.last_ms = last_ms, .state = 1}, *m;

        df_buf_clear(&v->value);
        encode(&v->value, &expired);
        df_store_put(v->store, key, df_buf_bytes(&v->value));
        m = ad_map_find(&v->marks, key);
        if (m)
                m->loaded = false; /* and what the cache has of it does not count any more */
}
