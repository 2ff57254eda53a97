/* run.c - one run: its vector, the work, the comparison, the post (job.h). */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "df/hash.h"
#include "df/sha256.h"
#include "df/trace.h"
#include "jobs/common/corrections.h"
#include "jobs/reconcile/close.h"
#include "jobs/reconcile/share.h"

#define REALTIME_WAIT_MS 60000 /* for a partition of realtime that does not move */
#define MARK "JOB"             /* in the directory of a run: the job made it, and drops it */

struct attempt {
        struct ad_job *job;
        struct ad_run_kind kind; /* with the corrections */
        struct ad_correction_log *corrections;
        struct ad_job_part *parts;
        size_t count;
        struct ad_bill_result *result; /* of the part at hand */
        const char *asked_by;
        bool all; /* compare all that the log has */
        bool resumed;
        uint32_t price_version;
        int64_t at_ms;
        char run[AD_RUN_ID_MAX + 1], chain[AD_RUN_ID_MAX + 1];
};

/* ---- runs that the job made ---- */

bool ad_job_owns(const struct ad_replay *r)
{
        char path[700];

        (void)snprintf(path, sizeof(path), "%s/" MARK, r->dir);
        return access(path, F_OK) == 0;
}

/* Before a move to another log: its topics were copied, its state there has no position. */
static int forget_moved(void *arg, const struct ad_replay *run, struct df_error *err)
{
        const struct ad_job *j = arg;
        struct ad_replay *moved;
        int rc;

        if (!ad_job_owns(run) || ad_replay_is_here(j->config, run))
                return 0;
        moved = malloc(sizeof(*moved));
        if (!moved)
                return df_fail(err, DF_ENOMEM, "run %s", run->id);
        *moved = *run;
        rc = ad_replay_drop(moved, j->logs.log, err);
        free(moved);
        if (rc == 0)
                df_trace(DF_INFO, "reconcile", "chain=%s was of the log before the move", run->id);
        return rc;
}

/* ---- which topics, up to where ---- */

int ad_job_mark(const struct ad_replay *r, struct df_error *err)
{
        char path[700];

        (void)snprintf(path, sizeof(path), "%s/" MARK, r->dir);
        return ad_job_owns(r) ? 0 : df_write_file(path, df_bytes("", 0), true, err);
}

static bool is_empty(const struct ad_replay *r)
{
        for (uint32_t p = 0; p < r->pin.topic.partitions; p++)
                if (r->pin.span[p].to > r->pin.span[p].from)
                        return false;
        return true;
}

/* An import of which nothing is complete has no part in the bill. */
static int add_part(struct attempt *a, const char *topic, struct df_error *err)
{
        struct ad_job *j = a->job;
        struct ad_job_part *p = &a->parts[a->count];
        int rc;

        if (a->count == AD_JOB_TOPICS_MAX)
                return df_fail(err, DF_ELIMIT, "more than %d topics of raw events",
                               AD_JOB_TOPICS_MAX);
        *p = (struct ad_job_part){.run = calloc(1, sizeof(*p->run))};
        if (!p->run)
                return df_fail(err, DF_ENOMEM, "run of %s", topic);
        rc = ad_replay_begin_of(j->config, &a->kind, j->logs.source, topic, p->run, err);
        if (rc < 0 || (a->count > 0 && is_empty(p->run))) {
                if (rc == 0)
                        ad_replay_end(p->run);
                free(p->run);
                return rc;
        }
        a->count++;
        a->resumed |= p->run->resumed;
        p->final_through_ms = calloc(p->run->pin.topic.partitions, sizeof(int64_t));
        return p->final_through_ms ? ad_job_mark(p->run, err) : df_fail(err, DF_ENOMEM, "run");
}

static int on_import(void *arg, const struct df_topic_info *topic, struct df_error *err)
{
        return add_part(arg, topic->name, err);
}

/* A chain is the state that runs share; a run is where it had come to. */
static void name_run(struct attempt *a)
{
        struct df_buf run = {0}, chain = {0};

        for (size_t i = 0; i < a->count; i++) {
                const struct ad_replay *r = a->parts[i].run;
                char id[AD_RUN_ID_MAX + 1];

                ad_replay_id(&r->pin, r->config, r->version, id);
                df_buf_append(&run, id, AD_RUN_ID_MAX);
                df_buf_append(&chain, r->id, AD_RUN_ID_MAX);
        }
        df_check(!run.failed && !chain.failed);
        if (a->count == 1) {
                (void)snprintf(a->run, sizeof(a->run), "%.16s", (const char *)run.data);
                (void)snprintf(a->chain, sizeof(a->chain), "%.16s", (const char *)chain.data);
        } else {
                (void)snprintf(a->run, sizeof(a->run), "%016llx",
                               (unsigned long long)df_hash64(df_buf_bytes(&run)));
                (void)snprintf(a->chain, sizeof(a->chain), "%016llx",
                               (unsigned long long)df_hash64(df_buf_bytes(&chain)));
        }
        df_buf_release(&run);
        df_buf_release(&chain);
}

static void end_parts(struct attempt *a)
{
        for (size_t i = 0; i < a->count; i++) {
                ad_fold_close(a->parts[i].fold);
                ad_replay_end(a->parts[i].run);
                free(a->parts[i].run);
                free(a->parts[i].final_through_ms);
        }
        ad_correction_log_destroy(a->corrections);
        free(a->parts);
        free(a->result);
}

/* The price table is part of what the run is: it must not change while the run is found. */
static int begin(struct attempt *a, struct df_error *err)
{
        struct ad_job *j = a->job;
        int rc;

        a->parts = calloc(AD_JOB_TOPICS_MAX, sizeof(*a->parts));
        a->result = calloc(1, sizeof(*a->result));
        if (!a->parts || !a->result)
                return df_fail(err, DF_ENOMEM, "run");
        a->price_version = ad_bill_price_version(j->config);
        a->at_ms = df_wall_ms();
        a->kind = ad_run_reconcile;
        rc = ad_replay_list(j->config, &ad_run_reconcile, forget_moved, j, err);
        if (rc == 0)
                rc = ad_correction_log_read(j->logs.log, AD_CORRECTIONS_ALL, &a->corrections, err);
        a->kind.corrections = a->corrections;
        if (rc == 0)
                rc = add_part(a, AD_TOPIC_EVENTS, err);
        if (rc == 0)
                rc = ad_bill_each_topic(j->logs.log, on_import, a, err);
        if (rc == 0 && ad_bill_price_version(j->config) != a->price_version)
                rc = df_fail(err, DF_EAGAIN, "the price table changed meanwhile");
        if (rc == 0)
                name_run(a);
        return rc;
}

/* ---- the work ---- */

static enum ad_replay_watch watch(void *arg, const struct ad_replay_progress *p)
{
        struct ad_job *j = arg;
        bool hold = ad_pace_hold(&j->pace);

        ad_job_status_work(&j->status, p, hold);
        ad_share_follow(&j->share, ad_lead_leads(j->lead));
        return hold ? AD_REPLAY_HOLD : AD_REPLAY_GO_ON;
}

/* Alone, or with all who stand by. */
static int replay(const struct attempt *a, struct ad_replay *run, struct df_error *err)
{
        struct ad_job *j = a->job;
        struct ad_replay_logs logs = j->logs;
        struct ad_notice *n = calloc(1, sizeof(*n));
        int rc;

        if (!n)
                return df_fail(err, DF_ENOMEM, "notice");
        *n = (struct ad_notice){.price_version = a->price_version,
                                .corrections_to = ad_correction_log_to(a->corrections),
                                .work = *run};
        (void)snprintf(n->leader, sizeof(n->leader), "%s", df_config_text(j->config, "instance"));
        memcpy(n->run, a->run, sizeof(n->run));
        logs.watch = watch;
        logs.watch_arg = j;
        logs.share = j->share.path[0] ? AD_REPLAY_LEADS : AD_REPLAY_ALONE;
        ad_share_begin(&j->share, n);
        rc = ad_replay_work(j->config, &logs, run, err);
        ad_share_end(&j->share);
        free(n);
        return rc;
}

static int difference(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        return ad_fold_difference(arg, row, err);
}

static int compare(struct attempt *a, struct ad_job_part *p, bool all, struct df_error *err)
{
        struct ad_compare_options o = {
                .wait_ms = REALTIME_WAIT_MS,
                .quiet = true,
                .keep = true,
                .all = all,
                .difference = difference,
                .arg = p->fold,
        };
        struct ad_bill_result *r = a->result;
        int rc;

        r->total_count = 0;
        r->behind_count = 0;
        r->compared = r->skipped = 0;
        rc = ad_fold_differences_begin(p->fold, err);
        if (rc == 0)
                rc = ad_bill_compare(a->job->logs.log, p->run, &o, r, err);
        return rc == 0 ? ad_fold_differences_end(p->fold, err) : rc;
}

static void count_cells(struct ad_job_part *p, const struct ad_bill_result *r)
{
        for (size_t i = 0; i < r->total_count; i++) {
                const struct ad_bill_total *t = &r->totals[i];

                p->unexplained += t->cause == AD_CAUSE_UNEXPLAINED ? t->cells : 0;
                p->pending += t->cause == AD_CAUSE_PENDING ? t->cells : 0;
        }
}

static int fold(struct attempt *a, struct ad_job_part *p, struct df_error *err)
{
        struct ad_bill_result *r = a->result;
        int rc = ad_fold_open(p->run, NULL, &p->fold, err);

        *r = (struct ad_bill_result){.to = UINT64_MAX};
        if (rc == 0)
                rc = ad_fold_take(p->fold, a->job->logs.log, r, err);
        if (rc == 0 && !ad_fold_summary(p->fold, &p->rows, p->digest)) {
                rc = ad_fold_rows(p->fold, NULL, r, err);
                p->rows = r->rows;
                memcpy(p->digest, r->digest, sizeof(p->digest));
        }
        memcpy(p->final_through_ms, r->final_through_ms,
               p->run->pin.topic.partitions * sizeof(int64_t));
        return rc;
}

static int work_part(struct attempt *a, struct ad_job_part *p, struct df_error *err)
{
        struct ad_job *j = a->job;
        int rc = 0;

        ad_job_status_phase(&j->status, AD_JOB_WORKING);
        if (!p->run->done)
                rc = replay(a, p->run, err);
        ad_job_status_phase(&j->status, AD_JOB_COMPARING);
        if (rc == 0)
                rc = fold(a, p, err);
        if (rc == 0)
                rc = compare(a, p, a->all, err);
        if (rc == DF_ECORRUPT || rc == DF_EOFFSET) { /* its store, mostly: once with all */
                df_trace(DF_WARN, "reconcile", "run=%s compares all again: %s", p->run->id,
                         err ? err->text : "");
                rc = p->fold ? compare(a, p, true, err) : rc;
        }
        if (rc == 0)
                count_cells(p, a->result);
        return rc;
}

/* ---- the post ---- */

/* Of one topic its own digest; of several that of their names and digests, a line each. */
static int digest_all(const struct attempt *a, uint8_t ret[DF_SHA256_SIZE], struct df_error *err)
{
        struct df_buf lines = {0};
        int rc;

        for (size_t i = 0; a->count == 1 && i < DF_SHA256_SIZE; i++) {
                unsigned byte = 0;

                (void)sscanf(a->parts[0].digest + 2 * i, "%2x", &byte);
                ret[i] = (uint8_t)byte;
        }
        if (a->count == 1)
                return 0;
        for (size_t i = 0; i < a->count; i++)
                df_buf_printf(&lines, "%s %s\n", a->parts[i].run->pin.topic.name,
                              a->parts[i].digest);
        rc = df_buf_check(&lines, err);
        if (rc == 0)
                rc = df_sha256(df_buf_bytes(&lines), ret, err);
        df_buf_release(&lines);
        return rc;
}

static struct ad_vector_part *make_vector(const struct attempt *a, size_t *ret_count)
{
        struct ad_vector_part *v;
        size_t n = 0, at = 0;

        for (size_t i = 0; i < a->count; i++)
                n += a->parts[i].run->pin.topic.partitions;
        v = calloc(n, sizeof(*v));
        for (size_t i = 0; v && i < a->count; i++) {
                const struct ad_replay_pin *pin = &a->parts[i].run->pin;

                for (uint32_t p = 0; p < pin->topic.partitions; p++)
                        v[at++] = (struct ad_vector_part){
                                .stream = df_bytes_str(pin->topic.name),
                                .generation = pin->topic.generation,
                                .partition = p,
                                .to = pin->span[p].to,
                        };
        }
        *ret_count = n;
        return v;
}

static void note_posted(struct attempt *a, const struct ad_posted *posted)
{
        struct ad_job *j = a->job;
        struct ad_job_status *s = &j->status;
        const struct ad_run_end *end = posted->end;

        j->state.unexplained = end->unexplained;
        j->state.pending = end->pending;
        j->ran_ms = a->at_ms;
        if (a->all)
                j->state.compared_ms = a->at_ms;
        memcpy(j->state.chain, a->chain, sizeof(j->state.chain));
        memcpy(j->state.run, a->run, sizeof(j->state.run));
        pthread_mutex_lock(&s->lock);
        s->runs++;
        s->targets += end->targets;
        s->unexplained = end->unexplained;
        s->pending = end->pending;
        s->success_ms = df_wall_ms();
        s->last_ms = s->success_ms - a->at_ms;
        df_hex(end->digest.data, end->digest.len, s->digest);
        pthread_mutex_unlock(&s->lock);
        df_trace(end->unexplained ? DF_ERROR : DF_INFO, "reconcile",
                 "run=%s chain=%s whole=%d asked_by=%s rows=%llu targets=%llu unexplained=%llu "
                 "pending=%llu sha256=%s",
                 a->run, a->chain, posted->begin->whole, a->asked_by, (unsigned long long)end->rows,
                 (unsigned long long)end->targets, (unsigned long long)end->unexplained,
                 (unsigned long long)end->pending, s->digest);
}

static bool is_whole(const struct attempt *a)
{
        bool whole = strcmp(a->job->state.chain, a->chain) != 0;

        for (size_t i = 0; i < a->count; i++)
                whole |= !ad_fold_was_posted(a->parts[i].fold);
        return whole;
}

static int post_folds(struct attempt *a, const struct ad_run_begin *begin, struct ad_run_end *end,
                      struct df_error *err)
{
        struct ad_fold **folds = calloc(a->count, sizeof(struct ad_fold *));
        int rc;

        if (!folds)
                return df_fail(err, DF_ENOMEM, "%zu topics", a->count);
        for (size_t i = 0; i < a->count; i++)
                folds[i] = a->parts[i].fold;
        rc = ad_job_post(a->job, begin, folds, a->count, end, err);
        free(folds);
        return rc;
}

static int post(struct attempt *a, struct df_error *err)
{
        uint8_t digest[DF_SHA256_SIZE];
        struct ad_run_begin begin = {
                .run = df_bytes_str(a->run),
                .chain = df_bytes_str(a->chain),
                .binary_version = df_bytes_str(a->parts[0].run->version),
                .asked_by = df_bytes_str(a->asked_by),
                .whole = is_whole(a),
                .config = a->parts[0].run->config,
                .price_version = a->price_version,
                .corrections_to = ad_correction_log_to(a->corrections),
                .at_ms = a->at_ms,
        };
        struct ad_run_end end = {.run = begin.run, .digest = df_bytes(digest, sizeof(digest))};
        struct ad_posted posted = {.parts = a->parts,
                                   .part_count = a->count,
                                   .begin = &begin,
                                   .end = &end,
                                   .corrections = a->corrections};
        struct ad_vector_part *vector = make_vector(a, &begin.vector_count);
        int rc = vector ? 0 : df_fail(err, DF_ENOMEM, "vector");

        begin.vector = vector;
        if (rc == 0)
                rc = digest_all(a, digest, err);
        for (size_t i = 0; i < a->count; i++) {
                end.rows += a->parts[i].rows;
                end.unexplained += a->parts[i].unexplained;
                end.pending += a->parts[i].pending;
        }
        ad_job_status_phase(&a->job->status, AD_JOB_POSTING);
        if (rc == 0)
                rc = post_folds(a, &begin, &end, err);
        if (rc == 0) {
                note_posted(a, &posted);
                rc = ad_closer_posted(a->job->closer, &posted, err);
        }
        free(vector);
        return rc;
}

/* ---- what is over ---- */

struct leftovers {
        const struct attempt *a;
        char ids[64][AD_RUN_ID_MAX + 1]; /* more: the next time */
        size_t count;
};

static int on_chain(void *arg, const char *id, struct df_error *err)
{
        struct leftovers *l = arg;

        (void)err;
        if (l->count == sizeof(l->ids) / sizeof(l->ids[0]))
                return 0;
        for (size_t i = 0; i < l->a->count; i++)
                if (strcmp(l->a->parts[i].run->id, id) == 0)
                        return 0;
        (void)snprintf(l->ids[l->count++], sizeof(l->ids[0]), "%s", id);
        return 0;
}

static int on_run(void *arg, const struct ad_replay *run, struct df_error *err)
{
        return ad_job_owns(run) ? on_chain(arg, run->id, err) : 0;
}

/* Whose directory is here is locked against `adtally reconcile`; another leader's is not here. */
static int drop_chain(const struct ad_job *j, const char *id, struct df_error *err)
{
        struct ad_replay *r = calloc(1, sizeof(*r));
        int rc = r ? ad_lead_confirm(j->lead, err) : df_fail(err, DF_ENOMEM, "run");

        if (rc == 0)
                rc = ad_replay_find(j->config, &ad_run_reconcile, id, r, err);
        if (rc == DF_ENOENT)
                rc = ad_replay_place(j->config, &ad_run_reconcile, id, r, err);
        if (rc == 0) {
                rc = ad_replay_drop(r, j->logs.log, err);
                ad_replay_end(r);
        }
        free(r);
        return rc;
}

/* Of settings, prices and versions before: this chain was posted whole, so nobody needs them. */
static void drop_leftovers(const struct attempt *a)
{
        struct ad_job *j = a->job;
        struct leftovers l = {.a = a};
        struct df_error err = {0};
        int rc = ad_replay_list(j->config, &ad_run_reconcile, on_run, &l, &err);

        if (rc == 0)
                rc = ad_handover_each_chain(j->config, on_chain, &l, &err);
        for (size_t i = 0; rc == 0 && i < l.count; i++) {
                int dropped = drop_chain(j, l.ids[i], &err);

                df_trace(dropped < 0 ? DF_WARN : DF_INFO, "reconcile", "chain=%s is over%s%s",
                         l.ids[i], dropped < 0 ? "; it is dropped later: " : " and dropped",
                         dropped < 0 ? err.text : "");
        }
        if (rc < 0)
                df_trace(DF_WARN, "reconcile", "old chains: %s", err.text);
}

/* ---- all of it ---- */

/* The last run that was posted was this one. */
static bool has_no_news(const struct attempt *a)
{
        const struct ad_job_state *s = &a->job->state;

        return strcmp(s->run, a->run) == 0 && strcmp(s->chain, a->chain) == 0 && !a->all &&
               !*a->asked_by && !ad_closer_wants_run(a->job->closer);
}

int ad_job_run(struct ad_job *j, const char *asked_by, bool compare_all, bool *ret_asked,
               struct df_error *err)
{
        struct attempt a = {.job = j, .asked_by = asked_by, .all = compare_all};
        int rc;

        *ret_asked = false;
        rc = begin(&a, err);
        if (a.resumed) /* what it ends with is older than the question */
                a.asked_by = "";
        if (rc == 0 && has_no_news(&a)) {
                j->ran_ms = a.at_ms;
                end_parts(&a);
                return 0;
        }
        if (rc == 0)
                ad_job_status_begin(&j->status, df_config_text(j->config, "instance"), a.run,
                                    a.chain, a.asked_by);
        for (size_t i = 0; rc == 0 && i < a.count; i++)
                rc = work_part(&a, &a.parts[i], err);
        if (rc == 0)
                rc = post(&a, err);
        if (rc == 0) {
                *ret_asked = !a.resumed;
                drop_leftovers(&a);
        }
        end_parts(&a);
        ad_job_status_phase(&j->status, AD_JOB_IDLE);
        return rc;
}
