/* test_ports.c - the simulator's own ports keep the promises of df/log.h and df/store.h. */
#include "tests/unit/unit.h"

#include <stdlib.h>

#include "df/sim.h"

static void test_random_is_the_same_everywhere(void **state)
{
        struct df_sim_random a, b;

        (void)state;
        df_sim_random_init(&a, 42);
        df_sim_random_init(&b, 42);
        /* xoshiro256** seeded with splitmix64(42); computed once with another implementation */
        assert_int_equal(df_sim_random_u64(&a), 0x15780b2e0c2ec716u);
        assert_int_equal(df_sim_random_u64(&a), 0x6104d9866d113a7eu);
        (void)df_sim_random_u64(&b);
        (void)df_sim_random_u64(&b);
        for (int i = 0; i < 1000; i++) {
                int64_t v = df_sim_random_between(&a, -3, 4);

                assert_in_range(v + 3, 0, 7);
                assert_int_equal(v, df_sim_random_between(&b, -3, 4));
        }
}

/* ---- log ---- */

static struct df_log_writer *open_writer(struct df_log *log, const char *topic)
{
        struct df_log_writer *w = NULL;

        assert_int_equal(df_log_topic_create(log, topic, 2, NULL), 0);
        assert_int_equal(df_log_writer_open(log, topic, &w, NULL), 0);
        return w;
}

static void test_log_gives_back_what_was_appended(void **state)
{
        struct df_sim *sim = df_sim_create(1);
        struct df_log *log = df_sim_log_open(sim, 0);
        struct df_log_writer *w = open_writer(log, "t");
        struct df_append items[3] = {
                {.partition = 0, .value = df_bytes_str("a")},
                {.partition = 1, .value = df_bytes_str("b")},
                {.partition = 0, .value = df_bytes_str("c")},
        };
        struct df_log_reader *r = NULL;
        struct df_record got[4];
        uint64_t first, end;
        size_t n;

        (void)state;
        df_sim_set_now_ms(sim, 500);
        assert_int_equal(df_log_append(w, items, 3, NULL), 0);
        assert_int_equal(items[2].ret_offset, 1);
        assert_int_equal(items[2].ret_append_ms, 500);
        df_sim_set_now_ms(sim, 400); /* the log's clock never goes back */
        assert_int_equal(df_log_append(w, items, 1, NULL), 0);
        assert_int_equal(items[0].ret_append_ms, 500);
        assert_int_equal(df_log_reader_open(log, "t", 0, 1, "me", &r, NULL), 0);
        assert_int_equal(df_log_poll(r, got, 4, &n, NULL), 0);
        assert_int_equal(n, 2);
        assert_int_equal(got[0].offset, 1);
        assert_memory_equal(got[0].value.data, "c", 1);
        assert_int_equal(df_log_poll(r, got, 4, &n, NULL), 0);
        assert_int_equal(n, 0);
        assert_int_equal(df_log_release(r, 2, NULL), 0);
        assert_true(df_sim_consumer(sim, "t", 0, "me", &first));
        assert_int_equal(first, 2);
        assert_int_equal(df_log_bounds(log, "t", 0, &first, &end, NULL), 0);
        assert_int_equal(end, 3);
        df_sim_log_trim(sim, "t", 0, 2);
        df_log_reader_close(r);
        assert_int_equal(df_log_reader_open(log, "t", 0, 1, NULL, &r, NULL), DF_EOFFSET);
        df_log_writer_close(w);
        df_log_close(log);
        df_sim_destroy(sim);
}

static void test_log_has_one_writer_until_it_crashes(void **state)
{
        struct df_sim *sim = df_sim_create(1);
        struct df_log *log = df_sim_log_open(sim, 0), *other = df_sim_log_open(sim, 1);
        struct df_log_writer *w = open_writer(log, "t"), *w2 = NULL;
        struct df_append item = {.value = df_bytes_str("a")};

        (void)state;
        assert_int_equal(df_log_writer_open(other, "t", &w2, NULL), DF_EFENCED);
        assert_int_equal(df_sim_crash(sim, 0, NULL), DF_ECRASH);
        assert_int_equal(df_log_writer_open(other, "t", &w2, NULL), 0);
        assert_int_equal(df_log_append(w, &item, 1, NULL), DF_ECRASH);
        df_sim_restart(sim, 0);
        assert_int_equal(df_log_append(w, &item, 1, NULL), DF_ECRASH); /* of the old life */
        df_log_writer_close(w);
        assert_int_equal(df_log_append(w2, &item, 1, NULL), 0);
        df_log_writer_close(w2);
        df_log_close(log);
        df_log_close(other);
        df_sim_destroy(sim);
}

/* A crash in the middle leaves a prefix of each partition; over some seeds, every prefix. */
static void test_append_that_crashes_leaves_prefixes(void **state)
{
        bool seen[3][2] = {0};

        (void)state;
        for (uint64_t seed = 1; seed < 60; seed++) {
                struct df_sim *sim = df_sim_create(seed);
                struct df_log *log = df_sim_log_open(sim, 0);
                struct df_log_writer *w = open_writer(log, "t");
                struct df_append items[3] = {
                        {.partition = 0, .value = df_bytes_str("a")},
                        {.partition = 1, .value = df_bytes_str("b")},
                        {.partition = 0, .value = df_bytes_str("c")},
                };
                const struct df_record *r;
                size_t n0, n1;

                df_sim_fault_set(sim, DF_SIM_CRASH,
                                 (struct df_sim_fault){.n = 1, .moment = DF_SIM_MIDWAY});
                assert_int_equal(df_log_append(w, items, 3, NULL), DF_ECRASH);
                assert_int_equal(df_sim_struck(sim, DF_SIM_CRASH), 1);
                assert_true(df_sim_crashed(sim, 0));
                (void)df_sim_records(sim, "t", 1, &n1);
                r = df_sim_records(sim, "t", 0, &n0);
                assert_in_range(n0, 0, 2);
                assert_in_range(n1, 0, 1);
                if (n0)
                        assert_memory_equal(r[0].value.data, "a", 1);
                seen[n0][n1] = true;
                df_log_writer_close(w);
                df_log_close(log);
                df_sim_destroy(sim);
        }
        for (int i = 0; i < 6; i++)
                assert_true(seen[i / 2][i % 2]);
}

static void test_log_faults(void **state)
{
        struct df_sim *sim = df_sim_create(3);
        struct df_log *log = df_sim_log_open(sim, 0);
        struct df_log_writer *w = open_writer(log, "t");
        struct df_append item = {.value = df_bytes_str("a")};
        uint64_t first, end;
        size_t n;

        (void)state;
        /* a full disk: nothing stored, whatever the moment; the next call may succeed */
        df_sim_fault_set(sim, DF_SIM_ENOSPC, (struct df_sim_fault){.n = 2, .moment = DF_SIM_AFTER});
        assert_int_equal(df_log_bounds(log, "t", 0, &first, &end, NULL), 0); /* only reads */
        assert_int_equal(df_log_append(w, &item, 1, NULL), DF_ENOSPC);
        assert_int_equal(df_log_append(w, &item, 1, NULL), DF_ENOSPC);
        assert_int_equal(df_log_append(w, &item, 1, NULL), 0);
        (void)df_sim_records(sim, "t", 0, &n);
        assert_int_equal(n, 1);
        /* L1: after a failed write the writer is broken; the record may be there all the same */
        df_sim_fault_set(sim, DF_SIM_EIO,
                         (struct df_sim_fault){.countdown = 1, .n = 1, .moment = DF_SIM_AFTER});
        assert_int_equal(df_log_append(w, &item, 1, NULL), 0);
        df_sim_faults_pause(sim, true);
        assert_int_equal(df_log_append(w, &item, 1, NULL), 0);
        df_sim_faults_pause(sim, false);
        assert_int_equal(df_log_append(w, &item, 1, NULL), DF_EIO);
        assert_int_equal(df_log_append(w, &item, 1, NULL), DF_EIO);
        (void)df_sim_records(sim, "t", 0, &n);
        assert_int_equal(n, 4);
        df_log_writer_close(w);
        assert_int_equal(df_log_writer_open(log, "t", &w, NULL), 0); /* opened again, it works */
        df_sim_fault_set(sim, DF_SIM_CRASH,
                         (struct df_sim_fault){.countdown = 1, .n = 1, .writes_only = true});
        assert_int_equal(df_log_append(w, &item, 1, NULL), 0);
        assert_int_equal(df_log_bounds(log, "t", 0, &first, &end, NULL), 0);
        assert_int_equal(df_log_append(w, &item, 1, NULL), DF_ECRASH);
        df_log_writer_close(w);
        df_log_close(log);
        df_sim_destroy(sim);
}

static void test_log_by_time_and_deleted(void **state)
{
        struct df_sim *sim = df_sim_create(4);
        struct df_log *log = df_sim_log_open(sim, 0);
        struct df_log_writer *w = open_writer(log, "t");
        struct df_append item = {.value = df_bytes_str("a")};
        uint64_t first, end, at;

        (void)state;
        for (int64_t ms = 10; ms <= 40; ms += 10) {
                df_sim_set_now_ms(sim, ms);
                assert_int_equal(df_log_append(w, &item, 1, NULL), 0);
        }
        df_sim_log_trim(sim, "t", 0, 1);
        assert_int_equal(df_log_offset_at(log, "t", 0, 0, &at, NULL), 0);
        assert_int_equal(at, 1);
        assert_int_equal(df_log_offset_at(log, "t", 0, 30, &at, NULL), 0);
        assert_int_equal(at, 2);
        assert_int_equal(df_log_offset_at(log, "t", 0, 31, &at, NULL), 0);
        assert_int_equal(at, 3);
        assert_int_equal(df_log_offset_at(log, "t", 0, 41, &at, NULL), 0);
        assert_int_equal(at, 4); /* the end */
        assert_int_equal(df_log_offset_at(log, "u", 0, 0, &at, NULL), DF_ENOENT);
        assert_int_equal(df_log_topic_delete(log, "t", NULL), DF_EFENCED);
        df_log_writer_close(w);
        assert_int_equal(df_log_topic_delete(log, "t", NULL), 0);
        assert_int_equal(df_log_topic_delete(log, "t", NULL), 0);
        assert_int_equal(df_log_bounds(log, "t", 0, &first, &end, NULL), DF_ENOENT);
        df_log_close(log);
        df_sim_destroy(sim);
}

/* ---- store ---- */

static void put(struct df_store *s, const char *key, const char *value)
{
        df_store_put(s, df_bytes_str(key), df_bytes_str(value));
}

static void assert_store(struct df_store *s, const char *expected)
{
        struct df_buf b = {0};

        df_sim_store_dump(s, &b);
        assert_int_equal(b.len, strlen(expected));
        assert_memory_equal(b.data, expected, b.len);
        df_buf_release(&b);
}

static void test_store_applies_a_batch_in_its_order(void **state)
{
        struct df_store *s = df_sim_store_create(NULL);
        struct df_bytes v;
        bool found;

        (void)state;
        put(s, "b", "1");
        put(s, "a", "2");
        put(s, "c", "3");
        assert_int_equal(df_store_get(s, df_bytes_str("a"), &v, &found, NULL), 0);
        assert_false(found); /* the open batch is not seen */
        assert_int_equal(df_store_commit(s, NULL), 0);
        assert_store(s, "\1a\0012\1b\0011\1c\0013");
        put(s, "bb", "4");
        df_store_del_range(s, df_bytes_str("b"), df_bytes_str("c"));
        put(s, "b", "5");
        df_store_del(s, df_bytes_str("c"));
        put(s, "d", "6");
        put(s, "d", "7");
        assert_int_equal(df_store_commit(s, NULL), 0);
        assert_store(s, "\1a\0012\1b\0015\1d\0017");
        put(s, "z", "8");
        df_store_rollback(s);
        assert_int_equal(df_store_commit(s, NULL), 0);
        assert_int_equal(df_sim_store_keys(s), 3);
        /* what get handed out may be written back */
        assert_int_equal(df_store_get(s, df_bytes_str("a"), &v, &found, NULL), 0);
        df_store_put(s, df_bytes_str("e"), v);
        assert_int_equal(df_store_commit(s, NULL), 0);
        assert_store(s, "\1a\0012\1b\0015\1d\0017\1e\0012");
        df_sim_store_destroy(s);
}

static void test_store_limits(void **state)
{
        struct df_store *s = df_sim_store_create(NULL);
        uint8_t *big = calloc(1, DF_STORE_VALUE_MAX + 1);

        (void)state;
        assert_non_null(big);
        put(s, "a", "1");
        df_store_put(s, df_bytes(big, DF_STORE_KEY_MAX + 1), df_bytes_str("x"));
        assert_int_equal(df_store_commit(s, NULL), DF_ELIMIT);
        assert_int_equal(df_sim_store_keys(s), 0); /* the whole batch or nothing */
        df_store_put(s, df_bytes(big, DF_STORE_KEY_MAX), df_bytes(big, DF_STORE_VALUE_MAX));
        assert_int_equal(df_store_commit(s, NULL), 0);
        df_store_put(s, df_bytes_str("k"), df_bytes(big, DF_STORE_VALUE_MAX + 1));
        assert_int_equal(df_store_commit(s, NULL), DF_ELIMIT);
        put(s, "", "1");
        assert_int_equal(df_store_commit(s, NULL), DF_ELIMIT);
        df_sim_store_destroy(s);
        free(big);
}

struct scanned {
        struct df_store *store;
        char keys[64];
        size_t stop_after, n;
};

static int on_key(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct scanned *s = arg;

        (void)value;
        (void)err;
        strncat(s->keys, (const char *)key.data, key.len);
        strcat(s->keys, " ");
        df_store_del(s->store, key); /* fn may write to the batch */
        return ++s->n == s->stop_after;
}

static void test_store_scan(void **state)
{
        struct df_store *s = df_sim_store_create(NULL);
        struct scanned got = {.store = s};

        (void)state;
        put(s, "pb", "1");
        put(s, "pa", "1");
        put(s, "q", "1");
        put(s, "p", "1");
        put(s, "o\xff", "1");
        assert_int_equal(df_store_commit(s, NULL), 0);
        assert_int_equal(df_store_scan(s, df_bytes_str("p"), on_key, &got, NULL), 0);
        assert_string_equal(got.keys, "p pa pb ");
        assert_int_equal(df_sim_store_keys(s), 5);
        assert_int_equal(df_store_commit(s, NULL), 0);
        assert_int_equal(df_sim_store_keys(s), 2);
        got = (struct scanned){.store = s, .stop_after = 1};
        assert_int_equal(df_store_scan(s, df_bytes(NULL, 0), on_key, &got, NULL), 0);
        assert_int_equal(got.n, 1);
        df_sim_store_destroy(s);
}

static void test_store_is_dead_after_a_fault(void **state)
{
        struct df_sim *sim = df_sim_create(1);
        struct df_store *s = df_sim_store_create(sim);
        struct df_bytes v;
        bool found;

        (void)state;
        put(s, "a", "1");
        df_sim_fault_set(sim, DF_SIM_ENOSPC, (struct df_sim_fault){.n = 1});
        assert_int_equal(df_store_commit(s, NULL), DF_ENOSPC);
        assert_int_equal(df_store_commit(s, NULL), DF_ENOSPC);
        assert_int_equal(df_store_get(s, df_bytes_str("a"), &v, &found, NULL), DF_ENOSPC);
        df_sim_store_destroy(s);
        df_sim_destroy(sim);
}

/* ---- checkpoints ---- */

struct own {
        struct df_sim *sim;
        struct df_ckpt *c;
        struct df_takeover t;
};

static void own(struct own *o, uint32_t process)
{
        o->c = df_sim_ckpt_open(o->sim, process, "d");
        assert_int_equal(df_ckpt_takeover(o->c, &o->t, NULL), 0);
}

static void checkpoint(struct own *o, uint64_t k, const char *value)
{
        put(o->t.store, "v", value);
        assert_int_equal(df_store_commit(o->t.store, NULL), 0);
        assert_int_equal(df_ckpt_persist(o->c, k, df_bytes_str(value), NULL), 0);
        assert_int_equal(df_ckpt_publish(o->c, k, NULL), 0);
}

static void test_ckpt_comes_back_as_published(void **state)
{
        struct own o = {.sim = df_sim_create(1)};
        struct df_bytes note;
        struct df_ckpt *second;
        struct df_takeover t;

        (void)state;
        own(&o, 0);
        assert_true(o.t.fresh);
        assert_int_equal(o.t.epoch, 1);
        assert_int_equal(df_ckpt_note(o.c, &note, NULL), DF_ENOENT);
        checkpoint(&o, 1, "one");
        put(o.t.store, "v", "two");
        assert_int_equal(df_store_commit(o.t.store, NULL), 0);
        assert_int_equal(df_ckpt_persist(o.c, 2, df_bytes_str("two"), NULL), 0);
        assert_int_equal(df_ckpt_publish(o.c, 3, NULL), DF_EINVAL);
        assert_int_equal(df_ckpt_persist(o.c, 1, df_bytes_str(""), NULL), DF_EINVAL);
        second = df_sim_ckpt_open(o.sim, 1, "d");
        assert_int_equal(df_ckpt_takeover(second, &t, NULL), DF_EFENCED);
        assert_int_equal(df_sim_crash(o.sim, 0, NULL), DF_ECRASH); /* 2 was never published */
        assert_int_equal(df_ckpt_takeover(second, &t, NULL), 0);
        assert_int_equal(t.epoch, 2);
        assert_int_equal(t.k, 1);
        assert_store(t.store, "\1v\3one");
        assert_int_equal(df_sim_ckpt_count(o.sim, "d"), 1); /* the candidate is removed */
        assert_int_equal(df_ckpt_note(second, &note, NULL), 0);
        assert_true(df_bytes_eq(note, df_bytes_str("one")));
        assert_int_equal(df_ckpt_persist(o.c, 3, df_bytes_str(""), NULL), DF_ECRASH);
        df_ckpt_close(o.c);
        df_ckpt_close(second);
        df_sim_destroy(o.sim);
}

static void test_ckpt_publish_in_doubt(void **state)
{
        bool old_one = false, new_one = false;

        (void)state;
        for (uint64_t seed = 1; seed < 30; seed++) {
                struct own o = {.sim = df_sim_create(seed)};

                own(&o, 0);
                checkpoint(&o, 1, "one");
                put(o.t.store, "v", "two");
                assert_int_equal(df_store_commit(o.t.store, NULL), 0);
                assert_int_equal(df_ckpt_persist(o.c, 2, df_bytes_str("two"), NULL), 0);
                df_sim_fault_set(o.sim, DF_SIM_EIO,
                                 (struct df_sim_fault){.n = 1, .moment = DF_SIM_MIDWAY});
                assert_int_equal(df_ckpt_publish(o.c, 2, NULL), DF_EIO);
                assert_int_equal(df_ckpt_retire(o.c, NULL), DF_EIO);
                assert_int_equal(df_ckpt_publish(o.c, 2, NULL), DF_EIO);
                df_ckpt_drop_live(o.c);
                assert_int_equal(df_ckpt_retire(o.c, NULL), DF_ECLOSED);
                assert_int_equal(df_ckpt_takeover(o.c, &o.t, NULL), 0);
                old_one |= o.t.k == 1;
                new_one |= o.t.k == 2;
                assert_store(o.t.store, o.t.k == 1 ? "\1v\3one" : "\1v\3two");
                df_ckpt_close(o.c);
                df_sim_destroy(o.sim);
        }
        assert_true(old_one && new_one);
}

static void test_ckpt_retire_damage_and_loss(void **state)
{
        struct own o = {.sim = df_sim_create(1)};

        (void)state;
        own(&o, 0);
        assert_false(df_sim_ckpt_damage(o.sim, "d"));
        checkpoint(&o, 1, "one");
        checkpoint(&o, 2, "two");
        checkpoint(&o, 3, "three");
        assert_int_equal(df_sim_ckpt_count(o.sim, "d"), 3);
        assert_int_equal(df_ckpt_retire(o.c, NULL), 0); /* K7: keeps the parent */
        assert_int_equal(df_sim_ckpt_count(o.sim, "d"), 2);
        df_ckpt_close(o.c);
        assert_true(df_sim_ckpt_fallback(o.sim, "d"));
        assert_false(df_sim_ckpt_fallback(o.sim, "d"));
        own(&o, 0);
        assert_int_equal(o.t.k, 2);
        df_ckpt_close(o.c);
        assert_true(df_sim_ckpt_damage(o.sim, "d"));
        o.c = df_sim_ckpt_open(o.sim, 0, "d");
        assert_int_equal(df_ckpt_takeover(o.c, &o.t, NULL), DF_ECORRUPT);
        df_ckpt_close(o.c);
        df_sim_ckpt_lose(o.sim, "d", true);
        own(&o, 0);
        assert_true(o.t.fresh);
        assert_int_equal(o.t.epoch, 4);
        df_ckpt_close(o.c);
        df_sim_ckpt_lose(o.sim, "d", false);
        own(&o, 0);
        assert_int_equal(o.t.epoch, 1);
        df_ckpt_close(o.c);
        df_sim_destroy(o.sim);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_random_is_the_same_everywhere),
                cmocka_unit_test(test_log_gives_back_what_was_appended),
                cmocka_unit_test(test_log_has_one_writer_until_it_crashes),
                cmocka_unit_test(test_append_that_crashes_leaves_prefixes),
                cmocka_unit_test(test_log_faults),
                cmocka_unit_test(test_log_by_time_and_deleted),
                cmocka_unit_test(test_store_applies_a_batch_in_its_order),
                cmocka_unit_test(test_store_limits),
                cmocka_unit_test(test_store_scan),
                cmocka_unit_test(test_store_is_dead_after_a_fault),
                cmocka_unit_test(test_ckpt_comes_back_as_published),
                cmocka_unit_test(test_ckpt_publish_in_doubt),
                cmocka_unit_test(test_ckpt_retire_damage_and_loss),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
