/* fold.h - what a reconcile run found, added up and kept between its vectors (R2 to R4).
 *
 * A checkpoint's rows say what it adds to a cell (proto/bill.proto). They go into a store on disk,
 * DATA/reconcile/<run>/fold, in one write with the place up to which they were read, so that each
 * counts once, and a later vector reads only what is new. Its order is the canonical one. Rows of a
 * cell stand behind each other and are made one when the rows are told.
 *
 * For the reconcile job the store also knows which cells changed since the chain was posted last
 * (dirty), and the differences that the last comparison found: a cell's target is the sum of both.
 *
 * A store that is damaged, or that the topic does not continue, is made again from the topic; then
 * everything is posted again.
 *
 * Order of calls: open, take, [differences_begin, difference*, differences_end], rows,
 *                 [targets, posted], close. While the run's lock is held.
 * Thread: one. Errors: as df/rocksdb.h; DF_ELIMIT: a sum exceeds 128 bits.
 */
#ifndef AD_FOLD_H
#define AD_FOLD_H

#include "jobs/runs/bill.h"
#include "proto/books.h"

struct ad_fold;

/* dir: NULL is the run's own. Borrows the run. */
int ad_fold_open(const struct ad_replay *run, const char *dir, struct ad_fold **ret,
                 struct df_error *err);
/* Adds what the run wrote since. ret->final_through_ms is filled in. */
int ad_fold_take(struct ad_fold *f, struct df_log *log, struct ad_bill_result *ret,
                 struct df_error *err);
/* Lines of the cells in [ret->from, ret->to), their digest, totals by cause: see ad_bill_fold. */
int ad_fold_rows(struct ad_fold *f, const char *out, struct ad_bill_result *ret,
                 struct df_error *err);
void ad_fold_close(struct ad_fold *f);

/* ---- for the books ---- */

/* Between begin and end: what a comparison found, instead of what the last one did. `row` is the
 * cell in a quarter, its cause, and as `realtime` what realtime has beyond what its rules give
 * (signed, proto/books.h); several of a cell are added up. */
int ad_fold_differences_begin(struct ad_fold *f, struct df_error *err);
int ad_fold_difference(struct ad_fold *f, const struct ad_bill_row *row, struct df_error *err);
int ad_fold_differences_end(struct ad_fold *f, struct df_error *err);

/* Whether it was part of what was posted to the end: if not, targets of all cells are wanted. */
bool ad_fold_was_posted(const struct ad_fold *f);
/* Rows and digest (64 hex digits and a zero) of all cells, when nothing came since they were told;
 * false: ad_fold_rows must. */
bool ad_fold_summary(struct ad_fold *f, uint64_t *ret_rows, char ret_digest[65]);
/* The target of each cell, over these folds (live events, imports), that changed in one of them
 * since they were posted; whole: of all cells. In canonical order; what fn gets dies with the call.
 */
int ad_fold_targets(struct ad_fold *const *folds, size_t count, bool whole,
                    int (*fn)(void *arg, const struct ad_target *t, struct df_error *err),
                    void *arg, struct df_error *err);
/* The target of each cell of the account in the quarters [from, to), over these folds, in canonical
 * order. ret_has, `count` of them or NULL: which folds have any. */
int ad_fold_cells(struct ad_fold *const *folds, size_t count, const struct ad_account *account,
                  uint64_t from, uint64_t to, bool *ret_has,
                  int (*fn)(void *arg, const struct ad_target *t, struct df_error *err), void *arg,
                  struct df_error *err);
/* They are in the books' topic: durable. */
int ad_fold_posted(struct ad_fold *const *folds, size_t count, struct df_error *err);

#endif
