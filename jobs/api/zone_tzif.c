/* zone_tzif.c - the reader of TZif files (RFC 8536): version 2 and later, every length checked. */
#include <stdlib.h>

#include "df/hash.h"
#include "jobs/api/zone_private.h"

#define HEADER_BYTES 44
#define COUNT_MAX 65536
#define OFFSET_MAX_S (26 * 3600)

struct header {
        uint8_t version;
        uint32_t isut, isstd, leap, time, type, chars;
};

static bool read_header(struct df_reader *r, struct header *h)
{
        struct df_bytes magic = df_get_bytes(r, 4);

        if (r->bad || memcmp(magic.data, "TZif", 4) != 0)
                return false;
        h->version = df_get_u8(r);
        (void)df_get_bytes(r, 15);
        h->isut = df_get_u32be(r);
        h->isstd = df_get_u32be(r);
        h->leap = df_get_u32be(r);
        h->time = df_get_u32be(r);
        h->type = df_get_u32be(r);
        h->chars = df_get_u32be(r);
        return !r->bad && h->isut <= COUNT_MAX && h->isstd <= COUNT_MAX && h->leap <= COUNT_MAX &&
               h->time <= COUNT_MAX && h->type >= 1 && h->type <= 256 && h->chars <= COUNT_MAX;
}

static bool skip_first_block(struct df_reader *r, const struct header *h)
{
        size_t n = (size_t)h->time * 5 + (size_t)h->type * 6 + h->chars + (size_t)h->leap * 8 +
                   h->isstd + h->isut;

        (void)df_get_bytes(r, n);
        return !r->bad;
}

/* The 64-bit block into z; false when damaged. */
static bool read_block(struct df_reader *r, const struct header *h, struct ad_zone *z)
{
        struct df_bytes times = df_get_bytes(r, (size_t)h->time * 8);
        struct df_bytes kinds = df_get_bytes(r, h->time);
        struct df_bytes types = df_get_bytes(r, (size_t)h->type * 6);
        struct df_reader t = df_reader(times), y = df_reader(types);
        int32_t offsets[256];

        (void)df_get_bytes(r, h->chars + (size_t)h->leap * 12 + h->isstd + h->isut);
        if (r->bad)
                return false;
        for (uint32_t i = 0; i < h->type; i++) {
                offsets[i] = (int32_t)df_get_u32be(&y);
                (void)df_get_bytes(&y, 2);
                if (offsets[i] < -OFFSET_MAX_S || offsets[i] > OFFSET_MAX_S)
                        return false;
        }
        z->before_s = offsets[0];
        z->count = h->time;
        for (uint32_t i = 0; i < h->time; i++) {
                z->times_s[i] = (int64_t)df_get_u64be(&t);
                if (kinds.data[i] >= h->type || (i > 0 && z->times_s[i] <= z->times_s[i - 1]))
                        return false;
                z->after_s[i] = offsets[kinds.data[i]];
        }
        return true;
}

static bool read_footer(struct df_reader *r, struct adi_rule *ret)
{
        const uint8_t *end;

        if (df_get_u8(r) != '\n' || r->bad)
                return false;
        end = df_reader_left(r) ? memchr(r->p, '\n', df_reader_left(r)) : NULL;
        return end && adi_rule_parse(df_bytes(r->p, (size_t)(end - r->p)), ret);
}

int ad_zone_parse(const char *name, struct df_bytes tzif, struct ad_zone **ret,
                  struct df_error *err)
{
        struct df_reader r = df_reader(tzif);
        struct ad_zone *z;
        struct header h;

        if (strlen(name) > AD_ZONE_NAME_MAX)
                return df_fail(err, DF_EINVAL, "the name of a zone is too long");
        if (!read_header(&r, &h) || h.version < '2' || !skip_first_block(&r, &h) ||
            !read_header(&r, &h))
                return df_fail(err, DF_EPARSE, "zone %s: not a TZif file of version 2 or later",
                               name);
        z = calloc(1, sizeof(*z));
        if (z) {
                z->times_s = calloc(h.time + 1, sizeof(*z->times_s));
                z->after_s = calloc(h.time + 1, sizeof(*z->after_s));
        }
        if (!z || !z->times_s || !z->after_s) {
                ad_zone_destroy(z);
                return df_fail(err, DF_ENOMEM, "zone %s", name);
        }
        memcpy(z->name, name, strlen(name) + 1);
        z->digest = df_hash64(tzif);
        if (!read_block(&r, &h, z) || !read_footer(&r, &z->rule)) {
                ad_zone_destroy(z);
                return df_fail(err, DF_EPARSE, "zone %s: the TZif file is damaged", name);
        }
        *ret = z;
        return 0;
}

void ad_zone_destroy(struct ad_zone *z)
{
        if (!z)
                return;
        free(z->times_s);
        free(z->after_s);
        free(z);
}
