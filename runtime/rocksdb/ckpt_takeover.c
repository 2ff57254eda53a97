/* ckpt_takeover.c - from a directory that anything may have happened to, to a live store (K8).
 *
 * Nothing is deleted and nothing opened before CURRENT's checkpoint is verified; the live store of
 * another life is never opened, only deleted. Safe because the lock is held.
 */
#include "rocksdb_private.h"

#include <inttypes.h>
#include <sys/stat.h>

/* EPOCH says whether CURRENT ever existed, so that a lost CURRENT is not taken for a new start. */
static int check_lost(const struct dfi_ckpt *c, const struct dfi_names *names, struct df_error *err)
{
        uint64_t k = 0, epoch = 0;

        if (c->epoch.published && !c->current.present)
                return df_fail(err, DF_ECORRUPT, "%s/CURRENT is missing; %s", c->dir,
                               DFI_RECOVER_HINT);
        for (size_t i = 0; c->epoch.epoch == 0 && i < names->count; i++)
                if (strncmp(names->v[i], "ck-", 3) == 0 || strncmp(names->v[i], "live-", 5) == 0 ||
                    c->current.present)
                        return df_fail(err, DF_ECORRUPT, "%s/EPOCH is missing; %s", c->dir,
                                       DFI_RECOVER_HINT);
        if (c->current.present && dfi_ck_name_parse(c->current.name, &k, &epoch) &&
            epoch > c->epoch.epoch)
                return df_fail(err, DF_ECORRUPT,
                               "%s/EPOCH says %" PRIu64 " takeovers, CURRENT is of number %" PRIu64
                               "; %s",
                               c->dir, c->epoch.epoch, epoch, DFI_RECOVER_HINT);
        return 0;
}

static int count_epoch(struct dfi_ckpt *c, const struct dfi_names *names, struct df_error *err)
{
        int r = dfi_epoch_read(c->dir, &c->epoch, err);

        if (r == 0)
                r = dfi_current_read(c->dir, &c->current, err);
        if (r == 0)
                r = check_lost(c, names, err);
        if (r)
                return r;
        c->epoch.epoch++;
        c->epoch.published |= c->current.present;
        return dfi_epoch_write(c->dir, &c->epoch, err);
}

/* Candidates nobody published, live stores of earlier lives, half-made checkpoints. */
static int remove_leftovers(const struct dfi_ckpt *c, const struct dfi_names *names,
                            struct df_error *err)
{
        char path[DFI_PATH_MAX];

        for (size_t i = 0; i < names->count; i++) {
                const char *n = names->v[i];
                if (strncmp(n, "ck-", 3) != 0 && strncmp(n, "live-", 5) != 0)
                        continue;
                if (strcmp(n, c->current.name) == 0 || strcmp(n, c->current_parent) == 0)
                        continue;
                int r = dfi_state_path(path, err, "%s/%s", c->dir, n);
                if (r == 0)
                        r = dfi_remove_tree(path, err);
                if (r)
                        return r;
        }
        return 0;
}

/* SST files never change: links. The rest RocksDB writes to: copies. No sync: a live directory
 * does not outlive its process. */
static int fill_live(const struct dfi_ckpt *c, const struct dfi_manifest *m, struct df_error *err)
{
        char from[DFI_PATH_MAX], to[DFI_PATH_MAX];
        int r = 0;

        for (size_t i = 0; r == 0 && i < m->files.count; i++) {
                const char *name = m->files.v[i].name;
                if ((r = dfi_state_path(from, err, "%s/%s/%s", c->dir, c->current.name, name)) ||
                    (r = dfi_state_path(to, err, "%s/%s", c->live, name)))
                        break;
                r = dfi_is_sst(name) ? dfi_link_file(from, to, err) : dfi_copy_file(from, to, err);
        }
        return r;
}

static int open_live(struct dfi_ckpt *c, const struct dfi_manifest *m, struct df_error *err)
{
        char name[DF_CKPT_NAME_MAX + 1];

        int r = dfi_ck_name_make(0, c->epoch.epoch, name, err);
        if (r == 0)
                r = dfi_state_path(c->live, err, "%s/live-%" PRIu64 "-%s", c->dir, c->epoch.epoch,
                                   strrchr(name, '-') + 1);
        if (r == 0 && mkdir(c->live, 0750) < 0)
                r = df_fail_errno(err, DF_EIO, "cannot create %s", c->live);
        if (r == 0)
                r = fill_live(c, m, err);
        if (r)
                return r;
        r = dfi_store_open(&c->store, c->live, DFI_DB_TASK, !c->current.present, &c->options, err);
        if (r == 0)
                c->store_open = true;
        else if (r == DF_ECORRUPT)
                r = df_wrap(err, "checkpoint %s; %s", c->current.name, DFI_RECOVER_HINT);
        return r;
}

static int take_over(struct dfi_ckpt *c, struct dfi_manifest *m, struct df_error *err)
{
        struct dfi_names names = {0};

        int r = dfi_names_read(c->dir, &names, err);
        if (r == 0)
                r = count_epoch(c, &names, err);
        if (r == 0 && c->current.present) {
                r = dfi_verify_manifest(c->dir, c->current.name, c->current.digest, m, NULL, err);
                if (r == 0)
                        r = dfi_verify_files(c->dir, c->current.name, m, err);
        }
        if (r)
                goto out;
        memcpy(c->current_parent, m->parent, sizeof(c->current_parent));
        c->current_k = m->k;
        r = remove_leftovers(c, &names, err);
        if (r == 0)
                r = open_live(c, m, err);
out:
        dfi_names_release(&names);
        return r;
}

int dfi_ckpt_takeover(struct df_ckpt *base, struct df_takeover *ret, struct df_error *err)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);
        struct dfi_manifest m = {0};
        int r = 0;

        df_check(!c->owner);
        if (c->lock_fd < 0)
                r = dfi_state_lock(c->dir, &c->lock_fd, err);
        if (r)
                return r;
        c->doubt = false;
        c->has_candidate = false;
        c->current = (struct dfi_current){0};
        r = take_over(c, &m, err);
        if (r) {
                dfi_ckpt_drop_live(base);
                dfi_unlock(&c->lock_fd); /* so that `adtally recover` can have it */
                dfi_manifest_release(&m);
                return r;
        }
        /* The manifest's files are verified: hashed for this life. */
        dfi_files_release(&c->known);
        c->known = m.files;
        m.files = (struct dfi_files){0};
        df_buf_release(&c->current_note);
        c->current_note = m.note;
        m.note = (struct df_buf){0};
        dfi_manifest_release(&m);
        c->owner = true;
        *ret = (struct df_takeover){
                .store = &c->store.base,
                .epoch = c->epoch.epoch,
                .fresh = !c->current.present,
                .k = c->current_k,
        };
        memcpy(ret->digest, c->current.digest, sizeof(ret->digest));
        return 0;
}
