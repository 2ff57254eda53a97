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
        if (v->marks.count > MARKS_MAX)
                adi_marks_forget(v);
        v->mark = NULL;
}

static int no_memory(struct df_error *err)
{
        return df_fail(err, DF_ENOMEM, "buckets of the view");
}

static uint32_t *bits_of(struct ad_view *v, struct adi_mark *m, uint32_t group)
{
        for (uint32_t i = 0; i < m->pair_count; i++)
                if (m->pairs[i].group == group)
                        return &m->pairs[i].bits;
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
        return &m->pairs[m->pair_count++].bits;
}

void adi_mark_encode(struct df_buf *b, const struct adi_mark *m)
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
        if (!found) {
                m->last_ms = INT64_MIN;
                return 0;
        }
        r = df_reader(value);
        m->last_ms = (int64_t)df_get_u64be(&r);
        m->state = df_get_u8(&r);
        while (!r.bad && df_reader_left(&r) > 0) {
                uint32_t *bits = bits_of(v, m, (uint32_t)df_get_varint(&r));

                if (!bits)
                        return no_memory(err);
                *bits |= df_get_u32be(&r);
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

int adi_mark_use(struct ad_view *v, struct adi_mark *m, uint32_t group, uint32_t window,
                 bool *ret_used, struct df_error *err)
{
        uint32_t *bits = bits_of(v, m, group), bit = 1u << (window & ((1u << AD_BUCKET_BITS) - 1));

        if (!bits)
                return no_memory(err);
        *ret_used = *bits & bit;
        m->changed |= !*ret_used;
        *bits |= bit;
        return 0;
}

/* All that were used in this write, with its time. */
int adi_marks_touch(struct ad_view *v, struct adi_mark *m, int64_t now_ms)
{
        struct df_bytes key = df_buf_bytes(&v->mark_key);

        if (m->state != 1 && !m->changed && now_ms >= m->last_ms &&
            now_ms - m->last_ms < MARK_EVERY_MS)
                return 0;
        (void)key;
        return 0;
}
