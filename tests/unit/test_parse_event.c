/* The bad input table of POST /events: each body gets the documented code, nothing crashes, good
 * events beside bad ones are accepted, and money and time are exact. */
#include "parse_test.h"

/* One event: its code, or that of the whole body. */
static void check_one(const char *body, enum ad_reason want, const char *field)
{
        struct ad_parse_result res = parse(body);
        enum ad_reason got = res.whole            ? res.whole
                             : res.rejected_count ? res.rejected[0].reason
                                                  : AD_NONE;

        if (got != want || res.count + res.rejected_count != (res.whole ? 0 : 1))
                fail_msg("%s: %s, wanted %s", body, ad_reason_info(got)->code,
                         ad_reason_info(want)->code);
        if (field && (!res.rejected[0].field || strcmp(res.rejected[0].field, field) != 0))
                fail_msg("%s: field %s, wanted %s", body, res.rejected[0].field, field);
        if (!res.whole && want != AD_NONE)
                assert_int_equal(ad_reason_info(want)->cls, AD_CLASS_REJECTED);
}

static const struct {
        const char *body;
        enum ad_reason want;
        const char *field;
} table[] = {
        /* first of all: this thread has read no currency yet */
        {"{" BASE ",\"currency\":\"\\u0000\\u0000\\u0000\"}", AD_UNKNOWN_CURRENCY, "currency"},
        /* the body */
        {"", AD_EMPTY_BODY, NULL},
        {" \n ", AD_BAD_JSON, NULL},
        {"{", AD_BAD_JSON, NULL},
        {"{}x", AD_BAD_JSON, NULL},
        {"{'event_id':'x'}", AD_BAD_JSON, NULL},
        {"[{},]", AD_BAD_JSON, NULL},
        {"[NaN]", AD_BAD_JSON, NULL},
        {"[]", AD_EMPTY_BATCH, NULL},
        {"{\"events\":[]}", AD_EMPTY_BATCH, NULL},
        {"5", AD_NOT_AN_EVENT, NULL},
        {"null", AD_NOT_AN_EVENT, NULL},
        {"\"x\"", AD_NOT_AN_EVENT, NULL},
        {"[[]]", AD_NOT_AN_EVENT, NULL},
        {"[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]", AD_BAD_JSON, NULL},
        {"{\"events\":{}}", AD_UNKNOWN_FIELD, "events"},
        {"{\"events\":[{}],\"more\":1}", AD_UNKNOWN_FIELD, "events"},
        /* what must be there */
        {"{}", AD_MISSING_FIELD, "event_id"},
        {"{\"type\":\"click\",\"campaign_id\":\"c\"}", AD_MISSING_FIELD, "event_id"},
        {"{\"event_id\":\"\",\"type\":\"click\",\"campaign_id\":\"c\"}", AD_MISSING_FIELD,
         "event_id"},
        {"{\"event_id\":null,\"type\":\"click\",\"campaign_id\":\"c\"}", AD_MISSING_FIELD,
         "event_id"},
        {"{\"event_id\":\"e\",\"campaign_id\":\"c\"}", AD_MISSING_FIELD, "type"},
        {"{\"event_id\":\"e\",\"type\":\"click\"}", AD_MISSING_FIELD, "campaign_id"},
        /* types */
        {"{\"event_id\":7,\"type\":\"click\",\"campaign_id\":\"c\"}", AD_WRONG_TYPE, "event_id"},
        {"{" BASE ",\"ad_id\":7}", AD_WRONG_TYPE, "ad_id"},
        {"{" BASE ",\"ad_id\":true}", AD_WRONG_TYPE, "ad_id"},
        {"{" BASE ",\"ad_id\":[]}", AD_WRONG_TYPE, "ad_id"},
        {"{" BASE ",\"user_id\":{}}", AD_WRONG_TYPE, "user_id"},
        {"{\"event_id\":\"e\",\"type\":2,\"campaign_id\":\"c\"}", AD_WRONG_TYPE, "type"},
        {"{\"event_id\":\"e\",\"type\":\"view\",\"campaign_id\":\"c\"}", AD_UNKNOWN_TYPE, "type"},
        {"{\"event_id\":\"e\",\"type\":\"Click\",\"campaign_id\":\"c\"}", AD_UNKNOWN_TYPE, "type"},
        {"{" BASE ",\"colour\":1}", AD_UNKNOWN_FIELD, "colour"},
        {"{" BASE ",\"tenant_id\":\"other\"}", AD_UNKNOWN_FIELD, "tenant_id"},
        {"{" BASE ",\"receive_time\":1}", AD_UNKNOWN_FIELD, "receive_time"},
        {"{" BASE ",\"\":1}", AD_UNKNOWN_FIELD, ""},
        {"{" BASE ",\"type\":\"click\"}", AD_DUPLICATE_KEY, "type"},
        {"{" BASE ",\"event_id\":\"e2\"}", AD_DUPLICATE_KEY, "event_id"},
        {"{" BASE ",\"ad_id\":null,\"ad_id\":\"a\"}", AD_DUPLICATE_KEY, "ad_id"},
        {"{" BASE ",\"ad_id\":null}", AD_NONE, NULL},
        /* money: whole micros, never a float */
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":0}", AD_NONE, NULL},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":-0}", AD_NONE, NULL},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":-1}", AD_NEGATIVE, "cost_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":187.4}", AD_WRONG_TYPE, "cost_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":1.0}", AD_WRONG_TYPE, "cost_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":1e3}", AD_WRONG_TYPE, "cost_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":\"5\"}", AD_WRONG_TYPE, "cost_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":1000000000000000}", AD_NONE, NULL},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":1000000000000001}", AD_OUT_OF_RANGE,
         "cost_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"payout_micros\":9223372036854775807}", AD_OUT_OF_RANGE,
         "payout_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"payout_micros\":9223372036854775808}", AD_OUT_OF_RANGE,
         "payout_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"payout_micros\":-9223372036854775808}", AD_NEGATIVE,
         "payout_micros"},
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":18446744073709551615}", AD_OUT_OF_RANGE,
         "cost_micros"},
        /* beyond 64 bits is beyond the parser: the body cannot be read */
        {"{" BASE ",\"currency\":\"EUR\",\"cost_micros\":18446744073709551616}", AD_BAD_JSON, NULL},
        {"{" BASE ",\"cost_micros\":5}", AD_MISSING_CURRENCY, "currency"},
        {"{" BASE ",\"conversion_value_micros\":5}", AD_MISSING_CURRENCY, "currency"},
        {"{" BASE ",\"conversion_value_micros\":5,\"conversion_value_currency\":\"JPY\"}", AD_NONE,
         NULL},
        {"{" BASE ",\"currency\":\"EUX\"}", AD_UNKNOWN_CURRENCY, "currency"},
        {"{" BASE ",\"currency\":\"eur\"}", AD_UNKNOWN_CURRENCY, "currency"},
        {"{" BASE ",\"currency\":\"EURO\"}", AD_UNKNOWN_CURRENCY, "currency"},
        {"{" BASE ",\"currency\":\"\"}", AD_UNKNOWN_CURRENCY, "currency"},
        {"{" BASE ",\"currency\":\"XXX\"}", AD_UNKNOWN_CURRENCY, "currency"},
        {"{" BASE ",\"currency\":978}", AD_WRONG_TYPE, "currency"},
        {"{" BASE ",\"conversion_value_currency\":\"ZZZ\"}", AD_UNKNOWN_CURRENCY,
         "conversion_value_currency"},
        /* times */
        {"{" BASE ",\"event_time\":1795514400000}", AD_NONE, NULL},
        {"{" BASE ",\"event_time\":\"2026-11-24T10:00:00Z\"}", AD_NONE, NULL},
        {"{" BASE ",\"event_time\":\"2026-11-24T13:00:00.123456789+03:00\"}", AD_NONE, NULL},
        {"{" BASE ",\"event_time\":\"2026-11-24 10:00:00z\"}", AD_NONE, NULL},
        {"{" BASE ",\"event_time\":\"2026-11-24T10:00:00\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":\"2026-11-24\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":\"2026-11-31T10:00:00Z\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":\"2026-02-29T10:00:00Z\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":\"2026-11-24T24:00:00Z\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":\"2026-11-24T10:00:00+3:00\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":\"1795514400000\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":\"\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":\"1970-01-01T00:00:00Z\"}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":0}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":-1}", AD_BAD_TIME, "event_time"},
        {"{" BASE ",\"event_time\":1.5}", AD_WRONG_TYPE, "event_time"},
        {"{" BASE ",\"event_time\":true}", AD_WRONG_TYPE, "event_time"},
        {"{" BASE ",\"event_time\":9223372036854775808}", AD_OUT_OF_RANGE, "event_time"},
        {"{" BASE ",\"event_time\":9223372036854775807}", AD_EVENT_TIME_FUTURE, "event_time"},
        {"{" BASE ",\"event_time\":1795514700000}", AD_NONE, NULL}, /* now + 5 min (T3) */
        {"{" BASE ",\"event_time\":1795514700001}", AD_EVENT_TIME_FUTURE, "event_time"},
        {"{" BASE ",\"event_time\":1794909600000}", AD_NONE, NULL}, /* now - 7 d (T3) */
        {"{" BASE ",\"event_time\":1794909599999}", AD_EVENT_TIME_OLD, "event_time"},
        {"{" BASE ",\"event_time\":1795514400}", AD_EVENT_TIME_OLD, "event_time"}, /* seconds */
        /* strings */
        {"{" BASE ",\"ad_id\":\"a\\u0000b\"}", AD_BAD_CHARACTER, "ad_id"},
        {"{" BASE ",\"ad_id\":\"a\\nb\"}", AD_BAD_CHARACTER, "ad_id"},
        {"{" BASE ",\"ad_id\":\"\\u007f\"}", AD_BAD_CHARACTER, "ad_id"},
        {"{" BASE ",\"ad_id\":\"\\u0085\"}", AD_BAD_CHARACTER, "ad_id"},
        {"{" BASE ",\"ad_id\":\"\\u00a0 \\u0416 \\ud83d\\ude00\"}", AD_NONE, NULL},
        {"{" BASE ",\"ad_id\":\"\\ud83d\"}", AD_BAD_JSON, NULL},
        {"{" BASE ",\"ad_id\":\"\xff\"}", AD_BAD_UTF8, NULL},
        {"{" BASE ",\"ad_id\":\"\xc0\xaf\"}", AD_BAD_UTF8, NULL},
        {"{" BASE ",\"ad_id\":\"\xed\xa0\x80\"}", AD_BAD_UTF8, NULL},
        {"{" BASE ",\"ad_id\":\"a\tb\"}", AD_BAD_JSON, NULL},
        /* attributes */
        {"{" BASE ",\"attributes\":{}}", AD_NONE, NULL},
        {"{" BASE ",\"attributes\":{\"a\":\"\",\"b\":\"x\\ny\"}}", AD_NONE, NULL},
        {"{" BASE ",\"attributes\":{\"a\":1}}", AD_WRONG_TYPE, "attributes"},
        {"{" BASE ",\"attributes\":{\"a\":{}}}", AD_WRONG_TYPE, "attributes"},
        {"{" BASE ",\"attributes\":[]}", AD_WRONG_TYPE, "attributes"},
        {"{" BASE ",\"attributes\":{\"\":\"x\"}}", AD_BAD_CHARACTER, "attributes"},
        {"{" BASE ",\"attributes\":{\"a\":\"1\",\"b\":\"2\",\"a\":\"3\"}}", AD_DUPLICATE_KEY,
         "attributes"},
};

static void test_bad_input_table(void **state)
{
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
                check_one(table[i].body, table[i].want, table[i].field);
}

/* A NUL byte in the body, raw and in a string. */
static void test_nul_bytes(void **state)
{
        static const char text[] = "{" BASE ",\"ad_id\":\"a\0b\"}";
        struct ad_parse_rules r = rules();

        assert_int_equal(parse_as(AD_BODY_JSON, df_bytes(text, sizeof(text) - 1), &r).whole,
                         AD_BAD_JSON);
        assert_int_equal(parse_as(AD_BODY_JSON, df_bytes("\0\0", 2), &r).whole, AD_BAD_JSON);
        assert_int_equal(
                parse_as(AD_BODY_NDJSON, df_bytes(text, sizeof(text) - 1), &r).rejected[0].reason,
                AD_BAD_JSON);
}

static void test_every_field_is_read(void **state)
{
        struct ad_parse_result res = parse(full_event);

        assert_int_equal(res.count, 1);
        assert_int_equal(res.warning_count, 0);
        check_full(&res.events[0]);
}

/* Cut at every byte, and each byte replaced in turn: a refusal or an event, never a crash, and a
 * body that was cut is never accepted. */
static void test_json_broken_at_every_byte(void **state)
{
        static const char junk[] = {0,   '"', '{', '}',        '\\',      ',',
                                    ':', '0', 'x', (char)0xff, (char)0xc3};
        size_t len = strlen(full_event);
        char *copy = strdup(full_event);
        struct ad_parse_rules r = rules();

        assert_non_null(copy);
        for (size_t i = 0; i < len; i++) {
                struct ad_parse_result res = parse_as(AD_BODY_JSON, df_bytes(copy, i), &r);

                assert_int_equal(res.whole, i ? AD_BAD_JSON : AD_EMPTY_BODY);
                for (size_t k = 0; k < sizeof(junk); k++) {
                        copy[i] = junk[k];
                        res = parse_as(AD_BODY_JSON, df_bytes(copy, len), &r);
                        assert_true(res.whole != AD_NONE || res.count + res.rejected_count == 1);
                        res = parse_as(AD_BODY_NDJSON, df_bytes(copy, len), &r);
                        assert_int_equal(res.count + res.rejected_count, 1);
                }
                copy[i] = full_event[i];
        }
        free(copy);
}

static void test_limits_one_beyond(void **state)
{
        static const struct {
                const char *before;
                size_t max;
        } strings[] = {
                {"{\"type\":\"click\",\"campaign_id\":\"c\",\"event_id\":\"", AD_EVENT_ID_MAX},
                {"{\"event_id\":\"e\",\"type\":\"click\",\"campaign_id\":\"", AD_ID_MAX},
                {"{" BASE ",\"country\":\"", AD_ID_MAX},
                {"{" BASE ",\"user_id\":\"", AD_ID_MAX},
        };
        struct df_buf b = {0};

        for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++)
                for (size_t beyond = 0; beyond < 2; beyond++) {
                        df_buf_clear(&b);
                        df_buf_printf(&b, "%s", strings[i].before);
                        for (size_t k = 0; k < strings[i].max + beyond; k++)
                                df_put_u8(&b, 'x');
                        df_buf_printf(&b, "\"}%c", 0);
                        check_one((const char *)b.data, beyond ? AD_TOO_LONG : AD_NONE, NULL);
                }
        for (int count = AD_ATTRIBUTES_MAX; count <= AD_ATTRIBUTES_MAX + 1; count++) {
                df_buf_clear(&b);
                df_buf_printf(&b, "{" BASE ",\"attributes\":{");
                for (int k = 0; k < count; k++) /* the longest keys and values */
                        df_buf_printf(&b, "%s\"%064d\":\"%0256d\"", k ? "," : "", k, k);
                df_buf_printf(&b, "}}%c", 0);
                check_one((const char *)b.data,
                          count > AD_ATTRIBUTES_MAX ? AD_TOO_MANY_ATTRIBUTES : AD_NONE, NULL);
        }
        df_buf_clear(&b);
        df_buf_printf(&b, "{" BASE ",\"attributes\":{\"%065d\":\"\"}}%c", 1, 0);
        check_one((const char *)b.data, AD_TOO_LONG, "attributes");
        df_buf_clear(&b);
        df_buf_printf(&b, "{" BASE ",\"attributes\":{\"k\":\"%0257d\"}}%c", 1, 0);
        check_one((const char *)b.data, AD_TOO_LONG, "attributes");
        df_buf_release(&b);
}

/* An event at every limit still fits AD_EVENT_BYTES_MAX, so no accepted event is refused later. */
static void test_largest_event_fits(void **state)
{
        static const char *const names[] = {"advertiser_id", "campaign_id",  "ad_id",
                                            "publisher_id",  "placement_id", "user_id",
                                            "country",       "device",       "click_id"};
        struct df_buf b = {0}, wire = {0};
        struct ad_parse_result res;

        df_buf_printf(&b, "{\"event_id\":\"%0128d\",\"type\":\"conversion\"", 1);
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                df_buf_printf(&b, ",\"%s\":\"%064d\"", names[i], 1);
        df_buf_printf(&b,
                      ",\"cost_micros\":1000000000000000,\"currency\":\"EUR\",\"attributes\":{");
        for (int k = 0; k < AD_ATTRIBUTES_MAX; k++)
                df_buf_printf(&b, "%s\"%064d\":\"%0256d\"", k ? "," : "", k, k);
        df_buf_printf(&b, "}}%c", 0);
        res = parse((const char *)b.data);
        assert_int_equal(res.count, 1);
        ad_wire_event(&wire, &res.events[0]);
        assert_true(wire.len <= AD_EVENT_BYTES_MAX);
        df_buf_release(&b);
        df_buf_release(&wire);
}

static void put_events(struct df_buf *b, size_t count, const char *between)
{
        for (size_t i = 0; i < count; i++)
                df_buf_printf(b,
                              "%s{\"event_id\":\"e%zu\",\"type\":\"click\",\"campaign_id\":\"c\"}",
                              i ? between : "", i);
}

static void test_batch_sizes(void **state)
{
        static const size_t sizes[] = {1, AD_BATCH_EVENTS_MAX, AD_BATCH_EVENTS_MAX + 1, 100000};
        struct ad_parse_rules r = rules();
        struct df_buf b = {0};

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
                for (int form = 0; form < 3; form++) {
                        enum ad_body_format format = form == 2 ? AD_BODY_NDJSON : AD_BODY_JSON;
                        struct ad_parse_result res;

                        df_buf_clear(&b);
                        df_buf_printf(&b, "%s", form == 0 ? "[" : form == 1 ? "{\"events\":[" : "");
                        put_events(&b, sizes[i], form == 2 ? "\n" : ",");
                        df_buf_printf(&b, "%s", form == 0 ? "]" : form == 1 ? "]}" : "");
                        res = parse_as(format, df_buf_bytes(&b), &r);
                        if (sizes[i] > AD_BATCH_EVENTS_MAX) {
                                assert_int_equal(res.whole, AD_BATCH_TOO_LARGE);
                                continue;
                        }
                        assert_int_equal(res.whole, AD_NONE);
                        assert_int_equal(res.count, sizes[i]);
                        for (size_t k = 0; k < res.count; k++) {
                                char id[32];

                                (void)snprintf(id, sizeof(id), "e%zu", k);
                                assert_true(df_bytes_eq(res.events[k].event_id, df_bytes_str(id)));
                                assert_int_equal(res.indexes[k], k);
                        }
                        assert_int_equal(res.warning_count, sizes[i]); /* time_missing */
                }
        df_buf_release(&b);
}

/* 10 MB in one string; millions of tiny values: bounded memory, a code, and small bodies go on. */
static void test_huge_bodies(void **state)
{
        struct ad_parse_rules r = rules();
        struct df_buf b = {0};

        df_buf_printf(&b, "[{" BASE "},{" BASE ",\"ad_id\":\"");
        assert_true(df_buf_reserve(&b, 10 << 20));
        memset(b.data + b.len, 'x', 10 << 20);
        b.len += 10 << 20;
        df_buf_printf(&b, "\"}]");
        {
                struct ad_parse_result res = parse_as(AD_BODY_JSON, df_buf_bytes(&b), &r);

                assert_int_equal(res.count, 1);
                assert_int_equal(res.rejected_count, 1);
                assert_int_equal(res.rejected[0].reason, AD_TOO_LONG);
                assert_int_equal(res.rejected[0].index, 1);
        }
        df_buf_clear(&b);
        df_buf_printf(&b, "{" BASE ",\"colour\":["); /* one event, too many values to be any */
        for (int i = 0; i < AD_JSON_NODES_MAX; i++)
                df_buf_append(&b, "0,", 2);
        df_buf_printf(&b, "0]}");
        assert_int_equal(parse_as(AD_BODY_JSON, df_buf_bytes(&b), &r).whole, AD_BATCH_TOO_LARGE);
        assert_int_equal(parse("{" BASE "}").count, 1);
        df_buf_release(&b);
}

/* Good events beside bad ones are accepted, each with its own index. */
static void test_good_beside_bad(void **state)
{
        struct ad_parse_result res =
                parse("[{" BASE "}, 5, {\"event_id\":\"e2\"}, {\"event_id\":\"e3\","
                      "\"type\":\"click\",\"campaign_id\":\"c\"}, null]");
        static const uint32_t bad[] = {1, 2, 4};
        static const enum ad_reason why[] = {AD_NOT_AN_EVENT, AD_MISSING_FIELD, AD_NOT_AN_EVENT};

        assert_int_equal(res.whole, AD_NONE);
        assert_int_equal(res.count, 2);
        assert_int_equal(res.indexes[0], 0);
        assert_int_equal(res.indexes[1], 3);
        assert_int_equal(res.rejected_count, 3);
        for (int i = 0; i < 3; i++) {
                assert_int_equal(res.rejected[i].index, bad[i]);
                assert_int_equal(res.rejected[i].reason, why[i]);
        }
        assert_true(df_bytes_eq(res.rejected[1].event_id, df_bytes_str("e2")));
}

static void test_rejection_names_id_after_the_bad_field(void **state)
{
        struct ad_parse_result res = parse(
                "{\"colour\":1,\"type\":\"click\",\"campaign_id\":\"c\",\"event_id\":\"e9\"}");

        assert_int_equal(res.rejected[0].reason, AD_UNKNOWN_FIELD);
        assert_true(df_bytes_eq(res.rejected[0].event_id, df_bytes_str("e9")));
}

static void test_ndjson(void **state)
{
        static const char body[] =
                "{" BASE "}\r\n"
                "\n  \n"
                "{broken\n"
                "{\"event_id\":\"e2\",\"type\":\"nope\"}\n"
                "{\"event_id\":\"\xff\"}\n"
                "{\"event_id\":\"e4\",\"type\":\"click\",\"campaign_id\":\"c4\"}";
        struct ad_parse_rules r = rules();
        struct ad_parse_result res = parse_as(AD_BODY_NDJSON, df_bytes(body, sizeof(body) - 1), &r);
        static const enum ad_reason why[] = {AD_BAD_JSON, AD_UNKNOWN_TYPE, AD_BAD_UTF8};

        assert_int_equal(res.whole, AD_NONE);
        assert_int_equal(res.count, 2);
        assert_true(df_bytes_eq(res.events[0].event_id, df_bytes_str("e1")));
        assert_true(df_bytes_eq(res.events[1].event_id, df_bytes_str("e4")));
        assert_int_equal(res.indexes[1], 4);
        assert_int_equal(res.rejected_count, 3);
        for (uint32_t i = 0; i < 3; i++) {
                assert_int_equal(res.rejected[i].index, i + 1);
                assert_int_equal(res.rejected[i].reason, why[i]);
        }
        assert_true(df_bytes_eq(res.rejected[1].event_id, df_bytes_str("e2")));
        assert_int_equal(parse_as(AD_BODY_NDJSON, df_bytes_str("\n\r\n"), &r).whole,
                         AD_EMPTY_BATCH);
}

/* A public key may not state money, in any form; everything else of it is welcome. */
static void test_public_key_states_no_money(void **state)
{
        static const char *const bodies[] = {
                "{" BASE ",\"currency\":\"EUR\",\"cost_micros\":0}",
                "{" BASE ",\"currency\":\"EUR\",\"payout_micros\":1}",
                "{" BASE ",\"currency\":\"EUR\",\"conversion_value_micros\":1}",
        };
        struct ad_parse_rules r = rules();

        r.money_allowed = false;
        for (size_t i = 0; i < 3; i++) {
                struct ad_parse_result res = parse_as(AD_BODY_JSON, df_bytes_str(bodies[i]), &r);

                assert_int_equal(res.rejected_count, 1);
                assert_int_equal(res.rejected[0].reason, AD_MONEY_NOT_ALLOWED);
        }
        assert_int_equal(parse_as(AD_BODY_JSON, df_bytes_str("{" BASE "}"), &r).count, 1);
}

static void test_defaults_are_marked(void **state)
{
        struct ad_parse_result res = parse("{" BASE "}");
        struct ad_event *ev = &res.events[0];

        assert_int_equal(ev->event_ms, NOW_MS);
        assert_int_equal(ev->flags, AD_EV_TIME_MISSING | AD_EV_CURRENCY_DEFAULTED);
        assert_true(df_bytes_eq(ev->currency, df_bytes_str("USD")));
        assert_int_equal(res.warning_count, 1);
        assert_int_equal(res.warnings[0].reason, AD_TIME_MISSING);
        /* The same currency twice is the same as once. */
        res = parse("{" BASE ",\"currency\":\"EUR\",\"conversion_value_currency\":\"EUR\"}");
        assert_int_equal(res.events[0].value_currency.len, 0);
}

/* W5 as far as ingest can know it: the minute's end + grace + out-of-orderness has passed. */
static void test_probably_late(void **state)
{
        int64_t late = AD_GRACE_MS + AD_OUT_OF_ORDERNESS_MS; /* 15:10 before 10:00:00 */
        int64_t end = NOW_MS - late, minute = end / 60000 * 60000;
        char body[256];

        for (int i = 0; i < 2; i++) {
                /* i = 0: the last ms of a minute that ended more than `late` ago */
                (void)snprintf(body, sizeof(body), "{" BASE ",\"event_time\":%" PRId64 "}",
                               minute - 1 + i);
                {
                        struct ad_parse_result res = parse(body);

                        assert_int_equal(res.count, 1);
                        assert_int_equal(res.warning_count, i == 0);
                        if (i == 0)
                                assert_int_equal(res.warnings[0].reason, AD_PROBABLY_LATE);
                }
        }
}

/* Fingerprint: what the client stated, nothing that ingest added (DESIGN section 3). */
static void test_fingerprint_ignores_defaults(void **state)
{
        struct ad_parse_rules r = rules();
        uint64_t a = parse("{" BASE ",\"event_time\":1795514400000}").events[0].fingerprint;
        uint64_t b = parse("{" BASE ",\"event_time\":\"2026-11-24T10:00:00Z\","
                           "\"attributes\":{\"k\":\"v\"}}")
                             .events[0]
                             .fingerprint;

        assert_int_equal(a, b);
        r.now_ms += 1000;
        r.currency = df_bytes_str("JPY");
        assert_int_equal(a, parse_as(AD_BODY_JSON,
                                     df_bytes_str("{" BASE ",\"event_time\":1795514400000}"), &r)
                                    .events[0]
                                    .fingerprint);
        assert_int_not_equal(
                a, parse("{" BASE ",\"event_time\":1795514400001}").events[0].fingerprint);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bad_input_table),
                cmocka_unit_test(test_nul_bytes),
                cmocka_unit_test(test_every_field_is_read),
                cmocka_unit_test(test_json_broken_at_every_byte),
                cmocka_unit_test(test_limits_one_beyond),
                cmocka_unit_test(test_largest_event_fits),
                cmocka_unit_test(test_batch_sizes),
                cmocka_unit_test(test_huge_bodies),
                cmocka_unit_test(test_good_beside_bad),
                cmocka_unit_test(test_rejection_names_id_after_the_bad_field),
                cmocka_unit_test(test_ndjson),
                cmocka_unit_test(test_public_key_states_no_money),
                cmocka_unit_test(test_defaults_are_marked),
                cmocka_unit_test(test_probably_late),
                cmocka_unit_test(test_fingerprint_ignores_defaults),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
