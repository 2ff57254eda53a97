/* direct.c - a file written once from its beginning, past the page cache (rocksdb_private.h). */
#include "rocksdb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALIGN ((size_t)4096) /* of memory, places and lengths: no device asks for more */
#define PIECE ((size_t)256 << 10)

/* Where it lies is known to the thread that writes a piece: it is not moved. */
struct dfi_direct {
        int fd;
        bool direct;
        uint8_t *memory;  /* two pieces */
        unsigned filling; /* which of them */
        size_t len;       /* in it */
        uint64_t bytes;   /* before it */
        struct aiocb io;  /* of the other one, */
        bool under_way;   /* while it is being written */
        struct df_sha256_stream *sha256;
};

static int open_new(struct dfi_direct *d, const char *path, struct df_error *err)
{
        const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;

        d->fd = open(path, flags | O_DIRECT, 0640);
        d->direct = d->fd >= 0;
        if (d->fd < 0 && errno == EINVAL) { /* the file system has no such thing */
                (void)unlink(path);         /* some refuse only what they have created */
                d->fd = open(path, flags, 0640);
        }
        return d->fd < 0 ? df_fail_errno(err, DF_EIO, "cannot create %s", path) : 0;
}

int dfi_direct_create(const char *path, struct dfi_direct **ret, struct df_error *err)
{
        struct dfi_direct *d = calloc(1, sizeof(*d));
        int rc;

        if (!d)
                return df_fail(err, DF_ENOMEM, "no memory to write %s", path);
        rc = open_new(d, path, err);
        if (rc) {
                dfi_direct_close(d);
                return rc;
        }
        d->memory = aligned_alloc(ALIGN, 2 * PIECE);
        rc = d->memory ? 0 : df_fail(err, DF_ENOMEM, "a buffer of %zu bytes", 2 * PIECE);
        if (rc == 0 && !(d->sha256 = df_sha256_new(err)))
                rc = DF_ENOMEM;
        if (rc) {
                dfi_direct_close(d);
                (void)unlink(path);
                return rc;
        }
        *ret = d;
        return 0;
}

static int through_cache(struct dfi_direct *d, const char *path, struct df_error *err)
{
        int flags = fcntl(d->fd, F_GETFL);

        d->direct = false;
        if (flags < 0 || fcntl(d->fd, F_SETFL, flags & ~O_DIRECT) < 0)
                return df_fail_errno(err, DF_EIO, "cannot write %s", path);
        return 0;
}

/* Plainly, from `done` on. */
static int write_rest(struct dfi_direct *d, const uint8_t *piece, size_t len, size_t done,
                      uint64_t at, const char *path, struct df_error *err)
{
        while (done < len) {
                ssize_t n;
                int rc = 0;

                /* The end of a file, and what follows a write that was cut short. */
                if (d->direct && (done % ALIGN || len % ALIGN))
                        rc = through_cache(d, path, err);
                if (rc)
                        return rc;
                n = pwrite(d->fd, piece + done, len - done, (off_t)(at + done));
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
        return 0;
}

/* The piece before the one that is being filled is in the file. */
static int settle(struct dfi_direct *d, const char *path, struct df_error *err)
{
        const uint8_t *piece = d->memory + (1 - d->filling) * PIECE;
        ssize_t n;

        if (!d->under_way)
                return 0;
        d->under_way = false;
        n = dfi_aio_wait(&d->io);
        return write_rest(d, piece, PIECE, n > 0 ? (size_t)n : 0, d->bytes - PIECE, path, err);
}

static bool begin(struct dfi_direct *d, uint8_t *piece)
{
        dfi_aio_init();
        d->io = (struct aiocb){.aio_fildes = d->fd,
                               .aio_offset = (off_t)d->bytes,
                               .aio_buf = piece,
                               .aio_nbytes = PIECE,
                               .aio_sigevent.sigev_notify = SIGEV_NONE};
        d->under_way = aio_write(&d->io) == 0;
        return d->under_way;
}

static int flush(struct dfi_direct *d, const char *path, struct df_error *err)
{
        uint8_t *piece = d->memory + d->filling * PIECE;
        int rc = df_sha256_add(d->sha256, df_bytes(piece, d->len), err);

        if (rc == 0)
                rc = settle(d, path, err);
        if (rc == 0 && !(d->direct && d->len == PIECE && begin(d, piece)))
                rc = write_rest(d, piece, d->len, 0, d->bytes, path, err);
        if (rc)
                return rc;
        d->bytes += d->len;
        d->len = 0;
        d->filling = 1 - d->filling;
        return 0;
}

int dfi_direct_write(struct dfi_direct *d, struct df_bytes content, const char *path,
                     struct df_error *err)
{
        while (content.len) {
                size_t n = PIECE - d->len < content.len ? PIECE - d->len : content.len;
                int rc = 0;

                memcpy(d->memory + d->filling * PIECE + d->len, content.data, n);
                d->len += n;
                content.data += n;
                content.len -= n;
                if (d->len == PIECE)
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
        int rc = flush(d, path, err); /* less than a piece: nothing is under way after it */

        if (rc == 0 && fstat(d->fd, &st) < 0)
                rc = df_fail_errno(err, DF_EIO, "cannot look at %s", path);
        if (rc == 0) {
                *ret = (struct dfi_file){.size_bytes = d->bytes, .inode = st.st_ino};
                rc = df_sha256_end(d->sha256, ret->digest, err);
                d->sha256 = NULL;
        }
        return rc;
}

void dfi_direct_close(struct dfi_direct *d)
{
        if (!d)
                return;
        if (d->under_way)
                (void)dfi_aio_wait(&d->io); /* it reads our memory */
        if (d->fd >= 0)
                (void)close(d->fd); /* what was written is synced by its path */
        free(d->memory);
        (void)df_sha256_end(d->sha256, NULL, NULL);
        free(d);
}
