/* rocksdb.h - the state store port on RocksDB (runtime/rocksdb, the only RocksDB), and the plain
 * store that the serving view uses.
 *
 * One column family, no write-ahead log for tasks, two write buffers, one flush thread, checksums
 * verified on every read, background errors polled: any one closes the store (DF_EIO/DF_ENOSPC).
 */
#ifndef DF_ROCKSDB_H
#define DF_ROCKSDB_H

#include "df/store.h"

struct df_rocksdb_options {
        uint64_t write_buffer_bytes; /* 0 = 32 MiB; at least 64 KiB */
        /* 0 = of a task: the one of 128 MiB that all tasks of the process share; of a plain store:
         * 32 MiB */
        uint64_t block_cache_bytes;
        /* K2: this task's folder in the checkpoint store, a directory that every machine sees; NULL
         * = none. Made when missing. persist uploads to it and takeover_at fetches from it (both
         * fail when it cannot be reached), retire deletes there, too. Local disks protect against
         * a crash; what is in the store is hard-linked between checkpoints, so it is no defence
         * against bit rot either: then the log is (K10). */
        const char *store_dir;
        /* Of the plain store: it keeps secrets. A commit is synced before it returns, and each
         * change of files begins a new MANIFEST, so that df_kv_forget leaves nothing behind. */
        bool secrets;
};

/* The state directory of one task; created when missing. options may be NULL; copied.
 * Beyond df/store.h: persist takes k above CURRENT's and a note of at most 1 MiB; one candidate at
 * a time, a new persist forgets the one before. note is DF_ENOENT while there is no CURRENT.
 * After DF_EIO, DF_ENOSPC or DF_ECORRUPT of the store each of its calls repeats the error until
 * drop_live and takeover; a failed publish refuses everything likewise. The lock is kept over
 * drop_live, until close. */
int df_rocksdb_ckpt_open(const char *dir, const struct df_rocksdb_options *options,
                         struct df_ckpt **ret, struct df_error *err);

/* ---- recovery of a refused state directory: `adtally recover --partition N` (K11) ----
 * All take the directory's lock (DF_EFENCED while a task owns it), except list.
 * Thread: any; blocking; they hash whole checkpoints. */

struct df_rocksdb_ckpt_info {
        char name[DF_CKPT_NAME_MAX + 1];
        uint64_t k, epoch;
        bool is_current;
        bool verified;  /* manifest, and files when asked for, are as they were written */
        uint64_t bytes; /* of all files; checkpoints share SST files through hard links */
        size_t files;
        char problem[256]; /* why it is not verified: names the file; else "" */
};

/* Call fn for each checkpoint, newest first; fn returning nonzero ends with that. with_files: also
 * hash the files, not only the manifest. Safe beside a running task: what vanishes is left out. */
int df_rocksdb_ckpt_list(const char *dir, bool with_files,
                         int (*fn)(void *arg, const struct df_rocksdb_ckpt_info *info,
                                   struct df_error *err),
                         void *arg, struct df_error *err);

struct df_rocksdb_fallback {
        char from[DF_CKPT_NAME_MAX + 1]; /* what CURRENT named; "" when unreadable */
        char to[DF_CKPT_NAME_MAX + 1];   /* what it names now (dry_run: would name) */
        uint64_t k;                      /* of `to` */
        char problem[256];               /* what was wrong with `from` */
};

/* Make the newest other checkpoint that verifies, and was published before, CURRENT; the one it
 * replaces is renamed to damaged-<name> and kept. A damaged EPOCH is written anew, far above every
 * epoch seen. DF_EEXIST: CURRENT verifies, nothing to recover. DF_ENOENT: no other checkpoint
 * verifies; use --from log. dry_run changes nothing. */
int df_rocksdb_ckpt_fallback(const char *dir, bool dry_run, struct df_rocksdb_fallback *ret,
                             struct df_error *err);

/* Move all state aside to DIR.lost-<n> (never deletes): the next takeover is fresh. The count of
 * takeovers goes on. ret_moved_to (may be NULL) holds at least 4096 bytes. Interrupted, it is
 * simply called again. dry_run only tells the place. */
int df_rocksdb_ckpt_reset(const char *dir, bool dry_run, char *ret_moved_to, struct df_error *err);

/* The same where the committed offset decides (df_ckpt_takeover_at): the next takeover that finds
 * `wanted` committed opens the newest older checkpoint of the directory or its checkpoint store
 * (store_dir, NULL = none); whether the log continues it the takeover checks. ret->from is wanted.
 * DF_EEXIST: wanted verifies in one of the two places, a takeover finds it by itself. */
int df_rocksdb_ckpt_fallback_at(const char *dir, const char *store_dir,
                                const struct df_ckpt_ref *wanted, bool dry_run,
                                struct df_rocksdb_fallback *ret, struct df_error *err);
/* Rename a checkpoint of a checkpoint store to damaged-<name>; absent is fine. */
int df_rocksdb_ckpt_set_aside(const char *store_dir, const char *name, struct df_error *err);

/* A store with a write-ahead log, opened in place again after a crash: for the serving view, which
 * can be rebuilt from its topic. Extra calls beyond df_store: */
struct df_kv;
int df_kv_open(const char *dir, const struct df_rocksdb_options *options, struct df_kv **ret,
               struct df_error *err);
struct df_store *df_kv_store(struct df_kv *kv); /* thread: the one writer */
/* Into dir, which must not exist: hard links where it can; durable when it returns. */
int df_kv_checkpoint(struct df_kv *kv, const char *dir, struct df_error *err);
/* Put a copy of checkpoint_dir in the place of dir (which nobody has open; replaced in one step
 * when it exists). The checkpoint stays as it is. */
int df_kv_restore(const char *checkpoint_dir, const char *dir, struct df_error *err);
/* What was deleted is gone from the store's files when this returns: the memtable and its
 * write-ahead log are flushed, the files that may hold the keys are compacted down to the last
 * level (count 0: all files), files that nothing needs are unlinked. MANIFEST may still name the
 * keys as ends of a file until the next df_kv_flush of a write (options.secrets). No snapshot may
 * be held. Thread: any, also beside the writer; slow: it rewrites whole files. */
int df_kv_forget(struct df_kv *kv, const struct df_bytes *keys, size_t count, struct df_error *err);
/* What is committed is in the store's files, and the log that held it is unlinked. */
int df_kv_flush(struct df_kv *kv, struct df_error *err);
uint64_t df_kv_property(struct df_kv *kv, const char *name); /* RocksDB integer property, or 0 */
void df_kv_close(struct df_kv *kv);                          /* after every snapshot was dropped */

/* Pinned, consistent reads. Thread: any; a snapshot may be used by one thread at a time. */
struct df_kv_snapshot;
struct df_kv_snapshot *df_kv_snapshot_take(struct df_kv *kv);
void df_kv_snapshot_drop(struct df_kv_snapshot *s);
/* snapshot NULL reads the newest committed state. Keys in [from, to); to empty = no end.
 * fn as in df_store_scan. */
int df_kv_range(struct df_kv *kv, struct df_kv_snapshot *snapshot, struct df_bytes from,
                struct df_bytes to,
                int (*fn)(void *arg, struct df_bytes key, struct df_bytes value,
                          struct df_error *err),
                void *arg, struct df_error *err);
int df_kv_get(struct df_kv *kv, struct df_kv_snapshot *snapshot, struct df_bytes key,
              struct df_buf *ret_value, bool *ret_found, struct df_error *err);

#endif
