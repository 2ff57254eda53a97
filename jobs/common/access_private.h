/* access_private.h - between access.c (requests) and access_keys.c (the keys file). */
#ifndef AD_ACCESS_PRIVATE_H
#define AD_ACCESS_PRIVATE_H

#include "df/sha256.h"
#include "jobs/common/access.h"

struct dfi_key {
        char id[AD_KEY_ID_MAX + 1];
        char tenant[AD_ID_MAX + 1];
        enum ad_key_class key_class;
        uint8_t hash[DF_SHA256_SIZE];
        struct df_bytes origins[AD_KEY_ORIGINS_MAX]; /* borrowed from the table's text */
        size_t origin_count;
        bool any_origin;
        int64_t rate;           /* events a second; 0 = no limit */
        _Atomic int64_t due_us; /* monotonic: when all events charged so far are within the rate */
        uint32_t line;          /* for errors about two keys */
};

/* One reading of the file; never changes afterwards. */
struct dfi_keys {
        struct df_buf text;
        struct dfi_key *list; /* sorted by id, unique */
        size_t count;
};

int dfi_keys_read(const char *path, struct dfi_keys **ret, struct df_error *err);
/* NULL: no such id. */
const struct dfi_key *dfi_keys_find(const struct dfi_keys *keys, struct df_bytes id);
bool dfi_key_lists_origin(const struct dfi_key *key, struct df_bytes origin);
void dfi_keys_free(struct dfi_keys *keys);

#endif
