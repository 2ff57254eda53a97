/* store.h - the state store port: an ordered key-value store of one task, and its checkpoints.
 *
 * A task reads committed state synchronously (get, scan) and collects writes in one batch that
 * commit applies atomically, without a write-ahead log: what counts is the checkpoint, never the
 * live directory. Reads do not see the open batch.
 *
 * Thread: one at a time (the task's worker). Deterministic: scan is in byte order of keys.
 * Ownership: keys and values given are copied; a value returned is valid until the next call.
 * Errors: DF_EIO and DF_ENOSPC make the store unusable: close it and take over again (K7).
 *         DF_ECORRUPT: a block failed its checksum.
 * Limits: DF_STORE_KEY_MAX bytes a key, not empty; DF_STORE_VALUE_MAX a value. A put beyond them
 *         makes the next commit write nothing and return DF_ELIMIT. DF_RUN_KEY_MAX,
 *         DF_RUN_BLOCK_MAX: what is beyond is a bug (df_check). Runs that cannot be written make
 *         the next commit fail.
 */
#ifndef DF_STORE_H
#define DF_STORE_H

#include <stdbool.h>

#include "df/bytes.h"
#include "df/hash.h"

#define DF_STORE_KEY_MAX 1024
#define DF_STORE_VALUE_MAX (4u << 20)
#define DF_RUN_KEY_MAX 24
#define DF_RUN_BLOCK_MAX (64u << 10)

struct df_store;

struct df_store_ops {
        /* *ret_found false when absent. */
        int (*get)(struct df_store *s, struct df_bytes key, struct df_bytes *ret_value,
                   bool *ret_found, struct df_error *err);
        /* Call fn for each key with the prefix, ascending; fn returning 1 stops early, negative
         * fails. fn may write to the batch, not commit. */
        int (*scan)(struct df_store *s, struct df_bytes prefix,
                    int (*fn)(void *arg, struct df_bytes key, struct df_bytes value,
                              struct df_error *err),
                    void *arg, struct df_error *err);
        void (*put)(struct df_store *s, struct df_bytes key, struct df_bytes value);
        void (*del)(struct df_store *s, struct df_bytes key);
        /* Delete [from, to) and give its disk space back soon (expiry of whole buckets). */
        void (*del_range)(struct df_store *s, struct df_bytes from, struct df_bytes to);
        int (*commit)(struct df_store *s,
                      struct df_error *err);  /* K1: the whole batch or nothing */
        void (*rollback)(struct df_store *s); /* drop the open batch, and open runs */

        /* Runs: much data that is written once, in order, block by block, then read by block and
         * deleted whole. They lie beside the keys, in files of their own, which checkpoints link:
         * no batch, memtable or compaction copies them. Their keys are apart from other keys, and
         * none is the beginning of another.
         *
         * run_append opens a run, or adds a block to an open one: as long as its first, or shorter
         * and the last. run_end makes it part of the next commit; until then it is in no checkpoint
         * and cannot be read, over however many commits. */
        void (*run_append)(struct df_store *s, struct df_bytes key, struct df_bytes block);
        void (*run_end)(struct df_store *s, struct df_bytes key);
        /* Block `number` of a committed run; *ret_found false when there is none. */
        int (*run_read)(struct df_store *s, struct df_bytes key, uint32_t number,
                        struct df_bytes *ret_block, bool *ret_found, struct df_error *err);
        /* The same for whoever reads a whole run, from block 0 on in order: the store reads ahead
         * of it, and does not keep what was read for others. */
        int (*run_next)(struct df_store *s, struct df_bytes key, uint32_t number,
                        struct df_bytes *ret_block, bool *ret_found, struct df_error *err);
        /* With the next commit; an open run ends at once. The key is free for another run. */
        void (*run_del)(struct df_store *s, struct df_bytes key);
        /* Call fn for each committed run with the prefix, ascending. fn may delete it. */
        int (*run_scan)(struct df_store *s, struct df_bytes prefix,
                        int (*fn)(void *arg, struct df_bytes key, struct df_error *err), void *arg,
                        struct df_error *err);
};

struct df_store {
        const struct df_store_ops *ops;
};

static inline int df_store_get(struct df_store *s, struct df_bytes key, struct df_bytes *ret_value,
                               bool *ret_found, struct df_error *err)
{
        return s->ops->get(s, key, ret_value, ret_found, err);
}
static inline int df_store_scan(struct df_store *s, struct df_bytes prefix,
                                int (*fn)(void *, struct df_bytes, struct df_bytes,
                                          struct df_error *),
                                void *arg, struct df_error *err)
{
        return s->ops->scan(s, prefix, fn, arg, err);
}
static inline void df_store_put(struct df_store *s, struct df_bytes key, struct df_bytes value)
{
        s->ops->put(s, key, value);
}
static inline void df_store_del(struct df_store *s, struct df_bytes key)
{
        s->ops->del(s, key);
}
static inline void df_store_del_range(struct df_store *s, struct df_bytes from, struct df_bytes to)
{
        s->ops->del_range(s, from, to);
}
static inline int df_store_commit(struct df_store *s, struct df_error *err)
{
        return s->ops->commit(s, err);
}
static inline void df_store_rollback(struct df_store *s)
{
        s->ops->rollback(s);
}

static inline void df_store_run_append(struct df_store *s, struct df_bytes key,
                                       struct df_bytes block)
{
        s->ops->run_append(s, key, block);
}
static inline void df_store_run_end(struct df_store *s, struct df_bytes key)
{
        s->ops->run_end(s, key);
}
static inline int df_store_run_read(struct df_store *s, struct df_bytes key, uint32_t number,
                                    struct df_bytes *ret_block, bool *ret_found,
                                    struct df_error *err)
{
        return s->ops->run_read(s, key, number, ret_block, ret_found, err);
}
static inline int df_store_run_next(struct df_store *s, struct df_bytes key, uint32_t number,
                                    struct df_bytes *ret_block, bool *ret_found,
                                    struct df_error *err)
{
        return s->ops->run_next(s, key, number, ret_block, ret_found, err);
}
static inline void df_store_run_del(struct df_store *s, struct df_bytes key)
{
        s->ops->run_del(s, key);
}
static inline int df_store_run_scan(struct df_store *s, struct df_bytes prefix,
                                    int (*fn)(void *, struct df_bytes, struct df_error *),
                                    void *arg, struct df_error *err)
{
        return s->ops->run_scan(s, prefix, fn, arg, err);
}

/* ---- checkpoints of a store: the state directory of one task (K2, K4, K7, K8) ----
 *
 *   DIR/LOCK                          flock of the owner
 *   DIR/EPOCH                         count of takeovers (fsynced)
 *   DIR/CURRENT                       "<checkpoint name> <sha256 of its manifest>\n"
 *   DIR/ck-<k>-<epoch>-<random>/      a checkpoint: store files and MANIFEST.ck
 *   DIR/live-<epoch>-<random>/        the open store; never opened again after a crash
 *
 * Order of calls: open, takeover, { persist, publish, retire }*, [drop_live, takeover]*, close.
 */
struct df_ckpt;

#define DF_CKPT_NAME_MAX 63 /* "ck-<k>-<epoch>-<16 hex digits>" */

struct df_takeover {
        struct df_store *store; /* the live store, owned by the ckpt until drop_live or close */
        uint64_t epoch;         /* grows with every takeover of this directory */
        bool fresh;             /* there was no checkpoint: the store is empty */
        bool candidate;         /* takeover_at: not committed yet */
        uint64_t k;             /* of the checkpoint; 0 when fresh */
        char name[DF_CKPT_NAME_MAX + 1];
        uint8_t digest[32];     /* SHA-256 of its manifest */
        uint64_t fetched_bytes; /* from the checkpoint store; 0 = it was here */
};

/* A checkpoint by name and content: what the committed offset's metadata says on Kafka (K3). */
struct df_ckpt_ref {
        char name[DF_CKPT_NAME_MAX + 1];
        uint8_t digest[32]; /* SHA-256 of its manifest */
};

/* Which checkpoint a takeover opens, when it is the committed offset that decides and not CURRENT
 * (K8): the one named, or the newest valid candidate whose parent it is. */
struct df_ckpt_wanted {
        bool any; /* false: nothing was ever committed: the directory must hold no checkpoint that
                   * was (DF_ESCHEMA: the committed offset was deleted, K14) */
        struct df_ckpt_ref ref;
        bool rebuild; /* K10: fresh, whatever is committed and whatever checkpoints there are */
};

struct df_ckpt_ops {
        /* Lock, count the epoch, read and verify CURRENT (every file against its SHA-256), delete
         * leftovers, open a copy as the live store. DF_EFENCED: another process owns the
         * directory. DF_ECORRUPT: names the file, and `adtally recover`. */
        int (*takeover)(struct df_ckpt *c, struct df_takeover *ret, struct df_error *err);
        /* The same at a named checkpoint. It is looked for in the directory, then in the checkpoint
         * store (df/rocksdb.h), from which it is fetched. ret->candidate: what was opened is a
         * child of `wanted` that was persisted and never committed. After `adtally recover --from
         * checkpoint` for this very `wanted` an older one is opened (ret->k tells). DF_ENOENT: it
         * is nowhere (K10); DF_ECORRUPT: damaged in both places. */
        int (*takeover_at)(struct df_ckpt *c, const struct df_ckpt_wanted *wanted,
                           struct df_takeover *ret, struct df_error *err);
        /* What persist made last. */
        void (*candidate)(struct df_ckpt *c, struct df_ckpt_ref *ret);
        /* Checkpoint the committed store as candidate k; durable when it returns (files, manifest,
         * parent directory; with a checkpoint store there as well). note is kept in the manifest
         * (the task's outputs, K4). */
        int (*persist)(struct df_ckpt *c, uint64_t k, struct df_bytes note, struct df_error *err);
        /* CURRENT names candidate k; durable when it returns. */
        int (*publish)(struct df_ckpt *c, uint64_t k, struct df_error *err);
        /* The note of CURRENT's manifest; valid until the next call. */
        int (*note)(struct df_ckpt *c, struct df_bytes *ret, struct df_error *err);
        /* Delete checkpoints older than CURRENT's parent (K7). */
        int (*retire)(struct df_ckpt *c, struct df_error *err);
        /* Close and delete the live store of this owner, after any doubt (K7). */
        void (*drop_live)(struct df_ckpt *c);
        void (*close)(struct df_ckpt *c);
};

struct df_ckpt {
        const struct df_ckpt_ops *ops;
};

static inline int df_ckpt_takeover(struct df_ckpt *c, struct df_takeover *ret, struct df_error *err)
{
        return c->ops->takeover(c, ret, err);
}
static inline int df_ckpt_takeover_at(struct df_ckpt *c, const struct df_ckpt_wanted *wanted,
                                      struct df_takeover *ret, struct df_error *err)
{
        return c->ops->takeover_at(c, wanted, ret, err);
}
static inline void df_ckpt_candidate(struct df_ckpt *c, struct df_ckpt_ref *ret)
{
        c->ops->candidate(c, ret);
}
static inline int df_ckpt_persist(struct df_ckpt *c, uint64_t k, struct df_bytes note,
                                  struct df_error *err)
{
        return c->ops->persist(c, k, note, err);
}
static inline int df_ckpt_publish(struct df_ckpt *c, uint64_t k, struct df_error *err)
{
        return c->ops->publish(c, k, err);
}
static inline int df_ckpt_note(struct df_ckpt *c, struct df_bytes *ret, struct df_error *err)
{
        return c->ops->note(c, ret, err);
}
static inline int df_ckpt_retire(struct df_ckpt *c, struct df_error *err)
{
        return c->ops->retire(c, err);
}
static inline void df_ckpt_drop_live(struct df_ckpt *c)
{
        c->ops->drop_live(c);
}
static inline void df_ckpt_close(struct df_ckpt *c)
{
        if (c)
                c->ops->close(c);
}

#endif
