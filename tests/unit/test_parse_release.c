/* Releases: events as the log holds them, let in again with what ingest stamped when it first took
 * them. */
#include "parse_test.h"

#define PLACE "release:3/18446744073709551615/999"

static struct ad_event stored(void)
{
        struct ad_parse_result res = parse(full_event);
        struct ad_event ev;

        assert_int_equal(res.count, 1);
        ev = res.events[0];
        ev.labels = AD_LABEL_TEST;
        ev.source = df_bytes_str(PLACE);
        ev.receive_ms = NOW_MS - 86400000;
        return ev;
}

/* As the only event of a release; encoded before the parser's memory goes. */
static struct ad_parse_result release(const struct ad_event *ev, const struct ad_parse_rules *r)
{
        struct df_buf b = {0}, one = {0};
        struct ad_parse_result res;

        ad_wire_event(&one, ev);
        ad_wire_batch_entry(&b, df_buf_bytes(&one));
        res = parse_as(AD_BODY_RELEASE, df_buf_bytes(&b), r);
        df_buf_release(&one);
        df_buf_release(&b);
        return res;
}

static void test_stamps_stay(void **state)
{
        struct ad_parse_rules r = rules();
        struct ad_event was = stored();
        uint64_t fingerprint = was.fingerprint;
        struct ad_parse_result res = release(&was, &r);
        const struct ad_event *ev = &res.events[0];

        assert_int_equal(res.count, 1);
        assert_int_equal(ev->fingerprint, fingerprint);
        assert_int_equal(ad_event_fingerprint(ev), fingerprint);
        assert_int_equal(ev->labels, AD_LABEL_TEST);
        assert_int_equal(ev->receive_ms, NOW_MS);
        assert_true(df_bytes_eq(ev->source, df_bytes_str(PLACE)));
        assert_true(df_bytes_eq(ev->tenant_id, df_bytes_str("t")));
        assert_true(df_bytes_eq(ev->user_id, df_bytes_str("u")));
        assert_int_equal(ev->cost_nanos, 187400000);
        assert_int_equal(ev->attributes.len, 18);
        assert_false(ev->flags & (AD_EV_USER_SEALED | AD_EV_TIME_MISSING));
}

static void test_sealed_user_id(void **state)
{
        static const uint8_t sealed[AD_SEALED_ID_MAX] = {1, 2, 3};
        struct ad_parse_rules r = rules();
        struct ad_event was = stored();
        struct ad_parse_result res;

        was.user_id = df_bytes(sealed, sizeof(sealed));
        was.flags |= AD_EV_USER_SEALED;
        was.fingerprint = 77; /* of the id as it was stated: nobody here can make it again */
        res = release(&was, &r);
        assert_int_equal(res.count, 1);
        assert_int_equal(res.events[0].fingerprint, 77);
        assert_true(res.events[0].flags & AD_EV_USER_SEALED);
        assert_true(df_bytes_eq(res.events[0].user_id, df_bytes(sealed, sizeof(sealed))));
}

static void test_time_missing(void **state)
{
        struct ad_parse_rules r = rules();
        struct ad_event was = stored();
        struct ad_parse_result res;

        was.flags |= AD_EV_TIME_MISSING | AD_EV_CURRENCY_DEFAULTED;
        was.event_ms = NOW_MS - 5000;
        was.fingerprint = ad_event_fingerprint(&was);
        res = release(&was, &r);
        assert_int_equal(res.count, 1);
        assert_int_equal(res.warning_count, 0);
        assert_int_equal(res.events[0].event_ms, NOW_MS - 5000);
        assert_true(res.events[0].flags & AD_EV_TIME_MISSING);
        assert_true(res.events[0].flags & AD_EV_CURRENCY_DEFAULTED);
}

static void refused(const struct ad_event *ev, enum ad_reason reason, const char *field)
{
        struct ad_parse_rules r = rules();
        struct ad_parse_result res = release(ev, &r);

        assert_int_equal(res.count, 0);
        assert_int_equal(res.rejected_count, 1);
        assert_int_equal(res.rejected[0].reason, reason);
        if (field)
                assert_string_equal(res.rejected[0].field, field);
        assert_true(df_bytes_eq(res.rejected[0].event_id, df_bytes_str("e-1")));
}

static void test_refusals(void **state)
{
        static const char *const sources[] = {
                "http",         "release:",       "release:1/2",    "release:1/2/",
                "release:1//3", "release:1/2/3/", "release:1/2/3x", "release:-1/2/3",
        };
        struct ad_event ev = stored();

        ev.tenant_id = df_bytes_str("other");
        refused(&ev, AD_FORBIDDEN, "tenant_id");
        ev = stored();
        ev.fingerprint ^= 1;
        refused(&ev, AD_WRONG_TYPE, "fingerprint");
        for (size_t i = 0; i < sizeof(sources) / sizeof(sources[0]); i++) {
                ev = stored();
                ev.source = df_bytes_str(sources[i]);
                refused(&ev, AD_WRONG_TYPE, "source");
        }
        ev = stored();
        ev.event_ms = NOW_MS + AD_FUTURE_MAX_MS + 1;
        ev.fingerprint = ad_event_fingerprint(&ev);
        refused(&ev, AD_EVENT_TIME_FUTURE, "event_time");
        ev = stored();
        ev.event_ms = NOW_MS - AD_ACCEPTED_AGE_MS - 1;
        ev.fingerprint = ad_event_fingerprint(&ev);
        refused(&ev, AD_EVENT_TIME_OLD, "event_time");
        ev = stored();
        ev.event_ms = 0;
        ev.fingerprint = ad_event_fingerprint(&ev);
        refused(&ev, AD_BAD_TIME, "event_time");
        ev = stored();
        ev.dims[AD_DIM_CAMPAIGN] = df_bytes(NULL, 0);
        ev.fingerprint = ad_event_fingerprint(&ev);
        refused(&ev, AD_MISSING_FIELD, "campaign_id");
        ev = stored();
        ev.dims[AD_DIM_AD] = df_bytes_str("a\tb");
        ev.fingerprint = ad_event_fingerprint(&ev);
        refused(&ev, AD_BAD_CHARACTER, "ad_id");
}

static void test_bodies(void **state)
{
        struct ad_parse_rules r = rules();
        struct ad_batch header = {.start_id = 7};
        struct df_buf b = {0};
        struct ad_parse_result res;

        assert_int_equal(parse_as(AD_BODY_RELEASE, df_bytes_str(""), &r).whole, AD_EMPTY_BODY);
        assert_int_equal(parse_as(AD_BODY_RELEASE, df_bytes_str("x"), &r).whole, AD_BAD_PROTOBUF);
        ad_wire_batch_entry(&b, df_bytes_str("\x0a\x01x"));
        res = parse_as(AD_BODY_RELEASE, df_buf_bytes(&b), &r);
        assert_int_equal(res.rejected_count, 1);
        ad_wire_batch_header(&b, &header); /* a record, not a batch of events alone */
        assert_int_equal(parse_as(AD_BODY_RELEASE, df_buf_bytes(&b), &r).whole, AD_BAD_PROTOBUF);
        df_buf_clear(&b);
        for (int i = 0; i < AD_BATCH_EVENTS_MAX; i++)
                ad_wire_batch_entry(&b, df_bytes_str("\x0a\x01x"));
        res = parse_as(AD_BODY_RELEASE, df_buf_bytes(&b), &r);
        assert_int_equal(res.rejected_count, AD_BATCH_EVENTS_MAX);
        ad_wire_batch_entry(&b, df_bytes_str("\x0a\x01x"));
        assert_int_equal(parse_as(AD_BODY_RELEASE, df_buf_bytes(&b), &r).whole, AD_BATCH_TOO_LARGE);
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_stamps_stay),  cmocka_unit_test(test_sealed_user_id),
                cmocka_unit_test(test_time_missing), cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_bodies),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
