/* wire_log.c - rows, late events, quarantine, notes: the payloads of output topics. */
#include "proto/wire_private.h"

/* ---- rows ---- */

void ad_wire_row(struct df_buf *b, const struct ad_row *row)
{
        size_t m = df_pb_begin(b, 1);

        df_pb_uint(b, 1, row->grouping);
        df_pb_uint(b, 2, row->minute);
        df_pb_bytes(b, 3, row->tenant_id);
        for (uint32_t i = 0; i < row->dim_count; i++) { /* empty ones too: order is meaning */
                df_put_u8(b, 4 << 3 | DFI_BYTES);
                df_put_lstr(b, row->dims[i]);
        }
        df_pb_bytes(b, 5, row->currency);
        df_pb_uint(b, 6, row->cell.impressions);
        df_pb_uint(b, 7, row->cell.clicks);
        df_pb_uint(b, 8, row->cell.conversions);
        df_pb_int128(b, 9, row->cell.spend);
        df_pb_int128(b, 10, row->cell.payout);
        df_pb_int128(b, 11, row->cell.value);
        for (uint32_t i = 0; i < 3; i++)
                df_pb_uint(b, 12 + i, row->cell.invalid[i]);
        df_pb_end(b, m);
}

static void get_row_field(const struct df_pb_field *f, struct ad_row *row, bool *bad)
{
        switch (f->number) {
        case 1:
                row->grouping = (uint32_t)f->u;
                break;
        case 2:
                row->minute = f->u;
                break;
        case 3:
                row->tenant_id = f->bytes;
                break;
        case 4:
                if (row->dim_count == AD_DIM_COUNT)
                        *bad = true;
                else
                        row->dims[row->dim_count++] = f->bytes;
                break;
        case 5:
                row->currency = f->bytes;
                break;
        case 6:
                row->cell.impressions = f->u;
                break;
        case 7:
                row->cell.clicks = f->u;
                break;
        case 8:
                row->cell.conversions = f->u;
                break;
        case 9:
                *bad |= !df_int128_from_bytes(f->bytes, &row->cell.spend);
                break;
        case 10:
                *bad |= !df_int128_from_bytes(f->bytes, &row->cell.payout);
                break;
        case 11:
                *bad |= !df_int128_from_bytes(f->bytes, &row->cell.value);
                break;
        case 12:
        case 13:
        case 14:
                row->cell.invalid[f->number - 12] = f->u;
                break;
        default:
                break;
        }
}

static bool get_row(struct df_bytes bytes, struct ad_row *row)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;
        bool bad = false;

        memset(row, 0, sizeof(*row));
        while (df_pb_next(&r, &f))
                get_row_field(&f, row, &bad);
        if (row->tenant_id.len > AD_ID_MAX || row->currency.len > 3)
                bad = true;
        for (uint32_t i = 0; i < row->dim_count; i++)
                bad |= row->dims[i].len > AD_ID_MAX;
        return !bad && !r.bad;
}

int ad_wire_rows_decode(struct df_bytes payload,
                        int (*fn)(void *arg, const struct ad_row *row, struct df_error *err),
                        void *arg, struct df_error *err)
{
        struct df_reader r = df_reader(payload);
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                struct ad_row row;
                int rc;

                if (f.number != 1)
                        continue;
                if (f.wire != DFI_BYTES || !get_row(f.bytes, &row))
                        return df_fail(err, DF_EPARSE, "a row is damaged");
                rc = fn(arg, &row, err);
                if (rc < 0)
                        return rc;
        }
        return r.bad ? df_fail(err, DF_EPARSE, "a batch of rows is damaged") : 0;
}

/* ---- late ---- */

void ad_wire_late(struct df_buf *b, const struct ad_late *late)
{
        size_t m = df_pb_begin(b, 1);

        df_pb_uint(b, 1, late->offset);
        df_pb_uint(b, 2, late->index);
        df_pb_int(b, 3, late->append_ms);
        df_pb_sint(b, 4, late->watermark_ms);
        df_pb_bytes(b, 5, late->event);
        df_pb_end(b, m);
}

static bool get_late(struct df_bytes bytes, struct ad_late *late)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;

        memset(late, 0, sizeof(*late));
        while (df_pb_next(&r, &f)) {
                if (f.number == 1)
                        late->offset = f.u;
                else if (f.number == 2)
                        late->index = (uint32_t)f.u;
                else if (f.number == 3)
                        late->append_ms = (int64_t)f.u;
                else if (f.number == 4)
                        late->watermark_ms = df_pb_zigzag(f.u);
                else if (f.number == 5)
                        late->event = f.bytes;
        }
        return !r.bad && late->event.len <= AD_EVENT_BYTES_MAX;
}

int ad_wire_late_decode(struct df_bytes payload,
                        int (*fn)(void *arg, const struct ad_late *late, struct df_error *err),
                        void *arg, struct df_error *err)
{
        struct df_reader r = df_reader(payload);
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                struct ad_late late;
                int rc;

                if (f.number != 1)
                        continue;
                if (f.wire != DFI_BYTES || !get_late(f.bytes, &late))
                        return df_fail(err, DF_EPARSE, "a late event is damaged");
                rc = fn(arg, &late, err);
                if (rc < 0)
                        return rc;
        }
        return r.bad ? df_fail(err, DF_EPARSE, "a batch of late events is damaged") : 0;
}

/* ---- quarantine ---- */

void ad_wire_quarantined(struct df_buf *b, const struct ad_quarantined *q)
{
        size_t m = df_pb_begin(b, 1);

        df_pb_uint(b, 1, q->offset);
        df_pb_uint(b, 2, q->index);
        df_pb_bool(b, 3, q->whole_record);
        df_pb_uint(b, 4, q->reason);
        df_pb_int(b, 5, q->append_ms);
        df_pb_bytes(b, 6, q->tenant_id);
        df_pb_bytes(b, 7, q->event_id);
        df_pb_bytes(b, 8, q->head);
        df_pb_uint(b, 9, q->size);
        df_pb_end(b, m);
}

static bool get_quarantined(struct df_bytes bytes, struct ad_quarantined *q)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;

        memset(q, 0, sizeof(*q));
        while (df_pb_next(&r, &f)) {
                switch (f.number) {
                case 1:
                        q->offset = f.u;
                        break;
                case 2:
                        q->index = (uint32_t)f.u;
                        break;
                case 3:
                        q->whole_record = f.u != 0;
                        break;
                case 4:
                        q->reason = (uint32_t)f.u;
                        break;
                case 5:
                        q->append_ms = (int64_t)f.u;
                        break;
                case 6:
                        q->tenant_id = f.bytes;
                        break;
                case 7:
                        q->event_id = f.bytes;
                        break;
                case 8:
                        q->head = f.bytes;
                        break;
                case 9:
                        q->size = f.u;
                        break;
                default:
                        break;
                }
        }
        return !r.bad && q->tenant_id.len <= AD_ID_MAX && q->event_id.len <= AD_EVENT_ID_MAX &&
               q->head.len <= AD_QUARANTINE_HEAD_MAX;
}

int ad_wire_quarantine_decode(struct df_bytes payload,
                              int (*fn)(void *arg, const struct ad_quarantined *q,
                                        struct df_error *err),
                              void *arg, struct df_error *err)
{
        struct df_reader r = df_reader(payload);
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                struct ad_quarantined q;
                int rc;

                if (f.number != 1)
                        continue;
                if (f.wire != DFI_BYTES || !get_quarantined(f.bytes, &q))
                        return df_fail(err, DF_EPARSE, "a quarantined item is damaged");
                rc = fn(arg, &q, err);
                if (rc < 0)
                        return rc;
        }
        return r.bad ? df_fail(err, DF_EPARSE, "a quarantine batch is damaged") : 0;
}

/* ---- the note of a seal ---- */

static void put_edge(struct df_buf *b, const struct ad_edge *e)
{
        size_t m = df_pb_begin(b, 1);

        df_pb_fixed64(b, 1, e->start_id);
        df_pb_int(b, 2, e->heartbeat_ms);
        df_pb_uint(b, 3, e->received);
        df_pb_uint(b, 4, e->accepted);
        df_pb_uint(b, 5, e->rejected);
        df_pb_uint(b, 6, e->unanswered);
        df_pb_bool(b, 7, e->closing);
        df_pb_uint(b, 8, e->partition_accepted);
        df_pb_uint(b, 9, e->partition_seen);
        df_pb_end(b, m);
}

void ad_wire_note(struct df_buf *b, const struct ad_note *n)
{
        for (size_t i = 0; i < n->edge_count; i++)
                put_edge(b, &n->edges[i]);
        if (n->has_import_begin)
                dfi_put_import_begin(b, 2, &n->import_begin);
        if (n->has_import_end)
                dfi_put_import_end(b, 3, &n->import_end);
        df_pb_uint(b, 4, n->sequence_gaps);
        df_pb_sint(b, 5, n->min_receive_ms);
        df_pb_sint(b, 6, n->max_receive_ms);
}

static bool get_edge(struct df_bytes bytes, struct ad_edge *e)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;

        memset(e, 0, sizeof(*e));
        while (df_pb_next(&r, &f)) {
                switch (f.number) {
                case 1:
                        e->start_id = f.u;
                        break;
                case 2:
                        e->heartbeat_ms = (int64_t)f.u;
                        break;
                case 3:
                        e->received = f.u;
                        break;
                case 4:
                        e->accepted = f.u;
                        break;
                case 5:
                        e->rejected = f.u;
                        break;
                case 6:
                        e->unanswered = f.u;
                        break;
                case 7:
                        e->closing = f.u != 0;
                        break;
                case 8:
                        e->partition_accepted = f.u;
                        break;
                case 9:
                        e->partition_seen = f.u;
                        break;
                default:
                        break;
                }
        }
        return !r.bad;
}

/* A field of the wrong wire type is not ours: skipped like an unknown one. */
static bool get_note_message(const struct df_pb_field *f, struct ad_note *n)
{
        switch (f->number) {
        case 1:
                return n->edge_count < AD_NOTE_EDGES_MAX &&
                       get_edge(f->bytes, &n->edges[n->edge_count++]);
        case 2:
                n->has_import_begin = true;
                return dfi_get_import_begin(f->bytes, &n->import_begin);
        case 3:
                n->has_import_end = true;
                return dfi_get_import_end(f->bytes, &n->import_end);
        default:
                return true;
        }
}

int ad_wire_note_decode(struct df_bytes bytes, struct ad_note *ret, struct df_error *err)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;
        bool bad = false;

        memset(ret, 0, sizeof(*ret));
        while (!bad && df_pb_next(&r, &f)) {
                if (f.wire == DFI_BYTES)
                        bad = !get_note_message(&f, ret);
                else if (f.number == 4)
                        ret->sequence_gaps = f.u;
                else if (f.number == 5)
                        ret->min_receive_ms = df_pb_zigzag(f.u);
                else if (f.number == 6)
                        ret->max_receive_ms = df_pb_zigzag(f.u);
        }
        return bad || r.bad ? df_fail(err, DF_EPARSE, "a seal's note is damaged") : 0;
}
