/* crypto_private.h - inside runtime/crypto, and for its tests. */
#ifndef DFI_CRYPTO_PRIVATE_H
#define DFI_CRYPTO_PRIVATE_H

#include "df/sign.h"

/* Plain RFC 8032, without a domain: its test vectors go through here. Nothing else may. */
int dfi_sign_raw(const struct df_sign_key *k, struct df_bytes text, uint8_t ret[DF_SIGN_SIZE],
                 struct df_error *err);
int dfi_verify_raw(const struct df_sign_public *p, struct df_bytes text,
                   const uint8_t sig[DF_SIGN_SIZE], struct df_error *err);

int dfi_sync_dir_of(const char *path, struct df_error *err); /* the directory that holds path */

/* df_keyring_create; step, when not NULL, is called before each change of the directory. */
int dfi_keyring_change(const char *dir, bool rotate, void (*step)(void *arg), void *arg,
                       struct df_sign_public *ret, struct df_sign_public *ret_old,
                       struct df_error *err);

#endif
