/* wire_private.h - between wire_event.c, wire_batch.c and wire_log.c: the cursor over encoded
 * bytes, and messages that both records and seals hold. */
#ifndef AD_WIRE_PRIVATE_H
#define AD_WIRE_PRIVATE_H

#include "proto/wire.h"

enum { DFI_VARINT = 0, DFI_FIXED64 = 1, DFI_BYTES = 2, DFI_FIXED32 = 5 };
#define DFI_TAG(number, wire) ((number) << 3 | (wire))

/* ---- the cursor: p moves towards end; what returns NULL found damage ---- */

static inline const uint8_t *dfi_get_varint(const uint8_t *p, const uint8_t *end, uint64_t *ret)
{
        uint64_t v = 0;

        if (p < end && *p < 0x80) {
                *ret = *p;
                return p + 1;
        }
        for (unsigned shift = 0; shift < 64 && p < end; shift += 7) {
                uint8_t c = *p++;

                if (shift == 63 && c > 1)
                        return NULL; /* more than 64 bits */
                v |= (uint64_t)(c & 0x7f) << shift;
                if (c < 0x80) {
                        *ret = v;
                        return p;
                }
        }
        return NULL;
}

static inline const uint8_t *dfi_get_str(const uint8_t *p, const uint8_t *end, size_t max,
                                         struct df_bytes *ret)
{
        uint64_t len;

        p = dfi_get_varint(p, end, &len);
        if (!p || len > max || len > (size_t)(end - p))
                return NULL;
        *ret = df_bytes(p, (size_t)len);
        return p + len;
}

static inline const uint8_t *dfi_get_i64(const uint8_t *p, const uint8_t *end, int64_t *ret)
{
        uint64_t v = 0;

        p = dfi_get_varint(p, end, &v);
        *ret = (int64_t)v;
        return p;
}

static inline const uint8_t *dfi_get_u32(const uint8_t *p, const uint8_t *end, uint32_t *ret)
{
        uint64_t v = 0;

        p = dfi_get_varint(p, end, &v);
        *ret = (uint32_t)v; /* as protobuf truncates */
        return p;
}

static inline const uint8_t *dfi_get_flag(const uint8_t *p, const uint8_t *end, uint32_t flag,
                                          uint32_t *flags)
{
        uint64_t v = 0;

        p = dfi_get_varint(p, end, &v);
        *flags = v ? *flags | flag : *flags & ~flag;
        return p;
}

/* A field that this version does not know: forward compatibility. */
static inline const uint8_t *dfi_skip(const uint8_t *p, const uint8_t *end, uint64_t tag)
{
        struct df_bytes b;
        size_t left = (size_t)(end - p);
        uint64_t v;

        if (tag >> 3 == 0 || tag >> 32)
                return NULL;
        switch (tag & 7) {
        case DFI_VARINT:
                return dfi_get_varint(p, end, &v);
        case DFI_FIXED64:
                return left < 8 ? NULL : p + 8;
        case DFI_BYTES:
                return dfi_get_str(p, end, SIZE_MAX, &b);
        case DFI_FIXED32:
                return left < 4 ? NULL : p + 4;
        default:
                return NULL;
        }
}

/* The whole event in one pass; false when damaged or beyond a limit. */
bool dfi_scan_event(struct df_bytes bytes, struct ad_event *ev);

/* ---- messages of records and seals ---- */

void dfi_put_import_begin(struct df_buf *b, uint32_t field, const struct ad_import_begin *ib);
void dfi_put_import_end(struct df_buf *b, uint32_t field, const struct ad_import_end *ie);
/* False when damaged or beyond a limit. *ret is overwritten. */
bool dfi_get_import_begin(struct df_bytes bytes, struct ad_import_begin *ret);
bool dfi_get_import_end(struct df_bytes bytes, struct ad_import_end *ret);

/* BillCell: left out when zero; false when damaged. Fields that are not there are not touched. */
void dfi_put_cell(struct df_buf *b, uint32_t field, const struct ad_cell *c);
bool dfi_get_cell(struct df_bytes bytes, struct ad_cell *ret);

#endif
