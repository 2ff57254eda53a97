/* import_log.c - a generation of an import topic: begun, gone on with, ended, voided (import.h). */
#include <stdlib.h>
#include <unistd.h>

#include "jobs/adtally/import.h"

#define APPEND_BYTES (1u << 20) /* records are gathered up to this, then appended together */

struct ad_import_writer {
        const struct ad_import_place *place;
        struct ad_import_state *state;
        struct ad_import_begin begin;
        struct df_log_writer *log;
        int (*hook)(void *arg, struct df_error *err);
        void *hook_arg;
        uint64_t skip[DF_PARTITIONS_MAX]; /* durable from before, still to be passed over */
        uint64_t skipped;
        struct df_buf open[DF_PARTITIONS_MAX]; /* the record that is being filled */
        uint32_t open_events[DF_PARTITIONS_MAX];
        struct df_buf done; /* complete records, one after the other */
        struct df_append *items;
        size_t *starts; /* of items' values in done */
        size_t item_count, item_cap;
        struct df_buf event;
};

static void put_header(struct df_buf *b, const struct ad_import_begin *begin,
                       const struct ad_import_end *end)
{
        struct ad_batch batch = {.schema_version = AD_SCHEMA_VERSION};

        if (begin) {
                batch.has_import_begin = true;
                batch.import_begin = *begin;
        }
        if (end) {
                batch.has_import_end = true;
                batch.import_end = *end;
        }
        ad_wire_batch_header(b, &batch);
}

/* A complete record for a partition, to be appended with the others. */
static int push(struct ad_import_writer *w, uint32_t partition, struct df_bytes value,
                struct df_error *err)
{
        if (w->item_count == w->item_cap) {
                size_t cap = w->item_cap ? w->item_cap * 2 : 64;
                struct df_append *items = realloc(w->items, cap * sizeof(*items));
                size_t *starts;

                if (items)
                        w->items = items;
                starts = realloc(w->starts, cap * sizeof(*starts));
                if (starts)
                        w->starts = starts;
                if (!items || !starts)
                        return df_fail(err, DF_ENOMEM, "records of an import");
                w->item_cap = cap;
        }
        w->items[w->item_count] = (struct df_append){.partition = partition};
        w->starts[w->item_count++] = w->done.len;
        df_buf_append(&w->done, value.data, value.len);
        return df_buf_check(&w->done, err);
}

static int append(struct ad_import_writer *w, struct df_error *err)
{
        int rc = w->hook && w->item_count ? w->hook(w->hook_arg, err) : 0;

        for (size_t i = 0; i < w->item_count; i++) {
                size_t end = i + 1 < w->item_count ? w->starts[i + 1] : w->done.len;

                w->items[i].value = df_bytes(w->done.data + w->starts[i], end - w->starts[i]);
        }
        if (rc == 0 && w->item_count)
                rc = df_log_append(w->log, w->items, w->item_count, err);
        if (rc == 0) {
                w->item_count = 0;
                df_buf_clear(&w->done);
        }
        return rc;
}

static int push_begin(struct ad_import_writer *w, uint32_t partition, struct df_error *err)
{
        struct df_buf b = {0};
        int rc;

        put_header(&b, &w->begin, NULL);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = push(w, partition, df_buf_bytes(&b), err);
        df_buf_release(&b);
        return rc;
}

static int push_end(struct ad_import_writer *w, uint32_t partition, uint64_t rows, bool aborted,
                    struct df_error *err)
{
        struct ad_import_end end = {
                .generation = w->begin.generation, .rows = rows, .aborted = aborted};
        struct df_buf b = {0};
        int rc;

        put_header(&b, NULL, &end);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = push(w, partition, df_buf_bytes(&b), err);
        df_buf_release(&b);
        return rc;
}

int ad_import_writer_open(const struct ad_import_place *p, struct ad_import_state *state,
                          const struct ad_import_begin *begin,
                          int (*hook)(void *arg, struct df_error *err), void *hook_arg,
                          struct ad_import_writer **ret, struct df_error *err)
{
        struct ad_import_writer *w = calloc(1, sizeof(*w));
        int rc;

        if (!w)
                return df_fail(err, DF_ENOMEM, "an import's writer");
        w->place = p;
        w->state = state;
        w->begin = *begin;
        w->hook = hook;
        w->hook_arg = hook_arg;
        rc = df_log_topic_create(p->log, state->topic, p->partitions, err);
        if (rc == 0)
                rc = df_log_writer_open(p->log, state->topic, &w->log, err);
        for (uint32_t i = 0; rc == 0 && i < p->partitions; i++) {
                const struct ad_import_part *part = &state->parts[i];

                w->skip[i] = state->open ? part->events : 0;
                w->skipped += w->skip[i];
                if (!state->open || !part->begun)
                        rc = push_begin(w, i, err);
        }
        if (rc == 0)
                rc = append(w, err);
        if (rc < 0) {
                ad_import_writer_close(w);
                return rc;
        }
        *ret = w;
        return 0;
}

static int close_record(struct ad_import_writer *w, uint32_t partition, struct df_error *err)
{
        struct df_buf *b = &w->open[partition];
        int rc;

        if (w->open_events[partition] == 0)
                return 0;
        put_header(b, NULL, NULL);
        rc = df_buf_check(b, err);
        if (rc == 0)
                rc = push(w, partition, df_buf_bytes(b), err);
        df_buf_clear(b);
        w->open_events[partition] = 0;
        return rc;
}

int ad_import_writer_add(struct ad_import_writer *w, const struct ad_event *ev,
                         struct df_error *err)
{
        uint32_t p =
                ad_event_partition(ad_event_key(ev->tenant_id, ev->event_id), w->place->partitions);
        struct ad_event one;
        int rc = 0;

        if (w->skip[p] > 0) {
                w->skip[p]--;
                return 0;
        }
        if (w->state->open && w->state->parts[p].ended)
                return df_fail(err, DF_ECORRUPT,
                               "topic %s partition %u ended with fewer events than the file has",
                               w->state->topic, p);
        one = *ev;
        if (w->place->drops_user_ids)
                one.user_id = (struct df_bytes){0}; /* the fingerprint has it: repeats are known */
        df_buf_clear(&w->event);
        ad_wire_event(&w->event, &one);
        rc = df_buf_check(&w->event, err);
        if (rc == 0 && (w->open_events[p] >= AD_RECORD_EVENTS ||
                        w->open[p].len + w->event.len > AD_RECORD_BYTES))
                rc = close_record(w, p, err);
        if (rc == 0 && w->done.len >= APPEND_BYTES)
                rc = append(w, err);
        if (rc < 0)
                return rc;
        ad_wire_batch_entry(&w->open[p], df_buf_bytes(&w->event));
        w->open_events[p]++;
        return df_buf_check(&w->open[p], err);
}

/* ImportEnd is appended only when every event is durable: so where one partition has ended, all
 * have their events. */
int ad_import_writer_end(struct ad_import_writer *w, uint64_t rows, struct df_error *err)
{
        int rc = 0;

        for (uint32_t p = 0; rc == 0 && p < w->place->partitions; p++) {
                if (w->skip[p] > 0)
                        return df_fail(err, DF_ECORRUPT,
                                       "topic %s partition %u holds more events than the file has",
                                       w->state->topic, p);
                rc = close_record(w, p, err);
        }
        if (rc == 0)
                rc = append(w, err);
        for (uint32_t p = 0; rc == 0 && p < w->place->partitions; p++)
                if (!w->state->open || !w->state->parts[p].ended)
                        rc = push_end(w, p, rows, false, err);
        return rc < 0 ? rc : append(w, err);
}

uint64_t ad_import_writer_skipped(const struct ad_import_writer *w)
{
        return w->skipped;
}

void ad_import_writer_close(struct ad_import_writer *w)
{
        if (!w)
                return;
        df_log_writer_close(w->log);
        for (uint32_t p = 0; p < w->place->partitions; p++)
                df_buf_release(&w->open[p]);
        df_buf_release(&w->done);
        df_buf_release(&w->event);
        free(w->items);
        free(w->starts);
        free(w);
}

static int abort_open(const struct ad_import_place *p, struct ad_import_state *state,
                      uint64_t *ret_events, struct df_error *err)
{
        struct ad_import_begin begin = state->begin;
        struct ad_import_writer *w = NULL;
        int rc = 0;

        if (!state->open)
                return df_fail(err, DF_ENOENT,
                               "no import of this dataset is open: there is nothing to abort");
        for (uint32_t i = 0; i < p->partitions; i++) {
                *ret_events += state->parts[i].events;
                if (state->parts[i].ended && !state->parts[i].aborted)
                        return df_fail(
                                err, DF_EEXIST,
                                "all rows of this import are stored and it began to end: run "
                                "the import again to finish it");
        }
        begin.tenant_id = p->tenant;
        begin.dataset = p->dataset;
        rc = ad_import_writer_open(p, state, &begin, NULL, NULL, &w, err);
        for (uint32_t i = 0; rc == 0 && i < p->partitions; i++)
                if (!state->parts[i].ended)
                        rc = push_end(w, i, 0, true, err);
        if (rc == 0)
                rc = append(w, err);
        ad_import_writer_close(w);
        return rc;
}

int ad_import_abort(const struct ad_import_place *p, uint64_t *ret_events, struct df_error *err)
{
        struct ad_import_state *state = calloc(1, sizeof(*state));
        struct ad_ids *ids = NULL;
        int lock = -1, rc;

        *ret_events = 0;
        if (!state)
                return df_fail(err, DF_ENOMEM, "state");
        rc = ad_import_lock(p, &lock, err);
        if (rc == 0)
                rc = ad_import_known_open(p, &ids, state, err);
        ad_ids_close(ids);
        if (rc == 0)
                rc = abort_open(p, state, ret_events, err);
        if (lock >= 0)
                close(lock);
        free(state);
        return rc;
}
