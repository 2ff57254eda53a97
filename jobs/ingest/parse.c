#include "jobs/ingest/parse.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/ingest/parse_private.h"

#define MINUTE_MS 60000

struct ad_parser {
        struct ad_json_parser *json;
        struct df_arena arena;
        struct ad_event *events;
        uint32_t *indexes;
        struct ad_rejection *rejected;
        struct ad_rejection *warnings; /* at most two an event */
};

int ad_parser_create(struct ad_parser **ret, struct df_error *err)
{
        struct ad_parser *p = calloc(1, sizeof(*p));

        if (!p)
                return df_fail(err, DF_ENOMEM, "parser");
        df_arena_init(&p->arena, 0);
        p->json = ad_json_create();
        p->events = calloc(AD_BATCH_EVENTS_MAX, sizeof(*p->events));
        p->indexes = calloc(AD_BATCH_EVENTS_MAX, sizeof(*p->indexes));
        p->rejected = calloc(AD_BATCH_EVENTS_MAX, sizeof(*p->rejected));
        p->warnings = calloc(2 * AD_BATCH_EVENTS_MAX, sizeof(*p->warnings));
        if (!p->json || !p->events || !p->indexes || !p->rejected || !p->warnings) {
                ad_parser_destroy(p);
                return df_fail(err, DF_ENOMEM, "parser");
        }
        *ret = p;
        return 0;
}

void ad_parser_destroy(struct ad_parser *p)
{
        if (!p)
                return;
        ad_json_destroy(p->json);
        df_arena_release(&p->arena);
        free(p->events);
        free(p->indexes);
        free(p->rejected);
        free(p->warnings);
        free(p);
}

bool dfi_plain_text(struct df_bytes s)
{
        for (size_t i = 0; i < s.len; i++) {
                uint8_t c = s.data[i];

                if (c < 0x20 || c == 0x7f)
                        return false;
                if (c == 0xc2 && i + 1 < s.len && s.data[i + 1] < 0xa0)
                        return false;
        }
        return true;
}

enum ad_reason dfi_add_attribute(struct dfi_attributes *a, struct df_bytes key,
                                 struct df_bytes value)
{
        size_t at = 0;

        if (a->count == AD_ATTRIBUTES_MAX)
                return AD_TOO_MANY_ATTRIBUTES;
        if (key.len > AD_ATTRIBUTE_KEY_MAX || value.len > AD_ATTRIBUTE_VALUE_MAX)
                return AD_TOO_LONG;
        if (key.len == 0 || !dfi_plain_text(key))
                return AD_BAD_CHARACTER;
        while (at < a->count && df_bytes_cmp(a->list[at].key, key) < 0)
                at++;
        if (at < a->count && df_bytes_eq(a->list[at].key, key))
                return AD_DUPLICATE_KEY;
        memmove(&a->list[at + 1], &a->list[at], (a->count - at) * sizeof(a->list[0]));
        a->list[at] = (struct dfi_attribute){key, value};
        a->count++;
        return AD_NONE;
}

enum ad_reason dfi_encode_attributes(const struct dfi_attributes *a, struct df_arena *arena,
                                     struct df_bytes *ret)
{
        struct df_buf b = {0};
        enum ad_reason r = AD_NONE;

        for (size_t i = 0; i < a->count; i++) {
                size_t m = df_pb_begin(&b, 18);

                df_pb_bytes(&b, 1, a->list[i].key);
                df_pb_bytes(&b, 2, a->list[i].value);
                df_pb_end(&b, m);
        }
        *ret = df_arena_copy(arena, df_buf_bytes(&b));
        if (b.failed || (a->count > 0 && !ret->data))
                r = AD_UNAVAILABLE;
        df_buf_release(&b);
        return r;
}

static void refuse_whole(struct ad_parse_result *res, enum ad_reason reason, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        (void)vsnprintf(res->message, sizeof(res->message), fmt, ap);
        va_end(ap);
        res->whole = reason;
        res->count = 0;
        res->rejected_count = 0;
        res->warning_count = 0;
}

static void reject(struct ad_parse_result *res, uint32_t index, enum ad_reason reason,
                   const char *field, struct df_bytes event_id)
{
        res->rejected[res->rejected_count++] =
                (struct ad_rejection){index, reason, field, event_id};
}

static void warn(struct ad_parse_result *res, uint32_t index, enum ad_reason reason,
                 struct df_bytes event_id)
{
        res->warnings[res->warning_count++] = (struct ad_rejection){index, reason, NULL, event_id};
}

/* What must be there, and what fits together. */
static enum ad_reason check_form(const struct ad_event *ev, const struct ad_parse_rules *rules,
                                 const char **ret_field)
{
        const uint32_t money = AD_EV_HAS_COST | AD_EV_HAS_PAYOUT | AD_EV_HAS_VALUE;

        *ret_field = NULL;
        if (ev->event_id.len == 0)
                *ret_field = "event_id";
        else if (ev->type == AD_TYPE_NONE)
                *ret_field = "type";
        else if (ev->dims[AD_DIM_CAMPAIGN].len == 0)
                *ret_field = "campaign_id";
        if (*ret_field)
                return AD_MISSING_FIELD;
        if ((ev->flags & money) && !rules->money_allowed) {
                *ret_field = ev->flags & AD_EV_HAS_COST     ? "cost_micros"
                             : ev->flags & AD_EV_HAS_PAYOUT ? "payout_micros"
                                                            : "conversion_value_micros";
                return AD_MONEY_NOT_ALLOWED;
        }
        *ret_field = "currency";
        if ((ev->flags & (AD_EV_HAS_COST | AD_EV_HAS_PAYOUT)) && ev->currency.len == 0)
                return AD_MISSING_CURRENCY;
        if ((ev->flags & AD_EV_HAS_VALUE) && ev->currency.len == 0 && ev->value_currency.len == 0)
                return AD_MISSING_CURRENCY;
        *ret_field = "event_time";
        if (ev->event_ms && ev->event_ms > rules->now_ms + AD_FUTURE_MAX_MS)
                return AD_EVENT_TIME_FUTURE;
        if (ev->event_ms && ev->event_ms < rules->now_ms - rules->accepted_age_ms)
                return AD_EVENT_TIME_OLD;
        *ret_field = NULL;
        return AD_NONE;
}

/* An event of good form is stamped (DESIGN: Ingest stamps) and accepted. */
static void accept(struct ad_parse_result *res, uint32_t index, const struct ad_parse_rules *rules)
{
        struct ad_event *ev = &res->events[res->count];

        ev->tenant_id = rules->tenant_id;
        ev->source = rules->source;
        ev->receive_ms = rules->now_ms;
        ev->schema_version = AD_SCHEMA_VERSION;
        if (ev->event_ms == 0) {
                ev->event_ms = rules->now_ms;
                ev->flags |= AD_EV_TIME_MISSING;
                warn(res, index, AD_TIME_MISSING, ev->event_id);
        } else if (rules->late_after_ms &&
                   (ev->event_ms / MINUTE_MS + 1) * MINUTE_MS + rules->late_after_ms <=
                           rules->now_ms) {
                warn(res, index, AD_PROBABLY_LATE, ev->event_id);
        }
        if (ev->currency.len == 0) {
                ev->currency = rules->currency;
                ev->flags |= AD_EV_CURRENCY_DEFAULTED;
        }
        if (df_bytes_eq(ev->value_currency, ev->currency))
                ev->value_currency = (struct df_bytes){0};
        ev->fingerprint = ad_event_fingerprint(ev);
        res->indexes[res->count++] = index;
}

static void judge_form(struct ad_parse_result *res, uint32_t index,
                       const struct ad_parse_rules *rules, enum ad_reason reason, const char *field)
{
        struct ad_event *ev = &res->events[res->count];

        if (reason == AD_NONE)
                reason = check_form(ev, rules, &field);
        if (reason == AD_NONE)
                accept(res, index, rules);
        else
                reject(res, index, reason, field, ev->event_id);
}

/* False: out of memory. */
static bool parse_element(struct ad_parser *p, const struct ad_json_node *nodes, uint32_t at,
                          uint32_t index, const struct ad_parse_rules *rules,
                          struct ad_parse_result *res)
{
        const char *field = NULL;
        enum ad_reason reason;

        memset(&res->events[res->count], 0, sizeof(*res->events));
        reason = dfi_event_from_json(nodes, at, &p->arena, &res->events[res->count], &field);
        if (reason != AD_UNAVAILABLE)
                judge_form(res, index, rules, reason, field);
        return reason != AD_UNAVAILABLE;
}

static bool parse_array(struct ad_parser *p, const struct ad_json_node *nodes, uint32_t array,
                        const struct ad_parse_rules *rules, struct ad_parse_result *res)
{
        uint32_t index = 0;

        for (uint32_t i = array + 1; i < nodes[array].next; i = nodes[i].next, index++) {
                if (index == AD_BATCH_EVENTS_MAX) {
                        refuse_whole(res, AD_BATCH_TOO_LARGE, "a batch holds at most %d events",
                                     AD_BATCH_EVENTS_MAX);
                        return true;
                }
                if (!parse_element(p, nodes, i, index, rules, res))
                        return false;
        }
        if (index == 0)
                refuse_whole(res, AD_EMPTY_BATCH, "the batch holds no event");
        return true;
}

/* {"events":[...]}: this member alone. */
static bool is_envelope(const struct ad_json_node *nodes)
{
        return nodes[0].kind == AD_JSON_OBJECT && nodes[0].next > 1 &&
               df_bytes_eq(nodes[1].key, df_bytes_str("events")) &&
               nodes[1].kind == AD_JSON_ARRAY && nodes[1].next == nodes[0].next;
}

static int parse_json(struct ad_parser *p, struct df_bytes body, const struct ad_parse_rules *rules,
                      struct ad_parse_result *res, struct df_error *err)
{
        const struct ad_json_node *nodes;
        const char *message = "";
        size_t count;
        bool memory = true;
        int rc = ad_json_parse(p->json, body, &nodes, &count, &message);

        if (rc == AD_JSON_NO_MEMORY)
                memory = false;
        else if (rc == AD_JSON_BAD_UTF8)
                refuse_whole(res, AD_BAD_UTF8, "the body is not valid UTF-8");
        else if (rc == AD_JSON_TOO_MANY)
                refuse_whole(res, AD_BATCH_TOO_LARGE, "%s (%d events)", message,
                             AD_BATCH_EVENTS_MAX);
        else if (rc != AD_JSON_OK)
                refuse_whole(res, AD_BAD_JSON, "the body is not JSON: %s", message);
        else if (is_envelope(nodes))
                memory = parse_array(p, nodes, 1, rules, res);
        else if (nodes[0].kind == AD_JSON_ARRAY)
                memory = parse_array(p, nodes, 0, rules, res);
        else
                memory = parse_element(p, nodes, 0, 0, rules, res);
        return memory ? 0 : df_fail(err, DF_ENOMEM, "JSON body of %zu bytes", body.len);
}

static bool blank(struct df_bytes line)
{
        for (size_t i = 0; i < line.len; i++)
                if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r')
                        return false;
        return true;
}

/* Each line is parsed by itself; what its event borrows must outlive the next line's parse. */
static int keep_strings(struct ad_parser *p, struct ad_event *ev, struct df_error *err)
{
        struct df_bytes *all[] = {&ev->event_id, &ev->user_id, &ev->click_id, &ev->currency,
                                  &ev->value_currency};

        for (size_t i = 0; i < sizeof(all) / sizeof(all[0]) + AD_DIM_COUNT; i++) {
                struct df_bytes *s = i < AD_DIM_COUNT ? &ev->dims[i] : all[i - AD_DIM_COUNT];

                if (s->len == 0)
                        continue;
                *s = df_arena_copy(&p->arena, *s);
                if (!s->data)
                        return df_fail(err, DF_ENOMEM, "NDJSON body");
        }
        return 0;
}

static int parse_line(struct ad_parser *p, struct df_bytes line, uint32_t index,
                      const struct ad_parse_rules *rules, struct ad_parse_result *res,
                      struct df_error *err)
{
        const struct ad_json_node *nodes;
        size_t count, accepted = res->count, refused = res->rejected_count;
        const char *message = "";
        int rc = ad_json_parse(p->json, line, &nodes, &count, &message);

        if (rc == AD_JSON_NO_MEMORY)
                return df_fail(err, DF_ENOMEM, "NDJSON line %u", index + 1);
        if (rc != AD_JSON_OK) {
                reject(res, index,
                       rc == AD_JSON_BAD_UTF8   ? AD_BAD_UTF8
                       : rc == AD_JSON_TOO_MANY ? AD_BATCH_TOO_LARGE
                                                : AD_BAD_JSON,
                       NULL, (struct df_bytes){0});
                return 0;
        }
        if (!parse_element(p, nodes, 0, index, rules, res))
                return df_fail(err, DF_ENOMEM, "NDJSON line %u", index + 1);
        if (res->count > accepted)
                rc = keep_strings(p, &res->events[accepted], err);
        if (rc == 0 && res->rejected_count > refused && res->rejected[refused].event_id.len) {
                struct df_bytes *id = &res->rejected[refused].event_id;

                *id = df_arena_copy(&p->arena, *id);
                if (!id->data)
                        rc = df_fail(err, DF_ENOMEM, "NDJSON line %u", index + 1);
        }
        for (size_t i = 0; rc == 0 && i < res->warning_count; i++)
                if (res->warnings[i].index == index && res->count > accepted)
                        res->warnings[i].event_id = res->events[accepted].event_id;
        return rc;
}

static int parse_ndjson(struct ad_parser *p, struct df_bytes body,
                        const struct ad_parse_rules *rules, struct ad_parse_result *res,
                        struct df_error *err)
{
        uint32_t index = 0;

        while (body.len > 0) {
                const uint8_t *nl = memchr(body.data, '\n', body.len);
                size_t len = nl ? (size_t)(nl - body.data) : body.len;
                struct df_bytes line = df_bytes(body.data, len);
                int rc;

                body.data += nl ? len + 1 : len;
                body.len -= nl ? len + 1 : len;
                if (blank(line))
                        continue;
                if (index == AD_BATCH_EVENTS_MAX) {
                        refuse_whole(res, AD_BATCH_TOO_LARGE, "a batch holds at most %d events",
                                     AD_BATCH_EVENTS_MAX);
                        return 0;
                }
                rc = parse_line(p, line, index++, rules, res, err);
                if (rc < 0)
                        return rc;
        }
        if (index == 0)
                refuse_whole(res, AD_EMPTY_BATCH, "the body holds no line");
        return 0;
}

static int parse_protobuf(struct ad_parser *p, struct df_bytes body,
                          const struct ad_parse_rules *rules, struct ad_parse_result *res,
                          struct df_error *err)
{
        struct df_reader r = df_reader(body);
        struct df_pb_field f;
        uint32_t index = 0;

        while (df_pb_next(&r, &f)) {
                struct ad_event *ev = &res->events[res->count];
                const char *field = NULL;
                enum ad_reason reason;

                if (f.number != 1 || f.wire != 2)
                        continue; /* what ingest stamps is not the client's to state */
                if (index == AD_BATCH_EVENTS_MAX) {
                        refuse_whole(res, AD_BATCH_TOO_LARGE, "a batch holds at most %d events",
                                     AD_BATCH_EVENTS_MAX);
                        return 0;
                }
                reason = dfi_event_from_protobuf(f.bytes, &p->arena, ev, &field);
                if (reason == AD_UNAVAILABLE)
                        return df_fail(err, DF_ENOMEM, "protobuf body of %zu bytes", body.len);
                judge_form(res, index++, rules, reason, field);
        }
        if (r.bad)
                refuse_whole(res, AD_BAD_PROTOBUF, "the body is not a protobuf EventBatch");
        else if (index == 0)
                refuse_whole(res, AD_EMPTY_BATCH, "the batch holds no event");
        return 0;
}

/* What was stamped then stands, but the time. */
static void accept_release(struct ad_parse_result *res, uint32_t index,
                           const struct ad_parse_rules *rules)
{
        struct ad_event *ev = &res->events[res->count];

        ev->receive_ms = rules->now_ms;
        if (rules->late_after_ms &&
            (ev->event_ms / MINUTE_MS + 1) * MINUTE_MS + rules->late_after_ms <= rules->now_ms)
                warn(res, index, AD_PROBABLY_LATE, ev->event_id);
        res->indexes[res->count++] = index;
}

static int parse_release(struct ad_parser *p, struct df_bytes body,
                         const struct ad_parse_rules *rules, struct ad_parse_result *res,
                         struct df_error *err)
{
        struct df_reader r = df_reader(body);
        struct df_pb_field f;
        bool odd = false, over = false;
        uint32_t index = 0;

        for (; df_pb_next(&r, &f); index++) {
                struct ad_event *ev = &res->events[res->count];
                const char *field = NULL;
                enum ad_reason reason;

                odd = f.number != 1 || f.wire != 2;
                over = index == AD_BATCH_EVENTS_MAX;
                if (odd || over)
                        break;
                reason = dfi_event_from_log(f.bytes, &p->arena, ev, &field);
                if (reason == AD_UNAVAILABLE)
                        return df_fail(err, DF_ENOMEM, "release of %zu bytes", body.len);
                if (reason == AD_NONE && !df_bytes_eq(ev->tenant_id, rules->tenant_id)) {
                        reason = AD_FORBIDDEN;
                        field = "tenant_id";
                }
                if (reason == AD_NONE)
                        reason = check_form(ev, rules, &field);
                if (reason == AD_NONE)
                        accept_release(res, index, rules);
                else
                        reject(res, index, reason, field, ev->event_id);
        }
        if (r.bad || odd)
                refuse_whole(res, AD_BAD_PROTOBUF, "the body is not an EventBatch of events alone");
        else if (over)
                refuse_whole(res, AD_BATCH_TOO_LARGE, "a batch holds at most %d events",
                             AD_BATCH_EVENTS_MAX);
        else if (index == 0)
                refuse_whole(res, AD_EMPTY_BATCH, "the batch holds no event");
        return 0;
}

int ad_parse_body(struct ad_parser *p, enum ad_body_format format, struct df_bytes body,
                  const struct ad_parse_rules *rules, struct ad_parse_result *ret,
                  struct df_error *err)
{
        df_arena_reset(&p->arena);
        *ret = (struct ad_parse_result){.events = p->events,
                                        .indexes = p->indexes,
                                        .rejected = p->rejected,
                                        .warnings = p->warnings,
                                        .arena = &p->arena};
        if (body.len == 0) {
                refuse_whole(ret, AD_EMPTY_BODY, "the body is empty");
                return 0;
        }
        switch (format) {
        case AD_BODY_JSON:
                return parse_json(p, body, rules, ret, err);
        case AD_BODY_NDJSON:
                return parse_ndjson(p, body, rules, ret, err);
        case AD_BODY_PROTOBUF:
                return parse_protobuf(p, body, rules, ret, err);
        case AD_BODY_RELEASE:
                return parse_release(p, body, rules, ret, err);
        }
        return df_fail(err, DF_EINVAL, "unknown body format %d", format);
}
