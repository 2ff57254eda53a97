/* dedupe_stored.c - what the buckets keep in the store: runs, deltas, the list of runs.
 *
 * Under ns (hours and numbers big endian, so that one range holds an hour):
 *   'L' hour                          list of the hour's runs, written last: a run that it does not
 *                                     name (a merge cut short) does not count and is deleted
 *   'R' hour last_seq level block     a block of a short run: sorted ids of ADI_ID_BYTES
 *   'F' hour last_seq level part      (a run of the store) a long one's blocks, ADI_PART_BLOCKS a
 *                                     part: parts of a merge enter checkpoints as it goes on
 *   'D' hour seq                      a delta: ids in the order of recording, the later one wins
 */
#include <stdlib.h>

#include "operators/dedupe_private.h"

#define KEY_MAX 32

struct key {
        uint8_t bytes[KEY_MAX];
        size_t len;
};

static void key_add(struct key *k, uint64_t v, unsigned bytes)
{
        df_check(k->len + bytes <= KEY_MAX);
        for (unsigned i = 0; i < bytes; i++)
                k->bytes[k->len++] = (uint8_t)(v >> (8 * (bytes - 1 - i)));
}

static struct key hour_key(const struct adi_dedupe *d, char kind, int64_t hour)
{
        struct key k = {.len = 0};

        key_add(&k, d->op.ctx.ns, 1);
        key_add(&k, (uint8_t)kind, 1);
        key_add(&k, (uint64_t)hour ^ (1ull << 63), 8);
        return k;
}

static struct key delta_key(const struct adi_dedupe *d, int64_t hour, uint32_t seq)
{
        struct key k = hour_key(d, 'D', hour);

        key_add(&k, seq, 4);
        return k;
}

/* number: of a block ('R') or a part ('F'). */
static struct key run_key(const struct adi_dedupe *d, char kind, int64_t hour,
                          const struct adi_run *r, uint32_t number)
{
        struct key k = hour_key(d, kind, hour);

        key_add(&k, r->last_seq, 4);
        key_add(&k, r->level, 1);
        key_add(&k, number, 4);
        return k;
}

static struct df_bytes key_bytes(const struct key *k)
{
        return df_bytes(k->bytes, k->len);
}

/* ---- hours and runs ---- */

void adi_hour_delete(struct adi_dedupe *d, const struct adi_bucket *b)
{
        for (const char *kind = "LRD"; *kind; kind++) {
                struct key from = hour_key(d, *kind, b->hour), to = hour_key(d, *kind, b->hour + 1);

                df_store_del_range(d->op.ctx.store, key_bytes(&from), key_bytes(&to));
        }
        for (uint32_t i = 0; i < b->run_count; i++)
                if (b->runs[i].in_files)
                        adi_run_delete(d, b, &b->runs[i]);
}

int adi_block_read(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                   uint32_t block, bool in_order, struct df_bytes *ret, struct df_error *err)
{
        struct df_store *store = d->op.ctx.store;
        struct key k;
        bool found = false;
        int rc;

        if (r->in_files) {
                k = run_key(d, 'F', b->hour, r, block / ADI_PART_BLOCKS);
                rc = (in_order ? df_store_run_next : df_store_run_read)(
                        store, key_bytes(&k), block % ADI_PART_BLOCKS, ret, &found, err);
        } else {
                k = run_key(d, 'R', b->hour, r, block);
                rc = df_store_get(store, key_bytes(&k), ret, &found, err);
        }
        if (rc < 0)
                return rc;
        if (!found || ret->len == 0 || ret->len % ADI_ID_BYTES != 0 ||
            ret->len > ADI_BLOCK_IDS * ADI_ID_BYTES)
                return adi_damaged(b, "a block of a run is missing or cut", err);
        return 0;
}

/* The bytes of ids as they are stored. */
static int stored(struct adi_dedupe *d, const struct adi_id *ids, uint32_t count,
                  struct df_bytes *ret, struct df_error *err)
{
        if (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__) {
                *ret = df_bytes(ids, (size_t)count * ADI_ID_BYTES);
                return 0;
        }
        df_buf_clear(&d->scratch);
        if (df_buf_reserve(&d->scratch, (size_t)count * ADI_ID_BYTES)) {
                for (uint32_t i = 0; i < count; i++)
                        adi_id_store(d->scratch.data + (size_t)i * ADI_ID_BYTES, &ids[i]);
                d->scratch.len = (size_t)count * ADI_ID_BYTES;
        }
        *ret = df_buf_bytes(&d->scratch);
        return df_buf_check(&d->scratch, err);
}

int adi_run_put_block(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                      uint32_t block, const struct adi_id *ids, uint32_t count,
                      struct df_error *err)
{
        struct df_store *store = d->op.ctx.store;
        struct df_bytes value;
        struct key k;
        int rc = stored(d, ids, count, &value, err);

        df_check(count > 0 && count <= ADI_BLOCK_IDS);
        if (rc < 0)
                return rc;
        if (!r->in_files) {
                k = run_key(d, 'R', b->hour, r, block);
                df_store_put(store, key_bytes(&k), value);
                return 0;
        }
        k = run_key(d, 'F', b->hour, r, block / ADI_PART_BLOCKS);
        df_store_run_append(store, key_bytes(&k), value);
        if (block % ADI_PART_BLOCKS == ADI_PART_BLOCKS - 1)
                df_store_run_end(store, key_bytes(&k));
        return 0;
}

void adi_run_put_end(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                     uint32_t blocks)
{
        struct key k = run_key(d, 'F', b->hour, r, blocks / ADI_PART_BLOCKS);

        if (r->in_files && blocks % ADI_PART_BLOCKS != 0)
                df_store_run_end(d->op.ctx.store, key_bytes(&k));
}

void adi_run_delete(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r)
{
        struct df_store *store = d->op.ctx.store;

        if (r->blocks == 0)
                return;
        if (!r->in_files) {
                struct key from = run_key(d, 'R', b->hour, r, 0);
                struct key to = run_key(d, 'R', b->hour, r, r->blocks);

                return df_store_del_range(store, key_bytes(&from), key_bytes(&to));
        }
        for (uint32_t at = 0; at < r->blocks; at += ADI_PART_BLOCKS) {
                struct key k = run_key(d, 'F', b->hour, r, at / ADI_PART_BLOCKS);

                df_store_run_del(store, key_bytes(&k));
        }
}

static int run_snapshot(struct adi_dedupe *d, struct adi_bucket *b, struct adi_run *r,
                        struct df_error *err)
{
        uint32_t blocks = adi_run_blocks(d, r);
        int rc = adi_index_open(d, r, blocks, err);

        for (uint32_t i = 0; rc == 0 && i < blocks; i++) {
                const struct adi_id *ids = r->mem + (uint64_t)i * d->block_ids;
                uint32_t n = adi_block_count(d, r, i);

                rc = adi_run_put_block(d, b, r, i, ids, n, err);
                adi_index_note(d, r, i, ids, n);
        }
        if (rc < 0)
                return rc;
        adi_run_put_end(d, b, r, blocks);
        r->blocks = blocks;
        b->stored = true;
        return 0;
}

/* D3: what the next snapshot adds. A long delta would be written again as a run soon: the snapshot
 * writes that run instead, from the set, and nothing more need be noted here. */
void adi_delta_append(const struct adi_dedupe *d, struct adi_bucket *b, const struct adi_id *id)
{
        if (b->spills)
                return;
        if (b->tail.len / ADI_ID_BYTES >= d->set.limit / ADI_DELTA_SHARE) {
                b->spills = true;
                b->tail_dirty = false;
                df_buf_clear(&b->tail);
                return;
        }
        if (df_buf_reserve(&b->tail, ADI_ID_BYTES)) {
                adi_id_store(b->tail.data + b->tail.len, id);
                b->tail.len += ADI_ID_BYTES;
        }
        b->tail_dirty = true;
}

/* D3: the delta. A short last value stays in memory and is written again together with what comes,
 * so that frequent checkpoints do not leave many small values. */
static int delta_snapshot(struct adi_dedupe *d, struct adi_bucket *b, struct df_error *err)
{
        size_t at = 0;
        int rc = df_buf_check(&b->tail, err);

        if (rc < 0 || !b->tail_dirty)
                return rc;
        while (at < b->tail.len) {
                size_t n = b->tail.len - at;
                struct key k = delta_key(d, b->hour, b->tail_seq);

                if (n > ADI_DELTA_IDS * ADI_ID_BYTES)
                        n = ADI_DELTA_IDS * ADI_ID_BYTES;
                df_store_put(d->op.ctx.store, key_bytes(&k), df_bytes(b->tail.data + at, n));
                if (n < ADI_DELTA_KEEP)
                        break;
                b->tail_seq++;
                at += n;
        }
        if (at > 0)
                memmove(b->tail.data, b->tail.data + at, b->tail.len - at);
        b->tail.len -= at;
        b->tail_dirty = false;
        b->deltas_stored = true;
        b->stored = true;
        return 0;
}

static int list_snapshot(struct adi_dedupe *d, struct adi_bucket *b, struct df_error *err)
{
        struct key k = hour_key(d, 'L', b->hour);
        struct df_buf *v = &d->scratch;
        int rc;

        df_buf_clear(v);
        df_put_u32be(v, b->next_seq);
        for (uint32_t i = 0; i < b->run_count; i++) {
                const struct adi_run *r = &b->runs[i];

                df_check(r->blocks > 0);
                df_put_u32be(v, r->first_seq);
                df_put_u32be(v, r->last_seq);
                df_put_u32be(v, r->level | (r->in_files ? ADI_IN_FILES : 0));
                df_put_u32be(v, r->blocks);
                df_put_u64be(v, r->count);
        }
        rc = df_buf_check(v, err);
        if (rc < 0)
                return rc;
        df_store_put(d->op.ctx.store, key_bytes(&k), df_buf_bytes(v));
        b->list_dirty = false;
        b->stored = true;
        return 0;
}

int adi_buckets_snapshot(struct adi_dedupe *d, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < d->bucket_count; i++) {
                struct adi_bucket *b = d->buckets[i];

                for (uint32_t j = 0; rc == 0 && j < b->run_count; j++)
                        if (b->runs[j].blocks == 0)
                                rc = run_snapshot(d, b, &b->runs[j], err);
                if (rc == 0 && b->stale_to > 0) {
                        struct key from = delta_key(d, b->hour, 0);
                        struct key to = delta_key(d, b->hour, b->stale_to);

                        df_store_del_range(d->op.ctx.store, key_bytes(&from), key_bytes(&to));
                        b->stale_to = 0;
                        b->deltas_stored = false;
                }
                if (rc == 0)
                        rc = delta_snapshot(d, b, err);
                if (rc == 0 && b->list_dirty)
                        rc = list_snapshot(d, b, err);
        }
        return rc;
}
