/* reconcile.h - `adtally reconcile`: what it says of a run (jobs/runs/bill.h). Thread: one. */
#ifndef AD_RECONCILE_H
#define AD_RECONCILE_H

#include "jobs/adtally/replay.h"
#include "jobs/runs/bill.h"

int ad_bill_print(const struct ad_replay *run, const struct ad_bill_result *r, bool json,
                  struct df_error *err);

#endif
