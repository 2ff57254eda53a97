/* The arithmetic of both ledgers (C1), against sums written out by hand, and what /quality says of
 * them. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jobs/api/quality.h"
#include "state_test.h"

#define GENERATION 7
#define MINUTE_MS 60000LL

static struct ad_source sources[4];
static struct ad_start starts[6];
static struct ad_span spans[3];
static struct ad_tail tail;

static void fill_starts(void)
{
        /* start 1: closed; the newest of its heartbeats is in partition 1 */
        starts[0] = (struct ad_start){0,
                                      {.start_id = 1,
                                       .heartbeat_ms = 10,
                                       .received = 90,
                                       .accepted = 80,
                                       .rejected = 10,
                                       .partition_accepted = 60,
                                       .partition_seen = 60}};
        starts[1] = (struct ad_start){1,
                                      {.start_id = 1,
                                       .heartbeat_ms = 20,
                                       .received = 125,
                                       .accepted = 110,
                                       .rejected = 12,
                                       .unanswered = 3,
                                       .partition_accepted = 50,
                                       .partition_seen = 50,
                                       .closing = true}};
        starts[2] = (struct ad_start){0,
                                      {.start_id = 2,
                                       .heartbeat_ms = 30,
                                       .received = 40,
                                       .accepted = 40,
                                       .partition_accepted = 38,
                                       .partition_seen = 40}};
}

/* Two partitions and an import; two ingest starts, one of them closed. All adds up. */
static struct ad_status *status(void)
{
        static struct ad_status s;

        memset(&s, 0, sizeof(s));
        memset(sources, 0, sizeof(sources));
        memset(starts, 0, sizeof(starts));
        tail = (struct ad_tail){.exact = true};
        for (uint32_t i = 0; i < 3; i++) {
                struct ad_source *o = &sources[i];

                o->id = i;
                o->name.generation = i < 2 ? GENERATION : 99;
                o->name.partition = i % 2;
                (void)snprintf(o->name.stream, sizeof(o->name.stream), "%s",
                               i < 2 ? "events" : "import.x");
                o->k = 3;
                o->watermark_ms = o->final_through_ms = 1000 * MINUTE_MS;
        }
        sources[0].events = 100;
        sources[0].outcomes[AD_COUNTED] = 80;
        sources[0].outcomes[AD_DUPLICATE] = 12;
        sources[0].outcomes[AD_CONFLICT] = 1;
        sources[0].outcomes[AD_LATE] = 3;
        sources[0].outcomes[AD_CLOCK] = 2;
        sources[0].outcomes[AD_TOO_OLD] = 2;
        sources[1].events = 50;
        sources[1].outcomes[AD_COUNTED] = 50;
        sources[2].events = 7;
        sources[2].outcomes[AD_COUNTED] = 6;
        sources[2].outcomes[AD_DUPLICATE] = 1;
        sources[2].is_import = true;
        (void)snprintf(sources[2].tenant, sizeof(sources[2].tenant), "acme");
        tail = (struct ad_tail){.exact = true, .events = {4, 5}};
        fill_starts();
        s.partitions = 2;
        s.generation = GENERATION;
        s.sources = sources;
        s.source_count = 3;
        s.starts = starts;
        s.start_count = 3;
        s.spans = spans;
        s.forgotten = (struct ad_edge){.received = 1000, .accepted = 900, .rejected = 100};
        s.forgotten_count = 2;
        s.freshness = (struct ad_freshness){.p50_ms = -1, .p95_ms = -1};
        return &s;
}

static void whole(const struct ad_status *s, struct ad_ledger *ret, bool *ret_balanced)
{
        struct ad_start_ledger *list = NULL;
        size_t count;

        ok(ad_start_ledgers(s, &tail, &list, &count, err));
        ad_whole_ledger(s, tail.events, list, count, ret, ret_balanced);
        free(list);
}

static void test_balanced(void **state)
{
        struct ad_status *s = status();
        struct ad_ledger l;
        bool balanced;

        whole(s, &l, &balanced);
        assert_true(balanced);
        assert_int_equal(l.received, 1000 + 125 + 40);
        assert_int_equal(l.accepted_at_edge, 900 + 110 + 40);
        assert_int_equal(l.rejected, 100 + 12);
        assert_int_equal(l.unanswered, 3);
        assert_int_equal(l.accepted, 100 + 50 + 7 + 4 + 5);
        assert_int_equal(l.counted, 80 + 50 + 6);
        assert_int_equal(l.duplicate, 13);
        assert_int_equal(l.conflict, 1);
        assert_int_equal(l.late, 3);
        assert_int_equal(l.quarantined, 4);
        assert_int_equal(l.pending, 9);
        assert_int_equal(l.imported, 7);
        for (size_t i = 0; i < s->source_count; i++)
                assert_int_equal(ad_source_imbalance(s, i), 0);
}

/* Each way an event can get lost shows. */
static void test_imbalances(void **state)
{
        struct ad_status *s = status();
        struct ad_ledger l;
        bool balanced;

        sources[1].outcomes[AD_COUNTED] = 49; /* an event without an outcome */
        assert_int_equal(ad_source_imbalance(s, 1), 1);
        whole(s, &l, &balanced);
        assert_false(balanced);

        s = status();
        sources[1].outcomes[AD_LATE] = 2; /* an outcome without an event */
        assert_int_equal(ad_source_imbalance(s, 1), 2);

        s = status();
        sources[0].sequence_gaps = 3; /* ingest stamped what never came */
        assert_int_equal(ad_source_imbalance(s, 0), 3);
        whole(s, &l, &balanced);
        assert_false(balanced);

        s = status();
        sources[0].chain_gaps = 1; /* K6: a checkpoint is missing */
        assert_int_equal(ad_source_imbalance(s, 0), 1);

        s = status();
        starts[1].edge.partition_seen = 45; /* said to be stored, not seen */
        assert_int_equal(ad_source_imbalance(s, 1), 5);
        whole(s, &l, &balanced);
        assert_false(balanced);

        s = status();
        starts[1].edge.rejected = 11; /* the edge itself does not add up */
        assert_int_equal(ad_source_imbalance(s, 1), 0);
        whole(s, &l, &balanced);
        assert_false(balanced);
}

static void test_starts(void **state)
{
        struct ad_status *s = status();
        struct ad_start_ledger *list = NULL;
        size_t count;

        ok(ad_start_ledgers(s, &tail, &list, &count, err));
        assert_int_equal(count, 2);
        assert_int_equal(list[0].start_id, 2); /* the newest first */
        assert_int_equal(list[1].start_id, 1);
        assert_int_equal(list[1].edge.received, 125);
        assert_int_equal(list[1].stored, 110);
        assert_int_equal(list[1].seen, 110);
        assert_int_equal(list[1].lost, 0);
        assert_true(ad_start_balanced(&list[0]) && ad_start_balanced(&list[1]));
        free(list);
}

/* Heartbeats that no seal covers yet are newer: what ingest answered is told within seconds, even
 * where partitions without events are sealed rarely (K12). What is stored and seen stays. */
static void test_heartbeats_of_the_tail(void **state)
{
        struct ad_status *s = status();
        struct ad_start_ledger *list = NULL;
        struct ad_ledger l;
        bool balanced;
        size_t count;

        tail.edges[0] = s->starts[1].edge;
        tail.edges[0].heartbeat_ms = 3000 * MINUTE_MS;
        tail.edges[0].received = 130;
        tail.edges[0].rejected = 17;
        tail.edges[0].accepted = 110;
        tail.edges[1] =
                (struct ad_edge){.start_id = 9, .heartbeat_ms = 1, .received = 6, .accepted = 6};
        tail.edges[2] = s->starts[2].edge; /* older than what is sealed */
        tail.edges[2].heartbeat_ms -= 1;
        tail.edges[2].received = 1;
        tail.edge_count = 3;
        ok(ad_start_ledgers(s, &tail, &list, &count, err));
        assert_int_equal(count, 3);
        assert_int_equal(list[0].edge.received, 130);
        assert_int_equal(list[0].stored, 110);
        assert_int_equal(list[0].seen, 110);
        assert_int_equal(list[2].start_id, 9); /* known from the tail alone */
        assert_int_equal(list[2].lost, 0);
        free(list);
        whole(s, &l, &balanced);
        assert_true(balanced);
        assert_int_equal(l.received, 1000 + 130 + 40 + 6);
        assert_int_equal(l.rejected, 100 + 17);
}

/* A partition that never sealed anything has everything pending. */
static void test_unsealed_partition(void **state)
{
        struct ad_status *s = status();
        struct ad_ledger l;
        bool balanced;

        s->partitions = 3;
        tail.events[2] = 11;
        whole(s, &l, &balanced);
        assert_true(balanced);
        assert_int_equal(l.pending, 20);
        assert_int_equal(l.accepted, 177);
}

/* B15: where a window stays open, it is named. */
static void test_oldest_open(void **state)
{
        struct ad_status *s = status();

        assert_true(ad_oldest_open(s, 0) == DF_TIME_MIN);
        spans[0] = (struct ad_span){0, 900, 1005, "default"};
        spans[1] = (struct ad_span){0, 1002, 1003, "acme"};
        spans[2] = (struct ad_span){1, 900, 999, "default"}; /* all of it is final */
        s->span_count = 3;
        assert_int_equal(ad_oldest_open(s, 0), 1000 * MINUTE_MS);
        assert_true(ad_oldest_open(s, 1) == DF_TIME_MIN);
        sources[0].final_through_ms = 1000 * MINUTE_MS + 59999; /* within minute 1000 */
        assert_int_equal(ad_oldest_open(s, 0), 1000 * MINUTE_MS);
        sources[0].final_through_ms = DF_TIME_MIN;
        assert_int_equal(ad_oldest_open(s, 0), 900 * MINUTE_MS);
        s->span_count = 0;
}

static void test_late_share(void **state)
{
        struct ad_status *s = status();

        assert_true(ad_status_late_share(s) == 0); /* too little history */
        sources[1].outcomes[AD_COUNTED] = 10000 - 80 - 3 - 17;
        sources[1].outcomes[AD_LATE] = 17;
        assert_true(ad_status_late_share(s) == 20.0 / 10000);
}

static void has(const struct df_buf *b, const char *part)
{
        if (!memmem(b->data, b->len, part, strlen(part)))
                fail_msg("%s is not in %.*s", part, (int)b->len, (const char *)b->data);
}

static void test_json(void **state)
{
        struct ad_status *s = status();
        struct ad_quality q = {.status = s,
                               .tail = &tail,
                               .tenant_id = df_bytes_str("default"),
                               .now_ms = 2000 * MINUTE_MS,
                               .answers = 4000,
                               .failures = 2,
                               .since_ms = 1};
        struct df_buf b = {0};

        s->outside.missing[0] = 1;
        s->outside.missing_count = 1;
        ok(ad_quality_json(&q, &b, err));
        has(&b, "\"ledger\":{\"received\":1165,\"rejected\":112,\"unanswered\":3,\"accepted\":166,"
                "\"counted\":136,\"duplicate\":13,\"conflict\":1,\"late\":3,\"quarantined\":4,"
                "\"pending\":9,");
        has(&b, "\"balanced\":true");
        has(&b, "\"missing_partitions\":[1]");
        has(&b,
            "\"outcomes\":{\"counted\":136,\"duplicate\":13,\"conflict\":1,\"late\":3,\"clock\":2,"
            "\"too_old\":2}");
        has(&b, "\"duplicate_rate\":0.0828025"); /* 13 / 157 */
        has(&b, "\"freshness\":{\"window\":\"5m\",\"events\":0,\"p50_ms\":null,\"p95_ms\":null}");
        has(&b, "\"drift\":null,\"drift_reason\":\"no bill is followed\"");
        has(&b, "\"answers\":4000,\"failures\":2,\"burn\":0.5");
        has(&b, "\"ingest_starts\":4");
        has(&b, "\"watermark\":\"1970-01-01T16:40:00Z\"");
        assert_null(memmem(b.data, b.len, "acme", 4)); /* another tenant's import is not shown */
        df_buf_clear(&b);
        q.any_tenant = true;
        ok(ad_quality_json(&q, &b, err));
        has(&b, "\"import\":{\"tenant\":\"acme\"");
        df_buf_release(&b);
}

/* Nothing was ever counted: nulls, not zeros or failures. */
static void test_json_of_nothing(void **state)
{
        struct ad_status s = {.partitions = 2, .generation = GENERATION};
        struct ad_quality q = {.status = &s,
                               .tail = &tail,
                               .tenant_id = df_bytes_str("default"),
                               .now_ms = 2000 * MINUTE_MS};
        struct df_buf b = {0};

        tail = (struct ad_tail){.exact = true};
        ok(ad_quality_json(&q, &b, err));
        has(&b, "\"duplicate_rate\":null");
        has(&b, "\"watermark\":null");
        has(&b, "\"completeness\":0");
        has(&b, "\"balanced\":true");
        has(&b, "\"sources\":[]");
        has(&b, "\"burn\":null");
        df_buf_release(&b);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_balanced),
                cmocka_unit_test(test_imbalances),
                cmocka_unit_test(test_starts),
                cmocka_unit_test(test_heartbeats_of_the_tail),
                cmocka_unit_test(test_unsealed_partition),
                cmocka_unit_test(test_oldest_open),
                cmocka_unit_test(test_late_share),
                cmocka_unit_test(test_json),
                cmocka_unit_test(test_json_of_nothing),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
