/* ckpt_persist.c - a new checkpoint (persist), its commit (publish), and the end of old ones. */
#include "rocksdb_private.h"

#include <inttypes.h>
#include <sys/stat.h>

static int check_usable(struct dfi_ckpt *c, struct df_error *err)
{
        df_check(c->owner);
        if (c->doubt)
                return df_fail(err, DF_EIO, "%s: publishing failed before; take over again",
                               c->dir);
        return dfi_store_alive(&c->store, err);
}

/* RocksDB links these into a checkpoint and never writes them again; the live store's own link
 * keeps the inode from being used for anything else. */
bool dfi_is_immutable(const char *name)
{
        return dfi_is_sst(name) || dfi_is_run(name) || strncmp(name, "OPTIONS-", 8) == 0;
}

static bool is_same(const struct dfi_file *known, const struct dfi_file *f)
{
        return known && known->size_bytes == f->size_bytes && known->inode == f->inode;
}

/* SHA-256 of an immutable file is taken once in a process's life, of a run while it is written.
 * RocksDB syncs tables and what it copies, but not the OPTIONS file that it links. */
static int hash_file(const struct dfi_ckpt *c, const char *file, struct dfi_file *f,
                     struct df_error *err)
{
        const struct dfi_file *known = dfi_files_find(&c->known, f->name);
        int rc;

        if (!is_same(known, f) || !dfi_is_immutable(f->name))
                known = dfi_runs_file(c->store.runs, f->name);
        if (is_same(known, f)) {
                memcpy(f->digest, known->digest, sizeof(f->digest));
                return 0;
        }
        rc = df_sha256_file(file, f->digest, &f->size_bytes, err);
        if (rc == 0 && strncmp(f->name, "OPTIONS-", 8) == 0)
                rc = dfi_sync_file(file, err);
        return rc;
}

static int hash_files(const struct dfi_ckpt *c, const char *path, struct dfi_files *ret,
                      struct df_error *err)
{
        struct dfi_names names = {0};
        char file[DFI_PATH_MAX];

        int r = dfi_names_read(path, &names, err);
        for (size_t i = 0; r == 0 && i < names.count; i++) {
                struct dfi_file f = {0};
                struct stat st;
                if (strlen(names.v[i]) > DFI_FILE_NAME_MAX || i >= DFI_FILES_MAX) {
                        r = df_fail(err, DF_ELIMIT, "%s: too many files, or too long a name", path);
                        break;
                }
                memcpy(f.name, names.v[i], strlen(names.v[i]));
                r = dfi_state_path(file, err, "%s/%s", path, f.name);
                if (r == 0 && lstat(file, &st) < 0)
                        r = df_fail_errno(err, DF_EIO, "cannot look at %s", file);
                if (r)
                        break;
                f.size_bytes = (uint64_t)st.st_size;
                f.inode = st.st_ino;
                r = hash_file(c, file, &f, err);
                if (r == 0)
                        r = dfi_files_add(ret, &f, err);
        }
        dfi_names_release(&names);
        return r;
}

/* RocksDB syncs the files that it copies and the directory that it makes, not the parent. */
static int write_checkpoint(struct dfi_ckpt *c, struct dfi_manifest *m, const char *path,
                            uint8_t *ret_digest, struct df_error *err)
{
        struct df_buf text = {0};
        char manifest[DFI_PATH_MAX];

        int r = dfi_state_path(manifest, err, "%s/%s", path, DFI_MANIFEST_NAME);
        if (r == 0)
                r = dfi_db_checkpoint(&c->store.db, path, err);
        if (r == 0)
                r = dfi_runs_link(c->store.runs, path, err);
        if (r == 0)
                r = dfi_store_poll(&c->store, err);
        if (r == 0)
                r = hash_files(c, path, &m->files, err);
        if (r == 0)
                r = dfi_manifest_encode(m, &text, err);
        if (r == 0)
                r = df_sha256(df_buf_bytes(&text), ret_digest, err);
        if (r == 0)
                r = dfi_create_file(manifest, df_buf_bytes(&text), err);
        if (r == 0)
                r = dfi_state_sync_dir(path, err);
        if (r == 0)
                r = dfi_state_sync_dir(c->dir, err);
        df_buf_release(&text);
        return r;
}

static void discard(const char *path)
{
        char half[DFI_PATH_MAX];
        struct df_error ignored; /* leftovers go at the next takeover */

        (void)dfi_remove_tree(path, &ignored);
        if (dfi_state_path(half, &ignored, "%s.tmp", path) == 0)
                (void)dfi_remove_tree(half, &ignored);
}

int dfi_ckpt_persist(struct df_ckpt *base, uint64_t k, struct df_bytes note, struct df_error *err)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);
        struct dfi_manifest m = {.rocksdb_version = DFI_ROCKSDB_VERSION, .k = k};
        struct dfi_current candidate = {.present = true};
        struct df_error local = {0};
        char path[DFI_PATH_MAX];

        int r = check_usable(c, err);
        if (r == 0)
                r = dfi_store_poll(&c->store, err);
        if (r)
                return r;
        if (k == 0 || k <= c->current_k)
                return df_fail(err, DF_EINVAL, "%s: checkpoint %" PRIu64 " after %" PRIu64, c->dir,
                               k, c->current_k);
        if (note.len > DFI_NOTE_MAX)
                return df_fail(err, DF_ELIMIT, "a note of %zu bytes; the limit is %u", note.len,
                               DFI_NOTE_MAX);
        df_buf_append(&m.note, note.data, note.len);
        r = df_buf_check(&m.note, err);
        if (r == 0)
                r = dfi_ck_name_make(k, c->epoch.epoch, candidate.name, err);
        if (r == 0)
                r = dfi_state_path(path, err, "%s/%s", c->dir, candidate.name);
        if (r)
                goto out;
        m.epoch = c->epoch.epoch;
        memcpy(m.parent, c->current.name, sizeof(m.parent));
        memcpy(m.parent_digest, c->current.digest, sizeof(m.parent_digest));
        c->has_candidate = false;
        r = write_checkpoint(c, &m, path, candidate.digest, &local);
        if (r == 0 && c->store_dir[0])
                r = dfi_shared_upload(c, candidate.name, &m.files, &local);
        if (r) {
                /* RocksDB does not come back from a failed flush: only a takeover does. */
                r = dfi_store_kill(&c->store, r, &local);
                (void)df_fail(err, r, "checkpoint %" PRIu64 ": %s", k, local.text);
                discard(path);
                goto out;
        }
        dfi_store_hint(&c->store);
        dfi_files_release(&c->known);
        c->known = m.files;
        m.files = (struct dfi_files){0};
        df_buf_release(&c->candidate_note);
        c->candidate_note = m.note;
        m.note = (struct df_buf){0};
        c->candidate = candidate;
        c->candidate_k = k;
        c->has_candidate = true;
out:
        dfi_manifest_release(&m);
        return r;
}

void dfi_ckpt_candidate(struct df_ckpt *base, struct df_ckpt_ref *ret)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);

        memcpy(ret->name, c->candidate.name, sizeof(ret->name));
        memcpy(ret->digest, c->candidate.digest, sizeof(ret->digest));
}

int dfi_ckpt_publish(struct df_ckpt *base, uint64_t k, struct df_error *err)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);

        int r = check_usable(c, err);
        if (r)
                return r;
        if (!c->has_candidate || c->candidate_k != k)
                return df_fail(err, DF_EINVAL, "%s: there is no candidate %" PRIu64 " to publish",
                               c->dir, k);
        r = dfi_current_write(c->dir, &c->candidate, err);
        if (r == 0 && !c->epoch.published) {
                /* After CURRENT: a crash in between is repaired by the next takeover. */
                c->epoch.published = true;
                r = dfi_epoch_write(c->dir, &c->epoch, err);
        }
        if (r) {
                c->doubt = true;
                return r;
        }
        memcpy(c->current_parent, c->current.name, sizeof(c->current_parent));
        c->current = c->candidate;
        c->current_k = k;
        c->has_candidate = false;
        df_buf_release(&c->current_note);
        c->current_note = c->candidate_note;
        c->candidate_note = (struct df_buf){0};
        return 0;
}

int dfi_ckpt_retire(struct df_ckpt *base, struct df_error *err)
{
        struct dfi_ckpt *c = dfi_ckpt_from(base);
        struct dfi_names names = {0};
        char path[DFI_PATH_MAX];
        uint64_t k, epoch;

        df_check(c->owner);
        if (c->doubt) /* perhaps CURRENT is older than this object thinks */
                return check_usable(c, err);
        int r = dfi_names_read(c->dir, &names, err);
        for (size_t i = 0; r == 0 && i < names.count; i++) {
                const char *n = names.v[i];
                if (!dfi_ck_name_parse(n, &k, &epoch) || strcmp(n, c->current.name) == 0 ||
                    strcmp(n, c->current_parent) == 0 ||
                    (c->has_candidate && strcmp(n, c->candidate.name) == 0))
                        continue;
                r = dfi_state_path(path, err, "%s/%s", c->dir, n);
                if (r == 0)
                        r = dfi_remove_tree(path, err);
        }
        dfi_names_release(&names);
        return r || !c->store_dir[0] ? r : dfi_shared_retire(c, err);
}
