/* parse_test.h - shared by the tests of POST /events bodies: a parser, its rules, and one event
 * that states every field. */
#ifndef PARSE_TEST_H
#define PARSE_TEST_H

#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "jobs/ingest/parse.h"

#define NOW_MS 1795514400000LL /* 2026-11-24T10:00:00Z */

static struct ad_parser *parser;

static inline int setup(void **state)
{
        return ad_parser_create(&parser, NULL);
}

static inline int teardown(void **state)
{
        ad_parser_destroy(parser);
        return 0;
}

static inline struct ad_parse_rules rules(void)
{
        return (struct ad_parse_rules){
                .now_ms = NOW_MS,
                .tenant_id = df_bytes_str("t"),
                .source = df_bytes_str("http"),
                .currency = df_bytes_str("USD"),
                .accepted_age_ms = AD_ACCEPTED_AGE_MS,
                .late_after_ms = AD_GRACE_MS + AD_OUT_OF_ORDERNESS_MS,
                .money_allowed = true,
        };
}

/* The body is copied to the exact size, so that the sanitizer sees a read beyond it. */
static inline struct ad_parse_result parse_as(enum ad_body_format format, struct df_bytes body,
                                              const struct ad_parse_rules *r)
{
        static uint8_t *copy;
        struct ad_parse_result res;

        free(copy);
        copy = malloc(body.len ? body.len : 1);
        assert_non_null(copy);
        if (body.len)
                memcpy(copy, body.data, body.len);
        memset(&res, 0xaa, sizeof(res));
        assert_int_equal(ad_parse_body(parser, format, df_bytes(copy, body.len), r, &res, NULL), 0);
        if (res.whole != AD_NONE) {
                assert_int_equal(res.count + res.rejected_count + res.warning_count, 0);
                assert_true(res.message[0]);
        }
        return res;
}

static inline struct ad_parse_result parse(const char *body)
{
        struct ad_parse_rules r = rules();

        return parse_as(AD_BODY_JSON, df_bytes_str(body), &r);
}

#define BASE "\"event_id\":\"e1\",\"type\":\"click\",\"campaign_id\":\"c1\""

static const char *const full_event =
        "{\"event_id\":\"e-1\",\"type\":\"conversion\",\"event_time\":\"2026-11-24T09:59:58.5Z\","
        "\"advertiser_id\":\"a\",\"campaign_id\":\"c\",\"ad_id\":\"d\",\"publisher_id\":\"p\","
        "\"placement_id\":\"l\",\"user_id\":\"u\",\"country\":\"DE\",\"device\":\"phone\","
        "\"click_id\":\"k\",\"cost_micros\":187400,\"payout_micros\":93700,"
        "\"conversion_value_micros\":12345678,\"currency\":\"EUR\","
        "\"conversion_value_currency\":\"RUB\",\"attributes\":{\"z\":\"1\",\"a\":\"2\"}}";

static inline void check_full(const struct ad_event *ev)
{
        static const char *const dims[AD_DIM_COUNT] = {"a", "c", "d", "p", "l", "DE", "phone"};
        static const char attributes[] = "\x92\x01\x06\x0a\x01"
                                         "a\x12\x01"
                                         "2"
                                         "\x92\x01\x06\x0a\x01"
                                         "z\x12\x01"
                                         "1";

        assert_true(df_bytes_eq(ev->event_id, df_bytes_str("e-1")));
        assert_int_equal(ev->type, AD_CONVERSION);
        assert_int_equal(ev->event_ms, NOW_MS - 1500);
        for (int i = 0; i < AD_DIM_COUNT; i++)
                assert_true(df_bytes_eq(ev->dims[i], df_bytes_str(dims[i])));
        assert_true(df_bytes_eq(ev->user_id, df_bytes_str("u")));
        assert_true(df_bytes_eq(ev->click_id, df_bytes_str("k")));
        assert_int_equal(ev->cost_nanos, 187400000);
        assert_int_equal(ev->payout_nanos, 93700000);
        assert_int_equal(ev->value_nanos, 12345678000);
        assert_true(df_bytes_eq(ev->currency, df_bytes_str("EUR")));
        assert_true(df_bytes_eq(ev->value_currency, df_bytes_str("RUB")));
        assert_true(df_bytes_eq(ev->attributes, df_bytes(attributes, sizeof(attributes) - 1)));
        assert_true(df_bytes_eq(ev->tenant_id, df_bytes_str("t")));
        assert_true(df_bytes_eq(ev->source, df_bytes_str("http")));
        assert_int_equal(ev->receive_ms, NOW_MS);
        assert_int_equal(ev->flags, AD_EV_HAS_COST | AD_EV_HAS_PAYOUT | AD_EV_HAS_VALUE);
        assert_int_equal(ev->schema_version, AD_SCHEMA_VERSION);
        assert_int_equal(ev->fingerprint, ad_event_fingerprint(ev));
}

#endif
