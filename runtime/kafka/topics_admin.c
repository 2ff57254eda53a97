/* topics_admin.c - what is asked of the cluster about topics: creation, settings, partitions.
 *
 * A broker learns of a new topic some time after the controller made it: answers that say "unknown"
 * right after are asked for again, for REQUEST_MS at most. What decides whether a topic exists is
 * the controller alone (dfk_admin_is_missing). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/trace.h"
#include "kafka_private.h"

#define REQUEST_MS 15000
#define LOOK_AGAIN_MS 50

int dfk_admin_wait(rd_kafka_queue_t *q, rd_kafka_event_t **ret, const char *what,
                   struct df_error *err)
{
        *ret = rd_kafka_queue_poll(q, REQUEST_MS);
        if (!*ret)
                return df_fail(err, DF_EAGAIN, "%s: no answer from the cluster", what);
        if (rd_kafka_event_error(*ret))
                return dfk_fail(err, rd_kafka_event_error(*ret), "%s: %s", what,
                                rd_kafka_event_error_string(*ret));
        return 0;
}

rd_kafka_AdminOptions_t *dfk_admin_options(struct dfk_kafka *k, rd_kafka_admin_op_t op)
{
        rd_kafka_AdminOptions_t *o = rd_kafka_AdminOptions_new(k->topics->admin, op);
        char text[128];

        (void)rd_kafka_AdminOptions_set_request_timeout(o, REQUEST_MS - 1000, text, sizeof(text));
        return o;
}

/* ---- creation ---- */

static rd_kafka_NewTopic_t *new_topic(const struct dfk_kafka *k, const char *full,
                                      uint32_t partitions, const char *const (*settings)[2],
                                      struct df_error *err)
{
        char text[256];
        int replication = k->options.replication > 0 ? k->options.replication : -1;
        rd_kafka_NewTopic_t *t =
                rd_kafka_NewTopic_new(full, (int)partitions, replication, text, sizeof(text));

        if (!t) {
                (void)df_fail(err, DF_EINVAL, "topic %s: %s", full, text);
                return NULL;
        }
        for (; (*settings)[0]; settings++)
                (void)rd_kafka_NewTopic_set_config(t, (*settings)[0], (*settings)[1]);
        return t;
}

/* only_ask: nothing is created; the controller says whether it could be. */
static int request_topic(struct dfk_kafka *k, const char *full, uint32_t partitions,
                         const char *const (*settings)[2], bool only_ask, bool *ret_exists,
                         struct df_error *err)
{
        rd_kafka_NewTopic_t *t = new_topic(k, full, partitions, settings, err);
        rd_kafka_AdminOptions_t *o;
        rd_kafka_queue_t *q;
        rd_kafka_event_t *ev = NULL;
        char text[128];
        int rc;

        if (!t)
                return DF_EINVAL;
        o = dfk_admin_options(k, RD_KAFKA_ADMIN_OP_CREATETOPICS);
        (void)rd_kafka_AdminOptions_set_validate_only(o, only_ask, text, sizeof(text));
        q = rd_kafka_queue_new(k->topics->admin);
        rd_kafka_CreateTopics(k->topics->admin, &t, 1, o, q);
        rc = dfk_admin_wait(q, &ev, "create topics", err);
        if (rc == 0) {
                size_t n;
                const rd_kafka_topic_result_t **r = rd_kafka_CreateTopics_result_topics(
                        rd_kafka_event_CreateTopics_result(ev), &n);
                rd_kafka_resp_err_t code = n ? rd_kafka_topic_result_error(r[0]) : 0;

                *ret_exists = code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS;
                if (code && !*ret_exists)
                        rc = dfk_fail(err, code, "create topic %s: %s", full,
                                      rd_kafka_topic_result_error_string(r[0]));
        }
        if (ev)
                rd_kafka_event_destroy(ev);
        rd_kafka_NewTopic_destroy(t);
        rd_kafka_AdminOptions_destroy(o);
        rd_kafka_queue_destroy(q);
        return rc;
}

int dfk_admin_make(struct dfk_kafka *k, const char *full, uint32_t partitions,
                   const char *const (*settings)[2], bool *ret_made, struct df_error *err)
{
        bool exists = false;
        int rc = request_topic(k, full, partitions, settings, false, &exists, err);

        *ret_made = rc == 0 && !exists;
        return rc;
}

int dfk_admin_create(struct dfk_kafka *k, const char *full, uint32_t partitions,
                     int64_t retention_ms, struct df_error *err)
{
        char ms[32];
        const char *const settings[][2] = {DFK_TOPIC_SETTINGS("LogAppendTime", ms), {NULL, NULL}};
        bool made;

        (void)snprintf(ms, sizeof(ms), "%" PRId64, retention_ms);
        return dfk_admin_make(k, full, partitions, settings, &made, err);
}

int dfk_admin_is_missing(struct dfk_kafka *k, const char *full, bool *ret, struct df_error *err)
{
        static const char *const settings[][2] = {{NULL, NULL}};
        bool exists = false;
        int rc = request_topic(k, full, 1, settings, true, &exists, err);

        *ret = !exists;
        return rc;
}

/* ---- settings ---- */

static const char *config_value(const rd_kafka_ConfigResource_t *r, const char *name)
{
        size_t n;
        const rd_kafka_ConfigEntry_t **e = rd_kafka_ConfigResource_configs(r, &n);

        for (size_t i = 0; i < n; i++)
                if (strcmp(rd_kafka_ConfigEntry_name(e[i]), name) == 0)
                        return rd_kafka_ConfigEntry_value(e[i]);
        return NULL;
}

static int wrong(const char *full, const char *name, const char *is, const char *must,
                 struct df_error *err)
{
        return df_fail(err, DF_ESCHEMA,
                       "topic %s has %s=%s, it must be %s: kafka-configs.sh --alter --topic %s "
                       "--add-config %s=%s (K14)",
                       full, name, is ? is : "?", must, full, name, must);
}

/* A limit by bytes deletes whatever the time says, so it is refused, too. */
static int judge_settings(const char *full, const rd_kafka_ConfigResource_t *r, int64_t keep_ms,
                          struct df_error *err)
{
        static const char *const exact[][2] = {{"message.timestamp.type", "LogAppendTime"},
                                               {"cleanup.policy", "delete"},
                                               {"retention.bytes", "-1"}};
        const char *retention = config_value(r, "retention.ms");
        const char *unclean = config_value(r, "unclean.leader.election.enable");
        int64_t keeps = retention ? strtoll(retention, NULL, 10) : 0; /* -1: for ever */
        char must[32];

        for (size_t i = 0; i < sizeof(exact) / sizeof(exact[0]); i++) {
                const char *is = config_value(r, exact[i][0]);

                if (!is || strcmp(is, exact[i][1]) != 0)
                        return wrong(full, exact[i][0], is, exact[i][1], err);
        }
        (void)snprintf(must, sizeof(must), "%" PRId64, keep_ms);
        if (keeps >= 0 && (keep_ms < 0 || keeps < keep_ms))
                return wrong(full, "retention.ms", retention, must, err);
        if (unclean && strcmp(unclean, "true") == 0)
                df_trace(DF_WARN, "kafka",
                         "topic=%s unclean.leader.election.enable=true: acknowledged events may be "
                         "lost with a broker",
                         full);
        return 0;
}

/* One request. *ret_unknown: the broker that answered does not know the topic yet. */
static int describe(struct dfk_kafka *k, const char *full, int64_t keep_ms, bool *ret_unknown,
                    struct df_error *err)
{
        rd_kafka_queue_t *q = rd_kafka_queue_new(k->topics->admin);
        rd_kafka_AdminOptions_t *o = dfk_admin_options(k, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
        rd_kafka_ConfigResource_t *r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, full);
        const rd_kafka_ConfigResource_t **all = NULL;
        rd_kafka_event_t *ev = NULL;
        size_t n = 0;
        int rc;

        rd_kafka_DescribeConfigs(k->topics->admin, &r, 1, o, q);
        rc = dfk_admin_wait(q, &ev, "describe topic settings", err);
        if (rc == 0)
                all = rd_kafka_DescribeConfigs_result_resources(
                        rd_kafka_event_DescribeConfigs_result(ev), &n);
        *ret_unknown = n == 1 && rd_kafka_ConfigResource_error(all[0]) ==
                                         RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
        if (rc == 0 && n == 1 && rd_kafka_ConfigResource_error(all[0]) == 0)
                rc = judge_settings(full, all[0], keep_ms, err);
        else if (rc == 0)
                rc = df_fail(err, DF_EAGAIN, "topic %s: its settings cannot be read: %s", full,
                             n ? rd_kafka_ConfigResource_error_string(all[0]) : "no answer");
        if (ev)
                rd_kafka_event_destroy(ev);
        rd_kafka_ConfigResource_destroy(r);
        rd_kafka_AdminOptions_destroy(o);
        rd_kafka_queue_destroy(q);
        return rc;
}

int dfk_admin_check(struct dfk_kafka *k, const char *full, int64_t keep_ms, struct df_error *err)
{
        int64_t until = dfk_now_ms() + REQUEST_MS;
        bool unknown = false;
        int rc;

        while ((rc = describe(k, full, keep_ms, &unknown, err)) < 0 && unknown &&
               dfk_now_ms() < until)
                dfk_pause(LOOK_AGAIN_MS);
        return rc;
}

/* ---- partitions ---- */

int dfk_admin_partitions(struct dfk_kafka *k, const char *full, uint32_t *ret, struct df_error *err)
{
        const struct rd_kafka_metadata *m = NULL;
        rd_kafka_resp_err_t code = rd_kafka_metadata(k->topics->admin, 1, NULL, &m, REQUEST_MS);

        *ret = 0;
        if (code)
                return dfk_fail(err, code, "topics of %s", k->options.brokers);
        for (int i = 0; i < m->topic_cnt; i++)
                if (strcmp(m->topics[i].topic, full) == 0 && !m->topics[i].err)
                        *ret = (uint32_t)m->topics[i].partition_cnt;
        rd_kafka_metadata_destroy(m);
        return 0;
}
