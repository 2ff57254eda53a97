/* json.h - JSON as a flat list of nodes (the only C++ behind it: json.cc, over simdjson).
 *
 * A document becomes nodes in document order; a container is followed by its members, and `next` is
 * the index just behind it, so a member is skipped in one step. Strings are unescaped, valid UTF-8,
 * and may hold NUL. Everything is borrowed from the parser until its next parse.
 * Thread: a parser belongs to one thread. Errors: AD_JSON_*; no exception leaves.
 */
#ifndef AD_JSON_H
#define AD_JSON_H

#include "proto/limits.h"

#ifdef __cplusplus
#include <cstddef>
#include <cstdint>
struct df_bytes { /* as df/bytes.h has it; that header is C */
        const uint8_t *data;
        size_t len;
};
extern "C" {
#else
#include "df/bytes.h"
#endif

enum ad_json_kind {
        AD_JSON_OBJECT,
        AD_JSON_ARRAY,
        AD_JSON_STRING,
        AD_JSON_INT,  /* fits int64 */
        AD_JSON_UINT, /* above int64, fits uint64 */
        AD_JSON_DOUBLE,
        AD_JSON_BOOL,
        AD_JSON_NULL,
};

struct ad_json_node {
        enum ad_json_kind kind;
        uint32_t next;       /* index of the node behind this one and its members */
        struct df_bytes key; /* of a member of an object */
        struct df_bytes text;
        union {
                int64_t i;
                uint64_t u;
                double d;
        };
};

enum {
        AD_JSON_OK = 0,
        AD_JSON_BAD = -1, /* also a number beyond 64 bits */
        AD_JSON_BAD_UTF8 = -2,
        AD_JSON_NO_MEMORY = -3,
        AD_JSON_TOO_MANY = -4,
};
/* Values of a document: a full batch whose every event states every field and attribute. Bounds the
 * memory that a body of tiny values takes. */
#define AD_JSON_NODES_MAX (AD_BATCH_EVENTS_MAX * 40)

struct ad_json_parser;
struct ad_json_parser *ad_json_create(void); /* NULL: out of memory */
/* *ret_message (static or the parser's own) says what is wrong. */
int ad_json_parse(struct ad_json_parser *p, struct df_bytes text,
                  const struct ad_json_node **ret_nodes, size_t *ret_count,
                  const char **ret_message);
void ad_json_destroy(struct ad_json_parser *p);

int ad_utf8_valid(struct df_bytes text); /* 1 or 0 */

#ifdef __cplusplus
}
#endif

#endif
