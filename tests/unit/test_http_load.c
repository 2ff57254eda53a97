/* The server over real sockets: replies from other threads, the stop, addresses; the client, and
 * load that it makes. */
#include "http_job.h"

/* ---- threads ---- */

#define CALLERS 4
#define CALLS 300

struct caller {
        uint16_t port;
        int number;
        int wrong;
};

static void *call(void *arg)
{
        struct caller *me = arg;
        char base[64], body[32];
        struct df_http_client *c;
        struct df_error e;

        (void)snprintf(base, sizeof(base), "http://127.0.0.1:%u/", me->port);
        if (df_http_client_create(base, NULL, WAIT_MS, &c, &e) != 0) {
                me->wrong = CALLS;
                return NULL;
        }
        for (int i = 0; i < CALLS; i++) {
                struct df_buf answer = {0};
                int status = 0;

                (void)snprintf(body, sizeof(body), "%d of %d", i, me->number);
                if (df_http_fetch(c, i % 2 ? "/later" : "/echo", "text/plain", df_bytes_str(body),
                                  &status, &answer, &e) != 0 ||
                    status != 200 || !df_bytes_eq(df_buf_bytes(&answer), df_bytes_str(body)))
                        me->wrong++;
                df_buf_release(&answer);
        }
        df_http_client_destroy(c);
        return NULL;
}

static void test_threads(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.threads = 3});
        struct caller callers[CALLERS];
        pthread_t threads[CALLERS];

        for (int i = 0; i < CALLERS; i++) {
                callers[i] = (struct caller){df_http_server_port(s), i, 0};
                assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
        }
        for (int i = 0; i < CALLERS; i++) {
                assert_int_equal(pthread_join(threads[i], NULL), 0);
                assert_int_equal(callers[i].wrong, 0);
        }
        assert_int_equal(metric(s, "requests_total{name=\"test\",class=\"2xx\"} "),
                         CALLERS * CALLS);
        assert_int_equal(metric(s, "adtally_http_connections_total{name=\"test\"} "), CALLERS);
        df_http_server_stop(s, 1000);
}

/* Stop: idle connections go at once, what is under way is answered, and what is not answered in
 * time is dropped; its reply may still come. */
static void test_stop(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.threads = 2});
        struct client idle, busy, never;
        struct df_http_request *orphan;
        int64_t begun;

        connect_to(&idle, s);
        client_say(&idle, "GET /show HTTP/1.1\r\n" HOST "\r\n");
        client_expect(&idle, 200, NULL);
        set_hold(true);
        connect_to(&busy, s);
        client_say(&busy, "GET /later HTTP/1.1\r\n" HOST "\r\n");
        wait_for(1);
        set_hold(false);
        begun = now_ms();
        df_http_server_stop(s, WAIT_MS);
        assert_true(now_ms() - begun < WAIT_MS / 2);
        client_expect(&busy, 200, NULL);
        assert_true(client_at_end(&busy));
        assert_true(client_at_end(&idle));
        client_close(&busy);
        client_close(&idle);

        s = start((struct df_http_options){0});
        set_hold(true);
        connect_to(&never, s);
        client_say(&never, "POST /later HTTP/1.1\r\n" HOST "Content-Length: 3\r\n\r\nabc");
        wait_for(1);
        pthread_mutex_lock(&job.lock);
        orphan = job.later[--job.count];
        pthread_mutex_unlock(&job.lock);
        begun = now_ms();
        df_http_server_stop(s, 100);
        assert_true(now_ms() - begun >= 90);
        assert_true(client_at_end(&never));
        client_close(&never);
        assert_int_equal(orphan->body.len, 3);
        echo(orphan);
        set_hold(false);
        df_http_server_stop(NULL, 0);
}

/* ---- addresses, client, load ---- */

static void test_listen(void **state)
{
        static const char *const bad[] = {
                "",       "80",      ":80",   "127.0.0.1",       "127.0.0.1:", "127.0.0.1:x",
                "::1:80", "[::1:80", "[]:80", "127.0.0.1:99999x"};
        uint16_t port = 0, second;
        char address[64];
        int fd, other = -1;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                assert_int_equal(df_http_listen(bad[i], &other, &second, &err), DF_EINVAL);
                assert_non_null(strstr(err.text, "cannot listen at"));
        }
        assert_int_equal(df_http_listen("127.0.0.1:0", &fd, &port, &err), 0);
        (void)snprintf(address, sizeof(address), "127.0.0.1:%u", port);
        assert_int_equal(df_http_listen(address, &other, &second, &err), DF_EEXIST);
        assert_non_null(strstr(err.text, "another program does; stop it, or give another port"));
        assert_int_equal(other, -1);
        close(fd);
}

static void test_client(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        struct df_http_client *c;
        struct df_buf b = {0};
        char base[64];
        int status = 0;

        assert_int_equal(df_http_client_create("localhost:80", NULL, 1000, &c, &err), DF_EINVAL);
        (void)snprintf(base, sizeof(base), "http://127.0.0.1:%u", df_http_server_port(s));
        assert_int_equal(df_http_client_create(base, "id.secret", 200, &c, &err), 0);
        assert_int_equal(
                df_http_fetch(c, "/guarded", "text/plain", df_bytes_str("x"), &status, &b, &err),
                0);
        assert_int_equal(status, 200);
        assert_true(df_bytes_eq(df_buf_bytes(&b), df_bytes_str("x")));
        assert_int_equal(df_http_fetch(c, "/guarded", NULL, df_bytes(NULL, 0), &status, NULL, &err),
                         0);
        assert_int_equal(status, 200);
        assert_int_equal(df_http_fetch(c, "/nothing", NULL, df_bytes(NULL, 0), &status, NULL, &err),
                         0);
        assert_int_equal(status, 404);
        assert_int_equal(
                df_http_fetch(c, "/echo", "text/plain", df_bytes("", 0), &status, &b, &err), 0);
        assert_int_equal(status, 200);
        set_hold(true);
        assert_int_equal(df_http_fetch(c, "/later", NULL, df_bytes(NULL, 0), &status, NULL, &err),
                         DF_EAGAIN);
        set_hold(false);
        df_http_server_stop(s, 1000);
        assert_int_equal(df_http_fetch(c, "/echo", NULL, df_bytes(NULL, 0), &status, &b, &err),
                         DF_EAGAIN);
        assert_non_null(strstr(err.text, "no answer"));
        assert_int_equal(b.len, 1);
        df_http_client_destroy(c);
        df_http_client_destroy(NULL);
        df_buf_release(&b);
}

static void test_load(void **state)
{
        struct df_http_server *s = start((struct df_http_options){.requests_max = 700});
        const struct df_bytes requests[] = {
                df_bytes_str("POST /echo HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"),
                df_bytes_str("POST /later HTTP/1.1\r\n" HOST "Content-Length: 5\r\n\r\nhello"),
                df_bytes_str("GET /nothing HTTP/1.1\r\n" HOST "\r\n"),
        };
        struct df_http_load_result r;
        char address[64];
        struct df_http_load load = {.address = address,
                                    .requests = requests,
                                    .request_count = 3,
                                    .connections = 4,
                                    .depth = 8,
                                    .count = 3000,
                                    .timeout_ms = WAIT_MS};

        (void)snprintf(address, sizeof(address), "127.0.0.1:%u", df_http_server_port(s));
        assert_int_equal(df_http_load(&load, &r, &err), 0);
        assert_int_equal(r.by_class[2] + r.by_class[4] + r.lost, 3000);
        assert_true(r.by_class[4] > 900);
        assert_true(r.by_class[4] <= 1000);
        assert_int_equal(r.by_class[0] + r.by_class[1] + r.by_class[3] + r.by_class[5], 0);
        assert_true(r.lost < 100); /* what was pipelined behind the last request of a connection */
        assert_true(r.p50_ns > 0);
        assert_true(r.p50_ns <= r.p99_ns);
        assert_true(r.p99_ns <= r.p999_ns);
        assert_int_equal(metric(s, "requests_total{name=\"test\",class=\"2xx\"} "), r.by_class[2]);
        assert_int_equal(metric(s, "requests_total{name=\"test\",class=\"4xx\"} "), r.by_class[4]);
        df_http_server_stop(s, 1000);
        assert_int_equal(df_http_load(&load, &r, &err), DF_EAGAIN);
}

static int64_t load_began_ms;
#define HELD_MS 200

static int64_t load_ms(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 - load_began_ms;
}

static bool let_go_later(void)
{
        if (load_ms() >= HELD_MS)
                set_hold(false);
        return false;
}

static bool stop_at_once(void)
{
        return true;
}

/* The server answers nothing for 200 ms: of 400 requests, one due each ms, a tenth was due in the
 * first 40 and waited for 160 at least, however fast their answers came once they could be sent.
 * Lower bounds alone: a busy machine makes all of it longer. */
static void test_load_at_a_rate(void **state)
{
        struct df_http_server *s = start((struct df_http_options){0});
        const struct df_bytes request = df_bytes_str("GET /later HTTP/1.1\r\n" HOST "\r\n");
        struct df_http_load_result r;
        char address[64];
        struct df_http_load load = {.address = address,
                                    .requests = &request,
                                    .request_count = 1,
                                    .connections = 1,
                                    .depth = 1,
                                    .count = 400,
                                    .rate = 1000,
                                    .stop = let_go_later,
                                    .timeout_ms = WAIT_MS};

        (void)snprintf(address, sizeof(address), "127.0.0.1:%u", df_http_server_port(s));
        load_began_ms = 0;
        load_began_ms = load_ms();
        set_hold(true);
        assert_int_equal(df_http_load(&load, &r, &err), 0);
        assert_int_equal(r.by_class[2], 400);
        assert_true(r.elapsed_ns >= 399 * 1000000ULL); /* none before it is due */
        assert_true(r.p90_ns >= 155 * 1000000ULL);
        load.stop = stop_at_once;
        assert_int_equal(df_http_load(&load, &r, &err), DF_EAGAIN);
        df_http_server_stop(s, 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_threads), cmocka_unit_test(test_stop),
                cmocka_unit_test(test_listen),  cmocka_unit_test(test_client),
                cmocka_unit_test(test_load),    cmocka_unit_test(test_load_at_a_rate),
        };

        return cmocka_run_group_tests(tests, begin_job, end_job);
}
