/* Group commit over the real file log: every ticket exactly once, nothing lost, repeated or torn
 * apart, the edge ledger always balanced (DESIGN section 3), heartbeats (T4), a full disk (L2) and
 * a failed sync (L1). */
#include "pack_test.h"

/* ---- what is in the log: the oracle reads it record by record ---- */

struct found {
        uint8_t *seen; /* times event-<n> was found */
        size_t max;
        uint64_t events, records, heartbeats, resets;
        uint64_t start_id;
        struct ad_heartbeat last;
        bool heartbeat_before_events;
        uint64_t record_events_max;
};

static void check_record(struct found *f, uint32_t partition, uint64_t *seq,
                         const struct ad_batch *b)
{
        assert_int_equal(b->schema_version, AD_SCHEMA_VERSION);
        assert_int_equal(b->price_version, 7);
        if (f->start_id == 0)
                f->start_id = b->start_id;
        assert_int_equal(b->start_id, f->start_id);
        assert_int_equal(b->first_seq, *seq); /* continuity: nothing lost, nothing twice */
        if (f->records == 0 && b->has_heartbeat)
                f->heartbeat_before_events = true;
        for (size_t i = 0; i < b->count; i++) {
                const struct ad_event *ev = &b->events[i];
                char text[40] = {0};
                uint64_t n;

                memcpy(text, ev->event_id.data, ev->event_id.len);
                assert_int_equal(sscanf(text, "event-%" SCNu64, &n), 1);
                assert_true(n < f->max);
                f->seen[n]++;
                /* E3 */
                assert_int_equal(
                        ad_event_partition(ad_event_key(ev->tenant_id, ev->event_id), PARTITIONS),
                        partition);
        }
        *seq += b->count;
        f->events += b->count;
        f->records++;
        if (b->count > f->record_events_max)
                f->record_events_max = b->count;
        if (b->has_heartbeat) {
                const struct ad_heartbeat *h = &b->heartbeat;

                f->heartbeats++;
                f->last = *h;
                assert_int_equal(h->received, h->accepted + h->rejected + h->unanswered);
                assert_int_equal(h->partition_accepted, *seq);
        }
        f->resets += b->clock_reset;
}

static void read_all(struct found *f, size_t max)
{
        struct df_arena arena;

        *f = (struct found){.max = max, .seen = calloc(max + 1, 1)};
        assert_non_null(f->seen);
        df_arena_init(&arena, 0);
        for (uint32_t p = 0; p < PARTITIONS; p++) {
                struct df_log_reader *r = open_reader(test_log, TOPIC, p, 0, NULL);
                struct df_record records[16];
                uint64_t seq = 0;
                size_t n = 1;

                while (n > 0) {
                        ok(df_log_poll(r, records, 16, &n, &err));
                        for (size_t i = 0; i < n; i++) {
                                struct ad_batch b;

                                df_arena_reset(&arena);
                                ok(ad_wire_batch_decode(records[i].value, AD_RECORD_EVENTS_MAX,
                                                        &arena, &b, &err));
                                check_record(f, p, &seq, &b);
                        }
                }
                df_log_reader_close(r);
        }
        df_arena_release(&arena);
}

static void check_exactly(struct found *f, uint64_t from, uint64_t to)
{
        for (uint64_t n = 0; n < f->max; n++)
                if (f->seen[n] != (n >= from && n < to))
                        fail_msg("event-%" PRIu64 " stands %u times in the log", n, f->seen[n]);
        free(f->seen);
}

/* ---- tests ---- */

static void test_every_event_once_and_every_ticket_once(void **state)
{
        enum { REQUESTS = 500 };
        static struct ticket tickets[REQUESTS];
        struct found f;
        uint64_t n = 0;

        seed_test(11);
        memset(tickets, 0, sizeof(tickets));
        open_pack(1);
        ad_pack_heartbeat(pack, 1000, false);
        ad_pack_flush(pack);
        for (size_t i = 0; i < REQUESTS; i++) {
                size_t count = 1 + (size_t)(rnd() % 300);

                assert_int_equal(add_request(&tickets[i], n, count), 0);
                n += count;
                if (i % 97 == 0)
                        ad_pack_heartbeat(pack, 1000 + (int64_t)i, false);
        }
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&reported), REQUESTS);
        for (size_t i = 0; i < REQUESTS; i++) {
                assert_int_equal(atomic_load(&tickets[i].reports), 1);
                assert_int_equal(atomic_load(&tickets[i].rc), 0);
        }
        check_ledger(n, 0, 0);
        ad_pack_heartbeat(pack, 9999, true);
        close_pack(); /* flushes */
        read_all(&f, (size_t)n);
        assert_int_equal(f.events, n);
        assert_int_equal(f.last.accepted, n);
        assert_int_equal(f.last.unanswered, 0);
        assert_int_equal(f.last.receive_ms, 9999);
        assert_true(f.last.closing);
        assert_true(f.heartbeat_before_events); /* T4 */
        assert_true(f.record_events_max <= AD_RECORD_EVENTS);
        check_exactly(&f, 0, n);
}

struct producer {
        pthread_t thread;
        uint64_t first;
        struct ticket tickets[200];
};

static void *produce(void *arg)
{
        struct producer *p = arg;

        for (size_t i = 0; i < 200; i++)
                assert_int_equal(add_request(&p->tickets[i], p->first + 5 * i, 5), 0);
        return NULL;
}

static void test_concurrent_producers(void **state)
{
        static struct producer producers[4];
        struct found f;

        memset(producers, 0, sizeof(producers));
        open_pack(1);
        for (int i = 0; i < 4; i++) {
                producers[i].first = (uint64_t)i * 1000;
                assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]),
                                 0);
        }
        for (int k = 0; k < 50; k++) { /* the ledger balances at every moment */
                struct ad_pack_stats s;

                ad_pack_stats(pack, &s);
                assert_int_equal(s.edge.received,
                                 s.edge.accepted + s.edge.rejected + s.edge.unanswered);
                if (k % 10 == 0)
                        ad_pack_heartbeat(pack, 1 + k, false);
                (void)usleep(200);
        }
        for (int i = 0; i < 4; i++)
                (void)pthread_join(producers[i].thread, NULL);
        ad_pack_flush(pack);
        for (int i = 0; i < 4; i++)
                for (int k = 0; k < 200; k++)
                        assert_int_equal(atomic_load(&producers[i].tickets[k].reports), 1);
        check_ledger(4000, 0, 0);
        close_pack();
        read_all(&f, 4000);
        check_exactly(&f, 0, 4000);
}

/* One client alone does not wait for --batch-delay; clients together share a commit. */
static void test_one_client_does_not_wait(void **state)
{
        static struct ticket alone[20], together[64];
        struct ad_pack_stats before, after;
        int64_t began;

        memset(alone, 0, sizeof(alone));
        memset(together, 0, sizeof(together));
        open_pack(1000);
        began = df_monotonic_ms();
        for (size_t i = 0; i < 20; i++) {
                assert_int_equal(add_request(&alone[i], i, 1), 0);
                while (atomic_load(&alone[i].reports) == 0)
                        (void)usleep(100);
        }
        assert_true(df_monotonic_ms() - began < 10000); /* 20 delays would be 20 s */
        for (int round = 0; round < 5; round++) {
                ad_pack_stats(pack, &before);
                atomic_store(&reported, 0);
                for (size_t i = 0; i < 64; i++)
                        assert_int_equal(add_request(&together[i], 100 + i, 1), 0);
                while (atomic_load(&reported) < 64)
                        (void)usleep(100);
                ad_pack_stats(pack, &after);
                assert_true(after.flushes - before.flushes <= 32);
        }
        close_pack();
}

static int64_t free_bytes_now;
static int fake_free_bytes(const char *path, uint64_t *ret)
{
        *ret = (uint64_t)free_bytes_now;
        return 0;
}

/* L2: a full disk is answered, stores nothing, and is recovered from by itself. */
static void test_disk_full(void **state)
{
        static struct ticket refused[3], stored;
        struct found f;

        memset(refused, 0, sizeof(refused));
        memset(&stored, 0, sizeof(stored));
        hooks(test_log)->free_bytes = fake_free_bytes;
        free_bytes_now = 0;
        open_pack(1);
        ad_pack_heartbeat(pack, 1, false);
        ad_pack_flush(pack);
        {
                struct ad_pack_stats s;

                ad_pack_stats(pack, &s);
                assert_int_equal(s.heartbeat_ms, 0); /* T4: not introduced */
        }
        for (size_t i = 0; i < 3; i++)
                assert_int_equal(add_request(&refused[i], 10 * i, 10), 0);
        ad_pack_flush(pack);
        for (size_t i = 0; i < 3; i++) {
                assert_int_equal(atomic_load(&refused[i].reports), 1);
                assert_int_equal(atomic_load(&refused[i].rc), DF_ENOSPC);
        }
        assert_true(atomic_load(&failures) > 0);
        assert_int_equal(atomic_load(&failed_code), DF_ENOSPC);
        check_ledger(0, 30, 0);
        free_bytes_now = 1LL << 40;
        ad_pack_heartbeat(pack, 2, false);
        ad_pack_flush(pack);
        assert_int_equal(add_request(&stored, 100, 10), 0);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&stored.rc), 0);
        assert_int_equal(atomic_load(&stored.reports), 1);
        check_ledger(10, 30, 0);
        ad_pack_heartbeat(pack, 3, false);
        close_pack();
        read_all(&f, 200);
        assert_int_equal(f.last.rejected, 30);
        check_exactly(&f, 100, 110); /* first_seq counts what was written alone */
}

/* What must be durable before events is not: none of them is appended, heartbeats are (T4). */
static void test_nothing_is_appended_before_what_it_needs(void **state)
{
        static struct ticket refused, stored;
        struct ad_pack_stats s;
        struct found f;

        memset(&refused, 0, sizeof(refused));
        memset(&stored, 0, sizeof(stored));
        open_pack(1);
        before_rc = DF_ENOSPC;
        ad_pack_heartbeat(pack, 1, false);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&befores), 0);
        ad_pack_stats(pack, &s);
        assert_int_equal(s.heartbeat_ms, 1);
        assert_int_equal(add_request(&refused, 0, 10), 0);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&refused.rc), DF_ENOSPC);
        assert_int_equal(atomic_load(&failed_code), DF_ENOSPC);
        check_ledger(0, 10, 0);
        before_rc = 0;
        assert_int_equal(add_request(&stored, 10, 10), 0);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&stored.rc), 0);
        assert_int_equal(atomic_load(&befores), 2);
        check_ledger(10, 10, 0);
        close_pack();
        read_all(&f, 20);
        check_exactly(&f, 10, 20);
}

static int fail_sync(int fd)
{
        errno = EIO;
        return -1;
}

/* In production the log itself ends the process here. */
static void keep_living(const char *line)
{
        assert_non_null(line);
}

/* L1: after a failed sync nothing is appended any more, and nobody is told that it was stored. */
static void test_failed_sync_ends_it(void **state)
{
        static struct ticket first, second, third;
        struct ad_pack_stats s;

        memset(&first, 0, sizeof(first));
        memset(&second, 0, sizeof(second));
        memset(&third, 0, sizeof(third));
        open_pack(1);
        assert_int_equal(add_request(&first, 0, 3), 0);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&first.rc), 0);
        hooks(test_log)->sync_data = fail_sync;
        hooks(test_log)->die = keep_living;
        assert_int_equal(add_request(&second, 10, 5), 0);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&second.reports), 1);
        assert_int_equal(atomic_load(&second.rc), DF_EIO);
        assert_int_equal(atomic_load(&failed_code), DF_EIO);
        assert_int_equal(add_request(&third, 20, 2), DF_EIO);
        assert_int_equal(atomic_load(&third.reports), 0);
        ad_pack_stats(pack, &s);
        assert_int_equal(s.broken, DF_EIO);
        check_ledger(3, 2, 5); /* the five may be stored: unanswered for ever */
        close_pack();
}

static atomic_bool disk_hangs;
static int hanging_sync(int fd)
{
        while (atomic_load(&disk_hangs))
                (void)usleep(1000);
        return fdatasync(fd);
}

/* The disk hangs: what waits is bounded, the rest is refused before anything is copied. */
static void test_bounded_memory(void **state)
{
        enum { REQUESTS = 4000 };
        static struct ticket tickets[REQUESTS];
        struct ad_pack_stats s;
        size_t given = 0;
        uint64_t n = 0;
        int rc = 0;

        memset(tickets, 0, sizeof(tickets));
        open_pack(1);
        atomic_store(&disk_hangs, true);
        hooks(test_log)->sync_data = hanging_sync;
        while (rc == 0 && given < REQUESTS - 1) {
                rc = add_request(&tickets[given], n, 1000);
                n += 1000;
                given += rc == 0;
        }
        assert_int_equal(rc, DF_EAGAIN);
        ad_pack_stats(pack, &s);
        assert_true(s.waiting_bytes > AD_FLUSH_BYTES_MAX);
        /* What fills, and the flush that hangs, which may be as large. */
        assert_true(s.waiting_bytes < 2 * AD_FLUSH_BYTES_MAX + (4 << 20));
        check_ledger(0, 1000, 1000 * given);
        atomic_store(&disk_hangs, false);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&reported), given);
        assert_int_equal(atomic_load(&tickets[given].reports), 0);
        check_ledger(1000 * given, 1000, 0);
        close_pack();
}

/* D1: what waited too long for the disk is refused and not written. */
static void test_gives_up_on_a_hanging_disk(void **state)
{
        static struct ticket first, second, third;
        struct found f;

        memset(&first, 0, sizeof(first));
        memset(&second, 0, sizeof(second));
        memset(&third, 0, sizeof(third));
        give_up_ms = 100;
        open_pack(1);
        give_up_ms = 0;
        atomic_store(&disk_hangs, true);
        hooks(test_log)->sync_data = hanging_sync;
        assert_int_equal(add_request(&first, 0, 1), 0);
        (void)usleep(50 * 1000); /* the committer hangs in the first */
        assert_int_equal(add_request(&second, 10, 2), 0);
        (void)usleep(200 * 1000);
        atomic_store(&disk_hangs, false);
        ad_pack_flush(pack);
        assert_int_equal(add_request(&third, 20, 3), 0);
        ad_pack_flush(pack);
        assert_int_equal(atomic_load(&first.rc), 0);
        assert_int_equal(atomic_load(&second.rc), DF_EAGAIN);
        assert_int_equal(atomic_load(&second.reports), 1);
        assert_int_equal(atomic_load(&third.rc), 0);
        check_ledger(4, 2, 0);
        close_pack();
        read_all(&f, 30);
        assert_int_equal(f.events, 4);
        assert_int_equal(f.seen[10] + f.seen[11], 0);
        free(f.seen);
}

/* A start after another continues the log with its own id, its own sequence from 0. */
static void test_starts_are_told_apart(void **state)
{
        uint64_t ids[2];

        for (int i = 0; i < 2; i++) {
                open_pack(1);
                ids[i] = ad_pack_start_id(pack);
                assert_true(ids[i] != 0);
                ad_pack_heartbeat(pack, 5, false);
                close_pack();
        }
        assert_true(ids[0] != ids[1]);
}

/* T2: `adtally recover --clock`. */
static void test_clock_reset_record(void **state)
{
        struct found f;

        open_pack(1);
        ad_pack_clock_reset(pack, 5);
        ad_pack_flush(pack);
        assert_true(ad_pack_last_append_ms(pack) > 0);
        assert_int_equal(ad_pack_last_append_ms(pack), atomic_load(&appended_max_ms));
        close_pack();
        read_all(&f, 1);
        assert_int_equal(f.resets, PARTITIONS);
        assert_int_equal(f.records, PARTITIONS);
        free(f.seen);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test_setup_teardown(test_every_event_once_and_every_ticket_once, setup,
                                                teardown),
                cmocka_unit_test_setup_teardown(test_concurrent_producers, setup, teardown),
                cmocka_unit_test_setup_teardown(test_one_client_does_not_wait, setup, teardown),
                cmocka_unit_test_setup_teardown(test_disk_full, setup, teardown),
                cmocka_unit_test_setup_teardown(test_nothing_is_appended_before_what_it_needs,
                                                setup, teardown),
                cmocka_unit_test_setup_teardown(test_failed_sync_ends_it, setup, teardown),
                cmocka_unit_test_setup_teardown(test_bounded_memory, setup, teardown),
                cmocka_unit_test_setup_teardown(test_gives_up_on_a_hanging_disk, setup, teardown),
                cmocka_unit_test_setup_teardown(test_starts_are_told_apart, setup, teardown),
                cmocka_unit_test_setup_teardown(test_clock_reset_record, setup, teardown),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
