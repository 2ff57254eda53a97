/* bench.c - `adtally bench`: which benchmarks there are, their children, and how results are
 * printed. */
#include "jobs/adtally/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "df/filelog.h"
#include "jobs/common/json.h"

#define ARGS_MAX 48

static const char usage[] =
        "adtally bench: measure what each stage costs on this machine\n"
        "Usage: adtally bench NAME [--events N] [--seed S] [--json]\n\n"
        "  operators  the whole chain alone, records from memory, one core\n"
        "  log        append and read back records of the embedded log, fdatasync included\n"
        "  realtime   the job over a backlog in the log: dedupe, windows, checkpoints, rows\n"
        "  ingest     POST /events until the log has acknowledged (--batch N events a request)\n"
        "  metrics    GET /metrics over a view of --events rows\n"
        "  freshness  everything: from receipt to a visible number, at --rate events a second\n\n"
        "Each makes its input itself and removes it. Compare ratios of one machine and one day; "
        "run\n"
        "nothing else meanwhile.\n";
static const struct df_setting own[] = {
        {"events", DF_INTEGER, "0", 0, 1LL << 40, .help = "0 = a default for each benchmark"},
        {"seed", DF_INTEGER, "1", 1, INT64_MAX, .help = "of the input"},
        {"batch", DF_INTEGER, "500", 1, AD_BATCH_EVENTS_MAX, .help = "ingest: events a request"},
        {"connections", DF_INTEGER, "64", 1, 4096, .help = "ingest, metrics: clients"},
        {"per-record", DF_INTEGER, "100", 1, AD_RECORD_EVENTS_MAX,
         .help = "realtime: events a log record"},
        {"rate", DF_INTEGER, "20000", 1, 100000000, .help = "freshness: events a second"},
        {"seconds", DF_INTEGER, "20", 1, 86400, .help = "freshness: how long"},
        {"work", DF_TEXT, NULL, .arg = "DIR", .help = "where data goes (default TMPDIR or /tmp)"},
};
static const char *const shared[] = {"partitions", "workers", "http-threads", "dedupe-horizon",
                                     "log",        "json",    "quiet",        NULL};

static const struct benchmark {
        const char *name;
        uint64_t events;
        int (*run)(struct ad_bench *b, struct df_error *err);
} benchmarks[] = {
        {"operators", 4000000, ad_bench_operators}, {"log", 4000000, ad_bench_log},
        {"realtime", 4000000, ad_bench_realtime},   {"ingest", 2000000, ad_bench_ingest},
        {"metrics", 1000000, ad_bench_metrics},     {"freshness", 0, ad_bench_freshness},
};

void ad_bench_figure(struct ad_bench *b, const char *name, double value)
{
        df_check(b->figure_count < AD_FIGURES_MAX);
        b->figures[b->figure_count].name = name;
        b->figures[b->figure_count++].value = value;
}

void ad_bench_main_figures(struct ad_bench *b, uint64_t events, int64_t elapsed_ns, int64_t cpu_ns,
                           uint64_t peak_rss_bytes)
{
        ad_bench_figure(b, "events", (double)events);
        ad_bench_figure(b, "events_per_s", (double)events * 1e9 / (double)elapsed_ns);
        ad_bench_figure(b, "cpu_ns_per_event", (double)cpu_ns / (double)events);
        ad_bench_figure(b, "peak_rss_bytes", (double)peak_rss_bytes);
}

int ad_bench_open_log(struct ad_bench *b, struct df_log **ret, struct df_error *err)
{
        struct df_filelog_options o = {.segment_bytes = df_config_bytes(b->config, "segment-size")};
        char dir[PATH_MAX];
        int rc;

        (void)snprintf(dir, sizeof(dir), "%s/log", b->dir);
        rc = df_mkdirs(dir, err);
        return rc < 0 ? rc : df_filelog_open(dir, &o, ret, err);
}

/* ---- children ---- */

static int job_path(const char *job, char *ret, struct df_error *err)
{
        if (strcmp(job, "up") != 0)
                return ad_command_find_job(job, ret, err);
        (void)snprintf(ret, PATH_MAX, "/proc/self/exe");
        return 0;
}

static _Noreturn void exec_job(const char *path, char *const *argv, const char *log, int keep_fd)
{
        int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);

        if (fd >= 0) {
                (void)dup2(fd, STDOUT_FILENO); /* lines lost otherwise, no more */
                (void)dup2(fd, STDERR_FILENO);
        }
        if (keep_fd >= 0)
                (void)fcntl(keep_fd, F_SETFD, 0);
        execv(path, argv);
        _exit(DF_EXIT_CONFIG);
}

int ad_bench_start(struct ad_bench *b, const char *job, const char *const *args, int keep_fd,
                   struct ad_bench_child *ret, struct df_error *err)
{
        static const char *const handed[] = {"partitions", "workers", "http-threads",
                                             "dedupe-horizon"};
        char path[PATH_MAX], log[PATH_MAX], flags[8][96], data[300], fd_flag[32];
        char *argv[ARGS_MAX];
        size_t n = 0;
        int rc = job_path(job, path, err);

        if (rc < 0)
                return rc;
        (void)snprintf(log, sizeof(log), "%s/%s.log", b->dir, job);
        (void)snprintf(data, sizeof(data), "--data=%s", b->dir);
        argv[n++] = path;
        if (strcmp(job, "up") == 0)
                argv[n++] = (char *)(uintptr_t) "up";
        argv[n++] = data;
        for (size_t i = 0; i < sizeof(handed) / sizeof(handed[0]); i++) {
                (void)snprintf(flags[i], sizeof(flags[i]), "--%s=%s", handed[i],
                               df_config_value(b->config, handed[i]));
                argv[n++] = flags[i];
        }
        if (keep_fd >= 0) {
                (void)snprintf(fd_flag, sizeof(fd_flag), "--listen-fd=%d", keep_fd);
                argv[n++] = fd_flag;
        }
        while (args && *args && n < ARGS_MAX - 1)
                argv[n++] = (char *)(uintptr_t)*args++;
        argv[n] = NULL;
        *ret = (struct ad_bench_child){0};
        ret->pid = fork();
        if (ret->pid == 0)
                exec_job(path, argv, log, keep_fd);
        return ret->pid < 0 ? df_fail_errno(err, DF_EIO, "fork") : 0;
}

int ad_bench_stop(struct ad_bench_child *c, struct df_error *err)
{
        struct rusage u;
        int status = 0;

        if (c->pid <= 0)
                return 0;
        (void)kill(c->pid, SIGTERM); /* it may have ended */
        while (wait4(c->pid, &status, 0, &u) < 0)
                if (errno != EINTR)
                        return df_fail_errno(err, DF_EIO, "wait for a job");
        c->pid = 0;
        c->user_ns = (int64_t)u.ru_utime.tv_sec * 1000000000 + (int64_t)u.ru_utime.tv_usec * 1000;
        c->cpu_ns = c->user_ns + (int64_t)u.ru_stime.tv_sec * 1000000000 +
                    (int64_t)u.ru_stime.tv_usec * 1000;
        c->peak_rss_bytes = (uint64_t)u.ru_maxrss * 1024;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                return df_fail(err, DF_EIO,
                               "a job ended with status %d; with --work DIR its log stays", status);
        return 0;
}

int64_t ad_bench_child_cpu_ns(const struct ad_bench_child *c)
{
        char path[64];
        struct df_buf b = {0};
        long long user = 0, kernel = 0;
        const char *p;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", c->pid);
        if (df_read_file(path, 65536, &b, NULL) < 0)
                return 0;
        df_put_u8(&b, 0);
        p = b.failed ? NULL : strrchr((const char *)b.data, ')');
        if (p)
                (void)sscanf(p + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lld %lld", &user,
                             &kernel);
        df_buf_release(&b);
        return (user + kernel) * (1000000000LL / sysconf(_SC_CLK_TCK));
}

uint64_t ad_bench_child_peak(const struct ad_bench_child *c)
{
        char path[64];
        struct df_buf b = {0};
        uint64_t bytes = 0;
        const char *p;

        (void)snprintf(path, sizeof(path), "/proc/%d/status", c->pid);
        if (df_read_file(path, 65536, &b, NULL) < 0)
                return 0;
        df_put_u8(&b, 0);
        p = b.failed ? NULL : strstr((const char *)b.data, "VmHWM:");
        if (p)
                bytes = strtoull(p + 6, NULL, 10) * 1024;
        df_buf_release(&b);
        return bytes;
}

/* ---- running one ---- */

static int print_json(const struct ad_bench *b, const char *name, struct df_error *err)
{
        struct df_buf out = {0};
        struct ad_json *j = ad_json_begin(&out);
        int rc;

        ad_json_open(j);
        ad_json_put_text(j, "bench", name);
        ad_json_put_text(j, "version", ADTALLY_VERSION);
        ad_json_put_int(j, "seed", (int64_t)b->seed);
        for (size_t i = 0; i < b->figure_count; i++) {
                double v = b->figures[i].value;

                ad_json_key(j, b->figures[i].name);
                if (v == (double)(int64_t)v || v > 1000)
                        ad_json_int(j, (int64_t)v);
                else
                        ad_json_double(j, v);
        }
        ad_json_close(j);
        rc = ad_json_end(j, &out, err);
        if (rc == 0)
                printf("%.*s\n", (int)out.len, (const char *)out.data);
        df_buf_release(&out);
        return rc;
}

static int make_dir(const struct df_config *c, struct ad_bench *b, struct df_error *err)
{
        const char *work = df_config_text(c, "work");

        if (!work)
                work = getenv("TMPDIR");
        if (snprintf(b->dir, sizeof(b->dir), "%s/adtally-bench-XXXXXX", work ? work : "/tmp") >=
            (int)sizeof(b->dir))
                return df_fail(err, DF_EINVAL, "--work: the path is too long");
        return mkdtemp(b->dir) ? 0 : df_fail_errno(err, DF_EIO, "create %s", b->dir);
}

static int run(const struct benchmark *m, const struct df_config *c, struct df_error *err)
{
        struct ad_bench b = {
                .config = c,
                .events = (uint64_t)df_config_integer(c, "events"),
                .seed = (uint64_t)df_config_integer(c, "seed"),
                .quiet = df_config_bool(c, "quiet"),
        };
        int rc = make_dir(c, &b, err);

        if (b.events == 0)
                b.events = m->events;
        if (rc == 0)
                rc = m->run(&b, err);
        if (rc == 0 && df_config_bool(c, "json"))
                rc = print_json(&b, m->name, err);
        else if (rc == 0)
                for (size_t i = 0; i < b.figure_count; i++)
                        printf("%-28s %18.6g\n", b.figures[i].name, b.figures[i].value);
        if (b.dir[0] && (rc == 0 || !df_config_text(c, "work"))) {
                struct df_error ignored;

                if (ad_command_remove_tree(b.dir, &ignored) < 0)
                        fprintf(stderr, "adtally bench: %s\n", ignored.text);
        }
        return rc;
}

int ad_command_bench(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        const struct benchmark *m = NULL;
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        for (size_t i = 0; l.arg_count == 1 && i < sizeof(benchmarks) / sizeof(benchmarks[0]); i++)
                if (strcmp(benchmarks[i].name, l.args[0]) == 0)
                        m = &benchmarks[i];
        if (!m) {
                ad_command_release(&l);
                return ad_command_usage("bench",
                                        "expected one of operators, log, realtime, ingest, "
                                        "metrics, freshness");
        }
        rc = run(m, l.config, &err);
        ad_command_release(&l);
        return rc < 0 ? ad_command_fail("bench", &err) : DF_EXIT_OK;
}
