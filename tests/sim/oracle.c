#include "tests/sim/oracle.h"

#include <stdio.h>
#include <stdlib.h>

struct state { /* of one partition while it is read */
        int64_t watermark_ms, max_append_ms, max_receive_ms;
        bool seen_append, seen_receive, seen_watermark;
};

static void *grow(void *p, size_t count, size_t *cap, size_t size)
{
        if (count < *cap)
                return p;
        *cap = *cap ? *cap * 2 : 64;
        p = realloc(p, *cap * size);
        df_check(p != NULL);
        return p;
}

static void copy_text(char *to, size_t size, struct df_bytes b)
{
        df_check(b.len < size);
        if (b.len)
                memcpy(to, b.data, b.len);
        to[b.len] = '\0';
}

/* ---- T2, T3 ---- */

/* The reason why an event with these times is refused, or AD_NONE; then the clock has moved. */
static enum ad_reason judge_times(struct state *s, const struct df_clock_rules *r,
                                  int64_t receive_ms, int64_t event_ms)
{
        int64_t m;

        if (receive_ms > s->max_append_ms + r->receive_ahead_max_ms)
                return AD_CLOCK;
        if (s->seen_receive && receive_ms < s->max_receive_ms - r->receive_behind_max_ms)
                return AD_STALE_RECEIVE;
        if (event_ms > receive_ms + r->future_max_ms)
                return AD_FUTURE_EVENT;
        if (event_ms < receive_ms - r->accepted_age_ms)
                return AD_TOO_OLD;
        if (!s->seen_receive || receive_ms > s->max_receive_ms)
                s->max_receive_ms = receive_ms;
        s->seen_receive = true;
        m = (event_ms < receive_ms ? event_ms : receive_ms) - r->out_of_orderness_ms;
        if (!s->seen_watermark || m > s->watermark_ms)
                s->watermark_ms = m;
        s->seen_watermark = true;
        return AD_NONE;
}

static bool is_invalid(const struct ad_event *ev)
{
        return ev->event_id.len == 0 || ev->tenant_id.len == 0 || ev->type < 1 || ev->type > 3 ||
               ev->cost_nanos < 0 || ev->payout_nanos < 0 || ev->value_nanos < 0 ||
               (ev->currency.len != 0 && ev->currency.len != 3) ||
               (ev->value_currency.len != 0 && ev->value_currency.len != 3);
}

static int64_t hour_of(int64_t ms)
{
        return ms >= 0 ? ms / WORLD_HOUR_MS : -((-ms + WORLD_HOUR_MS - 1) / WORLD_HOUR_MS);
}

/* ---- D1 ---- */

static enum ad_reason judge_repeat(const struct oracle *o, const struct oracle_event *e)
{
        const int64_t H = o->world->params.horizon_hours;
        const struct oracle_event *greatest = NULL;

        for (size_t i = 0; i < o->event_count; i++) {
                const struct oracle_event *x = &o->events[i];

                if (x->partition != e->partition || !x->recorded || strcmp(x->id, e->id) != 0 ||
                    strcmp(x->tenant, e->tenant) != 0)
                        continue;
                if (x->receive_hour < e->receive_hour - H || x->receive_hour > e->receive_hour + 1)
                        continue;
                if (!greatest || x->receive_hour >= greatest->receive_hour)
                        greatest = x;
        }
        if (!greatest)
                return AD_NONE;
        return greatest->fingerprint == e->fingerprint ? AD_DUPLICATE : AD_CONFLICT;
}

/* ---- price: DESIGN section 3, operators/ops.h ---- */

static bool applies(struct df_bytes scope, struct df_bytes v)
{
        return scope.len == 0 || df_bytes_eq(scope, v);
}

static int fields(const struct ad_price *p)
{
        return (p->tenant_id.len != 0) + (p->advertiser_id.len != 0) + (p->campaign_id.len != 0) +
               (p->ad_id.len != 0);
}

static const struct ad_price *best_price(const struct ad_price_table *t, const struct ad_event *ev,
                                         bool charging_only)
{
        static const uint32_t charged[] = {
                [AD_CPM] = AD_IMPRESSION, [AD_CPC] = AD_CLICK, [AD_CPA] = AD_CONVERSION};
        const bool stated = ev->currency.len != 0 && !(ev->flags & AD_EV_CURRENCY_DEFAULTED);
        const struct ad_price *best = NULL;

        for (size_t i = 0; i < t->count; i++) {
                const struct ad_price *p = &t->prices[i];

                if (!applies(p->tenant_id, ev->tenant_id) ||
                    !applies(p->advertiser_id, ev->dims[AD_DIM_ADVERTISER]) ||
                    !applies(p->campaign_id, ev->dims[AD_DIM_CAMPAIGN]) ||
                    !applies(p->ad_id, ev->dims[AD_DIM_AD]))
                        continue;
                if (p->valid_from_ms > ev->event_ms ||
                    (stated && !df_bytes_eq(p->currency, ev->currency)) ||
                    (charging_only && charged[p->model] != ev->type))
                        continue;
                if (!best || fields(p) > fields(best) ||
                    (fields(p) == fields(best) && p->valid_from_ms > best->valid_from_ms))
                        best = p;
        }
        return best;
}

/* False: price_missing. */
static bool set_price(const struct oracle *o, struct ad_event *ev, uint32_t version)
{
        const struct world *w = o->world;
        const struct ad_price *charging, *any;

        if (w->params.pricing == AD_PRICE_CLIENT ||
            (w->params.pricing == AD_PRICE_CLIENT_ELSE_TABLE && (ev->flags & AD_EV_HAS_COST)))
                return true;
        df_check(version >= 1 && version <= WORLD_TABLES);
        any = best_price(&w->tables[version - 1], ev, false);
        if (!any)
                return false;
        charging = best_price(&w->tables[version - 1], ev, true);
        ev->cost_nanos = 0;
        if (charging)
                ev->cost_nanos = charging->price_nanos / (charging->model == AD_CPM ? 1000 : 1);
        if (ev->currency.len == 0 || (ev->flags & AD_EV_CURRENCY_DEFAULTED))
                ev->currency = charging ? charging->currency : any->currency;
        return true;
}

/* ---- W1, W7 ---- */

static void key_bytes(char **at, const char *end, struct df_bytes b)
{
        df_check(b.len + 2 < (size_t)(end - *at));
        *(*at)++ = '|';
        if (b.len)
                memcpy(*at, b.data, b.len);
        *at += b.len;
        **at = '\0';
}

void oracle_key(char *ret, uint32_t partition, uint32_t grouping, uint64_t minute,
                struct df_bytes tenant, const struct df_bytes *dims, uint32_t dim_count,
                struct df_bytes currency)
{
        const char *end = ret + ORACLE_KEY_MAX;
        char *at = ret + snprintf(ret, ORACLE_KEY_MAX, "%03u|%u|%011llu", partition, grouping,
                                  (unsigned long long)minute);

        key_bytes(&at, end, tenant);
        for (uint32_t i = 0; i < dim_count; i++)
                key_bytes(&at, end, dims[i]);
        if (currency.len)
                key_bytes(&at, end, currency);
}

static struct oracle_cell *find_cell(struct oracle *o, const char *key)
{
        for (size_t i = 0; i < o->cell_count; i++)
                if (strcmp(o->cells[i].key, key) == 0)
                        return &o->cells[i];
        return NULL;
}

/* The cell of this event, grouping and currency: a new one, or __other__ beyond the cap. */
static struct oracle_cell *cell_of(struct oracle *o, uint32_t partition, const struct ad_event *ev,
                                   uint32_t grouping, struct df_bytes currency)
{
        const struct ad_grouping *g = &o->world->groupings.list[grouping];
        const uint64_t minute = (uint64_t)ev->event_ms / WORLD_MINUTE_MS;
        struct df_bytes dims[AD_DIM_COUNT];
        struct oracle_cell n = {.partition = partition, .grouping = grouping, .minute = minute};
        struct oracle_cell *c;
        uint32_t keys = 0;

        for (uint32_t i = 0; i < g->dim_count; i++)
                dims[i] = ev->dims[g->dims[i]];
        oracle_key(n.group, partition, grouping, minute, ev->tenant_id, NULL, 0, df_bytes(NULL, 0));
        oracle_key(n.key, partition, grouping, minute, ev->tenant_id, dims, g->dim_count, currency);
        c = find_cell(o, n.key);
        if (c)
                return c;
        for (size_t i = 0; i < o->cell_count; i++)
                keys += !o->cells[i].is_other && strcmp(o->cells[i].group, n.group) == 0;
        if (keys >= o->world->params.cell_cap) {
                for (uint32_t i = 0; i < g->dim_count; i++)
                        dims[i] = df_bytes_str(AD_OTHER);
                oracle_key(n.key, partition, grouping, minute, ev->tenant_id, dims, g->dim_count,
                           currency);
                c = find_cell(o, n.key);
                if (c)
                        return c;
                n.is_other = true;
        }
        o->cells = grow(o->cells, o->cell_count, &o->cell_cap, sizeof(*o->cells));
        o->cells[o->cell_count] = n;
        return &o->cells[o->cell_count++];
}

static void count(struct oracle *o, uint32_t partition, const struct ad_event *ev)
{
        const struct df_bytes none = df_bytes_str("XXX");
        const struct df_bytes currency = ev->currency.len ? ev->currency : none;
        const struct df_bytes value_currency =
                ev->value_currency.len ? ev->value_currency : currency;

        for (uint32_t g = 0; g < o->world->groupings.count; g++) {
                struct ad_cell *c = &cell_of(o, partition, ev, g, currency)->cell;

                if (ev->labels & (AD_LABEL_BOT | AD_LABEL_TEST)) {
                        c->invalid[ev->type - 1]++;
                        continue;
                }
                c->impressions += ev->type == AD_IMPRESSION;
                c->clicks += ev->type == AD_CLICK;
                c->conversions += ev->type == AD_CONVERSION;
                c->spend += ev->cost_nanos;
                c->payout += ev->payout_nanos;
                if (ev->value_nanos != 0)
                        cell_of(o, partition, ev, g, value_currency)->cell.value += ev->value_nanos;
        }
}

/* ---- the recount ---- */

static void recount_event(struct oracle *o, struct state *s, struct oracle_event *e,
                          struct ad_event *ev, uint32_t price_version)
{
        const struct world *w = o->world;
        const int64_t window_end =
                (ev->event_ms / WORLD_MINUTE_MS + 1) * WORLD_MINUTE_MS; /* times are positive */

        e->watermark_ms = s->seen_watermark ? s->watermark_ms : INT64_MIN;
        if (is_invalid(ev))
                e->outcome = AD_INVALID;
        else if (ad_event_partition(ad_event_key(ev->tenant_id, ev->event_id), w->partitions) !=
                 e->partition)
                e->outcome = AD_WRONG_PARTITION;
        else
                e->outcome = judge_times(s, &w->rules, ev->receive_ms, ev->event_ms);
        if (e->outcome != AD_NONE)
                return;
        e->receive_hour = hour_of(ev->receive_ms);
        e->fingerprint = ev->fingerprint;
        e->outcome = judge_repeat(o, e);
        e->recorded = true;
        if (e->outcome != AD_NONE)
                return;
        if (!set_price(o, ev, price_version))
                e->outcome = AD_PRICE_MISSING;
        else if (e->watermark_ms >= window_end + w->params.grace_ms)
                e->outcome = AD_LATE;
        else
                e->outcome = AD_COUNTED;
        if (e->outcome == AD_COUNTED)
                count(o, e->partition, ev);
}

static void add_event(struct oracle *o, const struct oracle_event *e)
{
        o->events = grow(o->events, o->event_count, &o->event_cap, sizeof(*o->events));
        o->events[o->event_count++] = *e;
}

static void recount_record(struct oracle *o, struct state *s, const struct world_record *rec,
                           uint64_t offset, int64_t append_ms)
{
        struct oracle_record *after = &o->records[o->record_count++];
        struct oracle_event e = {.partition = rec->partition,
                                 .offset = offset,
                                 .append_ms = append_ms,
                                 .ahead = rec->ahead};
        struct ad_batch b;
        const bool ok =
                ad_wire_batch_decode(rec->value, AD_RECORD_EVENTS_MAX, &o->arena, &b, NULL) == 0;

        if (ok && b.clock_reset)
                s->seen_append = s->seen_receive = false;
        if (!s->seen_append || append_ms > s->max_append_ms)
                s->max_append_ms = append_ms;
        s->seen_append = true;
        if (ok && b.has_heartbeat)
                (void)judge_times(s, &o->world->rules, b.heartbeat.receive_ms,
                                  b.heartbeat.receive_ms);
        if (!ok) {
                e.whole_record = true;
                e.outcome = AD_POISON;
                e.raw = rec->value;
                e.watermark_ms = s->seen_watermark ? s->watermark_ms : INT64_MIN;
                add_event(o, &e);
        }
        for (size_t i = 0; ok && i < b.count; i++) {
                struct ad_event ev = b.events[i];

                e.index = (uint32_t)i;
                e.raw = ev.raw;
                e.recorded = false;
                copy_text(e.tenant, sizeof(e.tenant), ev.tenant_id);
                copy_text(e.id, sizeof(e.id), ev.event_id);
                recount_event(o, s, &e, &ev, b.price_version);
                add_event(o, &e);
        }
        *after = (struct oracle_record){
                .partition = rec->partition,
                .poison = !ok,
                .heartbeat = ok && b.has_heartbeat,
                .events = ok ? b.count : 0,
                .watermark_ms = s->seen_watermark ? s->watermark_ms : INT64_MIN,
                .max_append_ms = s->max_append_ms,
                .max_receive_ms = s->seen_receive ? s->max_receive_ms : INT64_MIN,
        };
}

static int compare_cells(const void *a, const void *b)
{
        return strcmp(((const struct oracle_cell *)a)->key, ((const struct oracle_cell *)b)->key);
}

void oracle_recount(struct oracle *o, const struct world *w)
{
        struct state states[WORLD_PARTITIONS_MAX] = {0};
        uint64_t offsets[WORLD_PARTITIONS_MAX] = {0};
        int64_t last_append_ms[WORLD_PARTITIONS_MAX];

        *o = (struct oracle){.world = w};
        df_arena_init(&o->arena, 0);
        o->records = calloc(w->record_count + 1, sizeof(*o->records));
        df_check(o->records != NULL);
        for (uint32_t p = 0; p < WORLD_PARTITIONS_MAX; p++)
                last_append_ms[p] = INT64_MIN;
        for (size_t i = 0; i < w->record_count; i++) {
                const struct world_record *rec = &w->records[i];
                const uint32_t p = rec->partition;

                if (rec->clock_restart)
                        for (uint32_t q = 0; q < WORLD_PARTITIONS_MAX; q++)
                                last_append_ms[q] = INT64_MIN;
                if (rec->append_ms > last_append_ms[p]) /* the log's clock never goes back */
                        last_append_ms[p] = rec->append_ms;
                recount_record(o, &states[p], rec, offsets[p]++, last_append_ms[p]);
        }
        if (o->cell_count > 1)
                qsort(o->cells, o->cell_count, sizeof(*o->cells), compare_cells);
}

void oracle_release(struct oracle *o)
{
        free(o->events);
        free(o->records);
        free(o->cells);
        df_arena_release(&o->arena);
}

void oracle_clock(const struct oracle *o, uint32_t partition, uint64_t offsets,
                  struct oracle_record *ret)
{
        *ret = (struct oracle_record){.partition = partition,
                                      .watermark_ms = INT64_MIN,
                                      .max_append_ms = INT64_MIN,
                                      .max_receive_ms = INT64_MIN};
        for (size_t i = 0; i < o->record_count && offsets > 0; i++) {
                if (o->records[i].partition != partition)
                        continue;
                *ret = o->records[i];
                offsets--;
        }
        df_check(offsets == 0);
}
