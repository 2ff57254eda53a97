/* The api job's HTTP side, over a real socket: status, codes, pages, and what it does under
 * load. */
#include "rollups_test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "jobs/api/ask.h"

#define CAMPAIGNS 25
#define RANGE "from=2026-02-02T02:40:00Z&to=2026-02-02T02:50:00Z&tz=UTC"

static struct rt t;
static struct ad_access *access_rules;
static struct ad_api *api;
static struct df_http_client *client;

static int setup(void **state)
{
        struct ad_api_options o = {
                .listen_fd = -1, .address = "127.0.0.1:0", .peer_fd = -1, .http_threads = 1};
        char base[64];

        rt_init(&t, 0);
        for (int i = 0; i < CAMPAIGNS; i++) {
                char name[8];

                (void)snprintf(name, sizeof(name), "c%02d", i);
                rt_publish(&t, (uint32_t)i % 2, name, RT_BASE_MINUTE, 100 + (uint64_t)i);
        }
        rt_follow(&t);
        rt_wait(rt_sum(&t) == CAMPAIGNS * 100 + CAMPAIGNS * (CAMPAIGNS - 1) / 2);
        ok(ad_access_open(NULL, "127.0.0.1:0", &access_rules, err));
        o.follow = t.follow;
        o.zones = t.zones;
        o.access = access_rules;
        ok(ad_api_create(&o, &api, err));
        ok(ad_api_listen(api, err));
        (void)snprintf(base, sizeof(base), "http://127.0.0.1:%u", ad_api_port(api));
        ok(df_http_client_create(base, NULL, 10000, &client, err));
        return 0;
}

static int teardown(void **state)
{
        df_http_client_destroy(client);
        ad_api_stop(api, 2000);
        ad_api_destroy(api);
        ad_access_close(access_rules);
        rt_release(&t);
        return 0;
}

/* The body, with a NUL behind it. */
static int get(const char *path, struct df_buf *body)
{
        int status = 0;

        df_buf_clear(body);
        ok(df_http_fetch(client, path, NULL, df_bytes(NULL, 0), &status, body, err));
        df_put_u8(body, 0);
        return status;
}

static bool has(const struct df_buf *b, const char *part)
{
        return strstr((const char *)b->data, part) != NULL;
}

static size_t occurrences(const struct df_buf *b, const char *part)
{
        size_t n = 0;

        for (const char *p = (const char *)b->data; (p = strstr(p, part)); p++)
                n++;
        return n;
}

/* RT_BASE_MINUTE is 2026-02-02T02:40:00Z. */
static void test_metrics(void **state)
{
        struct df_buf b = {0};

        assert_int_equal(get("/metrics?window=minute&" RANGE, &b), 200);
        assert_int_equal(occurrences(&b, "\"campaign_id\":\"c"), CAMPAIGNS);
        assert_true(has(&b, "\"window_start\":\"2026-02-02T02:40:00Z\",\"campaign_id\":\"c07\","
                            "\"currency\":\"EUR\",\"impressions\":107,\"clicks\":0"));
        assert_true(has(&b, "\"next_cursor\":null"));
        assert_int_equal(get("/v1/metrics?window=total&group_by=none&" RANGE, &b), 200);
        assert_true(has(&b, "\"impressions\":2800,"));
        assert_true(has(&b, "\"spend_micros\":38,")); /* 25 x 1.5 = 37.5: half to even */
        assert_int_equal(get("/metrics?window=total&campaign_id=c03,c04&group_by=none&" RANGE, &b),
                         200);
        assert_true(has(&b, "\"impressions\":207,"));
        df_buf_release(&b);
}

static void test_refusals(void **state)
{
        static const struct {
                const char *path;
                int status;
                const char *code, *field;
        } bad[] = {
                {"/metrics?campain_id=x", 400, "unknown_parameter", "campain_id"},
                {"/metrics?view=billing", 503, "billing_not_ready", "view"},
                {"/metrics?view=both", 503, "billing_not_ready", "view"},
                {"/metrics?as_of=2026-01-01T00:00:00Z", 400, "as_of_not_kept", "as_of"},
                {"/metrics?group_by=ad_id,publisher_id", 400, "grouping_not_kept", "group_by"},
                {"/metrics?window=hour&from=2026-02-02T02:10:00Z", 400, "unaligned", "from"},
                {"/metrics?cursor=abc", 400, "bad_cursor", "cursor"},
                {"/metrics?cursor=00112233445566778899aabbccddeeff.3", 410, "cursor_expired",
                 "cursor"},
                {"/quality?x=1", 400, "unknown_parameter", "x"},
                {"/nowhere", 404, "not_found", NULL},
        };
        struct df_buf b = {0};
        char want[200];

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                int status = get(bad[i].path, &b);

                (void)snprintf(want, sizeof(want), "\"code\":\"%s\"", bad[i].code);
                if (status != bad[i].status || !has(&b, "{\"error\":{") || !has(&b, want))
                        fail_msg("%s: %d %s", bad[i].path, status, (const char *)b.data);
                (void)snprintf(want, sizeof(want), "\"field\":\"%s\"", bad[i].field);
                if (bad[i].field && !has(&b, want))
                        fail_msg("%s: %s", bad[i].path, (const char *)b.data);
        }
        df_buf_release(&b);
}

static void cursor_of(const struct df_buf *b, char ret[64])
{
        const char *at = strstr((const char *)b->data, "\"next_cursor\":");

        assert_non_null(at);
        if (sscanf(at, "\"next_cursor\":\"%60[0-9a-f.]\"", ret) != 1)
                ret[0] = '\0';
}

/* A cursor pins its answer: rows that come meanwhile do not shift the pages. */
static void test_pages(void **state)
{
        char cursor[64], path[300];
        struct df_buf b = {0};
        size_t rows = 0, pages = 0;

        assert_int_equal(get("/metrics?window=minute&limit=10&" RANGE, &b), 200);
        for (;;) {
                rows += occurrences(&b, "\"campaign_id\":\"c");
                pages++;
                assert_true(has(&b, "\"totals\":[{\"currency\":\"EUR\",\"impressions\":2800,"));
                cursor_of(&b, cursor);
                if (!*cursor)
                        break;
                if (pages == 1) {
                        uint64_t before = rt_sum(&t);

                        rt_publish(&t, 0, "c0-new", RT_BASE_MINUTE + 1, 1000);
                        rt_wait(rt_sum(&t) == before + 1000);
                        (void)snprintf(path, sizeof(path),
                                       "/metrics?window=hour&limit=10&cursor=%s", cursor);
                        assert_int_equal(get(path, &b), 400);
                        assert_true(has(&b, "cursor_mismatch"));
                }
                (void)snprintf(path, sizeof(path), "/metrics?limit=10&cursor=%s", cursor);
                assert_int_equal(get(path, &b), 200);
        }
        assert_int_equal(pages, 3);
        assert_int_equal(rows, CAMPAIGNS);
        df_buf_release(&b);
}

static void test_csv(void **state)
{
        struct df_buf b = {0};

        assert_int_equal(get("/metrics?window=total&format=csv&campaign_id=c01&" RANGE, &b), 200);
        assert_true(has(&b, "window_start,campaign_id,currency,impressions,"));
        assert_true(has(&b, "\r\n2026-02-02T02:40:00Z,c01,EUR,101,0,0,2,0,0,0,,"));
        df_buf_release(&b);
}

static void test_quality(void **state)
{
        struct df_buf b = {0};

        assert_int_equal(get("/v1/quality", &b), 200);
        assert_true(has(&b, "\"balanced\":true"));
        assert_true(has(&b, "\"drift\":null"));
        assert_int_equal(occurrences(&b, "\"stream\":\"events\""), 2);
        df_buf_release(&b);
}

/* The answer as it is on the wire. */
static void raw(const char *request, char *ret, size_t size)
{
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_port = htons(ad_api_port(api)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        size_t at = 0;
        ssize_t n;

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof(a)), 0);
        assert_int_equal(write(fd, request, strlen(request)), (ssize_t)strlen(request));
        while (at + 1 < size && (n = read(fd, ret + at, size - 1 - at)) > 0)
                at += (size_t)n;
        ret[at] = '\0';
        (void)close(fd);
}

static void test_page_and_headers(void **state)
{
        static char text[60000];

        raw("GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", text, sizeof(text));
        assert_non_null(strstr(text, "HTTP/1.1 200"));
        assert_non_null(strstr(text, "Content-Security-Policy: default-src 'none'; style-src "
                                     "'sha256-"));
        assert_non_null(strstr(text, "<!doctype html>"));
        assert_non_null(strstr(text, "</html>"));
        assert_null(strstr(text, "http://www.w3.org/1999")); /* and nothing else from outside */
        assert_null(strstr(text, "https://"));
        assert_null(strstr(text, " style=\"")); /* the policy would drop them */
        assert_null(strstr(text, " onclick"));
        raw("GET /metrics?window=total&" RANGE " HTTP/1.1\r\nHost: localhost\r\nConnection: "
            "close\r\n\r\n",
            text, sizeof(text));
        assert_non_null(strstr(text, "Cache-Control: no-store"));
        raw("GET /metrics?window=total&" RANGE " HTTP/1.1\r\nHost: evil.example\r\nConnection: "
            "close\r\n\r\n",
            text, sizeof(text));
        assert_non_null(strstr(text, "HTTP/1.1 403")); /* not a loopback name */
}

/* Long questions go to the pool; short ones are answered meanwhile. */
struct asker {
        pthread_t thread;
        const char *path;
        int answers, refused;
};

static void *ask_often(void *arg)
{
        struct asker *a = arg;
        struct df_http_client *c = NULL;
        struct df_error err;
        struct df_buf b = {0};
        char base[64];

        (void)snprintf(base, sizeof(base), "http://127.0.0.1:%u", ad_api_port(api));
        if (df_http_client_create(base, NULL, 10000, &c, &err) < 0)
                return NULL;
        for (int i = 0; i < 30; i++) {
                int status = 0;

                df_buf_clear(&b);
                if (df_http_fetch(c, a->path, NULL, df_bytes(NULL, 0), &status, &b, &err) < 0)
                        continue;
                a->answers += status == 200;
                a->refused += status == 503;
        }
        df_buf_release(&b);
        df_http_client_destroy(c);
        return NULL;
}

static void test_many_at_once(void **state)
{
        static const char *const paths[] = {
                "/metrics?window=minute&group_by=none&fill=zero&from=2026-02-01&to=2026-02-08&tz="
                "UTC",
                "/metrics?window=total&campaign_id=c01&" RANGE,
                "/quality",
                "/metrics?window=hour&tz=Asia/Kathmandu&from=2025-12-01T00:00:00&to=2026-03-01",
        };
        struct asker askers[8] = {0};
        struct df_buf b = {0};

        for (int i = 0; i < 8; i++) {
                askers[i].path = paths[i % 4];
                assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_often, &askers[i]), 0);
        }
        for (int i = 0; i < 8; i++) {
                assert_int_equal(pthread_join(askers[i].thread, NULL), 0);
                assert_int_equal(askers[i].answers + askers[i].refused, 30);
                assert_true(askers[i].answers > 0);
        }
        ad_api_render(api, &b);
        df_put_u8(&b, 0);
        assert_true(has(&b, "adtally_api_queries_total{thread=\"pool\"}"));
        assert_true(has(&b, "adtally_api_query_seconds{quantile=\"0.95\"}"));
        df_buf_release(&b);
}

/* ---- stopping ---- */

/* A question of most of a second: every minute of five days, for each campaign. */
#define LONG                                                                                       \
        "GET /metrics?window=minute&fill=zero&limit=10000&from=2026-02-01&to=2026-02-06&tz=UTC "   \
        "HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
#define ANSWER_BYTES (8u << 20)

struct long_asker {
        pthread_t thread;
        uint16_t port;
        char *text; /* the whole answer */
        size_t len;
};

static void *ask_long(void *arg)
{
        struct long_asker *a = arg;
        struct sockaddr_in to = {.sin_family = AF_INET,
                                 .sin_port = htons(a->port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ssize_t n;

        if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0 ||
            write(fd, LONG, sizeof(LONG) - 1) != (ssize_t)(sizeof(LONG) - 1))
                return NULL;
        while (a->len + 1 < ANSWER_BYTES &&
               (n = read(fd, a->text + a->len, ANSWER_BYTES - 1 - a->len)) > 0)
                a->len += (size_t)n;
        (void)close(fd);
        return NULL;
}

/* All that it says there is, up to the last brace. */
static bool is_whole(const struct long_asker *a)
{
        const char *length = strstr(a->text, "Content-Length: ");
        const char *body = strstr(a->text, "\r\n\r\n");

        return length && body &&
               (size_t)strtoul(length + 16, NULL, 10) == a->len - (size_t)(body + 4 - a->text) &&
               a->text[a->len - 1] == '}';
}

static double metric(struct ad_api *of, const char *name)
{
        struct df_buf b = {0};
        const char *at;
        double n = 0;

        ad_api_render(of, &b);
        df_put_u8(&b, 0);
        at = strstr((const char *)b.data, name);
        if (at)
                n = strtod(at + strlen(name), NULL);
        df_buf_release(&b);
        return n;
}

/* Questions that no thread is at: answered, or waiting for one. */
static double at_rest(struct ad_api *of)
{
        double answered = metric(of, "adtally_api_answers_total"); /* first: none counts twice */

        return answered + metric(of, "adtally_api_queries_waiting");
}

/* A server that stops answers every question that it took, also those that still wait for a
 * thread: with numbers, or with a 503 that may be asked again. Nothing is cut off. */
static void test_stops_during_long_questions(void **state)
{
        struct ad_api_options o = {.listen_fd = -1,
                                   .address = "127.0.0.1:0",
                                   .peer_fd = -1,
                                   .http_threads = 1,
                                   .follow = t.follow,
                                   .zones = t.zones,
                                   .access = access_rules};
        struct long_asker askers[AD_API_THREADS + 3] = {0};
        size_t count = sizeof(askers) / sizeof(askers[0]);
        struct ad_api *own = NULL;
        int numbers = 0, late = 0;

        ok(ad_api_create(&o, &own, err));
        ok(ad_api_listen(own, err));
        for (size_t i = 0; i < count; i++) {
                askers[i].port = ad_api_port(own);
                askers[i].text = calloc(1, ANSWER_BYTES);
                assert_non_null(askers[i].text);
                assert_int_equal(pthread_create(&askers[i].thread, NULL, ask_long, &askers[i]), 0);
        }
        rt_wait(at_rest(own) >= 3); /* the threads have one each, or one of them has none yet */
        ad_api_stop(own, 20000);
        for (size_t i = 0; i < count; i++) {
                assert_int_equal(pthread_join(askers[i].thread, NULL), 0);
                if (askers[i].len == 0) { /* it came too late to be taken */
                        late++;
                        free(askers[i].text);
                        continue;
                }
                if (!is_whole(&askers[i]))
                        fail_msg("question %zu of %zu: %zu bytes: %.200s", i, count, askers[i].len,
                                 askers[i].text);
                if (strncmp(askers[i].text, "HTTP/1.1 200", 12) == 0)
                        numbers++;
                else
                        assert_non_null(strstr(askers[i].text, "\"retryable\":true"));
                free(askers[i].text);
        }
        assert_true(numbers > 0);
        assert_true(late <= 1);
        ad_api_destroy(own);
}

/* ---- receipts ---- */

static atomic_int slow_calls, slow_go;

/* A log whose archive does not answer for a while. */
static int slow_bounds(struct df_log *log, const char *topic, uint32_t partition, uint64_t *first,
                       uint64_t *end, struct df_error *e)
{
        atomic_fetch_add(&slow_calls, 1);
        while (!atomic_load(&slow_go))
                (void)usleep(1000);
        return df_fail(e, DF_EAGAIN, "the store does not answer");
}

static int send_request(uint16_t port, const char *request)
{
        struct sockaddr_in to = {.sin_family = AF_INET,
                                 .sin_port = htons(port),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_true(fd >= 0);
        assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
        assert_int_equal(write(fd, request, strlen(request)), (ssize_t)strlen(request));
        return fd;
}

/* One more than may wait is refused at once; numbers are answered meanwhile. */
static void test_receipts_wait_apart(void **state)
{
        static const char receipt[] =
                "GET /v1/events/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        const struct df_log_ops ops = {.bounds = slow_bounds};
        struct df_log slow = {.ops = &ops};
        struct ad_api_options o = {.listen_fd = -1,
                                   .address = "127.0.0.1:0",
                                   .peer_fd = -1,
                                   .http_threads = 1,
                                   .follow = t.follow,
                                   .zones = t.zones,
                                   .access = access_rules,
                                   .log = t.log,
                                   .source = &slow};
        int fds[AD_API_RECEIPTS_MAX + 2], fd, overloaded = 0, unavailable = 0;
        struct ad_api *own = NULL;
        char text[2000];

        ok(ad_api_create(&o, &own, err));
        ok(ad_api_listen(own, err));
        fds[0] = send_request(ad_api_port(own), receipt);
        rt_wait(atomic_load(&slow_calls) == 1);
        for (int i = 1; i < AD_API_RECEIPTS_MAX + 2; i++)
                fds[i] = send_request(ad_api_port(own), receipt);
        fd = send_request(ad_api_port(own), "GET /metrics?window=total&" RANGE
                                            " HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_true(read(fd, text, 12) == 12 && memcmp(text, "HTTP/1.1 200", 12) == 0);
        (void)close(fd);
        rt_wait(metric(own, "adtally_api_overloaded_total") == 1);
        atomic_store(&slow_go, 1);
        for (int i = 0; i < AD_API_RECEIPTS_MAX + 2; i++) {
                size_t at = 0;
                ssize_t n;

                while (at + 1 < sizeof(text) &&
                       (n = read(fds[i], text + at, sizeof(text) - 1 - at)) > 0)
                        at += (size_t)n;
                text[at] = '\0';
                overloaded += strstr(text, "\"code\":\"overloaded\"") != NULL;
                unavailable += strstr(text, "the store does not answer") != NULL;
                (void)close(fds[i]);
        }
        assert_int_equal(overloaded, 1);
        assert_int_equal(unavailable, AD_API_RECEIPTS_MAX + 1);
        ad_api_stop(own, 2000);
        ad_api_destroy(own);
}

/* ---- damage ---- */

static int meets_damaged_view(struct adi_ask *q)
{
        return ad_fault_error(&q->fault, &(struct df_error){.code = DF_ECORRUPT, .text = "rows"});
}

static int meets_damaged_log(struct adi_ask *q)
{
        return ad_fault_log(&q->fault,
                            &(struct df_error){.code = DF_ECORRUPT, .text = "segment 7"});
}

static void on_damaged_view(void *arg, struct df_http_request *r)
{
        adi_ask_log(arg, r, meets_damaged_view);
}

static void on_damaged_log(void *arg, struct df_http_request *r)
{
        adi_ask_log(arg, r, meets_damaged_log);
}

/* A receipt or explanation that meets a damaged view reports it, so that it is opened anew; damage
 * in the log is no matter of the view, and the answer says what to do. */
static void test_damage_is_reported(void **state)
{
        static const struct df_http_route routes[] = {
                {.path = "/view", .methods = DF_HTTP_GET, .handle = on_damaged_view},
                {.path = "/log", .methods = DF_HTTP_GET, .handle = on_damaged_log},
        };
        struct df_http_options o = {.name = "damage",
                                    .listen_fd = -1,
                                    .address = "127.0.0.1:0",
                                    .peer_fd = -1,
                                    .threads = 1,
                                    .routes = routes,
                                    .route_count = 2,
                                    .arg = api};
        double before = rt_metric(&t, "adtally_view_reopened_total");
        struct df_http_client *before_client = client;
        struct df_http_server *server = NULL;
        struct df_buf body = {0};
        char base[64];

        ok(df_http_server_start(&o, &server, err));
        (void)snprintf(base, sizeof(base), "http://127.0.0.1:%u", df_http_server_port(server));
        ok(df_http_client_create(base, NULL, 10000, &client, err));
        assert_int_equal(get("/log", &body), 500);
        assert_true(has(&body, "\"log_damaged\"") && has(&body, "segment 7") &&
                    has(&body, "adtally archive verify"));
        assert_int_equal(get("/view", &body), 500);
        rt_wait(rt_metric(&t, "adtally_view_reopened_total") == before + 1);
        df_http_client_destroy(client);
        client = before_client;
        df_http_server_stop(server, 1000);
        df_buf_release(&body);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_metrics),
                cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_pages),
                cmocka_unit_test(test_csv),
                cmocka_unit_test(test_quality),
                cmocka_unit_test(test_page_and_headers),
                cmocka_unit_test(test_many_at_once),
                cmocka_unit_test(test_stops_during_long_questions),
                cmocka_unit_test(test_receipts_wait_apart),
                cmocka_unit_test(test_damage_is_reported),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
