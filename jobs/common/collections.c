#include "jobs/common/collections.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/run.h"

#define READ_RECORDS 256
#define STALL_MS 60000
#define IDLE_US 1000

struct ad_collections {
        struct df_log_reader *reader;
        struct df_collector *collector;
        char topic[DF_TOPIC_NAME_MAX + 1];
        uint32_t partition;
        uint64_t end;
        bool whole; /* it began at the topic's first record */
        bool any;   /* a collection was complete */
        uint64_t damaged;
        struct df_record records[READ_RECORDS];
        size_t count, at;
        struct df_collection current;
};

int ad_collections_open(struct df_log *log, const char *topic, uint32_t partition, uint64_t from,
                        struct ad_collections **ret, struct df_error *err)
{
        struct ad_collections *c = calloc(1, sizeof(*c));
        uint64_t first = 0;
        int rc;

        *ret = NULL;
        if (!c)
                return df_fail(err, DF_ENOMEM, "reader of %s", topic);
        memcpy(c->topic, topic, strlen(topic) + 1);
        c->partition = partition;
        rc = df_log_bounds(log, topic, partition, &first, &c->end, err);
        c->whole = from <= first && first == 0;
        if (rc == 0)
                rc = df_log_reader_open(log, topic, partition, from < first ? first : from, NULL,
                                        &c->reader, err);
        if (rc == 0)
                rc = df_collector_create(AD_COLLECT_BYTES_MAX, &c->collector, err);
        if (rc < 0) {
                ad_collections_close(c);
                return rc;
        }
        *ret = c;
        return 0;
}

/* 1: *c->current is a new one. */
static int take(struct ad_collections *c, const struct df_record *r, struct df_error *err)
{
        enum df_collect what = DF_COLLECT_MORE;
        int rc = df_collector_add(c->collector, r, &what, &c->current, err);

        if (rc == DF_EPARSE || rc == DF_ELIMIT) {
                c->damaged++;
                return 0; /* its collection will not match its seal */
        }
        if (rc < 0)
                return rc;
        if (what == DF_COLLECT_DAMAGED && (c->any || c->whole))
                c->damaged++;
        if (what != DF_COLLECT_COMPLETE)
                return 0;
        c->any = true;
        return 1;
}

static int fill(struct ad_collections *c, int64_t *moved_ms, struct df_error *err)
{
        int rc;

        c->at = c->count = 0;
        rc = df_log_poll(c->reader, c->records, READ_RECORDS, &c->count, err);
        if (rc < 0)
                return rc;
        if (c->count > 0)
                *moved_ms = df_monotonic_ms();
        else if (df_monotonic_ms() - *moved_ms > STALL_MS)
                return df_fail(err, DF_EAGAIN, "%s/%u cannot be read", c->topic, c->partition);
        else if (df_log_position(c->reader) < c->end)
                (void)usleep(IDLE_US);
        return 0;
}

int ad_collections_next(struct ad_collections *c, bool (*stop)(void *arg), void *arg,
                        const struct df_collection **ret, struct df_error *err)
{
        int64_t moved_ms = df_monotonic_ms();
        int rc = 0;

        *ret = NULL;
        for (;;) {
                while (c->at < c->count) {
                        const struct df_record *r = &c->records[c->at++];

                        if (r->offset >= c->end)
                                return 0;
                        rc = take(c, r, err);
                        if (rc < 0)
                                return rc;
                        if (rc > 0) {
                                *ret = &c->current;
                                return 0;
                        }
                }
                if (df_log_position(c->reader) >= c->end)
                        return 0;
                if (stop && stop(arg))
                        return df_fail(err, DF_EAGAIN, "stopped");
                rc = fill(c, &moved_ms, err);
                if (rc < 0)
                        return rc;
        }
}

uint64_t ad_collections_damaged(const struct ad_collections *c)
{
        return c->damaged;
}

void ad_collections_close(struct ad_collections *c)
{
        if (!c)
                return;
        df_collector_destroy(c->collector);
        df_log_reader_close(c->reader);
        free(c);
}
