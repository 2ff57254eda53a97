/* A broker that is not there, goes away, or stops answering: what each call says (df/log.h,
 * df/txn.h), and that all goes on when it is back. Brokers of its own; TEST_KAFKA is only looked at
 * to skip. */
#include "kafka_driver.h"
#include "kafka_group_test.h"

/* A log that gives up soon. */
static struct df_log *open_hasty(const char *prefix)
{
        struct df_kafka_options o = options_of(prefix);
        struct df_log *log = NULL;

        o.produce_timeout_ms = 1500;
        o.replication = 1;
        ok(df_kafka_open(&o, &log, &err));
        return log;
}

/* ---- not there ---- */

static struct {
        pthread_t thread; /* it waits while the broker for the others is started */
        struct df_log *log;
        int rc;
        struct df_error err;
} nobody;

static void *open_nowhere(void *arg)
{
        struct df_kafka_options o = options_of("p.");

        o.brokers = "127.0.0.1:1,127.0.0.1:2";
        nobody.rc = df_kafka_open(&o, &nobody.log, &nobody.err);
        return NULL;
}

static void a_start_without_a_broker_names_the_address(void **state)
{
        assert_int_equal(pthread_join(nobody.thread, NULL), 0);
        assert_int_equal(nobody.rc, DF_EAGAIN);
        assert_non_null(strstr(nobody.err.text, "127.0.0.1:1,127.0.0.1:2"));
        assert_null(nobody.log);
}

/* ---- goes away ---- */

/* How often the value is in the partition. */
static int times_in(const struct read_all *all, const char *value)
{
        int n = 0;

        for (size_t i = 0; i < all->count; i++)
                n += strcmp(all->list[i].value, value) == 0;
        return n;
}

/* One append of its own value; *ret_rc 0: acknowledged. */
static int try_append(struct df_log_writer *w, const char *value)
{
        struct df_append a = {.value = df_bytes(value, strlen(value))};

        err = (struct df_error){0};
        return df_log_append(w, &a, 1, &err);
}

struct asked {
        struct df_log *log;
        int rc;
        struct df_error err;
};

static void *ask_bounds(void *arg)
{
        struct asked *a = arg;
        uint64_t first, end;

        a->rc = df_log_bounds(a->log, "e", 0, &first, &end, &a->err);
        return NULL;
}

/* Each of the two ways to be away: no connection, and no answer. */
static void appends_and_reads_go_on_afterwards(const char *away, const char *back)
{
        struct df_log *log = open_hasty(fresh_prefix());
        struct df_log_writer *w = NULL;
        struct df_log_reader *r = NULL;
        struct df_record record;
        struct asked asked = {.log = log};
        struct read_all all = {0};
        int64_t until = dfk_now_ms() + WAIT_MS;
        pthread_t t;
        uint64_t seen;
        size_t n;
        int rc;

        ok(df_log_topic_create(log, "e", 1, &err));
        ok(df_log_writer_open(log, "e", &w, &err));
        ok(df_log_reader_open(log, "e", 0, 0, NULL, &r, &err));
        ok(try_append(w, "before"));
        read_until(r, 1, &all);
        broker(away, 1);
        assert_int_equal(pthread_create(&t, NULL, ask_bounds, &asked), 0);
        rc = try_append(w, "during");
        assert_true(rc == DF_EAGAIN || rc == DF_EDOUBT);
        ok(df_log_poll(r, &record, 1, &n, &err)); /* a reader waits for it to come back */
        assert_int_equal(n, 0);
        ok(df_log_seen_end(r, "e", 0, &seen, &err)); /* K11: nobody is asked */
        assert_true(seen == 1);
        assert_int_equal(pthread_join(t, NULL), 0);
        assert_int_equal(asked.rc, DF_EAGAIN);
        broker(back, 1);
        while ((rc = try_append(w, "after")) < 0) { /* the same writer */
                assert_true(rc == DF_EAGAIN || rc == DF_EDOUBT);
                if (dfk_now_ms() > until + WAIT_MS)
                        fail_msg("append does not recover: %s", err.text);
        }
        read_until(r, end_of(log, "e", 0), &all); /* the same reader */
        assert_int_equal(times_in(&all, "before"), 1);
        assert_true(times_in(&all, "during") <= 1); /* in doubt: once or not at all */
        assert_true(times_in(&all, "after") >= 1);
        assert_string_equal(all.list[all.count - 1].value, "after");
        release_all(&all);
        df_log_reader_close(r);
        df_log_writer_close(w);
        df_log_close(log);
}

static void a_killed_broker_comes_back(void **state)
{
        appends_and_reads_go_on_afterwards("kill", "start");
}

static void a_broker_that_does_not_answer_goes_on(void **state)
{
        appends_and_reads_go_on_afterwards("pause", "resume");
}

/* ---- in the middle of a transaction ---- */

struct attempt {
        struct df_txn *t;
        struct df_append items[1];
        uint64_t offset;
        const char *metadata;
};

/* All of one transaction up to its commit. */
static int prepare(struct attempt *a)
{
        int rc = df_txn_begin(a->t, &err);

        if (rc == 0)
                rc = df_txn_produce(a->t, "out", a->items, 1, &err);
        return rc < 0 ? rc : df_txn_offsets(a->t, a->offset, a->metadata, &err);
}

/* What a session does about each answer (df/txn.h), until it is committed. A broker that is away
 * for as long as a session lasts costs the member its assignment, too, and that may be said at any
 * of the calls. */
static void commit_in_the_end(struct member *m, struct attempt *a, int rc, bool open)
{
        int64_t until = dfk_now_ms() + 2 * WAIT_MS;
        struct df_committed c;

        while (rc < 0) {
                if (dfk_now_ms() > until)
                        fail_msg("it is not committed: %s", err.text);
                if (rc == DF_EAGAIN && open)
                        rc = df_txn_abort(a->t, &err);
                else if (rc == DF_EAGAIN)
                        rc = 0;
                if (rc == DF_ELOST) {
                        df_txn_close(a->t);
                        df_group_rejoin(m->group);
                        member_expects(m, DF_GROUP_ASSIGN);
                        ok(df_kafka_txn_open(m->log, m->group, "e", 0, &a->t, &err));
                        rc = df_txn_takeover(a->t, &c, &err);
                        if (rc == 0 && c.any && c.offset == a->offset)
                                return; /* it had been committed, and the log says so */
                }
                open = rc == 0;
                if (rc == 0)
                        rc = prepare(a);
                if (rc == 0)
                        rc = df_txn_commit(a->t, &err);
                assert_true(rc == 0 || rc == DF_EAGAIN || rc == DF_ELOST);
        }
}

static void *bring_back(void *arg)
{
        dfk_pause(300);
        broker(arg, 1);
        return NULL;
}

static void a_commit_meets(const char *away, char *back)
{
        const char *prefix = fresh_prefix();
        struct attempt a = {.items = {{.value = df_bytes("x", 1)}}, .offset = 5, .metadata = "m"};
        struct df_committed c;
        struct member m;
        char metadata[64];
        pthread_t t;
        int rc;

        member_open(&m, prefix, "w0");
        ok(df_log_topic_create(m.log, "e", 1, &err));
        ok(df_log_topic_create(m.log, "out", 1, &err));
        member_settles(&m, 1);
        ok(df_kafka_txn_open(m.log, m.group, "e", 0, &a.t, &err));
        ok(df_txn_takeover(a.t, &c, &err));
        ok(prepare(&a));
        broker(away, 1);
        assert_int_equal(pthread_create(&t, NULL, bring_back, back), 0);
        err = (struct df_error){0};
        rc = df_txn_commit(a.t, &err);
        assert_true(rc == 0 || rc == DF_EAGAIN || rc == DF_ELOST);
        assert_int_equal(pthread_join(t, NULL), 0);
        commit_in_the_end(&m, &a, rc, true);
        assert_values(m.log, "out", 0, "x "); /* K3: once, whatever was said */
        assert_true(raw_committed(prefix, "e", 0, metadata, sizeof(metadata)) == 5);
        /* And the next one is as any other. */
        a.offset = 6;
        a.metadata = "n";
        rc = prepare(&a);
        if (rc == 0)
                rc = df_txn_commit(a.t, &err);
        commit_in_the_end(&m, &a, rc, true);
        assert_values(m.log, "out", 0, "x x ");
        assert_true(raw_committed(prefix, "e", 0, metadata, sizeof(metadata)) == 6);
        assert_string_equal(metadata, "n");
        df_txn_close(a.t);
        member_close(&m);
}

static void a_commit_meets_a_killed_broker(void **state)
{
        a_commit_meets("kill", "start");
}

/* It is away for longer than the member's session lasts. */
static void a_commit_outlives_the_session(void **state)
{
        session_ms = 2000;
        a_commit_meets("kill", "start");
        session_ms = SESSION_MS;
}

static void a_commit_meets_a_silent_broker(void **state)
{
        a_commit_meets("pause", "resume");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_start_without_a_broker_names_the_address),
                cmocka_unit_test(a_killed_broker_comes_back),
                cmocka_unit_test(a_broker_that_does_not_answer_goes_on),
                cmocka_unit_test(a_commit_meets_a_killed_broker),
                cmocka_unit_test(a_commit_outlives_the_session),
                cmocka_unit_test(a_commit_meets_a_silent_broker),
        };

        if (!getenv("TEST_KAFKA"))
                return SKIPPED;
        (void)signal(SIGPIPE, SIG_IGN);
        assert_int_equal(pthread_create(&nobody.thread, NULL, open_nowhere, NULL), 0);
        driver_start("1");
        return cmocka_run_group_tests(tests, NULL, driver_stop);
}
