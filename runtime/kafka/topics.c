/* topics.c - which topics there are, which generation each is of, and whether they are as they must
 * be (E1, K14; df/kafka.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "df/trace.h"
#include "kafka_private.h"

#define CONTROL_TOPIC "topics"
#define WAIT_BROKER_MS 10000
#define REQUEST_MS 15000
#define READ_RECORDS 64

/* MOVED: one a partition, in their order. */
enum {
        TOPIC_NAME = 1,
        TOPIC_PARTITIONS,
        TOPIC_GENERATION,
        TOPIC_BEFORE,
        TOPIC_MOVED = 6,
        TOPIC_COPYING
};

struct dfk_topics {
        pthread_mutex_t lock;
        rd_kafka_t *admin;
        uint64_t read_to; /* position in the control topic */
        struct dfk_topic *known;
        size_t count;
};

bool dfk_is_control(const char *name)
{
        return strcmp(name, CONTROL_TOPIC) == 0;
}

/* ---- requests ---- */

rd_kafka_t *dfk_admin(struct dfk_kafka *k)
{
        return k->topics->admin;
}

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

/* *ret_made false: it was there already. */
int dfk_topic_make(struct dfk_kafka *k, const char *full, uint32_t partitions,
                   const char *const (*settings)[2], bool *ret_made, struct df_error *err)
{
        rd_kafka_queue_t *q = rd_kafka_queue_new(k->topics->admin);
        rd_kafka_AdminOptions_t *o = dfk_admin_options(k, RD_KAFKA_ADMIN_OP_CREATETOPICS);
        char text[256];
        int replication = k->options.replication > 0 ? k->options.replication : -1;
        rd_kafka_NewTopic_t *t =
                rd_kafka_NewTopic_new(full, (int)partitions, replication, text, sizeof(text));
        rd_kafka_event_t *ev = NULL;
        int rc = t ? 0 : df_fail(err, DF_EINVAL, "topic %s: %s", full, text);

        *ret_made = false;
        for (; rc == 0 && (*settings)[0]; settings++)
                (void)rd_kafka_NewTopic_set_config(t, (*settings)[0], (*settings)[1]);
        if (rc == 0) {
                rd_kafka_CreateTopics(k->topics->admin, &t, 1, o, q);
                rc = dfk_admin_wait(q, &ev, "create topics", err);
        }
        if (rc == 0) {
                size_t n;
                const rd_kafka_topic_result_t **r = rd_kafka_CreateTopics_result_topics(
                        rd_kafka_event_CreateTopics_result(ev), &n);
                rd_kafka_resp_err_t code = n ? rd_kafka_topic_result_error(r[0]) : 0;

                if (code && code != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
                        rc = dfk_fail(err, code, "create topic %s: %s", full,
                                      rd_kafka_topic_result_error_string(r[0]));
                *ret_made = code == 0;
        }
        if (ev)
                rd_kafka_event_destroy(ev);
        if (t)
                rd_kafka_NewTopic_destroy(t);
        rd_kafka_AdminOptions_destroy(o);
        rd_kafka_queue_destroy(q);
        return rc;
}

static int create(struct dfk_kafka *k, const char *full, uint32_t partitions, int64_t retention_ms,
                  bool *ret_made, struct df_error *err)
{
        char ms[32];
        const char *const settings[][2] = {DFK_TOPIC_SETTINGS("LogAppendTime", ms), {NULL, NULL}};

        (void)snprintf(ms, sizeof(ms), "%" PRId64, retention_ms);
        return dfk_topic_make(k, full, partitions, settings, ret_made, err);
}

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
                       "--add-config %s=%s (K13)",
                       full, name, is ? is : "?", must, full, name, must);
}

static int judge_settings(struct dfk_kafka *k, const char *full, const rd_kafka_ConfigResource_t *r,
                          struct df_error *err)
{
        const char *stamp = config_value(r, "message.timestamp.type");
        const char *policy = config_value(r, "cleanup.policy");
        const char *retention = config_value(r, "retention.ms");
        const char *unclean = config_value(r, "unclean.leader.election.enable");
        int64_t keeps = retention ? strtoll(retention, NULL, 10) : -1;
        char must[32];

        if (!stamp || strcmp(stamp, "LogAppendTime") != 0)
                return wrong(full, "message.timestamp.type", stamp, "LogAppendTime", err);
        if (!policy || strcmp(policy, "delete") != 0)
                return wrong(full, "cleanup.policy", policy, "delete", err);
        (void)snprintf(must, sizeof(must), "%" PRId64, k->options.retention_min_ms);
        if (keeps >= 0 && keeps < k->options.retention_min_ms)
                return wrong(full, "retention.ms", retention, must, err);
        if (unclean && strcmp(unclean, "true") == 0)
                df_trace(DF_WARN, "kafka",
                         "topic=%s unclean.leader.election.enable=true: acknowledged events may be "
                         "lost with a broker",
                         full);
        return 0;
}

static int check_settings(struct dfk_kafka *k, const char *full, struct df_error *err)
{
        rd_kafka_queue_t *q = rd_kafka_queue_new(k->topics->admin);
        rd_kafka_AdminOptions_t *o = dfk_admin_options(k, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);
        rd_kafka_ConfigResource_t *r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, full);
        rd_kafka_event_t *ev = NULL;
        int rc;

        rd_kafka_DescribeConfigs(k->topics->admin, &r, 1, o, q);
        rc = dfk_admin_wait(q, &ev, "describe topic settings", err);
        if (rc == 0) {
                size_t n;
                const rd_kafka_ConfigResource_t **all = rd_kafka_DescribeConfigs_result_resources(
                        rd_kafka_event_DescribeConfigs_result(ev), &n);

                if (n == 1 && rd_kafka_ConfigResource_error(all[0]) == 0)
                        rc = judge_settings(k, full, all[0], err);
                else
                        rc = df_fail(
                                err, DF_EAGAIN, "topic %s: its settings cannot be read: %s", full,
                                n ? rd_kafka_ConfigResource_error_string(all[0]) : "no answer");
        }
        if (ev)
                rd_kafka_event_destroy(ev);
        rd_kafka_ConfigResource_destroy(r);
        rd_kafka_AdminOptions_destroy(o);
        rd_kafka_queue_destroy(q);
        return rc;
}

/* Partitions of the topic on the cluster; 0 = there is none. */
int dfk_partitions_of(struct dfk_kafka *k, const char *full, uint32_t *ret, struct df_error *err)
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

/* ---- the control topic ---- */

static struct dfk_topic *find(const struct dfk_topics *t, const char *name)
{
        for (size_t i = 0; i < t->count; i++)
                if (strcmp(t->known[i].info.name, name) == 0)
                        return &t->known[i];
        return NULL;
}

/* False: not a record of ours. */
static bool decode(struct df_bytes value, struct dfk_topic *ret, uint64_t *ret_before)
{
        struct df_reader r = df_reader(value);
        struct df_topic_info *info = &ret->info;
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                if (f.number == TOPIC_NAME && f.bytes.len <= DF_TOPIC_NAME_MAX)
                        memcpy(info->name, f.bytes.data, f.bytes.len);
                else if (f.number == TOPIC_PARTITIONS)
                        info->partitions = (uint32_t)f.u;
                else if (f.number == TOPIC_GENERATION)
                        info->generation = f.u;
                else if (f.number == TOPIC_BEFORE)
                        *ret_before = f.u;
                else if (f.number == TOPIC_MOVED && ret->moved_count < DF_PARTITIONS_MAX)
                        ret->moved[ret->moved_count++] = f.u;
                else if (f.number == TOPIC_COPYING)
                        ret->copying = f.u != 0;
        }
        return !r.bad && info->name[0] && info->generation;
}

static int take_record(struct dfk_topics *t, struct df_bytes value, struct df_error *err)
{
        struct dfk_topic topic = {0}, *known;
        uint64_t before = 0;

        if (!decode(value, &topic, &before))
                return df_fail(err, DF_ECORRUPT,
                               "the topic %s holds a record that is not Adtally's", CONTROL_TOPIC);
        known = find(t, topic.info.name);
        if (before != (known ? known->info.generation : 0))
                return 0; /* another creator was first */
        if (!known) {
                struct dfk_topic *grown = realloc(t->known, (t->count + 1) * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "topics");
                t->known = grown;
                known = &t->known[t->count++];
        }
        *known = topic;
        return 0;
}

static int read_control(struct dfk_kafka *k, struct df_error *err)
{
        struct dfk_topics *t = k->topics;
        struct df_record records[READ_RECORDS];
        struct df_log_reader *r = NULL;
        uint64_t first, end;
        int64_t until = dfk_now_ms() + REQUEST_MS;
        int rc = dfk_bounds(&k->base, CONTROL_TOPIC, 0, &first, &end, err);

        if (rc < 0 || t->read_to >= end)
                return rc;
        rc = dfk_reader_open(&k->base, CONTROL_TOPIC, 0, t->read_to, NULL, &r, err);
        while (rc == 0 && dfk_position(r) < end) {
                size_t n = 0;

                rc = dfk_poll(r, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = take_record(t, records[i].value, err);
                if (rc == 0 && n == 0)
                        dfk_pause(2);
                if (rc == 0 && dfk_now_ms() > until)
                        rc = df_fail(err, DF_EAGAIN, "the topic %s%s cannot be read",
                                     k->options.prefix, CONTROL_TOPIC);
        }
        if (rc == 0)
                t->read_to = dfk_position(r);
        df_log_reader_close(r);
        return rc;
}

static int write_control(struct dfk_kafka *k, const struct dfk_topic *topic, uint64_t before,
                         struct df_error *err)
{
        struct df_log_writer *w = NULL;
        struct df_buf b = {0};
        struct df_append a = {0};
        int rc;

        df_pb_str(&b, TOPIC_NAME, topic->info.name);
        df_pb_uint(&b, TOPIC_PARTITIONS, topic->info.partitions);
        df_pb_uint(&b, TOPIC_GENERATION, topic->info.generation);
        df_pb_uint(&b, TOPIC_BEFORE, before);
        for (uint32_t p = 0; p < topic->moved_count; p++)
                df_pb_uint(&b, TOPIC_MOVED, topic->moved[p]);
        df_pb_bool(&b, TOPIC_COPYING, topic->copying);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = dfk_writer_open(&k->base, CONTROL_TOPIC, &w, err);
        a.value = df_buf_bytes(&b);
        if (rc == 0)
                rc = dfk_append(w, &a, 1, err);
        df_log_writer_close(w);
        df_buf_release(&b);
        return rc;
}

static int write_new(struct dfk_kafka *k, const char *name, uint32_t partitions, uint64_t before,
                     struct df_error *err)
{
        struct dfk_topic topic = {.info.partitions = partitions};

        (void)snprintf(topic.info.name, sizeof(topic.info.name), "%s", name);
        while (topic.info.generation == 0)
                if (getrandom(&topic.info.generation, sizeof(topic.info.generation), 0) !=
                    sizeof(topic.info.generation))
                        return df_fail_errno(err, DF_EIO, "getrandom");
        return write_control(k, &topic, before, err);
}

int dfk_topic_known(struct dfk_kafka *k, const char *name, struct dfk_topic *ret,
                    struct df_error *err)
{
        const struct dfk_topic *known = NULL;
        int rc;

        *ret = (struct dfk_topic){0};
        pthread_mutex_lock(&k->topics->lock);
        rc = read_control(k, err);
        if (rc == 0)
                known = find(k->topics, name);
        if (known)
                *ret = *known;
        pthread_mutex_unlock(&k->topics->lock);
        return rc;
}

int dfk_topic_declare(struct dfk_kafka *k, const struct dfk_topic *topic, uint64_t before,
                      struct df_error *err)
{
        const struct dfk_topic *known = NULL;
        int rc;

        pthread_mutex_lock(&k->topics->lock);
        rc = write_control(k, topic, before, err);
        if (rc == 0)
                rc = read_control(k, err);
        if (rc == 0)
                known = find(k->topics, topic->info.name);
        if (rc == 0 && (!known || known->info.generation != topic->info.generation ||
                        known->copying != topic->copying))
                rc = df_fail(err, DF_EFENCED, "topic %s%s was made by somebody else just now",
                             k->options.prefix, topic->info.name);
        pthread_mutex_unlock(&k->topics->lock);
        return rc;
}

/* ---- the port ---- */

static int fail_copying(const struct dfk_topic *t, struct df_error *err)
{
        return df_fail(err, DF_ESCHEMA,
                       "topic %s is an unfinished copy of a file log: run `adtally migrate` again, "
                       "or go on with the file log",
                       t->info.name);
}

static int ensure(struct dfk_kafka *k, const char *topic, const char *full, uint32_t partitions,
                  struct df_error *err)
{
        struct dfk_topic *known;
        uint32_t there = 0;
        bool made = false;
        int rc = read_control(k, err);

        if (rc == 0)
                rc = dfk_partitions_of(k, full, &there, err);
        if (rc < 0)
                return rc;
        known = find(k->topics, topic);
        if (known && known->copying)
                return fail_copying(known, err);
        if (rc == 0 && there == 0)
                rc = create(k, full, partitions, k->options.retention_ms, &made, err);
        if (rc == 0 && there == 0 && !made) /* another creator was quicker */
                rc = read_control(k, err);
        if (rc < 0)
                return rc;
        known = find(k->topics, topic);
        if (!known || made)
                rc = write_new(k, topic, partitions, known ? known->info.generation : 0, err);
        if (rc == 0)
                rc = read_control(k, err);
        if (rc < 0)
                return rc;
        known = find(k->topics, topic);
        if (!known)
                return df_fail(err, DF_EAGAIN, "topic %s is not in %s%s yet", full,
                               k->options.prefix, CONTROL_TOPIC);
        if (known->info.partitions != partitions || (there && there != partitions))
                return df_fail(err, DF_ESCHEMA, "topic %s has %u partitions, wanted are %u (K14)",
                               full, there ? there : known->info.partitions, partitions);
        return check_settings(k, full, err);
}

int dfk_topic_create(struct df_log *log, const char *topic, uint32_t partitions,
                     struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        char full[DFK_KAFKA_NAME_MAX + 1];
        int rc = dfk_full_name(k, topic, full, err);

        if (rc < 0)
                return rc;
        pthread_mutex_lock(&k->topics->lock);
        rc = ensure(k, topic, full, partitions, err);
        pthread_mutex_unlock(&k->topics->lock);
        return rc;
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct df_topic_info *)a)->name,
                      ((const struct df_topic_info *)b)->name);
}

/* A copy, so that fn may call the log. */
static int snapshot(struct dfk_kafka *k, struct df_topic_info **ret, size_t *ret_count,
                    struct df_error *err)
{
        struct dfk_topics *t = k->topics;
        int rc;

        pthread_mutex_lock(&t->lock);
        rc = read_control(k, err);
        *ret = rc == 0 ? calloc(t->count + 1, sizeof(**ret)) : NULL;
        *ret_count = t->count;
        if (rc == 0 && !*ret)
                rc = df_fail(err, DF_ENOMEM, "topics");
        for (size_t i = 0; rc == 0 && i < t->count; i++) {
                (*ret)[i] = t->known[i].info;
                if (t->known[i].copying)
                        rc = fail_copying(&t->known[i], err);
        }
        pthread_mutex_unlock(&t->lock);
        if (rc == 0)
                qsort(*ret, *ret_count, sizeof(**ret), by_name);
        return rc;
}

static uint32_t count_in(const struct rd_kafka_metadata *m, const char *full)
{
        for (int i = 0; i < m->topic_cnt; i++)
                if (strcmp(m->topics[i].topic, full) == 0 && !m->topics[i].err)
                        return (uint32_t)m->topics[i].partition_cnt;
        return 0;
}

int dfk_topic_list(struct df_log *log, const char *prefix,
                   int (*fn)(void *arg, const struct df_topic_info *info), void *arg,
                   struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        const struct rd_kafka_metadata *m = NULL;
        struct df_topic_info *all = NULL;
        size_t count = 0;
        int rc = snapshot(k, &all, &count, err);
        rd_kafka_resp_err_t code = 0;

        if (rc == 0)
                code = rd_kafka_metadata(k->topics->admin, 1, NULL, &m, REQUEST_MS);
        if (code)
                rc = dfk_fail(err, code, "topics of %s", k->options.brokers);
        for (size_t i = 0; rc == 0 && i < count; i++) {
                char full[DFK_KAFKA_NAME_MAX + 1];

                if (strncmp(all[i].name, prefix, strlen(prefix)) != 0)
                        continue;
                rc = dfk_full_name(k, all[i].name, full, err);
                if (rc == 0 && (all[i].partitions = count_in(m, full)) > 0)
                        rc = fn(arg, &all[i]);
        }
        if (m)
                rd_kafka_metadata_destroy(m);
        free(all);
        return rc;
}

/* ---- life ---- */

static int wait_for_broker(struct dfk_kafka *k, struct df_error *err)
{
        const struct rd_kafka_metadata *m = NULL;
        rd_kafka_resp_err_t code = rd_kafka_metadata(k->topics->admin, 0, NULL, &m, WAIT_BROKER_MS);

        if (code)
                return df_fail(err, DF_EAGAIN, "no broker at %s answers: %s", k->options.brokers,
                               rd_kafka_err2str(code));
        rd_kafka_metadata_destroy(m);
        return 0;
}

int dfk_topics_open(struct dfk_kafka *k, struct df_error *err)
{
        char full[DFK_KAFKA_NAME_MAX + 1];
        uint32_t there = 0;
        bool made;
        int rc = dfk_full_name(k, CONTROL_TOPIC, full, err);

        k->topics = calloc(1, sizeof(*k->topics));
        if (!k->topics)
                return df_fail(err, DF_ENOMEM, "topics");
        pthread_mutex_init(&k->topics->lock, NULL);
        if (rc == 0)
                rc = dfk_client_new(k, DFK_ADMIN, NULL, NULL, NULL, &k->topics->admin, err);
        if (rc == 0)
                rc = wait_for_broker(k, err);
        if (rc == 0)
                rc = dfk_partitions_of(k, full, &there, err);
        if (rc == 0 && there == 0)
                rc = create(k, full, 1, -1, &made, err);
        for (int i = 0; rc == 0 && there == 0 && i < 100; i++) { /* until every broker knows it */
                rc = dfk_partitions_of(k, full, &there, err);
                if (there == 0)
                        dfk_pause(50);
        }
        return rc;
}

void dfk_topics_close(struct dfk_kafka *k)
{
        if (!k->topics)
                return;
        if (k->topics->admin)
                rd_kafka_destroy(k->topics->admin);
        free(k->topics->known);
        pthread_mutex_destroy(&k->topics->lock);
        free(k->topics);
}
