/* wire_batch.c - the records of `events`: events, and what ingest stamps on the record. */
#include "proto/wire_private.h"

/* ---- encode ---- */

void ad_wire_batch_entry(struct df_buf *b, struct df_bytes encoded_event)
{
        df_put_u8(b, DFI_TAG(1, DFI_BYTES));
        df_put_lstr(b, encoded_event);
}

void dfi_put_import_begin(struct df_buf *b, uint32_t field, const struct ad_import_begin *ib)
{
        size_t m = df_pb_begin(b, field);

        df_pb_fixed64(b, 1, ib->generation);
        df_pb_bytes(b, 2, ib->tenant_id);
        df_pb_bytes(b, 3, ib->dataset);
        df_pb_int(b, 4, ib->from_ms);
        df_pb_int(b, 5, ib->to_ms);
        df_pb_int(b, 6, ib->receive_ms);
        df_pb_end(b, m);
}

void dfi_put_import_end(struct df_buf *b, uint32_t field, const struct ad_import_end *ie)
{
        size_t m = df_pb_begin(b, field);

        df_pb_fixed64(b, 1, ie->generation);
        df_pb_uint(b, 2, ie->rows);
        df_pb_bool(b, 3, ie->aborted);
        df_pb_end(b, m);
}

void ad_wire_batch_header(struct df_buf *b, const struct ad_batch *h)
{
        df_pb_fixed64(b, 2, h->start_id);
        df_pb_uint(b, 3, h->first_seq);
        df_pb_uint(b, 4, h->price_version);
        df_pb_uint(b, 5, h->label_version);
        if (h->has_heartbeat) {
                size_t m = df_pb_begin(b, 6);

                df_pb_int(b, 1, h->heartbeat.receive_ms);
                df_pb_uint(b, 2, h->heartbeat.received);
                df_pb_uint(b, 3, h->heartbeat.accepted);
                df_pb_uint(b, 4, h->heartbeat.rejected);
                df_pb_uint(b, 5, h->heartbeat.unanswered);
                df_pb_bool(b, 6, h->heartbeat.closing);
                df_pb_uint(b, 7, h->heartbeat.partition_accepted);
                df_pb_bool(b, 8, h->heartbeat.in_doubt);
                df_pb_end(b, m);
        }
        if (h->has_import_begin)
                dfi_put_import_begin(b, 7, &h->import_begin);
        if (h->has_import_end)
                dfi_put_import_end(b, 8, &h->import_end);
        df_pb_uint(b, 9, h->schema_version);
        df_pb_bool(b, 10, h->clock_reset);
}

/* ---- decode ---- */

static bool get_heartbeat(struct df_bytes b, struct ad_heartbeat *h)
{
        struct df_reader r = df_reader(b);
        struct df_pb_field f;

        *h = (struct ad_heartbeat){0};
        while (df_pb_next(&r, &f)) {
                if (f.wire != DFI_VARINT)
                        continue;
                if (f.number == 1)
                        h->receive_ms = (int64_t)f.u;
                else if (f.number == 2)
                        h->received = f.u;
                else if (f.number == 3)
                        h->accepted = f.u;
                else if (f.number == 4)
                        h->rejected = f.u;
                else if (f.number == 5)
                        h->unanswered = f.u;
                else if (f.number == 6)
                        h->closing = f.u != 0;
                else if (f.number == 7)
                        h->partition_accepted = f.u;
                else if (f.number == 8)
                        h->in_doubt = f.u != 0;
        }
        return !r.bad;
}

bool dfi_get_import_begin(struct df_bytes b, struct ad_import_begin *ib)
{
        struct df_reader r = df_reader(b);
        struct df_pb_field f;

        *ib = (struct ad_import_begin){0};
        while (df_pb_next(&r, &f)) {
                if (f.number == 1 && f.wire == DFI_FIXED64)
                        ib->generation = f.u;
                else if (f.number == 2 && f.wire == DFI_BYTES)
                        ib->tenant_id = f.bytes;
                else if (f.number == 3 && f.wire == DFI_BYTES)
                        ib->dataset = f.bytes;
                else if (f.number == 4 && f.wire == DFI_VARINT)
                        ib->from_ms = (int64_t)f.u;
                else if (f.number == 5 && f.wire == DFI_VARINT)
                        ib->to_ms = (int64_t)f.u;
                else if (f.number == 6 && f.wire == DFI_VARINT)
                        ib->receive_ms = (int64_t)f.u;
        }
        return !r.bad && ib->tenant_id.len <= AD_ID_MAX && ib->dataset.len <= AD_DATASET_MAX;
}

bool dfi_get_import_end(struct df_bytes b, struct ad_import_end *ie)
{
        struct df_reader r = df_reader(b);
        struct df_pb_field f;

        *ie = (struct ad_import_end){0};
        while (df_pb_next(&r, &f)) {
                if (f.number == 1 && f.wire == DFI_FIXED64)
                        ie->generation = f.u;
                else if (f.number == 2 && f.wire == DFI_VARINT)
                        ie->rows = f.u;
                else if (f.number == 3 && f.wire == DFI_VARINT)
                        ie->aborted = f.u != 0;
        }
        return !r.bad;
}

static bool get_header_message(uint32_t number, struct df_bytes bytes, struct ad_batch *h)
{
        switch (number) {
        case 6:
                h->has_heartbeat = true;
                return get_heartbeat(bytes, &h->heartbeat);
        case 7:
                h->has_import_begin = true;
                return dfi_get_import_begin(bytes, &h->import_begin);
        case 8:
                h->has_import_end = true;
                return dfi_get_import_end(bytes, &h->import_end);
        default:
                return true;
        }
}

/* A field of the record other than an event; tag was read. */
static const uint8_t *get_header(const uint8_t *p, const uint8_t *end, uint64_t tag,
                                 struct ad_batch *h)
{
        struct df_bytes b;
        uint32_t flag = 0;

        switch (tag) {
        case DFI_TAG(2, DFI_FIXED64):
                if (end - p < 8)
                        return NULL;
                h->start_id = 0;
                for (int i = 0; i < 8; i++)
                        h->start_id |= (uint64_t)p[i] << (8 * i);
                return p + 8;
        case DFI_TAG(3, DFI_VARINT):
                return dfi_get_varint(p, end, &h->first_seq);
        case DFI_TAG(4, DFI_VARINT):
                return dfi_get_u32(p, end, &h->price_version);
        case DFI_TAG(5, DFI_VARINT):
                return dfi_get_u32(p, end, &h->label_version);
        case DFI_TAG(6, DFI_BYTES):
        case DFI_TAG(7, DFI_BYTES):
        case DFI_TAG(8, DFI_BYTES):
                p = dfi_get_str(p, end, SIZE_MAX, &b);
                return p && get_header_message((uint32_t)(tag >> 3), b, h) ? p : NULL;
        case DFI_TAG(9, DFI_VARINT):
                return dfi_get_u32(p, end, &h->schema_version);
        case DFI_TAG(10, DFI_VARINT):
                p = dfi_get_flag(p, end, 1, &flag);
                h->clock_reset = flag != 0;
                return p;
        default:
                return dfi_skip(p, end, tag);
        }
}

int ad_wire_batch_peek(struct df_bytes record, struct ad_batch *ret, struct df_error *err)
{
        const uint8_t *p = record.data, *end = record.len ? p + record.len : p;
        struct ad_batch h = {0};

        while (p < end) {
                struct df_bytes entry;
                uint64_t tag;

                p = dfi_get_varint(p, end, &tag);
                if (p && tag == DFI_TAG(1, DFI_BYTES)) {
                        p = dfi_get_str(p, end, SIZE_MAX, &entry);
                        h.count++;
                } else if (p) {
                        p = get_header(p, end, tag, &h);
                }
                if (!p)
                        return df_fail(err, DF_EPARSE, "record of %zu bytes is damaged",
                                       record.len);
        }
        *ret = h;
        return 0;
}

/* Room for one more event: the caller's, when all of them seem to fit. The first guess takes them
 * to be as long as the first one. */
static int grow_events(struct ad_batch *h, size_t *cap, size_t guess, size_t max_events,
                       const struct ad_event_room *room, struct df_arena *arena,
                       struct df_error *err)
{
        size_t want = *cap ? *cap * 2 : guess + guess / 8 + 4;
        struct ad_event *events;

        if (h->count == max_events)
                return df_fail(err, DF_ELIMIT, "record of more than %zu events", max_events);
        if (h->count == 0 && (guess <= room->count || max_events <= room->count)) {
                h->events = room->events;
                *cap = room->count < max_events ? room->count : max_events;
                return 0;
        }
        if (want > max_events)
                want = max_events;
        events = df_arena_alloc(arena, want * sizeof(*events));
        if (!events)
                return df_fail(err, DF_ENOMEM, "record of %zu events", want);
        if (h->count)
                memcpy(events, h->events, h->count * sizeof(*events));
        h->events = events;
        *cap = want;
        return 0;
}

int ad_wire_batch_decode(struct df_bytes record, size_t max_events, struct df_arena *arena,
                         struct ad_batch *ret, struct df_error *err)
{
        return ad_wire_batch_decode_into(record, max_events, (struct ad_event_room){0}, arena, ret,
                                         err);
}

int ad_wire_batch_decode_into(struct df_bytes record, size_t max_events, struct ad_event_room room,
                              struct df_arena *arena, struct ad_batch *ret, struct df_error *err)
{
        const uint8_t *p = record.data, *end = record.len ? p + record.len : p;
        struct ad_batch h = {0};
        size_t cap = 0;

        while (p < end) {
                struct df_bytes entry = {0};
                uint64_t tag;

                p = dfi_get_varint(p, end, &tag);
                if (p && tag != DFI_TAG(1, DFI_BYTES)) {
                        p = get_header(p, end, tag, &h);
                } else if (p && (p = dfi_get_str(p, end, SIZE_MAX, &entry))) {
                        size_t guess = 1 + (size_t)(end - p) / (entry.len + 2);
                        int rc = h.count < cap ? 0
                                               : grow_events(&h, &cap, guess, max_events, &room,
                                                             arena, err);

                        if (rc < 0)
                                return rc;
                        if (!dfi_scan_event(entry, &h.events[h.count]))
                                return df_fail(err, DF_EPARSE,
                                               "event %zu of %zu bytes is damaged or beyond a "
                                               "limit",
                                               h.count, entry.len);
                        h.events[h.count].index = (uint32_t)h.count;
                        h.count++;
                }
                if (!p)
                        return df_fail(err, DF_EPARSE, "record of %zu bytes is damaged",
                                       record.len);
        }
        *ret = h;
        return 0;
}
