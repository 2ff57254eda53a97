/* test_kv.c - the plain store (df_kv): reopened, restored, read while it is written, damaged. */
#include "state_test.h"

#include <pthread.h>
#include <stdatomic.h>

static const struct df_rocksdb_options small = {.write_buffer_bytes = 64 << 10,
                                                .block_cache_bytes = 1 << 20};

static int count_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        size_t *n = arg;

        (*n)++;
        return 0;
}

static void test_kv_reopen_and_snapshot(void **state)
{
        struct df_kv *kv, *other;
        struct df_kv_snapshot *snap;
        struct df_buf value = {0};
        char dir[256], path[300];
        size_t n = 0;
        bool found;

        (void)snprintf(path, sizeof(path), "%s/view", temp_dir(dir));
        ok(df_kv_open(path, &small, &kv, err));
        refuses(DF_EFENCED, "another process", df_kv_open(path, &small, &other, err));
        struct df_store *s = df_kv_store(kv);
        df_store_put(s, df_bytes_str("a"), df_bytes_str("1"));
        df_store_put(s, df_bytes_str("b"), df_bytes_str("1"));
        ok(df_store_commit(s, err));
        snap = df_kv_snapshot_take(kv);
        df_store_put(s, df_bytes_str("a"), df_bytes_str("2"));
        df_store_del_range(s, df_bytes_str("b"), df_bytes_str("c"));
        ok(df_store_commit(s, err));
        ok(df_kv_get(kv, snap, df_bytes_str("a"), &value, &found, err));
        assert_true(found && df_bytes_eq(df_buf_bytes(&value), df_bytes_str("1")));
        ok(df_kv_get(kv, snap, df_bytes_str("b"), &value, &found, err));
        assert_true(found);
        ok(df_kv_get(kv, NULL, df_bytes_str("a"), &value, &found, err));
        assert_true(found && df_bytes_eq(df_buf_bytes(&value), df_bytes_str("2")));
        ok(df_kv_get(kv, NULL, df_bytes_str("b"), &value, &found, err));
        assert_true(!found && value.len == 0);
        ok(df_kv_range(kv, snap, df_bytes(NULL, 0), df_bytes(NULL, 0), count_row, &n, err));
        assert_int_equal(n, 2);
        n = 0;
        ok(df_kv_range(kv, snap, df_bytes_str("a"), df_bytes_str("b"), count_row, &n, err));
        assert_int_equal(n, 1);
        df_kv_snapshot_drop(snap);
        df_kv_close(kv);

        ok(df_kv_open(path, &small, &kv, err)); /* in place: the log is there */
        ok(df_kv_get(kv, NULL, df_bytes_str("a"), &value, &found, err));
        assert_true(found && df_bytes_eq(df_buf_bytes(&value), df_bytes_str("2")));
        assert_true(df_kv_property(kv, "rocksdb.total-sst-files-size") > 0);
        assert_int_equal(df_kv_property(kv, "rocksdb.no-such-thing"), 0);
        df_kv_close(kv);
        df_buf_release(&value);
        remove_dir(dir);
}

static void test_kv_checkpoint_restore(void **state)
{
        struct df_kv *kv;
        struct df_buf value = {0};
        char dir[256], view[300], ck[300], copy[300];
        bool found;

        (void)temp_dir(dir);
        (void)snprintf(view, sizeof(view), "%s/view", dir);
        (void)snprintf(ck, sizeof(ck), "%s/ck", dir);
        (void)snprintf(copy, sizeof(copy), "%s/copy", dir);
        refuses(DF_ENOENT, "no checkpoint", df_kv_restore(ck, view, err));
        ok(df_kv_open(view, &small, &kv, err));
        df_store_put(df_kv_store(kv), df_bytes_str("a"), df_bytes_str("1"));
        ok(df_store_commit(df_kv_store(kv), err));
        ok(df_kv_checkpoint(kv, ck, err));
        refuses(DF_EEXIST, "must not exist", df_kv_checkpoint(kv, ck, err));
        df_store_put(df_kv_store(kv), df_bytes_str("a"), df_bytes_str("2"));
        ok(df_store_commit(df_kv_store(kv), err));
        df_kv_close(kv);
        /* Over what is there, to a new place, and twice: the checkpoint is not used up. */
        const char *targets[] = {view, copy, view};
        for (int i = 0; i < 3; i++) {
                ok(df_kv_restore(ck, targets[i], err));
                ok(df_kv_open(targets[i], &small, &kv, err));
                ok(df_kv_get(kv, NULL, df_bytes_str("a"), &value, &found, err));
                assert_true(found && df_bytes_eq(df_buf_bytes(&value), df_bytes_str("1")));
                df_store_put(df_kv_store(kv), df_bytes_str("a"), df_bytes_str("3"));
                ok(df_store_commit(df_kv_store(kv), err));
                df_kv_close(kv);
        }
        df_buf_release(&value);
        remove_dir(dir);
}

/* Readers hold a snapshot while the writer rewrites all rows in one batch: each read of a snapshot
 * sees one generation of rows only. */
struct race {
        struct df_kv *kv;
        atomic_bool stop;
        atomic_int torn;
};

struct generation {
        uint64_t value;
        size_t rows;
        bool mixed;
};

static int check_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct generation *g = arg;
        uint64_t v;

        memcpy(&v, value.data, sizeof(v));
        if (g->rows++ == 0)
                g->value = v;
        g->mixed |= v != g->value;
        return 0;
}

static void *reader(void *arg)
{
        struct race *r = arg;
        struct df_error err;

        while (!atomic_load(&r->stop)) {
                struct df_kv_snapshot *s = df_kv_snapshot_take(r->kv);
                struct generation a = {0}, b = {0};
                if (df_kv_range(r->kv, s, df_bytes_str("r"), df_bytes_str("s"), check_row, &a,
                                &err) ||
                    df_kv_range(r->kv, s, df_bytes_str("r"), df_bytes_str("s"), check_row, &b,
                                &err) ||
                    a.mixed || b.mixed || a.rows != 200 || b.rows != 200 || a.value != b.value)
                        atomic_store(&r->torn, 1);
                df_kv_snapshot_drop(s);
        }
        return NULL;
}

static void write_generation(struct df_kv *kv, uint64_t g)
{
        char key[16];

        df_store_del_range(df_kv_store(kv), df_bytes_str("r"), df_bytes_str("s"));
        for (int i = 0; i < 200; i++) {
                int n = snprintf(key, sizeof(key), "r%05d", i);
                df_store_put(df_kv_store(kv), df_bytes(key, (size_t)n), df_bytes(&g, sizeof(g)));
        }
        ok(df_store_commit(df_kv_store(kv), err));
}

static void test_kv_readers_see_whole_batches(void **state)
{
        struct race r = {0};
        pthread_t threads[3];
        char dir[256];

        ok(df_kv_open(temp_dir(dir), &small, &r.kv, err));
        write_generation(r.kv, 1);
        for (int i = 0; i < 3; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, reader, &r), 0);
        for (uint64_t g = 2; g < 150; g++)
                write_generation(r.kv, g);
        atomic_store(&r.stop, true);
        for (int i = 0; i < 3; i++)
                assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(atomic_load(&r.torn), 0);
        df_kv_close(r.kv);
        remove_dir(dir);
}

/* ---- a damaged block is an error, never a short answer ---- */

static int flip_sst(const char *path, const struct stat *st, int flag, struct FTW *f)
{
        if (flag == FTW_F && strstr(path, ".sst")) {
                FILE *file = fopen(path, "r+");
                assert_non_null(file);
                assert_int_equal(fseek(file, st->st_size / 3, SEEK_SET), 0);
                int c = fgetc(file);
                assert_int_equal(fseek(file, st->st_size / 3, SEEK_SET), 0);
                (void)fputc(c ^ 1, file);
                assert_int_equal(fclose(file), 0);
        }
        return 0;
}

static void test_damaged_block_is_seen(void **state)
{
        struct df_kv *kv;
        char dir[256], ck[300], view[300], key[16];
        uint8_t value[200];
        size_t n = 0;

        (void)temp_dir(dir);
        (void)snprintf(view, sizeof(view), "%s/view", dir);
        (void)snprintf(ck, sizeof(ck), "%s/ck", dir);
        ok(df_kv_open(view, NULL, &kv, err));
        for (int i = 0; i < 2000; i++) {
                int len = snprintf(key, sizeof(key), "%06d", i);
                make_value((uint64_t)i + 1, sizeof(value), value);
                df_store_put(df_kv_store(kv), df_bytes(key, (size_t)len),
                             df_bytes(value, sizeof(value)));
        }
        ok(df_store_commit(df_kv_store(kv), err));
        ok(df_kv_checkpoint(kv, ck, err)); /* flushes */
        df_kv_close(kv);
        (void)nftw(ck, flip_sst, 32, FTW_PHYS);
        ok(df_kv_open(ck, NULL, &kv, err)); /* RocksDB does not see it here */
        refuses(DF_ECORRUPT, "checksum",
                df_kv_range(kv, NULL, df_bytes(NULL, 0), df_bytes(NULL, 0), count_row, &n, err));
        assert_true(n < 2000);
        refuses(DF_ECORRUPT, "checksum",
                df_store_scan(df_kv_store(kv), df_bytes(NULL, 0), count_row, &n, err));
        refuses(DF_ECORRUPT, "unusable", df_store_commit(df_kv_store(kv), err));
        df_kv_close(kv);
        remove_dir(dir);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_kv_reopen_and_snapshot),
                cmocka_unit_test(test_kv_checkpoint_restore),
                cmocka_unit_test(test_kv_readers_see_whole_batches),
                cmocka_unit_test(test_damaged_block_is_seen),
        };
        return cmocka_run_group_tests(tests, NULL, NULL);
}
