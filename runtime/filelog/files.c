#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/hash.h"
#include "filelog_private.h"

void dfi_path(char out[DFI_PATH_MAX], const char *fmt, ...)
{
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(out, DFI_PATH_MAX, fmt, ap);
        va_end(ap);
        df_check(n > 0 && n < DFI_PATH_MAX); /* DFI_DIR_MAX and the name limits see to it */
}

void dfi_part_dir(const struct dfi_part *part, char out[DFI_PATH_MAX])
{
        dfi_path(out, "%s/%u", part->topic->dir, part->index);
}

int dfi_mkdir(const char *path, struct df_error *err)
{
        if (mkdir(path, 0755) == 0 || errno == EEXIST)
                return 0;
        return df_fail_errno(err, DF_EIO, "cannot create directory %s", path);
}

int dfi_close(int fd)
{
        if (fd >= 0)
                (void)close(fd); /* what matters was synced before */
        return -1;
}

int dfi_fail_open(struct df_error *err, const char *path)
{
        if (errno == ENOENT)
                return df_fail(err, DF_ENOENT, "%s does not exist", path);
        if (errno == EMFILE || errno == ENFILE)
                return df_fail_errno(err, DF_EAGAIN, "cannot open %s; raise the limit (ulimit -n)",
                                     path);
        return df_fail_errno(err, DF_EIO, "cannot open %s", path);
}

int dfi_sync_dir(const char *path, struct df_error *err)
{
        int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int rc = 0;

        if (fd < 0)
                return dfi_fail_open(err, path);
        if (fsync(fd) != 0)
                rc = df_fail_errno(err, DF_EIO, "cannot sync directory %s", path);
        (void)close(fd);
        return rc;
}

ssize_t dfi_pread_all(int fd, void *out, size_t len, uint64_t pos)
{
        size_t done = 0;

        while (done < len) {
                ssize_t n = pread(fd, (uint8_t *)out + done, len - done, (off_t)(pos + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -1;
                if (n == 0)
                        break;
                done += (size_t)n;
        }
        return (ssize_t)done;
}

int dfi_file_read(const char *path, char *out, size_t cap, size_t *ret_len, struct df_error *err)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;

        if (fd < 0)
                return dfi_fail_open(err, path);
        n = dfi_pread_all(fd, out, cap, 0);
        if (n < 0) {
                int rc = df_fail_errno(err, DF_EIO, "cannot read %s", path);

                (void)close(fd);
                return rc;
        }
        (void)close(fd);
        if ((size_t)n == cap)
                return df_fail(err, DF_ELIMIT, "%s is larger than %zu bytes", path, cap - 1);
        out[n] = 0;
        *ret_len = (size_t)n;
        return 0;
}

static int write_whole(int fd, const void *data, size_t len)
{
        for (size_t done = 0; done < len;) {
                ssize_t n = write(fd, (const uint8_t *)data + done, len - done);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -1;
                done += (size_t)n;
        }
        return 0;
}

int dfi_file_replace(const char *dir, const char *tmp, const char *name, const void *data,
                     size_t len, struct df_error *err)
{
        char from[DFI_PATH_MAX], to[DFI_PATH_MAX];
        int rc = 0, fd;

        dfi_path(from, "%s/%s", dir, tmp);
        dfi_path(to, "%s/%s", dir, name);
        fd = open(from, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
                return dfi_fail_open(err, from);
        if (write_whole(fd, data, len) != 0)
                rc = df_fail_errno(err, DF_EIO, "cannot write %s", from);
        else if (fsync(fd) != 0)
                rc = df_fail_errno(err, DF_EIO, "cannot sync %s", from);
        (void)close(fd);
        if (rc == 0 && rename(from, to) != 0)
                rc = df_fail_errno(err, DF_EIO, "cannot rename %s to %s", from, to);
        if (rc) {
                (void)unlink(from); /* the first error counts */
                return rc;
        }
        return dfi_sync_dir(dir, err);
}

uint64_t dfi_boot_id(void)
{
        char text[64];
        size_t len;

        if (dfi_file_read("/proc/sys/kernel/random/boot_id", text, sizeof(text), &len, NULL) != 0)
                return 0;
        return df_hash64(df_bytes(text, len));
}

int dfi_lock(const char *path, bool wait, int *ret_fd, struct df_error *err)
{
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
        int rc;

        if (fd < 0)
                return dfi_fail_open(err, path);
        while (flock(fd, wait ? LOCK_EX : LOCK_EX | LOCK_NB) != 0) {
                if (errno == EINTR)
                        continue;
                if (errno == EWOULDBLOCK)
                        rc = df_fail(err, DF_EFENCED,
                                     "%s is locked: another process is the writer of this topic",
                                     path);
                else
                        rc = df_fail_errno(err, DF_EIO, "cannot lock %s", path);
                (void)close(fd);
                return rc;
        }
        *ret_fd = fd;
        return 0;
}

int dfi_sync_failed(const struct dfi_log *log, const char *what, struct df_error *err)
{
        struct df_error cause = {0};
        char line[DF_ERROR_TEXT_MAX + 200];

        (void)df_fail_errno(&cause, DF_EIO, "cannot make %s durable", what);
        (void)snprintf(line, sizeof(line),
                       "%s; what the disk holds is unknown and a retry would lie, so the process "
                       "ends (exit %d). Check the disk, then start again.\n",
                       cause.text, DFI_EXIT_SYNC_FAILED);
        log->hooks.die(line);
        return df_fail(err, DF_EIO, "%s", cause.text);
}
