/* copy.c - topics that take the place of a file log's (df/kafka_copy.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/kafka_copy.h"
#include "kafka_private.h"

#define COMMIT_TRIES 3
#define LEADERS_MS 20000

static bool same_ends(const struct dfk_topic *t, const struct df_topic_info *original,
                      const uint64_t *ends)
{
        return t->moved_count == original->partitions &&
               memcmp(t->moved, ends, t->moved_count * sizeof(*ends)) == 0;
}

/* ---- settings ---- */

/* While it is copied nothing expires, and no time is too far from the broker's. */
static const char *const copy_settings[][2] = {
        DFK_TOPIC_SETTINGS("CreateTime", "-1"),
        {"message.timestamp.before.max.ms", "9223372036854775807"},
        {"message.timestamp.after.max.ms", "9223372036854775807"},
        {NULL, NULL},
};

static int alter(struct dfk_kafka *k, const char *full, const char *const (*settings)[2],
                 struct df_error *err)
{
        rd_kafka_queue_t *q = rd_kafka_queue_new(k->topics->admin);
        rd_kafka_AdminOptions_t *o = dfk_admin_options(k, RD_KAFKA_ADMIN_OP_ALTERCONFIGS);
        rd_kafka_ConfigResource_t *r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, full);
        rd_kafka_event_t *ev = NULL;
        int rc;

        for (; (*settings)[0]; settings++)
                (void)rd_kafka_ConfigResource_set_config(r, (*settings)[0], (*settings)[1]);
        rd_kafka_AlterConfigs(k->topics->admin, &r, 1, o, q);
        rc = dfk_admin_wait(q, &ev, "alter topic settings", err);
        if (rc == 0) {
                size_t n;
                const rd_kafka_ConfigResource_t **all = rd_kafka_AlterConfigs_result_resources(
                        rd_kafka_event_AlterConfigs_result(ev), &n);
                rd_kafka_resp_err_t code =
                        n ? rd_kafka_ConfigResource_error(all[0]) : RD_KAFKA_RESP_ERR__BAD_MSG;

                if (code)
                        rc = dfk_fail(err, code, "settings of topic %s: %s", full,
                                      n ? rd_kafka_ConfigResource_error_string(all[0])
                                        : "no answer");
        }
        if (ev)
                rd_kafka_event_destroy(ev);
        rd_kafka_ConfigResource_destroy(r);
        rd_kafka_AdminOptions_destroy(o);
        rd_kafka_queue_destroy(q);
        return rc;
}

int df_kafka_copy_seal(struct df_log *log, const char *topic, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        char full[DFK_KAFKA_NAME_MAX + 1], ms[32];
        const char *const settings[][2] = {DFK_TOPIC_SETTINGS("LogAppendTime", ms), {NULL, NULL}};
        int rc = dfk_full_name(k, topic, full, err);

        (void)snprintf(ms, sizeof(ms), "%" PRId64, dfk_retention(k, topic));
        return rc < 0 ? rc : alter(k, full, settings, err);
}

/* ---- begin and finish ---- */

static int judge(const struct dfk_kafka *k, const struct dfk_topic *known, uint32_t there,
                 const struct df_topic_info *original, const uint64_t *ends, struct df_error *err)
{
        const char *name = original->name, *prefix = k->options.prefix;

        if (there && known->info.generation != original->generation)
                return df_fail(err, DF_EEXIST,
                               "topic %s%s is there already and is no copy of this file log: give "
                               "a --kafka-prefix that is not in use",
                               prefix, name);
        if (there && there != original->partitions)
                return df_fail(err, DF_ESCHEMA, "topic %s%s has %u partitions, not %u: delete it",
                               prefix, name, there, original->partitions);
        if (known->info.generation == original->generation && !known->copying &&
            !same_ends(known, original, ends))
                return df_fail(err, DF_ESCHEMA,
                               "topic %s%s was moved to before, and the file log has grown since: "
                               "its newer records are in the file log alone",
                               prefix, name);
        return 0;
}

static int look(struct dfk_kafka *k, const struct df_topic_info *original, const uint64_t *ends,
                char *full, struct dfk_topic *ret_known, uint32_t *ret_there, struct df_error *err)
{
        int rc = dfk_full_name(k, original->name, full, err);

        if (rc == 0)
                rc = dfk_topic_known(k, original->name, ret_known, err);
        if (rc == 0)
                rc = dfk_admin_partitions(k, full, ret_there, err);
        return rc < 0 ? rc : judge(k, ret_known, *ret_there, original, ends, err);
}

int df_kafka_copy_look(struct df_log *log, const struct df_topic_info *original,
                       const uint64_t *ends, bool *ret_begun, bool *ret_finished,
                       struct df_error *err)
{
        char full[DFK_KAFKA_NAME_MAX + 1];
        struct dfk_topic known;
        uint32_t there = 0;
        int rc = look(dfk_kafka_of(log), original, ends, full, &known, &there, err);

        *ret_begun = rc == 0 && there && known.info.generation == original->generation;
        *ret_finished = *ret_begun && !known.copying;
        return rc;
}

/* A new topic is known, and its partitions have leaders, some time after it is made. */
static int wait_for_leaders(struct dfk_kafka *k, const struct df_topic_info *t,
                            struct df_error *err)
{
        int64_t until = dfk_now_ms() + LEADERS_MS;
        uint64_t first, end;

        for (uint32_t p = 0; p < t->partitions;) {
                int rc = dfk_bounds(&k->base, t->name, p, &first, &end, err);

                if (rc == 0)
                        p++;
                else if ((rc != DF_EAGAIN && rc != DF_ENOENT) || dfk_now_ms() > until)
                        return rc;
                else
                        dfk_pause(50);
        }
        return 0;
}

int df_kafka_copy_begin(struct df_log *log, const struct df_topic_info *original,
                        const uint64_t *ends, bool *ret_finished, struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        struct dfk_topic known,
                want = {.info = *original, .moved_count = original->partitions, .copying = true};
        char full[DFK_KAFKA_NAME_MAX + 1];
        uint32_t there = 0;
        bool made = false;
        int rc = look(k, original, ends, full, &known, &there, err);

        *ret_finished = false;
        if (rc < 0)
                return rc;
        if (there && known.info.generation == original->generation && !known.copying) {
                *ret_finished = true;
                return 0;
        }
        memcpy(want.moved, ends, original->partitions * sizeof(*ends));
        /* Declared before it is made: what lies there is a copy from the first record on. */
        if (known.info.generation != original->generation || !same_ends(&known, original, ends) ||
            !known.copying)
                rc = dfk_topic_declare(k, &want, err);
        if (rc == 0 && there)
                rc = alter(k, full, copy_settings, err);
        else if (rc == 0)
                rc = dfk_admin_make(k, full, original->partitions, copy_settings, &made, err);
        if (rc == 0 && !there && !made)
                rc = df_fail(err, DF_EEXIST, "topic %s was made by somebody else just now", full);
        return rc < 0 ? rc : wait_for_leaders(k, original, err);
}

int df_kafka_copy_finish(struct df_log *log, const struct df_topic_info *original,
                         struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        struct dfk_topic known;
        int rc = dfk_topic_known(k, original->name, &known, err);

        if (rc == 0 && known.info.generation != original->generation)
                rc = df_fail(err, DF_ESCHEMA, "topic %s%s is another one now", k->options.prefix,
                             original->name);
        if (rc < 0 || !known.copying)
                return rc;
        known.copying = false;
        return dfk_topic_declare(k, &known, err);
}

/* ---- records ---- */

int df_kafka_copy_writer(struct df_log *log, const char *topic, struct df_log_writer **ret,
                         struct df_error *err)
{
        int rc = dfk_writer_open(log, topic, ret, err);

        if (rc == 0)
                dfk_writer_carry_times(*ret);
        return rc;
}

static int deleted(const rd_kafka_event_t *ev, const char *full, uint32_t partition, uint64_t first,
                   struct df_error *err)
{
        const rd_kafka_topic_partition_list_t *l = rd_kafka_DeleteRecords_result_offsets(
                rd_kafka_event_DeleteRecords_result((rd_kafka_event_t *)(uintptr_t)ev));

        if (!l || l->cnt != 1)
                return df_fail(err, DF_EAGAIN, "delete records of %s/%u: no answer", full,
                               partition);
        if (l->elems[0].err)
                return dfk_fail(err, l->elems[0].err, "delete records of %s/%u before %" PRIu64,
                                full, partition, first);
        return 0;
}

int df_kafka_copy_trim(struct df_log *log, const char *topic, uint32_t partition, uint64_t first,
                       struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_queue_t *q = rd_kafka_queue_new(k->topics->admin);
        rd_kafka_AdminOptions_t *o = dfk_admin_options(k, RD_KAFKA_ADMIN_OP_DELETERECORDS);
        rd_kafka_DeleteRecords_t *d = NULL;
        rd_kafka_event_t *ev = NULL;
        char full[DFK_KAFKA_NAME_MAX + 1];
        int rc = dfk_full_name(k, topic, full, err);

        if (rc == 0) {
                rd_kafka_topic_partition_list_add(list, full, (int32_t)partition)->offset =
                        (int64_t)first;
                d = rd_kafka_DeleteRecords_new(list);
                rd_kafka_DeleteRecords(k->topics->admin, &d, 1, o, q);
                rc = dfk_admin_wait(q, &ev, "delete records", err);
        }
        if (rc == 0)
                rc = deleted(ev, full, partition, first, err);
        if (ev)
                rd_kafka_event_destroy(ev);
        if (d)
                rd_kafka_DeleteRecords_destroy(d);
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_AdminOptions_destroy(o);
        rd_kafka_queue_destroy(q);
        return rc;
}

/* ---- positions ---- */

struct position {
        const char *group, *topic; /* without the prefix */
        char full_group[DFK_KAFKA_NAME_MAX + 1], full_topic[DFK_KAFKA_NAME_MAX + 1];
        uint32_t partition;
        uint64_t offset;
        const char *metadata;
};

static int is_there(struct df_log *log, const struct position *p, bool *ret, struct df_error *err)
{
        struct df_committed now;
        int rc = df_kafka_committed(log, p->group, p->topic, p->partition, &now, err);

        *ret = rc == 0 && now.any && now.offset == p->offset &&
               strcmp(now.metadata, p->metadata) == 0;
        /* An interrupted run's may be replaced: until finish nobody else can use the topic. */
        if (rc == 0 && now.any && !*ret && strncmp(now.metadata, "adtally1 ", 9) != 0)
                return df_fail(err, DF_EEXIST,
                               "group %s has committed offset %" PRIu64
                               " of %s/%u with metadata \"%.120s\": it is used by somebody else",
                               p->full_group, now.offset, p->full_topic, p->partition,
                               now.metadata);
        return rc;
}

static rd_kafka_resp_err_t commit_once(rd_kafka_t *rk, const struct position *p)
{
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_t *at =
                rd_kafka_topic_partition_list_add(list, p->full_topic, (int32_t)p->partition);
        rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR__FAIL;

        at->offset = (int64_t)p->offset;
        at->metadata = strdup(p->metadata); /* the list frees it */
        at->metadata_size = at->metadata ? strlen(p->metadata) : 0;
        if (at->metadata)
                code = rd_kafka_commit(rk, list, 0);
        if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
                code = list->elems[0].err;
        rd_kafka_topic_partition_list_destroy(list);
        return code;
}

static int commit(rd_kafka_t *rk, const struct position *p, struct df_error *err)
{
        rd_kafka_resp_err_t code = RD_KAFKA_RESP_ERR_NO_ERROR;

        for (int i = 0; i < COMMIT_TRIES; i++) {
                code = commit_once(rk, p);
                if (code == RD_KAFKA_RESP_ERR_NO_ERROR)
                        return 0;
                dfk_pause(200); /* its coordinator may just have moved */
        }
        return dfk_fail(err, code, "group %s: commit of %s/%u", p->full_group, p->full_topic,
                        p->partition);
}

int df_kafka_copy_commit(struct df_log *log, const char *group, const char *topic,
                         uint32_t partition, uint64_t offset, const char *metadata,
                         struct df_error *err)
{
        struct dfk_kafka *k = dfk_kafka_of(log);
        struct position p = {.group = group,
                             .topic = topic,
                             .partition = partition,
                             .offset = offset,
                             .metadata = metadata};
        rd_kafka_t *rk = NULL;
        bool done = false;
        int rc = dfk_full_name(k, group, p.full_group, err);

        if (rc == 0)
                rc = dfk_full_name(k, topic, p.full_topic, err);
        if (rc == 0)
                rc = is_there(log, &p, &done, err);
        if (rc < 0 || done)
                return rc;
        rc = dfk_onlooker(k, p.full_group, &rk, err);
        if (rc == 0)
                rc = commit(rk, &p, err);
        if (rk)
                rd_kafka_destroy(rk);
        if (rc == 0)
                rc = is_there(log, &p, &done, err);
        if (rc == 0 && !done)
                rc = df_fail(err, DF_EAGAIN, "group %s: the commit of %s/%u cannot be read back",
                             p.full_group, p.full_topic, partition);
        return rc;
}
