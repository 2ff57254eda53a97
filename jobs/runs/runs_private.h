/* runs_private.h - between runs.c and run_file.c. */
#ifndef ADI_RUNS_PRIVATE_H
#define ADI_RUNS_PRIVATE_H

#include "jobs/runs/runs.h"

#define ADI_RUN_PATH_MAX 700

/* The id that its pin, settings and version give. */
void adi_run_own_id(const struct ad_replay *r, char id[AD_REPLAY_ID_MAX + 1]);
int adi_run_write(const struct ad_replay *r, struct df_error *err);
/* DF_ENOENT: there is none. */
int adi_run_read(struct ad_replay *r, struct df_error *err);

#endif
