#include "df/pages.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(data, bytes) ((void)(data), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(data, bytes) ((void)(data), (void)(bytes))
#endif

#define CACHE_LINE ((size_t)64)
#define HUGE_PAGE ((size_t)2 << 20)
#define BLOCKS (DF_PAGES_KEPT_MAX / DF_PAGES_MIN) /* each takes more than DF_PAGES_MIN */

static struct {
        pthread_mutex_t lock;
        struct df_pages blocks[BLOCKS]; /* the latest at the end */
        size_t count;
        size_t bytes; /* of memory */
} kept = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_mapped(const struct df_pages *p)
{
        return p->bytes >= DF_PAGES_MIN;
}

static void *aligned(void *memory, size_t align)
{
        return (void *)(((uintptr_t)memory + align - 1) & ~(uintptr_t)(align - 1));
}

static void unmap(struct df_pages *p)
{
        ASAN_UNPOISON_MEMORY_REGION(p->data, p->bytes);
        (void)munmap(p->memory, p->memory_bytes); /* cannot fail: it is our mapping */
}

static struct df_pages take_out(size_t at)
{
        struct df_pages p = kept.blocks[at];

        kept.count--;
        memmove(&kept.blocks[at], &kept.blocks[at + 1], (kept.count - at) * sizeof(p));
        kept.bytes -= p.memory_bytes;
        return p;
}

static bool take_kept(struct df_pages *p, size_t bytes)
{
        size_t best = BLOCKS;

        (void)pthread_mutex_lock(&kept.lock);
        for (size_t i = 0; i < kept.count; i++) {
                size_t has = kept.blocks[i].bytes;

                if (has >= bytes && has - bytes <= bytes / 4 &&
                    (best == BLOCKS || has < kept.blocks[best].bytes))
                        best = i;
        }
        if (best < BLOCKS)
                *p = take_out(best);
        (void)pthread_mutex_unlock(&kept.lock);
        return best < BLOCKS;
}

static int map(struct df_pages *p, size_t bytes, struct df_error *err)
{
        size_t all = bytes + HUGE_PAGE;
        void *memory = MAP_FAILED;

        if (all > bytes)
                memory = mmap(NULL, all, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (memory == MAP_FAILED)
                return df_fail(err, DF_ENOMEM, "no memory for a table of %zu bytes", bytes);
        *p = (struct df_pages){aligned(memory, HUGE_PAGE), bytes, memory, all};
        (void)madvise(p->data, bytes, MADV_HUGEPAGE); /* only faster: a refusal changes nothing */
        return 0;
}

int df_pages_alloc(struct df_pages *p, size_t bytes, bool zeroed, struct df_error *err)
{
        void *memory;

        *p = (struct df_pages){0};
        if (bytes >= DF_PAGES_MIN) {
                if (!take_kept(p, bytes))
                        return map(p, bytes, err);
                ASAN_UNPOISON_MEMORY_REGION(p->data, p->bytes);
                if (zeroed)
                        memset(p->data, 0, bytes);
                return 0;
        }
        memory = zeroed ? calloc(1, bytes + CACHE_LINE) : malloc(bytes + CACHE_LINE);
        if (!memory)
                return df_fail(err, DF_ENOMEM, "no memory for a table of %zu bytes", bytes);
        *p = (struct df_pages){aligned(memory, CACHE_LINE), bytes, memory, bytes + CACHE_LINE};
        return 0;
}

static void keep(const struct df_pages *p)
{
        ASAN_POISON_MEMORY_REGION(p->data, p->bytes);
        (void)pthread_mutex_lock(&kept.lock);
        while (kept.bytes + p->memory_bytes > DF_PAGES_KEPT_MAX) {
                struct df_pages oldest = take_out(0);

                (void)pthread_mutex_unlock(&kept.lock);
                unmap(&oldest);
                (void)pthread_mutex_lock(&kept.lock);
        }
        kept.blocks[kept.count++] = *p;
        kept.bytes += p->memory_bytes;
        (void)pthread_mutex_unlock(&kept.lock);
}

void df_pages_free(struct df_pages *p)
{
        if (!is_mapped(p))
                free(p->memory);
        else if (p->memory_bytes > DF_PAGES_KEPT_MAX)
                unmap(p);
        else
                keep(p);
        *p = (struct df_pages){0};
}

size_t df_pages_kept(void)
{
        size_t bytes;

        (void)pthread_mutex_lock(&kept.lock);
        bytes = kept.bytes;
        (void)pthread_mutex_unlock(&kept.lock);
        return bytes;
}
