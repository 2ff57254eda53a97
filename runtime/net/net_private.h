/* net_private.h - what the files of this folder share.
 *
 * server     the options, the shared sockets and counters, one dfi_loop a thread
 * loop       an event base, its connections, their deadlines, the answers other threads queue
 * connection one socket: states, reading, writing, closing
 * request    what a handler sees; lives until the reply, whether the connection does or not
 *
 * Thread: everything belongs to the thread of its loop, but for what is said to be atomic or under
 *         a lock, and a request between handle and reply.
 * What arrives is received into the loop's buffer and parsed there; only what is left of it is kept
 * with the connection, at most DFI_INPUT_MAX. The rest of a body with a stated length is received
 * straight into its buffer. An answer is sent at once; what the socket does not take waits.
 */
#ifndef DFI_NET_PRIVATE_H
#define DFI_NET_PRIVATE_H

#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "parse.h"

#define DFI_INPUT_MAX (2 * DF_HTTP_HEAD_MAX) /* bytes read ahead of the parser, a connection */
#define DFI_TICK_MS 20
#define DFI_WHEEL_SLOTS 256    /* later deadlines are looked at more than once */
#define DFI_ADDRESS_SLOTS 1024 /* hash chains of the per-address counts */
#define DFI_ADDRESS_TEXT_MAX INET6_ADDRSTRLEN

/* X(NAME, "cause", status, "code", retryable): why a request or connection was not served. The
 * cause is a label in metrics, the code is in the answer. */
#define DFI_CAUSE_MAP(X)                                                                           \
        X(BAD_REQUEST, "bad_request", 400, "bad_request", false)                                   \
        X(HEAD_TOO_LARGE, "head_too_large", 431, "head_too_large", false)                          \
        X(EXPECTATION, "expectation", 417, "expectation_failed", false)                            \
        X(NOT_FOUND, "not_found", 404, "not_found", false)                                         \
        X(METHOD, "method", 405, "method_not_allowed", false)                                      \
        X(LENGTH_REQUIRED, "length_required", 411, "length_required", false)                       \
        X(BODY_TOO_LARGE, "body_too_large", 413, "body_too_large", false)                          \
        X(HEAD_TIMEOUT, "head_timeout", 408, "timeout", true)                                      \
        X(BODY_TIMEOUT, "body_timeout", 408, "timeout", true)                                      \
        X(WRITE_TIMEOUT, "write_timeout", 408, "timeout", true)                                    \
        X(CONNECTIONS, "connections", 503, "overloaded", true)                                     \
        X(ADDRESS, "address_connections", 503, "overloaded", true)                                 \
        X(IN_FLIGHT, "in_flight", 503, "overloaded", true)                                         \
        X(HANDOFF, "handoff", 503, "unavailable", true)                                            \
        X(NO_MEMORY, "no_memory", 503, "overloaded", true)

enum dfi_cause {
#define X(name, cause, status, code, retryable) DFI_CAUSE_##name,
        DFI_CAUSE_MAP(X)
#undef X
                DFI_CAUSES
};

struct dfi_conn;
struct dfi_loop;

struct dfi_request {
        struct df_http_request pub; /* first: handlers hold a pointer to it */
        struct dfi_loop *loop;
        struct dfi_conn *conn; /* loop thread only; NULL: the client has gone */
        const struct df_http_route *route;
        STAILQ_ENTRY(dfi_request) link; /* of the free or the answered requests */
        struct df_buf body;
        uint64_t held;     /* counted in the server's in-flight bytes */
        bool due;          /* a reply is due: not to be recycled before it */
        bool close;        /* the answer closes the connection */
        bool replied;      /* for the check that it happens once */
        unsigned allowed;  /* methods of the path, for the Allow header of a 405 */
        struct df_buf out; /* an answer made by another thread */
        int out_status;
        bool out_close;
        char peer[DFI_ADDRESS_TEXT_MAX];
        struct df_http_field params[DF_HTTP_PARAMS_MAX];
        uint8_t decoded[DF_HTTP_HEAD_MAX]; /* parameters and tail */
        struct dfi_head head;
};
STAILQ_HEAD(dfi_requests, dfi_request);

enum dfi_state {
        DFI_HEAD, /* waiting for a head, or for the rest of it */
        DFI_BODY, /* its length is stated */
        DFI_CHUNKED,
        DFI_HANDLING, /* admit or handle has it */
        DFI_CLOSING,  /* the last answer is on its way */
        DFI_LINGER,   /* it is out; unread bytes are thrown away, or a reset could overtake it */
        DFI_DEAD,     /* to be destroyed when the call stack allows it */
};

struct dfi_conn {
        struct dfi_loop *loop;
        struct event readable, writable; /* the latter is watched only with a backlog */
        int fd;
        bool reads;         /* readable is watched */
        bool dry;           /* the last look at the socket took all there was */
        struct df_bytes in; /* unread input: in the loop's buffer while this runs, else in kept */
        struct df_buf kept;
        struct df_buf rest; /* what the socket has not taken yet, from rest_at on */
        size_t rest_at;
        enum dfi_state state;
        struct dfi_request *req;
        bool eof;     /* the client sends no more */
        bool handed;  /* this request came from the peer process: not to be handed back */
        bool counted; /* in the server's connections */
        bool cut;     /* answered before all of the request was read */
        size_t scanned;
        struct dfi_chunks chunks;
        uint64_t requests;
        int64_t started_ms; /* first byte of the request */
        int64_t since_ms;   /* the state began */
        int64_t write_ms;   /* the socket began to refuse bytes */
        int64_t deadline_ms;
        int64_t placed_tick; /* where the wheel has it; 0: it has not */
        LIST_ENTRY(dfi_conn) wheel;
        LIST_ENTRY(dfi_conn) all;
        struct in6_addr address; /* IPv4 mapped */
        char peer[DFI_ADDRESS_TEXT_MAX];
        bool loopback;
};
LIST_HEAD(dfi_conns, dfi_conn);

struct dfi_stats { /* written by the loop thread, read by any */
        atomic_uint_fast64_t by_class[6];
        atomic_uint_fast64_t refused[DFI_CAUSES];
        atomic_uint_fast64_t accepted, handed_out, handed_in;
};

struct dfi_loop {
        struct df_http_server *server;
        struct event_base *base;
        struct event *listen_event, *wake_event, *peer_event, *tick_event;
        pthread_t thread;
        bool started;
        int wake_fd;
        /* replies from other threads, and the end of the loop */
        pthread_mutex_t lock;
        struct dfi_requests answered;
        bool closed;      /* the loop is over: a late reply only frees its request */
        uint64_t orphans; /* requests still to be replied to after it */
        /* loop thread */
        atomic_int_fast64_t drain_until_ms; /* 0: not stopping */
        bool draining;
        int64_t now_ms; /* monotonic, when running began */
        int64_t wall_ms;
        bool accept_paused; /* out of descriptors: tried again at the next tick */
        struct dfi_conn *running;
        uint8_t input[DFI_INPUT_MAX]; /* of running: what has just arrived */
        struct df_buf out;            /* answers of running that were not sent yet */
        struct dfi_requests spare;
        uint32_t spare_count;
        uint64_t pending; /* requests handlers have */
        struct dfi_conns conns;
        uint64_t turned_away; /* connections over the limit, only being told so */
        struct dfi_conns wheel[DFI_WHEEL_SLOTS];
        int64_t wheel_tick; /* slots before this one were looked at */
        uint64_t wheel_count;
        struct dfi_stats stats;
};

struct dfi_route {
        const struct df_http_route *route;
        size_t len;   /* of the path, up to "*" */
        size_t after; /* behind it */
        bool wild;
};

struct dfi_address; /* a per-address count */

struct df_http_server {
        struct df_http_options o;
        char name[64];
        struct dfi_route *routes;
        uint16_t port;
        struct dfi_loop **loops;
        uint32_t loop_count;
        atomic_uint_fast64_t connections;
        atomic_uint_fast64_t in_flight;
        pthread_mutex_t address_lock;
        struct dfi_address *addresses[DFI_ADDRESS_SLOTS];
};

static inline void dfi_count(atomic_uint_fast64_t *c)
{
        atomic_store_explicit(c, atomic_load_explicit(c, memory_order_relaxed) + 1,
                              memory_order_relaxed);
}

static inline void dfi_consume(struct dfi_conn *c, size_t n)
{
        c->in.data += n;
        c->in.len -= n;
}

/* ---- loop.c ---- */
int64_t dfi_now_ms(void); /* monotonic */
int dfi_loop_create(struct df_http_server *s, struct dfi_loop **ret, struct df_error *err);
int dfi_loop_start(struct dfi_loop *l, uint32_t index, struct df_error *err);
void dfi_loop_stop(struct dfi_loop *l, int64_t until_ms); /* Thread: any. Returns at once */
void dfi_loop_destroy(struct dfi_loop *l);                /* joins the thread. NULL-safe */
bool dfi_loop_is_mine(const struct dfi_loop *l);          /* is this its thread? */
void dfi_loop_answered(struct dfi_request *r);            /* Thread: any. Takes r. */
void dfi_loop_pause_accept(struct dfi_loop *l);
void dfi_loop_time(struct dfi_loop *l); /* read the clocks */

/* ---- wheel.c ---- */
void dfi_wheel_place(struct dfi_conn *c); /* c->deadline_ms changed */
void dfi_wheel_unplace(struct dfi_conn *c);
void dfi_wheel_turn(struct dfi_loop *l); /* until l->now_ms */

/* ---- listen.c ---- */
int dfi_port_of(int fd, uint16_t *ret, struct df_error *err);
void dfi_accept(struct dfi_loop *l);
/* Count and wrap a new connection; NULL: it was refused, or it is gone. Takes fd. */
struct dfi_conn *dfi_welcome(struct dfi_loop *l, int fd);
void dfi_farewell(struct dfi_conn *c); /* undo the counts */

/* ---- connection.c ---- */
struct dfi_conn *dfi_conn_create(struct dfi_loop *l, int fd);
void dfi_conn_destroy(struct dfi_conn *c);
void dfi_conn_run(struct dfi_conn *c);                           /* go on with what has arrived */
void dfi_conn_answer(struct dfi_conn *c, struct dfi_request *r); /* another thread replied */
void dfi_conn_expired(struct dfi_conn *c);                       /* the deadline has passed */
bool dfi_conn_idle(const struct dfi_conn *c);                    /* between requests */
bool dfi_conn_flush(struct dfi_conn *c);                         /* true: everything is out */
bool dfi_conn_backlog(const struct dfi_conn *c);                 /* the socket takes no more now */
bool dfi_conn_watch(struct dfi_conn *c, bool reads);             /* false: it cannot */
bool dfi_conn_keep(struct dfi_conn *c, struct df_bytes input);   /* more input; false: no memory */
/* Answer instead of a handler. The connection closes, but after a 404 or 405 of a request without a
 * body. Within run. */
void dfi_conn_refuse(struct dfi_conn *c, enum dfi_cause cause, const char *fmt, ...)
        __attribute__((format(printf, 3, 4)));
void dfi_conn_turn_away(struct dfi_conn *c, enum dfi_cause cause); /* a new one; outside of run */

/* ---- request.c: steps of run; true: the state changed, go on ---- */
bool dfi_request_head(struct dfi_conn *c);
bool dfi_request_body(struct dfi_conn *c);
bool dfi_request_chunks(struct dfi_conn *c);
/* From here on a reply is due, to the handler's request or to one that is refused. */
void dfi_request_pend(struct dfi_conn *c);
/* The answer is in loop->out. r is gone. */
void dfi_request_finish(struct dfi_request *r, int status, bool close);
void dfi_request_recycle(struct dfi_request *r);
void dfi_request_free(struct dfi_request *r);

/* ---- reply.c ---- */
struct dfi_failure {
        int status;
        const char *code;
        const char *field;
        bool retryable;
        int retry_after_s;
        const char *message;
};
void dfi_reply_failure(struct df_http_request *r, const struct dfi_failure *f);
/* The whole answer, for a request that could not be read: it closes. */
void dfi_failure_format(struct df_buf *b, const struct dfi_failure *f);

/* ---- handoff.c ---- */
bool dfi_handoff_send(struct dfi_conn *c);
void dfi_handoff_receive(struct dfi_loop *l);

#endif
