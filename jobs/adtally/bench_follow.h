/* bench_follow.h - what the realtime job has committed so far, read from `rollups` as any reader
 * does: rows count when their seal is there (K5).
 *
 * Order of calls: set partitions, ad_follower_open, ad_follow..., ad_follower_close. One thread.
 */
#ifndef AD_BENCH_FOLLOW_H
#define AD_BENCH_FOLLOW_H

#include "df/log.h"
#include "df/seal.h"

struct ad_follower {
        struct df_log_reader *reader[DF_PARTITIONS_MAX];
        struct df_collector *collector[DF_PARTITIONS_MAX];
        uint32_t partitions;
        uint64_t events, outcomes[DF_OUTCOMES_MAX], rows, rows_bytes, checkpoints;
};
int ad_follower_open(struct ad_follower *f, struct df_log *log, struct df_error *err);
/* Takes what is there. ret_idle: nothing was. */
int ad_follow(struct ad_follower *f, bool *ret_idle, struct df_error *err);
void ad_follower_close(struct ad_follower *f);

#endif
