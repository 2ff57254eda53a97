/* offsets.c - what a group has committed, by one of its members or from outside (K3, K8). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kafka_private.h"

#define COMMITTED_TIMEOUT_MS 30000
#define COMMITTED_PAUSE_MS 50
#define LOOK_TIMEOUT_MS 5000

bool dfk_is_printable(const char *text, size_t len)
{
        for (size_t i = 0; i < len; i++)
                if (text[i] < ' ' || text[i] > '~')
                        return false;
        return true;
}

static void take_committed(const rd_kafka_topic_partition_t *p, struct df_committed *ret)
{
        const char *text = p->metadata; /* not always with a NUL behind it */
        size_t len = text ? p->metadata_size : 0;

        *ret = (struct df_committed){.any = p->offset >= 0};
        if (!ret->any)
                return;
        ret->offset = (uint64_t)p->offset;
        if (len > DF_TXN_METADATA_MAX || !dfk_is_printable(text, len))
                return; /* not ours */
        memcpy(ret->metadata, text, len);
}

int dfk_read_committed(rd_kafka_t *rk, const char *group, const char *full_topic, int32_t partition,
                       struct df_committed *ret, struct df_error *err)
{
        int64_t until = dfk_now_ms() + COMMITTED_TIMEOUT_MS;

        for (;;) {
                rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
                rd_kafka_resp_err_t code;

                rd_kafka_topic_partition_list_add(list, full_topic, partition);
                code = rd_kafka_committed(rk, list, 5000);
                if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
                        code = list->elems[0].err;
                if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
                        take_committed(&list->elems[0], ret);
                rd_kafka_topic_partition_list_destroy(list);
                if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
                        return 0;
                /* Unstable: a transaction of an earlier owner is just being ended. */
                if (dfk_now_ms() > until)
                        return dfk_fail(err, code, "group %s: committed offset of %s/%d", group,
                                        full_topic, (int)partition);
                dfk_pause(COMMITTED_PAUSE_MS);
        }
}

/* ---- without a member ---- */

static int tune_onlooker(rd_kafka_conf_t *conf, void *arg, struct df_error *err)
{
        return dfk_conf_set(conf, "group.id", arg, err);
}

int dfk_onlooker(const struct dfk_kafka *k, char *full_group, rd_kafka_t **ret,
                 struct df_error *err)
{
        return dfk_client_new(k, DFK_PLAIN_CONSUMER, tune_onlooker, full_group, NULL, ret, err);
}

int dfk_look_committed(const struct dfk_kafka *k, char *full_group, const char *full_topic,
                       int32_t partition, struct df_committed *ret, struct df_error *err)
{
        rd_kafka_t *rk = NULL;
        int rc = dfk_onlooker(k, full_group, &rk, err);

        if (rc < 0)
                return rc;
        rc = dfk_read_committed(rk, full_group, full_topic, partition, ret, err);
        rd_kafka_destroy(rk);
        return rc;
}

int df_kafka_committed(struct df_log *log, const char *group, const char *topic, uint32_t partition,
                       struct df_committed *ret, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        char full_group[DFK_KAFKA_NAME_MAX + 1], full_topic[DFK_KAFKA_NAME_MAX + 1];
        int rc = dfk_full_name(k, group, full_group, err);

        if (rc == 0)
                rc = dfk_full_name(k, topic, full_topic, err);
        return rc < 0 ? rc
                      : dfk_look_committed(k, full_group, full_topic, (int32_t)partition, ret, err);
}

/* ---- again and again ---- */

struct df_kafka_offsets {
        char group[DFK_KAFKA_NAME_MAX + 1], topic[DFK_KAFKA_NAME_MAX + 1];
        uint32_t partitions;
        rd_kafka_t *rk;
};

/* As it is, not as it will be when a transaction under way has ended. */
static int tune_look(rd_kafka_conf_t *conf, void *arg, struct df_error *err)
{
        int rc = tune_onlooker(conf, arg, err);

        return rc < 0 ? rc : dfk_conf_set(conf, "isolation.level", "read_uncommitted", err);
}

int df_kafka_offsets_open(struct df_log *log, const char *group, const char *topic,
                          uint32_t partitions, struct df_kafka_offsets **ret, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        struct df_kafka_offsets *o = calloc(1, sizeof(*o));
        int rc;

        *ret = NULL;
        if (!o)
                return df_fail(err, DF_ENOMEM, "offsets of %s", group);
        o->partitions = partitions;
        rc = dfk_full_name(k, group, o->group, err);
        if (rc == 0)
                rc = dfk_full_name(k, topic, o->topic, err);
        if (rc == 0)
                rc = dfk_client_new(k, DFK_PLAIN_CONSUMER, tune_look, o->group, NULL, &o->rk, err);
        if (rc < 0)
                df_kafka_offsets_close(o);
        else
                *ret = o;
        return rc;
}

int df_kafka_offsets_read(struct df_kafka_offsets *o,
                          void (*fn)(void *arg, uint32_t partition, const struct df_committed *c),
                          void *arg, struct df_error *err)
{
        rd_kafka_topic_partition_list_t *list =
                rd_kafka_topic_partition_list_new((int)o->partitions);
        rd_kafka_resp_err_t code;
        struct df_committed c;

        for (uint32_t p = 0; p < o->partitions; p++)
                rd_kafka_topic_partition_list_add(list, o->topic, (int32_t)p);
        code = rd_kafka_committed(o->rk, list, LOOK_TIMEOUT_MS);
        for (int i = 0; !code && i < list->cnt; i++)
                code = list->elems[i].err;
        for (int i = 0; !code && i < list->cnt; i++) {
                take_committed(&list->elems[i], &c);
                fn(arg, (uint32_t)list->elems[i].partition, &c);
        }
        rd_kafka_topic_partition_list_destroy(list);
        return code ? dfk_fail(err, code, "committed offsets of group %s", o->group) : 0;
}

void df_kafka_offsets_close(struct df_kafka_offsets *o)
{
        if (!o)
                return;
        if (o->rk)
                rd_kafka_destroy(o->rk);
        free(o);
}
