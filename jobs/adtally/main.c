/* main.c - the one command on the PATH: a table of sub-commands (command.h).
 *
 * `adtally CMD --help`, `adtally help CMD`, `adtally --help`, `adtally --version`.
 */
#include <stdio.h>
#include <string.h>

#include "jobs/adtally/command.h"

static const struct ad_subcommand commands[] = {
        {"up", "run everything on one data directory, behind one port", ad_command_up},
        {"status", "what runs, how far it is, what is wrong", ad_command_status},
        {"watch", "the last minutes of a running Adtally, live", ad_command_watch},
        {"generate", "send seeded traffic and write down the exact truth", ad_command_generate},
        {"check", "compare served numbers with that truth", ad_command_check},
        {"import", "count the history in a CSV or NDJSON file, each row once", ad_command_import},
        {"replay", "process a range of the log again, beside the live numbers", ad_command_replay},
        {"reconcile", "the bill by raw events, and why realtime differs", ad_command_reconcile},
        {"explain", "what a number was made from", ad_command_explain},
        {"verify", "whether a closed period is what the raw events say", ad_command_verify},
        {"recover", "repair a refused partition or a wrong clock", ad_command_recover},
        {"migrate", "move from the embedded log to Kafka", ad_command_migrate},
        {"log", "look into the log: topics, records", ad_command_log},
        {"archive", "list and check the raw archive", ad_command_archive},
        {"segment", "look into files of the raw archive", ad_command_segment},
        {"quarantine", "events refused after they were stored: list, show, release",
         ad_command_quarantine},
        {"consumers", "who keeps the log from being deleted", ad_command_consumers},
        {"prices", "load and list price tables", ad_command_prices},
        {"key", "make an API key, or the key that signs", ad_command_key},
        {"subject", "destroy the key of a user id, or ask for it", ad_command_subject},
        {"correction", "void, re-price or re-map events in the bill", ad_command_correction},
        {"period", "billing periods: list, close, invoices", ad_command_period},
        {"config", "every setting, its value and where it comes from", ad_command_config},
        {"bench", "measure: events a second, CPU an event, memory", ad_command_bench},
};
#define COMMAND_COUNT (sizeof(commands) / sizeof(commands[0]))

static void print_usage(FILE *f)
{
        fprintf(f, "adtally: every click, impression and conversion counted once\n"
                   "Usage: adtally COMMAND [OPTIONS]\n\nCommands:\n");
        for (size_t i = 0; i < COMMAND_COUNT; i++)
                fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
        fprintf(f,
                "\n`adtally COMMAND --help` tells more; `adtally --version` prints the version.\n"
                "Exit codes: 0 yes or done, 1 no (a check failed), 64 wrong command line, "
                "65 wrong input\nor damaged data, 69 a server is not there, 70 a bug, "
                "74 input or output failed, 75 try again,\n78 wrong configuration.\n");
}

static const struct ad_subcommand *find(const char *name)
{
        for (size_t i = 0; i < COMMAND_COUNT; i++)
                if (strcmp(commands[i].name, name) == 0)
                        return &commands[i];
        return NULL;
}

/* Levenshtein distance of two short words. */
static size_t distance(const char *a, const char *b)
{
        size_t row[32], lb = strlen(b);

        if (strlen(a) >= 32 || lb >= 32)
                return 32;
        for (size_t j = 0; j <= lb; j++)
                row[j] = j;
        for (size_t i = 1; a[i - 1]; i++) {
                size_t diagonal = row[0];

                row[0] = i;
                for (size_t j = 1; j <= lb; j++) {
                        size_t best = diagonal + (a[i - 1] != b[j - 1]);

                        best = row[j] + 1 < best ? row[j] + 1 : best;
                        best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
                        diagonal = row[j];
                        row[j] = best;
                }
        }
        return row[lb];
}

static int unknown(const char *name)
{
        const struct ad_subcommand *nearest = &commands[0];

        for (size_t i = 1; i < COMMAND_COUNT; i++)
                if (distance(name, commands[i].name) < distance(name, nearest->name))
                        nearest = &commands[i];
        fprintf(stderr, "adtally: no command \"%s\"; did you mean \"%s\"? (adtally --help)\n", name,
                nearest->name);
        return DF_EXIT_USAGE;
}

static int help(int argc, char **argv)
{
        const struct ad_subcommand *c;
        char flag[] = "--help", *args[] = {flag, NULL};

        if (argc == 0) {
                print_usage(stdout);
                return DF_EXIT_OK;
        }
        c = find(argv[0]);
        return c ? c->run(1, args) : unknown(argv[0]);
}

int main(int argc, char **argv)
{
        const struct ad_subcommand *c;

        if (argc < 2) {
                print_usage(stderr);
                return DF_EXIT_USAGE;
        }
        if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
            strcmp(argv[1], "help") == 0)
                return help(argc - 2, argv + 2);
        if (strcmp(argv[1], "--version") == 0) {
                printf("adtally " ADTALLY_VERSION "\n");
                return DF_EXIT_OK;
        }
        c = find(argv[1]);
        return c ? c->run(argc - 2, argv + 2) : unknown(argv[1]);
}
