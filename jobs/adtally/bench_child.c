/* bench_child.c - jobs as children of a benchmark, and what they use. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "jobs/adtally/bench.h"

#define PROC_FILE_MAX 65536

static bool is_command(const char *job)
{
        return strcmp(job, "up") == 0 || strcmp(job, "reconcile") == 0;
}

static int job_path(const char *job, char *ret, struct df_error *err)
{
        if (!is_command(job))
                return ad_command_find_job(job, ret, err);
        (void)snprintf(ret, PATH_MAX, "/proc/self/exe");
        return 0;
}

/* In a process group of its own: Ctrl-C is the benchmark's, which stops its children in order. */
static _Noreturn void exec_job(const char *path, char *const *argv, const char *log, int keep_fd)
{
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);

        (void)setpgid(0, 0);
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (fd >= 0) {
                (void)dup2(fd, STDOUT_FILENO); /* lines lost otherwise, no more */
                (void)dup2(fd, STDERR_FILENO);
        }
        if (keep_fd >= 0)
                (void)fcntl(keep_fd, F_SETFD, 0);
        execv(path, argv);
        _exit(DF_EXIT_CONFIG);
}

/* What is the benchmark's own, or each child's. */
static bool is_own(const char *name)
{
        static const char *const names[] = {"data",      "listen",    "admin",   "json",
                                            "quiet",     "log-level", "kafka.*", "supervised",
                                            "listen-fd", "peer-fd"};

        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                if (strcmp(name, names[i]) == 0)
                        return true;
        return false;
}

struct command_line {
        char **argv;
        size_t count;
        bool failed;
};

static void put(struct command_line *l, const char *name, const char *value)
{
        char *s = NULL;

        if (name ? asprintf(&s, "--%s=%s", name, value) < 0 : !(s = strdup(value)))
                l->failed = true;
        else
                l->argv[l->count++] = s;
}

static void release(struct command_line *l)
{
        for (size_t i = 0; i < l->count; i++)
                free(l->argv[i]);
        free(l->argv);
}

static int fill_line(const struct ad_bench *b, const char *job, const char *path,
                     const char *const *args, int keep_fd, struct command_line *l,
                     struct df_error *err)
{
        char number[16];
        size_t more = 0;

        while (args && args[more])
                more++;
        l->argv = calloc(ad_setting_count + more + 8, sizeof(*l->argv));
        if (!l->argv)
                return df_fail(err, DF_ENOMEM, "arguments of %s", job);
        put(l, NULL, path);
        if (is_command(job))
                put(l, NULL, job);
        put(l, "data", b->dir);
        for (size_t i = 0; i < ad_setting_count; i++) {
                const char *name = ad_settings[i].name;

                if (!is_own(name) && !df_config_is_default(b->config, name) &&
                    df_config_value(b->config, name))
                        put(l, name, df_config_value(b->config, name));
        }
        (void)snprintf(number, sizeof(number), "%d", keep_fd);
        if (keep_fd >= 0)
                put(l, "listen-fd", number);
        for (size_t i = 0; i < more; i++)
                put(l, NULL, args[i]);
        return l->failed ? df_fail(err, DF_ENOMEM, "arguments of %s", job) : 0;
}

int ad_bench_start(struct ad_bench *b, const char *job, const char *const *args, int keep_fd,
                   struct ad_bench_child *ret, struct df_error *err)
{
        struct command_line l = {0};
        char path[PATH_MAX], log[PATH_MAX];
        int rc = job_path(job, path, err);

        *ret = (struct ad_bench_child){0};
        if (rc == 0)
                rc = fill_line(b, job, path, args, keep_fd, &l, err);
        (void)snprintf(log, sizeof(log), "%s/%s.log", b->dir, job);
        b->on_cluster |= rc == 0 && ad_bench_on_kafka(b);
        if (rc == 0) {
                ret->pid = fork();
                if (ret->pid == 0)
                        exec_job(path, l.argv, log, keep_fd);
                if (ret->pid < 0)
                        rc = df_fail_errno(err, DF_EIO, "fork");
        }
        release(&l);
        return rc;
}

static int64_t timeval_ns(const struct timeval *t)
{
        return (int64_t)t->tv_sec * 1000000000 + (int64_t)t->tv_usec * 1000;
}

static int reap(struct ad_bench_child *c, int *ret_status, struct df_error *err)
{
        struct rusage u;

        while (wait4(c->pid, ret_status, 0, &u) < 0)
                if (errno != EINTR)
                        return df_fail_errno(err, DF_EIO, "wait for a job");
        c->pid = 0;
        c->user_ns = timeval_ns(&u.ru_utime);
        c->cpu_ns = c->user_ns + timeval_ns(&u.ru_stime);
        c->peak_rss_bytes = (uint64_t)u.ru_maxrss * 1024;
        return 0;
}

int ad_bench_stop(struct ad_bench_child *c, struct df_error *err)
{
        int status = 0, rc;

        if (c->pid <= 0)
                return 0;
        (void)kill(c->pid, SIGTERM); /* it may have ended */
        rc = reap(c, &status, err);
        if (rc == 0 && (!WIFEXITED(status) || WEXITSTATUS(status) != 0))
                rc = df_fail(err, DF_EIO,
                             "a job ended with status %d; with --work DIR its log stays", status);
        return rc;
}

void ad_bench_kill(struct ad_bench_child *c)
{
        int status;

        if (c->pid <= 0)
                return;
        (void)kill(c->pid, SIGKILL);
        (void)reap(c, &status, NULL);
}

bool ad_bench_ended(const struct ad_bench_child *c)
{
        siginfo_t info = {0};

        return waitid(P_PID, (id_t)c->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
               info.si_pid != 0;
}

/* ---- what a process uses ---- */

/* /proc/PID/<name> with a zero byte behind it; false: it is gone, or not ours to read. */
static bool read_proc(int pid, const char *name, struct df_buf *ret)
{
        char path[64];

        (void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
        if (df_read_file(path, PROC_FILE_MAX, ret, NULL) < 0)
                return false;
        df_put_u8(ret, 0);
        return !ret->failed;
}

/* The number behind a name. */
static uint64_t number_in(int pid, const char *file, const char *name)
{
        struct df_buf b = {0};
        const char *p = read_proc(pid, file, &b) ? strstr((const char *)b.data, name) : NULL;
        uint64_t v = p ? strtoull(p + strlen(name), NULL, 10) : 0;

        df_buf_release(&b);
        return v;
}

void ad_bench_usage(int pid, struct ad_bench_usage *ret)
{
        struct df_buf b = {0};
        long long user = 0, kernel = 0, tick = 1000000000LL / sysconf(_SC_CLK_TCK);
        const char *p = read_proc(pid, "stat", &b) ? strrchr((const char *)b.data, ')') : NULL;

        if (p)
                (void)sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld", &user,
                             &kernel);
        df_buf_release(&b);
        ret->user_ns = user * tick;
        ret->kernel_ns = kernel * tick;
        ret->rss_bytes = number_in(pid, "status", "VmRSS:") * 1024;
        ret->peak_rss_bytes = number_in(pid, "status", "VmHWM:") * 1024;
        ret->written_bytes = number_in(pid, "io", "\nwrite_bytes: ");
}

int64_t ad_bench_child_cpu_ns(const struct ad_bench_child *c)
{
        struct timespec t = {0};
        clockid_t clock;

        if (clock_getcpuclockid(c->pid, &clock) == 0)
                (void)clock_gettime(clock, &t); /* 0 when it has ended */
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

uint64_t ad_bench_child_peak(const struct ad_bench_child *c)
{
        struct ad_bench_usage u;

        ad_bench_usage(c->pid, &u);
        return u.peak_rss_bytes;
}
