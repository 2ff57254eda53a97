/* command_parse.h - the JSON of requests that become commands, checked (docs/API.md). Pure.
 *
 * A body is an object; every field stands at most once and is of one kind; null is the same as not
 * stated; an unknown field is refused. Faults are 400 with a code, the field, and what would do.
 * Ownership: what is returned borrows from the document or lies in the arena.
 */
#ifndef AD_API_COMMAND_PARSE_H
#define AD_API_COMMAND_PARSE_H

#include "jobs/api/query.h"
#include "jobs/common/doc.h"
#include "proto/books.h"

#define AD_COMMAND_BODY_MAX (1u << 20)                     /* bytes of a request's body */
#define AD_COMMAND_NODES_MAX (AD_SCOPE_EVENT_IDS_MAX + 64) /* values of one */

/* What of a command a body may state: id (ret->id empty: not stated), reason, requested_by,
 * approved_by and what the kind asks for. Set are these, and kind. All return 0, or -1 with *f. */
int ad_parse_correction(const struct ad_doc *d, struct df_arena *arena, struct ad_command *ret,
                        struct ad_fault *f);
/* ret->close.account.advertiser_id; empty: not stated. */
int ad_parse_close(const struct ad_doc *d, struct ad_command *ret, struct ad_fault *f);
int ad_parse_run(const struct ad_doc *d, struct ad_command *ret, struct ad_fault *f);
int ad_parse_cancel(const struct ad_doc *d, struct ad_command *ret, struct ad_fault *f);

/* 1 to AD_COMMAND_ID_MAX of [A-Za-z0-9._-]. */
bool ad_command_id_valid(struct df_bytes id);
/* "2026-04", years 1970 to 9998. */
bool ad_period_parse(struct df_bytes text, int *ret_year, unsigned *ret_month);

/* "void", ... and back from names. */
const char *ad_correction_name(enum ad_correction_action a);
struct ad_label_name {
        const char *name;
        uint32_t bit; /* enum ad_label */
};
extern const struct ad_label_name ad_label_names[]; /* up to name NULL */

#endif
