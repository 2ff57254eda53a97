/* bench_place.c - where a benchmark keeps what it makes, and that nothing of it stays: a directory
 * under --work, and on Kafka the topics and groups of this run's prefix. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "jobs/adtally/bench.h"

#define CONTROL_TOPIC "topics" /* of the adapter (df/kafka.h) */

int ad_bench_place_make(struct ad_bench *b, struct df_error *err)
{
        const char *work = df_config_text(b->config, "work");

        if (!work)
                work = getenv("TMPDIR");
        if (snprintf(b->dir, sizeof(b->dir), "%s/adtally-bench-XXXXXX", work ? work : "/tmp") >=
            (int)sizeof(b->dir)) {
                b->dir[0] = '\0';
                return df_fail(err, DF_EINVAL, "--work: the path is too long");
        }
        if (mkdtemp(b->dir))
                return 0;
        (void)df_fail_errno(err, DF_EIO, "create %s", b->dir);
        b->dir[0] = '\0';
        return err->code;
}

bool ad_bench_on_kafka(const struct ad_bench *b)
{
        return !ad_log_is_file(b->config);
}

int ad_bench_open_log(struct ad_bench *b, struct df_log **ret, struct df_error *err)
{
        struct df_filelog_options o = {.segment_bytes = df_config_bytes(b->config, "segment-size")};
        char dir[PATH_MAX];
        int rc;

        if (ad_bench_on_kafka(b)) {
                rc = ad_open_log(b->config, ret, err);
                b->on_cluster |= rc == 0;
                return rc;
        }
        (void)snprintf(dir, sizeof(dir), "%s/log", b->dir);
        rc = df_mkdirs(dir, err);
        return rc < 0 ? rc : df_filelog_open(dir, &o, ret, err);
}

static int remove_topics(const struct ad_bench *b, struct df_error *err)
{
        static const char *const topics[] = {AD_TOPIC_EVENTS,     AD_TOPIC_ROLLUPS,  AD_TOPIC_LATE,
                                             AD_TOPIC_QUARANTINE, AD_TOPIC_COMMANDS, AD_TOPIC_RUNS,
                                             AD_TOPIC_BILLING,    CONTROL_TOPIC};
        static const char *const groups[] = {AD_GROUP_REALTIME, AD_GROUP_RECONCILE, AD_GROUP_BOOKS};
        struct df_log *log = NULL;
        int rc = ad_open_log(b->config, &log, err);

        for (size_t i = 0; rc == 0 && i < sizeof(topics) / sizeof(topics[0]); i++)
                rc = df_log_topic_delete(log, topics[i], err);
        for (size_t i = 0; rc == 0 && i < sizeof(groups) / sizeof(groups[0]); i++)
                rc = df_kafka_group_delete(log, groups[i], err);
        df_log_close(log);
        return rc < 0 ? df_wrap(err, "topics that begin with %s are still there",
                                df_config_text(b->config, "kafka-prefix"))
                      : 0;
}

int ad_bench_place_remove(struct ad_bench *b, bool done, struct df_error *err)
{
        bool keep = !done && !df_process_stopping() && df_config_text(b->config, "work");
        struct df_error tree = {0};
        int rc = b->on_cluster ? remove_topics(b, err) : 0;

        if (!b->dir[0] || keep)
                return rc;
        if (df_remove_tree(b->dir, &tree) < 0 && rc == 0)
                rc = df_fail(err, tree.code, "%s", tree.text);
        return rc;
}

int ad_bench_stopped(struct df_error *err)
{
        return df_process_stopping() ? df_fail(err, DF_EAGAIN, "asked to stop") : 0;
}
