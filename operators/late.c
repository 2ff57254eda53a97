/* late.c - the late side output (W5).
 *
 * An event is late iff the watermark just before it is at or past its window's end + grace:
 * checkpoints and seals play no part, so lateness does not depend on where they fell. Late events
 * leave to the topic `late`, are counted there, and reach the bill by reconcile.
 * No state.
 */
#include "operators/ops.h"

#define MINUTE_MS 60000

struct late {
        struct df_operator op;
};

static int late_open(struct df_operator *op, struct df_error *err)
{
        const struct ad_params *p = op->ctx.params;

        if (p->grace_ms < 0)
                return df_fail(err, DF_EINVAL, "late: grace of %lld ms", (long long)p->grace_ms);
        return 0;
}

static int64_t window_end(int64_t event_ms)
{
        int64_t minute = event_ms / MINUTE_MS;

        if (event_ms % MINUTE_MS < 0)
                minute--;
        return (minute + 1) * MINUTE_MS;
}

static int emit_late(struct df_operator *op, struct df_out *out, const struct ad_event *ev,
                     struct df_error *err)
{
        struct ad_late l = {
                .offset = ev->offset,
                .index = ev->index,
                .append_ms = ev->append_ms,
                .watermark_ms = ev->watermark_ms,
                .event = ev->raw,
        };
        struct df_buf b = {0};
        int rc;

        ad_wire_late(&b, &l);
        rc = df_buf_check(&b, err);
        if (rc == 0)
                rc = df_out_emit(out, AD_OUT_LATE, op->ctx.partition, df_buf_bytes(&b), err);
        df_buf_release(&b);
        return rc;
}

static int late_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                        struct df_error *err)
{
        const struct ad_params *p = op->ctx.params;
        struct ad_event *events = batch->items;

        df_check(batch->kind == AD_KIND_EVENTS);
        for (size_t i = 0; i < batch->count; i++) {
                struct ad_event *ev = &events[i];
                int rc;

                if (ev->outcome != AD_NONE ||
                    ev->watermark_ms < window_end(ev->event_ms) + p->grace_ms)
                        continue;
                rc = emit_late(op, out, ev, err);
                if (rc < 0)
                        return rc;
                ad_end(out, ev, AD_LATE);
        }
        return df_out_forward(out, batch, err);
}

static void late_close(struct df_operator *op)
{
        (void)op;
}

const struct df_operator_ops ad_op_late = {
        .name = "late",
        .state_version = 1,
        .size = sizeof(struct late),
        .open = late_open,
        .process = late_process,
        .close = late_close,
};
