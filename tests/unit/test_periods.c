/* Periods, invoices, adjustments and the states of corrections over HTTP, on books that a naive
 * bookkeeper wrote: a list of cells, of what was posted where, and sums over both. */
#include "unit.h"

#include <stdlib.h>

#include "df/filelog.h"
#include "df/run.h"
#include "jobs/api/ask.h"
#include "jobs/common/settings.h"
#include "jobs/common/times.h"
#include "state_test.h"

#define CELLS 60
#define POSTED_MAX 4000

static uint64_t seed, dice_state;
static char dir[256];
static struct df_log *log_;
static struct ad_zones *zones;
static struct ad_accounts *accounts;
static struct ad_access *access_rules;
static struct ad_books_follow *books;
static struct ad_api *api;
static struct df_http_client *client;
static struct df_arena arena;

#define must(cond)                                                                                 \
        do {                                                                                       \
                if (!(cond))                                                                       \
                        fail_msg("seed %llu: %s", (unsigned long long)seed, #cond);                \
        } while (0)

static uint64_t dice(uint64_t n)
{
        dice_state ^= dice_state << 13;
        dice_state ^= dice_state >> 7;
        dice_state ^= dice_state << 17;
        return dice_state % n;
}

static uint64_t quarter(const char *time)
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

static void make_cells(void)
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

static struct ad_cell billed(const struct cell *c)
{
        struct ad_cell sum = c->causes[0].billed;

        sum.clicks += c->causes[1].billed.clicks;
        sum.spend += c->causes[1].billed.spend;
        sum.payout += c->causes[1].billed.payout;
        return sum;
}

static bool is_closed(uint64_t q)
{
        return closed_count > 0 && q < quarter(begins[closed_count]);
}

/* The closed period of a quarter hour; -1: before the first. */
static int month_of(uint64_t q)
{
        int m = -1;

        while (m + 1 < 4 && q >= quarter(begins[m + 1]))
                m++;
        return m;
}

static struct ad_target target_of(const struct cell *c)
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

static void put_posting(int cell, int period, const struct ad_cause_cell delta[2])
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

static struct ad_cell random_cell(int currency)
{
        int64_t half = currency ? 500000000 : 5000000;

        return (struct ad_cell){.clicks = dice(50),
                                .spend = (df_nanos)dice(40) * half + (df_nanos)dice(3),
                                .payout = (df_nanos)dice(40) * half};
}

/* A run: some cells have new targets. */
static void run(uint64_t corrections_to)
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
static void close_month(void)
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

static int on_topic(void *arg, const struct df_topic_info *info)
{
        if (strcmp(info->name, AD_TOPIC_BILLING) == 0)
                *(uint64_t *)arg = info->generation;
        return 0;
}

/* The view as it would be after the topic was read. */
static void write_books(void)
{
        struct df_bytes payloads[1] = {df_buf_bytes(&payload)};
        struct df_source source = {.stream = "runs", .generation = 7};
        struct df_collection c = {
                .origin = {.source = source, .k = 1}, .payloads = payloads, .count = 1};
        struct ad_billing *b;
        uint64_t generation = 0;
        char path[300], why[256];

        ok(df_log_topic_list(log_, AD_TOPIC_BILLING, on_topic, &generation, err));
        (void)snprintf(path, sizeof(path), "%s/view-billing", dir);
        ok(ad_billing_open(path, generation, &b, why, err));
        ok(ad_billing_add(b, &c, err));
        ok(ad_billing_commit(b, 0, err));
        ad_billing_close(b);
}

static void open_log(void)
{
        struct df_filelog_options o = {
                .segment_bytes = 1 << 20, .reserve_bytes = 4096, .min_free_bytes = 1};
        char path[300];

        (void)temp_dir(dir);
        (void)snprintf(path, sizeof(path), "%s/log", dir);
        ok(df_mkdirs(path, err));
        ok(df_filelog_open(path, &o, &log_, err));
        ok(ad_create_topics(log_, 2, err));
}

static void start_api(void)
{
        static const char rules[] = "default advertiser Europe/Berlin EUR\nwhole tenant UTC USD\n";
        struct ad_commands_options commands = {.log = log_};
        struct ad_api_options o = {
                .listen_fd = -1, .address = "127.0.0.1:0", .peer_fd = -1, .http_threads = 1};
        const struct ad_zone *utc;
        char path[300], base[64];

        (void)snprintf(path, sizeof(path), "%s/accounts", dir);
        ok(df_write_file(path, df_bytes_str(rules), false, err));
        ok(ad_zones_create(NULL, &zones, err));
        ok(ad_zones_get(zones, "UTC", &utc, err));
        ok(ad_accounts_open(path, zones, utc, &accounts, err));
        ok(ad_access_open(NULL, "127.0.0.1:0", &access_rules, err));
        ok(ad_books_follow_start(dir, log_, &books, err));
        ok(ad_commands_start(&commands, &o.commands, err));
        o.books = books;
        o.zones = zones;
        o.accounts = accounts;
        o.access = access_rules;
        o.data_dir = dir;
        ok(ad_api_create(&o, &api, err));
        ok(ad_api_listen(api, err));
        (void)snprintf(base, sizeof(base), "http://127.0.0.1:%u", ad_api_port(api));
        ok(df_http_client_create(base, NULL, 10000, &client, err));
}

static void begin(uint64_t s)
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

static void end(void)
{
        df_http_client_destroy(client);
        ad_api_stop(api, 2000);
        ad_api_destroy(api);
        ad_books_follow_stop(books);
        ad_accounts_close(accounts);
        ad_access_close(access_rules);
        ad_zones_destroy(zones);
        df_log_close(log_);
        df_buf_release(&payload);
        df_arena_release(&arena);
        remove_dir(dir);
}

/* The view is opened by a thread: asked again until it is there. */
static int fetch(const char *path, const char *body, struct df_buf *ret)
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

static const struct ad_doc_node *get(const char *path, struct ad_doc *d)
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

static struct df_bytes text(const struct ad_doc *d, const struct ad_doc_node *of, const char *name)
{
        const struct ad_doc_node *n = ad_doc_member(d, of, name);

        if (!n)
                fail_msg("seed %llu: no field %s", (unsigned long long)seed, name);
        return n->text;
}

static bool is(const struct ad_doc *d, const struct ad_doc_node *of, const char *name,
               const char *value)
{
        return df_bytes_eq(text(d, of, name), df_bytes_str(value));
}

static df_nanos money(struct df_bytes t)
{
        df_nanos v;

        must(df_nanos_parse(t, &v));
        return v;
}

/* ---- tests ---- */

struct sums {
        df_nanos usage[2], adjustments[2]; /* exact, by currency */
        df_nanos charged[2];               /* rounded lines */
};

/* The lines of one side, added up as they are read. */
static void add_lines(const struct ad_doc *d, const char *list, struct sums *s)
{
        const struct ad_doc_node *lines = ad_doc_member(d, d->nodes, list), *l;

        must(lines);
        for (l = ad_doc_first(d, lines); l; l = ad_doc_after(d, lines, l)) {
                int c = is(d, l, "currency", "JPY");
                bool usage = is(d, l, "kind", "usage");
                const struct ad_doc_node *exact = ad_doc_member(d, l, "exact");

                s->charged[c] += money(text(d, l, "amount"));
                if (exact)
                        *(usage ? &s->usage[c] : &s->adjustments[c]) += money(exact->text);
        }
}

static void check_totals(const struct ad_doc *d, const char *list, const struct sums *s)
{
        const struct ad_doc_node *totals = ad_doc_member(d, d->nodes, list), *t;

        for (t = ad_doc_first(d, totals); t; t = ad_doc_after(d, totals, t)) {
                int c = is(d, t, "currency", "JPY");

                must(money(text(d, t, "amount")) == s->charged[c]);
                must(money(text(d, t, "usage")) + money(text(d, t, "adjustments")) ==
                     s->charged[c]);
        }
}

static df_nanos naive(int period, int currency, bool payout, bool usage)
{
        df_nanos sum = 0;

        for (int i = 0; usage && i < CELLS; i++) {
                struct ad_cell c = period < closed_count ? at_close[i][period] : billed(&cells[i]);

                if (cells[i].currency == currency && cells[i].quarter >= quarter(begins[period]) &&
                    cells[i].quarter < quarter(begins[period + 1]))
                        sum += payout ? c.payout : c.spend;
        }
        for (size_t i = 0; !usage && i < posted_count; i++)
                for (int k = 0; k < 2; k++)
                        if (posted[i].period == period &&
                            cells[posted[i].cell].currency == currency)
                                sum += payout ? posted[i].delta[k].billed.payout
                                              : posted[i].delta[k].billed.spend;
        return sum;
}

static void check_invoice(int period, df_nanos all[2])
{
        struct sums delta = {0}, payouts = {0}, ledger = {0}, ledger_payouts = {0};
        char path[120];
        struct ad_doc d;

        (void)snprintf(path, sizeof(path), "/v1/periods/%s?advertiser_id=a1", months[period]);
        (void)get(path, &d);
        must(is(&d, d.nodes, "state", period < closed_count ? "closed" : "open"));
        must(is(&d, d.nodes, "zone", "Europe/Berlin"));
        add_lines(&d, "charges", &delta);
        check_totals(&d, "totals", &delta);
        add_lines(&d, "payouts", &payouts);
        check_totals(&d, "payout_totals", &payouts);
        for (int c = 0; c < 2; c++) {
                must(delta.usage[c] == naive(period, c, false, true));
                must(delta.adjustments[c] == naive(period, c, false, false));
                must(payouts.usage[c] == naive(period, c, true, true));
                must(payouts.adjustments[c] == naive(period, c, true, false));
                all[c] += delta.usage[c] + delta.adjustments[c];
        }
        (void)snprintf(path, sizeof(path), "/v1/periods/%s?advertiser_id=a1&adjustments=ledger",
                       months[period]);
        (void)get(path, &d);
        add_lines(&d, "charges", &ledger);
        check_totals(&d, "totals", &ledger);
        add_lines(&d, "payouts", &ledger_payouts);
        for (int c = 0; c < 2; c++) {
                must(ledger.charged[c] == delta.charged[c]);
                must(ledger_payouts.charged[c] == payouts.charged[c]);
        }
}

/* What all invoices say together is what the last targets say. */
static void test_invoices(void **state)
{
        for (uint64_t s = 1; s <= 3; s++) {
                df_nanos all[2] = {0};

                begin(s);
                run(0);
                close_month();
                run(0);
                run(0);
                close_month();
                run(0);
                write_books();
                start_api();
                for (int p = 0; p < 3; p++)
                        check_invoice(p, all);
                for (int c = 0; c < 2; c++) {
                        df_nanos want = 0;

                        for (int i = 0; i < CELLS; i++)
                                want += cells[i].currency == c ? billed(&cells[i]).spend : 0;
                        must(all[c] == want);
                }
                end();
        }
}

static void has(const char *path, int status, const char *part)
{
        struct df_buf b = {0};
        int got = fetch(path, NULL, &b);

        if (got != status || !strstr((char *)b.data, part))
                fail_msg("%s: %d, wanted %d %s: %s", path, got, status, part, b.data);
        df_buf_release(&b);
}

static void posts(const char *path, const char *body, int status, const char *part)
{
        struct df_buf b = {0};
        int got = fetch(path, body, &b);

        if (got != status || !strstr((char *)b.data, part))
                fail_msg("%s %s: %d, wanted %d %s: %s", path, body, got, status, part, b.data);
        df_buf_release(&b);
}

/* What the reconcile job would say. */
static void write_progress(const char *json)
{
        char path[300];

        (void)snprintf(path, sizeof(path), "%s/run", dir);
        ok(df_mkdirs(path, err));
        (void)snprintf(path, sizeof(path), "%s/run/reconcile.json", dir);
        ok(df_write_file(path, df_bytes_str(json), false, err));
}

#define WHO "\"reason\":\"r\",\"requested_by\":\"ann\",\"approved_by\":\"bob\""

static void test_lists_and_refusals(void **state)
{
        begin(9);
        run(0);
        close_month();
        run(0);
        write_books();
        start_api();
        has("/v1/periods?advertiser_id=a1", 200,
            "{\"period\":\"2026-03\",\"advertiser_id\":\"a1\",\"state\":\"closed\",\"zone\":"
            "\"Europe/Berlin\",\"from\":\"2026-03-01T00:00:00+01:00\",\"to\":"
            "\"2026-04-01T00:00:00+02:00\",\"over\":true,\"asked_by\":\"close-march\"");
        has("/v1/periods", 200,
            "{\"period\":\"2026-02\",\"advertiser_id\":\"a1\",\"state\":\"open\"");
        has("/v1/periods/2026-03/manifest?advertiser_id=a1", 200, "{\"period\":1}");
        has("/v1/periods/2026-03/manifest?advertiser_id=a1&part=signature", 200, "signed");
        has("/v1/periods/2026-04/manifest?advertiser_id=a1", 404, "period_open");
        has("/v1/periods/2026-03?advertiser_id=a1&format=csv", 200,
            "BillingAccountId,BillingPeriodStart,BillingPeriodEnd,ChargePeriodStart,"
            "ChargePeriodEnd,"
            "ChargeCategory,ChargeClass,BilledCost,BillingCurrency,x_Kind,x_State,x_CampaignId,"
            "x_Period,x_Cause,x_Exact,x_Impressions,x_Clicks,x_Conversions\r\n"
            "a1,2026-02-28T23:00:00Z,2026-03-31T22:00:00Z,2026-02-28T23:00:00Z,"
            "2026-03-31T22:00:00Z,Usage,,");
        has("/v1/periods/2026-04?advertiser_id=a1&format=csv", 200,
            "2026-02-28T23:00:00Z,2026-03-31T22:00:00Z,Adjustment,Correction,");
        has("/v1/periods/2026-04?advertiser_id=a1&format=csv", 200, ",open,\"c,1\",2026-03,late,");
        has("/v1/periods/2026-04?advertiser_id=a1&format=csv&part=payouts", 200, "x_Payout");
        has("/v1/adjustments?advertiser_id=a1&period=2026-04&limit=1", 200,
            "\"original_period\":\"2026-03\"");
        has("/v1/adjustments?advertiser_id=a1&period=2026-03", 200, "\"original_period\":null");
        has("/v1/adjustments?advertiser_id=a2", 200, "\"adjustments\":[],\"next_after\":null");
        has("/v1/periods/2026-03", 400, "advertiser_needed");
        has("/v1/periods/2026-03?tenant=whole&advertiser_id=a1", 400, "account_is_tenant");
        has("/v1/periods/2026-03?tenant=whole", 200, "\"totals\":[{\"currency\":\"USD\"");
        has("/v1/periods/2026-13?advertiser_id=a1", 404, "no_such_period");
        has("/v1/periods/2026-03?advertiser_id=a1&format=xml", 400, "bad_choice");
        has("/v1/periods/2026-03?advertiser_id=a1&part=payouts", 400, "bad_choice");
        has("/v1/periods/2026-03?advertiser=a1", 400, "unknown_parameter");
        has("/v1/periods?tenant=a&tenant=b", 400, "repeated_parameter");
        has("/v1/adjustments?limit=10001", 400, "bad_number");
        end();
}

static void test_closes(void **state)
{
        begin(9);
        run(0);
        close_month();
        write_books();
        start_api();
        posts("/v1/periods/2026-03/close", "{" WHO ",\"advertiser_id\":\"a1\"}", 409,
              "period_closed");
        posts("/v1/periods/9998-01/close", "{" WHO ",\"advertiser_id\":\"a1\"}", 409,
              "period_not_over");
        posts("/v1/periods/2026-04/close", "{" WHO "}", 400, "advertiser_needed");
        posts("/v1/periods/2026-04/close", "{\"id\":\"k1\"," WHO ",\"advertiser_id\":\"a1\"}", 202,
              "\"see\":\"/v1/periods/2026-04\"");
        posts("/v1/periods/2026-04/close", "{\"id\":\"k1\"," WHO ",\"advertiser_id\":\"a1\"}", 200,
              "\"repeated\":true");
        posts("/v1/periods/2026-05/close", "{\"id\":\"k1\"," WHO ",\"advertiser_id\":\"a1\"}", 409,
              "id_reused");
        has("/v1/periods?advertiser_id=a1", 200,
            "{\"period\":\"2026-04\",\"advertiser_id\":\"a1\",\"state\":\"closing\"");
        write_progress(
                "{\"closes\":[{\"id\":\"k1\",\"tenant_id\":\"other\",\"why\":\"no\"},{\"id\":"
                "\"k1\",\"tenant_id\":\"default\",\"why\":\"archive\",\"text\":\"behind\"}]}");
        has("/v1/periods?advertiser_id=a1", 200,
            "\"waits_for\":{\"code\":\"archive\",\"text\":\"behind\"}");
        posts("/v1/periods/2026-03/cancel", "{" WHO ",\"advertiser_id\":\"a1\"}", 409,
              "period_closed");
        posts("/v1/periods/2026-05/cancel", "{" WHO ",\"advertiser_id\":\"a1\"}", 404,
              "not_closing");
        for (int i = 0; i < 2; i++)
                posts("/v1/periods/2026-04/cancel",
                      "{\"id\":\"x1\"," WHO ",\"advertiser_id\":\"a1\"}", i ? 200 : 202,
                      "\"see\":\"/v1/periods/2026-04\"");
        has("/v1/periods?advertiser_id=a1", 200,
            "{\"period\":\"2026-04\",\"advertiser_id\":\"a1\",\"state\":\"open\"");
        posts("/v1/periods/2026-04/cancel", "{" WHO ",\"advertiser_id\":\"a1\"}", 404,
              "not_closing");
        end();
}

/* The pages of adjustments are every posting with a delta, once, by seq. */
static void test_adjustment_pages(void **state)
{
        uint64_t after = 0;
        size_t seen = 0;

        begin(5);
        run(0);
        close_month();
        run(0);
        close_month();
        run(0);
        write_books();
        start_api();
        for (;;) {
                const struct ad_doc_node *list, *n;
                struct ad_doc d;
                char path[100];

                (void)snprintf(path, sizeof(path), "/v1/adjustments?limit=7&after=%llu",
                               (unsigned long long)after);
                list = ad_doc_member(&d, get(path, &d), "adjustments");
                for (n = ad_doc_first(&d, list); n; n = ad_doc_after(&d, list, n)) {
                        df_nanos number = money(text(&d, n, "seq")) / DF_NANOS_PER_UNIT;
                        const struct ad_doc_node *causes = ad_doc_member(&d, n, "delta"), *c;
                        df_nanos spend = 0;

                        must(number > (df_nanos)after);
                        after = (uint64_t)number;
                        for (c = ad_doc_first(&d, causes); c; c = ad_doc_after(&d, causes, c))
                                spend += money(text(&d, c, "spend"));
                        must(spend == posted[seen].delta[0].billed.spend +
                                              posted[seen].delta[1].billed.spend);
                        must(is(&d, n, "period", months[posted[seen].period]));
                        seen++;
                }
                if (ad_doc_member(&d, d.nodes, "next_after")->kind == AD_DOC_NULL)
                        break;
        }
        must(seen == posted_count && seen > 7);
        end();
}

/* The first run holds the commands before offset 1, the second those before 3. */
static void test_states(void **state)
{
        static const char *const bodies[] = {"a", "b", "c", "d"};
        char body[300];

        begin(11);
        run(1);
        run(4);
        write_books();
        start_api();
        for (int i = 0; i < 4; i++) {
                if (i == 2) {
                        posts("/v1/corrections/a/cancel", "{\"id\":\"xa\"," WHO "}", 202, "xa");
                        posts("/v1/corrections/b/cancel", "{\"id\":\"xb\"," WHO "}", 202,
                              "\"see\":\"/v1/corrections/b\"");
                }
                (void)snprintf(body, sizeof(body),
                               "{\"id\":\"%s\"," WHO
                               ",\"action\":\"void\",\"scope\":{\"event_ids\":"
                               "[\"e\"],\"campaign_id\":\"c1\"}}",
                               bodies[i]);
                posts("/v1/corrections", body, 202, bodies[i]);
        }
        posts("/v1/corrections/c/cancel", "{\"id\":\"xc\"," WHO "}", 202, "xc");
        /* a 0, b 1, xa 2, xb 3, c 4, d 5, xc 6 */
        has("/v1/corrections/a", 200, "\"state\":\"cancelled\",\"run\":\"0000000000000001\"");
        has("/v1/corrections/b", 200, "\"state\":\"cancelled\",\"run\":\"0000000000000002\"");
        has("/v1/corrections/c", 200, "\"state\":\"cancelled\",\"run\":null");
        has("/v1/corrections/d", 200, "\"state\":\"waiting\",\"run\":null");
        has("/v1/corrections/d", 200, "\"event_ids\":[\"e\"]");
        has("/v1/corrections?limit=1", 200, "\"next_before\":5}");
        has("/v1/corrections?limit=1&before=5", 200, "\"id\":\"c\"");
        has("/v1/corrections?tenant=other", 200, "\"corrections\":[],\"next_before\":null");
        has("/v1/corrections/xa", 404, "no_such_correction");
        has("/v1/corrections/a?tenant=other", 404, "no_such_correction");
        posts("/v1/corrections/a/cancel", "{\"id\":\"xa\"," WHO "}", 200, "\"repeated\":true");
        posts("/v1/corrections/a/cancel", "{" WHO "}", 409, "cancelled_already");
        posts("/v1/corrections/e/cancel", "{" WHO "}", 404, "no_such_correction");
        posts("/v1/reconcile", "{\"id\":\"go\"}", 202, "/v1/reconcile/go");
        has("/v1/reconcile/go", 200, "\"state\":\"waiting\"");
        write_progress("{\"state\":\"posting\",\"run\":\"ff\",\"asked_by\":\"go\",\"done\":3,"
                       "\"total\":4,\"eta_s\":1.5,\"gives_way\":false}");
        has("/v1/reconcile/go", 200,
            "\"state\":\"working\",\"progress\":{\"step\":\"posting\",\"run\":\"ff\",\"asked_by\":"
            "\"go\",\"done\":3,\"total\":4,\"eta_s\":1.5,\"since\":null,\"gives_way\":false,"
            "\"error\":null}");
        has("/v1/reconcile/ff", 200, "\"state\":\"working\"");
        has("/v1/reconcile/0000000000000002", 200, "\"state\":\"applied\",\"at\":");
        has("/v1/reconcile/none", 404, "no_such_run");
        has("/v1/reconcile", 200, "{\"runs\":[{\"run\":\"0000000000000002\",");
        end();
}

/* A correction that was applied, cancelled since, and is still in the bill. */
static void test_cancelling(void **state)
{
        begin(12);
        run(1);
        write_books();
        start_api();
        posts("/v1/corrections",
              "{\"id\":\"a\"," WHO ",\"action\":\"void\",\"scope\":{\"campaign_id\":\"c1\"}}", 202,
              "a");
        has("/v1/corrections/a", 200, "\"state\":\"applied\",\"run\":\"0000000000000001\"");
        posts("/v1/corrections/a/cancel", "{" WHO "}", 202, "\"id\":\"cancel-");
        has("/v1/corrections/a", 200, "\"state\":\"cancelling\"");
        end();
}

/* A close whose totals are not those of the cells: nobody gets such an invoice. */
static void test_damaged_view(void **state)
{
        begin(13);
        run(0);
        close_month();
        df_buf_clear(&payload);
        seq = 0;
        closed_count = 0;
        run(0); /* other amounts */
        cells[4].causes[0].billed.spend += 1;
        cells[4].causes[0].realtime.spend += 1;
        close_month();
        write_books();
        start_api();
        has("/v1/periods/2026-03?advertiser_id=a1", 500, "totals_differ");
        end();
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_invoices),     cmocka_unit_test(test_lists_and_refusals),
                cmocka_unit_test(test_closes),       cmocka_unit_test(test_adjustment_pages),
                cmocka_unit_test(test_states),       cmocka_unit_test(test_cancelling),
                cmocka_unit_test(test_damaged_view),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
