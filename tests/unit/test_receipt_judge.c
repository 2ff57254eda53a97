/* Receipts: the judgement by D1 where something is not known. By hand; whole receipts against the
 * rules: tests/e2e/test_receipts.py. */
#include "unit.h"

#include "jobs/api/receipt.h"

#define HOUR 3600000LL
#define T0 (490000 * HOUR)
#define H 3

static struct ad_copy copy(int64_t receive_ms, uint32_t entry, uint64_t fingerprint)
{
        struct ad_copy c = {.sealed = 1u << AD_OUT_LATE | 1u << AD_OUT_QUARANTINE, .entry = entry};

        c.ev.receive_ms = receive_ms;
        c.ev.fingerprint = fingerprint;
        return c;
}

static void test_judge(void **state)
{
        struct ad_copy c[3] = {copy(T0, AD_NONE, 1), copy(T0 + H * HOUR + HOUR - 1, AD_NONE, 1),
                               copy(T0 + (2 * H + 1) * HOUR, AD_NONE, 1)};

        ad_receipt_judge(c, 3, H, T0 - H * HOUR);
        assert_int_equal(c[0].outcome, AD_COUNTED);
        assert_int_equal(c[1].outcome, AD_DUPLICATE);
        assert_ptr_equal(c[1].against, &c[0]);
        assert_int_equal(c[2].outcome, AD_COUNTED); /* an hour beyond the horizon */
        /* A millisecond of the first one's horizon was not read. */
        ad_receipt_judge(c, 3, H, T0 - H * HOUR + 1);
        assert_int_equal(c[0].state, AD_COPY_EARLIER);
        assert_int_equal(c[1].state, AD_COPY_SEALED);
        c[0].alone = c[1].alone = true; /* the seal knows that it is none */
        ad_receipt_judge(c, 2, H, T0 - H * HOUR + 1);
        assert_int_equal(c[0].state, AD_COPY_SEALED);
        assert_int_equal(c[0].outcome, AD_COUNTED);
        assert_int_equal(c[1].state, AD_COPY_INCONSISTENT);
        c[0].alone = c[1].alone = false;
        /* Received earlier, written later, an hour at most: it decides all the same. */
        c[1].ev.receive_ms = T0 - 1;
        ad_receipt_judge(c, 2, H, INT64_MIN);
        assert_int_equal(c[1].outcome, AD_DUPLICATE);
        c[1].ev.receive_ms = T0 - HOUR - 1;
        ad_receipt_judge(c, 2, H, INT64_MIN);
        assert_int_equal(c[1].outcome, AD_COUNTED);
}

static void test_judge_what_others_were(void **state)
{
        struct ad_copy c[2];

        for (uint32_t reason = AD_CONFLICT; reason <= AD_OVERFLOW; reason++) {
                bool left_no_trace = reason >= AD_WRONG_PARTITION && reason <= AD_INVALID;

                c[0] = copy(T0, reason, 1);
                c[1] = copy(T0 + 1, AD_NONE, 1);
                ad_receipt_judge(c, 2, H, INT64_MIN);
                assert_int_equal(c[0].outcome, reason);
                assert_int_equal(c[1].outcome, left_no_trace ? AD_COUNTED : AD_DUPLICATE);
        }
        c[0] = copy(T0, AD_NONE, 1);
        c[0].lost = true; /* had guard let it pass? */
        ad_receipt_judge(c, 2, H, INT64_MIN);
        assert_int_equal(c[0].state, AD_COPY_EXPIRED);
        assert_int_equal(c[1].state, AD_COPY_EARLIER);
        c[0] = copy(T0, AD_NONE, 2); /* other content, and no entry says conflict */
        ad_receipt_judge(c, 2, H, INT64_MIN);
        assert_int_equal(c[1].state, AD_COPY_INCONSISTENT);
        c[1].entry = AD_CONFLICT;
        ad_receipt_judge(c, 2, H, INT64_MIN);
        assert_int_equal(c[1].outcome, AD_CONFLICT);
        assert_ptr_equal(c[1].against, &c[0]);
        c[1].sealed = 1u << AD_OUT_LATE;
        ad_receipt_judge(c, 2, H, INT64_MIN);
        assert_int_equal(c[1].state, AD_COPY_PENDING);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_judge),
                cmocka_unit_test(test_judge_what_others_were),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
