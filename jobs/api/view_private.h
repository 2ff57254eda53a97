/* view_private.h - between the files of the view. */
#ifndef ADI_VIEW_PRIVATE_H
#define ADI_VIEW_PRIVATE_H

#include <pthread.h>

#include "jobs/api/map.h"
#include "jobs/api/view.h"

#define ADI_SCHEMA 2
#define ADI_UPKEEP_KEYS 20000     /* of one commit */
#define ADI_SUM_LEVELS 3          /* levels above the minute */
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
        struct ad_map rows; /* minute cell, source -> struct ad_cell: newest value */
        struct ad_map sums[ADI_SUM_LEVELS]; /* cell -> struct ad_cell: difference */
        struct ad_map others;               /* key -> nothing */
};

struct adi_pair { /* windows of a bucket in which cells are, or were; by group of sources */
        uint32_t group, bits;
        uint32_t fresh; /* those that this write adds: each of its cells is read before it */
};
struct adi_mark {
        struct adi_mark *next; /* of those touched in this write */
        int64_t last_ms;       /* last write, coarsely */
        uint8_t state;         /* 0 alive, 1 expired, 2 expired and written again */
        bool loaded, touched;
        uint64_t since; /* what is older in the cache is of the bucket's former life */
        uint32_t pair_count, pair_cap;
        struct adi_pair *pairs;
};

struct adi_cache {
        uint8_t *ring;
        uint64_t size, head; /* bytes of the ring; bytes ever put */
        uint64_t *slots, set_mask;
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
        struct adi_cache cache;
        struct df_arena mark_memory;
        struct ad_map marks; /* 'b' key -> struct adi_mark */
        struct adi_mark *mark, *touched;
        struct df_buf mark_key; /* of mark, the one found last */
        struct adi_span *span;  /* touched last */
        struct df_buf key, value;
        size_t void_range;     /* how far the voiding of a source is: its ranges done, */
        struct df_buf void_at; /* and the key to go on at in the next one */
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

/* view_cache.c */
int adi_cache_open(struct adi_cache *c, uint64_t bytes, struct df_error *err);
void adi_cache_close(struct adi_cache *c);
/* since: a place; what was put before it does not count. *ret is valid until the next put. */
bool adi_cache_get(const struct adi_cache *c, struct df_bytes key, uint64_t since,
                   struct df_bytes *ret);
void adi_cache_put(struct adi_cache *c, struct df_bytes key, struct df_bytes value);

/* view_marks.c */
void adi_marks_init(struct ad_view *v);
void adi_marks_forget(struct ad_view *v); /* another store comes */
void adi_marks_trim(struct ad_view *v);   /* after each write */
/* The bucket of a cell's key, whose first bucket_end bytes end with the bucket. */
int adi_mark_find(struct ad_view *v, struct df_bytes cell_key, size_t bucket_end,
                  struct adi_mark **ret, struct df_error *err);
/* False: there was surely no cell in the window before this write. */
bool adi_mark_used(const struct adi_mark *m, uint32_t group, uint32_t window);
int adi_mark_use(struct ad_view *v, struct adi_mark *m, uint32_t group, uint32_t window,
                 struct df_error *err);                /* a cell is written */
void adi_marks_put(struct ad_view *v, int64_t now_ms); /* those used, into the batch */
void adi_mark_expired(struct ad_view *v, struct df_bytes key, int64_t last_ms); /* likewise */

/* view_cells.c */
void adi_step_init(struct ad_view *v);
/* The newest value of a row; what it replaces is looked up by adi_step_flush. */
int adi_step_row(struct ad_view *v, uint32_t source, const struct ad_row *row,
                 struct df_error *err);
/* The source's part of a stored minute cell goes. */
int adi_step_void(struct ad_view *v, uint32_t source, struct df_bytes cell_key,
                  struct df_error *err);
int adi_step_flush(struct ad_view *v, int64_t now_ms, struct df_error *err); /* into the batch */
void adi_step_clear(struct ad_view *v);

/* view_upkeep.c: before the flush, into the step. */
int adi_upkeep(struct ad_view *v, struct df_error *err);
/* In a write of its own, with an empty batch: a bucket that expires and is written in the same
 * batch would keep rows or lose new ones, as the order falls. */
int adi_expire(struct ad_view *v, int64_t now_ms, struct df_error *err);

/* view_status.c */
void adi_fresh_add(struct ad_view *v, const struct ad_note *note, uint64_t events, int64_t now_ms);
int adi_publish(struct ad_view *v, int64_t now_ms, struct df_error *err);

/* A store that nobody has open goes, in one step: no half of it is ever taken for a whole one. */
int adi_discard(const char *dir, struct df_error *err);

#endif
