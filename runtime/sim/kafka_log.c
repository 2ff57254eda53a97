/* kafka_log.c - the log port over the model broker: an idempotent producer, readers of what is
 * committed. As runtime/kafka's: a poll that gets no answer brings nothing, everything else waits
 * for one, and an append without a definite one is in doubt and goes on as another producer. */
#include "broker_private.h"

#include <inttypes.h>
#include <stdlib.h>

struct kafka_log {
        struct df_log base;
        struct dfi_sim_at at;
};
struct kafka_writer {
        struct df_log_writer base;
        struct dfi_sim_at at;
        char topic[DF_TOPIC_NAME_MAX + 1];
        uint32_t partitions;
        uint64_t pid;   /* 0 = to be asked for */
        uint64_t *next; /* sequence numbers, by partition */
};
struct kafka_reader {
        struct df_log_reader base;
        struct dfi_sim_at at;
        const struct dfi_ktopic *topic;
        uint32_t partition;
        uint64_t position;
        struct df_bytes *given; /* values of the last poll; owned */
        size_t given_count, given_cap;
};

static const struct df_log_ops log_ops;

struct dfi_sim_at dfi_kafka_at(struct df_log *log)
{
        df_check(log->ops == &log_ops);
        return ((struct kafka_log *)log)->at;
}

static struct kafka_writer *writer_of(struct df_log_writer *w)
{
        df_check(w->log->ops == &log_ops);
        return (struct kafka_writer *)w;
}

static struct kafka_reader *reader_of(struct df_log_reader *r)
{
        df_check(r->log->ops == &log_ops);
        return (struct kafka_reader *)r;
}

struct df_log *df_sim_kafka_log_open(struct df_sim *sim, uint32_t process)
{
        struct kafka_log *l = dfi_sim_alloc(sizeof(*l));

        l->base.ops = &log_ops;
        l->at = dfi_sim_here(sim, process);
        (void)dfi_broker(sim);
        sim->handles++;
        return &l->base;
}

static void log_close(struct df_log *base)
{
        dfi_kafka_at(base).sim->handles--;
        dfi_sim_free(base, sizeof(struct kafka_log));
}

/* ---- topics ---- */

static int need_topic(const struct dfi_sim_at *at, const char *name, uint32_t partition,
                      struct dfi_ktopic **ret, struct df_error *err)
{
        struct dfi_ktopic *t = dfi_ktopic_find(at->sim->broker, name);

        if (!t)
                return df_fail(err, DF_ENOENT, "there is no topic %s", name);
        if (partition >= t->info.partitions)
                return df_fail(err, DF_EINVAL, "topic %s has %u partitions, not %u", name,
                               t->info.partitions, partition + 1);
        *ret = t;
        return 0;
}

static int topic_create(struct df_log *base, const char *topic, uint32_t partitions,
                        struct df_error *err)
{
        const struct dfi_sim_at at = dfi_kafka_at(base);
        struct dfi_ktopic *t;
        int rc;

        if (!dfi_sim_topic_name_ok(topic) || partitions == 0 || partitions > DF_PARTITIONS_MAX)
                return df_fail(err, DF_EINVAL, "topic \"%.80s\" of %u partitions", topic,
                               partitions);
        rc = dfi_net_read(&at, "CreateTopics", topic, 0, err);
        if (rc)
                return rc;
        t = dfi_ktopic_find(at.sim->broker, topic);
        if (t && t->info.partitions != partitions)
                return df_fail(err, DF_ESCHEMA, "topic %s has %u partitions, not %u", topic,
                               t->info.partitions, partitions);
        if (!t)
                (void)dfi_ktopic_create(at.sim->broker, topic, partitions);
        return 0;
}

static int topic_list(struct df_log *base, const char *prefix,
                      int (*fn)(void *arg, const struct df_topic_info *info), void *arg,
                      struct df_error *err)
{
        const struct dfi_sim_at at = dfi_kafka_at(base);
        const struct dfi_broker *b = at.sim->broker;
        int rc = dfi_net_read(&at, "Metadata", prefix, 0, err);

        for (size_t i = 0; rc == 0 && i < b->topic_count; i++)
                if (strncmp(b->topics[i]->info.name, prefix, strlen(prefix)) == 0)
                        rc = fn(arg, &b->topics[i]->info);
        return rc;
}

static int bounds(struct df_log *base, const char *topic, uint32_t partition, uint64_t *ret_first,
                  uint64_t *ret_end, struct df_error *err)
{
        const struct dfi_sim_at at = dfi_kafka_at(base);
        struct dfi_ktopic *t = NULL;
        int rc = dfi_net_read(&at, "ListOffsets", topic, partition, err);

        if (rc == 0)
                rc = need_topic(&at, topic, partition, &t, err);
        if (rc)
                return rc;
        *ret_first = 0;
        *ret_end = t->partitions[partition].stable;
        return 0;
}

/* ---- the producer ---- */

static int writer_open(struct df_log *base, const char *topic, struct df_log_writer **ret,
                       struct df_error *err)
{
        const struct dfi_sim_at at = dfi_kafka_at(base);
        struct dfi_ktopic *t = NULL;
        struct kafka_writer *w;
        int rc = dfi_net_read(&at, "Metadata", topic, 0, err);

        if (rc == 0)
                rc = need_topic(&at, topic, 0, &t, err);
        if (rc)
                return rc;
        w = dfi_sim_alloc(sizeof(*w));
        w->base.log = base;
        w->at = at;
        w->partitions = t->info.partitions;
        w->next = dfi_sim_alloc(w->partitions * sizeof(*w->next));
        dfi_name_copy(w->topic, sizeof(w->topic), topic);
        at.sim->handles++;
        *ret = &w->base;
        return 0;
}

static void writer_close(struct df_log_writer *base)
{
        struct kafka_writer *w = writer_of(base);

        w->at.sim->handles--;
        free(w->next);
        dfi_sim_free(w, sizeof(*w));
}

static int ask_for_pid(struct kafka_writer *w, struct df_error *err)
{
        const struct dfi_request q = {.api = DFI_INIT_PRODUCER_ID};
        struct dfi_answer a;
        bool again;
        int rc;

        if (w->pid)
                return 0;
        rc = dfi_net_until(&w->at, &q, &a, &again, err);
        if (rc)
                return rc == DF_EDOUBT ? df_fail(err, DF_EAGAIN, "no answer to InitProducerId")
                                       : rc;
        memset(w->next, 0, w->partitions * sizeof(*w->next));
        w->pid = a.pid;
        return 0;
}

static int append_one(struct kafka_writer *w, struct df_append *item, struct df_error *err)
{
        struct dfi_request q = {.api = DFI_PRODUCE,
                                .pid = w->pid,
                                .partition = item->partition,
                                .values = &item->value,
                                .value_count = 1,
                                .sequence = w->next[item->partition]};
        struct dfi_answer a;
        bool again;
        int rc;

        dfi_name_copy(q.topic, sizeof(q.topic), w->topic);
        rc = dfi_net_until(&w->at, &q, &a, &again, err);
        if (rc == 0 && a.code != DFI_K_OK)
                rc = df_fail(err, DF_EDOUBT, "%s/%u: the record was refused", w->topic,
                             item->partition);
        if (rc) {
                w->pid = 0; /* what may still be under way must not be taken for what follows */
                return rc;
        }
        w->next[item->partition]++;
        item->ret_offset = a.offset;
        item->ret_append_ms = a.append_ms;
        return 0;
}

static int append(struct df_log_writer *base, struct df_append *items, size_t count,
                  struct df_error *err)
{
        struct kafka_writer *w = writer_of(base);
        int rc;

        for (size_t i = 0; i < count; i++) {
                if (items[i].partition >= w->partitions)
                        return df_fail(err, DF_EINVAL, "topic %s has no partition %u", w->topic,
                                       items[i].partition);
                if (items[i].value.len > DF_LOG_RECORD_MAX)
                        return df_fail(err, DF_ELIMIT, "a record of %zu bytes; the limit is %u",
                                       items[i].value.len, DF_LOG_RECORD_MAX);
        }
        rc = ask_for_pid(w, err);
        for (size_t i = 0; rc == 0 && i < count; i++) {
                rc = append_one(w, &items[i], err);
                if (rc == DF_EAGAIN && i > 0)
                        rc = df_fail(err, DF_EDOUBT, "%s: %zu of %zu records were stored", w->topic,
                                     i, count);
        }
        return rc;
}

/* ---- readers ---- */

static int reader_open(struct df_log *base, const char *topic, uint32_t partition,
                       uint64_t from_offset, const char *consumer, struct df_log_reader **ret,
                       struct df_error *err)
{
        const struct dfi_sim_at at = dfi_kafka_at(base);
        struct dfi_ktopic *t = NULL;
        struct kafka_reader *r;
        uint64_t stable;
        int rc = dfi_net_read(&at, "ListOffsets", topic, partition, err);

        (void)consumer; /* retention is the topic's */
        if (rc == 0)
                rc = need_topic(&at, topic, partition, &t, err);
        if (rc)
                return rc;
        stable = t->partitions[partition].stable;
        if (from_offset == DF_OFFSET_END)
                from_offset = stable;
        if (from_offset > stable)
                return df_fail(err, DF_EOFFSET, "%s/%u ends at offset %" PRIu64 ", not %" PRIu64,
                               topic, partition, stable, from_offset);
        r = dfi_sim_alloc(sizeof(*r));
        r->base.log = base;
        r->at = at;
        r->topic = t;
        r->partition = partition;
        r->position = from_offset;
        at.sim->handles++;
        *ret = &r->base;
        return 0;
}

static void take_back(struct kafka_reader *r)
{
        for (size_t i = 0; i < r->given_count; i++)
                dfi_sim_free((void *)(uintptr_t)r->given[i].data, r->given[i].len);
        r->given_count = 0;
}

static int poll(struct df_log_reader *base, struct df_record *records, size_t max,
                size_t *ret_count, struct df_error *err)
{
        struct kafka_reader *r = reader_of(base);
        const struct dfi_kpartition *p = &r->topic->partitions[r->partition];
        size_t n = 0;
        int rc;

        take_back(r);
        *ret_count = 0;
        rc = dfi_net_read(&r->at, "Fetch", r->topic->info.name, r->partition, err);
        if (rc)
                return rc == DF_EAGAIN ? 0 : rc;
        for (; n < max && r->position < p->stable; r->position++) {
                const struct dfi_entry *e = &p->entries[r->position];

                if (e->state != DFI_ENTRY_COMMITTED)
                        continue;
                records[n] =
                        (struct df_record){.offset = r->position,
                                           .append_ms = e->append_ms,
                                           .value = df_bytes(dfi_sim_copy(e->value), e->value.len)};
                r->given = dfi_sim_grow(r->given, r->given_count, &r->given_cap, sizeof(*r->given));
                r->given[r->given_count++] = records[n++].value;
        }
        *ret_count = n;
        return 0;
}

static int release(struct df_log_reader *base, uint64_t offset, struct df_error *err)
{
        (void)offset;
        (void)err;
        take_back(reader_of(base)); /* what the header says of lent records; nothing else */
        return 0;
}

static uint64_t position(struct df_log_reader *base)
{
        return reader_of(base)->position;
}

static void reader_close(struct df_log_reader *base)
{
        struct kafka_reader *r = reader_of(base);

        take_back(r);
        free(r->given);
        r->at.sim->handles--;
        dfi_sim_free(r, sizeof(*r));
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
        .reader_close = reader_close,
        .close = log_close,
};
