/* fuzz_http.c - one connection's bytes through the parser: head, parameters, body, next head.
 *
 * Checked beside the sanitizers: the same bytes in two pieces, cut anywhere, give the same result
 * (RELIABILITY 5.2: nothing may depend on how a request was split), and what is parsed lies within
 * the head and keeps the rules.
 */
#include <stdlib.h>

#include "runtime/net/parse.h"

#define REQUESTS_MAX 4
#define CUTS_MAX 64 /* of a long input only some are tried */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct outcome {
        int statuses[REQUESTS_MAX]; /* 0: it wants more bytes; 200: a whole request; else refused */
        uint64_t digests[REQUESTS_MAX];
        size_t count;
};

static uint64_t mix(uint64_t h, struct df_bytes b)
{
        for (size_t i = 0; i < b.len; i++)
                h = (h ^ b.data[i]) * 1099511628211u;
        return (h ^ b.len) * 1099511628211u;
}

static void check_within(const struct dfi_head *h, struct df_bytes b)
{
        df_check(b.len == 0 || b.data >= h->text);
        df_check(b.len == 0 || b.data + b.len <= h->text + sizeof(h->text));
}

static uint64_t check_head(const struct dfi_head *h, int *ret_status)
{
        static uint8_t store[DF_HTTP_HEAD_MAX];
        static struct df_http_field params[DF_HTTP_PARAMS_MAX];
        struct dfi_refusal bad;
        uint64_t digest = mix(14695981039346656037u, h->path);
        size_t count = 0;

        check_within(h, h->path);
        check_within(h, h->query);
        df_check(h->path.len > 0);
        df_check(h->path.data[0] == '/');
        df_check(h->header_count <= DF_HTTP_HEADERS_MAX);
        df_check(h->header_count > 0); /* Host */
        for (size_t i = 0; i < h->header_count; i++) {
                check_within(h, h->headers[i].name);
                check_within(h, h->headers[i].value);
                df_check(h->headers[i].name.len > 0);
                df_check(!h->headers[i].value.len ||
                         !memchr(h->headers[i].value.data, 0, h->headers[i].value.len));
                digest = mix(mix(digest, h->headers[i].name), h->headers[i].value);
        }
        if (!dfi_query_parse(h->query, store, params, &count, &bad)) {
                df_check(bad.status == 400);
                df_check(bad.why);
                *ret_status = bad.status;
        }
        df_check(count <= DF_HTTP_PARAMS_MAX);
        for (size_t i = 0; i < count; i++)
                digest = mix(mix(digest, params[i].name), params[i].value);
        return digest;
}

/* Bytes arrive up to have, then up to size. Returns what is left unused; 0 stops. */
static size_t read_body(const struct dfi_head *h, const uint8_t *p, size_t have, size_t size,
                        struct outcome *o)
{
        struct dfi_chunks chunks = {0};
        enum dfi_parse result = DFI_MORE;
        struct dfi_refusal bad = {0};
        size_t at = 0, stop = have;

        if (h->length != UINT64_MAX)
                return h->length <= size ? (size_t)h->length : SIZE_MAX;
        while (result == DFI_MORE) {
                struct df_bytes body;
                size_t used;

                if (at == stop && stop == size)
                        return SIZE_MAX;
                if (at == stop)
                        stop = size;
                result = dfi_chunks_feed(&chunks, df_bytes(p + at, stop - at), &used, &body, &bad);
                df_check(used <= stop - at);
                df_check(body.len <= used);
                df_check(used > 0);
                for (size_t i = 0; i < body.len; i++) /* however it is cut */
                        o->digests[o->count] =
                                mix(o->digests[o->count], df_bytes(body.data + i, 1));
                at += used;
        }
        if (result == DFI_BAD)
                o->statuses[o->count] = bad.status;
        return at;
}

static void run(const uint8_t *data, size_t size, size_t cut, struct outcome *o)
{
        static struct dfi_head h;

        *o = (struct outcome){0};
        while (o->count < REQUESTS_MAX && size > 0) {
                struct dfi_refusal bad = {0};
                size_t at = 0, body;
                enum dfi_parse result = dfi_scan(data, cut, &at, &bad);

                if (result == DFI_MORE)
                        result = dfi_scan(data, size, &at, &bad);
                if (result == DFI_DONE) {
                        df_check(at <= size);
                        df_check(at <= DF_HTTP_HEAD_MAX);
                        result = dfi_head_parse(&h, data, at, &bad);
                }
                o->statuses[o->count] = result == DFI_MORE  ? 0
                                        : result == DFI_BAD ? bad.status
                                                            : 200;
                df_check(result != DFI_BAD || (bad.status >= 400 && bad.why));
                if (result != DFI_DONE)
                        break;
                o->digests[o->count] = check_head(&h, &o->statuses[o->count]);
                data += at;
                size -= at;
                cut = cut > at ? cut - at : 0;
                body = read_body(&h, data, cut, size, o);
                if (o->statuses[o->count] != 200 || body > size)
                        break;
                data += body;
                size -= body;
                cut = cut > body ? cut - body : 0;
                o->count++;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        size_t step = size / CUTS_MAX + 1;
        struct outcome whole, cut;
        uint8_t *copy = calloc(1, size ? size : 1); /* so that reading beyond its end is seen */

        df_check(copy);
        if (size)
                memcpy(copy, data, size);
        run(copy, size, size, &whole);
        for (size_t at = 0; at < size; at += step) {
                run(copy, size, at, &cut);
                df_check(cut.count == whole.count);
                df_check(memcmp(cut.statuses, whole.statuses, sizeof(whole.statuses)) == 0);
                df_check(memcmp(cut.digests, whole.digests, sizeof(whole.digests)) == 0);
        }
        free(copy);
        return 0;
}
