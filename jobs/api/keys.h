/* keys.h - what the serving view stores: keys, cells and their bytes. Pure.
 *
 *   'c' level, tenant, grouping, bucket, lead, window, other dimensions, currency -> cell
 *   'c' the same for minutes, group of sources                        -> parts (W3)
 *   'b' level, tenant, grouping, bucket  -> last write, expired? (retention, W1), windows in use
 *   'o' level, tenant, grouping, bucket, window -> ""                  (__other__ is there, W7)
 *   's' source                           -> struct ad_source
 *   't' source, tenant                   -> first and last minute with rows
 *   'e' start, source                    -> struct ad_edge (newest heartbeat of an ingest start)
 *   'f' partition of `rollups`           -> offset to read on from
 *   'm'                                  -> what the view was built for
 *
 * Strings are length-prefixed, numbers big endian. A question asks for a range of time, and mostly
 * for few campaigns or for all: so time comes first, but coarsely (a bucket of 32 windows), then
 * the lead dimension (the campaign), then the window. One campaign's hour is two or three short
 * contiguous ranges; everybody's hour is a contiguous range with at most 31 windows read in vain
 * at either end. Each cell is written once a level, and there is no second index to keep.
 *
 * A minute cell keeps what each source said last, its part, so that a row that comes again can
 * replace it (W3); the cell is the sum. AD_PARTS sources share a key: with one key for all, each
 * of P sources would write the parts of P again; with a key for each, most would be written twice
 * (the part, and the sum).
 */
#ifndef AD_KEYS_H
#define AD_KEYS_H

#include "proto/wire.h"

enum ad_level {
        AD_LEVEL_MINUTE,
        AD_LEVEL_QUARTER,     /* 15 minutes, UTC */
        AD_LEVEL_DAY,         /* UTC */
        AD_LEVEL_ACCOUNT_DAY, /* of the account's zone; only when that is not UTC */
        AD_LEVEL_COUNT,
};

#define AD_BUCKET_BITS 5 /* windows of a bucket: 32 */
static inline uint32_t ad_bucket(uint32_t window)
{
        return window >> AD_BUCKET_BITS;
}

/* Windows are numbers of minutes, quarters or days since the epoch. A local day may begin before
 * it: account days are stored with 1 added. */
#define AD_ACCOUNT_DAY_BIAS 1

#define AD_PARTS 8 /* sources that share the key of a minute cell */

/* A row's dimensions: index into row order of the dimension that leads the key. */
uint32_t ad_lead_index(const struct ad_grouping *g);

struct ad_cell_key { /* borrowed */
        uint32_t level, grouping, window;
        struct df_bytes tenant_id;
        struct df_bytes dims[AD_DIM_COUNT]; /* in the grouping's order */
        struct df_bytes currency;
        uint32_t group; /* of sources: source / AD_PARTS; 0 above the minute */
};

void ad_key_bucket(struct df_buf *b, uint8_t kind, uint32_t level, struct df_bytes tenant,
                   uint32_t grouping, uint32_t bucket);
void ad_key_cell(struct df_buf *b, const struct ad_grouping *g, const struct ad_cell_key *k);
/* All cells of a lead value: of windows from `window` on in its bucket. */
void ad_key_lead(struct df_buf *b, uint32_t level, struct df_bytes tenant, uint32_t grouping,
                 uint32_t window, struct df_bytes lead);
/* Decodes what follows tenant and grouping; skip = bytes before the bucket. A minute cell may have
 * several keys, one behind the other. False: damaged. */
bool ad_key_cell_decode(struct df_bytes key, size_t skip, const struct ad_grouping *g,
                        struct ad_cell_key *ret);
void ad_key_other(struct df_buf *b, uint32_t level, struct df_bytes tenant, uint32_t grouping,
                  uint32_t window);

void ad_cell_encode(struct df_buf *b, const struct ad_cell *c);
bool ad_cell_decode(struct df_bytes bytes, struct ad_cell *ret); /* of parts: their sum */
/* Parts that are zero are left out; appends nothing when all are. */
void ad_parts_encode(struct df_buf *b, const struct ad_cell parts[AD_PARTS]);
bool ad_parts_decode(struct df_bytes bytes, struct ad_cell ret[AD_PARTS]);
/* ret = a - b; counts wrap, so that adding the difference later gives the right count. False when
 * money overflows. */
bool ad_cell_diff(struct ad_cell *ret, const struct ad_cell *a, const struct ad_cell *b);
/* sum += d, where d may hold wrapped counts. */
bool ad_cell_shift(struct ad_cell *sum, const struct ad_cell *d);

#endif
