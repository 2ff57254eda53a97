/* Cells that wait for their sources before they expire; the parts beneath the view against naive
 * twins: the cache, the sorted map, parts, ratios. */
#include "view_test.h"

#include <signal.h>
#include <sys/resource.h>

#include "jobs/api/query_private.h"
#include "jobs/api/view_private.h"

#define DAY_MS (24 * 60 * VT_MINUTE)
#define MINUTE 29000000ull

/* ---- expiry ---- */

struct small {
        struct vt_place place;
        struct ad_view *view;
        struct vt_collection last[3];
        const char *campaign;
        uint64_t fed;
        int64_t now_ms;
};

/* One row from a source; final_minute 0 = not final. */
static void add(struct small *s, uint32_t source, uint64_t clicks, uint64_t final_minute)
{
        struct df_source name =
                vt_source("events", VT_EVENTS_GENERATION - (source == 2), source % 2);
        struct vt_collection c, *last = &s->last[source];
        struct ad_note none = {0};
        struct ad_row row = {.minute = MINUTE,
                             .tenant_id = df_bytes_str("default"),
                             .dim_count = 2,
                             .currency = df_bytes_str("EUR")};
        uint64_t positions[2];

        row.dims[0] = df_bytes_str("a");
        row.dims[1] = df_bytes_str(s->campaign);
        row.cell.clicks = clicks;
        vt_begin(&c, &name, last->k ? last : NULL);
        if (clicks)
                ad_wire_row(&c.payload, &row);
        if (final_minute)
                c.seal.final_through_ms = (int64_t)final_minute * VT_MINUTE;
        vt_end(&c, &none);
        ok(vt_add(s->view, &c, s->now_ms, err));
        vt_release(last);
        *last = c;
        positions[0] = positions[1] = ++s->fed;
        ok(ad_view_commit(s->view, positions, 2, s->now_ms, err));
}

static int sum_clicks(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct ad_cell c;

        assert_true(ad_cell_decode(value, &c));
        *(uint64_t *)arg += c.clicks;
        return 0;
}

static uint64_t clicks_of(struct small *s, uint8_t level)
{
        uint8_t from[2] = {'c', level}, to[2] = {'c', (uint8_t)(level + 1)};
        uint64_t sum = 0;

        ok(df_kv_range(ad_view_kv(s->view), NULL, df_bytes(from, 2), df_bytes(to, 2), sum_clicks,
                       &sum, err));
        return sum;
}

static void expect_clicks(struct small *s, uint64_t minute, uint64_t coarse)
{
        assert_int_equal(clicks_of(s, AD_LEVEL_MINUTE), minute);
        assert_int_equal(clicks_of(s, AD_LEVEL_QUARTER), coarse);
        assert_int_equal(clicks_of(s, AD_LEVEL_DAY), coarse);
}

/* W1, W3: a minute expires long after its last write, but not before it is final for every source
 * with rows there: what a source says later replaces its part. An expired cell that is written
 * again holds only what is new, whatever is still in memory of it. */
static void test_expiry_waits(void **state)
{
        struct small *s = calloc(1, sizeof(*s));

        assert_non_null(s);
        vt_place_init(&s->place, "UTC", 2);
        s->place.options.keep_minutes_ms = DAY_MS;
        s->view = vt_open(&s->place, AD_VIEW_EMPTY);
        s->now_ms = (int64_t)MINUTE * VT_MINUTE;
        s->campaign = "d";
        add(s, 1, 1000, 0);
        s->campaign = "c";
        add(s, 0, 5, 0);
        add(s, 1, 70, 0);
        expect_clicks(s, 1075, 1075);

        s->now_ms += 2 * DAY_MS;
        add(s, 1, 0, MINUTE + 100); /* final for one of both */
        assert_false(ad_view_any_expired(s->view, AD_LEVEL_MINUTE));
        expect_clicks(s, 1075, 1075);
        add(s, 0, 6, 0); /* replaces 5 */
        expect_clicks(s, 1076, 1076);

        s->now_ms += 2 * DAY_MS;
        add(s, 0, 0, MINUTE + 100); /* seals it; expiry looks before */
        s->now_ms += 2 * DAY_MS;
        add(s, 0, 0, 0);
        assert_true(ad_view_any_expired(s->view, AD_LEVEL_MINUTE));
        expect_clicks(s, 0, 1076);

        add(s, 2, 100, 0);
        expect_clicks(s, 100, 1176);
        add(s, 2, 300, 0);
        expect_clicks(s, 300, 1376);
        s->campaign = "d"; /* in memory from before, in a window that has cells again */
        add(s, 2, 5000, 0);
        expect_clicks(s, 5300, 6376);
        s->campaign = "c";
        ad_view_close(s->view);
        s->view = vt_open(&s->place, AD_VIEW_KEPT);
        add(s, 2, 200, 0); /* found again without what was in memory */
        expect_clicks(s, 5200, 6276);

        ad_view_close(s->view);
        for (int i = 0; i < 3; i++)
                vt_release(&s->last[i]);
        vt_place_release(&s->place);
        free(s);
}

/* ---- a full disk ---- */

static void limit_files(rlim_t bytes)
{
        struct rlimit l;

        assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
        l.rlim_cur = bytes;
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

/* A write that finds no room is lost as a whole: the view says so, takes nothing more, and goes on
 * from its last commit once it is opened again. */
static void test_full_disk(void **state)
{
        struct small *s = calloc(1, sizeof(*s));
        struct ad_note none = {0};
        uint64_t positions[2] = {99, 99};
        struct vt_collection c;
        struct df_source name = vt_source("events", VT_EVENTS_GENERATION, 0);
        struct df_error full = {0};

        assert_non_null(s);
        vt_place_init(&s->place, "UTC", 2);
        s->view = vt_open(&s->place, AD_VIEW_EMPTY);
        s->now_ms = (int64_t)MINUTE * VT_MINUTE;
        s->campaign = "c";
        add(s, 0, 5, 0);
        vt_begin(&c, &name, &s->last[0]);
        for (uint32_t i = 0; i < 2000; i++) {
                char ad[16];
                struct ad_row row = {.grouping = 1,
                                     .minute = MINUTE,
                                     .tenant_id = df_bytes_str("default"),
                                     .dim_count = 5,
                                     .currency = df_bytes_str("EUR"),
                                     .cell.clicks = 1};

                (void)snprintf(ad, sizeof(ad), "ad%u", i * 7919);
                row.dims[2] = df_bytes_str(ad);
                ad_wire_row(&c.payload, &row);
        }
        vt_end(&c, &none);
        ok(vt_add(s->view, &c, s->now_ms, err));
        (void)signal(SIGXFSZ, SIG_IGN);
        limit_files(16 << 10);
        assert_true(ad_view_commit(s->view, positions, 2, s->now_ms, &full) < 0);
        limit_files(RLIM_INFINITY);
        refuses(DF_ECLOSED, "open it again", vt_add(s->view, &c, s->now_ms, err));
        refuses(DF_ECLOSED, "open it again", ad_view_commit(s->view, positions, 2, s->now_ms, err));
        ad_view_close(s->view);

        s->view = vt_open(&s->place, AD_VIEW_KEPT);
        assert_int_equal(ad_view_position(s->view, 0), 1);
        expect_clicks(s, 5, 5);
        ok(vt_add(s->view, &c, s->now_ms, err)); /* read again */
        ok(ad_view_commit(s->view, positions, 2, s->now_ms, err));
        expect_clicks(s, 2005, 2005);
        ad_view_close(s->view);
        vt_release(&c);
        vt_release(&s->last[0]);
        vt_place_release(&s->place);
        free(s);
}

/* ---- the cache ---- */

#define KEYS 3000

struct twin { /* what was put last */
        uint64_t value;
        size_t len;
        bool there;
};

static size_t make_key(size_t i, uint8_t key[40])
{
        size_t len = 9 + i % 31;

        memset(key, (int)(i % 7), len);
        memcpy(key, &i, sizeof(i));
        return len;
}

/* A hit is what was put last; most of what was put lately is a hit; nothing older than asked for.
 */
static void test_cache(void **state)
{
        struct twin *twins = calloc(KEYS, sizeof(*twins));
        uint64_t random = 77, hits = 0, misses = 0;
        struct adi_cache c;
        struct df_bytes got;
        uint8_t key[40], value[300];

        assert_non_null(twins);
        ok(adi_cache_open(&c, 0, err)); /* the least: the keys do not fit */
        for (uint64_t round = 0; round < 200000; round++) {
                size_t i = next_random(&random) % (round % 2 ? KEYS : 50), len = make_key(i, key);
                struct twin *t = &twins[i];

                if (adi_cache_get(&c, df_bytes(key, len), 0, &got)) {
                        hits++;
                        assert_true(t->there);
                        assert_int_equal(got.len, t->len);
                        memset(value, (int)(t->value & 0xff), t->len);
                        assert_memory_equal(got.data, value, t->len);
                        assert_false(adi_cache_get(&c, df_bytes(key, len), c.head, &got));
                } else {
                        misses += t->there;
                }
                t->there = true;
                t->value = next_random(&random);
                t->len = 1 + t->value % sizeof(value);
                memset(value, (int)(t->value & 0xff), t->len);
                adi_cache_put(&c, df_bytes(key, len), df_bytes(value, t->len));
        }
        assert_true(hits > 150000);
        assert_true(c.head > 2 * c.size); /* it went round */
        assert_true(misses > 0);
        /* Too long to keep: the old value does not stay instead. */
        memset(key, 1, sizeof(key));
        adi_cache_put(&c, df_bytes(key, 40), df_bytes(value, 1));
        assert_true(adi_cache_get(&c, df_bytes(key, 40), 0, &got));
        {
                uint8_t *large = calloc(1, 70000);

                assert_non_null(large);
                adi_cache_put(&c, df_bytes(key, 40), df_bytes(large, 70000));
                free(large);
        }
        assert_false(adi_cache_get(&c, df_bytes(key, 40), 0, &got));
        adi_cache_close(&c);
        free(twins);
}

/* ---- the map ---- */

static int by_bytes(const void *a, const void *b)
{
        const struct df_bytes *x = a, *y = b;

        return df_bytes_cmp(*x, *y);
}

/* Keys with long common beginnings, zeros at the end, and one the beginning of another. */
static void test_map_sorted(void **state)
{
        uint64_t random = 5;
        struct df_bytes all[4000];
        struct df_arena arena;
        struct ad_map m;
        struct ad_map_entry **sorted;
        size_t n = 0;

        df_arena_init(&arena, 0);
        ad_map_init(&m, &arena, sizeof(uint64_t));
        for (int i = 0; i < 4000; i++) {
                uint8_t key[700];
                size_t len = next_random(&random) % (i % 100 ? 40 : sizeof(key));
                bool fresh;
                uint64_t *v;

                memset(key, (int)(next_random(&random) % 2), sizeof(key));
                for (size_t k = len > 8 ? len - 8 : 0; k < len; k++)
                        key[k] = (uint8_t)(next_random(&random) % 3 * 127);
                v = ad_map_put(&m, df_bytes(key, len), &fresh);
                assert_non_null(v);
                if (fresh) {
                        *v = n;
                        assert_true(n < 4000);
                        all[n++] = m.last->key;
                }
                assert_ptr_equal(ad_map_find(&m, df_bytes(key, len)), v);
        }
        assert_int_equal(m.count, n);
        assert_null(ad_map_find(&m, df_bytes_str("not there")));
        sorted = ad_map_sorted(&m);
        assert_non_null(sorted);
        qsort(all, n, sizeof(*all), by_bytes);
        for (size_t i = 0; i < n; i++)
                assert_true(df_bytes_eq(all[i], sorted[i]->key));
        df_arena_release(&arena);
}

/* ---- parts and ratios ---- */

static void test_parts(void **state)
{
        struct ad_cell parts[AD_PARTS] = {{0}}, got[AD_PARTS], sum;
        struct df_buf b = {0};

        ad_parts_encode(&b, parts);
        assert_int_equal(b.len, 0); /* nothing left: the key goes */
        parts[0].clicks = 3;
        parts[0].spend = -((df_nanos)1 << 100);
        parts[7].clicks = 1ull << 60;
        parts[7].invalid[2] = 9;
        ad_parts_encode(&b, parts);
        assert_true(ad_parts_decode(df_buf_bytes(&b), got));
        for (int i = 0; i < AD_PARTS; i++)
                assert_true(vt_same_cell(&parts[i], &got[i]));
        assert_true(ad_cell_decode(df_buf_bytes(&b), &sum));
        assert_int_equal(sum.clicks, (1ull << 60) + 3);
        assert_true(sum.spend == parts[0].spend);
        for (size_t len = 1; len < b.len; len++) { /* cut: refused, or a part less */
                if (!ad_parts_decode(df_bytes(b.data, len), got))
                        continue;
                assert_true(vt_same_cell(&got[0], &parts[0]) || ad_cell_is_zero(&got[0]));
                assert_true(ad_cell_is_zero(&got[7]));
        }
        b.data[1] = AD_PARTS; /* no such source */
        assert_false(ad_parts_decode(df_buf_bytes(&b), got));
        assert_false(ad_cell_decode(df_buf_bytes(&b), &sum));
        df_buf_release(&b);
}

static void check_ratio(uint64_t num, uint64_t den, const char *want)
{
        uint8_t text[ADI_RATIO_MAX + 1];
        size_t n = adi_ratio_text(num, den, text);

        assert_true(n < sizeof(text));
        text[n] = 0;
        assert_string_equal((char *)text, want);
}

static void test_ratios(void **state)
{
        uint64_t random = 11;

        check_ratio(5, 0, "null");
        check_ratio(0, 5, "0");
        check_ratio(7, 7, "1");
        check_ratio(21, 7, "3");
        check_ratio(3, 2, "1.5");
        check_ratio(1, 3, "0.333333");
        check_ratio(2, 3, "0.666667");
        check_ratio(113, 9120, "0.0123904");
        check_ratio(1, 8, "0.125");
        check_ratio(1, 10000, "0.0001");
        check_ratio(1, 100000, "1e-05");
        check_ratio(9999999, 10000000, "1");
        check_ratio(99999990, 1000000000, "0.1");
        check_ratio(1234565, 10000000, "0.123456"); /* half to even */
        check_ratio(1234575, 10000000, "0.123458");
        check_ratio(UINT64_MAX - 1, UINT64_MAX, "1");
        check_ratio(UINT64_MAX / 3, UINT64_MAX, "0.333333");
        for (int i = 0; i < 20000; i++) {
                uint64_t den = 1 + next_random(&random) % (i % 2 ? 1000 : 1000000007);
                uint64_t num = next_random(&random) % (den + 2);
                char want[40];

                /* Exact halves of the sixth digit are above; no other double is near one. */
                if (2 * (unsigned __int128)num * 10000000000 % den == 0)
                        continue;
                (void)snprintf(want, sizeof(want), "%.6g", (double)num / (double)den);
                check_ratio(num, den, want);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_expiry_waits), cmocka_unit_test(test_full_disk),
                cmocka_unit_test(test_cache),        cmocka_unit_test(test_map_sorted),
                cmocka_unit_test(test_parts),        cmocka_unit_test(test_ratios),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
