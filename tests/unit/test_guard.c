/* test_guard.c - E3, T2, T3: what may enter, and what moves the clock. */
#include "unit.h"

#include "tests/unit/operators_test.h"

static const struct df_operator_ops *const chain[] = {&ad_op_decode, &ad_op_guard,
                                                      &ad_op_quarantine};
static const struct df_operator_ops *const with_dedupe[] = {&ad_op_decode, &ad_op_guard,
                                                            &ad_op_dedupe};

static struct rig_event *event_number(struct rig *r, size_t n)
{
        for (size_t i = 0; i < r->seen_count; i++)
                if (!(r->seen[i].flags & AD_EV_MARK) && n-- == 0)
                        return &r->seen[i];
        fail_msg("no such event");
        return NULL;
}

static int64_t watermark(const struct rig *r)
{
        return df_task_clock(r->task)->watermark_ms;
}

/* One event of these times after a first one at RIG_T0; its outcome. */
static uint32_t outcome_of(int64_t append_ms, int64_t receive_ms, int64_t event_ms)
{
        struct ad_event first = rig_event("first", RIG_T0), ev = rig_event("e", event_ms);
        struct df_clock before, after;
        uint32_t outcome;
        struct rig r;

        ev.receive_ms = receive_ms;
        rig_open(&r, chain, 3);
        rig_log_event(&r, &first);
        rig_run(&r, 1);
        before = *df_task_clock(r.task);
        rig_log(&r, &(struct ad_batch){0}, &ev, 1, append_ms);
        rig_run(&r, 1);
        after = *df_task_clock(r.task);
        outcome = event_number(&r, 1)->outcome;
        if (outcome != AD_NONE) { /* moves nothing, but its record was reached */
                assert_int_equal(after.watermark_ms, before.watermark_ms);
                assert_int_equal(after.max_receive_ms, before.max_receive_ms);
        }
        assert_true(after.watermark_ms >= before.watermark_ms);
        rig_close(&r);
        return outcome;
}

#define AHEAD AD_RECEIVE_AHEAD_MAX_MS
#define BEHIND AD_RECEIVE_BEHIND_MAX_MS

static void test_t2_t3_edges(void **state)
{
        static const struct {
                int64_t append, receive, event; /* from RIG_T0 */
                uint32_t want;
        } t[] = {
                {0, 0, 0, AD_NONE},
                {0, AHEAD, 0, AD_NONE},
                {0, AHEAD + 1, 0, AD_CLOCK},
                {-5000, AHEAD, 0, AD_NONE}, /* the maximum of append time counts */
                {-5000, AHEAD + 1, 0, AD_CLOCK},
                {5000, AHEAD + 5000, 0, AD_NONE},
                {0, -BEHIND, -BEHIND, AD_NONE},
                {0, -BEHIND - 1, -BEHIND - 1, AD_STALE_RECEIVE},
                {0, 0, AD_FUTURE_MAX_MS, AD_NONE},
                {0, 0, AD_FUTURE_MAX_MS + 1, AD_FUTURE_EVENT},
                {0, 0, -AD_ACCEPTED_AGE_MS, AD_NONE},
                {0, 0, -AD_ACCEPTED_AGE_MS - 1, AD_TOO_OLD},
                {0, AHEAD + 1, AHEAD + 1 + AD_FUTURE_MAX_MS + 1, AD_CLOCK}, /* T2 first */
                {0, -BEHIND - 1, RIG_T0, AD_STALE_RECEIVE},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(t) / sizeof(t[0]); i++) {
                uint32_t got = outcome_of(RIG_T0 + t[i].append, RIG_T0 + t[i].receive,
                                          RIG_T0 + t[i].event);
                if (got != t[i].want)
                        fail_msg("line %zu: outcome %u, not %u", i, got, t[i].want);
        }
}

/* T3: an event is judged against all events before it, also inside its record, and carries the
 * watermark just before it (W5). */
static void test_t3_inside_a_record(void **state)
{
        struct ad_event e[3] = {rig_event("a", RIG_T0), rig_event("b", RIG_T0 + 5000),
                                rig_event("c", RIG_T0 - AD_RECEIVE_BEHIND_MAX_MS + 1)};
        struct rig r;

        (void)state;
        rig_open(&r, chain, 3);
        rig_log(&r, &(struct ad_batch){0}, e, 3, RIG_T0);
        rig_run(&r, 1);
        assert_true(event_number(&r, 0)->watermark_ms == DF_TIME_MIN);
        assert_int_equal(event_number(&r, 1)->watermark_ms, RIG_T0 - AD_OUT_OF_ORDERNESS_MS);
        assert_int_equal(event_number(&r, 2)->watermark_ms, RIG_T0 + 5000 - AD_OUT_OF_ORDERNESS_MS);
        assert_int_equal(event_number(&r, 2)->outcome, AD_STALE_RECEIVE); /* because of b */
        assert_int_equal(watermark(&r), RIG_T0 + 5000 - AD_OUT_OF_ORDERNESS_MS);
        rig_close(&r);
}

/* T3: min(event_time, receive_time): neither clock alone moves the watermark ahead. */
static void test_t3_minimum(void **state)
{
        struct ad_event e = rig_event("a", RIG_T0);
        struct rig r;

        (void)state;
        rig_open(&r, chain, 3);
        e.event_ms = RIG_T0 + 60000; /* its clock is fast */
        rig_log_event(&r, &e);
        rig_run(&r, 1);
        assert_int_equal(watermark(&r), RIG_T0 - AD_OUT_OF_ORDERNESS_MS);
        e.event_ms = RIG_T0 - 60000; /* an old event: nothing goes back */
        e.receive_ms = RIG_T0 + 1000;
        rig_log_event(&r, &e);
        rig_run(&r, 1);
        assert_int_equal(watermark(&r), RIG_T0 - AD_OUT_OF_ORDERNESS_MS);
        rig_close(&r);
}

/* T2: a heartbeat is judged like an event with event_time = receive_time. */
static void test_t2_heartbeats(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, chain, 3);
        rig_log_heartbeat(&r, RIG_T0, RIG_T0);
        rig_run(&r, 1);
        assert_int_equal(watermark(&r), RIG_T0 - AD_OUT_OF_ORDERNESS_MS);
        rig_log_heartbeat(&r, RIG_T0 + AHEAD + 1, RIG_T0); /* a fast clock */
        rig_log_heartbeat(&r, RIG_T0 - BEHIND - 1, RIG_T0);
        rig_run(&r, 1);
        assert_int_equal(watermark(&r), RIG_T0 - AD_OUT_OF_ORDERNESS_MS);
        assert_int_equal(df_task_clock(r.task)->max_receive_ms, RIG_T0);
        rig_log_heartbeat(&r, RIG_T0 + 4000, RIG_T0 + 4000);
        rig_run(&r, 1);
        assert_int_equal(watermark(&r), RIG_T0 + 4000 - AD_OUT_OF_ORDERNESS_MS);
        rig_cut(&r);
        assert_int_equal(r.heartbeats, 4);
        assert_int_equal(r.events, 0);
        assert_int_equal(r.emitted_count[AD_OUT_QUARANTINE], 0); /* a heartbeat has no outcome */
        rig_close(&r);
}

/* T2: one producer with a clock a day ahead harms only its own events. */
static void test_t2_producer_a_day_ahead(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, chain, 3);
        for (int i = 0; i < 20; i++) {
                struct ad_event good = rig_event("good", RIG_T0 + i * 100);
                struct ad_event bad = rig_event("bad", RIG_T0 + i * 100 + 86400000);

                rig_log_event(&r, &good);
                rig_log(&r, &(struct ad_batch){0}, &bad, 1, RIG_T0 + i * 100);
        }
        rig_run(&r, 3);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_CLOCK], 20);
        for (size_t i = 0; i < 40; i += 2)
                assert_int_equal(event_number(&r, i)->outcome, AD_NONE);
        assert_int_equal(watermark(&r), RIG_T0 + 1900 - AD_OUT_OF_ORDERNESS_MS);
        rig_close(&r);
}

/* T2: after `adtally recover --clock` the maxima restart, the watermark does not. */
static void test_t2_clock_reset(void **state)
{
        struct ad_event ahead = rig_event("a", RIG_T0 + 86400000), now = rig_event("b", RIG_T0);
        struct rig r;

        (void)state;
        rig_open(&r, chain, 3);
        rig_log_event(&r, &ahead); /* the log's clock itself was a day ahead */
        rig_log_event(&r, &now);
        rig_run(&r, 1);
        assert_int_equal(event_number(&r, 1)->outcome, AD_STALE_RECEIVE);
        rig_log(&r, &(struct ad_batch){.clock_reset = true}, NULL, 0, RIG_T0 + 1);
        rig_log_event(&r, &now);
        rig_run(&r, 1);
        assert_int_equal(event_number(&r, 2)->outcome, AD_NONE);
        assert_int_equal(df_task_clock(r.task)->max_append_ms, RIG_T0 + 1);
        assert_int_equal(df_task_clock(r.task)->max_receive_ms, RIG_T0);
        assert_int_equal(watermark(&r), RIG_T0 + 86400000 - AD_OUT_OF_ORDERNESS_MS);
        rig_cut(&r);
        rig_restart(&r);
        assert_int_equal(df_task_clock(r.task)->max_receive_ms, RIG_T0);
        rig_close(&r);
}

/* E3: hash(tenant, event_id) mod P = partition, each event in exactly one. */
static void test_e3_partition(void **state)
{
        enum { P = 5, N = 200 };
        uint64_t accepted = 0;

        (void)state;
        for (uint32_t p = 0; p < P; p++) {
                struct rig r;

                rig_prepare(&r, chain, 3);
                r.config.partitions = P;
                r.config.source.partition = p;
                for (int i = 0; i < AD_OUT_COUNT; i++)
                        r.config.outputs[i].partitions = P;
                rig_start(&r);
                for (int i = 0; i < N; i++) {
                        char id[16];
                        struct ad_event ev;

                        (void)snprintf(id, sizeof(id), "id-%d", i);
                        ev = rig_event(id, RIG_T0 + 7200000);
                        rig_log_event(&r, &ev);
                }
                rig_run(&r, 50);
                rig_cut(&r);
                accepted += N - r.outcomes[AD_WRONG_PARTITION];
                assert_int_equal(r.emitted_count[AD_OUT_QUARANTINE],
                                 r.outcomes[AD_WRONG_PARTITION]);
                assert_in_range(r.outcomes[AD_WRONG_PARTITION], N / 2, N);
                for (size_t i = 0; i < N; i++) {
                        const struct rig_event *e = event_number(&r, i);
                        struct df_hash128 key;

                        if (!e) {
                                fail_msg("event %zu was not seen", i);
                                break;
                        }
                        key = ad_event_key(df_bytes_str("t1"), df_bytes_str(e->event_id));
                        assert_int_equal(e->outcome == AD_NONE, ad_event_partition(key, P) == p);
                }
                rig_close(&r);
        }
        assert_int_equal(accepted, N);
}

/* A foreign event moves nothing (T3) and is not recorded (D1). */
static void test_refused_is_not_recorded(void **state)
{
        struct ad_event ev = rig_event("a", RIG_T0), early = ev;
        struct rig r;

        (void)state;
        rig_open(&r, with_dedupe, 3);
        early.receive_ms = RIG_T0 + AHEAD + 1; /* refused: clock */
        rig_log(&r, &(struct ad_batch){0}, &early, 1, RIG_T0);
        rig_log_event(&r, &ev);
        rig_log_event(&r, &ev);
        rig_run(&r, 1);
        assert_int_equal(event_number(&r, 0)->outcome, AD_CLOCK);
        assert_int_equal(event_number(&r, 1)->outcome, AD_NONE);
        assert_int_equal(event_number(&r, 2)->outcome, AD_DUPLICATE);
        rig_close(&r);
}

/* T3: a duplicate moves the watermark, whatever becomes of it. */
static void test_t3_duplicates_move_the_watermark(void **state)
{
        struct ad_event ev = rig_event("a", RIG_T0);
        struct rig r;

        (void)state;
        rig_open(&r, with_dedupe, 3);
        rig_log_event(&r, &ev);
        ev.event_ms = ev.receive_ms = RIG_T0 + 9000; /* other content: a conflict */
        ev.fingerprint = ad_event_fingerprint(&ev);
        rig_log_event(&r, &ev);
        rig_run(&r, 1);
        assert_int_equal(event_number(&r, 1)->outcome, AD_CONFLICT);
        assert_int_equal(watermark(&r), RIG_T0 + 9000 - AD_OUT_OF_ORDERNESS_MS);
        rig_close(&r);
}

/* What ingest would never have written is `invalid`, and harms no other event. */
static void test_malformed(void **state)
{
        struct ad_event good = rig_event("a", RIG_T0), bad[9];
        struct rig r;

        (void)state;
        for (int i = 0; i < 9; i++)
                bad[i] = good;
        bad[0].event_id = df_bytes_str("");
        bad[1].tenant_id = df_bytes_str("");
        bad[2].type = 0;
        bad[3].type = 4;
        bad[4].cost_nanos = -1;
        bad[5].payout_nanos = -1;
        bad[5].flags |= AD_EV_HAS_PAYOUT;
        bad[6].value_nanos = -1;
        bad[6].flags |= AD_EV_HAS_VALUE;
        bad[7].currency = df_bytes_str("EU");
        bad[8].value_currency = df_bytes_str("EU");
        rig_open(&r, chain, 3);
        for (int i = 0; i < 9; i++) {
                rig_log_event(&r, &bad[i]);
                rig_log_event(&r, &good);
        }
        rig_run(&r, 4);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_INVALID], 9);
        assert_int_equal(r.emitted_count[AD_OUT_QUARANTINE], 9);
        for (size_t i = 0; i < r.seen_count; i++)
                if (!(r.seen[i].flags & AD_EV_MARK))
                        assert_int_equal(r.seen[i].outcome,
                                         r.seen[i].offset % 2 ? AD_NONE : AD_INVALID);
        rig_close(&r);
}

/* E2: what quarantine says of an event. */
static void test_quarantine_entry(void **state)
{
        struct ad_event e[2] = {rig_event("fine", RIG_T0),
                                rig_event("far", RIG_T0 - AD_ACCEPTED_AGE_MS - 1)};
        struct ad_quarantined q;
        struct df_buf b = {0};
        struct rig r;

        (void)state;
        e[1].receive_ms = RIG_T0;
        rig_open(&r, chain, 3);
        rig_log(&r, &(struct ad_batch){0}, e, 2, RIG_T0 + 3);
        rig_run(&r, 1);
        rig_cut(&r);
        q = rig_quarantined(&r, 0);
        ad_wire_event(&b, &e[1]);
        assert_int_equal(q.offset, 0);
        assert_int_equal(q.index, 1);
        assert_false(q.whole_record);
        assert_int_equal(q.reason, AD_TOO_OLD);
        assert_int_equal(q.append_ms, RIG_T0 + 3);
        assert_true(df_bytes_eq(q.tenant_id, df_bytes_str("t1")));
        assert_true(df_bytes_eq(q.event_id, df_bytes_str("far")));
        assert_true(df_bytes_eq(q.head, df_buf_bytes(&b)));
        assert_int_equal(q.size, b.len);
        assert_int_equal(r.outcomes[AD_TOO_OLD], 1);
        df_buf_release(&b);
        rig_close(&r);
}

/* R6: an import knows no T2 and no accepted age, and its watermark stays minimal. */
static void test_r6_bounded(void **state)
{
        struct ad_event e = rig_event("a", 1000);
        struct rig r;

        (void)state;
        rig_prepare(&r, chain, 3);
        r.config.rules.bounded = true;
        rig_start(&r);
        e.receive_ms = RIG_T0;
        rig_log(&r, &(struct ad_batch){0}, &e, 1, 5);
        e.event_ms = RIG_T0 + 86400000;
        rig_log(&r, &(struct ad_batch){0}, &e, 1, 5);
        rig_run(&r, 1);
        assert_int_equal(event_number(&r, 0)->outcome, AD_NONE);
        assert_int_equal(event_number(&r, 1)->outcome, AD_NONE);
        assert_true(watermark(&r) == DF_TIME_MIN);
        rig_close(&r);
}

struct naive { /* T2 and T3 in their own words */
        int64_t append, receive, earliest;
        bool any_receive, any;
};

static uint32_t naive_judge(struct naive *n, const struct ad_event *ev)
{
        int64_t m = ev->event_ms < ev->receive_ms ? ev->event_ms : ev->receive_ms;

        if (ev->receive_ms > n->append + 10000)
                return AD_CLOCK;
        if (n->any_receive && ev->receive_ms < n->receive - 3600000)
                return AD_STALE_RECEIVE;
        if (ev->event_ms > ev->receive_ms + 300000)
                return AD_FUTURE_EVENT;
        if (ev->event_ms < ev->receive_ms - 7 * 86400000ll)
                return AD_TOO_OLD;
        n->receive = n->any_receive && n->receive > ev->receive_ms ? n->receive : ev->receive_ms;
        n->earliest = n->any && n->earliest > m ? n->earliest : m;
        n->any_receive = n->any = true;
        return AD_NONE;
}

static void run_seed(uint64_t seed)
{
        enum { RECORDS = 120, EVENTS_MAX = 12 };
        struct df_sim_random x;
        struct naive n = {.append = INT64_MIN};
        uint32_t want[RECORDS * EVENTS_MAX];
        int64_t want_watermark[RECORDS * EVENTS_MAX];
        size_t count = 0, at = 0;
        int64_t now = RIG_T0;
        struct rig r;

        df_sim_random_init(&x, seed);
        rig_open(&r, chain, 3);
        for (int i = 0; i < RECORDS; i++) {
                struct ad_event e[EVENTS_MAX];
                size_t k = df_sim_random_below(&x, EVENTS_MAX + 1);
                int64_t append = now + df_sim_random_between(&x, -3000, 3000);

                now += df_sim_random_between(&x, 0, 200000);
                n.append = append > n.append ? append : n.append;
                for (size_t j = 0; j < k; j++, count++) {
                        e[j] = rig_event("e", now);
                        e[j].receive_ms = now + df_sim_random_between(&x, -3700000, 14000);
                        e[j].event_ms =
                                e[j].receive_ms + df_sim_random_between(&x, -700000000, 400000);
                        want_watermark[count] = n.any ? n.earliest - 10000 : DF_TIME_MIN;
                        want[count] = naive_judge(&n, &e[j]);
                }
                rig_log(&r, &(struct ad_batch){0}, e, k, append);
        }
        rig_run(&r, 1 + seed % 9);
        for (size_t i = 0; i < r.seen_count; i++) {
                if (r.seen[i].flags & AD_EV_MARK)
                        continue;
                if (r.seen[i].outcome != want[at] || r.seen[i].watermark_ms != want_watermark[at])
                        fail_msg("seed %llu: event %zu", (unsigned long long)seed, at);
                at++;
        }
        assert_int_equal(at, count);
        assert_int_equal(watermark(&r), n.earliest - 10000);
        rig_close(&r);
}

static void test_t2_t3_seeds(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 40; seed++)
                run_seed(seed);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_t2_t3_edges),
                cmocka_unit_test(test_t3_inside_a_record),
                cmocka_unit_test(test_t3_minimum),
                cmocka_unit_test(test_t2_heartbeats),
                cmocka_unit_test(test_t2_producer_a_day_ahead),
                cmocka_unit_test(test_t2_clock_reset),
                cmocka_unit_test(test_e3_partition),
                cmocka_unit_test(test_refused_is_not_recorded),
                cmocka_unit_test(test_t3_duplicates_move_the_watermark),
                cmocka_unit_test(test_malformed),
                cmocka_unit_test(test_quarantine_entry),
                cmocka_unit_test(test_r6_bounded),
                cmocka_unit_test(test_t2_t3_seeds),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
