/* wire_books_test.h - random commands, runs and postings (proto/books.h). */
#ifndef ADTALLY_TESTS_WIRE_BOOKS_TEST_H
#define ADTALLY_TESTS_WIRE_BOOKS_TEST_H

#include "unit.h"

#include "wire_test.h"

#include "df/log.h"
#include "df/seal.h"
#include "proto/books.h"

#define SEEDS 400

/* What random values point to. */
static struct df_arena values;

static inline void *room(size_t count, size_t size)
{
        void *p = df_arena_zalloc(&values, count * size);

        assert_non_null(p);
        return p;
}

static inline struct df_bytes word(struct random *r, size_t max)
{
        return text(r, room(1, max + 1), max);
}

static inline struct ad_cell cell(struct random *r, bool is_signed)
{
        struct ad_cell c = {
                number(r),      number(r),      number(r),     {number(r), number(r), number(r)},
                huge_number(r), huge_number(r), huge_number(r)};

        if (is_signed) {
                c.impressions = 0 - c.clicks;
                c.spend = -c.spend;
                c.payout = -c.value;
        }
        return below(r, 4) ? c : (struct ad_cell){0};
}

static inline const struct ad_cause_cell *causes(struct random *r, bool is_delta, size_t *ret_count)
{
        struct ad_cause_cell *c = room(AD_CAUSE_COUNT, sizeof(*c));

        *ret_count = 0;
        for (uint32_t i = 0; i < AD_CAUSE_COUNT; i++) {
                if (below(r, 3))
                        continue;
                c[*ret_count] = (struct ad_cause_cell){.cause = i, .billed = cell(r, is_delta)};
                if (!is_delta)
                        c[*ret_count].realtime =
                                i == AD_CAUSE_NONE ? c[*ret_count].billed : cell(r, false);
                (*ret_count)++;
        }
        return c;
}

static inline struct ad_target target(struct random *r)
{
        struct ad_target t = {.quarter = number(r),
                              .tenant_id = word(r, AD_ID_MAX),
                              .advertiser_id = word(r, AD_ID_MAX),
                              .campaign_id = word(r, AD_ID_MAX),
                              .publisher_id = word(r, AD_ID_MAX),
                              .currency = word(r, 3)};

        t.causes = causes(r, false, &t.cause_count);
        return t;
}

static inline struct ad_account account(struct random *r)
{
        return (struct ad_account){word(r, AD_ID_MAX), word(r, AD_ID_MAX)};
}

static inline struct ad_run_begin begin(struct random *r)
{
        struct ad_run_begin b = {.run = word(r, AD_RUN_ID_MAX),
                                 .chain = word(r, AD_ID_MAX),
                                 .binary_version = word(r, DF_VERSION_MAX),
                                 .asked_by = word(r, AD_COMMAND_ID_MAX),
                                 .whole = below(r, 2),
                                 .vector_count = below(r, 4),
                                 .config = number(r),
                                 .price_version = (uint32_t)number(r),
                                 .corrections_to = number(r),
                                 .at_ms = signed_number(r)};
        struct ad_vector_part *v = room(4, sizeof(*v));

        for (size_t i = 0; i < b.vector_count; i++)
                v[i] = (struct ad_vector_part){word(r, DF_TOPIC_NAME_MAX), number(r),
                                               (uint32_t)number(r), number(r)};
        b.vector = v;
        return b;
}

static inline struct ad_run_end end(struct random *r)
{
        return (struct ad_run_end){.run = word(r, AD_RUN_ID_MAX),
                                   .targets = number(r),
                                   .rows = number(r),
                                   .unexplained = number(r),
                                   .pending = number(r),
                                   .digest = word(r, 32)};
}

static inline struct ad_period_close period_close(struct random *r)
{
        static const char *const codes[] = {"", "CHF", "EUR", "USD"};
        struct ad_period_close c = {.run = word(r, AD_RUN_ID_MAX),
                                    .asked_by = word(r, AD_COMMAND_ID_MAX),
                                    .account = account(r),
                                    .period = word(r, AD_PERIOD_MAX),
                                    .zone = word(r, AD_ZONE_MAX),
                                    .zone_version = word(r, AD_ZONE_MAX),
                                    .from_quarter = number(r),
                                    .to_quarter = number(r),
                                    .rows = number(r),
                                    .manifest = word(r, 300),
                                    .signature = word(r, 64),
                                    .at_ms = signed_number(r)};
        struct ad_currency_cell *t = room(4, sizeof(*t));

        for (int i = 0; i < 4; i++)
                if (below(r, 2))
                        t[c.total_count++] =
                                (struct ad_currency_cell){df_bytes_str(codes[i]), cell(r, false)};
        c.totals = t;
        return c;
}

static inline struct ad_command command(struct random *r)
{
        struct ad_command c = {.id = word(r, AD_COMMAND_ID_MAX),
                               .tenant_id = word(r, AD_ID_MAX),
                               .requested_by = word(r, AD_PERSON_MAX),
                               .approved_by = word(r, AD_PERSON_MAX),
                               .reason = word(r, 200),
                               .at_ms = signed_number(r),
                               .kind = (enum ad_command_kind)below(r, AD_COMMAND_CANCEL + 1)};
        struct df_bytes *ids = room(5, sizeof(*ids));

        for (int i = 0; i < 5; i++)
                ids[i] = word(r, AD_EVENT_ID_MAX);
        c.correction = (struct ad_correction){
                .scope = {ids, below(r, 6), word(r, AD_ID_MAX), word(r, AD_ID_MAX),
                          word(r, AD_ID_MAX), (uint32_t)number(r), signed_number(r),
                          signed_number(r)},
                .action = (enum ad_correction_action)below(r, AD_CORRECT_COUNT),
                .price_nanos = signed_number(r),
                .currency = word(r, 3),
                .advertiser_id = word(r, AD_ID_MAX),
                .campaign_id = word(r, AD_ID_MAX),
                .publisher_id = word(r, AD_ID_MAX),
                .label = (uint32_t)number(r)};
        c.close =
                (struct ad_close_request){account(r), word(r, AD_PERIOD_MAX), number(r),
                                          number(r),  word(r, AD_ZONE_MAX),   word(r, AD_ZONE_MAX)};
        c.cancel = word(r, AD_COMMAND_ID_MAX);
        return c;
}

static inline struct ad_run_record run_record(struct random *r)
{
        struct ad_run_record v = {.kind = (enum ad_run_record_kind)below(r, AD_RUN_CLOSE + 1),
                                  .begin = begin(r),
                                  .end = end(r),
                                  .close = period_close(r)};
        struct ad_target *t = room(4, sizeof(*t));

        v.targets = (struct ad_target_batch){word(r, AD_RUN_ID_MAX), t, below(r, 5)};
        for (size_t i = 0; i < v.targets.count; i++)
                t[i] = target(r);
        return v;
}

static inline struct ad_books_entry entry(struct random *r)
{
        struct ad_books_entry e = {.kind = (enum ad_books_kind)below(r, AD_BOOKS_CLOSED + 1)};

        e.posting = (struct ad_posting){.seq = number(r),
                                        .run = word(r, AD_RUN_ID_MAX),
                                        .at_ms = signed_number(r),
                                        .target = target(r),
                                        .closed_period = word(r, AD_PERIOD_MAX),
                                        .posted_period = word(r, AD_PERIOD_MAX)};
        e.posting.delta = causes(r, true, &e.posting.delta_count);
        e.applied = (struct ad_applied){.begin = begin(r),
                                        .posted = number(r),
                                        .adjusted = number(r),
                                        .superseded = number(r),
                                        .end = end(r),
                                        .why = word(r, 100)};
        e.closed = (struct ad_closed){.close = period_close(r),
                                      .refused = below(r, 2),
                                      .why = word(r, 100),
                                      .seq = number(r),
                                      .open_period = word(r, AD_PERIOD_MAX)};
        return e;
}

#endif
