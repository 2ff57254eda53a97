/* config.h - settings: one table, and values from defaults, one INI file, the environment, flags.
 *
 * The later wins. A setting `dedupe-horizon` is the INI key `dedupe-horizon`, the variable
 * ADTALLY_DEDUPE_HORIZON and the flag `--dedupe-horizon VALUE` (or `--dedupe-horizon=VALUE`; a
 * boolean's flag may stand alone). The INI file has no sections. Unknown keys, ADTALLY_* variables
 * and flags are errors that name the nearest known one. Values are checked when they are read in,
 * so a job starts with all of them valid.
 * Types: text; integer; bool (true false yes no on off 1 0); duration ("250ms", "15m", "24h", "7d",
 * a bare number is seconds); bytes ("64MiB", "1GB", a bare number is bytes); choice ("a|b|c").
 * A family, "kafka.*", takes every name that begins with it, as text: the flag and the INI key
 * kafka.ssl.ca.location, the variable ADTALLY_KAFKA__SSL_CA_LOCATION.
 * Order of calls: df_config_load, getters, df_config_release. Thread: load in one, then any.
 */
#ifndef DF_CONFIG_H
#define DF_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "df/err.h"

enum df_setting_type { DF_TEXT, DF_INTEGER, DF_BOOL, DF_DURATION, DF_SIZE, DF_CHOICE };

struct df_setting {
        const char *name; /* [a-z0-9-]+, of a family followed by ".*" */
        enum df_setting_type type;
        const char *value;        /* default, as text; NULL = unset */
        int64_t min, max;         /* integer, duration (ms), size (bytes); both 0 = no bounds */
        const char *choices;      /* DF_CHOICE: "client|table" */
        const char *arg;          /* in --help: "DIR" */
        const char *help;         /* one line */
        bool secret;              /* never printed */
        const char *secret_words; /* of a family: members with one of them in their name, too */
};

struct df_config; /* opaque */

/* argv: flags and free arguments, without the program's name. *ret_free holds the free arguments,
 * which stay borrowed from argv; at most argc of them. The INI file is that of --config or
 * ADTALLY_CONFIG. `--help` sets *ret_help and nothing else is checked. */
int df_config_load(const struct df_setting *table, size_t count, int argc, char **argv,
                   struct df_config **ret, const char **ret_free, int *ret_free_count,
                   bool *ret_help, struct df_error *err);
void df_config_release(struct df_config *c);

/* Getters check that the name exists with this type: a typing mistake is a bug. */
const char *df_config_text(const struct df_config *c,
                           const char *name); /* also DF_CHOICE; or NULL */
int64_t df_config_integer(const struct df_config *c, const char *name);
int64_t df_config_ms(const struct df_config *c, const char *name);
uint64_t df_config_bytes(const struct df_config *c, const char *name);
bool df_config_bool(const struct df_config *c, const char *name);
/* "default", "file /etc/adtally.ini", "environment ADTALLY_X", "flag". */
const char *df_config_origin(const struct df_config *c, const char *name);
bool df_config_is_default(const struct df_config *c, const char *name);
/* The value as text, of any type; NULL = unset. `--name=text` gives another process the same. */
const char *df_config_value(const struct df_config *c, const char *name);

/* The i-th member of a family that is set, by name: its value, and its name without the family's;
 * NULL after the last. */
const char *df_config_member(const struct df_config *c, const char *family, size_t i,
                             const char **ret_name);

void df_config_print(const struct df_config *c, FILE *f); /* effective values, origins */
void df_config_help(const struct df_setting *table, size_t count, FILE *f); /* a line a setting */

/* Parsers, also for values from elsewhere. */
int df_parse_duration(const char *text, int64_t *ret_ms, struct df_error *err);
int df_parse_size(const char *text, uint64_t *ret_bytes, struct df_error *err);
int df_parse_integer(const char *text, int64_t *ret, struct df_error *err);

#endif
