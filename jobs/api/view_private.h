/* view_private.h - between the files of the view. */
#ifndef ADI_VIEW_PRIVATE_H
#define ADI_VIEW_PRIVATE_H

#include <pthread.h>

#include "jobs/api/map.h"
#include "jobs/api/view.h"

#define ADI_SCHEMA 1
#define ADI_UPKEEP_KEYS 20000     /* of one commit */
#define ADI_STARTS_MAX 512        /* listed ingest starts */
#define ADI_FRESH_SLOTS 5         /* minutes */
#define ADI_UPKEEP_EVERY_MS 60000 /* between looks for expired buckets */

struct adi_span {
        struct ad_span span;
        bool dirty;
};
struct adi_start {
        struct ad_start start;
        bool dirty, gone;
};

struct adi_fresh { /* one minute of receive-to-visible times */
        int64_t minute;
        uint64_t counts[AD_FRESHNESS_BUCKETS];
};

/* What one commit will write, kept in memory so that each cell is read and written once. */
struct adi_step {
        struct df_arena arena;
        struct ad_map partials; /* key -> struct ad_cell: the newest absolute value */
        struct ad_map cells;    /* key -> struct ad_cell: difference */
        struct ad_map buckets;  /* key -> nothing */
        struct ad_map others;   /* key -> nothing */
};

struct ad_view {
        struct ad_view_options options;
        struct df_kv *kv;
        struct df_store *store;
        bool broken, busy;

        struct ad_source *sources; /* id = index */
        bool *source_dirty;
        size_t source_count, source_cap;
        uint64_t positions[DF_PARTITIONS_MAX];
        struct df_arena memory; /* of spans and starts, as long as the view */
        struct ad_map spans;    /* 't' key -> struct adi_span */
        struct ad_map starts;   /* 'e' key -> struct adi_start */
        struct ad_edge forgotten;
        uint64_t forgotten_count, start_count;

        struct adi_step step;
        struct df_buf key, value;
        int64_t day, day_from_ms, day_to_ms; /* the account's day asked for last */
        struct adi_fresh fresh[ADI_FRESH_SLOTS];
        struct ad_outside outside;
        uint64_t commits, refused_rows;
        int64_t opened_ms, expire_ms; /* next look */
        struct df_buf expire_at;      /* where the look goes on */

        atomic_bool expired[AD_LEVEL_COUNT], other[AD_GROUPINGS_MAX];
        pthread_mutex_t lock;     /* of status */
        struct ad_status *status; /* the newest */
};

/* view_state.c: the small things by which a view is known again. */
void adi_source_encode(const struct ad_source *s, struct df_buf *b);
bool adi_source_decode(struct df_bytes bytes, struct ad_source *ret);
void adi_meta_encode(const struct ad_view_options *o, struct df_buf *b);
int adi_state_load(struct ad_view *v, struct df_error *err);
void adi_state_forget(struct ad_view *v); /* what was loaded: another store comes */
void adi_state_put(struct ad_view *v);    /* everything dirty into the batch */
struct ad_source *adi_source_get(struct ad_view *v, const struct df_source *name,
                                 struct df_error *err); /* created when new */
int adi_span_touch(struct ad_view *v, uint32_t source, struct df_bytes tenant, uint32_t minute,
                   struct df_error *err);
int adi_start_touch(struct ad_view *v, uint32_t source, const struct ad_edge *edge,
                    struct df_error *err);

/* view_cells.c */
void adi_step_init(struct ad_view *v);
/* The newest value of a row's partial; what it replaces is looked up by adi_step_flush. */
int adi_step_row(struct ad_view *v, uint32_t source, const struct ad_row *row,
                 struct df_error *err);
/* A difference of a row, to all levels. */
int adi_step_shift(struct ad_view *v, const struct ad_row *row, const struct ad_cell *d,
                   struct df_error *err);
int adi_step_flush(struct ad_view *v, int64_t now_ms, struct df_error *err); /* into the batch */
void adi_step_clear(struct ad_view *v);

/* view_upkeep.c: before the flush; each adds to the batch or to the step. */
int adi_upkeep(struct ad_view *v, int64_t now_ms, struct df_error *err);
/* In a write of its own, with an empty batch: a bucket that expires and is written in the same
 * batch would keep rows or lose new ones, as the order falls. */
int adi_expire(struct ad_view *v, int64_t now_ms, struct df_error *err);

/* view_status.c */
void adi_fresh_add(struct ad_view *v, const struct ad_note *note, uint64_t events, int64_t now_ms);
int adi_publish(struct ad_view *v, int64_t now_ms, struct df_error *err);

int adi_remove_dir(const char *dir, struct df_error *err); /* flat; missing is fine */

#endif
