/* manifest.c - MANIFEST.ck: what a checkpoint consists of, as lines of text, sealed by the SHA-256
 * of all lines before the last. CURRENT holds the SHA-256 of the whole.
 *
 *   adtally-checkpoint 1
 *   rocksdb 7.8.3
 *   k 12
 *   epoch 3
 *   parent ck-11-3-0123456789abcdef <sha256>     or: parent -
 *   note <bytes> <hex>                           or: note 0 -
 *   files <count>
 *   <sha256> <bytes> <name>                      sorted by name
 *   seal <sha256>
 */
#include "rocksdb_private.h"

#include <inttypes.h>
#include <stdlib.h>

#define FORMAT 1

int dfi_files_add(struct dfi_files *f, const struct dfi_file *file, struct df_error *err)
{
        if (f->count == f->cap) {
                size_t cap = f->cap ? 2 * f->cap : 16;
                struct dfi_file *v = realloc(f->v, cap * sizeof(*v));
                if (!v)
                        return df_fail(err, DF_ENOMEM, "no memory for the files of a checkpoint");
                f->v = v;
                f->cap = cap;
        }
        f->v[f->count++] = *file;
        return 0;
}

const struct dfi_file *dfi_files_find(const struct dfi_files *f, const char *name)
{
        size_t low = 0, high = f->count;

        while (low < high) {
                size_t mid = low + (high - low) / 2;
                int c = strcmp(f->v[mid].name, name);
                if (c == 0)
                        return &f->v[mid];
                if (c < 0)
                        low = mid + 1;
                else
                        high = mid;
        }
        return NULL;
}

void dfi_files_release(struct dfi_files *f)
{
        free(f->v);
        *f = (struct dfi_files){0};
}

void dfi_manifest_release(struct dfi_manifest *m)
{
        df_buf_release(&m->note);
        dfi_files_release(&m->files);
        *m = (struct dfi_manifest){0};
}

static void put_hex(struct df_buf *b, struct df_bytes v)
{
        char hex[2 * 64 + 1];

        while (v.len) {
                size_t n = v.len < 64 ? v.len : 64;
                df_hex(v.data, n, hex);
                df_buf_append(b, hex, 2 * n);
                v.data += n;
                v.len -= n;
        }
}

int dfi_manifest_encode(const struct dfi_manifest *m, struct df_buf *ret, struct df_error *err)
{
        uint8_t seal[DF_SHA256_SIZE];

        df_buf_printf(ret, "adtally-checkpoint %d\nrocksdb %s\nk %" PRIu64 "\nepoch %" PRIu64 "\n",
                      FORMAT, m->rocksdb_version, m->k, m->epoch);
        if (m->parent[0]) {
                df_buf_printf(ret, "parent %s ", m->parent);
                put_hex(ret, df_bytes(m->parent_digest, DF_SHA256_SIZE));
        } else {
                df_buf_printf(ret, "parent -");
        }
        df_buf_printf(ret, "\nnote %zu ", m->note.len);
        if (m->note.len)
                put_hex(ret, df_buf_bytes(&m->note));
        else
                df_buf_printf(ret, "-");
        df_buf_printf(ret, "\nfiles %zu\n", m->files.count);
        for (size_t i = 0; i < m->files.count; i++) {
                const struct dfi_file *f = &m->files.v[i];
                put_hex(ret, df_bytes(f->digest, DF_SHA256_SIZE));
                df_buf_printf(ret, " %" PRIu64 " %s\n", f->size_bytes, f->name);
        }
        int r = df_buf_check(ret, err);
        if (r == 0)
                r = df_sha256(df_buf_bytes(ret), seal, err);
        if (r)
                return r;
        df_buf_printf(ret, "seal ");
        put_hex(ret, df_bytes(seal, DF_SHA256_SIZE));
        df_buf_printf(ret, "\n");
        return df_buf_check(ret, err);
}

const char *dfi_parse_u64(const char *p, char end, uint64_t *ret)
{
        uint64_t v = 0;
        const char *start = p;

        for (; *p >= '0' && *p <= '9'; p++)
                if (__builtin_mul_overflow(v, 10, &v) ||
                    __builtin_add_overflow(v, (uint64_t)(*p - '0'), &v))
                        return NULL;
        if (p == start || (*start == '0' && p != start + 1) || *p != end)
                return NULL;
        *ret = v;
        return end ? p + 1 : p;
}

bool dfi_unhex(const char *hex, size_t bytes, uint8_t *ret)
{
        for (size_t i = 0; i < 2 * bytes; i++) {
                int digit;
                if (hex[i] >= '0' && hex[i] <= '9')
                        digit = hex[i] - '0';
                else if (hex[i] >= 'a' && hex[i] <= 'f')
                        digit = hex[i] - 'a' + 10;
                else
                        return false; /* also the end of the text */
                if (i % 2 == 0)
                        ret[i / 2] = (uint8_t)(digit << 4);
                else
                        ret[i / 2] = (uint8_t)(ret[i / 2] | digit);
        }
        return true;
}

bool dfi_ck_name_parse(const char *name, uint64_t *ret_k, uint64_t *ret_epoch)
{
        uint8_t random[8];

        if (strncmp(name, "ck-", 3) != 0)
                return false;
        const char *p = dfi_parse_u64(name + 3, '-', ret_k);
        if (p)
                p = dfi_parse_u64(p, '-', ret_epoch);
        return p && strlen(p) == 16 && dfi_unhex(p, 8, random);
}

int dfi_ck_name_make(uint64_t k, uint64_t epoch, char ret[DF_CKPT_NAME_MAX + 1],
                     struct df_error *err)
{
        uint8_t random[8];
        char hex[17];

        int r = df_random(random, sizeof(random), err);
        if (r)
                return r;
        df_hex(random, sizeof(random), hex);
        (void)snprintf(ret, DF_CKPT_NAME_MAX + 1, "ck-%" PRIu64 "-%" PRIu64 "-%s", k, epoch, hex);
        return 0;
}

/* ---- parsing: each function takes what it expects and returns what follows, or NULL ---- */

static const char *take(const char *p, const char *literal)
{
        size_t len = strlen(literal);

        return p && strncmp(p, literal, len) == 0 ? p + len : NULL;
}

static const char *take_u64(const char *p, char end, uint64_t *ret)
{
        return p ? dfi_parse_u64(p, end, ret) : NULL;
}

static const char *take_digest(const char *p, uint8_t *ret)
{
        return p && dfi_unhex(p, DF_SHA256_SIZE, ret) ? p + 2 * DF_SHA256_SIZE : NULL;
}

/* A word of at most max bytes, ended by `end`. */
static const char *take_word(const char *p, char end, size_t max, char *ret)
{
        size_t len = 0;

        if (!p)
                return NULL;
        while (p[len] > ' ' && p[len] != 0x7f && p[len] != '/')
                len++;
        if (len == 0 || len > max || p[len] != end)
                return NULL;
        memcpy(ret, p, len);
        ret[len] = '\0';
        return p + len + 1;
}

static const char *parse_parent(const char *p, struct dfi_manifest *m)
{
        uint64_t k, epoch;

        p = take(p, "parent ");
        if (p && *p == '-')
                return take(p, "-\n");
        p = take_word(p, ' ', DF_CKPT_NAME_MAX, m->parent);
        if (!p || !dfi_ck_name_parse(m->parent, &k, &epoch))
                return NULL;
        return take(take_digest(p, m->parent_digest), "\n");
}

static const char *parse_note(const char *p, struct dfi_manifest *m)
{
        uint64_t len;

        p = take_u64(take(p, "note "), ' ', &len);
        if (!p || len > DFI_NOTE_MAX)
                return NULL;
        if (len == 0)
                return take(p, "-\n");
        if (!df_buf_reserve(&m->note, len) || !dfi_unhex(p, len, m->note.data))
                return NULL;
        m->note.len = len;
        return take(p + 2 * len, "\n");
}

static const char *parse_files(const char *p, struct dfi_manifest *m, struct df_error *err)
{
        uint64_t count;

        p = take_u64(take(p, "files "), '\n', &count);
        if (!p || count > DFI_FILES_MAX)
                return NULL;
        for (uint64_t i = 0; i < count; i++) {
                struct dfi_file f = {0};
                p = take_u64(take(take_digest(p, f.digest), " "), ' ', &f.size_bytes);
                p = take_word(p, '\n', DFI_FILE_NAME_MAX, f.name);
                if (!p || (i && strcmp(m->files.v[i - 1].name, f.name) >= 0) ||
                    strcmp(f.name, ".") == 0 || strcmp(f.name, "..") == 0 ||
                    dfi_files_add(&m->files, &f, err))
                        return NULL;
        }
        return p;
}

/* A newer RocksDB may write what ours misreads; the reverse is promised. */
static int check_version(const char *path, const char *version, struct df_error *err)
{
        uint64_t theirs[2], ours[2];
        const char *t = dfi_parse_u64(version, '.', &theirs[0]);
        const char *o = dfi_parse_u64(DFI_ROCKSDB_VERSION, '.', &ours[0]);

        if (!t || !dfi_parse_u64(t, '.', &theirs[1]) || !o || !dfi_parse_u64(o, '.', &ours[1]))
                return df_fail(err, DF_ECORRUPT, "%s: strange RocksDB version %s; %s", path,
                               version, DFI_RECOVER_HINT);
        if (theirs[0] > ours[0] || (theirs[0] == ours[0] && theirs[1] > ours[1]))
                return df_fail(err, DF_ESCHEMA,
                               "%s was written with RocksDB %s, this binary has %s: start the "
                               "newer binary again, or %s",
                               path, version, DFI_ROCKSDB_VERSION, DFI_RECOVER_HINT);
        return 0;
}

static int check_seal(const char *text, size_t len, const char *path, struct df_error *err)
{
        const size_t line = 5 + 2 * DF_SHA256_SIZE + 1;
        uint8_t said[DF_SHA256_SIZE], is[DF_SHA256_SIZE];

        if (len < line || !take(take_digest(take(text + len - line, "seal "), said), "\n"))
                return df_fail(err, DF_ECORRUPT, "%s is cut off or damaged (no seal); %s", path,
                               DFI_RECOVER_HINT);
        int r = df_sha256(df_bytes(text, len - line), is, err);
        if (r == 0 && memcmp(said, is, sizeof(is)) != 0)
                r = df_fail(err, DF_ECORRUPT, "%s is damaged (its seal does not fit); %s", path,
                            DFI_RECOVER_HINT);
        return r;
}

int dfi_manifest_parse(struct df_bytes text, const char *path, struct dfi_manifest *ret,
                       struct df_error *err)
{
        struct dfi_manifest m = {0};
        struct df_buf copy = {0};
        uint64_t format = 0;

        df_buf_append(&copy, text.data, text.len);
        df_put_u8(&copy, 0);
        int r = df_buf_check(&copy, err);
        if (r)
                goto out;
        const char *start = (const char *)copy.data;
        const char *p = take_u64(take(start, "adtally-checkpoint "), '\n', &format);
        if (p && format != FORMAT) {
                r = df_fail(err, DF_ESCHEMA,
                            "%s has checkpoint format %" PRIu64 ", this binary reads %d: start "
                            "the binary that wrote it, or %s",
                            path, format, FORMAT, DFI_RECOVER_HINT);
                goto out;
        }
        r = check_seal(start, text.len, path, err);
        if (r)
                goto out;
        p = take_word(take(p, "rocksdb "), '\n', sizeof(m.rocksdb_version) - 1, m.rocksdb_version);
        p = take_u64(take(p, "k "), '\n', &m.k);
        p = take_u64(take(p, "epoch "), '\n', &m.epoch);
        p = parse_parent(p, &m);
        p = parse_note(p, &m);
        p = parse_files(p, &m, err);
        if (!p || !take(p, "seal ")) {
                r = df_fail(err, DF_ECORRUPT, "%s cannot be read; %s", path, DFI_RECOVER_HINT);
                goto out;
        }
        r = check_version(path, m.rocksdb_version, err);
        if (r == 0) {
                *ret = m;
                m = (struct dfi_manifest){0};
        }
out:
        dfi_manifest_release(&m);
        df_buf_release(&copy);
        return r;
}
