/* store.c - df_store over one database: reads of what is committed, and the open batch. */
#include "rocksdb_private.h"

#include <stdlib.h>

static const struct df_store_ops store_ops;

static struct dfi_store *store_from(struct df_store *base)
{
        struct dfi_store *s = (struct dfi_store *)base;

        df_check(base->ops == &store_ops);
        df_check(s->magic == DFI_STORE_MAGIC);
        return s;
}
_Static_assert(offsetof(struct dfi_store, base) == 0, "base is the first member");

static void range_release(struct dfi_range *v)
{
        df_buf_release(&v->from);
        df_buf_release(&v->to);
}

static void ranges_clear(struct dfi_ranges *r)
{
        for (size_t i = 0; i < r->count; i++)
                range_release(&r->v[i]);
        r->count = 0;
}

static bool is_less(const struct df_buf *a, const struct df_buf *b)
{
        return df_bytes_cmp(df_buf_bytes(a), df_buf_bytes(b)) < 0;
}

static void swap(struct df_buf *a, struct df_buf *b)
{
        struct df_buf t = *a;

        *a = *b;
        *b = t;
}

/* Ranges that touch are one: when many hours end at once each deletes its own. So those of r lie
 * apart. Out of memory loses only the early return of disk space. */
static void ranges_add(struct dfi_ranges *r, struct df_bytes from, struct df_bytes to)
{
        struct dfi_range fresh = {0};
        size_t kept = 0;

        df_buf_append(&fresh.from, from.data, from.len);
        df_buf_append(&fresh.to, to.data, to.len);
        if (fresh.from.failed || fresh.to.failed)
                return range_release(&fresh);
        for (size_t i = 0; i < r->count; i++) {
                struct dfi_range v = r->v[i];

                if (is_less(&v.to, &fresh.from) || is_less(&fresh.to, &v.from)) {
                        r->v[kept++] = v;
                        continue;
                }
                if (is_less(&v.from, &fresh.from))
                        swap(&v.from, &fresh.from);
                if (is_less(&fresh.to, &v.to))
                        swap(&v.to, &fresh.to);
                range_release(&v);
        }
        r->count = kept;
        if (kept == DFI_RANGES_MAX)
                return range_release(&fresh);
        r->v[r->count++] = fresh;
}

int dfi_store_alive(struct dfi_store *s, struct df_error *err)
{
        int code = atomic_load(&s->dead);

        if (code == 0)
                return 0;
        return df_fail(err, code, "the store is unusable since: %s; take over again", s->dead_text);
}

int dfi_store_kill(struct dfi_store *s, int code, const struct df_error *err)
{
        if (code != DF_ENOSPC && code != DF_ECORRUPT && code != DF_ENOMEM)
                code = DF_EIO;
        if (atomic_load(&s->dead) == 0) {
                (void)snprintf(s->dead_text, sizeof(s->dead_text), "%.150s",
                               err ? err->text : "an earlier error");
                atomic_store(&s->dead, code);
        }
        return code;
}

int dfi_store_poll(struct dfi_store *s, struct df_error *err)
{
        uint64_t errors = dfi_db_property(&s->db, "rocksdb.background-errors");
        struct df_error local;

        if (errors == 0)
                return 0;
        int r = df_fail(&local, DF_EIO, "RocksDB counted %llu background errors",
                        (unsigned long long)errors);
        (void)dfi_store_kill(s, r, &local);
        return df_fail(err, r, "%s; drop the live store and take over again", local.text);
}

static int store_get(struct df_store *base, struct df_bytes key, struct df_bytes *ret_value,
                     bool *ret_found, struct df_error *err)
{
        struct dfi_store *s = store_from(base);
        struct df_error local;
        char *message = NULL;

        int r = dfi_store_alive(s, err);
        if (r)
                return r;
        if (s->pinned)
                rocksdb_pinnableslice_destroy(s->pinned);
        s->pinned =
                rocksdb_get_pinned(s->db.db, s->db.read, (const char *)key.data, key.len, &message);
        if (message) {
                s->pinned = NULL;
                r = dfi_status_fail(&local, message, "cannot read a key", NULL);
                r = dfi_store_kill(s, r, &local);
                return df_fail(err, r, "%s", local.text);
        }
        *ret_found = s->pinned != NULL;
        *ret_value = (struct df_bytes){0};
        if (s->pinned)
                ret_value->data =
                        (const uint8_t *)rocksdb_pinnableslice_value(s->pinned, &ret_value->len);
        return 0;
}

/* The smallest string above every string with this prefix; len 0 when there is none. */
static struct df_bytes prefix_end(struct df_bytes prefix, uint8_t ret[DF_STORE_KEY_MAX])
{
        size_t len = prefix.len;

        while (len && prefix.data[len - 1] == 0xff)
                len--;
        if (len == 0)
                return df_bytes(NULL, 0);
        memcpy(ret, prefix.data, len);
        ret[len - 1]++;
        return df_bytes(ret, len);
}

struct scan_call {
        int (*fn)(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err);
        void *arg;
        int failed; /* the caller's own failure: the store is well */
};

static int scan_one(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct scan_call *c = arg;
        int r = c->fn(c->arg, key, value, err);

        c->failed = r < 0 ? r : 0;
        return r;
}

static int store_scan(struct df_store *base, struct df_bytes prefix,
                      int (*fn)(void *, struct df_bytes, struct df_bytes, struct df_error *),
                      void *arg, struct df_error *err)
{
        struct dfi_store *s = store_from(base);
        struct scan_call call = {.fn = fn, .arg = arg};
        uint8_t end[DF_STORE_KEY_MAX];
        struct df_error local = {0};

        int r = dfi_store_alive(s, err);
        if (r)
                return r;
        if (prefix.len > DF_STORE_KEY_MAX)
                return df_fail(err, DF_ELIMIT, "a prefix of %zu bytes; the limit is %d", prefix.len,
                               DF_STORE_KEY_MAX);
        r = dfi_db_range(&s->db, NULL, prefix, prefix_end(prefix, end), scan_one, &call, &local);
        if (r && !call.failed)
                r = dfi_store_kill(s, r, &local);
        if (r && err) {
                *err = local;
                err->code = r;
        }
        return r;
}

/* Remember the first broken limit; commit says it. */
static bool within_limits(struct dfi_store *s, size_t key_len, size_t value_len)
{
        if (key_len > 0 && key_len <= DF_STORE_KEY_MAX && value_len <= DF_STORE_VALUE_MAX)
                return true;
        if (!s->limit) {
                s->limit = DF_ELIMIT;
                (void)snprintf(s->limit_text, sizeof(s->limit_text),
                               "a key of %zu bytes (limit %d) with a value of %zu (limit %u)",
                               key_len, DF_STORE_KEY_MAX, value_len, DF_STORE_VALUE_MAX);
        }
        return false;
}

static void store_put(struct df_store *base, struct df_bytes key, struct df_bytes value)
{
        struct dfi_store *s = store_from(base);

        if (within_limits(s, key.len, value.len))
                rocksdb_writebatch_put(s->batch, (const char *)key.data, key.len,
                                       (const char *)value.data, value.len);
}

static void store_del(struct df_store *base, struct df_bytes key)
{
        struct dfi_store *s = store_from(base);

        if (within_limits(s, key.len, 0))
                rocksdb_writebatch_delete(s->batch, (const char *)key.data, key.len);
}

static void store_del_range(struct df_store *base, struct df_bytes from, struct df_bytes to)
{
        struct dfi_store *s = store_from(base);

        if (df_bytes_cmp(from, to) >= 0)
                return;
        if (from.len > DF_STORE_KEY_MAX || !within_limits(s, to.len, 0))
                return (void)within_limits(s, from.len, 0);
        rocksdb_writebatch_delete_range(s->batch, (const char *)from.data, from.len,
                                        (const char *)to.data, to.len);
        ranges_add(&s->open_ranges, from, to);
}

/* ---- runs: a task's ---- */

static struct dfi_runs *runs_from(struct df_store *base)
{
        struct dfi_store *s = store_from(base);

        df_check(s->runs);
        return s->runs;
}

static void store_run_append(struct df_store *base, struct df_bytes key, struct df_bytes block)
{
        dfi_runs_append(runs_from(base), key, block);
}

static void store_run_end(struct df_store *base, struct df_bytes key)
{
        dfi_runs_end(runs_from(base), key);
}

static int run_block(struct df_store *base, struct df_bytes key, uint32_t number, bool in_order,
                     struct df_bytes *ret_block, bool *ret_found, struct df_error *err)
{
        struct dfi_runs *runs = runs_from(base);
        struct dfi_store *s = store_from(base);
        struct df_error local;

        int r = dfi_store_alive(s, err);
        if (r)
                return r;
        r = dfi_runs_read(runs, key, number, in_order, ret_block, ret_found, &local);
        if (r == 0)
                return 0;
        r = dfi_store_kill(s, r, &local);
        return df_fail(err, r, "%s", local.text);
}

static int store_run_read(struct df_store *base, struct df_bytes key, uint32_t number,
                          struct df_bytes *ret_block, bool *ret_found, struct df_error *err)
{
        return run_block(base, key, number, false, ret_block, ret_found, err);
}

static int store_run_next(struct df_store *base, struct df_bytes key, uint32_t number,
                          struct df_bytes *ret_block, bool *ret_found, struct df_error *err)
{
        return run_block(base, key, number, true, ret_block, ret_found, err);
}

static void store_run_del(struct df_store *base, struct df_bytes key)
{
        dfi_runs_del(runs_from(base), key);
}

static int store_run_scan(struct df_store *base, struct df_bytes prefix,
                          int (*fn)(void *, struct df_bytes, struct df_error *), void *arg,
                          struct df_error *err)
{
        struct dfi_runs *runs = runs_from(base);

        int r = dfi_store_alive(store_from(base), err);
        return r ? r : dfi_runs_scan(runs, prefix, fn, arg, err);
}

/* ---- the open batch ---- */

static void clear_batch(struct dfi_store *s)
{
        rocksdb_writebatch_clear(s->batch);
        ranges_clear(&s->open_ranges);
        s->limit = 0;
}

static void store_rollback(struct df_store *base)
{
        struct dfi_store *s = store_from(base);

        clear_batch(s);
        if (s->runs)
                dfi_runs_rollback(s->runs);
}

/* Drop whole files inside the range before its tombstone is written. Before, because a file may
 * hold an older tombstone, and what that hid must not come back; and because the batch may write
 * into the range again. Only for tasks: their live store does not outlive a crash in between, and
 * nobody holds a snapshot. */
static int drop_files(struct dfi_store *s, const struct dfi_range *range, struct df_error *err)
{
        char limit[DF_STORE_KEY_MAX + 8];
        size_t len = range->to.len;
        char *message = NULL;

        /* RocksDB's limit is inclusive here: take a string just below `to`. */
        df_check(len > 0 && len <= DF_STORE_KEY_MAX);
        memcpy(limit, range->to.data, len);
        if (range->to.data[len - 1] == 0) {
                len--;
        } else {
                limit[len - 1] = (char)(range->to.data[len - 1] - 1);
                memset(limit + len, 0xff, 8);
                len += 8;
        }
        if (df_bytes_cmp(df_bytes(limit, len), df_buf_bytes(&range->from)) < 0)
                return 0; /* too narrow to hold a file */
        rocksdb_delete_file_in_range(s->db.db, (const char *)range->from.data, range->from.len,
                                     limit, len, &message);
        if (message)
                return dfi_status_fail(err, message, "cannot drop the files of a range", NULL);
        return 0;
}

static int write_batch(struct dfi_store *s, struct df_error *err)
{
        char *message = NULL;

        if (rocksdb_writebatch_count(s->batch) == 0)
                return 0;
        for (size_t i = 0; s->kind == DFI_DB_TASK && i < s->open_ranges.count; i++) {
                int r = drop_files(s, &s->open_ranges.v[i], err);
                if (r)
                        return r;
        }
        rocksdb_write(s->db.db, s->db.write, s->batch, &message);
        return message ? dfi_status_fail(err, message, "cannot commit", NULL) : 0;
}

/* Keys, then runs: only the live store can show one without the other, and it is unusable when a
 * step fails. */
static int commit_all(struct dfi_store *s, struct df_error *err)
{
        int r = write_batch(s, err);

        return r == 0 && s->runs ? dfi_runs_commit(s->runs, err) : r;
}

/* Compaction gives disk back only once the tombstone is in a file: a task's persist flushes and
 * asks then; the plain store starts a flush, and asks in a later commit that finds it done. */
static void remember_ranges(struct dfi_store *s)
{
        if (s->kind == DFI_DB_KV && s->hint_ranges.count &&
            dfi_db_property(&s->db, "rocksdb.num-immutable-mem-table") == 0)
                dfi_store_hint(s);
        if (s->open_ranges.count == 0)
                return;
        for (size_t i = 0; i < s->open_ranges.count; i++)
                ranges_add(&s->hint_ranges, df_buf_bytes(&s->open_ranges.v[i].from),
                           df_buf_bytes(&s->open_ranges.v[i].to));
        if (s->kind == DFI_DB_KV) {
                rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();
                char *message = NULL;

                rocksdb_flushoptions_set_wait(o, 0);
                rocksdb_flush(s->db.db, o, &message); /* a failure is a background error: polled */
                rocksdb_free(message);
                rocksdb_flushoptions_destroy(o);
        }
}

static int store_commit(struct df_store *base, struct df_error *err)
{
        struct dfi_store *s = store_from(base);
        struct df_error local;

        int r = dfi_store_alive(s, err);
        if (r)
                goto out;
        if (s->limit) {
                r = df_fail(err, s->limit, "nothing was written: %s", s->limit_text);
                goto out;
        }
        r = commit_all(s, &local);
        if (r) {
                r = dfi_store_kill(s, r, &local);
                (void)df_fail(err, r, "%s", local.text);
                goto out;
        }
        remember_ranges(s);
        r = dfi_store_poll(s, err);
out:
        if (r)
                store_rollback(base); /* what failed is gone too */
        else
                clear_batch(s);
        return r;
}

/* Bytes of files that lie in the noted ranges. A range without any is done: compaction has dropped
 * what it hid (or it never reached a file: this is called after a flush). */
static uint64_t hidden_bytes(struct dfi_store *s)
{
        struct dfi_ranges *r = &s->hint_ranges;
        const char *from[DFI_RANGES_MAX], *to[DFI_RANGES_MAX];
        size_t from_len[DFI_RANGES_MAX], to_len[DFI_RANGES_MAX], kept = 0;
        uint64_t sizes[DFI_RANGES_MAX] = {0}, n = 0;
        char *message = NULL;

        for (size_t i = 0; i < r->count; i++) {
                from[i] = (const char *)r->v[i].from.data;
                from_len[i] = r->v[i].from.len;
                to[i] = (const char *)r->v[i].to.data;
                to_len[i] = r->v[i].to.len;
        }
        rocksdb_approximate_sizes(s->db.db, (int)r->count, from, from_len, to, to_len, sizes,
                                  &message);
        if (message) { /* only an estimate: another time */
                rocksdb_free(message);
                return 0;
        }
        for (size_t i = 0; i < r->count; i++) {
                n += sizes[i];
                if (sizes[i] > 0) {
                        r->v[kept++] = r->v[i];
                        continue;
                }
                range_release(&r->v[i]);
        }
        r->count = kept;
        return n;
}

bool dfi_hint_due(struct dfi_hint *h, uint64_t hidden, uint64_t live)
{
        if (hidden < DFI_HIDDEN_MIN || hidden < live / DFI_HIDDEN_SHARE) {
                *h = (struct dfi_hint){0};
                return false;
        }
        if (h->left > 0) {
                h->left--;
                return false;
        }
        h->pause = h->pause == 0 ? 1 : h->pause * 2;
        if (h->pause > DFI_HINT_PAUSE_MAX)
                h->pause = DFI_HINT_PAUSE_MAX;
        h->left = h->pause;
        return true;
}

/* Each compaction writes what lives once more: it is worth it once there is enough to give back,
 * and none is under way, which may give it back. */
static bool worth_compacting(struct dfi_store *s)
{
        if (dfi_db_property(&s->db, "rocksdb.num-running-compactions") > 0)
                return false;
        return dfi_hint_due(&s->hint, hidden_bytes(s),
                            dfi_db_property(&s->db, "rocksdb.live-sst-files-size"));
}

/* A file that is being compacted at this moment is passed over: so a task's ranges stay noted, and
 * are asked for again, until they hide nothing. */
void dfi_store_hint(struct dfi_store *s)
{
        bool full = s->hint_ranges.count == DFI_RANGES_MAX;

        if (s->hint_ranges.count == 0 || (s->kind == DFI_DB_TASK && !full && !worth_compacting(s)))
                return;
        for (size_t i = 0; i < s->hint_ranges.count; i++) {
                struct dfi_range *v = &s->hint_ranges.v[i];
                char *message = NULL;

                /* Only a hint: when it fails compaction comes later by itself. */
                rocksdb_suggest_compact_range(s->db.db, (const char *)v->from.data, v->from.len,
                                              (const char *)v->to.data, v->to.len, &message);
                rocksdb_free(message);
        }
        if (s->kind == DFI_DB_KV || full)
                ranges_clear(&s->hint_ranges);
}

int dfi_store_open(struct dfi_store *s, const char *path, enum dfi_db_kind kind, bool create,
                   const struct df_rocksdb_options *options, struct df_error *err)
{
        *s = (struct dfi_store){.base.ops = &store_ops, .kind = kind};
        int r = dfi_db_open(&s->db, path, kind, create, options, err);
        if (r)
                return r;
        s->batch = rocksdb_writebatch_create();
        s->magic = DFI_STORE_MAGIC;
        if (kind != DFI_DB_TASK)
                return 0;
        s->runs = calloc(1, sizeof(*s->runs));
        r = s->runs ? dfi_runs_open(s->runs, path, err)
                    : df_fail(err, DF_ENOMEM, "%s: the list of runs", path);
        if (r)
                dfi_store_close(s);
        return r;
}

void dfi_store_close(struct dfi_store *s)
{
        ranges_clear(&s->open_ranges);
        ranges_clear(&s->hint_ranges);
        if (s->pinned)
                rocksdb_pinnableslice_destroy(s->pinned);
        if (s->batch)
                rocksdb_writebatch_destroy(s->batch);
        if (s->runs)
                dfi_runs_close(s->runs);
        free(s->runs);
        s->pinned = NULL;
        s->batch = NULL;
        s->runs = NULL;
        dfi_db_close(&s->db);
        s->magic = 0;
}

static const struct df_store_ops store_ops = {
        .get = store_get,
        .scan = store_scan,
        .put = store_put,
        .del = store_del,
        .del_range = store_del_range,
        .commit = store_commit,
        .rollback = store_rollback,
        .run_append = store_run_append,
        .run_end = store_run_end,
        .run_read = store_run_read,
        .run_next = store_run_next,
        .run_del = store_run_del,
        .run_scan = store_run_scan,
};
