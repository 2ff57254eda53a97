/* wire_bill.c - bill.proto, and the names of causes. */
#include "proto/bill.h"
#include "proto/wire_private.h"

static const struct {
        const char *code, *text;
} causes[] = {
#define X(name, value, code, text) [value] = {code, text},
        AD_CAUSE_MAP(X)
#undef X
};

const char *ad_cause_code(unsigned cause)
{
        return cause < AD_CAUSE_COUNT ? causes[cause].code : "unknown";
}

const char *ad_cause_text(unsigned cause)
{
        return cause < AD_CAUSE_COUNT ? causes[cause].text : "of a later version";
}

void dfi_put_cell(struct df_buf *b, uint32_t number, const struct ad_cell *c)
{
        size_t m;

        if (ad_cell_is_zero(c))
                return;
        m = df_pb_begin(b, number);
        df_pb_uint(b, 1, c->impressions);
        df_pb_uint(b, 2, c->clicks);
        df_pb_uint(b, 3, c->conversions);
        for (uint32_t i = 0; i < 3; i++)
                df_pb_uint(b, 4 + i, c->invalid[i]);
        df_pb_int128(b, 7, c->spend);
        df_pb_int128(b, 8, c->payout);
        df_pb_int128(b, 9, c->value);
        df_pb_end(b, m);
}

void ad_wire_bill_row(struct df_buf *b, const struct ad_bill_row *row)
{
        size_t m = df_pb_begin(b, 1);

        df_pb_uint(b, 1, row->quarter);
        df_pb_bytes(b, 2, row->tenant_id);
        df_pb_bytes(b, 3, row->advertiser_id);
        df_pb_bytes(b, 4, row->campaign_id);
        df_pb_bytes(b, 5, row->publisher_id);
        df_pb_bytes(b, 6, row->currency);
        df_pb_uint(b, 7, row->cause);
        dfi_put_cell(b, 8, &row->billed);
        if (row->cause != AD_CAUSE_NONE)
                dfi_put_cell(b, 9, &row->realtime);
        df_pb_end(b, m);
}

bool dfi_get_cell(struct df_bytes bytes, struct ad_cell *c)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;
        bool ok = true;

        while (ok && df_pb_next(&r, &f)) {
                if (f.number >= 7 && f.wire != DFI_BYTES)
                        continue;
                switch (f.number) {
                case 1:
                        c->impressions = f.u;
                        break;
                case 2:
                        c->clicks = f.u;
                        break;
                case 3:
                        c->conversions = f.u;
                        break;
                case 4:
                case 5:
                case 6:
                        c->invalid[f.number - 4] = f.u;
                        break;
                case 7:
                        ok = df_int128_from_bytes(f.bytes, &c->spend);
                        break;
                case 8:
                        ok = df_int128_from_bytes(f.bytes, &c->payout);
                        break;
                case 9:
                        ok = df_int128_from_bytes(f.bytes, &c->value);
                        break;
                default:
                        break;
                }
        }
        return ok && !r.bad;
}

static bool get_string(const struct df_pb_field *f, size_t max, struct df_bytes *ret)
{
        *ret = f->bytes;
        return f->wire == DFI_BYTES && f->bytes.len <= max;
}

static bool get_field(const struct df_pb_field *f, struct ad_bill_row *row)
{
        switch (f->number) {
        case 1:
                row->quarter = f->u;
                return f->wire == DFI_VARINT;
        case 2:
                return get_string(f, AD_ID_MAX, &row->tenant_id);
        case 3:
                return get_string(f, AD_ID_MAX, &row->advertiser_id);
        case 4:
                return get_string(f, AD_ID_MAX, &row->campaign_id);
        case 5:
                return get_string(f, AD_ID_MAX, &row->publisher_id);
        case 6:
                return get_string(f, 3, &row->currency);
        case 7:
                row->cause = (uint32_t)f->u;
                return f->wire == DFI_VARINT && f->u < AD_CAUSE_COUNT;
        case 8:
                return f->wire == DFI_BYTES && dfi_get_cell(f->bytes, &row->billed);
        case 9:
                return f->wire == DFI_BYTES && dfi_get_cell(f->bytes, &row->realtime);
        default:
                return true; /* of a later version */
        }
}

static bool get_row(struct df_bytes bytes, struct ad_bill_row *row)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;

        *row = (struct ad_bill_row){0};
        while (df_pb_next(&r, &f))
                if (!get_field(&f, row))
                        return false;
        if (row->cause == AD_CAUSE_NONE)
                row->realtime = row->billed;
        return !r.bad;
}

int ad_wire_bill_decode(struct df_bytes payload,
                        int (*fn)(void *arg, const struct ad_bill_row *row, struct df_error *err),
                        void *arg, struct df_error *err)
{
        struct df_reader r = df_reader(payload);
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                struct ad_bill_row row;
                int rc;

                if (f.number != 1)
                        continue;
                if (f.wire != DFI_BYTES || !get_row(f.bytes, &row))
                        return df_fail(err, DF_EPARSE, "a billing row is damaged");
                rc = fn(arg, &row, err);
                if (rc < 0)
                        return rc;
        }
        return r.bad ? df_fail(err, DF_EPARSE, "a batch of billing rows is damaged") : 0;
}
