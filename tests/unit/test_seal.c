/* test_seal.c - origins and seals as bytes (K6), and the collector (K5): a collection counts with
 * its seal, whole, and once, whatever stands between its records and wherever the reader begins
 * again. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "df/seal.h"
#include "df/sim.h"

#define ok(call) assert_int_equal((call), 0)
#define LIMIT (1u << 20)

/* ---- bytes ---- */

static struct df_seal full_seal(void)
{
        struct df_seal s = {
                .parent_k = 6,
                .parent_digest = {1, 2},
                .digest = {3, UINT64_MAX},
                .from_offset = 100,
                .to_offset = 1ull << 60,
                .records = 5,
                .poison_records = 1,
                .heartbeats = 2,
                .events = 500,
                .rows = 77,
                .rows_digest = {5, 6},
                .watermark_ms = DF_TIME_MIN,
                .max_append_ms = 1764000000000,
                .max_receive_ms = -1,
                .final_through_ms = DF_TIME_MAX,
                .config = 0xfeedface,
                .price_version = 3,
                .label_version = 4,
                .binary_version = "0123456789012345678901234567890", /* DF_VERSION_MAX */
                .closed = true,
                .note = df_bytes("note", 4),
        };

        s.outcomes[1] = 400;
        s.outcomes[DF_OUTCOMES_MAX - 1] = 100;
        return s;
}

static struct df_origin full_origin(void)
{
        struct df_origin o = {.source = {.generation = 9, .partition = 255}, .k = 7, .epoch = 8};

        memset(o.source.stream, 's', DF_TOPIC_NAME_MAX);
        o.n = 77;
        return o;
}

static void test_a_seal_survives_its_bytes(void **state)
{
        struct df_origin origin = full_origin();
        struct df_seal in = full_seal();
        struct df_buf a = {0}, b = {0};
        struct df_output out;

        (void)state;
        df_output_encode_seal(&a, &origin, &in);
        ok(df_output_decode(df_buf_bytes(&a), &out, NULL));
        assert_true(out.is_seal);
        assert_true(df_source_eq(&out.origin.source, &origin.source));
        assert_int_equal(out.origin.k, 7);
        assert_int_equal(out.origin.epoch, 8);
        assert_int_equal(out.origin.n, 77);
        assert_true(out.seal.watermark_ms == DF_TIME_MIN);
        assert_true(out.seal.final_through_ms == DF_TIME_MAX);
        assert_int_equal(out.seal.max_receive_ms, -1);
        assert_int_equal(out.seal.outcomes[1], 400);
        assert_int_equal(out.seal.outcomes[DF_OUTCOMES_MAX - 1], 100);
        assert_int_equal(out.seal.outcomes[2], 0);
        assert_true(df_hash128_eq(out.seal.digest, in.digest));
        assert_string_equal(out.seal.binary_version, in.binary_version);
        assert_true(df_bytes_eq(out.seal.note, in.note));
        df_output_encode_seal(&b, &out.origin, &out.seal); /* canonical: everything was read */
        assert_true(df_bytes_eq(df_buf_bytes(&a), df_buf_bytes(&b)));
        df_buf_release(&a);
        df_buf_release(&b);
}

static void test_damaged_bytes(void **state)
{
        struct df_origin origin = full_origin();
        struct df_seal in = full_seal();
        struct df_error err = {0};
        struct df_buf a = {0};
        struct df_output out;
        size_t torn = 0;

        (void)state;
        df_output_encode_seal(&a, &origin, &in);
        for (size_t n = 0; n < a.len; n++) { /* a copy of its own size: reading beyond is seen */
                uint8_t *cut = malloc(n + 1);

                memcpy(cut, a.data, n);
                torn += df_output_decode(df_bytes(cut, n), &out, NULL) == DF_EPARSE;
                free(cut);
        }
        assert_true(torn > a.len - 8); /* only an end between the outer fields can pass */
        for (size_t i = 0; i < a.len; i++)
                for (int bit = 0; bit < 8; bit++) {
                        a.data[i] ^= (uint8_t)(1 << bit);
                        (void)df_output_decode(df_buf_bytes(&a), &out, NULL);
                        a.data[i] ^= (uint8_t)(1 << bit);
                }
        df_buf_clear(&a);
        size_t m = df_pb_begin(&a, 1);
        char name[DF_TOPIC_NAME_MAX + 2] = {0};
        memset(name, 'x', DF_TOPIC_NAME_MAX + 1); /* one beyond */
        df_pb_str(&a, 1, name);
        df_pb_end(&a, m);
        assert_int_equal(df_output_decode(df_buf_bytes(&a), &out, &err), DF_EPARSE);
        assert_non_null(strstr(err.text, "damaged"));
        df_buf_release(&a);
}

static void test_sources_differ_in_each_part(void **state)
{
        struct df_source a = {.stream = "events", .generation = 1, .partition = 2}, b = a;

        (void)state;
        assert_true(df_source_eq(&a, &b));
        b.generation = 2;
        assert_false(df_source_eq(&a, &b));
        b = a;
        b.partition = 0;
        assert_false(df_source_eq(&a, &b));
        b = a;
        b.stream[5] = 0;
        assert_false(df_source_eq(&a, &b));
}

/* ---- a log of output records ---- */

struct log {
        struct df_record *records;
        size_t count, cap;
};

static void log_add(struct log *l, struct df_buf *b)
{
        if (l->count == l->cap) {
                l->cap = l->cap ? 2 * l->cap : 64;
                l->records = realloc(l->records, l->cap * sizeof(*l->records));
                assert_non_null(l->records);
        }
        l->records[l->count] =
                (struct df_record){.offset = l->count, .value = df_buf_bytes(b)}; /* owned now */
        l->count++;
        *b = (struct df_buf){0};
}

static void log_release(struct log *l)
{
        for (size_t i = 0; i < l->count; i++)
                free((void *)(uintptr_t)l->records[i].value.data);
        free(l->records);
        *l = (struct log){0};
}

static struct df_origin origin(uint32_t partition, uint64_t k, uint64_t epoch)
{
        return (struct df_origin){
                .source = {.stream = "events", .partition = partition}, .k = k, .epoch = epoch};
}

/* Payload n of (partition, k): the same for each epoch, as K7 asks. */
static size_t payload(uint8_t *ret, const struct df_origin *o, uint32_t n)
{
        return (size_t)snprintf((char *)ret, 64, "%u/%llu/%u", o->source.partition,
                                (unsigned long long)o->k, n);
}

static void add_row(struct log *l, struct df_origin o, uint32_t n)
{
        uint8_t text[64];
        struct df_buf b = {0};

        o.n = n;
        df_output_encode(&b, &o, df_bytes(text, payload(text, &o, n)));
        log_add(l, &b);
}

static void add_seal(struct log *l, struct df_origin o, uint32_t rows)
{
        struct df_seal s = {.parent_k = o.k - 1, .rows = rows, .note = df_bytes("n", 1)};
        struct df_buf b = {0};

        for (uint32_t n = 0; n < rows; n++) {
                uint8_t text[64];
                s.rows_digest = df_digest_add(s.rows_digest, df_bytes(text, payload(text, &o, n)));
        }
        o.n = rows;
        df_output_encode_seal(&b, &o, &s);
        log_add(l, &b);
}

static void add_whole(struct log *l, struct df_origin o, uint32_t rows)
{
        for (uint32_t n = 0; n < rows; n++)
                add_row(l, o, n);
        add_seal(l, o, rows);
}

static void check_payloads(const struct df_collection *c)
{
        assert_int_equal(c->count, c->seal.rows);
        assert_true(df_bytes_eq(c->seal.note, df_bytes("n", 1)));
        for (uint32_t n = 0; n < c->count; n++) {
                uint8_t text[64];
                size_t len = payload(text, &c->origin, n);

                assert_true(df_bytes_eq(c->payloads[n], df_bytes(text, len)));
        }
}

/* What each record says: M more, C complete, R repeated, D damaged. */
static void expect(const struct log *l, size_t limit, const char *want)
{
        struct df_collector *c = NULL;
        char got[128] = {0};

        assert_int_equal(strlen(want), l->count);
        ok(df_collector_create(limit, &c, NULL));
        for (size_t i = 0; i < l->count; i++) {
                struct df_collection ret;
                enum df_collect what;

                ok(df_collector_add(c, &l->records[i], &what, &ret, NULL));
                got[i] = "MCRD"[what];
                if (what == DF_COLLECT_COMPLETE)
                        check_payloads(&ret);
        }
        df_collector_destroy(c);
        assert_string_equal(got, want);
}

static void test_complete_with_its_seal_alone(void **state)
{
        struct log l = {0};

        (void)state;
        add_row(&l, origin(0, 1, 1), 0);
        add_row(&l, origin(0, 1, 1), 1);
        add_seal(&l, origin(0, 1, 1), 2);
        add_seal(&l, origin(0, 2, 1), 0); /* K4: empty, and sealed */
        add_row(&l, origin(0, 3, 1), 0);  /* no seal: never */
        expect(&l, LIMIT, "MMCCM");
        log_release(&l);
}

/* K7: the owner died in the middle; the next one writes k again, whole, under its own epoch. */
static void test_again_after_a_takeover(void **state)
{
        struct log l = {0};

        (void)state;
        add_row(&l, origin(0, 1, 1), 0);
        add_row(&l, origin(0, 1, 1), 1);
        add_whole(&l, origin(0, 1, 2), 3);
        add_whole(&l, origin(0, 1, 3), 3); /* written again though it was there */
        add_whole(&l, origin(0, 2, 3), 1);
        expect(&l, LIMIT, "MMMMMCMMMRMC");
        log_release(&l);
}

static void test_records_between_each_other(void **state)
{
        struct log l = {0};

        (void)state;
        for (uint32_t n = 0; n < 2; n++) {
                add_row(&l, origin(0, 1, 1), n);
                add_row(&l, origin(1, 1, 1), n);
                add_row(&l, origin(0, 1, 2), n); /* the same k of another owner */
        }
        add_seal(&l, origin(1, 1, 1), 2);
        add_seal(&l, origin(0, 1, 2), 2);
        add_seal(&l, origin(0, 1, 1), 2); /* too late */
        expect(&l, LIMIT, "MMMMMMCCR");
        log_release(&l);
}

static void test_damage_is_named_and_dropped(void **state)
{
        struct df_origin o = origin(0, 1, 1);
        struct log l = {0};

        (void)state;
        add_row(&l, o, 0); /* one is missing at the end */
        add_seal(&l, o, 2);
        o.epoch = 2;
        add_row(&l, o, 1); /* at the beginning */
        add_seal(&l, o, 2);
        o.epoch = 3;
        add_row(&l, o, 0); /* in the middle */
        add_row(&l, o, 2);
        add_seal(&l, o, 3);
        o.epoch = 4;
        add_row(&l, o, 0); /* one too many */
        add_row(&l, o, 1);
        add_seal(&l, o, 1);
        add_seal(&l, origin(0, 1, 5), 1); /* all of them */
        o.epoch = 6;
        add_whole(&l, o, 1);
        ((uint8_t *)(uintptr_t)l.records[l.count - 2]
                 .value.data)[l.records[l.count - 2].value.len - 1] ^= 1; /* another content */
        add_whole(&l, origin(0, 1, 7), 2); /* a good one is still accepted */
        expect(&l, LIMIT, "MDMDMMDMMDDMDMMC");
        log_release(&l);
}

/* Appended twice, or begun again under the same epoch: the same bytes, so each place once. */
static void test_duplicate_records(void **state)
{
        struct df_origin o = origin(0, 1, 1);
        struct log l = {0};

        (void)state;
        add_row(&l, o, 0);
        add_row(&l, o, 0);
        add_row(&l, o, 1);
        add_row(&l, o, 0);
        add_row(&l, o, 1);
        add_row(&l, o, 2);
        add_seal(&l, o, 3);
        add_seal(&l, o, 3);
        expect(&l, LIMIT, "MMMMMMCR");
        log_release(&l);
}

static void test_what_was_applied_before(void **state)
{
        struct df_collector *c = NULL;
        struct df_source s = origin(0, 1, 1).source;
        struct df_collection ret;
        enum df_collect what;
        struct log l = {0};

        (void)state;
        add_whole(&l, origin(0, 4, 1), 2);
        add_whole(&l, origin(0, 5, 1), 1);
        add_whole(&l, origin(1, 1, 1), 0); /* another source knows nothing of it */
        ok(df_collector_create(LIMIT, &c, NULL));
        ok(df_collector_applied(c, &s, 4, NULL));
        ok(df_collector_applied(c, &s, 3, NULL)); /* never back */
        for (size_t i = 1; i < l.count; i++) {    /* from its middle: still only a repeat */
                ok(df_collector_add(c, &l.records[i], &what, &ret, NULL));
                assert_int_equal(df_collector_floor(c, i + 1), i == 3 ? 3 : i + 1);
                assert_int_equal(what, i == 2   ? DF_COLLECT_REPEATED
                                       : i == 4 ? DF_COLLECT_COMPLETE
                                       : i == 5 ? DF_COLLECT_COMPLETE
                                                : DF_COLLECT_MORE);
        }
        df_collector_destroy(c);
        log_release(&l);
}

/* K6: memory is bounded. What is over the limit is refused by name and its seal does not match;
 * what a dead owner left goes first. */
static void test_bounded_memory(void **state)
{
        struct df_collector *c = NULL;
        struct df_collection ret;
        struct df_error err = {0};
        enum df_collect what;
        struct log l = {0};

        (void)state;
        add_whole(&l, origin(0, 1, 1), 3); /* 3 payloads of 5 bytes */
        ok(df_collector_create(15, &c, NULL));
        for (size_t i = 0; i < l.count; i++)
                ok(df_collector_add(c, &l.records[i], &what, &ret, NULL));
        assert_int_equal(what, DF_COLLECT_COMPLETE); /* exactly the limit */
        df_collector_destroy(c);

        ok(df_collector_create(14, &c, NULL)); /* one beyond */
        ok(df_collector_add(c, &l.records[0], &what, &ret, NULL));
        ok(df_collector_add(c, &l.records[1], &what, &ret, NULL));
        assert_int_equal(df_collector_add(c, &l.records[2], &what, &ret, &err), DF_ELIMIT);
        assert_non_null(strstr(err.text, "events/0 checkpoint 1"));
        assert_int_equal(df_collector_floor(c, 3), 0); /* it is not complete yet */
        ok(df_collector_add(c, &l.records[3], &what, &ret, NULL));
        assert_int_equal(what, DF_COLLECT_DAMAGED);
        assert_int_equal(df_collector_floor(c, 4), 4);
        log_release(&l);

        add_row(&l, origin(0, 1, 2), 0); /* a dead owner's */
        add_row(&l, origin(0, 1, 2), 1);
        add_whole(&l, origin(0, 1, 3), 2);
        for (size_t i = 0; i < l.count; i++)
                ok(df_collector_add(c, &l.records[i], &what, &ret, NULL));
        assert_int_equal(what, DF_COLLECT_COMPLETE);
        df_collector_destroy(c);
        log_release(&l);
}

static void test_a_record_of_something_else(void **state)
{
        struct df_record r = {.value = df_bytes("\x0a\xff", 2)};
        struct df_collector *c = NULL;
        struct df_collection ret;
        enum df_collect what;

        (void)state;
        ok(df_collector_create(LIMIT, &c, NULL));
        assert_int_equal(df_collector_add(c, &r, &what, &ret, NULL), DF_EPARSE);
        df_collector_destroy(c);
        df_collector_destroy(NULL);
}

/* ---- seeds: writers that die, a reader that begins again ---- */

#define SOURCES 3

static void random_log(struct log *l, struct df_sim_random *r, uint64_t *last_k)
{
        uint64_t k[SOURCES] = {1, 1, 1}, epoch[SOURCES] = {1, 1, 1};
        uint32_t n[SOURCES] = {0}, rows[SOURCES] = {2, 0, 3};

        for (int i = 0; i < 400; i++) {
                uint32_t s = (uint32_t)df_sim_random_below(r, SOURCES);

                if (df_sim_random_chance(r, 60)) { /* dies; its successor begins k again */
                        if (k[s] > 1 && n[s] == 0 && df_sim_random_chance(r, 500))
                                k[s]--; /* its seal was there, but nobody looked */
                        rows[s] = (uint32_t)(k[s] * 7 % 5);
                        epoch[s]++;
                        n[s] = 0;
                        continue;
                }
                if (n[s] < rows[s]) {
                        add_row(l, origin(s, k[s], epoch[s]), n[s]);
                        n[s]++;
                        continue;
                }
                rows[s] = (uint32_t)(k[s] * 7 % 5);
                if (n[s] != rows[s])
                        continue;
                add_seal(l, origin(s, k[s], epoch[s]), rows[s]);
                last_k[s] = k[s] > last_k[s] ? k[s] : last_k[s];
                k[s]++;
                rows[s] = (uint32_t)(k[s] * 7 % 5);
                n[s] = 0;
        }
}

static void test_each_collection_once_wherever_reading_stops(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 60; seed++) {
                uint64_t last_k[SOURCES] = {0}, applied[SOURCES] = {0}, saved[SOURCES] = {0};
                struct df_sim_random r;
                struct df_collector *c = NULL;
                struct log l = {0};
                size_t at = 0, saved_at = 0, restarts = 0;

                df_sim_random_init(&r, seed);
                random_log(&l, &r, last_k);
                ok(df_collector_create(LIMIT, &c, NULL));
                while (at < l.count) {
                        struct df_collection ret;
                        enum df_collect what;

                        ok(df_collector_add(c, &l.records[at], &what, &ret, NULL));
                        at++;
                        if (what == DF_COLLECT_DAMAGED)
                                fail_msg("seed %llu offset %zu: damaged", (unsigned long long)seed,
                                         at - 1);
                        if (what == DF_COLLECT_COMPLETE) {
                                uint32_t s = ret.origin.source.partition;

                                check_payloads(&ret);
                                if (ret.origin.k != applied[s] + 1)
                                        fail_msg("seed %llu: k %llu after %llu",
                                                 (unsigned long long)seed,
                                                 (unsigned long long)ret.origin.k,
                                                 (unsigned long long)applied[s]);
                                applied[s]++;
                        }
                        if (df_sim_random_chance(&r, 200)) { /* one write: applied and floor */
                                saved_at = (size_t)df_collector_floor(c, at);
                                memcpy(saved, applied, sizeof(saved));
                        }
                        if (restarts < 40 && df_sim_random_chance(&r, 50)) {
                                restarts++;
                                df_collector_destroy(c);
                                ok(df_collector_create(LIMIT, &c, NULL));
                                at = saved_at;
                                memcpy(applied, saved, sizeof(saved));
                                for (uint32_t s = 0; s < SOURCES; s++) {
                                        struct df_source source = origin(s, 1, 1).source;
                                        ok(df_collector_applied(c, &source, applied[s], NULL));
                                }
                        }
                }
                for (uint32_t s = 0; s < SOURCES; s++)
                        assert_int_equal(applied[s], last_k[s]);
                df_collector_destroy(c);
                log_release(&l);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_a_seal_survives_its_bytes),
                cmocka_unit_test(test_damaged_bytes),
                cmocka_unit_test(test_sources_differ_in_each_part),
                cmocka_unit_test(test_complete_with_its_seal_alone),
                cmocka_unit_test(test_again_after_a_takeover),
                cmocka_unit_test(test_records_between_each_other),
                cmocka_unit_test(test_damage_is_named_and_dropped),
                cmocka_unit_test(test_duplicate_records),
                cmocka_unit_test(test_what_was_applied_before),
                cmocka_unit_test(test_bounded_memory),
                cmocka_unit_test(test_a_record_of_something_else),
                cmocka_unit_test(test_each_collection_once_wherever_reading_stops),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
