/* bill.h - reconcile runs: the bill by raw events, and why realtime differs (R1 to R3).
 *
 * The run (runs.h, ad_run_reconcile) reads the archive and the log as one, from the first record
 * to the end of now, and judges each event by realtime's rules and the bill's (operators/bill.c).
 * Its state stays, so the next run of the same settings reads only what is new; another horizon,
 * price table or version begins anew. What it wrote is then added up (fold): a row for each cell
 * and cause. Then it waits until realtime has come to the run's end, and compares, in windows that
 * are final there, what realtime's rules give with the rows that realtime has written (compare).
 *
 * Order of calls: ad_replay_begin, ad_replay_work, fold, compare.
 * Thread: one.
 */
#ifndef AD_BILL_RUN_H
#define AD_BILL_RUN_H

#include "jobs/runs/runs.h"
#include "proto/bill.h"

extern const struct ad_run_kind ad_run_reconcile;

/* Of the newest price table now: part of what the run is; 0 = none. */
uint32_t ad_bill_price_version(const struct df_config *c);

/* What such a run reads: archive and log as one, or (--archive none) the log itself. *ret_objects,
 * NULL without an archive, and *ret, unless it is `log`, are the caller's to close, *ret first. */
struct df_objects;
int ad_bill_open_source(const struct df_config *c, struct df_log *log,
                        struct df_objects **ret_objects, struct df_log **ret, struct df_error *err);

/* A cause in one currency, over all cells of the range. */
struct ad_bill_total {
        uint32_t cause; /* enum ad_cause */
        char currency[4];
        uint64_t cells;
        struct ad_cell billed, realtime;
};
#define AD_BILL_TOTALS_MAX (AD_CAUSE_COUNT * 200) /* there are fewer currencies */

struct ad_bill_result {
        uint64_t from, to; /* quarters of event time [from, to) that are told */
        struct ad_bill_total totals[AD_BILL_TOTALS_MAX];
        size_t total_count;
        uint64_t rows;
        char digest[65]; /* SHA-256 of the rows as lines, hex */
        /* Of each partition at the run's end: windows before it are final (W4). */
        int64_t final_through_ms[DF_PARTITIONS_MAX];
        /* What was compared. */
        uint64_t compared;                  /* realtime's minute cells */
        uint64_t skipped;                   /* cells whose rows the log may have deleted */
        uint32_t behind[DF_PARTITIONS_MAX]; /* partitions that realtime has not finished */
        uint32_t behind_count;
};

/* NULL: memory. */
struct ad_bill_total *ad_bill_total(struct ad_bill_result *r, uint32_t cause,
                                    struct df_bytes currency);
/* Rows of the range as JSON lines in canonical order (quarter, tenant, advertiser, campaign,
 * publisher, currency, cause) into out (NULL: only for the digest); totals by cause. */
int ad_bill_fold(struct df_log *log, const struct ad_replay *run, const char *out,
                 struct ad_bill_result *ret, struct df_error *err);
struct ad_compare_options {
        int64_t wait_ms; /* a partition without a new seal for so long is not waited for */
        bool quiet;
        /* What is settled is not compared again: rows that are not lie in DATA/reconcile/<run>
         * until the next comparison. DF_ECORRUPT, DF_EOFFSET: that store cannot go on, `all` can.
         */
        bool keep;
        bool all; /* keep: but begin with all that the log has */
        /* Each difference, a minute cell of realtime's: `realtime` is what realtime has beyond
         * what its rules give (signed, proto/books.h). NULL: only totals. */
        int (*difference)(void *arg, const struct ad_bill_row *row, struct df_error *err);
        void *arg;
};
/* Adds the causes not_yet_processed and unexplained. */
int ad_bill_compare(struct df_log *log, const struct ad_replay *run,
                    const struct ad_compare_options *options, struct ad_bill_result *ret,
                    struct df_error *err);
/* Which cell a line is of, as members of the object that is open: the same in all lines, since
 * digests are over them. */
struct ad_json;
void ad_bill_put_names(struct ad_json *j, const struct ad_bill_row *row);
/* Whether realtime's rows are not what its rules give: an alarm. */
bool ad_bill_unexplained(const struct ad_bill_result *r);
#endif
