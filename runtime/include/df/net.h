/* net.h - HTTP/1.1 for every job: a small strict server on libevent, and a blocking client on
 * libcurl (runtime/net, the only user of either).
 *
 * What is accepted (anything else is 400 and the connection closes; RELIABILITY 5.1 to 5.3):
 *   request line  METHOD SP origin-form SP HTTP/1.1 (or HTTP/1.0: then the answer closes)
 *   line ends     CRLF only; no folded lines; no NUL or other control character but HTAB in a value
 *   header names  tokens, directly followed by ':'
 *   Host          exactly one, in HTTP/1.1 and 1.0 alike, "name", "name:port" or "[v6]:port"
 *   length        none, or one Content-Length of digits alone, or exactly "Transfer-Encoding:
 *                 chunked"; never both, never twice; chunk sizes are hex digits alone, trailers are
 *                 refused
 * Requests of a connection are answered one by one, in order (pipelining works); keep-alive.
 * Deadlines are for the whole request, not for each read, and a minimum rate holds for bodies.
 *
 * Several processes may share one listening socket. A request whose path this process has no route
 * for is handed, with its connection and the bytes read so far, to the peer process over peer_fd;
 * the peer answers it and keeps the connection. The pair of sockets is made by the parent
 * (df_http_pair), which keeps both ends open: connections on the way survive the restart of either
 * process. A connection that was handed over once for this request is not handed back: 404.
 *
 * Order of calls: df_http_server_start, requests come, df_http_server_stop.
 * Thread: handlers run on the event loop thread of their connection and must not block; replies may
 *         come from any thread, at any time.
 */
#ifndef DF_NET_H
#define DF_NET_H

#include "df/bytes.h"

#define DF_HTTP_HEAD_MAX 8192 /* bytes of request line and headers */
#define DF_HTTP_HEADERS_MAX 64
#define DF_HTTP_PARAMS_MAX 64

/* Bits, so that a route can take several. */
enum df_http_method {
        DF_HTTP_GET = 1,
        DF_HTTP_HEAD = 2,
        DF_HTTP_POST = 4,
        DF_HTTP_OPTIONS = 8,
        DF_HTTP_DELETE = 16,
};

struct df_http_field {         /* a header or a parameter */
        struct df_bytes name;  /* headers: lower case */
        struct df_bytes value; /* headers: trimmed; parameters: percent-decoded, '+' is a space */
};

/* One request. Borrowed: everything lives until the reply. */
struct df_http_request {
        enum df_http_method method;
        struct df_bytes path; /* as sent, without a leading "/v1"; never empty; not decoded */
        struct df_bytes tail; /* what "*" of the route matched, percent-decoded */
        const struct df_http_field *headers;
        size_t header_count;
        const struct df_http_field *params; /* of the query, in order */
        size_t param_count;
        struct df_bytes body; /* in admit: empty */
        uint64_t body_length; /* stated by Content-Length; UINT64_MAX = chunked */
        const char *peer;     /* address as text, without port */
        bool peer_loopback;
        int64_t received_ms; /* wall clock when the head was complete */
        void *user;          /* the handlers' own: admit may set it for handle */
};
/* The header's value, or data NULL. name in lower case. */
struct df_bytes df_http_header(const struct df_http_request *r, const char *name);

struct df_http_route {
        /* "/events", or with one "*" for a segment, in r->tail: "/events/" "*", "/a/" "*" "/b" */
        const char *path;
        unsigned methods; /* enum df_http_method; a known path with another method is 405 + Allow */
        uint64_t body_max; /* larger: 413, before it is read when its length is stated. 0: no body.
                            * A POST to a route with a body must state its length: else 411 */
        /* The head is there, the body is not: nonzero when it has replied (then a body is never
         * read and the connection closes). Optional. */
        int (*admit)(void *arg, struct df_http_request *r);
        /* Must lead to exactly one reply. */
        void (*handle)(void *arg, struct df_http_request *r);
};

struct df_http_reply {
        int status;
        const char *content_type; /* NULL: no body */
        const char *headers;      /* further complete lines "Name: value\r\n", or NULL */
        struct df_bytes body;     /* copied */
        bool close;               /* close the connection after it */
};
/* Exactly once a request; r is gone afterwards. Thread: any. A client that went away meanwhile is
 * no error. */
void df_http_reply(struct df_http_request *r, const struct df_http_reply *reply);
/* {"error":{"code","message","field","retryable"}}. field may be NULL; retry_after_s 0: none. */
void df_http_fail(struct df_http_request *r, int status, const char *code, const char *field,
                  bool retryable, int retry_after_s, const char *fmt, ...)
        __attribute__((format(printf, 7, 8)));

struct df_http_options {                    /* 0 = the default in brackets */
        const char *name;                   /* in metrics: name="..." */
        int listen_fd;                      /* listening, taken over; -1: listen at address */
        const char *address;                /* "HOST:PORT"; port 0 = any, see df_http_server_port */
        int peer_fd;                        /* one end of df_http_pair, or -1 */
        uint32_t threads;                   /* event loops [1] */
        const struct df_http_route *routes; /* borrowed, as is arg */
        size_t route_count;
        void *arg;                        /* of admit and handle */
        uint32_t connections_max;         /* [10,000] beyond: 503 and close */
        uint32_t connections_per_address; /* [no limit] likewise */
        uint64_t in_flight_max;           /* [256 MiB] bytes of bodies held: beyond, 503 */
        int64_t head_ms;                  /* [10,000] from the first byte of a head to its end */
        int64_t request_ms;    /* [30,000] from the first byte of a request to its last */
        int64_t idle_ms;       /* [60,000] between requests */
        int64_t write_ms;      /* [30,000] for a client to take an answer */
        uint64_t min_rate;     /* [1,024] body bytes a second, after 2 seconds */
        uint64_t requests_max; /* [100,000] of a connection, then it closes */
};

struct df_http_server;
/* DF_EEXIST: the address is in use (the text says so and what to do). Everything but peer_fd and
 * routes is copied or taken over. */
int df_http_server_start(const struct df_http_options *o, struct df_http_server **ret,
                         struct df_error *err);
uint16_t df_http_server_port(const struct df_http_server *s);
/* Prometheus lines: requests by status class, refusals by cause, connections, bytes in flight. */
void df_http_server_render(struct df_http_server *s, struct df_buf *b);
/* Stop taking connections, let requests in flight end for at most drain_ms, close, free. Afterwards
 * no handler runs and every client was answered or dropped. A request that was not replied to by
 * then still must be: that frees it. NULL-safe. */
void df_http_server_stop(struct df_http_server *s, int64_t drain_ms);

/* Listen at "HOST:PORT" ("[::1]:80" too): for a parent that hands the socket to its children. */
int df_http_listen(const char *address, int *ret_fd, uint16_t *ret_port, struct df_error *err);
/* The two ends over which processes hand connections to each other. Close-on-exec. */
int df_http_pair(int ret_fds[2], struct df_error *err);

/* Percent-decode into ret (appended). False: a bad escape. plus: '+' means a space. */
bool df_http_decode(struct df_bytes text, bool plus, struct df_buf *ret);

/* ---- client: for the command line and tests. Blocking; keep-alive; one thread a client. ---- */
#define DF_HTTP_FETCH_MAX (256u << 20) /* bytes of an answer; beyond: DF_ELIMIT */

struct df_http_client;
/* base: "http://127.0.0.1:8480"; key: API key sent as Bearer, or NULL. */
int df_http_client_create(const char *base, const char *key, int64_t timeout_ms,
                          struct df_http_client **ret, struct df_error *err);
/* path: with its leading '/'. body NULL data: none, then method is GET, else POST with
 * content_type. *ret_status is the answer's, whatever it is; DF_EAGAIN: no answer (refused, reset,
 * timed out): the text says which. */
int df_http_fetch(struct df_http_client *c, const char *path, const char *content_type,
                  struct df_bytes body, int *ret_status, struct df_buf *ret_body,
                  struct df_error *err);
/* Requests that went to a new connection in place of the one that was open: libcurl sends again by
 * itself when that one ends without an answer, so the server may have got them twice. */
uint64_t df_http_client_repeats(const struct df_http_client *c);
void df_http_client_destroy(struct df_http_client *c);

/* ---- calls: any request to any server, for object stores. Blocking; keep-alive; TLS by the
 * system's authorities; redirects are answers; one thread a caller. ---- */
#define DF_HTTP_VALUE_MAX 255 /* bytes of a header that is asked for; a longer one: DF_ELIMIT */

struct df_http_sign { /* AWS Signature Version 4, over all headers given and the body's hash */
        const char *access_key, *secret_key, *region, *service;
};
struct df_http_wanted { /* a header of the answer */
        const char *name;
        char value[DF_HTTP_VALUE_MAX + 1]; /* out: trimmed; "" when there is none */
};
struct df_http_call {
        const char *method; /* "GET", "HEAD", "PUT", "POST", "DELETE" */
        const char *url;    /* complete; encoded, and its query in order when it is signed */
        const char *const *headers; /* "name: value" */
        size_t header_count;
        struct df_bytes body;                   /* borrowed; data NULL: none */
        const struct df_http_sign *sign;        /* NULL: not signed */
        int64_t connect_ms, stall_ms, total_ms; /* to a connection; without a byte; all of it */
        uint64_t answer_max;                    /* bytes of a body; beyond: DF_ELIMIT */
        /* Must not be sent twice: goes over a new connection. Over one that was open libcurl sends
         * again by itself when it ends without an answer. */
        bool once;
        struct df_http_wanted *wanted;
        size_t wanted_count;
        int ret_status;
};

struct df_http_caller;
int df_http_caller_create(struct df_http_caller **ret, struct df_error *err);
/* Appends the answer's body. 0: there is an answer, whatever its status. DF_EAGAIN: the request was
 * not sent (no address, refused, TLS); DF_EDOUBT: it was or may have been, and the answer did not
 * come whole; texts say which, and never a key. */
int df_http_call(struct df_http_caller *h, struct df_http_call *c, struct df_buf *ret_body,
                 struct df_error *err);
void df_http_caller_destroy(struct df_http_caller *h);

/* ---- load: requests from one thread, at full speed or at a rate, for benchmarks ---- */
struct df_http_load {
        const char *address;             /* "HOST:PORT" */
        const struct df_bytes *requests; /* complete, head and body; sent in turn; borrowed */
        size_t request_count;
        uint32_t connections;
        uint32_t depth;     /* requests under way on each (pipelining); 1 = wait for the answer */
        uint64_t count;     /* stop after so many requests were answered or lost */
        int64_t timeout_ms; /* no answer at all for so long: DF_EAGAIN */
        /* Requests a second, whatever the server does: latency counts from when one was due.
         * 0 = as fast as answers come. */
        uint64_t rate;
        bool (*stop)(void); /* asked between answers; NULL = never. Then DF_EAGAIN */
};

struct df_http_load_result {
        uint64_t by_class[6]; /* answers by the first digit of their status; [0]: odd ones */
        uint64_t lost;        /* requests on connections that closed before the answer */
        uint64_t bytes_sent;
        uint64_t elapsed_ns;
        uint64_t p50_ns, p90_ns, p95_ns, p99_ns,
                p999_ns; /* from start to answer; at most 3 % too high */
        uint64_t max_ns;
};
/* A closed connection is opened again. Not for HEAD requests: it takes Content-Length at its word.
 * Thread: any; blocks. */
int df_http_load(const struct df_http_load *o, struct df_http_load_result *ret,
                 struct df_error *err);

#endif
