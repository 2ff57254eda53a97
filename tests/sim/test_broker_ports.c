/* test_broker_ports.c - the ports over the model broker keep the rules of df/log.h, df/txn.h and
 * df/group.h. */
#include "broker_test.h"

/* ---- the ports: what a lost answer, a ghost, a fence and a broker that is away become ---- */

struct port {
        struct df_group *group;
        struct df_txn *txn;
        struct df_group_event event;
};

static enum df_group_change change(struct port *p)
{
        assert_int_equal(df_group_poll(p->group, 0, &p->event, NULL), 0);
        return p->event.change;
}

static void port_open(struct fixture *f, struct port *p, const char *instance)
{
        static const char *const topics[] = {"in"};
        struct df_committed c;

        *p = (struct port){0};
        assert_int_equal(df_sim_kafka_group_open(f->log, "g", instance, &p->group, NULL), 0);
        assert_int_equal(df_group_subscribe(p->group, topics, 1, NULL), 0);
        assert_int_equal(change(p), DF_GROUP_ASSIGN);
        df_group_done(p->group);
        assert_int_equal(df_sim_kafka_txn_open(f->log, p->group, "in", 0, &p->txn, NULL), 0);
        assert_int_equal(df_txn_takeover(p->txn, &c, NULL), 0);
}

static void port_close(struct port *p)
{
        df_txn_close(p->txn);
        df_group_close(p->group);
}

static int port_prepare(struct port *p, const char *value)
{
        struct df_append item = {.value = df_bytes_str(value)};
        int rc = df_txn_begin(p->txn, NULL);

        if (rc == 0)
                rc = df_txn_produce(p->txn, "out", &item, 1, NULL);
        return rc ? rc : df_txn_offsets(p->txn, 1, "m", NULL);
}

/* The next EndTxn meets this fate. */
struct trap {
        struct df_sim *sim;
        enum df_sim_moment moment;
        uint32_t n; /* so many in a row */
        bool down;
};

static void spring(void *arg, uint32_t process, const char *request)
{
        struct trap *t = arg;

        (void)process;
        if (strncmp(request, "EndTxn", 6) != 0)
                return;
        if (t->down)
                df_sim_broker_down(t->sim, true);
        else if (t->n > 0)
                df_sim_fault_set(t->sim, DF_SIM_EIO,
                                 (struct df_sim_fault){.n = 1, .moment = t->moment});
        t->n -= t->n > 0;
}

static void test_commit_without_an_answer_is_asked_again(void **state)
{
        static const enum df_sim_moment moments[] = {DF_SIM_BEFORE, DF_SIM_MIDWAY, DF_SIM_AFTER};

        (void)state;
        for (size_t i = 0; i < 3; i++) {
                struct fixture f;
                struct trap trap;
                struct port p;
                uint64_t end_offset;
                uint32_t epoch;

                set_up(&f);
                port_open(&f, &p, "a");
                trap = (struct trap){.sim = f.sim, .moment = moments[i], .n = 1};
                df_sim_net_hook(f.sim, spring, &trap);
                assert_int_equal(port_prepare(&p, "x"), 0);
                assert_int_equal(df_txn_commit(p.txn, NULL), 0);
                assert_string_equal(seen(&f, &end_offset), "x");
                epoch = f.broker->txns[0]->epoch;
                assert_int_equal(port_prepare(&p, "y"), 0); /* by another producer (K13) */
                assert_true(f.broker->txns[0]->epoch > epoch);
                assert_int_equal(df_txn_commit(p.txn, NULL), 0);
                assert_string_equal(seen(&f, &end_offset), "xy");
                port_close(&p);
                tear_down(&f);
        }
}

static void test_reckless_commit_counts_twice(void **state)
{
        struct trap trap;
        struct fixture f;
        struct port p;
        uint64_t end_offset;

        (void)state;
        set_up(&f);
        df_sim_kafka_reckless(f.sim, true);
        port_open(&f, &p, "a");
        trap = (struct trap){.sim = f.sim, .moment = DF_SIM_AFTER, .n = 1};
        df_sim_net_hook(f.sim, spring, &trap);
        assert_int_equal(port_prepare(&p, "x"), 0);
        assert_int_equal(df_txn_commit(p.txn, NULL), DF_EAGAIN);
        assert_int_equal(df_txn_abort(p.txn, NULL), 0);
        assert_int_equal(port_prepare(&p, "x"), 0);
        assert_int_equal(df_txn_commit(p.txn, NULL), 0);
        assert_string_equal(seen(&f, &end_offset), "xx");
        port_close(&p);
        tear_down(&f);
}

/* Nobody knows: DF_ELOST. A late commit of a process that was replaced meets a newer epoch. */
static void test_commit_in_doubt_is_lost_and_its_ghost_is_fenced(void **state)
{
        struct trap trap;
        struct fixture f;
        struct port p, q;
        uint64_t end_offset;

        (void)state;
        set_up(&f);
        df_sim_net_set(f.sim, (struct df_sim_net){.delay_max_ms = 1});
        port_open(&f, &p, "a");
        trap = (struct trap){.sim = f.sim, .down = true};
        df_sim_net_hook(f.sim, spring, &trap);
        assert_int_equal(port_prepare(&p, "x"), 0);
        df_sim_fault_set(f.sim, DF_SIM_EIO,
                         (struct df_sim_fault){.n = 1, .moment = DF_SIM_MIDWAY}); /* late */
        assert_int_equal(df_txn_commit(p.txn, NULL), DF_ELOST);
        df_sim_net_hook(f.sim, NULL, NULL);
        port_close(&p);
        for (size_t i = 0; i < f.broker->travelling_count; i++)
                f.broker->travelling[i].due_ms = f.broker->clock_ms + 1000;
        assert_true(f.broker->travelling_count > 0);
        df_sim_broker_down(f.sim, false);
        port_open(&f, &q, "a"); /* static: the same place */
        assert_int_equal(port_prepare(&q, "y"), 0);
        df_sim_broker_advance(f.sim, 2000); /* now it comes, in the middle of another one */
        assert_string_equal(seen(&f, &end_offset), "");
        assert_int_equal(df_txn_commit(q.txn, NULL), 0);
        assert_string_equal(seen(&f, &end_offset), "y");
        port_close(&q);
        tear_down(&f);
}

static void test_broker_away_before_the_commit_is_abortable(void **state)
{
        struct fixture f;
        struct port p;

        (void)state;
        set_up(&f);
        port_open(&f, &p, "a");
        assert_int_equal(df_txn_begin(p.txn, NULL), 0);
        df_sim_broker_down(f.sim, true);
        assert_int_equal(df_txn_offsets(p.txn, 1, "m", NULL), DF_EAGAIN);
        df_sim_broker_down(f.sim, false);
        assert_int_equal(df_txn_abort(p.txn, NULL), DF_ELOST); /* nothing had begun there */
        port_close(&p);
        tear_down(&f);
}

static void test_owner_that_was_replaced_has_lost(void **state)
{
        struct fixture f;
        struct port p, q;
        uint64_t end_offset;

        (void)state;
        set_up(&f);
        port_open(&f, &p, "a");
        assert_int_equal(port_prepare(&p, "x"), 0);
        port_open(&f, &q, "a");
        assert_int_equal(df_txn_commit(p.txn, NULL), DF_ELOST);
        assert_string_equal(seen(&f, &end_offset), "");
        df_sim_broker_advance(f.sim, 3000); /* p's heartbeat */
        assert_int_equal(df_group_poll(p.group, 0, &p.event, NULL), DF_EFENCED);
        port_close(&p);
        port_close(&q);
        tear_down(&f);
}

static void test_group_port_tells_changes_in_order(void **state)
{
        static const char *const topics[] = {"in"};
        struct port p, q = {0};
        struct fixture f;
        struct df_log *other;

        (void)state;
        set_up(&f);
        port_open(&f, &p, "a");
        df_group_rejoin(p.group); /* K7: leave and come back */
        assert_int_equal(change(&p), DF_GROUP_REVOKE);
        df_group_done(p.group);
        assert_int_equal(change(&p), DF_GROUP_ASSIGN);
        assert_int_equal(p.event.count, 2);
        df_group_done(p.group);
        other = df_sim_kafka_log_open(f.sim, 1);
        assert_int_equal(df_sim_kafka_group_open(other, "g", "b", &q.group, NULL), 0);
        assert_int_equal(df_group_subscribe(q.group, topics, 1, NULL), 0);
        assert_int_equal(change(&q), DF_GROUP_NONE); /* waits for a */
        df_sim_broker_advance(f.sim, 3000);
        assert_int_equal(change(&p), DF_GROUP_REVOKE);
        df_group_done(p.group);
        assert_int_equal(change(&p), DF_GROUP_ASSIGN);
        assert_int_equal(p.event.count, 1);
        df_group_done(p.group);
        assert_int_equal(change(&q), DF_GROUP_ASSIGN);
        df_group_done(q.group);
        df_sim_pause(f.sim, 0); /* a is silent, and comes back */
        df_sim_broker_advance(f.sim, 2 * DF_SIM_SESSION_MS);
        df_sim_resume(f.sim, 0);
        assert_int_equal(change(&q), DF_GROUP_REVOKE);
        df_group_done(q.group);
        assert_int_equal(change(&q), DF_GROUP_ASSIGN);
        assert_int_equal(q.event.count, 2);
        df_group_done(q.group);
        df_sim_broker_advance(f.sim, 1);
        assert_int_equal(change(&p), DF_GROUP_LOST);
        df_group_done(p.group);
        port_close(&p);
        df_group_close(q.group);
        df_log_close(other);
        tear_down(&f);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_commit_without_an_answer_is_asked_again),
                cmocka_unit_test(test_reckless_commit_counts_twice),
                cmocka_unit_test(test_commit_in_doubt_is_lost_and_its_ghost_is_fenced),
                cmocka_unit_test(test_broker_away_before_the_commit_is_abortable),
                cmocka_unit_test(test_owner_that_was_replaced_has_lost),
                cmocka_unit_test(test_group_port_tells_changes_in_order),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
