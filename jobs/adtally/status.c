/* status.c - `adtally status`: is it well, and if not, what to do. Reads what the jobs write about
 * themselves (DATA/run/) and the log's files; asks no server, so it works when none answers. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "df/filelog.h"
#include "df/kafka.h"
#include "jobs/adtally/command.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"

static const char usage[] =
        "adtally status: jobs, partitions, ledger, freshness and disk of a data directory\n"
        "Usage: adtally status [--data DIR] [--json]\n\n"
        "Exit code 0: all is well; 1: something is wrong (it is named); 69: nothing runs here.\n";
static const char *const shared[] = {"data", "log", "kafka-prefix", "kafka.*", "json", NULL};

#define PROBLEMS_MAX 32
struct report {
        struct ad_samples samples;
        struct df_log *log;
        const char *data;
        char problems[PROBLEMS_MAX][256];
        size_t problem_count;
        bool running;
};

static void problem(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct report *r, const char *fmt, ...)
{
        va_list ap;

        if (r->problem_count == PROBLEMS_MAX)
                return;
        va_start(ap, fmt);
        (void)vsnprintf(r->problems[r->problem_count++], sizeof(r->problems[0]), fmt, ap);
        va_end(ap);
}

static double value_of(const struct report *r, const struct ad_job_file *f, const char *name,
                       double otherwise)
{
        for (size_t i = 0; i < r->samples.count; i++) {
                const struct ad_sample *s = &r->samples.list[i];

                if (strcmp(s->job, f->job) == 0 && strcmp(s->name, name) == 0 &&
                    (!*s->instance || strcmp(s->instance, f->instance) == 0))
                        return s->value;
        }
        return otherwise;
}

/* The bill, by what the api said last: to when it goes, and how old that is now. */
struct bill {
        int64_t through_ms;
        double age_s, every_s; /* every_s: how often a run is due */
};
static bool find_bill(const struct report *r, struct bill *ret)
{
        const struct ad_sample *age =
                ad_sample_find(&r->samples, "api", "adtally_billing_age_seconds");
        const struct ad_sample *every =
                ad_sample_find(&r->samples, "api", "adtally_billing_every_seconds");

        for (size_t i = 0; age && every && i < r->samples.job_count; i++) {
                const struct ad_job_file *f = &r->samples.jobs[i];

                if (strcmp(f->job, "api") != 0)
                        continue;
                ret->through_ms = f->stamp.written_ms - (int64_t)(age->value * 1000);
                ret->age_s = (double)(df_wall_ms() - ret->through_ms) / 1000;
                ret->every_s = every->value;
                return true;
        }
        return false;
}

static void judge_bill(struct report *r)
{
        const struct ad_sample *overdue =
                ad_sample_find(&r->samples, "api", "adtally_billing_overdue");
        struct bill bill;

        if (overdue && overdue->value != 0 && find_bill(r, &bill))
                problem(r,
                        "the bill is %.0f s old, and a run is due every %.0f s: see the log lines "
                        "of reconcile",
                        bill.age_s, bill.every_s);
}

static void judge(struct report *r)
{
        int64_t now = df_wall_ms();

        judge_bill(r);
        for (size_t i = 0; ad_job_names[i]; i++)
                r->running |= ad_job_any_alive(&r->samples, ad_job_names[i], now);
        for (size_t i = 0; r->running && ad_job_names[i]; i++)
                if (ad_job_missing(&r->samples, ad_job_names[i], now))
                        problem(r, "job %s does not run: look at its log lines", ad_job_names[i]);
        for (size_t i = 0; i < r->samples.count; i++) {
                const struct ad_sample *s = &r->samples.list[i];
                char stream[80] = "?", partition[16] = "?";

                (void)ad_sample_label(s, "stream", stream, sizeof(stream));
                (void)ad_sample_label(s, "partition", partition, sizeof(partition));
                if (strcmp(s->name, "adtally_partition_refused") == 0 &&
                    ad_sample_counts(&r->samples, s))
                        problem(r,
                                "partition %s/%s is refused (%s): see `adtally recover --topic %s "
                                "--partition %s`",
                                stream, partition, s->labels, stream, partition);
                if (strcmp(s->name, "adtally_ledger_imbalance") == 0 && s->value != 0)
                        problem(r, "ledger imbalance of %.0f events (%s): see GET /quality",
                                s->value, s->labels);
                if (strcmp(s->name, "adtally_ingest_ledger_imbalance") == 0 && s->value != 0)
                        problem(r, "edge ledger imbalance of %.0f events: see GET /quality",
                                s->value);
                if (strcmp(s->name, "adtally_view_partition_failed") == 0 && s->value != 0)
                        problem(r, "the view cannot read rollups/%s: see the log lines of api",
                                partition);
                if (strcmp(s->name, "adtally_view_missing_partition") == 0 && r->samples.several)
                        problem(r, "no realtime process runs partition events/%s", partition);
                if (strcmp(s->name, "adtally_archive_refused") == 0 && s->value != 0)
                        problem(r, "%s/%s is not archived: see the log lines of archive", stream,
                                partition);
                if (strcmp(s->name, "adtally_archive_lag_seconds") == 0 &&
                    ad_archive_lag_share(&r->samples, s) > AD_ARCHIVE_LAG_WARNS)
                        problem(r,
                                "%s/%s has records that are not archived for %.0f h: they are lost "
                                "to bills once the log deletes them (A3)",
                                stream, partition, s->value / 3600);
                if (strcmp(s->name, "adtally_reconcile_unexplained_cells") == 0 && s->value != 0)
                        problem(r, "%.0f cells of realtime are UNEXPLAINED: see docs/RUNBOOK.md",
                                s->value);
                if (strcmp(s->name, "adtally_reconcile_failed") == 0 && s->value != 0)
                        problem(r, "the last reconcile run failed: see the log lines of reconcile");
                if (strcmp(s->name, "adtally_billing_failed") == 0 && s->value != 0)
                        problem(r, "the bill cannot be read: see the log lines of api, books");
                if (strcmp(s->name, "adtally_reconcile_helpless") == 0 && s->value != 0)
                        problem(r, "the reconcile job cannot help the one that leads: \"error\" in "
                                   "DATA/run/reconcile.json says why");
                if (strcmp(s->name, "adtally_ingest_ready") == 0 && s->value == 0)
                        problem(r, "ingest refuses events: the clock jumped or the disk is full");
        }
}

static void print_job(const struct report *r, const struct ad_job_file *f)
{
        bool several = *f->instance && r->samples.several;
        char name[80];

        (void)snprintf(name, sizeof(name), "%s%s%s", f->job, several ? " " : "",
                       several ? f->instance : "");
        printf("  %-10s %-8s pid %-8d up %6.0f s   %7.1f MB   cpu %.1f s\n", name,
               ad_job_alive(f, df_wall_ms()) ? "runs" : "DOWN", f->stamp.pid,
               (double)(f->stamp.written_ms - f->stamp.started_ms) / 1000,
               value_of(r, f, "adtally_process_resident_bytes", 0) / 1e6,
               value_of(r, f, "adtally_process_cpu_seconds_total", 0));
}

static void print_jobs(const struct report *r)
{
        printf("jobs\n");
        for (size_t i = 0; ad_job_names[i]; i++) {
                bool there = false;

                for (size_t n = 0; n < r->samples.job_count; n++) {
                        const struct ad_job_file *f = &r->samples.jobs[n];

                        if (strcmp(f->job, ad_job_names[i]) != 0)
                                continue;
                        print_job(r, f);
                        there = true;
                }
                if (!there && !ad_job_is_optional(ad_job_names[i]))
                        printf("  %-10s never started here\n", ad_job_names[i]);
        }
}

static double beside(const struct report *r, const struct ad_sample *of, const char *name,
                     double otherwise)
{
        return ad_sample_beside(&r->samples, of, name, otherwise);
}

static void print_partitions(const struct report *r)
{
        printf("partitions\n  %-28s %10s %12s %8s %10s %12s %12s\n", "task", "state", "position",
               "lag", "checkpoint", "its age (s)", "watermark (s)");
        for (size_t i = 0; i < r->samples.count; i++) {
                const struct ad_sample *s = &r->samples.list[i];
                char stream[80] = "?", partition[16] = "?", name[160];

                if (strcmp(s->name, "adtally_task_running") != 0 ||
                    !ad_sample_counts(&r->samples, s))
                        continue;
                (void)ad_sample_label(s, "stream", stream, sizeof(stream));
                (void)ad_sample_label(s, "partition", partition, sizeof(partition));
                (void)snprintf(name, sizeof(name), "%s/%s%s%s", stream, partition,
                               *s->instance ? " " : "", s->instance);
                printf("  %-28s %10s %12.0f %8.0f %10.0f %12.1f %12.1f\n", name,
                       s->value != 0 ? "runs" : "STOPPED", beside(r, s, "adtally_task_position", 0),
                       beside(r, s, "adtally_task_lag_records", -1),
                       beside(r, s, "adtally_checkpoint_number", 0),
                       beside(r, s, "adtally_checkpoint_age_seconds", -1),
                       beside(r, s, "adtally_watermark_lag_seconds", -1));
        }
}

static void print_metrics(const struct report *r, const char *title, const char *const *names)
{
        printf("%s\n", title);
        for (size_t i = 0; i < r->samples.count; i++)
                for (size_t n = 0; names[n]; n++)
                        if (strcmp(r->samples.list[i].name, names[n]) == 0)
                                printf("  %-44s %-36s %14.6g\n", names[n] + strlen("adtally_"),
                                       r->samples.list[i].labels, r->samples.list[i].value);
}

static int print_held(void *arg, const char *topic, const char *holder, uint64_t bytes)
{
        (void)arg;
        printf("  %-28s %-24s %14.3f MB\n", topic, holder, (double)bytes / 1e6);
        return 0;
}

static void print_disk(const struct report *r)
{
        struct statvfs v;

        printf("disk by holder\n");
        if (r->log && !df_kafka_is(r->log))
                (void)df_filelog_usage(r->log, print_held, NULL, NULL); /* what can be read */
        if (statvfs(r->data, &v) == 0)
                printf("  free %.1f of %.1f GB\n", (double)v.f_bavail * (double)v.f_frsize / 1e9,
                       (double)v.f_blocks * (double)v.f_frsize / 1e9);
}

static void print_bill(const struct report *r)
{
        static const char *const names[] = {"adtally_reconcile_runs_total",
                                            "adtally_reconcile_leads",
                                            "adtally_reconcile_helps",
                                            "adtally_reconcile_working",
                                            "adtally_reconcile_partitions",
                                            "adtally_reconcile_progress_ratio",
                                            "adtally_reconcile_pending_cells",
                                            "adtally_reconcile_unexplained_cells",
                                            NULL};
        char through[AD_TIME_TEXT_MAX];
        struct bill bill;

        print_metrics(r, "bill", names);
        if (!find_bill(r, &bill)) {
                printf("  no run was posted yet\n");
                return;
        }
        (void)ad_time_text(bill.through_ms / 1000 * 1000, through);
        printf("  billed through %s, %.0f s ago; a run is due every %.0f s\n", through, bill.age_s,
               bill.every_s);
}

static void print_text(const struct report *r)
{
        static const char *const ingest[] = {"adtally_ingest_events_total", "adtally_ingest_ready",
                                             NULL};
        static const char *const archive[] = {"adtally_archive_end", "adtally_archive_lag_seconds",
                                              NULL};
        static const char *const view[] = {"adtally_freshness_seconds", "adtally_ledger_imbalance",
                                           "adtally_view_lag_records", NULL};

        print_jobs(r);
        print_partitions(r);
        print_metrics(r, "ingest", ingest);
        print_metrics(r, "view", view);
        print_metrics(r, "archive", archive);
        print_bill(r);
        print_disk(r);
        printf("\n%s\n", !r->running        ? "nothing runs on this data directory: adtally up"
                         : r->problem_count ? "PROBLEMS"
                                            : "all is well");
        for (size_t i = 0; i < r->problem_count; i++)
                printf("  - %s\n", r->problems[i]);
}

static void put_bill(const struct report *r, struct ad_json *j)
{
        char through[AD_TIME_TEXT_MAX];
        struct bill bill;

        if (!find_bill(r, &bill)) {
                ad_json_put_null(j, "bill");
                return;
        }
        (void)ad_time_text(bill.through_ms, through);
        ad_json_key(j, "bill");
        ad_json_open(j);
        ad_json_put_text(j, "billed_through", through);
        ad_json_key(j, "age_s");
        ad_json_double(j, bill.age_s);
        ad_json_key(j, "every_s");
        ad_json_double(j, bill.every_s);
        ad_json_close(j);
}

static void put_jobs(const struct report *r, struct ad_json *j)
{
        int64_t now = df_wall_ms();

        ad_json_key(j, "jobs");
        ad_json_open_array(j);
        for (size_t i = 0; i < r->samples.job_count; i++) {
                const struct ad_job_file *f = &r->samples.jobs[i];

                ad_json_open(j);
                ad_json_put_text(j, "job", f->job);
                if (*f->instance)
                        ad_json_put_text(j, "instance", f->instance);
                ad_json_put_int(j, "pid", f->stamp.pid);
                ad_json_put_bool(j, "running", ad_job_alive(f, now));
                ad_json_put_int(j, "started_ms", f->stamp.started_ms);
                ad_json_close(j);
        }
        ad_json_close_array(j);
}

static int print_json(const struct report *r, struct df_error *err)
{
        struct df_buf b = {0};
        struct ad_json *j = ad_json_begin(&b);
        int rc;

        ad_json_open(j);
        ad_json_put_bool(j, "running", r->running);
        put_jobs(r, j);
        put_bill(r, j);
        ad_json_key(j, "metrics");
        ad_json_open_array(j);
        for (size_t i = 0; i < r->samples.count; i++) {
                const struct ad_sample *s = &r->samples.list[i];

                ad_json_open(j);
                ad_json_put_text(j, "job", s->job);
                if (*s->instance)
                        ad_json_put_text(j, "instance", s->instance);
                ad_json_put_text(j, "name", s->name);
                ad_json_put_text(j, "labels", s->labels);
                ad_json_key(j, "value");
                ad_json_double(j, s->value);
                ad_json_close(j);
        }
        ad_json_close_array(j);
        ad_json_key(j, "problems");
        ad_json_open_array(j);
        for (size_t i = 0; i < r->problem_count; i++)
                ad_json_text(j, r->problems[i]);
        ad_json_close_array(j);
        ad_json_close(j);
        rc = ad_json_end(j, &b, err);
        if (rc == 0)
                printf("%.*s\n", (int)b.len, (const char *)b.data);
        df_buf_release(&b);
        return rc;
}

int ad_command_status(int argc, char **argv)
{
        struct ad_command_line l;
        struct report *r = calloc(1, sizeof(*r));
        struct df_error err = {0};
        int code, rc;

        if (!r)
                return DF_EXIT_SOFTWARE;
        if (!ad_command_read(argc, argv, usage, NULL, 0, shared, &l, &code)) {
                free(r);
                return code;
        }
        r->data = df_config_text(l.config, "data");
        rc = ad_samples_read(r->data, &r->samples, &err);
        if (rc == 0 && r->samples.job_count && ad_open_log(l.config, &r->log, NULL) < 0)
                problem(r, "the log cannot be opened");
        if (rc == 0) {
                judge(r);
                if (df_config_bool(l.config, "json"))
                        rc = print_json(r, &err);
                else
                        print_text(r);
        }
        code = rc < 0             ? ad_command_fail("status", &err)
               : !r->running      ? DF_EXIT_UNAVAILABLE
               : r->problem_count ? DF_EXIT_FAILURE
                                  : DF_EXIT_OK;
        df_log_close(r->log);
        ad_samples_release(&r->samples);
        ad_command_release(&l);
        free(r);
        return code;
}
