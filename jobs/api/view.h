/* view.h - the serving view: collections of the topic `rollups` become cells that can be asked for.
 *
 * One thread writes: ad_view_add for each complete collection, ad_view_commit now and then. Any
 * thread reads: ad_view_status, then ad_view_kv with a snapshot.
 * Exactly once (K5, W3): rows are absolute values of (cell, source). A minute cell keeps the last
 * one of each source (its part) until it expires; a row replaces it, and the difference goes to the
 * quarter-hour, day and account-day cell, all in one write with the applied k of the source and the
 * read position of the topic. Repeats change nothing; a crash repeats or loses a whole write. Rows
 * of a window that is final for their source are ignored: the source cannot change it any more
 * (W4), and they only come again (K10). Minutes that are not final for a source do not expire.
 * Upkeep (voiding aborted imports, expiry) is done by commit in bounded steps.
 * Cost: a row is one write in memory and one into the store; what is read for it is mostly not
 * there yet, which the marks of its bucket say (view_marks.c), or in memory (view_cache.c).
 * Errors: any failure of add or commit leaves the view unusable: close it and open it again.
 */
#ifndef AD_VIEW_H
#define AD_VIEW_H

#include "df/rocksdb.h"
#include "jobs/api/keys.h"
#include "jobs/api/status.h"
#include "jobs/api/zone.h"

struct ad_view_options {
        const char *dir;                      /* DATA/view */
        const char *snapshot_dir;             /* DATA/view-snapshot; NULL = none */
        const struct ad_groupings *groupings; /* borrowed */
        const struct ad_zone *account_zone;   /* borrowed; UTC keeps no second day */
        uint64_t rollups_generation;          /* of the topic: another one is another history */
        uint64_t events_generation;
        uint32_t partitions;
        int64_t keep_minutes_ms, keep_quarters_ms,
                keep_days_ms; /* after the last write; 0 = ever */
        uint64_t cache_bytes; /* of blocks, and as much of cells; 0 = 64 MiB */
        /* The topic still holds all that was ever written: a view can be begun anew. Otherwise one
         * that cannot be used is refused by name instead of thrown away (K14). */
        bool rebuildable;
};

enum ad_view_origin {
        AD_VIEW_KEPT,     /* opened as it was */
        AD_VIEW_RESTORED, /* from the snapshot */
        AD_VIEW_EMPTY,    /* to be rebuilt from the log's start */
};

struct ad_view;
/* A view that is damaged, or was built for something else (zone, groupings, topic), is restored
 * from the snapshot, else begun anew. first: AD_VIEW_KEPT, or what to begin with when the view
 * (or also its snapshot) was found damaged while it was open. *ret_why says why ("" when kept).
 * DF_ESCHEMA, DF_ECORRUPT: it would have to begin anew and is not rebuildable. */
int ad_view_open(const struct ad_view_options *o, enum ad_view_origin first, struct ad_view **ret,
                 enum ad_view_origin *ret_origin, char ret_why[256], struct df_error *err);
void ad_view_close(struct ad_view *v); /* no snapshot of its kv may be left */

uint64_t ad_view_position(const struct ad_view *v, uint32_t partition); /* of rollups: read from */
/* Sources so far, for df_collector_applied; valid until the next add. */
const struct ad_source *ad_view_source(const struct ad_view *v, size_t index, size_t *ret_count);

int ad_view_add(struct ad_view *v, const struct df_collection *c, int64_t now_ms,
                struct df_error *err);
/* Rows added since the last commit: commit before it grows beyond some 50,000 (10 MB). */
size_t ad_view_pending(const struct ad_view *v);
/* positions[p] for each partition of rollups: where to read on from if everything stopped now. */
int ad_view_commit(struct ad_view *v, const uint64_t *positions, uint32_t count, int64_t now_ms,
                   struct df_error *err);
bool ad_view_busy(const struct ad_view *v); /* upkeep left: commit again soon */
/* Publish a new status with this; also with each commit. */
int ad_view_outside(struct ad_view *v, const struct ad_outside *o, int64_t now_ms,
                    struct df_error *err);
/* Replace the snapshot by the committed view; durable when it returns. */
int ad_view_snapshot(struct ad_view *v, struct df_error *err);

/* ---- readers, any thread ---- */
struct ad_status *ad_view_status(struct ad_view *v); /* give back with ad_status_release */
struct df_kv *ad_view_kv(struct ad_view *v);
const struct ad_view_options *ad_view_settings(const struct ad_view *v);
/* Whether anything of this level ever expired; whether __other__ ever appeared: quick refusals. */
bool ad_view_any_expired(const struct ad_view *v, uint32_t level);
bool ad_view_any_other(const struct ad_view *v, uint32_t grouping);

#endif
