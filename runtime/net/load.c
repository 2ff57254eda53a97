/* load.c - a load generator: one thread, epoll, requests that were built before.
 *
 * It understands just enough of an answer to find its end: the status and Content-Length. Latency
 * is counted in buckets of 1/32 of a power of two, so a percentile is at most 3 % too high.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "df/net.h"

#define IN_BYTES 65536
#define EVENTS_MAX 128
#define WAIT_MS 100
#define IOV_COUNT 64
#define SUB_BITS 5 /* 32 buckets a power of two */
#define BUCKETS ((64 - SUB_BITS + 1) << SUB_BITS)
#define RECONNECTS_MAX 1000 /* in a row without an answer: the server is gone */

struct client {
        int fd;          /* -1: not connected */
        bool blocked;    /* waits for EPOLLOUT too */
        size_t next;     /* request to send */
        size_t sent;     /* bytes of it that are out */
        size_t queued;   /* requests from next on that are started and not all out */
        int64_t *starts; /* ring of depth: when the requests under way were started */
        uint32_t head, under_way;
        size_t in_len;
        size_t skip; /* bytes of a body that are still to come */
        uint8_t in[IN_BYTES];
};

struct load {
        const struct df_http_load *o;
        struct df_http_load_result *r;
        struct addrinfo *address;
        struct client *clients;
        int epoll;
        uint64_t started; /* requests */
        int64_t begun_ns;
        uint64_t ended;  /* answered or lost */
        uint32_t turn;   /* which connection is asked first */
        uint32_t barren; /* connections that brought nothing, in a row */
        int64_t last_ns; /* an answer came */
        uint64_t buckets[BUCKETS];
};

static int64_t now_ns(void)
{
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* ---- latency ---- */

static size_t bucket_of(uint64_t ns)
{
        int top = 63 - __builtin_clzll(ns | 1);

        if (top < SUB_BITS)
                return (size_t)ns;
        return ((size_t)(top - SUB_BITS + 1) << SUB_BITS) +
               (size_t)((ns >> (top - SUB_BITS)) & ((1u << SUB_BITS) - 1));
}

static uint64_t bucket_end(size_t b)
{
        size_t power = b >> SUB_BITS;

        if (power == 0)
                return b;
        return (((1ull << SUB_BITS) + (b & ((1u << SUB_BITS) - 1)) + 1) << (power - 1)) - 1;
}

static uint64_t percentile(const struct load *l, uint64_t answers, double share)
{
        uint64_t want = (uint64_t)((double)answers * share), seen = 0;

        for (size_t b = 0; b < BUCKETS; b++) {
                seen += l->buckets[b];
                if (seen > want || (seen == answers && seen > 0))
                        return bucket_end(b);
        }
        return 0;
}

/* ---- connections ---- */

static int watch(struct load *l, struct client *c, int op)
{
        struct epoll_event e = {.events = c->blocked ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};

        return epoll_ctl(l->epoll, op, c->fd, &e);
}

static int connect_client(struct load *l, struct client *c, struct df_error *err)
{
        const struct addrinfo *a = l->address;
        int one = 1;

        c->fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (c->fd < 0)
                return df_fail_errno(err, DF_EIO, "a socket");
        (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        if (connect(c->fd, a->ai_addr, a->ai_addrlen) < 0 && errno != EINPROGRESS)
                return df_fail_errno(err, DF_EAGAIN, "connect to %s", l->o->address);
        c->blocked = true; /* until it is connected */
        if (watch(l, c, EPOLL_CTL_ADD) < 0)
                return df_fail_errno(err, DF_EIO, "epoll");
        return 0;
}

/* The server closed it, or reset it: what was under way is lost. */
static int reconnect(struct load *l, struct client *c, struct df_error *err)
{
        close(c->fd);
        c->fd = -1;
        l->r->lost += c->under_way;
        l->ended += c->under_way;
        c->head = c->under_way = 0;
        c->sent = c->queued = c->in_len = c->skip = 0;
        if (++l->barren > RECONNECTS_MAX)
                return df_fail(err, DF_EAGAIN, "%s closes every connection without an answer",
                               l->o->address);
        return connect_client(l, c, err);
}

/* ---- sending ---- */

/* When the next request is due, with a rate. */
static int64_t due_ns(const struct load *l)
{
        return l->begun_ns + (int64_t)((double)l->started * 1e9 / (double)l->o->rate);
}

/* With a rate a request counts from when it was due, however late a connection became free for it:
 * what the server's slowness kept back is in its latency. */
static void start_requests(struct load *l, struct client *c)
{
        int64_t now = now_ns();

        while (c->under_way < l->o->depth && l->started < l->o->count) {
                int64_t due = l->o->rate ? due_ns(l) : now;

                if (due > now)
                        break;
                c->starts[(c->head + c->under_way++) % l->o->depth] = due;
                c->queued++;
                l->started++;
        }
}

/* n bytes of the queued requests are out. */
static void advance(struct load *l, struct client *c, size_t n)
{
        l->r->bytes_sent += n;
        for (n += c->sent; c->queued > 0 && n >= l->o->requests[c->next].len; c->queued--) {
                n -= l->o->requests[c->next].len;
                c->next = (c->next + 1) % l->o->request_count;
        }
        c->sent = n;
}

/* False: the connection is gone. */
static bool send_more(struct load *l, struct client *c)
{
        bool blocked = false;

        start_requests(l, c);
        while (c->queued > 0 && !blocked) {
                struct iovec iov[IOV_COUNT];
                struct msghdr msg = {.msg_iov = iov};
                size_t total = 0, i = c->next;
                ssize_t n;

                for (; msg.msg_iovlen < c->queued && msg.msg_iovlen < IOV_COUNT; msg.msg_iovlen++) {
                        iov[msg.msg_iovlen] = (struct iovec){(void *)l->o->requests[i].data,
                                                             l->o->requests[i].len};
                        total += l->o->requests[i].len;
                        i = (i + 1) % l->o->request_count;
                }
                iov[0].iov_base = (char *)iov[0].iov_base + c->sent;
                iov[0].iov_len -= c->sent;
                total -= c->sent;
                n = sendmsg(c->fd, &msg, MSG_NOSIGNAL);
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        return false;
                blocked = n < (ssize_t)total;
                advance(l, c, n > 0 ? (size_t)n : 0);
        }
        if (blocked == c->blocked)
                return true;
        c->blocked = blocked;
        return watch(l, c, EPOLL_CTL_MOD) == 0;
}

/* ---- receiving ---- */

static void count_answer(struct load *l, struct client *c, unsigned class)
{
        int64_t now = now_ns();
        uint64_t ns = (uint64_t)(now - c->starts[c->head]);

        c->head = (c->head + 1) % l->o->depth;
        c->under_way--;
        l->ended++;
        l->r->by_class[class < 6 ? class : 0]++;
        l->buckets[bucket_of(ns)]++;
        if (ns > l->r->max_ns)
                l->r->max_ns = ns;
        l->last_ns = now;
        l->barren = 0;
}

/* The head of one answer at data: its length, 0 = not all there. */
static size_t parse_answer(const char *data, size_t len, unsigned *ret_class, size_t *ret_body)
{
        static const char name[] = "\ncontent-length:";
        const char *end = memmem(data, len, "\r\n\r\n", 4);
        const char *p = data;

        if (!end || end - data < 12)
                return 0;
        *ret_class = (unsigned)(data[9] - '0');
        *ret_body = 0;
        while ((p = memchr(p, '\n', (size_t)(end - p)))) {
                if ((size_t)(end - p) > sizeof(name) && strncasecmp(p, name, sizeof(name) - 1) == 0)
                        *ret_body = strtoul(p + sizeof(name) - 1, NULL, 10);
                p++;
        }
        return (size_t)(end - data) + 4;
}

/* False: more answers than requests, or one whose head does not fit. */
static bool take_answers(struct load *l, struct client *c)
{
        size_t at = 0;

        while (at < c->in_len) {
                size_t left = c->in_len - at, n = c->skip < left ? c->skip : left;
                unsigned class;

                c->skip -= n;
                at += n;
                n = parse_answer((const char *)c->in + at, c->in_len - at, &class, &c->skip);
                if (n == 0)
                        break;
                if (c->under_way == 0)
                        return false;
                at += n;
                count_answer(l, c, class);
        }
        memmove(c->in, c->in + at, c->in_len - at);
        c->in_len -= at;
        return c->in_len < sizeof(c->in);
}

/* False: the connection is gone. */
static bool receive(struct load *l, struct client *c)
{
        for (;;) {
                size_t room = sizeof(c->in) - c->in_len;
                ssize_t n = recv(c->fd, c->in + c->in_len, room, 0);

                if (n < 0 && (errno == EAGAIN || errno == EINTR))
                        return true;
                if (n <= 0)
                        return false;
                c->in_len += (size_t)n;
                if (!take_answers(l, c))
                        return false;
                if ((size_t)n < room)
                        return true;
        }
}

/* ---- the run ---- */

/* With a rate: requests that are due go to connections that are free. */
static int start_due(struct load *l, struct df_error *err)
{
        for (uint32_t i = 0; i < l->o->connections; i++) {
                struct client *c = &l->clients[(l->turn + i) % l->o->connections];

                if (l->started >= l->o->count || due_ns(l) > now_ns())
                        break;
                if (c->blocked || c->under_way >= l->o->depth)
                        continue;
                if (!send_more(l, c)) {
                        int rc = reconnect(l, c, err);

                        if (rc < 0)
                                return rc;
                }
        }
        l->turn++; /* all connections get their share */
        return 0;
}

/* Until the next request is due, at most WAIT_MS. */
static struct timespec wait_time(const struct load *l)
{
        int64_t ns = WAIT_MS * 1000000LL;

        if (l->o->rate && l->started < l->o->count && due_ns(l) - now_ns() < ns)
                ns = due_ns(l) - now_ns();
        return (struct timespec){.tv_nsec = ns > 0 ? ns : 0};
}

static int turn(struct load *l, struct df_error *err)
{
        struct epoll_event events[EVENTS_MAX];
        struct timespec wait = wait_time(l);
        int n = epoll_pwait2(l->epoll, events, EVENTS_MAX, &wait, NULL), rc = 0;

        if (n < 0 && errno != EINTR)
                return df_fail_errno(err, DF_EIO, "epoll");
        for (int i = 0; i < n && rc == 0; i++) {
                struct client *c = events[i].data.ptr;

                if (!receive(l, c) || !send_more(l, c))
                        rc = reconnect(l, c, err);
        }
        if (rc == 0 && l->o->rate)
                rc = start_due(l, err);
        if (rc == 0 && l->o->stop && l->o->stop())
                rc = df_fail(err, DF_EAGAIN, "asked to stop");
        if (rc == 0 && now_ns() - l->last_ns > l->o->timeout_ms * 1000000)
                rc = df_fail(err, DF_EAGAIN, "%s: no answer for %lld ms", l->o->address,
                             (long long)l->o->timeout_ms);
        return rc;
}

static int resolve(struct load *l, struct df_error *err)
{
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
        const char *address = l->o->address, *colon = strrchr(address, ':');
        size_t len = colon ? (size_t)(colon - address) : 0;
        bool v6 = len > 2 && address[0] == '[' && address[len - 1] == ']';
        char host[256];
        int rc;

        if (len == 0 || len >= sizeof(host))
                return df_fail(err, DF_EINVAL, "\"%s\" is not HOST:PORT", address);
        (void)snprintf(host, sizeof(host), "%.*s", (int)len - 2 * v6, address + v6);
        rc = getaddrinfo(host, colon + 1, &hints, &l->address);
        if (rc != 0)
                return df_fail(err, DF_EINVAL, "%s: %s", address, gai_strerror(rc));
        return 0;
}

static int create_clients(struct load *l, struct df_error *err)
{
        int rc = 0;

        l->clients = calloc(l->o->connections, sizeof(*l->clients));
        if (!l->clients)
                return df_fail(err, DF_ENOMEM, "%u connections", l->o->connections);
        for (uint32_t i = 0; i < l->o->connections; i++)
                l->clients[i].fd = -1;
        for (uint32_t i = 0; i < l->o->connections && rc == 0; i++) {
                struct client *c = &l->clients[i];

                c->next = i % l->o->request_count;
                c->starts = calloc(l->o->depth, sizeof(*c->starts));
                rc = c->starts ? connect_client(l, c, err)
                               : df_fail(err, DF_ENOMEM, "%u requests under way", l->o->depth);
        }
        return rc;
}

static void release(struct load *l)
{
        for (uint32_t i = 0; l->clients && i < l->o->connections; i++) {
                if (l->clients[i].fd >= 0)
                        close(l->clients[i].fd);
                free(l->clients[i].starts);
        }
        free(l->clients);
        if (l->address)
                freeaddrinfo(l->address);
        if (l->epoll >= 0)
                close(l->epoll);
        free(l);
}

static void summarize(struct load *l, int64_t begun_ns)
{
        uint64_t answers = l->ended - l->r->lost;

        l->r->elapsed_ns = (uint64_t)(now_ns() - begun_ns);
        l->r->p50_ns = percentile(l, answers, 0.5);
        l->r->p90_ns = percentile(l, answers, 0.9);
        l->r->p95_ns = percentile(l, answers, 0.95);
        l->r->p99_ns = percentile(l, answers, 0.99);
        l->r->p999_ns = percentile(l, answers, 0.999);
}

int df_http_load(const struct df_http_load *o, struct df_http_load_result *ret,
                 struct df_error *err)
{
        struct df_http_load_result result = {0};
        struct load *l = calloc(1, sizeof(*l));
        int64_t begun = now_ns();
        int rc;

        df_check(o->request_count > 0);
        df_check(o->connections > 0);
        df_check(o->depth > 0);
        if (!l)
                return df_fail(err, DF_ENOMEM, "a load generator");
        l->o = o;
        l->r = &result;
        l->last_ns = l->begun_ns = begun;
        l->epoll = epoll_create1(EPOLL_CLOEXEC);
        rc = l->epoll < 0 ? df_fail_errno(err, DF_EIO, "epoll") : resolve(l, err);
        if (rc == 0)
                rc = create_clients(l, err);
        while (rc == 0 && l->ended < o->count)
                rc = turn(l, err);
        summarize(l, begun);
        release(l);
        if (rc == 0)
                *ret = result;
        return rc;
}
