/* test_rocksdb.c - the state store port against an ordered map (K1). */
#include "state_test.h"

#include <inttypes.h>

#include "runtime/rocksdb/rocksdb_private.h"

static const struct df_rocksdb_options small = {.write_buffer_bytes = 64 << 10,
                                                .block_cache_bytes = 1 << 20};

static void assert_same(struct df_store *s, struct model *m, uint64_t seed);

/* ---- the law: whatever a batch does, reads see the last committed state in key order ---- */

struct law {
        struct df_store *store;
        struct model committed, open, published;
        uint64_t seed, random;
};

static struct df_bytes random_key(struct law *l, uint8_t ret[MODEL_KEY_MAX])
{
        /* Few letters, so that keys meet; with the bytes that break careless bounds. */
        static const uint8_t letters[] = {0x00, 0x01, 'a', 'b', 0xfe, 0xff};
        size_t len = 1 + below(&l->random, 4);

        for (size_t i = 0; i < len; i++)
                ret[i] = letters[below(&l->random, sizeof(letters))];
        return df_bytes(ret, len);
}

static void random_write(struct law *l)
{
        uint8_t a[MODEL_KEY_MAX], b[MODEL_KEY_MAX], value[3000];
        struct df_bytes key = random_key(l, a), to;

        switch (below(&l->random, 8)) {
        case 0:
                df_store_del(l->store, key);
                model_del(&l->open, key);
                break;
        case 1:
                if (below(&l->random, 3))
                        return;
                to = random_key(l, b);
                df_store_del_range(l->store, key, to);
                model_del_range(&l->open, key, to);
                break;
        default: {
                uint64_t seed = next_random(&l->random);
                size_t len = below(&l->random, 4) ? below(&l->random, 40)
                                                  : below(&l->random, sizeof(value));
                make_value(seed, len, value);
                df_store_put(l->store, key, df_bytes(value, len));
                model_put(&l->open, key, seed, len);
        }
        }
}

struct compare {
        struct model *m;
        size_t at, end;
        uint64_t seed;
};

static int compare_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct compare *c = arg;

        if (c->at >= c->end || model_compare(&c->m->rows[c->at], key) != 0 ||
            !value_is(value, c->m->rows[c->at].value_seed, c->m->rows[c->at].value_len))
                fail_msg("seed %llu: row %zu of %zu differs", (unsigned long long)c->seed, c->at,
                         c->end);
        c->at++;
        return 0;
}

static void assert_prefix(struct df_store *s, struct model *m, struct df_bytes prefix,
                          uint64_t seed)
{
        struct compare c = {.m = m, .at = model_lower(m, prefix), .seed = seed};

        for (c.end = c.at; c.end < m->count && m->rows[c.end].key_len >= prefix.len &&
                           memcmp(m->rows[c.end].key, prefix.data, prefix.len) == 0;)
                c.end++;
        ok(df_store_scan(s, prefix, compare_row, &c, err));
        if (c.at != c.end)
                fail_msg("seed %llu: a scan ended early", (unsigned long long)seed);
}

static void assert_same(struct df_store *s, struct model *m, uint64_t seed)
{
        struct compare c = {.m = m, .end = m->count, .seed = seed};

        ok(df_store_scan(s, df_bytes(NULL, 0), compare_row, &c, err));
        if (c.at != c.end)
                fail_msg("seed %llu: %zu of %zu rows", (unsigned long long)seed, c.at, c.end);
}

static void random_reads(struct law *l)
{
        uint8_t buf[MODEL_KEY_MAX];

        for (int i = 0; i < 20; i++) {
                struct df_bytes key = random_key(l, buf), value;
                struct model_row *row = model_find(&l->committed, key);
                bool found = !row;
                ok(df_store_get(l->store, key, &value, &found, err));
                if (found != (row != NULL) ||
                    (row && !value_is(value, row->value_seed, row->value_len)))
                        fail_msg("seed %llu: a get differs", (unsigned long long)l->seed);
                key.len = 1 + below(&l->random, key.len);
                assert_prefix(l->store, &l->committed, key, l->seed);
        }
}

static void run_law(uint64_t seed)
{
        struct law *l = calloc(1, sizeof(*l));
        struct df_ckpt *c;
        struct df_takeover t;
        char dir[256];
        uint64_t k = 0;

        assert_non_null(l);
        l->seed = seed;
        l->random = seed * 0x9e3779b97f4a7c15ull;
        ok(df_rocksdb_ckpt_open(temp_dir(dir), &small, &c, err));
        ok(df_ckpt_takeover(c, &t, err));
        assert_true(t.fresh);
        l->store = t.store;
        for (int round = 0; round < 120; round++) {
                uint64_t writes = below(&l->random, 60);
                for (uint64_t i = 0; i < writes; i++)
                        random_write(l);
                random_reads(l); /* the open batch is not seen */
                if (below(&l->random, 6) == 0) {
                        df_store_rollback(l->store);
                        l->open = l->committed;
                } else {
                        ok(df_store_commit(l->store, err));
                        l->committed = l->open;
                }
                random_reads(l);
                if (below(&l->random, 8) == 0)
                        assert_same(l->store, &l->committed, seed);
                if (below(&l->random, 5) == 0) {
                        k++;
                        ok(df_ckpt_persist(c, k, df_bytes_str("x"), err));
                        ok(df_ckpt_publish(c, k, err));
                        ok(df_ckpt_retire(c, err));
                        l->published = l->committed;
                }
                if (below(&l->random, 12) == 0) {
                        df_ckpt_drop_live(c);
                        ok(df_ckpt_takeover(c, &t, err));
                        assert_int_equal(t.k, k);
                        l->store = t.store;
                        l->committed = l->open = l->published;
                        assert_same(l->store, &l->committed, seed);
                }
        }
        assert_same(l->store, &l->committed, seed);
        df_ckpt_close(c);
        remove_dir(dir);
        free(l);
}

static void test_law_k1(void **state)
{
        for (uint64_t seed = 1; seed <= 6; seed++)
                run_law(seed);
}

/* ---- limits ---- */

static void test_limits(void **state)
{
        static uint8_t key[DF_STORE_KEY_MAX + 1];
        uint8_t *big = malloc(DF_STORE_VALUE_MAX + 1);
        struct df_ckpt *c;
        struct df_takeover t;
        struct df_bytes v;
        bool found;
        char dir[256];

        assert_non_null(big);
        ok(df_rocksdb_ckpt_open(temp_dir(dir), NULL, &c, err));
        ok(df_ckpt_takeover(c, &t, err));
        make_value(7, DF_STORE_VALUE_MAX, big);
        memset(key, 0xff, sizeof(key));
        df_store_put(t.store, df_bytes(key, DF_STORE_KEY_MAX), df_bytes(big, DF_STORE_VALUE_MAX));
        df_store_put(t.store, df_bytes_str("e"), df_bytes(NULL, 0));
        ok(df_store_commit(t.store, err));
        ok(df_ckpt_persist(c, 1, df_bytes(NULL, 0), err));
        ok(df_ckpt_publish(c, 1, err));
        df_ckpt_drop_live(c);
        ok(df_ckpt_takeover(c, &t, err));
        ok(df_store_get(t.store, df_bytes(key, DF_STORE_KEY_MAX), &v, &found, err));
        assert_true(found && value_is(v, 7, DF_STORE_VALUE_MAX));
        ok(df_store_get(t.store, df_bytes_str("e"), &v, &found, err));
        assert_true(found && v.len == 0);

        /* One beyond each: nothing of the batch is written, and the store goes on. */
        for (int i = 0; i < 3; i++) {
                df_store_put(t.store, df_bytes_str("good"), df_bytes_str("1"));
                if (i == 0)
                        df_store_put(t.store, df_bytes(key, sizeof(key)), df_bytes_str("v"));
                else if (i == 1)
                        df_store_put(t.store, df_bytes_str("k"),
                                     df_bytes(big, DF_STORE_VALUE_MAX + 1));
                else
                        df_store_put(t.store, df_bytes(key, 0), df_bytes_str("v"));
                refuses(DF_ELIMIT, "nothing was written", df_store_commit(t.store, err));
                ok(df_store_get(t.store, df_bytes_str("good"), &v, &found, err));
                assert_false(found);
        }
        df_store_put(t.store, df_bytes_str("good"), df_bytes_str("1"));
        ok(df_store_commit(t.store, err));
        ok(df_store_get(t.store, df_bytes_str("good"), &v, &found, err));
        assert_true(found);
        df_ckpt_close(c);
        remove_dir(dir);
        free(big);
}

static int stop_at_two(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        int *n = arg;

        return ++*n == 2 ? 1 : 0;
}

static int fail_here(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct df_store *s = arg;

        df_store_put(s, df_bytes_str("from-scan"), value); /* allowed: into the batch */
        return df_fail(err, DF_EPARSE, "my own trouble");
}

/* A scan can be stopped, can fail for the caller's reason without harm, and may write. */
static void test_scan_callback(void **state)
{
        struct df_ckpt *c;
        struct df_takeover t;
        struct df_bytes v;
        bool found;
        char dir[256];
        int n = 0;

        ok(df_rocksdb_ckpt_open(temp_dir(dir), &small, &c, err));
        ok(df_ckpt_takeover(c, &t, err));
        df_store_put(t.store, df_bytes_str("a1"), df_bytes_str("x"));
        df_store_put(t.store, df_bytes_str("a2"), df_bytes_str("x"));
        df_store_put(t.store, df_bytes_str("a3"), df_bytes_str("x"));
        ok(df_store_commit(t.store, err));
        ok(df_store_scan(t.store, df_bytes_str("a"), stop_at_two, &n, err));
        assert_int_equal(n, 2);
        refuses(DF_EPARSE, "my own trouble",
                df_store_scan(t.store, df_bytes_str("a"), fail_here, t.store, err));
        ok(df_store_commit(t.store, err));
        ok(df_store_get(t.store, df_bytes_str("from-scan"), &v, &found, err));
        assert_true(found);
        df_ckpt_close(c);
        remove_dir(dir);
}

/* ---- expiry gives disk back ---- */

static uint64_t bytes_total;
static ino_t seen[4096];
static size_t seen_count;

static int add_size(const char *path, const struct stat *st, int flag, struct FTW *f)
{
        if (flag != FTW_F || !strstr(path, ".sst"))
                return 0;
        for (size_t i = 0; i < seen_count; i++)
                if (seen[i] == st->st_ino)
                        return 0;
        assert_true(seen_count < 4096);
        seen[seen_count++] = st->st_ino;
        bytes_total += (uint64_t)st->st_size;
        return 0;
}

static uint64_t sst_bytes(const char *dir)
{
        bytes_total = 0;
        seen_count = 0;
        (void)nftw(dir, add_size, 32, FTW_PHYS);
        return bytes_total;
}

static void fill_bucket(struct df_store *s, uint8_t bucket)
{
        uint8_t key[3] = {bucket}, value[4000];

        for (int i = 0; i < 500; i++) {
                key[1] = (uint8_t)(i / 256);
                key[2] = (uint8_t)i;
                make_value((uint64_t)(bucket * 1000 + i), sizeof(value), value);
                df_store_put(s, df_bytes(key, 3), df_bytes(value, sizeof(value)));
        }
        ok(df_store_commit(s, err));
}

static void test_expiry_frees_disk(void **state)
{
        struct df_ckpt *c;
        struct df_takeover t;
        struct df_bytes v;
        bool found;
        char dir[256];
        uint64_t k = 0;

        ok(df_rocksdb_ckpt_open(temp_dir(dir), &small, &c, err));
        ok(df_ckpt_takeover(c, &t, err));
        for (uint8_t b = 1; b <= 8; b++) {
                fill_bucket(t.store, b);
                k++;
                ok(df_ckpt_persist(c, k, df_bytes(NULL, 0), err));
                ok(df_ckpt_publish(c, k, err));
                ok(df_ckpt_retire(c, err));
        }
        uint64_t full = sst_bytes(dir);
        assert_true(full > 12u << 20);
        /* Buckets 1 to 7 expire; a row that the same batch writes into the range stays. */
        df_store_del_range(t.store, df_bytes("\x01", 1), df_bytes("\x08", 1));
        df_store_put(t.store, df_bytes("\x03zz", 3), df_bytes_str("new"));
        ok(df_store_commit(t.store, err));
        for (int i = 0; i < 400 && sst_bytes(dir) > full / 3; i++) {
                df_store_put(t.store, df_bytes("\x09", 1), df_bytes(&i, sizeof(i)));
                ok(df_store_commit(t.store, err));
                k++;
                ok(df_ckpt_persist(c, k, df_bytes(NULL, 0), err));
                ok(df_ckpt_publish(c, k, err));
                ok(df_ckpt_retire(c, err));
                (void)usleep(20000); /* compaction is another thread */
        }
        assert_true(sst_bytes(dir) <= full / 3);
        ok(df_store_get(t.store, df_bytes("\x03zz", 3), &v, &found, err));
        assert_true(found);
        ok(df_store_get(t.store, df_bytes("\x03\x00\x07", 3), &v, &found, err));
        assert_false(found);
        ok(df_store_get(t.store, df_bytes("\x08\x00\x00", 3), &v, &found, err));
        assert_true(found && value_is(v, 8000, 4000));
        df_ckpt_close(c);
        remove_dir(dir);
}

/* D2: compaction is asked for at once, and ever more rarely while it gives nothing back; never when
 * there is little to give. */
static void test_hints_that_are_of_no_use_become_rare(void **state)
{
        const uint64_t live = 64u << 20, enough = live / DFI_HIDDEN_SHARE;
        struct dfi_hint h = {0};
        int asked = 0;

        for (int i = 0; i < 1000; i++)
                assert_false(dfi_hint_due(&h, enough - 1, live));
        assert_false(dfi_hint_due(&h, DFI_HIDDEN_MIN - 1, DFI_HIDDEN_MIN));
        assert_true(dfi_hint_due(&h, enough, live));
        for (int i = 0; i < 10; i++)
                asked += dfi_hint_due(&h, enough + (uint64_t)i, live);
        assert_int_equal(asked, 3); /* a level a time: 2, 5 and 10 persists later */
        for (int i = 0; i < 100000; i++)
                asked += dfi_hint_due(&h, live, live);
        assert_in_range(asked, 100000 / (DFI_HINT_PAUSE_MAX + 1), 100000 / DFI_HINT_PAUSE_MAX + 10);
        assert_false(dfi_hint_due(&h, enough - 1, live)); /* it was given back: as at first */
        assert_true(dfi_hint_due(&h, enough, live));
}

/* D2: what is deleted stays noted until it is given back, in however many ranges it came. The
 * oracle marks each key of one byte. */
#define MARKS 201 /* the last is never set */

static void assert_noted(struct df_store *s, const bool *marks, uint64_t seed)
{
        const struct dfi_ranges *noted = &((struct dfi_store *)s)->hint_ranges;
        size_t runs = 0;

        for (int i = 0; i < MARKS; i++)
                runs += marks[i] && (i == 0 || !marks[i - 1]);
        if (noted->count != runs)
                fail_msg("seed %" PRIu64 ": %zu ranges are noted, %zu are deleted", seed,
                         noted->count, runs);
        for (size_t r = 0; r < noted->count; r++) {
                unsigned from = noted->v[r].from.data[0], to = noted->v[r].to.data[0];

                if (from >= to || (from > 0 && marks[from - 1]) || marks[to] ||
                    memchr(marks + from, 0, to - from))
                        fail_msg("seed %" PRIu64 ": [%u, %u) is noted", seed, from, to);
        }
}

static void test_deleted_ranges_are_noted_whole(void **state)
{
        for (uint64_t seed = 41; seed < 44; seed++) {
                uint64_t random = seed;
                bool marks[MARKS] = {false};
                struct df_ckpt *c;
                struct df_takeover t;
                char dir[256];

                ok(df_rocksdb_ckpt_open(temp_dir(dir), &small, &c, err));
                ok(df_ckpt_takeover(c, &t, err));
                for (int i = 0; i < 1000; i++) {
                        uint8_t from = (uint8_t)below(&random, MARKS - 1);
                        uint8_t to = (uint8_t)(from + 1);

                        if (from < MARKS - 20 && below(&random, 20) == 0)
                                to = (uint8_t)(from + below(&random, 20));
                        memset(marks + from, 1, (size_t)(to - from));
                        df_store_del_range(t.store, df_bytes(&from, 1), df_bytes(&to, 1));
                        if (below(&random, i < 500 ? 10 : 400))
                                continue;
                        ok(df_store_commit(t.store, err));
                        assert_noted(t.store, marks, seed);
                }
                ok(df_store_commit(t.store, err));
                assert_noted(t.store, marks, seed);
                df_ckpt_close(c);
                remove_dir(dir);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_law_k1),
                cmocka_unit_test(test_limits),
                cmocka_unit_test(test_scan_callback),
                cmocka_unit_test(test_expiry_frees_disk),
                cmocka_unit_test(test_hints_that_are_of_no_use_become_rare),
                cmocka_unit_test(test_deleted_ranges_are_noted_whole),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
