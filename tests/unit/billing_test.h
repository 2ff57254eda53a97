/* billing_test.h - a history of the books: random postings, runs and closes, as lists, and as the
 * collections that the task `books` would write. */
#ifndef BILLING_TEST_H
#define BILLING_TEST_H

#include "state_test.h"

#include <inttypes.h>

#include "jobs/api/books.h"

#define BT_CELLS 160
#define BT_VERSIONS_MAX 6000
#define BT_RUNS_MAX 200
#define BT_CLOSES_MAX 64
#define BT_COLLECTIONS_MAX 400
#define BT_QUARTER 2000000 /* the first one */
#define BT_QUARTERS 400    /* a good four days */
#define BT_MS ((int64_t)BT_QUARTER * AD_QUARTER_MS)

struct bt_version {
        size_t cell;
        uint64_t seq;
        char run[17];
        int64_t at_ms;
        struct ad_cause_cell causes[AD_CAUSE_COUNT], delta[AD_CAUSE_COUNT];
        size_t cause_count, delta_count;
        char closed[8], posted[8];
};
struct bt_run {
        char id[17];
        int64_t at_ms;
        uint64_t seq, unexplained;
        bool refused;
};
struct bt_close {
        struct df_bytes tenant, advertiser;
        char period[8], asked_by[16], open[8];
        uint64_t to_quarter, seq, from_seq;
        int64_t at_ms;
        bool refused;
};
struct bt_collection {
        struct df_buf payloads[3];
        size_t count;
        uint64_t k;
};

static struct bt_world {
        uint64_t seed, random, seq;
        struct ad_target cells[BT_CELLS];
        struct bt_version versions[BT_VERSIONS_MAX];
        struct bt_run runs[BT_RUNS_MAX];
        struct bt_close closes[BT_CLOSES_MAX];
        struct bt_collection log[BT_COLLECTIONS_MAX];
        size_t version_count, run_count, close_count, log_count;
        int64_t now_ms;
        uint64_t closed_to[2][3]; /* by tenant and advertiser; of tenant 0 as a whole: [0][0] */
        int period[2][3];
        bool begun; /* a run is open: its id and time are runs[run_count] */
} bt;

/* A NUL, a prefix of another, and bytes that sort by their end. */
static const struct df_bytes bt_tenants[] = {{(const uint8_t *)"acme", 4},
                                             {(const uint8_t *)"acme2", 5}};
static const struct df_bytes bt_advertisers[] = {
        {(const uint8_t *)"", 0}, {(const uint8_t *)"a\0b", 3}, {(const uint8_t *)"a", 1}};
static const struct df_bytes bt_campaigns[] = {
        {(const uint8_t *)"c1", 2}, {(const uint8_t *)"c\xff", 2}, {(const uint8_t *)"c", 1}};
static const struct df_bytes bt_publishers[] = {{(const uint8_t *)"", 0},
                                                {(const uint8_t *)"p", 1}};
static const struct df_bytes bt_currencies[] = {{(const uint8_t *)"EUR", 3},
                                                {(const uint8_t *)"USD", 3}};

static inline uint64_t bt_pick(uint64_t n)
{
        return below(&bt.random, n);
}

static inline void bt_period(char ret[8], int n)
{
        (void)snprintf(ret, 8, "20%02u-01", (unsigned)n % 100);
}

static inline bool bt_same_cell(const struct ad_target *a, const struct ad_target *b)
{
        return a->quarter == b->quarter && df_bytes_eq(a->tenant_id, b->tenant_id) &&
               df_bytes_eq(a->advertiser_id, b->advertiser_id) &&
               df_bytes_eq(a->campaign_id, b->campaign_id) &&
               df_bytes_eq(a->publisher_id, b->publisher_id) &&
               df_bytes_eq(a->currency, b->currency);
}

static inline void bt_begin(uint64_t seed)
{
        memset(&bt, 0, sizeof(bt));
        bt.seed = seed;
        bt.random = seed * 2654435761u + 1;
        bt.now_ms = BT_MS + 1000;
        for (size_t i = 0; i < BT_CELLS;) {
                struct ad_target t = {.quarter = BT_QUARTER + bt_pick(BT_QUARTERS),
                                      .tenant_id = bt_tenants[bt_pick(2)],
                                      .advertiser_id = bt_advertisers[bt_pick(3)],
                                      .campaign_id = bt_campaigns[bt_pick(3)],
                                      .publisher_id = bt_publishers[bt_pick(2)],
                                      .currency = bt_currencies[bt_pick(2)]};
                size_t k = 0;

                while (k < i && !bt_same_cell(&bt.cells[k], &t))
                        k++;
                if (k == i)
                        bt.cells[i++] = t;
        }
}

static inline void bt_end(void)
{
        for (size_t i = 0; i < bt.log_count; i++)
                for (size_t p = 0; p < 3; p++)
                        df_buf_release(&bt.log[i].payloads[p]);
}

static inline struct ad_cell bt_amounts(bool is_signed)
{
        struct ad_cell c = {.impressions = bt_pick(1000), .clicks = bt_pick(30)};

        c.conversions = bt_pick(3);
        c.invalid[bt_pick(3)] = bt_pick(3);
        c.spend = (df_nanos)bt_pick(1u << 30) * 1000003;
        c.payout = (df_nanos)bt_pick(1u << 20) - 1000;
        c.value = (df_nanos)bt_pick(1u << 20) << 64;
        if (is_signed)
                c.clicks = -bt_pick(5);
        return c;
}

/* Realtime's side of a cause that is a difference may have negative counts: never more of them than
 * cause none has. */
static inline size_t bt_causes(struct ad_cause_cell *ret)
{
        size_t n = 0;

        if (bt_pick(12) == 0)
                return 0; /* the target is zero */
        for (uint32_t c = 0; c < AD_CAUSE_COUNT; c++) {
                if (c != AD_CAUSE_NONE && bt_pick(4))
                        continue;
                ret[n] = (struct ad_cause_cell){.cause = c, .billed = bt_amounts(false)};
                if (c == AD_CAUSE_NONE)
                        ret[n].billed.clicks += 100;
                ret[n].realtime =
                        c == AD_CAUSE_NONE ? ret[n].billed : bt_amounts(c == AD_CAUSE_UNEXPLAINED);
                n++;
        }
        return n;
}

static inline size_t bt_index(const struct df_bytes *list, size_t count, struct df_bytes v)
{
        for (size_t i = 0; i < count; i++)
                if (df_bytes_eq(list[i], v))
                        return i;
        fail_msg("not in the list");
        return 0;
}

/* Tenant 0 closes as a whole, tenant 1 by advertiser, but never events that state none. */
static inline uint64_t *bt_account(const struct ad_target *t, int **ret_period)
{
        size_t tenant = bt_index(bt_tenants, 2, t->tenant_id);
        size_t a = tenant ? bt_index(bt_advertisers, 3, t->advertiser_id) : 0;

        *ret_period = &bt.period[tenant][a];
        return &bt.closed_to[tenant][a];
}

static inline void bt_post(struct df_buf *b, size_t cell)
{
        struct bt_version *v = &bt.versions[bt.version_count++];
        struct ad_books_entry e = {.kind = AD_BOOKS_POSTING};
        struct ad_posting *p = &e.posting;
        int *period;

        assert_true(bt.version_count <= BT_VERSIONS_MAX);
        *v = (struct bt_version){
                .cell = cell, .seq = ++bt.seq, .at_ms = bt.runs[bt.run_count].at_ms};
        memcpy(v->run, bt.runs[bt.run_count].id, sizeof(v->run));
        v->cause_count = bt_causes(v->causes);
        if (bt.cells[cell].quarter < *bt_account(&bt.cells[cell], &period)) {
                bt_period(v->closed, *period + 0);
                if (bt_pick(4)) {
                        bt_period(v->posted, *period + 1);
                        v->delta[0] = (struct ad_cause_cell){.cause = AD_CAUSE_LATE,
                                                             .billed = bt_amounts(true)};
                        v->delta_count = 1;
                }
        }
        p->seq = v->seq;
        p->run = df_bytes_str(v->run);
        p->at_ms = v->at_ms;
        p->target = bt.cells[cell];
        p->target.causes = v->causes;
        p->target.cause_count = v->cause_count;
        p->closed_period = df_bytes_str(v->closed);
        p->posted_period = df_bytes_str(v->posted);
        p->delta = v->delta;
        p->delta_count = v->delta_count;
        ad_wire_books_entry(b, &e);
}

/* Clocks go back now and then: the order of the topic counts. */
static inline void bt_run_begin(void)
{
        struct bt_run *r = &bt.runs[bt.run_count];

        assert_true(bt.run_count < BT_RUNS_MAX);
        bt.now_ms += (int64_t)bt_pick(3 * AD_QUARTER_MS);
        *r = (struct bt_run){.at_ms = bt.now_ms - (bt_pick(5) ? 0 : AD_QUARTER_MS)};
        /* An id comes again: the same run, applied twice. */
        (void)snprintf(r->id, sizeof(r->id), "%016zx",
                       bt.run_count && !bt_pick(8) ? bt.run_count - 1 : bt.run_count);
        bt.begun = true;
}

static inline void bt_run_end(struct df_buf *b)
{
        struct bt_run *r = &bt.runs[bt.run_count++];
        struct ad_books_entry e = {.kind = AD_BOOKS_APPLIED};
        struct ad_applied *a = &e.applied;

        r->seq = bt.seq;
        r->refused = bt_pick(6) == 0;
        r->unexplained = bt_pick(3);
        a->begin.run = df_bytes_str(r->id);
        a->begin.at_ms = r->at_ms;
        a->end.unexplained = r->unexplained;
        if (r->refused)
                a->why = df_bytes_str("targets_missing: some");
        ad_wire_books_entry(b, &e);
        bt.begun = false;
}

static inline void bt_close(struct df_buf *b)
{
        struct bt_close *c = &bt.closes[bt.close_count];
        struct ad_books_entry e = {.kind = AD_BOOKS_CLOSED};
        size_t tenant = bt_pick(2), a = tenant ? 1 + bt_pick(2) : 0;
        uint64_t *to = &bt.closed_to[tenant][a];

        assert_true(bt.close_count < BT_CLOSES_MAX);
        /* What a close posts itself, about rows before the first period. */
        bt.runs[bt.run_count] = (struct bt_run){.id = "close", .at_ms = bt.now_ms};
        for (uint64_t n = bt_pick(3); n > 0; n--)
                bt_post(b, (size_t)bt_pick(BT_CELLS));
        *c = (struct bt_close){.tenant = bt_tenants[tenant],
                               .refused = bt_pick(4) == 0,
                               .seq = bt.seq,
                               .at_ms = bt.now_ms};
        for (size_t i = 0; i < bt.run_count; i++)
                c->from_seq = bt.runs[i].refused ? c->from_seq : bt.runs[i].seq;
        if (tenant)
                c->advertiser = bt_advertisers[a];
        c->to_quarter = (*to ? *to : BT_QUARTER + 20) + 1 + bt_pick(60);
        bt_period(c->period, bt.period[tenant][a] + 1);
        bt_period(c->open, bt.period[tenant][a] + 2);
        (void)snprintf(c->asked_by, sizeof(c->asked_by), "ask-%zu", bt.close_count++);
        if (!c->refused) {
                bt.period[tenant][a]++;
                *to = c->to_quarter;
        }
        e.closed = (struct ad_closed){
                .refused = c->refused,
                .seq = c->seq,
                .open_period = df_bytes_str(c->open),
                .close = {.asked_by = df_bytes_str(c->asked_by),
                          .account = {c->tenant, c->advertiser},
                          .period = df_bytes_str(c->period),
                          .to_quarter = c->to_quarter,
                          .manifest = df_bytes_str("{}"),
                          .at_ms = c->at_ms},
        };
        ad_wire_books_entry(b, &e);
}

/* One collection more: some of everything, runs go on from one to the next. */
static inline struct bt_collection *bt_write(void)
{
        struct bt_collection *c = &bt.log[bt.log_count++];

        assert_true(bt.log_count <= BT_COLLECTIONS_MAX);
        c->k = bt.log_count;
        for (c->count = 0; c->count < bt_pick(4); c->count++) {
                struct df_buf *b = &c->payloads[c->count];

                if (!bt.begun)
                        bt_run_begin();
                for (uint64_t n = bt_pick(20); n > 0; n--)
                        bt_post(b, (size_t)bt_pick(BT_CELLS));
                if (bt_pick(2))
                        bt_run_end(b);
                if (!bt.begun && bt.close_count < 40 && !bt_pick(4))
                        bt_close(b);
                assert_false(b->failed);
        }
        return c;
}

static inline struct df_source bt_source(void)
{
        struct df_source s = {.generation = 7};

        (void)snprintf(s.stream, sizeof(s.stream), "runs");
        return s;
}

static inline void bt_feed(struct ad_billing *b, const struct bt_collection *c)
{
        struct df_bytes payloads[3];
        struct df_collection add = {.origin = {.source = bt_source(), .k = c->k},
                                    .payloads = payloads};

        for (size_t i = 0; i < c->count; i++)
                if (c->payloads[i].len)
                        payloads[add.count++] = df_buf_bytes(&c->payloads[i]);
        ok(ad_billing_add(b, &add, err));
}

/* ---- the naive answers ---- */

/* The newest version of a cell up to seq, or NULL. */
static inline const struct bt_version *bt_newest(size_t cell, uint64_t seq)
{
        const struct bt_version *found = NULL;

        for (size_t i = 0; i < bt.version_count && bt.versions[i].seq <= seq; i++)
                if (bt.versions[i].cell == cell)
                        found = &bt.versions[i];
        return found;
}

static inline void bt_plus(struct ad_cell *to, const struct ad_cell *v)
{
        to->impressions += v->impressions;
        to->clicks += v->clicks;
        to->conversions += v->conversions;
        for (int i = 0; i < 3; i++)
                to->invalid[i] += v->invalid[i];
        to->spend += v->spend;
        to->payout += v->payout;
        to->value += v->value;
}

static inline void bt_sums(const struct bt_version *v, struct ad_cell *billed,
                           struct ad_cell *realtime)
{
        *billed = *realtime = (struct ad_cell){0};
        for (size_t i = 0; v && i < v->cause_count; i++) {
                bt_plus(billed, &v->causes[i].billed);
                bt_plus(realtime, &v->causes[i].realtime);
        }
}

/* How far the account of a cell is closed at a point, and the close that the cell lies in. */
static inline const struct bt_close *bt_close_of(const struct ad_target *t,
                                                 struct ad_billing_point at, uint64_t *ret_to)
{
        const struct bt_close *found = NULL;

        *ret_to = 0;
        for (size_t i = 0; i < bt.close_count; i++) {
                const struct bt_close *c = &bt.closes[i];

                if (c->refused || c->from_seq > at.seq || c->at_ms > at.at_ms ||
                    !df_bytes_eq(c->tenant, t->tenant_id) ||
                    (c->advertiser.len && !df_bytes_eq(c->advertiser, t->advertiser_id)))
                        continue;
                *ret_to = c->to_quarter;
                if (!found && t->quarter < c->to_quarter)
                        found = c;
        }
        return found;
}

static inline const struct bt_version *bt_at_close(size_t cell, const struct bt_close *c,
                                                   struct ad_billing_point at)
{
        return bt_newest(cell, c->seq < at.seq ? c->seq : at.seq);
}

static inline bool bt_equal(const struct ad_cell *a, const struct ad_cell *b)
{
        return memcmp(a, b, sizeof(*a)) == 0; /* no padding */
}

#endif
