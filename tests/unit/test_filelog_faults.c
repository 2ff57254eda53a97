/* The file log where things go wrong: torn tails, damage, failed writes and syncs (L1), a full disk
 * and the reserve (L2), a killed writer. */
#include "filelog_test.h"

#include <sched.h>
#include <signal.h>
#include <sys/mount.h>

/* ---- files put back as they were ---- */

struct image {
        uint8_t *data;
        size_t len;
};

static struct image take(const char *path)
{
        struct image i;

        i.data = read_file(path, &i.len);
        return i;
}

static char segment_path[DFI_PATH_MAX], end_path[DFI_PATH_MAX];

static void name_files(uint64_t base)
{
        char name[32];

        (void)snprintf(name, sizeof(name), "%020" PRIu64 ".seg", base);
        part_path(segment_path, "t", 0, name);
        part_path(end_path, "t", 0, "END");
}

static struct df_filelog_options one_segment(void)
{
        struct df_filelog_options o = small_options();

        o.segment_bytes = 64u << 20;
        return o;
}

/* A start on these bytes: cuts, holds the first `count` records of m, and appends after them. */
static void check_start(struct df_log *log, struct model *m, size_t count, uint64_t cut_bytes)
{
        struct df_filelog_recovery found;
        struct df_log_writer *w = open_writer(log, "t");
        size_t all = m->count[0];

        df_filelog_recovery(w, &found);
        assert_int_equal(found.cut_bytes, cut_bytes);
        assert_int_equal(found.cut_partitions, cut_bytes > 0);
        m->count[0] = count;
        check_partition(log, "t", m, 0, 0);
        if (count == all) { /* a place for one more, without losing what the model knows */
                struct df_append item = {.value = df_bytes_str("after")};

                ok(df_log_append(w, &item, 1, &err));
                assert_int_equal(item.ret_offset, count);
        } else {
                struct df_append item = {
                        .value = df_bytes(m->items[0][count].data, m->items[0][count].len)};
                int64_t was = m->items[0][count].append_ms;

                ok(df_log_append(w, &item, 1, &err));
                assert_int_equal(item.ret_offset, count);
                m->items[0][count].append_ms = item.ret_append_ms;
                m->count[0] = count + 1;
                check_partition(log, "t", m, 0, 0);
                m->items[0][count].append_ms = was;
        }
        m->count[0] = all;
        df_log_writer_close(w);
}

struct torn {
        struct df_log *log;
        struct model m;
        struct image seg, old_end, new_end;
        size_t before; /* bytes and records without the last commit */
        size_t before_count;
};

/* Some commits, and one last one of three records. */
static void make_torn(struct torn *t)
{
        struct df_filelog_options o = one_segment();
        struct df_log_writer *w;

        *t = (struct torn){.log = open_log(&o)};
        ok(df_log_topic_create(t->log, "t", 1, &err));
        w = open_writer(t->log, "t");
        append_random(w, &t->m, 1, 4, 300);
        append_random(w, &t->m, 1, 3, 100);
        df_log_writer_close(w);
        name_files(0);
        t->seg = take(segment_path);
        t->before = t->seg.len;
        t->before_count = t->m.count[0];
        free(t->seg.data);
        t->old_end = take(end_path);
        w = open_writer(t->log, "t");
        append_random(w, &t->m, 1, 3, 120);
        df_log_writer_close(w);
        t->seg = take(segment_path);
        t->new_end = take(end_path);
        assert_true(t->seg.len > t->before);
}

static void free_torn(struct torn *t)
{
        free(t->seg.data);
        free(t->old_end.data);
        free(t->new_end.data);
        df_log_close(t->log);
        model_release(&t->m);
}

/* L1: a power loss leaves any part of the last commit, and an END from before it: the tail is cut,
 * at every byte; the whole commit stays. */
static void test_L1_torn_tail_at_every_byte(void **state)
{
        struct torn t;

        seed_test(21);
        make_torn(&t);
        for (size_t len = t.before; len <= t.seg.len; len++) {
                write_file(segment_path, t.seg.data, len);
                write_file(end_path, t.old_end.data, t.old_end.len);
                if (len == t.seg.len)
                        check_start(t.log, &t.m, t.m.count[0], 0);
                else
                        check_start(t.log, &t.m, t.before_count, len - t.before);
        }
        free_torn(&t);
}

/* The same when END did not survive, or is noise; and when the tail reads as zeros or noise. */
static void test_L1_torn_tail_without_END(void **state)
{
        struct torn t;

        seed_test(22);
        make_torn(&t);
        for (size_t len = t.before; len < t.seg.len; len += 3) {
                uint8_t *bytes = malloc(t.seg.len);

                assert_non_null(bytes);
                memcpy(bytes, t.seg.data, t.seg.len);
                for (size_t i = len; i < t.seg.len; i++)
                        bytes[i] = len % 2 ? 0 : (uint8_t)(bytes[i] ^ (1 + rnd() % 255));
                write_file(segment_path, bytes, t.seg.len);
                if (len % 3 == 0) {
                        assert_int_equal(unlink(end_path), 0);
                } else {
                        uint8_t noise[4096];

                        for (size_t i = 0; i < sizeof(noise); i++)
                                noise[i] = (uint8_t)rnd();
                        write_file(end_path, noise, len % 3 == 1 ? 4096 : 100);
                }
                /* Zeros that were zeros before change nothing: then the commit is whole. */
                if (memcmp(bytes, t.seg.data, t.seg.len) == 0)
                        check_start(t.log, &t.m, t.m.count[0], 0);
                else
                        check_start(t.log, &t.m, t.before_count, t.seg.len - t.before);
                free(bytes);
        }
        free_torn(&t);
}

/* What END says is durable is never cut: bytes missing there are an error with an offset. */
static void test_L1_missing_durable_bytes_are_refused(void **state)
{
        struct df_log_writer *w;
        char lost[64];
        struct torn t;

        seed_test(23);
        make_torn(&t);
        (void)snprintf(lost, sizeof(lost), "first lost offset %zu;", t.before_count);
        for (size_t len = t.before; len < t.seg.len; len++) {
                write_file(segment_path, t.seg.data, len);
                write_file(end_path, t.new_end.data, t.new_end.len);
                fails(df_log_writer_open(t.log, "t", &w, &err), DF_ECORRUPT, lost);
        }
        write_file(segment_path, t.seg.data, t.seg.len);
        write_file(end_path, t.new_end.data, t.new_end.len);
        check_start(t.log, &t.m, t.m.count[0], 0);
        free_torn(&t);
}

/* ---- damage ---- */

struct frames {
        uint64_t pos[16];
        uint64_t offset[16];
        size_t count;
};

static void find_frames(const struct image *seg, uint64_t generation, struct frames *ret)
{
        struct dfi_frame f;

        *ret = (struct frames){0};
        for (size_t at = 0; at < seg->len; at += DFI_FRAME_HEADER + f.stored_len) {
                assert_true(dfi_frame_get(seg->data + at, generation, &f));
                ret->pos[ret->count] = at;
                ret->offset[ret->count++] = f.base;
        }
        ret->pos[ret->count] = seg->len;
}

/* Reads everything before the damage, then the error, again and again. */
static void check_reader_stops(struct df_log *log, const struct model *m, uint64_t lost,
                               const char *part)
{
        struct df_log_reader *r = open_reader(log, "t", 0, 0, NULL);
        struct df_record records[50];
        uint64_t at = 0;
        size_t n;

        while (at < lost) {
                ok(df_log_poll(r, records, 50, &n, &err));
                assert_true(n > 0);
                for (size_t i = 0; i < n; i++, at++) {
                        assert_int_equal(records[i].offset, at);
                        assert_memory_equal(records[i].value.data, m->items[0][at].data,
                                            m->items[0][at].len);
                }
        }
        assert_int_equal(at, lost);
        for (int i = 0; i < 2; i++)
                fails(df_log_poll(r, records, 50, &n, &err), DF_ECORRUPT, part);
        df_log_reader_close(r);
}

/* L1: a byte changed anywhere in the middle is named with its offset, by the start of a writer, by
 * readers, and by verify; nothing is cut. With and without an END that survived. */
static void test_L1_damage_in_the_middle_at_every_byte(void **state)
{
        struct df_log_writer *w;
        struct dfi_topic topic;
        struct frames frames;
        char lost[160];
        uint64_t n;
        struct torn t;

        seed_test(24);
        make_torn(&t);
        ok(dfi_topic_load((struct dfi_log *)t.log, "t", &topic, &err));
        find_frames(&t.seg, topic.info.generation, &frames);
        assert_int_equal(frames.count, 3);
        (void)snprintf(lost, sizeof(lost),
                       "first lost offset %" PRIu64 "; the log reads again from offset %" PRIu64,
                       frames.offset[1], frames.offset[2]);
        for (uint64_t at = frames.pos[1]; at < frames.pos[2]; at++) {
                uint8_t was = t.seg.data[at];
                struct image after;

                t.seg.data[at] ^= (uint8_t)(1 + rnd() % 255);
                write_file(segment_path, t.seg.data, t.seg.len);
                if (at % 2) {
                        write_file(end_path, t.new_end.data, t.new_end.len);
                        check_reader_stops(t.log, &t.m, frames.offset[1], lost);
                        fails(df_filelog_verify(t.log, "t", 0, NULL, NULL, &n, &err), DF_ECORRUPT,
                              lost);
                } else {
                        (void)unlink(end_path);
                }
                fails(df_log_writer_open(t.log, "t", &w, &err), DF_ECORRUPT, lost);
                after = take(segment_path);
                assert_int_equal(after.len, t.seg.len);
                assert_memory_equal(after.data, t.seg.data, after.len);
                free(after.data);
                t.seg.data[at] = was;
        }
        write_file(segment_path, t.seg.data, t.seg.len);
        write_file(end_path, t.new_end.data, t.new_end.len);
        check_start(t.log, &t.m, t.m.count[0], 0);
        free_torn(&t);
}

/* A commit of several frames reached the disk out of order: its first frame is bad, a later one is
 * whole. It was never acknowledged, so it is cut; damage before a later commit is not. */
static void test_L1_frames_of_one_commit_out_of_order(void **state)
{
        struct df_filelog_options o = one_segment();
        struct image seg, old_end;
        struct df_log_writer *w;
        struct frames frames;
        struct dfi_topic topic;
        struct df_log *log = open_log(&o);
        struct model m = {0};
        size_t before;

        seed_test(25);
        ok(df_log_topic_create(log, "t", 1, &err));
        ok(dfi_topic_load((struct dfi_log *)log, "t", &topic, &err));
        w = open_writer(log, "t");
        append_random(w, &m, 1, 3, 200);
        df_log_writer_close(w);
        name_files(0);
        before = m.count[0];
        old_end = take(end_path);
        w = open_writer(log, "t");
        append_random(w, &m, 1, 24, DF_LOG_RECORD_MAX);
        df_log_writer_close(w);
        seg = take(segment_path);
        find_frames(&seg, topic.info.generation, &frames);
        assert_true(frames.count >= 3);
        seg.data[frames.pos[1] + 20] ^= 1;
        write_file(segment_path, seg.data, seg.len);
        write_file(end_path, old_end.data, old_end.len);
        check_start(log, &m, before, seg.len - frames.pos[1]);
        /* The same bytes, and a later commit behind them. */
        seg.data[frames.pos[1] + 20] ^= 1;
        write_file(segment_path, seg.data, seg.len);
        w = open_writer(log, "t");
        append_random(w, &m, 1, 1, 10);
        df_log_writer_close(w);
        free(seg.data);
        seg = take(segment_path);
        seg.data[frames.pos[1] + 20] ^= 1;
        write_file(segment_path, seg.data, seg.len);
        write_file(end_path, old_end.data, old_end.len);
        fails(df_log_writer_open(log, "t", &w, &err), DF_ECORRUPT, "first lost offset 3;");
        free(seg.data);
        free(old_end.data);
        df_log_close(log);
        model_release(&m);
}

/* A segment that is gone: in the middle, the last, or the one that END names. */
static void test_L1_missing_segments_are_named(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_log_writer *w;
        struct dfi_seg_list list;
        struct df_record records[50];
        struct df_log_reader *r;
        struct model m = {0};
        struct image middle, last;
        char lost[64], middle_path[DFI_PATH_MAX];
        size_t n = 1;

        seed_test(26);
        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        for (int i = 0; i < 60; i++)
                append_random(w, &m, 1, 5, 900);
        df_log_writer_close(w);
        assert_true(list_segments(log, "t", 0, &list) >= 5);
        name_files(list.items[2].base);
        memcpy(middle_path, segment_path, sizeof(middle_path));
        middle = take(middle_path);
        assert_int_equal(unlink(middle_path), 0);
        (void)snprintf(lost, sizeof(lost), "first lost offset %" PRIu64 ";", list.items[2].base);
        r = open_reader(log, "t", 0, 0, NULL);
        for (uint64_t at = 0; at < list.items[2].base; at += n)
                ok(df_log_poll(r, records, 50, &n, &err));
        fails(df_log_poll(r, records, 50, &n, &err), DF_ECORRUPT, lost);
        fails(df_log_poll(r, records, 50, &n, &err), DF_ECORRUPT, "restore the file from a copy");
        df_log_reader_close(r);
        write_file(middle_path, middle.data, middle.len);
        check_model(log, "t", &m, 1);

        name_files(list.items[list.count - 1].base);
        last = take(segment_path);
        assert_int_equal(unlink(segment_path), 0);
        (void)snprintf(lost, sizeof(lost), "first lost offset %" PRIu64 ";",
                       list.items[list.count - 1].base);
        fails(df_log_writer_open(log, "t", &w, &err), DF_ECORRUPT, lost);
        write_file(segment_path, last.data, last.len);
        w = open_writer(log, "t");
        append_random(w, &m, 1, 5, 900);
        df_log_writer_close(w);
        check_model(log, "t", &m, 1);
        dfi_seg_list_release(&list);
        free(middle.data);
        free(last.data);
        df_log_close(log);
        model_release(&m);
}

/* Segments are gone, and END with them, but a consumer had read further. */
static void test_L1_a_consumer_ahead_of_the_log_is_refused(void **state)
{
        struct df_log *log = open_log(NULL);
        struct df_log_reader *r;
        struct df_log_writer *w;
        struct model m = {0};
        char path[DFI_PATH_MAX];
        uint64_t deleted;

        seed_test(27);
        ok(df_log_topic_create(log, "t", 1, &err));
        w = open_writer(log, "t");
        append_random(w, &m, 1, 9, 100);
        r = open_reader(log, "t", 0, 0, "view");
        ok(df_log_release(r, 7, &err));
        df_log_reader_close(r);
        df_log_writer_close(w);
        name_files(0);
        assert_int_equal(unlink(segment_path), 0);
        assert_int_equal(unlink(end_path), 0);
        fails(df_log_writer_open(log, "t", &w, &err), DF_ECORRUPT,
              "consumer view has read up to offset 7, but the log ends before offset 0");
        /* L2: a registration that cannot be read stops deletion until it is dropped. */
        part_path(path, "t", 0, "../consumers/view/0");
        write_file(path, "adtally-consumer 1\nposition 9\n", 30);
        fails(df_filelog_retain(log, "t", INT64_MAX, &deleted, &err), DF_ECORRUPT,
              "adtally consumers drop");
        ok(df_filelog_consumer_drop(log, "t", "view", &err));
        ok(df_filelog_retain(log, "t", INT64_MAX, &deleted, &err));
        df_log_close(log);
        model_release(&m);
}

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
                T(test_L1_torn_tail_at_every_byte),
                T(test_L1_torn_tail_without_END),
                T(test_L1_missing_durable_bytes_are_refused),
                T(test_L1_damage_in_the_middle_at_every_byte),
                T(test_L1_frames_of_one_commit_out_of_order),
                T(test_L1_missing_segments_are_named),
                T(test_L1_a_consumer_ahead_of_the_log_is_refused),
                T(test_L1_a_failed_sync_is_the_end),
                T(test_L1_a_failed_sync_ends_the_process),
                T(test_L2_full_disk_at_every_byte),
                T(test_L1_a_failed_write_breaks_the_writer),
                T(test_L2_min_free_bytes_and_the_reserve),
                T(test_L2_a_small_disk_fills_and_recovers),
                T(test_L1_what_was_acknowledged_survives_a_kill),
        };

        return cmocka_run_group_tests_name("filelog_faults", tests, NULL, NULL);
}
