/* migrate_copy.c - records from the file log to Kafka, and the proof that they are the same. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "df/kafka_copy.h"
#include "jobs/adtally/migrate.h"

#define BATCH 512
#define FILLERS 8192
#define SILENCE_MS 60000

int ad_move_step(const char *name, struct df_error *err)
{
        if (df_process_stopping())
                return df_fail(err, DF_EAGAIN,
                               "stopped; going on with the file log is possible, too");
        return df_failpoint("migrate", name, err);
}

/* ---- reading ---- */

struct place {
        struct df_log *log;
        const char *topic;
        uint32_t partition;
        uint64_t from, end;
};

/* fn gets the records of [from, end), each at the offset that follows the one before. */
static int read_all(const struct place *at,
                    int (*fn)(void *arg, const struct df_record *r, size_t n, struct df_error *err),
                    void *arg, struct df_error *err)
{
        struct df_record records[BATCH];
        struct df_log_reader *r = NULL;
        uint64_t next = at->from;
        int64_t until = df_monotonic_ms() + SILENCE_MS;
        int rc = next < at->end ? df_log_reader_open(at->log, at->topic, at->partition, next, NULL,
                                                     &r, err)
                                : 0;

        while (rc == 0 && next < at->end) {
                size_t n = 0;

                rc = df_log_poll(r, records, BATCH, &n, err);
                while (rc == 0 && n > 0 && records[n - 1].offset >= at->end)
                        n--; /* what lies behind was not asked for */
                for (size_t i = 0; rc == 0 && i < n; i++, next++)
                        if (records[i].offset != next)
                                rc = df_fail(err, DF_ECORRUPT,
                                             "%s/%u: offset %" PRIu64 " follows %" PRIu64
                                             " records, and the end is %" PRIu64,
                                             at->topic, at->partition, records[i].offset, next,
                                             at->end);
                if (rc == 0 && n > 0) {
                        rc = fn(arg, records, n, err);
                        until = df_monotonic_ms() + SILENCE_MS;
                } else if (rc == 0 && df_monotonic_ms() > until) {
                        rc = df_fail(err, DF_EAGAIN,
                                     "%s/%u: nothing at offset %" PRIu64 " for %d s", at->topic,
                                     at->partition, next, SILENCE_MS / 1000);
                } else if (rc == 0) {
                        (void)usleep(1000);
                }
        }
        df_log_reader_close(r);
        return rc;
}

/* ---- digests ---- */

struct tally {
        struct ad_move_part part;
        struct df_sha256_stream *sha;
        struct df_progress *progress;
        uint64_t *done; /* bytes, of the progress */
        const char *step;
};

static int tally(void *arg, const struct df_record *r, size_t n, struct df_error *err)
{
        struct tally *t = arg;
        int rc = ad_move_step(t->step, err);

        for (size_t i = 0; rc == 0 && i < n; i++) {
                uint64_t head[3] = {r[i].offset, (uint64_t)r[i].append_ms, r[i].value.len};

                t->part.records++;
                t->part.bytes += r[i].value.len;
                if (t->part.records == 1 || r[i].append_ms < t->part.oldest_ms)
                        t->part.oldest_ms = r[i].append_ms;
                *t->done += r[i].value.len;
                rc = df_sha256_add(t->sha, df_bytes(head, sizeof(head)), err);
                if (rc == 0)
                        rc = df_sha256_add(t->sha, r[i].value, err);
        }
        df_progress_show(t->progress, *t->done);
        return rc;
}

static int digest(const struct place *at, struct tally *t, struct df_error *err)
{
        int rc;

        t->part = (struct ad_move_part){.first = at->from, .end = at->end};
        t->sha = df_sha256_new(err);
        if (!t->sha)
                return DF_ENOMEM;
        rc = read_all(at, tally, t, err);
        if (rc < 0) {
                (void)df_sha256_end(t->sha, NULL, NULL);
                return rc;
        }
        return df_sha256_end(t->sha, t->part.digest, err);
}

int ad_move_scan(struct ad_move *m, struct df_error *err)
{
        struct df_progress progress;
        uint64_t done = 0;
        struct tally t = {.progress = &progress, .done = &done, .step = "scan"};
        int rc = 0;

        df_progress_start(&progress, "reading the file log", "bytes", 0, m->quiet);
        for (size_t i = 0; rc == 0 && i < m->topic_count; i++)
                for (uint32_t p = 0; rc == 0 && p < m->topics[i].info.partitions; p++) {
                        struct ad_move_part *part = &m->topics[i].parts[p];
                        struct place at = {m->from, m->topics[i].info.name, p, part->first,
                                           part->end};

                        rc = digest(&at, &t, err);
                        if (rc == 0)
                                *part = t.part;
                }
        df_progress_end(&progress, done);
        return rc;
}

/* ---- copy ---- */

struct copy {
        struct df_log_writer *writer;
        const char *topic;
        uint32_t partition;
        uint64_t next;
        struct df_append *items; /* FILLERS */
        struct df_progress *progress;
        uint64_t *done;
};

static int append(struct copy *c, size_t n, struct df_error *err)
{
        int rc = ad_move_step("copy", err);

        if (rc == 0)
                rc = df_log_append(c->writer, c->items, n, err);
        if (rc < 0)
                return df_wrap(err, "copying %s/%u", c->topic, c->partition);
        for (size_t i = 0; rc == 0 && i < n; i++, c->next++)
                if (c->items[i].ret_offset != c->next)
                        rc = df_fail(err, DF_ECORRUPT,
                                     "%s/%u: a record came to offset %" PRIu64
                                     " instead of %" PRIu64
                                     ": something else writes there. Delete the topic, then run it "
                                     "again",
                                     c->topic, c->partition, c->items[i].ret_offset, c->next);
        return rc;
}

static int copy_records(void *arg, const struct df_record *r, size_t n, struct df_error *err)
{
        struct copy *c = arg;
        int rc;

        for (size_t i = 0; i < n; i++) {
                c->items[i] = (struct df_append){.partition = c->partition,
                                                 .value = r[i].value,
                                                 .ret_append_ms = r[i].append_ms};
                *c->done += r[i].value.len;
        }
        rc = append(c, n, err);
        df_progress_show(c->progress, *c->done);
        return rc;
}

/* The offsets that the file log has deleted: an offset cannot be skipped on Kafka. */
static int fill(struct copy *c, const struct ad_move_part *part, int64_t ms, struct df_error *err)
{
        int rc = 0;

        while (rc == 0 && c->next < part->first) {
                uint64_t left = part->first - c->next;
                size_t n = left < FILLERS ? (size_t)left : FILLERS;

                for (size_t i = 0; i < n; i++)
                        c->items[i] = (struct df_append){
                                .partition = c->partition,
                                .value = df_bytes("", 0),
                                .ret_append_ms = part->records ? part->oldest_ms : ms};
                rc = append(c, n, err);
        }
        return rc;
}

static int copy_part(const struct ad_move *m, const struct ad_move_topic *t, struct copy *c,
                     struct df_error *err)
{
        const struct ad_move_part *part = &t->parts[c->partition];
        struct place at = {m->from, t->info.name, c->partition, 0, part->end};
        uint64_t low = 0, high = 0;
        int rc = df_log_bounds(m->to, t->info.name, c->partition, &low, &high, err);

        if (rc < 0)
                return rc;
        if (high > part->end || low > part->first)
                return df_fail(err, DF_ECORRUPT,
                               "%s/%u on the cluster has offsets %" PRIu64 " to %" PRIu64
                               ", the file log %" PRIu64 " to %" PRIu64
                               ": it is no copy. Delete the topic, then run it again",
                               t->info.name, c->partition, low, high, part->first, part->end);
        c->next = high;
        rc = fill(c, part, m->now_ms, err);
        at.from = c->next;
        if (rc == 0)
                rc = read_all(&at, copy_records, c, err);
        if (rc == 0 && low < part->first)
                rc = ad_move_step("trim", err);
        if (rc == 0 && low < part->first)
                rc = df_kafka_copy_trim(m->to, t->info.name, c->partition, part->first, err);
        return rc;
}

static int copy_topic(const struct ad_move *m, struct ad_move_topic *t, struct copy *c,
                      struct df_error *err)
{
        int rc;

        if (t->finished)
                return 0;
        c->topic = t->info.name;
        rc = df_kafka_copy_writer(m->to, t->info.name, &c->writer, err);
        for (c->partition = 0; rc == 0 && c->partition < t->info.partitions; c->partition++)
                rc = copy_part(m, t, c, err);
        df_log_writer_close(c->writer);
        c->writer = NULL;
        return rc;
}

/* `events`, the last, first: from then on no job starts there and makes topics of its own. */
static int begin_all(struct ad_move *m, struct df_error *err)
{
        int rc = 0;

        for (size_t i = m->topic_count; rc == 0 && i-- > 0;) {
                struct ad_move_topic *t = &m->topics[i];

                rc = ad_move_step("begin", err);
                if (rc == 0)
                        rc = df_kafka_copy_begin(m->to, &t->info, t->ends, &t->finished, err);
        }
        return rc;
}

static uint64_t all_bytes(const struct ad_move *m)
{
        uint64_t n = 0;

        for (size_t i = 0; i < m->topic_count; i++)
                for (uint32_t p = 0; p < m->topics[i].info.partitions; p++)
                        n += m->topics[i].parts[p].bytes;
        return n;
}

int ad_move_copy(struct ad_move *m, struct df_error *err)
{
        struct df_progress progress;
        uint64_t done = 0;
        struct copy c = {.progress = &progress, .done = &done};
        int rc = begin_all(m, err);

        c.items = calloc(FILLERS, sizeof(*c.items));
        if (rc == 0 && !c.items)
                rc = df_fail(err, DF_ENOMEM, "%d records", FILLERS);
        df_progress_start(&progress, "copying", "bytes", all_bytes(m), m->quiet);
        for (size_t i = 0; rc == 0 && i < m->topic_count; i++)
                rc = copy_topic(m, &m->topics[i], &c, err);
        df_progress_end(&progress, done);
        free(c.items);
        return rc;
}

/* ---- compare ---- */

struct difference { /* one side is read a batch at a time beside the other */
        struct place file;
        uint64_t at;
        bool found;
};

struct side {
        const struct df_record *records;
        size_t count, same;
};

static int against(void *arg, const struct df_record *r, size_t n, struct df_error *err)
{
        struct side *s = arg;

        (void)err;
        for (size_t i = 0; i < n && s->same < s->count; i++, s->same++) {
                const struct df_record *o = &s->records[s->same];

                if (o->append_ms != r[i].append_ms || !df_bytes_eq(o->value, r[i].value))
                        return 1;
        }
        return 0;
}

static int look_for(void *arg, const struct df_record *r, size_t n, struct df_error *err)
{
        struct difference *d = arg;
        struct side s = {.records = r, .count = n};
        struct place file = d->file;
        int rc;

        file.from = r[0].offset;
        file.end = r[0].offset + n;
        rc = read_all(&file, against, &s, err);
        d->at = r[0].offset + s.same;
        d->found = rc == 1;
        return rc;
}

/* The digests differ: where, for the person who has to look. */
static int name_difference(const struct ad_move *m, const struct place *at, struct df_error *err)
{
        struct difference d = {.file = *at};
        int rc;

        d.file.log = m->from;
        rc = read_all(at, look_for, &d, err);
        if (rc < 0)
                return rc;
        return df_fail(err, DF_ECORRUPT,
                       "%s/%u offset %" PRIu64
                       "%s differs on the cluster from the file log. Nothing "
                       "was switched: delete the topic there, then run it again",
                       at->topic, at->partition, d.at, d.found ? "" : " or one before");
}

static int compare_part(const struct ad_move *m, const struct ad_move_topic *t, uint32_t p,
                        struct tally *all, struct df_error *err)
{
        const struct ad_move_part *part = &t->parts[p];
        struct place at = {m->to, t->info.name, p, part->first, part->end};
        uint64_t low = 0, high = 0;
        int rc = df_log_bounds(m->to, t->info.name, p, &low, &high, err);

        if (rc == 0 && (low != part->first || high != part->end))
                return df_fail(err, DF_ECORRUPT,
                               "%s/%u has offsets %" PRIu64 " to %" PRIu64
                               " on the cluster, %" PRIu64 " to %" PRIu64
                               " in the file log. Nothing was switched: delete the topic there, "
                               "then run it again",
                               t->info.name, p, low, high, part->first, part->end);
        if (rc == 0)
                rc = digest(&at, all, err);
        if (rc < 0)
                return rc;
        if (all->part.records == part->records && all->part.bytes == part->bytes &&
            memcmp(all->part.digest, part->digest, sizeof(part->digest)) == 0)
                return 0;
        return name_difference(m, &at, err);
}

int ad_move_compare(struct ad_move *m, struct df_error *err)
{
        struct df_progress progress;
        uint64_t done = 0;
        struct tally t = {.progress = &progress, .done = &done, .step = "compare"};
        int rc = 0;

        df_progress_start(&progress, "comparing", "bytes", all_bytes(m), m->quiet);
        for (size_t i = 0; rc == 0 && i < m->topic_count; i++)
                for (uint32_t p = 0;
                     rc == 0 && !m->topics[i].finished && p < m->topics[i].info.partitions; p++)
                        rc = compare_part(m, &m->topics[i], p, &t, err);
        df_progress_end(&progress, done);
        return rc;
}
