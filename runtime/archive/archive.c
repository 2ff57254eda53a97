/* archive.c - a partition into the archive: cut, put, adopt, note (df/archive.h, A1, A2). */
#include <stdlib.h>
#include <string.h>

#include "archive_private.h"
#include "df/sha256.h"

struct df_archive_part {
        struct df_archive_options options;
        struct df_segment_id id;
        struct df_archive_manifest manifest;
        struct df_segment_writer *writer;
        uint64_t position;
};

const struct df_archive_entry *df_archive_last(const struct df_archive_part *p)
{
        return p->manifest.count ? &p->manifest.entries[p->manifest.count - 1] : NULL;
}

static int check_limit(const struct df_archive_part *p, struct df_error *err)
{
        if (p->manifest.count == 0 || p->manifest.limit == p->options.limit)
                return 0;
        return df_fail(err, DF_ESCHEMA,
                       "%s/%u is archived in segments cut at %llu raw bytes, not %llu: other cuts "
                       "would make other segments. Go on with that limit (A1)",
                       p->id.topic, p->id.partition, (unsigned long long)p->manifest.limit,
                       (unsigned long long)p->options.limit);
}

static int read_manifest(struct df_archive_part *p, struct df_error *err)
{
        int rc;

        df_archive_manifest_release(&p->manifest);
        rc = df_archive_manifest_read(p->options.objects, &p->id, &p->manifest, err);
        if (rc == DF_ENOENT) {
                p->manifest.limit = p->options.limit;
                return 0;
        }
        return rc < 0 ? rc : check_limit(p, err);
}

int df_archive_open(const struct df_archive_options *options, const struct df_segment_id *id,
                    struct df_archive_part **ret, struct df_error *err)
{
        struct df_archive_part *p = calloc(1, sizeof(*p));
        uint64_t start = options->start;
        int rc;

        *ret = NULL;
        if (!p)
                return df_fail(err, DF_ENOMEM, "archive of %s/%u", id->topic, id->partition);
        p->options = *options;
        p->id = *id;
        rc = df_segment_writer_create(id, options->limit, &p->writer, err);
        if (rc == 0)
                rc = read_manifest(p, err);
        if (rc < 0) {
                df_archive_close(p);
                return rc;
        }
        p->position = p->manifest.count ? df_archive_last(p)->end : start;
        if (start > p->position) {
                rc = df_fail(err, DF_EOFFSET,
                             "%s/%u is archived up to offset %llu, and the log begins at %llu: "
                             "records were deleted that no segment holds (A3)",
                             id->topic, id->partition, (unsigned long long)p->position,
                             (unsigned long long)start);
                df_archive_close(p);
                return rc;
        }
        df_segment_begin(p->writer, p->position);
        *ret = p;
        return 0;
}

uint64_t df_archive_position(const struct df_archive_part *p)
{
        return p->position;
}

uint64_t df_archive_end(const struct df_archive_part *p)
{
        return p->manifest.count ? df_archive_last(p)->end : 0;
}

/* ---- the segment ---- */

/* Cuts follow from the records alone: what is there must hold what ours holds. */
static int same_as(const struct df_segment_info *ours, const struct df_segment_info *there,
                   const char *name, struct df_error *err)
{
        if (strcmp(there->id.topic, ours->id.topic) == 0 &&
            there->id.generation == ours->id.generation &&
            there->id.partition == ours->id.partition && there->limit == ours->limit &&
            there->first == ours->first && there->end == ours->end &&
            there->records == ours->records && there->raw_bytes == ours->raw_bytes &&
            there->min_append_ms == ours->min_append_ms &&
            there->max_append_ms == ours->max_append_ms)
                return 0;
        return df_fail(err, DF_ECORRUPT,
                       "%s holds %s/%u, offsets %llu to %llu, %llu records; the log's segment of "
                       "that name ends at %llu with %llu: it is not replaced (A2)",
                       name, there->id.topic, there->id.partition, (unsigned long long)there->first,
                       (unsigned long long)there->end, (unsigned long long)there->records,
                       (unsigned long long)ours->end, (unsigned long long)ours->records);
}

static int entry_of(const struct df_segment_info *i, struct df_bytes file,
                    struct df_archive_entry *ret, struct df_error *err)
{
        *ret = (struct df_archive_entry){
                .first = i->first,
                .end = i->end,
                .records = i->records,
                .raw_bytes = i->raw_bytes,
                .bytes = file.len,
                .min_append_ms = i->min_append_ms,
                .max_append_ms = i->max_append_ms,
        };
        return df_sha256(file, ret->sha256, err);
}

/* There is one of that name: from another archiver, or from before a crash. Its bytes may differ
 * (another zstd), what it holds may not. */
static int adopt(struct df_archive_part *p, const char *name, const struct df_segment_info *ours,
                 struct df_archive_entry *ret, struct df_error *err)
{
        struct df_buf file = {0};
        struct df_segment_reader *r = NULL;
        int rc = df_objects_get(p->options.objects, name, &file, NULL, err);
        struct df_bytes bytes = df_buf_bytes(&file);
        struct df_segment_source source = df_segment_memory(name, &bytes);

        if (rc == 0)
                rc = df_segment_open(&source, &r, err);
        if (rc == 0)
                rc = df_segment_verify(r, err);
        if (rc == 0)
                rc = same_as(ours, df_segment_info(r), name, err);
        if (rc == 0)
                rc = entry_of(df_segment_info(r), bytes, ret, err);
        df_segment_close(r);
        df_buf_release(&file);
        return rc;
}

static int step(const struct df_archive_part *p, const char *name, struct df_error *err)
{
        return p->options.step ? p->options.step(p->options.step_arg, name, err) : 0;
}

static int put_segment(struct df_archive_part *p, uint64_t end, struct df_archive_entry *ret,
                       struct df_error *err)
{
        char name[DF_ARCHIVE_NAME_MAX];
        struct df_segment_info info;
        struct df_bytes file;
        int rc = df_segment_finish(p->writer, end, &file, &info, err);

        if (rc < 0)
                return rc;
        df_archive_segment_name(&p->id, info.first, name);
        rc = step(p, "archive.put", err);
        if (rc == 0)
                rc = df_objects_put_absent(p->options.objects, name, file, err);
        if (rc == DF_EEXIST)
                return adopt(p, name, &info, ret, err);
        return rc < 0 ? rc : entry_of(&info, file, ret, err);
}

/* ---- the manifest ---- */

/* Somebody else's manifest holds this stretch already: it must say the same of it. */
static int agrees(const struct df_archive_part *p, const struct df_archive_entry *e,
                  bool *ret_there, struct df_error *err)
{
        *ret_there = false;
        for (uint32_t i = p->manifest.count; i-- > 0;) {
                const struct df_archive_entry *m = &p->manifest.entries[i];

                if (m->first > e->first)
                        continue;
                *ret_there = m->first == e->first;
                if (*ret_there && memcmp(m->sha256, e->sha256, sizeof(m->sha256)) != 0)
                        return df_fail(err, DF_ECORRUPT,
                                       "%s/%u: the manifest and the store hold different segments "
                                       "at offset %llu (A2)",
                                       p->id.topic, p->id.partition, (unsigned long long)e->first);
                break;
        }
        return 0;
}

static int put_manifest(struct df_archive_part *p, struct df_error *err)
{
        char name[DF_ARCHIVE_NAME_MAX];
        struct df_buf bytes = {0};
        struct df_object_version now;
        int rc = dfi_archive_manifest_encode(&p->manifest, &bytes, err);

        dfi_archive_manifest_name(&p->id, name);
        if (rc == 0 && p->manifest.version.text[0])
                rc = df_objects_put_match(p->options.objects, name, df_buf_bytes(&bytes),
                                          &p->manifest.version, &now, err);
        else if (rc == 0)
                rc = df_objects_put_absent(p->options.objects, name, df_buf_bytes(&bytes), err);
        df_buf_release(&bytes);
        return rc;
}

/* Until the entry is in the manifest that the store has. */
static int note(struct df_archive_part *p, struct df_archive_entry *e, struct df_error *err)
{
        for (;;) {
                const struct df_archive_entry *last = df_archive_last(p);
                bool there;
                int rc = agrees(p, e, &there, err);

                if (rc < 0 || there)
                        return rc;
                if (last && last->end != e->first)
                        return df_fail(err, DF_ECORRUPT,
                                       "%s/%u: the manifest ends at offset %llu, the next segment "
                                       "begins at %llu (A2)",
                                       p->id.topic, p->id.partition, (unsigned long long)last->end,
                                       (unsigned long long)e->first);
                rc = dfi_archive_manifest_chain(&p->manifest, e, e->chain, err);
                if (rc == 0)
                        rc = dfi_archive_manifest_grow(&p->manifest, e, err);
                if (rc == 0)
                        rc = put_manifest(p, err);
                if (rc < 0 && rc != DF_EEXIST)
                        return rc;
                /* Ours or not: go on with what is there, and with its version. */
                rc = read_manifest(p, err);
                if (rc < 0)
                        return rc;
        }
}

/* The segment ends before `end`; the next begins where the archive ends now. */
static int cut(struct df_archive_part *p, uint64_t end, struct df_error *err)
{
        struct df_archive_entry e;
        int rc = put_segment(p, end, &e, err);

        if (rc == 0)
                rc = step(p, "archive.manifest", err);
        if (rc == 0)
                rc = note(p, &e, err);
        if (rc == 0)
                rc = step(p, "archive.done", err);
        if (rc < 0)
                return rc;
        p->position = df_archive_last(p)->end;
        df_segment_begin(p->writer, p->position);
        return 0;
}

int df_archive_add(struct df_archive_part *p, const struct df_record *r, struct df_error *err)
{
        int rc = 0;

        if (r->offset < p->position)
                return 0; /* it is archived */
        if (!df_segment_takes(p->writer, r)) {
                rc = cut(p, r->offset, err);
                if (rc < 0 || p->position != r->offset)
                        return rc; /* or others are further: go there */
        }
        rc = df_segment_add(p->writer, r, err);
        if (rc < 0)
                return rc;
        p->position = r->offset + 1;
        return p->options.ends && p->options.ends(r) ? cut(p, p->position, err) : 0;
}

void df_archive_close(struct df_archive_part *p)
{
        if (!p)
                return;
        df_archive_manifest_release(&p->manifest);
        df_segment_writer_destroy(p->writer);
        free(p);
}
