/* cipher.h - HMAC-SHA256, and sealing one short text under a key of its own (runtime/crypto, the
 * only OpenSSL).
 *
 * A key of df_cipher_seal encrypts exactly one plaintext in its life: the nonce is therefore fixed
 * (all zero), and the same plaintext has the same bytes each time. What is bound is authenticated
 * and not stored: opening needs the same. Whoever gives a key a second plaintext breaks both.
 * Thread: any.
 * Errors: DF_ECORRUPT: the bytes, the key or what is bound is not that of the sealing; DF_EIO: the
 *         library failed.
 */
#ifndef DF_CIPHER_H
#define DF_CIPHER_H

#include "df/bytes.h"

#define DF_CIPHER_KEY_SIZE 32
#define DF_CIPHER_TAG_SIZE 16
#define DF_HMAC_SIZE 32

int df_hmac_sha256(struct df_bytes key, struct df_bytes data, uint8_t ret[DF_HMAC_SIZE],
                   struct df_error *err);
/* AES-256-GCM. ret holds plain.len + DF_CIPHER_TAG_SIZE bytes: ciphertext, tag. */
int df_cipher_seal(const uint8_t key[DF_CIPHER_KEY_SIZE], struct df_bytes bound,
                   struct df_bytes plain, uint8_t *ret, struct df_error *err);
/* ret holds sealed.len - DF_CIPHER_TAG_SIZE bytes; zeroed when it fails. */
int df_cipher_open(const uint8_t key[DF_CIPHER_KEY_SIZE], struct df_bytes bound,
                   struct df_bytes sealed, uint8_t *ret, struct df_error *err);

#endif
