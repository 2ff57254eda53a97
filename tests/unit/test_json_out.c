/* JSON output is valid JSON whatever is written, and exact: integers of any size, every byte. */
#include "unit.h"

#include <math.h>
#include <stdio.h>

#include "jobs/common/json.h"

static struct df_buf out;

static int clear(void **state)
{
        df_buf_release(&out);
        return 0;
}

static struct ad_json *begin(void)
{
        struct ad_json *j;

        df_buf_clear(&out);
        j = ad_json_begin(&out);
        assert_non_null(j);
        return j;
}

static void expect(struct ad_json *j, const char *want)
{
        assert_int_equal(ad_json_end(j, &out, NULL), 0);
        df_put_u8(&out, 0);
        assert_string_equal((const char *)out.data, want);
}

static void test_document(void **state)
{
        struct ad_json *j = begin();

        ad_json_open(j);
        ad_json_put_text(j, "a", "x");
        ad_json_put_text(j, "none", NULL);
        ad_json_put_null(j, "null");
        ad_json_put_bool(j, "yes", true);
        ad_json_put_int(j, "n", -5);
        ad_json_put_bytes(j, "b", df_bytes("y", 1));
        ad_json_put_bytes(j, "empty", (struct df_bytes){0});
        ad_json_key(j, "list");
        ad_json_open_array(j);
        ad_json_open(j);
        ad_json_close(j);
        ad_json_open_array(j);
        ad_json_close_array(j);
        ad_json_bool(j, false);
        ad_json_null(j);
        ad_json_close_array(j);
        ad_json_close(j);
        expect(j, "{\"a\":\"x\",\"none\":null,\"null\":null,\"yes\":true,\"n\":-5,\"b\":\"y\","
                  "\"empty\":\"\",\"list\":[{},[],false,null]}");
}

/* Money is never rounded on the way out. */
static void test_integers_are_exact(void **state)
{
        static const struct {
                __int128 v;
                const char *text;
        } cases[] = {
                {0, "0"},
                {INT64_MAX, "9223372036854775807"},
                {INT64_MIN, "-9223372036854775808"},
                {(__int128)UINT64_MAX, "18446744073709551615"},
                {(__int128)1 << 100, "1267650600228229401496703205376"},
                {-((__int128)1 << 100), "-1267650600228229401496703205376"},
                {(__int128)(~(unsigned __int128)0 >> 1), "170141183460469231731687303715884105727"},
                {(__int128)((unsigned __int128)1 << 127),
                 "-170141183460469231731687303715884105728"},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct ad_json *j = begin();

                ad_json_int(j, cases[i].v);
                expect(j, cases[i].text);
        }
}

static void test_strings_are_escaped(void **state)
{
        struct ad_json *j = begin();

        ad_json_bytes(j, df_bytes("\"\\/\b\f\n\r\t\0\x01\x1f\x7f", 12));
        assert_int_equal(ad_json_end(j, &out, NULL), 0);
        /* Nothing below 0x20 stands in JSON as it is, and a quote ends a string. */
        for (size_t i = 0; i < out.len; i++)
                assert_true(out.data[i] >= 0x20);
        assert_non_null(memmem(out.data, out.len, "\\\"\\\\", 4));
        assert_non_null(memmem(out.data, out.len, "\\u0000\\u0001\\u001F", 18));
        j = begin();
        ad_json_text(j, "\xd0\x96 \xf0\x9f\x98\x80");
        expect(j, "\"\xd0\x96 \xf0\x9f\x98\x80\"");
}

/* A bad byte becomes U+FFFD; what is around it stays. Written out, to be read without a decoder. */
static void test_bad_utf8_is_replaced(void **state)
{
#define R "\xef\xbf\xbd"
        static const struct {
                const char *in, *want;
        } cases[] = {
                {"a\xff"
                 "b",
                 "\"a" R "b\""},
                {"\xc0\xaf", "\"" R R "\""},             /* overlong */
                {"\xe0\x80\xaf", "\"" R R R "\""},       /* overlong */
                {"\xed\xa0\x80", "\"" R R R "\""},       /* surrogate */
                {"\xf4\x90\x80\x80", "\"" R R R R "\""}, /* beyond U+10FFFF */
                {"\xf5\x80\x80\x80", "\"" R R R R "\""},
                {"\xe2\x82", "\"" R R "\""}, /* cut */
                {"\xe2\x82\xac\x80", "\"\xe2\x82\xac" R "\""},
                {"\xf4\x8f\xbf\xbf", "\"\xf4\x8f\xbf\xbf\""}, /* U+10FFFF itself */
                {"\xed\x9f\xbf\xee\x80\x80", "\"\xed\x9f\xbf\xee\x80\x80\""},
        };

        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct ad_json *j = begin();

                ad_json_text(j, cases[i].in);
                expect(j, cases[i].want);
        }
#undef R
}

static void test_numbers_that_are_none(void **state)
{
        struct ad_json *j = begin();

        ad_json_open_array(j);
        ad_json_double(j, NAN);
        ad_json_double(j, INFINITY);
        ad_json_double(j, -INFINITY);
        ad_json_double(j, 0.5);
        ad_json_double(j, 0);
        ad_json_ratio(j, 1, 0); /* null at 0, never a division */
        ad_json_ratio(j, 0, 4);
        ad_json_ratio(j, 6, 93);
        ad_json_close_array(j);
        expect(j, "[null,null,null,0.5,0,null,0,0.0645161]");
}

/* Every call takes NULL: a writer that could not be made loses the document, not the process. */
static void test_null_writer(void **state)
{
        struct df_error err = {0};

        df_buf_clear(&out);
        out.failed = true;
        ad_json_open(NULL);
        ad_json_put_text(NULL, "a", "b");
        ad_json_put_int(NULL, "a", 1);
        ad_json_open_array(NULL);
        ad_json_bytes(NULL, df_bytes("x", 1));
        ad_json_double(NULL, 1);
        ad_json_ratio(NULL, 1, 2);
        ad_json_bool(NULL, true);
        ad_json_close_array(NULL);
        ad_json_close(NULL);
        assert_int_equal(ad_json_end(NULL, &out, &err), DF_ENOMEM);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_teardown(test_document, clear),
                cmocka_unit_test_teardown(test_integers_are_exact, clear),
                cmocka_unit_test_teardown(test_strings_are_escaped, clear),
                cmocka_unit_test_teardown(test_bad_utf8_is_replaced, clear),
                cmocka_unit_test_teardown(test_numbers_that_are_none, clear),
                cmocka_unit_test_teardown(test_null_writer, clear),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
