/* server.c - start and stop; what is shared by the loops. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "net_private.h"

#define THREADS_MAX 64

#define DEFAULT(field, value)                                                                      \
        do {                                                                                       \
                if (!(field))                                                                      \
                        (field) = (value);                                                         \
        } while (0)

static void set_defaults(struct df_http_options *o)
{
        DEFAULT(o->threads, 1);
        DEFAULT(o->connections_max, 10000);
        DEFAULT(o->in_flight_max, 256ull << 20);
        DEFAULT(o->head_ms, 10000);
        DEFAULT(o->request_ms, 30000);
        DEFAULT(o->idle_ms, 60000);
        DEFAULT(o->write_ms, 30000);
        DEFAULT(o->min_rate, 1024);
        DEFAULT(o->requests_max, 100000);
}

static int add_routes(struct df_http_server *s, struct df_error *err)
{
        s->routes = calloc(s->o.route_count ? s->o.route_count : 1, sizeof(*s->routes));
        if (!s->routes)
                return df_fail(err, DF_ENOMEM, "routes");
        for (size_t i = 0; i < s->o.route_count; i++) {
                struct dfi_route *route = &s->routes[i];
                const char *star;

                route->route = &s->o.routes[i];
                route->len = strlen(route->route->path);
                df_check(route->len > 0 && route->route->path[0] == '/');
                df_check(route->route->handle);
                star = strchr(route->route->path, '*');
                route->wild = star != NULL;
                if (star) {
                        df_check(star[-1] == '/' && (star[1] == '/' || star[1] == '\0'));
                        route->after = strlen(star + 1);
                        route->len -= route->after + 1;
                }
        }
        return 0;
}

static int open_socket(struct df_http_server *s, const char *address, struct df_error *err)
{
        int flags, rc;

        if (s->o.listen_fd < 0) {
                rc = df_http_listen(address, &s->o.listen_fd, &s->port, err);
                return rc < 0 ? rc : 0;
        }
        flags = fcntl(s->o.listen_fd, F_GETFL);
        if (flags < 0 || fcntl(s->o.listen_fd, F_SETFL, flags | O_NONBLOCK) < 0)
                return df_fail_errno(err, DF_EINVAL, "listening socket %d", s->o.listen_fd);
        return dfi_port_of(s->o.listen_fd, &s->port, err);
}

static int start_loops(struct df_http_server *s, struct df_error *err)
{
        int rc = 0;

        s->loops = calloc(s->o.threads, sizeof(struct dfi_loop *));
        if (!s->loops)
                return df_fail(err, DF_ENOMEM, "event loops");
        for (uint32_t i = 0; i < s->o.threads && rc == 0; i++) {
                rc = dfi_loop_create(s, &s->loops[i], err);
                s->loop_count += rc == 0;
        }
        for (uint32_t i = 0; i < s->loop_count && rc == 0; i++)
                rc = dfi_loop_start(s->loops[i], i, err);
        return rc;
}

int df_http_server_start(const struct df_http_options *o, struct df_http_server **ret,
                         struct df_error *err)
{
        struct df_http_server *s = calloc(1, sizeof(*s));
        int rc;

        if (!s)
                return df_fail(err, DF_ENOMEM, "an HTTP server");
        s->o = *o;
        set_defaults(&s->o);
        (void)snprintf(s->name, sizeof(s->name), "%s", o->name ? o->name : "http");
        s->o.name = s->name;
        s->o.address = NULL;
        pthread_mutex_init(&s->address_lock, NULL);
        rc = s->o.threads > THREADS_MAX
                     ? df_fail(err, DF_ELIMIT, "%u event loop threads; at most %d", o->threads,
                               THREADS_MAX)
                     : open_socket(s, o->address, err);
        if (rc == 0)
                rc = add_routes(s, err);
        if (rc == 0)
                rc = start_loops(s, err);
        if (rc < 0) {
                if (o->listen_fd >= 0)
                        s->o.listen_fd = -1; /* on failure it stays the caller's */
                df_http_server_stop(s, 0);
                return rc;
        }
        *ret = s;
        return 0;
}

uint16_t df_http_server_port(const struct df_http_server *s)
{
        return s->port;
}

void df_http_server_stop(struct df_http_server *s, int64_t drain_ms)
{
        int64_t until = dfi_now_ms() + drain_ms;

        if (!s)
                return;
        for (uint32_t i = 0; i < s->loop_count; i++)
                dfi_loop_stop(s->loops[i], until);
        for (uint32_t i = 0; i < s->loop_count; i++)
                dfi_loop_destroy(s->loops[i]);
        if (s->o.listen_fd >= 0)
                close(s->o.listen_fd);
        free(s->loops);
        free(s->routes);
        pthread_mutex_destroy(&s->address_lock);
        free(s);
}
