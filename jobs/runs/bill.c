/* bill.c - what makes a run a reconcile run (bill.h). */
#include "jobs/runs/bill.h"

#include "df/archive.h"
#include "df/hash.h"
#include "jobs/common/archive.h"
#include "jobs/common/corrections.h"
#include "jobs/common/prices.h"

uint32_t ad_bill_price_version(const struct df_config *c)
{
        struct ad_prices *p = NULL;
        uint32_t version = 0;

        if (ad_prices_open(df_config_text(c, "data"), &p, NULL) == 0)
                version = ad_prices_newest(p);
        ad_prices_close(p);
        return version;
}

/* Realtime's rows are compared by grouping 0 alone (bill_compare.c), and a cap holds for each
 * grouping by itself (W7): the run counts no other. */
static const struct ad_groupings compared = {
        .version = 1,
        .count = 1,
        .list = {{2, {AD_DIM_ADVERTISER, AD_DIM_CAMPAIGN}}},
};
/* Of the state that a run keeps: one of another layout begins anew. */
#define LAYOUT 3

static void fill_params(const struct df_config *c, const struct ad_run_kind *kind,
                        struct ad_params *ret)
{
        ret->groupings = &compared;
        ret->billing_horizon_hours = (uint32_t)df_config_integer(c, "billing-horizon");
        ret->billing_price_version = ad_bill_price_version(c);
        if (kind->corrections)
                ret->corrections = ad_correction_log_set(kind->corrections);
}

static uint64_t config_digest(const struct df_config *c, const struct ad_run_kind *kind)
{
        struct ad_params p = {0};
        uint64_t shape[5];

        fill_params(c, kind, &p);
        shape[0] = ad_config_digest(c);
        shape[1] = p.billing_horizon_hours;
        shape[2] = p.billing_price_version;
        shape[3] = kind->corrections ? ad_correction_log_digest(kind->corrections) : 0;
        shape[4] = LAYOUT;
        return df_hash64(df_bytes(shape, sizeof(shape)));
}

const struct ad_run_kind ad_run_reconcile = {
        .name = "reconcile",
        .open = true,
        .chain = ad_chain_bill,
        .chain_length = &ad_chain_bill_length,
        .outputs = AD_OUT_BILL_COUNT,
        .config = config_digest,
        .params = fill_params,
};

/* Without an archive the log is all there is. */
int ad_bill_open_source(const struct df_config *c, struct df_log *log,
                        struct df_objects **ret_objects, struct df_log **ret, struct df_error *err)
{
        int rc;

        *ret = log;
        if (ad_archive_is_off(c))
                return 0;
        rc = ad_archive_open_store(c, ret_objects, err);
        return rc == 0 ? df_archive_log_open(log, *ret_objects, ret, err) : rc;
}

bool ad_bill_unexplained(const struct ad_bill_result *r)
{
        for (size_t i = 0; i < r->total_count; i++)
                if (r->totals[i].cause == AD_CAUSE_UNEXPLAINED)
                        return true;
        return false;
}
