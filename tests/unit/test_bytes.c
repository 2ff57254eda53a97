/* test_bytes.c - buffers, fixed and variable encodings, the protobuf wire format. Expected bytes
 * are written out by hand from the protobuf specification; every reader meets every truncation.
 */
#include "df/bytes.h"

#include <stdio.h>

#include "unit.h"

/* Under AddressSanitizer a hopeless allocation returns NULL, as malloc does. */
const char *__asan_default_options(void);
const char *__asan_default_options(void)
{
        return "allocator_may_return_null=1";
}

static void assert_hex(const struct df_buf *b, const char *want)
{
        char got[512];

        assert_false(b->failed);
        assert_true(b->len < sizeof(got) / 2);
        for (size_t i = 0; i < b->len; i++)
                (void)snprintf(got + 2 * i, 3, "%02x", b->data[i]);
        got[2 * b->len] = '\0';
        assert_string_equal(got, want);
}

static void compare_is_lexicographic(void **state)
{
        static const char *const sorted[] = {"", "a", "a\x01", "aa", "ab", "b", "\x80", "\xff"};

        (void)state;
        for (int i = 0; i < 8; i++)
                for (int j = 0; j < 8; j++) {
                        struct df_bytes a = df_bytes_str(sorted[i]), b = df_bytes_str(sorted[j]);
                        int c = df_bytes_cmp(a, b);

                        assert_int_equal((c > 0) - (c < 0), (i > j) - (i < j));
                        assert_int_equal(df_bytes_eq(a, b), i == j);
                }
        assert_int_equal(df_bytes_cmp(df_bytes(NULL, 0), df_bytes("", 0)), 0);
}

static void buffer_grows_and_keeps(void **state)
{
        struct df_error err = {0};
        struct df_buf b = {0};

        (void)state;
        for (uint32_t i = 0; i < 20000; i++)
                df_put_u32le(&b, i);
        assert_int_equal(b.len, 80000);
        for (uint32_t i = 0; i < 20000; i++)
                assert_int_equal(b.data[4 * i] | b.data[4 * i + 1] << 8, i & 0xffff);
        assert_int_equal(df_buf_check(&b, &err), 0);
        df_buf_clear(&b);
        assert_int_equal(b.len, 0);
        assert_true(b.cap >= 80000); /* keeps the memory */
        df_buf_append(&b, NULL, 0);
        df_buf_printf(&b, "%s=%d", "n", 5);
        assert_true(df_bytes_eq(df_buf_bytes(&b), df_bytes_str("n=5")));
        df_buf_release(&b);
        assert_null(b.data);
        df_buf_release(&b);
        df_buf_release(NULL);
}

/* Text that ends exactly at the buffer's end, and around it. */
static void printf_fits_at_every_length(void **state)
{
        (void)state;
        for (int len = 0; len < 200; len++) {
                struct df_buf b = {0};

                df_buf_printf(&b, "%*s", len, "");
                df_buf_printf(&b, "%d", len);
                assert_true(b.len > (size_t)len && b.len <= b.cap);
                assert_int_equal(b.data[len], '0' + (len >= 100  ? len / 100
                                                     : len >= 10 ? len / 10
                                                                 : len));
                df_buf_release(&b);
        }
}

/* Out of memory: the buffer keeps what it has, refuses the rest, and says so once. */
static void failed_growth_is_kept(void **state)
{
        static const size_t sizes[] = {(size_t)1 << 60, SIZE_MAX / 4, SIZE_MAX / 4 + 1,
                                       SIZE_MAX / 2,    SIZE_MAX - 4, SIZE_MAX};

        (void)state;
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct df_error err = {0};
                struct df_buf b = {0};
                size_t m;

                df_buf_append(&b, "abc", 3);
                assert_false(df_buf_reserve(&b, sizes[i]));
                assert_true(b.failed);
                assert_false(df_buf_reserve(&b, 1)); /* though there would be room */
                df_buf_append(&b, "def", 3);
                df_put_u8(&b, 1);
                df_put_varint(&b, 300);
                df_buf_printf(&b, "x");
                m = df_pb_begin(&b, 1);
                df_pb_uint(&b, 1, 1);
                df_pb_end(&b, m);
                assert_true(df_bytes_eq(df_buf_bytes(&b), df_bytes_str("abc")));
                assert_int_equal(df_buf_check(&b, &err), DF_ENOMEM);
                assert_int_equal(err.code, DF_ENOMEM);
                df_buf_clear(&b);
                df_put_u8(&b, 7); /* usable again */
                assert_int_equal(df_buf_check(&b, &err), 0);
                assert_int_equal(b.len, 1);
                df_buf_release(&b);
        }
}

static void fixed_widths_have_their_order(void **state)
{
        struct df_buf b = {0};
        struct df_reader r;

        (void)state;
        df_put_u8(&b, 0xfe);
        df_put_u16be(&b, 0x0102);
        df_put_u32be(&b, 0x03040506);
        df_put_u64be(&b, 0x0708090a0b0c0d0e);
        df_put_u32le(&b, 0x03040506);
        df_put_u64le(&b, 0x0708090a0b0c0d0e);
        assert_hex(&b, "fe0102030405060708090a0b0c0d0e060504030e0d0c0b0a090807");
        r = df_reader(df_buf_bytes(&b));
        assert_int_equal(df_get_u8(&r), 0xfe);
        assert_int_equal(df_get_u16be(&r), 0x0102);
        assert_int_equal(df_get_u32be(&r), 0x03040506);
        assert_int_equal(df_get_u64be(&r), 0x0708090a0b0c0d0e);
        assert_int_equal(df_get_u32le(&r), 0x03040506);
        assert_int_equal(df_get_u64le(&r), 0x0708090a0b0c0d0e);
        assert_false(r.bad);
        assert_int_equal(df_reader_left(&r), 0);
        assert_int_equal(df_get_u8(&r), 0);
        assert_true(r.bad);
        df_buf_release(&b);
}

static void varints_match_the_specification(void **state)
{
        static const struct {
                uint64_t v;
                const char *hex;
        } table[] = {
                {0, "00"},
                {1, "01"},
                {127, "7f"},
                {128, "8001"},
                {150, "9601"},
                {16383, "ff7f"},
                {16384, "808001"},
                {UINT32_MAX, "ffffffff0f"},
                {(1ull << 56) - 1, "ffffffffffffff7f"},
                {1ull << 56, "808080808080808001"},
                {INT64_MAX, "ffffffffffffffff7f"},
                {1ull << 63, "80808080808080808001"},
                {UINT64_MAX, "ffffffffffffffffff01"},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
                struct df_buf b = {0};
                struct df_reader r;

                df_put_varint(&b, table[i].v);
                assert_hex(&b, table[i].hex);
                for (size_t cut = 0; cut < b.len; cut++) {
                        r = df_reader(df_bytes(b.data, cut));
                        assert_int_equal(df_get_varint(&r), 0);
                        assert_true(r.bad);
                }
                r = df_reader(df_buf_bytes(&b));
                assert_int_equal(df_get_varint(&r), table[i].v);
                assert_false(r.bad);
                assert_int_equal(df_reader_left(&r), 0);
                df_buf_release(&b);
        }
}

static void overlong_varints(void **state)
{
        static const uint8_t eleven[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                         0x80, 0x80, 0x80, 0x80, 0x00};
        static const uint8_t bit64[] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02};
        static const uint8_t padded[] = {0x85, 0x80, 0x00};
        struct df_reader r;

        (void)state;
        r = df_reader(df_bytes(eleven, sizeof(eleven)));
        assert_int_equal(df_get_varint(&r), 0);
        assert_true(r.bad);
        r = df_reader(df_bytes(bit64, sizeof(bit64)));
        assert_int_equal(df_get_varint(&r), 0);
        assert_true(r.bad);
        r = df_reader(df_bytes(padded, sizeof(padded))); /* not shortest, yet valid protobuf */
        assert_int_equal(df_get_varint(&r), 5);
        assert_false(r.bad);
}

/* Once bad, a reader gives zeros only, also where bytes are left. */
static void bad_reader_stays_bad(void **state)
{
        struct df_reader r = df_reader(df_bytes_str("\x01\x02\x03"));
        struct df_pb_field f;

        (void)state;
        assert_int_equal(df_get_u32be(&r), 0);
        assert_true(r.bad);
        assert_int_equal(df_reader_left(&r), 3);
        assert_int_equal(df_get_u8(&r), 0);
        assert_int_equal(df_get_u16be(&r), 0);
        assert_int_equal(df_get_varint(&r), 0);
        assert_int_equal(df_get_lstr(&r).len, 0);
        assert_null(df_get_bytes(&r, 0).data);
        assert_false(df_pb_next(&r, &f));
        assert_true(r.bad);
}

/* A length that would overflow pointer arithmetic is bad, not a crash. */
static void huge_lengths_are_bad(void **state)
{
        static const uint64_t lengths[] = {4, 1 << 20, INT64_MAX, UINT64_MAX - 2, UINT64_MAX};

        (void)state;
        for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
                struct df_buf b = {0};
                struct df_reader r;

                df_put_varint(&b, lengths[i]);
                df_buf_append(&b, "abc", 3);
                r = df_reader(df_buf_bytes(&b));
                assert_null(df_get_lstr(&r).data);
                assert_true(r.bad);
                r = df_reader(df_buf_bytes(&b));
                assert_null(df_get_bytes(&r, lengths[i] > b.len ? lengths[i] : b.len + 1).data);
                assert_true(r.bad);
                df_buf_release(&b);
        }
}

static void strings_round_trip(void **state)
{
        struct df_buf b = {0};
        struct df_reader r;

        (void)state;
        df_put_lstr(&b, df_bytes(NULL, 0));
        df_put_lstr(&b, df_bytes("a\0b", 3));
        assert_hex(&b, "0003610062");
        r = df_reader(df_buf_bytes(&b));
        assert_int_equal(df_get_lstr(&r).len, 0);
        assert_true(df_bytes_eq(df_get_lstr(&r), df_bytes("a\0b", 3)));
        assert_false(r.bad);
        assert_int_equal(df_reader_left(&r), 0);
        r = df_reader(df_bytes(NULL, 0));
        assert_int_equal(df_get_bytes(&r, 0).len, 0);
        assert_false(r.bad);
        df_buf_release(&b);
}

/* Examples of the protobuf encoding guide, and the canonical form: zeros are left out. */
static void protobuf_is_canonical(void **state)
{
        struct df_buf b = {0};
        size_t m;

        (void)state;
        df_pb_uint(&b, 1, 150);
        assert_hex(&b, "089601");
        df_buf_clear(&b);
        df_pb_str(&b, 2, "testing");
        assert_hex(&b, "120774657374696e67");
        df_buf_clear(&b);
        m = df_pb_begin(&b, 3);
        df_pb_uint(&b, 1, 150);
        df_pb_end(&b, m);
        assert_hex(&b, "1a03089601");
        df_buf_clear(&b);
        df_pb_int(&b, 1, -2);
        assert_hex(&b, "08feffffffffffffffff01");
        df_buf_clear(&b);
        df_pb_sint(&b, 1, -2);
        df_pb_sint(&b, 2, INT64_MIN);
        df_pb_sint(&b, 3, INT64_MAX);
        assert_hex(&b, "080310ffffffffffffffffff0118feffffffffffffffff01");
        df_buf_clear(&b);
        df_pb_bool(&b, 16, true);
        df_pb_fixed64(&b, 536870911, 1); /* the largest field number */
        assert_hex(&b, "800101f9ffffff0f0100000000000000");
        df_buf_clear(&b);
        df_pb_uint(&b, 1, 0);
        df_pb_sint(&b, 2, 0);
        df_pb_int(&b, 3, 0);
        df_pb_bool(&b, 4, false);
        df_pb_fixed64(&b, 5, 0);
        df_pb_bytes(&b, 6, df_bytes(NULL, 0));
        df_pb_str(&b, 7, "");
        assert_int_equal(b.len, 0);
        df_pb_end(&b, df_pb_begin(&b, 8)); /* a sub-message is written even when empty */
        assert_hex(&b, "4200");
        df_buf_release(&b);
}

static void zigzag_is_undone(void **state)
{
        static const int64_t values[] = {0, -1, 1, -2, 2, INT32_MIN, INT64_MAX, INT64_MIN};

        (void)state;
        for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
                struct df_pb_field f = {0};
                struct df_buf b = {0};
                struct df_reader r;

                df_pb_sint(&b, 9, values[i]);
                r = df_reader(df_buf_bytes(&b));
                assert_int_equal(df_pb_next(&r, &f), values[i] != 0);
                assert_true(df_pb_zigzag(f.u) == values[i]);
                df_buf_release(&b);
        }
}

/* Sub-messages on both sides of each length of the length, nested, at a tight capacity. */
static void submessages_of_every_length(void **state)
{
        static const size_t sizes[] = {0,     1,     125,   126,     127,     128,    129,
                                       16380, 16383, 16384, 2097148, 2097151, 2097152};
        static uint8_t filler[2097152];

        (void)state;
        for (size_t i = 0; i < sizeof(filler); i++)
                filler[i] = (uint8_t)(i * 31);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                struct df_bytes body = df_bytes(filler, sizes[i]);
                struct df_buf got = {0}, inner = {0}, want = {0};
                size_t outer_mark, mark;

                outer_mark = df_pb_begin(&got, 1);
                df_pb_uint(&got, 1, 5);
                mark = df_pb_begin(&got, 2);
                df_buf_append(&got, body.data, body.len);
                df_pb_end(&got, mark);
                df_pb_uint(&got, 3, 6);
                df_pb_end(&got, outer_mark);
                df_pb_uint(&got, 2, 7);

                df_put_u8(&inner, 1 << 3);
                df_put_u8(&inner, 5);
                df_put_u8(&inner, 2 << 3 | 2);
                df_put_lstr(&inner, body);
                df_put_u8(&inner, 3 << 3);
                df_put_u8(&inner, 6);
                df_put_u8(&want, 1 << 3 | 2);
                df_put_lstr(&want, df_buf_bytes(&inner));
                df_put_u8(&want, 2 << 3);
                df_put_u8(&want, 7);
                assert_true(df_bytes_eq(df_buf_bytes(&got), df_buf_bytes(&want)));
                df_buf_release(&got);
                df_buf_release(&inner);
                df_buf_release(&want);
        }
}

/* One message with every wire type, cut at every byte: whole fields before the cut are read, the
 * cut one is bad, and a cut between two fields is a good, shorter message. */
static void reader_meets_every_truncation(void **state)
{
        static const uint8_t message[] = {
                0x08, 0x96, 0x01,                                     /* 1: varint 150 */
                0x11, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, /* 2: fixed64 */
                0x1a, 0x03, 'a',  'b',  'c',                          /* 3: bytes */
                0x25, 0x04, 0x03, 0x02, 0x01,                         /* 4: fixed32 */
                0x80, 0x01, 0x00,                                     /* 16: varint 0 */
        };
        static const size_t ends[] = {0, 3, 12, 17, 22, 25};

        (void)state;
        for (size_t cut = 0; cut <= sizeof(message); cut++) {
                struct df_buf copy = {0}; /* its own memory: AddressSanitizer sees the end */
                struct df_pb_field f[6];
                size_t whole = 0, n = 0;
                struct df_reader r;

                copy.data = cut ? test_malloc(cut) : NULL;
                if (cut)
                        memcpy(copy.data, message, cut);
                while (whole < 5 && ends[whole + 1] <= cut)
                        whole++;
                r = df_reader(df_bytes(copy.data, cut));
                while (n < 6 && df_pb_next(&r, &f[n]))
                        n++;
                assert_int_equal(n, whole);
                assert_int_equal(r.bad, ends[whole] != cut);
                if (n > 0)
                        assert_true(f[0].number == 1 && f[0].wire == 0 && f[0].u == 150);
                if (n > 1)
                        assert_true(f[1].number == 2 && f[1].wire == 1 &&
                                    f[1].u == 0x0102030405060708);
                if (n > 2)
                        assert_true(f[2].number == 3 && f[2].wire == 2 &&
                                    df_bytes_eq(f[2].bytes, df_bytes_str("abc")));
                if (n > 3)
                        assert_true(f[3].number == 4 && f[3].wire == 5 && f[3].u == 0x01020304);
                if (n > 4)
                        assert_true(f[4].number == 16 && f[4].wire == 0 && f[4].u == 0);
                if (copy.data)
                        test_free(copy.data);
        }
}

static void reader_refuses_bad_tags(void **state)
{
        static const struct {
                size_t len;
                uint8_t bytes[8];
        } bad[] = {
                {2, {0x00, 0x00}},                         /* field 0 */
                {2, {0x0b, 0x0c}},                         /* groups */
                {2, {0x0e, 0x00}},                         /* wire type 6 */
                {2, {0x0f, 0x00}},                         /* wire type 7 */
                {6, {0x80, 0x80, 0x80, 0x80, 0x10, 0x00}}, /* field number 2^29 */
        };
        static const uint8_t largest[] = {0xf8, 0xff, 0xff, 0xff, 0x0f, 0x01};
        struct df_pb_field f;
        struct df_reader r;

        (void)state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                r = df_reader(df_bytes(bad[i].bytes, bad[i].len));
                assert_false(df_pb_next(&r, &f));
                assert_true(r.bad);
        }
        r = df_reader(df_bytes(largest, sizeof(largest)));
        assert_true(df_pb_next(&r, &f));
        assert_int_equal(f.number, 536870911);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(compare_is_lexicographic),
                cmocka_unit_test(buffer_grows_and_keeps),
                cmocka_unit_test(printf_fits_at_every_length),
                cmocka_unit_test(failed_growth_is_kept),
                cmocka_unit_test(fixed_widths_have_their_order),
                cmocka_unit_test(varints_match_the_specification),
                cmocka_unit_test(overlong_varints),
                cmocka_unit_test(bad_reader_stays_bad),
                cmocka_unit_test(huge_lengths_are_bad),
                cmocka_unit_test(strings_round_trip),
                cmocka_unit_test(protobuf_is_canonical),
                cmocka_unit_test(zigzag_is_undone),
                cmocka_unit_test(submessages_of_every_length),
                cmocka_unit_test(reader_meets_every_truncation),
                cmocka_unit_test(reader_refuses_bad_tags),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
