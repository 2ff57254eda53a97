/* verify.c - the small files of a state directory, and whether a checkpoint is what was written. */
#include "rocksdb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SMALL_FILE_MAX 4096

/* Read a file of one short line into ret, ended by NUL. */
static int read_line(const char *dir, const char *name, struct df_buf *ret, char path[DFI_PATH_MAX],
                     struct df_error *err)
{
        int r = dfi_state_path(path, err, "%s/%s", dir, name);

        if (r == 0)
                r = dfi_read_file(path, SMALL_FILE_MAX, ret, err);
        if (r == DF_ELIMIT)
                return df_fail(err, DF_ECORRUPT, "%s is damaged (too long); %s", path,
                               DFI_RECOVER_HINT);
        if (r)
                return r;
        df_put_u8(ret, 0);
        return df_buf_check(ret, err);
}

int dfi_current_read(const char *dir, struct dfi_current *ret, struct df_error *err)
{
        struct dfi_current c = {.present = true};
        struct df_buf text = {0};
        char path[DFI_PATH_MAX];
        uint64_t k, epoch;

        int r = read_line(dir, "CURRENT", &text, path, err);
        if (r == DF_ENOENT) {
                *ret = (struct dfi_current){0};
                r = 0;
                goto out;
        }
        if (r)
                goto out;
        /* "<name> <digest>\n" and nothing else. */
        const char *t = (const char *)text.data;
        const char *space = strchr(t, ' ');
        const size_t len = space ? (size_t)(space - t) : 0;
        if (len > 0 && len <= DF_CKPT_NAME_MAX &&
            text.len == len + 1 + 2 * DF_SHA256_SIZE + 2 /* newline and NUL */ &&
            dfi_unhex(space + 1, DF_SHA256_SIZE, c.digest) && t[text.len - 2] == '\n') {
                memcpy(c.name, t, len);
                if (dfi_ck_name_parse(c.name, &k, &epoch)) {
                        *ret = c;
                        goto out;
                }
        }
        r = df_fail(err, DF_ECORRUPT, "%s is damaged: it names no checkpoint; %s", path,
                    DFI_RECOVER_HINT);
out:
        df_buf_release(&text);
        return r;
}

int dfi_current_write(const char *dir, const struct dfi_current *c, struct df_error *err)
{
        char line[DF_CKPT_NAME_MAX + DF_SHA256_HEX_SIZE + 3], hex[DF_SHA256_HEX_SIZE];

        df_hex(c->digest, DF_SHA256_SIZE, hex);
        int n = snprintf(line, sizeof(line), "%s %s\n", c->name, hex);
        df_check(n > 0 && (size_t)n < sizeof(line));
        return dfi_replace_file(dir, "CURRENT", df_bytes(line, (size_t)n), err);
}

int dfi_epoch_read(const char *dir, struct dfi_epoch *ret, struct df_error *err)
{
        struct dfi_epoch e = {0};
        struct df_buf text = {0};
        char path[DFI_PATH_MAX];

        int r = read_line(dir, "EPOCH", &text, path, err);
        if (r == DF_ENOENT) {
                *ret = e;
                r = 0;
                goto out;
        }
        if (r)
                goto out;
        const char *t = (const char *)text.data;
        const char *p = dfi_parse_u64(t, ' ', &e.epoch);
        if (p && strcmp(p, "published\n") == 0)
                e.published = true;
        else if (!p || strcmp(p, "new\n") != 0 || strlen(t) + 1 != text.len)
                r = df_fail(err, DF_ECORRUPT, "%s is damaged: it is not a count of takeovers; %s",
                            path, DFI_RECOVER_HINT);
        if (r == 0)
                *ret = e;
out:
        df_buf_release(&text);
        return r;
}

int dfi_epoch_write(const char *dir, const struct dfi_epoch *e, struct df_error *err)
{
        char line[48];
        int n = snprintf(line, sizeof(line), "%" PRIu64 " %s\n", e->epoch,
                         e->published ? "published" : "new");

        return dfi_replace_file(dir, "EPOCH", df_bytes(line, (size_t)n), err);
}

int dfi_state_lock(const char *dir, int *ret_fd, struct df_error *err)
{
        char path[DFI_PATH_MAX], pid[24];
        struct stat held, named;

        int r = dfi_state_path(path, err, "%s/LOCK", dir);
        if (r)
                return r;
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "cannot open %s", path);
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                const bool taken = errno == EWOULDBLOCK;
                ssize_t n = taken ? pread(fd, pid, sizeof(pid) - 1, 0) : 0;
                pid[n > 0 ? n : 0] = '\0';
                r = taken ? df_fail(err, DF_EFENCED, "%s: process %s owns this state", path,
                                    pid[0] ? pid : "?")
                          : df_fail_errno(err, DF_EIO, "cannot lock %s", path);
                (void)close(fd);
                return r;
        }
        /* Somebody may have replaced the file since it was opened: then this lock is worth
         * nothing. */
        if (fstat(fd, &held) < 0 || stat(path, &named) < 0 || held.st_ino != named.st_ino) {
                (void)close(fd);
                return df_fail(err, DF_EFENCED, "%s was replaced while it was being locked", path);
        }
        int n = snprintf(pid, sizeof(pid), "%ld", (long)getpid());
        if (ftruncate(fd, 0) < 0 || pwrite(fd, pid, (size_t)n, 0) < 0)
                (void)0; /* the number only helps people */
        *ret_fd = fd;
        return 0;
}

void dfi_unlock(int *fd)
{
        if (*fd >= 0)
                (void)close(*fd); /* releases the flock */
        *fd = -1;
}

int dfi_verify_manifest(const char *dir, const char *name, const uint8_t *digest,
                        struct dfi_manifest *ret, uint8_t *ret_digest, struct df_error *err)
{
        struct df_buf text = {0};
        uint8_t is[DF_SHA256_SIZE];
        char path[DFI_PATH_MAX];
        uint64_t k = 0, epoch = 0;

        df_check(dfi_ck_name_parse(name, &k, &epoch));
        int r = dfi_state_path(path, err, "%s/%s/%s", dir, name, DFI_MANIFEST_NAME);
        if (r == 0)
                r = dfi_read_file(path, DFI_MANIFEST_MAX, &text, err);
        if (r == DF_ENOENT || r == DF_ELIMIT)
                r = df_fail(err, DF_ECORRUPT, "%s is %s; %s", path,
                            r == DF_ENOENT ? "missing" : "too long", DFI_RECOVER_HINT);
        if (r == 0)
                r = df_sha256(df_buf_bytes(&text), is, err);
        if (r == 0 && digest && memcmp(digest, is, sizeof(is)) != 0)
                r = df_fail(err, DF_ECORRUPT, "%s is damaged: it is not the one CURRENT names; %s",
                            path, DFI_RECOVER_HINT);
        if (r == 0)
                r = dfi_manifest_parse(df_buf_bytes(&text), path, ret, err);
        if (r == 0 && (ret->k != k || ret->epoch != epoch)) {
                dfi_manifest_release(ret);
                r = df_fail(err, DF_ECORRUPT, "%s belongs to another checkpoint; %s", path,
                            DFI_RECOVER_HINT);
        }
        if (r == 0 && ret_digest)
                memcpy(ret_digest, is, sizeof(is));
        df_buf_release(&text);
        return r;
}

static int verify_file(const char *path, struct dfi_file *f, struct df_error *err)
{
        uint8_t digest[DF_SHA256_SIZE];
        uint64_t size = 0;
        struct stat st;

        if (lstat(path, &st) < 0) {
                if (errno == ENOENT)
                        return df_fail(err, DF_ECORRUPT, "%s is missing; %s", path,
                                       DFI_RECOVER_HINT);
                return df_fail_errno(err, DF_EIO, "cannot look at %s", path);
        }
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != f->size_bytes)
                return df_fail(err, DF_ECORRUPT,
                               "%s is damaged: %lld bytes instead of %" PRIu64 "; %s", path,
                               (long long)st.st_size, f->size_bytes, DFI_RECOVER_HINT);
        int r = df_sha256_file(path, digest, &size, err);
        if (r)
                return r;
        if (size != f->size_bytes || memcmp(digest, f->digest, sizeof(digest)) != 0)
                return df_fail(err, DF_ECORRUPT, "%s is damaged: its SHA-256 does not fit; %s",
                               path, DFI_RECOVER_HINT);
        f->inode = st.st_ino;
        return 0;
}

int dfi_verify_files(const char *dir, const char *name, struct dfi_manifest *m,
                     struct df_error *err)
{
        struct dfi_names names = {0};
        char path[DFI_PATH_MAX];

        int r = dfi_state_path(path, err, "%s/%s", dir, name);
        if (r == 0)
                r = dfi_names_read(path, &names, err);
        for (size_t i = 0; r == 0 && i < names.count; i++)
                if (strcmp(names.v[i], DFI_MANIFEST_NAME) != 0 &&
                    !dfi_files_find(&m->files, names.v[i]))
                        r = df_fail(err, DF_ECORRUPT, "%s/%s is not a file of this checkpoint; %s",
                                    path, names.v[i], DFI_RECOVER_HINT);
        for (size_t i = 0; r == 0 && i < m->files.count; i++) {
                r = dfi_state_path(path, err, "%s/%s/%s", dir, name, m->files.v[i].name);
                if (r == 0)
                        r = verify_file(path, &m->files.v[i], err);
        }
        dfi_names_release(&names);
        return r;
}
