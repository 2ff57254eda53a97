/* test_close_sources.c - what a close looks at beside the rows: corrections and earlier closes, the
 * archive's segments, imports (jobs/reconcile/close.h). */
#include "close_test.h"

static void test_corrections_cancels_and_earlier_periods(void **state)
{
        struct ad_command cancel = asked("cancel-1", AD_COMMAND_CANCEL);
        struct ad_manifest m;

        (void)state;
        make_key();
        put_usual_rows();
        archive_to(0, 3);
        archive_to(1, 2);
        ask_correction("fix-0", "other"); /* nobody's here */
        ask_correction("fix-1", "shop");
        ask_close("close-1", "2026-03", FROM, TO);
        ask_close("close-1", "2026-03", FROM, TO); /* the same id again is nothing */
        ask_close("close-2", "2026-04", TO, TO + 4);
        ask_correction("fix-2", "shop"); /* after the close: of the next one */
        /* This run began before anybody looked: it may not know fix-1. */
        g.begin.corrections_to = 1;
        ok(try_posted("r0", 3, 2, TO));
        assert_int_equal(g.appended, 0);
        posted("r1", 3, 2, TO - 1);
        waits("\"why\":\"not_final\"");
        waits("\"why\":\"earlier_period\",\"text\":\"the close of 2026-03 comes first\"");
        cancel.cancel = s("close-2");
        send(&cancel);
        g.begin.corrections_to = 2;
        posted("r2", 3, 2, TO + 4);
        assert_int_equal(g.appended, 1);
        check_manifest("r2", 3, 3);
        ok(ad_manifest_read(g.close.close.manifest, &g.arena, &m, &err));
        assert_int_equal(m.corrections_to, 2);
        assert_int_equal(m.command_count, 1); /* the tenant's own */
        assert_int_equal(m.commands[0].offset, 1);
        waits("\"closes\":[]");
        open_closer();
        posted("r3", 3, 2, TO + 4);
        assert_int_equal(g.appended, 1);
}

static void test_more_segments_than_are_listed(void **state)
{
        struct ad_manifest m;

        (void)state;
        make_key();
        put_usual_rows();
        archive_to(0, 3);
        archive_to(1, 2);
        for (g.segments_listed = 5; g.segments_listed >= 4; g.segments_listed--) {
                open_closer();
                ask_close(g.segments_listed == 5 ? "close-1" : "close-2", "2026-03", FROM, TO);
                posted("r1", 3, 2, TO);
                ok(ad_manifest_read(g.close.close.manifest, &g.arena, &m, &err));
                assert_int_equal(m.sources[0].parts[1].segments, 2);
                assert_int_equal(m.sources[0].parts[0].listed != NULL, g.segments_listed == 5);
                assert_int_equal(m.sources[0].parts[1].listed != NULL, g.segments_listed == 5);
        }
        assert_int_equal(g.appended, 2);
}

/* R6: a cell is the sum over the topics; one that has nothing of the period is not in the way. */
static void test_imports_are_sources_too(void **state)
{
        struct ad_fold *events = g.fold, *import = NULL;
        struct ad_manifest m;
        char path[128];

        (void)state;
        make_key();
        put_usual_rows();
        archive_to(0, 3);
        archive_to(1, 2);
        g.import = calloc(1, sizeof(*g.import));
        assert_non_null(g.import);
        (void)snprintf(g.import->pin.topic.name, sizeof(g.import->pin.topic.name), "import.x");
        g.import->pin.topic.partitions = 1;
        g.import->pin.span[0].to = 7;
        (void)snprintf(path, sizeof(path), "%s/import", g.dir);
        ok(ad_fold_open(g.import, path, &import, &err));
        g.fold = import;
        put_row('c', TO + 1, "acme", "c1", AD_CAUSE_NONE, 1, 1);
        put_row('c', FROM, "zoo", "c1", AD_CAUSE_NONE, 1, 1);
        g.fold = events;
        g.parts[1] = (struct ad_job_part){.run = g.import, .fold = import};
        g.posted.part_count = 2;
        ask_close("close-1", "2026-03", FROM, TO);
        posted("r1", 3, 2, TO);
        assert_int_equal(g.appended, 1);
        check_manifest("r1", 3, 3);
        ask_close("close-2", "2026-04", TO, TO + 4);
        posted("r2", 3, 2, TO + 4);
        waits("import.x/0 is archived up to offset 0, and run r2 has judged up to 7");
        g.import->pin.span[0].to = 0;
        posted("r3", 3, 2, TO + 4);
        g.begin.chain = s("bbbbbbbbbbbbbbbb");
        posted("r4", 3, 2, TO + 4);
        assert_int_equal(g.appended, 2);
        ok(ad_manifest_read(g.close.close.manifest, &g.arena, &m, &err));
        assert_int_equal(m.source_count, 2);
        assert_true(df_bytes_eq(m.sources[1].topic, s("import.x")));
        assert_int_equal(m.rows, 2); /* "after" of the live events, and the import's own */
        ad_fold_close(import);
        free(g.import);
}

static void test_without_an_archive_nothing_is_closed(void **state)
{
        struct df_objects *objects = g.objects;

        (void)state;
        make_key();
        put_usual_rows();
        ask_close("close-1", "2026-03", FROM, TO);
        g.objects = NULL;
        open_closer();
        posted("r1", 3, 2, TO);
        waits("\"why\":\"no_archive\"");
        g.objects = objects;
        assert_int_equal(g.appended, 0);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_corrections_cancels_and_earlier_periods,
                                                set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_more_segments_than_are_listed, set_up,
                                                tear_down),
                cmocka_unit_test_setup_teardown(test_imports_are_sources_too, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_without_an_archive_nothing_is_closed, set_up,
                                                tear_down),
        };

        roll_seed();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
