/* Topics on a real broker: settings and counts that are refused by name (K14), and generations on
 * which any number of creators agree, killed or not (E1, K14). */
#include "df/kafka_copy.h"
#include "kafka_test.h"

#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#define CONTROL "topics"
#define GOOD                                                                                       \
        {"message.timestamp.type", "LogAppendTime"}, {"cleanup.policy", "delete"},                 \
        {                                                                                          \
                "retention.ms", "86400000"                                                         \
        }
#define FOR_EVER                                                                                   \
        {"message.timestamp.type", "LogAppendTime"}, {"cleanup.policy", "delete"},                 \
        {                                                                                          \
                "retention.ms", "-1"                                                               \
        }

extern char **environ;

typedef const char *const settings[6][2];

/* ---- settings ---- */

static void a_topic_that_could_lose_or_restamp_records_is_refused(void **state)
{
        static const struct {
                settings with;
                const char *is, *must;
        } bad[] = {
                {{GOOD, {"message.timestamp.type", "CreateTime"}},
                 "message.timestamp.type=CreateTime",
                 "LogAppendTime"},
                {{GOOD, {"cleanup.policy", "compact"}}, "cleanup.policy=compact", "delete"},
                {{GOOD, {"cleanup.policy", "compact,delete"}},
                 "cleanup.policy=compact,delete",
                 "delete"},
                {{GOOD, {"retention.ms", "43199999"}}, "retention.ms=43199999", "43200000"},
                {{GOOD, {"retention.ms", "0"}}, "retention.ms=0", "43200000"},
                {{GOOD, {"retention.bytes", "1000000"}}, "retention.bytes=1000000", "-1"},
        };
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                char topic[16], must[128];

                (void)snprintf(topic, sizeof(topic), "bad%zu", i);
                (void)snprintf(must, sizeof(must), "it must be %s: kafka-configs.sh", bad[i].must);
                raw_create(full_name(prefix, topic), 1, bad[i].with);
                fails(df_log_topic_create(log, topic, 1, &err), DF_ESCHEMA, bad[i].is);
                assert_non_null(strstr(err.text, must));
                assert_non_null(strstr(err.text, full_name(prefix, topic)));
                assert_non_null(strstr(err.text, "(K14)"));
        }
        df_log_close(log);
}

static void a_topic_that_keeps_enough_is_taken(void **state)
{
        static settings exact = {GOOD, {"retention.ms", "43200000"}}, ever = {FOR_EVER};
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);

        raw_create(full_name(prefix, "exact"), 2, exact);
        ok(df_log_topic_create(log, "exact", 2, &err));
        raw_create(full_name(prefix, "ever"), 1, ever);
        ok(df_log_topic_create(log, "ever", 1, &err));
        ok(df_log_topic_create(log, "own", 3, &err)); /* what it makes itself */
        ok(df_log_topic_create(log, "own", 3, &err));
        df_log_close(log);
}

/* The ledger: made to be kept for ever, and refused when it would not be. */
static void a_kept_topic_keeps_for_ever(void **state)
{
        static const char *const kept[] = {"ledger", "other", NULL};
        static settings good = {GOOD}, ever = {FOR_EVER};
        const char *prefix = fresh_prefix();
        struct df_kafka_options o = options_of(prefix);
        struct df_log *log = NULL;

        o.kept = kept;
        ok(df_kafka_open(&o, &log, &err));
        ok(df_log_topic_create(log, "ledger", 1,
                               &err)); /* by itself, for ever: it is taken again */
        ok(df_log_topic_create(log, "ledger", 1, &err));
        raw_create(full_name(prefix, "other"), 1, good);
        fails(df_log_topic_create(log, "other", 1, &err), DF_ESCHEMA, "retention.ms=86400000");
        assert_non_null(strstr(err.text, "it must be -1"));
        raw_create(full_name(prefix, "normal"), 1, good);
        ok(df_log_topic_create(log, "normal", 1, &err)); /* the others are as before */
        raw_create(full_name(prefix, "normal2"), 1, ever);
        ok(df_log_topic_create(log, "normal2", 1, &err));
        df_log_close(log);
}

/* Partitions that are empty keep their place in what is known of a copy: another session takes it
 * for finished, and no partition for its neighbour. */
static void a_copy_with_empty_partitions_is_finished(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_topic_info original = {.name = "part", .partitions = 3, .generation = 77};
        struct df_topic_info empty = {.name = "empty", .partitions = 1, .generation = 78};
        const uint64_t ends[3] = {0, 4, 0}, none[1] = {0}, moved[3] = {4, 0, 0};
        struct df_log *log = open_log(prefix);
        bool begun, finished;

        ok(df_kafka_copy_begin(log, &original, ends, &finished, &err));
        ok(df_kafka_copy_begin(log, &empty, none, &finished, &err));
        ok(df_kafka_copy_seal(log, "empty", &err));
        ok(df_kafka_copy_finish(log, &original, &err));
        ok(df_kafka_copy_finish(log, &empty, &err));
        df_log_close(log);
        log = open_log(prefix);
        ok(df_kafka_copy_look(log, &original, ends, &begun, &finished, &err));
        assert_true(begun && finished);
        ok(df_kafka_copy_look(log, &empty, none, &begun, &finished, &err));
        assert_true(begun && finished);
        fails(df_kafka_copy_look(log, &original, moved, &begun, &finished, &err), DF_ESCHEMA,
              "the file log has grown");
        df_log_close(log);
}

/* Without its records an old topic would become a new one. */
static void a_control_topic_that_could_forget_is_refused(void **state)
{
        static const struct {
                settings with;
                int partitions;
                const char *is;
        } bad[] = {
                {{FOR_EVER, {"retention.ms", "604800000"}}, 1, "retention.ms=604800000"},
                {{FOR_EVER, {"retention.bytes", "1000000"}}, 1, "retention.bytes=1000000"},
                {{FOR_EVER, {"cleanup.policy", "compact"}}, 1, "cleanup.policy=compact"},
                {{FOR_EVER, {"message.timestamp.type", "CreateTime"}}, 1, "message.timestamp.type"},
                {{FOR_EVER}, 2, "has 2 partitions, it must be 1"},
        };

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                const char *prefix = fresh_prefix();
                struct df_kafka_options o = options_of(prefix);
                struct df_log *log = NULL;

                raw_create(full_name(prefix, CONTROL), bad[i].partitions, bad[i].with);
                fails(df_kafka_open(&o, &log, &err), DF_ESCHEMA, bad[i].is);
                assert_non_null(strstr(err.text, full_name(prefix, CONTROL)));
        }
}

static void a_control_topic_that_forgot_is_refused(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);

        ok(df_log_topic_create(log, "a", 1, &err));
        ok(df_log_topic_create(log, "b", 1, &err));
        df_log_close(log);
        raw_delete_before(full_name(prefix, CONTROL), 0, 1);
        log = open_log(prefix);
        fails(df_log_topic_create(log, "b", 1, &err), DF_EOFFSET, "were deleted");
        assert_non_null(strstr(err.text, full_name(prefix, CONTROL)));
        df_log_close(log);
}

static void another_number_of_partitions_is_refused(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);

        ok(df_log_topic_create(log, "e", 2, &err));
        fails(df_log_topic_create(log, "e", 3, &err), DF_ESCHEMA, "has 2 partitions, wanted are 3");
        raw_add_partitions(full_name(prefix, "e"), 3);
        fails(df_log_topic_create(log, "e", 2, &err), DF_ESCHEMA, "has 3 partitions, wanted are 2");
        /* What the cluster has is not what the generation began with: events would move. */
        fails(df_log_topic_create(log, "e", 3, &err), DF_ESCHEMA,
              "has 2 partitions since its generation began, wanted are 3");
        fails(df_log_topic_create(log, CONTROL, 1, &err), DF_EINVAL, CONTROL);
        df_log_close(log);
}

static void *create_later(void *full)
{
        static settings good = {GOOD};

        dfk_pause(300);
        raw_create(full, 1, good);
        return NULL;
}

/* Right after a topic was made, a broker may not know it: its settings are asked for again. */
static void settings_are_waited_for(void **state)
{
        char *full = full_name(fresh_prefix(), "e");
        struct df_log *log = open_log(fresh_prefix());
        pthread_t t;

        assert_int_equal(pthread_create(&t, NULL, create_later, full), 0);
        ok(dfk_admin_check(dfk_kafka_of(log), full, DAY_MS, &err));
        assert_int_equal(pthread_join(t, NULL), 0);
        df_log_close(log);
}

/* What ends a generation: the controller's word, by a question that creates nothing. */
static void missing_is_asked_without_making_it(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);
        struct dfk_kafka *k = dfk_kafka_of(log);
        bool missing = false;

        for (int i = 0; i < 2; i++) {
                ok(dfk_admin_is_missing(k, full_name(prefix, "e"), &missing, &err));
                assert_true(missing);
        }
        ok(df_log_topic_create(log, "e", 1, &err));
        ok(dfk_admin_is_missing(k, full_name(prefix, "e"), &missing, &err));
        assert_false(missing);
        df_log_close(log);
}

/* ---- generations ---- */

static void a_topic_keeps_its_generation_until_it_is_made_again(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix), *other;
        uint64_t first, second;

        ok(df_log_topic_create(log, "e", 2, &err));
        first = generation_of(log, "e");
        assert_true(first != 0);
        other = open_log(prefix);
        ok(df_log_topic_create(other, "e", 2, &err));
        assert_true(generation_of(other, "e") == first);
        raw_delete(full_name(prefix, "e"));
        assert_true(generation_of(other, "e") == 0);
        ok(df_log_topic_create(other, "e", 4, &err)); /* a new topic: any number */
        second = generation_of(other, "e");
        assert_true(second != 0 && second != first);
        assert_true(generation_of(log, "e") == second); /* who was there before sees it, too */
        df_log_close(other);
        df_log_close(log);
}

/* A record of the control topic as topics.c writes it: 1 name, 2 partitions, 3 generation, 4 the
 * one before, 5 the one that is over. */
static void put_note(struct df_log *log, const char *topic, uint64_t generation, uint64_t before,
                     uint64_t over)
{
        struct df_buf b = {0};
        struct df_log_writer *w = NULL;
        struct df_append a = {0};

        df_pb_str(&b, 1, topic);
        df_pb_uint(&b, 2, 1);
        df_pb_uint(&b, 3, generation);
        df_pb_uint(&b, 4, before);
        df_pb_uint(&b, 5, over);
        a.value = df_buf_bytes(&b);
        ok(df_log_writer_open(log, CONTROL, &w, &err));
        ok(df_log_append(w, &a, 1, &err));
        df_log_writer_close(w);
        df_buf_release(&b);
}

/* Each moment at which a creator can be killed, and who comes next. */
static void what_a_killed_creator_left_is_finished(void **state)
{
        static settings good = {GOOD};
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix);
        uint64_t first, second;

        /* The topic was made, its record was not written. */
        raw_create(full_name(prefix, "e"), 1, good);
        assert_true(generation_of(log, "e") == 0);
        ok(df_log_topic_create(log, "e", 1, &err));
        first = generation_of(log, "e");
        assert_true(first != 0);
        /* The end was written, the topic not made. */
        raw_delete(full_name(prefix, "e"));
        put_note(log, "e", 0, 0, first);
        ok(df_log_topic_create(log, "e", 1, &err));
        second = generation_of(log, "e");
        assert_true(second != 0 && second != first);
        /* The end was written, the topic made again, its record not written. */
        raw_delete(full_name(prefix, "e"));
        put_note(log, "e", 0, 0, second);
        raw_create(full_name(prefix, "e"), 1, good);
        assert_true(generation_of(log, "e") == 0);
        ok(df_log_topic_create(log, "e", 1, &err));
        assert_true(generation_of(log, "e") != 0);
        assert_true(generation_of(log, "e") != first && generation_of(log, "e") != second);
        df_log_close(log);
}

/* Notes of creators that were slow change nothing. */
static void a_late_note_is_ignored(void **state)
{
        const char *prefix = fresh_prefix();
        struct df_log *log = open_log(prefix), *other;
        uint64_t first, second;

        ok(df_log_topic_create(log, "e", 1, &err));
        first = generation_of(log, "e");
        put_note(log, "e", 77, 0, 0);     /* also began with nothing */
        put_note(log, "e", 78, first, 0); /* follows one that is not over */
        assert_true(generation_of(log, "e") == first);
        raw_delete(full_name(prefix, "e"));
        ok(df_log_topic_create(log, "e", 1, &err));
        second = generation_of(log, "e");
        put_note(log, "e", 79, first, 0); /* also followed the first */
        put_note(log, "e", 0, 0, first);  /* also found it missing */
        assert_true(second != first && generation_of(log, "e") == second);
        other = open_log(prefix); /* also who reads it from the beginning */
        assert_true(generation_of(other, "e") == second);
        put_note(log, "e", 80, 0, second); /* neither nor */
        fails(df_log_topic_create(other, "e", 1, &err), DF_ECORRUPT, CONTROL);
        df_log_close(other);
        df_log_close(log);
}

/* ---- races ---- */

struct creator {
        struct df_log *log;
        uint64_t generation;
        int rc;
        struct df_error err;
};

static void *create_e(void *arg)
{
        struct creator *c = arg;
        struct looked l = {.topic = "e"};

        c->rc = df_log_topic_create(c->log, "e", 1, &c->err);
        if (c->rc == 0)
                c->rc = df_log_topic_list(c->log, "e", look, &l, &c->err);
        c->generation = l.generation;
        return NULL;
}

#define CREATORS 4
#define ROUNDS 6

/* Each log has clients of its own, so threads race as processes do. */
static void creators_at_once_agree(void **state)
{
        const char *prefix = fresh_prefix();
        struct creator c[CREATORS] = {0};
        uint64_t before = 0;

        for (int i = 0; i < CREATORS; i++)
                c[i].log = open_log(prefix);
        for (int round = 0; round < ROUNDS; round++) {
                pthread_t t[CREATORS];

                for (int i = 0; i < CREATORS; i++)
                        assert_int_equal(pthread_create(&t[i], NULL, create_e, &c[i]), 0);
                for (int i = 0; i < CREATORS; i++)
                        assert_int_equal(pthread_join(t[i], NULL), 0);
                for (int i = 0; i < CREATORS; i++) {
                        if (c[i].rc < 0)
                                fail_msg("round %d, creator %d: %s", round, i, c[i].err.text);
                        assert_true(c[i].generation != 0 && c[i].generation != before);
                        assert_true(c[i].generation == c[0].generation);
                }
                before = c[0].generation;
                raw_delete(full_name(prefix, "e"));
        }
        for (int i = 0; i < CREATORS; i++)
                df_log_close(c[i].log);
}

/* test_kafka_topics create PREFIX: a process that creates, to be killed. */
static int child_main(const char *prefix)
{
        struct df_kafka_options o = options_of(prefix);
        struct df_log *log = NULL;
        int rc = df_kafka_open(&o, &log, &err);

        if (rc == 0 && write(STDOUT_FILENO, "x", 1) == 1) /* it begins now */
                rc = df_log_topic_create(log, "e", 1, &err);
        _exit(rc == 0 ? 0 : 1);
}

static void kill_a_creator(const char *prefix, int after_ms)
{
        char *const argv[] = {"/proc/self/exe", "create", (char *)(uintptr_t)prefix, NULL};
        posix_spawn_file_actions_t actions;
        int out[2], status;
        pid_t pid;
        char c;

        assert_int_equal(pipe(out), 0);
        assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
        assert_int_equal(posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO), 0);
        assert_int_equal(posix_spawn(&pid, argv[0], &actions, NULL, argv, environ), 0);
        (void)posix_spawn_file_actions_destroy(&actions);
        (void)close(out[1]);
        assert_int_equal(read(out[0], &c, 1), 1);
        (void)close(out[0]);
        dfk_pause(after_ms);
        (void)kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
}

static void creators_killed_anywhere_leave_no_old_generation(void **state)
{
        const char *prefix = fresh_prefix();
        struct creator c[2] = {{.log = open_log(prefix)}, {.log = open_log(prefix)}};
        uint64_t before = 0;

        for (int round = 0; round < ROUNDS; round++) {
                int after = (int)dice(120);
                pthread_t t;

                kill_a_creator(prefix, after);
                assert_int_equal(pthread_create(&t, NULL, create_e, &c[1]), 0);
                (void)create_e(&c[0]);
                assert_int_equal(pthread_join(t, NULL), 0);
                if (c[0].rc || c[1].rc || c[0].generation == before || c[0].generation == 0 ||
                    c[0].generation != c[1].generation)
                        fail_msg("seed %" PRIu64 " round %d killed after %d ms: %016" PRIx64
                                 " and %016" PRIx64 ", before %016" PRIx64 ": %s %s",
                                 dice_seed, round, after, c[0].generation, c[1].generation, before,
                                 c[0].err.text, c[1].err.text);
                before = c[0].generation;
                raw_delete(full_name(prefix, "e"));
        }
        df_log_close(c[0].log);
        df_log_close(c[1].log);
}

int main(int argc, char **argv)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_topic_that_could_lose_or_restamp_records_is_refused),
                cmocka_unit_test(a_topic_that_keeps_enough_is_taken),
                cmocka_unit_test(a_kept_topic_keeps_for_ever),
                cmocka_unit_test(a_copy_with_empty_partitions_is_finished),
                cmocka_unit_test(a_control_topic_that_could_forget_is_refused),
                cmocka_unit_test(a_control_topic_that_forgot_is_refused),
                cmocka_unit_test(another_number_of_partitions_is_refused),
                cmocka_unit_test(settings_are_waited_for),
                cmocka_unit_test(missing_is_asked_without_making_it),
                cmocka_unit_test(a_topic_keeps_its_generation_until_it_is_made_again),
                cmocka_unit_test(what_a_killed_creator_left_is_finished),
                cmocka_unit_test(a_late_note_is_ignored),
                cmocka_unit_test(creators_at_once_agree),
                cmocka_unit_test(creators_killed_anywhere_leave_no_old_generation),
        };

        if (!getenv("TEST_KAFKA"))
                return SKIPPED;
        if (argc == 3)
                return child_main(argv[2]);
        roll_seed();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
