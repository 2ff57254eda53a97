/* world.h - seeded input: the configuration of a job, and the records of its topic.
 *
 * Times stand close to every limit on purpose, on both sides of it; horizon, grace and cap are
 * small, so that windows settle, ids expire and keys fold within some hundred events.
 */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "df/sim.h"
#include "operators/ops.h"

#define WORLD_PARTITIONS_MAX 3
#define WORLD_PRICES 6
#define WORLD_TABLES 2
#define WORLD_MINUTE_MS 60000LL
#define WORLD_HOUR_MS 3600000LL

struct world_record {
        uint32_t partition;
        int64_t append_ms;     /* what the log's clock says when it is appended */
        bool clock_restart;    /* the log's clock starts again with this record (T2) */
        bool ahead;            /* from the producer whose clock is a day ahead */
        struct df_bytes value; /* owned */
};

struct world_made { /* an event that was sent: to be repeated, or contradicted */
        struct ad_event ev;
        uint32_t partition;
};

struct world {
        uint64_t seed;
        struct df_sim_random random;
        /* the job */
        uint32_t partitions;
        struct df_clock_rules rules;
        struct ad_params params;
        struct ad_groupings groupings;
        struct ad_price prices[WORLD_TABLES][WORLD_PRICES];
        struct ad_price_table tables[WORLD_TABLES];
        /* the input, in the order of appending */
        struct world_record *records;
        size_t record_count, record_cap;
        /* while making it */
        int64_t now_ms;
        int64_t max_append_ms[WORLD_PARTITIONS_MAX];
        int64_t max_receive_ms[WORLD_PARTITIONS_MAX];
        int64_t watermark_ms[WORLD_PARTITIONS_MAX]; /* about: only to aim at limits */
        uint64_t next_id;
        uint64_t accepted[WORLD_PARTITIONS_MAX];
        struct world_made *made;
        size_t made_count, made_cap;
        struct df_arena strings;
};

void world_make(struct world *w, uint64_t seed);
/* The same input without what the producer with the clock a day ahead sent: its records hold no
 * event, everything else stays where it is. */
void world_make_without_ahead(struct world *w, uint64_t seed);
void world_release(struct world *w);
/* config->source.generation is left for the caller; outputs, chain and rules are filled in. */
void world_task_config(const struct world *w, uint32_t partition, struct df_task_config *ret);

#endif
