/* read.c - what a run wrote, checkpoint by checkpoint (runs.h). */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "jobs/common/json.h"
#include "jobs/runs/runs.h"

#define COLLECT_BYTES (256u << 20) /* payload of one collection: at most DF_OUTBOX_MAX */
#define READ_RECORDS 256
#define STALL_MS 60000
#define SETTLE_MS 5000

struct reading {
        const struct ad_replay *run;
        const char *topic;
        uint32_t partition;
        struct ad_replay_mark *mark;
        int (*take)(void *arg, const struct df_collection *c, struct df_error *err);
        void *arg;
};

void ad_replay_put_cell(struct ad_json *j, const struct ad_cell *c)
{
        ad_json_put_int(j, "impressions", c->impressions);
        ad_json_put_int(j, "clicks", c->clicks);
        ad_json_put_int(j, "conversions", c->conversions);
        ad_json_put_int(j, "spend_nanos", c->spend);
        ad_json_put_int(j, "payout_nanos", c->payout);
        ad_json_put_int(j, "conversion_value_nanos", c->value);
        ad_json_put_int(j, "invalid_impressions", c->invalid[0]);
        ad_json_put_int(j, "invalid_clicks", c->invalid[1]);
        ad_json_put_int(j, "invalid_conversions", c->invalid[2]);
}

static int gap(const struct reading *f, const struct df_collection *c, struct df_error *err)
{
        return df_fail(err, DF_ECORRUPT,
                       "run %s, partition %u: the seal of checkpoint %" PRIu64 " covers [%" PRIu64
                       ", %" PRIu64 "), the ones before it end at %" PRIu64
                       ": `adtally %s --drop %s`, then again",
                       f->run->id, f->partition, c->origin.k, c->seal.from_offset,
                       c->seal.to_offset, f->mark->covered, f->run->kind->name, f->run->id);
}

static int take_collection(struct reading *f, const struct df_collection *c, uint64_t floor,
                           struct df_error *err)
{
        struct ad_replay_mark *m = f->mark;

        if (c->origin.k != m->k + 1 || c->seal.from_offset != m->covered ||
            (m->closed && !ad_topic_is_import(f->run->pin.topic.name)))
                return gap(f, c, err);
        m->k = c->origin.k;
        m->covered = c->seal.to_offset;
        m->closed = c->seal.closed;
        m->generation = c->origin.source.generation;
        m->offset = floor;
        m->final_through_ms = c->seal.final_through_ms;
        return f->take(f->arg, c, err);
}

static int take_record(struct reading *f, struct df_collector *collector,
                       const struct df_record *record, struct df_error *err)
{
        struct df_collection c;
        enum df_collect what = DF_COLLECT_MORE;
        int rc = df_collector_add(collector, record, &what, &c, err);

        if (rc == 0 && what == DF_COLLECT_DAMAGED)
                rc = df_fail(err, DF_ECORRUPT,
                             "run %s, partition %u: offset %" PRIu64 " of %s is damaged",
                             f->run->id, f->partition, record->offset, f->topic);
        if (rc < 0 || what != DF_COLLECT_COMPLETE)
                return rc;
        return take_collection(f, &c, df_collector_floor(collector, record->offset + 1), err);
}

static int read_to(struct reading *f, struct df_log_reader *r, struct df_collector *collector,
                   uint64_t end, struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        int64_t moved_ms = df_monotonic_ms();
        int rc = 0;

        while (rc == 0 && df_log_position(r) < end) {
                size_t n = 0;

                rc = df_log_poll(r, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = take_record(f, collector, &records[i], err);
                if (n > 0)
                        moved_ms = df_monotonic_ms();
                else if (rc == 0 && df_process_stopping())
                        rc = df_fail(err, DF_EAGAIN, "stopped: the same command goes on");
                else if (rc == 0 && df_monotonic_ms() - moved_ms > STALL_MS)
                        rc = df_fail(err, DF_EAGAIN, "%s cannot be read", f->topic);
                else
                        (void)usleep(1000);
        }
        return rc;
}

static bool is_whole(const struct reading *f)
{
        const struct ad_replay_span *span = &f->run->pin.span[f->partition];

        const struct ad_replay_mark *m = f->mark;

        return (m->closed || f->run->kind->open) && m->covered == span->to && m->k > 0 &&
               (span->k == 0 || m->k == span->k);
}

/* On Kafka a commit is answered when it is decided; readers see its records a moment later. */
static int read_whole(struct reading *f, struct df_log *log, struct df_log_reader *r,
                      struct df_collector *collector, struct df_error *err)
{
        int64_t until = df_monotonic_ms() + SETTLE_MS;
        uint64_t first = 0, end = 0;
        int rc;

        for (;;) {
                rc = df_log_bounds(log, f->topic, f->partition, &first, &end, err);
                if (rc == 0)
                        rc = read_to(f, r, collector, end, err);
                if (rc < 0 || is_whole(f) || df_monotonic_ms() > until)
                        return rc;
                (void)usleep(10000);
        }
}

/* Where the mark stands, or the first record that is there. */
static int open_at(struct df_log *log, const struct reading *f, struct df_log_reader **ret_reader,
                   struct df_collector **ret_collector, struct df_error *err)
{
        const struct ad_replay_mark *m = f->mark;
        struct df_source source = {.generation = m->generation, .partition = f->partition};
        uint64_t first = 0, end = 0;
        int rc = df_log_bounds(log, f->topic, f->partition, &first, &end, err);

        (void)snprintf(source.stream, sizeof(source.stream), "%s", f->run->pin.topic.name);
        if (rc == 0 && m->k > 0 && (m->offset < first || m->offset > end))
                rc = df_fail(err, DF_ECORRUPT,
                             "%s/%u holds [%" PRIu64 ", %" PRIu64 "), not %" PRIu64, f->topic,
                             f->partition, first, end, m->offset);
        if (rc == 0)
                rc = df_log_reader_open(log, f->topic, f->partition, m->k > 0 ? m->offset : first,
                                        NULL, ret_reader, err);
        if (rc == 0)
                rc = df_collector_create(COLLECT_BYTES, ret_collector, err);
        return rc == 0 && m->k > 0 ? df_collector_applied(*ret_collector, &source, m->k, err) : rc;
}

void ad_replay_mark_start(const struct ad_replay *run, uint32_t partition,
                          struct ad_replay_mark *ret)
{
        *ret = (struct ad_replay_mark){.covered = run->pin.span[partition].from};
}

int ad_replay_read(struct df_log *log, const struct ad_replay *run, const char *topic,
                   uint32_t partition, struct ad_replay_mark *mark,
                   int (*take)(void *arg, const struct df_collection *c, struct df_error *err),
                   void *arg, struct df_error *err)
{
        struct reading f = {.run = run,
                            .topic = topic,
                            .partition = partition,
                            .mark = mark,
                            .take = take,
                            .arg = arg};
        struct df_collector *collector = NULL;
        struct df_log_reader *r = NULL;
        int rc = open_at(log, &f, &r, &collector, err);

        if (rc == 0)
                rc = read_whole(&f, log, r, collector, err);
        df_collector_destroy(collector);
        df_log_reader_close(r);
        if (rc == 0 && !is_whole(&f))
                rc = df_fail(err, DF_ECORRUPT,
                             "run %s, partition %u: %s ends at offset %" PRIu64 " of %" PRIu64
                             ": was it deleted? `adtally %s --drop %s`, then again",
                             run->id, partition, topic, mark->covered, run->pin.span[partition].to,
                             run->kind->name, run->id);
        return rc;
}
