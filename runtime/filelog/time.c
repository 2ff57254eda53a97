/* time.c - from an append time to an offset, by frame headers alone.
 *
 * The segment is found by the first header of each, the frame by a walk over the headers of one.
 * All records of a frame have its append time. */
#include "filelog_private.h"

#define WALK_CHUNK 4096

struct walk {
        const struct dfi_part *part;
        struct dfi_seg seg;
        struct dfi_end end;
        int64_t append_ms;
};

/* The first frame of the segment that is not before append_ms; *ret_offset is the end of the
 * segment when there is none. only_first: look at its first frame alone. */
static int walk_segment(struct walk *w, uint64_t base, bool only_first, bool *ret_found,
                        uint64_t *ret_offset, struct df_error *err)
{
        struct dfi_seg_at at = {.offset = base, .header_only = true};
        const uint8_t *payload;
        struct dfi_frame f;
        const char *why;
        int rc = dfi_seg_open(&w->seg, w->part, base, err);

        *ret_found = false;
        if (rc == 0)
                rc = dfi_seg_size(&w->seg, &at.limit, err);
        if (rc == 0 && base == w->end.seg_base && at.limit > w->end.pos)
                at.limit = w->end.pos;
        while (rc == 0 && at.pos < at.limit) {
                rc = dfi_seg_frame(&w->seg, w->part, &at, &f, &payload, &why, err);
                if (rc == 0 && why)
                        rc = dfi_corrupt(w->part, &w->seg, &at, why, err);
                if (rc == 0 && f.append_ms >= w->append_ms)
                        *ret_found = true;
                if (rc || *ret_found || only_first)
                        break;
                at.pos += DFI_FRAME_HEADER + f.stored_len;
                at.offset += f.count;
        }
        *ret_offset = at.offset;
        return rc;
}

static int find(struct walk *w, const struct dfi_seg_list *list, uint64_t *ret_offset,
                struct df_error *err)
{
        bool found = false;
        size_t i = 0;
        int rc = 0;

        *ret_offset = w->end.offset;
        for (; rc == 0 && i < list->count && list->items[i].base < w->end.offset; i++) {
                rc = walk_segment(w, list->items[i].base, true, &found, ret_offset, err);
                if (found)
                        break;
        }
        if (rc == 0 && i > 0) /* the one before may hold it too */
                rc = walk_segment(w, list->items[i - 1].base, false, &found, ret_offset, err);
        return rc;
}

int dfi_offset_at(struct df_log *base, const char *topic, uint32_t partition, int64_t append_ms,
                  uint64_t *ret_offset, struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        struct walk w = {.seg = {.fd = -1, .chunk = WALK_CHUNK}, .append_ms = append_ms};
        struct dfi_seg_list list = {0};
        struct dfi_end_map map = {0};
        struct dfi_topic t;
        struct dfi_part part;
        int rc = dfi_topic_load(log, topic, &t, err);

        if (rc == 0)
                rc = dfi_topic_part(&t, partition, &part, err);
        w.part = &part;
        if (rc == 0)
                rc = dfi_end_open(&part, &map, err);
        if (rc == 0)
                rc = dfi_seg_list(&part, &list, err);
        if (rc == 0 && !dfi_end_read(&map, &w.end))
                rc = df_fail(err, DF_EAGAIN, "topic %s partition %u: END is not whole", topic,
                             partition);
        if (rc == 0)
                rc = find(&w, &list, ret_offset, err);
        dfi_seg_list_release(&list);
        dfi_seg_release(&w.seg);
        dfi_end_close(&map);
        return rc;
}
