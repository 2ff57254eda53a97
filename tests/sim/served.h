/* served.h - what a reader of the output topics believes (K5, W3), and whether it is true.
 *
 * Topics are read through df_collector as the serving view does: the last absolute value per (cell,
 * source); late and quarantined events as a list; and all seals in the order applied.
 */
#ifndef SIM_SERVED_H
#define SIM_SERVED_H

#include "tests/sim/job.h"
#include "tests/sim/oracle.h"

struct served_row {
        uint32_t grouping;
        uint64_t minute;
        char key[ORACLE_KEY_MAX];
        struct ad_cell cell;
};
struct served_item { /* a late or quarantined event */
        uint32_t partition;
        uint64_t offset;
        uint32_t index;
        bool whole_record;
        uint32_t outcome;
        int64_t append_ms, watermark_ms;
        uint64_t size;
        uint64_t content; /* hash of what the item says of the event */
};
struct served_seal {
        uint64_t k, epoch;
        struct df_seal seal; /* note not kept */
};
struct served_chain {
        struct served_seal *seals;
        size_t count, cap;
};

struct served {
        const struct world *world;
        struct served_row *rows; /* sorted by key at the end */
        size_t row_count, row_cap;
        struct served_item *items; /* sorted by address at the end */
        size_t item_count, item_cap;
        struct served_chain chains[AD_OUT_COUNT][WORLD_PARTITIONS_MAX];
};

/* Read everything there is. */
void served_read(struct served *v, const struct world *w, struct df_sim *sim, uint64_t generation);
void served_release(struct served *v);
/* K5, K6, W2 to W5, D1, E2, T2, T3: everything up to the end of the log, all committed. Fails the
 * program with a message that names seed and difference. */
void served_check(const struct served *v, const struct oracle *o);
/* W6: rows of windows that are final, in canonical order, as text. */
void served_final_text(const struct served *v, struct df_buf *ret);

#endif
