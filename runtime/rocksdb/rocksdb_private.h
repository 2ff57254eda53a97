/* rocksdb_private.h - the parts of the store port: an opened database with our options (db.c), the
 * df_store over it (store.c), files and names on disk (files.c, tree.c), the checkpoint manifest
 * (manifest.c, verify.c), and the checkpoint object (ckpt*.c).
 *
 * Paths are built into caller's arrays of DFI_PATH_MAX; a longer one is DF_ELIMIT.
 */
#ifndef DFI_ROCKSDB_PRIVATE_H
#define DFI_ROCKSDB_PRIVATE_H

#include <aio.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/types.h>

#include <rocksdb/c.h>

#include "df/rocksdb.h"
#include "df/sha256.h"

#define DFI_PATH_MAX 4096
#define DFI_FILE_NAME_MAX 63        /* of a file of a checkpoint */
#define DFI_MANIFEST_MAX (4u << 20) /* bytes of MANIFEST.ck */
#define DFI_NOTE_MAX (1u << 20)
#define DFI_FILES_MAX 100000
#define DFI_TASK_OPEN_FILES 128
#define DFI_KV_OPEN_FILES 512
#define DFI_MANIFEST_NAME "MANIFEST.ck"

#define DFI_RECOVER_HINT "see `adtally recover --partition N --from checkpoint|log`"

/* ---- status.c ---- */

/* The code that a RocksDB message means. */
int dfi_status_code(const char *message);
/* Fail with what RocksDB said; frees message. `what` and `path` go before it. */
int dfi_status_fail(struct df_error *err, char *message, const char *what, const char *path);

/* ---- db.c ---- */

struct dfi_db {
        rocksdb_t *db;
        rocksdb_options_t *options;
        rocksdb_cache_t *cache;
        rocksdb_readoptions_t *read; /* checksums verified; no bounds, no snapshot */
        rocksdb_writeoptions_t *write;
};

enum dfi_db_kind {
        DFI_DB_TASK, /* no write-ahead log; one thread */
        DFI_DB_KV,   /* write-ahead log, many readers */
};

/* Open path and check that RocksDB took our options. create: it must not exist yet for a task. */
int dfi_db_open(struct dfi_db *d, const char *path, enum dfi_db_kind kind, bool create,
                const struct df_rocksdb_options *options, struct df_error *err);
void dfi_db_close(struct dfi_db *d); /* never flushes; zeroed afterwards */
uint64_t dfi_db_property(const struct dfi_db *d, const char *name);
/* A RocksDB checkpoint into path, which must not exist; the memtable is flushed first. */
int dfi_db_checkpoint(const struct dfi_db *d, const char *path, struct df_error *err);
/* Call fn for each key in [from, to) ascending; to.len 0 = no end. snapshot may be NULL. */
int dfi_db_range(const struct dfi_db *d, const rocksdb_snapshot_t *snapshot, struct df_bytes from,
                 struct df_bytes to,
                 int (*fn)(void *arg, struct df_bytes key, struct df_bytes value,
                           struct df_error *err),
                 void *arg, struct df_error *err);

/* A file of a checkpoint. */
struct dfi_file {
        char name[DFI_FILE_NAME_MAX + 1];
        uint64_t size_bytes;
        uint8_t digest[DF_SHA256_SIZE];
        ino_t inode; /* not stored */
};

/* ---- aio.c: reads and writes by threads of the C library ---- */
#define DFI_AIO_THREADS 4 /* at most; they end after a second without work */
void dfi_aio_init(void);  /* before the first one */
/* As read and write return, but errno is not set. */
ssize_t dfi_aio_wait(struct aiocb *io);

/* ---- direct.c: a file written once, from its beginning, past the page cache ----
 *
 * Large files that are seldom read: a copy of them in memory would cost more than writing them, and
 * push out what others read. Written in pieces of 256 KiB, each by a thread of the C library
 * (aio.h) while the next one is filled; the end, and all of it where the file system or the device
 * refuses, goes through the page cache. What did not succeed so is written again in the caller's
 * thread, which names the error: at the next piece, or at the end. Durable only when synced (by
 * path). Its SHA-256 is taken on the way, so that a checkpoint need not read it.
 */
struct dfi_direct;
/* DF_EIO, DF_ENOMEM: nothing is left of it. */
int dfi_direct_create(const char *path, struct dfi_direct **ret, struct df_error *err);
int dfi_direct_write(struct dfi_direct *d, struct df_bytes content, const char *path,
                     struct df_error *err);
/* Writes the rest; then, or after an error, it is only good for closing. *ret: all but the name. */
int dfi_direct_end(struct dfi_direct *d, const char *path, struct dfi_file *ret,
                   struct df_error *err);
/* Gives up what is not written. NULL: nothing. */
void dfi_direct_close(struct dfi_direct *d);

/* ---- ahead.c: a file read from its beginning, past the page cache and ahead of its reader ----
 *
 * For whoever reads all of a large file that nobody else is about to read. Two pieces of 128 KiB:
 * one is used while the next one is read by a thread of the C library (aio.h).
 *
 * It only saves time. Whatever does not work (a file system without such reads, an error, a file
 * that is cut, DFI_AHEAD_MAX bytes in use) is answered by NULL, and the caller reads as usual,
 * which then names the error.
 */
#define DFI_AHEAD_MAX ((size_t)64 << 20) /* of all readers in the process; 384 KiB each */
struct dfi_ahead;
/* bytes: of the file, which does not change any more. */
struct dfi_ahead *dfi_ahead_open(const char *path, uint64_t bytes);
/* At most 128 KiB; valid until the next call. Any place; in order it does not wait. After NULL it
 * is only good for closing. */
const uint8_t *dfi_ahead_read(struct dfi_ahead *a, uint64_t at, size_t len);
/* NULL: nothing. */
void dfi_ahead_close(struct dfi_ahead *a);

/* ---- runs.c: the runs of a task's store, one file each in the live directory ----
 *
 *   <key in hex>-<serial>.run    blocks, each behind it the XXH3 of its bytes plus its number; then
 *                                "adrun001", bytes of a block, blocks, bytes of the last one, and
 *                                the CRC-32C of these (all big endian)
 *
 * A file never changes once it has ended, so that checkpoints link it as they link tables. Only
 * ended files stand in checkpoints, and only those: a takeover finds its runs by looking.
 */
#define DFI_RUN_FDS 32 /* open at a time for reading, of one store */

struct dfi_run {
        uint8_t key[DF_RUN_KEY_MAX];
        uint32_t key_len, serial;
        uint32_t block_bytes, blocks, last_bytes;
        enum { DFI_RUN_OPEN, DFI_RUN_ENDED, DFI_RUN_COMMITTED } state;
        bool gone;               /* deleted with the next commit */
        bool synced;             /* durable */
        int fd;                  /* for reading; -1: closed */
        struct dfi_ahead *ahead; /* of whoever reads it in order, or NULL */
        struct dfi_direct *out;  /* while it is open */
        struct dfi_file file;    /* of one written by this store, once ended; else inode is 0 */
};

struct dfi_runs {
        char dir[DFI_PATH_MAX];
        struct dfi_run *v; /* by key, then serial */
        size_t count, cap;
        size_t fds, hand; /* open for reading; where to look for one to close */
        uint32_t next_serial;
        struct df_buf block; /* read last */
        int failed;          /* a write failed: what the commit returns */
        char failed_text[160];
};

bool dfi_is_run(const char *name);
/* The runs that lie in dir. DF_ECORRUPT: one is cut or damaged. */
int dfi_runs_open(struct dfi_runs *r, const char *dir, struct df_error *err);
void dfi_runs_close(struct dfi_runs *r);
void dfi_runs_append(struct dfi_runs *r, struct df_bytes key, struct df_bytes block);
void dfi_runs_end(struct dfi_runs *r, struct df_bytes key);
/* in_order: of a run that is read whole: it is read ahead of, until the last block or its end. */
int dfi_runs_read(struct dfi_runs *r, struct df_bytes key, uint32_t number, bool in_order,
                  struct df_bytes *ret, bool *ret_found, struct df_error *err);
void dfi_runs_del(struct dfi_runs *r, struct df_bytes key);
int dfi_runs_scan(struct dfi_runs *r, struct df_bytes prefix,
                  int (*fn)(void *, struct df_bytes, struct df_error *), void *arg,
                  struct df_error *err);
int dfi_runs_commit(struct dfi_runs *r, struct df_error *err);
void dfi_runs_rollback(struct dfi_runs *r);
/* Size, inode and digest of a run that this store has written, by the name of its file; or NULL. */
const struct dfi_file *dfi_runs_file(const struct dfi_runs *r, const char *name);
/* Links of all committed runs, durable, into the directory of a checkpoint. */
int dfi_runs_link(struct dfi_runs *r, const char *into, struct df_error *err);

/* ---- store.c ---- */

#define DFI_STORE_MAGIC 0x64667374u
/* Deleted ranges remembered for giving back disk early; beyond that compaction finds them. */
#define DFI_RANGES_MAX 256
#define DFI_HIDDEN_SHARE 4        /* of a task's files: so much deleted is compacted away */
#define DFI_HIDDEN_MIN (1u << 20) /* bytes: less may stay */
#define DFI_HINT_PAUSE_MAX 256    /* persists between two hints that gave nothing back */

/* When compaction is asked for. RocksDB takes one of the files in the ranges, at random, down to
 * the next level: several such steps may be needed until what is hidden goes, and one of a file
 * just flushed gives nothing back, but writes that level anew. So hints come ever more rarely while
 * they are of no use; merges of files of like size give the disk back in the end. */
struct dfi_hint {
        uint32_t pause, left; /* persists after the last hint; still to come */
};
/* One persist: hidden of live bytes of files lie in deleted ranges. Pure. */
bool dfi_hint_due(struct dfi_hint *h, uint64_t hidden, uint64_t live);

struct dfi_range {
        struct df_buf from, to;
};

struct dfi_ranges {
        struct dfi_range v[DFI_RANGES_MAX];
        size_t count;
};

struct dfi_store {
        struct df_store base;
        uint32_t magic;
        enum dfi_db_kind kind;
        struct dfi_db db;
        rocksdb_writebatch_t *batch;
        struct dfi_runs *runs;           /* of a task's store */
        rocksdb_pinnableslice_t *pinned; /* the value that get returned last */
        struct dfi_ranges open_ranges;   /* deleted in the open batch */
        struct dfi_ranges hint_ranges;   /* committed; compaction not yet asked for */
        struct dfi_hint hint;
        int limit; /* DF_ELIMIT once the open batch broke one */
        char limit_text[96];
        atomic_int dead; /* 0, or the code with which it became unusable */
        char dead_text[160];
};

int dfi_store_open(struct dfi_store *s, const char *path, enum dfi_db_kind kind, bool create,
                   const struct df_rocksdb_options *options, struct df_error *err);
void dfi_store_close(struct dfi_store *s);
/* The error with which the store became unusable, or 0. */
int dfi_store_alive(struct dfi_store *s, struct df_error *err);
/* Remember err and refuse everything from now on; returns code. */
int dfi_store_kill(struct dfi_store *s, int code, const struct df_error *err);
/* DF_EIO and dead when RocksDB counted a background error. */
int dfi_store_poll(struct dfi_store *s, struct df_error *err);
/* Ask for the compaction of committed deleted ranges; call when their tombstones are in files. */
void dfi_store_hint(struct dfi_store *s);

/* ---- files.c ---- */

int dfi_state_path(char ret[DFI_PATH_MAX], struct df_error *err, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
int dfi_state_sync_dir(const char *path, struct df_error *err);
int dfi_sync_file(const char *path, struct df_error *err);
int dfi_sync_parent(const char *path, struct df_error *err);
/* Make dir/name hold content, durably: temporary file, fsync, rename, fsync of dir. */
int dfi_replace_file(const char *dir, const char *name, struct df_bytes content,
                     struct df_error *err);
/* Write a new file and fsync it (not its directory). */
int dfi_create_file(const char *path, struct df_bytes content, struct df_error *err);
/* Append the whole file to ret; DF_ENOENT when absent, DF_ELIMIT beyond max. */
int dfi_read_file(const char *path, size_t max, struct df_buf *ret, struct df_error *err);
int dfi_copy_file(const char *from, const char *to, struct df_error *err);
/* A hard link, or a copy where the file systems differ. */
int dfi_link_file(const char *from, const char *to, struct df_error *err);
bool dfi_is_sst(const char *name);
int dfi_write_all(int fd, struct df_bytes content, const char *path, struct df_error *err);

/* ---- tree.c ---- */

struct dfi_names {
        char (*v)[NAME_MAX + 1];
        size_t count;
};

/* Sorted names of a directory, without "." and "..". DF_ENOENT when there is no such directory. */
int dfi_names_read(const char *dir, struct dfi_names *ret, struct df_error *err);
void dfi_names_release(struct dfi_names *n);
int dfi_remove_tree(const char *path, struct df_error *err); /* absent is fine */
bool dfi_exists(const char *path);

/* ---- manifest.c ---- */

struct dfi_files {
        struct dfi_file *v; /* sorted by name */
        size_t count, cap;
};

int dfi_files_add(struct dfi_files *f, const struct dfi_file *file, struct df_error *err);
const struct dfi_file *dfi_files_find(const struct dfi_files *f, const char *name);
void dfi_files_release(struct dfi_files *f);

struct dfi_manifest {
        char rocksdb_version[16];
        uint64_t k, epoch;
        char parent[DF_CKPT_NAME_MAX + 1]; /* "" = none */
        uint8_t parent_digest[DF_SHA256_SIZE];
        struct df_buf note;
        struct dfi_files files;
};

void dfi_manifest_release(struct dfi_manifest *m);
int dfi_manifest_encode(const struct dfi_manifest *m, struct df_buf *ret, struct df_error *err);
/* path only for messages. DF_ECORRUPT, DF_ESCHEMA. */
int dfi_manifest_parse(struct df_bytes text, const char *path, struct dfi_manifest *ret,
                       struct df_error *err);
/* False unless name is exactly what dfi_ck_name_format makes. */
bool dfi_ck_name_parse(const char *name, uint64_t *ret_k, uint64_t *ret_epoch);
int dfi_ck_name_make(uint64_t k, uint64_t epoch, char ret[DF_CKPT_NAME_MAX + 1],
                     struct df_error *err);
bool dfi_unhex(const char *hex, size_t bytes, uint8_t *ret);
/* A decimal number without sign or leading zeros, ended by `end`; returns what follows, or NULL. */
const char *dfi_parse_u64(const char *p, char end, uint64_t *ret);

/* ---- verify.c ---- */

struct dfi_current {
        bool present;
        char name[DF_CKPT_NAME_MAX + 1];
        uint8_t digest[DF_SHA256_SIZE]; /* of its manifest */
};

int dfi_current_read(const char *dir, struct dfi_current *ret, struct df_error *err);
int dfi_current_write(const char *dir, const struct dfi_current *c, struct df_error *err);
/* Read and check a checkpoint's manifest; digest may be NULL (then only its own seal is checked).
 * ret_digest may be NULL. */
int dfi_verify_manifest(const char *dir, const char *name, const uint8_t *digest,
                        struct dfi_manifest *ret, uint8_t *ret_digest, struct df_error *err);
/* Check every file of the checkpoint against the manifest: presence, size, SHA-256, and that
 * nothing else is there. Fills the inodes. */
int dfi_verify_files(const char *dir, const char *name, struct dfi_manifest *m,
                     struct df_error *err);

struct dfi_epoch {
        uint64_t epoch; /* 0 = never taken over */
        bool published; /* CURRENT existed: without one now, it was lost */
};
int dfi_epoch_read(const char *dir, struct dfi_epoch *ret, struct df_error *err);
int dfi_epoch_write(const char *dir, const struct dfi_epoch *e, struct df_error *err);
/* flock DIR/LOCK; DF_EFENCED when somebody has it. */
int dfi_state_lock(const char *dir, int *ret_fd, struct df_error *err);
void dfi_unlock(int *fd);

/* ---- ckpt.c, ckpt_takeover.c, ckpt_persist.c ---- */

#define DFI_CKPT_MAGIC 0x6466636bu

struct dfi_ckpt {
        struct df_ckpt base;
        uint32_t magic;
        char dir[DFI_PATH_MAX];
        struct df_rocksdb_options options;
        int lock_fd;
        struct dfi_epoch epoch;
        bool owner; /* between a successful takeover and drop_live */
        bool doubt; /* publish failed: nobody knows what CURRENT says on disk */
        struct dfi_current current;
        uint64_t current_k;
        char current_parent[DF_CKPT_NAME_MAX + 1];
        struct df_buf current_note;
        bool has_candidate;
        struct dfi_current candidate;
        uint64_t candidate_k;
        struct df_buf candidate_note;
        struct dfi_files known;       /* of the last checkpoint: opened, or made in this life */
        char store_dir[DFI_PATH_MAX]; /* K2: the checkpoint store; "" = none */
        char uploaded[DF_CKPT_NAME_MAX + 1]; /* whose files are `known`, in the store */
        uint64_t fetched_bytes;              /* by the last takeover */
        char live[DFI_PATH_MAX];
        struct dfi_store store;
        bool store_open;
};

struct dfi_ckpt *dfi_ckpt_from(struct df_ckpt *base);
int dfi_make_dirs(const char *dir, struct df_error *err); /* mkdir -p, durable */
/* Never written again. */
bool dfi_is_immutable(const char *name);
void dfi_ckpt_drop_live(struct df_ckpt *base);
int dfi_ckpt_takeover(struct df_ckpt *base, struct df_takeover *ret, struct df_error *err);
int dfi_ckpt_takeover_at(struct df_ckpt *base, const struct df_ckpt_wanted *wanted,
                         struct df_takeover *ret, struct df_error *err);
void dfi_ckpt_candidate(struct df_ckpt *base, struct df_ckpt_ref *ret);
int dfi_ckpt_persist(struct df_ckpt *base, uint64_t k, struct df_bytes note, struct df_error *err);
int dfi_ckpt_publish(struct df_ckpt *base, uint64_t k, struct df_error *err);
int dfi_ckpt_retire(struct df_ckpt *base, struct df_error *err);

/* ---- ckpt_shared.c ---- */

/* A number that no other takeover of this task has, on whatever machine. */
int dfi_shared_epoch(const char *store, uint64_t at_least, uint64_t *ret, struct df_error *err);
int dfi_shared_upload(struct dfi_ckpt *c, const char *name, const struct dfi_files *files,
                      struct df_error *err);
/* ret is the manifest, verified with its files. DF_ECORRUPT: damaged in the store, too. */
int dfi_shared_fetch(struct dfi_ckpt *c, const struct dfi_current *which, struct dfi_manifest *ret,
                     struct df_error *err);
int dfi_shared_retire(const struct dfi_ckpt *c, struct df_error *err);
int dfi_shared_was_committed(const char *store, bool *ret, struct df_error *err);

/* ---- recover_at.c ---- */

/* What `adtally recover --from checkpoint` said for the committed checkpoint `of`; ret->present
 * false: nothing. dir: the store, or the state directory when there is none. */
int dfi_fallback_read(const char *dir, const char *of, struct dfi_current *ret,
                      struct df_error *err);

#endif
