/* key.h - `adtally key`: API keys (key.c) and the ring of signing keys (key_signing.c). */
#ifndef AD_KEY_H
#define AD_KEY_H

#include "df/config.h"

/* Each prints its answer. The ring is DATA/keys (df/sign.h). */
int ad_key_signing_create(const struct df_config *c, struct df_error *err);
int ad_key_signing_list(const struct df_config *c, struct df_error *err);
/* id NULL: of the current key. */
int ad_key_signing_public(const struct df_config *c, const char *id, struct df_error *err);

#endif
