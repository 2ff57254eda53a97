/* The file log where things go wrong: torn tails and damage (L1). */
#include "filelog_test.h"

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
        };

        return cmocka_run_group_tests_name("filelog_faults", tests, NULL, NULL);
}
