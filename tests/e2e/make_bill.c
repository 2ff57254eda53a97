/* make_bill.c - the topic `billing` of some runs for end-to-end tests, without any event.
 *
 *   make_bill DIR SEED FROM TO
 *
 * Makes the history that SEED stands for and appends runs FROM < r <= TO to the topic `billing` of
 * the embedded log in DIR, as the task `books` would: postings, what was applied, closes, each with
 * its seal. Prints each as a line of JSON: what a recount needs.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/filelog.h"
#include "df/seal.h"
#include "proto/books.h"

#define BASE_QUARTER ((uint64_t)20513 * 96) /* 2026-03-01 */
#define RUN_QUARTERS 7                      /* between runs */
#define CELLS 12                            /* posted by a run */
#define CLOSE_AT 12                         /* the run before which the first day is closed */

static uint64_t dice_state, seq;

static uint64_t dice(uint64_t below)
{
        dice_state ^= dice_state << 13;
        dice_state ^= dice_state >> 7;
        dice_state ^= dice_state << 17;
        return (dice_state >> 11) % below;
}

static void die(const struct df_error *err)
{
        fprintf(stderr, "make_bill: %s\n", err->text);
        exit(1);
}

static struct df_bytes text(char *room, const char *kind, uint64_t n)
{
        return df_bytes(room, (size_t)sprintf(room, "%s%" PRIu64, kind, n));
}

static struct ad_cell amounts(void)
{
        struct ad_cell c = {.impressions = dice(1000), .clicks = dice(50)};

        c.conversions = dice(4);
        c.spend = (df_nanos)dice(5000000000);
        c.payout = (df_nanos)dice(1000000000);
        c.value = (df_nanos)dice(1000000000);
        return c;
}

static void print_cell(const struct ad_cell *c)
{
        printf("[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRId64 ",%" PRId64 ",%" PRId64 "]",
               c->impressions, c->clicks, c->conversions, (int64_t)c->spend, (int64_t)c->payout,
               (int64_t)c->value);
}

static size_t causes(struct ad_cause_cell *ret)
{
        static const uint32_t some[] = {AD_CAUSE_NONE, AD_CAUSE_LATE, AD_CAUSE_DUPLICATE,
                                        AD_CAUSE_PRICE};
        size_t n = 0;

        for (size_t i = 0; i < 4; i++) {
                if (i && dice(3))
                        continue;
                ret[n] = (struct ad_cause_cell){.cause = some[i]};
                if (some[i] != AD_CAUSE_DUPLICATE)
                        ret[n].billed = amounts();
                ret[n].realtime = some[i] == AD_CAUSE_NONE   ? ret[n].billed
                                  : some[i] == AD_CAUSE_LATE ? (struct ad_cell){0}
                                                             : amounts();
                n++;
        }
        return n;
}

static void post(struct df_buf *payload, uint64_t run, int64_t at_ms, bool print)
{
        char id[24], advertiser[24], campaign[24], publisher[24];
        struct ad_cause_cell all[4], delta = {.cause = AD_CAUSE_LATE, .billed = {.clicks = 1}};
        struct ad_books_entry e = {.kind = AD_BOOKS_POSTING};
        struct ad_target *t = &e.posting.target;

        t->quarter = BASE_QUARTER + dice(run * RUN_QUARTERS);
        t->tenant_id = df_bytes_str("default");
        t->advertiser_id = text(advertiser, "a", dice(2));
        t->campaign_id = text(campaign, "c", dice(3));
        t->publisher_id = text(publisher, "p", dice(2));
        t->currency = df_bytes_str(dice(4) ? "EUR" : "USD");
        t->causes = all;
        t->cause_count = causes(all);
        e.posting.seq = ++seq;
        e.posting.run = df_bytes(id, (size_t)sprintf(id, "%016" PRIx64, run));
        e.posting.at_ms = at_ms;
        if (run >= CLOSE_AT && t->quarter < BASE_QUARTER + 96) {
                e.posting.closed_period = df_bytes_str("2026-02");
                e.posting.posted_period = df_bytes_str("2026-03");
                e.posting.delta = &delta;
                e.posting.delta_count = 1;
        }
        ad_wire_books_entry(payload, &e);
        if (!print)
                return;
        printf("{\"seq\":%" PRIu64 ",\"run\":%" PRIu64 ",\"quarter\":%" PRIu64
               ",\"cell\":[\"%s\",\"%s\",\"%s\",\"%.3s\"],\"causes\":{",
               seq, run, t->quarter, advertiser, campaign, publisher,
               (const char *)t->currency.data);
        for (size_t i = 0; i < t->cause_count; i++) {
                printf("%s\"%s\":{\"billed\":", i ? "," : "", ad_cause_code(all[i].cause));
                print_cell(&all[i].billed);
                printf(",\"realtime\":");
                print_cell(&all[i].realtime);
                printf("}");
        }
        printf("}}\n");
}

static void apply(struct df_buf *payload, uint64_t run, int64_t at_ms, bool print)
{
        struct ad_books_entry e = {.kind = AD_BOOKS_APPLIED};
        char id[24];

        e.applied.begin.run = df_bytes(id, (size_t)sprintf(id, "%016" PRIx64, run));
        e.applied.begin.at_ms = at_ms;
        e.applied.end.unexplained = run % 5 == 0;
        ad_wire_books_entry(payload, &e);
        if (print)
                printf("{\"applied\":%" PRIu64 ",\"id\":\"%s\",\"at_ms\":%" PRId64
                       ",\"seq\":%" PRIu64 "}\n",
                       run, id, at_ms, seq);
}

/* The first day, of the whole tenant. */
static void close_day(struct df_buf *payload, int64_t at_ms, bool print)
{
        struct ad_books_entry e = {.kind = AD_BOOKS_CLOSED};

        e.closed.seq = seq;
        e.closed.open_period = df_bytes_str("2026-03");
        e.closed.close.account.tenant_id = df_bytes_str("default");
        e.closed.close.period = df_bytes_str("2026-02");
        e.closed.close.asked_by = df_bytes_str("close-1");
        e.closed.close.to_quarter = BASE_QUARTER + 96;
        e.closed.close.at_ms = at_ms;
        ad_wire_books_entry(payload, &e);
        if (print)
                printf("{\"closed\":%" PRIu64 ",\"seq\":%" PRIu64 "}\n", BASE_QUARTER + 96, seq);
}

static void append(struct df_log_writer *w, uint64_t k, struct df_bytes payload)
{
        struct df_origin o = {.source = {.stream = "runs", .generation = 5}, .k = k, .epoch = 1};
        struct df_seal s = {.rows = 1, .parent_k = k - 1};
        struct df_buf records[2] = {0};
        struct df_append items[2];
        struct df_error err = {0};

        df_output_encode(&records[0], &o, payload);
        s.rows_digest = df_digest_add(s.rows_digest, payload);
        o.n = 1;
        df_output_encode_seal(&records[1], &o, &s);
        for (int i = 0; i < 2; i++)
                items[i] = (struct df_append){.value = df_buf_bytes(&records[i])};
        if (df_log_append(w, items, 2, &err) < 0)
                die(&err);
        for (int i = 0; i < 2; i++)
                df_buf_release(&records[i]);
}

int main(int argc, char **argv)
{
        struct df_filelog_options o = {0};
        struct df_log_writer *writer;
        struct df_error err = {0};
        struct df_log *log;
        uint64_t from, to;

        if (argc != 5) {
                fprintf(stderr, "make_bill DIR SEED FROM TO\n");
                return 64;
        }
        dice_state = strtoull(argv[2], NULL, 10) * 0x9e3779b97f4a7c15ull + 1;
        from = strtoull(argv[3], NULL, 10);
        to = strtoull(argv[4], NULL, 10);
        if (df_filelog_open(argv[1], &o, &log, &err) < 0 ||
            df_log_topic_create(log, "billing", 1, &err) < 0 ||
            df_log_writer_open(log, "billing", &writer, &err) < 0)
                die(&err);
        for (uint64_t run = 1; run <= to; run++) {
                int64_t at_ms = (int64_t)(BASE_QUARTER + run * RUN_QUARTERS) * AD_QUARTER_MS;
                struct df_buf payload = {0};

                if (run == CLOSE_AT)
                        close_day(&payload, at_ms, run > from);
                for (int i = 0; i < CELLS; i++)
                        post(&payload, run, at_ms, run > from);
                apply(&payload, run, at_ms, run > from);
                if (run > from)
                        append(writer, run, df_buf_bytes(&payload));
                df_buf_release(&payload);
        }
        df_log_writer_close(writer);
        df_log_close(log);
        return 0;
}
