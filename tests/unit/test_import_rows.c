/* Import, first half: files to rows (RFC 4180 and NDJSON), rows to events, times, and the table of
 * ids. Expected values are written out by hand. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "jobs/adtally/import.h"

static char dir[64], file[96];
static struct ad_zones *zones;

static int set_up(void **state)
{
        (void)state;
        (void)snprintf(dir, sizeof(dir), "/tmp/adtally-rows-XXXXXX");
        if (!mkdtemp(dir))
                return -1;
        (void)snprintf(file, sizeof(file), "%s/file", dir);
        return ad_zones_create(NULL, &zones, NULL);
}

static int tear_down(void **state)
{
        char path[128];

        (void)state;
        ad_zones_destroy(zones);
        (void)unlink(file);
        (void)snprintf(path, sizeof(path), "%s/ids", dir);
        (void)unlink(path);
        return rmdir(dir);
}

static struct ad_import_reader *open_text(const char *content, size_t len)
{
        struct ad_import_reader *r = NULL;
        struct df_error err = {0};

        assert_int_equal(df_write_file(file, df_bytes(content, len), false, NULL), 0);
        if (ad_import_reader_open(file, &r, &err) < 0)
                fail_msg("%s", err.text);
        return r;
}

/* All rows as text: cells in [], an absent one as -, bad rows as "!line". */
static void read_all(struct ad_import_reader *r, struct df_buf *out)
{
        bool more = true;

        df_buf_clear(out);
        while (more) {
                const struct df_bytes *cells;
                struct df_error err = {0};
                size_t count = 0;
                int rc = ad_import_reader_next(r, &cells, &count, &more, &err);

                if (rc == DF_EPARSE) {
                        df_buf_printf(out, "!%d\n", (int)ad_import_reader_line(r));
                        continue;
                }
                assert_int_equal(rc, 0);
                for (size_t i = 0; more && i < count; i++)
                        if (cells[i].data)
                                df_buf_printf(out, "[%.*s]", (int)cells[i].len,
                                              (const char *)cells[i].data);
                        else
                                df_buf_printf(out, "-");
                if (more)
                        df_buf_printf(out, "\n");
        }
        df_put_u8(out, 0);
}

static void csv_of_every_kind(void **state)
{
        static const struct {
                const char *file, *rows;
        } cases[] = {
                {"a,b\n1,2\n", "[1][2]\n"},
                {"a,b\r\n1,2\r\n3,4", "[1][2]\n[3][4]\n"},
                {"\xef\xbb\xbf"
                 "a,b\n1,2\n",
                 "[1][2]\n"},
                {"a,b\n\"1\",\"2\"\n", "[1][2]\n"},
                {"a,b\n\"x,y\",\"say \"\"hi\"\"\"\r\n", "[x,y][say \"hi\"]\n"},
                {"a,b\n\"two\nlines\",\"\"\n", "[two\nlines][]\n"},
                {"a,b\n\"two\r\nlines\",1\r\n9,8\r\n", "[two\r\nlines][1]\n[9][8]\n"},
                {"a,b\n,\n", "[][]\n"},
                {"a,b\n\n\r\n1,2\n\n", "[1][2]\n"},
                {"a,b\n 1 ,\t2\n", "[1][2]\n"},
                {"a,b\n1\n", "!2\n"},
                {"a,b\n1,2,3\n4,5\n", "!2\n[4][5]\n"},
                {"a,b\n1\"x,2\n3,4\n", "!2\n[3][4]\n"},
                {"a,b\n\"1\"x,2\n3,4\n", "!2\n[3][4]\n"},
                {"a,b\n1,\"open\n3,4\n", "!2\n"},
                {"a,b\n1,\"\"\"\"\n", "[1][\"]\n"},
                {"a,b\nx\ry,2\n", "[x\ry][2]\n"},
                {"a\n\"\"\n", "[]\n"},
                {"a\n1\n\"2\"", "[1]\n[2]\n"},
                {"a,b\n1,2\r", "[1][2]\n"},
                {"a,b\n1,2,\"x\"\"\n", "!2\n"},
                {"a,b\n", ""},
        };
        struct df_buf out = {0};

        (void)state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct ad_import_reader *r = open_text(cases[i].file, strlen(cases[i].file));

                assert_int_equal(ad_import_reader_format(r), AD_IMPORT_CSV);
                read_all(r, &out);
                if (strcmp((char *)out.data, cases[i].rows) != 0)
                        fail_msg("case %zu: %s", i, (char *)out.data);
                ad_import_reader_close(r);
        }
        df_buf_release(&out);
}

/* Every prefix of a nasty file ends without a crash, and never with more rows than lines. */
static void csv_cut_at_every_byte(void **state)
{
        static const char nasty[] = "\xef\xbb\xbf"
                                    "id,\"na\"\"me\"\r\n1,\"x\r\ny\"\r\n2,\"\"\r\n"
                                    "3,z\"\r\n\"4\" ,q\r\n5,\"r\"";
        struct df_buf out = {0};

        (void)state;
        for (size_t n = 0; n <= sizeof(nasty); n++) {
                struct ad_import_reader *r = NULL;

                assert_int_equal(df_write_file(file, df_bytes(nasty, n), false, NULL), 0);
                if (ad_import_reader_open(file, &r, NULL) < 0)
                        continue;
                read_all(r, &out);
                ad_import_reader_close(r);
        }
        df_buf_release(&out);
}

static void headers_are_checked(void **state)
{
        static const char *const bad[] = {"", "\n\n", "a,b,a\n1,2,3\n", "\"a\n"};

        (void)state;
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct ad_import_reader *r = NULL;
                struct df_error err = {0};

                assert_int_equal(df_write_file(file, df_bytes_str(bad[i]), false, NULL), 0);
                assert_int_equal(ad_import_reader_open(file, &r, &err), DF_EPARSE);
                assert_non_null(strstr(err.text, file));
        }
}

static void ndjson_grows_columns_and_keeps_decimals(void **state)
{
        static const char text[] = "{\"a\":1,\"b\":\" x \"}\n"
                                   "\n"
                                   "{\"c\":187.4,\"a\":null}\r\n"
                                   "{\"n\":{\"m\":true,\"k\":[1,2]},\"b\":18446744073709551615}\n"
                                   "{\"c\":0.000000001}\n"
                                   "{\"c\":1234567890.123456789}\n"
                                   "[1]\n"
                                   "{\"a\":1\n"
                                   "{\"a\":1,\"a\":2}\n"
                                   "{\"a\":-5}";
        struct ad_import_reader *r = open_text(text, sizeof(text) - 1);
        const struct df_bytes *names;
        struct df_buf out = {0};

        (void)state;
        assert_int_equal(ad_import_reader_format(r), AD_IMPORT_NDJSON);
        read_all(r, &out);
        assert_string_equal((char *)out.data, "[1][x]\n"
                                              "--[187.4]\n"
                                              "-[18446744073709551615]-[true]\n"
                                              "--[0.000000001]-\n"
                                              "!6\n!7\n!8\n!9\n"
                                              "[-5]---\n");
        assert_int_equal(ad_import_reader_columns(r, &names), 4);
        assert_true(df_bytes_eq(names[3], df_bytes_str("n.m")));
        ad_import_reader_close(r);
        df_buf_release(&out);
}

/* ---- times ---- */

static void times_as_people_write_them(void **state)
{
        static const struct {
                const char *text, *zone;
                int64_t ms; /* 0 = refused */
        } cases[] = {
                {"2019-04-01 0:00:48", "UTC", 1554076848000},
                {"2019-04-01 00:00:48", "UTC", 1554076848000},
                {"2019-04-01 0:00:48", "Europe/Moscow", 1554066048000},
                {"2019-04-01T3:00:48", "Europe/Moscow", 1554076848000},
                {"2019-04-01T00:00:48Z", "Europe/Moscow", 1554076848000},
                {"2019-04-01T03:00:48+03:00", "UTC", 1554076848000},
                {"2019-04-01 0:00", "UTC", 1554076800000},
                {"2019/4/1 0:00:00.5", "UTC", 1554076800500},
                {"1554076848", "UTC", 1554076848000},
                {"1554076848.25", "UTC", 1554076848250},
                {"1554076848000", "Europe/Moscow", 1554076848000},
                {"2019-03-31 02:30:00", "Europe/Berlin", 0}, /* skipped by summer time */
                {"2019-10-27 02:30:00", "Europe/Berlin", 1572136200000}, /* the first of two */
                {"2019-02-29 0:00:00", "UTC", 0},
                {"2019-04-31 0:00:00", "UTC", 0},
                {"2019-04-01 24:00:00", "UTC", 0},
                {"2019-04-01 0:60:00", "UTC", 0},
                {"2019-04-01", "UTC", 0},
                {"2019-04-01 0:00:48 ", "UTC", 0},
                {"01.04.2019 0:00", "UTC", 0},
                {"0", "UTC", 0},
                {"-5", "UTC", 0},
                {"", "UTC", 0},
                {"yesterday", "UTC", 0},
        };

        (void)state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                const struct ad_zone *zone;
                int64_t ms = 0;
                bool ok;

                assert_int_equal(ad_zones_get(zones, cases[i].zone, &zone, NULL), 0);
                ok = ad_import_time(df_bytes_str(cases[i].text), zone, &ms);
                if (ok != (cases[i].ms != 0) || (ok && ms != cases[i].ms))
                        fail_msg("\"%s\" in %s: %d %lld", cases[i].text, cases[i].zone, ok,
                                 (long long)ms);
        }
}

/* ---- mapping ---- */

static struct ad_import_map_options options(const char *map)
{
        struct ad_import_map_options o = {.map = map, .currency = "RUB"};

        assert_int_equal(ad_zones_get(zones, "UTC", &o.zone, NULL), 0);
        return o;
}

static void wrong_mappings_say_what_is_wrong(void **state)
{
        static const struct {
                const char *map, *types, *price, *says;
        } cases[] = {
                {"", NULL, NULL, "event_time"},
                {"t=event_time", NULL, NULL, "type"},
                {"t=event_tim,e=type", NULL, NULL, "event_tim"},
                {"t=event_time,e=type,e2=type", NULL, NULL, "twice"},
                {"t=event_time,e=type,c=cost,m=cost_micros", NULL, NULL, "twice"},
                {"t", NULL, NULL, "COLUMN=FIELD"},
                {"t=event_time,e=type,x=attributes.", NULL, NULL, "attributes."},
                {"t=event_time,e=type", "hover=blick", NULL, "--type"},
                {"t=event_time,e=type", NULL, "cpx=c", "--price-model"},
                {"t=event_time,e=type", NULL, "cpm=", "--price-model"},
                {"t=event_time,e=type", NULL, "cpm=c@hover", "hover"},
                {"t=event_time,e=type,c=cost", NULL, "cpm=c", "only one"},
        };
        struct ad_import_map *m = NULL;

        (void)state;
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct ad_import_map_options o = options(cases[i].map);
                struct df_error err = {0};

                o.types = cases[i].types;
                o.price_model = cases[i].price;
                if (ad_import_map_create(&o, &m, &err) != DF_EINVAL ||
                    !strstr(err.text, cases[i].says))
                        fail_msg("case %zu: %s", i, err.text);
        }
}

static void a_mapped_column_must_exist(void **state)
{
        struct ad_import_map_options o = options("t=event_time,e=type,nope=ad_id");
        struct df_bytes columns[] = {df_bytes_str("e"), df_bytes_str("t")};
        struct ad_import_map *m;
        struct df_error err = {0};

        (void)state;
        assert_int_equal(ad_import_map_create(&o, &m, NULL), 0);
        assert_int_equal(ad_import_map_bind(m, columns, 2, true, &err), DF_EINVAL);
        assert_non_null(strstr(err.text, "\"nope\""));
        assert_non_null(strstr(err.text, "e, t"));
        assert_int_equal(ad_import_map_bind(m, columns, 2, false, &err), 0);
        ad_import_map_destroy(m);
}

static int map_one(struct ad_import_map *m, const struct df_bytes *cells, size_t count,
                   struct ad_event *ev, struct df_arena *arena, struct df_error *err)
{
        df_arena_reset(arena);
        return ad_import_map_row(m, cells, count, arena, ev, err);
}

static void rows_become_events(void **state)
{
        struct ad_import_map_options o =
                options("t=event_time,e=type,\\=x=ad_id,p=payout,campaign_id:=c\\,1,"
                        "k=attributes.kind,unused=");
        struct df_bytes columns[] = {df_bytes_str("t"), df_bytes_str("e"), df_bytes_str("=x"),
                                     df_bytes_str("p"), df_bytes_str("k"), df_bytes_str("price")};
        struct df_bytes cells[] = {df_bytes_str("1554076848"), df_bytes_str("View"),
                                   df_bytes_str("ad9"),        df_bytes_str("0.25"),
                                   df_bytes_str("big"),        df_bytes_str("187.4")};
        struct df_error err = {0};
        struct ad_import_map *m;
        struct df_arena arena;
        struct ad_event ev;

        (void)state;
        df_arena_init(&arena, 0);
        o.types = "tap=click";
        o.price_model = "cpm=price@impression";
        assert_int_equal(ad_import_map_create(&o, &m, NULL), 0);
        assert_int_equal(ad_import_map_bind(m, columns, 6, true, NULL), 0);

        if (map_one(m, cells, 6, &ev, &arena, &err) < 0)
                fail_msg("%s", err.text);
        assert_int_equal(ev.type, AD_IMPRESSION);
        assert_int_equal(ev.event_ms, 1554076848000);
        assert_int_equal(ev.cost_nanos, 187400000); /* 187.4 / 1,000 = 187,400 micros */
        assert_int_equal(ev.payout_nanos, 250000000);
        assert_int_equal(ev.flags, AD_EV_HAS_COST | AD_EV_HAS_PAYOUT);
        assert_true(df_bytes_eq(ev.dims[AD_DIM_CAMPAIGN], df_bytes_str("c,1")));
        assert_true(df_bytes_eq(ev.dims[AD_DIM_AD], df_bytes_str("ad9")));
        assert_true(df_bytes_eq(ev.currency, df_bytes_str("RUB")));
        assert_true(ev.attributes.len > 0);

        cells[1] = df_bytes_str("tap"); /* the price is printed on it, and charges nothing */
        assert_int_equal(map_one(m, cells, 6, &ev, &arena, &err), 0);
        assert_int_equal(ev.type, AD_CLICK);
        assert_int_equal(ev.cost_nanos, 0);
        assert_int_equal(ev.flags, AD_EV_HAS_PAYOUT);
        ad_import_map_destroy(m);
        df_arena_release(&arena);
}

static void bad_rows_name_column_and_reason(void **state)
{
        static const char *const columns_text[] = {"t", "e", "c", "m", "cur", "id", "price"};
        static const struct {
                size_t column;
                const char *cell, *says;
        } cases[] = {
                {0, "", "event_time is not stated"},
                {0, "soon", "no time"},
                {1, "", "type is not stated"},
                {1, "hover", "no known type"},
                {2, "-1", "negative"},
                {2, "1e3", "decimal"},
                {2, "0.1234567891", "decimal"},
                {2, "1000000001", "too large"},
                {3, "1.5", "micros"},
                {3, "9223372036854775808", "large"},
                {4, "EURO", "ISO 4217"},
                {4, "XXX", "ISO 4217"},
                {5, "a\tb", "control"},
                {5, "\xff", "UTF-8"},
                {6, "0.0000001", "1,000"},
        };
        struct ad_import_map_options o = options(
                "t=event_time,e=type,c=payout,m=conversion_value_micros,cur=currency,id=event_id");
        struct df_bytes columns[7], cells[7];
        struct ad_import_map *m;
        struct df_arena arena;

        (void)state;
        df_arena_init(&arena, 0);
        for (int i = 0; i < 7; i++)
                columns[i] = df_bytes_str(columns_text[i]);
        o.price_model = "cpm=price";
        assert_int_equal(ad_import_map_create(&o, &m, NULL), 0);
        assert_int_equal(ad_import_map_bind(m, columns, 7, true, NULL), 0);
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
                struct df_error err = {0};
                struct ad_event ev;

                for (int k = 0; k < 7; k++)
                        cells[k] = (struct df_bytes){0};
                cells[0] = df_bytes_str("1554076848");
                cells[1] = df_bytes_str("view");
                cells[cases[i].column] = df_bytes_str(cases[i].cell);
                if (map_one(m, cells, 7, &ev, &arena, &err) != DF_EINVAL ||
                    !strstr(err.text, cases[i].says))
                        fail_msg("case %zu: %s", i, err.text);
        }
        ad_import_map_destroy(m);
        df_arena_release(&arena);
}

/* R6: what a row is does not depend on the order of its columns, nor on empty ones. */
static void row_hashes(void **state)
{
        struct df_bytes names[] = {df_bytes_str("a"), df_bytes_str("b"), df_bytes_str("c")};
        struct df_bytes turned[] = {df_bytes_str("b"), df_bytes_str("a")};
        struct df_bytes x[] = {df_bytes_str("1"), df_bytes_str("2"), df_bytes_str("")};
        struct df_bytes y[] = {df_bytes_str("2"), df_bytes_str("1")};
        struct df_bytes z[] = {df_bytes_str("12"), df_bytes_str("")};
        struct df_hash128 h = ad_import_row_hash(names, x, 3);

        (void)state;
        assert_true(df_hash128_eq(h, ad_import_row_hash(turned, y, 2)));
        assert_true(df_hash128_eq(h, ad_import_row_hash(names, x, 2)));
        assert_false(df_hash128_eq(h, ad_import_row_hash(names, y, 2)));
        assert_false(df_hash128_eq(h, ad_import_row_hash(names, z, 2)));
}

/* ---- the table of ids ---- */

static struct df_hash128 key_of(uint64_t i)
{
        return i ? (struct df_hash128){i * 0x9e3779b97f4a7c15u, i * 0xbf58476d1ce4e5b9u}
                 : (struct df_hash128){0, 0};
}

static void ids_survive_growth_and_reopening(void **state)
{
        const uint64_t n = 50000;
        struct ad_ids *t;
        char path[96];
        bool fresh;

        (void)state;
        (void)snprintf(path, sizeof(path), "%s/ids", dir);
        assert_int_equal(ad_ids_open(dir, path, &t, &fresh, NULL), 0);
        assert_true(fresh);
        assert_int_equal(ad_ids_begin(t, NULL), 0);
        for (uint64_t i = 0; i < n; i++) {
                uint64_t *v = ad_ids_put(t, key_of(i), NULL);

                assert_non_null(v);
                assert_int_equal(*v, 0);
                *v = i + 7;
        }
        memcpy(ad_ids_note(t), "note", 5);
        assert_int_equal(ad_ids_complete(t, NULL), 0);
        ad_ids_close(t);

        assert_int_equal(ad_ids_open(dir, path, &t, &fresh, NULL), 0);
        assert_false(fresh);
        assert_int_equal(ad_ids_count(t), n);
        assert_string_equal(ad_ids_note(t), "note");
        for (uint64_t i = 0; i < n; i++)
                assert_int_equal(*ad_ids_find(t, key_of(i)), i + 7);
        for (uint64_t i = n; i < n + 1000; i++)
                assert_null(ad_ids_find(t, key_of(i)));
        /* A crash before it is complete: the file is not trusted. */
        assert_int_equal(ad_ids_begin(t, NULL), 0);
        ad_ids_close(t);
        assert_int_equal(ad_ids_open(dir, path, &t, &fresh, NULL), 0);
        assert_true(fresh);
        assert_int_equal(ad_ids_count(t), 0);
        ad_ids_close(t);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(csv_of_every_kind),
                cmocka_unit_test(csv_cut_at_every_byte),
                cmocka_unit_test(headers_are_checked),
                cmocka_unit_test(ndjson_grows_columns_and_keeps_decimals),
                cmocka_unit_test(times_as_people_write_them),
                cmocka_unit_test(wrong_mappings_say_what_is_wrong),
                cmocka_unit_test(a_mapped_column_must_exist),
                cmocka_unit_test(rows_become_events),
                cmocka_unit_test(bad_rows_name_column_and_reason),
                cmocka_unit_test(row_hashes),
                cmocka_unit_test(ids_survive_growth_and_reopening),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
