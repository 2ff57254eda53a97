/* tumble.c - counting by the minute (W1 to W4, W6, W7).
 *
 * An event that arrives here without an outcome is counted in the window of its minute: for each
 * grouping once, in the cell (tenant, minute, the grouping's dimensions, currency). The currency is
 * the event's, "XXX" when it has none. A conversion value in another currency goes to the cell of
 * that currency, alone: an event is counted once, and amounts of different currencies are never
 * added. Events labelled bot or test count as invalid, by type, and bring no money.
 * When a sum would exceed 128 bits in any of its cells, the event is quarantined (`overflow`) and
 * counted in none; one whose type, currency or minute cannot be a row's likewise (`invalid`).
 *
 * The cap (W7) holds for every grouping, also the first: N keys (dimensions and currency) per
 * tenant, minute and grouping, first come in log order. Further keys share one key a currency, all
 * of its dimensions "__other__", which is no key of the N. Totals stay exact. The keys are the
 * cells themselves, so a restore cannot change a decision.
 *
 * Rows are absolute (W3) and leave at cuts (W2): grouping 0's changed cells at each one, the
 * others' once the watermark passes the window's end and then as revisions. What does not fit into
 * the outbox (K6) stays unsent and holds back final_through (W4). A settled window with all rows
 * sent is dropped: from memory at once, from the store in the same checkpoint. Late events never
 * get here.
 *
 * Events are taken ADI_STAGE at a time: first the names of all, then of each its slots, its cells,
 * and the count, AHEAD events apart, so that what one fetches has come when the next asks.
 *
 * Memory, bytes (100,000 cells in a minute, three groupings, 16 open windows: about 0.3 GB):
 *     cell     128 (136 when a grouping keeps more than five dimensions), its slot 13 to 26, and 4
 *              in each of the lists unsent and touched while it is one of these
 *     window   about 1,000, and at most 1,020 unused cells of its last chunk; 40 a tenant
 *     name     80, its slots 48 to 96, 8 to 16 of order: each distinct string of live cells, and as
 *              many again that wait for a sweep
 *     cut      48 a row of the largest window
 * Cells are bounded by cap x groupings x (tenants x open windows). Memory once taken is used again,
 * not given back.
 */
#include <stdlib.h>

#include "operators/tumble_private.h"

#define STAGE ADI_STAGE /* events */
#define AHEAD 8u        /* events between the fetches of slots and of cells, and their use */
#define GRACE_MAX_MS (366LL * 24 * 3600 * 1000)

struct adi_staged {
        struct ad_event *events[STAGE];
        struct adi_window *windows[STAGE];
        uint32_t currency[STAGE];
        uint32_t tenant[STAGE];
        uint32_t dims[AD_DIM_COUNT][STAGE];
        uint32_t hashes[STAGE][AD_GROUPINGS_MAX];  /* of its key in each grouping */
        uint32_t guesses[STAGE][AD_GROUPINGS_MAX]; /* probably the cell; 0 = none */
        uint32_t count;
};

static struct adi_tumble *tumble_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ad_op_tumble);
        return (struct adi_tumble *)op;
}

static bool grouping_is_sound(const struct ad_grouping *g)
{
        uint32_t seen = 0;

        if (g->dim_count == 0 || g->dim_count > AD_DIM_COUNT)
                return false;
        for (uint32_t i = 0; i < g->dim_count; i++) {
                if (g->dims[i] >= AD_DIM_COUNT || seen >> g->dims[i] & 1)
                        return false;
                seen |= 1u << g->dims[i];
        }
        return true;
}

static int check_params(const struct ad_params *p, struct df_error *err)
{
        const struct ad_groupings *g = p->groupings;

        if (p->grace_ms < 0 || p->grace_ms > GRACE_MAX_MS)
                return df_fail(err, DF_EINVAL, "tumble: grace of %lld ms", (long long)p->grace_ms);
        if (p->cell_cap == 0)
                return df_fail(err, DF_EINVAL, "tumble: a cap of 0 keys");
        if (!g || g->count == 0 || g->count > AD_GROUPINGS_MAX)
                return df_fail(err, DF_EINVAL, "tumble: 1 to %d groupings", AD_GROUPINGS_MAX);
        for (uint32_t i = 0; i < g->count; i++)
                if (!grouping_is_sound(&g->list[i]))
                        return df_fail(err, DF_EINVAL, "tumble: grouping %u is not possible", i);
        if (g->list[0].dim_count != 2 || g->list[0].dims[0] != AD_DIM_ADVERTISER ||
            g->list[0].dims[1] != AD_DIM_CAMPAIGN)
                return df_fail(err, DF_EINVAL,
                               "tumble: grouping 0 must be (advertiser, campaign) (W2)");
        return 0;
}

static int tumble_open(struct df_operator *op, struct df_error *err)
{
        struct adi_tumble *t = tumble_of(op);
        const struct ad_params *p = op->ctx.params;
        uint32_t used = 0;
        int rc = check_params(p, err);

        if (rc < 0)
                return rc;
        for (uint32_t i = 0; i < p->groupings->count; i++)
                for (uint32_t d = 0; d < p->groupings->list[i].dim_count; d++)
                        used |= 1u << p->groupings->list[i].dims[d];
        for (uint32_t d = 0; d < AD_DIM_COUNT; d++)
                if (used >> d & 1)
                        t->dims[t->dim_count++] = d;
        t->staged = calloc(1, sizeof(*t->staged));
        if (!t->staged)
                return df_fail(err, DF_ENOMEM, "tumble: %u events", STAGE);
        rc = adi_names_init(&t->names, err);
        if (rc == 0)
                rc = adi_cells_init(&t->cells, p->groupings, p->cell_cap, err);
        return rc;
}

int64_t adi_settled_ms(const struct adi_tumble *t, const struct adi_window *w)
{
        const struct ad_params *p = t->op.ctx.params;

        return adi_window_end(w) + p->grace_ms;
}

void adi_tumble_news(struct adi_tumble *t)
{
        int64_t news = DF_TIME_MAX;

        for (uint32_t i = 0; i <= t->cells.window_mask; i++) {
                const struct adi_window *w = t->cells.windows[i];
                int64_t at;

                if (!w)
                        continue;
                at = w->unsent[1].count ? adi_window_end(w) : adi_settled_ms(t, w);
                if (w->unsent[0].count)
                        at = DF_TIME_MIN;
                if (at < news)
                        news = at;
        }
        if (news < *t->op.ctx.next_news_ms)
                *t->op.ctx.next_news_ms = news;
}

/* Right after a cut only those that it had no room for (K6). */
static bool rows_are_due(const struct adi_tumble *t)
{
        int64_t watermark_ms = t->op.ctx.clock->watermark_ms;

        for (uint32_t i = 0; i <= t->cells.window_mask; i++) {
                const struct adi_window *w = t->cells.windows[i];

                if (w && (w->unsent[0].count > 0 ||
                          (w->unsent[1].count > 0 && watermark_ms >= adi_window_end(w))))
                        return true;
        }
        return false;
}

static int tumble_restore(struct df_operator *op, struct df_error *err)
{
        struct adi_tumble *t = tumble_of(op);
        int rc = adi_tumble_load(t, err);

        adi_tumble_news(t);
        if (rows_are_due(t))
                *op->ctx.more = true;
        return rc;
}

/* ---- staging: strings to names, names to keys ---- */

static int stage_names(struct adi_tumble *t, struct df_error *err)
{
        struct adi_staged *s = t->staged;
        const struct ad_event *const *events = (const struct ad_event *const *)s->events;
        int rc = adi_names_stage(&t->names, events, s->count, offsetof(struct ad_event, tenant_id),
                                 s->tenant, err);

        for (uint32_t d = 0; rc == 0 && d < t->dim_count; d++) {
                uint32_t dim = t->dims[d];

                rc = adi_names_stage(&t->names, events, s->count,
                                     offsetof(struct ad_event, dims) +
                                             dim * sizeof(struct df_bytes),
                                     s->dims[dim], err);
        }
        return rc;
}

/* A key whole: most events find their cell without it. */
struct full_key {
        struct adi_cell_key key;
        uint32_t hash;
};

static struct full_key make_key(const struct adi_tumble *t, uint32_t i, uint32_t grouping,
                                uint32_t currency)
{
        const struct ad_grouping *g = &t->cells.groupings->list[grouping];
        const struct adi_staged *s = t->staged;
        struct full_key k = {{.tenant = s->tenant[i], .tag = adi_tag(grouping, currency)}, 0};

        for (uint32_t d = 0; d < g->dim_count; d++)
                k.key.dims[d] = s->dims[g->dims[d]][i];
        k.hash = adi_cell_hash(&k.key, g->dim_count);
        return k;
}

/* Of event i the hash of its key in each grouping, and the way to their slots. */
static void fetch_slots(const struct adi_tumble *t, uint32_t i)
{
        const struct ad_groupings *list = t->cells.groupings;
        struct adi_staged *s = t->staged;
        const struct adi_window *w = s->windows[i];
        uint32_t mask = (1u << w->slot_bits) - 1;

        for (uint32_t n = 0; n < list->count; n++) {
                const struct ad_grouping *g = &list->list[n];
                uint64_t sum = adi_hash_of(s->tenant[i], adi_tag(n, s->currency[i]));

                for (uint32_t d = 0; d < g->dim_count; d++)
                        sum += adi_hash_dim(s->dims[g->dims[d]][i], d);
                s->hashes[i][n] = adi_hash_end(sum);
                __builtin_prefetch(&w->slots[s->hashes[i][n] & mask]);
        }
}

static void fetch_cells(const struct adi_tumble *t, uint32_t i)
{
        struct adi_staged *s = t->staged;
        const struct adi_window *w = s->windows[i];

        for (uint32_t g = 0; g < t->cells.groupings->count; g++) {
                uint32_t guess = adi_cell_guess(w, s->hashes[i][g]);

                s->guesses[i][g] = guess;
                if (guess)
                        __builtin_prefetch(adi_cell_at(&t->cells, guess), 1);
        }
}

/* ---- counting ---- */

/* The cell that was guessed, if it is the event's; else 0. */
static uint32_t guessed_cell(const struct adi_tumble *t, uint32_t i, uint32_t grouping)
{
        const struct ad_grouping *g = &t->cells.groupings->list[grouping];
        const struct adi_staged *s = t->staged;
        uint32_t cell = s->guesses[i][grouping];
        uint32_t own = g->dim_count < ADI_KEY_DIMS ? g->dim_count : ADI_KEY_DIMS, differs;
        const struct adi_cell *at;

        if (!cell)
                return 0;
        at = adi_cell_at(&t->cells, cell);
        differs = (at->tenant ^ s->tenant[i]) | (at->tag ^ adi_tag(grouping, s->currency[i]));
        for (uint32_t d = 0; d < own; d++)
                differs |= at->dims[d] ^ s->dims[g->dims[d]][i];
        for (uint32_t d = own; d < g->dim_count; d++)
                differs |= adi_cell_wide(&t->cells, cell)[d - own] ^ s->dims[g->dims[d]][i];
        return differs ? 0 : cell;
}

static void fold_key(const struct adi_cells *c, struct full_key *k)
{
        adi_cell_key_other(c, &k->key);
        k->hash =
                adi_cell_hash(&k->key, c->groupings->list[adi_tag_grouping(k->key.tag)].dim_count);
}

/* The cell of this key; after the cap, that of its __other__. 0: there is none yet, and *k is the
 * key it would have. */
static uint32_t find_cell(const struct adi_cells *c, const struct adi_window *w, struct full_key *k)
{
        uint32_t cell = adi_cell_find(c, w, &k->key, k->hash);

        if (cell || !adi_cap_reached(c, w, &k->key))
                return cell;
        fold_key(c, k);
        return adi_cell_find(c, w, &k->key, k->hash);
}

static int touch(struct adi_cells *c, struct adi_window *w, uint32_t cell, struct df_error *err)
{
        int rc = adi_mark_unsent(c, w, cell, err);

        if (rc == 0)
                rc = adi_mark_touched(c, w, cell, err);
        adi_cell_at(c, cell)->state |= ADI_CHANGED;
        return rc;
}

/* What one event adds to one cell. */
struct addend {
        uint32_t count; /* which; 6 = none */
        int64_t money[3];
};

static inline void add_money(struct adi_cell *at, struct adi_window *w, int which, int64_t nanos)
{
        df_nanos *sum = adi_cell_money(at, which);

        if (nanos == 0) /* its cache line, too, is left alone */
                return;
        *sum += nanos;
        w->careful |= adi_near_limit(*sum);
}

static int add(struct adi_cells *c, struct adi_window *w, uint32_t cell, const struct addend *v,
               struct df_error *err)
{
        const uint32_t all = ADI_UNSENT | ADI_CHANGED | ADI_LISTED;
        struct adi_cell *at = adi_cell_at(c, cell);

        if (v->count < 6)
                at->counts[v->count]++;
        add_money(at, w, 0, v->money[0]);
        if (v->money[1] | v->money[2]) {
                add_money(at, w, 1, v->money[1]);
                add_money(at, w, 2, v->money[2]);
        }
        return (at->state & all) == all ? 0 : touch(c, w, cell, err);
}

static int add_by_key(struct adi_cells *c, struct adi_window *w, struct full_key *k,
                      const struct addend *v, struct df_error *err)
{
        uint32_t cell = find_cell(c, w, k);
        int rc = cell ? 0 : adi_cell_add(c, w, &k->key, k->hash, &cell, err);

        return rc < 0 ? rc : add(c, w, cell, v, err);
}

static bool sum_overflows(const struct adi_cells *c, uint32_t cell, const struct addend *v)
{
        for (int i = 0; cell && i < 3; i++) {
                df_nanos sum = adi_cell_sum(adi_cell_at(c, cell), i);

                if (!df_nanos_add(&sum, v->money[i]))
                        return true;
        }
        return false;
}

/* Only asked in windows with a sum near the limit. A key that is new may still fold when the
 * event's other currency takes the last key before it: then __other__ must have room too. */
static bool would_overflow(const struct adi_cells *c, const struct adi_window *w, struct full_key k,
                           const struct addend *v)
{
        uint32_t cell = find_cell(c, w, &k);

        if (cell)
                return sum_overflows(c, cell, v);
        fold_key(c, &k);
        return sum_overflows(c, adi_cell_find(c, w, &k.key, k.hash), v);
}

static uint32_t value_currency(const struct ad_event *ev)
{
        return adi_currency(ev->value_currency);
}

/* What the event adds to the cells of its currency, and of its value's when that is another. */
static bool addends(const struct ad_event *ev, uint32_t currency, struct addend *ret,
                    struct addend *ret_value)
{
        bool invalid = ev->labels & (AD_LABEL_BOT | AD_LABEL_TEST);

        *ret = (struct addend){.count = ev->type - 1 + (invalid ? 3 : 0)};
        if (invalid)
                return false;
        ret->money[0] = ev->cost_nanos;
        ret->money[1] = ev->payout_nanos;
        if (ev->value_nanos == 0)
                return false;
        if (ev->value_currency.len == 0 || value_currency(ev) == currency) {
                ret->money[2] = ev->value_nanos;
                return false;
        }
        *ret_value = (struct addend){.count = 6, .money = {0, 0, ev->value_nanos}};
        return true;
}

/* In no cell of the event's would a sum leave its 128 bits. */
static bool has_room(const struct adi_tumble *t, uint32_t i, const struct addend *v,
                     const struct addend *value)
{
        const struct adi_cells *c = &t->cells;
        const struct adi_staged *s = t->staged;
        const struct adi_window *w = s->windows[i];

        for (uint32_t g = 0; g < c->groupings->count; g++)
                if (would_overflow(c, w, make_key(t, i, g, s->currency[i]), v) ||
                    (value &&
                     would_overflow(c, w, make_key(t, i, g, value_currency(s->events[i])), value)))
                        return false;
        return true;
}

static int count_event(struct adi_tumble *t, struct df_out *out, uint32_t i, bool *ret_counted,
                       struct df_error *err)
{
        struct adi_staged *s = t->staged;
        struct ad_event *ev = s->events[i];
        struct adi_window *w = s->windows[i];
        struct addend v, value;
        bool apart = addends(ev, s->currency[i], &v, &value);
        int rc = 0;

        *ret_counted = !w->careful || has_room(t, i, &v, apart ? &value : NULL);
        if (!*ret_counted) {
                ad_end(out, ev, AD_OVERFLOW);
                return 0;
        }
        for (uint32_t g = 0; rc == 0 && g < t->cells.groupings->count; g++) {
                uint32_t cell = guessed_cell(t, i, g);
                struct full_key k;

                if (cell) {
                        rc = add(&t->cells, w, cell, &v, err);
                } else {
                        k = make_key(t, i, g, s->currency[i]);
                        rc = add_by_key(&t->cells, w, &k, &v, err);
                }
                if (rc == 0 && apart) {
                        k = make_key(t, i, g, value_currency(ev));
                        rc = add_by_key(&t->cells, w, &k, &value, err);
                }
        }
        ev->outcome = AD_COUNTED;
        return rc;
}

static int count_staged(struct adi_tumble *t, struct df_out *out, struct df_error *err)
{
        struct adi_staged *s = t->staged;
        uint64_t counted = 0;
        int rc = 0;

        if (s->count == 0)
                return 0;
        rc = stage_names(t, err);
        if (rc < 0)
                return rc;
        for (uint32_t i = 0; i < 2 * AHEAD && i < s->count; i++)
                fetch_slots(t, i);
        for (uint32_t i = 0; i < AHEAD && i < s->count; i++)
                fetch_cells(t, i);
        for (uint32_t i = 0; rc == 0 && i < s->count; i++) {
                bool yes = false;

                if (i + 2 * AHEAD < s->count)
                        fetch_slots(t, i + 2 * AHEAD);
                if (i + AHEAD < s->count)
                        fetch_cells(t, i + AHEAD);
                rc = count_event(t, out, i, &yes, err);
                counted += yes;
        }
        s->count = 0;
        if (counted > 0) {
                df_out_count(out, AD_COUNTED, counted);
                *t->op.ctx.next_news_ms = DF_TIME_MIN;
        }
        return rc;
}

/* Guard lets nothing else pass in live operation; an import's times are not judged (R6). */
static bool has_a_row(const struct ad_event *ev)
{
        return ev->type >= AD_IMPRESSION && ev->type <= AD_CONVERSION && ev->event_ms >= 0 &&
               (uint64_t)ev->event_ms / ADI_MINUTE_MS < ADI_MINUTES_MAX &&
               (ev->currency.len == 0 || ev->currency.len == 3) &&
               (ev->value_currency.len == 0 || ev->value_currency.len == 3);
}

static int tumble_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                          struct df_error *err)
{
        struct adi_tumble *t = tumble_of(op);
        struct adi_staged *s = t->staged;
        struct ad_event *events = batch->items;
        struct adi_window *w = NULL;
        int rc = 0;

        df_check(batch->kind == AD_KIND_EVENTS);
        s->count = 0;
        for (size_t i = 0; rc == 0 && i < batch->count; i++) {
                struct ad_event *ev = &events[i];
                uint64_t minute = (uint64_t)ev->event_ms / ADI_MINUTE_MS;

                if (ev->outcome != AD_NONE)
                        continue;
                if (!has_a_row(ev)) {
                        ad_end(out, ev, AD_INVALID);
                        continue;
                }
                if (!w || w->minute != minute)
                        rc = adi_window_get(&t->cells, minute, &w, err);
                if (rc < 0)
                        break;
                s->events[s->count] = ev;
                s->windows[s->count] = w;
                s->currency[s->count++] = adi_currency(ev->currency);
                if (s->count == STAGE)
                        rc = count_staged(t, out, err);
        }
        if (rc == 0)
                rc = count_staged(t, out, err);
        return rc < 0 ? rc : df_out_forward(out, batch, err);
}

static int tumble_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        struct adi_tumble *t = tumble_of(op);
        int rc = adi_rows_cut(t, out, err);

        adi_tumble_news(t);
        return rc;
}

static int tumble_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        (void)k; /* blobs have their own numbers */
        return adi_tumble_put(tumble_of(op), err);
}

static void tumble_close(struct df_operator *op)
{
        struct adi_tumble *t = tumble_of(op);

        free(t->staged);
        free(t->due);
        free(t->gone);
        df_buf_release(&t->buf);
        adi_names_release(&t->names);
        adi_cells_release(&t->cells);
}

const struct df_operator_ops ad_op_tumble = {
        .name = "tumble",
        .state_version = 1,
        .size = sizeof(struct adi_tumble),
        .open = tumble_open,
        .restore = tumble_restore,
        .process = tumble_process,
        .on_cut = tumble_on_cut,
        .snapshot = tumble_snapshot,
        .close = tumble_close,
};
