/* import_map.c - from the columns of a row to the fields of an event (import.h).
 *
 * --map is a list of
 *   COLUMN=FIELD     the cell becomes this field; an empty FIELD, or no entry, ignores the column
 *   FIELD:=VALUE     a constant of every row
 * with \, \= \: and \\ for these characters themselves. FIELD is a name as in JSON, or one of cost,
 * payout, conversion_value (decimal units: 1.25), or attributes.NAME. An empty cell is not stated.
 */
#include <stdlib.h>

#include "jobs/adtally/import.h"

#define ENTRIES_MAX 128
#define TYPES_MAX 64

enum target {
        TO_NONE,
        TO_EVENT_ID,
        TO_TYPE,
        TO_TIME,
        TO_ID,
        TO_MICROS,
        TO_UNITS,
        TO_CURRENCY,
        TO_ATTRIBUTE,
};

struct field {
        const char *name;
        enum target target;
        uint16_t offset;
        uint32_t flag;
};
#define AT(member) offsetof(struct ad_event, member)

static const struct field fields[] = {
        {"event_id", TO_EVENT_ID, AT(event_id), 0},
        {"type", TO_TYPE, AT(type), 0},
        {"event_time", TO_TIME, AT(event_ms), 0},
        {"advertiser_id", TO_ID, AT(dims[AD_DIM_ADVERTISER]), 0},
        {"campaign_id", TO_ID, AT(dims[AD_DIM_CAMPAIGN]), 0},
        {"ad_id", TO_ID, AT(dims[AD_DIM_AD]), 0},
        {"publisher_id", TO_ID, AT(dims[AD_DIM_PUBLISHER]), 0},
        {"placement_id", TO_ID, AT(dims[AD_DIM_PLACEMENT]), 0},
        {"user_id", TO_ID, AT(user_id), 0},
        {"country", TO_ID, AT(dims[AD_DIM_COUNTRY]), 0},
        {"device", TO_ID, AT(dims[AD_DIM_DEVICE]), 0},
        {"click_id", TO_ID, AT(click_id), 0},
        {"cost_micros", TO_MICROS, AT(cost_nanos), AD_EV_HAS_COST},
        {"payout_micros", TO_MICROS, AT(payout_nanos), AD_EV_HAS_PAYOUT},
        {"conversion_value_micros", TO_MICROS, AT(value_nanos), AD_EV_HAS_VALUE},
        {"cost", TO_UNITS, AT(cost_nanos), AD_EV_HAS_COST},
        {"payout", TO_UNITS, AT(payout_nanos), AD_EV_HAS_PAYOUT},
        {"conversion_value", TO_UNITS, AT(value_nanos), AD_EV_HAS_VALUE},
        {"currency", TO_CURRENCY, AT(currency), 0},
        {"conversion_value_currency", TO_CURRENCY, AT(value_currency), 0},
};
#define FIELD_COUNT (sizeof(fields) / sizeof(fields[0]))

struct entry {
        struct df_bytes column;   /* of a mapped column */
        struct df_bytes constant; /* data NULL: a column */
        struct df_bytes name;     /* of the field */
        struct field field;
        ssize_t place; /* of the column; -1 = none yet */
};

struct word { /* a value of the file that stands for a type */
        struct df_bytes text;
        uint32_t type;
        bool any_case;
};

struct ad_import_map {
        struct df_arena arena;
        struct entry entries[ENTRIES_MAX];
        size_t count;
        struct word words[TYPES_MAX];
        size_t word_count;
        struct {
                bool set;
                int64_t divide_by;
                uint32_t type;
                struct df_bytes column;
                ssize_t place;
        } price;
        char currency[4];
        bool currency_given;
        const struct ad_zone *zone;
        struct df_hash128 digest;
};

static const struct {
        const char *word;
        uint32_t type;
} built_in[] = {
        {"impression", AD_IMPRESSION}, {"impressions", AD_IMPRESSION}, {"imp", AD_IMPRESSION},
        {"view", AD_IMPRESSION},       {"show", AD_IMPRESSION},        {"click", AD_CLICK},
        {"clicks", AD_CLICK},          {"conversion", AD_CONVERSION},  {"conv", AD_CONVERSION},
        {"purchase", AD_CONVERSION},   {"order", AD_CONVERSION},       {"sale", AD_CONVERSION},
        {"install", AD_CONVERSION},
};

/* ---- the options ---- */

/* The next part of *at up to one of `ends` (or the text's end), unescaped, in the arena. */
static int part(struct ad_import_map *m, const char **at, const char *ends, struct df_bytes *ret,
                struct df_error *err)
{
        char *to = df_arena_alloc(&m->arena, strlen(*at) + 1);
        size_t n = 0;

        if (!to)
                return df_fail(err, DF_ENOMEM, "mapping");
        while (**at && !strchr(ends, **at)) {
                if (**at == '\\' && (*at)[1])
                        (*at)++;
                to[n++] = *(*at)++;
        }
        to[n] = '\0';
        *ret = df_bytes(to, n);
        return 0;
}

static bool find_field(struct df_bytes name, struct field *ret)
{
        static const char prefix[] = "attributes.";

        for (size_t i = 0; i < FIELD_COUNT; i++)
                if (df_bytes_eq(name, df_bytes_str(fields[i].name))) {
                        *ret = fields[i];
                        return true;
                }
        *ret = (struct field){.name = "attributes", .target = TO_ATTRIBUTE};
        return name.len > sizeof(prefix) - 1 &&
               memcmp(name.data, prefix, sizeof(prefix) - 1) == 0 &&
               name.len - sizeof(prefix) + 1 <= AD_ATTRIBUTE_KEY_MAX;
}

static int add_entry(struct ad_import_map *m, const struct entry *e, struct df_error *err)
{
        struct entry *to = &m->entries[m->count];

        if (m->count == ENTRIES_MAX)
                return df_fail(err, DF_EINVAL, "--map: more than %d entries", ENTRIES_MAX);
        *to = *e;
        to->place = -1;
        if (!find_field(e->name, &to->field))
                return df_fail(
                        err, DF_EINVAL,
                        "--map: no field \"%.*s\": expected event_id, type, event_time, "
                        "advertiser_id, campaign_id, ad_id, publisher_id, placement_id, "
                        "user_id, country, device, click_id, cost, cost_micros, payout, "
                        "payout_micros, conversion_value, conversion_value_micros, currency, "
                        "conversion_value_currency or attributes.NAME",
                        (int)e->name.len, (const char *)e->name.data);
        for (size_t i = 0; i < m->count; i++) {
                const struct entry *o = &m->entries[i];

                if (to->field.target == TO_ATTRIBUTE ? df_bytes_eq(o->name, to->name)
                                                     : o->field.offset == to->field.offset &&
                                                               o->field.target != TO_ATTRIBUTE)
                        return df_fail(err, DF_EINVAL, "--map: \"%.*s\" is stated twice",
                                       (int)e->name.len, (const char *)e->name.data);
        }
        m->count++;
        return 0;
}

static int parse_map(struct ad_import_map *m, const char *text, struct df_error *err)
{
        while (*text) {
                const char *begin = text;
                struct entry e = {0};
                int rc = part(m, &text, "=,", &e.column, err);

                if (rc < 0)
                        return rc;
                if (*text != '=')
                        return df_fail(err, DF_EINVAL,
                                       "--map: \"%s\": expected COLUMN=FIELD or FIELD:=VALUE",
                                       begin);
                if (e.column.len > 0 && e.column.data[e.column.len - 1] == ':' &&
                    !(text - begin > 1 && text[-2] == '\\')) {
                        text++;
                        e.name = df_bytes(e.column.data, e.column.len - 1);
                        rc = part(m, &text, ",", &e.constant, err);
                } else {
                        text++;
                        rc = part(m, &text, ",", &e.name, err);
                }
                if (rc == 0 && e.name.len > 0)
                        rc = add_entry(m, &e, err);
                if (rc < 0)
                        return rc;
                text += *text == ',';
        }
        return 0;
}

static bool type_by_name(struct df_bytes name, uint32_t *ret)
{
        for (uint32_t t = AD_IMPRESSION; t <= AD_CONVERSION; t++) {
                static const char *const names[] = {"", "impression", "click", "conversion"};

                if (df_bytes_eq(name, df_bytes_str(names[t]))) {
                        *ret = t;
                        return true;
                }
        }
        return false;
}

static int parse_types(struct ad_import_map *m, const char *text, struct df_error *err)
{
        while (text && *text) {
                struct df_bytes value, name;
                uint32_t type;
                int rc = part(m, &text, "=,", &value, err);

                text += *text == '=';
                if (rc == 0)
                        rc = part(m, &text, ",", &name, err);
                text += *text == ',';
                if (rc < 0)
                        return rc;
                if (!type_by_name(name, &type) || m->word_count == TYPES_MAX)
                        return df_fail(err, DF_EINVAL,
                                       "--type: \"%.*s=%.*s\": expected "
                                       "VALUE=impression|click|conversion",
                                       (int)value.len, (const char *)value.data, (int)name.len,
                                       (const char *)name.data);
                m->words[m->word_count++] = (struct word){value, type, false};
        }
        for (size_t i = 0; i < sizeof(built_in) / sizeof(built_in[0]); i++)
                if (m->word_count < TYPES_MAX)
                        m->words[m->word_count++] = (struct word){df_bytes_str(built_in[i].word),
                                                                  built_in[i].type, true};
        return 0;
}

static int parse_price(struct ad_import_map *m, const char *text, struct df_error *err)
{
        struct df_bytes model, type;
        int rc;

        if (!text)
                return 0;
        rc = part(m, &text, "=", &model, err);
        text += *text == '=';
        if (rc == 0)
                rc = part(m, &text, "@", &m->price.column, err);
        if (rc < 0)
                return rc;
        m->price.set = true;
        m->price.place = -1;
        m->price.divide_by = df_bytes_eq(model, df_bytes_str("cpm")) ? 1000 : 1;
        m->price.type = df_bytes_eq(model, df_bytes_str("cpm"))   ? AD_IMPRESSION
                        : df_bytes_eq(model, df_bytes_str("cpc")) ? AD_CLICK
                        : df_bytes_eq(model, df_bytes_str("cpa")) ? AD_CONVERSION
                                                                  : AD_TYPE_NONE;
        if (m->price.type == AD_TYPE_NONE || m->price.column.len == 0)
                return df_fail(err, DF_EINVAL,
                               "--price-model: expected cpm=COLUMN@impression, cpc=COLUMN@click or "
                               "cpa=COLUMN@conversion");
        if (*text == '@' && (type = df_bytes_str(text + 1), !type_by_name(type, &m->price.type)))
                return df_fail(err, DF_EINVAL,
                               "--price-model: \"%s\" is not impression, click or conversion",
                               text + 1);
        for (size_t i = 0; i < m->count; i++)
                if (m->entries[i].field.flag & AD_EV_HAS_COST)
                        return df_fail(err, DF_EINVAL, "--price-model and a mapped cost: only one");
        return 0;
}

static bool maps(const struct ad_import_map *m, enum target t)
{
        for (size_t i = 0; i < m->count; i++)
                if (m->entries[i].field.target == t)
                        return true;
        return false;
}

static int take_digest(struct ad_import_map *m, const struct ad_import_map_options *o,
                       struct df_error *err)
{
        const char *const texts[] = {o->map, o->types, o->price_model, o->currency};
        struct df_buf b = {0};

        for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
                df_put_lstr(&b, df_bytes_str(texts[i] ? texts[i] : ""));
        df_put_u64be(&b, ad_zone_digest(o->zone));
        m->digest = df_hash128(df_buf_bytes(&b));
        df_buf_release(&b);
        return b.failed ? df_fail(err, DF_ENOMEM, "mapping") : 0;
}

int ad_import_map_create(const struct ad_import_map_options *o, struct ad_import_map **ret,
                         struct df_error *err)
{
        struct ad_import_map *m = calloc(1, sizeof(*m));
        int rc;

        if (!m)
                return df_fail(err, DF_ENOMEM, "mapping");
        df_arena_init(&m->arena, 0);
        m->zone = o->zone;
        m->currency_given = o->currency != NULL;
        (void)snprintf(m->currency, sizeof(m->currency), "%s", o->currency ? o->currency : "");
        rc = parse_map(m, o->map ? o->map : "", err);
        if (rc == 0)
                rc = parse_types(m, o->types, err);
        if (rc == 0)
                rc = parse_price(m, o->price_model, err);
        if (rc == 0 && (!maps(m, TO_TIME) || !maps(m, TO_TYPE)))
                rc = df_fail(err, DF_EINVAL, "--map must say where %s comes from (COLUMN=%s%s)",
                             maps(m, TO_TIME) ? "type" : "event_time",
                             maps(m, TO_TIME) ? "type" : "event_time",
                             maps(m, TO_TIME) ? " or type:=impression" : "");
        if (rc == 0 && o->currency &&
            (!df_currency_known(df_bytes_str(o->currency)) || strcmp(o->currency, "XXX") == 0))
                rc = df_fail(err, DF_EINVAL, "--currency %s: not an ISO 4217 code", o->currency);
        if (rc == 0)
                rc = take_digest(m, o, err);
        if (rc < 0) {
                ad_import_map_destroy(m);
                return rc;
        }
        *ret = m;
        return 0;
}

struct df_hash128 ad_import_map_digest(const struct ad_import_map *m)
{
        return m->digest;
}

void ad_import_map_destroy(struct ad_import_map *m)
{
        if (!m)
                return;
        df_arena_release(&m->arena);
        free(m);
}

/* ---- columns ---- */

static int place_of(struct df_bytes name, const struct df_bytes *columns, size_t count,
                    bool all_known, ssize_t *ret, struct df_error *err)
{
        struct df_buf list = {0};
        int rc;

        *ret = -1;
        for (size_t i = 0; i < count; i++)
                if (df_bytes_eq(columns[i], name))
                        *ret = (ssize_t)i;
        if (*ret >= 0 || !all_known)
                return 0;
        for (size_t i = 0; i < count; i++)
                df_buf_printf(&list, "%s%.*s", i ? ", " : "", (int)columns[i].len,
                              (const char *)columns[i].data);
        rc = df_fail(err, DF_EINVAL, "there is no column \"%.*s\"; the file has: %.*s",
                     (int)name.len, (const char *)name.data, (int)list.len,
                     list.data ? (const char *)list.data : "");
        df_buf_release(&list);
        return rc;
}

int ad_import_map_bind(struct ad_import_map *m, const struct df_bytes *columns, size_t count,
                       bool all_known, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < m->count; i++)
                if (!m->entries[i].constant.data)
                        rc = place_of(m->entries[i].column, columns, count, all_known,
                                      &m->entries[i].place, err);
        if (rc == 0 && m->price.set)
                rc = place_of(m->price.column, columns, count, all_known, &m->price.place, err);
        return rc;
}

/* ---- a row ---- */

static bool same_word(struct df_bytes a, struct df_bytes b, bool any_case)
{
        if (!any_case || a.len != b.len)
                return df_bytes_eq(a, b);
        for (size_t i = 0; i < a.len; i++) {
                uint8_t c = a.data[i];

                if ((c >= 'A' && c <= 'Z' ? c + 32 : c) != b.data[i])
                        return false;
        }
        return true;
}

static const char *set_type(const struct ad_import_map *m, struct df_bytes v, uint32_t *ret)
{
        for (size_t i = 0; i < m->word_count; i++)
                if (same_word(v, m->words[i].text, m->words[i].any_case)) {
                        *ret = m->words[i].type;
                        return NULL;
                }
        return "is no known type (--type VALUE=impression|click|conversion)";
}

static const char *set(const struct ad_import_map *m, const struct field *f, struct df_bytes v,
                       struct ad_event *ev)
{
        void *member = (char *)ev + f->offset;

        ev->flags |= f->flag;
        switch (f->target) {
        case TO_EVENT_ID:
                return ad_import_id(v, AD_EVENT_ID_MAX, member);
        case TO_ID:
                return ad_import_id(v, AD_ID_MAX, member);
        case TO_TYPE:
                return set_type(m, v, member);
        case TO_TIME:
                return ad_import_time(v, m->zone, member)
                               ? NULL
                               : "is no time (RFC 3339, YYYY-MM-DD H:MM:SS, seconds or "
                                 "milliseconds), or does not exist in the time zone";
        case TO_MICROS:
                return ad_import_micros(v, member);
        case TO_UNITS:
                return ad_import_units(v, 1, member);
        case TO_CURRENCY:
                return ad_import_currency(v, member);
        case TO_ATTRIBUTE:
        case TO_NONE:
                break;
        }
        return NULL;
}

static int bad(struct df_error *err, struct df_bytes column, struct df_bytes value, const char *why)
{
        return df_fail(err, DF_EINVAL, "%.*s: \"%.*s\" %s", (int)column.len,
                       (const char *)column.data, (int)(value.len < 80 ? value.len : 80),
                       value.data ? (const char *)value.data : "", why);
}

struct attribute {
        struct df_bytes key, value;
};

static int by_key(const void *a, const void *b)
{
        return df_bytes_cmp(((const struct attribute *)a)->key, ((const struct attribute *)b)->key);
}

/* Event.attributes as ingest would encode them: sorted by key. */
static int set_attributes(struct attribute *list, size_t count, struct df_arena *arena,
                          struct ad_event *ev, struct df_error *err)
{
        struct df_buf b = {0};
        int rc;

        if (count > 1)
                qsort(list, count, sizeof(*list), by_key);
        for (size_t i = 0; i < count; i++) {
                size_t mark = df_pb_begin(&b, 18);

                df_pb_bytes(&b, 1, list[i].key);
                df_pb_bytes(&b, 2, list[i].value);
                df_pb_end(&b, mark);
        }
        rc = df_buf_check(&b, err);
        if (rc == 0 && b.len > 0) {
                ev->attributes = df_arena_copy(arena, df_buf_bytes(&b));
                if (!ev->attributes.data)
                        rc = df_fail(err, DF_ENOMEM, "attributes");
        }
        df_buf_release(&b);
        return rc;
}

static int set_fields(struct ad_import_map *m, const struct df_bytes *cells, size_t count,
                      struct df_arena *arena, struct ad_event *ev, struct df_error *err)
{
        struct attribute attributes[AD_ATTRIBUTES_MAX];
        size_t n = 0;

        for (size_t i = 0; i < m->count; i++) {
                const struct entry *e = &m->entries[i];
                struct df_bytes v = e->constant;
                const char *why;

                if (!v.data && (e->place < 0 || (size_t)e->place >= count))
                        continue;
                if (!v.data)
                        v = cells[e->place];
                if (v.len == 0)
                        continue;
                if (e->field.target == TO_ATTRIBUTE) {
                        size_t skip = strlen("attributes.");

                        if (n == AD_ATTRIBUTES_MAX)
                                return bad(err, e->name, v, "is one attribute too many");
                        if (v.len > AD_ATTRIBUTE_VALUE_MAX || ad_utf8_valid(v) != 1)
                                return bad(err, e->name, v, "is too long or not UTF-8");
                        attributes[n++] = (struct attribute){
                                df_bytes(e->name.data + skip, e->name.len - skip), v};
                        continue;
                }
                why = set(m, &e->field, v, ev);
                if (why)
                        return bad(err, e->constant.data ? e->name : e->column, v, why);
        }
        return set_attributes(attributes, n, arena, ev, err);
}

static int set_price(struct ad_import_map *m, const struct df_bytes *cells, size_t count,
                     struct ad_event *ev, struct df_error *err)
{
        struct df_bytes v;
        const char *why;

        if (!m->price.set || ev->type != m->price.type || m->price.place < 0 ||
            (size_t)m->price.place >= count)
                return 0;
        v = cells[m->price.place];
        if (v.len == 0)
                return 0;
        why = ad_import_units(v, m->price.divide_by, &ev->cost_nanos);
        if (why)
                return bad(err, m->price.column, v, why);
        ev->flags |= AD_EV_HAS_COST;
        return 0;
}

int ad_import_map_row(struct ad_import_map *m, const struct df_bytes *cells, size_t count,
                      struct df_arena *arena, struct ad_event *ret, struct df_error *err)
{
        const uint32_t money = AD_EV_HAS_COST | AD_EV_HAS_PAYOUT | AD_EV_HAS_VALUE;
        int rc;

        memset(ret, 0, sizeof(*ret));
        rc = set_fields(m, cells, count, arena, ret, err);
        if (rc == 0)
                rc = set_price(m, cells, count, ret, err);
        if (rc < 0)
                return rc;
        if (ret->event_ms == 0)
                return df_fail(err, DF_EINVAL, "event_time is not stated");
        if (ret->type == AD_TYPE_NONE)
                return df_fail(err, DF_EINVAL, "type is not stated");
        if (ret->currency.len == 0 && m->currency_given)
                ret->currency = df_bytes_str(m->currency);
        if (ret->currency.len == 0 && (ret->flags & money) &&
            (ret->value_currency.len == 0 || (ret->flags & (AD_EV_HAS_COST | AD_EV_HAS_PAYOUT))))
                return df_fail(err, DF_EINVAL, "money without a currency (--currency CODE)");
        if (df_bytes_eq(ret->value_currency, ret->currency))
                ret->value_currency = (struct df_bytes){0};
        return 0;
}
