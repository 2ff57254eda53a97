/* retain.c - deleting old segments, and saying who keeps them (L2). */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "filelog_private.h"

#define WALK_CHUNK 4096

static bool lives(const struct dfi_log *log, const struct dfi_registration *r)
{
        return r->lease_until_ms >= log->opt.clock_ms(log->opt.clock_arg);
}

/* The lowest position that living registrations other than `without` keep. */
static uint64_t lowest(const struct dfi_log *log, const struct dfi_registrations *regs,
                       uint32_t partition, const char *without)
{
        uint64_t low = UINT64_MAX;

        for (size_t i = 0; i < regs->count; i++) {
                const struct dfi_registration *r = &regs->items[i];

                if (r->partition != partition || !lives(log, r) ||
                    (without && strcmp(without, r->name) == 0))
                        continue;
                low = r->position < low ? r->position : low;
        }
        return low;
}

/* The largest append time of a closed segment; *ret_old is false as soon as one is not before. */
static int all_before(const struct dfi_part *part, uint64_t base, int64_t keep_from_ms,
                      bool *ret_old, struct df_error *err)
{
        struct dfi_seg seg = {.fd = -1, .chunk = WALK_CHUNK};
        struct dfi_seg_at at = {.offset = base, .header_only = true};
        int rc = dfi_seg_open(&seg, part, base, err);

        *ret_old = true;
        if (rc == 0)
                rc = dfi_seg_size(&seg, &at.limit, err);
        while (rc == 0 && *ret_old && at.pos < at.limit) {
                const uint8_t *payload;
                struct dfi_frame f;
                const char *why;

                rc = dfi_seg_frame(&seg, part, &at, &f, &payload, &why, err);
                if (rc == 0 && why)
                        rc = dfi_corrupt(part, &seg, &at, why, err);
                if (rc)
                        break;
                *ret_old = f.append_ms < keep_from_ms;
                at.pos += DFI_FRAME_HEADER + f.stored_len;
                at.offset += f.count;
        }
        dfi_seg_release(&seg);
        return rc;
}

static int retain_partition(const struct dfi_part *part, uint64_t low, int64_t keep_from_ms,
                            uint64_t *deleted, struct df_error *err)
{
        char dir[DFI_PATH_MAX], path[DFI_PATH_MAX];
        struct dfi_seg_list list = {0};
        int rc = dfi_seg_list(part, &list, err);

        dfi_part_dir(part, dir);
        for (size_t i = 0; rc == 0 && i + 1 < list.count && list.items[i + 1].base <= low; i++) {
                bool old;

                rc = all_before(part, list.items[i].base, keep_from_ms, &old, err);
                if (rc || !old)
                        break;
                dfi_seg_path(part, list.items[i].base, path);
                if (unlink(path) != 0 && errno != ENOENT)
                        rc = df_fail_errno(err, DF_EIO, "cannot remove %s", path);
                /* One by one: a power loss must not leave a hole between older and newer. */
                if (rc == 0)
                        rc = dfi_sync_dir(dir, err);
                if (rc == 0)
                        *deleted += list.items[i].bytes;
        }
        dfi_seg_list_release(&list);
        return rc;
}

int df_filelog_retain(struct df_log *base, const char *topic, int64_t keep_from_ms,
                      uint64_t *ret_deleted_bytes, struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        struct dfi_registrations regs = {0};
        uint64_t deleted = 0;
        struct dfi_topic t;
        int fd = -1;
        int rc = dfi_topic_load(log, topic, &t, err);

        if (rc == 0)
                rc = dfi_consumers_lock(&t, &fd, err);
        if (rc == 0)
                rc = dfi_consumers_load(&t, &regs, err);
        for (uint32_t i = 0; rc == 0 && i < t.info.partitions; i++) {
                struct dfi_part part = {.topic = &t, .index = i};

                rc = retain_partition(&part, lowest(log, &regs, i, NULL), keep_from_ms, &deleted,
                                      err);
        }
        dfi_consumers_release(&regs);
        (void)dfi_close(fd);
        if (rc == 0)
                *ret_deleted_bytes = deleted;
        return rc;
}

/* Bytes of the segments that end at or before low; never the newest. */
static uint64_t bytes_below(const struct dfi_seg_list *list, uint64_t low)
{
        uint64_t bytes = 0;

        for (size_t i = 0; i + 1 < list->count && list->items[i + 1].base <= low; i++)
                bytes += list->items[i].bytes;
        return bytes;
}

static int sum_topic(const struct dfi_log *log, const struct dfi_topic *t,
                     const struct dfi_registrations *regs, const char *consumer, uint64_t *ret,
                     struct df_error *err)
{
        uint64_t sum = 0;
        int rc = 0;

        for (uint32_t i = 0; rc == 0 && i < t->info.partitions; i++) {
                struct dfi_part part = {.topic = t, .index = i};
                struct dfi_seg_list list = {0};

                rc = dfi_seg_list(&part, &list, err);
                for (size_t k = 0; rc == 0 && !consumer && k < list.count; k++)
                        sum += list.items[k].bytes;
                if (rc == 0 && consumer)
                        sum += bytes_below(&list, lowest(log, regs, i, consumer)) -
                               bytes_below(&list, lowest(log, regs, i, NULL));
                dfi_seg_list_release(&list);
        }
        *ret = sum;
        return rc;
}

struct usage {
        struct dfi_log *log;
        int (*fn)(void *arg, const char *topic, const char *holder, uint64_t bytes);
        void *arg;
        struct df_error *err;
};

static int usage_topic(void *arg, const struct df_topic_info *info)
{
        struct usage *u = arg;
        struct dfi_registrations regs = {0};
        struct dfi_topic t;
        uint64_t bytes;
        int rc = dfi_topic_load(u->log, info->name, &t, u->err);

        if (rc == 0)
                rc = dfi_consumers_load(&t, &regs, u->err);
        if (rc == 0)
                rc = sum_topic(u->log, &t, &regs, NULL, &bytes, u->err);
        if (rc == 0)
                rc = u->fn(u->arg, info->name, "data", bytes);
        for (size_t i = 0; i < regs.count && rc == 0; i++) {
                char holder[DF_TOPIC_NAME_MAX + 16];

                if (i > 0 && strcmp(regs.items[i].name, regs.items[i - 1].name) == 0)
                        continue;
                rc = sum_topic(u->log, &t, &regs, regs.items[i].name, &bytes, u->err);
                (void)snprintf(holder, sizeof(holder), "consumer:%s", regs.items[i].name);
                if (rc == 0)
                        rc = u->fn(u->arg, info->name, holder, bytes);
        }
        dfi_consumers_release(&regs);
        return rc;
}

int df_filelog_usage(struct df_log *base,
                     int (*fn)(void *arg, const char *topic, const char *holder, uint64_t bytes),
                     void *arg, struct df_error *err)
{
        struct usage u = {.log = dfi_log_of(base), .fn = fn, .arg = arg, .err = err};

        return dfi_topic_list(base, "", usage_topic, &u, err);
}
