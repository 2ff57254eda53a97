#include "tests/sim/served.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static const char *const topics[AD_OUT_COUNT] = {
        [AD_OUT_LATE] = "late", [AD_OUT_QUARANTINE] = "quarantine", [AD_OUT_ROLLUPS] = "rollups"};

static void *grow(void *p, size_t count, size_t *cap, size_t size)
{
        if (count < *cap)
                return p;
        *cap = *cap ? *cap * 2 : 64;
        p = realloc(p, *cap * size);
        df_check(p != NULL);
        return p;
}

struct take {
        struct served *v;
        uint32_t partition;
};

static int take_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct take *t = arg;
        struct served *v = t->v;
        struct served_row r = {.grouping = row->grouping, .minute = row->minute, .cell = row->cell};

        (void)err;
        oracle_key(r.key, t->partition, row->grouping, row->minute, row->tenant_id, row->dims,
                   row->dim_count, row->currency);
        for (size_t i = 0; i < v->row_count; i++)
                if (strcmp(v->rows[i].key, r.key) == 0) {
                        v->rows[i] = r; /* W3: absolute values */
                        return 0;
                }
        v->rows = grow(v->rows, v->row_count, &v->row_cap, sizeof(*v->rows));
        v->rows[v->row_count++] = r;
        return 0;
}

static int compare_items(const void *a, const void *b)
{
        const struct served_item *x = a, *y = b;

        if (x->partition != y->partition)
                return x->partition < y->partition ? -1 : 1;
        if (x->offset != y->offset)
                return x->offset < y->offset ? -1 : 1;
        return (x->index > y->index) - (x->index < y->index);
}

/* The law of df/operator.h: a topic's items come in log order, whatever the batches were. */
static void add_item(struct served *v, const struct served_item *item)
{
        const struct served_item *last = v->item_count ? &v->items[v->item_count - 1] : NULL;

        if (last && last->partition == item->partition &&
            (last->outcome == AD_LATE) == (item->outcome == AD_LATE) &&
            compare_items(last, item) >= 0)
                sim_fail(v->world->seed,
                         "event %u/%" PRIu64 "/%u (%s) is served after %" PRIu64 "/%u",
                         item->partition, item->offset, item->index,
                         ad_reason_info(item->outcome)->code, last->offset, last->index);
        v->items = grow(v->items, v->item_count, &v->item_cap, sizeof(*v->items));
        v->items[v->item_count++] = *item;
}

static int take_late(void *arg, const struct ad_late *late, struct df_error *err)
{
        struct take *t = arg;
        const struct served_item item = {
                .partition = t->partition,
                .offset = late->offset,
                .index = late->index,
                .outcome = AD_LATE,
                .append_ms = late->append_ms,
                .watermark_ms = late->watermark_ms,
                .size = late->event.len,
                .content = df_hash64(late->event),
        };

        (void)err;
        add_item(t->v, &item);
        return 0;
}

static int take_quarantined(void *arg, const struct ad_quarantined *q, struct df_error *err)
{
        struct take *t = arg;
        const struct served_item item = {
                .partition = t->partition,
                .offset = q->offset,
                .index = q->whole_record ? 0 : q->index,
                .whole_record = q->whole_record,
                .outcome = q->reason,
                .append_ms = q->append_ms,
                .size = q->size,
                .content = df_hash64(q->head),
        };

        (void)err;
        add_item(t->v, &item);
        return 0;
}

static int take_payload(struct take *t, uint32_t output, struct df_bytes payload,
                        struct df_error *err)
{
        if (output == AD_OUT_ROLLUPS)
                return ad_wire_rows_decode(payload, take_row, t, err);
        if (output == AD_OUT_LATE)
                return ad_wire_late_decode(payload, take_late, t, err);
        return ad_wire_quarantine_decode(payload, take_quarantined, t, err);
}

static void take_collection(struct served *v, uint32_t output, uint32_t partition,
                            const struct df_collection *c)
{
        struct served_chain *chain = &v->chains[output][partition];
        struct take t = {v, partition};
        struct df_error err = {0};

        for (size_t i = 0; i < c->count; i++)
                if (take_payload(&t, output, c->payloads[i], &err) < 0)
                        sim_fail(v->world->seed, "%s/%u k=%" PRIu64 " payload %zu: %s",
                                 topics[output], partition, c->origin.k, i, err.text);
        chain->seals = grow(chain->seals, chain->count, &chain->cap, sizeof(*chain->seals));
        chain->seals[chain->count] =
                (struct served_seal){.k = c->origin.k, .epoch = c->origin.epoch, .seal = c->seal};
        chain->seals[chain->count++].seal.note = (struct df_bytes){0};
}

static void read_partition(struct served *v, struct df_sim *sim, uint32_t output,
                           uint32_t partition, uint64_t generation)
{
        const struct df_source source = {"events", generation, partition};
        struct df_collector *collector = NULL;
        struct df_error err = {0};
        size_t count;
        const struct df_record *records = df_sim_records(sim, topics[output], partition, &count);

        if (df_collector_create(1u << 26, &collector, &err) < 0)
                sim_fail(v->world->seed, "collector: %s", err.text);
        for (size_t i = 0; i < count; i++) {
                struct df_collection c;
                enum df_collect what = DF_COLLECT_MORE;

                if (df_collector_add(collector, &records[i], &what, &c, &err) < 0)
                        sim_fail(v->world->seed, "%s/%u offset %zu: %s", topics[output], partition,
                                 i, err.text);
                if (what == DF_COLLECT_DAMAGED)
                        sim_fail(v->world->seed, "%s/%u offset %zu: damaged collection",
                                 topics[output], partition, i);
                if (what != DF_COLLECT_COMPLETE)
                        continue;
                if (!df_source_eq(&c.origin.source, &source))
                        sim_fail(v->world->seed, "%s/%u offset %zu: foreign source", topics[output],
                                 partition, i);
                take_collection(v, output, partition, &c);
        }
        df_collector_destroy(collector);
}

static int compare_rows(const void *a, const void *b)
{
        return strcmp(((const struct served_row *)a)->key, ((const struct served_row *)b)->key);
}

void served_read(struct served *v, const struct world *w, struct df_sim *sim, uint64_t generation)
{
        *v = (struct served){.world = w};
        for (uint32_t o = 0; o < AD_OUT_COUNT; o++)
                for (uint32_t p = 0; p < w->partitions; p++)
                        read_partition(v, sim, o, p, generation);
        if (v->row_count > 1)
                qsort(v->rows, v->row_count, sizeof(*v->rows), compare_rows);
        if (v->item_count > 1)
                qsort(v->items, v->item_count, sizeof(*v->items), compare_items);
}

void served_release(struct served *v)
{
        for (uint32_t o = 0; o < AD_OUT_COUNT; o++)
                for (uint32_t p = 0; p < WORLD_PARTITIONS_MAX; p++)
                        free(v->chains[o][p].seals);
        free(v->rows);
        free(v->items);
}

static void print_cell(struct df_buf *b, const struct ad_cell *c)
{
        char money[3][DF_INT128_TEXT_MAX];

        (void)df_int128_text(c->spend, money[0]);
        (void)df_int128_text(c->payout, money[1]);
        (void)df_int128_text(c->value, money[2]);
        df_buf_printf(b,
                      "%" PRIu64 " %" PRIu64 " %" PRIu64 " invalid %" PRIu64 " %" PRIu64 " %" PRIu64
                      " money %s %s %s",
                      c->impressions, c->clicks, c->conversions, c->invalid[0], c->invalid[1],
                      c->invalid[2], money[0], money[1], money[2]);
}

static int64_t final_through(const struct served *v, uint32_t partition)
{
        const struct served_chain *c = &v->chains[AD_OUT_ROLLUPS][partition];

        return c->count ? c->seals[c->count - 1].seal.final_through_ms : INT64_MIN;
}

void served_final_text(const struct served *v, struct df_buf *ret)
{
        for (size_t i = 0; i < v->row_count; i++) {
                const struct served_row *r = &v->rows[i];
                const uint32_t p = (uint32_t)strtoul(r->key, NULL, 10);

                if ((int64_t)(r->minute + 1) * WORLD_MINUTE_MS > final_through(v, p))
                        continue;
                df_buf_printf(ret, "%s = ", r->key);
                print_cell(ret, &r->cell);
                df_buf_printf(ret, "\n");
        }
        df_check(!ret->failed);
}
