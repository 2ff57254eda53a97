/* cut.c - a checkpoint of the pure task: state, outbox and meta in one batch (K1), and the
 * collections that it publishes (K4, K6). */
#include <stdio.h>
#include <stdlib.h>

#include "core_private.h"

#define KEEP_BYTES (8u << 20) /* larger buffers are given back after use */

/* The parent in the chain of this source; a generation begins a chain of its own. */
static bool has_parent(const struct df_task *t)
{
        return t->last.k > 0 && t->last.source.generation == t->source.generation;
}

static int64_t final_through(const struct df_task *t)
{
        int64_t through = t->clock.watermark_ms;

        if (through != DF_TIME_MIN && through != DF_TIME_MAX)
                through -= t->config.grace_ms;
        if (t->hold_ms < through)
                through = t->hold_ms;
        /* What was final stays so, also when its rows are sent again (K10). */
        if (has_parent(t) && t->last.final_through_ms > through)
                through = t->last.final_through_ms;
        return through;
}

static void outbox_key(uint8_t key[17], uint64_t k, uint32_t box, uint32_t chunk)
{
        key[0] = DFI_KEY_OUTBOX;
        for (int i = 0; i < 8; i++)
                key[1 + i] = (uint8_t)(k >> (56 - 8 * i));
        for (int i = 0; i < 4; i++) {
                key[9 + i] = (uint8_t)(box >> (24 - 8 * i));
                key[13 + i] = (uint8_t)(chunk >> (24 - 8 * i));
        }
}

/* A box's payloads in pieces of about DFI_CHUNK, cut between payloads. */
static void put_box(struct df_task *t, uint32_t index, uint64_t k)
{
        struct df_reader r = df_reader(df_buf_bytes(&t->boxes[index].payloads));
        uint32_t chunk = 0;

        while (df_reader_left(&r) > 0) {
                const uint8_t *begin = r.p;
                uint8_t key[17];

                while (df_reader_left(&r) > 0 && (size_t)(r.p - begin) < DFI_CHUNK)
                        (void)df_get_bytes(&r, df_get_u32le(&r));
                df_check(!r.bad);
                outbox_key(key, k, index, chunk++);
                df_store_put(t->store, df_bytes(key, sizeof(key)),
                             df_bytes(begin, (size_t)(r.p - begin)));
        }
        t->boxes[index].chunks = chunk;
}

/* The outbox before this one was published, or it belongs to a checkpoint that K10 has overtaken.
 * Key by key where the keys are known: a range costs the store more. */
static void drop_outbox(struct df_task *t)
{
        uint8_t from[17], to[17];

        if (!t->outbox_known) {
                outbox_key(from, 0, 0, 0);
                outbox_key(to, t->now.k, 0, 0);
                df_store_del_range(t->store, df_bytes(from, sizeof(from)),
                                   df_bytes(to, sizeof(to)));
                return;
        }
        for (size_t i = 0; i < t->box_count; i++)
                for (uint32_t chunk = 0; chunk < t->boxes[i].chunks; chunk++) {
                        outbox_key(from, t->last.k, (uint32_t)i, chunk);
                        df_store_del(t->store, df_bytes(from, sizeof(from)));
                }
}

static void put_outbox(struct df_task *t)
{
        drop_outbox(t);
        for (size_t i = 0; i < t->box_count; i++)
                put_box(t, (uint32_t)i, t->now.k);
        t->outbox_known = true;
}

static int fill_meta(struct df_task *t, struct df_error *err)
{
        struct dfi_meta *m = &t->now;

        m->collections = calloc(t->box_count ? t->box_count : 1, sizeof(*m->collections));
        if (!m->collections)
                return df_fail(err, DF_ENOMEM, "%zu output collections", t->box_count);
        m->collection_count = t->box_count;
        for (size_t i = 0; i < t->box_count; i++)
                m->collections[i] = t->boxes[i].info;
        m->k = t->last.k + 1;
        if (has_parent(t)) {
                m->parent_k = t->last.k;
                m->parent_digest = t->last_digest;
        }
        m->to_offset = t->position;
        m->source = t->source;
        m->closed = t->closed;
        m->clock = t->clock;
        m->final_through_ms = final_through(t);
        if (t->cut_is_fixed)
                m->adopted = t->cut_digest;
        (void)snprintf(m->binary_version, sizeof(m->binary_version), "%s",
                       t->config.binary_version);
        return 0;
}

static int call_on_cut(struct df_task *t, struct df_error *err)
{
        int rc = 0;

        t->cutting = true;
        t->noted = false;
        t->more = false;
        t->hold_ms = DF_TIME_MAX;
        t->next_news_ms = DF_TIME_MAX;
        for (size_t i = 0; rc == 0 && i < t->config.chain_length; i++) {
                struct df_out out = {.task = t, .next = i + 1};

                (void)dfi_charge(&t->meter, &t->profile.lines[i].cut_ns);
                if (t->ops[i]->ops->on_cut)
                        rc = t->ops[i]->ops->on_cut(t->ops[i], &out, err);
        }
        (void)dfi_charge(&t->meter, NULL);
        t->cutting = false;
        t->resend_all = false;
        return rc;
}

static int call_snapshot(struct df_task *t, uint64_t k, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < t->config.chain_length; i++) {
                (void)dfi_charge(&t->meter, &t->profile.lines[i].cut_ns);
                if (t->ops[i]->ops->snapshot)
                        rc = t->ops[i]->ops->snapshot(t->ops[i], k, err);
        }
        (void)dfi_charge(&t->meter, NULL);
        df_arena_reset(&t->arena);
        return rc;
}

static void interval_done(struct df_task *t, struct df_hash128 digest)
{
        dfi_meta_release(&t->last);
        t->last = t->now;
        memset(&t->now, 0, sizeof(t->now));
        t->last_digest = digest;
        t->uncommitted = true;
        t->ended = false;
        t->cut_is_fixed = false;
        t->emitted_bytes = 0;
        for (size_t i = 0; i < t->box_count; i++) {
                if (t->boxes[i].payloads.cap > KEEP_BYTES)
                        df_buf_release(&t->boxes[i].payloads);
                df_buf_clear(&t->boxes[i].payloads);
                t->boxes[i].info.rows = 0;
                t->boxes[i].info.digest = (struct df_hash128){0, 0};
        }
        dfi_begin_interval(t);
}

int df_task_cut(struct df_task *t, struct df_error *err)
{
        uint8_t key = DFI_KEY_META;
        struct df_buf meta = {0};
        struct df_hash128 digest;
        int rc;

        df_check(!t->uncommitted);
        df_check(!dfi_task_held(t));
        if (t->failed)
                return df_fail(err, DF_ECLOSED, "the task failed before");
        rc = call_on_cut(t, err);
        if (rc == 0)
                rc = call_snapshot(t, t->last.k + 1, err);
        if (rc == 0)
                rc = fill_meta(t, err);
        if (rc == 0) {
                dfi_meta_encode(&t->now, &t->config, &meta);
                rc = df_buf_check(&meta, err);
        }
        if (rc == 0) {
                digest = dfi_meta_digest(&t->now, df_buf_bytes(&meta));
                put_outbox(t);
                df_store_put(t->store, df_bytes(&key, 1), df_buf_bytes(&meta));
                rc = df_store_commit(t->store, err);
        }
        df_buf_release(&meta);
        if (rc == 0) {
                interval_done(t, digest);
                return 0;
        }
        df_store_rollback(t->store);
        t->failed = true;
        return rc;
}

void df_task_committed(struct df_task *t)
{
        t->uncommitted = false;
}

/* ---- publish ---- */

static void fill_seal(const struct df_task *t, const struct df_collection_info *c,
                      struct df_seal *ret)
{
        const struct dfi_meta *m = &t->last;

        *ret = (struct df_seal){
                .parent_k = m->parent_k,
                .parent_digest = m->parent_digest,
                .digest = t->last_digest,
                .from_offset = m->from_offset,
                .to_offset = m->to_offset,
                .records = m->records,
                .poison_records = m->poison_records,
                .heartbeats = m->heartbeats,
                .events = m->events,
                .rows = c->rows,
                .rows_digest = c->digest,
                .watermark_ms = m->clock.watermark_ms,
                .max_append_ms = m->clock.max_append_ms,
                .max_receive_ms = m->clock.max_receive_ms,
                .final_through_ms = m->final_through_ms,
                .config = t->config.config,
                .price_version = m->price_version,
                .label_version = m->label_version,
                .closed = m->closed,
                .note = df_buf_bytes(&m->note),
        };
        memcpy(ret->outcomes, m->outcomes, sizeof(ret->outcomes));
        memcpy(ret->binary_version, m->binary_version, sizeof(ret->binary_version));
}

void dfi_records_clear(struct dfi_records *r)
{
        if (r->bytes.cap > KEEP_BYTES)
                df_buf_release(&r->bytes);
        df_buf_clear(&r->bytes);
        r->count = 0;
}

void dfi_records_release(struct dfi_records *r)
{
        df_buf_release(&r->bytes);
        free(r->ends);
        *r = (struct dfi_records){0};
}

static int reserve_records(struct dfi_records *r, size_t more, struct df_error *err)
{
        size_t *ends;

        if (r->cap - r->count >= more)
                return 0;
        ends = realloc(r->ends, (r->count + more) * sizeof(*ends));
        if (!ends)
                return df_fail(err, DF_ENOMEM, "%zu output records", r->count + more);
        r->ends = ends;
        r->cap = r->count + more;
        return 0;
}

struct rebuild {
        struct dfi_records *records;
        struct df_origin origin;
        struct df_hash128 digest;
        uint32_t rows; /* that there must be */
};

static int rebuild_chunk(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct df_reader r = df_reader(value);
        struct rebuild *b = arg;

        (void)key;
        while (df_reader_left(&r) > 0) {
                struct df_bytes payload = df_get_bytes(&r, df_get_u32le(&r));

                if (r.bad || b->origin.n == b->rows)
                        return df_fail(err, DF_ECORRUPT, "the outbox of checkpoint %llu is damaged",
                                       (unsigned long long)b->origin.k);
                df_output_encode(&b->records->bytes, &b->origin, payload);
                b->records->ends[b->records->count++] = b->records->bytes.len;
                b->digest = df_digest_add(b->digest, payload);
                b->origin.n++;
        }
        return 0;
}

int dfi_task_rebuild(struct df_task *t, const struct df_collection_info *c, uint64_t epoch,
                     struct dfi_records *records, struct df_error *err)
{
        size_t box = (size_t)(c - t->last.collections);
        struct rebuild b = {.records = records, .rows = c->rows};
        struct df_seal seal;
        uint8_t key[17];
        int rc;

        df_check(box < t->last.collection_count);
        b.origin = (struct df_origin){.source = t->last.source, .k = t->last.k, .epoch = epoch};
        rc = reserve_records(records, (size_t)c->rows + 1, err);
        outbox_key(key, t->last.k, (uint32_t)box, 0);
        if (rc == 0)
                rc = df_store_scan(t->store, df_bytes(key, 13), rebuild_chunk, &b, err);
        if (rc == 0 && (b.origin.n != c->rows || !df_hash128_eq(b.digest, c->digest)))
                rc = df_fail(err, DF_ECORRUPT,
                             "the outbox of checkpoint %llu is not as it was written: %u of %u "
                             "rows",
                             (unsigned long long)t->last.k, b.origin.n, c->rows);
        if (rc < 0)
                return rc;
        fill_seal(t, c, &seal);
        df_output_encode_seal(&records->bytes, &b.origin, &seal);
        records->ends[records->count++] = records->bytes.len;
        return df_buf_check(&records->bytes, err);
}

int df_task_publish(struct df_task *t, const struct df_collection_info *c, uint64_t epoch,
                    const struct df_bytes **ret_records, size_t *ret_count, struct df_error *err)
{
        struct dfi_records *r = &t->published;
        int rc;

        dfi_records_clear(r);
        rc = dfi_task_rebuild(t, c, epoch, r, err);
        if (rc < 0)
                return rc;
        if (r->count > t->view_cap) {
                struct df_bytes *views = realloc(t->views, r->count * sizeof(*views));

                if (!views)
                        return df_fail(err, DF_ENOMEM, "%zu output records", r->count);
                t->views = views;
                t->view_cap = r->count;
        }
        for (size_t i = 0; i < r->count; i++)
                t->views[i] = dfi_record_at(r, i);
        *ret_records = t->views;
        *ret_count = r->count;
        return 0;
}

/* ---- K10 ---- */

/* Operators forget what a cut lets them forget, as far as the last seal vouches for it: they see
 * the watermark at which exactly those windows are settled. */
int dfi_task_forget(struct df_task *t, int64_t through_ms, struct df_error *err)
{
        int64_t watermark_ms = t->clock.watermark_ms, limit_ms = through_ms;
        int rc;

        df_check(t->suppressed);
        if (through_ms != DF_TIME_MIN &&
            __builtin_add_overflow(through_ms, t->config.grace_ms, &limit_ms))
                limit_ms = DF_TIME_MAX;
        if (limit_ms < watermark_ms)
                t->clock.watermark_ms = limit_ms;
        rc = call_on_cut(t, err);
        t->clock.watermark_ms = watermark_ms;
        df_buf_clear(&t->now.note);
        df_arena_reset(&t->arena);
        return rc;
}

int df_task_checkpoint_silently(struct df_task *t, struct df_error *err)
{
        int rc;

        df_check(t->suppressed);
        if (t->failed)
                return df_fail(err, DF_ECLOSED, "the task failed before");
        rc = dfi_task_forget(t, t->suppress_final_ms, err);
        if (rc == 0)
                rc = call_snapshot(t, t->last.k + 1, err);
        if (rc == 0)
                rc = df_store_commit(t->store, err);
        t->failed = rc < 0;
        return rc;
}
