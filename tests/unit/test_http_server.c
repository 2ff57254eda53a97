/* The server over real sockets: routes, answers, bodies, order, keep-alive, admission. Limits are
 * in test_http_limits.c; threads, the stop and the client in test_http_load.c. */
#include "http_job.h"

/* ---- requests and answers ---- */

static void test_routes(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        static const char *const no_more[] = {"GET /show//more HTTP/1.1\r\n" HOST "\r\n",
                                              "GET /show/a/b/more HTTP/1.1\r\n" HOST "\r\n",
                                              "GET /show/a/mor HTTP/1.1\r\n" HOST "\r\n",
                                              "GET /show/a/more/ HTTP/1.1\r\n" HOST "\r\n"};
        struct client c;
        struct answer a;

        connect_to(&c, s);
        client_say(&c, "GET /show?a=b%20c&d HTTP/1.1\r\n" HOST "X-Test: v \r\n\r\n");
        assert_true(client_answer(&c, &a, true));
        assert_string_equal(a.body, "1 /show tail= peer=127.0.0.1 loopback=1 x=v a=b c d=");
        assert_string_equal(answer_header(&a, "X-Extra"), "1");
        assert_int_equal(strlen(answer_header(&a, "Date")), 29);
        assert_null(answer_header(&a, "Server"));
        assert_false(a.close);
        free(a.body);
        client_say(&c, "GET /v1/show/a%2Fb HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 200, "1 /show/a%2Fb tail=a/b peer");
        client_say(&c, "OPTIONS /show/x HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 200, "8 /show/x tail=x");
        client_say(&c, "DELETE /show/x HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 200, "16 /show/x tail=x");
        client_say(&c, "HEAD /show/x HTTP/1.1\r\n" HOST "\r\n");
        assert_true(client_answer(&c, &a, false));
        assert_int_equal(a.status, 405);
        assert_non_null(strstr(a.head, "Allow: GET, POST, OPTIONS, DELETE\r\n"));
        free(a.body);
        client_say(&c, "GET /v1/show/a%2Fb/more?x HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 200, "1 /show/a%2Fb/more tail=a/b peer");
        for (size_t i = 0; i < sizeof(no_more) / sizeof(no_more[0]); i++) {
                client_say(&c, no_more[i]);
                client_expect(&c, 404, "not_found");
        }
        client_say(&c, "POST /show/a/more HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
        client_expect(&c, 405, NULL);
        client_say(&c, "GET /show/exact HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 429, NULL);
        client_say(&c, "GET /nothing HTTP/1.1\r\n" HOST "\r\n"
                       "GET /show/a/b HTTP/1.1\r\n" HOST "\r\n"
                       "GET /show/ HTTP/1.1\r\n" HOST "\r\n"
                       "GET /v1 HTTP/1.1\r\n" HOST "\r\n");
        client_expect(
                &c, 404,
                "{\"error\":{\"code\":\"not_found\",\"message\":\"there is nothing at /nothing\","
                "\"field\":null,\"retryable\":false}}");
        for (int i = 0; i < 3; i++)
                client_expect(&c, 404, "not_found");
        client_say(&c, "DELETE /show HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 405, "Allow: GET, HEAD\r\n");
        client_say(&c, "HEAD /echo HTTP/1.1\r\n" HOST "\r\n");
        assert_true(client_answer(&c, &a, false));
        assert_int_equal(a.status, 405);
        free(a.body);
        client_say(&c, "GET /show/%4 HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 400, "bad_request");
        assert_true(client_at_end(&c));
        client_close(&c);
        df_http_server_stop(s, 1000);
}

/* HEAD has the length and no body; 204 has neither; the error body is JSON whatever its text. */
static void test_answers(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        struct client c;
        struct answer a;

        connect_to(&c, s);
        client_say(&c, "HEAD /show HTTP/1.1\r\n" HOST "\r\nGET /fail HTTP/1.1\r\n" HOST "\r\n");
        assert_true(client_answer(&c, &a, false));
        assert_int_equal(a.status, 200);
        assert_string_equal(answer_header(&a, "Content-Length"), "46");
        free(a.body);
        assert_true(client_answer(&c, &a, true));
        assert_int_equal(a.status, 429);
        assert_string_equal(answer_header(&a, "Retry-After"), "7");
        assert_string_equal(answer_header(&a, "Content-Type"), "application/json");
        assert_string_equal(
                a.body,
                "{\"error\":{\"code\":\"quota\",\"message\":\"tab\\u0009here \\\"quoted\\\" "
                "\\\\ \\u0001 bad:\xef\xbf\xbd\xef\xbf\xbd \xc3\xa4\",\"field\":\"a\\\"b\","
                "\"retryable\":true}}\n");
        free(a.body);
        client_say(&c, "GET /close HTTP/1.1\r\n" HOST "\r\n");
        assert_true(client_answer(&c, &a, true));
        assert_int_equal(a.status, 204);
        assert_null(answer_header(&a, "Content-Length"));
        assert_true(a.close);
        free(a.body);
        assert_true(client_at_end(&c));
        client_close(&c);
        assert_int_equal(metric(s, "requests_total{name=\"test\",class=\"2xx\"} "), 2);
        assert_int_equal(metric(s, "requests_total{name=\"test\",class=\"4xx\"} "), 1);
        df_http_server_stop(s, 1000);
}

/* Bad requests are refused over the wire too, and the connection closes after the answer. */
static void test_bad_requests(void **state)
{
        static const struct {
                const char *text;
                int status;
        } bad[] = {
                {"GET /show HTTP/1.1\r\n\r\n", 400},
                {"GET /show HTTP/1.1\nHost: a\n\n", 400},
                {"POST /echo HTTP/1.1\r\n" HOST
                 "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
                 400},
                {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: +5\r\n\r\nhello", 400},
                {"POST /echo HTTP/1.1\r\n" HOST
                 "Transfer-Encoding: xchunked\r\n\r\nGET /show HTTP/1.1\r\n" HOST "\r\n",
                 400},
                {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding : chunked\r\n\r\n", 400},
                {"POST /echo HTTP/1.1\r\n" HOST
                 "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
                 400},
                {"POST /echo HTTP/1.1\r\n" HOST
                 "Transfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n",
                 400},
                {"POST /echo HTTP/1.1\r\n" HOST "Expect: x\r\nContent-Length: 5\r\n\r\nhello", 417},
                {"POST /echo HTTP/1.1\r\n" HOST "\r\n", 411},
                {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1048577\r\n\r\n", 413},
                {"POST /echo HTTP/1.1\r\n" HOST "Content-Length: 99999999999999999999999\r\n\r\n",
                 413},
                {"POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n100001\r\n",
                 413},
                {"POST /echo HTTP/1.1\r\n" HOST
                 "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\nfffff\r\n",
                 413},
                {"GET /show HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\nx", 413},
                {"GET /nothing HTTP/1.1\r\n" HOST "Content-Length: 1\r\n\r\nx", 404},
                {"\x16\x03\x01\x02", 400},
        };
        struct df_http_server *s = start((struct df_http_options){0});

        job.handled = 0;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct client c;
                struct answer a;

                connect_to(&c, s);
                client_say(&c, bad[i].text);
                assert_true(client_answer(&c, &a, true));
                if (a.status != bad[i].status || !a.close)
                        fail_msg("%s gave %s%s", bad[i].text, a.head, a.body);
                assert_non_null(strstr(a.body, "{\"error\":{\"code\":\""));
                free(a.body);
                assert_true(client_at_end(&c));
                client_close(&c);
        }
        assert_int_equal(job.handled, 0);
        wait_metric(s, CONNECTIONS, 0);
        assert_int_equal(metric(s, IN_FLIGHT), 0);
        df_http_server_stop(s, 1000);
}

static void test_bodies(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        struct client c;
        struct answer a;
        size_t size = 1 << 20;
        char *body = malloc(size);
        char line[64];

        assert_non_null(body);
        for (size_t i = 0; i < size; i++)
                body[i] = (char)('a' + i * 7 % 26);
        connect_to(&c, s);
        for (int chunked = 0; chunked < 2; chunked++) {
                client_say(&c, chunked ? "POST /echo HTTP/1.1\r\n" HOST
                                         "Transfer-Encoding: chunked\r\n\r\n"
                                       : "POST /echo HTTP/1.1\r\n" HOST
                                         "Content-Length: 1048576\r\n\r\n");
                for (size_t at = 0, n; at < size; at += n) {
                        n = at % 3 ? 70001 : 1;
                        n = size - at < n ? size - at : n;
                        (void)snprintf(line, sizeof(line), "%zx\r\n", n);
                        if (chunked)
                                client_say(&c, line);
                        client_send(&c, body + at, n);
                        if (chunked)
                                client_say(&c, "\r\n");
                }
                if (chunked)
                        client_say(&c, "0\r\n\r\n");
                assert_true(client_answer(&c, &a, true));
                assert_int_equal(a.status, 200);
                assert_int_equal(a.len, size);
                assert_memory_equal(a.body, body, size);
                free(a.body);
        }
        client_say(&c, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 0\r\n\r\n");
        client_expect(&c, 200, "Content-Length: 0\r\n");
        client_close(&c);
        wait_metric(s, IN_FLIGHT, 0);
        df_http_server_stop(s, 1000);
        free(body);
}

/* Answers come in the order of the requests, from this thread or another, byte by byte or at once.
 */
static void test_pipelining(void **state)
{
        static char text[64 * 256];
        struct df_http_server *s = start((struct df_http_options){0});
        struct client c;
        size_t n = 0;
        char part[32];

        for (int i = 0; i < 64; i++)
                n += (size_t)snprintf(text + n, sizeof(text) - n,
                                      "POST %s HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\n<%02d",
                                      i % 3 ? "/echo" : "/later", i % 100);
        for (size_t step = 1; step <= n; step = step * 37 + 1) {
                connect_to(&c, s);
                for (size_t at = 0; at < n; at += step)
                        client_send(&c, text + at, n - at < step ? n - at : step);
                for (int i = 0; i < 64; i++) {
                        (void)snprintf(part, sizeof(part), "<%02d", i);
                        client_expect(&c, 200, part);
                }
                client_close(&c);
        }
        df_http_server_stop(s, 1000);
}

/* While a request is handled, no more than a little is read ahead: the client is slowed down. */
static void test_read_ahead_is_bounded(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        struct client c;
        size_t sent = 0;
        char zeros[4096] = {0};

        connect_to(&c, s);
        set_hold(true);
        client_say(&c, "GET /later HTTP/1.1\r\n" HOST "\r\n");
        wait_for(1);
        assert_int_equal(fcntl(c.fd, F_SETFL, O_NONBLOCK), 0);
        /* The server takes 16 KiB, the kernel some megabytes; then nothing moves any more. */
        for (int64_t last = now_ms(); now_ms() - last < 100 && sent < 256u << 20;) {
                ssize_t n = send(c.fd, zeros, sizeof(zeros), MSG_NOSIGNAL);

                if (n < 0) {
                        sleep_ms(5);
                        continue;
                }
                sent += (size_t)n;
                last = now_ms();
        }
        assert_true(sent < 256u << 20);
        set_hold(false);
        client_expect(&c, 200, NULL);
        client_expect(&c, 400, NULL); /* the zeros */
        client_close(&c);
        df_http_server_stop(s, 1000);
}

static void test_keep_alive(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.requests_max = 3});
        struct client c;
        struct answer a;

        connect_to(&c, s);
        client_say(&c, "GET /show HTTP/1.0\r\n" HOST "Connection: keep-alive\r\n\r\n");
        assert_true(client_answer(&c, &a, true));
        assert_true(a.close);
        free(a.body);
        assert_true(client_at_end(&c));
        client_close(&c);
        connect_to(&c, s);
        client_say(&c, "GET /show HTTP/1.1\r\n" HOST "Connection: close\r\n\r\n");
        client_expect(&c, 200, "Connection: close\r\n");
        assert_true(client_at_end(&c));
        client_close(&c);
        connect_to(&c, s);
        for (int i = 1; i <= 3; i++) {
                client_say(&c, "GET /show HTTP/1.1\r\n" HOST "\r\n");
                assert_true(client_answer(&c, &a, true));
                assert_int_equal(a.close, i == 3); /* requests_max */
                free(a.body);
        }
        assert_true(client_at_end(&c));
        client_close(&c);
        /* Half a close: what was asked is still answered. */
        connect_to(&c, s);
        client_say(&c,
                   "GET /later HTTP/1.1\r\n" HOST "\r\nGET /show HTTP/1.1\r\n" HOST "\r\nGET /sh");
        assert_int_equal(shutdown(c.fd, SHUT_WR), 0);
        client_expect(&c, 200, NULL);
        client_expect(&c, 200, "1 /show");
        assert_true(client_at_end(&c));
        client_close(&c);
        df_http_server_stop(s, 1000);
}

static void test_admit(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        struct client c;
        struct answer a;

        job.handled = job.admitted = 0;
        connect_to(&c, s);
        /* 100 Continue comes after admit has let it in, and only then. */
        client_say(&c, "POST /guarded HTTP/1.1\r\n" HOST
                       "Authorization: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
        assert_true(client_answer(&c, &a, false));
        assert_int_equal(a.status, 100);
        free(a.body);
        assert_int_equal(job.admitted, 1);
        assert_int_equal(job.handled, 0);
        client_say(&c, "hi");
        client_expect(&c, 200, "hi");
        /* A refused request without a body leaves the connection alone. */
        client_say(&c, "GET /guarded HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 401, "unauthorized");
        client_say(&c, "GET /guarded HTTP/1.1\r\n" HOST "Authorization: x\r\n\r\n");
        client_expect(&c, 200, NULL);
        client_say(&c, "POST /guarded HTTP/1.1\r\n" HOST
                       "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n");
        client_expect(&c, 401, "Connection: close\r\n");
        assert_true(client_at_end(&c));
        client_close(&c);
        /* The body that follows all the same does not become a request, nor hide the answer. */
        connect_to(&c, s);
        client_say(&c, "POST /guarded HTTP/1.1\r\n" HOST "Content-Length: 39\r\n\r\n"
                       "GET /guarded HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c, 401, "Connection: close\r\n");
        assert_true(client_at_end(&c));
        client_close(&c);
        /* body_max and one beyond. */
        connect_to(&c, s);
        memset(big, 'x', sizeof(big));
        client_say(&c, "POST /guarded HTTP/1.1\r\n" HOST
                       "Authorization: x\r\nContent-Length: 100\r\n\r\n");
        client_send(&c, big, 100);
        client_expect(&c, 200, NULL);
        job.admitted = 0;
        client_say(&c, "POST /guarded HTTP/1.1\r\n" HOST
                       "Authorization: x\r\nContent-Length: 101\r\n\r\n");
        client_expect(&c, 413, "body_too_large");
        assert_int_equal(job.admitted, 0);
        client_close(&c);
        /* Whoever sends on all the same is not reset before he has read the answer. */
        connect_to(&c, s);
        client_say(&c, "POST /guarded HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\n");
        for (int i = 0; i < 10; i++) {
                sleep_ms(2);
                client_send(&c, big, 100000);
        }
        client_expect(&c, 413, "body_too_large");
        client_close(&c);
        df_http_server_stop(s, 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_routes),       cmocka_unit_test(test_answers),
                cmocka_unit_test(test_bad_requests), cmocka_unit_test(test_bodies),
                cmocka_unit_test(test_pipelining),   cmocka_unit_test(test_read_ahead_is_bounded),
                cmocka_unit_test(test_keep_alive),   cmocka_unit_test(test_admit),
        };

        return cmocka_run_group_tests(tests, begin_job, end_job);
}
