/* rollups_test.h - a file log whose `rollups` a test fills as the realtime job would (K4, K5). */
#ifndef ROLLUPS_TEST_H
#define ROLLUPS_TEST_H

#include "unit.h"

#include <time.h>

#include "df/filelog.h"
#include "df/run.h"
#include "jobs/api/follow.h"
#include "jobs/common/settings.h"
#include "state_test.h"

#define RT_PARTITIONS 2
#define RT_BASE_MINUTE 29500000LL
#define RT_MINUTE_MS 60000LL

struct rt {
        char dir[256];
        struct df_log *log;
        struct df_log_writer *rollups, *events;
        struct df_topic_info topics[2]; /* events, rollups */
        struct ad_zones *zones;
        struct ad_follow_options options;
        struct ad_follow *follow;
        struct df_seal last[RT_PARTITIONS]; /* of the collection written last */
        uint64_t k[RT_PARTITIONS];
};

static inline int rt_on_topic(void *arg, const struct df_topic_info *info)
{
        struct rt *t = arg;

        t->topics[strcmp(info->name, "events") == 0 ? 0 : 1] = *info;
        return 0;
}

static inline void rt_init(struct rt *t, uint64_t segment_bytes)
{
        struct df_filelog_options o = {
                .segment_bytes = segment_bytes, .reserve_bytes = 4096, .min_free_bytes = 1};
        char path[300];

        memset(t, 0, sizeof(*t));
        (void)temp_dir(t->dir);
        (void)snprintf(path, sizeof(path), "%s/log", t->dir);
        ok(df_mkdirs(path, err));
        ok(df_filelog_open(path, &o, &t->log, err));
        ok(ad_create_topics(t->log, RT_PARTITIONS, err));
        ok(df_log_topic_list(t->log, "events", rt_on_topic, t, err));
        ok(df_log_topic_list(t->log, "rollups", rt_on_topic, t, err));
        ok(df_log_writer_open(t->log, "rollups", &t->rollups, err));
        ok(df_log_writer_open(t->log, "events", &t->events, err));
        (void)snprintf(path, sizeof(path), "%s/run", t->dir);
        ok(df_mkdirs(path, err));
        ok(ad_zones_create(NULL, &t->zones, err));
        t->options = (struct ad_follow_options){
                .data_dir = t->dir, .log = t->log, .groupings = &ad_groupings_default};
        ok(ad_zones_get(t->zones, "UTC", &t->options.account_zone, err));
}

static inline void rt_release(struct rt *t)
{
        ad_follow_stop(t->follow);
        ad_zones_destroy(t->zones);
        df_log_writer_close(t->rollups);
        df_log_writer_close(t->events);
        df_log_close(t->log);
        remove_dir(t->dir);
}

static inline struct df_source rt_source(const struct rt *t, uint32_t partition)
{
        struct df_source s = {
                .stream = "events", .generation = t->topics[0].generation, .partition = partition};

        return s;
}

static inline void rt_append(struct df_log_writer *w, uint32_t partition, const struct df_buf *b)
{
        struct df_append a = {.partition = partition, .value = df_buf_bytes(b)};

        assert_false(b->failed);
        ok(df_log_append(w, &a, 1, err));
}

/* One row of grouping 0: `impressions` of a campaign in a minute. */
static inline void rt_row(struct df_buf *payload, const char *campaign, int64_t minute,
                          uint64_t impressions)
{
        struct ad_row row = {.minute = (uint64_t)minute,
                             .tenant_id = df_bytes_str("default"),
                             .dims = {df_bytes_str("adv"), df_bytes_str(campaign)},
                             .dim_count = 2,
                             .currency = df_bytes_str("EUR"),
                             .cell = {.impressions = impressions, .spend = 1500}};

        ad_wire_row(payload, &row);
}

/* The payload record of the next collection (k + 1) of the partition, without its seal. */
static inline void rt_payload(struct rt *t, uint32_t partition, uint64_t epoch,
                              const struct df_buf *payload)
{
        struct df_origin o = {
                .source = rt_source(t, partition), .k = t->k[partition] + 1, .epoch = epoch};
        struct df_buf b = {0};

        df_output_encode(&b, &o, df_buf_bytes(payload));
        rt_append(t->rollups, partition, &b);
        df_buf_release(&b);
}

/* Its seal; events: how many it says it counted. */
static inline void rt_seal(struct rt *t, uint32_t partition, uint64_t epoch,
                           const struct df_buf *payload, uint64_t events, bool damaged)
{
        struct df_seal *last = &t->last[partition], s = {0};
        struct df_origin o = {.source = rt_source(t, partition),
                              .k = t->k[partition] + 1,
                              .epoch = epoch,
                              .n = payload ? 1 : 0};
        struct df_buf b = {0};

        s.parent_k = t->k[partition];
        s.parent_digest = last->digest;
        s.digest = (struct df_hash128){o.k, partition + 77};
        s.from_offset = last->to_offset;
        s.to_offset = last->to_offset;
        s.rows = o.n;
        if (payload)
                s.rows_digest = df_digest_add((struct df_hash128){0, 0}, df_buf_bytes(payload));
        s.rows_digest.lo ^= damaged;
        s.events = s.outcomes[AD_COUNTED] = events;
        s.watermark_ms = s.max_append_ms = s.max_receive_ms = RT_BASE_MINUTE * RT_MINUTE_MS;
        s.final_through_ms = DF_TIME_MIN;
        (void)snprintf(s.binary_version, sizeof(s.binary_version), "test");
        df_output_encode_seal(&b, &o, &s);
        rt_append(t->rollups, partition, &b);
        df_buf_release(&b);
        if (damaged)
                return;
        *last = s;
        t->k[partition]++;
}

/* A whole collection with one row. */
static inline void rt_publish(struct rt *t, uint32_t partition, const char *campaign,
                              int64_t minute, uint64_t impressions)
{
        struct df_buf payload = {0};

        rt_row(&payload, campaign, minute, impressions);
        rt_payload(t, partition, 1, &payload);
        rt_seal(t, partition, 1, &payload, impressions, false);
        df_buf_release(&payload);
}

static inline void rt_follow(struct rt *t)
{
        ok(ad_follow_start(&t->options, &t->follow, err));
}

static inline void rt_stop(struct rt *t)
{
        ad_follow_stop(t->follow);
        t->follow = NULL;
}

static inline int rt_sum_cell(void *arg, struct df_bytes key, struct df_bytes value,
                              struct df_error *err)
{
        struct ad_cell c;

        assert_true(ad_cell_decode(value, &c));
        *(uint64_t *)arg += c.impressions;
        return 0;
}

/* All impressions that the view holds by minutes. */
static inline uint64_t rt_sum(struct rt *t)
{
        static const uint8_t from[] = {'c', AD_LEVEL_MINUTE}, to[] = {'c', AD_LEVEL_QUARTER};
        struct ad_view *v = ad_follow_take(t->follow);
        uint64_t sum = 0;

        if (!v)
                return UINT64_MAX;
        ok(df_kv_range(ad_view_kv(v), NULL, df_bytes(from, 2), df_bytes(to, 2), rt_sum_cell, &sum,
                       err));
        ad_follow_give(t->follow);
        return sum;
}

static inline double rt_metric(struct rt *t, const char *name)
{
        struct df_buf b = {0};
        const char *at;
        double v = -1;

        ad_follow_render(t->follow, &b);
        df_put_u8(&b, 0);
        at = strstr((const char *)b.data, name);
        if (at && (at = strchr(at, ' ')))
                v = strtod(at, NULL);
        df_buf_release(&b);
        return v;
}

static inline void rt_pause(void)
{
        const struct timespec ms = {0, 5000000};

        (void)nanosleep(&ms, NULL);
}

/* Until the condition holds; at most 20 s, for slow machines. */
#define rt_wait(condition)                                                                         \
        do {                                                                                       \
                int64_t end_ = df_monotonic_ms() + 20000;                                          \
                while (!(condition)) {                                                             \
                        if (df_monotonic_ms() > end_)                                              \
                                fail_msg("waited in vain for %s", #condition);                     \
                        rt_pause();                                                                \
                }                                                                                  \
        } while (0)

#endif
