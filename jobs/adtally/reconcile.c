/* reconcile.c - `adtally reconcile`: options, and the steps of a run (reconcile.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/objects.h"
#include "df/trace.h"
#include "jobs/adtally/reconcile.h"
#include "jobs/common/corrections.h"
#include "jobs/common/times.h"

static const char usage[] =
        "adtally reconcile: the bill by raw events, and why realtime's numbers differ from it\n"
        "Usage: adtally reconcile [--topic NAME] [--from TIME] [--to TIME] [--out FILE] "
        "[SETTINGS]\n"
        "       adtally reconcile --list\n"
        "       adtally reconcile --drop RUN\n\n"
        "Reads the archive and the log up to the end of now. The bill counts the first copy of "
        "each event\n"
        "within --billing-horizon, late or not, at the newest price table. Each event that "
        "realtime counts\n"
        "otherwise is told under its cause; what no cause explains is an alarm (exit code 1). "
        "--from and\n"
        "--to (RFC 3339, at full quarter hours) say which event times are told. Interrupted or "
        "killed, the\n"
        "same command goes on; done, it takes in what has come since. The result is the same "
        "whatever\n"
        "--workers. Use the settings of `up` (--config).\n";
static const struct df_setting own[] = {
        {"topic", DF_TEXT, AD_TOPIC_EVENTS, .arg = "NAME",
         .help = "raw events: live ones, or import.HASH"},
        {"from", DF_TEXT, NULL, .arg = "TIME", .help = "event times from here on"},
        {"to", DF_TEXT, NULL, .arg = "TIME", .help = "event times before it"},
        {"out", DF_TEXT, NULL, .arg = "FILE", .help = "rows by cell and cause as JSON lines"},
        {"wait", DF_DURATION, "10m", .help = "for realtime, as long as it does not move"},
        {"drop", DF_TEXT, NULL, .arg = "RUN", .help = "delete a run's topics and state"},
        {"list", DF_BOOL, "false", .help = "the runs of this data directory"},
};
static const char *const shared[] = {"data",
                                     "log",
                                     "archive",
                                     "s3-endpoint",
                                     "s3-region",
                                     "kafka-prefix",
                                     "kafka.*",
                                     "workers",
                                     "grace",
                                     "out-of-orderness",
                                     "accepted-age",
                                     "dedupe-horizon",
                                     "billing-horizon",
                                     "cell-cap",
                                     "pricing",
                                     "quiet",
                                     "json",
                                     NULL};

/* ---- the range that is told ---- */

static int parse_bound(const struct df_config *c, const char *name, uint64_t otherwise,
                       uint64_t *ret, struct df_error *err)
{
        const char *text = df_config_text(c, name);
        int64_t ms;

        *ret = otherwise;
        if (!text)
                return 0;
        if (!ad_time_parse(df_bytes_str(text), &ms) || ms % AD_QUARTER_MS != 0)
                return df_fail(err, DF_EINVAL,
                               "--%s %.40s: an RFC 3339 time at a full quarter hour is wanted",
                               name, text);
        *ret = (uint64_t)ms / AD_QUARTER_MS;
        return 0;
}

static int parse_range(const struct df_config *c, struct ad_bill_result *r, struct df_error *err)
{
        int rc = parse_bound(c, "from", 0, &r->from, err);

        if (rc == 0)
                rc = parse_bound(c, "to", UINT64_MAX, &r->to, err);
        if (rc == 0 && r->from >= r->to)
                rc = df_fail(err, DF_EINVAL, "--from is not before --to");
        return rc;
}

/* ---- the run ---- */

static int finish(const struct df_config *c, const struct ad_replay_logs *logs,
                  struct ad_replay *run, struct ad_bill_result *r, struct df_error *err)
{
        struct ad_compare_options o = {.wait_ms = df_config_ms(c, "wait"),
                                       .quiet = df_config_bool(c, "quiet")};
        int rc = 0;

        if (!run->done)
                rc = ad_replay_work(c, logs, run, err);
        if (rc == 0)
                rc = ad_bill_fold(logs->log, run, df_config_text(c, "out"), r, err);
        if (rc == 0)
                rc = ad_bill_compare(logs->log, run, &o, r, err);
        return rc == 0 ? ad_bill_print(run, r, df_config_bool(c, "json"), err) : rc;
}

static int reconcile(const struct df_config *c, const struct ad_replay_logs *logs, int *ret_exit,
                     struct df_error *err)
{
        struct ad_bill_result *r = calloc(1, sizeof(*r));
        struct ad_replay *run = calloc(1, sizeof(*run));
        struct ad_run_kind kind = ad_run_reconcile;
        struct ad_correction_log *corrections = NULL;
        int rc = r && run ? parse_range(c, r, err) : df_fail(err, DF_ENOMEM, "run");

        if (rc == 0)
                rc = ad_correction_log_read(logs->log, AD_CORRECTIONS_ALL, &corrections, err);
        kind.corrections = corrections;
        if (rc == 0)
                rc = ad_replay_begin_of(c, &kind, logs->source, df_config_text(c, "topic"), run,
                                        err);
        if (rc == 0) {
                rc = finish(c, logs, run, r, err);
                ad_replay_end(run);
        }
        if (rc == 0 && ad_bill_unexplained(r))
                *ret_exit = DF_EXIT_FAILURE;
        ad_correction_log_destroy(corrections);
        free(run);
        free(r);
        return rc;
}

static int run(const struct df_config *c, int *ret_exit, struct df_error *err)
{
        struct df_objects *objects = NULL;
        struct ad_replay_logs logs = {0};
        int rc;

        if (df_config_bool(c, "list"))
                return ad_replay_tell_all(c, &ad_run_reconcile, err);
        rc = ad_open_log(c, &logs.log, err);
        if (rc == 0 && df_config_text(c, "drop"))
                rc = ad_replay_drop_named(c, &ad_run_reconcile, logs.log, err);
        else if (rc == 0)
                rc = ad_bill_open_source(c, logs.log, &objects, &logs.source, err);
        if (rc == 0 && logs.source)
                rc = reconcile(c, &logs, ret_exit, err);
        if (logs.source && logs.source != logs.log)
                df_log_close(logs.source);
        df_objects_close(objects);
        df_log_close(logs.log);
        return rc;
}

int ad_command_reconcile(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code = DF_EXIT_OK, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        code = DF_EXIT_OK;
        df_process_keep_memory();
        if (df_config_is_default(l.config, "log-level"))
                df_trace_level("warn"); /* between lines of progress */
        rc = l.arg_count != 0 ? df_fail(&err, DF_EINVAL, "unexpected argument %s", l.args[0])
                              : df_process_start("reconcile", false, &err);
        if (rc == 0)
                rc = run(l.config, &code, &err);
        ad_command_release(&l);
        return rc == DF_EINVAL ? ad_command_usage("reconcile", "%s", err.text)
               : rc < 0        ? ad_command_fail("reconcile", &err)
                               : code;
}
