#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "filelog_private.h"

#define MIB (1024ull * 1024)
#define DAY_MS (24 * 3600 * 1000ll)
#define FILES_WANTED 65536

static int64_t wall_ms(void *arg)
{
        struct timespec t;

        (void)arg;
        df_check(clock_gettime(CLOCK_REALTIME, &t) == 0);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int os_free_bytes(const char *dir, uint64_t *ret)
{
        struct statvfs st;

        if (statvfs(dir, &st) != 0)
                return -1;
        *ret = (uint64_t)st.f_bavail * st.f_frsize;
        return 0;
}

static void os_die(const char *line)
{
        if (write(STDERR_FILENO, line, strlen(line)) < 0) {
                /* nobody to tell */
        }
        _exit(DFI_EXIT_SYNC_FAILED);
}

/* A partition is an open file for each writer and reader: use what the system allows us. */
static void raise_file_limit(void)
{
        struct rlimit lim;

        if (getrlimit(RLIMIT_NOFILE, &lim) != 0 || lim.rlim_cur >= FILES_WANTED)
                return;
        lim.rlim_cur = lim.rlim_max < FILES_WANTED ? lim.rlim_max : FILES_WANTED;
        (void)setrlimit(RLIMIT_NOFILE, &lim); /* without it: DF_EAGAIN names the limit */
}

static int make_dirs(const char *dir, struct df_error *err)
{
        char path[DFI_PATH_MAX];
        size_t n = strlen(dir);

        for (size_t i = 1; i <= n; i++) {
                int rc;

                if (i < n && dir[i] != '/')
                        continue;
                dfi_path(path, "%.*s", (int)i, dir);
                rc = dfi_mkdir(path, err);
                if (rc)
                        return rc;
        }
        dfi_path(path, "%s/topics", dir);
        return dfi_mkdir(path, err);
}

static void fill_options(struct df_filelog_options *o)
{
        if (!o->segment_bytes)
                o->segment_bytes = 64 * MIB;
        if (!o->reserve_bytes)
                o->reserve_bytes = 64 * MIB;
        if (!o->min_free_bytes)
                o->min_free_bytes = 128 * MIB;
        if (!o->zstd_level)
                o->zstd_level = 1;
        if (!o->lease_ms)
                o->lease_ms = 7 * DAY_MS;
        if (!o->clock_ms)
                o->clock_ms = wall_ms;
}

static void log_close(struct df_log *base)
{
        free(dfi_log_of(base));
}

static const struct df_log_ops filelog_ops;

int df_filelog_open(const char *dir, const struct df_filelog_options *options, struct df_log **ret,
                    struct df_error *err)
{
        struct dfi_log *log;
        size_t len = strlen(dir);
        int rc;

        while (len > 1 && dir[len - 1] == '/')
                len--;
        if (len == 0 || len > DFI_DIR_MAX)
                return df_fail(err, DF_ELIMIT,
                               "the log directory's name has %zu bytes, not 1 to %d", len,
                               DFI_DIR_MAX);
        log = calloc(1, sizeof(*log));
        if (!log)
                return df_fail(err, DF_ENOMEM, "no memory to open the log");
        log->base.ops = &filelog_ops;
        if (options)
                log->opt = *options;
        fill_options(&log->opt);
        log->hooks = (struct dfi_hooks){.write_at = pwrite,
                                        .sync_data = fdatasync,
                                        .free_bytes = os_free_bytes,
                                        .die = os_die};
        memcpy(log->dir, dir, len);
        rc = make_dirs(log->dir, err);
        if (rc) {
                free(log);
                return rc;
        }
        raise_file_limit();
        *ret = &log->base;
        return 0;
}

struct dfi_log *dfi_log_of(struct df_log *log)
{
        df_check(log->ops == &filelog_ops);
        return (struct dfi_log *)log;
}

_Static_assert(offsetof(struct dfi_log, base) == 0, "downcast");

static const struct df_log_ops filelog_ops = {
        .topic_create = dfi_topic_create,
        .topic_list = dfi_topic_list,
        .writer_open = dfi_writer_open,
        .append = dfi_append,
        .writer_close = dfi_writer_close,
        .reader_open = dfi_reader_open,
        .poll = dfi_poll,
        .release = dfi_release,
        .position = dfi_position,
        .bounds = dfi_bounds,
        .offset_at = dfi_offset_at,
        .topic_delete = dfi_topic_delete,
        .reader_close = dfi_reader_close,
        .close = log_close,
};
