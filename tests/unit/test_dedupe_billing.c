/* test_dedupe_billing.c - D4: the bill's own verdict on each event, beside realtime's. */
#include "unit.h"

#include "tests/unit/operators_test.h"

#include "proto/bill.h"

#define HOUR_MS 3600000
#define HORIZON 2
#define BILLING 30

static void open_rig(struct rig *r)
{
        rig_prepare(r, ad_chain_bill, 4); /* decode, guard, dedupe, dedupe_billing */
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

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_copies),
                cmocka_unit_test(test_cuts),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
