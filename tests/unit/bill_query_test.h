/* bill_query_test.h - the topic `billing` on a file log, followed; random questions for the bill,
 * and the answers that follow from the lists of billing_test.h.
 */
#ifndef BILL_QUERY_TEST_H
#define BILL_QUERY_TEST_H

#include "query_test.h"

#include <stdio.h>

#include "billing_test.h"
#include "df/filelog.h"
#include "df/run.h"
#include "jobs/api/quality.h"
#include "jobs/api/query_private.h"
#include "jobs/common/settings.h"

#define WAIT_MS 20000

static struct {
        char dir[256];
        struct df_log *log;
        struct df_log_writer *writer;
        struct ad_books_follow *follow;
        uint64_t epoch;
} b;

#define check(condition)                                                                           \
        do {                                                                                       \
                if (!(condition))                                                                  \
                        fail_msg("seed %" PRIu64 ", line %d: %s", bt.seed, __LINE__, #condition);  \
        } while (0)

/* ---- the topic, as the task `books` would write it ---- */

/* The payloads of a collection, or its seal, or both. One append: an fdatasync each would be most
 * of the test. */
enum part { PAYLOADS = 1, SEAL = 2, WHOLE = 3, DAMAGED = 7 };
static inline void publish(const struct bt_collection *c, enum part part)
{
        struct df_origin o = {.source = bt_source(), .k = c->k, .epoch = b.epoch};
        struct df_seal s = {.parent_k = c->k - 1};
        struct df_buf records[4] = {0};
        struct df_append items[4];

        for (size_t i = 0; i < c->count; i++) {
                if (c->payloads[i].len == 0)
                        continue;
                df_output_encode(&records[o.n], &o, df_buf_bytes(&c->payloads[i]));
                o.n++;
                s.rows_digest = df_digest_add(s.rows_digest, df_buf_bytes(&c->payloads[i]));
        }
        s.rows = o.n;
        s.rows_digest.lo ^= part == DAMAGED;
        s.watermark_ms = s.max_append_ms = s.max_receive_ms = s.final_through_ms = DF_TIME_MIN;
        (void)snprintf(s.binary_version, sizeof(s.binary_version), "test");
        df_output_encode_seal(&records[o.n], &o, &s);
        for (uint32_t i = 0; i <= o.n; i++) {
                assert_false(records[i].failed);
                items[i] = (struct df_append){.value = df_buf_bytes(&records[i])};
        }
        if (part == SEAL)
                ok(df_log_append(b.writer, items + o.n, 1, err));
        else
                ok(df_log_append(b.writer, items, o.n + (part != PAYLOADS), err));
        for (uint32_t i = 0; i <= o.n; i++)
                df_buf_release(&records[i]);
}

static inline void open_log(uint64_t seed)
{
        struct df_filelog_options o = {.reserve_bytes = 4096, .min_free_bytes = 1};
        char path[300];

        bt_begin(seed);
        b.epoch = 1;
        (void)snprintf(path, sizeof(path), "%s/log", temp_dir(b.dir));
        ok(df_mkdirs(path, err));
        ok(df_filelog_open(path, &o, &b.log, err));
        ok(ad_create_topics(b.log, 2, err));
        ok(df_log_writer_open(b.log, AD_TOPIC_BILLING, &b.writer, err));
}

static inline void follow(void)
{
        ok(ad_books_follow_start(b.dir, b.log, 3600000, &b.follow, err));
}

static inline void stop(void)
{
        ad_books_follow_stop(b.follow);
        b.follow = NULL;
}

static inline void close_log(void)
{
        stop();
        df_log_writer_close(b.writer);
        df_log_close(b.log);
        remove_dir(b.dir);
        bt_end();
}

static inline double metric(const char *name)
{
        struct df_buf text = {0};
        double v = -1;
        const char *at;
        char want[80];

        ad_books_render(b.follow, &text);
        df_put_u8(&text, 0);
        (void)snprintf(want, sizeof(want), "\n%s ", name);
        at = strstr((const char *)text.data,
                    want + (strncmp((const char *)text.data, want + 1, strlen(want) - 1) == 0));
        if (at)
                v = strtod(strchr(at, ' '), NULL);
        df_buf_release(&text);
        return v;
}

static inline void wait_for(const char *name, double value)
{
        int64_t until = df_monotonic_ms() + WAIT_MS;

        while (metric(name) != value) {
                if (df_monotonic_ms() > until)
                        fail_msg("seed %" PRIu64 ": %s is %g, not %g", bt.seed, name, metric(name),
                                 value);
                (void)usleep(5000);
        }
}

/* ---- questions ---- */

struct question {
        struct ad_query_context c;
        struct ad_param params[16];
        char text[16][64];
        size_t count;
};

static inline void add_param(struct question *q, const char *name, struct df_bytes value)
{
        assert_true(q->count < 16 && value.len <= sizeof(q->text[0]));
        if (value.len)
                memcpy(q->text[q->count], value.data, value.len);
        q->params[q->count] =
                (struct ad_param){df_bytes_str(name), df_bytes(q->text[q->count], value.len)};
        q->count++;
}

static inline void add_time(struct question *q, const char *name, int64_t ms)
{
        char text[AD_TIME_TEXT_MAX];

        add_param(q, name, df_bytes(text, (size_t)ad_time_text(ms, text)));
}

static inline struct question about(const char *name, const char *value)
{
        struct question q = {.c = context()};

        q.c.books = b.follow;
        q.c.tenant_id = bt_tenants[0];
        q.c.now_ms = bt.now_ms;
        if (name)
                add_param(&q, name, df_bytes_str(value));
        return q;
}

static inline int put(struct question *x, struct ad_query *q, struct ad_result **r,
                      struct ad_fault *f)
{
        *r = NULL;
        for (size_t i = 0; i < x->count; i++) /* a question may have been copied */
                x->params[i].value.data = (const uint8_t *)x->text[i];
        return ad_query_parse(&x->c, x->params, x->count, q, f) < 0 ? -1
                                                                    : ad_query_run(&x->c, q, r, f);
}

static inline void refuse(struct question *x, int status, const char *code, const char *says)
{
        struct ad_result *r;
        struct ad_query q;
        struct ad_fault f = {0};

        if (put(x, &q, &r, &f) == 0)
                fail_msg("%s=%s was answered", (const char *)x->params[0].name.data, x->text[0]);
        if (f.status != status || strcmp(f.code, code) != 0 || !strstr(f.message, says))
                fail_msg("%d %s: %s", f.status, f.code, f.message);
}

/* ---- the naive answer to a question that was parsed ---- */

static inline bool in_filter(const struct ad_filter *f, struct df_bytes v)
{
        for (size_t i = 0; i < f->count; i++)
                if (df_bytes_eq(f->values[i], v))
                        return true;
        return f->count == 0;
}

static inline struct df_bytes dim_of(const struct ad_target *t, uint8_t dim)
{
        if (dim == AD_DIM_ADVERTISER)
                return t->advertiser_id;
        return dim == AD_DIM_CAMPAIGN ? t->campaign_id : t->publisher_id;
}

struct sum { /* what a row must say */
        struct ad_cell billed, realtime, causes[AD_CAUSE_COUNT];
        uint64_t closed_to;
        bool adjusted, any;
};

static inline void add_version(struct sum *s, const struct bt_version *v)
{
        for (size_t i = 0; i < v->cause_count; i++) {
                const struct ad_cause_cell *c = &v->causes[i];
                struct ad_cell minus = {0};

                bt_plus(&s->billed, &c->billed);
                bt_plus(&s->realtime, &c->realtime);
                if (c->cause == AD_CAUSE_NONE)
                        continue;
                bt_plus(&s->causes[c->cause], &c->billed);
                assert_true(ad_cell_subtract(&minus, &c->realtime));
                bt_plus(&s->causes[c->cause], &minus);
        }
}

/* Of the cells in [from, to) that agree with the row (all of its group when row is NULL). */
static inline struct sum naive(const struct ad_query *q, struct ad_billing_point at, int64_t from,
                               int64_t to, const struct ad_result_row *row)
{
        static const struct ad_cell zero;
        struct sum s = {0};

        for (size_t i = 0; i < BT_CELLS; i++) {
                const struct ad_target *t = &bt.cells[i];
                const struct bt_version *v = bt_newest(i, at.seq);
                int64_t ms = (int64_t)t->quarter * AD_QUARTER_MS;
                struct ad_cell billed, realtime, then;
                const struct bt_close *close;
                uint64_t closed_to;
                bool mine = v && df_bytes_eq(t->tenant_id, q->tenant_id) && ms >= from && ms < to &&
                            in_filter(&q->filters[AD_DIM_ADVERTISER], t->advertiser_id) &&
                            in_filter(&q->filters[AD_DIM_CAMPAIGN], t->campaign_id) &&
                            in_filter(&q->filters[AD_DIM_PUBLISHER], t->publisher_id);

                for (uint32_t d = 0; mine && row && d < q->group_count; d++)
                        mine = df_bytes_eq(row->dims[d], dim_of(t, q->group_by[d]));
                if (!mine || (row && !df_bytes_eq(row->currency, t->currency)))
                        continue;
                bt_sums(v, &billed, &realtime);
                close = bt_close_of(t, at, &closed_to);
                bt_sums(close ? bt_at_close(i, close, at) : v, &then, &realtime);
                bt_sums(v, &billed, &realtime);
                if (bt_equal(&billed, &zero) && bt_equal(&realtime, &zero) &&
                    bt_equal(&billed, &then))
                        continue;
                add_version(&s, v);
                s.closed_to = s.any && s.closed_to < closed_to ? s.closed_to : closed_to;
                s.adjusted |= !bt_equal(&billed, &then);
                s.any = true;
        }
        return s;
}

static inline void check_causes(const struct ad_result_bill *bill, const struct sum *want,
                                bool both)
{
        const struct ad_result_cause *c = bill->causes;
        static const struct ad_cell zero;

        for (uint32_t i = 1; i < AD_CAUSE_COUNT; i++) {
                bool here = c && c->cause == i;

                check(bt_equal(here ? &c->difference : &zero, both ? &want->causes[i] : &zero));
                c = here ? c->next : c;
        }
        check(c == NULL);
}

static inline void check_row(const struct ad_query *q, const struct ad_result *r,
                             struct ad_billing_point at, const struct ad_result_row *row)
{
        int64_t from = r->bounds[row->window], to = r->bounds[row->window + 1];
        struct sum want = naive(q, at, from, to, row);
        const char *state = to <= (int64_t)want.closed_to * AD_QUARTER_MS ? "closed"
                            : to <= r->billed_through_ms                  ? "billed"
                                                                          : "open";

        check(want.any || q->fill_zero);
        check(bt_equal(&row->cell, &want.billed) && bt_equal(&row->bill->billed, &want.billed));
        check(bt_equal(&row->bill->realtime, &want.realtime));
        check(row->bill->adjusted == want.adjusted && row->bill->closed_to == want.closed_to);
        check(strcmp(adi_bill_state(r, row), state) == 0);
        check_causes(row->bill, &want, q->view == AD_METRICS_BOTH);
}

/* Rows are right, and there is one for everything: they add up to what no grouping can lose. */
static inline void check_answer(const struct ad_query *q, const struct ad_result *r,
                                struct ad_billing_point at)
{
        for (size_t i = 0; i < r->row_count; i++)
                check_row(q, r, at, &r->rows[i]);
        for (size_t i = 1; i < r->row_count; i++) {
                double one = -1, next = -1; /* none is the smallest */

                (void)ad_drift(r->rows[i - 1].bill->billed.spend,
                               r->rows[i - 1].bill->realtime.spend, &one);
                (void)ad_drift(r->rows[i].bill->billed.spend, r->rows[i].bill->realtime.spend,
                               &next);
                check(q->order != AD_ORDER_DRIFT || one >= next);
                check(q->order != AD_ORDER_SPEND ||
                      r->rows[i - 1].cell.spend >= r->rows[i].cell.spend);
        }
        for (size_t t = 0; t < r->total_count; t++) {
                struct ad_query all = *q;
                struct ad_result_row row = {.currency = r->totals[t].currency};
                struct sum want;

                all.group_count = 0;
                want = naive(&all, at, q->from_ms, q->to_ms, &row);
                check(want.any && bt_equal(&r->totals[t].cell, &want.billed));
                check(bt_equal(&r->totals[t].bill->realtime, &want.realtime));
                check_causes(r->totals[t].bill, &want, q->view == AD_METRICS_BOTH);
        }
        for (size_t i = 0; i < 2 && r->total_count < 2; i++) {
                struct ad_query all = *q;
                struct ad_result_row row = {.currency = bt_currencies[i]};

                all.group_count = 0;
                if (r->total_count == 1 && df_bytes_eq(r->totals[0].currency, row.currency))
                        continue;
                check(!naive(&all, at, q->from_ms, q->to_ms, &row).any);
        }
        if (q->window == AD_WINDOW_TOTAL)
                check(r->window_count == 1);
}

static const struct bt_run *run_at(int64_t at_ms)
{
        const struct bt_run *found = NULL;

        for (size_t i = 0; i < bt.run_count; i++) {
                if (bt.runs[i].refused)
                        continue;
                if (bt.runs[i].at_ms > at_ms)
                        break;
                found = &bt.runs[i];
        }
        return found;
}

static inline void random_filters(struct question *x)
{
        static const char *const groups[] = {"none", "campaign_id", "advertiser_id,publisher_id",
                                             "publisher_id,campaign_id,advertiser_id"};

        add_param(x, "group_by", df_bytes_str(groups[bt_pick(4)]));
        if (bt_pick(3) == 0)
                add_param(x, "advertiser_id", bt_advertisers[bt_pick(3)]);
        else if (bt_pick(3) == 0)
                add_param(x, "advertiser_id", df_bytes("a,a,a\0b", 7)); /* twice counts once */
        if (bt_pick(3) == 0)
                add_param(x, "campaign_id", df_bytes("c1,c\xff", 5));
        if (bt_pick(4) == 0)
                add_param(x, "publisher_id", df_bytes_str("p"));
        if (bt_pick(3) == 0)
                add_param(x, "fill", df_bytes_str("zero"));
        if (strcmp(x->text[0], "both") == 0 && bt_pick(2))
                add_param(x, "order_by", df_bytes_str("-drift"));
        else if (bt_pick(2))
                add_param(x, "order_by", df_bytes_str("-spend_micros"));
}

static inline void random_range(struct question *x)
{
        static const char *const zones[] = {"UTC", "Europe/Berlin", "Asia/Kathmandu"};
        static const char *const windows[] = {"hour", "day", "month", "total"};
        static const enum ad_window kinds[] = {AD_WINDOW_HOUR, AD_WINDOW_DAY, AD_WINDOW_MONTH};
        size_t w = bt_pick(4);
        const char *name = zones[bt_pick(3)];
        const struct ad_zone *zone;
        int64_t from = BT_MS + (int64_t)bt_pick(BT_QUARTERS) * AD_QUARTER_MS, to;

        ok(ad_zones_get(place.zones, name, &zone, err));
        if (w < 3) {
                from = ad_zone_floor(zone, kinds[w], from);
                to = from;
                for (uint64_t n = 1 + bt_pick(w ? 5 : 90); n > 0; n--)
                        to = ad_zone_next(zone, kinds[w], to);
        } else {
                to = from + (int64_t)(1 + bt_pick(BT_QUARTERS)) * AD_QUARTER_MS;
        }
        add_param(x, "window", df_bytes_str(windows[w]));
        add_param(x, "tz", df_bytes_str(name));
        add_time(x, "from", from);
        add_time(x, "to", to);
}

static inline void ask_once(void)
{
        struct question x = about("view", bt_pick(2) ? "billing" : "both");
        struct ad_billing_point at = {0, INT64_MAX};
        const struct bt_run *want;
        struct ad_result *r;
        struct ad_query q;
        struct ad_fault f;

        x.c.tenant_id = bt_tenants[bt_pick(2)];
        random_range(&x);
        random_filters(&x);
        if (bt_pick(2)) {
                at.at_ms = BT_MS + (int64_t)bt_pick((uint64_t)(bt.now_ms - BT_MS) + AD_QUARTER_MS);
                add_time(&x, "as_of", at.at_ms);
        }
        want = run_at(at.at_ms);
        if (!want) {
                refuse(&x, 400, "as_of_before_first_run", "the first run was at");
                return;
        }
        at.seq = want->seq;
        if (put(&x, &q, &r, &f) < 0)
                fail_msg("seed %" PRIu64 ": %d %s %s", bt.seed, f.status, f.code, f.message);
        check(strcmp(r->run, want->id) == 0 && r->billed_through_ms == want->at_ms);
        check(r->unexplained == want->unexplained);
        check_answer(&q, r, at);
        ad_result_destroy(r);
}

#endif
