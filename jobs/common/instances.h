/* instances.h - the realtime processes of one data directory, as their status files show them.
 *
 * Each process writes DATA/run/realtime.prom (the instance "main") or
 * DATA/run/realtime-<instance>.prom every second (places.h). On Kafka several share the partitions,
 * so what one file says of a partition is not all there is to say.
 *
 * Thread: any; nothing is kept between calls.
 */
#ifndef AD_INSTANCES_H
#define AD_INSTANCES_H

#include "df/run.h"
#include "jobs/common/places.h"

#define AD_INSTANCES_MAX 32 /* status files of realtime processes in one data directory */

struct ad_instances {
        char names[AD_INSTANCES_MAX][AD_INSTANCE_MAX + 1]; /* "main" first, the others sorted */
        size_t count;
};

/* Whose files are there, alive or not. DF_ELIMIT: more than AD_INSTANCES_MAX. */
int ad_instances_list(const char *data_dir, struct ad_instances *ret, struct df_error *err);
/* The status file of an instance, into ret, PATH_MAX bytes. */
int ad_instance_file(const char *data_dir, const char *instance, char *ret, struct df_error *err);

/* The first line of a status file (df/run.h). */
struct ad_job_stamp {
        int pid;
        int64_t started_ms, written_ms;
};
/* text ends with a zero byte. False: it has no such line. */
bool ad_job_stamp_read(const char *text, struct ad_job_stamp *ret);
/* The process lives and has written lately. A stopped or hanging one is not alive. */
bool ad_job_stamp_alive(const struct ad_job_stamp *s, int64_t now_ms);

#endif
