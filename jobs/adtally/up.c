/* up.c - everything on one machine: one data directory, one port, the jobs as children.
 *
 * This process holds what must outlive a job: the lock of the data directory, the listening socket,
 * and both ends of the pair over which ingest and api hand each other the connections whose next
 * request is the other's (df/net.h). A job that is killed is started again and finds them as they
 * were, so its restart drops no request of the other. Jobs stop in the order ingest, api, realtime:
 * first nothing new comes in, last what is in the log is counted and committed. On Kafka there may
 * be several realtime processes (--realtime-processes), which share the partitions.
 */
#include "jobs/adtally/up.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/trace.h"
#include "jobs/common/archive.h"
#include "jobs/common/places.h"

#define DRAIN_MS 15000
#define READY_EVERY_MS 200

static const char usage[] = "adtally up: receive, count and serve on this machine, until Ctrl-C\n"
                            "Usage: adtally up [--data DIR] [--listen HOST:PORT] [SETTINGS]\n";
static const char *const shared[] = {"data",
                                     "listen",
                                     "admin",
                                     "keys",
                                     "partitions",
                                     "workers",
                                     "commit-threads",
                                     "grace",
                                     "time-zone",
                                     "currency",
                                     "pricing",
                                     "dedupe-horizon",
                                     "out-of-orderness",
                                     "accepted-age",
                                     "seal-user-ids",
                                     "checkpoint-min",
                                     "checkpoint-max",
                                     "keep-log",
                                     "keep-minutes",
                                     "keep-hours",
                                     "log-level",
                                     "log",
                                     "kafka-prefix",
                                     "kafka-replication",
                                     "kafka-session-timeout",
                                     "kafka-transaction-timeout",
                                     "kafka.*",
                                     "realtime-processes",
                                     "instance",
                                     "checkpoint-store",
                                     "reconcile",
                                     "reconcile-every",
                                     "reconcile-nightly",
                                     "reconcile-threads",
                                     "billing-horizon",
                                     "archive",
                                     "archive-segment",
                                     "s3-endpoint",
                                     "s3-region",
                                     "s3-access-key",
                                     "s3-secret-key",
                                     "s3-session-token",
                                     NULL};

#define JOBS_MAX (AD_REALTIME_PROCESSES_MAX + 4)
_Static_assert(JOBS_MAX <= DF_CHILDREN_MAX, "the supervisor's limit");

struct job { /* one child, with the memory its df_child borrows */
        char name[16];
        char instance[AD_INSTANCE_MAX + 8]; /* of realtime; else "" */
        char path[PATH_MAX];
        const char **argv;
        int fds[3];
};

struct state {
        struct ad_up up;
        struct job jobs[JOBS_MAX];
        size_t realtime_count;
        int lock_fd, listen_fd, pair[2];
        uint16_t port;
        int64_t ready_looked_ms;
        bool ready;
};

/* The n-th realtime process, from 1: "main", "r2", ..., or, on a machine with a name of its own
 * (--instance m), "m", "m-r2", ... */
static void name_instance(const struct df_config *c, size_t n, char *ret, size_t size)
{
        const char *own = df_config_text(c, "instance");
        bool is_main = strcmp(own, AD_INSTANCE_MAIN) == 0;

        if (n == 1)
                (void)snprintf(ret, size, "%s", own);
        else
                (void)snprintf(ret, size, "%s%sr%zu", is_main ? "" : own, is_main ? "" : "-", n);
}

/* Whether an `up` of this configuration starts it, with whatever number of processes. */
static bool is_ours(const struct df_config *c, const struct ad_job_file *f)
{
        bool ours = !*f->instance;

        for (size_t n = 1; n <= AD_REALTIME_PROCESSES_MAX; n++) {
                char name[AD_INSTANCE_MAX + 8];

                name_instance(c, n, name, sizeof(name));
                ours |= strcmp(f->instance, name) == 0;
        }
        return ours;
}

static bool jobs_alive(const struct df_config *c)
{
        struct ad_samples s;
        bool alive = false;

        if (ad_samples_read(df_config_text(c, "data"), &s, NULL) < 0)
                return false;
        for (size_t i = 0; i < s.job_count; i++)
                alive |= is_ours(c, &s.jobs[i]) && ad_job_alive(&s.jobs[i], df_wall_ms());
        ad_samples_release(&s);
        return alive;
}

/* A supervisor that was killed leaves jobs that end by themselves, but drain first; until then they
 * own the listening socket and the log. */
static void wait_for_orphans(const struct df_config *c)
{
        int64_t until = df_monotonic_ms() + DRAIN_MS + 5000;

        if (!jobs_alive(c))
                return;
        df_trace(DF_INFO, "up", "the jobs of a supervisor that was killed end first");
        while (jobs_alive(c) && df_monotonic_ms() < until && !df_process_stopping())
                (void)usleep(50000);
}

static bool is_off(const struct df_config *c, const char *job)
{
        return (strcmp(job, "archive") == 0 && ad_archive_is_off(c)) ||
               (strcmp(job, "reconcile") == 0 &&
                strcmp(df_config_text(c, "reconcile"), "off") == 0);
}

/* Status files of realtime processes that are gone, but for the own instance's, and of a job
 * that is off now: of fewer processes than last time nobody shall miss the others. */
static int forget_gone(const struct df_config *c, struct df_error *err)
{
        const char *data = df_config_text(c, "data");
        char path[PATH_MAX], name[32];
        struct ad_samples s;
        int rc = ad_samples_read(data, &s, err);

        if (rc < 0)
                return rc;
        for (size_t i = 0; rc == 0 && i < s.job_count; i++) {
                const char *instance = s.jobs[i].instance;

                if (is_off(c, s.jobs[i].job)) {
                        (void)snprintf(name, sizeof(name), "run/%s.prom", s.jobs[i].job);
                        rc = ad_data_path(c, name, path, err);
                        if (rc == 0 && unlink(path) < 0)
                                rc = df_fail_errno(err, DF_EIO, "remove %s", path);
                        continue;
                }
                if (!*instance || strcmp(instance, df_config_text(c, "instance")) == 0 ||
                    ad_job_alive(&s.jobs[i], df_wall_ms()))
                        continue;
                rc = ad_instance_file(data, instance, path, err);
                if (rc == 0 && unlink(path) < 0)
                        rc = df_fail_errno(err, DF_EIO, "remove %s", path);
        }
        ad_samples_release(&s);
        return rc;
}

static char *flag(const char *name, const char *value)
{
        char *s = NULL;

        return asprintf(&s, "--%s=%s", name, value) < 0 ? NULL : s;
}

/* The job's command line: every setting that is not a default, and what it inherits. */
static int fill_argv(struct job *j, const struct df_config *c, const struct state *s, int pair_fd,
                     struct df_error *err)
{
        char number[16];
        size_t n = 0;

        j->argv = calloc(ad_setting_count + 9, sizeof(*j->argv));
        if (!j->argv)
                return df_fail(err, DF_ENOMEM, "arguments of %s", j->name);
        j->argv[n++] = j->path;
        for (size_t i = 0; i < ad_setting_count; i++) {
                const char *name = ad_settings[i].name;

                if (strcmp(name, "instance") == 0 && *j->instance)
                        j->argv[n++] = flag(name, j->instance);
                else if (!ad_settings[i].secret && !df_config_is_default(c, name) &&
                         df_config_value(c, name))
                        j->argv[n++] = flag(name, df_config_value(c, name));
        }
        j->argv[n++] = flag("supervised", "true");
        j->fds[0] = j->fds[1] = j->fds[2] = -1;
        if (pair_fd >= 0) {
                (void)snprintf(number, sizeof(number), "%d", s->listen_fd);
                j->argv[n++] = flag("listen-fd", number);
                (void)snprintf(number, sizeof(number), "%d", pair_fd);
                j->argv[n++] = flag("peer-fd", number);
                j->fds[0] = s->listen_fd;
                j->fds[1] = pair_fd;
        }
        for (size_t i = 0; i < n; i++)
                if (!j->argv[i])
                        return df_fail(err, DF_ENOMEM, "arguments of %s", j->name);
        return 0;
}

static int fill_child(struct state *s, const struct df_config *c, const char *job, size_t number,
                      int pair_fd, struct df_error *err)
{
        size_t i = s->up.child_count++;
        struct job *j = &s->jobs[i];
        bool realtime = strcmp(job, "realtime") == 0;
        int rc = ad_command_find_job(job, j->path, err);

        if (number == 1)
                (void)snprintf(j->name, sizeof(j->name), "%s", job);
        else
                (void)snprintf(j->name, sizeof(j->name), "%s-%zu", job, number);
        if (realtime)
                name_instance(c, number, j->instance, sizeof(j->instance));
        if (rc == 0)
                rc = fill_argv(j, c, s, pair_fd, err);
        s->up.instances[i] = realtime ? j->instance : NULL;
        s->up.children[i] = (struct df_child){
                .name = j->name,
                .argv = j->argv,
                .keep_fds = j->fds,
        };
        return rc;
}

/* Started in this order and stopped in reverse. */
static int fill_children(struct state *s, const struct df_config *c, struct df_error *err)
{
        int rc = 0;

        for (size_t n = 1; rc == 0 && n <= s->realtime_count; n++)
                rc = fill_child(s, c, "realtime", n, -1, err);
        if (rc == 0 && !is_off(c, "archive"))
                rc = fill_child(s, c, "archive", 1, -1, err);
        if (rc == 0 && !is_off(c, "reconcile"))
                rc = fill_child(s, c, "reconcile", 1, -1, err);
        if (rc == 0)
                rc = fill_child(s, c, "api", 1, s->pair[1], err);
        return rc == 0 ? fill_child(s, c, "ingest", 1, s->pair[0], err) : rc;
}

/* Whether a realtime process ever kept a state here. */
static bool has_state(const struct df_config *c)
{
        char own[PATH_MAX], others[PATH_MAX];

        return ad_data_path(c, "state", own, NULL) == 0 &&
               ad_data_path(c, "instances", others, NULL) == 0 &&
               (access(own, F_OK) == 0 || access(others, F_OK) == 0);
}

/* Several share the partitions, which only a group of Kafka hands out, and the checkpoints (K2). */
static int prepare_realtime(struct state *s, const struct df_config *c, struct df_error *err)
{
        char store[PATH_MAX];
        int rc;

        s->realtime_count = (size_t)df_config_integer(c, "realtime-processes");
        if (s->realtime_count == 1)
                return 0;
        if (ad_log_is_file(c))
                return df_fail(err, DF_EINVAL,
                               "--realtime-processes %zu: on the file log one process counts all "
                               "partitions: use --workers, or --log kafka:...",
                               s->realtime_count);
        rc = ad_store(c, store, err);
        if (rc == 0 && !*store && has_state(c))
                return df_fail(err, DF_EINVAL,
                               "--realtime-processes %zu: the checkpoints in %s are one process's "
                               "own, and another would refuse its partitions (K2): make the "
                               "directory %s/checkpoints, run with one process until it is ready, "
                               "stop it, then start several",
                               s->realtime_count, df_config_text(c, "data"),
                               df_config_text(c, "data"));
        return rc == 0 ? ad_store_make(c, err) : rc;
}

static void say_ready(const struct state *s)
{
        const char *listen = df_config_text(s->up.config, "listen");
        int host = (int)(strrchr(listen, ':') - listen);

        printf("ready\n"
               "  send     POST http://%.*s:%u/events\n"
               "  numbers  GET  http://%.*s:%u/metrics   (a page to look at: http://%.*s:%u/)\n"
               "  quality  GET  http://%.*s:%u/quality\n"
               "  admin    GET  http://%s/metrics, /healthz, /readyz\n"
               "  data     %s   (Ctrl-C drains and stops)\n",
               host, listen, s->port, host, listen, s->port, host, listen, s->port, host, listen,
               s->port, df_config_text(s->up.config, "admin"),
               df_config_text(s->up.config, "data"));
        (void)fflush(stdout);
}

static void tick(void *arg)
{
        struct state *s = arg;
        struct df_buf why = {0};
        int64_t now = df_monotonic_ms();

        if (s->ready || now - s->ready_looked_ms < READY_EVERY_MS)
                return;
        s->ready_looked_ms = now;
        if (ad_up_not_ready(&s->up, &why, NULL) == 0 && why.len == 0) {
                s->ready = true;
                say_ready(s);
        }
        df_buf_release(&why);
}

static int prepare(struct state *s, const struct df_config *c, struct df_error *err)
{
        int rc = prepare_realtime(s, c, err);

        if (rc == 0)
                rc = ad_store_check(c, err);
        if (rc == 0)
                rc = ad_command_lock_data(c, &s->lock_fd, err);
        if (rc == 0) {
                wait_for_orphans(c);
                rc = forget_gone(c, err);
        }
        if (rc == 0)
                rc = df_http_listen(df_config_text(c, "listen"), &s->listen_fd, &s->port, err);
        if (rc == 0)
                rc = df_http_pair(s->pair, err);
        if (rc == 0)
                rc = ad_command_hand_down_secrets(c, err);
        if (rc == 0)
                rc = ad_open_log(c, &s->up.log, err);
        if (rc == 0)
                rc = fill_children(s, c, err);
        return rc == 0 ? ad_up_admin_start(&s->up, err) : rc;
}

static void clean_up(struct state *s)
{
        df_http_server_stop(s->up.admin, 1000);
        df_log_close(s->up.log);
        for (size_t i = 0; i < s->up.child_count; i++) {
                for (size_t n = 1; s->jobs[i].argv && s->jobs[i].argv[n]; n++)
                        free((char *)s->jobs[i].argv[n]);
                free(s->jobs[i].argv);
        }
        for (int i = 0; i < 2; i++)
                if (s->pair[i] >= 0)
                        close(s->pair[i]);
        if (s->listen_fd >= 0)
                close(s->listen_fd);
        if (s->lock_fd >= 0)
                close(s->lock_fd);
}

int ad_command_up(int argc, char **argv)
{
        struct state *s = calloc(1, sizeof(*s));
        struct ad_command_line l;
        struct df_error err = {0};
        int code, rc;

        if (!s)
                return DF_EXIT_SOFTWARE;
        if (!ad_command_read(argc, argv, usage, NULL, 0, shared, &l, &code)) {
                free(s);
                return code;
        }
        if (l.arg_count > 0) {
                free(s);
                ad_command_release(&l);
                return ad_command_usage("up", "it takes no arguments");
        }
        s->up.config = l.config;
        s->lock_fd = s->listen_fd = s->pair[0] = s->pair[1] = -1;
        rc = df_process_start("up", false, &err);
        if (rc == 0)
                rc = prepare(s, l.config, &err);
        if (rc == 0) {
                code = df_supervise(s->up.children, s->up.child_count, DRAIN_MS, tick, s);
                if (code)
                        fprintf(stderr, "adtally up: a job cannot run with this configuration (its "
                                        "message is above); everything is stopped\n");
        } else {
                code = ad_command_fail("up", &err);
                if (rc == DF_EEXIST) /* a port is taken, and may become free */
                        code = DF_EXIT_TEMPFAIL;
        }
        clean_up(s);
        ad_command_release(&l);
        free(s);
        return code;
}
