/* core_test.h - toy operators, a reader and a naive recount, for test_task.c and test_commit.c.
 *
 * A toy record is 'B' generation, 'E', or 'D' and entries {key u8, time i64be}. The chain:
 *   meter   judges time, moves the clock, notes how many events it saw since the last cut
 *   tally   counts each key and tells the exchange: partition key % P gets {key, count}, each once
 *   minutes counts each minute; at a cut sends changed minutes, at most rows_per_cut of them
 */
#ifndef ADTALLY_TESTS_CORE_TEST_H
#define ADTALLY_TESTS_CORE_TEST_H

#include <stdio.h>
#include <stdlib.h>

#include "df/sim.h"
#include "df/task.h"

#define MINUTE 60000LL
#define BASE_MS 1764000000000LL /* a full minute */
#define KEYS 8
#define MINUTES 256
#define GRACE_MS 30000

enum { OUT_EXCHANGE, OUT_ROWS, OUTPUTS };
enum { TOY_KIND = DF_KIND_USER };
enum { TOY_COUNTED = 1, TOY_REFUSED = 2 };

#define ok(call)                                                                                   \
        do {                                                                                       \
                struct df_error err_ = {0};                                                        \
                struct df_error *err = &err_;                                                      \
                if ((call) != 0)                                                                   \
                        fail_msg("%s:%d %s: %d %s", __FILE__, __LINE__, #call, err->code,          \
                                 err->text);                                                       \
        } while (0)
#define refused(want, part, call)                                                                  \
        do {                                                                                       \
                struct df_error err_ = {0};                                                        \
                struct df_error *err = &err_;                                                      \
                int rc_ = (call);                                                                  \
                if (rc_ != (want) || err->code != (want) || !strstr(err->text, part))              \
                        fail_msg("%s:%d %s: %d \"%s\", not %d with \"%s\"", __FILE__, __LINE__,    \
                                 #call, rc_, err->text, want, part);                               \
        } while (0)

struct toy_event {
        int64_t ms;
        uint8_t key;
        bool dead;
};
struct toy_params {
        uint32_t rows_per_cut;  /* 0 = no limit */
        size_t payload_bytes;   /* of an exchange payload; 0 = 9 */
        const char *fail_in;    /* "process", "on_cut", "snapshot", "open", "restore" or NULL */
        uint64_t batches, told; /* calls so far */
};

static inline int toy_fails(struct df_operator *op, const char *where, struct df_error *err)
{
        const struct toy_params *p = op->ctx.params;

        if (p && p->fail_in && strcmp(p->fail_in, where) == 0)
                return df_fail(err, DF_EIO, "%s fails", where);
        return 0;
}
static inline void toy_close(struct df_operator *op)
{
        assert_int_equal(op->magic, DF_OPERATOR_MAGIC);
}
static inline int toy_open(struct df_operator *op, struct df_error *err)
{
        return toy_fails(op, "open", err);
}

/* ---- meter ---- */
struct meter {
        struct df_operator op;
        uint64_t seen;
};
static inline int meter_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                                struct df_error *err)
{
        struct meter *m = (struct meter *)op;
        const struct df_record *records = batch->items;

        assert_int_equal(batch->kind, DF_KIND_RECORDS);
        assert_true(batch->count > 0);
        ((struct toy_params *)(uintptr_t)op->ctx.params)->batches++;
        for (size_t i = 0; i < batch->count; i++) {
                struct df_reader r = df_reader(records[i].value);
                struct df_batch events = {TOY_KIND, NULL, 0};
                struct toy_event *e;

                df_clock_record(op->ctx.clock, records[i].append_ms);
                if (df_get_u8(&r) != 'D')
                        continue;
                events.count = df_reader_left(&r) / 9;
                events.items = e = df_arena_zalloc(op->ctx.arena, events.count * sizeof(*e) + 1);
                for (size_t j = 0; j < events.count; j++) {
                        e[j].key = df_get_u8(&r);
                        e[j].ms = (int64_t)df_get_u64be(&r);
                        e[j].dead = df_clock_judge(op->ctx.clock, op->ctx.rules, e[j].ms,
                                                   e[j].ms) != DF_CLOCK_OK;
                        df_out_count(out, e[j].dead ? TOY_REFUSED : TOY_COUNTED, 1);
                }
                m->seen += events.count;
                df_out_count_records(out, events.count, 0, events.count == 0);
                df_out_versions(out, 7, 9);
                int rc = df_out_forward(out, &events, err);
                if (rc < 0)
                        return rc;
        }
        return toy_fails(op, "process", err);
}
static inline int meter_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        struct meter *m = (struct meter *)op;
        uint8_t note[8];

        for (int i = 0; i < 8; i++)
                note[i] = (uint8_t)(m->seen >> (8 * i));
        m->seen = 0;
        int rc = df_out_note(out, df_bytes(note, sizeof(note)), err);
        return rc < 0 ? rc : toy_fails(op, "on_cut", err);
}
static const struct df_operator_ops toy_meter = {
        .name = "meter",
        .state_version = 1,
        .size = sizeof(struct meter),
        .open = toy_open,
        .process = meter_process,
        .on_cut = meter_on_cut,
        .close = toy_close,
};

/* ---- tally ---- */
struct tally {
        struct df_operator op;
        uint64_t counts[KEYS];
        bool dirty[KEYS];
};
static inline int tally_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                                struct df_error *err)
{
        const struct toy_params *p = op->ctx.params;
        struct tally *t = (struct tally *)op;
        const struct toy_event *e = batch->items;

        for (size_t i = 0; i < batch->count; i++) {
                struct df_buf b = {0};

                if (e[i].dead)
                        continue;
                t->counts[e[i].key]++;
                t->dirty[e[i].key] = true;
                df_put_u8(&b, e[i].key);
                df_put_u64be(&b, t->counts[e[i].key]);
                while (b.len < p->payload_bytes)
                        df_put_u8(&b, 0);
                int rc = df_out_emit(out, OUT_EXCHANGE, e[i].key % op->ctx.partitions,
                                     df_buf_bytes(&b), err);
                df_buf_release(&b);
                if (rc < 0)
                        return rc;
        }
        return df_out_forward(out, batch, err);
}
static inline int tally_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        struct tally *t = (struct tally *)op;

        (void)k;
        for (uint8_t i = 0; i < KEYS; i++) {
                uint8_t key[2] = {op->ctx.ns, i}, value[8];

                for (int j = 0; j < 8; j++)
                        value[j] = (uint8_t)(t->counts[i] >> (8 * j));
                if (t->dirty[i])
                        df_store_put(op->ctx.store, df_bytes(key, 2), df_bytes(value, 8));
                t->dirty[i] = false;
        }
        return toy_fails(op, "snapshot", err);
}
static inline int tally_load(void *arg, struct df_bytes key, struct df_bytes value,
                             struct df_error *err)
{
        struct tally *t = arg;
        struct df_reader r = df_reader(value);

        (void)err;
        t->counts[key.data[1]] = df_get_u64le(&r);
        return 0;
}
static inline int tally_restore(struct df_operator *op, struct df_error *err)
{
        int rc = df_store_scan(op->ctx.store, df_bytes(&op->ctx.ns, 1), tally_load, op, err);

        return rc < 0 ? rc : toy_fails(op, "restore", err);
}
static const struct df_operator_ops toy_tally = {
        .name = "tally",
        .state_version = 1,
        .size = sizeof(struct tally),
        .open = toy_open,
        .restore = tally_restore,
        .process = tally_process,
        .snapshot = tally_snapshot,
        .close = toy_close,
};

/* ---- minutes ---- */
struct minutes {
        struct df_operator op;
        uint64_t counts[MINUTES];
        uint8_t state[MINUTES]; /* 0 = none, 1 = sent, 2 = to be sent */
        bool touched[MINUTES];
        int64_t watermark_ms; /* as told */
};
static inline int64_t minute_end(size_t i)
{
        return BASE_MS + ((int64_t)i + 1) * MINUTE;
}
static inline int minutes_open(struct df_operator *op, struct df_error *err)
{
        ((struct minutes *)op)->watermark_ms = DF_TIME_MIN;
        return toy_fails(op, "open", err);
}
static inline int minutes_process(struct df_operator *op, struct df_batch *batch,
                                  struct df_out *out, struct df_error *err)
{
        struct minutes *m = (struct minutes *)op;
        const struct toy_event *e = batch->items;

        for (size_t i = 0; i < batch->count; i++) {
                size_t at = (size_t)((e[i].ms - BASE_MS) / MINUTE);

                if (e[i].dead)
                        continue;
                assert_true(at < MINUTES);
                m->counts[at]++;
                m->state[at] = 2;
                m->touched[at] = true;
                *op->ctx.next_news_ms = DF_TIME_MIN;
        }
        return df_out_forward(out, batch, err);
}
static inline int minutes_on_watermark(struct df_operator *op, int64_t ms, struct df_error *err)
{
        struct minutes *m = (struct minutes *)op;

        (void)err;
        assert_true(ms > m->watermark_ms || m->watermark_ms == DF_TIME_MAX); /* a new generation */
        assert_true(ms == op->ctx.clock->watermark_ms);
        m->watermark_ms = ms;
        ((struct toy_params *)(uintptr_t)op->ctx.params)->told++;
        return 0;
}
static inline bool minutes_settled(const struct df_operator *op, size_t i)
{
        int64_t wm = op->ctx.clock->watermark_ms;

        return wm != DF_TIME_MIN && wm >= minute_end(i) + GRACE_MS;
}
static inline int minutes_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        const struct toy_params *p = op->ctx.params;
        struct minutes *m = (struct minutes *)op;
        uint32_t sent = 0;
        bool full = false;

        for (size_t i = 0; i < MINUTES; i++) {
                uint8_t row[16];

                if (m->state[i] == 1 && *op->ctx.resend_all) {
                        m->state[i] = 2;
                        m->touched[i] = true;
                }
                if (m->state[i] == 2 && (p->rows_per_cut == 0 || sent < p->rows_per_cut)) {
                        for (int j = 0; j < 8; j++) {
                                row[j] = (uint8_t)((uint64_t)i >> (8 * j));
                                row[8 + j] = (uint8_t)(m->counts[i] >> (8 * j));
                        }
                        int rc = df_out_emit(out, OUT_ROWS, op->ctx.partition, df_bytes(row, 16),
                                             err);
                        if (rc < 0)
                                return rc;
                        sent++;
                        m->state[i] = 1;
                        m->touched[i] = true;
                } else if (m->state[i] == 2 && !full) {
                        full = true;
                        df_out_more(out);
                        df_out_hold(out, minute_end(i) - MINUTE);
                }
                if (m->state[i] == 1 && !full && minutes_settled(op, i)) {
                        m->state[i] = 0;
                        m->counts[i] = 0;
                        m->touched[i] = true;
                }
        }
        *op->ctx.next_news_ms = DF_TIME_MAX;
        for (size_t i = 0; i < MINUTES; i++) {
                int64_t at = m->state[i] == 2 ? DF_TIME_MIN : minute_end(i) + GRACE_MS;

                if (m->state[i] && at < *op->ctx.next_news_ms)
                        *op->ctx.next_news_ms = at;
        }
        return 0;
}
static inline int minutes_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        struct minutes *m = (struct minutes *)op;

        (void)k;
        (void)err;
        for (size_t i = 0; i < MINUTES; i++) {
                uint8_t key[2] = {op->ctx.ns, (uint8_t)i}, value[9];

                if (!m->touched[i])
                        continue;
                m->touched[i] = false;
                for (int j = 0; j < 8; j++)
                        value[j] = (uint8_t)(m->counts[i] >> (8 * j));
                value[8] = m->state[i];
                if (m->state[i])
                        df_store_put(op->ctx.store, df_bytes(key, 2), df_bytes(value, 9));
                else
                        df_store_del(op->ctx.store, df_bytes(key, 2));
        }
        return 0;
}
static inline int minutes_load(void *arg, struct df_bytes key, struct df_bytes value,
                               struct df_error *err)
{
        struct minutes *m = arg;
        struct df_reader r = df_reader(value);

        (void)err;
        m->counts[key.data[1]] = df_get_u64le(&r);
        m->state[key.data[1]] = df_get_u8(&r);
        if (m->state[key.data[1]] == 2)
                *m->op.ctx.more = true;
        return 0;
}
static inline int minutes_restore(struct df_operator *op, struct df_error *err)
{
        struct minutes *m = (struct minutes *)op;

        m->watermark_ms = op->ctx.clock->watermark_ms;
        *op->ctx.next_news_ms = DF_TIME_MIN;
        return df_store_scan(op->ctx.store, df_bytes(&op->ctx.ns, 1), minutes_load, op, err);
}
static const struct df_operator_ops toy_minutes = {
        .name = "minutes",
        .state_version = 1,
        .size = sizeof(struct minutes),
        .open = minutes_open,
        .restore = minutes_restore,
        .process = minutes_process,
        .on_watermark = minutes_on_watermark,
        .on_cut = minutes_on_cut,
        .snapshot = minutes_snapshot,
        .close = toy_close,
};

static const struct df_operator_ops *const toy_chain[] = {&toy_meter, &toy_tally, &toy_minutes};

static inline enum df_control toy_control(struct df_bytes value, uint64_t *ret_generation)
{
        struct df_reader r = df_reader(value);
        uint8_t kind = df_get_u8(&r);

        if (kind == 'B')
                *ret_generation = df_get_u64be(&r);
        return kind == 'B' ? DF_CONTROL_BEGIN : kind == 'E' ? DF_CONTROL_END : DF_CONTROL_NONE;
}

static inline void toy_config(struct df_task_config *c, struct toy_params *params,
                              uint32_t partition, uint32_t partitions, uint64_t generation)
{
        *c = (struct df_task_config){
                .source = {.stream = "toys", .generation = generation, .partition = partition},
                .partitions = partitions,
                .chain = toy_chain,
                .chain_length = 3,
                .params = params,
                .outputs = {[OUT_EXCHANGE] = {"exchange", true, partitions},
                            [OUT_ROWS] = {"rows", false, partitions}},
                .output_count = OUTPUTS,
                .rules = {.out_of_orderness_ms = 1000,
                          .receive_ahead_max_ms = 10000,
                          .receive_behind_max_ms = 3600000,
                          .future_max_ms = 300000,
                          .accepted_age_ms = 7LL * 86400000},
                .grace_ms = GRACE_MS,
                .config = 77,
                .binary_version = "toy-1",
        };
}

/* ---- records ---- */
static inline void toy_data(struct df_buf *b, struct df_sim_random *r, size_t events, int64_t *now)
{
        df_put_u8(b, 'D');
        for (size_t i = 0; i < events; i++) {
                *now += df_sim_random_between(r, 0, 4000);
                df_put_u8(b, (uint8_t)df_sim_random_below(r, KEYS));
                int64_t ms = *now - df_sim_random_between(r, 0, 20000);
                if (df_sim_random_chance(r, 20)) /* T2: refused, moves nothing */
                        ms = *now + 7200000;
                df_put_u64be(b, (uint64_t)(ms < BASE_MS ? BASE_MS : ms));
        }
}
static inline void toy_begin(struct df_buf *b, uint64_t generation)
{
        df_put_u8(b, 'B');
        df_put_u64be(b, generation);
}

/* ---- the naive recount: of accepted events, from the raw records ---- */
struct recount {
        uint64_t keys[KEYS];
        uint64_t minutes[MINUTES];
        uint64_t events, refused, records;
};
static inline void recount(struct recount *n, const struct df_record *records, size_t count,
                           bool bounded)
{
        int64_t append = INT64_MIN, receive = INT64_MIN;

        for (size_t i = 0; i < count; i++) {
                struct df_reader r = df_reader(records[i].value);

                n->records++;
                append = records[i].append_ms > append ? records[i].append_ms : append;
                if (df_get_u8(&r) != 'D')
                        continue;
                while (df_reader_left(&r) > 0) {
                        uint8_t key = df_get_u8(&r);
                        int64_t ms = (int64_t)df_get_u64be(&r);

                        n->events++;
                        if (!bounded && (ms > append + 10000 ||
                                         (receive != INT64_MIN && ms < receive - 3600000))) {
                                n->refused++;
                                continue;
                        }
                        receive = ms > receive ? ms : receive;
                        n->keys[key]++;
                        n->minutes[(ms - BASE_MS) / MINUTE]++;
                }
        }
}

/* ---- the reader ---- */
#define DIGESTS 512
struct reading {             /* of all outputs of one source partition */
        uint64_t told[KEYS]; /* newest count of each key */
        uint64_t minutes[MINUTES];
        uint64_t events, refused, noted, records, rows, payloads, seals;
        uint64_t repeated;
        struct df_seal last; /* of rows */
        struct df_source last_source;
        uint64_t last_k, chain_breaks;
        struct df_hash128 digests[DIGESTS]; /* of each k */
};
static inline void read_collection(struct reading *v, uint32_t output,
                                   const struct df_collection *c)
{
        /* K6: one checkpoint, one digest, whichever output tells of it */
        assert_true(c->origin.k < DIGESTS);
        if (v->digests[c->origin.k].lo == 0)
                v->digests[c->origin.k] = c->seal.digest;
        assert_true(df_hash128_eq(v->digests[c->origin.k], c->seal.digest));
        if (output == OUT_ROWS) {
                struct df_reader note = df_reader(c->seal.note);
                bool same = v->last_k > 0 && df_source_eq(&v->last_source, &c->origin.source);

                v->seals++;
                v->noted += df_get_u64le(&note);
                v->events += c->seal.events;
                v->records += c->seal.records;
                v->refused += c->seal.outcomes[TOY_REFUSED];
                assert_int_equal(c->seal.outcomes[TOY_REFUSED] + c->seal.outcomes[TOY_COUNTED],
                                 c->seal.events);
                if (same ? c->seal.parent_k != v->last_k ||
                                    !df_hash128_eq(c->seal.parent_digest, v->last.digest) ||
                                    c->seal.from_offset != v->last.to_offset
                         : c->seal.parent_k != 0)
                        v->chain_breaks++;
                if (same) /* W4: never back */
                        assert_true(c->seal.final_through_ms >= v->last.final_through_ms);
                v->last = c->seal;
                v->last.note = df_bytes(NULL, 0);
                v->last_k = c->origin.k;
                v->last_source = c->origin.source;
        }
        for (size_t i = 0; i < c->count; i++) {
                struct df_reader r = df_reader(c->payloads[i]);

                v->payloads++;
                if (output == OUT_ROWS) {
                        size_t at = (size_t)df_get_u64le(&r);
                        v->minutes[at] = df_get_u64le(&r);
                        v->rows++;
                } else {
                        uint8_t key = df_get_u8(&r);
                        if (df_get_u64be(&r) != v->told[key] + 1)
                                fail_msg("key %u: count %llu is not followed by the next", key,
                                         (unsigned long long)v->told[key]);
                        v->told[key]++;
                }
        }
}
static inline void compare(const struct reading *v, const struct recount *n, uint64_t seed)
{
        for (size_t i = 0; i < KEYS; i++)
                if (v->told[i] != n->keys[i])
                        fail_msg("seed %llu: key %zu was told %llu times, recount %llu",
                                 (unsigned long long)seed, i, (unsigned long long)v->told[i],
                                 (unsigned long long)n->keys[i]);
        for (size_t i = 0; i < MINUTES; i++)
                if (v->minutes[i] != n->minutes[i])
                        fail_msg("seed %llu: minute %zu has %llu, recount %llu",
                                 (unsigned long long)seed, i, (unsigned long long)v->minutes[i],
                                 (unsigned long long)n->minutes[i]);
        assert_int_equal(v->events, n->events);
        assert_int_equal(v->refused, n->refused);
        assert_int_equal(v->records, n->records);
        assert_int_equal(v->noted, n->events);
        assert_int_equal(v->chain_breaks, 0);
}

#endif
