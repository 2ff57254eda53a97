#include "jobs/api/books_watch.h"

#include <stdio.h>

#include "df/run.h"
#include "jobs/api/books_private.h"

void adi_books_watch_init(struct adi_books_watch *w, int64_t every_ms)
{
        memset(w, 0, sizeof(*w));
        w->every_ms = every_ms;
        pthread_mutex_init(&w->lock, NULL);
}

void adi_books_watch_release(struct adi_books_watch *w)
{
        pthread_mutex_destroy(&w->lock);
}

/* A label's value: an id from outside is no currency, so what is unusual is replaced. */
static void copy_label(char *ret, struct df_bytes v)
{
        size_t n = v.len < AD_ID_MAX ? v.len : AD_ID_MAX;

        for (size_t i = 0; i < n; i++)
                ret[i] = v.data[i] > 0x20 && v.data[i] < 0x7f && v.data[i] != '"' &&
                                         v.data[i] != '\\'
                                 ? (char)v.data[i]
                                 : '?';
        ret[n] = '\0';
}

static void show(struct adi_books_watch *w, const struct ad_billing *b,
                 const struct ad_billing_run *run, const struct ad_billing_drift *drifts,
                 size_t count)
{
        pthread_mutex_lock(&w->lock);
        w->shown.postings = b->counters.postings;
        w->shown.adjustments = b->counters.adjustments;
        w->shown.closes = b->counters.closes;
        w->shown.gaps = b->counters.gaps;
        w->shown.runs = b->counters.runs;
        if (run) {
                w->shown.any = true;
                w->shown.through_ms = run->applied.begin.at_ms;
                w->shown.unexplained = run->applied.end.unexplained;
                w->shown.pending = run->applied.end.pending;
                w->shown.drift_count =
                        count < ADI_WATCH_CURRENCIES_MAX ? count : ADI_WATCH_CURRENCIES_MAX;
                w->shown.hidden = count - w->shown.drift_count;
        }
        for (size_t i = 0; run && i < w->shown.drift_count; i++) {
                df_nanos billed, realtime;

                ad_drift_spend(&drifts[i], &billed, &realtime);
                copy_label(w->shown.drift[i].currency, drifts[i].currency);
                w->shown.drift[i].any = ad_drift(billed, realtime, &w->shown.drift[i].drift);
        }
        pthread_mutex_unlock(&w->lock);
}

int adi_books_watch_look(struct adi_books_watch *w, struct ad_billing *b, int64_t now_ms,
                         struct df_error *err)
{
        struct ad_billing_read *r = NULL;
        struct ad_billing_drift *drifts = NULL;
        struct ad_billing_run run;
        struct df_arena arena;
        size_t count = 0;
        bool found = false;
        int rc;

        if (b->counters.runs == w->runs) {
                show(w, b, NULL, NULL, 0);
                return 0;
        }
        df_arena_init(&arena, 0);
        rc = ad_billing_begin(b, &r, err);
        if (rc == 0)
                rc = ad_billing_last(r, &arena, &run, &found, err);
        if (rc == 0 && found) {
                uint64_t to = (uint64_t)run.applied.begin.at_ms / AD_QUARTER_MS + 1;

                rc = ad_billing_drifts(r, (struct df_bytes){0},
                                       to > ADI_DAY_QUARTERS ? to - ADI_DAY_QUARTERS : 0, to,
                                       &arena, &drifts, &count, err);
        }
        if (rc == 0) {
                show(w, b, found ? &run : NULL, drifts, count);
                w->runs = b->counters.runs;
        }
        ad_billing_end(r);
        df_arena_release(&arena);
        return rc;
}

void adi_books_watch_render(struct adi_books_watch *w, int64_t now_ms, struct df_buf *b)
{
        char label[AD_ID_MAX + 16];

        pthread_mutex_lock(&w->lock);
        df_metric(b, "adtally_billing_rows", "", (double)w->shown.postings);
        df_metric(b, "adtally_billing_adjustments", "", (double)w->shown.adjustments);
        df_metric(b, "adtally_billing_closes", "", (double)w->shown.closes);
        df_metric(b, "adtally_billing_sequence_gaps", "", (double)w->shown.gaps);
        df_metric(b, "adtally_billing_runs", "", (double)w->shown.runs);
        df_metric(b, "adtally_billing_every_seconds", "", (double)w->every_ms / 1000);
        if (w->shown.any) {
                int64_t age_ms = now_ms - w->shown.through_ms;

                df_metric(b, "adtally_billing_age_seconds", "", (double)age_ms / 1000);
                df_metric(b, "adtally_billing_overdue", "",
                          ad_bill_is_overdue(age_ms, w->every_ms));
                df_metric(b, "adtally_billing_drift_hidden", "", (double)w->shown.hidden);
                df_metric(b, "adtally_billing_unexplained_cells", "", (double)w->shown.unexplained);
                df_metric(b, "adtally_billing_pending_cells", "", (double)w->shown.pending);
        }
        for (size_t i = 0; w->shown.any && i < w->shown.drift_count; i++) {
                (void)snprintf(label, sizeof(label), "currency=\"%s\"", w->shown.drift[i].currency);
                if (w->shown.drift[i].any)
                        df_metric(b, "adtally_billing_drift", label, w->shown.drift[i].drift);
        }
        pthread_mutex_unlock(&w->lock);
}
