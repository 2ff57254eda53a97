/* parse.h - the body of a POST /events to events, each accepted or refused by a code.
 *
 * Pure: knows the time only from ad_parse_rules. Bad input never crashes and never hides: a body
 * that cannot be read at all is refused whole; otherwise each element is an event or a rejection
 * with its index, field and code (proto/reason.h), and good events beside bad ones are accepted.
 *
 * Bodies: one JSON object, an array, {"events":[...]}, NDJSON (a bad line is a rejection), or a
 * protobuf EventBatch (fields that ingest stamps are ignored).
 * Money is whole micros: 187.4, 1.0, 1e3 and "5" are wrong_type, so no float ever touches it; a
 * number beyond 64 bits cannot be read at all (bad_json). null is "not stated". Times are RFC 3339
 * with an offset, or positive milliseconds.
 * Releases (POST /quarantine/release) are an EventBatch of events as the log has them. What ingest
 * stamped then stays: fingerprint, labels, a sealed user id; but receive_ms is now's. Their source
 * says which entry of quarantine they are: release:PARTITION/OFFSET/INDEX.
 * Ownership: everything is borrowed from the body or the parser until the next call.
 * Thread: a parser belongs to one thread.
 */
#ifndef AD_PARSE_H
#define AD_PARSE_H

#include "jobs/ingest/json.h"
#include "proto/wire.h"

struct ad_parse_rules {
        int64_t now_ms; /* becomes receive_ms */
        struct df_bytes tenant_id;
        struct df_bytes source;   /* "http" */
        struct df_bytes currency; /* default of events that state no money */
        int64_t accepted_age_ms;
        /* Grace + out-of-orderness: warn `probably_late` when the event's minute ended so long ago
         * (W5, as far as ingest can know it); 0 = never. */
        int64_t late_after_ms;
        bool money_allowed; /* false: class `public` */
};

struct ad_rejection {
        uint32_t index;
        enum ad_reason reason;
        const char *field;        /* or NULL */
        struct df_bytes event_id; /* as far as it was read; may be empty */
};

enum ad_body_format { AD_BODY_JSON, AD_BODY_NDJSON, AD_BODY_PROTOBUF, AD_BODY_RELEASE };
#define AD_SOURCE_RELEASE "release:"

struct ad_parse_result {
        struct ad_event *events; /* accepted */
        uint32_t *indexes;       /* of events[i] in the body */
        size_t count;
        struct ad_rejection *rejected;
        size_t rejected_count;
        struct ad_rejection *warnings; /* AD_CLASS_WARNING reasons */
        size_t warning_count;
        struct df_arena *arena; /* lives as long as the events: for what is put into them */
        enum ad_reason whole;   /* AD_NONE, or why the whole body is refused */
        char message[200];      /* of whole */
};

struct ad_parser;
int ad_parser_create(struct ad_parser **ret, struct df_error *err);
/* Fails only with DF_ENOMEM. */
int ad_parse_body(struct ad_parser *p, enum ad_body_format format, struct df_bytes body,
                  const struct ad_parse_rules *rules, struct ad_parse_result *ret,
                  struct df_error *err);
void ad_parser_destroy(struct ad_parser *p);

#endif
