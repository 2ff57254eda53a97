/* close.c - what each close waits for, and its draft (close.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "df/trace.h"
#include "jobs/common/json.h"
#include "jobs/common/times.h"
#include "jobs/reconcile/close_private.h"

#define LOOK_MS 5000 /* between looks at the archive */

static const char *const codes[] = {
#define X(name, code) [AD_CLOSE_##name] = (code),
        AD_CLOSE_WHY_MAP(X)
#undef X
};

/* ---- states ---- */

static void hold(struct ad_closer *c, struct adi_pending *p, enum ad_close_why why,
                 const char *text)
{
        pthread_mutex_lock(&c->lock);
        if (p->why != why && why != AD_CLOSE_RUN)
                df_trace(why == AD_CLOSE_UNEXPLAINED || why == AD_CLOSE_FAILED ? DF_ERROR : DF_INFO,
                         "close", "command=%.*s period=%.*s waits code=%s: %s",
                         (int)p->command.id.len, (const char *)p->command.id.data,
                         (int)p->command.close.period.len,
                         (const char *)p->command.close.period.data, codes[why], text);
        p->why = why;
        (void)snprintf(p->text, sizeof(p->text), "%s", text);
        pthread_mutex_unlock(&c->lock);
}

/* ---- what a run says of the period ---- */

static bool is_earlier(const struct adi_pending *a, const struct adi_pending *p)
{
        const struct ad_account *x = &a->command.close.account, *y = &p->command.close.account;

        return a != p && !a->over && df_bytes_eq(x->tenant_id, y->tenant_id) &&
               df_bytes_eq(x->advertiser_id, y->advertiser_id) &&
               a->command.close.from_quarter < p->command.close.from_quarter;
}

/* Periods of an account are closed one after the other. */
static bool waits_for_earlier(struct ad_closer *c, struct adi_pending *p)
{
        char text[160];

        for (size_t i = 0; i < c->count; i++) {
                const struct df_bytes name = c->list[i]->command.close.period;

                if (!is_earlier(c->list[i], p))
                        continue;
                (void)snprintf(text, sizeof(text), "the close of %.*s comes first", (int)name.len,
                               (const char *)name.data);
                hold(c, p, AD_CLOSE_EARLIER, text);
                return true;
        }
        return false;
}

static bool is_final(struct ad_closer *c, struct adi_pending *p, const struct ad_posted *posted)
{
        int64_t end_ms = (int64_t)p->command.close.to_quarter * AD_QUARTER_MS;
        char through[AD_TIME_TEXT_MAX], text[200];

        for (uint32_t i = 0; i < posted->parts[0].run->pin.topic.partitions; i++) {
                int64_t ms = posted->parts[0].final_through_ms[i];

                if (ms >= end_ms)
                        continue;
                (void)ad_time_text(ms > 0 ? ms : 0, through);
                (void)snprintf(text, sizeof(text), "partition %u is final through %s", i, through);
                hold(c, p, AD_CLOSE_NOT_FINAL, text);
                return false;
        }
        return true;
}

/* ---- the draft ---- */

struct counting {
        struct adi_draft *draft;
        uint64_t unexplained;
};

static int on_target(void *arg, const struct ad_target *t, struct df_error *err)
{
        struct counting *k = arg;
        bool there = false, unexplained = false;

        for (size_t i = 0; i < t->cause_count; i++) {
                const struct ad_cause_cell *cell = &t->causes[i];
                bool some = !ad_cell_is_zero(&cell->billed) || !ad_cell_is_zero(&cell->realtime);

                there |= some;
                unexplained |= some && cell->cause == AD_CAUSE_UNEXPLAINED;
        }
        k->draft->cells += there;
        k->unexplained += unexplained;
        return ad_rows_add_target(&k->draft->rows, t, err);
}

static void put_text(char *ret, size_t size, struct df_bytes text)
{
        (void)snprintf(ret, size, "%.*s", (int)text.len, (const char *)text.data);
}

static void drop_draft(struct adi_draft *d)
{
        if (!d)
                return;
        ad_rows_release(&d->rows);
        free(d->pins);
        free(d);
}

/* The rows, and the pins of the topics that have any; `events` in any case. */
static int fill_draft(const struct ad_close_request *close, const struct ad_posted *posted,
                      struct counting *k, struct df_error *err)
{
        struct ad_fold **folds = calloc(posted->part_count, sizeof(struct ad_fold *));
        bool *has = calloc(posted->part_count, sizeof(bool));
        struct adi_draft *d = k->draft;
        int rc = 0;

        d->pins = calloc(posted->part_count, sizeof(*d->pins));
        if (!folds || !has || !d->pins)
                rc = df_fail(err, DF_ENOMEM, "draft of a period");
        for (size_t i = 0; rc == 0 && i < posted->part_count; i++)
                folds[i] = posted->parts[i].fold;
        if (rc == 0)
                rc = ad_rows_begin(&d->rows, &close->account, close->from_quarter,
                                   close->to_quarter, NULL, err);
        if (rc == 0)
                rc = ad_fold_cells(folds, posted->part_count, &close->account, close->from_quarter,
                                   close->to_quarter, has, on_target, k, err);
        for (size_t i = 0; rc == 0 && i < posted->part_count; i++)
                if (i == 0 || has[i])
                        d->pins[d->pin_count++] = posted->parts[i].run->pin;
        free(folds);
        free(has);
        return rc == 0 ? ad_rows_end(&d->rows, err) : rc;
}

static int make_draft(struct adi_pending *p, const struct ad_posted *posted, struct adi_draft **ret,
                      uint64_t *ret_unexplained, struct df_error *err)
{
        struct counting k = {.draft = calloc(1, sizeof(*k.draft))};
        struct adi_draft *d = k.draft;
        int rc;

        *ret = NULL;
        if (!d)
                return df_fail(err, DF_ENOMEM, "draft of a period");
        put_text(d->run, sizeof(d->run), posted->begin->run);
        put_text(d->chain, sizeof(d->chain), posted->begin->chain);
        put_text(d->version, sizeof(d->version), posted->begin->binary_version);
        d->price_version = posted->begin->price_version;
        d->corrections_to = posted->begin->corrections_to;
        rc = fill_draft(&p->command.close, posted, &k, err);
        if (rc < 0) {
                drop_draft(d);
                return rc;
        }
        *ret = d;
        *ret_unexplained = k.unexplained;
        return 0;
}

/* The older draft is as true, and more likely archived. */
static void keep_draft(struct adi_pending *p, struct adi_draft *d)
{
        const struct adi_draft *old = p->draft;

        if (old && strcmp(old->chain, d->chain) == 0 && old->cells == d->cells &&
            old->rows.count == d->rows.count &&
            memcmp(old->rows.digest, d->rows.digest, sizeof(d->rows.digest)) == 0) {
                drop_draft(d);
                return;
        }
        drop_draft(p->draft);
        p->draft = d;
}

/* ---- the close ---- */

/* The draft, if the archive has its events by now. */
static int finish(struct ad_closer *c, struct adi_pending *p, struct df_error *err)
{
        enum ad_close_why why = AD_CLOSE_FAILED;
        struct df_error reason = {0};
        struct df_buf record = {0};
        int rc = adi_close_record(c, p, &why, &record, &reason);

        if (rc < 0) {
                hold(c, p, why, reason.text);
                df_buf_release(&record);
                return 0;
        }
        rc = c->o.append(c->o.append_arg, df_buf_bytes(&record), err);
        df_buf_release(&record);
        if (rc < 0)
                return rc;
        df_trace(DF_INFO, "close", "command=%.*s period=%.*s run=%s appended",
                 (int)p->command.id.len, (const char *)p->command.id.data,
                 (int)p->command.close.period.len, (const char *)p->command.close.period.data,
                 c->run);
        return adi_close_mark(c, p, err);
}

static int consider(struct ad_closer *c, struct adi_pending *p, const struct ad_posted *posted,
                    struct df_error *err)
{
        struct adi_draft *d = NULL;
        struct df_error failure = {0};
        uint64_t unexplained = 0;
        char text[160];
        int rc;

        if (waits_for_earlier(c, p) || !is_final(c, p, posted))
                return 0;
        rc = make_draft(p, posted, &d, &unexplained, &failure);
        if (rc < 0) {
                hold(c, p, AD_CLOSE_FAILED, failure.text);
                return 0;
        }
        if (unexplained) {
                drop_draft(d);
                drop_draft(p->draft);
                p->draft = NULL;
                (void)snprintf(text, sizeof(text), "%" PRIu64 " cells of the period", unexplained);
                hold(c, p, AD_CLOSE_UNEXPLAINED, text);
                return 0;
        }
        keep_draft(p, d);
        return finish(c, p, err);
}

static void free_pending(struct adi_pending *p)
{
        drop_draft(p->draft);
        df_arena_release(&p->arena);
        free(p);
}

static void forget_over(struct ad_closer *c)
{
        size_t kept = 0;

        pthread_mutex_lock(&c->lock);
        for (size_t i = 0; i < c->count; i++)
                if (c->list[i]->over)
                        free_pending(c->list[i]);
                else
                        c->list[kept++] = c->list[i];
        c->count = kept;
        pthread_mutex_unlock(&c->lock);
}

/* ---- calls ---- */

int ad_closer_open(const struct ad_closer_options *options, struct ad_closer **ret,
                   struct df_error *err)
{
        struct ad_closer *c = calloc(1, sizeof(*c));
        uint64_t first = 0, end = 0;
        int rc;

        *ret = NULL;
        if (!c)
                return df_fail(err, DF_ENOMEM, "closes");
        c->o = *options;
        pthread_mutex_init(&c->lock, NULL);
        rc = df_log_bounds(c->o.log, AD_TOPIC_COMMANDS, 0, &first, &end, err);
        if (rc == 0)
                rc = df_log_reader_open(c->o.log, AD_TOPIC_COMMANDS, 0, first, NULL, &c->reader,
                                        err);
        if (rc < 0)
                ad_closer_close(c);
        else
                *ret = c;
        return rc;
}

/* What is asked from now on may come after a correction that the run does not know. */
int ad_closer_posted(struct ad_closer *c, const struct ad_posted *posted, struct df_error *err)
{
        int rc = 0;

        put_text(c->run, sizeof(c->run), posted->begin->run);
        for (size_t i = 0; rc == 0 && i < c->count; i++)
                if (!c->list[i]->over)
                        rc = consider(c, c->list[i], posted, err);
        forget_over(c);
        return rc;
}

int ad_closer_idle(struct ad_closer *c, struct df_error *err)
{
        int64_t now = df_monotonic_ms();
        int rc = adi_close_follow(c, err);

        if (rc < 0 || now - c->looked_ms < LOOK_MS)
                return rc;
        c->looked_ms = now;
        for (size_t i = 0; rc == 0 && i < c->count; i++)
                if (!c->list[i]->over && c->list[i]->draft)
                        rc = finish(c, c->list[i], err);
        forget_over(c);
        return rc;
}

bool ad_closer_wants_run(struct ad_closer *c)
{
        for (size_t i = 0; i < c->count; i++)
                if (c->list[i]->why == AD_CLOSE_RUN)
                        return true;
        return false;
}

static void put_one(struct ad_json *j, const struct adi_pending *p)
{
        ad_json_open(j);
        ad_json_put_bytes(j, "id", p->command.id);
        ad_json_put_bytes(j, "tenant_id", p->command.tenant_id);
        ad_json_put_bytes(j, "advertiser_id", p->command.close.account.advertiser_id);
        ad_json_put_bytes(j, "period", p->command.close.period);
        ad_json_put_text(j, "state", "closing");
        ad_json_put_text(j, "why", codes[p->why]);
        ad_json_put_text(j, "text", p->text);
        ad_json_close(j);
}

void ad_closer_put(struct ad_closer *c, struct ad_json *j)
{
        ad_json_key(j, "closes");
        ad_json_open_array(j);
        pthread_mutex_lock(&c->lock);
        for (size_t i = 0; i < c->count; i++)
                if (!c->list[i]->over)
                        put_one(j, c->list[i]);
        pthread_mutex_unlock(&c->lock);
        ad_json_close_array(j);
}

void ad_closer_close(struct ad_closer *c)
{
        if (!c)
                return;
        df_log_reader_close(c->reader);
        for (size_t i = 0; i < c->count; i++)
                free_pending(c->list[i]);
        free(c->list);
        pthread_mutex_destroy(&c->lock);
        free(c);
}
