/* parse_private.h - between parse.c and event_json.c. */
#ifndef AD_PARSE_PRIVATE_H
#define AD_PARSE_PRIVATE_H

#include "jobs/ingest/parse.h"

/* The object at nodes[at] into ev (zeroed by the caller). AD_NONE, or the first rule it breaks. */
enum ad_reason dfi_event_from_json(const struct ad_json_node *nodes, uint32_t at,
                                   struct df_arena *arena, struct ad_event *ev,
                                   const char **ret_field);
/* No control characters (C0, DEL, C1 in UTF-8). */
bool dfi_plain_text(struct df_bytes s);
/* Encoded field 18 entries of Event. */
enum ad_reason dfi_encode_attributes(const struct ad_json_node *const *sorted, size_t count,
                                     struct df_arena *arena, struct df_bytes *ret);

#endif
