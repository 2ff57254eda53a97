/* status.c - what the job is doing: DATA/run/reconcile.prom and reconcile.json (job.h). */
#include <math.h>
#include <stdio.h>

#include "df/trace.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"
#include "jobs/reconcile/close.h"

static const char *const phases[] = {
        [AD_JOB_STANDBY] = "standby",     [AD_JOB_HELPING] = "helping",
        [AD_JOB_IDLE] = "idle",           [AD_JOB_WORKING] = "working",
        [AD_JOB_COMPARING] = "comparing", [AD_JOB_POSTING] = "posting",
};

static bool is_working(enum ad_job_phase phase)
{
        return phase == AD_JOB_HELPING || phase > AD_JOB_IDLE;
}

/* Through raw events. */
static bool is_counting(enum ad_job_phase phase)
{
        return phase == AD_JOB_HELPING || phase == AD_JOB_WORKING;
}

void ad_job_status_begin(struct ad_job_status *s, const char *leader, const char *run,
                         const char *chain, const char *asked_by)
{
        pthread_mutex_lock(&s->lock);
        (void)snprintf(s->leader, sizeof(s->leader), "%s", leader);
        (void)snprintf(s->run, sizeof(s->run), "%s", run);
        (void)snprintf(s->chain, sizeof(s->chain), "%s", chain);
        (void)snprintf(s->asked_by, sizeof(s->asked_by), "%s", asked_by);
        s->work = (struct ad_replay_progress){0};
        s->work_ms = 0;
        pthread_mutex_unlock(&s->lock);
}

void ad_job_status_phase(struct ad_job_status *s, enum ad_job_phase phase)
{
        pthread_mutex_lock(&s->lock);
        if (is_working(s->phase) != is_working(phase))
                s->since_ms = df_wall_ms();
        s->phase = phase;
        if (!is_working(phase)) {
                s->leader[0] = s->run[0] = s->chain[0] = s->asked_by[0] = '\0';
                s->work = (struct ad_replay_progress){0};
        }
        if (!is_counting(phase)) {
                s->work.partitions = 0;
                s->held = false;
        }
        pthread_mutex_unlock(&s->lock);
}

void ad_job_status_work(struct ad_job_status *s, const struct ad_replay_progress *p, bool held)
{
        pthread_mutex_lock(&s->lock);
        if (s->work_ms == 0) {
                s->work_ms = df_monotonic_ms();
                s->begun = p->done;
        }
        s->work = *p;
        s->held = held;
        pthread_mutex_unlock(&s->lock);
}

void ad_job_status_helpless(struct ad_job_status *s, const struct df_error *err)
{
        pthread_mutex_lock(&s->lock);
        if (err)
                (void)snprintf(s->helpless, sizeof(s->helpless), "%s: %.400s",
                               df_err_code(err->code), err->text);
        else
                s->helpless[0] = '\0';
        pthread_mutex_unlock(&s->lock);
}

/* Seconds; -1 = not known. */
static double left(const struct ad_job_status *s)
{
        double took = (double)(df_monotonic_ms() - s->work_ms) / 1000;
        const struct ad_replay_progress *w = &s->work;

        if (!is_counting(s->phase) || w->done <= s->begun || w->done > w->all)
                return -1;
        return took * (double)(w->all - w->done) / (double)(w->done - s->begun);
}

static double progress(const struct ad_job_status *s)
{
        return !is_working(s->phase)    ? 0
               : !is_counting(s->phase) ? 1
               : s->work.all            ? (double)s->work.done / (double)s->work.all
                                        : 0;
}

static int make_json(const struct ad_job_status *s, struct df_buf *b, struct df_error *err)
{
        char since[AD_TIME_TEXT_MAX];
        struct ad_json *j = ad_json_begin(b);
        double eta = left(s);

        (void)ad_time_text(s->since_ms, since);
        ad_json_open(j);
        ad_json_put_text(j, "state", phases[s->phase]);
        ad_json_put_text(j, "run", s->run);
        ad_json_put_text(j, "chain", s->chain);
        ad_json_put_text(j, "leader", s->leader);
        ad_json_put_int(j, "done", s->work.done);
        ad_json_put_int(j, "total", s->work.all);
        ad_json_put_int(j, "partitions", s->work.partitions);
        ad_json_put_int(j, "events", s->work.events);
        ad_json_key(j, "eta_s");
        ad_json_double(j, eta < 0 ? NAN : eta);
        ad_json_put_text(j, "asked_by", s->asked_by);
        ad_json_put_text(j, "since", since);
        ad_json_put_bool(j, "gives_way", s->held);
        ad_json_put_int(j, "waiting", s->waiting);
        ad_json_put_text(j, "error", s->helpless[0] ? s->helpless : s->failed ? s->why : "");
        if (s->closer)
                ad_closer_put(s->closer, j);
        ad_json_close(j);
        return ad_json_end(j, b, err);
}

static void metrics(const struct ad_job_status *s, struct df_buf *b)
{
        char label[160];

        df_metric(b, "adtally_reconcile_runs_total", "", (double)s->runs);
        df_metric(b, "adtally_reconcile_failures_total", "", (double)s->failures);
        df_metric(b, "adtally_reconcile_targets_total", "", (double)s->targets);
        df_metric(b, "adtally_reconcile_failed", "", s->failed);
        df_metric(b, "adtally_reconcile_leads", "", s->phase >= AD_JOB_IDLE);
        df_metric(b, "adtally_reconcile_helps", "", s->phase == AD_JOB_HELPING);
        df_metric(b, "adtally_reconcile_helpless", "", s->helpless[0] != '\0');
        df_metric(b, "adtally_reconcile_partitions", "", s->work.partitions);
        df_metric(b, "adtally_reconcile_working", "", is_working(s->phase));
        df_metric(b, "adtally_reconcile_gives_way", "", s->held);
        df_metric(b, "adtally_reconcile_waiting", "", (double)s->waiting);
        df_metric(b, "adtally_reconcile_progress_ratio", "", progress(s));
        if (left(s) >= 0)
                df_metric(b, "adtally_reconcile_eta_seconds", "", left(s));
        df_metric(b, "adtally_reconcile_unexplained_cells", "", (double)s->unexplained);
        df_metric(b, "adtally_reconcile_pending_cells", "", (double)s->pending);
        df_metric(b, "adtally_reconcile_success_time_seconds", "",
                  (double)(s->success_ms / 1000)); /* whole: a sample has nine digits */
        if (!s->digest[0])
                return;
        df_metric(b, "adtally_reconcile_duration_seconds", "", (double)s->last_ms / 1000);
        (void)snprintf(label, sizeof(label), "sha256=\"%s\"", s->digest);
        df_metric(b, "adtally_reconcile_rows_info", label, 1);
}

void ad_job_status_render(void *arg, struct df_buf *b)
{
        struct ad_job_status *s = arg;
        struct df_buf json = {0};
        struct df_error err = {0};
        struct df_workers *books;
        int rc;

        pthread_mutex_lock(&s->lock);
        books = s->books;
        metrics(s, b);
        rc = make_json(s, &json, &err);
        pthread_mutex_unlock(&s->lock);
        if (books)
                df_workers_render(books, b);
        if (rc == 0)
                rc = df_write_file(s->path, df_buf_bytes(&json), false, &err);
        if (rc < 0)
                df_trace(DF_WARN, "status", "%s", err.text);
        df_buf_release(&json);
}
