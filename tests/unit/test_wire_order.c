/* test_wire_order.c - events of other writers: what is not as ours writes it is read as well, and
 * the same (event.proto). */
#include "unit.h"

#include "proto/wire_private.h"
#include "wire_test.h"

#define SEEDS 300

/* Fields in any order and longer varints than needed are read too; what we write is canonical. */
static void test_bytes_of_other_writers_are_read(void **state)
{
        static const char other[] = "\xa2\x01\x04"
                                    "acme"             /* tenant_id first */
                                    "\x18\x81\x80\x00" /* event_time_ms = 1 in three bytes */
                                    "\x10\x82\x00"     /* type = 2 in two */
                                    "\x10\x03"         /* and again: the last one counts */
                                    "\x6a\x04\x10\x02\x08\x01" /* cost: nanos before units */
                                    "\x0a\x01x";
        struct ad_event ev;
        struct df_buf b = {0};

        (void)state;
        ok(ad_wire_event_decode(df_bytes(other, sizeof(other) - 1), &ev, err));
        assert_true(df_bytes_eq(ev.tenant_id, df_bytes_str("acme")));
        assert_true(df_bytes_eq(ev.event_id, df_bytes_str("x")));
        assert_int_equal(ev.event_ms, 1);
        assert_int_equal(ev.type, AD_CONVERSION);
        assert_int_equal(ev.cost_nanos, 1000000001);
        ad_wire_event(&b, &ev);
        assert_true(df_bytes_eq(df_buf_bytes(&b),
                                df_bytes("\x0a\x01x\x10\x03\x18\x01\x6a\x04\x08\x01\x10\x02\xa2\x01"
                                         "\x04"
                                         "acme",
                                         20)));
        df_buf_release(&b);
}

/* An amount in its place, of which not all is as our own writer makes it. */
static void test_amounts_in_a_canonical_event(void **state)
{
        static const struct {
                const char *bytes;
                size_t len;
                int64_t nanos; /* INT64_MIN: refused */
        } amounts[] = {
                {"\x6a\x02\x10\x02", 4, 1},
                {"\x6a\x02\x10\x01", 4, -1},
                {"\x6a\x04\x10\x02\x08\x01", 6, 1000000001}, /* units after nanos */
                {"\x6a\x04\x10\x02\x10\x04", 6, 2},          /* the last one counts */
                {"\x6a\x03\x10\x82\x00", 5, 1},              /* longer than it needs to be */
                {"\x6a\x02\x10\x82\x00", 5, INT64_MIN},      /* cut in its number */
                {"\x6a\x01\x10\x02", 4, INT64_MIN},
                {"\x6a\x01\x10\x80\x80\x80\x80\x80\x80\x80\x80", 11, INT64_MIN},
                {"\x6a\x00", 2, 0},
                {"\x6a\x06\x10\xfe\xa7\xd6\xb9\x07", 8, 999999999},
                {"\x6a\x06\x10\x80\xa8\xd6\xb9\x07", 8, INT64_MIN}, /* a whole unit of nanos */
                {"\x6a\x06\x10\xff\xa7\xd6\xb9\x07", 8, INT64_MIN}, /* less a whole unit */
        };
        struct df_buf b = {0};

        (void)state;
        for (size_t i = 0; i < sizeof(amounts) / sizeof(amounts[0]); i++) {
                struct ad_event ev;
                struct df_bytes e;
                int rc;

                df_buf_clear(&b);
                df_buf_append(&b, "\x0a\x01x\x10\x01", 5);
                df_buf_append(&b, amounts[i].bytes, amounts[i].len);
                df_buf_append(&b,
                              "\xa2\x01\x04"
                              "acme\xb2\x01\x04http",
                              14);
                e = exact(b.data, b.len);
                rc = ad_wire_event_decode(e, &ev, NULL);
                if (rc != (amounts[i].nanos == INT64_MIN ? DF_EPARSE : 0))
                        fail_msg("amount %zu: %d", i, rc);
                if (rc == 0) {
                        assert_int_equal(ev.cost_nanos, amounts[i].nanos);
                        assert_true(df_bytes_eq(ev.source, df_bytes_str("http")));
                }
                exact_free(e);
        }
        df_buf_release(&b);
}

/* The fields of an encoded event; attributes, which stand side by side, are one. */
static size_t split(struct df_bytes e, struct df_bytes *fields)
{
        const uint8_t *p = e.data, *end = e.data + e.len;
        size_t n = 0;

        while (p < end) {
                const uint8_t *start = p;
                uint64_t tag = 0;
                struct df_bytes s;

                p = dfi_get_varint(p, end, &tag);
                if ((tag & 7) == DFI_BYTES)
                        p = dfi_get_str(p, end, SIZE_MAX, &s);
                else
                        p = dfi_skip(p, end, tag);
                assert_non_null(p);
                if (n > 0 && tag >> 3 == 18 && fields[n - 1].data[0] == start[0] &&
                    fields[n - 1].data[1] == start[1])
                        fields[n - 1].len = (size_t)(p - fields[n - 1].data);
                else
                        fields[n++] = df_bytes(start, (size_t)(p - start));
        }
        return n;
}

/* Canonical bytes are read in a straight line, others by a table: both must read the same. Any
 * order; each field by itself out of its place; all of it twice. */
static void test_any_order_reads_as_the_canonical_one(void **state)
{
        struct event_text t = {0};
        struct df_buf b = {0}, other = {0};
        struct df_bytes fields[64];

        (void)state;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
                struct random r = {seed};
                struct ad_event ev, back;
                size_t n;

                random_event(&r, &ev, &t);
                df_buf_clear(&b);
                ad_wire_event(&b, &ev);
                n = split(df_buf_bytes(&b), fields);
                for (size_t round = 0; round <= n; round++) {
                        struct df_error why = {0};
                        struct df_bytes e;

                        df_buf_clear(&other);
                        for (size_t i = n; round == n && i-- > 1;) { /* shuffled */
                                size_t j = (size_t)below(&r, i + 1);
                                struct df_bytes was = fields[i];

                                fields[i] = fields[j];
                                fields[j] = was;
                        }
                        for (size_t i = 0; i < n; i++)
                                if (i != round)
                                        df_buf_append(&other, fields[i].data, fields[i].len);
                        if (round < n)
                                df_buf_append(&other, fields[round].data, fields[round].len);
                        if (ev.attributes.len == 0)
                                df_buf_append(&other, b.data, b.len);
                        e = exact(other.data, other.len);
                        if (ad_wire_event_decode(e, &back, &why) < 0)
                                fail_msg("seed %llu, round %zu: %s", (unsigned long long)seed,
                                         round, why.text);
                        same_event(&ev, &back);
                        exact_free(e);
                }
        }
        df_buf_release(&t.attributes);
        df_buf_release(&other);
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bytes_of_other_writers_are_read),
                cmocka_unit_test(test_amounts_in_a_canonical_event),
                cmocka_unit_test(test_any_order_reads_as_the_canonical_one),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
