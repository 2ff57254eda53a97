/* books_test.h - for test_books.c: a world of events, and a naive model of the books. The model
 * keeps every run and every row for ever, in arrays, and says in lines of text what must be posted;
 * what the operator emitted is written in the same way.
 *
 * A target is the recount of all events before the run's vector, so runs of one chain agree.
 */
#ifndef ADTALLY_TESTS_BOOKS_TEST_H
#define ADTALLY_TESTS_BOOKS_TEST_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "proto/books.h"

#define SOURCES 3
#define EVENTS 500
#define RUNS_MAX 400
#define CELLS_MAX 4000
#define BATCH_TARGETS 5
#define ACCOUNTS_MAX 16
#define PERIODS_MAX 64
#define READING_MAX 16 /* as docs and the operator say */

struct cell_id {
        char tenant[8], advertiser[8], campaign[8], publisher[8], currency[4];
        uint64_t quarter;
};
struct event {
        struct cell_id cell;
        int source;
        uint64_t offset;
        uint32_t cause; /* NONE, LATE: billed alone, DUPLICATE: realtime alone */
        uint64_t clicks;
        int64_t spend, payout;
        uint64_t void_by; /* from this correction on it is not billed; 0 = none */
};

struct amount { /* by cause */
        struct ad_cell billed[AD_CAUSE_COUNT], realtime[AD_CAUSE_COUNT];
};
struct named {
        struct cell_id cell;
        struct amount amount;
};

struct run {
        char id[AD_RUN_ID_MAX + 1], chain[8];
        bool whole;
        uint64_t to[SOURCES]; /* 0: not in the vector */
        uint64_t corrections;
        uint32_t price;
        int64_t at_ms;
        struct named *targets;
        size_t count, stated; /* stated: what the end says */
        /* as the model reads it */
        bool reading;
        uint64_t begun, attempt;
        char refusal[16];
        uint64_t read, posted, adjusted, superseded;
};

struct row {
        struct cell_id cell;
        struct amount amount;
        struct run *run;
        uint64_t attempt; /* of the run */
};
struct period {
        char name[8], asked_by[16];
        uint64_t from, to;
};
struct account {
        char tenant[8], advertiser[8];
        struct period periods[PERIODS_MAX];
        size_t count;
        char open[8];
};

struct model {
        struct row rows[CELLS_MAX];
        size_t row_count;
        struct account accounts[ACCOUNTS_MAX];
        size_t account_count;
        struct run *runs[RUNS_MAX]; /* that ever began */
        size_t run_count;
        struct run *tip;
        char chain[8], gap[AD_RUN_ID_MAX + 1];
        uint64_t seq, moments;
        struct df_buf lines;
};

/* ---- small things ---- */

static inline int compare_cells(const void *x, const void *y)
{
        const struct cell_id *a = x, *b = y;
        int c = strcmp(a->tenant, b->tenant);

        c = c ? c : strcmp(a->advertiser, b->advertiser);
        c = c ? c : (a->quarter > b->quarter) - (a->quarter < b->quarter);
        c = c ? c : strcmp(a->campaign, b->campaign);
        c = c ? c : strcmp(a->publisher, b->publisher);
        return c ? c : strcmp(a->currency, b->currency);
}

static inline bool is_zero(const struct amount *a)
{
        static const struct amount zero;

        return memcmp(a, &zero, sizeof(zero)) == 0;
}

static inline bool run_behind(const struct run *a, const struct run *b)
{
        for (int s = 0; s < SOURCES; s++)
                if (a->to[s] < b->to[s])
                        return true;
        return a->corrections < b->corrections || a->price < b->price;
}

/* ---- lines ---- */

static inline void put_cell_line(struct df_buf *b, const char *side, uint32_t cause,
                                 const struct ad_cell *c)
{
        char spend[DF_INT128_TEXT_MAX], payout[DF_INT128_TEXT_MAX];

        if (ad_cell_is_zero(c))
                return;
        (void)df_int128_text(c->spend, spend);
        (void)df_int128_text(c->payout, payout);
        df_buf_printf(b, " %s%u=%lld/%s/%s", side, cause, (long long)c->clicks, spend, payout);
}

static inline void put_posting_line(struct df_buf *b, uint64_t seq, const char *run, int64_t at_ms,
                                    const struct cell_id *c, const struct amount *a,
                                    const char *closed, const char *posted,
                                    const struct amount *delta)
{
        df_buf_printf(b, "posting %llu %s %lld %s/%s/%llu/%s/%s/%s [%s] [%s]",
                      (unsigned long long)seq, run, (long long)at_ms, c->tenant, c->advertiser,
                      (unsigned long long)c->quarter, c->campaign, c->publisher, c->currency,
                      closed, posted);
        for (uint32_t i = 0; i < AD_CAUSE_COUNT; i++) {
                put_cell_line(b, "b", i, &a->billed[i]);
                put_cell_line(b, "r", i, &a->realtime[i]);
        }
        for (uint32_t i = 0; delta && i < AD_CAUSE_COUNT; i++)
                put_cell_line(b, "d", i, &delta->billed[i]);
        df_buf_printf(b, "\n");
}

/* why: its code alone. */
static inline void put_applied_line(struct df_buf *b, const char *run, uint64_t posted,
                                    uint64_t adjusted, uint64_t superseded, const char *why)
{
        df_buf_printf(b, "applied %s %llu %llu %llu %.*s\n", run, (unsigned long long)posted,
                      (unsigned long long)adjusted, (unsigned long long)superseded,
                      (int)strcspn(why, ":"), why);
}

static inline void put_closed_line(struct df_buf *b, const char *period, const char *asked_by,
                                   const char *why, uint64_t seq, const char *open)
{
        df_buf_printf(b, "closed %s %s %.*s %llu %s\n", period, asked_by, (int)strcspn(why, ":"),
                      why, (unsigned long long)seq, open);
}

/* ---- accounts ---- */

static inline struct account *model_account(struct model *m, const char *tenant,
                                            const char *advertiser)
{
        for (size_t i = 0; i < m->account_count; i++)
                if (strcmp(m->accounts[i].tenant, tenant) == 0 &&
                    strcmp(m->accounts[i].advertiser, advertiser) == 0)
                        return &m->accounts[i];
        return NULL;
}

static inline struct account *model_account_of(struct model *m, const struct cell_id *c)
{
        struct account *a = model_account(m, c->tenant, "");

        return a ? a : model_account(m, c->tenant, c->advertiser);
}

static inline void next_month(const char *name, char ret[8])
{
        unsigned year = (unsigned)strtoul(name, NULL, 10);
        unsigned month = (unsigned)strtoul(name + 5, NULL, 10) + 1;

        if (month == 13) {
                year++;
                month = 1;
        }
        (void)snprintf(ret, 8, "%04u-%02u", year % 10000, month % 100);
}

/* ---- what the model does with each record ---- */

static inline struct row *model_row(struct model *m, const struct cell_id *cell)
{
        for (size_t i = 0; i < m->row_count; i++)
                if (compare_cells(&m->rows[i].cell, cell) == 0)
                        return &m->rows[i];
        return NULL;
}

static inline struct amount difference(const struct amount *from, const struct amount *to)
{
        struct amount d = {0};

        for (int i = 0; i < AD_CAUSE_COUNT; i++) {
                d.billed[i].clicks = to->billed[i].clicks - from->billed[i].clicks;
                d.billed[i].spend = to->billed[i].spend - from->billed[i].spend;
                d.billed[i].payout = to->billed[i].payout - from->billed[i].payout;
        }
        return d;
}

static inline void model_set(struct model *m, struct run *run, struct row *row,
                             const struct amount *to)
{
        struct account *a = model_account_of(m, &row->cell);
        const char *closed = "", *posted = "";
        struct amount d = {0};

        row->run = run;
        row->attempt = run->attempt;
        if (memcmp(&row->amount, to, sizeof(*to)) == 0)
                return;
        if (a && row->cell.quarter < a->periods[a->count - 1].to) {
                d = difference(&row->amount, to);
                run->adjusted++;
                for (size_t i = 0; i < a->count; i++)
                        if (row->cell.quarter >= a->periods[i].from &&
                            row->cell.quarter < a->periods[i].to)
                                closed = a->periods[i].name;
                if (!is_zero(&d))
                        posted = a->open;
        }
        row->amount = *to;
        run->posted++;
        put_posting_line(&m->lines, ++m->seq, run->id, run->at_ms, &row->cell, to, closed, posted,
                         &d);
}

static inline void refuse(struct run *run, const char *why)
{
        (void)snprintf(run->refusal, sizeof(run->refusal), "%s", why);
}

static inline void model_begin(struct model *m, struct run *run)
{
        struct run *oldest = NULL;
        size_t reading = 0;
        bool known = false;

        for (size_t i = 0; i < m->run_count; i++) {
                struct run *other = m->runs[i];

                known |= other == run;
                if (other != run && other->reading && strcmp(other->id, run->id) == 0)
                        other->reading = false;
                if (other == run || !other->reading)
                        continue;
                reading++;
                if (!oldest || other->begun < oldest->begun)
                        oldest = other;
        }
        if (reading == READING_MAX)
                oldest->reading = false;
        if (!known) {
                assert_true(m->run_count < RUNS_MAX);
                m->runs[m->run_count++] = run;
        }
        if (!run->reading) {
                run->attempt++;
                run->read = run->posted = run->adjusted = run->superseded = 0;
        }
        run->reading = true;
        run->begun = ++m->moments;
        run->refusal[0] = '\0';
        if (m->tip && run_behind(run, m->tip))
                return;
        if (run->whole) {
                memcpy(m->chain, run->chain, sizeof(m->chain));
                memcpy(m->gap, run->id, sizeof(m->gap));
                for (size_t i = 0; i < m->run_count; i++)
                        if (m->runs[i]->reading && strcmp(m->runs[i]->chain, run->chain) != 0)
                                refuse(m->runs[i], "chain_over");
        } else if (strcmp(m->chain, run->chain) != 0) {
                refuse(run, "chain_over");
        } else if (m->gap[0] && strcmp(m->gap, run->id) != 0) {
                refuse(run, "chain_gap");
        }
}

static inline void model_target(struct model *m, struct run *run, const struct named *t)
{
        struct row *row = model_row(m, &t->cell);

        if (!run->reading)
                return; /* poison */
        if (run->refusal[0] || (m->tip && run_behind(run, m->tip))) {
                run->read++;
                run->superseded++;
                return;
        }
        run->read += !row || row->run != run || row->attempt != run->attempt;
        if (row && run_behind(run, row->run)) {
                run->superseded++;
                return;
        }
        if (!row) {
                assert_true(m->row_count < CELLS_MAX);
                row = &m->rows[m->row_count++];
                *row = (struct row){.cell = t->cell};
        }
        model_set(m, run, row, &t->amount);
}

static inline void model_end(struct model *m, struct run *run)
{
        static const struct amount zero;
        bool stale = m->tip && run_behind(run, m->tip);

        if (!run->reading && m->tip && strcmp(m->tip->id, run->id) == 0)
                return; /* it is applied */
        if (!run->reading) {
                put_applied_line(&m->lines, run->id, 0, 0, 0, "run_unknown");
                return;
        }
        run->reading = false;
        if (!run->refusal[0] && run->read < run->stated) {
                if (!stale)
                        memcpy(m->gap, run->id, sizeof(m->gap));
                put_applied_line(&m->lines, run->id, run->posted, run->adjusted, run->superseded,
                                 "targets_missing");
                return;
        }
        if (!run->refusal[0] && !stale) {
                qsort(m->rows, m->row_count, sizeof(m->rows[0]), compare_cells);
                for (size_t i = 0; run->whole && i < m->row_count; i++) {
                        struct row *row = &m->rows[i];

                        if ((row->run != run || row->attempt != run->attempt) &&
                            !is_zero(&row->amount) && !run_behind(run, row->run) &&
                            (strcmp(row->run->chain, run->chain) != 0 || run_behind(row->run, run)))
                                model_set(m, run, row, &zero);
                }
                m->tip = run;
                if (run->whole || strcmp(m->gap, run->id) == 0)
                        m->gap[0] = '\0';
        }
        put_applied_line(&m->lines, run->id, run->posted, run->adjusted, run->superseded,
                         run->refusal);
}

struct closing {
        char tenant[8], advertiser[8], asked_by[16], run[AD_RUN_ID_MAX + 1];
        struct period period;
};

static inline bool in_account(const struct closing *c, const struct cell_id *cell)
{
        return strcmp(cell->tenant, c->tenant) == 0 &&
               (!c->advertiser[0] || strcmp(cell->advertiser, c->advertiser) == 0);
}

/* Rows and totals of the period as the model holds them. */
static inline void model_totals(struct model *m, const struct closing *c, uint64_t *ret_rows,
                                struct ad_cell ret[2])
{
        *ret_rows = 0;
        memset(ret, 0, 2 * sizeof(*ret));
        for (size_t i = 0; i < m->row_count; i++) {
                const struct row *row = &m->rows[i];
                struct ad_cell *sum = &ret[strcmp(row->cell.currency, "USD") == 0];

                if (!in_account(c, &row->cell) || row->cell.quarter < c->period.from ||
                    row->cell.quarter >= c->period.to || is_zero(&row->amount))
                        continue;
                (*ret_rows)++;
                for (int k = 0; k < AD_CAUSE_COUNT; k++) {
                        sum->clicks += row->amount.billed[k].clicks;
                        sum->spend += row->amount.billed[k].spend;
                        sum->payout += row->amount.billed[k].payout;
                }
        }
}

static inline const char *why_not(struct model *m, const struct closing *c, bool totals_right)
{
        struct account *a = model_account(m, c->tenant, c->advertiser);

        for (size_t i = 0; a && i < a->count; i++)
                if (strcmp(a->periods[i].name, c->period.name) == 0)
                        return strcmp(a->periods[i].asked_by, c->asked_by) == 0 ? "again"
                                                                                : "period_closed";
        for (size_t i = 0; i < m->account_count; i++)
                if (strcmp(m->accounts[i].tenant, c->tenant) == 0 &&
                    !m->accounts[i].advertiser[0] != !c->advertiser[0])
                        return "account_mixed";
        if (a &&
            (strcmp(a->open, c->period.name) != 0 || a->periods[a->count - 1].to != c->period.from))
                return "period_not_next";
        if (!m->tip || strcmp(m->tip->id, c->run) != 0)
                return "run_not_last";
        return totals_right ? "" : "totals_differ";
}

static inline void model_close(struct model *m, const struct closing *c, bool totals_right,
                               int64_t at_ms)
{
        const char *why = why_not(m, c, totals_right);
        struct account *a = model_account(m, c->tenant, c->advertiser);
        static const struct amount zero;

        if (strcmp(why, "again") == 0)
                return;
        if (*why) {
                put_closed_line(&m->lines, c->period.name, c->asked_by, why, m->seq,
                                a ? a->open : "");
                return;
        }
        qsort(m->rows, m->row_count, sizeof(m->rows[0]), compare_cells);
        for (size_t i = 0; !a && i < m->row_count; i++) {
                struct amount d = difference(&zero, &m->rows[i].amount);

                if (in_account(c, &m->rows[i].cell) && m->rows[i].cell.quarter < c->period.from &&
                    !is_zero(&d))
                        put_posting_line(&m->lines, ++m->seq, c->run, at_ms, &m->rows[i].cell,
                                         &m->rows[i].amount, "", c->period.name, &d);
        }
        if (!a) {
                assert_true(m->account_count < ACCOUNTS_MAX);
                a = &m->accounts[m->account_count++];
                memset(a, 0, sizeof(*a));
                memcpy(a->tenant, c->tenant, sizeof(a->tenant));
                memcpy(a->advertiser, c->advertiser, sizeof(a->advertiser));
        }
        assert_true(a->count < PERIODS_MAX);
        a->periods[a->count] = c->period;
        memcpy(a->periods[a->count++].asked_by, c->asked_by, sizeof(c->asked_by));
        next_month(c->period.name, a->open);
        put_closed_line(&m->lines, c->period.name, c->asked_by, "", m->seq, a->open);
}

#endif
