/* request.c - one POST /events or /quarantine/release, on the event loop thread, and its answer, on
 * the committer's. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "df/hash.h"
#include "df/run.h"
#include "jobs/ingest/answer.h"
#include "jobs/ingest/serve_private.h"

#define ADMIT_BYTES (64u << 10) /* larger bodies are judged before they are read */
#define RETRY_FULL_S 10
#define MESSAGE_MAX 400
#define RELEASE_PATH "/quarantine/release"

struct request { /* waits for its append */
        struct df_http_request *http;
        struct df_bytes origin; /* borrowed from http */
        int status;
        struct df_buf body, headers; /* of the answer when it is stored */
};

/* ---- answers ---- */

/* Clients that were refused together do not come back together. */
static int retry_after(struct ad_serve *s, int least_s)
{
        unsigned n = atomic_fetch_add_explicit(&s->jitter, 1, memory_order_relaxed);
        unsigned spread = least_s < 5 ? 3 : (unsigned)least_s / 2;

        return least_s + (int)(df_hash64(df_bytes(&n, sizeof(n))) % (spread + 1));
}

static void reply(struct df_http_request *r, int status, const struct df_buf *body,
                  const struct df_buf *headers)
{
        static const char no_memory[] =
                "{\"error\":{\"code\":\"unavailable\",\"message\":\"out of "
                "memory. " AD_MAYBE_STORED "\",\"field\":null,\"retryable\":true}}";
        struct df_http_reply a = {.status = status, .content_type = "application/json"};
        bool lost = body->failed || headers->failed;

        if (!lost && headers->len)
                a.headers = (const char *)headers->data;
        a.body = lost ? df_bytes_str(no_memory) : df_buf_bytes(body);
        /* What was stored stays stored: only the list of rejections is lost. */
        if (lost && status != 202)
                a.status = 503;
        df_http_reply(r, &a);
}

/* Header lines as text, nearly always none; never fails but for memory. */
static void put_headers(struct df_buf *b, struct df_bytes origin, int retry_after_s)
{
        if (!origin.len && !retry_after_s && !b->len)
                return;
        ad_answer_headers(b, origin, retry_after_s);
        df_put_u8(b, 0);
        if (!b->failed)
                b->len--;
}

/* least_s: a client is told to wait at least so long; 0 = no Retry-After. */
static void refuse_later(struct ad_serve *s, struct df_http_request *r, struct df_bytes origin,
                         enum ad_reason reason, const char *message, int least_s)
{
        struct df_buf body = {0}, headers = {0};

        atomic_fetch_add_explicit(&s->refused_requests[reason], 1, memory_order_relaxed);
        ad_answer_error(&body, reason, NULL, message);
        put_headers(&headers, origin, least_s ? retry_after(s, least_s) : 0);
        reply(r, ad_reason_info(reason)->http_status, &body, &headers);
        df_buf_release(&body);
        df_buf_release(&headers);
}

static void refuse(struct ad_serve *s, struct df_http_request *r, struct df_bytes origin,
                   enum ad_reason reason, const char *message)
{
        refuse_later(s, r, origin, reason, message, 0);
}

/* rc: why the log took nothing, as far as is known. */
static void refuse_stored(struct ad_serve *s, struct df_http_request *r, struct df_bytes origin,
                          int rc)
{
        if (rc == DF_ENOSPC)
                refuse_later(s, r, origin, AD_DISK_FULL, "the log's disk is full. " AD_MAYBE_STORED,
                             RETRY_FULL_S);
        else if (rc == DF_EAGAIN)
                refuse_later(s, r, origin, AD_OVERLOADED,
                             "more events wait than the log takes. " AD_MAYBE_STORED, 1);
        else
                refuse_later(s, r, origin, AD_UNAVAILABLE,
                             "the events could not be stored. " AD_MAYBE_STORED, 1);
}

/* ---- what the head says ---- */

static bool is_type(struct df_bytes value, const char *type)
{
        size_t len = strlen(type);
        const char *text = (const char *)value.data;

        if (value.len < len || strncasecmp(text, type, len) != 0)
                return false;
        while (len < value.len && (text[len] == ' ' || text[len] == '\t'))
                len++;
        if (len == value.len)
                return true;
        if (text[len++] != ';')
                return false;
        while (len < value.len && (text[len] == ' ' || text[len] == '\t'))
                len++;
        /* The one parameter with a meaning here, in the one value that JSON allows. */
        return (value.len - len == 13 && strncasecmp(text + len, "charset=utf-8", 13) == 0) ||
               (value.len - len == 15 && strncasecmp(text + len, "charset=\"utf-8\"", 15) == 0);
}

static bool is_release(const struct df_http_request *r)
{
        return df_bytes_eq(r->path, df_bytes_str(RELEASE_PATH));
}

/* NULL: fine; else why it is 415. */
static const char *media(const struct df_http_request *r, enum ad_body_format *ret)
{
        struct df_bytes type = df_http_header(r, "content-type");
        struct df_bytes encoding = df_http_header(r, "content-encoding");

        if (encoding.len &&
            !(encoding.len == 8 && strncasecmp((const char *)encoding.data, "identity", 8) == 0))
                return "Content-Encoding (gzip, zstd, ...) is not supported: send the body as it "
                       "is";
        if (is_type(type, "application/json"))
                *ret = AD_BODY_JSON;
        else if (is_type(type, "application/x-ndjson"))
                *ret = AD_BODY_NDJSON;
        else if (is_type(type, "application/x-protobuf"))
                *ret = is_release(r) ? AD_BODY_RELEASE : AD_BODY_PROTOBUF;
        else
                return "Content-Type must be application/json, application/x-ndjson or "
                       "application/x-protobuf, in UTF-8";
        if (is_release(r) && *ret != AD_BODY_RELEASE)
                return "a release is an EventBatch: application/x-protobuf";
        return NULL;
}

/* Everything that can be said without the body. True: go on. False: replied. */
static bool judge_head(struct ad_serve *s, struct df_http_request *r, struct ad_identity *id,
                       enum ad_body_format *format, int64_t *ret_now_ms)
{
        struct ad_denial denial;
        const char *why;
        char message[MESSAGE_MAX];
        int64_t off_ms, wait_ms;

        if (!ad_access_check(s->o.access, r, is_release(r) ? AD_MAY_ADMIN : AD_MAY_INGEST, id,
                             &denial)) {
                enum ad_reason reason = denial.status == 401 ? AD_UNAUTHORIZED : AD_FORBIDDEN;

                atomic_fetch_add_explicit(&s->refused_requests[reason], 1, memory_order_relaxed);
                ad_access_deny(r, &denial);
                return false;
        }
        wait_ms = ad_access_charge(s->o.access, id, 0, df_monotonic_ms());
        if (wait_ms) {
                (void)snprintf(message, sizeof(message),
                               "key %s sends more than its rate; wait %" PRId64 " ms", id->key_id,
                               wait_ms);
                refuse_later(s, r, id->origin, AD_OVER_QUOTA, message, (int)(wait_ms / 1000) + 1);
                return false;
        }
        why = media(r, format);
        if (why) {
                refuse(s, r, id->origin, AD_UNSUPPORTED_MEDIA, why);
                return false;
        }
        if (dfi_look(s, ret_now_ms, &off_ms) != AD_GUARD_GOOD) {
                (void)snprintf(message, sizeof(message),
                               "the server's clock is off by %" PRId64
                               " ms; events are taken again "
                               "when it is right. " AD_MAYBE_STORED,
                               off_ms);
                refuse_later(s, r, id->origin, AD_CLOCK_JUMP, message, 1);
                return false;
        }
        if (!atomic_load_explicit(&s->introduced, memory_order_acquire)) {
                /* T4: no heartbeat of this start is durable yet; the log says why. */
                refuse_stored(s, r, id->origin, atomic_load(&s->append_failure));
                return false;
        }
        return true;
}

static int admit(void *arg, struct df_http_request *r)
{
        struct ad_identity id;
        enum ad_body_format format;
        int64_t now_ms;

        if (r->method != DF_HTTP_POST || r->body_length <= ADMIT_BYTES)
                return 0;
        return judge_head(arg, r, &id, &format, &now_ms) ? 0 : 1;
}

/* ---- the body ---- */

static void count_refused(struct ad_serve *s, const struct ad_parse_result *res)
{
        for (size_t i = 0; i < res->rejected_count; i++)
                atomic_fetch_add_explicit(&s->refused_events[res->rejected[i].reason], 1,
                                          memory_order_relaxed);
}

static void free_request(struct request *q)
{
        if (!q)
                return;
        df_buf_release(&q->body);
        df_buf_release(&q->headers);
        free(q);
}

static void store(struct ad_serve *s, struct df_http_request *r, const struct ad_identity *id,
                  const struct ad_parse_result *res)
{
        struct request *q = calloc(1, sizeof(*q));
        struct df_error err = {0};
        int rc = s->seals ? ad_subjects_seal(s->o.subjects, res->events, res->count, res->arena,
                                             &err)
                          : 0;

        if (rc < 0)
                dfi_append_failed(s, &err);
        else if (!q)
                rc = DF_ENOMEM;
        count_refused(s, res);
        (void)ad_access_charge(s->o.access, id, res->count + res->rejected_count,
                               df_monotonic_ms()); /* this request was let in already */
        if (rc < 0 || res->count == 0)
                ad_pack_rejected(s->pack, res->count + res->rejected_count);
        if (rc < 0) {
                free_request(q);
                refuse_stored(s, r, id->origin, rc);
                return;
        }
        q->http = r;
        q->origin = id->origin;
        q->status = ad_answer_status(res);
        ad_answer_result(&q->body, res);
        put_headers(&q->headers, id->origin, 0);
        if (res->count == 0) {
                reply(r, q->status, &q->body, &q->headers);
                free_request(q);
                return;
        }
        /* From here on q belongs to the committer, which may be faster than this thread. */
        atomic_fetch_add_explicit(&s->waiting, 1, memory_order_relaxed);
        rc = ad_pack_add(s->pack, res->events, res->count, res->rejected_count, q, NULL);
        if (rc < 0) {
                atomic_fetch_sub_explicit(&s->waiting, 1, memory_order_relaxed);
                free_request(q);
                refuse_stored(s, r, id->origin, rc);
        }
}

void dfi_request_done(void *arg, void *ticket, int rc)
{
        struct ad_serve *s = arg;
        struct request *q = ticket;

        if (rc == 0)
                reply(q->http, q->status, &q->body, &q->headers);
        else
                refuse_stored(s, q->http, q->origin, rc == DF_EAGAIN ? DF_ENOMEM : rc);
        free_request(q);
        atomic_fetch_sub_explicit(&s->waiting, 1, memory_order_release);
}

static struct ad_parser *take_parser(struct ad_serve *s)
{
        struct ad_parser *p;

        pthread_mutex_lock(&s->parsers_lock);
        df_check(s->parsers_free > 0);
        p = s->parsers[--s->parsers_free];
        pthread_mutex_unlock(&s->parsers_lock);
        return p;
}

static void give_parser(struct ad_serve *s, struct ad_parser *p)
{
        pthread_mutex_lock(&s->parsers_lock);
        s->parsers[s->parsers_free++] = p;
        pthread_mutex_unlock(&s->parsers_lock);
}

static void post(struct ad_serve *s, struct df_http_request *r)
{
        struct ad_identity id;
        enum ad_body_format format;
        struct ad_parse_rules rules = {
                .source = df_bytes_str("http"),
                .currency = s->currency,
                .accepted_age_ms = s->accepted_age_ms,
                .late_after_ms = s->late_after_ms,
        };
        struct ad_parse_result res;
        struct ad_parser *p;

        if (!judge_head(s, r, &id, &format, &rules.now_ms))
                return;
        rules.tenant_id = df_bytes_str(id.tenant);
        rules.money_allowed = id.money_allowed;
        p = take_parser(s);
        if (ad_parse_body(p, format, r->body, &rules, &res, NULL) < 0)
                refuse_stored(s, r, id.origin, DF_ENOMEM);
        else if (res.whole != AD_NONE)
                refuse(s, r, id.origin, res.whole, res.message);
        else
                store(s, r, &id, &res);
        give_parser(s, p);
}

/* CORS: a browser asks before a page of a public key's origin may post. It sends no key yet. */
static void preflight(struct ad_serve *s, struct df_http_request *r)
{
        struct df_bytes origin = df_http_header(r, "origin");
        struct df_buf headers = {0};
        struct df_http_reply a = {.status = 204};

        if (!origin.len || !ad_access_origin_listed(s->o.access, origin)) {
                refuse(s, r, (struct df_bytes){0}, AD_FORBIDDEN,
                       "no public key lists this origin; see origins= in the keys file");
                return;
        }
        df_buf_printf(&headers, "Access-Control-Allow-Methods: POST\r\n"
                                "Access-Control-Allow-Headers: authorization, content-type\r\n"
                                "Access-Control-Max-Age: 600\r\n");
        put_headers(&headers, origin, 0);
        a.headers = headers.failed ? NULL : (const char *)headers.data;
        df_http_reply(r, &a);
        df_buf_release(&headers);
}

static void handle(void *arg, struct df_http_request *r)
{
        if (r->method == DF_HTTP_OPTIONS)
                preflight(arg, r);
        else
                post(arg, r);
}

const struct df_http_route dfi_routes[DFI_ROUTES] = {
        {.path = "/events",
         .methods = DF_HTTP_POST | DF_HTTP_OPTIONS,
         .admit = admit,
         .handle = handle},
        {.path = RELEASE_PATH, .methods = DF_HTTP_POST, .admit = admit, .handle = handle},
        {.path = "/subjects/*",
         .methods = DF_HTTP_GET | DF_HTTP_DELETE,
         .handle = dfi_subject_handle},
};
