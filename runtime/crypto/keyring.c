/* keyring.c - the directory of signing keys (df/sign.h).
 *
 * The order of a change, each step durable before the next:
 *   signing.key.new is written; public.new, renamed to <id>.pub; signing.key.new takes the place.
 * A reader makes the directory durable before it uses the key it found there. So no key signs
 * whose place a power failure could take back, and what lies in signing.key.new has signed nothing:
 * its .pub may go.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto_private.h"

#define CURRENT "signing.key"
#define NEXT "signing.key.new"
#define PUBLIC_NEXT "public.new"
#define ID_LEN (DF_SIGN_ID_SIZE - 1)

static int path_of(const char *dir, const char *name, const char *ending, char ret[PATH_MAX],
                   struct df_error *err)
{
        if (snprintf(ret, PATH_MAX, "%s/%s%s", dir, name, ending) >= PATH_MAX)
                return df_fail(err, DF_EINVAL, "keyring %s: the path is too long", dir);
        return 0;
}

static bool is_id(const char *s)
{
        return strspn(s, "0123456789abcdef") == ID_LEN && s[ID_LEN] == '\0';
}

/* DF_ENOENT when there is no directory. */
static int lock_ring(const char *dir, int how, int *ret_fd, struct df_error *err)
{
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc;

        if (fd < 0)
                return df_fail_errno(err, errno == ENOENT ? DF_ENOENT : DF_EIO, "open keyring %s",
                                     dir);
        do
                rc = flock(fd, how);
        while (rc < 0 && errno == EINTR);
        if (rc < 0) {
                rc = df_fail_errno(err, DF_EIO, "lock keyring %s", dir);
                (void)close(fd);
                return rc;
        }
        *ret_fd = fd;
        return 0;
}

static int make_dir(const char *dir, struct df_error *err)
{
        if (mkdir(dir, 0755) == 0)
                return dfi_sync_dir_of(dir, err);
        return errno == EEXIST ? 0 : df_fail_errno(err, DF_EIO, "create keyring %s", dir);
}

int df_keyring_find(const char *dir, const char *id, struct df_sign_public *ret,
                    struct df_error *err)
{
        char path[PATH_MAX];
        int rc;

        if (!is_id(id))
                return df_fail(err, DF_EINVAL,
                               "\"%.40s\" is no key id: 16 hex digits, as `adtally key list` "
                               "prints them",
                               id);
        rc = path_of(dir, id, ".pub", path, err);
        if (rc == 0)
                rc = df_sign_public_read(path, ret, err);
        if (rc == 0 && strcmp(ret->id, id) != 0)
                rc = df_fail(err, DF_ECORRUPT,
                             "%s holds the key %s: somebody changed it; restore it from a copy",
                             path, ret->id);
        return rc;
}

/* *ret NULL when there is none. */
static int read_current(const char *dir, struct df_sign_key **ret, struct df_error *err)
{
        struct df_error why = {0};
        char path[PATH_MAX];
        int rc = path_of(dir, CURRENT, "", path, err);

        *ret = NULL;
        if (rc < 0)
                return rc;
        rc = df_sign_key_read(path, ret, &why);
        if (rc == 0 || rc == DF_ENOENT)
                return 0;
        if (rc == DF_EPARSE)
                return df_fail(err, rc, "%s; restore it, or move it away and make a new key",
                               why.text);
        return df_fail(err, rc, "%s", why.text);
}

/* Whoever verifies what the current key signs looks for its .pub. */
static int check_current(const char *dir, const struct df_sign_key *k, struct df_error *err)
{
        const char *id = df_sign_key_public(k)->id;
        struct df_sign_public p;
        int rc = df_keyring_find(dir, id, &p, err);

        if (rc == DF_ENOENT)
                return df_fail(err, rc,
                               "%s/" CURRENT
                               " has no %s.pub beside it: openssl pkey -in %s/" CURRENT
                               " -pubout -out %s/%s.pub",
                               dir, id, dir, dir, id);
        return rc;
}

int df_keyring_open(const char *dir, struct df_sign_key **ret, struct df_error *err)
{
        struct df_sign_key *k = NULL;
        int fd = -1, rc = lock_ring(dir, LOCK_SH, &fd, err);

        if (rc < 0 && rc != DF_ENOENT)
                return rc;
        if (rc == 0 && fsync(fd) < 0)
                rc = df_fail_errno(err, DF_EIO, "sync keyring %s", dir);
        if (rc == 0)
                rc = read_current(dir, &k, err);
        if ((rc == 0 && !k) || rc == DF_ENOENT)
                rc = df_fail(err, DF_ENOENT,
                             "no signing key in %s: `adtally key create --signing` makes one", dir);
        if (rc == 0)
                rc = check_current(dir, k, err);
        if (fd >= 0)
                (void)close(fd);
        if (rc < 0)
                df_sign_key_release(k);
        else
                *ret = k;
        return rc;
}

/* ---- listing ---- */

struct list {
        struct df_keyring_entry *items;
        size_t count, cap;
};

static int reserve(struct list *l, const char *dir, struct df_error *err)
{
        size_t cap = l->cap ? 2 * l->cap : 16;
        struct df_keyring_entry *items;

        if (l->count < l->cap)
                return 0;
        items = realloc(l->items, cap * sizeof(*items));
        if (!items)
                return df_fail(err, DF_ENOMEM, "keyring %s", dir);
        l->items = items;
        l->cap = cap;
        return 0;
}

static int add(struct list *l, const char *dir, int fd, const char *id, struct df_error *err)
{
        struct df_keyring_entry e = {0};
        char name[DF_SIGN_ID_SIZE + 4];
        struct stat st;
        int rc = reserve(l, dir, err);

        (void)snprintf(name, sizeof(name), "%s.pub", id);
        if (rc == 0)
                rc = df_keyring_find(dir, id, &e.key, err);
        if (rc == 0 && fstatat(fd, name, &st, 0) < 0)
                rc = df_fail_errno(err, DF_EIO, "look at %s/%s", dir, name);
        if (rc < 0)
                return rc;
        e.created_ms = (int64_t)st.st_mtim.tv_sec * 1000 + st.st_mtim.tv_nsec / 1000000;
        l->items[l->count++] = e;
        return 0;
}

static bool names_key(const char *name, char ret_id[DF_SIGN_ID_SIZE])
{
        if (strlen(name) != ID_LEN + 4 || strcmp(name + ID_LEN, ".pub") != 0)
                return false;
        memcpy(ret_id, name, ID_LEN);
        ret_id[ID_LEN] = '\0';
        return is_id(ret_id);
}

/* Reads every public key into l, or with l NULL only counts them: one that is damaged must not
 * stand in the way of a rotation. */
static int scan(const char *dir, struct list *l, size_t *ret_count, struct df_error *err)
{
        DIR *d = opendir(dir);
        int rc = 0;

        *ret_count = 0;
        if (!d)
                return df_fail_errno(err, DF_EIO, "list keyring %s", dir);
        while (rc == 0) {
                char id[DF_SIGN_ID_SIZE];
                const struct dirent *e;

                errno = 0;
                e = readdir(d);
                if (!e && errno)
                        rc = df_fail_errno(err, DF_EIO, "list keyring %s", dir);
                if (!e)
                        break;
                if (!names_key(e->d_name, id))
                        continue;
                if (++*ret_count > DF_KEYRING_KEYS_MAX)
                        rc = df_fail(err, DF_ELIMIT,
                                     "keyring %s holds more than %d keys: move the oldest .pub "
                                     "elsewhere",
                                     dir, DF_KEYRING_KEYS_MAX);
                else if (l)
                        rc = add(l, dir, dirfd(d), id, err);
        }
        (void)closedir(d);
        return rc;
}

static int by_age(const void *a, const void *b)
{
        const struct df_keyring_entry *x = a, *y = b;

        if (x->created_ms != y->created_ms)
                return x->created_ms < y->created_ms ? -1 : 1;
        return strcmp(x->key.id, y->key.id);
}

static int mark_current(const char *dir, struct list *l, struct df_error *err)
{
        struct df_sign_key *k = NULL;
        int rc = read_current(dir, &k, err);

        if (rc == 0 && k)
                rc = check_current(dir, k, err);
        for (size_t i = 0; rc == 0 && k && i < l->count; i++)
                l->items[i].current = strcmp(l->items[i].key.id, df_sign_key_public(k)->id) == 0;
        df_sign_key_release(k);
        return rc;
}

int df_keyring_list(const char *dir, struct df_keyring_entry **ret, size_t *ret_count,
                    struct df_error *err)
{
        struct list l = {0};
        size_t count;
        int fd = -1, rc = lock_ring(dir, LOCK_SH, &fd, err);

        if (rc == DF_ENOENT) {
                *ret = NULL;
                *ret_count = 0;
                return 0;
        }
        if (rc < 0)
                return rc;
        rc = scan(dir, &l, &count, err);
        if (rc == 0)
                rc = mark_current(dir, &l, err);
        (void)close(fd);
        if (rc < 0) {
                free(l.items);
                return rc;
        }
        if (l.count)
                qsort(l.items, l.count, sizeof(*l.items), by_age);
        *ret = l.items;
        *ret_count = l.count;
        return 0;
}

/* ---- changing ---- */

struct change {
        const char *dir;
        const struct df_sign_key *old; /* NULL: none */
        void (*step)(void *arg);
        void *arg;
};

static void before(const struct change *c)
{
        if (c->step)
                c->step(c->arg);
}

static int remove_file(const struct change *c, const char *name, const char *ending,
                       struct df_error *err)
{
        char path[PATH_MAX];
        int rc = path_of(c->dir, name, ending, path, err);

        if (rc < 0)
                return rc;
        before(c);
        if (unlink(path) == 0)
                return dfi_sync_dir_of(path, err);
        return errno == ENOENT ? 0 : df_fail_errno(err, DF_EIO, "remove %s", path);
}

/* What a crash or a failure before the last step left. A torn private key has no .pub yet. A copy
 * of the current key was put there by hand, and the ring keeps its .pub. */
static int remove_left(const struct change *c, struct df_error *err)
{
        struct df_sign_key *left = NULL;
        struct df_error why = {0};
        char path[PATH_MAX];
        int rc = path_of(c->dir, NEXT, "", path, err);

        if (rc < 0)
                return rc;
        rc = df_sign_key_read(path, &left, &why);
        if (rc < 0 && rc != DF_ENOENT && rc != DF_EPARSE)
                return df_fail(err, rc, "%s", why.text);
        if (left) {
                const char *id = df_sign_key_public(left)->id;
                bool is_current = c->old && strcmp(id, df_sign_key_public(c->old)->id) == 0;

                rc = is_current ? 0 : remove_file(c, id, ".pub", err);
                df_sign_key_release(left);
                if (rc < 0)
                        return rc;
        }
        rc = remove_file(c, NEXT, "", err);
        return rc < 0 ? rc : remove_file(c, PUBLIC_NEXT, "", err);
}

/* Into the ring, unless it is there. */
static int keep_public(const struct change *c, const struct df_sign_public *p, struct df_error *err)
{
        char tmp[PATH_MAX], path[PATH_MAX];
        struct df_error why = {0};
        struct df_sign_public there;
        int rc = df_keyring_find(c->dir, p->id, &there, &why);

        if (rc == 0 && memcmp(there.raw, p->raw, sizeof(p->raw)) != 0)
                return df_fail(err, DF_EEXIST, "two keys with the id %s in %s", p->id, c->dir);
        if (rc != DF_ENOENT)
                return rc < 0 ? df_fail(err, rc, "%s", why.text) : 0;
        rc = path_of(c->dir, PUBLIC_NEXT, "", tmp, err);
        if (rc == 0)
                rc = path_of(c->dir, p->id, ".pub", path, err);
        if (rc < 0)
                return rc;
        before(c);
        rc = df_sign_public_write(p, tmp, err);
        if (rc < 0)
                return rc;
        before(c);
        if (rename(tmp, path) < 0)
                return df_fail_errno(err, DF_EIO, "rename %s to %s", tmp, path);
        return dfi_sync_dir_of(path, err);
}

/* A first key replaces nothing that somebody put there by hand meanwhile; some network file systems
 * cannot promise that, and there the lock and the look before must do. */
static int move_in(const struct change *c, const char *from, const char *to)
{
        if (c->old)
                return rename(from, to);
        if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0)
                return 0;
        return errno == EINVAL || errno == ENOSYS ? rename(from, to) : -1;
}

static int install(const struct change *c, struct df_error *err)
{
        char from[PATH_MAX], to[PATH_MAX];
        int rc = path_of(c->dir, NEXT, "", from, err);

        if (rc == 0)
                rc = path_of(c->dir, CURRENT, "", to, err);
        if (rc < 0)
                return rc;
        before(c);
        if (move_in(c, from, to) < 0)
                return df_fail_errno(err, errno == EEXIST ? DF_EEXIST : DF_EIO, "put %s in place",
                                     to);
        return 0;
}

static int replace(const struct change *c, struct df_sign_public *ret, struct df_error *err)
{
        struct df_sign_key *k = NULL;
        char next[PATH_MAX];
        int rc = path_of(c->dir, NEXT, "", next, err);

        if (rc == 0)
                rc = df_sign_key_make(&k, err);
        if (rc == 0) {
                before(c);
                rc = df_sign_key_write(k, next, err);
        }
        if (rc == 0)
                rc = keep_public(c, df_sign_key_public(k), err);
        if (rc == 0)
                rc = install(c, err);
        if (rc < 0)
                (void)remove_left(c, NULL); /* the first error counts, and the next call retries */
        if (rc == 0) {
                before(c);
                rc = dfi_sync_dir_of(next, err);
        }
        if (rc == 0)
                *ret = *df_sign_key_public(k);
        df_sign_key_release(k);
        return rc;
}

/* Whether this call may make a key at all. */
static int check_change(const char *dir, bool rotate, const struct df_sign_key *old,
                        struct df_error *err)
{
        char path[PATH_MAX];
        struct stat st;
        int rc = path_of(dir, CURRENT, "", path, err);

        if (rc < 0)
                return rc;
        if (old && !rotate)
                return df_fail(err, DF_EEXIST,
                               "%s exists (key %s): --rotate puts a new key in its place", path,
                               df_sign_key_public(old)->id);
        if (!old && rotate)
                return df_fail(err, DF_ENOENT,
                               "%s does not exist: there is nothing to rotate; without --rotate "
                               "a first key is made",
                               path);
        if (old && (lstat(path, &st) < 0 || !S_ISREG(st.st_mode)))
                return df_fail(err, DF_EINVAL,
                               "%s is a link, and the old key would stay behind it: replace the "
                               "key where it is kept",
                               path);
        return 0;
}

static int check_room(const char *dir, struct df_error *err)
{
        size_t count;
        int rc = scan(dir, NULL, &count, err);

        if (rc == 0 && count == DF_KEYRING_KEYS_MAX)
                rc = df_fail(err, DF_ELIMIT,
                             "keyring %s holds %d keys, and no more: move the oldest .pub "
                             "elsewhere",
                             dir, DF_KEYRING_KEYS_MAX);
        return rc;
}

int dfi_keyring_change(const char *dir, bool rotate, void (*step)(void *arg), void *arg,
                       struct df_sign_public *ret, struct df_sign_public *ret_old,
                       struct df_error *err)
{
        struct change c = {.dir = dir, .step = step, .arg = arg};
        struct df_sign_key *old = NULL;
        int fd = -1, rc = make_dir(dir, err);

        if (rc == 0)
                rc = lock_ring(dir, LOCK_EX, &fd, err);
        if (rc < 0)
                return rc;
        rc = read_current(dir, &old, err);
        c.old = old;
        if (rc == 0)
                rc = check_change(dir, rotate, old, err);
        if (rc == 0)
                rc = remove_left(&c, err);
        if (rc == 0)
                rc = check_room(dir, err);
        if (rc == 0 && old) /* put there by hand, it may lack one */
                rc = keep_public(&c, df_sign_key_public(old), err);
        if (rc == 0)
                rc = replace(&c, ret, err);
        if (rc == 0 && ret_old)
                *ret_old = old ? *df_sign_key_public(old) : (struct df_sign_public){0};
        df_sign_key_release(old);
        (void)close(fd);
        return rc;
}

int df_keyring_create(const char *dir, bool rotate, struct df_sign_public *ret,
                      struct df_sign_public *ret_old, struct df_error *err)
{
        return dfi_keyring_change(dir, rotate, NULL, NULL, ret, ret_old, err);
}
