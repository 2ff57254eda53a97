/* tumble_rows.c - what leaves at a cut (W2, W3, W4), and windows that are done.
 *
 * Windows in order of time, in a window by grouping, tenant, dimensions, currency, each as bytes:
 * the same unsent cells always give the same payloads, whatever happened before. A row stays unsent
 * until its payload is in the outbox.
 */
#include <stdlib.h>

#include "operators/tumble_private.h"

#define AHEAD 16 /* cells fetched before they are needed */

struct order {
        uint64_t keys[5]; /* grouping, tenant, seven dimensions, currency: 32 bits each */
        uint32_t cell;
};

struct pending { /* rows of the payload that is being built */
        struct adi_window *window;
        uint32_t cell;
};

struct cut {
        struct adi_tumble *t;
        struct df_out *out;
        struct pending *pending;
        uint32_t pending_count, pending_cap;
        struct order *orders;
        uint32_t order_cap;
        bool full;       /* K6: the rest stays unsent */
        int64_t hold_ms; /* W4; DF_TIME_MAX = all due rows left */
};

static int compare_orders(const void *a, const void *b)
{
        const struct order *x = a, *y = b;

        for (int i = 0; i < 5; i++)
                if (x->keys[i] != y->keys[i])
                        return x->keys[i] < y->keys[i] ? -1 : 1;
        return 0;
}

static int compare_windows(const void *a, const void *b)
{
        const struct adi_window *x = *(struct adi_window *const *)a;
        const struct adi_window *y = *(struct adi_window *const *)b;

        return (x->minute > y->minute) - (x->minute < y->minute);
}

static void order_of(const struct adi_tumble *t, uint32_t cell, struct order *ret)
{
        const struct adi_name *names = t->names.list;
        struct adi_cell_key k;
        uint32_t d[AD_DIM_COUNT];

        adi_cell_key_of(&t->cells, cell, &k);
        for (uint32_t i = 0; i < AD_DIM_COUNT; i++)
                d[i] = names[k.dims[i]].rank;
        ret->keys[0] = (uint64_t)adi_tag_grouping(k.tag) << 32 | names[k.tenant].rank;
        ret->keys[1] = (uint64_t)d[0] << 32 | d[1];
        ret->keys[2] = (uint64_t)d[2] << 32 | d[3];
        ret->keys[3] = (uint64_t)d[4] << 32 | d[5];
        ret->keys[4] = (uint64_t)d[6] << 32 | (k.tag & 0xffffff);
        ret->cell = cell;
}

static void fetch_cell(const struct adi_tumble *t, uint32_t cell)
{
        const struct adi_cell *at = adi_cell_at(&t->cells, cell);

        __builtin_prefetch(at, 1);
        __builtin_prefetch(&at->counts[2], 1);
}

static uint32_t orders_of(const struct adi_tumble *t, const struct adi_list *cells,
                          struct order *ret)
{
        for (uint32_t i = 0; i < cells->count; i++) {
                if (i + AHEAD < cells->count)
                        __builtin_prefetch(adi_cell_at(&t->cells, cells->items[i + AHEAD]));
                order_of(t, cells->items[i], &ret[i]);
        }
        return cells->count;
}

/* The payload is in the outbox: its cells are sent. When the store says otherwise of one, the next
 * snapshot has to look at it. */
static int mark_sent(struct cut *c, struct df_error *err)
{
        for (uint32_t i = 0; i < c->pending_count; i++) {
                const struct pending *p = &c->pending[i];
                struct adi_cell *cell = adi_cell_at(&c->t->cells, p->cell);

                cell->state &= ~(uint32_t)ADI_UNSENT;
                if (cell->state & ADI_STORED_UNSENT) {
                        int rc = adi_mark_touched(&c->t->cells, p->window, p->cell, err);

                        if (rc < 0)
                                return rc;
                }
        }
        c->pending_count = 0;
        df_buf_clear(&c->t->buf);
        return 0;
}

static int flush(struct cut *c, struct df_error *err)
{
        struct df_ctx *ctx = &c->t->op.ctx;
        struct df_buf *b = &c->t->buf;
        int rc = df_buf_check(b, err);

        if (rc < 0 || b->len == 0)
                return rc;
        if (df_out_room(c->out) < b->len) {
                c->full = true;
                c->hold_ms = adi_window_start(c->pending[0].window);
                df_out_more(c->out);
                df_out_hold(c->out, c->hold_ms);
                return 0;
        }
        rc = df_out_emit(c->out, AD_OUT_ROLLUPS, ctx->partition, df_buf_bytes(b), err);
        return rc < 0 ? rc : mark_sent(c, err);
}

static void put_row(struct adi_tumble *t, const struct adi_window *w, uint32_t cell)
{
        const struct adi_cell *at = adi_cell_at(&t->cells, cell);
        struct adi_cell_key k;
        struct ad_row row = {.grouping = adi_tag_grouping(at->tag), .minute = w->minute};
        const uint8_t currency[3] = {(uint8_t)(at->tag >> 16), (uint8_t)(at->tag >> 8),
                                     (uint8_t)at->tag};

        adi_cell_key_of(&t->cells, cell, &k);
        row.tenant_id = adi_name_bytes(&t->names, k.tenant);
        row.dim_count = t->cells.groupings->list[row.grouping].dim_count;
        for (uint32_t i = 0; i < row.dim_count; i++)
                row.dims[i] = adi_name_bytes(&t->names, k.dims[i]);
        row.currency = df_bytes(currency, 3);
        row.cell = (struct ad_cell){
                .impressions = at->counts[0],
                .clicks = at->counts[1],
                .conversions = at->counts[2],
                .invalid = {at->counts[3], at->counts[4], at->counts[5]},
                .spend = at->spend,
                .payout = at->other[0],
                .value = at->other[1],
        };
        ad_wire_row(&t->buf, &row);
}

/* Room for n more of the orders and of the pending rows. */
static int reserve(struct cut *c, uint32_t n, struct df_error *err)
{
        if (n > c->order_cap) {
                free(c->orders);
                c->order_cap = 0;
                c->orders = malloc(n * sizeof(*c->orders));
                if (!c->orders)
                        return df_fail(err, DF_ENOMEM, "tumble: %u rows of a window", n);
                c->order_cap = n;
        }
        return 0;
}

static int add_pending(struct cut *c, struct adi_window *w, uint32_t cell, struct df_error *err)
{
        if (c->pending_count == c->pending_cap) {
                uint32_t cap = c->pending_cap ? c->pending_cap * 2 : 1024;
                struct pending *grown = realloc(c->pending, cap * sizeof(*grown));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "tumble: %u rows of a payload", cap);
                c->pending = grown;
                c->pending_cap = cap;
        }
        c->pending[c->pending_count++] = (struct pending){w, cell};
        return 0;
}

static int send_window(struct cut *c, struct adi_window *w, bool passed, struct df_error *err)
{
        uint32_t n = 0;
        int rc = reserve(c, w->unsent[0].count + (passed ? w->unsent[1].count : 0), err);

        for (int part = 0; rc == 0 && part <= passed; part++)
                n += orders_of(c->t, &w->unsent[part], &c->orders[n]);
        if (n > 1)
                qsort(c->orders, n, sizeof(*c->orders), compare_orders);
        for (uint32_t i = 0; rc == 0 && !c->full && i < n; i++) {
                rc = add_pending(c, w, c->orders[i].cell, err);
                if (rc < 0)
                        break;
                if (i + AHEAD < n)
                        fetch_cell(c->t, c->orders[i + AHEAD].cell);
                put_row(c->t, w, c->orders[i].cell);
                if (c->t->buf.len >= ADI_PAYLOAD_BYTES)
                        rc = flush(c, err);
        }
        return rc;
}

static int add_due(struct adi_tumble *t, struct adi_window *w, struct df_error *err)
{
        if (t->due_count == t->due_cap) {
                uint32_t cap = t->due_cap ? t->due_cap * 2 : 64;
                struct adi_window **grown = realloc(t->due, cap * sizeof(struct adi_window *));

                if (!grown)
                        return df_fail(err, DF_ENOMEM, "tumble: %u windows of a cut", cap);
                t->due = grown;
                t->due_cap = cap;
        }
        t->due[t->due_count++] = w;
        return 0;
}

/* The windows with rows to send or to be dropped, in order of time. */
static int collect_due(struct adi_tumble *t, int64_t watermark_ms, struct df_error *err)
{
        int rc = 0;

        t->due_count = 0;
        for (uint32_t i = 0; rc == 0 && i <= t->cells.window_mask; i++) {
                struct adi_window *w = t->cells.windows[i];

                if (w && (w->unsent[0].count > 0 ||
                          (w->unsent[1].count > 0 && watermark_ms >= adi_window_end(w)) ||
                          watermark_ms >= adi_settled_ms(t, w)))
                        rc = add_due(t, w, err);
        }
        if (t->due_count > 1)
                qsort(t->due, t->due_count, sizeof(struct adi_window *), compare_windows);
        return rc;
}

/* K10: every live row counts as unsent. */
static int resend_all(struct adi_tumble *t, struct df_error *err)
{
        int rc = 0;

        for (uint32_t i = 0; i <= t->cells.window_mask; i++) {
                struct adi_window *w = t->cells.windows[i];

                for (uint32_t j = 0; w && rc == 0 && j < w->cells; j++) {
                        uint32_t cell = adi_window_cell(w, j);

                        rc = adi_mark_unsent(&t->cells, w, cell, err);
                        if (rc == 0) /* the store says sent */
                                rc = adi_mark_touched(&t->cells, w, cell, err);
                }
        }
        return rc;
}

static void keep_unsent(struct adi_tumble *t, struct adi_list *l)
{
        uint32_t kept = 0;

        for (uint32_t i = 0; i < l->count; i++)
                if (adi_cell_at(&t->cells, l->items[i])->state & ADI_UNSENT)
                        l->items[kept++] = l->items[i];
        l->count = kept;
}

static int drop(struct adi_tumble *t, struct adi_window *w, struct df_error *err)
{
        if (w->next_blob > w->first_blob) {
                if (t->gone_count == t->gone_cap) {
                        uint32_t cap = t->gone_cap ? t->gone_cap * 2 : 64;
                        struct adi_gone *grown = realloc(t->gone, cap * sizeof(*grown));

                        if (!grown)
                                return df_fail(err, DF_ENOMEM, "tumble: %u dropped windows", cap);
                        t->gone = grown;
                        t->gone_cap = cap;
                }
                t->gone[t->gone_count++] =
                        (struct adi_gone){w->minute, w->first_blob, w->next_blob};
        }
        adi_window_drop(&t->cells, w);
        return 0;
}

static int sweep_names(struct adi_tumble *t, struct df_error *err)
{
        if (!adi_names_want_sweep(&t->names))
                return 0;
        for (uint32_t i = 0; i <= t->cells.window_mask; i++) {
                struct adi_window *w = t->cells.windows[i];

                for (uint32_t j = 0; w && j < w->cells; j++) {
                        struct adi_cell_key k;

                        adi_cell_key_of(&t->cells, adi_window_cell(w, j), &k);
                        adi_names_keep(&t->names, k.tenant);
                        for (uint32_t d = 0; d < AD_DIM_COUNT; d++)
                                adi_names_keep(&t->names, k.dims[d]);
                }
        }
        return adi_names_sweep(&t->names, err);
}

/* After the rows: settled windows whose end this cut's final_through passes go (W4). No event comes
 * back to them: it would be late (W5). */
static int finish(struct cut *c, int64_t watermark_ms, struct df_error *err)
{
        struct adi_tumble *t = c->t;
        int rc = 0;

        for (uint32_t i = 0; rc == 0 && i < t->due_count; i++) {
                struct adi_window *w = t->due[i];

                keep_unsent(t, &w->unsent[0]);
                keep_unsent(t, &w->unsent[1]);
                if (w->unsent[0].count + w->unsent[1].count == 0 &&
                    watermark_ms >= adi_settled_ms(t, w) && adi_window_end(w) <= c->hold_ms)
                        rc = drop(t, w, err);
        }
        return rc < 0 ? rc : sweep_names(t, err);
}

int adi_rows_cut(struct adi_tumble *t, struct df_out *out, struct df_error *err)
{
        int64_t watermark_ms = t->op.ctx.clock->watermark_ms;
        struct cut c = {.t = t, .out = out, .hold_ms = DF_TIME_MAX};
        int rc = *t->op.ctx.resend_all ? resend_all(t, err) : 0;

        df_buf_clear(&t->buf);
        if (rc == 0)
                rc = collect_due(t, watermark_ms, err);
        if (rc == 0)
                rc = adi_names_rank(&t->names, err);
        for (uint32_t i = 0; rc == 0 && !c.full && i < t->due_count; i++)
                rc = send_window(&c, t->due[i], watermark_ms >= adi_window_end(t->due[i]), err);
        if (rc == 0 && !c.full)
                rc = flush(&c, err);
        if (rc == 0)
                rc = finish(&c, watermark_ms, err);
        free(c.pending);
        free(c.orders);
        return rc;
}
