/* Membership on a real broker (df/group.h): who owns what, static members (K7, K9, K12), and the
 * name that two processes use. */
#include "kafka_group_test.h"

static const char *stage(uint32_t partitions)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);

        ok(df_log_topic_create(log, "e", partitions, &err));
        df_log_close(log);
        return prefix;
}

/* Of two members: together all, and none twice. */
static void assert_split(const struct member *a, const struct member *b, int partitions)
{
        for (int p = 0; p < partitions; p++)
                if (a->has[p] == b->has[p])
                        fail_msg("partition %d belongs to %s", p, a->has[p] ? "both" : "neither");
        assert_int_equal(a->count + b->count, partitions);
}

static void one_member_gets_all(void **state)
{
        struct member a;

        member_open(&a, stage(4), "w0");
        member_settles(&a, 4);
        for (int p = 0; p < 4; p++)
                assert_true(a.has[p]);
        assert_int_equal(a.assigns, 1);
        assert_int_equal(a.revokes + a.losses, 0);
        member_close(&a);
}

static void a_second_member_takes_its_share(void **state)
{
        const char *prefix = stage(5);
        struct member a, b, *both[] = {&a, &b};

        member_open(&a, prefix, "w0");
        member_settles(&a, 5);
        member_open(&b, prefix, "w1");
        members_settle(both, 2, 5, 1);
        assert_split(&a, &b, 5);
        assert_int_equal(a.revokes, 1); /* asked to give up, before anything was taken */
        assert_int_equal(a.losses, 0);
        assert_int_equal(a.assigns, 2);
        assert_int_equal(b.assigns, 1);
        member_close(&a);
        member_close(&b);
}

static void a_third_member_without_a_share_is_told_so(void **state)
{
        const char *prefix = stage(2);
        struct member m[3], *all[] = {&m[0], &m[1], &m[2]};
        int64_t until;

        for (int i = 0; i < 3; i++)
                member_open(&m[i], prefix, i == 0 ? "w0" : i == 1 ? "w1" : "w2");
        until = dfk_now_ms() + 2 * WAIT_MS;
        do { /* one of them owns nothing, and knows */
                members_settle(all, 3, 2, 0);
                if (dfk_now_ms() > until)
                        fail_msg("assigned: %d %d %d times", m[0].assigns, m[1].assigns,
                                 m[2].assigns);
        } while (!m[0].assigns || !m[1].assigns || !m[2].assigns);
        for (int p = 0; p < 2; p++)
                assert_int_equal(m[0].has[p] + m[1].has[p] + m[2].has[p], 1);
        for (int i = 0; i < 3; i++)
                member_close(&m[i]);
}

/* K12: a restart within the session time-out moves nothing. */
static void a_static_member_returns_to_what_it_had(void **state)
{
        const char *prefix = stage(4);
        struct member a, b, *both[] = {&a, &b};
        bool had[PARTITIONS_MAX];
        int assigns, revokes;

        member_open(&a, prefix, "w0");
        member_open(&b, prefix, "w1");
        members_settle(both, 2, 4, 2);
        memcpy(had, b.has, sizeof(had));
        assigns = a.assigns;
        revokes = a.revokes;
        member_close(&b);
        for (int i = 0; i < 20; i++)
                assert_int_equal(member_poll(&a), DF_GROUP_NONE);
        member_open(&b, prefix, "w1");
        members_settle(both, 2, 4, 2);
        assert_memory_equal(had, b.has, sizeof(had));
        for (int i = 0; i < 20; i++) {
                assert_int_equal(member_poll(&a), DF_GROUP_NONE);
                assert_int_equal(member_poll(&b), DF_GROUP_NONE);
        }
        assert_int_equal(a.assigns, assigns);
        assert_int_equal(a.revokes, revokes);
        assert_int_equal(a.losses, 0);
        assert_split(&a, &b, 4);
        member_close(&a);
        member_close(&b);
}

static void what_a_member_leaves_for_good_goes_to_others(void **state)
{
        const char *prefix = stage(4);
        struct member a, b, *both[] = {&a, &b};

        session_ms = 2000;
        member_open(&a, prefix, "w0");
        member_open(&b, prefix, "w1");
        members_settle(both, 2, 4, 2);
        member_close(&b);
        member_settles(&a, 4);
        session_ms = SESSION_MS;
        member_close(&a);
}

static void the_older_of_two_with_one_name_ends(void **state)
{
        const char *prefix = stage(4);
        struct member a, b;
        int64_t until = dfk_now_ms() + 2 * WAIT_MS;

        member_open(&a, prefix, "w0");
        member_settles(&a, 4);
        member_open(&b, prefix, "w0");
        while (!a.failed) {
                (void)member_poll(&b);
                if (b.failed)
                        fail_msg("the younger one: %s", err.text);
                (void)member_poll(&a);
                if (dfk_now_ms() > until)
                        fail_msg("the older one was not told");
        }
        assert_int_equal(a.failed, DF_EFENCED);
        assert_non_null(strstr(err.text, full_name(prefix, "w0")));
        assert_non_null(strstr(err.text, "--instance"));
        member_settles(&b, 4);
        (void)member_poll(&a); /* it stays so */
        assert_int_equal(a.failed, DF_EFENCED);
        member_close(&a);
        member_close(&b);
}

/* K7: after it, an assignment that was decided later. */
static void a_rejoin_gives_a_later_assignment(void **state)
{
        const char *prefix = stage(4);
        struct member a, b, *both[] = {&a, &b};
        int others;

        member_open(&a, prefix, "w0");
        member_open(&b, prefix, "w1");
        members_settle(both, 2, 4, 2);
        others = b.revokes + b.losses;
        for (int i = 1; i <= 3; i++) {
                int assigns = a.assigns, gone = a.revokes + a.losses;

                df_group_rejoin(a.group);
                members_settle(both, 2, 4, 2);
                while (a.assigns == assigns)
                        members_settle(both, 2, 4, 2);
                assert_int_equal(a.assigns, assigns + 1);
                assert_int_equal(a.revokes + a.losses, gone + 1);
                assert_split(&a, &b, 4);
        }
        assert_int_equal(b.revokes + b.losses, others); /* nobody else is disturbed */
        member_close(&a);
        member_close(&b);
}

static void a_topic_that_is_subscribed_later_comes_too(void **state)
{
        static const char *const topics[] = {"e", "f"};
        const char *prefix = stage(2);
        struct member a;

        member_open(&a, prefix, "w0");
        member_settles(&a, 2);
        ok(df_log_topic_create(a.log, "f", 3, &err));
        ok(df_group_subscribe(a.group, topics, 2, &err));
        member_settles(&a, 5);
        ok(df_group_subscribe(a.group, topics, 2, &err)); /* the same again */
        df_group_rejoin(a.group);                         /* keeps the subscription */
        member_expects(&a, DF_GROUP_ASSIGN);
        member_settles(&a, 5);
        member_close(&a);
}

/* K13: neither its own task nor a dead one can commit for a member that has left the group. */
static void a_member_that_rejoins_commits_under_its_new_self_alone(void **state)
{
        const char *prefix = stage(1);
        struct df_txn *t = NULL;
        struct df_committed c;
        struct member a;

        member_open(&a, prefix, "w0");
        member_settles(&a, 1);
        ok(df_kafka_txn_open(a.log, a.group, "e", 0, &t, &err));
        ok(df_txn_takeover(t, &c, &err));
        df_group_rejoin(a.group);
        member_expects(&a, DF_GROUP_ASSIGN);
        ok(df_txn_begin(t, &err));
        fails(df_txn_offsets(t, 1, "old", &err), DF_ELOST, "send_offsets_to_transaction");
        df_txn_close(t);
        ok(df_kafka_txn_open(a.log, a.group, "e", 0, &t, &err));
        ok(df_txn_takeover(t, &c, &err));
        assert_false(c.any);
        ok(df_txn_begin(t, &err));
        ok(df_txn_offsets(t, 2, "new", &err));
        ok(df_txn_commit(t, &err));
        df_txn_close(t);
        member_close(&a);
}

/* K7: one of a run says that it goes; no session ends in the time that is given here. */
static void what_a_member_of_a_run_leaves_is_free_at_once(void **state)
{
        const char *prefix = stage(4);
        struct member a, b;

        (void)state;
        session_ms = 10 * WAIT_MS;
        run_member_open(&a, prefix, "a");
        member_settles(&a, 4);
        member_close(&a);
        run_member_open(&b, prefix, "b");
        member_settles(&b, 4);
        df_group_rejoin(b.group); /* leaves, and comes back as another one */
        member_expects(&b, DF_GROUP_REVOKE);
        member_settles(&b, 4);
        df_group_close(b.group);
        ok(df_kafka_group_delete(b.log, GROUP, &err)); /* nobody is in it */
        df_log_close(b.log);
        session_ms = SESSION_MS;
}

/* K7: in the order of their names, whoever came first. */
static void members_of_a_run_get_the_same_again(void **state)
{
        const char *prefix = stage(4);

        (void)state;
        for (int i = 0; i < 4; i++) {
                struct member m[2], *both[] = {&m[0], &m[1]};

                for (int j = 0; j < 2; j++)
                        run_member_open(&m[(i + j) % 2], prefix, (i + j) % 2 ? "b" : "a");
                members_settle(both, 2, 4, 2);
                for (int p = 0; p < 4; p++)
                        assert_int_equal(m[0].has[p], p < 2);
                member_close(&m[0]);
                member_close(&m[1]);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(one_member_gets_all),
                cmocka_unit_test(a_second_member_takes_its_share),
                cmocka_unit_test(a_third_member_without_a_share_is_told_so),
                cmocka_unit_test(a_static_member_returns_to_what_it_had),
                cmocka_unit_test(what_a_member_leaves_for_good_goes_to_others),
                cmocka_unit_test(the_older_of_two_with_one_name_ends),
                cmocka_unit_test(a_rejoin_gives_a_later_assignment),
                cmocka_unit_test(a_topic_that_is_subscribed_later_comes_too),
                cmocka_unit_test(a_member_that_rejoins_commits_under_its_new_self_alone),
                cmocka_unit_test(what_a_member_of_a_run_leaves_is_free_at_once),
                cmocka_unit_test(members_of_a_run_get_the_same_again),
        };

        if (!getenv("TEST_KAFKA"))
                return SKIPPED;
        return cmocka_run_group_tests(tests, NULL, NULL);
}
