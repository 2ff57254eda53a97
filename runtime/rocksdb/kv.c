/* kv.c - the plain store (the serving view, keys of subjects): one writer, many readers. */
#include "rocksdb_private.h"

#include <stdlib.h>

struct df_kv {
        struct dfi_store store;
        atomic_uint snapshots;
};

struct df_kv_snapshot {
        struct df_kv *kv; /* borrowed */
        const rocksdb_snapshot_t *snapshot;
};

int df_kv_open(const char *dir, const struct df_rocksdb_options *options, struct df_kv **ret,
               struct df_error *err)
{
        struct df_kv *kv = calloc(1, sizeof(*kv));

        if (!kv)
                return df_fail(err, DF_ENOMEM, "%s: no memory", dir);
        int r = dfi_store_open(&kv->store, dir, DFI_DB_KV, true, options, err);
        if (r == DF_ECORRUPT)
                r = df_wrap(err,
                            options && options->secrets
                                    ? "the keys of %s are damaged: put its backup back"
                                    : "the view is damaged: restore a checkpoint of it, or move %s "
                                      "aside and let it be rebuilt from its topic",
                            dir);
        if (r == DF_EFENCED)
                r = df_wrap(err, "another process has it open");
        if (r) {
                free(kv);
                return r;
        }
        *ret = kv;
        return 0;
}

struct df_store *df_kv_store(struct df_kv *kv)
{
        return &kv->store.base;
}

int df_kv_checkpoint(struct df_kv *kv, const char *dir, struct df_error *err)
{
        struct df_error local;

        int r = dfi_store_alive(&kv->store, err);
        if (r == 0)
                r = dfi_store_poll(&kv->store, err);
        if (r)
                return r;
        if (dfi_exists(dir))
                return df_fail(err, DF_EEXIST, "%s: the place of a checkpoint must not exist", dir);
        r = dfi_db_checkpoint(&kv->store.db, dir, &local);
        if (r == DF_EINVAL) /* a bad path, say: the store is well */
                return df_fail(err, r, "%s", local.text);
        if (r) {
                r = dfi_store_kill(&kv->store, r, &local);
                return df_fail(err, r, "%s", local.text);
        }
        return dfi_sync_parent(dir, err);
}

uint64_t df_kv_property(struct df_kv *kv, const char *name)
{
        return dfi_db_property(&kv->store.db, name);
}

void df_kv_close(struct df_kv *kv)
{
        if (!kv)
                return;
        df_check(atomic_load(&kv->snapshots) == 0);
        dfi_store_close(&kv->store);
        free(kv);
}

struct df_kv_snapshot *df_kv_snapshot_take(struct df_kv *kv)
{
        struct df_kv_snapshot *s = malloc(sizeof(*s));

        if (!s)
                return NULL;
        s->kv = kv;
        s->snapshot = rocksdb_create_snapshot(kv->store.db.db);
        if (!s->snapshot) {
                free(s);
                return NULL;
        }
        atomic_fetch_add(&kv->snapshots, 1);
        return s;
}

void df_kv_snapshot_drop(struct df_kv_snapshot *s)
{
        if (!s)
                return;
        rocksdb_release_snapshot(s->kv->store.db.db, s->snapshot);
        atomic_fetch_sub(&s->kv->snapshots, 1);
        free(s);
}

int df_kv_range(struct df_kv *kv, struct df_kv_snapshot *snapshot, struct df_bytes from,
                struct df_bytes to,
                int (*fn)(void *arg, struct df_bytes key, struct df_bytes value,
                          struct df_error *err),
                void *arg, struct df_error *err)
{
        df_check(!snapshot || snapshot->kv == kv);
        return dfi_db_range(&kv->store.db, snapshot ? snapshot->snapshot : NULL, from, to, fn, arg,
                            err);
}

int df_kv_get(struct df_kv *kv, struct df_kv_snapshot *snapshot, struct df_bytes key,
              struct df_buf *ret_value, bool *ret_found, struct df_error *err)
{
        rocksdb_readoptions_t *own = NULL;
        rocksdb_pinnableslice_t *p;
        char *message = NULL;
        size_t len = 0;

        if (snapshot) {
                df_check(snapshot->kv == kv);
                own = rocksdb_readoptions_create();
                rocksdb_readoptions_set_verify_checksums(own, 1);
                rocksdb_readoptions_set_snapshot(own, snapshot->snapshot);
        }
        p = rocksdb_get_pinned(kv->store.db.db, own ? own : kv->store.db.read,
                               (const char *)key.data, key.len, &message);
        if (own)
                rocksdb_readoptions_destroy(own);
        if (message)
                return dfi_status_fail(err, message, "cannot read a key", NULL);
        df_buf_clear(ret_value);
        const bool found = p != NULL;
        if (found) {
                const char *v = rocksdb_pinnableslice_value(p, &len);
                df_buf_append(ret_value, v, len);
                rocksdb_pinnableslice_destroy(p);
        }
        int r = df_buf_check(ret_value, err);
        if (r == 0)
                *ret_found = found;
        return r;
}

/* ---- what must be in no file any more ---- */

static int flush(struct df_kv *kv, struct df_error *err)
{
        rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();
        char *message = NULL;

        rocksdb_flushoptions_set_wait(o, 1);
        rocksdb_flush(kv->store.db.db, o, &message);
        rocksdb_flushoptions_destroy(o);
        return message ? dfi_status_fail(err, message, "cannot flush", NULL) : 0;
}

static void compact(struct df_kv *kv, const struct df_bytes *keys, size_t count)
{
        const int force = 2; /* BottommostLevelCompaction::kForce: the last level too */
        rocksdb_compactoptions_t *o = rocksdb_compactoptions_create();
        rocksdb_t *db = kv->store.db.db;

        rocksdb_compactoptions_set_bottommost_level_compaction(o, force);
        if (count == 0)
                rocksdb_compact_range_opt(db, o, NULL, 0, NULL, 0);
        for (size_t i = 0; i < count; i++)
                rocksdb_compact_range_opt(db, o, (const char *)keys[i].data, keys[i].len,
                                          (const char *)keys[i].data, keys[i].len);
        rocksdb_compactoptions_destroy(o);
}

/* A background thread unlinks what a flush or a compaction replaced at a time of its own. With
 * deletions off meanwhile they wait, and turning them on does all of them before it returns. */
static int rewrite(struct df_kv *kv, const struct df_bytes *keys, size_t count, bool compacts,
                   struct df_error *err)
{
        rocksdb_t *db = kv->store.db.db;
        char *message = NULL;
        int r = dfi_store_alive(&kv->store, err);

        if (r)
                return r;
        df_check(atomic_load(&kv->snapshots) == 0);
        rocksdb_disable_file_deletions(db, &message);
        if (message)
                return dfi_status_fail(err, message, "cannot hold files back", NULL);
        r = flush(kv, err);
        if (r == 0 && compacts)
                compact(kv, keys, count); /* says nothing: what failed is a background error */
        rocksdb_enable_file_deletions(db, 1, &message);
        if (message && r == 0)
                return dfi_status_fail(err, message, "cannot unlink files", NULL);
        rocksdb_free(message);
        return r ? r : dfi_store_poll(&kv->store, err);
}

int df_kv_forget(struct df_kv *kv, const struct df_bytes *keys, size_t count, struct df_error *err)
{
        return rewrite(kv, keys, count, true, err);
}

int df_kv_flush(struct df_kv *kv, struct df_error *err)
{
        return rewrite(kv, NULL, 0, false, err);
}
