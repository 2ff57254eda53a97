/* The view of the bill against lists: every version, at any point, over restarts and rebuilding. */
#include "billing_test.h"

#include <dirent.h>

#define STEPS 70

static char dir[300];
static struct ad_billing *books;
static size_t fed;       /* collections that are committed */
static uint64_t asked_k; /* what ad_billing_sources says */

#define check(condition)                                                                           \
        do {                                                                                       \
                if (!(condition))                                                                  \
                        fail_msg("seed %" PRIu64 ", line %d: %s", bt.seed, __LINE__, #condition);  \
        } while (0)

static int on_source(void *arg, const struct df_source *s, uint64_t k, struct df_error *err)
{
        struct df_source want = bt_source();

        check(df_source_eq(s, &want));
        asked_k = k;
        return 0;
}

static void open_books(uint64_t generation, bool kept)
{
        char why[256];

        ok(ad_billing_open(dir, generation, &books, why, err));
        check((*why == '\0') == kept);
        asked_k = 0;
        ok(ad_billing_sources(books, on_source, NULL, err));
        fed = (size_t)asked_k;
        check(ad_billing_position(books) == 10 * asked_k);
}

static void feed_all(void)
{
        for (; fed < bt.log_count; fed++)
                bt_feed(books, &bt.log[fed]);
        ok(ad_billing_commit(books, 10 * fed, err));
}

/* ---- cells ---- */

struct cells {
        struct ad_billing_scope scope;
        size_t seen, ended_at;
        struct ad_target last;
};

static int order(const struct ad_target *a, const struct ad_target *b)
{
        int c = df_bytes_cmp(a->advertiser_id, b->advertiser_id);

        if (c == 0)
                c = (a->quarter > b->quarter) - (a->quarter < b->quarter);
        if (c == 0)
                c = df_bytes_cmp(a->campaign_id, b->campaign_id);
        if (c == 0)
                c = df_bytes_cmp(a->publisher_id, b->publisher_id);
        return c ? c : df_bytes_cmp(a->currency, b->currency);
}

static int on_cell(void *arg, const struct ad_billing_cell *c, struct df_error *err)
{
        struct cells *x = arg;
        const struct ad_target *t = &c->posting->target;
        const struct bt_version *v;
        const struct bt_close *close;
        struct ad_cell billed, realtime;
        uint64_t closed_to;
        size_t i = 0;

        while (i < BT_CELLS && !bt_same_cell(&bt.cells[i], t))
                i++;
        check(i < BT_CELLS);
        check(x->seen == 0 || order(&x->last, &bt.cells[i]) < 0);
        x->last = bt.cells[i];
        v = bt_newest(i, x->scope.point.seq);
        check(v && v->seq == c->posting->seq && v->at_ms == c->posting->at_ms);
        bt_sums(v, &billed, &realtime);
        check(bt_equal(&billed, &c->billed) && bt_equal(&realtime, &c->realtime));
        check(t->cause_count == v->cause_count);
        close = bt_close_of(t, x->scope.point, &closed_to);
        check(c->closed_to == closed_to && c->closed == (close != NULL));
        if (close)
                bt_sums(bt_at_close(i, close, x->scope.point), &billed, &realtime);
        check(bt_equal(&billed, &c->at_close));
        check(c->adjusted == !bt_equal(&billed, &c->billed));
        x->seen++;
        return x->seen == x->ended_at;
}

static bool in_scope(const struct ad_billing_scope *s, const struct ad_target *t)
{
        return df_bytes_eq(t->tenant_id, s->tenant_id) && t->quarter >= s->from_quarter &&
               t->quarter < s->to_quarter &&
               (!s->one_advertiser || df_bytes_eq(t->advertiser_id, s->advertiser_id));
}

static struct ad_billing_scope random_scope(void)
{
        struct ad_billing_scope s = {.tenant_id = bt_tenants[bt_pick(2)],
                                     .one_advertiser = bt_pick(2),
                                     .advertiser_id = bt_advertisers[bt_pick(3)],
                                     .from_quarter = BT_QUARTER,
                                     .to_quarter = BT_QUARTER + BT_QUARTERS,
                                     .point = {bt_pick(bt.seq + 2), INT64_MAX}};

        if (bt_pick(2)) {
                s.from_quarter += bt_pick(BT_QUARTERS);
                s.to_quarter -= bt_pick(BT_QUARTERS);
        }
        if (bt_pick(3) == 0)
                s.point.at_ms = BT_MS + (int64_t)bt_pick((uint64_t)(bt.now_ms - BT_MS));
        return s;
}

static void check_cells(struct ad_billing_read *r)
{
        struct cells x = {.scope = random_scope()};
        uint64_t versions = 0;
        size_t want = 0;

        for (size_t i = 0; i < BT_CELLS; i++)
                want += in_scope(&x.scope, &bt.cells[i]) && bt_newest(i, x.scope.point.seq);
        x.ended_at = bt_pick(4) ? 0 : 3;
        if (bt_pick(2)) {
                x.scope.versions = &versions;
                x.scope.versions_max = UINT64_MAX;
        }
        ok(ad_billing_cells(r, &x.scope, on_cell, &x, err));
        check(x.seen == (x.ended_at && x.ended_at < want ? x.ended_at : want));
        check(!x.scope.versions || versions >= x.seen);
        if (want == 0)
                return;
        /* A bound on what is read ends it early, and shows. */
        versions = x.seen = 0;
        x.ended_at = 0;
        x.scope.versions = &versions;
        x.scope.versions_max = 1;
        ok(ad_billing_cells(r, &x.scope, on_cell, &x, err));
        check(versions > 1 && x.seen == 0);
}

/* ---- versions, adjustments ---- */

struct list {
        uint64_t seqs[BT_VERSIONS_MAX];
        size_t count;
        struct ad_cell deltas;
};

static int on_posting(void *arg, const struct ad_posting *p, struct df_error *err)
{
        struct list *x = arg;

        x->seqs[x->count++] = p->seq;
        for (size_t i = 0; i < p->delta_count; i++)
                bt_plus(&x->deltas, &p->delta[i].billed);
        return 0;
}

static void check_history(struct ad_billing_read *r)
{
        struct ad_billing_point at = {bt_pick(bt.seq + 2), INT64_MAX};
        size_t cell = bt_pick(BT_CELLS), n = 0;
        static struct list x;

        x.count = 0;
        ok(ad_billing_history(r, &bt.cells[cell], at, on_posting, &x, err));
        for (size_t i = bt.version_count; i-- > 0;)
                if (bt.versions[i].cell == cell && bt.versions[i].seq <= at.seq)
                        check(n < x.count && x.seqs[n++] == bt.versions[i].seq);
        check(n == x.count);
}

static void check_adjustments(struct ad_billing_read *r)
{
        struct ad_billing_scope s = random_scope();
        struct ad_cell deltas = {0};
        char period[8] = "";
        static struct list x;
        size_t want = 0;

        if (bt_pick(3))
                bt_period(period, 1 + (int)bt_pick(8));
        for (size_t i = 0; i < bt.version_count; i++) {
                const struct bt_version *v = &bt.versions[i];
                const struct ad_target *t = &bt.cells[v->cell];

                if (v->delta_count == 0 || v->seq > s.point.seq ||
                    !df_bytes_eq(t->tenant_id, s.tenant_id) ||
                    (s.one_advertiser && !df_bytes_eq(t->advertiser_id, s.advertiser_id)) ||
                    (*period && strcmp(period, v->posted) != 0))
                        continue;
                want++;
                bt_plus(&deltas, &v->delta[0].billed);
        }
        memset(&x, 0, sizeof(x));
        ok(ad_billing_adjustments(r, &s, df_bytes_str(period), on_posting, &x, err));
        check(x.count == want && bt_equal(&x.deltas, &deltas));
}

/* ---- runs ---- */

static int on_run(void *arg, const struct ad_billing_run *run, struct df_error *err)
{
        uint64_t *below = arg;
        const struct bt_run *want;

        check(run->number + 1 == *below);
        *below = run->number;
        want = &bt.runs[run->number - 1];
        check(df_bytes_eq(run->applied.begin.run, df_bytes_str(want->id)));
        check(run->seq == want->seq && run->applied.begin.at_ms == want->at_ms);
        check((run->applied.why.len > 0) == want->refused);
        return 0;
}

/* The last one that was taken before the first one that is later than at_ms. */
static const struct bt_run *naive_as_of(int64_t at_ms, bool *ret_exact)
{
        const struct bt_run *found = NULL;

        for (size_t i = 0; i < bt.run_count; i++) {
                if (bt.runs[i].refused)
                        continue;
                *ret_exact = bt.runs[i].at_ms > at_ms;
                if (*ret_exact)
                        return found;
                found = &bt.runs[i];
        }
        *ret_exact = false;
        return found;
}

static void check_runs(struct ad_billing_read *r, struct df_arena *arena)
{
        int64_t at = BT_MS + (int64_t)bt_pick((uint64_t)(bt.now_ms - BT_MS) + AD_QUARTER_MS);
        uint64_t below = bt.run_count + 1, some = bt_pick(bt.run_count + 1) + 1;
        const struct bt_run *want;
        struct ad_billing_run run;
        bool found, exact, want_exact;

        ok(ad_billing_runs(r, 0, on_run, &below, err));
        check(below == 1);
        ok(ad_billing_runs(r, some, on_run, &some, err));
        check(some == 1);
        want = naive_as_of(INT64_MAX, &want_exact);
        ok(ad_billing_last(r, arena, &run, &found, err));
        check(found == (want != NULL));
        check(!want || run.number == (uint64_t)(want - bt.runs) + 1);
        want = naive_as_of(at, &want_exact);
        ok(ad_billing_as_of(r, at, arena, &run, &found, &exact, err));
        check(found == (want != NULL) && exact == want_exact);
        check(!want || run.seq == want->seq);
        ok(ad_billing_find_run(r, df_bytes_str("ffffffffffffffff"), arena, &run, &found, err));
        check(!found);
        if (bt.run_count == 0)
                return;
        want = &bt.runs[bt.run_count - 1];
        ok(ad_billing_find_run(r, df_bytes_str(want->id), arena, &run, &found, err));
        check(found && run.number == bt.run_count);
}

/* ---- closes, drift ---- */

static int on_close(void *arg, const struct ad_closed *c, struct df_error *err)
{
        size_t *count = arg, i = 0;

        while (i < bt.close_count &&
               !df_bytes_eq(df_bytes_str(bt.closes[i].asked_by), c->close.asked_by))
                i++;
        check(i < bt.close_count && c->refused == bt.closes[i].refused &&
              c->seq == bt.closes[i].seq &&
              df_bytes_eq(c->close.account.advertiser_id, bt.closes[i].advertiser));
        ++*count;
        return 0;
}

static void check_closes(struct ad_billing_read *r)
{
        for (size_t t = 0; t < 2; t++) {
                size_t count = 0, want = 0;

                for (size_t i = 0; i < bt.close_count; i++)
                        want += df_bytes_eq(bt.closes[i].tenant, bt_tenants[t]);
                ok(ad_billing_closes(r, bt_tenants[t], on_close, &count, err));
                check(count == want);
                for (size_t a = 0; a < 3; a++) {
                        struct ad_target cell = {.tenant_id = bt_tenants[t],
                                                 .advertiser_id = bt_advertisers[a]};
                        struct ad_billing_point at = {bt_pick(bt.seq + 2), INT64_MAX};
                        struct ad_billing_account account;
                        uint64_t to;

                        (void)bt_close_of(&cell, at, &to);
                        ok(ad_billing_account(r, bt_tenants[t], bt_advertisers[a], at, &account,
                                              err));
                        check(account.closed_to == to && account.any == (to > 0));
                        check(!account.any || account.whole_tenant == (t == 0));
                }
        }
}

static void check_drift(struct ad_billing_read *r, struct df_arena *arena)
{
        uint64_t from = BT_QUARTER + bt_pick(BT_QUARTERS / 2), to = from + bt_pick(BT_QUARTERS);
        size_t whose = bt_pick(3), count = 0;
        struct df_bytes tenant = whose < 2 ? bt_tenants[whose] : (struct df_bytes){0};
        struct ad_billing_drift *drifts, want[2] = {0};

        for (size_t i = 0; i < BT_CELLS; i++) {
                const struct ad_target *t = &bt.cells[i];
                const struct bt_version *v = bt_newest(i, UINT64_MAX);
                struct ad_billing_drift *w = &want[bt_index(bt_currencies, 2, t->currency)];

                if (!v || t->quarter < from || t->quarter >= to ||
                    (tenant.len && !df_bytes_eq(t->tenant_id, tenant)))
                        continue;
                for (size_t k = 0; k < v->cause_count; k++) {
                        w->cells[v->causes[k].cause]++;
                        bt_plus(&w->causes[v->causes[k].cause].billed, &v->causes[k].billed);
                        bt_plus(&w->causes[v->causes[k].cause].realtime, &v->causes[k].realtime);
                }
        }
        ok(ad_billing_drifts(r, tenant, from, to, arena, &drifts, &count, err));
        check(count <= 2);
        for (size_t i = 0; i < count; i++) {
                struct ad_billing_drift *w = &want[bt_index(bt_currencies, 2, drifts[i].currency)];

                for (uint32_t c = 0; c < AD_CAUSE_COUNT; c++) {
                        check(drifts[i].cells[c] == w->cells[c]);
                        check(bt_equal(&drifts[i].causes[c].billed, &w->causes[c].billed));
                        check(bt_equal(&drifts[i].causes[c].realtime, &w->causes[c].realtime));
                        w->cells[c] = 0;
                }
        }
        for (size_t i = 0; i < 2; i++)
                for (uint32_t c = 0; c < AD_CAUSE_COUNT; c++)
                        check(want[i].cells[c] == 0);
}

static void check_all(int times)
{
        struct ad_billing_read *r;
        struct df_arena arena;

        ok(ad_billing_begin(books, &r, err));
        df_arena_init(&arena, 0);
        for (int i = 0; i < times; i++) {
                check_cells(r);
                check_history(r);
                check_adjustments(r);
                check_runs(r, &arena);
                check_closes(r);
                check_drift(r, &arena);
                df_arena_reset(&arena);
        }
        df_arena_release(&arena);
        ad_billing_end(r);
}

/* A read that is open sees none of what is committed meanwhile. */
static void check_snapshot(void)
{
        struct ad_billing_read *r;
        uint64_t below = bt.run_count + 1;

        ok(ad_billing_begin(books, &r, err));
        (void)bt_write();
        feed_all();
        ok(ad_billing_runs(r, 0, on_run, &below, err));
        check(below == 1);
        ad_billing_end(r);
}

static void run_history(uint64_t seed)
{
        bt_begin(seed);
        open_books(3, true);
        for (int step = 0; step < STEPS; step++) {
                bt_feed(books, bt_write());
                if (bt_pick(8) == 0) { /* what is not committed is lost, and read again */
                        ad_billing_close(books);
                        open_books(3, true);
                        for (size_t i = fed; i < bt.log_count; i++)
                                bt_feed(books, &bt.log[i]);
                }
                if (bt_pick(3))
                        continue;
                fed = bt.log_count;
                ok(ad_billing_commit(books, 10 * fed, err));
                check_all(2);
        }
        fed = bt.log_count;
        ok(ad_billing_commit(books, 10 * fed, err));
        check_snapshot();
        check_all(20);
}

static void test_histories(void **state)
{
        for (uint64_t seed = 1; seed <= 4; seed++) {
                char base[256];

                (void)snprintf(dir, sizeof(dir), "%s/view-billing", temp_dir(base));
                run_history(seed);
                ad_billing_close(books);
                bt_end();
                remove_dir(base);
        }
}

static void damage(void)
{
        DIR *d = opendir(dir);
        struct dirent *e;
        char path[600];

        assert_non_null(d);
        while ((e = readdir(d))) {
                (void)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
                if (strncmp(e->d_name, "MANIFEST", 8) == 0)
                        overwrite(path, "nothing of use", 14);
        }
        (void)closedir(d);
}

/* Damaged, thrown away, or of another topic: the topic makes the same of it. */
static void test_rebuilt(void **state)
{
        char base[256];

        (void)snprintf(dir, sizeof(dir), "%s/view-billing", temp_dir(base));
        run_history(77);
        ad_billing_close(books);
        damage();
        open_books(3, false);
        assert_int_equal(fed, 0);
        feed_all();
        check_all(10);
        ad_billing_close(books);
        open_books(4, false); /* another generation */
        assert_int_equal(fed, 0);
        feed_all();
        check_all(10);
        ad_billing_close(books);
        ok(ad_billing_discard(dir, err));
        open_books(4, true); /* nothing was there: nothing was wrong */
        assert_int_equal(fed, 0);
        feed_all();
        check_all(10);
        ad_billing_close(books);
        bt_end();
        remove_dir(base);
}

static void test_drift(void **state)
{
        double d = 5;

        assert_false(ad_drift(0, 0, &d));
        assert_true(ad_drift(0, 1, &d) && d == 1);
        assert_true(ad_drift(100, 99, &d) && d == 0.01);
        assert_true(ad_drift(-100, -101, &d) && d == 0.01);
        assert_true(ad_drift(7, 7, &d) && d == 0);
        /* One nano of a sum that a double does not hold exactly. */
        assert_true(ad_drift((df_nanos)1 << 70, ((df_nanos)1 << 70) + 1, &d) && d > 0);
}

/* At twice the schedule and the slack it is not overdue, a millisecond later it is. */
static void test_overdue(void **state)
{
        const int64_t hour = 3600000, most = 2 * hour + 60000;

        assert_false(ad_bill_is_overdue(most, hour));
        assert_true(ad_bill_is_overdue(most + 1, hour));
        assert_false(ad_bill_is_overdue(INT64_MAX, 0)); /* no schedule */
        assert_false(ad_bill_is_overdue(-hour, hour));  /* a clock that was put back */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_histories),
                cmocka_unit_test(test_rebuilt),
                cmocka_unit_test(test_drift),
                cmocka_unit_test(test_overdue),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
