/* receipt_read.c - what `late` and `quarantine` say of the copies of a receipt.
 *
 * The seals of both topics cover the offsets of `events` (K6): the collection that covers a copy
 * holds its entry, or there is none. It was written after the copy, so reading begins a little
 * before the copy's append time, and further back when its seal does not show up; if it never does,
 * the collection has left the topic, or is damaged.
 */
#include <stdlib.h>

#include "jobs/api/receipt.h"
#include "jobs/common/collections.h"
#include "jobs/common/settings.h"

#define NEAR_MS 60000 /* read on rather than seek again */

static const int64_t backs_ms[] = {60000, 3600000, INT64_MAX};
#define BACKS (sizeof(backs_ms) / sizeof(backs_ms[0]))

struct outcomes {
        const struct ad_receipt_context *context;
        struct ad_receipt_topic *t;
        uint32_t partition;
        enum ad_output output;
        const char *topic;
        size_t at; /* copies before it are dealt with */
};

static bool stopped(void *arg)
{
        const struct outcomes *o = arg;

        return o->context->stop && o->context->stop(o->context->stop_arg);
}

static int order(const void *key, const void *element)
{
        const struct ad_event *a = key, *b = &((const struct ad_copy *)element)->ev;

        if (a->offset != b->offset)
                return a->offset < b->offset ? -1 : 1;
        return a->index == b->index ? 0 : a->index < b->index ? -1 : 1;
}

static struct ad_copy *find(struct outcomes *o, uint64_t offset, uint32_t index)
{
        struct ad_event key = {.offset = offset, .index = index};

        return bsearch(&key, o->t->copies, o->t->count, sizeof(*o->t->copies), order);
}

static int on_late(void *arg, const struct ad_late *l, struct df_error *err)
{
        struct ad_copy *c = find(arg, l->offset, l->index);

        (void)err;
        if (c) {
                c->entry = AD_LATE;
                c->watermark_ms = l->watermark_ms;
        }
        return 0;
}

static int on_quarantined(void *arg, const struct ad_quarantined *q, struct df_error *err)
{
        struct ad_copy *c = q->whole_record ? NULL : find(arg, q->offset, q->index);

        (void)err;
        if (c)
                c->entry = q->reason;
        return 0;
}

static int take(struct outcomes *o, const struct df_collection *c, struct df_error *err)
{
        int rc = 0;

        for (size_t i = 0; rc == 0 && i < c->count; i++)
                rc = o->output == AD_OUT_LATE
                             ? ad_wire_late_decode(c->payloads[i], on_late, o, err)
                             : ad_wire_quarantine_decode(c->payloads[i], on_quarantined, o, err);
        for (; o->at < o->t->count && o->t->copies[o->at].ev.offset < c->seal.to_offset; o->at++) {
                o->t->copies[o->at].sealed |= 1u << o->output;
                o->t->copies[o->at].alone = c->seal.outcomes[AD_DUPLICATE] == 0;
        }
        return rc;
}

/* Of imports each generation is a source, one behind the other (R6). */
static bool is_ours(const struct outcomes *o, const struct df_source *s)
{
        return strcmp(s->stream, o->t->info.name) == 0 && s->partition == o->partition &&
               (o->t->is_import || s->generation == o->t->info.generation);
}

/* Deals with copies[at] and those near it. 1: the seal that covers it was not met: begin further
 * back. */
static int read_from(struct outcomes *o, uint64_t from, struct df_error *err)
{
        const struct df_collection *c = NULL;
        struct ad_collections *reader = NULL;
        int rc = ad_collections_open(o->context->log, o->topic, o->partition, from, &reader, err);

        while (rc == 0 && o->at < o->t->count) {
                const struct ad_copy *next = &o->t->copies[o->at];

                rc = ad_collections_next(reader, stopped, o, &c, err);
                if (rc < 0)
                        break;
                if (!c) { /* all the others are not covered yet */
                        o->at = o->t->count;
                        break;
                }
                if (!is_ours(o, &c->origin.source) || c->seal.to_offset <= next->ev.offset)
                        continue;
                if (c->seal.from_offset > next->ev.offset) {
                        rc = 1;
                        break;
                }
                rc = take(o, c, err);
                if (o->at < o->t->count &&
                    o->t->copies[o->at].ev.append_ms > c->seal.max_append_ms + NEAR_MS)
                        break;
        }
        ad_collections_close(reader);
        return rc;
}

static int read_near(struct outcomes *o, struct df_error *err)
{
        int64_t append_ms = o->t->copies[o->at].ev.append_ms;
        int rc = 1;

        for (size_t i = 0; rc == 1 && i < BACKS; i++) {
                uint64_t from = 0;

                rc = 0;
                if (backs_ms[i] < append_ms)
                        rc = df_log_offset_at(o->context->log, o->topic, o->partition,
                                              append_ms - backs_ms[i], &from, err);
                if (rc == 0)
                        rc = read_from(o, from, err);
        }
        if (rc == 1) {
                o->t->copies[o->at++].lost = true;
                rc = 0;
        }
        return rc;
}

/* Whether the view knows of each copy that its import counted all its events. */
static bool all_counted(const struct ad_receipt_topic *t)
{
        size_t n = 0;

        while (n < t->count && t->copies[n].import &&
               t->copies[n].import->outcomes[AD_COUNTED] == t->copies[n].import->events)
                n++;
        return n == t->count;
}

int adi_receipt_outcomes(const struct ad_receipt_context *c, uint32_t partition,
                         struct ad_receipt_topic *t, struct df_error *err)
{
        static const char *const topics[] = {
                [AD_OUT_LATE] = AD_TOPIC_LATE, [AD_OUT_QUARANTINE] = AD_TOPIC_QUARANTINE};
        int rc = 0;

        if (all_counted(t)) {
                for (size_t i = 0; i < t->count; i++) {
                        t->copies[i].sealed = 1u << AD_OUT_LATE | 1u << AD_OUT_QUARANTINE;
                        t->copies[i].alone = true;
                }
                return 0;
        }
        for (int out = AD_OUT_LATE; rc == 0 && out <= AD_OUT_QUARANTINE; out++) {
                struct outcomes o = {.context = c,
                                     .t = t,
                                     .partition = partition,
                                     .output = out,
                                     .topic = topics[out]};

                while (rc == 0 && o.at < t->count)
                        rc = read_near(&o, err);
        }
        return rc;
}
