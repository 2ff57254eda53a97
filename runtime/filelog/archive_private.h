/* archive_private.h - the bytes of an archive segment (proto/archive.proto, docs/ARCHIVE.md).
 *
 *   zstd frame       about DFI_SEG_FRAME raw bytes of delimited LogRecords; none spans two frames
 *   ...
 *   skippable frame  u32le DFI_SEG_SKIP_MAGIC, u32le n, then n bytes: SegmentFooter and the trailer
 *   trailer          u32le bytes of the SegmentFooter, u32le DFI_SEG_VERSION, SHA-256 of all bytes
 *                    of the file before it, 8 bytes of magic
 *
 * The trailer ends the file, so that a reader finds the footer from there.
 */
#ifndef DFI_ARCHIVE_PRIVATE_H
#define DFI_ARCHIVE_PRIVATE_H

#include "df/segment.h"

#define DFI_SEG_FRAME (1u << 20)
#define DFI_SEG_FRAME_MAX (DFI_SEG_FRAME + DF_LOG_RECORD_MAX + 64) /* raw bytes of one */
#define DFI_SEG_SKIP_MAGIC 0x184D2A5Au
#define DFI_SEG_SKIP_HEADER 8
#define DFI_SEG_TRAILER 48
#define DFI_SEG_HASHED_END 40 /* the hash and the magic, from the end */
#define DFI_SEG_VERSION 1
#define DFI_SEG_MAGIC "ADTLYSEG"
#define DFI_SEG_LEVEL 1 /* 3 saves 1.4 % more, and is read a fifth slower */
#define DFI_SEG_FOOTER_MAX (1u << 20)
#define DFI_SEG_HOUR_MS 3600000

struct dfi_seg_frame {
        uint64_t bytes, raw_bytes;
        uint64_t first; /* offset of its first record */
};

/* Of info and its frames: the message alone. */
void dfi_seg_put_footer(struct df_buf *b, const struct df_segment_info *info,
                        const struct dfi_seg_frame *frames);
/* info's fields but bytes; *ret_frames: info->frames of them, to be freed. False: it is none. */
bool dfi_seg_get_footer(struct df_bytes message, struct df_segment_info *info,
                        struct dfi_seg_frame **ret_frames);
void dfi_seg_put_record(struct df_buf *b, const struct df_record *r); /* delimited */
/* The next of a frame; false at its end or on damage (then r->bad). */
bool dfi_seg_get_record(struct df_reader *r, struct df_record *ret);
static inline int64_t dfi_seg_hour(int64_t append_ms)
{
        return append_ms / DFI_SEG_HOUR_MS - (append_ms % DFI_SEG_HOUR_MS < 0);
}

#endif
