/* config_values.c - the texts of settings as values: durations, sizes, integers. */
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "df/config.h"

struct unit {
        const char *name;
        int64_t factor;
};

static const struct unit duration_units[] = {
        {"ms", 1},      {"s", 1000},     {"m", 60000}, {"min", 60000},
        {"h", 3600000}, {"d", 86400000}, {"", 1000},
};
static const struct unit size_units[] = {
        {"", 1},
        {"B", 1},
        {"KiB", 1LL << 10},
        {"MiB", 1LL << 20},
        {"GiB", 1LL << 30},
        {"TiB", 1LL << 40},
        {"KB", 1000},
        {"MB", 1000000},
        {"GB", 1000000000},
        {"TB", 1000000000000},
};

int df_parse_integer(const char *text, int64_t *ret, struct df_error *err)
{
        char *end;
        long long v;

        errno = 0;
        v = strtoll(text, &end, 10);
        if (errno || end == text || *end || isspace((unsigned char)*text))
                return df_fail(err, DF_EPARSE, "\"%s\" is not a whole number", text);
        *ret = v;
        return 0;
}

static int parse_units(const char *text, const struct unit *units, size_t count, const char *what,
                       int64_t *ret, struct df_error *err)
{
        size_t digits = strspn(text, "0123456789");
        char number[20];
        uint64_t v;

        if (digits == 0 || digits >= sizeof(number))
                return df_fail(err, DF_EPARSE, "\"%s\" is not %s", text, what);
        memcpy(number, text, digits);
        number[digits] = '\0';
        v = strtoull(number, NULL, 10); /* 19 digits always fit */
        for (size_t i = 0; i < count; i++) {
                int64_t product;

                if (strcmp(text + digits, units[i].name) != 0)
                        continue;
                if (__builtin_mul_overflow(v, units[i].factor, &product))
                        return df_fail(err, DF_EPARSE, "\"%s\" is too large", text);
                *ret = product;
                return 0;
        }
        return df_fail(err, DF_EPARSE, "\"%s\" is not %s", text, what);
}

int df_parse_duration(const char *text, int64_t *ret_ms, struct df_error *err)
{
        return parse_units(text, duration_units, sizeof(duration_units) / sizeof(struct unit),
                           "a duration (250ms, 30s, 15m, 24h, 7d)", ret_ms, err);
}

int df_parse_size(const char *text, uint64_t *ret_bytes, struct df_error *err)
{
        int64_t v;
        int rc = parse_units(text, size_units, sizeof(size_units) / sizeof(struct unit),
                             "a size (4096, 64KiB, 16MiB, 1GB)", &v, err);

        if (rc == 0)
                *ret_bytes = (uint64_t)v;
        return rc;
}
