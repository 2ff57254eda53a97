/* verify.c - `adtally verify`: options, the signature, and what is said in the end (verify.h). */
#include "jobs/adtally/verify.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/objects.h"
#include "df/sign.h"
#include "df/trace.h"
#include "jobs/common/archive.h"
#include "jobs/common/base64.h"
#include "jobs/common/json.h"

#define SIGNATURE_FILE_MAX 256

static const char usage[] =
        "adtally verify: whether a closed period is what the raw events say\n"
        "Usage: adtally verify MANIFEST [--signature FILE] --key PUBLIC --archive dir:COPY\n\n"
        "Checks the manifest's signature against the public key, each segment of the archive that "
        "the\n"
        "manifest vouches for against its hash, and then counts these segments again: the rows "
        "must have\n"
        "the digest that was signed. Copies are enough: no log, no server, no data directory. "
        "Whatever does\n"
        "not hold is named, and the exit code is 1.\n";
static const struct df_setting own[] = {
        {"signature", DF_TEXT, NULL, .arg = "FILE", .help = "(default: MANIFEST.sig)"},
        {"key", DF_TEXT, NULL, .arg = "PUBLIC",
         .help = "the public key: a PEM file, or its 44 characters of base64"},
        {"prices", DF_TEXT, NULL, .arg = "DIR", .help = "copy of DATA/config/prices"},
        {"work", DF_TEXT, NULL, .arg = "DIR",
         .help = "a directory is made in it and deleted again (default: $TMPDIR or /tmp)"},
        {"out", DF_TEXT, NULL, .arg = "FILE", .help = "the recounted rows, a line of JSON each"},
};
static const char *const shared[] = {"archive", "s3-endpoint", "s3-region", "workers",
                                     "quiet",   "json",        NULL};

void ad_verify_no(struct ad_verify *v, const char *fmt, ...)
{
        va_list ap;

        v->no = true;
        fprintf(stderr, "adtally verify: not verified: ");
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        va_end(ap);
        fprintf(stderr, "\n");
}

/* ---- the signature ---- */

static int read_key(const struct df_config *c, struct df_sign_public *ret, struct df_error *err)
{
        const char *key = df_config_text(c, "key");

        if (access(key, F_OK) == 0)
                return df_sign_public_read(key, ret, err);
        if (df_sign_public_parse(df_bytes_str(key), ret, NULL) == 0)
                return 0;
        return df_fail(err, DF_ENOENT, "--key %.200s: no such file, and no public key in base64",
                       key);
}

/* 64 bytes, or their base64. */
static int read_signature(const char *path, uint8_t ret[DF_SIGN_SIZE], struct df_error *err)
{
        struct df_buf file = {0}, bytes = {0};
        int rc = df_read_file(path, SIGNATURE_FILE_MAX, &file, err);
        struct df_bytes text = df_buf_bytes(&file);

        if (rc == 0 && text.len != DF_SIGN_SIZE) {
                while (text.len > 0 && text.data[text.len - 1] == '\n')
                        text.len--;
                if (ad_base64_get(text, &bytes))
                        text = df_buf_bytes(&bytes);
        }
        if (rc == 0 && text.len != DF_SIGN_SIZE)
                rc = df_fail(err, DF_EPARSE, "%s is no signature: 64 bytes, or their base64", path);
        if (rc == 0)
                memcpy(ret, text.data, DF_SIGN_SIZE);
        df_buf_release(&file);
        df_buf_release(&bytes);
        return rc;
}

static int check_signature(struct ad_verify *v, const char *path, struct df_bytes text,
                           struct df_error *err)
{
        const char *given = df_config_text(v->config, "signature");
        uint8_t signature[DF_SIGN_SIZE];
        struct df_sign_public key;
        char name[4096];
        int rc = read_key(v->config, &key, err);

        (void)snprintf(name, sizeof(name), "%s.sig", path);
        if (rc == 0)
                rc = read_signature(given ? given : name, signature, err);
        if (rc == 0 && df_sign_verify(&key, AD_MANIFEST_DOMAIN, text, signature, NULL) < 0)
                ad_verify_no(v,
                             "signature: key %s did not sign this manifest: it was forged or "
                             "changed, or it is another key's",
                             key.id);
        return rc;
}

/* ---- what is said ---- */

static void print_text(const struct ad_verify *v)
{
        const struct ad_manifest *m = &v->manifest;
        char digest[DF_SHA256_HEX_SIZE];

        df_hex(v->rows->digest, DF_SHA256_SIZE, digest);
        printf("period %.*s of %.*s%s%.*s, run %.*s: the signature is good\n", (int)m->period.len,
               (const char *)m->period.data, (int)m->account.tenant_id.len,
               (const char *)m->account.tenant_id.data, m->account.advertiser_id.len ? "/" : "",
               (int)m->account.advertiser_id.len, (const char *)m->account.advertiser_id.data,
               (int)m->run.len, (const char *)m->run.data);
        printf("%" PRIu64 " segments of %zu topics, %" PRIu64 " bytes: intact\n", v->segments,
               m->source_count, v->bytes);
        printf("%" PRIu64 " rows, SHA-256 %s: verified\n", v->rows->count, digest);
        if (!df_bytes_eq(m->version, df_bytes_str(ADTALLY_VERSION)))
                printf("(closed by version %.*s, recounted by %s)\n", (int)m->version.len,
                       (const char *)m->version.data, ADTALLY_VERSION);
}

static int print_json(const struct ad_verify *v, struct df_error *err)
{
        const struct ad_manifest *m = &v->manifest;
        char digest[DF_SHA256_HEX_SIZE];
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        int rc;

        df_hex(v->rows->digest, DF_SHA256_SIZE, digest);
        ad_json_open(j);
        ad_json_put_bool(j, "verified", true);
        ad_json_put_bytes(j, "tenant_id", m->account.tenant_id);
        ad_json_put_bytes(j, "advertiser_id", m->account.advertiser_id);
        ad_json_put_bytes(j, "period", m->period);
        ad_json_put_bytes(j, "run", m->run);
        ad_json_put_int(j, "segments", v->segments);
        ad_json_put_int(j, "rows", v->rows->count);
        ad_json_put_text(j, "sha256", digest);
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0)
                printf("%.*s\n", (int)b.len, (const char *)b.data);
        df_buf_release(&b);
        return rc;
}

static bool same_totals(const struct ad_rows *r, const struct ad_manifest *m)
{
        bool same = r->total_count == m->total_count;

        for (size_t i = 0; same && i < r->total_count; i++) {
                const struct ad_cell *a = &r->totals[i].billed, *b = &m->totals[i].billed;

                same = df_bytes_eq(r->totals[i].currency, m->totals[i].currency) &&
                       a->impressions == b->impressions && a->clicks == b->clicks &&
                       a->conversions == b->conversions && a->spend == b->spend &&
                       a->payout == b->payout && a->value == b->value &&
                       memcmp(a->invalid, b->invalid, sizeof(a->invalid)) == 0;
        }
        return same;
}

static void compare(struct ad_verify *v)
{
        const struct ad_manifest *m = &v->manifest;
        char stated[DF_SHA256_HEX_SIZE], found[DF_SHA256_HEX_SIZE];

        df_hex(m->rows_sha256, DF_SHA256_SIZE, stated);
        df_hex(v->rows->digest, DF_SHA256_SIZE, found);
        if (strcmp(stated, found) != 0 || m->rows != v->rows->count)
                ad_verify_no(v,
                             "rows: the manifest states %" PRIu64 ", SHA-256 %s; the recount gives "
                             "%" PRIu64 ", SHA-256 %s (--out shows them)",
                             m->rows, stated, v->rows->count, found);
        if (!same_totals(v->rows, m))
                ad_verify_no(v, "totals: they are not the sums of the recounted rows");
}

/* ---- the steps ---- */

static int steps(struct ad_verify *v, const char *path, struct df_arena *arena,
                 struct df_error *err)
{
        struct df_buf text = {0};
        int rc = df_read_file(path, AD_MANIFEST_MAX, &text, err);

        if (rc == 0)
                rc = check_signature(v, path, df_buf_bytes(&text), err);
        if (rc == 0 && !v->no)
                rc = ad_manifest_read(df_buf_bytes(&text), arena, &v->manifest, err);
        df_buf_release(&text);
        if (rc == 0 && !v->no)
                rc = ad_archive_open_store(v->config, &v->objects, err);
        if (rc == 0 && !v->no)
                rc = ad_verify_archive(v, err);
        if (rc == 0 && !v->no)
                rc = ad_verify_recount(v, err);
        if (rc == 0 && !v->no)
                compare(v);
        if (rc < 0 || v->no)
                return rc;
        if (df_config_bool(v->config, "json"))
                return print_json(v, err);
        print_text(v);
        return 0;
}

static int run(struct ad_verify *v, const char *path, struct df_error *err)
{
        struct df_arena arena;
        int rc;

        df_arena_init(&arena, 0);
        v->rows = calloc(1, sizeof(*v->rows));
        rc = v->rows ? steps(v, path, &arena, err) : df_fail(err, DF_ENOMEM, "rows");
        if (v->rows)
                ad_rows_release(v->rows);
        free(v->rows);
        if (v->work[0]) {
                int removed = df_remove_tree(v->work, rc == 0 ? err : NULL);

                rc = rc == 0 ? removed : rc;
        }
        df_objects_close(v->objects);
        df_arena_release(&arena);
        return rc;
}

static const char *missing(const struct ad_command_line *l)
{
        return l->arg_count != 1                       ? "expected one MANIFEST"
               : !df_config_text(l->config, "key")     ? "--key is missing: whose signature is it?"
               : !df_config_text(l->config, "archive") ? "--archive is missing"
               : ad_archive_is_off(l->config)          ? "--archive none: there is nothing to count"
                                                       : NULL;
}

int ad_command_verify(int argc, char **argv)
{
        struct ad_command_line l;
        struct ad_verify v = {0};
        struct df_error err = {0};
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        if (missing(&l)) {
                code = ad_command_usage("verify", "%s", missing(&l));
                ad_command_release(&l);
                return code;
        }
        v.config = l.config;
        if (df_config_is_default(l.config, "log-level"))
                df_trace_level("warn");
        rc = df_process_start("verify", false, &err);
        if (rc == 0)
                rc = run(&v, l.args[0], &err);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("verify", &err) : v.no ? DF_EXIT_FAILURE : DF_EXIT_OK;
}
