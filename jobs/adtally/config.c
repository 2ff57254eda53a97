/* config.c - `adtally config`: effective settings and where each comes from. */
#include <stdio.h>

#include "jobs/adtally/command.h"

static const char usage[] =
        "adtally config: print every setting, its effective value and where it comes from\n"
        "Usage: adtally config [--config FILE] [SETTINGS]\n\n"
        "Order: defaults, the file of --config (or ADTALLY_CONFIG), ADTALLY_NAME in the "
        "environment,\n"
        "flags; the later wins. The output is a configuration file itself.\n";

int ad_command_config(int argc, char **argv)
{
        struct ad_command_line l;
        int code;

        if (!ad_command_read(argc, argv, usage, NULL, 0, NULL, &l, &code))
                return code;
        code = DF_EXIT_OK;
        if (l.arg_count > 0)
                code = ad_command_usage("config", "it takes no arguments");
        else
                df_config_print(l.config, stdout);
        ad_command_release(&l);
        return code;
}
