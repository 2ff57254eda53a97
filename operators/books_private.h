/* books_private.h - between the files of the operator `books`.
 *
 * Records are worked off one after the other, each by adi_books_take, in units that emit little: a
 * target, a row of a scan. When the outbox has no room for another unit, the record and how far it
 * has come (struct adi_work) stay in the queue, records behind it too, and on_cut goes on. So what
 * is posted, and in which order, depends on the records alone.
 *
 * Ownership: everything belongs to the operator. Thread: the task's. Errors: as operator.h.
 */
#ifndef ADI_BOOKS_PRIVATE_H
#define ADI_BOOKS_PRIVATE_H

#include "operators/ops.h"
#include "proto/books.h"

/* ---- rows (books_rows.c): the store, and what was written since the last snapshot ---- */
struct adi_row_entry;
struct adi_rows {
        struct df_store *store;
        uint8_t prefix[2];   /* of every key */
        struct df_buf bytes; /* of keys and values */
        struct adi_row_entry *entries;
        uint32_t *slots; /* index + 1 into entries, 0 = empty */
        uint32_t count, cap, mask;
        struct df_buf key, value; /* what a scan hands out */
};
int adi_rows_init(struct adi_rows *r, struct df_store *store, uint8_t ns, struct df_error *err);
void adi_rows_release(struct adi_rows *r);
/* Keys are without the prefix. *ret_value is valid until the next call. */
int adi_rows_get(struct adi_rows *r, struct df_bytes key, struct df_bytes *ret_value,
                 bool *ret_found, struct df_error *err);
int adi_rows_put(struct adi_rows *r, struct df_bytes key, struct df_bytes value,
                 struct df_error *err);
/* fn for each row from `from` on whose key begins with `begin`, ascending; 1 stops before this row.
 * fn may put the row it was called for; what it gets is valid until it returns. */
typedef int (*adi_row_fn)(void *arg, struct df_bytes key, struct df_bytes value,
                          struct df_error *err);
int adi_rows_scan(struct adi_rows *r, struct df_bytes begin, struct df_bytes from, adi_row_fn fn,
                  void *arg, struct df_error *err);
/* All that was put goes into the store's batch. */
int adi_rows_snapshot(struct adi_rows *r, struct df_error *err);

/* ---- runs (books_runs.c): being read, applied last, or ahead of that one ---- */
#define ADI_RUNS_READING_MAX 16 /* the one that began first is given up */

enum adi_refusal { ADI_RUN_FINE, ADI_RUN_CHAIN_OVER, ADI_RUN_CHAIN_GAP };
struct adi_run {
        uint64_t index;        /* rows name it; grows */
        uint64_t begun, ended; /* moments; ended 0: it is being read */
        uint64_t read;         /* cells that it named; of those it may not set, targets */
        uint64_t posted, adjusted, superseded;
        uint32_t refusal;
        bool stored, current; /* a begin is in the store; and it is the latest one */
        struct df_buf bytes;  /* RunRecord of its begin */
        struct df_arena arena;
        struct ad_run_begin begin;           /* borrows from bytes and arena */
        const struct ad_vector_part *sorted; /* begin.vector by source */
        /* Answers of comparisons, by the index of the other: a run has many rows. */
        uint64_t behind_of, stale_of;
        bool behind, stale;
        bool keep;
};
struct adi_runs {
        struct adi_run **list; /* by index */
        size_t count, cap;
        uint64_t last_index, moments; /* moments: of begins and ends, counted */
        uint64_t tip;        /* index of the last applied run, 0 = none: it vouches for all rows */
        struct df_buf chain; /* of which runs are taken */
        struct df_buf gap;   /* run without which the chain's state is not whole; empty: it is */
        struct df_buf dead;  /* u64be indices whose keys are still in the store */
};
void adi_runs_release(struct adi_runs *r);
/* bytes: the record that begin was decoded from. */
int adi_runs_begin(struct adi_runs *r, struct df_bytes bytes, const struct ad_run_begin *begin,
                   struct df_error *err);
bool adi_runs_is_tip(const struct adi_runs *r, struct df_bytes run);
struct adi_run *adi_runs_reading(const struct adi_runs *r, struct df_bytes run); /* or NULL */
struct adi_run *adi_runs_at(const struct adi_runs *r, uint64_t index);           /* or NULL */
bool adi_run_behind(struct adi_run *a, const struct adi_run *b);   /* in any component */
bool adi_run_stale(const struct adi_runs *r, struct adi_run *run); /* behind the tip */
/* It was read to its end: complete, or with targets missing. */
int adi_runs_end(struct adi_runs *r, struct adi_run *run, bool complete, struct df_error *err);
int adi_runs_snapshot(struct adi_runs *r, struct df_store *store, uint8_t ns, struct df_error *err);
int adi_runs_restore(struct adi_runs *r, struct df_store *store, uint8_t ns, struct df_error *err);
void adi_runs_put_header(const struct adi_runs *r, struct df_buf *to);
/* After adi_runs_restore. */
int adi_runs_get_header(struct adi_runs *r, struct df_reader *from, struct df_error *err);

/* ---- accounts (books_accounts.c) ---- */
struct adi_period {
        char name[AD_PERIOD_MAX + 1];
        uint64_t from, to; /* quarters */
        char asked_by[AD_COMMAND_ID_MAX + 1];
};
struct adi_account {
        char tenant[AD_ID_MAX], advertiser[AD_ID_MAX];
        size_t tenant_len, advertiser_len;
        struct adi_period *periods; /* closed, each from the end of the one before */
        size_t count;
        char open[AD_PERIOD_MAX + 1];
        bool dirty;
};
struct adi_accounts {
        struct adi_account **list; /* by tenant, advertiser; each has a closed period */
        size_t count;
};
void adi_accounts_release(struct adi_accounts *a);
struct adi_account *adi_accounts_find(const struct adi_accounts *a, struct ad_account key);
/* Whose period a row is in: the tenant's account, or the advertiser's; NULL: nothing was closed. */
struct adi_account *adi_accounts_of_row(const struct adi_accounts *a, struct df_bytes tenant,
                                        struct df_bytes advertiser);
/* Whether the tenant closes in the other way than this account would. */
bool adi_accounts_mixed(const struct adi_accounts *a, struct ad_account key);
bool adi_account_closed(const struct adi_account *a, uint64_t quarter);
/* "" before the first one and after the last. */
const char *adi_account_period(const struct adi_account *a, uint64_t quarter);
/* False: no "2026-04". */
bool adi_period_next(struct df_bytes name, char ret[AD_PERIOD_MAX + 1]);
int adi_accounts_close(struct adi_accounts *a, const struct ad_period_close *c,
                       struct df_error *err);
int adi_accounts_snapshot(struct adi_accounts *a, struct df_store *store, uint8_t ns,
                          struct df_error *err);
int adi_accounts_restore(struct adi_accounts *a, struct df_store *store, uint8_t ns,
                         struct df_error *err);

/* ---- the operator ---- */
struct adi_work {
        uint64_t done;        /* targets of the batch; of a close: 1 once it is accepted */
        struct df_buf cursor; /* row at which the scan goes on */
};
struct adi_queued {
        uint8_t *bytes;
        size_t len;
};
struct books {
        struct df_operator op;
        struct adi_rows rows;
        struct adi_runs runs;
        struct adi_accounts accounts;
        uint64_t seq;         /* of the last posting */
        struct adi_work work; /* of the record at the front */
        struct adi_queued *queue;
        size_t queued, queue_cap;
        uint64_t stored;   /* records of the queue in the store */
        struct df_buf out; /* entries that are not emitted yet */
        struct df_buf key, value;
        struct df_arena record, unit; /* what was decoded of the record; of one row */
};

/* A row as it is kept. */
struct adi_row {
        uint64_t run; /* index */
        struct ad_target target;
        uint8_t room[5][AD_ID_MAX]; /* of its strings */
};
int adi_books_row(struct books *b, struct df_bytes key, struct df_bytes value, struct adi_row *ret,
                  struct df_error *err);
int adi_books_put_row(struct books *b, struct df_bytes key, uint64_t run, const struct ad_target *t,
                      struct df_error *err);
/* Room for another unit and for what ends the record. */
bool adi_books_room(const struct books *b, const struct df_out *out);
int adi_books_emit(struct books *b, const struct ad_books_entry *e, struct df_out *out,
                   struct df_error *err);
int adi_books_flush(struct books *b, struct df_out *out, struct df_error *err);

/* books_post.c: the target instead of what the row says. *ret_closed: it is an adjustment. */
struct adi_posted {
        struct df_bytes run;
        int64_t at_ms;
};
int adi_books_post(struct books *b, struct adi_posted by, const struct ad_target *from,
                   const struct ad_target *to, struct df_out *out, bool *ret_closed,
                   struct df_error *err);
/* A posting of a row that stays, all of it an adjustment in this period. */
int adi_books_post_whole(struct books *b, struct adi_posted by, const struct ad_target *row,
                         struct df_bytes period, struct df_out *out, struct df_error *err);
/* What a record does. *ret_done false: no room; the work says how far it is. 1: it does not belong
 * here. */
int adi_books_targets(struct books *b, const struct ad_target_batch *t, struct df_out *out,
                      bool *ret_done, struct df_error *err);
int adi_books_end(struct books *b, const struct ad_run_end *e, struct df_out *out, bool *ret_done,
                  struct df_error *err);
/* books_close.c */
int adi_books_close(struct books *b, const struct ad_period_close *c, struct df_out *out,
                    bool *ret_done, struct df_error *err);

#endif
