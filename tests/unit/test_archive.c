/* test_archive.c - A2: several archivers of one partition over one store that fails, loses answers
 * and stops them anywhere. Oracle: the log's records, each of which must be in the archive once. */
#include "unit.h"

#include <stdio.h>

#include "df/archive.h"

#include "dice.h"

#define OBJECTS_MAX 64
#define RECORDS 60
#define VALUE (200u << 10)
#define ARCHIVERS 3
#define HOUR_MS 3600000

static const struct df_segment_id id = {"events", 0xfeed, 5};

/* The run of one seed; the state of the dice is never 0. */
static void set_seed(uint64_t seed)
{
        dice_seed = seed;
        dice_state = seed * 0x9e3779b97f4a7c15ull + 1;
}

/* ---- a store in memory, with faults ---- */

struct object {
        char name[DF_OBJECT_NAME_MAX + 1];
        struct df_buf data;
        uint64_t version;
};
static struct memory {
        struct df_objects base;
        struct object list[OBJECTS_MAX];
        size_t count;
        uint64_t versions;
        bool faults;
} store;

static struct object *find(const char *name)
{
        for (size_t i = 0; i < store.count; i++)
                if (strcmp(store.list[i].name, name) == 0)
                        return &store.list[i];
        return NULL;
}

static int before(struct df_error *e)
{
        return store.faults && dice(12) == 0 ? df_fail(e, DF_EAGAIN, "no answer") : 0;
}

/* The answer to a put that was done is lost. */
static int after(struct df_error *e)
{
        return store.faults && dice(12) == 0 ? df_fail(e, DF_EDOUBT, "the answer is lost") : 0;
}

static void store_put(struct object *o, struct df_bytes data)
{
        df_buf_clear(&o->data);
        df_buf_append(&o->data, data.data, data.len);
        o->version = ++store.versions;
}

static int put_absent(struct df_objects *s, const char *name, struct df_bytes data,
                      struct df_error *e)
{
        struct object *o;
        int rc = before(e);

        (void)s;
        if (rc < 0)
                return rc;
        if (find(name))
                return df_fail(e, DF_EEXIST, "%s", name);
        assert_true(store.count < OBJECTS_MAX);
        o = &store.list[store.count++];
        *o = (struct object){0};
        (void)snprintf(o->name, sizeof(o->name), "%s", name);
        store_put(o, data);
        return after(e);
}

static int put_match(struct df_objects *s, const char *name, struct df_bytes data,
                     const struct df_object_version *was, struct df_object_version *ret,
                     struct df_error *e)
{
        struct object *o = find(name);
        int rc = before(e);

        (void)s;
        if (rc < 0)
                return rc;
        if (!o || o->version != strtoull(was->text, NULL, 10))
                return df_fail(e, DF_EEXIST, "%s is another", name);
        store_put(o, data);
        (void)snprintf(ret->text, sizeof(ret->text), "%" PRIu64, o->version);
        return after(e);
}

static int get(struct df_objects *s, const char *name, struct df_buf *ret,
               struct df_object_version *version, struct df_error *e)
{
        const struct object *o = find(name);
        int rc = before(e);

        (void)s;
        if (rc < 0)
                return rc;
        if (!o)
                return df_fail(e, DF_ENOENT, "%s", name);
        df_buf_append(ret, o->data.data, o->data.len);
        if (version)
                (void)snprintf(version->text, sizeof(version->text), "%" PRIu64, o->version);
        return 0;
}

static const struct df_objects_ops ops = {
        .put_absent = put_absent, .put_match = put_match, .get = get};

static void empty_store(void)
{
        for (size_t i = 0; i < store.count; i++)
                df_buf_release(&store.list[i].data);
        store = (struct memory){.base = {.ops = &ops}};
}

/* ---- a log ---- */

static struct df_record records[RECORDS];
static uint8_t *values;

static void make_log(void)
{
        uint64_t offset = dice(100);
        int64_t ms = 1764000000000;

        if (!values)
                values = malloc(2 * VALUE);
        for (size_t i = 0; i < 2 * VALUE; i++)
                values[i] = (uint8_t)(i * 2654435761u >> 13);
        for (int i = 0; i < RECORDS; i++) {
                offset += 1 + dice(3);
                ms += dice(8) == 0 ? HOUR_MS : 10;
                records[i] = (struct df_record){offset, ms,
                                                df_bytes(values + dice(VALUE), 1 + dice(VALUE))};
        }
}

static const struct df_record *record_from(uint64_t offset)
{
        for (int i = 0; i < RECORDS; i++)
                if (records[i].offset >= offset)
                        return &records[i];
        return NULL;
}

/* ---- archivers ---- */

/* Every other seed has records behind which a segment ends. */
static bool ends(const struct df_record *r)
{
        return dice_seed % 2 == 0 && r->value.len % 7 == 0;
}

static int open_at(uint64_t limit, uint64_t start, struct df_archive_part **p)
{
        struct df_archive_options o = {
                .objects = &store.base,
                .limit = limit,
                .start = start,
                .ends = ends,
        };

        return df_archive_open(&o, &id, p, &err);
}

static void open_part(struct df_archive_part **p)
{
        while (!*p) {
                int rc = open_at(DF_SEGMENT_LIMIT_MIN, records[0].offset, p);

                if (rc != 0 && rc != DF_EAGAIN)
                        fail_msg("seed %" PRIu64 ": open: %s", dice_seed, err.text);
        }
}

/* One step; true: it stands at the log's end. */
static bool step(struct df_archive_part **p)
{
        const struct df_record *r;
        int rc;

        open_part(p);
        r = record_from(df_archive_position(*p));
        if (!r)
                return true;
        rc = df_archive_add(*p, r, &err);
        if (rc != 0 && rc != DF_EAGAIN && rc != DF_EDOUBT)
                fail_msg("seed %" PRIu64 ": %s", dice_seed, err.text);
        if (rc != 0 || (store.faults && dice(40) == 0)) { /* also: it is killed */
                df_archive_close(*p);
                *p = NULL;
        }
        return false;
}

static void compare_segment(const struct df_archive_entry *entry, int *at)
{
        char name[DF_ARCHIVE_NAME_MAX];
        struct df_segment_reader *reader = NULL;
        struct df_record got[16];
        struct object *o;
        size_t n = 1;

        df_archive_segment_name(&id, entry->first, name);
        o = find(name);
        assert_non_null(o);
        struct df_bytes bytes = df_buf_bytes(&o->data);
        struct df_segment_source source = df_segment_memory(name, &bytes);

        assert_int_equal(df_segment_open(&source, &reader, &err), 0);
        assert_int_equal(df_segment_verify(reader, &err), 0);
        while (n > 0) {
                assert_int_equal(df_segment_next(reader, got, 16, &n, &err), 0);
                for (size_t i = 0; i < n; i++, (*at)++)
                        if (*at == RECORDS || got[i].offset != records[*at].offset ||
                            got[i].append_ms != records[*at].append_ms ||
                            !df_bytes_eq(got[i].value, records[*at].value))
                                fail_msg("seed %" PRIu64 ": record %d of %s", dice_seed, *at, name);
        }
        df_segment_close(reader);
}

/* Each record up to the manifest's end is there once, in order; nothing else is in the store but
 * one segment that no manifest had time to name. */
static void check_archive(void)
{
        struct df_archive_manifest m;
        int at = 0;

        store.faults = false;
        assert_int_equal(df_archive_manifest_read(&store.base, &id, &m, &err), 0);
        assert_true(m.count > 1);
        assert_true(m.entries[0].first == records[0].offset);
        for (uint32_t i = 0; i < m.count; i++)
                compare_segment(&m.entries[i], &at);
        if (at < RECORDS && records[at].offset != m.entries[m.count - 1].end)
                assert_true(ends(&records[at - 1]));
        for (int i = 0, e = 0; i < RECORDS; i++) {
                if (!ends(&records[i]))
                        continue;
                while (e < (int)m.count && m.entries[e].end <= records[i].offset)
                        e++;
                if (e == (int)m.count || m.entries[e].end != records[i].offset + 1)
                        fail_msg("seed %" PRIu64 ": no segment ends behind offset %" PRIu64,
                                 dice_seed, records[i].offset);
        }
        assert_int_equal(store.count, m.count + 1);
        df_archive_manifest_release(&m);
}

static void all_archivers_make_one_archive(void **unused)
{
        const char *given = getenv("TEST_SEED"), *many = getenv("TEST_SEEDS");
        uint64_t first = given ? strtoull(given, NULL, 10) : 1;
        uint64_t count = many ? strtoull(many, NULL, 10) : given ? 1 : 60;

        (void)unused;
        for (uint64_t seed = first; seed < first + count; seed++) {
                struct df_archive_part *parts[ARCHIVERS] = {0};
                bool ended[ARCHIVERS] = {0};

                set_seed(seed);
                empty_store();
                make_log();
                store.faults = true;
                for (int steps = 0; !ended[0] || !ended[1] || !ended[2]; steps++) {
                        uint64_t who = dice(ARCHIVERS);

                        if (steps > 100000)
                                fail_msg("seed %" PRIu64 ": no end is reached", dice_seed);
                        ended[who] = step(&parts[who]);
                }
                check_archive();
                for (int i = 0; i < ARCHIVERS; i++)
                        df_archive_close(parts[i]);
        }
        empty_store();
}

static void archive_alone(void)
{
        struct df_archive_part *p = NULL;

        empty_store();
        make_log();
        while (!step(&p))
                continue;
        df_archive_close(p);
}

static int manifest_now(void)
{
        struct df_archive_manifest m;
        int rc = df_archive_manifest_read(&store.base, &id, &m, &err);

        df_archive_manifest_release(&m);
        return rc;
}

static struct object *manifest_object(void)
{
        return find("archive/events.000000000000feed/00005/manifest");
}

static void a_damaged_manifest_is_named(void **unused)
{
        struct object *o;
        size_t whole;

        (void)unused;
        set_seed(77);
        archive_alone();
        o = manifest_object();
        assert_non_null(o);
        assert_int_equal(manifest_now(), 0);
        whole = o->data.len;
        for (size_t i = 0; i < whole; i++) {
                uint8_t was = o->data.data[i];

                o->data.data[i] ^= (uint8_t)(1u << dice(8));
                if (manifest_now() != DF_ECORRUPT)
                        fail_msg("byte %zu of %zu changed: %s", i, whole, err.text);
                o->data.data[i] = was;
        }
        for (o->data.len = 0; o->data.len < whole; o->data.len++)
                assert_int_equal(manifest_now(), DF_ECORRUPT);
        assert_int_equal(manifest_now(), 0);
        empty_store();
}

static void another_segment_in_its_place_is_never_replaced(void **unused)
{
        struct df_archive_part *p = NULL;
        struct df_buf other = {0};
        int rc = 0;

        (void)unused;
        set_seed(78);
        archive_alone();
        assert_ptr_equal(manifest_object(), &store.list[1]);
        while (store.count > 1) /* the manifest is lost, and what came after it */
                df_buf_release(&store.list[--store.count].data);
        df_buf_append(&other, store.list[0].data.data, store.list[0].data.len);
        store.list[0].data.data[100] ^= 1;
        open_part(&p);
        while (rc == 0) {
                const struct df_record *r = record_from(df_archive_position(p));

                assert_non_null(r);
                rc = df_archive_add(p, r, &err);
        }
        assert_int_equal(rc, DF_ECORRUPT);
        assert_non_null(strstr(err.text, store.list[0].name));
        df_archive_close(p);
        /* Put right it is adopted. */
        store_put(&store.list[0], df_buf_bytes(&other));
        p = NULL;
        while (!step(&p))
                continue;
        check_archive();
        df_archive_close(p);
        p = NULL;
        assert_int_equal(open_at(2 * DF_SEGMENT_LIMIT_MIN, 0, &p), DF_ESCHEMA);
        /* A3: what was deleted from the log unarchived is named, not passed by. */
        fails(open_at(DF_SEGMENT_LIMIT_MIN, records[RECORDS - 1].offset + 1, &p), DF_EOFFSET,
              "no segment holds");
        df_buf_release(&other);
        empty_store();
}

/* Whole, of this place, and yet not what the log holds there: a record is missing in it. */
static void a_segment_with_other_records_is_refused(void **unused)
{
        struct df_segment_writer *w = NULL;
        struct df_archive_part *p = NULL;
        char name[DF_ARCHIVE_NAME_MAX];
        struct df_bytes file;
        const struct df_record *r;
        uint64_t end;
        int rc = 0;

        (void)unused;
        set_seed(79);
        empty_store();
        make_log();
        ok(df_segment_writer_create(&id, DF_SEGMENT_LIMIT_MIN, &w, &err));
        df_segment_begin(w, records[0].offset);
        for (r = records; df_segment_takes(w, r); r++)
                if (r != &records[1])
                        ok(df_segment_add(w, r, &err));
        end = r->offset;
        ok(df_segment_finish(w, end, &file, NULL, &err));
        df_archive_segment_name(&id, records[0].offset, name);
        ok(df_objects_put_absent(&store.base, name, file, &err));
        df_segment_writer_destroy(w);
        open_part(&p);
        while (rc == 0 && (r = record_from(df_archive_position(p))))
                rc = df_archive_add(p, r, &err);
        assert_int_equal(rc, DF_ECORRUPT);
        assert_non_null(strstr(err.text, name));
        df_archive_close(p);
        empty_store();
}

static int end(void **unused)
{
        (void)unused;
        free(values);
        return 0;
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(all_archivers_make_one_archive),
                cmocka_unit_test(a_damaged_manifest_is_named),
                cmocka_unit_test(another_segment_in_its_place_is_never_replaced),
                cmocka_unit_test(a_segment_with_other_records_is_refused),
        };

        return cmocka_run_group_tests(tests, NULL, end);
}
