/* However a stream of requests is cut into packets, each is answered once, in order, with its own
 * body: what is left of the input is kept from run to run, whoever answers. The oracle is the list
 * of bodies. */
#include "http_job.h"

#include <inttypes.h>

#define SEEDS 12
#define REQUESTS 60
#define BODY_MAX 50000 /* beyond what is read ahead of the parser */

static uint64_t seed, state_of_rnd;

static uint64_t rnd(uint64_t below)
{
        state_of_rnd = state_of_rnd * 6364136223846793005u + 1442695040888963407u;
        return (state_of_rnd >> 33) % below;
}

struct stream {
        struct client *client;
        struct df_buf bytes;
        struct df_bytes bodies[REQUESTS];
        uint64_t cuts; /* seed of the pieces */
};

/* Most are small, as most requests are; some end exactly where reading ahead ends. */
static size_t body_size(void)
{
        switch (rnd(6)) {
        case 0:
                return 0;
        case 1:
                return (size_t)rnd(BODY_MAX);
        case 2:
                return 16384 - (size_t)rnd(200);
        default:
                return (size_t)rnd(400);
        }
}

static void put_chunked(struct df_buf *b, struct df_bytes body)
{
        df_buf_printf(b, "Transfer-Encoding: chunked\r\n\r\n");
        while (body.len > 0) {
                size_t n = 1 + (size_t)rnd(body.len);

                df_buf_printf(b, "%zx\r\n", n);
                df_buf_append(b, body.data, n);
                df_buf_append(b, "\r\n", 2);
                body = df_bytes(body.data + n, body.len - n);
        }
        df_buf_printf(b, "0\r\n\r\n");
}

static void make(struct stream *s)
{
        for (size_t i = 0; i < REQUESTS; i++) {
                size_t len = body_size();
                uint8_t *body = malloc(len + 1);

                assert_non_null(body);
                for (size_t k = 0; k < len; k++)
                        body[k] = (uint8_t)rnd(256);
                s->bodies[i] = df_bytes(body, len);
                df_buf_printf(&s->bytes, "POST %s HTTP/1.1\r\n" HOST, rnd(2) ? "/echo" : "/later");
                if (rnd(4) == 0) {
                        put_chunked(&s->bytes, s->bodies[i]);
                } else {
                        df_buf_printf(&s->bytes, "Content-Length: %zu\r\n\r\n", len);
                        df_buf_append(&s->bytes, body, len);
                }
        }
        assert_false(s->bytes.failed);
        s->cuts = state_of_rnd;
}

/* A thread of its own: with all sent and nothing read, both sides would wait. */
static void *send_pieces(void *arg)
{
        struct stream *s = arg;
        uint64_t r = s->cuts;

        for (size_t at = 0, n; at < s->bytes.len; at += n) {
                r = r * 6364136223846793005u + 1442695040888963407u;
                n = 1 + (size_t)((r >> 33) % ((r >> 60) ? 300 : 40000));
                n = n < s->bytes.len - at ? n : s->bytes.len - at;
                if (send(s->client->fd, s->bytes.data + at, n, MSG_NOSIGNAL) != (ssize_t)n)
                        break; /* the answers will be missing */
        }
        return NULL;
}

static void check(struct client *c, struct stream *s)
{
        for (size_t i = 0; i < REQUESTS; i++) {
                struct answer a;

                if (!client_answer(c, &a, true))
                        fail_msg("seed %" PRIu64 ": the connection ended before answer %zu", seed,
                                 i);
                if (a.status != 200 || a.len != s->bodies[i].len ||
                    memcmp(a.body, s->bodies[i].data, a.len) != 0)
                        fail_msg("seed %" PRIu64 ": answer %zu is %s, %zu bytes for %zu", seed, i,
                                 a.head, a.len, s->bodies[i].len);
                free(a.body);
        }
}

static void test_any_cut(void **state)
{
        struct df_http_server *server = start((struct df_http_options){.threads = 2});

        for (seed = 1; seed <= SEEDS; seed++) {
                struct client c;
                struct stream s = {.client = &c};
                pthread_t sender;

                state_of_rnd = seed;
                make(&s);
                connect_to(&c, server);
                assert_int_equal(pthread_create(&sender, NULL, send_pieces, &s), 0);
                check(&c, &s);
                assert_int_equal(pthread_join(sender, NULL), 0);
                client_close(&c);
                for (size_t i = 0; i < REQUESTS; i++)
                        free((void *)(uintptr_t)s.bodies[i].data);
                df_buf_release(&s.bytes);
        }
        wait_metric(server, IN_FLIGHT, 0);
        df_http_server_stop(server, 1000);
}

int main(void)
{
        const struct CMUnitTest tests[] = {cmocka_unit_test(test_any_cut)};

        return cmocka_run_group_tests(tests, begin_job, end_job);
}
