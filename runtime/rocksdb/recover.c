/* recover.c - what `adtally recover --partition N` does to a state directory (K11). */
#include "rocksdb_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>

/* Added to the greatest epoch seen when EPOCH itself is lost: takeovers that left no trace. */
#define EPOCH_JUMP (1u << 20)
#define LOST_MAX 10000

struct found {
        struct df_rocksdb_ckpt_info info;
        uint8_t digest[DF_SHA256_SIZE];
        char parent[DF_CKPT_NAME_MAX + 1];
        bool manifest_ok;
};

struct all_found {
        struct found *v; /* newest first */
        size_t count;
};

static int compare_newest(const void *pa, const void *pb)
{
        const struct df_rocksdb_ckpt_info *a = &((const struct found *)pa)->info;
        const struct df_rocksdb_ckpt_info *b = &((const struct found *)pb)->info;

        if (a->k != b->k)
                return a->k < b->k ? 1 : -1;
        if (a->epoch != b->epoch)
                return a->epoch < b->epoch ? 1 : -1;
        return strcmp(a->name, b->name);
}

/* Problems of the checkpoint are told in f; only problems of this machine are returned. */
static int inspect(const char *dir, const uint8_t *digest, bool with_files, struct found *f,
                   struct df_error *err)
{
        struct dfi_manifest m = {0};
        struct df_error local = {0};

        int r = dfi_verify_manifest(dir, f->info.name, digest, &m, f->digest, &local);
        f->manifest_ok = r == 0;
        if (r == 0) {
                memcpy(f->parent, m.parent, sizeof(f->parent));
                f->info.files = m.files.count;
                for (size_t i = 0; i < m.files.count; i++)
                        f->info.bytes += m.files.v[i].size_bytes;
                if (with_files)
                        r = dfi_verify_files(dir, f->info.name, &m, &local);
        }
        f->info.verified = r == 0;
        if (r)
                (void)snprintf(f->info.problem, sizeof(f->info.problem), "%.255s", local.text);
        dfi_manifest_release(&m);
        if (r == DF_ENOMEM)
                return df_fail(err, r, "%s", local.text);
        return 0;
}

static int find_all(const char *dir, const struct dfi_current *current, bool with_files,
                    struct all_found *ret, struct df_error *err)
{
        struct dfi_names names = {0};
        char path[DFI_PATH_MAX];

        int r = dfi_names_read(dir, &names, err);
        if (r)
                return r;
        ret->v = calloc(names.count + 1, sizeof(*ret->v));
        if (!ret->v)
                r = df_fail(err, DF_ENOMEM, "%s: no memory", dir);
        for (size_t i = 0; r == 0 && i < names.count; i++) {
                struct found f = {0};
                if (!dfi_ck_name_parse(names.v[i], &f.info.k, &f.info.epoch))
                        continue;
                (void)snprintf(f.info.name, sizeof(f.info.name), "%.63s", names.v[i]);
                f.info.is_current = current && strcmp(f.info.name, current->name) == 0;
                r = inspect(dir, f.info.is_current ? current->digest : NULL, with_files, &f, err);
                if (r == 0)
                        r = dfi_state_path(path, err, "%s/%s", dir, f.info.name);
                if (r == 0 && (f.info.verified || dfi_exists(path)))
                        ret->v[ret->count++] = f;
        }
        dfi_names_release(&names);
        if (r) {
                free(ret->v);
                *ret = (struct all_found){0};
        } else if (ret->count) {
                qsort(ret->v, ret->count, sizeof(*ret->v), compare_newest);
        }
        return r;
}

int df_rocksdb_ckpt_list(const char *dir, bool with_files,
                         int (*fn)(void *arg, const struct df_rocksdb_ckpt_info *info,
                                   struct df_error *err),
                         void *arg, struct df_error *err)
{
        struct dfi_current current = {0};
        struct all_found all = {0};
        struct df_error ignored;

        if (dfi_current_read(dir, &current, &ignored) != 0)
                current = (struct dfi_current){0}; /* then none of them is it */
        int r = find_all(dir, &current, with_files, &all, err);
        for (size_t i = 0; r == 0 && i < all.count; i++)
                r = fn(arg, &all.v[i].info, err);
        free(all.v);
        return r;
}

/* A checkpoint is known to have been published when a later one names it as its parent. A candidate
 * that never was published must not become CURRENT while it can be helped: the outputs of the one
 * before it may not be out (K4). */
static bool is_parent(const struct all_found *all, const char *name)
{
        for (size_t i = 0; i < all->count; i++)
                if (all->v[i].manifest_ok && strcmp(all->v[i].parent, name) == 0)
                        return true;
        return false;
}

static const struct found *choose(const struct all_found *all, const char *from)
{
        uint64_t k = UINT64_MAX, epoch = 0;

        if (from[0])
                (void)dfi_ck_name_parse(from, &k, &epoch);
        for (int pass = 0; pass < 2; pass++)
                for (size_t i = 0; i < all->count; i++) {
                        const struct found *f = &all->v[i];
                        if (f->info.verified && f->info.k < k && strcmp(f->info.name, from) != 0 &&
                            (pass == 1 || is_parent(all, f->info.name)))
                                return f;
                }
        return NULL;
}

/* EPOCH, or when it is lost a number above every epoch that left a trace. */
static int find_epoch(const char *dir, struct dfi_epoch *ret, bool *ret_lost, struct df_error *err)
{
        struct dfi_names names = {0};
        uint64_t greatest = 0;
        bool any = false;

        int r = dfi_epoch_read(dir, ret, err);
        if (r && r != DF_ECORRUPT)
                return r;
        *ret_lost = r != 0;
        r = dfi_names_read(dir, &names, err);
        for (size_t i = 0; r == 0 && i < names.count; i++) {
                uint64_t k, epoch = 0;
                if (strncmp(names.v[i], "live-", 5) == 0)
                        any |= dfi_parse_u64(names.v[i] + 5, '-', &epoch) != NULL;
                else
                        any |= dfi_ck_name_parse(names.v[i], &k, &epoch);
                if (epoch > greatest)
                        greatest = epoch;
        }
        dfi_names_release(&names);
        if (!*ret_lost && (ret->epoch < greatest || (ret->epoch == 0 && any)))
                *ret_lost = true;
        if (*ret_lost)
                *ret = (struct dfi_epoch){.epoch = greatest + EPOCH_JUMP, .published = true};
        return r;
}

/* What is wrong with CURRENT; "" in ret->problem when nothing is. */
static int diagnose(const char *dir, const struct dfi_epoch *epoch, bool epoch_lost,
                    struct dfi_current *current, const struct all_found *all,
                    struct df_rocksdb_fallback *ret, struct df_error *err)
{
        struct df_error local = {0};

        int r = dfi_current_read(dir, current, &local);
        if (r && r != DF_ECORRUPT)
                return df_fail(err, r, "%s", local.text);
        if (r) {
                (void)snprintf(ret->problem, sizeof(ret->problem), "%.255s", local.text);
                return 0;
        }
        if (!current->present) {
                if (!epoch->published && !epoch_lost)
                        return df_fail(err, DF_ENOENT,
                                       "%s: nothing to recover, no checkpoint was ever published",
                                       dir);
                (void)snprintf(ret->problem, sizeof(ret->problem), "CURRENT is missing");
                return 0;
        }
        memcpy(ret->from, current->name, sizeof(ret->from));
        (void)snprintf(ret->problem, sizeof(ret->problem), "%s is missing", current->name);
        for (size_t i = 0; i < all->count; i++)
                if (strcmp(all->v[i].info.name, current->name) == 0)
                        memcpy(ret->problem, all->v[i].info.problem, sizeof(ret->problem));
        return 0;
}

static int make_current(const char *dir, const struct found *to, const char *from,
                        const struct dfi_epoch *epoch, struct df_error *err)
{
        struct dfi_current c = {.present = true};
        char damaged[DFI_PATH_MAX], kept[DFI_PATH_MAX];

        int r = dfi_epoch_write(dir, epoch, err);
        if (r == 0 && to) {
                memcpy(c.name, to->info.name, sizeof(c.name));
                memcpy(c.digest, to->digest, sizeof(c.digest));
                r = dfi_current_write(dir, &c, err);
        }
        if (r || !to || !from[0])
                return r;
        r = dfi_state_path(damaged, err, "%s/%s", dir, from);
        if (r == 0)
                r = dfi_state_path(kept, err, "%s/damaged-%s", dir, from);
        if (r == 0 && rename(damaged, kept) < 0 && errno != ENOENT)
                r = df_fail_errno(err, DF_EIO, "cannot rename %s", damaged);
        return r ? r : dfi_state_sync_dir(dir, err);
}

int df_rocksdb_ckpt_fallback(const char *dir, bool dry_run, struct df_rocksdb_fallback *ret,
                             struct df_error *err)
{
        struct df_rocksdb_fallback result = {0};
        struct dfi_current current = {0};
        struct all_found all = {0};
        struct dfi_epoch epoch = {0};
        struct df_error ignored;
        const struct found *to = NULL;
        bool epoch_lost = false;
        int lock = -1;

        int r = dfi_state_lock(dir, &lock, err);
        if (r)
                return r;
        r = find_epoch(dir, &epoch, &epoch_lost, err);
        if (r == 0 && dfi_current_read(dir, &current, &ignored) != 0)
                current = (struct dfi_current){0};
        if (r == 0)
                r = find_all(dir, &current, true, &all, err);
        if (r == 0)
                r = diagnose(dir, &epoch, epoch_lost, &current, &all, &result, err);
        if (r)
                goto out;
        if (result.problem[0]) {
                to = choose(&all, result.from);
                if (!to) {
                        r = df_fail(err, DF_ENOENT,
                                    "%s: no other checkpoint verifies; use `adtally recover "
                                    "--partition N --from log`",
                                    dir);
                        goto out;
                }
                memcpy(result.to, to->info.name, sizeof(result.to));
                result.k = to->info.k;
        } else if (epoch_lost) { /* CURRENT is well: only EPOCH is written anew */
                uint64_t unused;
                memcpy(result.to, result.from, sizeof(result.to));
                (void)dfi_ck_name_parse(result.to, &result.k, &unused);
                (void)snprintf(result.problem, sizeof(result.problem), "EPOCH is damaged");
        } else {
                r = df_fail(err, DF_EEXIST, "%s: %s verifies, there is nothing to recover", dir,
                            result.from);
                goto out;
        }
        epoch.published = true;
        if (!dry_run)
                r = make_current(dir, to, result.from, &epoch, err);
        if (r == 0)
                *ret = result;
out:
        free(all.v);
        dfi_unlock(&lock);
        return r;
}

/* Everything but what takeovers count and lock with. CURRENT goes last: as long as it is there, an
 * interrupted reset shows as a missing checkpoint, not as a fresh start. */
static int move_aside(const char *dir, const char *lost, bool *ret_any, struct df_error *err)
{
        struct dfi_names names = {0};
        char from[DFI_PATH_MAX], to[DFI_PATH_MAX];

        int r = dfi_names_read(dir, &names, err);
        for (int pass = 0; r == 0 && pass < 2; pass++) {
                for (size_t i = 0; r == 0 && i < names.count; i++) {
                        const char *n = names.v[i];
                        if (strcmp(n, "LOCK") == 0 || strncmp(n, "EPOCH", 5) == 0 ||
                            (strcmp(n, "CURRENT") == 0) != (pass == 1))
                                continue;
                        *ret_any = true;
                        if (!lost)
                                continue;
                        if ((r = dfi_state_path(from, err, "%s/%s", dir, n)) ||
                            (r = dfi_state_path(to, err, "%s/%s", lost, n)))
                                break;
                        if (rename(from, to) < 0)
                                r = df_fail_errno(err, DF_EIO, "cannot move %s to %s", from, to);
                }
                if (r == 0 && lost && (r = dfi_state_sync_dir(lost, err)) == 0)
                        r = dfi_state_sync_dir(dir, err);
        }
        dfi_names_release(&names);
        return r;
}

static int find_lost_name(const char *dir, char ret[DFI_PATH_MAX], struct df_error *err)
{
        size_t len = strlen(dir);

        while (len > 1 && dir[len - 1] == '/')
                len--;
        for (int n = 1; n <= LOST_MAX; n++) {
                int r = dfi_state_path(ret, err, "%.*s.lost-%d", (int)len, dir, n);
                if (r || !dfi_exists(ret))
                        return r;
        }
        return df_fail(err, DF_ELIMIT, "%s.lost-1 to %d all exist; delete some", dir, LOST_MAX);
}

int df_rocksdb_ckpt_reset(const char *dir, bool dry_run, char *ret_moved_to, struct df_error *err)
{
        struct dfi_epoch epoch = {0};
        char lost[DFI_PATH_MAX];
        bool epoch_lost = false, any = false;
        int lock = -1;

        int r = dfi_state_lock(dir, &lock, err);
        if (r)
                return r;
        r = find_epoch(dir, &epoch, &epoch_lost, err);
        if (r == 0)
                r = move_aside(dir, NULL, &any, err);
        if (r == 0 && !any && !epoch.published)
                r = df_fail(err, DF_ENOENT, "%s holds no state", dir);
        if (r == 0)
                r = find_lost_name(dir, lost, err);
        if (r || dry_run)
                goto out;
        if (mkdir(lost, 0750) < 0) {
                r = df_fail_errno(err, DF_EIO, "cannot create %s", lost);
                goto out;
        }
        if (epoch_lost) /* before its traces are moved away */
                r = dfi_epoch_write(dir, &epoch, err);
        if (r == 0)
                r = dfi_sync_parent(lost, err);
        if (r == 0)
                r = move_aside(dir, lost, &any, err);
        epoch.published = false;
        if (r == 0)
                r = dfi_epoch_write(dir, &epoch, err);
out:
        if (r == 0 && ret_moved_to)
                memcpy(ret_moved_to, lost, sizeof(lost));
        dfi_unlock(&lock);
        return r;
}
