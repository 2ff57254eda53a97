/* corrections_read.c - the topic `commands`, read from its beginning (corrections.h). */
#include <inttypes.h>
#include <unistd.h>

#include "df/run.h"
#include "jobs/common/corrections.h"
#include "jobs/common/settings.h"

#define RECORDS 256
#define STALL_MS 60000
#define WAIT_US 1000

static int find_topic(void *arg, const struct df_topic_info *info)
{
        struct df_topic_info *ret = arg;

        if (strcmp(info->name, AD_TOPIC_COMMANDS) == 0)
                *ret = *info;
        return 0;
}

static int check_bounds(struct df_log *log, uint64_t *to, struct df_error *err)
{
        uint64_t first, end;
        int rc = df_log_bounds(log, AD_TOPIC_COMMANDS, 0, &first, &end, err);

        if (rc < 0)
                return rc;
        if (first > 0)
                return df_fail(err, DF_EOFFSET,
                               "topic %s begins at offset %" PRIu64 ": what was asked before it is "
                               "lost, so nothing can be billed; restore the topic",
                               AD_TOPIC_COMMANDS, first);
        if (*to == AD_CORRECTIONS_ALL)
                *to = end;
        return *to <= end ? 0
                          : df_fail(err, DF_EOFFSET,
                                    "topic %s ends at offset %" PRIu64 ", commands up to %" PRIu64
                                    " are wanted",
                                    AD_TOPIC_COMMANDS, end, *to);
}

static int read_to(struct ad_correction_log *l, struct df_log_reader *r, uint64_t to,
                   struct df_error *err)
{
        struct df_record records[RECORDS];
        int64_t moved_ms = df_monotonic_ms();
        int rc = 0;

        while (rc == 0 && df_log_position(r) < to) {
                size_t n = 0;

                rc = df_log_poll(r, records, RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        if (records[i].offset < to)
                                rc = ad_correction_log_add(l, records[i].offset, records[i].value,
                                                           err);
                if (rc < 0 || n > 0) {
                        moved_ms = df_monotonic_ms();
                        continue;
                }
                if (df_process_stopping())
                        return df_fail(err, DF_EAGAIN, "stopped");
                if (df_monotonic_ms() - moved_ms > STALL_MS)
                        return df_fail(err, DF_EAGAIN, "topic %s cannot be read",
                                       AD_TOPIC_COMMANDS);
                (void)usleep(WAIT_US);
        }
        return rc;
}

static int read_topic(struct ad_correction_log *l, struct df_log *log, uint64_t to,
                      struct df_error *err)
{
        struct df_log_reader *r = NULL;
        int rc = check_bounds(log, &to, err);

        if (rc == 0)
                rc = df_log_reader_open(log, AD_TOPIC_COMMANDS, 0, 0, NULL, &r, err);
        if (rc == 0)
                rc = read_to(l, r, to, err);
        df_log_reader_close(r);
        return rc;
}

int ad_correction_log_read(struct df_log *log, uint64_t to, struct ad_correction_log **ret,
                           struct df_error *err)
{
        struct df_topic_info topic = {0};
        struct ad_correction_log *l = NULL;
        int rc = df_log_topic_list(log, AD_TOPIC_COMMANDS, find_topic, &topic, err);

        if (rc == 0 && topic.partitions > 1)
                rc = df_fail(err, DF_ESCHEMA, "topic %s has %u partitions, not one: it is not ours",
                             AD_TOPIC_COMMANDS, topic.partitions);
        if (rc == 0)
                rc = ad_correction_log_create(&l, err);
        if (rc == 0 && (topic.partitions > 0 || (to > 0 && to != AD_CORRECTIONS_ALL)))
                rc = read_topic(l, log, to, err);
        if (rc == 0)
                rc = ad_correction_log_finish(l, err);
        if (rc == 0)
                *ret = l;
        else
                ad_correction_log_destroy(l);
        return rc;
}
