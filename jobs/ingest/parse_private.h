/* parse_private.h - between parse.c, event_json.c and event_proto.c. */
#ifndef AD_PARSE_PRIVATE_H
#define AD_PARSE_PRIVATE_H

#include "jobs/ingest/parse.h"

/* The object at nodes[at] into ev (zeroed by the caller). AD_NONE, or the first rule it breaks;
 * AD_UNAVAILABLE: out of memory. */
enum ad_reason dfi_event_from_json(const struct ad_json_node *nodes, uint32_t at,
                                   struct df_arena *arena, struct ad_event *ev,
                                   const char **ret_field);
/* The same for one encoded Event. ev is zeroed here; stamped fields are dropped. */
enum ad_reason dfi_event_from_protobuf(struct df_bytes bytes, struct df_arena *arena,
                                       struct ad_event *ev, const char **ret_field);
/* An Event as the log holds it, for a release: what the client stated by the same rules, and what
 * ingest stamped then, but for receive_ms, which is left 0. A sealed user_id stays as it is. */
enum ad_reason dfi_event_from_log(struct df_bytes bytes, struct df_arena *arena,
                                  struct ad_event *ev, const char **ret_field);
/* No control characters (C0, DEL, C1 in UTF-8). */
bool dfi_plain_text(struct df_bytes s);
struct dfi_attribute {
        struct df_bytes key, value;
};
struct dfi_attributes { /* sorted by key, unique */
        struct dfi_attribute list[AD_ATTRIBUTES_MAX];
        size_t count;
};
/* Checks limits and characters, keeps the order: equal maps are equal bytes. */
enum ad_reason dfi_add_attribute(struct dfi_attributes *a, struct df_bytes key,
                                 struct df_bytes value);
/* As entries of Event.attributes. */
enum ad_reason dfi_encode_attributes(const struct dfi_attributes *a, struct df_arena *arena,
                                     struct df_bytes *ret);

#endif
