/* state_test.h - what the tests of the state store share: temporary directories, seeds, and an
 * ordered map as the oracle. */
#ifndef STATE_TEST_H
#define STATE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/rocksdb.h"

#define ok(call)                                                                                   \
        do {                                                                                       \
                struct df_error err_ = {0};                                                        \
                struct df_error *err = &err_;                                                      \
                if ((call) != 0)                                                                   \
                        fail_msg("%s: %d %s", #call, err->code, err->text);                        \
        } while (0)

/* The call must fail with this code, and the text must contain `part`. */
#define refuses(want, part, call)                                                                  \
        do {                                                                                       \
                struct df_error err_ = {0};                                                        \
                struct df_error *err = &err_;                                                      \
                int r_ = (call);                                                                   \
                if (r_ != (want) || err->code != (want) || !strstr(err->text, part))               \
                        fail_msg("%s: %d (wanted %d), says: %s (wanted: %s)", #call, r_, want,     \
                                 err->text, part);                                                 \
        } while (0)

static inline char *temp_dir(char ret[256])
{
        const char *t = getenv("TMPDIR");

        (void)snprintf(ret, 256, "%s/adtally-state-XXXXXX", t ? t : "/tmp");
        assert_non_null(mkdtemp(ret));
        return ret;
}

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
        return remove(path);
}

static inline void remove_dir(const char *path)
{
        (void)nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS);
}

static inline uint64_t next_random(uint64_t *s)
{
        *s ^= *s << 13;
        *s ^= *s >> 7;
        *s ^= *s << 17;
        return *s;
}

static inline uint64_t below(uint64_t *s, uint64_t n)
{
        return (next_random(s) >> 11) % n;
}

static inline void overwrite(const char *path, const char *content, size_t len)
{
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_int_equal(fwrite(content, 1, len, f), len);
        assert_int_equal(fclose(f), 0);
}

static inline size_t slurp(const char *path, char *ret, size_t cap)
{
        FILE *f = fopen(path, "r");

        assert_non_null(f);
        size_t n = fread(ret, 1, cap, f);
        assert_int_equal(fclose(f), 0);
        return n;
}

/* ---- the oracle: a sorted array; values are made again from (seed, len) ---- */

#define MODEL_KEY_MAX 8
#define MODEL_MAX 4096

struct model_row {
        uint8_t key[MODEL_KEY_MAX];
        size_t key_len;
        uint64_t value_seed;
        size_t value_len;
};

struct model {
        struct model_row rows[MODEL_MAX];
        size_t count;
};

static inline int model_compare(const struct model_row *r, struct df_bytes key)
{
        size_t n = r->key_len < key.len ? r->key_len : key.len;
        int c = memcmp(r->key, key.data, n);

        if (c)
                return c;
        return (r->key_len > key.len) - (r->key_len < key.len);
}

static inline size_t model_lower(const struct model *m, struct df_bytes key)
{
        size_t i = 0;

        while (i < m->count && model_compare(&m->rows[i], key) < 0)
                i++;
        return i;
}

static inline struct model_row *model_find(struct model *m, struct df_bytes key)
{
        size_t i = model_lower(m, key);

        return i < m->count && model_compare(&m->rows[i], key) == 0 ? &m->rows[i] : NULL;
}

static inline void model_del_range(struct model *m, struct df_bytes from, struct df_bytes to)
{
        size_t a = model_lower(m, from), b = model_lower(m, to);

        if (a >= b)
                return;
        memmove(&m->rows[a], &m->rows[b], (m->count - b) * sizeof(m->rows[0]));
        m->count -= b - a;
}

static inline void model_put(struct model *m, struct df_bytes key, uint64_t seed, size_t len)
{
        size_t i = model_lower(m, key);

        if (i == m->count || model_compare(&m->rows[i], key) != 0) {
                assert_true(m->count < MODEL_MAX);
                memmove(&m->rows[i + 1], &m->rows[i], (m->count - i) * sizeof(m->rows[0]));
                m->count++;
                memcpy(m->rows[i].key, key.data, key.len);
                m->rows[i].key_len = key.len;
        }
        m->rows[i].value_seed = seed;
        m->rows[i].value_len = len;
}

static inline void model_del(struct model *m, struct df_bytes key)
{
        struct model_row *r = model_find(m, key);

        if (r) {
                size_t i = (size_t)(r - m->rows);
                memmove(r, r + 1, (m->count - i - 1) * sizeof(*r));
                m->count--;
        }
}

static inline void make_value(uint64_t seed, size_t len, uint8_t *ret)
{
        uint64_t s = (seed << 1) | 1;

        for (size_t i = 0; i < len; i++)
                ret[i] = (uint8_t)(next_random(&s) >> 32);
}

static inline bool value_is(struct df_bytes v, uint64_t seed, size_t len)
{
        uint64_t s = (seed << 1) | 1;

        if (v.len != len)
                return false;
        for (size_t i = 0; i < len; i++)
                if (v.data[i] != (uint8_t)(next_random(&s) >> 32))
                        return false;
        return true;
}

#endif
