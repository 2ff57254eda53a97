/* client.c - librdkafka handles: the settings that carry the guarantees, and errors in our words.
 * */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/trace.h"
#include "kafka_private.h"

/* K13: what may not be set from outside, and why. */
static const struct {
        const char *name, *why;
} refused[] = {
        {"bootstrap.servers", "--log kafka:HOST:PORT says it"},
        {"metadata.broker.list", "--log kafka:HOST:PORT says it"},
        {"isolation.level", "numbers are made of committed records alone: read_committed"},
        {"enable.auto.commit", "a position is committed with its checkpoint, never by a timer"},
        {"auto.commit.enable", "a position is committed with its checkpoint, never by a timer"},
        {"enable.auto.offset.store", "a position is committed with its checkpoint"},
        {"auto.offset.reset", "a missing offset is refused by name, never skipped: error"},
        {"check.crcs", "a damaged record must not be counted: true"},
        {"acks", "an acknowledged event survives the loss of a broker: all"},
        {"request.required.acks", "an acknowledged event survives the loss of a broker: all"},
        {"enable.idempotence", "a retry must not write twice, nor out of order: true"},
        {"partition.assignment.strategy", "range; cooperative ones lose assignments in 2.0"},
        {"group.id", "it is made of --kafka-prefix and the job"},
        {"group.instance.id", "it is made of --kafka-prefix and --instance"},
        {"transactional.id", "one a partition, so that owners fence each other"},
        {"transaction.timeout.ms", "--kafka-transaction-timeout says it, the watchdog must know"},
        {"session.timeout.ms", "--kafka-session-timeout says it"},
        {"message.timeout.ms", "it must stay below the transaction's time-out"},
        {"delivery.timeout.ms", "it must stay below the transaction's time-out"},
        {"enable.partition.eof", "a bounded read ends on it"},
        {"enable.gapless.guarantee", "the producer is replaced instead"},
        {"allow.auto.create.topics", "a topic has a generation and settings: Adtally makes it"},
        {"test.mock.num.brokers", "there would be no broker, and nothing stored"},
        {"plugin.library.paths", "it loads code that may change all of this"},
        {"heartbeat.interval.ms", "it follows --kafka-session-timeout"},
        {"max.poll.interval.ms", "a restore may take minutes; the watchdog ends what hangs"},
};

int dfk_setting_check(const char *name, const char *value, struct df_error *err)
{
        rd_kafka_conf_t *conf;
        char text[256];
        int rc;

        for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
                if (strcmp(refused[i].name, name) == 0)
                        return df_fail(err, DF_EINVAL, "kafka.%s cannot be set: %s (K13)", name,
                                       refused[i].why);
        conf = rd_kafka_conf_new();
        rc = rd_kafka_conf_set(conf, name, value, text, sizeof(text)) == RD_KAFKA_CONF_OK
                     ? 0
                     : df_fail(err, DF_EINVAL,
                               "kafka.%s: %s (the names are those of librdkafka's "
                               "CONFIGURATION.md)",
                               name, text);
        rd_kafka_conf_destroy(conf);
        return rc;
}

int dfk_conf_set(rd_kafka_conf_t *conf, const char *name, const char *value, struct df_error *err)
{
        char text[256];

        if (rd_kafka_conf_set(conf, name, value, text, sizeof(text)) == RD_KAFKA_CONF_OK)
                return 0;
        return df_fail(err, DF_EINVAL, "librdkafka setting %s: %s", name, text);
}

static const char *const consumer_settings[][2] = {
        {"isolation.level", "read_committed"},
        {"check.crcs", "true"},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"},
        {"enable.partition.eof", "true"},
        /* A fetch that finds nothing waits so long: an answer soon, and few idle requests. */
        {"fetch.wait.max.ms", "100"},
        {"fetch.error.backoff.ms", "100"},
        /* A partition's queue: small, for there is one each, and kept filled by pulse.c. */
        {"queued.min.messages", "10000"},
        {"queued.max.messages.kbytes", "16384"},
        {NULL, NULL},
};

static const char *const producer_settings[][2] = {
        {"enable.idempotence", "true"},
        {"acks", "all"},
        {"compression.codec", "lz4"},
        {"linger.ms", "0"},
        {"message.max.bytes", "2000000"},
        {"queue.buffering.max.messages", "1000000"},
        {"queue.buffering.max.kbytes", "262144"},
        /* Also how long a producer waits when the coordinator still ends its last transaction. */
        {"retry.backoff.ms", "20"},
        {NULL, NULL},
};

static int set_all(rd_kafka_conf_t *conf, const char *const (*all)[2], struct df_error *err)
{
        int rc = 0;

        for (; rc == 0 && (*all)[0]; all++)
                rc = dfk_conf_set(conf, (*all)[0], (*all)[1], err);
        return rc;
}

static void on_log(const rd_kafka_t *rk, int level, const char *fac, const char *buf)
{
        (void)rk;
        df_trace(level <= 3   ? DF_WARN
                 : level <= 5 ? DF_INFO
                              : DF_DEBUG,
                 "rdkafka", "%s: %s", fac, buf);
}

int dfk_client_new(const struct dfk_kafka *k, enum dfk_role role,
                   int (*tune)(rd_kafka_conf_t *conf, void *arg, struct df_error *err), void *arg,
                   void *opaque, rd_kafka_t **ret, struct df_error *err)
{
        bool producer = role == DFK_PRODUCER || role == DFK_TXN_PRODUCER || role == DFK_ADMIN;
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        char text[256];
        int rc = dfk_conf_set(conf, "bootstrap.servers", k->options.brokers, err);

        rd_kafka_conf_set_log_cb(conf, on_log);
        rd_kafka_conf_set_opaque(conf, opaque);
        if (rc == 0)
                rc = dfk_conf_set(conf, "client.id", "adtally", err);
        if (rc == 0)
                rc = dfk_conf_set(conf, "reconnect.backoff.max.ms", "1000", err);
        if (rc == 0) /* or a deleted topic comes back with the broker's settings */
                rc = dfk_conf_set(conf, "allow.auto.create.topics", "false", err);
        if (rc == 0 && role != DFK_ADMIN)
                rc = set_all(conf, producer ? producer_settings : consumer_settings, err);
        for (size_t i = 0; rc == 0 && i < k->options.setting_count; i++)
                rc = dfk_conf_set(conf, k->options.settings[i].name, k->options.settings[i].value,
                                  err);
        if (rc == 0 && tune)
                rc = tune(conf, arg, err);
        if (rc < 0) {
                rd_kafka_conf_destroy(conf);
                return rc;
        }
        *ret = rd_kafka_new(producer ? RD_KAFKA_PRODUCER : RD_KAFKA_CONSUMER, conf, text,
                            sizeof(text));
        if (*ret)
                return 0;
        rd_kafka_conf_destroy(conf);
        return df_fail(err, DF_EINVAL, "Kafka client: %s", text);
}

static int code_of(rd_kafka_resp_err_t code)
{
        switch ((int)code) {
        case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
        case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
                return DF_ENOENT;
        case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
                return DF_EOFFSET;
        case RD_KAFKA_RESP_ERR__BAD_MSG:
        case RD_KAFKA_RESP_ERR_INVALID_MSG:
        case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
                return DF_ECORRUPT;
        case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
                return DF_ELIMIT;
        case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
                return DF_EFENCED;
        case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
        case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
        case RD_KAFKA_RESP_ERR__AUTHENTICATION:
                return DF_EINVAL;
        default:
                return DF_EAGAIN;
        }
}

int dfk_fail(struct df_error *err, rd_kafka_resp_err_t code, const char *fmt, ...)
{
        char what[256];
        va_list ap;

        va_start(ap, fmt);
        (void)vsnprintf(what, sizeof(what), fmt, ap);
        va_end(ap);
        return df_fail(err, code_of(code), "%s: %s (%s)", what, rd_kafka_err2str(code),
                       rd_kafka_err2name(code));
}

int dfk_full_name(const struct dfk_kafka *k, const char *name, char *ret, struct df_error *err)
{
        int n = snprintf(ret, DFK_KAFKA_NAME_MAX + 1, "%s%s", k->options.prefix, name);

        if (n > 0 && n <= DFK_KAFKA_NAME_MAX)
                return 0;
        return df_fail(err, DF_ELIMIT, "%s%s: longer than %d bytes", k->options.prefix, name,
                       DFK_KAFKA_NAME_MAX);
}
