/* status.h - what the view knows about its sources: an immutable copy, published with each commit.
 *
 * A reader takes the newest (ad_view_status), then reads rows: rows are then never older than what
 * the status says of them, so `final` is never said too early. Shared by reference counting.
 */
#ifndef AD_STATUS_H
#define AD_STATUS_H

#include <stdatomic.h>

#include "df/seal.h"
#include "proto/wire.h"

/* A source (E1) as far as its collections were applied. */
struct ad_source {
        uint32_t id; /* of the view; from 0 without holes */
        struct df_source name;
        uint64_t first_k, k, epoch;
        uint64_t from_offset, to_offset; /* of all collections */
        int64_t watermark_ms, max_append_ms, max_receive_ms, final_through_ms;
        uint64_t outcomes[DF_OUTCOMES_MAX]; /* cumulative, like all counts here */
        uint64_t records, poison_records, heartbeats, events, rows, sequence_gaps;
        uint64_t chain_gaps; /* seals that did not continue the one before (K6): 0, or an alarm */
        struct df_hash128 digest; /* of the last seal */
        uint64_t config;
        uint32_t price_version, label_version;
        char binary_version[DF_VERSION_MAX + 1];
        bool closed;
        bool is_import; /* its generation began with ImportBegin (R6) */
        bool aborted;   /* import --abort: its rows are void */
        bool voiding;   /* not yet all of them */
        char tenant[AD_ID_MAX + 1], dataset[AD_DATASET_MAX + 1];
        int64_t import_from_ms, import_to_ms, import_receive_ms;
        int64_t applied_ms; /* wall time of the last collection */
        /* Not stored. */
        uint64_t rows_commit; /* number of the commit that its last rows belong to */
};

struct ad_span { /* minutes with rows of a tenant from a source */
        uint32_t source;
        uint32_t first_minute, last_minute;
        char tenant[AD_ID_MAX + 1];
};

struct ad_start { /* the newest heartbeat of an ingest start in a source */
        uint32_t source;
        struct ad_edge edge;
};

/* What is not in the rollups: told by the follower, about every second. */
struct ad_outside {
        uint32_t missing
                [DF_PARTITIONS_MAX]; /* refused or run by nobody (K11), or rollups unreadable */
        size_t missing_count;
        uint64_t events_end[DF_PARTITIONS_MAX]; /* durable end of the topic `events` */
        uint64_t rollups_end[DF_PARTITIONS_MAX];
        uint64_t rollups_read[DF_PARTITIONS_MAX];
        uint64_t damaged_collections;
        int64_t realtime_seen_ms; /* when a realtime process last wrote its status; 0 = never */
};

#define AD_TAIL_EDGES_MAX 64
struct ad_tail { /* of the topic `events`: what no seal covers yet */
        uint64_t events[DF_PARTITIONS_MAX];
        bool exact; /* counted; else some are estimated */
        /* Newest heartbeats there, of the ingest starts met first. A partition without events is
         * sealed rarely (K12): these are seconds old where a seal's may be half a minute. */
        struct ad_edge edges[AD_TAIL_EDGES_MAX];
        size_t edge_count;
};

#define AD_FRESHNESS_BUCKETS 64
struct ad_freshness { /* of the last few minutes */
        uint64_t events;
        int64_t p50_ms, p95_ms; /* -1 without events */
};

struct ad_status {
        atomic_uint refs;
        uint32_t partitions; /* of the topic `events` */
        uint64_t generation;
        const struct ad_source *sources;
        size_t source_count;
        const struct ad_span *spans;
        size_t span_count;
        const struct ad_start *starts;
        size_t start_count;
        struct ad_edge forgotten; /* sums of starts too old to be listed */
        uint64_t forgotten_count;
        struct ad_outside outside;
        struct ad_freshness freshness;
        uint64_t commits, refused_rows;
        int64_t committed_ms;
};
void ad_status_release(struct ad_status *s); /* NULL-safe */

/* ---- W4 ---- */
/* A live source of a question: a partition of the current generation of `events` (sealed or
 * not), an older generation that is not closed, or an import of this tenant whose range meets
 * [from, to) and which has not ended. An import counts only in its range. */
struct ad_live {
        int64_t watermark_ms, final_through_ms;
        bool everywhere;        /* not an import */
        int64_t from_ms, to_ms; /* of an import */
};
#define AD_LIVE_MAX 1024
/* Returns how many (at most AD_LIVE_MAX; more imports than that are merged into the last entry). */
size_t ad_status_live(const struct ad_status *s, struct df_bytes tenant, int64_t from_ms,
                      int64_t to_ms, struct ad_live ret[AD_LIVE_MAX]);
bool ad_live_final(const struct ad_live *live, size_t count, int64_t start_ms, int64_t end_ms);
/* The smallest watermark of sources that count everywhere; DF_TIME_MIN while one has no seal. */
int64_t ad_live_watermark(const struct ad_live *live, size_t count);
/* Share of (live source, window) pairs whose watermark passed the window's end; bounds holds
 * count + 1 boundaries. 1 without windows or sources. */
double ad_live_completeness(const struct ad_live *live, size_t live_count, const int64_t *bounds,
                            size_t count);
/* Share of the events of `events` so far that were late: what to expect of windows that look
 * complete. 0 without history (fewer than AD_LATE_HISTORY events). */
#define AD_LATE_HISTORY 1000
double ad_status_late_share(const struct ad_status *s);
/* Whether it is a partition of the current generation of `events`. */
bool ad_status_is_current(const struct ad_status *s, const struct ad_source *o);
/* Sum of the outcomes of one class. */
uint64_t ad_source_class(const struct ad_source *s, enum ad_outcome_class cls);

#endif
