/* test_archive_log.c - a log with its past in the archive (df_archive_log_open): whoever reads it
 * from anywhere gets each record once and in order, while archivers publish and retention deletes
 * beside it (A1 to A3). Oracle: the list of records. */
#include "unit.h"

#include <stdio.h>
#include <stdlib.h>

#include "df/archive.h"

#include "dice.h"

#define RECORDS 80
#define VALUE (120u << 10)
#define HOUR_MS 3600000

static const struct df_topic_info topic = {"events", 2, 0xbeef};
static const struct df_segment_id id = {"events", 0xbeef, 1};

/* ---- the live log: records [live_first, RECORDS) of partition 1 ---- */

static struct df_record records[RECORDS];
static uint8_t *values;
static int live_first;

struct live_reader {
        struct df_log_reader base;
        uint64_t position;
};

static int index_from(uint64_t offset)
{
        int i = 0;

        while (i < RECORDS && records[i].offset < offset)
                i++;
        return i;
}

static uint64_t first_offset(void)
{
        return live_first == 0 ? 0 : records[live_first - 1].offset + 1;
}

static uint64_t end_offset(void)
{
        return records[RECORDS - 1].offset + 1;
}

static int live_list(struct df_log *l, const char *prefix,
                     int (*fn)(void *, const struct df_topic_info *), void *arg, struct df_error *e)
{
        (void)l;
        (void)e;
        return strncmp(topic.name, prefix, strlen(prefix)) == 0 ? fn(arg, &topic) : 0;
}

static int live_open(struct df_log *l, const char *name, uint32_t partition, uint64_t from,
                     const char *consumer, struct df_log_reader **ret, struct df_error *e)
{
        struct live_reader *r;

        assert_string_equal(name, topic.name);
        assert_int_equal(partition, id.partition);
        assert_null(consumer); /* nothing is held: what is deleted is archived */
        if (from < first_offset())
                return df_fail(e, DF_EOFFSET, "deleted");
        r = calloc(1, sizeof(*r));
        assert_non_null(r);
        r->base.log = l;
        r->position = from;
        *ret = &r->base;
        return 0;
}

static int live_poll(struct df_log_reader *base, struct df_record *ret, size_t max, size_t *count,
                     struct df_error *e)
{
        struct live_reader *r = (struct live_reader *)base;
        int i = index_from(r->position);

        (void)e;
        *count = 0;
        while (i < RECORDS && *count < max && *count < 5)
                ret[(*count)++] = records[i++];
        r->position = i < RECORDS ? records[i].offset : end_offset();
        return 0;
}

static uint64_t live_position(struct df_log_reader *base)
{
        return ((struct live_reader *)base)->position;
}

static int live_bounds(struct df_log *l, const char *name, uint32_t partition, uint64_t *first,
                       uint64_t *end, struct df_error *e)
{
        (void)l;
        (void)name;
        (void)partition;
        (void)e;
        *first = first_offset();
        *end = end_offset();
        return 0;
}

static int live_offset_at(struct df_log *l, const char *name, uint32_t partition, int64_t append_ms,
                          uint64_t *ret, struct df_error *e)
{
        int i = live_first;

        (void)l;
        (void)name;
        (void)partition;
        (void)e;
        while (i < RECORDS && records[i].append_ms < append_ms)
                i++;
        *ret = i < RECORDS ? records[i].offset : end_offset();
        return 0;
}

static void live_reader_close(struct df_log_reader *r)
{
        free(r);
}

static const struct df_log_ops live_ops = {
        .topic_list = live_list,
        .reader_open = live_open,
        .poll = live_poll,
        .position = live_position,
        .bounds = live_bounds,
        .offset_at = live_offset_at,
        .reader_close = live_reader_close,
};
static struct df_log live = {&live_ops};

/* ---- the archive ---- */

static char root[] = "/tmp/adtally-archive-log-XXXXXX", place[64];
static struct df_objects *store;
static struct df_log *whole;
static struct df_archive_part *part;

static void make_log(void)
{
        uint64_t offset = dice(2);
        int64_t ms = 1764000000000;

        for (int i = 0; i < RECORDS; i++) {
                records[i] = (struct df_record){offset, ms,
                                                df_bytes(values + dice(VALUE), 1 + dice(VALUE))};
                offset += 1 + dice(3);
                ms += dice(8) == 0 ? HOUR_MS : 10;
        }
        live_first = 0;
}

/* Records up to index `to`, or all, are handed to the archiver. */
static void archive_to(int to)
{
        struct df_archive_options o = {.objects = store, .limit = DF_SEGMENT_LIMIT_MIN};

        if (!part)
                ok(df_archive_open(&o, &id, &part, &err));
        for (int i = index_from(df_archive_position(part)); i < to && i < RECORDS; i++)
                ok(df_archive_add(part, &records[i], &err));
}

/* Retention: any of what is archived. */
static void delete_some(void)
{
        int archived = index_from(df_archive_end(part));

        if (archived > live_first)
                live_first += (int)dice((uint64_t)(archived - live_first) + 1);
}

static void begin(uint64_t seed)
{
        char command[128];

        dice_seed = seed;
        dice_state = seed * 0x9e3779b97f4a7c15ull + 1;
        (void)snprintf(command, sizeof(command), "rm -rf %s/store && mkdir -p %s/store", root,
                       root);
        assert_int_equal(system(command), 0);
        ok(df_objects_open(&(struct df_objects_options){.place = place}, &store, &err));
        make_log();
        ok(df_archive_log_open(&live, store, &whole, &err));
}

static void end(void)
{
        df_archive_close(part);
        part = NULL;
        df_log_close(whole);
        df_objects_close(store);
}

static void check_record(const struct df_record *got, int want)
{
        if (want >= RECORDS || got->offset != records[want].offset ||
            got->append_ms != records[want].append_ms ||
            !df_bytes_eq(got->value, records[want].value))
                fail_msg("seed %" PRIu64 ": offset %" PRIu64 " where record %d was due", dice_seed,
                         got->offset, want);
}

/* From `from` to the log's end, with publishing and deletion in between when moving. */
static void read_from(uint64_t from, bool moving)
{
        struct df_log_reader *r = NULL;
        struct df_record got[7];
        int want = index_from(from);
        size_t n;

        ok(df_log_reader_open(whole, "events", 1, from, "run", &r, &err));
        while (df_log_position(r) < end_offset()) {
                if (moving && dice(3) == 0)
                        archive_to(index_from(df_archive_position(part)) + (int)dice(10));
                if (moving && dice(3) == 0)
                        delete_some();
                ok(df_log_poll(r, got, 1 + dice(7), &n, &err));
                for (size_t i = 0; i < n; i++)
                        check_record(&got[i], want++);
        }
        if (want != RECORDS)
                fail_msg("seed %" PRIu64 ": it ends before record %d", dice_seed, want);
        df_log_reader_close(r);
}

static void each_record_once_from_anywhere(void **unused)
{
        const char *times = getenv("TEST_SEEDS");
        uint64_t seed, count = times ? strtoull(times, NULL, 10) : 20;

        (void)unused;
        roll_seed();
        seed = dice_seed;
        for (uint64_t i = 0; i < count; i++) {
                uint64_t first, last;

                begin(seed + i);
                archive_to((int)dice(RECORDS));
                delete_some();
                for (int k = 0; k < 5; k++)
                        read_from(dice(end_offset() + 1), false);
                ok(df_log_bounds(whole, "events", 1, &first, &last, &err));
                assert_true(first <= records[0].offset || live_first == 0);
                assert_int_equal(last, end_offset());
                read_from(first, true);
                end();
        }
}

static void places_by_time(void **unused)
{
        (void)unused;
        roll_seed();
        begin(dice_seed);
        archive_to(RECORDS);
        delete_some();
        for (int k = 0; k < 30; k++) {
                int64_t ms = records[0].append_ms - 5 +
                             (int64_t)dice((uint64_t)(records[RECORDS - 1].append_ms -
                                                      records[0].append_ms + 10));
                uint64_t got;
                int want = 0;

                while (want < RECORDS && records[want].append_ms < ms)
                        want++;
                ok(df_log_offset_at(whole, "events", 1, ms, &got, &err));
                if (index_from(got) != want)
                        fail_msg("seed %" PRIu64 ": record %d, not %d", dice_seed, index_from(got),
                                 want);
        }
        end();
}

static int count_records(struct df_log *l)
{
        struct df_log_reader *r = NULL;
        struct df_record got[7];
        size_t n = 1;
        int sum = 0;

        ok(df_log_reader_open(l, "events", 1, records[0].offset, NULL, &r, &err));
        while (n > 0) {
                ok(df_log_poll(r, got, 7, &n, &err));
                for (size_t i = 0; i < n; i++)
                        check_record(&got[i], sum++);
        }
        df_log_reader_close(r);
        return sum;
}

/* A copy of the archive is enough; and what is damaged in it is named before it is handed out. */
static void copies_alone(void **unused)
{
        struct df_archive_manifest m;
        char path[512], name[DF_ARCHIVE_NAME_MAX];
        struct df_log *copy, *beside;
        struct df_log_reader *r = NULL;
        struct df_record got[7];
        uint64_t first, last;
        size_t n = 1;
        FILE *f;
        int rc;

        (void)unused;
        roll_seed();
        begin(dice_seed);
        archive_to(RECORDS);
        ok(df_archive_log_open(NULL, store, &copy, &err));
        ok(df_archive_manifest_read(store, &id, &m, &err));
        assert_int_equal(count_records(copy), index_from(m.entries[m.count - 1].end));
        ok(df_log_bounds(copy, "events", 1, &first, &last, &err));
        assert_int_equal(first, m.entries[0].first);
        assert_int_equal(last, m.entries[m.count - 1].end);
        fails(df_log_reader_open(copy, "events", 0, 0, NULL, &r, &err), DF_ENOENT, "");
        fails(df_log_topic_create(copy, "x", 1, &err), DF_EINVAL, "read only");
        ok(df_archive_copies_open(&live, store, &beside, &err));
        assert_int_equal(count_records(beside), index_from(m.entries[m.count - 1].end));
        ok(df_log_bounds(beside, "events", 1, &first, &last, &err));
        assert_int_equal(last, m.entries[m.count - 1].end); /* not the log's, which has more */
        fails(df_log_reader_open(beside, "x", 0, 0, NULL, &r, &err), DF_ENOENT, "");
        df_log_close(beside);

        df_archive_segment_name(&id, m.entries[1].first, name);
        (void)snprintf(path, sizeof(path), "%s/store/%s", root, name);
        f = fopen(path, "r+");
        assert_non_null(f);
        assert_int_equal(fseek(f, (long)dice(m.entries[1].bytes), SEEK_SET), 0);
        rc = fgetc(f);
        assert_int_equal(fseek(f, -1, SEEK_CUR), 0);
        assert_int_equal(fputc(rc ^ 1, f), rc ^ 1);
        assert_int_equal(fclose(f), 0);
        ok(df_log_reader_open(copy, "events", 1, m.entries[0].first, NULL, &r, &err));
        do
                rc = df_log_poll(r, got, 7, &n, &err);
        while (rc == 0 && n > 0 && got[n - 1].offset < m.entries[1].first);
        if (rc != DF_ECORRUPT || !strstr(err.text, name))
                fail_msg("seed %" PRIu64 ": %d %s", dice_seed, rc, err.text);
        df_log_reader_close(r);
        assert_int_equal(unlink(path), 0);
        fails(df_log_reader_open(copy, "events", 1, m.entries[1].first, NULL, &r, &err) < 0
                      ? err.code
                      : df_log_poll(r, got, 7, &n, &err),
              DF_ECORRUPT, "is missing");
        df_log_reader_close(r);
        df_archive_manifest_release(&m);
        df_log_close(copy);
        end();
}

static int set_up(void **unused)
{
        (void)unused;
        values = malloc(2 * VALUE);
        if (!values || !mkdtemp(root))
                return -1;
        for (size_t i = 0; i < 2 * VALUE; i++)
                values[i] = (uint8_t)(i * 2654435761u >> 13);
        (void)snprintf(place, sizeof(place), "dir:%s/store", root);
        return 0;
}

static int tear_down(void **unused)
{
        char command[128];

        (void)unused;
        free(values);
        (void)snprintf(command, sizeof(command), "rm -rf %s", root);
        return system(command);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(each_record_once_from_anywhere),
                cmocka_unit_test(places_by_time),
                cmocka_unit_test(copies_alone),
        };

        return cmocka_run_group_tests(tests, set_up, tear_down);
}
