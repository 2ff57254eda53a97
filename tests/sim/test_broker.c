/* test_broker.c - the model broker keeps Kafka's rules. What the simulation of the job proves is
 * worth what this proves, and test_broker_ports.c. */
#include "broker_test.h"

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
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
