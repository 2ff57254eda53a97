/* query.h - GET /metrics: parameters to a question, a question to rows, rows to JSON or CSV.
 *
 * Order: ad_query_parse, ad_query_run, then ad_result_json or ad_result_csv for each page.
 * A refusal is a struct ad_fault: HTTP status, code, the parameter it is about, and a message that
 * says what would be accepted. Thread: any; a query or result belongs to one thread at a time.
 */
#ifndef AD_QUERY_H
#define AD_QUERY_H

#include <stdatomic.h>

#include "jobs/api/books_follow.h"
#include "jobs/api/view.h"
#include "jobs/common/json.h"

#define AD_QUERY_VALUES_MAX 100    /* values of one filter */
#define AD_QUERY_WINDOWS_MAX 50000 /* of one answer */
#define AD_QUERY_ROWS_MAX 200000   /* of one answer, all pages */
#define AD_QUERY_CELLS_MAX 5000000 /* read for one answer */
#define AD_LIMIT_DEFAULT 1000
#define AD_LIMIT_MAX 10000

struct ad_param { /* of a URL, decoded; borrowed */
        struct df_bytes name, value;
};

struct ad_fault {
        int status;
        char code[40];
        char field[40]; /* "" = none */
        char message[480];
        bool retryable;
        bool damaged; /* the view holds damaged data: it should be opened anew */
};
/* Not an answer: more than the budget of the context would be read. Ask again without one. */
#define AD_STATUS_OVER_BUDGET 0
/* Always -1. field may be NULL. */
int ad_fault_set(struct ad_fault *f, int status, const char *code, const char *field,
                 const char *fmt, ...) __attribute__((format(printf, 5, 6)));
/* An error of the machine: 503 for what may pass, 500 otherwise. Always -1. */
int ad_fault_error(struct ad_fault *f, const struct df_error *err);

/* The same of the log or the archive: what is damaged there is no matter of the view, and the
 * message says what to do. */
int ad_fault_log(struct ad_fault *f, const struct df_error *err);

enum ad_order {
        AD_ORDER_WINDOW,
        AD_ORDER_IMPRESSIONS,
        AD_ORDER_CLICKS,
        AD_ORDER_CONVERSIONS,
        AD_ORDER_SPEND,
        AD_ORDER_PAYOUT,
        AD_ORDER_VALUE,
        AD_ORDER_CTR,
        AD_ORDER_CVR,
        AD_ORDER_DRIFT, /* of view=both */
};

enum ad_metrics_view { AD_METRICS_REALTIME, AD_METRICS_BILLING, AD_METRICS_BOTH };

struct ad_filter {
        struct df_bytes values[AD_QUERY_VALUES_MAX]; /* borrowed from the parameters */
        size_t count;                                /* 0 = all */
};

struct ad_query {
        struct df_bytes tenant_id; /* borrowed */
        enum ad_metrics_view view;
        bool has_as_of; /* of the bill: as it was after the runs pinned up to as_of_ms (R7) */
        int64_t as_of_ms;
        enum ad_window window;
        const struct ad_zone *zone; /* borrowed */
        int64_t from_ms, to_ms;
        struct ad_filter filters[AD_DIM_COUNT];
        uint8_t group_by[AD_DIM_COUNT]; /* enum ad_dim */
        uint32_t group_count, grouping;
        enum ad_order order;
        bool descending, fill_zero, csv;
        uint32_t limit;
        struct df_bytes cursor; /* empty = none */
        uint64_t identity;      /* hash of all parameters that shape the rows; 0 = none given */
};

struct ad_query_context {
        struct ad_view *view;
        struct ad_books_follow *books; /* NULL: no bill can be asked */
        struct ad_zones *zones;
        int64_t now_ms;
        struct df_bytes tenant_id; /* the key's */
        bool any_tenant;           /* may ask for another with `tenant` */
        uint64_t budget; /* cells read, rows and windows, beyond which it is given up; 0 = none */
        /* Monotonic: a query that still reads then ends with 503. NULL = never. Borrowed. */
        const atomic_int_least64_t *cancel_ms;
};

/* 0, or -1 with *fault. When ret->cursor is set, only csv, limit, tenant_id and identity are. */
int ad_query_parse(const struct ad_query_context *c, const struct ad_param *params, size_t count,
                   struct ad_query *ret, struct ad_fault *fault);

/* query_time.c: the range, aligned to windows. Empty texts take the default: the last 60
 * minutes. */
int ad_query_range(struct ad_query *q, struct df_bytes from, struct df_bytes to, int64_t now_ms,
                   struct ad_fault *fault);
/* One time, as from and to are written. */
int ad_query_instant(const struct ad_query *q, struct df_bytes text, const char *field,
                     int64_t *ret_ms, struct ad_fault *fault);

/* ---- what a row of the bill has more ---- */
struct ad_result_cause { /* billed - realtime of one cause; counts are signed */
        uint32_t cause;
        struct ad_cell difference;
        struct ad_result_cause *next; /* ascending */
};
struct ad_result_bill {
        struct ad_cell billed;   /* first: the cell of the row */
        struct ad_cell realtime; /* what realtime counted of the same events, as the run saw it */
        struct ad_result_cause *causes; /* of view=both */
        uint64_t closed_to; /* quarter: the least of the accounts that are in the row; 0: none */
        bool adjusted;      /* a cell is no longer what it was when its period was closed */
};

struct ad_result_row {
        uint32_t window;             /* index */
        const struct df_bytes *dims; /* group_count of them */
        struct df_bytes currency;
        struct ad_cell cell;
        const struct ad_result_bill *bill; /* NULL: a row of realtime */
};
struct ad_total {
        struct df_bytes currency;
        struct ad_cell cell;
        struct ad_result_bill *bill; /* likewise */
};

/* Complete in itself: borrows nothing but the zone. */
struct ad_result {
        struct df_arena arena;
        enum ad_metrics_view view;
        /* Of the bill: the run whose numbers these are, and its alarms. */
        char run[AD_RUN_ID_MAX + 1];
        int64_t billed_through_ms;
        uint64_t unexplained, pending;
        bool has_as_of, as_of_exact; /* as_of_ms is what was asked; no later run changes it */
        enum ad_window window;
        const struct ad_zone *zone;
        const char *tz_version;                         /* borrowed from zones */
        int64_t from_ms, to_ms, watermark_ms, as_of_ms; /* as_of: of the newest commit; 0 = none */
        uint8_t group_by[AD_DIM_COUNT];
        uint32_t group_count;
        struct ad_filter filters[AD_DIM_COUNT];
        double completeness;
        const uint32_t *missing;
        size_t missing_count;
        const int64_t *bounds; /* window_count + 1 */
        size_t window_count;
        const bool *final, *partial; /* of each window */
        struct ad_result_row *rows;  /* in the order asked for */
        size_t row_count;
        struct ad_total *totals;
        size_t total_count;
        const char *hint_code, *hint; /* NULL when there are rows */
        struct df_bytes tenant_id;
        uint64_t identity;
};

/* *ret is given to the caller. */
int ad_query_run(const struct ad_query_context *c, const struct ad_query *q, struct ad_result **ret,
                 struct ad_fault *fault);
void ad_result_destroy(struct ad_result *r);

/* Rows [first, first + limit); next: the next page's cursor, or NULL. Appends. */
int ad_result_json(const struct ad_result *r, size_t first, size_t limit, const char *next,
                   struct df_buf *b, struct df_error *err);
int ad_result_csv(const struct ad_result *r, size_t first, size_t limit, struct df_buf *b,
                  struct df_error *err);

#endif
