/* subject.c - `adtally subject`: the keys of user ids at a running ingest (docs/PRIVACY.md). Asks
 * the product's own HTTP interface, like any other client. */
#include <stdio.h>
#include <string.h>

#include "jobs/adtally/remote.h"

#define TOTAL_MS 120000 /* a deletion rewrites files */

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
static const struct df_setting own[] = {AD_REMOTE_SETTINGS};
static const char *const shared[] = {"listen", NULL};

/* The answer is for scripts and people alike: one line of JSON. */
static int run(const struct df_config *c, const char *verb, const char *text, struct df_error *err)
{
        struct df_buf path = {0};
        struct ad_remote_call call = {.method = strcmp(verb, "delete") == 0 ? "DELETE" : "GET",
                                      .total_ms = TOTAL_MS};
        int rc;

        df_buf_printf(&path, "/v1/subjects/%s", strcmp(verb, "open") == 0 ? "open?sealed=" : "");
        ad_remote_escape(&path, text);
        df_put_u8(&path, 0);
        rc = ad_remote_print(c, verb, &call, &path, false, err);
        df_buf_release(&path);
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
