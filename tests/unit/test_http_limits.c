/* One beyond each limit of struct df_http_options: deadlines, caps, descriptors; and clients that
 * go away at any moment (RELIABILITY 5.2, 5.3). */
#include "http_job.h"

#include <sys/resource.h>

/* ---- deadlines ---- */

/* RELIABILITY 5.2: one byte a second (here: every 20 ms) must not keep a connection. */
static void trickle(struct df_http_server *s, const char *first, int64_t at_least, int64_t at_most,
                    const char *part)
{
        struct client c;
        struct answer a;
        int64_t begun = now_ms(), took;

        connect_to(&c, s);
        client_say(&c, first);
        while (client_more(&c, 20) < 0 && now_ms() - begun < WAIT_MS)
                (void)send(c.fd, "a", 1, MSG_NOSIGNAL);
        took = now_ms() - begun;
        assert_true(client_answer(&c, &a, true));
        assert_int_equal(a.status, 408);
        if (!strstr(a.body, part))
                fail_msg("no \"%s\" in %s", part, a.body);
        free(a.body);
        if (took < at_least || took > at_most)
                fail_msg("cut after %lld ms", (long long)took);
        client_close(&c);
}

static void test_slow_requests(void **state)
{
        struct df_http_server *s =
                start((struct df_http_options){.head_ms = 100, .request_ms = 250});

        trickle(s, "G", 90, 5000, "the head did not arrive within 100 ms");
        trickle(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 1000000\r\n\r\n", 240, 5000,
                "within 250 ms");
        trickle(s, "POST /echo HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\nfffff\r\n",
                240, 5000, "within 250 ms");
        assert_int_equal(metric(s, "refused_total{name=\"test\",cause=\"head_timeout\"} "), 1);
        assert_int_equal(metric(s, "refused_total{name=\"test\",cause=\"body_timeout\"} "), 2);
        wait_metric(s, IN_FLIGHT, 0);
        df_http_server_stop(s, 0);
}

/* 2 s of grace, then 1,024 bytes a second: 50 bytes a second end just after the grace. */
static void test_minimum_rate(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});

        trickle(s, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 100000\r\n\r\n", 1990, 8000,
                "slower than 1024 bytes a second");
        df_http_server_stop(s, 0);
}

static void test_idle(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.idle_ms = 100});
        struct client c;
        int64_t begun = now_ms();

        connect_to(&c, s); /* says nothing */
        assert_true(client_at_end(&c));
        assert_true(now_ms() - begun >= 90);
        client_close(&c);
        connect_to(&c, s);
        for (int i = 0; i < 4; i++) { /* longer than idle_ms together */
                sleep_ms(40);
                client_say(&c, "GET /show HTTP/1.1\r\n" HOST "\r\n");
                client_expect(&c, 200, NULL);
        }
        begun = now_ms();
        assert_true(client_at_end(&c));
        assert_true(now_ms() - begun >= 90);
        client_close(&c);
        /* A request that is being handled is not idle. */
        set_hold(true);
        connect_to(&c, s);
        client_say(&c, "GET /later HTTP/1.1\r\n" HOST "\r\n");
        wait_for(1);
        sleep_ms(200);
        set_hold(false);
        client_expect(&c, 200, NULL);
        client_close(&c);
        df_http_server_stop(s, 1000);
}

/* A client that does not take its answer is dropped; one that takes its time within the limit is
 * not. */
static void test_slow_reader(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.write_ms = 300});
        struct client c;
        struct answer a;
        int small = 65536;

        connect_to(&c, s);
        assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
        client_say(&c, "GET /big HTTP/1.1\r\n" HOST "\r\nGET /show HTTP/1.1\r\n" HOST "\r\n");
        sleep_ms(50);
        assert_true(client_answer(&c, &a, true));
        assert_int_equal(a.len, sizeof(big));
        assert_memory_equal(a.body, big, sizeof(big));
        free(a.body);
        client_expect(&c, 200, "1 /show"); /* it waited for the first to be out */
        for (int i = 0; i < 4; i++)
                client_say(&c, "GET /big HTTP/1.1\r\n" HOST "\r\n");
        wait_metric(s, "refused_total{name=\"test\",cause=\"write_timeout\"} ", 1);
        wait_metric(s, CONNECTIONS, 0);
        client_close(&c);
        df_http_server_stop(s, 1000);
}

/* ---- caps ---- */

static void test_connection_cap(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.connections_max = 3});
        struct client c[3], extra;

        for (int i = 0; i < 3; i++) {
                connect_to(&c[i], s);
                client_say(&c[i], "GET /show HTTP/1.1\r\n" HOST "\r\n");
                client_expect(&c[i], 200, NULL);
        }
        connect_to(&extra, s);
        client_say(&extra, "GET /show HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&extra, 503, "\"retryable\":true");
        assert_true(client_at_end(&extra));
        client_close(&extra);
        client_close(&c[1]);
        wait_metric(s, CONNECTIONS, 2);
        connect_to(&c[1], s);
        client_say(&c[1], "GET /show HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&c[1], 200, NULL);
        for (int i = 0; i < 3; i++)
                client_close(&c[i]);
        assert_int_equal(metric(s, "refused_total{name=\"test\",cause=\"connections\"} "), 1);
        df_http_server_stop(s, 1000);
        s = start((struct df_http_options){.connections_per_address = 2, .threads = 2});
        for (int i = 0; i < 2; i++)
                connect_to(&c[i], s);
        wait_metric(s, CONNECTIONS, 2);
        connect_to(&extra, s);
        client_expect(&extra, 503, "from one address");
        client_close(&extra);
        client_close(&c[0]);
        wait_metric(s, CONNECTIONS, 1);
        connect_to(&extra, s);
        client_say(&extra, "GET /show HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&extra, 200, NULL);
        client_close(&extra);
        client_close(&c[1]);
        df_http_server_stop(s, 1000);
}

/* Bodies are counted while they are held, not when they are announced, and up to their reply. */
static void test_in_flight_cap(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.in_flight_max = 100000});
        struct client c[3];

        for (int i = 0; i < 3; i++)
                connect_to(&c[i], s);
        set_hold(true);
        client_say(&c[0], "POST /later HTTP/1.1\r\n" HOST "Content-Length: 60000\r\n\r\n");
        client_send(&c[0], big, 60000);
        wait_for(1);
        assert_int_equal(metric(s, IN_FLIGHT), 60000);
        client_say(&c[1], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 40001\r\n\r\n");
        client_send(&c[1], big, 30000); /* the last of them want a step beyond the cap */
        (void)send(c[1].fd, big, 10001, MSG_NOSIGNAL);
        client_expect(&c[1], 503, "overloaded");
        client_say(&c[2], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 40000\r\n\r\n");
        client_send(&c[2], big, 40000);
        client_expect(&c[2], 200, NULL);
        set_hold(false);
        client_expect(&c[0], 200, NULL);
        wait_metric(s, IN_FLIGHT, 0);
        client_say(&c[0], "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 60000\r\n\r\n");
        client_send(&c[0], big, 60000);
        client_expect(&c[0], 200, NULL);
        for (int i = 0; i < 3; i++)
                client_close(&c[i]);
        df_http_server_stop(s, 1000);
}

/* Out of descriptors: who is in is served, nothing spins, and the rest comes in later. */
static void test_out_of_descriptors(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        struct client c[8];
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_port = htons(df_http_server_port(s)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        struct rlimit old, low;
        clock_t used;

        assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
        low = old;
        for (int i = 0; i < 8; i++) {
                c[i] = (struct client){socket(AF_INET, SOCK_STREAM, 0), malloc(ANSWER_MAX), 0};
                assert_true(c[i].fd >= 0);
                low.rlim_cur = (rlim_t)c[i].fd + 1 + 3; /* three more than there are */
        }
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
        for (int i = 0; i < 8; i++) {
                assert_int_equal(connect(c[i].fd, (struct sockaddr *)&a, sizeof(a)), 0);
                client_say(&c[i], "GET /show HTTP/1.1\r\n" HOST "\r\n");
        }
        for (int i = 0; i < 3; i++)
                client_expect(&c[i], 200, NULL);
        used = clock();
        assert_int_equal(client_more(&c[7], 200), -1);
        assert_true(clock() - used < CLOCKS_PER_SEC / 10);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        for (int i = 3; i < 8; i++)
                client_expect(&c[i], 200, NULL);
        for (int i = 0; i < 8; i++)
                client_close(&c[i]);
        df_http_server_stop(s, 1000);
}

/* ---- clients that go away ---- */

/* A connection whose reading is suspended is closed and freed by a stop too (libevent loses it when
 * its loop is broken off instead of running out of events). */
static void test_stop_with_full_input(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        struct client c;

        set_hold(true);
        connect_to(&c, s);
        client_say(&c, "GET /later HTTP/1.1\r\n" HOST "\r\n");
        wait_for(1);
        client_send(&c, big, 100000);
        sleep_ms(20);
        df_http_server_stop(s, 1); /* with 16 KiB read ahead, and a request out */
        assert_int_equal(client_more(&c, WAIT_MS), 0);
        client_close(&c);
        set_hold(false);
}

static void test_disconnects(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.threads = 2});
        struct client c;

        for (int i = 0; i < 40; i++) {
                set_hold(true);
                connect_to(&c, s);
                client_say(&c, "POST /later HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc"
                               "GET /later HTTP/1.1\r\n" HOST "\r\n");
                wait_for(1);
                if (i % 2)
                        client_reset(&c);
                else
                        client_close(&c);
                if (i % 4 < 2)
                        wait_metric(s, CONNECTIONS,
                                    i % 2 ? 0 : 1); /* a close may be half a close */
                set_hold(false);
                wait_metric(s, CONNECTIONS, 0);
                wait_answered(); /* or it is taken for what the next one asks */
        }
        connect_to(&c, s); /* in the middle of a body, and of an answer */
        client_say(&c, "POST /echo HTTP/1.1\r\n" HOST "Content-Length: 3000\r\n\r\nabc");
        wait_metric(s, IN_FLIGHT, 3000);
        client_close(&c);
        wait_metric(s, IN_FLIGHT, 0);
        connect_to(&c, s);
        client_say(&c, "GET /big HTTP/1.1\r\n" HOST "\r\nGET /big HTTP/1.1\r\n" HOST "\r\n");
        assert_int_equal(client_more(&c, WAIT_MS), 1);
        client_reset(&c);
        wait_metric(s, CONNECTIONS, 0);
        df_http_server_stop(s, 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_slow_requests),
                cmocka_unit_test(test_minimum_rate),
                cmocka_unit_test(test_idle),
                cmocka_unit_test(test_slow_reader),
                cmocka_unit_test(test_connection_cap),
                cmocka_unit_test(test_in_flight_cap),
                cmocka_unit_test(test_out_of_descriptors),
                cmocka_unit_test(test_disconnects),
                cmocka_unit_test(test_stop_with_full_input),
        };

        return cmocka_run_group_tests(tests, begin_job, end_job);
}
