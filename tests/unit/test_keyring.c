/* test_keyring.c - the ring of signing keys: a rotation keeps every public key and deletes the old
 * private one; what people do to the files is refused by name, or does no harm. */
#include "keyring_test.h"

static void a_key_is_made_once(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made, again;
        struct df_sign_key *k = NULL;
        char before[500], after[500];
        struct stat st;

        (void)state;
        fails(df_keyring_open(ring, &k, &err), DF_ENOENT, "key create --signing");
        fails(df_keyring_create(ring, true, &made, NULL, &err), DF_ENOENT, "nothing to rotate");
        fails(df_keyring_open(ring, &k, &err), DF_ENOENT, "key create --signing");
        ok(df_keyring_create(ring, false, &made, &again, &err));
        assert_string_equal(again.id, "");
        assert_int_equal(stat(in(ring, "signing.key"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        get_file(in(ring, "signing.key"), before, sizeof(before));
        fails(df_keyring_create(ring, false, &again, NULL, &err), DF_EEXIST, "--rotate");
        get_file(in(ring, "signing.key"), after, sizeof(after));
        assert_string_equal(before, after);
        assert_files(ring, 1, 1);
        assert_string_equal(sign(ring).id, made.id);
        assert_null(k);
}

static void a_rotation_keeps_old_signatures(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made, old;
        struct signature s[5];
        struct df_keyring_entry *keys = NULL;
        size_t count = 0;

        (void)state;
        ok(df_keyring_create(ring, false, &made, NULL, &err));
        for (int i = 0; i < 5; i++) {
                struct timespec times[2] = {{.tv_sec = 2000 - i}, {.tv_sec = 2000 - i}};
                char name[DF_SIGN_ID_SIZE + 4];

                s[i] = sign(ring);
                assert_string_equal(s[i].id, made.id);
                (void)snprintf(name, sizeof(name), "%s.pub", made.id);
                assert_int_equal(utimensat(AT_FDCWD, in(ring, name), times, 0), 0);
                if (i == 4)
                        break;
                ok(df_keyring_create(ring, true, &made, &old, &err));
                assert_string_equal(old.id, s[i].id);
                assert_files(ring, i + 2, 1);
        }
        for (int i = 0; i < 5; i++)
                assert_verifies(ring, &s[i]);
        ok(df_keyring_list(ring, &keys, &count, &err)); /* the files say: the last one is oldest */
        assert_int_equal(count, 5);
        for (int i = 0; i < 5; i++) {
                assert_string_equal(keys[i].key.id, s[4 - i].id);
                assert_int_equal(keys[i].created_ms, (1996 + i) * 1000);
                assert_int_equal(keys[i].current, i == 0);
        }
        free(keys);
        assert_int_equal(unlink(in(ring, "signing.key")), 0); /* a verifier's copy */
        ok(df_keyring_list(ring, &keys, &count, &err));
        for (size_t i = 0; i < count; i++)
                assert_false(keys[i].current);
        free(keys);
        assert_verifies(ring, &s[0]);
        ok(df_keyring_list(at("no-ring"), &keys, &count, &err));
        assert_int_equal(count, 0);
}

/* ---- what people do to it ---- */

static void keys_put_there_by_hand(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made, old;
        struct df_keyring_entry *keys = NULL;
        struct df_sign_key *k = NULL;
        size_t count = 0;

        (void)state;
        ok(df_sign_key_make(&k, &err));
        assert_int_equal(mkdir(ring, 0700), 0);
        ok(df_sign_key_write(k, in(ring, "signing.key"), &err));
        df_sign_key_release(k);
        k = NULL;
        fails(df_keyring_open(ring, &k, &err), DF_ENOENT, "openssl pkey -in");
        fails(df_keyring_list(ring, &keys, &count, &err), DF_ENOENT, "openssl pkey -in");
        ok(df_keyring_create(ring, true, &made, &old, &err)); /* keeps the .pub it lacked */
        ok(df_keyring_find(ring, old.id, &old, &err));
        assert_files(ring, 2, 1);
        assert_int_equal(chmod(in(ring, "signing.key"), 0640), 0);
        fails(df_keyring_open(ring, &k, &err), DF_EINVAL, "chmod 600");
        fails(df_keyring_create(ring, true, &made, NULL, &err), DF_EINVAL, "chmod 600");
        assert_int_equal(chmod(in(ring, "signing.key"), 0600), 0);
        assert_int_equal(rename(in(ring, "signing.key"), in(ring, "elsewhere")), 0);
        assert_int_equal(symlink("elsewhere", in(ring, "signing.key")), 0);
        assert_string_equal(sign(ring).id, made.id);
        fails(df_keyring_create(ring, true, &made, NULL, &err), DF_EINVAL, "is a link");
        assert_files(ring, 2, 2); /* one file by two names */
        put_file(in(ring, "elsewhere"), "-----BEGIN PRIVATE KEY-----\n", 28, 0600);
        fails(df_keyring_open(ring, &k, &err), DF_EPARSE, "move it away");
        assert_null(k);
}

static void damage_is_named(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public made, p;
        struct df_keyring_entry *keys = NULL;
        size_t count = 0;
        char name[DF_SIGN_ID_SIZE + 4], pem[300];
        struct df_sign_key *other = NULL;
        size_t len;

        (void)state;
        ok(df_keyring_create(ring, false, &made, NULL, &err));
        put_file(in(ring, "notes.pub"), "ignored", 7, 0644);
        put_file(in(ring, "0123456789ABCDEF.pub"), "ignored", 7, 0644);
        ok(df_keyring_list(ring, &keys, &count, &err));
        assert_int_equal(count, 1);
        free(keys);
        keys = NULL;
        fails(df_keyring_find(ring, "0123456789abcdef", &p, &err), DF_ENOENT, "0123456789abcdef");
        fails(df_keyring_find(ring, "../signing.key00", &p, &err), DF_EINVAL, "no key id");
        fails(df_keyring_find(ring, "0123456789abcde", &p, &err), DF_EINVAL, "no key id");
        fails(df_keyring_find(ring, "0123456789abcdef0", &p, &err), DF_EINVAL, "no key id");
        (void)snprintf(name, sizeof(name), "%s.pub", made.id);
        len = get_file(in(ring, name), pem, sizeof(pem));
        put_file(in(ring, name), pem, len / 2, 0644);
        fails(df_keyring_list(ring, &keys, &count, &err), DF_EPARSE, made.id);
        fails(df_keyring_find(ring, made.id, &p, &err), DF_EPARSE, made.id);
        ok(df_sign_key_make(&other, &err)); /* somebody's own key by the name of ours */
        assert_int_equal(unlink(in(ring, name)), 0);
        ok(df_sign_public_write(df_sign_key_public(other), in(ring, name), &err));
        fails(df_keyring_list(ring, &keys, &count, &err), DF_ECORRUPT, made.id);
        fails(df_keyring_find(ring, made.id, &p, &err), DF_ECORRUPT, made.id);
        df_sign_key_release(other);
        other = NULL;
        fails(df_keyring_open(ring, &other, &err), DF_ECORRUPT, made.id);
        fails(df_keyring_create(ring, true, &p, NULL, &err), DF_ECORRUPT, made.id);
        assert_null(keys);
}

static void a_damaged_old_key_stops_no_rotation(void **state)
{
        const char *ring = new_ring();
        struct df_sign_public first, made;
        char name[DF_SIGN_ID_SIZE + 4];

        (void)state;
        ok(df_keyring_create(ring, false, &first, NULL, &err));
        ok(df_keyring_create(ring, true, &made, NULL, &err));
        (void)snprintf(name, sizeof(name), "%s.pub", first.id);
        put_file(in(ring, name), "torn", 4, 0644);
        ok(df_keyring_create(ring, true, &made, NULL, &err));
        assert_string_equal(sign(ring).id, made.id);
}

static void one_key_too_many(void **state)
{
        const char *ring = new_ring();
        struct df_keyring_entry *keys = NULL;
        struct df_sign_public made;
        size_t count = 0;

        (void)state;
        assert_int_equal(mkdir(ring, 0755), 0);
        for (uint32_t i = 0; i <= DF_KEYRING_KEYS_MAX; i++) {
                uint8_t raw[32] = {(uint8_t)i, (uint8_t)(i >> 8)};
                char pem[300], name[DF_SIGN_ID_SIZE + 4];
                struct df_sign_public p;
                size_t len = pem_of("PUBLIC KEY", PUBLIC_ED25519, raw, pem, sizeof(pem));

                if (i == DF_KEYRING_KEYS_MAX) {
                        ok(df_keyring_list(ring, &keys, &count, &err));
                        assert_int_equal(count, DF_KEYRING_KEYS_MAX);
                        free(keys);
                        fails(df_keyring_create(ring, false, &made, NULL, &err), DF_ELIMIT, "1024");
                }
                ok(df_sign_public_parse(df_bytes(pem, len), &p, &err));
                (void)snprintf(name, sizeof(name), "%s.pub", p.id);
                put_file(in(ring, name), pem, len, 0644);
        }
        fails(df_keyring_list(ring, &keys, &count, &err), DF_ELIMIT, "1024");
        assert_int_equal(look(ring).privates, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_key_is_made_once),
                cmocka_unit_test(a_rotation_keeps_old_signatures),
                cmocka_unit_test(keys_put_there_by_hand),
                cmocka_unit_test(damage_is_named),
                cmocka_unit_test(a_damaged_old_key_stops_no_rotation),
                cmocka_unit_test(one_key_too_many),
        };

        return cmocka_run_group_tests(tests, make_root, remove_root);
}
