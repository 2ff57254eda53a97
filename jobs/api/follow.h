/* follow.h - the thread that brings the topic `rollups` into the view, and keeps the view alive.
 *
 * It reads every partition through a collector (K5), applies complete collections, and commits them
 * with the positions to read on from: some tenths of a second after a seal is durable its rows can
 * be asked for. It expires and takes snapshots; the log may forget only what a snapshot
 * holds (the consumer "view", L2). A view that fails is opened again, damaged ones from the
 * snapshot; a partition of the log that cannot be read is tried again while the others go on.
 *
 * Thread: start and stop in one thread; the rest in any. A reader takes the view, asks, and gives
 * it back soon: the view is not closed while anybody has it.
 */
#ifndef AD_FOLLOW_H
#define AD_FOLLOW_H

#include "jobs/api/view.h"

#define AD_VIEW_CONSUMER "view"
/* Under the data directory: begin with what the log still holds, although rows were lost. Taken
 * away once it was followed. */
#define AD_VIEW_ACCEPT_LOSS "run/view-accept-loss"

struct ad_follow_options {
        const char *data_dir; /* borrowed, as all here */
        struct df_log *log;
        const struct ad_groupings *groupings;
        const struct ad_zone *account_zone;
        int64_t keep_minutes_ms, keep_quarters_ms;
        uint64_t cache_bytes;
        int64_t snapshot_every_ms;     /* 0 = 10 minutes */
        uint64_t snapshot_every_bytes; /* of records read; 0 = 64 MiB */
};

struct ad_follow;
/* The topics exist. Opens the view; what a person must mend is an error here. */
int ad_follow_start(const struct ad_follow_options *o, struct ad_follow **ret,
                    struct df_error *err);
/* Commits what is complete, ends the thread, closes the view. NULL-safe. */
void ad_follow_stop(struct ad_follow *f);

/* NULL while the view is being opened again; otherwise give it back with ad_follow_give. */
struct ad_view *ad_follow_take(struct ad_follow *f);
void ad_follow_give(struct ad_follow *f);
/* A reader met damaged data: the view is opened anew from its snapshot. */
void ad_follow_suspect(struct ad_follow *f);
/* What no seal covers yet, by partition of the current generation of `events`: counted in the log
 * where the rest is short, else estimated from the records' average. Blocks. */
int ad_follow_tail(struct ad_follow *f, const struct ad_status *s, struct ad_tail *ret,
                   struct df_error *err);
/* Prometheus lines. */
void ad_follow_render(struct ad_follow *f, struct df_buf *b);

#endif
