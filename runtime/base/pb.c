/* pb.c - the protobuf wire format: canonical writer, bounded reader. */
#include "df/bytes.h"

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2, WIRE_FIXED32 = 5 };

static void put_tag(struct df_buf *b, uint32_t field, uint32_t wire)
{
        df_put_varint(b, (uint64_t)field << 3 | wire);
}

void df_pb_uint(struct df_buf *b, uint32_t field, uint64_t v)
{
        if (v == 0)
                return;
        put_tag(b, field, WIRE_VARINT);
        df_put_varint(b, v);
}

void df_pb_sint(struct df_buf *b, uint32_t field, int64_t v)
{
        df_pb_uint(b, field, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}

void df_pb_int(struct df_buf *b, uint32_t field, int64_t v)
{
        df_pb_uint(b, field, (uint64_t)v);
}

void df_pb_bool(struct df_buf *b, uint32_t field, bool v)
{
        df_pb_uint(b, field, v);
}

void df_pb_fixed64(struct df_buf *b, uint32_t field, uint64_t v)
{
        if (v == 0)
                return;
        put_tag(b, field, WIRE_FIXED64);
        df_put_u64le(b, v);
}

void df_pb_bytes(struct df_buf *b, uint32_t field, struct df_bytes v)
{
        if (v.len == 0)
                return;
        put_tag(b, field, WIRE_BYTES);
        df_put_lstr(b, v);
}

void df_pb_str(struct df_buf *b, uint32_t field, const char *v)
{
        df_pb_bytes(b, field, df_bytes_str(v));
}

size_t df_pb_begin(struct df_buf *b, uint32_t field)
{
        put_tag(b, field, WIRE_BYTES);
        df_put_u8(b, 0); /* one byte of length: enough for most; df_pb_end moves when it is not */
        return b->len;
}

void df_pb_end(struct df_buf *b, size_t mark)
{
        size_t len, extra = 0;
        uint8_t *p;

        if (b->failed)
                return;
        df_check(mark > 0 && mark <= b->len);
        len = b->len - mark;
        for (size_t v = len >> 7; v; v >>= 7)
                extra++;
        if (!df_buf_reserve(b, extra))
                return;
        p = b->data + mark - 1;
        if (extra)
                memmove(p + 1 + extra, p + 1, len);
        b->len += extra;
        for (; len >= 0x80; len >>= 7)
                *p++ = (uint8_t)(len | 0x80);
        *p = (uint8_t)len;
}

bool df_pb_next(struct df_reader *r, struct df_pb_field *ret)
{
        uint64_t tag;

        if (r->bad || r->p == r->end)
                return false;
        tag = df_get_varint(r);
        *ret = (struct df_pb_field){.number = (uint32_t)(tag >> 3), .wire = (uint32_t)(tag & 7)};
        if (tag >> 3 == 0 || tag >> 32)
                r->bad = true;
        switch (ret->wire) {
        case WIRE_VARINT:
                ret->u = df_get_varint(r);
                break;
        case WIRE_FIXED64:
                ret->u = df_get_u64le(r);
                break;
        case WIRE_BYTES:
                ret->bytes = df_get_lstr(r);
                break;
        case WIRE_FIXED32:
                ret->u = df_get_u32le(r);
                break;
        default:
                r->bad = true;
        }
        return !r->bad;
}
