#include "jobs/adtally/remote.h"

#include <stdio.h>
#include <string.h>

#include "df/net.h"

#define CONNECT_MS 10000
#define TOTAL_MS 60000

void ad_remote_escape(struct df_buf *b, const char *text)
{
        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;

                if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                    c == '-' || c == '_')
                        df_put_u8(b, c);
                else
                        df_buf_printf(b, "%%%02X", c);
        }
}

void ad_remote_param(struct df_buf *path, const char *name, const char *value)
{
        bool first = !path->len || !memchr(path->data, '?', path->len);

        if (!value)
                return;
        df_buf_printf(path, "%c%s=", first ? '?' : '&', name);
        ad_remote_escape(path, value);
}

static void put_url(struct df_buf *b, const struct df_config *c, const char *path)
{
        const char *url = df_config_text(c, "url");

        if (url)
                df_buf_printf(b, "%s%s%c", url, path, 0);
        else
                df_buf_printf(b, "http://%s%s%c", df_config_text(c, "listen"), path, 0);
}

int ad_remote_ask(const struct df_config *c, struct ad_remote_call *call, struct df_buf *ret_body,
                  struct df_error *err)
{
        struct df_buf url = {0}, bearer = {0};
        const char *key = df_config_text(c, "key"), *headers[2];
        struct df_http_caller *h = NULL;
        int64_t total = call->total_ms ? call->total_ms : TOTAL_MS;
        struct df_http_call http = {
                .method = call->method,
                .headers = headers,
                .body = call->body,
                .connect_ms = CONNECT_MS,
                .stall_ms = total,
                .total_ms = total,
                .answer_max = DF_HTTP_FETCH_MAX,
        };
        int rc;

        put_url(&url, c, call->path);
        df_buf_printf(&bearer, "Authorization: Bearer %s%c", key ? key : "", 0);
        rc = df_buf_check(&url, err);
        if (rc == 0)
                rc = df_buf_check(&bearer, err);
        if (rc == 0)
                rc = df_http_caller_create(&h, err);
        if (rc == 0) {
                http.url = (const char *)url.data;
                if (key)
                        headers[http.header_count++] = (const char *)bearer.data;
                if (call->body.data)
                        headers[http.header_count++] = "Content-Type: application/json";
                rc = df_http_call(h, &http, ret_body, err);
        }
        call->ret_status = http.ret_status;
        df_http_caller_destroy(h);
        df_buf_release(&url);
        df_buf_release(&bearer);
        return rc;
}

int ad_remote_do(const struct df_config *c, const char *what, struct ad_remote_call *call,
                 struct df_buf *ret_body, struct df_error *err)
{
        int rc = ad_remote_ask(c, call, ret_body, err), status = call->ret_status;
        size_t len = ret_body->len;

        if (rc < 0 || status / 100 == 2)
                return rc;
        while (len && ret_body->data[len - 1] == '\n')
                len--;
        return df_fail(err,
                       status == 404   ? DF_ENOENT
                       : status >= 500 ? DF_EAGAIN
                                       : DF_EINVAL,
                       "%s answers %d: %.*s", what, status, (int)len, (const char *)ret_body->data);
}

int ad_remote_print(const struct df_config *c, const char *what, struct ad_remote_call *call,
                    const struct df_buf *path, bool exact, struct df_error *err)
{
        struct df_buf answer = {0};
        int rc = df_buf_check(path, err);

        call->path = (const char *)path->data;
        if (rc == 0)
                rc = ad_remote_do(c, what, call, &answer, err);
        while (!exact && answer.len && answer.data[answer.len - 1] == '\n')
                answer.len--;
        if (rc == 0) {
                (void)fwrite(answer.data, 1, answer.len, stdout);
                if (!exact)
                        (void)putchar('\n');
        }
        df_buf_release(&answer);
        return rc;
}
