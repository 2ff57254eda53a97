/* quarantine.c - what must not be counted leaves to its own topic, in log order (E2).
 *
 * The operators before this one judge whole batches in turn. If each of them emitted what it ends,
 * the order of the topic would show where batches were cut; so they only set the outcome, and this
 * one, which sees every item once more, sends them: events whose outcome is of class quarantined or
 * conflict, and the marks of poison records. An entry holds the address, the code and the first
 * 4 KiB of the event or record. One entry a payload, so payloads do not show batches either.
 * Counts nothing: who ended an event has counted it. No state.
 */
#include "operators/ops.h"

struct quarantine {
        struct df_operator op;
        uint32_t reasons; /* bit r: events that end with reason r belong here */
};
_Static_assert(offsetof(struct quarantine, op) == 0, "op is the first member");
_Static_assert(AD_OUTCOME_MAX <= 32, "a bit for each outcome");

static struct quarantine *quarantine_of(struct df_operator *op)
{
        df_check(op->magic == DF_OPERATOR_MAGIC);
        df_check(op->ops == &ad_op_quarantine);
        return (struct quarantine *)op;
}

static int quarantine_open(struct df_operator *op, struct df_error *err)
{
        struct quarantine *q = quarantine_of(op);

        (void)err;
        for (unsigned reason = AD_NONE + 1; reason < AD_OUTCOME_MAX; reason++) {
                enum ad_outcome_class cls = ad_reason_info(reason)->cls;

                if (cls == AD_CLASS_QUARANTINED || cls == AD_CLASS_CONFLICT)
                        q->reasons |= 1u << reason;
        }
        return 0;
}

/* Why this item belongs here; AD_NONE = it does not. */
static uint32_t reason_of(const struct quarantine *q, const struct ad_event *ev)
{
        if (ev->flags & AD_EV_MARK)
                return ev->flags & AD_EV_POISON ? AD_POISON : AD_NONE;
        if (ev->outcome < AD_OUTCOME_MAX && (q->reasons >> ev->outcome & 1))
                return ev->outcome;
        return AD_NONE;
}

static int emit(struct quarantine *q, const struct ad_event *ev, uint32_t reason,
                struct df_out *out, struct df_error *err)
{
        size_t head = ev->raw.len < AD_QUARANTINE_HEAD_MAX ? ev->raw.len : AD_QUARANTINE_HEAD_MAX;
        struct ad_quarantined entry = {
                .offset = ev->offset,
                .index = ev->index,
                .whole_record = (ev->flags & AD_EV_MARK) != 0,
                .reason = reason,
                .append_ms = ev->append_ms,
                .tenant_id = ev->tenant_id,
                .event_id = ev->event_id,
                .head = df_bytes(ev->raw.data, head),
                .size = ev->raw.len,
        };
        struct df_buf b = {0};
        int rc;

        ad_wire_quarantined(&b, &entry);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = df_out_emit(out, AD_OUT_QUARANTINE, q->op.ctx.partition, df_buf_bytes(&b),
                                 err);
        df_buf_release(&b);
        return rc;
}

static int quarantine_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                              struct df_error *err)
{
        struct quarantine *q = quarantine_of(op);
        const struct ad_event *events = batch->items;

        df_check(batch->kind == AD_KIND_EVENTS);
        for (size_t i = 0; i < batch->count; i++) {
                uint32_t reason = reason_of(q, &events[i]);
                int rc;

                if (reason == AD_NONE)
                        continue;
                rc = emit(q, &events[i], reason, out, err);
                if (rc < 0)
                        return rc;
        }
        return df_out_forward(out, batch, err);
}

static void quarantine_close(struct df_operator *op)
{
        (void)op;
}

const struct df_operator_ops ad_op_quarantine = {
        .name = "quarantine",
        .state_version = 1,
        .size = sizeof(struct quarantine),
        .open = quarantine_open,
        .process = quarantine_process,
        .close = quarantine_close,
};
