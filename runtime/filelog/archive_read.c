/* archive_read.c - an archive segment back to records, and whether it is whole (df/segment.h). */
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "archive_private.h"
#include "df/sha256.h"

#define VERIFY_BYTES (1u << 20)

struct df_segment_reader {
        struct df_segment_source source;
        struct df_segment_info info;
        struct dfi_seg_frame *frames;
        uint64_t data_end; /* of the frames: where the footer's begins */
        ZSTD_DCtx *zstd;
        struct df_buf packed, raw;
        uint32_t frame; /* the next to be read */
        uint64_t frame_at;
        struct df_reader left;  /* of the frame in raw */
        uint64_t last, skip_to; /* offsets: of the record before; records below it are passed by */
        bool any;
};

static int damaged(const struct df_segment_reader *r, struct df_error *err, const char *what,
                   uint64_t at)
{
        return df_fail(err, DF_ECORRUPT,
                       "%s: %s at byte %llu: put a whole copy in its place (docs/ARCHIVE.md)",
                       r->source.name, what, (unsigned long long)at);
}

static int read_at(struct df_segment_reader *r, uint64_t from, size_t len, struct df_buf *ret,
                   struct df_error *err)
{
        int rc;

        df_buf_clear(ret);
        rc = r->source.read(r->source.arg, from, len, ret, err);
        if (rc == 0 && ret->len != len)
                rc = damaged(r, err, "the file ends too soon", from + ret->len);
        return rc;
}

static int read_footer(struct df_segment_reader *r, struct df_error *err)
{
        uint64_t size = r->source.size, at, bytes = 0;
        uint8_t sha256[DF_SEGMENT_SHA256];
        struct df_reader t;
        uint32_t len;
        int rc;

        if (size < DFI_SEG_SKIP_HEADER + DFI_SEG_TRAILER)
                return damaged(r, err, "no footer: the file is cut, or no segment", size);
        rc = read_at(r, size - DFI_SEG_TRAILER, DFI_SEG_TRAILER, &r->packed, err);
        if (rc < 0)
                return rc;
        t = df_reader(df_buf_bytes(&r->packed));
        len = df_get_u32le(&t);
        if (memcmp(r->packed.data + DFI_SEG_TRAILER - 8, DFI_SEG_MAGIC, 8) != 0 ||
            len > DFI_SEG_FOOTER_MAX || len + DFI_SEG_TRAILER + DFI_SEG_SKIP_HEADER > size)
                return damaged(r, err, "no footer: the file is cut, or no segment", size);
        if (df_get_u32le(&t) != DFI_SEG_VERSION)
                return df_fail(err, DF_ESCHEMA, "%s: a segment of a later version", r->source.name);
        memcpy(sha256, r->packed.data + DFI_SEG_TRAILER - DFI_SEG_HASHED_END, sizeof(sha256));
        at = size - DFI_SEG_TRAILER - DFI_SEG_SKIP_HEADER - len;
        rc = read_at(r, at, DFI_SEG_SKIP_HEADER + len, &r->packed, err);
        if (rc < 0)
                return rc;
        t = df_reader(df_buf_bytes(&r->packed));
        if (df_get_u32le(&t) != DFI_SEG_SKIP_MAGIC || df_get_u32le(&t) != len + DFI_SEG_TRAILER ||
            !dfi_seg_get_footer(df_get_bytes(&t, len), &r->info, &r->frames))
                return damaged(r, err, "the footer cannot be read", at);
        r->info.bytes = size;
        memcpy(r->info.sha256, sha256, sizeof(sha256));
        r->data_end = at;
        for (uint32_t i = 0; i < r->info.frames; i++)
                bytes += r->frames[i].bytes;
        return bytes == at ? 0 : damaged(r, err, "the footer's frames are not those here", at);
}

int df_segment_open(const struct df_segment_source *source, struct df_segment_reader **ret,
                    struct df_error *err)
{
        struct df_segment_reader *r = calloc(1, sizeof(*r));
        int rc = 0;

        *ret = NULL;
        if (!r)
                return df_fail(err, DF_ENOMEM, "a segment's reader");
        r->source = *source;
        r->zstd = ZSTD_createDCtx();
        if (!r->zstd)
                rc = df_fail(err, DF_ENOMEM, "a segment's reader");
        if (rc == 0)
                rc = read_footer(r, err);
        if (rc < 0)
                df_segment_close(r);
        else
                *ret = r;
        return rc;
}

const struct df_segment_info *df_segment_info(const struct df_segment_reader *r)
{
        return &r->info;
}

static int next_frame(struct df_segment_reader *r, struct df_error *err)
{
        const struct dfi_seg_frame *f = &r->frames[r->frame];
        size_t n;
        int rc = read_at(r, r->frame_at, (size_t)f->bytes, &r->packed, err);

        if (rc < 0)
                return rc;
        df_buf_clear(&r->raw);
        if (!df_buf_reserve(&r->raw, (size_t)f->raw_bytes))
                return df_buf_check(&r->raw, err);
        n = ZSTD_decompressDCtx(r->zstd, r->raw.data, (size_t)f->raw_bytes, r->packed.data,
                                r->packed.len);
        if (ZSTD_isError(n) || n != f->raw_bytes)
                return damaged(r, err, "a frame that cannot be unpacked", r->frame_at);
        r->raw.len = n;
        r->left = df_reader(df_buf_bytes(&r->raw));
        r->frame_at += f->bytes;
        r->frame++;
        return 0;
}

int df_segment_next(struct df_segment_reader *r, struct df_record *records, size_t max,
                    size_t *ret_count, struct df_error *err)
{
        size_t n = 0;

        *ret_count = 0;
        while (n < max) {
                struct df_record *at = &records[n];

                if (df_reader_left(&r->left) == 0) {
                        int rc;

                        if (n > 0 || r->frame == r->info.frames)
                                break; /* records borrow the frame */
                        rc = next_frame(r, err);
                        if (rc < 0)
                                return rc;
                }
                if (!dfi_seg_get_record(&r->left, at) || at->offset < r->info.first ||
                    at->offset >= r->info.end || (r->any && at->offset <= r->last))
                        return damaged(r, err, "a record out of order or cut in the frame before",
                                       r->frame_at);
                r->any = true;
                r->last = at->offset;
                if (at->offset >= r->skip_to)
                        n++;
        }
        *ret_count = n;
        return 0;
}

void df_segment_seek(struct df_segment_reader *r, uint64_t offset)
{
        r->frame = 0;
        r->frame_at = 0;
        r->any = false;
        r->skip_to = offset;
        r->left = df_reader(df_bytes(NULL, 0));
        while (r->frame + 1 < r->info.frames && r->frames[r->frame + 1].first <= offset)
                r->frame_at += r->frames[r->frame++].bytes;
}

static int verify_hash(struct df_segment_reader *r, struct df_error *err)
{
        uint64_t end = r->source.size - DFI_SEG_HASHED_END;
        struct df_sha256_stream *s = df_sha256_new(err);
        uint8_t is[DF_SHA256_SIZE];
        int rc = s ? 0 : DF_ENOMEM;

        for (uint64_t at = 0; rc == 0 && at < end; at += VERIFY_BYTES) {
                uint64_t left = end - at;

                rc = read_at(r, at, left < VERIFY_BYTES ? (size_t)left : VERIFY_BYTES, &r->packed,
                             err);
                if (rc == 0)
                        rc = df_sha256_add(s, df_buf_bytes(&r->packed), err);
        }
        if (rc < 0) {
                (void)df_sha256_end(s, NULL, NULL);
                return rc;
        }
        rc = df_sha256_end(s, is, err);
        if (rc == 0 && memcmp(is, r->info.sha256, sizeof(is)) != 0)
                rc = damaged(r, err, "another SHA-256 than that of the bytes before it", end);
        return rc;
}

int df_segment_verify(struct df_segment_reader *r, struct df_error *err)
{
        struct df_segment_info sum = {0};
        struct df_record records[256];
        size_t n = 1;
        int rc = verify_hash(r, err);

        df_segment_seek(r, 0);
        while (rc == 0 && n > 0) {
                rc = df_segment_next(r, records, 256, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++) {
                        int64_t ms = records[i].append_ms;

                        if (sum.records == 0 || ms < sum.min_append_ms)
                                sum.min_append_ms = ms;
                        if (sum.records == 0 || ms > sum.max_append_ms)
                                sum.max_append_ms = ms;
                        sum.records++;
                }
        }
        for (uint32_t i = 0; i < r->info.frames; i++)
                sum.raw_bytes += r->frames[i].raw_bytes;
        if (rc == 0 && (sum.records != r->info.records || sum.raw_bytes != r->info.raw_bytes ||
                        sum.min_append_ms != r->info.min_append_ms ||
                        sum.max_append_ms != r->info.max_append_ms))
                rc = damaged(r, err, "other records than the footer counts", r->data_end);
        df_segment_seek(r, 0);
        return rc;
}

void df_segment_close(struct df_segment_reader *r)
{
        if (!r)
                return;
        (void)ZSTD_freeDCtx(r->zstd);
        df_buf_release(&r->packed);
        df_buf_release(&r->raw);
        free(r->frames);
        free(r);
}

static int read_memory(void *arg, uint64_t from, size_t len, struct df_buf *ret,
                       struct df_error *err)
{
        const struct df_bytes *b = arg;

        if (from < b->len)
                df_buf_append(ret, b->data + from, len < b->len - from ? len : b->len - from);
        return df_buf_check(ret, err);
}

struct df_segment_source df_segment_memory(const char *name, const struct df_bytes *bytes)
{
        return (struct df_segment_source){name, bytes->len, read_memory, (void *)(uintptr_t)bytes};
}
