/* objects_test.h - shared by the tests of runtime/objects: a fresh store of either adapter, and
 * what calls must do. S3: TEST_S3=URL of tests/objects/s3.py, whose bucket and key these are. */
#ifndef OBJECTS_TEST_H
#define OBJECTS_TEST_H

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runtime/objects/objects_private.h"

#include "dice.h"

#define SKIPPED 77
#define S3_BUCKET "adtally-test"
#define S3_REGION "eu-test-1"
#define S3_KEY "adtally-test-key"
#define S3_SECRET "adtally-test-secret"

static char test_root[64]; /* of directories; removed at the end */

/* ---- stores ---- */

static inline void make_test_root(void)
{
        (void)snprintf(test_root, sizeof(test_root), "/tmp/adtally-objects-XXXXXX");
        assert_non_null(mkdtemp(test_root));
}

static inline void remove_test_root(void)
{
        char command[128];

        (void)snprintf(command, sizeof(command), "rm -rf '%s'", test_root);
        assert_int_equal(system(command), 0);
}

/* A path that no other store of this run has. */
static inline void fresh_place(bool s3, const char *more, char *ret, size_t size)
{
        static int n;

        if (s3)
                (void)snprintf(ret, size, "s3:%s/t%d-%" PRIu64 "-%d%s", S3_BUCKET, (int)getpid(),
                               dice_seed, n++, more);
        else
                (void)snprintf(ret, size, "dir:%s/store%d", test_root, n++);
}

static inline struct df_objects_options options_of(const char *place)
{
        return (struct df_objects_options){.place = place,
                                           .s3_endpoint = getenv("TEST_S3"),
                                           .s3_region = S3_REGION,
                                           .s3_access_key = S3_KEY,
                                           .s3_secret_key = S3_SECRET,
                                           .s3_key_source = "the test"};
}

static inline struct df_objects *open_place(const char *place)
{
        struct df_objects_options o = options_of(place);
        struct df_objects *store = NULL;

        ok(df_objects_open(&o, &store, &err));
        if (strncmp(place, "s3:", 3) == 0)
                ((struct dfi_s3 *)(void *)store)->backoff_ms = 1;
        return store;
}

/* ---- what is stored ---- */

#define put_text(store, name, text) ok(df_objects_put_absent(store, name, df_bytes_str(text), &err))

static inline void must_hold(struct df_objects *store, const char *name, struct df_bytes want,
                             struct df_object_version *version)
{
        struct df_buf got = {0};

        df_buf_append(&got, "before", 6); /* get appends */
        ok(df_objects_get(store, name, &got, version, &err));
        if (got.len != want.len + 6 || memcmp(got.data, "before", 6) != 0 ||
            (want.len > 0 && memcmp(got.data + 6, want.data, want.len) != 0))
                fail_msg("seed %" PRIu64 ": %s holds %zu bytes \"%.*s\", wanted %zu", dice_seed,
                         name, got.len - 6, (int)(got.len - 6 < 60 ? got.len - 6 : 60),
                         (const char *)got.data + 6, want.len);
        df_buf_release(&got);
}

#define holds_text(store, name, text) must_hold(store, name, df_bytes_str(text), NULL)

struct listed {
        char text[4096]; /* "name:size name:size " */
        int stop_after;  /* entries; 0: never */
        int count;
};

static inline int note_name(void *arg, const char *name, uint64_t size)
{
        struct listed *l = arg;
        size_t used = strlen(l->text);

        (void)snprintf(l->text + used, sizeof(l->text) - used, "%s:%" PRIu64 " ", name, size);
        l->count++;
        return l->stop_after > 0 && l->count == l->stop_after ? 4711 : 0;
}

static inline void must_list(struct df_objects *store, const char *prefix, const char *want)
{
        struct listed l = {0};

        ok(df_objects_list(store, prefix, note_name, &l, &err));
        if (strcmp(l.text, want) != 0)
                fail_msg("seed %" PRIu64 ": list of \"%s\": \"%s\", wanted \"%s\"", dice_seed,
                         prefix, l.text, want);
}

#endif
