/* view_upkeep.c - folding (W4), voiding of aborted imports (R6), expiry (W1): bounded a commit. */
#include "jobs/api/view_private.h"

#define MINUTE_MS 60000LL

struct walk {
        struct ad_view *v;
        struct ad_source *source;
        size_t keys, limit;
        uint64_t minute; /* of the last key */
};

static int fold_one(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct walk *w = arg;
        struct df_reader r = df_reader(key);

        (void)df_get_bytes(&r, 5);
        w->minute = df_get_u32be(&r);
        if (w->keys++ == w->limit)
                return 1;
        df_store_del(w->v->store, key);
        return 0;
}

/* Ends are exclusive, and source ids are below UINT32_MAX. */
static int walk_partials(struct walk *w, uint64_t from_minute, uint64_t to_minute,
                         int (*fn)(void *, struct df_bytes, struct df_bytes, struct df_error *),
                         struct df_error *err)
{
        struct df_buf from = {0}, to = {0};
        int rc;

        ad_key_partial_from(&from, w->source->id, from_minute);
        if (to_minute > UINT32_MAX) {
                df_put_u8(&to, 'p');
                df_put_u32be(&to, w->source->id + 1);
        } else {
                ad_key_partial_from(&to, w->source->id, to_minute);
        }
        rc = from.failed || to.failed ? df_fail(err, DF_ENOMEM, "upkeep of the view") : 0;
        if (rc == 0)
                rc = df_kv_range(w->v->kv, NULL, df_buf_bytes(&from), df_buf_bytes(&to), fn, w,
                                 err);
        df_buf_release(&from);
        df_buf_release(&to);
        return rc;
}

/* Windows that were final for the source at the last commit cannot change: their partials go. */
static int fold(struct ad_view *v, struct ad_source *s, size_t *left, struct df_error *err)
{
        struct walk w = {.v = v, .source = s, .limit = *left};
        uint64_t end;
        int rc;

        if (s->fold_through_ms < MINUTE_MS || s->voiding)
                return 0;
        end = (uint64_t)(s->fold_through_ms / MINUTE_MS);
        if (end > (uint64_t)UINT32_MAX + 1)
                end = (uint64_t)UINT32_MAX + 1;
        if (end <= s->folded_minute)
                return 0;
        rc = walk_partials(&w, s->folded_minute, end, fold_one, err);
        if (rc < 0)
                return rc;
        v->source_dirty[s->id] = true;
        if (w.keys > w.limit) {
                s->folded_minute = w.minute;
                *left = 0;
        } else {
                s->folded_minute = end;
                *left -= w.keys;
        }
        return 0;
}

static int void_one(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct walk *w = arg;
        struct ad_cell zero = {0}, cell, d;
        struct ad_row row = {0};

        if (w->keys++ == w->limit)
                return 1;
        if (!ad_cell_decode(value, &cell) ||
            !ad_key_partial_decode(key, w->v->options.groupings, &row))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged partial");
        if (!ad_cell_diff(&d, &zero, &cell))
                return df_fail(err, DF_ELIMIT, "a difference exceeds 128 bits");
        df_store_del(w->v->store, key);
        return adi_step_shift(w->v, &row, &d, err);
}

static int void_rows(struct ad_view *v, struct ad_source *s, size_t *left, struct df_error *err)
{
        struct walk w = {.v = v, .source = s, .limit = *left};
        int rc;

        if (!s->voiding)
                return 0;
        if (s->rows_commit == v->commits) { /* rows of this very step are not in the store yet */
                v->busy = true;
                return 0;
        }
        rc = walk_partials(&w, 0, (uint64_t)UINT32_MAX + 1, void_one, err);
        if (rc < 0)
                return rc;
        v->source_dirty[s->id] = true;
        *left -= w.keys > *left ? *left : w.keys;
        if (w.keys <= w.limit)
                s->voiding = false;
        return 0;
}

struct look {
        struct ad_view *v;
        int64_t now_ms;
        size_t keys;
        bool more;
};

static int64_t keep_ms(const struct ad_view *v, uint32_t level)
{
        if (level == AD_LEVEL_MINUTE)
                return v->options.keep_minutes_ms;
        return level == AD_LEVEL_QUARTER ? v->options.keep_quarters_ms : v->options.keep_days_ms;
}

/* Delete the cells and marks of one bucket, whose marker's key is given. */
static void drop_bucket(struct ad_view *v, struct df_bytes marker)
{
        struct df_buf from = {0}, to = {0};

        for (int i = 0; i < 2; i++) {
                df_buf_clear(&from);
                df_buf_clear(&to);
                df_buf_append(&from, marker.data, marker.len);
                df_buf_append(&to, marker.data, marker.len);
                if (!from.failed && !to.failed) {
                        from.data[0] = to.data[0] = i == 0 ? 'c' : 'o';
                        /* the last four bytes are the bucket: the next one ends the range */
                        for (size_t at = to.len; at-- > to.len - 4 && ++to.data[at] == 0;)
                                ;
                        df_store_del_range(v->store, df_buf_bytes(&from), df_buf_bytes(&to));
                }
        }
        df_buf_release(&from);
        df_buf_release(&to);
}

static int look_at(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct look *l = arg;
        struct ad_view *v = l->v;
        struct df_reader r = df_reader(value);
        int64_t last = (int64_t)df_get_u64be(&r), keep;
        uint8_t state = df_get_u8(&r);

        if (l->keys++ == ADI_UPKEEP_KEYS / 4) {
                df_buf_clear(&v->expire_at);
                df_buf_append(&v->expire_at, key.data, key.len);
                l->more = true;
                return 1;
        }
        if (r.bad || key.len < 8 || key.data[1] >= AD_LEVEL_COUNT)
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged bucket");
        keep = keep_ms(v, key.data[1]);
        if (keep == 0 || state == 1 || l->now_ms - last < keep)
                return 0;
        drop_bucket(v, key);
        df_buf_clear(&v->value);
        df_put_u64be(&v->value, (uint64_t)last);
        df_put_u8(&v->value, 1);
        df_store_put(v->store, key, df_buf_bytes(&v->value));
        atomic_store(&v->expired[key.data[1]], true);
        return 0;
}

int adi_expire(struct ad_view *v, int64_t now_ms, struct df_error *err)
{
        struct look l = {.v = v, .now_ms = now_ms};
        struct df_bytes from = v->expire_at.len ? df_buf_bytes(&v->expire_at) : df_bytes("b", 1);
        struct df_buf start = {0};
        int rc;

        df_buf_append(&start, from.data, from.len);
        rc = df_buf_check(&start, err);
        if (rc == 0)
                rc = df_kv_range(v->kv, NULL, df_buf_bytes(&start), df_bytes("c", 1), look_at, &l,
                                 err);
        df_buf_release(&start);
        if (rc == 0)
                rc = df_store_commit(v->store, err);
        if (rc < 0)
                return rc;
        if (!l.more) {
                df_buf_clear(&v->expire_at);
                v->expire_ms = now_ms + ADI_UPKEEP_EVERY_MS;
        }
        return 0;
}

int adi_upkeep(struct ad_view *v, int64_t now_ms, struct df_error *err)
{
        size_t left = ADI_UPKEEP_KEYS;
        int rc = 0;

        v->busy = false;
        for (size_t i = 0; rc == 0 && left > 0 && i < v->source_count; i++) {
                rc = void_rows(v, &v->sources[i], &left, err);
                if (rc == 0 && left > 0)
                        rc = fold(v, &v->sources[i], &left, err);
        }
        v->busy |= left == 0;
        return rc;
}
