/* corrections.h - the corrections that a run bills with, from the topic `commands` (R5).
 *
 * Commands count in log order. Of two with the same id (of a tenant) the first one counts, as it
 * does for the api. A cancel takes back the correction of this id that stands before it; one of
 * anything else changes nothing here. What is left is a set (operators/correct.h) in log order.
 *
 * The digest and `to` say which corrections a run knows, and are part of its identity: they move
 * with each correction and each cancel of one, so a correction that is taken back does not give the
 * digest of before (the books know a run by how far it has read). Other commands move neither.
 *
 * Order of calls: ad_correction_log_read | ad_correction_log_create, add..., finish; then the rest.
 * Ownership:      owns everything; what is handed out lives as long as the log of corrections.
 * Thread:         one until it is finished, then any.
 * Memory:         the bytes of each correction that was not taken back, 24 for each command's id,
 *                 and the set's.
 * Errors:         DF_ESCHEMA a command of a later version; DF_EPARSE, DF_EINVAL a damaged one: its
 *                 offset is named; DF_ELIMIT more than a set can hold; DF_EOFFSET the topic's
 *                 beginning is gone, or its end is before the wanted one; DF_EAGAIN asked to stop.
 */
#ifndef AD_CORRECTIONS_H
#define AD_CORRECTIONS_H

#include "df/log.h"
#include "operators/correct.h"

struct ad_correction_log;

#define AD_CORRECTIONS_ALL UINT64_MAX /* up to the end of now */

/* The commands before the offset `to`. No topic is no correction. */
int ad_correction_log_read(struct df_log *log, uint64_t to, struct ad_correction_log **ret,
                           struct df_error *err);

int ad_correction_log_create(struct ad_correction_log **ret, struct df_error *err);
/* The next command, a record's value. */
int ad_correction_log_add(struct ad_correction_log *l, uint64_t offset, struct df_bytes command,
                          struct df_error *err);
int ad_correction_log_finish(struct ad_correction_log *l, struct df_error *err);
void ad_correction_log_destroy(struct ad_correction_log *l);

const struct ad_corrections *ad_correction_log_set(const struct ad_correction_log *l);
uint64_t ad_correction_log_digest(const struct ad_correction_log *l); /* 0: there was none */
/* Behind the last correction or cancel of one; 0: there was none. */
uint64_t ad_correction_log_to(const struct ad_correction_log *l);
/* Those that apply, in order, with the bytes of the command: adding the bytes to another one gives
 * an equal set. */
int ad_correction_log_each(const struct ad_correction_log *l,
                           int (*fn)(void *arg, uint64_t offset, struct df_bytes command,
                                     struct df_error *err),
                           void *arg, struct df_error *err);

#endif
