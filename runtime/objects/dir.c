/* dir.c - the object store in a directory: an object is a file, its version the hash of its bytes.
 *
 *   ROOT/<name>            an object, whole: written elsewhere and durable before it got here
 *   ROOT/.tmp-<random>     one on its way; of a writer who died: removed at an open a day later
 *   ROOT/.lock             flock: a put_match's comparison and rename are one step to other
 *                          put_match and remove. put_absent needs none: link(2) decides.
 *
 * Names have no part that begins with '.', so none of these is ever an object's.
 */
#include "objects_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "df/sha256.h"

#define RANDOM_BYTES 12
#define TEMPORARY_MAX (sizeof(DFI_DIR_TEMPORARY) + 2 * RANDOM_BYTES)
#define READ_MAX (1u << 20)

static struct dfi_dir *dir_of(struct df_objects *o)
{
        return (struct dfi_dir *)(void *)o;
}

static void close_quietly(int fd)
{
        int saved = errno;

        if (fd >= 0)
                (void)close(fd);
        errno = saved;
}

static int failed(const struct dfi_dir *d, const char *what, const char *name, struct df_error *err)
{
        if (errno == ENOTDIR || errno == EISDIR)
                return df_fail(err, DF_EINVAL,
                               "%s: %s %s: a name is an object or a folder of others, never both",
                               d->place, what, name);
        return df_fail_errno(err, errno == ENOENT ? DF_ENOENT : DF_EIO, "%s: %s %s", d->place, what,
                             name);
}

/* ---- directories ---- */

static int sync_dir(const struct dfi_dir *d, const char *path, struct df_error *err)
{
        int fd = openat(d->root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int rc = 0;

        if (fd < 0 || d->sync(fd) != 0)
                rc = failed(d, "make durable the directory", path, err);
        close_quietly(fd);
        return rc;
}

/* Each directory above name, from the inner to the root: also those that another writer made and
 * may not have made durable yet. */
static int sync_above(const struct dfi_dir *d, const char *name, struct df_error *err)
{
        char path[DF_OBJECT_NAME_MAX + 1];
        int rc = 0;

        (void)snprintf(path, sizeof(path), "%s", name);
        for (char *slash = strrchr(path, '/'); rc == 0 && slash; slash = strrchr(path, '/')) {
                *slash = '\0';
                rc = sync_dir(d, path, err);
        }
        return rc ? rc : sync_dir(d, ".", err);
}

/* After the object is in its place: what fails now leaves it there. */
static int settle(const struct dfi_dir *d, const char *name, struct df_error *err)
{
        if (sync_above(d, name, err) == 0)
                return 0;
        return df_fail(err, DF_EDOUBT,
                       "%s: %s is stored, but its directory could not be made durable: ask with "
                       "get before it is repeated",
                       d->place, name);
}

static int make_above(const struct dfi_dir *d, const char *name, struct df_error *err)
{
        char path[DF_OBJECT_NAME_MAX + 1];

        for (const char *slash = strchr(name, '/'); slash; slash = strchr(slash + 1, '/')) {
                (void)snprintf(path, sizeof(path), "%.*s", (int)(slash - name), name);
                if (mkdirat(d->root, path, 0777) != 0 && errno != EEXIST)
                        return failed(d, "make the directory", path, err);
        }
        return 0;
}

/* ---- temporary files ---- */

static int write_all(const struct dfi_dir *d, int fd, struct df_bytes data)
{
        while (data.len > 0) {
                ssize_t n = d->write(fd, data.data, data.len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        errno = n == 0 ? EIO : errno;
                        return -1;
                }
                data = df_bytes(data.data + n, data.len - (size_t)n);
        }
        return 0;
}

/* A durable file with data; its name in tmp. The caller removes it, and closes *ret_fd. */
static int write_temporary(const struct dfi_dir *d, const char *name, struct df_bytes data,
                           char tmp[TEMPORARY_MAX], int *ret_fd, struct df_error *err)
{
        char random[2 * RANDOM_BYTES + 1];
        int rc = dfi_object_fits(d->place, name, data.len, err);
        int fd;

        if (rc == 0)
                rc = dfi_object_random(RANDOM_BYTES, random, err);
        if (rc != 0)
                return rc;
        (void)snprintf(tmp, TEMPORARY_MAX, "%s%s", DFI_DIR_TEMPORARY, random);
        fd = openat(d->root, tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0)
                return failed(d, "make a file for", name, err);
        if (write_all(d, fd, data) != 0 || d->sync(fd) != 0) {
                rc = failed(d, "write", name, err);
                close_quietly(fd);
                (void)unlinkat(d->root, tmp, 0);
                return rc;
        }
        *ret_fd = fd;
        return 0;
}

/* What writers left who died on the way. Those of living ones are younger. */
static int remove_left_over(const struct dfi_dir *d, struct df_error *err)
{
        int fd = openat(d->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        struct dirent *e;

        if (!dir) {
                int rc = failed(d, "read", "the directory", err);

                close_quietly(fd);
                return rc;
        }
        while ((e = readdir(dir))) {
                struct stat st;

                if (strncmp(e->d_name, DFI_DIR_TEMPORARY, strlen(DFI_DIR_TEMPORARY)) == 0 &&
                    fstatat(d->root, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                    S_ISREG(st.st_mode) && time(NULL) - st.st_mtime > DFI_DIR_TEMPORARY_MAX_S)
                        (void)unlinkat(d->root, e->d_name, 0); /* another open was quicker */
        }
        (void)closedir(dir);
        return 0;
}

/* ---- put_absent ---- */

/* Gives the temporary file the name, unless it is taken: errno EEXIST. */
static int place_absent(const struct dfi_dir *d, const char *tmp, int fd, const char *name)
{
        struct stat st;

        if (linkat(d->root, tmp, d->root, name, 0) == 0)
                return 0;
        /* A network file system may have done it and lost the answer. */
        if (errno == EEXIST && fstat(fd, &st) == 0 && st.st_nlink == 2)
                return 0;
        if (errno != EPERM && errno != EOPNOTSUPP && errno != ENOSYS && errno != EMLINK)
                return -1;
        /* One without hard links. */
        return renameat2(d->root, tmp, d->root, name, RENAME_NOREPLACE);
}

static int there_is_one(const struct dfi_dir *d, const char *name, struct df_error *err)
{
        struct stat st;
        int rc;

        if (fstatat(d->root, name, &st, 0) == 0 && S_ISDIR(st.st_mode)) {
                errno = EISDIR;
                return failed(d, "store", name, err);
        }
        rc = sync_above(d, name, err); /* whoever stored it may not have come so far */
        return rc ? rc : df_fail(err, DF_EEXIST, "%s: there is an object %s", d->place, name);
}

static int dir_put_absent(struct df_objects *o, const char *name, struct df_bytes data,
                          struct df_error *err)
{
        struct dfi_dir *d = dir_of(o);
        char tmp[TEMPORARY_MAX];
        int fd = -1, rc = dfi_object_name(d->place, name, err);

        if (rc != 0)
                return rc;
        if (faccessat(d->root, name, F_OK, 0) == 0)
                return there_is_one(d, name, err);
        rc = write_temporary(d, name, data, tmp, &fd, err);
        if (rc != 0)
                return rc;
        rc = make_above(d, name, err);
        if (rc == 0 && place_absent(d, tmp, fd, name) != 0)
                rc = errno == EEXIST ? there_is_one(d, name, err)
                                     : failed(d, "name the file", name, err);
        else if (rc == 0)
                rc = settle(d, name, err);
        (void)unlinkat(d->root, tmp, 0); /* gone already when it was renamed */
        close_quietly(fd);
        return rc;
}

/* ---- get ---- */

static int version_of(struct df_bytes data, struct df_object_version *ret, struct df_error *err)
{
        uint8_t digest[DF_SHA256_SIZE];
        int rc = df_sha256(data, digest, err);

        *ret = (struct df_object_version){0};
        if (rc == 0)
                df_hex(digest, sizeof(digest), ret->text);
        return rc;
}

static int open_object(const struct dfi_dir *d, const char *name, uint64_t *ret_size, int *ret_fd,
                       struct df_error *err)
{
        int rc = dfi_object_name(d->place, name, err);
        struct stat st;
        int fd;

        if (rc != 0)
                return rc;
        fd = openat(d->root, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 && errno == ENOTDIR)
                errno = ENOENT; /* "a/b" where "a" is an object */
        if (fd < 0 || fstat(fd, &st) != 0) {
                rc = failed(d, "read", name, err);
        } else if (!S_ISREG(st.st_mode)) {
                rc = df_fail(err, DF_ENOENT, "%s: %s is no object", d->place, name);
        } else {
                rc = dfi_object_fits(d->place, name, (uint64_t)st.st_size, err);
                *ret_size = (uint64_t)st.st_size;
        }
        if (rc != 0) {
                close_quietly(fd);
                return rc;
        }
        *ret_fd = fd;
        return 0;
}

/* len bytes from `from` on must be there: an object never changes its length. */
static int read_bytes(const struct dfi_dir *d, const char *name, int fd, uint64_t from, size_t len,
                      struct df_buf *ret, struct df_error *err)
{
        size_t start = ret->len;

        if (!df_buf_reserve(ret, len))
                return df_buf_check(ret, err);
        while (ret->len - start < len) {
                size_t done = ret->len - start;
                size_t want = len - done < READ_MAX ? len - done : READ_MAX;
                ssize_t n = pread(fd, ret->data + ret->len, want, (off_t)(from + done));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        ret->len = start;
                        return n < 0 ? failed(d, "read", name, err)
                                     : df_fail(err, DF_ECORRUPT,
                                               "%s: %s became shorter while it was read: somebody "
                                               "else writes there",
                                               d->place, name);
                }
                ret->len += (size_t)n;
        }
        return 0;
}

static int dir_get(struct df_objects *o, const char *name, struct df_buf *ret,
                   struct df_object_version *version, struct df_error *err)
{
        struct dfi_dir *d = dir_of(o);
        size_t start = ret->len;
        uint64_t size = 0;
        int fd = -1, rc = open_object(d, name, &size, &fd, err);

        if (rc != 0)
                return rc;
        rc = read_bytes(d, name, fd, 0, (size_t)size, ret, err);
        close_quietly(fd);
        if (rc == 0 && version)
                rc = version_of(df_bytes(ret->data + start, (size_t)size), version, err);
        return rc;
}

static int dir_get_range(struct df_objects *o, const char *name, uint64_t from, size_t len,
                         struct df_buf *ret, struct df_error *err)
{
        struct dfi_dir *d = dir_of(o);
        uint64_t size = 0;
        int fd = -1, rc = open_object(d, name, &size, &fd, err);

        if (rc != 0)
                return rc;
        from = from < size ? from : size;
        len = len < size - from ? len : (size_t)(size - from);
        rc = read_bytes(d, name, fd, from, len, ret, err);
        close_quietly(fd);
        return rc;
}

static int dir_size(struct df_objects *o, const char *name, uint64_t *ret, struct df_error *err)
{
        int fd = -1, rc = open_object(dir_of(o), name, ret, &fd, err);

        close_quietly(fd);
        return rc;
}

/* ---- put_match and remove, under the lock ---- */

static int lock(const struct dfi_dir *d, int *ret_fd, struct df_error *err)
{
        int fd = openat(d->root, DFI_DIR_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0666);

        while (fd >= 0 && flock(fd, LOCK_EX) != 0)
                if (errno != EINTR) {
                        close_quietly(fd);
                        fd = -1;
                }
        if (fd < 0)
                return failed(d, "lock", DFI_DIR_LOCK, err);
        *ret_fd = fd; /* closing it unlocks */
        return 0;
}

static int must_be(struct dfi_dir *d, const char *name, const struct df_object_version *was,
                   struct df_error *err)
{
        struct df_buf now = {0};
        struct df_object_version version = {0};
        int rc = dir_get(&d->base, name, &now, &version, err);

        df_buf_release(&now);
        if (rc == DF_ENOENT)
                return df_fail(err, DF_EEXIST, "%s: %s is gone", d->place, name);
        if (rc == 0 && strcmp(version.text, was->text) != 0)
                return df_fail(err, DF_EEXIST, "%s: %s is another version now", d->place, name);
        return rc;
}

static int dir_put_match(struct df_objects *o, const char *name, struct df_bytes data,
                         const struct df_object_version *was, struct df_object_version *ret,
                         struct df_error *err)
{
        struct dfi_dir *d = dir_of(o);
        struct df_object_version version;
        char tmp[TEMPORARY_MAX];
        int fd = -1, lock_fd = -1, rc = dfi_object_name(d->place, name, err);

        if (rc == 0)
                rc = version_of(data, &version, err);
        if (rc == 0)
                rc = write_temporary(d, name, data, tmp, &fd, err); /* the lock is held shortly */
        if (rc != 0)
                return rc;
        rc = lock(d, &lock_fd, err);
        if (rc == 0)
                rc = must_be(d, name, was, err);
        if (rc == 0 && renameat(d->root, tmp, d->root, name) != 0)
                rc = failed(d, "name the file", name, err);
        else if (rc == 0)
                rc = settle(d, name, err);
        if (rc == 0 && ret)
                *ret = version;
        (void)unlinkat(d->root, tmp, 0); /* gone already when it was renamed */
        close_quietly(lock_fd);
        close_quietly(fd);
        return rc;
}

static int dir_remove(struct df_objects *o, const char *name, struct df_error *err)
{
        struct dfi_dir *d = dir_of(o);
        int lock_fd = -1, rc = dfi_object_name(d->place, name, err);

        if (rc == 0)
                rc = lock(d, &lock_fd, err);
        if (rc == 0 && unlinkat(d->root, name, 0) == 0)
                rc = sync_above(d, name, err);
        else if (rc == 0 && errno != ENOENT && errno != ENOTDIR && errno != EISDIR)
                rc = failed(d, "remove", name, err);
        close_quietly(lock_fd);
        return rc;
}

/* ---- open ---- */

static void dir_close(struct df_objects *o)
{
        struct dfi_dir *d = dir_of(o);

        close_quietly(d->root);
        free(d->place);
        free(d);
}

static int make_root(const char *place, const char *path, struct df_error *err)
{
        char above[PATH_MAX];
        size_t len = strlen(path);
        char *slash;
        int fd, rc = 0;

        if (path[0] != '/' || len < 2 || len >= sizeof(above) || path[len - 1] == '/')
                return df_fail(err, DF_EINVAL,
                               "%s: write dir: and an absolute path, without '/' at its end",
                               place);
        if (mkdir(path, 0777) != 0)
                return errno == EEXIST ? 0
                                       : df_fail_errno(err, DF_EIO,
                                                       "%s: make the directory (the one above it "
                                                       "must exist and be writable)",
                                                       place);
        (void)snprintf(above, sizeof(above), "%s", path);
        slash = strrchr(above, '/');
        slash[slash == above] = '\0';
        fd = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) != 0)
                rc = df_fail_errno(err, DF_EIO, "%s: make %s durable", place, above);
        close_quietly(fd);
        return rc;
}

int dfi_dir_open(const char *place, const char *path, struct df_objects **ret, struct df_error *err)
{
        static const struct df_objects_ops ops = {
                .put_absent = dir_put_absent,
                .put_match = dir_put_match,
                .get = dir_get,
                .get_range = dir_get_range,
                .size = dir_size,
                .list = dfi_dir_list,
                .remove = dir_remove,
                .close = dir_close,
        };
        int rc = make_root(place, path, err);
        struct dfi_dir *d;

        if (rc != 0)
                return rc;
        d = calloc(1, sizeof(*d));
        if (!d)
                return df_fail(err, DF_ENOMEM, "%s", place);
        d->base.ops = &ops;
        d->write = write;
        d->sync = fsync;
        d->place = strdup(place);
        d->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (!d->place)
                rc = df_fail(err, DF_ENOMEM, "%s", place);
        else if (d->root < 0)
                rc = df_fail_errno(err, DF_EIO, "%s: open it", place);
        else
                rc = remove_left_over(d, err);
        if (rc != 0) {
                dir_close(&d->base);
                return rc;
        }
        *ret = &d->base;
        return 0;
}
