/* direct.c - a file written once from its beginning, past the page cache (rocksdb_private.h). */
#include "rocksdb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGN ((size_t)4096) /* of memory, places and lengths: no device asks for more */
#define BUFFER ((size_t)256 << 10)

int dfi_direct_create(struct dfi_direct *d, const char *path, struct df_error *err)
{
        const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
        int rc;

        *d = (struct dfi_direct){.fd = open(path, flags | O_DIRECT, 0640), .direct = true};
        if (d->fd < 0 && errno == EINVAL) { /* the file system has no such thing */
                (void)unlink(path);         /* some refuse only what they have created */
                *d = (struct dfi_direct){.fd = open(path, flags, 0640)};
        }
        if (d->fd < 0)
                return df_fail_errno(err, DF_EIO, "cannot create %s", path);
        d->buffer = aligned_alloc(ALIGN, BUFFER);
        rc = d->buffer ? 0 : df_fail(err, DF_ENOMEM, "a buffer of %zu bytes", BUFFER);
        if (rc == 0 && !(d->sha256 = df_sha256_new(err)))
                rc = DF_ENOMEM;
        if (rc) {
                dfi_direct_close(d);
                (void)unlink(path);
        }
        return rc;
}

static int through_cache(struct dfi_direct *d, const char *path, struct df_error *err)
{
        int flags = fcntl(d->fd, F_GETFL);

        d->direct = false;
        if (flags < 0 || fcntl(d->fd, F_SETFL, flags & ~O_DIRECT) < 0)
                return df_fail_errno(err, DF_EIO, "cannot write %s", path);
        return 0;
}

static int flush(struct dfi_direct *d, const char *path, struct df_error *err)
{
        size_t done = 0;
        int rc = df_sha256_add(d->sha256, df_bytes(d->buffer, d->len), err);

        if (rc)
                return rc;
        while (done < d->len) {
                ssize_t n;

                /* The end of a file, and what follows a write that was cut short. */
                if (d->direct && (done % ALIGN || d->len % ALIGN))
                        rc = through_cache(d, path, err);
                if (rc)
                        return rc;
                n = write(d->fd, d->buffer + done, d->len - done);
                if (n >= 0) {
                        done += (size_t)n;
                } else if (errno == EINVAL && d->direct) {
                        rc = through_cache(d, path, err);
                        if (rc)
                                return rc;
                } else if (errno != EINTR) {
                        return df_fail_errno(err, DF_EIO, "cannot write %s", path);
                }
        }
        d->bytes += d->len;
        d->len = 0;
        return 0;
}

int dfi_direct_write(struct dfi_direct *d, struct df_bytes content, const char *path,
                     struct df_error *err)
{
        while (content.len) {
                size_t n = BUFFER - d->len < content.len ? BUFFER - d->len : content.len;
                int rc = 0;

                memcpy(d->buffer + d->len, content.data, n);
                d->len += n;
                content.data += n;
                content.len -= n;
                if (d->len == BUFFER)
                        rc = flush(d, path, err);
                if (rc)
                        return rc;
        }
        return 0;
}

int dfi_direct_end(struct dfi_direct *d, const char *path, struct dfi_file *ret,
                   struct df_error *err)
{
        struct stat st;
        int rc = flush(d, path, err);

        if (rc == 0 && fstat(d->fd, &st) < 0)
                rc = df_fail_errno(err, DF_EIO, "cannot look at %s", path);
        if (rc == 0) {
                *ret = (struct dfi_file){.size_bytes = d->bytes, .inode = st.st_ino};
                rc = df_sha256_end(d->sha256, ret->digest, err);
                d->sha256 = NULL;
        }
        dfi_direct_close(d);
        return rc;
}

void dfi_direct_close(struct dfi_direct *d)
{
        if (d->fd >= 0)
                (void)close(d->fd); /* what was written is synced by its path */
        free(d->buffer);
        (void)df_sha256_end(d->sha256, NULL, NULL);
        *d = (struct dfi_direct){.fd = -1};
}
