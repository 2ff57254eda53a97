/* test_decode.c - E2 (poison), E3 (events a record), marks, first_seq, the seal's note. */
#include "unit.h"

#include "tests/unit/operators_test.h"

static const struct df_operator_ops *const chain[] = {&ad_op_decode, &ad_op_quarantine};

static bool is_mark(const struct rig_event *e)
{
        return (e->flags & AD_EV_MARK) != 0;
}

static size_t marks_of(const struct rig *r)
{
        size_t n = 0;

        for (size_t i = 0; i < r->seen_count; i++)
                n += is_mark(&r->seen[i]);
        return n;
}

static void check_bytes(struct df_bytes got, const char *want)
{
        assert_int_equal(got.len, strlen(want));
        assert_memory_equal(got.data, want, got.len);
}

/* Each record is a mark, then its events in order, with address and append time. */
static void test_events_and_marks(void **state)
{
        static const size_t sizes[] = {1, 0, 3, 63, 64, 65, 1, 1000, 2, 500, 0, 64, 7};
        struct ad_event *events = calloc(1000, sizeof(*events));
        struct rig r;
        size_t at = 0, total = 0;

        (void)state;
        assert_non_null(events);
        rig_open(&r, chain, 2);
        for (size_t i = 0; i < 1000; i++)
                events[i] = rig_event("some-id", RIG_T0 + (int64_t)i);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                rig_log(&r, &(struct ad_batch){.price_version = 3 + (uint32_t)i}, events, sizes[i],
                        RIG_T0 + 5000 + (int64_t)i);
                total += sizes[i];
        }
        rig_run(&r, SIZE_MAX);
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
                assert_true(is_mark(&r.seen[at]));
                assert_true(r.seen[at].outcome == AD_SKIP);
                assert_int_equal(r.seen[at].offset, i);
                assert_int_equal(r.seen[at].append_ms, RIG_T0 + 5000 + (int64_t)i);
                at++;
                for (size_t j = 0; j < sizes[i]; j++, at++) {
                        const struct rig_event *e = &r.seen[at];

                        assert_false(is_mark(e));
                        assert_int_equal(e->outcome, AD_NONE);
                        assert_int_equal(e->offset, i);
                        assert_int_equal(e->index, j);
                        assert_int_equal(e->append_ms, RIG_T0 + 5000 + (int64_t)i);
                        assert_int_equal(e->event_ms, RIG_T0 + (int64_t)j);
                        assert_int_equal(e->price_version, 3 + i);
                        assert_string_equal(e->event_id, "some-id");
                }
        }
        assert_int_equal(at, r.seen_count);
        rig_cut(&r);
        assert_int_equal(r.events, total);
        assert_int_equal(r.seal.records, sizeof(sizes) / sizeof(sizes[0]));
        assert_int_equal(r.note.min_receive_ms, RIG_T0);
        assert_int_equal(r.note.max_receive_ms, RIG_T0 + 999);
        rig_close(&r);
        free(events);
}

/* E2: quarantine holds the address, the code and at most 4 KiB, never the whole record; the record
 * counts apart, and the good ones around it are counted. */
static void test_e2_poison(void **state)
{
        static uint8_t junk[6000];
        struct ad_event ev = rig_event("good", RIG_T0);
        struct ad_quarantined q;
        struct rig r;

        (void)state;
        memset(junk, 0xff, sizeof(junk));
        rig_open(&r, chain, 2);
        rig_log_event(&r, &ev);
        rig_log_raw(&r, df_bytes(junk, sizeof(junk)), RIG_T0 + 7);
        rig_log_raw(&r, df_bytes(junk, 3), RIG_T0 + 8);
        rig_log_event(&r, &ev);
        rig_run(&r, SIZE_MAX);
        rig_cut(&r);
        assert_int_equal(r.poison_records, 2);
        assert_int_equal(r.events, 2);
        assert_int_equal(r.seal.records, 4);
        assert_int_equal(r.outcomes[AD_POISON], 0); /* it has no events */
        assert_int_equal(marks_of(&r), 4);          /* its append time counts (T2) */
        assert_int_equal(r.seen_count, 6);
        q = rig_quarantined(&r, 0);
        assert_int_equal(q.offset, 1);
        assert_true(q.whole_record);
        assert_int_equal(q.reason, AD_POISON);
        assert_int_equal(q.append_ms, RIG_T0 + 7);
        assert_int_equal(q.head.len, AD_QUARANTINE_HEAD_MAX);
        assert_int_equal(q.size, sizeof(junk));
        q = rig_quarantined(&r, 1);
        assert_int_equal(q.offset, 2);
        assert_int_equal(q.head.len, 3);
        assert_memory_equal(q.head.data, junk, 3);
        assert_int_equal(r.emitted_count[AD_OUT_QUARANTINE], 2);
        rig_close(&r);
}

/* A record cut or damaged at every byte is poison or decodes; records around it are not touched. */
static void test_e2_damage_at_every_byte(void **state)
{
        struct ad_event events[2] = {rig_event("first", RIG_T0), rig_event("second", RIG_T0)};
        struct df_buf b = {0};
        struct rig r;
        size_t damaged = 0;

        (void)state;
        rig_open(&r, chain, 2);
        rig_encode(&b, &(struct ad_batch){.start_id = 9}, events, 2);
        for (size_t i = 0; i < b.len; i++) {
                uint8_t was = b.data[i];

                rig_log_raw(&r, df_bytes(b.data, i), RIG_T0);
                b.data[i] ^= 0xff;
                rig_log_raw(&r, df_buf_bytes(&b), RIG_T0);
                b.data[i] = was;
                rig_log_event(&r, &events[0]);
                damaged += 2;
        }
        rig_run(&r, 5);
        rig_cut(&r);
        assert_int_equal(r.seal.records, r.record_count);
        assert_int_equal(r.emitted_count[AD_OUT_QUARANTINE], r.poison_records);
        assert_in_range(r.poison_records, damaged / 4, damaged);
        assert_int_equal(r.seen_count, r.record_count + r.events);
        for (size_t i = 0; i + 1 < r.seen_count; i++)
                if (is_mark(&r.seen[i]) && r.seen[i].offset % 3 == 2)
                        assert_string_equal(r.seen[i + 1].event_id, "first");
        df_buf_release(&b);
        rig_close(&r);
}

/* E3: at most AD_RECORD_EVENTS_MAX events a record; one more is poison. */
static void test_e3_too_many_events(void **state)
{
        struct ad_event *events = calloc(AD_RECORD_EVENTS_MAX + 1, sizeof(*events));
        struct rig r;

        (void)state;
        assert_non_null(events);
        for (size_t i = 0; i <= AD_RECORD_EVENTS_MAX; i++)
                events[i] = rig_event("x", RIG_T0);
        rig_open(&r, chain, 2);
        rig_log(&r, &(struct ad_batch){0}, events, AD_RECORD_EVENTS_MAX + 1, RIG_T0);
        rig_log(&r, &(struct ad_batch){0}, events, AD_RECORD_EVENTS_MAX, RIG_T0);
        rig_run(&r, SIZE_MAX);
        rig_cut(&r);
        assert_int_equal(r.poison_records, 1);
        assert_int_equal(r.events, AD_RECORD_EVENTS_MAX);
        rig_close(&r);
        free(events);
}

static void log_seq(struct rig *r, uint64_t start_id, uint64_t first_seq, size_t count)
{
        struct ad_event events[8];

        for (size_t i = 0; i < count; i++)
                events[i] = rig_event("x", RIG_T0);
        rig_log(r, &(struct ad_batch){.start_id = start_id, .first_seq = first_seq}, events, count,
                RIG_T0);
}

/* A record that ingest wrote and the log lost, or holds twice, shows in the note; a task that began
 * in the middle of a start takes its first record as it is. */
static void test_first_seq(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, chain, 2);
        log_seq(&r, 1, 10, 3); /* first seen: no gap */
        log_seq(&r, 2, 0, 2);
        log_seq(&r, 1, 13, 2);
        rig_run(&r, 1);
        rig_cut(&r);
        assert_int_equal(r.note.sequence_gaps, 0);
        log_seq(&r, 1, 18, 1); /* 15, 16, 17 are missing */
        log_seq(&r, 2, 1, 2);  /* 1 comes again */
        rig_run(&r, 1);
        rig_cut(&r);
        assert_int_equal(r.note.sequence_gaps, 3 + 1);
        rig_cut(&r);
        assert_int_equal(r.note.sequence_gaps, 0);
        rig_restart(&r);
        log_seq(&r, 1, 19, 1); /* remembered over a restart */
        log_seq(&r, 2, 7, 1);
        rig_run(&r, 2);
        rig_cut(&r);
        assert_int_equal(r.note.sequence_gaps, 4);
        rig_close(&r);
}

static struct ad_batch heartbeat_of(uint64_t start_id, int64_t ms, uint64_t partition_accepted)
{
        return (struct ad_batch){
                .start_id = start_id,
                .has_heartbeat = true,
                .heartbeat = {.receive_ms = ms,
                              .received = 100 + partition_accepted,
                              .accepted = 90 + partition_accepted,
                              .rejected = 7,
                              .unanswered = 3,
                              .closing = partition_accepted == 4,
                              .partition_accepted = partition_accepted},
        };
}

/* The edge ledger: the newest heartbeat of each start since the last cut, and what was seen. */
static void test_edges(void **state)
{
        struct ad_batch one = heartbeat_of(1, RIG_T0 + 10, 3),
                        two = heartbeat_of(1, RIG_T0 + 20, 4);
        struct ad_batch other = heartbeat_of(5, RIG_T0 + 15, 0), lost = heartbeat_of(5, RIG_T0, 2);
        struct rig r;

        (void)state;
        rig_open(&r, chain, 2);
        log_seq(&r, 1, 0, 3);
        rig_log(&r, &one, NULL, 0, RIG_T0);
        log_seq(&r, 1, 3, 1);
        rig_log(&r, &two, NULL, 0, RIG_T0);
        rig_log(&r, &other, NULL, 0, RIG_T0);
        rig_run(&r, 3);
        rig_cut(&r);
        assert_int_equal(r.heartbeats, 3);
        assert_int_equal(r.events, 4);
        assert_int_equal(r.note.edge_count, 2);
        const struct ad_edge *e = &r.note.edges[0];
        assert_int_equal(e->start_id, 1);
        assert_int_equal(e->heartbeat_ms, RIG_T0 + 20);
        assert_int_equal(e->received, 104);
        assert_int_equal(e->accepted, 94);
        assert_int_equal(e->rejected, 7);
        assert_int_equal(e->unanswered, 3);
        assert_true(e->closing);
        assert_int_equal(e->partition_accepted, 4);
        assert_int_equal(e->partition_seen, 4);
        assert_int_equal(r.note.edges[1].start_id, 5);
        assert_int_equal(r.note.edges[1].partition_seen, 0);
        assert_int_equal(r.note.sequence_gaps, 0);
        rig_log(&r, &lost, NULL, 0, RIG_T0); /* says two events, none came */
        rig_run(&r, 1);
        rig_cut(&r);
        assert_int_equal(r.note.edge_count, 1);
        assert_int_equal(r.note.sequence_gaps, 2);
        assert_int_equal(r.note.edges[0].partition_seen, 0);
        rig_cut(&r);
        assert_int_equal(r.note.edge_count, 0);
        rig_close(&r);
}

/* The last heartbeat of a start that an append in doubt ended says the least that was stored: more
 * is no gap, less is one, and what comes after it counts on. */
static void test_a_start_in_doubt(void **state)
{
        struct ad_batch last = heartbeat_of(1, RIG_T0, 2), short_of = heartbeat_of(2, RIG_T0, 3);
        struct rig r;

        (void)state;
        last.heartbeat.in_doubt = short_of.heartbeat.in_doubt = true;
        rig_open(&r, chain, 2);
        log_seq(&r, 1, 0, 2);
        log_seq(&r, 1, 2, 3); /* the doubtful ones, stored after all */
        rig_log(&r, &last, NULL, 0, RIG_T0);
        rig_run(&r, 1);
        rig_cut(&r);
        assert_int_equal(r.note.sequence_gaps, 0);
        assert_int_equal(r.note.edges[0].partition_accepted, 2);
        assert_int_equal(r.note.edges[0].partition_seen, 5);
        log_seq(&r, 1, 5, 1); /* a request of the old producer, underway until now */
        log_seq(&r, 2, 0, 1);
        rig_log(&r, &short_of, NULL, 0, RIG_T0); /* two that were acknowledged are missing */
        rig_run(&r, 1);
        rig_cut(&r);
        assert_int_equal(r.note.sequence_gaps, 2);
        rig_close(&r);
}

/* 64 starts are remembered; one more drops the one that was silent for longest. */
static void test_many_starts(void **state)
{
        struct rig r;

        (void)state;
        rig_open(&r, chain, 2);
        for (uint64_t id = 1; id <= 64; id++)
                log_seq(&r, id, 0, 1);
        log_seq(&r, 1, 1, 1); /* now 2 is the longest silent */
        rig_run(&r, 7);
        rig_cut(&r);
        rig_restart(&r);
        log_seq(&r, 65, 4, 1); /* takes the place of 2 */
        log_seq(&r, 3, 5, 1);  /* known: 1 to 4 are missing */
        log_seq(&r, 2, 9, 1);  /* begins again: no gap */
        log_seq(&r, 1, 2, 1);
        log_seq(&r, 65, 8, 1); /* still known: 5 to 7 are missing */
        rig_run(&r, 7);
        rig_cut(&r);
        assert_int_equal(r.note.sequence_gaps, 4 + 3);
        rig_cut(&r);
        rig_restart(&r);
        rig_close(&r);
}

/* Versions and the frame of an import reach the seal; the clock reset reaches guard. */
static void test_versions_and_import(void **state)
{
        struct ad_batch begin = {
                .price_version = 4,
                .label_version = 6,
                .has_import_begin = true,
                .import_begin = {.generation = 99,
                                 .tenant_id = df_bytes_str("t9"),
                                 .dataset = df_bytes_str("ads.csv"),
                                 .from_ms = RIG_T0,
                                 .to_ms = RIG_T0 + 5,
                                 .receive_ms = RIG_T0 + 9},
        };
        struct ad_batch end = {.price_version = 4,
                               .label_version = 6,
                               .has_import_end = true,
                               .import_end = {.generation = 99, .rows = 12}};
        struct ad_batch reset = {.clock_reset = true, .price_version = 4, .label_version = 6};
        struct rig r;

        (void)state;
        rig_open(&r, chain, 2);
        rig_log(&r, &begin, NULL, 0, RIG_T0);
        rig_log(&r, &reset, NULL, 0, RIG_T0);
        rig_run(&r, 10);
        rig_cut(&r);
        assert_int_equal(r.seal.price_version, 4);
        assert_int_equal(r.seal.label_version, 6);
        assert_true(r.note.has_import_begin);
        assert_false(r.note.has_import_end);
        assert_int_equal(r.note.import_begin.generation, 99);
        check_bytes(r.note.import_begin.tenant_id, "t9");
        check_bytes(r.note.import_begin.dataset, "ads.csv");
        assert_int_equal(r.note.import_begin.from_ms, RIG_T0);
        assert_int_equal(r.note.import_begin.to_ms, RIG_T0 + 5);
        assert_int_equal(r.note.import_begin.receive_ms, RIG_T0 + 9);
        assert_false(r.seen[0].flags & AD_EV_CLOCK_RESET);
        assert_true(r.seen[1].flags & AD_EV_CLOCK_RESET);
        rig_log(&r, &end, NULL, 0, RIG_T0);
        rig_run(&r, 10);
        rig_cut(&r);
        assert_false(r.note.has_import_begin);
        assert_true(r.note.has_import_end);
        assert_int_equal(r.note.import_end.rows, 12);
        assert_false(r.note.import_end.aborted);
        rig_close(&r);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_events_and_marks),
                cmocka_unit_test(test_e2_poison),
                cmocka_unit_test(test_e2_damage_at_every_byte),
                cmocka_unit_test(test_e3_too_many_events),
                cmocka_unit_test(test_first_seq),
                cmocka_unit_test(test_edges),
                cmocka_unit_test(test_a_start_in_doubt),
                cmocka_unit_test(test_many_starts),
                cmocka_unit_test(test_versions_and_import),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
