/* tasks.h - which tasks the realtime job runs: one a partition of `events`, and one a partition of
 * every import topic (R6), which it discovers while it runs.
 *
 * On the file log one process runs them all. On Kafka the consumer group "realtime" spreads them
 * over the workers of every instance (K8, K9). */
#ifndef AD_REALTIME_TASKS_H
#define AD_REALTIME_TASKS_H

#include "df/run.h"
#include "jobs/common/settings.h"

struct ad_tasks;

/* Opens the file log's writers of rollups, late and quarantine: one realtime process a log. */
int ad_tasks_create(const struct df_config *c, struct df_log *log, struct ad_tasks **ret,
                    struct df_error *err);
/* What the workers need to be members of the group; nothing on the file log. */
void ad_tasks_group(struct ad_tasks *t, struct df_workers_options *ret);
/* The pool that runs them, made with these options. Before ad_tasks_discover. */
void ad_tasks_run_on(struct ad_tasks *t, struct df_workers *workers);
/* Add the tasks of topics that are not served yet. Call at start and about every second. */
int ad_tasks_discover(struct ad_tasks *t, struct df_error *err);
/* Call fn with every task that the job would run now; for a command that opens their sessions
 * itself, without ad_tasks_run_on. fn's error ends it. */
int ad_tasks_each(struct ad_tasks *t,
                  int (*fn)(void *arg, const struct df_worker_task *task, struct df_error *err),
                  void *arg, struct df_error *err);
/* Take refused partitions over again when `adtally recover` has asked for it since the last call.
 * Call about every second. */
void ad_tasks_follow_recovery(struct ad_tasks *t);
/* L2: when hardly anything is free, give the reserve file's space to checkpoints and deletion;
 * make it again when there is room. Call about every second. */
void ad_tasks_guard_disk(struct ad_tasks *t);
/* Delete what retention allows of the topics that this job writes. */
int ad_tasks_retain(struct ad_tasks *t, struct df_error *err);
void ad_tasks_destroy(struct ad_tasks *t); /* after df_workers_stop */

#endif
