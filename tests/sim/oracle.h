/* oracle.h - a naive recount of the log, written from PROTOCOL.md alone: plain arrays, every
 * question answered by looking at everything before. Slow and obvious.
 *
 * It decodes records with proto/wire.h (which has an oracle of its own) and shares no other code
 * with the operators.
 */
#ifndef SIM_ORACLE_H
#define SIM_ORACLE_H

#include "tests/sim/world.h"

struct oracle_event {
        uint32_t partition;
        uint64_t offset;
        uint32_t index;
        bool whole_record; /* E2: no event at all; outcome is AD_POISON */
        bool ahead;        /* of the producer whose clock is a day ahead */
        uint32_t outcome;  /* enum ad_reason */
        int64_t append_ms;
        int64_t watermark_ms; /* just before it */
        struct df_bytes raw;  /* borrowed from the world */
        char tenant[AD_ID_MAX + 1];
        char id[AD_EVENT_ID_MAX + 1];
        /* what later events are judged by */
        bool recorded; /* D1: passed E3, T2 and T3 */
        int64_t receive_hour;
        uint64_t fingerprint;
};

struct oracle_record { /* what the partition looks like after it */
        uint32_t partition;
        bool poison, heartbeat;
        uint64_t events;
        int64_t watermark_ms, max_append_ms, max_receive_ms;
};

/* "partition|grouping|minute|tenant|dim|...|currency", in fixed widths where numbers sort. */
#define ORACLE_KEY_MAX 320
struct oracle_cell {
        uint32_t partition, grouping;
        uint64_t minute;
        bool is_other;
        char group[ORACLE_KEY_MAX]; /* the part that the cap counts in: up to the tenant */
        char key[ORACLE_KEY_MAX];
        struct ad_cell cell;
};

struct oracle {
        const struct world *world;
        struct oracle_event *events;
        size_t event_count, event_cap;
        struct oracle_record *records; /* of each partition, in the world's order */
        size_t record_count;
        struct oracle_cell *cells; /* sorted by key at the end */
        size_t cell_count, cell_cap;
        struct df_arena arena; /* decoded events */
};

void oracle_recount(struct oracle *o, const struct world *w);
void oracle_release(struct oracle *o);
/* The clock of a partition after its first `offsets` records. */
void oracle_clock(const struct oracle *o, uint32_t partition, uint64_t offsets,
                  struct oracle_record *ret);
/* Key of a cell; also used for served rows, so that both are compared as text. */
void oracle_key(char *ret, uint32_t partition, uint32_t grouping, uint64_t minute,
                struct df_bytes tenant, const struct df_bytes *dims, uint32_t dim_count,
                struct df_bytes currency);

#endif
