/* arena_asan.c - the same interface, one malloc an allocation, so that AddressSanitizer sees
 * overflows between allocations and uses after a reset. */
#include <stdlib.h>

#include "df/arena.h"

struct df_arena_chunk {
        struct df_arena_chunk *next;
        void *memory;
};

void df_arena_init(struct df_arena *a, size_t limit_bytes)
{
        *a = (struct df_arena){.limit = limit_bytes};
}

void df_arena_release(struct df_arena *a)
{
        if (!a)
                return;
        for (struct df_arena_chunk *c = a->head, *next; c; c = next) {
                next = c->next;
                free(c->memory);
                free(c);
        }
        a->head = NULL;
        a->used = 0;
}

void df_arena_reset(struct df_arena *a)
{
        df_arena_release(a);
}

void *df_arena_alloc(struct df_arena *a, size_t size)
{
        size_t rounded;
        struct df_arena_chunk *c;

        if (size == 0)
                size = 1; /* its own address */
        if (size > SIZE_MAX / 4)
                return NULL;
        rounded = (size + 15) & ~(size_t)15;
        if (a->limit && (rounded > a->limit || a->used > a->limit - rounded))
                return NULL;
        c = malloc(sizeof(*c));
        if (!c)
                return NULL;
        c->memory = malloc(size);
        if (!c->memory) {
                free(c);
                return NULL;
        }
        c->next = a->head;
        a->head = c;
        a->used += rounded;
        return c->memory;
}

void *df_arena_zalloc(struct df_arena *a, size_t size)
{
        void *p = df_arena_alloc(a, size);

        if (p)
                memset(p, 0, size);
        return p;
}

struct df_bytes df_arena_copy(struct df_arena *a, struct df_bytes b)
{
        uint8_t *p = df_arena_alloc(a, b.len);

        if (p && b.len)
                memcpy(p, b.data, b.len);
        return df_bytes(p, p ? b.len : 0);
}
