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

#include "operators/bill_private.h"

#define TABLE_MIN 1024u
#define ROWS_BYTES (64u << 10) /* of an emitted payload */

static struct bill *bill_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ad_op_bill);
        return (struct bill *)op;
}
_Static_assert(offsetof(struct bill, op) == 0, "op is the first member");
_Static_assert(sizeof(struct bill_key) == 32, "hashed as bytes: no padding");

/* ---- the table ---- */

uint64_t adi_bill_hash(const struct bill_key *k)
{
        uint64_t a = k->quarter ^ (uint64_t)k->cause << 56;
        uint64_t b = (uint64_t)k->tenant << 32 | k->advertiser;
        uint64_t c = (uint64_t)k->campaign << 32 | k->publisher;

        a = df_hash_fold(a ^ 0x9e3779b97f4a7c15u, b ^ 0xd6e8feb86659fd93u);
        return df_hash_fold(a ^ k->currency, c ^ 0xbf58476d1ce4e5b9u);
}

static void index_entries(struct bill *b)
{
        memset(b->slots, 0, ((size_t)b->mask + 1) * sizeof(*b->slots));
        for (uint32_t i = 0; i < b->count; i++) {
                uint64_t h = adi_bill_hash(&b->entries[i].key);

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

int adi_bill_find(struct bill *b, const struct bill_key *key, struct bill_entry **ret,
                  struct df_error *err)
{
        uint64_t h = adi_bill_hash(key);

        for (; b->slots[h & b->mask]; h++) {
                *ret = &b->entries[b->slots[h & b->mask] - 1];
                if (memcmp(&(*ret)->key, key, sizeof(*key)) == 0)
                        return 0;
        }
        if (b->count == b->cap) {
                int rc = grow(b, err);

                return rc < 0 ? rc : adi_bill_find(b, key, ret, err);
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

/* ---- events ---- */

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
                        rc = adi_bill_judge(b, err);
        }
        if (rc == 0)
                rc = adi_bill_judge(b, err);
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
                .dims = {[AD_DIM_ADVERTISER] = row->advertiser_id,
                         [AD_DIM_CAMPAIGN] = row->campaign_id,
                         [AD_DIM_PUBLISHER] = row->publisher_id},
                .currency = row->currency,
                .event_ms = (int64_t)row->quarter * AD_QUARTER_MS,
        };
        uint32_t names[NAMES];
        struct bill_entry *e;
        struct bill_key key;
        int rc = adi_bill_names(b, row->tenant_id, ev.dims, names, err);

        if (rc < 0)
                return rc;
        key = adi_bill_key(&ev, names, row->cause);
        rc = adi_bill_find(b, &key, &e, err);
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
        int rc = df_store_scan(op->ctx.store, df_bytes(prefix, sizeof(prefix)), restore_blob, b,
                               err);

        if (b->stored > 0)
                *op->ctx.more = true;
        return rc;
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
