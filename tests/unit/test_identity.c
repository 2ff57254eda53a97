/* test_identity.c - which event it is and what its client stated (proto/identity.c), against the
 * words of event.proto; the table of reasons and the sums of cells. */
#include "unit.h"

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
                cmocka_unit_test(test_the_key_prefixes_lengths),
                cmocka_unit_test(test_reasons),
                cmocka_unit_test(test_cells_add_or_stay),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
