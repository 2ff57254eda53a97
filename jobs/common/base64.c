#include "jobs/common/base64.h"

static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void ad_base64_put(struct df_buf *b, struct df_bytes bytes)
{
        for (size_t i = 0; i < bytes.len; i += 3) {
                size_t n = bytes.len - i < 3 ? bytes.len - i : 3;
                uint32_t v = 0;

                for (size_t k = 0; k < 3; k++)
                        v = v << 8 | (k < n ? bytes.data[i + k] : 0);
                for (size_t k = 0; k < 4; k++)
                        df_put_u8(b, k <= n ? (uint8_t)digits[v >> (18 - 6 * k) & 63] : '=');
        }
}

static int value_of(uint8_t c)
{
        const char *at = c ? strchr(digits, c) : NULL;

        return at ? (int)(at - digits) : -1;
}

/* Four characters, of which n + 1 stand for n bytes. */
static bool get_four(const uint8_t *text, size_t n, struct df_buf *ret)
{
        uint32_t v = 0;

        for (size_t k = 0; k < 4; k++) {
                int d = k <= n ? value_of(text[k]) : text[k] == '=' ? 0 : -1;

                if (d < 0)
                        return false;
                v = v << 6 | (uint32_t)d;
        }
        for (size_t k = 0; k < n; k++)
                df_put_u8(ret, (uint8_t)(v >> (16 - 8 * k)));
        return (v & ((1u << (24 - 8 * n)) - 1)) == 0; /* bits that stand for nothing */
}

bool ad_base64_get(struct df_bytes text, struct df_buf *ret)
{
        size_t before = ret->len;
        bool ok = text.len % 4 == 0;

        for (size_t i = 0; ok && i < text.len; i += 4) {
                bool last = i + 4 == text.len;
                size_t n = !last || text.data[i + 3] != '=' ? 3 : text.data[i + 2] != '=' ? 2 : 1;

                ok = get_four(text.data + i, n, ret);
        }
        if (ok && !ret->failed)
                return true;
        ret->len = before;
        return false;
}
