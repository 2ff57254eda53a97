/* books_private.h - between the files of the view of the bill. What it stores:
 *
 *   'r' tenant, advertiser, quarter, campaign, publisher, currency, ~seq  -> posting: all versions
 *   'd' tenant, advertiser                         -> advertiser
 *   'a' tenant, posted period, advertiser, seq     -> posting
 *   'p' tenant, advertiser, period, asked_by       -> closed
 *   'z' tenant, advertiser, to_quarter             -> seqs, at_ms, ... of a close that was taken
 *   'o' ~number of the run                         -> newest at_ms so far, seq, applied
 *   'i' id of the run                              -> number of the run
 *   'g' tenant or "", quarter, currency            -> sums of the newest postings
 *   's' source                                     -> k that was applied
 *   'm'                                            -> what the store is of
 *   'c'                                            -> position and counters
 *
 * Strings are in byte order with an end of their own, numbers big endian, ~ bits inverted: the
 * greatest comes first. Postings, closes and runs are entries of a BooksBatch as they were read.
 */
#ifndef ADI_BOOKS_PRIVATE_H
#define ADI_BOOKS_PRIVATE_H

#include "jobs/api/books.h"
#include "jobs/api/map.h"

/* Up to here in the topic. */
struct adi_books_counters {
        uint64_t position; /* to read on from */
        uint64_t seq;      /* of the newest posting */
        uint64_t runs;     /* applied or refused */
        uint64_t run_seq;  /* of the newest posting when the last run was applied */
        uint64_t postings, adjustments, closes;
        uint64_t gaps; /* postings whose seq is not the next: 0, or an alarm */
        int64_t at_ms; /* the greatest of the runs */
};

struct adi_drift { /* of one quarter and currency */
        struct ad_cause_cell causes[AD_CAUSE_COUNT];
        uint64_t cells[AD_CAUSE_COUNT];
};

struct ad_billing {
        struct df_kv *kv;
        struct df_store *store;
        struct adi_books_counters counters;
        /* Of the batch that is not committed yet. */
        struct df_arena memory;
        struct ad_map newest; /* key of the cell -> struct df_bytes, its target */
        struct ad_map sums;   /* key 'g' -> struct adi_drift */
        size_t pending;
        struct df_arena scratch; /* of one entry */
        struct df_buf key, value;
};

struct ad_billing_read {
        struct df_kv *kv;
        struct df_kv_snapshot *snapshot;
        struct adi_books_counters counters;
        struct df_arena scratch;
        struct df_buf from, to, value;
};

/* ---- books_keys.c ---- */
void adi_books_key(struct df_buf *b, uint8_t kind, const struct df_bytes *parts, size_t count);
/* Everything of a cell but its seq; cleared before. */
void adi_books_cell_key(struct df_buf *b, const struct ad_target *t);
void adi_books_quarter_key(struct df_buf *b, struct df_bytes tenant, uint64_t quarter);
/* The end of all keys that begin with what is in b, into ret. */
void adi_books_after(const struct df_buf *b, struct df_buf *ret);
void adi_books_run_key(struct df_buf *b, uint64_t number);
void adi_books_counters_encode(struct df_buf *b, const struct adi_books_counters *c);
bool adi_books_counters_decode(struct df_bytes bytes, struct adi_books_counters *ret);
int adi_books_damaged(struct df_error *err); /* DF_ECORRUPT */

/* One entry of a kind. It borrows from value; arrays lie in the arena. */
int adi_books_entry(struct df_bytes value, enum ad_books_kind kind, struct df_arena *arena,
                    struct ad_books_entry *ret, struct df_error *err);

/* ---- books_read.c ---- */
struct adi_close { /* that was taken */
        uint64_t to_quarter, seq;
        uint64_t from_seq; /* of the point from which on it counts */
        bool whole_tenant;
        char open_period[AD_PERIOD_MAX + 1];
};
/* Of the account that the advertiser's cells belong to, ascending. */
int adi_books_taken(struct ad_billing_read *r, struct df_bytes tenant_id,
                    struct df_bytes advertiser_id, struct ad_billing_point point,
                    struct df_arena *arena, const struct adi_close **ret, size_t *ret_count,
                    struct df_error *err);

/* ---- books_drift.c ---- */
/* before NULL: the cell is new. */
int adi_books_drift_add(struct ad_billing *b, const struct ad_target *before,
                        const struct ad_target *now, struct df_error *err);
int adi_books_drift_put(struct ad_billing *b, struct df_error *err); /* into the batch */

#endif
