/* bill.h - rows of a reconcile run in memory, and their bytes (bill.proto). Errors, ownership and
 * threads as in wire.h.
 */
#ifndef AD_BILL_H
#define AD_BILL_H

#include "proto/cause.h"
#include "proto/wire.h"

#define AD_QUARTER_MS 900000

struct ad_bill_row {
        uint64_t quarter; /* since the epoch */
        struct df_bytes tenant_id, advertiser_id, campaign_id, publisher_id, currency;
        uint32_t cause;                  /* enum ad_cause */
        struct ad_cell billed, realtime; /* AD_CAUSE_NONE: equal */
};

void ad_wire_bill_row(struct df_buf *b, const struct ad_bill_row *row); /* as entry of BillBatch */
int ad_wire_bill_decode(struct df_bytes payload,
                        int (*fn)(void *arg, const struct ad_bill_row *row, struct df_error *err),
                        void *arg, struct df_error *err);

/* A hash of what the client stated of the event, but for its times and its user: a copy whose
 * event time was stamped anew is the same content (D4). Kept in the state of billing runs alone; if
 * it changes, so does LAYOUT in jobs/runs/bill.c. */
uint64_t ad_event_content(const struct ad_event *ev);

#endif
