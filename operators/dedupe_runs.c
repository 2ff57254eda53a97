/* dedupe_runs.c - the hourly buckets: ids leave the set in sorted runs, and are asked for there.
 *
 * A run lies in memory until the snapshot that stores it (dedupe_stored.c), since reads do not see
 * the open batch. It stays there while newer ones leave room: most copies come soon after their
 * event, and a block that nobody has read comes from the disk. Afterwards only the first key of
 * each block is in memory.
 */
#include <stdlib.h>

#include "operators/dedupe_private.h"

/* ---- buckets ---- */

static size_t bucket_place(const struct adi_dedupe *d, int64_t hour)
{
        size_t at = d->bucket_count;

        while (at > 0 && d->buckets[at - 1]->hour >= hour)
                at--;
        return at;
}

struct adi_bucket *adi_bucket_find(const struct adi_dedupe *d, int64_t hour)
{
        size_t at = bucket_place(d, hour);

        return at < d->bucket_count && d->buckets[at]->hour == hour ? d->buckets[at] : NULL;
}

int adi_bucket_get(struct adi_dedupe *d, int64_t hour, struct adi_bucket **ret,
                   struct df_error *err)
{
        struct adi_bucket *b;
        size_t at;

        if (d->last_used && d->last_used->hour == hour) {
                *ret = d->last_used;
                return 0;
        }
        at = bucket_place(d, hour);
        if (at < d->bucket_count && d->buckets[at]->hour == hour) {
                *ret = d->last_used = d->buckets[at];
                return 0;
        }
        if (d->bucket_count == d->bucket_cap) {
                size_t cap = d->bucket_cap ? 2 * d->bucket_cap : 32;
                struct adi_bucket **v = realloc(d->buckets, cap * sizeof(struct adi_bucket *));

                if (!v)
                        return df_fail(err, DF_ENOMEM, "dedupe: %zu hours", cap);
                d->buckets = v;
                d->bucket_cap = cap;
        }
        b = calloc(1, sizeof(*b));
        if (!b)
                return df_fail(err, DF_ENOMEM, "dedupe: an hour");
        b->hour = hour;
        memmove(&d->buckets[at + 1], &d->buckets[at],
                (d->bucket_count - at) * sizeof(struct adi_bucket *));
        d->buckets[at] = b;
        d->bucket_count++;
        *ret = d->last_used = b;
        return 0;
}

void adi_run_release(struct adi_run *r)
{
        df_pages_free(&r->memory);
        adi_index_release(r);
        *r = (struct adi_run){0};
}

void adi_bucket_destroy(struct adi_bucket *b)
{
        if (!b)
                return;
        for (uint32_t i = 0; i < b->run_count; i++)
                adi_run_release(&b->runs[i]);
        free(b->runs);
        df_buf_release(&b->tail);
        free(b);
}

void adi_buckets_expire(struct adi_dedupe *d, int64_t before_hour)
{
        size_t n = 0;

        while (n < d->bucket_count && d->buckets[n]->hour < before_hour)
                n++;
        if (n == 0)
                return;
        for (size_t i = 0; i < n; i++) {
                struct adi_bucket *b = d->buckets[i];

                if (d->merge.bucket == b)
                        adi_merge_abort(d);
                if (b->held)
                        adi_tags_drop(&d->tags, b->hour);
                if (b->stored)
                        adi_hour_delete(d, b);
                adi_bucket_destroy(b);
        }
        d->bucket_count -= n;
        memmove(d->buckets, d->buckets + n, d->bucket_count * sizeof(struct adi_bucket *));
        d->last_used = NULL;
}

int adi_bucket_grow(struct adi_bucket *b, struct df_error *err)
{
        uint32_t cap = b->run_cap ? 2 * b->run_cap : 8;
        struct adi_run *v;

        if (b->run_count < b->run_cap)
                return 0;
        v = realloc(b->runs, cap * sizeof(*v));
        if (!v)
                return df_fail(err, DF_ENOMEM, "dedupe: %u runs of an hour", cap);
        b->runs = v;
        b->run_cap = cap;
        return 0;
}

static void give_memory(struct adi_run *r)
{
        df_pages_free(&r->memory);
        r->mem = NULL;
}

/* Runs in memory and `count` more ids are dedupe_open_ids at most, but for those that are not
 * stored yet: the oldest ones go. */
static void make_room(struct adi_dedupe *d, uint64_t count)
{
        uint64_t ids = count;

        for (size_t i = 0; i < d->bucket_count; i++)
                for (uint32_t j = 0; j < d->buckets[i]->run_count; j++)
                        ids += d->buckets[i]->runs[j].mem ? d->buckets[i]->runs[j].count : 0;
        for (size_t i = 0; i < d->bucket_count; i++)
                for (uint32_t j = 0; j < d->buckets[i]->run_count && ids > d->set.limit; j++) {
                        struct adi_run *r = &d->buckets[i]->runs[j];

                        if (!r->mem || r->blocks == 0)
                                continue;
                        ids -= r->count;
                        give_memory(r);
                        d->merge.look = true;
                }
}

/* Runs of one size recur: powers of two find what the last one left. */
static int take_memory(struct adi_run *r, struct df_error *err)
{
        size_t cap = ADI_BLOCK_IDS;
        int rc;

        while (cap < r->count)
                cap *= 2;
        rc = df_pages_alloc(&r->memory, cap * sizeof(*r->mem), false, err);
        r->mem = r->memory.data;
        return rc;
}

int adi_bucket_spill(struct adi_dedupe *d, struct adi_bucket *b, struct df_error *err)
{
        uint32_t seq = b->next_seq;
        struct adi_run r = {.first_seq = seq,
                            .last_seq = seq,
                            .count = b->open_ids,
                            .in_files = adi_run_is_long(d, b->open_ids)};
        int rc = adi_bucket_grow(b, err);

        make_room(d, r.count);
        if (rc == 0)
                rc = take_memory(&r, err);
        if (rc < 0)
                return rc;
        adi_set_sorted(&d->set, b->hour, b->open_ids, r.mem);
        if (!b->held) {
                adi_tags_hold(&d->tags, b->hour);
                b->held = true;
        }
        rc = adi_tags_add(&d->tags, r.mem, r.count, b->hour, seq, err);
        if (rc < 0) {
                give_memory(&r);
                return rc;
        }
        b->runs[b->run_count++] = r;
        b->next_seq = seq + 1;
        b->list_dirty = true;
        d->merge.look = true;
        /* The run holds what the deltas held. */
        df_buf_clear(&b->tail);
        b->tail_dirty = false;
        b->spills = false;
        b->tail_seq++;
        if (b->deltas_stored)
                b->stale_to = b->tail_seq;
        b->open_ids = 0;
        return 0;
}

/* ---- runs ---- */

int adi_damaged(const struct adi_bucket *b, const char *what, struct df_error *err)
{
        return df_fail(err, DF_ECORRUPT,
                       "dedupe: hour %lld: %s; restore the partition with `adtally recover`",
                       (long long)b->hour, what);
}

uint32_t adi_run_blocks(const struct adi_dedupe *d, const struct adi_run *r)
{
        return r->blocks ? r->blocks : (uint32_t)((r->count + d->block_ids - 1) / d->block_ids);
}

uint32_t adi_block_count(const struct adi_dedupe *d, const struct adi_run *r, uint32_t block)
{
        uint64_t from = (uint64_t)block * d->block_ids;

        df_check(from < r->count);
        return r->count - from < d->block_ids ? (uint32_t)(r->count - from) : d->block_ids;
}

int adi_run_block(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                  uint32_t block, struct adi_id *ids, uint32_t *ret_count, struct df_error *err)
{
        struct df_bytes v;
        int rc;

        if (r->mem) {
                *ret_count = adi_block_count(d, r, block);
                memcpy(ids, r->mem + (uint64_t)block * d->block_ids, *ret_count * sizeof(*ids));
                return 0;
        }
        rc = adi_block_read(d, b, r, block, true, &v, err);
        if (rc < 0)
                return rc;
        *ret_count = (uint32_t)(v.len / ADI_ID_BYTES);
        for (uint32_t i = 0; i < *ret_count; i++)
                ids[i] = adi_id_load(v.data + (size_t)i * ADI_ID_BYTES);
        return 0;
}

/* An id of a block as the store gives it, or of a run in memory. */
static struct adi_id id_at(const uint8_t *ids, uint64_t at, bool in_memory)
{
        struct adi_id id;

        if (!in_memory)
                return adi_id_load(ids + at * ADI_ID_BYTES);
        memcpy(&id, ids + at * ADI_ID_BYTES, sizeof(id));
        return id;
}

static bool find_in(const void *ids, uint64_t count, bool in_memory, struct df_hash128 key,
                    struct adi_id *ret)
{
        uint64_t lo = 0, hi = count;

        while (lo < hi) {
                uint64_t mid = lo + (hi - lo) / 2;
                struct adi_id id = id_at(ids, mid, in_memory);
                int c = adi_key_cmp(id.hi, id.lo, key.hi, key.lo);

                if (c == 0) {
                        *ret = id;
                        return true;
                }
                if (c < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return false;
}

static int run_find(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                    struct df_hash128 key, struct adi_id *ret, bool *ret_found,
                    struct df_error *err)
{
        struct df_bytes v;
        uint32_t block;
        int rc;

        *ret_found = false;
        if (r->blocks == 0) {
                *ret_found = find_in(r->mem, r->count, true, key, ret);
                return 0;
        }
        if (!adi_index_find(d, r, key, &block))
                return 0;
        if (r->mem) {
                *ret_found = find_in(r->mem + (uint64_t)block * d->block_ids,
                                     adi_block_count(d, r, block), true, key, ret);
                return 0;
        }
        rc = adi_block_read(d, b, r, block, false, &v, err);
        if (rc == 0)
                *ret_found = find_in(v.data, v.len / ADI_ID_BYTES, false, key, ret);
        return rc;
}

int adi_runs_seek(struct adi_dedupe *d, struct df_hash128 key, const struct adi_hits *hits,
                  int64_t from, int64_t to, struct adi_seen *seen, struct df_error *err)
{
        for (size_t i = d->bucket_count; i-- > 0 && d->buckets[i]->hour >= from;) {
                const struct adi_bucket *b = d->buckets[i];

                if (b->hour > to)
                        continue;
                if (seen->found && b->hour <= seen->hour)
                        return 0; /* the set is newer than the runs of the same hour */
                for (uint32_t j = b->run_count; j-- > 0;) {
                        const struct adi_run *r = &b->runs[j];
                        bool found;
                        int rc;

                        if (!adi_tags_may(&d->tags, hits, b->hour, r->first_seq, r->last_seq))
                                continue;
                        rc = run_find(d, b, r, key, &seen->id, &found, err);
                        if (rc < 0)
                                return rc;
                        if (!found)
                                continue;
                        seen->found = true;
                        seen->hour = b->hour;
                        return 0;
                }
        }
        return 0;
}
