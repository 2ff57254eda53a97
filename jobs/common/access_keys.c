/* access_keys.c - the keys file: lines to a sorted table, and new lines. */
#include <stdio.h>
#include <stdlib.h>

#include "df/run.h"
#include "jobs/common/access_private.h"

#define ID_RANDOM_BYTES 6
#define SECRET_RANDOM_BYTES 32

static const char *const class_names[] = {"public", "server", "read", "finance", "admin"};

const char *ad_key_class_name(enum ad_key_class c)
{
        return class_names[c];
}

bool ad_key_class_parse(struct df_bytes name, enum ad_key_class *ret)
{
        for (unsigned i = 0; i < sizeof(class_names) / sizeof(class_names[0]); i++)
                if (df_bytes_eq(name, df_bytes_str(class_names[i]))) {
                        *ret = (enum ad_key_class)i;
                        return true;
                }
        return false;
}

/* 1 to max bytes of [A-Za-z0-9_-] and, for tenants, '.'. */
static bool word(struct df_bytes s, size_t max, bool dots)
{
        for (size_t i = 0; i < s.len; i++) {
                uint8_t c = s.data[i];

                if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
                    c != '_' && c != '-' && !(dots && c == '.'))
                        return false;
        }
        return s.len > 0 && s.len <= max;
}

static int hex_digit(uint8_t c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c |= 0x20;
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_hash(struct df_bytes text, uint8_t ret[DF_SHA256_SIZE])
{
        if (text.len != 2 * DF_SHA256_SIZE)
                return false;
        for (size_t i = 0; i < DF_SHA256_SIZE; i++) {
                int high = hex_digit(text.data[2 * i]), low = hex_digit(text.data[2 * i + 1]);

                if (high < 0 || low < 0)
                        return false;
                ret[i] = (uint8_t)(high << 4 | low);
        }
        return true;
}

/* "https://shop.example:8443": as a browser sends it, so that comparing bytes is enough. */
static bool origin_form(struct df_bytes o)
{
        size_t skip = o.len > 8 && memcmp(o.data, "https://", 8) == 0  ? 8
                      : o.len > 7 && memcmp(o.data, "http://", 7) == 0 ? 7
                                                                       : 0;

        for (size_t i = skip; i < o.len; i++)
                if (o.data[i] <= ' ' || o.data[i] >= 0x7f || o.data[i] == '/' || o.data[i] == '*' ||
                    (o.data[i] >= 'A' && o.data[i] <= 'Z'))
                        return false;
        return skip > 0;
}

static int read_origins(struct df_bytes text, struct dfi_key *key, struct df_error *err)
{
        struct df_reader r = df_reader(text);

        do {
                const uint8_t *comma = memchr(r.p, ',', df_reader_left(&r));
                struct df_bytes o = df_bytes(r.p, (size_t)((comma ? comma : r.end) - r.p));

                r.p = comma ? comma + 1 : r.end;
                if (df_bytes_eq(o, df_bytes_str("*")))
                        key->any_origin = true;
                else if (!origin_form(o))
                        return df_fail(err, DF_EPARSE,
                                       "origin \"%.*s\" is not like https://shop.example (lower "
                                       "case, no path) or *",
                                       (int)o.len, (const char *)o.data);
                else if (key->origin_count == AD_KEY_ORIGINS_MAX)
                        return df_fail(err, DF_EPARSE, "more than %d origins", AD_KEY_ORIGINS_MAX);
                else
                        key->origins[key->origin_count++] = o;
                if (comma && r.p == r.end)
                        return df_fail(err, DF_EPARSE, "origins= ends with a comma");
        } while (r.p < r.end);
        return 0;
}

static bool blank(uint8_t c)
{
        return c == ' ' || c == '\t';
}

/* The next run of non-blanks; empty at the end. */
static struct df_bytes next_word(struct df_reader *line)
{
        const uint8_t *from;

        while (line->p < line->end && blank(*line->p))
                line->p++;
        from = line->p;
        while (line->p < line->end && !blank(*line->p))
                line->p++;
        return df_bytes(from, (size_t)(line->p - from));
}

static bool option(struct df_bytes word, const char *name, struct df_bytes *ret)
{
        size_t len = strlen(name);

        if (word.len < len || memcmp(word.data, name, len) != 0)
                return false;
        *ret = df_bytes(word.data + len, word.len - len);
        return true;
}

static int read_rate(struct df_bytes text, struct dfi_key *key, struct df_error *err)
{
        int64_t v = 0;

        for (size_t i = 0; i < text.len && v <= AD_KEY_RATE_MAX; i++) {
                if (text.data[i] < '0' || text.data[i] > '9')
                        return df_fail(err, DF_EPARSE, "rate= is not a whole number");
                v = 10 * v + (text.data[i] - '0');
        }
        if (v == 0 || v > AD_KEY_RATE_MAX)
                return df_fail(err, DF_EPARSE, "rate= is not 1 to %d events a second",
                               AD_KEY_RATE_MAX);
        key->rate = v;
        return 0;
}

/* origins= and rate= once each, in any order; the first other word begins the name. */
static int read_options(struct df_reader *line, struct dfi_key *key, struct df_error *err)
{
        bool origins = false;

        for (;;) {
                struct df_bytes word = next_word(line), value;
                int rc;

                if (!origins && option(word, "origins=", &value)) {
                        origins = true;
                        if (key->key_class != AD_KEY_PUBLIC)
                                return df_fail(err, DF_EPARSE,
                                               "origins= is for keys of class public");
                        rc = read_origins(value, key, err);
                } else if (!key->rate && option(word, "rate=", &value)) {
                        rc = read_rate(value, key, err);
                } else {
                        break;
                }
                if (rc < 0)
                        return rc;
        }
        if (!origins && key->key_class == AD_KEY_PUBLIC)
                return df_fail(err, DF_EPARSE,
                               "a public key needs origins=https://... (or origins=* for any page "
                               "or app)");
        return 0;
}

static int parse_line(struct df_bytes text, struct dfi_key *key, struct df_error *err)
{
        struct df_reader line = df_reader(text);
        struct df_bytes id = next_word(&line), cls = next_word(&line), tenant = next_word(&line);
        struct df_bytes hash = next_word(&line);

        if (!word(id, AD_KEY_ID_MAX, false))
                return df_fail(err, DF_EPARSE, "the id is not 1 to %d of [A-Za-z0-9_-]",
                               AD_KEY_ID_MAX);
        if (!ad_key_class_parse(cls, &key->key_class))
                return df_fail(err, DF_EPARSE,
                               "the class is not public, server, read, finance or admin");
        if (!word(tenant, AD_ID_MAX, true))
                return df_fail(err, DF_EPARSE, "the tenant is not 1 to %d of [A-Za-z0-9._-]",
                               AD_ID_MAX);
        if (!read_hash(hash, key->hash))
                return df_fail(err, DF_EPARSE,
                               "the hash is not %d hexadecimal digits (SHA-256 of the secret)",
                               2 * DF_SHA256_SIZE);
        memcpy(key->id, id.data, id.len);
        memcpy(key->tenant, tenant.data, tenant.len);
        return read_options(&line, key, err);
}

static int by_id(const void *a, const void *b)
{
        return strcmp(((const struct dfi_key *)a)->id, ((const struct dfi_key *)b)->id);
}

static int add_line(struct dfi_keys *keys, struct df_bytes text, uint32_t number,
                    struct df_error *err)
{
        struct dfi_key *key;

        if (keys->count == AD_KEYS_MAX)
                return df_fail(err, DF_EPARSE, "more than %d keys", AD_KEYS_MAX);
        if ((keys->count & (keys->count - 1)) == 0) {
                size_t cap = keys->count ? 2 * keys->count : 1;
                struct dfi_key *grown = realloc(keys->list, cap * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "keys");
                keys->list = grown;
        }
        key = &keys->list[keys->count];
        memset(key, 0, sizeof(*key));
        key->line = number;
        keys->count++;
        return parse_line(text, key, err);
}

static int parse_file(struct dfi_keys *keys, struct df_error *err)
{
        struct df_reader r = df_reader(df_buf_bytes(&keys->text));

        for (uint32_t number = 1; r.p < r.end; number++) {
                const uint8_t *nl = memchr(r.p, '\n', df_reader_left(&r));
                struct df_bytes text = df_bytes(r.p, (size_t)((nl ? nl : r.end) - r.p));
                size_t skip = 0;

                r.p = nl ? nl + 1 : r.end;
                if (text.len && text.data[text.len - 1] == '\r')
                        text.len--;
                while (skip < text.len && blank(text.data[skip]))
                        skip++;
                if (skip == text.len || text.data[skip] == '#')
                        continue;
                if (add_line(keys, text, number, err) < 0)
                        return df_wrap(err, "line %u", number);
        }
        if (keys->count == 0)
                return df_fail(err, DF_EPARSE,
                               "it holds no key, so every request would be refused");
        qsort(keys->list, keys->count, sizeof(*keys->list), by_id);
        for (size_t i = 1; i < keys->count; i++)
                if (by_id(&keys->list[i - 1], &keys->list[i]) == 0)
                        return df_fail(err, DF_EPARSE, "lines %u and %u: both have the id %s",
                                       keys->list[i - 1].line, keys->list[i].line,
                                       keys->list[i].id);
        return 0;
}

int dfi_keys_read(const char *path, struct dfi_keys **ret, struct df_error *err)
{
        struct dfi_keys *keys = calloc(1, sizeof(*keys));
        int rc;

        if (!keys)
                return df_fail(err, DF_ENOMEM, "keys");
        rc = df_read_file(path, AD_KEYS_FILE_MAX, &keys->text, err);
        if (rc == 0 && (rc = parse_file(keys, err)) < 0)
                (void)df_wrap(err, "keys file %s", path);
        if (rc < 0)
                dfi_keys_free(keys);
        else
                *ret = keys;
        return rc;
}

const struct dfi_key *dfi_keys_find(const struct dfi_keys *keys, struct df_bytes id)
{
        struct dfi_key want;

        if (id.len == 0 || id.len > AD_KEY_ID_MAX)
                return NULL;
        memcpy(want.id, id.data, id.len);
        want.id[id.len] = '\0';
        return bsearch(&want, keys->list, keys->count, sizeof(want), by_id);
}

bool dfi_key_lists_origin(const struct dfi_key *key, struct df_bytes origin)
{
        for (size_t i = 0; i < key->origin_count; i++)
                if (df_bytes_eq(key->origins[i], origin))
                        return true;
        return key->any_origin;
}

void dfi_keys_free(struct dfi_keys *keys)
{
        if (!keys)
                return;
        df_buf_release(&keys->text);
        free(keys->list);
        free(keys);
}

int ad_access_make_key(const struct ad_key_options *o, struct df_buf *ret_line,
                       char ret_token[AD_KEY_TOKEN_SIZE], struct df_error *err)
{
        uint8_t id[ID_RANDOM_BYTES], secret[SECRET_RANDOM_BYTES], hash[DF_SHA256_SIZE];
        char id_hex[2 * ID_RANDOM_BYTES + 1], secret_hex[2 * SECRET_RANDOM_BYTES + 1];
        char hash_hex[DF_SHA256_HEX_SIZE];
        struct df_buf line = {0};
        struct dfi_key check = {0};
        int rc = df_random(id, sizeof(id), err);

        if (rc == 0)
                rc = df_random(secret, sizeof(secret), err);
        if (rc < 0)
                return rc;
        df_hex(id, sizeof(id), id_hex);
        df_hex(secret, sizeof(secret), secret_hex);
        rc = df_sha256(df_bytes_str(secret_hex), hash, err);
        if (rc < 0)
                return rc;
        df_hex(hash, sizeof(hash), hash_hex);
        df_buf_printf(&line, "k%s %s %s %s", id_hex, ad_key_class_name(o->key_class), o->tenant,
                      hash_hex);
        if (o->origins)
                df_buf_printf(&line, " origins=%s", o->origins);
        if (o->rate)
                df_buf_printf(&line, " rate=%lld", (long long)o->rate);
        if (o->name)
                df_buf_printf(&line, " %s", o->name);
        rc = df_buf_check(&line, err);
        /* What the file would not take back is refused here, a line break first of all. */
        if (rc == 0 && (memchr(line.data, '\n', line.len) || memchr(line.data, '\r', line.len)))
                rc = df_fail(err, DF_EINVAL, "a key's line cannot hold a line break");
        if (rc == 0 && parse_line(df_buf_bytes(&line), &check, err) < 0) {
                rc = DF_EINVAL; /* the text says what */
                if (err)
                        err->code = rc;
        }
        if (rc == 0) {
                df_put_u8(&line, '\n');
                df_buf_append(ret_line, line.data, line.len);
                (void)snprintf(ret_token, AD_KEY_TOKEN_SIZE, "k%s.%s", id_hex, secret_hex);
                rc = df_buf_check(&line, err);
                rc = rc == 0 ? df_buf_check(ret_line, err) : rc;
        }
        df_buf_release(&line);
        return rc;
}
