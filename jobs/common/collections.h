/* collections.h - what the tasks of a source wrote to an output topic (K5), from an offset on: for
 * whoever looks at a part of `late` or `quarantine` without following it.
 *
 * Beginning in the middle of a topic may be in the middle of a collection: that one, and what is
 * damaged, is not handed out, and shows as a hole between the ranges of the seals. Collections of
 * other sources (imports, older generations) are handed out too, each k once.
 * Thread: one. Memory: one collection.
 */
#ifndef AD_COLLECTIONS_H
#define AD_COLLECTIONS_H

#include "df/seal.h"

#define AD_COLLECT_BYTES_MAX (256u << 20) /* unsealed payload; K6 bounds a source's to 64 MiB */

struct ad_collections;
/* From the first record at this offset or, when that was deleted, from the first there is. */
int ad_collections_open(struct df_log *log, const char *topic, uint32_t partition, uint64_t from,
                        struct ad_collections **ret, struct df_error *err);
/* The next one, valid until the next call; *ret NULL: the topic's end of when it was opened. stop
 * may be NULL; DF_EAGAIN as of ad_raw_scan. */
int ad_collections_next(struct ad_collections *c, bool (*stop)(void *arg), void *arg,
                        const struct df_collection **ret, struct df_error *err);
/* Collections that did not match their seal, but for one that may have begun before `from`. */
uint64_t ad_collections_damaged(const struct ad_collections *c);
void ad_collections_close(struct ad_collections *c); /* NULL-safe */

#endif
