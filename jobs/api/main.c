/* main.c - the api job: rollups and the bill into their views, and the numbers over HTTP. */
#include <limits.h>
#include <poll.h>
#include <stdlib.h>

#include "df/archive.h"
#include "df/run.h"
#include "df/trace.h"
#include "jobs/api/serve.h"
#include "jobs/common/archive.h"
#include "jobs/common/prices.h"
#include "jobs/common/settings.h"

#define TICK_MS 1000
#define DRAIN_MS 8000

static const char usage[] = "adtally-api: serve the numbers (run by `adtally up`)\n"
                            "Usage: adtally-api --data DIR [SETTINGS]\n";

struct job {
        struct df_log *log, *source;
        struct df_objects *objects; /* the archive; NULL: there is none */
        struct ad_prices *prices;
        struct ad_zones *zones;
        struct ad_access *access;
        struct ad_follow *follow;
        struct ad_books_follow *books;
        struct ad_accounts *accounts;
        struct ad_api *api;
        struct df_status *status;
};

static void render(void *arg, struct df_buf *b)
{
        struct job *j = arg;

        ad_follow_render(j->follow, b);
        ad_books_render(j->books, b);
        ad_api_render(j->api, b);
}

static int start_follow(const struct df_config *c, struct job *j, struct df_error *err)
{
        struct ad_follow_options o = {
                .data_dir = df_config_text(c, "data"),
                .log = j->log,
                .groupings = &ad_groupings_default,
                .keep_minutes_ms = df_config_ms(c, "keep-minutes"),
                .keep_quarters_ms = df_config_ms(c, "keep-hours"),
        };
        int rc = ad_zones_get(j->zones, df_config_text(c, "time-zone"), &o.account_zone, err);

        if (rc < 0) {
                (void)df_wrap(err, "--time-zone");
                err->code = DF_EINVAL; /* of the settings, whatever it is of the file */
                return DF_EINVAL;
        }
        return ad_follow_start(&o, &j->follow, err);
}

static int start_accounts(const struct df_config *c, struct job *j, struct df_error *err)
{
        const struct ad_zone *zone;
        int rc = ad_zones_get(j->zones, df_config_text(c, "time-zone"), &zone, err);

        if (rc == 0)
                rc = ad_accounts_open(df_config_text(c, "accounts"), j->zones, zone, &j->accounts,
                                      err);
        return rc;
}

/* The api stops the commands, also when it cannot start. */
static int start_api(const struct df_config *c, struct job *j, struct df_error *err)
{
        struct ad_api_commands_options commands = {.log = j->log};
        struct ad_api_options o = {
                .follow = j->follow,
                .books = j->books,
                .zones = j->zones,
                .access = j->access,
                .log = j->log,
                .source = j->source,
                .accounts = j->accounts,
                .data_dir = df_config_text(c, "data"),
                .objects = j->objects,
                .listen_fd = (int)df_config_integer(c, "listen-fd"),
                .address = df_config_text(c, "listen"),
                .peer_fd = (int)df_config_integer(c, "peer-fd"),
                .http_threads = (uint32_t)df_config_integer(c, "http-threads"),
                .connections_max = (uint32_t)df_config_integer(c, "connections-max"),
                .connections_per_address =
                        (uint32_t)df_config_integer(c, "connections-per-address"),
                .in_flight_max = df_config_bytes(c, "in-flight-max"),
        };
        int rc = ad_api_commands_start(&commands, &o.commands, err);

        ad_fill_params(c, &o.params);
        ad_fill_rules(c, &o.rules);
        o.params.price_table = ad_prices_get;
        o.params.price_arg = j->prices;
        if (rc == 0)
                rc = ad_api_create(&o, &j->api, err);
        if (rc == 0)
                rc = ad_api_listen(j->api, err);
        if (rc == 0)
                df_trace(DF_INFO, "main", "serving port=%u", ad_api_port(j->api));
        return rc;
}

/* What receipts read. */
static int open_source(const struct df_config *c, struct job *j, struct df_error *err)
{
        int rc = ad_prices_open(df_config_text(c, "data"), &j->prices, err);

        j->source = j->log;
        if (rc < 0 || ad_archive_is_off(c))
                return rc;
        rc = ad_archive_open_store(c, &j->objects, err);
        return rc == 0 ? df_archive_log_open(j->log, j->objects, &j->source, err) : rc;
}

static void close_source(struct job *j)
{
        if (j->source != j->log)
                df_log_close(j->source);
        df_objects_close(j->objects);
        ad_prices_close(j->prices);
}

static void serve(struct job *j)
{
        while (!df_process_stopping()) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};
                struct df_error err = {0};

                (void)poll(&p, 1, TICK_MS); /* an early wake-up is harmless */
                if (ad_access_refresh(j->access, &err) < 0)
                        df_trace(DF_ERROR, "keys", "code=%s: %s", df_err_code(err.code), err.text);
                if (ad_accounts_refresh(j->accounts, &err) < 0)
                        df_trace(DF_ERROR, "accounts", "code=%s: %s", df_err_code(err.code),
                                 err.text);
        }
}

static int run(const struct df_config *c, struct df_error *err)
{
        struct job j = {0};
        int rc = ad_open_log(c, &j.log, err);

        if (rc == 0)
                rc = ad_create_topics(j.log, (uint32_t)df_config_integer(c, "partitions"), err);
        if (rc == 0)
                rc = ad_zones_create(NULL, &j.zones, err);
        if (rc == 0)
                rc = ad_access_open(df_config_text(c, "keys"), df_config_text(c, "listen"),
                                    &j.access, err);
        if (rc == 0)
                rc = open_source(c, &j, err);
        if (rc == 0)
                rc = start_follow(c, &j, err);
        if (rc == 0)
                rc = ad_books_follow_start(df_config_text(c, "data"), j.log,
                                           df_config_ms(c, "reconcile-every"), &j.books, err);
        if (rc == 0)
                rc = start_accounts(c, &j, err);
        if (rc == 0)
                rc = start_api(c, &j, err);
        if (rc == 0)
                rc = df_status_start(df_config_text(c, "data"), "api", render, &j, &j.status, err);
        if (rc == 0) {
                serve(&j);
                df_status_stop(j.status); /* it looks at the server that stops now */
                ad_api_stop(j.api, DRAIN_MS);
        }
        ad_api_destroy(j.api);
        ad_accounts_close(j.accounts);
        ad_books_follow_stop(j.books);
        ad_follow_stop(j.follow);
        ad_access_close(j.access);
        ad_zones_destroy(j.zones);
        close_source(&j);
        df_log_close(j.log);
        return rc;
}

int main(int argc, char **argv)
{
        return ad_job_main("api", usage, run, argc, argv);
}
