/* filelog.h - open the embedded log (rules L1, L2): one data directory, one machine.
 *
 *   DIR/topics/<topic>/TOPIC                    partitions, generation; written once
 *   DIR/topics/<topic>/LOCK                     flock of the one writer
 *   DIR/topics/<topic>/<partition>/<offset>.seg segments, 20 digits, base offset first
 *   DIR/topics/<topic>/<partition>/END          durable end, shared memory between processes
 *   DIR/topics/<topic>/consumers/<name>/<partition>  position and lease of a registered reader
 *   DIR/MOVED                                   the log goes on elsewhere: nothing is written here
 *   DIR/RESERVE                                 a reserve file, freed when the disk is full
 *
 * A segment is a run of frames; a frame is one group commit of one partition: header {magic,
 * CRC-32C, base offset, append time, record count, sizes, codec} and zstd-compressed records.
 * A reader in any process follows END, never the file size: what it sees is durable.
 */
#ifndef DF_FILELOG_H
#define DF_FILELOG_H

#include "df/log.h"

struct df_filelog_options {
        uint64_t segment_bytes;  /* roll after this many; 0 = 64 MiB */
        uint64_t reserve_bytes;  /* size of RESERVE; 0 = 64 MiB; writers create it */
        uint64_t min_free_bytes; /* append answers DF_ENOSPC below this free space; 0 = 128 MiB */
        int zstd_level;          /* 0 = 1 */
        int64_t lease_ms;        /* a consumer not renewed for so long lapses; 0 = 7 days */
        int64_t (*clock_ms)(void *); /* append time; NULL = the wall clock. For tests. */
        void *clock_arg;
};

/* Thread: any, afterwards as log.h says. options may be NULL; it is copied. */
int df_filelog_open(const char *dir, const struct df_filelog_options *options, struct df_log **ret,
                    struct df_error *err);

/* What the start of a writer found: a tail that no append had acknowledged is cut. */
struct df_filelog_recovery {
        uint32_t cut_partitions;
        uint64_t cut_bytes;
};
void df_filelog_recovery(struct df_log_writer *w, struct df_filelog_recovery *ret);

/* Append time (T2). The log never lets it go back within a partition: a clock that is behind is
 * overruled by the last append time, which ingest compares with the clock. last_ms: the largest
 * of all partitions, 0 when the topic is empty. clock_restart (`adtally recover --clock`): the
 * next append takes the clock as it is, for all partitions; append to each of them, or the next
 * start finds the old time again. Thread: any. */
int64_t df_filelog_last_append_ms(struct df_log_writer *w);
void df_filelog_clock_restart(struct df_log_writer *w);

/* The reserve file. free removes it, so that checkpoints and deletion work on a full disk; restore
 * makes it again, DF_ENOSPC while that would go below min_free_bytes. writer_open restores it when
 * there is room, silently not otherwise. */
int df_filelog_reserve_free(struct df_log *log, uint64_t *ret_freed_bytes, struct df_error *err);
int df_filelog_reserve_restore(struct df_log *log, struct df_error *err);

/* A log that was moved (`adtally migrate`) is read, and never written again: writer_open and the
 * creation of a topic answer DF_ESCHEMA with `to`, the options that name where it goes on; one line
 * of at most DF_FILELOG_MOVED_MAX bytes. Durable when it returns. df_filelog_moved: "" = it was
 * not. df_filelog_finish_move: writers of this handle may open all the same, to finish an
 * interrupted move (they bring the durable end up to date; the caller appends nothing). */
#define DF_FILELOG_MOVED_MAX 1000
int df_filelog_mark_moved(struct df_log *log, const char *to, struct df_error *err);
int df_filelog_moved(struct df_log *log, char ret_to[DF_FILELOG_MOVED_MAX + 1],
                     struct df_error *err);
void df_filelog_finish_move(struct df_log *log);

/* Registrations (log.h: reader_open with a consumer, release). Opening again keeps the position on
 * disk unless the reader starts before it. reader_open and release renew the lease, so a consumer
 * calls release now and then even when its position stands still; release never moves back. */

/* Delete whole segments of (topic, every partition) that end before keep_from_ms (append time) and
 * before the position of every registered consumer whose lease lives. Never the newest segment. */
int df_filelog_retain(struct df_log *log, const char *topic, int64_t keep_from_ms,
                      uint64_t *ret_deleted_bytes, struct df_error *err);

/* Bytes held: one call of fn for each (topic, holder), where holder is "data" or "consumer:<name>"
 * with the bytes that only this consumer keeps. For `adtally status`. */
int df_filelog_usage(struct df_log *log,
                     int (*fn)(void *arg, const char *topic, const char *holder, uint64_t bytes),
                     void *arg, struct df_error *err);
int df_filelog_consumer_drop(struct df_log *log, const char *topic, const char *name,
                             struct df_error *err);

/* Check every frame of a partition from its first to its durable end. DF_ECORRUPT names segment,
 * byte position and offset. progress may be NULL. */
int df_filelog_verify(struct df_log *log, const char *topic, uint32_t partition,
                      void (*progress)(void *arg, uint64_t done_bytes, uint64_t all_bytes),
                      void *arg, uint64_t *ret_records, struct df_error *err);

#endif
