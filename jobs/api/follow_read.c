/* follow_read.c - records to collections to the view, a partition at a time. */
#include <unistd.h>

#include "df/run.h"
#include "df/trace.h"
#include "jobs/api/follow_private.h"
#include "jobs/common/settings.h"

#define RETRY_MIN_MS 500
#define RETRY_MAX_MS 10000

/* The task of partition p writes to partition p of `rollups`, whatever topic it reads. */
static int tell_applied(struct ad_follow *f, uint32_t p, struct df_error *err)
{
        size_t count = 1;

        for (size_t i = 0; i < count; i++) {
                const struct ad_source *s = ad_view_source(f->view, i, &count);
                int rc;

                if (!s || s->k == 0 || s->name.partition != p)
                        continue;
                rc = df_collector_applied(f->parts[p].collector, &s->name, s->k, err);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

static int open_part(struct ad_follow *f, uint32_t p, struct df_error *err)
{
        struct adi_part *part = &f->parts[p];
        uint64_t from = ad_view_position(f->view, p), first, end;
        int rc = df_log_bounds(f->options.log, AD_TOPIC_ROLLUPS, p, &first, &end, err);

        if (rc < 0)
                return rc;
        if (from < first && from == 0 && (f->accepted || access(f->accept_path, F_OK) == 0)) {
                f->accepted = true;
                from = first;
        }
        if (from < first)
                return df_fail(err, DF_EOFFSET,
                               "offset %llu is needed and the log begins at %llu: rows are lost. "
                               "Restore %s from a backup, or create %s and move %s away to begin "
                               "with what the log holds",
                               (unsigned long long)from, (unsigned long long)first, f->snapshot_dir,
                               f->accept_path, f->view_dir);
        rc = df_collector_create(ADI_COLLECT_BYTES_MAX, &part->collector, err);
        if (rc == 0)
                rc = tell_applied(f, p, err);
        if (rc == 0)
                rc = df_log_reader_open(f->options.log, AD_TOPIC_ROLLUPS, p, from, AD_VIEW_CONSUMER,
                                        &part->reader, err);
        part->position = from;
        return rc;
}

static void close_part(struct adi_part *part)
{
        df_log_reader_close(part->reader);
        df_collector_destroy(part->collector);
        part->reader = NULL;
        part->collector = NULL;
}

void adi_read_close(struct ad_follow *f)
{
        for (uint32_t p = 0; p < f->partitions; p++)
                close_part(&f->parts[p]);
}

/* K11: this partition waits, the others go on. */
static void part_failed(struct ad_follow *f, uint32_t p, const struct df_error *err)
{
        struct adi_part *part = &f->parts[p];
        int64_t wait = RETRY_MIN_MS << (part->failures < 5 ? part->failures : 5);

        df_trace(DF_ERROR, "follow", "rollups/%u code=%s: %s", p, df_err_code(err->code),
                 err->text);
        /* What was read and not committed is read again, and dropped as repeated. */
        close_part(part);
        part->failures++;
        part->retry_ms = df_monotonic_ms() + (wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS);
        atomic_store(&part->failed, true);
}

static int apply(struct ad_follow *f, uint32_t p, const struct df_collection *c,
                 struct df_error *err)
{
        int rc = ad_view_add(f->view, c, df_wall_ms(), err);

        if (rc < 0)
                return rc;
        atomic_fetch_add(&f->counts.collections, 1);
        f->fresh = true;
        return ad_view_pending(f->view) < ADI_PENDING_ROWS_MAX ? 0 : adi_commit(f, err);
}

static int take(struct ad_follow *f, uint32_t p, const struct df_record *r, struct df_error *err)
{
        struct adi_part *part = &f->parts[p];
        struct df_collection c;
        enum df_collect what;
        int rc = df_collector_add(part->collector, r, &what, &c, err);

        part->position = r->offset + 1;
        atomic_fetch_add(&f->counts.records, 1);
        atomic_fetch_add(&f->counts.bytes, r->value.len);
        f->snapshot_bytes += r->value.len;
        if (rc == DF_EPARSE || rc == DF_ELIMIT) {
                /* Its collection will lack it, and not match its seal: that is the alarm. */
                atomic_fetch_add(&f->counts.damaged_records, 1);
                df_trace(DF_ERROR, "follow", "rollups/%u offset=%llu: %s", p,
                         (unsigned long long)r->offset, err->text);
                return 0;
        }
        if (rc < 0)
                return rc;
        switch (what) {
        case DF_COLLECT_COMPLETE:
                return apply(f, p, &c, err);
        case DF_COLLECT_REPEATED:
                atomic_fetch_add(&f->counts.repeated, 1);
                return 0;
        case DF_COLLECT_DAMAGED:
                atomic_fetch_add(&f->counts.damaged, 1);
                df_trace(DF_ERROR, "follow",
                         "rollups/%u offset=%llu: a collection does not match its seal and was "
                         "dropped: numbers are missing",
                         p, (unsigned long long)r->offset);
                return 0;
        case DF_COLLECT_MORE:
        default:
                return 0;
        }
}

int adi_read(struct ad_follow *f, uint32_t p, bool *ret_more, struct df_error *err)
{
        struct adi_part *part = &f->parts[p];
        struct df_error own = {0};
        size_t n = 0;
        int rc = 0;

        if (!part->reader) {
                if (df_monotonic_ms() < part->retry_ms)
                        return 0;
                rc = open_part(f, p, &own);
        }
        if (rc == 0)
                rc = df_log_poll(part->reader, f->records, ADI_READ_RECORDS, &n, &own);
        if (rc < 0) {
                part_failed(f, p, &own);
                return 0;
        }
        part->failures = 0;
        atomic_store(&part->failed, false);
        *ret_more |= n > 0; /* a poll gives what lies together, not all there is */
        for (size_t i = 0; rc == 0 && i < n; i++)
                rc = take(f, p, &f->records[i], err);
        if (rc == 0 && part->reader)
                part->position = df_log_position(part->reader); /* also past what is no record */
        return rc;
}

int adi_commit(struct ad_follow *f, struct df_error *err)
{
        uint64_t positions[DF_PARTITIONS_MAX];
        int rc;

        for (uint32_t p = 0; p < f->partitions; p++) {
                const struct adi_part *part = &f->parts[p];

                positions[p] = part->reader ? df_collector_floor(part->collector, part->position)
                                            : ad_view_position(f->view, p);
        }
        rc = ad_view_commit(f->view, positions, f->partitions, df_wall_ms(), err);
        f->committed_ms = df_monotonic_ms();
        f->fresh = false;
        if (rc == 0 && f->accepted)
                (void)unlink(f->accept_path); /* mostly gone already */
        return rc;
}
