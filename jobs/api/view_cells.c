/* view_cells.c - rows to differences of cells, and these into the batch. */
#include "jobs/api/view_private.h"

#define MINUTE_MS 60000LL
#define MARK_EVERY_MS 3600000LL /* a bucket's last write is noted this coarsely */

void adi_step_init(struct ad_view *v)
{
        struct adi_step *s = &v->step;

        df_arena_init(&s->arena, 0);
        ad_map_init(&s->partials, &s->arena, sizeof(struct ad_cell));
        ad_map_init(&s->cells, &s->arena, sizeof(struct ad_cell));
        ad_map_init(&s->buckets, &s->arena, 0);
        ad_map_init(&s->others, &s->arena, 0);
}

void adi_step_clear(struct ad_view *v)
{
        struct adi_step *s = &v->step;

        df_arena_reset(&s->arena);
        ad_map_clear(&s->partials);
        ad_map_clear(&s->cells);
        ad_map_clear(&s->buckets);
        ad_map_clear(&s->others);
}

static int no_memory(struct df_error *err)
{
        return df_fail(err, DF_ENOMEM, "rows of one write of the view");
}

int adi_step_row(struct ad_view *v, uint32_t source, const struct ad_row *row, struct df_error *err)
{
        struct ad_cell *cell;
        bool fresh;

        df_buf_clear(&v->key);
        ad_key_partial(&v->key, source, row);
        cell = v->key.failed ? NULL : ad_map_put(&v->step.partials, df_buf_bytes(&v->key), &fresh);
        if (!cell)
                return no_memory(err);
        *cell = row->cell;
        return 0;
}

/* Rows come in order of time, so the day is mostly the one before. */
static int64_t account_day(struct ad_view *v, int64_t ms)
{
        const struct ad_zone *z = v->options.account_zone;

        if (ms < v->day_from_ms || ms >= v->day_to_ms) {
                v->day = ad_zone_day_of(z, ms);
                v->day_from_ms = ad_zone_day_start(z, v->day);
                v->day_to_ms = ad_zone_next(z, AD_WINDOW_DAY, ms);
        }
        return v->day;
}

/* False when the level is not kept. */
static bool window_of(struct ad_view *v, uint32_t level, uint64_t minute, uint32_t *ret)
{
        const struct ad_zone *z = v->options.account_zone;

        switch (level) {
        case AD_LEVEL_MINUTE:
                *ret = (uint32_t)minute;
                return true;
        case AD_LEVEL_QUARTER:
                *ret = (uint32_t)(minute / 15);
                return true;
        case AD_LEVEL_DAY:
                *ret = (uint32_t)(minute / 1440);
                return true;
        default:
                if (ad_zone_is_utc(z))
                        return false;
                *ret = (uint32_t)(account_day(v, (int64_t)minute * MINUTE_MS) +
                                  AD_ACCOUNT_DAY_BIAS);
                return true;
        }
}

static int mark(struct ad_view *v, struct ad_map *m, struct df_error *err)
{
        bool fresh;

        /* Neighbours share their bucket: the last one is nearly always the same. */
        if (m->last && df_bytes_eq(m->last->key, df_buf_bytes(&v->key)))
                return 0;
        if (v->key.failed || !ad_map_put(m, df_buf_bytes(&v->key), &fresh))
                return no_memory(err);
        return 0;
}

int adi_step_shift(struct ad_view *v, const struct ad_row *row, const struct ad_cell *d,
                   struct df_error *err)
{
        const struct ad_grouping *g = &v->options.groupings->list[row->grouping];
        bool other = row->dim_count > 0 && df_bytes_eq(row->dims[0], df_bytes_str(AD_OTHER));
        struct ad_cell_key k = {
                .grouping = row->grouping, .tenant_id = row->tenant_id, .currency = row->currency};

        memcpy(k.dims, row->dims, sizeof(k.dims));
        for (k.level = 0; k.level < AD_LEVEL_COUNT; k.level++) {
                struct ad_cell *cell;
                bool fresh;
                int rc;

                if (!window_of(v, k.level, row->minute, &k.window))
                        continue;
                df_buf_clear(&v->key);
                ad_key_cell(&v->key, g, &k);
                cell = v->key.failed ? NULL
                                     : ad_map_put(&v->step.cells, df_buf_bytes(&v->key), &fresh);
                if (!cell)
                        return no_memory(err);
                if (!ad_cell_shift(cell, d))
                        return df_fail(err, DF_ELIMIT, "a sum of the view exceeds 128 bits");
                df_buf_clear(&v->key);
                ad_key_bucket(&v->key, 'b', k.level, k.tenant_id, k.grouping, ad_bucket(k.window));
                rc = mark(v, &v->step.buckets, err);
                if (rc == 0 && other) {
                        df_buf_clear(&v->key);
                        ad_key_other(&v->key, k.level, k.tenant_id, k.grouping, k.window);
                        rc = mark(v, &v->step.others, err);
                        atomic_store(&v->other[k.grouping], true);
                }
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int flush_partial(struct ad_view *v, const struct ad_map_entry *e, struct df_error *err)
{
        const struct ad_cell *now = (const struct ad_cell *)e->value;
        struct ad_cell before = {0}, d;
        struct df_bytes value;
        struct ad_row row = {0};
        bool found;
        int rc = df_store_get(v->store, e->key, &value, &found, err);

        if (rc < 0)
                return rc;
        if ((found && !ad_cell_decode(value, &before)) ||
            !ad_key_partial_decode(e->key, v->options.groupings, &row))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged partial");
        if (!ad_cell_diff(&d, now, &before))
                return df_fail(err, DF_ELIMIT, "a difference exceeds 128 bits");
        if (ad_cell_is_zero(&d))
                return 0;
        df_buf_clear(&v->value);
        ad_cell_encode(&v->value, now);
        df_store_put(v->store, e->key, df_buf_bytes(&v->value));
        return adi_step_shift(v, &row, &d, err);
}

static int flush_cell(struct ad_view *v, const struct ad_map_entry *e, struct df_error *err)
{
        const struct ad_cell *d = (const struct ad_cell *)e->value;
        struct ad_cell sum = {0};
        struct df_bytes value;
        bool found;
        int rc = df_store_get(v->store, e->key, &value, &found, err);

        if (rc < 0)
                return rc;
        if (found && !ad_cell_decode(value, &sum))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged cell");
        if (!ad_cell_shift(&sum, d))
                return df_fail(err, DF_ELIMIT, "a sum of the view exceeds 128 bits");
        if (ad_cell_is_zero(&sum)) {
                df_store_del(v->store, e->key); /* a voided import leaves no rows of zeros */
                return 0;
        }
        df_buf_clear(&v->value);
        ad_cell_encode(&v->value, &sum);
        df_store_put(v->store, e->key, df_buf_bytes(&v->value));
        return 0;
}

/* Marker: last write, and 0 alive, 1 expired, 2 expired and written again. */
static int flush_bucket(struct ad_view *v, const struct ad_map_entry *e, int64_t now_ms,
                        struct df_error *err)
{
        struct df_bytes value;
        struct df_reader r;
        int64_t last = 0;
        uint8_t state = 0;
        bool found;
        int rc = df_store_get(v->store, e->key, &value, &found, err);

        if (rc < 0)
                return rc;
        if (found) {
                r = df_reader(value);
                last = (int64_t)df_get_u64be(&r);
                state = df_get_u8(&r);
                if (state != 1 && now_ms - last < MARK_EVERY_MS && now_ms >= last)
                        return 0;
        }
        df_buf_clear(&v->value);
        df_put_u64be(&v->value, (uint64_t)now_ms);
        df_put_u8(&v->value, state ? 2 : 0);
        df_store_put(v->store, e->key, df_buf_bytes(&v->value));
        return 0;
}

int adi_step_flush(struct ad_view *v, int64_t now_ms, struct df_error *err)
{
        struct adi_step *s = &v->step;
        struct ad_map_entry **sorted = ad_map_sorted(&s->partials);
        int rc = sorted ? 0 : no_memory(err);

        for (size_t i = 0; rc == 0 && i < s->partials.count; i++)
                rc = flush_partial(v, sorted[i], err);
        if (rc < 0)
                return rc;
        sorted = ad_map_sorted(&s->cells);
        rc = sorted ? 0 : no_memory(err);
        for (size_t i = 0; rc == 0 && i < s->cells.count; i++)
                rc = flush_cell(v, sorted[i], err);
        for (struct ad_map_entry *e = s->buckets.first; rc == 0 && e; e = e->next)
                rc = flush_bucket(v, e, now_ms, err);
        for (struct ad_map_entry *e = s->others.first; rc == 0 && e; e = e->next)
                df_store_put(v->store, e->key, df_bytes("", 0));
        return rc;
}
