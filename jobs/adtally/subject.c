/* subject.c - `adtally subject`: the keys of user ids at a running ingest (docs/PRIVACY.md). Asks
 * the product's own HTTP interface, like any other client. */
#include <stdio.h>
#include <string.h>

#include "df/net.h"
#include "jobs/adtally/command.h"

#define CONNECT_MS 10000
#define TOTAL_MS 120000 /* a deletion rewrites files */
#define ANSWER_MAX 65536

static const char usage[] =
        "adtally subject: keys of the user ids that ingest has sealed\n"
        "Usage: adtally subject delete USER_ID  destroy the key: the user's ids in log and "
        "archive\n"
        "                                       become unreadable; no number changes\n"
        "       adtally subject show USER_ID    whether there is a key\n"
        "       adtally subject open HEX        the user id of a sealed one (`adtally segment "
        "cat`)\n"
        "An API key of class admin is needed where there is a keys file; the tenant is the key's. "
        "Each\n"
        "machine with an ingest has keys of its own: say it to each.\n";
static const struct df_setting own[] = {
        {"url", DF_TEXT, NULL, .arg = "URL", .help = "of the product port (default: --listen)"},
        {"key", DF_TEXT, NULL, .arg = "ID.SECRET", .help = "API key", .secret = true},
};
static const char *const shared[] = {"listen", NULL};

/* Everything but letters and digits, so that any user id is one segment of a path. */
static void put_escaped(struct df_buf *b, const char *text)
{
        for (; *text; text++) {
                unsigned char c = (unsigned char)*text;

                if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
                        df_put_u8(b, c);
                else
                        df_buf_printf(b, "%%%02X", c);
        }
}

static void put_url(struct df_buf *b, const struct df_config *c, const char *verb, const char *text)
{
        const char *url = df_config_text(c, "url");

        if (url)
                df_buf_printf(b, "%s", url);
        else
                df_buf_printf(b, "http://%s", df_config_text(c, "listen"));
        df_buf_printf(b, "/v1/subjects/%s", strcmp(verb, "open") == 0 ? "open?sealed=" : "");
        put_escaped(b, text);
        df_put_u8(b, 0);
}

static int ask(const struct df_config *c, const char *verb, const char *text, int *ret_status,
               struct df_buf *ret_body, struct df_error *err)
{
        struct df_buf url = {0}, header = {0};
        const char *key = df_config_text(c, "key"), *headers[1];
        struct df_http_caller *h = NULL;
        struct df_http_call call = {
                .method = strcmp(verb, "delete") == 0 ? "DELETE" : "GET",
                .headers = headers,
                .header_count = key ? 1 : 0,
                .connect_ms = CONNECT_MS,
                .stall_ms = TOTAL_MS,
                .total_ms = TOTAL_MS,
                .answer_max = ANSWER_MAX,
        };
        int rc;

        put_url(&url, c, verb, text);
        df_buf_printf(&header, "Authorization: Bearer %s", key ? key : "");
        df_put_u8(&header, 0);
        rc = df_buf_check(&url, err);
        if (rc == 0)
                rc = df_buf_check(&header, err);
        if (rc == 0)
                rc = df_http_caller_create(&h, err);
        if (rc == 0) {
                call.url = (const char *)url.data;
                headers[0] = (const char *)header.data;
                rc = df_http_call(h, &call, ret_body, err);
        }
        *ret_status = call.ret_status;
        df_http_caller_destroy(h);
        df_buf_release(&url);
        df_buf_release(&header);
        return rc;
}

/* The answer is for scripts and people alike: one line of JSON. */
static int run(const struct df_config *c, const char *verb, const char *text, struct df_error *err)
{
        struct df_buf body = {0};
        int status = 0, rc = ask(c, verb, text, &status, &body, err);

        while (body.len && body.data[body.len - 1] == '\n')
                body.len--;
        if (rc == 0 && status != 200)
                rc = df_fail(err,
                             status == 404   ? DF_ENOENT
                             : status >= 500 ? DF_EAGAIN
                                             : DF_EINVAL,
                             "%s answers %d: %.*s", verb, status, (int)body.len,
                             (const char *)body.data);
        if (rc == 0)
                printf("%.*s\n", (int)body.len, (const char *)body.data);
        df_buf_release(&body);
        return rc;
}

int ad_command_subject(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        const char *verb;
        int code;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        verb = l.arg_count == 2 ? l.args[0] : "";
        if (strcmp(verb, "delete") != 0 && strcmp(verb, "show") != 0 && strcmp(verb, "open") != 0)
                code = ad_command_usage("subject", "expected `delete USER_ID`, `show USER_ID` or "
                                                   "`open HEX`");
        else if (!*l.args[1])
                code = ad_command_usage("subject", "an empty user id names nobody");
        else
                code = run(l.config, verb, l.args[1], &err) < 0 ? ad_command_fail("subject", &err)
                                                                : DF_EXIT_OK;
        ad_command_release(&l);
        return code;
}
