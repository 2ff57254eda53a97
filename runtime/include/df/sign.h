/* sign.h - Ed25519 signatures and the ring of keys that made them (runtime/crypto).
 *
 * A signature is detached, 64 bytes, pure Ed25519 (RFC 8032) over this text:
 *     1 byte: length of the domain; the domain; the bytes.
 * The domain says what the signature is for ("adtally period manifest 1"), so that one made for a
 * purpose is none for another. Each purpose has its own, with a version; never reuse one.
 *
 * Files: a private key is PEM, PKCS#8, as `openssl genpkey -algorithm ed25519` writes it, without a
 * passphrase, and nobody but its owner may read it; a public key is PEM, SubjectPublicKeyInfo.
 * A key's id is the first 16 hex digits of the SHA-256 of its 32 raw public bytes. It names a key
 * in a ring that is trusted; whoever trusts no ring pins the whole public key.
 *
 * Thread: any. A key does not change after it was made, so threads may share one.
 * Errors: DF_EPARSE: not such a PEM file, or torn. DF_EINVAL: a key of another kind (named), with a
 * passphrase, or readable by others. Private bytes never appear in a text.
 */
#ifndef DF_SIGN_H
#define DF_SIGN_H

#include "df/bytes.h"

#define DF_SIGN_SIZE 64
#define DF_SIGN_PUBLIC_SIZE 32
#define DF_SIGN_ID_SIZE 17     /* with the final NUL */
#define DF_SIGN_BASE64_SIZE 45 /* of a public key, with the final NUL */
#define DF_SIGN_DOMAIN_MAX 64
#define DF_SIGN_BYTES_MAX (256u << 20) /* what one signature covers; it is copied once */
#define DF_SIGN_FILE_MAX 4096          /* of a key */

struct df_sign_public {
        uint8_t raw[DF_SIGN_PUBLIC_SIZE];
        char id[DF_SIGN_ID_SIZE];
};
struct df_sign_key; /* private; wiped when released */

int df_sign_key_make(struct df_sign_key **ret, struct df_error *err);
/* Follows links. DF_ENOENT; DF_EINVAL also when group or others may read the file. */
int df_sign_key_read(const char *path, struct df_sign_key **ret, struct df_error *err);
/* A new file of mode 0600, durable with its directory. DF_EEXIST: it is never overwritten. */
int df_sign_key_write(const struct df_sign_key *k, const char *path, struct df_error *err);
const struct df_sign_public *df_sign_key_public(const struct df_sign_key *k); /* lives as long */
void df_sign_key_release(struct df_sign_key *k);                              /* NULL is fine */

/* PEM, or the 44 characters of df_sign_public_base64. */
int df_sign_public_parse(struct df_bytes text, struct df_sign_public *ret, struct df_error *err);
int df_sign_public_read(const char *path, struct df_sign_public *ret, struct df_error *err);
/* A new file of mode 0644 less the umask, durable with its directory; else DF_EEXIST. */
int df_sign_public_write(const struct df_sign_public *p, const char *path, struct df_error *err);
int df_sign_public_pem(const struct df_sign_public *p, struct df_buf *ret, struct df_error *err);
void df_sign_public_base64(const struct df_sign_public *p, char ret[DF_SIGN_BASE64_SIZE]);

/* domain: 1 to DF_SIGN_DOMAIN_MAX bytes, else DF_EINVAL; more than DF_SIGN_BYTES_MAX is DF_ELIMIT.
 */
int df_sign(const struct df_sign_key *k, const char *domain, struct df_bytes b,
            uint8_t ret[DF_SIGN_SIZE], struct df_error *err);
/* 0: this key signed exactly these bytes for this domain. DF_ECORRUPT: it did not. */
int df_sign_verify(const struct df_sign_public *p, const char *domain, struct df_bytes b,
                   const uint8_t sig[DF_SIGN_SIZE], struct df_error *err);

/* ---- the ring: a directory ----
 *   signing.key   the current private key
 *   <id>.pub      every public key that ever signed: old signatures stay verifiable
 * A copy without signing.key is what a verifier needs. Other names are ignored.
 *
 * df_keyring_create makes the directory and a key, or with rotate puts a new key in the place of
 * the current one, whose file is deleted (a file system may keep its bytes until it needs the
 * room). One after the other: the directory is locked (flock), and readers of the current key wait
 * meanwhile. A crash leaves the old key or the new one, whole and with its .pub; what else it
 * leaves (signing.key.new, its .pub, public.new) never signed anything, and the next call removes
 * it. */
#define DF_KEYRING_KEYS_MAX 1024

/* *ret_old: the key that was replaced; its id is "" when there was none; may be NULL.
 * DF_EEXIST: there is a key, and no rotate. DF_ENOENT: rotate, and there is none.
 * DF_EINVAL: signing.key is a link, so rotate where the key itself is. DF_ELIMIT: the ring holds
 * DF_KEYRING_KEYS_MAX. After DF_EIO, df_keyring_list tells which key is current. */
int df_keyring_create(const char *dir, bool rotate, struct df_sign_public *ret,
                      struct df_sign_public *ret_old, struct df_error *err);
/* The current private key, once it is durable. DF_ENOENT: no key, or its .pub is missing (the text
 * tells which, and what to do). */
int df_keyring_open(const char *dir, struct df_sign_key **ret, struct df_error *err);
/* DF_ENOENT: no such key in this ring. DF_EINVAL: not an id. DF_ECORRUPT: the file holds another
 * key than its name says. */
int df_keyring_find(const char *dir, const char *id, struct df_sign_public *ret,
                    struct df_error *err);
struct df_keyring_entry {
        struct df_sign_public key;
        int64_t created_ms; /* the file's mtime */
        bool current;       /* else retired; always false without signing.key */
};
/* Oldest first; free(*ret). A directory that does not exist is an empty ring; one damaged file is
 * an error that names it. */
int df_keyring_list(const char *dir, struct df_keyring_entry **ret, size_t *ret_count,
                    struct df_error *err);

#endif
