/* periods.h - accounts and their periods, as the books and the commands have them. Between
 * periods.c, period_bounds.c and invoice_http.c.
 */
#ifndef ADI_PERIODS_H
#define ADI_PERIODS_H

#include "jobs/api/accounts.h"
#include "jobs/api/ask.h"

/* A calendar month of an account: [from, to), by its zone. */
struct adi_month {
        int year;
        unsigned month;
        char name[16]; /* "2026-04" */
        uint64_t from_quarter, to_quarter;
};
/* -1 with *f: the zone leaves the quarter hour within it (`zone_not_supported`). */
int adi_month_of(const struct ad_zone *z, int year, unsigned month, struct adi_month *ret,
                 struct ad_fault *f);
/* The month that holds an instant. */
void adi_month_at(const struct ad_zone *z, int64_t ms, int *ret_year, unsigned *ret_month);

/* Of the request: its advertiser_id and the rule for it. 400 `advertiser_needed`,
 * `account_is_tenant`. */
struct adi_account {
        struct df_bytes advertiser_id; /* empty: the tenant as a whole */
        struct ad_account_rule rule;
};
int adi_account_of(struct adi_ask *q, struct df_bytes advertiser_id, struct adi_account *ret);

/* What was taken of a period's close, copied into the arena of q. */
struct adi_closed {
        bool taken, refused; /* refused: the newest close was, and none was taken */
        struct ad_closed closed;
};
/* period empty: any; then only the newest taken one. */
int adi_find_close(struct adi_ask *q, const struct adi_account *a, struct df_bytes period,
                   struct adi_closed *ret);

#endif
