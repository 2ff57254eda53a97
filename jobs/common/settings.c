#include "jobs/common/settings.h"

#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "df/run.h"
#include "df/segment.h"
#include "df/trace.h"

#define MINUTE_MS 60000LL
#define HOUR_MS 3600000LL
#define DAY_MS 86400000LL
#define KAFKA_SETTINGS_MAX 64

const struct df_setting ad_settings[] = {
        {"data", DF_TEXT, "adtally-data", .arg = "DIR", .help = "the data directory"},
        {"listen", DF_TEXT, "127.0.0.1:8480", .arg = "HOST:PORT", .help = "product HTTP port"},
        {"admin", DF_TEXT, "127.0.0.1:8481", .arg = "HOST:PORT",
         .help = "admin port: Prometheus /metrics, /healthz, /readyz"},
        {"log", DF_TEXT, NULL, .arg = "file:DIR|kafka:HOST:PORT,...",
         .help = "the log (default file:DATA/log)"},
        {"keys", DF_TEXT, NULL, .arg = "FILE",
         .help = "API keys; without it only loopback requests are served, as tenant `default`"},
        {"partitions", DF_INTEGER, "4", 1, DF_PARTITIONS_MAX, .help = "of every topic; fixed"},
        {"workers", DF_INTEGER, "2", 1, 64, .help = "threads of the realtime job"},
        {"commit-threads", DF_INTEGER, "4", 1, 64,
         .help = "checkpoints that a realtime process commits at the same time"},
        {"http-threads", DF_INTEGER, "1", 1, 16, .help = "event loops of an HTTP job"},

        {"grace", DF_DURATION, "15m", 0, DAY_MS, .help = "after a window's end until it is final"},
        {"out-of-orderness", DF_DURATION, "10s", 0, HOUR_MS,
         .help = "how far the watermark stays behind the newest event"},
        {"accepted-age", DF_DURATION, "7d", MINUTE_MS, 400 * DAY_MS,
         .help = "older events are quarantined"},
        {"dedupe-horizon", DF_INTEGER, "24", 1, 24 * 30, .arg = "HOURS",
         .help = "an event_id counts once within so many hours"},
        {"billing-horizon", DF_INTEGER, "768", 1, 87600, .arg = "HOURS",
         .help = "the bill counts an event_id once within so many hours"},
        {"dedupe-open-ids", DF_INTEGER, "1048576", 1024, 1 << 28,
         .help = "ids of an hour in memory before they spill"},
        {"cell-cap", DF_INTEGER, "100000", 1, 1 << 24,
         .help = "keys a tenant, minute, grouping and source; more fold into __other__"},
        {"pricing", DF_CHOICE, "client", .choices = "client|table|client_else_table",
         .help = "where a cost comes from"},
        {"currency", DF_TEXT, "USD", .arg = "CODE",
         .help = "of the cells of events that state no currency and no money"},
        {"time-zone", DF_TEXT, "UTC", .arg = "ZONE", .help = "the account's: its days are kept"},

        {"accounts", DF_TEXT, NULL, .arg = "FILE",
         .help = "who closes periods, and in which zone (default: each advertiser, --time-zone)"},

        {"checkpoint-min", DF_DURATION, "500ms", 10, MINUTE_MS, .help = "shortest interval"},
        {"checkpoint-max", DF_DURATION, "10s", 10, HOUR_MS, .help = "longest interval"},
        {"batch-delay", DF_DURATION, "5ms", 0, 1000,
         .help = "a busy ingest waits at most so long for more events"},
        {"heartbeat", DF_DURATION, "2s", 10, MINUTE_MS, .help = "of ingest, in every partition"},
        {"body-max", DF_SIZE, "16MiB", 1024, AD_BODY_BYTES_MAX, .help = "of a POST /events"},
        {"in-flight-max", DF_SIZE, "256MiB", 1 << 20, 1LL << 36,
         .help = "request bytes of a job before it answers 503"},
        {"connections-max", DF_INTEGER, "10000", 1, 1 << 20, .help = "of a job"},
        {"connections-per-address", DF_INTEGER, "0", 0, 1 << 20, .help = "0 = no limit"},

        {"seal-user-ids", DF_BOOL, "true",
         .help = "ingest stores user_id encrypted, with a key of each user's own"},
        {"keep-log", DF_DURATION, "7d", HOUR_MS, 4000 * DAY_MS, .help = "raw events on the log"},
        {"keep-minutes", DF_DURATION, "14d", HOUR_MS, 4000 * DAY_MS, .help = "minute rows"},
        {"keep-hours", DF_DURATION, "400d", DAY_MS, 4000 * DAY_MS, .help = "quarter-hour rows"},
        {"segment-size", DF_SIZE, "64MiB", 4096, 1LL << 34, .help = "of the file log"},
        {"disk-min-free", DF_SIZE, "128MiB", 0, 1LL << 44,
         .help = "below it new events are refused"},
        {"disk-reserve", DF_SIZE, "64MiB", 0, 1LL << 40,
         .help = "freed when the disk is full, so that checkpoints still work"},

        {"kafka-prefix", DF_TEXT, "adtally.", .arg = "TEXT",
         .help = "of topics, groups and transactional ids on the cluster"},
        {"kafka-replication", DF_INTEGER, "0", 0, 100,
         .help = "of topics made there; 0 = the cluster's default"},
        {"kafka-session-timeout", DF_DURATION, "10s", 1000, 30 * MINUTE_MS,
         .help = "after it a silent realtime process loses its partitions"},
        {"kafka-transaction-timeout", DF_DURATION, "30s", 2000, 15 * MINUTE_MS,
         .help = "of a commit; a process that hangs in one twice as long ends"},
        {"kafka.*", DF_TEXT, NULL, .arg = "VALUE",
         .help = "a setting of librdkafka for TLS, SASL or time-outs, as kafka.ssl.ca.location",
         .secret_words = "password|secret|.pem|oauthbearer.config"},
        {"realtime-processes", DF_INTEGER, "1", 1, AD_REALTIME_PROCESSES_MAX,
         .help = "on Kafka: of this machine, sharing the partitions"},
        {"instance", DF_TEXT, "main", .arg = "NAME",
         .help = "on Kafka: each machine and realtime process has its own"},
        {"checkpoint-store", DF_TEXT, NULL, .arg = "DIR",
         .help = "shared by all machines, so that any of them can take a partition over"},

        {"archive", DF_TEXT, NULL, .arg = "dir:PATH|s3:BUCKET[/PREFIX]|none",
         .help = "where raw events are kept (default dir:DATA/archive)"},
        {"archive-segment", DF_SIZE, "64MiB", DF_SEGMENT_LIMIT_MIN, DF_SEGMENT_LIMIT_MAX,
         .help = "of the archive, uncompressed; fixed"},
        {"s3-endpoint", DF_TEXT, NULL, .arg = "URL", .help = "of the store (default: AWS)"},
        {"s3-region", DF_TEXT, "us-east-1", .arg = "NAME", .help = "of the store"},
        {"s3-access-key", DF_TEXT, NULL, .arg = "ID", .help = "of the store", .secret = true},
        {"s3-secret-key", DF_TEXT, NULL, .arg = "SECRET", .help = "of the store", .secret = true},
        {"s3-session-token", DF_TEXT, NULL, .arg = "TOKEN", .help = "of the store, if it has one",
         .secret = true},

        {"reconcile", DF_CHOICE, "on", .choices = "on|off",
         .help = "whether this machine makes the bill; of several on Kafka one does"},
        {"reconcile-every", DF_DURATION, "1h", 100, 7 * DAY_MS, .help = "a run of what is new"},
        {"reconcile-nightly", DF_TEXT, "02:10", .arg = "HH:MM|off",
         .help = "UTC: a run that compares with realtime all that the log still has"},
        {"reconcile-threads", DF_INTEGER, "1", 1, 64, .help = "of a run"},

        {"quiet", DF_BOOL, "false", .help = "no progress"},
        {"json", DF_BOOL, "false", .help = "machine-readable output"},
        {"log-level", DF_CHOICE, "info", .choices = "debug|info|warn|error",
         .help = "of log lines"},
        /* Between `adtally up` and its children. */
        {"supervised", DF_BOOL, "false", .help = "end with the parent process"},
        {"listen-fd", DF_INTEGER, "-1", -1, 1 << 20, .help = "an inherited listening socket"},
        {"peer-fd", DF_INTEGER, "-1", -1, 1 << 20,
         .help = "an inherited end of the socket pair to the other HTTP job"},
};
const size_t ad_setting_count = sizeof(ad_settings) / sizeof(ad_settings[0]);

int ad_data_path(const struct df_config *c, const char *name, char *ret, struct df_error *err)
{
        const char *dir = df_config_text(c, "data");

        if (snprintf(ret, PATH_MAX, "%s/%s", dir, name) >= PATH_MAX)
                return df_fail(err, DF_EINVAL, "--data %s: the path is too long", dir);
        return 0;
}

static int open_file_log(const struct df_config *c, const char *dir, struct df_log **ret,
                         struct df_error *err)
{
        struct df_filelog_options o = {
                .segment_bytes = df_config_bytes(c, "segment-size"),
                .reserve_bytes = df_config_bytes(c, "disk-reserve"),
                .min_free_bytes = df_config_bytes(c, "disk-min-free"),
        };
        char path[PATH_MAX];
        int rc = 0;

        if (dir)
                (void)snprintf(path, sizeof(path), "%s", dir);
        else
                rc = ad_data_path(c, "log", path, err);
        if (rc == 0)
                rc = df_mkdirs(path, err);
        return rc < 0 ? rc : df_filelog_open(path, &o, ret, err);
}

static int open_kafka(const struct df_config *c, const char *brokers, struct df_log **ret,
                      struct df_error *err)
{
        static const char *const kept[] = {AD_TOPIC_COMMANDS, AD_TOPIC_RUNS, AD_TOPIC_BILLING,
                                           NULL};
        struct df_kafka_setting settings[KAFKA_SETTINGS_MAX];
        struct df_kafka_options o = {
                .brokers = brokers,
                .prefix = df_config_text(c, "kafka-prefix"),
                .replication = (int32_t)df_config_integer(c, "kafka-replication"),
                .retention_ms = df_config_ms(c, "keep-log"),
                .retention_min_ms = (df_config_integer(c, "dedupe-horizon") + 3) * HOUR_MS,
                .session_timeout_ms = (int32_t)df_config_ms(c, "kafka-session-timeout"),
                .transaction_timeout_ms = (int32_t)df_config_ms(c, "kafka-transaction-timeout"),
                .kept = kept,
                .settings = settings,
        };
        const char *name, *value;

        while ((value = df_config_member(c, "kafka.*", o.setting_count, &name))) {
                if (o.setting_count == KAFKA_SETTINGS_MAX)
                        return df_fail(err, DF_ELIMIT, "more than %d kafka.* settings",
                                       KAFKA_SETTINGS_MAX);
                settings[o.setting_count++] = (struct df_kafka_setting){name, value};
        }
        return df_kafka_open(&o, ret, err);
}

bool ad_log_is_file(const struct df_config *c)
{
        const char *log = df_config_text(c, "log");

        return !log || strncmp(log, "file:", 5) == 0;
}

int ad_open_log_at(const struct df_config *c, const char *where, struct df_log **ret,
                   struct df_error *err)
{
        if (!where)
                return open_file_log(c, NULL, ret, err);
        if (strncmp(where, "file:", 5) == 0 && where[5])
                return open_file_log(c, where + 5, ret, err);
        if (strncmp(where, "kafka:", 6) == 0 && where[6])
                return open_kafka(c, where + 6, ret, err);
        return df_fail(err, DF_EINVAL, "log %s: expected file:DIR or kafka:HOST:PORT,...", where);
}

int ad_open_log(const struct df_config *c, struct df_log **ret, struct df_error *err)
{
        return ad_open_log_at(c, df_config_text(c, "log"), ret, err);
}

int ad_create_topics(struct df_log *log, uint32_t partitions, struct df_error *err)
{
        const struct {
                const char *name;
                uint32_t partitions;
        } topics[] = {
                {AD_TOPIC_EVENTS, partitions}, {AD_TOPIC_ROLLUPS, partitions},
                {AD_TOPIC_LATE, partitions},   {AD_TOPIC_QUARANTINE, partitions},
                {AD_TOPIC_COMMANDS, 1},        {AD_TOPIC_RUNS, 1},
                {AD_TOPIC_BILLING, 1},
        };

        for (size_t i = 0; i < sizeof(topics) / sizeof(topics[0]); i++) {
                int rc = df_log_topic_create(log, topics[i].name, topics[i].partitions, err);

                if (rc < 0)
                        return rc;
        }
        return 0;
}

static enum ad_pricing pricing(const struct df_config *c)
{
        const char *p = df_config_text(c, "pricing");

        if (strcmp(p, "table") == 0)
                return AD_PRICE_TABLE;
        return strcmp(p, "client") == 0 ? AD_PRICE_CLIENT : AD_PRICE_CLIENT_ELSE_TABLE;
}

void ad_fill_params(const struct df_config *c, struct ad_params *ret)
{
        *ret = (struct ad_params){
                .grace_ms = df_config_ms(c, "grace"),
                .horizon_hours = (uint32_t)df_config_integer(c, "dedupe-horizon"),
                .dedupe_open_ids = (size_t)df_config_integer(c, "dedupe-open-ids"),
                .cell_cap = (uint32_t)df_config_integer(c, "cell-cap"),
                .groupings = &ad_groupings_default,
                .pricing = pricing(c),
        };
}

void ad_fill_rules(const struct df_config *c, struct df_clock_rules *ret)
{
        *ret = (struct df_clock_rules){
                .out_of_orderness_ms = df_config_ms(c, "out-of-orderness"),
                .receive_ahead_max_ms = AD_RECEIVE_AHEAD_MAX_MS,
                .receive_behind_max_ms = AD_RECEIVE_BEHIND_MAX_MS,
                .future_max_ms = AD_FUTURE_MAX_MS,
                .accepted_age_ms = df_config_ms(c, "accepted-age"),
        };
}

uint64_t ad_config_digest(const struct df_config *c)
{
        static const char *const shaping[] = {"grace",          "out-of-orderness", "accepted-age",
                                              "dedupe-horizon", "cell-cap",         "pricing"};
        struct df_buf b = {0};
        uint64_t digest;

        for (size_t i = 0; i < sizeof(shaping) / sizeof(shaping[0]); i++) {
                const char *name = shaping[i];
                int64_t v = strcmp(name, "pricing") == 0 ? (int64_t)pricing(c)
                            : strcmp(name, "dedupe-horizon") == 0 || strcmp(name, "cell-cap") == 0
                                    ? df_config_integer(c, name)
                                    : df_config_ms(c, name);

                df_buf_printf(&b, "%s=%" PRId64 "\n", name, v);
        }
        df_buf_printf(&b, "groupings=%u\n", ad_groupings_default.version);
        df_check(!b.failed);
        digest = df_hash64(df_buf_bytes(&b));
        df_buf_release(&b);
        return digest;
}

bool ad_main_settings(int argc, char **argv, const char *usage, struct df_config **ret,
                      const char **ret_free, int *ret_free_count, int *ret_exit)
{
        struct df_error err = {0};
        bool help = false;

        if (df_config_load(ad_settings, ad_setting_count, argc - 1, argv + 1, ret, ret_free,
                           ret_free_count, &help, &err) < 0) {
                fprintf(stderr, "%s: %s\n", argv[0], err.text);
                *ret_exit = DF_EXIT_USAGE;
                return false;
        }
        if (help) {
                printf("%s\nSettings (also ADTALLY_NAME in the environment, or name = value in the "
                       "file "
                       "of --config FILE):\n",
                       usage);
                df_config_help(ad_settings, ad_setting_count, stdout);
                df_config_release(*ret);
                *ret_exit = DF_EXIT_OK;
                return false;
        }
        if (!df_currency_known(df_bytes_str(df_config_text(*ret, "currency")))) {
                fprintf(stderr, "%s: --currency %s: not an ISO 4217 code\n", argv[0],
                        df_config_text(*ret, "currency"));
                df_config_release(*ret);
                *ret_exit = DF_EXIT_CONFIG;
                return false;
        }
        df_trace_level(df_config_text(*ret, "log-level"));
        return true;
}

int ad_job_main(const char *job, const char *usage,
                int (*run)(const struct df_config *c, struct df_error *err), int argc, char **argv)
{
        const char **args = calloc((size_t)argc + 1, sizeof(*args));
        struct df_config *c = NULL;
        struct df_error err = {0};
        int count = 0, code = DF_EXIT_SOFTWARE, rc;

        if (args && ad_main_settings(argc, argv, usage, &c, args, &count, &code)) {
                rc = df_process_start(job, df_config_bool(c, "supervised"), &err);
                if (rc == 0)
                        rc = run(c, &err);
                if (rc < 0)
                        df_trace(DF_ERROR, "main", "code=%s: %s", df_err_code(rc), err.text);
                df_config_release(c);
                code = df_exit_code(rc);
        }
        free(args);
        return code;
}
