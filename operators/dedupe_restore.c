/* dedupe_restore.c - the buckets from the store (dedupe_stored.c says what lies there).
 *
 * Lists first, then every block once, for the indexes and the filter, then the deltas into the set.
 * A block or a file that no list names was written by a merge that a crash cut short: deleted.
 */
#include <stdlib.h>

#include "operators/dedupe_private.h"

#define LIST_ENTRY_BYTES 24

static int64_t get_hour(struct df_reader *r)
{
        (void)df_get_bytes(r, 2);
        return (int64_t)(df_get_u64be(r) ^ (1ull << 63));
}

static int restore_list(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct adi_dedupe *d = arg;
        struct df_reader k = df_reader(key), v = df_reader(value);
        struct adi_bucket *b;
        int rc = adi_bucket_get(d, get_hour(&k), &b, err);

        if (rc < 0)
                return rc;
        b->stored = true;
        b->next_seq = df_get_u32be(&v);
        while (!v.bad && df_reader_left(&v) >= LIST_ENTRY_BYTES) {
                struct adi_run r = {.first_seq = df_get_u32be(&v)};

                r.last_seq = df_get_u32be(&v);
                r.level = df_get_u32be(&v);
                r.in_files = r.level & ADI_IN_FILES;
                r.level &= ~ADI_IN_FILES;
                r.blocks = df_get_u32be(&v);
                r.count = df_get_u64be(&v);
                if (r.blocks == 0 || r.count < r.blocks ||
                    r.count > (uint64_t)r.blocks * ADI_BLOCK_IDS || r.last_seq >= b->next_seq ||
                    r.first_seq > r.last_seq)
                        return adi_damaged(b, "the list of runs is damaged", err);
                rc = adi_bucket_grow(b, err);
                if (rc < 0)
                        return rc;
                rc = adi_index_open(d, &r, r.blocks, err);
                b->runs[b->run_count++] = r; /* the bucket frees it */
                if (rc < 0)
                        return rc;
        }
        if (k.bad || v.bad || df_reader_left(&k) || df_reader_left(&v))
                return adi_damaged(b, "the list of runs is damaged", err);
        if (b->run_count > 0) {
                adi_tags_hold(&d->tags, b->hour);
                b->held = true;
        }
        return 0;
}

struct block_scan {
        struct adi_dedupe *d;
        const struct adi_run *run; /* the one whose blocks come */
        uint32_t next;
        uint64_t ids;
        uint64_t runs;
        struct adi_id block[ADI_BLOCK_IDS];
};

static int end_run(struct block_scan *s, struct df_error *err)
{
        if (s->run && (s->next != s->run->blocks || s->ids != s->run->count))
                return df_fail(err, DF_ECORRUPT,
                               "dedupe: a run of %u blocks and %llu ids has only %u and %llu",
                               s->run->blocks, (unsigned long long)s->run->count, s->next,
                               (unsigned long long)s->ids);
        s->runs += s->run != NULL;
        s->run = NULL;
        s->next = 0;
        s->ids = 0;
        return 0;
}

static const struct adi_run *listed(const struct adi_bucket *b, uint32_t last_seq, uint32_t level)
{
        for (uint32_t i = 0; b && i < b->run_count; i++)
                if (b->runs[i].last_seq == last_seq && b->runs[i].level == level)
                        return &b->runs[i];
        return NULL;
}

static int restore_block(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct block_scan *s = arg;
        struct df_reader k = df_reader(key);
        struct adi_bucket *b = adi_bucket_find(s->d, get_hour(&k));
        uint32_t last_seq = df_get_u32be(&k), level = df_get_u8(&k), block = df_get_u32be(&k);
        const struct adi_run *r = listed(b, last_seq, level);
        size_t n = value.len / ADI_ID_BYTES;
        int rc;

        if (k.bad || !r || r->in_files) { /* of a merge that was cut short */
                df_store_del(s->d->op.ctx.store, key);
                return 0;
        }
        if (r != s->run) {
                rc = end_run(s, err);
                if (rc < 0)
                        return rc;
                s->run = r;
        }
        if (block != s->next || block >= r->blocks || n == 0 || n > ADI_BLOCK_IDS ||
            value.len % ADI_ID_BYTES)
                return adi_damaged(b, "a block of a run is missing or cut", err);
        for (size_t i = 0; i < n; i++)
                s->block[i] = adi_id_load(value.data + i * ADI_ID_BYTES);
        adi_index_note(s->d, r, block, s->block, (uint32_t)n);
        s->next++;
        s->ids += n;
        return adi_tags_add(&s->d->tags, s->block, n, b->hour, last_seq, err);
}

static int restore_files(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                         struct adi_id block[ADI_BLOCK_IDS], struct df_error *err)
{
        uint64_t ids = 0;

        for (uint32_t i = 0; i < r->blocks; i++) {
                uint32_t n;
                int rc = adi_run_block(d, b, r, i, block, &n, err);

                if (rc == 0)
                        rc = adi_tags_add(&d->tags, block, n, b->hour, r->last_seq, err);
                if (rc < 0)
                        return rc;
                adi_index_note(d, r, i, block, n);
                ids += n;
        }
        return ids == r->count ? 0 : adi_damaged(b, "a run has another number of ids", err);
}

/* A part that no list names was written by a merge that was cut short. */
static int check_part(void *arg, struct df_bytes key, struct df_error *err)
{
        struct adi_dedupe *d = arg;
        struct df_reader k = df_reader(key);
        const struct adi_bucket *b = adi_bucket_find(d, get_hour(&k));
        uint32_t last_seq = df_get_u32be(&k), level = df_get_u8(&k), part = df_get_u32be(&k);
        const struct adi_run *r = listed(b, last_seq, level);

        (void)err;
        if (k.bad || !r || !r->in_files || (uint64_t)part * ADI_PART_BLOCKS >= r->blocks)
                df_store_run_del(d->op.ctx.store, key);
        return 0;
}

/* Runs that lie in files. */
static int restore_long(struct adi_dedupe *d, struct adi_id block[ADI_BLOCK_IDS],
                        struct df_error *err)
{
        uint8_t prefix[2] = {d->op.ctx.ns, 'F'};

        for (size_t i = 0; i < d->bucket_count; i++) {
                const struct adi_bucket *b = d->buckets[i];

                for (uint32_t j = 0; j < b->run_count; j++) {
                        int rc = b->runs[j].in_files ? restore_files(d, b, &b->runs[j], block, err)
                                                     : 0;

                        if (rc < 0)
                                return rc;
                }
        }
        return df_store_run_scan(d->op.ctx.store, df_bytes(prefix, 2), check_part, d, err);
}

struct delta_scan {
        struct adi_dedupe *d;
        int (*add)(struct adi_dedupe *d, struct adi_bucket *b, const struct adi_id *id,
                   struct df_error *err);
};

/* The last value goes on in memory when it is short, as it would without a restart. */
static void continue_tail(struct adi_bucket *b, struct df_bytes value)
{
        df_buf_clear(&b->tail);
        if (value.len >= ADI_DELTA_KEEP)
                return;
        df_buf_append(&b->tail, value.data, value.len);
        b->tail_seq--;
}

static int restore_delta(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct delta_scan *s = arg;
        struct df_reader k = df_reader(key);
        struct adi_bucket *b;
        int rc = adi_bucket_get(s->d, get_hour(&k), &b, err);

        if (rc < 0)
                return rc;
        b->stored = true;
        b->deltas_stored = true;
        b->tail_seq = df_get_u32be(&k) + 1;
        if (b->stale_to == 0)
                continue_tail(b, value);
        if (k.bad || value.len % ADI_ID_BYTES)
                return adi_damaged(b, "a delta is cut", err);
        for (size_t at = 0; rc == 0 && at < value.len; at += ADI_ID_BYTES) {
                struct adi_id id = adi_id_load(value.data + at);

                rc = s->add(s->d, b, &id, err);
                /* The set was larger when this was written, and spilled: the run covers the values
                 * up to here, and those are deleted; what comes after needs a new one. */
                if (b->stale_to > 0)
                        adi_delta_append(s->d, b, &id);
        }
        return rc;
}

static int restore_scan(struct adi_dedupe *d, char kind,
                        int (*fn)(void *, struct df_bytes, struct df_bytes, struct df_error *),
                        void *arg, struct df_error *err)
{
        uint8_t prefix[2] = {d->op.ctx.ns, (uint8_t)kind};

        return df_store_scan(d->op.ctx.store, df_bytes(prefix, 2), fn, arg, err);
}

int adi_buckets_restore(struct adi_dedupe *d,
                        int (*add)(struct adi_dedupe *d, struct adi_bucket *b,
                                   const struct adi_id *id, struct df_error *err),
                        struct df_error *err)
{
        struct delta_scan deltas = {.d = d, .add = add};
        struct block_scan *blocks = NULL;
        uint64_t ids = 0, runs = 0;
        int rc = restore_scan(d, 'L', restore_list, d, err);

        if (rc < 0)
                return rc;
        for (size_t i = 0; i < d->bucket_count; i++) {
                for (uint32_t j = 0; j < d->buckets[i]->run_count; j++) {
                        ids += d->buckets[i]->runs[j].count;
                        runs += !d->buckets[i]->runs[j].in_files;
                }
        }
        if (ids > 0)
                rc = adi_tags_reserve(&d->tags, ids, err);
        if (rc < 0)
                return rc;
        blocks = calloc(1, sizeof(*blocks));
        if (!blocks)
                return df_fail(err, DF_ENOMEM, "dedupe: restoring runs");
        blocks->d = d;
        rc = restore_scan(d, 'R', restore_block, blocks, err);
        if (rc == 0)
                rc = end_run(blocks, err);
        if (rc == 0 && blocks->runs != runs)
                rc = df_fail(err, DF_ECORRUPT, "dedupe: %llu runs are listed, %llu are there",
                             (unsigned long long)runs, (unsigned long long)blocks->runs);
        if (rc == 0)
                rc = restore_long(d, blocks->block, err);
        free(blocks);
        return rc < 0 ? rc : restore_scan(d, 'D', restore_delta, &deltas, err);
}
