/* settings.h - every setting of every job, in one table, and what the jobs derive from it.
 *
 * All jobs read the same table (INI file, ADTALLY_*, flags), so `adtally up` hands its effective
 * settings to its children as flags, and a setting means the same everywhere. What shapes a number
 * (grace, horizon, cap, groupings, pricing) goes into ad_config_digest: a task refuses to go on
 * over the state of another digest (K14).
 */
#ifndef AD_SETTINGS_H
#define AD_SETTINGS_H

#include "df/config.h"
#include "df/log.h"
#include "operators/ops.h"

extern const struct df_setting ad_settings[];
extern const size_t ad_setting_count;

#define AD_TOPIC_EVENTS "events"
#define AD_TOPIC_ROLLUPS "rollups"
#define AD_TOPIC_LATE "late"
#define AD_TOPIC_QUARANTINE "quarantine"
#define AD_TOPIC_COMMANDS "commands" /* one partition */
#define AD_TOPIC_RUNS "runs"         /* one partition */
#define AD_TOPIC_BILLING "billing"   /* as many as runs */
#define AD_TOPIC_IMPORT_PREFIX "import."
#define AD_GROUP_REALTIME "realtime"   /* on Kafka, after --kafka-prefix */
#define AD_GROUP_RECONCILE "reconcile" /* on `commands`: who is assigned it makes the runs */
#define AD_GROUP_BOOKS "books"         /* the offset in `runs` alone; nobody joins it */
/* Outputs of a run of `adtally replay`: inputs of nobody. */
#define AD_TOPIC_REPLAY_PREFIX "replay-"
#define AD_TOPIC_RECONCILE_PREFIX "reconcile-" /* of a run of `adtally reconcile` */

/* Between `adtally recover` and the realtime job; under DATA, touched when refused partitions
 * should be taken over again. With a checkpoint store the same file in it is for all machines. */
#define AD_RECOVERED_FILE "run/recovered"
#define AD_RECOVERED_STORE_FILE "recovered"

#define AD_REALTIME_PROCESSES_MAX 8 /* of one `adtally up` */

/* Open the log that `--log` names (default file:DATA/log). */
int ad_open_log(const struct df_config *c, struct df_log **ret, struct df_error *err);
/* The same for another place, as --log writes it; NULL: file:DATA/log. */
int ad_open_log_at(const struct df_config *c, const char *where, struct df_log **ret,
                   struct df_error *err);
/* False: Kafka. What df/filelog.h offers beyond df/log.h is for the file log alone. */
bool ad_log_is_file(const struct df_config *c);
/* DATA/<name>, into ret (at least 4096 bytes). */
int ad_data_path(const struct df_config *c, const char *name, char *ret, struct df_error *err);
/* Create the job's topics unless they exist: events, rollups, late, quarantine, with
 * `--partitions`; commands, runs and billing, with one. DF_ESCHEMA (K14) when one has another
 * count. commands and billing are kept for ever: nothing retains them on the file log, and on Kafka
 * their settings say so. */
int ad_create_topics(struct df_log *log, uint32_t partitions, struct df_error *err);

/* The operators' parameters and the task's rules; price_table is left NULL. */
void ad_fill_params(const struct df_config *c, struct ad_params *ret);
void ad_fill_rules(const struct df_config *c, struct df_clock_rules *ret);
uint64_t ad_config_digest(const struct df_config *c);

/* Load settings for main(): prints --help or the error; *ret_exit is the code when it returns
 * false. usage is the first lines of --help. */
bool ad_main_settings(int argc, char **argv, const char *usage, struct df_config **ret,
                      const char **ret_free, int *ret_free_count, int *ret_exit);

/* main() of a job: settings, signals and log lines (df_process_start), run until it returns, one
 * log line when that failed. Returns the exit code. */
int ad_job_main(const char *job, const char *usage,
                int (*run)(const struct df_config *c, struct df_error *err), int argc, char **argv);

#endif
