/* view_upkeep.c - voiding of aborted imports (R6), expiry (W1): bounded a commit. */
#include "jobs/api/view_private.h"

#define MINUTE_MS 60000LL

/* ---- aborted imports ---- */

struct walk {
        struct ad_view *v;
        uint32_t source;
        const struct ad_grouping *g;
        size_t skip; /* key bytes before the bucket */
        size_t keys;
        bool more;
};

static int void_one(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct walk *w = arg;
        struct ad_cell parts[AD_PARTS];
        struct ad_cell_key k;

        if (w->keys == ADI_UPKEEP_KEYS) {
                df_buf_clear(&w->v->void_at);
                df_buf_append(&w->v->void_at, key.data, key.len);
                w->more = true;
                return 1;
        }
        w->keys++;
        if (!ad_key_cell_decode(key, w->skip, w->g, &k) || !ad_parts_decode(value, parts))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged cell");
        if (k.group != w->source / AD_PARTS || ad_cell_is_zero(&parts[w->source % AD_PARTS]))
                return 0;
        return adi_step_void(w->v, w->source, key, err);
}

/* Minute cells of one tenant and grouping, over the minutes in which the source has rows. */
static int void_range(struct walk *w, const struct ad_span *span, uint32_t grouping,
                      struct df_error *err)
{
        struct ad_view *v = w->v;
        struct df_bytes tenant = df_bytes_str(span->tenant);
        struct df_buf from = {0}, to = {0};
        int rc;

        ad_key_bucket(&from, 'c', AD_LEVEL_MINUTE, tenant, grouping, ad_bucket(span->first_minute));
        w->g = &v->options.groupings->list[grouping];
        w->skip = from.len - 4;
        ad_key_bucket(&to, 'c', AD_LEVEL_MINUTE, tenant, grouping,
                      ad_bucket(span->last_minute) + 1);
        if (v->void_at.len) {
                df_buf_clear(&from);
                df_buf_append(&from, v->void_at.data, v->void_at.len);
                df_buf_clear(&v->void_at);
        }
        rc = from.failed || to.failed ? df_fail(err, DF_ENOMEM, "upkeep of the view") : 0;
        if (rc == 0)
                rc = df_kv_range(v->kv, NULL, df_buf_bytes(&from), df_buf_bytes(&to), void_one, w,
                                 err);
        if (rc == 0 && v->void_at.failed)
                rc = df_fail(err, DF_ENOMEM, "upkeep of the view");
        df_buf_release(&from);
        df_buf_release(&to);
        return rc;
}

/* Goes on where it stopped; after a restart from the beginning, where nothing is left to do. */
static int void_source(struct walk *w, struct df_error *err)
{
        struct ad_view *v = w->v;
        size_t at = 0;
        int rc = 0;

        for (struct ad_map_entry *e = v->spans.first; rc == 0 && e; e = e->next) {
                const struct ad_span *span = &((const struct adi_span *)e->value)->span;

                if (span->source != w->source)
                        continue;
                for (uint32_t g = 0; rc == 0 && g < v->options.groupings->count; g++) {
                        if (at++ < v->void_range)
                                continue;
                        rc = void_range(w, span, g, err);
                        if (rc == 0 && w->more)
                                return 0;
                        v->void_range = at;
                }
        }
        return rc;
}

int adi_upkeep(struct ad_view *v, struct df_error *err)
{
        struct walk w = {.v = v};
        struct ad_source *s = NULL;
        int rc;

        v->busy = false;
        for (size_t i = 0; !s && i < v->source_count; i++)
                s = v->sources[i].voiding ? &v->sources[i] : NULL;
        if (!s)
                return 0;
        v->busy = true;                   /* perhaps another one waits */
        if (s->rows_commit == v->commits) /* rows of this very step are not in the store yet */
                return 0;
        w.source = s->id;
        rc = void_source(&w, err);
        if (rc < 0 || w.more)
                return rc;
        s->voiding = false;
        v->source_dirty[s->id] = true;
        v->void_range = 0;
        return 0;
}

/* ---- expiry ---- */

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

/* A part that its source may still replace must be there when it does. */
static bool may_change(const struct ad_view *v, struct df_bytes marker)
{
        struct df_reader r = df_reader(marker);
        struct df_bytes tenant;
        uint64_t from, to;

        (void)df_get_bytes(&r, 2);
        tenant = df_get_lstr(&r);
        (void)df_get_u8(&r);
        from = (uint64_t)df_get_u32be(&r) << AD_BUCKET_BITS;
        to = from + (1u << AD_BUCKET_BITS);
        for (const struct ad_map_entry *e = v->spans.first; e; e = e->next) {
                const struct ad_span *span = &((const struct adi_span *)e->value)->span;
                const struct ad_source *s = &v->sources[span->source];

                if (span->first_minute < to && span->last_minute >= from &&
                    (s->voiding || s->final_through_ms < (int64_t)to * MINUTE_MS) &&
                    df_bytes_eq(df_bytes_str(span->tenant), tenant))
                        return true;
        }
        return false;
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
        if (keep == 0 || state == 1 || l->now_ms - last < keep ||
            (key.data[1] == AD_LEVEL_MINUTE && may_change(v, key)))
                return 0;
        drop_bucket(v, key);
        adi_mark_expired(v, key, last);
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
