/* explain_raw.c - what the raw records and their segments say of a window (explain.h). */
#include "df/clock.h"
#include "jobs/api/explain.h"
#include "jobs/common/raw_scan.h"

/* ---- offsets, where the seals are gone ---- */

struct heartbeats {
        const struct ad_explain_context *c;
        struct df_clock clock;
        int64_t passed_ms; /* what the watermark is to reach */
        uint64_t behind;   /* the record that made it do so; 0: none yet */
};

static int on_record(void *arg, const struct df_record *r, struct df_error *err)
{
        struct heartbeats *h = arg;
        struct df_error poison = {0};
        struct ad_batch b;

        (void)err;
        df_clock_record(&h->clock, r->append_ms);
        if (ad_wire_batch_peek(r->value, &b, &poison) < 0 || !b.has_heartbeat)
                return 0; /* also of a poison record (E2): it has none */
        (void)df_clock_judge(&h->clock, h->c->rules, b.heartbeat.receive_ms,
                             b.heartbeat.receive_ms);
        if (h->clock.watermark_ms < h->passed_ms)
                return 0;
        h->behind = r->offset + 1;
        return 1;
}

static bool stopped(void *arg)
{
        const struct heartbeats *h = arg;

        return h->c->stop && h->c->stop(h->c->stop_arg);
}

/* The watermark is at least that of the heartbeats (T2, T4), which ingest writes every few seconds;
 * and it passes no time that an append time, and the 10 s that a receipt may be ahead of it, have
 * not passed. So from there on few records say behind which one every event is late (W5). */
static int find_end(const struct ad_explain_context *c, struct ad_explain_source *s, int64_t to_ms,
                    uint64_t end, struct df_error *err)
{
        uint64_t max = c->records_max ? c->records_max : AD_EXPLAIN_RECORDS_MAX;
        struct heartbeats h = {.c = c, .passed_ms = to_ms + c->grace_ms};
        struct ad_raw_scan scan = {.log = c->source,
                                   .topic = s->name.stream,
                                   .partition = s->name.partition,
                                   .stop = stopped,
                                   .record = on_record,
                                   .arg = &h};
        int64_t since =
                h.passed_ms + c->rules->out_of_orderness_ms - c->rules->receive_ahead_max_ms;
        int rc = df_log_offset_at(c->source, s->name.stream, s->name.partition, since, &scan.from,
                                  err);

        df_clock_init(&h.clock);
        if (scan.from > end)
                scan.from = end;
        scan.to = end - scan.from > max ? scan.from + max : end;
        if (rc == 0)
                rc = ad_raw_scan(&scan, err);
        s->complete = h.behind > 0;
        s->to_offset = h.behind ? h.behind : scan.to;
        return rc < 0 ? rc : 0;
}

int adi_explain_raw(const struct ad_explain_context *c, struct ad_explain_source *s,
                    int64_t from_ms, int64_t to_ms, struct df_error *err)
{
        struct ad_explain_source seals = *s;
        uint64_t first = 0, end = 0;
        int rc = df_log_bounds(c->source, s->name.stream, s->name.partition, &first, &end, err);

        if (rc == 0)
                rc = df_log_offset_at(c->source, s->name.stream, s->name.partition,
                                      from_ms - AD_EXPLAIN_AHEAD_MS, &s->from_offset, err);
        if (rc == 0)
                rc = find_end(c, s, to_ms, end, err);
        if (rc < 0)
                return rc;
        s->raw_gone = first > 0 && s->from_offset <= first;
        s->by_records = true;
        if (seals.seals > 0 && (!s->complete || seals.from_offset < s->to_offset)) {
                s->to_offset = seals.to_offset; /* some are left of the window's */
                s->complete = seals.complete;
                if (seals.from_offset < s->from_offset)
                        s->from_offset = seals.from_offset;
        } else {
                s->seals = 0; /* those that were met are of later windows */
        }
        if (s->from_offset > s->to_offset)
                s->from_offset = s->to_offset;
        return 0;
}

/* ---- segments ---- */

int adi_explain_segments(const struct ad_explain_context *c, struct ad_explain_source *s,
                         int64_t since_ms, size_t *listed, struct df_arena *arena,
                         struct df_error *err)
{
        struct df_segment_id id = {.generation = s->name.generation,
                                   .partition = s->name.partition};
        size_t max = c->segments_max ? c->segments_max : AD_EXPLAIN_SEGMENTS_MAX;
        struct df_archive_manifest m = {0};
        uint32_t first = 0;
        int rc;

        if (!c->objects || s->to_offset == 0)
                return 0;
        memcpy(id.topic, s->name.stream, sizeof(id.topic));
        rc = df_archive_manifest_read(c->objects, &id, &m, err);
        if (rc == 0 && m.count > 0)
                s->archived_to = m.entries[m.count - 1].end;
        while (first < m.count && (m.entries[first].end <= s->from_offset ||
                                   m.entries[first].max_append_ms < since_ms))
                first++;
        while (first + s->segment_count < m.count &&
               m.entries[first + s->segment_count].first < s->to_offset)
                s->segment_count++;
        s->segments_listed = s->segment_count;
        if (s->segments_listed > max - *listed)
                s->segments_listed = (uint32_t)(max - *listed);
        *listed += s->segments_listed;
        if (s->segments_listed) {
                size_t size = s->segments_listed * sizeof(*s->segments);

                s->segments = df_arena_alloc(arena, size);
                if (s->segments)
                        memcpy(s->segments, &m.entries[first], size);
                else
                        rc = df_fail(err, DF_ENOMEM, "segments");
        }
        df_archive_manifest_release(&m);
        return rc == DF_ENOENT ? 0 : rc;
}
