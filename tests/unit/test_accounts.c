/* The accounts file: whose periods there are; bad files, and changes while it is read. Calendar
 * months of zones, against dates that are known. */
#include "unit.h"

#include <sys/stat.h>
#include <time.h>

#include "df/run.h"
#include "jobs/api/periods.h"
#include "jobs/common/times.h"
#include "state_test.h"

static char dir[256], path[300];
static struct ad_zones *zones;
static const struct ad_zone *utc;

static int setup(void **state)
{
        (void)temp_dir(dir);
        (void)snprintf(path, sizeof(path), "%s/accounts", dir);
        ok(ad_zones_create(NULL, &zones, err));
        ok(ad_zones_get(zones, "UTC", &utc, err));
        return 0;
}

static int teardown(void **state)
{
        ad_zones_destroy(zones);
        remove_dir(dir);
        return 0;
}

static void write_file(const char *text)
{
        ok(df_write_file(path, df_bytes_str(text), false, err));
}

static void expect(struct ad_accounts *a, const char *tenant, const char *advertiser, bool whole,
                   const char *zone, const char *currency)
{
        struct ad_account_rule r;

        ad_accounts_find(a, df_bytes_str(tenant), df_bytes_str(advertiser), &r);
        assert_int_equal(r.whole_tenant, whole);
        assert_string_equal(ad_zone_name(r.zone), zone);
        assert_string_equal(r.currency, currency);
}

static void test_rules(void **state)
{
        struct ad_accounts *a;

        write_file("# comment\n\n  acme\tadvertiser Europe/Berlin EUR # ours\r\n"
                   "acme advertiser=a7 America/New_York\n"
                   "acme advertiser=a8 UTC USD\n"
                   "globex tenant Asia/Kolkata\n"
                   "initech advertiser=x Asia/Tokyo JPY");
        ok(ad_accounts_open(path, zones, utc, &a, err));
        expect(a, "acme", "", false, "Europe/Berlin", "EUR");
        expect(a, "acme", "a1", false, "Europe/Berlin", "EUR");
        expect(a, "acme", "a7", false, "America/New_York", "EUR");
        expect(a, "acme", "a8", false, "UTC", "USD");
        expect(a, "globex", "", true, "Asia/Kolkata", "");
        expect(a, "initech", "x", false, "Asia/Tokyo", "JPY");
        expect(a, "initech", "y", false, "UTC", "");
        expect(a, "other", "a7", false, "UTC", "");
        write_file("acme tenant Asia/Tokyo\n");
        ok(ad_accounts_refresh(a, err));
        expect(a, "acme", "", true, "Asia/Tokyo", "");
        expect(a, "globex", "", false, "UTC", "");
        write_file("acme nonsense UTC here\n"); /* what was read before stays in force */
        refuses(DF_EPARSE, "line 1", ad_accounts_refresh(a, err));
        expect(a, "acme", "", true, "Asia/Tokyo", "");
        ok(ad_accounts_refresh(a, err)); /* said once a change */
        ad_accounts_close(a);
        ok(ad_accounts_open(NULL, zones, utc, &a, err));
        expect(a, "acme", "a1", false, "UTC", "");
        ad_accounts_close(a);
}

static void test_bad_files(void **state)
{
        static const struct {
                const char *text, *says;
        } bad[] = {
                {"acme\n", "second word"},
                {"acme advertisers UTC\n", "second word"},
                {"acme advertiser= UTC\n", "the advertiser is not"},
                {"acme advertiser\n", "zone is missing"},
                {"\nacme advertiser Mars/Olympus\n", "line 2"},
                {"acme advertiser ../UTC\n", "line 1"},
                {"acme advertiser UTC EUX\n", "currency"},
                {"acme advertiser UTC XXX\n", "currency"},
                {"acme advertiser UTC EUR x\n", "more than four"},
                {"acme tenant UTC\nacme advertiser UTC\n", "lines 1 and 2"},
                {"acme advertiser=a UTC\nacme tenant UTC\n", "line 2 says"},
                {"acme advertiser=a UTC\nacme advertiser=a UTC\n", "lines 1 and 2"},
        };
        struct ad_accounts *a;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                write_file(bad[i].text);
                refuses(DF_EPARSE, bad[i].says, ad_accounts_open(path, zones, utc, &a, err));
        }
        (void)unlink(path);
        refuses(DF_ENOENT, path, ad_accounts_open(path, zones, utc, &a, err));
}

static void test_lines_max(void **state)
{
        struct df_buf b = {0};
        struct ad_accounts *a;

        for (int i = 0; i <= AD_ACCOUNTS_MAX; i++) {
                df_buf_printf(&b, "t%d tenant UTC\n", i);
                if (i == AD_ACCOUNTS_MAX - 1) {
                        ok(df_write_file(path, df_buf_bytes(&b), false, err));
                        ok(ad_accounts_open(path, zones, utc, &a, err));
                        expect(a, "t9999", "", true, "UTC", "");
                        ad_accounts_close(a);
                }
        }
        ok(df_write_file(path, df_buf_bytes(&b), false, err));
        refuses(DF_EPARSE, "more than", ad_accounts_open(path, zones, utc, &a, err));
        df_buf_release(&b);
}

static void test_bytes_max(void **state)
{
        struct df_buf b = {0};
        struct ad_accounts *a;

        df_buf_printf(&b, "acme tenant UTC\n#");
        while (b.len < AD_ACCOUNTS_FILE_MAX)
                df_put_u8(&b, 'x');
        ok(df_write_file(path, df_buf_bytes(&b), false, err));
        ok(ad_accounts_open(path, zones, utc, &a, err));
        expect(a, "acme", "", true, "UTC", "");
        df_put_u8(&b, 'x');
        ok(df_write_file(path, df_buf_bytes(&b), false, err));
        refuses(DF_ELIMIT, "larger than 4194304 bytes", ad_accounts_refresh(a, err));
        expect(a, "acme", "", true, "UTC", ""); /* what was read before stays in force */
        ad_accounts_close(a);
        refuses(DF_ELIMIT, path, ad_accounts_open(path, zones, utc, &a, err));
        df_buf_release(&b);
}

static uint64_t quarter(const char *time)
{
        int64_t ms;

        assert_true(ad_time_parse(df_bytes_str(time), &ms));
        return (uint64_t)ms / AD_QUARTER_MS;
}

static void test_months(void **state)
{
        static const struct {
                const char *zone;
                int year;
                unsigned month;
                const char *from, *to;
        } known[] = {
                {"UTC", 2026, 4, "2026-04-01T00:00:00Z", "2026-05-01T00:00:00Z"},
                {"UTC", 2026, 12, "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z"},
                /* an hour less, and an hour more */
                {"Europe/Berlin", 2026, 3, "2026-03-01T00:00:00+01:00",
                 "2026-04-01T00:00:00+02:00"},
                {"Europe/Berlin", 2026, 10, "2026-10-01T00:00:00+02:00",
                 "2026-11-01T00:00:00+01:00"},
                {"America/New_York", 2026, 11, "2026-11-01T00:00:00-04:00",
                 "2026-12-01T00:00:00-05:00"},
                {"Asia/Kathmandu", 2026, 2, "2026-02-01T00:00:00+05:45",
                 "2026-03-01T00:00:00+05:45"},
        };
        struct ad_fault f;
        struct adi_month m;

        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
                const struct ad_zone *z;
                unsigned month;
                int year;

                ok(ad_zones_get(zones, known[i].zone, &z, err));
                assert_int_equal(adi_month_of(z, known[i].year, known[i].month, &m, &f), 0);
                assert_true(m.from_quarter == quarter(known[i].from));
                assert_true(m.to_quarter == quarter(known[i].to));
                adi_month_at(z, (int64_t)m.from_quarter * AD_QUARTER_MS, &year, &month);
                assert_true(year == known[i].year && month == known[i].month);
                adi_month_at(z, (int64_t)m.to_quarter * AD_QUARTER_MS - 1, &year, &month);
                assert_true(year == known[i].year && month == known[i].month);
        }
}

/* 44 minutes and 30 seconds behind until 1972. */
static void test_off_the_quarter(void **state)
{
        const struct ad_zone *z;
        struct adi_month m;
        struct ad_fault f;

        ok(ad_zones_get(zones, "Africa/Monrovia", &z, err));
        assert_int_equal(adi_month_of(z, 2026, 4, &m, &f), 0);
        assert_int_equal(adi_month_of(z, 1971, 4, &m, &f), -1);
        assert_string_equal(f.code, "zone_not_supported");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_rules, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
                cmocka_unit_test_setup_teardown(test_lines_max, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bytes_max, setup, teardown),
                cmocka_unit_test_setup_teardown(test_months, setup, teardown),
                cmocka_unit_test_setup_teardown(test_off_the_quarter, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
