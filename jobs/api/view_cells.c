/* view_cells.c - rows to parts of minute cells, these to differences of the coarser cells, and all
 * into the batch: each cell once. */
#include "jobs/api/view_private.h"

#define MINUTE_MS 60000LL
#define QUARTER_MS (15 * MINUTE_MS)
#define SOURCE_BYTES 4 /* at the end of a key of step.rows */

void adi_step_init(struct ad_view *v)
{
        struct adi_step *s = &v->step;

        df_arena_init(&s->arena, 0);
        ad_map_init(&s->rows, &s->arena, sizeof(struct ad_cell));
        for (int i = 0; i < ADI_SUM_LEVELS; i++)
                ad_map_init(&s->sums[i], &s->arena, sizeof(struct ad_cell));
        ad_map_init(&s->others, &s->arena, 0);
}

void adi_step_clear(struct ad_view *v)
{
        struct adi_step *s = &v->step;

        df_arena_reset(&s->arena);
        ad_map_clear(&s->rows);
        for (int i = 0; i < ADI_SUM_LEVELS; i++)
                ad_map_clear(&s->sums[i]);
        ad_map_clear(&s->others);
        adi_marks_trim(v);
}

static int no_memory(struct df_error *err)
{
        return df_fail(err, DF_ENOMEM, "rows of one write of the view");
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

/* Days of every zone that is allowed begin with a quarter. */
static uint32_t window_of_quarter(struct ad_view *v, uint32_t level, uint32_t quarter)
{
        if (level == AD_LEVEL_DAY)
                return quarter / 96;
        return (uint32_t)(account_day(v, (int64_t)quarter * QUARTER_MS) + AD_ACCOUNT_DAY_BIAS);
}

/* ---- rows ---- */

/* Answers that __other__ takes part in say so (W7). */
static int mark_other(struct ad_view *v, const struct ad_row *row, struct df_error *err)
{
        uint32_t quarter = (uint32_t)row->minute / 15, window[AD_LEVEL_COUNT] = {0};
        bool fresh;

        window[AD_LEVEL_MINUTE] = (uint32_t)row->minute;
        window[AD_LEVEL_QUARTER] = quarter;
        window[AD_LEVEL_DAY] = window_of_quarter(v, AD_LEVEL_DAY, quarter);
        window[AD_LEVEL_ACCOUNT_DAY] = window_of_quarter(v, AD_LEVEL_ACCOUNT_DAY, quarter);
        for (uint32_t level = 0; level < AD_LEVEL_COUNT; level++) {
                if (level == AD_LEVEL_ACCOUNT_DAY && ad_zone_is_utc(v->options.account_zone))
                        break;
                df_buf_clear(&v->key);
                ad_key_other(&v->key, level, row->tenant_id, row->grouping, window[level]);
                if (v->key.failed || !ad_map_put(&v->step.others, df_buf_bytes(&v->key), &fresh))
                        return no_memory(err);
        }
        atomic_store(&v->other[row->grouping], true);
        return 0;
}

static int put_row(struct ad_view *v, const struct ad_cell *cell, struct df_error *err)
{
        struct ad_cell *to;
        bool fresh;

        to = v->key.failed ? NULL : ad_map_put(&v->step.rows, df_buf_bytes(&v->key), &fresh);
        if (!to)
                return no_memory(err);
        *to = *cell;
        return 0;
}

int adi_step_row(struct ad_view *v, uint32_t source, const struct ad_row *row, struct df_error *err)
{
        struct ad_cell_key k = {.grouping = row->grouping,
                                .window = (uint32_t)row->minute,
                                .tenant_id = row->tenant_id,
                                .currency = row->currency,
                                .group = source / AD_PARTS};
        int rc = 0;

        if (row->dim_count > 0 && df_bytes_eq(row->dims[0], df_bytes_str(AD_OTHER)) &&
            !ad_cell_is_zero(&row->cell))
                rc = mark_other(v, row, err);
        if (rc < 0)
                return rc;
        memcpy(k.dims, row->dims, sizeof(k.dims));
        df_buf_clear(&v->key);
        ad_key_cell(&v->key, &v->options.groupings->list[row->grouping], &k);
        df_put_u32be(&v->key, source);
        return put_row(v, &row->cell, err);
}

int adi_step_void(struct ad_view *v, uint32_t source, struct df_bytes cell_key,
                  struct df_error *err)
{
        const struct ad_cell zero = {0};

        df_buf_clear(&v->key);
        df_buf_append(&v->key, cell_key.data, cell_key.len);
        df_put_u32be(&v->key, source);
        return put_row(v, &zero, err);
}

/* ---- one cell ---- */

struct place { /* where in a cell's key things are */
        size_t bucket, window, end;
        uint32_t window_number;
};

static bool place_of(struct df_bytes key, size_t end, struct place *ret)
{
        struct df_reader r = df_reader(df_bytes(key.data, end));

        (void)df_get_bytes(&r, 2); /* kind, level */
        (void)df_get_lstr(&r);
        (void)df_get_u8(&r);
        ret->bucket = (size_t)(r.p - key.data);
        (void)df_get_u32be(&r);
        (void)df_get_lstr(&r);
        ret->window = (size_t)(r.p - key.data);
        ret->window_number = df_get_u32be(&r);
        ret->end = end;
        return !r.bad;
}

static void store_be32(uint8_t *to, uint32_t n)
{
        to[0] = (uint8_t)(n >> 24);
        to[1] = (uint8_t)(n >> 16);
        to[2] = (uint8_t)(n >> 8);
        to[3] = (uint8_t)n;
}

/* The same cell of a coarser level changes by d. */
static int shift(struct ad_view *v, struct df_bytes key, const struct place *at, uint32_t level,
                 uint32_t window, const struct ad_cell *d, struct df_error *err)
{
        struct ad_cell *sum;
        bool fresh;

        df_buf_clear(&v->key);
        df_buf_append(&v->key, key.data, at->end);
        if (v->key.failed)
                return no_memory(err);
        v->key.data[1] = (uint8_t)level;
        store_be32(v->key.data + at->bucket, ad_bucket(window));
        store_be32(v->key.data + at->window, window);
        sum = ad_map_put(&v->step.sums[level - 1], df_buf_bytes(&v->key), &fresh);
        if (!sum)
                return no_memory(err);
        return ad_cell_shift(sum, d) ? 0 : df_fail(err, DF_ELIMIT, "a difference exceeds 128 bits");
}

/* What is stored; len 0: nothing. */
static int read_cell(struct ad_view *v, const struct adi_mark *m, uint32_t group, uint32_t window,
                     struct df_bytes key, struct df_bytes *ret, struct df_error *err)
{
        bool found;

        *ret = (struct df_bytes){0};
        if (!adi_mark_used(m, group, window) || adi_cache_get(&v->cache, key, m->since, ret))
                return 0;
        return df_store_get(v->store, key, ret, &found, err);
}

/* v->value is what the cell is from now on. */
static int write_cell(struct ad_view *v, struct adi_mark *m, uint32_t group, uint32_t window,
                      struct df_bytes key, struct df_error *err)
{
        struct df_bytes value = df_buf_bytes(&v->value);

        if (v->value.failed)
                return no_memory(err);
        if (value.len)
                df_store_put(v->store, key, value);
        else
                df_store_del(v->store, key); /* a voided import leaves no rows of zeros */
        adi_cache_put(&v->cache, key, value);
        return adi_mark_use(v, m, group, window, err);
}

/* ---- minutes ---- */

static uint32_t source_of(const struct ad_map_entry *e)
{
        const uint8_t *p = e->key.data + e->key.len - SOURCE_BYTES;

        return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static struct df_bytes cell_of(const struct ad_map_entry *e)
{
        return df_bytes(e->key.data, e->key.len - SOURCE_BYTES);
}

static bool same_part(const struct ad_cell *a, const struct ad_cell *b)
{
        return a->impressions == b->impressions && a->clicks == b->clicks &&
               a->conversions == b->conversions && a->spend == b->spend && a->payout == b->payout &&
               a->value == b->value && memcmp(a->invalid, b->invalid, sizeof(a->invalid)) == 0;
}

/* All sources' changes of one stored cell: W3. */
static int flush_minute(struct ad_view *v, struct ad_map_entry **rows, size_t count,
                        struct df_error *err)
{
        uint32_t group = source_of(rows[0]) / AD_PARTS;
        struct ad_cell parts[AD_PARTS], sum = {0}, d;
        struct df_bytes key = cell_of(rows[0]), value;
        struct adi_mark *mark;
        struct place at;
        size_t group_bytes = 1;
        bool changed = false;
        int rc;

        for (uint32_t g = group; g >= 0x80; g >>= 7)
                group_bytes++;
        if (!place_of(key, key.len - group_bytes, &at))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged key");
        rc = adi_mark_find(v, key, at.bucket + 4, &mark, err);
        if (rc == 0)
                rc = read_cell(v, mark, group, at.window_number, key, &value, err);
        if (rc < 0)
                return rc;
        if (!ad_parts_decode(value, parts))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged cell");
        for (size_t i = 0; i < count; i++) {
                const struct ad_cell *now = (const struct ad_cell *)rows[i]->value;
                struct ad_cell *part = &parts[source_of(rows[i]) % AD_PARTS];

                if (same_part(now, part))
                        continue;
                changed = true;
                if (!ad_cell_diff(&d, now, part) || !ad_cell_shift(&sum, &d))
                        return df_fail(err, DF_ELIMIT, "a difference exceeds 128 bits");
                *part = *now;
        }
        if (!changed)
                return 0;
        df_buf_clear(&v->value);
        ad_parts_encode(&v->value, parts);
        rc = write_cell(v, mark, group, at.window_number, key, err);
        if (rc == 0 && !ad_cell_is_zero(&sum))
                rc = shift(v, key, &at, AD_LEVEL_QUARTER, at.window_number / 15, &sum, err);
        return rc;
}

static int flush_minutes(struct ad_view *v, struct df_error *err)
{
        struct ad_map_entry **rows = ad_map_sorted(&v->step.rows);
        size_t count = v->step.rows.count, to;
        int rc = rows ? 0 : no_memory(err);

        for (size_t from = 0; rc == 0 && from < count; from = to) {
                for (to = from + 1;
                     to < count && df_bytes_eq(cell_of(rows[from]), cell_of(rows[to])); to++)
                        ;
                rc = flush_minute(v, rows + from, to - from, err);
        }
        return rc;
}

/* ---- quarters and days ---- */

static int flush_sum(struct ad_view *v, uint32_t level, const struct ad_map_entry *e,
                     struct df_error *err)
{
        const struct ad_cell *d = (const struct ad_cell *)e->value;
        struct ad_cell sum = {0};
        struct adi_mark *mark;
        struct df_bytes value;
        struct place at;
        int rc;

        if (ad_cell_is_zero(d))
                return 0;
        if (!place_of(e->key, e->key.len, &at))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged key");
        rc = adi_mark_find(v, e->key, at.bucket + 4, &mark, err);
        if (rc == 0)
                rc = read_cell(v, mark, 0, at.window_number, e->key, &value, err);
        if (rc < 0)
                return rc;
        if (value.len && !ad_cell_decode(value, &sum))
                return df_fail(err, DF_ECORRUPT, "the view holds a damaged cell");
        if (!ad_cell_shift(&sum, d))
                return df_fail(err, DF_ELIMIT, "a sum of the view exceeds 128 bits");
        df_buf_clear(&v->value);
        if (!ad_cell_is_zero(&sum))
                ad_cell_encode(&v->value, &sum);
        rc = write_cell(v, mark, 0, at.window_number, e->key, err);
        for (uint32_t up = AD_LEVEL_DAY;
             rc == 0 && level == AD_LEVEL_QUARTER && up < AD_LEVEL_COUNT; up++)
                if (up == AD_LEVEL_DAY || !ad_zone_is_utc(v->options.account_zone))
                        rc = shift(v, e->key, &at, up, window_of_quarter(v, up, at.window_number),
                                   d, err);
        return rc;
}

int adi_step_flush(struct ad_view *v, int64_t now_ms, struct df_error *err)
{
        struct adi_step *s = &v->step;
        int rc = flush_minutes(v, err);

        for (uint32_t level = AD_LEVEL_QUARTER; rc == 0 && level < AD_LEVEL_COUNT; level++) {
                struct ad_map *m = &s->sums[level - 1];
                struct ad_map_entry **sorted = ad_map_sorted(m);

                rc = sorted ? 0 : no_memory(err);
                for (size_t i = 0; rc == 0 && i < m->count; i++)
                        rc = flush_sum(v, level, sorted[i], err);
        }
        if (rc < 0)
                return rc;
        adi_marks_put(v, now_ms);
        for (struct ad_map_entry *e = s->others.first; e; e = e->next)
                df_store_put(v->store, e->key, df_bytes("", 0));
        return v->value.failed ? no_memory(err) : 0;
}
