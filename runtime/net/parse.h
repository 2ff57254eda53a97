/* parse.h - the strict HTTP/1.1 grammar over byte ranges: no I/O, no clock, no allocation.
 *
 * A head is first searched for its end in the bytes that have arrived (dfi_scan, called again with
 * more of the same bytes), then parsed once, whole (dfi_head_parse). A chunked body is parsed as it
 * comes (dfi_chunks_feed). However the bytes are split, the results are the same.
 * Order of calls: scan until DFI_DONE; head_parse; query_parse; [chunks_feed until DFI_DONE].
 */
#ifndef DFI_NET_PARSE_H
#define DFI_NET_PARSE_H

#include "df/net.h"

enum dfi_parse { DFI_MORE, DFI_DONE, DFI_BAD };

/* Which rule was broken, and the status that says so. */
struct dfi_refusal {
        int status; /* 400, 417 or 431 */
        const char *why;
};

/* Search data[0..len) for the end of the head. *at: how far earlier calls came, 0 at first; on
 * DFI_DONE the length of the head with its empty line. */
enum dfi_parse dfi_scan(const uint8_t *data, size_t len, size_t *at, struct dfi_refusal *bad);

struct dfi_head {
        enum df_http_method method; /* 0: a well-formed method that no route can have */
        bool http10;
        bool close;      /* Connection: close, or HTTP/1.0 */
        bool expect;     /* Expect: 100-continue */
        bool has_length; /* it states the length of a body, be it 0 */
        uint64_t length; /* UINT64_MAX = chunked; a number too big for 64 bits is UINT64_MAX - 1 */
        struct df_bytes path; /* without "/v1" */
        struct df_bytes query;
        size_t header_count;
        struct df_http_field headers[DF_HTTP_HEADERS_MAX];
        uint8_t text[DF_HTTP_HEAD_MAX]; /* what the ranges above point to: a copy */
};

/* Parse a whole head as dfi_scan delimits it: DFI_DONE or DFI_BAD. */
enum dfi_parse dfi_head_parse(struct dfi_head *h, const uint8_t *data, size_t len,
                              struct dfi_refusal *bad);

/* Decode the parameters of a query into store, which has at least query.len bytes. */
bool dfi_query_parse(struct df_bytes query, uint8_t *store, struct df_http_field *params,
                     size_t *ret_count, struct dfi_refusal *bad);
/* Percent-decode to store (text.len bytes at least). False: a bad escape. */
bool dfi_decode(struct df_bytes text, bool plus, uint8_t *store, size_t *ret_len);

/* A chunked body. Zero-initialised is at its start. */
struct dfi_chunks {
        uint8_t state;
        uint8_t digits;
        uint64_t left; /* bytes of the chunk that are still to come */
};
/* Consume a part of in: *ret_used bytes, of which *ret_body (maybe empty) is content. Call until in
 * is used up, or the result is not DFI_MORE. */
enum dfi_parse dfi_chunks_feed(struct dfi_chunks *c, struct df_bytes in, size_t *ret_used,
                               struct df_bytes *ret_body, struct dfi_refusal *bad);

#endif
