#include "proto/wire.h"

const char *const ad_dim_names[AD_DIM_COUNT] = {
        [AD_DIM_ADVERTISER] = "advertiser_id",
        [AD_DIM_CAMPAIGN] = "campaign_id",
        [AD_DIM_AD] = "ad_id",
        [AD_DIM_PUBLISHER] = "publisher_id",
        [AD_DIM_PLACEMENT] = "placement_id",
        [AD_DIM_COUNTRY] = "country",
        [AD_DIM_DEVICE] = "device",
};

const struct ad_groupings ad_groupings_default = {
        .version = 1,
        .count = 3,
        .list =
                {
                        {2, {AD_DIM_ADVERTISER, AD_DIM_CAMPAIGN}},
                        {5,
                         {AD_DIM_ADVERTISER, AD_DIM_CAMPAIGN, AD_DIM_AD, AD_DIM_COUNTRY,
                          AD_DIM_DEVICE}},
                        {4,
                         {AD_DIM_ADVERTISER, AD_DIM_CAMPAIGN, AD_DIM_PUBLISHER, AD_DIM_PLACEMENT}},
                },
};

static bool add_count(uint64_t *sum, uint64_t v)
{
        return !__builtin_add_overflow(*sum, v, sum);
}

bool ad_cell_add(struct ad_cell *sum, const struct ad_cell *v)
{
        struct ad_cell s = *sum;
        bool ok = add_count(&s.impressions, v->impressions) && add_count(&s.clicks, v->clicks) &&
                  add_count(&s.conversions, v->conversions) && df_nanos_add(&s.spend, v->spend) &&
                  df_nanos_add(&s.payout, v->payout) && df_nanos_add(&s.value, v->value);

        for (int i = 0; ok && i < 3; i++)
                ok = add_count(&s.invalid[i], v->invalid[i]);
        if (ok)
                *sum = s;
        return ok;
}

bool ad_cell_is_zero(const struct ad_cell *c)
{
        return c->impressions == 0 && c->clicks == 0 && c->conversions == 0 && c->spend == 0 &&
               c->payout == 0 && c->value == 0 && c->invalid[0] == 0 && c->invalid[1] == 0 &&
               c->invalid[2] == 0;
}
