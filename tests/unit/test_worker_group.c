/* Workers as members of a group (K7, K8, K9): what is opened, kept, given up and committed when the
 * group says so. The group is a script, the sessions are faked. */
#include "worker_test.h"

/* A member that says what the test puts into its queue; one change at a time, each ended by done.
 * */
struct script {
        struct df_group base;
        pthread_mutex_t lock;
        struct {
                enum df_group_change change;
                uint32_t partitions[FAKES];
                size_t count;
        } queue[64];
        size_t said, end;
        bool pending;
        struct df_partition partitions[FAKES];
        char topics[128];
        atomic_int done, rejoins, closes, subscribes, fenced;
};

static struct script script;

static int subscribe(struct df_group *g, const char *const *topics, size_t count,
                     struct df_error *err)
{
        script.topics[0] = '\0';
        for (size_t i = 0; i < count; i++)
                (void)snprintf(script.topics + strlen(script.topics),
                               sizeof(script.topics) - strlen(script.topics), "%s ", topics[i]);
        atomic_fetch_add(&script.subscribes, 1);
        return 0;
}

static int poll_group(struct df_group *g, int timeout_ms, struct df_group_event *ret,
                      struct df_error *err)
{
        ret->change = DF_GROUP_NONE;
        if (atomic_load(&script.fenced))
                return df_fail(err, DF_EFENCED, "another process is main-0");
        pthread_mutex_lock(&script.lock);
        assert_false(script.pending);
        if (script.said < script.end) {
                size_t i = script.said++;

                script.pending = true;
                ret->change = script.queue[i].change;
                ret->count = script.queue[i].count;
                ret->partitions = script.partitions;
                for (size_t p = 0; p < ret->count; p++)
                        script.partitions[p] = (struct df_partition){
                                .topic = "events", .partition = script.queue[i].partitions[p]};
        }
        pthread_mutex_unlock(&script.lock);
        return 0;
}

static void done(struct df_group *g)
{
        pthread_mutex_lock(&script.lock);
        assert_true(script.pending);
        script.pending = false;
        pthread_mutex_unlock(&script.lock);
        atomic_fetch_add(&script.done, 1);
}

static void rejoin(struct df_group *g)
{
        atomic_fetch_add(&script.rejoins, 1);
}

static void close_group(struct df_group *g)
{
        for (int i = 0; i < FAKES; i++) /* sessions end before their member leaves */
                assert_false(atomic_load(&fakes[i].open));
        atomic_fetch_add(&script.closes, 1);
}

static const struct df_group_ops group_ops = {subscribe, poll_group, done, rejoin, close_group};

static int open_group(void *arg, uint32_t worker, struct df_group **ret, struct df_error *err)
{
        script.base.ops = &group_ops;
        *ret = &script.base;
        return 0;
}

static int task_of(void *arg, const struct df_partition *p, struct df_worker_task *ret,
                   struct df_error *err)
{
        static char names[FAKES][32];

        assert_string_equal(p->topic, "events");
        (void)snprintf(names[p->partition], sizeof(names[0]), "events/%u", p->partition);
        *ret = (struct df_worker_task){
                .name = names[p->partition],
                .open_state = open_state,
                .open_arg = &fakes[p->partition],
                .config.source = {.stream = "events", .partition = p->partition}};
        return 0;
}

static void start(void)
{
        static const char *const topics[] = {"events", "import.a"};
        struct df_workers_options o = {.threads = 1,
                                       .interval_min_ms = 60000,
                                       .interval_max_ms = 60000,
                                       .idle_commit_ms = 60000,
                                       .poll_records = 10,
                                       .open_group = open_group,
                                       .task_of = task_of};

        memset(&script, 0, sizeof(script));
        pthread_mutex_init(&script.lock, NULL);
        assert_int_equal(df_workers_create(&o, &pool, NULL), 0);
        assert_int_equal(df_workers_subscribe(pool, topics, 2, NULL), 0);
        wait_for(&script.subscribes, 1);
        assert_string_equal(script.topics, "events import.a ");
}

/* A change with these partitions, as digits. */
static void begin(enum df_group_change change, const char *partitions)
{
        pthread_mutex_lock(&script.lock);
        script.queue[script.end].change = change;
        script.queue[script.end].count = strlen(partitions);
        for (size_t i = 0; partitions[i]; i++)
                script.queue[script.end].partitions[i] = (uint32_t)(partitions[i] - '0');
        script.end++;
        pthread_mutex_unlock(&script.lock);
}

/* Returns when it was followed. */
static void say(enum df_group_change change, const char *partitions)
{
        int before = atomic_load(&script.done);

        begin(change, partitions);
        wait_for(&script.done, before + 1);
}

/* The worker knows of the change, and has not followed it. */
static void begin_and_wait(enum df_group_change change, const char *partitions)
{
        int64_t until = df_monotonic_ms() + WAIT_MS;
        bool pending = false;

        begin(change, partitions);
        while (!pending && df_monotonic_ms() < until) {
                pthread_mutex_lock(&script.lock);
                pending = script.pending;
                pthread_mutex_unlock(&script.lock);
                (void)usleep(1000);
        }
        assert_true(pending);
        (void)usleep(20000); /* time to do it wrong in */
}

static bool shown(uint32_t partition)
{
        struct seen s = {.partition = partition};

        df_workers_each(pool, look, &s);
        return s.found;
}

/* ---- tests ---- */

/* K8: only what is assigned is opened; what goes to another member is committed first and closed.
 * */
static void test_assigned_and_given_up(void **state)
{
        start();
        atomic_store(&fakes[0].available, 25);
        atomic_store(&fakes[1].available, 25);
        say(DF_GROUP_ASSIGN, "01");
        wait_view(0, true, 0);
        wait_view(1, true, 0);
        while (atomic_load(&fakes[0].available) + atomic_load(&fakes[1].available) > 0)
                (void)usleep(1000);
        assert_false(shown(2));
        say(DF_GROUP_REVOKE, "");
        assert_int_equal(atomic_load(&fakes[0].commits), 1);
        assert_int_equal(atomic_load(&fakes[1].commits), 1);
        assert_int_equal(atomic_load(&fakes[0].processed), 25);
        say(DF_GROUP_ASSIGN, "12");
        wait_view(2, true, 0);
        assert_false(atomic_load(&fakes[0].open));
        assert_false(shown(0));
        /* K9: kept, not opened again. */
        assert_true(atomic_load(&fakes[1].open));
        assert_int_equal(atomic_load(&fakes[1].opens), 1);
        assert_int_equal(atomic_load(&fakes[1].keeps), 1);
        stop();
        assert_int_equal(atomic_load(&script.closes), 1);
}

/* K9: when somebody else committed in between, the kept state is worth nothing. */
static void test_not_kept(void **state)
{
        start();
        say(DF_GROUP_ASSIGN, "3");
        wait_view(3, true, 0);
        atomic_store(&fakes[3].keep_fails, 1);
        say(DF_GROUP_REVOKE, "");
        say(DF_GROUP_ASSIGN, "3");
        wait_for(&fakes[3].opens, 2);
        wait_view(3, true, 0);
        stop();
}

/* K7: after the assignment is lost nothing is committed, and nothing opened before a new one. */
static void test_lost(void **state)
{
        start();
        atomic_store(&fakes[0].available, 5);
        say(DF_GROUP_ASSIGN, "0");
        wait_view(0, true, 0);
        while (atomic_load(&fakes[0].available) > 0)
                (void)usleep(1000);
        say(DF_GROUP_LOST, "");
        assert_int_equal(atomic_load(&fakes[0].commits), 0);
        assert_false(atomic_load(&fakes[0].open));
        (void)usleep(50000);
        assert_int_equal(atomic_load(&fakes[0].opens), 1);
        say(DF_GROUP_ASSIGN, "0");
        wait_for(&fakes[0].opens, 2);
        stop();
        assert_int_equal(atomic_load(&fakes[0].processed), 5);
}

/* K7: an owner that was fenced asks for an assignment, and does not fence back by itself. */
static void test_fenced_owner_waits(void **state)
{
        start();
        say(DF_GROUP_ASSIGN, "01");
        wait_view(0, true, 0);
        wait_view(1, true, 0);
        atomic_store(&fakes[0].commit_code, DF_ELOST);
        atomic_store(&fakes[0].commit_fails, 1);
        atomic_store(&fakes[0].wants_cut, 1);
        wait_for(&script.rejoins, 1);
        wait_view(0, false, 0);
        (void)usleep(50000);
        assert_int_equal(atomic_load(&fakes[0].opens), 1);
        assert_true(atomic_load(&fakes[1].open)); /* the others go on (K11) */
        atomic_store(&fakes[0].wants_cut, 0);
        say(DF_GROUP_REVOKE, "");
        say(DF_GROUP_ASSIGN, "01");
        wait_for(&fakes[0].opens, 2);
        assert_int_equal(atomic_load(&fakes[1].opens), 1);
        assert_int_equal(atomic_load(&script.rejoins), 1);
        stop();
}

/* K11: a refused partition is tried again when it is assigned again. */
static void test_refused_until_assigned_again(void **state)
{
        start();
        atomic_store(&fakes[0].open_fails, 1);
        atomic_store(&fakes[0].open_code, DF_ECORRUPT);
        say(DF_GROUP_ASSIGN, "01");
        wait_view(0, false, DF_ECORRUPT);
        wait_view(1, true, 0);
        say(DF_GROUP_REVOKE, "");
        say(DF_GROUP_ASSIGN, "01");
        wait_view(0, true, 0);
        stop();
}

/* K9: assigned while the worker that had it, of this process, still parks it: tried again until it
 * is free, never refused. */
static void test_still_held_by_another_worker(void **state)
{
        start();
        atomic_store(&fakes[0].open_fails, 2);
        atomic_store(&fakes[0].open_code, DF_EFENCED);
        say(DF_GROUP_ASSIGN, "01");
        wait_view(0, true, 0);
        assert_int_equal(atomic_load(&fakes[0].opens), 3);
        assert_int_equal(atomic_load(&script.rejoins), 0);
        stop();
}

/* A revoke that cannot be committed gives the partition up all the same. */
static void test_revoke_with_failing_commit(void **state)
{
        start();
        atomic_store(&fakes[0].available, 5);
        say(DF_GROUP_ASSIGN, "0");
        wait_view(0, true, 0);
        while (atomic_load(&fakes[0].available) > 0)
                (void)usleep(1000);
        atomic_store(&fakes[0].commit_code, DF_EIO);
        atomic_store(&fakes[0].commit_fails, 1);
        say(DF_GROUP_REVOKE, "");
        assert_false(atomic_load(&fakes[0].open));
        say(DF_GROUP_ASSIGN, "");
        assert_false(shown(0));
        stop();
        assert_int_equal(atomic_load(&fakes[0].processed), 0);
}

/* Partitions 0 and 1 assigned; 0 in the middle of a commit, 1 with records not committed. */
static void hold_commit(void)
{
        start();
        atomic_store(&fakes[0].available, 5);
        atomic_store(&fakes[1].available, 5);
        say(DF_GROUP_ASSIGN, "01");
        wait_for(&fakes[0].polled, 5);
        wait_for(&fakes[1].polled, 5);
        hold(0, true);
        atomic_store(&fakes[0].wants_cut, 1);
        wait_for(&fakes[0].begun, 1);
}

/* K7, K9: a revoke is answered when the commit under way has ended and the others have committed;
 * then all are parked, and kept. */
static void test_revoke_during_a_commit(void **state)
{
        hold_commit();
        begin_and_wait(DF_GROUP_REVOKE, "");
        assert_int_equal(atomic_load(&script.done), 1);
        assert_true(atomic_load(&fakes[0].open));
        hold(0, false);
        wait_for(&script.done, 2);
        assert_int_equal(atomic_load(&fakes[0].commits), 1);
        assert_int_equal(atomic_load(&fakes[1].commits), 1);
        say(DF_GROUP_ASSIGN, "01");
        assert_int_equal(atomic_load(&fakes[0].keeps), 1);
        assert_int_equal(atomic_load(&fakes[1].keeps), 1);
        stop();
        for (int i = 0; i < 2; i++) {
                assert_int_equal(atomic_load(&fakes[i].opens), 1);
                assert_int_equal(atomic_load(&fakes[i].processed), 5);
        }
}

/* K7: the session in a commit when its partition is lost is closed after it, and whatever it said
 * nothing is opened before an assignment. */
static void test_lost_during_a_commit(void **state)
{
        hold_commit();
        begin_and_wait(DF_GROUP_LOST, "");
        assert_true(atomic_load(&fakes[0].open));
        atomic_store(&fakes[0].commit_code, DF_ELOST);
        atomic_store(&fakes[0].commit_fails, 1);
        hold(0, false);
        wait_for(&script.done, 2);
        assert_false(atomic_load(&fakes[0].open));
        assert_false(atomic_load(&fakes[1].open));
        assert_int_equal(atomic_load(&fakes[1].commits), 0);
        atomic_store(&fakes[0].wants_cut, 0);
        say(DF_GROUP_ASSIGN, "0");
        wait_for(&fakes[0].opens, 2);
        stop();
        assert_int_equal(atomic_load(&script.rejoins), 0); /* that assignment will do */
        assert_int_equal(atomic_load(&fakes[0].processed), 5);
}

/* K7: what had failed when its partition was revoked is not taken over again by itself. */
static void test_failed_before_a_revoke(void **state)
{
        int opens;

        hold_commit();
        begin_and_wait(DF_GROUP_REVOKE, "");
        atomic_store(&fakes[0].commit_code, DF_EIO);
        atomic_store(&fakes[0].commit_fails, 1);
        hold(0, false);
        wait_for(&script.done, 2);
        opens = atomic_load(&fakes[0].opens);
        (void)usleep(300 * 1000); /* longer than the first back-off */
        assert_int_equal(atomic_load(&fakes[0].opens), opens);
        atomic_store(&fakes[0].wants_cut, 0);
        say(DF_GROUP_ASSIGN, "0");
        wait_for(&fakes[0].opens, 2);
        stop();
        assert_int_equal(atomic_load(&fakes[0].processed), 5);
}

/* Two processes under one instance name: the older ends. */
static void test_same_instance_twice(void **state)
{
        struct df_error err = {0};
        int64_t until = df_monotonic_ms() + WAIT_MS;

        start();
        say(DF_GROUP_ASSIGN, "0");
        assert_int_equal(df_workers_failed(pool, &err), 0);
        atomic_store(&script.fenced, 1);
        while (df_workers_failed(pool, &err) == 0 && df_monotonic_ms() < until)
                (void)usleep(1000);
        assert_int_equal(df_workers_failed(pool, &err), DF_EFENCED);
        assert_true(df_process_stopping());
        stop();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_assigned_and_given_up, clear, end),
                cmocka_unit_test_setup_teardown(test_not_kept, clear, end),
                cmocka_unit_test_setup_teardown(test_lost, clear, end),
                cmocka_unit_test_setup_teardown(test_fenced_owner_waits, clear, end),
                cmocka_unit_test_setup_teardown(test_refused_until_assigned_again, clear, end),
                cmocka_unit_test_setup_teardown(test_still_held_by_another_worker, clear, end),
                cmocka_unit_test_setup_teardown(test_revoke_with_failing_commit, clear, end),
                cmocka_unit_test_setup_teardown(test_revoke_during_a_commit, clear, end),
                cmocka_unit_test_setup_teardown(test_lost_during_a_commit, clear, end),
                cmocka_unit_test_setup_teardown(test_failed_before_a_revoke, clear, end),
                cmocka_unit_test_setup_teardown(test_same_instance_twice, clear, end),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
