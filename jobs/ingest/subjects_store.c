/* subjects_store.c - the keys of subjects on disk. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/run.h"
#include "jobs/ingest/subjects_private.h"

#define WRITE_BUFFER_BYTES (8u << 20)
#define BLOCK_CACHE_BYTES (8u << 20)

bool ad_subjects_exist(const char *data_dir)
{
        char path[PATH_MAX];

        return snprintf(path, sizeof(path), "%s/subjects", data_dir) < (int)sizeof(path) &&
               access(path, F_OK) == 0;
}

/* ---- the secret ---- */

static int read_secret(int fd, const char *path, uint8_t ret[32], struct df_error *err)
{
        uint8_t more[33];
        ssize_t n = read(fd, more, sizeof(more));

        if (n < 0)
                return df_fail_errno(err, DF_EIO, "read %s", path);
        if (n != 32)
                return df_fail(err, DF_ECORRUPT, "%s has %zd bytes, not 32: put its backup back",
                               path, n);
        memcpy(ret, more, 32);
        explicit_bzero(more, sizeof(more));
        return 0;
}

static int sync_dir(const char *dir, struct df_error *err)
{
        int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;

        if (fd < 0 || fsync(fd) < 0)
                rc = df_fail_errno(err, DF_EIO, "sync directory %s", dir);
        if (fd >= 0)
                close(fd);
        return rc;
}

/* Whole or not at all, and readable by nobody else at any moment. */
static int make_secret(const char *dir, const char *path, uint8_t ret[32], struct df_error *err)
{
        char tmp[PATH_MAX + 64];
        int fd, rc = df_random(ret, 32, err);

        if (rc < 0)
                return rc;
        (void)snprintf(tmp, sizeof(tmp), "%s.tmp", path);
        (void)unlink(tmp); /* of a start that was cut short */
        fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "create %s", tmp);
        if (write(fd, ret, 32) != 32 || fsync(fd) < 0)
                rc = df_fail_errno(err, DF_EIO, "write %s", tmp);
        close(fd);
        if (rc == 0 && rename(tmp, path) < 0)
                rc = df_fail_errno(err, DF_EIO, "rename %s to %s", tmp, path);
        return rc < 0 ? rc : sync_dir(dir, err);
}

int adi_store_secret(struct ad_subjects *s, const char *data_dir, struct df_error *err)
{
        char path[PATH_MAX + 32];
        int fd, rc;

        if (snprintf(s->dir, sizeof(s->dir), "%s/subjects", data_dir) >= (int)sizeof(s->dir))
                return df_fail(err, DF_EINVAL, "--data %s: the path is too long", data_dir);
        (void)snprintf(path, sizeof(path), "%s.secret", s->dir);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {
                rc = read_secret(fd, path, s->secret, err);
                close(fd);
                return rc;
        }
        if (errno != ENOENT)
                return df_fail_errno(err, DF_EIO, "open %s", path);
        if (ad_subjects_exist(data_dir))
                return df_fail(err, DF_ESCHEMA,
                               "%s is missing: without it no key in %s can be found or deleted. "
                               "Put its backup back (docs/PRIVACY.md)",
                               path, s->dir);
        rc = make_secret(data_dir, path, s->secret, err);
        return rc < 0 ? rc : 0;
}

/* ---- open, closed ---- */

int adi_store_open(struct ad_subjects *s, struct df_error *err)
{
        struct df_rocksdb_options o = {.write_buffer_bytes = WRITE_BUFFER_BYTES,
                                       .block_cache_bytes = BLOCK_CACHE_BYTES,
                                       .secrets = true};
        int rc;

        if (mkdir(s->dir, 0700) < 0 && errno != EEXIST)
                rc = df_fail_errno(err, DF_EIO, "create directory %s", s->dir);
        else
                rc = df_kv_open(s->dir, &o, &s->kv, err);
        s->closed = rc;
        return rc;
}

int adi_store_failed(struct ad_subjects *s, int rc)
{
        pthread_mutex_lock(&s->lock);
        if (!s->forgetting) {
                df_kv_close(s->kv);
                s->kv = NULL;
        }
        s->closed = rc;
        pthread_mutex_unlock(&s->lock);
        return rc;
}

int adi_store_closed(struct ad_subjects *s, struct df_error *err)
{
        return df_fail(err, s->closed == DF_ENOSPC ? DF_ENOSPC : DF_EAGAIN,
                       "%s: the store of user ids' keys is closed after: %s", s->dir,
                       df_err_code(s->closed));
}

/* ---- keys ---- */

int adi_store_name(struct ad_subjects *s, struct df_bytes tenant, struct df_bytes user,
                   uint8_t ret[DF_HMAC_SIZE], struct df_error *err)
{
        uint8_t text[1 + 2 * AD_ID_MAX];

        df_check(tenant.len <= AD_ID_MAX && user.len <= AD_ID_MAX);
        text[0] = (uint8_t)tenant.len;
        if (tenant.len)
                memcpy(text + 1, tenant.data, tenant.len);
        if (user.len)
                memcpy(text + 1 + tenant.len, user.data, user.len);
        return df_hmac_sha256(df_bytes(s->secret, sizeof(s->secret)),
                              df_bytes(text, 1 + tenant.len + user.len), ret, err);
}

void adi_store_keys(const struct fresh *f, struct store_key ret[2])
{
        ret[0] = (struct store_key){.data = {'H'}, .len = 1 + DF_HMAC_SIZE};
        memcpy(ret[0].data + 1, f->name, DF_HMAC_SIZE);
        ret[1] = (struct store_key){.data = {'K'}, .len = 1 + KEY_ID_SIZE};
        memcpy(ret[1].data + 1, f->id, KEY_ID_SIZE);
}

static int get(struct ad_subjects *s, const struct store_key *k, size_t want, bool *ret_found,
               struct df_error *err)
{
        int rc;

        if (!s->kv)
                return adi_store_closed(s, err);
        rc = df_kv_get(s->kv, NULL, df_bytes(k->data, k->len), &s->value, ret_found, err);
        if (rc < 0)
                return df_wrap(err, "%s", s->dir);
        if (*ret_found && s->value.len != want)
                return df_fail(err, DF_ECORRUPT, "%s: a key of %zu bytes, not %zu", s->dir,
                               s->value.len, want);
        return 0;
}

static void forget_value(struct ad_subjects *s)
{
        if (s->value.len)
                explicit_bzero(s->value.data, s->value.len);
        df_buf_clear(&s->value);
}

int adi_store_find(struct ad_subjects *s, struct fresh *ret, bool *ret_found, struct df_error *err)
{
        struct store_key k[2];
        int rc;

        memset(ret->id, 0, sizeof(ret->id));
        adi_store_keys(ret, k);
        rc = get(s, &k[0], KEY_ID_SIZE + DF_CIPHER_KEY_SIZE, ret_found, err);
        if (rc < 0 || !*ret_found)
                return rc;
        memcpy(ret->id, s->value.data, KEY_ID_SIZE);
        memcpy(ret->key, s->value.data + KEY_ID_SIZE, DF_CIPHER_KEY_SIZE);
        forget_value(s);
        return 0;
}

int adi_store_key(struct ad_subjects *s, const uint8_t id[KEY_ID_SIZE],
                  uint8_t ret[DF_CIPHER_KEY_SIZE], bool *ret_found, struct df_error *err)
{
        struct store_key k = {.data = {'K'}, .len = 1 + KEY_ID_SIZE};
        int rc;

        memcpy(k.data + 1, id, KEY_ID_SIZE);
        rc = get(s, &k, DF_CIPHER_KEY_SIZE, ret_found, err);
        if (rc < 0 || !*ret_found)
                return rc;
        memcpy(ret, s->value.data, DF_CIPHER_KEY_SIZE);
        forget_value(s);
        return 0;
}

void adi_store_put(struct ad_subjects *s, const struct fresh *f)
{
        struct df_store *store = df_kv_store(s->kv);
        uint8_t both[KEY_ID_SIZE + DF_CIPHER_KEY_SIZE];
        struct store_key k[2];

        adi_store_keys(f, k);
        memcpy(both, f->id, KEY_ID_SIZE);
        memcpy(both + KEY_ID_SIZE, f->key, DF_CIPHER_KEY_SIZE);
        df_store_put(store, df_bytes(k[0].data, k[0].len), df_bytes(both, sizeof(both)));
        df_store_put(store, df_bytes(k[1].data, k[1].len), df_bytes(f->key, sizeof(f->key)));
        explicit_bzero(both, sizeof(both));
}

void adi_store_del(struct ad_subjects *s, const struct fresh *f)
{
        struct df_store *store = df_kv_store(s->kv);
        struct store_key k[2];

        adi_store_keys(f, k);
        df_store_del(store, df_bytes(k[0].data, k[0].len));
        df_store_del(store, df_bytes(k[1].data, k[1].len));
}
