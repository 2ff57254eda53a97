#include "df/money.h"

bool df_nanos_add(df_nanos *sum, df_nanos v)
{
        df_nanos r;

        if (__builtin_add_overflow(*sum, v, &r))
                return false;
        *sum = r;
        return true;
}

/* v / unit; unit is even. */
static __int128 half_even(df_nanos v, int64_t unit)
{
        __int128 q = v / unit, rest = v % unit;
        __int128 size = rest < 0 ? -rest : rest, half = unit / 2;

        if (size > half || (size == half && (q & 1)))
                q += v < 0 ? -1 : 1;
        return q;
}

__int128 df_nanos_to_micros(df_nanos v)
{
        return half_even(v, DF_NANOS_PER_MICRO);
}

__int128 df_nanos_round(df_nanos v, uint32_t digits)
{
        int64_t unit = DF_NANOS_PER_UNIT;

        df_check(digits <= 9);
        for (uint32_t i = 0; i < digits; i++)
                unit /= 10;
        return unit == 1 ? v : half_even(v, unit);
}

int df_int128_text(__int128 v, char *buf)
{
        unsigned __int128 u = v < 0 ? -(unsigned __int128)v : (unsigned __int128)v;
        char digits[DF_INT128_TEXT_MAX];
        uint64_t low;
        int n = 0, len = 0;

        for (; u > UINT64_MAX; u /= 10) /* 128-bit division is slow: only while it must be */
                digits[n++] = (char)('0' + (int)(u % 10));
        low = (uint64_t)u;
        do {
                digits[n++] = (char)('0' + (int)(low % 10));
                low /= 10;
        } while (low);
        if (v < 0)
                buf[len++] = '-';
        while (n > 0)
                buf[len++] = digits[--n];
        buf[len] = '\0';
        return len;
}

int df_decimal_text(__int128 v, uint32_t digits, char *buf)
{
        char text[DF_INT128_TEXT_MAX];
        int len = df_int128_text(v, text), from = v < 0, n = 0;

        df_check(digits <= 9);
        if (v < 0)
                buf[n++] = '-';
        len -= from;
        for (int at = len > (int)digits ? len : (int)digits + 1; at > 0; at--) {
                buf[n++] = at > len ? '0' : text[from + len - at];
                if (digits > 0 && at == (int)digits + 1)
                        buf[n++] = '.';
        }
        buf[n] = '\0';
        return n;
}

#define INT128_MAX_TENTH ((unsigned __int128)-1 / 20) /* (2^127 - 1) / 10; the last digit is 7 */

/* *size = *size * 10 + digit, at most 2^127 - 1, or 2^127 when it will be negative. */
static bool push_digit(unsigned __int128 *size, unsigned digit, bool negative)
{
        if (*size > INT128_MAX_TENTH || (*size == INT128_MAX_TENTH && digit > 7u + negative))
                return false;
        *size = *size * 10 + digit;
        return true;
}

bool df_nanos_parse(struct df_bytes text, df_nanos *ret)
{
        bool negative = text.len > 0 && text.data[0] == '-', point = false;
        unsigned __int128 size = 0;
        size_t whole = 0, decimals = 0;

        for (size_t i = negative; i < text.len; i++) {
                unsigned digit = (unsigned)text.data[i] - '0';

                if (text.data[i] == '.' && !point) {
                        point = true;
                        continue;
                }
                if (digit > 9 || !push_digit(&size, digit, negative))
                        return false;
                if (point)
                        decimals++;
                else
                        whole++;
        }
        if (whole == 0 || decimals > 9 || (point && decimals == 0))
                return false;
        for (; decimals < 9; decimals++)
                if (!push_digit(&size, 0, negative))
                        return false;
        *ret = (__int128)(negative ? -size : size);
        return true;
}

void df_pb_int128(struct df_buf *b, uint32_t field, __int128 v)
{
        uint8_t bytes[16];
        size_t len = 16;

        if (v == 0)
                return;
        for (size_t i = 0; i < 16; i++)
                bytes[i] = (uint8_t)((unsigned __int128)v >> (8 * i));
        /* Drop bytes that only repeat the sign. */
        while (len > 1 && ((bytes[len - 1] == 0 && !(bytes[len - 2] & 0x80)) ||
                           (bytes[len - 1] == 0xff && (bytes[len - 2] & 0x80))))
                len--;
        df_pb_bytes(b, field, df_bytes(bytes, len));
}

bool df_int128_from_bytes(struct df_bytes b, __int128 *ret)
{
        unsigned __int128 v;

        if (b.len > 16)
                return false;
        v = b.len > 0 && (b.data[b.len - 1] & 0x80) ? ~(unsigned __int128)0 : 0;
        for (size_t i = b.len; i-- > 0;)
                v = v << 8 | b.data[i];
        *ret = (__int128)v;
        return true;
}
