/* files.c - single files, made durable. */
#include "rocksdb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_BYTES (64u << 10)

int dfi_state_path(char ret[DFI_PATH_MAX], struct df_error *err, const char *fmt, ...)
{
        va_list args;

        va_start(args, fmt);
        int n = vsnprintf(ret, DFI_PATH_MAX, fmt, args);
        va_end(args);
        if (n < 0 || n >= DFI_PATH_MAX)
                return df_fail(err, DF_ELIMIT, "a path is longer than %d bytes: %.80s...",
                               DFI_PATH_MAX - 1, ret);
        return 0;
}

static int sync_path(const char *path, int flags, struct df_error *err)
{
        int r = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC | flags);

        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "cannot open %s", path);
        if (fsync(fd) < 0)
                r = df_fail_errno(err, DF_EIO, "cannot sync %s", path);
        (void)close(fd); /* opened for reading */
        return r;
}

int dfi_state_sync_dir(const char *path, struct df_error *err)
{
        return sync_path(path, O_DIRECTORY, err);
}

int dfi_sync_file(const char *path, struct df_error *err)
{
        return sync_path(path, 0, err);
}

int dfi_sync_parent(const char *path, struct df_error *err)
{
        char parent[DFI_PATH_MAX];

        int r = dfi_state_path(parent, err, "%s", path);
        if (r)
                return r;
        size_t len = strlen(parent);
        while (len > 1 && parent[len - 1] == '/')
                parent[--len] = '\0';
        char *slash = strrchr(parent, '/');
        if (!slash)
                return dfi_state_sync_dir(".", err);
        slash[slash == parent ? 1 : 0] = '\0';
        return dfi_state_sync_dir(parent, err);
}

int dfi_write_all(int fd, struct df_bytes content, const char *path, struct df_error *err)
{
        while (content.len) {
                ssize_t n = write(fd, content.data, content.len);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return df_fail_errno(err, DF_EIO, "cannot write %s", path);
                content.data += n;
                content.len -= (size_t)n;
        }
        return 0;
}

static int write_file(const char *path, int flags, struct df_bytes content, struct df_error *err)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0640);

        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "cannot create %s", path);
        int r = dfi_write_all(fd, content, path, err);
        if (r == 0 && fsync(fd) < 0)
                r = df_fail_errno(err, DF_EIO, "cannot sync %s", path);
        if (close(fd) < 0 && r == 0)
                r = df_fail_errno(err, DF_EIO, "cannot close %s", path);
        return r;
}

int dfi_create_file(const char *path, struct df_bytes content, struct df_error *err)
{
        return write_file(path, O_EXCL, content, err);
}

int dfi_replace_file(const char *dir, const char *name, struct df_bytes content,
                     struct df_error *err)
{
        char path[DFI_PATH_MAX], temporary[DFI_PATH_MAX];

        int r = dfi_state_path(path, err, "%s/%s", dir, name);
        if (r == 0)
                r = dfi_state_path(temporary, err, "%s/%s.tmp", dir, name);
        if (r == 0)
                r = write_file(temporary, O_TRUNC, content, err);
        if (r)
                return r;
        if (rename(temporary, path) < 0)
                return df_fail_errno(err, DF_EIO, "cannot rename %s", temporary);
        return dfi_state_sync_dir(dir, err);
}

int dfi_read_file(const char *path, size_t max, struct df_buf *ret, struct df_error *err)
{
        int r = 0;
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return df_fail_errno(err, errno == ENOENT ? DF_ENOENT : DF_EIO, "cannot open %s",
                                     path);
        const size_t start = ret->len;
        for (;;) {
                if (!df_buf_reserve(ret, COPY_BYTES)) {
                        r = df_buf_check(ret, err);
                        break;
                }
                ssize_t n = read(fd, ret->data + ret->len, COPY_BYTES);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        r = df_fail_errno(err, DF_EIO, "cannot read %s", path);
                if (n <= 0)
                        break;
                ret->len += (size_t)n;
                if (ret->len - start > max) {
                        r = df_fail(err, DF_ELIMIT, "%s is longer than %zu bytes", path, max);
                        break;
                }
        }
        (void)close(fd); /* opened for reading */
        return r;
}

static int copy_bytes(int in, int out, const char *from, const char *to, struct df_error *err)
{
        uint8_t block[COPY_BYTES];

        for (;;) {
                ssize_t n = read(in, block, sizeof(block));
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return df_fail_errno(err, DF_EIO, "cannot read %s", from);
                if (n == 0)
                        return 0;
                int r = dfi_write_all(out, df_bytes(block, (size_t)n), to, err);
                if (r)
                        return r;
        }
}

int dfi_copy_file(const char *from, const char *to, struct df_error *err)
{
        int in = open(from, O_RDONLY | O_CLOEXEC);

        if (in < 0)
                return df_fail_errno(err, DF_EIO, "cannot open %s", from);
        int r;
        int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
        if (out < 0) {
                r = df_fail_errno(err, DF_EIO, "cannot create %s", to);
        } else {
                r = copy_bytes(in, out, from, to, err);
                if (close(out) < 0 && r == 0)
                        r = df_fail_errno(err, DF_EIO, "cannot close %s", to);
        }
        (void)close(in); /* opened for reading */
        return r;
}

int dfi_link_file(const char *from, const char *to, struct df_error *err)
{
        if (link(from, to) == 0)
                return 0;
        if (errno == EXDEV || errno == EPERM || errno == EMLINK || errno == EOPNOTSUPP)
                return dfi_copy_file(from, to, err);
        return df_fail_errno(err, DF_EIO, "cannot link %s to %s", to, from);
}

bool dfi_is_sst(const char *name)
{
        size_t len = strlen(name);

        return len > 4 && strcmp(name + len - 4, ".sst") == 0;
}
