/* s3.c - the object store on S3: what a place is, and the reads. An object's version is its entity
 * tag. Other files: s3_call.c one request, s3_put.c the conditional puts, s3_list.c the names. */
#include "objects_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/sha256.h"

#define BUCKET_MIN 3
#define BUCKET_MAX 63

static struct dfi_s3 *s3_of(struct df_objects *o)
{
        return (struct dfi_s3 *)(void *)o;
}

/* ---- reads ---- */

int dfi_s3_version(const struct dfi_s3 *s, const struct dfi_s3_call *c,
                   struct df_object_version *ret, struct df_error *err)
{
        const char *tag = c->header[DFI_S3_ETAG].value;
        size_t len = strlen(tag);

        *ret = (struct df_object_version){0};
        if (len == 0 || len > DF_OBJECT_VERSION_MAX)
                return df_fail(err, DF_ESCHEMA,
                               "%s: %s has an entity tag of %zu bytes: 1 to %d are needed for "
                               "conditional writes",
                               s->place, c->name, len, DF_OBJECT_VERSION_MAX);
        memcpy(ret->text, tag, len);
        return 0;
}

static int s3_get(struct df_objects *o, const char *name, struct df_buf *ret,
                  struct df_object_version *version, struct df_error *err)
{
        struct dfi_s3 *s = s3_of(o);
        struct dfi_s3_call c = {.method = "GET", .name = name, .answer_max = DF_OBJECT_MAX};
        int rc = dfi_object_name(s->place, name, err);

        if (rc == 0)
                rc = dfi_s3_call(s, &c, err);
        if (rc == 0 && c.status != 200)
                rc = dfi_s3_fail(s, &c, err);
        if (rc == 0 && version)
                rc = dfi_s3_version(s, &c, version, err);
        if (rc == 0 && ret->len == 0 && ret->cap < c.answer.len) {
                struct df_buf unused = *ret; /* no second copy of what may be large */

                *ret = c.answer;
                c.answer = unused;
        } else if (rc == 0) {
                df_buf_append(ret, c.answer.data, c.answer.len);
                rc = df_buf_check(ret, err);
        }
        dfi_s3_release(&c);
        return rc;
}

static int s3_size(struct df_objects *o, const char *name, uint64_t *ret, struct df_error *err)
{
        struct dfi_s3 *s = s3_of(o);
        struct dfi_s3_call c = {.method = "HEAD", .name = name, .answer_max = DFI_S3_ERROR_MAX};
        int rc = dfi_object_name(s->place, name, err);

        if (rc == 0)
                rc = dfi_s3_call(s, &c, err);
        if (rc == 0 && c.status != 200)
                rc = dfi_s3_fail(s, &c, err);
        if (rc == 0) {
                const char *text = c.header[DFI_S3_LENGTH].value;
                char *end = NULL;

                *ret = strtoull(text, &end, 10);
                if (text[0] < '0' || text[0] > '9' || *end)
                        rc = df_fail(err, DF_ECORRUPT, "%s: HEAD %s: the length is \"%.40s\"",
                                     s->place, name, text);
        }
        dfi_s3_release(&c);
        return rc;
}

/* A store that ignores Range sends everything (200). */
static int take_range(const struct dfi_s3 *s, const struct dfi_s3_call *c, uint64_t from,
                      size_t len, struct df_buf *ret, struct df_error *err)
{
        struct df_bytes all = df_buf_bytes(&c->answer);

        if (c->status == 416) /* from is at the end or behind it */
                return 0;
        if (c->status != 200 && c->status != 206)
                return dfi_s3_fail(s, c, err);
        if (c->status == 206)
                from = 0;
        if (c->status == 206 && all.len > len)
                return df_fail(err, DF_ECORRUPT, "%s: GET %s: more bytes than were asked for",
                               s->place, c->name);
        if (from >= all.len)
                return 0;
        len = len < all.len - from ? len : all.len - (size_t)from;
        df_buf_append(ret, all.data + from, len);
        return df_buf_check(ret, err);
}

static int s3_get_range(struct df_objects *o, const char *name, uint64_t from, size_t len,
                        struct df_buf *ret, struct df_error *err)
{
        struct dfi_s3 *s = s3_of(o);
        char range[80];
        struct dfi_s3_call c = {
                .method = "GET", .name = name, .headers = {range}, .answer_max = DF_OBJECT_MAX};
        uint64_t size;
        int rc;

        if (len == 0 || from >= DF_OBJECT_MAX) /* no byte to ask for; is it there? */
                return s3_size(o, name, &size, err);
        len = len < DF_OBJECT_MAX ? len : DF_OBJECT_MAX;
        (void)snprintf(range, sizeof(range), "range: bytes=%" PRIu64 "-%" PRIu64, from,
                       from + len - 1);
        rc = dfi_object_name(s->place, name, err);
        if (rc == 0)
                rc = dfi_s3_call(s, &c, err);
        if (rc == 0)
                rc = take_range(s, &c, from, len, ret, err);
        dfi_s3_release(&c);
        return rc;
}

static int s3_remove(struct df_objects *o, const char *name, struct df_error *err)
{
        struct dfi_s3 *s = s3_of(o);
        struct dfi_s3_call c = {.method = "DELETE", .name = name, .answer_max = DFI_S3_ERROR_MAX};
        int rc = dfi_object_name(s->place, name, err);

        if (rc == 0)
                rc = dfi_s3_call(s, &c, err);
        if (rc == 0 && c.status != 204 && c.status != 200 &&
            (c.status != 404 || strcmp(c.code, "NoSuchBucket") == 0))
                rc = dfi_s3_fail(s, &c, err);
        dfi_s3_release(&c);
        return rc;
}

/* ---- open ---- */

static void s3_close(struct df_objects *o)
{
        struct dfi_s3 *s = s3_of(o);

        for (size_t i = 0; i < s->idle_count; i++)
                df_http_caller_destroy(s->idle[i]);
        (void)pthread_mutex_destroy(&s->lock);
        free(s->place);
        free(s->bucket_url);
        free(s->prefix);
        free(s->region);
        free(s->access_key);
        free(s->secret_key);
        free(s->key_source);
        free(s->token_header);
        free(s);
}

static bool bucket_ok(const char *b, size_t len)
{
        if (len < BUCKET_MIN || len > BUCKET_MAX)
                return false;
        for (size_t i = 0; i < len; i++) {
                bool letter = (b[i] >= 'a' && b[i] <= 'z') || (b[i] >= '0' && b[i] <= '9');
                bool inner = i > 0 && i < len - 1 && (b[i] == '-' || b[i] == '.');

                if (!letter && !inner)
                        return false;
        }
        return true;
}

/* What goes into addresses and headers as it is. */
static bool token_ok(const char *text, const char *more)
{
        for (const char *p = text; *p; p++)
                if (!(*p >= 'a' && *p <= 'z') && !(*p >= 'A' && *p <= 'Z') &&
                    !(*p >= '0' && *p <= '9') && !strchr(more, *p))
                        return false;
        return text[0] != '\0';
}

static int check_place(const struct df_objects_options *o, size_t bucket, const char *prefix,
                       const char *region, struct df_error *err)
{
        if (!bucket_ok(o->place + 3, bucket))
                return df_fail(err, DF_EINVAL, "%s: no name of a bucket (3 to 63 of a-z 0-9 - .)",
                               o->place);
        if (prefix[0] && !dfi_object_name_ok(prefix))
                return dfi_object_name(o->place, prefix, err);
        if (!token_ok(region, "-"))
                return df_fail(err, DF_EINVAL, "%s: no name of a region: \"%.40s\"", o->place,
                               region);
        if (!o->s3_access_key || !o->s3_secret_key || !o->s3_secret_key[0] ||
            !token_ok(o->s3_access_key, "-_./+="))
                return df_fail(err, DF_EINVAL,
                               "%s: an access key and its secret are needed (from %s)", o->place,
                               o->s3_key_source ? o->s3_key_source : "the settings");
        if (o->s3_session_token && !token_ok(o->s3_session_token, "-_./+="))
                return df_fail(err, DF_EINVAL,
                               "%s: the session token has other characters than "
                               "such a token has",
                               o->place);
        if (o->s3_endpoint && (strncmp(o->s3_endpoint, "http://", 7) != 0 || !o->s3_endpoint[7]) &&
            (strncmp(o->s3_endpoint, "https://", 8) != 0 || !o->s3_endpoint[8]))
                return df_fail(err, DF_EINVAL,
                               "%s: the endpoint \"%.200s\" is no address: write "
                               "https://HOST:PORT",
                               o->place, o->s3_endpoint);
        return 0;
}

/* With an endpoint path-style: such stores seldom have a host name for each bucket. On AWS a bucket
 * with a dot fits no certificate. */
static bool set_url(struct dfi_s3 *s, const struct df_objects_options *o, const char *bucket,
                    size_t len)
{
        const char *top = strncmp(s->region, "cn-", 3) == 0 ? "amazonaws.com.cn" : "amazonaws.com";
        int n = (int)len, rc;

        if (o->s3_endpoint) {
                size_t end = strlen(o->s3_endpoint);

                while (end > 0 && o->s3_endpoint[end - 1] == '/')
                        end--;
                rc = asprintf(&s->bucket_url, "%.*s/%.*s", (int)end, o->s3_endpoint, n, bucket);
        } else if (memchr(bucket, '.', len)) {
                rc = asprintf(&s->bucket_url, "https://s3.%s.%s/%.*s", s->region, top, n, bucket);
        } else {
                rc = asprintf(&s->bucket_url, "https://%.*s.s3.%s.%s", n, bucket, s->region, top);
        }
        if (rc < 0)
                s->bucket_url = NULL;
        return rc >= 0;
}

static bool set_texts(struct dfi_s3 *s, const struct df_objects_options *o, const char *prefix)
{
        const char *source = o->s3_key_source ? o->s3_key_source : "the settings";

        if (asprintf(&s->place, "%s at %s", o->place, o->s3_endpoint ? o->s3_endpoint : "AWS") < 0)
                s->place = NULL;
        if (asprintf(&s->prefix, "%s%s", prefix, prefix[0] ? "/" : "") < 0)
                s->prefix = NULL;
        if (o->s3_session_token &&
            asprintf(&s->token_header, "x-amz-security-token: %s", o->s3_session_token) < 0) {
                s->token_header = NULL;
                return false;
        }
        s->access_key = strdup(o->s3_access_key);
        s->secret_key = strdup(o->s3_secret_key);
        s->key_source = strdup(source);
        return s->place && s->prefix && s->access_key && s->secret_key && s->key_source;
}

int dfi_s3_open(const struct df_objects_options *options, struct df_objects **ret,
                struct df_error *err)
{
        static const struct df_objects_ops ops = {
                .put_absent = dfi_s3_put_absent,
                .put_match = dfi_s3_put_match,
                .get = s3_get,
                .get_range = s3_get_range,
                .size = s3_size,
                .list = dfi_s3_list,
                .remove = s3_remove,
                .close = s3_close,
        };
        const char *bucket = options->place + 3;
        size_t len = strcspn(bucket, "/");
        const char *prefix = bucket[len] ? bucket + len + 1 : "";
        const char *region = options->s3_region ? options->s3_region : "us-east-1";
        int rc = check_place(options, len, prefix, region, err);
        struct dfi_s3 *s;

        if (rc != 0)
                return rc;
        s = calloc(1, sizeof(*s));
        if (!s)
                return df_fail(err, DF_ENOMEM, "%s", options->place);
        s->base.ops = &ops;
        s->page = DFI_S3_PAGE;
        s->backoff_ms = DFI_S3_BACKOFF_MS;
        df_check(pthread_mutex_init(&s->lock, NULL) == 0);
        s->region = strdup(region);
        if (!s->region || !set_texts(s, options, prefix) || !set_url(s, options, bucket, len)) {
                s3_close(&s->base);
                return df_fail(err, DF_ENOMEM, "%s", options->place);
        }
        *ret = &s->base;
        return 0;
}
