/* places.h - where an instance keeps its things.
 *
 *   DATA/state/<topic>/<partition>                       of the instance "main"
 *   DATA/instances/<instance>/state/<topic>/<partition>  of every other one
 *   STORE/<topic>/<partition>      --checkpoint-store, shared by all machines (K2); on Kafka, when
 *                                  none is given and it is there, DATA/checkpoints, which `up`
 *                                  makes for its own realtime processes
 *   STORE/reconcile-<run>/<partition>  of a chain of the reconcile job
 *   STORE/reconcile-leader             the instance that led last (jobs/reconcile/handover.c)
 *   DATA/run/realtime.prom, DATA/run/realtime-<instance>.prom  status files (df/run.h)
 */
#ifndef AD_PLACES_H
#define AD_PLACES_H

#include "df/config.h"

#define AD_INSTANCE_MAIN "main"
#define AD_INSTANCE_MAX 48 /* bytes of --instance: a-z, 0-9, - and _ */

/* It becomes part of paths and of the group's member names. */
int ad_instance_check(const char *name, struct df_error *err);

/* The checkpoint store into ret, PATH_MAX bytes; "" when there is none. */
int ad_store(const struct df_config *c, char *ret, struct df_error *err);
/* Make DATA/checkpoints the store unless another is given. */
int ad_store_make(const struct df_config *c, struct df_error *err);
/* Into ret, PATH_MAX bytes. The state directory is that of the --instance of c. */
int ad_state_dir(const struct df_config *c, const char *topic, uint32_t partition, char *ret,
                 struct df_error *err);
/* The mark of `adtally recover --from log`, "rebuild this state": in the checkpoint store, for
 * whichever machine takes the partition over, or beside the state directory. On Kafka it holds what
 * was committed then, and means nothing once anything else is (df/task.h, recover_of). */
int ad_rebuild_mark(const struct df_config *c, const char *topic, uint32_t partition, char *ret,
                    struct df_error *err);
/* "" when there is no checkpoint store. */
int ad_store_dir(const struct df_config *c, const char *topic, uint32_t partition, char *ret,
                 struct df_error *err);
/* DF_EINVAL: it is never made here, for it may be a mount that is missing. */
int ad_store_check(const struct df_config *c, struct df_error *err);
/* Into ret, 64 bytes: the name of the status file without ".prom". */
void ad_status_name(const struct df_config *c, char *ret);

#endif
