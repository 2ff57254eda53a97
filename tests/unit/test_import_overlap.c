/* Import (R6): what may not be added to: half imports and their abort, other datasets, live data.
 * */
#include "import_test.h"

static void stop_in_the_middle(struct ad_import_options *o)
{
        struct ad_import_summary s;
        struct stop stop = {2};
        struct df_error err;

        o->hook = stop_hook;
        o->hook_arg = &stop;
        assert_int_equal(run(o, &s, &err), DF_ECRASH);
        o->hook = NULL;
}

/* --abort voids the rows; they are not known afterwards, and dedupe must not know them either: they
 * come again in a topic of their own, and what was complete before stays known. */
static void aborted_rows_come_again_in_a_new_topic(void **state)
{
        const char *const again[] = {"1554076805000 2 b", NULL};
        struct ad_import_options o;
        struct ad_import_summary s;
        struct df_error err;
        struct content c;
        struct place p;
        uint64_t events;
        char topic[DF_TOPIC_NAME_MAX + 1];

        (void)state;
        begin(&p);
        o = options(&p);
        write_rows(&p, "1,view,a\n");
        assert_int_equal(run(&o, &s, &err), 0);
        (void)snprintf(topic, sizeof(topic), "%s", s.topic);
        assert_int_equal(ad_import_abort(&o.place, &events, &err), DF_ENOENT);

        write_rows(&p, "1,view,a\n5,click,b\n");
        stop_in_the_middle(&o);
        write_rows(&p, "1,view,a\n6,click,b\n"); /* another file must not go on with it */
        assert_int_equal(run(&o, &s, &err), DF_EFENCED);
        assert_int_equal(ad_import_abort(&o.place, &events, &err), 0);
        assert_int_equal(events, 1);
        read_topic(&p, topic, &c);
        assert_true(c.begins == 2 * P && c.ends == P && c.aborts == P);
        drop(&c);
        assert_int_equal(ad_import_abort(&o.place, &events, &err), DF_ENOENT);

        write_rows(&p, "1,view,a\n5,click,b\n");
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 1 && s.known == 1);
        assert_string_not_equal(s.topic, topic);
        expect(&p, s.topic, 1, again);
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 0 && s.known == 2);
        end(&p);
}

static void only_one_import_of_a_dataset_at_a_time(void **state)
{
        struct ad_import_options o;
        struct ad_import_summary s;
        struct df_error err;
        struct place p;
        int lock;

        (void)state;
        begin(&p);
        o = options(&p);
        write_rows(&p, "1,view,a\n");
        assert_int_equal(ad_import_lock(&o.place, &lock, NULL), 0);
        assert_int_equal(run(&o, &s, &err), DF_EFENCED);
        close(lock);
        assert_int_equal(run(&o, &s, &err), 0);
        end(&p);
}

/* ---- overlap ---- */

static void another_dataset_in_the_same_time_is_refused(void **state)
{
        struct ad_import_options o;
        struct ad_import_summary s;
        struct df_error err;
        struct place p;

        (void)state;
        begin(&p);
        o = options(&p);
        write_rows(&p, "1,view,a\n5,click,b\n");
        assert_int_equal(run(&o, &s, &err), 0);

        o.place.dataset = df_bytes_str("other");
        write_rows(&p, "59,view,a\n60,click,b\n"); /* the declared range is whole minutes */
        assert_int_equal(run(&o, &s, &err), DF_EEXIST);
        assert_non_null(strstr(err.text, "import_overlaps: 1 of 2"));
        write_rows(&p, "60,view,a\n-1,click,b\n");
        assert_int_equal(run(&o, &s, &err), 0);
        assert_int_equal(s.fresh, 2);

        o.place.tenant = df_bytes_str("somebody"); /* of another tenant: no matter */
        write_rows(&p, "1,view,a\n");
        assert_int_equal(run(&o, &s, &err), 0);
        assert_true(s.fresh == 1);
        end(&p);
}

/* An open or cut-off import of another dataset holds its range, an aborted one does not. */
static void half_imports_hold_their_range_until_aborted(void **state)
{
        struct ad_import_options o, other;
        struct ad_import_summary s;
        struct df_error err;
        struct place p;
        uint64_t events;

        (void)state;
        begin(&p);
        o = options(&p);
        other = options(&p);
        other.place.dataset = df_bytes_str("other");
        write_rows(&p, "1,view,a\n");
        stop_in_the_middle(&o);
        assert_int_equal(run(&other, &s, &err), DF_EEXIST);
        assert_int_equal(ad_import_abort(&o.place, &events, &err), 0);
        assert_int_equal(run(&other, &s, &err), 0);
        assert_int_equal(run(&o, &s, &err), DF_EEXIST); /* now it is the other way round */
        end(&p);
}

static void put_live_row(struct place *p, const char *tenant, uint64_t minute, uint64_t k)
{
        struct ad_row row = {.minute = minute,
                             .tenant_id = df_bytes_str(tenant),
                             .dims = {df_bytes_str("a"), df_bytes_str("c")},
                             .dim_count = 2,
                             .currency = df_bytes_str("EUR"),
                             .cell = {.clicks = 1}};
        struct df_origin origin = {.source = {.stream = "events", .generation = 7, .partition = 0},
                                   .k = k,
                                   .epoch = 1};
        struct df_buf payload = {0}, record = {0};
        struct df_log_writer *w;
        struct df_append item = {.partition = 0};

        ad_wire_row(&payload, &row);
        df_output_encode(&record, &origin, df_buf_bytes(&payload));
        item.value = df_buf_bytes(&record);
        assert_int_equal(df_log_topic_create(p->log, "events", P, NULL), 0);
        assert_int_equal(df_log_topic_create(p->log, "rollups", P, NULL), 0);
        assert_int_equal(df_log_writer_open(p->log, "rollups", &w, NULL), 0);
        assert_int_equal(df_log_append(w, &item, 1, NULL), 0);
        df_log_writer_close(w);
        df_buf_release(&payload);
        df_buf_release(&record);
}

static void put_live_event(struct place *p, int64_t event_ms)
{
        struct ad_event ev = {.event_id = df_bytes_str("x"),
                              .tenant_id = df_bytes_str("default"),
                              .type = AD_CLICK,
                              .event_ms = event_ms,
                              .receive_ms = event_ms};
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_buf event = {0}, record = {0};
        struct df_log_writer *w;
        struct df_append item = {.partition = 1};

        ad_wire_event(&event, &ev);
        ad_wire_batch_entry(&record, df_buf_bytes(&event));
        ad_wire_batch_header(&record, &header);
        item.value = df_buf_bytes(&record);
        assert_int_equal(df_log_writer_open(p->log, "events", &w, NULL), 0);
        assert_int_equal(df_log_append(w, &item, 1, NULL), 0);
        df_log_writer_close(w);
        df_buf_release(&event);
        df_buf_release(&record);
}

/* Without a server the log says where live data is: rows of `events` in rollups, and events that
 * nobody counted yet. */
static void live_data_is_found_in_the_log(void **state)
{
        struct ad_import_options o;
        struct ad_import_summary s;
        struct df_error err;
        struct place p;

        (void)state;
        begin(&p);
        o = options(&p);
        put_live_row(&p, "default", FROM / 60000 + 10, 1);
        put_live_row(&p, "default", FROM / 60000 + 12, 2);
        put_live_row(&p, "somebody", FROM / 60000 + 40, 3);
        write_rows(&p, "600,view,a\n660,view,a\n779,view,a\n");
        assert_int_equal(run(&o, &s, &err), DF_EEXIST);
        assert_int_equal(s.overlap, 3);
        put_live_event(&p, FROM + 20 * 60000);
        write_rows(&p, "599,view,a\n780,view,b\n1200,view,c\n1201,view,d\n");
        assert_int_equal(run(&o, &s, &err), DF_EEXIST);
        assert_int_equal(s.overlap, 2); /* 780 and 1200 */
        write_rows(&p, "599,view,a\n2400,view,b\n");
        assert_int_equal(run(&o, &s, &err), 0);
        assert_int_equal(s.fresh, 2);
        end(&p);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(aborted_rows_come_again_in_a_new_topic),
                cmocka_unit_test(only_one_import_of_a_dataset_at_a_time),
                cmocka_unit_test(another_dataset_in_the_same_time_is_refused),
                cmocka_unit_test(half_imports_hold_their_range_until_aborted),
                cmocka_unit_test(live_data_is_found_in_the_log),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
