/* listen.c - sockets: listening, accepting, and who may come in. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "net_private.h"

#define HOST_MAX 256
#define ACCEPT_TURN 64     /* connections taken before others get their turn */
#define TURNED_AWAY_MAX 64 /* connections over the limit, a loop, that are told so */

/* ---- listening ---- */

static bool split_address(const char *address, char host[HOST_MAX], const char **ret_port)
{
        const char *colon = strrchr(address, ':');
        size_t len = colon ? (size_t)(colon - address) : 0;

        if (len == 0 || len >= HOST_MAX || colon[1] == '\0')
                return false;
        if (address[0] == '[') {
                if (address[len - 1] != ']')
                        return false;
                address++;
                len -= 2;
        } else if (memchr(address, ':', len)) {
                return false;
        }
        memcpy(host, address, len);
        host[len] = '\0';
        *ret_port = colon + 1;
        return len > 0;
}

/* A socket bound to one of the name's addresses, or -1 with errno. */
static int bind_one(const struct addrinfo *a)
{
        int one = 1, saved;
        int fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
                return -1;
        if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
            bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, SOMAXCONN) == 0)
                return fd;
        saved = errno;
        close(fd);
        errno = saved;
        return -1;
}

int dfi_port_of(int fd, uint16_t *ret, struct df_error *err)
{
        struct sockaddr_storage a;
        socklen_t len = sizeof(a);

        if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
                return df_fail_errno(err, DF_EIO, "the listening socket's address");
        *ret = ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                             : ((struct sockaddr_in *)&a)->sin_port);
        return 0;
}

int df_http_listen(const char *address, int *ret_fd, uint16_t *ret_port, struct df_error *err)
{
        const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                       .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
        struct addrinfo *list = NULL;
        const char *port;
        char host[HOST_MAX];
        int fd = -1, rc;

        if (!split_address(address, host, &port))
                return df_fail(
                        err, DF_EINVAL,
                        "cannot listen at \"%s\": give HOST:PORT, or [ADDRESS]:PORT for IPv6",
                        address);
        rc = getaddrinfo(host, port, &hints, &list);
        if (rc != 0)
                return df_fail(err, DF_EINVAL, "cannot listen at %s: %s", address,
                               gai_strerror(rc));
        for (const struct addrinfo *a = list; a && fd < 0; a = a->ai_next)
                fd = bind_one(a);
        if (fd < 0 && errno == EADDRINUSE)
                rc = df_fail(
                        err, DF_EEXIST,
                        "cannot listen at %s: another program does; stop it, or give another port",
                        address);
        else if (fd < 0)
                rc = df_fail_errno(err, DF_EIO, "cannot listen at %s", address);
        freeaddrinfo(list);
        if (rc == 0)
                rc = dfi_port_of(fd, ret_port, err);
        if (rc < 0 && fd >= 0)
                close(fd);
        if (rc == 0)
                *ret_fd = fd;
        return rc;
}

/* ---- connections of one address ---- */

struct dfi_address {
        struct dfi_address *next;
        struct in6_addr address;
        uint32_t count;
};

static struct dfi_address **find_address(struct df_http_server *s, const struct in6_addr *a)
{
        struct dfi_address **p;
        uint32_t hash = 2166136261u; /* FNV-1a */

        for (size_t i = 0; i < sizeof(a->s6_addr); i++)
                hash = (hash ^ a->s6_addr[i]) * 16777619u;
        p = &s->addresses[hash % DFI_ADDRESS_SLOTS];
        while (*p && memcmp(&(*p)->address, a, sizeof(*a)) != 0)
                p = &(*p)->next;
        return p;
}

static bool address_enter(struct df_http_server *s, const struct in6_addr *a)
{
        struct dfi_address **p;
        bool ok = false;

        pthread_mutex_lock(&s->address_lock);
        p = find_address(s, a);
        if (!*p) {
                *p = calloc(1, sizeof(**p));
                if (*p)
                        (*p)->address = *a;
        }
        if (*p && (*p)->count < s->o.connections_per_address) {
                (*p)->count++;
                ok = true;
        }
        pthread_mutex_unlock(&s->address_lock);
        return ok;
}

static void address_leave(struct df_http_server *s, const struct in6_addr *a)
{
        struct dfi_address **p, *gone;

        pthread_mutex_lock(&s->address_lock);
        p = find_address(s, a);
        df_check(*p);
        if (--(*p)->count == 0) {
                gone = *p;
                *p = gone->next;
                free(gone);
        }
        pthread_mutex_unlock(&s->address_lock);
}

/* ---- accepting ---- */

static bool loopback(const struct in6_addr *a)
{
        return IN6_IS_ADDR_LOOPBACK(a) || (IN6_IS_ADDR_V4MAPPED(a) && a->s6_addr[12] == 127);
}

static bool name_peer(struct dfi_conn *c)
{
        struct sockaddr_storage ss;
        socklen_t len = sizeof(ss);

        if (getpeername(c->fd, (struct sockaddr *)&ss, &len) < 0)
                return false; /* gone already */
        if (ss.ss_family == AF_INET6) {
                c->address = ((struct sockaddr_in6 *)&ss)->sin6_addr;
        } else {
                c->address.s6_addr[10] = c->address.s6_addr[11] = 0xff;
                memcpy(&c->address.s6_addr[12], &((struct sockaddr_in *)&ss)->sin_addr, 4);
        }
        c->loopback = loopback(&c->address);
        if (IN6_IS_ADDR_V4MAPPED(&c->address))
                (void)inet_ntop(AF_INET, &c->address.s6_addr[12], c->peer, sizeof(c->peer));
        else
                (void)inet_ntop(AF_INET6, &c->address, c->peer, sizeof(c->peer));
        return true;
}

/* Count it, or say why not. */
static bool count_in(struct dfi_conn *c, enum dfi_cause *ret_cause)
{
        struct df_http_server *s = c->loop->server;

        *ret_cause = DFI_CAUSE_CONNECTIONS;
        if (atomic_fetch_add(&s->connections, 1) < s->o.connections_max) {
                if (s->o.connections_per_address == 0 || address_enter(s, &c->address))
                        return true;
                *ret_cause = DFI_CAUSE_ADDRESS;
        }
        atomic_fetch_sub(&s->connections, 1);
        return false;
}

struct dfi_conn *dfi_welcome(struct dfi_loop *l, int fd)
{
        struct dfi_conn *c = dfi_conn_create(l, fd);
        enum dfi_cause cause;
        int one = 1;

        if (!c)
                return NULL;
        l->turned_away++; /* until it is counted */
        if (!name_peer(c)) {
                dfi_conn_destroy(c);
                return NULL;
        }
        if (count_in(c, &cause)) {
                l->turned_away--;
                c->counted = true;
                (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
                dfi_count(&l->stats.accepted);
                c->deadline_ms = c->since_ms + l->server->o.idle_ms;
                dfi_wheel_place(c);
                return c;
        }
        if (l->turned_away > TURNED_AWAY_MAX) {
                dfi_count(&l->stats.refused[cause]);
                dfi_conn_destroy(c);
        } else {
                dfi_conn_turn_away(c, cause);
        }
        return NULL;
}

void dfi_farewell(struct dfi_conn *c)
{
        struct df_http_server *s = c->loop->server;

        if (!c->counted) {
                c->loop->turned_away--;
                return;
        }
        atomic_fetch_sub(&s->connections, 1);
        if (s->o.connections_per_address)
                address_leave(s, &c->address);
}

void dfi_accept(struct dfi_loop *l)
{
        dfi_loop_time(l);
        for (int i = 0; i < ACCEPT_TURN; i++) {
                int fd = accept4(l->server->o.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

                if (fd >= 0) {
                        (void)dfi_welcome(l, fd);
                        continue;
                }
                if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
                        dfi_loop_pause_accept(l); /* or the loop would spin */
                if (errno != EINTR && errno != ECONNABORTED)
                        return;
        }
}
