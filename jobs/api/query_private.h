/* query_private.h - between the files of /metrics. */
#ifndef ADI_QUERY_PRIVATE_H
#define ADI_QUERY_PRIVATE_H

#include "jobs/api/map.h"
#include "jobs/api/query.h"

/* query_plan.c: the windows of the answer, and the stretches of cells that they are composed of. */
struct adi_segment {
        uint32_t level;
        uint32_t from, to; /* windows of the level */
};
#define ADI_SEGMENTS_MAX 5
struct adi_plan {
        int64_t *bounds; /* in the arena */
        size_t window_count;
        struct adi_segment segments[ADI_SEGMENTS_MAX];
        size_t segment_count;
};
int adi_plan(const struct ad_query *q, const struct ad_zone *account, struct df_arena *arena,
             struct adi_plan *ret, struct ad_fault *fault);
/* Windows alone, which must begin on quarter hours: what the bill is composed of. */
int adi_plan_quarters(const struct ad_query *q, struct df_arena *arena, struct adi_plan *ret,
                      struct ad_fault *fault);
/* Start of a level's window. */
int64_t adi_window_start(uint32_t level, const struct ad_zone *account, uint32_t window);

/* query_scan.c: the cells of the plan, grouped. */
struct adi_scan {
        const struct ad_query_context *c;
        const struct ad_query *q;
        const struct adi_plan *plan;
        struct df_kv_snapshot *snapshot;
        struct ad_map groups; /* window u32be, dims, currency -> struct ad_cell */
        bool *partial;        /* of each window */
        uint64_t cells;       /* read so far */
};
int adi_scan(struct adi_scan *s, struct ad_fault *fault);

/* query_bill.c: the bill. */
int adi_bill_check(const struct ad_query *q, struct ad_fault *fault); /* what it does not keep */
/* Rows of r, with their windows, and what else the answer says. */
int adi_bill_run(const struct ad_query_context *c, const struct ad_query *q, struct ad_result *r,
                 struct ad_map *groups, struct ad_fault *fault);
int adi_bill_totals(struct ad_result *r, struct ad_fault *fault); /* beside those of the rows */
void adi_bill_hint(const struct ad_query *q, struct ad_result *r);
extern const struct ad_result_bill adi_bill_none;
/* Rows without drift are the smallest. */
int adi_bill_by_drift(const struct ad_result_bill *a, const struct ad_result_bill *b);
const char *adi_bill_state(const struct ad_result *r, const struct ad_result_row *row);

/* query_bill_write.c */
void adi_bill_row_json(struct df_buf *b, const struct ad_result *r, const struct ad_result_row *row,
                       struct df_bytes start);
void adi_bill_total_json(struct df_buf *b, const struct ad_result *r, const struct ad_total *total);
void adi_bill_csv_head(struct df_buf *b, const struct ad_result *r); /* behind the currency */
void adi_bill_csv_row(struct df_buf *b, const struct ad_result *r, const struct ad_result_row *row);

/* query_rows.c: appended. */
void adi_row_json(struct df_buf *b, const struct ad_result *r, const struct ad_result_row *row,
                  struct df_bytes start);
void adi_total_json(struct df_buf *b, struct df_bytes currency, const struct ad_cell *sum);
/* num / den with six significant digits, rounded half to even; "null" when den is 0. Returns the
 * length; no 0 at the end. */
#define ADI_RATIO_MAX 32
size_t adi_ratio_text(uint64_t num, uint64_t den, uint8_t ret[ADI_RATIO_MAX]);

int adi_over_budget(struct ad_fault *f); /* -1 */
int adi_no_memory(struct ad_fault *f);   /* -1 */

/* query_hint.c */
void adi_hint(const struct ad_query_context *c, const struct ad_query *q,
              const struct ad_status *status, struct ad_result *r);

#endif
