/* remove.c - deleting what a run made for itself: its topics, and the offsets of its group. */
#include "kafka_private.h"

#define GONE_WAIT_MS 10000
#define EMPTY_WAIT_MS 15000 /* a broker needs a moment to forget the last producer of a group */
#define PAUSE_MS 50

/* The cluster answers before every broker knows: a topic of this name made at once would be taken
 * for the old one. */
static int wait_gone(struct dfk_kafka *k, const char *full, struct df_error *err)
{
        int64_t until = dfk_now_ms() + GONE_WAIT_MS;
        uint32_t there = 0;
        int rc = dfk_admin_partitions(k, full, &there, err);

        while (rc == 0 && there > 0) {
                if (dfk_now_ms() > until)
                        return df_fail(err, DF_EAGAIN, "topic %s is not deleted yet", full);
                dfk_pause(PAUSE_MS);
                rc = dfk_admin_partitions(k, full, &there, err);
        }
        return rc;
}

int dfk_topic_delete(struct df_log *log, const char *topic, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        char full[DFK_KAFKA_NAME_MAX + 1];
        int rc = dfk_full_name(k, topic, full, err);
        rd_kafka_queue_t *q = rd_kafka_queue_new(k->topics->admin);
        rd_kafka_AdminOptions_t *o = dfk_admin_options(k, RD_KAFKA_ADMIN_OP_DELETETOPICS);
        rd_kafka_DeleteTopic_t *t = rd_kafka_DeleteTopic_new(rc == 0 ? full : topic);
        rd_kafka_event_t *ev = NULL;

        if (rc == 0) {
                rd_kafka_DeleteTopics(k->topics->admin, &t, 1, o, q);
                rc = dfk_admin_wait(q, &ev, "delete topic", err);
        }
        if (rc == 0) {
                size_t n;
                const rd_kafka_topic_result_t **r = rd_kafka_DeleteTopics_result_topics(
                        rd_kafka_event_DeleteTopics_result(ev), &n);
                rd_kafka_resp_err_t code = n ? rd_kafka_topic_result_error(r[0]) : 0;

                if (code && code != RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART)
                        rc = dfk_fail(err, code, "delete topic %s", full);
        }
        if (ev)
                rd_kafka_event_destroy(ev);
        rd_kafka_DeleteTopic_destroy(t);
        rd_kafka_AdminOptions_destroy(o);
        rd_kafka_queue_destroy(q);
        return rc == 0 ? wait_gone(k, full, err) : rc;
}

static int delete_group(struct dfk_kafka *k, const char *full, rd_kafka_resp_err_t *ret_code,
                        struct df_error *err)
{
        rd_kafka_queue_t *q = rd_kafka_queue_new(k->topics->admin);
        rd_kafka_AdminOptions_t *o = dfk_admin_options(k, RD_KAFKA_ADMIN_OP_DELETEGROUPS);
        rd_kafka_DeleteGroup_t *g = rd_kafka_DeleteGroup_new(full);
        rd_kafka_event_t *ev = NULL;
        int rc;

        *ret_code = RD_KAFKA_RESP_ERR_NO_ERROR;
        rd_kafka_DeleteGroups(k->topics->admin, &g, 1, o, q);
        rc = dfk_admin_wait(q, &ev, "delete group", err);
        if (rc == 0) {
                size_t n;
                const rd_kafka_group_result_t **r = rd_kafka_DeleteGroups_result_groups(
                        rd_kafka_event_DeleteGroups_result(ev), &n);

                if (n && rd_kafka_group_result_error(r[0]))
                        *ret_code = rd_kafka_error_code(rd_kafka_group_result_error(r[0]));
        }
        if (ev)
                rd_kafka_event_destroy(ev);
        rd_kafka_DeleteGroup_destroy(g);
        rd_kafka_AdminOptions_destroy(o);
        rd_kafka_queue_destroy(q);
        return rc;
}

int df_kafka_group_delete(struct df_log *log, const char *group, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        int64_t until = dfk_now_ms() + EMPTY_WAIT_MS;
        char full[DFK_KAFKA_NAME_MAX + 1];
        rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;
        int rc = dfk_full_name(k, group, full, err);

        while (rc == 0) {
                rc = delete_group(k, full, &code, err);
                if (rc < 0 || code == RD_KAFKA_RESP_ERR_NO_ERROR ||
                    code == RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND)
                        break;
                if (dfk_now_ms() > until)
                        return dfk_fail(err, code, "delete group %s", full);
                dfk_pause(PAUSE_MS);
        }
        return rc;
}
