/* wire_test.h - for test_wire.c and test_wire_log.c: random values, exact buffers, and what both
 * compare with: the code that protoc makes of proto/event.proto and proto/log.proto. */
#ifndef ADTALLY_TESTS_WIRE_TEST_H
#define ADTALLY_TESTS_WIRE_TEST_H

#include <stdio.h>
#include <stdlib.h>

#include "proto/event.pb-c.h"
#include "proto/log.pb-c.h"
#include "proto/wire.h"

#define ok(call)                                                                                   \
        do {                                                                                       \
                struct df_error err_ = {0};                                                        \
                struct df_error *err = &err_;                                                      \
                if ((call) != 0)                                                                   \
                        fail_msg("%s: %d %s", #call, err->code, err->text);                        \
        } while (0)

struct random { /* splitmix64 */
        uint64_t x;
};
static inline uint64_t next(struct random *r)
{
        uint64_t z = r->x += 0x9e3779b97f4a7c15u;

        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
}
static inline uint64_t below(struct random *r, uint64_t n)
{
        return next(r) % n;
}
/* Zero, small, of any length, or the largest. */
static inline uint64_t number(struct random *r)
{
        switch (below(r, 4)) {
        case 0:
                return 0;
        case 1:
                return below(r, 300);
        case 2:
                return next(r) >> below(r, 64);
        default:
                return UINT64_MAX - below(r, 2);
        }
}
static inline int64_t signed_number(struct random *r)
{
        return below(r, 2) ? (int64_t)number(r) : (int64_t)(0 - number(r));
}
static inline __int128 huge_number(struct random *r)
{
        unsigned __int128 v = (unsigned __int128)next(r) << 64 | next(r);
        uint64_t shift = below(r, 127);

        return below(r, 5) == 0 ? 0 : (__int128)v >> shift;
}
/* A string of up to max bytes without NUL, in memory that the caller keeps. */
static inline struct df_bytes text(struct random *r, char *into, size_t max)
{
        size_t len = below(r, 3) == 0 ? 0 : below(r, 6) == 0 ? max : below(r, max + 1);

        for (size_t i = 0; i < len; i++)
                into[i] = (char)('!' + below(r, 90));
        into[len] = '\0';
        return df_bytes(into, len);
}

/* The bytes alone in an allocation: reading one beyond them is seen by AddressSanitizer. */
static inline struct df_bytes exact(const void *data, size_t len)
{
        uint8_t *p = malloc(len ? len : 1);

        assert_non_null(p);
        if (len)
                memcpy(p, data, len);
        return df_bytes(p, len);
}
static inline void exact_free(struct df_bytes b)
{
        free((void *)(uintptr_t)b.data);
}

/* Our bytes are what the generated code makes of the same message. */
static inline void same_bytes(struct df_bytes ours, const ProtobufCMessage *m, uint64_t seed)
{
        size_t len = protobuf_c_message_get_packed_size(m);
        uint8_t *theirs = malloc(len ? len : 1);

        assert_non_null(theirs);
        assert_int_equal(protobuf_c_message_pack(m, theirs), len);
        if (!df_bytes_eq(ours, df_bytes(theirs, len)))
                fail_msg("seed %llu: %s: other bytes than the generated code's",
                         (unsigned long long)seed, m->descriptor->name);
        free(theirs);
}

static inline void same_text(const char *theirs, struct df_bytes ours)
{
        assert_int_equal(strlen(theirs), ours.len);
        if (ours.len)
                assert_memory_equal(theirs, ours.data, ours.len);
}

static inline void same_int128(ProtobufCBinaryData theirs, __int128 ours)
{
        unsigned __int128 v =
                theirs.len && theirs.data[theirs.len - 1] & 0x80 ? ~(unsigned __int128)0 : 0;

        for (size_t i = theirs.len; i-- > 0;)
                v = v << 8 | theirs.data[i];
        assert_true((__int128)v == ours);
}

/* ---- for every decoder: what it makes of damaged bytes ---- */
typedef int (*decoder)(struct df_bytes bytes, struct df_error *err);

/* Cut short at every byte: accepted exactly where the generated code accepts. */
static inline void check_truncation(struct df_bytes whole, decoder decode,
                                    const ProtobufCMessageDescriptor *d, uint64_t seed)
{
        for (size_t len = 0; len <= whole.len; len++) {
                struct df_bytes part = exact(whole.data, len);
                ProtobufCMessage *m = protobuf_c_message_unpack(d, NULL, len, part.data);
                struct df_error err = {0};
                int rc = decode(part, &err);

                if ((rc == 0) != (m != NULL) || (rc != 0 && rc != DF_EPARSE))
                        fail_msg("seed %llu: %s cut to %zu of %zu bytes: %d, generated code %s",
                                 (unsigned long long)seed, d->name, len, whole.len, rc,
                                 m ? "accepts" : "refuses");
                if (m)
                        protobuf_c_message_free_unpacked(m, NULL);
                exact_free(part);
        }
}

/* Random bytes changed: accepted or refused, never more than that. */
static inline void check_damage(struct random *r, struct df_bytes whole, decoder decode)
{
        for (int i = 0; i < 60 && whole.len > 0; i++) {
                struct df_bytes b = exact(whole.data, whole.len);
                uint8_t *p = (uint8_t *)(uintptr_t)b.data;
                struct df_error err = {0};
                int rc;

                for (uint64_t n = below(r, 3) + 1; n > 0; n--)
                        p[below(r, b.len)] = (uint8_t)(below(r, 2) ? next(r) : 0xff);
                rc = decode(b, &err);
                assert_true(rc == 0 || rc == DF_EPARSE || rc == DF_ELIMIT);
                exact_free(b);
        }
}

/* Fields this version does not know are skipped, wherever they stand; groups are refused. */
static inline void check_unknown_fields(struct df_bytes whole, decoder decode)
{
        static const struct {
                const char *bytes;
                size_t len;
                int rc;
        } fields[] = {
                {"\xc0\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, 0}, /* 1000: varint */
                {"\xc1\x3e"
                 "12345678",
                 10, 0},
                {"\xc2\x3e\x03xyz", 6, 0},
                {"\xc5\x3e"
                 "1234",
                 6, 0},
                {"\xc3\x3e\xc4\x3e", 4, DF_EPARSE}, /* a group */
                {"\xc6\x3e", 2, DF_EPARSE},         /* wire type 6 */
                {"\xc0\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 12, DF_EPARSE}, /* 65 bits */
                {"\xc0\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 13, DF_EPARSE},
                {"\xc2\x3e\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12, DF_EPARSE}, /* length */
                {"\x00\x01", 2, DF_EPARSE},                                          /* field 0 */
        };

        for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
                for (int front = 0; front < 2; front++) {
                        struct df_buf b = {0};
                        struct df_error err = {0};
                        struct df_bytes e;

                        if (front)
                                df_buf_append(&b, fields[i].bytes, fields[i].len);
                        df_buf_append(&b, whole.data, whole.len);
                        if (!front)
                                df_buf_append(&b, fields[i].bytes, fields[i].len);
                        e = exact(b.data, b.len);
                        if (decode(e, &err) != fields[i].rc)
                                fail_msg("unknown field %zu %s: %d %s", i,
                                         front ? "in front" : "at the end", err.code, err.text);
                        exact_free(e);
                        df_buf_release(&b);
                }
        }
}

/* ---- events ---- */
struct event_text {
        char id[AD_EVENT_ID_MAX + 1], tenant[AD_ID_MAX + 1], dims[AD_DIM_COUNT][AD_ID_MAX + 1];
        char user[AD_SEALED_ID_MAX + 1], click[AD_ID_MAX + 1], source[AD_ID_MAX + 1];
        char currency[4], value_currency[4];
        struct df_buf attributes;
};

static inline int64_t money(struct random *r)
{
        int64_t most = AD_MONEY_MICROS_MAX * 1000;

        switch (below(r, 4)) {
        case 0:
                return most;
        case 1:
                return -most;
        case 2:
                return (int64_t)below(r, 2000000000) - 1000000000;
        default:
                return (int64_t)(next(r) % (uint64_t)most);
        }
}

static inline void put_attribute(struct df_buf *b, const char *key, size_t key_len,
                                 const char *value, size_t value_len)
{
        size_t m;

        df_put_varint(b, 18 << 3 | 2);
        df_put_u8(b, 0);
        m = b->len;
        df_pb_bytes(b, 1, df_bytes(key, key_len));
        df_pb_bytes(b, 2, df_bytes(value, value_len));
        if (b->len - m >= 128) { /* make room for a second byte of length */
                size_t len = b->len - m;

                df_put_u8(b, 0);
                memmove(b->data + m + 1, b->data + m, len);
                b->data[m - 1] = (uint8_t)(len | 0x80);
                b->data[m] = (uint8_t)(len >> 7);
        } else {
                b->data[m - 1] = (uint8_t)(b->len - m);
        }
}

static inline void random_event(struct random *r, struct ad_event *ev, struct event_text *t)
{
        char key[AD_ATTRIBUTE_KEY_MAX + 1], value[AD_ATTRIBUTE_VALUE_MAX + 1];

        *ev = (struct ad_event){
                .event_id = text(r, t->id, AD_EVENT_ID_MAX),
                .tenant_id = text(r, t->tenant, AD_ID_MAX),
                .user_id = text(r, t->user, AD_SEALED_ID_MAX),
                .click_id = text(r, t->click, AD_ID_MAX),
                .source = text(r, t->source, AD_ID_MAX),
                .currency = text(r, t->currency, 3),
                .value_currency = text(r, t->value_currency, 3),
                .event_ms = signed_number(r),
                .receive_ms = signed_number(r),
                .fingerprint = number(r),
                .type = (uint32_t)below(r, 4),
                .labels = (uint32_t)number(r),
                .schema_version = (uint32_t)number(r),
                .flags = (uint32_t)below(r, 64), /* every flag that is encoded, but for the next */
        };
        if (ev->user_id.len > AD_ID_MAX || (ev->user_id.len && below(r, 2)))
                ev->flags |= AD_EV_USER_SEALED;
        for (int i = 0; i < AD_DIM_COUNT; i++)
                ev->dims[i] = text(r, t->dims[i], AD_ID_MAX);
        if (ev->flags & AD_EV_HAS_COST)
                ev->cost_nanos = money(r);
        if (ev->flags & AD_EV_HAS_PAYOUT)
                ev->payout_nanos = money(r);
        if (ev->flags & AD_EV_HAS_VALUE)
                ev->value_nanos = below(r, 3) ? money(r) : 0;
        df_buf_clear(&t->attributes);
        for (uint64_t n = below(r, 3) ? 0 : below(r, AD_ATTRIBUTES_MAX + 1); n > 0; n--) {
                struct df_bytes k = text(r, key, AD_ATTRIBUTE_KEY_MAX);
                struct df_bytes v = text(r, value, AD_ATTRIBUTE_VALUE_MAX);

                put_attribute(&t->attributes, key, k.len, value, v.len);
        }
        ev->attributes = df_buf_bytes(&t->attributes);
}

static inline void same_event(const struct ad_event *a, const struct ad_event *b)
{
        assert_true(df_bytes_eq(a->event_id, b->event_id));
        assert_true(df_bytes_eq(a->tenant_id, b->tenant_id));
        for (int i = 0; i < AD_DIM_COUNT; i++)
                assert_true(df_bytes_eq(a->dims[i], b->dims[i]));
        assert_true(df_bytes_eq(a->user_id, b->user_id));
        assert_true(df_bytes_eq(a->click_id, b->click_id));
        assert_true(df_bytes_eq(a->currency, b->currency));
        assert_true(df_bytes_eq(a->value_currency, b->value_currency));
        assert_true(df_bytes_eq(a->source, b->source));
        assert_true(df_bytes_eq(a->attributes, b->attributes));
        assert_int_equal(a->event_ms, b->event_ms);
        assert_int_equal(a->receive_ms, b->receive_ms);
        assert_int_equal(a->cost_nanos, b->cost_nanos);
        assert_int_equal(a->payout_nanos, b->payout_nanos);
        assert_int_equal(a->value_nanos, b->value_nanos);
        assert_int_equal(a->fingerprint, b->fingerprint);
        assert_int_equal(a->type, b->type);
        assert_int_equal(a->flags, b->flags);
        assert_int_equal(a->labels, b->labels);
        assert_int_equal(a->schema_version, b->schema_version);
}

#endif
