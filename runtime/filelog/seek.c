/* seek.c - from an offset to a byte position. */
#include <inttypes.h>
#include <stdio.h>

#include "filelog_private.h"

#define WALK_CHUNK 4096

static int offset_gone(const struct dfi_part *part, uint64_t offset, uint64_t first,
                       struct df_error *err)
{
        return df_fail(err, DF_EOFFSET,
                       "topic %s partition %u: offset %" PRIu64 " was deleted; the first one "
                       "still held is %" PRIu64,
                       part->topic->info.name, part->index, offset, first);
}

static int beyond_end(const struct dfi_reader *r, struct df_error *err)
{
        const char *name = r->topic.info.name;

        if (dfi_end_exact(&r->map))
                return df_fail(err, DF_EOFFSET,
                               "topic %s partition %u: offset %" PRIu64 " is beyond the durable "
                               "end %" PRIu64,
                               name, r->part.index, r->want, r->end.offset);
        return df_fail(err, DF_EAGAIN,
                       "topic %s partition %u: offset %" PRIu64 " is beyond the end %" PRIu64
                       " known from before this machine started; the writer of the topic has not "
                       "recovered it yet",
                       name, r->part.index, r->want, r->end.offset);
}

/* Walk the frame headers of the segment to the frame that holds want. */
static int walk(struct dfi_reader *r, struct df_error *err)
{
        struct dfi_seg_at at = {.offset = r->seg_base, .header_only = true};
        const uint8_t *payload;
        struct dfi_frame f;
        const char *why;
        int rc = dfi_seg_open(&r->seg, &r->part, r->seg_base, err);

        if (rc == 0)
                rc = dfi_seg_size(&r->seg, &at.limit, err);
        if (rc)
                return rc;
        if (r->seg_base == r->end.seg_base && at.limit > r->end.pos)
                at.limit = r->end.pos;
        for (;;) {
                if (at.pos == at.limit && at.offset == r->want)
                        break;
                rc = dfi_seg_frame(&r->seg, &r->part, &at, &f, &payload, &why, err);
                if (rc)
                        return rc;
                if (why)
                        return dfi_corrupt(&r->part, &r->seg, &at, why, err);
                if (r->want < at.offset + f.count)
                        break;
                at.pos += DFI_FRAME_HEADER + f.stored_len;
                at.offset += f.count;
        }
        r->pos = at.pos;
        r->frame_offset = at.offset;
        return 0;
}

int dfi_reader_seek(struct dfi_reader *r, struct df_error *err)
{
        struct dfi_seg_list list = {0};
        size_t chunk = r->seg.chunk;
        int rc;

        r->limit = 0;
        if (r->want > r->end.offset)
                return beyond_end(r, err);
        r->seg_base = r->end.seg_base;
        r->pos = r->end.pos;
        r->frame_offset = r->end.offset;
        if (r->want == r->end.offset)
                return 0;
        rc = dfi_seg_list(&r->part, &list, err);
        if (rc)
                return rc;
        if (list.count == 0) {
                rc = dfi_corrupt_missing(&r->part, r->want, err);
        } else if (r->want < list.items[0].base) {
                rc = offset_gone(&r->part, r->want, list.items[0].base, err);
        } else {
                for (size_t i = 0; i < list.count && list.items[i].base <= r->want; i++)
                        r->seg_base = list.items[i].base;
                r->seg.chunk = WALK_CHUNK;
                rc = walk(r, err);
                r->seg.chunk = chunk;
                r->seg.win_len = 0;
                if (rc == DF_ENOENT) /* retention took it between the list and the open */
                        rc = offset_gone(&r->part, r->want, r->end.seg_base, err);
        }
        dfi_seg_list_release(&list);
        return rc;
}

int dfi_reader_segment_gone(struct dfi_reader *r, struct df_error *err)
{
        struct dfi_seg_list list = {0};
        bool below = false;
        uint64_t above = 0;
        int rc = dfi_seg_list(&r->part, &list, err);

        if (rc)
                return rc;
        for (size_t i = 0; i < list.count; i++) {
                if (list.items[i].base == r->frame_offset) {
                        dfi_seg_list_release(&list);
                        r->seg_base = r->frame_offset;
                        r->pos = 0;
                        return 0;
                }
                below = below || list.items[i].base < r->frame_offset;
                if (!above && list.items[i].base > r->frame_offset)
                        above = list.items[i].base;
        }
        dfi_seg_list_release(&list);
        /* Retention deletes from the oldest on: with older ones still here, this one was lost. */
        if (!below && above)
                return offset_gone(&r->part, r->frame_offset, above, err);
        return dfi_corrupt_missing(&r->part, r->frame_offset, err);
}

int dfi_bounds(struct df_log *base, const char *topic, uint32_t partition, uint64_t *ret_first,
               uint64_t *ret_end, struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        struct dfi_seg_list list = {0};
        struct dfi_end_map map = {0};
        struct dfi_topic t;
        struct dfi_part part;
        struct dfi_end end;
        int rc = dfi_topic_load(log, topic, &t, err);

        if (rc == 0)
                rc = dfi_topic_part(&t, partition, &part, err);
        if (rc == 0)
                rc = dfi_end_open(&part, &map, err);
        if (rc == 0)
                rc = dfi_seg_list(&part, &list, err);
        if (rc == 0 && !dfi_end_read(&map, &end))
                rc = df_fail(err, DF_EAGAIN, "topic %s partition %u: END is not whole", topic,
                             partition);
        if (rc == 0) {
                uint64_t first = list.count ? list.items[0].base : end.offset;

                /* A segment created but not yet published begins at the end. */
                *ret_first = first < end.offset ? first : end.offset;
                *ret_end = end.offset;
        }
        dfi_seg_list_release(&list);
        dfi_end_close(&map);
        return rc;
}
