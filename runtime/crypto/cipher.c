#include "df/cipher.h"

#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

static const uint8_t nonce[12]; /* one message a key: see the header */

int df_hmac_sha256(struct df_bytes key, struct df_bytes data, uint8_t ret[DF_HMAC_SIZE],
                   struct df_error *err)
{
        if (key.len > INT_MAX ||
            !HMAC(EVP_sha256(), key.data, (int)key.len, data.data, data.len, ret, NULL))
                return df_fail(err, DF_EIO, "HMAC-SHA256 failed");
        return 0;
}

static bool start(EVP_CIPHER_CTX *ctx, const uint8_t *key, struct df_bytes bound, int encrypt)
{
        int n;

        return EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce, encrypt) == 1 &&
               EVP_CipherUpdate(ctx, NULL, &n, bound.data, (int)bound.len) == 1;
}

static bool seal(EVP_CIPHER_CTX *ctx, const uint8_t *key, struct df_bytes bound,
                 struct df_bytes plain, uint8_t *ret)
{
        int n, rest;

        return start(ctx, key, bound, 1) &&
               EVP_CipherUpdate(ctx, ret, &n, plain.data, (int)plain.len) == 1 &&
               EVP_CipherFinal_ex(ctx, ret + n, &rest) == 1 &&
               EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_GET_TAG, DF_CIPHER_TAG_SIZE,
                                   ret + plain.len) == 1;
}

static bool unseal(EVP_CIPHER_CTX *ctx, const uint8_t *key, struct df_bytes bound,
                   struct df_bytes sealed, uint8_t *ret)
{
        size_t len = sealed.len - DF_CIPHER_TAG_SIZE;
        int n, rest;

        return start(ctx, key, bound, 0) &&
               EVP_CipherUpdate(ctx, ret, &n, sealed.data, (int)len) == 1 &&
               EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_GCM_SET_TAG, DF_CIPHER_TAG_SIZE,
                                   (void *)(sealed.data + len)) == 1 &&
               EVP_CipherFinal_ex(ctx, ret + n, &rest) == 1;
}

int df_cipher_seal(const uint8_t key[DF_CIPHER_KEY_SIZE], struct df_bytes bound,
                   struct df_bytes plain, uint8_t *ret, struct df_error *err)
{
        EVP_CIPHER_CTX *ctx;
        bool ok;

        if (plain.len > INT_MAX || bound.len > INT_MAX)
                return df_fail(err, DF_ELIMIT, "%zu bytes are too long to seal", plain.len);
        ctx = EVP_CIPHER_CTX_new();
        if (!ctx)
                return df_fail(err, DF_ENOMEM, "AES-256-GCM");
        ok = seal(ctx, key, bound, plain, ret);
        EVP_CIPHER_CTX_free(ctx);
        return ok ? 0 : df_fail(err, DF_EIO, "AES-256-GCM failed");
}

int df_cipher_open(const uint8_t key[DF_CIPHER_KEY_SIZE], struct df_bytes bound,
                   struct df_bytes sealed, uint8_t *ret, struct df_error *err)
{
        EVP_CIPHER_CTX *ctx;
        bool ok;

        if (sealed.len < DF_CIPHER_TAG_SIZE || sealed.len > INT_MAX || bound.len > INT_MAX)
                return df_fail(err, DF_ECORRUPT, "%zu bytes are no sealed text", sealed.len);
        ctx = EVP_CIPHER_CTX_new();
        if (!ctx)
                return df_fail(err, DF_ENOMEM, "AES-256-GCM");
        ok = unseal(ctx, key, bound, sealed, ret);
        EVP_CIPHER_CTX_free(ctx);
        if (ok)
                return 0;
        OPENSSL_cleanse(ret, sealed.len - DF_CIPHER_TAG_SIZE); /* never what was not verified */
        return df_fail(err, DF_ECORRUPT, "the sealed text was not made with this key");
}
