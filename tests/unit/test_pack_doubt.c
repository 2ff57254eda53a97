/* Ingest over a log that leaves appends in doubt, as Kafka does when no answer comes: the ledgers
 * of the start that ends and of the next (DESIGN section 3, T4). That a doubtful event which the
 * client sends again is counted once is dedupe's part (D1). */
#include "pack_test.h"

enum doubt { ANSWERED, ALL_STORED, NONE_STORED, SOME_STORED };

static atomic_int doubts[256]; /* of append 1, 2, 3 ...; enum doubt */
static atomic_uint appends_tried;
static atomic_uint_fast64_t doubtful_events; /* in the appends that were left in doubt */

static uint64_t events_in(const struct df_append *items, size_t count)
{
        struct df_arena arena;
        uint64_t n = 0;

        df_arena_init(&arena, 0);
        for (size_t i = 0; i < count; i++) {
                struct ad_batch b;
                struct df_error e;

                ok(ad_wire_batch_decode(items[i].value, AD_RECORD_EVENTS_MAX, &arena, &b, &e));
                n += b.count;
        }
        df_arena_release(&arena);
        return n;
}

static int doubtful_append(struct df_log_writer *w, struct df_append *items, size_t count,
                           struct df_error *e)
{
        unsigned n = atomic_fetch_add(&appends_tried, 1) + 1;
        int how = n < 256 ? atomic_load(&doubts[n]) : ANSWERED;
        size_t stored = how == NONE_STORED ? 0 : how == SOME_STORED ? count / 2 : count;

        if (stored) {
                int rc = df_log_append(writer, items, stored, e);

                if (rc < 0)
                        return rc;
        }
        if (how == ANSWERED)
                return 0;
        atomic_fetch_add(&doubtful_events, events_in(items, count));
        return df_fail(e, DF_EDOUBT, "no answer to append %u", n);
}

static void open_doubtful(int64_t delay_ms)
{
        static const struct df_log_ops ops = {.append = doubtful_append};
        static struct df_log log = {&ops};
        static struct df_log_writer doubtful = {&log};

        for (size_t i = 0; i < 256; i++)
                atomic_store(&doubts[i], ANSWERED);
        atomic_store(&appends_tried, 0);
        atomic_store(&doubtful_events, 0);
        in_front = &doubtful;
        open_pack(delay_ms);
        ad_pack_heartbeat(pack, 1, false); /* T4: append 1 */
        ad_pack_flush(pack);
}

/* What a reader may conclude of each start, from the log alone. */
struct seen_start {
        uint64_t id;
        uint64_t seen[PARTITIONS];
        bool introduced[PARTITIONS], ended[PARTITIONS];
        uint64_t stored; /* the sum of seen */
        struct ad_heartbeat last;
};

#define SEEN_MAX 256

static struct seen_start seen_starts[SEEN_MAX];
static size_t seen_count;

static struct seen_start *seen_start_of(uint64_t id)
{
        for (size_t i = 0; i < seen_count; i++)
                if (seen_starts[i].id == id)
                        return &seen_starts[i];
        assert_true(seen_count < SEEN_MAX);
        seen_starts[seen_count] = (struct seen_start){.id = id};
        return &seen_starts[seen_count++];
}

static void see(uint32_t p, const struct ad_batch *b)
{
        struct seen_start *s = seen_start_of(b->start_id);
        const struct ad_heartbeat *h = &b->heartbeat;

        if (b->count) {
                if (!s->introduced[p])
                        fail_msg("seed %" PRIu64 ": T4: events before a heartbeat", test_seed);
                assert_false(s->ended[p]);
                assert_int_equal(b->first_seq, s->seen[p]);
                s->seen[p] += b->count;
                s->stored += b->count;
        }
        if (!b->has_heartbeat)
                return;
        s->introduced[p] = true;
        if (h->in_doubt)
                s->ended[p] = true;
        if (h->in_doubt ? h->partition_accepted > s->seen[p] : h->partition_accepted != s->seen[p])
                fail_msg("seed %" PRIu64 ": %" PRIu64 " events said, %" PRIu64 " seen", test_seed,
                         h->partition_accepted, s->seen[p]);
        assert_true(h->receive_ms >= s->last.receive_ms || p > 0);
        if (h->receive_ms >= s->last.receive_ms)
                s->last = *h;
}

static void see_all(void)
{
        struct df_arena arena;

        seen_count = 0;
        df_arena_init(&arena, 0);
        for (uint32_t p = 0; p < PARTITIONS; p++) {
                struct df_log_reader *r = open_reader(test_log, TOPIC, p, 0, NULL);
                struct df_record records[16];
                size_t n = 1;

                while (n > 0) {
                        ok(df_log_poll(r, records, 16, &n, &err));
                        for (size_t i = 0; i < n; i++) {
                                struct ad_batch b;

                                df_arena_reset(&arena);
                                ok(ad_wire_batch_decode(records[i].value, AD_RECORD_EVENTS_MAX,
                                                        &arena, &b, &err));
                                see(p, &b);
                        }
                }
                df_log_reader_close(r);
        }
        df_arena_release(&arena);
}

static void check_last(const struct seen_start *s, bool in_doubt, uint64_t accepted,
                       uint64_t rejected, uint64_t unanswered)
{
        const struct ad_heartbeat *h = &s->last;

        assert_int_equal(h->in_doubt, in_doubt);
        for (uint32_t p = 0; p < PARTITIONS; p++)
                assert_int_equal(s->ended[p], in_doubt);
        assert_int_equal(h->accepted, accepted);
        assert_int_equal(h->rejected, rejected);
        assert_int_equal(h->unanswered, unanswered);
        assert_int_equal(h->received, accepted + rejected + unanswered);
}

/* DESIGN section 3: one append in doubt, whether it was stored or not. The old start's ledger ends
 * with its events unanswered; the new start's begins with a heartbeat (T4). */
static void doubt_once(enum doubt how)
{
        static struct ticket first, second, third;
        uint64_t ids[2];

        memset(&first, 0, sizeof(first));
        memset(&second, 0, sizeof(second));
        memset(&third, 0, sizeof(third));
        open_doubtful(1);
        ids[0] = ad_pack_start_id(pack);
        ad_pack_rejected(pack, 4);
        assert_int_equal(add_request(&first, 0, 300), 0);
        ad_pack_flush(pack);
        atomic_store(&doubts[atomic_load(&appends_tried) + 1], how);
        assert_int_equal(add_request(&second, 300, 500), 0);
        ad_pack_flush(pack);
        ids[1] = ad_pack_start_id(pack);
        assert_true(ids[0] != ids[1]);
        assert_int_equal(atomic_load(&first.rc), 0);
        assert_int_equal(atomic_load(&second.rc), DF_EDOUBT);
        assert_int_equal(atomic_load(&second.reports), 1);
        check_ledger(0, 0, 0);
        assert_int_equal(add_request(&third, 800, 50), 0);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&third.rc), 0);
        ad_pack_heartbeat(pack, 2, true);
        close_pack();
        see_all();
        assert_int_equal(seen_count, 2);
        assert_int_equal(seen_starts[0].id, ids[0]);
        assert_int_equal(seen_starts[1].id, ids[1]);
        check_last(&seen_starts[0], true, 300, 4, 500);
        check_last(&seen_starts[1], false, 50, 0, 0);
        assert_int_equal(seen_starts[1].stored, 50);
        if (how == ALL_STORED)
                assert_int_equal(seen_starts[0].stored, 800);
        else if (how == NONE_STORED)
                assert_int_equal(seen_starts[0].stored, 300);
        else
                assert_in_range(seen_starts[0].stored, 301, 799);
}

static void test_doubt_and_all_stored(void **state)
{
        doubt_once(ALL_STORED);
}

static void test_doubt_and_none_stored(void **state)
{
        doubt_once(NONE_STORED);
}

static void test_doubt_and_some_stored(void **state)
{
        doubt_once(SOME_STORED);
}

/* The log stays away: events are refused untried, so only the first append is in doubt, and there
 * is one new start however long it takes. The last append of all may be the one in doubt. */
static void test_doubt_that_lasts(void **state)
{
        static struct ticket tickets[6];
        uint64_t id;

        memset(tickets, 0, sizeof(tickets));
        open_doubtful(1);
        for (unsigned n = 2; n < 6; n++)
                atomic_store(&doubts[n], n % 2 ? NONE_STORED : SOME_STORED);
        for (size_t i = 0; i < 6; i++) {
                assert_int_equal(add_request(&tickets[i], 10 * i, 10), 0);
                ad_pack_flush(pack);
                if (i == 0)
                        id = ad_pack_start_id(pack);
                assert_int_equal(ad_pack_start_id(pack), id);
                assert_int_equal(atomic_load(&tickets[i].rc), i == 0  ? DF_EDOUBT
                                                              : i < 4 ? DF_EAGAIN
                                                                      : 0);
        }
        assert_int_equal(atomic_load(&doubtful_events), 10);
        check_ledger(20, 30, 0);
        ad_pack_heartbeat(pack, 7, false);
        ad_pack_flush(pack);
        atomic_store(&doubts[atomic_load(&appends_tried) + 1], NONE_STORED);
        ad_pack_heartbeat(pack, 8, true);
        close_pack();
        see_all();
        assert_int_equal(seen_count, 3); /* of the third only its first heartbeat */
        check_last(&seen_starts[0], true, 0, 0, 10);
        check_last(&seen_starts[1], true, 20, 30, 0);
        check_last(&seen_starts[2], false, 0, 0, 0);
}

struct sender {
        pthread_t thread;
        uint64_t first;
        uint64_t events[2]; /* added, and rejected by the parser */
        struct ticket tickets[400];
};

static void *send_with_refusals(void *arg)
{
        struct sender *s = arg;

        for (size_t i = 0; i < 400; i++) {
                size_t count = 1 + i % 3, refused = i % 5;
                struct ad_event events[3];
                char ids[3][32];

                for (size_t k = 0; k < count; k++)
                        events[k] = make_event(ids[k], s->first + 3 * i + k);
                s->tickets[i].events = count;
                assert_int_equal(ad_pack_add(pack, events, count, refused, &s->tickets[i], NULL),
                                 0);
                s->events[0] += count;
                s->events[1] += refused;
                if (i % 4 == 0) {
                        ad_pack_rejected(pack, 2);
                        s->events[1] += 2;
                }
                assert_true(ad_pack_start_id(pack) != 0);
                while (i % 8 == 0 && atomic_load(&s->tickets[i].reports) == 0)
                        (void)usleep(50);
        }
        return NULL;
}

/* The sum over all starts, of what each one's last heartbeat says. */
static struct ad_edge_counts sum_of_starts(uint64_t seed)
{
        struct ad_edge_counts sum = {0};

        for (size_t i = 0; i < seen_count; i++) {
                const struct ad_heartbeat *h = &seen_starts[i].last;

                if (h->received != h->accepted + h->rejected + h->unanswered ||
                    h->unanswered > h->received || seen_starts[i].stored < h->accepted ||
                    seen_starts[i].stored > h->accepted + h->unanswered)
                        fail_msg("seed %" PRIu64 ": start %zu: %" PRIu64 " = %" PRIu64 " + %" PRIu64
                                 " + %" PRIu64 ", stored %" PRIu64,
                                 seed, i, h->received, h->accepted, h->rejected, h->unanswered,
                                 seen_starts[i].stored);
                sum.received += h->received;
                sum.accepted += h->accepted;
                sum.rejected += h->rejected;
                sum.unanswered += h->unanswered;
        }
        return sum;
}

/* Doubt in the middle of concurrent requests: each event stands in the ledger of one start, once,
 * as its ticket was told. */
static void doubt_among_requests(uint64_t seed)
{
        static struct sender senders[4];
        uint64_t added = 0, refused = 0, told[3] = {0};
        struct ad_edge_counts sum;

        memset(senders, 0, sizeof(senders));
        seed_test(seed);
        open_doubtful(1);
        for (size_t n = 2; n < 250; n++)
                atomic_store(&doubts[n], rnd() % 3 ? ANSWERED : 1 + (int)(rnd() % 3));
        for (size_t i = 0; i < 4; i++) {
                senders[i].first = i * 2000;
                assert_int_equal(
                        pthread_create(&senders[i].thread, NULL, send_with_refusals, &senders[i]),
                        0);
        }
        for (int k = 0; k < 100; k++) {
                struct ad_pack_stats s;

                ad_pack_stats(pack, &s);
                assert_true(s.edge.unanswered <= s.edge.received); /* it wraps below 0 */
                ad_pack_heartbeat(pack, 2 + k, false);
                (void)usleep(100);
        }
        for (size_t i = 0; i < 4; i++)
                (void)pthread_join(senders[i].thread, NULL);
        ad_pack_flush(pack);
        for (size_t n = 0; n < 256; n++)
                atomic_store(&doubts[n], ANSWERED);
        for (int k = 0; k < 2; k++) { /* the first may be what ends a start, then the next tells */
                ad_pack_heartbeat(pack, 1000 + k, k == 1);
                ad_pack_flush(pack);
        }
        close_pack();
        for (size_t i = 0; i < 4; i++) {
                added += senders[i].events[0];
                refused += senders[i].events[1];
                for (size_t k = 0; k < 400; k++) {
                        const struct ticket *t = &senders[i].tickets[k];
                        int rc = atomic_load(&t->rc);

                        assert_int_equal(atomic_load(&t->reports), 1);
                        assert_true(rc == 0 || rc == DF_EDOUBT || rc == DF_EAGAIN);
                        told[rc == 0 ? 0 : rc == DF_EAGAIN ? 1 : 2] += t->events;
                }
        }
        see_all();
        assert_true(seen_count > 1);
        sum = sum_of_starts(seed);
        if (sum.received != added + refused || sum.accepted != told[0] ||
            sum.rejected != refused + told[1] || sum.unanswered != told[2] ||
            told[2] != atomic_load(&doubtful_events))
                fail_msg("seed %" PRIu64 ": received %" PRIu64 " of %" PRIu64 ", accepted %" PRIu64
                         " of %" PRIu64 ", rejected %" PRIu64 " of %" PRIu64 ", unanswered %" PRIu64
                         " of %" PRIu64,
                         seed, sum.received, added + refused, sum.accepted, told[0], sum.rejected,
                         refused + told[1], sum.unanswered, told[2]);
}

static void test_doubt_among_requests(void **state)
{
        for (uint64_t seed = 1; seed <= 20; seed++) {
                if (seed > 1) {
                        assert_int_equal(teardown(state), 0);
                        assert_int_equal(setup(state), 0);
                }
                doubt_among_requests(seed);
        }
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_doubt_and_all_stored, setup, teardown),
                cmocka_unit_test_setup_teardown(test_doubt_and_none_stored, setup, teardown),
                cmocka_unit_test_setup_teardown(test_doubt_and_some_stored, setup, teardown),
                cmocka_unit_test_setup_teardown(test_doubt_that_lasts, setup, teardown),
                cmocka_unit_test_setup_teardown(test_doubt_among_requests, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
