/* The follower: collections from a real file log into the view, once each, over restarts and losses
 * (K5, K11, L2). */
#include "rollups_test.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "jobs/api/follow_private.h"

static void path_of(const struct rt *t, const char *name, char ret[400])
{
        (void)snprintf(ret, 400, "%s/%s", t->dir, name);
}

static void test_visible_soon(void **state)
{
        struct rt t;
        int64_t began;

        rt_init(&t, 0);
        rt_publish(&t, 0, "c1", RT_BASE_MINUTE, 10);
        rt_follow(&t);
        rt_wait(rt_sum(&t) == 10);
        began = df_monotonic_ms();
        rt_publish(&t, 1, "c1", RT_BASE_MINUTE, 5); /* another source: added */
        rt_wait(rt_sum(&t) == 15);
        print_message("visible after %lld ms\n", (long long)(df_monotonic_ms() - began));
        rt_publish(&t, 0, "c1", RT_BASE_MINUTE, 12); /* W3: an absolute value: replaced */
        rt_wait(rt_sum(&t) == 17);
        assert_true(rt_metric(&t, "adtally_view_chain_gaps") == 0);
        rt_release(&t);
}

/* K5: what has no seal is not seen, also not after a restart in the middle of it. */
static void test_unsealed(void **state)
{
        struct df_buf payload = {0};
        struct rt t;

        rt_init(&t, 0);
        rt_publish(&t, 0, "c1", RT_BASE_MINUTE, 10);
        rt_row(&payload, "c2", RT_BASE_MINUTE, 7);
        rt_payload(&t, 0, 1, &payload);
        rt_publish(&t, 1, "c1", RT_BASE_MINUTE, 1);
        rt_follow(&t);
        rt_wait(rt_sum(&t) == 11);
        rt_stop(&t);
        rt_follow(&t);
        rt_wait(rt_metric(&t, "adtally_view_ready") == 1);
        assert_int_equal(rt_sum(&t), 11);
        rt_seal(&t, 0, 1, &payload, 7, false);
        rt_wait(rt_sum(&t) == 18);
        df_buf_release(&payload);
        rt_release(&t);
}

/* K5: another owner's copy of an applied checkpoint is dropped; one that does not match its seal
 * too, with an alarm. */
static void test_repeated_and_damaged(void **state)
{
        struct df_buf payload = {0};
        struct rt t;

        rt_init(&t, 0);
        rt_row(&payload, "c1", RT_BASE_MINUTE, 10);
        rt_payload(&t, 0, 1, &payload);
        rt_seal(&t, 0, 1, &payload, 10, false);
        t.k[0]--; /* once more, as epoch 2 */
        t.last[0].digest = (struct df_hash128){0, 0};
        rt_payload(&t, 0, 2, &payload);
        rt_seal(&t, 0, 2, &payload, 10, false);
        rt_follow(&t);
        rt_wait(rt_metric(&t, "adtally_view_repeated_collections_total") == 1);
        rt_wait(rt_sum(&t) == 10);
        rt_payload(&t, 0, 2, &payload);
        rt_seal(&t, 0, 2, &payload, 10, true);
        rt_wait(rt_metric(&t, "adtally_view_damaged_collections_total") == 1);
        assert_int_equal(rt_sum(&t), 10);
        df_buf_release(&payload);
        rt_release(&t);
}

static uint64_t retain(struct rt *t)
{
        uint64_t deleted = 0;

        ok(df_filelog_retain(t->log, "rollups", INT64_MAX, &deleted, err));
        return deleted;
}

/* L2: the log forgets only what a snapshot holds, and the snapshot is enough to go on. */
static void test_snapshot(void **state)
{
        char view[400], snapshot[400], mark[400];
        struct rt t;

        rt_init(&t, 4096);
        t.options.snapshot_every_ms = INT64_MAX;
        t.options.snapshot_every_bytes = UINT64_MAX;
        path_of(&t, "view", view);
        path_of(&t, "view-snapshot", snapshot);
        path_of(&t, AD_VIEW_ACCEPT_LOSS, mark);
        rt_follow(&t);
        for (int i = 0; i < 60; i++)
                rt_publish(&t, 0, "c1", RT_BASE_MINUTE + i, 1);
        rt_wait(rt_sum(&t) == 60);
        assert_int_equal(retain(&t), 0);
        rt_stop(&t);
        t.options.snapshot_every_bytes = 1;
        rt_follow(&t);
        rt_publish(&t, 0, "c1", RT_BASE_MINUTE + 60, 1);
        rt_wait(rt_metric(&t, "adtally_view_snapshots_total") >= 1);
        rt_wait(retain(&t) > 0);
        t.options.snapshot_every_bytes = UINT64_MAX;
        rt_stop(&t);
        rt_publish(&t, 0, "c1", RT_BASE_MINUTE + 61, 1);
        remove_dir(view);
        rt_follow(&t); /* from the snapshot and the rest of the log */
        rt_wait(rt_sum(&t) == 62);
        assert_true(rt_metric(&t, "adtally_view_chain_gaps") == 0);
        rt_stop(&t);

        /* Both lost: refused by name, until somebody accepts it. */
        remove_dir(view);
        remove_dir(snapshot);
        refuses(DF_ESCHEMA, "backup", ad_follow_start(&t.options, &t.follow, err));
        t.follow = NULL;
        overwrite(mark, "", 0);
        rt_follow(&t);
        rt_wait(rt_metric(&t, "adtally_view_chain_gaps") == 1); /* and it shows */
        rt_wait(access(mark, F_OK) != 0);
        rt_release(&t);
}

/* A question that meets damage: the view is opened anew, readers get NULL or a whole view. */
static void test_suspect(void **state)
{
        struct rt t;

        rt_init(&t, 0);
        rt_publish(&t, 0, "c1", RT_BASE_MINUTE, 10);
        rt_follow(&t);
        rt_wait(rt_sum(&t) == 10);
        ad_follow_suspect(t.follow);
        rt_wait(rt_metric(&t, "adtally_view_reopened_total") == 1);
        rt_wait(rt_sum(&t) == 10);
        rt_publish(&t, 0, "c2", RT_BASE_MINUTE, 1);
        rt_wait(rt_sum(&t) == 11);
        rt_release(&t);
}

/* K11: what the realtime job refuses is named in answers. */
static void test_missing_partitions(void **state)
{
        static const char text[] =
                "# adtally realtime pid=1 started_ms=1 written_ms=1234\n"
                "adtally_task_running{stream=\"events\",partition=\"0\"} 1\n"
                "adtally_partition_refused{stream=\"import.a\",partition=\"0\",code=\"corrupt\"} "
                "1\n"
                "adtally_partition_refused{stream=\"events\",partition=\"1\",code=\"corrupt\"} 1\n";
        struct ad_outside o = {0};
        struct ad_status *s = NULL;
        char path[400];
        size_t missing = 0;
        struct rt t;

        for (size_t cut = 0; cut <= strlen(text); cut++) {
                struct adi_instances said = {0};

                adi_instances_add(&said, df_bytes(text, cut), true);
                adi_instances_missing(&said, &o);
        }
        assert_int_equal(o.missing_count, 1);
        assert_int_equal(o.missing[0], 1);
        assert_int_equal(o.realtime_seen_ms, 1234);
        rt_init(&t, 0);
        path_of(&t, "run/realtime.prom", path);
        overwrite(path, text, strlen(text));
        rt_follow(&t);
        while (missing == 0) {
                struct ad_view *v = ad_follow_take(t.follow);

                s = ad_view_status(v);
                missing = s->outside.missing_count;
                ad_status_release(s);
                ad_follow_give(t.follow);
                rt_pause();
        }
        assert_int_equal(missing, 1);
        rt_release(&t);
}

#define RUNS(p, v) "adtally_task_running{stream=\"events\",partition=\"" p "\"} " v "\n"
#define REFUSES(p)                                                                                 \
        "adtally_partition_refused{stream=\"events\",partition=\"" p "\",code=\"corrupt\"} 1\n"

/* K11, with several realtime processes: what one refuses or held may be run by another. */
static void test_missing_of_several(void **state)
{
        static const struct {
                const char *one, *two; /* what each says */
                bool one_alive, two_alive;
                const char *missing; /* a digit each */
        } cases[] = {
                {RUNS("0", "1"), RUNS("1", "1"), true, true, ""},
                {RUNS("0", "1"), RUNS("1", "1"), true, false, "1"},
                {RUNS("0", "1") RUNS("1", "1"), RUNS("1", "1"), true, false, ""},
                {RUNS("0", "1"), RUNS("0", "0") REFUSES("0"), true, true, ""},
                {RUNS("0", "0"), RUNS("0", "0") REFUSES("0"), true, true, "0"},
                {RUNS("0", "0") RUNS("1", "1"), RUNS("2", "1"), true, true, "0"},
                {RUNS("0", "1"), RUNS("1", "0") REFUSES("1"), false, false, "1"},
                {RUNS("0", "0"), NULL, true, true, ""}, /* alone: it is about to run it */
                {RUNS("0", "1"), NULL, false, true, ""},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct adi_instances said = {0};
                struct ad_outside o = {0};
                char missing[16] = "";

                adi_instances_add(&said, df_bytes_str(cases[i].one), cases[i].one_alive);
                if (cases[i].two)
                        adi_instances_add(&said, df_bytes_str(cases[i].two), cases[i].two_alive);
                adi_instances_missing(&said, &o);
                for (size_t n = 0; n < o.missing_count && n < 15; n++)
                        missing[n] = (char)('0' + o.missing[n]);
                if (strcmp(missing, cases[i].missing) != 0)
                        fail_msg("case %zu: missing \"%s\", not \"%s\"", i, missing,
                                 cases[i].missing);
        }
}

static void append_events(struct rt *t, uint32_t partition, size_t count)
{
        struct ad_batch h = {.start_id = 3, .schema_version = AD_SCHEMA_VERSION};
        struct ad_event ev = {.event_id = df_bytes_str("e"),
                              .tenant_id = df_bytes_str("default"),
                              .type = AD_CLICK,
                              .event_ms = 1,
                              .receive_ms = 1};
        struct df_buf one = {0}, b = {0};

        ad_wire_event(&one, &ev);
        for (size_t i = 0; i < count; i++)
                ad_wire_batch_entry(&b, df_buf_bytes(&one));
        ad_wire_batch_header(&b, &h);
        rt_append(t->events, partition, &b);
        df_buf_release(&one);
        df_buf_release(&b);
}

static void append_heartbeat(struct rt *t, uint32_t partition, uint64_t start_id, int64_t at_ms,
                             uint64_t received)
{
        struct ad_batch h = {.start_id = start_id,
                             .has_heartbeat = true,
                             .heartbeat = {.receive_ms = at_ms,
                                           .received = received,
                                           .accepted = received - 1,
                                           .rejected = 1,
                                           .partition_accepted = received}};
        struct df_buf b = {0};

        ad_wire_batch_header(&b, &h);
        rt_append(t->events, partition, &b);
        df_buf_release(&b);
}

/* Pending events are counted in the log, and the newest heartbeat of each ingest start is found. */
static void test_pending(void **state)
{
        struct ad_tail *tail = calloc(1, sizeof(*tail));
        struct ad_view *v;
        struct ad_status *s;
        struct rt t;

        assert_non_null(tail);
        rt_init(&t, 0);
        append_events(&t, 0, 3);
        append_events(&t, 0, 4);
        append_events(&t, 1, 5);
        append_heartbeat(&t, 0, 70, 2000, 12);
        append_heartbeat(&t, 1, 70, 4000, 14);
        append_heartbeat(&t, 1, 70, 3000, 13);
        append_heartbeat(&t, 1, 71, 1000, 5);
        t.last[0].to_offset = 1; /* the seal covers the first record */
        rt_publish(&t, 0, "c1", RT_BASE_MINUTE, 3);
        rt_follow(&t);
        rt_wait(rt_sum(&t) == 3);
        v = ad_follow_take(t.follow);
        assert_non_null(v);
        s = ad_view_status(v);
        ok(ad_follow_tail(t.follow, s, tail, err));
        assert_true(tail->exact);
        assert_int_equal(tail->events[0], 4);
        assert_int_equal(tail->events[1], 5);
        assert_int_equal(tail->edge_count, 2);
        assert_int_equal(tail->edges[0].start_id, 70);
        assert_int_equal(tail->edges[0].received, 14);
        assert_int_equal(tail->edges[0].accepted, 13);
        assert_int_equal(tail->edges[0].partition_accepted, 0); /* the tasks have not seen it */
        assert_int_equal(tail->edges[1].received, 5);
        free(tail);
        ad_status_release(s);
        ad_follow_give(t.follow);
        rt_release(&t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_visible_soon),
                cmocka_unit_test(test_unsealed),
                cmocka_unit_test(test_repeated_and_damaged),
                cmocka_unit_test(test_snapshot),
                cmocka_unit_test(test_suspect),
                cmocka_unit_test(test_missing_partitions),
                cmocka_unit_test(test_missing_of_several),
                cmocka_unit_test(test_pending),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
