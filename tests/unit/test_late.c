/* test_late.c - the late side output (W5): what is late depends on the events before it in the
 * partition alone, to the millisecond, and never on where batches, checkpoints or restores fell. */
#include "unit.h"

#include "tumble_test.h"

#define LATE_MAX 4000

struct seen { /* the late events of a run, in order */
        struct {
                uint64_t offset;
                uint32_t index;
                int64_t watermark_ms, append_ms, event_ms;
                char event_id[32];
        } list[LATE_MAX];
        size_t count;
};

static int on_late(void *arg, const struct ad_late *late, struct df_error *err)
{
        struct seen *s = arg;
        struct ad_event ev;

        assert_int_equal(ad_wire_event_decode(late->event, &ev, err), 0);
        assert_in_range(s->count, 0, LATE_MAX - 1);
        s->list[s->count].offset = late->offset;
        s->list[s->count].index = late->index;
        s->list[s->count].watermark_ms = late->watermark_ms;
        s->list[s->count].append_ms = late->append_ms;
        s->list[s->count].event_ms = ev.event_ms;
        (void)snprintf(s->list[s->count].event_id, 32, "%.*s", (int)ev.event_id.len,
                       (const char *)ev.event_id.data);
        s->count++;
        return 0;
}

static struct ad_event click(int64_t event_ms, int64_t receive_ms)
{
        return (struct ad_event){
                .type = AD_CLICK,
                .tenant_id = df_bytes_str("acme"),
                .dims = {df_bytes_str("a"), df_bytes_str("c")},
                .currency = df_bytes_str("EUR"),
                .event_ms = event_ms,
                .receive_ms = receive_ms,
                .cost_nanos = 5000,
        };
}

static void send(struct rig *r, int64_t event_ms, int64_t receive_ms)
{
        struct ad_event ev = click(event_ms, receive_ms);

        r->append_ms = receive_ms;
        rig_feed(r, &ev, 1);
}

/* The watermark just before the event, against its window's end + grace: one ms decides. */
static void test_one_millisecond_decides(void **state)
{
        static struct seen seen;
        int64_t settled = BASE_MS + 2 * MINUTE_MS; /* end + grace of the first window */
        struct rig r;

        (void)state;
        rig_init(&r);
        r.on_late = on_late;
        r.arg = &seen;
        rig_start(&r);
        send(&r, settled + 5000 - 1, settled + 5000 - 1);  /* watermark: settled - 1 */
        send(&r, BASE_MS, settled + 5000);                 /* not late; moves no watermark */
        send(&r, settled + 5000, settled + 5000);          /* watermark: settled */
        send(&r, BASE_MS, settled + 5000);                 /* late, though the first of its place */
        send(&r, BASE_MS + MINUTE_MS - 1, settled + 5000); /* late: the window's last ms */
        send(&r, BASE_MS + MINUTE_MS, settled + 5000);     /* the next window is open */
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_LATE], 2);
        assert_int_equal(r.outcomes[AD_COUNTED], 4);
        assert_int_equal(seen.count, 2);
        for (size_t i = 0; i < 2; i++) {
                assert_int_equal(seen.list[i].offset, 3 + i);
                assert_int_equal(seen.list[i].index, 0);
                assert_int_equal(seen.list[i].watermark_ms, settled);
                assert_int_equal(seen.list[i].append_ms, settled + 5000);
        }
        assert_int_equal(seen.list[0].event_ms, BASE_MS);
        assert_int_equal(seen.list[1].event_ms, BASE_MS + MINUTE_MS - 1);
        rig_release(&r);
}

/* T3, W5: an event is judged against those before it, also inside its record. */
static void test_judged_inside_the_record(void **state)
{
        static struct seen seen;
        int64_t now = BASE_MS + 2 * MINUTE_MS + 5000;
        struct ad_event events[3] = {click(BASE_MS, now), click(now, now), click(BASE_MS, now)};
        struct rig r;

        (void)state;
        rig_init(&r);
        r.on_late = on_late;
        r.arg = &seen;
        rig_start(&r);
        r.append_ms = now;
        rig_feed(&r, events, 3);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_COUNTED], 2);
        assert_int_equal(seen.count, 1);
        assert_int_equal(seen.list[0].index, 2);
        assert_string_equal(seen.list[0].event_id, "e2");
        rig_release(&r);
}

/* A late event moves the watermark like any other (T3), and a heartbeat does too. */
static void test_heartbeats_make_events_late(void **state)
{
        struct rig r;

        (void)state;
        rig_init(&r);
        rig_start(&r);
        rig_heartbeat(&r, BASE_MS + 2 * MINUTE_MS + 4999);
        send(&r, BASE_MS, BASE_MS + 2 * MINUTE_MS + 4999);
        rig_heartbeat(&r, BASE_MS + 2 * MINUTE_MS + 5000);
        send(&r, BASE_MS, BASE_MS + 2 * MINUTE_MS + 5000);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_COUNTED], 1);
        assert_int_equal(r.outcomes[AD_LATE], 1);
        rig_release(&r);
}

/* R6: in an import nothing is late. */
static void test_nothing_is_late_in_an_import(void **state)
{
        struct rig r;

        (void)state;
        rig_init(&r);
        r.config.rules.bounded = true;
        rig_start(&r);
        send(&r, BASE_MS + 86400000, BASE_MS + 86400000);
        send(&r, BASE_MS, BASE_MS + 86400000);
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_COUNTED], 2);
        rig_release(&r);
}

/* ---- cuts ---- */

/* The same events, in the same records, with other cuts and restores. */
static void run(uint64_t seed, uint32_t cut_permille, uint32_t restore_permille, bool one_record,
                struct seen *ret, uint64_t *ret_recounted)
{
        struct df_sim_random random, cuts;
        int64_t now = BASE_MS;
        struct recount o;
        struct rig r;

        rig_init(&r);
        r.seed = seed;
        r.on_late = on_late;
        r.arg = ret;
        rig_start(&r);
        recount_init(&o, &r);
        df_sim_random_init(&random, seed);
        df_sim_random_init(&cuts, seed + cut_permille);
        memset(ret, 0, sizeof(*ret));
        for (int i = 0; i < 60; i++) {
                struct ad_event events[40];

                r.append_ms = now;
                for (int j = 0; j < 40; j++) {
                        events[j] = click(now - df_sim_random_between(&random, 0, 180000), now);
                        recount_event(&o, &events[j], false);
                        if (!one_record)
                                rig_feed(&r, &events[j], 1);
                        now += df_sim_random_between(&random, 0, 300);
                        r.append_ms = now;
                }
                if (one_record)
                        rig_feed(&r, events, 40);
                if (!df_sim_random_chance(&cuts, cut_permille))
                        continue;
                rig_cut(&r);
                if (df_sim_random_chance(&cuts, restore_permille))
                        rig_restore(&r);
        }
        rig_cut(&r);
        assert_int_equal(r.outcomes[AD_LATE], o.late);
        assert_int_equal(r.outcomes[AD_COUNTED], o.counted);
        *ret_recounted = o.late;
        recount_release(&o);
        rig_release(&r);
}

static void check_same(uint64_t seed, const struct seen *a, const struct seen *b, bool places)
{
        if (a->count != b->count)
                fail_msg("seed %llu: %zu late events, then %zu", (unsigned long long)seed, a->count,
                         b->count);
        for (size_t i = 0; i < a->count; i++)
                if (strcmp(a->list[i].event_id, b->list[i].event_id) != 0 ||
                    a->list[i].watermark_ms != b->list[i].watermark_ms ||
                    (places && (a->list[i].offset != b->list[i].offset ||
                                a->list[i].index != b->list[i].index)))
                        fail_msg("seed %llu: late event %zu is another", (unsigned long long)seed,
                                 i);
}

static void test_lateness_does_not_depend_on_cuts(void **state)
{
        static struct seen whole, other;
        uint64_t recounted;

        (void)state;
        for (uint64_t seed = 1; seed <= 8; seed++) {
                run(seed, 0, 0, false, &whole, &recounted);
                assert_int_equal(whole.count, recounted);
                assert_true(recounted > 100);
                run(seed, 200, 300, false, &other, &recounted);
                check_same(seed, &whole, &other, true);
                run(seed, 1000, 1000, false, &other, &recounted);
                check_same(seed, &whole, &other, true);
                run(seed, 500, 500, true, &other, &recounted); /* other records, other places */
                check_same(seed, &whole, &other, false);
        }
}

static void test_a_negative_grace_is_refused(void **state)
{
        static const struct df_operator_ops *const chain[] = {&ad_op_late};
        struct df_error e = {0};
        struct rig r;

        (void)state;
        rig_init(&r);
        r.params.grace_ms = -1;
        r.config.chain = chain;
        r.config.chain_length = 1;
        r.config.params = &r.params;
        r.store = df_sim_store_create(NULL);
        assert_int_equal(df_task_create(&r.config, r.store, &r.task, &e), DF_EINVAL);
        assert_non_null(strstr(e.text, "grace of -1"));
        r.task = NULL;
        rig_release(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_one_millisecond_decides),
                cmocka_unit_test(test_judged_inside_the_record),
                cmocka_unit_test(test_heartbeats_make_events_late),
                cmocka_unit_test(test_nothing_is_late_in_an_import),
                cmocka_unit_test(test_lateness_does_not_depend_on_cuts),
                cmocka_unit_test(test_a_negative_grace_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
