/* T2: the clock guard of ingest, with readings as arguments. */
#include "unit.h"

#include "jobs/ingest/clock.h"

#define WALL 1795514400000LL
#define MONO 5000LL

static struct ad_guard start(int64_t last_append_ms)
{
        struct ad_guard g;

        ad_guard_init(&g, WALL, MONO, last_append_ms);
        return g;
}

static void test_agreeing_clocks_are_good(void **state)
{
        struct ad_guard g = start(0);

        for (int64_t t = 0; t < 100000; t += 777)
                assert_int_equal(ad_guard_look(&g, WALL + t, MONO + t), AD_GUARD_GOOD);
        assert_true(ad_guard_heartbeat_allowed(&g));
}

/* One beyond the tolerance, in both directions; exactly the tolerance is a small step. */
static void test_jump_bounds(void **state)
{
        for (int sign = -1; sign <= 1; sign += 2) {
                struct ad_guard g = start(0);

                assert_int_equal(ad_guard_look(&g, WALL + sign * 2000, MONO), AD_GUARD_GOOD);
                g = start(0);
                assert_int_equal(ad_guard_look(&g, WALL + sign * 2001, MONO), AD_GUARD_JUMPED);
                assert_int_equal(g.off_ms, sign * 2001);
        }
}

/* 503 until wall and monotonic agree again, however long that takes. */
static void test_jump_ends_when_clocks_agree(void **state)
{
        struct ad_guard g = start(0);
        int64_t day = 86400000;

        assert_int_equal(ad_guard_look(&g, WALL + day + 10, MONO + 10), AD_GUARD_JUMPED);
        assert_int_equal(ad_guard_look(&g, WALL + day + 600000, MONO + 600000), AD_GUARD_JUMPED);
        /* No heartbeat: its append time, a day ahead, would stay in the log for ever. */
        assert_false(ad_guard_heartbeat_allowed(&g));
        assert_int_equal(ad_guard_look(&g, WALL + 600100, MONO + 600100), AD_GUARD_GOOD);
        assert_true(ad_guard_heartbeat_allowed(&g));
}

static void test_jump_back_still_beats(void **state)
{
        struct ad_guard g = start(0);

        assert_int_equal(ad_guard_look(&g, WALL - 3600000, MONO), AD_GUARD_JUMPED);
        assert_int_equal(g.off_ms, -3600000);
        assert_true(ad_guard_heartbeat_allowed(&g));
}

/* NTP steps of less than the tolerance are followed, also when they add up. */
static void test_small_steps_are_followed(void **state)
{
        struct ad_guard g = start(0);

        for (int64_t i = 1; i <= 10; i++)
                assert_int_equal(ad_guard_look(&g, WALL + 1500 * i, MONO), AD_GUARD_GOOD);
        assert_int_equal(ad_guard_look(&g, WALL + 15000 + 2001, MONO), AD_GUARD_JUMPED);
}

static void test_wall_behind_the_log(void **state)
{
        struct ad_guard g = start(WALL + 10000);

        assert_int_equal(g.state, AD_GUARD_BEHIND); /* known at start */
        assert_int_equal(g.off_ms, -10000);
        assert_true(ad_guard_heartbeat_allowed(&g));
        assert_int_equal(ad_guard_look(&g, WALL + 7999, MONO + 7999), AD_GUARD_BEHIND);
        assert_int_equal(ad_guard_look(&g, WALL + 8000, MONO + 8000), AD_GUARD_GOOD);
}

/* Skew: distance of append_time from [send, acknowledgement] of the same record. */
static void test_skew(void **state)
{
        struct ad_guard g = start(0);

        ad_guard_append(&g, WALL, WALL + 30, WALL + 10, WALL + 30);
        assert_int_equal(g.skew_ms, 0);
        assert_int_equal(g.last_append_ms, WALL + 30);
        ad_guard_append(&g, WALL, WALL + 30, WALL - 2000, WALL + 30);
        assert_int_equal(g.skew_ms, -2000);
        assert_int_equal(ad_guard_look(&g, WALL, MONO), AD_GUARD_GOOD);
        ad_guard_append(&g, WALL, WALL + 30, WALL - 2001, WALL - 2001);
        assert_int_equal(ad_guard_look(&g, WALL, MONO), AD_GUARD_SKEWED);
        assert_true(ad_guard_heartbeat_allowed(&g)); /* the next one measures, and ends it */
        ad_guard_append(&g, WALL, WALL + 30, WALL + 1, WALL + 1);
        assert_int_equal(ad_guard_look(&g, WALL, MONO), AD_GUARD_GOOD);
        ad_guard_append(&g, WALL, WALL + 30, WALL, WALL + 2031);
        assert_int_equal(g.skew_ms, 2001);
        assert_int_equal(ad_guard_look(&g, WALL + 31, MONO + 31), AD_GUARD_SKEWED);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_agreeing_clocks_are_good),
                cmocka_unit_test(test_jump_bounds),
                cmocka_unit_test(test_jump_ends_when_clocks_agree),
                cmocka_unit_test(test_jump_back_still_beats),
                cmocka_unit_test(test_small_steps_are_followed),
                cmocka_unit_test(test_wall_behind_the_log),
                cmocka_unit_test(test_skew),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
