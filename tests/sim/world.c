#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const tenants[] = {"acme", "bolt", "cyan"};
static const char *const currencies[] = {"EUR", "USD"};

static uint64_t pick(struct world *w, uint64_t n)
{
        return df_sim_random_below(&w->random, n);
}

static int64_t between(struct world *w, int64_t low, int64_t high)
{
        return df_sim_random_between(&w->random, low, high);
}

static bool chance(struct world *w, uint32_t permille)
{
        return df_sim_random_chance(&w->random, permille);
}

static struct df_bytes text(struct world *w, const char *fmt, uint64_t n)
{
        char buf[64];
        struct df_bytes b;

        (void)snprintf(buf, sizeof(buf), "%s%llu", fmt, (unsigned long long)n);
        b = df_arena_copy(&w->strings, df_bytes_str(buf));
        df_check(b.data != NULL);
        return b;
}

/* ---- the job ---- */

static const struct ad_price_table *table_of(void *arg, uint32_t version)
{
        const struct world *w = arg;

        return version >= 1 && version <= WORLD_TABLES ? &w->tables[version - 1] : NULL;
}

static void make_prices(struct world *w)
{
        for (size_t t = 0; t < WORLD_TABLES; t++) {
                w->tables[t] = (struct ad_price_table){
                        .version = (uint32_t)t + 1, .prices = w->prices[t], .count = WORLD_PRICES};
                for (size_t i = 0; i < WORLD_PRICES; i++) {
                        struct ad_price *p = &w->prices[t][i];

                        *p = (struct ad_price){
                                .model = (enum ad_price_model)pick(w, 3),
                                .price_nanos = 1000000 * between(w, 1, 5000),
                                .currency = df_bytes_str(currencies[pick(w, 2)]),
                                /* all different: no two lines are equally good */
                                .valid_from_ms =
                                        w->now_ms + between(w, -30, 90) * 60000 + (int64_t)i,
                        };
                        if (chance(w, 600))
                                p->tenant_id = df_bytes_str(tenants[pick(w, 3)]);
                        if (chance(w, 300))
                                p->campaign_id = text(w, "c", pick(w, 3));
                }
                w->prices[t][0].valid_from_ms = 0;
                if (chance(w, 500)) { /* a line for everybody: nothing is without a price */
                        w->prices[t][0].tenant_id = df_bytes(NULL, 0);
                        w->prices[t][0].campaign_id = df_bytes(NULL, 0);
                }
        }
}

static void make_job(struct world *w)
{
        w->partitions = 1 + (uint32_t)pick(w, WORLD_PARTITIONS_MAX);
        w->rules = (struct df_clock_rules){
                .out_of_orderness_ms = between(w, 0, 3) * 5000,
                .receive_ahead_max_ms = AD_RECEIVE_AHEAD_MAX_MS,
                .receive_behind_max_ms = AD_RECEIVE_BEHIND_MAX_MS,
                .future_max_ms = AD_FUTURE_MAX_MS,
                .accepted_age_ms = between(w, 1, 6) * WORLD_HOUR_MS,
        };
        w->groupings = ad_groupings_default;
        w->groupings.count = 1 + (uint32_t)pick(w, 3);
        w->params = (struct ad_params){
                .grace_ms = between(w, 0, 4) * 45000,
                .horizon_hours = 1 + (uint32_t)pick(w, 3),
                .dedupe_open_ids = 16 + pick(w, 4) * 16,
                .cell_cap = chance(w, 500) ? 1 + (uint32_t)pick(w, 3) : 1000,
                .groupings = &w->groupings,
                .pricing = (enum ad_pricing)pick(w, 3),
                .price_table = table_of,
                .price_arg = w,
        };
        make_prices(w);
}

void world_task_config(const struct world *w, uint32_t partition, struct df_task_config *ret)
{
        *ret = (struct df_task_config){
                .source = {.stream = "events", .partition = partition},
                .partitions = w->partitions,
                .chain = ad_chain_main,
                .chain_length = ad_chain_main_length,
                .params = &w->params,
                .outputs = {[AD_OUT_LATE] = {.topic = "late", .partitions = w->partitions},
                            [AD_OUT_QUARANTINE] = {.topic = "quarantine",
                                                   .partitions = w->partitions},
                            [AD_OUT_ROLLUPS] = {.topic = "rollups", .partitions = w->partitions}},
                .output_count = AD_OUT_COUNT,
                .rules = w->rules,
                .grace_ms = w->params.grace_ms,
                .config = 0x5eed,
                .binary_version = "sim",
        };
}

/* ---- events ---- */

static uint32_t partition_of(const struct world *w, const struct ad_event *ev)
{
        return ad_event_partition(ad_event_key(ev->tenant_id, ev->event_id), w->partitions);
}

static void state_money(struct world *w, struct ad_event *ev)
{
        if (chance(w, 600)) {
                ev->flags |= AD_EV_HAS_COST;
                ev->cost_nanos = between(w, 0, 2000000000);
        }
        if (chance(w, 300)) {
                ev->flags |= AD_EV_HAS_PAYOUT;
                ev->payout_nanos = between(w, 0, 1000000000);
        }
        if (ev->type == AD_CONVERSION || chance(w, 50)) {
                ev->flags |= AD_EV_HAS_VALUE;
                ev->value_nanos = between(w, 0, 90000000000);
                if (chance(w, 400))
                        ev->value_currency = df_bytes_str(currencies[pick(w, 2)]);
        }
        if ((ev->flags & (AD_EV_HAS_COST | AD_EV_HAS_PAYOUT | AD_EV_HAS_VALUE)) || chance(w, 300)) {
                ev->currency = df_bytes_str(currencies[pick(w, 2)]);
                if (chance(w, 200))
                        ev->flags |= AD_EV_CURRENCY_DEFAULTED;
        }
}

static void new_event(struct world *w, struct ad_event *ev)
{
        static const char *const names[AD_DIM_COUNT] = {"a", "c", "ad", "p", "pl", "", "dev"};

        *ev = (struct ad_event){
                .event_id = text(w, "e", w->next_id++),
                .tenant_id = df_bytes_str(tenants[pick(w, 3)]),
                .type = AD_IMPRESSION + (uint32_t)pick(w, 3),
                .schema_version = AD_SCHEMA_VERSION,
                .source = df_bytes_str("http"),
        };
        for (size_t d = 0; d < AD_DIM_COUNT; d++)
                if (d == AD_DIM_COUNTRY)
                        ev->dims[d] = df_bytes_str(chance(w, 500) ? "DE" : "FR");
                else if (d == AD_DIM_CAMPAIGN || chance(w, 700))
                        ev->dims[d] = text(w, names[d], pick(w, 3));
        if (chance(w, 60))
                ev->labels = chance(w, 500) ? AD_LABEL_BOT : AD_LABEL_TEST;
        state_money(w, ev);
}

/* On one side of a limit or the other, often exactly at it. */
static int64_t around(struct world *w, int64_t limit, int64_t beyond)
{
        switch (pick(w, 4)) {
        case 0:
                return limit;
        case 1:
                return limit + 1;
        case 2:
                return limit - 1;
        default:
                return limit + 1 + between(w, 0, beyond);
        }
}

/* An event's times in the ordinary case, with a lag now and then. */
static void stamp(struct world *w, struct ad_event *ev)
{
        ev->receive_ms = w->now_ms - between(w, 0, 400);
        if (chance(w, 80))
                ev->receive_ms -= between(w, 0, 50 * WORLD_MINUTE_MS);
        if (chance(w, 100)) {
                ev->flags |= AD_EV_TIME_MISSING;
                ev->event_ms = ev->receive_ms;
                return;
        }
        ev->event_ms = ev->receive_ms - between(w, 0, 8000);
        if (chance(w, 150))
                ev->event_ms -= between(w, 0, 3 * WORLD_MINUTE_MS);
}

/* Times near a limit of T2, T3 or W5 (also just within it). */
static void stamp_at_limit(struct world *w, struct ad_event *ev, uint32_t p)
{
        const struct df_clock_rules *r = &w->rules;

        ev->flags &= ~(uint32_t)AD_EV_TIME_MISSING;
        switch (pick(w, 6)) {
        case 0: /* T2: ahead of the log's clock */
                ev->receive_ms =
                        (w->max_append_ms[p] > w->now_ms ? w->max_append_ms[p] : w->now_ms) +
                        around(w, r->receive_ahead_max_ms, WORLD_HOUR_MS);
                ev->event_ms = ev->receive_ms;
                break;
        case 1: /* T2: stale */
                ev->receive_ms =
                        w->max_receive_ms[p] - around(w, r->receive_behind_max_ms, WORLD_HOUR_MS);
                ev->event_ms = ev->receive_ms - between(w, 0, 5000);
                break;
        case 2: /* T3: future */
                ev->event_ms = ev->receive_ms + around(w, r->future_max_ms, WORLD_HOUR_MS);
                break;
        case 3: /* T3: old */
                ev->event_ms = ev->receive_ms - around(w, r->accepted_age_ms, WORLD_HOUR_MS);
                break;
        default: { /* W5: at the edge of its window's grace */
                int64_t edge = w->watermark_ms[p] - w->params.grace_ms - WORLD_MINUTE_MS;

                ev->event_ms = edge / WORLD_MINUTE_MS * WORLD_MINUTE_MS +
                               around(w, WORLD_MINUTE_MS, 1000) -
                               between(w, 0, 1) * WORLD_MINUTE_MS;
                break;
        }
        }
}

static void spoil(struct world *w, struct ad_event *ev)
{
        switch (pick(w, 4)) {
        case 0:
                ev->type = pick(w, 2) ? 0 : 9;
                break;
        case 1:
                ev->cost_nanos = -1 - between(w, 0, 1000);
                ev->flags |= AD_EV_HAS_COST;
                break;
        case 2:
                ev->currency = df_bytes_str("EU");
                break;
        default:
                ev->tenant_id = df_bytes(NULL, 0);
                break;
        }
}

static struct world_made *old_one(struct world *w, uint32_t p)
{
        for (int tries = 0; w->made_count > 0 && tries < 8; tries++) {
                size_t back = w->made_count < 12 || chance(w, 400) ? w->made_count : 12;
                struct world_made *m = &w->made[w->made_count - 1 - pick(w, back)];

                if (m->partition == p)
                        return m;
        }
        return NULL;
}

/* Another occurrence: the client's statement again, or (a conflict) a changed one. */
static void repeat(struct world *w, const struct world_made *m, struct ad_event *ev)
{
        const bool missing = (m->ev.flags & AD_EV_TIME_MISSING) != 0;
        const int64_t event_ms = m->ev.event_ms;

        *ev = m->ev;
        stamp(w, ev);
        ev->flags = m->ev.flags;
        if (!missing)
                ev->event_ms = event_ms;
        else
                ev->event_ms = ev->receive_ms;
        if (chance(w, 250)) {
                ev->cost_nanos += 7;
                ev->flags |= AD_EV_HAS_COST;
                if (ev->currency.len == 0)
                        ev->currency = df_bytes_str("EUR");
        }
}

static void remember(struct world *w, const struct ad_event *ev, uint32_t p)
{
        if (w->made_count == w->made_cap) {
                w->made_cap = w->made_cap ? w->made_cap * 2 : 64;
                w->made = realloc(w->made, w->made_cap * sizeof(*w->made));
                df_check(w->made != NULL);
        }
        w->made[w->made_count++] = (struct world_made){*ev, p};
}

/* About what guard does: only so that later events can be aimed at limits. */
static void follow_clock(struct world *w, const struct ad_event *ev, uint32_t p)
{
        int64_t m = ev->event_ms < ev->receive_ms ? ev->event_ms : ev->receive_ms;

        if (ev->receive_ms > w->now_ms + w->rules.receive_ahead_max_ms)
                return;
        if (ev->receive_ms > w->max_receive_ms[p])
                w->max_receive_ms[p] = ev->receive_ms;
        if (m - w->rules.out_of_orderness_ms > w->watermark_ms[p])
                w->watermark_ms[p] = m - w->rules.out_of_orderness_ms;
}

static void make_event(struct world *w, struct ad_event *ev, uint32_t p)
{
        const struct world_made *m = chance(w, 220) ? old_one(w, p) : NULL;

        if (m) {
                repeat(w, m, ev);
        } else {
                const bool elsewhere = chance(w, 20);

                do
                        new_event(w, ev);
                while (!elsewhere && partition_of(w, ev) != p);
                stamp(w, ev);
        }
        if (chance(w, 120))
                stamp_at_limit(w, ev, p);
        if (chance(w, 20))
                spoil(w, ev);
        ev->fingerprint = ad_event_fingerprint(ev);
        remember(w, ev, p);
        follow_clock(w, ev, p);
}

/* ---- records ---- */

static void add_record(struct world *w, uint32_t p, struct df_buf *b, bool ahead)
{
        struct world_record *r;
        uint8_t *value;

        df_check(!b->failed);
        if (w->record_count == w->record_cap) {
                w->record_cap = w->record_cap ? w->record_cap * 2 : 64;
                w->records = realloc(w->records, w->record_cap * sizeof(*w->records));
                df_check(w->records != NULL);
        }
        value = malloc(b->len ? b->len : 1);
        df_check(value != NULL);
        if (b->len)
                memcpy(value, b->data, b->len);
        r = &w->records[w->record_count++];
        *r = (struct world_record){.partition = p,
                                   .append_ms = w->now_ms,
                                   .ahead = ahead,
                                   .value = df_bytes(value, b->len)};
        if (w->now_ms > w->max_append_ms[p])
                w->max_append_ms[p] = w->now_ms;
        df_buf_release(b);
}

static void put_header(struct world *w, struct df_buf *b, uint32_t p, bool heartbeat, bool reset)
{
        struct ad_batch h = {
                .start_id = 77,
                .first_seq = w->accepted[p],
                .price_version = 1 + (w->record_count > 40),
                .label_version = 1,
                .schema_version = AD_SCHEMA_VERSION,
                .clock_reset = reset,
        };

        if (heartbeat) {
                h.has_heartbeat = true;
                h.heartbeat.receive_ms = w->now_ms - between(w, 0, 300);
                h.heartbeat.partition_accepted = w->accepted[p];
                if (chance(w, 50)) /* T2: judged like an event */
                        h.heartbeat.receive_ms += around(w, w->rules.receive_ahead_max_ms, 60000);
        }
        ad_wire_batch_header(b, &h);
}

static void poison_record(struct world *w, uint32_t p)
{
        struct df_buf b = {0}, e = {0};
        struct ad_event ev;

        new_event(w, &ev);
        stamp(w, &ev);
        ad_wire_event(&e, &ev);
        ad_wire_batch_entry(&b, df_buf_bytes(&e));
        switch (pick(w, 3)) {
        case 0:
                b.len -= 1 + pick(w, b.len / 2); /* torn */
                break;
        case 1:
                b.len = 0;
                for (uint64_t n = 1 + pick(w, 40); n > 0; n--)
                        df_put_u8(&b, 0xff);
                break;
        default: /* E3: more events than a record may hold */
                for (int i = 0; i < AD_RECORD_EVENTS_MAX; i++)
                        df_buf_append(&b, "\x0a\x00", 2);
                break;
        }
        df_buf_release(&e);
        add_record(w, p, &b, false);
}

static void event_record(struct world *w, uint32_t p, size_t count, bool heartbeat, bool reset)
{
        struct df_buf b = {0}, e = {0};

        for (size_t i = 0; i < count; i++) {
                struct ad_event ev;

                make_event(w, &ev, p);
                df_buf_clear(&e);
                ad_wire_event(&e, &ev);
                df_check(!e.failed);
                ad_wire_batch_entry(&b, df_buf_bytes(&e));
        }
        put_header(w, &b, p, heartbeat, reset);
        w->accepted[p] += count;
        df_buf_release(&e);
        add_record(w, p, &b, false);
}

/* From the producer whose clock is a day ahead (T2): fresh ids, so that nobody else is meant. The
 * random numbers drawn are the same with and without it. */
static void ahead_record(struct world *w, uint32_t p, bool empty)
{
        struct df_buf b = {0}, e = {0};

        for (uint64_t i = 0, n = 1 + pick(w, 3); i < n; i++) {
                struct ad_event ev;

                do
                        new_event(w, &ev);
                while (partition_of(w, &ev) != p);
                stamp(w, &ev);
                ev.receive_ms += 24 * WORLD_HOUR_MS;
                ev.event_ms += 24 * WORLD_HOUR_MS;
                ev.fingerprint = ad_event_fingerprint(&ev);
                df_buf_clear(&e);
                ad_wire_event(&e, &ev);
                df_check(!e.failed);
                if (!empty)
                        ad_wire_batch_entry(&b, df_buf_bytes(&e));
        }
        if (empty)
                df_buf_clear(&b);
        put_header(w, &b, p, false, false);
        df_buf_release(&e);
        add_record(w, p, &b, true);
}

static void pass_time(struct world *w)
{
        const uint64_t x = pick(w, 1000);

        if (x < 700)
                w->now_ms += between(w, 0, 4000);
        else if (x < 940)
                w->now_ms += between(w, 10000, 2 * WORLD_MINUTE_MS);
        else if (x < 985)
                w->now_ms += between(w, 5, 80) * WORLD_MINUTE_MS;
        else
                w->now_ms += between(w, 1, 4) * WORLD_HOUR_MS;
}

/* The machine's clock was wrong for a while; then an operator's repair. Within the hour, because
 * dedupe leaves ids of hours that ended by the wrong clock forgotten, and D1 knows no such rule. */
static void clock_accident(struct world *w)
{
        const int64_t left_ms = WORLD_HOUR_MS - w->now_ms % WORLD_HOUR_MS;
        const int64_t jump_ms = between(w, 1, left_ms) - 1;
        size_t at;

        w->now_ms += jump_ms;
        for (uint32_t p = 0; p < w->partitions; p++)
                event_record(w, p, 2, false, false);
        w->now_ms -= jump_ms;
        at = w->record_count;
        for (uint32_t p = 0; p < w->partitions; p++) {
                w->max_append_ms[p] = w->max_receive_ms[p] = w->now_ms;
                event_record(w, p, 0, true, true);
        }
        w->records[at].clock_restart = true;
}

static void one_record(struct world *w, bool without_ahead)
{
        const uint32_t p = (uint32_t)pick(w, w->partitions);
        const uint64_t x = pick(w, 1000);

        if (x < 30)
                poison_record(w, p);
        else if (x < 60)
                ahead_record(w, p, without_ahead);
        else if (x < 140)
                event_record(w, p, 0, true, false);
        else if (x < 160)
                event_record(w, p, 0, false, false);
        else if (x < 175) /* more than decode gathers at once */
                event_record(w, p, 60 + pick(w, 20), false, false);
        else
                event_record(w, p, 1 + pick(w, 5), chance(w, 60), false);
}

static void make(struct world *w, uint64_t seed, bool without_ahead)
{
        size_t steps;

        *w = (struct world){.seed = seed, .now_ms = 1764000000000};
        df_arena_init(&w->strings, 0);
        df_sim_random_init(&w->random, seed);
        w->now_ms += between(w, 0, 120) * WORLD_MINUTE_MS;
        for (uint32_t p = 0; p < WORLD_PARTITIONS_MAX; p++)
                w->watermark_ms[p] = w->max_receive_ms[p] = w->max_append_ms[p] = w->now_ms;
        make_job(w);
        steps = 12 + pick(w, 60);
        for (size_t i = 0; i < steps; i++) {
                pass_time(w);
                one_record(w, without_ahead);
                if (chance(w, 3))
                        clock_accident(w);
        }
        if (chance(w, 700)) { /* T4: heartbeats close the windows */
                w->now_ms += w->params.grace_ms + 3 * WORLD_MINUTE_MS;
                for (uint32_t p = 0; p < w->partitions; p++)
                        event_record(w, p, 0, true, false);
        }
}

void world_make(struct world *w, uint64_t seed)
{
        make(w, seed, false);
}

void world_make_without_ahead(struct world *w, uint64_t seed)
{
        make(w, seed, true);
}

void world_release(struct world *w)
{
        for (size_t i = 0; i < w->record_count; i++)
                free((void *)(uintptr_t)w->records[i].value.data);
        free(w->records);
        free(w->made);
        df_arena_release(&w->strings);
}
