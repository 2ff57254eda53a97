/* test_replay.c - WHERE, the pinned range and the run's id (R1; jobs/runs/runs.h). */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "df/sim.h"
#include "jobs/runs/runs.h"
#include "proto/wire.h"

#define PARTITIONS 3

static struct ad_where where(const char *text)
{
        struct df_error err = {0};
        struct ad_where w;

        if (ad_where_parse(text, &w, &err) != 0)
                fail_msg("%s: %s", text, err.text);
        return w;
}

static void test_words(void **state)
{
        struct ad_where w;

        (void)state;
        assert_int_equal(where("start").kind, AD_WHERE_START);
        assert_int_equal(where("end").kind, AD_WHERE_END);
        w = where("2026-11-24T10:00:00.250+01:00");
        assert_int_equal(w.kind, AD_WHERE_TIME);
        assert_int_equal(w.append_ms, 1795510800250LL);
        w = where("offset:17");
        assert_int_equal(w.kind, AD_WHERE_OFFSETS);
        assert_true(w.every);
        assert_int_equal(w.offset[0], 17);
        w = where("offset:2=9,0=0,255=9223372036854775807");
        assert_false(w.every);
        assert_true(w.given[0] && w.given[2] && w.given[255] && !w.given[1]);
        assert_int_equal(w.offset[2], 9);
        assert_int_equal(w.offset[255], INT64_MAX);
}

static void test_bad_words(void **state)
{
        static const char *const bad[] = {
                "",          "Start",       "end ",          "offset",
                "offset:",   "offset:-1",   "offset:1,2",    "offset:1=",
                "offset:=1", "offset:1=2,", "offset:1=2 ",   "offset:1=2,1=3",
                "offset:1x", "yesterday",   "2026-11-24",    "offset:9223372036854775808",
                "offset:+1", "offset:1=+2", "offset:256=1",  "offset:99999999999999999999",
                "10:00:00Z", "1795510800",  "offset:1=2;2=3"};

        (void)state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct df_error err = {0};
                struct ad_where w;

                if (ad_where_parse(bad[i], &w, &err) != DF_EINVAL || !strstr(err.text, bad[i]))
                        fail_msg("\"%s\": %d %s", bad[i], err.code, err.text);
        }
}

/* ---- the pin, on a log of 3 partitions with 10, 20 and 0 records, one a second ---- */

struct rig {
        struct df_sim *sim;
        struct df_log *log;
};

static void rig_open(struct rig *r)
{
        static const int counts[PARTITIONS] = {10, 20, 0};
        struct df_log_writer *w = NULL;
        struct df_error err = {0};

        r->sim = df_sim_create(1);
        r->log = df_sim_log_open(r->sim, 0);
        assert_int_equal(df_log_topic_create(r->log, "events", PARTITIONS, &err), 0);
        assert_int_equal(df_log_writer_open(r->log, "events", &w, &err), 0);
        for (int i = 0; i < 20; i++)
                for (uint32_t p = 0; p < PARTITIONS; p++) {
                        struct df_append a = {.partition = p, .value = df_bytes("x", 1)};

                        df_sim_set_now_ms(r->sim, 1795510800000LL + (int64_t)i * 1000);
                        if (i < counts[p])
                                assert_int_equal(df_log_append(w, &a, 1, &err), 0);
                }
        df_log_writer_close(w);
        df_sim_log_trim(r->sim, "events", 1, 4);
}

static void rig_close(struct rig *r)
{
        df_log_close(r->log);
        df_sim_destroy(r->sim);
}

static int pin(struct rig *r, const char *from, const char *to, struct ad_replay_pin *ret,
               struct df_error *err)
{
        struct ad_where a = where(from), b = where(to);

        *err = (struct df_error){0};
        return ad_replay_pin_range(r->log, "events", &a, &b, ret, err);
}

static void test_pins(void **state)
{
        static const struct {
                const char *from, *to;
                uint64_t want[2 * PARTITIONS];
        } cases[] = {
                {"start", "end", {0, 10, 4, 20, 0, 0}},
                {"end", "end", {10, 10, 20, 20, 0, 0}},
                {"start", "start", {0, 0, 4, 4, 0, 0}},
                {"offset:0=3,1=5", "offset:1=6", {3, 10, 5, 6, 0, 0}},
                /* the times are those of offsets 5 and 12; between two records the later one */
                {"2026-11-24T09:00:05Z", "2026-11-24T09:00:12Z", {5, 10, 5, 12, 0, 0}},
                {"2026-11-24T09:00:04.001Z", "end", {5, 10, 5, 20, 0, 0}},
                {"1970-01-01T00:00:00Z", "2099-01-01T00:00:00Z", {0, 10, 4, 20, 0, 0}},
        };
        struct ad_replay_pin *p = calloc(1, sizeof(*p));
        struct df_error err;
        struct rig r;

        (void)state;
        assert_non_null(p);
        rig_open(&r);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                if (pin(&r, cases[i].from, cases[i].to, p, &err) != 0)
                        fail_msg("case %zu: %s", i, err.text);
                for (uint32_t k = 0; k < PARTITIONS; k++)
                        if (p->span[k].from != cases[i].want[2 * k] ||
                            p->span[k].to != cases[i].want[2 * k + 1])
                                fail_msg("case %zu, partition %u: [%llu, %llu)", i, k,
                                         (unsigned long long)p->span[k].from,
                                         (unsigned long long)p->span[k].to);
                assert_int_equal(p->span[1].first, 4);
        }
        free(p);
        rig_close(&r);
}

static void test_refused_pins(void **state)
{
        static const struct {
                const char *from, *to, *why;
        } cases[] = {
                {"end", "start", "events/0 from offset 10 to 0"},
                {"offset:1=3", "end", "offset 3 is outside events/1, which holds [4, 20)"},
                {"start", "offset:0=11", "offset 11 is outside events/0, which holds [0, 10)"},
                {"offset:1", "end", "offset 1 is outside events/1"},
                {"start", "offset:3=0", "no partition 3"},
                {"2026-11-24T09:00:09Z", "2026-11-24T09:00:05Z", "--from is behind --to"},
        };
        struct ad_replay_pin *p = calloc(1, sizeof(*p));
        struct ad_where w = where("start");
        struct df_error err;
        struct rig r;

        (void)state;
        assert_non_null(p);
        rig_open(&r);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
                if (pin(&r, cases[i].from, cases[i].to, p, &err) != DF_EINVAL ||
                    !strstr(err.text, cases[i].why))
                        fail_msg("case %zu: %d %s", i, err.code, err.text);
        assert_int_equal(ad_replay_pin_range(r.log, "event", &w, &w, p, &err), DF_ENOENT);
        free(p);
        rig_close(&r);
}

/* ---- the id ---- */

static void test_the_id_names_all_that_shapes_a_number(void **state)
{
        struct ad_replay_pin *p = calloc(1, sizeof(*p));
        char ids[9][AD_REPLAY_ID_MAX + 1];
        int n = 0;

        (void)state;
        assert_non_null(p);
        (void)snprintf(p->topic.name, sizeof(p->topic.name), "events");
        p->topic.generation = 77;
        p->topic.partitions = 2;
        p->span[0] = (struct ad_replay_span){.from = 1, .to = 5};
        p->span[1] = (struct ad_replay_span){.from = 2, .to = 6};
        ad_replay_id(p, 9, "1.0", ids[n++]);
        p->span[0].first = 1; /* what the topic held before the range shapes nothing */
        ad_replay_id(p, 9, "1.0", ids[n]);
        assert_string_equal(ids[n], ids[0]);
        assert_int_equal(strlen(ids[0]), AD_REPLAY_ID_MAX);
        assert_int_equal(strspn(ids[0], "0123456789abcdef"), AD_REPLAY_ID_MAX);
        ad_replay_id(p, 8, "1.0", ids[n++]);
        ad_replay_id(p, 9, "1.1", ids[n++]);
        p->span[1].to++;
        ad_replay_id(p, 9, "1.0", ids[n++]);
        p->span[1].from++;
        ad_replay_id(p, 9, "1.0", ids[n++]);
        p->topic.generation++;
        ad_replay_id(p, 9, "1.0", ids[n++]);
        p->topic.partitions = 1;
        ad_replay_id(p, 9, "1.0", ids[n++]);
        p->topic.name[0] = 'f';
        ad_replay_id(p, 9, "1.0", ids[n++]);
        for (int a = 0; a < n; a++)
                for (int b = 0; b < a; b++)
                        assert_string_not_equal(ids[a], ids[b]);
        free(p);
}

/* ---- imports: complete ones alone (R6) ---- */

enum { NEVER, BEGUN, ENDED, ABORTED };

static void put_batch(struct df_log_writer *w, uint32_t partition, const struct ad_batch *b)
{
        struct df_error err = {0};
        struct df_buf buf = {0};
        struct df_append item = {.partition = partition};

        ad_wire_batch_header(&buf, b);
        item.value = df_buf_bytes(&buf);
        assert_int_equal(df_log_append(w, &item, 1, &err), 0);
        df_buf_release(&buf);
}

/* One generation in one partition, as far as it came; returns its records. */
static uint64_t put_generation(struct df_log_writer *w, uint32_t partition, uint64_t generation,
                               int how, uint64_t records)
{
        struct ad_batch begin = {.has_import_begin = true}, end = {.has_import_end = true};
        struct ad_batch events = {.first_seq = 1};

        if (how == NEVER)
                return 0;
        begin.import_begin = (struct ad_import_begin){.generation = generation,
                                                      .tenant_id = df_bytes_str("t"),
                                                      .dataset = df_bytes_str("d")};
        end.import_end =
                (struct ad_import_end){.generation = generation, .aborted = how == ABORTED};
        put_batch(w, partition, &begin);
        for (uint64_t i = 0; i < records; i++)
                put_batch(w, partition, &events);
        if (how != BEGUN)
                put_batch(w, partition, &end);
        return records + (how == BEGUN ? 1 : 2);
}

/* A complete generation, then a second one that came to `how` in each partition. */
static void check_second(const int how[PARTITIONS], bool counts)
{
        struct ad_where start = {.kind = AD_WHERE_START}, end = {.kind = AD_WHERE_END};
        struct ad_replay_pin pin = {0};
        struct df_sim *sim = df_sim_create(1);
        struct df_log *log = df_sim_log_open(sim, 0);
        struct df_log_writer *w = NULL;
        struct df_error err = {0};
        uint64_t first[PARTITIONS], second[PARTITIONS];

        assert_int_equal(df_log_topic_create(log, "import.x", PARTITIONS, &err), 0);
        assert_int_equal(df_log_writer_open(log, "import.x", &w, &err), 0);
        for (uint32_t p = 0; p < PARTITIONS; p++)
                first[p] = put_generation(w, p, 7, ENDED, 3 + p);
        for (uint32_t p = 0; p < PARTITIONS; p++)
                second[p] = put_generation(w, p, 9, how[p], 300 * p);
        df_log_writer_close(w);
        assert_int_equal(ad_replay_pin_range(log, "import.x", &start, &end, &pin, &err), 0);
        assert_int_equal(ad_replay_pin_imports(log, &pin, &err), 0);
        for (uint32_t p = 0; p < PARTITIONS; p++)
                assert_int_equal(pin.span[p].to, first[p] + (counts ? second[p] : 0));
        df_log_close(log);
        df_sim_destroy(sim);
}

static void test_an_import_counts_when_it_is_whole(void **state)
{
        (void)state;
        check_second((int[]){ENDED, ENDED, ENDED}, true);
        check_second((int[]){NEVER, NEVER, NEVER}, false);
        check_second((int[]){BEGUN, NEVER, NEVER}, false);
        check_second((int[]){ENDED, NEVER, NEVER}, false);
        check_second((int[]){NEVER, NEVER, BEGUN}, false);
        check_second((int[]){ENDED, ENDED, BEGUN}, false);
        check_second((int[]){ENDED, ABORTED, ENDED}, false);
        check_second((int[]){ABORTED, ABORTED, ABORTED}, false);
        assert_true(ad_topic_is_import("import.x") && !ad_topic_is_import("events"));
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_an_import_counts_when_it_is_whole),
                cmocka_unit_test(test_words),
                cmocka_unit_test(test_bad_words),
                cmocka_unit_test(test_pins),
                cmocka_unit_test(test_refused_pins),
                cmocka_unit_test(test_the_id_names_all_that_shapes_a_number),
        };

        return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}
