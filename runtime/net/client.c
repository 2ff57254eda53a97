/* client.c - the blocking client, on libcurl's easy interface. */
#include <pthread.h>
#include <stdlib.h>

#include <curl/curl.h>

#include "curl_private.h"
#include "df/net.h"

struct df_http_client {
        CURL *curl;
        char *base;
        struct curl_slist *get_headers;
        char *authorization; /* a header line, or NULL */
        bool connected;      /* the last request was answered */
        uint64_t repeats;
        char error[CURL_ERROR_SIZE];
};

struct sink {
        struct df_buf *to;
        bool too_large;
};

static void init_curl(void)
{
        (void)curl_global_init(CURL_GLOBAL_DEFAULT); /* a failure shows in curl_easy_init */
}

void dfi_curl_init(void)
{
        static pthread_once_t once = PTHREAD_ONCE_INIT;

        (void)pthread_once(&once, init_curl);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
        struct sink *s = arg;

        if (s->to->len + size * count > DF_HTTP_FETCH_MAX) {
                s->too_large = true;
                return 0;
        }
        df_buf_append(s->to, data, size * count);
        return s->to->failed ? 0 : size * count;
}

static bool add_header(struct curl_slist **list, const char *line)
{
        struct curl_slist *longer = curl_slist_append(*list, line);

        if (longer)
                *list = longer;
        return longer != NULL;
}

static void set_options(struct df_http_client *c, int64_t timeout_ms)
{
        CURL *h = c->curl;

        (void)curl_easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
        (void)curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
        (void)curl_easy_setopt(h, CURLOPT_PROXY, ""); /* whatever the environment says */
        (void)curl_easy_setopt(h, CURLOPT_USERAGENT, DFI_USER_AGENT);
        (void)curl_easy_setopt(h, CURLOPT_ERRORBUFFER, c->error);
        (void)curl_easy_setopt(h, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
        (void)curl_easy_setopt(h, CURLOPT_TCP_NODELAY, 1L);
        (void)curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, on_body);
}

int df_http_client_create(const char *base, const char *key, int64_t timeout_ms,
                          struct df_http_client **ret, struct df_error *err)
{
        struct df_http_client *c = calloc(1, sizeof(*c));
        bool ok = c != NULL;

        dfi_curl_init();
        if (ok) {
                c->curl = curl_easy_init();
                c->base = strdup(base);
                ok = c->curl && c->base;
        }
        if (ok && key) {
                if (asprintf(&c->authorization, "Authorization: Bearer %s", key) < 0)
                        c->authorization = NULL;
                ok = c->authorization && add_header(&c->get_headers, c->authorization);
        }
        if (!ok) {
                df_http_client_destroy(c);
                return df_fail(err, DF_ENOMEM, "an HTTP client");
        }
        if (strncmp(base, "http://", 7) != 0 && strncmp(base, "https://", 8) != 0) {
                df_http_client_destroy(c);
                return df_fail(err, DF_EINVAL,
                               "\"%s\" is no address: it begins with http:// or https://", base);
        }
        for (size_t n = strlen(c->base); n > 0 && c->base[n - 1] == '/'; n--)
                c->base[n - 1] = '\0'; /* paths bring their own */
        set_options(c, timeout_ms);
        *ret = c;
        return 0;
}

/* The headers of a POST; NULL without memory. Expect is taken out: it would cost a round trip. */
static struct curl_slist *post_headers(const struct df_http_client *c, const char *content_type)
{
        struct curl_slist *list = NULL;
        char *type = NULL;
        bool ok = asprintf(&type, "Content-Type: %s", content_type) >= 0;

        if (!ok)
                return NULL;
        ok = add_header(&list, type) && add_header(&list, "Expect:") &&
             (!c->authorization || add_header(&list, c->authorization));
        free(type);
        if (!ok) {
                curl_slist_free_all(list);
                return NULL;
        }
        return list;
}

static int perform(struct df_http_client *c, const char *url, int *ret_status, struct df_buf *body,
                   struct df_error *err)
{
        struct sink sink = {.to = body};
        long status = 0, connects = 0;
        bool connected = c->connected;
        CURLcode rc;

        c->connected = false;
        (void)curl_easy_setopt(c->curl, CURLOPT_URL, url);
        (void)curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, &sink);
        c->error[0] = '\0';
        rc = curl_easy_perform(c->curl);
        (void)curl_easy_getinfo(c->curl, CURLINFO_NUM_CONNECTS, &connects);
        c->repeats += connected && connects > 0;
        if (sink.too_large)
                return df_fail(err, DF_ELIMIT, "%s: the answer has more than %u bytes", url,
                               DF_HTTP_FETCH_MAX);
        if (rc == CURLE_OUT_OF_MEMORY || body->failed)
                return df_fail(err, DF_ENOMEM, "%s: no memory for the answer", url);
        if (rc == CURLE_URL_MALFORMAT)
                return df_fail(err, DF_EINVAL, "%s: not an address", url);
        if (rc != CURLE_OK)
                return df_fail(err, DF_EAGAIN, "%s: no answer: %s", url,
                               c->error[0] ? c->error : curl_easy_strerror(rc));
        (void)curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
        c->connected = true;
        *ret_status = (int)status;
        return 0;
}

int df_http_fetch(struct df_http_client *c, const char *path, const char *content_type,
                  struct df_bytes body, int *ret_status, struct df_buf *ret_body,
                  struct df_error *err)
{
        struct curl_slist *headers = NULL;
        struct df_buf answer = {0};
        char *url = NULL;
        int rc = DF_ENOMEM;

        if (asprintf(&url, "%s%s", c->base, path) < 0)
                return df_fail(err, DF_ENOMEM, "an address");
        if (body.data) {
                headers = post_headers(c, content_type);
                if (!headers) {
                        rc = df_fail(err, DF_ENOMEM, "%s: headers", url);
                        goto out;
                }
                (void)curl_easy_setopt(c->curl, CURLOPT_POST, 1L);
                (void)curl_easy_setopt(c->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.len);
                (void)curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, (const char *)body.data);
        } else {
                (void)curl_easy_setopt(c->curl, CURLOPT_HTTPGET, 1L);
        }
        (void)curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, headers ? headers : c->get_headers);
        rc = perform(c, url, ret_status, &answer, err);
        if (rc == 0 && ret_body) {
                df_buf_append(ret_body, answer.data, answer.len);
                rc = df_buf_check(ret_body, err);
        }
out:
        (void)curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, NULL); /* the list ends here */
        curl_slist_free_all(headers);
        df_buf_release(&answer);
        free(url);
        return rc;
}

uint64_t df_http_client_repeats(const struct df_http_client *c)
{
        return c->repeats;
}

void df_http_client_destroy(struct df_http_client *c)
{
        if (!c)
                return;
        if (c->curl)
                curl_easy_cleanup(c->curl);
        curl_slist_free_all(c->get_headers);
        free(c->authorization);
        free(c->base);
        free(c);
}
