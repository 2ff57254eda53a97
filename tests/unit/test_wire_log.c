/* test_wire_log.c - the payloads of output topics (proto/wire_log.c) against the code that protoc
 * generates from proto/log.proto, cut short at every byte, and one beyond every limit. */
#include "unit.h"

#include "wire_test.h"

#define SEEDS 300

/* Every encoder appends one entry; payloads hold several. */
#define ENTRIES 4

/* ---- rows (W3) ---- */

struct row_text {
        char tenant[AD_ID_MAX + 1], dims[AD_DIM_COUNT][AD_ID_MAX + 1], currency[4];
};

static void random_row(struct random *r, struct ad_row *row, struct row_text *t)
{
        *row = (struct ad_row){
                .grouping = (uint32_t)number(r),
                .minute = number(r),
                .tenant_id = text(r, t->tenant, AD_ID_MAX),
                .dim_count = (uint32_t)below(r, AD_DIM_COUNT + 1),
                .currency = text(r, t->currency, 3),
                .cell = {number(r),
                         number(r),
                         number(r),
                         {number(r), number(r), number(r)},
                         huge_number(r),
                         huge_number(r),
                         huge_number(r)},
        };
        for (uint32_t i = 0; i < row->dim_count; i++)
                row->dims[i] = text(r, t->dims[i], AD_ID_MAX);
}

static void same_row(const Adtally__V1__Row *m, const struct ad_row *row)
{
        assert_int_equal(m->grouping, row->grouping);
        assert_int_equal(m->window_minute, row->minute);
        same_text(m->tenant_id, row->tenant_id);
        assert_int_equal(m->n_dims, row->dim_count);
        for (uint32_t i = 0; i < row->dim_count; i++) /* an empty one keeps its place */
                same_text(m->dims[i], row->dims[i]);
        same_text(m->currency, row->currency);
        assert_int_equal(m->impressions, row->cell.impressions);
        assert_int_equal(m->clicks, row->cell.clicks);
        assert_int_equal(m->conversions, row->cell.conversions);
        assert_int_equal(m->invalid_impressions, row->cell.invalid[0]);
        assert_int_equal(m->invalid_clicks, row->cell.invalid[1]);
        assert_int_equal(m->invalid_conversions, row->cell.invalid[2]);
        same_int128(m->spend_nanos, row->cell.spend);
        same_int128(m->payout_nanos, row->cell.payout);
        same_int128(m->conversion_value_nanos, row->cell.value);
}

struct got_rows {
        const Adtally__V1__RowBatch *m;
        size_t count;
};

static int got_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct got_rows *g = arg;

        (void)err;
        assert_in_range(g->count, 0, g->m->n_rows - 1);
        same_row(g->m->rows[g->count++], row);
        return 0;
}

static int ignore_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        (void)arg;
        (void)err;
        assert_in_range(row->dim_count, 0, AD_DIM_COUNT);
        return 0;
}
static int decode_rows(struct df_bytes bytes, struct df_error *err)
{
        return ad_wire_rows_decode(bytes, ignore_row, NULL, err);
}

static void test_rows(void **state)
{
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                size_t count = below(&r, ENTRIES + 1);
                struct ad_row rows[ENTRIES];
                struct row_text texts[ENTRIES];
                Adtally__V1__RowBatch *m;
                struct got_rows got = {0};
                struct df_bytes e;

                df_buf_clear(&b);
                for (size_t i = 0; i < count; i++) {
                        random_row(&r, &rows[i], &texts[i]);
                        ad_wire_row(&b, &rows[i]);
                }
                e = exact(b.data, b.len);
                m = adtally__v1__row_batch__unpack(NULL, e.len, e.data);
                assert_non_null(m);
                got.m = m;
                assert_int_equal(m->n_rows, count);
                for (size_t i = 0; i < count; i++)
                        same_row(m->rows[i], &rows[i]);
                same_bytes(e, &m->base, seed);
                ok(ad_wire_rows_decode(e, got_row, &got, err));
                assert_int_equal(got.count, count);
                if (seed <= 40)
                        check_truncation(e, decode_rows, &adtally__v1__row_batch__descriptor, seed);
                check_unknown_fields(e, decode_rows);
                check_damage(&r, e, decode_rows);
                adtally__v1__row_batch__free_unpacked(m, NULL);
                exact_free(e);
        }
        df_buf_release(&b);
}

static int refuse_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        (void)arg;
        (void)row;
        return df_fail(err, DF_EIO, "not this one");
}

/* One row whose fields are written by hand. */
static int decode_row_of(const struct df_buf *fields)
{
        struct df_error err = {0};
        struct df_buf b = {0};
        int rc;

        df_pb_bytes(&b, 1, df_buf_bytes(fields));
        rc = decode_rows(df_buf_bytes(&b), &err);
        df_buf_release(&b);
        return rc;
}

static void test_rows_one_beyond_their_limits(void **state)
{
        static char long_text[AD_ID_MAX + 1];
        struct df_buf f = {0}, b = {0};
        struct df_error e = {0};

        (void)state;
        memset(long_text, 'x', sizeof(long_text));
        for (size_t over = 0; over < 2; over++) {
                int rc = over ? DF_EPARSE : 0;

                df_buf_clear(&f);
                df_pb_bytes(&f, 3, df_bytes(long_text, AD_ID_MAX + over)); /* tenant_id */
                assert_int_equal(decode_row_of(&f), rc);
                df_buf_clear(&f);
                df_pb_bytes(&f, 4, df_bytes(long_text, AD_ID_MAX + over)); /* a dimension */
                assert_int_equal(decode_row_of(&f), rc);
                df_buf_clear(&f);
                for (size_t i = 0; i < AD_DIM_COUNT + over; i++)
                        df_pb_bytes(&f, 4, df_bytes("x", 1));
                assert_int_equal(decode_row_of(&f), rc);
                df_buf_clear(&f);
                df_pb_bytes(&f, 5, df_bytes(long_text, 3 + over)); /* currency */
                assert_int_equal(decode_row_of(&f), rc);
                for (uint32_t field = 9; field <= 11; field++) { /* 128 bits */
                        df_buf_clear(&f);
                        df_pb_bytes(&f, field, df_bytes(long_text, 16 + over));
                        assert_int_equal(decode_row_of(&f), rc);
                }
        }
        df_pb_uint(&b, 1, 5); /* a row that is a number */
        assert_int_equal(decode_rows(df_buf_bytes(&b), &e), DF_EPARSE);
        df_buf_clear(&b);
        ad_wire_row(&b, &(struct ad_row){.minute = 1});
        assert_int_equal(ad_wire_rows_decode(df_buf_bytes(&b), refuse_row, NULL, &e), DF_EIO);
        df_buf_release(&f);
        df_buf_release(&b);
}

/* ---- late events ---- */

struct got_late {
        const Adtally__V1__LateBatch *m;
        const struct ad_event *events;
        size_t count;
};

static int got_late(void *arg, const struct ad_late *late, struct df_error *err)
{
        struct got_late *g = arg;
        const Adtally__V1__LateEvent *m;
        struct ad_event back;

        assert_in_range(g->count, 0, g->m->n_events - 1);
        m = g->m->events[g->count];
        assert_int_equal(m->offset, late->offset);
        assert_int_equal(m->index, late->index);
        assert_int_equal(m->append_ms, late->append_ms);
        assert_int_equal(m->watermark_ms, late->watermark_ms);
        assert_int_equal(ad_wire_event_decode(late->event, &back, err), 0);
        same_event(&g->events[g->count++], &back);
        return 0;
}

static int ignore_late(void *arg, const struct ad_late *late, struct df_error *err)
{
        struct ad_event ev;

        (void)arg;
        (void)err;
        (void)ad_wire_event_decode(late->event, &ev, NULL); /* its own decoder judges it */
        return 0;
}
static int decode_late(struct df_bytes bytes, struct df_error *err)
{
        return ad_wire_late_decode(bytes, ignore_late, NULL, err);
}

static void test_late(void **state)
{
        static struct event_text texts[ENTRIES];
        struct df_buf b = {0}, one = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                size_t count = below(&r, ENTRIES + 1);
                struct ad_event events[ENTRIES];
                struct got_late got = {.events = events};
                Adtally__V1__LateBatch *m;
                struct df_bytes e;

                df_buf_clear(&b);
                for (size_t i = 0; i < count; i++) {
                        do { /* an event of no bytes would be left out */
                                random_event(&r, &events[i], &texts[i]);
                                df_buf_clear(&one);
                                ad_wire_event(&one, &events[i]);
                        } while (one.len == 0);
                        ad_wire_late(&b, &(struct ad_late){number(&r), (uint32_t)number(&r),
                                                           signed_number(&r), signed_number(&r),
                                                           df_buf_bytes(&one)});
                }
                e = exact(b.data, b.len);
                m = adtally__v1__late_batch__unpack(NULL, e.len, e.data);
                assert_non_null(m);
                assert_int_equal(m->n_events, count);
                same_bytes(e, &m->base, seed);
                got.m = m;
                ok(ad_wire_late_decode(e, got_late, &got, err));
                assert_int_equal(got.count, count);
                check_unknown_fields(e, decode_late);
                check_damage(&r, e, decode_late);
                adtally__v1__late_batch__free_unpacked(m, NULL);
                exact_free(e);
        }
        for (size_t i = 0; i < ENTRIES; i++)
                df_buf_release(&texts[i].attributes);
        df_buf_release(&b);
        df_buf_release(&one);
}

static void test_late_one_beyond_its_limit(void **state)
{
        static char long_text[AD_EVENT_BYTES_MAX + 1];
        struct df_error e = {0};
        struct df_buf b = {0};

        (void)state;
        for (size_t over = 0; over < 2; over++) {
                df_buf_clear(&b);
                ad_wire_late(&b, &(struct ad_late){
                                         .event = df_bytes(long_text, AD_EVENT_BYTES_MAX + over)});
                assert_int_equal(decode_late(df_buf_bytes(&b), &e), over ? DF_EPARSE : 0);
        }
        df_buf_release(&b);
}

/* ---- quarantine (E2) ---- */

struct got_quarantined {
        const Adtally__V1__QuarantineBatch *m;
        size_t count;
};

static int got_quarantined(void *arg, const struct ad_quarantined *q, struct df_error *err)
{
        struct got_quarantined *g = arg;
        const Adtally__V1__Quarantined *m;

        (void)err;
        assert_in_range(g->count, 0, g->m->n_items - 1);
        m = g->m->items[g->count++];
        assert_int_equal(m->offset, q->offset);
        assert_int_equal(m->index, q->index);
        assert_int_equal(m->whole_record, q->whole_record);
        assert_int_equal(m->reason, q->reason);
        assert_int_equal(m->append_ms, q->append_ms);
        same_text(m->tenant_id, q->tenant_id);
        same_text(m->event_id, q->event_id);
        assert_true(df_bytes_eq(df_bytes(m->head.data, m->head.len), q->head));
        assert_int_equal(m->size, q->size);
        return 0;
}

static int ignore_quarantined(void *arg, const struct ad_quarantined *q, struct df_error *err)
{
        (void)arg;
        (void)q;
        (void)err;
        return 0;
}
static int decode_quarantine(struct df_bytes bytes, struct df_error *err)
{
        return ad_wire_quarantine_decode(bytes, ignore_quarantined, NULL, err);
}

static void test_quarantine(void **state)
{
        static char head[AD_QUARANTINE_HEAD_MAX + 1];
        struct df_buf b = {0};

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                size_t count = below(&r, ENTRIES + 1);
                struct got_quarantined got = {0};
                Adtally__V1__QuarantineBatch *m;
                struct df_bytes e;

                df_buf_clear(&b);
                for (size_t i = 0; i < count; i++) {
                        char tenant[AD_ID_MAX + 1], id[AD_EVENT_ID_MAX + 1];
                        struct ad_quarantined q = {
                                .offset = number(&r),
                                .index = (uint32_t)number(&r),
                                .whole_record = below(&r, 2),
                                .reason = (uint32_t)number(&r),
                                .append_ms = signed_number(&r),
                                .tenant_id = text(&r, tenant, AD_ID_MAX),
                                .event_id = text(&r, id, AD_EVENT_ID_MAX),
                                .head = text(&r, head,
                                             below(&r, 10) ? 200 : AD_QUARANTINE_HEAD_MAX),
                                .size = number(&r),
                        };

                        ad_wire_quarantined(&b, &q);
                }
                e = exact(b.data, b.len);
                m = adtally__v1__quarantine_batch__unpack(NULL, e.len, e.data);
                assert_non_null(m);
                assert_int_equal(m->n_items, count);
                same_bytes(e, &m->base, seed);
                got.m = m;
                ok(ad_wire_quarantine_decode(e, got_quarantined, &got, err));
                assert_int_equal(got.count, count);
                if (e.len < 1000)
                        check_truncation(e, decode_quarantine,
                                         &adtally__v1__quarantine_batch__descriptor, seed);
                check_unknown_fields(e, decode_quarantine);
                check_damage(&r, e, decode_quarantine);
                adtally__v1__quarantine_batch__free_unpacked(m, NULL);
                exact_free(e);
        }
        df_buf_release(&b);
}

static void test_quarantine_one_beyond_its_limits(void **state)
{
        static char long_text[AD_QUARANTINE_HEAD_MAX + 1];
        struct df_error e = {0};
        struct df_buf b = {0};

        (void)state;
        for (int which = 0; which < 3; which++) {
                for (size_t over = 0; over < 2; over++) {
                        struct ad_quarantined q = {.offset = 1};

                        if (which == 0)
                                q.tenant_id = df_bytes(long_text, AD_ID_MAX + over);
                        else if (which == 1)
                                q.event_id = df_bytes(long_text, AD_EVENT_ID_MAX + over);
                        else
                                q.head = df_bytes(long_text, AD_QUARANTINE_HEAD_MAX + over);
                        df_buf_clear(&b);
                        ad_wire_quarantined(&b, &q);
                        assert_int_equal(decode_quarantine(df_buf_bytes(&b), &e),
                                         over ? DF_EPARSE : 0);
                }
        }
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_rows),
                cmocka_unit_test(test_rows_one_beyond_their_limits),
                cmocka_unit_test(test_late),
                cmocka_unit_test(test_late_one_beyond_its_limit),
                cmocka_unit_test(test_quarantine),
                cmocka_unit_test(test_quarantine_one_beyond_its_limits),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
