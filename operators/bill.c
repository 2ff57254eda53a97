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
 * A cell is (quarter hour of event time, tenant, advertiser, campaign, publisher, currency): days
 * and months of every zone that W1 allows are sums of such. What the events since the last cut add
 * leaves at each cut; nothing is kept but what the outbox had no room for (K6).
 *
 * Memory: 290 bytes for each (cell, cause) since the last cut, and its strings once.
 * State, under ns: 'R' and a number: rows that are still to be sent.
 */
#include <stdlib.h>

#include "operators/tumble_private.h"
#include "proto/bill.h"

#define TABLE_MIN 1024u
#define AHEAD 8u               /* events whose entries are fetched before they are needed */
#define ROWS_BYTES (64u << 10) /* of an emitted payload */

struct bill_key {
        uint64_t quarter;
        uint32_t tenant, advertiser, campaign, publisher, currency, cause;
};

/* The strings of a key, by their names. */
enum { TENANT, ADVERTISER, CAMPAIGN, PUBLISHER, NAMES };
struct bill_staged {
        const struct ad_event *events[ADI_STAGE];
        uint32_t columns[NAMES][ADI_STAGE];
        uint32_t names[ADI_STAGE][NAMES]; /* the same by event */
        uint64_t hashes[ADI_STAGE];       /* of the key it most probably has */
        uint32_t count;
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
        struct bill_staged staged;
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

static uint64_t hash_of(const struct bill_key *k)
{
        uint64_t a = k->quarter ^ (uint64_t)k->cause << 56;
        uint64_t b = (uint64_t)k->tenant << 32 | k->advertiser;
        uint64_t c = (uint64_t)k->campaign << 32 | k->publisher;

        a = adi_fold(a ^ 0x9e3779b97f4a7c15u, b ^ 0xd6e8feb86659fd93u);
        return adi_fold(a ^ k->currency, c ^ 0xbf58476d1ce4e5b9u);
}

static void index_entries(struct bill *b)
{
        memset(b->slots, 0, ((size_t)b->mask + 1) * sizeof(*b->slots));
        for (uint32_t i = 0; i < b->count; i++) {
                uint64_t h = hash_of(&b->entries[i].key);

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
        uint64_t h = hash_of(key);

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

/* ---- what an event adds ---- */

enum side { BILLED, REALTIME };

/* To one cell: one of its counts, or none, and money. */
struct addend {
        uint32_t count; /* type - 1; 3 more when it is invalid; COUNTS: none */
        int64_t spend, payout, value;
};
#define COUNTS 6

static uint64_t *count_of(struct ad_cell *c, uint32_t count)
{
        switch (count) {
        case AD_IMPRESSION - 1:
                return &c->impressions;
        case AD_CLICK - 1:
                return &c->clicks;
        case AD_CONVERSION - 1:
                return &c->conversions;
        default:
                return &c->invalid[count - 3];
        }
}

static struct bill_key key_of(const struct ad_event *ev, const uint32_t names[NAMES],
                              enum ad_cause cause)
{
        return (struct bill_key){
                .quarter = (uint64_t)ev->event_ms / AD_QUARTER_MS,
                .tenant = names[TENANT],
                .advertiser = names[ADVERTISER],
                .campaign = names[CAMPAIGN],
                .publisher = names[PUBLISHER],
                .currency = adi_currency(ev->currency),
                .cause = cause,
        };
}

static int add_to(struct bill *b, const struct bill_key *key, enum side side,
                  const struct addend *v, struct df_error *err)
{
        struct bill_entry *e;
        struct ad_cell *c;
        int rc = find(b, key, &e, err);

        if (rc < 0)
                return rc;
        c = side == BILLED ? &e->billed : &e->realtime;
        if (v->count < COUNTS)
                ++*count_of(c, v->count); /* 64 bits: never full */
        if ((v->spend && !df_nanos_add(&c->spend, v->spend)) ||
            (v->payout && !df_nanos_add(&c->payout, v->payout)) ||
            (v->value && !df_nanos_add(&c->value, v->value)))
                return df_fail(err, DF_ELIMIT, "bill: a sum exceeds 128 bits");
        return 0;
}

/* The same as tumble adds: an event with a label counts as invalid and brings no money; a value in
 * another currency goes to that currency's cell. names: of the event's tenant and dimensions. */
static int add(struct bill *b, const struct ad_event *ev, const uint32_t names[NAMES],
               enum ad_cause cause, enum side side, struct df_error *err)
{
        bool invalid = ev->labels & (AD_LABEL_BOT | AD_LABEL_TEST);
        struct addend v = {.count = ev->type - 1 + (invalid ? 3 : 0)};
        struct addend value = {.count = COUNTS};
        struct bill_key key = key_of(ev, names, cause);
        bool apart;
        int rc;

        if (!invalid) {
                v.spend = ev->cost_nanos;
                v.payout = ev->payout_nanos;
                value.value = ev->value_nanos;
        }
        apart = value.value != 0 && ev->value_currency.len > 0 &&
                adi_currency(ev->value_currency) != key.currency;
        if (!apart)
                v.value = value.value;
        rc = add_to(b, &key, side, &v, err);
        if (rc == 0 && apart) {
                key.currency = adi_currency(ev->value_currency);
                rc = add_to(b, &key, side, &value, err);
        }
        return rc;
}

/* ---- judging ---- */

/* The event as the bill prices it, made in *room when that differs; NULL: no line of the table
 * applies. */
static const struct ad_event *price(const struct bill *b, const struct ad_event *ev,
                                    struct ad_event *room)
{
        const struct ad_params *p = b->op.ctx.params;

        if (!b->table || (p->pricing == AD_PRICE_CLIENT_ELSE_TABLE && ev->flags & AD_EV_HAS_COST))
                return ev;
        *room = *ev;
        return ad_price_apply(b->table, room) ? room : NULL;
}

static bool equally_priced(const struct ad_event *a, const struct ad_event *b)
{
        return a == b || (a->cost_nanos == b->cost_nanos && df_bytes_eq(a->currency, b->currency));
}

static int judge(struct bill *b, const struct ad_event *ev, const uint32_t names[NAMES],
                 struct df_error *err)
{
        bool counted = ev->outcome == AD_COUNTED;
        const struct ad_event *billed;
        struct ad_event room;
        int rc;

        if (ev->bill_outcome != AD_NONE)
                return counted ? add(b, ev, names,
                                     ev->bill_outcome == AD_DUPLICATE ? AD_CAUSE_DUPLICATE
                                                                      : AD_CAUSE_CONFLICT,
                                     REALTIME, err)
                               : 0;
        billed = price(b, ev, &room);
        if (counted && billed && equally_priced(ev, billed))
                return add(b, ev, names, AD_CAUSE_NONE, BILLED, err); /* realtime: the same */
        if (counted) {
                rc = add(b, ev, names, AD_CAUSE_PRICE, REALTIME, err);
                return rc == 0 && billed ? add(b, billed, names, AD_CAUSE_PRICE, BILLED, err) : rc;
        }
        if (!billed)
                return 0;
        return add(b, billed, names,
                   ev->outcome == AD_LATE            ? AD_CAUSE_LATE
                   : ev->outcome == AD_PRICE_MISSING ? AD_CAUSE_PRICE
                                                     : AD_CAUSE_UNEXPLAINED,
                   BILLED, err);
}

/* Most events are billed as realtime counts them, and their cell is there. */
static void fetch_slot(struct bill *b, uint32_t i)
{
        struct bill_staged *s = &b->staged;
        struct bill_key key;

        for (int n = 0; n < NAMES; n++)
                s->names[i][n] = s->columns[n][i];
        key = key_of(s->events[i], s->names[i], AD_CAUSE_NONE);
        s->hashes[i] = hash_of(&key);
        __builtin_prefetch(&b->slots[s->hashes[i] & b->mask]);
}

static void fetch_entry(const struct bill *b, uint32_t i)
{
        uint32_t at = b->slots[b->staged.hashes[i] & b->mask];

        if (at == 0)
                return;
        __builtin_prefetch(&b->entries[at - 1].key);
        __builtin_prefetch(&b->entries[at - 1].billed.spend, 1);
}

static int judge_staged(struct bill *b, struct df_error *err)
{
        static const size_t strings[NAMES] = {
                [TENANT] = offsetof(struct ad_event, tenant_id),
                [ADVERTISER] = offsetof(struct ad_event, dims[AD_DIM_ADVERTISER]),
                [CAMPAIGN] = offsetof(struct ad_event, dims[AD_DIM_CAMPAIGN]),
                [PUBLISHER] = offsetof(struct ad_event, dims[AD_DIM_PUBLISHER]),
        };
        struct bill_staged *s = &b->staged;
        int rc = 0;

        for (int n = 0; rc == 0 && n < NAMES; n++)
                rc = adi_names_stage(&b->names, s->events, s->count, strings[n], s->columns[n],
                                     err);
        for (uint32_t i = 0; rc == 0 && i < s->count; i++)
                fetch_slot(b, i);
        for (uint32_t i = 0; rc == 0 && i < s->count; i++) {
                if (i + AHEAD < s->count)
                        fetch_entry(b, i + AHEAD);
                rc = judge(b, s->events[i], s->names[i], err);
        }
        s->count = 0;
        return rc;
}

/* Does it change any sum? No row can hold an event that ended as invalid or by overflow: neither
 * side counts it. */
static bool is_to_judge(const struct ad_event *ev)
{
        if (ev->flags & AD_EV_MARK || ev->outcome == AD_SKIP || ev->outcome == AD_INVALID ||
            ev->outcome == AD_OVERFLOW)
                return false;
        return ev->bill_outcome == AD_NONE || ev->outcome == AD_COUNTED;
}

static int bill_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                        struct df_error *err)
{
        struct bill *b = bill_of(op);
        struct ad_event *events = batch->items;
        int rc = 0;

        df_check(batch->kind == AD_KIND_EVENTS);
        b->staged.count = 0;
        for (size_t i = 0; rc == 0 && i < batch->count; i++) {
                if (!is_to_judge(&events[i]))
                        continue;
                b->staged.events[b->staged.count++] = &events[i];
                if (b->staged.count == ADI_STAGE)
                        rc = judge_staged(b, err);
        }
        if (rc == 0)
                rc = judge_staged(b, err);
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
        const struct df_bytes strings[NAMES] = {row->tenant_id, row->advertiser_id,
                                                row->campaign_id, row->publisher_id};
        struct bill *b = arg;
        struct ad_event ev = {
                .currency = row->currency,
                .event_ms = (int64_t)row->quarter * AD_QUARTER_MS,
        };
        uint32_t names[NAMES];
        struct bill_entry *e;
        struct bill_key key;
        int rc = 0;

        for (int i = 0; rc == 0 && i < NAMES; i++)
                rc = adi_names_get(&b->names, strings[i], &names[i], err);
        if (rc < 0)
                return rc;
        key = key_of(&ev, names, row->cause);
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
