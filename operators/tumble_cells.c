/* tumble_cells.c - windows and their cells in memory. */
#include <stdlib.h>
#include <sys/mman.h>

#include "operators/tumble_private.h"

#define SLOT_BITS_MIN 3u
#define TABLE_BITS_MAX 31u
#define WINDOWS_MIN 64u
#define BLOCK_BYTES (ADI_BLOCK_CELLS * sizeof(struct adi_cell))

/* ---- the slab ---- */

static int block_add(struct adi_cells *c, struct df_error *err)
{
        uint32_t count = c->block_count + 1;
        struct adi_cell **blocks;
        uint32_t(**more)[2];

        if (count > UINT32_MAX / ADI_BLOCK_CELLS)
                return df_fail(err, DF_ELIMIT, "tumble: 2^32 cells at once");
        blocks = realloc(c->blocks, count * sizeof(*blocks));
        if (!blocks)
                goto nomem;
        c->blocks = blocks;
        if (c->wide) {
                more = realloc(c->more, count * sizeof(*more));
                if (!more)
                        goto nomem;
                c->more = more;
                more[count - 1] = calloc(ADI_BLOCK_CELLS, sizeof(**more));
                if (!more[count - 1])
                        goto nomem;
        }
        /* Aligned to its size: one huge page where the system gives them. The first block of a task
         * stays small pages, since most tasks need a part of it. */
        blocks[count - 1] = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
        if (!blocks[count - 1]) {
                if (c->wide)
                        free(c->more[count - 1]);
                goto nomem;
        }
        if (count > 1)
                (void)madvise(blocks[count - 1], BLOCK_BYTES, MADV_HUGEPAGE); /* only faster */
        c->block_count = count;
        c->block_used = count == 1 ? ADI_CHUNK_MIN : 0; /* cell 0 is none */
        return 0;
nomem:
        return df_fail(err, DF_ENOMEM, "tumble: %u cells", count * ADI_BLOCK_CELLS);
}

/* A chunk never crosses a block: what is left of the last one becomes smaller chunks. */
static int chunk_alloc(struct adi_cells *c, uint32_t class, uint32_t *ret, struct df_error *err)
{
        struct adi_list *spare = &c->free_chunks[class];
        uint32_t size = ADI_CHUNK_MIN << class;
        int rc = 0;

        if (spare->count > 0) {
                *ret = spare->items[--spare->count];
                return 0;
        }
        if (c->block_count == 0 || ADI_BLOCK_CELLS - c->block_used < size) {
                for (uint32_t k = class; c->block_count > 0 && k-- > 0;) {
                        uint32_t part = ADI_CHUNK_MIN << k;

                        if (ADI_BLOCK_CELLS - c->block_used < part)
                                continue;
                        rc = adi_list_add(&c->free_chunks[k],
                                          (c->block_count - 1) * ADI_BLOCK_CELLS + c->block_used,
                                          err);
                        if (rc < 0)
                                return rc;
                        c->block_used += part;
                }
                rc = block_add(c, err);
                if (rc < 0)
                        return rc;
        }
        *ret = (c->block_count - 1) * ADI_BLOCK_CELLS + c->block_used;
        c->block_used += size;
        return 0;
}

static uint32_t chunk_class(uint32_t i) /* of a window's i-th chunk */
{
        return i < ADI_CHUNK_CLASSES ? i : ADI_CHUNK_CLASSES - 1;
}

/* Chunks hold 4, 8, ... 1,024, 1,024, ... cells: cells before chunk i are 4 * (2^i - 1). */
uint32_t adi_window_cell(const struct adi_window *w, uint32_t i)
{
        const uint32_t last = ADI_CHUNK_CLASSES - 1, large = ADI_CHUNK_MIN << last;
        uint32_t before_large = large - ADI_CHUNK_MIN, chunk;

        if (i >= before_large) {
                chunk = last + (i - before_large) / large;
                return w->chunks.items[chunk] + (i - before_large) % large;
        }
        chunk = 31 - (uint32_t)__builtin_clz(i / ADI_CHUNK_MIN + 1);
        return w->chunks.items[chunk] + i - ((ADI_CHUNK_MIN << chunk) - ADI_CHUNK_MIN);
}

static uint32_t capacity(const struct adi_window *w)
{
        const uint32_t last = ADI_CHUNK_CLASSES - 1, large = ADI_CHUNK_MIN << last;

        if (w->chunks.count <= last)
                return (ADI_CHUNK_MIN << w->chunks.count) - ADI_CHUNK_MIN;
        return large - ADI_CHUNK_MIN + (w->chunks.count - last) * large;
}

/* ---- a window's table ---- */

static int table_alloc(struct adi_cells *c, uint32_t bits, struct adi_slot **ret,
                       struct df_error *err)
{
        size_t bytes = sizeof(**ret) << bits;

        if (c->free_tables[bits]) {
                *ret = c->free_tables[bits];
                memcpy(&c->free_tables[bits], *ret, sizeof(c->free_tables[bits]));
                memset(*ret, 0, bytes);
                return 0;
        }
        *ret = calloc(1, bytes);
        return *ret ? 0 : df_fail(err, DF_ENOMEM, "tumble: a table of %zu bytes", bytes);
}

static void table_free(struct adi_cells *c, uint32_t bits, struct adi_slot *table)
{
        memcpy(table, &c->free_tables[bits], sizeof(c->free_tables[bits]));
        c->free_tables[bits] = table;
}

static void slot_put(struct adi_slot *slots, uint32_t bits, struct adi_slot s)
{
        uint32_t mask = (1u << bits) - 1, i = s.hash & mask;

        while (slots[i].cell)
                i = (i + 1) & mask;
        slots[i] = s;
}

static int table_grow(struct adi_cells *c, struct adi_window *w, struct df_error *err)
{
        struct adi_slot *grown;
        int rc;

        if (w->slot_bits == TABLE_BITS_MAX)
                return df_fail(err, DF_ELIMIT, "tumble: %u cells in one window", w->cells);
        rc = table_alloc(c, w->slot_bits + 1, &grown, err);
        if (rc < 0)
                return rc;
        for (uint32_t i = 0; i < 1u << w->slot_bits; i++)
                if (w->slots[i].cell)
                        slot_put(grown, w->slot_bits + 1, w->slots[i]);
        table_free(c, w->slot_bits, w->slots);
        w->slots = grown;
        w->slot_bits++;
        return 0;
}

/* ---- the cap (W7) ---- */

static bool is_other(const struct adi_cells *c, const struct adi_cell_key *k)
{
        const struct ad_grouping *g = &c->groupings->list[adi_tag_grouping(k->tag)];

        for (uint32_t i = 0; i < g->dim_count; i++)
                if (k->dims[i] != ADI_NAME_OTHER)
                        return false;
        return true;
}

void adi_cell_key_other(const struct adi_cells *c, struct adi_cell_key *k)
{
        const struct ad_grouping *g = &c->groupings->list[adi_tag_grouping(k->tag)];

        for (uint32_t i = 0; i < g->dim_count; i++)
                k->dims[i] = ADI_NAME_OTHER;
}

static struct adi_pane *pane_slot(struct adi_pane *panes, uint32_t mask, uint32_t tenant)
{
        uint32_t i = tenant * 0x9e3779b1u >> 8 & mask;

        while (panes[i].used && panes[i].tenant != tenant)
                i = (i + 1) & mask;
        return &panes[i];
}

static int panes_grow(struct adi_window *w, struct df_error *err)
{
        uint32_t count = w->panes ? (w->pane_mask + 1) * 2 : 2;
        struct adi_pane *panes = calloc(count, sizeof(*panes));

        if (!panes)
                return df_fail(err, DF_ENOMEM, "tumble: %u tenants of a window", count);
        for (uint32_t i = 0; w->panes && i <= w->pane_mask; i++)
                if (w->panes[i].used)
                        *pane_slot(panes, count - 1, w->panes[i].tenant) = w->panes[i];
        free(w->panes);
        w->panes = panes;
        w->pane_mask = count - 1;
        return 0;
}

bool adi_cap_reached(const struct adi_cells *c, const struct adi_window *w,
                     const struct adi_cell_key *k)
{
        /* A window with fewer cells than one tenant may have is below it for all of them. */
        if (w->cells < c->cap || is_other(c, k))
                return false;
        return pane_slot(w->panes, w->pane_mask, k->tenant)->keys[adi_tag_grouping(k->tag)] >=
               c->cap;
}

static int count_key(const struct adi_cells *c, struct adi_window *w, const struct adi_cell_key *k,
                     struct df_error *err)
{
        struct adi_pane *p;

        if (!w->panes || (w->pane_count + 1) * 4 > (w->pane_mask + 1) * 3) {
                int rc = panes_grow(w, err);

                if (rc < 0)
                        return rc;
        }
        p = pane_slot(w->panes, w->pane_mask, k->tenant);
        if (!p->used) {
                p->used = 1;
                p->tenant = k->tenant;
                w->pane_count++;
        }
        p->keys[adi_tag_grouping(k->tag)] += !is_other(c, k);
        return 0;
}

/* ---- cells ---- */

bool adi_cell_differs_wide(const struct adi_cells *c, uint32_t cell, const struct adi_cell_key *k)
{
        const uint32_t *more = adi_cell_wide(c, cell);

        return more[0] != k->dims[ADI_KEY_DIMS] || more[1] != k->dims[ADI_KEY_DIMS + 1];
}

void adi_cell_key_of(const struct adi_cells *c, uint32_t cell, struct adi_cell_key *ret)
{
        const struct adi_cell *at = adi_cell_at(c, cell);

        *ret = (struct adi_cell_key){.tenant = at->tenant, .tag = at->tag};
        memcpy(ret->dims, at->dims, sizeof(at->dims));
        if (c->wide)
                memcpy(&ret->dims[ADI_KEY_DIMS],
                       c->more[cell / ADI_BLOCK_CELLS][cell % ADI_BLOCK_CELLS],
                       2 * sizeof(uint32_t));
}

int adi_cell_add(struct adi_cells *c, struct adi_window *w, const struct adi_cell_key *k,
                 uint32_t hash, uint32_t *ret, struct df_error *err)
{
        struct adi_cell *at;
        uint32_t cell;
        int rc = 0;

        if ((uint64_t)(w->cells + 1) * 8 > (5ULL << w->slot_bits))
                rc = table_grow(c, w, err);
        if (rc == 0 && w->cells == capacity(w)) {
                rc = chunk_alloc(c, chunk_class(w->chunks.count), &cell, err);
                if (rc == 0)
                        rc = adi_list_add(&w->chunks, cell, err);
        }
        if (rc == 0)
                rc = count_key(c, w, k, err);
        if (rc < 0)
                return rc;
        cell = adi_window_cell(w, w->cells);
        at = adi_cell_at(c, cell);
        memset(at, 0, sizeof(*at));
        at->tenant = k->tenant;
        at->tag = k->tag;
        memcpy(at->dims, k->dims, sizeof(at->dims));
        if (c->wide)
                memcpy(c->more[cell / ADI_BLOCK_CELLS][cell % ADI_BLOCK_CELLS],
                       &k->dims[ADI_KEY_DIMS], 2 * sizeof(uint32_t));
        slot_put(w->slots, w->slot_bits, (struct adi_slot){hash, cell});
        w->cells++;
        *ret = cell;
        return 0;
}

int adi_mark_unsent(struct adi_cells *c, struct adi_window *w, uint32_t cell, struct df_error *err)
{
        struct adi_cell *at = adi_cell_at(c, cell);
        int rc;

        if (at->state & ADI_UNSENT)
                return 0;
        rc = adi_list_add(&w->unsent[adi_tag_grouping(at->tag) != 0], cell, err);
        if (rc == 0)
                at->state |= ADI_UNSENT;
        return rc;
}

int adi_mark_touched(struct adi_cells *c, struct adi_window *w, uint32_t cell, struct df_error *err)
{
        struct adi_cell *at = adi_cell_at(c, cell);
        int rc;

        if (at->state & ADI_LISTED)
                return 0;
        rc = adi_list_add(&w->touched, cell, err);
        if (rc == 0)
                at->state |= ADI_LISTED;
        return rc;
}

/* ---- windows ---- */

static uint32_t window_home(uint64_t minute, uint32_t mask)
{
        return (uint32_t)(minute * 0x9e3779b97f4a7c15u >> 32) & mask;
}

struct adi_window *adi_window_find(const struct adi_cells *c, uint64_t minute)
{
        uint32_t i = window_home(minute, c->window_mask);

        while (c->windows[i] && c->windows[i]->minute != minute)
                i = (i + 1) & c->window_mask;
        return c->windows[i];
}

static void window_put(struct adi_window **table, uint32_t mask, struct adi_window *w)
{
        uint32_t i = window_home(w->minute, mask);

        while (table[i])
                i = (i + 1) & mask;
        table[i] = w;
}

static int windows_grow(struct adi_cells *c, struct df_error *err)
{
        uint32_t count = c->windows ? (c->window_mask + 1) * 2 : WINDOWS_MIN;
        struct adi_window **table = calloc(count, sizeof(struct adi_window *));

        if (!table)
                return df_fail(err, DF_ENOMEM, "tumble: %u windows", count);
        for (uint32_t i = 0; c->windows && i <= c->window_mask; i++)
                if (c->windows[i])
                        window_put(table, count - 1, c->windows[i]);
        free(c->windows);
        c->windows = table;
        c->window_mask = count - 1;
        return 0;
}

int adi_window_get(struct adi_cells *c, uint64_t minute, struct adi_window **ret,
                   struct df_error *err)
{
        struct adi_window *w = adi_window_find(c, minute);
        int rc = 0;

        if (w) {
                *ret = w;
                return 0;
        }
        if ((c->window_count + 1) * 2 > c->window_mask)
                rc = windows_grow(c, err);
        if (rc < 0)
                return rc;
        w = calloc(1, sizeof(*w));
        if (!w)
                return df_fail(err, DF_ENOMEM, "tumble: a window");
        w->minute = minute;
        w->slot_bits = SLOT_BITS_MIN;
        rc = table_alloc(c, w->slot_bits, &w->slots, err);
        if (rc < 0) {
                free(w);
                return rc;
        }
        window_put(c->windows, c->window_mask, w);
        c->window_count++;
        *ret = w;
        return 0;
}

static void window_free(struct adi_cells *c, struct adi_window *w)
{
        table_free(c, w->slot_bits, w->slots);
        free(w->panes);
        adi_list_release(&w->chunks);
        adi_list_release(&w->unsent[0]);
        adi_list_release(&w->unsent[1]);
        adi_list_release(&w->touched);
        free(w);
}

void adi_window_drop(struct adi_cells *c, struct adi_window *w)
{
        uint32_t mask = c->window_mask, hole = window_home(w->minute, mask);

        while (c->windows[hole] != w) {
                df_check(c->windows[hole]);
                hole = (hole + 1) & mask;
        }
        /* Close the hole: what comes behind it moves up unless that is before its home. */
        for (uint32_t i = (hole + 1) & mask; c->windows[i]; i = (i + 1) & mask) {
                uint32_t home = window_home(c->windows[i]->minute, mask);

                if (((i - home) & mask) < ((i - hole) & mask))
                        continue;
                c->windows[hole] = c->windows[i];
                hole = i;
        }
        c->windows[hole] = NULL;
        c->window_count--;
        for (uint32_t i = 0; i < w->chunks.count; i++) {
                struct adi_list *spare = &c->free_chunks[chunk_class(i)];

                /* Without memory for the list the chunk stays unused: nothing is lost but room. */
                (void)adi_list_add(spare, w->chunks.items[i], NULL);
        }
        window_free(c, w);
}

int adi_cells_init(struct adi_cells *c, const struct ad_groupings *g, uint32_t cap,
                   struct df_error *err)
{
        *c = (struct adi_cells){.groupings = g, .cap = cap};
        for (uint32_t i = 0; i < g->count; i++)
                c->wide |= g->list[i].dim_count > ADI_KEY_DIMS;
        return windows_grow(c, err);
}

void adi_cells_release(struct adi_cells *c)
{
        for (uint32_t i = 0; c->windows && i <= c->window_mask; i++)
                if (c->windows[i])
                        window_free(c, c->windows[i]);
        free(c->windows);
        for (uint32_t bits = 0; bits <= TABLE_BITS_MAX; bits++) {
                for (void *t = c->free_tables[bits], *next; t; t = next) {
                        memcpy(&next, t, sizeof(next));
                        free(t);
                }
        }
        for (uint32_t i = 0; i < ADI_CHUNK_CLASSES; i++)
                adi_list_release(&c->free_chunks[i]);
        for (uint32_t i = 0; i < c->block_count; i++) {
                free(c->blocks[i]);
                if (c->wide)
                        free(c->more[i]);
        }
        free(c->blocks);
        free(c->more);
        *c = (struct adi_cells){0};
}
