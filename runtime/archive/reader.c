/* reader.c - the archived records of a partition, and which partitions there are (df/archive.h). */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive_private.h"
#include "df/sha256.h"

struct df_archive_reader {
        struct df_objects *objects;
        struct df_archive_manifest manifest;
        uint32_t next; /* entry to be opened */
        uint64_t position;
        char name[DF_ARCHIVE_NAME_MAX]; /* of the open segment */
        struct df_buf file;
        struct df_bytes bytes;
        struct df_segment_source source;
        struct df_segment_reader *segment; /* NULL: none is open */
};

/* ---- one segment ---- */

static int compare(const struct df_archive_entry *e, const char *name, struct df_bytes file,
                   struct df_error *err)
{
        uint8_t hash[DF_SEGMENT_SHA256];
        int rc = df_sha256(file, hash, err);

        if (rc < 0)
                return rc;
        if (file.len == e->bytes && memcmp(hash, e->sha256, sizeof(hash)) == 0)
                return 0;
        return df_fail(err, DF_ECORRUPT,
                       "%s has %zu bytes and another SHA-256 than the manifest says (%" PRIu64
                       " bytes): put the right file back, from a copy or from the log",
                       name, file.len, e->bytes);
}

int df_archive_segment_read(struct df_objects *o, const struct df_segment_id *id,
                            const struct df_archive_entry *e, struct df_buf *ret,
                            struct df_error *err)
{
        char name[DF_ARCHIVE_NAME_MAX];
        int rc;

        df_archive_segment_name(id, e->first, name);
        df_buf_clear(ret);
        rc = df_objects_get(o, name, ret, NULL, err);
        if (rc == DF_ENOENT)
                return df_fail(err, DF_ECORRUPT,
                               "%s is missing, and the manifest says that it holds offsets %" PRIu64
                               " to %" PRIu64 ": put it back, from a copy or from the log",
                               name, e->first, e->end);
        return rc < 0 ? rc : compare(e, name, df_buf_bytes(ret), err);
}

static void close_segment(struct df_archive_reader *r)
{
        df_segment_close(r->segment);
        r->segment = NULL;
}

static int open_segment(struct df_archive_reader *r, struct df_error *err)
{
        const struct df_archive_entry *e = &r->manifest.entries[r->next];
        int rc = df_archive_segment_read(r->objects, &r->manifest.id, e, &r->file, err);

        df_archive_segment_name(&r->manifest.id, e->first, r->name);
        r->bytes = df_buf_bytes(&r->file);
        r->source = df_segment_memory(r->name, &r->bytes);
        if (rc == 0)
                rc = df_segment_open(&r->source, &r->segment, err);
        if (rc < 0)
                return rc;
        df_segment_seek(r->segment, r->position);
        r->next++;
        return 0;
}

/* ---- the reader ---- */

int df_archive_reader_open(struct df_objects *o, const struct df_segment_id *id, uint64_t from,
                           struct df_archive_reader **ret, struct df_error *err)
{
        struct df_archive_reader *r = calloc(1, sizeof(*r));
        int rc;

        *ret = NULL;
        if (!r)
                return df_fail(err, DF_ENOMEM, "archive of %s/%u", id->topic, id->partition);
        r->objects = o;
        r->position = from;
        rc = df_archive_manifest_read(o, id, &r->manifest, err);
        if (rc == 0 && r->manifest.count > 0 && from < r->manifest.entries[0].first)
                rc = df_fail(err, DF_EOFFSET, "%s/%u is archived from offset %" PRIu64 " on",
                             id->topic, id->partition, r->manifest.entries[0].first);
        if (rc < 0) {
                df_archive_reader_close(r);
                return rc;
        }
        while (r->next < r->manifest.count && r->manifest.entries[r->next].end <= from)
                r->next++;
        *ret = r;
        return 0;
}

const struct df_archive_manifest *df_archive_reader_manifest(const struct df_archive_reader *r)
{
        return &r->manifest;
}

uint64_t df_archive_reader_position(const struct df_archive_reader *r)
{
        return r->position;
}

int df_archive_reader_next(struct df_archive_reader *r, struct df_record *records, size_t max,
                           size_t *ret_count, struct df_error *err)
{
        *ret_count = 0;
        for (;;) {
                int rc = 0;

                if (!r->segment && r->next == r->manifest.count)
                        return 0;
                if (!r->segment)
                        rc = open_segment(r, err);
                if (rc == 0)
                        rc = df_segment_next(r->segment, records, max, ret_count, err);
                if (rc < 0)
                        return rc;
                if (*ret_count > 0) {
                        r->position = records[*ret_count - 1].offset + 1;
                        return 0;
                }
                r->position = r->manifest.entries[r->next - 1].end; /* behind a hole, too */
                close_segment(r);
        }
}

void df_archive_reader_close(struct df_archive_reader *r)
{
        if (!r)
                return;
        close_segment(r);
        df_buf_release(&r->file);
        df_archive_manifest_release(&r->manifest);
        free(r);
}

/* ---- which partitions there are ---- */

struct listing {
        int (*fn)(void *arg, const struct df_segment_id *id);
        void *arg;
};

/* archive/<topic>.<generation>/<partition>/manifest. Other objects are nobody's business. */
static int on_object(void *arg, const char *name, uint64_t size)
{
        const struct listing *l = arg;
        struct df_segment_id id = {0};
        unsigned long long generation;
        char topic[DF_OBJECT_NAME_MAX + 1], again[DF_ARCHIVE_NAME_MAX], *dot;
        unsigned partition;

        (void)size;
        if (sscanf(name, "archive/%255[^/]/%5u/manifest", topic, &partition) != 2)
                return 0;
        dot = strrchr(topic, '.');
        if (!dot || dot - topic > DF_TOPIC_NAME_MAX || sscanf(dot + 1, "%16llx", &generation) != 1)
                return 0;
        memcpy(id.topic, topic, (size_t)(dot - topic));
        id.generation = generation;
        id.partition = partition;
        dfi_archive_manifest_name(&id, again);
        return strcmp(again, name) == 0 ? l->fn(l->arg, &id) : 0;
}

int df_archive_list(struct df_objects *o, int (*fn)(void *arg, const struct df_segment_id *id),
                    void *arg, struct df_error *err)
{
        struct listing l = {.fn = fn, .arg = arg};

        return df_objects_list(o, "archive/", on_object, &l, err);
}
