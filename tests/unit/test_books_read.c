/* What the operator `books` posts, read through the view: cells are a recount of the events, what
 * was closed is what its manifest states, and periods and adjustments add up to the bill (R4, R5).
 */
#include "unit.h"

#include "tests/unit/books_world.h"

#include <ftw.h>
#include <unistd.h>

#include "jobs/api/books.h"

#define STEPS 24

static struct ad_billing *books;
static size_t taken;              /* closes */
static uint64_t first_from[2][2]; /* start of the first period, by tenant and advertiser */

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
        return remove(path);
}

/* ---- a history: runs one after the other, closes between them ---- */

static void close_some(int *asked)
{
        struct closing c = {.tenant = {'t', (char)('0' + dice(2))}};
        struct account *a;

        if (c.tenant[1] == '1') /* t0 closes as a whole */
                (void)snprintf(c.advertiser, sizeof(c.advertiser), "a%d", (int)dice(2));
        (void)snprintf(c.run, sizeof(c.run), "%s", model.tip->id);
        (void)snprintf(c.asked_by, sizeof(c.asked_by), "ask%d", ++*asked);
        a = model_account(&model, c.tenant, c.advertiser);
        (void)snprintf(c.period.name, sizeof(c.period.name), "%s", a ? a->open : "2026-11");
        c.period.from = a ? a->periods[a->count - 1].to : 3 + dice(8);
        c.period.to = c.period.from + 1 + dice(12);
        log_close(&c, dice(6) > 0);
}

static struct run *write_runs(void)
{
        struct run *last;
        int asked = 0;

        make_events();
        for (int step = 0; step < STEPS; step++) {
                bool whole = !model.tip || dice(6) == 0;

                log_whole_run(new_run(model.tip ? model.tip->chain : "k1", whole, model.tip));
                if (dice(2))
                        close_some(&asked);
        }
        last = new_run("k2", true, model.tip); /* another chain, over everything */
        memcpy(last->to, ends, sizeof(ends));
        free(last->targets);
        last->count = 0;
        fill_targets(last, NULL);
        log_whole_run(last);
        return last;
}

/* Each record of `billing` a collection of its own, committed now and then. */
static void read_all(struct rig *r)
{
        struct df_reader reader = df_reader(df_buf_bytes(&r->emitted[AD_OUT_BOOKS]));
        struct df_collection c = {.origin = {.source = {.stream = "runs"}}};

        while (df_reader_left(&reader) > 0) {
                struct df_bytes payload = df_get_bytes(&reader, df_get_u32le(&reader));

                c.origin.k++;
                c.payloads = &payload;
                c.count = 1;
                ok(ad_billing_add(books, &c, &err));
                if (dice(3) == 0)
                        ok(ad_billing_commit(books, c.origin.k, &err));
        }
        ok(ad_billing_commit(books, c.origin.k + 1, &err));
}

/* ---- what it must say ---- */

struct held {
        const struct run *last;
        size_t cells;
        struct ad_cell now, usage; /* the bill; and what is in periods, closed or open */
};

static int on_cell(void *arg, const struct ad_billing_cell *c, struct df_error *err_)
{
        struct held *h = arg;
        const struct ad_target *t = &c->posting->target;
        struct cell_id id = {.quarter = t->quarter};
        struct ad_cell billed = {0}, realtime = {0};
        struct amount want;

        COPY(id.tenant, t->tenant_id);
        COPY(id.advertiser, t->advertiser_id);
        COPY(id.campaign, t->campaign_id);
        COPY(id.publisher, t->publisher_id);
        COPY(id.currency, t->currency);
        want = truth(h->last, &id);
        for (int k = 0; k < AD_CAUSE_COUNT; k++) {
                assert_true(ad_cell_add_signed(&billed, &want.billed[k]));
                assert_true(ad_cell_add_signed(&realtime, &want.realtime[k]));
        }
        if (!ad_cell_eq(&billed, &c->billed) || !ad_cell_eq(&realtime, &c->realtime))
                fail_msg("seed %" PRIu64 ": a cell of quarter %" PRIu64 " is no recount", dice_seed,
                         t->quarter);
        assert_true(ad_cell_add_signed(&h->now, &c->billed));
        /* What lies before the first period is in it as adjustments, whole. */
        if (t->quarter >= first_from[id.tenant[1] - '0'][id.advertiser[1] - '0'])
                assert_true(ad_cell_add_signed(&h->usage, &c->at_close));
        h->cells++;
        return 0;
}

static int on_adjustment(void *arg, const struct ad_posting *p, struct df_error *err_)
{
        for (size_t i = 0; i < p->delta_count; i++)
                assert_true(ad_cell_add_signed(arg, &p->delta[i].billed));
        return 0;
}

static void check_account(struct ad_billing_read *r, struct df_bytes tenant, const char *advertiser,
                          struct ad_billing_point at, const struct run *last, size_t *cells)
{
        struct ad_billing_scope s = {.tenant_id = tenant,
                                     .one_advertiser = true,
                                     .advertiser_id = df_bytes_str(advertiser),
                                     .to_quarter = UINT64_MAX,
                                     .point = at};
        struct held h = {.last = last};
        struct ad_cell sum;

        ok(ad_billing_cells(r, &s, on_cell, &h, &err));
        sum = h.usage;
        ok(ad_billing_adjustments(r, &s, (struct df_bytes){0}, on_adjustment, &sum, &err));
        if (!ad_cell_eq(&sum, &h.now))
                fail_msg("seed %" PRIu64 ", %s: periods hold %lld, the bill is %lld", dice_seed,
                         advertiser, (long long)sum.spend, (long long)h.now.spend);
        *cells += h.cells;
}

/* ---- closes ---- */

struct closed {
        struct ad_billing_scope scope;
        struct ad_cell sums[2]; /* EUR, USD */
        struct ad_currency_cell totals[2];
        char currencies[2][4];
        size_t total_count;
};

static struct closed all_closed[64];

static int on_close(void *arg, const struct ad_closed *c, struct df_error *err_)
{
        const struct ad_period_close *p = &c->close;
        struct closed *x = &all_closed[taken];

        if (c->refused)
                return 0;
        assert_true(taken++ < 64);
        *x = (struct closed){.scope = {.one_advertiser = p->account.advertiser_id.len > 0,
                                       .from_quarter = p->from_quarter,
                                       .to_quarter = p->to_quarter,
                                       .point = {c->seq, p->at_ms}},
                             .total_count = p->total_count};
        x->scope.tenant_id = df_bytes_str(p->account.tenant_id.data[1] == '0' ? "t0" : "t1");
        if (x->scope.one_advertiser)
                x->scope.advertiser_id =
                        df_bytes_str(p->account.advertiser_id.data[1] == '0' ? "a0" : "a1");
        for (size_t i = 0; i < p->total_count; i++) {
                COPY(x->currencies[i], p->totals[i].currency);
                x->totals[i].billed = p->totals[i].billed;
        }
        for (int a = 0; a < 2; a++) {
                uint64_t *from = &first_from[p->account.tenant_id.data[1] - '0'][a];

                if ((!x->scope.one_advertiser || p->account.advertiser_id.data[1] == '0' + a) &&
                    p->from_quarter < *from)
                        *from = p->from_quarter;
        }
        return 0;
}

static int on_closed_cell(void *arg, const struct ad_billing_cell *c, struct df_error *err_)
{
        struct closed *x = arg;
        bool usd = df_bytes_eq(c->posting->target.currency, df_bytes_str("USD"));

        assert_true(c->closed && !c->adjusted && ad_cell_eq(&c->billed, &c->at_close));
        assert_true(ad_cell_add_signed(&x->sums[usd], &c->billed));
        return 0;
}

/* The point of a close holds what the manifest was made of. */
static void check_closes(struct ad_billing_read *r)
{
        for (size_t i = 0; i < taken; i++) {
                struct closed *x = &all_closed[i];

                ok(ad_billing_cells(r, &x->scope, on_closed_cell, x, &err));
                for (size_t t = 0; t < x->total_count; t++) {
                        bool usd = strcmp(x->currencies[t], "USD") == 0;

                        if (!ad_cell_eq(&x->sums[usd], &x->totals[t].billed))
                                fail_msg("seed %" PRIu64 ": close %zu states %lld %s, its cells "
                                         "are %lld",
                                         dice_seed, i, (long long)x->totals[t].billed.spend,
                                         x->currencies[t], (long long)x->sums[usd].spend);
                }
        }
}

static void one_history(const char *dir)
{
        struct ad_billing_read *read;
        struct ad_billing_run run;
        struct df_arena arena;
        struct run *last;
        struct rig r;
        char why[256];
        size_t cells = 0;
        bool found;

        open_books(&r);
        last = write_runs();
        rig_run(&r, 1 + (size_t)dice(64));
        cut_all(&r);
        ok(ad_billing_open(dir, 1, &books, why, &err));
        read_all(&r);
        ok(ad_billing_begin(books, &read, &err));
        taken = 0;
        memset(first_from, 0xff, sizeof(first_from));
        for (int t = 0; t < 2; t++)
                ok(ad_billing_closes(read, df_bytes_str(t ? "t1" : "t0"), on_close, NULL, &err));
        for (int t = 0; t < 2; t++) /* nothing closed: all of it is in the open period */
                for (int a = 0; a < 2; a++)
                        if (first_from[t][a] == UINT64_MAX)
                                first_from[t][a] = 0;
        df_arena_init(&arena, 0);
        ok(ad_billing_last(read, &arena, &run, &found, &err));
        assert_true(found && df_bytes_eq(run.applied.begin.run, df_bytes_str(last->id)));
        for (int t = 0; t < 2; t++)
                for (int a = 0; a < 2; a++)
                        check_account(read, df_bytes_str(t ? "t1" : "t0"), a ? "a1" : "a0",
                                      (struct ad_billing_point){run.seq, INT64_MAX}, last, &cells);
        assert_true(cells > 100);
        check_closes(read);
        df_arena_release(&arena);
        ad_billing_end(read);
        ad_billing_close(books);
        ok(ad_billing_discard(dir, &err));
        close_books(&r);
        forget_history();
}

static void the_view_is_what_the_books_post(void **state)
{
        char base[] = "/tmp/adtally-books-XXXXXX", dir[64];
        size_t closes = 0;

        assert_non_null(mkdtemp(base));
        (void)snprintf(dir, sizeof(dir), "%s/view-billing", base);
        roll_seed();
        for (int i = 0; i < 6; i++) {
                one_history(dir);
                closes += taken;
        }
        if (closes < 10)
                fail_msg("seed %" PRIu64 ": only %zu closes", dice_seed, closes);
        (void)nftw(base, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(the_view_is_what_the_books_post),
        };
        int rc = cmocka_run_group_tests(tests, NULL, NULL);

        df_buf_release(&seen.lines);
        return rc;
}
