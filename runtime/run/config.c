#include "df/config.h"

#include <ctype.h>
#include <errno.h>
#include <ini.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENV_PREFIX "ADTALLY_"
#define NAME_MAX_LENGTH 64

struct value {
        char *text; /* owned; NULL = unset */
        int64_t number;
        char *origin; /* owned; NULL = default */
};

struct member { /* of a family */
        const struct df_setting *family;
        char name[NAME_MAX_LENGTH + 1];
        struct value value;
};

struct df_config {
        const struct df_setting *table;
        size_t count;
        struct value *values;
        struct member *members; /* sorted by name */
        size_t member_count;
};

/* The length of what a family's members begin with, or 0: "kafka.*" is one. */
static size_t family_length(const struct df_setting *s)
{
        size_t len = strlen(s->name);

        return len > 2 && strcmp(s->name + len - 2, ".*") == 0 ? len - 1 : 0;
}

static size_t edit_distance(const char *a, const char *b)
{
        size_t row[NAME_MAX_LENGTH + 1], la = strlen(a), lb = strlen(b);

        if (la > NAME_MAX_LENGTH || lb > NAME_MAX_LENGTH)
                return NAME_MAX_LENGTH;
        for (size_t j = 0; j <= lb; j++)
                row[j] = j;
        for (size_t i = 1; i <= la; i++) {
                size_t diagonal = row[0];

                row[0] = i;
                for (size_t j = 1; j <= lb; j++) {
                        size_t up = row[j], best = diagonal + (a[i - 1] != b[j - 1]);

                        if (up + 1 < best)
                                best = up + 1;
                        if (row[j - 1] + 1 < best)
                                best = row[j - 1] + 1;
                        diagonal = up;
                        row[j] = best;
                }
        }
        return row[lb];
}

static int unknown(const struct df_config *c, const char *origin, const char *name,
                   struct df_error *err)
{
        const char *nearest = c->table[0].name;

        for (size_t i = 1; i < c->count; i++)
                if (edit_distance(name, c->table[i].name) < edit_distance(name, nearest))
                        nearest = c->table[i].name;
        return df_fail(err, DF_EINVAL, "%s: unknown setting \"%s\"; did you mean \"%s\"?", origin,
                       name, nearest);
}

static ssize_t find(const struct df_config *c, const char *name)
{
        for (size_t i = 0; i < c->count; i++) {
                size_t family = family_length(&c->table[i]);

                if (family ? strncmp(c->table[i].name, name, family) == 0 && name[family]
                           : strcmp(c->table[i].name, name) == 0)
                        return (ssize_t)i;
        }
        return -1;
}

static int parse_choice(const struct df_setting *s, const char *text, struct df_error *err)
{
        size_t len = strlen(text);

        for (const char *p = s->choices; p && !strchr(text, '|');
             p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
                if (strncmp(p, text, len) == 0 && (p[len] == '|' || p[len] == '\0') && len > 0)
                        return 0;
        return df_fail(err, DF_EINVAL, "\"%s\" is not one of %s", text, s->choices);
}

static int parse_bool(const char *text, int64_t *ret, struct df_error *err)
{
        static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};

        for (size_t i = 0; i < 8; i++)
                if (strcmp(text, words[i]) == 0) {
                        *ret = (int64_t)(i & 1);
                        return 0;
                }
        return df_fail(err, DF_EINVAL, "\"%s\" is not true or false", text);
}

static int parse_value(const struct df_setting *s, const char *text, int64_t *ret,
                       struct df_error *err)
{
        int rc = 0;

        *ret = 0;
        switch (s->type) {
        case DF_TEXT:
                return 0;
        case DF_CHOICE:
                return parse_choice(s, text, err);
        case DF_BOOL:
                return parse_bool(text, ret, err);
        case DF_INTEGER:
                rc = df_parse_integer(text, ret, err);
                break;
        case DF_DURATION:
                rc = df_parse_duration(text, ret, err);
                break;
        case DF_SIZE:
                rc = df_parse_size(text, (uint64_t *)ret, err);
                break;
        }
        if (rc == 0 && (s->min || s->max) && (*ret < s->min || *ret > s->max))
                rc = df_fail(err, DF_EINVAL, "\"%s\" is outside %" PRId64 " to %" PRId64, text,
                             s->min, s->max);
        return rc;
}

static int member_of(struct df_config *c, const struct df_setting *family, const char *name,
                     struct value **ret, struct df_error *err)
{
        struct member *m;
        size_t at = 0;

        if (strlen(name) > NAME_MAX_LENGTH)
                return df_fail(err, DF_EINVAL, "%s: at most %d characters", name, NAME_MAX_LENGTH);
        while (at < c->member_count && strcmp(c->members[at].name, name) < 0)
                at++;
        if (at < c->member_count && strcmp(c->members[at].name, name) == 0) {
                *ret = &c->members[at].value;
                return 0;
        }
        m = realloc(c->members, (c->member_count + 1) * sizeof(*m));
        if (!m)
                return df_fail(err, DF_ENOMEM, "settings");
        c->members = m;
        memmove(m + at + 1, m + at, (c->member_count - at) * sizeof(*m));
        m[at] = (struct member){.family = family};
        memcpy(m[at].name, name, strlen(name));
        c->member_count++;
        *ret = &m[at].value;
        return 0;
}

static int set(struct df_config *c, const char *name, const char *text, const char *origin,
               struct df_error *err)
{
        ssize_t i = find(c, name);
        struct value *v;
        int64_t number;
        int rc;

        if (i < 0)
                return unknown(c, origin ? origin : "defaults", name, err);
        rc = parse_value(&c->table[i], text, &number, err);
        if (rc < 0) {
                (void)df_wrap(err, "%s: %s", origin ? origin : "default", name);
                return rc;
        }
        v = &c->values[i];
        if (family_length(&c->table[i]))
                rc = member_of(c, &c->table[i], name, &v, err);
        if (rc < 0)
                return rc;
        free(v->text);
        free(v->origin);
        v->number = number;
        v->text = strdup(text);
        v->origin = origin ? strdup(origin) : NULL;
        if (!v->text || (origin && !v->origin))
                return df_fail(err, DF_ENOMEM, "settings");
        return 0;
}

/* ---- the INI file ---- */

struct ini_state {
        struct df_config *c;
        const char *path;
        struct df_error *err;
        int rc;
};

static int ini_line(void *user, const char *section, const char *name, const char *value)
{
        struct ini_state *st = user;
        char origin[300];

        (void)snprintf(origin, sizeof(origin), "file %s", st->path);
        if (section[0])
                st->rc = df_fail(st->err, DF_EINVAL, "%s: section [%s]: the file has no sections",
                                 origin, section);
        else
                st->rc = set(st->c, name, value, origin, st->err);
        return st->rc == 0;
}

static int load_file(struct df_config *c, const char *path, struct df_error *err)
{
        struct ini_state st = {.c = c, .path = path, .err = err};
        int line = ini_parse(path, ini_line, &st);

        if (st.rc < 0)
                return st.rc;
        if (line < 0)
                return df_fail_errno(err, DF_ENOENT, "configuration file %s", path);
        if (line > 0)
                return df_fail(err, DF_EPARSE, "%s:%d: not a \"name = value\" line", path, line);
        return 0;
}

/* ---- the environment ---- */

extern char **environ;

/* ADTALLY_KAFKA__SSL_CA_LOCATION is kafka.ssl.ca.location: "__" begins the member's name, whose
 * words are separated by dots. */
static void name_of_variable(const struct df_config *c, char *name)
{
        for (size_t i = 0; i < c->count; i++) {
                size_t family = family_length(&c->table[i]);

                if (family == 0 || strncmp(c->table[i].name, name, family - 1) != 0 ||
                    strncmp(name + family - 1, "--", 2) != 0)
                        continue;
                memmove(name + family, name + family + 1, strlen(name + family));
                for (char *p = name + family - 1; *p; p++)
                        if (*p == '-')
                                *p = '.';
                return;
        }
}

static int load_environment(struct df_config *c, struct df_error *err)
{
        for (char **e = environ; *e; e++) {
                char name[NAME_MAX_LENGTH + 1], origin[NAME_MAX_LENGTH + 40];
                const char *eq = strchr(*e, '='), *p = *e + strlen(ENV_PREFIX);
                size_t n = 0;
                int rc;

                if (!eq || strncmp(*e, ENV_PREFIX, strlen(ENV_PREFIX)) != 0)
                        continue;
                for (; p < eq && n < NAME_MAX_LENGTH; p++)
                        name[n++] = *p == '_' ? '-' : (char)tolower((unsigned char)*p);
                name[n] = '\0';
                if (strcmp(name, "config") == 0)
                        continue;
                name_of_variable(c, name);
                (void)snprintf(origin, sizeof(origin), "environment %.*s", (int)(eq - *e), *e);
                rc = set(c, name, eq + 1, origin, err);
                if (rc < 0)
                        return rc;
        }
        return 0;
}

/* ---- flags ---- */

/* Splits argv[*i] into name and value; advances *i when the value is the next argument. */
static int flag_at(const struct df_config *c, int argc, char **argv, int *i, char *name,
                   const char **value, struct df_error *err)
{
        const char *arg = argv[*i] + 2, *eq = strchr(arg, '=');
        size_t len = eq ? (size_t)(eq - arg) : strlen(arg);
        ssize_t at;

        if (len > NAME_MAX_LENGTH)
                return df_fail(err, DF_EINVAL, "flag %s: unknown", argv[*i]);
        memcpy(name, arg, len);
        name[len] = '\0';
        *value = eq ? eq + 1 : NULL;
        if (*value || strcmp(name, "help") == 0)
                return 0;
        at = find(c, name);
        if (strcmp(name, "config") != 0 && at < 0)
                return unknown(c, "flag", name, err);
        if (at >= 0 && c->table[at].type == DF_BOOL) {
                *value = "true";
                return 0;
        }
        if (*i + 1 >= argc)
                return df_fail(err, DF_EINVAL, "flag --%s needs a value", name);
        *value = argv[++*i];
        return 0;
}

/* Two passes: the first finds --config and --help and the free arguments, the second sets. */
static int load_flags(struct df_config *c, int argc, char **argv, bool apply, const char **config,
                      const char **ret_free, int *ret_free_count, bool *ret_help,
                      struct df_error *err)
{
        *ret_free_count = 0;
        for (int i = 0; i < argc; i++) {
                char name[NAME_MAX_LENGTH + 1];
                const char *value = NULL;
                int rc;

                if (strcmp(argv[i], "--") == 0) {
                        while (++i < argc)
                                ret_free[(*ret_free_count)++] = argv[i];
                        return 0;
                }
                if (strncmp(argv[i], "--", 2) != 0) {
                        if (strcmp(argv[i], "-h") == 0)
                                *ret_help = true;
                        else
                                ret_free[(*ret_free_count)++] = argv[i];
                        continue;
                }
                rc = flag_at(c, argc, argv, &i, name, &value, err);
                if (rc < 0)
                        return rc;
                if (strcmp(name, "help") == 0)
                        *ret_help = true;
                else if (strcmp(name, "config") == 0)
                        *config = value;
                else if (apply && (rc = set(c, name, value, "flag", err)) < 0)
                        return rc;
        }
        return 0;
}

int df_config_load(const struct df_setting *table, size_t count, int argc, char **argv,
                   struct df_config **ret, const char **ret_free, int *ret_free_count,
                   bool *ret_help, struct df_error *err)
{
        struct df_config *c = calloc(1, sizeof(*c));
        const char *file = getenv(ENV_PREFIX "CONFIG");
        int rc = 0;

        df_check(count > 0);
        *ret_help = false;
        if (!c || !(c->values = calloc(count, sizeof(*c->values)))) {
                free(c);
                return df_fail(err, DF_ENOMEM, "settings");
        }
        c->table = table;
        c->count = count;
        for (size_t i = 0; rc == 0 && i < count; i++)
                if (table[i].value)
                        rc = set(c, table[i].name, table[i].value, NULL, err);
        for (int i = 0; i < argc; i++)
                if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)
                        *ret_help = true;
        if (rc == 0 && !*ret_help)
                rc = load_flags(c, argc, argv, false, &file, ret_free, ret_free_count, ret_help,
                                err);
        if (rc == 0 && !*ret_help && file && *file)
                rc = load_file(c, file, err);
        if (rc == 0 && !*ret_help)
                rc = load_environment(c, err);
        if (rc == 0 && !*ret_help)
                rc = load_flags(c, argc, argv, true, &file, ret_free, ret_free_count, ret_help,
                                err);
        if (rc < 0) {
                df_config_release(c);
                return rc;
        }
        *ret = c;
        return 0;
}

void df_config_release(struct df_config *c)
{
        if (!c)
                return;
        for (size_t i = 0; i < c->count; i++) {
                free(c->values[i].text);
                free(c->values[i].origin);
        }
        for (size_t i = 0; i < c->member_count; i++) {
                free(c->members[i].value.text);
                free(c->members[i].value.origin);
        }
        free(c->members);
        free(c->values);
        free(c);
}

static const struct value *get(const struct df_config *c, const char *name,
                               enum df_setting_type type)
{
        ssize_t i = find(c, name);

        df_check(i >= 0);
        df_check(c->table[i].type == type || (type == DF_TEXT && c->table[i].type == DF_CHOICE));
        return &c->values[i];
}

const char *df_config_text(const struct df_config *c, const char *name)
{
        return get(c, name, DF_TEXT)->text;
}

int64_t df_config_integer(const struct df_config *c, const char *name)
{
        return get(c, name, DF_INTEGER)->number;
}

int64_t df_config_ms(const struct df_config *c, const char *name)
{
        return get(c, name, DF_DURATION)->number;
}

uint64_t df_config_bytes(const struct df_config *c, const char *name)
{
        return (uint64_t)get(c, name, DF_SIZE)->number;
}

bool df_config_bool(const struct df_config *c, const char *name)
{
        return get(c, name, DF_BOOL)->number != 0;
}

const char *df_config_origin(const struct df_config *c, const char *name)
{
        ssize_t i = find(c, name);

        df_check(i >= 0);
        return c->values[i].origin ? c->values[i].origin : "default";
}

bool df_config_is_default(const struct df_config *c, const char *name)
{
        ssize_t i = find(c, name);

        df_check(i >= 0);
        return c->values[i].origin == NULL;
}

const char *df_config_value(const struct df_config *c, const char *name)
{
        ssize_t i = find(c, name);

        df_check(i >= 0);
        return c->values[i].text;
}

const char *df_config_member(const struct df_config *c, const char *family, size_t i,
                             const char **ret_name)
{
        ssize_t at = find(c, family);
        size_t prefix;

        df_check(at >= 0);
        prefix = family_length(&c->table[at]);
        df_check(prefix > 0);
        for (size_t n = 0; n < c->member_count; n++) {
                if (c->members[n].family != &c->table[at] || i-- > 0)
                        continue;
                *ret_name = c->members[n].name + prefix;
                return c->members[n].value.text;
        }
        return NULL;
}

/* A word of the family's list is part of the name. */
static bool is_secret(const struct df_setting *s, const char *name)
{
        size_t len;

        for (const char *p = s->secret_words; p && *p; p += len + (p[len] == '|')) {
                len = strcspn(p, "|");
                for (const char *at = name; *at; at++)
                        if (strncmp(at, p, len) == 0)
                                return true;
        }
        return s->secret;
}

static void print_one(const struct df_setting *s, const char *name, const struct value *v, FILE *f)
{
        bool secret = is_secret(s, name), comment = !v->text || secret;
        const char *text = !v->text ? "(not set)" : secret ? "(secret)" : v->text;

        fprintf(f, "%s%-*s = %-28s ; %s\n", comment ? "# " : "", comment ? 22 : 24, name, text,
                v->origin ? v->origin : "default");
}

/* The output can be read back by load_file: what is unset or secret is a comment. */
void df_config_print(const struct df_config *c, FILE *f)
{
        for (size_t i = 0; i < c->count; i++) {
                bool family = family_length(&c->table[i]) > 0;

                if (!family)
                        print_one(&c->table[i], c->table[i].name, &c->values[i], f);
                for (size_t n = 0; family && n < c->member_count; n++)
                        if (c->members[n].family == &c->table[i])
                                print_one(&c->table[i], c->members[n].name, &c->members[n].value,
                                          f);
        }
}

void df_config_help(const struct df_setting *table, size_t count, FILE *f)
{
        for (size_t i = 0; i < count; i++) {
                char left[80];

                (void)snprintf(left, sizeof(left), "--%s %s", table[i].name,
                               table[i].arg       ? table[i].arg
                               : table[i].choices ? table[i].choices
                                                  : "");
                fprintf(f, "  %-34s %s%s%s%s\n", left, table[i].help,
                        table[i].value ? " (default " : "", table[i].value ? table[i].value : "",
                        table[i].value ? ")" : "");
        }
}
