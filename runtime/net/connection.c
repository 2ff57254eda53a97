/* connection.c - one socket: its states, what it sends, how it ends. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "net_private.h"

#define FLUSH_BYTES 65536      /* answers of pipelined requests are gathered up to this */
#define OUT_KEEP_BYTES 1048576 /* a larger buffer is given back */
#define LINGER_MS 2000
#define RATE_GRACE_MS 2000 /* the minimum rate counts after it */
#define MESSAGE_MAX 512

bool dfi_conn_backlog(const struct dfi_conn *c)
{
        return c->rest.len > 0;
}

bool dfi_conn_idle(const struct dfi_conn *c)
{
        return c->state == DFI_HEAD && c->in.len == 0 && !dfi_conn_backlog(c);
}

/* ---- receiving ---- */

bool dfi_conn_watch(struct dfi_conn *c, bool reads)
{
        if (reads == c->reads)
                return true;
        c->reads = reads;
        return (reads ? event_add(&c->readable, NULL) : event_del(&c->readable)) == 0;
}

bool dfi_conn_keep(struct dfi_conn *c, struct df_bytes input)
{
        df_buf_append(&c->kept, input.data, input.len);
        c->in = df_buf_bytes(&c->kept);
        return !c->kept.failed;
}

/* One look at the socket. Behind what is kept, or into the loop's buffer. */
static void receive(struct dfi_conn *c)
{
        size_t room = DFI_INPUT_MAX - c->in.len;
        uint8_t *to = c->loop->input;
        ssize_t n;

        if (c->in.len > 0) {
                if (!df_buf_reserve(&c->kept, room)) {
                        c->state = DFI_DEAD;
                        return;
                }
                c->in = df_buf_bytes(&c->kept); /* it may have moved */
                to = c->kept.data + c->kept.len;
        }
        n = recv(c->fd, to, room, MSG_DONTWAIT);
        c->dry = n < (ssize_t)room;
        if (n < 0 && errno != EAGAIN && errno != EINTR)
                c->state = DFI_DEAD;
        c->eof |= n == 0;
        if (n <= 0)
                return;
        if (c->in.len > 0)
                c->kept.len += (size_t)n;
        c->in = c->in.len > 0 ? df_buf_bytes(&c->kept) : df_bytes(to, (size_t)n);
}

/* The end of a run: the loop's buffer is needed for the next one. */
static void keep_input(struct dfi_conn *c)
{
        struct df_bytes in = c->in;

        if (in.len == 0) {
                df_buf_release(&c->kept);
        } else if (c->kept.len == 0) { /* it is in the loop's buffer */
                if (!dfi_conn_keep(c, in))
                        c->state = DFI_DEAD;
        } else {
                memmove(c->kept.data, in.data, in.len);
                c->kept.len = in.len;
                c->in = df_buf_bytes(&c->kept);
        }
        if (!dfi_conn_watch(c, !c->eof && c->in.len < DFI_INPUT_MAX))
                c->state = DFI_DEAD;
}

/* ---- sending ---- */

static bool queue_rest(struct dfi_conn *c, const uint8_t *data, size_t len)
{
        if (len == 0)
                return true;
        if (!dfi_conn_backlog(c)) {
                c->write_ms = c->loop->now_ms;
                if (event_add(&c->writable, NULL) < 0)
                        return false;
        }
        df_buf_append(&c->rest, data, len);
        return !c->rest.failed;
}

bool dfi_conn_flush(struct dfi_conn *c)
{
        struct df_buf *o = &c->loop->out;
        bool ok = !o->failed;
        ssize_t n = 0;

        if (ok && o->len > 0 && !dfi_conn_backlog(c)) {
                n = send(c->fd, o->data, o->len, MSG_NOSIGNAL | MSG_DONTWAIT);
                ok = n >= 0 || errno == EAGAIN || errno == EINTR;
                n = n < 0 ? 0 : n;
        }
        if (ok)
                ok = queue_rest(c, o->data + n, o->len - (size_t)n);
        df_buf_clear(o);
        if (o->cap > OUT_KEEP_BYTES)
                df_buf_release(o);
        if (!ok)
                c->state = DFI_DEAD;
        return ok && !dfi_conn_backlog(c);
}

/* ---- states ---- */

/* Closing with bytes unread would send a reset, which may overtake the answer. */
static bool close_up(struct dfi_conn *c)
{
        int unread = 0;

        if (!dfi_conn_flush(c))
                return false;
        (void)ioctl(c->fd, FIONREAD, &unread);
        if (c->eof || (!c->cut && unread == 0 && c->in.len == 0)) {
                c->state = DFI_DEAD;
                return false;
        }
        (void)shutdown(c->fd, SHUT_WR);
        c->state = DFI_LINGER;
        c->since_ms = c->loop->now_ms;
        return true;
}

static bool linger(struct dfi_conn *c)
{
        dfi_consume(c, c->in.len);
        if (c->eof)
                c->state = DFI_DEAD;
        return false;
}

static bool step(struct dfi_conn *c)
{
        switch (c->state) {
        case DFI_HEAD:
                if (c->loop->out.len > FLUSH_BYTES)
                        (void)dfi_conn_flush(c); /* what is left is a backlog */
                return c->state == DFI_HEAD && !dfi_conn_backlog(c) && dfi_request_head(c);
        case DFI_BODY:
                return dfi_request_body(c);
        case DFI_CHUNKED:
                return dfi_request_chunks(c);
        case DFI_CLOSING:
                return close_up(c);
        case DFI_LINGER:
                return linger(c);
        case DFI_HANDLING:
        case DFI_DEAD:
                break;
        }
        return false;
}

static int64_t body_deadline(const struct dfi_conn *c)
{
        const struct df_http_options *o = &c->loop->server->o;
        uint64_t rate_ms = c->req->body.len * 1000 / o->min_rate;
        int64_t rate_deadline = c->since_ms + 1 + (int64_t)rate_ms;
        int64_t deadline = c->started_ms + o->request_ms;

        if (rate_deadline < c->since_ms + RATE_GRACE_MS)
                rate_deadline = c->since_ms + RATE_GRACE_MS;
        return rate_deadline < deadline ? rate_deadline : deadline;
}

static int64_t deadline_of(const struct dfi_conn *c)
{
        const struct df_http_options *o = &c->loop->server->o;

        if (dfi_conn_backlog(c))
                return c->write_ms + o->write_ms;
        switch (c->state) {
        case DFI_HEAD:
                return c->started_ms ? c->started_ms + o->head_ms : c->since_ms + o->idle_ms;
        case DFI_BODY:
        case DFI_CHUNKED:
                return body_deadline(c);
        case DFI_LINGER:
                return c->since_ms + LINGER_MS;
        case DFI_HANDLING:
        case DFI_CLOSING:
        case DFI_DEAD:
                break;
        }
        return INT64_MAX;
}

/* Answers of one run gather in loop->out and leave together at its end. */
static void enter(struct dfi_conn *c)
{
        struct dfi_loop *l = c->loop;

        df_check(!l->running);
        df_check(l->out.len == 0);
        dfi_loop_time(l);
        l->running = c;
}

static void leave(struct dfi_conn *c)
{
        struct dfi_loop *l = c->loop;

        while (step(c))
                ;
        if (c->state != DFI_DEAD)
                (void)dfi_conn_flush(c);
        if (c->state != DFI_DEAD)
                keep_input(c);
        df_buf_clear(&l->out);
        l->running = NULL;
        if (c->state == DFI_DEAD) {
                dfi_conn_destroy(c);
                return;
        }
        c->deadline_ms = deadline_of(c);
        dfi_wheel_place(c);
}

void dfi_conn_run(struct dfi_conn *c)
{
        enter(c);
        leave(c);
}

void dfi_conn_answer(struct dfi_conn *c, struct dfi_request *r)
{
        struct df_buf answer = r->out;

        enter(c);
        r->out = c->loop->out; /* it is empty; its memory changes hands */
        c->loop->out = answer;
        dfi_request_finish(r, r->out_status, r->out_close);
        leave(c);
}

void dfi_conn_expired(struct dfi_conn *c)
{
        const struct df_http_options *o = &c->loop->server->o;

        enter(c);
        if (dfi_conn_backlog(c)) {
                dfi_count(&c->loop->stats.refused[DFI_CAUSE_WRITE_TIMEOUT]);
                c->state = DFI_DEAD;
        } else if (c->state == DFI_HEAD && c->started_ms) {
                dfi_conn_refuse(c, DFI_CAUSE_HEAD_TIMEOUT, "the head did not arrive within %lld ms",
                                (long long)o->head_ms);
        } else if (c->state == DFI_BODY || c->state == DFI_CHUNKED) {
                dfi_conn_refuse(c, DFI_CAUSE_BODY_TIMEOUT,
                                "the body came slower than %llu bytes a second, or the request did "
                                "not arrive within %lld ms",
                                (unsigned long long)o->min_rate, (long long)o->request_ms);
        } else {
                c->state = DFI_DEAD;
        }
        leave(c);
}

/* ---- refusals ---- */

static const struct dfi_failure failures[DFI_CAUSES] = {
#define X(name, cause, status, code, retryable)                                                    \
        [DFI_CAUSE_##name] = {status, code, NULL, retryable, (status) == 503, NULL},
        DFI_CAUSE_MAP(X)
#undef X
};

void dfi_conn_refuse(struct dfi_conn *c, enum dfi_cause cause, const char *fmt, ...)
{
        struct dfi_failure f = failures[cause];
        struct dfi_request *r = c->req;
        char message[MESSAGE_MAX];
        va_list ap;

        va_start(ap, fmt);
        (void)vsnprintf(message, sizeof(message), fmt, ap);
        va_end(ap);
        f.message = message;
        dfi_count(&c->loop->stats.refused[cause]);
        if (!r) {
                dfi_count(&c->loop->stats.by_class[f.status / 100]);
                dfi_failure_format(&c->loop->out, &f);
                c->cut = true;
                c->state = DFI_CLOSING;
                return;
        }
        c->cut = r->head.length != 0 || (cause != DFI_CAUSE_NOT_FOUND && cause != DFI_CAUSE_METHOD);
        r->close |= c->cut;
        dfi_request_pend(c);
        dfi_reply_failure(&r->pub, &f);
}

void dfi_conn_turn_away(struct dfi_conn *c, enum dfi_cause cause)
{
        enter(c);
        dfi_conn_refuse(c, cause, "the server has all the connections it takes%s; try again later",
                        cause == DFI_CAUSE_ADDRESS ? " from one address" : "");
        leave(c);
}

/* ---- life ---- */

static void on_readable(evutil_socket_t fd, short what, void *arg)
{
        struct dfi_conn *c = arg;

        enter(c);
        c->dry = false;
        if (c->state != DFI_BODY) /* it goes straight to the body */
                receive(c);
        leave(c);
}

static void on_writable(evutil_socket_t fd, short what, void *arg)
{
        struct dfi_conn *c = arg;
        ssize_t n = send(c->fd, c->rest.data + c->rest_at, c->rest.len - c->rest_at,
                         MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return;
        if (n < 0) {
                dfi_conn_destroy(c);
                return;
        }
        c->rest_at += (size_t)n;
        if (c->rest_at < c->rest.len)
                return;
        df_buf_release(&c->rest);
        c->rest_at = 0;
        (void)event_del(&c->writable);
        dfi_conn_run(c);
}

struct dfi_conn *dfi_conn_create(struct dfi_loop *l, int fd)
{
        struct dfi_conn *c = calloc(1, sizeof(*c));

        if (!c) {
                close(fd);
                return NULL;
        }
        c->loop = l;
        c->fd = fd;
        c->since_ms = dfi_now_ms();
        (void)event_assign(&c->readable, l->base, fd, EV_READ | EV_PERSIST, on_readable, c);
        (void)event_assign(&c->writable, l->base, fd, EV_WRITE | EV_PERSIST, on_writable, c);
        if (!dfi_conn_watch(c, true)) {
                close(fd);
                free(c);
                return NULL;
        }
        LIST_INSERT_HEAD(&l->conns, c, all);
        return c;
}

void dfi_conn_destroy(struct dfi_conn *c)
{
        df_check(c->loop->running != c);
        dfi_wheel_unplace(c);
        LIST_REMOVE(c, all);
        dfi_farewell(c);
        if (c->req && c->req->due)
                c->req->conn = NULL; /* recycled when its reply comes */
        else if (c->req)
                dfi_request_recycle(c->req);
        (void)event_del(&c->readable);
        (void)event_del(&c->writable);
        close(c->fd);
        df_buf_release(&c->kept);
        df_buf_release(&c->rest);
        free(c);
}
