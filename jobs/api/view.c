/* view.c - opening, restoring, applying collections, snapshots. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/run.h"
#include "jobs/api/view_private.h"

#define MINUTE_MS 60000LL
#define CACHE_BYTES (64u << 20) /* of blocks, and as much again of cells */

/* ---- directories ---- */

static bool exists(const char *path)
{
        return access(path, F_OK) == 0;
}

/* ---- open ---- */

/* Opens the store and checks what it was built for. *ret_fits false: it is open, but for
 * another. */
static int open_store(struct ad_view *v, bool *ret_fits, bool *ret_new, char why[256],
                      struct df_error *err)
{
        struct df_rocksdb_options o = {.write_buffer_bytes = 32u << 20,
                                       .block_cache_bytes = v->options.cache_bytes};
        struct df_bytes value;
        bool found;
        int rc = df_kv_open(v->options.dir, &o, &v->kv, err);

        if (rc < 0)
                return rc;
        v->store = df_kv_store(v->kv);
        df_buf_clear(&v->value);
        adi_meta_encode(&v->options, &v->value);
        rc = df_buf_check(&v->value, err);
        if (rc == 0)
                rc = df_store_get(v->store, df_bytes("m", 1), &value, &found, err);
        if (rc < 0)
                return rc;
        *ret_new = !found;
        *ret_fits = !found || df_bytes_eq(value, df_buf_bytes(&v->value));
        if (!*ret_fits)
                (void)snprintf(why, 256,
                               "the view was built for another schema, zone, grouping "
                               "list, partition count or topic");
        if (!found) {
                df_store_put(v->store, df_bytes("m", 1), df_buf_bytes(&v->value));
                rc = df_store_commit(v->store, err);
        }
        return rc;
}

static void close_store(struct ad_view *v)
{
        df_kv_close(v->kv);
        v->kv = NULL;
        v->store = NULL;
}

/* In one step, so that no half of a view is ever taken for a whole one. */
int adi_discard(const char *dir, struct df_error *err)
{
        char aside[PATH_MAX];
        int rc;

        if (snprintf(aside, sizeof(aside), "%s.discarded", dir) >= (int)sizeof(aside))
                return df_fail(err, DF_EINVAL, "%s: the path is too long", dir);
        rc = df_remove_tree(aside, err);
        if (rc == 0 && rename(dir, aside) < 0 && errno != ENOENT)
                rc = df_fail_errno(err, DF_EIO, "move %s aside", dir);
        return rc < 0 ? rc : df_remove_tree(aside, err);
}

static int open_once(struct ad_view *v, bool *ret_fits, bool *ret_new, char why[256],
                     struct df_error *err)
{
        int rc;

        adi_state_forget(v);
        rc = open_store(v, ret_fits, ret_new, why, err);
        if (rc == 0 && *ret_fits)
                rc = adi_state_load(v, err);
        if (rc == DF_ECORRUPT)
                (void)snprintf(why, 256, "%.250s", err->text);
        return rc;
}

/* Put in place what `origin` says. */
static int prepare(const struct ad_view_options *o, enum ad_view_origin origin, const char *why,
                   struct df_error *err)
{
        int rc;

        if (origin == AD_VIEW_KEPT)
                return 0;
        if (origin == AD_VIEW_EMPTY && !o->rebuildable)
                return df_fail(err, DF_ESCHEMA,
                               "the view cannot be used (%s), and the log no longer holds all "
                               "that it was built from: run with the settings it was built for, or "
                               "restore %s and %s from a backup",
                               why, o->dir, o->snapshot_dir ? o->snapshot_dir : "its snapshot");
        rc = adi_discard(o->dir, err);
        return rc < 0 || origin == AD_VIEW_EMPTY ? rc : df_kv_restore(o->snapshot_dir, o->dir, err);
}

/* What to try, in this order: the view as it is, its snapshot, nothing. */
static int open_any(struct ad_view *v, enum ad_view_origin first, enum ad_view_origin *ret_origin,
                    char why[256], struct df_error *err)
{
        const struct ad_view_options *o = &v->options;
        bool snapshot = o->snapshot_dir && exists(o->snapshot_dir), fits = false, fresh = false;
        enum ad_view_origin origin = first;

        why[0] = '\0';
        if (first != AD_VIEW_KEPT)
                (void)snprintf(why, 256, "it was found damaged while it was open");
        if (origin == AD_VIEW_KEPT && !exists(o->dir)) {
                (void)snprintf(why, 256, "there was no view");
                origin = AD_VIEW_RESTORED;
        }
        for (;; origin++) {
                int rc;

                if (origin == AD_VIEW_RESTORED && !snapshot)
                        origin = AD_VIEW_EMPTY;
                rc = prepare(o, origin, why, err);
                if (rc == 0)
                        rc = open_once(v, &fits, &fresh, why, err);
                if (rc == 0 && fits)
                        break;
                close_store(v);
                if (rc < 0 && rc != DF_ECORRUPT)
                        return rc;
                if (origin == AD_VIEW_EMPTY)
                        return rc < 0 ? rc : df_fail(err, DF_ESCHEMA, "%s: %s", o->dir, why);
        }
        *ret_origin = fresh ? AD_VIEW_EMPTY : origin;
        return 0;
}

int ad_view_open(const struct ad_view_options *o, enum ad_view_origin first, struct ad_view **ret,
                 enum ad_view_origin *ret_origin, char ret_why[256], struct df_error *err)
{
        struct ad_view *v = calloc(1, sizeof(*v));
        int rc;

        if (!v)
                return df_fail(err, DF_ENOMEM, "view");
        v->options = *o;
        if (v->options.cache_bytes == 0)
                v->options.cache_bytes = CACHE_BYTES;
        pthread_mutex_init(&v->lock, NULL);
        df_arena_init(&v->memory, 0);
        ad_map_init(&v->spans, &v->memory, sizeof(struct adi_span));
        ad_map_init(&v->starts, &v->memory, sizeof(struct adi_start));
        adi_marks_init(v);
        adi_step_init(v);
        rc = adi_cache_open(&v->cache, v->options.cache_bytes, err);
        if (rc == 0)
                rc = open_any(v, first, ret_origin, ret_why, err);
        if (rc == 0)
                rc = adi_publish(v, 0, err);
        if (rc < 0) {
                ad_view_close(v);
                return rc;
        }
        *ret = v;
        return 0;
}

void ad_view_close(struct ad_view *v)
{
        if (!v)
                return;
        close_store(v);
        ad_status_release(v->status);
        df_arena_release(&v->step.arena);
        df_arena_release(&v->mark_memory);
        df_arena_release(&v->memory);
        adi_cache_close(&v->cache);
        df_buf_release(&v->mark_key);
        df_buf_release(&v->void_at);
        df_buf_release(&v->key);
        df_buf_release(&v->value);
        df_buf_release(&v->expire_at);
        free(v->sources);
        free(v->source_dirty);
        pthread_mutex_destroy(&v->lock);
        free(v);
}

/* ---- apply ---- */

struct rows {
        struct ad_view *v;
        struct ad_source *source;
        uint64_t count;
};

static bool row_fits(const struct ad_view *v, const struct ad_row *row)
{
        const struct ad_groupings *g = v->options.groupings;

        if (row->minute > UINT32_MAX - 1 || row->tenant_id.len > AD_ID_MAX ||
            row->currency.len > AD_ID_MAX || row->grouping >= g->count ||
            row->dim_count != g->list[row->grouping].dim_count)
                return false;
        for (uint32_t i = 0; i < row->dim_count; i++)
                if (row->dims[i].len > AD_ID_MAX)
                        return false;
        return true;
}

static int on_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct rows *r = arg;
        int rc;

        if (!row_fits(r->v, row)) {
                r->v->refused_rows++; /* no task of this version writes such a row */
                return 0;
        }
        r->count++;
        /* Final for this source: it cannot have changed, and its part may have expired. */
        if ((int64_t)(row->minute + 1) * MINUTE_MS <= r->source->final_through_ms)
                return 0;
        r->source->rows_commit = r->v->commits;
        rc = adi_step_row(r->v, r->source->id, row, err);
        if (rc == 0)
                rc = adi_span_touch(r->v, r->source->id, row->tenant_id, (uint32_t)row->minute,
                                    err);
        return rc;
}

static void copy_text(char *ret, size_t size, struct df_bytes s)
{
        size_t n = s.len < size - 1 ? s.len : size - 1;

        if (n)
                memcpy(ret, s.data, n);
        ret[n] = '\0';
}

static int apply_note(struct ad_view *v, struct ad_source *s, const struct df_seal *seal,
                      int64_t now_ms, struct df_error *err)
{
        struct ad_note note;
        int rc = ad_wire_note_decode(seal->note, &note, err);

        for (size_t i = 0; rc == 0 && i < note.edge_count; i++)
                rc = adi_start_touch(v, s->id, &note.edges[i], err);
        if (rc < 0)
                return rc;
        s->sequence_gaps += note.sequence_gaps;
        if (note.has_import_begin) {
                s->is_import = true;
                copy_text(s->tenant, sizeof(s->tenant), note.import_begin.tenant_id);
                copy_text(s->dataset, sizeof(s->dataset), note.import_begin.dataset);
                s->import_from_ms = note.import_begin.from_ms;
                s->import_to_ms = note.import_begin.to_ms;
                s->import_receive_ms = note.import_begin.receive_ms;
        }
        if (note.has_import_end && note.import_end.aborted)
                s->aborted = s->voiding = true;
        if (!s->is_import)
                adi_fresh_add(v, &note, seal->events, now_ms);
        return 0;
}

static void apply_seal(struct ad_source *s, const struct df_collection *c, int64_t now_ms)
{
        const struct df_seal *seal = &c->seal;

        if (s->k == 0) {
                s->first_k = c->origin.k;
                s->from_offset = seal->from_offset;
        }
        if (seal->parent_k != s->k ||
            (s->k > 0 &&
             (seal->from_offset != s->to_offset || !df_hash128_eq(seal->parent_digest, s->digest))))
                s->chain_gaps++;
        s->digest = seal->digest;
        s->k = c->origin.k;
        s->epoch = c->origin.epoch;
        s->to_offset = seal->to_offset;
        for (int i = 0; i < DF_OUTCOMES_MAX; i++)
                s->outcomes[i] += seal->outcomes[i];
        s->records += seal->records;
        s->poison_records += seal->poison_records;
        s->heartbeats += seal->heartbeats;
        s->events += seal->events;
        s->watermark_ms = seal->watermark_ms;
        s->max_append_ms = seal->max_append_ms;
        s->max_receive_ms = seal->max_receive_ms;
        if (seal->final_through_ms > s->final_through_ms)
                s->final_through_ms = seal->final_through_ms;
        s->config = seal->config;
        s->price_version = seal->price_version;
        s->label_version = seal->label_version;
        memcpy(s->binary_version, seal->binary_version, sizeof(s->binary_version));
        s->closed = seal->closed;
        s->applied_ms = now_ms;
}

int ad_view_add(struct ad_view *v, const struct df_collection *c, int64_t now_ms,
                struct df_error *err)
{
        struct ad_source *s = adi_source_get(v, &c->origin.source, err);
        struct rows rows = {.v = v, .source = s};
        int rc = 0;

        if (!s)
                return DF_ENOMEM;
        if (v->broken)
                return df_fail(err, DF_ECLOSED, "the view failed before: open it again");
        if (v->opened_ms == 0)
                v->opened_ms = now_ms;
        if (c->origin.k <= s->k)
                return 0;
        for (size_t i = 0; rc == 0 && i < c->count; i++)
                rc = ad_wire_rows_decode(c->payloads[i], on_row, &rows, err);
        s->rows += rows.count;
        v->source_dirty[s->id] = true;
        if (rc == 0)
                rc = apply_note(v, s, &c->seal, now_ms, err);
        if (rc == 0)
                apply_seal(s, c, now_ms);
        if (rc < 0) {
                v->broken = true;
                return df_wrap(err, "%s/%u k=%llu", s->name.stream, s->name.partition,
                               (unsigned long long)c->origin.k);
        }
        return 0;
}

size_t ad_view_pending(const struct ad_view *v)
{
        return v->step.rows.count;
}

static int commit(struct ad_view *v, const uint64_t *positions, uint32_t count, int64_t now_ms,
                  struct df_error *err)
{
        int rc = now_ms >= v->expire_ms ? adi_expire(v, now_ms, err) : 0;

        if (rc == 0)
                rc = adi_upkeep(v, err);
        if (rc == 0)
                rc = adi_step_flush(v, now_ms, err);
        if (rc < 0)
                return rc;
        adi_state_put(v);
        for (uint32_t p = 0; p < count && p < DF_PARTITIONS_MAX; p++) {
                if (positions[p] == v->positions[p])
                        continue;
                df_buf_clear(&v->key);
                df_buf_clear(&v->value);
                df_put_u8(&v->key, 'f');
                df_put_u32be(&v->key, p);
                df_put_u64be(&v->value, positions[p]);
                df_store_put(v->store, df_buf_bytes(&v->key), df_buf_bytes(&v->value));
                v->positions[p] = positions[p];
        }
        if (v->key.failed || v->value.failed)
                return df_fail(err, DF_ENOMEM, "a write of the view");
        return df_store_commit(v->store, err);
}

int ad_view_commit(struct ad_view *v, const uint64_t *positions, uint32_t count, int64_t now_ms,
                   struct df_error *err)
{
        int rc = v->broken ? df_fail(err, DF_ECLOSED, "the view failed before: open it again")
                           : commit(v, positions, count, now_ms, err);

        adi_step_clear(v);
        if (rc == 0) {
                v->commits++;
                rc = adi_publish(v, now_ms, err);
        }
        if (rc < 0)
                v->broken = true;
        return rc;
}

int ad_view_outside(struct ad_view *v, const struct ad_outside *o, int64_t now_ms,
                    struct df_error *err)
{
        v->outside = *o;
        /* With rows pending, sources are ahead of the cells: the commit will publish. */
        return ad_view_pending(v) ? 0 : adi_publish(v, now_ms, err);
}

int ad_view_snapshot(struct ad_view *v, struct df_error *err)
{
        const char *dir = v->options.snapshot_dir;
        char fresh[PATH_MAX];
        bool replace;
        int rc;

        if (!dir)
                return 0;
        if (snprintf(fresh, sizeof(fresh), "%s.new", dir) >= (int)sizeof(fresh))
                return df_fail(err, DF_EINVAL, "%s: the path is too long", dir);
        rc = df_remove_tree(fresh, err);
        if (rc == 0)
                rc = df_kv_checkpoint(v->kv, fresh, err);
        if (rc < 0)
                return rc;
        replace = exists(dir);
        if (renameat2(AT_FDCWD, fresh, AT_FDCWD, dir, replace ? RENAME_EXCHANGE : 0) < 0)
                return df_fail_errno(err, DF_EIO, "put %s in its place", fresh);
        rc = df_sync_parent(dir, err);
        if (rc == 0 && replace)
                rc = df_remove_tree(fresh, err);
        return rc;
}

/* ---- readers ---- */

uint64_t ad_view_position(const struct ad_view *v, uint32_t partition)
{
        df_check(partition < DF_PARTITIONS_MAX);
        return v->positions[partition];
}

const struct ad_source *ad_view_source(const struct ad_view *v, size_t index, size_t *ret_count)
{
        *ret_count = v->source_count;
        return index < v->source_count ? &v->sources[index] : NULL;
}

bool ad_view_busy(const struct ad_view *v)
{
        return v->busy;
}

struct df_kv *ad_view_kv(struct ad_view *v)
{
        return v->kv;
}

const struct ad_view_options *ad_view_settings(const struct ad_view *v)
{
        return &v->options;
}

bool ad_view_any_expired(const struct ad_view *v, uint32_t level)
{
        return atomic_load(&v->expired[level]);
}

bool ad_view_any_other(const struct ad_view *v, uint32_t grouping)
{
        return atomic_load(&v->other[grouping]);
}
