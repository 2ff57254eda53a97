/* test_identity.c - which event it is and what its client stated (proto/identity.c), against the
 * words of event.proto; the table of reasons and the sums of cells. */
#include "unit.h"

#include "proto/bill.h"
#include "wire_test.h"

#define SEEDS 300

/* ---- identity (D1, E3) ---- */

/* The comment in event.proto, word by word. */
static uint64_t fingerprint_of(const Adtally__V1__Event *m)
{
        const Adtally__V1__Money *amounts[3] = {m->cost, m->payout, m->conversion_value};
        const char *const ids[10] = {m->event_id,     m->advertiser_id, m->campaign_id, m->ad_id,
                                     m->publisher_id, m->placement_id,  m->country,     m->device,
                                     m->user_id,      m->click_id};
        const char *const currencies[2] = {m->currency_defaulted ? "" : m->currency,
                                           m->conversion_value_currency};
        struct df_buf b = {0};
        uint64_t hash;

        df_put_u8(&b, (uint8_t)m->type);
        df_put_u8(&b, (uint8_t)(m->time_missing | (m->cost ? 8 : 0) | (m->payout ? 16 : 0) |
                                (m->conversion_value ? 32 : 0)));
        df_put_u64le(&b, m->time_missing ? 0 : (uint64_t)m->event_time_ms);
        for (int i = 0; i < 10; i++) {
                df_put_u8(&b, (uint8_t)strlen(ids[i]));
                df_buf_append(&b, ids[i], strlen(ids[i]));
        }
        for (int i = 0; i < 3; i++)
                df_put_u64le(&b, amounts[i] ? (uint64_t)(amounts[i]->units * 1000000000 +
                                                         amounts[i]->nanos)
                                            : 0);
        for (int i = 0; i < 2; i++) {
                df_put_u8(&b, (uint8_t)strlen(currencies[i]));
                df_buf_append(&b, currencies[i], strlen(currencies[i]));
        }
        hash = df_hash64(df_buf_bytes(&b));
        df_buf_release(&b);
        return hash;
}

static void test_the_fingerprint_is_of_what_the_client_stated(void **state)
{
        struct event_text t = {0};
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                Adtally__V1__Event *m;
                struct ad_event ev;
                uint64_t before;

                random_event(&r, &ev, &t);
                ev.flags &= ~(uint32_t)AD_EV_USER_SEALED; /* of what is sealed there is none */
                if (ev.user_id.len > AD_ID_MAX)
                        ev.user_id.len = AD_ID_MAX;
                df_buf_clear(&b);
                ad_wire_event(&b, &ev);
                m = adtally__v1__event__unpack(NULL, b.len, b.data);
                before = ad_event_fingerprint(&ev);
                if (before != fingerprint_of(m))
                        fail_msg("seed %llu: another fingerprint", (unsigned long long)seed);
                /* Never of what ingest or the table added. */
                ev.receive_ms++;
                ev.labels++;
                ev.attributes = (struct df_bytes){0};
                ev.tenant_id = df_bytes_str("another");
                ev.source = df_bytes_str("pixel");
                ev.flags ^= AD_EV_KEY_DERIVED;
                if (!(ev.flags & AD_EV_HAS_COST))
                        ev.cost_nanos = 77;
                if (ev.flags & AD_EV_TIME_MISSING)
                        ev.event_ms++;
                assert_int_equal(ad_event_fingerprint(&ev), before);
                ev.type ^= 1;
                assert_int_not_equal(ad_event_fingerprint(&ev), before);
                adtally__v1__event__free_unpacked(m, NULL);
        }
        df_buf_release(&t.attributes);
        df_buf_release(&b);
}

/* ---- content (D4): what the client stated but for times and user ---- */

static void content_differs(const struct ad_event *ev, uint64_t from, uint64_t seed,
                            const char *what)
{
        if (ad_event_content(ev) == from)
                fail_msg("seed %llu: the same content with another %s", (unsigned long long)seed,
                         what);
}

static void check_numbers(const struct ad_event *ev, uint64_t seed)
{
        static const uint32_t stated[] = {AD_EV_HAS_COST, AD_EV_HAS_PAYOUT, AD_EV_HAS_VALUE};
        uint64_t content = ad_event_content(ev);
        struct ad_event v = *ev;

        v.type++;
        content_differs(&v, content, seed, "type");
        for (size_t i = 0; i < 3; i++) {
                int64_t *amount;

                v = *ev;
                v.flags ^= stated[i];
                content_differs(&v, content, seed, "amount stated");
                v.flags |= stated[i];
                amount = i == 0 ? &v.cost_nanos : i == 1 ? &v.payout_nanos : &v.value_nanos;
                *amount ^= 1;
                content_differs(&v, ad_event_content(ev), seed, "amount");
                if (!(ev->flags & stated[i])) { /* what is not stated does not count */
                        v.flags ^= stated[i];
                        assert_int_equal(ad_event_content(&v), content);
                }
        }
}

/* Each byte of it, and its length. */
static void check_string(struct random *r, const struct ad_event *ev, size_t offset, uint64_t seed)
{
        uint64_t content = ad_event_content(ev);
        struct ad_event v = *ev;
        struct df_bytes *at = (struct df_bytes *)(void *)((char *)&v + offset), was = *at;
        uint8_t bytes[AD_EVENT_ID_MAX + 1];

        *at = df_bytes(bytes, was.len);
        for (size_t i = 0; i < was.len; i++) {
                memcpy(bytes, was.data, was.len);
                bytes[i] ^= (uint8_t)(1 + below(r, 255));
                content_differs(&v, content, seed, "byte");
        }
        if (was.len > 0) {
                memcpy(bytes, was.data, was.len);
                at->len--;
                content_differs(&v, content, seed, "shorter string");
        }
        bytes[was.len] = 0;
        at->len = was.len + 1;
        content_differs(&v, content, seed, "longer string");
}

static void test_the_content_is_of_each_field(void **state)
{
        static const size_t strings[] = {
                offsetof(struct ad_event, event_id), offsetof(struct ad_event, click_id),
                offsetof(struct ad_event, currency), offsetof(struct ad_event, value_currency),
                offsetof(struct ad_event, dims[0]),  offsetof(struct ad_event, dims[1]),
                offsetof(struct ad_event, dims[2]),  offsetof(struct ad_event, dims[3]),
                offsetof(struct ad_event, dims[4]),  offsetof(struct ad_event, dims[5]),
                offsetof(struct ad_event, dims[6]),
        };
        struct event_text t = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_event ev, v;

                random_event(&r, &ev, &t);
                v = ev; /* what is not of it */
                v.event_ms += 5;
                v.receive_ms++;
                v.fingerprint++;
                v.labels ^= 1;
                v.user_id = v.tenant_id = v.source = df_bytes_str("other");
                v.attributes = v.raw = (struct df_bytes){0};
                v.flags ^= AD_EV_TIME_MISSING | AD_EV_KEY_DERIVED | AD_EV_USER_SEALED;
                assert_int_equal(ad_event_content(&v), ad_event_content(&ev));
                check_numbers(&ev, seed);
                ev.flags &= ~(uint32_t)AD_EV_CURRENCY_DEFAULTED; /* else it is not the client's */
                for (size_t s = 0; s < sizeof(strings) / sizeof(strings[0]); s++)
                        check_string(&r, &ev, strings[s], seed);
        }
        df_buf_release(&t.attributes);
}

/* What one string loses and the next gets is another content. */
static void test_the_content_knows_where_strings_end(void **state)
{
        const char *all = "abcdefghijklmnopqrstuvwxyz0123456789ABCD";
        struct ad_event a = {.type = 1}, b = {.type = 1};

        (void)state;
        for (size_t n = 0; n < strlen(all); n++) {
                a.dims[0] = df_bytes(all, n);
                a.dims[1] = df_bytes(all + n, strlen(all) - n);
                b.dims[0] = df_bytes(all, n + 1);
                b.dims[1] = df_bytes(all + n + 1, strlen(all) - n - 1);
                assert_int_not_equal(ad_event_content(&a), ad_event_content(&b));
        }
        a = (struct ad_event){.type = 1, .dims[0] = df_bytes_str("x")};
        b = (struct ad_event){.type = 1, .dims[1] = df_bytes_str("x")};
        assert_int_not_equal(ad_event_content(&a), ad_event_content(&b));
        b = (struct ad_event){.type = 1, .dims[4] = df_bytes_str("x")};
        assert_int_not_equal(ad_event_content(&a), ad_event_content(&b));
}

static void test_the_key_prefixes_lengths(void **state)
{
        struct df_hash128 a = ad_event_key(df_bytes_str("ab"), df_bytes_str("c"));

        (void)state;
        assert_true(df_hash128_eq(a, df_hash128(df_bytes("\x02"
                                                         "abc",
                                                         4))));
        assert_false(df_hash128_eq(a, ad_event_key(df_bytes_str("a"), df_bytes_str("bc"))));
        for (uint32_t p = 1; p < 300; p++)
                assert_int_equal(ad_event_partition(a, p), a.lo % p);
}

/* ---- the small tables ---- */

static void test_reasons(void **state)
{
        static const unsigned values[] = {
#define X(name, value, cls, code, status, retry, text) value,
                AD_REASON_MAP(X)
#undef X
        };
        size_t count = sizeof(values) / sizeof(values[0]);

        (void)state;
        for (size_t i = 0; i < count; i++) {
                const struct ad_reason_info *r = ad_reason_info(values[i]);
                bool in_log = r->cls < AD_CLASS_REJECTED;

                assert_int_equal(ad_reason_by_code(r->code), values[i]);
                assert_int_equal(values[i] < AD_OUTCOME_MAX, in_log);
                assert_int_equal(r->http_status != 0, r->cls == AD_CLASS_REJECTED);
                for (size_t j = 0; j < i; j++)
                        assert_int_not_equal(values[i], values[j]);
        }
        assert_string_equal(ad_reason_info(AD_NONE)->code, "unknown");
        assert_string_equal(ad_reason_info(12345)->code, "unknown");
        assert_int_equal(ad_reason_by_code("unknown"), AD_NONE);
        assert_int_equal(ad_reason_by_code(""), AD_NONE);
}

static void test_cells_add_or_stay(void **state)
{
        const df_nanos most = (df_nanos)(~(unsigned __int128)0 >> 1);
        const struct ad_cell one = {1, 2, 3, {4, 5, 6}, 7, 8, 9};
        struct ad_cell sum = {0}, before;

        (void)state;
        assert_true(ad_cell_is_zero(&sum));
        assert_true(ad_cell_add(&sum, &one));
        assert_true(ad_cell_add(&sum, &one));
        assert_false(ad_cell_is_zero(&sum));
        assert_int_equal(sum.impressions + sum.clicks + sum.conversions, 12);
        assert_int_equal(sum.invalid[0] + sum.invalid[1] + sum.invalid[2], 30);
        assert_true(sum.spend == 14 && sum.payout == 16 && sum.value == 18);
        for (int i = 0; i < 9; i++) { /* any of the nine sums may be the one that is full */
                uint64_t *const counts[6] = {&sum.impressions, &sum.clicks,     &sum.conversions,
                                             &sum.invalid[0],  &sum.invalid[1], &sum.invalid[2]};
                df_nanos *const amounts[3] = {&sum.spend, &sum.payout, &sum.value};

                sum = (struct ad_cell){0};
                if (i < 6)
                        *counts[i] = UINT64_MAX;
                else
                        *amounts[i - 6] = most;
                before = sum;
                assert_false(ad_cell_is_zero(&sum));
                assert_false(ad_cell_add(&sum, &one));
                assert_memory_equal(&sum, &before, sizeof(sum));
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_the_fingerprint_is_of_what_the_client_stated),
                cmocka_unit_test(test_the_content_is_of_each_field),
                cmocka_unit_test(test_the_content_knows_where_strings_end),
                cmocka_unit_test(test_the_key_prefixes_lengths),
                cmocka_unit_test(test_reasons),
                cmocka_unit_test(test_cells_add_or_stay),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
