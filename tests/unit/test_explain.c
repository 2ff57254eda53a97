/* Explanations: the seals behind a window, against a list of what every seal took in; those that
 * are gone, damaged or too many; the archive's segments. */
#include "unit.h"

#include <time.h>

#include "df/filelog.h"
#include "jobs/api/explain.h"
#include "jobs/common/settings.h"
#include "state_test.h"

#define PARTITIONS 2
#define T0 1764000000000LL
#define MINUTE 60000LL
#define HOUR (60 * MINUTE)
#define GRACE (15 * MINUTE)
#define SEALS 120
#define ROUNDS 20

/* What a seal took in: an event each, so that whoever looks for the events of a window can see
 * whether the range has them all. */
struct taken {
        uint64_t from, to;
        int64_t append_ms, event_ms, watermark_before, watermark;
};

static char dir[256];
static struct df_log *log_;
static struct df_log *source; /* with the archive */
static struct df_log_writer *late, *events;
static struct df_objects *objects;
static struct ad_status status;
static struct taken taken[PARTITIONS][SEALS];
static int64_t clock_now;
static uint64_t seed, dice_state;
static size_t segments_max;
static uint64_t records_max;

static uint64_t dice(uint64_t below)
{
        dice_state ^= dice_state << 13;
        dice_state ^= dice_state >> 7;
        dice_state ^= dice_state << 17;
        return dice_state % below;
}

static int64_t clock_ms(void *arg)
{
        return clock_now;
}

static int on_topic(void *arg, const struct df_topic_info *info)
{
        status.generation = info->generation;
        status.partitions = info->partitions;
        return 0;
}

static int setup(void **state)
{
        struct df_filelog_options o = {.clock_ms = clock_ms,
                                       .segment_bytes = 4096,
                                       .reserve_bytes = 4096,
                                       .min_free_bytes = 1};
        char place[320];

        clock_now = T0;
        dice_state = (seed += 7919) * 0x9e3779b97f4a7c15ull + 1;
        ok(df_filelog_open(temp_dir(dir), &o, &log_, err));
        ok(ad_create_topics(log_, PARTITIONS, err));
        ok(df_log_topic_list(log_, AD_TOPIC_EVENTS, on_topic, NULL, err));
        ok(df_log_writer_open(log_, AD_TOPIC_LATE, &late, err));
        (void)snprintf(place, sizeof(place), "dir:%s/archive", dir);
        ok(df_objects_open(&(struct df_objects_options){.place = place}, &objects, err));
        ok(df_archive_log_open(log_, objects, &source, err));
        ok(df_log_writer_open(log_, AD_TOPIC_EVENTS, &events, err));
        return 0;
}

static int teardown(void **state)
{
        df_log_writer_close(late);
        df_log_writer_close(events);
        df_log_close(source);
        df_objects_close(objects);
        df_log_close(log_);
        remove_dir(dir);
        return 0;
}

/* ---- writing ---- */

static void append(struct df_log_writer *w, uint32_t partition, struct df_buf *b)
{
        struct df_append a = {.partition = partition, .value = df_buf_bytes(b)};

        assert_false(b->failed);
        ok(df_log_append(w, &a, 1, err));
        df_buf_release(b);
}

static struct df_hash128 digest_of(uint32_t partition, uint64_t k)
{
        return (struct df_hash128){.hi = partition + 1, .lo = k * 1000003};
}

static void seal(uint32_t partition, uint64_t k, const struct taken *t, bool broken, bool damaged)
{
        struct df_origin o = {.source = {.stream = AD_TOPIC_EVENTS,
                                         .generation = status.generation,
                                         .partition = partition},
                              .k = k,
                              .epoch = 1};
        struct df_seal s = {.from_offset = t->from,
                            .to_offset = t->to,
                            .max_append_ms = t->append_ms,
                            .watermark_ms = t->watermark,
                            .parent_k = k - 1,
                            .digest = digest_of(partition, k),
                            .config = 0xabc,
                            .rows = damaged};

        s.parent_digest = digest_of(partition, k - 1);
        s.parent_digest.lo += broken;
        (void)snprintf(s.binary_version, sizeof(s.binary_version), "9.9");
        struct df_buf b = {0};

        df_output_encode_seal(&b, &o, &s);
        append(late, partition, &b);
}

/* Records of some minutes, sealed a moment after they were appended, or long after. */
static void write_all(uint32_t partition)
{
        int64_t watermark = T0 - HOUR;
        uint64_t offset = 0;

        clock_now = T0;
        for (uint64_t k = 1; k <= SEALS; k++) {
                struct taken *t = &taken[partition][k - 1];

                clock_now += (int64_t)dice(3 * MINUTE);
                t->from = offset;
                t->to = offset += 1 + dice(5);
                t->append_ms = clock_now;
                t->event_ms = clock_now + 5 * MINUTE - (int64_t)dice(40 * MINUTE);
                t->watermark_before = watermark;
                if (t->event_ms < clock_now && t->event_ms - 10000 > watermark)
                        watermark = t->event_ms - 10000;
                t->watermark = watermark;
                clock_now += (int64_t)(dice(10) ? dice(5000) : dice(20 * MINUTE));
                seal(partition, k, t, false, false);
        }
}

/* ---- asking ---- */

static const struct df_clock_rules rules = {.out_of_orderness_ms = 10000,
                                            .receive_ahead_max_ms = AD_RECEIVE_AHEAD_MAX_MS,
                                            .receive_behind_max_ms = AD_RECEIVE_BEHIND_MAX_MS,
                                            .future_max_ms = AD_FUTURE_MAX_MS,
                                            .accepted_age_ms = 7 * 24 * HOUR};

static struct ad_explain ask(int64_t from, int64_t to, uint64_t max, int want)
{
        struct ad_explain_context c = {.log = log_,
                                       .source = source,
                                       .rules = &rules,
                                       .segments_max = segments_max,
                                       .records_max = records_max,
                                       .objects = objects,
                                       .status = &status,
                                       .grace_ms = GRACE,
                                       .seals_max = max};
        struct ad_fault f = {.status = 200};
        struct ad_explain e;

        (void)ad_explain_find(&c, from, to, &e, &f);
        if (f.status != want)
                fail_msg("seed %llu: %d %s %s", (unsigned long long)seed, f.status, f.code,
                         f.message);
        return e;
}

static void check(const struct ad_explain_source *s, const struct taken *all, int64_t from,
                  int64_t to)
{
        for (int i = 0; i < SEALS; i++) {
                const struct taken *t = &all[i];
                int64_t end = t->event_ms / MINUTE * MINUTE + MINUTE;
                bool counts = t->event_ms >= from && t->event_ms < to &&
                              t->watermark_before < end + GRACE;

                if (counts && (s->seals == 0 || t->from < s->from_offset || t->to > s->to_offset))
                        fail_msg("seed %llu: [%llu, %llu) lacks [%llu, %llu)",
                                 (unsigned long long)seed, (unsigned long long)s->from_offset,
                                 (unsigned long long)s->to_offset, (unsigned long long)t->from,
                                 (unsigned long long)t->to);
        }
        if (s->seals == 0)
                return;
        /* It is the smallest range of which this can be said without the events. */
        assert_true(s->chained);
        assert_false(s->gone);
        assert_int_equal(s->seals, s->last_k - s->first_k + 1);
        assert_int_equal(s->from_offset, all[s->first_k - 1].from);
        assert_int_equal(s->to_offset, all[s->last_k - 1].to);
        assert_true(all[s->first_k - 1].append_ms >= from - 5 * MINUTE - 10000);
        assert_true(s->first_k == 1 || all[s->first_k - 2].append_ms < from - 5 * MINUTE - 10000);
        assert_int_equal(s->complete, all[s->last_k - 1].watermark >= to + GRACE);
        assert_true(s->complete || s->last_k == SEALS);
        assert_true(s->last_k == s->first_k || all[s->last_k - 2].watermark < to + GRACE);
        assert_string_equal(s->version, "9.9");
}

static void test_the_range_has_every_event_of_the_window(void **state)
{
        for (uint32_t p = 0; p < PARTITIONS; p++)
                write_all(p);
        for (int i = 0; i < ROUNDS; i++) {
                int64_t from = (T0 + (int64_t)dice(6 * HOUR)) / MINUTE * MINUTE - 30 * MINUTE;
                int64_t to = from + (int64_t)(1 + dice(90)) * MINUTE;
                struct ad_explain e = ask(from, to, 0, 200);

                assert_int_equal(e.source_count, PARTITIONS);
                for (uint32_t p = 0; p < PARTITIONS; p++)
                        check(&e.sources[p], taken[p], from, to);
                assert_int_equal(e.damaged, 0);
                ad_explain_release(&e);
        }
}

static struct taken simple(uint64_t k, int64_t append_ms)
{
        return (struct taken){.from = 10 * (k - 1),
                              .to = 10 * k,
                              .append_ms = append_ms,
                              .watermark = append_ms - 10000};
}

static void put(uint64_t k, bool broken, bool damaged)
{
        struct taken t;

        clock_now = T0 + (int64_t)k * MINUTE;
        t = simple(k, clock_now);
        seal(0, k, &t, broken, damaged);
}

static void test_what_is_gone_damaged_or_broken_is_said(void **state)
{
        struct ad_explain e;

        for (uint64_t k = 5; k <= 10; k++) /* the first ones have left the log */
                put(k, k == 8, false);
        e = ask(T0, T0 + 8 * MINUTE, 0, 200);
        assert_true(e.sources[0].gone);
        assert_false(e.sources[0].chained);
        assert_false(e.sources[0].complete);
        assert_int_equal(e.sources[1].seals, 0);
        ad_explain_release(&e);
        e = ask(T0 + 14 * MINUTE, T0 + 15 * MINUTE, 0, 200); /* behind the broken one */
        assert_int_equal(e.sources[0].first_k, 9);
        assert_true(e.sources[0].chained);
        assert_false(e.sources[0].gone);
        ad_explain_release(&e);
        put(11, false, true);
        put(12, false, false);
        e = ask(T0 + 14 * MINUTE, T0 + 15 * MINUTE, 0, 200);
        assert_int_equal(e.damaged, 1);
        assert_false(e.sources[0].chained);
        ad_explain_release(&e);
}

static void test_limit(void **state)
{
        struct ad_explain e;

        for (uint64_t k = 1; k <= 10; k++)
                put(k, false, false);
        e = ask(T0, T0 + HOUR, 10, 200);
        ad_explain_release(&e);
        e = ask(T0, T0 + HOUR, 9, 400);
        ad_explain_release(&e);
}

static void test_segments(void **state)
{
        struct df_archive_options o = {.objects = objects, .limit = DF_SEGMENT_LIMIT_MIN};
        struct df_segment_id id = {AD_TOPIC_EVENTS, status.generation, 0};
        struct df_archive_part *part = NULL;
        struct df_archive_manifest m;
        struct ad_explain e;

        for (uint64_t k = 1; k <= 12; k++)
                put(k, false, false);
        e = ask(T0 + 10 * MINUTE, T0 + 11 * MINUTE, 0, 200);
        assert_int_equal(e.sources[0].segment_count, 0);
        assert_int_equal(e.sources[0].archived_to, 0);
        ad_explain_release(&e);
        ok(df_archive_open(&o, &id, &part, err));
        for (uint64_t offset = 0; offset <= 100; offset++) { /* seven records a segment */
                struct df_record r = {offset, T0 + (int64_t)(offset / 7) * HOUR,
                                      df_bytes_str("record")};

                ok(df_archive_add(part, &r, err));
        }
        df_archive_close(part);
        ok(df_archive_manifest_read(objects, &id, &m, err));
        e = ask(T0 + 10 * MINUTE, T0 + 11 * MINUTE, 0, 200); /* offsets from 40 on */
        assert_int_equal(e.sources[0].from_offset, 40);
        assert_int_equal(e.sources[0].to_offset, 120);
        assert_int_equal(e.sources[0].archived_to, m.entries[m.count - 1].end);
        assert_int_equal(e.sources[0].segment_count, m.count - 5);
        assert_int_equal(e.sources[0].segments_listed, m.count - 5);
        assert_int_equal(e.sources[0].segments[0].first, 35);
        assert_memory_equal(e.sources[0].segments[0].sha256, m.entries[5].sha256, 32);
        ad_explain_release(&e);
        segments_max = m.count - 6; /* one more is counted, and not listed */
        e = ask(T0 + 10 * MINUTE, T0 + 11 * MINUTE, 0, 200);
        segments_max = 0;
        assert_int_equal(e.sources[0].segment_count, m.count - 5);
        assert_int_equal(e.sources[0].segments_listed, m.count - 6);
        df_archive_manifest_release(&m);
        ad_explain_release(&e);
}

/* ---- older than the log ---- */

#define OLD_RECORDS 3000

/* Records of an event and a heartbeat each, sealed five at a time. */
static void write_old(struct taken all[OLD_RECORDS])
{
        int64_t watermark = T0 - HOUR;

        clock_now = T0;
        for (uint64_t i = 0; i < OLD_RECORDS; i++) {
                struct taken *t = &all[i], s;
                struct ad_event ev = {.event_id = df_bytes_str("e"),
                                      .tenant_id = df_bytes_str("a tenant, so that segments end"),
                                      .type = AD_CLICK};
                struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION,
                                          .has_heartbeat = true};
                struct df_buf one = {0}, record = {0};

                clock_now += 1 + (int64_t)dice(20000);
                *t = (struct taken){.from = i, .to = i + 1, .watermark_before = watermark};
                t->append_ms = clock_now;
                t->event_ms = clock_now + 5 * MINUTE - (int64_t)dice(40 * MINUTE);
                ev.event_ms = t->event_ms;
                ev.receive_ms = header.heartbeat.receive_ms = clock_now - (int64_t)dice(3000);
                ad_wire_event(&one, &ev);
                ad_wire_batch_entry(&record, df_buf_bytes(&one));
                ad_wire_batch_header(&record, &header);
                append(events, 0, &record);
                df_buf_release(&one);
                if (header.heartbeat.receive_ms - 10000 > watermark)
                        watermark = header.heartbeat.receive_ms - 10000;
                t->watermark = watermark;
                s = *t;
                s.from = i / 5 * 5;
                if (i % 5 == 4)
                        seal(0, i / 5 + 1, &s, false, false);
        }
}

/* As the archive job would; then what is older than two hours leaves the log. */
static void archive_and_retain(void)
{
        struct df_archive_options o = {.objects = objects, .limit = DF_SEGMENT_LIMIT_MIN};
        struct df_segment_id id = {AD_TOPIC_EVENTS, status.generation, 0};
        struct df_archive_part *part = NULL;
        struct df_log_reader *r = NULL;
        struct df_record records[64];
        uint64_t deleted = 0;
        size_t n = 1;

        ok(df_archive_open(&o, &id, &part, err));
        ok(df_log_reader_open(log_, AD_TOPIC_EVENTS, 0, 0, NULL, &r, err));
        while (n > 0) {
                ok(df_log_poll(r, records, 64, &n, err));
                for (size_t i = 0; i < n; i++)
                        ok(df_archive_add(part, &records[i], err));
        }
        df_log_reader_close(r);
        df_archive_close(part);
        ok(df_filelog_retain(log_, AD_TOPIC_EVENTS, clock_now - 2 * HOUR, &deleted, err));
        ok(df_filelog_retain(log_, AD_TOPIC_LATE, clock_now - 2 * HOUR, &deleted, err));
}

/* The smallest range that append times and heartbeats can tell, and every event of the window in
 * it; its segments are all that hold it. */
static void check_old(const struct ad_explain_source *s, const struct taken *all, int64_t from,
                      int64_t to)
{
        struct df_segment_id id = {AD_TOPIC_EVENTS, status.generation, 0};
        struct df_archive_manifest m;
        uint32_t overlap = 0;

        assert_true(s->gone && s->by_records && s->complete && !s->raw_gone);
        assert_int_equal(s->seals, 0);
        for (int i = 0; i < OLD_RECORDS; i++) {
                const struct taken *t = &all[i];
                bool counts = t->event_ms >= from && t->event_ms < to &&
                              t->watermark_before < t->event_ms / MINUTE * MINUTE + MINUTE + GRACE;

                if (counts && (t->from < s->from_offset || t->to > s->to_offset))
                        fail_msg("seed %llu: [%llu, %llu) lacks %d", (unsigned long long)seed,
                                 (unsigned long long)s->from_offset,
                                 (unsigned long long)s->to_offset, i);
        }
        assert_true(all[s->from_offset].append_ms >= from - 5 * MINUTE - 10000);
        assert_true(s->from_offset == 0 ||
                    all[s->from_offset - 1].append_ms < from - 5 * MINUTE - 10000);
        assert_true(all[s->to_offset - 1].watermark >= to + GRACE);
        assert_true(all[s->to_offset - 2].watermark < to + GRACE);
        ok(df_archive_manifest_read(objects, &id, &m, err));
        for (uint32_t i = 0; i < m.count; i++) {
                if (m.entries[i].end <= s->from_offset || m.entries[i].first >= s->to_offset)
                        continue;
                assert_memory_equal(s->segments[overlap].sha256, m.entries[i].sha256, 32);
                overlap++;
        }
        assert_int_equal(s->segment_count, overlap);
        assert_true(overlap > 0 && s->archived_to == m.entries[m.count - 1].end);
        df_archive_manifest_release(&m);
}

/* W5, A1: the seals and the raw records of a window have left the log. */
static void test_older_than_the_log(void **state)
{
        static struct taken all[OLD_RECORDS];
        uint64_t first = 0, end = 0;
        struct ad_explain e;
        struct df_log *with = source;

        write_old(all);
        archive_and_retain();
        ok(df_log_bounds(log_, AD_TOPIC_LATE, 0, &first, &end, err));
        assert_true(first > 0);
        ok(df_log_bounds(log_, AD_TOPIC_EVENTS, 0, &first, &end, err));
        assert_true(first > OLD_RECORDS / 3);
        for (int i = 0; i < ROUNDS; i++) {
                int64_t from = (T0 + (int64_t)dice(3 * HOUR)) / MINUTE * MINUTE;
                int64_t to = from + (int64_t)(1 + dice(60)) * MINUTE;

                e = ask(from, to, 0, 200);
                check_old(&e.sources[0], all, from, to);
                ad_explain_release(&e);
        }
        /* The end is found in just as many records as may be read; with one less the seals that are
         * left say behind what nothing counts. */
        e = ask(T0 + HOUR, T0 + 2 * HOUR, 0, 200);
        records_max = end = e.sources[0].to_offset;
        ad_explain_release(&e);
        while (all[end - 1].append_ms >= T0 + 2 * HOUR + GRACE)
                end--;
        records_max -= end;
        e = ask(T0 + HOUR, T0 + 2 * HOUR, 0, 200);
        assert_true(e.sources[0].seals == 0 && e.sources[0].to_offset == end + records_max);
        ad_explain_release(&e);
        if (--records_max > 0) {
                e = ask(T0 + HOUR, T0 + 2 * HOUR, 0, 200);
                assert_true(e.sources[0].seals > 0 && e.sources[0].complete);
                ad_explain_release(&e);
        }
        records_max = 0;
        /* One that the seals still tell of in part, and one that they tell of whole. */
        e = ask(T0 + HOUR, clock_now - HOUR, 0, 200);
        assert_true(e.sources[0].gone && e.sources[0].seals > 0 && e.sources[0].complete);
        assert_true(all[e.sources[0].to_offset - 1].watermark >= clock_now - HOUR + GRACE);
        assert_true(all[e.sources[0].from_offset].append_ms < T0 + HOUR);
        ad_explain_release(&e);
        e = ask(clock_now - HOUR, clock_now - 40 * MINUTE, 0, 200);
        assert_true(!e.sources[0].gone && !e.sources[0].by_records && e.sources[0].complete);
        ad_explain_release(&e);
        /* Without the archive nothing bounds it, and that is said. */
        source = log_;
        e = ask(T0 + HOUR, T0 + 2 * HOUR, 0, 200);
        source = with;
        assert_true(e.sources[0].gone && e.sources[0].raw_gone);
        ad_explain_release(&e);
}

static void answer(int64_t from, int64_t to, const struct ad_result *result, struct df_buf *b)
{
        struct ad_explain_context c = {.log = log_, .source = source, .status = &status};
        struct ad_query *q = calloc(1, sizeof(*q));
        struct ad_explain e;

        assert_non_null(q);
        c.objects = objects;
        q->tenant_id = df_bytes_str("t");
        e = ask(from, to, 0, 200);
        df_buf_clear(b);
        ok(ad_explain_json(&c, &e, q, result, b, err));
        df_put_u8(b, 0);
        ad_explain_release(&e);
        free(q);
}

static void test_what_is_not_shown_is_said(void **state)
{
        static struct taken all[OLD_RECORDS];
        struct ad_result none = {0};
        struct df_buf b = {0};

        write_old(all);
        answer(T0 + HOUR, T0 + 2 * HOUR, &none, &b);
        assert_non_null(strstr((char *)b.data, "\"not_shown\":[]"));
        archive_and_retain();
        answer(T0 + HOUR, T0 + 2 * HOUR, &none, &b);
        assert_non_null(strstr((char *)b.data, "\"seals_expired\""));
        assert_non_null(strstr((char *)b.data, "adtally verify MANIFEST --key PUBLIC --archive"));
        assert_non_null(strstr((char *)b.data, "/v1/periods/2025-11/manifest"));
        assert_null(strstr((char *)b.data, "\"rows_expired\""));
        assert_null(strstr((char *)b.data, "\"records_expired\""));
        answer(T0 + HOUR, T0 + 2 * HOUR, NULL, &b);
        assert_non_null(strstr((char *)b.data, "\"rows_expired\""));
        assert_non_null(strstr((char *)b.data, "\"totals\":null"));
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
                T(test_the_range_has_every_event_of_the_window),
                T(test_the_range_has_every_event_of_the_window),
                T(test_the_range_has_every_event_of_the_window),
                T(test_what_is_gone_damaged_or_broken_is_said),
                T(test_limit),
                T(test_segments),
                T(test_older_than_the_log),
                T(test_what_is_not_shown_is_said),
#undef T
        };
        const char *given = getenv("TEST_SEED");

        seed = given ? strtoul(given, NULL, 10) : (uint64_t)time(NULL);
        print_message("seed %llu\n", (unsigned long long)seed);
        return cmocka_run_group_tests(tests, NULL, NULL);
}
