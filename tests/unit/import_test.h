/* import_test.h - an import into a file log of its own, and what the topic holds afterwards, read
 * back and compared with a list kept by hand. */
#ifndef ADTALLY_TESTS_IMPORT_TEST_H
#define ADTALLY_TESTS_IMPORT_TEST_H

#include "unit.h"

#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/filelog.h"
#include "df/seal.h"
#include "jobs/adtally/import.h"
#include "jobs/common/settings.h"

#define P 3
#define FROM 1554076800000LL /* 2019-04-01T00:00:00Z */

static struct ad_zones *zones;
static const struct ad_zone *utc;

struct place {
        char dir[64], file[96], data[96], log_dir[112];
        struct df_log *log;
};

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *f)
{
        (void)st;
        (void)flag;
        (void)f;
        return remove(path);
}

static inline void open_log(struct place *p)
{
        const struct df_filelog_options o = {.reserve_bytes = 4096, .min_free_bytes = 1};

        assert_int_equal(df_filelog_open(p->log_dir, &o, &p->log, NULL), 0);
}

static inline void begin(struct place *p)
{
        memset(p, 0, sizeof(*p));
        (void)snprintf(p->dir, sizeof(p->dir), "/tmp/adtally-import-XXXXXX");
        assert_non_null(mkdtemp(p->dir));
        (void)snprintf(p->file, sizeof(p->file), "%s/file.csv", p->dir);
        (void)snprintf(p->data, sizeof(p->data), "%s/data", p->dir);
        (void)snprintf(p->log_dir, sizeof(p->log_dir), "%s/data/log", p->dir);
        assert_int_equal(df_mkdirs(p->log_dir, NULL), 0);
        open_log(p);
}

static inline void end(struct place *p)
{
        df_log_close(p->log);
        assert_int_equal(nftw(p->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

static inline struct ad_import_options options(const struct place *p)
{
        return (struct ad_import_options){
                .file = p->file,
                .place = {.log = p->log,
                          .data = p->data,
                          .partitions = P,
                          .tenant = df_bytes_str("default"),
                          .dataset = df_bytes_str("d")},
                .map = {.map = "time=event_time,kind=type,ad=ad_id",
                        .currency = "RUB",
                        .zone = utc},
                .quiet = true,
                .now_ms = 1700000000000,
        };
}

static inline int run(const struct ad_import_options *o, struct ad_import_summary *s,
                      struct df_error *err)
{
        int rc;

        memset(err, 0, sizeof(*err));
        rc = ad_import_run(o, s, err);
        df_buf_release(&s->problems);
        return rc;
}

/* rows: lines "seconds,kind,ad" behind FROM. */
static inline void write_rows(const struct place *p, const char *rows)
{
        struct df_buf b = {0};

        df_buf_printf(&b, "time,kind,ad\n");
        while (*rows) {
                long seconds = strtol(rows, (char **)(uintptr_t)&rows, 10);
                size_t len = strcspn(rows, "\n");

                df_buf_printf(&b, "%lld%.*s\n", FROM / 1000 + seconds, (int)len, rows);
                rows += len + (rows[len] == '\n');
        }
        assert_int_equal(df_write_file(p->file, df_buf_bytes(&b), false, NULL), 0);
        df_buf_release(&b);
}

/* ---- reading the topic ---- */

struct content {
        char *lines[4096]; /* "event_ms type ad" of every event */
        char *ids[4096];
        size_t count;
        unsigned begins, ends, aborts, wrong_partition, outside;
        struct ad_import_begin first;
        uint64_t receive_ms;
};

static inline int by_text(const void *a, const void *b)
{
        return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline void read_record(struct content *c, uint32_t partition, struct df_bytes value,
                               bool *inside)
{
        struct df_arena arena;
        struct ad_batch b;

        df_arena_init(&arena, 0);
        assert_int_equal(ad_wire_batch_decode(value, AD_RECORD_EVENTS_MAX, &arena, &b, NULL), 0);
        c->begins += b.has_import_begin;
        c->ends += b.has_import_end && !b.import_end.aborted;
        c->aborts += b.has_import_end && b.import_end.aborted;
        *inside = b.has_import_begin || (*inside && !b.has_import_end);
        if (b.has_import_begin)
                c->first = b.import_begin;
        for (size_t i = 0; i < b.count; i++) {
                const struct ad_event *ev = &b.events[i];
                uint32_t right = ad_event_partition(ad_event_key(ev->tenant_id, ev->event_id), P);

                c->wrong_partition += right != partition;
                c->outside += !*inside || ev->event_ms < c->first.from_ms ||
                              ev->event_ms >= c->first.to_ms;
                assert_true(ev->receive_ms == c->first.receive_ms);
                assert_true(c->count < 4096);
                assert_true(asprintf(&c->lines[c->count], "%" PRId64 " %u %.*s", ev->event_ms,
                                     ev->type, (int)ev->dims[AD_DIM_AD].len,
                                     (const char *)ev->dims[AD_DIM_AD].data) > 0);
                assert_true(asprintf(&c->ids[c->count++], "%.*s", (int)ev->event_id.len,
                                     (const char *)ev->event_id.data) > 0);
        }
        df_arena_release(&arena);
}

static inline void read_topic(const struct place *p, const char *topic, struct content *c)
{
        memset(c, 0, sizeof(*c));
        for (uint32_t i = 0; i < P; i++) {
                struct df_log_reader *r;
                struct df_record rec;
                bool inside = false;
                size_t n = 1;

                assert_int_equal(df_log_reader_open(p->log, topic, i, 0, NULL, &r, NULL), 0);
                while (n > 0) {
                        assert_int_equal(df_log_poll(r, &rec, 1, &n, NULL), 0);
                        if (n > 0)
                                read_record(c, i, rec.value, &inside);
                }
                df_log_reader_close(r);
        }
        qsort(c->lines, c->count, sizeof(c->lines[0]), by_text);
        qsort(c->ids, c->count, sizeof(c->ids[0]), by_text);
        for (size_t i = 1; i < c->count; i++)
                assert_string_not_equal(c->ids[i - 1], c->ids[i]);
        assert_int_equal(c->wrong_partition, 0);
        assert_int_equal(c->outside, 0);
}

static inline void drop(struct content *c)
{
        for (size_t i = 0; i < c->count; i++) {
                free(c->lines[i]);
                free(c->ids[i]);
        }
}

static inline void expect(const struct place *p, const char *topic, unsigned generations,
                          const char *const *lines)
{
        struct content c;
        size_t n = 0;

        read_topic(p, topic, &c);
        while (lines[n])
                n++;
        assert_int_equal(c.count, n);
        for (size_t i = 0; i < n; i++)
                assert_string_equal(c.lines[i], lines[i]);
        assert_int_equal(c.begins, generations * P);
        assert_int_equal(c.ends, generations * P);
        drop(&c);
}

/* ---- cut off ---- */

struct stop {
        int after;
};

static inline int stop_hook(void *arg, struct df_error *err)
{
        struct stop *s = arg;

        return s->after-- > 0 ? 0 : df_fail(err, DF_ECRASH, "stopped by the test");
}

static inline int set_up(void **state)
{
        (void)state;
        return ad_zones_create(NULL, &zones, NULL) < 0 ||
               ad_zones_get(zones, "UTC", &utc, NULL) < 0;
}

static inline int tear_down(void **state)
{
        (void)state;
        ad_zones_destroy(zones);
        return 0;
}

#endif
