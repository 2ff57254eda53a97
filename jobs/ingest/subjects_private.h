/* subjects_private.h - between subjects.c (what is in memory; sealing), subjects_store.c (keys on
 * disk) and subjects_delete.c.
 *
 * Locks, in this order: `write` for writers of the store and whoever opens or closes it, `lock` for
 * memory and readers of the store. So `kv` changes under both and is read under either.
 */
#ifndef AD_SUBJECTS_PRIVATE_H
#define AD_SUBJECTS_PRIVATE_H

#include <limits.h>
#include <pthread.h>

#include "df/cipher.h"
#include "df/rocksdb.h"
#include "df/sha256.h"
#include "jobs/ingest/subjects.h"

#define KEY_ID_SIZE 16
#define BUCKETS (1u << 17)

struct fresh { /* of a subject whose key is not durable */
        uint8_t name[DF_HMAC_SIZE];
        uint8_t id[KEY_ID_SIZE], key[DF_CIPHER_KEY_SIZE];
};

struct subject {
        struct subject *next; /* in its bucket */
        uint64_t hash;
        struct fresh *fresh; /* NULL: durable, and in slots */
        uint32_t slot;
        bool used; /* since the hand passed */
        uint8_t tenant_len, user_len, sealed_len;
        uint8_t bytes[]; /* tenant_id, user_id, sealed id */
};

/* Subjects whose keys are not durable, in the order in which they were made. */
struct pending {
        struct subject **list;
        size_t count;
};

struct ad_subjects {
        char dir[PATH_MAX];
        uint8_t secret[32];
        uint64_t salt; /* of the buckets: no client can aim at one */

        pthread_mutex_t write;
        struct pending writing; /* by ad_subjects_commit; empty outside of it */
        bool forgetting;        /* the store may not be closed */

        pthread_mutex_t lock;
        struct df_kv *kv;    /* NULL: closed */
        int closed;          /* then: with this code */
        struct df_buf value; /* read last */
        struct subject **buckets;
        struct subject **slots; /* the cache, of which `hand` forgets what was not used */
        size_t slot_count, hand;
        struct pending pending;
        uint64_t created, deleted;
};

/* ---- subjects.c, under `lock` ---- */
struct subject *adi_subject_lookup(struct ad_subjects *s, struct df_bytes tenant,
                                   struct df_bytes user);
/* Out of memory, of both lists and of the cache; the keys are overwritten. Also under `write`. */
void adi_subject_drop(struct ad_subjects *s, struct subject *e);

/* ---- subjects_store.c ---- */
/* The secret and the store. */
int adi_store_secret(struct ad_subjects *s, const char *data_dir, struct df_error *err);
int adi_store_open(struct ad_subjects *s, struct df_error *err); /* under both locks */
/* After a failed write; under `write`. Returns rc. */
int adi_store_failed(struct ad_subjects *s, int rc);
int adi_store_name(struct ad_subjects *s, struct df_bytes tenant, struct df_bytes user,
                   uint8_t ret[DF_HMAC_SIZE], struct df_error *err);
/* Under `lock`. ret->name is the caller's. */
int adi_store_find(struct ad_subjects *s, struct fresh *ret, bool *ret_found, struct df_error *err);
int adi_store_key(struct ad_subjects *s, const uint8_t id[KEY_ID_SIZE],
                  uint8_t ret[DF_CIPHER_KEY_SIZE], bool *ret_found, struct df_error *err);
/* Into, out of the open batch of the store; under `write`. */
void adi_store_put(struct ad_subjects *s, const struct fresh *f);
void adi_store_del(struct ad_subjects *s, const struct fresh *f);
int adi_store_closed(struct ad_subjects *s, struct df_error *err); /* the refusal */

struct store_key { /* a key of the store, for one subject two */
        uint8_t data[1 + DF_HMAC_SIZE];
        size_t len;
};
void adi_store_keys(const struct fresh *f, struct store_key ret[2]);

#endif
