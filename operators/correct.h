/* correct.h - corrections of the bill: which of them applies to an event, and what they make of it.
 *
 * A set is made once from the corrections of a run, in the order in which they count (that of the
 * topic `commands`), and does not change. Each looks at the event as it was sent, never at what
 * another one made of it, so that one cannot pull an event into the scope of the next. Of several
 * that apply to an event
 *
 *   VOID     of any of them takes the event out of the bill, whatever comes later
 *   LABEL    of any of them makes it invalid: counted as such, without money
 *   REPRICE  the last one says cost and currency
 *   REMAP    the last one says the advertiser, and so for campaign and publisher
 *
 * and what was cancelled is not in the set. An event is found by its id (the hash that dedupe knows
 * it by, D1), or by what the scope says of advertiser, campaign and publisher: one hash for each
 * combination of the three that the tenant's corrections use, then all of the scope is compared.
 *
 * Ownership: the set borrows the items' strings, corrections and ids until it is destroyed.
 * Thread:    a set is read by any number of threads.
 * Errors:    DF_ELIMIT beyond the limits below; DF_EINVAL no known action, a price or a name that
 *            no row can hold; DF_ENOMEM.
 * Memory:    about 100 bytes a correction, and 60 for each event id.
 */
#ifndef AD_CORRECT_H
#define AD_CORRECT_H

#include "proto/books.h"

#define AD_CORRECTIONS_MAX 100000      /* of a set */
#define AD_CORRECTION_IDS_MAX 1000000u /* event ids in the scopes of a set, all together */

struct ad_correction_item {
        struct df_bytes tenant_id;
        struct ad_correction correction;
};
struct ad_corrections;

/* Whether its action is known, and rows can hold what it says. DF_EINVAL. */
int ad_correction_check(const struct ad_correction *c, struct df_error *err);
/* Items are copied, what they point to is not. No items: an empty set, which applies to nothing. */
int ad_corrections_create(const struct ad_correction_item *items, size_t count,
                          struct ad_corrections **ret, struct df_error *err);
void ad_corrections_destroy(struct ad_corrections *s);
size_t ad_corrections_count(const struct ad_corrections *s);

/* What becomes of an event, on the bill's side. */
struct ad_effect {
        bool voided;
        bool labelled;                      /* invalid, whatever the label is called */
        const struct ad_correction *price;  /* NULL: as it is; currency empty: as it is */
        const struct ad_correction *dim[3]; /* likewise advertiser, campaign, publisher */
};

/* The tenant's own part of the set; NULL: no correction is the tenant's. */
struct ad_corrections_tenant;
const struct ad_corrections_tenant *ad_corrections_tenant(const struct ad_corrections *s,
                                                          struct df_bytes tenant_id);
/* ev is the tenant's, and its key is set. False: none applies. */
bool ad_corrections_find(const struct ad_corrections *s, const struct ad_corrections_tenant *t,
                         const struct ad_event *ev, struct ad_effect *ret);

#endif
