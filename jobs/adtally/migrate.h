/* migrate.h - `adtally migrate`: the file log becomes topics on Kafka, and nothing else changes.
 *
 * Each step may be repeated, so that an interrupted move is simply run again:
 *   lock     DATA, and the writer of each topic: nothing runs
 *   settle   the last checkpoint of each task gets the seals it lacks (K4): nothing new is counted
 *   scan     a digest of each partition of the file log
 *   begin    the topics, `events` first: they are closed to everybody else
 *   copy     each record at its offset, with its time
 *   compare  what the cluster gives back against the digest
 *   seal     the topics' settings are those of every topic again
 *   commit   each task's position and checkpoint, as its own transactions will (K3)
 *   mark     the file log is not written any more
 *   finish   the topics are open; `events` last, without which no job starts
 * At no moment can both logs be written: between mark and finish neither can.
 */
#ifndef AD_MIGRATE_H
#define AD_MIGRATE_H

#include "df/filelog.h"
#include "df/kafka_copy.h"
#include "df/run.h"
#include "df/sha256.h"

struct ad_tasks;

struct ad_move_part {
        uint64_t first, end, records, bytes; /* of values */
        int64_t oldest_ms;
        uint8_t digest[DF_SHA256_SIZE];
};

struct ad_move_topic {
        struct df_topic_info info;
        struct ad_move_part *parts;
        uint64_t ends[DF_PARTITIONS_MAX];
        struct df_log_writer *writer; /* held for its lock */
        bool begun, finished;         /* on the cluster */
};

struct ad_move_position {
        char stream[DF_TOPIC_NAME_MAX + 1];
        uint32_t partition;
        uint64_t offset;
        char metadata[DF_TXN_METADATA_MAX + 1];
};

struct ad_move {
        const struct df_config *config;
        struct df_log *from, *to;
        char target[DF_FILELOG_MOVED_MAX + 1]; /* "--log kafka:... --kafka-prefix ..." */
        struct ad_tasks *tasks;                /* holds the locks of the outputs */
        struct ad_move_topic *topics;          /* `events` last */
        size_t topic_count;
        struct ad_move_position *positions;
        size_t position_count;
        int64_t now_ms;
        bool quiet;
};

/* ---- migrate_copy.c ---- */
/* Digest of [first, end) of each partition of the file log, into parts. */
int ad_move_scan(struct ad_move *m, struct df_error *err);
int ad_move_copy(struct ad_move *m, struct df_error *err);
/* Read everything back. DF_ECORRUPT names topic, partition and offset of the first difference. */
int ad_move_compare(struct ad_move *m, struct df_error *err);
int ad_move_step(const char *name, struct df_error *err); /* fail points, and Ctrl-C */

/* ---- migrate_switch.c ---- */
/* Lists the topics, with their bounds. */
int ad_move_topics(struct ad_move *m, struct df_error *err);
int ad_move_lock(struct ad_move *m, struct df_error *err); /* a writer of each topic */
int ad_move_settle(struct ad_move *m, struct df_error *err);
/* Sets begun and finished. */
int ad_move_look(struct ad_move *m, struct df_error *err);
int ad_move_switch(struct ad_move *m, struct df_error *err); /* seal, commit, mark, finish */

#endif
