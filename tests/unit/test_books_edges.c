/* test_books_edges.c - the books where chance does not go: a run twice at once, a chain that is
 * forgotten, limits, and more postings than an outbox holds, taken over in the middle (K6). */
#include "unit.h"

#include "tests/unit/books_world.h"

/* The same whole run by two at once: what the first one names last is not zero for the second. */
static void a_run_twice_at_once(void **state)
{
        struct run *w, *other;
        struct rig r;

        (void)state;
        open_books(&r);
        make_events();
        w = new_run("k1", true, NULL);
        for (int s = 0; s < SOURCES; s++)
                w->to[s] = ends[s];
        free(w->targets);
        w->count = 0;
        fill_targets(w, NULL);
        assert_true(w->count > 20);
        other = calloc(1, sizeof(*other)); /* of the same chain and vector, under another id */
        assert_non_null(other);
        *other = *w;
        (void)snprintf(other->id, sizeof(other->id), "other");
        other->targets = calloc(EVENTS, sizeof(*other->targets));
        assert_non_null(other->targets);
        memcpy(other->targets, w->targets, w->count * sizeof(*w->targets));
        all_runs[all_run_count++] = other;

        log_begin(w);
        log_begin(other);
        log_targets(w, 0, w->count);
        log_targets(other, 0, w->count);
        log_end(w);
        log_end(other);
        log_begin(w); /* once more, and as two under one id */
        log_targets(w, 0, 5);
        log_begin(w);
        log_targets(w, 0, w->count - 1);
        log_targets(w, 5, w->count);
        log_end(w);
        log_targets(w, w->count - 1, w->count);
        log_end(w);
        rig_run(&r, 64);
        cut_all(&r);
        read_emitted(&r);
        check_lines(&model.lines, "twice at once");
        check_sums(w);
        assert_int_equal(model.seq, w->count);
        assert_int_equal(r.poison_records, 0);
        close_books(&r);
        forget_history();
}

/* Rows of a run that is long forgotten are zero in a new chain that does not name them. */
static void a_new_chain_forgets(void **state)
{
        struct run *first, *second, *none;
        struct rig r;

        (void)state;
        open_books(&r);
        make_events();
        first = new_run("k1", true, NULL);
        for (int s = 0; s < SOURCES; s++)
                first->to[s] = ends[s] - 1;
        free(first->targets);
        first->count = 0;
        fill_targets(first, NULL);
        second = new_run("k1", false, first);
        none = new_run("k2", true, second);
        none->count = none->stated = 0;
        log_whole_run(first);
        log_whole_run(second);
        log_whole_run(none);
        rig_run(&r, 64);
        cut_all(&r);
        read_emitted(&r);
        check_lines(&model.lines, "a chain without rows");
        assert_true(none->posted >= first->count - 10);
        close_books(&r);
        forget_history();
}

static void too_many_runs_at_once(void **state)
{
        struct run *runs[READING_MAX + 1];
        struct rig r;

        (void)state;
        open_books(&r);
        make_events();
        for (int i = 0; i <= READING_MAX; i++) {
                runs[i] = new_run("k1", true, NULL);
                log_begin(runs[i]);
        }
        for (int i = 0; i <= READING_MAX; i++) {
                runs[i]->stated = 0;
                log_end(runs[i]);
        }
        rig_run(&r, 64);
        cut_all(&r);
        read_emitted(&r);
        check_lines(&model.lines, "one run too many");
        df_put_u8(&model.lines, 0);
        assert_int_equal(count_of(&model.lines, "run_unknown"), 1);
        close_books(&r);
        forget_history();
}

/* Beyond what a difference can hold: not posted, and the run says that it lacks targets. */
static void an_amount_that_nobody_owes(void **state)
{
        struct rig r;

        (void)state;
        for (int which = 0; which < 4; which++) {
                struct run *w;

                open_books(&r);
                make_events();
                w = new_run("k1", true, NULL);
                w->count = 2;
                w->stated = 2;
                w->targets[0] = (struct named){.cell = events[0].cell};
                w->targets[1] = (struct named){.cell = events[1].cell};
                w->targets[1].cell.quarter = 77;
                if (which % 2 == 0)
                        w->targets[1].amount.billed[1].spend = ((df_nanos)1 << 126) + which / 2;
                else
                        w->targets[1].amount.realtime[1].clicks =
                                (uint64_t)INT64_MAX + (uint64_t)which / 2;
                log_begin(w);
                if (which / 2) { /* the model does not know it */
                        size_t m;
                        struct df_buf b = {0};

                        log_targets(w, 0, 1);
                        m = ad_wire_targets_begin(&b, df_bytes_str(w->id));
                        put_target(&b, &w->targets[1]);
                        ad_wire_targets_end(&b, m);
                        log_record(&b);
                        df_buf_release(&b);
                } else {
                        log_targets(w, 0, 2);
                }
                log_end(w);
                rig_run(&r, 64);
                cut_all(&r);
                read_emitted(&r);
                check_lines(&model.lines, "at the limit");
                df_put_u8(&model.lines, 0);
                assert_int_equal(count_of(&model.lines, "targets_missing"), which / 2);
                close_books(&r);
                forget_history();
        }
}

/* ---- currencies of a close ---- */

static void log_close_of(const struct run *w, size_t currencies)
{
        struct ad_run_record record = {.kind = AD_RUN_CLOSE};
        struct ad_currency_cell totals[AD_CURRENCIES_MAX];
        struct df_buf b = {0};

        record.close = (struct ad_period_close){.run = df_bytes_str(w->id),
                                                .asked_by = df_bytes_str("ann"),
                                                .account = {df_bytes_str("t0"), df_bytes_str("a0")},
                                                .period = df_bytes_str("2026-11"),
                                                .from_quarter = 70,
                                                .to_quarter = 80,
                                                .rows = currencies,
                                                .totals = totals,
                                                .manifest = df_bytes_str("{}"),
                                                .at_ms = RIG_T0};
        for (size_t i = 0; i < currencies && i < AD_CURRENCIES_MAX; i++)
                totals[record.close.total_count++] =
                        (struct ad_currency_cell){df_bytes_str(w->targets[i].cell.currency),
                                                  w->targets[i].amount.billed[AD_CAUSE_NONE]};
        ad_wire_run_record(&b, &record);
        log_record(&b);
        df_buf_release(&b);
}

static int take_closed(void *arg, const struct ad_books_entry *e, struct df_error *err_)
{
        (void)err_;
        if (e->kind == AD_BOOKS_CLOSED)
                copy_text(arg, 300, e->closed.refused ? e->closed.why : df_bytes_str("taken"));
        return 0;
}

/* All that can be stated, and one more, which is refused by the limit's name. */
static void currencies_of_a_close(void **state)
{
        struct rig r;

        (void)state;
        for (size_t over = 0; over < 2; over++) {
                struct run *w;
                struct df_reader reader;
                struct df_arena arena;
                char said[300] = "";

                open_books(&r);
                memset(ends, 0, sizeof(ends));
                w = new_run("k1", true, NULL);
                w->count = w->stated = AD_CURRENCIES_MAX + over;
                for (size_t i = 0; i < w->count; i++) {
                        struct named *t = &w->targets[i];

                        *t = (struct named){.cell = {.tenant = "t0", .advertiser = "a0"}};
                        t->cell.quarter = 70 + i % 10;
                        (void)snprintf(t->cell.currency, sizeof(t->cell.currency), "%03zu",
                                       i % 1000);
                        t->amount.billed[AD_CAUSE_NONE].spend = 1 + (df_nanos)i;
                        t->amount.realtime[AD_CAUSE_NONE].spend = 1 + (df_nanos)i;
                }
                log_whole_run(w);
                log_close_of(w, w->count);
                rig_run(&r, 64);
                cut_all(&r);
                df_arena_init(&arena, 0);
                reader = df_reader(df_buf_bytes(&r.emitted[AD_OUT_BOOKS]));
                while (df_reader_left(&reader) > 0)
                        ok(ad_wire_books_decode(df_get_bytes(&reader, df_get_u32le(&reader)),
                                                &arena, take_closed, said, &err));
                df_arena_release(&arena);
                if (over)
                        assert_non_null(strstr(said, "totals_differ: the period has more than 256 "
                                                     "currencies"));
                else
                        assert_string_equal(said, "taken");
                close_books(&r);
                forget_history();
        }
}

/* ---- more than one outbox holds (K6) ---- */

#define MANY 60000

struct flood {
        size_t postings, others;
        uint64_t seq;
        char last[AD_ID_MAX + 1];
        const char *period;
        df_nanos spend;
};

static int take_flood(void *arg, const struct ad_books_entry *e, struct df_error *err_)
{
        const struct ad_posting *p = &e->posting;
        char campaign[AD_ID_MAX + 1], period[8];
        struct flood *f = arg;

        (void)err_;
        if (e->kind != AD_BOOKS_POSTING) {
                f->others++;
                return 0;
        }
        assert_int_equal(f->others, 0); /* what ends a record comes after its postings */
        assert_true(p->seq == ++f->seq);
        COPY(campaign, p->target.campaign_id);
        COPY(period, p->posted_period);
        assert_true(strcmp(campaign, f->last) > 0); /* by key, each once */
        memcpy(f->last, campaign, sizeof(f->last));
        assert_string_equal(period, f->period);
        for (size_t i = 0; i < p->delta_count; i++)
                f->spend += p->delta[i].billed.spend;
        f->postings++;
        return 0;
}

static struct ad_target big_target(int n, char campaign[AD_ID_MAX + 1],
                                   struct ad_cause_cell causes[AD_CAUSE_COUNT])
{
        static char longest[AD_ID_MAX];

        memset(longest, 'x', sizeof(longest));
        (void)snprintf(campaign, AD_ID_MAX + 1, "%064d", n);
        for (uint32_t i = 0; i < AD_CAUSE_COUNT; i++) {
                uint64_t many = (uint64_t)1 << 62;
                df_nanos sum = (df_nanos)1 << 100;

                causes[i] = (struct ad_cause_cell){
                        .cause = i,
                        .billed = {many, many, many, {many, many, many}, sum, sum, sum}};
        }
        causes[0].realtime = causes[0].billed;
        return (struct ad_target){.quarter = 5,
                                  .tenant_id = df_bytes_str("t0"),
                                  .advertiser_id = df_bytes(longest, sizeof(longest)),
                                  .campaign_id = df_bytes_str(campaign),
                                  .publisher_id = df_bytes(longest, sizeof(longest)),
                                  .currency = df_bytes_str("EUR"),
                                  .causes = causes,
                                  .cause_count = AD_CAUSE_COUNT};
}

static void log_flood(struct run *w)
{
        struct ad_cause_cell causes[AD_CAUSE_COUNT];
        char campaign[AD_ID_MAX + 1];
        struct df_buf b = {0};

        for (int n = 0; n < MANY;) {
                size_t m;

                df_buf_clear(&b);
                m = ad_wire_targets_begin(&b, df_bytes_str(w->id));
                for (int i = 0; i < 500; i++) {
                        struct ad_target t = big_target(n++, campaign, causes);

                        ad_wire_target(&b, &t);
                }
                ad_wire_targets_end(&b, m);
                log_record(&b);
        }
        df_buf_release(&b);
}

/* Everything in the log, taken over after each checkpoint that has more behind it. */
static void drain(struct rig *r, struct flood *f, size_t at_least)
{
        struct df_arena arena;
        struct df_reader reader;
        size_t cuts = 0;

        rig_run(r, SIZE_MAX);
        do {
                rig_cut(r);
                cuts++;
                if (df_task_wants_cut(r->task))
                        rig_restart(r);
        } while (df_task_wants_cut(r->task));
        if (cuts < at_least)
                fail_msg("%zu checkpoints for %zu bytes", cuts, r->emitted[AD_OUT_BOOKS].len);
        df_arena_init(&arena, 0);
        reader = df_reader(df_buf_bytes(&r->emitted[AD_OUT_BOOKS]));
        while (df_reader_left(&reader) > 0) {
                ok(ad_wire_books_decode(df_get_bytes(&reader, df_get_u32le(&reader)), &arena,
                                        take_flood, f, &err));
                df_arena_reset(&arena);
        }
        df_arena_release(&arena);
        df_buf_clear(&r->emitted[AD_OUT_BOOKS]);
}

static void more_than_an_outbox(void **state)
{
        struct closing c = {.tenant = "t0",
                            .asked_by = "ask",
                            .period = {.name = "2026-11", .from = 10, .to = 20}};
        struct flood f = {.period = ""};
        struct run *w, *none;
        df_nanos all;
        struct rig r;

        (void)state;
        open_books(&r);
        memset(ends, 0, sizeof(ends));
        w = new_run("k1", true, NULL);
        w->count = 0;
        w->stated = MANY;
        none = new_run("k2", true, NULL);
        none->count = none->stated = 0;
        none->corrections = w->corrections;
        none->price = w->price;
        log_begin(w);
        log_flood(w);
        log_end(w);
        drain(&r, &f, 1);
        assert_int_equal(f.postings, MANY);
        /* All of it lies before the first period: it is posted in it; one record waits behind. */
        f = (struct flood){.period = "2026-11", .seq = MANY};
        memcpy(c.run, w->id, sizeof(c.run));
        model.tip = w;
        log_close(&c, true);
        log_end(none);
        drain(&r, &f, 2);
        assert_int_equal(f.postings, MANY);
        assert_int_equal(f.others, 2);
        all = f.spend;
        assert_true(all == (df_nanos)MANY * AD_CAUSE_COUNT * ((df_nanos)1 << 100));
        /* A chain without rows takes all of it back, in the next period. */
        f = (struct flood){.period = "2026-12", .seq = 2 * (uint64_t)MANY};
        log_begin(none);
        log_end(none);
        log_end(none);
        drain(&r, &f, 2);
        assert_int_equal(f.postings, MANY);
        assert_true(f.spend == -all);
        close_books(&r);
        forget_history();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(a_run_twice_at_once),
                cmocka_unit_test(a_new_chain_forgets),
                cmocka_unit_test(too_many_runs_at_once),
                cmocka_unit_test(an_amount_that_nobody_owes),
                cmocka_unit_test(currencies_of_a_close),
                cmocka_unit_test(more_than_an_outbox),
        };
        int rc;

        roll_seed();
        rc = cmocka_run_group_tests(tests, NULL, NULL);
        df_buf_release(&seen.lines);
        return rc;
}
