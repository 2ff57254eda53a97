/* manifest.c - the manifest of a partition's archive: its bytes, its chain, and how it grows. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive_private.h"
#include "df/sha256.h"

static void folder(const struct df_segment_id *id, char ret[DF_ARCHIVE_NAME_MAX])
{
        (void)snprintf(ret, DF_ARCHIVE_NAME_MAX, "archive/%s.%016llx/%05u", id->topic,
                       (unsigned long long)id->generation, id->partition);
}

void df_archive_segment_name(const struct df_segment_id *id, uint64_t first,
                             char ret[DF_ARCHIVE_NAME_MAX])
{
        size_t n;

        folder(id, ret);
        n = strlen(ret);
        (void)snprintf(ret + n, DF_ARCHIVE_NAME_MAX - n, "/%020llu.seg.zst",
                       (unsigned long long)first);
}

void dfi_archive_manifest_name(const struct df_segment_id *id, char ret[DF_ARCHIVE_NAME_MAX])
{
        folder(id, ret);
        (void)strncat(ret, "/manifest", DF_ARCHIVE_NAME_MAX - strlen(ret) - 1);
}

static void put_entry(struct df_buf *b, const struct df_archive_entry *e)
{
        df_pb_uint(b, 1, e->first);
        df_pb_uint(b, 2, e->end);
        df_pb_uint(b, 3, e->records);
        df_pb_uint(b, 4, e->raw_bytes);
        df_pb_uint(b, 5, e->bytes);
        df_pb_int(b, 6, e->min_append_ms);
        df_pb_int(b, 7, e->max_append_ms);
        df_pb_bytes(b, 8, df_bytes(e->sha256, sizeof(e->sha256)));
}

static void put_head(struct df_buf *b, const struct df_archive_manifest *m)
{
        df_pb_str(b, 1, m->id.topic);
        df_pb_fixed64(b, 2, m->id.generation);
        df_pb_uint(b, 3, m->id.partition);
        df_pb_uint(b, 4, m->limit);
}

int dfi_archive_manifest_chain(const struct df_archive_manifest *m,
                               const struct df_archive_entry *e, uint8_t ret[DF_SEGMENT_SHA256],
                               struct df_error *err)
{
        struct df_buf b = {0};
        int rc;

        if (m->count > 0)
                df_buf_append(&b, m->entries[m->count - 1].chain, DF_SEGMENT_SHA256);
        else
                put_head(&b, m);
        put_entry(&b, e);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = df_sha256(df_buf_bytes(&b), ret, err);
        df_buf_release(&b);
        return rc;
}

int dfi_archive_manifest_encode(const struct df_archive_manifest *m, struct df_buf *ret,
                                struct df_error *err)
{
        put_head(ret, m);
        if (m->count > 0)
                df_pb_bytes(ret, 5, df_bytes(m->entries[m->count - 1].chain, DF_SEGMENT_SHA256));
        for (uint32_t i = 0; i < m->count; i++) {
                size_t at = df_pb_begin(ret, 6);

                put_entry(ret, &m->entries[i]);
                df_pb_bytes(ret, 9, df_bytes(m->entries[i].chain, DF_SEGMENT_SHA256));
                df_pb_end(ret, at);
        }
        return df_buf_check(ret, err);
}

static bool get_hash(struct df_bytes from, uint8_t ret[DF_SEGMENT_SHA256])
{
        if (from.len != DF_SEGMENT_SHA256)
                return false;
        memcpy(ret, from.data, DF_SEGMENT_SHA256);
        return true;
}

static bool get_entry(struct df_bytes message, struct df_archive_entry *ret)
{
        struct df_reader r = df_reader(message);
        struct df_pb_field f;
        unsigned hashes = 0;

        *ret = (struct df_archive_entry){0};
        while (df_pb_next(&r, &f)) {
                switch (f.number) {
                case 1:
                        ret->first = f.u;
                        break;
                case 2:
                        ret->end = f.u;
                        break;
                case 3:
                        ret->records = f.u;
                        break;
                case 4:
                        ret->raw_bytes = f.u;
                        break;
                case 5:
                        ret->bytes = f.u;
                        break;
                case 6:
                        ret->min_append_ms = (int64_t)f.u;
                        break;
                case 7:
                        ret->max_append_ms = (int64_t)f.u;
                        break;
                case 8:
                        hashes += get_hash(f.bytes, ret->sha256);
                        break;
                case 9:
                        hashes += get_hash(f.bytes, ret->chain);
                        break;
                default:
                        break; /* of a later version */
                }
        }
        return !r.bad && hashes == 2 && ret->end > ret->first;
}

int dfi_archive_manifest_grow(struct df_archive_manifest *m, const struct df_archive_entry *e,
                              struct df_error *err)
{
        struct df_archive_entry *grown;

        if (m->count == DF_ARCHIVE_ENTRIES_MAX)
                return df_fail(err, DF_ELIMIT, "a manifest of %u segments", m->count);
        if (m->count == m->cap) {
                uint32_t cap = m->cap ? m->cap * 2 : 16;

                grown = realloc(m->entries, cap * sizeof(*grown));
                if (!grown)
                        return df_fail(err, DF_ENOMEM, "a manifest of %u segments", cap);
                m->entries = grown;
                m->cap = cap;
        }
        m->entries[m->count++] = *e;
        return 0;
}

static int bad(const char *name, const char *what, struct df_error *err)
{
        return df_fail(err, DF_ECORRUPT,
                       "%s: %s: put a whole copy in its place; segments are not read past it "
                       "(docs/ARCHIVE.md)",
                       name, what);
}

static int add_read(struct df_archive_manifest *m, struct df_bytes message, const char *name,
                    struct df_error *err)
{
        const struct df_archive_entry *before = m->count ? &m->entries[m->count - 1] : NULL;
        uint8_t chain[DF_SEGMENT_SHA256];
        struct df_archive_entry e;
        int rc;

        if (!get_entry(message, &e))
                return bad(name, "an entry cannot be read", err);
        if (before && e.first != before->end)
                return bad(name, "an entry does not begin where the one before it ends", err);
        rc = dfi_archive_manifest_chain(m, &e, chain, err);
        if (rc == 0 && memcmp(chain, e.chain, sizeof(chain)) != 0)
                rc = bad(name, "the chain is broken: an entry was changed", err);
        return rc < 0 ? rc : dfi_archive_manifest_grow(m, &e, err);
}

static bool ends_with(const struct df_archive_manifest *m, struct df_bytes chain)
{
        return df_bytes_eq(chain, df_bytes(m->entries[m->count - 1].chain, DF_SEGMENT_SHA256));
}

int dfi_archive_manifest_decode(struct df_bytes bytes, const char *name,
                                struct df_archive_manifest *m, struct df_error *err)
{
        struct df_reader r = df_reader(bytes);
        struct df_segment_id is = {0};
        struct df_bytes last = {0};
        struct df_pb_field f;
        int rc = 0;

        while (rc == 0 && df_pb_next(&r, &f)) {
                if (f.number == 1 && f.bytes.len <= DF_TOPIC_NAME_MAX && f.bytes.len > 0)
                        memcpy(is.topic, f.bytes.data, f.bytes.len);
                else if (f.number == 2)
                        is.generation = f.u;
                else if (f.number == 3)
                        is.partition = (uint32_t)f.u;
                else if (f.number == 4)
                        m->limit = f.u;
                else if (f.number == 5)
                        last = f.bytes;
                else if (f.number == 6)
                        rc = add_read(m, f.bytes, name, err);
        }
        if (rc == 0 && (r.bad || m->count == 0 || !ends_with(m, last)))
                return bad(name, "the manifest is cut", err);
        if (rc == 0 && (strcmp(is.topic, m->id.topic) != 0 || is.generation != m->id.generation ||
                        is.partition != m->id.partition))
                return bad(name, "the manifest of another partition", err);
        return rc;
}

int df_archive_manifest_read(struct df_objects *o, const struct df_segment_id *id,
                             struct df_archive_manifest *ret, struct df_error *err)
{
        char name[DF_ARCHIVE_NAME_MAX];
        struct df_buf bytes = {0};
        int rc;

        *ret = (struct df_archive_manifest){.id = *id};
        dfi_archive_manifest_name(id, name);
        rc = df_objects_get(o, name, &bytes, &ret->version, err);
        if (rc == 0)
                rc = dfi_archive_manifest_decode(df_buf_bytes(&bytes), name, ret, err);
        df_buf_release(&bytes);
        if (rc < 0)
                df_archive_manifest_release(ret);
        return rc;
}

void df_archive_manifest_release(struct df_archive_manifest *m)
{
        free(m->entries);
        m->entries = NULL;
        m->count = m->cap = 0;
}
