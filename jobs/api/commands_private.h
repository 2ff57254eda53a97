/* commands_private.h - between commands.c (the thread) and commands_index.c (what is in memory). */
#ifndef ADI_COMMANDS_PRIVATE_H
#define ADI_COMMANDS_PRIVATE_H

#include <pthread.h>

#include "jobs/api/commands.h"

struct adi_command_index {
        pthread_rwlock_t lock;
        struct ad_asked_for **list; /* by offset */
        size_t count, cap;
        uint32_t *slots; /* of the table by tenant and id: index + 1, 0 = free */
        size_t slot_count;
        uint64_t bytes, ignored, damaged;
};

void adi_index_init(struct adi_command_index *x);
/* A record of the topic. What cannot be decoded, or has an id that is taken, is counted and left
 * out. */
int adi_index_add(struct adi_command_index *x, const struct df_record *r, struct df_error *err);
const struct ad_asked_for *adi_index_find(struct adi_command_index *x, struct df_bytes tenant_id,
                                          struct df_bytes id);
void adi_index_release(struct adi_command_index *x);

bool adi_same_id(const struct ad_command *c, struct df_bytes tenant_id, struct df_bytes id);
/* What must be equal for two commands to be the same request; appended. */
void adi_command_content(struct df_buf *b, const struct ad_command *c);

#endif
