/* test_broker.c - the model broker keeps Kafka's rules, and the ports over it those of df/log.h,
 * df/txn.h and df/group.h. What the simulation of the job proves is worth what this proves. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "runtime/sim/broker_private.h"

#define SEED 7

static const struct df_sim_net quiet = {0};

struct fixture {
        struct df_sim *sim;
        struct dfi_broker *broker;
        struct df_log *log; /* of process 0 */
};

static void set_up(struct fixture *f)
{
        f->sim = df_sim_create(SEED);
        f->log = df_sim_kafka_log_open(f->sim, 0);
        f->broker = f->sim->broker;
        assert_int_equal(df_log_topic_create(f->log, "in", 2, NULL), 0);
        assert_int_equal(df_log_topic_create(f->log, "out", 1, NULL), 0);
}

static void tear_down(struct fixture *f)
{
        df_log_close(f->log);
        df_sim_destroy(f->sim);
}

/* ---- requests by hand ---- */

static struct dfi_answer ask(struct fixture *f, struct dfi_request *q, enum dfi_api api)
{
        const struct dfi_sim_at at = dfi_sim_here(f->sim, 0);
        struct dfi_answer a;

        q->api = api;
        assert_int_equal(dfi_net_call(&at, q, &a, NULL), 0);
        free(a.partitions);
        a.partitions = NULL;
        return a;
}

static struct dfi_request producer(struct fixture *f, const char *id)
{
        struct dfi_request q = {0};
        struct dfi_answer a;

        dfi_name_copy(q.id, sizeof(q.id), id);
        a = ask(f, &q, DFI_INIT_PRODUCER_ID);
        assert_int_equal(a.code, DFI_K_OK);
        q.pid = a.pid;
        q.epoch = a.epoch;
        dfi_name_copy(q.topic, sizeof(q.topic), "out");
        return q;
}

static struct dfi_answer produce(struct fixture *f, struct dfi_request *q, uint64_t sequence,
                                 const char *value)
{
        const struct df_bytes bytes = df_bytes_str(value);

        q->values = &bytes;
        q->value_count = 1;
        q->sequence = sequence;
        return ask(f, q, DFI_PRODUCE);
}

static void begin(struct fixture *f, struct dfi_request *q, uint64_t sequence, const char *value)
{
        assert_int_equal(ask(f, q, DFI_ADD_PARTITIONS).code, DFI_K_OK);
        assert_int_equal(produce(f, q, sequence, value).code, DFI_K_OK);
}

static enum dfi_answer_code end(struct fixture *f, struct dfi_request *q, bool commit)
{
        q->commit = commit;
        return ask(f, q, DFI_END_TXN).code;
}

/* What read_committed sees of out/0, as one text; its end. */
static const char *seen(struct fixture *f, uint64_t *ret_end)
{
        static char text[64];
        struct df_log_reader *r = NULL;
        struct df_record records[8];
        uint64_t first;
        size_t n, len = 0;

        text[0] = '\0';
        assert_int_equal(df_log_bounds(f->log, "out", 0, &first, ret_end, NULL), 0);
        assert_int_equal(df_log_reader_open(f->log, "out", 0, 0, NULL, &r, NULL), 0);
        do {
                assert_int_equal(df_log_poll(r, records, 8, &n, NULL), 0);
                for (size_t i = 0; i < n; i++)
                        len += (size_t)snprintf(text + len, sizeof(text) - len, "%.*s",
                                                (int)records[i].value.len,
                                                (const char *)records[i].value.data);
        } while (n > 0);
        assert_int_equal(df_log_position(r), *ret_end);
        df_log_reader_close(r);
        return text;
}

/* ---- the log ---- */

static void test_stable_offset_stops_at_the_first_open_transaction(void **state)
{
        struct dfi_request a, b;
        struct fixture f;
        uint64_t end_offset;

        (void)state;
        set_up(&f);
        a = producer(&f, "a");
        b = producer(&f, "b");
        begin(&f, &a, 0, "a");
        begin(&f, &b, 0, "b");
        assert_int_equal(end(&f, &b, true), DFI_K_OK);
        assert_string_equal(seen(&f, &end_offset), "");
        assert_int_equal(end_offset, 0);
        assert_int_equal(end(&f, &a, false), DFI_K_OK); /* aborted: never seen */
        assert_string_equal(seen(&f, &end_offset), "b");
        assert_int_equal(end_offset, 4); /* two records, two markers */
        tear_down(&f);
}

static void test_sequence_numbers_store_once_and_in_order(void **state)
{
        struct dfi_request q;
        struct fixture f;
        uint64_t end_offset;

        (void)state;
        set_up(&f);
        q = producer(&f, "");
        assert_int_equal(produce(&f, &q, 0, "0").code, DFI_K_OK);
        assert_int_equal(produce(&f, &q, 2, "2").code, DFI_K_OUT_OF_ORDER); /* before 1 */
        assert_int_equal(produce(&f, &q, 1, "1").code, DFI_K_OK);
        assert_int_equal(produce(&f, &q, 1, "1").offset, 1); /* the same again: where it is */
        assert_int_equal(produce(&f, &q, 0, "0").code, DFI_K_OUT_OF_ORDER);
        assert_string_equal(seen(&f, &end_offset), "01");
        assert_int_equal(end_offset, 2);
        tear_down(&f);
}

/* ---- transactions ---- */

static void test_init_producer_fences_and_aborts(void **state)
{
        struct dfi_request old, q = {.id = "a"};
        struct dfi_answer a;
        struct fixture f;
        uint64_t end_offset;

        (void)state;
        set_up(&f);
        old = producer(&f, "a");
        begin(&f, &old, 0, "x");
        assert_int_equal(ask(&f, &q, DFI_INIT_PRODUCER_ID).code, DFI_K_CONCURRENT);
        assert_int_equal(end(&f, &old, true), DFI_K_FENCED); /* at once, not after the next one */
        a = ask(&f, &q, DFI_INIT_PRODUCER_ID);
        assert_int_equal(a.code, DFI_K_OK);
        assert_int_equal(a.pid, old.pid);
        assert_true(a.epoch > old.epoch);
        assert_int_equal(produce(&f, &old, 1, "y").code, DFI_K_FENCED);
        assert_string_equal(seen(&f, &end_offset), "");
        tear_down(&f);
}

static void test_init_producer_waits_for_an_accepted_commit(void **state)
{
        struct dfi_request old, q = {.id = "a"};
        struct fixture f;
        uint64_t end_offset;
        int tries = 0;

        (void)state;
        set_up(&f);
        old = producer(&f, "a");
        begin(&f, &old, 0, "x");
        df_sim_net_set(f.sim, (struct df_sim_net){.markers = 1000});
        assert_int_equal(end(&f, &old, true), DFI_K_OK);
        df_sim_net_set(f.sim, quiet);
        while (ask(&f, &q, DFI_INIT_PRODUCER_ID).code == DFI_K_CONCURRENT) {
                assert_true(tries++ < 100);
                df_sim_broker_advance(f.sim, 100);
        }
        assert_string_equal(seen(&f, &end_offset), "x");
        tear_down(&f);
}

static void test_transaction_is_aborted_by_its_time_out(void **state)
{
        struct dfi_request a;
        struct fixture f;
        uint64_t end_offset;

        (void)state;
        set_up(&f);
        a = producer(&f, "a");
        begin(&f, &a, 0, "x");
        df_sim_broker_advance(f.sim, DF_SIM_TRANSACTION_MS + 1000);
        assert_int_equal(end(&f, &a, true), DFI_K_FENCED);
        assert_string_equal(seen(&f, &end_offset), "");
        assert_int_equal(end_offset, 2);
        tear_down(&f);
}

/* ---- the group ---- */

static struct dfi_request member(const char *instance)
{
        struct dfi_request q = {.group = "g", .topics = {.names = {"in"}, .count = 1}};

        dfi_name_copy(q.instance, sizeof(q.instance), instance);
        return q;
}

static struct dfi_answer join(struct fixture *f, struct dfi_request *q)
{
        struct dfi_answer a = ask(f, q, DFI_JOIN_GROUP);

        q->member = a.member;
        q->generation = a.generation;
        return a;
}

static enum dfi_answer_code beat(struct fixture *f, struct dfi_request *q)
{
        return ask(f, q, DFI_HEARTBEAT).code;
}

static void test_members_share_partitions_by_range(void **state)
{
        struct dfi_request a = member("a"), b = member("b");
        struct fixture f;

        (void)state;
        set_up(&f);
        assert_int_equal(join(&f, &a).partition_count, 2);
        assert_int_equal(join(&f, &b).code, DFI_K_WAIT); /* for a */
        assert_int_equal(beat(&f, &a), DFI_K_REBALANCE);
        assert_int_equal(join(&f, &a).partition_count, 1);
        assert_int_equal(join(&f, &b).partition_count, 1);
        assert_int_equal(a.generation, b.generation);
        assert_int_equal(beat(&f, &a), DFI_K_OK);
        a.generation--;
        assert_int_equal(beat(&f, &a), DFI_K_ILLEGAL_GENERATION);
        tear_down(&f);
}

static void test_static_member_comes_back_without_a_rebalance(void **state)
{
        struct dfi_request old = member("a"), again = member("a");
        struct fixture f;

        (void)state;
        set_up(&f);
        assert_int_equal(join(&f, &old).code, DFI_K_OK);
        assert_int_equal(join(&f, &again).partition_count, 2);
        assert_int_equal(again.generation, old.generation);
        assert_true(again.member != old.member);
        assert_int_equal(beat(&f, &old), DFI_K_FENCED_INSTANCE);
        assert_int_equal(join(&f, &old).code, DFI_K_FENCED_INSTANCE);
        tear_down(&f);
}

static void test_session_expires(void **state)
{
        struct dfi_request a = member("a"), b = member("b");
        struct fixture f;

        (void)state;
        set_up(&f);
        (void)join(&f, &a);
        df_sim_broker_advance(f.sim, DF_SIM_SESSION_MS - 1000);
        assert_int_equal(beat(&f, &a), DFI_K_OK);
        df_sim_broker_advance(f.sim, DF_SIM_SESSION_MS - 1000);
        assert_int_equal(beat(&f, &a), DFI_K_OK);
        assert_int_equal(join(&f, &b).code, DFI_K_WAIT);
        df_sim_broker_advance(f.sim, DF_SIM_SESSION_MS + 1000); /* a is silent; b waits */
        assert_int_equal(join(&f, &b).partition_count, 2);
        assert_int_equal(beat(&f, &a), DFI_K_UNKNOWN_MEMBER);
        tear_down(&f);
}

/* ---- offsets in transactions ---- */

static struct dfi_request owner(struct fixture *f, const char *instance)
{
        struct dfi_request q = member(instance), p = producer(f, "t");

        (void)join(f, &q);
        dfi_name_copy(q.id, sizeof(q.id), "t");
        dfi_name_copy(q.topic, sizeof(q.topic), "in");
        q.pid = p.pid;
        q.epoch = p.epoch;
        q.offset = 5;
        dfi_name_copy(q.metadata, sizeof(q.metadata), "m");
        return q;
}

static void test_offset_is_pending_until_the_markers(void **state)
{
        struct dfi_request q;
        struct dfi_answer a;
        struct fixture f;

        (void)state;
        set_up(&f);
        q = owner(&f, "a");
        assert_int_equal(ask(&f, &q, DFI_TXN_OFFSET_COMMIT).code, DFI_K_INVALID_STATE);
        assert_int_equal(ask(&f, &q, DFI_ADD_OFFSETS).code, DFI_K_OK);
        assert_int_equal(ask(&f, &q, DFI_TXN_OFFSET_COMMIT).code, DFI_K_OK);
        assert_int_equal(ask(&f, &q, DFI_OFFSET_FETCH).code, DFI_K_UNSTABLE);
        assert_int_equal(end(&f, &q, false), DFI_K_OK);
        a = ask(&f, &q, DFI_OFFSET_FETCH);
        assert_int_equal(a.code, DFI_K_OK);
        assert_false(a.committed.any); /* aborted */
        assert_int_equal(ask(&f, &q, DFI_ADD_OFFSETS).code, DFI_K_OK);
        assert_int_equal(ask(&f, &q, DFI_TXN_OFFSET_COMMIT).code, DFI_K_OK);
        df_sim_net_set(f.sim, (struct df_sim_net){.markers = 1000});
        assert_int_equal(end(&f, &q, true), DFI_K_OK);
        df_sim_net_set(f.sim, quiet);
        df_sim_broker_advance(f.sim, 5000);
        a = ask(&f, &q, DFI_OFFSET_FETCH);
        assert_int_equal(a.committed.offset, 5);
        assert_string_equal(a.committed.metadata, "m");
        tear_down(&f);
}

static void test_offsets_of_old_generations_and_members_are_refused(void **state)
{
        struct dfi_request q, again = member("a");
        struct fixture f;

        (void)state;
        set_up(&f);
        q = owner(&f, "a");
        assert_int_equal(ask(&f, &q, DFI_ADD_OFFSETS).code, DFI_K_OK);
        q.generation--;
        assert_int_equal(ask(&f, &q, DFI_TXN_OFFSET_COMMIT).code, DFI_K_ILLEGAL_GENERATION);
        q.generation++;
        (void)join(&f, &again);
        assert_int_equal(ask(&f, &q, DFI_TXN_OFFSET_COMMIT).code, DFI_K_FENCED_INSTANCE);
        dfi_name_copy(q.instance, sizeof(q.instance), "b");
        assert_int_equal(ask(&f, &q, DFI_TXN_OFFSET_COMMIT).code, DFI_K_UNKNOWN_MEMBER);
        tear_down(&f);
}

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
                cmocka_unit_test(test_stable_offset_stops_at_the_first_open_transaction),
                cmocka_unit_test(test_sequence_numbers_store_once_and_in_order),
                cmocka_unit_test(test_init_producer_fences_and_aborts),
                cmocka_unit_test(test_init_producer_waits_for_an_accepted_commit),
                cmocka_unit_test(test_transaction_is_aborted_by_its_time_out),
                cmocka_unit_test(test_members_share_partitions_by_range),
                cmocka_unit_test(test_static_member_comes_back_without_a_rebalance),
                cmocka_unit_test(test_session_expires),
                cmocka_unit_test(test_offset_is_pending_until_the_markers),
                cmocka_unit_test(test_offsets_of_old_generations_and_members_are_refused),
                cmocka_unit_test(test_commit_without_an_answer_is_asked_again),
                cmocka_unit_test(test_reckless_commit_counts_twice),
                cmocka_unit_test(test_commit_in_doubt_is_lost_and_its_ghost_is_fenced),
                cmocka_unit_test(test_broker_away_before_the_commit_is_abortable),
                cmocka_unit_test(test_owner_that_was_replaced_has_lost),
                cmocka_unit_test(test_group_port_tells_changes_in_order),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
