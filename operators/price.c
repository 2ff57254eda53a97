/* price.c - what an event costs: stated by the client, or by the tenant's versioned table.
 *
 * The record names the table version in force when ingest took it (W6), and a line applies from its
 * valid_from by event time: a replay prices every event as it was priced the first time. cpm
 * charges impressions, cpc clicks, cpa conversions; an event whose type no matching line charges
 * costs nothing; an event that no line matches at all is quarantined (`price_missing`).
 * A currency that the client stated is kept: only lines in this currency match then.
 * No state; the tables belong to the job.
 */
#include "operators/ops.h"

struct price {
        struct df_operator op;
        const struct ad_price_table *table; /* of the last version asked for */
};

static struct price *price_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ad_op_price);
        return (struct price *)op;
}

static int price_open(struct df_operator *op, struct df_error *err)
{
        const struct ad_params *p = op->ctx.params;

        if (p->pricing != AD_PRICE_CLIENT && !p->price_table)
                return df_fail(err, DF_EINVAL, "price: pricing needs a price table");
        return 0;
}

static int load_table(struct price *p, uint32_t version, struct df_error *err)
{
        const struct ad_params *params = p->op.ctx.params;

        if (p->table && p->table->version == version)
                return 0;
        p->table = params->price_table(params->price_arg, version);
        if (!p->table)
                return df_fail(err, DF_ENOENT,
                               "price_version_missing: records name price table version %u, which "
                               "this process cannot load; put it back and restart",
                               version);
        return 0;
}

static bool scope_fits(struct df_bytes scope, struct df_bytes value)
{
        return scope.len == 0 || df_bytes_eq(scope, value);
}

static bool line_fits(const struct ad_price *l, const struct ad_event *ev)
{
        bool stated = ev->currency.len > 0 && !(ev->flags & AD_EV_CURRENCY_DEFAULTED);

        return l->valid_from_ms <= ev->event_ms && scope_fits(l->tenant_id, ev->tenant_id) &&
               scope_fits(l->advertiser_id, ev->dims[AD_DIM_ADVERTISER]) &&
               scope_fits(l->campaign_id, ev->dims[AD_DIM_CAMPAIGN]) &&
               scope_fits(l->ad_id, ev->dims[AD_DIM_AD]) &&
               (!stated || df_bytes_eq(l->currency, ev->currency));
}

static int specificity(const struct ad_price *l)
{
        return (l->tenant_id.len > 0) + (l->advertiser_id.len > 0) + (l->campaign_id.len > 0) +
               (l->ad_id.len > 0);
}

static bool better(const struct ad_price *a, const struct ad_price *b)
{
        int sa, sb;

        if (!b)
                return true;
        sa = specificity(a);
        sb = specificity(b);
        return sa != sb ? sa > sb : a->valid_from_ms > b->valid_from_ms;
}

static bool charges(enum ad_price_model model, uint32_t type)
{
        return (model == AD_CPM && type == AD_IMPRESSION) ||
               (model == AD_CPC && type == AD_CLICK) || (model == AD_CPA && type == AD_CONVERSION);
}

bool ad_price_apply(const struct ad_price_table *t, struct ad_event *ev)
{
        const struct ad_price *best = NULL, *any = NULL;

        for (size_t i = 0; i < t->count; i++) {
                const struct ad_price *l = &t->prices[i];

                if (!line_fits(l, ev))
                        continue;
                if (better(l, any))
                        any = l;
                if (charges(l->model, ev->type) && better(l, best))
                        best = l;
        }
        if (!any)
                return false;
        ev->cost_nanos = 0;
        if (best)
                ev->cost_nanos =
                        best->model == AD_CPM ? best->price_nanos / 1000 : best->price_nanos;
        if (ev->currency.len == 0 || (ev->flags & AD_EV_CURRENCY_DEFAULTED)) {
                ev->currency = best ? best->currency : any->currency;
                ev->flags |= AD_EV_CURRENCY_DEFAULTED; /* applied again it is no client's */
        }
        return true;
}

static int price_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        struct price *p = price_of(op);
        const struct ad_params *params = op->ctx.params;
        struct ad_event *events = batch->items;

        df_check(batch->kind == AD_KIND_EVENTS);
        for (size_t i = 0; params->pricing != AD_PRICE_CLIENT && i < batch->count; i++) {
                struct ad_event *ev = &events[i];
                int rc;

                if (ev->outcome != AD_NONE)
                        continue;
                if (params->pricing == AD_PRICE_CLIENT_ELSE_TABLE && (ev->flags & AD_EV_HAS_COST))
                        continue;
                rc = load_table(p, ev->price_version, err);
                if (rc < 0)
                        return rc;
                if (!ad_price_apply(p->table, ev))
                        ad_end(out, ev, AD_PRICE_MISSING);
        }
        return df_out_forward(out, batch, err);
}

static void price_close(struct df_operator *op)
{
        (void)op;
}

const struct df_operator_ops ad_op_price = {
        .name = "price",
        .state_version = 1,
        .size = sizeof(struct price),
        .open = price_open,
        .process = price_process,
        .close = price_close,
};
