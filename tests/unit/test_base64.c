/* test_base64.c - RFC 4648's own examples, every length, and what is not the one form of a text. */
#include "unit.h"

#include <stdlib.h>

#include "jobs/common/base64.h"

static void test_examples(void **state)
{
        static const char *const pairs[][2] = {{"", ""},
                                               {"f", "Zg=="},
                                               {"fo", "Zm8="},
                                               {"foo", "Zm9v"},
                                               {"foob", "Zm9vYg=="},
                                               {"fooba", "Zm9vYmE="},
                                               {"foobar", "Zm9vYmFy"},
                                               {"\xfb\xff\xfe", "+//+"}};

        (void)state;
        for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
                struct df_buf b = {0}, back = {0};

                ad_base64_put(&b, df_bytes_str(pairs[i][0]));
                assert_true(df_bytes_eq(df_buf_bytes(&b), df_bytes_str(pairs[i][1])));
                assert_true(ad_base64_get(df_bytes_str(pairs[i][1]), &back));
                assert_true(df_bytes_eq(df_buf_bytes(&back), df_bytes_str(pairs[i][0])));
                df_buf_release(&b);
                df_buf_release(&back);
        }
}

static void test_refused(void **state)
{
        static const char *const bad[] = {"Z",     "Zg",       "Zg=",      "Zh==",   "Zm9=",
                                          "Z===",  "====",     "Zg==Zg==", "Zm9v\n", "Zm-v",
                                          "Zm9v=", "Zm8=Zm8=", "=m9v",     "Z=9v"};

        (void)state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct df_buf back = {0};

                df_put_u8(&back, 'x');
                if (ad_base64_get(df_bytes_str(bad[i]), &back))
                        fail_msg("\"%s\" was taken", bad[i]);
                assert_int_equal(back.len, 1);
                df_buf_release(&back);
        }
}

static void test_round(void **state)
{
        (void)state;
        for (size_t len = 0; len < 300; len++) {
                struct df_buf b = {0}, text = {0}, back = {0};

                for (size_t i = 0; i < len; i++)
                        df_put_u8(&b, (uint8_t)(i * 7 + len));
                ad_base64_put(&text, df_buf_bytes(&b));
                assert_int_equal(text.len, (len + 2) / 3 * 4);
                assert_true(ad_base64_get(df_buf_bytes(&text), &back));
                assert_true(df_bytes_eq(df_buf_bytes(&back), df_buf_bytes(&b)));
                df_buf_release(&b);
                df_buf_release(&text);
                df_buf_release(&back);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_examples),
                cmocka_unit_test(test_refused),
                cmocka_unit_test(test_round),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
