/* kafka_group_test.h - members of a consumer group, for tests of membership and transactions. */
#ifndef KAFKA_GROUP_TEST_H
#define KAFKA_GROUP_TEST_H

#include "kafka_test.h"

#define GROUP "realtime"
#define PARTITIONS_MAX 64

struct member {
        struct df_log *log; /* of its own, as in a process of its own */
        struct df_group *group;
        bool has[PARTITIONS_MAX]; /* partitions of "e"; of "f" they begin at PARTITIONS_MAX / 2 */
        int count;
        int assigns, revokes, losses;
        int failed; /* what poll answered last, when not 0 */
};

static inline void member_open(struct member *m, const char *prefix, const char *instance)
{
        static const char *const topics[] = {"e"};

        *m = (struct member){.log = open_log(prefix)};
        ok(df_kafka_group_open(m->log, GROUP, instance, &m->group, &err));
        ok(df_group_subscribe(m->group, topics, 1, &err));
}

/* One for the time of a run. */
static inline void run_member_open(struct member *m, const char *prefix, const char *name)
{
        static const char *const topics[] = {"e"};

        *m = (struct member){.log = open_log(prefix)};
        ok(df_kafka_group_open_run(m->log, GROUP, name, &m->group, &err));
        ok(df_group_subscribe(m->group, topics, 1, &err));
}

static inline void member_close(struct member *m)
{
        df_group_close(m->group);
        df_log_close(m->log);
        *m = (struct member){0};
}

/* One poll and, if there is a change, what a worker does about it. */
static inline enum df_group_change member_poll(struct member *m)
{
        struct df_group_event ev;

        err = (struct df_error){0};
        m->failed = df_group_poll(m->group, 20, &ev, &err);
        if (m->failed || ev.change == DF_GROUP_NONE)
                return DF_GROUP_NONE;
        memset(m->has, 0, sizeof(m->has));
        m->count = 0;
        m->assigns += ev.change == DF_GROUP_ASSIGN;
        m->revokes += ev.change == DF_GROUP_REVOKE;
        m->losses += ev.change == DF_GROUP_LOST;
        for (size_t i = 0; ev.change == DF_GROUP_ASSIGN && i < ev.count; i++) {
                bool f = strcmp(ev.partitions[i].topic, "f") == 0;

                assert_true(f || strcmp(ev.partitions[i].topic, "e") == 0);
                m->has[ev.partitions[i].partition + (f ? PARTITIONS_MAX / 2 : 0)] = true;
                m->count++;
        }
        df_group_done(m->group);
        return ev.change;
}

/* Poll all members until they hold so many partitions together, nobody less than least. */
static inline void members_settle(struct member **all, int n, int partitions, int least)
{
        int64_t until = dfk_now_ms() + 2 * WAIT_MS;

        for (;;) {
                int sum = 0;
                bool fair = true;

                for (int i = 0; i < n; i++) {
                        (void)member_poll(all[i]);
                        if (all[i]->failed)
                                fail_msg("member %d: %s", i, err.text);
                        sum += all[i]->count;
                        fair &= all[i]->count >= least;
                }
                if (sum == partitions && fair)
                        return;
                if (dfk_now_ms() > until)
                        fail_msg("%d of %d partitions are assigned", sum, partitions);
        }
}

static inline void member_settles(struct member *m, int partitions)
{
        members_settle(&m, 1, partitions, partitions);
}

/* One change of the kind comes; what else comes before it is followed. */
static inline void member_expects(struct member *m, enum df_group_change change)
{
        int64_t until = dfk_now_ms() + 2 * WAIT_MS;

        while (member_poll(m) != change) {
                if (m->failed)
                        fail_msg("%s", err.text);
                if (dfk_now_ms() > until)
                        fail_msg("change %d does not come", (int)change);
        }
}

/* What the cluster says is committed, by another client: offset, -1 = nothing. */
static inline int64_t raw_committed(const char *prefix, const char *topic, int partition,
                                    char *metadata, size_t cap)
{
        const char *const settings[][2] = {{"group.id", full_name(prefix, GROUP)}, {NULL, NULL}};
        rd_kafka_t *rk = raw_client(RD_KAFKA_CONSUMER, settings);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_t *p =
                rd_kafka_topic_partition_list_add(list, full_name(prefix, topic), partition);
        int64_t offset;

        assert_int_equal(rd_kafka_committed(rk, list, WAIT_MS), 0);
        p = &list->elems[0];
        offset = p->offset < 0 ? -1 : p->offset;
        assert_true(p->metadata_size < cap);
        (void)snprintf(metadata, cap, "%.*s", (int)p->metadata_size,
                       p->metadata ? (const char *)p->metadata : "");
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_destroy(rk);
        return offset;
}

#endif
