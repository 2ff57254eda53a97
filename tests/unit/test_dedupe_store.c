/* test_dedupe_store.c - D2, D3: what dedupe keeps in the store and in memory, and what it does when
 * that is damaged or cannot be read. */
#include "unit.h"

#include <inttypes.h>
#include <stdlib.h>

#include "operators/dedupe_private.h"
#include "runtime/core/core_private.h"
#include "tests/unit/dedupe_test.h"

static void one_hour(struct world *w, int64_t hour, uint32_t first, uint32_t count)
{
        for (uint32_t i = 0; i < count; i++) {
                struct toy e = {first + i, 0, hour * HOUR, 0};

                world_process(w, &e, 1, 1);
        }
}

/* D3: a checkpoint writes what is new, and at most one short value again. */
static void test_d3_delta(void **state)
{
        struct world w;

        (void)state;
        world_open(&w, 24, 100000);
        for (uint32_t i = 0; i < 40; i++) {
                uint32_t n = i % 2 ? 10 : 500;

                one_hour(&w, BASE_HOUR, i * 1000, n);
                w.spy.put_bytes = 0;
                world_cut(&w);
                assert_in_range(w.spy.put_bytes, n * ADI_ID_BYTES,
                                n * ADI_ID_BYTES + ADI_DELTA_KEEP + 4096);
        }
        assert_int_equal(usage_of(&w).delta_bytes, 20 * 510 * ADI_ID_BYTES);
        /* Nothing new: nothing of an id is written. */
        w.spy.put_bytes = 0;
        world_cut(&w);
        assert_in_range(w.spy.put_bytes, 0, 4096);
        world_close(&w);
}

/* Capacity: 24 bytes an id of the last H + 2 hours, few runs an hour, nothing older. */
static void test_d2_capacity(void **state)
{
        const uint32_t per_hour = 1500, horizon = 4;
        struct world w;

        (void)state;
        world_open(&w, horizon, 100);
        for (uint32_t h = 0; h < 20; h++) {
                for (uint32_t part = 0; part < 10; part++) {
                        one_hour(&w, BASE_HOUR + h, (h * 10 + part) * per_hour / 10, per_hour / 10);
                        world_cut(&w);
                }
                if (h < horizon + 2)
                        continue;
                struct usage u = usage_of(&w);

                assert_in_range(u.bytes, (horizon + 1) * per_hour * ADI_ID_BYTES,
                                (horizon + 3) * per_hour * ADI_ID_BYTES * 11 / 10);
                assert_in_range(u.runs, 1, (horizon + 3) * 2 * ADI_FAN_IN);
                assert_in_range(u.lists, horizon + 1, horizon + 3);
        }
        /* A jump beyond the horizon leaves the new hour alone. */
        one_hour(&w, BASE_HOUR + 1000, 0, 3);
        world_cut(&w);
        struct usage u = usage_of(&w);
        assert_int_equal(u.blocks + u.lists, 0);
        assert_int_equal(u.deltas, 1);
        assert_int_equal(u.bytes, 3 * ADI_ID_BYTES + 13);
        world_close(&w);
}

static void test_k14_horizon_changed(void **state)
{
        struct world w;
        struct df_error err;

        (void)state;
        world_open(&w, 24, 64);
        one_hour(&w, BASE_HOUR, 0, 3);
        world_cut(&w);
        df_task_destroy(w.task);
        w.task = NULL;
        w.params.base.horizon_hours = 25;
        assert_int_equal(world_create(&w, &err), DF_ESCHEMA);
        w.params.base.horizon_hours = 24;
        assert_int_equal(world_create(&w, &err), 0);
        world_close(&w);
}

struct nth {
        uint8_t key[64];
        size_t len, n;
        uint8_t kind;
};

static int find_nth(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct nth *f = arg;

        (void)value;
        (void)err;
        if (key.data[1] != f->kind || f->n-- > 0)
                return 0;
        memcpy(f->key, key.data, key.len);
        f->len = key.len;
        return 1;
}

/* A block or a list that is gone is an error, never a forgotten id. */
static void test_damage_is_refused(void **state)
{
        (void)state;
        for (int kind = 0; kind < 2; kind++) {
                struct nth f = {.n = kind ? 0 : 1, .kind = kind ? 'L' : 'R'};
                uint8_t ns = TOY_NS;
                struct world w;
                struct df_error err;
                int rc = 0;

                world_open(&w, 24, 64);
                one_hour(&w, BASE_HOUR, 0, 200);
                world_cut(&w);
                one_hour(&w, BASE_HOUR, 200, 100); /* the first ones are in the store alone */
                world_cut(&w);
                (void)df_store_scan(w.store, df_bytes(&ns, 1), find_nth, &f, &err);
                assert_true(f.len > 0);
                if (kind == 0) {
                        df_store_del(w.store, df_bytes(f.key, f.len));
                        assert_int_equal(df_store_commit(w.store, &err), 0);
                        for (uint32_t i = 0; rc == 0 && i < 200; i++) {
                                struct toy e = {i, 0, BASE_HOUR * HOUR, 0};

                                rc = world_try(&w, &e, 1, 1, &err);
                        }
                } else {
                        df_store_put(w.store, df_bytes(f.key, f.len), df_bytes("\0\0\0\7x", 5));
                        assert_int_equal(df_store_commit(w.store, &err), 0);
                        df_task_destroy(w.task);
                        w.task = NULL;
                        rc = world_create(&w, &err);
                }
                assert_int_equal(rc, DF_ECORRUPT);
                world_close(&w);
        }
}

/* The same for a run in files: a block that cannot be read, and one that a takeover misses. */
static void test_damage_in_files_is_refused(void **state)
{
        (void)state;
        for (int restart = 0; restart < 2; restart++) {
                struct nth f = {.n = 100, .kind = 'F'};
                uint8_t ns = TOY_NS;
                struct world w;
                struct df_error err;
                int rc = 0;

                world_open(&w, 24, 16); /* 2 ids a block: from 256 ids on in files */
                for (uint32_t at = 0; at < 1600; at += 20) {
                        one_hour(&w, BASE_HOUR, at, 20);
                        world_cut(&w);
                }
                (void)df_store_scan(w.store, df_bytes(&ns, 1), find_nth, &f, &err);
                assert_true(f.len > 0);
                df_store_del(w.store, df_bytes(f.key, f.len));
                assert_int_equal(df_store_commit(w.store, &err), 0);
                if (restart) {
                        df_task_destroy(w.task);
                        w.task = NULL;
                        rc = world_create(&w, &err);
                }
                for (uint32_t i = 0; rc == 0 && i < 1600; i++) {
                        struct toy e = {i, 0, BASE_HOUR * HOUR, 0};

                        rc = world_try(&w, &e, 1, 1, &err);
                }
                assert_int_equal(rc, DF_ECORRUPT);
                world_close(&w);
        }
}

static struct adi_dedupe *dedupe_in(const struct world *w)
{
        return (struct adi_dedupe *)w->task->ops[1];
}

/* Ids in memory that are in the store, too; *ret_runs: how many runs that are. */
static uint64_t kept_ids(const struct world *w, uint32_t *ret_runs)
{
        const struct adi_dedupe *d = dedupe_in(w);
        uint64_t ids = 0;

        *ret_runs = 0;
        for (size_t i = 0; i < d->bucket_count; i++)
                for (uint32_t j = 0; j < d->buckets[i]->run_count; j++) {
                        const struct adi_run *r = &d->buckets[i]->runs[j];

                        assert_true(r->blocks > 0);
                        ids += r->mem ? r->count : 0;
                        *ret_runs += r->mem != NULL;
                }
        return ids;
}

/* The same ids once more: each is a duplicate. *ret: reads of the store that it took. */
static void ask_again(struct world *w, int64_t hour, uint32_t first, uint32_t count, uint64_t *ret)
{
        uint64_t before = w->spy.reads;

        for (uint32_t i = 0; i < count; i++) {
                struct toy e = {first + i, 0, hour * HOUR, 0};

                world_process(w, &e, 1, 1);
                assert_int_equal(w->outcomes[w->processed - 1], AD_DUPLICATE);
        }
        *ret = w->spy.reads - before;
}

/* D3: the latest runs stay in memory, where their ids are found without the store: as many as
 * leave dedupe_open_ids in memory, those of an hour that has ended, too. */
static void test_latest_runs_in_memory(void **state)
{
        struct world w;
        uint64_t reads;
        uint32_t runs;

        (void)state;
        world_open(&w, 24, 400);
        for (uint32_t i = 0; i < 15; i++) { /* a quarter is new: each snapshot writes a run */
                one_hour(&w, BASE_HOUR + i / 8, 101 * i, 101);
                world_cut(&w);
                assert_int_equal(kept_ids(&w, &runs), 101 * (i + 1 < 3 ? i + 1 : 3));
                assert_int_equal(runs, i + 1 < 3 ? i + 1 : 3);
        }
        ask_again(&w, BASE_HOUR + 1, 101 * 12, 303, &reads);
        assert_int_equal(reads, 0);
        ask_again(&w, BASE_HOUR + 1, 0, 100, &reads);
        assert_true(reads >= 50);
        world_restart(&w);
        assert_int_equal(kept_ids(&w, &runs), 0);
        ask_again(&w, BASE_HOUR + 1, 101 * 13, 100, &reads);
        assert_true(reads >= 50);
        world_close(&w);
}

/* Of the ids that no run holds and the filter takes for some, few cost a read: 4 % of the runs
 * that it names, as dedupe_index.c says. */
static void test_false_hits_seldom_read(void **state)
{
        const uint32_t ids = 80000;
        uint64_t named = 0, reads;
        struct world w;

        (void)state;
        world_open(&w, 24, 16 * ADI_BLOCK_IDS);
        for (uint32_t at = 0; at < ids; at += 1000) {
                one_hour(&w, BASE_HOUR, at, 1000);
                world_cut(&w);
        }
        reads = w.spy.reads;
        for (uint32_t id = ids; id < ids + 2000000; id++) {
                struct adi_dedupe *d = dedupe_in(&w);
                const struct adi_bucket *b = adi_bucket_find(d, BASE_HOUR);
                struct df_hash128 key = df_hash128(df_bytes(&id, sizeof(id)));
                struct adi_seen seen = {0};
                struct adi_hits hits;
                struct df_error err;

                if (!adi_tags_test(&d->tags, key, &hits))
                        continue;
                for (uint32_t i = 0; i < b->run_count; i++)
                        named += !b->runs[i].mem &&
                                 adi_tags_may(&d->tags, &hits, BASE_HOUR, b->runs[i].first_seq,
                                              b->runs[i].last_seq);
                assert_int_equal(
                        adi_runs_seek(d, key, &hits, BASE_HOUR - 24, BASE_HOUR + 1, &seen, &err),
                        0);
                assert_false(seen.found);
        }
        reads = w.spy.reads - reads;
        assert_true(named > 200);
        if (reads * 16 > named)
                fail_msg("%" PRIu64 " reads of %" PRIu64, reads, named);
        world_close(&w);
}

/* Each read of the store may fail: the error comes out, and after a restart all is well. */
static void test_read_faults(void **state)
{
        struct world w;
        struct df_error err;

        (void)state;
        world_open(&w, 24, 16);
        one_hour(&w, BASE_HOUR, 0, 300);
        world_cut(&w);
        for (uint64_t n = 0; n < 40; n++) {
                struct toy e[40];
                int rc;

                for (uint32_t i = 0; i < 40; i++)
                        e[i] = (struct toy){(uint32_t)n * 7 + i, 0, BASE_HOUR * HOUR, 0};
                w.spy.fail_get_in = n + 1;
                rc = world_try(&w, e, 40, 3, &err);
                w.spy.fail_get_in = 0;
                if (rc < 0) {
                        assert_int_equal(rc, DF_EIO);
                        world_restart(&w);
                        world_process(&w, e, 40, 4);
                }
                for (size_t i = 0; i < 40; i++)
                        assert_int_equal(w.outcomes[w.processed - 40 + i],
                                         n * 7 + i < 300 ? AD_DUPLICATE
                                                         : w.outcomes[w.processed - 40 + i]);
                world_cut(&w); /* the next restart goes back to here */
        }
        world_close(&w);
}

static void test_limits(void **state)
{
        struct world w;
        struct df_error err;

        (void)state;
        world_open(&w, ADI_HORIZON_MAX, 4);
        df_task_destroy(w.task);
        w.task = NULL;
        w.params.base.horizon_hours = ADI_HORIZON_MAX + 1;
        assert_int_equal(world_create(&w, &err), DF_EINVAL);
        w.params.base.horizon_hours = 24;
        w.params.base.dedupe_open_ids = (size_t)ADI_OPEN_IDS_MAX + 1;
        assert_int_equal(world_create(&w, &err), DF_EINVAL);
        world_close(&w);
}

/* Blocks of the real size, several of them a run, merged. */
static void test_d2_blocks(void **state)
{
        const uint32_t limit = 16 * ADI_BLOCK_IDS, ids = 9 * limit + 5;
        struct toy *events = calloc(ids, sizeof(*events));
        struct world w;

        (void)state;
        assert_non_null(events);
        for (uint32_t i = 0; i < ids; i++)
                events[i] = (struct toy){i, 0, BASE_HOUR * HOUR, 0};
        world_open(&w, 24, limit);
        for (uint32_t at = 0; at < ids;) {
                uint32_t n = ids - at < 3000 ? ids - at : 3000;

                world_process(&w, events + at, n, 100);
                world_cut(&w);
                at += n;
        }
        for (int round = 0; round < 2; round++) {
                for (uint32_t i = 0; i < 4000; i++) /* enough to merge what was in memory */
                        events[i] = (struct toy){(i * 7919u) % ids, 0, BASE_HOUR * HOUR, 0};
                world_process(&w, events, 4000, 100);
                world_cut(&w);
                world_restart(&w);
        }
        for (size_t i = 0; i < w.processed; i++)
                assert_int_equal(w.outcomes[i], i < ids ? AD_NONE : AD_DUPLICATE);
        assert_in_range(usage_of(&w).runs, 1, 3);
        world_close(&w);
        free(events);
}

/* A crash in the middle of a merge: its blocks are in the store, no list names them, they go. */
static void test_merge_cut_short(void **state)
{
        size_t seen = 0;
        struct world w;

        (void)state;
        world_open(&w, 0, 64);
        for (uint32_t i = 0; i < 600; i++) {
                struct toy e = {i, 0, BASE_HOUR * HOUR, 0};

                world_process(&w, &e, 1, 1);
                if (i < 8 * 64)
                        continue;
                world_cut(&w);
                struct usage before = usage_of(&w);
                world_restart(&w);
                world_cut(&w);
                struct usage after = usage_of(&w);
                seen += before.blocks > before.listed_blocks;
                assert_int_equal(after.blocks, after.listed_blocks);
                assert_int_equal(before.listed_blocks, after.listed_blocks);
        }
        assert_true(seen > 10);
        world_close(&w);
}

/* The same in files: parts that had ended when the crash came. And when the hour ends in the middle
 * of the merge, its parts go with it. */
static void test_merge_in_files_cut_short(void **state)
{
        struct usage u;
        size_t seen = 0;
        struct world w;
        uint32_t at = 0;

        (void)state;
        world_open(&w, 24, 16);             /* 4,096 ids a part */
        for (; at < 8192 + 160; at += 16) { /* eight runs of 1,024 become one */
                one_hour(&w, BASE_HOUR, at, 16);
                world_cut(&w);
        }
        for (int life = 0; life < 20; life++, at += 600) {
                one_hour(&w, BASE_HOUR, at, 600);
                world_cut(&w);
                u = usage_of(&w);
                seen += u.blocks >= u.listed_blocks + ADI_PART_BLOCKS;
                if (life == 19)
                        break;
                world_restart(&w);
                world_cut(&w);
                u = usage_of(&w);
                assert_int_equal(u.blocks, u.listed_blocks);
        }
        assert_true(seen > 3 && u.blocks >= u.listed_blocks + ADI_PART_BLOCKS);
        one_hour(&w, BASE_HOUR + 100, at, 1);
        world_cut(&w);
        u = usage_of(&w);
        assert_int_equal(u.blocks, 0);
        world_close(&w);
}

/* The set may become smaller from one life to the next: what a value of the delta holds is spilled
 * in the middle of it. */
static void test_smaller_set_after_restart(void **state)
{
        struct world w;

        (void)state;
        world_open(&w, 24, 1000);
        for (uint32_t part = 0; part < 3; part++) { /* two long values, a short one */
                for (uint32_t i = 0; i < (part < 2 ? 400u : 50u); i++) {
                        struct toy e = {part * 400 + i, 0, BASE_HOUR * HOUR, 0};

                        world_process(&w, &e, 1, 1);
                }
                world_cut(&w);
        }
        w.params.base.dedupe_open_ids = 100;
        world_restart(&w);
        world_cut(&w);
        w.params.base.dedupe_open_ids = 1000;
        world_restart(&w);
        for (uint32_t i = 0; i < 850; i++) {
                struct toy e = {i, 0, BASE_HOUR * HOUR, 0};

                world_process(&w, &e, 1, 1);
                assert_int_equal(w.outcomes[850 + i], AD_DUPLICATE);
        }
        world_close(&w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_d2_blocks),
                cmocka_unit_test(test_merge_cut_short),
                cmocka_unit_test(test_merge_in_files_cut_short),
                cmocka_unit_test(test_smaller_set_after_restart),
                cmocka_unit_test(test_d3_delta),
                cmocka_unit_test(test_d2_capacity),
                cmocka_unit_test(test_k14_horizon_changed),
                cmocka_unit_test(test_damage_is_refused),
                cmocka_unit_test(test_damage_in_files_is_refused),
                cmocka_unit_test(test_latest_runs_in_memory),
                cmocka_unit_test(test_false_hits_seldom_read),
                cmocka_unit_test(test_read_faults),
                cmocka_unit_test(test_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
