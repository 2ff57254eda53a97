/* replay.h - `adtally replay`: what it says of a run (jobs/runs/runs.h) and of its result.
 *
 * Order of calls: ad_replay_begin, ad_replay_print_pin, ad_replay_work, ad_replay_fold,
 *                 ad_replay_print, ad_replay_result_release, ad_replay_end.
 * Thread: one.
 */
#ifndef AD_REPLAY_H
#define AD_REPLAY_H

#include "jobs/adtally/command.h"
#include "jobs/runs/runs.h"

/* --list and --drop RUN of the kind's command: they print what there is, or what was deleted. */
int ad_replay_tell_all(const struct df_config *c, const struct ad_run_kind *kind,
                       struct df_error *err);
int ad_replay_drop_named(const struct df_config *c, const struct ad_run_kind *kind,
                         struct df_log *log, struct df_error *err);

/* ---- the result (replay_fold.c, replay_print.c) ---- */
struct ad_replay_day { /* counted events of a UTC day, in one currency */
        int64_t day;   /* since the epoch */
        char currency[4];
        struct ad_cell sum;
};
struct ad_replay_result {
        uint64_t records, poison_records, heartbeats, events;
        uint64_t outcomes[DF_OUTCOMES_MAX];
        uint64_t rows;              /* minute rows of all groupings */
        struct ad_replay_day *days; /* by day, then currency */
        size_t day_count, day_cap;
        char digest[65]; /* SHA-256 of the rows as lines, hex */
};
/* Reads the run's rollups: the newest row of each (source, cell), summed over the sources, as JSON
 * lines in canonical order (minute, grouping, tenant, dimensions, currency), into out (NULL: only
 * for the digest). Seals must cover the range without a gap, and every event must have one outcome:
 * DF_ECORRUPT otherwise. */
int ad_replay_fold(struct df_log *log, const struct ad_replay *r, const char *out, bool quiet,
                   struct ad_replay_result *ret, struct df_error *err);
void ad_replay_result_release(struct ad_replay_result *r);
int ad_replay_print(const struct ad_replay *r, const struct ad_replay_result *result, bool json,
                    struct df_error *err);
/* Run and pinned range, before the work. */
void ad_replay_print_pin(const struct ad_replay *r);

#endif
