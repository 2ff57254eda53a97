/* arena.h - bump allocation with a named lifetime (batch, epoch, task).
 *
 * Memory is given back all at once by df_arena_reset (keeps the chunks) or df_arena_release.
 * Nothing keeps a pointer into an arena beyond its lifetime. Under AddressSanitizer (-Darena=asan,
 * the default of sanitized builds) each allocation is its own malloc, so overflows and uses after
 * reset are seen.
 * Thread: one at a time. Errors: NULL when out of memory or over the arena's limit.
 */
#ifndef DF_ARENA_H
#define DF_ARENA_H

#include <stddef.h>

#include "df/bytes.h"

struct df_arena_chunk;

struct df_arena {
        struct df_arena_chunk *head;
        size_t used;  /* bytes handed out since the last reset */
        size_t limit; /* 0 = none */
};

void df_arena_init(struct df_arena *a, size_t limit_bytes);
void df_arena_reset(struct df_arena *a);
void df_arena_release(struct df_arena *a);
void *df_arena_alloc(struct df_arena *a, size_t size); /* aligned to 16; not cleared */
void *df_arena_zalloc(struct df_arena *a, size_t size);
struct df_bytes df_arena_copy(struct df_arena *a, struct df_bytes b); /* data NULL when it failed */

#endif
