/* import.c - `adtally import`: options, waiting, and what is said at the end. */
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/net.h"
#include "jobs/adtally/command.h"
#include "jobs/adtally/import.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define POLL_US 200000
#define HTTP_TIMEOUT_MS 10000

static const char usage[] =
        "adtally import: count the history in a CSV or NDJSON file, each row once\n"
        "Usage: adtally import FILE --map COLUMN=FIELD,... [OPTIONS]\n\n"
        "--map: COLUMN=FIELD takes a column (NDJSON: a key, nested ones as a.b); FIELD:=VALUE is "
        "a\n"
        "constant; other columns are ignored; a backslash quotes , = : and itself. FIELD is "
        "event_id,\n"
        "type, event_time, advertiser_id, campaign_id, ad_id, publisher_id, placement_id, "
        "user_id,\n"
        "country, device, click_id, cost_micros, payout_micros, conversion_value_micros, cost, "
        "payout,\n"
        "conversion_value (decimal units), currency, conversion_value_currency, attributes.NAME.\n"
        "event_time and type are needed. Types: impression, view, imp, show; click; conversion,\n"
        "purchase, order, sale, install; more with --type. Times: RFC 3339, YYYY-MM-DD H:MM[:SS] "
        "in\n"
        "--time-zone, seconds or milliseconds since 1970.\n"
        "--price-model cpm=COLUMN@impression: an impression costs a thousandth of the column, "
        "other\n"
        "rows nothing; cpc=COLUMN@click and cpa=COLUMN@conversion: the column.\n\n"
        "The file is checked as a whole before anything is written. Importing it again, or with "
        "rows\n"
        "added, counts only what is new (within --dataset, by default: same header and options); "
        "a\n"
        "row without event_id is known by its content, equal rows by their number. Killed in the\n"
        "middle, the same command goes on; --abort voids what it wrote. It works with and without "
        "a\n"
        "running server: one that runs counts it at once, else the next start does.\n"
        "New rows whose time lies between the first and the last live event of the tenant, or in "
        "the\n"
        "range of another dataset, are refused (import_overlaps): they may be counted already. "
        "With\n"
        "--as-backfill they are sent like live events, whose rules (--accepted-age, lateness) "
        "apply.\n";
static const struct df_setting own[] = {
        {"map", DF_TEXT, NULL, .arg = "LIST", .help = "COLUMN=FIELD,FIELD:=VALUE,..."},
        {"type", DF_TEXT, NULL, .arg = "LIST", .help = "VALUE=impression|click|conversion,..."},
        {"price-model", DF_TEXT, NULL, .arg = "MODEL", .help = "cpm=COLUMN@impression, ..."},
        {"tenant", DF_TEXT, "default", .arg = "T", .help = "whose rows"},
        {"dataset", DF_TEXT, NULL, .arg = "NAME", .help = "what this file is a part of"},
        {"skip-bad", DF_BOOL, "false", .help = "leave bad rows out instead of refusing the file"},
        {"as-backfill", DF_BOOL, "false", .help = "send overlapping rows like live events"},
        {"dry-run", DF_BOOL, "false", .help = "check only"},
        {"abort", DF_BOOL, "false", .help = "void the half import of this dataset"},
        {"wait", DF_DURATION, "0", 0, 86400000, .help = "until the server has counted it"},
        {"url", DF_TEXT, NULL, .arg = "URL", .help = "of the product port (default: --listen)"},
        {"key", DF_TEXT, NULL, .arg = "ID.SECRET", .help = "API key", .secret = true},
};
static const char *const shared[] = {"data",      "listen",   "log",           "partitions",
                                     "time-zone", "currency", "seal-user-ids", "quiet",
                                     "json",      NULL};

static int find_partitions(void *arg, const struct df_topic_info *info)
{
        uint32_t *ret = arg;

        if (strcmp(info->name, AD_TOPIC_EVENTS) == 0)
                *ret = info->partitions;
        return 0;
}

/* ---- waiting until the view shows the generation as closed ---- */

static bool source_closed(const struct ad_json_node *n, uint32_t at, const char *generation)
{
        bool ours = false, closed = false;

        for (uint32_t i = at + 1; i < n[at].next; i = n[i].next) {
                if (df_bytes_eq(n[i].key, df_bytes_str("generation")))
                        ours = df_bytes_eq(n[i].text, df_bytes_str(generation));
                if (df_bytes_eq(n[i].key, df_bytes_str("closed")))
                        closed = n[i].i;
        }
        return ours && closed;
}

static uint32_t count_closed(struct ad_json_parser *parser, struct df_bytes body,
                             const char *generation)
{
        const struct ad_json_node *n;
        const char *why;
        size_t count;
        uint32_t closed = 0;

        if (ad_json_parse(parser, body, &n, &count, &why) != AD_JSON_OK || count == 0)
                return 0;
        for (uint32_t i = 1; i < n[0].next; i = n[i].next)
                for (uint32_t s = i + 1;
                     df_bytes_eq(n[i].key, df_bytes_str("sources")) && s < n[i].next; s = n[s].next)
                        closed += source_closed(n, s, generation);
        return closed;
}

static int wait_closed(const struct ad_import_options *o, const struct ad_import_summary *s,
                       int64_t wait_ms, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + wait_ms;
        struct ad_json_parser *parser = ad_json_create();
        struct df_http_client *http = NULL;
        struct df_buf body = {0};
        char generation[20];
        bool closed = false;
        int rc = parser ? 0 : df_fail(err, DF_ENOMEM, "JSON parser");

        (void)snprintf(generation, sizeof(generation), "%016" PRIx64, s->generation);
        if (rc == 0)
                rc = df_http_client_create(o->url, o->key, HTTP_TIMEOUT_MS, &http, err);
        while (rc == 0 && !closed) {
                int status = 0;

                df_buf_clear(&body);
                rc = df_http_fetch(http, "/v1/quality", NULL, df_bytes(NULL, 0), &status, &body,
                                   err);
                closed = rc == 0 && status == 200 &&
                         count_closed(parser, df_buf_bytes(&body), generation) ==
                                 o->place.partitions;
                rc = rc == DF_EAGAIN ? 0 : rc;
                if (rc == 0 && !closed && (df_monotonic_ms() > until || df_process_stopping()))
                        rc = df_fail(err, DF_EAGAIN,
                                     "the rows are stored, but %s has not counted them yet",
                                     o->url);
                if (rc == 0 && !closed)
                        (void)usleep(POLL_US);
        }
        df_http_client_destroy(http);
        ad_json_destroy(parser);
        df_buf_release(&body);
        return rc;
}

/* ---- the summary ---- */

static int print_json(const struct ad_import_summary *s, struct df_error *err)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        char text[24];
        int rc;

        (void)snprintf(text, sizeof(text), "%016" PRIx64, s->generation);
        ad_json_open(j);
        ad_json_put_int(j, "rows", s->rows);
        ad_json_put_int(j, "new", s->fresh);
        ad_json_put_int(j, "known", s->known);
        ad_json_put_int(j, "bad", s->bad);
        ad_json_put_int(j, "overlap", s->overlap);
        ad_json_put_int(j, "backfilled", s->backfilled);
        ad_json_put_int(j, "resumed", s->resumed);
        ad_json_put_int(j, "user_ids_left_out", s->user_ids_left_out);
        ad_json_put_bool(j, "written", s->wrote);
        ad_json_put_text(j, "topic", s->topic);
        ad_json_put_text(j, "dataset", s->dataset);
        ad_json_put_text(j, "generation", s->generation ? text : NULL);
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0)
                printf("%.*s\n", (int)b.len, (const char *)b.data);
        df_buf_release(&b);
        return rc;
}

static void print_text(const struct ad_import_summary *s, bool dry_run)
{
        char from[AD_TIME_TEXT_MAX], to[AD_TIME_TEXT_MAX];

        printf("%" PRIu64 " rows: %" PRIu64 " new, %" PRIu64 " already imported", s->rows, s->fresh,
               s->known);
        if (s->bad)
                printf(", %" PRIu64 " bad (left out)", s->bad);
        if (s->overlap)
                printf(", %" PRIu64 " overlapping", s->overlap);
        putchar('\n');
        if (s->resumed)
                printf("went on behind %" PRIu64 " rows that were stored before\n", s->resumed);
        if (s->backfilled)
                printf("%" PRIu64 " sent like live events\n", s->backfilled);
        if (s->fresh) {
                (void)ad_time_text(s->from_ms, from);
                (void)ad_time_text(s->to_ms, to);
                printf("new rows are from %s to %s\n", from, to);
        }
        if (s->user_ids_left_out)
                printf("user_id of %" PRIu64
                       " events was not stored: an import has no keys to seal it "
                       "with (--seal-user-ids)\n",
                       s->user_ids_left_out);
        printf(dry_run    ? "nothing was written (--dry-run)\n"
               : s->wrote ? "stored in topic %s, dataset %s\n"
                          : "nothing to write in topic %s, dataset %s\n",
               s->topic, s->dataset);
}

/* ---- the command ---- */

static int fill(const struct df_config *c, const char *file, struct ad_zones *zones, char base[300],
                struct ad_import_options *o, struct df_error *err)
{
        const char *url = df_config_text(c, "url"), *dataset = df_config_text(c, "dataset");
        const char *tenant = df_config_text(c, "tenant");
        int rc;

        (void)snprintf(base, 300, "http://%s", df_config_text(c, "listen"));
        *o = (struct ad_import_options){
                .file = file,
                .place = {.data = df_config_text(c, "data"),
                          .partitions = (uint32_t)df_config_integer(c, "partitions"),
                          .tenant = df_bytes_str(tenant),
                          .drops_user_ids = df_config_bool(c, "seal-user-ids")},
                .map = {.map = df_config_text(c, "map"),
                        .types = df_config_text(c, "type"),
                        .price_model = df_config_text(c, "price-model"),
                        .currency = df_config_text(c, "currency")},
                .url = url ? url : base,
                .key = df_config_text(c, "key"),
                .as_backfill = df_config_bool(c, "as-backfill"),
                .dry_run = df_config_bool(c, "dry-run"),
                .skip_bad = df_config_bool(c, "skip-bad"),
                .quiet = df_config_bool(c, "quiet"),
                .now_ms = df_wall_ms(),
        };
        if (dataset)
                o->place.dataset = df_bytes_str(dataset);
        if (!o->map.map)
                return df_fail(err, DF_EINVAL, "--map is missing");
        if (tenant[0] == '\0' || strlen(tenant) > AD_ID_MAX)
                return df_fail(err, DF_EINVAL, "--tenant: 1 to %d bytes", AD_ID_MAX);
        if (dataset && (dataset[0] == '\0' || strlen(dataset) > AD_DATASET_MAX))
                return df_fail(err, DF_EINVAL, "--dataset: 1 to %d bytes", AD_DATASET_MAX);
        if (!ad_log_is_file(c))
                return df_fail(
                        err, DF_EINVAL,
                        "imports go to the file log alone so far: import into a data directory "
                        "of its own, with --log file:DIR");
        rc = ad_zones_get(zones, df_config_text(c, "time-zone"), &o->map.zone, err);
        if (rc == 0)
                rc = ad_open_log(c, &o->place.log, err);
        return rc < 0 ? rc
                      : df_log_topic_list(o->place.log, AD_TOPIC_EVENTS, find_partitions,
                                          &o->place.partitions, err);
}

static int abort_import(struct ad_import_options *o, struct df_error *err)
{
        char dataset[AD_DATASET_MAX + 1];
        uint64_t events = 0;
        int rc = 0;

        if (o->place.dataset.len == 0) {
                rc = ad_import_dataset(o, dataset, err);
                o->place.dataset = df_bytes_str(dataset);
        }
        if (rc == 0)
                rc = ad_import_abort(&o->place, &events, err);
        if (rc == 0)
                printf("aborted: %" PRIu64 " stored rows are void\n", events);
        return rc;
}

static int import(const struct df_config *c, const char *file, struct df_error *err)
{
        struct ad_import_summary s = {0};
        struct ad_import_options o = {0};
        struct ad_zones *zones = NULL;
        char base[300];
        int rc = ad_zones_create(NULL, &zones, err);

        if (rc == 0)
                rc = fill(c, file, zones, base, &o, err);
        if (rc == 0 && df_config_bool(c, "abort")) {
                rc = abort_import(&o, err);
        } else if (rc == 0) {
                rc = ad_import_run(&o, &s, err);
                if (s.problems.len)
                        fprintf(stderr, "%.*s", (int)s.problems.len, (const char *)s.problems.data);
                if (rc == 0 && df_config_bool(c, "json"))
                        rc = print_json(&s, err);
                else if (rc == 0)
                        print_text(&s, o.dry_run);
                if (rc == 0 && s.wrote && df_config_ms(c, "wait"))
                        rc = wait_closed(&o, &s, df_config_ms(c, "wait"), err);
        }
        df_buf_release(&s.problems);
        df_log_close(o.place.log);
        ad_zones_destroy(zones);
        return rc;
}

int ad_command_import(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        rc = l.arg_count != 1 ? df_fail(&err, DF_EINVAL, "expected one FILE")
                              : df_process_start("import", false, &err);
        if (rc == 0)
                rc = import(l.config, l.args[0], &err);
        ad_command_release(&l);
        return rc == DF_EINVAL ? ad_command_usage("import", "%s", err.text)
               : rc < 0        ? ad_command_fail("import", &err)
                               : DF_EXIT_OK;
}
