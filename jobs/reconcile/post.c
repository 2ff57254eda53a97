/* post.c - a run's records in the topic `runs` (job.h, books.proto). */
#include "jobs/reconcile/job.h"

#define RECORD_BYTES (512u << 10) /* of targets, before the record is full */
_Static_assert(RECORD_BYTES + (64u << 10) < DF_LOG_RECORD_MAX, "one more target fits");

struct post {
        struct ad_job *job;
        struct df_bytes run;
        struct df_buf record;
        size_t begun; /* of the record's batch */
        bool open;
        uint64_t count;
};

int ad_job_append(struct ad_job *j, const char *step, struct df_bytes record, struct df_error *err)
{
        struct df_append item = {.value = record};
        int rc = df_failpoint("reconcile", step, err);

        if (rc == 0)
                rc = ad_lead_confirm(j->lead, err);
        if (rc == 0)
                rc = df_log_append(j->runs, &item, 1, err);
        if (rc == 0)
                j->state.runs = item.ret_offset + 1;
        return rc;
}

static int append(struct post *p, const char *step, struct df_error *err)
{
        int rc = df_buf_check(&p->record, err);

        if (rc == 0)
                rc = ad_job_append(p->job, step, df_buf_bytes(&p->record), err);
        df_buf_clear(&p->record);
        return rc;
}

static int flush(struct post *p, struct df_error *err)
{
        if (!p->open)
                return 0;
        ad_wire_targets_end(&p->record, p->begun);
        p->open = false;
        return append(p, "post-targets", err);
}

static int add_target(void *arg, const struct ad_target *t, struct df_error *err)
{
        struct post *p = arg;

        if (!p->open)
                p->begun = ad_wire_targets_begin(&p->record, p->run);
        p->open = true;
        ad_wire_target(&p->record, t);
        p->count++;
        if (p->record.len < RECORD_BYTES)
                return 0;
        if (df_process_stopping())
                return df_fail(err, DF_EAGAIN, "stopped: the run is posted again");
        return flush(p, err);
}

int ad_job_post(struct ad_job *j, const struct ad_run_begin *begin, struct ad_fold *const *folds,
                size_t fold_count, struct ad_run_end *end, struct df_error *err)
{
        struct post p = {.job = j, .run = begin->run};
        struct ad_run_record record = {.kind = AD_RUN_BEGIN, .begin = *begin};
        int rc;

        ad_wire_run_record(&p.record, &record);
        rc = append(&p, "post-begin", err);
        if (rc == 0)
                rc = ad_fold_targets(folds, fold_count, begin->whole, add_target, &p, err);
        if (rc == 0)
                rc = flush(&p, err);
        end->targets = p.count;
        record = (struct ad_run_record){.kind = AD_RUN_END, .end = *end};
        if (rc == 0) {
                ad_wire_run_record(&p.record, &record);
                rc = append(&p, "post-end", err);
        }
        if (rc == 0)
                rc = df_failpoint("reconcile", "post-marks", err);
        if (rc == 0)
                rc = ad_fold_posted(folds, fold_count, err);
        df_buf_release(&p.record);
        return rc;
}
