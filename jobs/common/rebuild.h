/* rebuild.h - a task whose state `adtally recover --from log` has asked to be rebuilt (K10).
 *
 * Order of calls: ad_rebuild_place once; ad_rebuild_read each time the task's state is opened;
 *                 ad_rebuild_step from its ports' step. Thread: that of the call.
 */
#ifndef AD_REBUILD_H
#define AD_REBUILD_H

#include <limits.h>

#include "df/config.h"
#include "df/task.h"

struct ad_rebuild {
        char dir[PATH_MAX];             /* ad_state_dir */
        char mark[PATH_MAX];            /* ad_rebuild_mark */
        char of[DF_COMMITTED_TEXT_MAX]; /* what the mark holds */
        bool file_log;
        bool told; /* there is a mark */
};
int ad_rebuild_place(const struct df_config *c, const char *topic, uint32_t partition,
                     struct ad_rebuild *ret, struct df_error *err);
/* The mark into ports. On Kafka what it holds says until when it counts. On the file log it is
 * until the rebuilt state has its first checkpoint: another loss after that is refused again. */
int ad_rebuild_read(struct ad_rebuild *r, struct df_session_ports *ports, struct df_error *err);
/* Changes whenever `adtally recover` was done with a task, here or on another machine that has the
 * same checkpoint store: then those that were refused are tried again (df_workers_retry). */
int64_t ad_recovered_ns(const struct df_config *c);
/* With its first commit a rebuild is done. */
void ad_rebuild_step(struct ad_rebuild *r, const char *step);

#endif
