/* quality.c - GET /quality as JSON. */
#include "jobs/api/quality.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/common/json.h"
#include "jobs/common/times.h"

#define HOUR_MS 3600000LL
#define MINUTE_MS 60000LL
#define STARTS_SHOWN 20

static void put_time(struct ad_json *j, const char *key, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        ad_json_key(j, key);
        if (ms <= 0 || ms == DF_TIME_MAX)
                ad_json_null(j); /* none yet, or closed: `closed` says which */
        else
                ad_json_bytes(j, df_bytes(text, (size_t)ad_time_text(ms, text)));
}

static void put_hex(struct ad_json *j, const char *key, uint64_t v)
{
        char text[20];

        (void)snprintf(text, sizeof(text), "%016" PRIx64, v);
        ad_json_put_text(j, key, text);
}

static void put_share(struct ad_json *j, const char *key, uint64_t part, uint64_t all)
{
        ad_json_key(j, key);
        ad_json_ratio(j, part, all);
}

static void put_durable(struct ad_json *j, const struct ad_ledger *l)
{
        ad_json_put_int(j, "accepted", l->accepted);
        ad_json_put_int(j, "counted", l->counted);
        ad_json_put_int(j, "duplicate", l->duplicate);
        ad_json_put_int(j, "conflict", l->conflict);
        ad_json_put_int(j, "late", l->late);
        ad_json_put_int(j, "quarantined", l->quarantined);
        ad_json_put_int(j, "pending", l->pending);
}

static void put_ledger(struct ad_json *j, const struct ad_quality *q, const struct ad_ledger *l,
                       bool balanced)
{
        ad_json_key(j, "ledger");
        ad_json_open(j);
        ad_json_put_int(j, "received", l->received);
        ad_json_put_int(j, "rejected", l->rejected);
        ad_json_put_int(j, "unanswered", l->unanswered);
        put_durable(j, l);
        ad_json_put_int(j, "accepted_at_edge", l->accepted_at_edge);
        ad_json_put_int(j, "imported", l->imported);
        ad_json_put_bool(j, "pending_exact", q->tail->exact);
        ad_json_close(j);
        ad_json_put_bool(j, "balanced", balanced);
}

/* Every outcome by its code, so that nothing hides in a class. */
static void put_outcomes(struct ad_json *j, const struct ad_status *s)
{
        ad_json_key(j, "outcomes");
        ad_json_open(j);
        for (unsigned o = 1; o < AD_OUTCOME_MAX; o++) {
                uint64_t sum = 0;

                for (size_t i = 0; i < s->source_count; i++)
                        sum += s->sources[i].outcomes[o];
                if (sum)
                        ad_json_put_int(j, ad_reason_info(o)->code, sum);
        }
        ad_json_close(j);
}

/* ---- freshness and completeness ---- */

static void put_lag(struct ad_json *j, const struct ad_quality *q, int64_t watermark_ms)
{
        const struct ad_status *s = q->status;
        uint64_t events = 0, rollups = 0, read[DF_PARTITIONS_MAX] = {0};

        for (size_t i = 0; i < s->source_count; i++)
                if (ad_status_is_current(s, &s->sources[i]))
                        read[s->sources[i].name.partition] = s->sources[i].to_offset;
        for (uint32_t p = 0; p < s->partitions; p++) {
                const struct ad_outside *o = &s->outside;

                events += o->events_end[p] > read[p] ? o->events_end[p] - read[p] : 0;
                rollups += o->rollups_end[p] > o->rollups_read[p]
                                   ? o->rollups_end[p] - o->rollups_read[p]
                                   : 0;
        }
        ad_json_key(j, "lag");
        ad_json_open(j);
        ad_json_put_int(j, "event_records", events);
        ad_json_put_int(j, "rollup_records", rollups);
        ad_json_key(j, "watermark_ms");
        if (watermark_ms > 0 && watermark_ms != DF_TIME_MAX)
                ad_json_int(j, q->now_ms - watermark_ms);
        else
                ad_json_null(j);
        ad_json_close(j);
}

static void put_freshness(struct ad_json *j, const struct ad_freshness *f)
{
        ad_json_key(j, "freshness");
        ad_json_open(j);
        ad_json_put_text(j, "window", "5m");
        ad_json_put_int(j, "events", f->events);
        ad_json_key(j, "p50_ms");
        if (f->events)
                ad_json_int(j, f->p50_ms);
        else
                ad_json_null(j);
        ad_json_key(j, "p95_ms");
        if (f->events)
                ad_json_int(j, f->p95_ms);
        else
                ad_json_null(j);
        ad_json_close(j);
}

/* Of the 60 whole minutes before now, as /metrics would say it of that range. */
static int put_completeness(struct ad_json *j, const struct ad_quality *q, struct df_error *err)
{
        const struct ad_status *s = q->status;
        struct ad_live *live = calloc(AD_LIVE_MAX, sizeof(*live));
        int64_t end = q->now_ms / MINUTE_MS * MINUTE_MS, bounds[61];
        int64_t final = DF_TIME_MAX;
        double late = ad_status_late_share(s);
        size_t n;

        if (!live)
                return df_fail(err, DF_ENOMEM, "quality");
        for (int i = 0; i <= 60; i++)
                bounds[i] = end - HOUR_MS + i * MINUTE_MS;
        n = ad_status_live(s, q->tenant_id, bounds[0], end, live);
        for (size_t i = 0; i < n; i++)
                if (live[i].everywhere && live[i].final_through_ms < final)
                        final = live[i].final_through_ms;
        put_time(j, "watermark", ad_live_watermark(live, n));
        put_time(j, "final_through", final);
        put_lag(j, q, ad_live_watermark(live, n));
        put_freshness(j, &s->freshness);
        ad_json_key(j, "completeness");
        ad_json_double(j, ad_live_completeness(live, n, bounds, 60) * (1 - late));
        ad_json_put_text(j, "completeness_of", "the last 60 minutes");
        ad_json_key(j, "expected_late_share");
        if (late > 0)
                ad_json_double(j, late);
        else
                ad_json_null(j);
        ad_json_key(j, "missing_partitions");
        ad_json_open_array(j);
        for (size_t i = 0; i < s->outside.missing_count; i++)
                ad_json_int(j, s->outside.missing[i]);
        ad_json_close_array(j);
        free(live);
        return 0;
}

/* ---- lists ---- */

static void put_start(struct ad_json *j, const struct ad_start_ledger *l)
{
        ad_json_open(j);
        put_hex(j, "start", l->start_id);
        put_time(j, "heartbeat", l->edge.heartbeat_ms);
        ad_json_put_bool(j, "closed", l->edge.closing);
        ad_json_put_int(j, "received", l->edge.received);
        ad_json_put_int(j, "accepted", l->edge.accepted);
        ad_json_put_int(j, "rejected", l->edge.rejected);
        ad_json_put_int(j, "unanswered", l->edge.unanswered);
        ad_json_put_int(j, "stored", l->stored);
        ad_json_put_int(j, "seen", l->seen);
        ad_json_put_int(j, "lost", l->lost);
        ad_json_put_bool(j, "balanced", ad_start_balanced(l));
        ad_json_close(j);
}

static void put_starts(struct ad_json *j, const struct ad_status *s,
                       const struct ad_start_ledger *starts, size_t count)
{
        ad_json_key(j, "ingest");
        ad_json_open_array(j);
        for (size_t i = 0; i < count && i < STARTS_SHOWN; i++)
                put_start(j, &starts[i]);
        ad_json_close_array(j);
        ad_json_put_int(j, "ingest_starts", count + s->forgotten_count);
}

static void put_import(struct ad_json *j, const struct ad_source *o)
{
        ad_json_key(j, "import");
        if (!o->is_import) {
                ad_json_null(j);
                return;
        }
        ad_json_open(j);
        ad_json_put_text(j, "tenant", o->tenant);
        ad_json_put_text(j, "dataset", o->dataset);
        put_time(j, "from", o->import_from_ms);
        put_time(j, "to", o->import_to_ms);
        ad_json_put_bool(j, "aborted", o->aborted);
        ad_json_close(j);
}

/* Where the tenants have rows of this source: `adtally import` asks before it writes (R6). */
static void put_spans(struct ad_json *j, const struct ad_quality *q, const struct ad_source *o)
{
        ad_json_key(j, "spans");
        ad_json_open_array(j);
        for (size_t i = 0; i < q->status->span_count; i++) {
                const struct ad_span *p = &q->status->spans[i];

                if (p->source != o->id ||
                    (!q->any_tenant && !df_bytes_eq(df_bytes_str(p->tenant), q->tenant_id)))
                        continue;
                ad_json_open(j);
                ad_json_put_text(j, "tenant", p->tenant);
                put_time(j, "from", (int64_t)p->first_minute * MINUTE_MS);
                put_time(j, "to", ((int64_t)p->last_minute + 1) * MINUTE_MS);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

static void put_source(struct ad_json *j, const struct ad_quality *q, size_t i)
{
        const struct ad_source *o = &q->status->sources[i];
        bool current = ad_status_is_current(q->status, o);
        uint64_t imbalance = ad_source_imbalance(q->status, i);
        struct ad_ledger l;

        ad_source_ledger(o, current ? q->tail->events[o->name.partition] : 0, &l);
        ad_json_open(j);
        ad_json_put_text(j, "stream", o->name.stream);
        put_hex(j, "generation", o->name.generation);
        ad_json_put_int(j, "partition", o->name.partition);
        ad_json_put_bool(j, "closed", o->closed);
        ad_json_put_int(j, "k", o->k);
        ad_json_put_int(j, "epoch", o->epoch);
        ad_json_put_int(j, "from_offset", o->from_offset);
        ad_json_put_int(j, "to_offset", o->to_offset);
        put_time(j, "watermark", o->watermark_ms);
        put_time(j, "final_through", o->final_through_ms);
        put_time(j, "oldest_open_window", ad_oldest_open(q->status, i));
        put_time(j, "applied", o->applied_ms);
        ad_json_key(j, "ledger");
        ad_json_open(j);
        put_durable(j, &l);
        ad_json_close(j);
        ad_json_put_bool(j, "balanced", imbalance == 0);
        ad_json_put_int(j, "imbalance", imbalance);
        ad_json_put_int(j, "sequence_gaps", o->sequence_gaps);
        ad_json_put_int(j, "chain_gaps", o->chain_gaps);
        ad_json_put_int(j, "records", o->records);
        ad_json_put_int(j, "poison_records", o->poison_records);
        ad_json_put_int(j, "heartbeats", o->heartbeats);
        ad_json_put_int(j, "rows", o->rows);
        ad_json_key(j, "versions");
        ad_json_open(j);
        put_hex(j, "config", o->config);
        ad_json_put_int(j, "prices", o->price_version);
        ad_json_put_int(j, "labels", o->label_version);
        ad_json_put_text(j, "binary", o->binary_version);
        ad_json_close(j);
        put_import(j, o);
        put_spans(j, q, o);
        ad_json_close(j);
}

static void put_sources(struct ad_json *j, const struct ad_quality *q)
{
        ad_json_key(j, "sources");
        ad_json_open_array(j);
        for (size_t i = 0; i < q->status->source_count; i++) {
                const struct ad_source *o = &q->status->sources[i];

                if (!o->is_import || q->any_tenant ||
                    df_bytes_eq(df_bytes_str(o->tenant), q->tenant_id))
                        put_source(j, q, i);
        }
        ad_json_close_array(j);
}

/* Availability of this server: the share of its answers that were its own fault. */
static void put_budget(struct ad_json *j, const struct ad_quality *q)
{
        double allowed = (1 - AD_AVAILABILITY_OBJECTIVE) * (double)q->answers;

        ad_json_key(j, "error_budget");
        ad_json_open(j);
        ad_json_put_text(j, "of", "answers of this server that are not 5xx, since it started");
        ad_json_key(j, "objective");
        ad_json_double(j, AD_AVAILABILITY_OBJECTIVE);
        put_time(j, "since", q->since_ms);
        ad_json_put_int(j, "answers", q->answers);
        ad_json_put_int(j, "failures", q->failures);
        ad_json_key(j, "burn"); /* 1 = as many failures as the objective allows */
        if (q->answers)
                ad_json_double(j, (double)q->failures / allowed);
        else
                ad_json_null(j);
        ad_json_close(j);
}

int ad_quality_json(const struct ad_quality *q, struct df_buf *b, struct df_error *err)
{
        struct ad_start_ledger *starts = NULL;
        struct ad_ledger l;
        size_t count = 0;
        bool balanced;
        struct ad_json *j;
        int rc = ad_start_ledgers(q->status, q->tail, &starts, &count, err), end;

        if (rc < 0)
                return rc;
        ad_whole_ledger(q->status, q->tail->events, starts, count, &l, &balanced);
        j = ad_json_begin(b);
        ad_json_open(j);
        ad_json_put_text(j, "scope", "pipeline"); /* all tenants: events are counted by source */
        ad_json_put_bytes(j, "tenant", q->tenant_id);
        ad_json_put_bool(j, "all_tenants", q->any_tenant); /* whose spans and imports are shown */
        put_time(j, "as_of", q->status->committed_ms);
        put_time(j, "now", q->now_ms);
        put_time(j, "realtime_seen", q->status->outside.realtime_seen_ms);
        rc = put_completeness(j, q, err);
        put_share(j, "duplicate_rate", l.duplicate, l.accepted - l.pending);
        put_share(j, "late_rate", l.late, l.accepted - l.pending);
        put_share(j, "quarantine_rate", l.quarantined + l.conflict, l.accepted - l.pending);
        put_ledger(j, q, &l, balanced);
        put_outcomes(j, q->status);
        put_starts(j, q->status, starts, count);
        put_sources(j, q);
        ad_json_put_int(j, "damaged_collections", q->status->outside.damaged_collections);
        ad_json_put_int(j, "refused_rows", q->status->refused_rows);
        ad_drift_json(j, q->drift);
        put_budget(j, q);
        ad_json_close(j);
        end = ad_json_end(j, b, rc < 0 ? NULL : err);
        free(starts);
        return rc < 0 ? rc : end;
}
