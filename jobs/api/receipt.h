/* receipt.h - GET /events/{event_id}: what became of each copy of an event.
 *
 * An event's copies lie in one partition, hash(tenant, event_id) mod P, of `events` and of the
 * topics of imports, each of which is deduplicated by itself (R6). A receipt reads
 * the copies that the log took in [from, to), and those before them that the dedupe horizon makes
 * matter (of an import: all), from archive and log; then the entries about them in `late` and
 * `quarantine`, by the seals that cover them. A copy that neither topic names was counted, or is a
 * duplicate of an earlier one, by D1's rule; where its seal counts no duplicate it was counted,
 * whatever was not read. Of an import whose events were all counted, as the view adds up its seals,
 * nothing more needs to be read, however long ago it was. What cannot be known from what was read
 * is said to be unknown, and why.
 *
 * Order: ad_receipt_parse, ad_receipt_find, ad_receipt_json, ad_receipt_release. Blocks: it reads
 * the log. Thread: any; a receipt belongs to one. Ownership: a receipt has copies of all it tells,
 * but for the sources of the context's status.
 * Limits: below, of all topics together. Beyond the first: `range_too_large`; beyond the second:
 * `more_from` and `more_at`, with which the next page begins at the very next copy.
 */
#ifndef AD_RECEIPT_H
#define AD_RECEIPT_H

#include "jobs/api/query.h"
#include "operators/ops.h"

#define AD_RECEIPT_RECORDS_MAX 500000 /* log records read for one */
#define AD_RECEIPT_COPIES_MAX 1000    /* copies told, and as many before them looked at */

struct ad_receipt_context {     /* borrowed */
        struct df_log *log;     /* `late`, `quarantine` */
        struct df_log *source;  /* `events` and imports, with what is archived of them */
        uint32_t horizon_hours; /* D1 */
        enum ad_pricing pricing;
        const struct ad_price_table *(*price_table)(void *arg, uint32_t version);
        void *price_arg;
        /* Which partitions are missing (K11), and what the view knows of imports; NULL: nothing. */
        const struct ad_status *status;
        bool (*stop)(void *arg); /* true: give up, 503 */
        void *stop_arg;
};

/* Copies are told in the order of (when the log took it, topic, offset, index), `events` before
 * imports, those by name. */
struct ad_receipt_place {
        struct df_bytes topic; /* empty: none */
        uint64_t offset;
        uint32_t index;
};
struct ad_receipt_query {
        struct df_bytes tenant_id, event_id; /* borrowed, as the topic of `at` */
        int64_t from_ms, to_ms;              /* when the log took it; to_ms 0: no end */
        struct ad_receipt_place at; /* of the copies taken in from_ms, those before it were told */
};
struct ad_receipt_params { /* of the URL; data NULL: not given */
        struct df_bytes from, to, at;
};
/* now_ms: for the default range. tenant_id is left empty. 0, or -1 with *f. */
int ad_receipt_parse(const struct ad_receipt_params *p, struct df_bytes event_id, int64_t now_ms,
                     struct ad_receipt_query *ret, struct ad_fault *f);

enum ad_copy_state {
        AD_COPY_SEALED,      /* its outcome is final and known */
        AD_COPY_PENDING,     /* no seal covers it yet */
        AD_COPY_VOID,        /* its import was aborted */
        AD_COPY_EXPIRED,     /* its time has left `late` or `quarantine`, or is damaged there */
        AD_COPY_EARLIER,     /* sealed; whether an earlier copy matters is not known */
        AD_COPY_INCONSISTENT /* sealed; what was read contradicts D1 */
};
struct ad_copy {
        struct ad_event ev; /* in the receipt's arena */
        const struct ad_receipt_topic *in;
        const struct ad_source *import; /* the import's generation, when sealed; NULL: live */
        uint32_t sealed;                /* bits: 1 << enum ad_output whose seal covers it */
        bool lost;                      /* a seal that should cover it is not there */
        bool alone;           /* its seals count no duplicate: so it is none, whatever was before */
        uint32_t entry;       /* enum ad_reason of its entry in `late` or `quarantine` */
        int64_t watermark_ms; /* of the entry in `late` */
        /* Judged. */
        enum ad_copy_state state;
        uint32_t outcome;              /* when sealed */
        const struct ad_copy *against; /* duplicate, conflict: the one that decides (D1) */
};
/* Fills in what is judged, from the rest. horizon_hours 0: unbounded. known_ms: every copy that was
 * received then or later, and stands before the last of these, is among them. Pure. */
void ad_receipt_judge(struct ad_copy *copies, size_t count, uint32_t horizon_hours,
                      int64_t known_ms);

struct ad_receipt_more { /* in the place of a query's from and at it goes on just there */
        int64_t from_ms; /* 0: there is none */
        struct ad_receipt_place at;
};
struct ad_receipt_topic {
        struct df_topic_info info;
        bool is_import;
        uint64_t from_offset, to_offset; /* the range asked for */
        uint32_t from_index;             /* in the record at from_offset */
        uint64_t read_offset;            /* where reading began, for what is before */
        int64_t known_ms;                /* as in judge */
        bool cut;                        /* something before read_offset may matter */
        struct ad_copy *copies;          /* NULL: none was met */
        size_t before, count;            /* copies[before..count) are in the range */
        struct ad_receipt_more more;     /* the first that is not there */
        struct ad_receipt_topic *next;
};
struct ad_receipt {
        struct ad_receipt_query query;
        uint32_t partition;              /* the same in each topic */
        struct ad_receipt_topic *topics; /* `events`, then imports with records in the range */
        size_t import_count;
        uint64_t records;
        const struct ad_copy **told; /* of all topics, in the order in which the log took them */
        size_t told_count;
        struct ad_receipt_more more; /* as above, of all topics */
        struct df_arena arena;
};
/* 404 `not_found` when there is no copy in the range. Release *ret in any case. */
int ad_receipt_find(const struct ad_receipt_context *c, const struct ad_receipt_query *q,
                    struct ad_receipt *ret, struct ad_fault *f);
int ad_receipt_json(const struct ad_receipt_context *c, const struct ad_receipt *r,
                    struct df_buf *b, struct df_error *err);
void ad_receipt_release(struct ad_receipt *r);

/* ---- between its files ---- */
#define ADI_RECEIPT_HOUR_MS 3600000LL
static inline int64_t adi_receipt_hour(int64_t ms)
{
        return ms / ADI_RECEIPT_HOUR_MS - (ms % ADI_RECEIPT_HOUR_MS < 0);
}
/* receipt_read.c: marks what `late` and `quarantine` say of the copies. */
int adi_receipt_outcomes(const struct ad_receipt_context *c, uint32_t partition,
                         struct ad_receipt_topic *t, struct df_error *err);

#endif
