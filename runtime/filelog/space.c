/* space.c - the disk: refuse early (L2), and keep a reserve for what must work on a full disk. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "filelog_private.h"

#define CHECK_EVERY_MS 100

static int64_t coarse_ms(void)
{
        struct timespec t;

        df_check(clock_gettime(CLOCK_MONOTONIC_COARSE, &t) == 0);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int refresh(struct dfi_writer *w, struct df_error *err)
{
        if (w->log->hooks.free_bytes(w->log->dir, &w->free_bytes) != 0)
                return df_fail_errno(err, DF_EIO, "cannot ask for the free space of %s",
                                     w->log->dir);
        w->free_checked_ms = coarse_ms();
        return 0;
}

/* The number is asked for at most every 100 ms and counted down in between; a refusal always
 * rests on a fresh number, so that freed space is seen by the next append. */
int dfi_space_check(struct dfi_writer *w, uint64_t bytes, struct df_error *err)
{
        uint64_t need = w->log->opt.min_free_bytes + bytes;
        bool fresh = w->free_checked_ms == 0 || coarse_ms() - w->free_checked_ms >= CHECK_EVERY_MS;
        int rc = 0;

        if (fresh)
                rc = refresh(w, err);
        if (rc == 0 && !fresh && w->free_bytes < need)
                rc = refresh(w, err);
        if (rc)
                return rc;
        if (w->free_bytes < need)
                return df_fail(err, DF_ENOSPC,
                               "topic %s: %s has %" PRIu64 " bytes free and must keep %" PRIu64
                               "; nothing was stored. Free space, then retry",
                               w->topic.info.name, w->log->dir, w->free_bytes,
                               w->log->opt.min_free_bytes);
        w->free_bytes -= bytes;
        return 0;
}

static uint64_t reserve_size(const char *path)
{
        struct stat st;

        return stat(path, &st) == 0 ? (uint64_t)st.st_size : 0;
}

int df_filelog_reserve_free(struct df_log *base, uint64_t *ret_freed_bytes, struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        char path[DFI_PATH_MAX];
        uint64_t size;

        dfi_path(path, "%s/RESERVE", log->dir);
        size = reserve_size(path);
        if (unlink(path) != 0 && errno != ENOENT)
                return df_fail_errno(err, DF_EIO, "cannot remove %s", path);
        *ret_freed_bytes = size;
        return dfi_sync_dir(log->dir, err);
}

int df_filelog_reserve_restore(struct df_log *base, struct df_error *err)
{
        struct dfi_log *log = dfi_log_of(base);
        uint64_t size = log->opt.reserve_bytes;
        uint64_t held, free_bytes;
        char path[DFI_PATH_MAX];
        int fd, rc = 0;

        dfi_path(path, "%s/RESERVE", log->dir);
        held = reserve_size(path);
        if (held >= size)
                return 0;
        if (log->hooks.free_bytes(log->dir, &free_bytes) != 0)
                return df_fail_errno(err, DF_EIO, "cannot ask for the free space of %s", log->dir);
        if (free_bytes < log->opt.min_free_bytes + (size - held))
                return df_fail(err, DF_ENOSPC,
                               "%" PRIu64 " bytes free in %s are too few for a reserve file of "
                               "%" PRIu64,
                               free_bytes, log->dir, size);
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        if (fd < 0)
                return dfi_fail_open(err, path);
        errno = posix_fallocate(fd, 0, (off_t)size);
        if (errno != 0)
                rc = df_fail_errno(err, DF_EIO, "cannot allocate %" PRIu64 " bytes for %s", size,
                                   path);
        else if (fsync(fd) != 0)
                rc = df_fail_errno(err, DF_EIO, "cannot sync %s", path);
        (void)close(fd);
        if (rc)
                (void)unlink(path); /* a part of a reserve would only hide the problem */
        return rc ? rc : dfi_sync_dir(log->dir, err);
}

void dfi_reserve_ensure(struct dfi_log *log)
{
        (void)df_filelog_reserve_restore(&log->base, NULL);
}
