/* dir_list.c - the names in a directory store, in byte order, without holding more than one
 * directory of each level. */
#include "objects_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

struct walk {
        const struct dfi_dir *d;
        const char *prefix;
        df_objects_fn *fn;
        void *arg;
};

struct entry {
        char *name; /* of a directory with '/' behind: so that "a-b" comes before "a/b" */
        uint64_t size;
};

struct entries {
        struct entry *list;
        size_t count, cap;
};

static void release(struct entries *es)
{
        for (size_t i = 0; i < es->count; i++)
                free(es->list[i].name);
        free(es->list);
}

static bool add(struct entries *es, const char *name, const struct stat *st)
{
        struct entry e = {.size = (uint64_t)st->st_size};

        if (es->count == es->cap) {
                size_t cap = es->cap ? 2 * es->cap : 64;
                struct entry *list = reallocarray(es->list, cap, sizeof(*list));

                if (!list)
                        return false;
                es->list = list;
                es->cap = cap;
        }
        if (asprintf(&e.name, "%s%s", name, S_ISDIR(st->st_mode) ? "/" : "") < 0)
                return false;
        es->list[es->count++] = e;
        return true;
}

static int by_name(const void *a, const void *b)
{
        return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

static int failed(const struct walk *w, const char *path, struct df_error *err)
{
        return df_fail_errno(err, DF_EIO, "%s: list %s", w->d->place, path);
}

/* All files and directories that can be (part of) an object's name, sorted. */
static int read_entries(const struct walk *w, const char *path, DIR *dir, struct entries *ret,
                        struct df_error *err)
{
        struct dirent *e;

        for (errno = 0; (e = readdir(dir)); errno = 0) {
                struct stat st;

                if (e->d_name[0] == '.')
                        continue;
                if (fstatat(dirfd(dir), e->d_name, &st, 0) != 0) {
                        if (errno != ENOENT) /* removed meanwhile */
                                return failed(w, path, err);
                } else if ((S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) &&
                           !add(ret, e->d_name, &st)) {
                        return df_fail(err, DF_ENOMEM, "%s: list %s", w->d->place, path);
                }
        }
        if (errno != 0)
                return failed(w, path, err);
        if (ret->count > 0)
                qsort(ret->list, ret->count, sizeof(ret->list[0]), by_name);
        return 0;
}

static int walk(const struct walk *w, const char *above, struct df_error *err);

/* name: "a/b" of an object, "a/b/" of a directory. */
static int visit(const struct walk *w, const char *name, uint64_t size, struct df_error *err)
{
        size_t len = strlen(name), prefix = strlen(w->prefix);
        bool folder = name[len - 1] == '/';

        if (strncmp(name, w->prefix, folder && len < prefix ? len : prefix) != 0)
                return 0;
        if (folder)
                return walk(w, name, err);
        return dfi_object_name_ok(name) ? w->fn(w->arg, name, size) : 0;
}

/* above: "" or "a/b/". Recursive; a name has at most DF_OBJECT_NAME_MAX / 2 parts. */
static int walk(const struct walk *w, const char *above, struct df_error *err)
{
        const char *path = above[0] ? above : ".";
        int fd = openat(w->d->root, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
        struct entries es = {0};
        int rc;

        if (!dir) {
                bool none = fd < 0 && (errno == ENOENT || errno == ENOTDIR);

                rc = none ? 0 : failed(w, path, err);
                if (fd >= 0)
                        (void)close(fd);
                return rc;
        }
        rc = read_entries(w, path, dir, &es, err);
        (void)closedir(dir);
        for (size_t i = 0; rc == 0 && i < es.count; i++) {
                char name[DF_OBJECT_NAME_MAX + 2]; /* of a directory: with its '/' */
                int n = snprintf(name, sizeof(name), "%s%s", above, es.list[i].name);

                if ((size_t)n < sizeof(name)) /* longer: no object's */
                        rc = visit(w, name, es.list[i].size, err);
        }
        release(&es);
        return rc;
}

int dfi_dir_list(struct df_objects *o, const char *prefix, df_objects_fn *fn, void *arg,
                 struct df_error *err)
{
        struct dfi_dir *d = (struct dfi_dir *)(void *)o;
        struct walk w = {.d = d, .prefix = prefix, .fn = fn, .arg = arg};
        int rc = dfi_object_prefix(d->place, prefix, err);
        char above[DF_OBJECT_NAME_MAX + 1];
        const char *slash;

        if (rc != 0)
                return rc;
        slash = strrchr(prefix, '/');
        (void)snprintf(above, sizeof(above), "%.*s", slash ? (int)(slash - prefix) + 1 : 0, prefix);
        return walk(&w, above, err);
}
