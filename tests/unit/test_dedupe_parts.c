/* test_dedupe_parts.c - D2: the parts of dedupe by themselves: the filter in front of the runs, the
 * set of open ids. */
#include "unit.h"

#include <inttypes.h>
#include <stdlib.h>

#include "operators/dedupe_private.h"
#include "tests/unit/dedupe_test.h"

static struct adi_id random_id(struct random *r)
{
        struct adi_id id;

        id.hi = random_next(r);
        id.lo = random_next(r);
        id.fingerprint = random_next(r);
        return id;
}

static struct df_hash128 key_of(const struct adi_id *id)
{
        return (struct df_hash128){.hi = id->hi, .lo = id->lo};
}

/* No false negative, few false positives, memory as published, and given back (D2). */
static void hold_filter(int64_t horizon, int64_t hours, uint32_t per_hour)
{
        enum { SPILLS = 30 };
        uint32_t per_spill = per_hour / SPILLS;
        struct random r = {77};
        struct adi_id *ids = calloc((size_t)hours * per_hour, sizeof(*ids));
        struct adi_tags t;
        struct df_error err;
        size_t wrong = 0;

        assert_non_null(ids);
        adi_tags_init(&t, (uint32_t)horizon, 4 * per_hour);
        for (int64_t h = 0; h < hours; h++) {
                struct adi_id *mine = ids + h * per_hour;

                for (size_t i = 0; i < per_hour; i++)
                        mine[i] = random_id(&r);
                adi_tags_hold(&t, h);
                for (uint32_t s = 0; s < SPILLS; s++)
                        assert_int_equal(
                                adi_tags_add(&t, mine + s * per_spill, per_spill, h, s, &err), 0);
                if (h > horizon + 2)
                        adi_tags_drop(&t, h - horizon - 3);
        }
        for (int64_t h = hours - horizon - 2; h < hours; h++)
                for (uint32_t i = 0; i < per_hour; i++) {
                        uint32_t s = i / per_spill;
                        struct adi_hits hits;

                        assert_true(adi_tags_test(&t, key_of(&ids[h * per_hour + i]), &hits));
                        assert_true(adi_tags_may(&t, &hits, h, s, s));
                        assert_true(adi_tags_may(&t, &hits, h, s / 8 * 8, s / 8 * 8 + 7));
                        assert_true(adi_tags_may(&t, &hits, h, 0, 1000));
                }
        for (size_t i = 0; i < 100000; i++) {
                struct adi_id id = random_id(&r);
                struct adi_hits hits;

                wrong += adi_tags_test(&t, key_of(&id), &hits);
        }
        if (wrong > 300)
                fail_msg("horizon %d h: %zu of 100,000 unknown ids pass the filter after %d hours",
                         (int)horizon, wrong, (int)hours);
        assert_in_range(adi_tags_bytes(&t), 1, (uint64_t)(horizon + 3) * per_hour * 12);
        for (int64_t h = hours - horizon - 3; h < hours; h++)
                adi_tags_drop(&t, h);
        assert_int_equal(adi_tags_bytes(&t), 0);
        adi_tags_release(&t);
        free(ids);
}

static void test_filter(void **state)
{
        (void)state;
        hold_filter(24, 40, 3000);
}

/* Hours take each other's slots many times over; a class of one hour, and of several. */
static void test_filter_for_weeks(void **state)
{
        (void)state;
        hold_filter(1, 400, 3000);
        hold_filter(24, 400, 3000);
        hold_filter(168, 1200, 600);
        hold_filter(720, 4000, 150);
}

/* One table, one cache line a question, until there are four times the open ids; but a partition to
 * which little comes pays only for that (D2). */
static void test_filter_of_a_busy_partition(void **state)
{
        enum { OPEN = 4000 };
        struct random r = {79};
        struct adi_id ids[OPEN / 4];
        struct adi_tags busy, idle;
        struct df_error err;

        (void)state;
        adi_tags_init(&busy, 24, OPEN);
        adi_tags_init(&idle, 24, OPEN);
        adi_tags_hold(&busy, 5);
        adi_tags_hold(&idle, 5);
        for (uint32_t at = 0; at < 4 * OPEN; at += OPEN / 4) {
                for (size_t i = 0; i < OPEN / 4; i++)
                        ids[i] = random_id(&r);
                assert_int_equal(adi_tags_add(&busy, ids, OPEN / 4, 5, at / (OPEN / 4), &err), 0);
                assert_int_equal(busy.count, 1);
                assert_in_range(adi_tags_bytes(&busy), 1, 18 * OPEN);
        }
        assert_int_equal(adi_tags_add(&busy, ids, OPEN / 4, 5, 16, &err), 0);
        assert_int_equal(busy.count, 2);
        assert_int_equal(adi_tags_add(&idle, ids, OPEN / 4 - 1, 5, 0, &err), 0);
        assert_in_range(adi_tags_bytes(&idle), 1, OPEN / 4 * 10);
        adi_tags_release(&busy);
        adi_tags_release(&idle);
}

/* Keys made to fall into the same two lines: still no false negative. */
static void test_filter_crowded(void **state)
{
        struct random r = {78};
        struct adi_id ids[200], one = random_id(&r);
        struct adi_tags t;
        struct adi_hits hits;
        struct df_error err;

        (void)state;
        adi_tags_init(&t, 24, 1000);
        adi_tags_hold(&t, 5);
        for (size_t i = 0; i < 200; i++)
                ids[i] = one;
        assert_int_equal(adi_tags_add(&t, ids, 200, 5, 0, &err), 0);
        one.lo ^= 1ull << 63; /* another key, probably other lines */
        assert_int_equal(adi_tags_add(&t, &one, 1, 5, 9, &err), 0);
        assert_true(adi_tags_test(&t, key_of(&ids[0]), &hits));
        assert_true(adi_tags_may(&t, &hits, 5, 0, 0));
        assert_true(adi_tags_test(&t, key_of(&one), &hits));
        assert_true(adi_tags_may(&t, &hits, 5, 9, 9));
        adi_tags_release(&t);
}

/* The distribution sort, also when all keys share their top bits. */
static void test_set_sorted(void **state)
{
        struct random r = {79};
        struct df_error err;

        (void)state;
        for (int crowded = 0; crowded < 2; crowded++) {
                struct adi_set s;
                struct adi_id *ids = calloc(2500, sizeof(*ids));

                assert_non_null(ids);
                assert_int_equal(adi_set_open(&s, 5000, &err), 0);
                for (size_t i = 0; i < 5000; i++) {
                        struct adi_id id = random_id(&r);

                        if (crowded)
                                id.hi = (id.hi & 0xffff) | 0xabcd000000000000u;
                        assert_int_equal(adi_set_add(&s, &id, (int64_t)(i % 2), NULL, &err), 0);
                }
                assert_true(adi_set_full(&s));
                adi_set_sorted(&s, 1, 2500, ids);
                for (size_t i = 1; i < 2500; i++)
                        assert_int_equal(
                                adi_key_cmp(ids[i - 1].hi, ids[i - 1].lo, ids[i].hi, ids[i].lo),
                                -1);
                free(ids);
                assert_int_equal(adi_set_keep(&s, 1, 9, &err), 0);
                assert_int_equal(s.count, 2500);
                adi_set_release(&s);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_filter),
                cmocka_unit_test(test_filter_for_weeks),
                cmocka_unit_test(test_filter_of_a_busy_partition),
                cmocka_unit_test(test_filter_crowded),
                cmocka_unit_test(test_set_sorted),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
