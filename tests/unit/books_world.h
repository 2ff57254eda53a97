/* books_world.h - for test_books.c and test_books_edges.c: a world of events, runs over it that are
 * written to the log of a rig and to the model, and what the operator emitted, read back. */
#ifndef ADTALLY_TESTS_BOOKS_WORLD_H
#define ADTALLY_TESTS_BOOKS_WORLD_H

#include "tests/unit/books_test.h"
#include "tests/unit/operators_test.h"

#include "dice.h"

/* ---- the world ---- */

static struct event events[EVENTS];
static uint64_t ends[SOURCES];
static struct model model;
static struct run *all_runs[RUNS_MAX];
static size_t all_run_count;

static inline void make_events(void)
{
        memset(ends, 0, sizeof(ends));
        for (size_t i = 0; i < EVENTS; i++) {
                struct event *e = &events[i];

                *e = (struct event){.source = (int)dice(SOURCES),
                                    .cause = dice(4)   ? AD_CAUSE_NONE
                                             : dice(2) ? AD_CAUSE_LATE
                                                       : AD_CAUSE_DUPLICATE,
                                    .clicks = 1,
                                    .spend = 1 + (int64_t)dice(1000000000000),
                                    .payout = (int64_t)dice(3)};
                e->offset = ends[e->source]++;
                e->void_by = dice(8) ? 0 : 1 + dice(6);
                e->cell.quarter = dice(40);
                (void)snprintf(e->cell.tenant, sizeof(e->cell.tenant), "t%d", (int)dice(2));
                (void)snprintf(e->cell.advertiser, sizeof(e->cell.advertiser), "a%d", (int)dice(2));
                (void)snprintf(e->cell.campaign, sizeof(e->cell.campaign), "c%d", (int)dice(2));
                (void)snprintf(e->cell.publisher, sizeof(e->cell.publisher), "p");
                (void)snprintf(e->cell.currency, sizeof(e->cell.currency), "%s",
                               dice(3) ? "EUR" : "USD");
        }
}

static inline void add_event(struct amount *a, const struct event *e, const struct run *r)
{
        struct ad_cell v = {.clicks = e->clicks,
                            .spend = (df_nanos)e->spend *
                                     (1 + (r->chain[1] - '0') + (df_nanos)r->price),
                            .payout = e->payout};
        uint32_t cause = e->cause;
        bool billed = cause != AD_CAUSE_DUPLICATE, realtime = cause != AD_CAUSE_LATE;

        if (e->void_by && e->void_by <= r->corrections) {
                cause = AD_CAUSE_CONFLICT;
                billed = false;
        }
        if (billed)
                assert_true(ad_cell_add(&a->billed[cause], &v));
        if (realtime)
                assert_true(ad_cell_add(&a->realtime[cause], &v));
}

/* What the run says of the cell: the recount of every event before its vector. */
static inline struct amount truth(const struct run *r, const struct cell_id *cell)
{
        struct amount a;

        memset(&a, 0, sizeof(a));
        for (size_t i = 0; i < EVENTS; i++)
                if (events[i].offset < r->to[events[i].source] &&
                    compare_cells(&events[i].cell, cell) == 0)
                        add_event(&a, &events[i], r);
        return a;
}

/* The run's targets: of a whole one every cell, otherwise those that differ from base. */
static inline void fill_targets(struct run *r, const struct run *base)
{
        r->targets = calloc(EVENTS, sizeof(*r->targets));
        assert_non_null(r->targets);
        for (size_t i = 0; i < EVENTS; i++) {
                struct amount now, before;
                bool again = false;

                for (size_t j = 0; j < i && !again; j++)
                        again = compare_cells(&events[j].cell, &events[i].cell) == 0;
                if (again)
                        continue;
                now = truth(r, &events[i].cell);
                memset(&before, 0, sizeof(before));
                if (!r->whole)
                        before = truth(base, &events[i].cell);
                if (memcmp(&now, &before, sizeof(now)) != 0)
                        r->targets[r->count++] = (struct named){events[i].cell, now};
        }
        r->stated = r->count;
}

static inline struct run *new_run(const char *chain, bool whole, const struct run *base)
{
        struct run *r = calloc(1, sizeof(*r));

        assert_true(r && all_run_count < RUNS_MAX);
        all_runs[all_run_count++] = r;
        (void)snprintf(r->id, sizeof(r->id), "run%zu", all_run_count);
        (void)snprintf(r->chain, sizeof(r->chain), "%s", chain);
        r->whole = whole;
        r->at_ms = RIG_T0 + (int64_t)all_run_count;
        for (int s = 0; s < SOURCES; s++) {
                r->to[s] = (base ? base->to[s] : 0) + dice(ends[s] / 8 + 1);
                if (r->to[s] > ends[s])
                        r->to[s] = ends[s];
        }
        r->corrections = (base ? base->corrections : 0) + (dice(4) == 0);
        r->price = (base ? base->price : 0) + (dice(8) == 0);
        fill_targets(r, base);
        return r;
}

/* ---- records, to the log and to the model ---- */

static struct rig *rig;

static inline void log_record(const struct df_buf *b)
{
        assert_false(b->failed);
        rig_log_raw(rig, df_buf_bytes(b), RIG_T0);
}

static inline void log_begin(struct run *r)
{
        static const char *const streams[SOURCES] = {"zz", "events", "import.x"}; /* unsorted */
        struct ad_vector_part parts[SOURCES];
        struct ad_run_record record = {.kind = AD_RUN_BEGIN};
        struct df_buf b = {0};

        record.begin = (struct ad_run_begin){.run = df_bytes_str(r->id),
                                             .chain = df_bytes_str(r->chain),
                                             .whole = r->whole,
                                             .vector = parts,
                                             .corrections_to = r->corrections,
                                             .price_version = r->price,
                                             .at_ms = r->at_ms};
        for (int s = 0; s < SOURCES; s++)
                if (r->to[s] > 0)
                        parts[record.begin.vector_count++] =
                                (struct ad_vector_part){df_bytes_str(streams[s]), 7, 1, r->to[s]};
        ad_wire_run_record(&b, &record);
        log_record(&b);
        df_buf_release(&b);
        model_begin(&model, r);
}

static inline void put_target(struct df_buf *b, const struct named *t)
{
        struct ad_cause_cell causes[AD_CAUSE_COUNT];
        struct ad_target target = {.quarter = t->cell.quarter,
                                   .tenant_id = df_bytes_str(t->cell.tenant),
                                   .advertiser_id = df_bytes_str(t->cell.advertiser),
                                   .campaign_id = df_bytes_str(t->cell.campaign),
                                   .publisher_id = df_bytes_str(t->cell.publisher),
                                   .currency = df_bytes_str(t->cell.currency),
                                   .causes = causes};

        for (uint32_t i = 0; i < AD_CAUSE_COUNT; i++) {
                causes[target.cause_count] =
                        (struct ad_cause_cell){i, t->amount.billed[i], t->amount.realtime[i]};
                if (dice(3) == 0 || !ad_cell_is_zero(&t->amount.billed[i]) ||
                    !ad_cell_is_zero(&t->amount.realtime[i]))
                        target.cause_count++; /* now and then one that is zero */
        }
        ad_wire_target(b, &target);
}

/* [from, to) of the run's targets, in one record. */
static inline void log_targets(struct run *r, size_t from, size_t to)
{
        struct df_buf b = {0};
        size_t m = ad_wire_targets_begin(&b, df_bytes_str(r->id));

        for (size_t i = from; i < to; i++)
                put_target(&b, &r->targets[i]);
        ad_wire_targets_end(&b, m);
        log_record(&b);
        df_buf_release(&b);
        for (size_t i = from; i < to; i++)
                model_target(&model, r, &r->targets[i]);
}

static inline void log_end(struct run *r)
{
        struct ad_run_record record = {.kind = AD_RUN_END};
        struct df_buf b = {0};

        record.end = (struct ad_run_end){.run = df_bytes_str(r->id), .targets = r->stated};
        ad_wire_run_record(&b, &record);
        log_record(&b);
        df_buf_release(&b);
        model_end(&model, r);
}

static inline void log_whole_run(struct run *r)
{
        log_begin(r);
        for (size_t i = 0; i < r->count; i += BATCH_TARGETS)
                log_targets(r, i, i + BATCH_TARGETS < r->count ? i + BATCH_TARGETS : r->count);
        log_end(r);
}

static inline void log_close(const struct closing *c, bool right)
{
        struct ad_run_record record = {.kind = AD_RUN_CLOSE};
        struct ad_currency_cell totals[2] = {{.currency = df_bytes_str("EUR")},
                                             {.currency = df_bytes_str("USD")}};
        struct ad_period_close *p = &record.close;
        struct df_buf b = {0};
        struct ad_cell sums[2];

        *p = (struct ad_period_close){
                .run = df_bytes_str(c->run),
                .asked_by = df_bytes_str(c->asked_by),
                .account = {df_bytes_str(c->tenant), df_bytes_str(c->advertiser)},
                .period = df_bytes_str(c->period.name),
                .from_quarter = c->period.from,
                .to_quarter = c->period.to,
                .totals = totals,
                .total_count = 2,
                .manifest = df_bytes_str("{}"),
                .at_ms = RIG_T0};
        model_totals(&model, c, &p->rows, sums);
        totals[0].billed = sums[0];
        totals[1].billed = sums[1];
        if (!right && dice(2))
                p->rows++;
        else if (!right)
                totals[dice(2)].billed.spend++;
        if (right && ad_cell_is_zero(&sums[1]))
                p->total_count = 1;
        ad_wire_run_record(&b, &record);
        log_record(&b);
        df_buf_release(&b);
        model_close(&model, c, right, RIG_T0);
}

static inline void forget_history(void)
{
        df_buf_release(&model.lines);
        for (size_t i = 0; i < all_run_count; i++) {
                free(all_runs[i]->targets);
                free(all_runs[i]);
        }
        all_run_count = 0;
        memset(&model, 0, sizeof(model));
}

/* ---- what was emitted, as lines and as sums ---- */

struct seen {
        struct df_buf lines;
        struct row rows[CELLS_MAX]; /* as a reader keeps them: closed cells stay as they were */
        struct ad_cell last[CELLS_MAX];
        size_t row_count;
        struct ad_cell adjustments[4][2]; /* by tenant and advertiser, currency */
        size_t adjusted;                  /* postings that moved money */
};
static struct seen seen;

static inline void copy_text(char *to, size_t size, struct df_bytes b)
{
        assert_true(b.len < size);
        if (b.len > 0)
                memcpy(to, b.data, b.len);
        to[b.len] = '\0';
}
#define COPY(to, b) copy_text(to, sizeof(to), b)

static inline int account_index(const struct cell_id *c)
{
        return 2 * (c->tenant[1] - '0') + (c->advertiser[1] - '0');
}

static inline void take_posting(const struct ad_posting *p)
{
        struct ad_cell billed, realtime;
        struct amount a = {0}, delta = {0};
        char run[17], closed[8], posted[8];
        struct cell_id cell = {.quarter = p->target.quarter};
        size_t i = 0;

        COPY(cell.tenant, p->target.tenant_id);
        COPY(cell.advertiser, p->target.advertiser_id);
        COPY(cell.campaign, p->target.campaign_id);
        COPY(cell.publisher, p->target.publisher_id);
        COPY(cell.currency, p->target.currency);
        COPY(run, p->run);
        COPY(closed, p->closed_period);
        COPY(posted, p->posted_period);
        for (size_t k = 0; k < p->target.cause_count; k++) {
                a.billed[p->target.causes[k].cause] = p->target.causes[k].billed;
                a.realtime[p->target.causes[k].cause] = p->target.causes[k].realtime;
        }
        for (size_t k = 0; k < p->delta_count; k++)
                delta.billed[p->delta[k].cause] = p->delta[k].billed;
        put_posting_line(&seen.lines, p->seq, run, p->at_ms, &cell, &a, closed, posted, &delta);

        while (i < seen.row_count && compare_cells(&seen.rows[i].cell, &cell) != 0)
                i++;
        assert_true(i < CELLS_MAX);
        if (i == seen.row_count) {
                seen.rows[seen.row_count++] = (struct row){.cell = cell};
                seen.last[i] = (struct ad_cell){0};
        }
        assert_true(ad_target_sums(&p->target, &billed, &realtime));
        seen.last[i] = billed;
        if (!closed[0] && !posted[0])
                seen.rows[i].amount = a;
        if (!posted[0])
                return;
        seen.adjusted++;
        for (size_t k = 0; k < p->delta_count; k++)
                assert_true(ad_cell_add_signed(
                        &seen.adjustments[account_index(&cell)][strcmp(cell.currency, "USD") == 0],
                        &p->delta[k].billed));
        /* What lay before the first period moved into it. */
        if (!closed[0])
                memset(&seen.rows[i].amount, 0, sizeof(seen.rows[i].amount));
}

static inline int take_entry(void *arg, const struct ad_books_entry *e, struct df_error *err_)
{
        char a[300], b[300], c[300], d[300];

        (void)arg;
        (void)err_;
        if (e->kind == AD_BOOKS_POSTING)
                take_posting(&e->posting);
        if (e->kind == AD_BOOKS_APPLIED) {
                COPY(a, e->applied.begin.run);
                COPY(b, e->applied.why);
                put_applied_line(&seen.lines, a, e->applied.posted, e->applied.adjusted,
                                 e->applied.superseded, b);
        }
        if (e->kind == AD_BOOKS_CLOSED) {
                COPY(a, e->closed.close.period);
                COPY(b, e->closed.close.asked_by);
                COPY(c, e->closed.why);
                COPY(d, e->closed.open_period);
                assert_true(e->closed.refused == (c[0] != '\0'));
                assert_true(df_bytes_eq(e->closed.close.manifest, df_bytes_str("{}")));
                put_closed_line(&seen.lines, a, b, c, e->closed.seq, d);
        }
        return 0;
}

static inline void read_emitted(struct rig *r)
{
        struct df_reader reader = df_reader(df_buf_bytes(&r->emitted[AD_OUT_BOOKS]));
        struct df_arena arena;

        df_buf_release(&seen.lines);
        memset(&seen, 0, sizeof(seen));
        df_arena_init(&arena, 0);
        while (df_reader_left(&reader) > 0) {
                ok(ad_wire_books_decode(df_get_bytes(&reader, df_get_u32le(&reader)), &arena,
                                        take_entry, NULL, &err));
                df_arena_reset(&arena);
        }
        df_arena_release(&arena);
}

static inline void check_lines(const struct df_buf *want, const char *how)
{
        const struct df_buf *got = &seen.lines;
        size_t same = 0, line = 0;

        if (df_bytes_eq(df_buf_bytes(got), df_buf_bytes(want)))
                return;
        while (same < got->len && same < want->len && got->data[same] == want->data[same])
                same++;
        line = same;
        while (line > 0 && want->data[line - 1] != '\n')
                line--;
        fail_msg("seed %" PRIu64 ", %s: wanted\n%.300s\ngot\n%.300s", dice_seed, how,
                 (const char *)want->data + line,
                 line < got->len ? (const char *)got->data + line : "nothing more");
}

/* Cells as they stand in their periods, and the adjustments, are the rows as they are now; and
 * after the last run these are a recount of all events. */
static inline void check_sums(const struct run *last)
{
        for (int account = 0; account < 4; account++)
                for (int usd = 0; usd < 2; usd++) {
                        struct ad_cell held = seen.adjustments[account][usd], now = {0}, want = {0};

                        for (size_t i = 0; i < seen.row_count; i++) {
                                const struct row *row = &seen.rows[i];

                                if (account_index(&row->cell) != account ||
                                    (strcmp(row->cell.currency, "USD") == 0) != usd)
                                        continue;
                                assert_true(ad_cell_add_signed(&now, &seen.last[i]));
                                for (int k = 0; k < AD_CAUSE_COUNT; k++)
                                        assert_true(
                                                ad_cell_add_signed(&held, &row->amount.billed[k]));
                        }
                        for (size_t i = 0; i < EVENTS; i++) {
                                struct amount a = {0};

                                if (account_index(&events[i].cell) != account ||
                                    (strcmp(events[i].cell.currency, "USD") == 0) != usd)
                                        continue;
                                add_event(&a, &events[i], last);
                                for (int k = 0; k < AD_CAUSE_COUNT; k++)
                                        assert_true(ad_cell_add_signed(&want, &a.billed[k]));
                        }
                        if (!ad_cell_eq(&held, &now) || !ad_cell_eq(&now, &want))
                                fail_msg("seed %" PRIu64 ": account %d, %s: periods hold %lld, "
                                         "rows are %lld, the events give %lld",
                                         dice_seed, account, usd ? "USD" : "EUR",
                                         (long long)held.spend, (long long)now.spend,
                                         (long long)want.spend);
                }
}

/* ---- running ---- */

static inline void open_books(struct rig *r)
{
        rig_prepare(r, ad_chain_books, ad_chain_books_length);
        r->config.chain_length = ad_chain_books_length; /* nothing flows out of it */
        r->config.control = NULL;
        r->config.outputs[0] = (struct df_output_config){.topic = "billing", .partitions = 1};
        r->config.output_count = AD_OUT_BOOKS_COUNT;
        rig_start(r);
        rig = r;
}

static inline void close_books(struct rig *r)
{
        rig_close(r);
        rig = NULL;
}

static inline int dump_one(void *arg, struct df_bytes key, struct df_bytes value,
                           struct df_error *err_)
{
        (void)err_;
        df_put_lstr(arg, key);
        df_put_lstr(arg, value);
        return 0;
}

/* The operator's state, byte by byte. */
static inline void dump(struct rig *r, struct df_buf *ret)
{
        uint8_t ns = 16;

        df_buf_clear(ret);
        ok(df_store_scan(r->store, df_bytes(&ns, 1), dump_one, ret, &err));
        ok(df_buf_check(ret, &err));
}

static inline void cut_all(struct rig *r)
{
        do {
                rig_cut(r);
        } while (df_task_wants_cut(r->task));
}

static inline size_t count_of(const struct df_buf *lines, const char *part)
{
        size_t n = 0;

        for (const char *at = (const char *)lines->data; at && (at = strstr(at, part)); at++)
                n++;
        return n;
}

#endif
