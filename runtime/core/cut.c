/* cut.c - a checkpoint of the pure task: state, outbox and meta in one batch (K1), and the
 * collections that it publishes (K4, K6). */
#include <stdio.h>
#include <stdlib.h>

#include "core_private.h"

static int64_t final_through(const struct df_task *t)
{
        int64_t wm = t->clock.watermark_ms, through;

        if (wm == DF_TIME_MIN || wm == DF_TIME_MAX)
                through = wm;
        else
                through = wm - t->config.grace_ms;
        if (t->hold_ms < through)
                through = t->hold_ms;
        /* What was final stays so, also when its rows are sent again (K10). */
        return through > t->last.final_through_ms ? through : t->last.final_through_ms;
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
}

static void put_outbox(struct df_task *t)
{
        uint8_t from[17], to[17];

        outbox_key(from, 0, 0, 0);
        outbox_key(to, t->now.k, 0, 0);
        df_store_del_range(t->store, df_bytes(from, sizeof(from)), df_bytes(to, sizeof(to)));
        for (size_t i = 0; i < t->box_count; i++)
                put_box(t, (uint32_t)i, t->now.k);
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
        m->parent_k = t->last.k;
        m->parent_digest = t->last_digest;
        m->to_offset = t->position;
        m->source = t->config.source;
        m->closed = t->closed;
        m->clock = t->clock;
        m->final_through_ms = final_through(t);
        return 0;
}

static int call_on_cut(struct df_task *t, struct df_error *err)
{
        int rc = 0;

        t->cutting = true;
        t->more = false;
        t->hold_ms = DF_TIME_MAX;
        t->next_news_ms = DF_TIME_MAX;
        for (size_t i = 0; rc == 0 && i < t->config.chain_length; i++) {
                struct df_out out = {.task = t, .next = i + 1};

                if (t->ops[i]->ops->on_cut)
                        rc = t->ops[i]->ops->on_cut(t->ops[i], &out, err);
        }
        t->cutting = false;
        t->resend_all = false;
        return rc;
}

static int call_snapshot(struct df_task *t, uint64_t k, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < t->config.chain_length; i++)
                if (t->ops[i]->ops->snapshot)
                        rc = t->ops[i]->ops->snapshot(t->ops[i], k, err);
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
        t->emitted_bytes = 0;
        for (size_t i = 0; i < t->box_count; i++) {
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
        df_check(!df_task_suppressed(t));
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
                digest = df_hash128(df_buf_bytes(&meta));
                put_outbox(t);
                df_store_put(t->store, df_bytes(&key, 1), df_buf_bytes(&meta));
                rc = df_store_commit(t->store, err);
        }
        df_buf_release(&meta);
        if (rc == 0)
                interval_done(t, digest);
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
        (void)snprintf(ret->binary_version, sizeof(ret->binary_version), "%s",
                       t->config.binary_version);
}

struct rebuild {
        struct df_task *t;
        struct df_origin origin;
        size_t *ends; /* of each record in t->published */
        uint32_t rows;
};

static int rebuild_chunk(void *arg, struct df_bytes key, struct df_bytes value,
                         struct df_error *err)
{
        struct rebuild *b = arg;
        struct df_reader r = df_reader(value);

        (void)key;
        while (df_reader_left(&r) > 0) {
                struct df_bytes payload = df_get_bytes(&r, df_get_u32le(&r));

                if (r.bad || b->origin.n == b->rows)
                        return df_fail(err, DF_ECORRUPT, "the outbox of checkpoint %llu is damaged",
                                       (unsigned long long)b->origin.k);
                df_output_encode(&b->t->published, &b->origin, payload);
                b->ends[b->origin.n++] = b->t->published.len;
        }
        return 0;
}

static int grow_views(struct df_task *t, size_t count, struct df_error *err)
{
        struct df_bytes *views;

        if (count <= t->view_cap)
                return 0;
        views = realloc(t->views, count * sizeof(*views));
        if (!views)
                return df_fail(err, DF_ENOMEM, "%zu output records", count);
        t->views = views;
        t->view_cap = count;
        return 0;
}

static void cut_views(struct df_task *t, const size_t *ends, size_t count)
{
        size_t begin = 0;

        for (size_t i = 0; i < count; i++) {
                t->views[i] = df_bytes(t->published.data + begin, ends[i] - begin);
                begin = ends[i];
        }
}

int df_task_publish(struct df_task *t, const struct df_collection_info *c, uint64_t epoch,
                    const struct df_bytes **ret_records, size_t *ret_count, struct df_error *err)
{
        size_t box = (size_t)(c - t->last.collections), count = (size_t)c->rows + 1;
        struct rebuild b = {.t = t, .rows = c->rows};
        struct df_seal seal;
        uint8_t key[17];
        int rc;

        df_check(box < t->last.collection_count);
        b.origin = (struct df_origin){.source = t->last.source, .k = t->last.k, .epoch = epoch};
        b.ends = malloc(count * sizeof(*b.ends));
        rc = b.ends ? grow_views(t, count, err) : df_fail(err, DF_ENOMEM, "output records");
        df_buf_clear(&t->published);
        outbox_key(key, t->last.k, (uint32_t)box, 0);
        if (rc == 0)
                rc = df_store_scan(t->store, df_bytes(key, 13), rebuild_chunk, &b, err);
        if (rc == 0 && b.origin.n != c->rows)
                rc = df_fail(err, DF_ECORRUPT, "the outbox of checkpoint %llu holds %u of %u rows",
                             (unsigned long long)t->last.k, b.origin.n, c->rows);
        if (rc == 0) {
                fill_seal(t, c, &seal);
                df_output_encode_seal(&t->published, &b.origin, &seal);
                b.ends[c->rows] = t->published.len;
                rc = df_buf_check(&t->published, err);
        }
        if (rc == 0) {
                cut_views(t, b.ends, count);
                *ret_records = t->views;
                *ret_count = count;
        }
        free(b.ends);
        return rc;
}

/* ---- K10 ---- */

/* Rows that the log holds already need not be kept to be sent again: on_cut with its emissions
 * dropped lets the operators forget final windows, as long as the last seal says that they are. */
static bool may_forget(const struct df_task *t)
{
        int64_t wm = t->clock.watermark_ms;

        return t->ended || (wm != DF_TIME_MIN && wm - t->config.grace_ms <= t->suppress_final_ms);
}

int df_task_checkpoint_silently(struct df_task *t, struct df_error *err)
{
        int rc = may_forget(t) ? call_on_cut(t, err) : 0;

        df_check(df_task_suppressed(t));
        df_buf_clear(&t->now.note);
        t->ended = false;
        if (rc == 0)
                rc = call_snapshot(t, t->last.k + 1, err);
        return rc < 0 ? rc : df_store_commit(t->store, err);
}
