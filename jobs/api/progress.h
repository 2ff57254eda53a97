/* progress.h - what the reconcile job says that it is doing: DATA/run/reconcile.json. It is told as
 * it stands there; no number depends on it.
 */
#ifndef ADI_PROGRESS_H
#define ADI_PROGRESS_H

#include "jobs/api/ask.h"

#define ADI_PROGRESS_BYTES_MAX (4u << 20) /* of the file: a line for each close that waits */
#define ADI_PROGRESS_VALUES_MAX 100000    /* in its JSON */

struct adi_progress { /* in the arena; NULL: not stated */
        struct ad_doc doc;
        const struct ad_doc_node *run, *asked_by;
        struct df_bytes unread; /* why the file cannot be read: nothing else is stated then */
};
/* False: there is no such file. */
bool adi_progress_read(const char *data_dir, struct df_arena *arena, struct adi_progress *ret);
/* Why the last run failed; empty: it did not, or nothing is known of it. */
struct df_bytes adi_progress_error(const char *data_dir, struct df_arena *arena);
/* Whether a text in it says this; never of an empty one. */
bool adi_progress_says(const struct ad_doc_node *n, struct df_bytes text);
/* The member "progress". */
void adi_progress_json(struct ad_json *j, const struct adi_progress *p);
/* The member "waits_for" of a close that is on its way: code and text, `unread` when the file
 * cannot be read; nothing when unknown. */
void adi_progress_close_json(struct ad_json *j, const struct adi_progress *p,
                             struct df_bytes tenant_id, struct df_bytes id);

#endif
