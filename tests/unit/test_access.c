/* Who may do what (DESIGN section 4, "Access"): keys and classes, origins, the rules without a keys
 * file, the file's own errors, and its rereading. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/run.h"
#include "df/sha256.h"
#include "jobs/common/access.h"

#define HEADERS_MAX 8

static char dir[256], path[300];

static int setup(void **state)
{
        const char *tmp = getenv("TMPDIR");

        (void)snprintf(dir, sizeof(dir), "%s/access-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(dir))
                return -1;
        (void)snprintf(path, sizeof(path), "%s/keys", dir);
        return 0;
}

static int teardown(void **state)
{
        (void)unlink(path);
        return rmdir(dir);
}

static void put_file(const char *text)
{
        assert_int_equal(df_write_file(path, df_bytes_str(text), false, NULL), 0);
}

/* A request from headers "name: value" lines; names in lower case, as the server hands them on. */
struct request {
        struct df_http_request r;
        struct df_http_field headers[HEADERS_MAX];
};

static struct request *make(struct request *q, bool loopback, const char *lines)
{
        *q = (struct request){.r = {.method = DF_HTTP_POST,
                                    .path = df_bytes_str("/events"),
                                    .headers = q->headers,
                                    .peer = loopback ? "127.0.0.1" : "192.0.2.1",
                                    .peer_loopback = loopback}};
        while (*lines) {
                const char *colon = strchr(lines, ':'), *nl = strchr(lines, '\n');
                size_t len = nl ? (size_t)(nl - lines) : strlen(lines);

                assert_non_null(colon);
                assert_true(q->r.header_count < HEADERS_MAX);
                q->headers[q->r.header_count++] = (struct df_http_field){
                        .name = df_bytes(lines, (size_t)(colon - lines)),
                        .value = df_bytes(colon + 2, len - (size_t)(colon + 2 - lines))};
                lines += len + (nl != NULL);
        }
        return q;
}

/* ---- without a keys file ---- */

static const struct {
        bool loopback;
        const char *headers;
        int status; /* 0 = served */
} local[] = {
        {true, "host: localhost", 0},
        {true, "host: LocalHost:8480", 0},
        {true, "host: 127.0.0.1", 0},
        {true, "host: 127.0.0.1:8480", 0},
        {true, "host: 127.255.0.3:1", 0},
        {true, "host: [::1]", 0},
        {true, "host: [::1]:8480", 0},
        {true, "host: localhost\norigin: http://localhost:3000", 0},
        {true, "host: localhost\norigin: https://127.0.0.1", 0},
        {true, "host: localhost\norigin: http://[::1]:8480", 0},
        /* DNS rebinding: a foreign name that resolves to this machine */
        {true, "host: evil.example", 403},
        {true, "host: evil.example:8480", 403},
        {true, "host: localhost.evil.example", 403},
        {true, "host: localhostx", 403},
        {true, "host: 127.0.0.1.evil.example", 403},
        {true, "host: 127.1", 403},
        {true, "host: 128.0.0.1", 403},
        {true, "host: 0.0.0.0", 403},
        {true, "host: 10.0.0.1", 403},
        {true, "host: [::2]:80", 403},
        {true, "host: [::1]evil", 403},
        {true, "host: localhost:80@evil", 403},
        {true, "host: ", 403},
        {true, "", 403},
        /* a proxy on this machine */
        {true, "host: localhost\nforwarded: for=192.0.2.1", 403},
        {true, "host: localhost\nx-forwarded-for: 192.0.2.1", 403},
        {true, "host: localhost\nx-forwarded-proto: https", 403},
        {true, "host: localhost\nx-real-ip: 192.0.2.1", 403},
        {true, "host: localhost\nvia: 1.1 proxy", 403},
        {true, "host: localhost\nx-forward: 1", 0},
        /* a page of another site in this machine's browser */
        {true, "host: localhost\norigin: https://evil.example", 403},
        {true, "host: localhost\norigin: http://localhost.evil.example", 403},
        {true, "host: localhost\norigin: http://localhost@evil.example", 403},
        {true, "host: localhost\norigin: null", 403},
        {true, "host: localhost\norigin: ", 403},
        {true, "host: localhost\norigin: file://", 403},
        {true, "host: localhost\norigin: localhost", 403},
        /* another machine */
        {false, "host: localhost", 403},
        {false, "host: 127.0.0.1", 403},
};

static void test_without_keys_only_this_machine(void **state)
{
        struct ad_access *a = NULL;

        assert_int_equal(ad_access_open(NULL, "127.0.0.1:0", &a, NULL), 0);
        for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++)
                for (int want = AD_MAY_INGEST; want <= AD_MAY_ADMIN; want++) {
                        struct request q;
                        struct ad_identity id = {0};
                        struct ad_denial d = {0};
                        bool served = ad_access_check(
                                a, &make(&q, local[i].loopback, local[i].headers)->r,
                                (enum ad_permission)want, &id, &d);

                        if (served != (local[i].status == 0) || d.status != local[i].status)
                                fail_msg("%s: %s, status %d", local[i].headers,
                                         served ? "served" : "refused", d.status);
                        if (!served) {
                                assert_string_equal(d.code, "forbidden");
                                assert_non_null(strstr(d.message, "--keys")); /* what to do */
                                continue;
                        }
                        assert_string_equal(id.tenant, "default");
                        assert_int_equal(id.key_class, AD_KEY_ADMIN);
                        assert_true(id.money_allowed);
                }
        ad_access_close(a);
}

static void test_refuses_to_listen_to_the_world_without_keys(void **state)
{
        static const char *const open_to_all[] = {"0.0.0.0:80",   "[::]:80",        ":80",
                                                  "192.0.2.1:80", "example.com:80", "*:80",
                                                  "128.0.0.1:80"};
        static const char *const closed[] = {"127.0.0.1:0", "localhost:8480", "[::1]:80",
                                             "127.9.9.9:1"};

        for (size_t i = 0; i < sizeof(open_to_all) / sizeof(open_to_all[0]); i++) {
                struct ad_access *a = NULL;
                struct df_error err = {0};

                assert_int_equal(ad_access_open(NULL, open_to_all[i], &a, &err), DF_EINVAL);
                assert_null(a);
                assert_non_null(strstr(err.text, open_to_all[i]));
                assert_non_null(strstr(err.text, "--keys"));
        }
        for (size_t i = 0; i < sizeof(closed) / sizeof(closed[0]); i++) {
                struct ad_access *a = NULL;

                assert_int_equal(ad_access_open(NULL, closed[i], &a, NULL), 0);
                ad_access_close(a);
        }
        put_file("k1 admin t 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\n");
        {
                struct ad_access *a = NULL;

                assert_int_equal(ad_access_open(path, "0.0.0.0:80", &a, NULL), 0);
                ad_access_close(a);
        }
}

/* ---- with one ---- */

/* SHA-256 of "test" is public knowledge: an independent oracle for the hash in the file. */
#define TEST_HASH "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

static const char keys_text[] =
        "# comment\n"
        "\n"
        "pub  public  shop  " TEST_HASH
        "  origins=https://a.example,https://b.example:8443  my shop\r\n"
        "any public app " TEST_HASH " origins=*\n"
        "\tsrv server acme " TEST_HASH " tracker in Frankfurt\n"
        "rd read acme " TEST_HASH "\n"
        "fin finance acme 9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B2B0B822CD15D6C15B0F00A08\n"
        "adm admin acme.eu " TEST_HASH; /* no newline at the end */

static struct ad_access *open_keys(const char *text)
{
        struct ad_access *a = NULL;
        struct df_error err = {0};

        put_file(text);
        if (ad_access_open(path, "0.0.0.0:80", &a, &err) != 0)
                fail_msg("%s", err.text);
        return a;
}

static int check(struct ad_access *a, const char *headers, enum ad_permission want,
                 struct ad_identity *id)
{
        struct request q;
        struct ad_denial d = {0};

        *id = (struct ad_identity){0};
        if (ad_access_check(a, &make(&q, false, headers)->r, want, id, &d))
                return 0;
        assert_true(d.message[0]);
        assert_string_equal(d.code, d.status == 401 ? "unauthorized" : "forbidden");
        return d.status;
}

static void test_classes(void **state)
{
        static const struct {
                const char *id, *tenant;
                int status[4]; /* ingest, read, finance, admin */
                bool money;
        } want[] = {
                {"pub", "shop", {0, 403, 403, 403}, false},
                {"srv", "acme", {0, 403, 403, 403}, true},
                {"rd", "acme", {403, 0, 403, 403}, true},
                {"fin", "acme", {403, 0, 0, 403}, true},
                {"adm", "acme.eu", {0, 0, 0, 0}, true},
        };
        struct ad_access *a = open_keys(keys_text);

        for (size_t i = 0; i < sizeof(want) / sizeof(want[0]); i++)
                for (int p = 0; p < 4; p++) {
                        struct ad_identity id;
                        char headers[200];

                        (void)snprintf(headers, sizeof(headers),
                                       "host: x.example\nauthorization: Bearer %s.test\n"
                                       "origin: https://a.example",
                                       want[i].id);
                        assert_int_equal(check(a, headers, (enum ad_permission)p, &id),
                                         want[i].status[p]);
                        if (want[i].status[p])
                                continue;
                        assert_string_equal(id.tenant, want[i].tenant);
                        assert_string_equal(id.key_id, want[i].id);
                        assert_int_equal(id.money_allowed, want[i].money);
                }
        ad_access_close(a);
}

static void test_bad_credentials_are_401(void **state)
{
        static const char *const headers[] = {
                "host: localhost", /* also from this machine: a keys file asks everybody */
                "authorization: ",
                "authorization: Bearer",
                "authorization: Bearer ",
                "authorization: Bearer srv",
                "authorization: Bearer srv.",
                "authorization: Bearer .test",
                "authorization: Bearer srv.tesT",
                "authorization: Bearer srv.test1",
                "authorization: Bearer srv.tes",
                "authorization: Bearer srv.test.test",
                "authorization: Bearer nobody.test",
                "authorization: Bearer SRV.test",
                "authorization: Basic srv.test",
                "authorization: srv.test",
                "authorization: Bearer "
                "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.test",
        };
        struct ad_access *a = open_keys(keys_text);
        struct ad_identity id;

        for (size_t i = 0; i < sizeof(headers) / sizeof(headers[0]); i++)
                if (check(a, headers[i], AD_MAY_INGEST, &id) != 401)
                        fail_msg("%s: not 401", headers[i]);
        assert_int_equal(check(a, "authorization: bearer  srv.test", AD_MAY_INGEST, &id), 0);
        ad_access_close(a);
}

static void test_public_keys_are_bound_to_origins(void **state)
{
        struct ad_access *a = open_keys(keys_text);
        struct ad_identity id;

        assert_int_equal(check(a, "authorization: Bearer pub.test\norigin: https://b.example:8443",
                               AD_MAY_INGEST, &id),
                         0);
        assert_true(id.origin.len > 0);
        assert_int_equal(check(a, "authorization: Bearer pub.test\norigin: https://b.example",
                               AD_MAY_INGEST, &id),
                         403);
        assert_int_equal(check(a, "authorization: Bearer pub.test\norigin: http://a.example",
                               AD_MAY_INGEST, &id),
                         403);
        assert_int_equal(check(a, "authorization: Bearer pub.test", AD_MAY_INGEST, &id), 403);
        assert_int_equal(check(a, "authorization: Bearer any.test", AD_MAY_INGEST, &id), 0);
        assert_int_equal(id.origin.len, 0);
        assert_int_equal(check(a, "authorization: Bearer any.test\norigin: https://c.example",
                               AD_MAY_INGEST, &id),
                         0);
        assert_true(ad_access_origin_listed(a, df_bytes_str("https://c.example"))); /* by "any" */
        ad_access_close(a);
        a = open_keys("pub public shop " TEST_HASH " origins=https://a.example\n"
                      "srv server shop " TEST_HASH "\n");
        assert_true(ad_access_origin_listed(a, df_bytes_str("https://a.example")));
        assert_false(ad_access_origin_listed(a, df_bytes_str("https://c.example")));
        ad_access_close(a);
}

static void test_bad_file_is_refused_by_line(void **state)
{
        static const struct {
                const char *text, *part;
        } bad[] = {
                {"", "no key"},
                {"# nothing\n", "no key"},
                {"k1 server t " TEST_HASH "\nk 2 server t " TEST_HASH "\n", "line 2"},
                {"k.1 server t " TEST_HASH, "line 1"},
                {"k1 owner t " TEST_HASH, "line 1"},
                {"k1 Server t " TEST_HASH, "line 1"},
                {"k1 server t/u " TEST_HASH, "line 1"},
                {"\n\nk1 server t abc", "line 3"},
                {"k1 server t " TEST_HASH "0", "line 1"},
                {"k1 server t g" TEST_HASH, "line 1"},
                {"k1 server", "line 1"},
                {"k1 public t " TEST_HASH, "origins="},
                {"k1 public t " TEST_HASH " origins=", "line 1"},
                {"k1 public t " TEST_HASH " origins=a.example", "line 1"},
                {"k1 public t " TEST_HASH " origins=https://a.example/", "line 1"},
                {"k1 public t " TEST_HASH " origins=https://A.example", "line 1"},
                {"k1 public t " TEST_HASH " origins=https://a.example,", "line 1"},
                {"k1 public t " TEST_HASH " origins=https://*.example", "line 1"},
                {"k1 server t " TEST_HASH " origins=https://a.example", "public"},
                {"k1 server t " TEST_HASH " rate=0", "rate="},
                {"k1 server t " TEST_HASH " rate=", "rate="},
                {"k1 server t " TEST_HASH " rate=1.5", "rate="},
                {"k1 server t " TEST_HASH " rate=99999999999999999999", "rate="},
                {"k1 server t " TEST_HASH "\n#\nk1 read t " TEST_HASH, "lines 1 and 3"},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct ad_access *a = NULL;
                struct df_error err = {0};

                put_file(bad[i].text);
                assert_int_equal(ad_access_open(path, "127.0.0.1:0", &a, &err), DF_EPARSE);
                assert_null(a);
                if (!strstr(err.text, bad[i].part) || !strstr(err.text, path))
                        fail_msg("%s: %s", bad[i].text, err.text);
        }
        (void)unlink(path);
        {
                struct ad_access *a = NULL;
                struct df_error err = {0};

                assert_true(ad_access_open(path, "127.0.0.1:0", &a, &err) < 0);
                assert_non_null(strstr(err.text, path));
        }
}

static void test_file_is_reread(void **state)
{
        struct ad_access *a = open_keys("k1 server t " TEST_HASH "\n");
        struct df_error err = {0};
        struct ad_identity id;

        assert_int_equal(ad_access_refresh(a, &err), 0);
        assert_int_equal(check(a, "authorization: Bearer k1.test", AD_MAY_INGEST, &id), 0);
        put_file("k2 server u " TEST_HASH "\n");
        assert_int_equal(ad_access_refresh(a, &err), 0);
        assert_int_equal(check(a, "authorization: Bearer k1.test", AD_MAY_INGEST, &id), 401);
        assert_int_equal(check(a, "authorization: Bearer k2.test", AD_MAY_INGEST, &id), 0);
        assert_string_equal(id.tenant, "u");
        /* A bad file is told once, and what was read before stays in force. */
        put_file("broken\n");
        assert_int_equal(ad_access_refresh(a, &err), DF_EPARSE);
        assert_int_equal(ad_access_refresh(a, &err), 0);
        assert_int_equal(check(a, "authorization: Bearer k2.test", AD_MAY_INGEST, &id), 0);
        (void)unlink(path);
        assert_true(ad_access_refresh(a, &err) < 0);
        assert_int_equal(ad_access_refresh(a, &err), 0);
        assert_int_equal(check(a, "authorization: Bearer k2.test", AD_MAY_INGEST, &id), 0);
        put_file("k1 server t " TEST_HASH "\n");
        assert_int_equal(ad_access_refresh(a, &err), 0);
        assert_int_equal(check(a, "authorization: Bearer k1.test", AD_MAY_INGEST, &id), 0);
        ad_access_close(a);
}

static void test_made_keys_work(void **state)
{
        static const struct ad_key_options good[] = {
                {.key_class = AD_KEY_SERVER, .tenant = "acme", .name = "tracker in Frankfurt"},
                {.key_class = AD_KEY_PUBLIC, .tenant = "acme", .origins = "https://a.example"},
                {.key_class = AD_KEY_ADMIN, .tenant = "acme"},
        };
        static const struct ad_key_options bad[] = {
                {.key_class = AD_KEY_SERVER, .tenant = "a b"},
                {.key_class = AD_KEY_SERVER, .tenant = ""},
                {.key_class = AD_KEY_SERVER, .tenant = "a", .origins = "https://a.example"},
                {.key_class = AD_KEY_PUBLIC, .tenant = "a"},
                {.key_class = AD_KEY_PUBLIC, .tenant = "a", .origins = "https://a.example/path"},
                {.key_class = AD_KEY_SERVER, .tenant = "a", .name = "x\nk2 admin a " TEST_HASH},
        };
        char tokens[3][AD_KEY_TOKEN_SIZE];
        struct df_buf file = {0};
        struct ad_access *a;

        for (size_t i = 0; i < 3; i++)
                assert_int_equal(ad_access_make_key(&good[i], &file, tokens[i], NULL), 0);
        assert_string_not_equal(tokens[0], tokens[2]);
        df_put_u8(&file, 0);
        for (size_t i = 0; i < 3; i++) /* the secret itself is nowhere in the file */
                assert_null(strstr((const char *)file.data, strchr(tokens[i], '.') + 1));
        a = open_keys((const char *)file.data);
        for (size_t i = 0; i < 3; i++) {
                struct ad_identity id;
                char headers[320];

                (void)snprintf(headers, sizeof(headers),
                               "authorization: Bearer %s\norigin: https://a.example", tokens[i]);
                assert_int_equal(check(a, headers, AD_MAY_INGEST, &id), 0);
                assert_int_equal(id.key_class, good[i].key_class);
        }
        ad_access_close(a);
        df_buf_clear(&file);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct df_error err = {0};

                assert_int_equal(ad_access_make_key(&bad[i], &file, tokens[0], &err), DF_EINVAL);
                assert_true(err.text[0]);
        }
        assert_int_equal(file.len, 0);
        df_buf_release(&file);
}

/* 429: two seconds of the rate pass at once, then one event a period; a debt runs off with time. */
static void test_rate(void **state)
{
        struct ad_access *a = open_keys("k1 server t " TEST_HASH " rate=100 name\n"
                                        "k2 public t " TEST_HASH " rate=1 origins=*\n"
                                        "k3 server t " TEST_HASH "\n");
        struct ad_identity k1 = {.key_id = "k1"}, k2 = {.key_id = "k2"}, k3 = {.key_id = "k3"};
        struct df_error err = {0};
        int64_t passed = 0;

        for (int i = 0; i < 1000; i++)
                passed += ad_access_charge(a, &k1, 1, 5000) == 0;
        assert_int_equal(passed, 201); /* 2 s of debt, and the event that reaches it */
        assert_true(ad_access_charge(a, &k1, 0, 5000) > 0);
        for (int64_t t = 5000; t < 15000; t++)
                passed += ad_access_charge(a, &k1, 1, t) == 0;
        assert_in_range(passed, 201 + 995, 201 + 1000); /* 10 s at 100/s */
        /* A large batch passes, and pays afterwards; asking costs nothing. */
        assert_int_equal(ad_access_charge(a, &k2, 100, 1000), 0);
        assert_int_equal(ad_access_charge(a, &k2, 0, 1000), 98000);
        assert_int_equal(ad_access_charge(a, &k2, 0, 50000), 49000);
        assert_int_equal(ad_access_charge(a, &k2, 0, 99000), 0);
        for (int i = 0; i < 100; i++)
                assert_int_equal(ad_access_charge(a, &k3, 1000000, 5000), 0);
        /* The debt outlives a change of the file. */
        put_file("k2 server t " TEST_HASH " rate=1\n");
        assert_int_equal(ad_access_refresh(a, &err), 0);
        assert_int_equal(ad_access_charge(a, &k2, 0, 1000), 98000);
        ad_access_close(a);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_without_keys_only_this_machine),
                cmocka_unit_test(test_refuses_to_listen_to_the_world_without_keys),
                cmocka_unit_test(test_classes),
                cmocka_unit_test(test_bad_credentials_are_401),
                cmocka_unit_test(test_public_keys_are_bound_to_origins),
                cmocka_unit_test(test_bad_file_is_refused_by_line),
                cmocka_unit_test(test_file_is_reread),
                cmocka_unit_test(test_made_keys_work),
                cmocka_unit_test(test_rate),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
