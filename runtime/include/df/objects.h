/* objects.h - the object store port: named immutable or versioned blobs, for the raw archive (A1
 * to A3).
 *
 * Two adapters implement it (runtime/objects): a directory of this machine or of a shared file
 * system, and an S3-compatible store. Several processes and machines may use one store at once;
 * nothing is held but what put_absent and put_match decide.
 *
 * Order of calls: df_objects_open, df_objects_check once by whoever writes, any calls,
 *             df_objects_close.
 * Names:      [a-z0-9][a-z0-9._/=-]{0,255}; parts between '/' of at most DF_OBJECT_PART_MAX bytes,
 *             none empty or beginning with '.'. A name is never also the folder of another ("a" and
 *             "a/b"): the directory adapter refuses it, DF_EINVAL.
 * Threads:    any thread, any call; only close is alone.
 * Durability: a put returns after the object survives power loss (directory: fsync of the file and
 *             of the directories above it); DF_EEXIST of put_absent says it of the one that is
 *             there.
 * Visibility: an object is seen whole or not at all.
 * Errors:     DF_EEXIST put_absent: there is one already; put_match: it is another version now, or
 *             gone; DF_ENOENT; DF_ENOSPC and DF_EAGAIN nothing was stored, may be retried;
 *             DF_EDOUBT a put may have been stored: ask with get before it is repeated; DF_EINVAL a
 *             name, or a setting that the store refuses (credentials, region); DF_ELIMIT an object
 *             beyond DF_OBJECT_MAX; DF_ECORRUPT an answer that is none; DF_ESCHEMA a store that
 *             cannot do it; DF_EIO. Texts name the store's place and the object. What an adapter
 *             can settle itself it does: S3 calls are repeated with a back-off, and a put whose
 *             answer was lost is looked up.
 * Limits:     DF_OBJECT_MAX bytes an object, in memory while it is on the way.
 */
#ifndef DF_OBJECTS_H
#define DF_OBJECTS_H

#include <stdbool.h>

#include "df/bytes.h"
#include "df/err.h"

#define DF_OBJECT_NAME_MAX 256
#define DF_OBJECT_PART_MAX 255
#define DF_OBJECT_MAX (1u << 30)
#define DF_OBJECT_VERSION_MAX 128

/* Compared, never read: an entity tag (S3), the hash of the content (directory). Empty: none. */
struct df_object_version {
        char text[DF_OBJECT_VERSION_MAX + 1];
};

struct df_objects;

/* Called by list for each object, while it runs; may call the store. Other than 0 ends the list. */
typedef int df_objects_fn(void *arg, const char *name, uint64_t size);

struct df_objects_ops {
        int (*put_absent)(struct df_objects *o, const char *name, struct df_bytes data,
                          struct df_error *err);
        int (*put_match)(struct df_objects *o, const char *name, struct df_bytes data,
                         const struct df_object_version *was, struct df_object_version *ret,
                         struct df_error *err);
        int (*get)(struct df_objects *o, const char *name, struct df_buf *ret,
                   struct df_object_version *version, struct df_error *err);
        int (*get_range)(struct df_objects *o, const char *name, uint64_t from, size_t len,
                         struct df_buf *ret, struct df_error *err);
        int (*size)(struct df_objects *o, const char *name, uint64_t *ret, struct df_error *err);
        int (*list)(struct df_objects *o, const char *prefix, df_objects_fn *fn, void *arg,
                    struct df_error *err);
        int (*remove)(struct df_objects *o, const char *name, struct df_error *err);
        void (*close)(struct df_objects *o);
};

/* Adapters embed this first. */
struct df_objects {
        const struct df_objects_ops *ops;
};

struct df_objects_options {
        /* "dir:/path", absolute, or "s3:BUCKET" or "s3:BUCKET/PREFIX". The path's parent and the
         * bucket must exist; the directory or prefix is made. */
        const char *place;
        /* S3 only; all but the keys may be NULL. Borrowed until df_objects_open returns. */
        const char *s3_endpoint;      /* "https://host:port", then path-style; NULL: AWS */
        const char *s3_region;        /* NULL: us-east-1 */
        const char *s3_access_key;    /* secrets: from files or the environment only */
        const char *s3_secret_key;    /* never in a text */
        const char *s3_session_token; /* NULL: none */
        const char *s3_key_source;    /* where the keys are from, for texts; NULL: "the settings" */
};

int df_objects_open(const struct df_objects_options *options, struct df_objects **ret,
                    struct df_error *err);

/* Does the store keep what put_absent and put_match promise? Tries both with an object of its own
 * ("capability/<random>", removed afterwards), also that a lost race is told as such. Called at
 * start by every writer; DF_ESCHEMA names the promise that is not kept and what to do. */
int df_objects_check(struct df_objects *o, struct df_error *err);

/* Store it unless there is one of that name. */
static inline int df_objects_put_absent(struct df_objects *o, const char *name,
                                        struct df_bytes data, struct df_error *err)
{
        return o->ops->put_absent(o, name, data, err);
}
/* Replace the version that was read; *ret, which may be NULL, is the new one. Equal contents may be
 * equal versions: A, then B, then A again matches a version read at the first A. */
static inline int df_objects_put_match(struct df_objects *o, const char *name, struct df_bytes data,
                                       const struct df_object_version *was,
                                       struct df_object_version *ret, struct df_error *err)
{
        return o->ops->put_match(o, name, data, was, ret, err);
}
/* Appends the whole object to *ret; nothing of it on failure. version may be NULL. */
static inline int df_objects_get(struct df_objects *o, const char *name, struct df_buf *ret,
                                 struct df_object_version *version, struct df_error *err)
{
        return o->ops->get(o, name, ret, version, err);
}
/* Appends at most len bytes from the byte `from` on; fewer at its end, none behind it. */
static inline int df_objects_get_range(struct df_objects *o, const char *name, uint64_t from,
                                       size_t len, struct df_buf *ret, struct df_error *err)
{
        return o->ops->get_range(o, name, from, len, ret, err);
}
static inline int df_objects_size(struct df_objects *o, const char *name, uint64_t *ret,
                                  struct df_error *err)
{
        return o->ops->size(o, name, ret, err);
}
/* Objects whose names begin with prefix ("": all), in byte order of the whole name. What has
 * another name than the port allows is not listed. Objects that come or go meanwhile may be listed
 * or not. fn's return other than 0 ends it and is returned (err is then fn's to fill). */
static inline int df_objects_list(struct df_objects *o, const char *prefix, df_objects_fn *fn,
                                  void *arg, struct df_error *err)
{
        return o->ops->list(o, prefix, fn, arg, err);
}
/* For the archive's own retention; 0 also when there is none. */
static inline int df_objects_remove(struct df_objects *o, const char *name, struct df_error *err)
{
        return o->ops->remove(o, name, err);
}
static inline void df_objects_close(struct df_objects *o)
{
        if (o)
                o->ops->close(o);
}

#endif
