/* test_money.c - exact money: checked sums, one rounding, decimal text, 128-bit wire form. */
#include "df/money.h"

#include <stdio.h>

#include "unit.h"

#define INT128_MAX ((__int128)((unsigned __int128)-1 >> 1))
#define INT128_MIN (-INT128_MAX - 1)

static const char *text(__int128 v)
{
        static char buf[DF_INT128_TEXT_MAX];
        int len = df_int128_text(v, buf);

        assert_int_equal(len, strlen(buf));
        return buf;
}

static void text_reaches_both_ends(void **state)
{
        (void)state;
        assert_string_equal(text(0), "0");
        assert_string_equal(text(-1), "-1");
        assert_string_equal(text(1000000000), "1000000000");
        assert_string_equal(text(INT64_MIN), "-9223372036854775808");
        assert_string_equal(text(UINT64_MAX), "18446744073709551615");
        assert_string_equal(text((__int128)UINT64_MAX + 1), "18446744073709551616");
        assert_string_equal(text(INT128_MAX), "170141183460469231731687303715884105727");
        assert_string_equal(text(INT128_MIN), "-170141183460469231731687303715884105728");
}

static void sum_refuses_one_beyond(void **state)
{
        df_nanos sum = INT128_MAX - 1;

        (void)state;
        assert_true(df_nanos_add(&sum, 1));
        assert_true(sum == INT128_MAX);
        assert_false(df_nanos_add(&sum, 1));
        assert_true(sum == INT128_MAX);
        sum = INT128_MIN + 1;
        assert_true(df_nanos_add(&sum, -1));
        assert_false(df_nanos_add(&sum, -1));
        assert_true(sum == INT128_MIN);
        assert_true(df_nanos_add(&sum, INT128_MAX));
        assert_true(sum == -1);
}

static void micros_round_half_to_even(void **state)
{
        static const struct {
                int64_t nanos, micros;
        } table[] = {
                {0, 0},
                {1, 0},
                {499, 0},
                {500, 0},
                {501, 1},
                {999, 1},
                {1000, 1},
                {1499, 1},
                {1500, 2},
                {1501, 2},
                {2499, 2},
                {2500, 2},
                {2501, 3},
                {3500, 4},
                {4500, 4},
                {-1, 0},
                {-499, 0},
                {-500, 0},
                {-501, -1},
                {-999, -1},
                {-1000, -1},
                {-1499, -1},
                {-1500, -2},
                {-1501, -2},
                {-2499, -2},
                {-2500, -2},
                {-2501, -3},
                {-3500, -4},
                {-4500, -4},
                {1234567890123456500, 1234567890123456},
                {1234567890123457500, 1234567890123458},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
                assert_true(df_nanos_to_micros(table[i].nanos) == table[i].micros);
        /* 170141183460469231731687303715884105.727 and .728 */
        assert_string_equal(text(df_nanos_to_micros(INT128_MAX)),
                            "170141183460469231731687303715884106");
        assert_string_equal(text(df_nanos_to_micros(INT128_MIN)),
                            "-170141183460469231731687303715884106");
        /* The definition: nearest, and even when two are. */
        for (int v = -5000; v <= 5000; v++) {
                int64_t m = (int64_t)df_nanos_to_micros(v), off = v - 1000 * m;

                assert_true(off >= -500 && off <= 500);
                if (off == 500 || off == -500)
                        assert_int_equal(m % 2, 0);
        }
}

/* By the currency's digits: nearest, even when two are; as text with as many decimals. */
static void invoices_round_half_to_even(void **state)
{
        static const struct {
                int64_t nanos;
                uint32_t digits;
                const char *text;
        } table[] = {
                {0, 2, "0.00"},
                {4999999, 2, "0.00"},
                {5000000, 2, "0.00"},
                {5000001, 2, "0.01"},
                {15000000, 2, "0.02"},
                {25000000, 2, "0.02"},
                {-5000000, 2, "0.00"},
                {-15000000, 2, "-0.02"},
                {-5000001, 2, "-0.01"},
                {500000000, 0, "0"},
                {1500000000, 0, "2"},
                {-2500000000, 0, "-2"},
                {1234500000, 3, "1.234"},
                {1235500000, 3, "1.236"},
                {123456789, 9, "0.123456789"},
                {-1, 9, "-0.000000001"},
                {1000000000000, 2, "1000.00"},
        };
        char buf[DF_DECIMAL_TEXT_MAX];

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                int n = df_decimal_text(df_nanos_round(table[i].nanos, table[i].digits),
                                        table[i].digits, buf);

                assert_string_equal(buf, table[i].text);
                assert_int_equal(n, strlen(buf));
        }
        assert_int_equal(df_decimal_text(INT128_MIN, 9, buf), 41);
        assert_string_equal(buf, "-170141183460469231731687303715.884105728");
        for (int64_t v = -30000000; v <= 30000000; v += 2500000) {
                int64_t cents = (int64_t)df_nanos_round(v, 2), off = v - 10000000 * cents;

                assert_true(off >= -5000000 && off <= 5000000);
                if (off == 5000000 || off == -5000000)
                        assert_int_equal(cents % 2, 0);
        }
        assert_int_equal(df_currency_digits(df_bytes_str("EUR")), 2);
        assert_int_equal(df_currency_digits(df_bytes_str("JPY")), 0);
        assert_int_equal(df_currency_digits(df_bytes_str("KWD")), 3);
}

static void parse_is_exact(void **state)
{
        static const struct {
                const char *in, *nanos;
        } table[] = {
                {"0", "0"},
                {"-0", "0"},
                {"187.4", "187400000000"},
                {"-3", "-3000000000"},
                {"0.000000001", "1"},
                {"-0.000000001", "-1"},
                {"1.000000000", "1000000000"},
                {"007.50", "7500000000"},
                {"0.1", "100000000"},
                {"9007199254740993.123456789", "9007199254740993123456789"},
                {"170141183460469231731687303715.884105727",
                 "170141183460469231731687303715884105727"},
                {"-170141183460469231731687303715.884105728",
                 "-170141183460469231731687303715884105728"},
                {"0000000000000000000000000000000000000000000000000001", "1000000000"},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                df_nanos v = 42;

                assert_true(df_nanos_parse(df_bytes_str(table[i].in), &v));
                assert_string_equal(text(v), table[i].nanos);
        }
}

static void parse_refuses_the_rest(void **state)
{
        static const char *const bad[] = {
                "",
                "-",
                ".",
                "-.",
                ".5",
                "5.",
                "+1",
                "1e3",
                " 1",
                "1 ",
                "1.0000000001",
                "1.0000000000",
                "1,5",
                "0x1",
                "--1",
                "1-",
                "1..2",
                "1.2.3",
                "NaN",
                "inf",
                "1.-2",
                "/",
                ":",
                "1.:",
                "170141183460469231731687303715.884105728",
                "-170141183460469231731687303715.884105729",
                "170141183460469231731687303716",
                "1000000000000000000000000000000000000000000000000000000000000",
        };

        (void)state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                df_nanos v = 42;

                if (df_nanos_parse(df_bytes_str(bad[i]), &v))
                        fail_msg("\"%s\" was accepted", bad[i]);
                assert_true(v == 42); /* untouched */
        }
        assert_false(df_nanos_parse(df_bytes("1\0", 2), &(df_nanos){0}));
        assert_false(df_nanos_parse(df_bytes(NULL, 0), &(df_nanos){0}));
}

/* Value and its shortest form, from Python's int.to_bytes. */
static void int128_wire_is_shortest(void **state)
{
        static const struct {
                const char *decimal, *hex;
        } table[] = {
                {"1", "01"},
                {"-1", "ff"},
                {"127", "7f"},
                {"128", "8000"},
                {"-128", "80"},
                {"-129", "7fff"},
                {"255", "ff00"},
                {"256", "0001"},
                {"32767", "ff7f"},
                {"32768", "008000"},
                {"-32768", "0080"},
                {"-32769", "ff7fff"},
                {"9223372036854775807", "ffffffffffffff7f"},
                {"9223372036854775808", "000000000000008000"},
                {"-9223372036854775808", "0000000000000080"},
                {"-9223372036854775809", "ffffffffffffff7fff"},
                {"18446744073709551616", "000000000000000001"},
                {"664613997892457936451903530140172287", "ffffffffffffffffffffffffffff7f"},
                {"664613997892457936451903530140172288", "00000000000000000000000000008000"},
                {"-664613997892457936451903530140172289", "ffffffffffffffffffffffffffff7fff"},
                {"170141183460469231731687303715884105727", "ffffffffffffffffffffffffffffff7f"},
                {"-170141183460469231731687303715884105728", "00000000000000000000000000000080"},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                size_t len = strlen(table[i].hex) / 2;
                uint8_t want[18] = {5 << 3 | 2, (uint8_t)len};
                struct df_buf b = {0};
                __int128 v = 0;

                for (size_t j = 0; j < len; j++) {
                        unsigned byte;

                        assert_int_equal(sscanf(table[i].hex + 2 * j, "%2x", &byte), 1);
                        want[2 + j] = (uint8_t)byte;
                }
                assert_true(df_int128_from_bytes(df_bytes(want + 2, len), &v));
                assert_string_equal(text(v), table[i].decimal);
                df_pb_int128(&b, 5, v);
                assert_int_equal(b.len, len + 2);
                assert_memory_equal(b.data, want, b.len);
                df_buf_release(&b);
        }
}

static void int128_wire_bounds(void **state)
{
        static const uint8_t long_form[17] = {1};
        struct df_buf b = {0};
        __int128 v = 42;

        (void)state;
        df_pb_int128(&b, 5, 0);
        assert_int_equal(b.len, 0); /* zero is absent */
        assert_false(df_int128_from_bytes(df_bytes(long_form, 17), &v));
        assert_true(v == 42);
        assert_true(df_int128_from_bytes(df_bytes(long_form, 16), &v));
        assert_true(v == 1);
        assert_true(df_int128_from_bytes(df_bytes(NULL, 0), &v));
        assert_true(v == 0);
        df_buf_release(&b);
}

/* All 17,576 triples: the known ones are exactly those of this list (in no order). */
static void currencies_are_the_known_ones(void **state)
{
        static const char known[] =
                "USD EUR JPY GBP CNY AUD CAD CHF HKD SGD SEK KRW NOK NZD INR MXN TWD ZAR BRL DKK "
                "PLN THB ILS IDR CZK AED TRY HUF CLP SAR PHP MYR COP RUB RON PEN BHD BGN ARS "
                "AFN ALL AMD ANG AOA AWG AZN BAM BBD BDT BIF BMD BND BOB BSD BTN BWP BYN BZD CDF "
                "CRC CUP CVE DJF DOP DZD EGP ERN ETB FJD FKP GEL GHS GIP GMD GNF GTQ GYD HNL HTG "
                "IQD IRR ISK JMD JOD KES KGS KHR KMF KPW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD "
                "MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MZN NAD NGN NIO NPR OMR PAB PGK PKR PYG "
                "QAR RSD RWF SBD SCR SDG SHP SLE SOS SRD SSP STN SVC SYP SZL TJS TMT TND TOP TTD "
                "TZS UAH UGX UYU UZS VED VES VND VUV WST XAF XCD XCG XOF XPF XXX YER ZMW ZWG";
        size_t count = 0;

        (void)state;
        for (char code[4] = "AAA"; code[0] <= 'Z'; code[0]++)
                for (code[1] = 'A'; code[1] <= 'Z'; code[1]++)
                        for (code[2] = 'A'; code[2] <= 'Z'; code[2]++)
                                if (df_currency_known(df_bytes(code, 3))) {
                                        if (!strstr(known, code))
                                                fail_msg("%s is no currency", code);
                                        count++;
                                }
        assert_int_equal(count, sizeof(known) / 4);
}

static void currencies_are_three_capitals(void **state)
{
        static const char *const bad[] = {"",    "U",   "US",  "USDX",        "usd",
                                          "Usd", "US ", "   ", "\xff\xff\xff"};

        (void)state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
                assert_false(df_currency_known(df_bytes_str(bad[i])));
        assert_false(df_currency_known(df_bytes("\0\0\0", 3)));
        assert_false(df_currency_known(df_bytes("USD", 4)));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(text_reaches_both_ends),
                cmocka_unit_test(sum_refuses_one_beyond),
                cmocka_unit_test(micros_round_half_to_even),
                cmocka_unit_test(invoices_round_half_to_even),
                cmocka_unit_test(parse_is_exact),
                cmocka_unit_test(parse_refuses_the_rest),
                cmocka_unit_test(int128_wire_is_shortest),
                cmocka_unit_test(int128_wire_bounds),
                cmocka_unit_test(currencies_are_the_known_ones),
                cmocka_unit_test(currencies_are_three_capitals),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
