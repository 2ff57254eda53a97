#include "jobs/archive/parts.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "df/archive.h"
#include "df/run.h"
#include "df/trace.h"
#include "jobs/common/settings.h"
#include "proto/wire.h"

#define RECORDS 512 /* of one partition, before the next one has its turn */
#define CONSUMER "archive"
#define RELEASE_EVERY_MS 60000 /* also without progress: the registration's lease */
#define RETRY_MIN_MS 1000
#define RETRY_MAX_MS 30000

/* How a part stands. The outside sees a copy, under the lock. */
struct view {
        uint64_t position, end; /* read up to here; archived up to here */
        uint64_t segments, bytes;
        int64_t oldest_ms; /* append time of the oldest record that is not archived; 0 = none */
        int refused;       /* enum df_err of the last failure, 0 while it works */
};

struct part {
        struct ad_archive_parts *all;
        struct df_segment_id id;
        char name[DF_TOPIC_NAME_MAX + 16]; /* "events/3" */
        struct df_archive_part *archive;   /* NULL: to be opened, not before retry_ms */
        struct df_log_reader *reader;
        int64_t retry_ms, wait_ms, released_ms;
        uint64_t end;
        bool warned;
        struct view now, view;
        struct part *next;
};

struct ad_archive_parts {
        const struct df_config *config;
        struct df_log *log;
        struct df_objects *objects;
        struct part *first, **last;
        pthread_mutex_t lock; /* of the list's growth and of the views */
};

int ad_archive_parts_create(const struct df_config *c, struct df_log *log,
                            struct df_objects *objects, struct ad_archive_parts **ret,
                            struct df_error *err)
{
        struct ad_archive_parts *p = calloc(1, sizeof(*p));

        *ret = p;
        if (!p)
                return df_fail(err, DF_ENOMEM, "archive");
        p->config = c;
        p->log = log;
        p->objects = objects;
        p->last = &p->first;
        pthread_mutex_init(&p->lock, NULL);
        return 0;
}

/* ---- which partitions there are ---- */

struct discovery {
        struct ad_archive_parts *all;
        struct df_error *err;
};

static int add_part(struct ad_archive_parts *all, const struct df_topic_info *info, uint32_t index,
                    struct df_error *err)
{
        struct part *p = calloc(1, sizeof(*p));

        if (!p)
                return df_fail(err, DF_ENOMEM, "archive of %s/%u", info->name, index);
        p->all = all;
        p->id = (struct df_segment_id){.generation = info->generation, .partition = index};
        (void)snprintf(p->id.topic, sizeof(p->id.topic), "%s", info->name);
        (void)snprintf(p->name, sizeof(p->name), "%s/%u", info->name, index);
        p->wait_ms = RETRY_MIN_MS;
        pthread_mutex_lock(&all->lock);
        *all->last = p;
        all->last = &p->next;
        pthread_mutex_unlock(&all->lock);
        return 0;
}

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct discovery *d = arg;
        int rc = 0;

        for (const struct part *p = d->all->first; p; p = p->next)
                if (strcmp(p->id.topic, info->name) == 0)
                        return 0;
        for (uint32_t i = 0; rc == 0 && i < info->partitions; i++)
                rc = add_part(d->all, info, i, d->err);
        if (rc == 0)
                df_trace(DF_INFO, "archive", "topic=%s partitions=%u", info->name,
                         info->partitions);
        return rc;
}

static int on_events(void *arg, const struct df_topic_info *info)
{
        return strcmp(info->name, AD_TOPIC_EVENTS) == 0 ? on_topic(arg, info) : 0;
}

int ad_archive_parts_discover(struct ad_archive_parts *p, struct df_error *err)
{
        struct discovery d = {.all = p, .err = err};
        int rc = df_log_topic_list(p->log, AD_TOPIC_EVENTS, on_events, &d, err);

        if (rc == 0)
                rc = df_log_topic_list(p->log, AD_TOPIC_IMPORT_PREFIX, on_topic, &d, err);
        return rc;
}

/* ---- one partition ---- */

static int step(void *arg, const char *name, struct df_error *err)
{
        return df_failpoint(((const struct part *)arg)->name, name, err);
}

static void close_part(struct part *p)
{
        df_archive_close(p->archive);
        df_log_reader_close(p->reader);
        p->archive = NULL;
        p->reader = NULL;
}

/* Read on from what the archive wants next. */
static int seek(struct part *p, struct df_error *err)
{
        df_log_reader_close(p->reader);
        p->reader = NULL;
        return df_log_reader_open(p->all->log, p->id.topic, p->id.partition,
                                  df_archive_position(p->archive), CONSUMER, &p->reader, err);
}

/* Behind an import nothing comes, perhaps for ever (R6): it is archived as soon as it has ended. */
static bool ends_import(const struct df_record *r)
{
        struct ad_batch b;

        return ad_wire_batch_peek(r->value, &b, NULL) == 0 && b.has_import_end;
}

static int open_part(struct part *p, struct df_error *err)
{
        bool import =
                strncmp(p->id.topic, AD_TOPIC_IMPORT_PREFIX, strlen(AD_TOPIC_IMPORT_PREFIX)) == 0;
        struct df_archive_options o = {
                .objects = p->all->objects,
                .ends = import ? ends_import : NULL,
                .limit = df_config_bytes(p->all->config, "archive-segment"),
                .step = step,
                .step_arg = p,
        };
        uint64_t end;
        int rc = df_log_bounds(p->all->log, p->id.topic, p->id.partition, &o.start, &end, err);

        if (rc == 0)
                rc = df_archive_open(&o, &p->id, &p->archive, err);
        if (rc == 0)
                rc = seek(p, err);
        if (rc == 0)
                p->end = df_archive_end(p->archive);
        return rc;
}

/* What is archived may leave the log (L2). */
static int release(struct part *p, struct df_error *err)
{
        int64_t now = df_monotonic_ms();
        uint64_t end = df_archive_end(p->archive);

        if (end == p->end && now - p->released_ms < RELEASE_EVERY_MS)
                return 0;
        p->released_ms = now;
        p->end = end;
        return df_log_release(p->reader, end, err);
}

/* Published, or further than we by another archiver. */
static void note_published(struct part *p, const struct df_record *r)
{
        const struct df_archive_entry *e = df_archive_last(p->archive);

        p->now.segments++;
        p->now.bytes += e->bytes;
        p->now.oldest_ms = r->offset >= e->end ? r->append_ms : 0;
        df_trace(DF_DEBUG, "archive",
                 "partition=%s offsets=%" PRIu64 "..%" PRIu64 " bytes=%" PRIu64, p->name, e->first,
                 e->end, e->bytes);
}

static int add_records(struct part *p, const struct df_record *records, size_t count,
                       struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < count; i++) {
                const struct df_record *r = &records[i];
                uint64_t end = df_archive_end(p->archive), next;

                rc = df_archive_add(p->archive, r, err);
                if (rc < 0)
                        return rc;
                if (df_archive_end(p->archive) != end)
                        note_published(p, r);
                else if (p->now.oldest_ms == 0 && r->offset >= end)
                        p->now.oldest_ms = r->append_ms;
                next = df_archive_position(p->archive);
                if (next <= r->offset || (i + 1 < count && next > records[count - 1].offset))
                        return seek(p, err); /* others are at another place */
        }
        return rc;
}

static int read_part(struct part *p, size_t *ret_count, struct df_error *err)
{
        struct df_record records[RECORDS];
        int rc = df_log_poll(p->reader, records, RECORDS, ret_count, err);

        if (rc == 0)
                rc = add_records(p, records, *ret_count, err);
        return rc == 0 ? release(p, err) : rc;
}

/* A3: a person is told once, and again after it was well. */
static void look_at_lag(struct part *p, int64_t limit_ms)
{
        int64_t lag = p->now.oldest_ms ? df_wall_ms() - p->now.oldest_ms : 0;
        bool late = lag > limit_ms / 2;

        if (late && !p->warned)
                df_trace(DF_WARN, "archive",
                         "partition=%s: the oldest record that is not archived is %lld min old, "
                         "and --keep-log keeps %lld min: what expires unarchived is lost to bills "
                         "(A3)",
                         p->name, (long long)(lag / 60000), (long long)(limit_ms / 60000));
        p->warned = late;
}

static void failed(struct part *p, const struct df_error *err)
{
        df_trace(DF_ERROR, "archive", "partition=%s code=%s: %s; again in %lld s", p->name,
                 df_err_code(err->code), err->text, (long long)(p->wait_ms / 1000));
        close_part(p);
        p->retry_ms = df_monotonic_ms() + p->wait_ms;
        p->wait_ms = p->wait_ms * 2 < RETRY_MAX_MS ? p->wait_ms * 2 : RETRY_MAX_MS;
}

static size_t step_part(struct part *p)
{
        struct df_error err = {0};
        size_t count = 0;
        int rc = 0;

        if (!p->archive && df_monotonic_ms() < p->retry_ms)
                return 0;
        if (!p->archive)
                rc = open_part(p, &err);
        if (rc == 0)
                rc = read_part(p, &count, &err);
        if (rc == 0) {
                p->wait_ms = RETRY_MIN_MS;
                look_at_lag(p, df_config_ms(p->all->config, "keep-log"));
        }
        p->now.refused = rc;
        if (p->archive) {
                p->now.position = df_archive_position(p->archive);
                p->now.end = df_archive_end(p->archive);
        }
        pthread_mutex_lock(&p->all->lock);
        p->view = p->now;
        pthread_mutex_unlock(&p->all->lock);
        if (rc < 0)
                failed(p, &err);
        return rc == 0 ? count : 0;
}

size_t ad_archive_parts_step(struct ad_archive_parts *all)
{
        size_t sum = 0;

        for (struct part *p = all->first; p && !df_process_stopping(); p = p->next)
                sum += step_part(p);
        return sum;
}

/* ---- metrics ---- */

static double lag_seconds(const struct view *v)
{
        return v->oldest_ms ? (double)(df_wall_ms() - v->oldest_ms) / 1000 : 0;
}

static void render_one(struct df_buf *b, const struct part *p, const char *name)
{
        const struct view *v = &p->view;
        char labels[DF_TOPIC_NAME_MAX + 48];
        double value = strcmp(name, "adtally_archive_position") == 0         ? (double)v->position
                       : strcmp(name, "adtally_archive_end") == 0            ? (double)v->end
                       : strcmp(name, "adtally_archive_segments_total") == 0 ? (double)v->segments
                       : strcmp(name, "adtally_archive_bytes_total") == 0    ? (double)v->bytes
                       : strcmp(name, "adtally_archive_refused") == 0 ? (double)(v->refused != 0)
                                                                      : lag_seconds(v);

        (void)snprintf(labels, sizeof(labels), "stream=\"%s\",partition=\"%u\"", p->id.topic,
                       p->id.partition);
        df_metric(b, name, labels, value);
}

void ad_archive_parts_render(struct ad_archive_parts *all, struct df_buf *b)
{
        static const char *const names[] = {
                "adtally_archive_position",       "adtally_archive_end",
                "adtally_archive_segments_total", "adtally_archive_bytes_total",
                "adtally_archive_refused",        "adtally_archive_lag_seconds",
        };

        pthread_mutex_lock(&all->lock);
        for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
                const char *kind = strstr(names[i], "_total") ? "counter" : "gauge";

                df_buf_printf(b, "# TYPE %s %s\n", names[i], kind);
                for (const struct part *p = all->first; p; p = p->next)
                        render_one(b, p, names[i]);
        }
        pthread_mutex_unlock(&all->lock);
        df_buf_printf(b, "# TYPE adtally_archive_lag_limit_seconds gauge\n");
        df_metric(b, "adtally_archive_lag_limit_seconds", "",
                  (double)df_config_ms(all->config, "keep-log") / 1000);
}

void ad_archive_parts_destroy(struct ad_archive_parts *all)
{
        if (!all)
                return;
        while (all->first) {
                struct part *next = all->first->next;

                close_part(all->first);
                free(all->first);
                all->first = next;
        }
        pthread_mutex_destroy(&all->lock);
        free(all);
}
