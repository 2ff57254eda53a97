/* wire.h - Adtally's messages in memory, and their bytes (event.proto, log.proto).
 *
 * The codec is our own: canonical bytes (digests compare them), no allocation but the caller's
 * arena or buffer, and no library under core and operators. tests/unit/test_wire.c holds it
 * against the code that protoc generates from the same .proto files.
 *
 * Ownership: decoded structs borrow from the bytes they were decoded from; arrays live in the
 *         arena.
 * Errors: DF_EPARSE for damaged bytes or a value beyond its limit (proto/limits.h); DF_ENOMEM.
 *         Fields that this version does not know are skipped. After a failure *ret means nothing.
 * Thread: pure functions.
 */
#ifndef AD_WIRE_H
#define AD_WIRE_H

#include "df/arena.h"
#include "df/hash.h"
#include "df/money.h"
#include "proto/limits.h"
#include "proto/reason.h"

enum ad_type { AD_TYPE_NONE = 0, AD_IMPRESSION = 1, AD_CLICK = 2, AD_CONVERSION = 3 };

/* The dimensions a cell may keep. Order and values are stored: append only. */
enum ad_dim {
        AD_DIM_ADVERTISER,
        AD_DIM_CAMPAIGN,
        AD_DIM_AD,
        AD_DIM_PUBLISHER,
        AD_DIM_PLACEMENT,
        AD_DIM_COUNTRY,
        AD_DIM_DEVICE,
        AD_DIM_COUNT,
};
extern const char *const ad_dim_names[AD_DIM_COUNT]; /* "advertiser_id", ... as in JSON */

enum ad_event_flag {
        AD_EV_TIME_MISSING = 1u << 0,
        AD_EV_KEY_DERIVED = 1u << 1,
        AD_EV_CURRENCY_DEFAULTED = 1u << 2,
        AD_EV_HAS_COST = 1u << 3, /* stated by the client */
        AD_EV_HAS_PAYOUT = 1u << 4,
        AD_EV_HAS_VALUE = 1u << 5,
        AD_EV_USER_SEALED = 1u << 6, /* user_id holds field 29, not 9 */
        /* Never encoded: the item is no event but a place in the log; outcome is AD_SKIP. */
        AD_EV_MARK = 1u << 16,      /* a record was reached (its append_ms) */
        AD_EV_HEARTBEAT = 1u << 17, /* judged like an event with event_ms = receive_ms (T2) */
        AD_EV_CLOCK_RESET = 1u << 18,
        AD_EV_POISON = 1u << 19, /* the record cannot be decoded (E2); raw is all of it */
};
#define AD_SKIP UINT32_MAX /* ad_event.outcome of marks: no outcome, never counted */
enum ad_label { AD_LABEL_BOT = 1u << 0, AD_LABEL_TEST = 1u << 1 };

struct ad_effect; /* operators/correct.h */

struct ad_event {
        struct df_bytes event_id;
        struct df_bytes tenant_id;
        struct df_bytes dims[AD_DIM_COUNT];
        struct df_bytes user_id; /* as stated, or sealed: AD_EV_USER_SEALED; one of the two */
        struct df_bytes click_id;
        struct df_bytes currency;       /* of cost and payout; "XXX" never stands here */
        struct df_bytes value_currency; /* empty = currency */
        struct df_bytes source;
        struct df_bytes attributes; /* encoded field 18 entries, in order */
        int64_t event_ms;
        int64_t receive_ms;
        int64_t cost_nanos; /* each |amount| <= AD_MONEY_MICROS_MAX micros */
        int64_t payout_nanos;
        int64_t value_nanos;
        uint64_t fingerprint;
        uint32_t type;   /* enum ad_type */
        uint32_t flags;  /* enum ad_event_flag */
        uint32_t labels; /* enum ad_label */
        uint32_t schema_version;

        /* Set by the pipeline, never encoded. */
        struct df_bytes raw;    /* the encoded event */
        struct df_hash128 key;  /* D1: hash of (tenant, event_id) */
        int64_t watermark_ms;   /* W5: just before this event */
        int64_t append_ms;      /* of its record */
        uint64_t offset;        /* of its record */
        uint32_t index;         /* in the record */
        uint32_t price_version; /* of its record */
        uint32_t outcome;       /* enum ad_reason; AD_NONE while it is alive */
        uint32_t bill_outcome;  /* the bill's own, set by dedupe_billing */
        /* Of the bill alone, set by correct; as long as the batch. NULL: no correction applies. */
        const struct ad_effect *correction;
};

struct ad_heartbeat {
        int64_t receive_ms;
        uint64_t received, accepted, rejected, unanswered;
        uint64_t partition_accepted;
        bool closing;
        bool in_doubt; /* partition_accepted is the least it can be */
};
struct ad_import_begin {
        uint64_t generation;
        struct df_bytes tenant_id, dataset;
        int64_t from_ms, to_ms, receive_ms;
};
struct ad_import_end {
        uint64_t generation, rows;
        bool aborted;
};

/* A record of the topic `events` (EventBatch). */
struct ad_batch {
        uint64_t start_id;
        uint64_t first_seq;
        uint32_t price_version, label_version, schema_version;
        bool has_heartbeat, has_import_begin, has_import_end;
        bool clock_reset; /* T2: the maxima of append and receive time restart here */
        struct ad_heartbeat heartbeat;
        struct ad_import_begin import_begin;
        struct ad_import_end import_end;
        struct ad_event *events; /* in the arena */
        size_t count;
};

#define AD_SCHEMA_VERSION 1

/* ---- events ---- */
/* Append the canonical Event message (without tag or length). */
void ad_wire_event(struct df_buf *b, const struct ad_event *ev);
/* Decode one Event message; raw is set. Strings are not checked for UTF-8 or content; lengths are.
 */
int ad_wire_event_decode(struct df_bytes bytes, struct ad_event *ret, struct df_error *err);
/* Append one encoded event as an entry of EventBatch.events. Build a record by appending entries,
 * then the header with ad_wire_batch_header (events first: field 1). */
void ad_wire_batch_entry(struct df_buf *b, struct df_bytes encoded_event);
void ad_wire_batch_header(struct df_buf *b, const struct ad_batch *batch); /* events not read */
/* At most max_events events, otherwise DF_ELIMIT. */
int ad_wire_batch_decode(struct df_bytes record, size_t max_events, struct df_arena *arena,
                         struct ad_batch *ret, struct df_error *err);
/* The same; events go to room when they seem to fit, and always when it takes max_events;
 * otherwise to the arena. */
struct ad_event_room {
        struct ad_event *events;
        size_t count;
};
int ad_wire_batch_decode_into(struct df_bytes record, size_t max_events, struct ad_event_room room,
                              struct df_arena *arena, struct ad_batch *ret, struct df_error *err);
/* What a record is, without decoding its events: fills all of ret but events; count is right. */
int ad_wire_batch_peek(struct df_bytes record, struct ad_batch *ret, struct df_error *err);

/* D1: hash of (length-prefixed tenant, event_id). */
struct df_hash128 ad_event_key(struct df_bytes tenant_id, struct df_bytes event_id);
uint32_t ad_event_partition(struct df_hash128 key, uint32_t partitions); /* E3 */
/* XXH3-64 of what the client stated: type, event time unless missing, ids, stated money. */
uint64_t ad_event_fingerprint(const struct ad_event *ev);

/* ---- rows (W3) ---- */
struct ad_cell {
        uint64_t impressions, clicks, conversions;
        uint64_t invalid[3]; /* by type - 1 */
        df_nanos spend, payout, value;
};
bool ad_cell_add(struct ad_cell *sum, const struct ad_cell *v); /* false on overflow */
bool ad_cell_is_zero(const struct ad_cell *c);

/* A grouping: which dimensions its cells keep. Grouping 0 is always (advertiser, campaign) (W2). */
struct ad_grouping {
        uint32_t dim_count;
        uint8_t dims[AD_DIM_COUNT]; /* enum ad_dim, in row order */
};
#define AD_GROUPINGS_MAX 8
struct ad_groupings {
        uint32_t version;
        uint32_t count;
        struct ad_grouping list[AD_GROUPINGS_MAX];
};
/* The default list: {advertiser, campaign}, {advertiser, campaign, ad, country, device},
 * {advertiser, campaign, publisher, placement}. */
extern const struct ad_groupings ad_groupings_default;
#define AD_OTHER "__other__" /* W7: stands for every dimension of a folded key */

struct ad_row {
        uint32_t grouping;
        uint64_t minute; /* window start, minutes since the epoch */
        struct df_bytes tenant_id;
        struct df_bytes dims[AD_DIM_COUNT]; /* dim_count of them, in the grouping's order */
        uint32_t dim_count;
        struct df_bytes currency; /* "XXX" when the event stated no money and has none */
        struct ad_cell cell;
};
void ad_wire_row(struct df_buf *b, const struct ad_row *row); /* as entry of RowBatch.rows */
int ad_wire_rows_decode(struct df_bytes payload,
                        int (*fn)(void *arg, const struct ad_row *row, struct df_error *err),
                        void *arg, struct df_error *err);

/* ---- late, quarantine ---- */
struct ad_late {
        uint64_t offset;
        uint32_t index;
        int64_t append_ms, watermark_ms;
        struct df_bytes event; /* encoded Event */
};
void ad_wire_late(struct df_buf *b, const struct ad_late *late); /* a LateBatch of one entry */
int ad_wire_late_decode(struct df_bytes payload,
                        int (*fn)(void *arg, const struct ad_late *late, struct df_error *err),
                        void *arg, struct df_error *err);
struct ad_quarantined {
        uint64_t offset;
        uint32_t index;
        bool whole_record;
        uint32_t reason;
        int64_t append_ms;
        struct df_bytes tenant_id, event_id, head;
        uint64_t size;
};
void ad_wire_quarantined(struct df_buf *b, const struct ad_quarantined *q); /* batch of one entry */
int ad_wire_quarantine_decode(struct df_bytes payload,
                              int (*fn)(void *arg, const struct ad_quarantined *q,
                                        struct df_error *err),
                              void *arg, struct df_error *err);

/* ---- the note in a seal ---- */
#define AD_NOTE_EDGES_MAX 64
struct ad_edge {
        uint64_t start_id;
        int64_t heartbeat_ms;
        uint64_t received, accepted, rejected, unanswered;
        uint64_t partition_accepted, partition_seen;
        bool closing;
};
struct ad_note {
        struct ad_edge edges[AD_NOTE_EDGES_MAX];
        size_t edge_count;
        bool has_import_begin, has_import_end;
        struct ad_import_begin import_begin;
        struct ad_import_end import_end;
        uint64_t sequence_gaps;
        int64_t min_receive_ms, max_receive_ms; /* of the events decoded; 0 = none */
};
void ad_wire_note(struct df_buf *b, const struct ad_note *note);
int ad_wire_note_decode(struct df_bytes bytes, struct ad_note *ret, struct df_error *err);

/* ---- strings inside the keys of stores ---- */
/* Keys made of such strings sort as the strings do, whatever bytes they hold. */
void ad_put_ordered(struct df_buf *b, struct df_bytes s);
/* Back, into room for max bytes; false: damaged, or longer. */
bool ad_get_ordered(struct df_reader *r, uint8_t *room, size_t max, struct df_bytes *ret);

#endif
