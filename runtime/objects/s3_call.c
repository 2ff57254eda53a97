/* s3_call.c - one request to an S3-compatible store: address, signature, repeats, refusals. */
#include "objects_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "df/sha256.h"

#define HEADERS_MAX 12

void dfi_s3_encode(struct df_buf *b, const char *text, const char *keep)
{
        for (const char *p = text; *p; p++) {
                unsigned char c = (unsigned char)*p;
                bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                             (c >= '0' && c <= '9') || strchr("-._~", c) || strchr(keep, c);

                if (plain)
                        df_buf_append(b, p, 1);
                else
                        df_buf_printf(b, "%%%02X", c);
        }
}

/* ---- connections: each call has one of its own; idle ones are kept ---- */

static int take(struct dfi_s3 *s, struct df_http_caller **ret, struct df_error *err)
{
        struct df_http_caller *h = NULL;

        df_check(pthread_mutex_lock(&s->lock) == 0);
        if (s->idle_count > 0)
                h = s->idle[--s->idle_count];
        df_check(pthread_mutex_unlock(&s->lock) == 0);
        *ret = h;
        return h ? 0 : df_http_caller_create(ret, err);
}

static void give_back(struct dfi_s3 *s, struct df_http_caller *h)
{
        df_check(pthread_mutex_lock(&s->lock) == 0);
        if (s->idle_count < DFI_S3_IDLE_MAX) {
                s->idle[s->idle_count++] = h;
                h = NULL;
        }
        df_check(pthread_mutex_unlock(&s->lock) == 0);
        df_http_caller_destroy(h);
}

/* ---- a request ---- */

static void url_of(const struct dfi_s3 *s, const struct dfi_s3_call *c, struct df_buf *ret)
{
        df_buf_printf(ret, "%s", s->bucket_url);
        if (c->name) {
                df_buf_printf(ret, "/");
                dfi_s3_encode(ret, s->prefix, "/"); /* also '=', or the signature differs */
                dfi_s3_encode(ret, c->name, "/");
        }
        if (c->query)
                df_buf_printf(ret, "?%s", c->query);
        df_buf_append(ret, "", 1);
}

static void want(struct dfi_s3_call *c)
{
        c->header[DFI_S3_ETAG].name = "etag";
        c->header[DFI_S3_LENGTH].name = "content-length";
        c->header[DFI_S3_MARK].name = DFI_S3_MARK_NAME;
}

/* What is between <Code> and </Code> of an error answer, also of one that is cut. */
static void read_code(struct dfi_s3_call *c)
{
        static const char open[] = "<Code>";
        const uint8_t *at = c->answer.len
                                    ? memmem(c->answer.data, c->answer.len, open, sizeof(open) - 1)
                                    : NULL;
        size_t n = 0;

        c->code[0] = '\0';
        if (c->status < 300 || !at)
                return;
        at += sizeof(open) - 1;
        while (at + n < c->answer.data + c->answer.len && n < sizeof(c->code) - 1 &&
               ((at[n] >= 'A' && at[n] <= 'Z') || (at[n] >= 'a' && at[n] <= 'z'))) {
                c->code[n] = (char)at[n];
                n++;
        }
        c->code[n] = '\0';
}

static int perform(struct dfi_s3 *s, struct dfi_s3_call *c, struct df_http_call *call,
                   struct df_error *err)
{
        struct df_http_caller *h = NULL;
        int rc = take(s, &h, err);

        if (rc != 0)
                return rc;
        df_buf_clear(&c->answer);
        rc = df_http_call(h, call, &c->answer, err);
        give_back(s, h);
        if (rc == DF_EDOUBT)
                c->in_doubt = true;
        c->status = call->ret_status;
        if (rc != 0)
                return df_wrap(err, "%s", s->place);
        read_code(c);
        return 0;
}

int dfi_s3_try(struct dfi_s3 *s, struct dfi_s3_call *c, struct df_error *err)
{
        struct df_http_sign sign = {.access_key = s->access_key,
                                    .secret_key = s->secret_key,
                                    .region = s->region,
                                    .service = "s3"};
        char hash[sizeof("x-amz-content-sha256: ") + DF_SHA256_HEX_SIZE];
        const char *headers[HEADERS_MAX] = {hash, "content-type: application/octet-stream"};
        size_t count = c->body.data ? 2 : 1;
        uint8_t digest[DF_SHA256_SIZE];
        struct df_buf url = {0};
        int rc = df_sha256(c->body, digest, err);

        if (rc != 0)
                return rc;
        (void)snprintf(hash, sizeof(hash), "x-amz-content-sha256: ");
        df_hex(digest, sizeof(digest), hash + strlen(hash));
        if (s->token_header)
                headers[count++] = s->token_header;
        for (size_t i = 0; i < sizeof(c->headers) / sizeof(c->headers[0]) && c->headers[i]; i++)
                headers[count++] = c->headers[i];
        want(c);
        url_of(s, c, &url);
        rc = df_buf_check(&url, err);
        if (rc == 0) {
                struct df_http_call call = {.method = c->method,
                                            .url = (const char *)url.data,
                                            .headers = headers,
                                            .header_count = count,
                                            .body = c->body,
                                            .sign = &sign,
                                            .connect_ms = DFI_S3_CONNECT_MS,
                                            .stall_ms = DFI_S3_STALL_MS,
                                            .total_ms = DFI_S3_CALL_MS,
                                            .answer_max = c->answer_max,
                                            .once = c->once,
                                            .wanted = c->header,
                                            .wanted_count = DFI_S3_HEADERS};

                rc = perform(s, c, &call, err);
        }
        df_buf_release(&url);
        return rc;
}

/* ---- repeats ---- */

bool dfi_s3_passing(int status)
{
        return status == 429 || status == 500 || status == 502 || status == 503 || status == 504;
}

/* Twice as long before each further try, and up to half of that by chance: those who were sent away
 * together do not come back together. */
void dfi_s3_wait(const struct dfi_s3 *s, int tries)
{
        int64_t ms = s->backoff_ms << (tries - 1);
        uint32_t dice = 0;
        struct timespec t;

        if (df_random(&dice, sizeof(dice), NULL) == 0 && ms > 1)
                ms += dice % (ms / 2 + 1);
        t = (struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
        (void)nanosleep(&t, NULL);
}

int dfi_s3_call(struct dfi_s3 *s, struct dfi_s3_call *c, struct df_error *err)
{
        for (int tries = 1;; tries++) {
                int rc = dfi_s3_try(s, c, err);

                if (rc == 0 && !dfi_s3_passing(c->status))
                        return 0;
                if (rc != 0 && rc != DF_EAGAIN && rc != DF_EDOUBT)
                        return rc;
                if (tries == DFI_S3_TRIES) {
                        if (rc == 0)
                                return dfi_s3_fail(s, c, err);
                        (void)df_wrap(err, "gave up after %d tries", tries);
                        if (err)
                                err->code = DF_EAGAIN; /* it may be done twice: no doubt to tell */
                        return DF_EAGAIN;
                }
                dfi_s3_wait(s, tries);
        }
}

void dfi_s3_release(struct dfi_s3_call *c)
{
        df_buf_release(&c->answer);
}

/* ---- refusals ---- */

static int code_of(const struct dfi_s3_call *c)
{
        if (dfi_s3_passing(c->status) || c->status == 409)
                return DF_EAGAIN;
        switch (c->status) {
        case 404:
                return DF_ENOENT;
        case 507:
                return DF_ENOSPC;
        case 501:
                return DF_ESCHEMA;
        case 413:
                return DF_ELIMIT;
        default:
                return c->status >= 300 && c->status < 500 ? DF_EINVAL : DF_EIO;
        }
}

int dfi_s3_fail(const struct dfi_s3 *s, const struct dfi_s3_call *c, struct df_error *err)
{
        const char *name = c->name ? c->name : "(the bucket)";
        const char *code = c->code[0] ? c->code : "no code";

        if (c->status == 403)
                return df_fail(err, DF_EINVAL,
                               "%s: %s %s: access denied (403, %s): check the access key %.32s, "
                               "which comes from %s, what it may do in this bucket, and this "
                               "machine's clock",
                               s->place, c->method, name, code, s->access_key, s->key_source);
        if (c->status == 404 && strcmp(c->code, "NoSuchBucket") == 0)
                return df_fail(err, DF_ENOENT,
                               "%s: there is no such bucket: make it, or mend the name", s->place);
        if (c->status == 404 && c->name)
                return df_fail(err, DF_ENOENT, "%s: there is no object %s", s->place, name);
        if (c->status == 301 || c->status == 307)
                return df_fail(err, DF_EINVAL,
                               "%s: %s %s: the bucket is elsewhere (%d, %s): set the region (now "
                               "%s) and the endpoint",
                               s->place, c->method, name, c->status, code, s->region);
        if (dfi_s3_passing(c->status) || c->status == 409)
                return df_fail(err, DF_EAGAIN,
                               "%s: %s %s: the store answers %d (%s), also to %d tries: try again "
                               "later",
                               s->place, c->method, name, c->status, code, DFI_S3_TRIES);
        return df_fail(err, code_of(c), "%s: %s %s: the store answers %d (%s)", s->place, c->method,
                       name, c->status, code);
}
