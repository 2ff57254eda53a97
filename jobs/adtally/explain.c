/* explain.c - `adtally explain`: what a number was made from, for people. Asks the product's own
 * HTTP interface (GET /explain), like any other client. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "df/net.h"
#include "jobs/adtally/command.h"
#include "jobs/ingest/json.h"

#define TIMEOUT_MS 120000 /* it reads the log */
#define PATH_ROOM 4096

static const char usage[] =
        "adtally explain: what a number of /metrics was made from\n"
        "Usage: adtally explain QUESTION [--url URL] [--key ID.SECRET] [--json]\n\n"
        "QUESTION is the URL of the number (http://HOST/v1/metrics?from=...), or its parameters "
        "alone. Says\n"
        "the number, and for each partition the offsets whose events it counts, the seals over "
        "them, and the\n"
        "segments of the archive that hold them. --json prints the answer as it is.\n";
static const struct df_setting own[] = {
        {"url", DF_TEXT, NULL, .arg = "URL", .help = "of the product port (default: --listen)"},
        {"key", DF_TEXT, NULL, .arg = "ID.SECRET", .help = "API key", .secret = true},
};
static const char *const shared[] = {"listen", "json", NULL};

/* ---- members of an object: the node, or one that is null ---- */

static const struct ad_json_node *member(const struct ad_json_node *all, uint32_t object,
                                         const char *key)
{
        static const struct ad_json_node none = {.kind = AD_JSON_NULL};

        for (uint32_t i = object + 1; i < all[object].next; i = all[i].next)
                if (df_bytes_eq(all[i].key, df_bytes_str(key)))
                        return &all[i];
        return &none;
}

static int64_t number(const struct ad_json_node *all, uint32_t object, const char *key)
{
        const struct ad_json_node *n = member(all, object, key);

        return n->kind == AD_JSON_INT ? n->i : 0;
}

static bool truth(const struct ad_json_node *all, uint32_t object, const char *key)
{
        const struct ad_json_node *n = member(all, object, key);

        return n->kind == AD_JSON_BOOL && n->i;
}

static void print_text(const struct ad_json_node *n)
{
        printf("%.*s", (int)n->text.len, (const char *)n->text.data);
}

/* Nanos as units: "1.250000000". */
static void print_money(const struct ad_json_node *n)
{
        struct df_bytes t = n->text;
        bool minus = t.len > 0 && t.data[0] == '-';
        size_t digits, whole;

        if (minus)
                t = df_bytes(t.data + 1, t.len - 1);
        digits = t.len;
        whole = digits > 9 ? digits - 9 : 0;
        printf("%s%.*s%s.", minus ? "-" : "", (int)whole, (const char *)t.data, whole ? "" : "0");
        for (size_t i = digits; i < 9; i++)
                putchar('0');
        printf("%.*s", (int)(digits - whole), (const char *)t.data + whole);
}

/* ---- the answer ---- */

static void print_total(const struct ad_json_node *all, uint32_t t)
{
        print_text(member(all, t, "currency"));
        printf("  %" PRId64 " impressions, %" PRId64 " clicks, %" PRId64 " conversions, spend ",
               number(all, t, "impressions"), number(all, t, "clicks"),
               number(all, t, "conversions"));
        print_money(member(all, t, "spend_nanos"));
        printf(", payout ");
        print_money(member(all, t, "payout_nanos"));
        printf("\n");
}

static void print_segments(const struct ad_json_node *all, uint32_t s)
{
        const struct ad_json_node *segments = member(all, s, "segments");
        uint32_t first = (uint32_t)(segments - all);

        printf("    archived to offset %" PRId64 ", in %" PRId64 " segments\n",
               number(all, s, "archived_to"), number(all, s, "segment_count"));
        if (segments->kind != AD_JSON_ARRAY)
                return;
        for (uint32_t i = first + 1; i < segments->next; i = all[i].next) {
                printf("    ");
                print_text(member(all, i, "name"));
                printf("  sha256 ");
                print_text(member(all, i, "sha256"));
                printf("\n");
        }
}

static void print_source(const struct ad_json_node *all, uint32_t s)
{
        print_text(member(all, s, "stream"));
        printf("/%" PRId64 "  ", number(all, s, "partition"));
        if (member(all, s, "seals")->kind == AD_JSON_NULL) { /* of the bill */
                printf("judged up to offset %" PRId64 "\n", number(all, s, "to_offset"));
                print_segments(all, s);
                return;
        }
        if (number(all, s, "seals") == 0 && member(all, s, "to_offset")->kind == AD_JSON_NULL) {
                printf("nothing was sealed then\n");
                return;
        }
        if (number(all, s, "seals") == 0) {
                printf("offsets %" PRId64 " to %" PRId64 ", by the raw records%s\n",
                       number(all, s, "from_offset"), number(all, s, "to_offset"),
                       truth(all, s, "complete") ? "" : "; more may still be counted");
                print_segments(all, s);
                return;
        }
        printf("offsets %" PRId64 " to %" PRId64 ": %" PRId64 " seals, checkpoints %" PRId64
               " to %" PRId64 "%s%s%s\n",
               number(all, s, "from_offset"), number(all, s, "to_offset"), number(all, s, "seals"),
               number(all, s, "first_checkpoint"), number(all, s, "last_checkpoint"),
               truth(all, s, "chained") ? ", chained" : ", NOT CHAINED",
               truth(all, s, "complete") ? "" : "; more may still be counted",
               truth(all, s, "earlier_seals_deleted") ? "; earlier seals have left the log" : "");
        print_segments(all, s);
}

static void print_run(const struct ad_json_node *all, uint32_t r)
{
        printf("run ");
        print_text(member(all, r, "run"));
        printf("  of ");
        print_text(member(all, r, "at"));
        printf(": %" PRId64 " cells, postings %" PRId64 " to %" PRId64
               ", corrections before %" PRId64 ", price table %" PRId64 "\n",
               number(all, r, "cells"), number(all, r, "first_posting"),
               number(all, r, "last_posting"), number(all, r, "corrections_to"),
               number(all, r, "price_version"));
}

static void print_import(const struct ad_json_node *all, uint32_t s)
{
        print_text(member(all, s, "stream"));
        printf("/%" PRId64 "  offsets %" PRId64 " to %" PRId64 ", dataset ",
               number(all, s, "partition"), number(all, s, "from_offset"),
               number(all, s, "to_offset"));
        print_text(member(all, s, "dataset"));
        printf("\n");
}

static void print_missing(const struct ad_json_node *all, uint32_t i)
{
        const struct ad_json_node *proof = member(all, i, "proved_by");

        printf("NOT SHOWN  ");
        print_text(member(all, i, "text"));
        printf("\n    %s",
               proof->kind == AD_JSON_NULL ? "nothing here proves it" : "still proved by: ");
        print_text(proof);
        printf("\n");
}

static void each(const struct ad_json_node *all, const char *key,
                 void (*print)(const struct ad_json_node *all, uint32_t i))
{
        const struct ad_json_node *list = member(all, 0, key);

        if (list->kind != AD_JSON_ARRAY)
                return;
        for (uint32_t i = (uint32_t)(list - all) + 1; i < list->next; i = all[i].next)
                print(all, i);
}

static int parse(struct ad_json_parser *p, struct df_bytes body, const struct ad_json_node **ret,
                 struct df_error *err)
{
        const char *why = "";
        size_t count = 0;

        if (ad_json_parse(p, body, ret, &count, &why) == AD_JSON_OK && count > 0 &&
            (*ret)[0].kind == AD_JSON_OBJECT)
                return 0;
        return df_fail(err, DF_EPARSE,
                       "the answer is no JSON object (%.60s): is --url that of the product port "
                       "(--listen), not of the admin port?",
                       why);
}

static int print_answer(struct ad_json_parser *p, struct df_bytes body, struct df_error *err)
{
        const struct ad_json_node *all = NULL;
        int rc = parse(p, body, &all, err);

        if (rc == 0) {
                print_text(member(all, 0, "view"));
                printf(", ");
                print_text(member(all, 0, "from"));
                printf(" to ");
                print_text(member(all, 0, "to"));
                printf("\n");
                each(all, "totals", print_total);
                each(all, "runs", print_run);
                each(all, "sources", print_source);
                each(all, "imports", print_import);
                each(all, "not_shown", print_missing);
                if (number(all, 0, "damaged_collections"))
                        printf("%" PRId64
                               " collections of the topic late are damaged: `adtally log "
                               "verify late` names them\n",
                               number(all, 0, "damaged_collections"));
        }
        return rc;
}

/* What to do about a refusal, where its own message cannot know; NULL: it says it. */
static const char *advice(int status)
{
        switch (status) {
        case 401:
        case 403:
                return "give --key ID.SECRET (best as ADTALLY_KEY) of a key of class read or "
                       "above, "
                       "of the tenant whose number it is; `adtally key create --class read --keys "
                       "FILE` makes one, FILE being what `up --keys` names";
        case 404:
                return "is --url that of the product port (`up --listen`)?";
        case 500:
                return "the log lines of the job api say more, and docs/RUNBOOK.md what to do";
        default:
                return status > 500 ? "`adtally status --data DIR` says what does not run" : NULL;
        }
}

static int refused(struct ad_json_parser *p, const char *base, int status, struct df_bytes body,
                   struct df_error *err)
{
        const struct ad_json_node *all = NULL, *code, *message;
        enum df_err what = status >= 500 ? DF_EAGAIN : DF_EINVAL;
        uint32_t error;

        if (advice(status))
                fprintf(stderr, "adtally explain: %s\n", advice(status));
        if (parse(p, body, &all, err) < 0 || member(all, 0, "error")->kind != AD_JSON_OBJECT)
                return df_fail(err, what, "%s answers %d", base, status);
        error = (uint32_t)(member(all, 0, "error") - all);
        code = member(all, error, "code");
        message = member(all, error, "message");
        return df_fail(err, what, "%s answers %d %.*s: %.*s", base, status, (int)code->text.len,
                       (const char *)code->text.data, (int)message->text.len,
                       (const char *)message->text.data);
}

/* ---- the question ---- */

/* base: of the question's own URL, if it has one. */
static int read_question(const char *text, char base[PATH_ROOM], char path[PATH_ROOM],
                         struct df_error *err)
{
        const char *scheme = strstr(text, "://"), *slash = NULL, *mark = strchr(text, '?');

        if (scheme)
                slash = strchr(scheme + 3, '/');
        if (strlen(text) >= PATH_ROOM - 64)
                return df_fail(err, DF_EINVAL,
                               "the question has %zu bytes, and at most %d are asked: give fewer "
                               "values of filters",
                               strlen(text), PATH_ROOM - 65);
        if ((scheme && (!slash || !mark)) || (!scheme && text[0] == '/' && !mark))
                return df_fail(err, DF_EINVAL,
                               "the question has no parameters: give the URL of a number, as "
                               "http://HOST/v1/metrics?from=...&to=..., or what is behind its '?'");
        if (scheme)
                (void)snprintf(base, PATH_ROOM, "%.*s", (int)(slash - text), text);
        (void)snprintf(path, PATH_ROOM, "/v1/explain?%s", mark ? mark + 1 : text);
        return 0;
}

static int run(const struct df_config *c, const char *question, struct df_error *err)
{
        struct ad_json_parser *json = ad_json_create();
        struct df_http_client *http = NULL;
        char base[PATH_ROOM], path[PATH_ROOM];
        struct df_buf body = {0};
        int status = 0, rc;

        if (df_config_text(c, "url"))
                (void)snprintf(base, sizeof(base), "%s", df_config_text(c, "url"));
        else
                (void)snprintf(base, sizeof(base), "http://%s", df_config_text(c, "listen"));
        rc = json ? read_question(question, base, path, err) : df_fail(err, DF_ENOMEM, "parser");
        if (rc == 0)
                rc = df_http_client_create(base, df_config_text(c, "key"), TIMEOUT_MS, &http, err);
        if (rc == 0) {
                rc = df_http_fetch(http, path, NULL, df_bytes(NULL, 0), &status, &body, err);
                if (rc < 0)
                        (void)df_wrap(err, "does `adtally up` run at %s (--url, --listen)?", base);
        }
        if (rc == 0 && status != 200)
                rc = refused(json, base, status, df_buf_bytes(&body), err);
        else if (rc == 0 && df_config_bool(c, "json"))
                printf("%.*s\n", (int)body.len, (const char *)body.data);
        else if (rc == 0)
                rc = print_answer(json, df_buf_bytes(&body), err);
        df_http_client_destroy(http);
        ad_json_destroy(json);
        df_buf_release(&body);
        return rc;
}

int ad_command_explain(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        if (l.arg_count != 1)
                code = ad_command_usage("explain", "expected one QUESTION");
        else
                code = run(l.config, l.args[0], &err) == 0 ? DF_EXIT_OK
                       : err.code == DF_EINVAL ? ad_command_usage("explain", "%s", err.text)
                                               : ad_command_fail("explain", &err);
        ad_command_release(&l);
        return code;
}
