/* kv_files.c - a checkpoint of the plain store put back into its place. */
#include "rocksdb_private.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Hard links for immutable files, copies of the rest: the checkpoint stays usable. */
static int fill(const char *from, const char *to, struct df_error *err)
{
        struct dfi_names names = {0};
        char source[DFI_PATH_MAX], target[DFI_PATH_MAX];

        int r = dfi_names_read(from, &names, err);
        for (size_t i = 0; r == 0 && i < names.count; i++) {
                if ((r = dfi_state_path(source, err, "%s/%s", from, names.v[i])) ||
                    (r = dfi_state_path(target, err, "%s/%s", to, names.v[i])))
                        break;
                r = dfi_is_sst(names.v[i]) ? dfi_link_file(source, target, err)
                                           : dfi_copy_file(source, target, err);
                if (r == 0)
                        r = dfi_sync_file(target, err);
        }
        dfi_names_release(&names);
        return r ? r : dfi_state_sync_dir(to, err);
}

int df_kv_restore(const char *checkpoint_dir, const char *dir, struct df_error *err)
{
        char fresh[DFI_PATH_MAX], current[DFI_PATH_MAX], hex[17];
        uint8_t random[8];

        int r = dfi_state_path(current, err, "%s/CURRENT", checkpoint_dir);
        if (r)
                return r;
        if (!dfi_exists(current))
                return df_fail(err, DF_ENOENT, "%s: there is no checkpoint of a view here",
                               checkpoint_dir);
        r = df_random(random, sizeof(random), err);
        if (r)
                return r;
        df_hex(random, sizeof(random), hex);
        r = dfi_state_path(fresh, err, "%s.restore-%s", dir, hex);
        if (r)
                return r;
        if (mkdir(fresh, 0750) < 0)
                return df_fail_errno(err, DF_EIO, "cannot create %s", fresh);
        r = fill(checkpoint_dir, fresh, err);
        if (r)
                goto out;
        /* In one step: what was there, if anything, is in `fresh` afterwards. */
        const bool replace = dfi_exists(dir);
        if (renameat2(AT_FDCWD, fresh, AT_FDCWD, dir, replace ? RENAME_EXCHANGE : 0) < 0) {
                r = df_fail_errno(err, DF_EIO, "cannot put %s in the place of %s", fresh, dir);
                goto out;
        }
        r = dfi_sync_parent(dir, err);
out:
        if (dfi_exists(fresh)) {
                struct df_error ignored;
                (void)dfi_remove_tree(fresh, &ignored); /* what is left is only disk space */
        }
        return r;
}
