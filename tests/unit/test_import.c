/* Import, second half: runs over a real file log (R6): which rows are new, and runs that are cut
 * off anywhere. */
#include "import_test.h"

/* ---- runs ---- */

/* R6: equal rows of a file are different occurrences; the same file again is nothing new; an equal
 * row more is one more. */
static void equal_rows_count_each_and_files_only_once(void **state)
{
        const char *const two[] = {"1554076801000 1 a", "1554076801000 1 a", "1554076805000 2 b",
                                   NULL};
        const char *const three[] = {"1554076801000 1 a", "1554076801000 1 a", "1554076801000 1 a",
                                     "1554076805000 2 b", "1554076900000 3 c", NULL};
        struct ad_import_options o;
        struct ad_import_summary s;
        struct df_error err;
        struct place p;
        char topic[DF_TOPIC_NAME_MAX + 1];

        (void)state;
        begin(&p);
        o = options(&p);
        write_rows(&p, "1,view,a\n5,click,b\n1,view,a\n");
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.rows == 3 && s.fresh == 3 && s.known == 0 && s.wrote);
        assert_int_equal(s.from_ms, FROM);
        assert_int_equal(s.to_ms, FROM + 60000);
        (void)snprintf(topic, sizeof(topic), "%s", s.topic);
        expect(&p, topic, 1, two);

        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 0 && s.known == 3 && !s.wrote);
        expect(&p, topic, 1, two);

        write_rows(&p, "1,view,a\n1,view,a\n100,purchase,c\n1,view,a\n5,click,b\n");
        o.now_ms += 1000;
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 2 && s.known == 3 && s.wrote);
        expect(&p, topic, 2, three);
        end(&p);
}

/* The copy of the known ids may be lost, or belong to another log. */
static void known_ids_come_from_the_log(void **state)
{
        struct ad_import_options o;
        struct ad_import_summary s;
        struct df_error err;
        struct place p;
        char path[256];

        (void)state;
        begin(&p);
        o = options(&p);
        write_rows(&p, "1,view,a\n5,click,b\n");
        assert_int_equal(run(&o, &s, &err), 0);
        (void)snprintf(path, sizeof(path), "%s/imports/%s.ids", p.data, s.topic);
        assert_int_equal(unlink(path), 0);
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 0 && s.known == 2);

        df_log_close(p.log); /* a new log: nothing is known */
        assert_int_equal(nftw(p.log_dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
        assert_int_equal(df_mkdirs(p.log_dir, NULL), 0);
        open_log(&p);
        o = options(&p);
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 2 && s.known == 0);
        end(&p);
}

static int no_topic(void *arg, const struct df_topic_info *info)
{
        (void)arg;
        fail_msg("topic %s was written", info->name);
        return 0;
}

static void bad_rows_refuse_the_file_or_are_left_out(void **state)
{
        const char *const good[] = {"1554076801000 1 a", "1554076807000 2 c", NULL};
        struct ad_import_options o;
        struct ad_import_summary s = {0};
        struct df_error err = {0};
        struct place p;

        (void)state;
        begin(&p);
        o = options(&p);
        write_rows(&p, "1,view,a\n5,hover,b\n7,click,c\n8,click,\"d\n");
        assert_int_equal(ad_import_run(&o, &s, &err), DF_EPARSE);
        assert_int_equal(s.bad, 2);
        df_put_u8(&s.problems, 0);
        assert_non_null(strstr((char *)s.problems.data, "line 3: kind: \"hover\""));
        assert_non_null(strstr((char *)s.problems.data, "line 5:"));
        df_buf_release(&s.problems);
        assert_int_equal(df_log_topic_list(p.log, s.topic, no_topic, NULL, NULL), 0);
        o.skip_bad = true;
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 2 && s.bad == 2);
        expect(&p, s.topic, 1, good);
        end(&p);
}

static void dry_run_writes_nothing(void **state)
{
        struct ad_import_options o;
        struct ad_import_summary s;
        struct df_error err;
        struct place p;

        (void)state;
        begin(&p);
        o = options(&p);
        o.dry_run = true;
        write_rows(&p, "1,view,a\n");
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 1 && !s.wrote);
        o.dry_run = false;
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 1 && s.wrote);
        end(&p);
}

static void ids_of_the_file_are_kept_and_their_conflicts_shown(void **state)
{
        struct ad_import_options o;
        struct ad_import_summary s;
        struct df_error err;
        struct content c;
        struct place p;

        (void)state;
        begin(&p);
        o = options(&p);
        o.map.map = "time=event_time,kind=type,ad=event_id";
        write_rows(&p, "1,view,id1\n5,click,id2\n1,view,id1\n");
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 2 && s.known == 1);
        read_topic(&p, s.topic, &c);
        assert_string_equal(c.ids[0], "id1");
        assert_string_equal(c.ids[1], "id2");
        drop(&c);
        write_rows(&p, "1,view,id1\n9,click,id2\n"); /* the second says something else now */
        assert_int_equal(run(&o, &s, &err), DF_EPARSE);
        assert_true(s.bad == 1 && s.known == 1);
        write_rows(&p, "1,view,new\n9,click,new\n");
        assert_int_equal(run(&o, &s, &err), DF_EPARSE);
        assert_int_equal(s.bad, 1);
        end(&p);
}

/* ---- cut off anywhere ---- */

static void write_many(const struct place *p, unsigned rows)
{
        struct df_buf b = {0};

        for (unsigned i = 0; i < rows; i++)
                df_buf_printf(&b, "%u,%s,ad%u\n", i % 400, i % 9 ? "view" : "click", i % 7);
        df_put_u8(&b, 0);
        write_rows(p, (const char *)b.data);
        df_buf_release(&b);
}

static void expect_same(const struct content *a, const struct content *b, unsigned at)
{
        bool same = a->count == b->count && a->begins == b->begins && a->ends == b->ends &&
                    a->first.generation == b->first.generation;

        for (size_t i = 0; same && i < a->count; i++)
                same = strcmp(a->lines[i], b->lines[i]) == 0 && strcmp(a->ids[i], b->ids[i]) == 0;
        if (!same)
                fail_msg("cut %u: %zu events, expected %zu", at, b->count, a->count);
}

static void stopped_before_each_append_it_goes_on(void **state)
{
        const unsigned rows = 600;
        struct ad_import_summary s;
        struct content whole, c;
        struct df_error err;
        struct place p;

        (void)state;
        begin(&p);
        write_many(&p, rows);
        struct ad_import_options o = options(&p);
        assert_int_equal(run(&o, &s, &err), 0);
        read_topic(&p, s.topic, &whole);
        assert_int_equal(whole.count, rows);
        end(&p);
        for (int after = 0; after < 4; after++) {
                struct stop stop = {after};
                int rc;

                begin(&p);
                write_many(&p, rows);
                o = options(&p);
                o.hook = stop_hook;
                o.hook_arg = &stop;
                rc = run(&o, &s, &err);
                assert_int_equal(rc, after < 3 ? DF_ECRASH : 0); /* begin, rows, end */
                o.hook = NULL;
                if (after == 0) /* nothing was begun: this is a run of its own, at its own time */
                        assert_int_equal(o.now_ms, 1700000000000);
                else
                        o.now_ms += 12345; /* the time of the first run holds */
                assert_int_equal(run(&o, &s, &err), 0);
                if (after == 1)
                        assert_true(s.wrote && s.resumed == 0);
                if (after == 2)
                        assert_true(s.wrote && s.resumed == rows);
                read_topic(&p, s.topic, &c);
                expect_same(&whole, &c, (unsigned)after);
                drop(&c);
                end(&p);
        }
        drop(&whole);
}

struct records { /* a whole run, record by record and partition by partition */
        struct df_buf bytes[P][64];
        size_t count[P];
};

static void take_records(const struct place *p, const char *topic, struct records *ret)
{
        memset(ret, 0, sizeof(*ret));
        for (uint32_t i = 0; i < P; i++) {
                struct df_log_reader *r;
                struct df_record rec;
                size_t n = 1;

                assert_int_equal(df_log_reader_open(p->log, topic, i, 0, NULL, &r, NULL), 0);
                for (;;) {
                        assert_int_equal(df_log_poll(r, &rec, 1, &n, NULL), 0);
                        if (n == 0)
                                break;
                        assert_true(ret->count[i] < 64);
                        df_buf_append(&ret->bytes[i][ret->count[i]++], rec.value.data,
                                      rec.value.len);
                }
                df_log_reader_close(r);
        }
}

/* What a crash may leave of each partition: its begin; all rows or not; its end only where every
 * partition has all its rows. */
static bool may_be_left(const struct records *r, const size_t *kept)
{
        bool all_rows = true, any_end = false, all_begun = true, any_rows = false;

        for (int i = 0; i < P; i++) {
                all_rows = all_rows && kept[i] + 1 >= r->count[i];
                any_end = any_end || kept[i] == r->count[i];
                all_begun = all_begun && kept[i] > 0;
                any_rows = any_rows || kept[i] > 1;
        }
        return (!any_end || all_rows) && (!any_rows || all_begun);
}

static void put_prefix(struct place *p, const char *topic, struct records *r, const size_t *kept)
{
        struct df_log_writer *w;

        assert_int_equal(df_log_topic_create(p->log, topic, P, NULL), 0);
        assert_int_equal(df_log_writer_open(p->log, topic, &w, NULL), 0);
        for (uint32_t i = 0; i < P; i++) {
                struct df_append items[64];

                for (size_t k = 0; k < kept[i]; k++)
                        items[k] = (struct df_append){.partition = i,
                                                      .value = df_buf_bytes(&r->bytes[i][k])};
                if (kept[i])
                        assert_int_equal(df_log_append(w, items, kept[i], NULL), 0);
        }
        df_log_writer_close(w);
}

/* Every record boundary of every partition: what is there is kept, what is missing comes. */
static void cut_at_every_record_it_goes_on(void **state)
{
        const unsigned rows = 400;
        struct records *r = calloc(1, sizeof(*r));
        struct ad_import_summary s;
        struct content whole, c;
        struct df_error err;
        struct place p;
        size_t kept[P];
        unsigned cuts = 0;
        char topic[DF_TOPIC_NAME_MAX + 1];

        (void)state;
        assert_non_null(r);
        begin(&p);
        write_many(&p, rows);
        struct ad_import_options o = options(&p);
        assert_int_equal(run(&o, &s, &err), 0);
        (void)snprintf(topic, sizeof(topic), "%s", s.topic);
        read_topic(&p, topic, &whole);
        take_records(&p, topic, r);
        end(&p);
        for (kept[0] = 0; kept[0] <= r->count[0]; kept[0]++)
                for (kept[1] = 0; kept[1] <= r->count[1]; kept[1]++)
                        for (kept[2] = 0; kept[2] <= r->count[2]; kept[2]++) {
                                if (!may_be_left(r, kept))
                                        continue;
                                begin(&p);
                                write_many(&p, rows);
                                put_prefix(&p, topic, r, kept);
                                o = options(&p);
                                assert_int_equal(run(&o, &s, &err), 0);
                                read_topic(&p, topic, &c);
                                expect_same(&whole, &c, cuts++);
                                drop(&c);
                                assert_int_equal(run(&o, &s, &err), 0);
                                assert_int_equal(s.known, rows);
                                end(&p);
                        }
        assert_true(cuts > 20);
        for (int i = 0; i < P; i++)
                for (size_t k = 0; k < r->count[i]; k++)
                        df_buf_release(&r->bytes[i][k]);
        drop(&whole);
        free(r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(equal_rows_count_each_and_files_only_once),
                cmocka_unit_test(known_ids_come_from_the_log),
                cmocka_unit_test(bad_rows_refuse_the_file_or_are_left_out),
                cmocka_unit_test(dry_run_writes_nothing),
                cmocka_unit_test(ids_of_the_file_are_kept_and_their_conflicts_shown),
                cmocka_unit_test(stopped_before_each_append_it_goes_on),
                cmocka_unit_test(cut_at_every_record_it_goes_on),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
