/* main.c - the reconcile job: the bill, by a schedule or when asked (R1 to R4). */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "df/objects.h"
#include "df/trace.h"
#include "jobs/common/places.h"
#include "jobs/common/rebuild.h"
#include "jobs/reconcile/close.h"
#include "jobs/reconcile/share.h"

#define TICK_MS 200
#define NICE 10 /* what is counted now goes first */
#define FIRST_MS 30000
#define LAG_SLACK_MS 15000 /* heartbeats, and the checkpoint */
#define RETAIN_EVERY_MS 60000

static const char usage[] =
        "adtally-reconcile: the bill by raw events, and its books (run by `adtally up`)\n"
        "Usage: adtally-reconcile --data DIR [--reconcile-every TIME] [SETTINGS]\n";

/* ---- the schedule ---- */

struct turn {
        uint32_t failures;             /* in a row */
        int64_t retry_ms, retained_ms; /* monotonic */
        int64_t recovered_ns;          /* of the file by which recover asks; -1: not seen yet */
};

static void failed(struct ad_job *j, struct turn *t, const struct df_error *err)
{
        bool later = err->code == DF_EFENCED || err->code == DF_EAGAIN;
        int64_t wait = ad_schedule_retry_ms(later ? 0 : t->failures++);

        t->retry_ms = df_monotonic_ms() + wait;
        if (df_process_stopping())
                return;
        df_trace(later ? DF_WARN : DF_ERROR, "reconcile", "code=%s: %s; again in %lld s",
                 df_err_code(err->code), err->text, (long long)(wait / 1000));
        pthread_mutex_lock(&j->status.lock);
        j->status.failures += !later;
        j->status.failed |= !later;
        (void)snprintf(j->status.why, sizeof(j->status.why), "%s", err->text);
        pthread_mutex_unlock(&j->status.lock);
}

static int run_once(struct ad_job *j, const char *id, uint64_t offset, bool all,
                    struct df_error *err)
{
        bool asked = false;
        int rc = ad_job_run(j, id, all, &asked, err);

        if (rc < 0)
                return rc;
        if (*id && asked) {
                j->state.commands = offset + 1;
                ad_commands_done(j->commands);
        }
        return ad_job_state_write(j->data, &j->state, err);
}

/* Whether something is due, and done. */
static void turn(struct ad_job *j, struct turn *t)
{
        enum ad_due due =
                ad_schedule_due(&j->schedule, df_wall_ms(), j->ran_ms, j->state.compared_ms);
        char id[AD_COMMAND_ID_MAX + 1] = "";
        const char *first = "";
        struct df_error err = {0};
        uint64_t offset = 0;
        bool refused = false;
        int rc = ad_commands_follow(j->commands, &err);

        if (rc == 0)
                rc = ad_job_answers_follow(j->answers, &refused, &err);
        if (rc == 0)
                rc = ad_closer_idle(j->closer, &err);
        if (refused)
                j->state.chain[0] = '\0';

        pthread_mutex_lock(&j->status.lock);
        j->status.waiting = ad_commands_waiting(j->commands);
        pthread_mutex_unlock(&j->status.lock);
        if (rc == 0 && df_monotonic_ms() < t->retry_ms)
                return;
        if (ad_commands_first(j->commands, &first, &offset))
                (void)snprintf(id, sizeof(id), "%s", first);
        if (rc == 0 && due == AD_DUE_NOT && !*id && !refused && !ad_closer_wants_run(j->closer))
                return;
        if (rc == 0)
                rc = run_once(j, id, offset, due == AD_DUE_WHOLE, &err);
        if (rc < 0) {
                failed(j, t, &err);
                return;
        }
        t->failures = 0;
        pthread_mutex_lock(&j->status.lock);
        j->status.failed = false;
        pthread_mutex_unlock(&j->status.lock);
}

/* L2: what the books have read goes as raw events do. */
static void retain(struct ad_job *j)
{
        int64_t from = df_wall_ms() - df_config_ms(j->config, "keep-log");
        struct df_error err = {0};
        uint64_t deleted = 0;

        if (!df_kafka_is(j->logs.log) &&
            df_filelog_retain(j->logs.log, AD_TOPIC_RUNS, from, &deleted, &err) < 0)
                df_trace(DF_WARN, "retain", "code=%s: %s", df_err_code(err.code), err.text);
}

/* `adtally recover` was done with the books. */
static void follow_recovery(struct ad_job *j, struct turn *t)
{
        int64_t ns = ad_recovered_ns(j->config);

        if (t->recovered_ns >= 0 && ns != t->recovered_ns)
                df_workers_retry(j->status.books);
        t->recovered_ns = ns;
}

static void serve(struct ad_job *j)
{
        struct turn t = {.retained_ms = df_monotonic_ms(), .recovered_ns = -1};

        while (!df_process_stopping()) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};

                turn(j, &t);
                follow_recovery(j, &t);
                if (df_monotonic_ms() - t.retained_ms >= RETAIN_EVERY_MS) {
                        t.retained_ms = df_monotonic_ms();
                        retain(j);
                }
                (void)poll(&p, 1, TICK_MS); /* an early wake-up is harmless */
        }
}

/* ---- start and end ---- */

/* Machines that start together do not run together. */
static int64_t first_run_ms(int64_t every_ms)
{
        int64_t wait = every_ms < FIRST_MS ? every_ms : FIRST_MS;

        return df_wall_ms() + wait + (wait / 8) * (getpid() % 16) / 16;
}

static int read_state(struct ad_job *j, struct df_error *err)
{
        char dir[4096];
        int rc = ad_data_path(j->config, "reconcile", dir, err);

        if (rc == 0)
                rc = df_mkdirs(dir, err);
        if (rc == 0)
                rc = ad_job_state_read(j->data, &j->state, err);
        if (rc == 0)
                rc = ad_handover_take(j, err);
        pthread_mutex_lock(&j->status.lock);
        j->status.unexplained = j->state.unexplained;
        j->status.pending = j->state.pending;
        pthread_mutex_unlock(&j->status.lock);
        return rc == 0 ? ad_commands_open(j->logs.log, j->state.commands, &j->commands, err) : rc;
}

static int append_close(void *arg, struct df_bytes record, struct df_error *err)
{
        return ad_job_append(arg, "close", record, err);
}

static int open_closer(struct ad_job *j, struct df_objects *objects, struct df_error *err)
{
        struct ad_closer_options o = {.config = j->config,
                                      .log = j->logs.log,
                                      .objects = objects,
                                      .append = append_close,
                                      .append_arg = j};
        int rc = ad_closer_open(&o, &j->closer, err);

        pthread_mutex_lock(&j->status.lock);
        j->status.closer = j->closer;
        pthread_mutex_unlock(&j->status.lock);
        return rc;
}

/* What a process has that waits for the lead. */
static int open_member(const struct df_config *c, struct ad_job *j, struct df_error *err)
{
        int rc;

        j->config = c;
        j->data = j->pace.data = df_config_text(c, "data");
        j->pace.lag_max_ms = df_config_ms(c, "out-of-orderness") + LAG_SLACK_MS;
        j->schedule.every_ms = df_config_ms(c, "reconcile-every");
        j->logs.threads = (uint32_t)df_config_integer(c, "reconcile-threads");
        j->logs.stored = true;
        rc = ad_schedule_nightly(df_config_text(c, "reconcile-nightly"), &j->schedule.nightly_ms,
                                 err);
        if (rc == 0)
                rc = ad_data_path(c, "run/reconcile.json", j->status.path, err);
        if (rc == 0)
                rc = ad_instance_check(df_config_text(c, "instance"), err);
        if (rc == 0)
                rc = ad_store_check(c, err);
        if (rc == 0)
                rc = ad_open_log(c, &j->logs.log, err);
        if (rc == 0)
                rc = ad_create_topics(j->logs.log, (uint32_t)df_config_integer(c, "partitions"),
                                      err);
        if (rc == 0)
                rc = ad_notice_place(c, j->logs.log, j->share.path, err);
        return rc == 0 ? ad_lead_open(c, j->logs.log, &j->lead, err) : rc;
}

static int open_leader(const struct df_config *c, struct ad_job *j, struct df_objects **ret_objects,
                       struct df_error *err)
{
        int rc = df_log_writer_open(j->logs.log, AD_TOPIC_RUNS, &j->runs, err);

        j->schedule.first_ms = first_run_ms(j->schedule.every_ms);
        if (rc == 0)
                rc = ad_job_answers_open(j->logs.log, &j->answers, err);
        if (rc == 0)
                rc = read_state(j, err);
        if (rc == 0)
                ad_share_clear(&j->share);
        if (rc == 0)
                rc = ad_bill_open_source(c, j->logs.log, ret_objects, &j->logs.source, err);
        return rc == 0 ? open_closer(j, *ret_objects, err) : rc;
}

/* Until the process should stop, or another one leads. */
static int lead(const struct df_config *c, struct ad_job *j, struct df_objects **ret_objects,
                struct ad_books **ret_books, struct df_error *err)
{
        int rc = open_leader(c, j, ret_objects, err);

        if (rc == 0)
                rc = ad_books_start(c, j->logs.log, ret_books, err);
        if (rc < 0)
                return rc;
        pthread_mutex_lock(&j->status.lock);
        j->status.books = ad_books_pool(*ret_books);
        pthread_mutex_unlock(&j->status.lock);
        ad_job_status_phase(&j->status, AD_JOB_IDLE);
        serve(j);
        return 0;
}

static void close_job(struct ad_job *j, struct df_objects *objects)
{
        if (j->logs.source && j->logs.source != j->logs.log)
                df_log_close(j->logs.source);
        df_objects_close(objects);
        ad_commands_close(j->commands);
        ad_job_answers_close(j->answers);
        ad_closer_close(j->closer);
        df_log_writer_close(j->runs);
        df_log_close(j->logs.log);
}

static int run(const struct df_config *c, struct df_error *err)
{
        struct ad_job *j = calloc(1, sizeof(*j));
        struct df_objects *objects = NULL;
        struct df_status *status = NULL;
        struct ad_books *books = NULL;
        int rc, ended;

        if (!j)
                return df_fail(err, DF_ENOMEM, "job");
        (void)setpriority(PRIO_PROCESS, 0, NICE); /* only slower for others without */
        pthread_mutex_init(&j->status.lock, NULL);
        j->status.since_ms = df_wall_ms();
        rc = open_member(c, j, err);
        if (rc == 0)
                rc = df_status_start(df_config_text(c, "data"), "reconcile", ad_job_status_render,
                                     &j->status, &status, err);
        if (rc == 0)
                ad_help_wait(j);
        if (rc == 0 && !df_process_stopping())
                rc = lead(c, j, &objects, &books, err);
        df_status_stop(status);
        ad_books_stop(books);
        ended = ad_lead_close(j->lead, rc == 0 ? err : NULL);
        rc = rc == 0 ? ended : rc;
        close_job(j, objects);
        pthread_mutex_destroy(&j->status.lock);
        free(j);
        return rc;
}

int main(int argc, char **argv)
{
        df_process_keep_memory();
        return ad_job_main("reconcile", usage, run, argc, argv);
}
