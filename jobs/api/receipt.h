/* receipt.h - GET /events/{event_id}: what became of each copy of an event.
 *
 * An event's copies lie in one partition of `events`, hash(tenant, event_id) mod P. A receipt reads
 * the copies that the log took in [from, to), and those before them that the dedupe horizon makes
 * matter, from archive and log; then the entries about them in `late` and `quarantine`, by the
 * seals that cover them. A copy that neither topic names was counted, or is a duplicate of an
 * earlier one, by D1's rule; where its seal counts no duplicate it was counted, whatever was not
 * read. What cannot be known from what was read is said to be unknown, and why.
 * Events of imports have topics of their own and are not searched.
 *
 * Order: ad_receipt_parse, ad_receipt_find, ad_receipt_json, ad_receipt_release. Blocks: it reads
 * the log. Thread: any; a receipt belongs to one. Ownership: a receipt has copies of all it tells.
 * Limits: below. Beyond the first: `range_too_large`; beyond the second: `more_from`.
 */
#ifndef AD_RECEIPT_H
#define AD_RECEIPT_H

#include "jobs/api/query.h"
#include "operators/ops.h"

#define AD_RECEIPT_RECORDS_MAX 500000 /* log records read for one */
#define AD_RECEIPT_COPIES_MAX 1000    /* copies told, and as many before them looked at */

struct ad_receipt_context {     /* borrowed */
        struct df_log *log;     /* `late`, `quarantine` */
        struct df_log *source;  /* `events`, with what is archived of it */
        uint32_t horizon_hours; /* D1 */
        enum ad_pricing pricing;
        const struct ad_price_table *(*price_table)(void *arg, uint32_t version);
        void *price_arg;
        const struct ad_status *status; /* which partitions are missing (K11); NULL: none known */
        bool (*stop)(void *arg);        /* true: give up, 503 */
        void *stop_arg;
};

struct ad_receipt_query {
        struct df_bytes tenant_id, event_id; /* borrowed */
        int64_t from_ms, to_ms;              /* when the log took it; to_ms 0: no end */
};
/* from, to: parameters, data NULL: not given. now_ms: for the default range. tenant_id is left
 * empty. 0, or -1 with *f. */
int ad_receipt_parse(struct df_bytes from, struct df_bytes to, struct df_bytes event_id,
                     int64_t now_ms, struct ad_receipt_query *ret, struct ad_fault *f);

enum ad_copy_state {
        AD_COPY_SEALED,      /* its outcome is final and known */
        AD_COPY_PENDING,     /* no seal covers it yet */
        AD_COPY_EXPIRED,     /* its time has left `late` or `quarantine`, or is damaged there */
        AD_COPY_EARLIER,     /* sealed; whether an earlier copy matters is not known */
        AD_COPY_INCONSISTENT /* sealed; what was read contradicts D1 */
};
struct ad_copy {
        struct ad_event ev;   /* in the receipt's arena */
        uint32_t sealed;      /* bits: 1 << enum ad_output whose seal covers it */
        bool lost;            /* a seal that should cover it is not there */
        bool alone;           /* its seals count no duplicate: so it is none, whatever was before */
        uint32_t entry;       /* enum ad_reason of its entry in `late` or `quarantine` */
        int64_t watermark_ms; /* of the entry in `late` */
        /* Judged. */
        enum ad_copy_state state;
        uint32_t outcome;              /* when sealed */
        const struct ad_copy *against; /* duplicate, conflict: the one that decides (D1) */
};
/* Fills in what is judged, from the rest. known_ms: every copy that was received then or later, and
 * stands before the last of these, is among them. Pure. */
void ad_receipt_judge(struct ad_copy *copies, size_t count, uint32_t horizon_hours,
                      int64_t known_ms);

struct ad_receipt {
        struct ad_receipt_query query;
        uint32_t partition;
        uint64_t generation;
        uint64_t from_offset, to_offset; /* the range asked for */
        uint64_t read_offset;            /* where reading began, for what is before */
        uint64_t records;
        int64_t known_ms; /* as in judge */
        struct ad_copy *copies;
        size_t before, count; /* copies[before..count) are in the range */
        int64_t more_from_ms; /* 0: all are told; else the first that is not was taken then */
        struct df_arena arena;
};
/* 404 `not_found` when there is no copy in the range. Release *ret in any case. */
int ad_receipt_find(const struct ad_receipt_context *c, const struct ad_receipt_query *q,
                    struct ad_receipt *ret, struct ad_fault *f);
int ad_receipt_json(const struct ad_receipt_context *c, const struct ad_receipt *r,
                    struct df_buf *b, struct df_error *err);
void ad_receipt_release(struct ad_receipt *r);

/* Between receipt.c and receipt_read.c: marks what `late` and `quarantine` say of the copies. */
int adi_receipt_outcomes(const struct ad_receipt_context *c, struct ad_receipt *r,
                         struct df_error *err);

#endif
