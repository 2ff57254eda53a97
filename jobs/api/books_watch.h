/* books_watch.h - what is shown of the bill all the time: the last run, and the drift of the last
 * day. Looked at by the follower after each commit, rendered by any thread. */
#ifndef ADI_BOOKS_WATCH_H
#define ADI_BOOKS_WATCH_H

#include <pthread.h>

#include "jobs/api/books.h"

#define ADI_DAY_QUARTERS 96
/* Shown, in the order of their names; adtally_billing_drift_hidden says how many are not. */
#define ADI_WATCH_CURRENCIES_MAX 64

struct adi_books_watch {
        pthread_mutex_t lock;
        int64_t every_ms; /* the schedule; 0: none */
        uint64_t runs;    /* that were looked at */
        struct {
                bool any;
                int64_t through_ms;
                uint64_t postings, adjustments, closes, gaps, runs;
                uint64_t unexplained, pending;
                struct {
                        char currency[AD_ID_MAX + 1];
                        bool any;
                        double drift;
                } drift[ADI_WATCH_CURRENCIES_MAX];
                size_t drift_count, hidden;
        } shown;
};

void adi_books_watch_init(struct adi_books_watch *w, int64_t every_ms);
void adi_books_watch_release(struct adi_books_watch *w);
/* Cheap unless a run was applied since. */
int adi_books_watch_look(struct adi_books_watch *w, struct ad_billing *b, int64_t now_ms,
                         struct df_error *err);
void adi_books_watch_render(struct adi_books_watch *w, int64_t now_ms, struct df_buf *b);

#endif
