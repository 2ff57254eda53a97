/* commit.c - one group commit: sort by partition, write every file, sync every file, publish.
 *
 * Only the leader runs this. Until the syncs are done nothing is visible to readers, and a failure
 * to write takes every file back to where it was; a failure to sync ends the process. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/hash.h"
#include "filelog_private.h"

#define ZSTD_MIN 128              /* smaller frames are stored plain */
#define ZSTD_SKIP_MAX 64          /* frames stored plain after compression did not pay */
#define FRAME_OVERHEAD 64         /* header and a length, for the estimate of space */
#define ALLOCATE_STEP (1u << 20)  /* a synced write into allocated space is a quarter cheaper */
#define ALLOCATE_ROOM (64u << 20) /* free bytes beyond the minimum, or none is allocated ahead */

/* Counting sort of the group's items by partition, in order of arrival. */
static int sort_items(struct dfi_writer *w, struct dfi_request *batch, size_t count,
                      struct df_error *err)
{
        size_t at = 0;

        if (count > w->order_cap) {
                struct df_append **order = realloc(w->order, count * sizeof(*order));

                if (!order)
                        return df_fail(err, DF_ENOMEM, "no memory to append %zu records", count);
                w->order = order;
                w->order_cap = count;
        }
        w->dirty_count = 0;
        for (struct dfi_request *r = batch; r; r = r->next)
                for (size_t i = 0; i < r->count; i++) {
                        struct dfi_wpart *p = &w->parts[r->items[i].partition];

                        if (p->count++ == 0)
                                w->dirty[w->dirty_count++] = r->items[i].partition;
                }
        for (uint32_t i = 0; i < w->dirty_count; i++) {
                struct dfi_wpart *p = &w->parts[w->dirty[i]];

                p->items = w->order + at;
                at += p->count;
                p->count = 0;
        }
        for (struct dfi_request *r = batch; r; r = r->next)
                for (size_t i = 0; i < r->count; i++) {
                        struct dfi_wpart *p = &w->parts[r->items[i].partition];

                        p->items[p->count++] = &r->items[i];
                }
        return 0;
}

/* Out of file descriptors: those of partitions at rest are only a convenience. */
static bool close_idle(struct dfi_writer *w)
{
        bool any = false;

        for (uint32_t i = 0; i < w->topic.info.partitions; i++) {
                struct dfi_wpart *p = &w->parts[i];

                if (p->count == 0 && p->fd >= 0) {
                        p->fd = dfi_close(p->fd);
                        any = true;
                }
        }
        return any;
}

/* A new segment's name must be durable before its data is acknowledged. */
static int sync_name(struct dfi_writer *w, struct dfi_wpart *p, struct df_error *err)
{
        char path[DFI_PATH_MAX];
        int rc;

        dfi_part_dir(&p->part, path);
        do
                rc = dfi_sync_dir(path, err);
        while (rc == DF_EAGAIN && close_idle(w));
        if (rc == 0)
                p->dir_dirty = false;
        if (rc == 0 || rc == DF_EAGAIN)
                return rc;
        w->broken = true;
        return dfi_sync_failed(w->log, path, err);
}

static int open_segment(struct dfi_writer *w, struct dfi_wpart *p, struct df_error *err)
{
        bool roll = !p->have_seg || p->start_pos >= w->log->opt.segment_bytes;
        uint64_t base = roll ? p->end.offset : p->seg_base;
        char path[DFI_PATH_MAX];
        int fd;

        if (!roll && p->fd >= 0)
                return p->dir_dirty ? sync_name(w, p, err) : 0;
        dfi_seg_path(&p->part, base, path);
        do
                fd = open(path, O_RDWR | O_CLOEXEC | (roll ? O_CREAT | O_EXCL : 0), 0644);
        while (fd < 0 && (errno == EMFILE || errno == ENFILE) && close_idle(w));
        if (fd < 0)
                return dfi_fail_open(err, path);
        if (roll) {
                if (p->fd >= 0 && p->reserved > p->start_pos)
                        (void)!ftruncate(p->fd, (off_t)p->start_pos); /* gives blocks back */
                p->have_seg = true;
                p->dir_dirty = true;
                p->seg_base = base;
                p->start_pos = 0;
        }
        p->reserved = 0;
        (void)dfi_close(p->fd);
        p->fd = fd;
        return p->dir_dirty ? sync_name(w, p, err) : 0;
}

static int write_all(const struct dfi_log *log, int fd, const uint8_t *data, size_t len,
                     uint64_t pos)
{
        while (len > 0) {
                ssize_t n = log->hooks.write_at(fd, data, len, (off_t)pos);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -1;
                data += n;
                len -= (size_t)n;
                pos += (uint64_t)n;
        }
        return 0;
}

/* Fill one frame's raw bytes from items[*i...]; at least one fits. */
static size_t fill_raw(struct dfi_writer *w, const struct dfi_wpart *p, size_t *i)
{
        uint8_t *to = w->raw;

        for (; *i < p->count; (*i)++) {
                struct df_bytes v = p->items[*i]->value;
                size_t n = v.len;

                if ((size_t)(to - w->raw) + n + 5 > DFI_FRAME_RAW_MAX)
                        break;
                for (; n >= 0x80; n >>= 7)
                        *to++ = (uint8_t)(n | 0x80);
                *to++ = (uint8_t)n;
                if (v.len) {
                        memcpy(to, v.data, v.len);
                        to += v.len;
                }
        }
        return (size_t)(to - w->raw);
}

/* Compress where it pays: small frames and data that did not shrink lately are stored plain. */
static void encode(struct dfi_writer *w, struct dfi_frame *f)
{
        uint8_t *payload = w->stored + DFI_FRAME_HEADER;
        size_t n = f->raw_len;
        bool tried = f->raw_len >= ZSTD_MIN && w->skip_zstd == 0;

        if (tried)
                n = ZSTD_compress2(w->cctx, payload, ZSTD_compressBound(DFI_FRAME_RAW_MAX), w->raw,
                                   f->raw_len);
        else if (w->skip_zstd)
                w->skip_zstd--;
        if (tried && !ZSTD_isError(n) && n < f->raw_len - f->raw_len / 16) {
                f->codec = DFI_CODEC_ZSTD;
                w->skip_next = 0;
        } else {
                n = f->raw_len;
                memcpy(payload, w->raw, n);
                f->codec = DFI_CODEC_NONE;
                if (tried) {
                        w->skip_next = w->skip_next ? w->skip_next * 2 : 4;
                        if (w->skip_next > ZSTD_SKIP_MAX)
                                w->skip_next = ZSTD_SKIP_MAX;
                        w->skip_zstd = w->skip_next;
                }
        }
        f->stored_len = (uint32_t)n;
        f->payload_crc = df_crc32c(0, df_bytes(payload, n));
        dfi_frame_put(w->stored, f);
}

static void allocate_ahead(struct dfi_writer *w, struct dfi_wpart *p, uint64_t end)
{
        uint64_t step = w->log->opt.segment_bytes < ALLOCATE_STEP ? w->log->opt.segment_bytes
                                                                  : ALLOCATE_STEP;

        if (end <= p->reserved || w->free_bytes < w->log->opt.min_free_bytes + ALLOCATE_ROOM)
                return;
        p->reserved = end + step;
        /* Only speed: where the file system cannot, the write itself allocates. */
        (void)fallocate(p->fd, FALLOC_FL_KEEP_SIZE, (off_t)p->pos, (off_t)(p->reserved - p->pos));
}

static int write_partition(struct dfi_writer *w, struct dfi_wpart *p, struct df_error *err)
{
        int rc = open_segment(w, p, err);

        if (rc)
                return rc;
        p->pos = p->start_pos;
        for (size_t i = 0; i < p->count;) {
                struct dfi_frame f = {.base = p->end.offset + i,
                                      .generation = w->topic.info.generation,
                                      .append_ms = p->append_ms,
                                      .commit_delta = (uint32_t)i};
                size_t first = i, len;

                f.raw_len = (uint32_t)fill_raw(w, p, &i);
                f.count = (uint32_t)(i - first);
                encode(w, &f);
                len = DFI_FRAME_HEADER + (size_t)f.stored_len;
                allocate_ahead(w, p, p->pos + len);
                if (write_all(w->log, p->fd, w->stored, len, p->pos) != 0)
                        return df_fail_errno(err, DF_EIO,
                                             "topic %s partition %u: cannot write %zu bytes to "
                                             "segment %020" PRIu64 ".seg; nothing was stored",
                                             w->topic.info.name, p->part.index, len, p->seg_base);
                p->pos += len;
        }
        return 0;
}

/* Take back what this commit wrote. If even that fails, the file no longer matches what we know
 * of it: that is as bad as a failed sync. */
static void undo(struct dfi_writer *w)
{
        struct df_error err = {0};

        for (uint32_t i = 0; i < w->dirty_count; i++) {
                struct dfi_wpart *p = &w->parts[w->dirty[i]];
                char path[DFI_PATH_MAX];

                p->reserved = 0;
                if (p->fd < 0 || ftruncate(p->fd, (off_t)p->start_pos) == 0)
                        continue;
                dfi_seg_path(&p->part, p->seg_base, path);
                w->broken = true;
                (void)dfi_sync_failed(w->log, path, &err);
        }
        w->free_checked_ms = 0; /* ask again next time */
}

static int sync_all(struct dfi_writer *w, struct df_error *err)
{
        char path[DFI_PATH_MAX];

        for (uint32_t i = 0; i < w->dirty_count; i++) {
                struct dfi_wpart *p = &w->parts[w->dirty[i]];

                if (w->log->hooks.sync_data(p->fd) != 0) {
                        dfi_seg_path(&p->part, p->seg_base, path);
                        w->broken = true;
                        return dfi_sync_failed(w->log, path, err);
                }
        }
        return 0;
}

static void publish(struct dfi_writer *w)
{
        for (uint32_t i = 0; i < w->dirty_count; i++) {
                struct dfi_wpart *p = &w->parts[w->dirty[i]];

                for (size_t k = 0; k < p->count; k++) {
                        p->items[k]->ret_offset = p->end.offset + k;
                        p->items[k]->ret_append_ms = p->append_ms;
                }
                p->end = (struct dfi_end){.offset = p->end.offset + p->count,
                                          .seg_base = p->seg_base,
                                          .pos = p->pos,
                                          .append_ms = p->append_ms};
                p->start_pos = p->pos;
                dfi_end_write(&p->map, &p->end);
        }
}

int dfi_commit(struct dfi_writer *w, struct dfi_request *batch, size_t count, bool restart_clock,
               struct df_error *err)
{
        uint64_t bytes = 0;
        int64_t now_ms;
        int rc;

        if (w->broken)
                return df_fail(err, DF_EIO, "topic %s: an earlier write failed; start again",
                               w->topic.info.name);
        rc = sort_items(w, batch, count, err);
        if (rc)
                return rc;
        for (struct dfi_request *r = batch; r; r = r->next)
                bytes += r->bytes + r->count * FRAME_OVERHEAD;
        now_ms = w->log->opt.clock_ms(w->log->opt.clock_arg);
        rc = dfi_space_check(w, bytes, err);
        for (uint32_t i = 0; i < w->dirty_count && rc == 0; i++) {
                struct dfi_wpart *p = &w->parts[w->dirty[i]];

                p->append_ms = now_ms;
                if (now_ms < p->end.append_ms && !restart_clock)
                        p->append_ms = p->end.append_ms;
                p->pos = p->start_pos;
                rc = write_partition(w, p, err);
        }
        if (rc) {
                undo(w);
                if (rc == DF_EIO)
                        w->broken = true;
        } else {
                rc = sync_all(w, err);
        }
        if (rc == 0)
                publish(w);
        for (uint32_t i = 0; i < w->topic.info.partitions && rc == 0 && restart_clock; i++)
                if (w->parts[i].end.append_ms > now_ms)
                        w->parts[i].end.append_ms = now_ms;
        for (uint32_t i = 0; i < w->dirty_count; i++)
                w->parts[w->dirty[i]].count = 0;
        return rc;
}
