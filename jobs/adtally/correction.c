/* correction.c - `adtally correction`: what the bill is to count otherwise (docs/BILLING.md). A
 * thin client of /v1/corrections. */
#include <stdio.h>
#include <string.h>

#include "jobs/adtally/remote.h"
#include "jobs/common/json.h"

#define FILE_MAX (4u << 20)

static const char usage[] =
        "adtally correction: events that the bill is to count otherwise than they came\n"
        "Usage: adtally correction create --action void|reprice|remap|label SCOPE VALUES WHO\n"
        "       adtally correction create FILE       the request as JSON (docs/API.md); - is "
        "stdin\n"
        "       adtally correction list              the newest first, with what became of each\n"
        "       adtally correction show ID\n"
        "       adtally correction cancel ID WHO     the next run takes it back\n"
        "SCOPE: --advertiser, --campaign, --publisher, --event-ids FILE, --label, --since, "
        "--until; "
        "what\n"
        "is given must all fit. VALUES: --price \"0.0125 EUR\"; --new-advertiser, --new-campaign,\n"
        "--new-publisher; --new-label. WHO: --reason, --requested-by, --approved-by (another "
        "person).\n"
        "With --id the same request can be repeated safely. An API key of class finance or admin "
        "is\nneeded where there is a keys file.\n";
static const struct df_setting own[] = {
        AD_REMOTE_SETTINGS,
        {"id", DF_TEXT, NULL, .arg = "ID", .help = "of this request, chosen by you"},
        {"tenant", DF_TEXT, NULL, .arg = "ID", .help = "another one's, with a key of class admin"},
        {"reason", DF_TEXT, NULL, .arg = "TEXT", .help = "why"},
        {"requested-by", DF_TEXT, NULL, .arg = "PERSON", .help = "who asks"},
        {"approved-by", DF_TEXT, NULL, .arg = "PERSON", .help = "who approved it"},
        {"action", DF_TEXT, NULL, .arg = "NAME", .help = "void, reprice, remap or label"},
        {"advertiser", DF_TEXT, NULL, .arg = "ID", .help = "events of this advertiser"},
        {"campaign", DF_TEXT, NULL, .arg = "ID", .help = "events of this campaign"},
        {"publisher", DF_TEXT, NULL, .arg = "ID", .help = "events of this publisher"},
        {"event-ids", DF_TEXT, NULL, .arg = "FILE", .help = "one a line, at most 1000; - is stdin"},
        {"label", DF_TEXT, NULL, .arg = "NAME", .help = "events labelled bot or test"},
        {"since", DF_TEXT, NULL, .arg = "TIME", .help = "event time, RFC 3339"},
        {"until", DF_TEXT, NULL, .arg = "TIME", .help = "event time, not included"},
        {"price", DF_TEXT, NULL, .arg = "AMOUNT CODE", .help = "reprice: of each event"},
        {"new-advertiser", DF_TEXT, NULL, .arg = "ID", .help = "remap"},
        {"new-campaign", DF_TEXT, NULL, .arg = "ID", .help = "remap"},
        {"new-publisher", DF_TEXT, NULL, .arg = "ID", .help = "remap"},
        {"new-label", DF_TEXT, NULL, .arg = "NAME", .help = "label: bot or test"},
        {"limit", DF_INTEGER, "100", 1, 1000, .arg = "N", .help = "list: so many"},
        {"before", DF_TEXT, NULL, .arg = "N",
         .help = "list: go on, next_before of the page before"},
};
static const char *const shared[] = {"listen", NULL};

/* ---- the body ---- */

static void put(struct ad_json *j, const struct df_config *c, const char *setting, const char *name)
{
        const char *v = df_config_text(c, setting);

        if (v)
                ad_json_put_text(j, name, v);
}

static void put_who(struct ad_json *j, const struct df_config *c)
{
        put(j, c, "id", "id");
        put(j, c, "reason", "reason");
        put(j, c, "requested-by", "requested_by");
        put(j, c, "approved-by", "approved_by");
}

static int read_input(const char *path, struct df_buf *ret, struct df_error *err)
{
        return df_read_file(strcmp(path, "-") == 0 ? "/dev/stdin" : path, FILE_MAX, ret, err);
}

static void put_lines(struct ad_json *j, const struct df_buf *text)
{
        struct df_reader r = df_reader(df_buf_bytes(text));

        ad_json_key(j, "event_ids");
        ad_json_open_array(j);
        while (r.p < r.end) {
                const uint8_t *nl = memchr(r.p, '\n', df_reader_left(&r)), *end = nl ? nl : r.end;
                struct df_bytes line = df_bytes(r.p, (size_t)(end - r.p));

                if (line.len && line.data[line.len - 1] == '\r')
                        line.len--;
                if (line.len)
                        ad_json_bytes(j, line);
                r.p = nl ? nl + 1 : r.end;
        }
        ad_json_close_array(j);
}

static void put_scope(struct ad_json *j, const struct df_config *c, const struct df_buf *ids)
{
        ad_json_key(j, "scope");
        ad_json_open(j);
        put(j, c, "advertiser", "advertiser_id");
        put(j, c, "campaign", "campaign_id");
        put(j, c, "publisher", "publisher_id");
        put(j, c, "label", "label");
        put(j, c, "since", "from");
        put(j, c, "until", "to");
        if (df_config_text(c, "event-ids"))
                put_lines(j, ids);
        ad_json_close(j);
}

/* "0.0125 EUR"; without a code the server says what is missing. */
static void put_price(struct ad_json *j, const struct df_config *c)
{
        const char *price = df_config_text(c, "price"), *space = price ? strchr(price, ' ') : NULL;

        if (!price)
                return;
        ad_json_put_bytes(j, "price",
                          df_bytes(price, space ? (size_t)(space - price) : strlen(price)));
        if (space)
                ad_json_put_text(j, "currency", space + 1);
}

static int make_body(const struct df_config *c, struct df_buf *ret, struct df_error *err)
{
        const char *ids_path = df_config_text(c, "event-ids");
        struct df_buf ids = {0};
        struct ad_json *j;
        int rc = ids_path ? read_input(ids_path, &ids, err) : 0;

        if (rc < 0)
                return rc;
        j = ad_json_begin(ret);
        ad_json_open(j);
        put_who(j, c);
        put(j, c, "action", "action");
        put_scope(j, c, &ids);
        ad_json_key(j, "values");
        ad_json_open(j);
        put_price(j, c);
        put(j, c, "new-advertiser", "advertiser_id");
        put(j, c, "new-campaign", "campaign_id");
        put(j, c, "new-publisher", "publisher_id");
        put(j, c, "new-label", "label");
        ad_json_close(j);
        ad_json_close(j);
        df_buf_release(&ids);
        return ad_json_end(j, ret, err);
}

static int make_cancel(const struct df_config *c, struct df_buf *ret, struct df_error *err)
{
        struct ad_json *j = ad_json_begin(ret);

        ad_json_open(j);
        put_who(j, c);
        ad_json_close(j);
        return ad_json_end(j, ret, err);
}

/* ---- the request ---- */

static void put_path(struct df_buf *path, const struct df_config *c, const char *verb,
                     const char *id)
{
        bool lists = strcmp(verb, "list") == 0;

        df_buf_printf(path, "/v1/corrections");
        if (id) {
                df_buf_printf(path, "/");
                ad_remote_escape(path, id);
        }
        if (strcmp(verb, "cancel") == 0)
                df_buf_printf(path, "/cancel");
        ad_remote_param(path, "tenant", df_config_text(c, "tenant"));
        if (lists) {
                char limit[24];

                (void)snprintf(limit, sizeof(limit), "%lld",
                               (long long)df_config_integer(c, "limit"));
                ad_remote_param(path, "limit", limit);
                ad_remote_param(path, "before", df_config_text(c, "before"));
        }
        df_put_u8(path, 0);
}

static int run(const struct df_config *c, const char *verb, const char *arg, struct df_error *err)
{
        bool creates = strcmp(verb, "create") == 0, cancels = strcmp(verb, "cancel") == 0;
        struct df_buf path = {0}, body = {0};
        struct ad_remote_call call = {.method = creates || cancels ? "POST" : "GET"};
        int rc = 0;

        put_path(&path, c, verb, creates ? NULL : arg);
        if (creates)
                rc = arg ? read_input(arg, &body, err) : make_body(c, &body, err);
        else if (cancels)
                rc = make_cancel(c, &body, err);
        call.body = df_buf_bytes(&body);
        if (rc == 0)
                rc = ad_remote_print(c, verb, &call, &path, false, err);
        df_buf_release(&path);
        df_buf_release(&body);
        return rc;
}

int ad_command_correction(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        const char *verb;
        int code, want;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        verb = l.arg_count ? l.args[0] : "";
        want = strcmp(verb, "create") == 0                                ? l.arg_count
               : strcmp(verb, "list") == 0                                ? 1
               : strcmp(verb, "show") == 0 || strcmp(verb, "cancel") == 0 ? 2
                                                                          : 0;
        if (l.arg_count != want || l.arg_count > 2 || l.arg_count < 1)
                code = ad_command_usage("correction", "expected `create`, `create FILE`, `list`, "
                                                      "`show ID` or `cancel ID`");
        else
                code = run(l.config, verb, l.arg_count == 2 ? l.args[1] : NULL, &err) < 0
                               ? ad_command_fail("correction", &err)
                               : DF_EXIT_OK;
        ad_command_release(&l);
        return code;
}
