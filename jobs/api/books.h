/* books.h - the view of the bill: the topic `billing`, kept so that it can be asked (R7).
 *
 * Every version of a cell is kept, so the bill can be read as it was at any point of the topic.
 * The store can be thrown away: `billing` is kept for ever and it is built again from it.
 *
 * One thread writes (books_follow.h): ad_billing_add for each complete collection (K5), then
 * ad_billing_commit, one write with the position to read on from. Any thread reads: begin, ask,
 * end.
 * A read sees one state of the store; it belongs to one thread at a time, and a callback asks
 * nothing of the read that called it.
 * Ownership: what a callback gets dies with the call; what is returned lies in the arena given.
 * Errors: DF_ECORRUPT: the store is damaged, it is to be built anew. A callback that returns 1 ends
 * a scan early without an error, a negative value fails it.
 * Cost: a scan reads every version of every cell in its range, some 1 us each.
 */
#ifndef AD_API_BOOKS_H
#define AD_API_BOOKS_H

#include "df/arena.h"
#include "df/rocksdb.h"
#include "df/seal.h"
#include "proto/books.h"

struct ad_billing;

/* generation: of the topic; the store of another one is begun anew, as is one that is damaged.
 * *ret_why says why ("" when it was kept or is the first). */
int ad_billing_open(const char *dir, uint64_t generation, struct ad_billing **ret, char why[256],
                    struct df_error *err);
/* Throw the store away, so that the next open builds it from the topic. Nobody has it open. */
int ad_billing_discard(const char *dir, struct df_error *err);
void ad_billing_close(struct ad_billing *b); /* after every read ended; NULL-safe */

/* ---- the writer; after an error the store is to be closed and opened again ---- */
uint64_t ad_billing_position(const struct ad_billing *b); /* of the topic: read from */
/* For df_collector_applied, at start. */
int ad_billing_sources(struct ad_billing *b,
                       int (*fn)(void *arg, const struct df_source *source, uint64_t k,
                                 struct df_error *err),
                       void *arg, struct df_error *err);
int ad_billing_add(struct ad_billing *b, const struct df_collection *c, struct df_error *err);
size_t ad_billing_pending(const struct ad_billing *b); /* entries since the last commit */
int ad_billing_commit(struct ad_billing *b, uint64_t position, struct df_error *err);

/* ---- reading ---- */
struct ad_billing_read;
int ad_billing_begin(struct ad_billing *b, struct ad_billing_read **ret, struct df_error *err);
void ad_billing_end(struct ad_billing_read *r); /* NULL-safe */

/* A point in the books. Postings behind seq, and closes behind it or of a later time, are not
 * there yet; closes after a run count from the point of that run. Of a Closed: {closed.seq,
 * closed.close.at_ms}. */
struct ad_billing_point {
        uint64_t seq;
        int64_t at_ms;
};
struct ad_billing_run {
        uint64_t number; /* 1, 2, ... in the order in which runs were applied */
        uint64_t seq;    /* of the last posting before it was done */
        struct ad_applied applied;
};
/* The newest run; false: none was applied yet. Whoever shows numbers reads at its point
 * {run.seq, INT64_MAX}: half a run is never seen. */
int ad_billing_last(struct ad_billing_read *r, struct df_arena *arena, struct ad_billing_run *ret,
                    bool *ret_found, struct df_error *err);
/* R7: the last run before the first one whose vector was pinned after at_ms. Once any such run was
 * applied the answer never changes: *ret_exact. Not found: at_ms is before the first run. */
int ad_billing_as_of(struct ad_billing_read *r, int64_t at_ms, struct df_arena *arena,
                     struct ad_billing_run *ret, bool *ret_found, bool *ret_exact,
                     struct df_error *err);
/* By its id; of one that was applied several times, the last time. */
int ad_billing_find_run(struct ad_billing_read *r, struct df_bytes id, struct df_arena *arena,
                        struct ad_billing_run *ret, bool *ret_found, struct df_error *err);
/* The newest first, of those with a number below `below` (0: all). */
int ad_billing_runs(struct ad_billing_read *r, uint64_t below,
                    int (*fn)(void *arg, const struct ad_billing_run *run, struct df_error *err),
                    void *arg, struct df_error *err);

struct ad_billing_cell {
        /* The newest version: its target is the bill of the cell, closed cell and adjustments. */
        const struct ad_posting *posting;
        struct ad_cell billed, realtime; /* sums over its causes */
        uint64_t closed_to;              /* quarter: how far its account is closed */
        bool closed;                     /* the cell lies before that */
        bool adjusted;                   /* and its bill is no longer what it was at the close */
        struct ad_cell at_close;         /* billed then; while it is open: billed */
};
struct ad_billing_scope {
        struct df_bytes tenant_id;
        bool one_advertiser; /* only advertiser_id, which may be empty: events that stated none */
        struct df_bytes advertiser_id;
        uint64_t from_quarter, to_quarter; /* since the epoch, UTC: [from, to) */
        struct ad_billing_point point;
        /* NULL, or counts every version read; a scan ends early beyond versions_max. */
        uint64_t *versions;
        uint64_t versions_max;
};
/* By advertiser, quarter, campaign, publisher and currency, ascending. Cells that were never posted
 * are not there; one whose target went to zero is. */
int ad_billing_cells(struct ad_billing_read *r, const struct ad_billing_scope *scope,
                     int (*fn)(void *arg, const struct ad_billing_cell *cell, struct df_error *err),
                     void *arg, struct df_error *err);
/* All versions of one cell (causes of `cell` are not looked at), the newest first. */
int ad_billing_history(struct ad_billing_read *r, const struct ad_target *cell,
                       struct ad_billing_point point,
                       int (*fn)(void *arg, const struct ad_posting *posting, struct df_error *err),
                       void *arg, struct df_error *err);
/* Postings with a delta that count in `period` (empty: in any), by period, advertiser and seq. */
int ad_billing_adjustments(struct ad_billing_read *r, const struct ad_billing_scope *scope,
                           struct df_bytes period,
                           int (*fn)(void *arg, const struct ad_posting *posting,
                                     struct df_error *err),
                           void *arg, struct df_error *err); /* quarters are not looked at */
/* Advertisers with a cell, ascending. */
int ad_billing_advertisers(struct ad_billing_read *r, struct df_bytes tenant_id,
                           int (*fn)(void *arg, struct df_bytes advertiser_id,
                                     struct df_error *err),
                           void *arg, struct df_error *err);

/* Closes of a tenant, taken and refused, by account ("" first: the tenant itself), period and
 * asked_by. */
int ad_billing_closes(struct ad_billing_read *r, struct df_bytes tenant_id,
                      int (*fn)(void *arg, const struct ad_closed *closed, struct df_error *err),
                      void *arg, struct df_error *err);
/* Whose periods an advertiser's cells belong to, and how far they are closed. */
struct ad_billing_account {
        bool any;           /* something is closed; otherwise the rest is zero */
        bool whole_tenant;  /* the tenant closes as a whole */
        uint64_t closed_to; /* quarter: cells before it are closed */
        char open_period[AD_PERIOD_MAX + 1];
};
int ad_billing_account(struct ad_billing_read *r, struct df_bytes tenant_id,
                       struct df_bytes advertiser_id, struct ad_billing_point point,
                       struct ad_billing_account *ret, struct df_error *err);

/* Sums of all newest postings, by currency: what drift is watched by. Cheap: they are kept by
 * quarter hour. */
struct ad_billing_drift {
        struct df_bytes currency;
        struct ad_cause_cell causes[AD_CAUSE_COUNT]; /* [cause] */
        uint64_t cells[AD_CAUSE_COUNT];              /* that have something under the cause */
};
/* tenant_id empty: of all. *ret: by currency, ascending. */
int ad_billing_drifts(struct ad_billing_read *r, struct df_bytes tenant_id, uint64_t from_quarter,
                      uint64_t to_quarter, struct df_arena *arena, struct ad_billing_drift **ret,
                      size_t *ret_count, struct df_error *err);
/* Both sides of all causes. */
void ad_drift_spend(const struct ad_billing_drift *d, df_nanos *ret_billed, df_nanos *ret_realtime);
/* |realtime - billed| / |billed| of two amounts. False: both are 0, there is none. When only billed
 * is 0 it is 1. */
bool ad_drift(df_nanos billed, df_nanos realtime, double *ret);

/* Whether a bill of this age should have been made anew: more than twice the schedule, and a minute
 * for a run that gives way or has just been started. every_ms 0: there is no schedule. */
#define AD_BILL_OVERDUE_TIMES 2
#define AD_BILL_OVERDUE_SLACK_MS 60000
bool ad_bill_is_overdue(int64_t age_ms, int64_t every_ms);

#endif
