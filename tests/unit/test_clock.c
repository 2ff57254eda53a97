/* test_clock.c - T2 and T3: each limit on both sides, and the watermark against a naive recount. */
#include "unit.h"

#include <stdlib.h>

#include "df/clock.h"

#define NOW 1764000000000LL
#define HOUR 3600000LL

static const struct df_clock_rules rules = {
        .out_of_orderness_ms = 10000,
        .receive_ahead_max_ms = 10000,
        .receive_behind_max_ms = HOUR,
        .future_max_ms = 300000,
        .accepted_age_ms = 7 * 24 * HOUR,
};

struct line {
        const char *what;
        int64_t receive_ms, event_ms; /* after NOW, which append and receive have reached */
        enum df_clock_verdict verdict;
        int64_t max_receive_ms, watermark_ms; /* after NOW */
};

/* Before each line: append and receive maxima at NOW, watermark at NOW - 10 s. */
static const struct line table[] = {
        {"the same moment", 0, 0, DF_CLOCK_OK, 0, -10000},
        {"T2: 10 s ahead of the append time", 10000, 10000, DF_CLOCK_OK, 10000, 0},
        {"T2: one more", 10001, 10001, DF_CLOCK_AHEAD, 0, -10000},
        {"T2: a day ahead", 24 * HOUR, 24 * HOUR, DF_CLOCK_AHEAD, 0, -10000},
        {"T2: ahead, though its event is old", 10001, 0, DF_CLOCK_AHEAD, 0, -10000},
        {"T2: an hour behind", -HOUR, -HOUR, DF_CLOCK_OK, 0, -10000},
        {"T2: one more", -HOUR - 1, -HOUR - 1, DF_CLOCK_STALE, 0, -10000},
        {"T3: 5 min in the future", 5000, 305000, DF_CLOCK_OK, 5000, -5000},
        {"T3: one more", 5000, 305001, DF_CLOCK_FUTURE, 0, -10000},
        {"T3: as old as accepted", 5000, 5000 - 7 * 24 * HOUR, DF_CLOCK_OK, 5000, -10000},
        {"T3: one more", 5000, 4999 - 7 * 24 * HOUR, DF_CLOCK_OLD, 0, -10000},
        {"T3: the smaller of both moves it", 9000, 8000, DF_CLOCK_OK, 9000, -2000},
        {"T3: also when that is receive", 8000, 9000, DF_CLOCK_OK, 8000, -2000},
        {"T3: never back", 1000, -50000, DF_CLOCK_OK, 1000, -10000},
        {"extremes: the end of time", INT64_MAX - NOW, INT64_MAX - NOW, DF_CLOCK_AHEAD, 0, -10000},
        {"extremes: its beginning", 0, INT64_MIN, DF_CLOCK_OLD, 0, -10000},
        {"extremes: its end as event", 0, INT64_MAX - NOW, DF_CLOCK_FUTURE, 0, -10000},
};

static int64_t at(int64_t after)
{
        return after == INT64_MIN ? INT64_MIN : NOW + after;
}

static void test_limits_of_t2_and_t3(void **state)
{
        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                const struct line *l = &table[i];
                enum df_clock_verdict v;
                struct df_clock c;

                df_clock_init(&c);
                df_clock_record(&c, NOW);
                assert_int_equal(df_clock_judge(&c, &rules, NOW, NOW), DF_CLOCK_OK);
                v = df_clock_judge(&c, &rules, at(l->receive_ms), at(l->event_ms));
                if (v != l->verdict || c.max_receive_ms != NOW + l->max_receive_ms ||
                    c.watermark_ms != NOW + l->watermark_ms)
                        fail_msg("%s: verdict %d, receive %+lld, watermark %+lld", l->what, (int)v,
                                 (long long)(c.max_receive_ms - NOW),
                                 (long long)(c.watermark_ms - NOW));
                assert_int_equal(c.max_append_ms, NOW);
        }
}

/* The first event is judged by the append time alone: nothing was received before it. */
static void test_the_first_event(void **state)
{
        struct df_clock c;

        (void)state;
        df_clock_init(&c);
        assert_true(c.max_append_ms == DF_TIME_MIN && c.max_receive_ms == DF_TIME_MIN);
        assert_true(c.watermark_ms == DF_TIME_MIN);
        assert_int_equal(df_clock_judge(&c, &rules, NOW, NOW), DF_CLOCK_AHEAD); /* no record yet */
        df_clock_record(&c, NOW);
        df_clock_record(&c, NOW - 5 * HOUR); /* T2: the maximum counts */
        assert_int_equal(df_clock_judge(&c, &rules, NOW - 5 * HOUR, NOW - 5 * HOUR), DF_CLOCK_OK);
        assert_int_equal(c.max_receive_ms, NOW - 5 * HOUR);
        assert_int_equal(c.watermark_ms, NOW - 5 * HOUR - 10000);
        assert_int_equal(df_clock_judge(&c, &rules, NOW + 10000, NOW), DF_CLOCK_OK);
}

/* T2: `adtally recover --clock` restarts the maxima, never the watermark. */
static void test_a_reset_keeps_the_watermark(void **state)
{
        struct df_clock c;

        (void)state;
        df_clock_init(&c);
        df_clock_record(&c, NOW + 24 * HOUR);
        assert_int_equal(df_clock_judge(&c, &rules, NOW + 24 * HOUR, NOW + 24 * HOUR), DF_CLOCK_OK);
        df_clock_record(&c, NOW);
        assert_int_equal(df_clock_judge(&c, &rules, NOW, NOW), DF_CLOCK_STALE);
        df_clock_reset(&c);
        assert_true(c.max_append_ms == DF_TIME_MIN && c.max_receive_ms == DF_TIME_MIN);
        df_clock_record(&c, NOW);
        assert_int_equal(df_clock_judge(&c, &rules, NOW, NOW), DF_CLOCK_OK);
        assert_int_equal(c.watermark_ms, NOW + 24 * HOUR - 10000);
        assert_int_equal(c.max_receive_ms, NOW);
}

/* R6: in an import nothing is refused and nothing moves, until its end; E1: then all of it. */
static void test_a_bounded_source(void **state)
{
        struct df_clock_rules bounded = rules;
        struct df_clock c;

        (void)state;
        bounded.bounded = true;
        df_clock_init(&c);
        assert_int_equal(df_clock_judge(&c, &bounded, NOW, NOW - 900 * 24 * HOUR), DF_CLOCK_OK);
        assert_int_equal(df_clock_judge(&c, &bounded, NOW, NOW + 900 * 24 * HOUR), DF_CLOCK_OK);
        assert_true(c.watermark_ms == DF_TIME_MIN && c.max_receive_ms == DF_TIME_MIN);
        df_clock_close(&c);
        assert_true(c.watermark_ms == DF_TIME_MAX);
}

/* T3 in words: at every event, the verdict and the watermark follow from all events before it. */
static void test_against_a_recount(void **state)
{
        enum { EVENTS = 400 };
        int64_t appends[EVENTS], receives[EVENTS], events[EVENTS];
        bool passed[EVENTS];

        (void)state;
        for (unsigned seed = 1; seed <= 20; seed++) {
                uint64_t x = seed * 0x9e3779b97f4a7c15u;
                struct df_clock c;

                df_clock_init(&c);
                for (size_t i = 0; i < EVENTS; i++) {
                        int64_t max_append = INT64_MIN, max_receive = INT64_MIN, wm = INT64_MIN;
                        bool good;

                        x = x * 6364136223846793005u + 1442695040888963407u;
                        appends[i] = NOW + (int64_t)i * 1000 - (int64_t)(x >> 40) % 4000;
                        receives[i] = NOW + (int64_t)i * 1000 + (int64_t)(x >> 33) % 14000 -
                                      (x >> 60 == 0 ? 2 * HOUR : 0);
                        events[i] = receives[i] - (int64_t)(x >> 20) % 400000 +
                                    (x >> 61 == 1 ? 500000 : 0);
                        for (size_t j = 0; j <= i; j++)
                                max_append = appends[j] > max_append ? appends[j] : max_append;
                        for (size_t j = 0; j < i; j++)
                                if (passed[j] && receives[j] > max_receive)
                                        max_receive = receives[j];
                        good = receives[i] <= max_append + 10000 &&
                               (max_receive == INT64_MIN || receives[i] >= max_receive - HOUR) &&
                               events[i] <= receives[i] + 300000 &&
                               events[i] >= receives[i] - 7 * 24 * HOUR;
                        passed[i] = good;
                        for (size_t j = 0; j <= i; j++) {
                                int64_t m = events[j] < receives[j] ? events[j] : receives[j];
                                if (passed[j] && m - 10000 > wm)
                                        wm = m - 10000;
                        }
                        df_clock_record(&c, appends[i]);
                        if ((df_clock_judge(&c, &rules, receives[i], events[i]) == DF_CLOCK_OK) !=
                                    good ||
                            c.watermark_ms != wm)
                                fail_msg("seed %u event %zu", seed, i);
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_limits_of_t2_and_t3),
                cmocka_unit_test(test_the_first_event),
                cmocka_unit_test(test_a_reset_keeps_the_watermark),
                cmocka_unit_test(test_a_bounded_source),
                cmocka_unit_test(test_against_a_recount),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
