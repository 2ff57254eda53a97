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
/* start: the log's first offset now: where an archive begins that holds nothing of this partition
 * yet. DF_EOFFSET: it lies behind what is archived. */
int df_archive_open(struct df_objects *o, const struct df_segment_id *id, uint64_t limit,
                    uint64_t start, struct df_archive_part **ret, struct df_error *err);
uint64_t df_archive_position(const struct df_archive_part *p);
uint64_t df_archive_end(const struct df_archive_part *p); /* archived up to here, by the manifest */
int df_archive_add(struct df_archive_part *p, const struct df_record *r, struct df_error *err);
void df_archive_close(struct df_archive_part *p);

#endif
