/* parts.h - the partitions that this process archives (A1 to A3).
 *
 * Every partition of `events` and of every import is read from where its archive ends and handed to
 * df/archive.h, which cuts, publishes and adopts. Any number of processes may do it at once. What
 * the archive holds is released to the log's retention, nothing else is: on the file log a record
 * is never deleted unarchived. On Kafka nobody can hold it back, so the age of the oldest record
 * that is not archived is shown and, against --keep-log, becomes a problem (A3).
 *
 * Order of calls: create, discover and step from one thread in turn, destroy. Thread of render:
 *                 any.
 * Errors:         a partition whose archive fails is opened again after a wait that doubles to
 *                 RETRY_MAX_MS (parts.c); the others go on. Its text is a log line, its code a
 *                 metric.
 */
#ifndef AD_ARCHIVE_PARTS_H
#define AD_ARCHIVE_PARTS_H

#include "df/config.h"
#include "df/log.h"
#include "df/objects.h"

struct ad_archive_parts;

/* log and objects are borrowed. */
int ad_archive_parts_create(const struct df_config *c, struct df_log *log,
                            struct df_objects *objects, struct ad_archive_parts **ret,
                            struct df_error *err);
/* Topics that are new get their parts. */
int ad_archive_parts_discover(struct ad_archive_parts *p, struct df_error *err);
/* Some records of each partition. The number handled: 0 = all stand at the log's end or wait. */
size_t ad_archive_parts_step(struct ad_archive_parts *p);
void ad_archive_parts_render(struct ad_archive_parts *p, struct df_buf *b); /* Prometheus lines */
void ad_archive_parts_destroy(struct ad_archive_parts *p);

#endif
