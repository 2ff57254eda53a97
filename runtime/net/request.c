/* request.c - from the bytes of a request to the handler that answers it. */
#include <errno.h>
#include <stdlib.h>

#include "net_private.h"

#define SPARE_MAX 64           /* requests kept for reuse, a loop */
#define BODY_KEEP_BYTES 262144 /* larger buffers are given back */
#define OUT_KEEP_BYTES 65536   /* likewise */
#define HOLD_MIN_BYTES                                                                             \
        16384 /* a body is counted, and its buffer grows, in such steps or doubles  \
                              */
#define RECEIVE_TURN_BYTES 1048576 /* of one connection before the others get their turn */

/* ---- life ---- */

static struct dfi_request *request_take(struct dfi_conn *c)
{
        struct dfi_loop *l = c->loop;
        struct dfi_request *r = STAILQ_FIRST(&l->spare);

        if (r) {
                STAILQ_REMOVE_HEAD(&l->spare, link);
                l->spare_count--;
        } else {
                r = malloc(sizeof(*r)); /* 20 KiB, and what matters of it is set below */
                if (!r)
                        return NULL;
                r->body = (struct df_buf){0};
                r->out = (struct df_buf){0};
        }
        r->loop = l;
        r->conn = c;
        r->route = NULL;
        r->held = 0;
        r->due = r->close = r->replied = false;
        r->allowed = 0;
        r->pub.user = NULL;
        memcpy(r->peer, c->peer, sizeof(r->peer));
        return r;
}

void dfi_request_free(struct dfi_request *r)
{
        df_buf_release(&r->body);
        df_buf_release(&r->out);
        free(r);
}

static void trim(struct df_buf *b, size_t keep)
{
        df_buf_clear(b);
        if (b->cap > keep)
                df_buf_release(b);
}

void dfi_request_recycle(struct dfi_request *r)
{
        struct dfi_loop *l = r->loop;

        if (r->held)
                atomic_fetch_sub(&l->server->in_flight, r->held);
        if (r->conn)
                r->conn->req = NULL;
        if (l->spare_count == SPARE_MAX) {
                dfi_request_free(r);
                return;
        }
        trim(&r->body, BODY_KEEP_BYTES);
        trim(&r->out, OUT_KEEP_BYTES);
        STAILQ_INSERT_HEAD(&l->spare, r, link);
        l->spare_count++;
}

void dfi_request_pend(struct dfi_conn *c)
{
        c->state = DFI_HANDLING;
        c->req->due = true;
        c->loop->pending++;
}

void dfi_request_finish(struct dfi_request *r, int status, bool close)
{
        struct dfi_conn *c = r->conn;

        df_check(r->due);
        df_check(c->state == DFI_HANDLING);
        dfi_count(&c->loop->stats.by_class[status / 100]);
        c->loop->pending--;
        dfi_request_recycle(r);
        c->handed = false;
        c->started_ms = 0;
        c->since_ms = c->loop->now_ms;
        c->state = close ? DFI_CLOSING : DFI_HEAD;
        c->cut &= close;
}

static bool handle(struct dfi_conn *c)
{
        struct dfi_request *r = c->req;

        r->pub.body = df_buf_bytes(&r->body);
        dfi_request_pend(c);
        r->route->handle(c->loop->server->o.arg, &r->pub); /* r may be gone */
        return c->state != DFI_HANDLING;
}

/* ---- routes ---- */

static bool fits(const struct dfi_route *route, struct df_bytes path)
{
        const char *after;

        if (path.len < route->len || memcmp(path.data, route->route->path, route->len) != 0)
                return false;
        if (!route->wild)
                return path.len == route->len;
        after = route->route->path + route->len + 1;
        if (path.len <= route->len + route->after ||
            memcmp(path.data + path.len - route->after, after, route->after) != 0)
                return false;
        return !memchr(path.data + route->len, '/', path.len - route->after - route->len);
}

/* An exact path wins over "*". NULL: r->allowed has the methods of the path, 0 = it is unknown. */
static const struct dfi_route *find_route(const struct df_http_server *s, struct dfi_request *r)
{
        for (int wild = 0; wild < 2 && !r->allowed; wild++)
                for (size_t i = 0; i < s->o.route_count; i++) {
                        const struct dfi_route *route = &s->routes[i];

                        if (route->wild != (wild == 1) || !fits(route, r->pub.path))
                                continue;
                        if (route->route->methods & r->pub.method)
                                return route;
                        r->allowed |= route->route->methods;
                }
        return NULL;
}

/* ---- the head ---- */

static void fill(struct dfi_conn *c, struct dfi_request *r)
{
        struct df_http_request *p = &r->pub;

        p->method = r->head.method;
        p->path = r->head.path;
        p->tail = df_bytes(NULL, 0);
        p->headers = r->head.headers;
        p->header_count = r->head.header_count;
        p->params = r->params;
        p->param_count = 0;
        p->body = df_bytes(NULL, 0);
        p->body_length = r->head.length;
        p->peer = r->peer;
        p->peer_loopback = c->loopback;
        p->received_ms = c->loop->wall_ms;
}

/* true: it was handed over, or the answers before it must leave first (then c comes back here). */
static bool hand_over(struct dfi_conn *c)
{
        if (dfi_conn_flush(c) && dfi_handoff_send(c)) {
                dfi_count(&c->loop->stats.handed_out);
                c->state = DFI_DEAD;
        }
        if (c->state != DFI_DEAD && !dfi_conn_backlog(c))
                return false;
        dfi_request_recycle(c->req);
        c->scanned = 0;
        return true;
}

static bool refuse_route(struct dfi_conn *c)
{
        struct dfi_request *r = c->req;

        if (r->allowed)
                dfi_conn_refuse(c, DFI_CAUSE_METHOD, "%.*s does not take this method",
                                (int)r->pub.path.len, (const char *)r->pub.path.data);
        else
                dfi_conn_refuse(c, DFI_CAUSE_NOT_FOUND, "there is nothing at %.*s",
                                (int)r->pub.path.len, (const char *)r->pub.path.data);
        return true;
}

static bool begin_body(struct dfi_conn *c)
{
        static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
        struct dfi_request *r = c->req;

        df_buf_clear(&r->body);
        if (r->head.length == 0)
                return handle(c);
        c->since_ms = c->loop->now_ms;
        c->chunks = (struct dfi_chunks){0};
        c->state = r->head.length == UINT64_MAX ? DFI_CHUNKED : DFI_BODY;
        if (r->head.expect && c->in.len == 0) {
                df_buf_append(&c->loop->out, go_on, sizeof(go_on) - 1);
                (void)dfi_conn_flush(c);
        }
        return true;
}

/* The rules that need the route, then the handler's own, before any byte of the body. */
static bool admit(struct dfi_conn *c)
{
        struct dfi_request *r = c->req;
        const struct df_http_route *route = r->route;
        bool close = r->close;

        if (r->head.length != UINT64_MAX && r->head.length > route->body_max) {
                dfi_conn_refuse(c, DFI_CAUSE_BODY_TOO_LARGE,
                                "the body has %llu bytes; %llu are allowed here",
                                (unsigned long long)r->head.length,
                                (unsigned long long)route->body_max);
                return true;
        }
        if (r->pub.method == DF_HTTP_POST && route->body_max > 0 && !r->head.has_length) {
                dfi_conn_refuse(
                        c, DFI_CAUSE_LENGTH_REQUIRED,
                        "state the body's length with Content-Length (0: no body) or send it "
                        "chunked");
                return true;
        }
        if (route->admit) {
                r->close |= r->head.length != 0;
                c->cut = r->head.length != 0;
                dfi_request_pend(c);
                if (route->admit(c->loop->server->o.arg, &r->pub) != 0)
                        return c->state != DFI_HANDLING;
                df_check(c->req == r); /* it has not replied */
                df_check(!r->replied);
                c->loop->pending--;
                r->due = c->cut = false;
                r->close = close;
        }
        return begin_body(c);
}

/* The tail of "*" is decoded behind the parameters. */
static bool decode_parts(struct dfi_conn *c, const struct dfi_route *route)
{
        struct dfi_request *r = c->req;
        struct dfi_refusal bad;
        size_t len = 0;

        if (!dfi_query_parse(r->head.query, r->decoded, r->params, &r->pub.param_count, &bad)) {
                dfi_conn_refuse(c, DFI_CAUSE_BAD_REQUEST, "%s", bad.why);
                return false;
        }
        if (route->wild) {
                uint8_t *store = r->decoded + r->head.query.len;

                if (!dfi_decode(df_bytes(r->pub.path.data + route->len,
                                         r->pub.path.len - route->len - route->after),
                                false, store, &len)) {
                        dfi_conn_refuse(
                                c, DFI_CAUSE_BAD_REQUEST,
                                "the path holds a %% that is not followed by two hexadecimal "
                                "digits");
                        return false;
                }
                r->pub.tail = df_bytes(store, len);
        }
        return true;
}

static void refuse_head(struct dfi_conn *c, const struct dfi_refusal *bad)
{
        enum dfi_cause cause = bad->status == 431   ? DFI_CAUSE_HEAD_TOO_LARGE
                               : bad->status == 417 ? DFI_CAUSE_EXPECTATION
                                                    : DFI_CAUSE_BAD_REQUEST;

        dfi_conn_refuse(c, cause, "%s", bad->why);
}

static bool begin(struct dfi_conn *c, size_t len)
{
        const struct df_http_server *s = c->loop->server;
        struct dfi_request *r = request_take(c);
        const struct dfi_route *route;
        struct dfi_refusal bad;

        if (!r) {
                dfi_conn_refuse(c, DFI_CAUSE_NO_MEMORY, "no memory for a request; try again later");
                return true;
        }
        if (dfi_head_parse(&r->head, c->in.data, len, &bad) == DFI_BAD) {
                dfi_request_recycle(r);
                refuse_head(c, &bad);
                return true;
        }
        c->req = r;
        fill(c, r);
        route = find_route(s, r);
        if (!route && !r->allowed && s->o.peer_fd >= 0 && !c->handed) {
                if (hand_over(c))
                        return false;
                dfi_conn_refuse(c, DFI_CAUSE_HANDOFF,
                                "the process that answers this path does not run; try again");
                return true;
        }
        dfi_consume(c, len);
        c->scanned = 0;
        r->close = r->head.close || ++c->requests >= s->o.requests_max;
        if (!route)
                return refuse_route(c);
        r->route = route->route;
        return decode_parts(c, route) ? admit(c) : true;
}

bool dfi_request_head(struct dfi_conn *c)
{
        struct dfi_refusal bad;

        if (c->in.len == 0) {
                if (!c->eof && !c->loop->draining)
                        return false;
                c->state = DFI_CLOSING;
                return true;
        }
        if (!c->started_ms)
                c->started_ms = c->loop->now_ms;
        switch (dfi_scan(c->in.data, c->in.len, &c->scanned, &bad)) {
        case DFI_MORE:
                if (!c->eof)
                        return false;
                c->state = DFI_CLOSING;
                return true;
        case DFI_BAD:
                refuse_head(c, &bad);
                return true;
        case DFI_DONE:
                break;
        }
        return begin(c, c->scanned);
}

/* ---- bodies ---- */

/* Count and get room for a body of need bytes. False: refused. */
static bool hold(struct dfi_conn *c, uint64_t need)
{
        struct df_http_server *s = c->loop->server;
        struct dfi_request *r = c->req;
        uint64_t want = 2 * r->held > HOLD_MIN_BYTES ? 2 * r->held : HOLD_MIN_BYTES;

        if (need <= r->held)
                return true;
        if (want < need)
                want = need;
        if (want > r->head.length) /* chunked: never */
                want = r->head.length;
        if (atomic_fetch_add(&s->in_flight, want - r->held) + want - r->held > s->o.in_flight_max) {
                atomic_fetch_sub(&s->in_flight, want - r->held);
                dfi_conn_refuse(c, DFI_CAUSE_IN_FLIGHT,
                                "the server holds all the bytes it may; try again later");
                return false;
        }
        r->held = want;
        if (!df_buf_reserve(&r->body, want - r->body.len)) {
                dfi_conn_refuse(c, DFI_CAUSE_NO_MEMORY, "no memory for the body; try again later");
                return false;
        }
        return true;
}

/* Without a detour through the loop's buffer. */
static bool receive(struct dfi_conn *c)
{
        struct dfi_request *r = c->req;
        size_t turn = 0;

        while (r->body.len < r->head.length && turn < RECEIVE_TURN_BYTES) {
                size_t room;
                ssize_t n;

                if (!hold(c, r->body.len + 1))
                        return false;
                room = (size_t)r->held - r->body.len;
                n = recv(c->fd, r->body.data + r->body.len, room, MSG_DONTWAIT);
                if (n < 0 && errno != EAGAIN && errno != EINTR)
                        c->state = DFI_DEAD;
                c->eof |= n == 0;
                c->dry = n < (ssize_t)room;
                if (n <= 0)
                        break;
                r->body.len += (size_t)n;
                turn += (size_t)n;
                if (c->dry)
                        break;
        }
        return true;
}

bool dfi_request_body(struct dfi_conn *c)
{
        struct dfi_request *r = c->req;
        uint64_t need = r->head.length - r->body.len;
        size_t n = c->in.len < need ? c->in.len : (size_t)need;

        if (n > 0) {
                if (!hold(c, r->body.len + n))
                        return true;
                df_buf_append(&r->body, c->in.data, n);
                dfi_consume(c, n);
        }
        if (n < need && !c->eof && !c->dry && !receive(c))
                return true;
        if (c->state == DFI_DEAD)
                return false;
        if (r->body.len == r->head.length)
                return handle(c);
        if (c->eof)
                c->state = DFI_DEAD;
        return false;
}

/* One stretch of the input. False: refused. */
static bool take_chunk(struct dfi_conn *c, enum dfi_parse *ret)
{
        struct dfi_request *r = c->req;
        size_t used;
        uint64_t room = r->route->body_max - r->body.len;
        struct dfi_refusal bad;
        struct df_bytes body;

        *ret = dfi_chunks_feed(&c->chunks, c->in, &used, &body, &bad);
        if (*ret == DFI_BAD) {
                refuse_head(c, &bad);
                return false;
        }
        if (body.len > room || c->chunks.left > room - body.len) {
                dfi_conn_refuse(c, DFI_CAUSE_BODY_TOO_LARGE, "the body has more than %llu bytes",
                                (unsigned long long)r->route->body_max);
                return false;
        }
        if (!hold(c, r->body.len + body.len))
                return false;
        df_buf_append(&r->body, body.data, body.len);
        dfi_consume(c, used);
        return true;
}

bool dfi_request_chunks(struct dfi_conn *c)
{
        enum dfi_parse result = DFI_MORE;

        while (result == DFI_MORE && c->in.len > 0)
                if (!take_chunk(c, &result))
                        return true;
        if (result == DFI_DONE)
                return handle(c);
        if (c->eof)
                c->state = DFI_DEAD;
        return false;
}
