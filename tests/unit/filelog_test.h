/* filelog_test.h - shared by the file log's tests: a temporary directory, seeded bytes, a model of
 * plain arrays as the oracle, and access to the fault hooks. */
#ifndef FILELOG_TEST_H
#define FILELOG_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "df/filelog.h"
#include "runtime/filelog/filelog_private.h"

#define TEST_PARTITIONS_MAX 8

static char test_dir[256];
static uint64_t test_seed;

static inline uint64_t rnd(void)
{
        test_seed ^= test_seed << 13;
        test_seed ^= test_seed >> 7;
        test_seed ^= test_seed << 17;
        return test_seed;
}

static inline void seed_test(uint64_t seed)
{
        test_seed = seed * 0x9e3779b97f4a7c15ull + 1;
        print_message("seed %" PRIu64 "\n", seed);
}

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        return remove(path);
}

static inline void remove_dir(const char *path)
{
        (void)nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static inline int setup_dir(void **state)
{
        const char *tmp = getenv("TMPDIR");

        (void)snprintf(test_dir, sizeof(test_dir), "%s/filelog-XXXXXX", tmp ? tmp : "/tmp");
        return mkdtemp(test_dir) ? 0 : -1;
}

static inline int teardown_dir(void **state)
{
        remove_dir(test_dir);
        return 0;
}

/* The call must succeed; otherwise its error text is shown. */
#define ok(call)                                                                                   \
        do {                                                                                       \
                struct df_error err = {0};                                                         \
                if ((call) != 0)                                                                   \
                        fail_msg("%s: %d %s", #call, err.code, err.text);                          \
        } while (0)

/* The call must fail with code and a text that contains part. */
#define fails(call, want, part)                                                                    \
        do {                                                                                       \
                struct df_error err = {0};                                                         \
                int got_ = (call);                                                                 \
                if (got_ != (want) || err.code != (want) || !strstr(err.text, part))               \
                        fail_msg("%s: %d (%d) %s; wanted %d \"%s\"", #call, got_, err.code,        \
                                 err.text, (want), part);                                          \
        } while (0)

static inline struct df_filelog_options small_options(void)
{
        return (struct df_filelog_options){
                .segment_bytes = 8192, .reserve_bytes = 4096, .min_free_bytes = 1};
}

static inline struct df_log *open_log(const struct df_filelog_options *options)
{
        struct df_filelog_options small = small_options();
        struct df_log *log = NULL;

        ok(df_filelog_open(test_dir, options ? options : &small, &log, &err));
        return log;
}

static inline struct dfi_hooks *hooks(struct df_log *log)
{
        return &((struct dfi_log *)log)->hooks;
}

static inline struct df_log_writer *open_writer(struct df_log *log, const char *topic)
{
        struct df_log_writer *w = NULL;

        ok(df_log_writer_open(log, topic, &w, &err));
        return w;
}

static inline struct df_log_reader *open_reader(struct df_log *log, const char *topic, uint32_t p,
                                                uint64_t from, const char *consumer)
{
        struct df_log_reader *r = NULL;

        ok(df_log_reader_open(log, topic, p, from, consumer, &r, &err));
        return r;
}

/* The oracle: what was appended, in order, as plain arrays. */
struct model_record {
        uint8_t *data;
        size_t len;
        int64_t append_ms;
};
struct model {
        struct model_record *items[TEST_PARTITIONS_MAX];
        size_t count[TEST_PARTITIONS_MAX];
};

static inline void model_add(struct model *m, uint32_t p, struct df_bytes v, int64_t append_ms)
{
        size_t n = m->count[p]++;
        uint8_t *copy = malloc(v.len + 1);

        if ((n & (n - 1)) == 0)
                m->items[p] = realloc(m->items[p], (n ? n * 2 : 1) * sizeof(**m->items));
        assert_non_null(m->items[p]);
        assert_non_null(copy);
        if (v.len)
                memcpy(copy, v.data, v.len);
        m->items[p][n] = (struct model_record){.data = copy, .len = v.len, .append_ms = append_ms};
}

static inline void model_cut(struct model *m, uint32_t p, size_t count)
{
        while (m->count[p] > count)
                free(m->items[p][--m->count[p]].data);
}

static inline void model_release(struct model *m)
{
        for (uint32_t p = 0; p < TEST_PARTITIONS_MAX; p++) {
                model_cut(m, p, 0);
                free(m->items[p]);
                m->items[p] = NULL;
        }
}

/* Bytes that compress (even n) or not (odd n). */
static inline void fill_bytes(uint8_t *out, size_t n)
{
        bool noise = n & 1;

        for (size_t i = 0; i < n; i++)
                out[i] = noise ? (uint8_t)(rnd() >> 24) : (uint8_t)('a' + i % 7);
}

/* Append count random records to random partitions below `partitions` in one call. */
static inline void append_random(struct df_log_writer *w, struct model *m, uint32_t partitions,
                                 size_t count, size_t len_max)
{
        struct df_append *items = calloc(count, sizeof(*items));
        uint8_t **values = calloc(count, sizeof(*values));

        assert_non_null(items);
        assert_non_null(values);
        for (size_t i = 0; i < count; i++) {
                size_t n = (size_t)(rnd() % (len_max + 1));

                values[i] = malloc(n + 1);
                assert_non_null(values[i]);
                fill_bytes(values[i], n);
                items[i].partition = (uint32_t)(rnd() % partitions);
                items[i].value = df_bytes(values[i], n);
        }
        ok(df_log_append(w, items, count, &err));
        for (size_t i = 0; i < count; i++) {
                uint32_t p = items[i].partition;

                assert_int_equal(items[i].ret_offset, m->count[p]);
                model_add(m, p, items[i].value, items[i].ret_append_ms);
                free(values[i]);
        }
        free(items);
        free(values);
}

static inline void append_text(struct df_log_writer *w, struct model *m, uint32_t p,
                               const char *text)
{
        struct df_append item = {.partition = p, .value = df_bytes_str(text)};

        ok(df_log_append(w, &item, 1, &err));
        assert_int_equal(item.ret_offset, m->count[p]);
        model_add(m, p, item.value, item.ret_append_ms);
}

/* Everything from `from` to the durable end equals the model. */
static inline void check_partition(struct df_log *log, const char *topic, const struct model *m,
                                   uint32_t p, uint64_t from)
{
        struct df_log_reader *r = open_reader(log, topic, p, from, NULL);
        struct df_record records[37];
        size_t n = 1;
        uint64_t at = from;

        while (n > 0) {
                ok(df_log_poll(r, records, 1 + (size_t)(at % 37), &n, &err));
                for (size_t i = 0; i < n; i++, at++) {
                        const struct model_record *want = &m->items[p][at];

                        assert_true(at < m->count[p]);
                        assert_int_equal(records[i].offset, at);
                        assert_int_equal(records[i].append_ms, want->append_ms);
                        assert_int_equal(records[i].value.len, want->len);
                        assert_memory_equal(records[i].value.data, want->data, want->len);
                }
        }
        assert_int_equal(at, m->count[p]);
        df_log_reader_close(r);
}

static inline void check_model(struct df_log *log, const char *topic, const struct model *m,
                               uint32_t partitions)
{
        for (uint32_t p = 0; p < partitions; p++) {
                uint64_t first = 99, end = 99;

                ok(df_log_bounds(log, topic, p, &first, &end, &err));
                assert_int_equal(end, m->count[p]);
                check_partition(log, topic, m, p, first);
        }
}

/* Raw files. */
static inline void part_path(char out[DFI_PATH_MAX], const char *topic, uint32_t p,
                             const char *name)
{
        dfi_path(out, "%s/topics/%s/%u/%s", test_dir, topic, p, name);
}

static inline uint8_t *read_file(const char *path, size_t *ret_len)
{
        int fd = open(path, O_RDONLY);
        struct stat st;
        uint8_t *data;

        assert_true(fd >= 0);
        assert_int_equal(fstat(fd, &st), 0);
        data = malloc((size_t)st.st_size + 1);
        assert_non_null(data);
        assert_int_equal(pread(fd, data, (size_t)st.st_size, 0), st.st_size);
        (void)close(fd);
        *ret_len = (size_t)st.st_size;
        return data;
}

static inline void write_file(const char *path, const void *data, size_t len)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, data, len), len);
        (void)close(fd);
}

static inline size_t list_segments(struct df_log *log, const char *topic, uint32_t p,
                                   struct dfi_seg_list *ret)
{
        struct dfi_topic t;
        struct dfi_part part;

        ok(dfi_topic_load((struct dfi_log *)log, topic, &t, &err));
        ok(dfi_topic_part(&t, p, &part, &err));
        ok(dfi_seg_list(&part, ret, &err));
        return ret->count;
}

#endif
