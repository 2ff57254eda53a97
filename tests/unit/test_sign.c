/* test_sign.c - Ed25519 against RFC 8032's vectors and the openssl command; whatever is changed in
 * what was signed is seen; key files are those of RFC 8410, and anything else is refused by name.
 */
#include "sign_test.h"

#define DOMAIN "adtally test 1"

/* RFC 8032, section 7.1, tests 1 to 3. */
static const struct {
        const char *seed, *public, *message, *sig;
} vectors[] = {
        {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
         "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
         "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
         "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"},
        {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
         "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
         "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
         "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"},
        {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
         "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
         "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
         "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"},
};

static struct df_sign_key *key_of_seed(const char *hex)
{
        struct df_sign_key *k = NULL;
        uint8_t seed[32];
        char pem[300];
        size_t len;

        unhex(hex, seed);
        len = pem_of("PRIVATE KEY", PRIVATE_ED25519, seed, pem, sizeof(pem));
        put_file(at("seed.key"), pem, len, 0600);
        ok(df_sign_key_read(at("seed.key"), &k, &err));
        return k;
}

static void rfc_8032_vectors(void **state)
{
        (void)state;
        for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
                struct df_sign_key *k = key_of_seed(vectors[i].seed);
                uint8_t public[32], message[8], want[64], sig[64];
                struct df_bytes text = df_bytes(message, unhex(vectors[i].message, message));

                unhex(vectors[i].public, public);
                unhex(vectors[i].sig, want);
                assert_memory_equal(df_sign_key_public(k)->raw, public, 32);
                ok(dfi_sign_raw(k, text, sig, &err));
                assert_memory_equal(sig, want, 64);
                ok(dfi_verify_raw(df_sign_key_public(k), text, want, &err));
                df_sign_key_release(k);
        }
}

/* The text of df/sign.h, put together by hand and signed without the domain's code. */
static void the_signed_text_is_the_documented_one(void **state)
{
        struct df_sign_key *k = key_of_seed(vectors[0].seed);
        uint8_t sig[64], raw[64];
        static const char text[] = "\x0e" DOMAIN "a bill";

        (void)state;
        ok(df_sign(k, DOMAIN, df_bytes_str("a bill"), sig, &err));
        ok(dfi_sign_raw(k, df_bytes(text, sizeof(text) - 1), raw, &err));
        assert_memory_equal(sig, raw, 64);
        ok(df_sign(k, DOMAIN, df_bytes(NULL, 0), sig, &err));
        ok(df_sign_verify(df_sign_key_public(k), DOMAIN, df_bytes(NULL, 0), sig, &err));
        df_sign_key_release(k);
}

static bool matches(const struct df_sign_public *p, const char *domain, struct df_bytes b,
                    const uint8_t *sig)
{
        struct df_error err = {0};
        int rc = df_sign_verify(p, domain, b, sig, &err);

        if (rc < 0 && rc != DF_ECORRUPT)
                fail_msg("%d: %s", rc, err.text);
        return rc == 0;
}

static void each_flipped_bit_is_seen(void **state)
{
        struct df_sign_key *k = NULL;
        struct df_sign_public p;
        char message[] = "EUR 17.43 for 2026-04, 812 rows", domain[] = DOMAIN;
        struct df_bytes b = df_bytes_str(message);
        uint8_t sig[64];
        struct {
                void *data;
                size_t len;
                const char *what;
        } parts[] = {{message, sizeof(message) - 1, "message"},
                     {sig, sizeof(sig), "signature"},
                     {p.raw, sizeof(p.raw), "key"},
                     {domain, sizeof(domain) - 1, "domain"}};

        (void)state;
        ok(df_sign_key_make(&k, &err));
        p = *df_sign_key_public(k);
        ok(df_sign(k, domain, b, sig, &err));
        for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
                for (size_t bit = 0; bit < 8 * parts[i].len; bit++) {
                        uint8_t *byte = (uint8_t *)parts[i].data + bit / 8;

                        *byte ^= (uint8_t)(1 << bit % 8);
                        if (matches(&p, domain, b, sig))
                                fail_msg("bit %zu of the %s does not matter; key %s", bit,
                                         parts[i].what, p.id);
                        *byte ^= (uint8_t)(1 << bit % 8);
                }
        assert_true(matches(&p, domain, b, sig));
        assert_false(matches(&p, domain, df_bytes(message, b.len - 1), sig));
        df_sign_key_release(k);
}

static void a_domain_ends_where_it_ends(void **state)
{
        struct df_sign_key *k = NULL;
        const struct df_sign_public *p;
        uint8_t sig[64];

        (void)state;
        ok(df_sign_key_make(&k, &err));
        p = df_sign_key_public(k);
        ok(df_sign(k, "ab", df_bytes_str("c"), sig, &err));
        assert_true(matches(p, "ab", df_bytes_str("c"), sig));
        assert_false(matches(p, "a", df_bytes_str("bc"), sig));
        assert_false(matches(p, "abc", df_bytes(NULL, 0), sig));
        df_sign_key_release(k);
}

static void limits_one_beyond(void **state)
{
        struct df_sign_key *k = NULL;
        char domain[DF_SIGN_DOMAIN_MAX + 2] = {0}, big[DF_SIGN_FILE_MAX + 1];
        struct df_sign_public p;
        uint8_t sig[64];

        (void)state;
        ok(df_sign_key_make(&k, &err));
        memset(domain, 'd', DF_SIGN_DOMAIN_MAX);
        ok(df_sign(k, domain, df_bytes("x", 1), sig, &err));
        ok(df_sign_verify(df_sign_key_public(k), domain, df_bytes("x", 1), sig, &err));
        domain[DF_SIGN_DOMAIN_MAX] = 'd';
        fails(df_sign(k, domain, df_bytes("x", 1), sig, &err), DF_EINVAL, "domain");
        fails(df_sign(k, "", df_bytes("x", 1), sig, &err), DF_EINVAL, "domain");
        fails(df_sign_verify(df_sign_key_public(k), "", df_bytes("x", 1), sig, &err), DF_EINVAL,
              "domain");
        fails(df_sign(k, DOMAIN, df_bytes("x", (size_t)DF_SIGN_BYTES_MAX + 1), sig, &err),
              DF_ELIMIT, "at most"); /* refused before it is read */
        memset(big, '\n', sizeof(big));
        put_file(at("big"), big, sizeof(big), 0600);
        df_sign_key_release(k);
        k = NULL;
        fails(df_sign_key_read(at("big"), &k, &err), DF_ELIMIT, "big");
        fails(df_sign_public_read(at("big"), &p, &err), DF_ELIMIT, "big");
        fails(df_sign_public_parse(df_bytes(big, sizeof(big)), &p, &err), DF_ELIMIT, "more than");
        put_file(at("big"), big, sizeof(big) - 1, 0600);
        fails(df_sign_key_read(at("big"), &k, &err), DF_EPARSE, "big");
        assert_null(k);
}

static void public_keys_as_text(void **state)
{
        struct df_sign_public p, q;
        struct df_buf pem = {0};
        uint8_t raw[32];
        char want[300], text[DF_SIGN_BASE64_SIZE], line[DF_SIGN_BASE64_SIZE];

        (void)state;
        unhex(vectors[2].public, raw);
        base64(raw, 32, want);
        ok(df_sign_public_parse(df_bytes_str(want), &p, &err));
        assert_memory_equal(p.raw, raw, 32);
        df_sign_public_base64(&p, text);
        assert_string_equal(text, want);
        assert_string_equal(p.id, "dac073e0123bdea5");
        pem_of("PUBLIC KEY", PUBLIC_ED25519, raw, want, sizeof(want));
        ok(df_sign_public_pem(&p, &pem, &err));
        assert_true(df_bytes_eq(df_buf_bytes(&pem), df_bytes_str(want)));
        ok(df_sign_public_parse(df_buf_bytes(&pem), &q, &err));
        assert_memory_equal(&p, &q, sizeof(p));
        for (size_t i = 0; i + 1 < sizeof(text); i++) { /* a stray character, anywhere */
                memcpy(line, text, sizeof(line));
                line[i] = i % 2 ? '!' : ' ';
                fails(df_sign_public_parse(df_bytes_str(line), &q, &err), DF_EPARSE, "base64");
        }
        line[0] = text[0];
        memcpy(line, text, sizeof(line));
        line[42]++; /* the same 32 bytes, bits behind them set */
        fails(df_sign_public_parse(df_bytes_str(line), &q, &err), DF_EPARSE, "base64");
        df_buf_release(&pem);
}

static void files_are_written_once(void **state)
{
        struct df_sign_key *k = NULL, *again = NULL;
        struct df_sign_public p;
        struct stat st;
        char before[500], after[500];

        (void)state;
        ok(df_sign_key_make(&k, &err));
        ok(df_sign_key_write(k, at("one.key"), &err));
        ok(df_sign_public_write(df_sign_key_public(k), at("one.pub"), &err));
        assert_int_equal(stat(at("one.key"), &st), 0);
        assert_int_equal(st.st_mode & 07777, 0600);
        ok(df_sign_key_read(at("one.key"), &again, &err));
        assert_memory_equal(df_sign_key_public(k), df_sign_key_public(again), sizeof(p));
        ok(df_sign_public_read(at("one.pub"), &p, &err));
        assert_memory_equal(df_sign_key_public(k), &p, sizeof(p));
        get_file(at("one.key"), before, sizeof(before));
        df_sign_key_release(again);
        ok(df_sign_key_make(&again, &err));
        assert_memory_not_equal(df_sign_key_public(k), df_sign_key_public(again), sizeof(p));
        fails(df_sign_key_write(again, at("one.key"), &err), DF_EEXIST, "one.key");
        fails(df_sign_public_write(&p, at("one.pub"), &err), DF_EEXIST, "one.pub");
        get_file(at("one.key"), after, sizeof(after));
        assert_string_equal(before, after);
        fails(df_sign_key_write(k, at("none/one.key"), &err), DF_EIO, "none/one.key");
        df_sign_key_release(k);
        df_sign_key_release(again);
        df_sign_key_release(NULL);
}

static void others_may_not_read_it(void **state)
{
        static const mode_t bad[] = {0640, 0604, 0660, 0620, 0602, 0610, 0601, 0644, 0440};
        struct df_sign_key *k = NULL;

        (void)state;
        df_sign_key_release(key_of_seed(vectors[0].seed));
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                assert_int_equal(chmod(at("seed.key"), bad[i]), 0);
                fails(df_sign_key_read(at("seed.key"), &k, &err), DF_EINVAL, "chmod 600");
        }
        assert_null(k);
        assert_int_equal(chmod(at("seed.key"), 0400), 0);
        ok(df_sign_key_read(at("seed.key"), &k, &err));
        df_sign_key_release(k);
        fails(df_sign_key_read(at("nowhere"), &k, &err), DF_ENOENT, "nowhere");
        fails(df_sign_key_read(root, &k, &err), DF_EINVAL, "not a file");
        assert_int_equal(mkfifo(at("pipe"), 0600), 0);
        fails(df_sign_key_read(at("pipe"), &k, &err), DF_EINVAL, "not a file"); /* and at once */
}

static void torn_files(void **state)
{
        struct df_sign_key *k = NULL;
        struct df_sign_public p;
        uint8_t raw[32];
        char pem[300];
        size_t len;

        (void)state;
        unhex(vectors[1].seed, raw);
        len = pem_of("PRIVATE KEY", PRIVATE_ED25519, raw, pem, sizeof(pem));
        for (size_t n = 0; n < len - 1; n++) { /* without the last newline it is whole */
                put_file(at("torn"), pem, n, 0600);
                fails(df_sign_key_read(at("torn"), &k, &err), DF_EPARSE, "torn");
                fails(df_sign_public_read(at("torn"), &p, &err), DF_EPARSE, "torn");
        }
        unhex(vectors[1].public, raw);
        len = pem_of("PUBLIC KEY", PUBLIC_ED25519, raw, pem, sizeof(pem));
        for (size_t n = 0; n < len - 1; n++) {
                put_file(at("torn"), pem, n, 0600);
                fails(df_sign_public_read(at("torn"), &p, &err), DF_EPARSE, "torn");
                if (n != DF_SIGN_BASE64_SIZE - 1)
                        fails(df_sign_public_parse(df_bytes(pem, n), &p, &err), DF_EPARSE, "");
        }
        put_file(at("torn"), pem, len, 0600); /* whole, but not private */
        fails(df_sign_key_read(at("torn"), &k, &err), DF_EPARSE, "private key");
        assert_null(k);
}

/* Runs with ROOT as the directory; true when it succeeded. */
static bool shell(const char *command)
{
        char text[1000];

        (void)snprintf(text, sizeof(text), "cd '%s' && { %s; } >/dev/null 2>&1", root, command);
        return system(text) == 0;
}

static void other_kinds_are_named(void **state)
{
        struct df_sign_key *k = NULL;
        struct df_sign_public p;
        uint8_t raw[32];
        char pem[300];

        (void)state;
        unhex(vectors[1].seed, raw);
        pem_of("PRIVATE KEY", PRIVATE_X25519, raw, pem, sizeof(pem));
        put_file(at("x.key"), pem, strlen(pem), 0600);
        fails(df_sign_key_read(at("x.key"), &k, &err), DF_EINVAL, "X25519");
        pem_of("PUBLIC KEY", PUBLIC_X25519, raw, pem, sizeof(pem));
        put_file(at("x.pub"), pem, strlen(pem), 0600);
        fails(df_sign_public_read(at("x.pub"), &p, &err), DF_EINVAL, "X25519");
        fails(df_sign_public_parse(df_bytes_str(pem), &p, &err), DF_EINVAL, "X25519");
        assert_null(k);
        if (!shell("openssl version"))
                skip();
        assert_true(shell("umask 077 && openssl genpkey -algorithm rsa -out rsa.key && "
                          "openssl pkey -in rsa.key -pubout -out rsa.pub && "
                          "openssl ecparam -name prime256v1 -genkey -noout -out ec.key && "
                          "openssl pkey -in ec.key -pubout -out ec.pub && "
                          "openssl genpkey -algorithm ed25519 -out ed.key && "
                          "openssl pkey -in ed.key -aes256 -passout pass:x -out locked.key"));
        fails(df_sign_key_read(at("rsa.key"), &k, &err), DF_EINVAL, "RSA");
        fails(df_sign_public_read(at("rsa.pub"), &p, &err), DF_EINVAL, "RSA");
        fails(df_sign_key_read(at("ec.key"), &k, &err), DF_EINVAL, "EC");
        fails(df_sign_public_read(at("ec.pub"), &p, &err), DF_EINVAL, "EC");
        fails(df_sign_key_read(at("locked.key"), &k, &err), DF_EINVAL, "passphrase");
        assert_null(k);
}

/* Both ways: what openssl signs we accept, what we sign openssl accepts. */
static void the_openssl_command_agrees(void **state)
{
        static const char text[] = "\x0e" DOMAIN "a bill";
        struct df_sign_key *k = NULL;
        struct df_sign_public p;
        uint8_t sig[64];
        char theirs[100];

        (void)state;
        if (!shell("openssl version"))
                skip();
        put_file(at("text"), text, sizeof(text) - 1, 0600);
        ok(df_sign_key_make(&k, &err));
        ok(df_sign_key_write(k, at("our.key"), &err));
        ok(df_sign_public_write(df_sign_key_public(k), at("our.pub"), &err));
        ok(df_sign(k, DOMAIN, df_bytes_str("a bill"), sig, &err));
        put_file(at("our.sig"), sig, sizeof(sig), 0600);
        assert_true(shell("openssl pkey -in our.key -pubout | cmp - our.pub"));
        assert_true(shell("openssl pkeyutl -verify -rawin -pubin -inkey our.pub -in text "
                          "-sigfile our.sig"));
        assert_false(shell("openssl pkeyutl -verify -rawin -pubin -inkey our.pub -in our.pub "
                           "-sigfile our.sig"));
        df_sign_key_release(k);
        assert_true(shell("umask 077 && openssl genpkey -algorithm ed25519 -out their.key && "
                          "openssl pkey -in their.key -pubout -out their.pub && openssl pkeyutl "
                          "-sign -rawin -inkey their.key -in text -out their.sig"));
        ok(df_sign_key_read(at("their.key"), &k, &err));
        ok(df_sign_public_read(at("their.pub"), &p, &err));
        assert_memory_equal(&p, df_sign_key_public(k), sizeof(p));
        assert_int_equal(get_file(at("their.sig"), theirs, sizeof(theirs)), 64);
        ok(df_sign_verify(&p, DOMAIN, df_bytes_str("a bill"), (const uint8_t *)theirs, &err));
        ok(df_sign(k, DOMAIN, df_bytes_str("a bill"), sig, &err));
        assert_memory_equal(sig, theirs, 64);
        df_sign_key_release(k);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(rfc_8032_vectors),
                cmocka_unit_test(the_signed_text_is_the_documented_one),
                cmocka_unit_test(each_flipped_bit_is_seen),
                cmocka_unit_test(a_domain_ends_where_it_ends),
                cmocka_unit_test(limits_one_beyond),
                cmocka_unit_test(public_keys_as_text),
                cmocka_unit_test(files_are_written_once),
                cmocka_unit_test(others_may_not_read_it),
                cmocka_unit_test(torn_files),
                cmocka_unit_test(other_kinds_are_named),
                cmocka_unit_test(the_openssl_command_agrees),
        };

        return cmocka_run_group_tests(tests, make_root, remove_root);
}
