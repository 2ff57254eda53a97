/* periods_test.h - the API on books that a naive bookkeeper wrote: a list of cells, of what was
 * posted where, and sums over both. */
#ifndef ADTALLY_TESTS_PERIODS_TEST_H
#define ADTALLY_TESTS_PERIODS_TEST_H

#include "unit.h"

#include <stdlib.h>

#include "books_api_test.h"
#include "jobs/common/times.h"

#define CELLS 60
#define POSTED_MAX 4000

static uint64_t seed, dice_state;
static struct df_arena arena;

#define must(cond)                                                                                 \
        do {                                                                                       \
                if (!(cond))                                                                       \
                        fail_msg("seed %llu: %s", (unsigned long long)seed, #cond);                \
        } while (0)

static inline uint64_t dice(uint64_t n)
{
        dice_state ^= dice_state << 13;
        dice_state ^= dice_state >> 7;
        dice_state ^= dice_state << 17;
        return dice_state % n;
}

static inline uint64_t quarter(const char *time)
{
        int64_t ms;

        assert_true(ad_time_parse(df_bytes_str(time), &ms));
        return (uint64_t)ms / AD_QUARTER_MS;
}

/* ---- the bookkeeper: account a1 of tenant `default`, months of Berlin ---- */

static const char *const months[] = {"2026-03", "2026-04", "2026-05", "2026-06"};
static const char *const begins[] = {"2026-03-01T00:00:00+01:00", "2026-04-01T00:00:00+02:00",
                                     "2026-05-01T00:00:00+02:00", "2026-06-01T00:00:00+02:00"};
static const char *const campaigns[] = {"c,1", "c2"}, *const publishers[] = {"p1", "p2"};
static const char *const currencies[] = {"EUR", "JPY"};

static struct cell {
        uint64_t quarter;
        int campaign, publisher, currency;
        struct ad_cause_cell causes[2]; /* none, late */
} cells[CELLS];
static struct posted {    /* an adjustment */
        int cell, period; /* index of months */
        struct ad_cause_cell delta[2];
} posted[POSTED_MAX];
static size_t posted_count;
static struct ad_cell at_close[CELLS][3]; /* billed, by closed period */
static int closed_count;
static uint64_t seq, runs;
static struct df_buf payload;

static inline void make_cells(void)
{
        /* Every edge of every month, and anything between. */
        static const char *const edges[] = {
                "2026-02-28T22:45:00Z", "2026-02-28T23:00:00Z", "2026-03-29T00:45:00Z",
                "2026-03-29T01:00:00Z", "2026-03-31T21:45:00Z", "2026-03-31T22:00:00Z",
                "2026-04-30T21:45:00Z", "2026-04-30T22:00:00Z", "2026-05-31T21:45:00Z"};
        const size_t edge_count = sizeof(edges) / sizeof(edges[0]);
        uint64_t from = quarter("2026-02-27T00:00:00Z"), to = quarter(begins[3]);

        for (size_t i = 0; i < CELLS; i++)
                cells[i] = (struct cell){.quarter = i < edge_count ? quarter(edges[i])
                                                                   : from + dice(to - from),
                                         .campaign = (int)(i % 2),
                                         .publisher = (int)(i / 2 % 2),
                                         .currency = (int)(i / 4 % 2)};
}

static inline struct ad_cell billed(const struct cell *c)
{
        struct ad_cell sum = c->causes[0].billed;

        sum.clicks += c->causes[1].billed.clicks;
        sum.spend += c->causes[1].billed.spend;
        sum.payout += c->causes[1].billed.payout;
        return sum;
}

static inline bool is_closed(uint64_t q)
{
        return closed_count > 0 && q < quarter(begins[closed_count]);
}

/* The closed period of a quarter hour; -1: before the first. */
static inline int month_of(uint64_t q)
{
        int m = -1;

        while (m + 1 < 4 && q >= quarter(begins[m + 1]))
                m++;
        return m;
}

static inline struct ad_target target_of(const struct cell *c)
{
        return (struct ad_target){.quarter = c->quarter,
                                  .tenant_id = df_bytes_str("default"),
                                  .advertiser_id = df_bytes_str("a1"),
                                  .campaign_id = df_bytes_str(campaigns[c->campaign]),
                                  .publisher_id = df_bytes_str(publishers[c->publisher]),
                                  .currency = df_bytes_str(currencies[c->currency]),
                                  .causes = c->causes,
                                  .cause_count = 2};
}

static inline void put_posting(int cell, int period, const struct ad_cause_cell delta[2])
{
        struct cell *c = &cells[cell];
        struct ad_books_entry e = {.kind = AD_BOOKS_POSTING};
        struct ad_posting *p = &e.posting;
        int of = month_of(c->quarter);

        p->seq = ++seq;
        p->run = df_bytes_str("00000000000000aa");
        p->at_ms = (int64_t)(1000 + runs);
        p->target = target_of(c);
        if (is_closed(c->quarter) && of >= 0)
                p->closed_period = df_bytes_str(months[of]);
        if (delta) {
                p->posted_period = df_bytes_str(months[period]);
                p->delta = delta;
                p->delta_count = 2;
                assert_true(posted_count < POSTED_MAX);
                posted[posted_count] = (struct posted){.cell = cell, .period = period};
                memcpy(posted[posted_count++].delta, delta, sizeof(posted[0].delta));
        }
        ad_wire_books_entry(&payload, &e);
}

static inline struct ad_cell random_cell(int currency)
{
        int64_t half = currency ? 500000000 : 5000000;

        return (struct ad_cell){.clicks = dice(50),
                                .spend = (df_nanos)dice(40) * half + (df_nanos)dice(3),
                                .payout = (df_nanos)dice(40) * half};
}

/* A run: some cells have new targets. */
static inline void run(uint64_t corrections_to)
{
        struct ad_books_entry e = {.kind = AD_BOOKS_APPLIED};
        char id[17];

        runs++;
        for (int i = 0; i < CELLS; i++) {
                struct cell *c = &cells[i], old = *c;
                struct ad_cause_cell delta[2] = {{.cause = AD_CAUSE_NONE},
                                                 {.cause = AD_CAUSE_LATE}};

                if (runs > 1 && dice(3))
                        continue;
                for (int k = 0; k < 2; k++) {
                        c->causes[k].cause = k ? AD_CAUSE_LATE : AD_CAUSE_NONE;
                        c->causes[k].billed = random_cell(c->currency);
                        c->causes[k].realtime = k ? (struct ad_cell){0} : c->causes[k].billed;
                        delta[k].billed = c->causes[k].billed;
                        assert_true(ad_cell_subtract(&delta[k].billed, &old.causes[k].billed));
                }
                put_posting(i, closed_count, is_closed(c->quarter) ? delta : NULL);
        }
        (void)snprintf(id, sizeof(id), "%016x", (unsigned)runs);
        e.applied.begin = (struct ad_run_begin){.run = df_bytes_str(id),
                                                .chain = df_bytes_str("c0"),
                                                .at_ms = (int64_t)(1000 + runs),
                                                .corrections_to = corrections_to};
        ad_wire_books_entry(&payload, &e);
}

/* The next month; what lies before the first one is posted into it. */
static inline void close_month(void)
{
        struct ad_currency_cell totals[2] = {{.currency = df_bytes_str("EUR")},
                                             {.currency = df_bytes_str("JPY")}};
        int m = closed_count;
        struct ad_books_entry e = {.kind = AD_BOOKS_CLOSED};
        uint64_t from = quarter(begins[m]), to = quarter(begins[m + 1]), rows = 0;

        for (int i = 0; i < CELLS; i++) {
                struct ad_cell sum = billed(&cells[i]);

                if (cells[i].quarter < from && m == 0)
                        put_posting(i, 0, cells[i].causes);
                if (cells[i].quarter < from || cells[i].quarter >= to)
                        continue;
                at_close[i][m] = sum;
                rows++;
                assert_true(ad_cell_add(&totals[cells[i].currency].billed, &sum));
        }
        e.closed = (struct ad_closed){
                .seq = seq,
                .open_period = df_bytes_str(months[m + 1]),
                .close = {.run = df_bytes_str("00000000000000aa"),
                          .asked_by = df_bytes_str(m ? "close-april" : "close-march"),
                          .account = {df_bytes_str("default"), df_bytes_str("a1")},
                          .period = df_bytes_str(months[m]),
                          .from_quarter = from,
                          .to_quarter = to,
                          .zone = df_bytes_str("Europe/Berlin"),
                          .zone_version = df_bytes_str("2026a"),
                          .rows = rows,
                          .totals = totals,
                          .total_count = 2,
                          .manifest = df_bytes_str("{\"period\":1}"),
                          .signature = df_bytes_str("signed"),
                          .at_ms = (int64_t)(1000 + runs)},
        };
        ad_wire_books_entry(&payload, &e);
        closed_count++;
}

/* ---- the server on these books ---- */

/* The view as it would be after the topic was read. */
static inline void write_books(void)
{
        struct df_bytes payloads[1] = {df_buf_bytes(&payload)};
        struct df_source source = {.stream = "runs", .generation = 7};
        struct df_collection c = {
                .origin = {.source = source, .k = 1}, .payloads = payloads, .count = 1};
        struct ad_billing *b = open_billing();

        ok(ad_billing_add(b, &c, err));
        ok(ad_billing_commit(b, 0, err));
        ad_billing_close(b);
}

static inline void start_api(void)
{
        static const char rules[] = "default advertiser Europe/Berlin EUR\nwhole tenant UTC USD\n";
        char path[300];

        (void)snprintf(path, sizeof(path), "%s/accounts", dir);
        ok(df_write_file(path, df_bytes_str(rules), false, err));
        serve_books(path, 10000);
}

static inline void begin(uint64_t s)
{
        seed = s;
        dice_state = s * 2654435761u + 1;
        seq = runs = 0;
        closed_count = 0;
        posted_count = 0;
        memset(at_close, 0, sizeof(at_close));
        df_arena_init(&arena, 0);
        make_cells();
        open_log();
}

static inline void end(void)
{
        end_books();
        df_buf_release(&payload);
        df_arena_release(&arena);
}

/* The view is opened by a thread: asked again until it is there. */
static inline int fetch(const char *path, const char *body, struct df_buf *ret)
{
        int status = 0;

        for (int i = 0; i < 400; i++) {
                df_buf_clear(ret);
                ok(df_http_fetch(client, path, body ? "application/json" : NULL,
                                 body ? df_bytes_str(body) : df_bytes(NULL, 0), &status, ret, err));
                if (status != 503)
                        break;
                (void)usleep(25000);
        }
        df_put_u8(ret, 0);
        return status;
}

static inline const struct ad_doc_node *get(const char *path, struct ad_doc *d)
{
        struct df_buf b = {0};
        struct df_bytes own;
        int status = fetch(path, NULL, &b);

        if (status != 200)
                fail_msg("seed %llu: %s: %d %s", (unsigned long long)seed, path, status, b.data);
        own = df_arena_copy(&arena, df_bytes(b.data, b.len - 1));
        ok(ad_doc_parse(own, 1 << 20, &arena, d, err));
        df_buf_release(&b);
        return d->nodes;
}

static inline struct df_bytes text(const struct ad_doc *d, const struct ad_doc_node *of,
                                   const char *name)
{
        const struct ad_doc_node *n = ad_doc_member(d, of, name);

        if (!n)
                fail_msg("seed %llu: no field %s", (unsigned long long)seed, name);
        return n->text;
}

static inline bool is(const struct ad_doc *d, const struct ad_doc_node *of, const char *name,
                      const char *value)
{
        return df_bytes_eq(text(d, of, name), df_bytes_str(value));
}

static inline df_nanos money(struct df_bytes t)
{
        df_nanos v;

        must(df_nanos_parse(t, &v));
        return v;
}

#endif
