/* archive_write.c - records to an archive segment (df/segment.h, A1). */
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "archive_private.h"
#include "df/sha256.h"

struct df_segment_writer {
        struct df_segment_info info; /* raw_bytes, records ... so far */
        ZSTD_CCtx *zstd;
        struct df_buf frame; /* raw, of the frame that is being filled */
        struct df_buf out;
        uint64_t frame_first, last;
        int64_t hour; /* the greatest append hour so far */
        struct dfi_seg_frame *frames;
        uint32_t frame_cap;
};

static size_t varint_bytes(uint64_t v)
{
        size_t n = 1;

        for (; v >= 0x80; v >>= 7)
                n++;
        return n;
}

static uint64_t raw_bytes(const struct df_record *r)
{
        uint64_t n = 0;

        if (r->offset)
                n += 1 + varint_bytes(r->offset);
        if (r->append_ms)
                n += 1 + varint_bytes((uint64_t)r->append_ms);
        if (r->value.len)
                n += 1 + varint_bytes(r->value.len) + r->value.len;
        return varint_bytes(n) + n;
}

int df_segment_writer_create(const struct df_segment_id *id, uint64_t limit,
                             struct df_segment_writer **ret, struct df_error *err)
{
        struct df_segment_writer *w;
        size_t e;

        *ret = NULL;
        if (limit < DF_SEGMENT_LIMIT_MIN || limit > DF_SEGMENT_LIMIT_MAX)
                return df_fail(err, DF_EINVAL, "a segment of %llu raw bytes: %u to %u are possible",
                               (unsigned long long)limit, DF_SEGMENT_LIMIT_MIN,
                               DF_SEGMENT_LIMIT_MAX);
        w = calloc(1, sizeof(*w));
        if (w)
                w->zstd = ZSTD_createCCtx();
        if (!w || !w->zstd) {
                free(w);
                return df_fail(err, DF_ENOMEM, "a segment's writer");
        }
        w->info.id = *id;
        w->info.limit = limit;
        e = ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_compressionLevel, DFI_SEG_LEVEL);
        if (!ZSTD_isError(e))
                e = ZSTD_CCtx_setParameter(w->zstd, ZSTD_c_checksumFlag, 1);
        df_check(!ZSTD_isError(e)); /* constants of every version */
        df_segment_begin(w, 0);
        *ret = w;
        return 0;
}

void df_segment_begin(struct df_segment_writer *w, uint64_t first)
{
        w->info =
                (struct df_segment_info){.id = w->info.id, .limit = w->info.limit, .first = first};
        df_buf_clear(&w->frame);
        df_buf_clear(&w->out);
}

bool df_segment_takes(const struct df_segment_writer *w, const struct df_record *r)
{
        return w->info.records == 0 || (w->info.raw_bytes + raw_bytes(r) <= w->info.limit &&
                                        dfi_seg_hour(r->append_ms) <= w->hour);
}

uint64_t df_segment_records(const struct df_segment_writer *w)
{
        return w->info.records;
}

static int close_frame(struct df_segment_writer *w, struct df_error *err)
{
        size_t bound = ZSTD_compressBound(w->frame.len), n;

        if (w->frame.len == 0)
                return 0;
        if (w->info.frames == w->frame_cap) {
                uint32_t cap = w->frame_cap ? w->frame_cap * 2 : 64;
                struct dfi_seg_frame *grown = realloc(w->frames, cap * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "%u frames of a segment", cap);
                w->frames = grown;
                w->frame_cap = cap;
        }
        if (!df_buf_reserve(&w->out, bound))
                return df_buf_check(&w->out, err);
        n = ZSTD_compress2(w->zstd, w->out.data + w->out.len, bound, w->frame.data, w->frame.len);
        if (ZSTD_isError(n))
                return df_fail(err, DF_ENOMEM, "zstd: %s", ZSTD_getErrorName(n));
        w->out.len += n;
        w->frames[w->info.frames++] = (struct dfi_seg_frame){n, w->frame.len, w->frame_first};
        df_buf_clear(&w->frame);
        return 0;
}

int df_segment_add(struct df_segment_writer *w, const struct df_record *r, struct df_error *err)
{
        struct df_segment_info *i = &w->info;
        int64_t hour = dfi_seg_hour(r->append_ms);

        if (r->value.len > DF_LOG_RECORD_MAX)
                return df_fail(err, DF_ELIMIT, "%s/%u: the record at offset %llu has %zu bytes",
                               i->id.topic, i->id.partition, (unsigned long long)r->offset,
                               r->value.len);
        if (r->offset < i->first || (i->records && r->offset <= w->last))
                return df_fail(err, DF_EINVAL, "%s/%u: offset %llu after %llu", i->id.topic,
                               i->id.partition, (unsigned long long)r->offset,
                               (unsigned long long)(i->records ? w->last : i->first));
        if (i->records == 0 || hour > w->hour)
                w->hour = hour;
        if (i->records == 0 || r->append_ms < i->min_append_ms)
                i->min_append_ms = r->append_ms;
        if (i->records == 0 || r->append_ms > i->max_append_ms)
                i->max_append_ms = r->append_ms;
        if (w->frame.len == 0)
                w->frame_first = r->offset;
        w->last = r->offset;
        i->records++;
        i->raw_bytes += raw_bytes(r);
        dfi_seg_put_record(&w->frame, r);
        if (w->frame.len >= DFI_SEG_FRAME)
                return close_frame(w, err);
        return df_buf_check(&w->frame, err);
}

int df_segment_finish(struct df_segment_writer *w, uint64_t end, struct df_bytes *ret_bytes,
                      struct df_segment_info *info, struct df_error *err)
{
        size_t head, footer;
        int rc = close_frame(w, err);

        if (rc == 0 && (end < w->info.first || (w->info.records && end <= w->last)))
                rc = df_fail(err, DF_EINVAL, "%s/%u: a segment with offset %llu ends at %llu",
                             w->info.id.topic, w->info.id.partition, (unsigned long long)w->last,
                             (unsigned long long)end);
        w->info.end = end;
        if (rc < 0)
                return rc;
        head = w->out.len;
        df_put_u32le(&w->out, DFI_SEG_SKIP_MAGIC);
        df_put_u32le(&w->out, 0); /* known below */
        footer = w->out.len;
        dfi_seg_put_footer(&w->out, &w->info, w->frames);
        df_put_u32le(&w->out, (uint32_t)(w->out.len - footer));
        df_put_u32le(&w->out, DFI_SEG_VERSION);
        rc = df_buf_check(&w->out, err);
        if (rc < 0)
                return rc;
        for (unsigned k = 0; k < 4; k++)
                w->out.data[head + 4 + k] =
                        (uint8_t)((w->out.len + DFI_SEG_HASHED_END - footer) >> 8 * k);
        rc = df_sha256(df_buf_bytes(&w->out), w->info.sha256, err);
        df_buf_append(&w->out, w->info.sha256, sizeof(w->info.sha256));
        df_buf_append(&w->out, DFI_SEG_MAGIC, 8);
        if (rc == 0)
                rc = df_buf_check(&w->out, err);
        if (rc < 0)
                return rc;
        w->info.bytes = w->out.len;
        *ret_bytes = df_buf_bytes(&w->out);
        if (info)
                *info = w->info;
        return 0;
}

void df_segment_writer_destroy(struct df_segment_writer *w)
{
        if (!w)
                return;
        (void)ZSTD_freeCCtx(w->zstd);
        df_buf_release(&w->frame);
        df_buf_release(&w->out);
        free(w->frames);
        free(w);
}
