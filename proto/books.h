/* books.h - commands, runs and postings in memory, and their bytes (books.proto). Errors, ownership
 * and threads as in wire.h; arrays lie in the arena given to decode.
 */
#ifndef AD_BOOKS_H
#define AD_BOOKS_H

#include "proto/bill.h"

#define AD_COMMAND_ID_MAX 64    /* [A-Za-z0-9._-] */
#define AD_PERSON_MAX 128       /* bytes of requested_by and approved_by */
#define AD_REASON_TEXT_MAX 1024 /* bytes of a reason */
#define AD_SCOPE_EVENT_IDS_MAX 1000
#define AD_PERIOD_MAX 7  /* "2026-04" */
#define AD_RUN_ID_MAX 16 /* hex digits */
#define AD_ZONE_MAX 64   /* bytes of a zone's name and of its version */
#define AD_MANIFEST_MAX (512u << 10)
#define AD_SIGNATURE_MAX 256
#define AD_VECTOR_PARTS_MAX 8192 /* of a run: partitions of events and imports */
#define AD_TARGETS_MAX 65536     /* of one record; DF_LOG_RECORD_MAX bounds their bytes */
#define AD_CURRENCIES_MAX 256    /* of an account's totals */

enum ad_correction_action {
        AD_CORRECT_NONE,
        AD_CORRECT_VOID,
        AD_CORRECT_REPRICE,
        AD_CORRECT_REMAP,
        AD_CORRECT_LABEL,
        AD_CORRECT_COUNT,
};

struct ad_scope {
        const struct df_bytes *event_ids;
        size_t event_id_count;
        struct df_bytes advertiser_id, campaign_id, publisher_id; /* empty: any */
        uint32_t label;                                           /* 0: any */
        int64_t from_ms, to_ms;                                   /* to_ms 0: no end */
};
struct ad_correction {
        struct ad_scope scope;
        enum ad_correction_action action;
        int64_t price_nanos;
        struct df_bytes currency;
        struct df_bytes advertiser_id, campaign_id, publisher_id;
        uint32_t label;
};
struct ad_account { /* advertiser_id empty: the whole tenant */
        struct df_bytes tenant_id, advertiser_id;
};
struct ad_close_request {
        struct ad_account account;
        struct df_bytes period;
        uint64_t from_quarter, to_quarter;
        struct df_bytes zone, zone_version;
};
enum ad_command_kind {
        AD_COMMAND_NONE, /* of a later version */
        AD_COMMAND_CORRECTION,
        AD_COMMAND_CLOSE,
        AD_COMMAND_RUN,
        AD_COMMAND_CANCEL,
};
struct ad_command {
        struct df_bytes id, tenant_id, requested_by, approved_by, reason;
        int64_t at_ms;
        enum ad_command_kind kind;
        struct ad_correction correction;
        struct ad_close_request close;
        struct df_bytes cancel; /* id */
};

struct ad_vector_part {
        struct df_bytes stream;
        uint64_t generation;
        uint32_t partition;
        uint64_t to;
};
struct ad_run_begin {
        struct df_bytes run, chain, binary_version, asked_by;
        bool whole;
        const struct ad_vector_part *vector;
        size_t vector_count;
        uint64_t config;
        uint32_t price_version;
        uint64_t corrections_to;
        int64_t at_ms;
};
struct ad_cause_cell {
        uint32_t cause;
        struct ad_cell billed, realtime; /* AD_CAUSE_NONE: equal */
};
struct ad_target {
        uint64_t quarter;
        struct df_bytes tenant_id, advertiser_id, campaign_id, publisher_id, currency;
        const struct ad_cause_cell *causes; /* ascending */
        size_t cause_count;
};
struct ad_target_batch {
        struct df_bytes run;
        const struct ad_target *targets;
        size_t count;
};
struct ad_run_end {
        struct df_bytes run;
        uint64_t targets, rows, unexplained, pending;
        struct df_bytes digest; /* 32 bytes */
};
struct ad_currency_cell {
        struct df_bytes currency;
        struct ad_cell billed;
};
struct ad_period_close {
        struct df_bytes run, asked_by;
        struct ad_account account;
        struct df_bytes period, zone, zone_version;
        uint64_t from_quarter, to_quarter;
        uint64_t rows;
        const struct ad_currency_cell *totals; /* by currency, ascending */
        size_t total_count;
        struct df_bytes manifest, signature;
        int64_t at_ms;
};
enum ad_run_record_kind {
        AD_RUN_NONE, /* of a later version */
        AD_RUN_BEGIN,
        AD_RUN_TARGETS,
        AD_RUN_END,
        AD_RUN_CLOSE,
};
struct ad_run_record {
        enum ad_run_record_kind kind;
        struct ad_run_begin begin;
        struct ad_target_batch targets;
        struct ad_run_end end;
        struct ad_period_close close;
};

struct ad_posting {
        uint64_t seq;
        struct df_bytes run;
        int64_t at_ms;
        struct ad_target target;
        struct df_bytes closed_period, posted_period;
        const struct ad_cause_cell *delta; /* billed side only, signed counts */
        size_t delta_count;
};
struct ad_applied {
        struct ad_run_begin begin;
        uint64_t posted, adjusted, superseded;
        struct ad_run_end end; /* targets is not kept */
        struct df_bytes why;   /* refused: code and text */
};
struct ad_closed {
        struct ad_period_close close;
        bool refused;
        struct df_bytes why;
        uint64_t seq;
        struct df_bytes open_period;
};
enum ad_books_kind { AD_BOOKS_NONE, AD_BOOKS_POSTING, AD_BOOKS_APPLIED, AD_BOOKS_CLOSED };
struct ad_books_entry {
        enum ad_books_kind kind;
        struct ad_posting posting;
        struct ad_applied applied;
        struct ad_closed closed;
};

/* ---- bytes: append a whole message / decode one ---- */
void ad_wire_command(struct df_buf *b, const struct ad_command *c);
int ad_wire_command_decode(struct df_bytes bytes, struct df_arena *arena, struct ad_command *ret,
                           struct df_error *err);
void ad_wire_run_record(struct df_buf *b, const struct ad_run_record *r);
int ad_wire_run_record_decode(struct df_bytes bytes, struct df_arena *arena,
                              struct ad_run_record *ret, struct df_error *err);
/* One entry of a TargetBatch, so that a writer can fill a record bit by bit: a RunRecord of targets
 * is ad_wire_targets_begin, entries, ad_wire_targets_end. */
size_t ad_wire_targets_begin(struct df_buf *b, struct df_bytes run);
void ad_wire_target(struct df_buf *b, const struct ad_target *t); /* as entry */
void ad_wire_targets_end(struct df_buf *b, size_t begun);
/* A Target alone (values of stores). */
void ad_wire_target_value(struct df_buf *b, const struct ad_target *t);
int ad_wire_target_decode(struct df_bytes bytes, struct df_arena *arena, struct ad_target *ret,
                          struct df_error *err);
/* Entry of a BooksBatch; decode calls fn for each entry, what it gets dies with the call. */
void ad_wire_books_entry(struct df_buf *b, const struct ad_books_entry *e);
int ad_wire_books_decode(struct df_bytes payload, struct df_arena *arena,
                         int (*fn)(void *arg, const struct ad_books_entry *e, struct df_error *err),
                         void *arg, struct df_error *err);

/* ---- differences ----
 * A cell of a difference has signed counts: the uint64 fields hold int64 in two's complement, in
 * memory and in bytes. Never add one with ad_cell_add, which takes a negative count for an
 * overflow, and print counts through ad_count_signed. Money is signed anyway. */
static inline int64_t ad_count_signed(uint64_t count)
{
        return (int64_t)count;
}
/* *to += v and *to -= v with signed counts; false, *to unchanged, when a count leaves 64 bits or a
 * sum of money 128. Absolute cells are fine on either side (counts below 2^63). */
bool ad_cell_add_signed(struct ad_cell *to, const struct ad_cell *v);
bool ad_cell_subtract(struct ad_cell *to, const struct ad_cell *v);
bool ad_cell_eq(const struct ad_cell *a, const struct ad_cell *b);
/* Sum of the billed sides, and of the realtime sides; false on overflow. */
bool ad_target_sums(const struct ad_target *t, struct ad_cell *ret_billed,
                    struct ad_cell *ret_realtime);
/* Whether they say the same of the cell: causes that are zero on both sides count as absent. */
bool ad_target_same_cells(const struct ad_target *a, const struct ad_target *b);
/* to - from of the billed sides, by cause, ascending, without causes that do not differ; ret has
 * room for AD_CAUSE_COUNT. from NULL: zero. False on overflow. */
bool ad_target_delta(const struct ad_target *from, const struct ad_target *to,
                     struct ad_cause_cell *ret, size_t *ret_count);

#endif
