/* test_books.c - the books against a naive model (books_test.h): runs that overlap, repeat, come
 * too late, lack targets or die, chains that begin anew, closes and what comes after them. However
 * the log is cut and wherever a task is taken over, the entries are those of the model; and sums
 * over all periods are a naive recount of the events. */
#include "unit.h"

#include "tests/unit/books_world.h"

#define WRITERS 3

/* ---- a history ---- */

struct writer { /* of a run, record by record */
        struct run *run;
        size_t at;
        size_t lost; /* this batch is not written; SIZE_MAX: none */
        size_t dies; /* before this target */
};

static void write_some(struct writer *w)
{
        size_t to = w->at + BATCH_TARGETS < w->run->count ? w->at + BATCH_TARGETS : w->run->count;

        if (w->at >= w->dies) {
                w->run = NULL;
        } else if (w->at == w->run->count) {
                log_end(w->run);
                w->run = NULL;
        } else {
                if (w->at != w->lost)
                        log_targets(w->run, w->at, to);
                w->at = to;
        }
}

static struct run *next_run(void)
{
        static int chains;
        char chain[8];

        if (!model.tip || dice(6) == 0) {
                (void)snprintf(chain, sizeof(chain), "k%d", ++chains % 5);
                return new_run(chain, true, dice(3) ? model.tip : NULL);
        }
        if (all_run_count > 1 && dice(3) == 0) { /* once more, maybe stale, maybe at once */
                struct run *r = all_runs[all_run_count - 1 - dice(dice(2) ? all_run_count : 2)];

                r->at_ms += (int64_t)dice(2);
                return r;
        }
        return new_run(model.tip->chain, dice(5) == 0, model.tip);
}

static void start_writer(struct writer *w)
{
        *w = (struct writer){.run = next_run(), .lost = SIZE_MAX, .dies = SIZE_MAX};
        if (w->run->count > 0 && dice(8) == 0)
                w->lost = dice(w->run->count) / BATCH_TARGETS * BATCH_TARGETS;
        if (w->run->count > 0 && dice(8) == 0)
                w->dies = dice(w->run->count);
        log_begin(w->run);
}

static void some_close(int *asked)
{
        struct closing c = {.tenant = {'t', (char)('0' + dice(2))}};
        struct account *a;

        if (c.tenant[1] == '1' ? dice(20) > 0 : dice(20) == 0)
                (void)snprintf(c.advertiser, sizeof(c.advertiser), "a%d", (int)dice(2));
        (void)snprintf(c.run, sizeof(c.run), "%s",
                       model.tip && dice(10) ? model.tip->id : "another");
        (void)snprintf(c.asked_by, sizeof(c.asked_by), "ask%d",
                       *asked > 0 && dice(8) == 0 ? *asked : ++*asked);
        a = model_account(&model, c.tenant, c.advertiser);
        (void)snprintf(c.period.name, sizeof(c.period.name), "%s", a ? a->open : "2026-11");
        c.period.from = a ? a->periods[a->count - 1].to : 3 + dice(8);
        if (a && dice(8) == 0)
                c.period.from++;
        if (a && dice(8) == 0) {
                size_t i = dice(a->count);

                c.period = a->periods[i];
                if (dice(2))
                        memcpy(c.asked_by, a->periods[i].asked_by, sizeof(c.asked_by));
        }
        c.period.to = c.period.from + 1 + dice(9);
        log_close(&c, dice(8) > 0);
}

static void log_poison(void)
{
        uint8_t bytes[5];

        for (size_t i = 0; i < sizeof(bytes); i++)
                bytes[i] = (uint8_t)(0xf8 | dice(8)); /* no field begins so */
        rig_log_raw(rig, df_bytes(bytes, dice(2) ? sizeof(bytes) : 0), RIG_T0);
}

static void write_history(void)
{
        struct writer writers[WRITERS] = {0};
        int asked = 0;

        make_events();
        for (int step = 0; step < 220; step++) {
                struct writer *w = &writers[dice(WRITERS)];

                if (w->run)
                        write_some(w);
                else
                        start_writer(w);
                if (dice(12) == 0)
                        some_close(&asked);
                if (dice(40) == 0)
                        log_poison();
        }
}

/* The last word: a whole run over every event. */
static struct run *last_run(void)
{
        struct run *r = new_run("k9", true, NULL);

        for (int s = 0; s < SOURCES; s++)
                r->to[s] = ends[s];
        r->corrections = r->price = 0;
        for (size_t i = 0; i < all_run_count; i++) {
                if (all_runs[i]->corrections > r->corrections)
                        r->corrections = all_runs[i]->corrections;
                if (all_runs[i]->price > r->price)
                        r->price = all_runs[i]->price;
        }
        free(r->targets);
        r->count = 0;
        fill_targets(r, NULL);
        log_whole_run(r);
        return r;
}

/* The same log again, cut after every `every` records: the same entries and the same state. */
static void run_cut(struct rig *from, size_t every, bool restart, const struct df_buf *state,
                    const char *how)
{
        struct df_buf now = {0};
        struct rig r;

        open_books(&r);
        for (size_t i = 0; i < from->record_count; i++)
                rig_log_raw(&r, from->records[i].value, RIG_T0);
        while (df_task_position(r.task) < r.record_count) {
                size_t at = (size_t)df_task_position(r.task), used = 0;
                size_t n = r.record_count - at < every ? r.record_count - at : every;

                ok(df_task_process(r.task, r.records + at, n, &used, &err));
                if (restart && dice(4) == 0)
                        rig_restart(&r); /* what came since the last cut comes again */
                else
                        cut_all(&r);
        }
        cut_all(&r);
        read_emitted(&r);
        check_lines(&model.lines, how);
        dump(&r, &now);
        if (!df_bytes_eq(df_buf_bytes(&now), df_buf_bytes(state)))
                fail_msg("seed %" PRIu64 ", %s: another state", dice_seed, how);
        df_buf_release(&now);
        close_books(&r);
}

static void one_history(size_t *adjusted)
{
        struct df_buf state = {0};
        struct run *last;
        struct rig r;

        open_books(&r);
        write_history();
        last = last_run();
        rig_run(&r, 64);
        cut_all(&r);
        read_emitted(&r);
        check_lines(&model.lines, "in one go");
        check_sums(last);
        *adjusted += seen.adjusted;
        dump(&r, &state);
        run_cut(&r, 1, false, &state, "cut after each record");
        run_cut(&r, 1 + dice(20), true, &state, "cut and taken over");
        df_buf_release(&state);
        close_books(&r);
}

static void any_history_is_the_models(void **state)
{
        static const char *const all[] = {"chain_over",      "chain_gap",     "targets_missing",
                                          "run_unknown",     "period_closed", "account_mixed",
                                          "period_not_next", "run_not_last",  "totals_differ",
                                          "closed 2026-12"};
        size_t adjusted = 0, met[sizeof(all) / sizeof(all[0])] = {0};

        (void)state;
        roll_seed();
        for (int i = 0; i < 16; i++) {
                one_history(&adjusted);
                df_put_u8(&model.lines, 0);
                for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++)
                        met[k] += count_of(&model.lines, all[k]);
                forget_history();
        }
        assert_true(adjusted > 100);
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++)
                if (met[k] == 0)
                        fail_msg("seed %" PRIu64 ": no history met %s", dice_seed, all[k]);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(any_history_is_the_models),
        };
        int rc = cmocka_run_group_tests(tests, NULL, NULL);

        df_buf_release(&seen.lines);
        return rc;
}
