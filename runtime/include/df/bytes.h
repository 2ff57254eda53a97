/* bytes.h - borrowed byte ranges, growing buffers, and the protobuf wire format.
 *
 * struct df_bytes borrows: it never owns what it points to. struct df_buf owns.
 * The protobuf half writes canonical bytes (fields in ascending order, zero values left out,
 * shortest varints), so equal messages have equal bytes and digests can be compared.
 * Thread: an object belongs to one thread at a time.
 */
#ifndef DF_BYTES_H
#define DF_BYTES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "df/err.h"

struct df_bytes {
        const uint8_t *data; /* borrowed; may be NULL when len is 0 */
        size_t len;
};

static inline struct df_bytes df_bytes(const void *data, size_t len)
{
        return (struct df_bytes){.data = data, .len = len};
}

static inline struct df_bytes df_bytes_str(const char *s)
{
        return df_bytes(s, strlen(s));
}

static inline bool df_bytes_eq(struct df_bytes a, struct df_bytes b)
{
        return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Shorter is smaller when one is the prefix of the other. */
int df_bytes_cmp(struct df_bytes a, struct df_bytes b);

/* A growing byte buffer. Zero-initialised is empty. After a failed allocation `failed` is set,
 * further appends do nothing, and the caller checks once at the end (df_buf_check). */
struct df_buf {
        uint8_t *data;
        size_t len;
        size_t cap;
        bool failed;
};

void df_buf_release(struct df_buf *b);            /* frees; leaves it empty */
static inline void df_buf_clear(struct df_buf *b) /* keeps the memory */
{
        b->len = 0;
        b->failed = false;
}
bool df_buf_grow(struct df_buf *b, size_t more); /* the slow half of df_buf_reserve */
/* Room for `more` further bytes; false (and failed) when out of memory. */
static inline bool df_buf_reserve(struct df_buf *b, size_t more)
{
        return (!b->failed && b->cap - b->len >= more) || df_buf_grow(b, more);
}
void df_buf_append(struct df_buf *b, const void *data, size_t len);
void df_buf_printf(struct df_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int df_buf_check(const struct df_buf *b, struct df_error *err); /* DF_ENOMEM when failed */
static inline struct df_bytes df_buf_bytes(const struct df_buf *b)
{
        return df_bytes(b->data, b->len);
}

/* Fixed-width and ordered encodings, for keys and state. Big endian sorts like the number. */
static inline void df_put_u8(struct df_buf *b, uint8_t v)
{
        if (df_buf_reserve(b, 1))
                b->data[b->len++] = v;
}
void df_put_u16be(struct df_buf *b, uint16_t v);
void df_put_u32be(struct df_buf *b, uint32_t v);
void df_put_u64be(struct df_buf *b, uint64_t v);
void df_put_u32le(struct df_buf *b, uint32_t v);
void df_put_u64le(struct df_buf *b, uint64_t v);
void df_put_varint_long(struct df_buf *b, uint64_t v); /* any v; df_put_varint is faster */
static inline void df_put_varint(struct df_buf *b, uint64_t v)
{
        if (v < 0x80)
                df_put_u8(b, (uint8_t)v);
        else
                df_put_varint_long(b, v);
}
void df_put_lstr(struct df_buf *b, struct df_bytes s); /* varint length, then the bytes */

/* Little endian, from any address; all bytes must be there. */
static inline uint64_t df_load64(const uint8_t *p)
{
        uint64_t v;

        memcpy(&v, p, sizeof(v));
        return le64toh(v);
}
static inline uint32_t df_load32(const uint8_t *p)
{
        uint32_t v;

        memcpy(&v, p, sizeof(v));
        return le32toh(v);
}

/* A reader over borrowed bytes. After reading past the end `bad` is set and values are 0. */
struct df_reader {
        const uint8_t *p;
        const uint8_t *end;
        bool bad;
};

static inline struct df_reader df_reader(struct df_bytes b)
{
        return (struct df_reader){.p = b.data, .end = b.data ? b.data + b.len : NULL};
}
static inline size_t df_reader_left(const struct df_reader *r)
{
        return (size_t)(r->end - r->p);
}
uint8_t df_get_u8(struct df_reader *r);
uint16_t df_get_u16be(struct df_reader *r);
uint32_t df_get_u32be(struct df_reader *r);
uint64_t df_get_u64be(struct df_reader *r);
uint32_t df_get_u32le(struct df_reader *r);
uint64_t df_get_u64le(struct df_reader *r);
/* At most 10 bytes and 64 bits. Longer forms than the shortest are read too, as protobuf asks. */
uint64_t df_get_varint_long(struct df_reader *r); /* any value; df_get_varint is faster */
static inline uint64_t df_get_varint(struct df_reader *r)
{
        if (!r->bad && r->p < r->end && *r->p < 0x80)
                return *r->p++;
        return df_get_varint_long(r);
}
static inline struct df_bytes df_get_bytes(struct df_reader *r, size_t len)
{
        struct df_bytes b = {0};

        if (r->bad || len > df_reader_left(r)) {
                r->bad = true;
                return b;
        }
        b = df_bytes(r->p, len);
        if (len)
                r->p += len;
        return b;
}
static inline struct df_bytes df_get_lstr(struct df_reader *r)
{
        uint64_t len = df_get_varint(r);

        if (len > SIZE_MAX)
                r->bad = true;
        return df_get_bytes(r, (size_t)len);
}

/* Protobuf. Writers leave out zero values (proto3). */
void df_pb_uint(struct df_buf *b, uint32_t field, uint64_t v);
void df_pb_sint(struct df_buf *b, uint32_t field, int64_t v); /* sint64: zigzag */
void df_pb_int(struct df_buf *b, uint32_t field, int64_t v);  /* int64: two's complement */
void df_pb_bool(struct df_buf *b, uint32_t field, bool v);
void df_pb_fixed64(struct df_buf *b, uint32_t field, uint64_t v);
void df_pb_bytes(struct df_buf *b, uint32_t field, struct df_bytes v);
void df_pb_str(struct df_buf *b, uint32_t field, const char *v);
/* A sub-message is written in place: size_t m = df_pb_begin(b, 5); ...fields...; df_pb_end(b, m);
 * Unlike scalars it is written even when empty. */
size_t df_pb_begin(struct df_buf *b, uint32_t field);
void df_pb_end(struct df_buf *b, size_t mark);

struct df_pb_field {
        uint32_t number;
        uint32_t wire;         /* 0 varint, 1 fixed64, 2 bytes, 5 fixed32 */
        uint64_t u;            /* varint and fixed values */
        struct df_bytes bytes; /* wire type 2 */
};
/* Next field; false at the end or on damage (then r->bad). Unknown fields are returned too. */
bool df_pb_next(struct df_reader *r, struct df_pb_field *ret);
static inline int64_t df_pb_zigzag(uint64_t v)
{
        return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

#endif
