/* event_proto.c - one encoded Event to one event, by the rules of event_json.c. */
#include "jobs/ingest/parse_private.h"

enum { WIRE_VARINT = 0, WIRE_BYTES = 2, FIELD_ATTRIBUTES = 18 };

static const struct {
        const char *name;
        size_t max; /* bytes; 0 = not a string */
} fields[] = {
        [1] = {"event_id", AD_EVENT_ID_MAX},
        [2] = {"type", 0},
        [3] = {"event_time", 0},
        [4] = {"advertiser_id", AD_ID_MAX},
        [5] = {"campaign_id", AD_ID_MAX},
        [6] = {"ad_id", AD_ID_MAX},
        [7] = {"publisher_id", AD_ID_MAX},
        [8] = {"placement_id", AD_ID_MAX},
        [9] = {"user_id", AD_ID_MAX},
        [10] = {"country", AD_ID_MAX},
        [11] = {"device", AD_ID_MAX},
        [12] = {"click_id", AD_ID_MAX},
        [13] = {"cost", 0},
        [14] = {"payout", 0},
        [15] = {"conversion_value", 0},
        [16] = {"currency", 3},
        [17] = {"conversion_value_currency", 3},
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

static enum ad_reason check_text(struct df_bytes s)
{
        if (!ad_utf8_valid(s))
                return AD_BAD_UTF8;
        return dfi_plain_text(s) ? AD_NONE : AD_BAD_CHARACTER;
}

static enum ad_reason add_attribute(struct dfi_attributes *a, struct df_bytes entry)
{
        struct df_reader r = df_reader(entry);
        struct df_bytes key = {0}, value = {0};
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                if (f.wire != WIRE_BYTES)
                        continue;
                if (f.number == 1)
                        key = f.bytes;
                else if (f.number == 2)
                        value = f.bytes;
        }
        if (r.bad)
                return AD_BAD_PROTOBUF;
        if (!ad_utf8_valid(key) || !ad_utf8_valid(value))
                return AD_BAD_UTF8;
        return dfi_add_attribute(a, key, value);
}

/* What the decoder does not look at, and by what name its refusal goes. Reads the event_id on the
 * way, for the rejection. */
static enum ad_reason walk(struct df_bytes bytes, struct dfi_attributes *attributes,
                           struct ad_event *ev, const char **ret_field)
{
        struct df_reader r = df_reader(bytes);
        enum ad_reason first = AD_NONE;
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                enum ad_reason reason = AD_NONE;
                const char *name = f.number < FIELD_COUNT ? fields[f.number].name : NULL;

                if (f.number == FIELD_ATTRIBUTES && f.wire == WIRE_BYTES) {
                        name = "attributes";
                        reason = add_attribute(attributes, f.bytes);
                } else if (name && fields[f.number].max && f.wire == WIRE_BYTES) {
                        if (f.bytes.len > fields[f.number].max)
                                reason = fields[f.number].max == 3 ? AD_UNKNOWN_CURRENCY
                                                                   : AD_TOO_LONG;
                        else
                                reason = check_text(f.bytes);
                        if (f.number == 1 && reason == AD_NONE)
                                ev->event_id = f.bytes;
                } else if (f.number == 2 && f.wire == WIRE_VARINT && f.u > AD_CONVERSION) {
                        reason = AD_UNKNOWN_TYPE;
                }
                if (reason != AD_NONE && first == AD_NONE) {
                        first = reason;
                        *ret_field = name;
                }
        }
        return r.bad ? AD_BAD_PROTOBUF : first;
}

static bool known_currency(struct df_bytes code)
{
        return code.len == 0 ||
               (df_currency_known(code) && !df_bytes_eq(code, df_bytes_str("XXX")));
}

static enum ad_reason check_values(const struct ad_event *ev, const char **ret_field)
{
        *ret_field = "event_time";
        if (ev->event_ms < 0)
                return AD_BAD_TIME;
        *ret_field = ev->cost_nanos < 0     ? "cost"
                     : ev->payout_nanos < 0 ? "payout"
                     : ev->value_nanos < 0  ? "conversion_value"
                                            : NULL;
        if (*ret_field)
                return AD_NEGATIVE;
        *ret_field = known_currency(ev->currency) ? "conversion_value_currency" : "currency";
        if (!known_currency(ev->currency) || !known_currency(ev->value_currency))
                return AD_UNKNOWN_CURRENCY;
        *ret_field = NULL;
        return AD_NONE;
}

/* The fields that a client states, without its attributes: those may stand anywhere and are encoded
 * anew, in order. */
static struct df_bytes stated(struct df_bytes bytes, struct df_arena *arena)
{
        struct df_reader r = df_reader(bytes);
        uint8_t *copy = df_arena_alloc(arena, bytes.len + 1);
        const uint8_t *from = bytes.data;
        struct df_pb_field f;
        size_t len = 0;

        for (; copy && df_pb_next(&r, &f); from = r.p) {
                if (f.number >= FIELD_ATTRIBUTES)
                        continue;
                memcpy(copy + len, from, (size_t)(r.p - from));
                len += (size_t)(r.p - from);
        }
        return df_bytes(copy, len);
}

/* Every string was looked at: what the decoder still refuses is an amount. */
static const char *bad_amount(struct df_bytes bytes, struct ad_event *ev)
{
        struct df_reader r = df_reader(bytes);
        const uint8_t *from = bytes.data;
        const char *name = NULL;
        struct ad_event one;
        struct df_pb_field f;

        for (; df_pb_next(&r, &f); from = r.p) {
                if (f.number == 1 && f.wire == WIRE_BYTES)
                        ev->event_id = f.bytes;
                if (f.number >= 13 && f.number <= 15 &&
                    ad_wire_event_decode(df_bytes(from, (size_t)(r.p - from)), &one, NULL) < 0)
                        name = fields[f.number].name;
        }
        return name;
}

enum ad_reason dfi_event_from_protobuf(struct df_bytes bytes, struct df_arena *arena,
                                       struct ad_event *ev, const char **ret_field)
{
        struct dfi_attributes attributes = {.count = 0};
        struct df_bytes ordered = {0}, own;
        enum ad_reason reason;

        memset(ev, 0, sizeof(*ev));
        if (bytes.len > AD_EVENT_BYTES_MAX)
                return AD_TOO_LONG;
        reason = walk(bytes, &attributes, ev, ret_field);
        if (reason == AD_NONE)
                reason = dfi_encode_attributes(&attributes, arena, &ordered);
        if (reason != AD_NONE)
                return reason;
        own = stated(bytes, arena);
        if (!own.data)
                return AD_UNAVAILABLE;
        if (ad_wire_event_decode(own, ev, NULL) < 0) {
                *ret_field = bad_amount(own, ev);
                return AD_OUT_OF_RANGE;
        }
        ev->attributes = ordered;
        return check_values(ev, ret_field);
}

/* "release:PARTITION/OFFSET/INDEX" in decimal. */
static bool names_an_entry(struct df_bytes source)
{
        size_t at = strlen(AD_SOURCE_RELEASE);

        if (source.len < at || memcmp(source.data, AD_SOURCE_RELEASE, at) != 0)
                return false;
        for (int part = 0; part < 3; part++) {
                size_t from = at;

                while (at < source.len && source.data[at] >= '0' && source.data[at] <= '9')
                        at++;
                if (at == from || (part < 2 && (at == source.len || source.data[at++] != '/')))
                        return false;
        }
        return at == source.len;
}

/* What ingest stamped when it first took the event. */
static enum ad_reason keep_stamps(struct ad_event *ev, const struct ad_event *was,
                                  const char **ret_field)
{
        const uint32_t stamps = AD_EV_TIME_MISSING | AD_EV_CURRENCY_DEFAULTED | AD_EV_KEY_DERIVED |
                                AD_EV_USER_SEALED;

        ev->tenant_id = was->tenant_id;
        ev->source = was->source;
        ev->labels = was->labels;
        ev->fingerprint = was->fingerprint;
        ev->schema_version = was->schema_version;
        ev->user_id = was->user_id;
        ev->flags |= was->flags & stamps;
        *ret_field = "source";
        if (!names_an_entry(ev->source))
                return AD_WRONG_TYPE;
        *ret_field = "event_time";
        if (ev->event_ms <= 0)
                return AD_BAD_TIME;
        /* With a sealed id it cannot be made again: the id as stated is not here. */
        *ret_field = "fingerprint";
        if (!(ev->flags & AD_EV_USER_SEALED) && ev->fingerprint != ad_event_fingerprint(ev))
                return AD_WRONG_TYPE;
        *ret_field = NULL;
        return AD_NONE;
}

enum ad_reason dfi_event_from_log(struct df_bytes bytes, struct df_arena *arena,
                                  struct ad_event *ev, const char **ret_field)
{
        struct ad_event was;
        enum ad_reason reason = dfi_event_from_protobuf(bytes, arena, ev, ret_field);

        if (reason != AD_NONE)
                return reason;
        if (ad_wire_event_decode(bytes, &was, NULL) < 0)
                return AD_BAD_PROTOBUF;
        return keep_stamps(ev, &was, ret_field);
}
