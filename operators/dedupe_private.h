/* dedupe_private.h - between the files of the dedupe operator.
 *
 *   dedupe.c        the operator: judging, recording, expiry, snapshot, restore
 *   dedupe_set.c    the open hours' ids: one hash set in memory
 *   dedupe_runs.c   the buckets: ids leave the set in sorted runs, and are asked for there
 *   dedupe_index.c  what is in memory of a stored run: which block may hold an id
 *   dedupe_stored.c what the buckets keep in the store: runs, deltas, the list of runs
 *   dedupe_restore.c  the same from the store
 *   dedupe_merge.c  runs of an hour become fewer, in bounded steps
 *   dedupe_tags.c   the filter in front of the runs
 *   dedupe_both.c   dedupe_billing alone: realtime's verdict from the ids of the billing horizon
 *
 * All of these but the last are compiled twice: as they are for `dedupe`, and with ADI_BILLING for
 * `dedupe_billing`, whose ids are longer (dedupe_names.h gives the functions other names).
 *
 * What is kept is one logical map (hour, id) -> fingerprint of the last occurrence in that hour.
 * It lies in layers, newest first: the set, then the hour's runs from the last to the first; a
 * newer layer wins. Where an entry lies depends on limits, merges and checkpoints; what a question
 * answers does not.
 */
#ifndef ADI_DEDUPE_PRIVATE_H
#define ADI_DEDUPE_PRIVATE_H

#include <endian.h>

#include "df/pages.h"
#include "operators/dedupe_names.h"
#include "operators/ops.h"

/* Bytes of an id in the store: hi, lo, fingerprint, and for billing content; little endian. */
#ifdef ADI_BILLING
#define ADI_ID_BYTES 32
#define ADI_EPOCH_BITS 10 /* of a bucket's hour: dedupe_both.c */
#else
#define ADI_ID_BYTES 24
#define ADI_EPOCH_BITS 0
#endif
#define ADI_BLOCK_IDS 512       /* ids of one value of a run: 12 KiB; one read answers a question */
#define ADI_LONG_BLOCKS 128     /* a run of so many lies in files (df/store.h, runs) */
#define ADI_IN_FILES (1u << 31) /* beside the level in the list; once no run had it */
#define ADI_PART_BLOCKS 2048    /* blocks of such a file: 24 MiB; part of the format */
#define ADI_DELTA_IDS 2560      /* ids of one value of a delta: 60 KiB */
#define ADI_DELTA_KEEP 8192     /* bytes: a shorter last value is written again, longer */
#define ADI_FAN_IN 8            /* runs of a level that become one of the next */
#define ADI_MERGE_RUNS_MAX 16   /* runs merged at once */
#define ADI_MERGE_IDS 8         /* ids merged for each event that passes */
#define ADI_MERGE_BYTES_MAX (64u << 20) /* written by merges into one checkpoint */
#define ADI_OPEN_IDS (1u << 20)         /* default of ad_params.dedupe_open_ids */
#define ADI_DELTA_SHARE 4               /* of dedupe_open_ids: a longer delta becomes a run */
#define ADI_OPEN_IDS_MAX (1u << 28)
#define ADI_HORIZON_MAX 87600 /* hours: ten years */
#define ADI_TABLES_MAX 48     /* each at least 1.25 of all before: never reached */
#define ADI_SLOTS 254         /* marks of the filter: 1 to 254 */

struct adi_id {
        uint64_t hi, lo, fingerprint;
#ifdef ADI_BILLING
        uint64_t content; /* ad_event_content */
#endif
};
_Static_assert(sizeof(struct adi_id) == ADI_ID_BYTES, "no padding");
struct adi_key {
        uint64_t hi, lo;
};

static inline int adi_key_cmp(uint64_t a_hi, uint64_t a_lo, uint64_t b_hi, uint64_t b_lo)
{
        if (a_hi != b_hi)
                return a_hi < b_hi ? -1 : 1;
        return a_lo < b_lo ? -1 : a_lo > b_lo;
}

static inline struct adi_id adi_id_load(const uint8_t *p)
{
        struct adi_id id;

        memcpy(&id, p, ADI_ID_BYTES);
        id.hi = le64toh(id.hi);
        id.lo = le64toh(id.lo);
        id.fingerprint = le64toh(id.fingerprint);
#ifdef ADI_BILLING
        id.content = le64toh(id.content);
#endif
        return id;
}

static inline void adi_id_store(uint8_t *p, const struct adi_id *id)
{
        struct adi_id le = *id;

        le.hi = htole64(id->hi);
        le.lo = htole64(id->lo);
        le.fingerprint = htole64(id->fingerprint);
#ifdef ADI_BILLING
        le.content = htole64(id->content);
#endif
        memcpy(p, &le, ADI_ID_BYTES);
}

/* Do two copies of an id say the same? */
static inline bool adi_id_says(const struct adi_id *a, const struct adi_id *b)
{
#ifdef ADI_BILLING
        if (a->content != b->content)
                return false;
#endif
        return a->fingerprint == b->fingerprint;
}

/* ---- dedupe_set.c ---- */
struct adi_slot {
        struct adi_id id;
        uint64_t hour; /* adi_hour_mark; 0 = empty */
};
struct adi_set {
        struct adi_slot *slots; /* in table */
        struct df_pages table;
        uint64_t mask;
        unsigned shift; /* slots = 2 ^ (64 - shift) */
        size_t count;
        size_t limit; /* ids; half of the slots at most are used */
};

static inline uint64_t adi_hour_mark(int64_t hour)
{
        return (uint64_t)hour + (1ull << 62); /* never 0: hours lie within +-2^42 */
}
static inline int64_t adi_mark_hour(uint64_t mark)
{
        return (int64_t)(mark - (1ull << 62));
}
static inline uint64_t adi_set_home(const struct adi_set *s, uint64_t hi)
{
        return hi >> s->shift;
}
static inline void adi_set_prefetch(const struct adi_set *s, struct df_hash128 key)
{
        const struct adi_slot *slot = &s->slots[adi_set_home(s, key.hi)];

        __builtin_prefetch(slot);
        __builtin_prefetch(slot + 1); /* often in the next line */
}

/* The occurrence that counts (D1), as far as it is known. */
struct adi_seen {
        bool found;
        int64_t hour;
        struct adi_id id;     /* when found: what it said */
        struct adi_slot *own; /* the set's entry of the event's own hour, or NULL */
        struct adi_slot *end; /* behind the set's entries of this id: where the next one belongs */
};

int adi_set_open(struct adi_set *s, size_t limit, struct df_error *err);
void adi_set_release(struct adi_set *s);
/* The greatest hour in [from, to] that holds key, and the entry of hour `own`. */
void adi_set_seek(const struct adi_set *s, struct df_hash128 key, int64_t own, int64_t from,
                  int64_t to, struct adi_seen *ret);
static inline bool adi_set_full(const struct adi_set *s)
{
        return s->count >= s->limit;
}
/* A new (hour, id). Not when full. at: where a seek for it ended, and nothing has changed since; or
 * NULL. */
int adi_set_add(struct adi_set *s, const struct adi_id *id, int64_t hour, struct adi_slot *at,
                struct df_error *err);
/* All ids of this hour, of which there are count, sorted by key. */
void adi_set_sorted(const struct adi_set *s, int64_t hour, size_t count, struct adi_id *ids);
/* Forget every hour but those in [from, to]. */
int adi_set_keep(struct adi_set *s, int64_t from, int64_t to, struct df_error *err);

/* ---- dedupe_tags.c ---- */
struct adi_tag_line;
struct adi_tag_table {
        struct adi_tag_line *lines; /* in table */
        struct df_pages table;
        uint64_t line_count;
        uint64_t capacity; /* ids at the load where the next table begins */
        uint64_t live;     /* ids of hours that are alive */
        uint64_t by_class[ADI_SLOTS];
};
struct adi_tags {
        struct adi_tag_table tables[ADI_TABLES_MAX]; /* new ids go to the last */
        unsigned count;
        uint64_t open_ids;                        /* dedupe_open_ids */
        uint32_t hours_per_class, classes, parts; /* classes * parts <= ADI_SLOTS */
        uint32_t holds[ADI_SLOTS];                /* buckets that hold a class */
        int64_t last_hour[ADI_SLOTS];             /* of a held class */
        uint8_t live[256];                        /* by slot */
        uint16_t drops;                           /* classes that ended, so far */
};
struct adi_hits {
        uint64_t bits[4]; /* by slot */
};

void adi_tags_init(struct adi_tags *t, uint32_t horizon_hours, size_t open_ids);
void adi_tags_release(struct adi_tags *t);
/* The bucket of this hour gets runs (once), and is dropped. Tables that hold nothing any more are
 * freed. */
void adi_tags_hold(struct adi_tags *t, int64_t hour);
void adi_tags_drop(struct adi_tags *t, int64_t hour);
int adi_tags_reserve(struct adi_tags *t, uint64_t count, struct df_error *err);
/* ids of one run whose newest spill has number seq. */
int adi_tags_add(struct adi_tags *t, const struct adi_id *ids, size_t count, int64_t hour,
                 uint32_t seq, struct df_error *err);
void adi_tags_prefetch(const struct adi_tags *t, struct df_hash128 key);
/* False: no run holds key. True: only the runs for which adi_tags_may is true can. */
bool adi_tags_test(const struct adi_tags *t, struct df_hash128 key, struct adi_hits *ret);
bool adi_tags_may(const struct adi_tags *t, const struct adi_hits *hits, int64_t hour,
                  uint32_t first_seq, uint32_t last_seq);
uint64_t adi_tags_bytes(const struct adi_tags *t);

/* ---- dedupe_runs.c ---- */
struct adi_run {
        uint32_t first_seq, last_seq; /* spills it is made of */
        uint32_t level;
        bool in_files; /* in parts of ADI_PART_BLOCKS; else each block is a value */
        uint64_t count;
        struct df_pages memory; /* of mem */
        struct adi_id *mem;     /* sorted; NULL: in the store alone */
        struct adi_key *index;  /* once stored: first key of each block */
        uint64_t *bits;         /* the same: some for each id (dedupe_index.c) */
        uint32_t blocks;        /* stored, in the store or its open batch; 0: not yet */
};
struct adi_bucket {
        int64_t hour;
        struct adi_run *runs; /* oldest first */
        uint32_t run_count, run_cap;
        uint32_t next_seq;
        size_t open_ids;    /* in the set */
        struct df_buf tail; /* ids of value tail_seq of the delta, and later ones */
        uint32_t tail_seq;
        uint32_t stale_to; /* values of the delta below are covered by a run; 0 = none */
        bool tail_dirty, deltas_stored, stored, held, list_dirty;
        bool spills; /* so much is new since the last snapshot that the next one writes a run */
};

/* A key as one number, in the order of runs. */
typedef unsigned __int128 adi_key_t;
#define ADI_NO_KEY (~(adi_key_t)0)
static inline adi_key_t adi_key_number(uint64_t hi, uint64_t lo)
{
        return (adi_key_t)hi << 64 | lo;
}

struct adi_cursor {
        struct adi_id *ids; /* the current block */
        uint32_t block, at, count;
};
struct adi_merge {
        struct adi_bucket *bucket; /* NULL = none under way */
        uint32_t first, count;     /* its inputs: bucket->runs[first, first + count) */
        struct adi_cursor cursors[ADI_MERGE_RUNS_MAX];
        adi_key_t heads[ADI_MERGE_RUNS_MAX];     /* keys of their next ids; none: ADI_NO_KEY */
        uint8_t winners[2 * ADI_MERGE_RUNS_MAX]; /* tree: of 2 i and 2 i + 1; inputs at the end */
        adi_key_t last;                          /* taken, if any */
        bool any;
        struct adi_id *ids; /* memory of the cursors and the output block */
        struct adi_run out;
        uint32_t out_ids;
        bool look;            /* a merge may have become due */
        bool done;            /* the next snapshot puts out in its inputs' place */
        size_t written_bytes; /* since the last snapshot */
};

#ifdef ADI_BILLING
/* ---- dedupe_both.c ---- */
#define ADI_EPOCHS_MAX (1 << ADI_EPOCH_BITS)
struct adi_both {
        uint32_t realtime_hours; /* its horizon */
        uint32_t epoch;
        int64_t ended
                [ADI_EPOCHS_MAX]; /* realtime has forgotten ids of this epoch and hours below */
};
#endif

struct adi_dedupe {
        struct df_operator op;
        uint32_t horizon_hours; /* 0 = one bucket, for ever */
        uint32_t block_ids;     /* ids a block, ADI_BLOCK_IDS but for tiny sets */
        int64_t max_hour;
        bool has_max;
        bool header_dirty;
        struct adi_set set;
        struct adi_tags tags;
        struct adi_bucket **buckets; /* by hour */
        size_t bucket_count, bucket_cap;
        struct adi_bucket *last_used;
        struct adi_merge merge;
        struct df_buf scratch;
#ifdef ADI_BILLING
        struct adi_both both;
#endif
};

/* Hours of buckets and of ids are places: the hour, and for billing the epoch after it. */
static inline int64_t adi_place(int64_t hour, int64_t epoch)
{
        return hour * (1 << ADI_EPOCH_BITS) + epoch;
}
static inline int64_t adi_place_hour(int64_t place)
{
        return place >> ADI_EPOCH_BITS;
}

int adi_bucket_get(struct adi_dedupe *d, int64_t hour, struct adi_bucket **ret,
                   struct df_error *err);
struct adi_bucket *adi_bucket_find(const struct adi_dedupe *d, int64_t hour);
/* Buckets before this hour end, in memory and (with the open batch) in the store. */
void adi_buckets_expire(struct adi_dedupe *d, int64_t before_hour);
void adi_bucket_destroy(struct adi_bucket *b);
void adi_run_release(struct adi_run *r);
/* Room for one more run; then b->runs[b->run_count] may be filled. */
int adi_bucket_grow(struct adi_bucket *b, struct df_error *err);
/* The set's ids of this hour become a run; forget them there next. */
int adi_bucket_spill(struct adi_dedupe *d, struct adi_bucket *b, struct df_error *err);
/* Look for key in the runs that hits allow, hours [from, to] and later than what was seen. */
int adi_runs_seek(struct adi_dedupe *d, struct df_hash128 key, const struct adi_hits *hits,
                  int64_t from, int64_t to, struct adi_seen *seen, struct df_error *err);
/* Block number `block` of a run of b, of which all are read in order: at most ADI_BLOCK_IDS ids. */
int adi_run_block(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                  uint32_t block, struct adi_id *ids, uint32_t *ret_count, struct df_error *err);
uint32_t adi_run_blocks(const struct adi_dedupe *d, const struct adi_run *r);
/* Ids of this block of a run in memory. */
uint32_t adi_block_count(const struct adi_dedupe *d, const struct adi_run *r, uint32_t block);
int adi_damaged(const struct adi_bucket *b, const char *what, struct df_error *err);

/* ---- dedupe_index.c ---- */
int adi_index_open(const struct adi_dedupe *d, struct adi_run *r, uint64_t blocks,
                   struct df_error *err);
void adi_index_release(struct adi_run *r);
/* What is kept of a block; once of each. */
void adi_index_note(const struct adi_dedupe *d, const struct adi_run *r, uint32_t block,
                    const struct adi_id *ids, uint32_t count);
/* False: the run does not hold key. True: this block alone may. */
bool adi_index_find(const struct adi_dedupe *d, const struct adi_run *r, struct df_hash128 key,
                    uint32_t *ret_block);
/* Bytes of memory that go with a run of so many blocks. */
uint64_t adi_index_bytes(const struct adi_dedupe *d, uint32_t blocks);

/* ---- dedupe_stored.c ---- */
/* A stored run is long, and lies in files, or short: each block is a value. */
static inline bool adi_run_is_long(const struct adi_dedupe *d, uint64_t ids)
{
        return ids >= (uint64_t)ADI_LONG_BLOCKS * d->block_ids;
}
/* The bytes of a stored block, until the next call of the store. in_order: as adi_run_block. */
int adi_block_read(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                   uint32_t block, bool in_order, struct df_bytes *ret, struct df_error *err);
int adi_run_put_block(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                      uint32_t block, const struct adi_id *ids, uint32_t count,
                      struct df_error *err);
/* After the last block. */
void adi_run_put_end(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r,
                     uint32_t blocks);
void adi_run_delete(struct adi_dedupe *d, const struct adi_bucket *b, const struct adi_run *r);
/* All that the store holds of the hour. */
void adi_hour_delete(struct adi_dedupe *d, const struct adi_bucket *b);
void adi_delta_append(const struct adi_dedupe *d, struct adi_bucket *b, const struct adi_id *id);
int adi_buckets_snapshot(struct adi_dedupe *d, struct df_error *err);

#ifdef ADI_BILLING
void adi_both_open(struct adi_dedupe *d, uint32_t realtime_hours);
/* Realtime's buckets before hour - 1 - its horizon end. */
void adi_both_reach(struct adi_dedupe *d, int64_t hour);
/* Where an id of this hour is recorded. DF_ELIMIT: too many epochs. */
int adi_both_place(struct adi_dedupe *d, int64_t hour, int64_t *ret, struct df_error *err);
/* In seen: the occurrence that counts for the bill; *ret: for realtime. */
int adi_both_seek(struct adi_dedupe *d, struct df_hash128 key, const struct adi_hits *hits,
                  int64_t hour, const struct adi_seen *seen, struct adi_seen *ret,
                  struct df_error *err);
void adi_both_put(const struct adi_dedupe *d, struct df_buf *b); /* into the header */
bool adi_both_get(struct adi_dedupe *d, struct df_reader *r);
#endif

/* ---- dedupe_restore.c ---- */
/* add: an id of a delta, in the order of recording. */
int adi_buckets_restore(struct adi_dedupe *d,
                        int (*add)(struct adi_dedupe *d, struct adi_bucket *b,
                                   const struct adi_id *id, struct df_error *err),
                        struct df_error *err);

/* ---- dedupe_merge.c ---- */
/* Merge at most about ids ids further; starts a merge when one is due. */
int adi_merge_step(struct adi_dedupe *d, uint64_t ids, struct df_error *err);
/* In a snapshot: a finished merge takes its inputs' place. */
void adi_merge_settle(struct adi_dedupe *d);
void adi_merge_abort(struct adi_dedupe *d);

#endif
