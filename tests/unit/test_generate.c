/* The generator: its truth against a naive recount of the NDJSON it writes. The recount judges each
 * line by what stands in it: ingest's parser for what is refused, a list of everything seen for
 * duplicates and conflicts (D1), the event time for lateness (W5). */
#include "unit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "df/run.h"
#include "jobs/adtally/check.h"
#include "jobs/adtally/generate.h"
#include "jobs/ingest/parse.h"

#define MINUTE 60000LL
#define EVENTS 3000

static char dir[64];

static int set_up(void **state)
{
        (void)state;
        (void)snprintf(dir, sizeof(dir), "/tmp/adtally-gen-XXXXXX");
        return mkdtemp(dir) ? 0 : -1;
}

static int tear_down(void **state)
{
        char path[128];

        (void)state;
        (void)snprintf(path, sizeof(path), "%s/events", dir);
        (void)unlink(path);
        (void)snprintf(path, sizeof(path), "%s/truth", dir);
        (void)unlink(path);
        return rmdir(dir);
}

static struct ad_gen_options options(uint64_t seed)
{
        return (struct ad_gen_options){
                .seed = seed,
                .events = EVENTS,
                .campaigns = 20,
                .batch = 50,
                .connections = 1,
                .zipf = 1,
                .duplicates = 0.08,
                .conflicts = 0.02,
                .out_of_order = 0.05,
                .late = 0.02,
                .broken = 0.03,
                .currencies = {"EUR", "USD", "JPY"},
                .currency_count = 3,
                .default_currency = "USD",
                .start_ms = 1790000000000,
                .span_ms = 5 * MINUTE,
                .began_ms = 1790000000000 + 5 * MINUTE,
                .grace_ms = 15 * MINUTE,
                .out_of_orderness_ms = 10000,
                .accepted_age_ms = 7 * 24 * 60 * MINUTE,
        };
}

/* ---- the naive recount ---- */

struct seen {
        char id[64];
        int type;
        int64_t event_ms, cost, payout, value;
        char currency[4], value_currency[4], campaign[16];
        bool conflicted;
};

struct recount {
        struct seen seen[EVENTS];
        size_t seen_count;
        struct ad_check_rows rows[AD_CHECK_WINDOWS];
        uint64_t accepted, counted, duplicate, conflict, late, rejected;
        uint64_t by_code[128];
};

static void text(struct df_bytes b, char *to, size_t size)
{
        assert_true(b.len < size);
        if (b.len)
                memcpy(to, b.data, b.len);
        to[b.len] = '\0';
}

static struct ad_check_row *row_of(struct ad_check_rows *rows, int64_t start, const char *campaign,
                                   const char *currency)
{
        struct ad_check_row row = {.start_ms = start};

        for (size_t i = 0; i < rows->count; i++)
                if (rows->list[i].start_ms == start &&
                    strcmp(rows->list[i].campaign, campaign) == 0 &&
                    strcmp(rows->list[i].currency, currency) == 0)
                        return &rows->list[i];
        (void)snprintf(row.campaign, sizeof(row.campaign), "%s", campaign);
        (void)snprintf(row.currency, sizeof(row.currency), "%s", currency);
        assert_int_equal(ad_check_rows_add(rows, &row, NULL), 0);
        return &rows->list[rows->count - 1];
}

static void count(struct recount *c, const struct seen *s)
{
        for (int w = 0; w < AD_CHECK_WINDOWS; w++) {
                static const int64_t widths[] = {MINUTE, 60 * MINUTE, 24 * 60 * MINUTE};
                int64_t start = s->event_ms - s->event_ms % widths[w];
                struct ad_check_row *r = row_of(&c->rows[w], start, s->campaign, s->currency);

                r->v[s->type - 1]++;
                r->v[3] += s->cost;
                r->v[4] += s->payout;
                if (s->value_currency[0])
                        r = row_of(&c->rows[w], start, s->campaign, s->value_currency);
                r->v[5] += s->value;
        }
}

static bool same(const struct seen *a, const struct seen *b)
{
        return a->type == b->type && a->event_ms == b->event_ms && a->cost == b->cost &&
               a->payout == b->payout && a->value == b->value &&
               strcmp(a->currency, b->currency) == 0 &&
               strcmp(a->value_currency, b->value_currency) == 0 &&
               strcmp(a->campaign, b->campaign) == 0;
}

static void judge(struct recount *c, const struct ad_event *ev, const struct ad_gen_options *o)
{
        struct seen s = {.type = (int)ev->type,
                         .event_ms = ev->event_ms,
                         .cost = ev->cost_nanos / 1000,
                         .payout = ev->payout_nanos / 1000,
                         .value = ev->value_nanos / 1000};

        text(ev->event_id, s.id, sizeof(s.id));
        text(ev->currency, s.currency, sizeof(s.currency));
        text(ev->value_currency, s.value_currency, sizeof(s.value_currency));
        text(ev->dims[AD_DIM_CAMPAIGN], s.campaign, sizeof(s.campaign));
        c->accepted++;
        for (size_t i = 0; i < c->seen_count; i++) {
                if (strcmp(c->seen[i].id, s.id) != 0)
                        continue;
                /* After a conflict a further copy would be judged by the conflicting one. */
                assert_false(c->seen[i].conflicted);
                if (same(&c->seen[i], &s)) {
                        c->duplicate++;
                } else {
                        c->conflict++;
                        c->seen[i].conflicted = true;
                }
                return;
        }
        c->seen[c->seen_count++] = s;
        /* The watermark is near `began` before the first event (T4), and never beyond the last
         * event time by then: late is what ended before both, the rest must be safely on time. */
        if (s.event_ms / MINUTE * MINUTE + MINUTE + o->grace_ms <=
            o->start_ms - o->out_of_orderness_ms) {
                c->late++;
                return;
        }
        assert_true(s.event_ms / MINUTE * MINUTE + MINUTE + o->grace_ms >
                    o->began_ms - o->out_of_orderness_ms);
        c->counted++;
        count(c, &s);
}

static void recount_file(struct recount *c, const char *path, const struct ad_gen_options *o)
{
        struct ad_parse_rules rules = {.now_ms = o->began_ms,
                                       .tenant_id = df_bytes_str("t"),
                                       .source = df_bytes_str("http"),
                                       .currency = df_bytes_str(o->default_currency),
                                       .accepted_age_ms = o->accepted_age_ms,
                                       .money_allowed = true};
        struct ad_parse_result res;
        struct ad_parser *parser;
        struct df_buf b = {0};

        assert_int_equal(df_read_file(path, 64 << 20, &b, NULL), 0);
        assert_int_equal(ad_parser_create(&parser, NULL), 0);
        assert_int_equal(
                ad_parse_body(parser, AD_BODY_NDJSON, df_buf_bytes(&b), &rules, &res, NULL), 0);
        assert_int_equal(res.whole, AD_NONE);
        for (size_t i = 0; i < res.count; i++)
                judge(c, &res.events[i], o);
        for (size_t i = 0; i < res.rejected_count; i++)
                c->by_code[res.rejected[i].reason]++;
        c->rejected = res.rejected_count;
        ad_parser_destroy(parser);
        df_buf_release(&b);
}

static void generate(const struct ad_gen_options *o, struct recount *c, struct ad_gen_sums *sums,
                     struct ad_truth *truth)
{
        char events[128], path[128];
        struct ad_gen_result r = {0};
        struct ad_gen_plan *plan;
        struct ad_gen_truth *t;

        (void)snprintf(events, sizeof(events), "%s/events", dir);
        (void)snprintf(path, sizeof(path), "%s/truth", dir);
        assert_int_equal(ad_gen_plan_create(o, &plan, NULL), 0);
        assert_int_equal(ad_gen_truth_create(plan, &t, NULL), 0);
        assert_int_equal(ad_gen_write(plan, t, events, true, &r, NULL), 0);
        assert_int_equal(ad_gen_truth_write(t, 0, 0, path, NULL), 0);
        *sums = *ad_gen_truth_sums(t);
        recount_file(c, events, o);
        assert_int_equal(ad_truth_read(path, truth, NULL), 0);
        ad_gen_truth_destroy(t);
        ad_gen_plan_destroy(plan);
}

static void compare_rows(uint64_t seed, struct ad_check_rows *naive,
                         const struct ad_check_rows *truth)
{
        ad_check_rows_sort(naive);
        if (naive->count != truth->count)
                fail_msg("seed %" PRIu64 ": %zu rows, the recount has %zu", seed, truth->count,
                         naive->count);
        for (size_t i = 0; i < truth->count; i++) {
                const struct ad_check_row *a = &naive->list[i], *b = &truth->list[i];

                if (a->start_ms != b->start_ms || strcmp(a->campaign, b->campaign) != 0 ||
                    strcmp(a->currency, b->currency) != 0 || memcmp(a->v, b->v, sizeof(a->v)) != 0)
                        fail_msg("seed %" PRIu64 ": row %zu (%s %s) differs", seed, i, b->campaign,
                                 b->currency);
        }
}

static void truth_equals_a_naive_recount_of_what_was_written(void **state)
{
        (void)state;
        for (uint64_t seed = 1; seed <= 12; seed++) {
                struct ad_gen_options o = options(seed);
                struct recount *c = calloc(1, sizeof(*c));
                struct ad_gen_sums s;
                struct ad_truth t;

                assert_non_null(c);
                generate(&o, c, &s, &t);
                if (s.accepted != c->accepted || s.counted != c->counted ||
                    s.duplicate != c->duplicate || s.conflict != c->conflict || s.late != c->late ||
                    s.rejected != c->rejected ||
                    memcmp(s.rejected_by, c->by_code, sizeof(s.rejected_by)) != 0)
                        fail_msg("seed %" PRIu64 ": the sums differ", seed);
                assert_true(c->duplicate && c->conflict && c->late && c->rejected);
                assert_true(t.exact);
                assert_int_equal(t.counted, c->counted);
                assert_int_equal(t.late, c->late);
                assert_int_equal(t.conflict, c->conflict);
                for (int w = 0; w < AD_CHECK_WINDOWS; w++) {
                        compare_rows(seed, &c->rows[w], &t.windows[w]);
                        ad_check_rows_release(&c->rows[w]);
                }
                ad_truth_release(&t);
                free(c);
        }
}

static void the_truth_file_is_one_json_document(void **state)
{
        struct ad_gen_options o = options(5);
        struct recount *c = calloc(1, sizeof(*c));
        struct ad_json_parser *p = ad_json_create();
        const struct ad_json_node *n;
        struct ad_gen_sums s;
        struct ad_truth t;
        struct df_buf b = {0};
        char path[128];
        const char *why;
        size_t count;

        (void)state;
        assert_non_null(c);
        generate(&o, c, &s, &t);
        (void)snprintf(path, sizeof(path), "%s/truth", dir);
        assert_int_equal(df_read_file(path, 64 << 20, &b, NULL), 0);
        assert_int_equal(ad_json_parse(p, df_buf_bytes(&b), &n, &count, &why), AD_JSON_OK);
        assert_int_equal(n[0].kind, AD_JSON_OBJECT);
        for (int w = 0; w < AD_CHECK_WINDOWS; w++)
                ad_check_rows_release(&c->rows[w]);
        ad_truth_release(&t);
        ad_json_destroy(p);
        df_buf_release(&b);
        free(c);
}

/* ---- the plan alone ---- */

static int64_t fixed_base(void *arg, uint64_t batch)
{
        const struct ad_gen_options *o = arg;

        return o->began_ms + (int64_t)batch * 25;
}

static void equal_seeds_give_equal_bytes_and_others_do_not(void **state)
{
        struct ad_gen_options o = options(9), other = options(10);
        struct ad_gen_plan *a, *b, *c;
        struct df_buf x = {0}, y = {0}, z = {0};

        (void)state;
        assert_int_equal(ad_gen_plan_create(&o, &a, NULL), 0);
        assert_int_equal(ad_gen_plan_create(&o, &b, NULL), 0);
        assert_int_equal(ad_gen_plan_create(&other, &c, NULL), 0);
        for (uint64_t i = 0; i < 500; i++) {
                struct ad_gen_item item;

                ad_gen_item(a, i, fixed_base, &o, &item);
                ad_gen_line(a, &item, &x);
                ad_gen_item(c, i, fixed_base, &other, &item);
                ad_gen_line(c, &item, &z);
        }
        for (uint64_t i = 500; i-- > 0;) { /* in any order */
                struct ad_gen_item item;
                struct df_buf line = {0}, rest = y;

                ad_gen_item(b, i, fixed_base, &o, &item);
                ad_gen_line(b, &item, &line);
                y = line;
                df_buf_append(&y, rest.data, rest.len);
                df_buf_release(&rest);
        }
        assert_int_equal(x.len, y.len);
        assert_memory_equal(x.data, y.data, x.len);
        assert_true(x.len != z.len || memcmp(x.data, z.data, x.len) != 0);
        df_buf_release(&x);
        df_buf_release(&y);
        df_buf_release(&z);
        ad_gen_plan_destroy(a);
        ad_gen_plan_destroy(b);
        ad_gen_plan_destroy(c);
}

/* What the sender relies on: a copy repeats an earlier event, near enough to be remembered; live
 * copies carry the original's time. */
static void copies_reach_back_only_as_far_as_promised(void **state)
{
        struct ad_gen_options o = options(4);
        struct ad_gen_plan *p;
        unsigned copies = 0;

        (void)state;
        o.live = true;
        assert_int_equal(ad_gen_plan_create(&o, &p, NULL), 0);
        for (uint64_t i = 0; i < o.events; i++) {
                struct ad_gen_item item, origin;
                struct df_buf a = {0}, b = {0};

                ad_gen_item(p, i, fixed_base, &o, &item);
                if (item.kind != AD_GEN_DUPLICATE && item.kind != AD_GEN_CONFLICT) {
                        assert_true(item.origin == i);
                        continue;
                }
                copies++;
                assert_true(item.origin < i);
                assert_true(i / o.batch - item.origin / o.batch <= AD_GEN_REACH);
                ad_gen_item(p, item.origin, fixed_base, &o, &origin);
                assert_true(origin.event_ms == item.event_ms);
                ad_gen_line(p, &item, &a);
                ad_gen_line(p, &origin, &b);
                if (item.kind == AD_GEN_DUPLICATE)
                        assert_true(a.len == b.len && memcmp(a.data, b.data, a.len) == 0);
                else
                        assert_true(item.cost != origin.cost);
                df_buf_release(&a);
                df_buf_release(&b);
        }
        assert_true(copies > 100);
        ad_gen_plan_destroy(p);
}

static void shares_and_campaigns_come_out_as_asked(void **state)
{
        struct ad_gen_options o = options(2);
        unsigned kinds[AD_GEN_KINDS] = {0}, campaigns[20] = {0}, types[4] = {0};
        const unsigned n = 40000;
        struct ad_gen_plan *p;

        (void)state;
        o.events = n;
        assert_int_equal(ad_gen_plan_create(&o, &p, NULL), 0);
        for (uint64_t i = 0; i < n; i++) {
                struct ad_gen_item item;

                ad_gen_item(p, i, fixed_base, &o, &item);
                kinds[item.kind]++;
                campaigns[item.campaign]++;
                types[item.type]++;
        }
        assert_in_range(kinds[AD_GEN_DUPLICATE], n * 7 / 100, n * 9 / 100);
        assert_in_range(kinds[AD_GEN_CONFLICT], n * 14 / 1000, n * 21 / 1000);
        assert_in_range(kinds[AD_GEN_LATE], n * 17 / 1000, n * 23 / 1000);
        assert_in_range(kinds[AD_GEN_BROKEN], n * 27 / 1000, n * 33 / 1000);
        assert_in_range(kinds[AD_GEN_OUT_OF_ORDER], n * 46 / 1000, n * 54 / 1000);
        /* Zipf, exponent 1, 20 campaigns: shares 1 / (rank x 3.5977). */
        assert_in_range(campaigns[0], n * 26 / 100, n * 30 / 100);
        assert_in_range(campaigns[1], n * 125 / 1000, n * 153 / 1000);
        assert_in_range(campaigns[19], n * 11 / 1000, n * 17 / 1000);
        assert_in_range(types[AD_IMPRESSION], n * 83 / 100, n * 87 / 100);
        assert_in_range(types[AD_CONVERSION], n * 25 / 1000, n * 35 / 1000);
        ad_gen_plan_destroy(p);
}

/* ---- reading a truth file ---- */

static void a_file_that_is_no_truth_is_refused_by_line(void **state)
{
        static const char *const bad[] = {
                "",
                "{\"events\":1}\n",
                "{\"truth\":{\"version\":1}}\n",
                "{\"truth\":{\"exact\":true,\"from\":\"2026-01-01T00:00:00Z\",\"to\":"
                "\"2026-01-01T00:01:00Z\",\"accepted\":1,\"counted\":1,\"duplicate\":0,"
                "\"conflict\":0,"
                "\"late\":0,\"rejected\":0,\"resent\":0},\n\"minute\":[\n{\"window_start\":"
                "\"2026\"}\n]}\n",
        };
        char path[128];

        (void)state;
        (void)snprintf(path, sizeof(path), "%s/truth", dir);
        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
                struct df_error err = {0};
                struct ad_truth t;

                assert_int_equal(df_write_file(path, df_bytes_str(bad[i]), false, NULL), 0);
                assert_int_equal(ad_truth_read(path, &t, &err), DF_EPARSE);
                assert_non_null(strstr(err.text, path));
                ad_truth_release(&t);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(truth_equals_a_naive_recount_of_what_was_written),
                cmocka_unit_test(the_truth_file_is_one_json_document),
                cmocka_unit_test(equal_seeds_give_equal_bytes_and_others_do_not),
                cmocka_unit_test(copies_reach_back_only_as_far_as_promised),
                cmocka_unit_test(shares_and_campaigns_come_out_as_asked),
                cmocka_unit_test(a_file_that_is_no_truth_is_refused_by_line),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
