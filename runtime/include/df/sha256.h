/* sha256.h - SHA-256 and constant-time comparison (runtime/crypto, the only OpenSSL).
 * Thread: any; a context belongs to one thread.
 */
#ifndef DF_SHA256_H
#define DF_SHA256_H

#include "df/bytes.h"

#define DF_SHA256_SIZE 32
#define DF_SHA256_HEX_SIZE 65 /* with the final NUL */

int df_sha256(struct df_bytes b, uint8_t ret[DF_SHA256_SIZE], struct df_error *err);
int df_sha256_file(const char *path, uint8_t ret[DF_SHA256_SIZE], uint64_t *ret_size,
                   struct df_error *err);
/* Of what comes piece by piece: new, add..., end, which gives the digest and frees (ret NULL: only
 * frees; NULL is fine). */
struct df_sha256_stream;
struct df_sha256_stream *df_sha256_new(struct df_error *err);
int df_sha256_add(struct df_sha256_stream *s, struct df_bytes b, struct df_error *err);
int df_sha256_end(struct df_sha256_stream *s, uint8_t *ret, struct df_error *err);
void df_hex(const uint8_t *data, size_t len, char *ret);    /* ret holds 2 * len + 1 */
bool df_equal_secret(struct df_bytes a, struct df_bytes b); /* constant time for equal lengths */
int df_random(void *ret, size_t len, struct df_error *err);

#endif
