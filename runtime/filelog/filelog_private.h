/* filelog_private.h - shared by the files of this folder and by its own tests (hooks).
 *
 * How a partition is laid out. A commit (one group of merged appends) is one or more frames, all
 * in one segment; a segment is closed, and durable, before its successor is created. So only the
 * last commit of the last segment can ever be torn. Each frame says where its commit began
 * (commit_delta), which tells a torn commit (cut) from damage before a later commit (refused).
 * Frames carry the topic's random generation: bytes inside a record cannot pose as a frame.
 *
 * END is the truth of the readers, and only a hint of the writer: it is shared memory, written
 * after the fdatasync and never synced itself. After a power loss it is behind or gone; the writer
 * then scans the last segment, syncs what is whole, and publishes a new END.
 */
#ifndef DFI_FILELOG_PRIVATE_H
#define DFI_FILELOG_PRIVATE_H

#include <dirent.h>
#include <pthread.h>
#include <sys/types.h>
#include <zstd.h>

#include "df/filelog.h"

#define DFI_PATH_MAX 1024
#define DFI_DIR_MAX 600                 /* bytes of the data directory's path */
#define DFI_FRAME_HEADER 56             /* bytes */
#define DFI_FRAME_RAW_MAX (4u << 20)    /* bytes of one frame before compression */
#define DFI_GROUP_BYTES_MAX (16u << 20) /* merged appends of one commit, unless one is larger */
#define DFI_EXIT_SYNC_FAILED 74         /* EX_IOERR */

/* What the operating system does for us; tests replace single functions to inject faults. */
struct dfi_hooks {
        ssize_t (*write_at)(int fd, const void *data, size_t len, off_t pos);
        int (*sync_data)(int fd);
        int (*free_bytes)(const char *dir, uint64_t *ret); /* 0, or -1 and errno */
        void (*die)(const char *line);                     /* prints the line, ends the process */
};

struct dfi_log {
        struct df_log base;
        struct df_filelog_options opt; /* no zero left */
        struct dfi_hooks hooks;
        char dir[DFI_DIR_MAX + 1];
        bool finish_move;
};

struct dfi_topic {
        struct df_topic_info info;
        char dir[DFI_PATH_MAX];
};

/* One partition, for paths and for error texts. Borrowed from its owner. */
struct dfi_part {
        const struct dfi_topic *topic;
        uint32_t index;
};

/* files.c */
struct dfi_log *dfi_log_of(struct df_log *log);
void dfi_path(char out[DFI_PATH_MAX], const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void dfi_part_dir(const struct dfi_part *part, char out[DFI_PATH_MAX]);
int dfi_mkdir(const char *path, struct df_error *err); /* an existing directory is fine */
int dfi_sync_dir(const char *path, struct df_error *err);
/* Whole small file; DF_ENOENT when missing, DF_ELIMIT when larger than cap - 1. Adds a NUL. */
int dfi_file_read(const char *path, char *out, size_t cap, size_t *ret_len, struct df_error *err);
/* tmp is written, fsynced and renamed to path; then the directory is fsynced. */
int dfi_file_replace(const char *dir, const char *tmp, const char *name, const void *data,
                     size_t len, struct df_error *err);
/* An open failure: EMFILE and ENFILE are DF_EAGAIN, ENOENT is DF_ENOENT, the rest DF_EIO. */
int dfi_fail_open(struct df_error *err, const char *path);
int dfi_close(int fd); /* accepts -1; returns -1 */
uint64_t dfi_boot_id(void);
int dfi_lock(const char *path, bool wait, int *ret_fd, struct df_error *err); /* else DF_EFENCED */
/* The end of the process after a failed sync (L1). Returns only from a test's hook. */
int dfi_sync_failed(const struct dfi_log *log, const char *what, struct df_error *err);
ssize_t dfi_pread_all(int fd, void *out, size_t len, uint64_t pos); /* short only at the end */

/* moved.c */
int dfi_check_not_moved(const struct dfi_log *log, struct df_error *err);

/* frame.c */
enum dfi_codec { DFI_CODEC_NONE = 0, DFI_CODEC_ZSTD = 1 };
struct dfi_frame {
        uint64_t base; /* offset of the first record */
        uint64_t generation;
        int64_t append_ms;
        uint32_t count;        /* records */
        uint32_t commit_delta; /* base minus the first offset of its commit */
        uint32_t raw_len;
        uint32_t stored_len;
        uint32_t payload_crc; /* CRC-32C of the stored payload */
        uint32_t codec;
};
void dfi_frame_put(uint8_t out[DFI_FRAME_HEADER], const struct dfi_frame *f);
/* False unless magic, header CRC, generation and limits hold. */
bool dfi_frame_get(const uint8_t in[DFI_FRAME_HEADER], uint64_t generation, struct dfi_frame *ret);
/* Decompress (or copy) into raw_len bytes. False when the payload does not give exactly those. */
bool dfi_frame_inflate(ZSTD_DCtx *dctx, const struct dfi_frame *f, const uint8_t *payload,
                       uint8_t *out);
/* Next record of a frame's raw bytes; false when they are malformed. */
static inline bool dfi_record_next(const uint8_t **p, const uint8_t *end, struct df_bytes *ret)
{
        size_t len = 0;

        for (unsigned shift = 0; *p < end && shift <= 28; shift += 7) {
                uint8_t c = *(*p)++;

                len |= (size_t)(c & 0x7f) << shift;
                if (!(c & 0x80)) {
                        if (len > (size_t)(end - *p))
                                return false;
                        *ret = df_bytes(*p, len);
                        *p += len;
                        return true;
                }
        }
        return false;
}

/* segment.c: reading frames of one file through a window of memory. */
struct dfi_seg {
        int fd;        /* -1: closed */
        uint64_t base; /* offset in its name */
        uint8_t *win;
        size_t win_cap;
        size_t win_len;
        uint64_t win_pos;
        size_t chunk; /* bytes to read ahead; small for walks over headers */
};
struct dfi_seg_entry {
        uint64_t base;
        uint64_t bytes;
};
struct dfi_seg_list {
        struct dfi_seg_entry *items; /* ascending */
        size_t count;
};
void dfi_seg_path(const struct dfi_part *part, uint64_t base, char out[DFI_PATH_MAX]);
int dfi_seg_list(const struct dfi_part *part, struct dfi_seg_list *ret, struct df_error *err);
void dfi_seg_list_release(struct dfi_seg_list *list);
int dfi_seg_open(struct dfi_seg *s, const struct dfi_part *part, uint64_t base,
                 struct df_error *err); /* DF_ENOENT when missing */
void dfi_seg_close(struct dfi_seg *s);  /* keeps the window's memory */
void dfi_seg_release(struct dfi_seg *s);
int dfi_seg_size(const struct dfi_seg *s, uint64_t *ret, struct df_error *err);
struct dfi_seg_at {
        uint64_t pos;    /* byte position of the frame */
        uint64_t limit;  /* bytes of the segment that may be read */
        uint64_t offset; /* the base offset the frame must have */
        bool header_only;
};
/* *ret_why: NULL, or why there is no good frame here (a short text). Only I/O is an error. The
 * payload is valid until the next call. */
int dfi_seg_frame(struct dfi_seg *s, const struct dfi_part *part, const struct dfi_seg_at *at,
                  struct dfi_frame *ret, const uint8_t **ret_payload, const char **ret_why,
                  struct df_error *err);
/* First whole header at or after pos whose base is at least offset. */
int dfi_seg_resync(struct dfi_seg *s, const struct dfi_part *part, uint64_t pos, uint64_t offset,
                   struct dfi_frame *ret, bool *ret_found, struct df_error *err);
/* DF_ECORRUPT: topic, partition, segment, byte, first lost offset, next good one, way out. */
int dfi_corrupt(const struct dfi_part *part, struct dfi_seg *s, const struct dfi_seg_at *at,
                const char *why, struct df_error *err);
int dfi_corrupt_missing(const struct dfi_part *part, uint64_t base, struct df_error *err);

/* end.c */
struct dfi_end {
        uint64_t offset;   /* of the next record */
        uint64_t seg_base; /* segment that holds the durable end */
        uint64_t pos;      /* byte position in it */
        int64_t append_ms; /* of the last record; 0 when none */
};
struct dfi_end_file;
struct dfi_end_map {
        struct dfi_end_file *file; /* shared mapping; NULL when closed */
        uint64_t inode;
};
int dfi_end_create(const char *part_dir, uint64_t generation, struct df_error *err);
/* Readers: DF_EAGAIN while the file is missing or not whole: only a writer's start rebuilds it. */
int dfi_end_open(const struct dfi_part *part, struct dfi_end_map *ret, struct df_error *err);
/* Writer: makes it anew where needed; *ret_known says whether *ret_end is to be believed. */
int dfi_end_open_writer(const struct dfi_part *part, struct dfi_end_map *ret,
                        struct dfi_end *ret_end, bool *ret_known, struct df_error *err);
void dfi_end_close(struct dfi_end_map *map);
bool dfi_end_read(const struct dfi_end_map *map, struct dfi_end *ret); /* false: not whole */
void dfi_end_write(struct dfi_end_map *map, const struct dfi_end *end);
void dfi_end_mark_exact(struct dfi_end_map *map);
bool dfi_end_exact(const struct dfi_end_map *map); /* a writer started since this boot */
bool dfi_end_replaced(const struct dfi_part *part, const struct dfi_end_map *map);

/* topic.c */
bool dfi_name_ok(const char *name);
int dfi_topic_create(struct df_log *log, const char *topic, uint32_t partitions,
                     struct df_error *err);
int dfi_topic_list(struct df_log *log, const char *prefix,
                   int (*fn)(void *arg, const struct df_topic_info *info), void *arg,
                   struct df_error *err);
int dfi_topic_delete(struct df_log *log, const char *topic, struct df_error *err);
int dfi_topic_load(const struct dfi_log *log, const char *topic, struct dfi_topic *ret,
                   struct df_error *err);
int dfi_topic_part(const struct dfi_topic *topic, uint32_t partition, struct dfi_part *ret,
                   struct df_error *err);

/* writer.c, commit.c, recover.c */
struct dfi_request {
        struct df_append *items;
        size_t count;
        size_t bytes;
        struct dfi_request *next;
        bool done;
        int code;
        char text[DF_ERROR_TEXT_MAX];
};
struct dfi_wpart {
        struct dfi_part part;
        struct dfi_end_map map;
        struct dfi_end end; /* as published */
        int fd;             /* of the segment end.seg_base or new_base; -1: open on demand */
        bool have_seg;      /* the current segment exists as a file */
        bool dir_dirty;     /* a segment was created; the directory is not synced yet */
        uint64_t seg_base;  /* current segment; differs from end.seg_base after a roll */
        uint64_t start_pos; /* where the next frame goes */
        uint64_t reserved;  /* bytes allocated to the file (fallocate), 0 = none */
        /* during one commit */
        struct df_append **items;
        size_t count;
        uint64_t pos;
        int64_t append_ms;
};
struct dfi_writer {
        struct df_log_writer base;
        struct dfi_log *log;
        struct dfi_topic topic;
        int lock_fd;
        struct df_filelog_recovery recovery;

        pthread_mutex_t mutex; /* guards the queue, busy, restart_clock and last_ms */
        pthread_cond_t cond;
        struct dfi_request *head;
        struct dfi_request **tail;
        bool busy;
        bool restart_clock;
        int64_t last_ms;

        /* The rest belongs to the leader (busy), or to open and close. */
        bool broken; /* a write failed for another reason than space: refuse everything */
        struct dfi_wpart *parts;
        struct df_append **order;
        size_t order_cap;
        uint32_t dirty[DF_PARTITIONS_MAX];
        uint32_t dirty_count;
        uint8_t *raw;
        uint8_t *stored;
        ZSTD_CCtx *cctx;
        uint32_t skip_zstd; /* frames to store plain before compression is tried again */
        uint32_t skip_next;
        uint64_t free_bytes;
        int64_t free_checked_ms;
};
int dfi_writer_open(struct df_log *log, const char *topic, struct df_log_writer **ret,
                    struct df_error *err);
int dfi_append(struct df_log_writer *w, struct df_append *items, size_t count,
               struct df_error *err);
void dfi_writer_close(struct df_log_writer *w);
int dfi_commit(struct dfi_writer *w, struct dfi_request *batch, size_t count, bool restart_clock,
               struct df_error *err);
int dfi_recover(struct dfi_writer *w, struct dfi_wpart *p, struct df_error *err);

/* space.c */
int dfi_space_check(struct dfi_writer *w, uint64_t bytes, struct df_error *err);
void dfi_reserve_ensure(struct dfi_log *log); /* best effort: a full disk must not stop a start */

/* reader.c, seek.c */
struct dfi_reader {
        struct df_log_reader base;
        struct dfi_log *log;
        struct dfi_topic topic;
        struct dfi_part part;
        char consumer[DF_TOPIC_NAME_MAX + 1]; /* "" = not registered */
        uint64_t registered;                  /* position on disk */
        int64_t lease_until_ms;

        struct dfi_end_map map;
        struct dfi_end end;
        struct dfi_seg seg;
        uint64_t seg_base; /* the segment to read; seg.fd may still be closed */
        uint64_t pos;      /* next frame: byte position, limit, base offset */
        uint64_t limit;
        uint64_t frame_offset;
        uint64_t want; /* records below are skipped */
        uint32_t idle_count;

        uint8_t *out; /* raw frames; records point into it */
        size_t out_cap;
        size_t out_len;
        const uint8_t *cur; /* rest of the frame being handed out */
        const uint8_t *cur_end;
        uint32_t cur_left;
        uint64_t cur_offset;
        int64_t cur_ms;
        ZSTD_DCtx *dctx;
};
int dfi_reader_open(struct df_log *log, const char *topic, uint32_t partition, uint64_t from_offset,
                    const char *consumer, struct df_log_reader **ret, struct df_error *err);
int dfi_poll(struct df_log_reader *r, struct df_record *records, size_t max, size_t *ret_count,
             struct df_error *err);
int dfi_release(struct df_log_reader *r, uint64_t offset, struct df_error *err);
uint64_t dfi_position(struct df_log_reader *r);
int dfi_bounds(struct df_log *log, const char *topic, uint32_t partition, uint64_t *ret_first,
               uint64_t *ret_end, struct df_error *err);
int dfi_offset_at(struct df_log *log, const char *topic, uint32_t partition, int64_t append_ms,
                  uint64_t *ret_offset, struct df_error *err);
void dfi_reader_close(struct df_log_reader *r);
struct dfi_reader *dfi_reader_of(struct df_log_reader *r);
/* Set seg_base, pos and frame_offset for want; DF_EOFFSET when it is not held. */
int dfi_reader_seek(struct dfi_reader *r, struct df_error *err);
/* The reader's segment does not exist: find out what happened, or move on to the next one. */
int dfi_reader_segment_gone(struct dfi_reader *r, struct df_error *err);

/* consumer.c */
struct dfi_registration {
        char name[DF_TOPIC_NAME_MAX + 1];
        uint32_t partition;
        uint64_t position;
        int64_t lease_until_ms;
};
struct dfi_registrations {
        struct dfi_registration *items; /* sorted by name, partition */
        size_t count;
        size_t cap;
};
int dfi_consumers_lock(const struct dfi_topic *topic, int *ret_fd, struct df_error *err);
int dfi_consumers_load(const struct dfi_topic *topic, struct dfi_registrations *ret,
                       struct df_error *err);
void dfi_consumers_release(struct dfi_registrations *regs);
int dfi_consumer_register(struct dfi_reader *r, struct df_error *err);
int dfi_consumer_write(struct dfi_reader *r, uint64_t position, struct df_error *err);

#endif
