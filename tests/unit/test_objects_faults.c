/* An S3 store that fails: answers that are lost, repeated, refused or cut. The server does what a
 * part of the object's name asks for (tests/objects/s3.py), so the object a put leaves behind can
 * be compared with what its caller was told: success and stored, refused and not, or in doubt. */
#include "objects_test.h"

static struct df_objects *fresh(const char *more)
{
        char place[200];

        fresh_place(true, more, place, sizeof(place));
        return open_place(place);
}

static void must_be_none(struct df_objects *o, const char *name)
{
        struct df_buf none = {0};

        fails(df_objects_get(o, name, &none, NULL, &err), DF_ENOENT, name);
}

static void test_put_absent(void **state)
{
        static const struct {
                const char *fault;
                int want;
                const char *stored; /* NULL: nothing */
                const char *text;
        } cases[] = {
                {"503.2", 0, "mine", ""},
                {"429.4", 0, "mine", ""},
                {"500.1", 0, "mine", ""},
                {"502.3", 0, "mine", ""},
                {"409.2", 0, "mine", ""}, /* others at it, says S3: try again */
                {"503.9", DF_EAGAIN, NULL, "503"},
                {"409.9", DF_EAGAIN, NULL, "409"},
                {"502.9", DF_EDOUBT, NULL, "may have been stored"},
                {"drop.1", 0, "mine", ""},
                {"drop.9", DF_EDOUBT, NULL, "may have been stored"},
                {"lost.1", 0, "mine", ""}, /* the second try meets the first's object */
                {"lost.3", 0, "mine", ""},
                {"lost.9", 0, "mine", ""}, /* never an answer; looked up at last */
                {"taken.1", DF_EDOUBT, "somebody else", "may have been stored"},
                {"403.1", DF_EINVAL, NULL,
                 "the access key adtally-test-key, which comes from the test"},
                {"501.1", DF_ESCHEMA, NULL, "501"},
                {"507.1", DF_ENOSPC, NULL, "507"},
                {"400.1", DF_EINVAL, NULL, "400"},
                {"301.1", DF_EINVAL, NULL, "set the region"},
                {"mute.1", 0, "mine", ""},
        };
        struct df_objects *o = fresh("");

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                char name[64];

                (void)snprintf(name, sizeof(name), "n%zu/f=%s", i, cases[i].fault);
                err = (struct df_error){0};
                if (df_objects_put_absent(o, name, df_bytes_str("mine"), &err) != cases[i].want ||
                    !strstr(err.text, cases[i].text))
                        fail_msg("seed %" PRIu64 ": %s: %s \"%s\"", dice_seed, name,
                                 df_err_code(err.code), err.text);
                if (cases[i].stored)
                        holds_text(o, name, cases[i].stored);
                else
                        must_be_none(o, name);
        }
        df_objects_close(o);
}

/* A lost answer to a put that had lost: the other's object is there, also with our bytes. */
static void test_put_absent_second(void **state)
{
        struct df_objects *o = fresh("");

        for (int i = 0; i < 8; i++) {
                const char *bytes = i % 2 ? "theirs" : "mine";
                char name[32];

                (void)snprintf(name, sizeof(name), "s%d/f=lost.%d.1", i, 1 + i / 2);
                put_text(o, name, "theirs");
                fails(df_objects_put_absent(o, name, df_bytes_str(bytes), &err), DF_EEXIST,
                      "there is one already");
                holds_text(o, name, "theirs");
        }
        df_objects_close(o);
}

static void test_put_match(void **state)
{
        static const struct {
                const char *fault;
                int want;
                const char *stored;
                const char *text;
        } cases[] = {
                {"503.2", 0, "mine", ""},
                {"lost.1", 0, "mine", ""},
                {"lost.4", 0, "mine", ""},
                {"lost.9", 0, "mine", ""},
                {"taken.1", DF_EDOUBT, "somebody else", "may have been stored"},
                {"drop.2", 0, "mine", ""},
                {"mute.9", 0, "mine", ""}, /* the version is asked for */
                {"503.9", DF_EAGAIN, "old", "nothing was stored"},
                {"502.9", DF_EDOUBT, "old", "may have been stored"},
                {"drop.9", DF_EDOUBT, "old", "may have been stored"},
                {"404.1", 0, "mine", ""}, /* it is there, and of the version to replace */
                {"412.1", 0, "mine", ""},
                {"403.1", DF_EINVAL, "old", "403"},
        };
        struct df_objects *o = fresh("");

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct df_object_version was, now = {0}, read;
                char name[64];
                int rc;

                (void)snprintf(name, sizeof(name), "m%zu/h=%s", i, cases[i].fault);
                put_text(o, name, "old");
                must_hold(o, name, df_bytes_str("old"), &was);
                err = (struct df_error){0};
                rc = df_objects_put_match(o, name, df_bytes_str("mine"), &was, &now, &err);
                if (rc != cases[i].want || !strstr(err.text, cases[i].text))
                        fail_msg("seed %" PRIu64 ": %s: %s \"%s\"", dice_seed, name,
                                 df_err_code(err.code), err.text);
                must_hold(o, name, df_bytes_str(cases[i].stored), &read);
                if (rc == 0)
                        assert_string_equal(now.text, read.text);
        }
        df_objects_close(o);
}

static void test_reads(void **state)
{
        static const struct {
                const char *fault;
                int want;
                const char *text;
        } cases[] = {
                {"503.4", 0, ""},
                {"503.9", DF_EAGAIN, "503"},
                {"drop.2", 0, ""},
                {"drop.9", DF_EAGAIN, "gave up after 5 tries"},
                {"lost.1", 0, ""},
                {"short.2", 0, ""},
                {"short.9", DF_EAGAIN, ""},
                {"403.9", DF_EINVAL, "403"},
                {"404.9", DF_ENOENT, "no object"},
        };
        struct df_objects *o = fresh("");

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                for (int what = 0; what < 2; what++) {
                        struct df_buf got = {0};
                        char name[64];
                        int rc;

                        (void)snprintf(name, sizeof(name), "r%zu-%d/g=%s", i, what, cases[i].fault);
                        put_text(o, name, "0123456789");
                        df_buf_append(&got, ">", 1);
                        err = (struct df_error){0};
                        rc = what ? df_objects_get_range(o, name, 2, 3, &got, &err)
                                  : df_objects_get(o, name, &got, NULL, &err);
                        if (rc != cases[i].want || !strstr(err.text, cases[i].text))
                                fail_msg("seed %" PRIu64 ": %s: %s \"%s\"", dice_seed, name,
                                         df_err_code(err.code), err.text);
                        df_buf_append(&got, "", 1); /* on failure nothing was appended */
                        assert_string_equal(got.data, rc ? ">" : what ? ">234" : ">0123456789");
                        df_buf_release(&got);
                }
        df_objects_close(o);
}

/* Over real HTTP: a store that does not know the conditions is refused by name. */
static void test_deaf_store(void **state)
{
        struct df_objects *o = fresh("/f=deaf.9");

        fails(df_objects_check(o, &err), DF_ESCHEMA, "put_absent stores only where nothing is");
        must_list(o, "", "");
        df_objects_close(o);
        o = fresh("/h=deaf.9");
        fails(df_objects_check(o, &err), DF_ESCHEMA, "put_match replaces only the version");
        must_list(o, "", "");
        df_objects_close(o);
        o = fresh("/g=mute.99");
        fails(df_objects_check(o, &err), DF_ESCHEMA, "entity tag of 0 bytes");
        df_objects_close(o);
}

/* DF_OBJECT_VERSION_MAX and DF_HTTP_VALUE_MAX, and one beyond each. */
static void test_long_versions(void **state)
{
        struct df_objects *o = fresh("");
        struct df_object_version v;

        put_text(o, "1/g=tag128.1", "x");
        must_hold(o, "1/g=tag128.1", df_bytes_str("x"), &v);
        assert_int_equal(strlen(v.text), DF_OBJECT_VERSION_MAX);
        put_text(o, "2/g=tag129.1", "x");
        fails(df_objects_get(o, "2/g=tag129.1", &(struct df_buf){0}, &v, &err), DF_ESCHEMA,
              "129 bytes");
        put_text(o, "3/g=tag255.1", "x");
        must_hold(o, "3/g=tag255.1", df_bytes_str("x"), NULL);
        put_text(o, "4/g=tag256.9", "x");
        fails(df_objects_get(o, "4/g=tag256.9", &(struct df_buf){0}, NULL, &err), DF_ELIMIT,
              "more than 255 bytes");
        df_objects_close(o);
}

/* ---- settings ---- */

/* Opens with one setting changed; the first call must fail. */
static void must_refuse(struct df_objects_options o, int want, const char *part)
{
        struct df_objects *store = NULL;

        ok(df_objects_open(&o, &store, &err));
        ((struct dfi_s3 *)(void *)store)->backoff_ms = 1;
        fails(df_objects_check(store, &err), want, part);
        if (strstr(err.text, S3_SECRET))
                fail_msg("the secret is in: %s", err.text);
        df_objects_close(store);
}

static void test_settings(void **state)
{
        struct df_objects_options o = options_of("s3:" S3_BUCKET "/settings");

        o.s3_secret_key = "another";
        must_refuse(o, DF_EINVAL, "s3:adtally-test/settings at http");
        must_refuse(o, DF_EINVAL,
                    "check the access key adtally-test-key, which comes from the test");
        o = options_of("s3:" S3_BUCKET "/settings");
        o.s3_region = "us-east-1";
        must_refuse(o, DF_EINVAL, "403");
        o = options_of("s3:no-such-bucket/settings");
        must_refuse(o, DF_ENOENT, "there is no such bucket");
        o = options_of("s3:" S3_BUCKET "/settings");
        o.s3_endpoint = "http://127.0.0.1:1";
        must_refuse(o, DF_EAGAIN, "nothing was stored after 5 tries");
        must_refuse(o, DF_EAGAIN, "not sent");
}

/* A token is one more signed header, the server sees to that. */
static void test_session_token(void **state)
{
        struct df_objects_options o = options_of("s3:" S3_BUCKET);
        struct df_objects *store = NULL;

        o.s3_session_token = "FwoGZXIvYXdzEJr//////////wEaD+abc/=";
        ok(df_objects_open(&o, &store, &err));
        ok(df_objects_check(store, &err));
        df_objects_close(store);
}

static void test_open(void **state)
{
        static const char *const places[] = {
                "s3:",          "s3:ab",         "s3:Bucket",        "s3:-bucket",
                "s3:bucket-",   "s3:b_cket",     "s3:bucket/Prefix", "s3:bucket/a//b",
                "s3:bucket/a/", "s3:bucket/../x"};
        struct df_objects *store = NULL;
        struct df_objects_options o;

        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
                o = options_of(places[i]);
                fails(df_objects_open(&o, &store, &err), DF_EINVAL, places[i]);
        }
        o = options_of("s3:" S3_BUCKET);
        o.s3_endpoint = "127.0.0.1:9000";
        fails(df_objects_open(&o, &store, &err), DF_EINVAL, "https://HOST:PORT");
        o = options_of("s3:" S3_BUCKET);
        o.s3_secret_key = NULL;
        fails(df_objects_open(&o, &store, &err), DF_EINVAL, "from the test");
        o = options_of("s3:" S3_BUCKET);
        o.s3_access_key = "a\r\nb: c";
        fails(df_objects_open(&o, &store, &err), DF_EINVAL, "access key");
        o = options_of("s3:" S3_BUCKET);
        o.s3_session_token = "a\r\nb: c";
        fails(df_objects_open(&o, &store, &err), DF_EINVAL, "session token");
        o = options_of("s3:" S3_BUCKET);
        o.s3_region = "eu/../x";
        fails(df_objects_open(&o, &store, &err), DF_EINVAL, "region");
        assert_null(store);
}

/* On AWS the bucket is the host's first part, unless no certificate would fit. */
static void test_addresses(void **state)
{
        static const struct {
                const char *place, *region, *url;
        } cases[] = {
                {"s3:bucket", NULL, "https://bucket.s3.us-east-1.amazonaws.com"},
                {"s3:bucket/a/b", "eu-west-1", "https://bucket.s3.eu-west-1.amazonaws.com"},
                {"s3:my.bucket", "eu-west-1", "https://s3.eu-west-1.amazonaws.com/my.bucket"},
                {"s3:bucket", "cn-north-1", "https://bucket.s3.cn-north-1.amazonaws.com.cn"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct df_objects_options o = options_of(cases[i].place);
                struct df_objects *store = NULL;

                o.s3_endpoint = NULL;
                o.s3_region = cases[i].region;
                ok(df_objects_open(&o, &store, &err));
                assert_string_equal(((struct dfi_s3 *)(void *)store)->bucket_url, cases[i].url);
                df_objects_close(store);
        }
}

/* ---- lists ---- */

/* In pages of 1 to 12 keys, beside keys that are no names of ours, and beside other prefixes. */
static void test_pages(void **state)
{
        static const char *const foreign[] = {"B & <c> \"d\"", "\xc3\xa4", "x//y", "a/.tmp-1",
                                              "a b+c"};
        struct df_objects *o = fresh(""), *longer;
        struct dfi_s3 *s = (struct dfi_s3 *)(void *)o;
        char place[200], want[1024] = "";

        (void)snprintf(place, sizeof(place), "s3:%s/%.*s0", S3_BUCKET, (int)strlen(s->prefix) - 1,
                       s->prefix);
        longer = open_place(place); /* its prefix begins with the other's */
        put_text(longer, "a/0", "not yours");
        for (int i = 0; i < 10; i++) {
                char name[16];

                (void)snprintf(name, sizeof(name), "a/%d", i);
                put_text(o, name, "x");
                (void)snprintf(want + strlen(want), sizeof(want) - strlen(want), "%s:1 ", name);
        }
        for (size_t i = 0; i < sizeof(foreign) / sizeof(foreign[0]); i++) {
                struct dfi_s3_call c = {.method = "PUT",
                                        .name = foreign[i],
                                        .body = df_bytes_str("x"),
                                        .answer_max = DFI_S3_ERROR_MAX};

                ok(dfi_s3_call(s, &c, &err));
                assert_int_equal(c.status, 200);
                dfi_s3_release(&c);
        }
        for (s->page = 1; s->page <= 17; s->page++) {
                must_list(o, "", want);
                must_list(o, "a/", want);
        }
        must_list(o, "a/3", "a/3:1 ");
        must_list(longer, "", "a/0:9 ");
        df_objects_close(longer);
        df_objects_close(o);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_put_absent),    cmocka_unit_test(test_put_absent_second),
                cmocka_unit_test(test_put_match),     cmocka_unit_test(test_reads),
                cmocka_unit_test(test_deaf_store),    cmocka_unit_test(test_settings),
                cmocka_unit_test(test_session_token), cmocka_unit_test(test_long_versions),
                cmocka_unit_test(test_open),          cmocka_unit_test(test_addresses),
                cmocka_unit_test(test_pages),
        };

        if (!getenv("TEST_S3"))
                return SKIPPED;
        roll_seed();
        return cmocka_run_group_tests_name("objects_faults", tests, NULL, NULL);
}
