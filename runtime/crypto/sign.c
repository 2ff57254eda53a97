/* sign.c - Ed25519 keys, their files, signatures (df/sign.h). */
#include "df/sign.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/bio.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "crypto_private.h"
#include "df/sha256.h"

struct df_sign_key {
        EVP_PKEY *pkey;
        struct df_sign_public public;
};

/* OpenSSL's reasons stay in a queue of the thread, where another library would take them for its
 * own. */
static int fail_ssl(struct df_error *err, const char *what)
{
        ERR_clear_error();
        return df_fail(err, DF_EIO, "Ed25519: %s failed", what);
}

/* ---- files ---- */

int dfi_sync_dir_of(const char *path, struct df_error *err)
{
        char dir[PATH_MAX];
        const char *slash = strrchr(path, '/');
        size_t len = slash ? (size_t)(slash - path) : 1;
        int fd, rc = 0;

        if (len >= sizeof(dir))
                return df_fail(err, DF_EINVAL, "path %s is too long", path);
        memcpy(dir, slash ? path : ".", len);
        dir[len] = '\0';
        fd = open(len ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0 || fsync(fd) < 0)
                rc = df_fail_errno(err, DF_EIO, "sync directory %s", len ? dir : "/");
        if (fd >= 0)
                (void)close(fd); /* opened for reading */
        return rc;
}

static int write_all(int fd, const char *data, size_t len)
{
        while (len > 0) {
                ssize_t n = write(fd, data, len);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return -1;
                data += n;
                len -= (size_t)n;
        }
        return 0;
}

/* What a failed write leaves is removed: it would be in the way of the next try. */
static int write_new(const char *path, BIO *content, mode_t mode, struct df_error *err)
{
        char *data = NULL;
        long len = BIO_get_mem_data(content, &data);
        int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode), rc = 0;

        if (fd < 0 && errno == EEXIST)
                return df_fail(err, DF_EEXIST, "%s exists: a key is never overwritten", path);
        if (fd < 0)
                return df_fail_errno(err, DF_EIO, "create %s", path);
        if (write_all(fd, data, (size_t)len) < 0 || fsync(fd) < 0)
                rc = df_fail_errno(err, DF_EIO, "write %s", path);
        if (close(fd) < 0 && rc == 0)
                rc = df_fail_errno(err, DF_EIO, "close %s", path);
        if (rc == 0)
                rc = dfi_sync_dir_of(path, err);
        if (rc < 0)
                (void)unlink(path); /* the first error counts */
        return rc;
}

/* Not blocking: a pipe in the place of a file would wait for a writer. */
static int open_file(const char *path, bool is_secret, int *ret_fd, struct df_error *err)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
        struct stat st;

        if (fd < 0)
                return df_fail_errno(err, errno == ENOENT ? DF_ENOENT : DF_EIO, "open %s", path);
        if (fstat(fd, &st) < 0)
                rc = df_fail_errno(err, DF_EIO, "look at %s", path);
        else if (!S_ISREG(st.st_mode))
                rc = df_fail(err, DF_EINVAL, "%s is not a file", path);
        else if (is_secret && (st.st_mode & (S_IRWXG | S_IRWXO)) != 0)
                rc = df_fail(err, DF_EINVAL,
                             "%s is a private key that others may read or write (mode %04o): "
                             "chmod 600 %s",
                             path, (unsigned)st.st_mode & 07777, path);
        if (rc < 0)
                (void)close(fd);
        else
                *ret_fd = fd;
        return rc;
}

/* text holds DF_SIGN_FILE_MAX + 1 bytes, the last one to see that there are more. */
static int read_file(const char *path, bool is_secret, char *text, size_t *ret_len,
                     struct df_error *err)
{
        size_t len = 0;
        ssize_t n = 1;
        int fd = -1, rc = open_file(path, is_secret, &fd, err);

        if (rc < 0)
                return rc;
        while (n != 0 && len <= DF_SIGN_FILE_MAX) {
                n = read(fd, text + len, DF_SIGN_FILE_MAX + 1 - len);
                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        rc = df_fail_errno(err, DF_EIO, "read %s", path);
                        break;
                }
                len += (size_t)n;
        }
        (void)close(fd);
        if (rc == 0 && len > DF_SIGN_FILE_MAX)
                rc = df_fail(err, DF_ELIMIT, "%s is larger than a key (%d bytes)", path,
                             DF_SIGN_FILE_MAX);
        *ret_len = len;
        return rc;
}

/* ---- keys ---- */

static int fill_public(struct df_sign_public *p, struct df_error *err)
{
        uint8_t hash[DF_SHA256_SIZE];
        int rc = df_sha256(df_bytes(p->raw, sizeof(p->raw)), hash, err);

        if (rc == 0)
                df_hex(hash, (DF_SIGN_ID_SIZE - 1) / 2, p->id);
        return rc;
}

static int public_of(const EVP_PKEY *pkey, struct df_sign_public *ret, struct df_error *err)
{
        size_t len = sizeof(ret->raw);

        if (EVP_PKEY_get_raw_public_key(pkey, ret->raw, &len) != 1 || len != sizeof(ret->raw))
                return fail_ssl(err, "taking the public key");
        return fill_public(ret, err);
}

/* Owns pkey from here on. */
static int wrap_key(EVP_PKEY *pkey, struct df_sign_key **ret, struct df_error *err)
{
        struct df_sign_key *k = calloc(1, sizeof(*k));
        int rc;

        if (!k) {
                EVP_PKEY_free(pkey);
                return df_fail(err, DF_ENOMEM, "a signing key");
        }
        k->pkey = pkey;
        rc = public_of(pkey, &k->public, err);
        if (rc < 0)
                df_sign_key_release(k);
        else
                *ret = k;
        return rc;
}

int df_sign_key_make(struct df_sign_key **ret, struct df_error *err)
{
        EVP_PKEY *pkey = EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");

        return pkey ? wrap_key(pkey, ret, err) : fail_ssl(err, "making a key");
}

void df_sign_key_release(struct df_sign_key *k)
{
        if (!k)
                return;
        EVP_PKEY_free(k->pkey); /* wipes it */
        free(k);
}

const struct df_sign_public *df_sign_key_public(const struct df_sign_key *k)
{
        return &k->public;
}

static int check_kind(const EVP_PKEY *pkey, const char *where, struct df_error *err)
{
        const char *kind = EVP_PKEY_get0_type_name(pkey);

        if (EVP_PKEY_is_a(pkey, "ED25519"))
                return 0;
        return df_fail(err, DF_EINVAL,
                       "%s holds a key of kind %s: only Ed25519 is used (openssl genpkey "
                       "-algorithm ed25519)",
                       where, kind ? kind : "unknown");
}

/* Asked for a passphrase: remember it, and have none. Without this OpenSSL would ask at the
 * terminal. */
static int no_passphrase(char *text, int size, int is_writing, void *asked)
{
        (void)text;
        (void)size;
        (void)is_writing;
        *(bool *)asked = true;
        return -1;
}

static int parse_key(const char *text, size_t len, const char *path, struct df_sign_key **ret,
                     struct df_error *err)
{
        BIO *in = BIO_new_mem_buf(text, (int)len);
        bool asked = false;
        EVP_PKEY *pkey = in ? PEM_read_bio_PrivateKey(in, NULL, no_passphrase, &asked) : NULL;
        int rc;

        BIO_free(in);
        if (!in)
                return df_fail(err, DF_ENOMEM, "read %s", path);
        if (!pkey) {
                ERR_clear_error();
                return asked ? df_fail(err, DF_EINVAL,
                                       "%s has a passphrase: keys are kept without (openssl pkey "
                                       "-in %s -out NEW)",
                                       path, path)
                             : df_fail(err, DF_EPARSE,
                                       "%s holds no whole private key in PEM: it is damaged, or "
                                       "another file",
                                       path);
        }
        rc = check_kind(pkey, path, err);
        if (rc == 0)
                return wrap_key(pkey, ret, err);
        EVP_PKEY_free(pkey);
        return rc;
}

int df_sign_key_read(const char *path, struct df_sign_key **ret, struct df_error *err)
{
        char text[DF_SIGN_FILE_MAX + 1];
        size_t len = 0;
        int rc = read_file(path, true, text, &len, err);

        if (rc == 0)
                rc = parse_key(text, len, path, ret, err);
        OPENSSL_cleanse(text, sizeof(text));
        return rc;
}

int df_sign_key_write(const struct df_sign_key *k, const char *path, struct df_error *err)
{
        BIO *out = BIO_new(BIO_s_mem()); /* wiped when freed */
        int rc;

        if (!out)
                return df_fail(err, DF_ENOMEM, "write %s", path);
        if (PEM_write_bio_PKCS8PrivateKey(out, k->pkey, NULL, NULL, 0, NULL, NULL) == 1)
                rc = write_new(path, out, 0600, err);
        else
                rc = fail_ssl(err, "encoding a private key");
        BIO_free(out);
        return rc;
}

/* ---- public keys ---- */

/* Exactly what df_sign_public_base64 writes: OpenSSL's decoder lets more pass. */
static int parse_base64(struct df_bytes text, struct df_sign_public *ret, struct df_error *err)
{
        uint8_t raw[(DF_SIGN_BASE64_SIZE - 1) / 4 * 3];
        char again[DF_SIGN_BASE64_SIZE];
        int n = EVP_DecodeBlock(raw, text.data, (int)text.len);

        if (n == (int)sizeof(raw)) {
                memcpy(ret->raw, raw, sizeof(ret->raw));
                df_sign_public_base64(ret, again);
        }
        if (n != (int)sizeof(raw) || memcmp(again, text.data, text.len) != 0) {
                ERR_clear_error();
                return df_fail(err, DF_EPARSE, "not a public key in base64");
        }
        return fill_public(ret, err);
}

static int parse_public(struct df_bytes text, const char *where, struct df_sign_public *ret,
                        struct df_error *err)
{
        BIO *in = BIO_new_mem_buf(text.data, (int)text.len);
        EVP_PKEY *pkey = in ? PEM_read_bio_PUBKEY(in, NULL, NULL, NULL) : NULL;
        int rc;

        BIO_free(in);
        if (!in)
                return df_fail(err, DF_ENOMEM, "read %s", where);
        if (!pkey) {
                ERR_clear_error();
                return df_fail(err, DF_EPARSE,
                               "%s holds no whole public key in PEM: it is damaged, or another "
                               "file",
                               where);
        }
        rc = check_kind(pkey, where, err);
        if (rc == 0)
                rc = public_of(pkey, ret, err);
        EVP_PKEY_free(pkey);
        return rc;
}

int df_sign_public_parse(struct df_bytes text, struct df_sign_public *ret, struct df_error *err)
{
        if (text.len > DF_SIGN_FILE_MAX)
                return df_fail(err, DF_ELIMIT, "a public key of more than %d bytes",
                               DF_SIGN_FILE_MAX);
        if (text.len == DF_SIGN_BASE64_SIZE - 1)
                return parse_base64(text, ret, err);
        return parse_public(text, "the text", ret, err);
}

int df_sign_public_read(const char *path, struct df_sign_public *ret, struct df_error *err)
{
        char text[DF_SIGN_FILE_MAX + 1];
        size_t len = 0;
        int rc = read_file(path, false, text, &len, err);

        return rc < 0 ? rc : parse_public(df_bytes(text, len), path, ret, err);
}

static EVP_PKEY *pkey_of(const struct df_sign_public *p)
{
        return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, p->raw, sizeof(p->raw));
}

static int encode_public(const struct df_sign_public *p, BIO **ret, struct df_error *err)
{
        EVP_PKEY *pkey = pkey_of(p);
        BIO *out = BIO_new(BIO_s_mem());
        int rc = 0;

        if (!pkey || !out || PEM_write_bio_PUBKEY(out, pkey) != 1)
                rc = fail_ssl(err, "encoding a public key");
        EVP_PKEY_free(pkey);
        if (rc < 0)
                BIO_free(out);
        else
                *ret = out;
        return rc;
}

int df_sign_public_write(const struct df_sign_public *p, const char *path, struct df_error *err)
{
        BIO *out = NULL;
        int rc = encode_public(p, &out, err);

        if (rc == 0)
                rc = write_new(path, out, 0644, err);
        BIO_free(out);
        return rc;
}

int df_sign_public_pem(const struct df_sign_public *p, struct df_buf *ret, struct df_error *err)
{
        char *data = NULL;
        BIO *out = NULL;
        int rc = encode_public(p, &out, err);

        if (rc == 0) {
                long len = BIO_get_mem_data(out, &data);

                df_buf_append(ret, data, (size_t)len);
                rc = df_buf_check(ret, err);
        }
        BIO_free(out);
        return rc;
}

void df_sign_public_base64(const struct df_sign_public *p, char ret[DF_SIGN_BASE64_SIZE])
{
        (void)EVP_EncodeBlock((uint8_t *)ret, p->raw, sizeof(p->raw));
}

/* ---- signatures ---- */

int dfi_sign_raw(const struct df_sign_key *k, struct df_bytes text, uint8_t ret[DF_SIGN_SIZE],
                 struct df_error *err)
{
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        size_t len = DF_SIGN_SIZE;
        int rc = 0;

        if (!ctx || EVP_DigestSignInit(ctx, NULL, NULL, NULL, k->pkey) != 1 ||
            EVP_DigestSign(ctx, ret, &len, text.data, text.len) != 1 || len != DF_SIGN_SIZE)
                rc = fail_ssl(err, "signing");
        EVP_MD_CTX_free(ctx);
        return rc;
}

int dfi_verify_raw(const struct df_sign_public *p, struct df_bytes text,
                   const uint8_t sig[DF_SIGN_SIZE], struct df_error *err)
{
        EVP_PKEY *pkey = pkey_of(p);
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        int rc = 0;

        if (!pkey || !ctx || EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) != 1)
                rc = fail_ssl(err, "verifying");
        else if (EVP_DigestVerify(ctx, sig, DF_SIGN_SIZE, text.data, text.len) != 1)
                rc = df_fail(err, DF_ECORRUPT,
                             "the signature is not one of key %s over these bytes: they were "
                             "changed, or another key signed them",
                             p->id);
        ERR_clear_error();
        EVP_MD_CTX_free(ctx);
        EVP_PKEY_free(pkey);
        return rc;
}

static int make_text(const char *domain, struct df_bytes b, struct df_buf *ret,
                     struct df_error *err)
{
        size_t len = strlen(domain);

        if (len == 0 || len > DF_SIGN_DOMAIN_MAX)
                return df_fail(err, DF_EINVAL, "a signature's domain has 1 to %d bytes, not %zu",
                               DF_SIGN_DOMAIN_MAX, len);
        if (b.len > DF_SIGN_BYTES_MAX)
                return df_fail(err, DF_ELIMIT, "a signature covers at most %u bytes, not %zu",
                               DF_SIGN_BYTES_MAX, b.len);
        df_put_u8(ret, (uint8_t)len);
        df_buf_append(ret, domain, len);
        df_buf_append(ret, b.data, b.len);
        return df_buf_check(ret, err);
}

int df_sign(const struct df_sign_key *k, const char *domain, struct df_bytes b,
            uint8_t ret[DF_SIGN_SIZE], struct df_error *err)
{
        struct df_buf text = {0};
        int rc = make_text(domain, b, &text, err);

        if (rc == 0)
                rc = dfi_sign_raw(k, df_buf_bytes(&text), ret, err);
        df_buf_release(&text);
        return rc;
}

int df_sign_verify(const struct df_sign_public *p, const char *domain, struct df_bytes b,
                   const uint8_t sig[DF_SIGN_SIZE], struct df_error *err)
{
        struct df_buf text = {0};
        int rc = make_text(domain, b, &text, err);

        if (rc == 0)
                rc = dfi_verify_raw(p, df_buf_bytes(&text), sig, err);
        df_buf_release(&text);
        return rc;
}
