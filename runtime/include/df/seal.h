/* seal.h - origins, seals and collections (K5, K6): what makes output exactly-once for readers.
 *
 * Every record of an output topic is one Output message (proto/log.proto): the origin, and either a
 * payload or the seal that ends the collection (source, k, epoch) of this topic and partition.
 * Canonical bytes; pure; decoded structs borrow from the bytes.
 */
#ifndef DF_SEAL_H
#define DF_SEAL_H

#include "df/clock.h"
#include "df/hash.h"
#include "df/log.h"

#define DF_OUTCOMES_MAX 32 /* outcome codes are below this */
#define DF_VERSION_MAX 31

struct df_source { /* E1 */
        char stream[DF_TOPIC_NAME_MAX + 1];
        uint64_t generation;
        uint32_t partition;
};
bool df_source_eq(const struct df_source *a, const struct df_source *b);

struct df_origin {
        struct df_source source;
        uint64_t k;     /* checkpoint, from 1 */
        uint64_t epoch; /* of the owner that wrote it */
        uint32_t n;     /* position in the collection */
};

struct df_seal {
        uint64_t parent_k;
        struct df_hash128 parent_digest;
        struct df_hash128 digest; /* of this checkpoint's meta */
        uint64_t from_offset, to_offset;
        uint64_t outcomes[DF_OUTCOMES_MAX];
        uint64_t records, poison_records, heartbeats, events;
        uint32_t rows;
        struct df_hash128 rows_digest;
        int64_t watermark_ms, max_append_ms, max_receive_ms;
        int64_t final_through_ms; /* W4 */
        uint64_t config;          /* digest of all that shapes a number (W6) */
        uint32_t price_version, label_version;
        char binary_version[DF_VERSION_MAX + 1];
        bool closed;
        struct df_bytes note;
};

struct df_output {
        struct df_origin origin;
        bool is_seal;
        struct df_bytes payload; /* when not a seal */
        struct df_seal seal;     /* when a seal */
};

void df_output_encode(struct df_buf *b, const struct df_origin *origin, struct df_bytes payload);
void df_output_encode_seal(struct df_buf *b, const struct df_origin *origin,
                           const struct df_seal *seal);
int df_output_decode(struct df_bytes record, struct df_output *ret, struct df_error *err);

/* ---- the reader's half of K5: collect until the seal, apply each k of a source once ----
 * One collector a (topic, partition). Order: df_collector_add for each record in log order. When it
 * says DF_COLLECT_COMPLETE, the collection's payloads (in order) and seal are those of *ret, valid
 * until the next add; apply them and the position in one write. Memory is bounded by max_bytes of
 * unsealed payload; a larger collection is DF_ELIMIT. DF_EPARSE: the record is no output record. In
 * both cases the collector goes on, and the collection that lacks it will not match its seal.
 * After a restart the reader starts again at df_collector_floor (offset of the first record of the
 * oldest collection not yet complete): keep it beside the applied k. */
enum df_collect {
        DF_COLLECT_MORE,     /* kept, or dropped as a repeat */
        DF_COLLECT_COMPLETE, /* a new complete collection */
        DF_COLLECT_REPEATED, /* complete, but this k of this source was applied before */
        DF_COLLECT_DAMAGED,  /* count or digest do not match its seal: alarm; it was dropped */
};
struct df_collection {
        struct df_origin origin;
        struct df_seal seal;
        const struct df_bytes *payloads;
        size_t count;
};
struct df_collector;
int df_collector_create(size_t max_bytes, struct df_collector **ret, struct df_error *err);
/* Tell what was applied before (at restart), once for each source. */
int df_collector_applied(struct df_collector *c, const struct df_source *source, uint64_t k,
                         struct df_error *err);
int df_collector_add(struct df_collector *c, const struct df_record *record,
                     enum df_collect *ret_what, struct df_collection *ret, struct df_error *err);
uint64_t df_collector_floor(const struct df_collector *c, uint64_t position);
void df_collector_destroy(struct df_collector *c);

#endif
