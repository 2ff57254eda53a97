/* wire_event.c - events and the records of `events`. The decoder is the hottest code of the
 * product: one pass, no allocation but the array of events, varints and lengths read in line. A
 * cursor that becomes NULL stands for damage. Of a field that stands twice the last one counts. */
#include "proto/wire_private.h"

#define VARINT_MAX 10 /* bytes */

/* ---- encode ---- */

static inline uint8_t *put_varint(uint8_t *p, uint64_t v)
{
        for (; v >= 0x80; v >>= 7)
                *p++ = (uint8_t)(v | 0x80);
        *p++ = (uint8_t)v;
        return p;
}

static inline uint8_t *put_uint(uint8_t *p, uint32_t field, uint64_t v)
{
        if (v == 0)
                return p;
        return put_varint(put_varint(p, DFI_TAG(field, DFI_VARINT)), v);
}

static inline uint8_t *put_str(uint8_t *p, uint32_t field, struct df_bytes s)
{
        if (s.len == 0)
                return p;
        p = put_varint(put_varint(p, DFI_TAG(field, DFI_BYTES)), s.len);
        memcpy(p, s.data, s.len);
        return p + s.len;
}

static uint8_t *put_money(uint8_t *p, uint32_t field, int64_t nanos)
{
        int64_t units = nanos / DF_NANOS_PER_UNIT, rest = nanos % DF_NANOS_PER_UNIT;
        uint8_t *len = p + 1;

        *p = (uint8_t)DFI_TAG(field, DFI_BYTES);
        p = put_uint(p + 2, 1, (uint64_t)units);
        p = put_uint(p, 2, ((uint64_t)rest << 1) ^ (uint64_t)(rest >> 63));
        *len = (uint8_t)(p - len - 1);
        return p;
}

static size_t encoded_max(const struct ad_event *ev)
{
        size_t n = 30 * (2 + VARINT_MAX) + 3 * 32; /* tags, lengths and numbers; amounts */

        n += ev->event_id.len + ev->tenant_id.len + ev->user_id.len + ev->click_id.len;
        n += ev->currency.len + ev->value_currency.len + ev->source.len + ev->attributes.len;
        for (int i = 0; i < AD_DIM_COUNT; i++)
                n += ev->dims[i].len;
        return n;
}

static uint8_t *put_stamped(uint8_t *p, const struct ad_event *ev)
{
        p = put_str(p, 20, ev->tenant_id);
        p = put_uint(p, 21, (uint64_t)ev->receive_ms);
        p = put_str(p, 22, ev->source);
        p = put_uint(p, 23, (ev->flags & AD_EV_KEY_DERIVED) != 0);
        p = put_uint(p, 24, ev->labels);
        if (ev->fingerprint) {
                p = put_varint(p, DFI_TAG(25, DFI_FIXED64));
                for (int i = 0; i < 8; i++)
                        *p++ = (uint8_t)(ev->fingerprint >> (8 * i));
        }
        p = put_uint(p, 26, ev->schema_version);
        p = put_uint(p, 27, (ev->flags & AD_EV_TIME_MISSING) != 0);
        p = put_uint(p, 28, (ev->flags & AD_EV_CURRENCY_DEFAULTED) != 0);
        return ev->flags & AD_EV_USER_SEALED ? put_str(p, 29, ev->user_id) : p;
}

void ad_wire_event(struct df_buf *b, const struct ad_event *ev)
{
        uint8_t *p;

        if (!df_buf_reserve(b, encoded_max(ev)))
                return;
        p = put_str(b->data + b->len, 1, ev->event_id);
        p = put_uint(p, 2, ev->type);
        p = put_uint(p, 3, (uint64_t)ev->event_ms);
        p = put_str(p, 4, ev->dims[AD_DIM_ADVERTISER]);
        p = put_str(p, 5, ev->dims[AD_DIM_CAMPAIGN]);
        p = put_str(p, 6, ev->dims[AD_DIM_AD]);
        p = put_str(p, 7, ev->dims[AD_DIM_PUBLISHER]);
        p = put_str(p, 8, ev->dims[AD_DIM_PLACEMENT]);
        if (!(ev->flags & AD_EV_USER_SEALED))
                p = put_str(p, 9, ev->user_id);
        p = put_str(p, 10, ev->dims[AD_DIM_COUNTRY]);
        p = put_str(p, 11, ev->dims[AD_DIM_DEVICE]);
        p = put_str(p, 12, ev->click_id);
        if (ev->flags & AD_EV_HAS_COST)
                p = put_money(p, 13, ev->cost_nanos);
        if (ev->flags & AD_EV_HAS_PAYOUT)
                p = put_money(p, 14, ev->payout_nanos);
        if (ev->flags & AD_EV_HAS_VALUE)
                p = put_money(p, 15, ev->value_nanos);
        p = put_str(p, 16, ev->currency);
        p = put_str(p, 17, ev->value_currency);
        if (ev->attributes.len)
                memcpy(p, ev->attributes.data, ev->attributes.len);
        p = put_stamped(p + ev->attributes.len, ev);
        b->len = (size_t)(p - b->data);
        df_check(b->len <= b->cap);
}

/* Units and nanos with equal signs, at most AD_MONEY_MICROS_MAX. */
static const uint8_t *get_money(const uint8_t *p, const uint8_t *end, uint32_t flag, int64_t *ret,
                                uint32_t *flags)
{
        const int64_t units_max = AD_MONEY_MICROS_MAX / 1000000;
        int64_t units = 0, nanos = 0;
        struct df_bytes b;
        uint64_t tag = 0, v = 0;

        p = dfi_get_str(p, end, 64, &b);
        if (!p)
                return NULL;
        for (const uint8_t *q = b.data; q < p;) {
                q = dfi_get_varint(q, p, &tag);
                if (q && tag == DFI_TAG(1, DFI_VARINT))
                        q = dfi_get_i64(q, p, &units);
                else if (q && tag == DFI_TAG(2, DFI_VARINT) && (q = dfi_get_varint(q, p, &v)))
                        nanos = df_pb_zigzag(v);
                else if (q)
                        q = dfi_skip(q, p, tag);
                if (!q)
                        return NULL;
        }
        if (units > units_max || units < -units_max || nanos >= DF_NANOS_PER_UNIT ||
            nanos <= -DF_NANOS_PER_UNIT || (units > 0 && nanos < 0) || (units < 0 && nanos > 0) ||
            ((units == units_max || units == -units_max) && nanos != 0))
                return NULL;
        *ret = units * DF_NANOS_PER_UNIT + nanos;
        *flags |= flag;
        return p;
}

/* ---- decode: events ---- */

/* Attributes stay encoded: here they are only measured against their limits. */
static const uint8_t *get_attribute(const uint8_t *p, const uint8_t *end, const uint8_t *start,
                                    struct ad_event *ev, uint32_t *count)
{
        struct df_bytes entry, s;
        uint64_t tag;

        p = dfi_get_str(p, end, AD_EVENT_BYTES_MAX, &entry);
        if (!p || ++*count > AD_ATTRIBUTES_MAX)
                return NULL;
        for (const uint8_t *q = entry.data; q < p;) {
                q = dfi_get_varint(q, p, &tag);
                if (q && tag == DFI_TAG(1, DFI_BYTES))
                        q = dfi_get_str(q, p, AD_ATTRIBUTE_KEY_MAX, &s);
                else if (q && tag == DFI_TAG(2, DFI_BYTES))
                        q = dfi_get_str(q, p, AD_ATTRIBUTE_VALUE_MAX, &s);
                else if (q)
                        q = dfi_skip(q, p, tag);
                if (!q)
                        return NULL;
        }
        if (ev->attributes.len == 0)
                ev->attributes.data = start;
        if (ev->attributes.data + ev->attributes.len != start)
                return NULL; /* entries stand side by side, or they could not be borrowed */
        ev->attributes.len = (size_t)(p - ev->attributes.data);
        return p;
}

/* What to do with a field, by its tag. Most are strings, which need nothing but their limit. */
enum kind { UNKNOWN, STRING, INT64, UINT32, FLAG, FINGERPRINT, MONEY, USER, SEALED, ATTRIBUTE };
struct field {
        uint8_t kind;
        uint8_t arg;     /* the limit of a string, the flag that a field sets */
        uint16_t offset; /* in struct ad_event */
};
#define AT(member) offsetof(struct ad_event, member)
static const struct field fields[DFI_TAG(30, 0)] = {
        [DFI_TAG(1, DFI_BYTES)] = {STRING, AD_EVENT_ID_MAX, AT(event_id)},
        [DFI_TAG(2, DFI_VARINT)] = {UINT32, 0, AT(type)},
        [DFI_TAG(3, DFI_VARINT)] = {INT64, 0, AT(event_ms)},
        [DFI_TAG(4, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(dims[AD_DIM_ADVERTISER])},
        [DFI_TAG(5, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(dims[AD_DIM_CAMPAIGN])},
        [DFI_TAG(6, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(dims[AD_DIM_AD])},
        [DFI_TAG(7, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(dims[AD_DIM_PUBLISHER])},
        [DFI_TAG(8, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(dims[AD_DIM_PLACEMENT])},
        [DFI_TAG(9, DFI_BYTES)] = {USER, 0, 0},
        [DFI_TAG(10, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(dims[AD_DIM_COUNTRY])},
        [DFI_TAG(11, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(dims[AD_DIM_DEVICE])},
        [DFI_TAG(12, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(click_id)},
        [DFI_TAG(13, DFI_BYTES)] = {MONEY, AD_EV_HAS_COST, AT(cost_nanos)},
        [DFI_TAG(14, DFI_BYTES)] = {MONEY, AD_EV_HAS_PAYOUT, AT(payout_nanos)},
        [DFI_TAG(15, DFI_BYTES)] = {MONEY, AD_EV_HAS_VALUE, AT(value_nanos)},
        [DFI_TAG(16, DFI_BYTES)] = {STRING, 3, AT(currency)},
        [DFI_TAG(17, DFI_BYTES)] = {STRING, 3, AT(value_currency)},
        [DFI_TAG(18, DFI_BYTES)] = {ATTRIBUTE, 0, 0},
        /* What ingest stamped. */
        [DFI_TAG(20, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(tenant_id)},
        [DFI_TAG(21, DFI_VARINT)] = {INT64, 0, AT(receive_ms)},
        [DFI_TAG(22, DFI_BYTES)] = {STRING, AD_ID_MAX, AT(source)},
        [DFI_TAG(23, DFI_VARINT)] = {FLAG, AD_EV_KEY_DERIVED, 0},
        [DFI_TAG(24, DFI_VARINT)] = {UINT32, 0, AT(labels)},
        [DFI_TAG(25, DFI_FIXED64)] = {FINGERPRINT, 0, 0},
        [DFI_TAG(26, DFI_VARINT)] = {UINT32, 0, AT(schema_version)},
        [DFI_TAG(27, DFI_VARINT)] = {FLAG, AD_EV_TIME_MISSING, 0},
        [DFI_TAG(28, DFI_VARINT)] = {FLAG, AD_EV_CURRENCY_DEFAULTED, 0},
        [DFI_TAG(29, DFI_BYTES)] = {SEALED, 0, 0},
};

static const uint8_t *get_fingerprint(const uint8_t *p, const uint8_t *end, uint64_t *ret)
{
        uint64_t v = 0;

        if (end - p < 8)
                return NULL;
        for (int i = 0; i < 8; i++)
                v |= (uint64_t)p[i] << (8 * i);
        *ret = v;
        return p + 8;
}

/* A field that is no plain string; `tag` was read, and f is what it means. */
static inline const uint8_t *get_other(const uint8_t *p, const uint8_t *end, uint64_t tag,
                                       const struct field *f, struct ad_event *ev)
{
        void *at = (char *)ev + f->offset;

        switch (f->kind) {
        case INT64:
                return dfi_get_i64(p, end, at);
        case UINT32:
                return dfi_get_u32(p, end, at);
        case FLAG:
                return dfi_get_flag(p, end, f->arg, &ev->flags);
        case FINGERPRINT:
                return get_fingerprint(p, end, &ev->fingerprint);
        case MONEY:
                return get_money(p, end, f->arg, at, &ev->flags);
        case USER: /* the last of the two counts */
                ev->flags &= ~(uint32_t)AD_EV_USER_SEALED;
                return dfi_get_str(p, end, AD_ID_MAX, &ev->user_id);
        case SEALED:
                ev->flags |= AD_EV_USER_SEALED;
                return dfi_get_str(p, end, AD_SEALED_ID_MAX, &ev->user_id);
        default:
                return dfi_skip(p, end, tag);
        }
}

/* ---- canonical bytes, in a straight line ----
 *
 * Ours and most clients' encoders write fields in ascending order, each once. These are taken here
 * one after the other, with what is known about each; whatever is not as expected stays where it is
 * and is left, with all behind it, to the table. Each function returns p when its field is not
 * there, or not in so short a form. */

/* Encoded tag and length: a byte each for the tag (two from field 16 on) and for the length. */
static inline const uint8_t *take_str(const uint8_t *p, const uint8_t *end, uint32_t field,
                                      size_t max, struct df_bytes *ret)
{
        const uint32_t tag = DFI_TAG(field, DFI_BYTES), wide = tag >= 0x80;
        const size_t most = max < 0x80 ? max : 0x7f;
        size_t left = (size_t)(end - p), len;

        if (left < 2 + wide || p[0] != (wide ? (tag & 0x7f) | 0x80 : tag) ||
            (wide && p[1] != tag >> 7))
                return p;
        len = p[1 + wide];
        if (len > most || len > left - 2 - wide)
                return p;
        *ret = df_bytes(p + 2 + wide, len);
        return p + 2 + wide + len;
}

/* A time of these decades has six bytes; others take the general way. */
static inline const uint8_t *take_time(const uint8_t *p, const uint8_t *end, uint32_t field,
                                       int64_t *ret)
{
        const uint32_t tag = DFI_TAG(field, DFI_VARINT), wide = tag >= 0x80;
        uint64_t v;

        if ((size_t)(end - p) < 9 + wide || p[0] != (wide ? (tag & 0x7f) | 0x80 : tag) ||
            (wide && p[1] != tag >> 7))
                return p;
        v = df_load64(p + 1 + wide);
        if ((v & 0x808080808080) != 0x008080808080)
                return p;
        *ret = (int64_t)((v & 0x7f) | (v >> 1 & 0x7f << 7) | (v >> 2 & 0x7f << 14) |
                         (v >> 3 & 0x7f << 21) | (v >> 4 & 0x7fULL << 28) |
                         (v >> 5 & 0x7fULL << 35));
        return p + 7 + wide;
}

/* A number below 128. */
static inline const uint8_t *take_small(const uint8_t *p, const uint8_t *end, uint32_t field,
                                        uint32_t *ret)
{
        const uint32_t tag = DFI_TAG(field, DFI_VARINT), wide = tag >= 0x80;

        if ((size_t)(end - p) < 2 + wide || p[0] != (wide ? (tag & 0x7f) | 0x80 : tag) ||
            (wide && p[1] != tag >> 7) || p[1 + wide] >= 0x80)
                return p;
        *ret = p[1 + wide];
        return p + 2 + wide;
}

/* A number of up to eight bytes, all of which lie before end; *ret_bytes 0: it is longer. */
static inline uint64_t varint_of(uint64_t v, unsigned *ret_bytes)
{
        uint64_t last = ~v & 0x8080808080808080; /* the lowest of these bits ends it */

        *ret_bytes = last ? ((unsigned)__builtin_ctzll(last) >> 3) + 1 : 0;
        v &= (last ^ (last - 1)) & 0x7f7f7f7f7f7f7f7f;
        v = (v & 0x007f007f007f007f) | (v & 0x7f007f007f007f00) >> 1;
        v = (v & 0x00003fff00003fff) | (v & 0x3fff00003fff0000) >> 2;
        return (v & 0x000000000fffffff) | (v & 0x0fffffff00000000) >> 4;
}

/* An amount below one unit, which has nanos alone; others take the general way. */
static inline const uint8_t *take_money(const uint8_t *p, const uint8_t *end, uint32_t field,
                                        uint32_t flag, int64_t *ret, uint32_t *flags)
{
        unsigned bytes;
        int64_t nanos;
        const uint8_t *q;

        if ((size_t)(end - p) < 11 || p[0] != DFI_TAG(field, DFI_BYTES))
                return p;
        if (p[2] == DFI_TAG(2, DFI_VARINT)) {
                nanos = df_pb_zigzag(varint_of(df_load64(p + 3), &bytes));
                if (bytes > 0 && bytes + 1 == p[1] && nanos < DF_NANOS_PER_UNIT &&
                    nanos > -DF_NANOS_PER_UNIT) {
                        *ret = nanos;
                        *flags |= flag;
                        return p + 2 + p[1];
                }
        }
        q = get_money(p + 1, end, flag, ret, flags);
        return q ? q : p;
}

static inline const uint8_t *take_flag(const uint8_t *p, const uint8_t *end, uint32_t field,
                                       uint32_t flag, uint32_t *flags)
{
        uint32_t v = 0;

        p = take_small(p, end, field, &v);
        *flags |= v ? flag : 0;
        return p;
}

static inline const uint8_t *take_fingerprint(const uint8_t *p, const uint8_t *end, uint64_t *ret)
{
        const uint32_t tag = DFI_TAG(25, DFI_FIXED64);

        if (end - p < 10 || p[0] != ((tag & 0x7f) | 0x80) || p[1] != tag >> 7)
                return p;
        *ret = df_load64(p + 2);
        return p + 10;
}

/* How far it came. ev is zeroed. */
static const uint8_t *take_canonical(const uint8_t *p, const uint8_t *end, struct ad_event *ev)
{
        const uint8_t *at;

        p = take_str(p, end, 1, AD_EVENT_ID_MAX, &ev->event_id);
        p = take_small(p, end, 2, &ev->type);
        p = take_time(p, end, 3, &ev->event_ms);
        p = take_str(p, end, 4, AD_ID_MAX, &ev->dims[AD_DIM_ADVERTISER]);
        p = take_str(p, end, 5, AD_ID_MAX, &ev->dims[AD_DIM_CAMPAIGN]);
        p = take_str(p, end, 6, AD_ID_MAX, &ev->dims[AD_DIM_AD]);
        p = take_str(p, end, 7, AD_ID_MAX, &ev->dims[AD_DIM_PUBLISHER]);
        p = take_str(p, end, 8, AD_ID_MAX, &ev->dims[AD_DIM_PLACEMENT]);
        p = take_str(p, end, 9, AD_ID_MAX, &ev->user_id);
        p = take_str(p, end, 10, AD_ID_MAX, &ev->dims[AD_DIM_COUNTRY]);
        p = take_str(p, end, 11, AD_ID_MAX, &ev->dims[AD_DIM_DEVICE]);
        p = take_str(p, end, 12, AD_ID_MAX, &ev->click_id);
        p = take_money(p, end, 13, AD_EV_HAS_COST, &ev->cost_nanos, &ev->flags);
        p = take_money(p, end, 14, AD_EV_HAS_PAYOUT, &ev->payout_nanos, &ev->flags);
        p = take_money(p, end, 15, AD_EV_HAS_VALUE, &ev->value_nanos, &ev->flags);
        p = take_str(p, end, 16, 3, &ev->currency);
        p = take_str(p, end, 17, 3, &ev->value_currency);
        p = take_str(p, end, 20, AD_ID_MAX, &ev->tenant_id);
        p = take_time(p, end, 21, &ev->receive_ms);
        p = take_str(p, end, 22, AD_ID_MAX, &ev->source);
        p = take_flag(p, end, 23, AD_EV_KEY_DERIVED, &ev->flags);
        p = take_small(p, end, 24, &ev->labels);
        p = take_fingerprint(p, end, &ev->fingerprint);
        p = take_small(p, end, 26, &ev->schema_version);
        p = take_flag(p, end, 27, AD_EV_TIME_MISSING, &ev->flags);
        p = take_flag(p, end, 28, AD_EV_CURRENCY_DEFAULTED, &ev->flags);
        at = take_str(p, end, 29, AD_SEALED_ID_MAX, &ev->user_id);
        ev->flags |= at != p ? AD_EV_USER_SEALED : 0;
        return at;
}

/* Any fields in any order, from p on. */
static bool scan_fields(const uint8_t *p, const uint8_t *end, struct ad_event *ev)
{
        uint32_t attributes = 0;

        while (p < end) {
                const uint8_t *start = p;
                const struct field *f = &fields[0]; /* unknown */
                uint64_t tag;

                p = dfi_get_varint(p, end, &tag);
                if (!p)
                        return false;
                if (tag < sizeof(fields) / sizeof(fields[0]))
                        f = &fields[tag];
                if (f->kind == STRING)
                        p = dfi_get_str(p, end, f->arg, (void *)((char *)ev + f->offset));
                else if (f->kind == ATTRIBUTE)
                        p = get_attribute(p, end, start, ev, &attributes);
                else
                        p = get_other(p, end, tag, f, ev);
                if (!p)
                        return false;
        }
        return true;
}

/* The whole event in one pass; false when damaged. */
bool dfi_scan_event(struct df_bytes bytes, struct ad_event *ev)
{
        const uint8_t *p = bytes.data, *end = bytes.len ? p + bytes.len : p;

        memset(ev, 0, sizeof(*ev));
        ev->raw = bytes;
        if (bytes.len > AD_EVENT_BYTES_MAX)
                return false;
        if (bytes.len > 0)
                p = take_canonical(p, end, ev);
        return p == end || scan_fields(p, end, ev);
}

int ad_wire_event_decode(struct df_bytes bytes, struct ad_event *ret, struct df_error *err)
{
        if (dfi_scan_event(bytes, ret))
                return 0;
        return df_fail(err, DF_EPARSE, "event of %zu bytes is damaged or beyond a limit",
                       bytes.len);
}
