/* ops.h - the main job's operators, their parameters and their outputs.
 *
 * Chain of the realtime and reconcile jobs, in this order (ad_chain_main):
 *   decode      records -> events; poison records, heartbeats, the seal's note
 *   guard       E3, T2, T3: judges time and partition, moves the watermark, stamps watermark_ms
 *   dedupe      D1, D2, D3: duplicates and conflicts; records every event that guard let pass
 *   price       cost from the client or from the versioned table
 *   late        W5: late events to their topic
 *   tumble      W1 to W4, W7: cells, groupings, rows, final_through
 *   correct     R5: only in reconcile: which corrections the event is billed with
 *   bill        R3: only in reconcile, with dedupe_billing (D4) after dedupe: what the bill counts,
 *               and why that differs from realtime
 *   quarantine  E2: what was quarantined or in conflict to its topic, in log order
 * The task `books` has a chain of one:
 *   books       R4: records of `runs` -> postings, applied runs, closed periods (proto/books.proto)
 * Each marks the events it ends with an outcome and counts it; the ones after it skip these, and
 * the last one sends on those that must not be counted.
 */
#ifndef AD_OPS_H
#define AD_OPS_H

#include "df/task.h"
#include "proto/wire.h"

enum { AD_KIND_EVENTS = DF_KIND_USER /* items are struct ad_event */ };

/* Order of the outputs of the main job: `rollups` last (K4). */
enum ad_output { AD_OUT_LATE, AD_OUT_QUARANTINE, AD_OUT_ROLLUPS, AD_OUT_COUNT };
/* A reconcile run has one more, which is last. */
#define AD_OUT_BILL AD_OUT_COUNT
#define AD_OUT_BILL_COUNT (AD_OUT_BILL + 1)
/* The task `books` has one alone. */
enum { AD_OUT_BOOKS, AD_OUT_BOOKS_COUNT };

enum ad_pricing { AD_PRICE_CLIENT, AD_PRICE_TABLE, AD_PRICE_CLIENT_ELSE_TABLE };
enum ad_price_model { AD_CPM, AD_CPC, AD_CPA };

/* One line of a price table. Empty dims match all; the most specific line wins (most non-empty
 * fields), then the latest valid_from_ms <= event time. */
struct ad_price {
        struct df_bytes tenant_id, advertiser_id, campaign_id, ad_id;
        enum ad_price_model model;
        int64_t price_nanos; /* cpm: for 1,000 impressions */
        struct df_bytes currency;
        int64_t valid_from_ms;
};
struct ad_price_table {
        uint32_t version;
        const struct ad_price *prices;
        size_t count;
};

struct ad_params {
        int64_t grace_ms;
        uint32_t horizon_hours; /* D1: H; 0 = unbounded (imports) */
        size_t dedupe_open_ids; /* ids of the open hours in memory before a spill; 0 = 1 Mi */
        uint32_t cell_cap;      /* W7 */
        uint32_t billing_horizon_hours; /* D4; reconcile alone */
        uint32_t billing_price_version; /* of the table by which it bills; reconcile alone */
        const struct ad_corrections *corrections; /* correct.h; reconcile alone; NULL: none */
        const struct ad_groupings *groupings;
        enum ad_pricing pricing; /* the same for all tenants of a cluster */
        /* The table of this version, or NULL: then the task is refused by name (W6). May be NULL
         * itself when pricing is AD_PRICE_CLIENT. Pure: equal versions are equal tables. */
        const struct ad_price_table *(*price_table)(void *arg, uint32_t version);
        void *price_arg;
};

extern const struct df_operator_ops ad_op_decode, ad_op_guard, ad_op_dedupe, ad_op_price,
        ad_op_late, ad_op_tumble, ad_op_quarantine, ad_op_dedupe_billing, ad_op_correct, ad_op_bill,
        ad_op_books;

/* table.c: every operator there is (for the law tests), and the chain of the main job. */
extern const struct df_operator_ops *const ad_operators[];
extern const size_t ad_operator_count;
extern const struct df_operator_ops *const ad_chain_main[];
extern const size_t ad_chain_main_length;
extern const struct df_operator_ops *const ad_chain_bill[]; /* of a reconcile run */
extern const size_t ad_chain_bill_length;
extern const struct df_operator_ops *const ad_chain_books[]; /* of the task `books`; no params */
extern const size_t ad_chain_books_length;

/* price.c: cost and currency of the event by this table. False: no line matches it at all. Applied
 * to an event that bears a table's price already it gives the same as to the client's. */
bool ad_price_apply(const struct ad_price_table *t, struct ad_event *ev);

/* table.c: df_task_config.control for records of import topics (R6). `events` itself has none: a
 * client cannot end its generation. */
enum df_control ad_control(struct df_bytes value, uint64_t *ret_generation);

/* common.c, used by the operators themselves. End ev with this outcome and count it. */
void ad_end(struct df_out *out, struct ad_event *ev, enum ad_reason outcome);

#endif
