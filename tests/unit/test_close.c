/* test_close.c - closing a period: what it waits for, what the manifest says, and once, whatever
 * crashes (jobs/reconcile/close.h). Rows and totals are recounted by hand. */
#include "close_test.h"

/* ---- tests ---- */

static void test_it_waits_and_says_for_what(void **state)
{
        (void)state;
        put_usual_rows();
        ask_close("close-1", "2026-03", FROM, TO);
        idle();
        assert_true(ad_closer_wants_run(g.closer));
        waits("\"period\":\"2026-03\",\"state\":\"closing\",\"why\":\"waits_for_run\"");
        posted("r1", 3, 2, TO - 1);
        waits("\"why\":\"not_final\",\"text\":\"partition 1 is final through "
              "2026-03-30T03:45:00Z\"");
        assert_false(ad_closer_wants_run(g.closer));
        posted("r1", 3, 2, TO);
        waits("\"why\":\"archive_behind\",\"text\":\"events/0 is archived up to offset 0, and run "
              "r1 "
              "has judged up to 3\"");
        archive_to(0, 3);
        idle();
        waits("\"why\":\"archive_behind\",\"text\":\"events/1 is archived");
        archive_to(1, 2);
        idle();
        waits("\"why\":\"no_key\",\"text\":\"there is no key to sign the period with: `adtally key "
              "create --signing --data ");
        put_row('o', FROM + 5, "acme", "c1", AD_CAUSE_UNEXPLAINED, 1, 0);
        put_row('o', FROM + 6, "zoo", "c1", AD_CAUSE_UNEXPLAINED, 1, 0);
        make_key();
        posted("r2", 3, 2, TO);
        waits("\"why\":\"unexplained\",\"text\":\"1 cells of the period\"");
        idle(); /* no draft is left */
        assert_int_equal(g.appended, 0);
}

static void test_once_archived_it_is_signed_and_appended(void **state)
{
        (void)state;
        make_key();
        put_usual_rows();
        ask_close("close-1", "2026-03", FROM, TO);
        archive_to(0, 5);
        archive_to(1, 2);
        posted("r1", 3, 2, TO);
        assert_int_equal(g.appended, 1);
        check_manifest("r1", 3, 3);
        waits("\"closes\":[]");
        /* Nothing does it again: not a run, not a new process. */
        posted("r2", 5, 2, TO);
        open_closer();
        posted("r3", 5, 2, TO);
        assert_int_equal(g.appended, 1);
}

static void test_a_later_run_with_the_same_rows_keeps_the_draft(void **state)
{
        (void)state;
        make_key();
        put_usual_rows();
        ask_close("close-1", "2026-03", FROM, TO);
        archive_to(1, 2);
        posted("r1", 3, 2, TO);
        archive_to(0, 3);
        posted("r2", 9, 2, TO);
        assert_int_equal(g.appended, 1);
        check_manifest("r1", 3, 3);                           /* the vector that is archived; */
        assert_true(df_bytes_eq(g.close.close.run, s("r2"))); /* the books are further */
}

static void test_other_rows_make_a_new_draft(void **state)
{
        (void)state;
        make_key();
        put_usual_rows();
        put_row('c', FROM + 2, "acme", "c2", AD_CAUSE_NONE, 1, 1);
        ask_close("close-1", "2026-03", FROM, TO);
        archive_to(1, 2);
        posted("r1", 3, 2, TO);
        open_fold(); /* what is told now is without that row */
        put_usual_rows();
        posted("r2", 4, 2, TO);
        archive_to(0, 3);
        idle();
        waits("archive_behind");
        archive_to(0, 4);
        idle();
        assert_int_equal(g.appended, 1);
        check_manifest("r2", 4, 4);
        /* So does another chain, though the rows are the same. */
        ask_close("close-2", "2026-04", TO, TO + 4);
        posted("r3", 9, 2, TO + 4);
        g.begin.chain = s("bbbbbbbbbbbbbbbb");
        posted("r4", 9, 2, TO + 4);
        archive_to(0, 9);
        idle();
        assert_int_equal(g.appended, 2);
        assert_non_null(strstr((const char *)g.close.close.manifest.data, "\"run\":\"r4\""));
}

static void test_a_crash_appends_it_again_at_most(void **state)
{
        char path[128];

        (void)state;
        make_key();
        put_usual_rows();
        ask_close("close-1", "2026-03", FROM, TO);
        archive_to(0, 3);
        archive_to(1, 2);
        g.append_fails = 1;
        idle();
        fails(try_posted("r1", 3, 2, TO), DF_EAGAIN, "not now");
        g.append_fails = 0;
        idle();
        assert_int_equal(g.appended, 1);
        (void)snprintf(path, sizeof(path), "%s/reconcile/closes", g.dir);
        ok(df_remove_tree(path, &err)); /* as if it had died in between */
        open_closer();
        posted("r2", 3, 2, TO);
        assert_int_equal(g.appended, 2);
        check_manifest("r2", 3, 3); /* the same question: the books know it */
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_it_waits_and_says_for_what, set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_once_archived_it_is_signed_and_appended,
                                                set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_a_later_run_with_the_same_rows_keeps_the_draft,
                                                set_up, tear_down),
                cmocka_unit_test_setup_teardown(test_other_rows_make_a_new_draft, set_up,
                                                tear_down),
                cmocka_unit_test_setup_teardown(test_a_crash_appends_it_again_at_most, set_up,
                                                tear_down),
        };

        roll_seed();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
