/* What needs no broker: the settings that are ours (K13), and the watchdog (K13). */
#include "kafka_test.h"

#include <sys/wait.h>

/* From PROTOCOL K13, with librdkafka's other names for the same. */
static const struct {
        const char *name, *value, *reason;
} ours[] = {
        {"bootstrap.servers", "other:9092", "--log"},
        {"metadata.broker.list", "other:9092", "--log"},
        {"isolation.level", "read_uncommitted", "committed records alone"},
        {"isolation.level", "read_committed", "committed records alone"},
        {"enable.auto.commit", "true", "with its checkpoint"},
        {"auto.commit.enable", "true", "with its checkpoint"},
        {"enable.auto.offset.store", "true", "with its checkpoint"},
        {"auto.offset.reset", "latest", "never skipped"},
        {"check.crcs", "false", "damaged"},
        {"acks", "1", "loss of a broker"},
        {"request.required.acks", "1", "loss of a broker"},
        {"enable.idempotence", "false", "must not write twice"},
        {"partition.assignment.strategy", "cooperative-sticky", "range"},
        {"group.id", "g", "--kafka-prefix"},
        {"group.instance.id", "i", "--instance"},
        {"transactional.id", "t", "fence"},
        {"transaction.timeout.ms", "1000", "--kafka-transaction-timeout"},
        {"session.timeout.ms", "1000", "--kafka-session-timeout"},
        {"heartbeat.interval.ms", "1000", "--kafka-session-timeout"},
        {"max.poll.interval.ms", "1000", "watchdog"},
        {"message.timeout.ms", "1000", "time-out"},
        {"delivery.timeout.ms", "1000", "time-out"},
        {"enable.partition.eof", "false", "bounded read"},
        {"enable.gapless.guarantee", "true", "replaced"},
        {"allow.auto.create.topics", "true", "Adtally makes it"},
        {"test.mock.num.brokers", "3", "no broker"},
        {"plugin.library.paths", "/tmp/x.so", "code"},
};

static void each_refused_setting_is_named_with_its_reason(void **state)
{
        for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
                struct df_kafka_setting s = {ours[i].name, ours[i].value};
                struct df_kafka_options o = {
                        .brokers = "127.0.0.1:1", .settings = &s, .setting_count = 1};
                struct df_log *log = NULL;
                char name[64];

                (void)snprintf(name, sizeof(name), "kafka.%s cannot be set: ", ours[i].name);
                fails(dfk_setting_check(s.name, s.value, &err), DF_EINVAL, name);
                fails(dfk_setting_check(s.name, s.value, &err), DF_EINVAL, ours[i].reason);
                fails(df_kafka_open(&o, &log, &err), DF_EINVAL, name); /* before it connects */
                assert_null(log);
        }
}

static void what_carries_no_guarantee_passes(void **state)
{
        static const char *const passes[][2] = {{"socket.timeout.ms", "5000"},
                                                {"security.protocol", "ssl"},
                                                {"ssl.ca.location", "/etc/ca"},
                                                {"sasl.mechanisms", "PLAIN"},
                                                {"sasl.username", "u"},
                                                {"sasl.password", "p"},
                                                {"client.rack", "a"},
                                                {"fetch.max.bytes", "1000000"},
                                                {"reconnect.backoff.ms", "50"},
                                                {"broker.address.family", "v4"},
                                                {"compression.codec", "zstd"},
                                                {"linger.ms", "5"},
                                                {"topic.metadata.refresh.interval.ms", "10000"}};

        for (size_t i = 0; i < sizeof(passes) / sizeof(passes[0]); i++)
                ok(dfk_setting_check(passes[i][0], passes[i][1], &err));
        fails(dfk_setting_check("socket.timeout", "5000", &err), DF_EINVAL, "kafka.socket.timeout");
        fails(dfk_setting_check("socket.timeout.ms", "soon", &err), DF_EINVAL,
              "kafka.socket.timeout.ms");
}

/* The exit status of a child that watches a call with the limit, and its last words. */
static int watched(int64_t limit_ms, int takes_ms, bool nested, char *text, size_t cap)
{
        int out[2], status = 0;
        ssize_t n;
        pid_t pid;

        assert_int_equal(pipe(out), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct dfk_watch inner, outer;

                (void)dup2(out[1], STDERR_FILENO);
                dfk_watch_begin(&outer, "send_offsets_to_transaction", limit_ms);
                if (nested) { /* the inner one ends in time */
                        dfk_watch_begin(&inner, "flush", limit_ms);
                        dfk_watch_end(&inner);
                }
                dfk_pause(takes_ms);
                dfk_watch_end(&outer);
                dfk_pause(4000); /* beyond the limit, and several looks of the watchdog */
                _exit(3);
        }
        (void)close(out[1]);
        n = read(out[0], text, cap - 1);
        text[n > 0 ? n : 0] = '\0';
        (void)close(out[0]);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        return WEXITSTATUS(status);
}

static void a_call_that_hangs_ends_the_process(void **state)
{
        char text[1024];

        /* 75: the supervisor starts it again */
        assert_int_equal(watched(1, 60000, false, text, sizeof(text)), 75);
        assert_non_null(strstr(text, "send_offsets_to_transaction does not return"));
        assert_int_equal(watched(1, 60000, true, text, sizeof(text)), 75);
        assert_non_null(strstr(text, "send_offsets_to_transaction does not return"));
}

static void a_call_that_returns_does_not(void **state)
{
        char text[1024];

        assert_int_equal(watched(3000, 0, true, text, sizeof(text)), 3);
        assert_string_equal(text, "");
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_call_that_hangs_ends_the_process), /* before any other thread */
                cmocka_unit_test(a_call_that_returns_does_not),
                cmocka_unit_test(each_refused_setting_is_named_with_its_reason),
                cmocka_unit_test(what_carries_no_guarantee_passes),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
