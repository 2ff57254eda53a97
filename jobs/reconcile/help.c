/* help.c - a process that stands by works on the run of the one that leads (share.h). */
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/objects.h"
#include "df/trace.h"
#include "jobs/common/corrections.h"
#include "jobs/reconcile/share.h"

#define TICK_MS 200
#define LOOK_MS 1000
#define UNFIT_MS 5000   /* then it may have been made the same */
#define FAILED_MS 60000 /* a partition that is refused here goes to others meanwhile */

struct helping {
        struct ad_job *job;
        struct df_buf text;   /* of the notice; empty: none */
        struct df_buf failed; /* one that nothing came of */
        bool worked;          /* before it failed */
        int64_t looked_ms, retry_ms;
        struct ad_run_kind kind;
        struct ad_correction_log *corrections;
        struct df_objects *objects;
};

/* ---- may it? ---- */

static int check(struct helping *h, const struct ad_notice *n, struct df_error *err)
{
        const struct ad_job *j = h->job;
        int rc = ad_correction_log_read(j->logs.log, n->corrections_to, &h->corrections, err);

        if (rc < 0)
                return rc;
        h->kind = ad_run_reconcile;
        h->kind.corrections = h->corrections;
        return ad_notice_check(n, ADTALLY_VERSION, ad_bill_price_version(j->config),
                               h->kind.config(j->config, &h->kind), err);
}

/* ---- what is here of earlier work ---- */

static int forget_other(void *arg, const struct ad_replay *run, struct df_error *err)
{
        const struct ad_replay *now = arg;

        if (!ad_job_owns(run) || run->locked || strcmp(run->id, now->id) == 0 ||
            strcmp(run->log, now->log) != 0 ||
            strcmp(run->pin.topic.name, now->pin.topic.name) != 0)
                return 0;
        return df_remove_tree(run->dir, err);
}

/* The states are in the store: those of a chain before are of no use here. */
static int join(struct helping *h, struct ad_notice *n, struct df_error *err)
{
        const struct df_config *c = h->job->config;
        int rc = ad_replay_list(c, &ad_run_reconcile, forget_other, &n->work, err);

        n->work.kind = &h->kind;
        if (rc == 0)
                rc = ad_replay_join(c, &n->work, err);
        return rc == 0 ? ad_job_mark(&n->work, err) : rc;
}

/* ---- the work ---- */

static bool notice_changed(struct helping *h)
{
        int64_t now = df_monotonic_ms();
        struct df_buf b = {0};
        bool changed;
        int rc;

        if (now - h->looked_ms < LOOK_MS)
                return false;
        h->looked_ms = now;
        rc = ad_notice_read(h->job->share.path, &b, NULL);
        changed = rc == DF_ENOENT ||
                  (rc == 0 && !df_bytes_eq(df_buf_bytes(&b), df_buf_bytes(&h->text)));
        df_buf_release(&b);
        return changed;
}

static enum ad_replay_watch watch(void *arg, const struct ad_replay_progress *p)
{
        struct helping *h = arg;
        struct ad_job *j = h->job;
        bool hold = ad_pace_hold(&j->pace);

        ad_job_status_work(&j->status, p, hold);
        if (ad_lead_leads(j->lead) || notice_changed(h))
                return AD_REPLAY_LEAVE;
        return hold ? AD_REPLAY_HOLD : AD_REPLAY_GO_ON;
}

static int work(struct helping *h, struct ad_notice *n, struct df_error *err)
{
        struct ad_job *j = h->job;
        struct ad_replay_logs logs = j->logs;
        int rc;

        logs.watch = watch;
        logs.watch_arg = h;
        logs.share = AD_REPLAY_HELPS;
        rc = ad_bill_open_source(j->config, logs.log, &h->objects, &logs.source, err);
        if (rc == 0) {
                df_trace(DF_INFO, "share", "run=%s chain=%s topic=%s leader=%s helps", n->run,
                         n->work.id, n->work.pin.topic.name, n->leader);
                h->worked = true;
                ad_job_status_begin(&j->status, n->leader, n->run, n->work.id, "");
                ad_job_status_phase(&j->status, AD_JOB_HELPING);
                rc = ad_replay_work(j->config, &logs, &n->work, err);
                df_trace(DF_INFO, "share", "run=%s is left: %s", n->run, err->text);
                ad_job_status_phase(&j->status, AD_JOB_STANDBY);
        }
        if (logs.source && logs.source != logs.log)
                df_log_close(logs.source);
        df_objects_close(h->objects);
        h->objects = NULL;
        return rc;
}

static int help(struct helping *h, struct df_error *err)
{
        struct ad_notice *n = calloc(1, sizeof(*n));
        struct df_buf text = {0}; /* parsing changes it */
        int rc;

        if (!n)
                return df_fail(err, DF_ENOMEM, "notice");
        df_buf_append(&text, h->text.data, h->text.len);
        rc = df_buf_check(&text, err);
        if (rc == 0)
                rc = ad_notice_parse((char *)text.data, n, err);
        if (rc == 0)
                rc = check(h, n, err);
        if (rc == 0)
                rc = join(h, n, err);
        if (rc == 0)
                rc = work(h, n, err);
        ad_replay_end(&n->work);
        ad_correction_log_destroy(h->corrections);
        h->corrections = NULL;
        df_buf_release(&text);
        free(n);
        return rc;
}

/* ---- standing by ---- */

static void failed(struct helping *h, const struct df_error *err)
{
        bool same = df_bytes_eq(df_buf_bytes(&h->failed), df_buf_bytes(&h->text));

        h->retry_ms = df_monotonic_ms() + (h->worked ? FAILED_MS : UNFIT_MS);
        df_buf_clear(&h->failed);
        df_buf_append(&h->failed, h->text.data, h->text.len);
        if (!same)
                df_trace(DF_WARN, "share", "code=%s: %s", df_err_code(err->code), err->text);
        ad_job_status_helpless(&h->job->status, err);
}

static void look(struct helping *h)
{
        struct df_error err = {0};
        int rc = ad_notice_read(h->job->share.path, &h->text, &err);

        h->looked_ms = df_monotonic_ms();
        if (rc == DF_ENOENT) {
                df_buf_clear(&h->failed);
                ad_job_status_helpless(&h->job->status, NULL);
                return;
        }
        if (rc == 0 && h->looked_ms < h->retry_ms &&
            df_bytes_eq(df_buf_bytes(&h->failed), df_buf_bytes(&h->text)))
                return;
        h->worked = false;
        if (rc == 0)
                rc = help(h, &err);
        if (rc < 0 && rc != DF_EAGAIN) /* which says that it left as it should */
                failed(h, &err);
        else
                ad_job_status_helpless(&h->job->status, NULL);
}

void ad_help_wait(struct ad_job *j)
{
        struct helping h = {.job = j};

        while (!ad_lead_leads(j->lead) && !df_process_stopping()) {
                struct pollfd p = {.fd = df_process_stop_fd(), .events = POLLIN};

                if (j->share.path[0] && df_monotonic_ms() - h.looked_ms >= LOOK_MS)
                        look(&h);
                else
                        (void)poll(&p, 1, TICK_MS); /* an early wake-up is harmless */
        }
        ad_job_status_helpless(&j->status, NULL);
        df_buf_release(&h.text);
        df_buf_release(&h.failed);
}
