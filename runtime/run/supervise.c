#include "df/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "df/trace.h"

#define TICK_MS 100
#define BACKOFF_MIN_MS 100
#define BACKOFF_MAX_MS 5000
#define HEALTHY_AFTER_MS 10000

static void exec_child(const struct df_child *c)
{
        (void)setpgid(0, 0); /* may have been done by the parent */
        for (const int *fd = c->keep_fds; fd && *fd >= 0; fd++) {
                int flags = fcntl(*fd, F_GETFD);

                if (flags < 0 || fcntl(*fd, F_SETFD, flags & ~FD_CLOEXEC) < 0)
                        _exit(DF_EXIT_IO);
        }
        execv(c->argv[0], (char *const *)c->argv);
        dprintf(STDERR_FILENO, "adtally: cannot run %s: %s\n", c->argv[0], strerror(errno));
        _exit(DF_EXIT_CONFIG);
}

static void start_child(struct df_child *c)
{
        pid_t pid = fork();

        if (pid == 0)
                exec_child(c);
        c->started_ms = df_monotonic_ms();
        if (pid < 0) {
                df_trace(DF_ERROR, "supervise", "job=%s fork: %s", c->name, strerror(errno));
                c->retry_ms = c->started_ms + BACKOFF_MAX_MS;
                return;
        }
        (void)setpgid(pid, pid); /* may have been done by the child */
        c->pid = pid;
        c->starts++;
        df_trace(DF_INFO, "supervise", "job=%s started pid=%d", c->name, (int)pid);
}

/* 0, or the exit code that ends everything. */
static int reap_child(struct df_child *c)
{
        int status, code;
        int64_t now = df_monotonic_ms();

        if (c->pid == 0 || waitpid(c->pid, &status, WNOHANG) != c->pid)
                return 0;
        c->pid = 0;
        code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
        if (now - c->started_ms >= HEALTHY_AFTER_MS || c->backoff_ms == 0)
                c->backoff_ms = BACKOFF_MIN_MS;
        if (WIFSIGNALED(status))
                df_trace(DF_WARN, "supervise", "job=%s killed by signal %d; again in %lld ms",
                         c->name, WTERMSIG(status), (long long)c->backoff_ms);
        else
                df_trace(DF_WARN, "supervise", "job=%s ended with code %d; again in %lld ms",
                         c->name, code, (long long)c->backoff_ms);
        c->retry_ms = now + c->backoff_ms;
        c->backoff_ms = c->backoff_ms * 2 > BACKOFF_MAX_MS ? BACKOFF_MAX_MS : c->backoff_ms * 2;
        return code == DF_EXIT_CONFIG || code == DF_EXIT_USAGE ? code : 0;
}

static void stop_child(struct df_child *c, int64_t drain_ms)
{
        int64_t until = df_monotonic_ms() + drain_ms;
        bool killed = false;
        int status;

        if (c->pid == 0)
                return;
        (void)kill(c->pid, SIGTERM);
        while (waitpid(c->pid, &status, WNOHANG) == 0) {
                if (!killed && df_monotonic_ms() > until) {
                        df_trace(DF_WARN, "supervise", "job=%s did not drain in %lld ms: killed",
                                 c->name, (long long)drain_ms);
                        (void)kill(c->pid, SIGKILL);
                        killed = true;
                }
                (void)poll(NULL, 0, 5);
        }
        df_trace(DF_INFO, "supervise", "job=%s stopped", c->name);
        c->pid = 0;
}

int df_supervise(struct df_child *children, size_t count, int64_t drain_ms, void (*tick)(void *arg),
                 void *arg)
{
        int code = 0;

        for (size_t i = 0; i < count; i++) {
                children[i].pid = 0;
                start_child(&children[i]);
        }
        while (!df_process_stopping() && code == 0) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};

                (void)poll(&p, 1, TICK_MS); /* an early wake-up is harmless */
                for (size_t i = 0; i < count && code == 0; i++) {
                        struct df_child *c = &children[i];

                        code = reap_child(c);
                        if (code == 0 && c->pid == 0 && df_monotonic_ms() >= c->retry_ms)
                                start_child(c);
                }
                if (tick)
                        tick(arg);
        }
        for (size_t i = count; i-- > 0;)
                stop_child(&children[i], drain_ms);
        return code;
}
