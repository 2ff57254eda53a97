/* profile.h - where the time of a task goes: per operator, and per step of a commit.
 *
 * For people alone: nothing that is computed may depend on it. The core knows no clock, so whoever
 * drives it lends one (df_task_config.ticks_ns); without one the times are 0 and the counts are
 * right. An operator's time is its own, without the operators after it in the chain. Every fourth
 * step is timed, and counts for four: two readings a batch and operator would cost 2 to 3 % of the
 * time of records with 100 events. Checkpoints, watermarks and steps of a commit are timed always.
 *
 * Thread: that of the session; copy the result to hand it on.
 */
#ifndef DF_PROFILE_H
#define DF_PROFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DF_PROFILE_MAX 32

struct df_profile_line {
        const char *name;    /* the operator's, or the step's; static */
        bool step;           /* of a commit or of opening, not an operator */
        uint64_t calls;      /* of process; of the step */
        uint64_t items;      /* given to process */
        uint64_t process_ns; /* process, on_watermark; the step */
        uint64_t cut_ns;     /* on_cut, snapshot */
};
struct df_profile {
        struct df_profile_line lines[DF_PROFILE_MAX];
        size_t count;
};
/* Lines of the same name and kind are added up. Beyond DF_PROFILE_MAX lines are left out. */
void df_profile_add(struct df_profile *sum, const struct df_profile *v);

#endif
