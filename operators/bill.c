/* bill.c - what the bill counts, and why that differs from realtime (R2, R3).
 *
 * Each event that reaches it bears both judgements: realtime's outcome, by the operators before it,
 * and billing's, by dedupe_billing. The bill counts an event that guard let pass and that is the
 * first of its id within the billing horizon (D4), late or not, at the price of the table that the
 * run names. Where the two judgements differ, the cause is what made them differ, and the event is
 * added under it: to `realtime` if realtime counts it, to `billed` if the bill does. So
 *
 *     billed - realtime = sum over the causes of (billed - realtime), exactly, in every cell.
 *
 * A correction (correct.c) changes what the bill counts, never what realtime does. Each event has
 * one cause, the first of these that holds:
 *
 *     duplicate, conflict   the bill has had its id
 *     none                  realtime counts it just as it is billed
 *     correction            it is voided
 *     label                 a correction made it invalid
 *     correction            another price, currency or cell than without corrections
 *     late, price           as without corrections, which change nothing of it
 *
 * A cell is (quarter hour of event time, tenant, advertiser, campaign, publisher, currency): days
 * and months of every zone that W1 allows are sums of such. What the events since the last cut add
 * leaves at each cut; nothing is kept but what the outbox had no room for (K6).
 *
 * Memory: 290 bytes for each (cell, cause) since the last cut, and its strings once.
 * State, under ns: 'R' and a number: rows that are still to be sent.
 */
#include <stdlib.h>

#include "operators/correct.h"
#include "operators/tumble_private.h"

#define TABLE_MIN 1024u
#define ROWS_BYTES (64u << 10) /* of an emitted payload */

struct bill_key {
        uint64_t quarter;
        uint32_t tenant, advertiser, campaign, publisher, currency, cause;
};

struct bill_entry {
        struct bill_key key;
        struct ad_cell billed, realtime;
};

struct bill {
        struct df_operator op;
        struct adi_names names;
        struct bill_entry *entries;
        uint32_t *slots; /* index + 1 into entries, 0 = empty */
        uint32_t count, cap, mask;
        uint32_t sent;                      /* entries before it are in the outbox */
        uint32_t stored;                    /* blobs in the store */
        const struct ad_price_table *table; /* the run's; NULL: costs are the clients' */
        struct df_buf buf;
};

static struct bill *bill_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ad_op_bill);
        return (struct bill *)op;
}
_Static_assert(offsetof(struct bill, op) == 0, "op is the first member");
_Static_assert(sizeof(struct bill_key) == 32, "hashed as bytes: no padding");

/* ---- the table ---- */

static void index_entries(struct bill *b)
{
        memset(b->slots, 0, ((size_t)b->mask + 1) * sizeof(*b->slots));
        for (uint32_t i = 0; i < b->count; i++) {
                uint64_t h = df_hash64(df_bytes(&b->entries[i].key, sizeof(struct bill_key)));

                while (b->slots[h & b->mask])
                        h++;
                b->slots[h & b->mask] = i + 1;
        }
}

static int grow(struct bill *b, struct df_error *err)
{
        uint32_t cap = b->cap ? b->cap * 2 : TABLE_MIN;
        struct bill_entry *entries = realloc(b->entries, cap * sizeof(*entries));
        uint32_t *slots;

        if (!entries)
                return df_fail(err, DF_ENOMEM, "bill: %u rows", cap);
        b->entries = entries;
        slots = calloc((size_t)cap * 2, sizeof(*slots));
        if (!slots)
                return df_fail(err, DF_ENOMEM, "bill: %u rows", cap);
        free(b->slots);
        b->slots = slots;
        b->cap = cap;
        b->mask = cap * 2 - 1;
        index_entries(b);
        return 0;
}

static int find(struct bill *b, const struct bill_key *key, struct bill_entry **ret,
                struct df_error *err)
{
        uint64_t h = df_hash64(df_bytes(key, sizeof(*key)));

        for (; b->slots[h & b->mask]; h++) {
                *ret = &b->entries[b->slots[h & b->mask] - 1];
                if (memcmp(&(*ret)->key, key, sizeof(*key)) == 0)
                        return 0;
        }
        if (b->count == b->cap) {
                int rc = grow(b, err);

                return rc < 0 ? rc : find(b, key, ret, err);
        }
        *ret = &b->entries[b->count++];
        **ret = (struct bill_entry){.key = *key};
        b->slots[h & b->mask] = b->count;
        return 0;
}

/* What was sent goes; later events of the same cell make a new entry. */
static int drop_sent(struct bill *b, struct df_error *err)
{
        memmove(b->entries, b->entries + b->sent, (b->count - b->sent) * sizeof(*b->entries));
        b->count -= b->sent;
        b->sent = 0;
        index_entries(b);
        if (b->count > 0)
                return 0;
        adi_names_release(&b->names);
        return adi_names_init(&b->names, err);
}

static int bill_open(struct df_operator *op, struct df_error *err)
{
        struct bill *b = bill_of(op);
        const struct ad_params *p = op->ctx.params;
        int rc = adi_names_init(&b->names, err);

        if (rc == 0)
                rc = grow(b, err);
        if (rc < 0 || p->pricing == AD_PRICE_CLIENT)
                return rc;
        b->table = p->price_table(p->price_arg, p->billing_price_version);
        if (!b->table)
                return df_fail(err, DF_ENOENT, "bill: there is no price table of version %u",
                               p->billing_price_version);
        return 0;
}

/* ---- judging ---- */

enum side { BILLED, REALTIME };

static int add_money(struct bill *b, const struct bill_key *key, enum side side,
                     const struct ad_cell *v, struct df_error *err)
{
        struct bill_entry *e;
        int rc = find(b, key, &e, err);

        if (rc < 0)
                return rc;
        if (!ad_cell_add(side == BILLED ? &e->billed : &e->realtime, v))
                return df_fail(err, DF_ELIMIT, "bill: a sum exceeds 128 bits");
        return 0;
}

static int key_of(struct bill *b, const struct ad_event *ev, enum ad_cause cause,
                  struct bill_key *ret, struct df_error *err)
{
        const struct df_bytes strings[] = {ev->tenant_id, ev->dims[AD_DIM_ADVERTISER],
                                           ev->dims[AD_DIM_CAMPAIGN], ev->dims[AD_DIM_PUBLISHER]};
        uint32_t names[4];
        int rc = 0;

        for (int i = 0; rc == 0 && i < 4; i++)
                rc = adi_names_get(&b->names, strings[i], &names[i], err);
        *ret = (struct bill_key){
                .quarter = (uint64_t)ev->event_ms / AD_QUARTER_MS,
                .tenant = names[0],
                .advertiser = names[1],
                .campaign = names[2],
                .publisher = names[3],
                .currency = adi_currency(ev->currency),
                .cause = cause,
        };
        return rc;
}

static bool is_invalid(const struct ad_event *ev)
{
        return (ev->labels & (AD_LABEL_BOT | AD_LABEL_TEST)) != 0;
}

/* The same as tumble adds: an event with a label counts as invalid and brings no money; a value in
 * another currency goes to that currency's cell. */
static int add(struct bill *b, const struct ad_event *ev, enum ad_cause cause, enum side side,
               struct df_error *err)
{
        bool invalid = is_invalid(ev);
        struct ad_cell v = {0}, value = {0};
        struct bill_key key;
        bool apart;
        int rc = key_of(b, ev, cause, &key, err);

        if (invalid)
                v.invalid[ev->type - 1] = 1;
        else if (ev->type == AD_IMPRESSION)
                v.impressions = 1;
        else if (ev->type == AD_CLICK)
                v.clicks = 1;
        else
                v.conversions = 1;
        if (!invalid) {
                v.spend = ev->cost_nanos;
                v.payout = ev->payout_nanos;
        }
        value.value = invalid ? 0 : ev->value_nanos;
        apart = value.value != 0 && ev->value_currency.len > 0 &&
                adi_currency(ev->value_currency) != key.currency;
        if (!apart)
                v.value = value.value;
        if (rc == 0)
                rc = add_money(b, &key, side, &v, err);
        if (rc == 0 && apart) {
                key.currency = adi_currency(ev->value_currency);
                rc = add_money(b, &key, side, &value, err);
        }
        return rc;
}

/* The event as the bill prices it. False: no line of the table applies. */
static bool price(const struct bill *b, const struct ad_event *ev, struct ad_event *ret)
{
        const struct ad_params *p = b->op.ctx.params;

        *ret = *ev;
        if (!b->table || (p->pricing == AD_PRICE_CLIENT_ELSE_TABLE && ev->flags & AD_EV_HAS_COST))
                return true;
        return ad_price_apply(b->table, ret);
}

static bool equally_priced(const struct ad_event *a, const struct ad_event *b)
{
        return a->cost_nanos == b->cost_nanos && df_bytes_eq(a->currency, b->currency);
}

/* Of an event that is no copy. */
static int judge_first(struct bill *b, const struct ad_event *ev, struct df_error *err)
{
        bool counted = ev->outcome == AD_COUNTED, billed;
        struct ad_event at_price;
        int rc;

        billed = price(b, ev, &at_price);
        if (counted && billed && equally_priced(ev, &at_price))
                return add(b, ev, AD_CAUSE_NONE, BILLED, err); /* realtime: the same */
        if (counted) {
                rc = add(b, ev, AD_CAUSE_PRICE, REALTIME, err);
                return rc == 0 && billed ? add(b, &at_price, AD_CAUSE_PRICE, BILLED, err) : rc;
        }
        if (!billed)
                return 0;
        return add(b, &at_price,
                   ev->outcome == AD_LATE            ? AD_CAUSE_LATE
                   : ev->outcome == AD_PRICE_MISSING ? AD_CAUSE_PRICE
                                                     : AD_CAUSE_UNEXPLAINED,
                   BILLED, err);
}

/* ---- corrections ---- */

/* What a correction says but for the price, of which the currency may be another than the payout's:
 * *ret_currency is that of the cost. */
static struct ad_event corrected(const struct ad_event *ev, struct df_bytes *ret_currency)
{
        const struct ad_effect *c = ev->correction;
        struct ad_event v = *ev;

        if (c->dim[0])
                v.dims[AD_DIM_ADVERTISER] = c->dim[0]->advertiser_id;
        if (c->dim[1])
                v.dims[AD_DIM_CAMPAIGN] = c->dim[1]->campaign_id;
        if (c->dim[2])
                v.dims[AD_DIM_PUBLISHER] = c->dim[2]->publisher_id;
        if (c->labelled)
                v.labels |= AD_LABEL_BOT;
        *ret_currency = v.currency;
        if (c->price) {
                v.cost_nanos = c->price->price_nanos;
                if (c->price->currency.len)
                        *ret_currency = c->price->currency;
        }
        return v;
}

/* Does the bill show them alike? cost is a's currency of cost. */
static bool alike(const struct ad_event *a, struct df_bytes cost, const struct ad_event *b)
{
        return df_bytes_eq(a->dims[AD_DIM_ADVERTISER], b->dims[AD_DIM_ADVERTISER]) &&
               df_bytes_eq(a->dims[AD_DIM_CAMPAIGN], b->dims[AD_DIM_CAMPAIGN]) &&
               df_bytes_eq(a->dims[AD_DIM_PUBLISHER], b->dims[AD_DIM_PUBLISHER]) &&
               adi_currency(cost) == adi_currency(b->currency) &&
               adi_currency(a->currency) == adi_currency(b->currency) &&
               is_invalid(a) == is_invalid(b) && (is_invalid(a) || a->cost_nanos == b->cost_nanos);
}

/* Event and cost in the cell of the cost's currency; payout and value stay in theirs. */
static int add_apart(struct bill *b, const struct ad_event *ev, struct df_bytes cost,
                     enum ad_cause cause, struct df_error *err)
{
        struct ad_cell payout = {.payout = ev->payout_nanos}, value = {.value = ev->value_nanos};
        struct ad_event priced = *ev;
        struct bill_key key;
        int rc;

        if (adi_currency(cost) == adi_currency(ev->currency))
                return add(b, ev, cause, BILLED, err);
        priced.currency = cost;
        priced.payout_nanos = priced.value_nanos = 0;
        rc = add(b, &priced, cause, BILLED, err);
        if (rc == 0)
                rc = key_of(b, ev, cause, &key, err);
        if (rc == 0 && payout.payout != 0 && !is_invalid(ev))
                rc = add_money(b, &key, BILLED, &payout, err);
        if (ev->value_currency.len > 0)
                key.currency = adi_currency(ev->value_currency);
        if (rc == 0 && value.value != 0 && !is_invalid(ev))
                rc = add_money(b, &key, BILLED, &value, err);
        return rc;
}

static int judge_corrected(struct bill *b, const struct ad_event *ev, struct df_error *err)
{
        const struct ad_effect *c = ev->correction;
        bool counted = ev->outcome == AD_COUNTED, priced;
        struct ad_event plain, v;
        struct df_bytes cost;
        enum ad_cause cause;
        int rc;

        if (c->voided)
                return counted ? add(b, ev, AD_CAUSE_CORRECTION, REALTIME, err) : 0;
        priced = price(b, ev, &plain);
        v = corrected(&plain, &cost);
        if ((!priced && !c->price) || (priced && alike(&v, cost, &plain)))
                return judge_first(b, ev, err); /* it changes nothing */
        if (counted && alike(&v, cost, ev))
                return add(b, ev, AD_CAUSE_NONE, BILLED, err);
        cause = is_invalid(&v) && !is_invalid(ev) ? AD_CAUSE_LABEL : AD_CAUSE_CORRECTION;
        rc = counted ? add(b, ev, cause, REALTIME, err) : 0;
        return rc == 0 ? add_apart(b, &v, cost, cause, err) : rc;
}

static int judge(struct bill *b, const struct ad_event *ev, struct df_error *err)
{
        enum ad_cause cause =
                ev->bill_outcome == AD_DUPLICATE ? AD_CAUSE_DUPLICATE : AD_CAUSE_CONFLICT;

        /* No row can hold it: neither side counts it. */
        if (ev->outcome == AD_INVALID || ev->outcome == AD_OVERFLOW)
                return 0;
        if (ev->bill_outcome != AD_NONE)
                return ev->outcome == AD_COUNTED ? add(b, ev, cause, REALTIME, err) : 0;
        return ev->correction ? judge_corrected(b, ev, err) : judge_first(b, ev, err);
}

static int bill_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                        struct df_error *err)
{
        struct bill *b = bill_of(op);
        struct ad_event *events = batch->items;
        int rc = 0;

        df_check(batch->kind == AD_KIND_EVENTS);
        for (size_t i = 0; rc == 0 && i < batch->count; i++)
                if (!(events[i].flags & AD_EV_MARK) && events[i].outcome != AD_SKIP)
                        rc = judge(b, &events[i], err);
        return rc < 0 ? rc : df_out_forward(out, batch, err);
}

/* ---- rows ---- */

static void put_entry(const struct bill *b, const struct bill_entry *e, struct df_buf *to)
{
        char currency[3] = {(char)(e->key.currency >> 16), (char)(e->key.currency >> 8),
                            (char)e->key.currency};

        ad_wire_bill_row(to, &(struct ad_bill_row){
                                     .quarter = e->key.quarter,
                                     .tenant_id = adi_name_bytes(&b->names, e->key.tenant),
                                     .advertiser_id = adi_name_bytes(&b->names, e->key.advertiser),
                                     .campaign_id = adi_name_bytes(&b->names, e->key.campaign),
                                     .publisher_id = adi_name_bytes(&b->names, e->key.publisher),
                                     .currency = df_bytes(currency, 3),
                                     .cause = e->key.cause,
                                     .billed = e->billed,
                                     .realtime = e->realtime,
                             });
}

/* As many of the entries from *at on as a payload takes, into buf. */
static int fill(struct bill *b, uint32_t *at, struct df_error *err)
{
        df_buf_clear(&b->buf);
        while (*at < b->count && b->buf.len < ROWS_BYTES)
                put_entry(b, &b->entries[(*at)++], &b->buf);
        return df_buf_check(&b->buf, err);
}

static int bill_on_cut(struct df_operator *op, struct df_out *out, struct df_error *err)
{
        struct bill *b = bill_of(op);

        while (b->sent < b->count) {
                uint32_t at = b->sent;
                int rc = fill(b, &at, err);

                if (rc < 0)
                        return rc;
                if (df_out_room(out) < b->buf.len) {
                        df_out_more(out);
                        return 0;
                }
                rc = df_out_emit(out, AD_OUT_BILL, op->ctx.partition, df_buf_bytes(&b->buf), err);
                if (rc < 0)
                        return rc;
                b->sent = at;
        }
        return 0;
}

static void blob_key(const struct bill *b, uint32_t number, uint8_t ret[6])
{
        ret[0] = b->op.ctx.ns;
        ret[1] = 'R';
        for (int i = 0; i < 4; i++)
                ret[2 + i] = (uint8_t)(number >> (24 - 8 * i));
}

/* What could not be sent goes into the store, in place of what could not the time before. */
static int bill_snapshot(struct df_operator *op, uint64_t k, struct df_error *err)
{
        struct bill *b = bill_of(op);
        uint32_t blobs = 0, at = b->sent;
        uint8_t key[6];
        int rc = 0;

        (void)k;
        while (rc == 0 && at < b->count) {
                rc = fill(b, &at, err);
                blob_key(b, blobs++, key);
                if (rc == 0)
                        df_store_put(op->ctx.store, df_bytes(key, sizeof(key)),
                                     df_buf_bytes(&b->buf));
        }
        for (uint32_t i = blobs; i < b->stored; i++) {
                blob_key(b, i, key);
                df_store_del(op->ctx.store, df_bytes(key, sizeof(key)));
        }
        b->stored = blobs;
        return rc == 0 && b->sent > 0 ? drop_sent(b, err) : rc;
}

static int restore_row(void *arg, const struct ad_bill_row *row, struct df_error *err)
{
        struct bill *b = arg;
        struct ad_event ev = {
                .tenant_id = row->tenant_id,
                .dims = {[AD_DIM_ADVERTISER] = row->advertiser_id,
                         [AD_DIM_CAMPAIGN] = row->campaign_id,
                         [AD_DIM_PUBLISHER] = row->publisher_id},
                .currency = row->currency,
                .event_ms = (int64_t)row->quarter * AD_QUARTER_MS,
        };
        struct bill_entry *e;
        struct bill_key key;
        int rc = key_of(b, &ev, row->cause, &key, err);

        if (rc == 0)
                rc = find(b, &key, &e, err);
        if (rc < 0)
                return rc;
        e->billed = row->billed;
        if (row->cause != AD_CAUSE_NONE)
                e->realtime = row->realtime;
        return 0;
}

static int restore_blob(void *arg, struct df_bytes key, struct df_bytes value, struct df_error *err)
{
        struct bill *b = arg;

        if (key.len != 6 || key.data[1] != 'R')
                return df_fail(err, DF_ECORRUPT, "bill: a key of the state is damaged");
        b->stored++;
        return ad_wire_bill_decode(value, restore_row, b, err);
}

static int bill_restore(struct df_operator *op, struct df_error *err)
{
        struct bill *b = bill_of(op);
        uint8_t prefix[2] = {op->ctx.ns, 'R'};

        return df_store_scan(op->ctx.store, df_bytes(prefix, sizeof(prefix)), restore_blob, b, err);
}

static void bill_close(struct df_operator *op)
{
        struct bill *b = bill_of(op);

        free(b->entries);
        free(b->slots);
        df_buf_release(&b->buf);
        adi_names_release(&b->names);
}

const struct df_operator_ops ad_op_bill = {
        .name = "bill",
        .state_version = 1,
        .size = sizeof(struct bill),
        .open = bill_open,
        .restore = bill_restore,
        .process = bill_process,
        .on_cut = bill_on_cut,
        .snapshot = bill_snapshot,
        .close = bill_close,
};
