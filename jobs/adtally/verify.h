/* verify.h - `adtally verify`: whether a closed period is what the raw events say, from copies
 * alone (docs/BILLING.md, "Proof of a number").
 *
 * Order: signature, then segments, then price tables, then the recount. What does not hold is said
 * by ad_verify_no, and the rest of the same step is looked at all the same; the next step is not
 * begun. Thread: one. Functions return a failure only for what is no answer (a store that cannot be
 * reached, a full disk).
 */
#ifndef AD_VERIFY_H
#define AD_VERIFY_H

#include "jobs/adtally/command.h"
#include "jobs/runs/manifest.h"
#include "jobs/runs/rows.h"

struct ad_verify {
        const struct df_config *config;
        struct df_objects *objects;
        struct ad_manifest manifest;
        bool no;                  /* something does not hold */
        uint64_t segments, bytes; /* that were compared with their hashes */
        char work[4096];          /* of the recount; "" before */
        struct ad_rows *rows;
};

/* Prints "adtally verify: not verified: <text>". */
void ad_verify_no(struct ad_verify *v, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Each segment that the manifest vouches for is there, and is what it was (verify_archive.c). */
int ad_verify_archive(struct ad_verify *v, struct df_error *err);

/* The rows again, from these segments, in v->work (verify_recount.c). */
int ad_verify_recount(struct ad_verify *v, struct df_error *err);

#endif
