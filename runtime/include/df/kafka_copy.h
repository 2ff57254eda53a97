/* kafka_copy.h - topics on Kafka that take the place of a file log's (`adtally migrate`).
 *
 * A copy has the generation, partition count, offsets, append times and bytes of the original, so
 * that states, views and committed positions go on as if nothing had happened. Its records carry
 * the times that the file log stamped; <prefix>topics says up to which offset, and a reader takes
 * such a record below it alone (T2).
 *
 * Order of calls, for each topic: begin; writer, append and trim until every partition holds
 *                 [first, end) of the original (df_log_bounds); seal; finish. Each may be called
 *                 again after an interruption, and begin again after the original grew.
 *                 Between begin and finish nobody else can use the topic: DF_ESCHEMA.
 * Threads:        one.
 * Errors:         DF_EEXIST a topic of this name is there and is no copy of this original;
 *                 DF_ESCHEMA it is not as the copy left it; the rest as in df/log.h.
 * Needs:          Kafka 3.6 (message.timestamp.after.max.ms); rights to create and alter topics,
 *                 and to delete records when the original does not begin at offset 0.
 */
#ifndef DF_KAFKA_COPY_H
#define DF_KAFKA_COPY_H

#include "df/log.h"
#include "df/txn.h"

/* ends: offsets where the original's partitions end. *ret_finished: a copy up to these was finished
 * before, nothing is left to do. */
int df_kafka_copy_begin(struct df_log *log, const struct df_topic_info *original,
                        const uint64_t *ends, bool *ret_finished, struct df_error *err);
/* The same question without a change. *ret_begun: there is a copy, finished or not. */
int df_kafka_copy_look(struct df_log *log, const struct df_topic_info *original,
                       const uint64_t *ends, bool *ret_begun, bool *ret_finished,
                       struct df_error *err);
/* Writes to one partition at a time; df_log_append must get each record's time in ret_append_ms.
 * The caller compares ret_offset: other than expected, somebody else writes. */
int df_kafka_copy_writer(struct df_log *log, const char *topic, struct df_log_writer **ret,
                         struct df_error *err);
/* Delete what lies before `first`: what filled the offsets that the original had deleted. */
int df_kafka_copy_trim(struct df_log *log, const char *topic, uint32_t partition, uint64_t first,
                       struct df_error *err);
/* From now on the log stamps what is written, and deletes by retention. */
int df_kafka_copy_seal(struct df_log *log, const char *topic, struct df_error *err);
/* The topic is in use. */
int df_kafka_copy_finish(struct df_log *log, const struct df_topic_info *original,
                         struct df_error *err);

/* Commit a position of group <prefix><group>, which has no members, and read it back. DF_EEXIST:
 * one that is not Adtally's is committed there. Between begin and finish alone. */
int df_kafka_copy_commit(struct df_log *log, const char *group, const char *topic,
                         uint32_t partition, uint64_t offset, const char *metadata,
                         struct df_error *err);

#endif
