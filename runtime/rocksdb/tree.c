/* tree.c - directories: their names, and their removal. */
#include "rocksdb_private.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEPTH_MAX 4 /* of directories below one that is removed */

static int compare_names(const void *a, const void *b)
{
        return strcmp(a, b);
}

static int names_add(struct dfi_names *n, const char *name)
{
        if ((n->count & (n->count - 1)) == 0) { /* a power of two, or none: full */
                size_t cap = n->count ? 2 * n->count : 1;
                void *v = realloc(n->v, cap * sizeof(n->v[0]));
                if (!v)
                        return DF_ENOMEM;
                n->v = v;
        }
        (void)snprintf(n->v[n->count++], sizeof(n->v[0]), "%s", name);
        return 0;
}

int dfi_names_read(const char *dir, struct dfi_names *ret, struct df_error *err)
{
        struct dirent *e;
        int r = 0;
        DIR *d = opendir(dir);

        if (!d)
                return df_fail_errno(err, errno == ENOENT ? DF_ENOENT : DF_EIO, "cannot open %s",
                                     dir);
        while (r == 0 && (errno = 0, e = readdir(d))) {
                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                        continue;
                r = names_add(ret, e->d_name);
        }
        if (r)
                (void)df_fail(err, r, "%s: no memory for its names", dir);
        else if (errno)
                r = df_fail_errno(err, DF_EIO, "cannot list %s", dir);
        (void)closedir(d);
        if (r)
                dfi_names_release(ret);
        else if (ret->count)
                qsort(ret->v, ret->count, sizeof(ret->v[0]), compare_names);
        return r;
}

void dfi_names_release(struct dfi_names *n)
{
        free(n->v);
        *n = (struct dfi_names){0};
}

static int remove_at(const char *path, int depth, struct df_error *err)
{
        struct dfi_names names = {0};
        char child[DFI_PATH_MAX];

        if (unlink(path) == 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM)
                return df_fail_errno(err, DF_EIO, "cannot remove %s", path);
        if (depth == 0)
                return df_fail(err, DF_ELIMIT, "%s: too deep to remove", path);
        int r = dfi_names_read(path, &names, err);
        for (size_t i = 0; r == 0 && i < names.count; i++) {
                r = dfi_state_path(child, err, "%s/%s", path, names.v[i]);
                if (r == 0)
                        r = remove_at(child, depth - 1, err);
        }
        dfi_names_release(&names);
        if (r == 0 && rmdir(path) < 0 && errno != ENOENT)
                r = df_fail_errno(err, DF_EIO, "cannot remove %s", path);
        return r;
}

int dfi_remove_tree(const char *path, struct df_error *err)
{
        return remove_at(path, DEPTH_MAX, err);
}

bool dfi_exists(const char *path)
{
        struct stat st;

        return lstat(path, &st) == 0;
}
