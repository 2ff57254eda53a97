/* test_quarantine.c - E2: what must not be counted leaves with its address, its code and at most
 * 4 KiB, in log order, whoever ended it and however the log was cut into batches. */
#include "unit.h"

#include "tests/unit/operators_test.h"

#define PARTITIONS 3
#define GRACE_MS 120000
#define HEAD 4096
#define HOUR_MS 3600000

/* ---- what the topic must hold, by a list of our own ---- */

struct want {
        uint64_t offset;
        uint32_t index, reason;
        bool whole;
        int64_t append_ms;
        char id[24];
        struct df_bytes bytes; /* all of the event or record */
};
struct wants {
        struct want v[4000];
        size_t count;
};

struct got {
        const struct wants *wants;
        size_t at, in_payload;
        uint64_t seed;
};

static int check_entry(void *arg, const struct ad_quarantined *q, struct df_error *err)
{
        struct got *g = arg;
        const struct want *w = &g->wants->v[g->at];
        size_t head = w->bytes.len < HEAD ? w->bytes.len : HEAD;

        (void)err;
        if (g->at >= g->wants->count)
                fail_msg("seed %llu: %llu/%u (%s) is one too many", (unsigned long long)g->seed,
                         (unsigned long long)q->offset, q->index, ad_reason_info(q->reason)->code);
        if (q->offset != w->offset || q->index != w->index || q->reason != w->reason ||
            q->whole_record != w->whole)
                fail_msg("seed %llu: entry %zu is %llu/%u (%s), not %llu/%u (%s)",
                         (unsigned long long)g->seed, g->at, (unsigned long long)q->offset,
                         q->index, ad_reason_info(q->reason)->code, (unsigned long long)w->offset,
                         w->index, ad_reason_info(w->reason)->code);
        assert_int_equal(q->append_ms, w->append_ms);
        assert_int_equal(q->size, w->bytes.len);
        assert_true(df_bytes_eq(q->head, df_bytes(w->bytes.data, head)));
        assert_true(df_bytes_eq(q->event_id, df_bytes_str(w->id)));
        assert_true(df_bytes_eq(q->tenant_id, df_bytes_str(w->whole ? "" : "t1")));
        g->at++;
        g->in_payload++;
        return 0;
}

/* Everything quarantined so far is what was wanted, in this order, one entry a payload. */
static void check_quarantine(const struct rig *r, const struct wants *wants, uint64_t seed)
{
        struct df_reader reader = df_reader(df_buf_bytes(&r->emitted[AD_OUT_QUARANTINE]));
        struct got g = {.wants = wants, .seed = seed};
        struct df_error err = {0};

        while (df_reader_left(&reader) > 0) {
                g.in_payload = 0;
                if (ad_wire_quarantine_decode(df_get_bytes(&reader, df_get_u32le(&reader)),
                                              check_entry, &g, &err) < 0)
                        fail_msg("%s", err.text);
                assert_int_equal(g.in_payload, 1);
        }
        if (g.at != wants->count)
                fail_msg("seed %llu: %zu entries of %zu", (unsigned long long)seed, g.at,
                         wants->count);
}

static void want_event(struct wants *wants, struct rig *r, const struct ad_event *ev,
                       uint32_t index, uint32_t reason, int64_t append_ms)
{
        struct want *w = &wants->v[wants->count++];
        struct df_buf b = {0};

        assert_true(wants->count <= sizeof(wants->v) / sizeof(wants->v[0]));
        ad_wire_event(&b, ev);
        *w = (struct want){.offset = r->record_count,
                           .index = index,
                           .reason = reason,
                           .append_ms = append_ms,
                           .bytes = df_arena_copy(&r->memory, df_buf_bytes(&b))};
        rig_copy(w->id, sizeof(w->id), ev->event_id);
        df_buf_release(&b);
}

static void want_record(struct wants *wants, struct rig *r, struct df_bytes value,
                        int64_t append_ms)
{
        struct want *w = &wants->v[wants->count++];

        assert_true(wants->count <= sizeof(wants->v) / sizeof(wants->v[0]));
        *w = (struct want){.offset = r->record_count,
                           .reason = AD_POISON,
                           .whole = true,
                           .append_ms = append_ms,
                           .bytes = df_arena_copy(&r->memory, value)};
}

/* ---- a log in which the fate of each event is known when it is written ---- */

enum fate { COUNTED, DUPLICATE, LATE, CONFLICT, FOREIGN, AHEAD, STALE, FUTURE, OLD, INVALID, FREE };
static const uint32_t reasons[] = {
        [CONFLICT] = AD_CONFLICT,   [FOREIGN] = AD_WRONG_PARTITION, [AHEAD] = AD_CLOCK,
        [STALE] = AD_STALE_RECEIVE, [FUTURE] = AD_FUTURE_EVENT,     [OLD] = AD_TOO_OLD,
        [INVALID] = AD_INVALID,     [FREE] = AD_PRICE_MISSING,
};

struct author {
        struct rig *rig;
        struct df_sim_random random;
        struct wants *wants;
        int64_t now;
        int64_t max_receive; /* of what passes guard (T2) */
        int64_t max_on_time; /* of these, the greatest event time (T3) */
        uint64_t next_id;
        char (*texts)[24];
        size_t text_count;
        struct ad_event counted; /* the last one: what a duplicate or conflict repeats */
        struct df_bytes attributes;
        uint64_t poison, late, counts[AD_OUTCOME_MAX];
};

static uint64_t below(struct author *a, uint64_t n)
{
        return df_sim_random_below(&a->random, n);
}

/* A new id of this partition, or of another one. */
static const char *new_id(struct author *a, bool foreign)
{
        char *text = a->texts[a->text_count++];

        assert_true(a->text_count <= 40000);
        do {
                (void)snprintf(text, 24, "id-%llu", (unsigned long long)a->next_id++);
        } while ((ad_event_partition(ad_event_key(df_bytes_str("t1"), df_bytes_str(text)),
                                     PARTITIONS) == 0) == foreign);
        return text;
}

static void set_fate(struct author *a, struct ad_event *ev, enum fate fate)
{
        switch (fate) {
        case DUPLICATE:
        case CONFLICT:
                ev->event_id = a->counted.event_id;
                ev->fingerprint = a->counted.fingerprint + (fate == CONFLICT);
                break;
        case LATE:
                ev->event_ms = a->max_on_time - AD_OUT_OF_ORDERNESS_MS - GRACE_MS - 60000;
                break;
        case AHEAD:
                ev->receive_ms = a->now + 10001;
                break;
        case STALE:
                ev->receive_ms = a->max_receive - HOUR_MS - 1;
                break;
        case FUTURE:
                ev->event_ms = a->now + 300001;
                break;
        case OLD:
                ev->event_ms = a->now - 7 * 24 * (int64_t)HOUR_MS - 1;
                break;
        case INVALID:
                ev->payout_nanos = -1;
                ev->flags |= AD_EV_HAS_PAYOUT;
                break;
        case FREE:
                ev->flags &= ~(uint32_t)AD_EV_HAS_COST;
                ev->cost_nanos = 0;
                break;
        case COUNTED:
        case FOREIGN:
                break;
        }
}

static struct ad_event write_event(struct author *a, uint32_t index, enum fate fate)
{
        struct ad_event ev = rig_event(new_id(a, fate == FOREIGN), a->now);

        if (below(a, 20) == 0)
                ev.attributes = a->attributes;
        ev.fingerprint = a->next_id * 1000;
        set_fate(a, &ev, fate);
        if (fate == COUNTED || fate == CONFLICT) /* D1: with the last occurrence it is compared */
                a->counted = ev;
        if (fate <= CONFLICT || fate == FREE)
                a->max_receive = a->now;
        if ((fate <= CONFLICT && fate != LATE) || fate == FREE)
                a->max_on_time = a->now;
        if (fate >= CONFLICT)
                want_event(a->wants, a->rig, &ev, index, reasons[fate], a->now);
        a->counts[fate == COUNTED     ? AD_COUNTED
                  : fate == DUPLICATE ? AD_DUPLICATE
                  : fate == LATE      ? AD_LATE
                                      : reasons[fate]]++;
        return ev;
}

static void write_poison(struct author *a)
{
        static uint8_t junk[9000];
        struct df_bytes value = df_bytes(junk, 1 + (size_t)below(a, below(a, 4) ? 20 : 9000));

        memset(junk, 0xff, sizeof(junk));
        for (size_t i = 0; i < value.len; i++)
                junk[i] |= (uint8_t)below(a, 256);
        junk[0] = 0xff;
        want_record(a->wants, a->rig, value, a->now);
        rig_log_raw(a->rig, value, a->now);
        a->poison++;
}

static void write_log(struct author *a, int records)
{
        for (int i = 0; i < records; i++) {
                size_t n = below(a, 6) ? below(a, 8) : 50 + below(a, 60);
                struct ad_batch header = {.price_version = 1};
                struct ad_event events[120];

                a->now += 1 + (int64_t)below(a, 3000);
                if (below(a, 4) == 0) {
                        write_poison(a);
                        continue;
                }
                for (size_t j = 0; j < n; j++) {
                        uint64_t fates = below(a, 2) ? FREE + 1 : LATE; /* every second is good */
                        enum fate fate = (enum fate)below(a, fates);

                        events[j] = write_event(a, (uint32_t)j, fate);
                }
                if (n == 0) {
                        header.has_heartbeat = true;
                        header.heartbeat.receive_ms = a->now;
                        a->max_receive = a->max_on_time = a->now;
                }
                rig_log(a->rig, &header, events, n, a->now);
        }
}

static const struct ad_price_table *no_prices(void *arg, uint32_t version)
{
        static const struct ad_price_table table = {.version = 1};

        (void)arg;
        return version == 1 ? &table : NULL;
}

static void prepare(struct rig *r)
{
        rig_prepare(r, ad_chain_main, ad_chain_main_length);
        r->config.partitions = PARTITIONS;
        for (int i = 0; i < AD_OUT_COUNT; i++)
                r->config.outputs[i].partitions = PARTITIONS;
        r->params.base.grace_ms = r->config.grace_ms = GRACE_MS;
        r->params.base.pricing = AD_PRICE_CLIENT_ELSE_TABLE;
        r->params.base.price_table = no_prices;
        rig_start(r);
}

static struct df_bytes long_attributes(struct rig *r)
{
        static char value[AD_ATTRIBUTE_VALUE_MAX];
        struct df_buf b = {0};
        struct df_bytes ret;

        memset(value, 'v', sizeof(value));
        for (int i = 0; i < AD_ATTRIBUTES_MAX; i++) {
                size_t m = df_pb_begin(&b, 18);
                char key[2] = {(char)('a' + i), 'k'};

                value[7] = (char)('a' + i);
                df_pb_bytes(&b, 1, df_bytes(key, sizeof(key)));
                df_pb_bytes(&b, 2, df_bytes(value, sizeof(value)));
                df_pb_end(&b, m);
        }
        ret = df_arena_copy(&r->memory, df_buf_bytes(&b));
        assert_true(ret.len > HEAD);
        df_buf_release(&b);
        return ret;
}

struct cuts {
        size_t per_call, every;
        bool restart;
};

static void run_log(struct rig *r, const struct cuts *c)
{
        struct df_error err = {0};
        size_t since = 0;

        while (df_task_position(r->task) < r->record_count) {
                size_t at = (size_t)df_task_position(r->task), used = 0;
                size_t n = r->record_count - at < c->per_call ? r->record_count - at : c->per_call;

                if (df_task_process(r->task, r->records + at, n, &used, &err) < 0)
                        fail_msg("%s", err.text);
                since += used;
                if (since < c->every && !df_task_wants_cut(r->task))
                        continue;
                since = 0;
                rig_cut(r);
                if (c->restart)
                        rig_restart(r);
        }
        rig_cut(r);
}

static void run_seed(uint64_t seed, const struct cuts *c)
{
        struct wants *wants = calloc(1, sizeof(*wants));
        struct author a = {.wants = wants, .now = RIG_T0};
        struct rig r;

        a.texts = calloc(40000, sizeof(*a.texts));
        assert_true(wants && a.texts);
        prepare(&r);
        a.rig = &r;
        a.attributes = long_attributes(&r);
        df_sim_random_init(&a.random, seed);
        a.counted = write_event(&a, 0, COUNTED);
        rig_log_event(&r, &a.counted);
        write_log(&a, 120);
        run_log(&r, c);
        check_quarantine(&r, wants, seed);
        assert_int_equal(r.poison_records, a.poison);
        for (uint32_t o = 1; o < AD_OUTCOME_MAX; o++)
                if (r.outcomes[o] != a.counts[o])
                        fail_msg("seed %llu: %llu are %s, not %llu", (unsigned long long)seed,
                                 (unsigned long long)r.outcomes[o], ad_reason_info(o)->code,
                                 (unsigned long long)a.counts[o]);
        for (size_t i = CONFLICT; i <= FREE; i++)
                assert_true(a.counts[reasons[i]] > 0); /* or the log shows nothing */
        assert_true(a.poison > 0 && a.counts[AD_LATE] > 0 && a.counts[AD_DUPLICATE] > 0);
        rig_close(&r);
        free(a.texts);
        free(wants);
}

/* E2, and the law of df/operator.h: mixed reasons, from every operator, in log order, whatever the
 * batches, checkpoints and restarts. */
static void test_e2_log_order(void **state)
{
        static const struct cuts cuts[] = {{SIZE_MAX, SIZE_MAX, false},
                                           {1, SIZE_MAX, false},
                                           {7, SIZE_MAX, false},
                                           {3, 5, false},
                                           {1, 1, false},
                                           {5, 20, true}};

        (void)state;
        for (uint64_t seed = 1; seed <= 4; seed++)
                for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++)
                        run_seed(seed, &cuts[i]);
}

/* ---- one item ---- */

/* E2: at most 4 KiB of a record, for every length around that. */
static void test_e2_head_of_a_record(void **state)
{
        static const size_t sizes[] = {1, 2, HEAD - 1, HEAD, HEAD + 1, 60000};
        static const struct df_operator_ops *const chain[] = {&ad_op_decode, &ad_op_quarantine};
        struct wants *wants = calloc(1, sizeof(*wants));
        uint8_t *junk = malloc(60000);
        struct rig r;

        (void)state;
        assert_true(wants && junk);
        for (size_t i = 0; i < 60000; i++)
                junk[i] = (uint8_t)(0x80 | i * 7);
        rig_open(&r, chain, 2);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                want_record(wants, &r, df_bytes(junk, sizes[i]), RIG_T0 + (int64_t)i);
                rig_log_raw(&r, df_bytes(junk, sizes[i]), RIG_T0 + (int64_t)i);
        }
        rig_run(&r, SIZE_MAX);
        rig_cut(&r);
        check_quarantine(&r, wants, 0);
        assert_int_equal(r.poison_records, wants->count);
        rig_close(&r);
        free(junk);
        free(wants);
}

/* E2: an event longer than 4 KiB is cut; its neighbours in the record do not show. */
static void test_e2_head_of_an_event(void **state)
{
        struct wants *wants = calloc(1, sizeof(*wants));
        struct ad_event e[3];
        struct ad_quarantined q;
        struct rig r;

        (void)state;
        assert_non_null(wants);
        prepare(&r);
        for (int i = 0; i < 3; i++) {
                e[i] = rig_event("", RIG_T0); /* ended by guard: no id */
                e[i].cost_nanos += i;
        }
        e[1].attributes = long_attributes(&r);
        for (uint32_t i = 0; i < 3; i++)
                want_event(wants, &r, &e[i], i, AD_INVALID, RIG_T0 + 5);
        rig_log(&r, &(struct ad_batch){0}, e, 3, RIG_T0 + 5);
        rig_run(&r, 1);
        rig_cut(&r);
        check_quarantine(&r, wants, 0);
        q = rig_quarantined(&r, 1);
        assert_int_equal(q.head.len, HEAD);
        assert_true(q.size > HEAD);
        rig_close(&r);
        free(wants);
}

/* ---- which outcomes ---- */

/* Stands for whoever ends events: the outcome is the index in the record. */
static int judge_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        struct ad_event *events = batch->items;

        (void)op;
        for (size_t i = 0; i < batch->count; i++)
                if (!(events[i].flags & AD_EV_MARK))
                        events[i].outcome = events[i].index;
        return df_out_forward(out, batch, err);
}

static const struct df_operator_ops judge = {
        .name = "judge",
        .state_version = 1,
        .size = sizeof(struct df_operator),
        .open = sink_open,
        .process = judge_process,
        .close = sink_close,
};

/* Quarantined and conflicting events and no others; all go on; nothing is counted again. */
static void test_e2_which_outcomes(void **state)
{
        static const struct df_operator_ops *const chain[] = {&ad_op_decode, &judge,
                                                              &ad_op_quarantine};
        static const uint32_t here[] = {
                AD_CONFLICT,     AD_POISON,  AD_WRONG_PARTITION, AD_CLOCK,         AD_STALE_RECEIVE,
                AD_FUTURE_EVENT, AD_TOO_OLD, AD_INVALID,         AD_PRICE_MISSING, AD_OVERFLOW};
        struct wants *wants = calloc(1, sizeof(*wants));
        struct ad_event e[AD_OVERFLOW + 1];
        struct rig r;

        (void)state;
        assert_non_null(wants);
        rig_open(&r, chain, 3);
        for (uint32_t i = 0; i <= AD_OVERFLOW; i++) {
                e[i] = rig_event("some", RIG_T0);
                for (size_t j = 0; j < sizeof(here) / sizeof(here[0]); j++)
                        if (here[j] == i)
                                want_event(wants, &r, &e[i], i, i, RIG_T0);
        }
        rig_log(&r, &(struct ad_batch){.clock_reset = true}, e, AD_OVERFLOW + 1, RIG_T0);
        rig_log_heartbeat(&r, RIG_T0, RIG_T0);
        rig_run(&r, 2);
        rig_cut(&r);
        assert_int_equal(wants->count, sizeof(here) / sizeof(here[0]));
        check_quarantine(&r, wants, 0);
        assert_int_equal(r.seen_count, AD_OVERFLOW + 3); /* and two marks */
        for (int i = 0; i < DF_OUTCOMES_MAX; i++)
                assert_int_equal(r.outcomes[i], 0);
        rig_close(&r);
        free(wants);
}

/* It sees what every other operator ends. */
static void test_last_of_the_chain(void **state)
{
        (void)state;
        assert_ptr_equal(ad_chain_main[ad_chain_main_length - 1], &ad_op_quarantine);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_e2_log_order),
                cmocka_unit_test(test_e2_head_of_a_record),
                cmocka_unit_test(test_e2_head_of_an_event),
                cmocka_unit_test(test_e2_which_outcomes),
                cmocka_unit_test(test_last_of_the_chain),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
