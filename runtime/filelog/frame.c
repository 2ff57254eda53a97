#include "df/hash.h"
#include "filelog_private.h"

#define FRAME_MAGIC 0x314c4441u /* "ADL1" in the file */

static void put32(uint8_t *p, uint32_t v)
{
        for (unsigned i = 0; i < 4; i++)
                p[i] = (uint8_t)(v >> (8 * i));
}

static void put64(uint8_t *p, uint64_t v)
{
        put32(p, (uint32_t)v);
        put32(p + 4, (uint32_t)(v >> 32));
}

static uint32_t get32(const uint8_t *p)
{
        return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
        return get32(p) | (uint64_t)get32(p + 4) << 32;
}

/* Header, little-endian: 0 magic, 4 CRC of bytes 8..55, 8 base, 16 generation, 24 append_ms,
 * 32 count, 36 commit_delta, 40 raw_len, 44 stored_len, 48 payload CRC, 52 codec. */
void dfi_frame_put(uint8_t out[DFI_FRAME_HEADER], const struct dfi_frame *f)
{
        put32(out, FRAME_MAGIC);
        put64(out + 8, f->base);
        put64(out + 16, f->generation);
        put64(out + 24, (uint64_t)f->append_ms);
        put32(out + 32, f->count);
        put32(out + 36, f->commit_delta);
        put32(out + 40, f->raw_len);
        put32(out + 44, f->stored_len);
        put32(out + 48, f->payload_crc);
        put32(out + 52, f->codec);
        put32(out + 4, df_crc32c(0, df_bytes(out + 8, DFI_FRAME_HEADER - 8)));
}

bool dfi_frame_get(const uint8_t in[DFI_FRAME_HEADER], uint64_t generation, struct dfi_frame *ret)
{
        if (get32(in) != FRAME_MAGIC)
                return false;
        if (get32(in + 4) != df_crc32c(0, df_bytes(in + 8, DFI_FRAME_HEADER - 8)))
                return false;
        *ret = (struct dfi_frame){
                .base = get64(in + 8),
                .generation = get64(in + 16),
                .append_ms = (int64_t)get64(in + 24),
                .count = get32(in + 32),
                .commit_delta = get32(in + 36),
                .raw_len = get32(in + 40),
                .stored_len = get32(in + 44),
                .payload_crc = get32(in + 48),
                .codec = get32(in + 52),
        };
        if (ret->generation != generation || ret->count == 0 || ret->count > ret->raw_len)
                return false;
        if (ret->raw_len > DFI_FRAME_RAW_MAX || ret->stored_len > ret->raw_len)
                return false;
        return ret->commit_delta <= ret->base && ret->base <= DF_OFFSET_END - 1 - ret->count;
}

bool dfi_frame_inflate(ZSTD_DCtx *dctx, const struct dfi_frame *f, const uint8_t *payload,
                       uint8_t *out)
{
        if (f->codec == DFI_CODEC_NONE) {
                if (f->stored_len != f->raw_len)
                        return false;
                memcpy(out, payload, f->raw_len);
                return true;
        }
        if (f->codec != DFI_CODEC_ZSTD)
                return false;
        return ZSTD_decompressDCtx(dctx, out, f->raw_len, payload, f->stored_len) == f->raw_len;
}
