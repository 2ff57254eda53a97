/* explain_write.c - an explanation as JSON (explain.h). */
#include <inttypes.h>
#include <stdio.h>

#include "df/sha256.h"
#include "jobs/api/explain.h"
#include "jobs/common/times.h"

static void put_time(struct ad_json *j, const char *key, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        if (ms == DF_TIME_MIN || ms == DF_TIME_MAX) {
                ad_json_put_null(j, key);
                return;
        }
        (void)ad_time_text(ms, text);
        ad_json_put_text(j, key, text);
}

static void put_u64_hex(struct ad_json *j, const char *key, uint64_t v)
{
        char text[17];

        (void)snprintf(text, sizeof(text), "%016" PRIx64, v);
        ad_json_put_text(j, key, text);
}

static void put_digest(struct ad_json *j, const char *key, struct df_hash128 h)
{
        char text[33];

        (void)snprintf(text, sizeof(text), "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
        ad_json_put_text(j, key, text);
}

/* Sums may be beyond the 64 bits that readers of JSON keep: they are text. */
static void put_nanos(struct ad_json *j, const char *key, df_nanos v)
{
        char text[DF_INT128_TEXT_MAX];

        (void)df_int128_text(v, text);
        ad_json_put_text(j, key, text);
}

static void put_totals(struct ad_json *j, const struct ad_result *r)
{
        if (!r) {
                ad_json_put_null(j, "totals");
                return;
        }
        ad_json_key(j, "totals");
        ad_json_open_array(j);
        for (size_t i = 0; i < r->total_count; i++) {
                const struct ad_cell *c = &r->totals[i].cell;

                ad_json_open(j);
                ad_json_put_bytes(j, "currency", r->totals[i].currency);
                ad_json_put_int(j, "impressions", c->impressions);
                ad_json_put_int(j, "clicks", c->clicks);
                ad_json_put_int(j, "conversions", c->conversions);
                put_nanos(j, "spend_nanos", c->spend);
                put_nanos(j, "payout_nanos", c->payout);
                put_nanos(j, "conversion_value_nanos", c->value);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

static void put_segments(struct ad_json *j, const struct ad_explain_source *s)
{
        struct df_segment_id id = {.generation = s->name.generation,
                                   .partition = s->name.partition};

        memcpy(id.topic, s->name.stream, sizeof(id.topic));
        ad_json_put_int(j, "archived_to", s->archived_to);
        ad_json_put_int(j, "segment_count", s->segment_count);
        ad_json_key(j, "segments");
        ad_json_open_array(j);
        for (uint32_t i = 0; i < s->segments_listed; i++) {
                char name[DF_ARCHIVE_NAME_MAX], hash[DF_SHA256_HEX_SIZE];

                df_archive_segment_name(&id, s->segments[i].first, name);
                df_hex(s->segments[i].sha256, DF_SHA256_SIZE, hash);
                ad_json_open(j);
                ad_json_put_text(j, "name", name);
                ad_json_put_int(j, "from_offset", s->segments[i].first);
                ad_json_put_int(j, "to_offset", s->segments[i].end);
                ad_json_put_text(j, "sha256", hash);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

static void put_source(struct ad_json *j, const struct ad_explain_source *s)
{
        ad_json_open(j);
        ad_json_put_text(j, "stream", s->name.stream);
        put_u64_hex(j, "generation", s->name.generation);
        ad_json_put_int(j, "partition", s->name.partition);
        ad_json_put_int(j, "seals", s->seals);
        ad_json_put_bool(j, "complete", s->complete);
        ad_json_put_bool(j, "earlier_seals_deleted", s->gone);
        if (s->seals || s->by_records) {
                ad_json_put_text(j, "range_by", s->by_records ? "records" : "seals");
                ad_json_put_int(j, "from_offset", s->from_offset);
                ad_json_put_int(j, "to_offset", s->to_offset);
        }
        if (s->seals) {
                ad_json_put_int(j, "first_checkpoint", s->first_k);
                ad_json_put_int(j, "last_checkpoint", s->last_k);
                put_digest(j, "parent_digest", s->parent_digest);
                put_digest(j, "digest", s->digest);
                ad_json_put_bool(j, "chained", s->chained);
                put_time(j, "watermark", s->watermark_ms);
                put_u64_hex(j, "settings", s->config);
                ad_json_put_text(j, "version", s->version);
        }
        if (s->seals || s->by_records)
                put_segments(j, s);
        ad_json_close(j);
}

/* Imports of the tenant whose range meets the question's: their rows are in the number, too. */
static void put_imports(struct ad_json *j, const struct ad_status *s, const struct ad_explain *e,
                        struct df_bytes tenant)
{
        ad_json_key(j, "imports");
        ad_json_open_array(j);
        for (size_t i = 0; i < s->source_count; i++) {
                const struct ad_source *o = &s->sources[i];

                if (!o->is_import || o->aborted || !df_bytes_eq(df_bytes_str(o->tenant), tenant) ||
                    o->import_to_ms <= e->from_ms || o->import_from_ms >= e->to_ms)
                        continue;
                ad_json_open(j);
                ad_json_put_text(j, "stream", o->name.stream);
                put_u64_hex(j, "generation", o->name.generation);
                ad_json_put_int(j, "partition", o->name.partition);
                ad_json_put_text(j, "dataset", o->dataset);
                ad_json_put_int(j, "from_offset", o->from_offset);
                ad_json_put_int(j, "to_offset", o->to_offset);
                put_digest(j, "digest", o->digest);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

/* ---- what can no longer be shown ---- */

static void put_missing(struct ad_json *j, const char *code, const char *text, const char *proof)
{
        ad_json_open(j);
        ad_json_put_text(j, "code", code);
        ad_json_put_text(j, "text", text);
        if (proof)
                ad_json_put_text(j, "proved_by", proof);
        else
                ad_json_put_null(j, "proved_by");
        ad_json_close(j);
}

/* What still proves a number from the archive alone; names the month in which the range begins. */
static const char *verify(int64_t from_ms, char room[400])
{
        char month[AD_TIME_TEXT_MAX];

        (void)ad_time_text(from_ms, month);
        (void)snprintf(
                room, 400,
                "the bill: `adtally verify MANIFEST --key PUBLIC --archive PLACE` counts the "
                "segments again, with the manifest of the closed period (`GET "
                "/v1/periods/%.7s/manifest`); while it is open, view=billing of this "
                "question, and `adtally reconcile` counts them again",
                month);
        return room;
}

static void put_no_archive(struct ad_json *j, const struct ad_explain_context *c)
{
        if (!c->objects)
                put_missing(j, "no_archive",
                            "segments and their hashes: there is no archive (--archive none); the "
                            "raw records are in the log alone, for --keep-log",
                            NULL);
}

static void put_not_shown(struct ad_json *j, const struct ad_explain_context *c,
                          const struct ad_explain *e, bool rows)
{
        bool gone = false, raw_gone = false;
        char proof[400];

        for (size_t i = 0; i < e->source_count; i++) {
                gone |= e->sources[i].gone;
                raw_gone |= e->sources[i].raw_gone;
        }
        ad_json_key(j, "not_shown");
        ad_json_open_array(j);
        put_no_archive(j, c);
        if (!rows)
                put_missing(j, "rows_expired",
                            "the number: realtime's rows of this range are no longer kept "
                            "(--keep-minutes, --keep-hours); larger windows may still be",
                            verify(e->from_ms, proof));
        if (gone)
                put_missing(j, "seals_expired",
                            "realtime's seals of this time, all or the first of them: they have "
                            "left the log (--keep-log), and with them which checkpoint counted "
                            "which offsets, its digest, version and settings. The offsets are by "
                            "the raw records, of which the segments are listed",
                            verify(e->from_ms, proof));
        if (raw_gone)
                put_missing(j, "records_expired",
                            "raw records before from_offset that may belong to it: they have left "
                            "the log, and no archive holds them",
                            NULL);
        ad_json_close_array(j);
}

int ad_explain_json(const struct ad_explain_context *c, const struct ad_explain *e,
                    const struct ad_query *q, const struct ad_result *result, struct df_buf *b,
                    struct df_error *err)
{
        struct ad_json *j = ad_json_begin(b);

        ad_json_open(j);
        ad_json_put_text(j, "view", "realtime");
        ad_json_put_bytes(j, "tenant_id", q->tenant_id);
        put_time(j, "from", e->from_ms);
        put_time(j, "to", e->to_ms);
        put_totals(j, result);
        ad_json_key(j, "sources");
        ad_json_open_array(j);
        for (size_t i = 0; i < e->source_count; i++)
                put_source(j, &e->sources[i]);
        ad_json_close_array(j);
        put_imports(j, c->status, e, q->tenant_id);
        put_not_shown(j, c, e, result != NULL);
        ad_json_put_int(j, "damaged_collections", e->damaged);
        ad_json_close(j);
        return ad_json_end(j, b, err);
}

/* ---- of the bill ---- */

static void put_run(struct ad_json *j, const struct ad_explain_run *r)
{
        const struct ad_run_begin *begin = &r->run.applied.begin;
        char digest[DF_SHA256_HEX_SIZE] = "";

        ad_json_open(j);
        ad_json_put_bytes(j, "run", r->id);
        ad_json_put_int(j, "cells", r->cells);
        ad_json_put_int(j, "first_posting", r->first_seq);
        ad_json_put_int(j, "last_posting", r->last_seq);
        if (r->known) {
                if (r->run.applied.end.digest.len == DF_SHA256_SIZE)
                        df_hex(r->run.applied.end.digest.data, DF_SHA256_SIZE, digest);
                ad_json_put_bytes(j, "chain", begin->chain);
                put_time(j, "at", begin->at_ms);
                ad_json_put_bytes(j, "asked_by", begin->asked_by);
                ad_json_put_bytes(j, "version", begin->binary_version);
                put_u64_hex(j, "settings", begin->config);
                ad_json_put_int(j, "price_version", begin->price_version);
                ad_json_put_int(j, "corrections_to", begin->corrections_to);
                ad_json_put_text(j, "sha256", digest);
        }
        ad_json_close(j);
}

static void put_judged(struct ad_json *j, const struct ad_explain_source *s)
{
        ad_json_open(j);
        ad_json_put_text(j, "stream", s->name.stream);
        put_u64_hex(j, "generation", s->name.generation);
        ad_json_put_int(j, "partition", s->name.partition);
        ad_json_put_int(j, "to_offset", s->to_offset);
        put_segments(j, s);
        ad_json_close(j);
}

static void put_bill_not_shown(struct ad_json *j, const struct ad_explain_context *c,
                               const struct ad_explain_bill *e, int64_t from_ms)
{
        bool known = true;
        char proof[400];

        for (size_t i = 0; i < e->run_count; i++)
                known &= e->runs[i].known;
        ad_json_key(j, "not_shown");
        ad_json_open_array(j);
        put_no_archive(j, c);
        if (!known)
                put_missing(j, "runs_unknown",
                            "when some of the runs were made, and with which prices and "
                            "corrections: the books hold their postings, and not them",
                            verify(from_ms, proof));
        ad_json_close_array(j);
}

int ad_explain_bill_json(const struct ad_explain_context *c, const struct ad_explain_bill *e,
                         const struct ad_query *q, const struct ad_result *result, struct df_buf *b,
                         struct df_error *err)
{
        struct ad_json *j = ad_json_begin(b);

        ad_json_open(j);
        ad_json_put_text(j, "view", "billing");
        ad_json_put_bytes(j, "tenant_id", q->tenant_id);
        put_time(j, "from", q->from_ms);
        put_time(j, "to", q->to_ms);
        put_totals(j, result);
        ad_json_put_text(j, "run", result->run);
        put_time(j, "billed_through", result->billed_through_ms);
        ad_json_put_int(j, "cells", e->cells);
        ad_json_put_int(j, "closed_cells", e->closed_cells);
        ad_json_put_int(j, "adjusted_cells", e->adjusted_cells);
        ad_json_key(j, "runs");
        ad_json_open_array(j);
        for (size_t i = 0; i < e->run_count; i++)
                put_run(j, &e->runs[i]);
        ad_json_close_array(j);
        ad_json_key(j, "sources");
        ad_json_open_array(j);
        for (size_t i = 0; i < e->source_count; i++)
                put_judged(j, &e->sources[i]);
        ad_json_close_array(j);
        put_bill_not_shown(j, c, e, q->from_ms);
        ad_json_close(j);
        return ad_json_end(j, b, err);
}
