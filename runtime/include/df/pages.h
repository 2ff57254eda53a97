/* pages.h - large blocks of memory, which stay with the process.
 *
 * A page that a process touches for the first time is zeroed by the kernel; in a virtual machine
 * that gives unused memory back to its host it must be fetched from there, too, which costs up to
 * thirty times as much (tests/bench/README.md). Tables and runs of millions of entries come and go
 * with hours, partitions and runs, so what one gives back is kept for the next that asks.
 *
 * Blocks of DF_PAGES_MIN and more are mapped, on huge pages where the kernel has them; smaller ones
 * are malloc's. Of mapped blocks that nobody uses the process keeps at most DF_PAGES_KEPT_MAX
 * bytes, the latest ones; a request is served from them by the smallest that is large enough and at
 * most a quarter larger. Sizes that recur (powers of two) fit best.
 *
 * Threads: any; a block may be freed by another thread than the one that asked for it.
 * Errors: DF_ENOMEM, and *p is empty. Freeing an empty block does nothing.
 */
#ifndef DF_PAGES_H
#define DF_PAGES_H

#include <stdbool.h>
#include <stddef.h>

#include "df/err.h"

#define DF_PAGES_MIN ((size_t)4 << 20)
#define DF_PAGES_KEPT_MAX ((size_t)256 << 20)

struct df_pages {
        void *data;   /* aligned to a cache line, mapped ones to a huge page */
        size_t bytes; /* that may be used: at least what was asked for */
        void *memory; /* the rest is pages.c's */
        size_t memory_bytes;
};

/* zeroed: false when all of it is going to be written before it is read. */
int df_pages_alloc(struct df_pages *p, size_t bytes, bool zeroed, struct df_error *err);
void df_pages_free(struct df_pages *p);

/* Bytes kept for the next ones. */
size_t df_pages_kept(void);

#endif
