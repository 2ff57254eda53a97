#include "jobs/api/command_parse.h"

#include <stdio.h>

#include "jobs/common/times.h"

static const char *const actions[] = {"none", "void", "reprice", "remap", "label"};
const struct ad_label_name ad_label_names[] = {
        {"bot", AD_LABEL_BOT}, {"test", AD_LABEL_TEST}, {NULL, 0}};

const char *ad_correction_name(enum ad_correction_action a)
{
        return actions[a];
}

/* ---- fields ---- */

struct field {
        const char *name; /* in faults with its object: "scope.from" */
        unsigned kinds;   /* bits 1 << enum ad_doc_kind */
        size_t max;       /* bytes of a text */
        bool needed;
        struct df_bytes *text;           /* set, unless NULL */
        const struct ad_doc_node **node; /* likewise; NULL when it is not stated */
};
#define TEXT (1u << AD_DOC_TEXT)

static const char *short_name(const char *name)
{
        const char *dot = strchr(name, '.');

        return dot ? dot + 1 : name;
}

static int take_one(const struct field *x, const struct ad_doc_node *n, struct ad_fault *f)
{
        if (n->kind == AD_DOC_NULL)
                return 0;
        if (!(x->kinds & 1u << n->kind))
                return ad_fault_set(f, 400, "bad_type", x->name, "%s cannot be %s", x->name,
                                    ad_doc_kind_name(n->kind));
        if (n->kind == AD_DOC_TEXT && n->text.len > x->max)
                return ad_fault_set(f, 400, "too_long", x->name, "%s is at most %zu bytes", x->name,
                                    x->max);
        if (x->text)
                *x->text = n->text;
        if (x->node)
                *x->node = n;
        return 0;
}

static int unknown(const char *object, const struct ad_doc_node *n, struct ad_fault *f)
{
        char name[40];

        (void)snprintf(name, sizeof(name), "%s%s%.*s", object, *object ? "." : "",
                       (int)(n->name.len < 20 ? n->name.len : 20), (const char *)n->name.data);
        return ad_fault_set(f, 400, "unknown_field", name, "there is no field %s", name);
}

/* object: "" for the body itself. */
static int take(const struct ad_doc *d, const struct ad_doc_node *of, const char *object,
                const struct field *fields, size_t count, struct ad_fault *f)
{
        for (const struct ad_doc_node *n = ad_doc_first(d, of); n; n = ad_doc_after(d, of, n)) {
                size_t i = 0;

                while (i < count && !df_bytes_eq(n->name, df_bytes_str(short_name(fields[i].name))))
                        i++;
                if (i == count)
                        return unknown(object, n, f);
                if (take_one(&fields[i], n, f) < 0)
                        return -1;
        }
        for (size_t i = 0; i < count; i++) {
                const struct field *x = &fields[i];

                if (x->needed && (x->text ? x->text->len == 0 : !*x->node))
                        return ad_fault_set(f, 400, "missing_field", x->name, "%s is missing",
                                            x->name);
        }
        return 0;
}

static int check_body(const struct ad_doc *d, struct ad_fault *f)
{
        if (d->nodes[0].kind == AD_DOC_OBJECT)
                return 0;
        return ad_fault_set(f, 400, "bad_json", NULL, "the body is a JSON object, not %s",
                            ad_doc_kind_name(d->nodes[0].kind));
}

/* ---- who ---- */

static struct df_bytes trim(struct df_bytes s)
{
        while (s.len && s.data[0] == ' ')
                s = df_bytes(s.data + 1, s.len - 1);
        while (s.len && s.data[s.len - 1] == ' ')
                s.len--;
        return s;
}

static uint8_t lower(uint8_t c)
{
        return c >= 'A' && c <= 'Z' ? c + 32 : c;
}

/* "Ann" and "ann " are one person. */
static bool same_person(struct df_bytes a, struct df_bytes b)
{
        a = trim(a);
        b = trim(b);
        if (a.len != b.len)
                return false;
        for (size_t i = 0; i < a.len; i++)
                if (lower(a.data[i]) != lower(b.data[i]))
                        return false;
        return true;
}

/* What moves money needs two people. */
static int check_people(const struct ad_command *c, struct ad_fault *f)
{
        if (trim(c->approved_by).len == 0)
                return ad_fault_set(f, 400, "approval_needed", "approved_by",
                                    "approved_by is missing: another person than requested_by "
                                    "must have approved this");
        if (same_person(c->requested_by, c->approved_by))
                return ad_fault_set(f, 400, "approval_needed", "approved_by",
                                    "approved_by is requested_by: another person must approve "
                                    "this");
        return 0;
}

bool ad_command_id_valid(struct df_bytes id)
{
        for (size_t i = 0; i < id.len; i++) {
                uint8_t c = id.data[i];

                if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') &&
                    c != '.' && c != '_' && c != '-')
                        return false;
        }
        return id.len > 0 && id.len <= AD_COMMAND_ID_MAX;
}

static int check_id(const struct ad_command *c, struct ad_fault *f)
{
        if (c->id.len == 0 || ad_command_id_valid(c->id))
                return 0;
        return ad_fault_set(f, 400, "bad_id", "id", "an id is 1 to %d of A-Z, a-z, 0-9, . _ -",
                            AD_COMMAND_ID_MAX);
}

#define WHO(c, needed)                                                                             \
        {"id", TEXT, AD_COMMAND_ID_MAX, false, &(c)->id, NULL},                                    \
                {"reason", TEXT, AD_REASON_TEXT_MAX, needed, &(c)->reason, NULL},                  \
                {"requested_by", TEXT, AD_PERSON_MAX, needed, &(c)->requested_by, NULL},           \
        {                                                                                          \
                "approved_by", TEXT, AD_PERSON_MAX, false, &(c)->approved_by, NULL                 \
        }

/* ---- corrections ---- */

static int parse_label(const struct ad_doc *d, const struct ad_doc_node *n, const char *field,
                       uint32_t *ret, struct ad_fault *f)
{
        const struct ad_doc_node *at = n->kind == AD_DOC_ARRAY ? ad_doc_first(d, n) : n;

        for (; at; at = n->kind == AD_DOC_ARRAY ? ad_doc_after(d, n, at) : NULL) {
                const struct ad_label_name *l = ad_label_names;

                while (l->name &&
                       (at->kind != AD_DOC_TEXT || !df_bytes_eq(at->text, df_bytes_str(l->name))))
                        l++;
                if (!l->name)
                        return ad_fault_set(f, 400, "bad_label", field,
                                            "%s is bot, test, or a list of them", field);
                *ret |= l->bit;
        }
        if (*ret == 0)
                return ad_fault_set(f, 400, "bad_label", field, "%s is empty", field);
        return 0;
}

static int parse_time(const struct ad_doc_node *n, const char *field, int64_t *ret,
                      struct ad_fault *f)
{
        if (ad_time_parse(n->text, ret) && *ret >= 0)
                return 0;
        return ad_fault_set(f, 400, "bad_time", field,
                            "%s is a time like 2026-11-24T10:00:00Z, or with an offset", field);
}

static int parse_event_ids(const struct ad_doc *d, const struct ad_doc_node *n,
                           struct df_arena *arena, struct ad_scope *s, struct ad_fault *f)
{
        struct df_bytes *ids = df_arena_alloc(arena, AD_SCOPE_EVENT_IDS_MAX * sizeof(*ids));
        const struct ad_doc_node *at;
        struct df_error err;

        if (!ids) {
                (void)df_fail(&err, DF_ENOMEM, "event_ids");
                return ad_fault_error(f, &err);
        }
        for (at = ad_doc_first(d, n); at; at = ad_doc_after(d, n, at)) {
                if (s->event_id_count == AD_SCOPE_EVENT_IDS_MAX)
                        return ad_fault_set(f, 400, "too_many_event_ids", "scope.event_ids",
                                            "at most %d event_ids a correction: send several "
                                            "corrections",
                                            AD_SCOPE_EVENT_IDS_MAX);
                if (at->kind != AD_DOC_TEXT || at->text.len == 0)
                        return ad_fault_set(f, 400, "bad_type", "scope.event_ids",
                                            "event_ids is a list of texts that are not empty");
                if (at->text.len > AD_EVENT_ID_MAX)
                        return ad_fault_set(f, 400, "too_long", "scope.event_ids",
                                            "an event_id is at most %d bytes", AD_EVENT_ID_MAX);
                ids[s->event_id_count++] = at->text;
        }
        s->event_ids = ids;
        return 0;
}

static int check_scope(const struct ad_scope *s, bool from, bool to, struct ad_fault *f)
{
        if (to && s->to_ms <= s->from_ms)
                return ad_fault_set(f, 400, "empty_range", "scope.to",
                                    "scope.to must be after scope.from");
        if (s->event_id_count || s->advertiser_id.len || s->campaign_id.len || s->publisher_id.len)
                return 0;
        if (s->label && from && to)
                return 0;
        return ad_fault_set(f, 400, "empty_scope", "scope",
                            "the scope holds everything: state event_ids, advertiser_id, "
                            "campaign_id or publisher_id, or a label with from and to");
}

static int parse_scope(const struct ad_doc *d, const struct ad_doc_node *of, struct df_arena *arena,
                       struct ad_scope *s, struct ad_fault *f)
{
        const struct ad_doc_node *ids = NULL, *label = NULL, *from = NULL, *to = NULL;
        const struct field fields[] = {
                {"scope.event_ids", 1u << AD_DOC_ARRAY, 0, false, NULL, &ids},
                {"scope.advertiser_id", TEXT, AD_ID_MAX, false, &s->advertiser_id, NULL},
                {"scope.campaign_id", TEXT, AD_ID_MAX, false, &s->campaign_id, NULL},
                {"scope.publisher_id", TEXT, AD_ID_MAX, false, &s->publisher_id, NULL},
                {"scope.label", TEXT | 1u << AD_DOC_ARRAY, 16, false, NULL, &label},
                {"scope.from", TEXT, 40, false, NULL, &from},
                {"scope.to", TEXT, 40, false, NULL, &to},
        };

        if (take(d, of, "scope", fields, sizeof(fields) / sizeof(fields[0]), f) < 0 ||
            (ids && parse_event_ids(d, ids, arena, s, f) < 0) ||
            (label && parse_label(d, label, "scope.label", &s->label, f) < 0) ||
            (from && parse_time(from, "scope.from", &s->from_ms, f) < 0) ||
            (to && parse_time(to, "scope.to", &s->to_ms, f) < 0))
                return -1;
        return check_scope(s, from != NULL, to != NULL, f);
}

static int parse_price(const struct ad_doc_node *n, struct ad_correction *c, struct ad_fault *f)
{
        df_nanos price;

        if (!df_nanos_parse(n->text, &price))
                return ad_fault_set(f, 400, "bad_price", "values.price",
                                    "price is a decimal amount of the currency, like \"0.0125\", "
                                    "with at most 9 decimals and no exponent");
        if (price < 0)
                return ad_fault_set(f, 400, "negative_price", "values.price",
                                    "an event never costs less than nothing: void it, or send a "
                                    "smaller price");
        if (price > (df_nanos)AD_MONEY_MICROS_MAX * DF_NANOS_PER_MICRO)
                return ad_fault_set(f, 400, "out_of_range", "values.price",
                                    "price is at most 1000000000");
        c->price_nanos = (int64_t)price;
        if (!df_currency_known(c->currency) || df_bytes_eq(c->currency, df_bytes_str("XXX")))
                return ad_fault_set(f, 400, "bad_currency", "values.currency",
                                    "currency is a code of ISO 4217, like EUR");
        return 0;
}

static int parse_values(const struct ad_doc *d, const struct ad_doc_node *of,
                        struct ad_correction *c, struct ad_fault *f)
{
        const struct ad_doc_node *price = NULL, *label = NULL;
        const struct field reprice[] = {
                {"values.price", TEXT | 1u << AD_DOC_NUMBER, 40, true, NULL, &price},
                {"values.currency", TEXT, 3, true, &c->currency, NULL},
        };
        const struct field remap[] = {
                {"values.advertiser_id", TEXT, AD_ID_MAX, false, &c->advertiser_id, NULL},
                {"values.campaign_id", TEXT, AD_ID_MAX, false, &c->campaign_id, NULL},
                {"values.publisher_id", TEXT, AD_ID_MAX, false, &c->publisher_id, NULL},
        };
        const struct field labels[] = {
                {"values.label", TEXT | 1u << AD_DOC_ARRAY, 16, true, NULL, &label},
        };

        switch (c->action) {
        case AD_CORRECT_REPRICE:
                return take(d, of, "values", reprice, 2, f) < 0 ? -1 : parse_price(price, c, f);
        case AD_CORRECT_REMAP:
                if (take(d, of, "values", remap, 3, f) < 0)
                        return -1;
                if (c->advertiser_id.len || c->campaign_id.len || c->publisher_id.len)
                        return 0;
                return ad_fault_set(f, 400, "missing_field", "values",
                                    "remap states advertiser_id, campaign_id or publisher_id");
        case AD_CORRECT_LABEL:
                return take(d, of, "values", labels, 1, f) < 0
                               ? -1
                               : parse_label(d, label, "values.label", &c->label, f);
        case AD_CORRECT_NONE:
        case AD_CORRECT_VOID:
        case AD_CORRECT_COUNT:
        default:
                return take(d, of, "values", NULL, 0, f); /* void has none */
        }
}

static int parse_action(struct df_bytes text, enum ad_correction_action *ret, struct ad_fault *f)
{
        for (int a = AD_CORRECT_VOID; a < AD_CORRECT_COUNT; a++)
                if (df_bytes_eq(text, df_bytes_str(actions[a]))) {
                        *ret = (enum ad_correction_action)a;
                        return 0;
                }
        return ad_fault_set(f, 400, "bad_action", "action",
                            "action is void, reprice, remap or label");
}

int ad_parse_correction(const struct ad_doc *d, struct df_arena *arena, struct ad_command *ret,
                        struct ad_fault *f)
{
        static const struct ad_doc_node nothing = {.kind = AD_DOC_OBJECT};
        const struct ad_doc_node *scope = NULL, *values = NULL;
        struct ad_correction *c = &ret->correction;
        struct ad_doc empty = {(struct ad_doc_node *)&nothing, 0};
        struct df_bytes action = {0};
        const struct field fields[] = {
                WHO(ret, true),
                {"action", TEXT, 16, true, &action, NULL},
                {"scope", 1u << AD_DOC_OBJECT, 0, true, NULL, &scope},
                {"values", 1u << AD_DOC_OBJECT, 0, false, NULL, &values},
        };

        ret->kind = AD_COMMAND_CORRECTION;
        if (check_body(d, f) < 0 ||
            take(d, d->nodes, "", fields, sizeof(fields) / sizeof(fields[0]), f) < 0 ||
            check_id(ret, f) < 0 || parse_action(action, &c->action, f) < 0 ||
            parse_scope(d, scope, arena, &c->scope, f) < 0)
                return -1;
        if ((values ? parse_values(d, values, c, f) : parse_values(&empty, empty.nodes, c, f)) < 0)
                return -1;
        return check_people(ret, f);
}

/* ---- the others ---- */

int ad_parse_close(const struct ad_doc *d, struct ad_command *ret, struct ad_fault *f)
{
        const struct field fields[] = {
                WHO(ret, true),
                {"advertiser_id", TEXT, AD_ID_MAX, false, &ret->close.account.advertiser_id, NULL},
        };

        ret->kind = AD_COMMAND_CLOSE;
        if (check_body(d, f) < 0 ||
            take(d, d->nodes, "", fields, sizeof(fields) / sizeof(fields[0]), f) < 0 ||
            check_id(ret, f) < 0)
                return -1;
        return check_people(ret, f);
}

int ad_parse_run(const struct ad_doc *d, struct ad_command *ret, struct ad_fault *f)
{
        const struct field fields[] = {WHO(ret, false)};

        ret->kind = AD_COMMAND_RUN;
        if (check_body(d, f) < 0 ||
            take(d, d->nodes, "", fields, sizeof(fields) / sizeof(fields[0]), f) < 0)
                return -1;
        return check_id(ret, f);
}

int ad_parse_cancel(const struct ad_doc *d, struct ad_command *ret, struct ad_fault *f)
{
        const struct field fields[] = {WHO(ret, true)};

        ret->kind = AD_COMMAND_CANCEL;
        if (check_body(d, f) < 0 ||
            take(d, d->nodes, "", fields, sizeof(fields) / sizeof(fields[0]), f) < 0 ||
            check_id(ret, f) < 0)
                return -1;
        return check_people(ret, f);
}

static int digits(struct df_bytes t, size_t from, size_t count)
{
        int v = 0;

        for (size_t i = from; i < from + count; i++) {
                if (t.data[i] < '0' || t.data[i] > '9')
                        return -1;
                v = 10 * v + (t.data[i] - '0');
        }
        return v;
}

bool ad_period_parse(struct df_bytes text, int *ret_year, unsigned *ret_month)
{
        int month;

        if (text.len != AD_PERIOD_MAX || text.data[4] != '-')
                return false;
        *ret_year = digits(text, 0, 4);
        month = digits(text, 5, 2);
        *ret_month = (unsigned)month;
        return *ret_year >= 1970 && *ret_year <= 9998 && month >= 1 && month <= 12;
}
