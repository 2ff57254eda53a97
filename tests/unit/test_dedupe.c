/* test_dedupe.c - D1, D2, D3: dedupe against a naive oracle.
 *
 * The chain is a toy source (records of fixed entries), dedupe, and a sink that notes each event's
 * outcome. Every event's outcome is noted by its place in the log, so that a replay after a crash
 * must decide as before. The oracle keeps every occurrence of every id and applies the words of D1
 * by linear search.
 */
#include "unit.h"

#include <stdlib.h>

#include "tests/unit/dedupe_test.h"

/* ---- the oracle ---- */

struct occurrence {
        uint32_t id, fingerprint;
        int64_t hour;
};
struct oracle {
        struct occurrence *all; /* in log order */
        size_t count;
        uint32_t horizon;
};

static uint32_t oracle_judge(struct oracle *o, uint32_t id, uint32_t fingerprint, int64_t hour)
{
        const struct occurrence *greatest = NULL;

        for (size_t i = 0; i < o->count; i++) {
                const struct occurrence *x = &o->all[i];

                if (x->id != id)
                        continue;
                if (o->horizon > 0 && (x->hour < hour - (int64_t)o->horizon || x->hour > hour + 1))
                        continue;
                /* later in the log wins among equal hours; with H = 0 there is one bucket */
                if (!greatest || o->horizon == 0 || x->hour >= greatest->hour)
                        greatest = x;
        }
        o->all[o->count++] = (struct occurrence){id, fingerprint, hour};
        if (!greatest)
                return AD_NONE;
        return greatest->fingerprint == fingerprint ? AD_DUPLICATE : AD_CONFLICT;
}

static void oracle_forget(struct oracle *o, int64_t before_hour)
{
        size_t kept = 0;

        for (size_t i = 0; i < o->count; i++)
                if (o->all[i].hour >= before_hour)
                        o->all[kept++] = o->all[i];
        o->count = kept;
}

static int64_t hour_of(int64_t ms)
{
        return ms >= 0 ? ms / HOUR : -((-ms + HOUR - 1) / HOUR);
}

/* ---- explicit cases ---- */

struct step {
        int64_t hour;
        uint32_t id, fingerprint, want;
};

static void run_steps(uint32_t horizon, size_t limit, const struct step *steps, size_t count,
                      bool cut_between)
{
        struct world w;

        world_open(&w, horizon, limit);
        for (size_t i = 0; i < count; i++) {
                struct toy e = {steps[i].id, steps[i].fingerprint, steps[i].hour * HOUR + 5, 0};

                world_process(&w, &e, 1, 1);
                if (w.outcomes[i] != steps[i].want)
                        fail_msg("step %zu: outcome %u, not %u", i, w.outcomes[i], steps[i].want);
                if (cut_between) {
                        world_cut(&w);
                        world_restart(&w);
                }
        }
        world_close(&w);
}

#define RUN(horizon, steps)                                                                        \
        do {                                                                                       \
                run_steps(horizon, 64, steps, sizeof(steps) / sizeof((steps)[0]), false);          \
                run_steps(horizon, 64, steps, sizeof(steps) / sizeof((steps)[0]), true);           \
                run_steps(horizon, 1, steps, sizeof(steps) / sizeof((steps)[0]), false);           \
                run_steps(horizon, 1, steps, sizeof(steps) / sizeof((steps)[0]), true);            \
        } while (0)

static void test_d1_range(void **state)
{
        static const struct step edges[] = {
                {100, 1, 7, AD_NONE},      {100, 1, 7, AD_DUPLICATE}, {110, 1, 7, AD_DUPLICATE},
                {120, 1, 7, AD_DUPLICATE}, /* 110 is h - H */
                {131, 1, 7, AD_NONE},      /* 120 is h - H - 1 */
                {130, 2, 7, AD_NONE},      {131, 2, 7, AD_DUPLICATE}, {130, 2, 7, AD_DUPLICATE},
        };
        static const struct step later[] = {
                {100, 1, 7, AD_NONE},      {99, 1, 7, AD_DUPLICATE}, /* h + 1 counts */
                {110, 2, 7, AD_NONE},      {108, 2, 7, AD_NONE},     /* h + 2 does not */
                {109, 2, 7, AD_DUPLICATE},                           /* both do */
        };

        (void)state;
        RUN(10, edges);
        RUN(10, later);
}

static void test_d1_conflict(void **state)
{
        static const struct step s[] = {
                {100, 1, 7, AD_NONE},      {100, 1, 8, AD_CONFLICT},
                {100, 1, 8, AD_DUPLICATE}, /* the conflict was recorded too */
                {100, 1, 7, AD_CONFLICT},  {101, 1, 9, AD_CONFLICT},
                {100, 1, 7, AD_CONFLICT}, /* the greatest hour counts: 101 */
                {100, 1, 9, AD_DUPLICATE}, {101, 1, 9, AD_DUPLICATE},
                {102, 1, 9, AD_DUPLICATE}, {104, 1, 9, AD_DUPLICATE}, /* 102 */
                {105, 1, 8, AD_CONFLICT},  {107, 1, 8, AD_DUPLICATE},
                {111, 1, 8, AD_NONE}, /* 107 has gone */
        };

        (void)state;
        RUN(3, s);
}

static void test_unbounded_horizon(void **state)
{
        static const struct step s[] = {
                {100, 1, 7, AD_NONE},     {9000, 1, 7, AD_DUPLICATE}, {3, 1, 7, AD_DUPLICATE},
                {50, 2, 1, AD_NONE},      {40, 2, 2, AD_CONFLICT},    {50, 2, 2, AD_DUPLICATE},
                {-7, 1, 7, AD_DUPLICATE},
        };

        (void)state;
        RUN(0, s);
}

static void test_hours_before_the_epoch(void **state)
{
        static const struct step s[] = {
                {-3, 1, 7, AD_NONE},
                {-2, 1, 7, AD_DUPLICATE},
                {0, 1, 7, AD_DUPLICATE},
                {3, 1, 7, AD_NONE},
        };

        (void)state;
        RUN(2, s);
}

/* Marks and events that ended before are passed on, neither judged nor recorded. */
static void test_skips_what_has_ended(void **state)
{
        struct world w;
        struct toy e[] = {
                {1, 7, BASE_HOUR * HOUR, TOY_ENDED}, {1, 7, BASE_HOUR * HOUR, 0},
                {1, 7, BASE_HOUR * HOUR, TOY_ENDED}, {1, 7, BASE_HOUR * HOUR, TOY_RESET},
                {1, 7, BASE_HOUR * HOUR, 0},
        };

        (void)state;
        world_open(&w, 24, 64);
        world_process(&w, e, 5, 5);
        assert_int_equal(w.outcomes[0], AD_INVALID);
        assert_int_equal(w.outcomes[1], AD_NONE);
        assert_int_equal(w.outcomes[2], AD_INVALID);
        assert_true(w.outcomes[3] == AD_SKIP);
        assert_int_equal(w.outcomes[4], AD_DUPLICATE);
        world_close(&w);
}

/* ---- many seeds ---- */

struct plan {
        uint64_t seed;
        uint32_t horizon;
        size_t limit, events, ids;
        bool resets;
};

static struct toy next_event(struct random *r, const struct plan *p, int64_t *now_ms)
{
        int64_t back = random_below(r, 4) == 0 ? (int64_t)random_below(r, (uint64_t)HOUR) : 0;
        struct toy e = {0};

        *now_ms += (int64_t)random_below(r, (uint64_t)(HOUR / 60));
        if (random_below(r, 200) == 0)
                *now_ms += (int64_t)random_below(r, 6) * HOUR;
        if (random_below(r, 2000) == 0)
                *now_ms += (p->horizon + 3) * HOUR;
        e.id = (uint32_t)random_below(r, p->ids);
        e.fingerprint = random_below(r, 10) == 0 ? (uint32_t)random_below(r, 3) : 0;
        e.receive_ms = *now_ms - back;
        if (p->resets && random_below(r, 300) == 0) {
                e.flags = TOY_RESET;
                *now_ms -= (int64_t)random_below(r, 3 * p->horizon + 3) * HOUR;
        }
        return e;
}

/* Hours before the greatest - 1 - H have no key left. */
static int check_key(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct df_reader r = df_reader(key);
        int64_t hour;

        (void)value;
        (void)err;
        (void)df_get_u8(&r);
        if (df_get_u8(&r) == 'H')
                return 0;
        hour = (int64_t)(df_get_u64be(&r) ^ (1ull << 63));
        assert_false(r.bad);
        if (hour < *(int64_t *)arg)
                fail_msg("hour %lld ended before %lld and is still in the store", (long long)hour,
                         (long long)*(int64_t *)arg);
        return 0;
}

static void check_expired(struct world *w, int64_t before_hour)
{
        uint8_t ns = TOY_NS;
        struct df_error err;

        assert_int_equal(df_store_scan(w->store, df_bytes(&ns, 1), check_key, &before_hour, &err),
                         0);
}

static void run_plan(const struct plan *p)
{
        struct random r = {p->seed};
        struct oracle o = {.all = calloc(p->events, sizeof(*o.all)), .horizon = p->horizon};
        struct toy *events = calloc(p->events, sizeof(*events));
        uint32_t *want = calloc(p->events, sizeof(*want));
        int64_t now_ms = BASE_HOUR * HOUR, max = INT64_MIN;
        struct world w;

        assert_non_null(o.all);
        assert_non_null(events);
        assert_non_null(want);
        for (size_t i = 0; i < p->events; i++) {
                events[i] = next_event(&r, p, &now_ms);
                int64_t hour = hour_of(events[i].receive_ms);

                if (events[i].flags & TOY_RESET) {
                        want[i] = AD_SKIP;
                        max = INT64_MIN;
                        continue;
                }
                /* Without a reset nothing that D1 still asks for is forgotten: not even here. */
                if (hour > max && p->resets && p->horizon > 0)
                        oracle_forget(&o, hour - 1 - p->horizon);
                max = hour > max ? hour : max;
                want[i] = oracle_judge(&o, events[i].id, events[i].fingerprint, hour);
        }
        world_open(&w, p->horizon, p->limit);
        for (size_t at = 0; at < p->events;) {
                size_t n = 1 + random_below(&r, random_below(&r, 8) == 0 ? 700 : 40);

                if (n > p->events - at)
                        n = p->events - at;
                world_process(&w, events + at, n, 1 + random_below(&r, 9));
                at += n;
                if (random_below(&r, 6) == 0)
                        world_cut(&w);
                if (random_below(&r, 40) == 0) { /* a crash: back to the last cut, other limits */
                        w.params.base.dedupe_open_ids = 1 + random_below(&r, 2 * p->limit);
                        world_restart(&w);
                        at = w.processed;
                }
        }
        world_cut(&w);
        for (size_t i = 0; i < p->events; i++)
                if (w.outcomes[i] != want[i])
                        fail_msg("seed %llu, H %u, limit %zu: event %zu ends as %u, oracle %u",
                                 (unsigned long long)p->seed, p->horizon, p->limit, i,
                                 w.outcomes[i], want[i]);
        if (p->horizon > 0 && !p->resets)
                check_expired(&w, max - 1 - (int64_t)p->horizon);
        /* After a takeover nothing of a merge that was cut short remains. */
        world_restart(&w);
        world_cut(&w);
        struct usage u = usage_of(&w);
        assert_int_equal(u.blocks, u.listed_blocks);
        world_close(&w);
        free(o.all);
        free(events);
        free(want);
}

static void test_d1_seeds(void **state)
{
        static const uint32_t horizons[] = {1, 2, 5, 24, 300, 0};
        static const size_t limits[] = {1, 16, 64, 300, 5000};

        (void)state;
        for (uint64_t seed = 1; seed <= 60; seed++)
                run_plan(&(struct plan){
                        .seed = seed,
                        .horizon = horizons[seed % 6],
                        .limit = limits[seed % 5],
                        .events = 2000,
                        .ids = seed % 3 == 0   ? 50
                               : seed % 3 == 1 ? 700
                                               : 20000,
                });
}

/* Few hours and many ids: runs of several levels. */
static void test_d2_merges(void **state)
{
        (void)state;
        for (uint64_t seed = 100; seed < 103; seed++)
                run_plan(&(struct plan){
                        .seed = seed, .horizon = 0, .limit = 16, .events = 6000, .ids = 6000});
}

static void test_t2_clock_reset(void **state)
{
        (void)state;
        for (uint64_t seed = 200; seed < 220; seed++)
                run_plan(&(struct plan){.seed = seed,
                                        .horizon = 1 + (uint32_t)(seed % 7),
                                        .limit = 32,
                                        .events = 2000,
                                        .ids = 200,
                                        .resets = true});
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_d1_range),
                cmocka_unit_test(test_d1_conflict),
                cmocka_unit_test(test_unbounded_horizon),
                cmocka_unit_test(test_hours_before_the_epoch),
                cmocka_unit_test(test_skips_what_has_ended),
                cmocka_unit_test(test_d1_seeds),
                cmocka_unit_test(test_d2_merges),
                cmocka_unit_test(test_t2_clock_reset),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
