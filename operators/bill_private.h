/* bill_private.h - between the files of the bill operator.
 *
 *   bill.c        the operator: cells, rows, what is still to be sent
 *   bill_judge.c  what an event adds, to which cells, under which cause
 */
#ifndef ADI_BILL_PRIVATE_H
#define ADI_BILL_PRIVATE_H

#include "operators/tumble_private.h"
#include "proto/bill.h"

struct bill_key {
        uint64_t quarter;
        uint32_t tenant, advertiser, campaign, publisher, currency, cause;
};

/* The strings of a key, by their names. */
enum { TENANT, ADVERTISER, CAMPAIGN, PUBLISHER, NAMES };
struct bill_staged {
        const struct ad_event *events[ADI_STAGE];
        uint32_t columns[NAMES][ADI_STAGE];
        uint32_t names[ADI_STAGE][NAMES]; /* the same by event */
        uint64_t hashes[ADI_STAGE];       /* of the key it most probably has */
        uint32_t count;
};

struct bill_entry {
        struct bill_key key;
        struct ad_cell billed, realtime;
};

struct bill {
        struct df_operator op;
        struct adi_names names;
        struct bill_entry *entries;
        uint32_t *slots; /* index + 1 into entries, 0 = empty */
        uint32_t count, cap, mask;
        uint32_t sent;                      /* entries before it are in the outbox */
        uint32_t stored;                    /* blobs in the store */
        const struct ad_price_table *table; /* the run's; NULL: costs are the clients' */
        struct bill_staged staged;
        struct df_buf buf;
};

/* bill.c: the entry of this key, made when it is new; valid until the next call. */
int adi_bill_find(struct bill *b, const struct bill_key *key, struct bill_entry **ret,
                  struct df_error *err);
uint64_t adi_bill_hash(const struct bill_key *k);

/* bill_judge.c: the names of a tenant and of an event's dimensions. */
int adi_bill_names(struct bill *b, struct df_bytes tenant_id, const struct df_bytes *dims,
                   uint32_t ret[NAMES], struct df_error *err);
struct bill_key adi_bill_key(const struct ad_event *ev, const uint32_t names[NAMES],
                             enum ad_cause cause);
/* All that is staged is added, each event either counted by realtime or no copy. */
int adi_bill_judge(struct bill *b, struct df_error *err);

#endif
