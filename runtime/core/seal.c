#include "df/seal.h"

#include <stdio.h>

enum { OUT_SOURCE = 1, OUT_K, OUT_EPOCH, OUT_N, OUT_PAYLOAD, OUT_SEAL };
enum {
        SEAL_PARENT_K = 1,
        SEAL_PARENT_DIGEST,
        SEAL_DIGEST,
        SEAL_FROM,
        SEAL_TO,
        SEAL_OUTCOMES,
        SEAL_RECORDS,
        SEAL_POISON,
        SEAL_HEARTBEATS,
        SEAL_EVENTS,
        SEAL_ROWS,
        SEAL_ROWS_DIGEST,
        SEAL_WATERMARK,
        SEAL_MAX_APPEND,
        SEAL_MAX_RECEIVE,
        SEAL_FINAL_THROUGH,
        SEAL_CONFIG,
        SEAL_PRICE_VERSION,
        SEAL_LABEL_VERSION,
        SEAL_BINARY_VERSION,
        SEAL_CLOSED,
        SEAL_NOTE,
};

bool df_source_eq(const struct df_source *a, const struct df_source *b)
{
        return a->partition == b->partition && a->generation == b->generation &&
               strcmp(a->stream, b->stream) == 0;
}

static void put_digest(struct df_buf *b, uint32_t field, struct df_hash128 h)
{
        uint8_t bytes[16];

        for (size_t i = 0; i < 8; i++) {
                bytes[i] = (uint8_t)(h.lo >> (8 * i));
                bytes[8 + i] = (uint8_t)(h.hi >> (8 * i));
        }
        df_pb_bytes(b, field, df_bytes(bytes, sizeof(bytes)));
}

static struct df_hash128 get_digest(struct df_bytes b, bool *bad)
{
        struct df_reader r = df_reader(b);
        struct df_hash128 h;

        h.lo = df_get_u64le(&r);
        h.hi = df_get_u64le(&r);
        *bad |= r.bad || b.len != 16;
        return h;
}

static void put_origin(struct df_buf *b, const struct df_origin *o)
{
        size_t m = df_pb_begin(b, OUT_SOURCE);

        df_pb_str(b, 1, o->source.stream);
        df_pb_fixed64(b, 2, o->source.generation);
        df_pb_uint(b, 3, o->source.partition);
        df_pb_end(b, m);
        df_pb_uint(b, OUT_K, o->k);
        df_pb_uint(b, OUT_EPOCH, o->epoch);
        df_pb_uint(b, OUT_N, o->n);
}

void df_output_encode(struct df_buf *b, const struct df_origin *origin, struct df_bytes payload)
{
        put_origin(b, origin);
        df_pb_bytes(b, OUT_PAYLOAD, payload);
}

void df_output_encode_seal(struct df_buf *b, const struct df_origin *origin,
                           const struct df_seal *s)
{
        size_t m;

        put_origin(b, origin);
        m = df_pb_begin(b, OUT_SEAL);
        df_pb_uint(b, SEAL_PARENT_K, s->parent_k);
        put_digest(b, SEAL_PARENT_DIGEST, s->parent_digest);
        put_digest(b, SEAL_DIGEST, s->digest);
        df_pb_uint(b, SEAL_FROM, s->from_offset);
        df_pb_uint(b, SEAL_TO, s->to_offset);
        for (uint32_t i = 0; i < DF_OUTCOMES_MAX; i++) {
                size_t o;

                if (s->outcomes[i] == 0)
                        continue;
                o = df_pb_begin(b, SEAL_OUTCOMES);
                df_pb_uint(b, 1, i);
                df_pb_uint(b, 2, s->outcomes[i]);
                df_pb_end(b, o);
        }
        df_pb_uint(b, SEAL_RECORDS, s->records);
        df_pb_uint(b, SEAL_POISON, s->poison_records);
        df_pb_uint(b, SEAL_HEARTBEATS, s->heartbeats);
        df_pb_uint(b, SEAL_EVENTS, s->events);
        df_pb_uint(b, SEAL_ROWS, s->rows);
        put_digest(b, SEAL_ROWS_DIGEST, s->rows_digest);
        df_pb_sint(b, SEAL_WATERMARK, s->watermark_ms);
        df_pb_sint(b, SEAL_MAX_APPEND, s->max_append_ms);
        df_pb_sint(b, SEAL_MAX_RECEIVE, s->max_receive_ms);
        df_pb_sint(b, SEAL_FINAL_THROUGH, s->final_through_ms);
        df_pb_fixed64(b, SEAL_CONFIG, s->config);
        df_pb_uint(b, SEAL_PRICE_VERSION, s->price_version);
        df_pb_uint(b, SEAL_LABEL_VERSION, s->label_version);
        df_pb_str(b, SEAL_BINARY_VERSION, s->binary_version);
        df_pb_bool(b, SEAL_CLOSED, s->closed);
        df_pb_bytes(b, SEAL_NOTE, s->note);
        df_pb_end(b, m);
}

static void get_text(struct df_bytes b, char *ret, size_t size, bool *bad)
{
        if (b.len >= size || (b.len && memchr(b.data, 0, b.len))) {
                *bad = true;
                return;
        }
        if (b.len)
                memcpy(ret, b.data, b.len);
        ret[b.len] = '\0';
}

static void get_source(struct df_bytes bytes, struct df_source *s, bool *bad)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;

        while (df_pb_next(&r, &f)) {
                if (f.number == 1)
                        get_text(f.bytes, s->stream, sizeof(s->stream), bad);
                else if (f.number == 2)
                        s->generation = f.u;
                else if (f.number == 3)
                        s->partition = (uint32_t)f.u;
        }
        *bad |= r.bad;
}

static void get_outcome(struct df_bytes bytes, struct df_seal *s, bool *bad)
{
        struct df_reader r = df_reader(bytes);
        struct df_pb_field f;
        uint64_t outcome = 0, count = 0;

        while (df_pb_next(&r, &f)) {
                if (f.number == 1)
                        outcome = f.u;
                else if (f.number == 2)
                        count = f.u;
        }
        if (r.bad || outcome >= DF_OUTCOMES_MAX)
                *bad = true;
        else
                s->outcomes[outcome] = count;
}

static void get_seal_time_or_version(const struct df_pb_field *f, struct df_seal *s, bool *bad)
{
        switch (f->number) {
        case SEAL_WATERMARK:
                s->watermark_ms = df_pb_zigzag(f->u);
                break;
        case SEAL_MAX_APPEND:
                s->max_append_ms = df_pb_zigzag(f->u);
                break;
        case SEAL_MAX_RECEIVE:
                s->max_receive_ms = df_pb_zigzag(f->u);
                break;
        case SEAL_FINAL_THROUGH:
                s->final_through_ms = df_pb_zigzag(f->u);
                break;
        case SEAL_CONFIG:
                s->config = f->u;
                break;
        case SEAL_PRICE_VERSION:
                s->price_version = (uint32_t)f->u;
                break;
        case SEAL_LABEL_VERSION:
                s->label_version = (uint32_t)f->u;
                break;
        case SEAL_BINARY_VERSION:
                get_text(f->bytes, s->binary_version, sizeof(s->binary_version), bad);
                break;
        case SEAL_CLOSED:
                s->closed = f->u != 0;
                break;
        case SEAL_NOTE:
                s->note = f->bytes;
                break;
        default:
                break;
        }
}

static void get_seal_field(const struct df_pb_field *f, struct df_seal *s, bool *bad)
{
        switch (f->number) {
        case SEAL_PARENT_K:
                s->parent_k = f->u;
                break;
        case SEAL_PARENT_DIGEST:
                s->parent_digest = get_digest(f->bytes, bad);
                break;
        case SEAL_DIGEST:
                s->digest = get_digest(f->bytes, bad);
                break;
        case SEAL_FROM:
                s->from_offset = f->u;
                break;
        case SEAL_TO:
                s->to_offset = f->u;
                break;
        case SEAL_OUTCOMES:
                get_outcome(f->bytes, s, bad);
                break;
        case SEAL_RECORDS:
                s->records = f->u;
                break;
        case SEAL_POISON:
                s->poison_records = f->u;
                break;
        case SEAL_HEARTBEATS:
                s->heartbeats = f->u;
                break;
        case SEAL_EVENTS:
                s->events = f->u;
                break;
        case SEAL_ROWS:
                s->rows = (uint32_t)f->u;
                break;
        case SEAL_ROWS_DIGEST:
                s->rows_digest = get_digest(f->bytes, bad);
                break;
        default:
                get_seal_time_or_version(f, s, bad);
        }
}

int df_output_decode(struct df_bytes record, struct df_output *ret, struct df_error *err)
{
        struct df_reader r = df_reader(record), s;
        struct df_pb_field f;
        bool bad = false;

        memset(ret, 0, sizeof(*ret));
        while (df_pb_next(&r, &f)) {
                switch (f.number) {
                case OUT_SOURCE:
                        get_source(f.bytes, &ret->origin.source, &bad);
                        break;
                case OUT_K:
                        ret->origin.k = f.u;
                        break;
                case OUT_EPOCH:
                        ret->origin.epoch = f.u;
                        break;
                case OUT_N:
                        ret->origin.n = (uint32_t)f.u;
                        break;
                case OUT_PAYLOAD:
                        ret->payload = f.bytes;
                        break;
                case OUT_SEAL:
                        ret->is_seal = true;
                        s = df_reader(f.bytes);
                        while (df_pb_next(&s, &f))
                                get_seal_field(&f, &ret->seal, &bad);
                        bad |= s.bad;
                        break;
                default:
                        break;
                }
        }
        if (r.bad || bad)
                return df_fail(err, DF_EPARSE, "an output record of %zu bytes is damaged",
                               record.len);
        return 0;
}
