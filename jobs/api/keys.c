#include "jobs/api/keys.h"

uint32_t ad_lead_index(const struct ad_grouping *g)
{
        for (uint32_t i = 0; i < g->dim_count; i++)
                if (g->dims[i] == AD_DIM_CAMPAIGN)
                        return i;
        return 0;
}

void ad_key_bucket(struct df_buf *b, uint8_t kind, uint32_t level, struct df_bytes tenant,
                   uint32_t grouping, uint32_t bucket)
{
        df_put_u8(b, kind);
        df_put_u8(b, (uint8_t)level);
        df_put_lstr(b, tenant);
        df_put_u8(b, (uint8_t)grouping);
        df_put_u32be(b, bucket);
}

void ad_key_lead(struct df_buf *b, uint32_t level, struct df_bytes tenant, uint32_t grouping,
                 uint32_t window, struct df_bytes lead)
{
        ad_key_bucket(b, 'c', level, tenant, grouping, ad_bucket(window));
        df_put_lstr(b, lead);
        df_put_u32be(b, window);
}

void ad_key_cell(struct df_buf *b, const struct ad_grouping *g, const struct ad_cell_key *k)
{
        uint32_t lead = ad_lead_index(g);

        if (g->dim_count > 0)
                ad_key_lead(b, k->level, k->tenant_id, k->grouping, k->window, k->dims[lead]);
        else
                ad_key_lead(b, k->level, k->tenant_id, k->grouping, k->window, df_bytes(NULL, 0));
        for (uint32_t i = 0; i < g->dim_count; i++)
                if (i != lead)
                        df_put_lstr(b, k->dims[i]);
        df_put_lstr(b, k->currency);
        if (k->level == AD_LEVEL_MINUTE)
                df_put_varint(b, k->group);
}

bool ad_key_cell_decode(struct df_bytes key, size_t skip, const struct ad_grouping *g,
                        struct ad_cell_key *ret)
{
        struct df_reader r = df_reader(key);
        uint32_t lead = ad_lead_index(g);
        struct df_bytes first;

        (void)df_get_bytes(&r, skip);
        (void)df_get_u32be(&r); /* the bucket follows from the window */
        first = df_get_lstr(&r);
        ret->window = df_get_u32be(&r);
        for (uint32_t i = 0; i < g->dim_count; i++)
                ret->dims[i] = i == lead ? first : df_get_lstr(&r);
        ret->currency = df_get_lstr(&r);
        ret->group =
                key.len > 1 && key.data[1] == AD_LEVEL_MINUTE ? (uint32_t)df_get_varint(&r) : 0;
        return !r.bad && df_reader_left(&r) == 0;
}

void ad_key_other(struct df_buf *b, uint32_t level, struct df_bytes tenant, uint32_t grouping,
                  uint32_t window)
{
        ad_key_bucket(b, 'o', level, tenant, grouping, ad_bucket(window));
        df_put_u32be(b, window);
}

/* Cells: a byte of what is there, then varints; sums are zigzag, up to 19 bytes. Parts: a byte that
 * no cell begins with, then the number within the group and the cell of each. */
enum {
        HAS_IMPRESSIONS = 1,
        HAS_CLICKS = 2,
        HAS_CONVERSIONS = 4,
        HAS_SPEND = 8,
        HAS_PAYOUT = 16,
        HAS_VALUE = 32,
        HAS_INVALID = 64,
        ARE_PARTS = 128
};

static void put_sum(struct df_buf *b, df_nanos v)
{
        unsigned __int128 u = ((unsigned __int128)v << 1) ^ (unsigned __int128)(v >> 127);
        uint8_t bytes[19];
        size_t n = 0;

        do {
                bytes[n] = (uint8_t)(u & 0x7f);
                u >>= 7;
                bytes[n++] |= u ? 0x80 : 0;
        } while (u);
        df_buf_append(b, bytes, n);
}

static df_nanos get_sum(struct df_reader *r)
{
        unsigned __int128 u = 0;
        unsigned shift = 0;
        uint8_t byte;

        do {
                byte = df_get_u8(r);
                if (shift > 126 || r->bad) {
                        r->bad = true;
                        return 0;
                }
                u |= (unsigned __int128)(byte & 0x7f) << shift;
                shift += 7;
        } while (byte & 0x80);
        return (df_nanos)(u >> 1) ^ -(df_nanos)(u & 1);
}

void ad_cell_encode(struct df_buf *b, const struct ad_cell *c)
{
        bool invalid = c->invalid[0] || c->invalid[1] || c->invalid[2];

        df_put_u8(b,
                  (uint8_t)((c->impressions ? HAS_IMPRESSIONS : 0) | (c->clicks ? HAS_CLICKS : 0) |
                            (c->conversions ? HAS_CONVERSIONS : 0) | (c->spend ? HAS_SPEND : 0) |
                            (c->payout ? HAS_PAYOUT : 0) | (c->value ? HAS_VALUE : 0) |
                            (invalid ? HAS_INVALID : 0)));
        if (c->impressions)
                df_put_varint(b, c->impressions);
        if (c->clicks)
                df_put_varint(b, c->clicks);
        if (c->conversions)
                df_put_varint(b, c->conversions);
        if (c->spend)
                put_sum(b, c->spend);
        if (c->payout)
                put_sum(b, c->payout);
        if (c->value)
                put_sum(b, c->value);
        for (int i = 0; invalid && i < 3; i++)
                df_put_varint(b, c->invalid[i]);
}

static void get_cell(struct df_reader *r, uint8_t has, struct ad_cell *ret)
{
        *ret = (struct ad_cell){0};
        if (has & HAS_IMPRESSIONS)
                ret->impressions = df_get_varint(r);
        if (has & HAS_CLICKS)
                ret->clicks = df_get_varint(r);
        if (has & HAS_CONVERSIONS)
                ret->conversions = df_get_varint(r);
        if (has & HAS_SPEND)
                ret->spend = get_sum(r);
        if (has & HAS_PAYOUT)
                ret->payout = get_sum(r);
        if (has & HAS_VALUE)
                ret->value = get_sum(r);
        for (int i = 0; (has & HAS_INVALID) && i < 3; i++)
                ret->invalid[i] = df_get_varint(r);
}

static bool get_part(struct df_reader *r, uint8_t *ret_index, struct ad_cell *ret)
{
        uint8_t has;

        *ret_index = df_get_u8(r);
        has = df_get_u8(r);
        get_cell(r, has, ret);
        return !r->bad && *ret_index < AD_PARTS && !(has & ARE_PARTS);
}

bool ad_cell_decode(struct df_bytes bytes, struct ad_cell *ret)
{
        struct df_reader r = df_reader(bytes);
        uint8_t has = df_get_u8(&r), index;
        struct ad_cell part;

        if (!(has & ARE_PARTS)) {
                get_cell(&r, has, ret);
                return !r.bad && df_reader_left(&r) == 0;
        }
        *ret = (struct ad_cell){0};
        while (df_reader_left(&r) > 0)
                if (!get_part(&r, &index, &part) || !ad_cell_shift(ret, &part))
                        return false;
        return true;
}

void ad_parts_encode(struct df_buf *b, const struct ad_cell parts[AD_PARTS])
{
        bool any = false;

        for (uint8_t i = 0; i < AD_PARTS; i++) {
                if (ad_cell_is_zero(&parts[i]))
                        continue;
                if (!any)
                        df_put_u8(b, ARE_PARTS);
                any = true;
                df_put_u8(b, i);
                ad_cell_encode(b, &parts[i]);
        }
}

bool ad_parts_decode(struct df_bytes bytes, struct ad_cell ret[AD_PARTS])
{
        struct df_reader r = df_reader(bytes);
        struct ad_cell part;
        uint8_t index;

        memset(ret, 0, AD_PARTS * sizeof(*ret));
        if (bytes.len == 0)
                return true;
        if (df_get_u8(&r) != ARE_PARTS)
                return false;
        while (df_reader_left(&r) > 0) {
                if (!get_part(&r, &index, &part))
                        return false;
                ret[index] = part;
        }
        return true;
}

bool ad_cell_diff(struct ad_cell *ret, const struct ad_cell *a, const struct ad_cell *b)
{
        struct ad_cell d = {
                .impressions = a->impressions - b->impressions,
                .clicks = a->clicks - b->clicks,
                .conversions = a->conversions - b->conversions,
        };
        bool bad = __builtin_sub_overflow(a->spend, b->spend, &d.spend) ||
                   __builtin_sub_overflow(a->payout, b->payout, &d.payout) ||
                   __builtin_sub_overflow(a->value, b->value, &d.value);

        for (int i = 0; i < 3; i++)
                d.invalid[i] = a->invalid[i] - b->invalid[i];
        *ret = d;
        return !bad;
}

bool ad_cell_shift(struct ad_cell *sum, const struct ad_cell *d)
{
        struct ad_cell s = *sum;

        s.impressions += d->impressions;
        s.clicks += d->clicks;
        s.conversions += d->conversions;
        for (int i = 0; i < 3; i++)
                s.invalid[i] += d->invalid[i];
        if (!df_nanos_add(&s.spend, d->spend) || !df_nanos_add(&s.payout, d->payout) ||
            !df_nanos_add(&s.value, d->value))
                return false;
        *sum = s;
        return true;
}
