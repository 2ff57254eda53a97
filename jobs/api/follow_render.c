/* follow_render.c - the follower and the view as Prometheus lines. */
#include <inttypes.h>
#include <stdio.h>

#include "df/run.h"
#include "jobs/api/follow_private.h"
#include "jobs/api/quality.h"

static void render_sources(const struct ad_status *s, struct df_buf *b)
{
        uint64_t rows = 0, gaps = 0;
        char l[160];

        for (size_t i = 0; i < s->source_count; i++) {
                const struct ad_source *o = &s->sources[i];

                rows += o->rows;
                gaps += o->chain_gaps;
                (void)snprintf(l, sizeof(l),
                               "stream=\"%s\",generation=\"%016" PRIx64 "\",partition=\"%u\"",
                               o->name.stream, o->name.generation, o->name.partition);
                df_metric(b, "adtally_ledger_imbalance", l, (double)ad_source_imbalance(s, i));
        }
        df_metric(b, "adtally_view_rows_total", "", (double)rows);
        df_metric(b, "adtally_view_chain_gaps", "", (double)gaps);
}

static void render_status(const struct ad_status *s, struct df_buf *b)
{
        char l[64];

        render_sources(s, b);
        for (uint32_t p = 0; p < s->partitions; p++) {
                uint64_t end = s->outside.rollups_end[p], read = s->outside.rollups_read[p];

                (void)snprintf(l, sizeof(l), "partition=\"%u\"", p);
                df_metric(b, "adtally_view_lag_records", l, end > read ? (double)(end - read) : 0);
        }
        for (size_t i = 0; i < s->outside.missing_count; i++) {
                (void)snprintf(l, sizeof(l), "partition=\"%u\"", s->outside.missing[i]);
                df_metric(b, "adtally_view_missing_partition", l, 1);
        }
        df_metric(b, "adtally_view_commits_total", "", (double)s->commits);
        df_metric(b, "adtally_view_refused_rows_total", "", (double)s->refused_rows);
        if (s->freshness.events == 0)
                return;
        df_metric(b, "adtally_freshness_seconds", "quantile=\"0.5\"",
                  (double)s->freshness.p50_ms / 1000);
        df_metric(b, "adtally_freshness_seconds", "quantile=\"0.95\"",
                  (double)s->freshness.p95_ms / 1000);
}

void ad_follow_render(struct ad_follow *f, struct df_buf *b)
{
        const struct adi_counts *c = &f->counts;
        struct ad_view *v = ad_follow_take(f);
        int64_t snapshot_ms = atomic_load(&c->snapshot_ms);
        char l[64];

        df_metric(b, "adtally_view_ready", "", v != NULL);
        if (v) {
                struct ad_status *s = ad_view_status(v);

                render_status(s, b);
                ad_status_release(s);
                df_metric(b, "adtally_view_keys", "",
                          (double)df_kv_property(ad_view_kv(v), "rocksdb.estimate-num-keys"));
                ad_follow_give(f);
        }
        for (uint32_t p = 0; p < f->partitions; p++) {
                (void)snprintf(l, sizeof(l), "partition=\"%u\"", p);
                df_metric(b, "adtally_view_partition_failed", l, atomic_load(&f->parts[p].failed));
        }
        df_metric(b, "adtally_view_collections_total", "", (double)atomic_load(&c->collections));
        df_metric(b, "adtally_view_repeated_collections_total", "",
                  (double)atomic_load(&c->repeated));
        df_metric(b, "adtally_view_damaged_collections_total", "",
                  (double)(atomic_load(&c->damaged) + atomic_load(&c->damaged_records)));
        df_metric(b, "adtally_view_read_records_total", "", (double)atomic_load(&c->records));
        df_metric(b, "adtally_view_read_bytes_total", "", (double)atomic_load(&c->bytes));
        df_metric(b, "adtally_view_reopened_total", "", (double)atomic_load(&c->reopened));
        df_metric(b, "adtally_view_snapshots_total", "", (double)atomic_load(&c->snapshots));
        df_metric(b, "adtally_view_failed_snapshots_total", "",
                  (double)atomic_load(&c->failed_snapshots));
        df_metric(b, "adtally_view_disk_bytes", "", (double)atomic_load(&c->disk_bytes));
        if (atomic_load(&c->caught_up_us))
                df_metric(b, "adtally_view_catch_up_seconds", "",
                          (double)atomic_load(&c->caught_up_us) / 1e6);
        if (snapshot_ms)
                df_metric(b, "adtally_view_snapshot_age_seconds", "",
                          (double)(df_wall_ms() - snapshot_ms) / 1000);
}
