/* log.c - the log port in memory. */
#include "broker_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

struct sim_log {
        struct df_log base;
        struct dfi_sim_at at;
};
struct dfi_sim_writer {
        struct df_log_writer base;
        struct dfi_sim_at at;
        struct dfi_sim_topic *topic;
        bool broken; /* L1: after DF_EIO nothing more is written */
};
struct sim_reader {
        struct df_log_reader base;
        struct dfi_sim_at at;
        struct dfi_sim_topic *topic;
        uint32_t partition;
        uint64_t position;
        char consumer[DFI_SIM_NAME_MAX]; /* "" = not registered */
        struct df_bytes *given;          /* values of the last poll; owned */
        size_t given_count, given_cap;
};

static const struct df_log_ops log_ops;

static struct sim_log *log_of(struct df_log *log)
{
        df_check(log->ops == &log_ops);
        return (struct sim_log *)log;
}

static struct dfi_sim_writer *writer_of(struct df_log_writer *w)
{
        df_check(w->log->ops == &log_ops);
        return (struct dfi_sim_writer *)w;
}

static struct sim_reader *reader_of(struct df_log_reader *r)
{
        df_check(r->log->ops == &log_ops);
        return (struct sim_reader *)r;
}

struct df_log *df_sim_log_open(struct df_sim *sim, uint32_t process)
{
        struct sim_log *l = dfi_sim_alloc(sizeof(*l));

        l->base.ops = &log_ops;
        l->at = dfi_sim_here(sim, process);
        sim->handles++;
        return &l->base;
}

static void log_close(struct df_log *base)
{
        struct sim_log *l = log_of(base);

        l->at.sim->handles--;
        dfi_sim_free(l, sizeof(*l));
}

static struct dfi_sim_topic *find_topic(struct df_sim *sim, const char *name)
{
        for (size_t i = 0; i < sim->topic_count; i++)
                if (strcmp(sim->topics[i]->info.name, name) == 0)
                        return sim->topics[i];
        return NULL;
}

static int need_topic(struct df_sim *sim, const char *name, uint32_t partition,
                      struct dfi_sim_topic **ret, struct df_error *err)
{
        struct dfi_sim_topic *t = find_topic(sim, name);

        if (!t)
                return df_fail(err, DF_ENOENT, "there is no topic %s", name);
        if (partition >= t->info.partitions)
                return df_fail(err, DF_EINVAL, "topic %s has %u partitions, not %u", name,
                               t->info.partitions, partition + 1);
        *ret = t;
        return 0;
}

bool dfi_sim_topic_name_ok(const char *s)
{
        size_t n = strlen(s);

        if (n == 0 || n > DF_TOPIC_NAME_MAX)
                return false;
        for (size_t i = 0; i < n; i++) {
                const char c = s[i];
                const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');

                if (!plain && (i == 0 || (c != '.' && c != '_' && c != '-')))
                        return false;
        }
        return true;
}

static void topic_insert(struct df_sim *sim, const char *name, uint32_t partitions)
{
        struct dfi_sim_topic *t = dfi_sim_alloc(sizeof(*t));
        size_t i = sim->topic_count;

        (void)snprintf(t->info.name, sizeof(t->info.name), "%s", name);
        t->info.partitions = partitions;
        t->info.generation = df_sim_random_u64(&sim->random) | 1;
        t->partitions = dfi_sim_alloc(partitions * sizeof(*t->partitions));
        for (uint32_t p = 0; p < partitions; p++)
                t->partitions[p].last_append_ms = INT64_MIN;
        sim->topics = dfi_sim_grow(sim->topics, sim->topic_count, &sim->topic_cap,
                                   sizeof(struct dfi_sim_topic *));
        for (; i > 0 && strcmp(sim->topics[i - 1]->info.name, name) > 0; i--)
                sim->topics[i] = sim->topics[i - 1];
        sim->topics[i] = t;
        sim->topic_count++;
}

static int topic_create(struct df_log *base, const char *topic, uint32_t partitions,
                        struct df_error *err)
{
        struct sim_log *l = log_of(base);
        struct dfi_sim_strike s;
        struct dfi_sim_topic *t;
        int rc;

        if (!dfi_sim_topic_name_ok(topic) || partitions == 0 || partitions > DF_PARTITIONS_MAX)
                return df_fail(err, DF_EINVAL, "topic \"%.80s\" of %u partitions", topic,
                               partitions);
        rc = dfi_sim_enter(&l->at, true, &s, err, "topic_create %s %u", topic, partitions);
        if (rc)
                return rc;
        t = find_topic(l->at.sim, topic);
        if (t && t->info.partitions != partitions)
                return df_fail(err, DF_ESCHEMA, "topic %s has %u partitions, not %u", topic,
                               t->info.partitions, partitions);
        if (!t && !dfi_sim_midway(&s))
                topic_insert(l->at.sim, topic, partitions);
        return dfi_sim_leave(&l->at, &s, err);
}

static int topic_list(struct df_log *base, const char *prefix,
                      int (*fn)(void *arg, const struct df_topic_info *info), void *arg,
                      struct df_error *err)
{
        struct sim_log *l = log_of(base);
        struct df_sim *sim = l->at.sim;
        struct dfi_sim_strike s;
        int rc = dfi_sim_enter(&l->at, false, &s, err, "topic_list %s", prefix);

        for (size_t i = 0; rc == 0 && i < sim->topic_count; i++)
                if (strncmp(sim->topics[i]->info.name, prefix, strlen(prefix)) == 0)
                        rc = fn(arg, &sim->topics[i]->info);
        return rc ? rc : dfi_sim_leave(&l->at, &s, err);
}

static int writer_open(struct df_log *base, const char *topic, struct df_log_writer **ret,
                       struct df_error *err)
{
        struct sim_log *l = log_of(base);
        struct dfi_sim_writer *w;
        struct dfi_sim_strike s;
        struct dfi_sim_topic *t = NULL;
        int rc = dfi_sim_enter(&l->at, true, &s, err, "writer_open %s", topic);

        if (rc == 0)
                rc = need_topic(l->at.sim, topic, 0, &t, err);
        if (rc)
                return rc;
        if (t->writer && dfi_sim_alive(&t->writer->at))
                return df_fail(err, DF_EFENCED, "topic %s has a writer, in process %u", topic,
                               t->writer->at.process);
        rc = dfi_sim_leave(&l->at, &s, err);
        if (rc)
                return rc;
        w = dfi_sim_alloc(sizeof(*w));
        w->base.log = base;
        w->at = l->at;
        w->topic = t;
        t->writer = w;
        l->at.sim->handles++;
        *ret = &w->base;
        return 0;
}

static void writer_close(struct df_log_writer *base)
{
        struct dfi_sim_writer *w = writer_of(base);

        if (w->topic->writer == w)
                w->topic->writer = NULL;
        w->at.sim->handles--;
        dfi_sim_free(w, sizeof(*w));
}

static int check_items(const struct dfi_sim_writer *w, const struct df_append *items, size_t count,
                       struct df_error *err)
{
        const struct df_topic_info *info = &w->topic->info;

        for (size_t i = 0; i < count; i++) {
                if (items[i].partition >= info->partitions)
                        return df_fail(err, DF_EINVAL, "topic %s has no partition %u", info->name,
                                       items[i].partition);
                if (items[i].value.len > DF_LOG_RECORD_MAX)
                        return df_fail(err, DF_ELIMIT, "a record of %zu bytes; the limit is %u",
                                       items[i].value.len, DF_LOG_RECORD_MAX);
        }
        return 0;
}

static void store_one(struct df_sim *sim, struct dfi_sim_partition *p, struct df_append *item)
{
        const int64_t now_ms = sim->now_ms > p->last_append_ms ? sim->now_ms : p->last_append_ms;
        struct df_record *r;

        p->records = dfi_sim_grow(p->records, p->count, &p->cap, sizeof(*p->records));
        r = &p->records[p->count];
        r->offset = p->first + p->count++;
        r->append_ms = now_ms;
        r->value = df_bytes(dfi_sim_copy(item->value), item->value.len);
        p->last_append_ms = now_ms;
        item->ret_offset = r->offset;
        item->ret_append_ms = now_ms;
}

/* Each partition is a file of its own: a crash leaves a prefix of each, independently. */
static void store_prefixes(struct dfi_sim_writer *w, const struct df_append *items, size_t count)
{
        struct df_sim *sim = w->at.sim;

        for (uint32_t p = 0; p < w->topic->info.partitions; p++) {
                uint64_t keep, n = 0;

                for (size_t i = 0; i < count; i++)
                        n += items[i].partition == p;
                keep = df_sim_random_below(&sim->random, n + 1);
                for (size_t i = 0; i < count && keep > 0; i++) {
                        struct df_append item = items[i];

                        if (item.partition != p)
                                continue;
                        store_one(sim, &w->topic->partitions[p], &item);
                        keep--;
                }
        }
}

static int append(struct df_log_writer *base, struct df_append *items, size_t count,
                  struct df_error *err)
{
        struct dfi_sim_writer *w = writer_of(base);
        struct dfi_sim_strike s;
        int rc = check_items(w, items, count, err);

        if (rc)
                return rc;
        if (w->broken && dfi_sim_alive(&w->at))
                return df_fail(err, DF_EIO, "topic %s: an earlier write failed; start again",
                               w->topic->info.name);
        rc = dfi_sim_enter(&w->at, true, &s, err, "append %s %zu", w->topic->info.name, count);
        if (rc) {
                w->broken = rc == DF_EIO;
                return rc;
        }
        if (s.code == DF_ENOSPC) /* whatever the moment: nothing was stored (log.h) */
                return dfi_sim_leave(&w->at, &s, err);
        if (dfi_sim_midway(&s))
                store_prefixes(w, items, count);
        for (size_t i = 0; i < count && !dfi_sim_midway(&s); i++)
                store_one(w->at.sim, &w->topic->partitions[items[i].partition], &items[i]);
        rc = dfi_sim_leave(&w->at, &s, err);
        w->broken = rc == DF_EIO;
        return rc;
}

static struct dfi_sim_consumer *find_consumer(struct dfi_sim_partition *p, const char *name)
{
        for (size_t i = 0; i < p->consumer_count; i++)
                if (strcmp(p->consumers[i].name, name) == 0)
                        return &p->consumers[i];
        return NULL;
}

/* Opening again keeps the position on disk unless the reader starts before it (df/filelog.h). */
static void register_consumer(struct dfi_sim_partition *p, const char *name, uint64_t from)
{
        struct dfi_sim_consumer *c = find_consumer(p, name);

        if (!c) {
                p->consumers = dfi_sim_grow(p->consumers, p->consumer_count, &p->consumer_cap,
                                            sizeof(*p->consumers));
                c = &p->consumers[p->consumer_count++];
                *c = (struct dfi_sim_consumer){.offset = from};
                (void)snprintf(c->name, sizeof(c->name), "%s", name);
        }
        if (from < c->offset)
                c->offset = from;
}

static int reader_open(struct df_log *base, const char *topic, uint32_t partition,
                       uint64_t from_offset, const char *consumer, struct df_log_reader **ret,
                       struct df_error *err)
{
        struct sim_log *l = log_of(base);
        struct dfi_sim_partition *p;
        struct dfi_sim_topic *t = NULL;
        struct dfi_sim_strike s;
        struct sim_reader *r;
        int rc = dfi_sim_enter(&l->at, consumer != NULL, &s, err, "reader_open %s/%u", topic,
                               partition);

        if (rc == 0)
                rc = need_topic(l->at.sim, topic, partition, &t, err);
        if (rc)
                return rc;
        p = &t->partitions[partition];
        if (from_offset == DF_OFFSET_END)
                from_offset = p->first + p->count;
        if (from_offset < p->first || from_offset > p->first + p->count)
                return df_fail(err, DF_EOFFSET,
                               "topic %s partition %u holds offsets %" PRIu64 " to %" PRIu64
                               ", not %" PRIu64,
                               topic, partition, p->first, p->first + p->count, from_offset);
        if (consumer && !dfi_sim_midway(&s))
                register_consumer(p, consumer, from_offset);
        rc = dfi_sim_leave(&l->at, &s, err);
        if (rc)
                return rc;
        r = dfi_sim_alloc(sizeof(*r));
        r->base.log = base;
        r->at = l->at;
        r->topic = t;
        r->partition = partition;
        r->position = from_offset;
        if (consumer)
                (void)snprintf(r->consumer, sizeof(r->consumer), "%s", consumer);
        l->at.sim->handles++;
        *ret = &r->base;
        return 0;
}

static void take_back(struct sim_reader *r)
{
        for (size_t i = 0; i < r->given_count; i++)
                dfi_sim_free((void *)(uintptr_t)r->given[i].data, r->given[i].len);
        r->given_count = 0;
}

static int poll(struct df_log_reader *base, struct df_record *records, size_t max,
                size_t *ret_count, struct df_error *err)
{
        struct sim_reader *r = reader_of(base);
        struct dfi_sim_partition *p = &r->topic->partitions[r->partition];
        struct dfi_sim_strike s;
        size_t n = 0;
        int rc;

        take_back(r);
        rc = dfi_sim_enter(&r->at, false, &s, err, "poll %s/%u", r->topic->info.name, r->partition);
        if (rc == 0)
                rc = dfi_sim_leave(&r->at, &s, err); /* a failed poll does not move */
        if (rc)
                return rc;
        if (r->position < p->first)
                return df_fail(err, DF_EOFFSET,
                               "topic %s partition %u begins at offset %" PRIu64
                               ", the reader is at %" PRIu64,
                               r->topic->info.name, r->partition, p->first, r->position);
        for (; n < max && r->position < p->first + p->count; n++, r->position++) {
                records[n] = p->records[r->position - p->first];
                records[n].value.data = dfi_sim_copy(records[n].value);
                r->given = dfi_sim_grow(r->given, r->given_count, &r->given_cap, sizeof(*r->given));
                r->given[r->given_count++] = records[n].value;
        }
        *ret_count = n;
        return 0;
}

static uint64_t position(struct df_log_reader *base)
{
        return reader_of(base)->position;
}

static int release(struct df_log_reader *base, uint64_t offset, struct df_error *err)
{
        struct sim_reader *r = reader_of(base);
        struct dfi_sim_consumer *c;
        struct dfi_sim_strike s;
        int rc;

        take_back(r);
        if (r->consumer[0] == '\0')
                return df_fail(err, DF_EINVAL, "the reader of %s/%u is not registered",
                               r->topic->info.name, r->partition);
        rc = dfi_sim_enter(&r->at, true, &s, err, "release %s/%u %" PRIu64, r->topic->info.name,
                           r->partition, offset);
        if (rc)
                return rc;
        c = find_consumer(&r->topic->partitions[r->partition], r->consumer);
        df_check(c != NULL);
        if (offset > c->offset && !dfi_sim_midway(&s))
                c->offset = offset;
        return dfi_sim_leave(&r->at, &s, err);
}

static int bounds(struct df_log *base, const char *topic, uint32_t partition, uint64_t *ret_first,
                  uint64_t *ret_end, struct df_error *err)
{
        struct sim_log *l = log_of(base);
        struct dfi_sim_topic *t = NULL;
        struct dfi_sim_strike s;
        int rc = dfi_sim_enter(&l->at, false, &s, err, "bounds %s/%u", topic, partition);

        if (rc == 0)
                rc = need_topic(l->at.sim, topic, partition, &t, err);
        if (rc == 0)
                rc = dfi_sim_leave(&l->at, &s, err);
        if (rc)
                return rc;
        *ret_first = t->partitions[partition].first;
        *ret_end = t->partitions[partition].first + t->partitions[partition].count;
        return 0;
}

static int offset_at(struct df_log *base, const char *topic, uint32_t partition, int64_t append_ms,
                     uint64_t *ret_offset, struct df_error *err)
{
        struct sim_log *l = log_of(base);
        struct dfi_sim_topic *t = NULL;
        struct dfi_sim_strike s;
        uint64_t i = 0;
        int rc = dfi_sim_enter(&l->at, false, &s, err, "offset_at %s/%u", topic, partition);

        if (rc == 0)
                rc = need_topic(l->at.sim, topic, partition, &t, err);
        if (rc == 0)
                rc = dfi_sim_leave(&l->at, &s, err);
        if (rc)
                return rc;
        while (i < t->partitions[partition].count &&
               t->partitions[partition].records[i].append_ms < append_ms)
                i++;
        *ret_offset = t->partitions[partition].first + i;
        return 0;
}

static int topic_delete(struct df_log *base, const char *topic, struct df_error *err)
{
        struct sim_log *l = log_of(base);
        struct df_sim *sim = l->at.sim;
        struct dfi_sim_strike s;
        size_t i = 0;
        int rc = dfi_sim_enter(&l->at, true, &s, err, "topic_delete %s", topic);

        if (rc)
                return rc;
        while (i < sim->topic_count && strcmp(sim->topics[i]->info.name, topic) != 0)
                i++;
        if (i < sim->topic_count && sim->topics[i]->writer)
                return df_fail(err, DF_EFENCED, "topic %s is open for writing", topic);
        if (i < sim->topic_count && !dfi_sim_midway(&s)) {
                dfi_sim_topic_free(sim->topics[i]);
                sim->topic_count--;
                for (; i < sim->topic_count; i++)
                        sim->topics[i] = sim->topics[i + 1];
        }
        return dfi_sim_leave(&l->at, &s, err);
}

static void reader_close(struct df_log_reader *base)
{
        struct sim_reader *r = reader_of(base);

        take_back(r);
        free(r->given);
        r->at.sim->handles--;
        dfi_sim_free(r, sizeof(*r));
}

void dfi_sim_topic_free(struct dfi_sim_topic *t)
{
        for (uint32_t i = 0; i < t->info.partitions; i++) {
                struct dfi_sim_partition *p = &t->partitions[i];

                for (size_t k = 0; k < p->count; k++)
                        dfi_sim_free((void *)(uintptr_t)p->records[k].value.data,
                                     p->records[k].value.len);
                free(p->records);
                free(p->consumers);
        }
        free(t->partitions);
        dfi_sim_free(t, sizeof(*t));
}

void df_sim_clock_restart(struct df_sim *sim)
{
        for (size_t i = 0; i < sim->topic_count; i++)
                for (uint32_t p = 0; p < sim->topics[i]->info.partitions; p++)
                        sim->topics[i]->partitions[p].last_append_ms = INT64_MIN;
        if (sim->broker)
                dfi_broker_clock_restart(sim->broker);
}

static struct dfi_sim_partition *look_at(struct df_sim *sim, const char *topic, uint32_t partition)
{
        struct dfi_sim_topic *t = find_topic(sim, topic);

        df_check(t != NULL);
        df_check(partition < t->info.partitions);
        return &t->partitions[partition];
}

void df_sim_log_trim(struct df_sim *sim, const char *topic, uint32_t partition, uint64_t offset)
{
        struct dfi_sim_partition *p = look_at(sim, topic, partition);
        size_t n;

        if (offset <= p->first)
                return;
        df_check(offset <= p->first + p->count);
        n = (size_t)(offset - p->first);
        for (size_t i = 0; i < n; i++)
                dfi_sim_free((void *)(uintptr_t)p->records[i].value.data, p->records[i].value.len);
        memmove(p->records, p->records + n, (p->count - n) * sizeof(*p->records));
        p->count -= n;
        p->first = offset;
}

const struct df_record *df_sim_records(struct df_sim *sim, const char *topic, uint32_t partition,
                                       size_t *ret_count)
{
        struct dfi_sim_partition *p;

        if (sim->broker && dfi_ktopic_find(sim->broker, topic))
                return dfi_broker_records(sim->broker, topic, partition, ret_count);
        p = look_at(sim, topic, partition);
        *ret_count = p->count;
        return p->records;
}

uint64_t df_sim_generation(struct df_sim *sim, const char *topic)
{
        const struct dfi_ktopic *k = sim->broker ? dfi_ktopic_find(sim->broker, topic) : NULL;
        struct dfi_sim_topic *t = find_topic(sim, topic);

        if (k)
                return k->info.generation;
        df_check(t != NULL);
        return t->info.generation;
}

bool df_sim_consumer(struct df_sim *sim, const char *topic, uint32_t partition, const char *name,
                     uint64_t *ret_offset)
{
        struct dfi_sim_consumer *c = find_consumer(look_at(sim, topic, partition), name);

        if (c)
                *ret_offset = c->offset;
        return c != NULL;
}

static const struct df_log_ops log_ops = {
        .topic_create = topic_create,
        .topic_list = topic_list,
        .writer_open = writer_open,
        .append = append,
        .writer_close = writer_close,
        .reader_open = reader_open,
        .poll = poll,
        .release = release,
        .position = position,
        .bounds = bounds,
        .offset_at = offset_at,
        .topic_delete = topic_delete,
        .reader_close = reader_close,
        .close = log_close,
};
