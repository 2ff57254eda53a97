/* prices.c - `adtally prices`: list and load price tables (W6). */
#include <stdio.h>
#include <string.h>

#include "jobs/adtally/command.h"
#include "jobs/common/prices.h"

static const char usage[] =
        "adtally prices: versioned price tables\n"
        "Usage: adtally prices load FILE   check a table and make it the newest version\n"
        "       adtally prices list        versions there are\n\n"
        "FILE is CSV: tenant_id,advertiser_id,campaign_id,ad_id,model,price,currency,valid_from\n"
        "(model cpm, cpc or cpa; empty ids match all; valid_from RFC 3339 or empty). Ingest "
        "stamps\n"
        "records with the newest version within a second; a record keeps its version for ever.\n"
        "Needs --pricing table or client_else_table.\n";
static const char *const shared[] = {"data", "pricing", NULL};

static int load(struct ad_prices *p, const char *path, struct df_error *err)
{
        uint32_t version;
        int rc = ad_prices_load(p, path, &version, err);

        if (rc == 0)
                printf("price table version %u\n", version);
        return rc;
}

static void list(struct ad_prices *p)
{
        uint32_t newest = ad_prices_newest(p);

        for (uint32_t v = 1; v <= newest; v++) {
                const struct ad_price_table *t = ad_prices_get(p, v);

                if (t)
                        printf("version %u: %zu lines%s\n", v, t->count,
                               v == newest ? " (in force)" : "");
                else
                        printf("version %u: cannot be read\n", v);
        }
        if (newest == 0)
                printf("no price table yet: adtally prices load FILE\n");
}

int ad_command_prices(int argc, char **argv)
{
        struct ad_command_line l;
        struct ad_prices *p = NULL;
        struct df_error err = {0};
        int code, rc;

        if (!ad_command_read(argc, argv, usage, NULL, 0, shared, &l, &code))
                return code;
        if (l.arg_count == 0 || (strcmp(l.args[0], "load") == 0 && l.arg_count != 2) ||
            (strcmp(l.args[0], "list") == 0 && l.arg_count != 1) ||
            (strcmp(l.args[0], "load") != 0 && strcmp(l.args[0], "list") != 0)) {
                ad_command_release(&l);
                return ad_command_usage("prices", "expected `load FILE` or `list`");
        }
        rc = ad_prices_open(df_config_text(l.config, "data"), &p, &err);
        if (rc == 0 && strcmp(l.args[0], "load") == 0)
                rc = load(p, l.args[1], &err);
        else if (rc == 0)
                list(p);
        ad_prices_close(p);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("prices", &err) : DF_EXIT_OK;
}
