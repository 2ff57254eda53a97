#include "jobs/common/task.h"

#include <stdio.h>

#include "df/run.h"

void ad_task_params(const struct df_config *c, struct ad_prices *prices, struct ad_params *ret)
{
        ad_fill_params(c, ret);
        ret->price_table = ad_prices_get;
        ret->price_arg = prices;
}

void ad_task_fill(const struct df_config *c, const struct df_topic_info *source, uint32_t partition,
                  const struct ad_params *params, const char *const *topics,
                  struct df_task_config *ret)
{
        *ret = (struct df_task_config){
                .source = {.generation = source->generation, .partition = partition},
                .partitions = source->partitions,
                .chain = ad_chain_main,
                .chain_length = ad_chain_main_length,
                .params = params,
                .output_count = AD_OUT_COUNT,
                .grace_ms = params->grace_ms,
                .config = ad_config_digest(c),
                .binary_version = ADTALLY_VERSION,
                .ticks_ns = df_ticks_ns,
        };
        (void)snprintf(ret->source.stream, sizeof(ret->source.stream), "%s", source->name);
        for (int i = 0; i < AD_OUT_COUNT; i++)
                ret->outputs[i] = (struct df_output_config){.topic = topics[i],
                                                            .partitions = source->partitions};
        ad_fill_rules(c, &ret->rules);
}
