/* recover_at.c - `adtally recover --from checkpoint` where the committed offset decides which
 * checkpoint is opened (K8, K11): it cannot be changed here, so the file FALLBACK says what to open
 * in its place, "<committed name> <older name> <SHA-256 of its manifest>\n". It is in the
 * checkpoint store, for whichever machine takes over, or in the state directory when there is none.
 * It means nothing any more once another checkpoint is committed. */
#include "rocksdb_private.h"

#include <errno.h>
#include <stdlib.h>

#define FALLBACK_MAX 4096

int dfi_fallback_read(const char *dir, const char *of, struct dfi_current *ret,
                      struct df_error *err)
{
        struct df_buf text = {0};
        char path[DFI_PATH_MAX], hex[DF_SHA256_HEX_SIZE], from[DF_CKPT_NAME_MAX + 1];
        struct dfi_current to = {.present = true};
        uint64_t k, epoch;
        int r = dfi_state_path(path, err, "%s/FALLBACK", dir);

        *ret = (struct dfi_current){0};
        if (r == 0)
                r = dfi_read_file(path, FALLBACK_MAX, &text, err);
        if (r == 0) {
                df_put_u8(&text, 0);
                r = df_buf_check(&text, err);
        }
        if (r == 0 &&
            (sscanf((const char *)text.data, "%63s %63s %64s", from, to.name, hex) != 3 ||
             !dfi_ck_name_parse(to.name, &k, &epoch) || !dfi_unhex(hex, DF_SHA256_SIZE, to.digest)))
                r = df_fail(err, DF_ECORRUPT,
                            "%s is damaged: delete it, then `adtally recover` again", path);
        if (r == 0 && strcmp(from, of) == 0)
                *ret = to;
        df_buf_release(&text);
        return r == DF_ENOENT ? 0 : r;
}

static int fallback_write(const char *dir, const char *of, const struct df_rocksdb_fallback *f,
                          const uint8_t *digest, struct df_error *err)
{
        char line[2 * DF_CKPT_NAME_MAX + DF_SHA256_HEX_SIZE + 8], hex[DF_SHA256_HEX_SIZE];
        int n;

        df_hex(digest, DF_SHA256_SIZE, hex);
        n = snprintf(line, sizeof(line), "%s %s %s\n", of, f->to, hex);
        df_check(n > 0 && (size_t)n < sizeof(line));
        return dfi_replace_file(dir, "FALLBACK", df_bytes(line, (size_t)n), err);
}

/* ---- which one ---- */

struct search {
        const char *dir, *wanted;
        uint64_t below; /* k of the wanted one */
        struct df_rocksdb_fallback *best;
        uint8_t *digest;
};

static int consider(void *arg, const struct df_rocksdb_ckpt_info *info, struct df_error *err)
{
        struct search *s = arg;
        struct dfi_manifest m = {0};
        int r;

        if (!info->verified || info->k >= s->below || info->k <= s->best->k)
                return 0;
        r = dfi_verify_manifest(s->dir, info->name, NULL, &m, s->digest, err);
        dfi_manifest_release(&m);
        if (r)
                return r;
        s->best->k = info->k;
        memcpy(s->best->to, info->name, sizeof(s->best->to));
        return 0;
}

static int is_whole(const char *dir, const struct dfi_current *which, char problem[256],
                    struct df_error *err)
{
        struct dfi_manifest m = {0};
        struct df_error local = {0};
        char path[DFI_PATH_MAX];
        int r = dfi_state_path(path, err, "%s/%s", dir, which->name);

        if (r)
                return r;
        if (!dfi_exists(path))
                r = df_fail(&local, DF_ENOENT, "%s is missing", path);
        if (r == 0)
                r = dfi_verify_manifest(dir, which->name, which->digest, &m, NULL, &local);
        if (r == 0)
                r = dfi_verify_files(dir, which->name, &m, &local);
        dfi_manifest_release(&m);
        if (r == 0)
                return df_fail(err, DF_EEXIST, "%s verifies, there is nothing to recover", path);
        (void)snprintf(problem, 256, "%.255s", local.text);
        return 0;
}

static int keep_damaged(const char *dir, const char *name, struct df_error *err)
{
        char from[DFI_PATH_MAX], to[DFI_PATH_MAX];
        int r = dfi_state_path(from, err, "%s/%s", dir, name);

        if (r == 0)
                r = dfi_state_path(to, err, "%s/damaged-%s", dir, name);
        if (r == 0 && rename(from, to) < 0)
                return errno == ENOENT ? 0 : df_fail_errno(err, DF_EIO, "cannot rename %s", from);
        return r ? r : dfi_state_sync_dir(dir, err);
}

static int find_older(struct search *s, const char *const *dirs, struct df_error *err)
{
        int r = 0;

        for (size_t i = 0; r == 0 && i < 2; i++) {
                if (!dirs[i] || !dfi_exists(dirs[i]))
                        continue;
                s->dir = dirs[i];
                r = df_rocksdb_ckpt_list(dirs[i], true, consider, s, err);
        }
        return r;
}

int df_rocksdb_ckpt_fallback_at(const char *dir, const char *store_dir,
                                const struct df_ckpt_ref *wanted, bool dry_run,
                                struct df_rocksdb_fallback *ret, struct df_error *err)
{
        struct df_rocksdb_fallback f = {0};
        struct dfi_current which = {.present = true};
        const char *const dirs[] = {dir, store_dir};
        uint8_t digest[DF_SHA256_SIZE];
        struct search s = {.wanted = wanted->name, .best = &f, .digest = digest};
        uint64_t epoch;
        int r, lock = -1;

        memcpy(which.name, wanted->name, sizeof(which.name));
        memcpy(which.digest, wanted->digest, sizeof(which.digest));
        if (!dfi_ck_name_parse(wanted->name, &s.below, &epoch))
                return df_fail(err, DF_ESCHEMA, "the committed offset names no checkpoint: %s",
                               wanted->name);
        r = dfi_make_dirs(dir, err);
        if (r == 0)
                r = dfi_state_lock(dir, &lock, err);
        for (size_t i = 0; r == 0 && i < 2; i++)
                if (dirs[i])
                        r = is_whole(dirs[i], &which, f.problem, err);
        if (r == 0)
                r = find_older(&s, dirs, err);
        if (r == 0 && f.k == 0)
                r = df_fail(err, DF_ENOENT,
                            "%s: no other checkpoint verifies; use `adtally recover --partition N "
                            "--from log`",
                            dir);
        memcpy(f.from, wanted->name, sizeof(f.from));
        for (size_t i = 0; r == 0 && !dry_run && i < 2; i++)
                if (dirs[i])
                        r = keep_damaged(dirs[i], wanted->name, err);
        if (r == 0 && !dry_run)
                r = fallback_write(store_dir ? store_dir : dir, wanted->name, &f, digest, err);
        if (r == 0)
                *ret = f;
        dfi_unlock(&lock);
        return r;
}

int df_rocksdb_ckpt_set_aside(const char *store_dir, const char *name, struct df_error *err)
{
        return keep_damaged(store_dir, name, err);
}
