/* test_dedupe_billing.c - D4: the bill's own verdict on each event, beside realtime's. */
#include "unit.h"

#include "tests/unit/operators_test.h"

#include "proto/bill.h"

#define HOUR_MS 3600000
#define HORIZON 2
#define BILLING 30
#define EPOCHS_MAX 1024 /* ADI_EPOCHS_MAX */

static void open_rig(struct rig *r)
{
        rig_prepare(r, ad_chain_bill, 3); /* decode, guard, dedupe_billing */
        r->params.base.horizon_hours = HORIZON;
        r->params.base.billing_horizon_hours = BILLING;
        rig_start(r);
}

/* A copy of the id, `hours` later, with this event time behind its receipt. */
static void send(struct rig *r, const char *id, int64_t hours, int64_t age_ms, int64_t cost)
{
        struct ad_event ev = rig_event(id, RIG_T0 + hours * HOUR_MS);

        ev.event_ms -= age_ms;
        ev.cost_nanos = cost;
        ev.fingerprint = ad_event_fingerprint(&ev);
        rig_log_event(r, &ev);
}

static void check(struct rig *r, size_t n, enum ad_reason realtime, enum ad_reason bill)
{
        size_t at = 0;

        for (size_t i = 0; i < r->seen_count; i++) {
                if (r->seen[i].outcome == AD_SKIP || at++ != n)
                        continue;
                if (r->seen[i].outcome != realtime || r->seen[i].bill_outcome != bill)
                        fail_msg("event %zu: realtime %s, bill %s", n,
                                 ad_reason_info(r->seen[i].outcome)->code,
                                 ad_reason_info(r->seen[i].bill_outcome)->code);
                return;
        }
        fail_msg("there is no event %zu", n);
}

/* The first copy in receive order wins, whatever the times that the copies state. */
static void test_copies(void **state)
{
        struct rig r;

        (void)state;
        open_rig(&r);
        send(&r, "a", 0, 0, 5);
        send(&r, "a", 1, HOUR_MS, 5); /* the same statement, within both horizons */
        send(&r, "a", 2, 0, 5);       /* stamped anew: another statement to realtime */
        send(&r, "a", 10, 0, 5);      /* behind realtime's horizon */
        send(&r, "b", 10, 0, 5);
        send(&r, "b", 20, 0, 6);                      /* with other content */
        send(&r, "b", 21, 0, 6);                      /* compared with the one before, as D1 says */
        send(&r, "a", 10 + BILLING, 0, 5);            /* the last copy is at the horizon */
        send(&r, "a", 11 + 2 * BILLING, 0, 5);        /* and now behind it */
        send(&r, "c", 11 + 2 * BILLING, -HOUR_MS, 5); /* refused by guard, recorded by nobody */
        send(&r, "c", 11 + 2 * BILLING, 0, 5);
        rig_run(&r, 3);
        check(&r, 0, AD_NONE, AD_NONE);
        check(&r, 1, AD_DUPLICATE, AD_DUPLICATE);
        check(&r, 2, AD_CONFLICT, AD_DUPLICATE);
        check(&r, 3, AD_NONE, AD_DUPLICATE);
        check(&r, 4, AD_NONE, AD_NONE);
        check(&r, 5, AD_NONE, AD_CONFLICT);
        check(&r, 6, AD_CONFLICT, AD_DUPLICATE);
        check(&r, 7, AD_NONE, AD_DUPLICATE);
        check(&r, 8, AD_NONE, AD_NONE);
        check(&r, 9, AD_FUTURE_EVENT, AD_FUTURE_EVENT);
        check(&r, 10, AD_NONE, AD_NONE);
        /* It ends no event and counts none: the ledger is realtime's. */
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_DUPLICATE], 1);
        assert_int_equal(r.outcomes[AD_CONFLICT], 2);
        rig_close(&r);
}

/* The verdicts do not depend on where a run was cut and taken over. */
static void test_cuts(void **state)
{
        struct df_sim_random x;
        struct rig whole, cut;

        (void)state;
        for (int side = 0; side < 2; side++) {
                struct rig *r = side ? &cut : &whole;

                open_rig(r);
                df_sim_random_init(&x, 11);
                for (int i = 0; i < 600; i++) {
                        char id[16];

                        (void)snprintf(id, sizeof(id), "id%d", (int)df_sim_random_below(&x, 120));
                        send(r, id, i / 6, (int64_t)df_sim_random_below(&x, 5000),
                             (int64_t)df_sim_random_below(&x, 2));
                }
                if (!side) {
                        rig_run(r, 50);
                        continue;
                }
                for (size_t at = 0; at < r->record_count; at += 37) {
                        size_t n = r->record_count - at < 37 ? r->record_count - at : 37, used;
                        struct df_error err = {0};

                        assert_int_equal(df_task_process(r->task, r->records + at, n, &used, &err),
                                         0);
                        rig_cut(r);
                        rig_restart(r);
                }
        }
        assert_int_equal(whole.seen_count, cut.seen_count);
        for (size_t i = 0; i < whole.seen_count; i++)
                if (whole.seen[i].bill_outcome != cut.seen[i].bill_outcome)
                        fail_msg("event %zu", i);
        rig_close(&whole);
        rig_close(&cut);
}

/* ---- one map for both horizons, against two of them ---- */

#define WORLD_RECORDS 700

/* Clocks that run, leap, and are set back; ids that come again at every distance. */
static void write_world(struct rig *r, uint64_t seed, bool by_content)
{
        int64_t now = RIG_T0 + 400 * (int64_t)HOUR_MS;
        struct df_sim_random x;

        df_sim_random_init(&x, seed);
        for (int i = 0; i < WORLD_RECORDS; i++) {
                struct ad_batch b = {.start_id = 5};
                struct ad_event events[4];
                size_t n = 1 + df_sim_random_below(&x, 4);

                now += df_sim_random_between(&x, 0, 25) * 60000;
                if (df_sim_random_chance(&x, 40))
                        now += df_sim_random_between(&x, 1, 2 * BILLING) * HOUR_MS;
                if (df_sim_random_chance(&x, 40)) {
                        now -= df_sim_random_between(&x, 0, 2 * BILLING) * HOUR_MS;
                        b.clock_reset = true;
                }
                for (size_t j = 0; j < n; j++) {
                        char *id = df_arena_alloc(&r->memory, 16);

                        assert_non_null(id);
                        (void)snprintf(id, 16, "id%d", (int)df_sim_random_below(&x, 60));
                        events[j] = rig_event(id, now - df_sim_random_between(&x, 0, 59) * 60000);
                        events[j].event_ms -= events[j].event_ms % (6 * HOUR_MS);
                        events[j].event_ms -= df_sim_random_between(&x, 0, 1);
                        events[j].cost_nanos = df_sim_random_between(&x, 0, 1);
                        events[j].fingerprint = by_content ? ad_event_content(&events[j])
                                                           : ad_event_fingerprint(&events[j]);
                }
                rig_log(r, &b, events, n, now);
        }
}

/* With cuts and takeovers where cut is not NULL. */
static void run_world(struct rig *r, struct df_sim_random *cut)
{
        size_t used;

        for (size_t at = 0; at < r->record_count; at += used) {
                size_t n = cut ? 1 + df_sim_random_below(cut, 30) : 50;
                struct df_error err = {0};

                if (n > r->record_count - at)
                        n = r->record_count - at;
                if (df_task_process(r->task, r->records + at, n, &used, &err) < 0)
                        fail_msg("%s", err.text);
                if (cut || df_task_wants_cut(r->task))
                        rig_cut(r);
                if (cut && df_sim_random_chance(cut, 300))
                        rig_restart(r);
        }
}

static void open_world(struct rig *r, bool bill, uint32_t horizon, size_t open_ids, uint64_t seed,
                       bool by_content)
{
        rig_prepare(r, bill ? ad_chain_bill : ad_chain_main, 3); /* decode, guard, dedupe */
        r->params.base.horizon_hours = horizon;
        r->params.base.billing_horizon_hours = horizon ? BILLING : 0;
        r->params.base.dedupe_open_ids = open_ids;
        rig_start(r);
        write_world(r, seed, by_content);
}

static void check_world(uint64_t seed, uint64_t seen[2][DF_OUTCOMES_MAX])
{
        size_t open_ids = seed % 3 ? 24 : 1000;
        bool bounded = seed % 5 != 0; /* or as for imports: an id counts once for ever */
        struct rig realtime, bill, both;
        struct df_sim_random cut;

        open_world(&realtime, false, bounded ? HORIZON : 0, 1000, seed, false);
        open_world(&bill, false, bounded ? BILLING : 0, 1000, seed, true);
        open_world(&both, true, bounded ? HORIZON : 0, open_ids, seed, false);
        df_sim_random_init(&cut, seed);
        run_world(&realtime, NULL);
        run_world(&bill, NULL);
        run_world(&both, seed % 2 ? &cut : NULL);
        assert_int_equal(both.seen_count, realtime.seen_count);
        for (size_t i = 0; i < both.seen_count; i++) {
                const struct rig_event *is = &both.seen[i];

                if (is->flags & AD_EV_MARK)
                        continue;
                if (is->outcome != realtime.seen[i].outcome ||
                    is->bill_outcome != bill.seen[i].outcome)
                        fail_msg("seed %llu, event %zu: realtime %s, not %s; bill %s, not %s",
                                 (unsigned long long)seed, i, ad_reason_info(is->outcome)->code,
                                 ad_reason_info(realtime.seen[i].outcome)->code,
                                 ad_reason_info(is->bill_outcome)->code,
                                 ad_reason_info(bill.seen[i].outcome)->code);
                seen[0][is->outcome]++;
                seen[1][is->bill_outcome]++;
        }
        rig_close(&realtime);
        rig_close(&bill);
        rig_close(&both);
}

static void test_one_map_answers_as_two(void **state)
{
        uint64_t seen[2][DF_OUTCOMES_MAX] = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= 60; seed++)
                check_world(seed, seen);
        for (int side = 0; side < 2; side++) { /* the worlds hold each verdict */
                assert_true(seen[side][AD_NONE] > 2000);
                assert_true(seen[side][AD_DUPLICATE] > 2000);
                assert_true(seen[side][AD_CONFLICT] > 2000);
        }
}

/* Each round ends the hours of the one before for realtime, and comes back to them. */
static void test_clocks_set_back_without_end(void **state)
{
        struct ad_event then = rig_event("a", RIG_T0);
        struct ad_event later = rig_event("a", RIG_T0 + (HORIZON + 3) * (int64_t)HOUR_MS);
        struct ad_batch reset = {.clock_reset = true};
        struct df_error err = {0};
        size_t used = 0;
        struct rig r;

        (void)state;
        open_rig(&r);
        for (int i = 0; i < EPOCHS_MAX; i++) {
                rig_log(&r, &reset, &then, 1, then.receive_ms);
                rig_log(&r, &reset, &later, 1, later.receive_ms);
        }
        rig_run(&r, 2 * EPOCHS_MAX);
        for (int i = 1; i < EPOCHS_MAX; i++)
                check(&r, 2 * (size_t)i, AD_NONE, AD_DUPLICATE);
        rig_log(&r, &reset, &then, 1, then.receive_ms);
        assert_int_equal(df_task_process(r.task, r.records + 2 * EPOCHS_MAX, 1, &used, &err),
                         DF_ELIMIT);
        assert_non_null(strstr(err.text, "set back more than 1023 times"));
        rig_close(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_copies),
                cmocka_unit_test(test_cuts),
                cmocka_unit_test(test_one_map_answers_as_two),
                cmocka_unit_test(test_clocks_set_back_without_end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
