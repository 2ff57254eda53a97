/* Bad input of POST /events as protobuf: the same codes as JSON, the same event from the same
 * fields. */
#include "parse_test.h"

/* One event's fields, as protobuf, through the canonical encoder. */
static void put_entry(struct df_buf *b, const struct ad_event *ev)
{
        struct df_buf one = {0};

        ad_wire_event(&one, ev);
        ad_wire_batch_entry(b, df_buf_bytes(&one));
        df_buf_release(&one);
}

static struct ad_event simple_event(void)
{
        struct ad_event ev = {.event_id = df_bytes_str("e1"), .type = AD_CLICK};

        ev.dims[AD_DIM_CAMPAIGN] = df_bytes_str("c1");
        return ev;
}

static void test_protobuf_equals_json(void **state)
{
        static const char attributes[] = "\x92\x01\x06\x0a\x01"
                                         "z\x12\x01"
                                         "1"
                                         "\x92\x01\x06\x0a\x01"
                                         "a\x12\x01"
                                         "2";
        struct ad_parse_rules r = rules();
        struct ad_parse_result res = parse(full_event);
        struct ad_event ev = res.events[0];
        uint64_t fingerprint = ev.fingerprint;
        struct df_buf b = {0};

        /* What ingest stamps is ignored, and attributes come in any order. */
        ev.tenant_id = df_bytes_str("somebody else");
        ev.receive_ms = 1;
        ev.labels = 255;
        ev.fingerprint = 77;
        ev.flags |= AD_EV_KEY_DERIVED | AD_EV_TIME_MISSING | AD_EV_CURRENCY_DEFAULTED;
        ev.attributes = df_bytes(attributes, sizeof(attributes) - 1);
        put_entry(&b, &ev);
        res = parse_as(AD_BODY_PROTOBUF, df_buf_bytes(&b), &r);
        assert_int_equal(res.count, 1);
        check_full(&res.events[0]);
        assert_int_equal(res.events[0].fingerprint, fingerprint);
        df_buf_release(&b);
}

static enum ad_reason proto_one(const struct ad_event *ev, const char *more, size_t len)
{
        struct ad_parse_rules r = rules();
        struct ad_parse_result res;
        struct df_buf b = {0}, one = {0};
        enum ad_reason got;

        ad_wire_event(&one, ev);
        df_buf_append(&one, more, len);
        ad_wire_batch_entry(&b, df_buf_bytes(&one));
        put_entry(&b, &(struct ad_event){.event_id = df_bytes_str("good"),
                                         .type = AD_CLICK,
                                         .dims[AD_DIM_CAMPAIGN] = df_bytes_str("c")});
        res = parse_as(AD_BODY_PROTOBUF, df_buf_bytes(&b), &r);
        assert_int_equal(res.whole, AD_NONE);
        assert_int_equal(res.count + res.rejected_count, 2);
        assert_true(df_bytes_eq(res.events[res.count - 1].event_id, df_bytes_str("good")));
        got = res.rejected_count ? res.rejected[0].reason : AD_NONE;
        df_buf_release(&b);
        df_buf_release(&one);
        return got;
}

static void test_protobuf_bad_input(void **state)
{
        static char id129[130];
        struct ad_event ev = simple_event();

        memset(id129, 'x', 129);
        assert_int_equal(proto_one(&ev, "", 0), AD_NONE);
        ev.event_id = df_bytes_str(id129);
        assert_int_equal(proto_one(&ev, "", 0), AD_TOO_LONG);
        ev.event_id = df_bytes(NULL, 0);
        assert_int_equal(proto_one(&ev, "", 0), AD_MISSING_FIELD);
        ev = simple_event();
        ev.type = 0;
        assert_int_equal(proto_one(&ev, "", 0), AD_MISSING_FIELD);
        ev.type = 4;
        assert_int_equal(proto_one(&ev, "", 0), AD_UNKNOWN_TYPE);
        ev = simple_event();
        ev.dims[AD_DIM_AD] = df_bytes_str("\xff");
        assert_int_equal(proto_one(&ev, "", 0), AD_BAD_UTF8);
        ev.dims[AD_DIM_AD] = df_bytes("a\0b", 3);
        assert_int_equal(proto_one(&ev, "", 0), AD_BAD_CHARACTER);
        ev = simple_event();
        ev.event_ms = -5;
        assert_int_equal(proto_one(&ev, "", 0), AD_BAD_TIME);
        ev = simple_event();
        ev.currency = df_bytes_str("EUR");
        ev.flags = AD_EV_HAS_COST;
        ev.cost_nanos = -1;
        assert_int_equal(proto_one(&ev, "", 0), AD_NEGATIVE);
        ev.cost_nanos = AD_MONEY_MICROS_MAX * 1000;
        assert_int_equal(proto_one(&ev, "", 0), AD_NONE);
        ev.cost_nanos++;
        assert_int_equal(proto_one(&ev, "", 0), AD_OUT_OF_RANGE);
        ev.cost_nanos = 1;
        ev.currency = df_bytes_str("ZZZ");
        assert_int_equal(proto_one(&ev, "", 0), AD_UNKNOWN_CURRENCY);
        ev.currency = df_bytes_str("");
        assert_int_equal(proto_one(&ev, "", 0), AD_MISSING_CURRENCY);
        ev = simple_event();
        assert_int_equal(proto_one(&ev, "\x0a\x05zz", 4), AD_BAD_PROTOBUF); /* cut inside */
        assert_int_equal(proto_one(&ev, "\x78\x01", 2), AD_NONE);           /* another wire type */
        assert_int_equal(proto_one(&ev, "\xc8\x06\x01", 3), AD_NONE);       /* an unknown field */
        assert_int_equal(proto_one(&ev,
                                   "\x92\x01\x06\x0a\x01"
                                   "a\x12\x01"
                                   "1\x92\x01\x03\x0a\x01"
                                   "a",
                                   15),
                         AD_DUPLICATE_KEY);
        /* Attributes that do not stand side by side are legal protobuf. */
        assert_int_equal(proto_one(&ev,
                                   "\x92\x01\x03\x0a\x01"
                                   "b\x4a\x01"
                                   "u\x92\x01\x03\x0a\x01"
                                   "a",
                                   15),
                         AD_NONE);
}

static void test_protobuf_broken_at_every_byte(void **state)
{
        struct ad_parse_rules r = rules();
        struct ad_event ev = parse(full_event).events[0];
        struct df_buf b = {0};

        put_entry(&b, &ev);
        put_entry(&b, &ev);
        for (size_t i = 0; i < b.len; i++) {
                struct ad_parse_result res = parse_as(AD_BODY_PROTOBUF, df_bytes(b.data, i), &r);
                uint8_t was = b.data[i];

                if (i == b.len / 2)
                        assert_int_equal(res.count, 1);
                else
                        assert_int_equal(res.whole, i ? AD_BAD_PROTOBUF : AD_EMPTY_BODY);
                for (int bit = 0; bit < 8; bit++) {
                        b.data[i] = (uint8_t)(was ^ 1 << bit);
                        res = parse_as(AD_BODY_PROTOBUF, df_buf_bytes(&b), &r);
                        assert_true(res.whole || res.count + res.rejected_count <= 2);
                }
                b.data[i] = was;
        }
        df_buf_clear(&b);
        ev = simple_event();
        for (size_t i = 0; i <= AD_BATCH_EVENTS_MAX; i++)
                put_entry(&b, &ev);
        assert_int_equal(parse_as(AD_BODY_PROTOBUF, df_buf_bytes(&b), &r).whole,
                         AD_BATCH_TOO_LARGE);
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_protobuf_equals_json),
                cmocka_unit_test(test_protobuf_bad_input),
                cmocka_unit_test(test_protobuf_broken_at_every_byte),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
