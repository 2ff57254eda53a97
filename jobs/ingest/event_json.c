/* event_json.c - one JSON object to one event: fields by one table, every rule of an event's form.
 */
#include <stdio.h>

#include "jobs/common/times.h"
#include "jobs/ingest/parse_private.h"

enum field_kind { F_EVENT_ID, F_TYPE, F_TIME, F_ID, F_MONEY, F_CURRENCY, F_ATTRIBUTES };

struct field {
        const char *name;
        uint8_t len;
        enum field_kind kind;
        uint16_t offset; /* in struct ad_event, of the bytes or the nanos */
        uint32_t flag;   /* set when it is there */
};

#define BYTES_AT(name, kind, member)                                                               \
        {                                                                                          \
                name, sizeof(name) - 1, kind, offsetof(struct ad_event, member), 0                 \
        }
#define MONEY_AT(name, member, flag)                                                               \
        {                                                                                          \
                name, sizeof(name) - 1, F_MONEY, offsetof(struct ad_event, member), flag           \
        }

/* By length. No two of a length have the same second letter, so one comparison tells. */
static const struct field fields[] = {
        BYTES_AT("type", F_TYPE, type),
        BYTES_AT("ad_id", F_ID, dims[AD_DIM_AD]),
        BYTES_AT("device", F_ID, dims[AD_DIM_DEVICE]),
        BYTES_AT("user_id", F_ID, user_id),
        BYTES_AT("country", F_ID, dims[AD_DIM_COUNTRY]),
        BYTES_AT("event_id", F_EVENT_ID, event_id),
        BYTES_AT("click_id", F_ID, click_id),
        BYTES_AT("currency", F_CURRENCY, currency),
        BYTES_AT("event_time", F_TIME, event_ms),
        BYTES_AT("attributes", F_ATTRIBUTES, attributes),
        BYTES_AT("campaign_id", F_ID, dims[AD_DIM_CAMPAIGN]),
        MONEY_AT("cost_micros", cost_nanos, AD_EV_HAS_COST),
        BYTES_AT("publisher_id", F_ID, dims[AD_DIM_PUBLISHER]),
        BYTES_AT("placement_id", F_ID, dims[AD_DIM_PLACEMENT]),
        BYTES_AT("advertiser_id", F_ID, dims[AD_DIM_ADVERTISER]),
        MONEY_AT("payout_micros", payout_nanos, AD_EV_HAS_PAYOUT),
        MONEY_AT("conversion_value_micros", value_nanos, AD_EV_HAS_VALUE),
        BYTES_AT("conversion_value_currency", F_CURRENCY, value_currency),
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))
#define FIELD_LEN_MIN 4
#define FIELD_LEN_MAX 25
/* The first of each length; of a length that no field has, one of another. */
static const uint8_t first_of_len[FIELD_LEN_MAX + 1] = {
        [4] = 0,   [5] = 1,   [6] = 2,   [7] = 3,   [8] = 5,   [10] = 8,
        [11] = 10, [12] = 12, [13] = 14, [23] = 16, [25] = 17,
};

static ssize_t find_field(struct df_bytes key)
{
        if (key.len < FIELD_LEN_MIN || key.len > FIELD_LEN_MAX)
                return -1;
        for (size_t i = first_of_len[key.len]; i < FIELD_COUNT && fields[i].len == key.len; i++)
                if (fields[i].name[1] == (char)key.data[1])
                        return memcmp(fields[i].name, key.data, key.len) == 0 ? (ssize_t)i : -1;
        return -1;
}

static enum ad_reason read_id(const struct ad_json_node *n, size_t max, struct df_bytes *ret)
{
        if (n->kind != AD_JSON_STRING)
                return AD_WRONG_TYPE;
        if (n->text.len > max)
                return AD_TOO_LONG;
        if (!dfi_plain_text(n->text))
                return AD_BAD_CHARACTER;
        *ret = n->text;
        return AD_NONE;
}

static enum ad_reason read_type(const struct ad_json_node *n, uint32_t *ret)
{
        static const char *const names[] = {"impression", "click", "conversion"};

        if (n->kind != AD_JSON_STRING)
                return AD_WRONG_TYPE;
        for (uint32_t i = 0; i < 3; i++)
                if (df_bytes_eq(n->text, df_bytes_str(names[i]))) {
                        *ret = i + 1;
                        return AD_NONE;
                }
        return AD_UNKNOWN_TYPE;
}

static enum ad_reason read_time(const struct ad_json_node *n, int64_t *ret)
{
        if (n->kind == AD_JSON_UINT)
                return AD_OUT_OF_RANGE;
        if (n->kind == AD_JSON_INT)
                *ret = n->i;
        else if (n->kind != AD_JSON_STRING)
                return AD_WRONG_TYPE;
        else if (!ad_time_parse(n->text, ret))
                return AD_BAD_TIME;
        return *ret > 0 ? AD_NONE : AD_BAD_TIME; /* 0 stands for "not stated" from here on */
}

/* Whole micros only: 187.4, 1e3 and "5" are not amounts, so no float ever touches money. */
static enum ad_reason read_money(const struct ad_json_node *n, int64_t *ret_nanos)
{
        if (n->kind == AD_JSON_UINT)
                return AD_OUT_OF_RANGE;
        if (n->kind != AD_JSON_INT)
                return AD_WRONG_TYPE;
        if (n->i < 0)
                return AD_NEGATIVE;
        if (n->i > AD_MONEY_MICROS_MAX)
                return AD_OUT_OF_RANGE;
        *ret_nanos = n->i * DF_NANOS_PER_MICRO;
        return AD_NONE;
}

/* A body's events have the same currency nearly always: the last good one is not searched for. */
static enum ad_reason read_currency(const struct ad_json_node *n, struct df_bytes *ret)
{
        static _Thread_local uint8_t good[3] = {'U', 'S', 'D'};

        if (n->kind != AD_JSON_STRING)
                return AD_WRONG_TYPE;
        if (!df_bytes_eq(n->text, df_bytes(good, sizeof(good)))) {
                if (!df_currency_known(n->text) || df_bytes_eq(n->text, df_bytes_str("XXX")))
                        return AD_UNKNOWN_CURRENCY;
                memcpy(good, n->text.data, sizeof(good));
        }
        *ret = n->text;
        return AD_NONE;
}

static enum ad_reason read_attributes(const struct ad_json_node *nodes, uint32_t at,
                                      struct df_arena *arena, struct df_bytes *ret)
{
        struct dfi_attributes a = {.count = 0};

        if (nodes[at].kind != AD_JSON_OBJECT)
                return AD_WRONG_TYPE;
        for (uint32_t i = at + 1; i < nodes[at].next; i = nodes[i].next) {
                enum ad_reason r = nodes[i].kind == AD_JSON_STRING
                                           ? dfi_add_attribute(&a, nodes[i].key, nodes[i].text)
                                           : AD_WRONG_TYPE;

                if (r != AD_NONE)
                        return r;
        }
        return dfi_encode_attributes(&a, arena, ret);
}

static enum ad_reason read_field(const struct ad_json_node *nodes, uint32_t at,
                                 const struct field *f, struct df_arena *arena, struct ad_event *ev)
{
        const struct ad_json_node *n = &nodes[at];
        void *member = (char *)ev + f->offset;

        switch (f->kind) {
        case F_EVENT_ID:
                return read_id(n, AD_EVENT_ID_MAX, member);
        case F_ID:
                return read_id(n, AD_ID_MAX, member);
        case F_TYPE:
                return read_type(n, member);
        case F_TIME:
                return read_time(n, member);
        case F_MONEY:
                ev->flags |= f->flag;
                return read_money(n, member);
        case F_CURRENCY:
                return read_currency(n, member);
        case F_ATTRIBUTES:
                return read_attributes(nodes, at, arena, member);
        }
        return AD_UNKNOWN_FIELD;
}

/* The name of a field that is not known, cut to what is worth repeating. */
static const char *key_text(struct df_bytes key, struct df_arena *arena)
{
        size_t len = key.len < AD_ID_MAX ? key.len : AD_ID_MAX;
        char *text = df_arena_alloc(arena, len + 1);

        while (len > 0 && len < key.len && (key.data[len] & 0xc0) == 0x80)
                len--; /* not in the middle of a character */
        if (text) {
                memcpy(text, key.data, len);
                text[len] = '\0';
        }
        return text;
}

enum ad_reason dfi_event_from_json(const struct ad_json_node *nodes, uint32_t at,
                                   struct df_arena *arena, struct ad_event *ev,
                                   const char **ret_field)
{
        uint32_t seen = 0;
        enum ad_reason first = AD_NONE;

        if (nodes[at].kind != AD_JSON_OBJECT)
                return AD_NOT_AN_EVENT;
        /* All fields are read even after an error, so that the rejection can name the event_id. */
        for (uint32_t i = at + 1; i < nodes[at].next; i = nodes[i].next) {
                ssize_t f = find_field(nodes[i].key);
                enum ad_reason r = AD_UNKNOWN_FIELD;

                if (f >= 0 && (seen & 1u << f))
                        r = AD_DUPLICATE_KEY;
                else if (f >= 0 && nodes[i].kind == AD_JSON_NULL)
                        r = AD_NONE; /* null is "not stated" */
                else if (f >= 0)
                        r = read_field(nodes, i, &fields[f], arena, ev);
                if (f >= 0)
                        seen |= 1u << f;
                if (r != AD_NONE && first == AD_NONE) {
                        first = r;
                        *ret_field = f >= 0 ? fields[f].name : key_text(nodes[i].key, arena);
                }
        }
        return first;
}
