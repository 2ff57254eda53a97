/* applied.c - what the books say of our runs (job.h): a run that they refused is not repaired by
 * the next one of its chain; a whole one is wanted then. */
#include <stdio.h>
#include <stdlib.h>

#include "df/arena.h"
#include "df/trace.h"
#include "jobs/reconcile/job.h"

#define COLLECT_BYTES (256u << 20) /* payload of one collection: at most DF_OUTBOX_MAX */
#define READ_RECORDS 256

struct ad_job_answers {
        struct df_log_reader *reader;
        struct df_collector *collector;
        struct df_arena arena;
        bool refused;
};

int ad_job_answers_open(struct df_log *log, struct ad_job_answers **ret, struct df_error *err)
{
        struct ad_job_answers *a = calloc(1, sizeof(*a));
        int rc = a ? 0 : df_fail(err, DF_ENOMEM, "answers of the books");

        *ret = NULL;
        if (rc == 0) {
                df_arena_init(&a->arena, 0);
                rc = df_log_reader_open(log, AD_TOPIC_BILLING, 0, DF_OFFSET_END, NULL, &a->reader,
                                        err);
        }
        if (rc == 0)
                rc = df_collector_create(COLLECT_BYTES, &a->collector, err);
        if (rc < 0)
                ad_job_answers_close(a);
        else
                *ret = a;
        return rc;
}

void ad_job_answers_close(struct ad_job_answers *a)
{
        if (!a)
                return;
        df_collector_destroy(a->collector);
        df_log_reader_close(a->reader);
        df_arena_release(&a->arena);
        free(a);
}

static int take_entry(void *arg, const struct ad_books_entry *e, struct df_error *err)
{
        struct ad_job_answers *a = arg;

        (void)err;
        if (e->kind != AD_BOOKS_APPLIED || e->applied.why.len == 0)
                return 0;
        a->refused = true;
        df_trace(DF_ERROR, "books", "run=%.*s is refused: %.*s; the next run is whole",
                 (int)e->applied.begin.run.len, (const char *)e->applied.begin.run.data,
                 (int)e->applied.why.len, (const char *)e->applied.why.data);
        return 0;
}

static int take_record(struct ad_job_answers *a, const struct df_record *r, struct df_error *err)
{
        enum df_collect what = DF_COLLECT_MORE;
        struct df_collection c;
        int rc = df_collector_add(a->collector, r, &what, &c, err);

        for (size_t i = 0; rc == 0 && what == DF_COLLECT_COMPLETE && i < c.count; i++) {
                df_arena_reset(&a->arena);
                rc = ad_wire_books_decode(c.payloads[i], &a->arena, take_entry, a, err);
        }
        /* Begun before we looked, or damaged: the view names that. */
        return rc == DF_ECORRUPT || rc == DF_EPARSE || rc == DF_ELIMIT ? 0 : rc;
}

int ad_job_answers_follow(struct ad_job_answers *a, bool *ret_refused, struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        size_t n = 1;
        int rc = 0;

        while (rc == 0 && n > 0) {
                rc = df_log_poll(a->reader, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        rc = take_record(a, &records[i], err);
        }
        *ret_refused = a->refused;
        a->refused = false;
        return rc;
}
