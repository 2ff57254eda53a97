/* Zones against the C library's localtime, an independent reader of the same files (W1). */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "jobs/api/zone.h"
#include "state_test.h"

#define DAY_MS 86400000LL
#define HOUR_MS 3600000LL
#define INSTANTS 150
#define LAST_S 4102444800LL /* 2100 */

static const char *const names[] = {"UTC",
                                    "Europe/Berlin",
                                    "Europe/Moscow",
                                    "Europe/London",
                                    "Europe/Dublin",
                                    "Europe/Istanbul",
                                    "America/New_York",
                                    "America/Los_Angeles",
                                    "America/St_Johns",
                                    "America/Sao_Paulo",
                                    "America/Havana",
                                    "America/Santiago",
                                    "America/Caracas",
                                    "America/Godthab",
                                    "America/Asuncion",
                                    "Asia/Kolkata",
                                    "Asia/Kathmandu",
                                    "Asia/Tehran",
                                    "Asia/Gaza",
                                    "Asia/Beirut",
                                    "Asia/Amman",
                                    "Asia/Pyongyang",
                                    "Asia/Tokyo",
                                    "Asia/Shanghai",
                                    "Australia/Lord_Howe",
                                    "Australia/Adelaide",
                                    "Australia/Eucla",
                                    "Pacific/Apia",
                                    "Pacific/Chatham",
                                    "Pacific/Kiritimati",
                                    "Pacific/Marquesas",
                                    "Africa/Casablanca",
                                    "Africa/Cairo",
                                    "Africa/Monrovia",
                                    "Antarctica/Troll",
                                    "Etc/GMT+5"};

static struct ad_zones *zones;

/* The C library's view of the same zone from here on; false: not installed. */
static bool use(const char *name, const struct ad_zone **ret)
{
        struct df_error err = {0};

        if (ad_zones_get(zones, name, ret, &err) < 0)
                return false;
        assert_int_equal(setenv("TZ", name, 1), 0);
        tzset();
        return true;
}

static struct tm local(int64_t s)
{
        time_t t = (time_t)s;
        struct tm tm;

        assert_non_null(localtime_r(&t, &tm));
        return tm;
}

static int64_t date_of(const struct tm *t) /* comparable */
{
        return (t->tm_year * 12LL + t->tm_mon) * 32 + t->tm_mday;
}

static void check_offset(const char *name, const struct ad_zone *z, int64_t s)
{
        struct tm t = local(s);

        if (ad_zone_offset_s(z, s * 1000) != t.tm_gmtoff)
                fail_msg("%s at %lld: offset %d, the C library says %ld", name, (long long)s,
                         ad_zone_offset_s(z, s * 1000), t.tm_gmtoff);
}

/* The next change: the offset is the same until just before it, and another one there. */
static void check_change(const char *name, const struct ad_zone *z, int64_t s)
{
        int64_t next = ad_zone_next_change(z, s * 1000);
        int64_t end = next == INT64_MAX || next / 1000 > LAST_S ? LAST_S : next / 1000;
        long offset = local(s).tm_gmtoff;

        for (int64_t at = s; at < end; at += 7 * 86400 + 1234)
                if (local(at).tm_gmtoff != offset)
                        fail_msg("%s: a change between %lld and %lld was missed", name,
                                 (long long)s, (long long)end);
        if (end < LAST_S && local(end).tm_gmtoff == local(end - 1).tm_gmtoff)
                fail_msg("%s: no change at %lld", name, (long long)end);
}

static bool same_hour(const struct tm *a, const struct tm *b)
{
        return date_of(a) == date_of(b) && a->tm_hour == b->tm_hour && a->tm_gmtoff == b->tm_gmtoff;
}

static void check_hour(const char *name, const struct ad_zone *z, int64_t s)
{
        int64_t from = ad_zone_floor(z, AD_WINDOW_HOUR, s * 1000) / 1000;
        int64_t to = ad_zone_next(z, AD_WINDOW_HOUR, s * 1000) / 1000;
        struct tm at = local(s), a = local(from), b = local(to - 1), before = local(from - 1),
                  after = local(to);

        if (from > s || to <= s || to - from > 3600 || !same_hour(&at, &a) || !same_hour(&at, &b) ||
            same_hour(&at, &before) || same_hour(&at, &after))
                fail_msg("%s at %lld: hour [%lld, %lld)", name, (long long)s, (long long)from,
                         (long long)to);
        assert_int_equal(ad_zone_floor(z, AD_WINDOW_HOUR, from * 1000), from * 1000);
}

/* A day begins at the first instant that shows its date or a later one; so every instant before its
 * start shows an earlier date, and its start does not. */
static void check_day(const char *name, const struct ad_zone *z, int64_t s)
{
        int64_t from = ad_zone_floor(z, AD_WINDOW_DAY, s * 1000) / 1000;
        int64_t to = ad_zone_next(z, AD_WINDOW_DAY, s * 1000) / 1000;
        struct tm a = local(from), z0 = local(to), before = local(from - 1), last = local(to - 1);
        bool clean = date_of(&before) < date_of(&a) && date_of(&last) < date_of(&z0);

        if (from > s || to <= s || !clean || to - from > 26 * 3600 || to - from < 22 * 3600)
                fail_msg("%s at %lld: day [%lld, %lld)", name, (long long)s, (long long)from,
                         (long long)to);
        for (int64_t at = from - 26 * 3600; at < from; at += 900)
                if (at >= 0) {
                        struct tm t = local(at);

                        assert_true(date_of(&t) < date_of(&a));
                }
        assert_int_equal(ad_zone_day_start(z, ad_zone_day_of(z, s * 1000)), from * 1000);
}

static void check_month(const char *name, const struct ad_zone *z, int64_t s)
{
        int64_t from = ad_zone_floor(z, AD_WINDOW_MONTH, s * 1000) / 1000;
        int64_t to = ad_zone_next(z, AD_WINDOW_MONTH, s * 1000) / 1000;
        struct tm a = local(from), before = local(from - 1), b = local(to), last = local(to - 1);
        int64_t m = a.tm_year * 12LL + a.tm_mon;

        if (from > s || to <= s || before.tm_year * 12LL + before.tm_mon != m - 1 ||
            last.tm_year * 12LL + last.tm_mon != m || b.tm_year * 12LL + b.tm_mon != m + 1)
                fail_msg("%s at %lld: month [%lld, %lld)", name, (long long)s, (long long)from,
                         (long long)to);
}

static void test_equal_to_c_library(void **state)
{
        size_t used = 0;

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                uint64_t random = 88172645463325252u + i;
                const struct ad_zone *z;

                if (!use(names[i], &z))
                        continue;
                used++;
                for (int k = 0; k < INSTANTS; k++) {
                        int64_t s = (int64_t)below(&random, LAST_S - 100 * 86400) + 40 * 86400;

                        if (k % 2) { /* near a change, where mistakes are */
                                int64_t c = ad_zone_next_change(z, s * 1000);

                                if (c != INT64_MAX && c / 1000 < LAST_S - 40 * 86400)
                                        s = c / 1000 + (int64_t)below(&random, 100000) - 50000;
                        }
                        check_offset(names[i], z, s);
                        check_hour(names[i], z, s);
                        check_day(names[i], z, s);
                        check_month(names[i], z, s);
                        if (k % 10 == 0)
                                check_change(names[i], z, s);
                }
        }
        assert_true(used >= 1);
        if (used < sizeof(names) / sizeof(names[0]))
                print_message("%zu of %zu zones are installed\n", used,
                              sizeof(names) / sizeof(names[0]));
}

static int64_t utc(int y, int m, int d, int h, int min)
{
        struct tm t = {
                .tm_year = y - 1900, .tm_mon = m - 1, .tm_mday = d, .tm_hour = h, .tm_min = min};

        return (int64_t)timegm(&t) * 1000;
}

/* Known from the law books, not from any file; days past, which no later law changes. */
static void test_days_of_known_length(void **state)
{
        static const struct {
                const char *zone;
                int y, m, d;
                int minutes;
        } days[] = {
                {"Europe/Berlin", 2024, 3, 31, 23 * 60},
                {"Europe/Berlin", 2024, 10, 27, 25 * 60},
                {"Europe/Berlin", 2024, 7, 1, 24 * 60},
                {"America/New_York", 2024, 3, 10, 23 * 60},
                {"America/New_York", 2024, 11, 3, 25 * 60},
                {"Australia/Lord_Howe", 2024, 4, 7, 1470},
                {"Australia/Lord_Howe", 2024, 10, 6, 1410},
                {"Asia/Kathmandu", 2024, 3, 31, 24 * 60},
                {"America/Sao_Paulo", 2018, 11, 4, 23 * 60},
                {"America/Havana", 2024, 11, 3, 25 * 60},
        };

        for (size_t i = 0; i < sizeof(days) / sizeof(days[0]); i++) {
                int64_t noon = utc(days[i].y, days[i].m, days[i].d, 12, 0), from, to;
                const struct ad_zone *z;

                if (!use(days[i].zone, &z))
                        continue;
                noon -= 1000LL * ad_zone_offset_s(z, noon);
                from = ad_zone_floor(z, AD_WINDOW_DAY, noon);
                to = ad_zone_next(z, AD_WINDOW_DAY, noon);
                if (to - from != days[i].minutes * 60000LL)
                        fail_msg("%s %d-%02d-%02d has %lld minutes, not %d", days[i].zone,
                                 days[i].y, days[i].m, days[i].d, (long long)(to - from) / 60000,
                                 days[i].minutes);
        }
}

/* 30 December 2011 did not happen in Samoa. */
static void test_skipped_day(void **state)
{
        int64_t before = utc(2011, 12, 30, 9, 0), next;
        const struct ad_zone *z;
        char text[AD_ZONE_TEXT_MAX];

        if (!use("Pacific/Apia", &z))
                skip();
        assert_int_equal(ad_zone_local_day(z, before), utc(2011, 12, 29, 0, 0) / DAY_MS);
        next = ad_zone_next(z, AD_WINDOW_DAY, before);
        assert_int_equal(next, utc(2011, 12, 30, 10, 0));
        assert_int_equal(ad_zone_day_of(z, next), utc(2011, 12, 31, 0, 0) / DAY_MS);
        assert_int_equal(ad_zone_next(z, AD_WINDOW_DAY, next) - next, DAY_MS);
        (void)ad_zone_text(z, next, text);
        assert_string_equal(text, "2011-12-31T00:00:00+14:00");
        assert_false(ad_zone_from_local(z, utc(2011, 12, 30, 12, 0), &next));
}

static void test_local_times(void **state)
{
        const struct ad_zone *z;
        char text[AD_ZONE_TEXT_MAX];
        int64_t ms;

        if (!use("Europe/Berlin", &z))
                skip();
        assert_false(ad_zone_from_local(z, utc(2026, 3, 29, 2, 30), &ms)); /* jumped over */
        assert_true(ad_zone_from_local(z, utc(2026, 3, 29, 3, 0), &ms));
        assert_int_equal(ms, utc(2026, 3, 29, 1, 0));
        assert_true(ad_zone_from_local(z, utc(2026, 10, 25, 2, 30), &ms)); /* twice: the first */
        assert_int_equal(ms, utc(2026, 10, 25, 0, 30));
        if (!use("Asia/Kathmandu", &z))
                skip();
        (void)ad_zone_text(z, utc(2026, 11, 24, 10, 0), text);
        assert_string_equal(text, "2026-11-24T15:45:00+05:45");
        assert_int_equal(ad_zone_floor(z, AD_WINDOW_HOUR, utc(2026, 11, 24, 10, 20)),
                         utc(2026, 11, 24, 10, 15));
}

/* W1: composed from quarter hours; a range in which a zone is off them is refused, and only
 * that. */
static void test_off_the_quarter_hour(void **state)
{
        int64_t at, change = utc(1972, 1, 7, 0, 44) + 30000;
        const struct ad_zone *z;

        if (!use("Africa/Monrovia", &z))
                skip();
        assert_false(ad_zone_supported(z, utc(1971, 1, 1, 0, 0), utc(1971, 1, 2, 0, 0), &at));
        assert_int_equal(at, utc(1971, 1, 1, 0, 0));
        assert_false(ad_zone_supported(z, utc(1972, 1, 1, 0, 0), utc(2020, 1, 2, 0, 0), &at));
        assert_true(ad_zone_supported(z, change, utc(2090, 1, 1, 0, 0), &at));
        if (use("Asia/Kathmandu", &z)) /* +05:30 and +05:45 are both on the quarter */
                assert_true(ad_zone_supported(z, 0, utc(2090, 1, 1, 0, 0), &at));
}

static void test_refused_files(void **state)
{
        static const char *const bad[] = {
                "", "/etc/passwd", "../../etc/passwd", "Europe//Berlin", "Europe/", "a b", "tz\n",
                "."};
        struct df_buf b = {0};
        struct ad_zone *made;
        const struct ad_zone *z;
        struct df_error err;
        char content[65536];
        size_t n;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                assert_false(ad_zone_name_valid(bad[i]));
                assert_int_equal(ad_zones_get(zones, bad[i], &z, &err), DF_EINVAL);
        }
        assert_int_equal(ad_zones_get(zones, "Europe/Nowhere", &z, &err), DF_ENOENT);
        if (access("/usr/share/zoneinfo/Europe/Berlin", R_OK) != 0)
                skip();
        n = slurp("/usr/share/zoneinfo/Europe/Berlin", content, sizeof(content));
        for (size_t cut = 0; cut < n; cut += 1 + cut / 16) /* every kind of a cut file */
                assert_int_equal(ad_zone_parse("X/Y", df_bytes(content, cut), &made, &err),
                                 DF_EPARSE);
        for (size_t i = 0; i < n; i += 3) { /* damaged ones: an error or a zone, never a crash */
                char save = content[i];

                content[i] = (char)~save;
                if (ad_zone_parse("X/Y", df_bytes(content, n), &made, &err) == 0) {
                        (void)ad_zone_offset_s(made, utc(2050, 6, 1, 0, 0));
                        (void)ad_zone_next_change(made, utc(2050, 6, 1, 0, 0));
                        ad_zone_destroy(made);
                }
                content[i] = save;
        }
        df_buf_release(&b);
}

/* The same zone by two names has one digest; another zone has another. */
static void test_digest(void **state)
{
        const struct ad_zone *a, *b;

        if (!use("Europe/Berlin", &a) || !use("Europe/Moscow", &b))
                skip();
        assert_true(ad_zone_digest(a) != ad_zone_digest(b));
        assert_true(ad_zone_digest(a) != 0);
}

static int setup(void **state)
{
        ok(ad_zones_create(NULL, &zones, err));
        return 0;
}

static int teardown(void **state)
{
        ad_zones_destroy(zones);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_equal_to_c_library),
                cmocka_unit_test(test_days_of_known_length),
                cmocka_unit_test(test_skipped_day),
                cmocka_unit_test(test_local_times),
                cmocka_unit_test(test_off_the_quarter_hour),
                cmocka_unit_test(test_refused_files),
                cmocka_unit_test(test_digest),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
