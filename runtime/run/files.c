#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/run.h"

int df_mkdirs(const char *path, struct df_error *err)
{
        char part[PATH_MAX];
        size_t len = strlen(path);

        if (len == 0 || len >= sizeof(part))
                return df_fail(err, DF_EINVAL, "directory \"%s\": bad length", path);
        memcpy(part, path, len + 1);
        for (char *p = part + 1;; p++) {
                char c = *p;

                if (c != '/' && c != '\0')
                        continue;
                *p = '\0';
                if (mkdir(part, 0755) < 0 && errno != EEXIST)
                        return df_fail_errno(err, DF_EIO, "create directory %s", part);
                *p = c;
                if (c == '\0')
                        return 0;
        }
}

static int write_all(int fd, struct df_bytes b)
{
        while (b.len > 0) {
                ssize_t n = write(fd, b.data, b.len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -1;
                b.data += n;
                b.len -= (size_t)n;
        }
        return 0;
}

int df_sync_parent(const char *path, struct df_error *err)
{
        char dir[PATH_MAX];
        const char *slash = strrchr(path, '/');
        int fd, rc = 0;

        (void)snprintf(dir, sizeof(dir), "%.*s", slash ? (int)(slash - path) : 1,
                       slash ? path : ".");
        fd = open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
                rc = df_fail_errno(err, DF_EIO, "sync directory %s", dir);
        if (fd >= 0)
                close(fd);
        return rc;
}

int df_write_file(const char *path, struct df_bytes content, bool sync, struct df_error *err)
{
        char tmp[PATH_MAX];
        int fd, rc = 0;

        if (snprintf(tmp, sizeof(tmp), "%s.tmp", path) >= (int)sizeof(tmp))
                return df_fail(err, DF_EINVAL, "path %s is too long", path);
        fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "create %s", tmp);
        if (write_all(fd, content) < 0 || (sync && fsync(fd) < 0))
                rc = df_fail_errno(err, DF_EIO, "write %s", tmp);
        close(fd);
        if (rc == 0 && rename(tmp, path) < 0)
                rc = df_fail_errno(err, DF_EIO, "rename %s to %s", tmp, path);
        if (rc == 0 && sync)
                rc = df_sync_parent(path, err);
        if (rc < 0)
                (void)unlink(tmp); /* the first error counts */
        return rc;
}

int df_read_file(const char *path, size_t max_bytes, struct df_buf *ret, struct df_error *err)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC), rc = 0;
        ssize_t n = 1;

        if (fd < 0)
                return df_fail_errno(err, errno == ENOENT ? DF_ENOENT : DF_EIO, "open %s", path);
        while (n > 0 && rc == 0) {
                if (!df_buf_reserve(ret, 65536)) {
                        rc = df_buf_check(ret, err);
                        break;
                }
                n = read(fd, ret->data + ret->len, 65536);
                if (n < 0)
                        rc = df_fail_errno(err, DF_EIO, "read %s", path);
                else
                        ret->len += (size_t)n;
                if (ret->len > max_bytes)
                        rc = df_fail(err, DF_ELIMIT, "%s is larger than %zu bytes", path,
                                     max_bytes);
        }
        close(fd);
        return rc;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
        (void)st;
        (void)flag;
        (void)f;
        return remove(path);
}

int df_remove_tree(const char *path, struct df_error *err)
{
        if (nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) < 0 && errno != ENOENT)
                return df_fail_errno(err, DF_EIO, "remove %s", path);
        return 0;
}
