/* check.c - what was served against the recount. */
#include "tests/sim/served.h"

#include <inttypes.h>
#include <stdlib.h>

/* ---- rows: W1 to W4, W6, W7 ---- */

static bool same_cell(const struct ad_cell *a, const struct ad_cell *b)
{
        return a->impressions == b->impressions && a->clicks == b->clicks &&
               a->conversions == b->conversions &&
               memcmp(a->invalid, b->invalid, sizeof(a->invalid)) == 0 && a->spend == b->spend &&
               a->payout == b->payout && a->value == b->value;
}

/* W2: grouping 0 leaves at each checkpoint, the others when the watermark passes the window. */
static bool must_be_served(const struct oracle *o, const struct oracle_cell *c)
{
        struct oracle_record clock;
        uint64_t records = 0;

        for (size_t i = 0; i < o->record_count; i++)
                records += o->records[i].partition == c->partition;
        oracle_clock(o, c->partition, records, &clock);
        return c->grouping == 0 || clock.watermark_ms >= (int64_t)(c->minute + 1) * WORLD_MINUTE_MS;
}

static void check_rows(const struct served *v, const struct oracle *o)
{
        size_t at = 0;

        for (size_t i = 0; i < o->cell_count; i++) {
                const struct oracle_cell *c = &o->cells[i];
                const struct served_row *r = at < v->row_count ? &v->rows[at] : NULL;
                const int order = r ? strcmp(r->key, c->key) : 1;

                if (order < 0)
                        sim_fail(v->world->seed, "row %s is served, but no event belongs to it",
                                 r->key);
                if (order > 0 && must_be_served(o, c))
                        sim_fail(v->world->seed, "row %s is missing", c->key);
                if (order > 0)
                        continue;
                if (!must_be_served(o, c))
                        sim_fail(v->world->seed, "row %s is served before its time (W2)", c->key);
                if (!same_cell(&r->cell, &c->cell))
                        sim_fail(v->world->seed,
                                 "row %s: served %" PRIu64 "/%" PRIu64 "/%" PRIu64
                                 ", counted %" PRIu64 "/%" PRIu64 "/%" PRIu64
                                 " (or money or invalid counts differ)",
                                 c->key, r->cell.impressions, r->cell.clicks, r->cell.conversions,
                                 c->cell.impressions, c->cell.clicks, c->cell.conversions);
                at++;
        }
        if (at < v->row_count)
                sim_fail(v->world->seed, "row %s is served, but no event belongs to it",
                         v->rows[at].key);
}

/* ---- late and quarantined events: exactly once, and what is said of them (E2, W5) ---- */

static bool leaves(const struct oracle_event *e)
{
        const enum ad_outcome_class c = ad_reason_info(e->outcome)->cls;

        return c == AD_CLASS_LATE || c == AD_CLASS_QUARANTINED || c == AD_CLASS_CONFLICT;
}

static int compare_events(const void *a, const void *b)
{
        const struct oracle_event *x = *(struct oracle_event *const *)a;
        const struct oracle_event *y = *(struct oracle_event *const *)b;

        if (x->partition != y->partition)
                return x->partition < y->partition ? -1 : 1;
        if (x->offset != y->offset)
                return x->offset < y->offset ? -1 : 1;
        return (x->index > y->index) - (x->index < y->index);
}

static void check_item(const struct served *v, const struct served_item *item,
                       const struct oracle_event *e)
{
        struct df_bytes said = e->raw;

        if (e->outcome != AD_LATE && said.len > AD_QUARANTINE_HEAD_MAX)
                said.len = AD_QUARANTINE_HEAD_MAX;
        if (item->outcome != e->outcome || item->whole_record != e->whole_record)
                sim_fail(v->world->seed, "event %u/%" PRIu64 "/%u is %s, recounted as %s",
                         e->partition, e->offset, e->index, ad_reason_info(item->outcome)->code,
                         ad_reason_info(e->outcome)->code);
        if (item->append_ms != e->append_ms || item->size != e->raw.len ||
            item->content != df_hash64(said) ||
            (e->outcome == AD_LATE && item->watermark_ms != e->watermark_ms))
                sim_fail(v->world->seed, "event %u/%" PRIu64 "/%u (%s): its item says otherwise",
                         e->partition, e->offset, e->index, ad_reason_info(e->outcome)->code);
}

static void check_items(const struct served *v, const struct oracle *o)
{
        const struct oracle_event **list = calloc(o->event_count + 1, sizeof(*list));
        size_t n = 0;

        df_check(list != NULL);
        for (size_t i = 0; i < o->event_count; i++)
                if (leaves(&o->events[i]))
                        list[n++] = &o->events[i];
        if (n > 1)
                qsort(list, n, sizeof(*list), compare_events);
        for (size_t i = 0; i < n || i < v->item_count; i++) {
                const struct served_item *item = i < v->item_count ? &v->items[i] : NULL;
                const struct oracle_event *e = i < n ? list[i] : NULL;

                if (item && (!e || item->partition != e->partition || item->offset != e->offset ||
                             item->index != e->index))
                        sim_fail(v->world->seed,
                                 "event %u/%" PRIu64 "/%u is in %s (%s): twice, or wrongly, or one "
                                 "before it is missing",
                                 item->partition, item->offset, item->index,
                                 item->outcome == AD_LATE ? "late" : "quarantine",
                                 ad_reason_info(item->outcome)->code);
                if (!item)
                        sim_fail(v->world->seed, "event %u/%" PRIu64 "/%u (%s) is missing",
                                 e->partition, e->offset, e->index,
                                 ad_reason_info(e->outcome)->code);
                check_item(v, item, e);
        }
        free(list);
}

/* ---- seals: K5, K6, the ledger ---- */

static void check_ledger(const struct served *v, const struct oracle *o, uint32_t partition,
                         const struct served_seal *s)
{
        uint64_t counts[DF_OUTCOMES_MAX] = {0}, events = 0, poison = 0, heartbeats = 0, offset = 0;
        const struct df_seal *seal = &s->seal;

        for (size_t i = 0; i < o->event_count; i++) {
                const struct oracle_event *e = &o->events[i];

                if (e->partition == partition && !e->whole_record &&
                    e->offset >= seal->from_offset && e->offset < seal->to_offset)
                        counts[e->outcome]++;
        }
        for (size_t i = 0; i < o->record_count; i++) {
                const struct oracle_record *r = &o->records[i];

                if (r->partition != partition)
                        continue;
                if (offset >= seal->from_offset && offset < seal->to_offset) {
                        events += r->events;
                        poison += r->poison;
                        heartbeats += r->heartbeat;
                }
                offset++;
        }
        for (uint32_t i = 0; i < DF_OUTCOMES_MAX; i++) {
                if (seal->outcomes[i] != counts[i])
                        sim_fail(v->world->seed,
                                 "partition %u k=%" PRIu64 ": %" PRIu64 " events end as %s, "
                                 "recounted %" PRIu64,
                                 partition, s->k, seal->outcomes[i], ad_reason_info(i)->code,
                                 counts[i]);
                events -= seal->outcomes[i];
        }
        if (events != 0)
                sim_fail(v->world->seed,
                         "partition %u k=%" PRIu64 ": the ledger is off by %" PRId64, partition,
                         s->k, (int64_t)events);
        if (seal->poison_records != poison || seal->heartbeats != heartbeats ||
            seal->records != seal->to_offset - seal->from_offset)
                sim_fail(v->world->seed, "partition %u k=%" PRIu64 ": records are counted wrongly",
                         partition, s->k);
}

static void check_clock(const struct served *v, const struct oracle *o, uint32_t partition,
                        const struct served_seal *s, int64_t final_before)
{
        const int64_t grace_ms = v->world->params.grace_ms;
        const struct df_seal *seal = &s->seal;
        struct oracle_record clock;

        oracle_clock(o, partition, seal->to_offset, &clock);
        if (seal->watermark_ms != clock.watermark_ms ||
            seal->max_append_ms != clock.max_append_ms ||
            seal->max_receive_ms != clock.max_receive_ms)
                sim_fail(v->world->seed,
                         "partition %u k=%" PRIu64 ": watermark or maxima are wrong", partition,
                         s->k);
        if (seal->final_through_ms < final_before)
                sim_fail(v->world->seed, "partition %u k=%" PRIu64 ": final_through goes back",
                         partition, s->k);
        if (clock.watermark_ms == INT64_MIN
                    ? seal->final_through_ms != INT64_MIN
                    : seal->final_through_ms > clock.watermark_ms - grace_ms)
                sim_fail(v->world->seed,
                         "partition %u k=%" PRIu64 ": final_through is too far (W4)", partition,
                         s->k);
}

static void check_chain(const struct served *v, const struct oracle *o, uint32_t output,
                        uint32_t partition)
{
        const struct served_chain *c = &v->chains[output][partition];
        const struct df_seal zero = {.final_through_ms = INT64_MIN};
        const struct df_seal *before = &zero;

        for (size_t i = 0; i < c->count; i++) {
                const struct served_seal *s = &c->seals[i];
                const struct served_chain *first = &v->chains[0][partition];

                if (s->k != i + 1 || s->seal.parent_k != i)
                        sim_fail(v->world->seed, "output %u/%u: k=%" PRIu64 " stands at %zu",
                                 output, partition, s->k, i + 1);
                if (!df_hash128_eq(s->seal.parent_digest, before->digest) ||
                    s->seal.from_offset != before->to_offset)
                        sim_fail(v->world->seed, "output %u/%u: k=%" PRIu64 " does not follow (K6)",
                                 output, partition, s->k);
                if (i >= first->count ||
                    !df_hash128_eq(s->seal.digest, first->seals[i].seal.digest))
                        sim_fail(v->world->seed,
                                 "output %u/%u: k=%" PRIu64 " is not that of output 0", output,
                                 partition, s->k);
                check_ledger(v, o, partition, s);
                check_clock(v, o, partition, s, before->final_through_ms);
                before = &s->seal;
        }
}

static void check_end(const struct served *v, const struct oracle *o, uint32_t partition)
{
        const struct served_chain *c = &v->chains[AD_OUT_ROLLUPS][partition];
        const struct df_seal *last = c->count ? &c->seals[c->count - 1].seal : NULL;
        struct oracle_record clock;
        uint64_t records = 0;

        for (size_t i = 0; i < o->record_count; i++)
                records += o->records[i].partition == partition;
        if ((last ? last->to_offset : 0) != records)
                sim_fail(v->world->seed, "partition %u: sealed up to %" PRIu64 " of %" PRIu64,
                         partition, last ? last->to_offset : 0, records);
        if (!last)
                return;
        oracle_clock(o, partition, records, &clock);
        if (clock.watermark_ms != INT64_MIN &&
            last->final_through_ms <=
                    clock.watermark_ms - v->world->params.grace_ms - WORLD_MINUTE_MS)
                sim_fail(v->world->seed, "partition %u: final_through stays behind (W4)",
                         partition);
}

void served_check(const struct served *v, const struct oracle *o)
{
        for (uint32_t p = 0; p < v->world->partitions; p++) {
                for (uint32_t out = 0; out < AD_OUT_COUNT; out++)
                        check_chain(v, o, out, p);
                check_end(v, o, p);
        }
        check_items(v, o);
        check_rows(v, o);
}
