#include "operators/ops.h"

void ad_end(struct df_out *out, struct ad_event *ev, enum ad_reason outcome)
{
        df_check(ev->outcome == AD_NONE);
        df_check((unsigned)outcome < DF_OUTCOMES_MAX);
        ev->outcome = outcome;
        df_out_count(out, outcome, 1);
}
