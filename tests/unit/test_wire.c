/* test_wire.c - events and the records of `events` (proto/wire_event.c, wire_batch.c) against the
 * code that protoc generates from the same .proto files, cut short at every byte, and one beyond
 * every limit. */
#include "unit.h"

#include "wire_test.h"

#define SEEDS 300

/* ---- events ---- */

static int decode_event(struct df_bytes bytes, struct df_error *err)
{
        struct ad_event ev;

        return ad_wire_event_decode(bytes, &ev, err);
}

static void same_money(const Adtally__V1__Money *m, bool stated, int64_t nanos)
{
        assert_int_equal(m != NULL, stated);
        if (!stated)
                return;
        assert_true((__int128)m->units * 1000000000 + m->nanos == nanos);
        assert_false((m->units > 0 && m->nanos < 0) || (m->units < 0 && m->nanos > 0));
}

static void same_as_generated(const Adtally__V1__Event *m, const struct ad_event *ev)
{
        const char *const dims[AD_DIM_COUNT] = {m->advertiser_id, m->campaign_id,  m->ad_id,
                                                m->publisher_id,  m->placement_id, m->country,
                                                m->device};

        same_text(m->event_id, ev->event_id);
        for (int i = 0; i < AD_DIM_COUNT; i++)
                same_text(dims[i], ev->dims[i]);
        if (ev->flags & AD_EV_USER_SEALED) {
                same_text(m->user_id, (struct df_bytes){0});
                assert_true(df_bytes_eq(df_bytes(m->user_id_sealed.data, m->user_id_sealed.len),
                                        ev->user_id));
        } else {
                same_text(m->user_id, ev->user_id);
                assert_int_equal(m->user_id_sealed.len, 0);
        }
        same_text(m->click_id, ev->click_id);
        same_text(m->currency, ev->currency);
        same_text(m->conversion_value_currency, ev->value_currency);
        same_text(m->tenant_id, ev->tenant_id);
        same_text(m->source, ev->source);
        same_money(m->cost, ev->flags & AD_EV_HAS_COST, ev->cost_nanos);
        same_money(m->payout, ev->flags & AD_EV_HAS_PAYOUT, ev->payout_nanos);
        same_money(m->conversion_value, ev->flags & AD_EV_HAS_VALUE, ev->value_nanos);
        assert_int_equal(m->type, ev->type);
        assert_int_equal(m->event_time_ms, ev->event_ms);
        assert_int_equal(m->receive_time_ms, ev->receive_ms);
        assert_int_equal(m->labels, ev->labels);
        assert_int_equal(m->fingerprint, ev->fingerprint);
        assert_int_equal(m->schema_version, ev->schema_version);
        assert_int_equal(m->key_source, (ev->flags & AD_EV_KEY_DERIVED) != 0);
        assert_int_equal(m->time_missing, (ev->flags & AD_EV_TIME_MISSING) != 0);
        assert_int_equal(m->currency_defaulted, (ev->flags & AD_EV_CURRENCY_DEFAULTED) != 0);
}

/* What we write, the generated code reads, and would write with the same bytes; and we read it back
 * as it was. */
static void test_events_are_what_the_generated_code_makes(void **state)
{
        struct event_text t = {0};
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_event ev, back;
                Adtally__V1__Event *m;
                struct df_bytes e;

                random_event(&r, &ev, &t);
                df_buf_clear(&b);
                ad_wire_event(&b, &ev);
                e = exact(b.data, b.len);
                m = adtally__v1__event__unpack(NULL, e.len, e.data);
                if (!m)
                        fail_msg("seed %llu: the generated code refuses our bytes",
                                 (unsigned long long)seed);
                same_as_generated(m, &ev);
                same_bytes(e, &m->base, seed);
                ok(ad_wire_event_decode(e, &back, err));
                assert_ptr_equal(back.raw.data, e.data);
                assert_int_equal(back.raw.len, e.len);
                same_event(&ev, &back);
                if (seed <= 20) {
                        check_truncation(e, decode_event, &adtally__v1__event__descriptor, seed);
                        check_unknown_fields(e, decode_event);
                }
                check_damage(&r, e, decode_event);
                adtally__v1__event__free_unpacked(m, NULL);
                exact_free(e);
        }
        df_buf_release(&t.attributes);
        df_buf_release(&b);
}

/* ---- limits of events ---- */

static void check_limit(size_t field, struct ad_event *ev, struct df_bytes *s, size_t max)
{
        static char long_text[AD_EVENT_ID_MAX + 2];
        struct df_buf b = {0};
        struct ad_event back;

        memset(long_text, 'x', sizeof(long_text));
        for (size_t len = max; len <= max + 1; len++) {
                struct df_error err = {0};
                int rc;

                *s = df_bytes(long_text, len);
                df_buf_clear(&b);
                ad_wire_event(&b, ev);
                rc = ad_wire_event_decode(df_buf_bytes(&b), &back, &err);
                if (rc != (len == max ? 0 : DF_EPARSE))
                        fail_msg("string %zu of %zu bytes: %d", field, len, rc);
        }
        *s = (struct df_bytes){0};
        df_buf_release(&b);
}

static void test_strings_one_beyond_their_limit(void **state)
{
        struct ad_event ev = {0};

        (void)state;
        check_limit(0, &ev, &ev.event_id, AD_EVENT_ID_MAX);
        check_limit(1, &ev, &ev.tenant_id, AD_ID_MAX);
        check_limit(2, &ev, &ev.user_id, AD_ID_MAX);
        check_limit(3, &ev, &ev.click_id, AD_ID_MAX);
        check_limit(4, &ev, &ev.source, AD_ID_MAX);
        check_limit(5, &ev, &ev.currency, 3);
        check_limit(6, &ev, &ev.value_currency, 3);
        for (size_t i = 0; i < AD_DIM_COUNT; i++)
                check_limit(7 + i, &ev, &ev.dims[i], AD_ID_MAX);
        ev.flags = AD_EV_USER_SEALED;
        check_limit(7 + AD_DIM_COUNT, &ev, &ev.user_id, AD_SEALED_ID_MAX);
}

static int decode_money(int64_t units, int64_t nanos, struct ad_event *ret)
{
        struct df_error err = {0};
        struct df_buf b = {0};
        size_t m = df_pb_begin(&b, 14);
        int rc;

        df_pb_int(&b, 1, units);
        df_pb_sint(&b, 2, nanos);
        df_pb_end(&b, m);
        rc = ad_wire_event_decode(df_buf_bytes(&b), ret, &err);
        df_buf_release(&b);
        return rc;
}

static void test_money_one_beyond_its_limit(void **state)
{
        const int64_t most = AD_MONEY_MICROS_MAX / 1000000;
        static const struct {
                int64_t units, nanos;
        } refused[] = {
                {1000000001, 0}, {-1000000001, 0}, {1000000000, 1},        {-1000000000, -1},
                {1, -1},         {-1, 1},          {0, 1000000000},        {0, -1000000000},
                {INT64_MAX, 0},  {INT64_MIN, 0},   {INT64_MAX, 999999999}, {0, INT64_MAX},
                {0, INT64_MIN},  {5, 1000000000},  {-5, -1000000000},
        };
        struct ad_event ev;

        (void)state;
        for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
                assert_int_equal(decode_money(refused[i].units, refused[i].nanos, &ev), DF_EPARSE);
        for (int sign = -1; sign <= 1; sign += 2) {
                assert_int_equal(decode_money(sign * most, 0, &ev), 0);
                assert_int_equal(ev.payout_nanos, sign * AD_MONEY_MICROS_MAX * 1000);
                assert_int_equal(decode_money(sign * (most - 1), sign * 999999999, &ev), 0);
                assert_int_equal(ev.payout_nanos, sign * (AD_MONEY_MICROS_MAX * 1000 - 1));
                assert_int_equal(decode_money(0, sign * 999999999, &ev), 0);
                assert_int_equal(ev.payout_nanos, sign * 999999999);
        }
        assert_int_equal(decode_money(0, 0, &ev), 0);
        assert_int_equal(ev.payout_nanos, 0);
        assert_int_equal(ev.flags, AD_EV_HAS_PAYOUT); /* stated, though zero */
}

static int decode_attributes(size_t count, size_t key_len, size_t value_len, bool apart)
{
        static char long_text[AD_ATTRIBUTE_VALUE_MAX + 2];
        struct df_error err = {0};
        struct df_buf b = {0};
        struct ad_event ev;
        int rc;

        memset(long_text, 'x', sizeof(long_text));
        for (size_t i = 0; i < count; i++) {
                put_attribute(&b, long_text, key_len, long_text, value_len);
                if (apart)
                        df_pb_uint(&b, 26, 1);
        }
        rc = ad_wire_event_decode(df_buf_bytes(&b), &ev, &err);
        if (rc == 0)
                assert_int_equal(ev.attributes.len, b.len - (apart ? 3 : 0));
        df_buf_release(&b);
        return rc;
}

static void test_attributes_one_beyond_their_limits(void **state)
{
        (void)state;
        assert_int_equal(decode_attributes(AD_ATTRIBUTES_MAX, AD_ATTRIBUTE_KEY_MAX,
                                           AD_ATTRIBUTE_VALUE_MAX, false),
                         0);
        assert_int_equal(decode_attributes(AD_ATTRIBUTES_MAX + 1, 1, 1, false), DF_EPARSE);
        assert_int_equal(decode_attributes(1, AD_ATTRIBUTE_KEY_MAX + 1, 1, false), DF_EPARSE);
        assert_int_equal(decode_attributes(1, 1, AD_ATTRIBUTE_VALUE_MAX + 1, false), DF_EPARSE);
        assert_int_equal(decode_attributes(1, 1, 1, true), 0);
        assert_int_equal(decode_attributes(2, 1, 1, true), DF_EPARSE); /* cannot be borrowed */
}

/* The limits of the parts keep the largest event below AD_EVENT_BYTES_MAX; more is refused. */
static void test_the_size_of_an_event(void **state)
{
        static char long_text[AD_ATTRIBUTE_VALUE_MAX];
        struct df_bytes s = df_bytes(long_text, AD_ID_MAX);
        struct ad_event ev = {
                .event_id = df_bytes(long_text, AD_EVENT_ID_MAX),
                .tenant_id = s,
                .user_id = s,
                .click_id = s,
                .source = s,
                .currency = df_bytes_str("EUR"),
                .value_currency = df_bytes_str("USD"),
                .event_ms = -1,
                .receive_ms = -1,
                .cost_nanos = -AD_MONEY_MICROS_MAX * 1000 + 1,
                .payout_nanos = -AD_MONEY_MICROS_MAX * 1000 + 1,
                .value_nanos = -AD_MONEY_MICROS_MAX * 1000 + 1,
                .fingerprint = UINT64_MAX,
                .type = UINT32_MAX,
                .flags = 63,
                .labels = UINT32_MAX,
                .schema_version = UINT32_MAX,
        };
        struct df_buf attributes = {0}, b = {0};
        struct df_error e = {0};
        struct ad_event back;

        (void)state;
        memset(long_text, 'x', sizeof(long_text));
        for (int i = 0; i < AD_DIM_COUNT; i++)
                ev.dims[i] = s;
        for (int i = 0; i < AD_ATTRIBUTES_MAX; i++)
                put_attribute(&attributes, long_text, AD_ATTRIBUTE_KEY_MAX, long_text,
                              AD_ATTRIBUTE_VALUE_MAX);
        ev.attributes = df_buf_bytes(&attributes);
        ad_wire_event(&b, &ev);
        assert_in_range(b.len, 6000, AD_EVENT_BYTES_MAX);
        ok(ad_wire_event_decode(df_buf_bytes(&b), &back, err));
        same_event(&ev, &back);
        while (b.len < AD_EVENT_BYTES_MAX) /* an unknown field of two bytes, or one of three */
                df_buf_append(&b, AD_EVENT_BYTES_MAX - b.len == 3 ? "\x78\x80\x00" : "\x78\x01",
                              AD_EVENT_BYTES_MAX - b.len == 3 ? 3 : 2);
        assert_int_equal(b.len, AD_EVENT_BYTES_MAX);
        ok(ad_wire_event_decode(df_buf_bytes(&b), &back, err));
        df_buf_clear(&b);
        for (int i = 0; i < AD_EVENT_BYTES_MAX / 2 - 1; i++)
                df_buf_append(&b, "\x78\x01", 2);
        df_buf_append(&b, "\x78\x80\x00", 3);
        assert_int_equal(b.len, AD_EVENT_BYTES_MAX + 1);
        assert_int_equal(ad_wire_event_decode(df_buf_bytes(&b), &back, &e), DF_EPARSE);
        df_buf_release(&attributes);
        df_buf_release(&b);
}

/* ---- records ---- */

static int decode_batch(struct df_bytes bytes, struct df_error *err)
{
        struct ad_batch whole, peeked;
        struct df_arena a;
        int rc;

        df_arena_init(&a, 0);
        rc = ad_wire_batch_decode(bytes, 1000, &a, &whole, err);
        if (rc == 0) { /* a look from outside tells the same */
                assert_int_equal(ad_wire_batch_peek(bytes, &peeked, err), 0);
                assert_int_equal(peeked.count, whole.count);
                assert_int_equal(peeked.start_id, whole.start_id);
                assert_int_equal(peeked.has_import_end, whole.has_import_end);
        }
        df_arena_release(&a);
        return rc;
}

struct batch_text {
        char tenant[AD_ID_MAX + 1], dataset[AD_DATASET_MAX + 1];
};

static void random_header(struct random *r, struct ad_batch *h, struct batch_text *t)
{
        *h = (struct ad_batch){
                .start_id = number(r),
                .first_seq = number(r),
                .price_version = (uint32_t)number(r),
                .label_version = (uint32_t)number(r),
                .schema_version = (uint32_t)number(r),
                .has_heartbeat = below(r, 2),
                .has_import_begin = below(r, 2),
                .has_import_end = below(r, 2),
                .clock_reset = below(r, 2),
        };
        if (h->has_heartbeat)
                h->heartbeat = (struct ad_heartbeat){signed_number(r), number(r),  number(r),
                                                     number(r),        number(r),  number(r),
                                                     below(r, 2),      below(r, 2)};
        if (h->has_import_begin)
                h->import_begin = (struct ad_import_begin){number(r),
                                                           text(r, t->tenant, AD_ID_MAX),
                                                           text(r, t->dataset, AD_DATASET_MAX),
                                                           signed_number(r),
                                                           signed_number(r),
                                                           signed_number(r)};
        if (h->has_import_end)
                h->import_end = (struct ad_import_end){number(r), number(r), below(r, 2)};
}

static void same_header(const Adtally__V1__EventBatch *m, const struct ad_batch *h)
{
        assert_int_equal(m->start_id, h->start_id);
        assert_int_equal(m->first_seq, h->first_seq);
        assert_int_equal(m->price_version, h->price_version);
        assert_int_equal(m->label_version, h->label_version);
        assert_int_equal(m->schema_version, h->schema_version);
        assert_int_equal(m->clock_reset, h->clock_reset);
        assert_int_equal(m->heartbeat != NULL, h->has_heartbeat);
        if (m->heartbeat) {
                assert_int_equal(m->heartbeat->receive_time_ms, h->heartbeat.receive_ms);
                assert_int_equal(m->heartbeat->received, h->heartbeat.received);
                assert_int_equal(m->heartbeat->accepted, h->heartbeat.accepted);
                assert_int_equal(m->heartbeat->rejected, h->heartbeat.rejected);
                assert_int_equal(m->heartbeat->unanswered, h->heartbeat.unanswered);
                assert_int_equal(m->heartbeat->partition_accepted, h->heartbeat.partition_accepted);
                assert_int_equal(m->heartbeat->closing, h->heartbeat.closing);
                assert_int_equal(m->heartbeat->in_doubt, h->heartbeat.in_doubt);
        }
        assert_int_equal(m->import_begin != NULL, h->has_import_begin);
        if (m->import_begin) {
                assert_int_equal(m->import_begin->generation, h->import_begin.generation);
                same_text(m->import_begin->tenant_id, h->import_begin.tenant_id);
                same_text(m->import_begin->dataset, h->import_begin.dataset);
                assert_int_equal(m->import_begin->from_ms, h->import_begin.from_ms);
                assert_int_equal(m->import_begin->to_ms, h->import_begin.to_ms);
                assert_int_equal(m->import_begin->receive_time_ms, h->import_begin.receive_ms);
        }
        assert_int_equal(m->import_end != NULL, h->has_import_end);
        if (m->import_end) {
                assert_int_equal(m->import_end->generation, h->import_end.generation);
                assert_int_equal(m->import_end->rows, h->import_end.rows);
                assert_int_equal(m->import_end->aborted, h->import_end.aborted);
        }
}

static void test_records_are_what_the_generated_code_makes(void **state)
{
        static struct event_text texts[40];
        static struct ad_event events[40], into[40];
        struct df_buf b = {0}, one = {0};
        struct df_arena a;

        (void)state;
        df_arena_init(&a, 0);
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_batch h, back, peeked;
                Adtally__V1__EventBatch *m;
                struct batch_text t;
                size_t count = below(&r, 4) ? below(&r, 5) : below(&r, 40);
                struct df_bytes e;

                df_arena_reset(&a);
                df_buf_clear(&b);
                for (size_t i = 0; i < count; i++) {
                        random_event(&r, &events[i], &texts[i]);
                        df_buf_clear(&one);
                        ad_wire_event(&one, &events[i]);
                        ad_wire_batch_entry(&b, df_buf_bytes(&one));
                }
                random_header(&r, &h, &t);
                ad_wire_batch_header(&b, &h);
                e = exact(b.data, b.len);
                m = adtally__v1__event_batch__unpack(NULL, e.len, e.data);
                if (!m)
                        fail_msg("seed %llu: the generated code refuses our bytes",
                                 (unsigned long long)seed);
                assert_int_equal(m->n_events, count);
                same_header(m, &h);
                same_bytes(e, &m->base, seed);
                ok(ad_wire_batch_decode(e, 1000, &a, &back, err));
                same_header(m, &back);
                assert_int_equal(back.count, count);
                for (size_t i = 0; i < count; i++) {
                        same_event(&events[i], &back.events[i]);
                        assert_int_equal(back.events[i].index, i);
                }
                for (size_t n = 0; n <= count; n++) { /* into the caller's room, when all fit */
                        struct ad_event_room room = {into, n};

                        ok(ad_wire_batch_decode_into(e, 1000, room, &a, &back, err));
                        assert_int_equal(back.count, count);
                        for (size_t i = 0; i < count; i++)
                                same_event(&events[i], &back.events[i]);
                        if (count > 0 && back.events == into)
                                assert_true(n >= count);
                }
                ok(ad_wire_batch_peek(e, &peeked, err));
                same_header(m, &peeked);
                assert_int_equal(peeked.count, count);
                if (seed <= 30 && b.len < 3000)
                        check_truncation(e, decode_batch, &adtally__v1__event_batch__descriptor,
                                         seed);
                check_unknown_fields(e, decode_batch);
                check_damage(&r, e, decode_batch);
                adtally__v1__event_batch__free_unpacked(m, NULL);
                exact_free(e);
        }
        for (size_t i = 0; i < 40; i++)
                df_buf_release(&texts[i].attributes);
        df_buf_release(&b);
        df_buf_release(&one);
        df_arena_release(&a);
}

static void test_records_one_beyond_their_limits(void **state)
{
        static char long_text[AD_DATASET_MAX + 1];
        struct ad_batch h = {.has_import_begin = true}, back;
        struct df_buf b = {0};
        struct df_error e = {0};
        struct df_arena a;

        (void)state;
        memset(long_text, 'x', sizeof(long_text));
        df_arena_init(&a, 0);
        for (int i = 0; i < AD_RECORD_EVENTS_MAX; i++)
                ad_wire_batch_entry(&b, df_bytes("", 0));
        ok(ad_wire_batch_decode(df_buf_bytes(&b), AD_RECORD_EVENTS_MAX, &a, &back, err));
        assert_int_equal(back.count, AD_RECORD_EVENTS_MAX);
        ad_wire_batch_entry(&b, df_bytes("", 0));
        assert_int_equal(
                ad_wire_batch_decode(df_buf_bytes(&b), AD_RECORD_EVENTS_MAX, &a, &back, &e),
                DF_ELIMIT);
        ok(ad_wire_batch_peek(df_buf_bytes(&b), &back, err)); /* it only looks */
        assert_int_equal(back.count, AD_RECORD_EVENTS_MAX + 1);
        for (size_t over = 0; over < 2; over++) {
                for (int which = 0; which < 2; which++) {
                        h.import_begin.tenant_id =
                                df_bytes(long_text, which ? 1 : AD_ID_MAX + over);
                        h.import_begin.dataset =
                                df_bytes(long_text, which ? AD_DATASET_MAX + over : 1);
                        df_buf_clear(&b);
                        ad_wire_batch_header(&b, &h);
                        assert_int_equal(ad_wire_batch_decode(df_buf_bytes(&b), 1, &a, &back, &e),
                                         over ? DF_EPARSE : 0);
                        assert_int_equal(ad_wire_batch_peek(df_buf_bytes(&b), &back, &e),
                                         over ? DF_EPARSE : 0);
                }
        }
        df_arena_release(&a);
        df_arena_init(&a, 100); /* an arena that is full */
        df_buf_clear(&b);
        ad_wire_batch_entry(&b, df_bytes("", 0));
        assert_int_equal(ad_wire_batch_decode(df_buf_bytes(&b), 1, &a, &back, &e), DF_ENOMEM);
        df_arena_release(&a);
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_events_are_what_the_generated_code_makes),
                cmocka_unit_test(test_strings_one_beyond_their_limit),
                cmocka_unit_test(test_money_one_beyond_its_limit),
                cmocka_unit_test(test_attributes_one_beyond_their_limits),
                cmocka_unit_test(test_the_size_of_an_event),
                cmocka_unit_test(test_records_are_what_the_generated_code_makes),
                cmocka_unit_test(test_records_one_beyond_their_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
