/* log.c - a log that goes on where the live one has forgotten: archive first, then the log itself
 * (df/archive.h, df_archive_log_open). */
#include <stdlib.h>
#include <string.h>

#include "archive_private.h"

struct archive_log {
        struct df_log base;
        struct df_log *live; /* NULL: copies of an archive alone */
        bool copies;         /* what is archived is read from the archive alone */
        struct df_objects *objects;
};

struct archive_log_reader {
        struct df_log_reader base;
        struct df_segment_id id;
        struct df_archive_reader *archive; /* NULL: behind what it holds */
        struct df_log_reader *live;        /* NULL: not there yet */
        bool archive_alone;                /* nothing of it is in the live log, or there is none */
        uint64_t position;
};

static struct archive_log *log_of(struct df_log *l)
{
        return (struct archive_log *)l;
}
static struct archive_log_reader *reader_of(struct df_log_reader *r)
{
        return (struct archive_log_reader *)r;
}
_Static_assert(offsetof(struct archive_log, base) == 0, "base is the first member");
_Static_assert(offsetof(struct archive_log_reader, base) == 0, "base is the first member");

static int read_only(struct df_error *err)
{
        return df_fail(err, DF_EINVAL, "an archive without its log is read only");
}

/* ---- topics ---- */

struct topic_walk {
        int (*fn)(void *arg, const struct df_topic_info *info);
        void *arg;
        const char *prefix;
        struct df_topic_info info;
};

static int end_topic(struct topic_walk *w)
{
        return w->info.name[0] ? w->fn(w->arg, &w->info) : 0;
}

/* Partitions come one after the other; the last one says how many there are. */
static int on_partition(void *arg, const struct df_segment_id *id)
{
        struct topic_walk *w = arg;
        int rc = 0;

        if (strncmp(id->topic, w->prefix, strlen(w->prefix)) != 0)
                return 0;
        if (strcmp(id->topic, w->info.name) != 0 || id->generation != w->info.generation) {
                rc = end_topic(w);
                w->info = (struct df_topic_info){.generation = id->generation};
                memcpy(w->info.name, id->topic, sizeof(w->info.name));
        }
        w->info.partitions = id->partition + 1;
        return rc;
}

static int list_archived(struct archive_log *log, const char *prefix,
                         int (*fn)(void *, const struct df_topic_info *), void *arg,
                         struct df_error *err)
{
        struct topic_walk w = {.fn = fn, .arg = arg, .prefix = prefix};
        int rc = df_archive_list(log->objects, on_partition, &w, err);

        return rc == 0 ? end_topic(&w) : rc;
}

static int list_topics(struct df_log *l, const char *prefix,
                       int (*fn)(void *, const struct df_topic_info *), void *arg,
                       struct df_error *err)
{
        struct archive_log *log = log_of(l);
        int rc = log->copies || !log->live ? list_archived(log, prefix, fn, arg, err) : 0;

        return rc == 0 && log->live ? df_log_topic_list(log->live, prefix, fn, arg, err) : rc;
}

static int topic_create(struct df_log *l, const char *topic, uint32_t partitions,
                        struct df_error *err)
{
        struct archive_log *log = log_of(l);

        return log->live ? df_log_topic_create(log->live, topic, partitions, err) : read_only(err);
}

static int topic_delete(struct df_log *l, const char *topic, struct df_error *err)
{
        struct archive_log *log = log_of(l);

        return log->live ? df_log_topic_delete(log->live, topic, err) : read_only(err);
}

/* The writer is the live log's own. */
static int writer_open(struct df_log *l, const char *topic, struct df_log_writer **ret,
                       struct df_error *err)
{
        struct archive_log *log = log_of(l);

        return log->live ? df_log_writer_open(log->live, topic, ret, err) : read_only(err);
}

struct find {
        const char *topic;
        struct df_topic_info info;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct find *f = arg;

        if (strcmp(info->name, f->topic) == 0)
                f->info = *info;
        return 0;
}

/* Its generation now, and whether the archive alone has it. DF_ENOENT. */
static int identify(struct df_log *l, const char *topic, uint32_t partition,
                    struct df_segment_id *ret, bool *ret_alone, struct df_error *err)
{
        struct archive_log *log = log_of(l);
        struct find f = {.topic = topic};
        bool archived = log->copies || !log->live;
        int rc = archived ? list_archived(log, topic, on_topic, &f, err) : 0;

        *ret_alone = archived && (f.info.name[0] || !log->live);
        if (rc == 0 && !*ret_alone)
                rc = df_log_topic_list(log->live, topic, on_topic, &f, err);
        if (rc == 0 && (!f.info.name[0] || partition >= f.info.partitions))
                rc = df_fail(err, DF_ENOENT, "there is no %s/%u", topic, partition);
        *ret = (struct df_segment_id){.generation = f.info.generation, .partition = partition};
        memcpy(ret->topic, f.info.name, sizeof(ret->topic));
        return rc;
}

/* ---- reading ---- */

static int open_live(struct archive_log_reader *r, struct df_error *err)
{
        struct archive_log *log = log_of(r->base.log);

        return df_log_reader_open(log->live, r->id.topic, r->id.partition, r->position, NULL,
                                  &r->live, err);
}

/* The archive where it holds the position, otherwise the log. */
static int go(struct archive_log_reader *r, struct df_error *err)
{
        struct archive_log *log = log_of(r->base.log);
        const struct df_archive_manifest *m;
        int rc = df_archive_reader_open(log->objects, &r->id, r->position, &r->archive, err);

        if (rc == 0) {
                m = df_archive_reader_manifest(r->archive);
                if (m->count > 0 && r->position < m->entries[m->count - 1].end)
                        return 0;
                df_archive_reader_close(r->archive);
                r->archive = NULL;
        } else if (rc != DF_ENOENT && rc != DF_EOFFSET) {
                return rc;
        }
        return r->archive_alone ? rc : open_live(r, err);
}

static void reader_close(struct df_log_reader *base)
{
        struct archive_log_reader *r = reader_of(base);

        df_archive_reader_close(r->archive);
        df_log_reader_close(r->live);
        free(r);
}

/* DF_OFFSET_END is the live log's. What leaves the log is archived: nobody needs to hold it, so a
 * consumer's name is not registered. */
static int reader_open(struct df_log *l, const char *topic, uint32_t partition, uint64_t from,
                       const char *consumer, struct df_log_reader **ret, struct df_error *err)
{
        struct archive_log_reader *r = calloc(1, sizeof(*r));
        int rc;

        (void)consumer;
        *ret = NULL;
        if (!r)
                return df_fail(err, DF_ENOMEM, "reader of %s/%u", topic, partition);
        r->base.log = l;
        r->position = from;
        rc = identify(l, topic, partition, &r->id, &r->archive_alone, err);
        if (rc == 0)
                rc = from == DF_OFFSET_END && !r->archive_alone ? open_live(r, err) : go(r, err);
        if (rc < 0) {
                reader_close(&r->base);
                return rc;
        }
        *ret = &r->base;
        return 0;
}

static uint64_t position(struct df_log_reader *base)
{
        struct archive_log_reader *r = reader_of(base);

        return r->live ? df_log_position(r->live) : r->position;
}

static int poll(struct df_log_reader *base, struct df_record *records, size_t max,
                size_t *ret_count, struct df_error *err)
{
        struct archive_log_reader *r = reader_of(base);

        while (r->archive) {
                int rc = df_archive_reader_next(r->archive, records, max, ret_count, err);

                if (rc < 0)
                        return rc;
                r->position = df_archive_reader_position(r->archive);
                if (*ret_count > 0)
                        return 0;
                df_archive_reader_close(r->archive);
                r->archive = NULL;
                if (r->archive_alone)
                        break;
                rc = go(r, err); /* the archive may have grown meanwhile */
                if (rc < 0)
                        return rc;
        }
        *ret_count = 0;
        return r->live ? df_log_poll(r->live, records, max, ret_count, err) : 0;
}

static int release(struct df_log_reader *base, uint64_t offset, struct df_error *err)
{
        (void)base;
        (void)offset;
        (void)err;
        return 0;
}

static int seen_end(struct df_log_reader *base, uint64_t *ret_end, struct df_error *err)
{
        struct archive_log_reader *r = reader_of(base);

        if (!r->live)
                return df_fail(err, DF_EAGAIN, "it reads the archive");
        return df_log_seen_end(r->live, r->id.topic, r->id.partition, ret_end, err);
}

/* ---- places ---- */

/* DF_ENOENT: the archive holds nothing of it; *ret is then empty. *ret_live: where the rest of the
 * topic is; NULL: nowhere. */
static int manifest_of(struct df_log *l, const char *topic, uint32_t partition,
                       struct df_archive_manifest *ret, struct df_log **ret_live,
                       struct df_error *err)
{
        struct df_segment_id id;
        bool alone;
        int rc = identify(l, topic, partition, &id, &alone, err);

        *ret = (struct df_archive_manifest){0};
        *ret_live = alone ? NULL : log_of(l)->live;
        return rc < 0 ? rc : df_archive_manifest_read(log_of(l)->objects, &id, ret, err);
}

static int bounds(struct df_log *l, const char *topic, uint32_t partition, uint64_t *ret_first,
                  uint64_t *ret_end, struct df_error *err)
{
        struct df_archive_manifest m;
        struct df_log *live;
        int there = manifest_of(l, topic, partition, &m, &live, err), rc = 0;

        if (live)
                rc = df_log_bounds(live, topic, partition, ret_first, ret_end, err);
        if (rc == 0 && there == 0 && m.count > 0) {
                if (!live || m.entries[0].first < *ret_first)
                        *ret_first = m.entries[0].first;
                if (!live)
                        *ret_end = m.entries[m.count - 1].end;
        }
        df_archive_manifest_release(&m);
        return rc < 0 || (there == DF_ENOENT && live) ? rc : there;
}

/* The first record of the entry that was appended then. */
static int offset_in(struct archive_log *log, const struct df_archive_manifest *m, uint32_t entry,
                     int64_t append_ms, uint64_t *ret, struct df_error *err)
{
        struct df_archive_reader *r = NULL;
        struct df_record records[64];
        size_t count = 1;
        bool found = false;
        int rc = df_archive_reader_open(log->objects, &m->id, m->entries[entry].first, &r, err);

        *ret = m->entries[entry].end;
        while (rc == 0 && count > 0 && !found) {
                rc = df_archive_reader_next(r, records, 64, &count, err);
                for (size_t i = 0; rc == 0 && i < count && !found; i++) {
                        found = records[i].append_ms >= append_ms;
                        if (found)
                                *ret = records[i].offset;
                }
        }
        df_archive_reader_close(r);
        return rc;
}

static int offset_at(struct df_log *l, const char *topic, uint32_t partition, int64_t append_ms,
                     uint64_t *ret, struct df_error *err)
{
        struct archive_log *log = log_of(l);
        struct df_archive_manifest m;
        struct df_log *live;
        int rc = manifest_of(l, topic, partition, &m, &live, err);
        uint32_t i = 0;

        while (rc == 0 && i < m.count && m.entries[i].max_append_ms < append_ms)
                i++;
        if (rc == 0 && i < m.count)
                rc = offset_in(log, &m, i, append_ms, ret, err);
        else if (live && (rc == 0 || rc == DF_ENOENT))
                rc = df_log_offset_at(live, topic, partition, append_ms, ret, err);
        else if (rc == 0)
                *ret = m.count ? m.entries[m.count - 1].end : 0;
        df_archive_manifest_release(&m);
        return rc;
}

static void close_log(struct df_log *l)
{
        free(log_of(l));
}

static const struct df_log_ops ops = {
        .topic_create = topic_create,
        .topic_list = list_topics,
        .topic_delete = topic_delete,
        .writer_open = writer_open,
        .reader_open = reader_open,
        .poll = poll,
        .release = release,
        .position = position,
        .bounds = bounds,
        .seen_end = seen_end,
        .offset_at = offset_at,
        .reader_close = reader_close,
        .close = close_log,
};

int df_archive_log_open(struct df_log *live, struct df_objects *objects, struct df_log **ret,
                        struct df_error *err)
{
        struct archive_log *log = calloc(1, sizeof(*log));

        *ret = NULL;
        if (!log)
                return df_fail(err, DF_ENOMEM, "archive");
        log->base.ops = &ops;
        log->live = live;
        log->objects = objects;
        *ret = &log->base;
        return 0;
}

int df_archive_copies_open(struct df_log *own, struct df_objects *objects, struct df_log **ret,
                           struct df_error *err)
{
        int rc = df_archive_log_open(own, objects, ret, err);

        if (rc == 0)
                log_of(*ret)->copies = true;
        return rc;
}
