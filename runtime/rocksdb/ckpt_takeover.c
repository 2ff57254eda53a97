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

/* The committed offset decides (K8): a valid child of what it names is opened first, which was
 * persisted and then perhaps not committed: its outbox leaves now. */
static bool find_child(struct dfi_ckpt *c, const struct df_ckpt_ref *of,
                       const struct dfi_names *names, struct dfi_current *ret)
{
        uint64_t k, epoch, best = 0;

        for (size_t i = 0; i < names->count; i++) {
                struct dfi_current child = {.present = true};
                struct dfi_manifest m = {0};
                struct df_error ignored; /* a damaged candidate is none */

                if (!dfi_ck_name_parse(names->v[i], &k, &epoch) || epoch < best)
                        continue;
                memcpy(child.name, names->v[i], strlen(names->v[i]));
                if (dfi_verify_manifest(c->dir, child.name, NULL, &m, child.digest, &ignored) < 0)
                        continue;
                if (strcmp(m.parent, of->name) == 0 &&
                    memcmp(m.parent_digest, of->digest, sizeof(of->digest)) == 0 &&
                    dfi_verify_files(c->dir, child.name, &m, &ignored) == 0) {
                        *ret = child;
                        best = epoch;
                }
                dfi_manifest_release(&m);
        }
        return best > 0;
}

static bool has_name(const struct dfi_names *names, const char *prefix, const char *name)
{
        size_t n = strlen(prefix);

        for (size_t i = 0; i < names->count; i++)
                if (strncmp(names->v[i], prefix, n) == 0 && strcmp(names->v[i] + n, name) == 0)
                        return true;
        return false;
}

static int choose(struct dfi_ckpt *c, const struct df_ckpt_wanted *wanted,
                  const struct dfi_names *names, bool *ret_candidate, struct df_error *err)
{
        if (wanted->rebuild && !c->current.present)
                return 0;
        if (!wanted->any && c->current.present)
                return df_fail(err, DF_ESCHEMA,
                               "%s has checkpoint %s, but no offset is committed: the group's "
                               "offsets were deleted; put them back, or %s (K14)",
                               c->dir, c->current.name, DFI_RECOVER_HINT);
        if (!wanted->any)
                return 0;
        if (find_child(c, &wanted->ref, names, &c->current)) {
                *ret_candidate = true;
                return 0;
        }
        if (has_name(names, "", wanted->ref.name)) {
                c->current = (struct dfi_current){.present = true};
                memcpy(c->current.name, wanted->ref.name, sizeof(c->current.name));
                memcpy(c->current.digest, wanted->ref.digest, sizeof(c->current.digest));
                return 0;
        }
        /* `adtally recover --from checkpoint` set it aside: CURRENT names what it went back to. */
        if (c->current.present && has_name(names, "damaged-", wanted->ref.name))
                return 0;
        return df_fail(err, DF_ENOENT, "%s does not hold the committed checkpoint %s; %s (K10)",
                       c->dir, wanted->ref.name, DFI_RECOVER_HINT);
}

static int take_over(struct dfi_ckpt *c, const struct df_ckpt_wanted *wanted,
                     struct dfi_manifest *m, bool *ret_candidate, struct df_error *err)
{
        struct dfi_names names = {0};

        int r = dfi_names_read(c->dir, &names, err);
        if (r == 0)
                r = count_epoch(c, &names, err);
        if (r == 0 && wanted)
                r = choose(c, wanted, &names, ret_candidate, err);
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
        c->owner = true;
        *ret = (struct df_takeover){
                .store = &c->store.base,
                .epoch = c->epoch.epoch,
                .fresh = !c->current.present,
                .candidate = candidate,
                .k = c->current_k,
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
