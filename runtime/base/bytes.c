#include "df/bytes.h"

#include <endian.h>
#include <stdio.h>
#include <stdlib.h>

#define BUF_MIN 64
#define VARINT_MAX 10 /* bytes */

int df_bytes_cmp(struct df_bytes a, struct df_bytes b)
{
        size_t n = a.len < b.len ? a.len : b.len;
        int c = n ? memcmp(a.data, b.data, n) : 0;

        return c ? c : (a.len > b.len) - (a.len < b.len);
}

void df_buf_release(struct df_buf *b)
{
        if (!b)
                return;
        free(b->data);
        *b = (struct df_buf){0};
}

bool df_buf_grow(struct df_buf *b, size_t more)
{
        size_t cap = b->cap ? b->cap : BUF_MIN;
        uint8_t *data;

        if (b->failed)
                return false;
        if (b->cap - b->len >= more)
                return true;
        if (more > SIZE_MAX / 4 - b->len) {
                b->failed = true;
                return false;
        }
        while (cap - b->len < more)
                cap *= 2;
        data = realloc(b->data, cap);
        if (!data) {
                b->failed = true;
                return false;
        }
        b->data = data;
        b->cap = cap;
        return true;
}

void df_buf_append(struct df_buf *b, const void *data, size_t len)
{
        if (len == 0 || !df_buf_reserve(b, len))
                return;
        memcpy(b->data + b->len, data, len);
        b->len += len;
}

void df_buf_printf(struct df_buf *b, const char *fmt, ...)
{
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(NULL, 0, fmt, ap);
        va_end(ap);
        df_check(n >= 0);
        if (!df_buf_reserve(b, (size_t)n + 1))
                return;
        va_start(ap, fmt);
        (void)vsnprintf((char *)b->data + b->len, (size_t)n + 1, fmt, ap);
        va_end(ap);
        b->len += (size_t)n;
}

int df_buf_check(const struct df_buf *b, struct df_error *err)
{
        return b->failed ? df_fail(err, DF_ENOMEM, "a buffer of %zu bytes cannot grow", b->cap) : 0;
}

void df_put_u16be(struct df_buf *b, uint16_t v)
{
        v = htobe16(v);
        df_buf_append(b, &v, sizeof(v));
}

void df_put_u32be(struct df_buf *b, uint32_t v)
{
        v = htobe32(v);
        df_buf_append(b, &v, sizeof(v));
}

void df_put_u64be(struct df_buf *b, uint64_t v)
{
        v = htobe64(v);
        df_buf_append(b, &v, sizeof(v));
}

void df_put_u32le(struct df_buf *b, uint32_t v)
{
        v = htole32(v);
        df_buf_append(b, &v, sizeof(v));
}

void df_put_u64le(struct df_buf *b, uint64_t v)
{
        v = htole64(v);
        df_buf_append(b, &v, sizeof(v));
}

void df_put_varint_long(struct df_buf *b, uint64_t v)
{
        uint8_t *p;

        if (!df_buf_reserve(b, VARINT_MAX))
                return;
        for (p = b->data + b->len; v >= 0x80; v >>= 7)
                *p++ = (uint8_t)(v | 0x80);
        *p++ = (uint8_t)v;
        b->len = (size_t)(p - b->data);
}

void df_put_lstr(struct df_buf *b, struct df_bytes s)
{
        df_put_varint(b, s.len);
        df_buf_append(b, s.data, s.len);
}

/* Copy size bytes to to; leaves it alone when there are not so many. */
static void get_fixed(struct df_reader *r, void *to, size_t size)
{
        struct df_bytes b = df_get_bytes(r, size);

        if (b.data)
                memcpy(to, b.data, size);
}

uint8_t df_get_u8(struct df_reader *r)
{
        uint8_t v = 0;

        get_fixed(r, &v, sizeof(v));
        return v;
}

uint16_t df_get_u16be(struct df_reader *r)
{
        uint16_t v = 0;

        get_fixed(r, &v, sizeof(v));
        return be16toh(v);
}

uint32_t df_get_u32be(struct df_reader *r)
{
        uint32_t v = 0;

        get_fixed(r, &v, sizeof(v));
        return be32toh(v);
}

uint64_t df_get_u64be(struct df_reader *r)
{
        uint64_t v = 0;

        get_fixed(r, &v, sizeof(v));
        return be64toh(v);
}

uint32_t df_get_u32le(struct df_reader *r)
{
        uint32_t v = 0;

        get_fixed(r, &v, sizeof(v));
        return le32toh(v);
}

uint64_t df_get_u64le(struct df_reader *r)
{
        uint64_t v = 0;

        get_fixed(r, &v, sizeof(v));
        return le64toh(v);
}

uint64_t df_get_varint_long(struct df_reader *r)
{
        const uint8_t *p = r->p;
        uint64_t v = 0;

        if (r->bad)
                return 0;
        for (unsigned shift = 0; shift < 64 && p < r->end; shift += 7) {
                uint8_t c = *p++;

                if (shift == 63 && c > 1)
                        break; /* more than 64 bits */
                v |= (uint64_t)(c & 0x7f) << shift;
                if (c < 0x80) {
                        r->p = p;
                        return v;
                }
        }
        r->bad = true;
        return 0;
}
