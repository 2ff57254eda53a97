/* http_test.h - a raw client for the HTTP tests: it sends exactly the bytes it is told to, and
 * reads answers by a parser of its own. */
#ifndef ADTALLY_TESTS_HTTP_TEST_H
#define ADTALLY_TESTS_HTTP_TEST_H

#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "df/net.h"

#define HOST "Host: localhost\r\n"
#define WAIT_MS 20000 /* for an answer that must come; a slow machine is no failure */
#define ANSWER_MAX (4u << 20)

struct client {
        int fd;
        char *in;
        size_t len;
};

struct answer {
        int status;
        char head[8192]; /* with its empty line */
        char *body;      /* points into the client's buffer; zero-terminated copy */
        size_t len;
        bool close;
};

static inline int64_t now_ms(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline void sleep_ms(int64_t ms)
{
        const struct timespec t = {ms / 1000, ms % 1000 * 1000000};

        (void)nanosleep(&t, NULL);
}

static inline void client_open(struct client *c, uint16_t port)
{
        struct sockaddr_in a = {.sin_family = AF_INET,
                                .sin_port = htons(port),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        int one = 1;

        c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        c->in = malloc(ANSWER_MAX);
        c->len = 0;
        assert_true(c->fd >= 0);
        assert_non_null(c->in);
        assert_int_equal(setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)), 0);
        assert_int_equal(connect(c->fd, (struct sockaddr *)&a, sizeof(a)), 0);
}

static inline void client_close(struct client *c)
{
        close(c->fd);
        free(c->in);
}

/* Close so that the server sees a reset. */
static inline void client_reset(struct client *c)
{
        const struct linger l = {.l_onoff = 1};

        assert_int_equal(setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l)), 0);
        client_close(c);
}

static inline void client_send(struct client *c, const void *data, size_t len)
{
        while (len > 0) {
                ssize_t n = send(c->fd, data, len, MSG_NOSIGNAL);

                assert_true(n > 0);
                data = (const char *)data + n;
                len -= (size_t)n;
        }
}

static inline void client_say(struct client *c, const char *text)
{
        client_send(c, text, strlen(text));
}

/* More bytes: 1, the end: 0, nothing within ms: -1. A reset counts as the end. */
static inline int client_more(struct client *c, int64_t ms)
{
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        ssize_t n;

        if (poll(&p, 1, (int)ms) <= 0)
                return -1;
        n = recv(c->fd, c->in + c->len, ANSWER_MAX - 1 - c->len, 0);
        if (n <= 0)
                return 0;
        c->len += (size_t)n;
        return 1;
}

static inline bool client_at_end(struct client *c)
{
        return c->len == 0 && client_more(c, WAIT_MS) == 0;
}

static inline const char *answer_header(const struct answer *a, const char *name)
{
        static char value[512];
        const char *p = a->head;
        size_t n = strlen(name);

        while ((p = strstr(p, "\r\n"))) {
                p += 2;
                if (strncasecmp(p, name, n) == 0 && p[n] == ':') {
                        p += n + 1 + strspn(p + n + 1, " ");
                        (void)snprintf(value, sizeof(value), "%.*s", (int)strcspn(p, "\r"), p);
                        return value;
                }
        }
        return NULL;
}

/* The next answer. has_body: what Content-Length states follows. False: the connection ended. */
static inline bool client_answer(struct client *c, struct answer *a, bool has_body)
{
        char *end = NULL;
        const char *length;
        size_t head, body;

        while (c->len == 0 || !(end = memmem(c->in, c->len, "\r\n\r\n", 4))) {
                int rc = client_more(c, WAIT_MS);

                if (rc < 0)
                        fail_msg("no answer");
                if (rc == 0)
                        return false;
        }
        head = (size_t)(end - c->in) + 4;
        assert_true(head < sizeof(a->head));
        memcpy(a->head, c->in, head);
        a->head[head] = '\0';
        assert_int_equal(strncmp(a->head, "HTTP/1.1 ", 9), 0);
        a->status = (int)strtol(a->head + 9, NULL, 10);
        a->close = answer_header(a, "Connection") != NULL;
        length = answer_header(a, "Content-Length");
        body = has_body && length ? strtoul(length, NULL, 10) : 0;
        while (c->len < head + body)
                if (client_more(c, WAIT_MS) <= 0)
                        fail_msg("a body of %zu bytes ended after %zu", body, c->len - head);
        a->body = calloc(1, body + 1);
        assert_non_null(a->body);
        memcpy(a->body, c->in + head, body);
        a->len = body;
        c->len -= head + body;
        memmove(c->in, c->in + head + body, c->len);
        return true;
}

/* An answer with this status must come, and its text must hold part (NULL = anything). */
static inline void client_expect(struct client *c, int status, const char *part)
{
        struct answer a;

        if (!client_answer(c, &a, true))
                fail_msg("the connection ended; expected %d", status);
        if (a.status != status || (part && !strstr(a.head, part) && !strstr(a.body, part)))
                fail_msg("expected %d with \"%s\", got %s%s", status, part ? part : "", a.head,
                         a.body);
        free(a.body);
}

#endif
