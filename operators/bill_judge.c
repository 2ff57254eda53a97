/* bill_judge.c - what an event adds, to which cells, and under which cause (bill.c). */
#include "operators/bill_private.h"
#include "operators/correct.h"

#define AHEAD 8u /* events whose entries are fetched before they are needed */

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

int adi_bill_names(struct bill *b, struct df_bytes tenant_id, const struct df_bytes *dims,
                   uint32_t ret[NAMES], struct df_error *err)
{
        const struct df_bytes strings[NAMES] = {tenant_id, dims[AD_DIM_ADVERTISER],
                                                dims[AD_DIM_CAMPAIGN], dims[AD_DIM_PUBLISHER]};
        int rc = 0;

        for (int i = 0; rc == 0 && i < NAMES; i++)
                rc = adi_names_get(&b->names, strings[i], &ret[i], err);
        return rc;
}

struct bill_key adi_bill_key(const struct ad_event *ev, const uint32_t names[NAMES],
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
        int rc = adi_bill_find(b, key, &e, err);

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

static bool is_invalid(const struct ad_event *ev)
{
        return (ev->labels & (AD_LABEL_BOT | AD_LABEL_TEST)) != 0;
}

/* The same as tumble adds: an event with a label counts as invalid and brings no money; a value in
 * another currency goes to that currency's cell. names: of the event's tenant and dimensions. */
static int add(struct bill *b, const struct ad_event *ev, const uint32_t names[NAMES],
               enum ad_cause cause, enum side side, struct df_error *err)
{
        bool invalid = is_invalid(ev);
        struct addend v = {.count = ev->type - 1 + (invalid ? 3 : 0)};
        struct addend value = {.count = COUNTS};
        struct bill_key key = adi_bill_key(ev, names, cause);
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

/* Of an event that is no copy. */
static int judge_first(struct bill *b, const struct ad_event *ev, const uint32_t names[NAMES],
                       struct df_error *err)
{
        bool counted = ev->outcome == AD_COUNTED;
        const struct ad_event *billed;
        struct ad_event room;
        int rc;

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
                     const uint32_t names[NAMES], enum ad_cause cause, struct df_error *err)
{
        struct addend payout = {.count = COUNTS, .payout = ev->payout_nanos};
        struct addend value = {.count = COUNTS, .value = ev->value_nanos};
        struct bill_key key = adi_bill_key(ev, names, cause);
        struct ad_event priced = *ev;
        int rc;

        if (adi_currency(cost) == adi_currency(ev->currency))
                return add(b, ev, names, cause, BILLED, err);
        priced.currency = cost;
        priced.payout_nanos = priced.value_nanos = 0;
        rc = add(b, &priced, names, cause, BILLED, err);
        if (rc == 0 && payout.payout != 0 && !is_invalid(ev))
                rc = add_to(b, &key, BILLED, &payout, err);
        if (ev->value_currency.len > 0)
                key.currency = adi_currency(ev->value_currency);
        if (rc == 0 && value.value != 0 && !is_invalid(ev))
                rc = add_to(b, &key, BILLED, &value, err);
        return rc;
}

static int judge_corrected(struct bill *b, const struct ad_event *ev, const uint32_t names[NAMES],
                           struct df_error *err)
{
        const struct ad_effect *c = ev->correction;
        bool counted = ev->outcome == AD_COUNTED, priced;
        const struct ad_event *plain;
        struct ad_event room, v;
        uint32_t own[NAMES]; /* of v: a correction may name other dimensions */
        struct df_bytes cost;
        enum ad_cause cause;
        int rc;

        if (c->voided)
                return counted ? add(b, ev, names, AD_CAUSE_CORRECTION, REALTIME, err) : 0;
        plain = price(b, ev, &room);
        priced = plain != NULL;
        if (!priced)
                plain = ev;
        v = corrected(plain, &cost);
        if ((!priced && !c->price) || (priced && alike(&v, cost, plain)))
                return judge_first(b, ev, names, err); /* it changes nothing */
        if (counted && alike(&v, cost, ev))
                return add(b, ev, names, AD_CAUSE_NONE, BILLED, err);
        cause = is_invalid(&v) && !is_invalid(ev) ? AD_CAUSE_LABEL : AD_CAUSE_CORRECTION;
        rc = counted ? add(b, ev, names, cause, REALTIME, err) : 0;
        if (rc == 0)
                rc = adi_bill_names(b, v.tenant_id, v.dims, own, err);
        return rc == 0 ? add_apart(b, &v, cost, own, cause, err) : rc;
}

static int judge(struct bill *b, const struct ad_event *ev, const uint32_t names[NAMES],
                 struct df_error *err)
{
        if (ev->bill_outcome == AD_NONE)
                return ev->correction ? judge_corrected(b, ev, names, err)
                                      : judge_first(b, ev, names, err);
        return add(b, ev, names,
                   ev->bill_outcome == AD_DUPLICATE ? AD_CAUSE_DUPLICATE : AD_CAUSE_CONFLICT,
                   REALTIME, err); /* is_to_judge: realtime counts it */
}

/* ---- events in stages ---- */

/* Most events are billed as realtime counts them, and their cell is there. */
static void fetch_slot(struct bill *b, uint32_t i)
{
        struct bill_staged *s = &b->staged;
        struct bill_key key;

        for (int n = 0; n < NAMES; n++)
                s->names[i][n] = s->columns[n][i];
        key = adi_bill_key(s->events[i], s->names[i], AD_CAUSE_NONE);
        s->hashes[i] = adi_bill_hash(&key);
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

int adi_bill_judge(struct bill *b, struct df_error *err)
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
