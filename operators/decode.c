/* decode.c - records of `events` to events (E1, E2), and the seal's note.
 *
 * A record that cannot be decoded has no events: it is counted apart, and its mark holds its bytes
 * for quarantine. Each record yields a mark, so that guard sees its append time even when it holds
 * no event; a heartbeat's mark is judged like an event. Events carry first_seq, the position that
 * ingest gave them: a gap or a repetition is counted in the note and shows as a ledger imbalance.
 *
 * State, under ns: 'S' start_id u64be -> events of this start seen in this partition.
 */
#include <stdlib.h>

#include "operators/ops.h"

/* Records are gathered until they hold so many events, or have so many items with their marks: what
 * the later operators do in steps of that many events finds them in the cache. */
#define BATCH_EVENTS 64
#define BATCH_ITEMS (2 * BATCH_EVENTS)
#define STARTS_MAX 64 /* ingest starts remembered; the longest silent one is forgotten */

struct start {
        uint64_t id;
        uint64_t seen;      /* events so far, by first_seq */
        uint64_t last_used; /* order of use, to forget the oldest */
        bool dirty;         /* differs from the store */
        bool has_edge;      /* a heartbeat since the last cut */
        struct ad_edge edge;
};

struct decode {
        struct df_operator op;
        struct start starts[STARTS_MAX];
        size_t start_count;
        uint64_t uses;
        struct ad_note note;          /* of this checkpoint; edges are filled in at the cut */
        struct df_buf import_strings; /* what note.import_begin borrows */
        /* Of one batch: the same memory for each, so that the chain works in the cache. Room for
         * BATCH_ITEMS - 1, and then the mark and events of any one record. */
        struct ad_event *batch;
        size_t batch_count;
        size_t batch_events; /* of these */
};

static struct decode *decode_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ad_op_decode);
        return (struct decode *)op;
}

static int decode_open(struct df_operator *op, struct df_error *err)
{
        struct decode *d = decode_of(op);

        d->batch = calloc(BATCH_ITEMS + AD_RECORD_EVENTS_MAX, sizeof(*d->batch));
        if (!d->batch)
                return df_fail(err, DF_ENOMEM, "decode: batch of %d events",
                               BATCH_ITEMS + AD_RECORD_EVENTS_MAX);
        return 0;
}

/* The slot of this ingest start; when it is new, an empty one, or that of the longest silent. */
static struct start *start_slot(struct decode *d, uint64_t id, bool *ret_new)
{
        struct start *oldest = &d->starts[0];

        *ret_new = false;
        for (size_t i = 0; i < d->start_count; i++) {
                if (d->starts[i].id == id)
                        return &d->starts[i];
                if (d->starts[i].last_used < oldest->last_used)
                        oldest = &d->starts[i];
        }
        *ret_new = true;
        if (d->start_count < STARTS_MAX)
                oldest = &d->starts[d->start_count++];
        *oldest = (struct start){.id = id};
        return oldest;
}

static int decode_restore_one(void *arg, struct df_bytes key, struct df_bytes value,
                              struct df_error *err)
{
        struct decode *d = arg;
        struct df_reader r = df_reader(key), v = df_reader(value);
        struct start *s;
        bool is_new;
        uint64_t id;

        (void)df_get_bytes(&r, 2);
        id = df_get_u64be(&r);
        s = start_slot(d, id, &is_new);
        s->seen = df_get_u64be(&v);
        s->last_used = df_get_u64be(&v);
        if (s->last_used >= d->uses)
                d->uses = s->last_used + 1;
        if (r.bad || v.bad || !is_new)
                return df_fail(err, DF_ECORRUPT, "decode: state of an ingest start is damaged");
        return 0;
}

static int decode_restore(struct df_operator *op, struct df_error *err)
{
        struct decode *d = decode_of(op);
        uint8_t prefix[2] = {op->ctx.ns, 'S'};

        return df_store_scan(op->ctx.store, df_bytes(prefix, 2), decode_restore_one, d, err);
}

static int flush(struct decode *d, struct df_out *out, struct df_error *err)
{
        struct df_batch batch = {AD_KIND_EVENTS, d->batch, d->batch_count};

        if (d->batch_count == 0)
                return 0;
        d->batch_count = d->batch_events = 0;
        return df_out_forward(out, &batch, err);
}

/* Account for the record's place in its ingest start, and its heartbeat. */
static void note_start(struct decode *d, const struct ad_batch *b)
{
        bool is_new;
        struct start *s;

        if (b->start_id == 0)
                return;
        s = start_slot(d, b->start_id, &is_new);
        s->last_used = d->uses++;
        s->dirty = true;
        if (b->count > 0) {
                if (is_new)
                        s->seen = b->first_seq;
                d->note.sequence_gaps +=
                        b->first_seq > s->seen ? b->first_seq - s->seen : s->seen - b->first_seq;
                s->seen = b->first_seq + b->count;
        }
        if (b->has_heartbeat) {
                const struct ad_heartbeat *h = &b->heartbeat;

                if (is_new)
                        s->seen = h->partition_accepted;
                if (h->partition_accepted > s->seen)
                        d->note.sequence_gaps += h->partition_accepted - s->seen;
                else if (!h->in_doubt)
                        d->note.sequence_gaps += s->seen - h->partition_accepted;
                s->has_edge = true;
                s->edge = (struct ad_edge){
                        .start_id = b->start_id,
                        .heartbeat_ms = h->receive_ms,
                        .received = h->received,
                        .accepted = h->accepted,
                        .rejected = h->rejected,
                        .unanswered = h->unanswered,
                        .closing = h->closing,
                        .partition_accepted = h->partition_accepted,
                };
        }
}

static void note_import(struct decode *d, const struct ad_batch *b)
{
        if (b->has_import_begin) {
                struct ad_import_begin *n = &d->note.import_begin;

                *n = b->import_begin;
                df_buf_clear(&d->import_strings);
                df_buf_append(&d->import_strings, n->tenant_id.data, n->tenant_id.len);
                df_buf_append(&d->import_strings, n->dataset.data, n->dataset.len);
                d->note.has_import_begin = !d->import_strings.failed;
        }
        if (b->has_import_end) {
                d->note.has_import_end = true;
                d->note.import_end = b->import_end;
        }
}

/* What the events share with their record, and the range of their receive times. */
static void stamp(struct decode *d, const struct df_record *rec, const struct ad_batch *b)
{
        int64_t least = INT64_MAX, most = INT64_MIN;

        for (size_t i = 0; i < b->count; i++) {
                struct ad_event *ev = &b->events[i];

                ev->append_ms = rec->append_ms;
                ev->offset = rec->offset;
                ev->index = (uint32_t)i;
                ev->price_version = b->price_version;
                ev->outcome = AD_NONE;
                least = ev->receive_ms < least ? ev->receive_ms : least;
                most = ev->receive_ms > most ? ev->receive_ms : most;
        }
        if (b->count == 0)
                return;
        if (d->note.max_receive_ms == 0 || most > d->note.max_receive_ms)
                d->note.max_receive_ms = most;
        if (d->note.min_receive_ms == 0 || least < d->note.min_receive_ms)
                d->note.min_receive_ms = least;
}

/* b: NULL = poison. */
static void mark(struct decode *d, const struct df_record *rec, const struct ad_batch *b)
{
        struct ad_event *m = &d->batch[d->batch_count++];

        *m = (struct ad_event){
                .flags = AD_EV_MARK,
                .outcome = AD_SKIP,
                .append_ms = rec->append_ms,
                .offset = rec->offset,
        };
        if (!b) {
                m->flags |= AD_EV_POISON;
                m->raw = rec->value;
        }
        if (b && b->has_heartbeat) {
                m->flags |= AD_EV_HEARTBEAT;
                m->receive_ms = b->heartbeat.receive_ms;
                m->event_ms = b->heartbeat.receive_ms;
        }
        if (b && b->clock_reset)
                m->flags |= AD_EV_CLOCK_RESET;
}

static int decode_record(struct decode *d, const struct df_record *rec, struct df_out *out,
                         struct df_error *err)
{
        const struct ad_event_room room = {&d->batch[d->batch_count + 1], AD_RECORD_EVENTS_MAX};
        struct ad_batch b;
        int rc = ad_wire_batch_decode_into(rec->value, AD_RECORD_EVENTS_MAX, room, d->op.ctx.arena,
                                           &b, err);

        if (rc == DF_ENOMEM)
                return rc;
        mark(d, rec, rc == 0 ? &b : NULL);
        if (rc < 0) {
                df_out_count_records(out, 0, 1, 0);
        } else {
                note_start(d, &b);
                note_import(d, &b);
                df_out_count_records(out, b.count, 0, b.has_heartbeat ? 1 : 0);
                df_out_versions(out, b.price_version, b.label_version);
                stamp(d, rec, &b);
                df_check(b.count == 0 || b.events == room.events);
                d->batch_count += b.count;
                d->batch_events += b.count;
        }
        if (d->batch_events < BATCH_EVENTS && d->batch_count < BATCH_ITEMS)
                return 0;
        return flush(d, out, err);
}

static int decode_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                          struct df_error *err)
{
        struct decode *d = decode_of(op);
        const struct df_record *records = batch->items;

        df_check(batch->kind == DF_KIND_RECORDS);
        for (size_t i = 0; i < batch->count; i++) {
                int rc = decode_record(d, &records[i], out, err);
                if (rc < 0)
                        return rc;
        }
        return flush(d, out, err);
}

static int decode_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        struct decode *d = decode_of(op);
        struct ad_note *n = &d->note;
        struct df_buf b = {0};
        int rc;

        n->edge_count = 0;
        for (size_t i = 0; i < d->start_count; i++) {
                struct start *s = &d->starts[i];

                if (!s->has_edge)
                        continue;
                s->edge.partition_seen = s->seen;
                n->edges[n->edge_count++] = s->edge;
                s->has_edge = false;
        }
        if (n->has_import_begin) {
                struct ad_import_begin *ib = &n->import_begin;

                ib->tenant_id.data = d->import_strings.data;
                ib->dataset.data = d->import_strings.data + ib->tenant_id.len;
        }
        ad_wire_note(&b, n);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = df_out_note(out, df_buf_bytes(&b), err);
        df_buf_release(&b);
        memset(n, 0, sizeof(*n));
        return rc;
}

static int decode_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        struct decode *d = decode_of(op);

        (void)k;
        (void)err;
        for (size_t i = 0; i < d->start_count; i++) {
                struct start *s = &d->starts[i];
                uint8_t key[10] = {op->ctx.ns, 'S'}, value[16];

                if (!s->dirty)
                        continue;
                for (int j = 0; j < 8; j++) {
                        key[2 + j] = (uint8_t)(s->id >> (56 - 8 * j));
                        value[j] = (uint8_t)(s->seen >> (56 - 8 * j));
                        value[8 + j] = (uint8_t)(s->last_used >> (56 - 8 * j));
                }
                df_store_put(op->ctx.store, df_bytes(key, sizeof(key)),
                             df_bytes(value, sizeof(value)));
                s->dirty = false;
        }
        return 0;
}

static void decode_close(struct df_operator *op)
{
        struct decode *d = (struct decode *)op;

        free(d->batch);
        d->batch = NULL;
        df_buf_release(&d->import_strings);
}

const struct df_operator_ops ad_op_decode = {
        .name = "decode",
        .state_version = 1,
        .size = sizeof(struct decode),
        .open = decode_open,
        .restore = decode_restore,
        .process = decode_process,
        .on_cut = decode_on_cut,
        .snapshot = decode_snapshot,
        .close = decode_close,
};
