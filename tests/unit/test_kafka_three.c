/* Three brokers: topics that not every broker has heard of yet, a leader that cannot be reached
 * (K11), and one that dies. */
#include "kafka_driver.h"

#define BROKERS 3

/* A log whose first connections go to one of the brokers. */
static struct df_log *open_at(const char *prefix, int node, int replication)
{
        struct df_kafka_options o = options_of(prefix);
        struct df_log *log = NULL;
        char address[256], *at = address;

        (void)snprintf(address, sizeof(address), "%s", driver.bootstrap);
        for (int i = 0; i < node; i++)
                at = strchr(at, ',') + 1;
        at[strcspn(at, ",")] = '\0';
        o.brokers = at;
        o.replication = replication;
        ok(df_kafka_open(&o, &log, &err));
        return log;
}

struct creator {
        struct df_log *log;
        char topic[16];
        uint64_t generation;
        int rc;
        struct df_error err;
};

static void *create_and_look(void *arg)
{
        struct creator *c = arg;
        struct looked l = {.topic = c->topic};

        c->rc = df_log_topic_create(c->log, c->topic, 6, &c->err);
        if (c->rc == 0)
                c->rc = df_log_topic_list(c->log, c->topic, look, &l, &c->err);
        c->generation = l.generation;
        return NULL;
}

/* All at once, each by its own broker, which may not have heard yet what the others did: nobody
 * refuses, and nobody takes the new topic for a missing one. */
static void a_new_topic_is_usable_at_once_through_any_broker(void **state)
{
        const char *prefix = fresh_prefix();
        struct creator c[BROKERS] = {0};

        for (int i = 0; i < BROKERS; i++)
                c[i].log = open_at(prefix, i, 0);
        for (int round = 0; round < 12; round++) {
                pthread_t t[BROKERS];

                for (int i = 0; i < BROKERS; i++) {
                        (void)snprintf(c[i].topic, sizeof(c[i].topic), "e%d.", round);
                        assert_int_equal(pthread_create(&t[i], NULL, create_and_look, &c[i]), 0);
                }
                for (int i = 0; i < BROKERS; i++)
                        assert_int_equal(pthread_join(t[i], NULL), 0);
                for (int i = 0; i < BROKERS; i++) {
                        struct df_log_reader *r = NULL;

                        if (c[i].rc < 0)
                                fail_msg("round %d, creator %d: %s", round, i, c[i].err.text);
                        assert_true(c[i].generation && c[i].generation == c[0].generation);
                        ok(df_log_reader_open(c[i].log, c[i].topic, 5, 0, NULL, &r, &err));
                        df_log_reader_close(r);
                }
        }
        assert_true(append_one(c[1].log, c[1].topic, 5, "x") == 0);
        assert_values(c[2].log, c[2].topic, 5, "x ");
        for (int i = 0; i < BROKERS; i++)
                df_log_close(c[i].log);
}

/* The broker (1, ...) that leads the partition. */
static int leader_of(const char *full, int partition)
{
        rd_kafka_t *rk = raw_client(RD_KAFKA_PRODUCER, NULL);
        const struct rd_kafka_metadata *m;
        int leader = -1;

        assert_int_equal(rd_kafka_metadata(rk, 1, NULL, &m, WAIT_MS), 0);
        for (int i = 0; i < m->topic_cnt; i++)
                if (strcmp(m->topics[i].topic, full) == 0)
                        leader = m->topics[i].partitions[partition].leader;
        rd_kafka_metadata_destroy(m);
        rd_kafka_destroy(rk);
        assert_true(leader > 0);
        return leader;
}

static void append_and_read(struct df_log *log, struct df_log_reader *r, uint32_t partition)
{
        struct read_all all = {0};
        uint64_t at = append_one(log, "e", partition, "y");

        read_until(r, at + 1, &all);
        assert_string_equal(all.list[all.count - 1].value, "y");
        release_all(&all);
}

/* K11: its partitions wait, those of the others do not, and nobody waits to show a lag. */
static void a_leader_that_is_silent_holds_up_its_partitions_alone(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_at(prefix, 0, 1);
        struct df_log_reader *r[BROKERS] = {0};
        struct df_record record;
        uint64_t first, end, seen;
        uint32_t away = 0, apart = 0;
        int node;
        size_t n;

        ok(df_log_topic_create(log, "e", BROKERS, &err));
        for (uint32_t p = 0; p < BROKERS; p++) {
                ok(df_log_reader_open(log, "e", p, 0, NULL, &r[p], &err));
                append_and_read(log, r[p], p);
                apart |= 1u << leader_of(full_name(prefix, "e"), (int)p);
        }
        assert_int_equal(apart, 0xe); /* one each */
        away = (uint32_t)dice(BROKERS);
        node = leader_of(full_name(prefix, "e"), (int)away);
        broker("pause", node);
        for (int round = 0; round < 3; round++)
                for (uint32_t p = 0; p < BROKERS; p++) {
                        ok(df_log_seen_end(r[p], "e", p, &seen, &err));
                        if (p == away) {
                                ok(df_log_poll(r[p], &record, 1, &n, &err));
                                assert_int_equal(n, 0);
                                assert_true(seen == 1);
                        } else {
                                append_and_read(log, r[p], p);
                        }
                }
        fails(df_log_bounds(log, "e", away, &first, &end, &err), DF_EAGAIN, full_name(prefix, "e"));
        broker("resume", node);
        append_and_read(log, r[away], away);
        for (uint32_t p = 0; p < BROKERS; p++)
                df_log_reader_close(r[p]);
        df_log_close(log);
}

/* What was acknowledged is there, and the same writer and reader go on with another leader. */
static void an_acknowledged_record_survives_its_leader(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);
        struct df_log_reader *r = NULL;
        struct read_all all = {0};
        int leader;

        ok(df_log_topic_create(log, "e", 1, &err));
        ok(df_log_reader_open(log, "e", 0, 0, NULL, &r, &err));
        append_one(log, "e", 0, "before");
        leader = leader_of(full_name(prefix, "e"), 0);
        broker("kill", leader);
        append_one(log, "e", 0, "after");
        read_until(r, 2, &all);
        assert_int_equal(all.count, 2);
        assert_string_equal(all.list[0].value, "before");
        assert_string_equal(all.list[1].value, "after");
        release_all(&all);
        broker("start", leader);
        df_log_reader_close(r);
        df_log_close(log);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_new_topic_is_usable_at_once_through_any_broker),
                cmocka_unit_test(a_leader_that_is_silent_holds_up_its_partitions_alone),
                cmocka_unit_test(an_acknowledged_record_survives_its_leader),
        };

        if (!getenv("TEST_KAFKA"))
                return SKIPPED;
        roll_seed();
        (void)signal(SIGPIPE, SIG_IGN);
        driver_start("3");
        return cmocka_run_group_tests(tests, NULL, driver_stop);
}
