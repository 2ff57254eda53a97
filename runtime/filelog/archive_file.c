/* archive_file.c - an archive segment in a file of this machine. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/segment.h"

struct df_segment_file {
        int fd;
        char *path;
};

static int read_file(void *arg, uint64_t from, size_t len, struct df_buf *ret, struct df_error *err)
{
        struct df_segment_file *f = arg;

        if (!df_buf_reserve(ret, len))
                return df_buf_check(ret, err);
        while (len > 0) {
                ssize_t n = pread(f->fd, ret->data + ret->len, len, (off_t)from);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return df_fail_errno(err, DF_EIO, "read %s at byte %llu", f->path,
                                             (unsigned long long)from);
                if (n == 0)
                        return 0; /* shorter now: the reader names it */
                ret->len += (size_t)n;
                from += (uint64_t)n;
                len -= (size_t)n;
        }
        return 0;
}

int df_segment_file_open(const char *path, struct df_segment_file **ret,
                         struct df_segment_source *ret_source, struct df_error *err)
{
        struct df_segment_file *f = calloc(1, sizeof(*f));
        struct stat st = {0};
        int rc = 0;

        *ret = NULL;
        if (!f || !(f->path = strdup(path))) {
                free(f);
                return df_fail(err, DF_ENOMEM, "%s", path);
        }
        f->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (f->fd < 0 || fstat(f->fd, &st) < 0)
                rc = df_fail_errno(err, errno == ENOENT ? DF_ENOENT : DF_EIO, "open %s", path);
        else if (!S_ISREG(st.st_mode))
                rc = df_fail(err, DF_EINVAL, "%s is no file", path);
        if (rc < 0) {
                df_segment_file_close(f);
                return rc;
        }
        *ret_source = (struct df_segment_source){f->path, (uint64_t)st.st_size, read_file, f};
        *ret = f;
        return 0;
}

void df_segment_file_close(struct df_segment_file *f)
{
        if (!f)
                return;
        if (f->fd >= 0)
                (void)close(f->fd);
        free(f->path);
        free(f);
}
