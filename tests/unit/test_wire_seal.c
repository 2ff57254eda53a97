/* test_wire_seal.c - outputs and seals (runtime/core/seal.c) and the note in a seal
 * (proto/wire_log.c) against the code that protoc generates from proto/log.proto. */
#include "unit.h"

#include "df/seal.h"
#include "wire_test.h"

#define SEEDS 300

/* ---- a seal's note ---- */

static void same_note(const Adtally__V1__SealNote *m, const struct ad_note *n)
{
        assert_int_equal(m->n_edges, n->edge_count);
        for (size_t i = 0; i < n->edge_count; i++) {
                const struct ad_edge *e = &n->edges[i];

                assert_int_equal(m->edges[i]->start_id, e->start_id);
                assert_int_equal(m->edges[i]->heartbeat_ms, e->heartbeat_ms);
                assert_int_equal(m->edges[i]->received, e->received);
                assert_int_equal(m->edges[i]->accepted, e->accepted);
                assert_int_equal(m->edges[i]->rejected, e->rejected);
                assert_int_equal(m->edges[i]->unanswered, e->unanswered);
                assert_int_equal(m->edges[i]->partition_accepted, e->partition_accepted);
                assert_int_equal(m->edges[i]->partition_seen, e->partition_seen);
                assert_int_equal(m->edges[i]->closing, e->closing);
        }
        assert_int_equal(m->import_begin != NULL, n->has_import_begin);
        if (m->import_begin) {
                assert_int_equal(m->import_begin->generation, n->import_begin.generation);
                same_text(m->import_begin->tenant_id, n->import_begin.tenant_id);
                same_text(m->import_begin->dataset, n->import_begin.dataset);
                assert_int_equal(m->import_begin->from_ms, n->import_begin.from_ms);
                assert_int_equal(m->import_begin->to_ms, n->import_begin.to_ms);
                assert_int_equal(m->import_begin->receive_time_ms, n->import_begin.receive_ms);
        }
        assert_int_equal(m->import_end != NULL, n->has_import_end);
        if (m->import_end) {
                assert_int_equal(m->import_end->generation, n->import_end.generation);
                assert_int_equal(m->import_end->rows, n->import_end.rows);
                assert_int_equal(m->import_end->aborted, n->import_end.aborted);
        }
        assert_int_equal(m->sequence_gaps, n->sequence_gaps);
        assert_int_equal(m->min_receive_ms, n->min_receive_ms);
        assert_int_equal(m->max_receive_ms, n->max_receive_ms);
}

static void random_note(struct random *r, struct ad_note *n, char *tenant, char *dataset)
{
        memset(n, 0, sizeof(*n));
        n->edge_count = below(r, 3) ? below(r, 4) : below(r, AD_NOTE_EDGES_MAX + 1);
        for (size_t i = 0; i < n->edge_count; i++)
                n->edges[i] = (struct ad_edge){number(r), signed_number(r), number(r),
                                               number(r), number(r),        number(r),
                                               number(r), number(r),        below(r, 2)};
        n->has_import_begin = below(r, 2);
        if (n->has_import_begin)
                n->import_begin = (struct ad_import_begin){number(r),
                                                           text(r, tenant, AD_ID_MAX),
                                                           text(r, dataset, AD_DATASET_MAX),
                                                           signed_number(r),
                                                           signed_number(r),
                                                           signed_number(r)};
        n->has_import_end = below(r, 2);
        if (n->has_import_end)
                n->import_end = (struct ad_import_end){number(r), number(r), below(r, 2)};
        n->sequence_gaps = number(r);
        n->min_receive_ms = signed_number(r);
        n->max_receive_ms = signed_number(r);
}

static int decode_note(struct df_bytes bytes, struct df_error *err)
{
        struct ad_note n;

        return ad_wire_note_decode(bytes, &n, err);
}

static void test_notes(void **state)
{
        char tenant[AD_ID_MAX + 1], dataset[AD_DATASET_MAX + 1];
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_note n, back;
                Adtally__V1__SealNote *m;
                struct df_bytes e;

                random_note(&r, &n, tenant, dataset);
                df_buf_clear(&b);
                ad_wire_note(&b, &n);
                assert_in_range(b.len, 0, 16u << 10); /* what a seal's note may hold */
                e = exact(b.data, b.len);
                m = adtally__v1__seal_note__unpack(NULL, e.len, e.data);
                assert_non_null(m);
                same_note(m, &n);
                same_bytes(e, &m->base, seed);
                ok(ad_wire_note_decode(e, &back, err));
                same_note(m, &back);
                if (e.len < 700)
                        check_truncation(e, decode_note, &adtally__v1__seal_note__descriptor, seed);
                check_unknown_fields(e, decode_note);
                check_damage(&r, e, decode_note);
                adtally__v1__seal_note__free_unpacked(m, NULL);
                exact_free(e);
        }
        df_buf_release(&b);
}

static void test_notes_one_beyond_their_limits(void **state)
{
        struct df_buf b = {0};
        struct ad_note n = {.edge_count = AD_NOTE_EDGES_MAX};
        struct df_error e = {0};

        (void)state;
        for (size_t i = 0; i < AD_NOTE_EDGES_MAX; i++)
                n.edges[i].start_id = i + 1;
        ad_wire_note(&b, &n);
        assert_int_equal(decode_note(df_buf_bytes(&b), &e), 0);
        df_buf_append(&b, "\x0a\x00", 2); /* one more, empty */
        assert_int_equal(decode_note(df_buf_bytes(&b), &e), DF_EPARSE);
        df_buf_release(&b);
}

/* ---- outputs and seals (K5, K6) ---- */

static struct df_hash128 random_hash(struct random *r)
{
        return (struct df_hash128){next(r), next(r)};
}

static void same_hash(ProtobufCBinaryData theirs, struct df_hash128 ours)
{
        uint8_t bytes[16];

        for (int i = 0; i < 8; i++) {
                bytes[i] = (uint8_t)(ours.lo >> 8 * i);
                bytes[8 + i] = (uint8_t)(ours.hi >> 8 * i);
        }
        assert_int_equal(theirs.len, 16);
        assert_memory_equal(theirs.data, bytes, 16);
}

static void random_seal(struct random *r, struct df_seal *s, char *note)
{
        *s = (struct df_seal){
                .parent_k = number(r),
                .parent_digest = random_hash(r),
                .digest = random_hash(r),
                .from_offset = number(r),
                .to_offset = number(r),
                .records = number(r),
                .poison_records = number(r),
                .heartbeats = number(r),
                .events = number(r),
                .rows = (uint32_t)number(r),
                .rows_digest = random_hash(r),
                .watermark_ms = below(r, 3) ? signed_number(r) : INT64_MIN,
                .max_append_ms = signed_number(r),
                .max_receive_ms = signed_number(r),
                .final_through_ms = below(r, 3) ? signed_number(r) : INT64_MAX,
                .config = number(r),
                .price_version = (uint32_t)number(r),
                .label_version = (uint32_t)number(r),
                .closed = below(r, 2),
                .note = text(r, note, 300),
        };
        (void)text(r, s->binary_version, DF_VERSION_MAX);
        for (uint32_t i = below(r, 2) ? 0 : DF_OUTCOMES_MAX; i < DF_OUTCOMES_MAX; i++)
                s->outcomes[i] = below(r, 2) ? number(r) : 0;
}

static void same_seal(const Adtally__V1__Seal *m, const struct df_seal *s)
{
        size_t outcomes = 0;

        assert_int_equal(m->parent_k, s->parent_k);
        same_hash(m->parent_digest, s->parent_digest);
        same_hash(m->digest, s->digest);
        assert_int_equal(m->from_offset, s->from_offset);
        assert_int_equal(m->to_offset, s->to_offset);
        for (uint32_t i = 0; i < DF_OUTCOMES_MAX; i++) {
                if (s->outcomes[i] == 0)
                        continue;
                assert_in_range(outcomes, 0, m->n_outcomes - 1);
                assert_int_equal(m->outcomes[outcomes]->reason, i);
                assert_int_equal(m->outcomes[outcomes++]->count, s->outcomes[i]);
        }
        assert_int_equal(m->n_outcomes, outcomes);
        assert_int_equal(m->records, s->records);
        assert_int_equal(m->poison_records, s->poison_records);
        assert_int_equal(m->heartbeats, s->heartbeats);
        assert_int_equal(m->events, s->events);
        assert_int_equal(m->rows, s->rows);
        same_hash(m->rows_digest, s->rows_digest);
        assert_int_equal(m->watermark_ms, s->watermark_ms);
        assert_int_equal(m->max_append_ms, s->max_append_ms);
        assert_int_equal(m->max_receive_ms, s->max_receive_ms);
        assert_int_equal(m->final_through_ms, s->final_through_ms);
        assert_int_equal(m->config, s->config);
        assert_int_equal(m->price_version, s->price_version);
        assert_int_equal(m->label_version, s->label_version);
        assert_string_equal(m->binary_version, s->binary_version);
        assert_int_equal(m->closed, s->closed);
        assert_true(df_bytes_eq(df_bytes(m->note.data, m->note.len), s->note));
}

static int decode_output(struct df_bytes bytes, struct df_error *err)
{
        struct df_output o;

        return df_output_decode(bytes, &o, err);
}

static void same_output(const Adtally__V1__Output *m, const struct df_output *o)
{
        assert_non_null(m->source);
        assert_string_equal(m->source->stream, o->origin.source.stream);
        assert_int_equal(m->source->generation, o->origin.source.generation);
        assert_int_equal(m->source->partition, o->origin.source.partition);
        assert_int_equal(m->k, o->origin.k);
        assert_int_equal(m->epoch, o->origin.epoch);
        assert_int_equal(m->n, o->origin.n);
        assert_int_equal(m->seal != NULL, o->is_seal);
        if (m->seal)
                same_seal(m->seal, &o->seal);
        assert_true(df_bytes_eq(df_bytes(m->payload.data, m->payload.len), o->payload));
}

static void test_outputs_and_seals(void **state)
{
        static char note[301], payload[1001];
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct df_output o = {.is_seal = below(&r, 2)}, back;
                Adtally__V1__Output *m;
                struct df_bytes e;

                (void)text(&r, o.origin.source.stream, DF_TOPIC_NAME_MAX);
                o.origin.source.generation = number(&r);
                o.origin.source.partition = (uint32_t)number(&r);
                o.origin.k = number(&r);
                o.origin.epoch = number(&r);
                o.origin.n = (uint32_t)number(&r);
                df_buf_clear(&b);
                if (o.is_seal) {
                        random_seal(&r, &o.seal, note);
                        df_output_encode_seal(&b, &o.origin, &o.seal);
                } else {
                        o.payload = text(&r, payload, 1000);
                        df_output_encode(&b, &o.origin, o.payload);
                }
                e = exact(b.data, b.len);
                m = adtally__v1__output__unpack(NULL, e.len, e.data);
                assert_non_null(m);
                same_output(m, &o);
                same_bytes(e, &m->base, seed);
                ok(df_output_decode(e, &back, err));
                same_output(m, &back);
                check_unknown_fields(e, decode_output);
                check_damage(&r, e, decode_output);
                for (size_t len = 0; len < e.len; len++) { /* cut short: never beyond its bytes */
                        struct df_bytes part = exact(e.data, len);
                        struct df_error err = {0};
                        int rc = decode_output(part, &err);

                        assert_true(rc == 0 || rc == DF_EPARSE);
                        exact_free(part);
                }
                adtally__v1__output__free_unpacked(m, NULL);
                exact_free(e);
        }
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_notes),
                cmocka_unit_test(test_notes_one_beyond_their_limits),
                cmocka_unit_test(test_outputs_and_seals),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
