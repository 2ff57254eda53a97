/* test_books_sums.c - sums and differences of targets, and the order of their keys. */
#include "wire_books_test.h"

static void differences_add_up(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_target from = target(&r), to = target(&r);
                struct ad_cause_cell delta[AD_CAUSE_COUNT];
                struct ad_cell sum, other, want;
                size_t n = 0;

                /* Counts below 2^60, money below 2^120: as far as sums of a few stay in. */
                for (int side = 0; side < 2; side++) {
                        const struct ad_target *t = side ? &to : &from;

                        for (size_t i = 0; i < t->cause_count; i++) {
                                struct ad_cell *c =
                                        (struct ad_cell *)(uintptr_t)&t->causes[i].billed;

                                c->impressions >>= 4;
                                c->clicks >>= 4;
                                c->conversions >>= 4;
                                for (int k = 0; k < 3; k++)
                                        c->invalid[k] >>= 4;
                                c->spend >>= 8;
                                c->payout >>= 8;
                                c->value >>= 8;
                                *(struct ad_cell *)(uintptr_t)&t->causes[i].realtime = *c;
                        }
                }
                assert_true(ad_target_delta(&from, &to, delta, &n));
                assert_true(ad_target_sums(&from, &sum, &other));
                assert_true(ad_cell_eq(&sum, &other));
                for (size_t i = 0; i < n; i++)
                        assert_true(ad_cell_add_signed(&sum, &delta[i].billed));
                assert_true(ad_target_sums(&to, &want, &other));
                if (!ad_cell_eq(&sum, &want))
                        fail_msg("seed %llu: from + delta is not to", (unsigned long long)seed);
                assert_true(ad_target_delta(&to, &to, delta, &n) && n == 0);
                assert_true(ad_target_same_cells(&to, &to));
                assert_true(ad_target_same_cells(&from, &to) ==
                            (ad_target_delta(&from, &to, delta, &n) && n == 0));
                assert_true(ad_target_delta(NULL, &to, delta, &n));
                sum = (struct ad_cell){0};
                for (size_t i = 0; i < n; i++)
                        assert_true(ad_cell_add_signed(&sum, &delta[i].billed));
                assert_true(ad_cell_eq(&sum, &want));
        }
}

static void signed_counts_and_overflow(void **state)
{
        const df_nanos most = (df_nanos)(~(unsigned __int128)0 >> 1);
        struct ad_cell a = {.clicks = 3, .spend = -5}, b = {.clicks = 5, .spend = 7}, c = a;

        (void)state;
        assert_true(ad_cell_subtract(&c, &b));
        assert_int_equal(ad_count_signed(c.clicks), -2);
        assert_true(c.spend == -12);
        assert_false(ad_cell_is_zero(&c));
        assert_true(ad_cell_add_signed(&c, &b));
        assert_true(ad_cell_eq(&c, &a));
        a = (struct ad_cell){.spend = most};
        assert_false(ad_cell_add_signed(&a, &(struct ad_cell){.clicks = 1, .spend = 1}));
        assert_true(a.spend == most && a.clicks == 0);
        a = (struct ad_cell){.payout = -most};
        assert_false(ad_cell_subtract(&a, &(struct ad_cell){.payout = 2}));
        a = (struct ad_cell){.clicks = INT64_MAX};
        assert_false(ad_cell_add_signed(&a, &(struct ad_cell){.clicks = 1}));
        assert_true(a.clicks == INT64_MAX);
}

/* Keys of two strings, zero bytes among them, sort as the strings do, and can be read back. */
static void ordered_strings(void **state)
{
        struct random r = {5};

        (void)state;
        for (int n = 0; n < 20000; n++) {
                uint8_t bytes[2][2][4], back[4];
                struct df_bytes s[2][2], got;
                struct df_buf key[2] = {{0}, {0}};
                int want;

                for (int k = 0; k < 2; k++)
                        for (int i = 0; i < 2; i++) {
                                size_t len = below(&r, 4);

                                for (size_t at = 0; at < len; at++)
                                        bytes[k][i][at] = (uint8_t[]){0, 1, 0xff}[below(&r, 3)];
                                s[k][i] = df_bytes(bytes[k][i], len);
                                ad_put_ordered(&key[k], s[k][i]);
                        }
                want = df_bytes_cmp(s[0][0], s[1][0]);
                want = want ? want : df_bytes_cmp(s[0][1], s[1][1]);
                got = df_buf_bytes(&key[0]);
                assert_true((df_bytes_cmp(got, df_buf_bytes(&key[1])) < 0) == (want < 0));
                for (int k = 0; k < 2; k++) {
                        struct df_reader reader = df_reader(df_buf_bytes(&key[k]));

                        for (int i = 0; i < 2; i++) {
                                assert_true(ad_get_ordered(&reader, back, 3, &got));
                                assert_true(df_bytes_eq(got, s[k][i]));
                        }
                        reader = df_reader(df_bytes(key[k].data, key[k].len - 1));
                        assert_false(ad_get_ordered(&reader, back, 3, &got) &&
                                     ad_get_ordered(&reader, back, 3, &got));
                        df_buf_release(&key[k]);
                }
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(differences_add_up),
                cmocka_unit_test(signed_counts_and_overflow),
                cmocka_unit_test(ordered_strings),
        };
        int rc;

        df_arena_init(&values, 0);
        rc = cmocka_run_group_tests(tests, NULL, NULL);
        df_arena_release(&values);
        return rc;
}
