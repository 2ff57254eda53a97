/* ckpt.c - the checkpoint object of a state directory. */
#include "rocksdb_private.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

static const struct df_ckpt_ops ckpt_ops;

struct dfi_ckpt *dfi_ckpt_from(struct df_ckpt *base)
{
        struct dfi_ckpt *c = (struct dfi_ckpt *)base;

        df_check(base->ops == &ckpt_ops);
        df_check(c->magic == DFI_CKPT_MAGIC);
        return c;
}
_Static_assert(offsetof(struct dfi_ckpt, base) == 0, "base is the first member");

int dfi_make_dirs(const char *dir, struct df_error *err)
{
        char path[DFI_PATH_MAX];

        int r = dfi_state_path(path, err, "%s", dir);
        if (r)
                return r;
        for (char *p = path + 1;; p++) {
                const char c = *p;
                if (c != '/' && c != '\0')
                        continue;
                *p = '\0';
                if (mkdir(path, 0750) == 0)
                        r = dfi_sync_parent(path, err);
                else if (errno != EEXIST)
                        r = df_fail_errno(err, DF_EIO, "cannot create %s", path);
                if (r || c == '\0')
                        return r;
                *p = c;
        }
}

int df_rocksdb_ckpt_open(const char *dir, const struct df_rocksdb_options *options,
                         struct df_ckpt **ret, struct df_error *err)
{
        size_t len = strlen(dir);

        while (len > 1 && dir[len - 1] == '/')
                len--;
        if (len == 0 || len > DFI_PATH_MAX - 256)
                return df_fail(err, DF_ELIMIT, "a state directory's path has 1 to %d bytes",
                               DFI_PATH_MAX - 256);
        struct dfi_ckpt *c = calloc(1, sizeof(*c));
        if (!c)
                return df_fail(err, DF_ENOMEM, "%s: no memory", dir);
        c->base.ops = &ckpt_ops;
        c->magic = DFI_CKPT_MAGIC;
        c->lock_fd = -1;
        memcpy(c->dir, dir, len);
        if (options)
                c->options = *options;
        int r = dfi_make_dirs(c->dir, err);
        if (r == 0 && c->options.store_dir)
                r = dfi_state_path(c->store_dir, err, "%s", c->options.store_dir);
        if (r == 0 && c->store_dir[0])
                r = dfi_make_dirs(c->store_dir, err);
        c->options.store_dir = NULL; /* the caller's */
        if (r) {
                free(c);
                return r;
        }
        *ret = &c->base;
        return 0;
}

static int ckpt_note(struct df_ckpt *base, struct df_bytes *ret, struct df_error *err)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);

        if (!c->current.present)
                return df_fail(err, DF_ENOENT, "%s has no checkpoint yet", c->dir);
        *ret = df_buf_bytes(&c->current_note);
        return 0;
}

void dfi_ckpt_drop_live(struct df_ckpt *base)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);
        struct df_error ignored; /* what is left over goes at the next takeover */

        if (c->store_open)
                dfi_store_close(&c->store);
        c->store_open = false;
        if (c->live[0])
                (void)dfi_remove_tree(c->live, &ignored);
        c->live[0] = '\0';
        c->owner = false;
        c->has_candidate = false;
}

static void ckpt_close(struct df_ckpt *base)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);

        dfi_ckpt_drop_live(base);
        dfi_unlock(&c->lock_fd);
        df_buf_release(&c->current_note);
        df_buf_release(&c->candidate_note);
        dfi_files_release(&c->known);
        c->magic = 0;
        free(c);
}

static const struct df_ckpt_ops ckpt_ops = {
        .takeover = dfi_ckpt_takeover,
        .takeover_at = dfi_ckpt_takeover_at,
        .candidate = dfi_ckpt_candidate,
        .persist = dfi_ckpt_persist,
        .publish = dfi_ckpt_publish,
        .note = ckpt_note,
        .retire = dfi_ckpt_retire,
        .drop_live = dfi_ckpt_drop_live,
        .close = ckpt_close,
};
