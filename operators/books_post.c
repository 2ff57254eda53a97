/* books_post.c - targets become postings (R4).
 *
 * A row is the last target of a cell. In an open period a posting replaces it. In a closed one the
 * cell stays, and the difference to the last target is an adjustment in the account's open period;
 * so closed cell + adjustments = last target, at any time, and a target that comes again adjusts
 * nothing.
 */
#include <stdio.h>

#include "operators/books_private.h"

/* Beyond, a difference of two could leave its bits. */
#define MONEY_MAX ((df_nanos)1 << 126)

static bool plausible_money(df_nanos v)
{
        return v <= MONEY_MAX && v >= -MONEY_MAX;
}

static bool plausible(const struct ad_cell *c)
{
        const uint64_t counts = c->impressions | c->clicks | c->conversions | c->invalid[0] |
                                c->invalid[1] | c->invalid[2];

        return counts <= INT64_MAX && plausible_money(c->spend) && plausible_money(c->payout) &&
               plausible_money(c->value);
}

static struct df_bytes text(const char *s)
{
        return df_bytes_str(s);
}

int adi_books_post(struct books *b, struct adi_posted by, const struct ad_target *from,
                   const struct ad_target *to, struct df_out *out, bool *ret_closed,
                   struct df_error *err)
{
        const struct adi_account *account =
                adi_accounts_of_row(&b->accounts, to->tenant_id, to->advertiser_id);
        struct ad_cause_cell delta[AD_CAUSE_COUNT];
        struct ad_books_entry e = {
                .kind = AD_BOOKS_POSTING,
                .posting = {.seq = ++b->seq, .run = by.run, .at_ms = by.at_ms, .target = *to},
        };

        *ret_closed = account && adi_account_closed(account, to->quarter);
        if (*ret_closed) {
                df_check(ad_target_delta(from, to, delta, &e.posting.delta_count));
                e.posting.delta = delta;
                e.posting.closed_period = text(adi_account_period(account, to->quarter));
                if (e.posting.delta_count > 0)
                        e.posting.posted_period = text(account->open);
        }
        return adi_books_emit(b, &e, out, err);
}

int adi_books_post_whole(struct books *b, struct adi_posted by, const struct ad_target *row,
                         struct df_bytes period, struct df_out *out, struct df_error *err)
{
        struct ad_cause_cell delta[AD_CAUSE_COUNT];
        struct ad_books_entry e = {
                .kind = AD_BOOKS_POSTING,
                .posting = {.run = by.run, .at_ms = by.at_ms, .target = *row},
        };

        df_check(ad_target_delta(NULL, row, delta, &e.posting.delta_count));
        if (e.posting.delta_count == 0)
                return 0; /* without money for the bill */
        e.posting.seq = ++b->seq;
        e.posting.delta = delta;
        e.posting.posted_period = period;
        return adi_books_emit(b, &e, out, err);
}

/* ---- targets of a run ---- */

/* Causes that are zero on both sides are left out. False: an amount that nobody owes. */
static bool clean(const struct ad_target *t, struct ad_cause_cell room[AD_CAUSE_COUNT],
                  struct ad_target *ret)
{
        *ret = *t;
        ret->causes = room;
        ret->cause_count = 0;
        for (size_t i = 0; i < t->cause_count; i++) {
                const struct ad_cause_cell *c = &t->causes[i];

                if (!plausible(&c->billed) || !plausible(&c->realtime))
                        return false;
                if (!ad_cell_is_zero(&c->billed) || !ad_cell_is_zero(&c->realtime))
                        room[ret->cause_count++] = *c;
        }
        return true;
}

/* The row's own run where that is known still; otherwise the tip is as new as it. */
static bool overtaken(struct books *b, struct adi_run *run, uint64_t row_run)
{
        const struct adi_run *other;

        if (row_run == 0 || row_run == run->index)
                return false;
        other = adi_runs_at(&b->runs, row_run);
        return other && adi_run_behind(run, other);
}

/* The row becomes the target. */
static int replace(struct books *b, struct adi_run *run, struct df_bytes key,
                   const struct ad_target *from, const struct ad_target *to, struct df_out *out,
                   struct df_error *err)
{
        struct adi_posted by = {run->begin.run, run->begin.at_ms};
        bool closed;
        int rc = 0;

        if (!ad_target_same_cells(from, to)) {
                rc = adi_books_post(b, by, from, to, out, &closed, err);
                run->posted++;
                run->adjusted += closed;
        }
        return rc < 0 ? rc : adi_books_put_row(b, key, run->index, to, err);
}

static void put_key(struct books *b, const struct ad_target *t)
{
        df_buf_clear(&b->key);
        ad_put_ordered(&b->key, t->tenant_id);
        ad_put_ordered(&b->key, t->advertiser_id);
        df_put_u64be(&b->key, t->quarter);
        ad_put_ordered(&b->key, t->campaign_id);
        ad_put_ordered(&b->key, t->publisher_id);
        ad_put_ordered(&b->key, t->currency);
}

static int take_target(struct books *b, struct adi_run *run, const struct ad_target *t,
                       struct df_out *out, struct df_error *err)
{
        struct ad_cause_cell room[AD_CAUSE_COUNT];
        struct ad_target to;
        struct df_bytes value;
        struct adi_row row = {0};
        bool found;
        int rc;

        if (!clean(t, room, &to))
                return 0; /* not read: then the run lacks it at its end */
        if (run->refusal != ADI_RUN_FINE || adi_run_stale(&b->runs, run)) {
                run->read++;
                run->superseded++;
                return 0;
        }
        put_key(b, &to);
        rc = df_buf_check(&b->key, err);
        if (rc == 0)
                rc = adi_rows_get(&b->rows, df_buf_bytes(&b->key), &value, &found, err);
        if (rc == 0 && found)
                rc = adi_books_row(b, df_buf_bytes(&b->key), value, &row, err);
        if (rc < 0)
                return rc;
        run->read += row.run != run->index; /* written again, it names cells again */
        if (overtaken(b, run, row.run)) {
                run->superseded++;
                return 0;
        }
        return replace(b, run, df_buf_bytes(&b->key), &row.target, &to, out, err);
}

int adi_books_targets(struct books *b, const struct ad_target_batch *t, struct df_out *out,
                      bool *ret_done, struct df_error *err)
{
        struct adi_run *run = adi_runs_reading(&b->runs, t->run);
        int rc = 0;

        *ret_done = true;
        if (!run) /* of the last run there may be more, when two wrote it at once: it is applied */
                return !adi_runs_is_tip(&b->runs, t->run);
        while (rc == 0 && b->work.done < t->count) {
                if (!adi_books_room(b, out)) {
                        *ret_done = false;
                        return 0;
                }
                rc = take_target(b, run, &t->targets[b->work.done++], out, err);
        }
        return rc;
}

/* ---- the end of a run ---- */

struct zeroing {
        struct books *b;
        struct adi_run *run;
        struct df_out *out;
        bool full;
};

/* Whether the whole run, which did not name the row, says that it is zero. */
static bool is_over(struct zeroing *z, const struct adi_row *row)
{
        struct adi_run *by = adi_runs_at(&z->b->runs, row->run);

        if (row->run == z->run->index || row->target.cause_count == 0)
                return false;
        if (!by)
                return true; /* older than the tip */
        if (adi_run_behind(z->run, by))
                return false; /* newer */
        /* As new, in the same chain: the same run twice at once. */
        return !df_bytes_eq(by->begin.chain, z->run->begin.chain) || adi_run_behind(by, z->run);
}

static int zero_row(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct zeroing *z = arg;
        struct ad_target zero;
        struct adi_row row;
        int rc;

        if (!adi_books_room(z->b, z->out)) {
                z->full = true;
                df_buf_clear(&z->b->work.cursor);
                df_buf_append(&z->b->work.cursor, key.data, key.len);
                return 1;
        }
        rc = adi_books_row(z->b, key, value, &row, err);
        if (rc < 0 || !is_over(z, &row))
                return rc;
        zero = row.target;
        zero.causes = NULL;
        zero.cause_count = 0;
        return replace(z->b, z->run, key, &row.target, &zero, z->out, err);
}

static int zero_the_rest(struct books *b, struct adi_run *run, struct df_out *out, bool *ret_done,
                         struct df_error *err)
{
        struct zeroing z = {.b = b, .run = run, .out = out};
        int rc = adi_rows_scan(&b->rows, df_bytes(NULL, 0), df_buf_bytes(&b->work.cursor), zero_row,
                               &z, err);

        *ret_done = !z.full;
        return rc < 0 ? rc : df_buf_check(&b->work.cursor, err);
}

/* "" when the run counts. */
static void why_not(const struct books *b, const struct adi_run *run, const struct ad_run_end *e,
                    char *ret, size_t size)
{
        *ret = '\0';
        if (!run)
                (void)snprintf(ret, size,
                               "run_unknown: its begin is not there, or too many runs "
                               "were begun since");
        else if (run->refusal == ADI_RUN_CHAIN_OVER)
                (void)snprintf(ret, size,
                               "chain_over: the books are of chain %.*s; what changed in another "
                               "one says nothing of the other rows: a whole run is needed",
                               (int)b->runs.chain.len,
                               b->runs.chain.len ? (const char *)b->runs.chain.data : "");
        else if (run->refusal == ADI_RUN_CHAIN_GAP)
                (void)snprintf(ret, size,
                               "chain_gap: run %.*s did not come to its end: that run again, or a "
                               "whole one",
                               (int)b->runs.gap.len,
                               b->runs.gap.len ? (const char *)b->runs.gap.data : "");
        else if (run->read < e->targets)
                (void)snprintf(ret, size,
                               "targets_missing: %llu of %llu were read: the run again, or a whole "
                               "one",
                               (unsigned long long)run->read, (unsigned long long)e->targets);
}

static int say_applied(struct books *b, const struct adi_run *run, const struct ad_run_end *e,
                       const char *why, struct df_out *out, struct df_error *err)
{
        struct ad_books_entry entry = {
                .kind = AD_BOOKS_APPLIED,
                .applied = {.begin = {.run = e->run}, .end = *e, .why = text(why)},
        };

        if (run) {
                entry.applied.begin = run->begin;
                entry.applied.posted = run->posted;
                entry.applied.adjusted = run->adjusted;
                entry.applied.superseded = run->superseded;
        }
        return adi_books_emit(b, &entry, out, err);
}

int adi_books_end(struct books *b, const struct ad_run_end *e, struct df_out *out, bool *ret_done,
                  struct df_error *err)
{
        struct adi_run *run = adi_runs_reading(&b->runs, e->run);
        char why[256];
        int rc = 0;

        *ret_done = true;
        if (!run && adi_runs_is_tip(&b->runs, e->run))
                return 0;
        why_not(b, run, e, why, sizeof(why));
        *ret_done = adi_books_room(b, out);
        if (*ret_done && run && !*why && run->begin.whole && !adi_run_stale(&b->runs, run))
                rc = zero_the_rest(b, run, out, ret_done, err);
        if (rc < 0 || !*ret_done)
                return rc;
        rc = say_applied(b, run, e, why, out, err);
        return rc == 0 && run ? adi_runs_end(&b->runs, run, !*why, err) : rc;
}
