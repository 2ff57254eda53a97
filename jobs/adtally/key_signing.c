/* key_signing.c - the signing keys of a data directory: make, rotate, list, print (df/sign.h). */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/run.h"
#include "df/sign.h"
#include "jobs/adtally/key.h"
#include "jobs/common/settings.h"
#include "jobs/common/times.h"

#define RING "keys" /* under DATA */

static int ring_path(const struct df_config *c, char ret[PATH_MAX], struct df_error *err)
{
        return ad_data_path(c, RING, ret, err);
}

static int print_pem(const struct df_sign_public *p, struct df_error *err)
{
        struct df_buf pem = {0};
        int rc = df_sign_public_pem(p, &pem, err);

        if (rc == 0)
                printf("%.*s", (int)pem.len, (const char *)pem.data);
        df_buf_release(&pem);
        return rc;
}

int ad_key_signing_create(const struct df_config *c, struct df_error *err)
{
        char ring[PATH_MAX], base64[DF_SIGN_BASE64_SIZE];
        struct df_sign_public key, old;
        int rc = df_mkdirs(df_config_text(c, "data"), err);

        if (rc == 0)
                rc = ring_path(c, ring, err);
        if (rc == 0)
                rc = df_keyring_create(ring, df_config_bool(c, "rotate"), &key, &old, err);
        if (rc < 0)
                return rc;
        df_sign_public_base64(&key, base64);
        printf("key id: %s\n", key.id);
        if (old.id[0])
                printf("retired: %s (its private key is deleted, %s/%s.pub stays)\n", old.id, ring,
                       old.id);
        printf("private key: %s/signing.key\n"
               "public key: %s/%s.pub\n"
               "public key in base64: %s\n",
               ring, ring, key.id, base64);
        return print_pem(&key, err);
}

int ad_key_signing_list(const struct df_config *c, struct df_error *err)
{
        struct df_keyring_entry *keys = NULL;
        char ring[PATH_MAX];
        size_t count = 0;
        int rc = ring_path(c, ring, err);

        if (rc == 0)
                rc = df_keyring_list(ring, &keys, &count, err);
        if (rc < 0)
                return rc;
        for (size_t i = 0; i < count; i++) {
                char created[AD_TIME_TEXT_MAX];

                (void)ad_time_text(keys[i].created_ms / 1000 * 1000, created);
                printf("%s  %s  %s\n", keys[i].key.id, created,
                       keys[i].current ? "current" : "retired");
        }
        if (count == 0)
                printf("no signing key in %s yet: adtally key create --signing\n", ring);
        free(keys);
        return 0;
}

int ad_key_signing_public(const struct df_config *c, const char *id, struct df_error *err)
{
        struct df_sign_key *current = NULL;
        struct df_sign_public key;
        char ring[PATH_MAX];
        int rc = ring_path(c, ring, err);

        if (rc == 0 && id)
                rc = df_keyring_find(ring, id, &key, err);
        else if (rc == 0)
                rc = df_keyring_open(ring, &current, err);
        if (current)
                key = *df_sign_key_public(current);
        if (rc == 0)
                rc = print_pem(&key, err);
        df_sign_key_release(current);
        return rc;
}
