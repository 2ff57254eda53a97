/* wire_fields.h - messages described by tables of their fields: what writes and reads books.proto.
 *
 * A dfi_message says where each field of a struct stands in the bytes and what its limit is; the
 * codec of all of them is one (wire_fields.c). Canonical as in df/bytes.h: fields ascend, as the
 * tables do. Scalars of zero and cells of zero are left out, messages never.
 */
#ifndef AD_WIRE_FIELDS_H
#define AD_WIRE_FIELDS_H

#include <stddef.h>

#include "proto/wire.h"

enum dfi_type {
        DFI_F_U64,
        DFI_F_U32, /* at most max, unless that is 0 */
        DFI_F_I64,
        DFI_F_BOOL,
        DFI_F_FIXED64,
        DFI_F_STR,         /* struct df_bytes of at most max bytes */
        DFI_F_CELL,        /* struct ad_cell */
        DFI_F_CELL_UNLESS, /* the same, not written where the enum at kind_at is `kind` */
        DFI_F_MESSAGE,     /* a struct in place, or (at the place of the outer one) fields of it */
        DFI_F_CHOICE,      /* one of a oneof: a message there when the enum at kind_at is `kind` */
        DFI_F_STRINGS,     /* array of struct df_bytes of at most max bytes */
        DFI_F_MESSAGES,    /* array of structs */
};

struct dfi_message;
struct dfi_field {
        uint32_t number;
        enum dfi_type type;
        const char *name;
        size_t at;
        uint32_t max;     /* value, or bytes of a string */
        size_t count_at;  /* arrays: the size_t that counts them */
        size_t count_max; /* arrays: more are refused */
        size_t kind_at;   /* CHOICE, CELL_UNLESS */
        unsigned kind;
        const struct dfi_message *of;
};
struct dfi_message {
        const char *name; /* as in "a command" */
        size_t size;
        const struct dfi_field *fields; /* by number, ascending */
        size_t count;
        /* What the fields alone do not say. Optional; may fill in what the bytes leave out. */
        bool (*check)(void *m);
};

void dfi_put_message(struct df_buf *b, const struct dfi_message *d, const void *from);
/* *to is overwritten. A field that the table does not know is skipped. */
int dfi_get_message(struct df_bytes bytes, const struct dfi_message *d, struct df_arena *arena,
                    void *to, struct df_error *err);

#endif
