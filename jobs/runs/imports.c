/* imports.c - what a reconcile run may read of a topic of imports (R6, runs.h).
 *
 * A topic of imports holds generations one after the other, each ImportBegin, events, ImportEnd in
 * every partition. Money is of complete ones alone: the range ends where the newest begins, unless
 * that has ended everywhere and was not aborted. (After an abort the topic grows no more.) */
#include <stdlib.h>
#include <string.h>

#include "jobs/runs/runs.h"
#include "proto/wire.h"

#define READ_RECORDS 256

struct part {
        uint64_t begin;      /* where the newest generation begins */
        uint64_t generation; /* 0: none */
        uint32_t generations;
        bool whole; /* it has ended, and was not aborted */
};

bool ad_topic_is_import(const char *topic)
{
        return strncmp(topic, AD_TOPIC_IMPORT_PREFIX, strlen(AD_TOPIC_IMPORT_PREFIX)) == 0;
}

static int look_at(struct part *p, const struct df_record *record, struct df_error *err)
{
        struct ad_batch b;
        int rc = ad_wire_batch_peek(record->value, &b, err);

        if (rc < 0)
                return df_wrap(err, "an import's record at offset %llu",
                               (unsigned long long)record->offset);
        if (b.has_import_begin && b.import_begin.generation != p->generation) {
                p->generation = b.import_begin.generation;
                p->begin = record->offset;
                p->generations++;
                p->whole = false;
        }
        if (b.has_import_end) {
                p->generation = b.import_end.generation;
                p->whole = !b.import_end.aborted;
        }
        return 0;
}

static int scan(struct df_log *log, const char *topic, uint32_t partition,
                const struct ad_replay_span *span, struct part *ret, struct df_error *err)
{
        struct df_record records[READ_RECORDS];
        struct df_log_reader *r = NULL;
        int rc = df_log_reader_open(log, topic, partition, span->from, NULL, &r, err);

        while (rc == 0 && df_log_position(r) < span->to && !df_process_stopping()) {
                size_t n = 0;

                rc = df_log_poll(r, records, READ_RECORDS, &n, err);
                for (size_t i = 0; rc == 0 && i < n && records[i].offset < span->to; i++)
                        rc = look_at(ret, &records[i], err);
        }
        df_log_reader_close(r);
        if (rc == 0 && df_process_stopping())
                rc = df_fail(err, DF_EAGAIN, "stopped: the same command goes on");
        return rc;
}

/* Mostly the newest has ended, which the last records say. */
static int has_ended(struct df_log *log, const struct ad_replay_pin *pin, bool *ret,
                     struct df_error *err)
{
        uint64_t generation = 0;
        int rc = 0;

        *ret = true;
        for (uint32_t p = 0; rc == 0 && *ret && p < pin->topic.partitions; p++) {
                struct ad_replay_span last = pin->span[p];
                struct part part = {0};

                if (last.to == last.from) {
                        *ret = false;
                        break;
                }
                last.from = last.to - 1;
                rc = scan(log, pin->topic.name, p, &last, &part, err);
                *ret = part.whole && (p == 0 || part.generation == generation);
                generation = part.generation;
        }
        return rc;
}

static void cut(const struct part *parts, struct ad_replay_pin *pin)
{
        uint32_t newest = 0;
        bool whole = true;

        for (uint32_t p = 1; p < pin->topic.partitions; p++)
                if (parts[p].generations > parts[newest].generations)
                        newest = p;
        for (uint32_t p = 0; p < pin->topic.partitions; p++)
                whole &= parts[p].whole && parts[p].generation == parts[newest].generation;
        for (uint32_t p = 0; !whole && p < pin->topic.partitions; p++)
                if (parts[p].generations > 0 && parts[p].generation == parts[newest].generation)
                        pin->span[p].to = parts[p].begin;
}

int ad_replay_pin_imports(struct df_log *log, struct ad_replay_pin *pin, struct df_error *err)
{
        bool ended = false;
        int rc = has_ended(log, pin, &ended, err);
        struct part *parts;

        if (rc < 0 || ended)
                return rc;
        parts = calloc(pin->topic.partitions, sizeof(*parts));
        if (!parts)
                return df_fail(err, DF_ENOMEM, "%u partitions", pin->topic.partitions);
        for (uint32_t p = 0; rc == 0 && p < pin->topic.partitions; p++)
                rc = scan(log, pin->topic.name, p, &pin->span[p], &parts[p], err);
        if (rc == 0)
                cut(parts, pin);
        free(parts);
        return rc;
}

struct topics {
        int (*fn)(void *arg, const struct df_topic_info *topic, struct df_error *err);
        void *arg;
        struct df_error *err;
};

static int on_topic(void *arg, const struct df_topic_info *info)
{
        struct topics *t = arg;

        return t->fn(t->arg, info, t->err);
}

int ad_bill_each_topic(struct df_log *log,
                       int (*fn)(void *arg, const struct df_topic_info *topic,
                                 struct df_error *err),
                       void *arg, struct df_error *err)
{
        struct topics t = {fn, arg, err};

        return df_log_topic_list(log, AD_TOPIC_IMPORT_PREFIX, on_topic, &t, err);
}
