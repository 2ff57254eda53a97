/* identity.c - which event this is (D1), where it goes (E3), and what its client stated. */
#include "proto/bill.h"

struct df_hash128 ad_event_key(struct df_bytes tenant_id, struct df_bytes event_id)
{
        uint8_t b[1 + AD_ID_MAX + AD_EVENT_ID_MAX];

        df_check(tenant_id.len <= AD_ID_MAX);
        df_check(event_id.len <= AD_EVENT_ID_MAX);
        b[0] = (uint8_t)tenant_id.len; /* a varint of one byte */
        if (tenant_id.len)
                memcpy(b + 1, tenant_id.data, tenant_id.len);
        if (event_id.len)
                memcpy(b + 1 + tenant_id.len, event_id.data, event_id.len);
        return df_hash128(df_bytes(b, 1 + tenant_id.len + event_id.len));
}

uint32_t ad_event_partition(struct df_hash128 key, uint32_t partitions)
{
        df_check(partitions > 0);
        return (uint32_t)(key.lo % partitions);
}

static size_t put_str(uint8_t *to, struct df_bytes s)
{
        df_check(s.len <= AD_EVENT_ID_MAX);
        to[0] = (uint8_t)s.len;
        if (s.len)
                memcpy(to + 1, s.data, s.len);
        return 1 + s.len;
}

static size_t put_64(uint8_t *to, uint64_t v)
{
        for (int i = 0; i < 8; i++)
                to[i] = (uint8_t)(v >> (8 * i));
        return 8;
}

/* Length-prefixed, fields in a fixed order, absent ones as empty: no two statements share bytes. */
#define STATED_MAX (2 + 4 * 8 + (AD_DIM_COUNT + 5) * (1 + AD_EVENT_ID_MAX))

static size_t put_ids(uint8_t *to, const struct ad_event *ev, struct df_bytes user_id)
{
        size_t n = put_str(to, ev->event_id);

        for (int i = 0; i < AD_DIM_COUNT; i++)
                n += put_str(to + n, ev->dims[i]);
        n += put_str(to + n, user_id);
        return n + put_str(to + n, ev->click_id);
}

static size_t put_money(uint8_t *to, const struct ad_event *ev)
{
        const struct df_bytes none = {0};
        size_t n = 0;

        n += put_64(to + n, ev->flags & AD_EV_HAS_COST ? (uint64_t)ev->cost_nanos : 0);
        n += put_64(to + n, ev->flags & AD_EV_HAS_PAYOUT ? (uint64_t)ev->payout_nanos : 0);
        n += put_64(to + n, ev->flags & AD_EV_HAS_VALUE ? (uint64_t)ev->value_nanos : 0);
        n += put_str(to + n, ev->flags & AD_EV_CURRENCY_DEFAULTED ? none : ev->currency);
        return n + put_str(to + n, ev->value_currency);
}

static const uint32_t money_stated = AD_EV_HAS_COST | AD_EV_HAS_PAYOUT | AD_EV_HAS_VALUE;

uint64_t ad_event_fingerprint(const struct ad_event *ev)
{
        uint8_t b[STATED_MAX];
        size_t n = 0;

        df_check(!(ev->flags & AD_EV_USER_SEALED)); /* before: repeats outlive the key */
        b[n++] = (uint8_t)ev->type;
        b[n++] = (uint8_t)(ev->flags & (money_stated | AD_EV_TIME_MISSING));
        n += put_64(b + n, ev->flags & AD_EV_TIME_MISSING ? 0 : (uint64_t)ev->event_ms);
        n += put_ids(b + n, ev, ev->user_id);
        n += put_money(b + n, ev);
        df_check(n <= sizeof(b));
        return df_hash64(df_bytes(b, n));
}

/* ---- content (D4) ----
 *
 * Compared in each billing run with what it kept of its first occurrence, and never shown or sent:
 * it needs no published form. So the strings are mixed as they lie, without being joined first, in
 * three chains that the processor works on side by side. */

static inline uint64_t mix(uint64_t h, uint64_t a, uint64_t b)
{
        return df_hash_fold(h ^ a ^ 0x9e3779b97f4a7c15u, b ^ 0xd6e8feb86659fd93u) + h;
}

/* Its bytes and its length, which both together say all: no two strings are mixed alike. */
static uint64_t mix_str(uint64_t h, struct df_bytes s)
{
        const uint8_t *p = s.data;
        uint64_t a = 0, b = 0;
        size_t n = s.len;

        for (; n > 16; p += 16, n -= 16)
                h = mix(h, df_load64(p), df_load64(p + 8));
        if (n >= 8) {
                a = df_load64(p);
                b = df_load64(p + n - 8);
        } else if (n >= 4) {
                a = df_load32(p) | (uint64_t)df_load32(p + n - 4) << 32;
        } else if (n > 0) {
                a = p[0] | (uint64_t)p[n >> 1] << 8 | (uint64_t)p[n - 1] << 16;
        }
        return mix(h + s.len, a, b);
}

static uint64_t mix_money(uint64_t h, const struct ad_event *ev, uint32_t flag, int64_t nanos)
{
        return mix(h, ev->flags & flag, ev->flags & flag ? (uint64_t)nanos : 0);
}

uint64_t ad_event_content(const struct ad_event *ev)
{
        const struct df_bytes none = {0};
        uint64_t a = mix_str(ev->type, ev->event_id), b = 1, c = 2;

        a = mix_str(a, ev->click_id);
        a = mix_money(a, ev, AD_EV_HAS_COST, ev->cost_nanos);
        a = mix_money(a, ev, AD_EV_HAS_PAYOUT, ev->payout_nanos);
        a = mix_money(a, ev, AD_EV_HAS_VALUE, ev->value_nanos);
        for (int i = 0; i < 4; i++)
                b = mix_str(b, ev->dims[i]);
        for (int i = 4; i < AD_DIM_COUNT; i++)
                c = mix_str(c, ev->dims[i]);
        c = mix_str(c, ev->flags & AD_EV_CURRENCY_DEFAULTED ? none : ev->currency);
        c = mix_str(c, ev->value_currency);
        return mix(a, b, c);
}
