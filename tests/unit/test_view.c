/* The serving view against a naive recount: the last value of each (cell, source) (W3), summed. */
#include "view_test.h"

#define SOURCES 12 /* more than share a key of a minute cell; 3 and 4 are imports */
#define CELLS_MAX 4000
#define STEPS 120
#define LOG_MAX 400
#define MOSCOW_S (3 * 3600) /* since 2014, without daylight saving */

struct truth_cell {
        size_t source;
        struct ad_row row; /* dims borrow from the pools below */
};

struct world {
        uint64_t seed, random;
        struct vt_place place;
        struct ad_view *view;
        struct df_source sources[SOURCES];
        struct vt_collection *log[LOG_MAX]; /* in the order of the topic */
        size_t log_count, fed;              /* fed: applied to the view that is open */
        struct vt_collection *last[SOURCES];
        struct truth_cell cells[CELLS_MAX];
        size_t cell_count;
        bool aborted[SOURCES];
        int64_t now_ms, base_minute;
};

static const char *const campaigns[] = {"c1", "c2", "", "c\xff", "__other__"};
static const char *const others[] = {"", "x", "long-long-long-long-long-long-id"};
static const char *const currencies[] = {"EUR", "USD", "XXX"};
static const char *const tenants[] = {"default", "acme"};

static uint64_t pick(struct world *w, uint64_t below)
{
        return next_random(&w->random) % below;
}

static struct df_bytes text(const char *s)
{
        return df_bytes_str(s);
}

/* ---- writing what a task would write ---- */

static struct truth_cell *cell_of(struct world *w, size_t source, const struct ad_row *row)
{
        for (size_t i = 0; i < w->cell_count; i++) {
                const struct ad_row *r = &w->cells[i].row;
                bool same = w->cells[i].source == source && r->grouping == row->grouping &&
                            r->minute == row->minute && df_bytes_eq(r->tenant_id, row->tenant_id) &&
                            df_bytes_eq(r->currency, row->currency);

                for (uint32_t d = 0; same && d < row->dim_count; d++)
                        same = df_bytes_eq(r->dims[d], row->dims[d]);
                if (same)
                        return &w->cells[i];
        }
        assert_true(w->cell_count < CELLS_MAX);
        w->cells[w->cell_count] = (struct truth_cell){source, *row};
        return &w->cells[w->cell_count++];
}

/* A cell that the source has and may still change. */
static bool known_row(struct world *w, size_t source, int64_t first, struct ad_row *row)
{
        for (int tries = 0; w->cell_count > 0 && tries < 5; tries++) {
                const struct truth_cell *c = &w->cells[pick(w, w->cell_count)];

                if (c->source != source || (int64_t)c->row.minute < first)
                        continue;
                *row = c->row;
                return true;
        }
        return false;
}

static void new_row(struct world *w, int64_t first, struct ad_row *row)
{
        memset(row, 0, sizeof(*row));
        row->grouping = (uint32_t)pick(w, ad_groupings_default.count);
        row->minute = (uint64_t)first + pick(w, 40) * pick(w, 40);
        row->tenant_id = text(tenants[pick(w, 2)]);
        row->dim_count = ad_groupings_default.list[row->grouping].dim_count;
        for (uint32_t d = 0; d < row->dim_count; d++)
                row->dims[d] = text(others[pick(w, 3)]);
        row->dims[1] = text(campaigns[pick(w, 5)]);
        row->currency = text(currencies[pick(w, 3)]);
}

static void random_row(struct world *w, size_t source, struct ad_row *row)
{
        const struct vt_collection *last = w->last[source];
        int64_t first = w->base_minute;

        /* A task never touches a window that is final. */
        if (last && last->seal.final_through_ms > first * VT_MINUTE)
                first = last->seal.final_through_ms / VT_MINUTE;
        if (!known_row(w, source, first, row))
                new_row(w, first, row);
        memset(&row->cell, 0, sizeof(row->cell));
        row->cell.impressions = pick(w, 1000);
        row->cell.clicks = pick(w, 50);
        row->cell.conversions = pick(w, 3);
        row->cell.invalid[pick(w, 3)] = pick(w, 5);
        row->cell.spend = ((df_nanos)pick(w, 1u << 30) << 60) - ((df_nanos)1 << 80);
        row->cell.payout = -(df_nanos)pick(w, 1000);
        row->cell.value = (df_nanos)pick(w, 1000);
}

static void publish(struct world *w, size_t source, const struct ad_note *note, bool closed)
{
        struct vt_collection *c = calloc(1, sizeof(*c));
        uint64_t rows = closed ? 0 : pick(w, 30);

        assert_non_null(c);
        assert_true(w->log_count < LOG_MAX);
        vt_begin(c, &w->sources[source], w->last[source]);
        for (uint64_t i = 0; i < rows; i++) {
                struct ad_row row;

                random_row(w, source, &row);
                cell_of(w, source, &row)->row.cell = row.cell;
                ad_wire_row(&c->payload, &row);
        }
        if (source != 3 && source != 4 && pick(w, 3) == 0) { /* imports: at their end alone */
                int64_t final = (w->base_minute + (int64_t)pick(w, 100)) * VT_MINUTE +
                                (int64_t)pick(w, 60000);

                if (final > c->seal.final_through_ms)
                        c->seal.final_through_ms = final;
        }
        if (closed) {
                c->seal.closed = true;
                c->seal.watermark_ms = c->seal.final_through_ms = DF_TIME_MAX;
        }
        vt_end(c, note);
        w->last[source] = w->log[w->log_count++] = c;
}

/* ---- the recount ---- */

struct sums {
        struct world *w;
        uint32_t level;
        size_t seen;
        uint8_t key[600]; /* of the cell whose keys are being read */
        size_t key_len;
        struct ad_row like;
        struct ad_cell sum;
};

static uint32_t window_of(uint32_t level, uint64_t minute)
{
        switch (level) {
        case AD_LEVEL_MINUTE:
                return (uint32_t)minute;
        case AD_LEVEL_QUARTER:
                return (uint32_t)(minute / 15);
        case AD_LEVEL_DAY:
                return (uint32_t)(minute / 1440);
        default:
                return (uint32_t)((minute * 60 + MOSCOW_S) / 86400) + AD_ACCOUNT_DAY_BIAS;
        }
}

static void recount(const struct world *w, uint32_t level, const struct ad_row *like,
                    struct ad_cell *ret)
{
        *ret = (struct ad_cell){0};
        for (size_t i = 0; i < w->cell_count; i++) {
                const struct ad_row *r = &w->cells[i].row;
                bool same = !w->aborted[w->cells[i].source] && r->grouping == like->grouping &&
                            window_of(level, r->minute) == (uint32_t)like->minute &&
                            df_bytes_eq(r->tenant_id, like->tenant_id) &&
                            df_bytes_eq(r->currency, like->currency);

                for (uint32_t d = 0; same && d < r->dim_count; d++)
                        same = df_bytes_eq(r->dims[d], like->dims[d]);
                if (same)
                        assert_true(ad_cell_add(ret, &r->cell));
        }
}

/* The cell read last, all of its keys: is it what the recount says? */
static void check_sum(struct sums *s)
{
        struct ad_cell want;

        if (s->key_len == 0)
                return;
        recount(s->w, s->level, &s->like, &want);
        if (!vt_same_cell(&s->sum, &want))
                fail_msg("seed %llu: level %u window %llu: impressions %llu, recounted %llu",
                         (unsigned long long)s->w->seed, s->level,
                         (unsigned long long)s->like.minute, (unsigned long long)s->sum.impressions,
                         (unsigned long long)want.impressions);
        s->seen++;
}

static int check_cell(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct sums *s = arg;
        struct df_reader r = df_reader(key);
        struct ad_cell_key k = {0};
        struct ad_cell cell;
        size_t len = key.len;
        uint32_t grouping;

        (void)df_get_bytes(&r, 2);
        k.tenant_id = df_get_lstr(&r);
        grouping = df_get_u8(&r);
        assert_true(ad_key_cell_decode(key, key.len - df_reader_left(&r),
                                       &ad_groupings_default.list[grouping], &k));
        assert_true(ad_cell_decode(value, &cell));
        if (s->level == AD_LEVEL_MINUTE)
                len--; /* the group of sources: below 128 here */
        assert_true(key.len <= sizeof(s->key));
        if (s->key_len == len && memcmp(s->key, key.data, len) == 0) {
                assert_true(ad_cell_add(&s->sum, &cell));
                return 0;
        }
        check_sum(s);
        memcpy(s->key, key.data, key.len);
        s->key_len = len;
        r = df_reader(df_bytes(s->key, len));
        (void)df_get_bytes(&r, 2);
        s->like.tenant_id = df_get_lstr(&r);
        s->like.grouping = df_get_u8(&r);
        s->sum = cell;
        /* Decoded again, from the copy that stays. */
        assert_true(ad_key_cell_decode(df_bytes(s->key, len + (s->level == AD_LEVEL_MINUTE)),
                                       len - df_reader_left(&r),
                                       &ad_groupings_default.list[grouping], &k));
        memcpy(s->like.dims, k.dims, sizeof(k.dims));
        s->like.currency = k.currency;
        s->like.minute = k.window;
        return 0;
}

/* How many different cells of a level the recount has that are not zero. */
static size_t count_cells(struct world *w, uint32_t level)
{
        size_t n = 0;

        for (size_t i = 0; i < w->cell_count; i++) {
                struct ad_row a = w->cells[i].row;
                bool first = true;
                struct ad_cell sum;

                a.minute = window_of(level, a.minute);
                for (size_t k = 0; k < i && first; k++) {
                        const struct ad_row *b = &w->cells[k].row;

                        first = b->grouping != a.grouping ||
                                window_of(level, b->minute) != (uint32_t)a.minute ||
                                !df_bytes_eq(b->tenant_id, a.tenant_id) ||
                                !df_bytes_eq(b->currency, a.currency);
                        for (uint32_t d = 0; !first && d < a.dim_count; d++)
                                first = !df_bytes_eq(b->dims[d], a.dims[d]);
                }
                recount(w, level, &a, &sum);
                n += first && !ad_cell_is_zero(&sum);
        }
        return n;
}

static void check_world(struct world *w)
{
        for (uint32_t level = 0; level < AD_LEVEL_COUNT; level++) {
                struct sums s = {.w = w, .level = level};
                uint8_t from[2] = {'c', (uint8_t)level}, to[2] = {'c', (uint8_t)(level + 1)};
                size_t want = count_cells(w, level);

                ok(df_kv_range(ad_view_kv(w->view), NULL, df_bytes(from, 2), df_bytes(to, 2),
                               check_cell, &s, err));
                check_sum(&s);
                if (s.seen != want)
                        fail_msg("seed %llu: level %u has %zu cells, recounted %zu",
                                 (unsigned long long)w->seed, level, s.seen, want);
        }
}

/* ---- feeding ---- */

static void commit(struct world *w)
{
        uint64_t positions[2] = {w->fed, w->fed};

        w->now_ms += 100;
        ok(ad_view_commit(w->view, positions, 2, w->now_ms, err));
}

static void feed(struct world *w)
{
        struct vt_collection *c;

        if (w->fed == w->log_count)
                return;
        c = w->log[w->fed++];
        ok(vt_add(w->view, c, w->now_ms, err));
        if (pick(w, 4) == 0) { /* K5: again, or by another owner: nothing changes */
                c = w->log[pick(w, w->fed)];
                c->epoch++;
                ok(vt_add(w->view, c, w->now_ms, err));
        }
}

static void settle(struct world *w)
{
        while (w->fed < w->log_count)
                feed(w);
        do
                commit(w);
        while (ad_view_busy(w->view));
}

/* Close without a commit, open, go on where the view says. */
static void crash(struct world *w, enum ad_view_origin want)
{
        ad_view_close(w->view);
        w->view = vt_open(&w->place, want);
        w->fed = ad_view_position(w->view, 0);
        assert_true(w->fed <= w->log_count);
}

static void world_init(struct world *w, uint64_t seed)
{
        struct ad_note begin = {.has_import_begin = true,
                                .import_begin = {.generation = 9,
                                                 .tenant_id = text("default"),
                                                 .dataset = text("d"),
                                                 .from_ms = 0,
                                                 .to_ms = 100000000 * VT_MINUTE}};

        memset(w, 0, sizeof(*w));
        w->seed = w->random = seed;
        w->base_minute = 29000000 + (int64_t)pick(w, 1000000);
        w->now_ms = (w->base_minute + 60) * VT_MINUTE;
        vt_place_init(&w->place, "Europe/Moscow", 2);
        w->sources[0] = vt_source("events", VT_EVENTS_GENERATION, 0);
        w->sources[1] = vt_source("events", VT_EVENTS_GENERATION, 1);
        w->sources[2] = vt_source("events", 3, 1); /* an older generation */
        w->sources[3] = vt_source("import.a", 9, 0);
        w->sources[4] = vt_source("import.b", 10, 1);
        for (uint32_t i = 5; i < SOURCES; i++) /* still older ones */
                w->sources[i] = vt_source("events", 100 + i, i % 2);
        publish(w, 3, &begin, false);
        publish(w, 4, &begin, false);
        w->view = vt_open(&w->place, AD_VIEW_EMPTY);
}

static void world_release(struct world *w)
{
        ad_view_close(w->view);
        for (size_t i = 0; i < w->log_count; i++) {
                vt_release(w->log[i]);
                free(w->log[i]);
        }
        vt_place_release(&w->place);
}

static void run_world(uint64_t seed)
{
        struct world *w = calloc(1, sizeof(*w));
        struct ad_note none = {0};
        struct ad_note end = {.has_import_end = true, .import_end = {.generation = 9}};
        bool snapshot = false;

        assert_non_null(w);
        world_init(w, seed);
        for (int i = 0; i < STEPS; i++) {
                publish(w, pick(w, SOURCES), &none, false);
                for (uint64_t n = pick(w, 3); n > 0; n--)
                        feed(w);
                if (pick(w, 3) == 0)
                        commit(w);
                if (pick(w, 12) == 0)
                        crash(w, AD_VIEW_KEPT);
                if (pick(w, 20) == 0) {
                        ok(ad_view_snapshot(w->view, err));
                        snapshot = true;
                }
                if (pick(w, 25) == 0) { /* the view is lost */
                        ad_view_close(w->view);
                        if (pick(w, 2))
                                remove_dir(w->place.dir);
                        else
                                vt_damage(w->place.dir);
                        w->view = vt_open(&w->place, snapshot ? AD_VIEW_RESTORED : AD_VIEW_EMPTY);
                        w->fed = ad_view_position(w->view, 0);
                }
        }
        settle(w);
        check_world(w);
        end.import_end.aborted = true;
        w->aborted[3] = true; /* R6: import --abort voids its rows, also those just read */
        publish(w, 3, &none, false);
        publish(w, 3, &end, true);
        end.import_end.aborted = false;
        publish(w, 4, &end, true);
        settle(w);
        check_world(w);
        crash(w, AD_VIEW_KEPT);
        check_world(w);
        world_release(w);
        free(w);
}

static void test_equals_recount(void **state)
{
        for (uint64_t seed = 1; seed <= 5; seed++)
                run_world(seed * 7919);
}

/* W4, K10: what comes again for a window that is final for its source is ignored. */
static void test_final_is_ignored(void **state)
{
        struct world *w = calloc(1, sizeof(*w));
        struct vt_collection *again = calloc(1, sizeof(*again));
        struct ad_note none = {0};
        struct ad_row row;

        assert_true(w && again);
        world_init(w, 42);
        for (int i = 0; i < 20; i++)
                publish(w, (size_t)i % 2, &none, false);
        for (size_t s = 0; s < 2; s++) { /* everything final */
                struct vt_collection *last = calloc(1, sizeof(*last));

                assert_non_null(last);
                vt_begin(last, &w->sources[s], w->last[s]);
                last->seal.final_through_ms = (w->base_minute + 5000) * VT_MINUTE;
                vt_end(last, &none);
                w->last[s] = w->log[w->log_count++] = last;
        }
        settle(w);
        check_world(w);
        vt_begin(again, &w->sources[0], w->last[0]);
        random_row(w, 0, &row);
        row.minute = (uint64_t)w->base_minute;
        ad_wire_row(&again->payload, &row);
        vt_end(again, &none);
        w->log[w->log_count++] = again;
        settle(w);
        check_world(w);
        world_release(w);
        free(w);
}

/* K14, L2: a view for other settings is begun anew only where the log still has everything. */
static void test_refused_when_not_rebuildable(void **state)
{
        struct world *w = calloc(1, sizeof(*w));
        enum ad_view_origin origin;
        const struct ad_zone *moscow;
        struct ad_view *v;
        char why[256];

        assert_non_null(w);
        world_init(w, 43);
        settle(w);
        ad_view_close(w->view);
        moscow = w->place.options.account_zone;
        ok(ad_zones_get(w->place.zones, "Europe/Berlin", &w->place.options.account_zone, err));
        w->place.options.rebuildable = false;
        refuses(DF_ESCHEMA, "settings it was built for",
                ad_view_open(&w->place.options, AD_VIEW_KEPT, &v, &origin, why, err));
        w->place.options.account_zone = moscow;
        w->view = vt_open(&w->place, AD_VIEW_KEPT); /* nothing was thrown away */
        check_world(w);
        ad_view_close(w->view);
        ok(ad_zones_get(w->place.zones, "Europe/Berlin", &w->place.options.account_zone, err));
        w->place.options.rebuildable = true;
        w->view = vt_open(&w->place, AD_VIEW_EMPTY);
        assert_int_equal(ad_view_position(w->view, 0), 0);
        world_release(w);
        free(w);
}

/* A view found damaged while it was open goes back to its snapshot. */
static void test_distrusted(void **state)
{
        struct world *w = calloc(1, sizeof(*w));
        enum ad_view_origin origin;
        struct ad_note none = {0};
        char why[256];

        assert_non_null(w);
        world_init(w, 44);
        settle(w);
        ok(ad_view_snapshot(w->view, err));
        publish(w, 0, &none, false);
        settle(w);
        ad_view_close(w->view);
        ok(ad_view_open(&w->place.options, AD_VIEW_RESTORED, &w->view, &origin, why, err));
        assert_int_equal(origin, AD_VIEW_RESTORED);
        w->fed = ad_view_position(w->view, 0);
        assert_int_equal(w->fed, w->log_count - 1);
        settle(w);
        check_world(w);
        world_release(w);
        free(w);
}

/* K6: a seal that does not continue its parent is an alarm. */
static void test_chain_gap(void **state)
{
        struct world *w = calloc(1, sizeof(*w));
        struct ad_note none = {0};
        struct ad_status *s;
        uint64_t gaps = 0;

        assert_non_null(w);
        world_init(w, 45);
        for (int i = 0; i < 5; i++)
                publish(w, 0, &none, false);
        settle(w);
        s = ad_view_status(w->view);
        for (size_t i = 0; i < s->source_count; i++)
                gaps += s->sources[i].chain_gaps;
        ad_status_release(s);
        assert_int_equal(gaps, 0);
        publish(w, 0, &none, false);
        publish(w, 0, &none, false);
        w->fed++; /* one is never seen */
        settle(w);
        s = ad_view_status(w->view);
        for (size_t i = 0; i < s->source_count; i++)
                gaps += s->sources[i].chain_gaps;
        ad_status_release(s);
        assert_int_equal(gaps, 1);
        world_release(w);
        free(w);
}

/* W4: final for readers only when every live source has passed, sealed or not; an import counts in
 * its range until it has ended. */
static void test_final(void **state)
{
        struct world *w = calloc(1, sizeof(*w));
        struct ad_note none = {0}, end = {.has_import_end = true};
        struct ad_live *live = calloc(AD_LIVE_MAX, sizeof(*live));
        int64_t from, to;
        struct ad_status *s;
        size_t n;

        assert_true(w && live);
        world_init(w, 46);
        from = w->base_minute * VT_MINUTE;
        to = from + VT_MINUTE;
        for (int step = 0; step < 5; step++) {
                static const size_t order[] = {0, 2, 1, 3, 4};
                struct vt_collection *c = calloc(1, sizeof(*c));
                size_t source = order[step];

                assert_non_null(c);
                settle(w);
                s = ad_view_status(w->view);
                n = ad_status_live(s, df_bytes_str("default"), from, to, live);
                assert_false(ad_live_final(live, n, from, to));
                if (step == 3) { /* all partitions passed: final outside the imports' range */
                        n = ad_status_live(s, df_bytes_str("acme"), from, to, live);
                        assert_true(ad_live_final(live, n, from, to));
                        assert_false(ad_live_final(live, n, from, to + 1));
                }
                ad_status_release(s);
                vt_begin(c, &w->sources[source], w->last[source]);
                c->seal.watermark_ms = c->seal.final_through_ms = source < 3 ? to : DF_TIME_MAX;
                c->seal.closed = source >= 3;
                vt_end(c, source < 3 ? &none : &end);
                w->last[source] = w->log[w->log_count++] = c;
        }
        settle(w);
        s = ad_view_status(w->view);
        n = ad_status_live(s, df_bytes_str("default"), from, to, live);
        /* One partition of import.a has ended, the other was never seen: still not final. */
        assert_false(ad_live_final(live, n, from, to));
        ad_status_release(s);
        free(live);
        world_release(w);
        free(w);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_equals_recount),
                cmocka_unit_test(test_final_is_ignored),
                cmocka_unit_test(test_refused_when_not_rebuildable),
                cmocka_unit_test(test_distrusted),
                cmocka_unit_test(test_chain_gap),
                cmocka_unit_test(test_final),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
