/* tumble_test.h - for test_tumble.c and test_late.c: a task of decode, guard, late and tumble over
 * the simulator's store; a reader that applies its rows; and a naive recount. */
#ifndef ADTALLY_TESTS_TUMBLE_TEST_H
#define ADTALLY_TESTS_TUMBLE_TEST_H

#include <stdio.h>
#include <stdlib.h>

#include "df/sim.h"
#include "operators/ops.h"

#define TUMBLE_NS 19 /* the fourth of the chain */
#define KEY_TEXT_MAX 800
#define BASE_MS (1700000000000LL / 60000 * 60000)
#define MINUTE_MS 60000

static const char long_id[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

#define ok(call)                                                                                   \
        do {                                                                                       \
                struct df_error err_ = {0};                                                        \
                struct df_error *err = &err_;                                                      \
                if ((call) != 0)                                                                   \
                        fail_msg("%s: %d %s", #call, err->code, err->text);                        \
        } while (0)

/* ---- a map from text to a cell ---- */
struct entry {
        struct entry *next;
        struct ad_cell cell;
        uint64_t count;
        uint64_t minute;
        uint32_t grouping;
        char key[];
};
struct map {
        struct entry **heads;
        size_t size, count;
};

static inline void map_init(struct map *m, size_t size)
{
        *m = (struct map){.heads = calloc(size, sizeof(struct entry *)), .size = size};
        assert_non_null(m->heads);
}
static inline void map_release(struct map *m)
{
        for (size_t i = 0; i < m->size; i++)
                for (struct entry *e = m->heads[i], *next; e; e = next) {
                        next = e->next;
                        free(e);
                }
        free(m->heads);
}
static inline struct entry **map_place(struct map *m, const char *key)
{
        uint64_t h = 14695981039346656037u;
        struct entry **e;

        for (const char *p = key; *p; p++)
                h = (h ^ (uint8_t)*p) * 1099511628211u;
        for (e = &m->heads[h % m->size]; *e && strcmp((*e)->key, key) != 0; e = &(*e)->next)
                ;
        return e;
}
static inline struct entry *map_get(struct map *m, const char *key)
{
        return *map_place(m, key);
}
static inline struct entry *map_put(struct map *m, const char *key)
{
        struct entry **at = map_place(m, key);
        size_t len = strlen(key) + 1;

        if (!*at) {
                *at = calloc(1, sizeof(struct entry) + len);
                assert_non_null(*at);
                memcpy((*at)->key, key, len);
                m->count++;
        }
        return *at;
}

static inline bool cells_equal(const struct ad_cell *a, const struct ad_cell *b)
{
        return a->impressions == b->impressions && a->clicks == b->clicks &&
               a->conversions == b->conversions && a->invalid[0] == b->invalid[0] &&
               a->invalid[1] == b->invalid[1] && a->invalid[2] == b->invalid[2] &&
               a->spend == b->spend && a->payout == b->payout && a->value == b->value;
}

static inline int64_t end_of(uint64_t minute)
{
        return ((int64_t)minute + 1) * 60000;
}

/* ---- the task and its reader ---- */
struct rig {
        struct ad_params params;
        struct df_task_config config;
        struct df_store *store;
        struct df_task *task;
        uint64_t offset;   /* of the next record */
        uint64_t next_id;  /* makes event ids */
        int64_t append_ms; /* of the next records */
        uint64_t seed;     /* for messages */

        struct map view; /* the newest row of each key */
        bool no_view;    /* many rows: only count those of each minute from first_minute */
        uint64_t first_minute, minute_rows[8];
        int64_t final_through_ms;
        int64_t watermark_ms;
        uint64_t outcomes[DF_OUTCOMES_MAX];
        uint64_t rows, payloads, payload_bytes, cuts;
        struct df_hash128 digest; /* of the last cut's rows */
        bool unordered;           /* rows of one cut came out of order */
        char last_key[KEY_TEXT_MAX];
        int (*on_late)(void *arg, const struct ad_late *late, struct df_error *err);
        void *arg;
};

static const struct df_operator_ops *const rig_chain[] = {&ad_op_decode, &ad_op_guard, &ad_op_late,
                                                          &ad_op_tumble};

static inline void rig_init(struct rig *r)
{
        *r = (struct rig){
                .params = {.grace_ms = 60000,
                           .horizon_hours = 24,
                           .cell_cap = AD_CELL_CAP,
                           .groupings = &ad_groupings_default},
                .final_through_ms = DF_TIME_MIN,
        };
        r->config = (struct df_task_config){
                .source = {.stream = "events", .generation = 7},
                .partitions = 1,
                .chain = rig_chain,
                .chain_length = 4,
                .outputs = {{"late", false, 1}, {"quarantine", false, 1}, {"rollups", false, 1}},
                .output_count = AD_OUT_COUNT,
                .rules = {.out_of_orderness_ms = 5000,
                          .receive_ahead_max_ms = 10000,
                          .receive_behind_max_ms = 3600000,
                          .future_max_ms = 300000,
                          .accepted_age_ms = 7LL * 86400000},
                .config = 42,
                .binary_version = "test",
        };
        map_init(&r->view, 16384);
}

/* params point into the rig, so it must not move. */
static inline void rig_start(struct rig *r)
{
        r->config.params = &r->params;
        r->config.grace_ms = r->params.grace_ms;
        r->store = df_sim_store_create(NULL);
        ok(df_task_create(&r->config, r->store, &r->task, err));
}

static inline void rig_release(struct rig *r)
{
        df_task_destroy(r->task);
        df_sim_store_destroy(r->store);
        map_release(&r->view);
}

/* The process ends and another takes over the last checkpoint. */
static inline void rig_restore(struct rig *r)
{
        struct df_store *copy = df_sim_store_clone(r->store);

        df_task_destroy(r->task);
        df_sim_store_destroy(r->store);
        r->store = copy;
        r->task = NULL;
        ok(df_task_create(&r->config, r->store, &r->task, err));
        df_task_committed(r->task); /* its outbox was published before */
        assert_int_equal(df_task_position(r->task), r->offset);
}

static inline void rig_record(struct rig *r, struct df_bytes value)
{
        struct df_record rec = {.offset = r->offset, .append_ms = r->append_ms, .value = value};
        size_t used = 0;

        ok(df_task_process(r->task, &rec, 1, &used, err));
        assert_int_equal(used, 1);
        r->offset++;
}

/* One record of these events; ids are made here. */
static inline void rig_feed(struct rig *r, struct ad_event *events, size_t count)
{
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION};
        struct df_buf b = {0}, one = {0};
        char id[32];

        for (size_t i = 0; i < count; i++) {
                (void)snprintf(id, sizeof(id), "e%llu", (unsigned long long)r->next_id++);
                events[i].event_id = df_bytes_str(id);
                events[i].flags |= events[i].cost_nanos ? AD_EV_HAS_COST : 0;
                events[i].flags |= events[i].payout_nanos ? AD_EV_HAS_PAYOUT : 0;
                events[i].flags |= events[i].value_nanos ? AD_EV_HAS_VALUE : 0;
                df_buf_clear(&one);
                ad_wire_event(&one, &events[i]);
                ad_wire_batch_entry(&b, df_buf_bytes(&one));
        }
        ad_wire_batch_header(&b, &header);
        ok(df_buf_check(&b, err));
        rig_record(r, df_buf_bytes(&b));
        df_buf_release(&b);
        df_buf_release(&one);
}

static inline void rig_heartbeat(struct rig *r, int64_t receive_ms)
{
        struct ad_batch header = {.schema_version = AD_SCHEMA_VERSION,
                                  .start_id = 1,
                                  .has_heartbeat = true,
                                  .heartbeat = {.receive_ms = receive_ms}};
        struct df_buf b = {0};

        r->append_ms = receive_ms;
        ad_wire_batch_header(&b, &header);
        rig_record(r, df_buf_bytes(&b));
        df_buf_release(&b);
}

static inline void row_key(const struct ad_row *row, char ret[KEY_TEXT_MAX])
{
        int n = snprintf(ret, KEY_TEXT_MAX, "%012llu|%u|%.*s", (unsigned long long)row->minute,
                         row->grouping, (int)row->tenant_id.len, (const char *)row->tenant_id.data);

        for (uint32_t i = 0; i < row->dim_count; i++)
                n += snprintf(ret + n, KEY_TEXT_MAX - (size_t)n, "\x01%.*s", (int)row->dims[i].len,
                              (const char *)row->dims[i].data);
        (void)snprintf(ret + n, KEY_TEXT_MAX - (size_t)n, "\x01%.*s", (int)row->currency.len,
                       (const char *)row->currency.data);
}

static inline int rig_row(void *arg, const struct ad_row *row, struct df_error *err)
{
        struct rig *r = arg;
        char key[KEY_TEXT_MAX];
        struct entry *e;

        (void)err;
        row_key(row, key);
        if (strcmp(r->last_key, key) >= 0)
                r->unordered = true;
        memcpy(r->last_key, key, sizeof(key));
        if (end_of(row->minute) <= r->final_through_ms) /* W4 */
                fail_msg("seed %llu: a row of a final window: %s", (unsigned long long)r->seed,
                         key);
        if (row->grouping > 0 &&
            df_task_clock(r->task)->watermark_ms < end_of(row->minute)) /* W2 */
                fail_msg("seed %llu: too early: %s", (unsigned long long)r->seed, key);
        r->rows++;
        if (r->no_view) {
                assert_in_range(row->minute - r->first_minute, 0, 7);
                r->minute_rows[row->minute - r->first_minute]++;
                return 0;
        }
        e = map_put(&r->view, key);
        e->cell = row->cell;
        e->minute = row->minute;
        e->grouping = row->grouping;
        return 0;
}

static inline void rig_payload(struct rig *r, uint32_t output, struct df_bytes payload)
{
        if (output == AD_OUT_LATE && r->on_late)
                ok(ad_wire_late_decode(payload, r->on_late, r->arg, err));
        if (output != AD_OUT_ROLLUPS)
                return;
        assert_in_range(payload.len, 1, 65536);
        r->payloads++;
        r->payload_bytes += payload.len;
        ok(ad_wire_rows_decode(payload, rig_row, r, err));
}

/* One checkpoint, read like a reader does. True: another one must follow (K6). */
static inline bool rig_cut(struct rig *r)
{
        const struct df_collection_info *list;
        int64_t final_ms = DF_TIME_MIN;
        size_t count;

        ok(df_task_cut(r->task, err));
        list = df_task_collections(r->task, &count);
        r->last_key[0] = '\0';
        r->cuts++;
        for (size_t i = 0; i < count; i++) {
                const struct df_bytes *records;
                size_t n;

                ok(df_task_publish(r->task, &list[i], 1, &records, &n, err));
                for (size_t j = 0; j < n; j++) {
                        struct df_output o;

                        ok(df_output_decode(records[j], &o, err));
                        if (!o.is_seal) {
                                rig_payload(r, list[i].output, o.payload);
                                continue;
                        }
                        if (list[i].output != AD_OUT_ROLLUPS)
                                continue;
                        final_ms = o.seal.final_through_ms;
                        r->watermark_ms = o.seal.watermark_ms;
                        r->digest = o.seal.rows_digest;
                        for (uint32_t c = 0; c < DF_OUTCOMES_MAX; c++)
                                r->outcomes[c] += o.seal.outcomes[c];
                }
        }
        r->final_through_ms = final_ms;
        df_task_committed(r->task);
        if (r->unordered)
                fail_msg("seed %llu: rows of a cut are not in canonical order",
                         (unsigned long long)r->seed);
        return df_task_wants_cut(r->task);
}

static inline int count_key(void *arg, struct df_bytes key, struct df_bytes value,
                            struct df_error *err)
{
        (void)key;
        (void)err;
        ((size_t *)arg)[0]++;
        ((size_t *)arg)[1] += value.len;
        return 0;
}
/* Keys and bytes of tumble in the committed store. */
static inline void rig_stored(struct rig *r, size_t ret[2])
{
        const uint8_t prefix = TUMBLE_NS;

        ret[0] = ret[1] = 0;
        ok(df_store_scan(r->store, df_bytes(&prefix, 1), count_key, ret, err));
}

/* ---- the recount: one event after the other, in the plainest way ---- */
struct recount {
        const struct ad_groupings *groupings;
        uint32_t cap;
        int64_t grace_ms, out_of_orderness_ms;
        int64_t watermark_ms;
        struct map cells, panes;
        uint64_t counted, late;
};

static inline void recount_init(struct recount *o, const struct rig *r)
{
        *o = (struct recount){.groupings = r->params.groupings,
                              .cap = r->params.cell_cap,
                              .grace_ms = r->params.grace_ms,
                              .out_of_orderness_ms = r->config.rules.out_of_orderness_ms,
                              .watermark_ms = DF_TIME_MIN};
        map_init(&o->cells, 16384);
        map_init(&o->panes, 4096);
}
static inline void recount_release(struct recount *o)
{
        map_release(&o->cells);
        map_release(&o->panes);
}

static inline bool all_other(const struct ad_row *row)
{
        for (uint32_t i = 0; i < row->dim_count; i++)
                if (!df_bytes_eq(row->dims[i], df_bytes_str(AD_OTHER)))
                        return false;
        return true;
}

/* The cell of this key, after the cap. */
static inline struct ad_cell *recount_cell(struct recount *o, struct ad_row *row)
{
        char key[KEY_TEXT_MAX], pane[KEY_TEXT_MAX];
        struct entry *e, *p;

        row_key(row, key);
        e = map_get(&o->cells, key);
        if (!e && !all_other(row)) {
                (void)snprintf(pane, sizeof(pane), "%llu|%u|%.*s", (unsigned long long)row->minute,
                               row->grouping, (int)row->tenant_id.len,
                               (const char *)row->tenant_id.data);
                p = map_put(&o->panes, pane);
                if (p->count < o->cap) {
                        p->count++;
                } else {
                        for (uint32_t i = 0; i < row->dim_count; i++)
                                row->dims[i] = df_bytes_str(AD_OTHER);
                        row_key(row, key);
                }
        }
        e = map_put(&o->cells, key);
        e->minute = row->minute;
        e->grouping = row->grouping;
        return &e->cell;
}

static inline void recount_cells(struct recount *o, const struct ad_event *ev)
{
        bool invalid = ev->labels & (AD_LABEL_BOT | AD_LABEL_TEST);

        for (uint32_t g = 0; g < o->groupings->count; g++) {
                const struct ad_grouping *gr = &o->groupings->list[g];
                struct ad_row row = {.grouping = g,
                                     .minute = (uint64_t)ev->event_ms / 60000,
                                     .tenant_id = ev->tenant_id,
                                     .dim_count = gr->dim_count,
                                     .currency =
                                             ev->currency.len ? ev->currency : df_bytes_str("XXX")};
                struct ad_row other;
                struct ad_cell *c;

                for (uint32_t i = 0; i < gr->dim_count; i++)
                        row.dims[i] = ev->dims[gr->dims[i]];
                other = row;
                if (ev->value_currency.len)
                        other.currency = ev->value_currency;
                c = recount_cell(o, &row);
                if (invalid) {
                        c->invalid[ev->type - 1]++;
                        continue;
                }
                c->impressions += ev->type == AD_IMPRESSION;
                c->clicks += ev->type == AD_CLICK;
                c->conversions += ev->type == AD_CONVERSION;
                c->spend += ev->cost_nanos;
                c->payout += ev->payout_nanos;
                if (ev->value_nanos)
                        recount_cell(o, &other)->value += ev->value_nanos;
        }
}

/* Every event the rig is fed, in order; those that guard lets pass. */
static inline void recount_event(struct recount *o, const struct ad_event *ev, bool bounded)
{
        int64_t earlier = ev->event_ms < ev->receive_ms ? ev->event_ms : ev->receive_ms;
        int64_t end = (ev->event_ms / 60000 + 1) * 60000;

        if (o->watermark_ms >= end + o->grace_ms) { /* W5 */
                o->late++;
        } else {
                o->counted++;
                recount_cells(o, ev);
        }
        if (!bounded && earlier - o->out_of_orderness_ms > o->watermark_ms)
                o->watermark_ms = earlier - o->out_of_orderness_ms;
}

static inline void recount_heartbeat(struct recount *o, int64_t receive_ms)
{
        if (receive_ms - o->out_of_orderness_ms > o->watermark_ms)
                o->watermark_ms = receive_ms - o->out_of_orderness_ms;
}

/* What must have left by now: grouping 0 up to the last event, the others of windows that the
 * watermark has passed (W2); nothing else. */
static inline void rig_compare(struct rig *r, struct recount *o)
{
        size_t expected = 0;

        for (size_t i = 0; i < o->cells.size; i++)
                for (struct entry *e = o->cells.heads[i]; e; e = e->next) {
                        struct entry *v = map_get(&r->view, e->key);

                        if (e->grouping > 0 && o->watermark_ms < end_of(e->minute))
                                continue;
                        expected++;
                        if (!v || !cells_equal(&v->cell, &e->cell))
                                fail_msg("seed %llu, cut %llu: %s %s", (unsigned long long)r->seed,
                                         (unsigned long long)r->cuts, e->key,
                                         v ? "differs" : "is missing");
                }
        if (expected != r->view.count)
                fail_msg("seed %llu: %zu rows, wanted %zu", (unsigned long long)r->seed,
                         r->view.count, expected);
}

/* Cut until nothing waits; then everything that is due is there. */
static inline void drain(struct rig *r, struct recount *o)
{
        for (int i = 0; rig_cut(r); i++)
                assert_in_range(i, 0, 100);
        rig_compare(r, o);
        /* W4: with nothing held back, final_through is the watermark less the grace. */
        if (r->watermark_ms != DF_TIME_MAX && r->watermark_ms != DF_TIME_MIN)
                assert_int_equal(r->final_through_ms, r->watermark_ms - r->params.grace_ms);
}

/* ---- plain events ---- */

static inline struct ad_event simple(int64_t event_ms)
{
        return (struct ad_event){
                .type = AD_CLICK,
                .tenant_id = df_bytes_str("acme"),
                .dims = {df_bytes_str("a"), df_bytes_str("c"), df_bytes_str("ad")},
                .currency = df_bytes_str("EUR"),
                .event_ms = event_ms,
                .receive_ms = event_ms,
                .cost_nanos = 7,
        };
}

static inline void feed(struct rig *r, struct ad_event ev)
{
        r->append_ms = ev.receive_ms;
        rig_feed(r, &ev, 1);
}

/* The newest row of a key; dims like "a|c". NULL: it never came. */
static inline const struct ad_cell *row_of(struct rig *r, uint32_t grouping, int64_t ms,
                                           const char *tenant, const char *dims,
                                           const char *currency)
{
        char key[KEY_TEXT_MAX];
        struct entry *e;
        int head = snprintf(key, sizeof(key), "%012lld|%u|%s\x01", (long long)(ms / MINUTE_MS),
                            grouping, tenant);

        (void)snprintf(key + head, sizeof(key) - (size_t)head, "%s|%s", dims, currency);
        for (char *p = key + head; *p; p++)
                if (*p == '|')
                        *p = '\x01';
        e = map_get(&r->view, key);
        return e ? &e->cell : NULL;
}

static inline void begin(struct rig *r)
{
        rig_init(r);
        rig_start(r);
}

#endif
