#include "df/sha256.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <unistd.h>

int df_sha256(struct df_bytes b, uint8_t ret[DF_SHA256_SIZE], struct df_error *err)
{
        if (EVP_Digest(b.data, b.len, ret, NULL, EVP_sha256(), NULL) != 1)
                return df_fail(err, DF_EIO, "SHA-256 failed");
        return 0;
}

static int hash_fd(EVP_MD_CTX *ctx, int fd, const char *path, uint64_t *ret_size,
                   struct df_error *err)
{
        static _Thread_local uint8_t block[64 * 1024];
        uint64_t size = 0;

        if (EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
                return df_fail(err, DF_EIO, "SHA-256 failed");
        for (;;) {
                ssize_t n = read(fd, block, sizeof(block));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return df_fail_errno(err, DF_EIO, "read %s", path);
                if (n == 0)
                        break;
                if (EVP_DigestUpdate(ctx, block, (size_t)n) != 1)
                        return df_fail(err, DF_EIO, "SHA-256 of %s failed", path);
                size += (uint64_t)n;
        }
        *ret_size = size;
        return 0;
}

int df_sha256_file(const char *path, uint8_t ret[DF_SHA256_SIZE], uint64_t *ret_size,
                   struct df_error *err)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC), rc;
        EVP_MD_CTX *ctx;
        uint64_t size = 0;

        if (fd < 0)
                return df_fail_errno(err, errno == ENOENT ? DF_ENOENT : DF_EIO, "open %s", path);
        ctx = EVP_MD_CTX_new();
        rc = ctx ? hash_fd(ctx, fd, path, &size, err) : df_fail(err, DF_ENOMEM, "SHA-256");
        if (rc == 0 && EVP_DigestFinal_ex(ctx, ret, NULL) != 1)
                rc = df_fail(err, DF_EIO, "SHA-256 of %s failed", path);
        EVP_MD_CTX_free(ctx);
        close(fd);
        if (rc == 0 && ret_size)
                *ret_size = size;
        return rc;
}

static EVP_MD_CTX *ctx_of(struct df_sha256_stream *s)
{
        return (EVP_MD_CTX *)(void *)s;
}

struct df_sha256_stream *df_sha256_new(struct df_error *err)
{
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();

        if (ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1)
                return (struct df_sha256_stream *)(void *)ctx;
        EVP_MD_CTX_free(ctx);
        (void)df_fail(err, DF_ENOMEM, "SHA-256");
        return NULL;
}

int df_sha256_add(struct df_sha256_stream *s, struct df_bytes b, struct df_error *err)
{
        if (EVP_DigestUpdate(ctx_of(s), b.data, b.len) == 1)
                return 0;
        return df_fail(err, DF_EIO, "SHA-256 failed");
}

int df_sha256_end(struct df_sha256_stream *s, uint8_t *ret, struct df_error *err)
{
        int rc = 0;

        if (s && ret && EVP_DigestFinal_ex(ctx_of(s), ret, NULL) != 1)
                rc = df_fail(err, DF_EIO, "SHA-256 failed");
        EVP_MD_CTX_free(ctx_of(s));
        return rc;
}

void df_hex(const uint8_t *data, size_t len, char *ret)
{
        static const char digits[] = "0123456789abcdef";

        for (size_t i = 0; i < len; i++) {
                ret[2 * i] = digits[data[i] >> 4];
                ret[2 * i + 1] = digits[data[i] & 15];
        }
        ret[2 * len] = '\0';
}

bool df_equal_secret(struct df_bytes a, struct df_bytes b)
{
        return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.data, b.data, a.len) == 0);
}

int df_random(void *ret, size_t len, struct df_error *err)
{
        if (len > INT_MAX || RAND_bytes(ret, (int)len) != 1)
                return df_fail(err, DF_EIO, "the system's random generator failed");
        return 0;
}
