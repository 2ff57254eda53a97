/* tumble_private.h - between the files of the tumble operator.
 *
 *   tumble.c        the operator: events to cells, the watermark, when a cut has news
 *   tumble_names.c  strings of dimensions to numbers, and their order
 *   tumble_cells.c  windows, their cells, the cap
 *   tumble_rows.c   unsent cells to rows, windows that are final
 *   tumble_state.c  snapshot and restore
 *
 * A name is a string of a dimension or tenant, interned: equal strings have equal numbers. Numbers
 * never leave the process and decide nothing: rows are sorted by the strings.
 * A cell is two cache lines in a slab of the task, addressed by number (what most events add to,
 * impressions, clicks and spend, lies in the first, with the key); a window owns chunks of the
 * slab and one flat table from key to cell, and gives both back at once when it is dropped.
 */
#ifndef ADI_TUMBLE_PRIVATE_H
#define ADI_TUMBLE_PRIVATE_H

#include "operators/ops.h"

#define ADI_MINUTE_MS 60000
#define ADI_MINUTES_MAX (1ULL << 32) /* a window's number; the year 10136 */
#define ADI_PAYLOAD_BYTES 60000      /* rows of one payload, cells of one blob: about so many */
#define ADI_KEY_DIMS 5               /* of a cell's own lines; two more lie beside the slab */
#define ADI_NAME_EMPTY 0             /* the empty string; also a dimension that is not kept */
#define ADI_NAME_OTHER 1             /* AD_OTHER */

/* ---- lists of numbers ---- */
struct adi_list {
        uint32_t *items;
        uint32_t count, cap;
};
int adi_list_grow(struct adi_list *l, struct df_error *err);
static inline int adi_list_add(struct adi_list *l, uint32_t v, struct df_error *err)
{
        int rc = l->count < l->cap ? 0 : adi_list_grow(l, err);

        if (rc == 0)
                l->items[l->count++] = v;
        return rc;
}
void adi_list_release(struct adi_list *l);

/* ---- names ---- */
struct adi_name {
        uint32_t rank;  /* place among all names in byte order; right after adi_names_rank */
        uint32_t blob;  /* tumble_state.c: the blob that last named it, ... */
        uint32_t index; /* ... and as which */
        uint8_t len;
        uint8_t state; /* 0 free, 1 in use, 2 in use and marked */
        uint8_t bytes[AD_ID_MAX];
};
#define ADI_STAGE 128u /* events whose names are looked up together */
struct adi_name_word { /* a string's stand-in: exact up to 15 bytes, a hash beyond */
        uint64_t a, b;
};
struct adi_name_slot {
        struct adi_name_word word;
        uint32_t name, used;
};
struct adi_names {
        struct adi_name *list;
        uint32_t count, cap; /* of list, free ones included */
        struct adi_list free;
        struct adi_name_slot *slots;
        uint32_t mask;          /* slots - 1 */
        uint32_t used;          /* slots taken */
        uint32_t used_swept;    /* after the last sweep */
        struct adi_list sorted; /* in byte order */
        struct adi_list fresh;  /* not yet in sorted */
};
int adi_names_init(struct adi_names *n, struct df_error *err);
void adi_names_release(struct adi_names *n);
/* The number of a string of at most AD_ID_MAX bytes; valid until a sweep that does not keep it. */
int adi_names_get(struct adi_names *n, struct df_bytes s, uint32_t *ret, struct df_error *err);
/* The names of one string of each event, which stands at `offset` in struct ad_event. At most
 * ADI_STAGE events. */
int adi_names_stage(struct adi_names *n, const struct ad_event *const *events, uint32_t count,
                    size_t offset, uint32_t *ret, struct df_error *err);
int adi_names_add(struct adi_names *n, struct df_bytes s, struct adi_name_word w, uint32_t *ret,
                  struct df_error *err);                       /* the slow half: not yet known */
int adi_names_rank(struct adi_names *n, struct df_error *err); /* make ranks right */
/* Forget what is not marked: begin, keep..., end. */
bool adi_names_want_sweep(const struct adi_names *n);
static inline void adi_names_keep(struct adi_names *n, uint32_t name)
{
        n->list[name].state = 2;
}
int adi_names_sweep(struct adi_names *n, struct df_error *err);
static inline struct df_bytes adi_name_bytes(const struct adi_names *n, uint32_t name)
{
        return df_bytes(n->list[name].bytes, n->list[name].len);
}

struct adi_name_word adi_name_word_long(struct df_bytes s);
/* Injective up to 15 bytes: the bytes and the length. Never reads outside the string. */
static inline struct adi_name_word adi_name_word(struct df_bytes s)
{
        struct adi_name_word w = {0, (uint64_t)s.len << 56};
        const uint8_t *p = s.data;

        if (s.len > 15)
                return adi_name_word_long(s);
        if (s.len > 8) {
                w.a = df_load64(p);
                w.b |= df_load64(p + s.len - 8) >> 8 * (16 - s.len);
        } else if (s.len == 8) {
                w.a = df_load64(p);
        } else if (s.len >= 4) {
                w.a = df_load32(p) | (uint64_t)df_load32(p + s.len - 4) << 8 * (s.len - 4);
        } else if (s.len > 0) {
                w.a = p[0] | (uint64_t)p[s.len >> 1] << 8 | (uint64_t)p[s.len - 1] << 16;
        }
        return w;
}
static inline uint32_t adi_name_hash(struct adi_name_word w)
{
        return (uint32_t)df_hash_fold(w.a ^ 0x9e3779b97f4a7c15u, w.b ^ 0xd6e8feb86659fd93u);
}
static inline bool adi_name_word_is_exact(struct adi_name_word w)
{
        return w.b >> 56 != 0xff;
}
/* The name with this word and its hash, or UINT32_MAX. */
static inline uint32_t adi_names_find(const struct adi_names *n, struct df_bytes s,
                                      struct adi_name_word w, uint32_t hash)
{
        for (uint32_t i = hash & n->mask; n->slots[i].used; i = (i + 1) & n->mask) {
                const struct adi_name_slot *slot = &n->slots[i];

                if (slot->word.a == w.a && slot->word.b == w.b &&
                    (adi_name_word_is_exact(w) || df_bytes_eq(s, adi_name_bytes(n, slot->name))))
                        return slot->name;
        }
        return UINT32_MAX;
}

/* ---- cells ---- */
enum adi_cell_state {
        ADI_UNSENT = 1u << 0,        /* its row differs from the last one sent; in unsent[] */
        ADI_CHANGED = 1u << 1,       /* its value differs from the last one stored */
        ADI_LISTED = 1u << 2,        /* in `touched` */
        ADI_STORED_UNSENT = 1u << 3, /* the store says unsent */
};
struct adi_cell {
        uint32_t tenant;
        uint32_t tag; /* grouping << 24 | currency */
        uint32_t dims[ADI_KEY_DIMS];
        uint32_t state;
        df_nanos spend;
        uint64_t counts[6]; /* impressions, clicks, conversions; the same, invalid */
        df_nanos other[2];  /* payout, value */
};
_Static_assert(sizeof(struct adi_cell) == 128, "two cache lines");
_Static_assert(offsetof(struct adi_cell, counts[2]) == 64, "most events touch the first alone");

/* 0 spend, 1 payout, 2 value. */
static inline df_nanos *adi_cell_money(struct adi_cell *c, int i)
{
        return i == 0 ? &c->spend : &c->other[i - 1];
}
static inline df_nanos adi_cell_sum(const struct adi_cell *c, int i)
{
        return i == 0 ? c->spend : c->other[i - 1];
}

struct adi_cell_key {
        uint32_t tenant;
        uint32_t tag;
        uint32_t dims[AD_DIM_COUNT]; /* ADI_NAME_EMPTY beyond the grouping's */
};
static inline uint32_t adi_tag_grouping(uint32_t tag)
{
        return tag >> 24;
}
static inline uint32_t adi_tag(uint32_t grouping, uint32_t currency)
{
        return grouping << 24 | currency;
}
static inline uint32_t adi_currency(struct df_bytes c) /* big endian, so it sorts like the text */
{
        if (c.len != 3)
                return 'X' << 16 | 'X' << 8 | 'X';
        return (uint32_t)c.data[0] << 16 | (uint32_t)c.data[1] << 8 | c.data[2];
}
/* A key's hash: its parts are added up, so that they may come from anywhere. */
static inline uint64_t adi_hash_of(uint32_t tenant, uint32_t tag)
{
        return tenant * 0xd1b54a32d192ed03u + tag * 0xaef17502108ef2d9u;
}
static inline uint64_t adi_hash_dim(uint32_t name,
                                    uint32_t place) /* of the grouping's dimensions */
{
        static const uint64_t odd[AD_DIM_COUNT] = {
                0xa0761d6478bd642fu, 0xe7037ed1a0b428dbu, 0x8ebc6af09c88c6e3u, 0x589965cc75374cc3u,
                0x1d8e4e27c47d124fu, 0xeb44accab455d165u, 0x9e6c63d0876a9a47u,
        };

        return name * odd[place];
}
static inline uint32_t adi_hash_end(uint64_t sum)
{
        return (uint32_t)(df_hash_fold(sum, 0x9fb21c651e98df25u) >> 16);
}
/* Of a key whose first dim_count dimensions are kept. */
static inline uint32_t adi_cell_hash(const struct adi_cell_key *k, uint32_t dim_count)
{
        uint64_t sum = adi_hash_of(k->tenant, k->tag);

        for (uint32_t i = 0; i < dim_count; i++)
                sum += adi_hash_dim(k->dims[i], i);
        return adi_hash_end(sum);
}

#define ADI_BLOCK_CELLS 16384u
#define ADI_CHUNK_MIN 4u     /* cells of a window's first chunk; each next is twice as large, ... */
#define ADI_CHUNK_CLASSES 9u /* ... up to 4 << 8 = 1,024 */
struct adi_slot {
        uint32_t hash;
        uint32_t cell; /* 0 = empty */
};
struct adi_pane { /* W7: keys of one tenant in one window */
        uint32_t tenant, used;
        uint32_t keys[AD_GROUPINGS_MAX];
};
struct adi_window {
        uint64_t minute;
        struct adi_slot *slots;
        uint32_t slot_bits;
        uint32_t cells;
        struct adi_list chunks;
        struct adi_pane *panes; /* flat table */
        uint32_t pane_mask, pane_count;
        bool careful; /* a sum has come near 128 bits: look before adding */

        struct adi_list unsent[2];      /* of grouping 0, of the others */
        struct adi_list touched;        /* what the next snapshot looks at */
        uint32_t first_blob, next_blob; /* numbers of its blobs in the store */
        uint64_t stored_cells;          /* in these blobs, superseded ones too */
        bool stored_unsent;             /* ... and one of them says unsent (or did) */
};
struct adi_gone { /* a dropped window whose blobs the next snapshot deletes */
        uint64_t minute;
        uint32_t first_blob, next_blob;
};
struct adi_cells {
        const struct ad_groupings *groupings;
        uint32_t cap;
        bool wide; /* a grouping keeps more than ADI_KEY_DIMS dimensions */
        struct adi_cell **blocks;
        uint32_t (**more)[2];             /* beside blocks: dims 5 and 6; only when wide */
        uint32_t block_count, block_used; /* cells handed out of the last block */
        struct adi_list free_chunks[ADI_CHUNK_CLASSES];
        void *free_tables[32];       /* by bits; each begins with a pointer to the next */
        struct adi_window **windows; /* flat table by minute */
        uint32_t window_mask, window_count;
};
int adi_cells_init(struct adi_cells *c, const struct ad_groupings *g, uint32_t cap,
                   struct df_error *err);
void adi_cells_release(struct adi_cells *c);
struct adi_window *adi_window_find(const struct adi_cells *c, uint64_t minute); /* or NULL */
int adi_window_get(struct adi_cells *c, uint64_t minute, struct adi_window **ret,
                   struct df_error *err); /* created when new */
void adi_window_drop(struct adi_cells *c, struct adi_window *w);
uint32_t adi_window_cell(const struct adi_window *w,
                         uint32_t i); /* the i-th in order of creation */

static inline struct adi_cell *adi_cell_at(const struct adi_cells *c, uint32_t cell)
{
        return &c->blocks[cell / ADI_BLOCK_CELLS][cell % ADI_BLOCK_CELLS];
}
void adi_cell_key_of(const struct adi_cells *c, uint32_t cell, struct adi_cell_key *ret);
/* Its dimensions beyond ADI_KEY_DIMS; only when wide. */
static inline const uint32_t *adi_cell_wide(const struct adi_cells *c, uint32_t cell)
{
        return c->more[cell / ADI_BLOCK_CELLS][cell % ADI_BLOCK_CELLS];
}
bool adi_cell_differs_wide(const struct adi_cells *c, uint32_t cell, const struct adi_cell_key *k);
static inline bool adi_cell_is(const struct adi_cells *c, uint32_t cell,
                               const struct adi_cell_key *k)
{
        return memcmp(adi_cell_at(c, cell), k, 8 + 4 * ADI_KEY_DIMS) == 0 &&
               !(c->wide && adi_cell_differs_wide(c, cell, k));
}
/* The first cell with this hash, or 0. */
static inline uint32_t adi_cell_guess(const struct adi_window *w, uint32_t hash)
{
        uint32_t mask = (1u << w->slot_bits) - 1, i = hash & mask;

        while (w->slots[i].cell && w->slots[i].hash != hash)
                i = (i + 1) & mask;
        return w->slots[i].cell;
}
/* The cell with exactly this key, or 0. */
static inline uint32_t adi_cell_find(const struct adi_cells *c, const struct adi_window *w,
                                     const struct adi_cell_key *k, uint32_t hash)
{
        uint32_t mask = (1u << w->slot_bits) - 1;

        for (uint32_t i = hash & mask; w->slots[i].cell; i = (i + 1) & mask)
                if (w->slots[i].hash == hash && adi_cell_is(c, w->slots[i].cell, k))
                        return w->slots[i].cell;
        return 0;
}
/* A new cell of zeros; the key is not there. counted: it is one of the cap's keys. */
int adi_cell_add(struct adi_cells *c, struct adi_window *w, const struct adi_cell_key *k,
                 uint32_t hash, uint32_t *ret, struct df_error *err);
/* W7: another key of this tenant and grouping must fold into __other__. */
bool adi_cap_reached(const struct adi_cells *c, const struct adi_window *w,
                     const struct adi_cell_key *k);
/* k becomes the key of its __other__. */
void adi_cell_key_other(const struct adi_cells *c, struct adi_cell_key *k);

/* One more addition of 64 bits might not fit. */
static inline bool adi_near_limit(df_nanos v)
{
        return ((uint64_t)(v >> 64) + (1ULL << 62)) >> 63;
}
int adi_mark_unsent(struct adi_cells *c, struct adi_window *w, uint32_t cell, struct df_error *err);
/* The next snapshot looks at it. */
int adi_mark_touched(struct adi_cells *c, struct adi_window *w, uint32_t cell,
                     struct df_error *err);

/* ---- the operator ---- */
struct adi_staged;
struct adi_tumble {
        struct df_operator op;
        struct adi_names names;
        struct adi_cells cells;
        struct adi_staged *staged;
        uint32_t dims[AD_DIM_COUNT]; /* those that some grouping keeps */
        uint32_t dim_count;
        struct adi_window **due; /* of one cut */
        uint32_t due_count, due_cap;
        struct adi_gone *gone;
        uint32_t gone_count, gone_cap;
        uint32_t blob; /* count of blobs written by this instance: marks names of one blob */
        struct df_buf buf;
};

static inline int64_t adi_window_start(const struct adi_window *w)
{
        return (int64_t)w->minute * ADI_MINUTE_MS;
}
static inline int64_t adi_window_end(const struct adi_window *w)
{
        return adi_window_start(w) + ADI_MINUTE_MS;
}
int64_t adi_settled_ms(const struct adi_tumble *t, const struct adi_window *w); /* end + grace */
/* The smallest watermark at which a cut has news (K12). */
void adi_tumble_news(struct adi_tumble *t);

/* tumble_rows.c */
int adi_rows_cut(struct adi_tumble *t, struct df_out *out, struct df_error *err);
/* tumble_state.c */
int adi_tumble_put(struct adi_tumble *t, struct df_error *err);
int adi_tumble_load(struct adi_tumble *t, struct df_error *err);

#endif
