#include "operators/ops.h"

void ad_end(struct df_out *out, struct ad_event *ev, enum ad_reason outcome)
{
        df_check(ev->outcome == AD_NONE);
        df_check((unsigned)outcome < DF_OUTCOMES_MAX);
        ev->outcome = outcome;
        df_out_count(out, outcome, 1);
}

int ad_quarantine(struct df_operator *op, struct df_out *out, struct ad_event *ev,
                  enum ad_reason reason, struct df_error *err)
{
        size_t head = ev->raw.len < AD_QUARANTINE_HEAD_MAX ? ev->raw.len : AD_QUARANTINE_HEAD_MAX;
        struct ad_quarantined q = {
                .offset = ev->offset,
                .index = ev->index,
                .reason = reason,
                .append_ms = ev->append_ms,
                .tenant_id = ev->tenant_id,
                .event_id = ev->event_id,
                .head = df_bytes(ev->raw.data, head),
                .size = ev->raw.len,
        };
        struct df_buf b = {0};
        int rc;

        ad_end(out, ev, reason);
        ad_wire_quarantined(&b, &q);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = df_out_emit(out, AD_OUT_QUARANTINE, op->ctx.partition, df_buf_bytes(&b), err);
        df_buf_release(&b);
        return rc;
}
