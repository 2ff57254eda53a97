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

/* Where the committed offset decides, CURRENT is a hint for people. */
static int read_counts(struct dfi_ckpt *c, bool committed_decides, const struct dfi_names *names,
                       struct df_error *err)
{
        struct df_error ignored;
        int r = dfi_epoch_read(c->dir, &c->epoch, err);

        if (committed_decides && r == DF_ECORRUPT && c->store_dir[0])
                r = 0; /* the store counts */
        if (r)
                return r;
        if (committed_decides) {
                if (dfi_current_read(c->dir, &c->current, &ignored) < 0)
                        c->current = (struct dfi_current){0};
                return 0;
        }
        r = dfi_current_read(c->dir, &c->current, err);
        return r ? r : check_lost(c, names, err);
}

static int count_epoch(struct dfi_ckpt *c, bool committed_decides, const struct dfi_names *names,
                       struct df_error *err)
{
        int r = read_counts(c, committed_decides, names, err);

        if (r == 0 && c->store_dir[0])
                r = dfi_shared_epoch(c->store_dir, c->epoch.epoch + 1, &c->epoch.epoch, err);
        else
                c->epoch.epoch++;
        if (r)
                return r;
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

/* Tables and runs never change: links. The rest RocksDB writes to: copies. No sync: a live
 * directory does not outlive its process. */
static int fill_live(const struct dfi_ckpt *c, const struct dfi_manifest *m, struct df_error *err)
{
        char from[DFI_PATH_MAX], to[DFI_PATH_MAX];
        int r = 0;

        for (size_t i = 0; r == 0 && i < m->files.count; i++) {
                const char *name = m->files.v[i].name;
                if ((r = dfi_state_path(from, err, "%s/%s/%s", c->dir, c->current.name, name)) ||
                    (r = dfi_state_path(to, err, "%s/%s", c->live, name)))
                        break;
                r = dfi_is_sst(name) || dfi_is_run(name) ? dfi_link_file(from, to, err)
                                                         : dfi_copy_file(from, to, err);
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

/* ---- the committed offset decides (K8) ---- */

static int verify(const char *dir, const struct dfi_current *which, struct dfi_manifest *ret,
                  struct df_error *err)
{
        int r = dfi_verify_manifest(dir, which->name, which->digest, ret, NULL, err);

        if (r == 0)
                r = dfi_verify_files(dir, which->name, ret, err);
        if (r)
                dfi_manifest_release(ret);
        return r;
}

/* A child of what is committed: persisted, and then perhaps not committed. Its outbox leaves now.
 * Of several the one of the latest owner. */
static void find_child(const char *dir, const struct df_ckpt_ref *of, uint64_t *best,
                       struct dfi_current *ret)
{
        struct dfi_names names = {0};
        struct df_error ignored; /* what cannot be read is no candidate */
        uint64_t k, epoch;

        if (dfi_names_read(dir, &names, &ignored) < 0)
                return;
        for (size_t i = 0; i < names.count; i++) {
                struct dfi_current child = {.present = true};
                struct dfi_manifest m = {0};

                if (!dfi_ck_name_parse(names.v[i], &k, &epoch) || epoch <= *best)
                        continue;
                memcpy(child.name, names.v[i], strlen(names.v[i]));
                if (dfi_verify_manifest(dir, child.name, NULL, &m, child.digest, &ignored) < 0)
                        continue;
                if (strcmp(m.parent, of->name) == 0 &&
                    memcmp(m.parent_digest, of->digest, sizeof(of->digest)) == 0) {
                        *ret = child;
                        *best = epoch;
                }
                dfi_manifest_release(&m);
        }
        dfi_names_release(&names);
}

static int put_aside(const struct dfi_ckpt *c, const char *name, struct df_error *err)
{
        char from[DFI_PATH_MAX], to[DFI_PATH_MAX];
        int r = dfi_state_path(from, err, "%s/%s", c->dir, name);

        if (r == 0)
                r = dfi_state_path(to, err, "%s/damaged-%s", c->dir, name);
        if (r == 0)
                r = dfi_remove_tree(to, err);
        if (r == 0 && rename(from, to) < 0)
                r = df_fail_errno(err, DF_EIO, "cannot rename %s", from);
        return r;
}

/* Here if it is here and whole, else from the store. DF_ENOENT: in neither. */
static int locate(struct dfi_ckpt *c, const struct dfi_current *which, struct dfi_manifest *ret,
                  struct df_error *err)
{
        char path[DFI_PATH_MAX];
        bool here;
        int r = dfi_state_path(path, err, "%s/%s", c->dir, which->name);

        if (r)
                return r;
        here = dfi_exists(path);
        if (here) {
                r = verify(c->dir, which, ret, err);
                if (r != DF_ECORRUPT || !c->store_dir[0])
                        return r;
        }
        if (c->store_dir[0])
                r = dfi_state_path(path, err, "%s/%s", c->store_dir, which->name);
        if (!c->store_dir[0] || (r == 0 && !dfi_exists(path)))
                return here ? df_wrap(err, "and not in the checkpoint store")
                            : df_fail(err, DF_ENOENT,
                                      "the committed checkpoint %s is neither in %s nor in %s; "
                                      "%s (K10)",
                                      which->name, c->dir,
                                      c->store_dir[0] ? c->store_dir
                                                      : "a checkpoint store (--checkpoint-store, "
                                                        "if another machine made it)",
                                      DFI_RECOVER_HINT);
        if (r == 0 && here)
                r = put_aside(c, which->name, err);
        return r ? r : dfi_shared_fetch(c, which, ret, err);
}

/* Nothing was ever committed: so no checkpoint may know of one. */
static int check_never(const struct dfi_ckpt *c, struct df_error *err)
{
        bool was = c->current.present;
        int r = 0;

        if (!was && c->store_dir[0])
                r = dfi_shared_was_committed(c->store_dir, &was, err);
        if (r || !was)
                return r;
        return df_fail(err, DF_ESCHEMA,
                       "%s has checkpoints, but no offset is committed: the group's offsets were "
                       "deleted; put them back, or %s (K14)",
                       c->current.present ? c->dir : c->store_dir, DFI_RECOVER_HINT);
}

static int choose(struct dfi_ckpt *c, const struct df_ckpt_wanted *wanted, struct dfi_manifest *m,
                  bool *ret_candidate, struct df_error *err)
{
        struct dfi_current which = {.present = true}, child = {0}, instead = {0};
        uint64_t best = 0;
        int r = wanted->any || wanted->rebuild ? 0 : check_never(c, err);

        c->current = (struct dfi_current){0};
        if (r || !wanted->any || wanted->rebuild)
                return r;
        memcpy(which.name, wanted->ref.name, sizeof(which.name));
        memcpy(which.digest, wanted->ref.digest, sizeof(which.digest));
        r = dfi_fallback_read(c->store_dir[0] ? c->store_dir : c->dir, which.name, &instead, err);
        if (r == 0 && instead.present) {
                which = instead;
        } else if (r == 0) {
                find_child(c->dir, &wanted->ref, &best, &child);
                if (c->store_dir[0])
                        find_child(c->store_dir, &wanted->ref, &best, &child);
        }
        if (r == 0 && child.present && locate(c, &child, m, err) == 0) {
                c->current = child;
                *ret_candidate = true;
                return 0;
        }
        if (r == 0)
                r = locate(c, &which, m, err);
        if (r == 0)
                c->current = which;
        return r;
}

/* ---- both ---- */

static int take_over(struct dfi_ckpt *c, const struct df_ckpt_wanted *wanted,
                     struct dfi_manifest *m, bool *ret_candidate, struct df_error *err)
{
        struct dfi_names names = {0};

        int r = dfi_names_read(c->dir, &names, err);
        if (r == 0)
                r = count_epoch(c, wanted != NULL, &names, err);
        if (r == 0 && wanted)
                r = choose(c, wanted, m, ret_candidate, err);
        else if (r == 0 && c->current.present)
                r = verify(c->dir, &c->current, m, err);
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

static int takeover(struct df_ckpt *base, const struct df_ckpt_wanted *wanted,
                    struct df_takeover *ret, struct df_error *err)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);
        struct dfi_manifest m = {0};
        bool candidate = false;
        int r = 0;

        df_check(!c->owner);
        if (c->lock_fd < 0)
                r = dfi_state_lock(c->dir, &c->lock_fd, err);
        if (r)
                return r;
        c->doubt = false;
        c->has_candidate = false;
        c->current = (struct dfi_current){0};
        c->current_k = 0;
        c->fetched_bytes = 0;
        r = take_over(c, wanted, &m, &candidate, err);
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
        memcpy(c->uploaded, c->current.name, sizeof(c->uploaded));
        c->owner = true;
        *ret = (struct df_takeover){
                .store = &c->store.base,
                .epoch = c->epoch.epoch,
                .fresh = !c->current.present,
                .candidate = candidate,
                .k = c->current_k,
                .fetched_bytes = c->fetched_bytes,
        };
        memcpy(ret->name, c->current.name, sizeof(ret->name));
        memcpy(ret->digest, c->current.digest, sizeof(ret->digest));
        return 0;
}

int dfi_ckpt_takeover(struct df_ckpt *base, struct df_takeover *ret, struct df_error *err)
{
        return takeover(base, NULL, ret, err);
}

int dfi_ckpt_takeover_at(struct df_ckpt *base, const struct df_ckpt_wanted *wanted,
                         struct df_takeover *ret, struct df_error *err)
{
        return takeover(base, wanted, ret, err);
}
