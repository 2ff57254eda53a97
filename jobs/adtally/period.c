/* period.c - `adtally period`: billing periods, their closes and invoices (docs/BILLING.md). A thin
 * client of /v1/periods. */
#include <stdio.h>
#include <string.h>

#include "jobs/adtally/remote.h"
#include "jobs/common/json.h"

static const char usage[] =
        "adtally period: billing periods of advertisers and tenants\n"
        "Usage: adtally period list                which are open and closed\n"
        "       adtally period close 2026-04 WHO   close it: later money counts in the next one\n"
        "       adtally period cancel 2026-04 WHO  take back a close that still waits\n"
        "       adtally period show 2026-04        its invoice, or the preview of an open one\n"
        "       adtally period manifest 2026-04    what was signed when it was closed\n"
        "Whose period: --advertiser, unless the tenant closes as a whole (--accounts of the "
        "server).\n"
        "WHO: --reason, --requested-by, --approved-by (another person). With --id a close can be\n"
        "repeated safely. An API key of class read is needed to look, finance or admin to close, "
        "where\nthere is a keys file.\n";
static const struct df_setting own[] = {
        AD_REMOTE_SETTINGS,
        {"advertiser", DF_TEXT, NULL, .arg = "ID", .help = "whose periods"},
        {"tenant", DF_TEXT, NULL, .arg = "ID", .help = "another one's, with a key of class admin"},
        {"id", DF_TEXT, NULL, .arg = "ID", .help = "of this request, chosen by you"},
        {"reason", DF_TEXT, NULL, .arg = "TEXT", .help = "why"},
        {"requested-by", DF_TEXT, NULL, .arg = "PERSON", .help = "who asks"},
        {"approved-by", DF_TEXT, NULL, .arg = "PERSON", .help = "who approved it"},
        {"csv", DF_BOOL, "false", .help = "show: charges as CSV with the columns of FOCUS"},
        {"payouts", DF_BOOL, "false", .help = "show --csv: what publishers get instead"},
        {"ledger", DF_BOOL, "false", .help = "show: adjustments as reversal and new charge"},
        {"signature", DF_BOOL, "false", .help = "manifest: the signature instead"},
};
static const char *const shared[] = {"listen", NULL};

static void put(struct ad_json *j, const struct df_config *c, const char *setting, const char *name)
{
        const char *v = df_config_text(c, setting);

        if (v)
                ad_json_put_text(j, name, v);
}

static int make_request(const struct df_config *c, struct df_buf *ret, struct df_error *err)
{
        struct ad_json *j = ad_json_begin(ret);

        ad_json_open(j);
        put(j, c, "id", "id");
        put(j, c, "advertiser", "advertiser_id");
        put(j, c, "reason", "reason");
        put(j, c, "requested-by", "requested_by");
        put(j, c, "approved-by", "approved_by");
        ad_json_close(j);
        return ad_json_end(j, ret, err);
}

static bool is_request(const char *verb)
{
        return strcmp(verb, "close") == 0 || strcmp(verb, "cancel") == 0;
}

static void put_path(struct df_buf *path, const struct df_config *c, const char *verb,
                     const char *period)
{
        bool posts = is_request(verb), shows = strcmp(verb, "show") == 0;

        df_buf_printf(path, "/v1/periods");
        if (period) {
                df_buf_printf(path, "/");
                ad_remote_escape(path, period);
        }
        if (posts || strcmp(verb, "manifest") == 0)
                df_buf_printf(path, "/%s", verb);
        ad_remote_param(path, "tenant", df_config_text(c, "tenant"));
        if (!posts)
                ad_remote_param(path, "advertiser_id", df_config_text(c, "advertiser"));
        if (shows && df_config_bool(c, "csv"))
                ad_remote_param(path, "format", "csv");
        if (shows && df_config_bool(c, "payouts"))
                ad_remote_param(path, "part", "payouts");
        if (shows && df_config_bool(c, "ledger"))
                ad_remote_param(path, "adjustments", "ledger");
        if (strcmp(verb, "manifest") == 0 && df_config_bool(c, "signature"))
                ad_remote_param(path, "part", "signature");
        df_put_u8(path, 0);
}

static int run(const struct df_config *c, const char *verb, const char *period,
               struct df_error *err)
{
        /* Manifests and signatures are printed as they were signed. */
        bool exact = strcmp(verb, "manifest") == 0 || df_config_bool(c, "csv");
        bool posts = is_request(verb);
        struct df_buf path = {0}, body = {0};
        struct ad_remote_call call = {.method = posts ? "POST" : "GET"};
        int rc = posts ? make_request(c, &body, err) : 0;

        put_path(&path, c, verb, period);
        call.body = df_buf_bytes(&body);
        if (rc == 0)
                rc = ad_remote_print(c, verb, &call, &path, exact, err);
        df_buf_release(&path);
        df_buf_release(&body);
        return rc;
}

int ad_command_period(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        const char *verb;
        int code, want;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        verb = l.arg_count ? l.args[0] : "";
        want = strcmp(verb, "list") == 0                                                        ? 1
               : is_request(verb) || strcmp(verb, "show") == 0 || strcmp(verb, "manifest") == 0 ? 2
                                                                                                : 0;
        if (l.arg_count != want || want == 0)
                code = ad_command_usage("period",
                                        "expected `list`, `close PERIOD`, `cancel PERIOD`, "
                                        "`show PERIOD` or `manifest PERIOD`");
        else
                code = run(l.config, verb, l.arg_count == 2 ? l.args[1] : NULL, &err) < 0
                               ? ad_command_fail("period", &err)
                               : DF_EXIT_OK;
        ad_command_release(&l);
        return code;
}
