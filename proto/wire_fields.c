/* wire_fields.c - one codec for all messages that are described by tables. */
#include "proto/wire_fields.h"

#include "proto/wire_private.h"

static const void *at(const void *m, size_t offset)
{
        return (const uint8_t *)m + offset;
}

/* ---- writing ---- */

static void put_inner(struct df_buf *b, const struct dfi_field *f, const void *from)
{
        size_t m = df_pb_begin(b, f->number);

        dfi_put_message(b, f->of, from);
        df_pb_end(b, m);
}

static void put_strings(struct df_buf *b, const struct dfi_field *f, const void *from)
{
        const struct df_bytes *list = *(const struct df_bytes *const *)at(from, f->at);
        size_t n = *(const size_t *)at(from, f->count_at);

        for (size_t i = 0; i < n; i++) { /* empty ones too: they count */
                df_put_varint(b, f->number << 3 | DFI_BYTES);
                df_put_lstr(b, list[i]);
        }
}

static void put_messages(struct df_buf *b, const struct dfi_field *f, const void *from)
{
        size_t n = *(const size_t *)at(from, f->count_at);
        const uint8_t *list;

        memcpy(&list, at(from, f->at), sizeof(list));
        for (size_t i = 0; i < n; i++)
                put_inner(b, f, list + i * f->of->size);
}

static void put_field(struct df_buf *b, const struct dfi_field *f, const void *m)
{
        const void *v = at(m, f->at);

        switch (f->type) {
        case DFI_F_U64:
                df_pb_uint(b, f->number, *(const uint64_t *)v);
                break;
        case DFI_F_U32:
                df_pb_uint(b, f->number, *(const uint32_t *)v);
                break;
        case DFI_F_I64:
                df_pb_int(b, f->number, *(const int64_t *)v);
                break;
        case DFI_F_BOOL:
                df_pb_bool(b, f->number, *(const bool *)v);
                break;
        case DFI_F_FIXED64:
                df_pb_fixed64(b, f->number, *(const uint64_t *)v);
                break;
        case DFI_F_STR:
                df_pb_bytes(b, f->number, *(const struct df_bytes *)v);
                break;
        case DFI_F_CELL:
                dfi_put_cell(b, f->number, v);
                break;
        case DFI_F_CELL_UNLESS:
                if (*(const unsigned *)at(m, f->kind_at) != f->kind)
                        dfi_put_cell(b, f->number, v);
                break;
        case DFI_F_MESSAGE:
                put_inner(b, f, v);
                break;
        case DFI_F_CHOICE:
                if (*(const unsigned *)at(m, f->kind_at) == f->kind)
                        put_inner(b, f, v);
                break;
        case DFI_F_STRINGS:
                put_strings(b, f, m);
                break;
        case DFI_F_MESSAGES:
                put_messages(b, f, m);
                break;
        }
}

void dfi_put_message(struct df_buf *b, const struct dfi_message *d, const void *from)
{
        for (size_t i = 0; i < d->count; i++)
                put_field(b, &d->fields[i], from);
}

/* ---- reading ---- */

static int damaged(const struct dfi_message *d, const char *field, struct df_error *err)
{
        return df_fail(err, DF_EPARSE, "%s is damaged%s%s", d->name, *field ? ": " : "", field);
}

static int beyond(const struct dfi_message *d, const struct dfi_field *f, uint64_t is, uint64_t max,
                  const char *what, struct df_error *err)
{
        return df_fail(err, DF_EPARSE, "%s: %s is beyond its limit: %llu%s, at most %llu", d->name,
                       f->name, (unsigned long long)is, what, (unsigned long long)max);
}

/* How many of this field follow, the one just read among them. */
static size_t count_left(struct df_reader r, uint32_t number)
{
        struct df_pb_field f;
        size_t n = 1;

        while (df_pb_next(&r, &f))
                n += f.number == number;
        return n;
}

/* Room for one more element of the array at f; all of them are allocated with the first. */
static int add_element(const struct dfi_message *d, const struct dfi_field *f,
                       const struct df_reader *r, struct df_arena *arena, void *m, void **ret,
                       struct df_error *err)
{
        size_t *count = (size_t *)((uint8_t *)m + f->count_at);
        uint8_t *list;
        size_t size = f->type == DFI_F_STRINGS ? sizeof(struct df_bytes) : f->of->size;

        if (*count == 0) {
                size_t n = count_left(*r, f->number);

                if (n > f->count_max)
                        return beyond(d, f, n, f->count_max, " of them", err);
                list = df_arena_alloc(arena, n * size);
                if (!list)
                        return df_fail(err, DF_ENOMEM, "%s: %zu %s", d->name, n, f->name);
                memcpy((uint8_t *)m + f->at, &list, sizeof(list));
        }
        memcpy(&list, at(m, f->at), sizeof(list));
        *ret = list + (*count)++ * size;
        return 0;
}

static int get_string(const struct dfi_message *d, const struct dfi_field *f,
                      const struct df_pb_field *in, struct df_bytes *ret, struct df_error *err)
{
        if (in->bytes.len > f->max)
                return beyond(d, f, in->bytes.len, f->max, " bytes", err);
        *ret = in->bytes;
        return 0;
}

static int get_scalar(const struct dfi_message *d, const struct dfi_field *f, uint64_t u, void *v,
                      struct df_error *err)
{
        if (f->type == DFI_F_U32 && f->max && u > f->max)
                return beyond(d, f, u, f->max, "", err);
        if (f->type == DFI_F_U32)
                *(uint32_t *)v = (uint32_t)u; /* as protobuf truncates */
        else if (f->type == DFI_F_I64)
                *(int64_t *)v = (int64_t)u;
        else if (f->type == DFI_F_BOOL)
                *(bool *)v = u != 0;
        else
                *(uint64_t *)v = u;
        return 0;
}

static uint32_t wire_of(enum dfi_type t)
{
        if (t == DFI_F_FIXED64)
                return DFI_FIXED64;
        return t == DFI_F_U64 || t == DFI_F_U32 || t == DFI_F_I64 || t == DFI_F_BOOL ? DFI_VARINT
                                                                                     : DFI_BYTES;
}

/* r stands behind the field that was read. */
static int get_field(const struct dfi_message *d, const struct dfi_field *f,
                     const struct df_pb_field *in, const struct df_reader *r,
                     struct df_arena *arena, void *m, struct df_error *err)
{
        void *v = (uint8_t *)m + f->at;
        int rc;

        if (in->wire != wire_of(f->type))
                return damaged(d, f->name, err);
        if (f->type == DFI_F_STRINGS || f->type == DFI_F_MESSAGES) {
                rc = add_element(d, f, r, arena, m, &v, err);
                if (rc < 0)
                        return rc;
        }
        if (f->type == DFI_F_CHOICE) /* the last one counts */
                *(unsigned *)((uint8_t *)m + f->kind_at) = f->kind;
        if (f->of)
                return dfi_get_message(in->bytes, f->of, arena, v, err);
        if (f->type == DFI_F_STR || f->type == DFI_F_STRINGS)
                return get_string(d, f, in, v, err);
        if (f->type == DFI_F_CELL || f->type == DFI_F_CELL_UNLESS)
                return dfi_get_cell(in->bytes, v) ? 0 : damaged(d, f->name, err);
        return get_scalar(d, f, in->u, v, err);
}

int dfi_get_message(struct df_bytes bytes, const struct dfi_message *d, struct df_arena *arena,
                    void *to, struct df_error *err)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field in;
        size_t next = 0; /* fields ascend mostly: the search begins where the last one was found */
        int rc = 0;

        memset(to, 0, d->size);
        while (rc == 0 && df_pb_next(&r, &in)) {
                for (size_t n = 0; n < d->count; n++, next++) {
                        const struct dfi_field *f;

                        if (next == d->count)
                                next = 0;
                        f = &d->fields[next];
                        if (f->number != in.number)
                                continue;
                        rc = get_field(d, f, &in, &r, arena, to, err);
                        break;
                }
        }
        if (rc == 0 && (r.bad || (d->check && !d->check(to))))
                rc = damaged(d, "", err);
        return rc;
}
