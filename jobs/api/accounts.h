/* accounts.h - whose periods there are, and in which zone (`--accounts FILE`).
 *
 * One line a tenant, words separated by blanks, # begins a comment:
 *
 *   # tenant  accounts         zone              [currency]
 *   acme      advertiser       Europe/Berlin     EUR
 *   acme      advertiser=a7    America/New_York
 *   globex    tenant           UTC
 *
 * `advertiser`: each advertiser is an account and closes its own periods; a line with =ID gives one
 * of them another zone. `tenant`: the tenant closes as a whole. The currency is what an invoice
 * without lines is in; it converts nothing. A tenant without a line, and everybody without a file:
 * advertiser, in --time-zone.
 *
 * Order of calls: open, { find, refresh }*, close. Thread: any, all calls but close.
 */
#ifndef AD_API_ACCOUNTS_H
#define AD_API_ACCOUNTS_H

#include "jobs/api/zone.h"
#include "proto/limits.h"

#define AD_ACCOUNTS_MAX 10000 /* lines */
#define AD_ACCOUNTS_FILE_MAX (4u << 20)

struct ad_account_rule {
        bool whole_tenant;
        const struct ad_zone *zone;
        char currency[4]; /* "" = none */
};

struct ad_accounts;
/* path: NULL = none. zones and zone (the default) outlive it. DF_EPARSE names path and line. */
int ad_accounts_open(const char *path, struct ad_zones *zones, const struct ad_zone *zone,
                     struct ad_accounts **ret, struct df_error *err);
/* Read the file again if it changed: call about once a second. A bad file is an error once a
 * change, and what was read before stays in force. */
int ad_accounts_refresh(struct ad_accounts *a, struct df_error *err);
/* advertiser_id: empty = of the tenant. */
void ad_accounts_find(struct ad_accounts *a, struct df_bytes tenant_id,
                      struct df_bytes advertiser_id, struct ad_account_rule *ret);
void ad_accounts_close(struct ad_accounts *a); /* NULL-safe */

#endif
