/* task.h - the task of one partition, the same for everybody who counts: live, import, replay.
 *
 * The chain of operators, their parameters and the rules of the clock come from the settings, so
 * that the same records give the same numbers wherever they are processed. Thread: any.
 */
#ifndef AD_TASK_H
#define AD_TASK_H

#include "df/task.h"
#include "jobs/common/prices.h"
#include "jobs/common/settings.h"

/* Of live traffic, with the tables of prices (borrowed). */
void ad_task_params(const struct df_config *c, struct ad_prices *prices, struct ad_params *ret);

/* topics: names of the outputs, in the order of enum ad_output; they have as many partitions as the
 * source. What is handed in is borrowed by *ret. No range, no control records, not bounded. */
void ad_task_fill(const struct df_config *c, const struct df_topic_info *source, uint32_t partition,
                  const struct ad_params *params, const char *const *topics,
                  struct df_task_config *ret);

#endif
