/* manifest.h - the signed statement of a closed period, as JSON (docs/BILLING.md, "Proof of a
 * number").
 *
 * It says what was billed (count and digest of the rows, totals), from which raw events (offsets,
 * and the chain of the archive's segments), and by which rules (settings, price tables,
 * corrections), so that `adtally verify` can make the number again from copies alone. Its bytes are
 * canonical: reading and writing again gives the same, or it is refused. The signature (df/sign.h)
 * is over these bytes, for the domain AD_MANIFEST_DOMAIN.
 *
 * Ownership: a struct borrows; what is read lies in the arena given. Thread: pure functions.
 * Errors: DF_ELIMIT: longer than AD_MANIFEST_MAX. DF_EPARSE: no manifest, or not its canonical
 *         form; the text names the place. DF_ESCHEMA: of a later version.
 */
#ifndef AD_MANIFEST_H
#define AD_MANIFEST_H

#include "df/archive.h"
#include "df/arena.h"
#include "df/sha256.h"
#include "proto/books.h"

#define AD_MANIFEST_DOMAIN "adtally-period-1"
#define AD_MANIFEST_VERSION 1
#define AD_MANIFEST_TEXT_MAX 64 /* of a setting, zone or version */
/* Segments are listed one by one up to so many in all; the chain vouches for them anyway. */
#define AD_MANIFEST_SEGMENTS_LISTED 1000
#define AD_MANIFEST_SOURCES_MAX 1024

/* The settings that shape a number, by the names that `adtally config` knows; values as it prints
 * them. */
#define AD_MANIFEST_SETTINGS 7
extern const char *const ad_manifest_settings[AD_MANIFEST_SETTINGS];

struct ad_manifest_price {
        uint32_t version;
        uint8_t sha256[DF_SHA256_SIZE]; /* of the file <version>.csv */
};
struct ad_manifest_command {   /* a correction of the tenant, or the cancelling of one */
        uint64_t offset;       /* in the topic `commands` */
        struct df_bytes bytes; /* Command (books.proto) */
};
struct ad_manifest_segment {
        uint64_t from, to;
        uint8_t sha256[DF_SHA256_SIZE];
};
struct ad_manifest_part {
        uint64_t from, to;             /* offsets that were judged, [from, to) */
        uint64_t archived_to;          /* end of the last segment that holds any of them */
        uint32_t segments;             /* the archive's first so many hold them all */
        uint8_t chain[DF_SHA256_SIZE]; /* of the last of them, in the archive's manifest */
        const struct ad_manifest_segment *listed; /* `segments` of them; NULL: too many in all */
};
struct ad_manifest_source { /* a topic of raw events: `events`, or one of imports (R6) */
        struct df_bytes topic;
        uint64_t generation;
        const struct ad_manifest_part *parts; /* by partition */
        uint32_t part_count;
};
struct ad_manifest {
        struct ad_account account;
        struct df_bytes period, zone, zone_version;
        uint64_t from_quarter, to_quarter; /* of event time [from, to) */
        int64_t at_ms;
        struct df_bytes asked_by, run, chain, version; /* of the run: see books.proto */
        struct df_bytes settings[AD_MANIFEST_SETTINGS];
        uint32_t groupings;
        uint32_t price_version;                 /* the table by which it was billed; 0: none */
        const struct ad_manifest_price *prices; /* every table that was there, ascending */
        size_t price_count;
        uint64_t corrections_to;             /* offset in `commands` */
        uint8_t corrections[DF_SHA256_SIZE]; /* of all commands before it, each behind its length */
        const struct ad_manifest_command *commands;
        size_t command_count;
        const struct ad_manifest_source *sources; /* `events` first */
        size_t source_count;
        uint64_t rows;
        uint8_t rows_sha256[DF_SHA256_SIZE];
        const struct ad_currency_cell *totals; /* by currency, ascending */
        size_t total_count;
};

int ad_manifest_write(const struct ad_manifest *m, struct df_buf *ret, struct df_error *err);
int ad_manifest_read(struct df_bytes text, struct df_arena *arena, struct ad_manifest *ret,
                     struct df_error *err);

#endif
