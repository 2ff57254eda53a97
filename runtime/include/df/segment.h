/* segment.h - segments of the raw archive (A1): the records of a stretch of one partition in one
 * file, which `zstd -dc` and any protobuf reader open.
 *
 * Writing:  create; for each record in the order of offsets: while !df_segment_takes, finish and
 *           begin the next; add; destroy. Cuts depend on the records alone (A1): a segment ends
 *           before the record that would make it longer than its limit, or whose append hour is
 *           greater than any before it. So two archivers cut alike, and what is in the newest hour
 *           stays in the log until a record of the next one comes.
 * Reading:  open, which reads the footer; verify, which reads all; seek and next.
 * Bytes:    a function of identity, limit and records, for one version of zstd.
 * Threads:  a writer or reader belongs to one thread.
 * Memory:   a writer holds its compressed segment, at most about the limit; a reader one frame.
 * Errors:   DF_ECORRUPT names the file, what is wrong and where; DF_EINVAL a record out of order;
 *           DF_ELIMIT a value beyond DF_LOG_RECORD_MAX; what the source's read returns.
 * Limits:   DF_SEGMENT_LIMIT_MIN to DF_SEGMENT_LIMIT_MAX raw bytes.
 */
#ifndef DF_SEGMENT_H
#define DF_SEGMENT_H

#include "df/log.h"

#define DF_SEGMENT_LIMIT_MIN (2u << 20)
#define DF_SEGMENT_LIMIT_MAX (512u << 20)
#define DF_SEGMENT_SHA256 32

struct df_segment_id {
        char topic[DF_TOPIC_NAME_MAX + 1];
        uint64_t generation;
        uint32_t partition;
};

struct df_segment_info {
        struct df_segment_id id;
        uint64_t first, end; /* offsets [first, end) */
        uint64_t records, raw_bytes, limit;
        int64_t min_append_ms, max_append_ms; /* 0 without records */
        uint32_t frames;
        uint64_t bytes;                    /* of the file */
        uint8_t sha256[DF_SEGMENT_SHA256]; /* of all bytes before it */
};

/* ---- writing ---- */
struct df_segment_writer;
int df_segment_writer_create(const struct df_segment_id *id, uint64_t limit,
                             struct df_segment_writer **ret, struct df_error *err);
/* Begin a segment at offset `first`; what was before is forgotten. */
void df_segment_begin(struct df_segment_writer *w, uint64_t first);
/* Does the record belong to this segment? Always, when it is the first. */
bool df_segment_takes(const struct df_segment_writer *w, const struct df_record *r);
int df_segment_add(struct df_segment_writer *w, const struct df_record *r, struct df_error *err);
/* end: the offset of the record that did not fit. *ret_bytes is the file, valid until the next call
 * on w. info may be NULL. */
int df_segment_finish(struct df_segment_writer *w, uint64_t end, struct df_bytes *ret_bytes,
                      struct df_segment_info *info, struct df_error *err);
uint64_t df_segment_records(const struct df_segment_writer *w); /* added since begin */
void df_segment_writer_destroy(struct df_segment_writer *w);

/* ---- reading ---- */
/* Where the bytes are: a file, an object. name is for error texts; read appends exactly len bytes
 * from `from` on to *ret, or fails. Borrowed until the reader is closed. */
struct df_segment_source {
        const char *name;
        uint64_t size;
        int (*read)(void *arg, uint64_t from, size_t len, struct df_buf *ret, struct df_error *err);
        void *arg;
};
struct df_segment_reader;
int df_segment_open(const struct df_segment_source *source, struct df_segment_reader **ret,
                    struct df_error *err);
const struct df_segment_info *df_segment_info(const struct df_segment_reader *r);
/* All that the footer says, against the bytes; the reader then stands at the first record. */
int df_segment_verify(struct df_segment_reader *r, struct df_error *err);
/* Stand before the first record with this offset or a greater one. */
void df_segment_seek(struct df_segment_reader *r, uint64_t offset);
/* Up to max records, 0 at the end; valid until the next call on r. */
int df_segment_next(struct df_segment_reader *r, struct df_record *records, size_t max,
                    size_t *ret_count, struct df_error *err);
void df_segment_close(struct df_segment_reader *r);

/* A source over bytes in memory: *bytes and name are borrowed until the reader is closed. */
struct df_segment_source df_segment_memory(const char *name, const struct df_bytes *bytes);

/* A source over a file of this machine. */
struct df_segment_file;
int df_segment_file_open(const char *path, struct df_segment_file **ret,
                         struct df_segment_source *ret_source, struct df_error *err);
void df_segment_file_close(struct df_segment_file *f);

#endif
