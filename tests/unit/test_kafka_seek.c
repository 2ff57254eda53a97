/* The loss test (ARCHITECTURE, "On Kafka", Reading): readers are closed and opened at offsets of
 * all kinds while others append, commit and abort; nothing is lost, doubled, or seen too early.
 *
 * Oracle: the partition as another client reads it afterwards, once, from the beginning. */
#include "kafka_test.h"

#define SEEKS 200
#define PARTITIONS 2
#define RECORDS_A_SEEK 10u /* written before the next one, so that seeks meet a growing log */

struct producers {
        const char *prefix;
        struct df_log *log;
        atomic_bool stop;
        uint64_t seed;
        struct df_error err;
        bool failed;
};

/* Several records a call, as ingest does. */
static void *append_some(void *arg)
{
        struct producers *p = arg;
        struct df_log_writer *w = NULL;
        uint64_t dice_a = p->seed ^ 0xa5a5a5a5, n = 0;

        p->failed |= df_log_writer_open(p->log, "e", &w, &p->err) < 0;
        while (!atomic_load(&p->stop) && !p->failed) {
                struct df_append items[8] = {0};
                char text[8][24];
                size_t count = 1 + next_of(&dice_a) % 8;

                for (size_t i = 0; i < count; i++) {
                        int len = snprintf(text[i], sizeof(text[i]), "a%" PRIu64, n++);

                        items[i].partition = (uint32_t)(next_of(&dice_a) % PARTITIONS);
                        items[i].value = df_bytes(text[i], (size_t)len);
                }
                p->failed |= df_log_append(w, items, count, &p->err) < 0;
                dfk_pause((int)(next_of(&dice_a) % 20));
        }
        df_log_writer_close(w);
        return NULL;
}

/* Transactions, a third of them aborted, so that the partition has holes. */
static void *transact_some(void *arg)
{
        struct producers *p = arg;
        uint64_t dice_t = p->seed ^ 0x5a5a5a5a, n = 0;
        char full[256], id[256], text[24];
        rd_kafka_t *rk;

        (void)snprintf(full, sizeof(full), "%se", p->prefix);
        (void)snprintf(id, sizeof(id), "%sraw", p->prefix);
        rk = raw_txn_producer(id);
        while (!atomic_load(&p->stop)) {
                bool commit = next_of(&dice_t) % 3 != 0;

                raw_ok(rd_kafka_begin_transaction(rk));
                for (uint64_t i = next_of(&dice_t) % 6; i > 0; i--) {
                        (void)snprintf(text, sizeof(text), "%c%" PRIu64, commit ? 't' : 'x', n++);
                        raw_send(rk, full, (int)(next_of(&dice_t) % PARTITIONS), text);
                }
                raw_stored(rk);
                dfk_pause((int)(next_of(&dice_t) % 30)); /* open meanwhile */
                raw_ok(commit ? rd_kafka_commit_transaction(rk, WAIT_MS)
                              : rd_kafka_abort_transaction(rk, WAIT_MS));
        }
        rd_kafka_destroy(rk);
        return NULL;
}

/* ---- the oracle ---- */

/* By the consumer's other interface, which the adapter does not use. */
static struct read_all read_by_another_client(const char *full, uint32_t partition, uint64_t end)
{
        static const char *const settings[][2] = {{"group.id", "oracle"},
                                                  {"isolation.level", "read_committed"},
                                                  {"enable.auto.commit", "false"},
                                                  {"enable.partition.eof", "true"},
                                                  {NULL, NULL}};
        rd_kafka_t *rk = raw_client(RD_KAFKA_CONSUMER, settings);
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        struct read_all all = {0};
        int64_t until = dfk_now_ms() + WAIT_MS;

        (void)rd_kafka_poll_set_consumer(rk);
        rd_kafka_topic_partition_list_add(list, full, (int32_t)partition)->offset = 0;
        assert_int_equal(rd_kafka_assign(rk, list), 0);
        while (all.position < end) {
                rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);

                if (dfk_now_ms() > until)
                        fail_msg("the oracle stays at %" PRIu64, all.position);
                if (!m)
                        continue;
                if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
                        all.position = (uint64_t)m->offset;
                } else if (!m->err) {
                        struct df_record r = {.offset = (uint64_t)m->offset,
                                              .value = df_bytes(m->payload, m->len)};

                        keep_record(&all, &r);
                        all.position = r.offset + 1;
                }
                rd_kafka_message_destroy(m);
        }
        rd_kafka_topic_partition_list_destroy(list);
        rd_kafka_destroy(rk);
        return all;
}

/* ---- seeks ---- */

struct seek {
        uint32_t partition;
        uint64_t from;
        struct read_all all;
};

static void read_some(struct df_log_reader *r, uint64_t end, size_t limit, struct read_all *all)
{
        struct df_record records[16];
        int64_t until = dfk_now_ms() + WAIT_MS;

        while (df_log_position(r) < end && all->count < limit) {
                size_t n, max = 1 + (size_t)dice(16);

                ok(df_log_poll(r, records, max, &n, &err));
                for (size_t i = 0; i < n; i++)
                        keep_record(all, &records[i]);
                if (n == 0)
                        dfk_pause(1);
                if (dfk_now_ms() > until)
                        fail_msg("seed %" PRIu64 ": the reader stays at %" PRIu64
                                 ", the end is %" PRIu64,
                                 dice_seed, df_log_position(r), end);
        }
        all->position = df_log_position(r);
}

/* Anywhere: the beginning, the end, in between; read to the end, or closed in the middle, with
 * records fetched and not taken. */
static void seek_once(struct df_log *log, struct df_log_reader **other, struct seek *s)
{
        struct df_log_reader *r = NULL;
        uint64_t first, end;

        s->partition = (uint32_t)dice(PARTITIONS);
        ok(df_log_bounds(log, "e", s->partition, &first, &end, &err));
        s->from = dice(8) == 0 ? end : dice(8) == 0 ? 0 : dice(end + 1);
        ok(df_log_reader_open(log, "e", s->partition, s->from, NULL, &r, &err));
        ok(df_log_bounds(log, "e", s->partition, &first, &end, &err));
        read_some(r, end, dice(2) ? SIZE_MAX : (size_t)dice(40), &s->all);
        /* Now and then it stays open, so that the next one of the partition has another client. */
        if (dice(4) == 0) {
                df_log_reader_close(*other);
                *other = r;
        } else {
                df_log_reader_close(r);
        }
}

static void check_seek(int number, const struct seek *s, const struct read_all *truth)
{
        size_t at = 0;

        while (at < truth->count && truth->list[at].offset < s->from)
                at++;
        for (size_t i = 0; i < s->all.count; i++, at++) {
                const struct read_one *got = &s->all.list[i];
                const struct read_one *want = at < truth->count ? &truth->list[at] : NULL;

                if (!want || got->offset != want->offset || strcmp(got->value, want->value) != 0)
                        fail_msg("seed %" PRIu64 " seek %d: e/%u from %" PRIu64
                                 ", record %zu: %" PRIu64 " \"%s\", written is %" PRId64 " \"%s\"",
                                 dice_seed, number, s->partition, s->from, i, got->offset,
                                 got->value, want ? (int64_t)want->offset : -1,
                                 want ? want->value : "");
                assert_true(got->value[0] != 'x'); /* aborted */
        }
        if (at < truth->count && truth->list[at].offset < s->all.position)
                fail_msg("seed %" PRIu64 " seek %d: e/%u from %" PRIu64 " to %" PRIu64 ": %" PRIu64
                         " \"%s\" was lost",
                         dice_seed, number, s->partition, s->from, s->all.position,
                         truth->list[at].offset, truth->list[at].value);
}

static void nothing_is_lost_or_doubled_in_200_seeks(void **state)
{
        static struct seek seeks[SEEKS];
        char prefix[64];
        struct producers p = {.prefix = prefix, .seed = dice_state};
        struct df_log *log;
        struct df_log_reader *other = NULL;
        pthread_t threads[2];
        size_t records = 0;

        (void)snprintf(prefix, sizeof(prefix), "%s", fresh_prefix());
        log = p.log = open_log(prefix);
        ok(df_log_topic_create(log, "e", PARTITIONS, &err));
        assert_int_equal(pthread_create(&threads[0], NULL, append_some, &p), 0);
        assert_int_equal(pthread_create(&threads[1], NULL, transact_some, &p), 0);
        for (int i = 0; i < SEEKS; i++) {
                while (!p.failed &&
                       end_of(log, "e", 0) + end_of(log, "e", 1) < RECORDS_A_SEEK * (unsigned)i)
                        dfk_pause(1);
                seek_once(log, &other, &seeks[i]);
        }
        atomic_store(&p.stop, true);
        for (int i = 0; i < 2; i++)
                assert_int_equal(pthread_join(threads[i], NULL), 0);
        if (p.failed)
                fail_msg("append: %s", p.err.text);
        df_log_reader_close(other);
        for (uint32_t partition = 0; partition < PARTITIONS; partition++) {
                struct read_all truth = read_by_another_client(full_name(prefix, "e"), partition,
                                                               end_of(log, "e", partition));

                assert_true(truth.count > 50); /* the producers did produce */
                for (int i = 0; i < SEEKS; i++) {
                        if (seeks[i].partition != partition)
                                continue;
                        check_seek(i, &seeks[i], &truth);
                        records += seeks[i].all.count;
                        release_all(&seeks[i].all);
                }
                release_all(&truth);
        }
        print_message("%d seeks, %zu records read\n", SEEKS, records);
        df_log_close(log);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(nothing_is_lost_or_doubled_in_200_seeks),
        };

        if (!getenv("TEST_KAFKA"))
                return SKIPPED;
        roll_seed();
        return cmocka_run_group_tests(tests, NULL, NULL);
}
