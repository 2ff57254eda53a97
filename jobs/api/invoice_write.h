/* invoice_write.h - an invoice as JSON and CSV (docs/API.md). Pure. */
#ifndef ADI_INVOICE_WRITE_H
#define ADI_INVOICE_WRITE_H

#include "jobs/api/invoice.h"
#include "jobs/api/zone.h"
#include "jobs/common/json.h"

struct adi_span { /* of a period: [from, to) */
        struct df_bytes period;
        int64_t from_ms, to_ms;
};
struct adi_invoice_head {
        struct df_bytes tenant_id, advertiser_id; /* empty: the tenant as a whole */
        struct adi_span span;
        const struct ad_zone *zone; /* in which times are shown */
        struct df_bytes zone_name, zone_version;
        bool closed, ledger;
        struct df_bytes run; /* closed: of the close; open: the last one */
        uint64_t seq;
        int64_t closed_at_ms, billed_through_ms; /* 0 = not */
        const struct adi_span *originals;        /* of adjustments, by period */
        size_t original_count;
};

/* Appends the fields of the answer; the caller opens and closes the object. */
void adi_invoice_json(struct ad_json *j, const struct adi_invoice_head *h,
                      const struct ad_invoice *v);
/* Charges with the column names of FOCUS (FinOps Open Cost and Usage Specification), our own begin
 * with x_; payouts likewise. */
void adi_invoice_csv(struct df_buf *b, const struct adi_invoice_head *h, const struct ad_invoice *v,
                     enum ad_invoice_side side);

#endif
