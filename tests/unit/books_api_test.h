/* books_api_test.h - the API over a log of its own and the view of the bill beside it. */
#ifndef ADTALLY_TESTS_BOOKS_API_TEST_H
#define ADTALLY_TESTS_BOOKS_API_TEST_H

#include "unit.h"

#include "df/filelog.h"
#include "df/run.h"
#include "jobs/api/ask.h"
#include "jobs/common/settings.h"
#include "state_test.h"

static char dir[256];
static struct df_log *log_;
static struct ad_zones *zones;
static struct ad_accounts *accounts;
static struct ad_access *access_rules;
static struct ad_books_follow *books;
static struct ad_api *api;
static struct df_http_client *client;

static inline int on_billing(void *arg, const struct df_topic_info *info)
{
        if (strcmp(info->name, AD_TOPIC_BILLING) == 0)
                *(uint64_t *)arg = info->generation;
        return 0;
}

static inline void open_log(void)
{
        struct df_filelog_options o = {
                .segment_bytes = 1 << 20, .reserve_bytes = 4096, .min_free_bytes = 1};
        char path[300];

        (void)temp_dir(dir);
        (void)snprintf(path, sizeof(path), "%s/log", dir);
        ok(df_mkdirs(path, err));
        ok(df_filelog_open(path, &o, &log_, err));
        ok(ad_create_topics(log_, 2, err));
}

static inline struct ad_billing *open_billing(void)
{
        struct ad_billing *b = NULL;
        char path[300], why[256];
        uint64_t generation = 0;

        ok(df_log_topic_list(log_, AD_TOPIC_BILLING, on_billing, &generation, err));
        (void)snprintf(path, sizeof(path), "%s/view-billing", dir);
        ok(ad_billing_open(path, generation, &b, why, err));
        return b;
}

/* rules: a file of accounts, or NULL. timeout_ms: of the client. */
static inline void serve_books(const char *rules, int64_t timeout_ms)
{
        struct ad_api_commands_options commands = {.log = log_};
        struct ad_api_options o = {
                .listen_fd = -1, .address = "127.0.0.1:0", .peer_fd = -1, .http_threads = 1};
        const struct ad_zone *utc;
        char base[64];

        ok(ad_zones_create(NULL, &zones, err));
        ok(ad_zones_get(zones, "UTC", &utc, err));
        ok(ad_accounts_open(rules, zones, utc, &accounts, err));
        ok(ad_access_open(NULL, "127.0.0.1:0", &access_rules, err));
        ok(ad_books_follow_start(dir, log_, 3600000, &books, err));
        ok(ad_api_commands_start(&commands, &o.commands, err));
        o.books = books;
        o.zones = zones;
        o.accounts = accounts;
        o.access = access_rules;
        o.data_dir = dir;
        ok(ad_api_create(&o, &api, err));
        ok(ad_api_listen(api, err));
        (void)snprintf(base, sizeof(base), "http://127.0.0.1:%u", ad_api_port(api));
        ok(df_http_client_create(base, NULL, timeout_ms, &client, err));
}

static inline void end_books(void)
{
        df_http_client_destroy(client);
        ad_api_stop(api, 2000);
        ad_api_destroy(api);
        ad_books_follow_stop(books);
        ad_accounts_close(accounts);
        ad_access_close(access_rules);
        ad_zones_destroy(zones);
        df_log_close(log_);
        remove_dir(dir);
}

#endif
