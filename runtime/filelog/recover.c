/* recover.c - the start of a writer: decide how far a partition is whole.
 *
 * Only the last commit of the last segment can be torn. A bad frame there is cut, unless it lies
 * before END, or a later commit follows it: then durable data was damaged, and we refuse. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <unistd.h>

#include "filelog_private.h"

#define SCAN_CHUNK (256u << 10)

struct scan {
        struct dfi_seg_at at; /* the first frame that is not there */
        uint64_t size;
        int64_t append_ms; /* of the last good frame */
        const char *why;   /* NULL: the segment ends with a whole frame */
};

static int scan_segment(struct dfi_seg *s, const struct dfi_part *part, uint64_t base,
                        struct scan *ret, struct df_error *err)
{
        struct scan scan = {.at = {.offset = base}};
        int rc = dfi_seg_open(s, part, base, err);

        if (rc == 0)
                rc = dfi_seg_size(s, &scan.size, err);
        scan.at.limit = scan.size;
        while (rc == 0 && scan.at.pos < scan.size) {
                const uint8_t *payload;
                struct dfi_frame f;

                rc = dfi_seg_frame(s, part, &scan.at, &f, &payload, &scan.why, err);
                if (rc || scan.why)
                        break;
                scan.at.pos += DFI_FRAME_HEADER + f.stored_len;
                scan.at.offset += f.count;
                scan.append_ms = f.append_ms;
        }
        if (rc == 0)
                *ret = scan;
        return rc;
}

static const struct dfi_seg_entry *find(const struct dfi_seg_list *list, uint64_t base)
{
        for (size_t i = 0; i < list->count; i++)
                if (list->items[i].base == base)
                        return &list->items[i];
        return NULL;
}

/* Does END name data that is not there? The last segment itself is judged by its scan. */
static int check_end(const struct dfi_part *part, struct dfi_seg *s,
                     const struct dfi_seg_list *list, const struct dfi_end *end,
                     struct df_error *err)
{
        const struct dfi_seg_entry *e = find(list, end->seg_base);

        if (end->offset == 0)
                return 0;
        if (list->count == 0)
                return dfi_corrupt_missing(part, end->seg_base, err);
        if (!e && end->seg_base < list->items[0].base)
                return 0; /* an END from before a power loss; retention went on since */
        if (!e)
                return dfi_corrupt_missing(part, end->seg_base, err);
        if (e->bytes < end->pos && e->base != list->items[list->count - 1].base) {
                struct scan scan;
                int rc = scan_segment(s, part, e->base, &scan, err);

                if (rc)
                        return rc;
                return dfi_corrupt(part, s, &scan.at, "durable bytes are missing", err);
        }
        return 0;
}

static int check_consumers(const struct dfi_part *part, uint64_t next, struct df_error *err)
{
        struct dfi_registrations regs = {0};
        int rc = dfi_consumers_load(part->topic, &regs, err);

        for (size_t i = 0; i < regs.count && rc == 0; i++) {
                const struct dfi_registration *r = &regs.items[i];

                if (r->partition == part->index && r->position > next)
                        rc = df_fail(err, DF_ECORRUPT,
                                     "topic %s partition %u: consumer %s has read up to offset "
                                     "%" PRIu64 ", but the log ends before offset %" PRIu64
                                     ": segments are missing. Way out: restore them from a copy; "
                                     "nothing skips records (docs/RUNBOOK.md)",
                                     part->topic->info.name, part->index, r->name, r->position,
                                     next);
        }
        dfi_consumers_release(&regs);
        return rc;
}

/* A bad frame at the end: torn (cut it) or damaged (refuse)? */
static int judge_tail(struct dfi_writer *w, struct dfi_wpart *p, struct dfi_seg *s,
                      const struct scan *scan, uint64_t durable, struct df_error *err)
{
        char path[DFI_PATH_MAX];
        struct dfi_frame f = {.base = scan->at.offset};
        uint64_t pos = scan->at.pos;
        bool found;
        int fd, rc;

        if (pos < durable)
                return dfi_corrupt(&p->part, s, &scan->at, scan->why, err);
        /* Frames of the torn commit itself may be whole, or just their headers: look past them. */
        do {
                rc = dfi_seg_resync(s, &p->part, pos, f.base, &f, &found, err);
                if (rc)
                        return rc;
                if (found && f.base - f.commit_delta > scan->at.offset)
                        return dfi_corrupt(&p->part, s, &scan->at, scan->why, err);
                f.base += f.count;
        } while (found);
        dfi_seg_path(&p->part, s->base, path);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return dfi_fail_open(err, path);
        if (ftruncate(fd, (off_t)pos) != 0)
                rc = df_fail_errno(err, DF_EIO, "cannot cut the torn tail of %s", path);
        (void)close(fd);
        w->recovery.cut_partitions++;
        w->recovery.cut_bytes += scan->size - pos;
        return rc;
}

static int sync_partition(struct dfi_writer *w, struct dfi_wpart *p, struct df_error *err)
{
        char path[DFI_PATH_MAX];
        int rc = 0, fd;

        if (p->have_seg) {
                dfi_seg_path(&p->part, p->seg_base, path);
                fd = open(path, O_RDWR | O_CLOEXEC);
                if (fd < 0)
                        return dfi_fail_open(err, path);
                if (w->log->hooks.sync_data(fd) != 0)
                        rc = dfi_sync_failed(w->log, path, err);
                (void)close(fd);
        }
        if (rc)
                return rc;
        dfi_part_dir(&p->part, path);
        return dfi_sync_dir(path, err);
}

/* The last segment's frames, or nothing; and the append time to go on from. */
static int scan_last(struct dfi_writer *w, struct dfi_wpart *p, struct dfi_seg *s,
                     const struct dfi_seg_list *list, const struct dfi_end *known,
                     struct df_error *err)
{
        uint64_t base = list->items[list->count - 1].base;
        uint64_t durable = known && known->seg_base == base ? known->pos : 0;
        struct scan scan;
        int rc = scan_segment(s, &p->part, base, &scan, err);

        if (rc)
                return rc;
        if (!scan.why && (scan.at.pos < durable || (known && scan.at.offset < known->offset)))
                return dfi_corrupt(&p->part, s, &scan.at, "durable bytes are missing", err);
        if (scan.why) {
                rc = judge_tail(w, p, s, &scan, durable, err);
                if (rc)
                        return rc;
        }
        p->have_seg = true;
        p->seg_base = base;
        p->start_pos = scan.at.pos;
        p->end = (struct dfi_end){.offset = scan.at.offset,
                                  .seg_base = base,
                                  .pos = scan.at.pos,
                                  .append_ms = scan.append_ms};
        if (scan.at.pos > 0 || list->count < 2)
                return 0;
        /* An empty last segment: its predecessor must lead up to it. */
        rc = scan_segment(s, &p->part, list->items[list->count - 2].base, &scan, err);
        if (rc == 0 && scan.why)
                rc = dfi_corrupt(&p->part, s, &scan.at, scan.why, err);
        if (rc == 0 && scan.at.offset != base)
                rc = dfi_corrupt(&p->part, s, &scan.at, "durable frames are missing", err);
        p->end.append_ms = scan.append_ms;
        return rc;
}

int dfi_recover(struct dfi_writer *w, struct dfi_wpart *p, struct df_error *err)
{
        struct dfi_seg seg = {.fd = -1, .chunk = SCAN_CHUNK};
        struct dfi_seg_list list = {0};
        struct dfi_end end = {0};
        bool known = false;
        int rc = dfi_end_open_writer(&p->part, &p->map, &end, &known, err);

        if (rc == 0)
                rc = dfi_seg_list(&p->part, &list, err);
        if (rc == 0 && known)
                rc = check_end(&p->part, &seg, &list, &end, err);
        if (rc == 0 && list.count)
                rc = scan_last(w, p, &seg, &list, known ? &end : NULL, err);
        if (rc == 0)
                rc = check_consumers(&p->part, p->end.offset, err);
        if (rc == 0)
                rc = sync_partition(w, p, err);
        if (rc == 0) {
                if (known && end.offset == p->end.offset && end.append_ms > p->end.append_ms)
                        p->end.append_ms = end.append_ms;
                dfi_end_write(&p->map, &p->end);
                dfi_end_mark_exact(&p->map);
                if (p->end.append_ms > w->last_ms)
                        w->last_ms = p->end.append_ms;
        }
        dfi_seg_list_release(&list);
        dfi_seg_release(&seg);
        return rc;
}
