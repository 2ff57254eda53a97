/* log.c - the log object: its options, its parts, its numbers. */
#include <stdlib.h>
#include <string.h>

#include "kafka_private.h"

#define DEFAULT_PREFIX "adtally."
#define SESSION_TIMEOUT_MS 10000
#define TRANSACTION_TIMEOUT_MS 30000
#define PRODUCE_TIMEOUT_MS 30000

static const struct df_log_ops log_ops;

bool df_kafka_is(const struct df_log *log)
{
        return log->ops == &log_ops;
}

struct dfk_kafka *dfk_kafka_of(const struct df_log *log)
{
        df_check(df_kafka_is(log));
        return (struct dfk_kafka *)(uintptr_t)log;
}

static void log_close(struct df_log *log)
{
        struct dfk_kafka *k = dfk_kafka_of(log);

        dfk_writers_close(k);
        dfk_readers_close(k);
        dfk_topics_close(k);
        for (size_t i = 0; k->options.settings && i < k->options.setting_count; i++) {
                free((void *)(uintptr_t)k->options.settings[i].name);
                free((void *)(uintptr_t)k->options.settings[i].value);
        }
        free((void *)(uintptr_t)k->options.settings);
        free((void *)(uintptr_t)k->options.brokers);
        free((void *)(uintptr_t)k->options.prefix);
        free(k);
}

static int32_t or_default(int32_t v, int32_t value)
{
        return v > 0 ? v : value;
}

static int copy_options(struct dfk_kafka *k, const struct df_kafka_options *o, struct df_error *err)
{
        struct df_kafka_setting *settings = calloc(o->setting_count + 1, sizeof(*settings));
        bool bad = !settings;
        int rc = 0;

        k->options = *o;
        k->options.settings = settings;
        k->options.brokers = strdup(o->brokers);
        k->options.prefix = strdup(o->prefix ? o->prefix : DEFAULT_PREFIX);
        bad |= !k->options.brokers || !k->options.prefix;
        for (size_t i = 0; !bad && i < o->setting_count; i++) {
                settings[i].name = strdup(o->settings[i].name);
                settings[i].value = strdup(o->settings[i].value);
                bad |= !settings[i].name || !settings[i].value;
        }
        if (bad)
                return df_fail(err, DF_ENOMEM, "Kafka settings");
        k->options.session_timeout_ms = or_default(o->session_timeout_ms, SESSION_TIMEOUT_MS);
        k->options.transaction_timeout_ms =
                or_default(o->transaction_timeout_ms, TRANSACTION_TIMEOUT_MS);
        k->options.produce_timeout_ms = or_default(o->produce_timeout_ms, PRODUCE_TIMEOUT_MS);
        for (size_t i = 0; rc == 0 && i < o->setting_count; i++)
                rc = dfk_setting_check(o->settings[i].name, o->settings[i].value, err);
        return rc;
}

int df_kafka_open(const struct df_kafka_options *options, struct df_log **ret, struct df_error *err)
{
        struct dfk_kafka *k = calloc(1, sizeof(*k));
        int rc;

        if (!k)
                return df_fail(err, DF_ENOMEM, "Kafka log");
        k->base.ops = &log_ops;
        rc = copy_options(k, options, err);
        if (rc == 0)
                rc = dfk_readers_open(k, err);
        if (rc == 0)
                rc = dfk_writers_open(k, err);
        if (rc == 0)
                rc = dfk_topics_open(k, err);
        if (rc < 0) {
                log_close(&k->base);
                return rc;
        }
        *ret = &k->base;
        return 0;
}

void df_kafka_render(struct df_log *log, struct df_buf *b)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        const struct {
                const char *name;
                atomic_uint_least64_t *n;
        } all[] = {{"producers_replaced", &k->counts.producers_replaced},
                   {"transactions", &k->counts.transactions},
                   {"transactions_aborted", &k->counts.aborts},
                   {"ownership_lost", &k->counts.lost},
                   {"fenced", &k->counts.fenced},
                   {"group_rejoins", &k->counts.rejoins}};

        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
                df_buf_printf(b, "adtally_kafka_%s_total %llu\n", all[i].name,
                              (unsigned long long)atomic_load(all[i].n));
}

static const struct df_log_ops log_ops = {
        .topic_create = dfk_topic_create,
        .topic_list = dfk_topic_list,
        .writer_open = dfk_writer_open,
        .append = dfk_append,
        .writer_close = dfk_writer_close,
        .reader_open = dfk_reader_open,
        .poll = dfk_poll,
        .release = dfk_release,
        .position = dfk_position,
        .bounds = dfk_bounds,
        .seen_end = dfk_seen_end,
        .offset_at = dfk_offset_at,
        .topic_delete = dfk_topic_delete,
        .reader_close = dfk_reader_close,
        .close = log_close,
};
