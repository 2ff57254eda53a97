/* reason.h - every way an event can end, and every way a request can be refused: one table.
 *
 * The codes are the same in HTTP answers, metrics, quarantine, seals and docs/REASONS.md. Values
 * are stored in seals and archives: never reuse one.
 */
#ifndef AD_REASON_H
#define AD_REASON_H

enum ad_outcome_class {
        AD_CLASS_COUNTED,
        AD_CLASS_DUPLICATE,
        AD_CLASS_CONFLICT,
        AD_CLASS_LATE,
        AD_CLASS_QUARANTINED,
        AD_CLASS_REJECTED, /* refused by ingest: the event is not in the log */
        AD_CLASS_WARNING,  /* accepted, with a remark */
};

/* X(NAME, value, class, "code", HTTP status when a whole request ends so, retryable, "text") */
#define AD_REASON_MAP(X)                                                                           \
        X(COUNTED, 1, COUNTED, "counted", 0, 0, "counted in its window")                           \
        X(DUPLICATE, 2, DUPLICATE, "duplicate", 0, 0, "the event_id was seen within the horizon")  \
        X(CONFLICT, 3, CONFLICT, "conflict", 0, 0, "the event_id was seen with other content")     \
        X(LATE, 4, LATE, "late", 0, 0, "its window was settled; reconcile bills it")               \
        X(POISON, 5, QUARANTINED, "poison", 0, 0, "the record cannot be decoded")                  \
        X(WRONG_PARTITION, 6, QUARANTINED, "wrong_partition", 0, 0,                                \
          "written to a foreign partition")                                                        \
        X(CLOCK, 7, QUARANTINED, "clock", 0, 0, "receive_time is ahead of the log's clock")        \
        X(STALE_RECEIVE, 8, QUARANTINED, "stale_receive", 0, 0, "receive_time is far behind")      \
        X(FUTURE_EVENT, 9, QUARANTINED, "future_event", 0, 0, "event_time is after receive_time")  \
        X(TOO_OLD, 10, QUARANTINED, "too_old", 0, 0, "event_time is before the accepted age")      \
        X(INVALID, 11, QUARANTINED, "invalid", 0, 0, "a field breaks its limits")                  \
        X(PRICE_MISSING, 12, QUARANTINED, "price_missing", 0, 0, "no price in the table applies")  \
        X(OVERFLOW, 13, QUARANTINED, "overflow", 0, 0, "a sum would exceed 128 bits")              \
        X(BAD_JSON, 32, REJECTED, "bad_json", 400, 0, "the body is not JSON")                      \
        X(BAD_PROTOBUF, 33, REJECTED, "bad_protobuf", 400, 0, "the body is not an EventBatch")     \
        X(EMPTY_BODY, 34, REJECTED, "empty_body", 400, 0, "the body is empty")                     \
        X(EMPTY_BATCH, 35, REJECTED, "empty_batch", 400, 0, "the batch holds no event")            \
        X(BATCH_TOO_LARGE, 36, REJECTED, "batch_too_large", 413, 0,                                \
          "more events than a batch may hold")                                                     \
        X(NOT_AN_EVENT, 37, REJECTED, "not_an_event", 422, 0, "an element is not a JSON object")   \
        X(MISSING_FIELD, 38, REJECTED, "missing_field", 422, 0, "a required field is absent")      \
        X(WRONG_TYPE, 39, REJECTED, "wrong_type", 422, 0, "a field has the wrong type")            \
        X(UNKNOWN_FIELD, 40, REJECTED, "unknown_field", 422, 0, "the field is not known")          \
        X(DUPLICATE_KEY, 41, REJECTED, "duplicate_key", 422, 0,                                    \
          "a key stands twice in the object")                                                      \
        X(TOO_LONG, 42, REJECTED, "too_long", 422, 0, "a string is longer than its limit")         \
        X(BAD_UTF8, 43, REJECTED, "bad_utf8", 400, 0, "a string is not valid UTF-8")               \
        X(BAD_CHARACTER, 44, REJECTED, "bad_character", 422, 0, "an id holds a control character") \
        X(OUT_OF_RANGE, 45, REJECTED, "out_of_range", 422, 0, "a number is outside its range")     \
        X(NEGATIVE, 46, REJECTED, "negative", 422, 0, "money may not be negative")                 \
        X(UNKNOWN_TYPE, 47, REJECTED, "unknown_type", 422, 0,                                      \
          "not impression, click or conversion")                                                   \
        X(UNKNOWN_CURRENCY, 48, REJECTED, "unknown_currency", 422, 0, "not an ISO 4217 code")      \
        X(MISSING_CURRENCY, 49, REJECTED, "missing_currency", 422, 0, "money without a currency")  \
        X(BAD_TIME, 50, REJECTED, "bad_time", 422, 0, "not RFC 3339 and not milliseconds")         \
        X(EVENT_TIME_FUTURE, 51, REJECTED, "event_time_future", 422, 0,                            \
          "event_time is too far ahead")                                                           \
        X(EVENT_TIME_OLD, 52, REJECTED, "event_time_old", 422, 0,                                  \
          "event_time is older than accepted")                                                     \
        X(MONEY_NOT_ALLOWED, 53, REJECTED, "money_not_allowed", 403, 0,                            \
          "a public key may not state money")                                                      \
        X(UNSUPPORTED_MEDIA, 54, REJECTED, "unsupported_media_type", 415, 0,                       \
          "content type or encoding")                                                              \
        X(UNAUTHORIZED, 55, REJECTED, "unauthorized", 401, 0, "no valid key")                      \
        X(FORBIDDEN, 56, REJECTED, "forbidden", 403, 0, "this key may not do this")                \
        X(OVER_QUOTA, 57, REJECTED, "over_quota", 429, 1, "too many events for this key")          \
        X(UNAVAILABLE, 58, REJECTED, "unavailable", 503, 1,                                        \
          "not stored, or not known; send it again")                                               \
        X(DISK_FULL, 59, REJECTED, "disk_full", 503, 1, "the log's disk is full")                  \
        X(CLOCK_JUMP, 60, REJECTED, "clock_jump", 503, 1, "the machine's clock jumped")            \
        X(TOO_MANY_ATTRIBUTES, 61, REJECTED, "too_many_attributes", 422, 0,                        \
          "more attributes than allowed")                                                          \
        X(BODY_TOO_LARGE, 62, REJECTED, "body_too_large", 413, 0, "the body exceeds its limit")    \
        X(OVERLOADED, 63, REJECTED, "overloaded", 503, 1, "too many bytes in flight")              \
        X(PROBABLY_LATE, 96, WARNING, "probably_late", 0, 0, "its window is probably settled")     \
        X(TIME_MISSING, 97, WARNING, "time_missing", 0, 0, "no event_time: receive time is used")

enum ad_reason {
        AD_NONE = 0,
#define X(name, value, cls, code, status, retry, text) AD_##name = (value),
        AD_REASON_MAP(X)
#undef X
};
#define AD_OUTCOME_MAX 32 /* reasons below are outcomes of events in the log */

struct ad_reason_info {
        const char *code;
        const char *text;
        enum ad_outcome_class cls;
        int http_status;
        int retryable;
};
/* Never NULL; an unknown value has code "unknown". */
const struct ad_reason_info *ad_reason_info(unsigned reason);
/* The reason with this code, or AD_NONE. */
enum ad_reason ad_reason_by_code(const char *code);

#endif
