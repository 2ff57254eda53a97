/* explain.h - GET /explain: what a number was made from.
 *
 * A cell of realtime is counted by the events of its window; they lie, partition by partition, in a
 * range of offsets that the seals of the tasks (K6) bound: no event of the window was taken in
 * before the first of them, and every one behind the last is late (W5). The seals chain by digest;
 * the archive has the records of the range, in segments with a SHA-256 each. Seals are read from
 * the topic `late`, which has them all and little else, as long as the log keeps it (--keep-log).
 * Where they are gone the raw records bound the range, by their append times and heartbeats, from
 * archive and log; the answer then says what can no longer be shown, and what proves the number
 * all the same.
 *
 * Order: ad_explain_find, ad_explain_json, ad_explain_release. Blocks: it reads the log. Thread:
 * any; an explanation belongs to one. Limits: below; beyond the first: `range_too_large`.
 */
#ifndef AD_EXPLAIN_H
#define AD_EXPLAIN_H

#include "df/archive.h"
#include "df/clock.h"
#include "jobs/api/query.h"

#define AD_EXPLAIN_SEALS_MAX 200000 /* read for one */
/* Raw records of a partition in which the end of a range is looked for, where seals are gone; not
 * found: not `complete`. */
#define AD_EXPLAIN_RECORDS_MAX 100000
/* An event of a window is received at most AD_FUTURE_MAX_MS before its time, and appended at most
 * AD_RECEIVE_AHEAD_MAX_MS before that. */
#define AD_EXPLAIN_AHEAD_MS (AD_FUTURE_MAX_MS + AD_RECEIVE_AHEAD_MAX_MS)
#define AD_EXPLAIN_SEGMENTS_MAX 1000 /* listed; all are counted */

struct ad_explain_context {         /* borrowed */
        struct df_log *log;         /* `late` */
        struct df_log *source;      /* `events`, with what is archived of it */
        struct df_objects *objects; /* the archive; NULL: there is none */
        const struct ad_status *status;
        int64_t grace_ms;
        const struct df_clock_rules *rules;
        uint64_t seals_max; /* 0: the limit above, as in the next two */
        uint64_t records_max;
        size_t segments_max;
        bool (*stop)(void *arg); /* true: give up, 503 */
        void *stop_arg;
};

struct ad_explain_source {
        struct df_source name;
        uint64_t seals, first_k, last_k; /* seals 0: none covers the window */
        uint64_t from_offset, to_offset;
        struct df_hash128 parent_digest, digest; /* of the state before the first seal, and after
                                                    the last */
        bool chained;                            /* each seal continues the one before it */
        bool complete;   /* nothing behind the last seal counts in the window any more */
        bool gone;       /* seals before the first one may belong to it; the log has deleted them */
        bool by_records; /* so the range is by the raw records */
        bool raw_gone;   /* and some of those, before from_offset, may be gone, too */
        int64_t watermark_ms;
        uint64_t config;
        char version[DF_VERSION_MAX + 1];
        /* The archive, by its manifest. */
        struct df_archive_entry *segments; /* in the arena */
        uint32_t segment_count, segments_listed;
        uint64_t archived_to; /* 0: nothing is */
};
struct ad_explain {
        int64_t from_ms, to_ms;
        struct ad_explain_source *sources; /* by partition */
        size_t source_count;
        uint64_t damaged; /* collections of `late` that do not match their seal */
        struct df_arena arena;
};
/* Of event times [from_ms, to_ms). 0, or -1 with *f. Release *ret in any case. */
int ad_explain_find(const struct ad_explain_context *c, int64_t from_ms, int64_t to_ms,
                    struct ad_explain *ret, struct ad_fault *f);
/* With the number itself: result is of the same question; NULL: its rows are no longer kept. */
int ad_explain_json(const struct ad_explain_context *c, const struct ad_explain *e,
                    const struct ad_query *q, const struct ad_result *result, struct df_buf *b,
                    struct df_error *err);
void ad_explain_release(struct ad_explain *e);

/* ---- of the bill (explain_bill.c) ----
 * A cell of the bill is what the newest posting before the answering run says (R4): named are the
 * runs that made these postings, and how far the answering run has judged each topic, with the
 * segments that events of the range can lie in. */
#define AD_EXPLAIN_RUNS_MAX 1000 /* that made the cells of one number; beyond: `range_too_large` */

struct ad_explain_run {
        struct df_bytes id;
        uint64_t cells, first_seq, last_seq; /* postings that the number is made from */
        bool known;                          /* the books know the run: */
        struct ad_billing_run run;
};
struct ad_explain_bill {
        struct ad_billing_run run; /* whose numbers these are */
        uint64_t cells, closed_cells, adjusted_cells;
        struct ad_explain_run *runs; /* by first_seq */
        size_t run_count;
        struct ad_explain_source *sources; /* of the run's vector; seals are 0 */
        size_t source_count;
        struct df_arena arena;
};
/* run: of the result of the same question. */
int ad_explain_bill_find(const struct ad_explain_context *c, struct ad_billing_read *read,
                         const struct ad_query *q, const char *run, struct ad_explain_bill *ret,
                         struct ad_fault *f);
int ad_explain_bill_json(const struct ad_explain_context *c, const struct ad_explain_bill *e,
                         const struct ad_query *q, const struct ad_result *result, struct df_buf *b,
                         struct df_error *err);
void ad_explain_bill_release(struct ad_explain_bill *e);

/* ---- explain_raw.c ---- */
/* s has the source's name, and the seals that are left. */
int adi_explain_raw(const struct ad_explain_context *c, struct ad_explain_source *s,
                    int64_t from_ms, int64_t to_ms, struct df_error *err);
/* Those that hold the source's range, of records appended since then. listed: so far. */
int adi_explain_segments(const struct ad_explain_context *c, struct ad_explain_source *s,
                         int64_t since_ms, size_t *listed, struct df_arena *arena,
                         struct df_error *err);

#endif
