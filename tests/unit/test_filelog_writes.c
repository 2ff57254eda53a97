/* The file log where writes and syncs fail (L1), on a full disk with its reserve (L2), and when its
 * writer is killed. */
#include "filelog_test.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

/* ---- writes and syncs that fail ---- */

static int sync_failures, writes_left, deaths;
static char last_words[600];

static int failing_sync(int fd)
{
        if (sync_failures > 0) {
                sync_failures--;
                errno = EIO;
                return -1;
        }
        return fdatasync(fd);
}

static void die_in_test(const char *line)
{
        deaths++;
        (void)snprintf(last_words, sizeof(last_words), "%s", line);
}

/* L1: a failed sync is not retried: the process would end; were it to go on, it would refuse. */
static void test_L1_a_failed_sync_is_the_end(void **state)
{
        struct df_append item = {.value = df_bytes_str("lost")};
        struct df_log *log = open_log(NULL);
        struct df_log_reader *r;
        struct df_log_writer *w;
        struct df_record record;
        struct model m = {0};
        size_t n;

        deaths = 0;
        ok(df_log_topic_create(log, "t", 1, &err));
        hooks(log)->sync_data = failing_sync;
        hooks(log)->die = die_in_test;
        w = open_writer(log, "t");
        append_text(w, &m, 0, "kept");
        sync_failures = 1;
        fails(df_log_append(w, &item, 1, &err), DF_EIO, "durable");
        assert_int_equal(deaths, 1);
        assert_non_null(strstr(last_words, "exit 74"));
        assert_non_null(strstr(last_words, "00000000000000000000.seg"));
        fails(df_log_append(w, &item, 1, &err), DF_EIO, "start again");
        assert_int_equal(deaths, 1);
        r = open_reader(log, "t", 0, 1, NULL); /* nobody sees it */
        ok(df_log_poll(r, &record, 1, &n, &err));
        assert_int_equal(n, 0);
        df_log_reader_close(r);
        df_log_writer_close(w);
        sync_failures = 1; /* likewise at a start */
        fails(df_log_writer_open(log, "t", &w, &err), DF_EIO, "durable");
        assert_int_equal(deaths, 2);
        sync_failures = 0;
        df_log_close(log);
        model_release(&m);
}

/* The real end of the process: exit code 74. */
static void test_L1_a_failed_sync_ends_the_process(void **state)
{
        struct df_log *log = open_log(NULL);
        int status;
        pid_t pid;

        ok(df_log_topic_create(log, "t", 1, &err));
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
                struct df_append item = {.value = df_bytes_str("lost")};
                struct df_log_writer *w = NULL;
                int null = open("/dev/null", O_WRONLY);

                (void)dup2(null, 2);
                hooks(log)->sync_data = failing_sync;
                if (df_log_writer_open(log, "t", &w, NULL) != 0)
                        _exit(1);
                sync_failures = 1;
                (void)df_log_append(w, &item, 1, NULL);
                _exit(2); /* it came back */
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), DFI_EXIT_SYNC_FAILED);
        df_log_close(log);
}

/* A byte at a time, with interruptions; after writes_left bytes it fails with write_errno. */
static int write_errno;

static ssize_t slow_write(int fd, const void *data, size_t len, off_t pos)
{
        static unsigned calls;

        if (++calls % 7 == 0) {
                errno = EINTR;
                return -1;
        }
        if (writes_left == 0) {
                errno = write_errno;
                return -1;
        }
        writes_left--;
        return pwrite(fd, data, 1, pos);
}

/* ENOSPC in the middle of a commit, at every byte of it and in any partition: nothing is stored,
 * and the same call works later. */
static void test_L2_full_disk_at_every_byte(void **state)
{
        struct df_append items[2] = {{.partition = 1, .value = df_bytes_str("to one")},
                                     {.partition = 0, .value = df_bytes_str("to zero")}};
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        struct model m = {0};
        int total = 2 * (DFI_FRAME_HEADER + 1) + 6 + 7;

        write_errno = ENOSPC;
        ok(df_log_topic_create(log, "t", 2, &err));
        w = open_writer(log, "t");
        hooks(log)->write_at = slow_write;
        for (int bytes = 0; bytes < total; bytes++) {
                writes_left = bytes;
                fails(df_log_append(w, items, 2, &err), DF_ENOSPC, "nothing was stored");
                check_model(log, "t", &m, 2);
                if (bytes % 20 == 0) { /* a start finds no trace */
                        struct df_filelog_recovery found;

                        df_log_writer_close(w);
                        w = open_writer(log, "t");
                        df_filelog_recovery(w, &found);
                        assert_int_equal(found.cut_bytes, 0);
                }
                if (bytes % 10)
                        continue;
                writes_left = total;
                ok(df_log_append(w, items, 2, &err));
                assert_int_equal(writes_left, 0);
                for (int i = 0; i < 2; i++)
                        model_add(&m, items[i].partition, items[i].value, items[i].ret_append_ms);
        }
        check_model(log, "t", &m, 2);
        df_log_writer_close(w);
        df_log_close(log);
        model_release(&m);
}

/* Any other failure to write: nothing is stored, and this writer is done; the next one goes on. */
static void test_L1_a_failed_write_breaks_the_writer(void **state)
{
        struct df_append item = {.value = df_bytes_str("lost")};
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        struct model m = {0};

        write_errno = EIO;
        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        append_text(w, &m, 0, "kept");
        hooks(log)->write_at = slow_write;
        writes_left = 30;
        fails(df_log_append(w, &item, 1, &err), DF_EIO, "nothing was stored");
        writes_left = 1000;
        fails(df_log_append(w, &item, 1, &err), DF_EIO, "start again");
        check_model(log, "t", &m, 1);
        df_log_writer_close(w);
        w = open_writer(log, "t");
        append_text(w, &m, 0, "more");
        check_model(log, "t", &m, 1);
        df_log_writer_close(w);
        df_log_close(log);
        model_release(&m);
}

/* ---- space (L2) ---- */

static uint64_t fake_free;

static int fake_free_bytes(const char *dir, uint64_t *ret)
{
        *ret = fake_free;
        return 0;
}

static size_t reserve_bytes(void)
{
        char path[DFI_PATH_MAX];
        struct stat st;

        dfi_path(path, "%s/RESERVE", test_dir);
        return stat(path, &st) == 0 ? (size_t)st.st_size : 0;
}

/* Below min_free_bytes an append is refused, clearly, and works again when there is room; the
 * reserve is freed for those who must go on, and comes back. */
static void test_L2_min_free_bytes_and_the_reserve(void **state)
{
        struct df_append item = {.value = df_bytes_str("x")};
        struct df_filelog_options o = small_options();
        struct df_log_writer *w;
        struct df_log *log;
        struct model m = {0};
        uint64_t freed = 99;

        o.min_free_bytes = 1000;
        log = open_log(&o);
        hooks(log)->free_bytes = fake_free_bytes;
        fake_free = 1u << 30;
        ok(df_log_topic_create(log, "t", 1, &err));
        assert_int_equal(reserve_bytes(), 0);
        w = open_writer(log, "t");
        assert_int_equal(reserve_bytes(), 4096);
        append_text(w, &m, 0, "a");
        df_log_writer_close(w);
        fake_free = 1064; /* a byte short of the minimum, a frame's overhead and the byte */
        w = open_writer(log, "t");
        fails(df_log_append(w, &item, 1, &err), DF_ENOSPC,
              "has 1064 bytes free and must keep 1000; nothing was stored");
        fails(df_log_append(w, &item, 1, &err), DF_ENOSPC, "Free space, then retry");
        check_model(log, "t", &m, 1);
        ok(df_filelog_reserve_free(log, &freed, &err));
        assert_int_equal(freed, 4096);
        assert_int_equal(reserve_bytes(), 0);
        ok(df_filelog_reserve_free(log, &freed, &err));
        assert_int_equal(freed, 0);
        fails(df_filelog_reserve_restore(log, &err), DF_ENOSPC, "too few for a reserve file");
        fake_free = 1065; /* seen at once: a refusal rests on a fresh number */
        append_text(w, &m, 0, "b");
        df_log_writer_close(w);
        fake_free = 5095; /* still too few for both: a start does not fail for that */
        w = open_writer(log, "t");
        assert_int_equal(reserve_bytes(), 0);
        df_log_writer_close(w);
        fake_free = 5096;
        w = open_writer(log, "t");
        assert_int_equal(reserve_bytes(), 4096);
        df_log_writer_close(w);
        ok(df_filelog_reserve_restore(log, &err)); /* there already */
        check_model(log, "t", &m, 1);
        df_log_close(log);
        model_release(&m);
}

/* On a real file system of 2 MiB: 0 = all held, 77 = may not mount here, else the line. */
#define CHILD(cond)                                                                                \
        do {                                                                                       \
                if (!(cond))                                                                       \
                        _exit(__LINE__ % 70 + 1);                                                  \
        } while (0)
static void fill_a_small_disk(void)
{
        struct df_filelog_options o = {
                .segment_bytes = 256 << 10, .reserve_bytes = 512 << 10, .min_free_bytes = 64 << 10};
        static uint8_t noise[20001];
        struct df_append item = {.value = df_bytes(noise, sizeof(noise))};
        struct df_log_writer *w = NULL;
        struct df_log *log = NULL;
        uint64_t freed = 0, records = 0, count = 0, first, end;
        int rc;

        if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
            mount("tmpfs", test_dir, "tmpfs", 0, "size=2m") != 0)
                _exit(77);
        fill_bytes(noise, sizeof(noise));
        CHILD(df_filelog_open(test_dir, &o, &log, NULL) == 0);
        CHILD(df_log_topic_create(log, "t", 1, NULL) == 0);
        CHILD(df_log_writer_open(log, "t", &w, NULL) == 0);
        CHILD(reserve_bytes() == 512 << 10);
        while ((rc = df_log_append(w, &item, 1, NULL)) == 0)
                CHILD(item.ret_offset == count++);
        CHILD(rc == DF_ENOSPC && count > 20 && count < 100);
        CHILD(df_filelog_verify(log, "t", 0, NULL, NULL, &records, NULL) == 0 && records == count);
        CHILD(df_filelog_reserve_free(log, &freed, NULL) == 0 && freed == 512 << 10);
        CHILD(df_filelog_retain(log, "t", INT64_MAX, &freed, NULL) == 0 && freed > 0);
        CHILD(df_log_append(w, &item, 1, NULL) == 0 && item.ret_offset == count);
        CHILD(df_filelog_reserve_restore(log, NULL) == 0 && reserve_bytes() == 512 << 10);
        df_log_writer_close(w);
        CHILD(df_log_writer_open(log, "t", &w, NULL) == 0);
        CHILD(df_log_bounds(log, "t", 0, &first, &end, NULL) == 0 && end == count + 1 && first > 0);
        df_log_writer_close(w);
        df_log_close(log);
        _exit(0);
}

static void test_L2_a_small_disk_fills_and_recovers(void **state)
{
        int status;
        pid_t pid;

        seed_test(28);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
                fill_a_small_disk();
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77)
                skip();
        assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- a killed writer ---- */

struct note { /* what a child's append was told */
        uint32_t partition;
        uint64_t offset;
        uint64_t seed;
        uint64_t len;
};

static void value_of(uint64_t seed, size_t len, uint8_t *out)
{
        for (size_t i = 0; i < len; i++) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                out[i] = (uint8_t)(seed >> 56);
        }
}

/* Appends for ever; each acknowledged record is noted in the pipe, after the fact. */
static void append_until_killed(uint64_t seed, int pipe_fd)
{
        struct df_log_writer *w = NULL;
        struct df_log *log = NULL;
        struct df_filelog_options o = small_options();
        static uint8_t values[3][2000];

        test_seed = seed * 0x9e3779b97f4a7c15ull + 1;
        if (df_filelog_open(test_dir, &o, &log, NULL) != 0 ||
            df_log_writer_open(log, "t", &w, NULL) != 0)
                _exit(1);
        for (;;) {
                struct df_append items[3];
                struct note notes[3];

                for (int i = 0; i < 3; i++) {
                        notes[i] = (struct note){.partition = (uint32_t)(rnd() % 2),
                                                 .seed = rnd(),
                                                 .len = rnd() % 2000};
                        value_of(notes[i].seed, notes[i].len, values[i]);
                        items[i] = (struct df_append){.partition = notes[i].partition,
                                                      .value = df_bytes(values[i], notes[i].len)};
                }
                if (df_log_append(w, items, 3, NULL) != 0)
                        _exit(2);
                for (int i = 0; i < 3; i++)
                        notes[i].offset = items[i].ret_offset;
                if (write(pipe_fd, notes, sizeof(notes)) != sizeof(notes))
                        _exit(3);
        }
}

/* Kill it after a while; every note must be in the log. Returns how many there were. */
static size_t kill_and_check(struct df_log *log, uint64_t seed)
{
        struct df_record record;
        size_t count = 0, n;
        struct note note;
        int fds[2], status;
        pid_t pid;

        assert_int_equal(pipe(fds), 0);
        pid = fork();
        assert_true(pid >= 0);
        if (pid == 0)
                append_until_killed(seed, fds[1]);
        (void)close(fds[1]);
        (void)usleep((useconds_t)(20000 + seed * 7919 % 40000));
        assert_int_equal(kill(pid, SIGKILL), 0);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status));
        df_log_writer_close(open_writer(log, "t"));
        while (read(fds[0], &note, sizeof(note)) == sizeof(note)) {
                struct df_log_reader *r = open_reader(log, "t", note.partition, note.offset, NULL);
                uint8_t value[2000];

                ok(df_log_poll(r, &record, 1, &n, &err));
                value_of(note.seed, note.len, value);
                if (n != 1 || record.offset != note.offset || record.value.len != note.len ||
                    memcmp(record.value.data, value, note.len) != 0)
                        fail_msg("seed %" PRIu64 ": acknowledged offset %" PRIu64 " is another",
                                 seed, note.offset);
                df_log_reader_close(r);
                count++;
        }
        (void)close(fds[0]);
        return count;
}

static void test_L1_what_was_acknowledged_survives_a_kill(void **state)
{
        struct df_log *log = open_log(NULL);
        size_t count = 0;
        uint64_t n;

        ok(df_log_topic_create(log, "t", 2, &err));
        for (uint64_t seed = 1; seed <= 8; seed++)
                count += kill_and_check(log, seed);
        assert_true(count > 8);
        for (uint32_t p = 0; p < 2; p++)
                ok(df_filelog_verify(log, "t", p, NULL, NULL, &n, &err));
        df_log_close(log);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup_dir, teardown_dir)
        const struct CMUnitTest tests[] = {
                T(test_L1_a_failed_sync_is_the_end),
                T(test_L1_a_failed_sync_ends_the_process),
                T(test_L2_full_disk_at_every_byte),
                T(test_L1_a_failed_write_breaks_the_writer),
                T(test_L2_min_free_bytes_and_the_reserve),
                T(test_L2_a_small_disk_fills_and_recovers),
                T(test_L1_what_was_acknowledged_survives_a_kill),
        };

        return cmocka_run_group_tests_name("filelog_writes", tests, NULL, NULL);
}
