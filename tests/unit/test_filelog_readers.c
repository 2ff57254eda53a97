/* The file log as its readers see it: in other processes and from any offset (L1: what a reader
 * sees is durable), against retention and leases (L2), and over starts of the writer. */
#include "filelog_test.h"

#include <signal.h>
#include <time.h>

#define VALUE_MAX 700

/* The value of (partition, offset), in every process. */
static size_t value_of(uint32_t p, uint64_t offset, uint8_t *out)
{
        uint64_t x = offset * 0x9e3779b97f4a7c15ull + p * 1315423911u + 1;
        size_t len = (size_t)(x >> 33) % VALUE_MAX;

        for (size_t i = 0; i < len; i++) {
                x ^= x << 13;
                x ^= x >> 7;
                x ^= x << 17;
                out[i] = offset % 3 ? (uint8_t)x : (uint8_t)('a' + i % 5);
        }
        return len;
}

static bool right(uint32_t p, const struct df_record *r)
{
        uint8_t want[VALUE_MAX];
        size_t len = value_of(p, r->offset, want);

        return r->value.len == len && (len == 0 || memcmp(r->value.data, want, len) == 0);
}

/* The next n values of partition p, in one call. */
static void append_values(struct df_log_writer *w, uint32_t p, uint64_t *next, size_t n)
{
        struct df_append items[32];
        uint8_t values[32][VALUE_MAX];

        assert_in_range(n, 1, 32);
        for (size_t i = 0; i < n; i++)
                items[i] = (struct df_append){
                        .partition = p,
                        .value = df_bytes(values[i], value_of(p, *next + i, values[i]))};
        ok(df_log_append(w, items, n, &err));
        assert_int_equal(items[0].ret_offset, *next);
        *next += n;
}

static void nap_ms(long ms)
{
        struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

        (void)nanosleep(&t, NULL);
}

/* The line that failed, as an exit code. */
#define CHILD(cond)                                                                                \
        do {                                                                                       \
                if (!(cond)) {                                                                     \
                        (void)fprintf(stderr, "child: line %d: %s\n", __LINE__, #cond);            \
                        _exit(1);                                                                  \
                }                                                                                  \
        } while (0)

static void wait_for(pid_t pid)
{
        int status;

        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- in another process ---- */

/* Reads partition p from 0 until it has seen `until` records, and lets them go now and then. */
static void follow(uint32_t p, uint64_t until, const char *consumer)
{
        struct df_filelog_options o = small_options();
        struct df_log_reader *r = NULL;
        struct df_record records[61];
        struct df_log *log = NULL;
        uint64_t at = 0, first, end;
        int idle = 0;

        CHILD(df_filelog_open(test_dir, &o, &log, NULL) == 0);
        CHILD(df_log_reader_open(log, "t", p, 0, consumer, &r, NULL) == 0);
        while (at < until) {
                size_t n = 0;

                CHILD(df_log_poll(r, records, 1 + (size_t)(at % 61), &n, NULL) == 0);
                CHILD(df_log_bounds(log, "t", p, &first, &end, NULL) == 0);
                for (size_t i = 0; i < n; i++, at++)
                        CHILD(records[i].offset == at && right(p, &records[i]));
                CHILD(at <= end); /* never beyond the durable end */
                if (n > 0 && consumer)
                        CHILD(df_log_release(r, at, NULL) == 0);
                if (n > 0)
                        idle = 0;
                else if (++idle > 5000)
                        _exit(3);
                else
                        nap_ms(1);
        }
        CHILD(df_log_poll(r, records, 61, &(size_t){0}, NULL) == 0);
        df_log_reader_close(r);
        df_log_close(log);
        _exit(0);
}

static pid_t start_follower(uint32_t p, uint64_t until, const char *consumer)
{
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0)
                follow(p, until, consumer);
        return pid;
}

/* L1: readers in other processes follow the durable end over rolls of segments, in every partition,
 * while the writer appends, ends and starts again. */
static void test_L1_readers_in_other_processes_follow(void **state)
{
        enum { RECORDS = 1500 };
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        uint64_t next[2] = {0};
        pid_t pids[4];

        seed_test(31);
        ok(df_log_topic_create(log, "t", 2, &err));
        for (uint32_t i = 0; i < 4; i++)
                pids[i] = start_follower(i % 2, RECORDS, NULL);
        w = open_writer(log, "t");
        while (next[0] < RECORDS || next[1] < RECORDS) {
                uint32_t p = (uint32_t)(rnd() % 2);

                append_values(w, p, &next[p], 1 + (size_t)(rnd() % 32));
                if (rnd() % 20 == 0)
                        nap_ms(2);
                if (rnd() % 40 == 0) {
                        df_log_writer_close(w);
                        w = open_writer(log, "t");
                }
        }
        for (int i = 0; i < 4; i++)
                wait_for(pids[i]);
        df_log_writer_close(w);
        df_log_close(log);
}

/* L2: retention runs all the time and never passes a registered consumer in another process, slow
 * as it may be; what it has let go is deleted. */
static void test_L2_retention_beside_a_slow_consumer(void **state)
{
        enum { RECORDS = 2500 };
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        struct df_log_reader *r;
        uint64_t next = 0, deleted, sum = 0, first = 0, end;
        int status;
        pid_t pid;

        seed_test(32);
        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        append_values(w, 0, &next, 1);
        r = open_reader(log, "t", 0, 0, "slow"); /* its place, before the process is there */
        df_log_reader_close(r);
        pid = start_follower(0, RECORDS, "slow");
        while (next < RECORDS) {
                append_values(w, 0, &next, 1 + (size_t)(rnd() % 32));
                ok(df_filelog_retain(log, "t", INT64_MAX, &deleted, &err));
                sum += deleted;
        }
        while (waitpid(pid, &status, WNOHANG) == 0) {
                ok(df_filelog_retain(log, "t", INT64_MAX, &deleted, &err));
                sum += deleted;
        }
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
        ok(df_filelog_retain(log, "t", INT64_MAX, &deleted, &err));
        ok(df_log_bounds(log, "t", 0, &first, &end, &err));
        assert_true(sum + deleted > 100000);
        assert_true(first > RECORDS - 200);
        df_log_writer_close(w);
        df_log_close(log);
}

/* ---- durable, then visible ---- */

static struct df_log *watcher_log;
static struct df_log_reader *watcher;
static size_t seen_early, syncs;

/* While a commit is being synced its bytes are in the file, but no reader sees them. */
static int watching_sync(int fd)
{
        struct df_record records[10];
        size_t n = 0;

        syncs++;
        if (watcher && df_log_poll(watcher, records, 10, &n, NULL) != 0)
                return -1;
        seen_early += n;
        return fdatasync(fd);
}

static void test_L1_nothing_is_seen_before_it_is_durable(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_record records[10];
        struct df_log_writer *w;
        uint64_t next = 0, at = 0;
        size_t n;

        ok(df_log_topic_create(log, "t", 1, &err));
        hooks(log)->sync_data = watching_sync;
        w = open_writer(log, "t");
        watcher_log = open_log(NULL);
        watcher = open_reader(watcher_log, "t", 0, 0, NULL);
        seen_early = syncs = 0;
        for (int i = 0; i < 60; i++) {
                append_values(w, 0, &next, 1 + (size_t)i % 9);
                ok(df_log_poll(watcher, records, 10, &n, &err));
                assert_int_equal(n, 1 + i % 9); /* and then at once */
                for (size_t k = 0; k < n; k++)
                        assert_int_equal(records[k].offset, at++);
        }
        assert_int_equal(seen_early, 0);
        assert_int_equal(syncs, 60);
        df_log_reader_close(watcher);
        watcher = NULL;
        df_log_close(watcher_log);
        df_log_writer_close(w);
        df_log_close(log);
}

/* ---- from any offset ---- */

static void test_a_reader_starts_at_any_offset(void **state)
{
        enum { RECORDS = 150 };
        struct df_log *log = open_log(NULL);
        struct df_record records[7];
        struct df_log_reader *r;
        struct df_log_writer *w;
        uint64_t next = 0;
        size_t n;

        seed_test(33);
        ok(df_log_topic_create(log, "t", 2, &err));
        r = open_reader(log, "t", 1, 0, NULL); /* of a topic nobody has written to */
        ok(df_log_poll(r, records, 7, &n, &err));
        assert_int_equal(n, 0);
        df_log_reader_close(r);
        w = open_writer(log, "t");
        while (next < RECORDS)
                append_values(w, 0, &next, 1 + (size_t)(rnd() % 9));
        for (uint64_t from = 0; from <= next; from++) {
                uint64_t at = from;

                r = open_reader(log, "t", 0, from == next ? DF_OFFSET_END : from, NULL);
                do {
                        ok(df_log_poll(r, records, 1 + (size_t)(from % 7), &n, &err));
                        for (size_t i = 0; i < n; i++, at++) {
                                assert_int_equal(records[i].offset, at);
                                assert_true(right(0, &records[i]));
                        }
                } while (n > 0);
                assert_int_equal(at, next);
                ok(df_log_poll(r, records, 0, &n, &err));
                assert_int_equal(n, 0);
                df_log_reader_close(r);
        }
        fails(df_log_reader_open(log, "t", 0, next + 1, NULL, &r, &err), DF_EOFFSET,
              "beyond the durable end");
        df_log_writer_close(w);
        df_log_close(log);
}

/* ---- leases ---- */

static int64_t fake_ms;

static int64_t fake_clock(void *arg)
{
        return fake_ms;
}

/* L2: a consumer that neither reads nor releases lapses; its reader is then told what is gone, and
 * may register anew from what is held. Renewing keeps it. */
static void test_L2_a_lapsed_lease_lets_go(void **state)
{
        struct df_filelog_options o = small_options();
        struct df_log_reader *idle, *busy, *r;
        struct df_record records[10];
        struct df_log_writer *w;
        struct df_log *log;
        uint64_t next = 0, deleted, first, end;
        size_t n;

        o.clock_ms = fake_clock;
        o.lease_ms = 7LL * 86400000;
        fake_ms = 1000000;
        log = open_log(&o);
        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        idle = open_reader(log, "t", 0, 0, "idle");
        busy = open_reader(log, "t", 0, 0, "busy");
        for (int i = 0; i < 40; i++)
                append_values(w, 0, &next, 10);
        ok(df_log_poll(idle, records, 10, &n, &err));
        fake_ms += o.lease_ms;             /* the last moment of the lease */
        ok(df_log_release(busy, 0, &err)); /* renews, though it stands still */
        ok(df_filelog_retain(log, "t", INT64_MAX, &deleted, &err));
        assert_int_equal(deleted, 0);
        fake_ms++;
        ok(df_log_release(busy, 200, &err));
        ok(df_filelog_retain(log, "t", INT64_MAX, &deleted, &err));
        assert_true(deleted > 0);
        ok(df_log_bounds(log, "t", 0, &first, &end, &err));
        assert_in_range(first, 100, 200); /* busy still holds */
        n = 1;
        while (n > 0 && records[n - 1].offset < first) /* what it has open may still be read */
                if (df_log_poll(idle, records, 10, &n, NULL) != 0)
                        break;
        fails(df_log_poll(idle, records, 10, &n, &err), DF_EOFFSET, "was deleted");
        fails(df_log_reader_open(log, "t", 0, 0, "idle", &r, &err), DF_EOFFSET,
              "the first one still held is");
        r = open_reader(log, "t", 0, first, "idle");
        ok(df_log_poll(r, records, 10, &n, &err));
        assert_int_equal(records[0].offset, first);
        df_log_reader_close(r);
        df_log_reader_close(idle);
        df_log_reader_close(busy);
        df_log_writer_close(w);
        df_log_close(log);
}

/* A reader that is not registered may be overtaken, and says so; it never skips. */
static void test_L2_an_unregistered_reader_is_overtaken(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_record records[10];
        struct df_log_reader *r;
        struct df_log_writer *w;
        uint64_t next = 0, deleted, at = 0;
        size_t n = 1;
        int rc = 0;

        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        for (int i = 0; i < 40; i++)
                append_values(w, 0, &next, 10);
        r = open_reader(log, "t", 0, 0, NULL);
        ok(df_filelog_retain(log, "t", INT64_MAX, &deleted, &err));
        assert_true(deleted > 50000);
        while (rc == 0 && n > 0) {
                rc = df_log_poll(r, records, 10, &n, NULL);
                for (size_t i = 0; rc == 0 && i < n; i++)
                        assert_int_equal(records[i].offset, at++);
        }
        assert_int_equal(rc, DF_EOFFSET);
        fails(df_log_poll(r, records, 10, &n, &err), DF_EOFFSET, "was deleted");
        df_log_reader_close(r);
        df_log_writer_close(w);
        df_log_close(log);
}

/* ---- END and the generation ---- */

/* END is missing: readers wait for a writer's start, which makes it anew; a reader that was open
 * moves over to the new one. */
static void test_L1_END_made_anew_is_found(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_log_reader *old, *r;
        struct df_record records[10];
        struct df_log_writer *w;
        char path[DFI_PATH_MAX];
        uint64_t next = 0, first, end;
        size_t n;

        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        append_values(w, 0, &next, 5);
        df_log_writer_close(w);
        old = open_reader(log, "t", 0, 0, NULL);
        ok(df_log_poll(old, records, 10, &n, &err));
        assert_int_equal(n, 5);
        part_path(path, "t", 0, "END");
        assert_int_equal(unlink(path), 0);
        fails(df_log_reader_open(log, "t", 0, 0, NULL, &r, &err), DF_EAGAIN,
              "rebuilt when the writer of the topic starts");
        fails(df_log_bounds(log, "t", 0, &first, &end, &err), DF_EAGAIN, "END");
        for (int i = 0; i < 200; i++) {
                ok(df_log_poll(old, records, 10, &n, &err));
                assert_int_equal(n, 0);
        }
        w = open_writer(log, "t");
        append_values(w, 0, &next, 3);
        for (int i = 0, got = 0; got < 3; i++) {
                assert_in_range(i, 0, 200);
                ok(df_log_poll(old, records, 10, &n, &err));
                for (size_t k = 0; k < n; k++)
                        assert_int_equal(records[k].offset, 5 + got++);
        }
        r = open_reader(log, "t", 0, 0, NULL);
        ok(df_log_poll(r, records, 10, &n, &err));
        assert_int_equal(n, 8);
        df_log_reader_close(r);
        df_log_reader_close(old);
        df_log_writer_close(w);
        df_log_close(log);
}

/* E1, K14: the topic was made anew under a reader: it is told, and never reads the other one. */
static void test_E1_a_topic_made_anew_is_refused(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_record records[10];
        struct df_log_reader *r;
        struct df_log_writer *w;
        char path[DFI_PATH_MAX];
        uint64_t next = 0;
        int rc = 0, polls = 0;
        size_t n;

        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        append_values(w, 0, &next, 5);
        df_log_writer_close(w);
        r = open_reader(log, "t", 0, 5, NULL);
        dfi_path(path, "%s/topics/t", test_dir);
        remove_dir(path);
        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        next = 0;
        append_values(w, 0, &next, 9);
        while (rc == 0 && polls++ < 200) {
                rc = df_log_poll(r, records, 10, &n, NULL);
                assert_true(rc != 0 || n == 0);
        }
        assert_int_equal(rc, DF_ESCHEMA);
        df_log_reader_close(r);
        df_log_writer_close(w);
        df_log_close(log);
}

/* L1: a torn tail, and bytes behind the durable end, are not there for readers, whatever the file's
 * size is. */
static void test_L1_bytes_behind_the_end_are_not_read(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_record records[10];
        struct df_log_reader *r;
        struct df_log_writer *w;
        char path[DFI_PATH_MAX];
        uint64_t next = 0;
        uint8_t *bytes;
        size_t len, n;

        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        append_values(w, 0, &next, 5);
        df_log_writer_close(w);
        r = open_reader(log, "t", 0, 0, NULL);
        part_path(path, "t", 0, "00000000000000000000.seg");
        bytes = read_file(path, &len);
        bytes = realloc(bytes, len * 2);
        assert_non_null(bytes);
        memcpy(bytes + len, bytes, len); /* a whole frame, even */
        for (size_t extra = 0; extra <= len; extra += 7) {
                write_file(path, bytes, len + extra);
                for (int i = 0; i < 2; i++) {
                        ok(df_log_poll(r, records, 10, &n, &err));
                        assert_int_equal(n, extra == 0 && i == 0 ? 5 : 0);
                }
        }
        w = open_writer(log, "t"); /* cuts them */
        append_values(w, 0, &next, 2);
        ok(df_log_poll(r, records, 10, &n, &err));
        assert_int_equal(n, 2);
        assert_int_equal(records[0].offset, 5);
        assert_true(right(0, &records[0]));
        free(bytes);
        df_log_reader_close(r);
        df_log_writer_close(w);
        df_log_close(log);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_dir, teardown_dir)
        const struct CMUnitTest tests[] = {
                T(test_L1_readers_in_other_processes_follow),
                T(test_L2_retention_beside_a_slow_consumer),
                T(test_L1_nothing_is_seen_before_it_is_durable),
                T(test_a_reader_starts_at_any_offset),
                T(test_L2_a_lapsed_lease_lets_go),
                T(test_L2_an_unregistered_reader_is_overtaken),
                T(test_L1_END_made_anew_is_found),
                T(test_E1_a_topic_made_anew_is_refused),
                T(test_L1_bytes_behind_the_end_are_not_read),
        };

        return cmocka_run_group_tests_name("filelog_readers", tests, NULL, NULL);
}
