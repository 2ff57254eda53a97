/* When ingest writes (pace.h), against clients on a clock of our own: the model knows nothing of
 * the rule but when requests come and go. */
#include "unit.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>

#include "jobs/ingest/pace.h"

#define DELAY_US 5000
#define APPEND_US 500
#define CLIENTS_MAX 1000

struct world {
        struct ad_pace pace;
        int64_t now_us, since_us;  /* of the filling flush */
        int64_t come[CLIENTS_MAX]; /* when a client sends; INT64_MAX: it waits for its answer */
        int64_t sent[CLIENTS_MAX];
        size_t clients, filling, writing, *order; /* who waits, first the ones being written */
        int64_t written_us;                       /* the end of the append; 0 = none */
        uint64_t flushes, requests, seed;
        int64_t waited_max_us, waited_us;
        int64_t think_us; /* between answer and next request, at most; evenly spread */
};

static uint64_t rnd(struct world *w, uint64_t below)
{
        w->seed = w->seed * 6364136223846793005u + 1442695040888963407u;
        return (w->seed >> 33) % below;
}

static int64_t next_come(struct world *w)
{
        int64_t spread = w->think_us;

        return w->now_us + 10 + (spread > 0 ? (int64_t)rnd(w, (uint64_t)spread) : 0);
}

static void arrive(struct world *w, size_t client)
{
        if (w->filling++ == 0)
                w->since_us = w->now_us;
        w->order[w->writing + w->filling - 1] = client;
        w->come[client] = INT64_MAX;
        w->sent[client] = w->now_us;
        ad_pace_added(&w->pace);
}

static void take(struct world *w)
{
        int64_t waited = w->now_us - w->sent[w->order[0]];

        w->waited_max_us = waited > w->waited_max_us ? waited : w->waited_max_us;
        w->waited_us += waited;
        w->writing = w->filling;
        w->filling = 0;
        w->written_us = w->now_us + APPEND_US;
        w->flushes++;
        w->requests += w->writing;
        ad_pace_taken(&w->pace);
}

static void settle(struct world *w)
{
        for (size_t i = 0; i < w->writing; i++)
                w->come[w->order[i]] = next_come(w);
        for (size_t i = 0; i < w->filling; i++)
                w->order[i] = w->order[w->writing + i];
        ad_pace_settled(&w->pace, w->writing, APPEND_US, w->now_us);
        w->writing = 0;
        w->written_us = 0;
}

/* 10 us a step; nothing is counted of the first tenth. */
static void run(struct world *w, size_t clients, int64_t think_us, int64_t run_us)
{
        w->clients = clients;
        w->think_us = think_us;
        w->pace.delay_us = DELAY_US;
        w->order = calloc(clients, sizeof(*w->order));
        assert_non_null(w->order);
        w->now_us = 1;
        for (size_t i = 0; i < clients; i++)
                w->come[i] = next_come(w);
        for (int64_t end = w->now_us + run_us; w->now_us < end; w->now_us += 10) {
                if (w->written_us && w->now_us >= w->written_us)
                        settle(w);
                for (size_t i = 0; i < clients; i++)
                        if (w->come[i] <= w->now_us)
                                arrive(w, i);
                if (!w->written_us && w->filling > 0 &&
                    ad_pace_wait_us(&w->pace, w->filling, w->since_us, w->now_us) == 0)
                        take(w);
                if (w->now_us < run_us / 10)
                        w->flushes = w->requests = 0;
        }
        free(w->order);
        assert_true(w->flushes > 0);
}

/* One client, or a few that come seldom: nobody waits for nobody. */
static void test_idle_server_writes_at_once(void **state)
{
        for (uint64_t seed = 1; seed <= 5; seed++) {
                struct world one = {.seed = seed}, few = {.seed = seed};

                run(&one, 1, 0, 1000000);
                run(&few, 10, 1000000, 20000000);
                if (one.waited_max_us != 0 || one.requests != one.flushes)
                        fail_msg("seed %" PRIu64 ": a client alone waited %" PRId64 " us", seed,
                                 one.waited_max_us);
                /* At most while an append runs, and as long again. */
                if (few.waited_max_us > 4 * APPEND_US ||
                    few.waited_us / (int64_t)few.flushes > APPEND_US / 10)
                        fail_msg("seed %" PRIu64 ": %" PRId64 " us at most, %" PRId64 " on average",
                                 seed, few.waited_max_us, few.waited_us / (int64_t)few.flushes);
        }
}

/* Clients that send again after an answer: all of them share each append, and it starts when the
 * last is back. */
static void test_clients_come_together(void **state)
{
        for (size_t clients = 2; clients <= 512; clients *= 4) {
                struct world w = {.seed = clients};

                run(&w, clients, 200, 1000000);
                if (w.requests < w.flushes * clients * 95 / 100)
                        fail_msg("%zu clients: %" PRIu64 " requests in %" PRIu64 " appends",
                                 clients, w.requests, w.flushes);
                if (w.waited_us / (int64_t)w.flushes > 250)
                        fail_msg("%zu clients: %" PRId64 " us of waiting", clients,
                                 w.waited_us / (int64_t)w.flushes);
        }
}

/* Many clients, each seldom: 20,000 requests a second. Written at once, an append would hold the 10
 * that came during the last one. */
static void test_busy_server_packs(void **state)
{
        for (uint64_t seed = 1; seed <= 3; seed++) {
                struct world w = {.seed = seed};

                run(&w, CLIENTS_MAX, 100000, 2000000);
                if (w.requests < w.flushes * 70)
                        fail_msg("seed %" PRIu64 ": %" PRIu64 " requests in %" PRIu64 " appends",
                                 seed, w.requests, w.flushes);
                if (w.waited_max_us > DELAY_US + APPEND_US + 10)
                        fail_msg("seed %" PRIu64 ": one waited %" PRId64 " us", seed,
                                 w.waited_max_us);
        }
}

/* The rush is over: the next request waits no longer than the delay, the one after it not at all.
 */
static void test_rush_is_forgotten(void **state)
{
        struct ad_pace p = {.delay_us = DELAY_US};

        for (int i = 0; i < 100; i++)
                ad_pace_added(&p);
        ad_pace_taken(&p);
        ad_pace_settled(&p, 100, APPEND_US, 1000000);
        ad_pace_added(&p);
        assert_int_equal(ad_pace_wait_us(&p, 1, 1000100, 1000100), DELAY_US);
        assert_int_equal(ad_pace_wait_us(&p, 1, 1000100, 1000100 + DELAY_US), 0);
        assert_int_equal(ad_pace_wait_us(&p, 1, 2000000, 2000000), 0); /* the log has rested */
        ad_pace_taken(&p);
        ad_pace_settled(&p, 1, APPEND_US, 1010000);
        ad_pace_added(&p);
        assert_int_equal(ad_pace_wait_us(&p, 1, 1010010, 1010010), 0);
}

/* A heartbeat alone (T4) is in no hurry. */
static void test_without_requests(void **state)
{
        struct ad_pace p = {.delay_us = DELAY_US};

        assert_int_equal(ad_pace_wait_us(&p, 0, 100, 100), DELAY_US);
        assert_int_equal(ad_pace_wait_us(&p, 0, 100, 100 + DELAY_US), 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_idle_server_writes_at_once),
                cmocka_unit_test(test_clients_come_together),
                cmocka_unit_test(test_busy_server_packs),
                cmocka_unit_test(test_rush_is_forgotten),
                cmocka_unit_test(test_without_requests),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
