/* test_archive_segment.c - A1: segments of the raw archive. Oracles: the records given, cuts told
 * again from protoc's sizes, protoc's decoder of the footer, each single byte changed or missing.
 */
#include "unit.h"

#include <stdio.h>

#include "df/segment.h"
#include "proto/archive.pb-c.h"

#include "dice.h"

#define HOUR_MS 3600000
#define NOW_MS 1764000000000ll

static const struct df_segment_id id = {"events", 0x1122334455667788, 3};

static int begin(void **unused)
{
        (void)unused;
        roll_seed();
        return 0;
}

/* ---- records, as a log would have them ---- */

struct records {
        struct df_record *list;
        size_t count;
};

static struct records make_records(size_t count, size_t value_max, bool hours)
{
        struct records all = {calloc(count + 1, sizeof(struct df_record)), count};
        uint64_t offset = dice(1000);
        int64_t ms = NOW_MS;

        for (size_t i = 0; i < count; i++) {
                size_t len = dice(5) == 0 ? 0 : 1 + dice(value_max);
                uint8_t *value = malloc(len + 1);

                for (size_t k = 0; k < len; k++)
                        value[k] = (uint8_t)(dice(4) ? 'a' + k % 7 : dice(256));
                offset += dice(6) ? 1 : 1 + dice(50); /* holes, as on Kafka */
                ms += hours && dice(40) == 0 ? HOUR_MS * (int64_t)(1 + dice(2)) : (int64_t)dice(50);
                all.list[i] =
                        (struct df_record){offset, ms - (dice(9) ? 0 : (int64_t)dice(2 * HOUR_MS)),
                                           df_bytes(value, len)};
        }
        return all;
}

static void release(struct records *all)
{
        for (size_t i = 0; i < all->count; i++)
                free((void *)(uintptr_t)all->list[i].value.data);
        free(all->list);
}

/* ---- segments in memory ---- */

struct blob {
        uint8_t *data;
        size_t len;
        struct df_segment_info info;
};

static struct blob finish(struct df_segment_writer *w, uint64_t end)
{
        struct df_bytes bytes;
        struct blob b;

        ok(df_segment_finish(w, end, &bytes, &b.info, &err));
        assert_true(b.info.bytes == bytes.len);
        b.len = bytes.len;
        b.data = malloc(bytes.len);
        memcpy(b.data, bytes.data, bytes.len);
        return b;
}

/* The closed segments of these records; what is in the last one stays where it is. */
static size_t archive(const struct records *all, uint64_t limit, struct blob *ret, size_t max)
{
        struct df_segment_writer *w = NULL;
        size_t n = 0;

        ok(df_segment_writer_create(&id, limit, &w, &err));
        df_segment_begin(w, all->list[0].offset);
        for (size_t i = 0; i < all->count; i++) {
                const struct df_record *r = &all->list[i];

                if (!df_segment_takes(w, r)) {
                        assert_true(n < max);
                        ret[n++] = finish(w, r->offset);
                        df_segment_begin(w, r->offset);
                        assert_true(df_segment_takes(w, r));
                }
                ok(df_segment_add(w, r, &err));
        }
        df_segment_writer_destroy(w);
        return n;
}

static struct blob one_segment(const struct records *all, uint64_t end)
{
        struct df_segment_writer *w = NULL;
        struct blob b;

        ok(df_segment_writer_create(&id, DF_SEGMENT_LIMIT_MAX, &w, &err));
        df_segment_begin(w, all->list[0].offset);
        for (size_t i = 0; i < all->count; i++)
                ok(df_segment_add(w, &all->list[i], &err));
        b = finish(w, end);
        df_segment_writer_destroy(w);
        return b;
}

static uint64_t end_of(const struct records *all)
{
        return all->list[all->count - 1].offset + 1;
}

static void read_and_compare(struct blob *b, const struct df_record *want, size_t count,
                             uint64_t from)
{
        struct df_bytes bytes = df_bytes(b->data, b->len);
        struct df_segment_source source = df_segment_memory("memory", &bytes);
        struct df_segment_reader *r = NULL;
        struct df_record got[7];
        size_t n = 1, at = 0;

        ok(df_segment_open(&source, &r, &err));
        if (from == 0)
                ok(df_segment_verify(r, &err));
        else
                df_segment_seek(r, from);
        while (at < count && want[at].offset < from)
                at++;
        for (; n > 0; at += n) {
                ok(df_segment_next(r, got, 1 + dice(7), &n, &err));
                for (size_t i = 0; i < n; i++) {
                        assert_true(at + i < count);
                        if (got[i].offset != want[at + i].offset ||
                            got[i].append_ms != want[at + i].append_ms ||
                            !df_bytes_eq(got[i].value, want[at + i].value))
                                fail_msg("seed %" PRIu64 ": record %zu, offset %" PRIu64, dice_seed,
                                         at + i, want[at + i].offset);
                }
        }
        assert_int_equal(at, count);
        df_segment_close(r);
}

/* ---- the tests ---- */

static void records_come_back_from_any_offset(void **unused)
{
        struct records all = make_records(4000, 3000, false);
        struct blob b = one_segment(&all, end_of(&all));

        (void)unused;
        assert_true(b.info.frames > 3);
        read_and_compare(&b, all.list, all.count, 0);
        for (int i = 0; i < 50; i++)
                read_and_compare(&b, all.list, all.count, 1 + dice(end_of(&all) + 5));
        free(b.data);
        release(&all);
}

/* Of the delimited message, as protoc's code counts. */
static uint64_t protoc_bytes(const struct df_record *record)
{
        Adtally__V1__LogRecord r = ADTALLY__V1__LOG_RECORD__INIT;
        uint64_t n, bytes;

        r.offset = record->offset;
        r.append_time_ms = record->append_ms;
        r.value.data = (uint8_t *)(uintptr_t)record->value.data;
        r.value.len = record->value.len;
        n = adtally__v1__log_record__get_packed_size(&r);
        for (bytes = n + 1; n >= 0x80; n >>= 7)
                bytes++;
        return bytes;
}

static void protoc_reads_the_footer(void **unused)
{
        struct records all = make_records(3000, 2000, false);
        struct blob b = one_segment(&all, end_of(&all) + 7);
        const uint8_t *t = b.data + b.len - 48;
        uint32_t len = t[0] | (uint32_t)t[1] << 8 | (uint32_t)t[2] << 16;
        Adtally__V1__SegmentFooter *f = adtally__v1__segment_footer__unpack(NULL, len, t - len);
        int64_t min = INT64_MAX, max = INT64_MIN;
        uint64_t packed = 0, raw = 0;

        (void)unused;
        assert_non_null(f);
        for (size_t i = 0; i < all.count; i++) {
                int64_t ms = all.list[i].append_ms;

                raw += protoc_bytes(&all.list[i]);
                min = ms < min ? ms : min;
                max = ms > max ? ms : max;
        }
        assert_string_equal(f->topic, "events");
        assert_true(f->generation == id.generation && f->partition == 3);
        assert_true(f->first_offset == all.list[0].offset && f->end_offset == end_of(&all) + 7);
        assert_true(f->records == all.count && f->raw_bytes == raw);
        assert_true(f->min_append_ms == min && f->max_append_ms == max);
        for (size_t i = 0; i < f->n_frames; i++)
                packed += f->frames[i]->bytes;
        assert_true(packed + 8 + len + 48 == b.len);
        adtally__v1__segment_footer__free_unpacked(f, NULL);
        free(b.data);
        release(&all);
}

/* Where a segment must end, told again: by bytes and by hours, from the records alone. */
static void cuts_depend_on_the_records_alone(void **unused)
{
        enum { MOST = 200 };
        struct records all = make_records(6000, 9000, true);
        static struct blob blobs[MOST], again[MOST];
        size_t n = archive(&all, DF_SEGMENT_LIMIT_MIN, blobs, MOST), at = 0;

        (void)unused;
        assert_true(n > 5);
        for (size_t s = 0; s < n; s++) {
                uint64_t bytes = 0;
                int64_t hour = -1;
                size_t first = at;

                for (; at < all.count; at++) {
                        const struct df_record *r = &all.list[at];
                        uint64_t own = protoc_bytes(r);

                        if (at > first &&
                            (r->append_ms / HOUR_MS > hour || bytes + own > DF_SEGMENT_LIMIT_MIN))
                                break;
                        hour = r->append_ms / HOUR_MS > hour ? r->append_ms / HOUR_MS : hour;
                        bytes += own;
                }
                if (blobs[s].info.end != all.list[at].offset ||
                    blobs[s].info.records != at - first || blobs[s].info.raw_bytes != bytes)
                        fail_msg("seed %" PRIu64 ": segment %zu ends at %" PRIu64 ", not %" PRIu64,
                                 dice_seed, s, blobs[s].info.end, all.list[at].offset);
                read_and_compare(&blobs[s], all.list + first, at - first, 0);
        }
        /* Beginning at any segment's end gives the same bytes from there on. */
        at = 0;
        while (all.list[at].offset < blobs[1].info.end)
                at++;
        struct records rest = {all.list + at, all.count - at};

        assert_int_equal(archive(&rest, DF_SEGMENT_LIMIT_MIN, again, MOST), n - 2);
        for (size_t s = 0; s < n - 2; s++) {
                assert_int_equal(again[s].len, blobs[s + 2].len);
                assert_memory_equal(again[s].data, blobs[s + 2].data, again[s].len);
                free(again[s].data);
        }
        for (size_t s = 0; s < n; s++)
                free(blobs[s].data);
        release(&all);
}

static int open_and_verify(struct blob *b)
{
        struct df_bytes bytes = df_bytes(b->data, b->len);
        struct df_segment_source source = df_segment_memory("memory", &bytes);
        struct df_segment_reader *r = NULL;
        int rc = df_segment_open(&source, &r, &err);

        if (rc == 0)
                rc = df_segment_verify(r, &err);
        df_segment_close(r);
        return rc;
}

static void any_changed_or_missing_byte_is_found(void **unused)
{
        struct records all = make_records(40, 60, false);
        struct blob b = one_segment(&all, end_of(&all));
        size_t whole = b.len;

        (void)unused;
        assert_int_equal(open_and_verify(&b), 0);
        for (size_t i = 0; i < whole; i++) {
                uint8_t change = (uint8_t)(1 + dice(255));
                int rc;

                b.data[i] ^= change;
                rc = open_and_verify(&b);
                if (rc != DF_ECORRUPT && rc != DF_ESCHEMA)
                        fail_msg("seed %" PRIu64 ": byte %zu changed: %d %s", dice_seed, i, rc,
                                 err.text);
                b.data[i] ^= change;
        }
        for (b.len = 0; b.len < whole; b.len++)
                if (open_and_verify(&b) != DF_ECORRUPT)
                        fail_msg("seed %" PRIu64 ": %zu of %zu bytes: %s", dice_seed, b.len, whole,
                                 err.text);
        assert_int_equal(open_and_verify(&b), 0);
        free(b.data);
        release(&all);
}

static void what_cannot_be_is_refused(void **unused)
{
        uint8_t *large = calloc(1, DF_LOG_RECORD_MAX + 1);
        struct df_record r = {10, NOW_MS, df_bytes(large, DF_LOG_RECORD_MAX)};
        struct df_segment_writer *w = NULL;
        struct df_bytes bytes;

        (void)unused;
        assert_int_equal(df_segment_writer_create(&id, DF_SEGMENT_LIMIT_MIN - 1, &w, &err),
                         DF_EINVAL);
        assert_int_equal(df_segment_writer_create(&id, DF_SEGMENT_LIMIT_MAX + 1ull, &w, &err),
                         DF_EINVAL);
        ok(df_segment_writer_create(&id, DF_SEGMENT_LIMIT_MIN, &w, &err));
        df_segment_begin(w, 10);
        ok(df_segment_add(w, &r, &err));
        assert_int_equal(df_segment_add(w, &r, &err), DF_EINVAL); /* the same offset */
        r.offset = 11;
        r.value.len++;
        assert_int_equal(df_segment_add(w, &r, &err), DF_ELIMIT);
        assert_int_equal(df_segment_finish(w, 10, &bytes, NULL, &err), DF_EINVAL);
        ok(df_segment_finish(w, 11, &bytes, NULL, &err));
        df_segment_writer_destroy(w);
        free(large);
}

static void an_empty_file_is_no_segment(void **unused)
{
        char path[] = "/tmp/adtally-segment-XXXXXX";
        struct df_segment_file *f = NULL;
        struct df_segment_source source;
        struct df_segment_reader *r = NULL;
        int fd = mkstemp(path);

        (void)unused;
        assert_true(fd >= 0);
        close(fd);
        ok(df_segment_file_open(path, &f, &source, &err));
        assert_int_equal(df_segment_open(&source, &r, &err), DF_ECORRUPT);
        assert_non_null(strstr(err.text, path));
        df_segment_file_close(f);
        unlink(path);
        assert_int_equal(df_segment_file_open(path, &f, &source, &err), DF_ENOENT);
        assert_int_equal(df_segment_file_open("/tmp", &f, &source, &err), DF_EINVAL);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(records_come_back_from_any_offset),
                cmocka_unit_test(protoc_reads_the_footer),
                cmocka_unit_test(cuts_depend_on_the_records_alone),
                cmocka_unit_test(any_changed_or_missing_byte_is_found),
                cmocka_unit_test(what_cannot_be_is_refused),
                cmocka_unit_test(an_empty_file_is_no_segment),
        };

        return cmocka_run_group_tests(tests, begin, NULL);
}
