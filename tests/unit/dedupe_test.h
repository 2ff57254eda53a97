/* dedupe_test.h - a task of three operators for test_dedupe.c: toy source, dedupe, sink; and a
 * store in between that counts what is written and fails reads when asked to. */
#ifndef ADTALLY_TESTS_DEDUPE_TEST_H
#define ADTALLY_TESTS_DEDUPE_TEST_H

#include <stdlib.h>

#include "df/sim.h"
#include "df/task.h"
#include "operators/ops.h"

#define HOUR 3600000ll
#define BASE_HOUR 480000ll /* 2024 */
#define TOY_NS 17          /* dedupe is the second of the chain */
#define TOY_EVENTS_MAX 90000

struct random { /* splitmix64 */
        uint64_t x;
};

static inline uint64_t random_next(struct random *r)
{
        uint64_t z = r->x += 0x9e3779b97f4a7c15u;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}

static inline uint64_t random_below(struct random *r, uint64_t n)
{
        return random_next(r) % n;
}

enum { TOY_RESET = 1, TOY_ENDED = 2 };
struct toy { /* an entry of a toy record */
        uint32_t id, fingerprint;
        int64_t receive_ms;
        uint32_t flags;
};

struct spy { /* a store before the store */
        struct df_store base;
        struct df_store *under;
        size_t put_bytes;
        uint64_t fail_get_in; /* 0 = never */
        uint64_t reads;       /* of values and blocks, but for those of whole runs */
};

struct world;
struct toy_params {
        struct ad_params base;
        struct world *world;
};

struct world {
        struct toy_params params;
        struct df_task *task;
        struct df_store *store; /* spy.base */
        struct spy spy;
        size_t processed; /* events; also the place in the log */
        size_t sunk;      /* place of the next event that reaches the sink */
        size_t cut_at;    /* processed at the last cut */
        uint64_t records, cut_records;
        uint32_t outcomes[TOY_EVENTS_MAX];
        bool known[TOY_EVENTS_MAX];
};

static inline struct spy *spy_of(struct df_store *s)
{
        return (struct spy *)s;
}
static inline int spy_get(struct df_store *s, struct df_bytes key, struct df_bytes *ret,
                          bool *ret_found, struct df_error *err)
{
        struct spy *y = spy_of(s);

        y->reads++;
        if (y->fail_get_in > 0 && --y->fail_get_in == 0)
                return df_fail(err, DF_EIO, "this read fails");
        return df_store_get(y->under, key, ret, ret_found, err);
}
static inline int spy_scan(struct df_store *s, struct df_bytes prefix,
                           int (*fn)(void *, struct df_bytes, struct df_bytes, struct df_error *),
                           void *arg, struct df_error *err)
{
        return df_store_scan(spy_of(s)->under, prefix, fn, arg, err);
}
static inline void spy_put(struct df_store *s, struct df_bytes key, struct df_bytes value)
{
        if (key.data[0] == TOY_NS)
                spy_of(s)->put_bytes += value.len;
        df_store_put(spy_of(s)->under, key, value);
}
static inline void spy_del(struct df_store *s, struct df_bytes key)
{
        df_store_del(spy_of(s)->under, key);
}
static inline void spy_del_range(struct df_store *s, struct df_bytes from, struct df_bytes to)
{
        df_store_del_range(spy_of(s)->under, from, to);
}
static inline int spy_commit(struct df_store *s, struct df_error *err)
{
        return df_store_commit(spy_of(s)->under, err);
}
static inline void spy_rollback(struct df_store *s)
{
        df_store_rollback(spy_of(s)->under);
}
static inline void spy_run_append(struct df_store *s, struct df_bytes key, struct df_bytes block)
{
        spy_of(s)->put_bytes += block.len;
        df_store_run_append(spy_of(s)->under, key, block);
}
static inline void spy_run_end(struct df_store *s, struct df_bytes key)
{
        df_store_run_end(spy_of(s)->under, key);
}
static inline int spy_run_read(struct df_store *s, struct df_bytes key, uint32_t number,
                               struct df_bytes *ret, bool *ret_found, struct df_error *err)
{
        struct spy *y = spy_of(s);

        y->reads++;
        if (y->fail_get_in > 0 && --y->fail_get_in == 0)
                return df_fail(err, DF_EIO, "this read fails");
        return df_store_run_read(y->under, key, number, ret, ret_found, err);
}
static inline int spy_run_next(struct df_store *s, struct df_bytes key, uint32_t number,
                               struct df_bytes *ret, bool *ret_found, struct df_error *err)
{
        struct spy *y = spy_of(s);

        if (y->fail_get_in > 0 && --y->fail_get_in == 0)
                return df_fail(err, DF_EIO, "this read fails");
        return df_store_run_next(y->under, key, number, ret, ret_found, err);
}
static inline void spy_run_del(struct df_store *s, struct df_bytes key)
{
        df_store_run_del(spy_of(s)->under, key);
}
static inline int spy_run_scan(struct df_store *s, struct df_bytes prefix,
                               int (*fn)(void *, struct df_bytes, struct df_error *), void *arg,
                               struct df_error *err)
{
        return df_store_run_scan(spy_of(s)->under, prefix, fn, arg, err);
}
static const struct df_store_ops spy_ops = {
        .get = spy_get,
        .scan = spy_scan,
        .put = spy_put,
        .del = spy_del,
        .del_range = spy_del_range,
        .commit = spy_commit,
        .rollback = spy_rollback,
        .run_append = spy_run_append,
        .run_end = spy_run_end,
        .run_read = spy_run_read,
        .run_next = spy_run_next,
        .run_del = spy_run_del,
        .run_scan = spy_run_scan,
};

static inline int toy_open(struct df_operator *op, struct df_error *err)
{
        (void)op;
        (void)err;
        return 0;
}
static inline void toy_close(struct df_operator *op)
{
        (void)op;
}

static inline int source_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                                 struct df_error *err)
{
        const struct df_record *records = batch->items;
        struct df_batch b = {.kind = AD_KIND_EVENTS};
        struct ad_event *events;

        for (size_t i = 0; i < batch->count; i++)
                b.count += records[i].value.len / sizeof(struct toy);
        events = b.items = df_arena_zalloc(op->ctx.arena, (b.count + 1) * sizeof(*events));
        for (size_t i = 0, n = 0; i < batch->count; i++)
                for (size_t j = 0; j < records[i].value.len; j += sizeof(struct toy), n++) {
                        struct ad_event *ev = &events[n];
                        struct toy e;

                        memcpy(&e, records[i].value.data + j, sizeof(e));
                        ev->tenant_id = df_bytes_str("t");
                        ev->event_id = df_bytes_str("e");
                        ev->offset = records[i].offset;
                        ev->index = (uint32_t)(j / sizeof(e));
                        ev->key = df_hash128(df_bytes(&e.id, sizeof(e.id)));
                        ev->fingerprint = e.fingerprint;
                        ev->receive_ms = e.receive_ms;
                        if (e.flags & TOY_RESET) {
                                ev->flags = AD_EV_MARK | AD_EV_CLOCK_RESET;
                                ev->outcome = AD_SKIP;
                        }
                        if (e.flags & TOY_ENDED)
                                ev->outcome = AD_INVALID;
                }
        return df_out_forward(out, &b, err);
}

static inline int sink_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                               struct df_error *err)
{
        struct world *w = ((const struct toy_params *)op->ctx.params)->world;
        const struct ad_event *events = batch->items;

        for (size_t i = 0; i < batch->count; i++) {
                size_t at = w->sunk++;

                assert_true(at < TOY_EVENTS_MAX);
                if (w->known[at] && w->outcomes[at] != events[i].outcome)
                        fail_msg("event %zu ended as %u, after a restart as %u", at,
                                 w->outcomes[at], events[i].outcome);
                w->known[at] = true;
                w->outcomes[at] = events[i].outcome;
        }
        return df_out_forward(out, batch, err);
}

static const struct df_operator_ops toy_source = {
        .name = "toysource",
        .state_version = 1,
        .size = sizeof(struct df_operator),
        .open = toy_open,
        .process = source_process,
        .close = toy_close,
};
static const struct df_operator_ops toy_sink = {
        .name = "toysink",
        .state_version = 1,
        .size = sizeof(struct df_operator),
        .open = toy_open,
        .process = sink_process,
        .close = toy_close,
};
static const struct df_operator_ops *const toy_chain[] = {&toy_source, &ad_op_dedupe, &toy_sink};

static inline int world_create(struct world *w, struct df_error *err)
{
        struct df_task_config c = {
                .source = {.stream = "toys", .generation = 1},
                .partitions = 1,
                .chain = toy_chain,
                .chain_length = 3,
                .params = &w->params,
                .outputs = {{.topic = "late", .partitions = 1},
                            {.topic = "quarantine", .partitions = 1},
                            {.topic = "rollups", .partitions = 1}},
                .output_count = AD_OUT_COUNT,
                .binary_version = "test",
        };

        return df_task_create(&c, w->store, &w->task, err);
}

static inline void world_open(struct world *w, uint32_t horizon, size_t limit)
{
        struct df_error err = {0};

        memset(w, 0, sizeof(*w));
        w->params = (struct toy_params){
                .base = {.horizon_hours = horizon, .dedupe_open_ids = limit}, .world = w};
        w->spy = (struct spy){.base = {.ops = &spy_ops}, .under = df_sim_store_create(NULL)};
        w->store = &w->spy.base;
        if (world_create(w, &err) < 0)
                fail_msg("%s", err.text);
}

/* count events in records of per_record, all in one call. */
static inline int world_try(struct world *w, const struct toy *events, size_t count,
                            size_t per_record, struct df_error *err)
{
        size_t n = (count + per_record - 1) / per_record, used = 0;
        struct df_record *records = calloc(n, sizeof(*records));
        int rc;

        assert_non_null(records);
        for (size_t i = 0; i < n; i++) {
                size_t left = count - i * per_record;

                records[i].offset = w->records + i;
                records[i].value =
                        df_bytes(events + i * per_record,
                                 (left < per_record ? left : per_record) * sizeof(*events));
        }
        w->sunk = w->processed;
        rc = df_task_process(w->task, records, n, &used, err);
        free(records);
        if (rc < 0)
                return rc;
        assert_int_equal(used, n);
        w->processed += count;
        w->records += n;
        assert_int_equal(w->sunk, w->processed);
        return 0;
}

static inline void world_process(struct world *w, const struct toy *events, size_t count,
                                 size_t per_record)
{
        struct df_error err = {0};

        if (world_try(w, events, count, per_record, &err) < 0)
                fail_msg("%s", err.text);
}

static inline void world_cut(struct world *w)
{
        struct df_error err = {0};

        if (df_task_cut(w->task, &err) < 0)
                fail_msg("%s", err.text);
        df_task_committed(w->task);
        w->cut_at = w->processed;
        w->cut_records = w->records;
}

/* The process ends without warning; another takes over from the last cut. */
static inline void world_restart(struct world *w)
{
        struct df_error err = {0};

        df_task_destroy(w->task);
        df_store_rollback(w->store);
        w->task = NULL;
        w->processed = w->cut_at;
        w->records = w->cut_records;
        if (world_create(w, &err) < 0)
                fail_msg("%s", err.text);
        df_task_committed(w->task); /* all of it was published */
}

static inline void world_close(struct world *w)
{
        df_task_destroy(w->task);
        df_sim_store_destroy(w->spy.under);
}

/* What dedupe holds in the store. */
struct usage {
        size_t keys, bytes, blocks, lists, deltas, delta_bytes;
        size_t runs, listed_blocks; /* by the lists */
};

static inline int count_key(void *arg, struct df_bytes key, struct df_bytes value,
                            struct df_error *err)
{
        struct usage *u = arg;

        (void)err;
        u->keys++;
        u->bytes += value.len;
        u->blocks += key.data[1] == 'R' || key.data[1] == 'F';
        u->deltas += key.data[1] == 'D';
        u->lists += key.data[1] == 'L';
        u->delta_bytes += key.data[1] == 'D' ? value.len : 0;
        for (size_t at = 4; key.data[1] == 'L' && at < value.len; at += 24) {
                struct df_reader r = df_reader(df_bytes(value.data + at + 12, 4));

                u->runs++;
                u->listed_blocks += df_get_u32be(&r);
        }
        return 0;
}

static inline struct usage usage_of(struct world *w)
{
        struct usage u = {0};
        uint8_t ns = TOY_NS;
        struct df_error err;

        assert_int_equal(df_store_scan(w->store, df_bytes(&ns, 1), count_key, &u, &err), 0);
        return u;
}

#endif
