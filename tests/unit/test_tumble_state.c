/* test_tumble_state.c - what tumble keeps and for how long: outboxes that are full (K6), imports
 * (R6), the store (K1), recovery (K10), damage, and its tables from inside. */
#include "unit.h"

#include "operators/tumble_private.h"
#include "runtime/core/core_private.h"
#include "tumble_test.h"

/* K6, W4: more rows than an outbox holds leave in several checkpoints; final_through waits before
 * the first window with unsent rows; a restore in between loses and repeats nothing. */
static void check_room(bool rebuilt)
{
        static const struct ad_groupings one = {
                .count = 2,
                .list = {{2, {0, 1}}, {7, {0, 1, 2, 3, 4, 5, 6}}},
        };
        enum { MINUTES = 4, KEYS = 36000, RECORD = 100 };
        static struct ad_event events[RECORD];
        static char names[RECORD][AD_ID_MAX + 1];
        struct df_seal seal = {.to_offset = MINUTES * KEYS / RECORD + 2,
                               .final_through_ms = BASE_MS};
        struct df_clock clock;
        uint64_t payload = 0;
        int drains = 0;
        struct rig r;

        rig_init(&r);
        r.no_view = true;
        r.first_minute = BASE_MS / MINUTE_MS;
        r.params.groupings = &one;
        r.params.grace_ms = rebuilt ? 10 * MINUTE_MS : MINUTE_MS;
        rig_start(&r);
        df_clock_init(&clock);
        if (rebuilt)
                df_task_suppress(r.task, 5, &seal, &clock, 0);
        for (uint32_t i = 0; i < MINUTES * KEYS; i++) {
                struct ad_event *ev = &events[i % RECORD];

                *ev = simple(BASE_MS + (int64_t)(i / KEYS) * MINUTE_MS);
                (void)snprintf(names[i % RECORD], AD_ID_MAX + 1, "%08u%.56s", i % KEYS, long_id);
                for (int d = 0; d < AD_DIM_COUNT; d++)
                        ev->dims[d] = df_bytes_str(d < 2 ? long_id : names[i % RECORD]);
                r.append_ms = ev->receive_ms;
                if (i % RECORD == RECORD - 1)
                        rig_feed(&r, events, RECORD);
        }
        if (rebuilt) { /* what was sent before counts as sent in this one */
                rig_heartbeat(&r, BASE_MS + 5 * MINUTE_MS);
                ok(df_task_checkpoint_silently(r.task, err));
        }
        rig_heartbeat(&r, BASE_MS + 3600000);
        while (rig_cut(&r)) {
                int64_t whole = (r.final_through_ms - BASE_MS) / MINUTE_MS;

                assert_true(r.payload_bytes - payload <= DF_OUTBOX_MAX);
                assert_true(r.payload_bytes - payload > DF_OUTBOX_MAX - 65536);
                payload = r.payload_bytes;
                drains++;
                assert_int_equal((r.final_through_ms - BASE_MS) % MINUTE_MS, 0);
                assert_in_range(whole, 1, MINUTES - 1);
                for (int64_t i = 0; i < MINUTES; i++) /* before the hold all, behind it none */
                        assert_true(i < whole    ? r.minute_rows[i] == KEYS + 1
                                    : i == whole ? r.minute_rows[i] < KEYS + 1
                                                 : r.minute_rows[i] == 0);
                rig_restore(&r);
                assert_true(df_task_wants_cut(r.task)); /* nothing else makes it send the rest */
        }
        assert_true(drains >= 1);
        for (int i = 0; i < MINUTES; i++) /* each once */
                assert_int_equal(r.minute_rows[i], KEYS + 1);
        assert_int_equal(r.final_through_ms, BASE_MS + 3600000 - 5000 - r.params.grace_ms);
        rig_release(&r);
}

static void test_what_does_not_fit_waits_and_holds_final_through(void **state)
{
        (void)state;
        check_room(false);
}

/* K10: the same when every row is sent again. */
static void test_what_is_sent_again_waits_too(void **state)
{
        (void)state;
        check_room(true);
}

/* R6: an import keeps every window open until its end; then all leave, in order, and go. */
static void test_an_import_of_a_year_of_minutes(void **state)
{
        enum { STEP = 10, WINDOWS = 365 * 1440 / STEP, RECORD = 365 };
        static struct ad_event events[RECORD];
        struct ad_batch end = {
                .schema_version = 1, .has_import_end = true, .import_end = {7, 1, 0}};
        struct df_buf b = {0};
        size_t stored[2], used;
        struct df_record rec;
        struct rig r;

        (void)state;
        rig_init(&r);
        map_release(&r.view);
        map_init(&r.view, 1 << 19);
        r.config.rules.bounded = true;
        r.config.control = ad_control;
        rig_start(&r);
        for (uint32_t i = 0; i < WINDOWS; i++) {
                uint32_t day = i % RECORD, place = i / RECORD; /* not in order of time */

                events[day] = simple(BASE_MS + (int64_t)day * 86400000 +
                                     (int64_t)place * STEP * MINUTE_MS);
                if (day == RECORD - 1)
                        rig_feed(&r, events, RECORD);
                if (i % 8000 == 7999)
                        assert_false(rig_cut(&r));
                if (i % 20000 == 19999) {
                        assert_false(rig_cut(&r));
                        assert_int_equal(r.final_through_ms, DF_TIME_MIN);
                        rig_restore(&r);
                }
        }
        ad_wire_batch_header(&b, &end);
        rec = (struct df_record){.offset = r.offset, .value = df_buf_bytes(&b)};
        ok(df_task_process(r.task, &rec, 1, &used, err));
        while (rig_cut(&r))
                ;
        assert_int_equal(r.final_through_ms, DF_TIME_MAX);
        assert_int_equal(r.view.count, 3 * WINDOWS);
        assert_int_equal(r.rows, 3 * WINDOWS); /* each row once: grouping 0 as it came */
        rig_stored(&r, stored);
        assert_int_equal(stored[0], 0);
        df_buf_release(&b);
        rig_release(&r);
}

/* K1: hot cells at many cuts: the store holds a bounded multiple of what lives. */
static void test_deltas_are_written_together(void **state)
{
        enum { CELLS = 3000 };
        size_t stored[2], first = 0, most = 0, keys = 0;
        struct ad_event events[100];
        char names[100][16];
        struct rig r;

        (void)state;
        begin(&r);
        for (int cut = 0; cut < 40; cut++) {
                for (int i = 0; i < CELLS; i++) {
                        struct ad_event *ev = &events[i % 100];

                        *ev = simple(BASE_MS + cut * 100);
                        r.append_ms = ev->receive_ms;
                        (void)snprintf(names[i % 100], 16, "c%d", i);
                        ev->dims[AD_DIM_CAMPAIGN] = df_bytes_str(names[i % 100]);
                        if (i % 100 == 99)
                                rig_feed(&r, events, 100);
                }
                rig_cut(&r);
                rig_stored(&r, stored);
                if (cut == 0)
                        first = stored[1];
                most = stored[1] > most ? stored[1] : most;
                keys = stored[0] > keys ? stored[0] : keys;
                if (cut % 10 == 9)
                        rig_restore(&r);
        }
        assert_true(most > first * 2);
        assert_true(most < first * 4);
        assert_true(keys < most / 30000 + 10); /* blobs, not cells */
        assert_int_equal(r.view.count, CELLS);
        rig_heartbeat(&r, BASE_MS + 3600000);
        rig_cut(&r);
        assert_int_equal(r.view.count, CELLS * 3);
        for (size_t i = 0; i < r.view.size; i++)
                for (struct entry *e = r.view.heads[i]; e; e = e->next)
                        assert_int_equal(e->cell.clicks, 40);
        rig_stored(&r, stored);
        assert_int_equal(stored[0], 0);
        rig_release(&r);
}

/* K10: a task rebuilt from the log sends every row that lives, though it counted them before. */
static void test_a_rebuilt_task_sends_every_live_row_again(void **state)
{
        struct df_seal seal = {.parent_k = 4, .to_offset = 2, .watermark_ms = BASE_MS + MINUTE_MS};
        struct df_clock clock;
        struct rig r;

        (void)state;
        begin(&r);
        df_clock_init(&clock);
        df_task_suppress(r.task, 5, &seal, &clock, 0);
        feed(&r, simple(BASE_MS));
        feed(&r, simple(BASE_MS + MINUTE_MS + 6000));
        assert_false(df_task_suppressed(r.task));
        rig_cut(&r);
        assert_int_equal(df_task_k(r.task), 6);
        assert_int_equal(r.view.count, 4);
        rig_cut(&r);
        assert_int_equal(r.rows, 4); /* once */
        rig_release(&r);
}

/* ---- state from elsewhere ---- */

static struct df_bytes state_key(uint8_t key[14], int64_t ms, uint32_t number)
{
        uint64_t minute = (uint64_t)ms / MINUTE_MS;

        key[0] = TUMBLE_NS;
        key[1] = 'w';
        for (int i = 0; i < 8; i++)
                key[2 + i] = (uint8_t)(minute >> 8 * (7 - i));
        for (int i = 0; i < 4; i++)
                key[10 + i] = (uint8_t)(number >> 8 * (3 - i));
        return df_bytes(key, 14);
}

/* A sent cell of (acme, a, c) in grouping 0, as tumble_state.c describes it, with this spend. */
static size_t put_blob(struct rig *r, int64_t ms, df_nanos spend, size_t cut_off)
{
        struct df_buf b = {0};
        uint8_t key[14];
        size_t len;

        df_put_u8(&b, 1);
        df_put_u8(&b, 0);
        df_buf_append(&b, "EUR", 3);
        for (int i = 0; i < 3; i++) {
                df_put_varint(&b, 0);
                df_put_lstr(&b, df_bytes_str(i == 0 ? "acme" : i == 1 ? "a" : "c"));
        }
        df_put_u8(&b, 0x42);
        df_put_u8(&b, 0x02);
        df_put_varint(&b, 5);
        df_put_u64le(&b, (uint64_t)spend);
        df_put_u64le(&b, (uint64_t)(spend >> 64));
        ok(df_buf_check(&b, err));
        df_store_put(r->store, state_key(key, ms, 0), df_bytes(b.data, b.len - cut_off));
        ok(df_store_commit(r->store, err));
        len = b.len;
        df_buf_release(&b);
        return len;
}

/* A sum that would leave 128 bits: the event is quarantined and counted in no cell at all. */
static void test_overflow_counts_nowhere(void **state)
{
        const df_nanos most = (df_nanos)(~(unsigned __int128)0 >> 1);
        struct ad_event ev = simple(BASE_MS);
        const struct ad_cell *c;
        struct rig r;

        (void)state;
        begin(&r);
        rig_cut(&r);
        (void)put_blob(&r, BASE_MS, most - 6, 0);
        rig_restore(&r);
        feed(&r, ev); /* + 7: one too much */
        ev.cost_nanos = 5;
        feed(&r, ev);
        ev.cost_nanos = 2;
        feed(&r, ev); /* one too much */
        ev.cost_nanos = 1;
        feed(&r, ev); /* the largest sum there is */
        ev.cost_nanos = 0;
        ev.payout_nanos = 1;
        feed(&r, ev);
        ev.cost_nanos = 1;
        feed(&r, ev);
        rig_heartbeat(&r, BASE_MS + 3600000);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_COUNTED], 3);
        assert_int_equal(r.outcomes[AD_OVERFLOW], 3);
        c = row_of(&r, 0, BASE_MS, "acme", "a|c", "EUR");
        assert_int_equal(c->clicks, 8);
        assert_true(c->spend == most && c->payout == 1);
        c = row_of(&r, 2, BASE_MS, "acme", "a|c||", "EUR");
        assert_int_equal(c->clicks, 3); /* not in this one either */
        assert_true(c->spend == 6);
        rig_release(&r);
}

/* A blob cut short at every byte is refused by name, or is a whole one. */
static void test_damaged_state_is_refused(void **state)
{
        size_t len = 2;

        (void)state;
        for (size_t cut_off = 1; cut_off <= len; cut_off++) {
                struct df_error e = {0};
                struct rig r;
                int rc;

                begin(&r);
                rig_cut(&r);
                len = put_blob(&r, BASE_MS, (df_nanos)1 << 100, cut_off);
                df_task_destroy(r.task);
                r.task = NULL;
                rc = df_task_create(&r.config, r.store, &r.task, &e);
                if (cut_off == len - 1) { /* the flag alone: no cells */
                        assert_int_equal(rc, 0);
                } else {
                        assert_int_equal(rc, DF_ECORRUPT);
                        assert_non_null(strstr(e.text, "blob 0 of minute 2833333"));
                }
                rig_release(&r);
        }
}

/* Any other byte anywhere: refused, or read as other cells; never beyond its bytes. */
static void test_state_with_a_wrong_byte_is_survived(void **state)
{
        size_t refused = 0, len = 1;

        (void)state;
        for (size_t at = 0; at < len; at++) {
                struct df_error e = {0};
                struct df_bytes value;
                struct df_buf b = {0};
                uint8_t key[14];
                struct rig r;
                bool found;
                int rc;

                begin(&r);
                rig_cut(&r);
                len = put_blob(&r, BASE_MS, (df_nanos)1 << 100, 0);
                ok(df_store_get(r.store, state_key(key, BASE_MS, 0), &value, &found, err));
                df_buf_append(&b, value.data, value.len);
                b.data[at] = 0xff;
                df_store_put(r.store, state_key(key, BASE_MS, 0), df_buf_bytes(&b));
                ok(df_store_commit(r.store, err));
                df_buf_release(&b);
                df_task_destroy(r.task);
                r.task = NULL;
                rc = df_task_create(&r.config, r.store, &r.task, &e);
                assert_true(rc == 0 || rc == DF_ECORRUPT);
                refused += rc == DF_ECORRUPT;
                rig_release(&r);
        }
        assert_true(refused >= 8); /* head, references and lengths */
}

/* ---- inside ---- */

static struct adi_tumble *inside(struct rig *r)
{
        return (struct adi_tumble *)r->task->ops[3];
}

/* Names come and go: after a burst, what no cell needs is forgotten, and its number used again,
 * while rows stay equal to the recount. */
static void test_names_are_forgotten(void **state)
{
        enum { BURST = 3000, AFTER = 9000, A_MINUTE = 300 };
        const struct adi_names *names;
        struct recount o;
        struct rig r;

        (void)state;
        rig_init(&r);
        rig_start(&r);
        recount_init(&o, &r);
        for (int64_t i = 0; i < BURST + AFTER; i++) {
                struct ad_event ev = simple(
                        BASE_MS +
                        (i < BURST ? i * 20 : MINUTE_MS + (i - BURST) * MINUTE_MS / A_MINUTE));
                char name[AD_ID_MAX + 1];

                /* Some live from minute to minute. */
                (void)snprintf(name, sizeof(name), "%s-%d", i % 2 ? "short" : &long_id[20],
                               (int)(i % 7 ? i : i % 50));
                ev.dims[AD_DIM_AD] = df_bytes_str(name);
                recount_event(&o, &ev, false);
                feed(&r, ev);
                if (i % 150 == 149)
                        drain(&r, &o);
                if (i == BURST - 1)
                        rig_restore(&r);
                names = &inside(&r)->names;
                assert_true(names->used < 2 * BURST);
                assert_int_equal(names->used + names->free.count, names->count);
        }
        assert_true(inside(&r)->names.used < 8 * A_MINUTE);
        drain(&r, &o);
        recount_release(&o);
        rig_release(&r);
}

/* Two keys with one hash are two cells. Names are numbered as they come, so such keys are found by
 * trying pairs of names in two dimensions. */
static void check_collision(struct rig *r, uint32_t grouping, enum ad_dim x, enum ad_dim y)
{
        enum { NAMES = 700, SLOTS = 1 << 20 };
        const struct ad_grouping *g = &r->params.groupings->list[grouping];
        static uint32_t seen[SLOTS], numbers[NAMES];
        static char names[NAMES][16];
        struct ad_event ev = simple(BASE_MS);
        uint32_t found = 0, rows = 0, at[2] = {0};
        struct adi_cell_key k = {.tag = grouping << 24 | adi_currency(ev.currency)};

        for (uint32_t i = 0; i < NAMES; i++) {
                (void)snprintf(names[i], sizeof(names[i]), "n%u", i);
                ok(adi_names_get(&inside(r)->names, df_bytes_str(names[i]), &numbers[i], err));
        }
        ok(adi_names_get(&inside(r)->names, ev.tenant_id, &k.tenant, err));
        for (uint32_t d = 0; d < g->dim_count; d++)
                ok(adi_names_get(&inside(r)->names, ev.dims[g->dims[d]], &k.dims[d], err));
        memset(seen, 0, sizeof(seen));
        for (uint32_t i = 0; i < NAMES * NAMES && !found; i++) {
                uint32_t hash, home;

                for (uint32_t d = 0; d < g->dim_count; d++) {
                        if (g->dims[d] == x)
                                k.dims[d] = numbers[i / NAMES];
                        if (g->dims[d] == y)
                                k.dims[d] = numbers[i % NAMES];
                }
                hash = adi_cell_hash(&k, g->dim_count);
                home = hash % SLOTS;
                for (; seen[home] && !found; home = (home + 1) % SLOTS) {
                        uint32_t j = seen[home] - 1;
                        struct adi_cell_key other = k;

                        for (uint32_t d = 0; d < g->dim_count; d++) {
                                if (g->dims[d] == x)
                                        other.dims[d] = numbers[j / NAMES];
                                if (g->dims[d] == y)
                                        other.dims[d] = numbers[j % NAMES];
                        }
                        if (adi_cell_hash(&other, g->dim_count) == hash) {
                                at[0] = j;
                                at[1] = i;
                                found = 1;
                        }
                }
                seen[home] = i + 1;
        }
        assert_int_equal(found, 1); /* 490,000 keys: about 28 such pairs */
        for (int n = 0; n < 4; n++) {
                ev.dims[x] = df_bytes_str(names[at[n % 2] / NAMES]);
                ev.dims[y] = df_bytes_str(names[at[n % 2] % NAMES]);
                feed(r, ev);
        }
        rig_heartbeat(r, BASE_MS + 3600000);
        rig_cut(r);
        for (size_t i = 0; i < r->view.size; i++)
                for (struct entry *e = r->view.heads[i]; e; e = e->next) {
                        if (e->grouping != grouping)
                                continue;
                        assert_int_equal(e->cell.clicks, 2);
                        rows++;
                }
        assert_int_equal(rows, 2);
}

static void test_keys_with_one_hash_are_kept_apart(void **state)
{
        static const struct ad_groupings wide = {
                .count = 2,
                .list = {{2, {0, 1}}, {7, {0, 1, 2, 3, 4, 5, 6}}},
        };
        struct rig r;

        (void)state;
        begin(&r);
        check_collision(&r, 0, AD_DIM_ADVERTISER, AD_DIM_CAMPAIGN);
        rig_release(&r);
        rig_init(&r);
        r.params.groupings = &wide;
        rig_start(&r);
        check_collision(&r, 1, AD_DIM_COUNTRY, AD_DIM_DEVICE);
        rig_release(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_what_does_not_fit_waits_and_holds_final_through),
                cmocka_unit_test(test_what_is_sent_again_waits_too),
                cmocka_unit_test(test_an_import_of_a_year_of_minutes),
                cmocka_unit_test(test_deltas_are_written_together),
                cmocka_unit_test(test_overflow_counts_nowhere),
                cmocka_unit_test(test_damaged_state_is_refused),
                cmocka_unit_test(test_state_with_a_wrong_byte_is_survived),
                cmocka_unit_test(test_names_are_forgotten),
                cmocka_unit_test(test_keys_with_one_hash_are_kept_apart),
                cmocka_unit_test(test_a_rebuilt_task_sends_every_live_row_again),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
