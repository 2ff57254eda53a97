#include "df/arena.h"

#include <stdlib.h>

#define CHUNK_MIN (64 * 1024)
#define ALIGN 16

struct df_arena_chunk {
        struct df_arena_chunk *next; /* older or, after a reset, spare */
        size_t cap;
        size_t len;
        size_t pad; /* keeps the payload aligned */
};

void df_arena_init(struct df_arena *a, size_t limit_bytes)
{
        *a = (struct df_arena){.limit = limit_bytes};
}

/* Keep the largest chunk alone: one step's memory is then one chunk, soon. */
void df_arena_reset(struct df_arena *a)
{
        struct df_arena_chunk *keep = a->head;

        for (struct df_arena_chunk *c = a->head; c; c = c->next)
                if (c->cap > keep->cap)
                        keep = c;
        for (struct df_arena_chunk *c = a->head, *next; c; c = next) {
                next = c->next;
                if (c != keep)
                        free(c);
        }
        if (keep) {
                keep->next = NULL;
                keep->len = 0;
        }
        a->head = keep;
        a->used = 0;
}

void df_arena_release(struct df_arena *a)
{
        if (!a)
                return;
        for (struct df_arena_chunk *c = a->head, *next; c; c = next) {
                next = c->next;
                free(c);
        }
        a->head = NULL;
        a->used = 0;
}

static struct df_arena_chunk *grow(struct df_arena *a, size_t size)
{
        size_t cap = a->head ? a->head->cap * 2 : CHUNK_MIN;
        struct df_arena_chunk *c;

        while (cap < size)
                cap *= 2;
        c = malloc(sizeof(*c) + cap);
        if (!c)
                return NULL;
        *c = (struct df_arena_chunk){.next = a->head, .cap = cap};
        a->head = c;
        return c;
}

void *df_arena_alloc(struct df_arena *a, size_t size)
{
        struct df_arena_chunk *c = a->head;
        void *p;

        if (size == 0)
                size = 1; /* its own address */
        if (size > SIZE_MAX / 4)
                return NULL;
        size = (size + ALIGN - 1) & ~(size_t)(ALIGN - 1);
        if (a->limit && (size > a->limit || a->used > a->limit - size))
                return NULL;
        if ((!c || c->cap - c->len < size) && !(c = grow(a, size)))
                return NULL;
        p = (uint8_t *)(c + 1) + c->len;
        c->len += size;
        a->used += size;
        return p;
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
