/* prices.h - versioned price tables (W6): DATA/config/prices/<version>.csv, immutable once there.
 *
 *   tenant_id,advertiser_id,campaign_id,ad_id,model,price,currency,valid_from
 *   default,,c17,,cpm,187.4,RUB,2026-01-01T00:00:00Z
 *
 * Empty ids match all; model is cpm, cpc or cpa; price is in currency units, at most 9 decimals;
 * valid_from is RFC 3339 UTC or empty (always). A new table is a new version: `adtally prices load
 * FILE` checks it and writes the next number. Ingest stamps each record with the newest version it
 * sees; a task loads exactly the version that a record names, or is refused
 * (price_version_missing). Thread: any.
 */
#ifndef AD_PRICES_H
#define AD_PRICES_H

#include "operators/ops.h"

#define AD_PRICE_LINES_MAX 4096
#define AD_PRICE_FILE_MAX (4u << 20)

struct ad_prices; /* every version loaded so far */

int ad_prices_open(const char *data_dir, struct ad_prices **ret, struct df_error *err);
/* For ad_params.price_table; arg is the struct ad_prices. Thread: any. NULL when it cannot be
 * loaded. A table lives as long as the cache. */
const struct ad_price_table *ad_prices_get(void *arg, uint32_t version);
/* The highest version in the directory; 0 = none. */
uint32_t ad_prices_newest(const struct ad_prices *p);
/* Check the file and store it as the next version. */
int ad_prices_load(struct ad_prices *p, const char *path, uint32_t *ret_version,
                   struct df_error *err);
void ad_prices_close(struct ad_prices *p);

#endif
