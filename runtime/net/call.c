/* call.c - any HTTP request, signed for S3 where that is asked for, on libcurl's easy interface. */
#include <stdlib.h>
#include <strings.h>

#include <curl/curl.h>

#include "curl_private.h"
#include "df/net.h"

struct df_http_caller {
        CURL *curl;
        char error[CURL_ERROR_SIZE];
};

struct answer {
        struct df_buf *body;
        size_t start; /* of this answer in body */
        const struct df_http_call *call;
        bool too_large;
        const char *too_long; /* name of a wanted header */
};

int df_http_caller_create(struct df_http_caller **ret, struct df_error *err)
{
        struct df_http_caller *h = calloc(1, sizeof(*h));

        dfi_curl_init();
        if (h)
                h->curl = curl_easy_init();
        if (!h || !h->curl) {
                df_http_caller_destroy(h);
                return df_fail(err, DF_ENOMEM, "an HTTP caller");
        }
        *ret = h;
        return 0;
}

void df_http_caller_destroy(struct df_http_caller *h)
{
        if (!h)
                return;
        if (h->curl)
                curl_easy_cleanup(h->curl);
        free(h);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
        struct answer *a = arg;
        size_t len = size * count;

        if (a->body->len - a->start + len > a->call->answer_max) {
                a->too_large = true;
                return 0;
        }
        df_buf_append(a->body, data, len);
        return a->body->failed ? 0 : len;
}

static bool blank(char c)
{
        return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* Called with each whole line, also of the head of an interim answer, whose values are replaced. */
static size_t on_header(char *data, size_t size, size_t count, void *arg)
{
        struct answer *a = arg;
        size_t len = size * count;

        for (size_t i = 0; i < a->call->wanted_count; i++) {
                struct df_http_wanted *w = &a->call->wanted[i];
                size_t from = strlen(w->name), to = len;

                if (len <= from || data[from] != ':' || strncasecmp(data, w->name, from) != 0)
                        continue;
                from++;
                while (from < to && blank(data[from]))
                        from++;
                while (to > from && blank(data[to - 1]))
                        to--;
                if (to - from > DF_HTTP_VALUE_MAX) {
                        a->too_long = w->name;
                        return 0;
                }
                memcpy(w->value, data + from, to - from);
                w->value[to - from] = '\0';
        }
        return len;
}

/* False without memory. "Expect:" is not taken out, as the other client does: libcurl 7.88 would
 * put it under the signature, and not send it. For a large body the round trip is worth it: a
 * condition that fails is told before the body is sent. */
static bool headers_of(const struct df_http_call *c, struct curl_slist **ret)
{
        for (size_t i = 0; i < c->header_count; i++) {
                struct curl_slist *longer = curl_slist_append(*ret, c->headers[i]);

                if (!longer)
                        return false;
                *ret = longer;
        }
        return true;
}

static bool sign(CURL *h, const struct df_http_sign *s)
{
        char *how = NULL;
        bool ok = asprintf(&how, "aws:amz:%s:%s", s->region, s->service) >= 0;

        if (!ok)
                return false;
        ok = curl_easy_setopt(h, CURLOPT_AWS_SIGV4, how) == CURLE_OK &&
             curl_easy_setopt(h, CURLOPT_USERNAME, s->access_key) == CURLE_OK &&
             curl_easy_setopt(h, CURLOPT_PASSWORD, s->secret_key) == CURLE_OK;
        free(how);
        return ok;
}

/* Everything anew for each call: nothing of an earlier one stays but its connection. */
static bool set_options(struct df_http_caller *h, const struct df_http_call *c,
                        struct curl_slist *headers, struct answer *a)
{
        CURL *u = h->curl;
        long stall_s = (long)((c->stall_ms + 999) / 1000);
        CURLcode rc = CURLE_OK;

        curl_easy_reset(u);
#define SET(option, value) rc = rc == CURLE_OK ? curl_easy_setopt(u, option, value) : rc
        SET(CURLOPT_NOSIGNAL, 1L);
        SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
        SET(CURLOPT_PROXY, ""); /* whatever the environment says */
        SET(CURLOPT_PROTOCOLS_STR, "http,https");
        SET(CURLOPT_USERAGENT, DFI_USER_AGENT);
        SET(CURLOPT_ERRORBUFFER, h->error);
        SET(CURLOPT_CONNECTTIMEOUT_MS, (long)c->connect_ms);
        SET(CURLOPT_TIMEOUT_MS, (long)c->total_ms);
        SET(CURLOPT_LOW_SPEED_LIMIT, 1L);
        SET(CURLOPT_LOW_SPEED_TIME, stall_s);
        SET(CURLOPT_TCP_NODELAY, 1L);
        SET(CURLOPT_PATH_AS_IS, 1L);
        SET(CURLOPT_FRESH_CONNECT, c->once ? 1L : 0L);
        SET(CURLOPT_URL, c->url);
        SET(CURLOPT_HTTPHEADER, headers);
        SET(CURLOPT_WRITEFUNCTION, on_body);
        SET(CURLOPT_WRITEDATA, a);
        SET(CURLOPT_HEADERFUNCTION, on_header);
        SET(CURLOPT_HEADERDATA, a);
        if (c->body.data) {
                SET(CURLOPT_POST, 1L);
                SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)c->body.len);
                SET(CURLOPT_POSTFIELDS, (const char *)c->body.data);
        }
        if (strcmp(c->method, "HEAD") == 0)
                SET(CURLOPT_NOBODY, 1L); /* else it waits for the body that is announced */
        else
                SET(CURLOPT_CUSTOMREQUEST, c->method);
#undef SET
        return rc == CURLE_OK && (!c->sign || sign(u, c->sign));
}

/* Was anything of the request on the wire? */
static bool was_sent(CURL *h, CURLcode rc)
{
        long bytes = 0;

        if (rc == CURLE_COULDNT_RESOLVE_HOST || rc == CURLE_COULDNT_CONNECT ||
            rc == CURLE_SSL_CONNECT_ERROR || rc == CURLE_PEER_FAILED_VERIFICATION ||
            rc == CURLE_SSL_CACERT_BADFILE)
                return false;
        return curl_easy_getinfo(h, CURLINFO_REQUEST_SIZE, &bytes) != CURLE_OK || bytes > 0;
}

static int judge(struct df_http_caller *h, struct df_http_call *c, const struct answer *a,
                 CURLcode rc, struct df_error *err)
{
        const char *why = h->error[0] ? h->error : curl_easy_strerror(rc);
        long status = 0;

        if (a->too_large)
                return df_fail(err, DF_ELIMIT, "%s %s: the answer has more than %llu bytes",
                               c->method, c->url, (unsigned long long)c->answer_max);
        if (a->too_long)
                return df_fail(err, DF_ELIMIT, "%s %s: the header %s has more than %d bytes",
                               c->method, c->url, a->too_long, DF_HTTP_VALUE_MAX);
        if (rc == CURLE_OUT_OF_MEMORY || a->body->failed)
                return df_fail(err, DF_ENOMEM, "%s %s: no memory", c->method, c->url);
        if (rc == CURLE_URL_MALFORMAT || rc == CURLE_UNSUPPORTED_PROTOCOL)
                return df_fail(err, DF_EINVAL, "%s: not an address: %s", c->url, why);
        if (rc != CURLE_OK && was_sent(h->curl, rc))
                return df_fail(err, DF_EDOUBT, "%s %s: sent, no answer: %s", c->method, c->url,
                               why);
        if (rc != CURLE_OK)
                return df_fail(err, DF_EAGAIN, "%s %s: not sent: %s", c->method, c->url, why);
        (void)curl_easy_getinfo(h->curl, CURLINFO_RESPONSE_CODE, &status);
        c->ret_status = (int)status;
        return 0;
}

int df_http_call(struct df_http_caller *h, struct df_http_call *c, struct df_buf *ret_body,
                 struct df_error *err)
{
        struct answer a = {.body = ret_body, .start = ret_body->len, .call = c};
        struct curl_slist *headers = NULL;
        CURLcode curl_rc;
        int rc;

        h->error[0] = '\0';
        c->ret_status = 0;
        for (size_t i = 0; i < c->wanted_count; i++)
                c->wanted[i].value[0] = '\0';
        if (!headers_of(c, &headers) || !set_options(h, c, headers, &a)) {
                curl_slist_free_all(headers);
                return df_fail(err, DF_ENOMEM, "%s %s: options", c->method, c->url);
        }
        curl_rc = curl_easy_perform(h->curl);
        rc = judge(h, c, &a, curl_rc, err);
        (void)curl_easy_setopt(h->curl, CURLOPT_HTTPHEADER, NULL); /* the list ends here */
        curl_slist_free_all(headers);
        if (rc != 0)
                ret_body->len = a.start;
        return rc;
}
