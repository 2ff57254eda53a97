/* generate.h - seeded traffic, and exactly what a correct Adtally makes of it.
 *
 * An event is a pure function of (options, index, base time): the plan. What makes the truth exact
 * although the server decides by its own clock and order:
 *   duplicate     the same bytes as an earlier event, so either copy may be the first (D1)
 *   conflict      the same id with other money; sent only after the first was acknowledged; that
 *                 id has no further copy
 *   late          older than now - grace - out-of-orderness - a minute - AD_GEN_MARGIN_MS: behind
 *                 the watermark of every partition, which heartbeats (T4) keep near now (W5)
 *   all others    on time if acknowledged before their minute's end + grace + out-of-orderness: no
 *                 watermark is ahead of receive time - out-of-orderness (T3). The sender checks
 *                 this for each and calls the truth inexact otherwise.
 *   broken        refused by ingest, never in the log
 * A batch without an answer is sent again with the same ids: then more duplicates may be in the log
 * than planned, at most `resent`.
 */
#ifndef AD_GENERATE_H
#define AD_GENERATE_H

#include "df/config.h"
#include "proto/wire.h"

#define AD_GEN_MARGIN_MS 120000 /* heartbeats come at least every 60 s */
#define AD_GEN_CURRENCIES_MAX 8
#define AD_GEN_BATCH_MAX 10000
#define AD_GEN_CONNECTIONS_MAX 16
#define AD_GEN_NAME_MAX 48

struct ad_gen_options {
        uint64_t seed, events;
        uint32_t campaigns, batch, connections;
        double zipf;                                              /* exponent; 0 = all alike */
        double duplicates, conflicts, out_of_order, late, broken; /* shares of events */
        char currencies[AD_GEN_CURRENCIES_MAX][4];
        uint32_t currency_count;
        char default_currency[4];  /* the server's, of events without money */
        double rate;               /* events a second; 0 = as fast as it goes */
        bool live;                 /* event time is the time of sending */
        int64_t start_ms, span_ms; /* not live: the first event's time, and until the last */
        int64_t began_ms;          /* wall time of the run */
        int64_t grace_ms, out_of_orderness_ms, accepted_age_ms; /* of the server */
};

enum ad_gen_kind {
        AD_GEN_PLAIN,
        AD_GEN_OUT_OF_ORDER,
        AD_GEN_LATE,
        AD_GEN_DUPLICATE,
        AD_GEN_CONFLICT,
        AD_GEN_BROKEN,
        AD_GEN_KINDS,
};
extern const char *const ad_gen_kind_names[AD_GEN_KINDS];

struct ad_gen_item {
        uint64_t index;
        uint64_t origin; /* of a duplicate or conflict: the event it repeats; else index */
        enum ad_gen_kind kind;
        enum ad_reason rejected; /* of a broken one: the code that ingest answers */
        uint32_t broken;         /* of a broken one: which way */
        uint32_t type;           /* enum ad_type */
        uint32_t campaign;
        int64_t event_ms;
        int currency, value_currency; /* index; -1 = none stated */
        int64_t cost, payout, value;  /* micros; -1 = not stated */
};

/* ---- plan (generate_plan.c) ---- */
struct ad_gen_plan;
int ad_gen_plan_create(const struct ad_gen_options *o, struct ad_gen_plan **ret,
                       struct df_error *err);
const struct ad_gen_options *ad_gen_plan_options(const struct ad_gen_plan *p);
/* base_ms(arg, batch): when that batch was sent; asked only when live, for the batch of index and
 * at most AD_GEN_REACH batches before it. Thread: any. */
#define AD_GEN_REACH 18
void ad_gen_item(const struct ad_gen_plan *p, uint64_t index,
                 int64_t (*base_ms)(void *arg, uint64_t batch), void *arg, struct ad_gen_item *ret);
/* One NDJSON line, with its line end. */
void ad_gen_line(const struct ad_gen_plan *p, const struct ad_gen_item *item, struct df_buf *b);
void ad_gen_plan_destroy(struct ad_gen_plan *p);

/* ---- truth (generate_truth.c): a plain recount of what was sent, no operator involved ---- */
struct ad_gen_truth;
int ad_gen_truth_create(const struct ad_gen_plan *p, struct ad_gen_truth **ret,
                        struct df_error *err);
int ad_gen_truth_add(struct ad_gen_truth *t, const struct ad_gen_item *item, struct df_error *err);
struct ad_gen_sums {
        uint64_t events, accepted, counted, duplicate, conflict, late, rejected;
        uint64_t out_of_order;
        uint64_t rejected_by[128]; /* enum ad_reason */
};
const struct ad_gen_sums *ad_gen_truth_sums(const struct ad_gen_truth *t);
/* The truth file: one JSON document, one row a line (check.c reads it so). unsure: events whose
 * outcome the run could not be sure of; then it is not exact. */
int ad_gen_truth_write(const struct ad_gen_truth *t, uint64_t resent, uint64_t unsure,
                       const char *path, struct df_error *err);
void ad_gen_truth_destroy(struct ad_gen_truth *t);

/* ---- sending (generate_send.c) ---- */
struct ad_gen_result {
        uint64_t batches, requests, retries, resent, unsure, surprises;
        char surprise[240]; /* the first answer that was not as planned */
        int64_t elapsed_ms;
};
/* Posts everything (or until the process should stop) and adds what was acknowledged to the truth.
 * */
int ad_gen_send(const struct ad_gen_plan *p, struct ad_gen_truth *t, const char *url,
                const char *key, int64_t retry_for_ms, bool quiet, struct ad_gen_result *ret,
                struct df_error *err);
/* Writes NDJSON to path ("-" = stdout). */
int ad_gen_write(const struct ad_gen_plan *p, struct ad_gen_truth *t, const char *path, bool quiet,
                 struct ad_gen_result *ret, struct df_error *err);

#endif
