/* dedupe_knowledge.h - what the state of dedupe says, wherever its entries lie: delta, or runs of
 * ids at any level (operators/dedupe_private.h). */
#ifndef DEDUPE_KNOWLEDGE_H
#define DEDUPE_KNOWLEDGE_H

#include "tests/unit/operators_test.h"

#define DEDUPE_NS 18 /* of dedupe, third of the chain */

/* ---- what dedupe knows: a map (hour, id) -> fingerprint, wherever its entries lie ---- */

struct known {
        uint64_t hour, layer; /* a later layer is newer: runs by their last spill, then the delta */
        uint8_t id[16], fingerprint[8];
};
struct knowledge {
        struct known *v;
        size_t count, cap;
        struct df_buf header;
        struct df_buf runs; /* listed: hour, last spill, level; as they stand in a block's key */
};

static inline bool is_listed(const struct knowledge *k, struct df_bytes run)
{
        for (size_t at = 0; at < k->runs.len; at += run.len)
                if (memcmp(k->runs.data + at, run.data, run.len) == 0)
                        return true;
        return false;
}

static inline void add_known(struct knowledge *k, uint64_t hour, uint64_t layer,
                             struct df_bytes ids)
{
        assert_int_equal(ids.len % 24, 0);
        for (size_t at = 0; at < ids.len; at += 24) {
                struct known *to;

                if (k->count == k->cap) {
                        k->cap = k->cap ? 2 * k->cap : 1024;
                        k->v = realloc(k->v, k->cap * sizeof(*k->v));
                        assert_non_null(k->v);
                }
                to = &k->v[k->count++];
                to->hour = hour;
                to->layer = layer + at; /* of a delta the later entry wins */
                memcpy(to->id, ids.data + at, 16);
                memcpy(to->fingerprint, ids.data + at + 16, 8);
        }
}

static inline int know_one(void *arg, struct df_bytes key, struct df_bytes value,
                           struct df_error *err)
{
        struct df_reader r = df_reader(df_bytes(key.data + 2, key.len - 2)), v = df_reader(value);
        struct knowledge *k = arg;
        uint64_t hour, seq;

        (void)err;
        if (key.data[1] == 'H') {
                df_buf_append(&k->header, value.data, value.len);
                return 0;
        }
        hour = df_get_u64be(&r);
        if (key.data[1] == 'L') {
                (void)df_get_u32be(&v); /* the next spill */
                while (df_reader_left(&v) > 0) {
                        (void)df_get_u32be(&v); /* its first spill */
                        df_put_u64be(&k->runs, hour);
                        df_put_u32be(&k->runs, df_get_u32be(&v));
                        df_put_u8(&k->runs, (uint8_t)df_get_u32be(&v));
                        (void)df_get_bytes(&v, 4 + 8); /* blocks, ids */
                        assert_false(v.bad);
                }
                return 0;
        }
        seq = df_get_u32be(&r);
        if (key.data[1] == 'D')
                add_known(k, hour, (1ull << 63) + (seq << 24), value);
        else if (is_listed(k, df_bytes(key.data + 2, 8 + 4 + 1)))
                add_known(k, hour, seq << 24, value);
        return 0;
}

static inline int by_place(const void *a, const void *b)
{
        const struct known *x = a, *y = b;
        int c = memcmp(x->id, y->id, sizeof(x->id));

        if (x->hour != y->hour)
                return x->hour < y->hour ? -1 : 1;
        return c ? c : (x->layer > y->layer) - (x->layer < y->layer);
}

static inline struct knowledge knowledge_of(struct rig *r)
{
        struct knowledge k = {0};
        struct df_error err = {0};
        size_t kept = 0;

        for (const char *kind = "HLRFD"; *kind; kind++) { /* F: as the simulated store keeps runs */
                uint8_t prefix[2] = {DEDUPE_NS, (uint8_t)*kind};

                assert_int_equal(df_store_scan(r->store, df_bytes(prefix, 2), know_one, &k, &err),
                                 0);
        }
        if (k.count > 0)
                qsort(k.v, k.count, sizeof(*k.v), by_place);
        for (size_t i = 0; i < k.count; i++) {
                if (i + 1 < k.count && k.v[i].hour == k.v[i + 1].hour &&
                    memcmp(k.v[i].id, k.v[i + 1].id, sizeof(k.v[i].id)) == 0)
                        continue;
                k.v[kept] = k.v[i];
                k.v[kept++].layer = 0;
        }
        k.count = kept;
        return k;
}

#endif
