/* toy.h - a graph of two stages through an exchange topic (DESIGN: "An exchange is a log topic").
 *
 *   clicks[P] --rekey--> by-campaign[Q] --collect, count--> counts[Q]
 *
 * rekey reads records that name a campaign and emits each to the partition of its campaign. collect
 * reads what rekey's tasks wrote, under K5: a collection counts only with its complete seal, and
 * once for each k of a source; what it has of open collections is part of its state. count counts
 * campaigns and sends changed totals, absolute, at each cut. So every click of a campaign meets in
 * one place, exactly once, and no machinery but topics is needed.
 */
#ifndef SIM_TOY_H
#define SIM_TOY_H

#include "df/operator.h"

#define TOY_CAMPAIGN_MAX 16 /* bytes */

enum { TOY_KIND_CAMPAIGNS = DF_KIND_USER + 1 /* items are struct df_bytes */ };

struct toy_params {
        uint32_t exchange_partitions;
};

extern const struct df_operator_ops toy_rekey, toy_collect, toy_count;

uint32_t toy_partition(struct df_bytes campaign, uint32_t partitions);
/* A payload of counts: the campaign's total. */
void toy_put_total(struct df_buf *b, struct df_bytes campaign, uint64_t total);
bool toy_get_total(struct df_bytes payload, struct df_bytes *ret_campaign, uint64_t *ret_total);

#endif
