/* ckpt_shared.c - the checkpoint store: a directory that every machine sees (K2, K8).
 *
 *   STORE/epochs/<n>                 one empty file a takeover, made with O_EXCL: no two owners on
 *                                    any machines have the same epoch
 *   STORE/ck-<k>-<epoch>-<random>/   a checkpoint, whole: renamed from tmp-<name> when every file
 *                                    is durable; they share what never changes by hard links
 *   STORE/FALLBACK                   of `adtally recover --from checkpoint` (recover_at.c)
 *
 * Nobody is locked out: an owner that was fenced goes on until it notices. Harmless, for names
 * carry the owner's epoch, and an owner deletes nothing of a later epoch, nor what the offset that
 * it committed last names, from which its successor began.
 */
#include "rocksdb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define EPOCH_TRIES 1000

/* ---- epochs ---- */

static uint64_t number_of(const char *name)
{
        uint64_t n;
        const char *end = dfi_parse_u64(name, '\0', &n);

        return end ? n : 0;
}

static int greatest_epoch(const char *dir, uint64_t *ret, struct dfi_names *names,
                          struct df_error *err)
{
        int r = dfi_names_read(dir, names, err);

        *ret = 0;
        for (size_t i = 0; r == 0 && i < names->count; i++)
                if (number_of(names->v[i]) > *ret)
                        *ret = number_of(names->v[i]);
        return r;
}

static int create_number(const char *dir, uint64_t n, bool *ret_made, struct df_error *err)
{
        char path[DFI_PATH_MAX];
        int fd, r = dfi_state_path(path, err, "%s/%" PRIu64, dir, n);

        if (r)
                return r;
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
        *ret_made = fd >= 0;
        if (fd < 0)
                return errno == EEXIST ? 0 : df_fail_errno(err, DF_EIO, "cannot create %s", path);
        (void)close(fd); /* empty */
        return dfi_state_sync_dir(dir, err);
}

static void remove_below(const char *dir, const struct dfi_names *names, uint64_t below)
{
        char path[DFI_PATH_MAX];
        struct df_error ignored; /* the next takeover does it */

        for (size_t i = 0; i < names->count; i++)
                if (number_of(names->v[i]) > 0 && number_of(names->v[i]) < below &&
                    dfi_state_path(path, &ignored, "%s/%s", dir, names->v[i]) == 0)
                        (void)dfi_remove_tree(path, &ignored);
}

/* A number counts only while no greater one is there: a slow process may make one again that was
 * used and deleted, but never the greatest, which stays. */
int dfi_shared_epoch(const char *store, uint64_t at_least, uint64_t *ret, struct df_error *err)
{
        char dir[DFI_PATH_MAX];
        int r = dfi_state_path(dir, err, "%s/epochs", store);

        if (r == 0)
                r = dfi_make_dirs(dir, err);
        for (int i = 0; r == 0 && i < EPOCH_TRIES; i++) {
                struct dfi_names names = {0};
                uint64_t greatest, mine;
                bool made = false;

                r = greatest_epoch(dir, &greatest, &names, err);
                dfi_names_release(&names);
                mine = greatest + 1 > at_least ? greatest + 1 : at_least;
                if (r == 0)
                        r = create_number(dir, mine, &made, err);
                if (r == 0 && made)
                        r = greatest_epoch(dir, &greatest, &names, err);
                if (r == 0 && made && greatest == mine) {
                        remove_below(dir, &names, mine);
                        dfi_names_release(&names);
                        *ret = mine;
                        return 0;
                }
                dfi_names_release(&names);
        }
        return r ? r
                 : df_fail(err, DF_EAGAIN, "%s: others take this partition over all the time", dir);
}

/* ---- upload ---- */

/* A link to what the store has already, or a durable copy. */
static int upload_file(const struct dfi_ckpt *c, const struct dfi_file *f, const char *local,
                       const char *to, struct df_error *err)
{
        const struct dfi_file *before = dfi_files_find(&c->known, f->name);
        char from[DFI_PATH_MAX];
        int r;

        if (before && c->uploaded[0] && dfi_is_immutable(f->name) &&
            before->size_bytes == f->size_bytes &&
            memcmp(before->digest, f->digest, sizeof(f->digest)) == 0) {
                r = dfi_state_path(from, err, "%s/%s/%s", c->store_dir, c->uploaded, f->name);
                if (r)
                        return r;
                if (link(from, to) == 0)
                        return 0;
        }
        r = dfi_state_path(from, err, "%s/%s", local, f->name);
        if (r == 0)
                r = dfi_copy_file(from, to, err);
        return r ? r : dfi_sync_file(to, err);
}

static int upload_into(const struct dfi_ckpt *c, const char *local, const struct dfi_files *files,
                       const char *half, struct df_error *err)
{
        struct dfi_file manifest = {.name = DFI_MANIFEST_NAME};
        char to[DFI_PATH_MAX];
        int r = 0;

        if (mkdir(half, 0750) < 0)
                return df_fail_errno(err, DF_EIO, "cannot create %s", half);
        for (size_t i = 0; r == 0 && i <= files->count; i++) {
                const struct dfi_file *f = i < files->count ? &files->v[i] : &manifest;

                r = dfi_state_path(to, err, "%s/%s", half, f->name);
                if (r == 0)
                        r = upload_file(c, f, local, to, err);
        }
        return r ? r : dfi_state_sync_dir(half, err);
}

int dfi_shared_upload(struct dfi_ckpt *c, const char *name, const struct dfi_files *files,
                      struct df_error *err)
{
        char local[DFI_PATH_MAX], half[DFI_PATH_MAX], whole[DFI_PATH_MAX];
        struct df_error ignored;
        int r = dfi_state_path(local, err, "%s/%s", c->dir, name);

        if (r == 0)
                r = dfi_state_path(half, err, "%s/tmp-%s", c->store_dir, name);
        if (r == 0)
                r = dfi_state_path(whole, err, "%s/%s", c->store_dir, name);
        if (r)
                return r;
        r = upload_into(c, local, files, half, err);
        if (r == 0 && rename(half, whole) < 0)
                r = df_fail_errno(err, DF_EIO, "cannot rename %s", half);
        if (r == 0)
                r = dfi_state_sync_dir(c->store_dir, err);
        if (r)
                (void)dfi_remove_tree(half, &ignored);
        else
                memcpy(c->uploaded, name, strlen(name) + 1);
        return r;
}

/* ---- fetch ---- */

static int fetch_files(struct dfi_ckpt *c, const char *name, const struct dfi_files *files,
                       const char *half, struct df_error *err)
{
        char from[DFI_PATH_MAX], to[DFI_PATH_MAX];
        int r = 0;

        if (mkdir(half, 0750) < 0)
                return df_fail_errno(err, DF_EIO, "cannot create %s", half);
        for (size_t i = 0; r == 0 && i <= files->count; i++) {
                const char *n = i < files->count ? files->v[i].name : DFI_MANIFEST_NAME;

                r = dfi_state_path(from, err, "%s/%s/%s", c->store_dir, name, n);
                if (r == 0)
                        r = dfi_state_path(to, err, "%s/%s", half, n);
                if (r == 0 && !dfi_exists(from))
                        r = df_fail(err, DF_ECORRUPT, "%s is missing; %s", from, DFI_RECOVER_HINT);
                if (r == 0)
                        r = dfi_copy_file(from, to, err);
                if (r == 0 && i < files->count)
                        c->fetched_bytes += files->v[i].size_bytes;
        }
        return r;
}

/* Under its own name only when every file is what the manifest says. */
int dfi_shared_fetch(struct dfi_ckpt *c, const struct dfi_current *which, struct dfi_manifest *ret,
                     struct df_error *err)
{
        char name[DFI_FILE_NAME_MAX + 8], half[DFI_PATH_MAX], whole[DFI_PATH_MAX];
        struct df_error ignored;
        int r = dfi_state_path(whole, err, "%s/%s", c->dir, which->name);

        (void)snprintf(name, sizeof(name), "%s.tmp", which->name);
        if (r == 0)
                r = dfi_state_path(half, err, "%s/%s", c->dir, name);
        if (r == 0)
                r = dfi_remove_tree(half, err);
        if (r)
                return r;
        r = dfi_verify_manifest(c->store_dir, which->name, which->digest, ret, NULL, err);
        if (r == 0)
                r = fetch_files(c, which->name, &ret->files, half, err);
        if (r == 0)
                r = dfi_verify_files(c->dir, name, ret, err);
        if (r == 0 && rename(half, whole) < 0)
                r = df_fail_errno(err, DF_EIO, "cannot rename %s", half);
        if (r == 0)
                return 0;
        (void)dfi_remove_tree(half, &ignored);
        dfi_manifest_release(ret);
        return df_wrap(err, "fetched from the checkpoint store %s", c->store_dir);
}

/* ---- the end of old ones ---- */

int dfi_shared_retire(const struct dfi_ckpt *c, struct df_error *err)
{
        struct dfi_names names = {0};
        char path[DFI_PATH_MAX];
        uint64_t k, epoch;
        int r = dfi_names_read(c->store_dir, &names, err);

        for (size_t i = 0; r == 0 && i < names.count; i++) {
                const char *n = names.v[i];
                bool half = strncmp(n, "tmp-", 4) == 0;

                if (!dfi_ck_name_parse(half ? n + 4 : n, &k, &epoch) || epoch > c->epoch.epoch ||
                    (half && epoch == c->epoch.epoch) || strcmp(n, c->current.name) == 0 ||
                    strcmp(n, c->current_parent) == 0 ||
                    (c->has_candidate && strcmp(n, c->candidate.name) == 0))
                        continue;
                r = dfi_state_path(path, err, "%s/%s", c->store_dir, n);
                if (r == 0)
                        r = dfi_remove_tree(path, err);
        }
        dfi_names_release(&names);
        return r;
}

/* A checkpoint with a parent is there: something was committed once. */
int dfi_shared_was_committed(const char *store, bool *ret, struct df_error *err)
{
        struct dfi_names names = {0};
        uint64_t k, epoch;
        int r = dfi_names_read(store, &names, err);

        *ret = false;
        for (size_t i = 0; r == 0 && i < names.count; i++)
                *ret |= dfi_ck_name_parse(names.v[i], &k, &epoch) && k > 1;
        dfi_names_release(&names);
        return r;
}
