/* watch.c - `adtally watch`: the last minutes and the ledger, redrawn every second on a terminal,
 * printed as lines otherwise. Asks the product's own HTTP interface, like any other client. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/net.h"
#include "jobs/adtally/command.h"
#include "jobs/common/times.h"
#include "jobs/ingest/json.h"

#define MINUTES_SHOWN 10
#define MINUTE_MS 60000
#define BAR 40

static const char usage[] =
        "adtally watch: the last minutes of a running Adtally, until Ctrl-C\n"
        "Usage: adtally watch [--url URL] [--key ID.SECRET] [--every DURATION] [--times N]\n";
static const struct df_setting own[] = {
        {"url", DF_TEXT, NULL, .arg = "URL", .help = "of the product port (default: --listen)"},
        {"key", DF_TEXT, NULL, .arg = "ID.SECRET", .help = "API key", .secret = true},
        {"every", DF_DURATION, "1s", 100, 3600000, .help = "between two looks"},
        {"times", DF_INTEGER, "0", 0, 1 << 30, .help = "looks before it ends; 0 = until Ctrl-C"},
};
static const char *const shared[] = {"listen", NULL};

struct row {
        char minute[AD_TIME_TEXT_MAX], currency[8], state[12];
        uint64_t impressions, clicks, conversions;
        double spend; /* units, for looking only */
};

/* The fields of one CSV line that never holds quotes: times, codes and numbers. */
static bool parse_row(char *line, struct row *ret)
{
        char *field[16], *save = NULL;
        int n = 0;

        for (char *f = strtok_r(line, ",\r", &save); f && n < 16; f = strtok_r(NULL, ",\r", &save))
                field[n++] = f;
        if (n < 8)
                return false;
        memset(ret, 0, sizeof(*ret));
        (void)snprintf(ret->minute, sizeof(ret->minute), "%s", field[0]);
        (void)snprintf(ret->currency, sizeof(ret->currency), "%s", field[1]);
        ret->impressions = strtoull(field[2], NULL, 10);
        ret->clicks = strtoull(field[3], NULL, 10);
        ret->conversions = strtoull(field[4], NULL, 10);
        ret->spend = strtod(field[5], NULL) / 1e6;
        for (int i = 8; i < n; i++) /* empty rates vanish in strtok: look for the word */
                if (strcmp(field[i], "open") == 0 || strcmp(field[i], "settled") == 0)
                        (void)snprintf(ret->state, sizeof(ret->state), "%s", field[i]);
        return true;
}

static void print_row(const struct row *r, uint64_t most)
{
        int filled = most ? (int)((r->impressions * BAR + most - 1) / most) : 0;

        printf("  %.16s  %-3s %10" PRIu64 " %8" PRIu64 " %8" PRIu64 " %14.2f  %-7s ", r->minute,
               r->currency, r->impressions, r->clicks, r->conversions, r->spend, r->state);
        for (int i = 0; i < filled; i++)
                putchar('#');
        putchar('\n');
}

static void print_rows(char *csv)
{
        struct row rows[MINUTES_SHOWN * 8];
        size_t count = 0;
        uint64_t most = 0;
        char *save = NULL;

        (void)strtok_r(csv, "\n", &save); /* the header */
        for (char *line = strtok_r(NULL, "\n", &save); line && count < sizeof(rows) / sizeof(*rows);
             line = strtok_r(NULL, "\n", &save)) {
                if (!parse_row(line, &rows[count]))
                        continue;
                if (rows[count].impressions > most)
                        most = rows[count].impressions;
                count++;
        }
        printf("  %-16s  %-3s %10s %8s %8s %14s  %-7s\n", "minute (UTC)", "", "impressions",
               "clicks", "conv.", "spend", "state");
        for (size_t i = 0; i < count; i++)
                print_row(&rows[i], most);
        if (count == 0)
                printf("  (nothing counted in the last %d minutes)\n", MINUTES_SHOWN);
}

/* {"ledger":{...}} of /quality as one line. */
static void print_ledger(struct ad_json_parser *parser, struct df_bytes body)
{
        const struct ad_json_node *n;
        size_t count;
        const char *why;

        if (ad_json_parse(parser, body, &n, &count, &why) != AD_JSON_OK || count == 0)
                return;
        for (uint32_t i = 1; i < count; i = n[i].next) {
                if (!df_bytes_eq(n[i].key, df_bytes_str("ledger")) || n[i].kind != AD_JSON_OBJECT)
                        continue;
                printf("  ledger ");
                for (uint32_t m = i + 1; m < n[i].next; m = n[m].next)
                        if (n[m].kind == AD_JSON_INT)
                                printf(" %.*s %" PRId64, (int)n[m].key.len,
                                       (const char *)n[m].key.data, n[m].i);
                        else if (n[m].kind == AD_JSON_BOOL)
                                printf(" %.*s %s", (int)n[m].key.len, (const char *)n[m].key.data,
                                       n[m].i ? "yes" : "no");
                putchar('\n');
        }
}

static int look(struct df_http_client *http, struct ad_json_parser *parser, bool tty,
                struct df_error *err)
{
        int64_t to = (df_wall_ms() / MINUTE_MS + 1) * MINUTE_MS;
        char from_text[AD_TIME_TEXT_MAX], to_text[AD_TIME_TEXT_MAX], path[256];
        struct df_buf rows = {0}, quality = {0};
        int status = 0, rc;

        (void)ad_time_text(to - MINUTES_SHOWN * MINUTE_MS, from_text);
        (void)ad_time_text(to, to_text);
        (void)snprintf(path, sizeof(path),
                       "/v1/metrics?window=minute&from=%s&to=%s&group_by=none&format=csv",
                       from_text, to_text);
        rc = df_http_fetch(http, path, NULL, df_bytes(NULL, 0), &status, &rows, err);
        if (rc == 0 && status != 200)
                rc = df_fail(err, DF_EINVAL, "GET /metrics answers %d: %.*s", status, (int)rows.len,
                             (const char *)rows.data);
        if (rc == 0)
                rc = df_http_fetch(http, "/v1/quality", NULL, df_bytes(NULL, 0), &status, &quality,
                                   err);
        df_put_u8(&rows, 0);
        if (rc == 0 && !rows.failed) {
                printf("%s", tty ? "\033[H\033[J" : "");
                print_rows((char *)rows.data);
                if (status == 200)
                        print_ledger(parser, df_buf_bytes(&quality));
                (void)fflush(stdout);
        }
        df_buf_release(&rows);
        df_buf_release(&quality);
        return rc;
}

static int watch(const struct df_config *c, struct df_error *err)
{
        const char *url = df_config_text(c, "url");
        int64_t every = df_config_ms(c, "every"), times = df_config_integer(c, "times");
        struct df_http_client *http = NULL;
        struct ad_json_parser *parser = ad_json_create();
        bool tty = isatty(STDOUT_FILENO) == 1;
        char base[256];
        int rc;

        (void)snprintf(base, sizeof(base), "http://%s", df_config_text(c, "listen"));
        rc = parser ? df_http_client_create(url ? url : base, df_config_text(c, "key"), 10000,
                                            &http, err)
                    : df_fail(err, DF_ENOMEM, "JSON parser");
        for (int64_t n = 0; rc == 0 && (times == 0 || n < times) && !df_process_stopping(); n++) {
                rc = look(http, parser, tty, err);
                if (rc == DF_EAGAIN && times == 0) {
                        fprintf(stderr, "adtally watch: %s; trying again\n", err->text);
                        rc = 0;
                }
                for (int64_t ms = 0; ms < every && !df_process_stopping() && n + 1 != times;
                     ms += 50)
                        (void)usleep(50000);
        }
        df_http_client_destroy(http);
        ad_json_destroy(parser);
        return rc;
}

int ad_command_watch(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        rc = l.arg_count ? df_fail(&err, DF_EINVAL, "it takes no arguments")
                         : df_process_start("watch", false, &err);
        if (rc == 0)
                rc = watch(l.config, &err);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("watch", &err) : DF_EXIT_OK;
}
