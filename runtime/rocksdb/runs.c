/* runs.c - runs: files of blocks beside the database (rocksdb_private.h). */
#include "rocksdb_private.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define SUFFIX ".run"
#define MAGIC 0x616472756e303031u /* "adrun001" */
#define SUM_BYTES 8
#define TRAILER_BYTES 24 /* of which the last four are the CRC */

/* ---- names ---- */

bool dfi_is_run(const char *name)
{
        size_t len = strlen(name);

        return len > 4 && strcmp(name + len - 4, SUFFIX) == 0;
}

static int run_path(const struct dfi_runs *r, const struct dfi_run *run, char ret[DFI_PATH_MAX],
                    struct df_error *err)
{
        char hex[2 * DF_RUN_KEY_MAX + 1];

        df_hex(run->key, run->key_len, hex);
        return dfi_state_path(ret, err, "%s/%s-%08" PRIx32 SUFFIX, r->dir, hex, run->serial);
}

/* "<hex>-<8 hex digits>.run" */
static bool parse_name(const char *name, struct dfi_run *ret)
{
        size_t digits = strcspn(name, "-");
        uint8_t serial[4];

        *ret = (struct dfi_run){.state = DFI_RUN_COMMITTED, .synced = true, .fd = -1};
        if (digits == 0 || digits % 2 || digits > 2 * DF_RUN_KEY_MAX ||
            strlen(name) != digits + 1 + 8 + strlen(SUFFIX) ||
            !dfi_unhex(name, digits / 2, ret->key) || !dfi_unhex(name + digits + 1, 4, serial))
                return false;
        ret->key_len = (uint32_t)(digits / 2);
        for (int i = 0; i < 4; i++)
                ret->serial = ret->serial << 8 | serial[i];
        return true;
}

static struct df_bytes key_of(const struct dfi_run *run)
{
        return df_bytes(run->key, run->key_len);
}

/* ---- the list ---- */

static size_t lower_bound(const struct dfi_runs *r, struct df_bytes key)
{
        size_t low = 0, high = r->count;

        while (low < high) {
                size_t mid = low + (high - low) / 2;

                if (df_bytes_cmp(key_of(&r->v[mid]), key) < 0)
                        low = mid + 1;
                else
                        high = mid;
        }
        return low;
}

static bool is_at(const struct dfi_runs *r, size_t at, struct df_bytes key)
{
        return at < r->count && df_bytes_eq(key_of(&r->v[at]), key);
}

/* Of a key's runs the one that writes see: at most one is not gone. */
static struct dfi_run *find(struct dfi_runs *r, struct df_bytes key, size_t *ret_place)
{
        size_t at = lower_bound(r, key);

        while (is_at(r, at, key) && r->v[at].gone)
                at++;
        *ret_place = at;
        return is_at(r, at, key) ? &r->v[at] : NULL;
}

/* The one that reads see. */
static struct dfi_run *find_committed(struct dfi_runs *r, struct df_bytes key)
{
        size_t at = lower_bound(r, key);

        while (is_at(r, at, key) && r->v[at].state != DFI_RUN_COMMITTED)
                at++;
        return is_at(r, at, key) ? &r->v[at] : NULL;
}

static int insert(struct dfi_runs *r, const struct dfi_run *run, struct df_error *err)
{
        size_t at;

        if (r->count == r->cap) {
                size_t cap = r->cap ? 2 * r->cap : 16;
                struct dfi_run *v = realloc(r->v, cap * sizeof(*v));

                if (!v)
                        return df_fail(err, DF_ENOMEM, "%zu runs", cap);
                r->v = v;
                r->cap = cap;
        }
        df_check(!find(r, key_of(run), &at));
        memmove(&r->v[at + 1], &r->v[at], (r->count - at) * sizeof(*r->v));
        r->v[at] = *run;
        r->count++;
        if (run->serial >= r->next_serial)
                r->next_serial = run->serial + 1;
        return 0;
}

static void close_fd(struct dfi_runs *r, struct dfi_run *run)
{
        if (run->fd < 0)
                return;
        (void)close(run->fd); /* opened for reading */
        run->fd = -1;
        r->fds--;
}

static void close_ahead(struct dfi_run *run)
{
        dfi_ahead_close(run->ahead);
        run->ahead = NULL;
}

static void close_out(struct dfi_run *run)
{
        dfi_direct_close(run->out);
        run->out = NULL;
}

static void close_files(struct dfi_runs *r, struct dfi_run *run)
{
        close_fd(r, run);
        close_ahead(run);
        close_out(run);
}

/* Drop v[at] and its file; what cannot be unlinked goes with the live directory. */
static void drop(struct dfi_runs *r, size_t at)
{
        char path[DFI_PATH_MAX];
        struct df_error ignored;

        close_files(r, &r->v[at]);
        if (run_path(r, &r->v[at], path, &ignored) == 0)
                (void)unlink(path);
        memmove(&r->v[at], &r->v[at + 1], (r->count - at - 1) * sizeof(*r->v));
        r->count--;
}

/* ---- open ---- */

static int damaged(const char *path, struct df_error *err)
{
        return df_fail(err, DF_ECORRUPT, "%s is damaged; %s", path, DFI_RECOVER_HINT);
}

static int read_at(int fd, uint8_t *to, size_t len, uint64_t at, const char *path,
                   struct df_error *err)
{
        while (len) {
                ssize_t n = pread(fd, to, len, (off_t)at);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return df_fail_errno(err, DF_EIO, "cannot read %s", path);
                if (n == 0)
                        return damaged(path, err);
                to += n;
                at += (uint64_t)n;
                len -= (size_t)n;
        }
        return 0;
}

static uint64_t block_at(const struct dfi_run *run, uint32_t number)
{
        return (uint64_t)number * (run->block_bytes + SUM_BYTES);
}

static uint64_t end_of_blocks(const struct dfi_run *run)
{
        return block_at(run, run->blocks - 1) + run->last_bytes + SUM_BYTES;
}

static bool take_trailer(struct df_bytes trailer, uint64_t file_bytes, struct dfi_run *ret)
{
        struct df_reader t = df_reader(trailer);
        uint32_t crc = df_crc32c(0, df_bytes(trailer.data, TRAILER_BYTES - 4));
        uint64_t magic = df_get_u64be(&t);

        ret->block_bytes = df_get_u32be(&t);
        ret->blocks = df_get_u32be(&t);
        ret->last_bytes = df_get_u32be(&t);
        return magic == MAGIC && df_get_u32be(&t) == crc && ret->blocks > 0 &&
               ret->block_bytes <= DF_RUN_BLOCK_MAX && ret->last_bytes <= ret->block_bytes &&
               end_of_blocks(ret) + TRAILER_BYTES == file_bytes;
}

static int load(struct dfi_runs *r, const char *name, struct df_error *err)
{
        uint8_t trailer[TRAILER_BYTES];
        char path[DFI_PATH_MAX];
        struct dfi_run run;
        struct stat st;
        int fd, rc = dfi_state_path(path, err, "%s/%s", r->dir, name);

        if (rc)
                return rc;
        if (!parse_name(name, &run))
                return damaged(path, err);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "cannot open %s", path);
        if (fstat(fd, &st) < 0)
                rc = df_fail_errno(err, DF_EIO, "cannot look at %s", path);
        else if (st.st_size < TRAILER_BYTES)
                rc = damaged(path, err);
        if (rc == 0)
                rc = read_at(fd, trailer, sizeof(trailer), (uint64_t)st.st_size - TRAILER_BYTES,
                             path, err);
        (void)close(fd); /* opened for reading */
        if (rc == 0 &&
            !take_trailer(df_bytes(trailer, sizeof(trailer)), (uint64_t)st.st_size, &run))
                rc = damaged(path, err);
        return rc ? rc : insert(r, &run, err);
}

int dfi_runs_open(struct dfi_runs *r, const char *dir, struct df_error *err)
{
        struct dfi_names names = {0};

        *r = (struct dfi_runs){0};
        int rc = dfi_state_path(r->dir, err, "%s", dir);
        if (rc == 0)
                rc = dfi_names_read(dir, &names, err);
        for (size_t i = 0; rc == 0 && i < names.count; i++)
                if (dfi_is_run(names.v[i]))
                        rc = load(r, names.v[i], err);
        dfi_names_release(&names);
        if (rc)
                dfi_runs_close(r);
        return rc;
}

void dfi_runs_close(struct dfi_runs *r)
{
        for (size_t i = 0; i < r->count; i++)
                close_files(r, &r->v[i]);
        free(r->v);
        df_buf_release(&r->block);
        *r = (struct dfi_runs){0};
}

/* ---- write ---- */

static void fail(struct dfi_runs *r, int code, const struct df_error *why)
{
        if (r->failed)
                return;
        r->failed = code;
        (void)snprintf(r->failed_text, sizeof(r->failed_text), "%.159s", why->text);
}

static int create(struct dfi_runs *r, struct df_bytes key, size_t block_bytes, struct dfi_run **ret,
                  struct df_error *err)
{
        struct dfi_run run = {.serial = r->next_serial,
                              .key_len = (uint32_t)key.len,
                              .block_bytes = (uint32_t)block_bytes,
                              .fd = -1};
        char path[DFI_PATH_MAX];
        size_t at;
        int rc;

        memcpy(run.key, key.data, key.len);
        rc = run_path(r, &run, path, err);
        if (rc == 0)
                rc = dfi_direct_create(path, &run.out, err);
        if (rc)
                return rc;
        rc = insert(r, &run, err);
        if (rc) {
                close_out(&run);
                (void)unlink(path);
                return rc;
        }
        *ret = find(r, key, &at);
        return 0;
}

static int write_block(struct dfi_runs *r, struct dfi_run *run, struct df_bytes block,
                       struct df_error *err)
{
        uint64_t sum = htobe64(df_hash64(block) + run->blocks);
        char path[DFI_PATH_MAX];
        int rc = run_path(r, run, path, err);

        if (rc == 0)
                rc = dfi_direct_write(run->out, block, path, err);
        if (rc == 0)
                rc = dfi_direct_write(run->out, df_bytes(&sum, sizeof(sum)), path, err);
        return rc;
}

static int write_trailer(struct dfi_runs *r, struct dfi_run *run, struct df_error *err)
{
        char path[DFI_PATH_MAX];
        struct df_buf t = {0};
        int rc = run_path(r, run, path, err);

        df_put_u64be(&t, MAGIC);
        df_put_u32be(&t, run->block_bytes);
        df_put_u32be(&t, run->blocks);
        df_put_u32be(&t, run->last_bytes);
        df_put_u32be(&t, df_crc32c(0, df_buf_bytes(&t)));
        if (rc == 0)
                rc = df_buf_check(&t, err);
        if (rc == 0)
                rc = dfi_direct_write(run->out, df_buf_bytes(&t), path, err);
        if (rc == 0)
                rc = dfi_direct_end(run->out, path, &run->file, err);
        close_out(run);
        df_buf_release(&t);
        return rc;
}

void dfi_runs_append(struct dfi_runs *r, struct df_bytes key, struct df_bytes block)
{
        struct df_error err;
        struct dfi_run *run;
        size_t at;
        int rc = 0;

        df_check(key.len > 0 && key.len <= DF_RUN_KEY_MAX);
        df_check(block.len > 0 && block.len <= DF_RUN_BLOCK_MAX);
        if (r->failed)
                return;
        run = find(r, key, &at);
        if (!run)
                rc = create(r, key, block.len, &run, &err);
        if (rc)
                return fail(r, rc, &err);
        df_check(run->state == DFI_RUN_OPEN && block.len <= run->block_bytes);
        df_check(run->blocks == 0 || run->last_bytes == run->block_bytes);
        rc = write_block(r, run, block, &err);
        if (rc)
                return fail(r, rc, &err);
        run->blocks++;
        run->last_bytes = (uint32_t)block.len;
}

void dfi_runs_end(struct dfi_runs *r, struct df_bytes key)
{
        struct df_error err;
        struct dfi_run *run;
        size_t at;
        int rc;

        if (r->failed)
                return;
        run = find(r, key, &at);
        df_check(run && run->state == DFI_RUN_OPEN && run->blocks > 0);
        rc = write_trailer(r, run, &err);
        if (rc)
                return fail(r, rc, &err);
        run->state = DFI_RUN_ENDED;
}

void dfi_runs_del(struct dfi_runs *r, struct df_bytes key)
{
        size_t at;
        struct dfi_run *run = find(r, key, &at);

        if (run && run->state == DFI_RUN_COMMITTED)
                run->gone = true;
        else if (run)
                drop(r, at);
}

int dfi_runs_commit(struct dfi_runs *r, struct df_error *err)
{
        if (r->failed)
                return df_fail(err, r->failed, "%s", r->failed_text);
        for (size_t i = r->count; i-- > 0;) {
                if (r->v[i].gone)
                        drop(r, i);
                else if (r->v[i].state == DFI_RUN_ENDED)
                        r->v[i].state = DFI_RUN_COMMITTED;
        }
        return 0;
}

void dfi_runs_rollback(struct dfi_runs *r)
{
        for (size_t i = r->count; i-- > 0;) {
                r->v[i].gone = false;
                if (r->v[i].state != DFI_RUN_COMMITTED)
                        drop(r, i);
        }
        r->failed = 0;
}

/* ---- read ---- */

static void close_one(struct dfi_runs *r)
{
        for (size_t tries = 0; tries < r->count; tries++) {
                struct dfi_run *run = &r->v[r->hand++ % r->count];

                if (run->fd >= 0 && run->state == DFI_RUN_COMMITTED)
                        return close_fd(r, run);
        }
}

static int open_for_reading(struct dfi_runs *r, struct dfi_run *run, const char *path,
                            struct df_error *err)
{
        if (run->fd >= 0)
                return 0;
        if (r->fds >= DFI_RUN_FDS)
                close_one(r);
        run->fd = open(path, O_RDONLY | O_CLOEXEC);
        if (run->fd < 0)
                return df_fail_errno(err, DF_EIO, "cannot open %s", path);
        r->fds++;
        return 0;
}

/* A block as it is in the file, its sum behind it. */
static int fetch(struct dfi_runs *r, struct dfi_run *run, uint32_t number, size_t len,
                 const char *path, struct df_error *err)
{
        int rc;

        df_buf_clear(&r->block);
        if (!df_buf_reserve(&r->block, len))
                return df_fail(err, DF_ENOMEM, "a block of %zu bytes", len);
        rc = open_for_reading(r, run, path, err);
        return rc ? rc : read_at(run->fd, r->block.data, len, block_at(run, number), path, err);
}

/* The same by the reader that is ahead; NULL: it cannot. */
static const uint8_t *fetch_ahead(struct dfi_runs *r, struct dfi_run *run, uint32_t number,
                                  size_t len, const char *path)
{
        const uint8_t *p;

        if (!run->ahead)
                run->ahead = dfi_ahead_open(path, end_of_blocks(run) + TRAILER_BYTES);
        p = run->ahead ? dfi_ahead_read(run->ahead, block_at(run, number), len) : NULL;
        if (p && number + 1 == run->blocks) {
                df_buf_clear(&r->block);
                df_buf_append(&r->block, p, len);
                p = r->block.failed ? NULL : r->block.data;
        }
        if (!p || number + 1 == run->blocks)
                close_ahead(run);
        return p;
}

int dfi_runs_read(struct dfi_runs *r, struct df_bytes key, uint32_t number, bool in_order,
                  struct df_bytes *ret, bool *ret_found, struct df_error *err)
{
        char path[DFI_PATH_MAX];
        struct df_reader sum;
        const uint8_t *p = NULL;
        size_t len;
        struct dfi_run *run = find_committed(r, key);
        int rc;

        *ret_found = run && number < run->blocks;
        if (!*ret_found)
                return 0;
        len = number + 1 < run->blocks ? run->block_bytes : run->last_bytes;
        rc = run_path(r, run, path, err);
        if (rc == 0 && in_order)
                p = fetch_ahead(r, run, number, len + SUM_BYTES, path);
        if (rc == 0 && !p) {
                rc = fetch(r, run, number, len + SUM_BYTES, path, err);
                p = r->block.data;
        }
        if (rc)
                return rc;
        *ret = df_bytes(p, len);
        sum = df_reader(df_bytes(p + len, SUM_BYTES));
        return df_get_u64be(&sum) == df_hash64(*ret) + number ? 0 : damaged(path, err);
}

int dfi_runs_scan(struct dfi_runs *r, struct df_bytes prefix,
                  int (*fn)(void *, struct df_bytes, struct df_error *), void *arg,
                  struct df_error *err)
{
        for (size_t i = 0; i < r->count; i++) {
                const struct dfi_run *run = &r->v[i];
                int rc;

                if (run->state != DFI_RUN_COMMITTED || run->key_len < prefix.len ||
                    (prefix.len && memcmp(run->key, prefix.data, prefix.len) != 0))
                        continue;
                rc = fn(arg, key_of(run), err);
                if (rc)
                        return rc < 0 ? rc : 0;
        }
        return 0;
}

/* ---- checkpoints ---- */

const struct dfi_file *dfi_runs_file(const struct dfi_runs *r, const char *name)
{
        struct dfi_run run;

        if (!dfi_is_run(name) || !parse_name(name, &run))
                return NULL;
        for (size_t at = lower_bound(r, key_of(&run)); is_at(r, at, key_of(&run)); at++)
                if (r->v[at].serial == run.serial)
                        return r->v[at].file.inode ? &r->v[at].file : NULL;
        return NULL;
}

int dfi_runs_link(struct dfi_runs *r, const char *into, struct df_error *err)
{
        char from[DFI_PATH_MAX], to[DFI_PATH_MAX];

        for (size_t i = 0; i < r->count; i++) {
                struct dfi_run *run = &r->v[i];
                int rc;

                if (run->state != DFI_RUN_COMMITTED || run->gone)
                        continue;
                rc = run_path(r, run, from, err);
                if (rc == 0 && !run->synced)
                        rc = dfi_sync_file(from, err);
                if (rc == 0)
                        rc = dfi_state_path(to, err, "%s%s", into, strrchr(from, '/'));
                if (rc == 0)
                        rc = dfi_link_file(from, to, err);
                if (rc)
                        return rc;
                run->synced = true;
        }
        return 0;
}
