/* archive_wire.c - the messages of an archive segment (proto/archive.proto). */
#include <stdlib.h>
#include <string.h>

#include "archive_private.h"

void dfi_seg_put_footer(struct df_buf *b, const struct df_segment_info *info,
                        const struct dfi_seg_frame *frames)
{
        df_pb_str(b, 1, info->id.topic);
        df_pb_fixed64(b, 2, info->id.generation);
        df_pb_uint(b, 3, info->id.partition);
        df_pb_uint(b, 4, info->first);
        df_pb_uint(b, 5, info->end);
        df_pb_uint(b, 6, info->records);
        df_pb_uint(b, 7, info->raw_bytes);
        df_pb_int(b, 8, info->min_append_ms);
        df_pb_int(b, 9, info->max_append_ms);
        df_pb_uint(b, 10, info->limit);
        for (uint32_t i = 0; i < info->frames; i++) {
                size_t m = df_pb_begin(b, 11);

                df_pb_uint(b, 1, frames[i].bytes);
                df_pb_uint(b, 2, frames[i].raw_bytes);
                df_pb_uint(b, 3, frames[i].first);
                df_pb_end(b, m);
        }
}

static bool get_frame(struct df_bytes message, struct dfi_seg_frame *ret)
{
        struct df_reader r = df_reader(message);
        struct df_pb_field f;

        *ret = (struct dfi_seg_frame){0};
        while (df_pb_next(&r, &f)) {
                if (f.number == 1)
                        ret->bytes = f.u;
                else if (f.number == 2)
                        ret->raw_bytes = f.u;
                else if (f.number == 3)
                        ret->first = f.u;
        }
        return !r.bad && ret->bytes > 0 && ret->raw_bytes > 0 &&
               ret->raw_bytes <= DFI_SEG_FRAME_MAX;
}

static bool get_field(const struct df_pb_field *f, struct df_segment_info *info)
{
        switch (f->number) {
        case 1:
                if (f->bytes.len == 0 || f->bytes.len > DF_TOPIC_NAME_MAX)
                        return false;
                memcpy(info->id.topic, f->bytes.data, f->bytes.len);
                return true;
        case 2:
                info->id.generation = f->u;
                return true;
        case 3:
                info->id.partition = (uint32_t)f->u;
                return f->u < DF_PARTITIONS_MAX;
        case 4:
                info->first = f->u;
                return true;
        case 5:
                info->end = f->u;
                return true;
        case 6:
                info->records = f->u;
                return true;
        case 7:
                info->raw_bytes = f->u;
                return true;
        case 8:
                info->min_append_ms = (int64_t)f->u;
                return true;
        case 9:
                info->max_append_ms = (int64_t)f->u;
                return true;
        case 10:
                info->limit = f->u;
                return true;
        default:
                return true; /* of a later version */
        }
}

bool dfi_seg_get_footer(struct df_bytes message, struct df_segment_info *info,
                        struct dfi_seg_frame **ret_frames)
{
        struct df_reader r = df_reader(message);
        struct dfi_seg_frame *frames = NULL, *grown;
        struct df_pb_field f;
        uint32_t cap = 0;
        bool ok = true;

        *info = (struct df_segment_info){0};
        while (ok && df_pb_next(&r, &f)) {
                if (f.number != 11) {
                        ok = get_field(&f, info);
                        continue;
                }
                if (info->frames == cap) {
                        cap = cap ? cap * 2 : 64;
                        grown = realloc(frames, cap * sizeof(*frames));
                        ok = grown != NULL;
                        frames = grown ? grown : frames;
                }
                ok = ok && get_frame(f.bytes, &frames[info->frames]);
                info->frames += ok;
        }
        if (ok && !r.bad && info->id.topic[0] && info->first <= info->end) {
                *ret_frames = frames;
                return true;
        }
        free(frames);
        return false;
}

void dfi_seg_put_record(struct df_buf *b, const struct df_record *r)
{
        struct df_buf head = {0};
        uint8_t room[64];

        head.data = room; /* never grows: offset and time take 22 bytes, the value's head 6 */
        head.cap = sizeof(room);
        df_pb_uint(&head, 1, r->offset);
        df_pb_int(&head, 2, r->append_ms);
        if (r->value.len > 0) {
                df_put_varint(&head, 3 << 3 | 2);
                df_put_varint(&head, r->value.len);
        }
        df_put_varint(b, head.len + r->value.len);
        df_buf_append(b, head.data, head.len);
        if (r->value.len > 0)
                df_buf_append(b, r->value.data, r->value.len);
}

bool dfi_seg_get_record(struct df_reader *r, struct df_record *ret)
{
        struct df_reader message;
        struct df_pb_field f;

        if (r->bad || df_reader_left(r) == 0)
                return false;
        message = df_reader(df_get_lstr(r));
        if (r->bad)
                return false;
        *ret = (struct df_record){0};
        while (df_pb_next(&message, &f)) {
                if (f.number == 1)
                        ret->offset = f.u;
                else if (f.number == 2)
                        ret->append_ms = (int64_t)f.u;
                else if (f.number == 3)
                        ret->value = f.bytes;
        }
        r->bad |= message.bad || ret->value.len > DF_LOG_RECORD_MAX;
        return !r->bad;
}
