/* fold_private.h - inside jobs/runs: the store behind fold.h.
 *
 *   'c' cell cause place      row that a checkpoint adds; place all zero: the sum so far
 *   'd' cell                  changed since the chain was posted
 *   'n' cell cause number     difference that the comparison under way found
 *   'o' cell cause            difference of the last comparison
 *   'p' partition             struct ad_replay_mark: how far it was read
 *   's'                       struct adi_summary of all rows; gone when there are new ones
 *   'x' cell                  one that ad_fold_cells is about to tell
 *   'w'                       it was posted to its end once
 * cell: quarter and names, ordered; cause: a byte; place: partition, checkpoint, number in it.
 */
#ifndef ADI_FOLD_PRIVATE_H
#define ADI_FOLD_PRIVATE_H

#include "df/rocksdb.h"
#include "jobs/runs/fold.h"

#define ADI_PLACE_BYTES 16
#define ADI_NUMBER_BYTES 8
#define ADI_COMMIT_EVERY 20000 /* writes of a long pass */

struct adi_summary {
        uint64_t rows;
        char digest[65];
};

struct ad_fold {
        const struct ad_replay *run;
        struct df_kv *kv;
        char dir[700];
        bool posted;
        uint32_t partition, number; /* being read */
        uint64_t k, difference;
        size_t written; /* since the last commit */
        struct df_buf key, value, mark;
};

void adi_put_cell_key(struct df_buf *b, char kind, const struct ad_bill_row *row);
int adi_fold_put(struct ad_fold *f, struct df_error *err); /* key and value */
/* Of a long pass: now and then. */
int adi_fold_commit_some(struct ad_fold *f, struct df_error *err);
/* All keys of a kind. */
void adi_fold_kind(char kind, uint8_t ret[2], struct df_bytes *ret_from, struct df_bytes *ret_to);

#endif
