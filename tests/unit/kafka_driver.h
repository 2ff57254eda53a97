/* kafka_driver.h - brokers of a test's own, which it stops and starts: broker.py drive. */
#ifndef KAFKA_DRIVER_H
#define KAFKA_DRIVER_H

#include "kafka_test.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static struct {
        pid_t pid;
        FILE *to, *from;
        char bootstrap[256];
} driver;

/* tests/kafka/broker.py drive; it ends with us. */
static inline void driver_start(const char *brokers)
{
        char path[512];
        char *argv[] = {"python3", path, "drive", "--brokers", (char *)(uintptr_t)brokers, NULL};
        posix_spawn_file_actions_t actions;
        int to[2], from[2];

        (void)snprintf(path, sizeof(path), "%s/tests/kafka/broker.py", getenv("SOURCE_ROOT"));
        assert_int_equal(pipe2(to, O_CLOEXEC), 0);
        assert_int_equal(pipe2(from, O_CLOEXEC), 0);
        assert_int_equal(posix_spawn_file_actions_init(&actions), 0);
        assert_int_equal(posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO), 0);
        assert_int_equal(posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO), 0);
        assert_int_equal(posix_spawnp(&driver.pid, argv[0], &actions, NULL, argv, environ), 0);
        (void)posix_spawn_file_actions_destroy(&actions);
        (void)close(to[0]);
        (void)close(from[1]);
        driver.to = fdopen(to[1], "w");
        driver.from = fdopen(from[0], "r");
        if (!fgets(driver.bootstrap, sizeof(driver.bootstrap), driver.from))
                fail_msg("%s: no broker", path);
        driver.bootstrap[strcspn(driver.bootstrap, "\n")] = '\0';
        assert_int_equal(setenv("TEST_KAFKA", driver.bootstrap, 1), 0);
}

static inline int driver_stop(void **state)
{
        int status;

        (void)fclose(driver.to);
        (void)fclose(driver.from);
        return waitpid(driver.pid, &status, 0) == driver.pid && status == 0 ? 0 : -1;
}

static inline void broker(const char *what, int node)
{
        char answer[16];

        (void)fprintf(driver.to, "%s %d\n", what, node);
        (void)fflush(driver.to);
        if (!fgets(answer, sizeof(answer), driver.from) || strcmp(answer, "ok\n") != 0)
                fail_msg("the broker cannot %s", what);
}

#endif
