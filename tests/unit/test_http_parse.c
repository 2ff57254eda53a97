/* The grammar of df/net.h, form by form, and RELIABILITY 5.2: each form the library server let pass
 * is refused here, whatever the way the bytes are cut. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/net/parse.h"

#define HOST "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n"
#define POST "POST /e HTTP/1.1\r\n" HOST
#define CHUNKED POST "Transfer-Encoding: chunked\r\n\r\n"
#define RESULT_MAX 65536

/* What came of some bytes, as text: "200 POST /e len=5 ..." or "400 why". */
struct result {
        char text[RESULT_MAX];
        size_t len;
};

static void say(struct result *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(struct result *r, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        r->len += (size_t)vsnprintf(r->text + r->len, sizeof(r->text) - r->len, fmt, ap);
        va_end(ap);
        assert_true(r->len < sizeof(r->text));
}

/* In exact-size memory, so that a read beyond the end is seen. */
static uint8_t *exact(const void *data, size_t len)
{
        uint8_t *p = malloc(len ? len : 1);

        assert_non_null(p);
        if (len)
                memcpy(p, data, len);
        return p;
}

static void say_chunks(struct result *r, const uint8_t *p, size_t have, size_t size)
{
        struct dfi_chunks c = {0};
        struct dfi_refusal bad;
        size_t at = 0, stop = have;

        say(r, " body=");
        for (;;) {
                struct df_bytes body;
                size_t used;
                uint8_t *copy;
                enum dfi_parse result;

                if (at == stop)
                        stop = size;
                if (at == stop) {
                        say(r, "...");
                        return;
                }
                copy = exact(p + at, stop - at);
                result = dfi_chunks_feed(&c, df_bytes(copy, stop - at), &used, &body, &bad);
                if (body.len)
                        say(r, "%.*s", (int)body.len, (const char *)body.data);
                free(copy);
                at += used;
                if (result == DFI_BAD)
                        say(r, "; %d %s", bad.status, bad.why);
                if (result == DFI_DONE)
                        say(r, "; end at -%zu", size - at);
                if (result != DFI_MORE)
                        return;
        }
}

static struct dfi_head head;

/* First the bytes up to cut are there, then all of them. */
static void parse(const void *data, size_t size, size_t cut, struct result *r)
{
        uint8_t *part = exact(data, cut), *all = exact(data, size);
        struct dfi_refusal bad = {0};
        size_t at = 0;
        enum dfi_parse result = dfi_scan(part, cut, &at, &bad);

        free(part);
        r->len = 0;
        r->text[0] = '\0';
        if (result == DFI_MORE)
                result = dfi_scan(all, size, &at, &bad);
        if (result == DFI_DONE)
                result = dfi_head_parse(&head, all, at, &bad);
        if (result == DFI_MORE)
                say(r, "more");
        else if (result == DFI_BAD)
                say(r, "%d %s", bad.status, bad.why);
        if (result == DFI_DONE) {
                say(r, "200 %d %.*s", (int)head.method, (int)head.path.len,
                    (const char *)head.path.data);
                if (head.query.len)
                        say(r, "?%.*s", (int)head.query.len, (const char *)head.query.data);
                if (head.length == UINT64_MAX)
                        say_chunks(r, all + at, cut > at ? cut - at : 0, size - at);
                else if (head.has_length)
                        say(r, " length=%llu", (unsigned long long)head.length);
                say(r, "%s%s%s", head.http10 ? " 1.0" : "", head.close ? " close" : "",
                    head.expect ? " expect" : "");
        }
        free(all);
}

/* The result is expected (or begins so, when it ends with '*') at every cut. */
static void check_bytes(const void *data, size_t size, const char *expected)
{
        static struct result whole, r;
        size_t n = strlen(expected);

        parse(data, size, size, &whole);
        if (n && expected[n - 1] == '*' ? strncmp(whole.text, expected, n - 1) != 0
                                        : strcmp(whole.text, expected) != 0)
                fail_msg("\"%.200s\" gave \"%s\", not \"%s\"", (const char *)data, whole.text,
                         expected);
        for (size_t cut = 0; cut < size; cut++) {
                parse(data, size, cut, &r);
                if (strcmp(r.text, whole.text) != 0)
                        fail_msg("\"%.200s\" cut at %zu gave \"%s\", whole \"%s\"",
                                 (const char *)data, cut, r.text, whole.text);
        }
}

struct form {
        const char *text;
        const char *expected;
};

static void check_forms(const struct form *forms, size_t count)
{
        for (size_t i = 0; i < count; i++)
                check_bytes(forms[i].text, strlen(forms[i].text), forms[i].expected);
}
#define CHECK(forms) check_forms(forms, sizeof(forms) / sizeof((forms)[0]))

static void test_accepted(void **state)
{
        static const struct form forms[] = {
                {GET HOST "\r\n", "200 1 /"},
                {"HEAD /x HTTP/1.1\r\n" HOST "\r\n", "200 2 /x"},
                {"POST /x HTTP/1.1\r\n" HOST "\r\n", "200 4 /x"},
                {"OPTIONS /x HTTP/1.1\r\n" HOST "\r\n", "200 8 /x"},
                {"PUT /x HTTP/1.1\r\n" HOST "\r\n", "200 0 /x"},
                {"get /x HTTP/1.1\r\n" HOST "\r\n", "200 0 /x"},
                {"GET /x HTTP/1.0\r\n" HOST "\r\n", "200 1 /x 1.0 close"},
                {"GET /a/b?c=d&e HTTP/1.1\r\n" HOST "\r\n", "200 1 /a/b?c=d&e"},
                {"GET /? HTTP/1.1\r\n" HOST "\r\n", "200 1 /"},
                {"GET /v1/events HTTP/1.1\r\n" HOST "\r\n", "200 1 /events"},
                {"GET /v1 HTTP/1.1\r\n" HOST "\r\n", "200 1 /"},
                {"GET /v1/ HTTP/1.1\r\n" HOST "\r\n", "200 1 /"},
                {"GET /v1x HTTP/1.1\r\n" HOST "\r\n", "200 1 /v1x"},
                {"GET /v1/v1/x HTTP/1.1\r\n" HOST "\r\n", "200 1 /v1/x"},
                {"GET /a%2Fb HTTP/1.1\r\n" HOST "\r\n", "200 1 /a%2Fb"},
                {POST "Content-Length: 0\r\n\r\n", "200 4 /e length=0"},
                {POST "Content-Length: 5\r\n\r\nhello", "200 4 /e length=5"},
                {POST "content-LENGTH:\t 007 \t\r\n\r\n", "200 4 /e length=7"},
                {POST "Content-Length: 18446744073709551615\r\n\r\n",
                 "200 4 /e length=18446744073709551614"},
                {POST "Content-Length: 99999999999999999999999999\r\n\r\n",
                 "200 4 /e length=18446744073709551614"},
                {CHUNKED "5\r\nhello\r\n0\r\n\r\n", "200 4 /e body=hello; end at -0"},
                {CHUNKED "5\r\nhello\r\n00a\r\n0123456789\r\n0\r\n\r\nGET",
                 "200 4 /e body=hello0123456789; end at -3"},
                {CHUNKED "0000000000000005\r\nhello\r\n0\r\n\r\n",
                 "200 4 /e body=hello; end at -0"},
                {CHUNKED "F\r\n123456789abcdef\r\n0\r\n\r\n",
                 "200 4 /e body=123456789abcdef; end at -0"},
                {CHUNKED "0\r\n\r\n", "200 4 /e body=; end at -0"},
                {CHUNKED "5\r\nhel", "200 4 /e body=hel..."},
                {GET HOST "Connection: close\r\n\r\n", "200 1 / close"},
                {GET HOST "Connection: keep-alive\r\n\r\n", "200 1 /"},
                {GET HOST "Connection: x, CLOSE ,y\r\n\r\n", "200 1 / close"},
                {GET HOST "Connection: closed, notclose\r\n\r\n", "200 1 /"},
                {POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\n",
                 "200 4 /e length=1 expect"},
                {GET "Host: a.b-c_d.example:8480\r\n\r\n", "200 1 /"},
                {GET "Host: 127.0.0.1\r\n\r\n", "200 1 /"},
                {GET "Host: [::1]:80\r\n\r\n", "200 1 /"},
                {GET "Host: [fe80::1]\r\n\r\n", "200 1 /"},
                {GET HOST "X: \t\r\n\r\n", "200 1 /"},
                {GET HOST "X:\xc3\xa4\r\n\r\n", "200 1 /"},
                {GET HOST "X: a\tb\r\n\r\n", "200 1 /"},
                {GET "Host: a\r\n", "more"},
                {"", "more"},
        };

        CHECK(forms);
}

static void test_refused_lines(void **state)
{
        static const struct form forms[] = {
                {"GET / HTTP/1.1\nHost: a\n\n", "400 a line of the head ends with LF alone*"},
                {GET "Host: a\n\r\n", "400 a line of the head ends with LF alone*"},
                {GET "Host: a\r\n\n", "400 a line of the head ends with LF alone*"},
                {GET "Host: a\rX: b\r\n\r\n", "400 *"},
                {"GET / HTTP/1.1\r" HOST "\r\n", "400 *"},
                {GET HOST "X: b\r\n c\r\n\r\n", "400 a header line begins with white space*"},
                {GET HOST "\tX: b\r\n\r\n", "400 a header line begins with white space*"},
                {GET HOST ": b\r\n\r\n", "400 a header has no name"},
                {GET HOST "X : b\r\n\r\n", "400 a header name is not directly followed*"},
                {GET HOST "X\r\n\r\n", "400 a header name is not directly followed*"},
                {GET HOST "X(y): b\r\n\r\n", "400 a header name is not directly followed*"},
                {GET HOST "X: a\x7f\r\n\r\n", "400 a header value holds a control*"},
                {GET HOST "X: a\x01\r\n\r\n", "400 a header value holds a control*"},
                {"\r\n" GET HOST "\r\n", "400 a request begins with its method*"},
                {" GET / HTTP/1.1\r\n" HOST "\r\n", "400 a request begins with its method*"},
                {"\x16\x03\x01", "400 a request begins with its method*"},
                {"GET  / HTTP/1.1\r\n" HOST "\r\n", "400 the request target*"},
                {"GET\t/ HTTP/1.1\r\n" HOST "\r\n", "400 the request line*"},
                {"GET / HTTP/1.1 \r\n" HOST "\r\n", "400 the version*"},
                {"GET /  HTTP/1.1\r\n" HOST "\r\n", "400 the version*"},
                {"GET / HTTP/2.0\r\n" HOST "\r\n", "400 the version*"},
                {"GET / http/1.1\r\n" HOST "\r\n", "400 the version*"},
                {"GET / HTTP/1.10\r\n" HOST "\r\n", "400 the version*"},
                {"GET /\r\n" HOST "\r\n", "400 the path*"},
                {"GET\r\n" HOST "\r\n", "400 the request line*"},
                {"GET http://a/ HTTP/1.1\r\n" HOST "\r\n", "400 the request target*"},
                {"GET * HTTP/1.1\r\n" HOST "\r\n", "400 the request target*"},
                {"GET /a#b HTTP/1.1\r\n" HOST "\r\n", "400 the path*"},
                {"GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n", "400 the path*"},
                {"GET /\x01 HTTP/1.1\r\n" HOST "\r\n", "400 the path*"},
        };

        CHECK(forms);
        check_bytes(GET HOST "X: a\0b\r\n\r\n", sizeof(GET HOST "X: a\0b\r\n\r\n") - 1,
                    "400 a header value holds a control*");
        check_bytes(GET HOST "X\0: b\r\n\r\n", sizeof(GET HOST "X\0: b\r\n\r\n") - 1,
                    "400 a header name is not directly*");
        check_bytes("GET /\0 HTTP/1.1\r\n" HOST "\r\n",
                    sizeof("GET /\0 HTTP/1.1\r\n" HOST "\r\n") - 1, "400 the path*");
}

static void test_refused_hosts(void **state)
{
        static const char *const hosts[] = {"",       "a b",        "a/b",      "a:",    "a:x",
                                            "a:-1",   "a:99999",    "a:123456", "a:1:2", "user@a",
                                            ":80",    "[::1",       "[]",       "[a]:1", "[::1]x",
                                            "[::1]:", "[::1%eth0]", "a,b",      "a%41",  "\xc3\xa4",
                                            "::1",    "[127.0.0.1]"};
        char text[256];

        for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
                (void)snprintf(text, sizeof(text), GET "Host: %s\r\n\r\n", hosts[i]);
                check_bytes(text, strlen(text), "400 Host is not a name*");
        }
        check_bytes(GET "\r\n", strlen(GET "\r\n"), "400 there is no Host header");
        check_bytes("GET / HTTP/1.0\r\n\r\n", 18, "400 there is no Host header");
        check_bytes(GET HOST HOST "\r\n", strlen(GET HOST HOST "\r\n"), "400 Host is stated twice");
}

static void test_refused_lengths(void **state)
{
        static const struct form forms[] = {
                {POST "Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
                 "400 Content-Length is stated twice"},
                {POST "Content-Length: 5\r\nContent-Length: 5\r\n\r\n",
                 "400 Content-Length is stated twice"},
                {POST "Content-Length: +5\r\n\r\n", "400 Content-Length is not digits alone"},
                {POST "Content-Length: -5\r\n\r\n", "400 Content-Length is not digits alone"},
                {POST "Content-Length: 5,5\r\n\r\n", "400 Content-Length is not digits alone"},
                {POST "Content-Length: 5 5\r\n\r\n", "400 Content-Length is not digits alone"},
                {POST "Content-Length: 0x5\r\n\r\n", "400 Content-Length is not digits alone"},
                {POST "Content-Length: 5.0\r\n\r\n", "400 Content-Length is not digits alone"},
                {POST "Content-Length:\r\n\r\n", "400 Content-Length is not digits alone"},
                {POST "Transfer-Encoding: xchunked\r\n\r\n",
                 "400 Transfer-Encoding is not exactly*"},
                {POST "Transfer-Encoding: gzip, chunked\r\n\r\n",
                 "400 Transfer-Encoding is not exactly*"},
                {POST "Transfer-Encoding: chunked, chunked\r\n\r\n",
                 "400 Transfer-Encoding is not exactly*"},
                {POST "Transfer-Encoding: Chunked\r\n\r\n",
                 "400 Transfer-Encoding is not exactly*"},
                {POST "Transfer-Encoding: \"chunked\"\r\n\r\n",
                 "400 Transfer-Encoding is not exactly*"},
                {POST "Transfer-Encoding: identity\r\n\r\n",
                 "400 Transfer-Encoding is not exactly*"},
                {POST "Transfer-Encoding:\r\n\r\n", "400 Transfer-Encoding is not exactly*"},
                {POST "Transfer-Encoding : chunked\r\n\r\n", "400 a header name is not directly*"},
                {POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                 "400 Transfer-Encoding is stated twice"},
                {POST "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
                 "400 Content-Length and Transfer-Encoding exclude*"},
                {POST "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
                 "400 Content-Length and Transfer-Encoding exclude*"},
                {"POST /e HTTP/1.0\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n",
                 "400 HTTP/1.0 has no Transfer-Encoding"},
                {POST "Expect: 200-ok\r\n\r\n", "417 *"},
                {POST "Expect: 100-continue, x\r\n\r\n", "417 *"},
        };

        CHECK(forms);
}

static void test_refused_chunks(void **state)
{
        static const struct form forms[] = {
                {CHUNKED "0x5\r\nhello\r\n0\r\n\r\n", "200 4 /e body=; 400 a chunk size*"},
                {CHUNKED "+5\r\nhello\r\n0\r\n\r\n", "200 4 /e body=; 400 a chunk size*"},
                {CHUNKED "-5\r\nhello\r\n0\r\n\r\n", "200 4 /e body=; 400 a chunk size*"},
                {CHUNKED " 5\r\nhello\r\n0\r\n\r\n", "200 4 /e body=; 400 a chunk size*"},
                {CHUNKED "5 \r\nhello\r\n0\r\n\r\n", "200 4 /e body=; 400 a chunk size*"},
                {CHUNKED "5;a=b\r\nhello\r\n0\r\n\r\n", "200 4 /e body=; 400 a chunk size*"},
                {CHUNKED "\r\nhello\r\n0\r\n\r\n", "200 4 /e body=; 400 a chunk size*"},
                {CHUNKED "5\nhello\r\n0\r\n\r\n", "200 4 /e body=; 400 a chunk size*"},
                {CHUNKED "5\rXhello", "200 4 /e body=; 400 a chunk does not end*"},
                {CHUNKED "00000000000000005\r\nhello\r\n",
                 "200 4 /e body=; 400 a chunk size has more*"},
                {CHUNKED "4\r\nhello\r\n0\r\n\r\n",
                 "200 4 /e body=hell; 400 a chunk does not end*"},
                {CHUNKED "5\r\nhello\n0\r\n\r\n", "200 4 /e body=hello; 400 a chunk does not end*"},
                {CHUNKED "5\r\nhello0\r\n\r\n", "200 4 /e body=hello; 400 a chunk does not end*"},
                {CHUNKED "0\r\nX: y\r\n\r\n", "200 4 /e body=; 400 trailers are refused"},
                {CHUNKED "0\r\n\rX", "200 4 /e body=; 400 a chunk does not end*"},
                {CHUNKED "0\r\n\n", "200 4 /e body=; 400 trailers are refused"},
        };

        CHECK(forms);
}

/* One beyond each limit. */
static void test_limits(void **state)
{
        static char text[DF_HTTP_HEAD_MAX + 64];
        static struct result r;
        const size_t fixed = strlen(GET HOST "X: \r\n\r\n");

        for (size_t over = 0; over < 2; over++) {
                size_t fill = DF_HTTP_HEAD_MAX - fixed + over;
                int n = snprintf(text, sizeof(text), GET HOST "X: %0*d\r\n\r\n", (int)fill, 0);

                assert_int_equal(n, DF_HTTP_HEAD_MAX + over);
                parse(text, (size_t)n, (size_t)n, &r);
                assert_true(strncmp(r.text, over ? "431" : "200", 3) == 0);
                parse(text, (size_t)n, (size_t)n - 1, &r);
                assert_true(strncmp(r.text, over ? "431" : "200", 3) == 0);
        }
        /* A head without an end is refused when the limit is full, not before. */
        memset(text, 'a', sizeof(text));
        parse(text, DF_HTTP_HEAD_MAX - 1, 0, &r);
        assert_string_equal(r.text, "more");
        parse(text, DF_HTTP_HEAD_MAX, 0, &r);
        assert_true(strncmp(r.text, "431", 3) == 0);
        for (size_t over = 0; over < 2; over++) {
                size_t n = (size_t)snprintf(text, sizeof(text), GET HOST);

                for (size_t i = 1; i < DF_HTTP_HEADERS_MAX + over; i++)
                        n += (size_t)snprintf(text + n, sizeof(text) - n, "x:\r\n");
                n += (size_t)snprintf(text + n, sizeof(text) - n, "\r\n");
                check_bytes(text, n, over ? "431 there are more than 64 headers" : "200*");
        }
}

static void test_headers(void **state)
{
        static const char text[] = GET HOST "X-One:  two three \t\r\nX-ONE:\r\n\r\n";
        struct dfi_refusal bad;

        assert_int_equal(dfi_head_parse(&head, (const uint8_t *)text, sizeof(text) - 1, &bad),
                         DFI_DONE);
        assert_int_equal(head.header_count, 3);
        assert_true(df_bytes_eq(head.headers[1].name, df_bytes_str("x-one")));
        assert_true(df_bytes_eq(head.headers[1].value, df_bytes_str("two three")));
        assert_true(df_bytes_eq(head.headers[2].name, df_bytes_str("x-one")));
        assert_int_equal(head.headers[2].value.len, 0);
        assert_non_null(head.headers[2].value.data);
}

static void check_query(const char *query, const char *expected)
{
        struct df_http_field params[DF_HTTP_PARAMS_MAX];
        struct dfi_refusal bad;
        uint8_t *in = exact(query, strlen(query)), *store = exact(query, strlen(query));
        struct df_buf b = {0};
        size_t count = 0;

        if (!dfi_query_parse(df_bytes(in, strlen(query)), store, params, &count, &bad))
                df_buf_printf(&b, "%d", bad.status);
        for (size_t i = 0; i < count; i++)
                df_buf_printf(&b, "[%.*s=%.*s]", (int)params[i].name.len,
                              (const char *)params[i].name.data, (int)params[i].value.len,
                              (const char *)params[i].value.data);
        df_put_u8(&b, 0);
        assert_string_equal((char *)b.data, expected);
        df_buf_release(&b);
        free(in);
        free(store);
}

static void test_query(void **state)
{
        char many[DF_HTTP_PARAMS_MAX * 2 + 3] = "";
        struct df_buf b = {0};

        check_query("", "");
        check_query("a=b", "[a=b]");
        check_query("a=b&c=d=e&f", "[a=b][c=d=e][f=]");
        check_query("&&a&&", "[a=]");
        check_query("=x&a=", "[=x][a=]");
        check_query("a%20b=c+d%2B&%e2%82%AC=1", "[a b=c d+][\xe2\x82\xac=1]");
        check_query("a=%", "400");
        check_query("a=%4", "400");
        check_query("a=%4g", "400");
        check_query("%zz=1", "400");
        check_query("a=%4&b=1", "400");
        for (size_t i = 0; i < DF_HTTP_PARAMS_MAX; i++)
                memcpy(many + 2 * i, "a&", 2);
        many[2 * DF_HTTP_PARAMS_MAX] = '&';
        check_query("a", "[a=]");
        {
                struct df_http_field params[DF_HTTP_PARAMS_MAX];
                uint8_t store[sizeof(many)];
                struct dfi_refusal bad;
                size_t count;

                assert_true(dfi_query_parse(df_bytes_str(many), store, params, &count, &bad));
                assert_int_equal(count, DF_HTTP_PARAMS_MAX);
                many[strlen(many) - 1] = 'a';
                assert_false(dfi_query_parse(df_bytes_str(many), store, params, &count, &bad));
        }
        assert_true(df_http_decode(df_bytes_str("a%2Fb+c"), false, &b));
        assert_true(df_http_decode(df_bytes_str("+%00"), true, &b));
        assert_true(df_http_decode(df_bytes(NULL, 0), true, &b));
        assert_int_equal(b.len, 7);
        assert_memory_equal(b.data, "a/b+c \0", 7);
        assert_false(df_http_decode(df_bytes_str("abc%2"), true, &b));
        assert_int_equal(b.len, 7);
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_accepted),       cmocka_unit_test(test_refused_lines),
                cmocka_unit_test(test_refused_hosts),  cmocka_unit_test(test_refused_lengths),
                cmocka_unit_test(test_refused_chunks), cmocka_unit_test(test_limits),
                cmocka_unit_test(test_headers),        cmocka_unit_test(test_query),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
