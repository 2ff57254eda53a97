/* guard.c - what may enter (E3, T2, T3), and the watermark.
 *
 * The only operator that moves the task's clock. Each event is judged against everything before it
 * in the partition, also inside its record, and carries the watermark just before it (W5). What is
 * refused here is quarantined, moves nothing, and is not recorded by dedupe.
 * No state of its own: the clock is the task's.
 */
#include "operators/ops.h"

struct guard {
        struct df_operator op;
};

static int guard_open(struct df_operator *op, struct df_error *err)
{
        if (op->ctx.partitions == 0 || op->ctx.partition >= op->ctx.partitions)
                return df_fail(err, DF_EINVAL, "guard: partition %u of %u", op->ctx.partition,
                               op->ctx.partitions);
        return 0;
}

static enum ad_reason reason_of(enum df_clock_verdict v)
{
        switch (v) {
        case DF_CLOCK_AHEAD:
                return AD_CLOCK;
        case DF_CLOCK_STALE:
                return AD_STALE_RECEIVE;
        case DF_CLOCK_FUTURE:
                return AD_FUTURE_EVENT;
        case DF_CLOCK_OLD:
                return AD_TOO_OLD;
        case DF_CLOCK_OK:
                break;
        }
        return AD_NONE;
}

static bool well_formed(const struct ad_event *ev)
{
        return ev->event_id.len > 0 && ev->tenant_id.len > 0 && ev->type >= AD_IMPRESSION &&
               ev->type <= AD_CONVERSION && ev->cost_nanos >= 0 && ev->payout_nanos >= 0 &&
               ev->value_nanos >= 0 && (ev->currency.len == 0 || ev->currency.len == 3) &&
               (ev->value_currency.len == 0 || ev->value_currency.len == 3);
}

static enum ad_reason judge(struct df_ctx *ctx, struct ad_event *ev)
{
        if (!well_formed(ev))
                return AD_INVALID;
        if (ad_event_partition(ev->key, ctx->partitions) != ctx->partition)
                return AD_WRONG_PARTITION;
        return reason_of(df_clock_judge(ctx->clock, ctx->rules, ev->receive_ms, ev->event_ms));
}

static int guard_process(struct df_operator *op, struct df_batch *batch, struct df_out *out,
                         struct df_error *err)
{
        struct df_ctx *ctx = &op->ctx;
        struct ad_event *events = batch->items;

        df_check(batch->kind == AD_KIND_EVENTS);
        for (size_t i = 0; i < batch->count; i++) {
                struct ad_event *ev = &events[i];
                enum ad_reason reason;

                if (ev->flags & AD_EV_MARK) {
                        if (ev->flags & AD_EV_CLOCK_RESET)
                                df_clock_reset(ctx->clock);
                        df_clock_record(ctx->clock, ev->append_ms);
                        if (ev->flags & AD_EV_HEARTBEAT) /* judged, but never an outcome */
                                (void)df_clock_judge(ctx->clock, ctx->rules, ev->receive_ms,
                                                     ev->event_ms);
                        continue;
                }
                if (ev->outcome != AD_NONE)
                        continue;
                ev->key = ad_event_key(ev->tenant_id, ev->event_id);
                ev->watermark_ms = ctx->clock->watermark_ms;
                reason = judge(ctx, ev);
                if (reason != AD_NONE)
                        ad_end(out, ev, reason);
        }
        return df_out_forward(out, batch, err);
}

static void guard_close(struct df_operator *op)
{
        (void)op;
}

const struct df_operator_ops ad_op_guard = {
        .name = "guard",
        .state_version = 1,
        .size = sizeof(struct guard),
        .open = guard_open,
        .process = guard_process,
        .close = guard_close,
};
