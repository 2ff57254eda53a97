/* test_subjects.c - keys of subjects (jobs/ingest/subjects.h, docs/PRIVACY.md), and the ciphers
 * under them (df/cipher.h) against published vectors. What is in the store's files is read byte by
 * byte. */
#include "filelog_test.h"

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#include "df/cipher.h"
#include "df/rocksdb.h"
#include "df/run.h"
#include "df/sha256.h"
#include "jobs/ingest/subjects.h"

#define KEY_ID 16
#define USERS 40
#define THREADS 4
#define ROUNDS 60

static struct ad_subjects *subjects;
static struct df_arena arena;

static void must(int rc, const struct df_error *e, const char *what)
{
        if (rc < 0)
                fail_msg("%s: %d %s", what, rc, e->text);
}
#define OK(call)                                                                                   \
        do {                                                                                       \
                struct df_error e_ = {0}, *err = &e_;                                              \
                must(call, err, #call);                                                            \
        } while (0)

/* ---- the ciphers ---- */

static void assert_hex(const uint8_t *data, size_t len, const char *want)
{
        char hex[256];

        df_hex(data, len, hex);
        assert_string_equal(hex, want);
}

/* RFC 4231, case 2; the GCM specification (McGrew, Viega), test cases 13 and 14: key and nonce of
 * zeros. */
static void test_ciphers_match_published_vectors(void **state)
{
        static const uint8_t zeros[32];
        uint8_t out[32], plain[16];

        OK(df_hmac_sha256(df_bytes_str("Jefe"), df_bytes_str("what do ya want for nothing?"), out,
                          err));
        assert_hex(out, 32, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
        OK(df_cipher_seal(zeros, df_bytes(NULL, 0), df_bytes(zeros, 0), out, err));
        assert_hex(out, 16, "530f8afbc74536b9a963b4f1c4cb738b");
        OK(df_cipher_seal(zeros, df_bytes(NULL, 0), df_bytes(zeros, 16), out, err));
        assert_hex(out, 32, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
        OK(df_cipher_open(zeros, df_bytes(NULL, 0), df_bytes(out, 32), plain, err));
        assert_memory_equal(plain, zeros, 16);
        for (size_t bit = 0; bit < 32 * 8; bit++) {
                struct df_error err = {0};

                out[bit / 8] ^= (uint8_t)(1u << bit % 8);
                memset(plain, 'x', sizeof(plain));
                if (df_cipher_open(zeros, df_bytes(NULL, 0), df_bytes(out, 32), plain, &err) !=
                    DF_ECORRUPT)
                        fail_msg("bit %zu changed, and it opens", bit);
                assert_memory_equal(plain, zeros, 16); /* nothing that was not verified */
                out[bit / 8] ^= (uint8_t)(1u << bit % 8);
        }
}

/* ---- helpers ---- */

static void open_store(void)
{
        OK(ad_subjects_open(test_dir, &subjects, err));
}

static void close_store(void)
{
        ad_subjects_close(subjects);
        subjects = NULL;
}

static int setup(void **state)
{
        df_arena_init(&arena, 0);
        if (setup_dir(state) != 0)
                return -1;
        open_store();
        return 0;
}

static int teardown(void **state)
{
        close_store();
        df_arena_release(&arena);
        remove_dir(test_dir);
        return 0;
}

struct sealed {
        uint8_t data[AD_SEALED_ID_MAX];
        size_t len;
};

static struct sealed seal_of(const char *tenant, const char *user)
{
        struct ad_event ev = {.tenant_id = df_bytes_str(tenant), .user_id = df_bytes_str(user)};
        struct sealed s = {.len = 0};

        OK(ad_subjects_seal(subjects, &ev, 1, &arena, err));
        assert_true(ev.flags & AD_EV_USER_SEALED);
        assert_int_equal(ev.user_id.len, KEY_ID + strlen(user) + 16);
        memcpy(s.data, ev.user_id.data, ev.user_id.len);
        s.len = ev.user_id.len;
        return s;
}

static bool same(const struct sealed *a, const struct sealed *b)
{
        return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}

static int open_of(const char *tenant, const struct sealed *s, char ret[AD_ID_MAX + 1])
{
        struct df_error err = {0};
        size_t len;
        int rc = ad_subjects_open_id(subjects, df_bytes_str(tenant), df_bytes(s->data, s->len),
                                     (uint8_t *)ret, &len, &err);

        ret[rc == 0 ? len : 0] = '\0';
        return rc;
}

static bool has_key(const char *tenant, const char *user)
{
        bool found = false;

        OK(ad_subjects_find(subjects, df_bytes_str(tenant), df_bytes_str(user), &found, err));
        return found;
}

static bool delete_key(const char *tenant, const char *user)
{
        struct ad_subject s = {.tenant_id = df_bytes_str(tenant), .user_id = df_bytes_str(user)};

        OK(ad_subjects_delete(subjects, &s, 1, err));
        return s.ret_deleted;
}

/* In how many files of the store these bytes stand. */
static int files_with(struct df_bytes what, char *ret_name, size_t size)
{
        char dir[512];
        struct dirent *d;
        int n = 0;
        DIR *files;

        (void)snprintf(dir, sizeof(dir), "%s/subjects", test_dir);
        files = opendir(dir);
        assert_non_null(files);
        while ((d = readdir(files))) {
                char path[1024];
                struct df_buf b = {0};

                (void)snprintf(path, sizeof(path), "%s/%s", dir, d->d_name);
                if (d->d_name[0] == '.' || df_read_file(path, 64 << 20, &b, NULL) < 0)
                        continue;
                if (b.len && memmem(b.data, b.len, what.data, what.len)) {
                        (void)snprintf(ret_name, size, "%s", d->d_name);
                        n++;
                }
                df_buf_release(&b);
        }
        closedir(files);
        return n;
}

static void nowhere(struct df_bytes what, const char *text)
{
        char name[300] = "";

        if (files_with(what, name, sizeof(name)))
                fail_msg("%s is still in %s", text, name);
}

static int keys_of(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct df_buf *b = arg;

        df_buf_append(b, key.data, key.len);
        df_buf_append(b, value.data, value.len);
        return 0;
}

/* ---- the store ---- */

static void test_a_sealed_id_is_the_same_for_the_life_of_its_key(void **state)
{
        struct sealed a = seal_of("t1", "anna"), again = seal_of("t1", "anna");
        struct sealed other = seal_of("t2", "anna"), long_one, ben = seal_of("t1", "ben");
        char user[AD_ID_MAX + 1], most[AD_ID_MAX + 1];

        memset(most, 'm', AD_ID_MAX);
        most[AD_ID_MAX] = '\0';
        long_one = seal_of("", most);
        assert_true(same(&a, &again));
        assert_memory_not_equal(a.data, other.data, KEY_ID);
        assert_memory_not_equal(a.data, ben.data, KEY_ID);
        OK(ad_subjects_commit(subjects, err));
        for (int life = 0; life < 2; life++) { /* from memory, then from the store */
                again = seal_of("t1", "anna");
                assert_true(same(&a, &again));
                assert_int_equal(open_of("t1", &a, user), 0);
                assert_string_equal(user, "anna");
                assert_int_equal(open_of("t2", &other, user), 0);
                assert_string_equal(user, "anna");
                assert_int_equal(open_of("", &long_one, user), 0);
                assert_string_equal(user, most);
                assert_true(has_key("t1", "anna"));
                assert_false(has_key("t3", "anna"));
                close_store();
                open_store();
        }
        nowhere(df_bytes_str("anna"), "a user id");
}

/* The tenant is a part of who a subject is: "ab" + "c" is not "a" + "bc". */
static void test_tenant_and_user_do_not_run_together(void **state)
{
        struct sealed a = seal_of("ab", "c"), b = seal_of("a", "bc");

        OK(ad_subjects_commit(subjects, err));
        assert_memory_not_equal(a.data, b.data, KEY_ID);
        assert_true(delete_key("ab", "c"));
        assert_true(has_key("a", "bc"));
}

static void test_what_was_not_sealed_here_is_refused(void **state)
{
        struct sealed a = seal_of("t1", "anna"), bad;
        char user[AD_ID_MAX + 1];

        OK(ad_subjects_commit(subjects, err));
        assert_int_equal(open_of("t2", &a, user), DF_EPARSE); /* another tenant's */
        for (size_t i = 0; i < a.len; i++) {
                bad = a;
                bad.data[i] ^= 1;
                assert_int_equal(open_of("t1", &bad, user), i < KEY_ID ? DF_ENOENT : DF_EPARSE);
                assert_string_equal(user, "");
        }
        for (size_t len = 0; len < a.len; len++) {
                bad = a;
                bad.len = len;
                assert_int_equal(open_of("t1", &bad, user), DF_EPARSE);
        }
}

static void test_events_without_user_or_sealed_before_stay(void **state)
{
        struct ad_event ev[2] = {{.tenant_id = df_bytes_str("t")}, {.user_id = {0}}};
        struct ad_subjects_stats stats;

        OK(ad_subjects_seal(subjects, ev, 2, &arena, err));
        assert_int_equal(ev[0].flags | ev[1].flags, 0);
        ad_subjects_stats(subjects, &stats);
        assert_int_equal(stats.created, 0);
}

/* A crash before the keys are written loses what no record holds; one after it, before the append,
 * leaves a key that is used the next time. */
static void test_a_crash_around_the_write_of_keys(void **state)
{
        struct sealed lost = seal_of("t", "lost"), kept, again;
        char user[AD_ID_MAX + 1];

        close_store();
        open_store();
        assert_false(has_key("t", "lost"));
        assert_int_equal(open_of("t", &lost, user), DF_ENOENT);
        kept = seal_of("t", "kept");
        OK(ad_subjects_commit(subjects, err));
        close_store();
        open_store();
        again = seal_of("t", "kept");
        assert_true(same(&kept, &again));
        assert_int_equal(open_of("t", &again, user), 0);
}

static void test_a_deleted_key_is_in_no_file(void **state)
{
        struct sealed gone[USERS], stays[USERS], again;
        struct df_buf all = {0};
        char user[32], text[AD_ID_MAX + 1], where[300];
        struct df_kv *kv;

        for (int round = 0; round < 3; round++) /* also keys that lie in files, in several */
                for (int i = round; i < USERS; i += 3) {
                        (void)snprintf(user, sizeof(user), "gone-%d", i);
                        gone[i] = seal_of("t", user);
                        (void)snprintf(user, sizeof(user), "stays-%d", i);
                        stays[i] = seal_of("t", user);
                        OK(ad_subjects_commit(subjects, err));
                        if (i == USERS / 2) {
                                close_store();
                                open_store();
                        }
                }
        /* What the store holds of one of them, read past the product: name, id and key. */
        assert_true(files_with(df_bytes(gone[5].data, KEY_ID), where, sizeof(where)) > 0);
        close_store();
        {
                char dir[512];

                (void)snprintf(dir, sizeof(dir), "%s/subjects", test_dir);
                OK(df_kv_open(dir, NULL, &kv, err));
                OK(df_kv_range(kv, NULL, df_bytes_str("H"), df_bytes_str("I"), keys_of, &all, err));
                df_kv_close(kv);
        }
        open_store();
        assert_int_equal(all.len, 2 * USERS * (33 + 48));
        for (int i = 0; i < USERS; i++) {
                (void)snprintf(user, sizeof(user), "gone-%d", i);
                assert_true(delete_key("t", user));
                assert_false(delete_key("t", user));
                assert_false(has_key("t", user));
                assert_int_equal(open_of("t", &gone[i], text), DF_ENOENT);
                nowhere(df_bytes(gone[i].data, KEY_ID), "a deleted key's id");
        }
        for (size_t at = 0; at < all.len; at += 33 + 48) {
                const uint8_t *row = all.data + at;
                bool deleted = false;

                for (int i = 0; i < USERS; i++)
                        deleted |= memcmp(row + 33, gone[i].data, KEY_ID) == 0;
                if (!deleted)
                        continue;
                nowhere(df_bytes(row + 1, 32), "the name of a deleted key");
                nowhere(df_bytes(row + 33 + KEY_ID, 32), "a deleted key");
        }
        for (int i = 0; i < USERS; i++) { /* the others are not touched */
                assert_int_equal(open_of("t", &stays[i], text), 0);
                (void)snprintf(user, sizeof(user), "stays-%d", i);
                assert_string_equal(text, user);
        }
        again = seal_of("t", "gone-5"); /* the same user, later: nothing in common */
        OK(ad_subjects_commit(subjects, err));
        assert_memory_not_equal(again.data, gone[5].data, KEY_ID);
        assert_int_equal(open_of("t", &gone[5], text), DF_ENOENT);
        df_buf_release(&all);
}

static void test_deletion_before_the_key_is_durable(void **state)
{
        struct sealed a = seal_of("t", "anna"), b = seal_of("t", "ben");
        char user[AD_ID_MAX + 1];

        assert_true(delete_key("t", "anna"));
        OK(ad_subjects_commit(subjects, err));
        assert_int_equal(open_of("t", &a, user), DF_ENOENT);
        assert_int_equal(open_of("t", &b, user), 0);
        nowhere(df_bytes(a.data, KEY_ID), "a key that was never durable");
}

/* The process died when the keys were deleted and their bytes were still in files: nobody can say
 * any more which they were. */
static void test_a_deletion_that_was_cut_short_is_ended(void **state)
{
        struct sealed a = seal_of("t", "anna");
        char dir[512], where[300];
        uint8_t key[1 + KEY_ID] = {'K'};
        struct df_buf row = {0};
        struct df_kv *kv;

        OK(ad_subjects_commit(subjects, err));
        close_store();
        (void)snprintf(dir, sizeof(dir), "%s/subjects", test_dir);
        OK(df_kv_open(dir, NULL, &kv, err));
        OK(df_kv_range(kv, NULL, df_bytes_str("H"), df_bytes_str("I"), keys_of, &row, err));
        assert_int_equal(row.len, 33 + 48);
        memcpy(key + 1, a.data, KEY_ID);
        df_store_del(df_kv_store(kv), df_bytes(row.data, 33));
        df_store_del(df_kv_store(kv), df_bytes(key, sizeof(key)));
        df_store_put(df_kv_store(kv), df_bytes_str("S"), df_bytes_str("1"));
        OK(df_store_commit(df_kv_store(kv), err));
        df_kv_close(kv);
        open_store();
        assert_true(files_with(df_bytes(row.data + 33 + KEY_ID, 32), where, sizeof(where)) > 0);
        OK(ad_subjects_delete(subjects, NULL, 0, err));
        nowhere(df_bytes(row.data + 1, 32), "the name of a key whose deletion was cut short");
        nowhere(df_bytes(row.data + 33, KEY_ID), "its id");
        nowhere(df_bytes(row.data + 33 + KEY_ID, 32), "the key itself");
        df_buf_release(&row);
}

/* ---- limits ---- */

static void number_user(struct ad_event *ev, char text[16], uint64_t n)
{
        *ev = (struct ad_event){.tenant_id = df_bytes_str("t")};
        ev->user_id = df_bytes(text, (size_t)snprintf(text, 16, "%" PRIu64, n));
}

static void test_one_beyond_what_may_wait_and_what_is_kept(void **state)
{
        struct sealed first = seal_of("t", "first"), again;
        struct ad_subjects_stats stats;
        struct df_error why = {0};
        struct ad_event ev;
        char text[16];

        for (uint64_t i = 1; i < AD_SUBJECT_PENDING_MAX; i++) {
                number_user(&ev, text, i);
                OK(ad_subjects_seal(subjects, &ev, 1, &arena, err));
                df_arena_reset(&arena);
        }
        number_user(&ev, text, AD_SUBJECT_PENDING_MAX);
        assert_int_equal(ad_subjects_seal(subjects, &ev, 1, &arena, &why), DF_EAGAIN);
        again = seal_of("t", "first"); /* who is known is not new */
        assert_true(same(&first, &again));
        OK(ad_subjects_commit(subjects, err));
        ad_subjects_stats(subjects, &stats);
        assert_int_equal(stats.pending, 0);
        assert_int_equal(stats.cached, AD_SUBJECT_CACHE_MAX);
        assert_int_equal(stats.created, AD_SUBJECT_PENDING_MAX);
        OK(ad_subjects_seal(subjects, &ev, 1, &arena, err));
        again = seal_of("t", "first"); /* forgotten or not */
        assert_true(same(&first, &again));
}

/* ---- the secret ---- */

static mode_t mode_of(const char *name)
{
        char path[512];
        struct stat st;

        (void)snprintf(path, sizeof(path), "%s/%s", test_dir, name);
        assert_int_equal(stat(path, &st), 0);
        return st.st_mode & 0777;
}

static void test_the_secret_is_private_and_needed(void **state)
{
        struct df_error why = {0};
        char path[512];

        assert_int_equal(mode_of("subjects.secret"), 0600);
        assert_int_equal(mode_of("subjects"), 0700);
        (void)seal_of("t", "anna");
        OK(ad_subjects_commit(subjects, err));
        close_store();
        (void)snprintf(path, sizeof(path), "%s/subjects.secret", test_dir);
        assert_int_equal(truncate(path, 31), 0);
        assert_int_equal(ad_subjects_open(test_dir, &subjects, &why), DF_ECORRUPT);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(ad_subjects_open(test_dir, &subjects, &why), DF_ESCHEMA);
        assert_non_null(strstr(why.text, path));
        assert_int_equal(access(path, F_OK), -1); /* a new one would hide the keys for ever */
        subjects = NULL;
}

/* ---- threads ---- */

static struct sealed seen[THREADS][USERS];
static atomic_bool stop_writer;

static void *sealer(void *arg)
{
        size_t me = (size_t)(uintptr_t)arg;
        struct df_arena own;

        df_arena_init(&own, 0);
        for (int round = 0; round < ROUNDS; round++)
                for (size_t i = 0; i < USERS; i++) {
                        struct ad_event ev;
                        char text[16];

                        number_user(&ev, text, i);
                        OK(ad_subjects_seal(subjects, &ev, 1, &own, err));
                        memcpy(seen[me][i].data, ev.user_id.data, ev.user_id.len);
                        seen[me][i].len = ev.user_id.len;
                        df_arena_reset(&own);
                }
        df_arena_release(&own);
        return NULL;
}

static void *writer(void *arg)
{
        while (!atomic_load(&stop_writer)) {
                OK(ad_subjects_commit(subjects, err));
                (void)usleep(100);
        }
        return NULL;
}

static void test_threads_agree_on_each_key(void **state)
{
        pthread_t threads[THREADS], w;
        char user[AD_ID_MAX + 1], text[16];

        assert_int_equal(pthread_create(&w, NULL, writer, NULL), 0);
        for (size_t i = 0; i < THREADS; i++)
                assert_int_equal(pthread_create(&threads[i], NULL, sealer, (void *)i), 0);
        for (int i = 0; i < USERS; i += 2) { /* half of them are deleted meanwhile */
                (void)snprintf(text, sizeof(text), "%d", i);
                (void)delete_key("t", text);
        }
        for (size_t i = 0; i < THREADS; i++)
                assert_int_equal(pthread_join(threads[i], NULL), 0);
        atomic_store(&stop_writer, true);
        assert_int_equal(pthread_join(w, NULL), 0);
        OK(ad_subjects_commit(subjects, err));
        for (int i = 1; i < USERS; i += 2)
                for (size_t t = 0; t < THREADS; t++) {
                        (void)snprintf(text, sizeof(text), "%d", i);
                        assert_true(same(&seen[0][i], &seen[t][i]));
                        assert_int_equal(open_of("t", &seen[t][i], user), 0);
                        assert_string_equal(user, text);
                }
}

int main(void)
{
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_ciphers_match_published_vectors),
                T(test_a_sealed_id_is_the_same_for_the_life_of_its_key),
                T(test_tenant_and_user_do_not_run_together),
                T(test_what_was_not_sealed_here_is_refused),
                T(test_events_without_user_or_sealed_before_stay),
                T(test_a_crash_around_the_write_of_keys),
                T(test_a_deleted_key_is_in_no_file),
                T(test_deletion_before_the_key_is_durable),
                T(test_a_deletion_that_was_cut_short_is_ended),
                T(test_one_beyond_what_may_wait_and_what_is_kept),
                T(test_the_secret_is_private_and_needed),
                T(test_threads_agree_on_each_key),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
