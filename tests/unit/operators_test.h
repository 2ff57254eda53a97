/* operators_test.h - a rig for the operators of the main job: a log of records, a task whose chain
 * ends in a sink that notes what reaches it, and everything that its checkpoints emit.
 *
 * Order: rig_open, { rig_log, rig_run, rig_cut, rig_restart }*, rig_close. Failures end the test.
 */
#ifndef ADTALLY_TESTS_OPERATORS_TEST_H
#define ADTALLY_TESTS_OPERATORS_TEST_H

#include <stdio.h>
#include <stdlib.h>

#include "df/sim.h"
#include "df/task.h"
#include "operators/ops.h"

#define RIG_T0 1764000000000ll /* 2025-11-24, a full minute */
#define RIG_GENERATION 77

struct rig_event { /* as it reached the sink */
        uint64_t offset;
        int64_t receive_ms, event_ms, append_ms, watermark_ms, cost_nanos;
        uint32_t index, outcome, bill_outcome, flags, type, price_version;
        char event_id[AD_EVENT_ID_MAX + 1];
        char currency[4];
};

struct rig;
struct rig_params {
        struct ad_params base; /* what the operators see */
        struct rig *rig;
};

struct rig {
        struct rig_params params;
        struct df_task_config config;
        const struct df_operator_ops *chain[DF_CHAIN_MAX];
        struct df_store *store;
        struct df_task *task;
        struct df_arena memory; /* the log's bytes, as long as the rig */
        struct df_record *records;
        size_t record_count, record_cap;
        struct rig_event *seen;
        size_t seen_count, seen_cap;
        /* Of all cuts: payloads by output, each u32le length and bytes. */
        struct df_buf emitted[AD_OUT_BILL_COUNT];
        size_t emitted_count[AD_OUT_BILL_COUNT];
        uint64_t outcomes[DF_OUTCOMES_MAX]; /* sum over the seals */
        uint64_t events, poison_records, heartbeats;
        struct df_seal seal; /* the last one; its note is in note */
        struct ad_note note;
        struct df_buf note_bytes;
        size_t cut_rows; /* payloads of the last cut */
};

static inline int sink_open(struct df_operator *op, struct df_error *err)
{
        (void)op;
        (void)err;
        return 0;
}
static inline void sink_close(struct df_operator *op)
{
        (void)op;
}
static inline void rig_copy(char *to, size_t size, struct df_bytes from)
{
        assert_true(from.len < size);
        if (from.len)
                memcpy(to, from.data, from.len);
        to[from.len] = 0;
}
static inline int sink_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                               struct df_error *err)
{
        struct rig *r = ((const struct rig_params *)op->ctx.params)->rig;
        const struct ad_event *events = batch->items;

        assert_int_equal(batch->kind, AD_KIND_EVENTS);
        for (size_t i = 0; i < batch->count; i++) {
                const struct ad_event *ev = &events[i];
                struct rig_event *to;

                if (r->seen_count == r->seen_cap) {
                        r->seen_cap = r->seen_cap ? 2 * r->seen_cap : 256;
                        r->seen = realloc(r->seen, r->seen_cap * sizeof(*r->seen));
                        assert_non_null(r->seen);
                }
                to = &r->seen[r->seen_count++];
                memset(to, 0, sizeof(*to)); /* compared with memcmp */
                to->offset = ev->offset;
                to->receive_ms = ev->receive_ms;
                to->event_ms = ev->event_ms;
                to->append_ms = ev->append_ms;
                to->watermark_ms = ev->watermark_ms;
                to->cost_nanos = ev->cost_nanos;
                to->index = ev->index;
                to->outcome = ev->outcome;
                to->bill_outcome = ev->bill_outcome;
                to->flags = ev->flags;
                to->type = ev->type;
                to->price_version = ev->price_version;
                rig_copy(to->event_id, sizeof(to->event_id), ev->event_id);
                rig_copy(to->currency, sizeof(to->currency), ev->currency);
        }
        return df_out_forward(out, batch, err);
}
static const struct df_operator_ops rig_sink = {
        .name = "sink",
        .state_version = 1,
        .size = sizeof(struct df_operator),
        .open = sink_open,
        .process = sink_process,
        .close = sink_close,
};

static inline int rig_create(struct rig *r, struct df_error *err)
{
        return df_task_create(&r->config, r->store, &r->task, err);
}

/* Sets defaults; change r->params and r->config between rig_prepare and rig_start. */
static inline void rig_prepare(struct rig *r, const struct df_operator_ops *const *ops,
                               size_t count)
{
        memset(r, 0, sizeof(*r));
        r->params = (struct rig_params){
                .base = {.grace_ms = AD_GRACE_MS,
                         .horizon_hours = AD_DEDUPE_HORIZON_HOURS,
                         .dedupe_open_ids = 1000,
                         .cell_cap = AD_CELL_CAP,
                         .groupings = &ad_groupings_default},
                .rig = r,
        };
        memcpy(r->chain, ops, count * sizeof(r->chain[0]));
        r->chain[count] = &rig_sink;
        r->config = (struct df_task_config){
                .source = {.stream = "events", .generation = RIG_GENERATION},
                .partitions = 1,
                .chain = r->chain,
                .chain_length = count + 1,
                .params = &r->params,
                .outputs = {{.topic = "late", .partitions = 1},
                            {.topic = "quarantine", .partitions = 1},
                            {.topic = "rollups", .partitions = 1},
                            {.topic = "bill", .partitions = 1}},
                .output_count = AD_OUT_COUNT,
                .rules = {.out_of_orderness_ms = AD_OUT_OF_ORDERNESS_MS,
                          .receive_ahead_max_ms = AD_RECEIVE_AHEAD_MAX_MS,
                          .receive_behind_max_ms = AD_RECEIVE_BEHIND_MAX_MS,
                          .future_max_ms = AD_FUTURE_MAX_MS,
                          .accepted_age_ms = AD_ACCEPTED_AGE_MS},
                .grace_ms = AD_GRACE_MS,
                .config = 1,
                .binary_version = "test",
                .control = ad_control,
        };
        df_arena_init(&r->memory, 0);
        r->store = df_sim_store_create(NULL);
        assert_non_null(r->store);
}

static inline void rig_start(struct rig *r)
{
        struct df_error err = {0};

        if (rig_create(r, &err) < 0)
                fail_msg("%s", err.text);
}

static inline void rig_open(struct rig *r, const struct df_operator_ops *const *ops, size_t count)
{
        rig_prepare(r, ops, count);
        rig_start(r);
}

static inline void rig_close(struct rig *r)
{
        df_task_destroy(r->task);
        df_sim_store_destroy(r->store);
        df_arena_release(&r->memory);
        for (int i = 0; i < AD_OUT_BILL_COUNT; i++)
                df_buf_release(&r->emitted[i]);
        df_buf_release(&r->note_bytes);
        free(r->records);
        free(r->seen);
}

/* ---- the log ---- */

static inline void rig_log_raw(struct rig *r, struct df_bytes value, int64_t append_ms)
{
        if (r->record_count == r->record_cap) {
                r->record_cap = r->record_cap ? 2 * r->record_cap : 64;
                r->records = realloc(r->records, r->record_cap * sizeof(*r->records));
                assert_non_null(r->records);
        }
        r->records[r->record_count] = (struct df_record){
                .offset = r->record_count,
                .append_ms = append_ms,
                .value = df_arena_copy(&r->memory, value),
        };
        r->record_count++;
}

static inline void rig_encode(struct df_buf *b, const struct ad_batch *header,
                              const struct ad_event *events, size_t count)
{
        struct df_buf one = {0};

        for (size_t i = 0; i < count; i++) {
                df_buf_clear(&one);
                ad_wire_event(&one, &events[i]);
                ad_wire_batch_entry(b, df_buf_bytes(&one));
        }
        ad_wire_batch_header(b, header);
        assert_false(b->failed || one.failed);
        df_buf_release(&one);
}

static inline void rig_log(struct rig *r, const struct ad_batch *header,
                           const struct ad_event *events, size_t count, int64_t append_ms)
{
        struct df_buf b = {0};

        rig_encode(&b, header, events, count);
        rig_log_raw(r, df_buf_bytes(&b), append_ms);
        df_buf_release(&b);
}

/* An impression of campaign c1 with this id, received when it happened; id is borrowed. */
static inline struct ad_event rig_event(const char *id, int64_t ms)
{
        struct ad_event ev = {
                .event_id = df_bytes_str(id),
                .tenant_id = df_bytes_str("t1"),
                .currency = df_bytes_str("EUR"),
                .event_ms = ms,
                .receive_ms = ms,
                .cost_nanos = 1500000,
                .type = AD_IMPRESSION,
                .flags = AD_EV_HAS_COST,
                .schema_version = AD_SCHEMA_VERSION,
        };

        ev.dims[AD_DIM_ADVERTISER] = df_bytes_str("a1");
        ev.dims[AD_DIM_CAMPAIGN] = df_bytes_str("c1");
        ev.fingerprint = ad_event_fingerprint(&ev);
        return ev;
}

/* One event, a record of its own, appended when it was received. */
static inline void rig_log_event(struct rig *r, const struct ad_event *ev)
{
        rig_log(r, &(struct ad_batch){0}, ev, 1, ev->receive_ms);
}

static inline void rig_log_heartbeat(struct rig *r, int64_t receive_ms, int64_t append_ms)
{
        struct ad_batch b = {.has_heartbeat = true, .heartbeat = {.receive_ms = receive_ms}};

        rig_log(r, &b, NULL, 0, append_ms);
}

/* ---- running ---- */

static inline int rig_try(struct rig *r, size_t max_records, struct df_error *err)
{
        for (;;) {
                size_t at = (size_t)df_task_position(r->task), used = 0;
                size_t n = r->record_count - at;
                int rc;

                if (n == 0)
                        return 0;
                rc = df_task_process(r->task, r->records + at, n < max_records ? n : max_records,
                                     &used, err);
                if (rc < 0)
                        return rc;
                if (used == 0)
                        return 0; /* it wants a checkpoint first */
        }
}

static inline void rig_collect(struct rig *r, const struct df_collection_info *c)
{
        const struct df_bytes *records;
        struct df_error err = {0};
        size_t count = 0;

        if (df_task_publish(r->task, c, 1, &records, &count, &err) < 0)
                fail_msg("%s", err.text);
        assert_int_equal(count, c->rows + 1);
        for (size_t i = 0; i < count; i++) {
                struct df_output o;

                if (df_output_decode(records[i], &o, &err) < 0)
                        fail_msg("%s", err.text);
                assert_int_equal(o.is_seal, i == count - 1);
                if (o.is_seal) {
                        r->seal = o.seal;
                        continue;
                }
                df_put_u32le(&r->emitted[c->output], (uint32_t)o.payload.len);
                df_buf_append(&r->emitted[c->output], o.payload.data, o.payload.len);
                r->emitted_count[c->output]++;
                r->cut_rows++;
        }
        df_buf_clear(&r->note_bytes);
        df_buf_append(&r->note_bytes, r->seal.note.data, r->seal.note.len);
}

static inline void rig_cut(struct rig *r)
{
        const struct df_collection_info *c;
        struct df_error err = {0};
        size_t count;

        if (df_task_cut(r->task, &err) < 0)
                fail_msg("%s", err.text);
        c = df_task_collections(r->task, &count);
        assert_int_equal(count, r->config.output_count);
        r->cut_rows = 0;
        for (size_t i = 0; i < count; i++)
                rig_collect(r, &c[i]);
        for (int i = 0; i < DF_OUTCOMES_MAX; i++)
                r->outcomes[i] += r->seal.outcomes[i];
        r->events += r->seal.events;
        r->poison_records += r->seal.poison_records;
        r->heartbeats += r->seal.heartbeats;
        r->seal.note = df_buf_bytes(&r->note_bytes);
        if (ad_wire_note_decode(r->seal.note, &r->note, &err) < 0)
                fail_msg("%s", err.text);
        df_task_committed(r->task);
}

/* Everything that is in the log, at most max_records a call; a checkpoint where the task asks. */
static inline void rig_run(struct rig *r, size_t max_records)
{
        struct df_error err = {0};

        do {
                if (df_task_wants_cut(r->task))
                        rig_cut(r);
                if (rig_try(r, max_records, &err) < 0)
                        fail_msg("%s", err.text);
        } while (df_task_position(r->task) < r->record_count);
}

/* The process ends; another restores the last cut (and reads again what came after it). */
static inline void rig_restart(struct rig *r)
{
        df_task_destroy(r->task);
        df_store_rollback(r->store);
        r->task = NULL;
        rig_start(r);
        df_task_committed(r->task); /* all of it was published */
}

/* The only quarantined entry number n; borrowed from the rig. */
struct rig_find {
        size_t skip;
        bool found;
        struct ad_quarantined q;
};
static inline int rig_find_one(void *arg, const struct ad_quarantined *q, struct df_error *err)
{
        struct rig_find *f = arg;

        (void)err;
        if (f->skip-- == 0) {
                f->found = true;
                f->q = *q;
        }
        return 0;
}
static inline struct ad_quarantined rig_quarantined(struct rig *r, size_t n)
{
        struct df_reader reader = df_reader(df_buf_bytes(&r->emitted[AD_OUT_QUARANTINE]));
        struct rig_find f = {.skip = n};
        struct df_error err = {0};

        while (!f.found && df_reader_left(&reader) > 0) {
                struct df_bytes payload = df_get_bytes(&reader, df_get_u32le(&reader));

                if (ad_wire_quarantine_decode(payload, rig_find_one, &f, &err) < 0)
                        fail_msg("%s", err.text);
        }
        if (!f.found)
                fail_msg("quarantine has no entry %zu", n);
        return f.q;
}

#endif
