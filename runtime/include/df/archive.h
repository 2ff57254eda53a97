/* archive.h - the raw archive of one partition: segments (df/segment.h) in an object store
 * (df/objects.h), and the manifest that chains them (A1, A2).
 *
 *   archive/<topic>.<generation, 16 hex>/<partition, 5 digits>/<first offset, 20 digits>.seg.zst
 *   archive/<topic>.<generation, 16 hex>/<partition, 5 digits>/manifest
 *
 * Writing:  open; then hand it the records from df_archive_position on. Whenever a cut is due the
 *           segment is put where none is; if one is there (another archiver, or this one before a
 *           crash) it is checked and adopted. Then the manifest gets its entry. Nothing is ever
 *           replaced, so any number of archivers may run at once, on any machines: they publish the
 *           same segments and agree by what was there first.
 * Position: after each add, what is wanted next. Usually the offset behind the record; after an
 *           adoption it may be another one, before or behind: whoever reads the log goes there.
 * Threads:  a partition belongs to one thread; the store to all.
 * Memory:   about the segment limit while a segment is built, its size again while it is put.
 * Errors:   DF_ECORRUPT: a segment or manifest that is damaged, or says something else than what is
 *           there; named, never replaced. DF_ESCHEMA: the archive is cut at another limit.
 *           DF_EAGAIN and DF_EDOUBT of the store: close and open again, later. After any error only
 *           close.
 */
#ifndef DF_ARCHIVE_H
#define DF_ARCHIVE_H

#include "df/objects.h"
#include "df/segment.h"

#define DF_ARCHIVE_NAME_MAX 160
#define DF_ARCHIVE_ENTRIES_MAX 1000000u

struct df_archive_entry {
        uint64_t first, end; /* offsets */
        uint64_t records, raw_bytes, bytes;
        int64_t min_append_ms, max_append_ms;
        uint8_t sha256[DF_SEGMENT_SHA256]; /* of the whole segment */
        uint8_t chain[DF_SEGMENT_SHA256];
};

/* ---- the manifest ---- */
struct df_archive_manifest {
        struct df_segment_id id;
        uint64_t limit;
        struct df_archive_entry *entries;
        uint32_t count, cap;
        struct df_object_version version; /* of the object read; empty: there is none yet */
};
/* DF_ENOENT: there is none; ret->id is set all the same. Every entry and the chain are checked. */
int df_archive_manifest_read(struct df_objects *o, const struct df_segment_id *id,
                             struct df_archive_manifest *ret, struct df_error *err);
void df_archive_manifest_release(struct df_archive_manifest *m);
void df_archive_segment_name(const struct df_segment_id *id, uint64_t first,
                             char ret[DF_ARCHIVE_NAME_MAX]);

/* ---- writing ---- */
struct df_archive_part;
struct df_archive_options {
        struct df_objects *objects; /* borrowed until the part is closed */
        uint64_t limit;             /* raw bytes at which segments are cut */
        /* The log's first offset now: where an archive begins that holds nothing of this partition
         * yet. DF_EOFFSET: it lies behind what is archived. */
        uint64_t start;
        /* Whether a segment ends behind this record, whatever its limit and hour: nothing may come
         * for long. Says the same of a record each time. NULL: never. */
        bool (*ends)(const struct df_record *r);
        /* Fail points, called before a step with its name: archive.put (a segment into the store),
         * archive.manifest (its entry), archive.done (both are there). NULL = none. A negative
         * result is returned as if the step had failed. */
        int (*step)(void *arg, const char *name, struct df_error *err);
        void *step_arg;
};
int df_archive_open(const struct df_archive_options *options, const struct df_segment_id *id,
                    struct df_archive_part **ret, struct df_error *err);
uint64_t df_archive_position(const struct df_archive_part *p);
uint64_t df_archive_end(const struct df_archive_part *p); /* archived up to here, by the manifest */
/* Its last entry: NULL while nothing is archived. Valid until the next call on p. */
const struct df_archive_entry *df_archive_last(const struct df_archive_part *p);
int df_archive_add(struct df_archive_part *p, const struct df_record *r, struct df_error *err);
void df_archive_close(struct df_archive_part *p);

/* ---- reading ---- */
/* A partition's archived records in the order of offsets. Each segment is compared with the hash
 * that the manifest holds before its first record is handed out: DF_ECORRUPT names the one that is
 * damaged or missing. Memory: one segment. Thread: a reader belongs to one. */
struct df_archive_reader;
/* From the first record with this offset or a greater one. DF_ENOENT: nothing is archived;
 * DF_EOFFSET: the archive begins later. */
int df_archive_reader_open(struct df_objects *o, const struct df_segment_id *id, uint64_t from,
                           struct df_archive_reader **ret, struct df_error *err);
/* As it was when the reader was opened; valid until it is closed. */
const struct df_archive_manifest *df_archive_reader_manifest(const struct df_archive_reader *r);
/* Up to max records, 0 at the manifest's end; valid until the next call on r. */
int df_archive_reader_next(struct df_archive_reader *r, struct df_record *records, size_t max,
                           size_t *ret_count, struct df_error *err);
uint64_t df_archive_reader_position(const struct df_archive_reader *r);
void df_archive_reader_close(struct df_archive_reader *r);
/* The whole segment of an entry, compared with its hash. */
int df_archive_segment_read(struct df_objects *o, const struct df_segment_id *id,
                            const struct df_archive_entry *e, struct df_buf *ret,
                            struct df_error *err);
/* Each partition that has a manifest, in the order of names. Other than 0 from fn ends it. */
int df_archive_list(struct df_objects *o, int (*fn)(void *arg, const struct df_segment_id *id),
                    void *arg, struct df_error *err);

/* The log (df/log.h) with its whole past: a reader gets what is archived from the archive and the
 * rest from the live log, in one order of offsets; bounds and offset_at see both. Topics that are
 * not archived, and everything that is written, are the live log's. Its readers register no
 * consumer: what leaves the log is archived. live NULL: copies of an archive alone, read only; a
 * topic then has the partitions up to the last one archived. Both are borrowed until it is closed.
 */
int df_archive_log_open(struct df_log *live, struct df_objects *objects, struct df_log **ret,
                        struct df_error *err);
/* Copies of an archive beside a log of one's own: topics that are archived are read from the
 * archive alone, all others, and whatever is written, are `own`'s. Lists have the archived ones
 * first. */
int df_archive_copies_open(struct df_log *own, struct df_objects *objects, struct df_log **ret,
                           struct df_error *err);

#endif
