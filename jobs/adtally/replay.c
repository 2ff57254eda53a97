/* replay.c - `adtally replay`: options, and which of its four things is to be done. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/trace.h"
#include "jobs/adtally/replay.h"

static const char usage[] =
        "adtally replay: process a range of a topic again, apart from what is live\n"
        "Usage: adtally replay [--from WHERE] [--to WHERE] [--out FILE] [SETTINGS]\n"
        "       adtally replay --list\n"
        "       adtally replay --drop RUN\n\n"
        "WHERE is start, end, offset:N (in every partition), offset:PARTITION=N,... (partitions "
        "not\n"
        "named are whole on that side), or the RFC 3339 time at which records were appended. The "
        "range\n"
        "is pinned when the run begins: `end` is the end of that moment, without open "
        "transactions.\n"
        "The run has topics, state and group of its own; live numbers do not change. Rules are "
        "those of\n"
        "the settings, so give the same ones as to `up` (--config). At the end of the range every "
        "window\n"
        "is final. Interrupted or killed, the same command goes on; finished, it prints its result "
        "again.\n"
        "The result is the same whatever --workers. Of a range that does not begin at the topic's "
        "first\n"
        "offset, copies of earlier events count as new.\n";
static const struct df_setting own[] = {
        {"topic", DF_TEXT, AD_TOPIC_EVENTS, .arg = "NAME", .help = "what to process"},
        {"from", DF_TEXT, "start", .arg = "WHERE", .help = "where the range begins"},
        {"to", DF_TEXT, "end", .arg = "WHERE", .help = "before what it ends"},
        {"out", DF_TEXT, NULL, .arg = "FILE", .help = "minute rows as JSON lines"},
        {"dry-run", DF_BOOL, "false", .help = "tell run and range only"},
        {"drop", DF_TEXT, NULL, .arg = "RUN", .help = "delete a run's topics and state"},
        {"list", DF_BOOL, "false", .help = "the runs of this data directory"},
};
static const char *const shared[] = {
        "data",           "log",      "kafka-prefix",     "kafka.*",
        "workers",        "grace",    "out-of-orderness", "accepted-age",
        "dedupe-horizon", "cell-cap", "pricing",          "quiet",
        "json",           NULL};

static int finish(const struct df_config *c, struct df_log *log, struct ad_replay *r,
                  struct df_error *err)
{
        struct ad_replay_logs logs = {.source = log, .log = log};
        struct ad_replay_result result = {0};
        int rc = 0;

        if (!r->done)
                rc = ad_replay_work(c, &logs, r, err);
        if (rc == 0)
                rc = ad_replay_fold(log, r, df_config_text(c, "out"), df_config_bool(c, "quiet"),
                                    &result, err);
        if (rc == 0)
                rc = ad_replay_print(r, &result, df_config_bool(c, "json"), err);
        ad_replay_result_release(&result);
        return rc;
}

static int replay(const struct df_config *c, struct df_log *log, struct df_error *err)
{
        bool dry_run = df_config_bool(c, "dry-run");
        struct ad_replay *r = calloc(1, sizeof(*r));
        int rc = r ? ad_replay_begin(c, &ad_run_replay, log, dry_run, r, err)
                   : df_fail(err, DF_ENOMEM, "run");

        if (rc == 0) {
                ad_replay_print_pin(r);
                rc = dry_run ? ad_replay_print(r, NULL, df_config_bool(c, "json"), err)
                             : finish(c, log, r, err);
                ad_replay_end(r);
        }
        free(r);
        return rc;
}

static int run(const struct df_config *c, struct df_error *err)
{
        struct df_log *log = NULL;
        int rc;

        if (df_config_bool(c, "list"))
                return ad_replay_tell_all(c, &ad_run_replay, err);
        rc = ad_open_log(c, &log, err);
        if (rc == 0)
                rc = df_config_text(c, "drop") ? ad_replay_drop_named(c, &ad_run_replay, log, err)
                                               : replay(c, log, err);
        df_log_close(log);
        return rc;
}

int ad_command_replay(int argc, char **argv)
{
        struct ad_command_line l;
        struct df_error err = {0};
        int code, rc;

        if (!ad_command_read(argc, argv, usage, own, sizeof(own) / sizeof(own[0]), shared, &l,
                             &code))
                return code;
        if (df_config_is_default(l.config, "log-level"))
                df_trace_level("warn"); /* between lines of progress */
        rc = l.arg_count != 0 ? df_fail(&err, DF_EINVAL, "unexpected argument %s", l.args[0])
                              : df_process_start("replay", false, &err);
        if (rc == 0)
                rc = run(l.config, &err);
        ad_command_release(&l);
        return rc == DF_EINVAL ? ad_command_usage("replay", "%s", err.text)
               : rc < 0        ? ad_command_fail("replay", &err)
                               : DF_EXIT_OK;
}
