/* Settings: the later source wins, unknown names are errors that help, values are checked at once,
 * and where each value came from is known. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/config.h"
#include "df/run.h"

static const struct df_setting table[] = {
        {"name", DF_TEXT, NULL, .arg = "NAME", .help = "a text"},
        {"count", DF_INTEGER, "4", 1, 256, .help = "a number"},
        {"free-count", DF_INTEGER, "-1", .help = "without bounds"},
        {"quiet", DF_BOOL, "false", .help = "a switch"},
        {"grace", DF_DURATION, "15m", 0, 86400000, .help = "a duration"},
        {"body-max", DF_SIZE, "16MiB", 1024, 1 << 30, .help = "a size"},
        {"pricing", DF_CHOICE, "client", .choices = "client|table|client_else_table",
         .help = "one"},
        {"token", DF_TEXT, NULL, .help = "hidden", .secret = true},
        {"lib.*", DF_TEXT, NULL, .help = "a family", .secret_words = "password|.pem"},
};
#define COUNT (sizeof(table) / sizeof(table[0]))

static char dir[256], path[300];

static int setup(void **state)
{
        const char *tmp = getenv("TMPDIR");

        /* The test runner's own variables are not settings of this table. */
        (void)unsetenv("SOURCE_ROOT");
        (void)unsetenv("ADTALLY_LOG_LEVEL");
        (void)snprintf(dir, sizeof(dir), "%s/config-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(dir))
                return -1;
        (void)snprintf(path, sizeof(path), "%s/file.ini", dir);
        return 0;
}

static int teardown(void **state)
{
        (void)unlink(path);
        return rmdir(dir);
}

struct loaded {
        struct df_config *c;
        const char *args[16];
        int count;
        bool help;
        struct df_error err;
};

static int load(struct loaded *l, char **argv)
{
        int argc = 0;

        *l = (struct loaded){.c = NULL};
        while (argv[argc])
                argc++;
        return df_config_load(table, COUNT, argc, argv, &l->c, l->args, &l->count, &l->help,
                              &l->err);
}

#define ARGS(...)                                                                                  \
        (char *[])                                                                                 \
        {                                                                                          \
                __VA_ARGS__ __VA_OPT__(, ) NULL                                                    \
        }

static void check_fails(char **argv, int code, const char *part)
{
        struct loaded l;

        if (load(&l, argv) != code || l.err.code != code || !strstr(l.err.text, part))
                fail_msg("%s: %d \"%s\", wanted \"%s\"", argv[0] ? argv[0] : "(none)", l.err.code,
                         l.err.text, part);
        assert_null(l.c);
}

static void put_file(const char *text)
{
        assert_int_equal(df_write_file(path, df_bytes_str(text), false, NULL), 0);
}

static void test_defaults(void **state)
{
        struct loaded l;

        assert_int_equal(load(&l, ARGS()), 0);
        assert_null(df_config_text(l.c, "name"));
        assert_int_equal(df_config_integer(l.c, "count"), 4);
        assert_int_equal(df_config_integer(l.c, "free-count"), -1);
        assert_false(df_config_bool(l.c, "quiet"));
        assert_int_equal(df_config_ms(l.c, "grace"), 15 * 60 * 1000);
        assert_int_equal(df_config_bytes(l.c, "body-max"), 16 << 20);
        assert_string_equal(df_config_text(l.c, "pricing"), "client");
        assert_true(df_config_is_default(l.c, "count"));
        assert_string_equal(df_config_origin(l.c, "count"), "default");
        df_config_release(l.c);
        df_config_release(NULL);
}

static void test_later_source_wins(void **state)
{
        struct loaded l;
        char origin[400];

        put_file("# comment\ncount = 5\nname = from file\ngrace = 1h\nquiet = yes\n");
        assert_int_equal(setenv("ADTALLY_COUNT", "6", 1), 0);
        assert_int_equal(setenv("ADTALLY_GRACE", "2h", 1), 0);
        assert_int_equal(load(&l, ARGS("free", "--config", path, "--count", "7", "--", "--name")),
                         0);
        assert_int_equal(df_config_integer(l.c, "count"), 7);
        assert_string_equal(df_config_origin(l.c, "count"), "flag");
        assert_int_equal(df_config_ms(l.c, "grace"), 2 * 3600 * 1000);
        assert_string_equal(df_config_origin(l.c, "grace"), "environment ADTALLY_GRACE");
        assert_string_equal(df_config_text(l.c, "name"), "from file");
        (void)snprintf(origin, sizeof(origin), "file %s", path);
        assert_string_equal(df_config_origin(l.c, "name"), origin);
        assert_true(df_config_bool(l.c, "quiet"));
        assert_false(df_config_is_default(l.c, "quiet"));
        assert_int_equal(l.count, 2);
        assert_string_equal(l.args[0], "free");
        assert_string_equal(l.args[1], "--name");
        df_config_release(l.c);
        (void)unsetenv("ADTALLY_COUNT");
        (void)unsetenv("ADTALLY_GRACE");
        /* ADTALLY_CONFIG names the file; --config is later, so it wins. */
        assert_int_equal(setenv("ADTALLY_CONFIG", path, 1), 0);
        assert_int_equal(load(&l, ARGS()), 0);
        assert_int_equal(df_config_integer(l.c, "count"), 5);
        df_config_release(l.c);
        check_fails(ARGS("--config", "/does/not/exist.ini"), DF_ENOENT, "/does/not/exist.ini");
        (void)unsetenv("ADTALLY_CONFIG");
}

static void test_flag_forms(void **state)
{
        struct loaded l;

        assert_int_equal(load(&l, ARGS("--name=a=b", "--quiet", "--count=9", "--free-count", "-7")),
                         0);
        assert_string_equal(df_config_text(l.c, "name"), "a=b");
        assert_true(df_config_bool(l.c, "quiet"));
        assert_int_equal(df_config_integer(l.c, "count"), 9);
        assert_int_equal(df_config_integer(l.c, "free-count"), -7);
        df_config_release(l.c);
        assert_int_equal(
                load(&l, ARGS("--quiet=false", "--name", "", "--count", "8", "--count", "9")), 0);
        assert_false(df_config_bool(l.c, "quiet"));
        assert_string_equal(df_config_text(l.c, "name"), "");
        assert_int_equal(df_config_integer(l.c, "count"), 9);
        df_config_release(l.c);
        assert_int_equal(load(&l, ARGS("--quiet", "no")), 0); /* a switch takes no next argument */
        assert_true(df_config_bool(l.c, "quiet"));
        assert_int_equal(l.count, 1);
        df_config_release(l.c);
        assert_int_equal(load(&l, ARGS("--nonsense", "--help")), 0); /* help checks nothing else */
        assert_true(l.help);
        df_config_release(l.c);
        assert_int_equal(load(&l, ARGS("-h")), 0);
        assert_true(l.help);
        df_config_release(l.c);
}

static void test_unknown_names_help(void **state)
{
        check_fails(ARGS("--grase", "1m"), DF_EINVAL, "did you mean \"grace\"");
        check_fails(ARGS("--cuont=1"), DF_EINVAL, "did you mean \"count\"");
        check_fails(ARGS("--name"), DF_EINVAL, "--name needs a value");
        check_fails(ARGS("--config"), DF_EINVAL, "--config needs a value");
        put_file("body_max = 1MiB\n");
        check_fails(ARGS("--config", path), DF_EINVAL, "did you mean \"body-max\"");
        put_file("[section]\ncount = 5\n");
        check_fails(ARGS("--config", path), DF_EINVAL, "no sections");
        put_file("count = 5\nthis is no setting\n");
        check_fails(ARGS("--config", path), DF_EPARSE, ":2:");
        assert_int_equal(setenv("ADTALLY_PRISING", "table", 1), 0);
        check_fails(ARGS(), DF_EINVAL, "did you mean \"pricing\"");
        check_fails(ARGS(), DF_EINVAL, "ADTALLY_PRISING");
        (void)unsetenv("ADTALLY_PRISING");
}

static void test_values_are_checked_when_read(void **state)
{
        check_fails(ARGS("--count", "0"), DF_EINVAL, "outside 1 to 256");
        check_fails(ARGS("--count", "257"), DF_EINVAL, "outside 1 to 256");
        check_fails(ARGS("--count", "4x"), DF_EPARSE, "count");
        check_fails(ARGS("--count", ""), DF_EPARSE, "count");
        check_fails(ARGS("--count", " 4"), DF_EPARSE, "count");
        check_fails(ARGS("--count", "99999999999999999999"), DF_EPARSE, "count");
        check_fails(ARGS("--quiet=maybe"), DF_EINVAL, "true or false");
        check_fails(ARGS("--grace", "25h"), DF_EINVAL, "grace");
        check_fails(ARGS("--grace", "-1s"), DF_EPARSE, "grace");
        check_fails(ARGS("--grace", "1 h"), DF_EPARSE, "grace");
        check_fails(ARGS("--body-max", "1k"), DF_EPARSE, "body-max");
        check_fails(ARGS("--body-max", "1023"), DF_EINVAL, "body-max");
        check_fails(ARGS("--pricing", "tab"), DF_EINVAL, "client|table|client_else_table");
        check_fails(ARGS("--pricing", ""), DF_EINVAL, "pricing");
        check_fails(ARGS("--pricing", "client|table"), DF_EINVAL, "pricing");
        assert_int_equal(setenv("ADTALLY_COUNT", "many", 1), 0);
        check_fails(ARGS(), DF_EPARSE, "ADTALLY_COUNT");
        (void)unsetenv("ADTALLY_COUNT");
}

static void test_durations_and_sizes(void **state)
{
        static const struct {
                const char *text;
                int64_t ms; /* -1 = refused */
        } durations[] = {
                {"0", 0},
                {"1", 1000},
                {"250ms", 250},
                {"30s", 30000},
                {"15m", 900000},
                {"15min", 900000},
                {"24h", 86400000},
                {"7d", 604800000},
                {"", -1},
                {"s", -1},
                {"1.5s", -1},
                {"1w", -1},
                {"-1", -1},
                {"1H", -1},
                {"106751991167d", 106751991167LL * 86400000},
                {"106751991168d", -1},
                {"9223372036854775807ms", INT64_MAX},
                {"9223372036854775808ms", -1},
                {"9999999999999999999ms", -1},
                {"99999999999999999999ms", -1},
        };
        static const struct {
                const char *text;
                int64_t bytes;
        } sizes[] = {
                {"0", 0},
                {"4096", 4096},
                {"1B", 1},
                {"64KiB", 65536},
                {"64KB", 64000},
                {"16MiB", 16 << 20},
                {"1GB", 1000000000},
                {"1TiB", 1LL << 40},
                {"8388607TiB", 8388607LL << 40},
                {"8388608TiB", -1},
                {"1K", -1},
                {"1mb", -1},
                {"0x10", -1},
                {"9999999999999999999", -1},
        };

        for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
                int64_t v = -1;
                int rc = df_parse_duration(durations[i].text, &v, NULL);

                if ((rc == 0) != (durations[i].ms >= 0) || v != durations[i].ms)
                        fail_msg("%s: %d %lld", durations[i].text, rc, (long long)v);
        }
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                uint64_t v = UINT64_MAX;
                int rc = df_parse_size(sizes[i].text, &v, NULL);

                if ((rc == 0) != (sizes[i].bytes >= 0) || v != (uint64_t)sizes[i].bytes)
                        fail_msg("%s: %d %llu", sizes[i].text, rc, (unsigned long long)v);
        }
}

/* `adtally config`: effective values and origins; a secret is never printed. */
static void test_print_hides_secrets(void **state)
{
        struct loaded l;
        char *text = NULL;
        size_t size = 0;
        FILE *f = open_memstream(&text, &size);

        assert_non_null(f);
        assert_int_equal(load(&l, ARGS("--token", "hunter2", "--count", "9")), 0);
        df_config_print(l.c, f);
        df_config_help(table, COUNT, f);
        assert_int_equal(fclose(f), 0);
        assert_null(strstr(text, "hunter2"));
        assert_non_null(strstr(text, "(secret)"));
        assert_non_null(strstr(text, "; flag"));
        for (size_t i = 0; i < COUNT; i++)
                assert_non_null(strstr(text, table[i].help));
        free(text);
        df_config_release(l.c);
}

/* A family takes every name; the later source wins for each of them; some are secrets. */
static void test_family(void **state)
{
        const char *name = NULL;
        struct loaded l;
        char *text = NULL;
        size_t size = 0;
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_true(fprintf(f, "lib.ca.location = from file\nlib.retries = 1\n") > 0);
        assert_int_equal(fclose(f), 0);
        assert_int_equal(setenv("ADTALLY_LIB__CA_LOCATION", "/ca", 1), 0);
        assert_int_equal(
                load(&l, ARGS("--config", path, "--lib.key.password=hunter2", "--lib.a", "b=c")),
                0);
        assert_int_equal(unsetenv("ADTALLY_LIB__CA_LOCATION"), 0);
        assert_string_equal(df_config_member(l.c, "lib.*", 0, &name), "b=c");
        assert_string_equal(name, "a");
        assert_string_equal(df_config_member(l.c, "lib.*", 1, &name), "/ca");
        assert_string_equal(name, "ca.location");
        assert_string_equal(df_config_member(l.c, "lib.*", 2, &name), "hunter2");
        assert_string_equal(df_config_member(l.c, "lib.*", 3, &name), "1");
        assert_null(df_config_member(l.c, "lib.*", 4, &name));
        f = open_memstream(&text, &size);
        assert_non_null(f);
        df_config_print(l.c, f);
        assert_int_equal(fclose(f), 0);
        assert_null(strstr(text, "hunter2"));
        assert_non_null(strstr(text, "# lib.key.password"));
        assert_non_null(strstr(text, "; environment ADTALLY_LIB__CA_LOCATION"));
        free(text);
        df_config_release(l.c);
        check_fails(ARGS("--lib.", "x"), DF_EINVAL, "unknown setting");
        check_fails(ARGS("--lib", "x"), DF_EINVAL, "unknown setting");
}

/* What is printed can be given back with --config: unset values and secrets are comments there. */
static void test_print_reads_back(void **state)
{
        struct loaded l;
        FILE *f = fopen(path, "w");

        assert_non_null(f);
        assert_int_equal(load(&l, ARGS("--token", "hunter2", "--grace", "90s", "--quiet")), 0);
        df_config_print(l.c, f);
        assert_int_equal(fclose(f), 0);
        df_config_release(l.c);
        assert_int_equal(load(&l, ARGS("--config", path)), 0);
        assert_int_equal(df_config_ms(l.c, "grace"), 90000);
        assert_true(df_config_bool(l.c, "quiet"));
        assert_int_equal(df_config_integer(l.c, "free-count"), -1);
        assert_null(df_config_text(l.c, "name"));
        assert_null(df_config_text(l.c, "token"));
        df_config_release(l.c);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_defaults),
                cmocka_unit_test(test_later_source_wins),
                cmocka_unit_test(test_flag_forms),
                cmocka_unit_test(test_unknown_names_help),
                cmocka_unit_test(test_values_are_checked_when_read),
                cmocka_unit_test(test_durations_and_sizes),
                cmocka_unit_test(test_print_hides_secrets),
                cmocka_unit_test(test_family),
                cmocka_unit_test(test_print_reads_back),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
