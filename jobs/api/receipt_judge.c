/* receipt_judge.c - what became of each copy, by D1's rule (receipt.h). */
#include "jobs/api/receipt.h"

/* What guard refused is not recorded by dedupe: as if it had not been there. */
static bool is_guards(uint32_t reason)
{
        return reason == AD_WRONG_PARTITION || reason == AD_CLOCK || reason == AD_STALE_RECEIVE ||
               reason == AD_FUTURE_EVENT || reason == AD_TOO_OLD || reason == AD_INVALID;
}

/* D1: the occurrence greatest by (receive hour, log order) among those before copies[i] with a
 * receive hour in [h - H, h + 1]; without a horizon the last one (R6). *ret_sure: no copy whose
 * outcome is unknown could be it. */
static const struct ad_copy *decider(const struct ad_copy *copies, size_t i, uint32_t horizon,
                                     bool *ret_sure)
{
        int64_t h = adi_receipt_hour(copies[i].ev.receive_ms), best_hour = INT64_MIN;
        const struct ad_copy *best = NULL;

        *ret_sure = true;
        for (size_t j = 0; j < i; j++) {
                int64_t hj = adi_receipt_hour(copies[j].ev.receive_ms);

                if (horizon && (hj < h - (int64_t)horizon || hj > h + 1))
                        continue;
                if (copies[j].lost)
                        *ret_sure = false;
                else if (!is_guards(copies[j].entry) && (!horizon || hj >= best_hour)) {
                        best = &copies[j];
                        best_hour = hj;
                }
        }
        return best;
}

static void judge_one(struct ad_copy *copies, size_t i, uint32_t horizon, int64_t known_ms)
{
        const uint32_t both = 1u << AD_OUT_LATE | 1u << AD_OUT_QUARANTINE;
        struct ad_copy *c = &copies[i];
        int64_t least = horizon ? (adi_receipt_hour(c->ev.receive_ms) - (int64_t)horizon) *
                                          ADI_RECEIPT_HOUR_MS
                                : INT64_MIN;
        const struct ad_copy *d;
        bool sure;

        c->outcome = AD_NONE;
        c->against = NULL;
        if (c->import && c->import->aborted) {
                c->state = AD_COPY_VOID;
                return;
        }
        if (c->lost || c->sealed != both) {
                c->state = c->lost ? AD_COPY_EXPIRED : AD_COPY_PENDING;
                return;
        }
        c->state = AD_COPY_SEALED;
        c->outcome = c->entry;
        if (c->entry != AD_NONE && c->entry != AD_CONFLICT)
                return;
        d = decider(copies, i, horizon, &sure);
        c->against = d;
        if (c->entry == AD_CONFLICT)
                return;
        if (d) {
                c->outcome = AD_DUPLICATE;
                if ((sure && d->ev.fingerprint != c->ev.fingerprint) || c->alone)
                        c->state = AD_COPY_INCONSISTENT;
        } else if ((sure && known_ms <= least) || c->alone) {
                c->outcome = AD_COUNTED;
        } else {
                c->state = AD_COPY_EARLIER;
        }
}

void ad_receipt_judge(struct ad_copy *copies, size_t count, uint32_t horizon_hours,
                      int64_t known_ms)
{
        for (size_t i = 0; i < count; i++)
                judge_one(copies, i, horizon_hours, known_ms);
}
