/* tumble_state.c - the cells in the store.
 *
 * Under ns: 'w' minute u64be number u32be -> a blob of about 60 KB: cells of one window that
 * changed up to a checkpoint. A later blob of a window supersedes the cells of its earlier ones.
 * When they hold more than three cells for each live one, all are written again and the old ones
 * deleted: what is written is at most three times what changes, and what is stored at most three
 * times what lives (and 512 cells a window). A dropped window's blobs are deleted at once.
 *
 * A blob:  u8       1 = after this blob all cells of the window are sent; else 0
 *          cells:   u8 grouping << 1 | unsent, 3 bytes currency, tenant, the grouping's dimensions,
 *                   u16le of values that are not zero (bit 0 impressions, clicks, conversions,
 *                   invalid ones, spend, payout, value; bit 8 + i: money i + 1 takes 16 bytes),
 *                   the values: varint, zigzag varint or 16 bytes little endian
 *          strings: varint 0, length, bytes when new in this blob; otherwise its number, from 1
 */
#include <stdlib.h>

#include "operators/tumble_private.h"

#define KEY_BYTES 14
#define REWRITE_TIMES 3
#define REWRITE_SLACK 512
#define DELETE_ONE_BY_ONE 8
#define AHEAD 8 /* cells that are fetched before they are needed */
/* Head and currency, eight strings, the mask, six counts, three amounts. */
#define CELL_BYTES_MAX (4 + (1 + AD_DIM_COUNT) * (2 + AD_ID_MAX) + 2 + 6 * 10 + 3 * 16)
enum { ALL_SENT = 1 };

static struct df_bytes blob_key(const struct adi_tumble *t, uint64_t minute, uint32_t number,
                                uint8_t ret[KEY_BYTES])
{
        ret[0] = t->op.ctx.ns;
        ret[1] = 'w';
        for (int i = 0; i < 8; i++)
                ret[2 + i] = (uint8_t)(minute >> 8 * (7 - i));
        for (int i = 0; i < 4; i++)
                ret[10 + i] = (uint8_t)(number >> 8 * (3 - i));
        return df_bytes(ret, KEY_BYTES);
}

static void delete_blobs(struct adi_tumble *t, uint64_t minute, uint32_t from, uint32_t to)
{
        struct df_store *store = t->op.ctx.store;
        uint8_t a[KEY_BYTES], b[KEY_BYTES];

        if (to - from > DELETE_ONE_BY_ONE) {
                df_store_del_range(store, blob_key(t, minute, from, a), blob_key(t, minute, to, b));
                return;
        }
        for (uint32_t i = from; i < to; i++)
                df_store_del(store, blob_key(t, minute, i, a));
}

/* ---- writing ---- */

struct blob { /* while it is built, in t->buf */
        struct adi_tumble *t;
        struct adi_window *w;
        uint32_t names;
        uint32_t cells;
};

static void blob_begin(struct blob *b)
{
        df_buf_clear(&b->t->buf);
        df_put_u8(&b->t->buf, 0);
        if (++b->t->blob == 0) { /* numbers begin again: forget the old ones */
                for (uint32_t i = 0; i < b->t->names.count; i++)
                        b->t->names.list[i].blob = 0;
                b->t->blob = 1;
        }
        b->names = 0;
        b->cells = 0;
}

static int blob_end(struct blob *b, uint8_t flags, struct df_error *err)
{
        struct df_buf *buf = &b->t->buf;
        uint8_t key[KEY_BYTES];
        int rc = df_buf_check(buf, err);

        if (rc < 0)
                return rc;
        buf->data[0] = flags;
        df_store_put(b->t->op.ctx.store, blob_key(b->t, b->w->minute, b->w->next_blob++, key),
                     df_buf_bytes(buf));
        b->w->stored_cells += b->cells;
        return 0;
}

static uint8_t *put_varint(uint8_t *p, uint64_t v)
{
        for (; v >= 0x80; v >>= 7)
                *p++ = (uint8_t)(v | 0x80);
        *p++ = (uint8_t)v;
        return p;
}

static uint8_t *put_name(struct blob *b, uint8_t *p, uint32_t name)
{
        struct adi_name *n = &b->t->names.list[name];

        if (n->blob == b->t->blob)
                return put_varint(p, n->index);
        n->blob = b->t->blob;
        n->index = ++b->names;
        *p++ = 0;
        *p++ = n->len; /* a varint of one byte */
        memcpy(p, n->bytes, n->len);
        return p + n->len;
}

static bool fits_varint(df_nanos v)
{
        return v >= INT64_MIN && v <= INT64_MAX;
}

static uint8_t *put_values(uint8_t *p, const struct adi_cell *at)
{
        uint8_t *head = p;
        uint32_t mask = 0;

        p += 2;
        for (uint32_t i = 0; i < 6; i++) {
                if (at->counts[i] == 0)
                        continue;
                mask |= 1u << i;
                p = put_varint(p, at->counts[i]);
        }
        for (int i = 0; i < 3; i++) {
                df_nanos sum = adi_cell_sum(at, i);
                uint64_t low = (uint64_t)sum;

                if (sum == 0)
                        continue;
                mask |= 1u << (6 + i);
                if (fits_varint(sum)) {
                        p = put_varint(p, low << 1 ^ (uint64_t)((int64_t)low >> 63));
                        continue;
                }
                mask |= 1u << (9 + i);
                for (uint32_t k = 0; k < 16; k++)
                        *p++ = (uint8_t)((unsigned __int128)sum >> 8 * k);
        }
        head[0] = (uint8_t)mask;
        head[1] = (uint8_t)(mask >> 8);
        return p;
}

static int put_cell(struct blob *b, uint32_t cell, struct df_error *err)
{
        struct adi_cell *at = adi_cell_at(&b->t->cells, cell);
        uint32_t grouping = adi_tag_grouping(at->tag);
        uint32_t dim_count = b->t->cells.groupings->list[grouping].dim_count;
        struct df_buf *buf = &b->t->buf;
        bool unsent = at->state & ADI_UNSENT;
        struct adi_cell_key k;
        uint8_t *p;
        int rc;

        if (!df_buf_reserve(buf, CELL_BYTES_MAX))
                return df_buf_check(buf, err);
        p = buf->data + buf->len;
        adi_cell_key_of(&b->t->cells, cell, &k);
        *p++ = (uint8_t)(grouping << 1 | unsent);
        for (int i = 2; i >= 0; i--)
                *p++ = (uint8_t)(k.tag >> 8 * i);
        p = put_name(b, p, k.tenant);
        for (uint32_t i = 0; i < dim_count; i++)
                p = put_name(b, p, k.dims[i]);
        p = put_values(p, at);
        buf->len = (size_t)(p - buf->data);
        df_check(buf->len <= buf->cap);
        b->cells++;
        at->state &= ~(uint32_t)(ADI_CHANGED | ADI_LISTED | ADI_STORED_UNSENT);
        if (unsent)
                at->state |= ADI_STORED_UNSENT;
        b->w->stored_unsent |= unsent;
        if (buf->len < ADI_PAYLOAD_BYTES)
                return 0;
        rc = blob_end(b, 0, err);
        blob_begin(b);
        return rc;
}

/* The cells that changed, or were sent since the store last said unsent. When all cells of the
 * window are sent, one flag says so instead of the latter. */
static int put_touched(struct blob *b, bool all_sent, struct df_error *err)
{
        struct adi_window *w = b->w;
        int rc = 0;

        for (uint32_t i = 0; rc == 0 && i < w->touched.count; i++) {
                struct adi_cell *at = adi_cell_at(&b->t->cells, w->touched.items[i]);

                if (i + AHEAD < w->touched.count) { /* they lie anywhere */
                        const char *next = (const char *)adi_cell_at(&b->t->cells,
                                                                     w->touched.items[i + AHEAD]);

                        __builtin_prefetch(next, 1);
                        __builtin_prefetch(next + 64, 1);
                }
                if (all_sent && !(at->state & ADI_CHANGED))
                        at->state &= ~(uint32_t)(ADI_LISTED | ADI_STORED_UNSENT);
                else
                        rc = put_cell(b, w->touched.items[i], err);
        }
        return rc;
}

static int put_window(struct adi_tumble *t, struct adi_window *w, struct df_error *err)
{
        bool all_sent = w->unsent[0].count + w->unsent[1].count == 0;
        uint32_t old = w->next_blob;
        struct blob b = {.t = t, .w = w};
        bool whole = w->stored_cells + w->touched.count >
                     (uint64_t)REWRITE_TIMES * w->cells + REWRITE_SLACK;
        int rc = 0;

        if (w->touched.count == 0)
                return 0;
        if (whole) {
                delete_blobs(t, w->minute, w->first_blob, w->next_blob);
                w->first_blob = old;
                w->stored_cells = 0;
                w->stored_unsent = false;
        }
        blob_begin(&b);
        if (!whole)
                rc = put_touched(&b, all_sent, err);
        for (uint32_t i = 0; whole && rc == 0 && i < w->cells; i++)
                rc = put_cell(&b, adi_window_cell(w, i), err);
        w->touched.count = 0;
        if (rc < 0 || (b.cells == 0 && !(all_sent && w->stored_unsent)))
                return rc;
        if (all_sent)
                w->stored_unsent = false;
        return blob_end(&b, all_sent ? ALL_SENT : 0, err);
}

int adi_tumble_put(struct adi_tumble *t, struct df_error *err)
{
        int rc = 0;

        for (uint32_t i = 0; i < t->gone_count; i++)
                delete_blobs(t, t->gone[i].minute, t->gone[i].first_blob, t->gone[i].next_blob);
        t->gone_count = 0;
        for (uint32_t i = 0; rc == 0 && i <= t->cells.window_mask; i++)
                if (t->cells.windows[i])
                        rc = put_window(t, t->cells.windows[i], err);
        return rc;
}

/* ---- reading ---- */

struct load {
        struct adi_tumble *t;
        struct adi_list names; /* of the blob */
        struct adi_window *w;  /* of the last blob */
};

static int get_name(struct load *l, struct df_reader *r, uint32_t *ret, struct df_error *err)
{
        uint64_t number = df_get_varint(r);
        struct df_bytes s;
        int rc;

        *ret = ADI_NAME_EMPTY;
        if (number > l->names.count)
                r->bad = true;
        else if (number > 0)
                *ret = l->names.items[number - 1];
        if (r->bad || number > 0)
                return 0;
        s = df_get_lstr(r);
        if (s.len > AD_ID_MAX)
                r->bad = true;
        if (r->bad)
                return 0;
        rc = adi_names_get(&l->t->names, s, ret, err);
        return rc < 0 ? rc : adi_list_add(&l->names, *ret, err);
}

static void get_values(struct df_reader *r, struct adi_cell *at)
{
        uint32_t mask = df_get_u8(r);

        mask |= (uint32_t)df_get_u8(r) << 8;
        for (uint32_t i = 0; i < 6; i++)
                at->counts[i] = mask >> i & 1 ? df_get_varint(r) : 0;
        for (int i = 0; i < 3; i++) {
                df_nanos *sum = adi_cell_money(at, i);

                *sum = 0;
                if (mask >> (9 + i) & 1) {
                        unsigned __int128 low = df_get_u64le(r);

                        *sum = (df_nanos)(low | (unsigned __int128)df_get_u64le(r) << 64);
                } else if (mask >> (6 + i) & 1) {
                        *sum = df_pb_zigzag(df_get_varint(r));
                }
        }
}

static int get_cell(struct load *l, struct df_reader *r, struct df_error *err)
{
        struct adi_cells *c = &l->t->cells;
        uint32_t head = df_get_u8(r), grouping = head >> 1, cell = 0, hash;
        struct adi_cell_key k = {0};
        struct adi_cell *at;
        int rc;

        if (r->bad || grouping >= c->groupings->count) {
                r->bad = true;
                return 0;
        }
        k.tag = grouping << 24;
        for (int i = 2; i >= 0; i--)
                k.tag |= (uint32_t)df_get_u8(r) << 8 * i;
        rc = get_name(l, r, &k.tenant, err);
        for (uint32_t i = 0; rc == 0 && i < c->groupings->list[grouping].dim_count; i++)
                rc = get_name(l, r, &k.dims[i], err);
        if (rc < 0 || r->bad)
                return rc;
        hash = adi_cell_hash(&k, c->groupings->list[grouping].dim_count);
        cell = adi_cell_find(c, l->w, &k, hash);
        if (!cell)
                rc = adi_cell_add(c, l->w, &k, hash, &cell, err);
        if (rc < 0)
                return rc;
        at = adi_cell_at(c, cell);
        get_values(r, at);
        at->state = head & 1 ? ADI_STORED_UNSENT : 0;
        l->w->stored_unsent |= head & 1;
        l->w->stored_cells++;
        for (int i = 0; i < 3; i++)
                l->w->careful |= adi_near_limit(adi_cell_sum(at, i));
        return 0;
}

static int load_blob(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct df_reader k = df_reader(key), r = df_reader(value);
        struct load *l = arg;
        uint64_t minute;
        uint32_t number;
        uint8_t flags;
        int rc;

        (void)df_get_bytes(&k, 2);
        minute = df_get_u64be(&k);
        number = df_get_u32be(&k);
        flags = df_get_u8(&r);
        if (k.bad || key.len != KEY_BYTES || minute >= ADI_MINUTES_MAX)
                return df_fail(err, DF_ECORRUPT, "tumble: a key of %zu bytes in the state",
                               key.len);
        rc = adi_window_get(&l->t->cells, minute, &l->w, err);
        if (rc < 0)
                return rc;
        if (l->w->next_blob == 0)
                l->w->first_blob = number;
        l->w->next_blob = number + 1;
        l->names.count = 0;
        while (rc == 0 && !r.bad && df_reader_left(&r) > 0)
                rc = get_cell(l, &r, err);
        if (rc < 0)
                return rc;
        if (r.bad)
                return df_fail(err, DF_ECORRUPT,
                               "tumble: blob %u of minute %llu in the state is damaged", number,
                               (unsigned long long)minute);
        for (uint32_t i = 0; (flags & ALL_SENT) && l->w->stored_unsent && i < l->w->cells; i++)
                adi_cell_at(&l->t->cells, adi_window_cell(l->w, i))->state = 0;
        if (flags & ALL_SENT)
                l->w->stored_unsent = false;
        return 0;
}

int adi_tumble_load(struct adi_tumble *t, struct df_error *err)
{
        uint8_t prefix[2] = {t->op.ctx.ns, 'w'};
        struct load l = {.t = t};
        int rc = df_store_scan(t->op.ctx.store, df_bytes(prefix, 2), load_blob, &l, err);

        adi_list_release(&l.names);
        for (uint32_t i = 0; rc == 0 && i <= t->cells.window_mask; i++) {
                struct adi_window *w = t->cells.windows[i];

                for (uint32_t j = 0; w && rc == 0 && j < w->cells; j++) {
                        uint32_t cell = adi_window_cell(w, j);

                        if (adi_cell_at(&t->cells, cell)->state & ADI_STORED_UNSENT)
                                rc = adi_mark_unsent(&t->cells, w, cell, err);
                }
        }
        return rc;
}
