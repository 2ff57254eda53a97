/* quality.h - GET /quality: how complete, how fresh, and whether every event is accounted for.
 *
 * Two ledgers (DESIGN section 3), both from durable records alone:
 *   edge     per ingest start, up to its newest heartbeat: received = accepted + rejected +
 * unanswered durable  per source: accepted = counted + duplicate + conflict + late + quarantined +
 * pending, where accepted are the events of its records, decoded ones and those no seal covers yet
 * (pending); each is counted from the records and again by its outcome. Between them stand the
 * events that a heartbeat calls accepted in a partition and those the task of the partition has
 * seen: fewer seen would be a loss. Pure: the same status and tail give the same answer.
 */
#ifndef AD_QUALITY_H
#define AD_QUALITY_H

#include "jobs/api/books_follow.h"
#include "jobs/api/status.h"
#include "jobs/api/zone.h"
#include "jobs/common/json.h"

struct ad_ledger { /* DESIGN section 4 */
        uint64_t received, rejected, unanswered;
        uint64_t accepted, counted, duplicate, conflict, late, quarantined, pending;
        uint64_t imported; /* of accepted: events of imports, which no ingest received */
        uint64_t accepted_at_edge;
};

/* |accepted - its outcomes| of the durable ledger, and gaps in the sequences that ingest stamped.
 */
uint64_t ad_source_imbalance(const struct ad_status *s, size_t source);
/* The durable half for one source; pending: events that no seal covers. */
void ad_source_ledger(const struct ad_source *s, uint64_t pending, struct ad_ledger *ret);

/* One ingest start: the newest heartbeat of any partition, sealed or in the log's tail, and the
 * sums over partitions. */
struct ad_start_ledger {
        uint64_t start_id;
        struct ad_edge edge;
        uint64_t stored; /* accepted, summed over each partition's newest heartbeat */
        uint64_t seen;   /* by the tasks */
        uint64_t lost;   /* said to be accepted, and not seen: 0, or an alarm */
};
bool ad_start_balanced(const struct ad_start_ledger *l);
/* All of them, the newest first; *ret is the caller's to free. */
int ad_start_ledgers(const struct ad_status *s, const struct ad_tail *tail,
                     struct ad_start_ledger **ret, size_t *ret_count, struct df_error *err);

/* Everything: *ret_balanced says whether both halves add up everywhere. pending: by partition of
 * the current generation of `events`. */
void ad_whole_ledger(const struct ad_status *s, const uint64_t *pending,
                     const struct ad_start_ledger *starts, size_t start_count,
                     struct ad_ledger *ret, bool *ret_balanced);

/* Start of the oldest minute with rows that is not final for the source; DF_TIME_MIN when none is.
 */
int64_t ad_oldest_open(const struct ad_status *s, size_t source);

/* How far realtime and the bill are apart: of the last day, and of the open period. */
struct ad_drift_stretch {
        uint64_t from_quarter, to_quarter;
        struct ad_billing_drift *drifts; /* by currency, in the arena of the report */
        size_t count;
};
struct ad_drift_report {
        bool ready; /* otherwise why says what is missing */
        char why[AD_BOOKS_WHY_MAX];
        char run[AD_RUN_ID_MAX + 1];
        char period[AD_PERIOD_MAX +
                    1]; /* "": no period of the tenant as a whole is closed: open is the
                                           month */
        int64_t through_ms, age_ms;
        uint64_t unexplained, pending, damaged;
        bool overdue;
        struct df_bytes error; /* of the last run, by the caller; empty: it did not fail */
        struct ad_drift_stretch day, open;
        struct df_arena arena;
};
/* books may be NULL. zone: in which a month is one. now_ms: for the age of the bill. */
void ad_drift_look(struct ad_books_follow *books, struct df_bytes tenant,
                   const struct ad_zone *zone, int64_t now_ms, struct ad_drift_report *ret);
void ad_drift_release(struct ad_drift_report *r);
void ad_drift_json(struct ad_json *j,
                   const struct ad_drift_report *r); /* two keys; r may be NULL */

struct ad_quality {
        const struct ad_status *status;
        const struct ad_tail *tail;
        const struct ad_drift_report *drift; /* NULL: no bill is followed */
        struct df_bytes tenant_id;           /* imports of others are left out, unless any_tenant */
        bool any_tenant;
        int64_t now_ms;
        uint64_t answers, failures; /* of this server since since_ms; failures: 5xx */
        int64_t since_ms;
};
#define AD_AVAILABILITY_OBJECTIVE 0.999
/* The answer. Appends. */
int ad_quality_json(const struct ad_quality *q, struct df_buf *b, struct df_error *err);

#endif
