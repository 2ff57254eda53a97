/* consumer.c - registered readers: consumers/<name>/<partition>, replaced atomically.
 *
 * consumers/.lock orders registering against retention: a reader that registered has its data. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/hash.h"
#include "filelog_private.h"

#define TEXT_MAX 256
#define RENEW_SHARE 16 /* a release that moves nothing writes only after this part of the lease */

int dfi_consumers_lock(const struct dfi_topic *topic, int *ret_fd, struct df_error *err)
{
        char path[DFI_PATH_MAX];

        dfi_path(path, "%s/consumers/.lock", topic->dir);
        return dfi_lock(path, true, ret_fd, err);
}

static int format(char *out, uint64_t position, int64_t lease_until_ms)
{
        int n = snprintf(out, TEXT_MAX,
                         "adtally-consumer 1\nposition %" PRIu64 "\nlease_until_ms %" PRId64 "\n",
                         position, lease_until_ms);

        return n + snprintf(out + n, TEXT_MAX - (size_t)n, "crc %08" PRIx32 "\n",
                            df_crc32c(0, df_bytes(out, (size_t)n)));
}

static int load_one(const struct dfi_topic *topic, struct dfi_registration *reg,
                    struct df_error *err)
{
        char path[DFI_PATH_MAX], text[TEXT_MAX], again[TEXT_MAX];
        size_t len;
        int rc;

        dfi_path(path, "%s/consumers/%s/%u", topic->dir, reg->name, reg->partition);
        rc = dfi_file_read(path, text, sizeof(text), &len, err);
        if (rc)
                return rc;
        reg->position = 0;
        reg->lease_until_ms = 0;
        (void)sscanf(text, "adtally-consumer 1\nposition %" SCNu64 "\nlease_until_ms %" SCNd64,
                     &reg->position, &reg->lease_until_ms);
        (void)format(again, reg->position, reg->lease_until_ms);
        if (strcmp(again, text) != 0)
                return df_fail(err, DF_ECORRUPT,
                               "%s is damaged, so nothing may be deleted; remove it with adtally "
                               "consumers drop",
                               path);
        return 0;
}

static int regs_add(struct dfi_registrations *regs, const struct dfi_registration *reg,
                    struct df_error *err)
{
        if (regs->count == regs->cap) {
                size_t cap = regs->cap ? regs->cap * 2 : 16;
                struct dfi_registration *items = realloc(regs->items, cap * sizeof(*items));

                if (!items)
                        return df_fail(err, DF_ENOMEM, "no memory to list %zu consumers", cap);
                regs->items = items;
                regs->cap = cap;
        }
        regs->items[regs->count++] = *reg;
        return 0;
}

static int compare_regs(const void *a, const void *b)
{
        const struct dfi_registration *x = a, *y = b;
        int c = strcmp(x->name, y->name);

        return c ? c : (x->partition > y->partition) - (x->partition < y->partition);
}

int dfi_consumers_load(const struct dfi_topic *topic, struct dfi_registrations *ret,
                       struct df_error *err)
{
        struct dfi_registrations regs = {0};
        char path[DFI_PATH_MAX];
        struct dirent *e;
        DIR *dir;
        int rc = 0;

        dfi_path(path, "%s/consumers", topic->dir);
        dir = opendir(path);
        if (!dir)
                return dfi_fail_open(err, path);
        while (rc == 0 && (e = readdir(dir))) {
                struct dfi_registration reg = {0};

                if (!dfi_name_ok(e->d_name))
                        continue;
                memcpy(reg.name, e->d_name, strlen(e->d_name) + 1);
                for (uint32_t i = 0; i < topic->info.partitions && rc == 0; i++) {
                        reg.partition = i;
                        rc = load_one(topic, &reg, err);
                        if (rc == 0)
                                rc = regs_add(&regs, &reg, err);
                        else if (rc == DF_ENOENT)
                                rc = 0;
                }
        }
        (void)closedir(dir);
        if (rc) {
                dfi_consumers_release(&regs);
                return rc;
        }
        if (regs.count)
                qsort(regs.items, regs.count, sizeof(*regs.items), compare_regs);
        *ret = regs;
        return 0;
}

void dfi_consumers_release(struct dfi_registrations *regs)
{
        free(regs->items);
        *regs = (struct dfi_registrations){0};
}

int dfi_consumer_write(struct dfi_reader *r, uint64_t position, struct df_error *err)
{
        int64_t until = r->log->opt.clock_ms(r->log->opt.clock_arg) + r->log->opt.lease_ms;
        char dir[DFI_PATH_MAX], parent[DFI_PATH_MAX], name[16], tmp[24], text[TEXT_MAX];
        int n = format(text, position, until);
        int rc;

        dfi_path(parent, "%s/consumers", r->topic.dir);
        dfi_path(dir, "%s/consumers/%s", r->topic.dir, r->consumer);
        (void)snprintf(name, sizeof(name), "%u", r->part.index);
        (void)snprintf(tmp, sizeof(tmp), ".%u.tmp", r->part.index);
        rc = dfi_file_replace(dir, tmp, name, text, (size_t)n, err);
        if (rc == DF_ENOENT) {
                rc = dfi_mkdir(dir, err);
                if (rc == 0)
                        rc = dfi_sync_dir(parent, err);
                if (rc == 0)
                        rc = dfi_file_replace(dir, tmp, name, text, (size_t)n, err);
        }
        if (rc == 0) {
                r->registered = position;
                r->lease_until_ms = until;
        }
        return rc;
}

/* Under the lock: either retention sees the registration, or we see that the data is gone. */
int dfi_consumer_register(struct dfi_reader *r, struct df_error *err)
{
        struct dfi_registration reg = {.partition = r->part.index};
        uint64_t position = r->want;
        int fd = -1;
        int rc = dfi_consumers_lock(&r->topic, &fd, err);

        if (rc)
                return rc;
        rc = dfi_reader_seek(r, err);
        if (rc == 0) {
                memcpy(reg.name, r->consumer, sizeof(reg.name));
                rc = load_one(&r->topic, &reg, err);
                if (rc == 0 && reg.position < position)
                        position = reg.position;
                if (rc == 0 || rc == DF_ENOENT)
                        rc = dfi_consumer_write(r, position, err);
        }
        (void)dfi_close(fd);
        return rc;
}

int dfi_release(struct df_log_reader *base, uint64_t offset, struct df_error *err)
{
        struct dfi_reader *r = dfi_reader_of(base);
        int64_t left;

        if (!r->consumer[0])
                return df_fail(err, DF_EINVAL,
                               "topic %s partition %u: release by a reader without a consumer name",
                               r->topic.info.name, r->part.index);
        if (!dfi_end_read(&r->map, &r->end) || offset > r->end.offset)
                return df_fail(err, DF_EINVAL,
                               "topic %s partition %u: consumer %s releases offset %" PRIu64
                               ", beyond the durable end %" PRIu64,
                               r->topic.info.name, r->part.index, r->consumer, offset,
                               r->end.offset);
        left = r->lease_until_ms - r->log->opt.clock_ms(r->log->opt.clock_arg);
        if (offset <= r->registered &&
            left > r->log->opt.lease_ms - r->log->opt.lease_ms / RENEW_SHARE)
                return 0;
        return dfi_consumer_write(r, offset > r->registered ? offset : r->registered, err);
}

int df_filelog_consumer_drop(struct df_log *base, const char *topic, const char *name,
                             struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        char dir[DFI_PATH_MAX], parent[DFI_PATH_MAX], path[DFI_PATH_MAX];
        struct dfi_topic t;
        int fd = -1;
        int rc = dfi_topic_load(log, topic, &t, err);

        if (rc)
                return rc;
        if (!dfi_name_ok(name))
                return df_fail(err, DF_EINVAL, "consumer name \"%.80s\" is not acceptable", name);
        rc = dfi_consumers_lock(&t, &fd, err);
        if (rc)
                return rc;
        dfi_path(parent, "%s/consumers", t.dir);
        dfi_path(dir, "%s/%s", parent, name);
        for (uint32_t i = 0; i < t.info.partitions; i++) {
                dfi_path(path, "%s/%u", dir, i);
                (void)unlink(path); /* rmdir tells whether anything stayed */
                dfi_path(path, "%s/.%u.tmp", dir, i);
                (void)unlink(path);
        }
        if (rmdir(dir) == 0)
                rc = dfi_sync_dir(parent, err);
        else if (errno == ENOENT)
                rc = df_fail(err, DF_ENOENT, "topic %s has no consumer %s", topic, name);
        else
                rc = df_fail_errno(err, DF_EIO, "cannot remove %s", dir);
        (void)dfi_close(fd);
        return rc;
}
