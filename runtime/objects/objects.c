/* objects.c - which adapter a place is, what is a name, and whether a store keeps its promises. */
#include "objects_private.h"

#include <stdio.h>

#include "df/sha256.h"

#define CHECK_RANDOM 12 /* bytes in the name of the check's object: no two checks meet */

/* ---- names ---- */

static bool letter(char c)
{
        return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

/* Each part of text that ends with '/' or the text: not empty, not hidden, not too long. */
static bool parts_ok(const char *text, bool whole)
{
        for (const char *part = text;;) {
                size_t len = strcspn(part, "/");

                if (part[len] == '\0' && len == 0)
                        return !whole; /* a prefix may end with '/', or be empty */
                if (len == 0 || part[0] == '.' || len > DF_OBJECT_PART_MAX)
                        return false;
                if (part[len] == '\0')
                        return true;
                part += len + 1;
        }
}

static bool text_ok(const char *text, bool whole)
{
        size_t len = strnlen(text, DF_OBJECT_NAME_MAX + 1);

        if (len > DF_OBJECT_NAME_MAX || (len > 0 && !letter(text[0])))
                return false;
        for (size_t i = 0; i < len; i++)
                if (!letter(text[i]) && !strchr("._/=-", text[i]))
                        return false;
        return parts_ok(text, whole);
}

bool dfi_object_name_ok(const char *name)
{
        return text_ok(name, true);
}

static int refuse(const char *place, const char *what, const char *text, struct df_error *err)
{
        return df_fail(err, DF_EINVAL,
                       "%s: %s \"%.300s\": it is of a-z, 0-9 and ._/=-, begins with a letter or "
                       "digit, has at most %d bytes, and no part that is empty, begins with '.' "
                       "or has more than %d bytes",
                       place, what, text, DF_OBJECT_NAME_MAX, DF_OBJECT_PART_MAX);
}

int dfi_object_name(const char *place, const char *name, struct df_error *err)
{
        return text_ok(name, true) ? 0 : refuse(place, "no name of an object:", name, err);
}

int dfi_object_prefix(const char *place, const char *prefix, struct df_error *err)
{
        return text_ok(prefix, false) ? 0 : refuse(place, "no beginning of a name:", prefix, err);
}

int dfi_object_fits(const char *place, const char *name, uint64_t size, struct df_error *err)
{
        if (size <= DF_OBJECT_MAX)
                return 0;
        return df_fail(err, DF_ELIMIT, "%s: %s has %llu bytes: an object has at most %u", place,
                       name, (unsigned long long)size, DF_OBJECT_MAX);
}

int dfi_object_random(size_t count, char *ret, struct df_error *err)
{
        uint8_t bytes[32];

        df_check(count <= sizeof(bytes));
        if (df_random(bytes, count, err) != 0)
                return err ? err->code : DF_EIO;
        df_hex(bytes, count, ret);
        return 0;
}

int df_objects_open(const struct df_objects_options *options, struct df_objects **ret,
                    struct df_error *err)
{
        const char *place = options->place ? options->place : "";

        if (strncmp(place, "dir:", 4) == 0)
                return dfi_dir_open(place, place + 4, ret, err);
        if (strncmp(place, "s3:", 3) == 0)
                return dfi_s3_open(options, ret, err);
        return df_fail(err, DF_EINVAL,
                       "\"%s\" is no place for objects: write dir:/PATH or s3:BUCKET/PREFIX",
                       place);
}

/* ---- the check ---- */

struct check {
        struct df_objects *o;
        char name[64];
        struct df_object_version first, second;
};

static int broken(const struct check *k, const char *promise, const char *seen,
                  struct df_error *err)
{
        return df_fail(err, DF_ESCHEMA,
                       "the object store does not keep its promise \"%s\" (%s, with its object "
                       "%s): two writers would overwrite one another. Use a store with conditional "
                       "writes (If-None-Match and If-Match on PUT), or a directory",
                       promise, seen, k->name);
}

/* What is stored must be want, of *version. */
static int holds(const struct check *k, const char *want, struct df_object_version *version,
                 const char *promise, const char *otherwise, struct df_error *err)
{
        struct df_buf got = {0};
        struct df_object_version seen = {0};
        int rc = df_objects_get(k->o, k->name, &got, &seen, err);

        if (rc == DF_ENOENT)
                rc = broken(k, promise, "what was stored is not there", err);
        else if (rc == 0 && !df_bytes_eq(df_buf_bytes(&got), df_bytes_str(want)))
                rc = broken(k, promise, otherwise, err);
        else if (rc == 0 && seen.text[0] == '\0')
                rc = broken(k, "a version of each object", "get gave none", err);
        if (rc == 0)
                *version = seen;
        df_buf_release(&got);
        return rc;
}

/* A put that must lose: 0 when it was told so. */
static int lost(const struct check *k, int rc, const char *promise, struct df_error *err)
{
        if (rc == DF_EEXIST)
                return 0;
        return rc == 0 ? broken(k, promise, "a second put succeeded", err) : rc;
}

static int check_absent(struct check *k, struct df_error *err)
{
        static const char promise[] = "put_absent stores only where nothing is";
        int rc = df_objects_put_absent(k->o, k->name, df_bytes_str("first"), err);

        if (rc == 0)
                rc = lost(k, df_objects_put_absent(k->o, k->name, df_bytes_str("other"), err),
                          promise, err);
        return rc ? rc
                  : holds(k, "first", &k->first, promise,
                          "the loser was told, and replaced the bytes", err);
}

static int check_match(struct check *k, struct df_error *err)
{
        static const char promise[] = "put_match replaces only the version that was read";
        struct df_bytes second = df_bytes_str("second"), third = df_bytes_str("third");
        int rc = df_objects_put_match(k->o, k->name, second, &k->first, NULL, err);

        if (rc == DF_EEXIST)
                return broken(k, promise, "the version just read was refused", err);
        if (rc == 0)
                rc = holds(k, "second", &k->second, promise, "success was told, nothing changed",
                           err);
        if (rc == 0 && strcmp(k->first.text, k->second.text) == 0)
                rc = broken(k, "another version for other bytes", "it stayed the same", err);
        if (rc == 0)
                rc = lost(k, df_objects_put_match(k->o, k->name, third, &k->first, NULL, err),
                          promise, err);
        return rc ? rc
                  : holds(k, "second", &k->second, promise,
                          "the loser was told, and replaced the bytes", err);
}

int df_objects_check(struct df_objects *o, struct df_error *err)
{
        struct check k = {.o = o};
        char random[2 * CHECK_RANDOM + 1];
        struct df_error later = {0};
        int rc = dfi_object_random(CHECK_RANDOM, random, err), removed;

        if (rc != 0)
                return rc;
        (void)snprintf(k.name, sizeof(k.name), "capability/%s", random);
        rc = check_absent(&k, err);
        if (rc == 0)
                rc = check_match(&k, err);
        removed = df_objects_remove(o, k.name, &later);
        if (rc == 0 && removed != 0) {
                rc = df_fail(err, removed, "%s", later.text);
                (void)df_wrap(err, "removing what the check stored");
        }
        return rc;
}
