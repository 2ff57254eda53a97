/* correct.c - which corrections an event is billed with (R5, correct.h).
 *
 * Stands before bill and behind all that judges for realtime, and sets nothing but
 * ad_event.correction: what realtime counts, and what its rows must be, is not touched. Copies are
 * left out: the bill does not count them anyway.
 * No state; the set belongs to the run and is part of its identity, so a new correction is a new
 * run from the first event.
 */
#include <stdlib.h>

#include "operators/correct.h"
#include "operators/ops.h"

struct correct {
        struct df_operator op;
        const struct ad_corrections *set; /* NULL: no correction at all */
        /* The tenant of the last event: events of one come in rows. */
        const struct ad_corrections_tenant *tenant;
        bool has_tenant;
        size_t tenant_len;
        uint8_t tenant_id[AD_ID_MAX];
        struct ad_effect *effects; /* of the events of the batch */
        size_t cap;
};

static struct correct *correct_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ad_op_correct);
        return (struct correct *)op;
}
_Static_assert(offsetof(struct correct, op) == 0, "op is the first member");

static int correct_open(struct df_operator *op, struct df_error *err)
{
        const struct ad_params *p = op->ctx.params;

        (void)err;
        if (p->corrections && ad_corrections_count(p->corrections) > 0)
                correct_of(op)->set = p->corrections;
        return 0;
}

static const struct ad_corrections_tenant *tenant_of(struct correct *c, const struct ad_event *ev)
{
        if (c->has_tenant && df_bytes_eq(df_bytes(c->tenant_id, c->tenant_len), ev->tenant_id))
                return c->tenant;
        c->tenant = ad_corrections_tenant(c->set, ev->tenant_id);
        c->has_tenant = ev->tenant_id.len <= sizeof(c->tenant_id);
        if (c->has_tenant && ev->tenant_id.len)
                memcpy(c->tenant_id, ev->tenant_id.data, ev->tenant_id.len);
        c->tenant_len = ev->tenant_id.len;
        return c->tenant;
}

static void find(struct correct *c, struct ad_event *ev, struct ad_effect *room)
{
        const struct ad_corrections_tenant *t;

        if ((ev->flags & AD_EV_MARK) || ev->outcome == AD_SKIP || ev->bill_outcome != AD_NONE)
                return;
        t = tenant_of(c, ev);
        if (t && ad_corrections_find(c->set, t, ev, room))
                ev->correction = room;
}

static int correct_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                           struct df_error *err)
{
        struct correct *c = correct_of(op);
        struct ad_event *events = batch->items;

        df_check(batch->kind == AD_KIND_EVENTS);
        if (c->set && batch->count > c->cap) {
                free(c->effects);
                c->cap = 0;
                c->effects = malloc(batch->count * sizeof(*c->effects));
                if (!c->effects)
                        return df_fail(err, DF_ENOMEM, "correct: %zu events", batch->count);
                c->cap = batch->count;
        }
        for (size_t i = 0; c->set && i < batch->count; i++)
                find(c, &events[i], &c->effects[i]);
        return df_out_forward(out, batch, err);
}

static void correct_close(struct df_operator *op)
{
        free(correct_of(op)->effects);
}

const struct df_operator_ops ad_op_correct = {
        .name = "correct",
        .state_version = 1,
        .size = sizeof(struct correct),
        .open = correct_open,
        .process = correct_process,
        .close = correct_close,
};
