/* reply.c - answers as bytes. Called on any thread. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "net_private.h"

#define MESSAGE_MAX 1024
#define DATE_MAX 40
#define ALLOW_MAX 64
#define HEADERS_MAX 128

static const char *reason_of(int status)
{
        static const struct {
                int status;
                const char *reason;
        } known[] = {
                {200, "OK"},
                {201, "Created"},
                {202, "Accepted"},
                {204, "No Content"},
                {301, "Moved Permanently"},
                {302, "Found"},
                {303, "See Other"},
                {304, "Not Modified"},
                {307, "Temporary Redirect"},
                {308, "Permanent Redirect"},
                {400, "Bad Request"},
                {401, "Unauthorized"},
                {403, "Forbidden"},
                {404, "Not Found"},
                {405, "Method Not Allowed"},
                {406, "Not Acceptable"},
                {408, "Request Timeout"},
                {409, "Conflict"},
                {410, "Gone"},
                {411, "Length Required"},
                {413, "Content Too Large"},
                {415, "Unsupported Media Type"},
                {417, "Expectation Failed"},
                {422, "Unprocessable Content"},
                {429, "Too Many Requests"},
                {431, "Request Header Fields Too Large"},
                {500, "Internal Server Error"},
                {501, "Not Implemented"},
                {503, "Service Unavailable"},
                {507, "Insufficient Storage"},
        };

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
                if (known[i].status == status)
                        return known[i].reason;
        return "Status";
}

/* RFC 9110 dates are English whatever the locale; made once a second and thread. */
static struct df_bytes date_header(void)
{
        static const char days[] = "SunMonTueWedThuFriSat";
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        static _Thread_local char text[DATE_MAX];
        static _Thread_local time_t made;
        static _Thread_local int len;
        struct timespec now;
        struct tm tm;

        (void)clock_gettime(CLOCK_REALTIME_COARSE, &now);
        if (now.tv_sec != made || len == 0) {
                gmtime_r(&now.tv_sec, &tm);
                len = snprintf(text, sizeof(text),
                               "Date: %.3s, %02d %.3s %04d %02d:%02d:%02d GMT\r\n",
                               days + tm.tm_wday * 3, tm.tm_mday, months + tm.tm_mon * 3,
                               tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
                made = now.tv_sec;
        }
        return df_bytes(text, (size_t)len);
}

static void put_text(struct df_buf *b, const char *text)
{
        df_buf_append(b, text, strlen(text));
}

static void put_number(struct df_buf *b, uint64_t v)
{
        char digits[20];
        size_t at = sizeof(digits);

        do {
                digits[--at] = (char)('0' + v % 10);
                v /= 10;
        } while (v);
        df_buf_append(b, digits + at, sizeof(digits) - at);
}

/* A 204 has no length (RFC 9110 8.6); every other answer states it. */
static void format(struct df_buf *b, const struct df_http_reply *reply, bool head_only, bool close)
{
        struct df_bytes date = date_header();

        df_check(reply->status >= 200 && reply->status <= 599);
        df_check(reply->content_type || reply->body.len == 0);
        (void)df_buf_reserve(b, 256 + reply->body.len);
        put_text(b, "HTTP/1.1 ");
        put_number(b, (uint64_t)reply->status);
        put_text(b, " ");
        put_text(b, reason_of(reply->status));
        put_text(b, "\r\n");
        df_buf_append(b, date.data, date.len);
        if (reply->content_type) {
                put_text(b, "Content-Type: ");
                put_text(b, reply->content_type);
                put_text(b, "\r\n");
        }
        if (reply->headers)
                put_text(b, reply->headers);
        if (reply->status != 204) {
                put_text(b, "Content-Length: ");
                put_number(b, reply->body.len);
                put_text(b, "\r\n");
        }
        put_text(b, close ? "Connection: close\r\n\r\n" : "\r\n");
        if (!head_only && reply->status != 304)
                df_buf_append(b, reply->body.data, reply->body.len);
}

void df_http_reply(struct df_http_request *request, const struct df_http_reply *reply)
{
        struct dfi_request *r = (struct dfi_request *)request;
        struct dfi_loop *l = r->loop;
        bool head_only = request->method == DF_HTTP_HEAD;
        bool close = r->close || reply->close || atomic_load(&l->drain_until_ms) != 0;

        df_check(r->due);
        df_check(!r->replied);
        r->replied = true;
        if (dfi_loop_is_mine(l) && r->conn && l->running == r->conn) {
                format(&l->out, reply, head_only, close);
                dfi_request_finish(r, reply->status, close);
                return;
        }
        df_buf_clear(&r->out);
        format(&r->out, reply, head_only, close);
        r->out_status = reply->status;
        r->out_close = close;
        dfi_loop_answered(r);
}

/* ---- failures ---- */

/* Bytes of the valid UTF-8 sequence at p; 0: it is none (RFC 3629: no overlong, no surrogate). */
static size_t utf8_len(const uint8_t *p, const uint8_t *end)
{
        uint8_t c = *p, low = 0x80, high = 0xbf;
        size_t n = c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

        if (n == 0 || (size_t)(end - p) < n)
                return 0;
        if (c == 0xe0)
                low = 0xa0;
        else if (c == 0xed)
                high = 0x9f;
        else if (c == 0xf0)
                low = 0x90;
        else if (c == 0xf4)
                high = 0x8f;
        if (p[1] < low || p[1] > high)
                return 0;
        for (size_t i = 2; i < n; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        return n;
}

static void put_json(struct df_buf *b, const char *text)
{
        const uint8_t *p = (const uint8_t *)text, *end = p + strlen(text);

        put_text(b, "\"");
        while (p < end) {
                size_t n = *p < 0x80 ? 1 : utf8_len(p, end);

                if (n == 0) {
                        put_text(b, "\xef\xbf\xbd"); /* U+FFFD */
                        n = 1;
                } else if (*p == '"' || *p == '\\') {
                        df_put_u8(b, '\\');
                        df_put_u8(b, *p);
                } else if (*p < ' ' || *p == 0x7f) {
                        df_buf_printf(b, "\\u%04x", *p);
                } else {
                        df_buf_append(b, p, n);
                }
                p += n;
        }
        put_text(b, "\"");
}

static void put_failure(struct df_buf *b, const struct dfi_failure *f)
{
        put_text(b, "{\"error\":{\"code\":");
        put_json(b, f->code);
        put_text(b, ",\"message\":");
        put_json(b, f->message);
        put_text(b, ",\"field\":");
        if (f->field)
                put_json(b, f->field);
        else
                put_text(b, "null");
        put_text(b, f->retryable ? ",\"retryable\":true}}\n" : ",\"retryable\":false}}\n");
}

static void put_allow(char *to, size_t size, unsigned methods)
{
        (void)snprintf(to, size, "Allow: %s%s%s%s%s", methods & DF_HTTP_GET ? "GET, " : "",
                       methods & DF_HTTP_HEAD ? "HEAD, " : "",
                       methods & DF_HTTP_POST ? "POST, " : "",
                       methods & DF_HTTP_OPTIONS ? "OPTIONS, " : "",
                       methods & DF_HTTP_DELETE ? "DELETE, " : "");
        (void)snprintf(to + strlen(to) - 2, 3, "\r\n");
}

static struct df_http_reply failure_reply(const struct dfi_failure *f, unsigned allowed,
                                          char headers[HEADERS_MAX], struct df_buf *body)
{
        char allow[ALLOW_MAX] = "";
        char retry[ALLOW_MAX] = "";

        put_failure(body, f);
        if (allowed && f->status == 405)
                put_allow(allow, sizeof(allow), allowed);
        if (f->retry_after_s > 0)
                (void)snprintf(retry, sizeof(retry), "Retry-After: %d\r\n", f->retry_after_s);
        (void)snprintf(headers, HEADERS_MAX, "%s%s", allow, retry);
        return (struct df_http_reply){.status = f->status,
                                      .content_type = "application/json",
                                      .headers = headers,
                                      .body = df_buf_bytes(body)};
}

void dfi_reply_failure(struct df_http_request *request, const struct dfi_failure *f)
{
        const struct dfi_request *r = (const struct dfi_request *)request;
        char headers[HEADERS_MAX];
        struct df_buf body = {0};
        struct df_http_reply reply = failure_reply(f, r->allowed, headers, &body);

        df_http_reply(request, &reply);
        df_buf_release(&body);
}

void dfi_failure_format(struct df_buf *b, const struct dfi_failure *f)
{
        char headers[HEADERS_MAX];
        struct df_buf body = {0};
        struct df_http_reply reply = failure_reply(f, 0, headers, &body);

        format(b, &reply, false, true);
        df_buf_release(&body);
}

void df_http_fail(struct df_http_request *r, int status, const char *code, const char *field,
                  bool retryable, int retry_after_s, const char *fmt, ...)
{
        char message[MESSAGE_MAX];
        struct dfi_failure f = {.status = status,
                                .code = code,
                                .field = field,
                                .retryable = retryable,
                                .retry_after_s = retry_after_s,
                                .message = message};
        va_list ap;

        va_start(ap, fmt);
        (void)vsnprintf(message, sizeof(message), fmt, ap);
        va_end(ap);
        dfi_reply_failure(r, &f);
}

struct df_bytes df_http_header(const struct df_http_request *r, const char *name)
{
        struct df_bytes want = df_bytes_str(name);

        for (size_t i = 0; i < r->header_count; i++)
                if (df_bytes_eq(r->headers[i].name, want)) {
                        struct df_bytes value = r->headers[i].value;

                        return value;
                }
        return df_bytes(NULL, 0);
}
